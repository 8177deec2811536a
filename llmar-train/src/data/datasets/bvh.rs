//! BVH (BioVision hierarchy): text of a skeleton (`HIERARCHY`: joints with offsets and channels) and of its motion (`MOTION`: a line of
//! channel values a frame). Format: M. Meredith and S. Maddock, "Motion Capture File Formats Explained", Sheffield, 2001.
//!
//! World positions come from forward kinematics: a joint's rotations are multiplied in the order of its channels (`Zrotation Xrotation
//! Yrotation` is Rz · Rx · Ry, on column vectors, degrees, right-handed) and follow its parent's. Position channels take the place of the
//! joint's `OFFSET`, as in Blender: exporters write the whole translation there, and adding it would count it twice (LAFAN1's root).
//!
//! - Unit: BVH names none. The longest side of the box about the rest pose (that about the first frame where all offsets are zero) tells:
//!   above 1,000 the file is taken for millimetres, above 10 for centimetres, else for metres. Other units come out scaled.
//! - Axes are the file's: y up as a rule.
//! - Joints: all of the file in its order. Common names of limbs get those of the built-in layouts, by what the joint is: `LeftHand` below
//!   the forearm is `left_wrist`, `LeftShoulder` above the arm `left_collar`. An `End Site` is no joint, but for the end of an ankle or
//!   wrist that nothing else follows: it is the foot or hand. All files of a set must have the same joints.
//! - Label: the folder that holds the file.
//!
//! The parser is our own: the one on crates.io, `bvh_anim`, stands still since 0.4.0 of 2019 and needs `lexical` 2 (RUSTSEC-2023-0055);
//! kinematics and bounds on what a damaged file asks for would be ours all the same.

mod names;
#[cfg(test)]
mod tests;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use llmar::skeleton::{MAX_FRAMES, MAX_JOINTS, MAX_NAME};

use super::folders::{folders_of, label};
use super::{Body, Entry, Numbers, Outcome, Set, files, read_text, stem};
use crate::error::{Error, Result};

/// Largest file, in bytes.
const MAX_FILE: u64 = 256 << 20;
/// Largest part before the frames, in bytes.
const MAX_HEAD: u64 = 1 << 20;
/// Most channels of a joint: three positions, three rotations.
const MAX_CHANNELS: usize = 6;
/// Largest offset or channel value.
const MAX_VALUE: f64 = 1e6;

type Vector = [f64; 3];
type Rotation = [Vector; 3]; // rows

const UNTURNED: Rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// What a number of a frame moves; the axis is 0, 1, 2 for x, y, z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Position(usize),
    Rotation(usize),
}

/// A joint or an end site; parents stand before their children.
#[derive(Clone, Debug)]
struct Node {
    /// As written; empty for an end site.
    name: String,
    /// Line of its name.
    line: usize,
    parent: Option<usize>,
    /// In the parent's frame, file unit.
    offset: Vector,
    channels: Vec<Channel>,
}

/// What stands before the frames.
#[derive(Clone, Debug)]
struct Head {
    nodes: Vec<Node>,
    frames: usize,
    /// Seconds a frame.
    step: f64,
}

/// The joints of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Joints {
    /// V names
    names: Vec<String>,
    /// `[V]`, −1 for the root
    parents: Vec<i64>,
    /// Their nodes `[V]`
    nodes: Vec<usize>,
}

/// Joints and rate need the head of every file; a damaged one is left to `read`, which reports it, as long as one is sound.
pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let (mut found, mut rates) = (Vec::new(), Vec::new());
    let mut first: Option<(PathBuf, Joints)> = None;
    let mut damaged = None;
    for path in files(sources, ".bvh")? {
        match head_of(&path) {
            Ok((head, joints)) => {
                rates.push(1.0 / head.step);
                match &first {
                    Some((other, expected)) => same_joints(&path, &joints, other, expected)?,
                    None => first = Some((path.clone(), joints)),
                }
            }
            Err(error) => damaged = damaged.or(Some(error)),
        }
        let (class, _) = folders_of(&path)?;
        found.push((class, Entry { name: stem(&path), path, ..Entry::default() }));
    }
    let Some((_, joints)) = first else { return damaged.map_or(Ok(Set::default()), Err) };
    let (classes, entries) = label(found);
    Ok(Set {
        // The folder's name is in the archive's: the runtime knows joints that are no built-in layout's by the archive's name.
        name: format!("bvh_{}", sources.first().map(|source| stem(&absolute(source))).unwrap_or_default()),
        entries,
        classes,
        joints: joints.names,
        parents: joints.parents,
        persons: 1,
        coords: 3,
        fps: one_rate(&rates),
        coordinates: "metres by the size of the rest pose, axes of the files (y up as a rule)",
        ..Set::default()
    })
}

pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let text = read_text(&entry.path, MAX_FILE)?;
    let mut numbers = Numbers::new(&entry.path, &text);
    let head = head(&mut numbers)?;
    let joints = joints(&entry.path, &head.nodes)?;
    let places = motion(&mut numbers, &head, &joints)?;
    if head.frames == 0 {
        return Ok(Outcome::Dropped("no frame".into()));
    }
    Ok(Outcome::Clip(Body { joints: places, frames: head.frames, persons: 1, valid: None }))
}

/// Frames a second where all `rates` agree within 1 %: the first, made whole when within 0.05 % of it (`Frame Time` has few digits).
pub(super) fn one_rate(rates: &[f64]) -> Option<f32> {
    let &first = rates.first()?;
    let whole = first.round();
    let rate = if (first - whole).abs() <= 5e-4 * first { whole } else { first };
    rates.iter().all(|other| (other - first).abs() <= 0.01 * first).then_some(rate as f32)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Reads a file up to its frames.
fn head_of(path: &Path) -> Result<(Head, Joints)> {
    let mut reader = BufReader::new(std::fs::File::open(path).map_err(Error::io(path))?.take(MAX_HEAD));
    let (mut bytes, mut from) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut bytes).map_err(Error::io(path))? > 0 {
        let mut words = bytes[from..].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let mut is = |expected: &[u8]| words.next().is_some_and(|word| word.eq_ignore_ascii_case(expected));
        if is(b"Frame") && is(b"Time:") {
            break;
        }
        from = bytes.len();
    }
    if bytes.len() as u64 == MAX_HEAD {
        return Err(Error::format(path.display(), format!("no line `Frame Time:` in the first {MAX_HEAD} bytes")));
    }
    let text = std::str::from_utf8(&bytes);
    let text = text.map_err(|e| Error::format(path.display(), format!("byte {} is not UTF-8", e.valid_up_to())))?;
    let head = head(&mut Numbers::new(path, text))?;
    let joints = joints(path, &head.nodes)?;
    Ok((head, joints))
}

