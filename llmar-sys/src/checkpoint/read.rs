//! Opening a checkpoint: everything is checked before it is believed.

use std::fs::File;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::check::{parse_document, parse_metadata};
use super::header::{self, Dtype, Table, TensorInfo};
use super::inventory::{check_inventory, find, find_matrix};
use super::schema::Metadata;
use super::values::{check_finite_f16, check_values};
use crate::bytes::Bytes;
use crate::device::Matrix;
use crate::error::{Error, Result};
use crate::text::Tokenizer;

/// How a checkpoint is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Recompute the SHA-256 over the tensors, and everything else that [`Checkpoint::verify`] does (reads the whole file).
    pub verify: bool,
}

/// An opened checkpoint: checked metadata and views of its tensors.
#[derive(Debug)]
pub struct Checkpoint {
    metadata: Metadata,
    /// The data section.
    data: Bytes,
    table: Table,
    file_len: u64,
}

impl Checkpoint {
    /// Maps and checks a file. The file must not be changed or truncated while it is mapped; a new one may be renamed over it, which
    /// is how [`write_checkpoint`](super::write_checkpoint) replaces it.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or mapped, otherwise those of [`from_bytes`](Self::from_bytes).
    pub fn open(path: &Path, options: ReadOptions) -> Result<Self> {
        // Asked before opening: opening a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
            return Err(Error::format(path.display().to_string(), "expected a checkpoint file, got something that is no regular file"));
        }
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the mapping is read-only and this module's documentation, like `Model::open`'s and the C header's, demands that nobody
        // writes to the file while it is open; files that this library replaces are renamed over, never written in place.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
        Self::from_bytes(Bytes::from_mmap(map), options)
    }

    /// Checks a file that is already in memory.
    ///
    /// # Errors
    /// [`Error::Version`] for another format version; [`Error::Format`], [`Error::Shape`] or [`Error::Limit`] for anything that FORMAT.md does
    /// not allow; with `verify`, [`Error::Checksum`] when the tensors are not those that were written.
    pub fn from_bytes(file: Bytes, options: ReadOptions) -> Result<Self> {
        let header = header::parse(file.as_slice())?;
        let document = parse_document(&header.document)?;
        let digest = header::checksum(file.as_slice(), &header)?;
        if digest != header.checksum {
            let detail = format!("its SHA-256 is {digest}, it says {}: the header is damaged", header.checksum);
            return Err(Error::format("checkpoint header", detail));
        }
        let metadata = parse_metadata(&document)?;
        check_inventory(&metadata, &header.table)?;
        let data = file.slice(header.data_start..file.len())?;
        for (name, info) in &header.table {
            check_values(name, info.dtype, &data.slice(info.range.clone())?)?;
        }
        let checkpoint = Self { metadata, data, table: header.table, file_len: file.len() as u64 };
        if options.verify {
            checkpoint.verify()?;
        }
        Ok(checkpoint)
    }

    /// Recomputes the SHA-256 over the data section, looks for NaN and infinity in f16 weights and builds the tokenizer. Reads the whole file.
    ///
    /// # Errors
    /// [`Error::Checksum`] or [`Error::Format`].
    pub fn verify(&self) -> Result<()> {
        let got = header::hex(&Sha256::digest(self.data.as_slice()));
        if got != self.metadata.tensors_sha256 {
            return Err(Error::Checksum { expected: self.metadata.tensors_sha256.clone(), got });
        }
        for (name, info) in self.table.iter().filter(|(_, info)| info.dtype == Dtype::F16) {
            check_finite_f16(name, self.data.slice(info.range.clone())?.cast()?)?;
        }
        Tokenizer::read(self).map(|_| ())
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The same tensors under other metadata, for a model whose language model is made up.
    #[cfg(feature = "cuda")]
    pub(crate) fn with_metadata(&self, metadata: Metadata) -> Self {
        Self { metadata, data: self.data.clone(), table: self.table.clone(), file_len: self.file_len }
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Name, element type, shape and place of every tensor, in order of names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.table.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// A matrix [rows, cols] stored under `name` (scheme found from the tensors that are there); shape checked.
    ///
    /// # Errors
    /// [`Error::Format`] when a tensor is missing or of another type, [`Error::Shape`] when it has another shape.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let (scheme, tensors) = find_matrix(&self.table, name, rows, cols)?;
        let views = tensors.into_iter().map(|(_, info)| self.data.slice(info.range.clone()));
        Matrix::from_tensors(scheme, rows, cols, views.collect::<Result<_>>()?)
    }

    /// An f32 tensor of exactly `shape`; every value finite.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn f32s(&self, name: &str, shape: &[usize]) -> Result<Bytes> {
        let (_, info) = find(&self.table, name, Dtype::F32, shape)?;
        self.data.slice(info.range.clone())
    }

    /// A u32 tensor of one dimension (tokenizer tables).
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn u32s(&self, name: &str) -> Result<Bytes> {
        self.list(name, Dtype::U32)
    }

    /// A u8 tensor of one dimension (tokenizer pieces).
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn u8s(&self, name: &str) -> Result<Bytes> {
        self.list(name, Dtype::U8)
    }

    fn list(&self, name: &str, dtype: Dtype) -> Result<Bytes> {
        let len = match self.table.get(name).map(|info| info.shape.as_slice()) {
            Some(&[len]) => len,
            _ => 0, // `find` says what is wrong
        };
        let (_, info) = find(&self.table, name, dtype, &[len])?;
        self.data.slice(info.range.clone())
    }
}
