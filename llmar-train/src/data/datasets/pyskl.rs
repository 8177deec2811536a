//! PYSKL pickles (`ntu60_3danno.pkl`, `ntu60_hrnet.pkl`): all clips of a data set in one file, `{"split": {name: [frame_dir, …]},
//! "annotations": [{"frame_dir", "label", "total_frames", "keypoint": [M, T, V, C], "keypoint_score": [M, T, V] for 2D, …}, …]}`.
//!
//! 25 joints in 3D are Kinect v2 joints in metres; 17 joints in 2D are COCO keypoints in pixels, y down; others, also 25 in 2D (which
//! elsewhere are OpenPose's), are refused. In 3D a joint whose coordinates are all zero is not there, in 2D one without a score above zero.
//! Class names are not in the file. The layout of the file is that of PYSKL's `tools/data/README.md`.
//!
//! A scan maps and parses the file once and keeps where each clip's arrays stand, some 200 bytes a clip; of NTU RGB+D 120 that is 25 MB
//! where the clips take gigabytes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

use super::pickle::{Array, Chunk, Id, Pickle, parse};
use super::{Body, Entry, Outcome, Protocol, Set, Side, files, joints_of, numbered, stem};
use crate::artifacts::map_file;
use crate::error::{Error, Result};

/// Most classes; Kinetics has 700.
const MAX_CLASSES: i64 = 10_000;
/// Most persons of a clip of the archive.
const PERSONS: usize = 2;

/// A clip's arrays, unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// [M, T, V, C]
    keypoint: Array,
    /// [M, T, V]; 2D only.
    score: Option<Array>,
    /// Frames that the annotation tells, where it does.
    total_frames: Option<i64>,
}

/// Layout and coordinates that a shape stands for.
struct Kind {
    layout: &'static str,
    coordinates: &'static str,
}

/// What V joints with C coordinates are.
fn kind(joints: usize, coords: usize) -> std::result::Result<Kind, String> {
    match (joints, coords) {
        (25, 3) => Ok(Kind { layout: "ntu25", coordinates: "metres, y up, z depth from the camera" }),
        (17, 2) => Ok(Kind { layout: "coco17", coordinates: "pixels, x right, y down" }),
        _ => Err(format!("expected 25 joints in 3D (ntu25) or 17 joints in 2D (coco17), got {joints} joints in {coords}D")),
    }
}

pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let found = files(sources, ".pkl")?;
    let path = match &found[..] {
        [path] => path,
        [] => return Ok(Set::default()), // the caller says that nothing was found, and where
        _ => {
            let detail = format!("one PYSKL file holds one data set; expected one, got {}", found.len());
            return Err(Error::format(sources.iter().map(|s| s.display().to_string()).collect::<Vec<_>>().join(", "), detail));
        }
    };
    let bytes = map_file(path)?;
    gather(path, &parse(path, bytes.as_slice())?)
}

/// Parses the whole file for one clip; [`super::read_of`] with the set of a scan does without.
pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let set = scan(std::slice::from_ref(&entry.path))?;
    let missing =
        || Error::format(entry.path.display(), format!("expected more than {} annotations, got {}", entry.index, set.places.len()));
    load(&entry.path, set.places.get(entry.index).ok_or_else(missing)?)
}

/// The set that a parsed file holds.
fn gather(path: &Path, pickle: &Pickle<'_>) -> Result<Set> {
    let wrong = |detail: String| Error::format(path.display(), detail);
    let part = |key: &str| {
        pickle.get(pickle.root(), key).ok_or_else(|| wrong(format!("expected a dict with `split` and `annotations`, got no `{key}`")))
    };
    let (splits, annotations) = (part("split")?, part("annotations")?);
    let annotations = pickle.items(annotations).ok_or_else(|| wrong("`annotations`: expected a list".into()))?;

    let mut set = Set { name: stem(path), persons: 1, ..Set::default() };
    let mut shape = None;
    let mut classes = 0;
    for (index, &id) in annotations.iter().enumerate() {
        let (mut entry, place) = annotation(pickle, id).map_err(|detail| wrong(format!("annotation {index}: {detail}")))?;
        (entry.path, entry.index) = (path.to_path_buf(), index);
        if let [persons, _, joints, coords] = place.keypoint.shape[..] {
            let (v, c) = *shape.get_or_insert((joints, coords));
            if (v, c) != (joints, coords) {
                return Err(wrong(format!("annotation {index}: {joints} joints in {coords}D after {v} in {c}D")));
            }
            set.persons = set.persons.max(persons.min(PERSONS));
        }
        classes = classes.max(entry.label + 1);
        set.entries.push(entry);
        set.places.push(place);
    }
    let Some((joints, coords)) = shape else { return Ok(set) };
    let kind = kind(joints, coords).map_err(wrong)?;
    (set.joints, set.coords, set.coordinates) = (joints_of(kind.layout)?, coords, kind.coordinates);
    set.classes = (0..classes).map(|label| format!("class {label}")).collect();
    // NTU RGB+D was captured at 30 frames a second; the files of other sets do not tell.
    set.fps = set.entries.iter().all(|entry| entry.camera.is_some()).then_some(30.0);
    protocols(pickle, splits, &mut set).map_err(wrong)?;
    Ok(set)
}

