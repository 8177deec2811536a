//! Clip archives: a safetensors file with `joints` f32 [F, M, V, C], `offsets` i64 [N + 1], `labels`, optional `subjects`, `cameras` i64 `[N]`,
//! `valid` u8 or `confidence` f32 [F, …, V], `split.<name>.test` and other flags u8 `[N]`, and metadata `clips` (JSON).

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;

use super::{MAX_ARCHIVE, OwnedClip, read_limited};
use crate::error::{Error, Result};
use crate::skeleton::{Layout, MAX_PERSONS, builtin_layouts};

/// Most clips of an archive: each takes memory of its own, even one without frames.
const MAX_CLIPS: usize = 1 << 20;

/// A data set in one file.
#[derive(Clone, Debug)]
pub struct ClipArchive {
    /// `utd_mhad`
    pub name: String,
    /// Class names by label.
    pub classes: Vec<String>,
    /// Layout name, found from the joint names.
    pub layout: String,
    /// Frames a second, if known.
    pub fps: Option<f32>,
    /// Clips in file order.
    pub clips: Vec<OwnedClip>,
    /// `[N]`
    pub labels: Vec<usize>,
    /// `[N]` or empty
    pub subjects: Vec<i64>,
    /// `[N]` or empty
    pub cameras: Vec<i64>,
    /// Test flags `[N]` by split name.
    pub splits: BTreeMap<String, Vec<bool>>,
    /// Further flags `[N]` by name, such as `used_cvpr12` or `duplicate_of_train`.
    pub flags: BTreeMap<String, Vec<bool>>,
}

/// The JSON under the metadata key `clips`. Other keys (source, licence, …) are for people.
#[derive(Deserialize)]
struct Description {
    name: String,
    classes: Vec<String>,
    joints: Vec<String>,
    /// −1 for the root.
    parents: Option<Vec<i64>>,
    fps: Option<f32>,
}

impl ClipArchive {
    /// Reads and checks an archive. Joint names that are no built-in layout's are registered as a layout under the archive's name.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Limit`] above 1 GiB, [`Error::Format`] that names tensor and place.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.file_stem().map_or_else(|| "clips".into(), |stem| stem.to_string_lossy().into_owned());
        Self::parse(&path.display().to_string(), &name, &read_limited(path, MAX_ARCHIVE)?)
    }

    /// Reads an archive from memory; `file` stands in errors, `stem` before the clips' indices.
    pub(super) fn parse(file: &str, stem: &str, bytes: &[u8]) -> Result<Self> {
        let tensors = Tensors::open(file, bytes)?;
        let about = description(file, bytes)?;
        let joints = tensors.get("joints", Dtype::F32)?.ok_or_else(|| Error::format(file, "tensor `joints` is missing"))?;
        let &[total, persons, v, coords] = joints.shape() else {
            return Err(tensors.shape_error("joints", "[frames, persons, joints, coords]", joints.shape()));
        };
        if v != about.joints.len() || !(1..=MAX_PERSONS).contains(&persons) || !(2..=3).contains(&coords) {
            let expected = format!("[frames, 1..={MAX_PERSONS}, {} named joints, 2 or 3]", about.joints.len());
            return Err(tensors.shape_error("joints", &expected, joints.shape()));
        }
        let layout = layout(file, &about)?;
        let fps = match about.fps {
            Some(fps) if !(fps.is_finite() && fps > 0.0) => {
                return Err(Error::format(file, format!("fps: expected above zero, got {fps}")));
            }
            fps => fps,
        };

        let offsets = tensors.offsets(total)?;
        let count = offsets.len() - 1;
        if count > MAX_CLIPS {
            return Err(Error::Limit { what: "clips of an archive", limit: MAX_CLIPS as u64, got: count as u64 });
        }
        let labels = tensors.labels(count, about.classes.len())?;
        let subjects = tensors.i64s("subjects", count)?.unwrap_or_default();
        let cameras = tensors.i64s("cameras", count)?.unwrap_or_default();
        let (splits, flags) = tensors.flags(count)?;
        let valid = tensors.validity(total * persons * v)?; // fits: it is less than `joints` has

        let width = persons * v * coords;
        let clip = |(index, span): (usize, &[usize])| OwnedClip {
            name: format!("{stem}#{index}"),
            joints: f32s(&joints.data()[span[0] * width * 4..span[1] * width * 4]),
            frames: span[1] - span[0],
            persons,
            joints_per_person: v,
            coords,
            fps,
            layout: layout.clone(),
            valid: valid.as_ref().map(|valid| valid[span[0] * persons * v..span[1] * persons * v].to_vec()),
        };
        let clips = offsets.windows(2).enumerate().map(clip).collect();
        Ok(Self { name: about.name, classes: about.classes, layout, fps, clips, labels, subjects, cameras, splits, flags })
    }
}

