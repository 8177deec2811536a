//! Reading an artifact, whole or one tensor at a time from a mapped file.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use llmar::bytes::Bytes;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use super::{AdapterMeta, Answer, Kind, Reads, Store};
use crate::error::{Error, Result};

/// Largest header that is parsed.
const MAX_HEADER_BYTES: usize = 100 << 20;

/// A mapped artifact whose tensors are read one at a time, for models that are large.
#[derive(Clone, Debug)]
pub struct Opened<M> {
    /// The document.
    pub meta: M,
    path: PathBuf,
    bytes: Bytes,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    store: Store,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// Maps an artifact whose document is of kind `M`; structure is checked, values when they are read.
pub fn open<M: Kind>(path: &Path) -> Result<Opened<M>> {
    parse(path, map_file(path)?)
}

/// [`open`] for bytes that are already there; `path` is for errors.
pub(super) fn parse<M: Kind>(path: &Path, bytes: Bytes) -> Result<Opened<M>> {
    let wrong = |detail: String| Error::format(path.display(), detail);
    let (data, metadata) = read_header(bytes.as_slice()).map_err(wrong)?;
    let document = metadata.metadata().as_ref().and_then(|m| m.get(M::KEY)).ok_or_else(|| {
        let mut keys: Vec<&str> = metadata.metadata().iter().flatten().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        wrong(format!("expected `{}` in the metadata, found {keys:?}", M::KEY))
    })?;
    let meta = serde_json::from_str(document).map_err(|e| wrong(format!("metadata `{}`: {e}", M::KEY)))?;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let store =
            Store::of(info.dtype).ok_or_else(|| wrong(format!("tensor `{name}`: expected f16, f32, u8 or u32, got {:?}", info.dtype)))?;
        let range = data + info.data_offsets.0..data + info.data_offsets.1;
        tensors.insert(name, Entry { store, shape: info.shape.clone(), range });
    }
    Ok(Opened { meta, path: path.to_path_buf(), bytes, tensors })
}

impl<M> Opened<M> {
    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape and storage of a tensor, if there is one.
    pub fn info(&self, name: &str) -> Option<(&[usize], Store)> {
        self.tensors.get(name).map(|entry| (entry.shape.as_slice(), entry.store))
    }

    /// A float tensor of exactly `shape`, widened to f32; every value finite.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        if entry.shape != shape {
            return Err(self.wrong(format!("tensor `{name}`: expected shape {shape:?}, got {:?}", entry.shape)));
        }
        let raw = &self.bytes.as_slice()[entry.range.clone()];
        let values: Vec<f32> = match entry.store {
            Store::F16 => raw.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Store::F32 => raw.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Store::U8 | Store::U32 => return Err(self.wrong(format!("tensor `{name}`: expected floats, got {:?}", entry.store))),
        };
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(self.wrong(format!("tensor `{name}`: value {at} is {}, expected a finite number", values[at]))),
            None => Ok(values),
        }
    }

    /// A u8 tensor of one dimension.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        self.list(name, Store::U8)
    }

    /// A u32 tensor of one dimension.
    pub fn integers(&self, name: &str) -> Result<Vec<u32>> {
        Ok(self.list(name, Store::U32)?.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect())
    }

    fn list(&self, name: &str, store: Store) -> Result<&[u8]> {
        let entry = self.entry(name)?;
        if entry.store != store || entry.shape.len() != 1 {
            return Err(
                self.wrong(format!("tensor `{name}`: expected {store:?} of one dimension, got {:?} {:?}", entry.store, entry.shape))
            );
        }
        Ok(&self.bytes.as_slice()[entry.range.clone()])
    }

    /// SHA-256 of the file, lowercase hex. Reads all of it.
    pub fn sha256(&self) -> String {
        sha256_hex(self.bytes.as_slice())
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| self.wrong(format!("tensor `{name}` is missing")))
    }

    /// An error about this file.
    pub fn wrong(&self, detail: impl ToString) -> Error {
        Error::format(self.path.display(), detail)
    }
}

impl Opened<AdapterMeta> {
    /// `Err` for an adapter that only the trainer can ask. One with a head: LoRA and codes were taught to please the head, and without it no label's
    /// words follow. One that reads features: it was never shown a code.
    pub fn fits_the_runtime(&self) -> Result<()> {
        let unsupported = |name: &str, expected: &str, got: &str| {
            let [name, expected, got] = [name, expected, got].map(str::to_owned);
            Err(Error::Unsupported { file: self.path.clone(), name, expected, got })
        };
        match (self.meta.answer, self.meta.reads) {
            (Answer::LabelText, Reads::Codes) => Ok(()),
            (Answer::LinearHead, _) => {
                let expected = "label_text, as outside the trainer labels are told by their words and there is no head";
                unsupported("answer", expected, "linear_head")
            }
            (_, Reads::Features) => unsupported("reads", "codes, as outside the trainer sentences are made of them", "features"),
        }
    }
}

/// Start of the data, and the checked header, of a safetensors file.
///
/// Not `SafeTensors::read_metadata`: that adds a length from the file to others without a check for overflow.
pub fn read_header(bytes: &[u8]) -> std::result::Result<(usize, Metadata), String> {
    let (length, rest) = bytes.split_first_chunk().ok_or("expected a safetensors file, got fewer than 8 bytes")?;
    let length = u64::from_le_bytes(*length);
    let json = usize::try_from(length).ok().filter(|&n| n <= MAX_HEADER_BYTES).and_then(|n| rest.get(..n));
    let json = json.ok_or_else(|| format!("expected a safetensors file, got a header of {length} bytes in a file of {}", bytes.len()))?;
    let metadata: Metadata = serde_json::from_slice(json).map_err(|e| format!("expected a safetensors header: {e}"))?;
    let left = rest.len() - json.len();
    if metadata.data_len() != left {
        return Err(format!("expected {} bytes of tensors, got {left}", metadata.data_len()));
    }
    Ok((bytes.len() - left, metadata))
}

/// Maps a file read-only.
pub fn map_file(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(Error::io(path))?;
    let len = file.metadata().map_err(Error::io(path))?.len();
    if len == 0 {
        return Err(Error::format(path.display(), "the file is empty")); // and an empty file cannot be mapped
    }
    // SAFETY: the map is read-only and private to this process's view. It is sound as long as nobody changes the file while it lives; this
    // program itself replaces files by rename and never in place, and the manual asks the same of others.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
    Ok(Bytes::from_mmap(map))
}

/// SHA-256 of a file in lowercase hex.
///
/// # Errors
/// Those of [`map_file`].
pub fn file_digest(path: &Path) -> Result<String> {
    Ok(sha256_hex(map_file(path)?.as_slice()))
}

/// SHA-256 of bytes in lowercase hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
