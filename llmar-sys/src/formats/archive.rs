//! Clip archives: a safetensors file with `joints` f32 [F, M, V, C], `offsets` i64 [N + 1], `labels`, optional `subjects`, `cameras` i64 `[N]`,
//! `valid` u8 or `confidence` f32 [F, …, V], `split.<name>.test` and other flags u8 `[N]`, and metadata `clips` (JSON).
//!
//! The file is mapped, and its clips are views of it: an archive may be larger than memory. What is said of each clip once (offsets, labels, splits) is
//! checked when it is opened; positions are looked at by who uses them, where those that are not finite count as missing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::Deserialize;

use super::{MAX_HELD, Numbers, OwnedClip, contents};
use crate::bytes::{Bytes, BytesBuilder};
use crate::error::{Error, Result};
use crate::skeleton::{Layout, MAX_PERSONS, builtin_layouts};

/// Most clips of an archive: each takes memory of its own, even one without frames.
pub const MAX_CLIPS: usize = 1 << 20;

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
    /// Clips in file order; each keeps the file mapped.
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
    /// Maps and checks an archive. Joint names that are no built-in layout's are registered as a layout under the archive's name.
    ///
    /// The file must not be changed or cut while the archive or one of its clips is in use; a new one may be renamed over it, as the trainer's
    /// `data convert` does.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] that names tensor and place, [`Error::Limit`] for more than [`MAX_CLIPS`] clips, and for more than 1 GiB of
    /// numbers that cannot be read where they lie: not aligned to their size, or confidences, of which a flag each is kept.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.file_stem().map_or_else(|| "clips".into(), |stem| stem.to_string_lossy().into_owned());
        Self::parse(&path.display().to_string(), &name, &contents(path)?)
    }

    /// An archive whose bytes are there; `file` stands in errors, `stem` before the clips' indices.
    pub(super) fn parse(file: &str, stem: &str, bytes: &Bytes) -> Result<Self> {
        let tensors = Tensors::open(file, bytes)?;
        let about = tensors.description()?;
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

        let positions = tensors.source::<f32>("joints")?;
        let width = persons * v * coords;
        let clip = |(index, span): (usize, &[usize])| {
            let part = |row: usize| span[0] * row..span[1] * row;
            Ok(OwnedClip {
                name: format!("{stem}#{index}"),
                joints: positions.part(part(width))?,
                frames: span[1] - span[0],
                persons,
                joints_per_person: v,
                coords,
                fps,
                layout: layout.clone(),
                valid: valid.as_ref().map(|valid| valid.part(part(persons * v))).transpose()?,
            })
        };
        let clips = offsets.windows(2).enumerate().map(clip).collect::<Result<_>>()?;
        Ok(Self { name: about.name, classes: about.classes, layout, fps, clips, labels, subjects, cameras, splits, flags })
    }
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
    bytes: &'a Bytes,
    tensors: SafeTensors<'a>,
    header: Metadata,
    /// Where the header ends.
    data: usize,
}

/// A tensor that clips are parts of.
struct Source(Bytes);

impl Source {
    /// The numbers of a range: where they lie, else, where they are not aligned there, copied.
    fn part<T: Little>(&self, range: Range<usize>) -> Result<Numbers<T>> {
        let bytes = self.0.slice(range.start * size_of::<T>()..range.end * size_of::<T>())?;
        Ok(Numbers::mapped(bytes.clone()).unwrap_or_else(|| T::all(bytes.as_slice()).into()))
    }
}

impl<'a> Tensors<'a> {
    fn open(file: &'a str, bytes: &'a Bytes) -> Result<Self> {
        let none = |error: SafeTensorError| Error::format(file, format!("not a clip archive: {error}"));
        let tensors = SafeTensors::deserialize(bytes.as_slice()).map_err(none)?;
        let (header_len, header) = SafeTensors::read_metadata(bytes.as_slice()).map_err(none)?;
        Ok(Self { file, bytes, tensors, header, data: header_len + size_of::<u64>() })
    }

    fn description(&self) -> Result<Description> {
        let text = self.header.metadata().as_ref().and_then(|metadata| metadata.get("clips"));
        let text = text.ok_or_else(|| Error::format(self.file, "not a clip archive: its metadata has no key `clips`"))?;
        serde_json::from_str(text).map_err(|error| Error::format(self.file, format!("metadata `clips`: {error}")))
    }

    /// Where a tensor's bytes lie in the file.
    fn place(&self, name: &str) -> Result<Bytes> {
        let info = self.header.info(name).ok_or_else(|| self.error(name, "missing"))?;
        self.bytes.slice(self.data + info.data_offsets.0..self.data + info.data_offsets.1)
    }

    /// The bytes of a tensor that [`get`](Self::get) found to be of type `T`.
    fn source<T: Little>(&self, name: &str) -> Result<Source> {
        let bytes = self.place(name)?;
        if bytes.len() as u64 > MAX_HELD && Numbers::<T>::mapped(bytes.clone()).is_none() {
            return Err(Error::Limit {
                what: "bytes of clips that are not aligned in their file",
                limit: MAX_HELD,
                got: bytes.len() as u64,
            });
        }
        Ok(Source(bytes))
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
        Ok(Some(i64::all(tensor.data())))
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
        i64::all(tensor.data()).into_iter().enumerate().map(in_order).collect()
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

    /// 0 where a joint is not valid: not flagged so by `valid`, or of a `confidence` not above zero. `None` where neither is there. Flags alone are read
    /// where they lie.
    fn validity(&self, count: usize) -> Result<Option<Source>> {
        let fits = |name: &str, tensor: TensorView<'a>| match tensor.shape().iter().product::<usize>() == count {
            true => Ok(tensor.data()),
            false => Err(self.shape_error(name, &format!("of {count} flags, one a joint"), tensor.shape())),
        };
        let valid = self.get("valid", Dtype::U8)?.map(|tensor| fits("valid", tensor)).transpose()?;
        let Some(confidence) = self.get("confidence", Dtype::F32)? else {
            return valid.map(|_| self.source::<u8>("valid")).transpose();
        };
        let confidence = fits("confidence", confidence)?;
        if count as u64 > MAX_HELD {
            return Err(Error::Limit { what: "joints with a confidence", limit: MAX_HELD, got: count as u64 });
        }
        let mut flags = BytesBuilder::default();
        let room = flags.spare(count).map_err(|error| self.error("confidence", error))?;
        for ((at, flag), confidence) in room.iter_mut().enumerate().zip(confidence.as_chunks().0) {
            let sure = f32::from_le_bytes(*confidence) > 0.0;
            *flag = u8::from(sure && valid.is_none_or(|valid| valid[at] != 0));
        }
        flags.fill(count);
        Ok(Some(Source(flags.finish())))
    }
}

/// Numbers as a file has them: little-endian.
trait Little: bytemuck::AnyBitPattern {
    /// All whole numbers of `bytes`, which need not be aligned.
    fn all(bytes: &[u8]) -> Vec<Self>;
}

impl Little for f32 {
    fn all(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks().0.iter().map(|&b| Self::from_le_bytes(b)).collect()
    }
}

impl Little for i64 {
    fn all(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks().0.iter().map(|&b| Self::from_le_bytes(b)).collect()
    }
}

impl Little for u8 {
    fn all(bytes: &[u8]) -> Vec<Self> {
        bytes.to_vec()
    }
}
