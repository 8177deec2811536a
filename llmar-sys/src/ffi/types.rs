//! Every struct that crosses the boundary. They grow at the end only, and `SIZES` remembers each version.
//!
//! No struct has padding inside or at its end on 64-bit machines: a later field must not hide in what an older caller left unset.

use std::ffi::{c_char, c_void};

use super::args::{Versioned, zeroed};
use super::cancel::llmar_cancel;

/// Bytes of the name fields of llmar_model_info, the terminating NUL included. A longer name is cut between two characters.
pub const LLMAR_NAME_BYTES: usize = 64;

/// Flag of llmar_model_params: recompute the SHA-256 over the tensors while opening, which reads the whole file, and look into all of them.
/// Without it, structure and metadata are checked, and the values of all tensors but the language model's weights and the tokenizer's tables;
/// opening then takes milliseconds.
pub const LLMAR_MODEL_VERIFY: u32 = 1;

/// Flag of llmar_model_params for llmar_model_open_memory: use the caller's memory where it lies instead of a copy. It must start at a
/// multiple of 64, and must stay as it is until the model and every recognizer made from it are freed.
pub const LLMAR_MODEL_BORROW: u32 = 2;

/// Decoding: the labels of highest probability, exactly, by best-first search over their tokens. The default.
pub const LLMAR_DECODING_EXACT: u32 = 0;

/// Decoding: token by token, always the likeliest that still leads to a label. One label comes back, not always the best, and its probability
/// is an estimate.
pub const LLMAR_DECODING_GREEDY: u32 = 1;

/// Scoring: each label by its log-probability in the language model, behind the prompt. The default.
pub const LLMAR_SCORING_LANGUAGE_MODEL: u32 = 0;

/// Scoring: each label by the words of its text alone, without the language model, so that an action that training never saw is recognized by a
/// description of it. A linear map of the checkpoint reads from a clip which of its words the label should have; a label's score is the cosine
/// between these and the words that it has. A probability is softmax(cosine / temperature) over the recognizer's labels, and log_prob is its
/// natural logarithm; the checkpoint's temperature was chosen on actions that its training did not see, and for others in other words
/// probabilities may be too high or too low. Words are cut at white space; case, and signs at their ends, do not count; words that the checkpoint
/// does not know (`llmar info` lists those that it does) are passed over.
pub const LLMAR_SCORING_WORDS: u32 = 1;

/// How a model is opened. NULL or all zero after struct_size: the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_model_params {
    /// sizeof(llmar_model_params)
    pub struct_size: u32,
    /// LLMAR_MODEL_ flags, or-ed.
    pub flags: u32,
    /// Where the model and its recognizers run, NUL-terminated: "cpu", "cuda:0" for the first NVIDIA GPU ("cuda:1", …; an error where it cannot be
    /// used), or "auto" for the first GPU where it can be used and otherwise the CPU, which the log then says with the reason. NULL: "cpu".
    pub device: *const c_char,
    /// Bytes that the model and all its recognizers may allocate for what they keep between calls: buffers and caches, and on a GPU the weights as well.
    /// The mapped checkpoint is not counted. What does not fit fails with LLMAR_ERROR_MEMORY_BUDGET and the bytes it needs; a batch is cut into
    /// passes that fit. 0: no limit.
    pub memory_budget: u64,
}

/// Reads the next bytes of a checkpoint into buf, at most len (above 0).
///
/// Returns how many were read, 0 at the end of the data, or a negative number for a failure. It is called on the thread that opens the
/// model, must return normally (no longjmp, no C++ exception) and must not call llmar_ functions with the handles in use.
pub type llmar_read_fn = Option<unsafe extern "C" fn(user: *mut c_void, buf: *mut c_void, len: usize) -> i64>;

/// Tells how many bytes the reader will give in all, or a negative number if it cannot say.
pub type llmar_size_fn = Option<unsafe extern "C" fn(user: *mut c_void) -> i64>;

/// A source of bytes: an asset inside an archive, a socket, an encrypted file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_reader {
    /// sizeof(llmar_reader)
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Passed to the functions as it is.
    pub user: *mut c_void,
    /// Reads on from where the last call ended.
    pub read: llmar_read_fn,
    /// Total size, called once before the first read. NULL: unknown, the data is read to its end.
    pub size: llmar_size_fn,
}

