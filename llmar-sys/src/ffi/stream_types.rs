//! The structs of streams; the rules are those of `types`.

use std::ffi::c_char;

use super::args::{Versioned, zeroed};
use super::types::{llmar_label_score, versioned};

/// Labels that an llmar_event has room for.
pub const LLMAR_STREAM_TOP: usize = 5;
/// label of an llmar_event that names none.
pub const LLMAR_NO_LABEL: u32 = u32::MAX;

/// Flag of llmar_stream_params: no event for decisions, only for actions that begin and end and bodies that are forgotten.
pub const LLMAR_STREAM_ACTIONS_ONLY: u32 = 1;

/// Event: what a body does now, as far as the model can tell.
pub const LLMAR_EVENT_DECISION: u32 = 1;
/// Event: an action has begun.
pub const LLMAR_EVENT_BEGIN: u32 = 2;
/// Event: the action that had begun has ended.
pub const LLMAR_EVENT_END: u32 = 3;
/// Event: a body was not seen for too long, or was removed; its place is free.
pub const LLMAR_EVENT_FORGOTTEN: u32 = 4;

/// Axis of the frames that points up: as the library has it, +y in 3D and -y (images) in 2D.
pub const LLMAR_UP_DEFAULT: u32 = 0;
/// +x points up. 3D only.
pub const LLMAR_UP_PLUS_X: u32 = 1;
/// -x points up. 3D only.
pub const LLMAR_UP_MINUS_X: u32 = 2;
/// +y points up: OpenXR, Unity, Godot.
pub const LLMAR_UP_PLUS_Y: u32 = 3;
/// -y points up: images, and cameras that look along +z.
pub const LLMAR_UP_MINUS_Y: u32 = 4;
/// +z points up: Unreal, ROS. 3D only.
pub const LLMAR_UP_PLUS_Z: u32 = 5;
/// -z points up. 3D only.
pub const LLMAR_UP_MINUS_Z: u32 = 6;

/// Handedness of the frames' axes: right, as OpenXR, Godot, ROS and Azure Kinect have it.
pub const LLMAR_HANDEDNESS_RIGHT: u32 = 0;
/// Left, as Unity and Unreal have it. A body's left stays its left.
pub const LLMAR_HANDEDNESS_LEFT: u32 = 1;

/// Label state: it may be named.
pub const LLMAR_LABEL_ALLOWED: u32 = 0;
/// Label state: llmar_stream_filter_labels denies it.
pub const LLMAR_LABEL_DENIED: u32 = 1;
/// Label state: it needs joints that the layout of the frames does not have, and is never named.
pub const LLMAR_LABEL_NOT_OBSERVABLE: u32 = 2;

/// Settings of a stream. NULL or all zero after struct_size: the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_stream_params {
    /// sizeof(llmar_stream_params)
    pub struct_size: u32,
    /// Threads that work on an update, 0 to 256; 0 and 1: one alone. The answers do not depend on it.
    pub threads: u32,
    /// Name of the layout of the frames, built in or registered. NULL: the model's own. Coordinates are as many as the model has.
    pub layout: *const c_char,
    /// LLMAR_UP_ constant: the axis of the frames that points up. 0: +y.
    pub up: u32,
    /// LLMAR_HANDEDNESS_ constant of the frames' axes. 0: right.
    pub handedness: u32,
    /// Metres a unit of the frames: 0.01 for centimetres. 0: 1.
    pub metres_per_unit: f32,
    /// Bodies at one time, up to 256, each with its place in memory from the start. 0: 8.
    pub max_bodies: u32,
    /// Frames that may wait for a poll or the worker, a body's frame each, up to 65536. 0: 512.
    pub queued_frames: u32,
    /// Events that may wait, up to 65536; the oldest is dropped, and counted, for one more. 0: 256.
    pub queued_events: u32,
    /// Action tokens between two decisions. 0: 1. A token is four frames at the model's rate.
    pub tokens_per_decision: u32,
    /// Labels that a decision names, up to LLMAR_STREAM_TOP. 0: 3.
    pub top_k: u32,
    /// A decision is "unknown" when its best probability is below this, above 0 to 1. 0: the model's own threshold. Negative: never unknown.
    pub unknown_below: f32,
    /// Weight of the decisions before in the probabilities of a decision, above 0 to below 1. 0: 0.5. Negative: none.
    pub smoothing: f32,
    /// Smoothed probability from which on an action has begun, up to 1. 0: 0.6.
    pub begin_at: f32,
    /// Smoothed probability below which it has ended, at most begin_at. 0: 0.3, or begin_at where that is less.
    pub end_below: f32,
    /// Joints of less confidence were not seen. 0: all were.
    pub min_confidence: f32,
    /// 1: decisions come from a thread of the stream's own; push and poll then never wait for one. 0: they are made in llmar_stream_poll.
    pub worker: u32,
    /// LLMAR_STREAM_ flags, or-ed.
    pub flags: u32,
    /// Width of the interval in which the best label's probability is known when a decision is made, up to 1. 0: 0.15. Negative: no width, all
    /// probabilities are exact. Which labels are best is certain in any case. What is told lies a fifth of the way up that interval, where the exact
    /// value mostly is; narrower ones cost time.
    pub tolerance: f32,
    /// A decision that would not be there so many nanoseconds after its newest frame was pushed is not made, and counted. 0: every decision is made.
    pub deadline_ns: u64,
    /// A body that was not seen for longer begins a new window: what lies between is not guessed. 0: 0.5 s. At most a day, as the next three.
    pub max_gap_ns: u64,
    /// A body that was not seen for longer is forgotten. 0: 3 s.
    pub forget_after_ns: u64,
    /// A timestamp that lies further beyond the newest is refused; a second, later one near it is believed. 0: 10 s.
    pub max_jump_ns: u64,
    /// What a model that reads whole clips looks back on; of no meaning for live models. 0: 2.5 s.
    pub window_ns: u64,
}

