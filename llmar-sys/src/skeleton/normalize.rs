//! From a clip to the encoder's input.

use serde::{Deserialize, Serialize};

use super::clip::Clip;
use super::resample::Resample;
use crate::error::Result;

/// What stands between a caller's clip and the encoder. Part of a checkpoint; the trainer uses the same struct and code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Layout the model was trained on; clips in other layouts are mapped to it by joint name.
    pub layout: String,
    /// Joint names of that layout, as a check that both sides mean the same.
    pub joints: Vec<String>,
    /// Persons fed to the model, 1 or 2, most moving first; an absent second person is zero.
    pub persons: usize,
    /// 2 or 3 coordinates.
    pub coords: usize,
    /// Frames fed to the encoder.
    pub frames: usize,
    /// How a clip's time becomes `frames`.
    pub resample: Resample,
    /// Joint at the origin.
    pub root: String,
    /// What is subtracted.
    pub centre: Centre,
    /// Turn about the vertical.
    pub heading: Heading,
    /// Size.
    pub scale: Scale,
    /// Append velocities x[t+1] − x[t] (last frame zero) after the positions.
    pub velocities: bool,
    /// Mean position subtracted, [persons · joints · coords].
    pub mean: Vec<f32>,
    /// Positions are divided by this after the mean is subtracted; above zero.
    pub position_spread: f32,
    /// Velocities are divided by this; above zero.
    pub velocity_spread: f32,
}

/// What is subtracted from every joint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Centre {
    /// The root of the first valid frame.
    FirstFrame,
    /// Horizontally (x, z) the root of the same frame, vertically (y) the root of the first valid frame: walking on the spot and walking
    /// ahead look alike.
    FloorPerFrame,
}

/// Turn about the vertical (y) axis, for 3D clips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heading {
    /// As it comes.
    Keep,
    /// The line from right hip to left hip, mean over the first valid frames, is turned to the +x or −x axis as in the training data.
    HipsToX,
}

/// Size normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Scale {
    /// As it comes.
    Keep,
    /// The median distance between two joints becomes `length`.
    Segment {
        /// One end.
        from: String,
        /// Other end.
        to: String,
        /// Length after scaling.
        length: f32,
    },
}

/// The encoder's input and what was missing in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// [frames, features]
    pub features: Vec<f32>,
    /// Share of joint-frames of the model's layout that were invalid and filled, 0..=1.
    pub missing: f32,
}

impl Preprocess {
    /// Features a frame: persons · joints · coords, twice with velocities.
    pub fn features(&self) -> usize {
        self.persons * self.joints.len() * self.coords * if self.velocities { 2 } else { 1 }
    }

    /// Names, counts and numbers are usable.
    pub fn check(&self) -> Result<()> {
        todo!()
    }
}

/// Maps, fills, centres, turns, scales, resamples and standardises a clip.
pub fn prepare(_preprocess: &Preprocess, _clip: &Clip<'_>) -> Result<Prepared> {
    todo!()
}