/// One annotation, but for its path and index.
fn annotation(pickle: &Pickle<'_>, id: Id) -> std::result::Result<(Entry, Place), String> {
    let field = |key: &str| pickle.get(id, key).ok_or_else(|| format!("expected a dict with the key `{key}`"));
    let name = pickle.text(field("frame_dir")?).ok_or("`frame_dir`: expected text")?;
    let label = pickle.int(field("label")?).ok_or("`label`: expected an integer")?;
    if !(0..MAX_CLASSES).contains(&label) {
        return Err(format!("`label`: expected 0 to {}, got {label}", MAX_CLASSES - 1));
    }
    let keypoint = array(pickle, field("keypoint")?).map_err(|detail| format!("`keypoint`: {detail}"))?;
    let [persons, frames, joints, coords] = keypoint.shape[..] else {
        return Err(format!("`keypoint`: expected [persons, frames, joints, coordinates], got {:?}", keypoint.shape));
    };
    kind(joints, coords).map_err(|detail| format!("`keypoint`: {detail}"))?;
    let score = match pickle.get(id, "keypoint_score") {
        Some(score) if coords == 2 => Some(array(pickle, score).map_err(|detail| format!("`keypoint_score`: {detail}"))?),
        None if coords == 2 => return Err("expected the key `keypoint_score` beside 2D joints".into()),
        _ => None,
    };
    if let Some(score) = score.as_ref().filter(|score| score.shape != [persons, frames, joints]) {
        return Err(format!("`keypoint_score`: expected [{persons}, {frames}, {joints}], got {:?}", score.shape));
    }
    let total_frames = match pickle.get(id, "total_frames") {
        Some(id) => Some(pickle.int(id).ok_or("`total_frames`: expected an integer")?),
        None => None,
    };
    let (subject, camera) = ntu_name(name).unzip();
    let entry = Entry { name: name.to_owned(), label: label as usize, subject, camera, ..Entry::default() };
    Ok((entry, Place { keypoint, score, total_frames }))
}

/// Performer and camera of `S001C002P003R002A013`.
fn ntu_name(name: &str) -> Option<(i64, i64)> {
    let (_, rest) = numbered(name, "S", 3)?;
    let (camera, rest) = numbered(rest, "C", 3)?;
    let (performer, rest) = numbered(rest, "P", 3)?;
    let (_, rest) = numbered(rest, "R", 3)?;
    let (_, rest) = numbered(rest, "A", 3)?;
    rest.is_empty().then_some((performer, camera))
}

/// An array of floats.
fn array(pickle: &Pickle<'_>, id: Id) -> std::result::Result<Array, String> {
    let array = pickle.array(id).ok_or("expected a numpy array")?;
    match array.dtype.floats(&[]) {
        Some(_) => Ok(array.clone()),
        None => Err(format!("expected float16, float32 or float64, got {}{}", array.dtype.kind, array.dtype.size)),
    }
}

/// `xsub_train` with `xsub_val` is protocol `xsub`, `train1` with `test1` is `split1`, `train` with `val` is `split`; where both `val` and
/// `test` stand beside `train`, `test` is tested on and `val` is unused. Names without an annotation are noted as dropped.
fn protocols(pickle: &Pickle<'_>, splits: Id, set: &mut Set) -> std::result::Result<(), String> {
    let mut lists = BTreeMap::new();
    for &(key, list) in pickle.pairs(splits).ok_or("`split`: expected a dict")? {
        let key = pickle.text(key).ok_or("`split`: expected names")?;
        let names = pickle.items(list).and_then(|items| items.iter().map(|&id| pickle.text(id)).collect::<Option<HashSet<_>>>());
        lists.insert(key, names.ok_or_else(|| format!("split `{key}`: expected a list of names"))?);
    }
    for (key, train) in &lists {
        let Some((before, after)) = key.split_once("train") else { continue };
        let other = |word: &str| lists.get(format!("{before}{word}{after}").as_str());
        let Some(test) = other("test").or_else(|| other("val")) else { continue };
        let name = match before.trim_end_matches('_') {
            "" => format!("split{after}"),
            before => format!("{before}{after}"),
        };
        let side = |entry: &Entry| match (train.contains(entry.name.as_str()), test.contains(entry.name.as_str())) {
            (true, true) => Err(format!("split `{key}`: {} is both trained and tested on", entry.name)),
            (true, false) => Ok(Side::Train),
            (false, true) => Ok(Side::Test),
            (false, false) => Ok(Side::Unused),
        };
        let sides = set.entries.iter().map(side).collect::<std::result::Result<_, _>>()?;
        if set.protocols.insert(name.clone(), Protocol::of(sides)).is_some() {
            return Err(format!("split `{key}`: there are two of the name {name}"));
        }
    }
    let there: HashSet<&str> = set.entries.iter().map(|entry| entry.name.as_str()).collect();
    let absent: BTreeSet<&str> = lists.values().flatten().copied().filter(|name| !there.contains(name)).collect();
    if !absent.is_empty() {
        set.dropped.insert("in a split, but without an annotation".into(), absent.into_iter().map(str::to_owned).collect());
    }
    Ok(())
}

