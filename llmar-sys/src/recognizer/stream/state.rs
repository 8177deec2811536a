//! A stream's state as bytes: little-endian, checked as a whole before anything of it is believed. What can be computed again (tokens, encoder,
//! KV cache) is not in it.
//!
//! ```text
//! magic, SHA-256 of the model's tensors, SHA-256 of the labels, layout, places, newest time
//! a place: 0, or 1 and body, time of its newest frame, time it was last seen, new tokens, window, judge
//! ```

use sha2::{Digest, Sha256};

use super::body::{Body, LiveWindow, Window};
use super::engine::Engine;
use super::inbox::Inbox;
use super::judge::{Action, Judge};
use crate::error::{Error, Result};

/// First bytes of a state; the last of them is the version of this format.
const MAGIC: &[u8; 8] = b"LLMARST\x01";

/// What a state must fit, beside the model's shape.
fn identity(engine: &Engine) -> (String, Vec<u8>) {
    let mut labels = Sha256::new();
    for name in &engine.labels().question.names {
        labels.update(name.as_bytes());
        labels.update([0]);
    }
    (engine.model().metadata().tensors_sha256.clone(), labels.finalize().to_vec())
}

pub(super) fn save(engine: &Engine, inbox: &Inbox) -> Vec<u8> {
    let mut out = Writer(MAGIC.to_vec());
    let (model, labels) = identity(engine);
    out.bytes(model.as_bytes());
    out.bytes(&labels);
    out.bytes(engine.layout().as_bytes());
    out.u64(engine.places().len() as u64);
    let (newest, known) = inbox.known();
    out.option(newest);
    for (place, known) in engine.places().iter().zip(known) {
        let Some((id, newest)) = known.filter(|_| place.taken) else {
            out.u64(0);
            continue;
        };
        let Body { seen_ns, since_decision, window, .. } = &place.body;
        for value in [1, id, newest, *seen_ns, *since_decision as u64] {
            out.u64(value);
        }
        match window {
            Window::Live(live) => {
                let LiveWindow { track, start_ns, rows, missing, first, last_seen, .. } = &**live;
                out.option(track.start.map(f64::to_bits));
                for value in [track.time.to_bits(), track.time_before.to_bits(), track.rows, *start_ns, *first] {
                    out.u64(value);
                }
                out.u64s(track.known.iter().map(|known| u64::from(*known)));
                out.f32s(&track.now);
                out.f32s(&track.before);
                out.f32s(rows);
                out.u64s(missing.iter().map(|missing| u64::from(*missing)));
                out.u64s(last_seen.iter().copied());
            }
            Window::Whole(whole) => {
                out.f32s(&whole.frames);
                out.u64s(whole.times.iter().copied());
                out.option(whole.decided_ns);
            }
        }
        let Judge { smoothed, since, ended_ns, decided_ns, action } = &place.judge;
        out.f32s(smoothed);
        out.u64s(since.iter().copied());
        out.u64(*ended_ns);
        out.option(*decided_ns);
        out.u64(u64::from(action.is_some()));
        if let Some(Action { label, start_ns, peak }) = action {
            out.u64(u64::from(*label));
            out.u64(*start_ns);
            out.f32s(&[*peak]);
        }
    }
    out.0
}

/// A place of a state that was read.
struct Restored {
    id: u64,
    newest: u64,
    seen_ns: u64,
    since_decision: usize,
    window: RestoredWindow,
    judge: Judge,
}

enum RestoredWindow {
    Live {
        start: Option<f64>,
        /// time, time_before
        times: [f64; 2],
        track_rows: u64,
        start_ns: u64,
        first: u64,
        known: Vec<bool>,
        now: Vec<f32>,
        before: Vec<f32>,
        rows: Vec<f32>,
        missing: Vec<u32>,
        last_seen: Vec<u64>,
    },
    Whole {
        frames: Vec<f32>,
        times: Vec<u64>,
        decided_ns: Option<u64>,
    },
}

