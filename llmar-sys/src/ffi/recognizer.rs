//! Recognizers: clips in, answers out.

use std::ffi::c_char;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::args;
use super::fence::{fence, fence_void, poisoned};
use super::model::{llmar_model, token_count};
use super::status::{
    Failure, LLMAR_ERROR_BUFFER_TOO_SMALL, LLMAR_ERROR_IN_USE, LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_INVALID_ENUM, llmar_status,
};
use super::types::{
    LLMAR_DECODING_EXACT, LLMAR_DECODING_GREEDY, LLMAR_SCORING_LANGUAGE_MODEL, LLMAR_SCORING_WORDS, llmar_call_params, llmar_clip,
    llmar_label_score, llmar_recognition, llmar_recognizer_params,
};
use crate::control::Control;
use crate::recognizer::{Options, Recognition, Recognizer, Scoring};
use crate::skeleton::{Clip, Timing};
use crate::text::Decoding;

/// Recognizes clips with one model. Belongs to one thread at a time and keeps its model alive. Opaque.
#[derive(Debug)]
pub struct llmar_recognizer {
    /// Locked for the time of a call; a panic inside poisons it.
    inner: Mutex<Recognizer>,
    /// A reference of its own: label texts that were handed out live as long as the last user of the model.
    _model: Arc<llmar_model>,
    /// Action tokens of a clip.
    tokens: usize,
}

impl llmar_recognizer {
    fn enter(&self) -> Result<MutexGuard<'_, Recognizer>, Failure> {
        self.inner.try_lock().map_err(|e| match e {
            TryLockError::Poisoned(_) => poisoned(),
            TryLockError::WouldBlock => Failure::new(LLMAR_ERROR_IN_USE, "recognizer: another call is using it"),
        })
    }
}

/// Makes a recognizer: allocates its buffers, starts the workers that params->threads asks for, and runs the fixed part of the prompt.
///
/// model: stays usable by others; the recognizer keeps it alive even when the caller frees it. params: NULL for the defaults. out: receives
/// the recognizer; free it with llmar_recognizer_free.
///
/// Threads: any. Errors: LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_INVALID_ENUM, LLMAR_ERROR_LIMIT (threads), LLMAR_ERROR_OUT_OF_MEMORY,
/// LLMAR_ERROR_MEMORY_BUDGET, LLMAR_ERROR_DEVICE_FAULT, LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_UNSUPPORTED
/// (LLMAR_SCORING_WORDS with a checkpoint that has no reading of words).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_recognizer_create(
    model: *const llmar_model,
    params: *const llmar_recognizer_params,
    out: *mut *mut llmar_recognizer,
) -> llmar_status {
    fence("llmar_recognizer_create", || {
        let out = args::out(out, "out")?;
        // SAFETY: a model that is not freed yet, or NULL.
        let model = unsafe { args::borrow(model, "model") }?;
        let _guard = model.enter()?;
        // SAFETY: NULL or as the header demands.
        let params = unsafe { args::versioned_or_default(params, "params") }?;
        let recognizer = Recognizer::new(Arc::clone(&model.model), options(&params)?)?;
        let tokens = token_count(&model.model);
        // SAFETY: every `llmar_model` lies in an `Arc` and was handed out by `Arc::into_raw`; this makes one more reference.
        let model = unsafe {
            Arc::increment_strong_count(model);
            Arc::from_raw(model)
        };
        let handle = Box::new(llmar_recognizer { inner: Mutex::new(recognizer), _model: model, tokens });
        // SAFETY: `out` was checked.
        unsafe { out.write(Box::into_raw(handle)) };
        Ok(())
    })
}

