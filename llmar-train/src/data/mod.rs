//! Data sets: from the formats they are published in to clip archives, and what an archive holds before anything is trained on it.
//!
//! ```text
//! published files ──► datasets/ (one file a format) ──► convert ──► writer ──► clip archive ──► inspect, vqvae, lora, evaluate
//! ```

mod convert;
pub mod datasets;
mod inspect;
mod writer;

#[cfg(test)]
mod tests;

pub use convert::{Conversion, convert, run};
pub use inspect::{ClassCount, Frames, Missing, SplitCount, Summary, inspect, summarize};
