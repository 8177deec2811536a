//! Training for libllmar: import → vqvae (stage 1) → lora (stage 2) → export → evaluate.

pub mod artifacts;
pub mod cli;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod import;

pub use error::{Error, Result};
