//! From the encoder's input to the action sentence.

mod encoder;
pub mod poincare;
mod quantizer;
#[cfg(test)]
mod tests;

pub use encoder::{ConvShape, Encoder, EncoderConfig, EncoderScratch};
pub use quantizer::{ActionSentence, Quantizer, QuantizerConfig};
