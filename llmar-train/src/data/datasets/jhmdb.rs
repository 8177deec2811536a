//! J-HMDB: MATLAB files `joint_positions/<class>/<clip>/joint_positions.mat`, of which the variable `pos_img`, numbers [2, 15 joints, T frames], is
//! read: x and y in pixels of the image. The other variables (`pos_world`, `scale`, `viewpoint`) are passed over.
//!
//! The three splits stand beside them in `splits/<class>_test_split1.txt` to 3, a line a clip: `<clip>.avi 1` (trained on) or `2` (tested on). A clip
//! that no file of a split lists is in neither part of it. A joint that is no number is not valid.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::{Body, Entry, Outcome, Protocol, Set, Side, files, mat5, read_bytes, read_text};
use crate::error::{Error, Result};

/// Folder of each class, in order of the alphabet; a label has spaces for underscores.
const CLASSES: [&str; 21] = [
    "brush_hair",
    "catch",
    "clap",
    "climb_stairs",
    "golf",
    "jump",
    "kick_ball",
    "pick",
    "pour",
    "pullup",
    "push",
    "run",
    "shoot_ball",
    "shoot_bow",
    "shoot_gun",
    "sit",
    "stand",
    "swing_baseball",
    "throw",
    "walk",
    "wave",
];

/// Joint and parent, in the order of the data.
const TREE: [(&str, i64); JOINTS] = [
    ("neck", -1),
    ("belly", 0),
    ("face", 0),
    ("right_shoulder", 0),
    ("left_shoulder", 0),
    ("right_hip", 1),
    ("left_hip", 1),
    ("right_elbow", 3),
    ("left_elbow", 4),
    ("right_knee", 5),
    ("left_knee", 6),
    ("right_wrist", 7),
    ("left_wrist", 8),
    ("right_ankle", 9),
    ("left_ankle", 10),
];
/// V
const JOINTS: usize = 15;
/// Name of every clip's file; the folders name the clip.
const FILE: &str = "joint_positions.mat";
/// Most bytes of a file; a clip has at most some hundred frames of 240 bytes, twice.
const MAX_BYTES: u64 = 16 << 20;

pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let mut entries = Vec::new();
    for path in files(sources, FILE)?.into_iter().filter(|path| !foreign(path)) {
        if path.extension().is_some_and(|extension| extension == "txt") {
            continue; // a source of its own: the file of a split
        }
        let (label, clip) = folders(&path)?;
        entries.push(Entry { name: clip, path, index: 0, label, subject: None, camera: None });
    }
    entries.sort_by(|a, b| (a.label, &a.name).cmp(&(b.label, &b.name)));
    if let Some(pair) = entries.windows(2).find(|pair| (pair[0].label, &pair[0].name) == (pair[1].label, &pair[1].name)) {
        return Err(Error::format(pair[1].path.display(), format!("the clip stands in {} too", pair[0].path.display())));
    }
    let splits = splits(sources)?;
    let mut dropped = BTreeMap::new();
    let there: BTreeSet<(usize, &str)> = entries.iter().map(|entry| (entry.label, entry.name.as_str())).collect();
    let listed: BTreeSet<&(usize, String)> = splits.values().flat_map(HashMap::keys).collect();
    let absent = listed.into_iter().filter(|(label, clip)| !there.contains(&(*label, clip.as_str())));
    let absent: Vec<String> = absent.map(|(label, clip)| format!("{}/{clip}", CLASSES[*label])).collect();
    if !absent.is_empty() {
        dropped.insert("in a split, but without joint positions".to_owned(), absent);
    }
    let protocol = |sides: HashMap<(usize, String), Side>| {
        let side = |entry: &Entry| sides.get(&(entry.label, entry.name.clone())).copied().unwrap_or(Side::Unused);
        Protocol::of(entries.iter().map(side).collect())
    };
    Ok(Set {
        name: "jhmdb".into(),
        classes: CLASSES.iter().map(|class| class.replace('_', " ")).collect(),
        joints: TREE.iter().map(|(joint, _)| (*joint).to_owned()).collect(),
        parents: TREE.iter().map(|(_, parent)| *parent).collect(),
        persons: 1,
        coords: 2,
        coordinates: "pixels of the image, y down",
        protocols: splits.into_iter().map(|(number, sides)| (format!("split{number}"), protocol(sides))).collect(),
        entries,
        dropped,
        ..Set::default()
    })
}

