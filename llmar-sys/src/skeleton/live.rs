//! Skeletons as they come, frame by frame: what is done to a frame depends on nothing that comes later, but for the first frames of a window, which
//! fix its origin, heading and size. So the tokens of a causal encoder never change once they are there.
//!
//! [`PoseMap`]: the caller's joints → the model's. [`Track`]: frames at any time → rows at the model's rate. [`Space`]: the rows of a window → the
//! encoder's input. Models whose [`Resample`] is [`Resample::Live`] are trained on this, and [`prepare`](super::prepare) reads whole clips the same way.

use super::canonical::LEFT_HIP_SIDE;
use super::clip::{Clip, Timing};
use super::layout::Layout;
use super::normalize::{Centre, Heading, Prepared, Preprocess, Scale, live_features};
use super::resample::Resample;
use crate::error::{Error, Result};

/// Rows at the beginning of a window that fix its heading and size; the first of them fixes its origin. A window of fewer cannot be read.
pub const ANCHOR_ROWS: usize = 4;
/// Seconds by which a frame may come too early for a moment and still stand for it: timestamps are whole nanoseconds.
const EARLY: f64 = 1e-6;
/// Lengths up to which a segment or a horizontal hip line counts as a point.
const DEGENERATE: f32 = 1e-6;

/// How the joints of a caller's layout become those of a model.
#[derive(Clone, Debug)]
pub struct PoseMap {
    /// Ways to have each of the model's joints, best first; see `Layout::ways_to`.
    ways: Vec<Vec<Vec<usize>>>,
    /// Joints of the caller's layout.
    joints: usize,
    coords: usize,
    root: usize,
    /// Joints without which a window cannot begin: root, ends of the scale's segment, hips.
    needed: Vec<usize>,
}

/// One body in the model's layout at the model's rate.
#[derive(Clone, Debug)]
pub struct Track {
    /// Rows a second.
    fps: f64,
    /// Filled positions [joints, coords] of the newest frame and of the one before.
    pub(crate) now: Vec<f32>,
    pub(crate) before: Vec<f32>,
    /// Joints that were seen at all.
    pub(crate) known: Vec<bool>,
    /// Times of both frames in seconds.
    pub(crate) time: f64,
    pub(crate) time_before: f64,
    /// Time of the first frame, from which rows are counted; `None` before it.
    pub(crate) start: Option<f64>,
    /// Rows given so far.
    pub(crate) rows: u64,
    /// Joints of the newest frame that were filled or derived.
    missing: u32,
    row: Vec<f32>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It went into the track.
    Frame,
    /// No joint of the model was seen in it.
    Unseen,
    /// The track has not begun, and it lacks a joint without which it cannot.
    Incomplete,
}

/// One row of a track.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its number since the track began; its time is `number / fps` after the first frame.
    pub number: u64,
    /// Positions [joints, coords], filled.
    pub joints: &'a [f32],
    /// Joints of it that were filled, or derived although the layout has them.
    pub missing: u32,
}

impl PoseMap {
    /// From `source` to the layout of a model.
    ///
    /// # Errors
    /// [`Error::Format`] where the model's settings name joints that it does not have; [`Error::InvalidArgument`] when `source` lacks, and has
    /// nothing to stand in for, a joint without which no window can begin.
    pub fn new(preprocess: &Preprocess, source: &Layout) -> Result<Self> {
        let target = preprocess.target();
        let ways = source.ways_to(&target, &preprocess.derived);
        let space = Space::new(preprocess)?;
        let mut needed = vec![space.root];
        needed.extend(space.segment.iter().flat_map(|(ends, _)| *ends));
        needed.extend(space.hips.iter().flatten());
        needed.sort_unstable();
        needed.dedup();
        if let Some(&joint) = needed.iter().find(|&&joint| ways[joint].is_empty()) {
            let expected = format!("one that has `{}`, by which this model places a body", target.joints[joint]);
            return Err(Error::argument("layout", expected, format!("`{}`", source.name)));
        }
        Ok(Self { ways, joints: source.joints.len(), coords: preprocess.coords, root: space.root, needed })
    }

