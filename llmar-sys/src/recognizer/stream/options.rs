//! Settings of a stream.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::recognizer::THREAD_LIMIT;

/// Labels of a decision that an event carries at most.
pub const TOP: usize = 5;
/// Most bodies of a stream.
pub const BODY_LIMIT: usize = 256;
/// Most frames or events that may wait.
pub const QUEUE_LIMIT: usize = 65_536;

/// Settings of a stream. [`Default`] gives those of a C program that passes NULL.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamOptions {
    /// Threads of an update, for a model on the CPU; 0 and 1 run on one alone.
    pub threads: usize,
    /// Layout of the frames; empty: the model's own.
    pub layout: String,
    /// Bodies at one time, 1..=256. Each has its place in memory from the start.
    pub max_bodies: usize,
    /// Frames that may wait for [`poll`](super::Stream::poll) or the worker, 1..=65,536.
    pub queued_frames: usize,
    /// Events that may wait; the oldest is dropped, and counted, for one more.
    pub queued_events: usize,
    /// Action tokens between two decisions, at least 1.
    pub tokens_per_decision: usize,
    /// Labels that a decision names, 1..=5.
    pub top_k: usize,
    /// A decision is `unknown` when its best probability is below this, 0..=1. `None`: the model's own threshold.
    pub unknown_below: Option<f32>,
    /// Width of the interval in which the best label's probability is known when a decision is made, 0..=1; 0: all probabilities are exact. Which labels
    /// are the best `top_k` is certain in any case. What is told lies a fifth of the way up, where the exact value mostly is: of 600
    /// decisions at the default .15 it was off by .004 on average and .02 at most (benches/results/stream.md). A narrower interval costs rows.
    pub tolerance: f64,
    /// Weight of what was thought before in the probabilities of a decision, 0 (none) to below 1.
    pub smoothing: f32,
    /// Smoothed probability from which on an action has begun, 0..=1.
    pub begin_at: f32,
    /// Smoothed probability below which it has ended, 0..=`begin_at`.
    pub end_below: f32,
    /// Joints of less confidence were not seen.
    pub min_confidence: f32,
    /// A decision that is not there so long after its newest frame was pushed is not made. `None`: every decision is made, however late.
    pub deadline: Option<Duration>,
    /// A body that was not seen for longer than this begins a new window: what lies between is not guessed.
    pub max_gap: Duration,
    /// A body that was not seen for longer than this is forgotten, and its place is free.
    pub forget_after: Duration,
    /// A timestamp so far beyond the newest is refused once; a second one near it is believed.
    pub max_jump: Duration,
    /// What a model that reads whole clips looks back on. Of no meaning for live models, whose window is `frames` at their rate.
    pub window: Duration,
    /// Decisions come from a thread of the stream's own, and `push` and `poll` never wait for one.
    pub worker: bool,
    /// No event for decisions, only for actions that begin and end and bodies that are forgotten.
    pub actions_only: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            layout: String::new(),
            max_bodies: 8,
            queued_frames: 512,
            queued_events: 256,
            tokens_per_decision: 1,
            top_k: 3,
            unknown_below: None,
            tolerance: 0.15,
            smoothing: 0.5,
            begin_at: 0.6,
            end_below: 0.3,
            min_confidence: 0.0,
            deadline: None,
            max_gap: Duration::from_millis(500),
            forget_after: Duration::from_secs(3),
            max_jump: Duration::from_secs(10),
            window: Duration::from_millis(2500),
            worker: false,
            actions_only: false,
        }
    }
}

impl StreamOptions {
    /// Every number is in its range.
    pub(super) fn check(&self) -> Result<()> {
        let count = |what, got: usize, limit: usize| match got {
            0 => Err(Error::argument(what, format!("1..={limit}"), got)),
            _ if got > limit => Err(Error::Limit { what, limit: limit as u64, got: got as u64 }),
            _ => Ok(()),
        };
        if self.threads > THREAD_LIMIT {
            return Err(Error::Limit { what: "number of threads", limit: THREAD_LIMIT as u64, got: self.threads as u64 });
        }
        count("max_bodies", self.max_bodies, BODY_LIMIT)?;
        count("queued_frames", self.queued_frames, QUEUE_LIMIT)?;
        count("queued_events", self.queued_events, QUEUE_LIMIT)?;
        count("tokens_per_decision", self.tokens_per_decision, 4096)?;
        count("top_k", self.top_k, TOP)?;
        let unit = 0.0..=1.0;
        if let Some(below) = self.unknown_below.filter(|below| !unit.contains(below)) {
            return Err(Error::argument("unknown_below", "0..=1", below));
        }
        if !(0.0..=1.0).contains(&self.tolerance) {
            return Err(Error::argument("tolerance", "0..=1", self.tolerance));
        }
        if !(0.0..1.0).contains(&self.smoothing) {
            return Err(Error::argument("smoothing", "0 to below 1", self.smoothing));
        }
        if !unit.contains(&self.begin_at) {
            return Err(Error::argument("begin_at", "0..=1", self.begin_at));
        }
        if !(0.0..=self.begin_at).contains(&self.end_below) {
            return Err(Error::argument("end_below", format!("0..={}, not above begin_at", self.begin_at), self.end_below));
        }
        if !self.min_confidence.is_finite() {
            return Err(Error::argument("min_confidence", "a finite number", self.min_confidence));
        }
        for (what, time) in
            [("max_gap", self.max_gap), ("forget_after", self.forget_after), ("max_jump", self.max_jump), ("window", self.window)]
        {
            if time.is_zero() || time > Duration::from_secs(86_400) {
                return Err(Error::argument(what, "above 0, at most a day", format!("{time:?}")));
            }
        }
        Ok(())
    }
}
