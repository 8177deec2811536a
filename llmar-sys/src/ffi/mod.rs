//! The C ABI: the only `extern "C"` of this crate. `include/llmar.h` is generated from this module's doc comments, so these speak to C
//! programmers.
//!
//! How it is built: `fence` wraps every entry (panics, last error), `args` is the only place that checks and reads a caller's pointers,
//! `status` the only place that turns an [`Error`](crate::Error) into a number, `types` holds every struct that crosses the boundary. The
//! other files hold one family of functions each.
//!
//! Handles are opaque. `llmar_model` lies in an `Arc`; `llmar_recognizer` and `llmar_stream` lock themselves for the time of a call, so that a second thread gets
//! `LLMAR_ERROR_IN_USE` and not a data race. A panic poisons the handle it happened in.

#![expect(non_camel_case_types, reason = "the types carry the names of the C header")]
#![expect(clippy::missing_safety_doc, reason = "the doc comments become the C header, which states the rules for pointers once, for C")]

mod args;
mod cancel;
mod fence;
mod last_error;
mod layout;
mod log;
mod model;
mod recognizer;
mod status;
mod stream;
mod stream_types;
mod types;
mod version;

pub use cancel::*;
pub use last_error::llmar_last_error;
pub use layout::*;
pub use log::*;
pub use model::*;
pub use recognizer::*;
pub use status::*;
pub use stream::*;
pub use stream_types::*;
pub use types::*;
pub use version::*;
