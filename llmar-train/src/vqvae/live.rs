//! Windows of streams that are put together from training clips, for live models: a window may begin anywhere, in rest, in the action before or in the
//! middle of one, and its label is what happens when it ends.

use llmar::skeleton::{Canonical, Preprocess, Resample, Space, live_features, live_rows};
use serde::{Deserialize, Serialize};

use super::augment::{Augment, Joints, disturb, drop_joints, read_at, rebuild};
use crate::error::Result;
use crate::torch::{Rng, in_range, setting};

/// Share of an action after which it is told.
const TOLD: f64 = 0.4;
/// Seconds after its end for which it is still told.
const LINGERS: f64 = 0.3;
/// Seconds after its end from which on nothing happens. What is between is neither, and no window ends there.
const OVER: f64 = 0.8;
/// Seconds of rest between two actions; of the pause between two of the same action.
const REST: [f64; 2] = [0.3, 2.0];
const PAUSE: [f64; 2] = [0.1, 0.4];
/// Seconds within a rest in which the body goes over to the pose that the next action begins with.
const MOVE: [f64; 2] = [0.2, 0.6];
/// Seconds beyond [`OVER`] at which a window that ends soon after an action may end.
const SOON: f64 = 1.5;
/// Two clips can follow each other where the mean distance of a joint between the end of the one and the beginning of the other is at most this
/// share of its mean distance from the root: else the way from a chair to one's feet would pass for rest.
const NEAR: f32 = 0.4;
/// Share of an action that a window that does not end with it must show for the head to be asked about it.
const SHOWN: f32 = 0.3;
/// Clips looked at for one that can follow.
const TRIES: usize = 6;
/// Seconds between two knots of the sway.
const KNOT: f64 = 0.6;

/// How windows are cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Windows {
    /// Fewest and most tokens of a window, drawn once for all of a batch.
    pub tokens: (usize, usize),
    /// Share of windows that are one whole clip and nothing else, as far as there are clips about as long as the batch's windows. 0..=1
    pub whole: f32,
    /// Share of the others that end when nothing happens, where `data.idle` names a label for that. 0..=1
    pub idle: f32,
    /// Speed of each clip, uniform in 1 ± this, below 1.
    pub tempo: f32,
    /// Slow movement of every joint through the whole window: up to this deviation, in the clips' units.
    pub sway: f32,
    /// Chance that a clip has no action before it, and that one before it is of the same kind. Their sum is at most 1.
    pub alone: f32,
    /// See `alone`.
    pub repeat: f32,
}

impl Default for Windows {
    fn default() -> Self {
        Self { tokens: (1, 32), whole: 0.5, idle: 0.25, tempo: 0.2, sway: 0.02, alone: 0.3, repeat: 0.2 }
    }
}

impl Windows {
    /// Every number is in its range.
    pub fn check(&self) -> Result<()> {
        let (least, most) = self.tokens;
        if least == 0 || least > most {
            return Err(setting("augment.windows.tokens", "1 ≤ fewest ≤ most", format!("{least}, {most}")));
        }
        in_range("augment.windows.whole", f64::from(self.whole), 0.0, 1.0)?;
        in_range("augment.windows.idle", f64::from(self.idle), 0.0, 1.0)?;
        in_range("augment.windows.tempo", f64::from(self.tempo), 0.0, 0.9)?;
        in_range("augment.windows.sway", f64::from(self.sway), 0.0, 1e3)?;
        in_range("augment.windows.alone", f64::from(self.alone), 0.0, 1.0)?;
        in_range("augment.windows.alone + repeat", f64::from(self.alone + self.repeat), 0.0, 1.0)
    }
}

/// A clip's rows as a stream of it gives them, not placed.
pub fn read(preprocess: &Preprocess, clip: &llmar::skeleton::Clip<'_>) -> Result<Canonical> {
    let Resample::Live { fps } = preprocess.resample else { return Err(setting("input.resample", "of kind live", "another")) };
    let (joints, missing) = live_rows(preprocess, clip)?;
    let frames = missing.len();
    let filled: f64 = missing.iter().map(|m| f64::from(*m)).sum();
    let missing = (filled / (frames * preprocess.joints.len()) as f64) as f32;
    let times = (0..frames).map(|i| i as f64 / f64::from(fps)).collect();
    Ok(Canonical { joints, frames, times, timed: true, present: vec![true], missing })
}

