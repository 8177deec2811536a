//! The formats that data sets are published in, one file each. A reader works in two steps: `scan` finds the clips and what their names tell,
//! opening files only where the set's joints or rate stand in them; `read` reads one clip. So a data set of 100,000 files is planned at once and
//! read in parallel.

mod archive;
mod bvh;
mod bytes;
mod counts;
mod deepmimic;
mod folders;
mod jhmdb;
mod kinect_text;
mod mat5;
mod mediapipe;
mod msr_action3d;
mod ntu;
mod nw_ucla;
mod openpose;
mod pickle;
mod planar;
mod pyskl;
mod smarthome;
mod uav_human;
mod utd_mhad;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::error::{Error, Result};

/// A format by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Northwestern-UCLA Multiview 3D: a folder of JSON files
    NwUcla,
    /// NTU RGB+D: a folder of .skeleton files; setups 1 to 17 and actions 1 to 60 of it
    Ntu60,
    /// NTU RGB+D 120: a folder of .skeleton files
    Ntu120,
    /// UAV-Human: a folder of skeleton text files
    UavHuman,
    /// Toyota Smarthome: a folder of JSON files with 2D poses
    Smarthome,
    /// BioVision hierarchy (BVH): motion capture, a folder a class
    Bvh,
    /// DeepMimic JSON of the body humanoid3d: a folder of humanoid3d_*.txt
    DeepMimic,
    /// Clip archives of one layout, pooled by the text of their labels
    Archive,
    /// PYSKL pickle: one .pkl file with 3D Kinect or 2D COCO joints
    Pyskl,
    /// MSR-Action3D: a folder of a01_s01_e01_skeleton3D.txt
    #[value(name = "msr-action3d")]
    MsrAction3d,
    /// UTD-MHAD: a folder of MATLAB files aA_sS_tT_skeleton.mat
    UtdMhad,
    /// J-HMDB: folders joint_positions/CLASS/CLIP of MATLAB files, and the lists of its splits
    Jhmdb,
    /// OpenPose JSON, a file a frame; the folder's name is the class
    #[value(name = "openpose")]
    OpenPose,
    /// MediaPipe .pose files of pose-format; the folder's name is the class
    #[value(name = "mediapipe")]
    MediaPipe,
}

/// Where a protocol puts a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Trained on.
    Train,
    /// Tested on.
    Test,
    /// In neither part.
    Unused,
}

/// One clip before it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name in reports: the file's stem, or that of its annotation.
    pub name: String,
    /// File.
    pub path: PathBuf,
    /// Which clip of the file; 0 where a file is a clip.
    pub index: usize,
    /// Index into the set's classes.
    pub label: usize,
    /// Number of the performer, where known.
    pub subject: Option<i64>,
    /// Number of the camera, where known.
    pub camera: Option<i64>,
}

/// A protocol: how clips are split, and what the data set's authors count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// A side for each of the set's entries.
    pub sides: Vec<Side>,
    /// (train, test) counts of the whole data set, where they are known.
    pub published: Option<(usize, usize)>,
    /// The same with the clips that an official list of missing skeletons takes out, where there is such a list.
    pub before: Option<(usize, usize)>,
}

impl Protocol {
    fn of(sides: Vec<Side>) -> Self {
        Self { sides, ..Self::default() }
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Name of the archive: `ntu60`.
    pub name: String,
    /// Class names by label.
    pub classes: Vec<String>,
    /// Joint names in the order of the data.
    pub joints: Vec<String>,
    /// Parent of each joint, −1 for the root; empty where unknown or where the joints are a built-in layout's.
    pub parents: Vec<i64>,
    /// M: most persons of a clip.
    pub persons: usize,
    /// C: 2 or 3.
    pub coords: usize,
    /// Frames a second, where the data set has one rate.
    pub fps: Option<f32>,
    /// What the coordinates are, for people: unit, axes.
    pub coordinates: &'static str,
    /// Clips in the order in which they will stand in the archive.
    pub entries: Vec<Entry>,
    /// By name.
    pub protocols: BTreeMap<String, Protocol>,
    /// Clips of the whole data set that can be kept, where that is known.
    pub published_clips: Option<usize>,
    /// Clips that were found and left out: reason → names.
    pub dropped: BTreeMap<String, Vec<String>>,
    /// Where the clip of an entry's `index` stands, for a format that holds all clips in one file; empty for the others.
    pub places: Vec<pyskl::Place>,
}

/// One clip, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// f32 [frames, persons, joints, coords]
    pub joints: Vec<f32>,
    /// T
    pub frames: usize,
    /// At most the set's.
    pub persons: usize,
    /// u8 [frames, persons, joints]: 0 marks a joint that is not there. `None`: all are.
    pub valid: Option<Vec<u8>>,
}

