//! GGUF, versions 2 and 3, little-endian: header, metadata, tensor table. Source: ggml's docs/gguf.md.
//!
//! ```text
//! "GGUF" | version u32 | tensors u64 | keys u64 | keys × (name, type u32, value) | tensors × (name, dims u32, dims × u64, type u32, offset u64)
//! | padding to `general.alignment` | tensor data
//! ```
//! Strings are u64 length and bytes. Dimensions are listed innermost first. Nothing here allocates by a count that the file's length does not cover.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, Result};

use super::dequantize::BlockType;

/// Most metadata keys and most tensors that are believed.
const MAX_ENTRIES: u64 = 1 << 16;
/// Dimensions of a tensor (ggml's own limit).
const MAX_DIMS: u32 = 4;
/// `general.alignment` when the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A parsed file; strings and tensors are views of its bytes.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    file: String,
    bytes: &'a [u8],
    metadata: BTreeMap<String, Value<'a>>,
    tensors: BTreeMap<String, Tensor>,
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// u8, u16, u32, u64, i8 … i64
    Int(i128),
    /// f32, f64
    Float(f64),
    /// bool
    Bool(bool),
    /// Bytes that should be UTF-8.
    String(&'a [u8]),
    /// Array of integers or bools.
    Ints(Vec<i64>),
    /// Array of floats.
    Floats(Vec<f64>),
    /// Array of strings.
    Strings(Vec<&'a [u8]>),
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Outermost first: [rows, cols].
    pub shape: Vec<usize>,
    /// Block type by ggml's number; only [`BlockType`]'s can be read.
    pub block: BlockType,
    range: Range<usize>,
}

impl<'a> Gguf<'a> {
    /// Parses and checks a file's bytes; `file` is its name for errors.
    ///
    /// # Errors
    /// [`Error::Format`] with the offset at which the file stops making sense, or the tensor whose type cannot be read.
    pub fn parse(file: &str, bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor { file, bytes, at: 0 };
        if cursor.take(4, "magic")? != b"GGUF" {
            return Err(Error::format(file, "expected a GGUF file (magic `GGUF` at its start)"));
        }
        let version = cursor.u32("version")?;
        if version != 2 && version != 3 {
            let hint = if version.swap_bytes() <= 3 { " (a big-endian file)" } else { "" };
            return Err(Error::format(file, format!("expected GGUF version 2 or 3, got {version}{hint}")));
        }
        let tensor_count = cursor.count("number of tensors")?;
        let key_count = cursor.count("number of metadata keys")?;

        let mut metadata = BTreeMap::new();
        for _ in 0..key_count {
            let key = cursor.name("metadata key")?;
            let kind = cursor.u32(&key)?;
            let value = cursor.value(&key, kind)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(cursor.wrong(format!("metadata key `{key}` stands there twice")));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Int(n)) if (1..=1 << 20).contains(n) && (*n as u64).is_power_of_two() => *n as u64,
            Some(other) => {
                return Err(Error::format(file, format!("general.alignment: expected a power of two up to 2^20, got {other:?}")));
            }
        };

        let mut table = Vec::new();
        for _ in 0..tensor_count {
            table.push(cursor.tensor_entry(alignment)?);
        }
        let data_start = (cursor.at as u64).next_multiple_of(alignment);
        let tensors = place(file, bytes.len(), data_start, table)?;
        Ok(Self { file: file.to_string(), bytes, metadata, tensors })
    }

    /// Names of all tensors.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's shape and type, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// A tensor of exactly `shape`, widened to f32 row-major.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.wrong(format!("tensor `{name}` is missing")))?;
        if tensor.shape != shape {
            return Err(self.wrong(format!("tensor `{name}`: expected shape {shape:?}, got {:?}", tensor.shape)));
        }
        Ok(tensor.block.dequantize(&self.bytes[tensor.range.clone()]))
    }

    /// A metadata value, if there is one.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.metadata.get(key)
    }

    /// An integer in 0..=u32::MAX.
    pub fn integer(&self, key: &str) -> Result<Option<usize>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Int(n)) => match u32::try_from(*n) {
                Ok(n) => Ok(Some(n as usize)),
                Err(_) => Err(self.wrong(format!("{key}: expected an integer in 0..=4294967295, got {n}"))),
            },
            Some(other) => Err(self.wrong(format!("{key}: expected an integer, got {}", other.kind()))),
        }
    }

    /// A finite float.
    pub fn float(&self, key: &str) -> Result<Option<f32>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(v)) if v.is_finite() => Ok(Some(*v as f32)),
            Some(Value::Float(v)) => Err(self.wrong(format!("{key}: expected a finite number, got {v}"))),
            Some(other) => Err(self.wrong(format!("{key}: expected a float, got {}", other.kind()))),
        }
    }

    /// A bool.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(other) => Err(self.wrong(format!("{key}: expected a bool, got {}", other.kind()))),
        }
    }

    /// A UTF-8 string.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => std::str::from_utf8(v).map(Some).map_err(|e| self.wrong(format!("{key}: expected UTF-8: {e}"))),
            Some(other) => Err(self.wrong(format!("{key}: expected a string, got {}", other.kind()))),
        }
    }

    /// An error about this file.
    pub fn wrong(&self, detail: impl ToString) -> Error {
        Error::format(&self.file, detail)
    }
}

