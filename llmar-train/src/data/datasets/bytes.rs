//! A file's bytes in little-endian order, read one after another; errors name the byte.

use std::path::Path;

use crate::error::{Error, Result};

/// Where reading stands.
#[derive(Clone, Debug)]
pub(super) struct Bytes<'a> {
    path: &'a Path,
    /// What the bytes are a part of, for errors; empty for the file itself.
    part: String,
    bytes: &'a [u8],
    at: usize,
    /// Bytes of the file or part before the first of `bytes`, for errors.
    before: usize,
}

impl<'a> Bytes<'a> {
    /// All bytes of a file.
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self::part(path, "", bytes, 0)
    }

    /// Some of a file's bytes, or of a part that errors call `part`; `before` bytes of it come first.
    pub fn part(path: &'a Path, part: impl Into<String>, bytes: &'a [u8], before: usize) -> Self {
        Self { path, part: part.into(), bytes, at: 0, before }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..len)) {
            Some(taken) => {
                self.at += len;
                Ok(taken)
            }
            None => Err(self.wrong(format!("expected {len} bytes of {what}, got the end after {}", self.left()))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub fn u16(&mut self, what: &str) -> Result<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn f32(&mut self, what: &str) -> Result<f32> {
        self.array(what).map(f32::from_le_bytes)
    }

    /// An error at the present byte.
    pub fn wrong(&self, detail: impl std::fmt::Display) -> Error {
        self.wrong_at(self.at, detail)
    }

    /// An error at a byte of these.
    pub fn wrong_at(&self, at: usize, detail: impl std::fmt::Display) -> Error {
        Error::format(self.path.display(), format!("{}byte {}: {detail}", self.part, self.before + at))
    }
}