/// Replaces the labels to choose from. The prompt then lists them; the indices in answers count this list.
///
/// labels: count texts, UTF-8, none empty, none twice. With LLMAR_SCORING_WORDS each has at least one word that the checkpoint knows, and no two
/// have the same of them. NULL with count 0: back to the model's own labels. When the call fails, the labels stay as they were. A new list is not
/// balanced (see llmar_recognizer_balance).
///
/// Threads: one at a time. Errors: LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_LIMIT, LLMAR_ERROR_FORMAT (a damaged tokenizer),
/// LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_recognizer_set_labels(
    recognizer: *mut llmar_recognizer,
    labels: *const *const c_char,
    count: usize,
) -> llmar_status {
    fence("llmar_recognizer_set_labels", || {
        // SAFETY: a recognizer that is not freed yet, or NULL.
        let recognizer = unsafe { args::borrow(recognizer, "recognizer") }?;
        let mut inner = recognizer.enter()?;
        if labels.is_null() && count == 0 {
            inner.reset_labels()?;
        } else {
            // SAFETY: NULL or as the header demands.
            inner.set_labels(&unsafe { args::texts(labels, count, "labels") }?)?;
        }
        Ok(())
    })
}

/// Takes out of later answers what each label gets whatever is shown: its probability is divided by its mean over these clips, and the
/// quotients are normalised. For labels that training never saw, of which a language model likes some more than others.
///
/// clips: count of them, some dozens, of actions that are none of the labels, by the same camera. NULL with count 0: no longer. call: limits of
/// this call; NULL for none. Lasts until llmar_recognizer_set_labels. Every call then scores all labels, which takes longer where they are many;
/// answers are ordered by the balanced probabilities, and log_prob stays as it is. When the call fails, nothing changes.
///
/// Threads: one at a time. Errors: as llmar_recognize_batch; LLMAR_ERROR_INVALID_ARGUMENT (LLMAR_DECODING_GREEDY; a list without clips).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_recognizer_balance(
    recognizer: *mut llmar_recognizer,
    clips: *const llmar_clip,
    count: usize,
    call: *const llmar_call_params,
) -> llmar_status {
    fence("llmar_recognizer_balance", || {
        // SAFETY: a recognizer that is not freed yet, or NULL.
        let recognizer = unsafe { args::borrow(recognizer, "recognizer") }?;
        let mut inner = recognizer.enter()?;
        if count == 0 && !clips.is_null() {
            return Err(Failure::new(LLMAR_ERROR_INVALID_ARGUMENT, "clips: expected at least one, or NULL"));
        }
        // SAFETY: NULL or as the header demands.
        let (control, clips) = unsafe { (control(call)?, args::versioned_array(clips, count, "clips")?) };
        let views = clips.iter().enumerate().map(|(i, (_, clip))| {
            // SAFETY: as the header demands.
            unsafe { view(clip, &format!("clips[{i}]")) }
        });
        inner.balance(&views.collect::<Result<Vec<_>, _>>()?, &control)?;
        Ok(())
    })
}

/// Recognizes one clip.
///
/// call: limits of this call; NULL for none. result: see llmar_recognition; written only when the call succeeds.
///
/// Threads: one at a time. Errors: LLMAR_ERROR_EMPTY_CLIP, LLMAR_ERROR_SHAPE, LLMAR_ERROR_LIMIT, LLMAR_ERROR_UNKNOWN_LAYOUT,
/// LLMAR_ERROR_FORMAT (weights that overflow), LLMAR_ERROR_OUT_OF_MEMORY, LLMAR_ERROR_MEMORY_BUDGET, LLMAR_ERROR_DEVICE_FAULT,
/// LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_CANCELLED, LLMAR_ERROR_DEADLINE_EXCEEDED, LLMAR_ERROR_BUFFER_TOO_SMALL (token_capacity),
/// LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_recognize_clip(
    recognizer: *mut llmar_recognizer,
    clip: *const llmar_clip,
    call: *const llmar_call_params,
    result: *mut llmar_recognition,
) -> llmar_status {
    fence("llmar_recognize_clip", || {
        let clip = args::not_null(clip, "clip")?;
        let result = args::not_null(result.cast_const(), "result")?.cast_mut();
        // SAFETY: as the header demands; one element each.
        unsafe { recognize(recognizer, clip, None, call, result) }
    })
}

/// Recognizes clips together: the fixed part of the prompt is shared and the clips are packed without padding. The answers are those of
/// llmar_recognize_clip, bit for bit.
///
/// clips, results: count elements each, in the same order. One bad clip fails the whole call; llmar_last_error names its index. With count 0
/// nothing happens.
///
/// Threads: one at a time. Errors: as llmar_recognize_clip.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_recognize_batch(
    recognizer: *mut llmar_recognizer,
    clips: *const llmar_clip,
    count: usize,
    call: *const llmar_call_params,
    results: *mut llmar_recognition,
) -> llmar_status {
    fence("llmar_recognize_batch", || {
        // SAFETY: as the header demands.
        unsafe { recognize(recognizer, clips, Some(count), call, results) }
    })
}