/// The first joint that two files do not share is an error.
fn same_joints(path: &Path, got: &Joints, first: &Path, expected: &Joints) -> Result<()> {
    let wrong = |detail: String| Err(Error::format(path.display(), format!("{detail}, as in {}", first.display())));
    let parent = |joints: &Joints, i: usize| usize::try_from(joints.parents[i]).map_or("none".into(), |p| format!("`{}`", joints.names[p]));
    for i in 0..got.names.len().max(expected.names.len()) {
        match (got.names.get(i), expected.names.get(i)) {
            (Some(a), Some(b)) if a != b => return wrong(format!("joint {i} is `{a}`: expected `{b}`")),
            (Some(a), None) => return wrong(format!("joint {i} is `{a}`: expected {} joints", expected.names.len())),
            (None, Some(b)) => return wrong(format!("joint {i} is missing: expected `{b}`")),
            (Some(a), _) if got.parents[i] != expected.parents[i] => {
                return wrong(format!("parent of joint {i}, `{a}`, is {}: expected {}", parent(got, i), parent(expected, i)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `HIERARCHY` to `Frame Time`. Keywords in any case.
fn head(numbers: &mut Numbers) -> Result<Head> {
    keyword(numbers, "HIERARCHY")?;
    keyword(numbers, "ROOT")?;
    let mut nodes = vec![node(numbers, None, false)?];
    let mut open = vec![0]; // joints whose brace is open
    let mut joints = 1;
    while let Some(&parent) = open.last() {
        let word = numbers.word("JOINT, End Site or }")?;
        if word == "}" {
            open.pop();
            continue;
        }
        let end = word.eq_ignore_ascii_case("End");
        if end {
            keyword(numbers, "Site")?;
        } else if !word.eq_ignore_ascii_case("JOINT") {
            return Err(numbers.wrong(format!("expected JOINT, End Site or }}, got `{word}`")));
        }
        joints += usize::from(!end);
        // Ends need no limit by themselves: the most joints, and as many ends, bound the work of a frame.
        if joints > MAX_JOINTS || nodes.len() >= 2 * MAX_JOINTS {
            return Err(numbers.wrong(format!("expected at most {MAX_JOINTS} joints, and as many end sites")));
        }
        nodes.push(node(numbers, Some(parent), end)?);
        if end {
            keyword(numbers, "}")?;
        } else {
            open.push(nodes.len() - 1);
        }
    }
    if nodes.iter().all(|node| node.channels.is_empty()) {
        return Err(numbers.wrong("expected a joint with channels, got none"));
    }
    keyword(numbers, "MOTION")?;
    keyword(numbers, "Frames:")?;
    let frames = numbers.count("frames", MAX_FRAMES)?;
    keyword(numbers, "Frame")?;
    keyword(numbers, "Time:")?;
    let step: f64 = numbers.next("seconds a frame")?;
    if !(1e-5..=1e3).contains(&step) {
        return Err(numbers.wrong(format!("Frame Time: expected 0.00001..=1000 seconds, got {step}")));
    }
    Ok(Head { nodes, frames, step })
}

fn keyword(numbers: &mut Numbers, expected: &str) -> Result<()> {
    let word = numbers.word(expected)?;
    if word.eq_ignore_ascii_case(expected) { Ok(()) } else { Err(numbers.wrong(format!("expected {expected}, got `{word}`"))) }
}

/// From a joint's name to its channels; an end site may have a name, and has no channels.
fn node(numbers: &mut Numbers, parent: Option<usize>, end: bool) -> Result<Node> {
    let (mut name, mut line) = (String::new(), numbers.line);
    loop {
        let word = numbers.word("{")?;
        if word == "{" {
            break;
        }
        if name.is_empty() {
            line = numbers.line;
        } else {
            name.push(' '); // a name may have spaces: `Bip01 L Thigh`
        }
        name.push_str(word);
        if name.len() > MAX_NAME {
            return Err(numbers.wrong(format!("expected {{ after a name of at most {MAX_NAME} bytes")));
        }
    }
    if name.is_empty() && !end {
        return Err(numbers.wrong("expected a joint's name, got {"));
    }
    keyword(numbers, "OFFSET")?;
    let mut offset = [0.0; 3];
    for x in &mut offset {
        *x = value(numbers, "an offset")?;
    }
    let mut channels = Vec::new();
    if !end {
        keyword(numbers, "CHANNELS")?;
        for _ in 0..numbers.count("channels of a joint", MAX_CHANNELS)? {
            channels.push(channel(numbers, &channels)?);
        }
    }
    Ok(Node { name: if end { String::new() } else { name }, line, parent, offset, channels })
}

/// Rotations about an axis may stand twice (proper Euler angles), positions may not.
fn channel(numbers: &mut Numbers, before: &[Channel]) -> Result<Channel> {
    let word = numbers.word("a channel")?;
    let lower = word.to_ascii_lowercase();
    let axis = |letter: Option<char>| ['x', 'y', 'z'].iter().position(|axis| Some(*axis) == letter);
    let kind = lower.get(1..).unwrap_or_default();
    match (axis(lower.chars().next()), kind) {
        (Some(axis), "rotation") => Ok(Channel::Rotation(axis)),
        (Some(axis), "position") if !before.contains(&Channel::Position(axis)) => Ok(Channel::Position(axis)),
        (Some(_), "position") => Err(numbers.wrong(format!("channel `{word}` stands twice"))),
        _ => Err(numbers.wrong(format!("expected Xposition … Zposition or Xrotation … Zrotation, got `{word}`"))),
    }
}

fn value(numbers: &mut Numbers, what: &str) -> Result<f64> {
    match numbers.next::<f64>(what)? {
        x if x.abs() <= MAX_VALUE => Ok(x), // not NaN
        x => Err(numbers.wrong(format!("{what}: expected at most {MAX_VALUE} either way, got {x}"))),
    }
}

/// Reads the frames, each a line, to the end of the file: f32 [frames, joints, 3] in metres. Memory grows with what is read.
fn motion(numbers: &mut Numbers, head: &Head, joints: &Joints) -> Result<Vec<f32>> {
    let width: usize = head.nodes.iter().map(|node| node.channels.len()).sum();
    let mut values = Vec::with_capacity(width);
    let (mut unit, mut out) = (1.0, Vec::new());
    for frame in 0..head.frames {
        let above = numbers.line;
        let mut line = above;
        values.clear();
        for i in 0..width {
            values.push(value(numbers, "a channel's value")?);
            if i == 0 {
                line = numbers.line;
            }
            if line == above || numbers.line != line {
                let got = if line == above { "more than that above it".into() } else { format!("{i} on line {line}") };
                return Err(numbers.wrong(format!("frame {frame}: expected a line of {width} numbers, got {got}")));
            }
        }
        let places = pose(&head.nodes, &values);
        if frame == 0 {
            unit = metres(&head.nodes, &places);
        }
        out.extend(joints.nodes.iter().flat_map(|&node| places[node]).map(|x| (x * unit) as f32));
    }
    if !numbers.at_end() {
        return Err(numbers.wrong(format!("expected the end after {} frames of {width} numbers, got more", head.frames)));
    }
    Ok(out)
}

/// Metres in a unit of the file, see the head of this module. Joints and ends count.
fn metres(nodes: &[Node], first: &[Vector]) -> f64 {
    let side = |places: &[Vector], axis: usize| {
        let (low, high) = places.iter().fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p[axis]), high.max(p[axis])));
        high - low
    };
    let size = |places: &[Vector]| (0..3).map(|axis| side(places, axis)).fold(0.0, f64::max);
    let size = match size(&pose(nodes, &[])) {
        0.0 => size(first),
        rest => rest,
    };
    match size {
        _ if size > 1000.0 => 0.001,
        _ if size > 10.0 => 0.01,
        _ => 1.0,
    }
}

/// Where each node is, in the file's unit, by the channel values of a frame in file order; without any: the rest pose.
fn pose(nodes: &[Node], values: &[f64]) -> Vec<Vector> {
    let mut places: Vec<Vector> = Vec::with_capacity(nodes.len());
    let mut turns: Vec<Rotation> = Vec::with_capacity(nodes.len());
    let mut values = values.iter();
    for node in nodes {
        let (mut shift, mut turn) = (node.offset, UNTURNED);
        for (channel, &x) in node.channels.iter().zip(values.by_ref()) {
            match *channel {
                Channel::Position(axis) => shift[axis] = x,
                Channel::Rotation(axis) => turn = product(&turn, &about(axis, x)),
            }
        }
        let (origin, outer) = node.parent.map_or(([0.0; 3], UNTURNED), |parent| (places[parent], turns[parent]));
        places.push(std::array::from_fn(|i| origin[i] + (0..3).map(|k| outer[i][k] * shift[k]).sum::<f64>()));
        turns.push(product(&outer, &turn));
    }
    places
}

/// Rotation by `degrees` about an axis, right-handed.
fn about(axis: usize, degrees: f64) -> Rotation {
    let (sin, cos) = degrees.to_radians().sin_cos();
    match axis {
        0 => [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]],
        1 => [[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]],
        _ => [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]],
    }
}

fn product(a: &Rotation, b: &Rotation) -> Rotation {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// The joints of the archive, named by what they are; two with one name are an error.
fn joints(path: &Path, nodes: &[Node]) -> Result<Joints> {
    let rows: Vec<(&str, Option<usize>)> = nodes.iter().map(|node| (node.name.as_str(), node.parent)).collect();
    let names = names::named(&rows);
    let fold = |name: &str| name.to_lowercase().replace([' ', '-', '_'], ""); // as the runtime compares names
    let mut index = vec![None; nodes.len()]; // of a node among the joints
    let mut joints = Joints { names: Vec::new(), parents: Vec::new(), nodes: Vec::new() };
    for (i, (node, name)) in nodes.iter().zip(names).enumerate() {
        let Some(name) = name else { continue };
        let wrong = |detail: String| Err(Error::format(path.display(), format!("line {}: joint `{}`: {detail}", node.line, node.name)));
        if fold(&name).is_empty() {
            return wrong("expected a name with a letter".into());
        }
        if let Some(same) = joints.names.iter().position(|other| fold(other) == fold(&name)) {
            let other = &nodes[joints.nodes[same]];
            return wrong(format!("`{name}` is `{}` of line {} already", other.name, other.line));
        }
        index[i] = Some(joints.names.len());
        joints.parents.push(node.parent.and_then(|parent| index[parent]).map_or(-1, |parent| parent as i64));
        joints.names.push(name);
        joints.nodes.push(i);
    }
    if joints.names.len() > MAX_JOINTS {
        return Err(Error::format(path.display(), format!("expected at most {MAX_JOINTS} joints, got {}", joints.names.len())));
    }
    Ok(joints)
}
