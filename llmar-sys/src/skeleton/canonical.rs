//! The steps from a clip to its canonical form: mapped, masked, filled, centred, turned, scaled. One small function a step.

use super::clip::{Clip, Timing};
use super::layout::Layout;
use super::normalize::{Centre, Heading, Preprocess, Scale};
use crate::error::{Error, Result};

/// Frames whose mean hip line gives the heading.
const HEADING_FRAMES: usize = 5;
/// In UTD-MHAD the left hip lies at −x of the right hip in every clip (mean −0.143 m; the line's yaw over the first five frames has median −5.7°
/// and stays within 27°): the frame is right-handed, y up, and subjects face −z, towards the sensor.
pub(super) const LEFT_HIP_SIDE: f64 = -1.0;
/// Lengths (in the clip's units) up to which a segment or a horizontal hip line counts as a point.
const DEGENERATE: f64 = 1e-6;

/// A clip in the model's layout, before time and statistics: what augmentation works on.
#[derive(Clone, Debug, PartialEq)]
pub struct Canonical {
    /// [frames, persons, joints, coords] of the model's layout, all finite; an absent person is zero.
    pub joints: Vec<f32>,
    /// T, as in the clip.
    pub frames: usize,
    /// Seconds since the first frame, non-decreasing; frame numbers when the clip's timing is unknown. `[frames]`
    pub times: Vec<f64>,
    /// Whether `times` are seconds.
    pub timed: bool,
    /// Whether each of the model's persons is in the clip. `[persons]`
    pub present: Vec<bool>,
    /// Share of the present persons' joint-frames that were invalid and filled, 0..=1. A joint that the clip's layout lacks but that others
    /// stand in for is not missing; one that it has and never shows is.
    pub missing: f32,
}

/// One person on the way.
struct Person {
    /// Positions [frames, joints, coords].
    joints: Vec<f32>,
    /// Which of them are there [frames, joints].
    seen: Vec<bool>,
    /// Joint-frames that are not, or are derived from other joints because the clip never shows the joint itself.
    missing: usize,
}

/// Counts that every step needs.
#[derive(Clone, Copy)]
struct Shape {
    frames: usize,
    joints: usize,
    coords: usize,
}

/// Maps, masks, fills, centres, turns and scales a clip.
///
/// # Errors
/// Those of [`Clip::check`]; [`Error::InvalidArgument`] for other coordinates than the model's and for positions too large for f32 arithmetic;
/// [`Error::EmptyClip`] when no joint of the model is valid in any frame or the scale's segment has no length.
pub fn canonical(preprocess: &Preprocess, clip: &Clip<'_>) -> Result<Canonical> {
    clip.check_counts()?;
    let target = preprocess.target();
    // The model's own layout travels with the model: it need not be registered.
    let source = if clip.layout == target.name { target.clone() } else { Layout::find(clip.layout)? };
    clip.check_layout(&source)?;
    if clip.coords != preprocess.coords {
        return Err(Error::argument("coords", format!("{} as the model has", preprocess.coords), clip.coords));
    }
    let shape = Shape { frames: clip.frames, joints: target.joints.len(), coords: clip.coords };
    let ways = source.ways_to(&target, &preprocess.derived);
    let people = (0..clip.persons).map(|person| map_person(clip, person, &ways)).collect();
    let mut people = most_moving(people, shape, preprocess.persons);
    if people.is_empty() {
        let detail = format!("no joint of layout `{}` is valid in any of its {} frames", target.name, clip.frames);
        return Err(Error::EmptyClip { detail });
    }
    let root = joint_index(&target, &preprocess.root)?;
    people.iter_mut().for_each(|person| fill(person, shape, root));
    let length = segment_length(&people[0], shape, &target, &preprocess.scale);
    let missing: usize = people.iter().map(|person| person.missing).sum();
    let missing = missing as f32 / (people.len() * shape.frames * shape.joints) as f32;

    let present: Vec<bool> = (0..preprocess.persons).map(|person| person < people.len()).collect();
    let mut joints = interleave(&people, shape, preprocess.persons);
    let row = preprocess.persons * shape.joints * shape.coords; // values a frame
    let used = people.len() * shape.joints * shape.coords; // of them, those of present persons
    centre(&mut joints, row, used, shape.coords, root, preprocess.centre);
    if preprocess.heading == Heading::HipsToX && shape.coords == 3 {
        let hips = [joint_index(&target, "left_hip")?, joint_index(&target, "right_hip")?];
        turn_hips_to_x(&mut joints, row, hips);
    }
    scale(&mut joints, &preprocess.scale, length)?;
    if joints.iter().any(|x| !x.is_finite()) {
        return Err(Error::argument("joints", "positions whose differences fit f32", "positions near the largest f32"));
    }
    Ok(Canonical { joints, frames: clip.frames, times: clip.times(), timed: clip.timing != Timing::Unknown, present, missing })
}