/// Storage of the language model's matrices: 32-bit floats.
pub const LLMAR_SCHEME_F32: u32 = 1;
/// Storage of the language model's matrices: 16-bit floats.
pub const LLMAR_SCHEME_F16: u32 = 2;
/// Storage of the language model's matrices: 8-bit integers in groups of 32.
pub const LLMAR_SCHEME_Q8: u32 = 3;
/// Storage of the language model's matrices: 4-bit integers in groups of 32.
pub const LLMAR_SCHEME_Q4: u32 = 4;

/// What a model is. Filled by llmar_model_get_info; the caller sets struct_size only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_model_info {
    /// sizeof(llmar_model_info), set by the caller.
    pub struct_size: u32,
    /// Version of the checkpoint format.
    pub format_version: u32,
    /// Size of the checkpoint in bytes.
    pub file_bytes: u64,
    /// Labels that the model was trained for.
    pub label_count: u32,
    /// Action tokens of a clip: what the token buffers of llmar_recognition and llmar_tokenize_clip need at most.
    pub token_count: u32,
    /// Size of the codebook: action tokens are below this.
    pub code_count: u32,
    /// Frames that a clip is resampled to.
    pub frames: u32,
    /// Persons fed to the model, 1 or 2.
    pub persons: u32,
    /// Joints of the model's layout.
    pub joints: u32,
    /// Coordinates that the model was trained on, 2 or 3.
    pub coords: u32,
    /// 1 when later frames never change earlier tokens, else 0.
    pub causal: u32,
    /// LLMAR_SCHEME_ constant.
    pub scheme: u32,
    /// Features of the language model's residual stream.
    pub hidden_size: u32,
    /// Layers of the language model.
    pub layers: u32,
    /// Vocabulary of the language model.
    pub vocab_size: u32,
    /// Scores are divided by this before they become probabilities.
    pub temperature: f32,
    /// Probability below which the best label is not believed; 0 never says unknown.
    pub unknown_below: f32,
    /// Name of the model, NUL-terminated UTF-8.
    pub name: [c_char; LLMAR_NAME_BYTES],
    /// Program that wrote the checkpoint, NUL-terminated UTF-8.
    pub producer: [c_char; LLMAR_NAME_BYTES],
    /// Skeleton layout that the model was trained on, NUL-terminated UTF-8.
    pub layout: [c_char; LLMAR_NAME_BYTES],
    /// Where it runs, NUL-terminated UTF-8: "cpu", or "cuda:0 (name of the GPU)".
    pub device: [c_char; LLMAR_NAME_BYTES],
}

/// Settings of a recognizer. NULL or all zero after struct_size: the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_recognizer_params {
    /// sizeof(llmar_recognizer_params)
    pub struct_size: u32,
    /// Threads that work on a call, 0 to 256. 0 and 1: the caller's thread alone. More: workers that llmar_recognizer_free ends. The answers
    /// do not depend on it, bit for bit.
    pub threads: u32,
    /// Labels of an answer, best first; 0 for 5. At least the number of labels gives the full distribution, and costs more.
    pub top_k: u32,
    /// The answer is "unknown" when the best probability is below this, above 0 to 1. 0: the model's own threshold, or with LLMAR_SCORING_WORDS,
    /// for which it was not chosen, never unknown. Negative: never unknown.
    pub unknown_below: f32,
    /// LLMAR_DECODING_ constant: how the answer is found. With LLMAR_SCORING_WORDS, LLMAR_DECODING_EXACT.
    pub decoding: u32,
    /// LLMAR_SCORING_ constant: what labels are told by.
    pub scoring: u32,
}

/// Limits of one call. NULL or all zero after struct_size: none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_call_params {
    /// sizeof(llmar_call_params)
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The call gives up when so many nanoseconds have passed since it began; 0: never.
    pub deadline_ns: u64,
    /// Stops the call when raised; NULL: none.
    pub cancel: *const llmar_cancel,
}

