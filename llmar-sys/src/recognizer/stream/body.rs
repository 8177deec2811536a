//! One body of a stream: its window of rows, and the tokens made of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::motion::Motion;
use super::options::StreamOptions;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::motion::{CausalEncoder, CausalScratch, EncoderPast, EncoderScratch};
use crate::recognizer::model::Model;
use crate::skeleton::{ANCHOR_ROWS, Anchor, Clip, PoseMap, Resample, Space, Taken, Timing, Track, feature_row, prepare};

/// Tokens below which a live window is too short to be asked about, where the model's window holds at least as many.
const FEWEST_TOKENS: usize = 4;
/// Frames that a model of whole clips reads of its window at most; what comes faster replaces the frame before.
pub(super) const WHOLE_FRAMES: usize = 256;

/// What all bodies of a stream share.
#[derive(Debug)]
pub(super) struct Reader {
    pub model: Arc<Model>,
    pub map: PoseMap,
    pub space: Space,
    /// Name of the frames' layout.
    pub layout: String,
    kind: ReaderKind,
    tokens_per_decision: usize,
    max_gap_ns: u64,
    /// Features [rows, features] on their way to the encoder.
    features: Vec<f32>,
    placed: Vec<f32>,
    placed_before: Vec<f32>,
}

/// How a model reads.
#[derive(Debug)]
enum ReaderKind {
    /// Row by row; `fps` of the model.
    Live { fps: f32, encoder: Box<CausalEncoder>, scratch: CausalScratch },
    /// The last `window_ns`, as a clip.
    Whole { window_ns: u64, scratch: EncoderScratch },
}

/// Rows, tokens and what is due.
#[derive(Debug)]
pub(super) struct Body {
    pub id: u64,
    /// Tokens of the window.
    pub tokens: Vec<u16>,
    /// How many of them the KV cache holds.
    pub cached: usize,
    /// Tokens made since the last decision; of a whole-clip model 1 when one is due.
    pub since_decision: usize,
    pub due: Option<Due>,
    pub window: Window,
    /// When it moved; of a whole-clip model nothing is known.
    pub motion: Motion,
    /// Time of the newest frame that was seen.
    pub seen_ns: u64,
}

/// The window of a body.
#[derive(Debug)]
pub(super) enum Window {
    Live(Box<LiveWindow>),
    Whole(WholeWindow),
}

/// Rows of a live model.
#[derive(Debug)]
pub(super) struct LiveWindow {
    pub track: Track,
    /// Time of the track's first frame.
    pub start_ns: u64,
    /// [rows, joints, coords], filled, from the anchor on; at most the model's frames.
    pub rows: Vec<f32>,
    /// Joints of each row that were filled.
    pub missing: Vec<u32>,
    /// Number of the window's first row in the track.
    pub first: u64,
    anchor: Option<Anchor>,
    past: EncoderPast,
    /// Rows that came and are not in the window yet, and when: taken from `taken` on.
    incoming: Vec<f32>,
    arrived: Vec<(u32, Instant)>,
    taken: usize,
    /// Tokens at the beginning of the window that repeat what the window before it knew.
    repeated: usize,
    /// For each joint of the model the number behind the last row in which it was seen.
    pub last_seen: Vec<u64>,
}

/// Frames of a model that reads whole clips.
#[derive(Debug)]
pub(super) struct WholeWindow {
    /// [frames, source joints, coords], NaN where not seen.
    pub frames: Vec<f32>,
    pub times: Vec<u64>,
    pub decided_ns: Option<u64>,
}

/// A decision that is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// The newest moment that it knows of.
    pub time_ns: u64,
    /// The beginning of its window.
    pub start_ns: u64,
    /// When the newest frame that it needs was pushed.
    pub arrived: Instant,
    pub missing: f32,
    pub missing_joints: [u64; 4],
}

/// What a step of a body did, to be counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    pub tokens: u64,
    pub reanchored: u64,
}

