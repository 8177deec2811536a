//! From the encoder's input to the action sentence.

mod causal;
mod encoder;
pub mod poincare;
mod quantizer;
#[cfg(test)]
mod tests;

pub use causal::{CausalEncoder, CausalScratch, EncoderPast};
pub use encoder::{ConvShape, Encoder, EncoderConfig, EncoderScratch};
pub use quantizer::{ActionSentence, Quantizer, QuantizerConfig};