/// One person in the model's layout. A joint is seen when every joint it is made of is flagged valid and finite. Of the `ways` to have a joint the
/// first is taken that is seen in any frame: a hip centre that a tracker never vouches for stands between its hips, as if the layout lacked it.
fn map_person(clip: &Clip<'_>, person: usize, ways: &[Vec<Vec<usize>>]) -> Person {
    let (v, c) = (clip.joints_per_person, clip.coords);
    let at = |frame: usize, joint: usize| (frame * clip.persons + person) * v + joint;
    let valid = |frame: usize, joint: usize| {
        let at = at(frame, joint);
        clip.valid.is_none_or(|valid| valid[at] != 0) && clip.joints[at * c..][..c].iter().all(|x| x.is_finite())
    };
    let joints = ways.len();
    let size = clip.frames * joints;
    let mut mapped = Person { joints: vec![0.0; size * c], seen: vec![false; size], missing: 0 };
    for (index, ways) in ways.iter().enumerate() {
        let frames = |way: &[usize]| -> Vec<usize> {
            let whole = |&frame: &usize| way.iter().all(|&joint| valid(frame, joint));
            (0..clip.frames).filter(whole).collect()
        };
        let shown = ways.iter().map(|way| (way, frames(way))).enumerate().find(|(_, (_, frames))| !frames.is_empty());
        let Some((rank, (way, frames))) = shown else {
            mapped.missing += clip.frames;
            continue;
        };
        mapped.missing += if rank == 0 { clip.frames - frames.len() } else { clip.frames };
        for frame in frames {
            let to = frame * joints + index;
            mapped.seen[to] = true;
            for axis in 0..c {
                let sum: f64 = way.iter().map(|&joint| f64::from(clip.joints[at(frame, joint) * c + axis])).sum();
                mapped.joints[to * c + axis] = (sum / way.len() as f64) as f32;
            }
        }
    }
    mapped
}

/// Up to `count` persons that were seen at all, most moving first (sum over joints and axes of the variance over seen frames), the lower
/// index on ties.
fn most_moving(people: Vec<Person>, shape: Shape, count: usize) -> Vec<Person> {
    let mut seen: Vec<(f64, Person)> = people.into_iter().filter(|p| p.seen.contains(&true)).map(|p| (motion(&p, shape), p)).collect();
    seen.sort_by(|(a, _), (b, _)| b.total_cmp(a)); // stable
    seen.into_iter().take(count).map(|(_, person)| person).collect()
}

fn motion(person: &Person, Shape { frames, joints, coords }: Shape) -> f64 {
    let mut total = 0.0;
    for joint in 0..joints {
        let at: Vec<usize> = (0..frames).map(|frame| frame * joints + joint).filter(|&at| person.seen[at]).collect();
        for axis in 0..coords {
            let values = || at.iter().map(|at| f64::from(person.joints[at * coords + axis]));
            let mean = values().sum::<f64>() / at.len().max(1) as f64;
            total += values().map(|x| (x - mean) * (x - mean)).sum::<f64>() / at.len().max(1) as f64;
        }
    }
    total
}

/// Fills what was not seen: a joint from its nearest seen frame (the earlier on ties); a joint never seen from the root of each frame, or,
/// where the root itself was never seen, from the mean of the other joints of the frame.
fn fill(person: &mut Person, Shape { frames, joints, coords }: Shape, root: usize) {
    if !person.seen.contains(&false) {
        return;
    }
    let mut known: Vec<usize> = Vec::new();
    for joint in 0..joints {
        if let Some(nearest) = nearest_seen(frames, |frame| person.seen[frame * joints + joint]) {
            known.push(joint);
            for (frame, from) in nearest.into_iter().enumerate().filter(|(frame, from)| frame != from) {
                let from = (from * joints + joint) * coords;
                person.joints.copy_within(from..from + coords, (frame * joints + joint) * coords);
            }
        }
    }
    for row in person.joints.chunks_exact_mut(joints * coords) {
        for axis in 0..coords {
            if !known.contains(&root) {
                let sum: f64 = known.iter().map(|joint| f64::from(row[joint * coords + axis])).sum();
                row[root * coords + axis] = (sum / known.len().max(1) as f64) as f32;
            }
            for joint in (0..joints).filter(|joint| *joint != root && !known.contains(joint)) {
                row[joint * coords + axis] = row[root * coords + axis];
            }
        }
    }
}

