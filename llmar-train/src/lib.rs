//! Training for libllmar: import → vqvae (stage 1) → lora (stage 2) → export → evaluate.

pub mod artifacts;
pub mod error;

pub use error::{Error, Result};
