//! OpenPose JSON: one file a frame (`video_000000000012_keypoints.json`), with `people` and their `pose_keypoints_2d` (x, y, confidence of
//! each point in turn; pixels, y down). Face and hand keypoints are left out.
//!
//! Files are one clip where they lie in one folder and have one name up to the frame number. The folder's name is the clip's class. A clip
//! whose name is empty or that of its folder has the folder for itself (`wave/clip7/0000.json`, `wave/clip7/clip7_0000_keypoints.json`):
//! then the folder around it is the class. Frame numbers follow one another; a clip with a gap is left out, since its time would be torn.
//!
//! Persons: who has the same `person_id` in several frames is one person, as long as everybody in the clip has an id (OpenPose's tracking;
//! without it all are −1); otherwise the place in `people` counts. The two persons with the largest sum of confidence over the clip are
//! kept, in order of their ids or places. Without tracking OpenPose promises no order: two persons may change places.
//!
//! Source: OpenPose documentation, "Output" (02_output.md), whose point orders these are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use super::folders::{PERSONS, folders_of, label, main_persons};
use super::{Body, Entry, Outcome, Set, files, read_text};
use crate::error::{Error, Result};

/// Most bytes of a frame's file; a person with face and hands has about 5 kB.
const MAX_BYTES: u64 = 16 << 20;
/// Most frames of a clip: about an hour.
const MAX_FRAMES: usize = 100_000;
/// Points of a person with face and hands in one array, as some tools write them: BODY_25, then 70 of the face and 21 of each hand.
const WHOLE: usize = 137;

/// Joint, and index of its parent (−1: the root).
type Table = &'static [(&'static str, i64)];

const BODY_25: Table = &[
    ("nose", 1),
    ("neck", 8),
    ("right_shoulder", 1),
    ("right_elbow", 2),
    ("right_wrist", 3),
    ("left_shoulder", 1),
    ("left_elbow", 5),
    ("left_wrist", 6),
    ("mid_hip", -1),
    ("right_hip", 8),
    ("right_knee", 9),
    ("right_ankle", 10),
    ("left_hip", 8),
    ("left_knee", 12),
    ("left_ankle", 13),
    ("right_eye", 0),
    ("left_eye", 0),
    ("right_ear", 15),
    ("left_ear", 16),
    ("left_big_toe", 14),
    ("left_small_toe", 19),
    ("left_heel", 14),
    ("right_big_toe", 11),
    ("right_small_toe", 22),
    ("right_heel", 11),
];

const COCO_18: Table = &[
    ("nose", 1),
    ("neck", -1),
    ("right_shoulder", 1),
    ("right_elbow", 2),
    ("right_wrist", 3),
    ("left_shoulder", 1),
    ("left_elbow", 5),
    ("left_wrist", 6),
    ("right_hip", 1),
    ("right_knee", 8),
    ("right_ankle", 9),
    ("left_hip", 1),
    ("left_knee", 11),
    ("left_ankle", 12),
    ("right_eye", 0),
    ("left_eye", 0),
    ("right_ear", 14),
    ("left_ear", 15),
];

/// MPI's chest lies between neck and hips, where other layouts have the torso.
const MPI_15: Table = &[
    ("head", 1),
    ("neck", 14),
    ("right_shoulder", 1),
    ("right_elbow", 2),
    ("right_wrist", 3),
    ("left_shoulder", 1),
    ("left_elbow", 5),
    ("left_wrist", 6),
    ("right_hip", 14),
    ("right_knee", 8),
    ("right_ankle", 9),
    ("left_hip", 14),
    ("left_knee", 11),
    ("left_ankle", 12),
    ("torso", -1),
];

/// The model that has so many points.
fn table(points: usize) -> Option<Table> {
    match points {
        25 | WHOLE => Some(BODY_25),
        18 => Some(COCO_18),
        15 => Some(MPI_15),
        _ => None,
    }
}

#[derive(Debug, Deserialize)]
struct Frame {
    people: Vec<Person>,
}

#[derive(Debug, Deserialize)]
struct Person {
    #[serde(default)]
    person_id: Id,
    /// Named `pose_keypoints` before OpenPose 1.2.
    #[serde(alias = "pose_keypoints")]
    pose_keypoints_2d: Points,
}