/// Turns a clip into its action tokens, without the language model.
///
/// call: limits of this call, looked at once before it begins; NULL for none. tokens: room for capacity tokens, at least token_count of
/// llmar_model_info. out_count: receives how many were written. out_missing: NULL, or receives the share of the joints that were missing.
///
/// Threads: one at a time. Errors: as llmar_recognize_clip.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_tokenize_clip(
    recognizer: *mut llmar_recognizer,
    clip: *const llmar_clip,
    call: *const llmar_call_params,
    tokens: *mut u16,
    capacity: usize,
    out_missing: *mut f32,
    out_count: *mut usize,
) -> llmar_status {
    fence("llmar_tokenize_clip", || {
        let (tokens, out_count) = (args::out(tokens, "tokens")?, args::out(out_count, "out_count")?);
        let out_missing = if out_missing.is_null() { None } else { Some(args::out(out_missing, "out_missing")?) };
        // SAFETY: a recognizer that is not freed yet, or NULL.
        let recognizer = unsafe { args::borrow(recognizer, "recognizer") }?;
        let mut inner = recognizer.enter()?;
        // SAFETY: NULL or as the header demands.
        let (clip, control) = unsafe { (view(&args::versioned(clip, "clip")?, "clip")?, control(call)?) };
        room_for_tokens(recognizer, capacity, "capacity")?;
        let (sentence, missing) = inner.tokenize(&clip, &control)?;
        // SAFETY: the three places were checked; `write_tokens` keeps to the capacity.
        unsafe {
            out_count.write(write_tokens(&sentence.tokens, tokens, capacity)?);
            if let Some(out) = out_missing {
                out.write(missing);
            }
        }
        Ok(())
    })
}

/// Frees a recognizer, ends its workers and gives its reference to the model back; NULL is allowed.
///
/// Threads: any, but no other function may be called with this recognizer at the same time or later. Errors: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_recognizer_free(recognizer: *mut llmar_recognizer) {
    fence_void("llmar_recognizer_free", || {
        if !recognizer.is_null() {
            // SAFETY: made by `Box::into_raw` in `llmar_recognizer_create`, and freed once.
            drop(unsafe { Box::from_raw(recognizer) });
        }
    });
}

/// What both recognise functions do; `count` is `None` for the one that takes a single clip.
///
/// # Safety
/// As the header demands of `llmar_recognize_batch`.
unsafe fn recognize(
    recognizer: *mut llmar_recognizer,
    clips: *const llmar_clip,
    count: Option<usize>,
    call: *const llmar_call_params,
    results: *mut llmar_recognition,
) -> Result<(), Failure> {
    let name = |one: &str, i: usize| if count.is_some() { format!("{one}s[{i}]") } else { one.to_owned() };
    let number = count.unwrap_or(1);
    // SAFETY: a recognizer that is not freed yet, or NULL.
    let recognizer = unsafe { args::borrow(recognizer, "recognizer") }?;
    let mut inner = recognizer.enter()?;
    // SAFETY: NULL or as the header demands.
    let control = unsafe { control(call) }?;
    // SAFETY: as the header demands.
    let (clips, mut results) =
        unsafe { (args::versioned_array(clips, number, "clips")?, args::versioned_array(results.cast_const(), number, "results")?) };
    let mut views = Vec::with_capacity(clips.len());
    for (i, (_, clip)) in clips.iter().enumerate() {
        // SAFETY: as the header demands.
        views.push(unsafe { view(clip, &name("clip", i)) }?);
    }
    for (i, (_, result)) in results.iter().enumerate() {
        check_buffers(recognizer, result, &name("result", i))?;
    }
    let answers = match views.as_slice() {
        [] => return Ok(()),
        [clip] if count.is_none() => vec![inner.recognize(clip, &control)?],
        clips => inner.recognize_batch(clips, &control)?,
    };
    for ((place, result), answer) in results.iter_mut().zip(&answers) {
        // SAFETY: the buffers were checked and are the caller's to give; the struct was read by `versioned_array`.
        unsafe {
            fill(result, answer)?;
            args::write_back(place.cast_mut(), result);
        }
    }
    Ok(())
}

