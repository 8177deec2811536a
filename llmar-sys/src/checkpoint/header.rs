//! The container: a safetensors header, checked before anything in it is believed.
//!
//! The `safetensors` crate is not used for reading because it keeps the last of two equal keys in silence; tests hold this parser
//! and the crate against each other.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};

use crate::device::ElementType;
use crate::error::{Error, Result};

/// Largest header in bytes: a real one has tens of kilobytes.
pub(super) const HEADER_LIMIT: usize = 4 << 20;
/// Most tensors in one file: a LLaMA of 128 layers with quantised matrices has about 2,000.
pub(super) const TENSOR_LIMIT: usize = 16_384;
/// Most dimensions of a tensor; the format itself needs five.
const DIMENSION_LIMIT: usize = 8;
/// Bytes of the header's length, before the header.
pub(super) const LENGTH_BYTES: usize = 8;
/// Key of the document inside the safetensors `__metadata__`.
pub(super) const DOCUMENT_KEY: &str = "llmar";
/// Key of the header's own checksum beside it.
pub(super) const CHECKSUM_KEY: &str = "header_sha256";
/// Hex digits of a SHA-256; also what stands in the checksum's place while it is computed.
pub(super) const BLANK_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Element types of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Dtype {
    /// IEEE single
    F32,
    /// IEEE half
    F16,
    /// Unsigned byte
    U8,
    /// Unsigned 32-bit integer
    U32,
}

