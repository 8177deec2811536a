//! Cancel tokens.

use super::args;
use super::fence::{fence, fence_void};
use super::status::llmar_status;
use crate::control::CancelToken;

/// A flag that stops calls: raised from any thread, looked at by every call that was given it (llmar_call_params). Opaque.
#[derive(Debug)]
pub struct llmar_cancel {
    pub(super) token: CancelToken,
}

/// Makes a cancel token that is not raised. Free it with llmar_cancel_free.
///
/// Threads: any. Errors: LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_cancel_create(out: *mut *mut llmar_cancel) -> llmar_status {
    fence("llmar_cancel_create", || {
        let out = args::out(out, "out")?;
        // SAFETY: `out` was checked; the caller gives room for one pointer there.
        unsafe { out.write(Box::into_raw(Box::new(llmar_cancel { token: CancelToken::default() }))) };
        Ok(())
    })
}

/// Raises the token: calls that hold it return LLMAR_ERROR_CANCELLED within the time of preparing one clip or one layer of the language model, and so does every
/// later call that is given it until llmar_cancel_clear.
///
/// Threads: any, at any time before llmar_cancel_free. Errors: LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_cancel_request(cancel: *const llmar_cancel) -> llmar_status {
    fence("llmar_cancel_request", || {
        // SAFETY: a token from `llmar_cancel_create` that is not freed yet, or NULL.
        let cancel = unsafe { args::borrow(cancel, "cancel") }?;
        cancel.token.request();
        Ok(())
    })
}

/// Lowers the token, so that it can be used again.
///
/// Threads: any. Errors: LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_cancel_clear(cancel: *const llmar_cancel) -> llmar_status {
    fence("llmar_cancel_clear", || {
        // SAFETY: a token from `llmar_cancel_create` that is not freed yet, or NULL.
        let cancel = unsafe { args::borrow(cancel, "cancel") }?;
        cancel.token.clear();
        Ok(())
    })
}

/// Frees a cancel token; NULL is allowed. A call that was given it and has begun may still be running: it keeps what it needs, and can no
/// longer be cancelled.
///
/// Threads: any, but no other function may be called with this token at the same time or later. Errors: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_cancel_free(cancel: *mut llmar_cancel) {
    fence_void("llmar_cancel_free", || {
        if !cancel.is_null() {
            // SAFETY: made by `Box::into_raw` in `llmar_cancel_create`, and freed once.
            drop(unsafe { Box::from_raw(cancel) });
        }
    });
}