fn options(params: &llmar_recognizer_params) -> Result<Options, Failure> {
    let below = params.unknown_below;
    if below.is_nan() || below > 1.0 {
        return Err(Failure::new(LLMAR_ERROR_INVALID_ARGUMENT, format!("params->unknown_below: expected at most 1, got {below}")));
    }
    let decoding = match params.decoding {
        LLMAR_DECODING_EXACT => Decoding::Exact,
        LLMAR_DECODING_GREEDY => Decoding::Greedy,
        other => {
            return Err(Failure::new(
                LLMAR_ERROR_INVALID_ENUM,
                format!("params->decoding: expected an LLMAR_DECODING_ constant, got {other}"),
            ));
        }
    };
    let scoring = match params.scoring {
        LLMAR_SCORING_LANGUAGE_MODEL => Scoring::LanguageModel,
        LLMAR_SCORING_WORDS => Scoring::Words,
        other => {
            return Err(Failure::new(
                LLMAR_ERROR_INVALID_ENUM,
                format!("params->scoring: expected an LLMAR_SCORING_ constant, got {other}"),
            ));
        }
    };
    Ok(Options {
        threads: params.threads as usize,
        top_k: params.top_k as usize,
        decoding,
        scoring,
        unknown_below: if below == 0.0 { None } else { Some(below.max(0.0)) },
    })
}

/// # Safety
/// `call` is NULL or as [`args::versioned`] wants it, its cancel token NULL or alive.
pub(super) unsafe fn control(call: *const llmar_call_params) -> Result<Control, Failure> {
    let begin = Instant::now();
    // SAFETY: the caller's promise.
    let call = unsafe { args::versioned_or_default(call, "call") }?;
    args::reserved(call.reserved, "call->reserved")?;
    // A clone: the caller may free its token while the call runs.
    let cancel = if call.cancel.is_null() {
        None
    } else {
        // SAFETY: the caller's promise.
        Some(unsafe { args::borrow(call.cancel, "call->cancel") }?.token.clone())
    };
    // A deadline beyond what the clock can count never comes.
    let deadline = if call.deadline_ns == 0 { None } else { begin.checked_add(Duration::from_nanos(call.deadline_ns)) };
    Ok(Control { cancel, deadline })
}

/// A C clip as the recogniser wants it. Ranges are checked there; here, only what is needed to look at the memory.
///
/// # Safety
/// The pointers are NULL or as the header demands, for `'a`.
unsafe fn view<'a>(clip: &llmar_clip, what: &str) -> Result<Clip<'a>, Failure> {
    args::reserved(clip.reserved, &format!("{what}: reserved"))?;
    let joints = args::not_null(clip.joints, &format!("{what}: joints"))?;
    let coords = clip.coords as usize;
    let per_joint = args::product(&[clip.frames, clip.persons, clip.joint_count], what)?;
    let values = args::product(&[per_joint, coords], what)?;
    if !clip.timestamps_ns.is_null() && clip.fps != 0.0 {
        return Err(Failure::new(LLMAR_ERROR_INVALID_ARGUMENT, format!("{what}: fps must be 0 when there are timestamps")));
    }
    // SAFETY: as the header demands.
    unsafe {
        Ok(Clip {
            joints: args::slice(joints, values, &format!("{what}: joints"))?,
            frames: clip.frames,
            persons: clip.persons,
            joints_per_person: clip.joint_count,
            coords,
            timing: if !clip.timestamps_ns.is_null() {
                Timing::Timestamps(args::slice(clip.timestamps_ns, clip.frames, &format!("{what}: timestamps_ns"))?)
            } else if clip.fps == 0.0 {
                Timing::Unknown
            } else {
                Timing::Rate(clip.fps)
            },
            layout: args::text(clip.layout, &format!("{what}: layout"))?,
            valid: if clip.valid.is_null() { None } else { Some(args::slice(clip.valid, per_joint, &format!("{what}: valid"))?) },
        })
    }
}