/// A skeleton clip: T frames of M persons with V joints of C coordinates each. The library only reads it, and only during the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_clip {
    /// sizeof(llmar_clip). In an array, the same in every element.
    pub struct_size: u32,
    /// C: 2 (pixels) or 3 (metres).
    pub coords: u32,
    /// T * M * V * C floats: joints[((t * M + m) * V + v) * C + c]. A joint with a NaN or infinite coordinate counts as invalid.
    pub joints: *const f32,
    /// T, 1 to 65536.
    pub frames: usize,
    /// M, 1 to 16.
    pub persons: usize,
    /// V, as many as the layout has.
    pub joint_count: usize,
    /// Name of a built-in or registered layout, UTF-8; "kinect1_20 without spine, left_foot" for one with fewer joints.
    pub layout: *const c_char,
    /// T times in nanoseconds, strictly increasing, from any zero. NULL: frames are evenly spaced.
    pub timestamps_ns: *const u64,
    /// T * M * V bytes: 0 marks an invalid joint. NULL: every joint with finite coordinates is valid.
    pub valid: *const u8,
    /// Frames a second when timestamps_ns is NULL; 0 if unknown. Must be 0 with timestamps.
    pub fps: f32,
    /// Must be 0.
    pub reserved: u32,
}

/// One label of an answer. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct llmar_label_score {
    /// Index into the recognizer's labels.
    pub label: u32,
    /// Exact natural logarithm of p(label, end of answer | prompt); with LLMAR_SCORING_WORDS, of probability.
    pub log_prob: f32,
    /// Calibrated probability over all labels of the recognizer, 0 to 1. Exact when the recognizer's top_k takes in all labels; else the middle of
    /// an interval of at most .01 that is known to hold it. In events of a stream smoothed, of an interval of llmar_stream_params.tolerance.
    pub probability: f32,
}

/// An answer. The caller sets struct_size, the two buffers and their capacities; the rest is written by a call that succeeds and is left as
/// it is by one that fails.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct llmar_recognition {
    /// sizeof(llmar_recognition), set by the caller. In an array, the same in every element.
    pub struct_size: u32,
    /// Out: 1 when the best probability is below the threshold, else 0.
    pub unknown: u32,
    /// In: room for the best labels. NULL with capacity 0: not wanted.
    pub top: *mut llmar_label_score,
    /// In: elements of top. Fewer than the recognizer's top_k: the best so many are written.
    pub top_capacity: usize,
    /// Out: elements written to top, best first.
    pub top_count: usize,
    /// In: room for the action tokens. NULL with capacity 0: not wanted.
    pub tokens: *mut u16,
    /// In: elements of tokens; when not 0, at least token_count of llmar_model_info.
    pub token_capacity: usize,
    /// Out: elements written to tokens.
    pub token_count: usize,
    /// Out: wall time from skeleton to tokens, in nanoseconds. This and the next four are of the whole batch.
    pub tokenize_ns: u64,
    /// Out: wall time of the prompt in the language model, in nanoseconds.
    pub prompt_ns: u64,
    /// Out: wall time of label scoring, in nanoseconds.
    pub label_ns: u64,
    /// Out: rows (token positions) that the language model ran for prompts.
    pub prompt_rows: u64,
    /// Out: rows that the language model ran for labels.
    pub label_rows: u64,
    /// Out: share of the joints that the model needs, over all frames, that were missing and filled, 0 to 1.
    pub missing: f32,
    /// Out: 0.
    pub reserved: u32,
}

/// States the sizes that each struct has had on 64-bit machines; the last is today's. No struct has grown yet, so the others need no table.
macro_rules! versioned {
    ($($name:ident: $sizes:expr;)*) => {$(
        // SAFETY: repr(C), `struct_size: u32` first, all fields integers, floats, pointers or optional functions, for which zero is a value.
        unsafe impl Versioned for $name {
            const SIZES: &'static [usize] = if cfg!(target_pointer_width = "64") { &$sizes } else { &[size_of::<$name>()] };
        }

        /// All zero but for `struct_size`.
        impl Default for $name {
            fn default() -> Self {
                Self { struct_size: size_of::<Self>() as u32, ..zeroed() }
            }
        }
    )*};
}

pub(super) use versioned;

versioned! {
    llmar_model_params: [8, 24];
    llmar_reader: [32];
    llmar_model_info: [264, 328];
    llmar_recognizer_params: [20, 24];
    llmar_call_params: [24];
    llmar_clip: [72];
    llmar_recognition: [104];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_size_is_todays() {
        fn last<T: Versioned>() -> bool {
            T::SIZES.last() == Some(&size_of::<T>()) && T::SIZES.is_sorted()
        }
        assert!(last::<llmar_model_params>() && last::<llmar_reader>() && last::<llmar_model_info>());
        assert!(last::<llmar_recognizer_params>() && last::<llmar_call_params>() && last::<llmar_clip>() && last::<llmar_recognition>());
    }
}
