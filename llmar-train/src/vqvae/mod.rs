//! Stage 1: the action tokenizer. A convolutional VQ-VAE over skeleton clips with a codebook in the Poincaré ball.
//!
//! [`train`] runs two phases. In the first, the encoder learns features (supervised, reconstruction, or nothing at all); then the codebook
//! starts from k-means on these features, and in the second phase everything goes through it. The paper's own form is a first phase of no steps.

mod augment;
mod codebook;
mod config;
mod dataset;
mod frozen;
mod kmeans;
mod live;
mod losses;
mod measure;
mod model;
mod parts;
mod probe;
mod quantizer;
#[cfg(test)]
pub(crate) mod tests;
mod train;

pub use augment::Augment;
pub use config::{Config, Data, Losses, Phase, Update};
pub use dataset::ClipSet;
pub use frozen::Stage1;
pub use live::{Batch as WindowBatch, Clips as Streams, Ends, Windows};
pub use measure::{LENGTHS, Told, told};
pub use model::{Decoder, Encoder, Head};
pub use quantizer::Ball;
pub use train::{run, train};
