//! `adapter_model.safetensors`: pairs of matrices in f16, bf16 or f32, rounded to the f16 of an adapter.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Range};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use llmar::bytes::Bytes;
use safetensors::Dtype;

use super::config::Config;
use super::{Half, Place, shape_of};
use crate::artifacts::{BaseMeta, Opened, map_file, read_header};
use crate::error::{Error, Result};

/// What rounding to f16 did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounding {
    /// Numbers read.
    pub values: usize,
    /// Of them, those that f16 does not hold exactly.
    pub changed: usize,
    /// Of these, those that became zero.
    pub vanished: usize,
}

impl AddAssign for Rounding {
    fn add_assign(&mut self, other: Self) {
        self.values += other.values;
        self.changed += other.changed;
        self.vanished += other.vanished;
    }
}

#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A mapped file whose names, shapes and storage were checked; values are checked when they are read.
#[derive(Debug)]
pub(super) struct Weights {
    path: PathBuf,
    bytes: Bytes,
    halves: BTreeMap<(Place, Half), Entry>,
}

impl Weights {
    /// Opens the file and checks it against the settings and the base model: whole pairs of the right shapes, at the settings' places and nowhere
    /// else.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a tensor that is no half of a pair of a layer's matrix, or is of another type; [`Error::Format`] for the rest.
    pub fn open(path: &Path, config: &Config, base: &Opened<BaseMeta>) -> Result<Self> {
        let bytes = map_file(path)?;
        let (data, metadata) = read_header(bytes.as_slice()).map_err(|detail| Error::format(path.display(), detail))?;
        let mut halves = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let place = place_of(&name, base.meta.config.num_hidden_layers).ok_or_else(|| Error::Unsupported {
                file: path.to_path_buf(),
                name: name.clone(),
                expected: format!(
                    "base_model.model.model.layers.N.MODULE.lora_A.weight or lora_B, N below {}, MODULE one of {:?}",
                    base.meta.config.num_hidden_layers,
                    super::MODULES
                ),
                got: format!("another name, {:?} {:?}", info.dtype, info.shape),
            })?;
            if !matches!(info.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32) {
                let (expected, got) = ("F16, BF16 or F32".to_owned(), format!("{:?}", info.dtype));
                return Err(Error::Unsupported { file: path.to_path_buf(), name, expected, got });
            }
            let range = data + info.data_offsets.0..data + info.data_offsets.1;
            halves.insert(place, Entry { dtype: info.dtype, shape: info.shape.clone(), range });
        }
        let weights = Self { path: path.to_path_buf(), bytes, halves };
        weights.check(config, base)?;
        Ok(weights)
    }

    fn check(&self, config: &Config, base: &Opened<BaseMeta>) -> Result<()> {
        if self.halves.is_empty() {
            return Err(self.wrong("no matrix has a LoRA"));
        }
        for (&(place, half), entry) in &self.halves {
            let name = place.peft_name(half);
            if config.adapts(place) == Some(false) {
                return Err(self.wrong(format!("tensor `{name}`: the settings name no such module, so PEFT would leave it out")));
            }
            let expected = shape_of(base, config.rank, place, half)?;
            if entry.shape != expected {
                return Err(self.wrong(format!("tensor `{name}`: expected shape {expected:?}, got {:?}", entry.shape)));
            }
        }
        for place in Place::all(&base.meta.config) {
            let [a, b] = Half::BOTH.map(|half| self.halves.contains_key(&(place, half)));
            let wanted = config.adapts(place) == Some(true);
            for (there, other, half) in [(a, b, Half::A), (b, a, Half::B)] {
                if !there && (other || wanted) {
                    let why = if other { "its other half is there" } else { "the settings name its module" };
                    return Err(self.wrong(format!("tensor `{}` is missing: {why}", place.peft_name(half))));
                }
            }
        }
        Ok(())
    }

    /// The matrices, pair by pair: place, half, shape.
    pub fn halves(&self) -> impl Iterator<Item = (Place, Half, &[usize])> {
        self.halves.iter().map(|(&(place, half), entry)| (place, half, &entry.shape[..]))
    }

    /// One matrix, rounded to f16.
    ///
    /// # Errors
    /// A value that is not finite, or beyond ±65504 when rounded.
    pub fn values(&self, place: Place, half: Half) -> Result<(Vec<f32>, Rounding)> {
        let name = place.peft_name(half);
        let entry = self.halves.get(&(place, half)).ok_or_else(|| self.wrong(format!("tensor `{name}` is missing")))?;
        let raw = &self.bytes.as_slice()[entry.range.clone()];
        let wide: Vec<f32> = match entry.dtype {
            Dtype::F16 => raw.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => raw.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            _ => raw.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        };
        let mut rounding = Rounding { values: wide.len(), ..Rounding::default() };
        let mut out = Vec::with_capacity(wide.len());
        for (at, value) in wide.into_iter().enumerate() {
            let rounded = f16::from_f32(value).to_f32();
            if !rounded.is_finite() {
                return Err(self.wrong(format!("tensor `{name}`: value {at} is {value}, expected a finite number of at most ±65504")));
            }
            rounding.changed += usize::from(rounded != value);
            rounding.vanished += usize::from(rounded == 0.0 && value != 0.0);
            out.push(rounded);
        }
        Ok((out, rounding))
    }

    fn wrong(&self, detail: impl ToString) -> Error {
        Error::format(self.path.display(), detail)
    }
}

/// Which matrix a name stands for; `None` for any other name.
fn place_of(name: &str, layers: usize) -> Option<(Place, Half)> {
    let (layer, rest) = name.strip_prefix("base_model.model.model.layers.")?.split_once('.')?;
    let layer: usize = layer.parse().ok().filter(|layer| *layer < layers)?;
    (0..super::MODULES.len())
        .flat_map(|target| Half::BOTH.map(|half| (Place { layer, target }, half)))
        // Compared as a whole, so that `01` is no layer.
        .find(|(place, half)| rest.starts_with(super::MODULES[place.target]) && name == place.peft_name(*half))
}
