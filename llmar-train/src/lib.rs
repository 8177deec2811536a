//! Training for libllmar: import → vqvae (stage 1) → lora (stage 2) → export → evaluate → report.

#[cfg(feature = "torch")]
pub mod ablate;
pub mod artifacts;
pub mod cli;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod health;
pub mod import;
#[cfg(feature = "torch")]
pub mod lora;
#[cfg(feature = "torch")]
pub mod losses;
pub mod peft;
pub mod report;
pub mod settings;
#[cfg(feature = "torch")]
pub mod torch;
#[cfg(feature = "torch")]
pub mod vqvae;

#[cfg(test)]
mod testing;

pub use error::{Error, Result};
