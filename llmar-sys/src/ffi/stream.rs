//! Streams: frames in, events out.

use std::ffi::c_char;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use super::args;
use super::fence::{fence, fence_void, poisoned};
use super::model::llmar_model;
use super::recognizer::control;
use super::status::{
    Failure, LLMAR_ERROR_BUFFER_TOO_SMALL, LLMAR_ERROR_IN_USE, LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_INVALID_ENUM, LLMAR_ERROR_SHAPE,
    LLMAR_OK, llmar_status,
};
use super::stream_types::*;
use super::types::{llmar_call_params, llmar_label_score};
use crate::error::Error;
use crate::recognizer::stream::{Event, EventKind, LabelState, Percentiles, Pose, Stream, StreamOptions, TOP};
use crate::skeleton::{Axes, Handedness, Up};

/// Follows bodies frame by frame with one model. Belongs to one thread at a time and keeps its model alive. Opaque.
#[derive(Debug)]
pub struct llmar_stream {
    /// Locked for the time of a call; a panic inside poisons it.
    inner: Mutex<Inner>,
    /// A reference of its own: label texts that were handed out live as long as the last user of the model.
    _model: Arc<llmar_model>,
}

#[derive(Debug)]
struct Inner {
    stream: Stream,
    /// Joints of a frame, and coordinates of a joint.
    joints: usize,
    coords: usize,
    /// Events on their way to the caller.
    events: Vec<Event>,
    /// What went wrong after a poll had events to give: the next one tells.
    failure: Option<Failure>,
}

/// Events that are brought to the caller at a time.
const CHUNK: usize = 32;

impl llmar_stream {
    fn enter(&self) -> Result<MutexGuard<'_, Inner>, Failure> {
        self.inner.try_lock().map_err(|e| match e {
            TryLockError::Poisoned(_) => poisoned(),
            TryLockError::WouldBlock => Failure::new(LLMAR_ERROR_IN_USE, "stream: another call is using it"),
        })
    }
}

/// Runs `body` with a stream that the caller names.
///
/// # Safety
/// `stream` is NULL or a stream that is not freed yet.
unsafe fn with(name: &str, stream: *const llmar_stream, body: impl FnOnce(&mut Inner) -> Result<(), Failure>) -> llmar_status {
    fence(name, || {
        // SAFETY: the caller's promise.
        let stream = unsafe { args::borrow(stream, "stream") }?;
        body(&mut *stream.enter()?)
    })
}

/// Makes a stream: allocates all that it will need, runs the fixed part of the prompt, and starts the worker if params->worker asks for one.
///
/// model: stays usable by others; the stream keeps it alive even when the caller frees it. With a live model (causal in llmar_model_info, and a fixed
/// rate) tokens are only ever appended and an update costs a few rows; any other model works by reading params->window_ns anew at every
/// decision. params: NULL for the defaults. out: receives the stream; free it with llmar_stream_free.
///
/// Threads: any. Errors: LLMAR_ERROR_INVALID_ARGUMENT (a number out of range, or a layout that lacks a joint by which the model places a body),
/// LLMAR_ERROR_INVALID_ENUM, LLMAR_ERROR_LIMIT, LLMAR_ERROR_UNKNOWN_LAYOUT, LLMAR_ERROR_OUT_OF_MEMORY, LLMAR_ERROR_MEMORY_BUDGET,
/// LLMAR_ERROR_DEVICE_FAULT, LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_create(
    model: *const llmar_model,
    params: *const llmar_stream_params,
    out: *mut *mut llmar_stream,
) -> llmar_status {
    fence("llmar_stream_create", || {
        let out = args::out(out, "out")?;
        // SAFETY: a model that is not freed yet, or NULL.
        let model = unsafe { args::borrow(model, "model") }?;
        let _guard = model.enter()?;
        // SAFETY: NULL or as the header demands.
        let params = unsafe { args::versioned_or_default(params, "params") }?;
        // SAFETY: as above.
        let options = unsafe { options(&params) }?;
        let preprocess = &model.model.metadata().preprocess;
        let joints = preprocess.source_layout(&options.layout)?.joints.len();
        let coords = preprocess.coords;
        let stream = Stream::new(Arc::clone(&model.model), options, axes(&params)?)?;
        // SAFETY: every `llmar_model` lies in an `Arc` and was handed out by `Arc::into_raw`; this makes one more reference.
        let model = unsafe {
            Arc::increment_strong_count(model);
            Arc::from_raw(model)
        };
        let inner = Inner { stream, joints, coords, events: vec![Event::default(); CHUNK], failure: None };
        let handle = Box::new(llmar_stream { inner: Mutex::new(inner), _model: model });
        // SAFETY: `out` was checked.
        unsafe { out.write(Box::into_raw(handle)) };
        Ok(())
    })
}

