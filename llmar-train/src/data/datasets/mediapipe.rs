//! MediaPipe poses as `.pose` files of the project pose-format: the component POSE_LANDMARKS, 33 points in the pixels of the picture. The
//! name of a file's folder is the clip's class.
//!
//! The format, little-endian: version f32 (0.1 or 0.2); width, height, depth and number of components, u16 each; for each component its name
//! and format (u16 length and text; `XYZC` is three coordinates and a confidence), the numbers of its points, limbs and colours (u16), the
//! points' names, two u16 a limb, three u16 a colour. Then the body: frames a second (u16; 0.2: f32), frames (u16; 0.2: u32), persons (u16),
//! coordinates f32 [frames, persons, points of all components, coordinates of the richest], confidences f32 [frames, persons, points].
//! Version 0.1 counts frames modulo 65,536; how many there are follows from the length. Source: pose-format, docs/specs v0.1 and v0.2.
//!
//! Of several persons the two with the largest sum of confidence over the clip are kept, in the file's order.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::bytes::Bytes;
use super::folders::{PERSONS, folders_of, label, main_persons};
use super::{Body, Entry, Outcome, Set, files, read_bytes};
use crate::error::{Error, Result};

/// Most bytes of a file: with face and hands about 15 minutes at 30 frames a second.
const MAX_BYTES: u64 = 256 << 20;
/// Most bytes of all that comes before the coordinates; face and hands have 15 kB.
const MAX_HEADER: u64 = 1 << 20;
/// Most coordinates of a point, in any component.
const MAX_COORDS: usize = 8;
const COMPONENT: &str = "POSE_LANDMARKS";
const POINTS: usize = 33;

/// Names as in the files but for their case, and parents: from the nose, as in the layout `coco17`.
const JOINTS: [(&str, i64); POINTS] = [
    ("nose", -1),
    ("left_eye_inner", 0),
    ("left_eye", 1),
    ("left_eye_outer", 2),
    ("right_eye_inner", 0),
    ("right_eye", 4),
    ("right_eye_outer", 5),
    ("left_ear", 3),
    ("right_ear", 6),
    ("mouth_left", 0),
    ("mouth_right", 0),
    ("left_shoulder", 0),
    ("right_shoulder", 0),
    ("left_elbow", 11),
    ("right_elbow", 12),
    ("left_wrist", 13),
    ("right_wrist", 14),
    ("left_pinky", 15),
    ("right_pinky", 16),
    ("left_index", 15),
    ("right_index", 16),
    ("left_thumb", 15),
    ("right_thumb", 16),
    ("left_hip", 11),
    ("right_hip", 12),
    ("left_knee", 23),
    ("right_knee", 24),
    ("left_ankle", 25),
    ("right_ankle", 26),
    ("left_heel", 27),
    ("right_heel", 28),
    ("left_foot_index", 27),
    ("right_foot_index", 28),
];

/// What comes before the coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Header {
    /// 2 or 3: coordinates of the component's points.
    coords: usize,
    /// Coordinates of every point in the body.
    stride: usize,
    /// Points before the component's.
    before: usize,
    /// Points of all components.
    points: usize,
    fps: Option<f32>,
    frames: Frames,
    persons: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Frames {
    Exactly(usize),
    /// Version 0.1.
    Modulo(u16),
}

fn text<'a>(from: &mut Bytes<'a>, what: &str) -> Result<&'a str> {
    let len = from.u16(what)?;
    let at = from.at();
    std::str::from_utf8(from.take(len.into(), what)?).map_err(|_| from.wrong_at(at, format!("{what}: expected UTF-8")))
}

