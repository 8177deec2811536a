//! Stage 2: LoRA on the language model, so that it reads action sentences and answers with the action's name.
//!
//! The base weights stay as they are. Codes enter as embeddings, an affine map of the codebook's points; the loss is the cross-entropy of the
//! answer's tokens and EOS alone.

mod adapter;
mod config;
mod llama;
mod prompt;
pub mod score;
mod sentences;
#[cfg(test)]
mod tests;
mod train;

pub use adapter::{CodeMap, Lora};
pub use config::{Adapter, Calibration, Config, Form, Map, Point, Prompt, Target, Train, Variation};
pub use llama::{Llama, Packing};
pub use prompt::Words;
pub use sentences::plain;
pub use train::{run, train};