/// Takes frames, one of a body each, in the order in which they stand. Never waits for an update; without a worker nothing else happens until
/// llmar_stream_poll.
///
/// poses: count elements. statuses: NULL, or room for count results. A frame that is refused changes nothing, and the frames behind it are taken: the call
/// returns the status of the first that was refused, and statuses has each one's.
///
/// Threads: one at a time. Errors: of a frame LLMAR_ERROR_SHAPE (joint_count), LLMAR_ERROR_BACKWARD_TIME, LLMAR_ERROR_DUPLICATE_TIME,
/// LLMAR_ERROR_FUTURE_TIME, LLMAR_ERROR_BODY_LIMIT, LLMAR_ERROR_QUEUE_FULL, LLMAR_ERROR_NULL_POINTER (joints); of the call, before any frame is
/// taken, LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_push(
    stream: *mut llmar_stream,
    poses: *const llmar_pose,
    count: usize,
    statuses: *mut llmar_status,
) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe {
        with("llmar_stream_push", stream, |inner| {
            if count == 0 {
                return Ok(());
            }
            let statuses = if statuses.is_null() { None } else { Some(args::out(statuses, "statuses")?) };
            let stride = args::stride(poses, "poses")?;
            for i in 0..count {
                args::same_stride(poses.byte_add(i * stride), stride, "poses")?;
            }
            let mut first = Ok(());
            for i in 0..count {
                let result = push(inner, poses.byte_add(i * stride));
                if let Some(statuses) = statuses {
                    statuses.add(i).write(result.as_ref().err().map_or(LLMAR_OK, |failure| failure.status));
                }
                if let (Ok(()), Err(failure)) = (&first, result) {
                    first = Err(Failure { detail: format!("poses[{i}]: {}", failure.detail), ..failure });
                }
            }
            first
        })
    }
}

/// # Safety
/// `pose` is as the header demands of an element of `poses`.
unsafe fn push(inner: &mut Inner, pose: *const llmar_pose) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let pose = unsafe { args::versioned(pose, "pose") }?;
    let joints = pose.joint_count as usize;
    if joints != inner.joints {
        return Err(Failure::new(LLMAR_ERROR_SHAPE, format!("joint_count: expected {}, got {joints}", inner.joints)));
    }
    // SAFETY: the caller's promise.
    let (values, valid, confidence) = unsafe {
        (
            args::slice(args::not_null(pose.joints, "joints")?, joints * inner.coords, "joints")?,
            if pose.valid.is_null() { None } else { Some(args::slice(pose.valid, joints, "valid")?) },
            if pose.confidence.is_null() { None } else { Some(args::slice(pose.confidence, joints, "confidence")?) },
        )
    };
    Ok(inner.stream.push(&Pose { body: pose.body, time_ns: pose.time_ns, joints: values, valid, confidence })?)
}

/// Says what time it is, also when nobody is seen: bodies that were not seen for params->forget_after_ns are forgotten.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_INVALID_ARGUMENT for a time before the newest frame, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_advance(stream: *mut llmar_stream, time_ns: u64) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe { with("llmar_stream_advance", stream, |inner| Ok(inner.stream.advance(time_ns)?)) }
}

/// Takes events, oldest first. Without a worker this makes the decisions that are due, those of several bodies together; with one it only
/// takes what is there.
///
/// call: limits of this call; NULL for none. events: room for capacity events, struct_size set in the first. out_count: receives how many were
/// written; fewer than capacity: there are no more for now.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_CANCELLED, LLMAR_ERROR_DEADLINE_EXCEEDED (no event is lost: the next poll goes on),
/// LLMAR_ERROR_FORMAT (weights that overflow), LLMAR_ERROR_OUT_OF_MEMORY, LLMAR_ERROR_MEMORY_BUDGET, LLMAR_ERROR_DEVICE_FAULT,
/// LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE; LLMAR_ERROR_POISONED when the worker has failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_poll(
    stream: *mut llmar_stream,
    call: *const llmar_call_params,
    events: *mut llmar_event,
    capacity: usize,
    out_count: *mut usize,
) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe {
        with("llmar_stream_poll", stream, |inner| {
            let out_count = args::out(out_count, "out_count")?;
            let control = control(call)?;
            let stride = if capacity == 0 { 0 } else { args::stride(args::out(events, "events")?, "events")? };
            if let Some(failure) = inner.failure.take() {
                return Err(failure);
            }
            let mut done = 0;
            while done < capacity {
                let wanted = CHUNK.min(capacity - done);
                let got = match inner.stream.poll(&control, &mut inner.events[..wanted]) {
                    Ok(got) => got,
                    Err(error) if done == 0 => return Err(error.into()),
                    // What was written is the caller's. That the call was to stop is no news for the next one; anything else is.
                    Err(Error::Cancelled | Error::DeadlineExceeded) => 0,
                    Err(error) => {
                        inner.failure = Some(error.into());
                        0
                    }
                };
                for (i, event) in inner.events[..got].iter().enumerate() {
                    let place = events.byte_add((done + i) * stride);
                    place.cast::<u32>().write(stride as u32);
                    args::write_out(place, &c_event(event), "event")?;
                }
                done += got;
                if got < wanted {
                    break;
                }
            }
            out_count.write(done);
            Ok(())
        })
    }
}