    /// Joints of the caller's layout: a frame has `joints() · coords()` values.
    pub fn joints(&self) -> usize {
        self.joints
    }

    /// 2 or 3.
    pub fn coords(&self) -> usize {
        self.coords
    }

    /// Joints of the model.
    pub fn model_joints(&self) -> usize {
        self.ways.len()
    }

    /// Whether a joint of the model can be had from the caller's layout at all.
    pub fn has(&self, model_joint: usize) -> bool {
        self.ways.get(model_joint).is_some_and(|ways| !ways.is_empty())
    }

    /// Whether a joint of the model can be had from the joints of a frame that are `valid`.
    pub fn is_seen(&self, model_joint: usize, valid: impl Fn(usize) -> bool) -> bool {
        self.way(model_joint, valid).is_some()
    }

    /// The first way to have a joint all of whose sources are `valid`, and its place among the ways.
    fn way(&self, joint: usize, valid: impl Fn(usize) -> bool) -> Option<(usize, &[usize])> {
        self.ways[joint].iter().map(Vec::as_slice).enumerate().find(|(_, way)| way.iter().all(|&source| valid(source)))
    }
}

impl Track {
    /// Before its first frame. `fps`: rows a second, above zero.
    pub fn new(map: &PoseMap, fps: f32) -> Self {
        let width = map.model_joints() * map.coords;
        Self {
            fps: f64::from(fps),
            now: vec![0.0; width],
            before: vec![0.0; width],
            known: vec![false; map.model_joints()],
            time: 0.0,
            time_before: 0.0,
            start: None,
            rows: 0,
            missing: 0,
            row: vec![0.0; width],
        }
    }

    /// Forgets everything, keeps its memory.
    pub fn clear(&mut self) {
        self.known.fill(false);
        self.start = None;
        self.rows = 0;
    }

