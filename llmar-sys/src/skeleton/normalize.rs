//! From a clip to the encoder's input: [`canonical`] (space), then [`finish`] (time and statistics). [`prepare`] is both.
//!
//! Order of the steps: map to the model's layout, mask, fill, centre, turn, scale | resample, velocities, standardise. The trainer
//! augments between the two halves.

use serde::{Deserialize, Serialize};

use super::canonical::{Canonical, canonical};
use super::clip::Clip;
use super::layout::Layout;
use super::live::{ANCHOR_ROWS, prepare_live};
use super::resample::{Resample, interpolate};
use crate::error::{Error, Result};

/// Most frames fed to an encoder.
const MAX_MODEL_FRAMES: usize = 4096;

/// What stands between a caller's clip and the encoder. Part of a checkpoint; the trainer uses the same struct and code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Layout the model was trained on; clips in other layouts are mapped to it by joint name.
    pub layout: String,
    /// Joint names of that layout, as a check that both sides mean the same.
    pub joints: Vec<String>,
    /// Joints of it that are always had from others (a hip centre from the hips, a foot from its ankle), whatever a skeleton says of them itself:
    /// trackers disagree about where they are, and vouch for them in one clip and not in the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub derived: Vec<String>,
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
    /// Append velocities after the positions: `x[t+1] − x[t]`, the last frame's zero; of live models `x[t] − x[t−1]`, the first frame's zero.
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
    /// The first person's root in the first frame where it is valid.
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
    /// The line from right hip to left hip, mean over the first five frames, is turned to the −x axis, as subjects of UTD-MHAD who face the
    /// sensor (−z) have it.
    HipsToX,
}