pub(super) fn load(bytes: &[u8], engine: &mut Engine, inbox: &mut Inbox) -> Result<()> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(damaged("it does not begin as a state of this version does"));
    }
    let foreign = |what, expected: &dyn ToString, got: &dyn ToString| {
        let (expected, got) = (expected.to_string(), got.to_string());
        if expected == got { Ok(()) } else { Err(Error::ForeignState { what, expected, got }) }
    };
    let (model, labels) = identity(engine);
    foreign("the model whose tensors have the SHA-256", &model, &reader.text()?)?;
    if reader.bytes()? != labels {
        return Err(Error::ForeignState { what: "the labels", expected: "of this stream".into(), got: "others".into() });
    }
    foreign("the layout", &engine.layout(), &reader.text()?)?;
    foreign("the number of places", &engine.places().len(), &reader.u64()?)?;
    let newest = reader.option()?;
    let mut places = Vec::new();
    for place in 0..engine.places().len() {
        places.push(match reader.u64()? {
            0 => None,
            1 => Some(reader.place(engine, &engine.places()[place].body)?),
            other => return Err(damaged(format!("expected 0 or 1 at a place, got {other}"))),
        });
    }
    if reader.at != bytes.len() {
        return Err(damaged(format!("{} bytes are left at its end", bytes.len() - reader.at)));
    }
    engine.reset()?;
    inbox.restore(newest, places.iter().map(|place| place.as_ref().map(|place| (place.id, place.newest))));
    for (place, restored) in places.into_iter().enumerate() {
        let Some(restored) = restored else { continue };
        engine.put(place, |body, judge| restored.into_place(body, judge))?;
    }
    Ok(())
}

impl Restored {
    fn into_place(self, body: &mut Body, judge: &mut Judge) {
        (body.id, body.seen_ns, body.since_decision) = (self.id, self.seen_ns, self.since_decision);
        match (&mut body.window, self.window) {
            (
                Window::Live(live),
                RestoredWindow::Live { start, times, track_rows, start_ns, first, known, now, before, rows, missing, last_seen },
            ) => {
                (live.track.start, live.track.rows) = (start, track_rows);
                [live.track.time, live.track.time_before] = times;
                live.track.known.copy_from_slice(&known);
                live.track.now.copy_from_slice(&now);
                live.track.before.copy_from_slice(&before);
                (live.start_ns, live.first) = (start_ns, first);
                // Into the memory that is there: it was made for the longest window.
                live.rows.clear();
                live.rows.extend_from_slice(&rows);
                live.missing.clear();
                live.missing.extend_from_slice(&missing);
                live.last_seen.copy_from_slice(&last_seen);
            }
            (Window::Whole(whole), RestoredWindow::Whole { frames, times, decided_ns }) => {
                whole.frames.clear();
                whole.frames.extend_from_slice(&frames);
                whole.times.clear();
                whole.times.extend_from_slice(&times);
                whole.decided_ns = decided_ns;
            }
            // The kind was read by the window that is there.
            (Window::Live(_), RestoredWindow::Whole { .. }) | (Window::Whole(_), RestoredWindow::Live { .. }) => {}
        }
        judge.smoothed.copy_from_slice(&self.judge.smoothed);
        judge.since.copy_from_slice(&self.judge.since);
        judge.ended_ns = self.judge.ended_ns;
        (judge.decided_ns, judge.action) = (self.judge.decided_ns, self.judge.action);
    }
}

fn damaged(detail: impl Into<String>) -> Error {
    Error::format("saved state", detail)
}

struct Writer(Vec<u8>);