/// Asks for the decisions that are not due yet and ends the actions that go on: the end of the input. Their events come with the next polls.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_QUEUE_FULL, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_flush(stream: *mut llmar_stream) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe { with("llmar_stream_flush", stream, |inner| Ok(inner.stream.flush()?)) }
}

/// With a worker: waits until everything that was pushed has been worked on. Without one it does nothing.
///
/// call: limits of this call; NULL for none.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_CANCELLED, LLMAR_ERROR_DEADLINE_EXCEEDED, LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER,
/// LLMAR_ERROR_IN_USE; LLMAR_ERROR_POISONED when the worker has failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_wait(stream: *mut llmar_stream, call: *const llmar_call_params) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe { with("llmar_stream_wait", stream, |inner| Ok(inner.stream.wait(&control(call)?)?)) }
}

/// Forgets all bodies, frames and events. Labels, settings and statistics stay, and any timestamp is believed again.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_DEVICE_FAULT, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_reset(stream: *mut llmar_stream) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe {
        with("llmar_stream_reset", stream, |inner| {
            inner.failure = None;
            Ok(inner.stream.reset()?)
        })
    }
}

/// Forgets a body: its action ends, and its place is free.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_UNKNOWN_BODY, LLMAR_ERROR_QUEUE_FULL, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_remove_body(stream: *mut llmar_stream, body: u64) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe { with("llmar_stream_remove_body", stream, |inner| Ok(inner.stream.remove_body(body)?)) }
}

/// Tells counters and latencies.
///
/// stats: the caller sets struct_size.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_get_stats(stream: *mut llmar_stream, stats: *mut llmar_stream_stats) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe {
        with("llmar_stream_get_stats", stream, |inner| {
            let got = inner.stream.stats()?;
            let value = llmar_stream_stats {
                frames: got.frames,
                refused_frames: got.refused_frames,
                unseen_frames: got.unseen_frames,
                tokens: got.tokens,
                decisions: got.decisions,
                skipped_decisions: got.skipped_decisions,
                dropped_events: got.dropped_events,
                reanchored: got.reanchored,
                gaps: got.gaps,
                passes: got.passes,
                rows: got.rows,
                bodies: got.bodies,
                queued_frames: got.queued_frames,
                queued_events: got.queued_events,
                latency: c_percentiles(got.latency),
                update: c_percentiles(got.update),
                ..Default::default()
            };
            args::write_out(stats, &value, "stats")
        })
    }
}

/// Begins counters and latencies anew.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_reset_stats(stream: *mut llmar_stream) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe { with("llmar_stream_reset_stats", stream, |inner| Ok(inner.stream.reset_stats()?)) }
}

/// Writes everything known of all bodies, to go on later or in another process. Waits for the worker, if there is one.
///
/// buf: room for capacity bytes. out_size: receives the size of the state, also when the room is too small; NULL with capacity 0 asks for it.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_BUFFER_TOO_SMALL, LLMAR_ERROR_QUEUE_FULL while frames wait that nobody has polled for,
/// LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_save(stream: *mut llmar_stream, buf: *mut u8, capacity: usize, out_size: *mut usize) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe {
        with("llmar_stream_save", stream, |inner| {
            let out_size = args::out(out_size, "out_size")?;
            let state = inner.stream.save()?;
            out_size.write(state.len());
            if capacity == 0 {
                return Ok(());
            }
            let buf = args::out(buf, "buf")?;
            if capacity < state.len() {
                let detail = format!("capacity: the state has {} bytes, there is room for {capacity}", state.len());
                return Err(Failure::new(LLMAR_ERROR_BUFFER_TOO_SMALL, detail));
            }
            std::ptr::copy_nonoverlapping(state.as_ptr(), buf, state.len());
            Ok(())
        })
    }
}