/// Size normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Scale {
    /// As it comes.
    Keep,
    /// The first person's median distance between two joints becomes `length`: over the frames where both are valid, or, where they never are
    /// together, over all frames after filling.
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
    /// [frames, features]; of live models as many frames as there were, else `frames` of the model.
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
    ///
    /// # Errors
    /// [`Error::Format`] that names the field.
    pub fn check(&self) -> Result<()> {
        let bad = |field: &str, detail: String| Err(Error::format(format!("preprocess.{field}"), detail));
        let target = match Layout::new(&self.layout, &self.joints) {
            Ok(target) => target,
            Err(error) => return bad("joints", error.to_string()),
        };
        // A layout that this process knows must be the one the model means; one that it does not know is defined by the model.
        if let Ok(known) = Layout::find(&self.layout)
            && !known.has_joints(&self.joints)
        {
            return bad("joints", format!("expected the joints of layout `{}` in its order, got others", self.layout));
        }
        let ways = target.ways_to(&target, &self.derived);
        if let Some(name) = self.derived.iter().find(|name| target.joint(name).is_none_or(|joint| ways[joint].is_empty())) {
            return bad("derived", format!("expected joints of the model that its others can stand in for, got `{name}`"));
        }
        if !(1..=2).contains(&self.persons) {
            return bad("persons", format!("expected 1 or 2, got {}", self.persons));
        }
        if !(2..=3).contains(&self.coords) {
            return bad("coords", format!("expected 2 or 3, got {}", self.coords));
        }
        if !(1..=MAX_MODEL_FRAMES).contains(&self.frames) {
            return bad("frames", format!("expected 1..={MAX_MODEL_FRAMES}, got {}", self.frames));
        }
        let positive = |x: f32| x.is_finite() && x > 0.0;
        match self.resample {
            Resample::Rate { fps } | Resample::Live { fps } if !positive(fps) => {
                return bad("resample", format!("expected a rate above zero, got {fps}"));
            }
            Resample::Live { .. } if self.persons != 1 => {
                return bad("persons", format!("expected 1 for a live model, got {}", self.persons));
            }
            Resample::Live { .. } if self.frames < ANCHOR_ROWS => {
                return bad("frames", format!("expected at least {ANCHOR_ROWS} for a live model, got {}", self.frames));
            }
            Resample::Rate { .. } | Resample::Live { .. } | Resample::Stretch => {}
        }
        let missing = |names: &[&str]| names.iter().find(|name| target.joint(name).is_none()).map(|name| (*name).to_owned());
        if let Some(name) = missing(&[&self.root]) {
            return bad("root", format!("`{name}` is not among the joints"));
        }
        if self.heading == Heading::HipsToX {
            if self.coords != 3 {
                return bad("heading", format!("hips_to_x needs 3 coordinates, got {}", self.coords));
            }
            if let Some(name) = missing(&["left_hip", "right_hip"]) {
                return bad("heading", format!("hips_to_x needs `{name}`, which is not among the joints"));
            }
        }
        if let Scale::Segment { from, to, length } = &self.scale {
            if let Some(name) = missing(&[from, to]) {
                return bad("scale", format!("`{name}` is not among the joints"));
            }
            if target.joint(from) == target.joint(to) || !positive(*length) {
                return bad("scale", format!("expected two joints and a length above zero, got `{from}`, `{to}`, {length}"));
            }
        }
        let positions = self.positions();
        if self.mean.len() != positions || !self.mean.iter().all(|x| x.is_finite()) {
            return bad("mean", format!("expected {positions} finite numbers, got {}, or some not finite", self.mean.len()));
        }
        for (field, spread) in [("position_spread", self.position_spread), ("velocity_spread", self.velocity_spread)] {
            if !positive(spread) {
                return bad(field, format!("expected a number above zero, got {spread}"));
            }
        }
        Ok(())
    }

    /// Position values a frame: persons · joints · coords.
    fn positions(&self) -> usize {
        self.persons * self.joints.len() * self.coords
    }

    /// The layout of a caller's skeletons by name; empty: the model's own, which need not be registered.
    ///
    /// # Errors
    /// [`Error::UnknownLayout`].
    pub fn source_layout(&self, name: &str) -> Result<Layout> {
        if name.is_empty() || name == self.layout { Ok(self.target()) } else { Layout::find(name) }
    }

    /// The model's layout. It is defined by the model, so that it need not be registered.
    pub(super) fn target(&self) -> Layout {
        Layout { name: self.layout.clone(), joints: self.joints.clone(), parents: vec![None; self.joints.len()] }
    }
}

/// Maps, fills, centres, turns, scales, resamples and standardises a clip. For live models [`Track`](super::Track) and [`Space`](super::Space) do it.
///
/// # Errors
/// Those of [`canonical`] and [`finish`].
pub fn prepare(preprocess: &Preprocess, clip: &Clip<'_>) -> Result<Prepared> {
    if matches!(preprocess.resample, Resample::Live { .. }) {
        return prepare_live(preprocess, clip);
    }
    finish(preprocess, &canonical(preprocess, clip)?)
}

/// Resamples, appends velocities and standardises.
///
/// # Errors
/// Those of [`resampled`] and [`standardised`].
pub fn finish(preprocess: &Preprocess, canonical: &Canonical) -> Result<Prepared> {
    let positions = resampled(preprocess, canonical)?;
    Ok(Prepared { features: standardised(preprocess, &positions, &canonical.present)?, missing: canonical.missing })
}

/// Positions at the model's frames: [frames, persons · joints · coords].
///
/// # Errors
/// [`Error::InvalidArgument`] when the model resamples to a rate and the clip's timing is unknown; [`Error::Shape`] when `canonical` is not
/// of this model.
pub fn resampled(preprocess: &Preprocess, canonical: &Canonical) -> Result<Vec<f32>> {
    let width = preprocess.positions();
    if canonical.joints.len() != canonical.frames * width || canonical.times.len() != canonical.frames || canonical.frames == 0 {
        let got = vec![canonical.joints.len(), canonical.times.len()];
        return Err(Error::Shape { what: "canonical clip".into(), expected: vec![canonical.frames, width], got });
    }
    if matches!(preprocess.resample, Resample::Rate { .. }) && !canonical.timed {
        return Err(Error::argument("timing", "a frame rate or timestamps: the model reads frames at a fixed rate", "unknown"));
    }
    let (start, end) = (canonical.times[0], canonical.times[canonical.frames - 1]);
    let moments = preprocess.resample.moments(start, end, preprocess.frames);
    Ok(interpolate(&canonical.joints, &canonical.times, &moments))
}