/// One frame of one body. The library only reads it, and only during the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_pose {
    /// sizeof(llmar_pose). In an array, the same in every element.
    pub struct_size: u32,
    /// V, as many as the stream's layout has.
    pub joint_count: u32,
    /// Who: any number that stays the same for a body.
    pub body: u64,
    /// When, in nanoseconds from any zero; later than the body's frame before.
    pub time_ns: u64,
    /// V * C floats in the stream's axes and units. A joint with a NaN or infinite coordinate was not seen.
    pub joints: *const f32,
    /// V bytes: 0 marks a joint that was not seen. NULL: every finite joint was.
    pub valid: *const u8,
    /// V numbers that are compared with min_confidence. NULL: not known.
    pub confidence: *const f32,
}

/// What a stream tells. Filled by llmar_stream_poll. Times are those of the caller's frames.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_event {
    /// sizeof(llmar_event), set by the caller in the first element of the array.
    pub struct_size: u32,
    /// LLMAR_EVENT_ constant.
    pub kind: u32,
    /// Whom it is about.
    pub body: u64,
    /// The newest moment that it knows of, in nanoseconds. Of an action that ended because the body was lost: when it was seen again, or, where it was
    /// forgotten, the last time it was seen.
    pub time_ns: u64,
    /// Decision: beginning of the window that was read. Begin and end: when the action began.
    pub start_ns: u64,
    /// End: when the action ended. Otherwise time_ns.
    pub end_ns: u64,
    /// Decision: the best label. Begin and end: the action. LLMAR_NO_LABEL: none.
    pub label: u32,
    /// Its smoothed probability; of an end the largest that it reached.
    pub probability: f32,
    /// Decision: 1 when the best probability is below the threshold.
    pub unknown: u32,
    /// Decision: 1 when the best label says that nothing happens.
    pub idle: u32,
    /// Decision: the best labels, best first, with smoothed probabilities and this decision's own log_prob (-infinity for a label that was not among its best).
    pub top: [llmar_label_score; LLMAR_STREAM_TOP],
    /// Elements of top that are filled.
    pub top_count: u32,
    /// Decision: action tokens read.
    pub tokens: u32,
    /// Decision: share of the joints that the model needs, over the window, that were missing and filled, 0 to 1.
    pub missing: f32,
    /// Decision: joints of the model that were not seen in the whole window: bit j % 64 of word j / 64.
    pub missing_joints: [u64; 4],
    /// Decision: nanoseconds from the push of the newest frame that it needed until it was there.
    pub latency_ns: u64,
}

/// A distribution of times in nanoseconds. Each percentile is at most 1/16 too large, the maximum exact. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct llmar_percentiles {
    /// Half of the times are not above it.
    pub p50_ns: u64,
    /// Nine of ten.
    pub p90_ns: u64,
    /// 99 of a hundred.
    pub p99_ns: u64,
    /// 999 of a thousand.
    pub p999_ns: u64,
    /// The largest.
    pub max_ns: u64,
}

/// What a stream has done since it was made or its statistics were reset. Filled by llmar_stream_get_stats; the caller sets struct_size only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_stream_stats {
    /// sizeof(llmar_stream_stats), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Frames taken, a body's frame each.
    pub frames: u64,
    /// Frames refused with an error.
    pub refused_frames: u64,
    /// Frames in which nothing of the body was seen, or that came before it could be placed.
    pub unseen_frames: u64,
    /// Action tokens made.
    pub tokens: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Decisions that were not made because they would have been late.
    pub skipped_decisions: u64,
    /// Events dropped because nobody took them.
    pub dropped_events: u64,
    /// Windows that were full and begun anew with their last half.
    pub reanchored: u64,
    /// Bodies that began a new window after a gap.
    pub gaps: u64,
    /// Passes through the language model.
    pub passes: u64,
    /// Rows (token positions) of them.
    pub rows: u64,
    /// Bodies now.
    pub bodies: u64,
    /// Frames that wait now.
    pub queued_frames: u64,
    /// Events that wait now.
    pub queued_events: u64,
    /// From the push of the newest frame that a decision needed until it was there.
    pub latency: llmar_percentiles,
    /// Time of one update: all bodies whose decision was due, together.
    pub update: llmar_percentiles,
}

versioned! {
    llmar_stream_params: [120];
    llmar_pose: [48];
    llmar_event: [168];
    llmar_stream_stats: [200];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field is at least as large as its alignment, so that a sum of sizes tells of padding.
    #[test]
    fn no_struct_has_padding() {
        let pointers = 8;
        assert_eq!(size_of::<llmar_stream_params>(), 8 + pointers + 16 * 4 + 5 * 8);
        assert_eq!(size_of::<llmar_pose>(), 8 + 2 * 8 + 3 * pointers);
        assert_eq!(size_of::<llmar_event>(), 8 + 4 * 8 + 4 * 4 + 5 * size_of::<llmar_label_score>() + 3 * 4 + 5 * 8);
        assert_eq!(size_of::<llmar_stream_stats>(), 8 + 14 * 8 + 2 * size_of::<llmar_percentiles>());
    }
}
