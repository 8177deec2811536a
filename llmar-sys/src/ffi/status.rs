//! Status codes: the only place that turns an error into a number.

use std::ffi::{CStr, c_char};

use crate::error::{Error, Missing};

/// Result of a call: LLMAR_OK, or one of the negative LLMAR_ERROR_ constants. Later versions may add constants, never change one.
pub type llmar_status = i32;

/// The call did what it says.
pub const LLMAR_OK: llmar_status = 0;
/// A pointer that must not be NULL is NULL.
pub const LLMAR_ERROR_NULL_POINTER: llmar_status = -1;
/// struct_size is not the size of a version of that struct.
pub const LLMAR_ERROR_STRUCT_SIZE: llmar_status = -2;
/// A text argument is not UTF-8.
pub const LLMAR_ERROR_INVALID_UTF8: llmar_status = -3;
/// A constant or flag that this library does not know.
pub const LLMAR_ERROR_INVALID_ENUM: llmar_status = -4;
/// An argument is outside its documented range.
pub const LLMAR_ERROR_INVALID_ARGUMENT: llmar_status = -5;
/// The caller's buffer cannot hold the result.
pub const LLMAR_ERROR_BUFFER_TOO_SMALL: llmar_status = -6;
/// The handle belongs to one thread at a time and another call is using it, or a log callback made a call that it must not make.
pub const LLMAR_ERROR_IN_USE: llmar_status = -7;
/// The library failed inside; this is a bug in it. The handle is poisoned: free it and make a new one. Other handles are not touched.
pub const LLMAR_ERROR_PANIC: llmar_status = -8;
/// An earlier call on this handle ended with LLMAR_ERROR_PANIC. Only freeing it is useful.
pub const LLMAR_ERROR_POISONED: llmar_status = -9;
/// There is not enough memory.
pub const LLMAR_ERROR_OUT_OF_MEMORY: llmar_status = -10;
/// The caller's read callback failed, or broke its contract.
pub const LLMAR_ERROR_READER: llmar_status = -11;
/// A file could not be opened or read.
pub const LLMAR_ERROR_IO: llmar_status = -20;
/// A checkpoint is damaged or not a checkpoint.
pub const LLMAR_ERROR_FORMAT: llmar_status = -21;
/// A checkpoint of a format version that this library does not read.
pub const LLMAR_ERROR_VERSION: llmar_status = -22;
/// A checkpoint's tensors do not match their SHA-256.
pub const LLMAR_ERROR_CHECKSUM: llmar_status = -23;
/// A count or size is beyond what this library accepts.
pub const LLMAR_ERROR_LIMIT: llmar_status = -24;
/// Data has another shape than it must have, for example another number of joints than its layout.
pub const LLMAR_ERROR_SHAPE: llmar_status = -25;
/// Sound, but it needs something that this library does not do.
pub const LLMAR_ERROR_UNSUPPORTED: llmar_status = -26;
/// A layout that is neither built in nor registered.
pub const LLMAR_ERROR_UNKNOWN_LAYOUT: llmar_status = -30;
/// A clip in which nothing can be recognised: no frame, or no valid joint that the model needs.
pub const LLMAR_ERROR_EMPTY_CLIP: llmar_status = -31;
/// The cancel token was raised.
pub const LLMAR_ERROR_CANCELLED: llmar_status = -40;
/// The deadline passed before the result was there.
pub const LLMAR_ERROR_DEADLINE_EXCEEDED: llmar_status = -41;

/// No NVIDIA driver is installed, or it does not start.
pub const LLMAR_ERROR_NO_DRIVER: llmar_status = -50;
/// The NVIDIA driver is older than this library needs.
pub const LLMAR_ERROR_OLD_DRIVER: llmar_status = -51;
/// There is no GPU of that number.
pub const LLMAR_ERROR_NO_GPU: llmar_status = -52;
/// The GPU's architecture is not supported.
pub const LLMAR_ERROR_GPU_ARCHITECTURE: llmar_status = -53;
/// The library holds no kernels for the GPU's architecture, and the run-time compiler that would make them is not installed.
pub const LLMAR_ERROR_NO_KERNELS: llmar_status = -54;
/// The GPU failed. This process can use nothing on it any more: free the model and its recognizers, and go on on the CPU or in a new process.
pub const LLMAR_ERROR_DEVICE_FAULT: llmar_status = -55;
/// The memory budget of the model has too little left; llmar_last_error says how much is needed.
pub const LLMAR_ERROR_MEMORY_BUDGET: llmar_status = -56;

