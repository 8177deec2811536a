//! Stage 2: LoRA on the language model, so that it reads action sentences and answers with the action's name.
//!
//! The base weights stay as they are (but for the paper's comparison that tunes all of them). Codes enter as embeddings, an affine map of the
//! codebook's points; the loss is the cross-entropy of the answer's tokens and EOS alone, or, as a comparison, that of a linear head on the last hidden state.

mod adapter;
mod config;
mod head;
mod llama;
mod memory;
mod needs;
mod prompt;
mod reading;
pub mod score;
mod sentences;
#[cfg(test)]
mod tests;
mod train;
mod tuned;
#[cfg(test)]
mod variants;

pub use adapter::{CodeMap, Codebook, Lora};
pub use config::{
    Adapter, Calibration, Config, Form, Map, Point, Precision, Prompt, Start, Target, Train, Tune, Variation, Words as WordSettings,
};
pub use head::Head;
pub use llama::{Dropout, Llama, Packing};
pub use memory::Need;
pub use prompt::Words;
pub use reading::Reading;
pub use sentences::{Sentences, code_rows, plain};
pub use train::{run, train};
