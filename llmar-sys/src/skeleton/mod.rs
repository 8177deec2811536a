//! Skeleton clips: joint layouts, coordinate systems, validity, normalisation and resampling. Output: the encoder's input, f32 [frames, features].

mod axes;
mod canonical;
mod clip;
mod layout;
mod live;
mod normalize;
mod resample;
#[cfg(test)]
mod tests;

pub use axes::{Axes, Conversion, Handedness, Up};
pub(crate) use canonical::turn_hips_to_x;
pub use canonical::{Canonical, canonical};
pub use clip::{Clip, MAX_FRAMES, MAX_PERSONS, Timing};
pub use layout::{Layout, MAX_JOINTS, MAX_NAME, MAX_REGISTERED, all_layouts, builtin_layouts};
pub use live::{ANCHOR_ROWS, Anchor, PoseMap, Row, Space, Taken, Track, live_rows};
pub(crate) use normalize::feature_row;
pub use normalize::{Centre, Heading, Prepared, Preprocess, Scale, finish, live_features, prepare, resampled, standardised};
pub use resample::Resample;
pub(crate) use resample::interpolate;