/// Goes on from a state that llmar_stream_save wrote. What the stream knew before is forgotten; events that wait stay.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_FOREIGN_STATE for a state of another model, layout, label list or number of bodies,
/// LLMAR_ERROR_FORMAT for damaged bytes, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE. After an error the stream is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_load(stream: *mut llmar_stream, buf: *const u8, size: usize) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe {
        with("llmar_stream_load", stream, |inner| {
            let bytes = args::slice(args::not_null(buf, "buf")?, size, "buf")?;
            Ok(inner.stream.load(bytes)?)
        })
    }
}

/// Replaces the labels to choose from, as llmar_recognizer_set_labels. A filter is lifted, and actions that go on are dropped without an event.
///
/// Threads: one at a time. Errors: as llmar_recognizer_set_labels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_set_labels(stream: *mut llmar_stream, labels: *const *const c_char, count: usize) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe {
        with("llmar_stream_set_labels", stream, |inner| {
            if labels.is_null() && count == 0 {
                return Ok(inner.stream.set_labels(&[])?);
            }
            let texts = args::texts(labels, count, "labels")?;
            if texts.is_empty() {
                return Err(Failure::new(LLMAR_ERROR_INVALID_ARGUMENT, "labels: expected at least one, got none"));
            }
            Ok(inner.stream.set_labels(&texts)?)
        })
    }
}

/// Names only some labels; probabilities are then over those alone.
///
/// allowed: count bytes, one a label of the stream's list; 0 denies it. NULL with count 0: all are allowed. Labels that are not observable stay so.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_SHAPE (count), LLMAR_ERROR_INVALID_ARGUMENT when none would be left (the filter stays as it was),
/// LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_filter_labels(stream: *mut llmar_stream, allowed: *const u8, count: usize) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe {
        with("llmar_stream_filter_labels", stream, |inner| {
            let labels = inner.stream.label_states()?.len();
            if allowed.is_null() && count == 0 {
                return Ok(inner.stream.filter_labels(|_| true)?);
            }
            if count != labels {
                return Err(Failure::new(LLMAR_ERROR_SHAPE, format!("count: expected {labels}, got {count}")));
            }
            let allowed = args::slice(allowed, count, "allowed")?;
            Ok(inner.stream.filter_labels(|label| allowed[label] != 0)?)
        })
    }
}

/// Tells whether a label may be named: out_state receives an LLMAR_LABEL_ constant.
///
/// label: below the number of labels, which llmar_model_label_count tells until llmar_stream_set_labels replaces them.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_INVALID_ARGUMENT (label), LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_label_state(stream: *mut llmar_stream, label: u32, out_state: *mut u32) -> llmar_status {
    // SAFETY: as the header demands.
    unsafe {
        with("llmar_stream_label_state", stream, |inner| {
            let out_state = args::out(out_state, "out_state")?;
            let states = inner.stream.label_states()?;
            out_state.write(match args::element(&states, label as usize, "label")? {
                LabelState::Allowed => LLMAR_LABEL_ALLOWED,
                LabelState::Denied => LLMAR_LABEL_DENIED,
                LabelState::NotObservable => LLMAR_LABEL_NOT_OBSERVABLE,
            });
            Ok(())
        })
    }
}

/// Frees a stream, ends its worker and gives its reference to the model back; NULL is allowed.
///
/// Threads: any, but no other function may be called with this stream at the same time or later. Errors: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_stream_free(stream: *mut llmar_stream) {
    fence_void("llmar_stream_free", || {
        if !stream.is_null() {
            // SAFETY: made by `Box::into_raw` in `llmar_stream_create`, and freed once.
            drop(unsafe { Box::from_raw(stream) });
        }
    });
}