/// For each frame the nearest frame that was seen, the earlier on ties; `None` when there is none. Two sweeps.
fn nearest_seen(frames: usize, seen: impl Fn(usize) -> bool) -> Option<Vec<usize>> {
    let mut nearest = Vec::with_capacity(frames);
    let mut last = None;
    for frame in 0..frames {
        if seen(frame) {
            last = Some(frame);
        }
        nearest.push(last);
    }
    let mut next = None;
    for frame in (0..frames).rev() {
        if seen(frame) {
            next = Some(frame);
        }
        nearest[frame] = match (nearest[frame], next) {
            (Some(before), Some(after)) if after - frame < frame - before => Some(after),
            (None, after) => after,
            (before, _) => before,
        };
    }
    nearest.into_iter().collect()
}

/// [frames, persons, joints, coords] from persons of [frames, joints, coords]; absent ones stay zero.
fn interleave(people: &[Person], shape: Shape, persons: usize) -> Vec<f32> {
    let width = shape.joints * shape.coords;
    let mut out = vec![0.0; shape.frames * persons * width];
    for (index, person) in people.iter().enumerate() {
        for (frame, row) in person.joints.chunks_exact(width).enumerate() {
            out[(frame * persons + index) * width..][..width].copy_from_slice(row);
        }
    }
    out
}

/// Subtracts the first person's root from the present persons, the first `used` of the `row` values of a frame. A root that is not seen in the
/// first frame stands, after filling, where it is seen first.
fn centre(joints: &mut [f32], row: usize, used: usize, coords: usize, root: usize, kind: Centre) {
    let root_of = |row: &[f32]| [0, 1, 2].map(|axis| if axis < coords { row[root * coords + axis] } else { 0.0 });
    let first = root_of(joints);
    for frame in joints.chunks_exact_mut(row) {
        let here = root_of(frame);
        let origin = match kind {
            Centre::FirstFrame => first,
            Centre::FloorPerFrame => [here[0], first[1], here[2]],
        };
        for joint in frame[..used].chunks_exact_mut(coords) {
            joint.iter_mut().zip(origin).for_each(|(x, origin)| *x -= origin);
        }
    }
}

/// Turns 3D joints [frames, row] about y so that the first person's mean line from right to left hip over the first frames points to −x, as
/// in UTD-MHAD. A body whose hip line is vertical or a point keeps its heading.
pub(crate) fn turn_hips_to_x(joints: &mut [f32], row: usize, [left, right]: [usize; 2]) {
    let across = |axis: usize| -> f64 {
        let frames = joints.chunks_exact(row).take(HEADING_FRAMES);
        frames.map(|frame| f64::from(frame[left * 3 + axis]) - f64::from(frame[right * 3 + axis])).sum()
    };
    let (x, z) = (across(0), across(2));
    let length = x.hypot(z);
    if !length.is_finite() || length <= DEGENERATE {
        return;
    }
    let (cos, sin) = ((LEFT_HIP_SIDE * x / length) as f32, (LEFT_HIP_SIDE * z / length) as f32);
    for joint in joints.chunks_exact_mut(3) {
        (joint[0], joint[2]) = (cos * joint[0] + sin * joint[2], cos * joint[2] - sin * joint[0]);
    }
}

/// Median length of the scale's segment in the clip's units: over the frames where both its ends are seen, or, where they never are together,
/// over all frames as they were filled. `None` without a segment.
fn segment_length(person: &Person, shape: Shape, target: &Layout, scale: &Scale) -> Option<f64> {
    let Scale::Segment { from, to, .. } = scale else { return None };
    let (from, to) = (target.joint(from)?, target.joint(to)?);
    let at = |frame: usize, joint: usize| frame * shape.joints + joint;
    let both = |&frame: &usize| person.seen[at(frame, from)] && person.seen[at(frame, to)];
    let mut frames: Vec<usize> = (0..shape.frames).filter(both).collect();
    if frames.is_empty() {
        frames.extend(0..shape.frames);
    }
    let distance = |frame: usize| -> f64 {
        let end = |joint| person.joints[at(frame, joint) * shape.coords..][..shape.coords].iter().map(|x| f64::from(*x));
        end(from).zip(end(to)).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
    };
    median(frames.into_iter().map(distance).collect())
}

/// Middle value, the mean of both middle ones for even counts.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[values.len() / 2 - 1], upper) })
}

fn scale(joints: &mut [f32], scale: &Scale, measured: Option<f64>) -> Result<()> {
    let Scale::Segment { from, to, length } = scale else { return Ok(()) };
    let Some(measured) = measured.filter(|&measured| measured > DEGENERATE) else {
        let detail = format!("its size is unknown: `{from}` and `{to}` are one point or were not seen");
        return Err(Error::EmptyClip { detail });
    };
    let factor = (f64::from(*length) / measured) as f32;
    joints.iter_mut().for_each(|x| *x *= factor);
    Ok(())
}

fn joint_index(target: &Layout, name: &str) -> Result<usize> {
    target.joint(name).ok_or_else(|| Error::format("preprocess", format!("layout `{}` has no joint `{name}`", target.name)))
}