/// What reading a clip gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A clip of at least one frame.
    Clip(Body),
    /// A sound file without a usable clip, and why.
    Dropped(String),
}

/// Finds the clips of a format in files and folders (searched to any depth).
///
/// # Errors
/// A path that cannot be read, a file name that the format does not have, or no clip at all.
pub fn scan(format: Format, sources: &[PathBuf]) -> Result<Set> {
    let mut set = match format {
        Format::NwUcla => nw_ucla::scan(sources)?,
        Format::Ntu60 => ntu::scan(ntu::Edition::Ntu60, sources)?,
        Format::Ntu120 => ntu::scan(ntu::Edition::Ntu120, sources)?,
        Format::UavHuman => uav_human::scan(sources)?,
        Format::Smarthome => smarthome::scan(sources)?,
        Format::Bvh => bvh::scan(sources)?,
        Format::DeepMimic => deepmimic::scan(sources)?,
        Format::Archive => archive::scan(sources)?,
        Format::Pyskl => pyskl::scan(sources)?,
        Format::MsrAction3d => msr_action3d::scan(sources)?,
        Format::UtdMhad => utd_mhad::scan(sources)?,
        Format::Jhmdb => jhmdb::scan(sources)?,
        Format::OpenPose => openpose::scan(sources)?,
        Format::MediaPipe => mediapipe::scan(sources)?,
    };
    if set.entries.is_empty() {
        let places: Vec<_> = sources.iter().map(|source| source.display().to_string()).collect();
        return Err(Error::format(places.join(", "), format!("no clip of the format {format:?} there")));
    }
    counts::note(&mut set);
    Ok(set)
}

/// Reads one clip of a set.
///
/// # Errors
/// A file that cannot be read or is damaged; the error names the file, and the line or byte.
pub fn read(format: Format, entry: &Entry) -> Result<Outcome> {
    match format {
        Format::NwUcla => nw_ucla::read(entry),
        Format::Ntu60 | Format::Ntu120 => ntu::read(entry),
        Format::UavHuman => uav_human::read(entry),
        Format::Smarthome => smarthome::read(entry),
        Format::Bvh => bvh::read(entry),
        Format::DeepMimic => deepmimic::read(entry),
        Format::Archive => archive::read(entry),
        Format::Pyskl => pyskl::read(entry),
        Format::MsrAction3d => msr_action3d::read(entry),
        Format::UtdMhad => utd_mhad::read(entry),
        Format::Jhmdb => jhmdb::read(entry),
        Format::OpenPose => openpose::read(entry),
        Format::MediaPipe => mediapipe::read(entry),
    }
}

/// [`read`], but where the scan noted the place of a clip in its file, only that place is read, and not the whole file.
///
/// # Errors
/// Those of [`read`].
pub fn read_of(format: Format, set: &Set, entry: &Entry) -> Result<Outcome> {
    match set.places.get(entry.index) {
        Some(place) => pyskl::load(&entry.path, place),
        None => read(format, entry),
    }
}