impl Reader {
    pub fn new(model: Arc<Model>, options: &StreamOptions, device: &Device) -> Result<Self> {
        let preprocess = &model.metadata().preprocess;
        let source = preprocess.source_layout(&options.layout)?;
        let map = PoseMap::new(preprocess, &source)?;
        let space = Space::new(preprocess)?;
        let kind = match preprocess.resample {
            Resample::Live { fps } => {
                ReaderKind::Live { fps, encoder: Box::new(CausalEncoder::new(model.encoder())?), scratch: CausalScratch::new(device) }
            }
            Resample::Stretch | Resample::Rate { .. } => {
                ReaderKind::Whole { window_ns: nanoseconds(options.window), scratch: EncoderScratch::new(device) }
            }
        };
        let (rows, width) = (preprocess.frames, map.model_joints() * map.coords());
        Ok(Self {
            space,
            layout: source.name,
            kind,
            tokens_per_decision: options.tokens_per_decision,
            max_gap_ns: nanoseconds(options.max_gap),
            features: Vec::with_capacity(rows * preprocess.features()),
            placed: vec![0.0; width],
            placed_before: vec![0.0; width],
            map,
            model,
        })
    }

    /// Most tokens of a window.
    pub fn window_tokens(&self) -> usize {
        self.model.encoder().config().tokens(self.model.metadata().preprocess.frames)
    }

    /// Values of a row of the model, or of a frame of the caller.
    fn width(&self) -> usize {
        self.map.model_joints() * self.map.coords()
    }

    /// A place for a body, with all the memory that it will need.
    pub fn body(&self, device: &Device) -> Result<Body> {
        let frames = self.model.metadata().preprocess.frames;
        let window = match &self.kind {
            ReaderKind::Live { fps, encoder, .. } => {
                // No more rows come at once than a gap may hold, and one more frame.
                let rows = (self.max_gap_ns as f64 * 1e-9 * f64::from(*fps)).ceil() as usize + 2;
                Window::Live(Box::new(LiveWindow {
                    track: Track::new(&self.map, *fps),
                    start_ns: 0,
                    rows: Vec::with_capacity(frames * self.width()),
                    missing: Vec::with_capacity(frames),
                    first: 0,
                    anchor: None,
                    past: encoder.start(device)?,
                    incoming: Vec::with_capacity(rows * self.width()),
                    arrived: Vec::with_capacity(rows),
                    taken: 0,
                    repeated: 0,
                    last_seen: vec![0; self.map.model_joints()],
                }))
            }
            ReaderKind::Whole { .. } => Window::Whole(WholeWindow {
                frames: Vec::with_capacity(WHOLE_FRAMES * self.map.joints() * self.map.coords()),
                times: Vec::with_capacity(WHOLE_FRAMES),
                decided_ns: None,
            }),
        };
        let tokens = Vec::with_capacity(self.window_tokens());
        Ok(Body { id: 0, tokens, cached: 0, since_decision: 0, due: None, window, motion: Motion::new(), seen_ns: 0 })
    }

    /// Whether a frame of this time comes after too long a gap.
    pub fn is_gap(&self, body: &Body, time_ns: u64) -> bool {
        body.is_begun() && time_ns.saturating_sub(body.seen_ns) > self.max_gap_ns
    }

    /// Takes a frame, joints [source joints, coords]; [`advance`](Self::advance) makes something of it.
    pub fn take(&self, body: &mut Body, time_ns: u64, arrived: Instant, joints: &[f32]) -> Taken {
        let taken = match &mut body.window {
            Window::Live(live) => live.take(&self.map, time_ns, arrived, joints),
            Window::Whole(whole) => whole.take(&self.kind, time_ns, joints),
        };
        if taken == Taken::Frame {
            body.seen_ns = time_ns;
        }
        taken
    }

    /// Makes tokens of the rows that came, until a decision is due or nothing is left.
    pub fn advance(&mut self, device: &Device, body: &mut Body, arrived: Instant) -> Result<Step> {
        let mut step = Step::default();
        match &self.kind {
            ReaderKind::Live { .. } => while body.due.is_none() && self.next_row(device, body, &mut step)? {},
            ReaderKind::Whole { window_ns, .. } => {
                let period = *window_ns / self.window_tokens() as u64 * self.tokens_per_decision as u64;
                let Window::Whole(whole) = &body.window else { return Ok(step) };
                let (Some(&first), Some(&last)) = (whole.times.first(), whole.times.last()) else { return Ok(step) };
                let enough = last - first >= *window_ns / 2;
                if enough && whole.decided_ns.is_none_or(|decided| last.saturating_sub(decided) >= period) {
                    self.read_whole(device, body, arrived, &mut step)?;
                }
            }
        }
        Ok(step)
    }

