//! One `.llmar` file: everything a recogniser needs. FORMAT.md beside this file is the specification.

mod read;
mod schema;
mod write;

pub use read::{Checkpoint, ReadOptions};
pub use schema::{Calibration, FORMAT_VERSION, Label, Metadata, Prompt, TokenizerKind, TokenizerMeta};
pub use write::{Tensor, TensorData, write_checkpoint};