/// # Safety
/// `params->layout` is NULL or a text.
unsafe fn options(params: &llmar_stream_params) -> Result<StreamOptions, Failure> {
    if params.flags & !LLMAR_STREAM_ACTIONS_ONLY != 0 {
        return Err(Failure::new(LLMAR_ERROR_INVALID_ENUM, format!("params->flags: unknown bits in {:#x}", params.flags)));
    }
    if params.worker > 1 {
        return Err(Failure::new(LLMAR_ERROR_INVALID_ARGUMENT, format!("params->worker: expected 0 or 1, got {}", params.worker)));
    }
    let defaults = StreamOptions::default();
    let count = |value: u32, default: usize| if value == 0 { default } else { value as usize };
    let number = |value: f32, default: f32| if value == 0.0 { default } else { value };
    let time = |value: u64, default: Duration| if value == 0 { default } else { Duration::from_nanos(value) };
    let begin_at = number(params.begin_at, defaults.begin_at);
    Ok(StreamOptions {
        threads: params.threads as usize,
        // SAFETY: the caller's promise.
        layout: if params.layout.is_null() { String::new() } else { unsafe { args::text(params.layout, "params->layout") }?.to_owned() },
        max_bodies: count(params.max_bodies, defaults.max_bodies),
        queued_frames: count(params.queued_frames, defaults.queued_frames),
        queued_events: count(params.queued_events, defaults.queued_events),
        tokens_per_decision: count(params.tokens_per_decision, defaults.tokens_per_decision),
        top_k: count(params.top_k, defaults.top_k),
        unknown_below: if params.unknown_below == 0.0 { None } else { Some(params.unknown_below.max(0.0)) },
        tolerance: if params.tolerance < 0.0 { 0.0 } else { number(params.tolerance, defaults.tolerance as f32).into() },
        smoothing: if params.smoothing < 0.0 { 0.0 } else { number(params.smoothing, defaults.smoothing) },
        begin_at,
        end_below: number(params.end_below, defaults.end_below.min(begin_at)),
        min_confidence: params.min_confidence,
        deadline: (params.deadline_ns > 0).then(|| Duration::from_nanos(params.deadline_ns)),
        max_gap: time(params.max_gap_ns, defaults.max_gap),
        forget_after: time(params.forget_after_ns, defaults.forget_after),
        max_jump: time(params.max_jump_ns, defaults.max_jump),
        window: time(params.window_ns, defaults.window),
        worker: params.worker == 1,
        actions_only: params.flags & LLMAR_STREAM_ACTIONS_ONLY != 0,
    })
}

fn axes(params: &llmar_stream_params) -> Result<Axes, Failure> {
    let unknown = |what: &str, got: u32| Failure::new(LLMAR_ERROR_INVALID_ENUM, format!("params->{what}: unknown constant {got}"));
    Ok(Axes {
        up: match params.up {
            LLMAR_UP_DEFAULT => Up::Usual,
            LLMAR_UP_PLUS_X => Up::PlusX,
            LLMAR_UP_MINUS_X => Up::MinusX,
            LLMAR_UP_PLUS_Y => Up::PlusY,
            LLMAR_UP_MINUS_Y => Up::MinusY,
            LLMAR_UP_PLUS_Z => Up::PlusZ,
            LLMAR_UP_MINUS_Z => Up::MinusZ,
            other => return Err(unknown("up", other)),
        },
        handedness: match params.handedness {
            LLMAR_HANDEDNESS_RIGHT => Handedness::Right,
            LLMAR_HANDEDNESS_LEFT => Handedness::Left,
            other => return Err(unknown("handedness", other)),
        },
        metres_per_unit: if params.metres_per_unit == 0.0 { 1.0 } else { params.metres_per_unit },
    })
}

fn c_event(event: &Event) -> llmar_event {
    let mut top = [llmar_label_score { label: LLMAR_NO_LABEL, log_prob: 0.0, probability: 0.0 }; TOP];
    for (to, from) in top.iter_mut().zip(&event.top[..event.top_count as usize]) {
        *to = llmar_label_score { label: from.label, log_prob: from.log_prob, probability: from.probability };
    }
    llmar_event {
        kind: match event.kind {
            EventKind::Decision => LLMAR_EVENT_DECISION,
            EventKind::Begin => LLMAR_EVENT_BEGIN,
            EventKind::End => LLMAR_EVENT_END,
            EventKind::Forgotten => LLMAR_EVENT_FORGOTTEN,
        },
        body: event.body,
        time_ns: event.time_ns,
        start_ns: event.start_ns,
        end_ns: event.end_ns,
        label: event.label.unwrap_or(LLMAR_NO_LABEL),
        probability: event.probability,
        unknown: event.unknown.into(),
        idle: event.idle.into(),
        top,
        top_count: event.top_count,
        tokens: event.tokens,
        missing: event.missing,
        missing_joints: event.missing_joints,
        latency_ns: event.latency_ns,
        ..Default::default()
    }
}

fn c_percentiles(of: Percentiles) -> llmar_percentiles {
    llmar_percentiles { p50_ns: of.p50_ns, p90_ns: of.p90_ns, p99_ns: of.p99_ns, p999_ns: of.p999_ns, max_ns: of.max_ns }
}