/// Features [frames, positions (+ velocities)] of one frame of a live model: `row` [positions] and the row before it in its window, if any.
/// `out`: [features].
pub(crate) fn feature_row(preprocess: &Preprocess, row: &[f32], before: Option<&[f32]>, out: &mut [f32]) {
    for ((out, x), mean) in out.iter_mut().zip(row).zip(&preprocess.mean) {
        *out = (x - mean) / preprocess.position_spread;
    }
    if preprocess.velocities {
        let before = before.unwrap_or(row);
        for ((out, x), before) in out[row.len()..].iter_mut().zip(row).zip(before) {
            *out = (x - before) / preprocess.velocity_spread;
        }
    }
}

/// Features [n, positions (+ velocities)] of the rows [n, positions] of a window of a live model, placed by [`Space`](super::Space).
///
/// # Errors
/// [`Error::InvalidArgument`] when a feature leaves the range of f32.
///
/// # Panics
/// When `rows` is not whole rows of this model.
pub fn live_features(preprocess: &Preprocess, rows: &[f32]) -> Result<Vec<f32>> {
    let (width, wide) = (preprocess.positions(), preprocess.features());
    assert!(rows.len().is_multiple_of(width) && preprocess.mean.len() == width, "rows of another model");
    let mut features = vec![0.0; rows.len() / width * wide];
    for (i, out) in features.chunks_exact_mut(wide).enumerate() {
        let row = |i: usize| &rows[i * width..][..width];
        feature_row(preprocess, row(i), i.checked_sub(1).map(row), out);
    }
    match features.iter().all(|x| x.is_finite()) {
        true => Ok(features),
        false => Err(Error::argument("joints", "positions whose features fit f32", "positions near the largest f32")),
    }
}

/// Features [frames, positions (+ velocities)] of positions [frames, persons · joints · coords]: per frame first every person's joints (x, y, z
/// each), then the velocities in the same order. An absent person is zero in both.
///
/// # Errors
/// [`Error::Shape`] for other lengths, [`Error::InvalidArgument`] when a feature leaves the range of f32.
pub fn standardised(preprocess: &Preprocess, positions: &[f32], present: &[bool]) -> Result<Vec<f32>> {
    let width = preprocess.positions();
    if width == 0 || positions.len() != preprocess.frames * width || present.len() != preprocess.persons || preprocess.mean.len() != width {
        let got = vec![positions.len(), present.len(), preprocess.mean.len()];
        return Err(Error::Shape {
            what: "positions, persons, mean".into(),
            expected: vec![preprocess.frames * width, preprocess.persons, width],
            got,
        });
    }
    let per_person = width / preprocess.persons; // both above zero here
    let is_present = |value: usize| present[value / per_person];
    let frames: Vec<&[f32]> = positions.chunks_exact(width).collect();
    let mut features = Vec::with_capacity(preprocess.frames * preprocess.features());
    for (index, frame) in frames.iter().enumerate() {
        let position = |value: usize| (frame[value] - preprocess.mean[value]) / preprocess.position_spread;
        features.extend((0..width).map(|value| if is_present(value) { position(value) } else { 0.0 }));
        if preprocess.velocities {
            let next = frames.get(index + 1).unwrap_or(frame);
            features.extend((0..width).map(|value| (next[value] - frame[value]) / preprocess.velocity_spread));
        }
    }
    match features.iter().all(|x| x.is_finite()) {
        true => Ok(features),
        false => Err(Error::argument("joints", "positions whose features fit f32", "positions near the largest f32")),
    }
}
