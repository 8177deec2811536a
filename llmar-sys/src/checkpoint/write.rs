//! Writing a checkpoint: to a temporary file beside the target, synced, then renamed over it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::check::check_metadata;
use super::header::{self, BLANK_CHECKSUM, CHECKSUM_KEY, DOCUMENT_KEY, Dtype, HEADER_LIMIT, LENGTH_BYTES, TENSOR_LIMIT, Table, TensorInfo};
use super::inventory::check_inventory;
use super::replace::replace_file;
use super::schema::Metadata;
use super::values::{check_finite_f16, check_finite_f32, read_at_opening};
use crate::error::{Error, Result};

/// Multiple at which the data section and, as far as their lengths allow, the tensors start: a cache line.
const ALIGNMENT: usize = 64;

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

impl TensorData<'_> {
    /// Its element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
            Self::U8(_) => Dtype::U8,
            Self::U32(_) => Dtype::U32,
        }
    }

    /// Its bytes, as they stand in a file.
    fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F16(values) => bytemuck::cast_slice(values),
            Self::U8(values) => values,
            Self::U32(values) => bytemuck::cast_slice(values),
        }
    }
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
/// intact until the new one is complete on disk. Nothing is written that [`Checkpoint::open`](super::Checkpoint::open) would refuse.
///
/// # Errors
/// Those of reading, for metadata and tensors that do not make a checkpoint; [`Error::Io`] when the file cannot be written.
pub fn write_checkpoint(path: &Path, metadata: &Metadata, tensors: &[Tensor<'_>]) -> Result<()> {
    let (order, table) = arrange(tensors)?;
    let mut metadata = metadata.clone();
    metadata.tensors_sha256 = BLANK_CHECKSUM.to_owned();
    check_metadata(&metadata)?;
    check_inventory(&metadata, &table)?;
    let mut hash = Sha256::new();
    for tensor in &order {
        check_finite(tensor)?;
        hash.update(tensor.data.bytes());
    }
    metadata.tensors_sha256 = header::hex(&hash.finalize());
    let header = header_bytes(&metadata, &order, &table)?;
    replace_file(path, |out| {
        out.write_all(&header)?;
        order.iter().try_for_each(|tensor| out.write_all(tensor.data.bytes()))
    })
}

/// The tensors in the order of the file, and where each will lie.
///
/// safetensors allows no hole between tensors, so alignment comes from the order: first all whose length is a multiple of 64 bytes, then of
/// 32, and so on down to odd lengths. Each then starts at a multiple of what divides its own length, or of 64. Of equal ones, those that
/// opening a file reads come first, side by side, so that a cold file is opened with few and long reads. Otherwise it is the caller's order.
fn arrange<'a, 't>(tensors: &'a [Tensor<'t>]) -> Result<(Vec<&'a Tensor<'t>>, Table)> {
    if tensors.len() > TENSOR_LIMIT {
        return Err(Error::Limit { what: "tensors of a checkpoint", limit: TENSOR_LIMIT as u64, got: tensors.len() as u64 });
    }
    let mut order: Vec<&Tensor<'_>> = tensors.iter().collect();
    order.sort_by_key(|tensor| {
        let alignment = (tensor.data.bytes().len() | ALIGNMENT).trailing_zeros(); // power of two, at most 64, that divides the length
        (Reverse(alignment), !read_at_opening(&tensor.name, tensor.data.dtype()))
    });
    let mut table = Table::new();
    let mut end = 0;
    for tensor in &order {
        let start = end;
        let dtype = tensor.data.dtype();
        let len = tensor.data.bytes().len();
        let needed = tensor.shape.iter().try_fold(dtype.size(), |bytes, &dim| bytes.checked_mul(dim));
        if needed != Some(len) {
            let got = vec![len / dtype.size()];
            return Err(Error::Shape { what: tensor.name.clone(), expected: tensor.shape.clone(), got });
        }
        end += len;
        let info = TensorInfo { dtype, shape: tensor.shape.clone(), range: start..end };
        if tensor.name == "__metadata__" || table.insert(tensor.name.clone(), info).is_some() {
            return Err(Error::format(&tensor.name, "a tensor of this name stands there twice"));
        }
    }
    Ok((order, table))
}

/// The writer reads every value anyway, so it looks at plain f16 weights too.
fn check_finite(tensor: &Tensor<'_>) -> Result<()> {
    match &tensor.data {
        TensorData::F32(values) => check_finite_f32(&tensor.name, bytemuck::cast_slice(values)),
        TensorData::F16(values) => check_finite_f16(&tensor.name, bytemuck::cast_slice(values)),
        TensorData::U8(_) | TensorData::U32(_) => Ok(()),
    }
}

/// Everything before the data section: the length, then JSON padded with spaces so that the data start at a multiple of 64, the header's
/// own checksum in place.
fn header_bytes(metadata: &Metadata, order: &[&Tensor<'_>], table: &Table) -> Result<Vec<u8>> {
    let json = |e: serde_json::Error| Error::format("checkpoint metadata", e.to_string());
    let document = serde_json::to_string(metadata).map_err(json)?;
    let document = serde_json::to_string(&document).map_err(json)?;
    let opening = format!(r#"{{"__metadata__":{{"{CHECKSUM_KEY}":""#);
    let mut text = format!(r#"{opening}{BLANK_CHECKSUM}","{DOCUMENT_KEY}":{document}}}"#);
    for tensor in order {
        let TensorInfo { dtype, shape, range } = &table[tensor.name.as_str()];
        let name = serde_json::to_string(&tensor.name).map_err(json)?;
        // Writing to a String cannot fail.
        let _ = write!(text, r#",{name}:{{"dtype":"{dtype:?}","shape":{shape:?},"data_offsets":[{},{}]}}"#, range.start, range.end);
    }
    text.push('}');
    let padded = (LENGTH_BYTES + text.len()).next_multiple_of(ALIGNMENT) - LENGTH_BYTES;
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    if text.len() > HEADER_LIMIT {
        return Err(Error::Limit { what: "length of the checkpoint header", limit: HEADER_LIMIT as u64, got: text.len() as u64 });
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    let digest = header::hex(&Sha256::digest(&bytes));
    let at = LENGTH_BYTES + opening.len();
    bytes[at..at + digest.len()].copy_from_slice(digest.as_bytes());
    Ok(bytes)
}
