//! Opening a checkpoint: everything is checked before it is believed.

use std::path::Path;

use super::schema::Metadata;
use crate::bytes::Bytes;
use crate::device::Matrix;
use crate::error::Result;

/// How a checkpoint is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Recompute the SHA-256 over the tensors (reads the whole file).
    pub verify: bool,
}

/// An opened checkpoint: checked metadata and views of its tensors.
#[derive(Debug)]
pub struct Checkpoint {
    metadata: Metadata,
}

impl Checkpoint {
    /// Maps and checks a file.
    pub fn open(_path: &Path, _options: ReadOptions) -> Result<Self> {
        todo!()
    }

    /// Checks a file that is already in memory.
    pub fn from_bytes(_bytes: Bytes, _options: ReadOptions) -> Result<Self> {
        todo!()
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        todo!()
    }

    /// A matrix [rows, cols] stored under `name` (scheme found from the tensors that are there); shape checked.
    pub fn matrix(&self, _name: &str, _rows: usize, _cols: usize) -> Result<Matrix> {
        todo!()
    }

    /// An f32 tensor of exactly `shape`; every value finite.
    pub fn f32s(&self, _name: &str, _shape: &[usize]) -> Result<Bytes> {
        todo!()
    }

    /// A u32 tensor of one dimension (tokenizer tables).
    pub fn u32s(&self, _name: &str) -> Result<Bytes> {
        todo!()
    }

    /// A u8 tensor of one dimension (tokenizer pieces).
    pub fn u8s(&self, _name: &str) -> Result<Bytes> {
        todo!()
    }
}
