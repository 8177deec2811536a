//! Writing a checkpoint: to a temporary file beside the target, synced, then renamed over it.

use std::borrow::Cow;
use std::path::Path;

use super::schema::Metadata;
use crate::error::Result;

/// The element types of a checkpoint.
#[derive(Clone, Debug)]
pub enum TensorData<'a> {
    /// f32
    F32(Cow<'a, [f32]>),
    /// IEEE half
    F16(Cow<'a, [half::f16]>),
    /// u8
    U8(Cow<'a, [u8]>),
    /// u32
    U32(Cow<'a, [u32]>),
}

/// One named tensor on its way into a file.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Name; FORMAT.md lists them.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: TensorData<'a>,
}

/// Writes `tensors` and `metadata` (whose `tensors_sha256` is filled in here). The previous file at `path` is
/// intact until the new one is complete on disk.
pub fn write_checkpoint(_path: &Path, _metadata: &Metadata, _tensors: &[Tensor<'_>]) -> Result<()> {
    todo!()
}