/// A frame that is older than the newest of its body.
pub const LLMAR_ERROR_BACKWARD_TIME: llmar_status = -60;
/// A second frame of one body with the same timestamp.
pub const LLMAR_ERROR_DUPLICATE_TIME: llmar_status = -61;
/// A frame whose timestamp lies too far beyond the newest to be believed at once.
pub const LLMAR_ERROR_FUTURE_TIME: llmar_status = -62;
/// A new body, for which the stream has no place left.
pub const LLMAR_ERROR_BODY_LIMIT: llmar_status = -63;
/// A body that the stream does not know.
pub const LLMAR_ERROR_UNKNOWN_BODY: llmar_status = -64;
/// As many frames wait as may: poll, then push the frame again.
pub const LLMAR_ERROR_QUEUE_FULL: llmar_status = -65;
/// A saved state of another model or other settings.
pub const LLMAR_ERROR_FOREIGN_STATE: llmar_status = -66;

/// Every status with its short text.
const TEXTS: &[(llmar_status, &CStr)] = &[
    (LLMAR_OK, c"ok"),
    (LLMAR_ERROR_NULL_POINTER, c"null pointer"),
    (LLMAR_ERROR_STRUCT_SIZE, c"wrong struct_size"),
    (LLMAR_ERROR_INVALID_UTF8, c"text is not UTF-8"),
    (LLMAR_ERROR_INVALID_ENUM, c"unknown constant or flag"),
    (LLMAR_ERROR_INVALID_ARGUMENT, c"argument out of range"),
    (LLMAR_ERROR_BUFFER_TOO_SMALL, c"buffer too small"),
    (LLMAR_ERROR_IN_USE, c"handle in use by another call"),
    (LLMAR_ERROR_PANIC, c"internal error"),
    (LLMAR_ERROR_POISONED, c"handle unusable after an internal error"),
    (LLMAR_ERROR_OUT_OF_MEMORY, c"out of memory"),
    (LLMAR_ERROR_READER, c"read callback failed"),
    (LLMAR_ERROR_IO, c"file cannot be read"),
    (LLMAR_ERROR_FORMAT, c"damaged or foreign file"),
    (LLMAR_ERROR_VERSION, c"unsupported checkpoint version"),
    (LLMAR_ERROR_CHECKSUM, c"checksum mismatch"),
    (LLMAR_ERROR_LIMIT, c"beyond a limit"),
    (LLMAR_ERROR_SHAPE, c"wrong shape"),
    (LLMAR_ERROR_UNSUPPORTED, c"not supported"),
    (LLMAR_ERROR_UNKNOWN_LAYOUT, c"unknown skeleton layout"),
    (LLMAR_ERROR_EMPTY_CLIP, c"nothing to recognise in the clip"),
    (LLMAR_ERROR_CANCELLED, c"cancelled"),
    (LLMAR_ERROR_DEADLINE_EXCEEDED, c"deadline exceeded"),
    (LLMAR_ERROR_NO_DRIVER, c"no NVIDIA driver"),
    (LLMAR_ERROR_OLD_DRIVER, c"NVIDIA driver too old"),
    (LLMAR_ERROR_NO_GPU, c"no such GPU"),
    (LLMAR_ERROR_GPU_ARCHITECTURE, c"GPU architecture not supported"),
    (LLMAR_ERROR_NO_KERNELS, c"no kernels for the GPU"),
    (LLMAR_ERROR_DEVICE_FAULT, c"GPU failed"),
    (LLMAR_ERROR_MEMORY_BUDGET, c"beyond the memory budget"),
    (LLMAR_ERROR_BACKWARD_TIME, c"time runs backward"),
    (LLMAR_ERROR_DUPLICATE_TIME, c"time stands twice"),
    (LLMAR_ERROR_FUTURE_TIME, c"time too far ahead"),
    (LLMAR_ERROR_BODY_LIMIT, c"too many bodies"),
    (LLMAR_ERROR_UNKNOWN_BODY, c"unknown body"),
    (LLMAR_ERROR_QUEUE_FULL, c"queue full"),
    (LLMAR_ERROR_FOREIGN_STATE, c"state of another model or stream"),
];