impl Writer {
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn option(&mut self, value: Option<u64>) {
        self.u64(u64::from(value.is_some()));
        self.u64(value.unwrap_or(0));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn u64s(&mut self, values: impl ExactSizeIterator<Item = u64>) {
        self.u64(values.len() as u64);
        values.for_each(|value| self.u64(value));
    }

    fn f32s(&mut self, values: &[f32]) {
        self.u64(values.len() as u64);
        values.iter().for_each(|value| self.0.extend_from_slice(&value.to_le_bytes()));
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count));
        let taken = taken.ok_or_else(|| damaged(format!("it ends at byte {}, {count} more are wanted", self.bytes.len())))?;
        self.at += count;
        Ok(taken)
    }

    fn u64(&mut self) -> Result<u64> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn option(&mut self) -> Result<Option<u64>> {
        match (self.u64()?, self.u64()?) {
            (0, 0) => Ok(None),
            (1, value) => Ok(Some(value)),
            (flag, _) => Err(damaged(format!("expected 0 or 1 before an optional value, got {flag}"))),
        }
    }

    /// A count of things of `size` bytes each, which are there.
    fn count(&mut self, size: usize) -> Result<usize> {
        let count = self.u64()?;
        let left = (self.bytes.len() - self.at) as u64;
        match count.checked_mul(size as u64).is_some_and(|bytes| bytes <= left) {
            true => Ok(count as usize),
            false => Err(damaged(format!("{count} values are announced, {left} bytes are left"))),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let count = self.count(1)?;
        self.take(count)
    }

    fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged("a text is not UTF-8"))
    }

    fn u64s(&mut self) -> Result<Vec<u64>> {
        let count = self.count(8)?;
        (0..count).map(|_| self.u64()).collect()
    }

    fn f32s(&mut self) -> Result<Vec<f32>> {
        let count = self.count(4)?;
        let (values, _) = self.take(count * 4)?.as_chunks::<4>();
        Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// Finite numbers, `expected` of them.
    fn finite(&mut self, what: &str, expected: usize) -> Result<Vec<f32>> {
        let values = self.f32s()?;
        if values.len() != expected || !values.iter().all(|x| x.is_finite()) {
            return Err(damaged(format!("{what}: expected {expected} finite numbers, got {}, or some not finite", values.len())));
        }
        Ok(values)
    }

    fn place(&mut self, engine: &Engine, body: &Body) -> Result<Restored> {
        let [id, newest, seen_ns, since_decision] = [self.u64()?, self.u64()?, self.u64()?, self.u64()?];
        let window = match &body.window {
            Window::Live(live) => self.live(engine, live)?,
            Window::Whole(_) => self.whole(engine)?,
        };
        let labels = engine.labels().states.len();
        let smoothed = self.finite("probabilities", labels)?;
        let since = self.u64s()?;
        if since.len() != labels {
            return Err(damaged(format!("expected {labels} times of labels, got {}", since.len())));
        }
        let (ended_ns, decided_ns) = (self.u64()?, self.option()?);
        let action = match self.u64()? {
            0 => None,
            _ => {
                let (label, start_ns) = (self.u64()?, self.u64()?);
                let peak = self.finite("the action's probability", 1)?[0];
                if label >= labels as u64 {
                    return Err(damaged(format!("expected a label below {labels}, got {label}")));
                }
                Some(Action { label: label as u32, start_ns, peak })
            }
        };
        let since_decision = usize::try_from(since_decision).unwrap_or(usize::MAX).min(engine.window_tokens());
        Ok(Restored { id, newest, seen_ns, since_decision, window, judge: Judge { smoothed, since, ended_ns, decided_ns, action } })
    }

    fn live(&mut self, engine: &Engine, live: &LiveWindow) -> Result<RestoredWindow> {
        let joints = live.track.known.len();
        let width = live.track.now.len();
        let start = self.option()?.map(f64::from_bits);
        let times = [f64::from_bits(self.u64()?), f64::from_bits(self.u64()?)];
        let [track_rows, start_ns, first] = [self.u64()?, self.u64()?, self.u64()?];
        if !times.iter().chain(&start).all(|time| time.is_finite()) {
            return Err(damaged("a time is not a finite number"));
        }
        let known: Vec<bool> = self.u64s()?.iter().map(|known| *known != 0).collect();
        if known.len() != joints {
            return Err(damaged(format!("expected {joints} joints, got {}", known.len())));
        }
        let (now, before) = (self.finite("positions", width)?, self.finite("positions", width)?);
        let rows = self.f32s()?;
        let missing = self.u64s()?;
        let fits = missing.len() <= engine.model().metadata().preprocess.frames && rows.len() == missing.len() * width;
        if !fits || !rows.iter().all(|x| x.is_finite()) || missing.iter().any(|missing| *missing > joints as u64) {
            return Err(damaged(format!("a window of {} rows with {} values, or values out of range", missing.len(), rows.len())));
        }
        let missing = missing.iter().map(|missing| *missing as u32).collect();
        let last_seen = self.u64s()?;
        if last_seen.len() != joints {
            return Err(damaged(format!("expected {joints} joints, got {}", last_seen.len())));
        }
        Ok(RestoredWindow::Live { start, times, track_rows, start_ns, first, known, now, before, rows, missing, last_seen })
    }

    fn whole(&mut self, engine: &Engine) -> Result<RestoredWindow> {
        let (frames, times) = (self.f32s()?, self.u64s()?);
        let width = engine.joints() * engine.model().metadata().preprocess.coords;
        let in_order = times.windows(2).all(|pair| pair[0] < pair[1]);
        if times.len() > super::body::WHOLE_FRAMES || frames.len() != times.len() * width || !in_order {
            return Err(damaged(format!("{} frames with {} values, or times that do not increase", times.len(), frames.len())));
        }
        Ok(RestoredWindow::Whole { frames, times, decided_ns: self.option()? })
    }
}