impl Dtype {
    /// Bytes of one element, and the alignment of a tensor's first byte.
    pub fn size(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

impl From<ElementType> for Dtype {
    fn from(element: ElementType) -> Self {
        match element {
            ElementType::F32 => Self::F32,
            ElementType::F16 => Self::F16,
            ElementType::U8 => Self::U8,
        }
    }
}

/// What the header says about one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Bytes within the data section.
    pub range: Range<usize>,
}

/// Tensors by name.
pub(super) type Table = BTreeMap<String, TensorInfo>;

/// A checked header: what lies where, and the document as text.
#[derive(Debug)]
pub(super) struct Header {
    /// The metadata document, still JSON text.
    pub document: String,
    /// The checksum that stands in the header.
    pub checksum: String,
    /// Tensors whose ranges fill the data section without overlap or hole.
    pub table: Table,
    /// First byte of the data section.
    pub data_start: usize,
}

/// Parses and checks the container of `file`. The checksum is not compared here: the caller looks at the version first.
pub(super) fn parse(file: &[u8]) -> Result<Header> {
    let (text, data_start) = header_text(file)?;
    let raw: RawHeader = serde_json::from_str(text).map_err(|e| Error::format("checkpoint header", e.to_string()))?;
    let mut metadata = raw.metadata.unwrap_or_default().0;
    let document = metadata
        .remove(DOCUMENT_KEY)
        .ok_or_else(|| Error::format("checkpoint", "a safetensors file, but without the metadata key `llmar` of a checkpoint"))?;
    let checksum = metadata.remove(CHECKSUM_KEY).unwrap_or_default();
    if let Some(key) = metadata.keys().next() {
        return Err(Error::format("checkpoint header", format!("unknown metadata key `{key}`")));
    }
    let data_len = file.len() - data_start;
    let mut table = Table::new();
    for (name, tensor) in raw.tensors {
        let info = tensor.checked(&name, data_len)?;
        table.insert(name, info);
    }
    check_tiling(&table, data_len)?;
    Ok(Header { document, checksum, table, data_start })
}

/// The header's text and the offset of the data section.
fn header_text(file: &[u8]) -> Result<(&str, usize)> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(Error::format("checkpoint", format!("expected at least {LENGTH_BYTES} bytes, got {}", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT as u64 {
        return Err(Error::Limit { what: "length of the checkpoint header", limit: HEADER_LIMIT as u64, got: length });
    }
    let length = length as usize; // at most HEADER_LIMIT
    let Some(bytes) = rest.get(..length) else {
        return Err(Error::format("checkpoint header", format!("expected {length} bytes, the file has {} after the length", rest.len())));
    };
    if bytes.first() != Some(&b'{') {
        return Err(Error::format("checkpoint header", "expected `{` as its first byte: not a safetensors file"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| Error::format("checkpoint header", format!("not UTF-8: {e}")))?;
    Ok((text, LENGTH_BYTES + length))
}

/// SHA-256 over the length and the header of `file`, with the digits of `checksum` read as zeros; lowercase hex.
pub(super) fn checksum(file: &[u8], header: &Header) -> Result<String> {
    let bytes = &file[..header.data_start];
    let digits = header.checksum.as_bytes();
    if !is_sha256_hex(&header.checksum) {
        return Err(Error::format("checkpoint header", format!("`{CHECKSUM_KEY}` is not 64 lowercase hex digits")));
    }
    let at = bytes.windows(digits.len()).position(|window| window == digits);
    let at = at.ok_or_else(|| Error::format("checkpoint header", format!("`{CHECKSUM_KEY}` is written with escapes")))?;
    let mut hash = Sha256::new();
    hash.update(&bytes[..at]);
    hash.update(BLANK_CHECKSUM);
    hash.update(&bytes[at + digits.len()..]);
    Ok(hex(&hash.finalize()))
}

/// Whether `text` could be a digest in the one accepted spelling.
pub(super) fn is_sha256_hex(text: &str) -> bool {
    text.len() == BLANK_CHECKSUM.len() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Lowercase hex.
pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The tensors, in order of their offsets, must follow each other without overlap or hole and end with the file.
fn check_tiling(table: &Table, data_len: usize) -> Result<()> {
    let mut order: Vec<(&Range<usize>, &str)> = table.iter().map(|(name, info)| (&info.range, name.as_str())).collect();
    order.sort_by_key(|(range, _)| (range.start, range.end));
    let mut end = 0;
    for (range, name) in order {
        if range.start != end {
            return Err(Error::format(
                name,
                format!("expected its data at offset {end}, got {}: tensors overlap or leave a hole", range.start),
            ));
        }
        end = range.end;
    }
    if end != data_len {
        return Err(Error::format("checkpoint", format!("the tensors end at byte {end} of the data section, which has {data_len}")));
    }
    Ok(())
}

/// The header as JSON, before its numbers are believed.
#[derive(Debug, Default)]
struct RawHeader {
    metadata: Option<UniqueMap>,
    tensors: BTreeMap<String, RawTensor>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl RawTensor {
    /// Offsets within the data section, their distance equal to shape × element size, in checked arithmetic.
    fn checked(self, name: &str, data_len: usize) -> Result<TensorInfo> {
        let [start, end] = self.data_offsets;
        if start > end || end > data_len as u64 {
            return Err(Error::format(name, format!("data offsets {start}..{end} do not lie within the data section of {data_len} bytes")));
        }
        if self.shape.len() > DIMENSION_LIMIT {
            return Err(Error::Limit { what: "dimensions of a tensor", limit: DIMENSION_LIMIT as u64, got: self.shape.len() as u64 });
        }
        let bytes = self.shape.iter().try_fold(self.dtype.size() as u64, |bytes, &dim| bytes.checked_mul(dim));
        if bytes != Some(end - start) {
            let needed = bytes.map_or_else(|| "more than 2^64".to_owned(), |bytes| bytes.to_string());
            return Err(Error::format(
                name,
                format!("shape {:?} of {:?} needs {needed} bytes, its data has {}", self.shape, self.dtype, end - start),
            ));
        }
        if !start.is_multiple_of(self.dtype.size() as u64) {
            return Err(Error::format(name, format!("data offset {start} is not a multiple of the element size {}", self.dtype.size())));
        }
        let shape = self.shape.iter().map(|&dim| usize::try_from(dim)).collect::<std::result::Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| Error::format(name, "a dimension does not fit this machine's addresses"))?;
        Ok(TensorInfo { dtype: self.dtype, shape, range: start as usize..end as usize }) // both at most data_len
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a safetensors header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "__metadata__" {
                        if header.metadata.replace(map.next_value()?).is_some() {
                            return Err(duplicate(&key));
                        }
                    } else if header.tensors.len() == TENSOR_LIMIT {
                        return Err(de::Error::custom(format!("more than {TENSOR_LIMIT} tensors")));
                    } else {
                        match header.tensors.entry(key) {
                            Entry::Occupied(first) => return Err(duplicate(first.key())),
                            Entry::Vacant(free) => free.insert(map.next_value()?),
                        };
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// String → string, no key twice.
#[derive(Debug, Default)]
struct UniqueMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct MapVisitor;
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = UniqueMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<UniqueMap, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if entries.contains_key(&key) {
                        return Err(duplicate(&key));
                    }
                    entries.insert(key, map.next_value()?);
                }
                Ok(UniqueMap(entries))
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}

/// Any JSON value in which no object has a key twice; the value itself is dropped.
pub(super) struct NoDuplicates;

impl<'de> Deserialize<'de> for NoDuplicates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self, A::Error> {
        let mut keys = std::collections::BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if let Some(key) = keys.replace(key) {
                return Err(duplicate(&key));
            }
        }
        Ok(self)
    }
}

fn duplicate<E: de::Error>(key: &str) -> E {
    E::custom(format!("the key `{key}` stands there twice"))
}
