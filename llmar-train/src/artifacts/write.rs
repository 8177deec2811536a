//! Writing an artifact: to a temporary file beside the target, synced, then renamed over it.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::Path;

use half::f16;
use llmar::checkpoint::replace_file;
use safetensors::tensor::{Metadata, TensorInfo};

use super::{Kind, Store};
use crate::error::{Error, Result};

/// A float tensor with its values: name in the file, dimensions outermost first, values row-major, storage.
pub type FloatTensor = (String, Vec<usize>, Vec<f32>, Store);

/// A tensor that [`write_lazily`] asks for when its turn comes.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Name in the file.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Storage.
    pub store: Store,
}

/// Values of a planned tensor, row-major.
#[derive(Clone, Debug)]
pub enum Values<'a> {
    /// For [`Store::F16`] and [`Store::F32`].
    Floats(Cow<'a, [f32]>),
    /// For [`Store::U8`].
    Bytes(Cow<'a, [u8]>),
    /// For [`Store::U32`].
    Integers(Cow<'a, [u32]>),
}

/// Writes an artifact of float tensors: temporary file, sync, rename. The file that was there stays whole until the new one is on disk.
///
/// # Errors
/// A length that is not the shape's, a value that is not finite after rounding, or the file system's refusal.
pub fn write<M: Kind>(path: &Path, meta: &M, tensors: &[FloatTensor]) -> Result<()> {
    let plan: Vec<Planned> =
        tensors.iter().map(|(name, shape, _, store)| Planned { name: name.clone(), shape: shape.clone(), store: *store }).collect();
    write_lazily(path, meta, &plan, &|index| Ok(Values::Floats(Cow::Borrowed(&tensors[index].2))))
}

/// As [`write()`], with only one tensor in memory at a time: `load(i)` gives the values of `plan[i]`, called once each, in the file's order.
pub fn write_lazily<'a, M: Kind>(path: &Path, meta: &M, plan: &[Planned], load: &dyn Fn(usize) -> Result<Values<'a>>) -> Result<()> {
    let document = serde_json::to_string(meta).map_err(|e| Error::format(path.display(), format!("metadata: {e}")))?;
    write_tensors(path, HashMap::from([(M::KEY.to_string(), document)]), plan, load)
}

/// As [`write_lazily`], with any metadata: for safetensors files that others define.
pub fn write_tensors<'a>(
    path: &Path,
    info: HashMap<String, String>,
    plan: &[Planned],
    load: &dyn Fn(usize) -> Result<Values<'a>>,
) -> Result<()> {
    let mut names = BTreeSet::new();
    if let Some(twice) = plan.iter().find(|tensor| !names.insert(&tensor.name)) {
        return Err(Error::format(path.display(), format!("tensor `{}` was given twice", twice.name)));
    }
    // Wider types first and then by name, as the safetensors crate orders them: then every tensor is aligned to its type.
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by(|&a, &b| plan[b].store.bytes().cmp(&plan[a].store.bytes()).then_with(|| plan[a].name.cmp(&plan[b].name)));
    let header = header(plan, &order, info).map_err(|e| Error::format(path.display(), e))?;

    // `replace_file` knows the file system's errors only: one of a tensor is kept aside, and the other then only stops the writing.
    let mut tensor_error = None;
    let replaced = replace_file(path, |out| {
        out.write_all(&header)?;
        order.iter().try_for_each(|&index| match load(index).and_then(|values| encode(&plan[index], &values)) {
            Ok(bytes) => out.write_all(&bytes),
            Err(error) => {
                tensor_error = Some(error);
                Err(io::Error::other("a tensor could not be written"))
            }
        })
    });
    match tensor_error {
        Some(error) => Err(error),
        None => Ok(replaced?),
    }
}

/// Length word and JSON of a safetensors file, padded so that the data begins at a multiple of 8.
fn header(plan: &[Planned], order: &[usize], info: HashMap<String, String>) -> std::result::Result<Vec<u8>, String> {
    let mut tensors = Vec::with_capacity(plan.len());
    let mut end = 0usize;
    for tensor in order.iter().map(|&index| &plan[index]) {
        let start = end;
        let values = tensor.shape.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim));
        let bytes = values.and_then(|n| n.checked_mul(tensor.store.bytes()));
        end = bytes
            .and_then(|n| start.checked_add(n))
            .ok_or_else(|| format!("tensor `{}`: shape {:?} overflows", tensor.name, tensor.shape))?;
        let info = TensorInfo { dtype: tensor.store.dtype(), shape: tensor.shape.clone(), data_offsets: (start, end) };
        tensors.push((tensor.name.clone(), info));
    }
    let metadata = Metadata::new(Some(info), tensors).map_err(|e| e.to_string())?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| e.to_string())?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes(), &json[..]].concat())
}

/// Little-endian bytes of a tensor in its storage type.
fn encode(tensor: &Planned, values: &Values<'_>) -> Result<Vec<u8>> {
    let wrong = |detail: String| Error::format(format!("tensor `{}`", tensor.name), detail);
    let expected: usize = tensor.shape.iter().product();
    let got = match values {
        Values::Floats(v) => v.len(),
        Values::Bytes(v) => v.len(),
        Values::Integers(v) => v.len(),
    };
    if got != expected {
        return Err(wrong(format!("expected {expected} values for shape {:?}, got {got}", tensor.shape)));
    }
    let not_finite = |at: usize, value: f32| wrong(format!("value {at} is {value}, expected a finite {:?}", tensor.store));
    let mut bytes = Vec::with_capacity(expected * tensor.store.bytes());
    match (tensor.store, values) {
        (Store::F16, Values::Floats(v)) => {
            for (at, &value) in v.iter().enumerate() {
                let rounded = f16::from_f32(value);
                if !rounded.is_finite() {
                    return Err(not_finite(at, value));
                }
                bytes.extend(rounded.to_le_bytes());
            }
        }
        (Store::F32, Values::Floats(v)) => {
            for (at, &value) in v.iter().enumerate() {
                if !value.is_finite() {
                    return Err(not_finite(at, value));
                }
                bytes.extend(value.to_le_bytes());
            }
        }
        (Store::U8, Values::Bytes(v)) => bytes.extend_from_slice(v),
        (Store::U32, Values::Integers(v)) => v.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
        (store, _) => return Err(wrong(format!("values are not of the kind that {store:?} stores"))),
    }
    Ok(bytes)
}
