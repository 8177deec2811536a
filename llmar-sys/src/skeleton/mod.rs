//! Skeleton clips: joint layouts, validity, normalisation and resampling. Output: the encoder's input, f32 [frames, features].

mod clip;
mod layout;
mod normalize;
mod resample;

pub use clip::{Clip, Timing};
pub use layout::{Layout, builtin_layouts};
pub use normalize::{Centre, Heading, Prepared, Preprocess, Scale, prepare};
pub use resample::Resample;