/// Positions [rows, joints · coords] of a whole clip as the runtime reads it: its last rows, as one window.
pub fn placed(preprocess: &Preprocess, clip: &Canonical) -> Result<Vec<f32>> {
    let row = clip.joints.len() / clip.frames.max(1);
    let first = clip.frames.saturating_sub(preprocess.frames);
    let mut rows = clip.joints[first * row..].to_vec();
    Space::new(preprocess)?.place_all(&mut rows)?;
    Ok(rows)
}

/// What a window shows when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// An action.
    Acting,
    /// Nothing, soon after an action.
    Soon,
    /// Nothing, and that for the whole window.
    Resting,
}

/// What a row of a stream is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// What happens; `None` where it is not clear.
    pub label: Option<usize>,
    /// The action or rest that it belongs to; `None` between them.
    pub piece: Option<Piece>,
}

/// An action or a rest of a stream, at one of its rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    /// Its number in the stream, in the order in which they were drawn.
    pub number: usize,
    /// What it is called.
    pub label: usize,
    /// Share of it that has passed, 0..1.
    pub progress: f32,
}

/// Rows of a stream, and what happens at each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    /// [rows, joints · coords], not placed.
    pub rows: Vec<f32>,
    /// [rows]
    pub moments: Vec<Moment>,
}

/// An action or a rest of which a window shows enough to tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is called.
    pub label: usize,
    /// Its tokens, numbered through all windows of the batch, and the share of it that has passed at each, 0..1.
    pub tokens: Vec<(usize, f32)>,
    /// The window that ends with it, if one does.
    pub ends: Option<usize>,
}

/// A batch of windows of equal length.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Features of each, [rows, inputs].
    pub inputs: Vec<Vec<f32>>,
    /// Label of each.
    pub labels: Vec<usize>,
    /// What they show.
    pub parts: Vec<Part>,
}

/// The clips that streams are made of.
#[derive(Clone, Copy, Debug)]
pub struct Clips<'a> {
    /// Clips of a live model as their rows.
    pub clips: &'a [Canonical],
    /// Label of each.
    pub labels: &'a [usize],
    /// Who acts in each: one stream has one body. Empty: not known, and taken for one.
    pub subjects: &'a [i64],
    /// Label that says that nothing happens.
    pub idle: Option<usize>,
    /// For the changes.
    pub joints: &'a Joints,
    /// Rows a token.
    pub halved: usize,
}

