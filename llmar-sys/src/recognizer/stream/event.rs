//! What a stream tells.

use super::options::TOP;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// What a body does now, as far as the model can tell.
    Decision,
    /// An action has begun; `start_ns` says when.
    Begin,
    /// The action that had begun has ended, between `start_ns` and `end_ns`.
    End,
    /// A body was not seen for too long, or was removed; its place is free.
    Forgotten,
}

/// A label and its probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scored {
    /// Index into the stream's labels.
    pub label: u32,
    /// Exact log p(label, end of answer | prompt) of this decision alone.
    pub log_prob: f32,
    /// Calibrated probability over the labels that may be named, smoothed over decisions.
    pub probability: f32,
}

/// One event of one body. Times are those of the caller's frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// What it is about.
    pub kind: EventKind,
    /// Whom.
    pub body: u64,
    /// The newest moment that it knows of. Of an action that ended because the body was lost: when it was seen again, or the last time it was seen.
    pub time_ns: u64,
    /// Decision: beginning of the window that was read. Begin, End: when the action began.
    pub start_ns: u64,
    /// End: when the action ended. Otherwise `time_ns`.
    pub end_ns: u64,
    /// Decision: the best label. Begin, End: the action. `None` where nothing can be named.
    pub label: Option<u32>,
    /// Its smoothed probability; for End the largest that it reached.
    pub probability: f32,
    /// Decision: the best probability is below the threshold.
    pub unknown: bool,
    /// The label says that nothing happens.
    pub idle: bool,
    /// Decision: the best labels, best first; `top_count` of them.
    pub top: [Scored; TOP],
    /// How many of `top` there are.
    pub top_count: u32,
    /// Decision: action tokens read.
    pub tokens: u32,
    /// Decision: share of the joints that the model needs, over the window, that were missing and filled, 0..=1.
    pub missing: f32,
    /// Decision: joints of the model that were not seen in the whole window, bit j % 64 of word j / 64.
    pub missing_joints: [u64; 4],
    /// Decision: from the push of the newest frame that it needed until it was there.
    pub latency_ns: u64,
}

impl Default for Event {
    /// A place for an event: what it says means nothing.
    fn default() -> Self {
        Self::new(EventKind::Decision, 0, 0)
    }
}

impl Event {
    /// An event of a body at a time, with nothing else in it.
    pub(super) fn new(kind: EventKind, body: u64, time_ns: u64) -> Self {
        Self {
            kind,
            body,
            time_ns,
            start_ns: time_ns,
            end_ns: time_ns,
            label: None,
            probability: 0.0,
            unknown: false,
            idle: false,
            top: [Scored::default(); TOP],
            top_count: 0,
            tokens: 0,
            missing: 0.0,
            missing_joints: [0; 4],
            latency_ns: 0,
        }
    }
}