/// `[7]` or `7`; `None` (−1 or absent) without tracking.
#[derive(Debug, Default)]
struct Id(Option<u64>);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Array([i64; 1]),
        }
        let (Written::Number(id) | Written::Array([id])) = Written::deserialize(from)?;
        Ok(Self(u64::try_from(id).ok()))
    }
}

/// [x, y, confidence] of a model's points; none where only face or hands were found.
#[derive(Debug)]
struct Points(Vec<[f32; 3]>);

impl<'de> Deserialize<'de> for Points {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Vec<f32>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("x, y and confidence of 25, 18, 15 or 137 points")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element::<f32>()? {
                    if !value.is_finite() {
                        return Err(A::Error::custom(format!("pose keypoints: value {} is too large", values.len() + 1)));
                    }
                    values.push(value);
                    // Before a longer array takes memory.
                    if values.len() > WHOLE * 3 {
                        return Err(A::Error::invalid_length(values.len(), &self));
                    }
                }
                match values.len() {
                    0 => Ok(values),
                    len if len % 3 == 0 && table(len / 3).is_some() => Ok(values),
                    len => Err(A::Error::invalid_length(len, &self)),
                }
            }
        }
        let values = from.deserialize_seq(Values)?;
        let (points, _) = values.as_chunks::<3>();
        let joints = table(points.len()).map_or(0, <[_]>::len);
        Ok(Self(points[..joints].to_vec()))
    }
}

/// Name of the clip and number of the frame in a file name; the name may be empty.
fn split_name(path: &Path) -> Result<(String, u64)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".json").map(|stem| stem.strip_suffix("_keypoints").unwrap_or(stem));
    let parts = stem.and_then(|stem| {
        let clip = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let frame = stem[clip.len()..].parse().ok()?;
        Some((clip.trim_end_matches(['_', '.', '-', ' ']).to_owned(), frame))
    });
    parts.ok_or_else(|| Error::format(path.display(), "file name: expected a frame number before `.json` or `_keypoints.json`"))
}

fn parse(path: &Path) -> Result<Frame> {
    // The error of serde_json ends with line and column.
    serde_json::from_str(&read_text(path, MAX_BYTES)?).map_err(|e| Error::format(path.display(), e))
}

/// A frame number that is missing between the first and the last, or stands twice. `numbers` in order.
fn torn(numbers: impl Iterator<Item = u64> + Clone) -> Option<String> {
    let (before, after) = (numbers.clone(), numbers.skip(1));
    before.zip(after).find(|(a, b)| b - a != 1).map(|(a, b)| match b - a {
        0 => format!("two files of frame {a}"),
        _ => format!("no file of frame {}", a + 1),
    })
}

/// Finds clips; any frame's file stands for its whole clip. Files are opened only until one shows a person, whose points say what model all
/// clips must have.
pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    // Numbers and files by folder and clip.
    let mut clips: BTreeMap<(PathBuf, String), Vec<(u64, PathBuf)>> = BTreeMap::new();
    for path in files(sources, ".json")? {
        let (clip, frame) = split_name(&path)?;
        clips.entry((path.parent().unwrap_or(Path::new("")).to_path_buf(), clip)).or_default().push((frame, path));
    }
    let mut set =
        Set { name: "openpose".into(), persons: PERSONS, coords: 2, coordinates: "pixels of the picture, y down", ..Set::default() };
    let (mut found, mut model, mut damaged) = (Vec::new(), None, None);
    for ((_, clip), mut frames) in clips {
        frames.sort();
        let (folder, around) = folders_of(&frames[0].1)?;
        let own_folder = clip.is_empty() || clip == folder;
        let (class, clip) = if own_folder { (around, folder) } else { (folder, clip) };
        if class.is_empty() {
            return Err(Error::format(frames[0].1.display(), "its clip lies in no folder whose name is a class"));
        }
        let name = format!("{class}/{clip}");
        if let Some(detail) = torn(frames.iter().map(|(number, _)| *number)) {
            set.dropped.entry(detail).or_default().push(name);
            continue;
        }
        for (_, path) in &frames {
            if model.is_some() {
                break;
            }
            // A damaged file is reported when its clip is read.
            match parse(path) {
                Ok(frame) => model = frame.people.iter().find_map(|person| table(person.pose_keypoints_2d.0.len())),
                Err(error) => damaged = damaged.or(Some(error)),
            }
        }
        let path = frames.swap_remove(0).1;
        found.push((class, Entry { name, path, ..Entry::default() }));
    }
    let Some(model) = model else {
        let places: Vec<_> = sources.iter().map(|source| source.display().to_string()).collect();
        let detail = match set.dropped.first_key_value() {
            Some((reason, names)) if found.is_empty() => format!("no whole clip; {reason} in {}", names.join(", ")),
            _ => "no file shows a person, so the model is not known".into(),
        };
        return Err(damaged.unwrap_or_else(|| Error::format(places.join(", "), detail)));
    };
    set.joints = model.iter().map(|(name, _)| (*name).to_owned()).collect();
    set.parents = model.iter().map(|(_, parent)| *parent).collect();
    (set.classes, set.entries) = label(found);
    Ok(set)
}