    /// A decision although none is due, where there is something new to decide about: at the end of the input.
    pub fn finish(&mut self, device: &Device, body: &mut Body, arrived: Instant) -> Result<Step> {
        let mut step = Step::default();
        match &self.kind {
            ReaderKind::Live { .. } => {
                if body.due.is_none() && body.since_decision > 0 && !body.tokens.is_empty() {
                    self.become_due(body, arrived);
                }
            }
            ReaderKind::Whole { .. } => {
                let Window::Whole(whole) = &body.window else { return Ok(step) };
                if whole.times.last().is_some_and(|last| whole.decided_ns.is_none_or(|decided| *last > decided)) {
                    self.read_whole(device, body, arrived, &mut step)?;
                }
            }
        }
        Ok(step)
    }

    /// Puts the next row into the window; false when none waits.
    fn next_row(&mut self, device: &Device, body: &mut Body, step: &mut Step) -> Result<bool> {
        let width = self.width();
        let frames = self.model.metadata().preprocess.frames;
        let halvings = self.model.encoder().config().halvings;
        let Window::Live(live) = &mut body.window else { return Ok(false) };
        let Some(&(missing, arrived)) = live.arrived.get(live.taken) else {
            live.incoming.clear();
            live.arrived.clear();
            live.taken = 0;
            return Ok(false);
        };
        if live.missing.len() == frames {
            // Full: the last half, in whole tokens, is the beginning of a new window.
            let keep = ((frames / 2) >> halvings << halvings).max(ANCHOR_ROWS.next_multiple_of(1 << halvings)).min(frames);
            live.drop_rows(frames - keep, width);
            live.restart(device)?;
            live.repeated = keep >> halvings;
            body.tokens.clear();
            body.cached = 0;
            step.reanchored += 1;
        }
        live.rows.extend_from_slice(&live.incoming[live.taken * width..][..width]);
        live.missing.push(missing);
        live.taken += 1;
        if live.missing.len() < ANCHOR_ROWS || live.missing.len() >> halvings == body.tokens.len() {
            return Ok(true);
        }
        if live.anchor.is_none() {
            live.anchor = self.space.anchor(&live.rows);
            if live.anchor.is_none() {
                // No size to be had of these rows: the window begins later.
                live.drop_rows(1, width);
                return Ok(true);
            }
        }
        let (before, after) = (body.tokens.len(), live.missing.len() >> halvings);
        if let Err(error) = self.make_tokens(device, body, after) {
            // Rows that cannot be read would fail again with every row after them.
            self.restart(device, body)?;
            return Err(error);
        }
        step.tokens += (after - before) as u64;
        if let Window::Live(live) = &body.window {
            body.since_decision += after.saturating_sub(before.max(live.repeated));
        }
        let fewest = FEWEST_TOKENS.min(self.window_tokens());
        if body.since_decision >= self.tokens_per_decision && body.tokens.len() >= fewest {
            self.become_due(body, arrived);
        }
        Ok(true)
    }