/// Everything that could fail after the work is done fails before it.
fn check_buffers(recognizer: &llmar_recognizer, result: &llmar_recognition, what: &str) -> Result<(), Failure> {
    if result.top_capacity > 0 {
        args::out(result.top, &format!("{what}: top"))?;
    }
    if result.token_capacity > 0 {
        args::out(result.tokens, &format!("{what}: tokens"))?;
        room_for_tokens(recognizer, result.token_capacity, &format!("{what}: token_capacity"))?;
    }
    Ok(())
}

fn room_for_tokens(recognizer: &llmar_recognizer, capacity: usize, what: &str) -> Result<(), Failure> {
    if capacity < recognizer.tokens {
        let detail = format!("{what}: room for {capacity} tokens, {} are needed", recognizer.tokens);
        return Err(Failure::new(LLMAR_ERROR_BUFFER_TOO_SMALL, detail));
    }
    Ok(())
}

/// Writes `answer` into the buffers of `result` and its fields.
///
/// # Safety
/// The buffers have the room that they state.
unsafe fn fill(result: &mut llmar_recognition, answer: &Recognition) -> Result<(), Failure> {
    result.top_count = answer.top.len().min(result.top_capacity);
    for (i, (score, probability)) in answer.top.iter().zip(&answer.probabilities).take(result.top_count).enumerate() {
        let label = args::count32(score.label, "label")?;
        // SAFETY: i < top_capacity.
        unsafe { result.top.add(i).write(llmar_label_score { label, log_prob: score.log_prob, probability: *probability }) };
    }
    result.token_count = 0;
    if result.token_capacity > 0 {
        // SAFETY: the caller's promise.
        result.token_count = unsafe { write_tokens(&answer.sentence.tokens, result.tokens, result.token_capacity) }?;
    }
    result.reserved = 0;
    result.unknown = answer.unknown.into();
    result.missing = answer.missing;
    result.tokenize_ns = answer.timings.tokenize_ns;
    result.prompt_ns = answer.timings.prompt_ns;
    result.label_ns = answer.timings.label_ns;
    result.prompt_rows = answer.timings.prompt_rows;
    result.label_rows = answer.timings.label_rows;
    Ok(())
}

/// Writes tokens and returns their number.
///
/// # Safety
/// `out` has room for `capacity` tokens.
unsafe fn write_tokens(tokens: &[u16], out: *mut u16, capacity: usize) -> Result<usize, Failure> {
    if tokens.len() > capacity {
        return Err(Failure::new(LLMAR_ERROR_BUFFER_TOO_SMALL, format!("room for {capacity} tokens, {} are needed", tokens.len())));
    }
    // SAFETY: the caller's promise; the tokens are the library's own.
    unsafe { std::ptr::copy_nonoverlapping(tokens.as_ptr(), out, tokens.len()) };
    Ok(tokens.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::ffi::{llmar_cancel_create, llmar_cancel_free, llmar_cancel_request};

    #[test]
    fn a_token_may_be_freed_while_a_call_uses_it() {
        let mut cancel = std::ptr::null_mut();
        // SAFETY: a place for the handle; the handle is used before it is freed, and freed once.
        let (raised, calm) = unsafe {
            assert_eq!(llmar_cancel_create(&mut cancel), 0);
            let call = llmar_call_params { cancel, ..Default::default() };
            let calm = control(&call).unwrap();
            calm.check().unwrap();
            assert_eq!(llmar_cancel_request(cancel), 0);
            let raised = control(&call).unwrap();
            llmar_cancel_free(cancel);
            (raised, calm)
        };
        // One token, and it outlives its handle.
        assert!(matches!(raised.check(), Err(Error::Cancelled)));
        assert!(matches!(calm.check(), Err(Error::Cancelled)));
    }

    #[test]
    fn deadlines_count_from_the_call() {
        // SAFETY: params of this library, no token.
        let control = |deadline_ns| unsafe { control(&llmar_call_params { deadline_ns, ..Default::default() }) }.unwrap();
        assert!(control(0).deadline.is_none());
        assert!(matches!(control(1).check(), Err(Error::DeadlineExceeded)));
        control(3_600_000_000_000).check().unwrap();
        control(u64::MAX).check().unwrap();
    }
}