    /// Rows given so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes a frame: `joints` [map.joints(), coords] at `time` (seconds, later than the frame before), of which those with a zero in `valid` and those
    /// that are not finite were not seen. Gives `each` the rows that lie between the frame before and this one, at most as many as rows fit there.
    ///
    /// A joint that was not seen is derived from others if it can be; else it stays where it was, seen from the root; one that was never seen
    /// stands at the root. The root itself stays where it was.
    ///
    /// Lengths must fit `map`, which is checked by whoever takes frames from a caller. Allocates nothing.
    pub fn push(&mut self, map: &PoseMap, time: f64, joints: &[f32], valid: Option<&[u8]>, mut each: impl FnMut(Row<'_>)) -> Taken {
        let c = map.coords;
        let seen = |joint: usize| valid.is_none_or(|valid| valid[joint] != 0) && joints[joint * c..][..c].iter().all(|x| x.is_finite());
        if self.start.is_none() && !map.needed.iter().all(|&joint| map.way(joint, seen).is_some()) {
            return Taken::Incomplete;
        }
        if !(0..map.ways.len()).any(|joint| map.way(joint, seen).is_some()) {
            return Taken::Unseen;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        self.time_before = self.time;
        self.time = time;
        self.missing = 0;
        self.place(map, map.root, joints, seen);
        for joint in (0..map.ways.len()).filter(|&joint| joint != map.root) {
            self.place(map, joint, joints, seen);
        }
        let start = *self.start.get_or_insert(time);
        loop {
            let moment = self.rows as f64 / self.fps;
            if moment > time - start + EARLY {
                break;
            }
            if self.rows == 0 {
                self.row.copy_from_slice(&self.now);
            } else {
                let weight = ((moment - (self.time_before - start)) / (time - self.time_before)).clamp(0.0, 1.0) as f32;
                for ((out, a), b) in self.row.iter_mut().zip(&self.before).zip(&self.now) {
                    *out = a + weight * (b - a);
                }
            }
            each(Row { number: self.rows, joints: &self.row, missing: self.missing });
            self.rows += 1;
        }
        Taken::Frame
    }

    /// Position of one of the model's joints in the newest frame; the root comes first.
    fn place(&mut self, map: &PoseMap, joint: usize, joints: &[f32], seen: impl Fn(usize) -> bool) {
        let (c, root) = (map.coords, map.root);
        if let Some((rank, way)) = map.way(joint, seen) {
            self.known[joint] = true;
            self.missing += u32::from(rank > 0);
            for axis in 0..c {
                let sum: f64 = way.iter().map(|&source| f64::from(joints[source * c + axis])).sum();
                self.now[joint * c + axis] = (sum / way.len() as f64) as f32;
            }
            return;
        }
        self.missing += 1;
        for axis in 0..c {
            self.now[joint * c + axis] = match (joint == root, self.known[joint]) {
                (true, _) => self.before[joint * c + axis],
                (false, true) => self.now[root * c + axis] + (self.before[joint * c + axis] - self.before[root * c + axis]),
                (false, false) => self.now[root * c + axis],
            };
        }
    }
}

/// Which joints place a body in space, and how.
#[derive(Clone, Debug)]
pub struct Space {
    coords: usize,
    /// Values a row: joints · coords.
    width: usize,
    root: usize,
    centre: Centre,
    /// Left and right hip, where they are turned to −x.
    hips: Option<[usize; 2]>,
    /// Ends of the segment that gives the size, and its length afterwards.
    segment: Option<([usize; 2], f32)>,
}

/// Origin, heading and size of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anchor {
    /// Root of the first row.
    origin: [f32; 3],
    /// Cosine and sine of the turn about y.
    turn: (f32, f32),
    factor: f32,
}

impl Space {
    /// Of a model.
    ///
    /// # Errors
    /// [`Error::Format`] where its settings name joints that it does not have.
    pub fn new(preprocess: &Preprocess) -> Result<Self> {
        let target = preprocess.target();
        let joint = |name: &str| {
            target.joint(name).ok_or_else(|| Error::format("preprocess", format!("layout `{}` has no joint `{name}`", target.name)))
        };
        let hips = match preprocess.heading {
            Heading::HipsToX if preprocess.coords == 3 => Some([joint("left_hip")?, joint("right_hip")?]),
            Heading::HipsToX | Heading::Keep => None,
        };
        let segment = match &preprocess.scale {
            Scale::Keep => None,
            Scale::Segment { from, to, length } => Some(([joint(from)?, joint(to)?], *length)),
        };
        let (coords, width) = (preprocess.coords, target.joints.len() * preprocess.coords);
        Ok(Self { coords, width, root: joint(&preprocess.root)?, centre: preprocess.centre, hips, segment })
    }

    /// The largest mean step, from row to row, of any joint of `rows` [n, width] seen from the root; 0 of one row.
    pub fn speed(&self, rows: &[f32]) -> f32 {
        let (c, steps) = (self.coords, (rows.len() / self.width).saturating_sub(1));
        let of = |row: &[f32], joint: usize, axis: usize| row[joint * c + axis] - row[self.root * c + axis];
        let mut largest = 0.0_f32;
        for joint in 0..self.width / c {
            let step = |pair: (&[f32], &[f32])| -> f32 {
                (0..c).map(|axis| (of(pair.1, joint, axis) - of(pair.0, joint, axis)).powi(2)).sum::<f32>().sqrt()
            };
            let pairs = rows.chunks_exact(self.width).zip(rows.chunks_exact(self.width).skip(1));
            largest = largest.max(pairs.map(step).sum::<f32>() / steps.max(1) as f32);
        }
        largest
    }