impl Clips<'_> {
    /// Windows that end in or after each of `which`, all of the same number of tokens, drawn within the settings; some of them whole clips instead.
    pub fn batch(&self, settings: &Augment, preprocess: &Preprocess, which: &[usize], rng: &mut Rng) -> Result<Batch> {
        let windows = settings.windows.clone().unwrap_or_default();
        let (least, most) = windows.tokens;
        let tokens = (least + rng.below(most - least + 1)).min(preprocess.frames / self.halved);
        let rows = tokens * self.halved;
        let like: Vec<usize> =
            (0..self.clips.len()).filter(|clip| (self.clips[*clip].frames as f32 / rows as f32 - 1.0).abs() <= windows.tempo).collect();
        let mut batch = Batch { inputs: Vec::new(), labels: Vec::new(), parts: Vec::new() };
        for &clip in which {
            let (whole, rests, still) = (rng.unit() < windows.whole, rng.unit() < windows.idle, rng.unit() < 0.5);
            let stream = if whole && !like.is_empty() {
                self.whole(settings, like[rng.below(like.len())], rows, rng)
            } else {
                let ends = match (rests && self.idle.is_some(), still) {
                    (false, _) => Ends::Acting,
                    (true, false) => Ends::Soon,
                    (true, true) => Ends::Resting,
                };
                self.window(settings, preprocess, (clip, ends), rows, rng)
            };
            self.add(settings, preprocess, stream, &mut batch, rng)?;
        }
        Ok(batch)
    }

    /// Windows of unchanged clips, one that ends in or after each, of `tokens` tokens or the model's most: for measurements, the same every time.
    pub fn unchanged(&self, preprocess: &Preprocess, tokens: usize) -> Result<Batch> {
        let windows = Windows { tokens: (tokens, tokens), whole: 0.0, tempo: 0.0, sway: 0.01, ..Windows::default() };
        let settings = Augment { windows: Some(windows), ..Augment::none() };
        let all: Vec<usize> = (0..self.clips.len()).collect();
        self.batch(&settings, preprocess, &all, &mut Rng::new(0, "unchanged windows", tokens as u64))
    }

    /// Changes, places and adds a window.
    pub fn add(&self, settings: &Augment, preprocess: &Preprocess, stream: Stream, batch: &mut Batch, rng: &mut Rng) -> Result<()> {
        let Stream { mut rows, moments } = stream;
        let row = rows.len() / moments.len().max(1);
        let label = moments.last().and_then(|moment| moment.label);
        let Some(label) = label else { return Err(setting("augment.windows", "windows with a label", "one without")) };
        let sway = settings.windows.as_ref().map_or(Windows::default().sway, |windows| windows.sway) * rng.unit();
        self.sway(sway, preprocess, row, &mut rows, rng);
        rebuild(settings, self.joints, preprocess.coords, row, &mut rows, rng);
        Space::new(preprocess)?.place_all(&mut rows)?;
        disturb(settings, row, &mut rows, rng);
        let mut features = live_features(preprocess, &rows)?;
        drop_joints(settings.joint_drop, preprocess, &mut features, rng);
        batch.parts.extend(parts(&moments, self.halved, batch.labels.len()));
        batch.inputs.push(features);
        batch.labels.push(label);
        Ok(())
    }

    /// One clip and nothing else, brought to `rows`.
    fn whole(&self, settings: &Augment, clip: usize, rows: usize, rng: &mut Rng) -> Stream {
        let (low, high) = (settings.crop * rng.unit(), 1.0 - settings.crop * rng.unit());
        let played = self.played(clip, rows, (low, high), settings.warp * rng.signed());
        Stream { rows: played, moments: self.during(clip, 0, rows) }
    }

    /// The last `rows` of a stream that ends as `ends` says in or after a clip.
    pub fn window(&self, settings: &Augment, preprocess: &Preprocess, (clip, ends): (usize, Ends), rows: usize, rng: &mut Rng) -> Stream {
        let windows = settings.windows.clone().unwrap_or_default();
        let fps = rate(preprocess);
        let seconds = |range: [f64; 2], rng: &mut Rng| range[0] + (range[1] - range[0]) * f64::from(rng.unit());
        let count = |seconds: f64| (seconds * fps).round() as usize;
        let at_tempo = |clip: usize, rng: &mut Rng| {
            let speed = 1.0 + windows.tempo * rng.signed();
            let count = (self.clips[clip].frames as f32 / speed).round().max(2.0) as usize;
            (self.played(clip, count, (0.0, 1.0), settings.warp * rng.signed()), count)
        };
        // From the clip's beginning to the window's end.
        let (mut stream, length) = at_tempo(clip, rng);
        let width = stream.len() / length;
        let over = (OVER * fps).ceil() as usize;
        let (from, to) = match ends {
            Ends::Acting => ((TOLD * length as f64).ceil() as usize, length + (LINGERS * fps) as usize),
            Ends::Soon => (length + over, length + over + count(SOON)),
            Ends::Resting => (length + over + rows, length + over + rows + count(SOON)),
        };
        let end = from + rng.below(to - from + 1);
        let mut moments = self.during(clip, 0, length);
        let mut number = 2; // of the next piece: the clip is 0, the rest after it 1
        if end > length {
            // A rest that goes on beyond the window, so that its move to the next pose may be anywhere, or not in the window.
            let last = stream[(length - 1) * width..].to_vec();
            let next = self.follower(clip, &last, preprocess, rng);
            let target = next.map_or_else(|| last.clone(), |next| self.clips[next].joints[..width].to_vec());
            let rest = (end - length) + count(seconds(REST, rng));
            let moves = count(seconds(MOVE, rng)).min(rest);
            stream.extend(between(&last, &aligned(&target, &last, preprocess), rest, moves, rng.below(rest - moves + 1)));
            moments.extend(self.after(clip, 1, rest, fps));
        }
        stream.truncate(end * width);
        moments.truncate(end);
        // What was before it, as far as the window reaches.
        let mut first = clip;
        while moments.len() < rows {
            let lacks = rows - moments.len();
            let begins = stream[..width].to_vec();
            let draw = rng.unit();
            let kind = (draw < windows.alone + windows.repeat).then_some(self.labels[first]);
            let before = if draw < windows.alone { None } else { self.leader(first, kind, &begins, preprocess, rng) };
            let Some(before) = before else {
                let rest: Vec<f32> = begins.repeat(lacks);
                stream.splice(0..0, rest);
                moments.splice(0..0, (0..lacks).map(|i| self.resting(number, i, lacks)));
                break;
            };
            let (mut played, length) = at_tempo(before, rng);
            let rest = count(seconds(if kind.is_some() { PAUSE } else { REST }, rng)).max(1);
            let moves = count(seconds(MOVE, rng)).min(rest);
            shift(&mut played, &begins, preprocess, width);
            let last = played[(length - 1) * width..].to_vec();
            played.extend(between(&last, &begins, rest, moves, rng.below(rest - moves + 1)));
            stream.splice(0..0, played);
            let told = self.during(before, number, length).into_iter().chain(self.after(before, number + 1, rest, fps));
            moments.splice(0..0, told.collect::<Vec<_>>());
            number += 2;
            first = before;
        }
        let surplus = moments.len() - rows;
        stream.drain(..surplus * width);
        moments.drain(..surplus);
        Stream { rows: stream, moments }
    }

    /// `count` rows of a clip between two shares of its time, its tempo bent.
    fn played(&self, clip: usize, count: usize, (low, high): (f32, f32), bend: f32) -> Vec<f32> {
        let clip = &self.clips[clip];
        let (row, span) = (clip.joints.len() / clip.frames, clip.times[clip.frames - 1]);
        let mut rows = Vec::with_capacity(count * row);
        for i in 0..count {
            let t = i as f64 / (count.max(2) - 1) as f64;
            let bent = t + f64::from(bend) * (std::f64::consts::PI * t).sin() / std::f64::consts::PI;
            read_at(clip, row, span * (f64::from(low) + f64::from(high - low) * bent), &mut rows);
        }
        rows
    }

    /// What the `length` rows of a clip are of.
    fn during(&self, clip: usize, number: usize, length: usize) -> Vec<Moment> {
        let label = self.labels[clip];
        let moment = |i: usize| {
            let told = (i + 1) as f64 >= TOLD * length as f64;
            Moment { label: told.then_some(label), piece: Some(Piece { number, label, progress: i as f32 / length as f32 }) }
        };
        (0..length).map(moment).collect()
    }

    /// What `count` rows after a clip are of; the rest in them has a number of its own.
    fn after(&self, clip: usize, number: usize, count: usize, fps: f64) -> Vec<Moment> {
        let over = (OVER * fps).ceil() as usize;
        let moment = |i: usize| {
            if i + 1 >= over {
                return self.resting(number, i + 1 - over, count + 1 - over);
            }
            Moment { label: ((i + 1) as f64 <= LINGERS * fps).then_some(self.labels[clip]), piece: None }
        };
        (0..count).map(moment).collect()
    }

    /// Row `i` of a rest of `count`.
    fn resting(&self, number: usize, i: usize, count: usize) -> Moment {
        let piece = self.idle.map(|label| Piece { number, label, progress: i as f32 / count as f32 });
        Moment { label: self.idle, piece }
    }

    /// A clip of the same body that begins near where one ends, `[joints · coords]`.
    fn follower(&self, clip: usize, ends: &[f32], preprocess: &Preprocess, rng: &mut Rng) -> Option<usize> {
        let width = ends.len();
        self.draw(clip, None, rng, |other| near(&self.clips[other].joints[..width], ends, preprocess))
    }

    /// One of label `kind`, if one is asked for, that ends near where another begins.
    fn leader(&self, clip: usize, kind: Option<usize>, begins: &[f32], preprocess: &Preprocess, rng: &mut Rng) -> Option<usize> {
        let width = begins.len();
        self.draw(clip, kind, rng, |other| {
            let joints = &self.clips[other].joints;
            near(&joints[joints.len() - width..], begins, preprocess)
        })
    }

    /// One of a few drawn clips of the same body that `fits`.
    fn draw(&self, clip: usize, kind: Option<usize>, rng: &mut Rng, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let subject = |clip: usize| self.subjects.get(clip).copied().unwrap_or_default();
        let others: Vec<usize> = (0..self.clips.len())
            .filter(|other| subject(*other) == subject(clip) && kind.is_none_or(|kind| self.labels[*other] == kind))
            .collect();
        (0..TRIES).map(|_| others[rng.below(others.len())]).find(|other| fits(*other))
    }

    /// Adds a slow movement of every joint, of deviation `size`, smooth between knots.
    fn sway(&self, size: f32, preprocess: &Preprocess, row: usize, rows: &mut [f32], rng: &mut Rng) {
        if size <= 0.0 {
            return;
        }
        let every = (KNOT * rate(preprocess)).max(1.0) as f32;
        let count = (rows.len() / row) as f32 / every;
        let knots: Vec<f32> = (0..(count as usize + 2) * row).map(|_| size * rng.normal()).collect();
        for (i, joints) in rows.chunks_exact_mut(row).enumerate() {
            let at = i as f32 / every;
            let (knot, weight) = (at as usize, smooth(at.fract()));
            for (j, value) in joints.iter_mut().enumerate() {
                *value += knots[knot * row + j] * (1.0 - weight) + knots[(knot + 1) * row + j] * weight;
            }
        }
    }
}