/// The published archives hold, beside each file, one of a Macintosh's file system under the same name.
fn foreign(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == ".AppleDouble" || part.as_os_str().to_string_lossy().starts_with("._"))
}

/// Label and name of a clip from the folders that its file lies in.
fn folders(path: &Path) -> Result<(usize, String)> {
    let whole = std::path::absolute(path).map_err(Error::io(path))?;
    let mut folders = whole.ancestors().skip(1).map(|folder| folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let (clip, class) = (folders.next().unwrap_or_default(), folders.next().unwrap_or_default());
    if path.file_name().is_none_or(|name| name != FILE) {
        return Err(Error::format(path.display(), format!("file name: expected {FILE} or a split's file")));
    }
    match CLASSES.iter().position(|known| *known == class) {
        Some(label) if !clip.is_empty() => Ok((label, clip)),
        _ => Err(Error::format(
            path.display(),
            format!("folders: expected <class>/<clip>/{FILE} with one of 21 classes, got `{class}/{clip}`"),
        )),
    }
}

/// Number of a split → label and clip → side.
type Splits = BTreeMap<u8, HashMap<(usize, String), Side>>;

/// All splits' files; other text files are passed over.
fn splits(sources: &[PathBuf]) -> Result<Splits> {
    let mut splits = Splits::new();
    let mut seen = HashMap::<(u8, usize), PathBuf>::new();
    for path in files(sources, ".txt")?.into_iter().filter(|path| !foreign(path)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((class, number)) = name.strip_suffix(".txt").and_then(|name| name.split_once("_test_split")) else { continue };
        let (Some(label), Some(number @ 1..=3)) = (CLASSES.iter().position(|known| *known == class), number.parse().ok()) else {
            return Err(Error::format(path.display(), "file name: expected <class>_test_split1.txt to 3 with one of 21 classes"));
        };
        if let Some(other) = seen.insert((number, label), path.clone()) {
            return Err(Error::format(path.display(), format!("{} is the same class and split", other.display())));
        }
        let split = splits.entry(number).or_default();
        for (index, line) in read_text(&path, MAX_BYTES)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |detail: String| Error::format(path.display(), format!("line {}: {detail}", index + 1));
            let (clip, side) = match line.trim().rsplit_once(' ') {
                Some((clip, "1")) => (clip, Side::Train),
                Some((clip, "2")) => (clip, Side::Test),
                _ => return Err(wrong(format!("expected `<clip>.avi 1` or `<clip>.avi 2`, got `{line}`"))),
            };
            let clip =
                clip.trim_end().strip_suffix(".avi").ok_or_else(|| wrong(format!("expected a name that ends in .avi, got `{clip}`")))?;
            if split.insert((label, clip.to_owned()), side).is_some() {
                return Err(wrong(format!("the clip `{clip}` stands twice")));
            }
        }
    }
    Ok(splits)
}

/// Reads a clip, at most 16 MiB.
pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let bytes = read_bytes(&entry.path, MAX_BYTES)?;
    let array = mat5::variable(&entry.path, &bytes, "pos_img")?;
    // MATLAB leaves out a last dimension of 1: a single frame.
    let frames = match array.dims[..] {
        [2, JOINTS] => 1,
        [2, JOINTS, frames] => frames,
        _ => return Err(Error::format(entry.path.display(), format!("`pos_img`: expected [2, 15, frames], got {:?}", array.dims))),
    };
    if frames == 0 {
        return Ok(Outcome::Dropped("no frame".into()));
    }
    // The first index runs fastest: x and y of a joint, then the joints of a frame. As in an archive.
    let joints: Vec<f32> = array.values.iter().map(|value| *value as f32).collect();
    if let Some(at) = joints.iter().position(|value| value.is_infinite()) {
        let place = format!("`pos_img`({}, {}, {})", at % 2 + 1, at / 2 % JOINTS + 1, at / (2 * JOINTS) + 1);
        return Err(Error::format(entry.path.display(), format!("{place}: expected a number of f32, got {:e}", array.values[at])));
    }
    let valid: Vec<u8> = joints.as_chunks::<2>().0.iter().map(|[x, y]| u8::from(!x.is_nan() && !y.is_nan())).collect();
    let valid = valid.contains(&0).then_some(valid);
    Ok(Outcome::Clip(Body { joints, frames, persons: 1, valid }))
}

#[cfg(test)]
mod tests;
