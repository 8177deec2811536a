//! Time: from any number of frames at any times to the model's frames, by linear interpolation.

use serde::{Deserialize, Serialize};

/// How a clip's time span becomes the model's frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Resample {
    /// First frame to first, last to last.
    Stretch,
    /// A fixed rate in frames a second; a longer clip keeps its middle, a shorter one is held at both ends.
    Rate {
        /// Frames a second.
        fps: f32,
    },
}