    /// Tokens of the window up to `after`, from where they end.
    fn make_tokens(&mut self, device: &Device, body: &mut Body, after: usize) -> Result<()> {
        let width = self.width();
        let preprocess = &self.model.metadata().preprocess;
        let ReaderKind::Live { fps, encoder, scratch } = &mut self.kind else { return Ok(()) };
        let Window::Live(live) = &mut body.window else { return Ok(()) };
        let Some(anchor) = live.anchor else { return Ok(()) };
        let halvings = self.model.encoder().config().halvings;
        let before = body.tokens.len();
        let (from, to) = (before << halvings, after << halvings);
        self.features.clear();
        self.features.resize((to - from) * preprocess.features(), 0.0);
        if from > 0 {
            self.space.place(&anchor, &live.rows[(from - 1) * width..][..width], &mut self.placed_before);
        }
        for (row, out) in (from..to).zip(self.features.chunks_exact_mut(preprocess.features())) {
            self.space.place(&anchor, &live.rows[row * width..][..width], &mut self.placed);
            feature_row(preprocess, &self.placed, (row > 0).then_some(&self.placed_before[..]), out);
            std::mem::swap(&mut self.placed, &mut self.placed_before);
        }
        if !self.features.iter().all(|x| x.is_finite()) {
            return Err(Error::argument("joints", "positions whose features fit f32", "positions near the largest f32"));
        }
        for token in before.max(live.repeated)..after {
            let rows = token << halvings..(token + 1) << halvings;
            let [start_ns, end_ns] = [rows.start, rows.end].map(|row| live.time_of(live.first + row as u64, *fps));
            body.motion.add(start_ns, end_ns, self.space.speed(&live.rows[rows.start.saturating_sub(1) * width..rows.end * width]));
        }
        let encoded = encoder.forward(device, &mut live.past, &self.features, scratch)?;
        body.tokens.resize(after, 0);
        self.model.quantizer().quantize_into(device, encoded, &mut body.tokens[before..])
    }

    fn become_due(&self, body: &mut Body, arrived: Instant) {
        let Window::Live(live) = &body.window else { return };
        let ReaderKind::Live { fps, .. } = &self.kind else { return };
        let rows = live.missing.len();
        let at = |row: u64| live.time_of(row, *fps);
        let filled: u64 = live.missing.iter().map(|missing| u64::from(*missing)).sum();
        let mut missing_joints = [0; 4];
        for joint in (0..live.last_seen.len()).filter(|joint| live.last_seen[*joint] <= live.first) {
            missing_joints[joint / 64] |= 1 << (joint % 64);
        }
        body.since_decision = 0;
        body.due = Some(Due {
            time_ns: at(live.first + rows as u64 - 1),
            start_ns: at(live.first),
            arrived,
            missing: filled as f32 / (rows * self.map.model_joints()) as f32,
            missing_joints,
        });
    }

