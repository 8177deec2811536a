//! The one log sink. Without it, nothing is written anywhere.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::fence::fence;
use super::status::{Failure, LLMAR_ERROR_IN_USE, LLMAR_ERROR_INVALID_ENUM, llmar_status};

/// How important a message is; lower is more important.
pub type llmar_log_level = u32;

/// The library failed inside.
pub const LLMAR_LOG_ERROR: llmar_log_level = 1;
/// Something works, but not as asked.
pub const LLMAR_LOG_WARN: llmar_log_level = 2;
/// Rare events: a model was opened.
pub const LLMAR_LOG_INFO: llmar_log_level = 3;
/// Every call that fails, with its detail.
pub const LLMAR_LOG_DEBUG: llmar_log_level = 4;

/// Receives one message: UTF-8, one line, without a line end, valid only during the call.
///
/// It is called on the thread whose call has something to say, possibly on several threads at once. It must return normally (no longjmp,
/// no C++ exception). It may call this library, except llmar_set_log; messages that such calls would give are dropped.
pub type llmar_log_fn = Option<unsafe extern "C" fn(user: *mut c_void, level: llmar_log_level, message: *const c_char)>;

struct Sink {
    function: unsafe extern "C" fn(*mut c_void, llmar_log_level, *const c_char),
    user: *mut c_void,
}

// SAFETY: the header demands a function and a `user` that may be used from any thread.
unsafe impl Send for Sink {}
// SAFETY: as above, and from several at once.
unsafe impl Sync for Sink {}

static SINK: RwLock<Option<Sink>> = RwLock::new(None);
/// The sink's level, 0 without a sink: what keeps an unwanted message to one relaxed load.
static LEVEL: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static IN_SINK: Cell<bool> = const { Cell::new(false) };
}

/// Sets the process-wide receiver of log messages. Before the first call, and after one with a NULL function, there is none and the library
/// is silent; it never writes to stdout or stderr.
///
/// max_level: the least important level to receive, 0 for LLMAR_LOG_INFO. When this returns, the previous function is not running on any
/// thread and will not be called again, so what its user pointer points to may be freed.
///
/// Threads: any, but not from inside a log function. Errors: LLMAR_ERROR_INVALID_ENUM for an unknown level, LLMAR_ERROR_IN_USE from
/// inside a log function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_set_log(function: llmar_log_fn, user: *mut c_void, max_level: llmar_log_level) -> llmar_status {
    fence("llmar_set_log", || {
        let level = match max_level {
            0 => LLMAR_LOG_INFO,
            LLMAR_LOG_ERROR..=LLMAR_LOG_DEBUG => max_level,
            other => return Err(Failure::new(LLMAR_ERROR_INVALID_ENUM, format!("max_level: expected 0 to 4, got {other}"))),
        };
        if IN_SINK.get() {
            return Err(Failure::new(LLMAR_ERROR_IN_USE, "the log function cannot be replaced from inside itself"));
        }
        // The lock cannot be poisoned in a harmful way: nothing panics between taking and leaving it.
        let mut sink = SINK.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *sink = function.map(|function| Sink { function, user });
        LEVEL.store(if sink.is_some() { level } else { 0 }, Ordering::Relaxed);
        Ok(())
    })
}

/// Sends a message to the sink, if there is one that wants it; the text is only made then.
pub(super) fn log(level: llmar_log_level, message: impl FnOnce() -> String) {
    if level > LEVEL.load(Ordering::Relaxed) || IN_SINK.get() {
        return;
    }
    // A NUL or line break in a message (from a file's name, say) would cut it.
    let text = message().replace('\0', "\u{FFFD}").replace(['\n', '\r'], " ");
    let Ok(text) = CString::new(text) else { return };
    IN_SINK.set(true);
    let sink = SINK.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(Sink { function, user }) = &*sink {
        // SAFETY: the caller of `llmar_set_log` gave a function for exactly this call; the read lock keeps it set until it returns.
        unsafe { function(*user, level, text.as_ptr()) };
    }
    drop(sink);
    IN_SINK.set(false);
}