fn description(file: &str, bytes: &[u8]) -> Result<Description> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| Error::format(file, error.to_string()))?;
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get("clips"));
    let text = text.ok_or_else(|| Error::format(file, "not a clip archive: its metadata has no key `clips`"))?;
    serde_json::from_str(text).map_err(|error| Error::format(file, format!("metadata `clips`: {error}")))
}

/// The built-in layout of these joints in this order, else a layout registered under the archive's name.
fn layout(file: &str, about: &Description) -> Result<String> {
    if let Some(known) = builtin_layouts().iter().find(|layout| layout.has_joints(&about.joints)) {
        return Ok(known.name.clone());
    }
    let wrong = |error: Error| Error::format(file, format!("joints of `{}`: {error}", about.name));
    let mut layout = Layout::new(&about.name, &about.joints).map_err(wrong)?;
    if let Some(parents) = &about.parents {
        let parent = |&parent: &i64| match usize::try_from(parent) {
            Ok(parent) if parent < about.joints.len() => Ok(Some(parent)),
            Err(_) if parent == -1 => Ok(None),
            _ => Err(Error::format(file, format!("parents: expected -1..{}, got {parent}", about.joints.len()))),
        };
        layout.parents = parents.iter().map(parent).collect::<Result<_>>()?;
        if layout.parents.len() != layout.joints.len() {
            return Err(Error::format(file, format!("parents: expected {} numbers, got {}", layout.joints.len(), layout.parents.len())));
        }
    }
    layout.register_self().map_err(wrong)?;
    Ok(about.name.clone())
}

/// The tensors of an archive, with the file's name for errors.
struct Tensors<'a> {
    file: &'a str,
    tensors: SafeTensors<'a>,
}

