//! How a caller stops a long call: a cancel token and a deadline, both looked at once per LLaMA layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};

/// A flag that any thread may raise; clones share it.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks every call that holds this token to return [`Error::Cancelled`] soon.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Makes the token usable again.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether [`request`](Self::request) was called since the last [`clear`](Self::clear).
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Limits of one call. The default never stops it.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// Raised from any thread to stop the call.
    pub cancel: Option<CancelToken>,
    /// The call gives up once this instant has passed.
    pub deadline: Option<Instant>,
}

impl Control {
    /// `Err` once the caller wants the call to stop. Cheap: one atomic load and, with a deadline, one clock read.
    pub fn check(&self) -> Result<()> {
        if self.cancel.as_ref().is_some_and(CancelToken::is_requested) {
            return Err(Error::Cancelled);
        }
        if self.deadline.is_some_and(|at| Instant::now() >= at) {
            return Err(Error::DeadlineExceeded);
        }
        Ok(())
    }
}