    /// Where a window that begins with `rows` [at least ANCHOR_ROWS, width] stands: origin from the first, mean hip line and median length of the
    /// segment from the first [`ANCHOR_ROWS`]. A body whose hip line is vertical or a point keeps its heading. `None` when there are too few rows, or
    /// the segment has no length.
    pub fn anchor(&self, rows: &[f32]) -> Option<Anchor> {
        let rows = rows.get(..ANCHOR_ROWS * self.width)?;
        let of = |row: &[f32], joint: usize| [0, 1, 2].map(|axis| if axis < self.coords { row[joint * self.coords + axis] } else { 0.0 });
        let mut turn = (1.0, 0.0);
        if let Some([left, right]) = self.hips {
            let (mut x, mut z) = (0.0_f64, 0.0_f64);
            for row in rows.chunks_exact(self.width) {
                let (left, right) = (of(row, left), of(row, right));
                x += f64::from(left[0]) - f64::from(right[0]);
                z += f64::from(left[2]) - f64::from(right[2]);
            }
            let length = x.hypot(z);
            if length.is_finite() && length > f64::from(DEGENERATE) {
                turn = ((LEFT_HIP_SIDE * x / length) as f32, (LEFT_HIP_SIDE * z / length) as f32);
            }
        }
        let mut factor = 1.0;
        if let Some(([from, to], wanted)) = self.segment {
            let mut lengths = [0.0_f32; ANCHOR_ROWS];
            for (length, row) in lengths.iter_mut().zip(rows.chunks_exact(self.width)) {
                let (a, b) = (of(row, from), of(row, to));
                *length = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt() as f32;
            }
            lengths.sort_by(f32::total_cmp);
            let median = f32::midpoint(lengths[ANCHOR_ROWS / 2 - 1], lengths[ANCHOR_ROWS / 2]);
            if !(median.is_finite() && median > DEGENERATE) {
                return None;
            }
            factor = wanted / median;
        }
        Some(Anchor { origin: of(&rows[..self.width], self.root), turn, factor })
    }

    /// A row seen from the anchor of its window: `out` `[width]`.
    pub fn place(&self, anchor: &Anchor, row: &[f32], out: &mut [f32]) {
        let c = self.coords;
        let here = |axis: usize| row[self.root * c + axis];
        let origin = match self.centre {
            Centre::FirstFrame => anchor.origin,
            Centre::FloorPerFrame => [here(0), anchor.origin[1], if c == 3 { here(2) } else { 0.0 }],
        };
        for (joint, out) in row.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            for axis in 0..c {
                out[axis] = (joint[axis] - origin[axis]) * anchor.factor;
            }
            if let [x, _, z] = out {
                let (cos, sin) = anchor.turn;
                (*x, *z) = (cos * *x + sin * *z, cos * *z - sin * *x);
            }
        }
    }

    /// Places all rows [n, width] of a window in it, in place. For training, whose clips are changed before.
    ///
    /// # Errors
    /// [`Error::EmptyClip`] where [`anchor`](Self::anchor) finds none.
    pub fn place_all(&self, rows: &mut [f32]) -> Result<()> {
        let anchor = self.anchor(rows).ok_or_else(|| self.unplaced(rows.len()))?;
        let mut placed = vec![0.0; self.width];
        for row in rows.chunks_exact_mut(self.width) {
            self.place(&anchor, row, &mut placed);
            row.copy_from_slice(&placed);
        }
        Ok(())
    }

    fn unplaced(&self, values: usize) -> Error {
        let rows = values / self.width;
        let detail = if rows < ANCHOR_ROWS {
            format!("it lasts {rows} frames at the model's rate, and {ANCHOR_ROWS} are needed")
        } else {
            "its size is unknown: the segment that gives it is a point in its first frames".to_owned()
        };
        Error::EmptyClip { detail }
    }
}