/// Reads all before the coordinates.
fn header(from: &mut Bytes) -> Result<Header> {
    let version = from.f32("the version")?;
    let newer = match (version * 1000.0).round() as i64 {
        100 => false,
        200 => true,
        _ => return Err(from.wrong_at(0, format!("expected version 0.1 or 0.2 of a .pose file, got {version}"))),
    };
    from.take(6, "width, height and depth")?;
    let components = from.u16("the number of components")?;
    let (mut points, mut stride, mut wanted) = (0, 0, None);
    for _ in 0..components {
        let at = from.at();
        let name = text(from, "a component's name")?;
        let format_at = from.at();
        let format = text(from, "a component's format")?;
        let coords = format.strip_suffix('C').map_or(0, str::len);
        if !(1..=MAX_COORDS).contains(&coords) {
            return Err(from.wrong_at(format_at, format!("expected a format such as XYZC, got `{format}`")));
        }
        stride = stride.max(coords);
        let [own, limbs, colours] =
            [from.u16("the number of points")?, from.u16("the number of limbs")?, from.u16("the number of colours")?].map(usize::from);
        if name == COMPONENT {
            if wanted.is_some() {
                return Err(from.wrong_at(at, format!("{COMPONENT} stands twice")));
            }
            if format != "XYZC" && format != "XYC" {
                return Err(from.wrong_at(format_at, format!("expected the format XYZC or XYC, got `{format}`")));
            }
            if own != POINTS {
                return Err(from.wrong_at(at, format!("{COMPONENT}: expected {POINTS} points, got {own}")));
            }
            wanted = Some((points, coords));
        }
        for index in 0..own {
            let at = from.at();
            let point = text(from, "a point's name")?;
            let expected = JOINTS.get(index).filter(|(joint, _)| name == COMPONENT && !point.eq_ignore_ascii_case(joint));
            if let Some((joint, _)) = expected {
                return Err(from.wrong_at(at, format!("expected the point {joint}, got `{point}`")));
            }
        }
        from.take(limbs * 4, "limbs")?;
        from.take(colours * 6, "colours")?;
        points += own;
    }
    let (before, coords) = wanted.ok_or_else(|| from.wrong(format!("no component {COMPONENT}")))?;
    let fps_at = from.at();
    let fps = if newer { from.f32("frames a second")? } else { from.u16("frames a second")?.into() };
    if !fps.is_finite() || fps < 0.0 {
        return Err(from.wrong_at(fps_at, format!("expected frames a second, got {fps}")));
    }
    let frames = match newer {
        true => Frames::Exactly(from.u32("the number of frames")? as usize),
        false => Frames::Modulo(from.u16("the number of frames")?),
    };
    let persons = from.u16("the number of persons")?.into();
    // 0 is written where the rate is not known.
    Ok(Header { coords, stride, before, points, fps: (fps > 0.0).then_some(fps), frames, persons })
}

/// Number of frames, once it is known that the `left` bytes after the header hold exactly so many.
fn frames(header: &Header, from: &Bytes) -> Result<usize> {
    let frame = header.persons.saturating_mul(header.points).saturating_mul((header.stride + 1) * 4);
    let left = from.left();
    let (frames, fits, modulo) = match header.frames {
        Frames::Exactly(frames) => (frames, frames.checked_mul(frame) == Some(left), ""),
        Frames::Modulo(frames) if frame == 0 => (frames.into(), left == 0, ""),
        Frames::Modulo(frames) if left.is_multiple_of(frame) && (left / frame) as u16 == frames => (left / frame, true, ""),
        Frames::Modulo(frames) => (frames.into(), false, " (modulo 65536)"),
    };
    match fits {
        true => Ok(frames),
        false => Err(from.wrong(format!("expected {frames} frames{modulo} of {frame} bytes, got {left} bytes"))),
    }
}

