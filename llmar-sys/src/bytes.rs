//! Read-only bytes that a checkpoint's tensors are views of: a mapped file, owned memory or the caller's memory.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Where the bytes of a checkpoint live.
#[derive(Debug)]
enum Owner {
    Mapped(memmap2::Mmap),
    Owned(AlignedBytes),
    Static(&'static [u8]),
}

/// Owned bytes whose start is aligned to 64, as a mapped file's is.
#[derive(Debug)]
struct AlignedBytes {
    lines: Vec<CacheLine>,
    len: usize,
}

#[derive(Clone, Copy, Debug, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

/// Memory that grows while it is filled and then becomes [`Bytes`] without a copy. Running out of memory is an error here, not an abort.
#[derive(Debug, Default)]
pub struct BytesBuilder {
    lines: Vec<CacheLine>,
    len: usize,
}

impl BytesBuilder {
    /// Room for `extra` bytes behind those that are filled; its content has no meaning.
    pub fn spare(&mut self, extra: usize) -> std::result::Result<&mut [u8], std::collections::TryReserveError> {
        let end = self.len.saturating_add(extra);
        let missing = end.div_ceil(64).saturating_sub(self.lines.len());
        self.lines.try_reserve(missing)?;
        self.lines.resize(self.lines.len() + missing, CacheLine([0; 64]));
        Ok(&mut bytemuck::cast_slice_mut(&mut self.lines)[self.len..end])
    }

    /// Counts the first `filled` bytes of the last [`spare`](Self::spare) as filled.
    pub fn fill(&mut self, filled: usize) {
        self.len = self.len.saturating_add(filled).min(self.lines.len() * 64);
    }

    /// Number of filled bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The filled bytes.
    pub fn finish(self) -> Bytes {
        let owned = AlignedBytes { lines: self.lines, len: self.len };
        Bytes { range: 0..self.len, owner: Arc::new(Owner::Owned(owned)) }
    }
}

/// A range of shared, immutable bytes. Cloning is cheap; the owner lives as long as any view of it.
#[derive(Clone, Debug)]
pub struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

impl Bytes {
    /// Views a whole mapped file.
    pub fn from_mmap(map: memmap2::Mmap) -> Self {
        let range = 0..map.len();
        Self { owner: Arc::new(Owner::Mapped(map)), range }
    }

    /// Copies `bytes` to memory aligned to 64.
    pub fn copy_from(bytes: &[u8]) -> Self {
        let mut lines = vec![CacheLine([0; 64]); bytes.len().div_ceil(64)];
        bytemuck::cast_slice_mut::<CacheLine, u8>(&mut lines)[..bytes.len()].copy_from_slice(bytes);
        let owned = AlignedBytes { lines, len: bytes.len() };
        Self { range: 0..bytes.len(), owner: Arc::new(Owner::Owned(owned)) }
    }

    /// Views memory that outlives every model, without a copy.
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self { range: 0..bytes.len(), owner: Arc::new(Owner::Static(bytes)) }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        let all = match &*self.owner {
            Owner::Mapped(map) => &map[..],
            Owner::Owned(owned) => &bytemuck::cast_slice(&owned.lines)[..owned.len],
            Owner::Static(bytes) => bytes,
        };
        &all[self.range.clone()]
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A view of a part; `Err` when it reaches beyond this view.
    pub fn slice(&self, part: Range<usize>) -> Result<Self> {
        if part.start > part.end || part.end > self.len() {
            return Err(Error::argument("byte range", format!("within 0..{}", self.len()), format!("{part:?}")));
        }
        let start = self.range.start;
        Ok(Self { owner: Arc::clone(&self.owner), range: start + part.start..start + part.end })
    }

    /// The bytes as numbers of type `T`; `Err` when length or alignment do not fit.
    pub fn cast<T: bytemuck::AnyBitPattern>(&self) -> Result<&[T]> {
        bytemuck::try_cast_slice(self.as_slice())
            .map_err(|e| Error::format("tensor data", format!("{} bytes do not view as {}: {e}", self.len(), std::any::type_name::<T>())))
    }
}