/// Actions and rests of a window, the `window`-th of its batch, in tokens of `halved` rows.
fn parts(moments: &[Moment], halved: usize, window: usize) -> Vec<Part> {
    let tokens = moments.len() / halved;
    let last = moments.last().and_then(|moment| moment.label);
    let mut found: Vec<(usize, Part)> = Vec::new();
    for (token, rows) in moments.chunks_exact(halved).enumerate() {
        let Some(piece) = rows.last().and_then(|moment| moment.piece) else { continue };
        let place = (window * tokens + token, piece.progress);
        match found.last_mut().filter(|(number, _)| *number == piece.number) {
            Some((_, part)) => part.tokens.push(place),
            None => found.push((piece.number, Part { label: piece.label, tokens: vec![place], ends: None })),
        }
    }
    if let Some((_, part)) = found.last_mut().filter(|(_, part)| Some(part.label) == last) {
        part.ends = Some(window);
    }
    let told = |part: &Part| {
        let (first, last) = (part.tokens[0].1, part.tokens[part.tokens.len() - 1].1);
        part.ends.is_some() || (f64::from(last) >= TOLD && last - first >= SHOWN)
    };
    found.into_iter().map(|(_, part)| part).filter(told).collect()
}

/// Rows a second of a live model; 1 of others, of which there are no windows.
fn rate(preprocess: &Preprocess) -> f64 {
    if let Resample::Live { fps } = preprocess.resample { f64::from(fps) } else { 1.0 }
}