    /// Reads the whole window anew.
    fn read_whole(&mut self, device: &Device, body: &mut Body, arrived: Instant, step: &mut Step) -> Result<()> {
        let Window::Whole(whole) = &mut body.window else { return Ok(()) };
        let ReaderKind::Whole { scratch, .. } = &mut self.kind else { return Ok(()) };
        let (Some(&start_ns), Some(&time_ns)) = (whole.times.first(), whole.times.last()) else { return Ok(()) };
        whole.decided_ns = Some(time_ns);
        let clip = Clip {
            joints: &whole.frames,
            frames: whole.times.len(),
            persons: 1,
            joints_per_person: self.map.joints(),
            coords: self.map.coords(),
            timing: Timing::Timestamps(&whole.times),
            layout: &self.layout,
            valid: None,
        };
        let preprocess = &self.model.metadata().preprocess;
        let prepared = match prepare(preprocess, &clip) {
            Ok(prepared) => prepared,
            // Nothing can be recognised in this window; a later one may show more.
            Err(Error::EmptyClip { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        let encoded = self.model.encoder().forward(device, &prepared.features, 1, preprocess.frames, scratch)?;
        let sentence = self.model.quantizer().quantize(device, encoded, self.model.encoder().config().tokens(preprocess.frames))?;
        // Tokens that did not change keep their place in the cache.
        let same = body.tokens.iter().zip(&sentence.tokens).take_while(|(a, b)| a == b).count();
        body.cached = body.cached.min(same);
        body.tokens.clear();
        body.tokens.extend_from_slice(&sentence.tokens);
        step.tokens += (sentence.tokens.len() - same) as u64;
        let mut missing_joints = [0; 4];
        for joint in 0..self.map.model_joints() {
            let (v, c) = (self.map.joints(), self.map.coords());
            let shown = |frame: &[f32]| self.map.is_seen(joint, |source| frame[source * c..][..c].iter().all(|x| x.is_finite()));
            if !whole.frames.chunks_exact(v * c).any(shown) {
                missing_joints[joint / 64] |= 1 << (joint % 64);
            }
        }
        body.due = Some(Due { time_ns, start_ns, arrived, missing: prepared.missing, missing_joints });
        Ok(())
    }

    /// Makes the tokens of a restored window.
    pub fn replay(&mut self, device: &Device, body: &mut Body) -> Result<()> {
        let halvings = self.model.encoder().config().halvings;
        let Window::Live(live) = &mut body.window else { return Ok(()) };
        live.restart(device)?;
        body.tokens.clear();
        let after = live.missing.len() >> halvings;
        live.repeated = 0;
        if live.missing.len() >= ANCHOR_ROWS {
            live.anchor = self.space.anchor(&live.rows);
            if live.anchor.is_some() {
                self.make_tokens(device, body, after)?;
            }
        }
        if let Window::Live(live) = &mut body.window {
            live.repeated = after;
        }
        Ok(())
    }

    /// Forgets what was seen; keeps the memory.
    pub fn restart(&self, device: &Device, body: &mut Body) -> Result<()> {
        match &mut body.window {
            Window::Live(live) => {
                live.track.clear();
                live.rows.clear();
                live.missing.clear();
                live.incoming.clear();
                live.arrived.clear();
                (live.taken, live.first, live.repeated) = (0, 0, 0);
                live.last_seen.fill(0);
                live.restart(device)?;
            }
            Window::Whole(whole) => {
                whole.frames.clear();
                whole.times.clear();
                whole.decided_ns = None;
            }
        }
        body.tokens.clear();
        body.motion.clear();
        (body.cached, body.since_decision, body.due) = (0, 0, None);
        Ok(())
    }
}

impl Body {
    /// Whether any frame of it was taken.
    fn is_begun(&self) -> bool {
        match &self.window {
            Window::Live(live) => live.track.rows() > 0,
            Window::Whole(whole) => !whole.times.is_empty(),
        }
    }
}

impl LiveWindow {
    fn take(&mut self, map: &PoseMap, time_ns: u64, arrived: Instant, joints: &[f32]) -> Taken {
        if self.track.rows() == 0 {
            self.start_ns = time_ns;
        }
        let seconds = time_ns.saturating_sub(self.start_ns) as f64 * 1e-9;
        let Self { track, incoming, arrived: arrivals, .. } = self;
        let taken = track.push(map, seconds, joints, None, |row| {
            incoming.extend_from_slice(row.joints);
            arrivals.push((row.missing, arrived));
        });
        if taken == Taken::Frame {
            let c = map.coords();
            for (joint, last) in self.last_seen.iter_mut().enumerate() {
                if map.is_seen(joint, |source| joints[source * c..][..c].iter().all(|x| x.is_finite())) {
                    *last = self.track.rows();
                }
            }
        }
        taken
    }

    /// Time of a row of the track.
    fn time_of(&self, row: u64, fps: f32) -> u64 {
        self.start_ns + (row as f64 * 1e9 / f64::from(fps)) as u64
    }

    /// Takes rows off the beginning of the window.
    fn drop_rows(&mut self, count: usize, width: usize) {
        self.rows.drain(..count * width);
        self.missing.drain(..count);
        self.first += count as u64;
    }

    /// The encoder begins anew, and a new anchor is looked for.
    fn restart(&mut self, device: &Device) -> Result<()> {
        self.anchor = None;
        self.past.restart(device)
    }
}

impl WholeWindow {
    fn take(&mut self, kind: &ReaderKind, time_ns: u64, joints: &[f32]) -> Taken {
        let ReaderKind::Whole { window_ns, .. } = kind else { return Taken::Unseen };
        if !joints.iter().any(|x| x.is_finite()) {
            return Taken::Unseen;
        }
        let outside = self.times.iter().take_while(|time| time_ns - **time > *window_ns).count();
        self.frames.drain(..outside * joints.len());
        self.times.drain(..outside);
        if self.times.len() == WHOLE_FRAMES {
            // Frames come faster than the window can hold: the newest stands for the one before it.
            self.times.pop();
            self.frames.truncate(self.times.len() * joints.len());
        }
        self.times.push(time_ns);
        self.frames.extend_from_slice(joints);
        Taken::Frame
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
