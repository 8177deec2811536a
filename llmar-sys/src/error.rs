//! The one error type of the runtime. Every variant carries what was expected and what came.

use std::path::PathBuf;

/// Result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. The C boundary maps each variant to one status code (see `ffi::status`).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read, written, synced or renamed.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file in question.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An argument of a call is outside its documented range.
    #[error("{what}: expected {expected}, got {got}")]
    InvalidArgument {
        /// The argument's name.
        what: &'static str,
        /// The range or form it must have.
        expected: String,
        /// What came.
        got: String,
    },
    /// A buffer or tensor has another shape than the one it is used with.
    #[error("{what}: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// The tensor's name.
        what: String,
        /// Shape that fits.
        expected: Vec<usize>,
        /// Shape that came.
        got: Vec<usize>,
    },
    /// A checkpoint, clip or model file is damaged or not of its kind.
    #[error("{what}: {detail}")]
    Format {
        /// File, tensor or field.
        what: String,
        /// What was expected there and what stands there.
        detail: String,
    },
    /// A checkpoint of a format version that this library does not read.
    #[error("checkpoint format version {got} cannot be read: this library reads version {expected}")]
    Version {
        /// The version that this library reads.
        expected: u32,
        /// The version in the file.
        got: u32,
    },
    /// The SHA-256 over the tensors differs from the one in the metadata.
    #[error("checksum mismatch: the metadata says {expected}, the tensors give {got}")]
    Checksum {
        /// Hex digest in the metadata.
        expected: String,
        /// Hex digest of what is there.
        got: String,
    },
    /// A count or size beyond what this library accepts.
    #[error("{what} is {got}, the limit is {limit}")]
    Limit {
        /// The count's name.
        what: &'static str,
        /// Largest accepted value.
        limit: u64,
        /// What came.
        got: u64,
    },
    /// There is no memory for a buffer.
    #[error("no memory for {what}: {bytes} bytes")]
    OutOfMemory {
        /// What it would have held.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// The caller's memory budget has too little left.
    #[error("the memory budget of {budget} bytes has {left} left, {what} needs {bytes}")]
    Budget {
        /// What it would have held.
        what: &'static str,
        /// Bytes it needs.
        bytes: u64,
        /// Bytes left.
        left: u64,
        /// The budget.
        budget: u64,
    },
    /// The device asked for is not there or cannot be used by this library.
    #[error("device `{device}` cannot be used: {detail}")]
    NoDevice {
        /// The device asked for: `cuda:0`.
        device: String,
        /// Which part is missing.
        missing: Missing,
        /// What was looked for, and what is there.
        detail: String,
    },
    /// A call of a device failed. After a fault of the device this process can use nothing on it any more.
    #[error("device `{device}` failed in {call}: {detail}")]
    DeviceFault {
        /// The device.
        device: String,
        /// What it was doing.
        call: &'static str,
        /// What its driver says.
        detail: String,
    },
    /// A skeleton layout that is neither built in nor registered.
    #[error("unknown skeleton layout `{name}`")]
    UnknownLayout {
        /// The name that was looked up.
        name: String,
    },
    /// A clip in which nothing can be recognised: no frame, or no valid joint that the model needs.
    #[error("clip cannot be used: {detail}")]
    EmptyClip {
        /// Which requirement it misses.
        detail: String,
    },
    /// A frame that is not later than the newest of its body.
    #[error("body {body}: expected a time after {newest_ns} ns, got {got_ns} ns")]
    BackwardTime {
        /// Whose frame.
        body: u64,
        /// Time of its newest frame.
        newest_ns: u64,
        /// What came.
        got_ns: u64,
    },
    /// A second frame of one body at one time.
    #[error("body {body}: a second frame at {got_ns} ns")]
    DuplicateTime {
        /// Whose frame.
        body: u64,
        /// What came twice.
        got_ns: u64,
    },
    /// A frame whose time lies too far beyond the newest to be believed at once.
    #[error("body {body}: {got_ns} ns is more than {limit_ns} ns beyond the newest frame's {newest_ns} ns")]
    FutureTime {
        /// Whose frame.
        body: u64,
        /// Time of the stream's newest frame.
        newest_ns: u64,
        /// Largest step that is believed at once.
        limit_ns: u64,
        /// What came.
        got_ns: u64,
    },
    /// A body for which a stream has no place left.
    #[error("body {body}: all {limit} places are taken")]
    BodyLimit {
        /// Whose frame.
        body: u64,
        /// Places that the stream has.
        limit: usize,
    },
    /// A body that a stream does not know.
    #[error("body {body} is not known")]
    UnknownBody {
        /// What was asked for.
        body: u64,
    },
    /// As many frames wait as may.
    #[error("{limit} frames wait already")]
    QueueFull {
        /// Frames that may wait.
        limit: usize,
    },
    /// A saved state of another model or other settings than the stream has.
    #[error("saved state: expected {what} {expected}, got {got}")]
    ForeignState {
        /// What differs.
        what: &'static str,
        /// What the stream has.
        expected: String,
        /// What the state has.
        got: String,
    },
    /// A stream's worker ended with an internal error.
    #[error("the stream's worker has failed: {detail}")]
    WorkerFailed {
        /// How.
        detail: String,
    },
    /// One clip of several is at fault.
    #[error("clip {index}: {source}")]
    Clip {
        /// Index into the clips of the call.
        index: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The caller's cancel token was raised.
    #[error("cancelled by the caller")]
    Cancelled,
    /// The caller's deadline passed before the result was there.
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// A file is sound but needs something that this build or library does not do.
    #[error("{what} is not supported: {detail}")]
    Unsupported {
        /// The feature.
        what: String,
        /// What is supported instead.
        detail: String,
    },
}

/// What a GPU lacks to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// This library was built without CUDA.
    Feature,
    /// No CUDA driver is installed, or it does not start.
    Driver,
    /// The driver is older than this library needs.
    NewerDriver,
    /// There is no GPU of this number.
    Gpu,
    /// The GPU's architecture is not supported.
    Architecture,
    /// No compiled kernels for the GPU's architecture, and no compiler to make them.
    Kernels,
}

impl Error {
    /// Shorthand for [`Error::Format`].
    pub fn format(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Format { what: what.into(), detail: detail.into() }
    }

    /// Shorthand for [`Error::InvalidArgument`].
    pub fn argument(what: &'static str, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::InvalidArgument { what, expected: expected.into(), got: got.to_string() }
    }

    /// Shorthand for [`Error::Io`], for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