impl Value<'_> {
    /// Its type, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a bool",
            Self::String(_) => "a string",
            Self::Ints(_) => "an array of integers",
            Self::Floats(_) => "an array of floats",
            Self::Strings(_) => "an array of strings",
        }
    }
}

/// One row of the tensor table, its place not yet checked.
struct Row {
    name: String,
    shape: Vec<usize>,
    block: BlockType,
    bytes: u64,
    offset: u64,
}

/// Checks that every tensor lies within the file and none upon another.
fn place(file: &str, file_len: usize, data_start: u64, mut table: Vec<Row>) -> Result<BTreeMap<String, Tensor>> {
    table.sort_by_key(|row| row.offset);
    let mut tensors = BTreeMap::new();
    let mut free_from = data_start;
    for row in table {
        let wrong = |detail: String| Error::format(file, format!("tensor `{}`: {detail}", row.name));
        let start = data_start.checked_add(row.offset);
        let end = start.and_then(|s| s.checked_add(row.bytes)).filter(|&e| e <= file_len as u64);
        let (Some(start), Some(end)) = (start, end) else {
            let detail = format!("{} bytes at offset {} reach beyond the file's {file_len} bytes", row.bytes, row.offset);
            return Err(wrong(detail));
        };
        if start < free_from {
            return Err(wrong(format!("offset {} lies within the tensor before it", row.offset)));
        }
        free_from = end;
        let tensor = Tensor { shape: row.shape, block: row.block, range: start as usize..end as usize };
        if tensors.insert(row.name.clone(), tensor).is_some() {
            return Err(Error::format(file, format!("tensor `{}` stands there twice", row.name)));
        }
    }
    Ok(tensors)
}

struct Cursor<'a, 'f> {
    file: &'f str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a, '_> {
    fn wrong(&self, detail: String) -> Error {
        Error::format(self.file, format!("at byte {}: {detail}", self.at))
    }

    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        if len > left as u64 {
            return Err(self.wrong(format!("{what}: expected {len} bytes, the file has {left} more")));
        }
        let part = &self.bytes[self.at..self.at + len as usize];
        self.at += len as usize;
        Ok(part)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &str) -> Result<u64> {
        match self.u64(what)? {
            n if n > MAX_ENTRIES => Err(self.wrong(format!("{what} is {n}, the limit is {MAX_ENTRIES}"))),
            n => Ok(n),
        }
    }