/// All files under `sources` whose name ends in `extension` (with its dot), in order of their paths. A source that is a file is taken as it is.
fn files(sources: &[PathBuf], extension: &str) -> Result<Vec<PathBuf>> {
    fn walk(folder: &Path, extension: &str, out: &mut Vec<PathBuf>) -> Result<()> {
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let entry = entry.map_err(Error::io(folder))?;
            let path = entry.path();
            // A link to a folder is not followed: it could lead in a circle.
            let kind = entry.file_type().map_err(Error::io(&path))?;
            if kind.is_dir() {
                walk(&path, extension, out)?;
            } else if entry.file_name().to_string_lossy().ends_with(extension) {
                out.push(path);
            }
        }
        Ok(())
    }
    let mut out = Vec::new();
    for source in sources {
        if source.is_dir() { walk(source, extension, &mut out)? } else { out.push(source.clone()) }
    }
    out.sort();
    out.dedup();
    Ok(out)
}

/// A path's file name up to its first dot.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// A whole file as text, at most `limit` bytes; the error names a byte that is no UTF-8.
fn read_text(path: &Path, limit: u64) -> Result<String> {
    let bytes = read_bytes(path, limit)?;
    String::from_utf8(bytes).map_err(|e| Error::format(path.display(), format!("byte {} is not UTF-8", e.utf8_error().valid_up_to())))
}

/// A whole file, at most `limit` bytes.
fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::format(path.display(), format!("more than {limit} bytes, which no clip of this format has")));
    }
    Ok(bytes)
}

/// Text as numbers between white space, with the line of each for errors.
#[derive(Debug)]
struct Numbers<'a> {
    path: &'a Path,
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
    line: usize,
    words: std::str::SplitAsciiWhitespace<'a>,
}

impl<'a> Numbers<'a> {
    fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, lines: text.lines().enumerate(), line: 0, words: "".split_ascii_whitespace() }
    }

    /// The next word, over line ends.
    fn word(&mut self, what: &str) -> Result<&'a str> {
        loop {
            if let Some(word) = self.words.next() {
                return Ok(word);
            }
            let Some((index, line)) = self.lines.next() else {
                return Err(self.wrong(format!("expected {what}, got the end of the file")));
            };
            (self.line, self.words) = (index + 1, line.split_ascii_whitespace());
        }
    }

    /// The next word as a number of type `T`.
    fn next<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let word = self.word(what)?;
        word.parse().map_err(|_| self.wrong(format!("expected {what}, got `{word}`")))
    }

    /// The next word as a count of at most `limit`.
    fn count(&mut self, what: &str, limit: usize) -> Result<usize> {
        match self.next::<usize>(what)? {
            count if count <= limit => Ok(count),
            count => Err(self.wrong(format!("{what}: expected at most {limit}, got {count}"))),
        }
    }

    /// Whether nothing but white space is left.
    fn at_end(&mut self) -> bool {
        self.words.clone().next().is_none() && self.lines.clone().all(|(_, line)| line.trim_ascii().is_empty())
    }

    /// An error at the present line.
    fn wrong(&self, detail: impl std::fmt::Display) -> Error {
        Error::format(self.path.display(), format!("line {}: {detail}", self.line.max(1)))
    }
}

/// The number after `prefix` at the start of `text`, `digits` long, and the rest: `("S", 3)` of `S012C001` gives 12 and `C001`.
fn numbered<'t>(text: &'t str, prefix: &str, digits: usize) -> Option<(i64, &'t str)> {
    let rest = text.strip_prefix(prefix)?;
    let number = rest.get(..digits)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, &rest[digits..]))
}

/// A protocol by subject (or any other number): `train` holds it: trained on; `test` does, or is `None`: tested on; else unused.
fn split_by(numbers: impl Iterator<Item = Option<i64>>, train: &[i64], test: Option<&[i64]>) -> Vec<Side> {
    numbers
        .map(|number| match number {
            Some(n) if train.contains(&n) => Side::Train,
            Some(n) if test.is_none_or(|test| test.contains(&n)) => Side::Test,
            _ => Side::Unused,
        })
        .collect()
}

/// Joint names of a built-in layout.
fn joints_of(layout: &str) -> Result<Vec<String>> {
    Ok(llmar::skeleton::Layout::find(layout)?.joints)
}