/// A whole clip as a stream of its most moving person would be read: at most the last `preprocess.frames` rows, as one window.
///
/// # Errors
/// Those of [`live_rows`]; [`Error::EmptyClip`] when the clip gives too few rows to be placed.
pub(super) fn prepare_live(preprocess: &Preprocess, clip: &Clip<'_>) -> Result<Prepared> {
    let (mut rows, missing) = live_rows(preprocess, clip)?;
    let space = Space::new(preprocess)?;
    let first = missing.len().saturating_sub(preprocess.frames);
    let (rows, missing) = (&mut rows[first * space.width..], &missing[first..]);
    space.place_all(rows)?;
    let features = live_features(preprocess, rows)?;
    let filled: u64 = missing.iter().map(|&missing| u64::from(missing)).sum();
    Ok(Prepared { features, missing: filled as f32 / (missing.len() * preprocess.joints.len()) as f32 })
}

/// All rows [n, joints · coords] that a stream of the clip's most moving person gives, before any window places them, and how many joints of each
/// were filled `[n]`; n is above zero. For training, which makes windows of them.
///
/// # Errors
/// Those of [`Clip::check`] and [`PoseMap::new`]; [`Error::InvalidArgument`] for other coordinates than the model's, unknown timing, or positions too
/// large for f32 arithmetic; [`Error::EmptyClip`] when no frame shows the joints by which the body is placed.
pub fn live_rows(preprocess: &Preprocess, clip: &Clip<'_>) -> Result<(Vec<f32>, Vec<u32>)> {
    let Resample::Live { fps } = preprocess.resample else {
        return Err(Error::format("preprocess.resample", "expected live"));
    };
    clip.check_counts()?;
    let target = preprocess.target();
    let source = if clip.layout == target.name { target } else { Layout::find(clip.layout)? };
    clip.check_layout(&source)?;
    if clip.coords != preprocess.coords {
        return Err(Error::argument("coords", format!("{} as the model has", preprocess.coords), clip.coords));
    }
    if clip.timing == Timing::Unknown {
        return Err(Error::argument("timing", "a frame rate or timestamps: the model reads frames at a fixed rate", "unknown"));
    }
    let person = most_moving(clip);
    let map = PoseMap::new(preprocess, &source)?;
    let mut track = Track::new(&map, fps);
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    let (v, c) = (clip.joints_per_person, clip.coords);
    for (frame, time) in clip.times().into_iter().enumerate() {
        let at = (frame * clip.persons + person) * v;
        let valid = clip.valid.map(|valid| &valid[at..][..v]);
        track.push(&map, time, &clip.joints[at * c..][..v * c], valid, |row| {
            rows.extend_from_slice(row.joints);
            missing.push(row.missing);
        });
    }
    if missing.is_empty() {
        let detail = "no frame shows the joints by which this model places a body".to_owned();
        return Err(Error::EmptyClip { detail });
    }
    Ok((rows, missing))
}

/// The person whose valid joints move most (sum of their variances over joints and axes), the lower index on ties.
fn most_moving(clip: &Clip<'_>) -> usize {
    let (v, c) = (clip.joints_per_person, clip.coords);
    let motion = |person: usize| -> f64 {
        let mut total = 0.0;
        for joint in 0..v {
            let at = |frame: usize| (frame * clip.persons + person) * v + joint;
            let point = |at: usize| &clip.joints[at * c..][..c];
            let seen = |at: &usize| clip.valid.is_none_or(|valid| valid[*at] != 0) && point(*at).iter().all(|x| x.is_finite());
            for axis in 0..c {
                let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
                let first = (0..clip.frames).map(at).find(seen).map_or(0.0, |at| f64::from(point(at)[axis]));
                for at in (0..clip.frames).map(at).filter(seen) {
                    let x = f64::from(point(at)[axis]) - first;
                    (n, sum, squares) = (n + 1.0, sum + x, squares + x * x);
                }
                total += if n > 0.0 { (squares - sum * sum / n) / n } else { 0.0 };
            }
        }
        total
    };
    if clip.persons == 1 {
        return 0;
    }
    let motions: Vec<f64> = (0..clip.persons).map(motion).collect();
    (0..clip.persons).rev().max_by(|a, b| motions[*a].total_cmp(&motions[*b])).unwrap_or(0)
}