    fn string(&mut self, what: &str) -> Result<&'a [u8]> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    fn name(&mut self, what: &str) -> Result<String> {
        let bytes = self.string(what)?;
        if bytes.len() > 256 {
            return Err(self.wrong(format!("{what} has {} bytes, the limit is 256", bytes.len())));
        }
        std::str::from_utf8(bytes).map(str::to_string).map_err(|e| self.wrong(format!("{what}: expected UTF-8: {e}")))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value<'a>> {
        match kind {
            6 | 12 => self.float(key, kind).map(Value::Float),
            7 => self.boolean(key).map(Value::Bool),
            8 => self.string(key).map(Value::String),
            9 => self.array_value(key),
            _ => self.integer(key, kind).map(Value::Int),
        }
    }

    fn array_value(&mut self, key: &str) -> Result<Value<'a>> {
        let kind = self.u32(key)?;
        let len = self.u64(key)?;
        // The smallest possible element of each type: a length beyond this cannot be true, so nothing is reserved for it.
        let smallest: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(self.wrong(format!("{key}: arrays of arrays are not read"))),
            _ => return Err(self.wrong(format!("{key}: unknown value type {kind}"))),
        };
        let left = (self.bytes.len() - self.at) as u64;
        if len > left / smallest {
            return Err(self.wrong(format!("{key}: an array of {len} elements does not fit the {left} bytes that follow")));
        }
        match kind {
            6 | 12 => (0..len).map(|_| self.float(key, kind)).collect::<Result<_>>().map(Value::Floats),
            7 => (0..len).map(|_| self.boolean(key).map(i64::from)).collect::<Result<_>>().map(Value::Ints),
            8 => (0..len).map(|_| self.string(key)).collect::<Result<_>>().map(Value::Strings),
            _ => (0..len)
                .map(|_| {
                    let n = self.integer(key, kind)?;
                    i64::try_from(n).map_err(|_| self.wrong(format!("{key}: {n} does not fit 63 bits")))
                })
                .collect::<Result<_>>()
                .map(Value::Ints),
        }
    }

    fn integer(&mut self, key: &str, kind: u32) -> Result<i128> {
        Ok(match kind {
            0 => i128::from(u8::from_le_bytes(self.array(key)?)),
            1 => i128::from(i8::from_le_bytes(self.array(key)?)),
            2 => i128::from(u16::from_le_bytes(self.array(key)?)),
            3 => i128::from(i16::from_le_bytes(self.array(key)?)),
            4 => i128::from(u32::from_le_bytes(self.array(key)?)),
            5 => i128::from(i32::from_le_bytes(self.array(key)?)),
            10 => i128::from(u64::from_le_bytes(self.array(key)?)),
            11 => i128::from(i64::from_le_bytes(self.array(key)?)),
            _ => return Err(self.wrong(format!("{key}: unknown value type {kind}"))),
        })
    }

    fn float(&mut self, key: &str, kind: u32) -> Result<f64> {
        match kind {
            6 => self.array(key).map(|b| f64::from(f32::from_le_bytes(b))),
            _ => self.array(key).map(f64::from_le_bytes),
        }
    }

    fn boolean(&mut self, key: &str) -> Result<bool> {
        match self.array::<1>(key)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.wrong(format!("{key}: expected a bool (0 or 1), got {other}"))),
        }
    }

    fn tensor_entry(&mut self, alignment: u64) -> Result<Row> {
        let name = self.name("tensor name")?;
        let count = self.u32(&name)?;
        if count == 0 || count > MAX_DIMS {
            return Err(self.wrong(format!("tensor `{name}`: expected 1..={MAX_DIMS} dimensions, got {count}")));
        }
        let mut dims = [0u64; MAX_DIMS as usize];
        for dim in &mut dims[..count as usize] {
            *dim = self.u64(&name)?;
        }
        let dims = &dims[..count as usize];
        let number = self.u32(&name)?;
        let block = BlockType::from_number(number).ok_or_else(|| {
            let named = super::dequantize::type_name(number);
            self.wrong(format!("tensor `{name}`: type {named} is not read, expected F32, F16, Q8_0, Q4_0 or Q4_1"))
        })?;
        let (values_a_block, bytes_a_block) = block.size();
        if dims[0] % values_a_block as u64 != 0 {
            return Err(self.wrong(format!("tensor `{name}`: rows of {} values are not whole blocks of {values_a_block}", dims[0])));
        }
        let values = dims.iter().try_fold(1u64, |all, &dim| all.checked_mul(dim));
        let bytes = values.and_then(|v| (v / values_a_block as u64).checked_mul(bytes_a_block as u64));
        let (Some(_), Some(bytes)) = (values, bytes) else {
            return Err(self.wrong(format!("tensor `{name}`: dimensions {dims:?} overflow")));
        };
        let offset = self.u64(&name)?;
        if offset % alignment != 0 {
            return Err(self.wrong(format!("tensor `{name}`: offset {offset} is not a multiple of {alignment}")));
        }
        let shape = dims.iter().rev().map(|&dim| dim as usize).collect();
        Ok(Row { name, shape, block, bytes, offset })
    }
}
