//! An opened model: immutable, shared by recognisers of any number of threads.

use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::Metadata;
use crate::error::Result;

/// How a model is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Recompute the SHA-256 over the tensors (reads the whole file).
    pub verify: bool,
}

/// A checkpoint with its stages ready to run.
#[derive(Debug)]
pub struct Model {
    metadata: Metadata,
}

impl Model {
    /// Maps a `.llmar` file. The file must not be changed while the model lives (a new one may be renamed over it).
    pub fn open(_path: &Path, _options: OpenOptions) -> Result<Arc<Self>> {
        todo!()
    }

    /// Copies a `.llmar` file that is in memory.
    pub fn from_bytes(_bytes: &[u8], _options: OpenOptions) -> Result<Arc<Self>> {
        todo!()
    }

    /// Uses memory that is never freed, without a copy.
    pub fn from_static(_bytes: &'static [u8], _options: OpenOptions) -> Result<Arc<Self>> {
        todo!()
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Bytes of the checkpoint.
    pub fn file_len(&self) -> u64 {
        todo!()
    }
}
