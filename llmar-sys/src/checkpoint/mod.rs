//! One `.llmar` file: everything a recogniser needs. FORMAT.md beside this file is the specification.

mod check;
mod header;
mod inventory;
mod read;
mod replace;
mod schema;
mod values;
mod write;

pub use header::{Dtype, TensorInfo};
pub use read::{Checkpoint, ReadOptions};
pub use replace::replace_file;
pub use schema::{Calibration, FORMAT_VERSION, Label, Metadata, Prompt, TokenizerKind, TokenizerMeta, Words};
pub use write::{Tensor, TensorData, write_checkpoint};

// Tensors are viewed where they lie, and they lie in little-endian order.
#[cfg(target_endian = "big")]
compile_error!("libllmar views its checkpoints in place and needs a little-endian machine");