impl<'a> Tensors<'a> {
    fn open(file: &'a str, bytes: &'a [u8]) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| Error::format(file, format!("not a clip archive: {error}")))?;
        Ok(Self { file, tensors })
    }

    fn error(&self, name: &str, detail: impl std::fmt::Display) -> Error {
        Error::format(self.file, format!("tensor `{name}`: {detail}"))
    }

    fn shape_error(&self, name: &str, expected: &str, got: &[usize]) -> Error {
        self.error(name, format!("expected shape {expected}, got {got:?}"))
    }

    /// A tensor of one type; `None` when it is not there.
    fn get(&self, name: &str, dtype: Dtype) -> Result<Option<TensorView<'a>>> {
        let Ok(tensor) = self.tensors.tensor(name) else { return Ok(None) };
        if tensor.dtype() != dtype {
            return Err(self.error(name, format!("expected {dtype:?}, got {:?}", tensor.dtype())));
        }
        Ok(Some(tensor))
    }

    /// An i64 tensor `[count]`; `None` when it is not there.
    fn i64s(&self, name: &str, count: usize) -> Result<Option<Vec<i64>>> {
        let Some(tensor) = self.get(name, Dtype::I64)? else { return Ok(None) };
        if tensor.shape() != [count] {
            return Err(self.shape_error(name, &format!("[{count}]"), tensor.shape()));
        }
        Ok(Some(i64s(tensor.data())))
    }

    /// Where the clips begin and end: at least one number, non-decreasing, within 0..=total.
    fn offsets(&self, total: usize) -> Result<Vec<usize>> {
        let tensor = self.get("offsets", Dtype::I64)?.ok_or_else(|| self.error("offsets", "missing"))?;
        if tensor.shape().len() != 1 || tensor.shape()[0] == 0 {
            return Err(self.shape_error("offsets", "[clips + 1]", tensor.shape()));
        }
        let mut last = 0;
        let in_order = |(index, offset): (usize, i64)| match usize::try_from(offset) {
            Ok(offset) if (last..=total).contains(&offset) => {
                last = offset;
                Ok(offset)
            }
            _ => Err(self.error("offsets", format!("entry {index}: expected {last}..={total}, got {offset}"))),
        };
        i64s(tensor.data()).into_iter().enumerate().map(in_order).collect()
    }

    fn labels(&self, count: usize, classes: usize) -> Result<Vec<usize>> {
        let labels = self.i64s("labels", count)?.ok_or_else(|| self.error("labels", "missing"))?;
        let known = |(index, label): (usize, i64)| match usize::try_from(label) {
            Ok(label) if label < classes => Ok(label),
            _ => Err(self.error("labels", format!("clip {index}: expected a class in 0..{classes}, got {label}"))),
        };
        labels.into_iter().enumerate().map(known).collect()
    }

    /// Splits, from `split.<name>.test` (1 = test clip), and the other tensors of one flag a clip, each by its name.
    #[expect(clippy::type_complexity, reason = "two maps of one kind, at once taken apart")]
    fn flags(&self, count: usize) -> Result<(BTreeMap<String, Vec<bool>>, BTreeMap<String, Vec<bool>>)> {
        let (mut splits, mut flags) = (BTreeMap::new(), BTreeMap::new());
        for key in self.tensors.names() {
            let split = key.strip_prefix("split.").and_then(|rest| rest.strip_suffix(".test"));
            let flag = self.tensors.tensor(key).is_ok_and(|tensor| tensor.dtype() == Dtype::U8) && key != "valid";
            if split.is_none() && !flag {
                continue;
            }
            let tensor = self.get(key, Dtype::U8)?.ok_or_else(|| self.error(key, "missing"))?;
            if tensor.shape() != [count] {
                return Err(self.shape_error(key, &format!("[{count}]"), tensor.shape()));
            }
            if let Some(at) = tensor.data().iter().position(|flag| *flag > 1) {
                return Err(self.error(key, format!("clip {at}: expected 0 or 1, got {}", tensor.data()[at])));
            }
            let values = tensor.data().iter().map(|flag| *flag == 1).collect();
            match split {
                Some(name) => splits.insert(name.to_owned(), values),
                None => flags.insert(key.to_owned(), values),
            };
        }
        Ok((splits, flags))
    }

    /// 1 where a joint is valid: flagged so by `valid`, `confidence` above zero; where both are there, by both. `None` where neither is.
    fn validity(&self, count: usize) -> Result<Option<Vec<u8>>> {
        let fits = |name: &str, tensor: TensorView<'a>| match tensor.shape().iter().product::<usize>() == count {
            true => Ok(tensor.data()),
            false => Err(self.shape_error(name, &format!("of {count} flags, one a joint"), tensor.shape())),
        };
        let valid = self.get("valid", Dtype::U8)?.map(|tensor| fits("valid", tensor)).transpose()?;
        let confidence = self.get("confidence", Dtype::F32)?.map(|tensor| fits("confidence", tensor)).transpose()?;
        if valid.is_none() && confidence.is_none() {
            return Ok(None);
        }
        let mut flags = vec![1; count];
        if let Some(valid) = valid {
            flags.iter_mut().zip(valid).for_each(|(flag, valid)| *flag &= u8::from(*valid != 0));
        }
        if let Some(confidence) = confidence {
            flags.iter_mut().zip(f32s(confidence)).for_each(|(flag, confidence)| *flag &= u8::from(confidence > 0.0));
        }
        Ok(Some(flags))
    }
}

/// Little-endian numbers; a file in memory is not aligned.
fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn i64s(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])).collect()
}