/// Short English text of a status, for example "wrong shape". Static, never NULL, not to be freed; "unknown status" for any other number.
/// What exactly went wrong is in llmar_last_error.
///
/// Threads: any. Errors: none.
#[unsafe(no_mangle)]
pub extern "C" fn llmar_status_string(status: llmar_status) -> *const c_char {
    let known = TEXTS.iter().find(|(number, _)| *number == status);
    known.map_or(c"unknown status", |(_, text)| text).as_ptr()
}

/// Why an entry point fails: the status that it returns and the detail for `llmar_last_error`.
#[derive(Debug)]
pub(super) struct Failure {
    pub status: llmar_status,
    pub detail: String,
}

impl Failure {
    pub fn new(status: llmar_status, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { status: status_of(&error), detail: error.to_string() }
    }
}

/// One status for every variant: a new variant does not compile until it has one.
fn status_of(error: &Error) -> llmar_status {
    match error {
        Error::Io { .. } => LLMAR_ERROR_IO,
        Error::InvalidArgument { .. } => LLMAR_ERROR_INVALID_ARGUMENT,
        Error::Shape { .. } => LLMAR_ERROR_SHAPE,
        Error::Format { .. } => LLMAR_ERROR_FORMAT,
        Error::Version { .. } => LLMAR_ERROR_VERSION,
        Error::Checksum { .. } => LLMAR_ERROR_CHECKSUM,
        Error::Limit { .. } => LLMAR_ERROR_LIMIT,
        Error::OutOfMemory { .. } => LLMAR_ERROR_OUT_OF_MEMORY,
        Error::Budget { .. } => LLMAR_ERROR_MEMORY_BUDGET,
        Error::NoDevice { missing, .. } => match missing {
            Missing::Feature => LLMAR_ERROR_UNSUPPORTED,
            Missing::Driver => LLMAR_ERROR_NO_DRIVER,
            Missing::NewerDriver => LLMAR_ERROR_OLD_DRIVER,
            Missing::Gpu => LLMAR_ERROR_NO_GPU,
            Missing::Architecture => LLMAR_ERROR_GPU_ARCHITECTURE,
            Missing::Kernels => LLMAR_ERROR_NO_KERNELS,
        },
        Error::DeviceFault { .. } => LLMAR_ERROR_DEVICE_FAULT,
        Error::UnknownLayout { .. } => LLMAR_ERROR_UNKNOWN_LAYOUT,
        Error::EmptyClip { .. } => LLMAR_ERROR_EMPTY_CLIP,
        Error::BackwardTime { .. } => LLMAR_ERROR_BACKWARD_TIME,
        Error::DuplicateTime { .. } => LLMAR_ERROR_DUPLICATE_TIME,
        Error::FutureTime { .. } => LLMAR_ERROR_FUTURE_TIME,
        Error::BodyLimit { .. } => LLMAR_ERROR_BODY_LIMIT,
        Error::UnknownBody { .. } => LLMAR_ERROR_UNKNOWN_BODY,
        Error::QueueFull { .. } => LLMAR_ERROR_QUEUE_FULL,
        Error::ForeignState { .. } => LLMAR_ERROR_FOREIGN_STATE,
        Error::WorkerFailed { .. } => LLMAR_ERROR_POISONED,
        Error::Clip { source, .. } => status_of(source),
        Error::Cancelled => LLMAR_ERROR_CANCELLED,
        Error::DeadlineExceeded => LLMAR_ERROR_DEADLINE_EXCEEDED,
        Error::Unsupported { .. } => LLMAR_ERROR_UNSUPPORTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_unique() {
        for (i, (number, text)) in TEXTS.iter().enumerate() {
            assert!(*number <= 0);
            assert!(TEXTS[..i].iter().all(|(n, t)| n != number && t != text), "{text:?} stands twice");
        }
    }

    #[test]
    fn unknown_status_has_a_text() {
        // SAFETY: the function returns static NUL-terminated texts.
        let text = |status| unsafe { CStr::from_ptr(llmar_status_string(status)) };
        assert_eq!(text(LLMAR_ERROR_SHAPE), c"wrong shape");
        for odd in [1, -12, i32::MIN, i32::MAX] {
            assert_eq!(text(odd), c"unknown status");
        }
    }
}