/// Finds clips. Of each file the header is read, since it alone tells the rate and the number of coordinates and persons; a header that is
/// damaged is reported when its clip is read.
pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let mut found = Vec::new();
    let (mut headers, mut damaged) = (Vec::<(PathBuf, Header)>::new(), None);
    for path in files(sources, ".pose")? {
        match header_of(&path) {
            Ok(header) => headers.push((path.clone(), header)),
            Err(error) => damaged = damaged.or(Some(error)),
        }
        let (class, _) = folders_of(&path)?;
        let name = format!("{class}/{}", path.file_stem().unwrap_or_default().to_string_lossy());
        found.push((class, Entry { name, path, ..Entry::default() }));
    }
    if let (true, Some(error)) = (headers.is_empty(), damaged) {
        return Err(error);
    }
    let (first, other) = (headers.first().map(|(_, header)| *header), headers.iter());
    let (coords, fps) = first.map_or((3, None), |header| (header.coords, header.fps));
    if let Some((path, header)) = other.clone().find(|(_, header)| header.coords != coords) {
        let detail = format!("{COMPONENT}: {} coordinates, but other files have {coords}; convert them apart", header.coords);
        return Err(Error::format(path.display(), detail));
    }
    let (classes, entries) = label(found);
    Ok(Set {
        name: "mediapipe".into(),
        classes,
        joints: JOINTS.map(|(name, _)| name.to_owned()).to_vec(),
        parents: JOINTS.map(|(_, parent)| parent).to_vec(),
        persons: other.clone().map(|(_, header)| header.persons).max().unwrap_or(1).clamp(1, PERSONS),
        coords,
        fps: fps.filter(|fps| other.clone().all(|(_, header)| header.fps == Some(*fps))),
        coordinates: if coords == 3 {
            "pixels of the picture, y down, z as MediaPipe estimates it"
        } else {
            "pixels of the picture, y down"
        },
        entries,
        ..Set::default()
    })
}

/// The header at the start of a file.
fn header_of(path: &Path) -> Result<Header> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    file.take(MAX_HEADER).read_to_end(&mut bytes).map_err(Error::io(path))?;
    header(&mut Bytes::new(path, &bytes))
}

/// Reads a clip, at most 256 MiB.
pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let bytes = read_bytes(&entry.path, MAX_BYTES)?;
    let mut from = Bytes::new(&entry.path, &bytes);
    let header = header(&mut from)?;
    let frames = frames(&header, &from)?;
    if frames == 0 || header.persons == 0 {
        return Ok(Outcome::Dropped("no frame, or none of a person".into()));
    }
    let start = from.at();
    let (values, _) = bytes[start..].as_chunks::<4>();
    let value = |index: usize| f32::from_le_bytes(values[index]);
    let point = |t: usize, person: usize, v: usize| (t * header.persons + person) * header.points + header.before + v;
    let confidences = frames * header.persons * header.points * header.stride;
    let finite = |index: usize, what: &str| match value(index) {
        value if value.is_finite() => Ok(value),
        value => Err(from.wrong_at(start + index * 4, format!("{what}: expected a finite number, got {value}"))),
    };

    let mut sums = vec![0.0; header.persons];
    for (person, sum) in sums.iter_mut().enumerate() {
        for index in (0..frames).flat_map(|t| (0..POINTS).map(move |v| confidences + point(t, person, v))) {
            *sum += f64::from(finite(index, "confidence")?.max(0.0));
        }
    }
    let kept = main_persons(&sums);
    if kept.is_empty() {
        return Ok(Outcome::Dropped("no person in any frame".into()));
    }
    let rows = frames * kept.len() * POINTS;
    let (mut joints, mut valid) = (Vec::with_capacity(rows * header.coords), Vec::with_capacity(rows));
    for t in 0..frames {
        for &person in &kept {
            for point in (0..POINTS).map(|v| point(t, person, v)) {
                // Of a point that is not there the coordinates mean nothing.
                let there = value(confidences + point) > 0.0;
                valid.push(u8::from(there));
                for c in 0..header.coords {
                    joints.push(if there { finite(point * header.stride + c, "coordinate")? } else { 0.0 });
                }
            }
        }
    }
    Ok(Outcome::Clip(Body { joints, frames, persons: kept.len(), valid: Some(valid) }))
}

#[cfg(test)]
#[path = "mediapipe_tests.rs"]
mod tests;
