//! Many clips in one pass: they share the prompt's prefix and are packed without padding.

use std::time::Instant;

use super::clip::{Recognition, Recognizer, Timings};
use super::scorer::nanoseconds;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::skeleton::Clip;

/// An error of one clip of several. That the caller stopped the call is no clip's.
fn of_clip(index: usize, source: Error) -> Error {
    match source {
        Error::Cancelled | Error::DeadlineExceeded => source,
        other => Error::Clip { index, source: Box::new(other) },
    }
}

impl Recognizer {
    /// Recognises clips together; the answers equal those of [`recognize`](Self::recognize) bit for bit. An unusable clip fails the whole call,
    /// and [`Error::Clip`] names its index.
    pub fn recognize_batch(&mut self, clips: &[Clip<'_>], control: &Control) -> Result<Vec<Recognition>> {
        let start = Instant::now();
        let mut read = Vec::with_capacity(clips.len());
        for (index, clip) in clips.iter().enumerate() {
            read.push(self.tokenize(clip, control).map_err(|source| of_clip(index, source))?);
        }
        let mut timings = Timings { tokenize_ns: nanoseconds(start), ..Timings::default() };
        let sentences: Vec<_> = read.iter().map(|(sentence, _)| sentence).collect();
        let rankings = self.rank(&sentences, control, &mut timings)?;
        let recognition = |((sentence, missing), ranking)| self.recognition(sentence, missing, ranking, timings);
        Ok(read.into_iter().zip(rankings).map(recognition).collect())
    }
}