/// 0..=1 to 0..=1, flat at both ends.
fn smooth(x: f32) -> f32 {
    x * x * (3.0 - 2.0 * x)
}

/// `count` rows from one pose to another: it is held, left after `stay` rows, and the other reached `moves` rows later and held.
fn between(from: &[f32], to: &[f32], count: usize, moves: usize, stay: usize) -> Vec<f32> {
    let weight = |i: usize| smooth(((i + 1).saturating_sub(stay) as f32 / moves.max(1) as f32).min(1.0));
    (0..count).flat_map(|i| from.iter().zip(to).map(move |(a, b)| a + weight(i) * (b - a))).collect()
}

/// Horizontal way from the root of one pose to that of another, (x, z); of 2D poses (x, 0).
fn way(preprocess: &Preprocess, from: &[f32], to: &[f32]) -> (f32, f32) {
    let c = preprocess.coords;
    let root = preprocess.joints.iter().position(|joint| *joint == preprocess.root).unwrap_or(0) * c;
    let z = if c == 3 { to[root + 2] - from[root + 2] } else { 0.0 };
    (to[root] - from[root], z)
}

fn moved(preprocess: &Preprocess, rows: &mut [f32], (x, z): (f32, f32)) {
    for joint in rows.chunks_exact_mut(preprocess.coords) {
        joint[0] += x;
        if let [_, _, depth] = joint {
            *depth += z;
        }
    }
}

/// A pose moved so that its root stands above or below that of another.
fn aligned(pose: &[f32], other: &[f32], preprocess: &Preprocess) -> Vec<f32> {
    let mut pose = pose.to_vec();
    let way = way(preprocess, &pose, other);
    moved(preprocess, &mut pose, way);
    pose
}

/// Moves rows so that the last ends where a pose begins.
fn shift(rows: &mut [f32], begins: &[f32], preprocess: &Preprocess, width: usize) {
    let way = way(preprocess, &rows[rows.len() - width..], begins);
    moved(preprocess, rows, way);
}

/// Whether the way between two poses can pass for rest; see [`NEAR`].
fn near(pose: &[f32], other: &[f32], preprocess: &Preprocess) -> bool {
    let c = preprocess.coords;
    let pose = aligned(pose, other, preprocess);
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
    let root = preprocess.joints.iter().position(|joint| *joint == preprocess.root).unwrap_or(0);
    let apart: f32 = pose.chunks_exact(c).zip(other.chunks_exact(c)).map(|(a, b)| distance(a, b)).sum();
    let size: f32 = other.chunks_exact(c).map(|joint| distance(joint, &other[root * c..][..c])).sum();
    apart <= NEAR * size
}

#[cfg(test)]
mod tests;
