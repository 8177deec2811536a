//! Many clips in one pass: they share the prompt's prefix and are packed without padding.

use std::time::Instant;

use super::clip::{Recognition, Recognizer};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::skeleton::Clip;

/// An error of one clip of several. That the caller stopped the call is no clip's.
pub(super) fn of_clip(index: usize, source: Error) -> Error {
    match source {
        Error::Cancelled | Error::DeadlineExceeded => source,
        other => Error::Clip { index, source: Box::new(other) },
    }
}

impl Recognizer {
    /// Recognises clips together, answers in order. On the CPU they equal those of [`recognize`](Self::recognize) bit for bit; on a GPU many rows run
    /// through other kernels than few, so scores may differ by rounding. An unusable clip fails the whole call, and [`Error::Clip`] names its index.
    pub fn recognize_batch(&mut self, clips: &[Clip<'_>], control: &Control) -> Result<Vec<Recognition>> {
        let start = Instant::now();
        let read = self.tokenize_all(clips, control, of_clip)?;
        self.answered(read, start, control)
    }
}
