//! Many clips in one pass: they share the prompt's prefix and are packed without padding.

use super::clip::{Recognition, Recognizer};
use crate::control::Control;
use crate::error::Result;
use crate::skeleton::Clip;

impl Recognizer {
    /// Recognises clips together; the answers equal those of [`recognize`](Self::recognize) bit for bit. An unusable clip fails the whole call,
    /// and the error names its index.
    pub fn recognize_batch(&mut self, _clips: &[Clip<'_>], _control: &Control) -> Result<Vec<Recognition>> {
        todo!()
    }
}