/// Reads the clip at a place.
pub(super) fn load(path: &Path, place: &Place) -> Result<Outcome> {
    let wrong = |detail: String| Error::format(path.display(), format!("byte {}: {detail}", place.keypoint.data.range().start));
    let [persons, frames, joints, coords] = place.keypoint.shape[..] else {
        return Err(wrong(format!("expected four axes, got {:?}", place.keypoint.shape)));
    };
    if let Some(total) = place.total_frames.filter(|&total| usize::try_from(total) != Ok(frames)) {
        return Err(wrong(format!("`total_frames` is {total}, but `keypoint` has {frames} frames")));
    }
    if persons == 0 || frames == 0 {
        return Ok(Outcome::Dropped(if frames == 0 { "no frame" } else { "no person" }.into()));
    }
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut values = |array: &Array| -> Result<Vec<f32>> {
        let bytes = stored(&mut file, path, array.data)?;
        let floats = array.data.decode(bytes).and_then(|bytes| array.dtype.floats(&bytes));
        floats.map(|floats| last_axis_fastest(array, floats)).ok_or_else(|| wrong("the file was changed after it was scanned".into()))
    };
    let mut keypoint = values(&place.keypoint)?;
    let score = place.score.as_ref().map(&mut values).transpose()?;

    // [M, T, V]
    let mut valid = Vec::with_capacity(persons * frames * joints);
    for (i, joint) in keypoint.chunks_exact_mut(coords).enumerate() {
        let finite = joint.iter().all(|x| x.is_finite());
        let there = score.as_ref().map_or_else(|| joint.iter().any(|&x| x != 0.0), |score| score[i] > 0.0);
        if !finite {
            joint.fill(0.0); // an archive holds numbers only
        }
        valid.push(u8::from(finite && there));
    }
    let kept = fullest(&valid, frames * joints);
    if kept.is_empty() {
        return Ok(Outcome::Dropped("no valid joint".into()));
    }
    let mut body = Body { joints: Vec::with_capacity(frames * kept.len() * joints * coords), frames, persons: kept.len(), valid: None };
    let mut flags = Vec::with_capacity(frames * kept.len() * joints);
    for t in 0..frames {
        for row in kept.iter().map(|m| (m * frames + t) * joints) {
            body.joints.extend_from_slice(&keypoint[row * coords..(row + joints) * coords]);
            flags.extend_from_slice(&valid[row..row + joints]);
        }
    }
    body.valid = Some(flags);
    Ok(Outcome::Clip(body))
}

/// The persons with the most valid joints, at most [`PERSONS`], in the order of the file; of equals the first. None where no joint is
/// valid.
fn fullest(valid: &[u8], rows: usize) -> Vec<usize> {
    let counts: Vec<usize> = valid.chunks_exact(rows).map(|person| person.iter().filter(|&&flag| flag == 1).count()).collect();
    if counts.iter().all(|&count| count == 0) {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&m| std::cmp::Reverse(counts[m])); // stable
    order.truncate(PERSONS);
    order.sort_unstable();
    order
}

/// What a file holds at a chunk's place. The scan saw the file at this length, so a chunk is no larger than it.
fn stored(file: &mut std::fs::File, path: &Path, chunk: Chunk) -> Result<Vec<u8>> {
    let range = chunk.range();
    let mut bytes = Vec::new();
    file.seek(std::io::SeekFrom::Start(range.start as u64)).map_err(Error::io(path))?;
    file.take(range.len() as u64).read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// The values of an array in C order.
fn last_axis_fastest(array: &Array, values: Vec<f32>) -> Vec<f32> {
    if !array.fortran {
        return values;
    }
    let mut strides = Vec::with_capacity(array.shape.len());
    let mut stride = 1;
    for &size in &array.shape {
        strides.push(stride);
        stride *= size;
    }
    let place = |mut i: usize| {
        let axes = array.shape.iter().zip(&strides).rev();
        axes.fold(0, |at, (&size, stride)| {
            let index = i % size;
            i /= size;
            at + index * stride
        })
    };
    (0..values.len()).map(|i| values[place(i)]).collect()
}

#[cfg(test)]
mod tests;