/// The files of the clip whose first frame is `first`, in order.
fn frames_of(first: &Path) -> Result<Vec<PathBuf>> {
    let (clip, _) = split_name(first)?;
    let folder = first.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut frames = Vec::new();
    for file in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = file.map_err(Error::io(folder))?.path();
        if let Ok((other, frame)) = split_name(&path)
            && other == clip
        {
            frames.push((frame, path));
        }
    }
    frames.sort();
    if let Some(detail) = torn(frames.iter().map(|(number, _)| *number)) {
        return Err(Error::format(first.display(), format!("its clip has {detail}")));
    }
    if frames.len() > MAX_FRAMES {
        return Err(Error::format(first.display(), format!("its clip has {} frames; at most {MAX_FRAMES} are read", frames.len())));
    }
    Ok(frames.into_iter().map(|(_, path)| path).collect())
}

/// Reads all files of a clip, at most 16 MiB each and 100,000.
pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let paths = frames_of(&entry.path)?;
    let mut points = 0;
    let mut frames = Vec::with_capacity(paths.len());
    for path in &paths {
        let people = parse(path)?.people;
        for (place, person) in people.iter().enumerate().filter(|(_, person)| !person.pose_keypoints_2d.0.is_empty()) {
            let own = person.pose_keypoints_2d.0.len();
            if points != 0 && own != points {
                return Err(Error::format(path.display(), format!("people[{place}] has {own} points in a clip of {points}")));
            }
            points = own;
        }
        frames.push(people);
    }
    // Persons by id or place; see the top of this file.
    let tracked = frames.iter().flatten().all(|person| person.person_id.0.is_some());
    let identity = |place: usize, person: &Person| person.person_id.0.filter(|_| tracked).unwrap_or(place as u64);
    let mut sums: BTreeMap<u64, f64> = BTreeMap::new();
    for (people, path) in frames.iter().zip(&paths) {
        let mut seen = BTreeSet::new();
        for (place, person) in people.iter().enumerate() {
            let id = identity(place, person);
            if !seen.insert(id) {
                return Err(Error::format(path.display(), format!("people[{place}]: a second person with the person_id {id}")));
            }
            let sum: f64 = person.pose_keypoints_2d.0.iter().map(|point| f64::from(point[2].max(0.0))).sum();
            *sums.entry(id).or_default() += sum;
        }
    }
    let (ids, sums): (Vec<u64>, Vec<f64>) = sums.into_iter().unzip();
    let kept: Vec<u64> = main_persons(&sums).into_iter().map(|person| ids[person]).collect();
    if kept.is_empty() {
        return Ok(Outcome::Dropped("no person in any frame".into()));
    }
    let rows = frames.len() * kept.len() * points;
    let (mut joints, mut valid) = (vec![0.0; rows * 2], vec![0; rows]);
    for (t, people) in frames.iter().enumerate() {
        for (place, person) in people.iter().enumerate() {
            let Some(slot) = kept.iter().position(|id| *id == identity(place, person)) else { continue };
            for (v, &[x, y, confidence]) in person.pose_keypoints_2d.0.iter().enumerate() {
                if confidence > 0.0 {
                    let row = (t * kept.len() + slot) * points + v;
                    joints[row * 2..][..2].copy_from_slice(&[x, y]);
                    valid[row] = 1;
                }
            }
        }
    }
    Ok(Outcome::Clip(Body { joints, frames: frames.len(), persons: kept.len(), valid: Some(valid) }))
}

#[cfg(test)]
#[path = "openpose_tests.rs"]
mod tests;
