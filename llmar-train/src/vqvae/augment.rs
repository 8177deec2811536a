//! Random changes of training clips: what other cameras, bodies and tempos would have given.

use llmar::skeleton::{Canonical, Layout, Preprocess};
use serde::{Deserialize, Serialize};

use super::live::Windows;
use crate::error::Result;
use crate::torch::{Rng, in_range};

/// Strengths; 0 turns a change off. Lengths are in the units of the scaled clip (metres where a torso is half a metre long).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Turn about the vertical, uniform in ± this, radians (3D only).
    pub yaw: f32,
    /// Tilt of body or camera: turn by a uniform angle in ± this, radians, about a horizontal axis in any direction through the origin (3D only).
    #[serde(skip_serializing_if = "is_zero")]
    pub tilt: f32,
    /// Tempo: t + a sin(πt)/π with a uniform in ± this, below 1.
    pub warp: f32,
    /// At each end up to this share of the clip is cut off, below 0.5.
    pub crop: f32,
    /// Size, uniform in 1 ± this.
    pub scale: f32,
    /// Length of every bone, uniform in 1 ± this.
    pub limb: f32,
    /// Normal noise on every joint and frame.
    pub noise: f32,
    /// Slow normal offset of every joint: four values over the clip, linear between.
    pub drift: f32,
    /// How far the body moves: every joint's way from its mean place over the clip, times a uniform 1 ± this, one factor a clip.
    #[serde(skip_serializing_if = "is_zero")]
    pub amplitude: f32,
    /// How it stands: normal offset of every joint's place, the same all through the clip.
    #[serde(skip_serializing_if = "is_zero")]
    pub posture: f32,
    /// Chance that a joint's channels of one stream (positions or velocities) are zeroed for a whole clip.
    pub joint_drop: f32,
    /// Chance of swapping left and right (x mirrored); only for label sets where the side does not matter.
    pub mirror: f32,
    /// How windows are cut, for live models alone; left out: [`Windows::default`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
}

// Runs are told apart by their settings as text: those of before these settings stay the same runs.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            yaw: 0.5,
            tilt: 0.0,
            warp: 0.15,
            crop: 0.08,
            scale: 0.08,
            limb: 0.0,
            noise: 0.01,
            drift: 0.0,
            amplitude: 0.0,
            posture: 0.0,
            joint_drop: 0.0,
            mirror: 0.0,
            windows: None,
        }
    }
}

impl Augment {
    /// Nothing is changed.
    pub fn none() -> Self {
        Self { yaw: 0.0, warp: 0.0, crop: 0.0, scale: 0.0, noise: 0.0, ..Self::default() }
    }

    /// Every strength is in its range.
    pub fn check(&self) -> Result<()> {
        in_range("augment.yaw", f64::from(self.yaw), 0.0, 4.0)?;
        in_range("augment.tilt", f64::from(self.tilt), 0.0, 1.6)?;
        in_range("augment.warp", f64::from(self.warp), 0.0, 0.99)?;
        in_range("augment.crop", f64::from(self.crop), 0.0, 0.49)?;
        in_range("augment.scale", f64::from(self.scale), 0.0, 0.99)?;
        in_range("augment.limb", f64::from(self.limb), 0.0, 0.99)?;
        in_range("augment.noise", f64::from(self.noise), 0.0, 1e3)?;
        in_range("augment.drift", f64::from(self.drift), 0.0, 1e3)?;
        in_range("augment.amplitude", f64::from(self.amplitude), 0.0, 0.99)?;
        in_range("augment.posture", f64::from(self.posture), 0.0, 1e3)?;
        in_range("augment.joint_drop", f64::from(self.joint_drop), 0.0, 1.0)?;
        in_range("augment.mirror", f64::from(self.mirror), 0.0, 1.0)?;
        self.windows.as_ref().map_or(Ok(()), Windows::check)
    }
}

/// What the changes need to know of the joints.
#[derive(Clone, Debug)]
pub struct Joints {
    /// Parent of each joint, where known.
    parents: Vec<Option<usize>>,
    /// Joints in an order in which parents come first.
    order: Vec<usize>,
    /// Left-right partner of each joint.
    mirrored: Vec<usize>,
}

impl Joints {
    /// Of a layout.
    pub fn new(layout: &Layout) -> Self {
        let depth = |joint: usize| std::iter::successors(Some(joint), |j| layout.parents[*j]).take(layout.joints.len()).count();
        let mut order: Vec<usize> = (0..layout.joints.len()).collect();
        order.sort_by_key(|j| depth(*j));
        Self { parents: layout.parents.clone(), order, mirrored: layout.mirrored() }
    }
}

/// Linear interpolation of rows at non-decreasing `times`, read at any moment; the ends hold outside.
pub(super) fn read_at(clip: &Canonical, row: usize, moment: f64, out: &mut Vec<f32>) {
    let after = clip.times.partition_point(|t| *t <= moment);
    let frame = |i: usize| &clip.joints[i * row..(i + 1) * row];
    if after == 0 {
        out.extend_from_slice(frame(0));
    } else if after == clip.times.len() {
        out.extend_from_slice(frame(after - 1));
    } else {
        let (a, b) = (clip.times[after - 1], clip.times[after]);
        let weight = ((moment - a) / (b - a)) as f32;
        out.extend(frame(after - 1).iter().zip(frame(after)).map(|(x, y)| x + weight * (y - x)));
    }
}

/// A changed clip, [frames, persons, joints, coords], before standardisation.
pub fn augment(settings: &Augment, preprocess: &Preprocess, joints: &Joints, clip: &Canonical, rng: &mut Rng) -> Vec<f32> {
    let (persons, coords) = (preprocess.persons, preprocess.coords);
    let row = persons * preprocess.joints.len() * coords;
    let (start, end) = (clip.times[0], clip.times[clip.frames - 1]);
    let span = (end - start).max(1e-9);
    let bend = f64::from(settings.warp * rng.signed());
    let low = f64::from(settings.crop * rng.unit());
    let high = 1.0 - f64::from(settings.crop * rng.unit());
    let mut points = Vec::with_capacity(preprocess.frames * row);
    for moment in preprocess.resample.moments(start, end, preprocess.frames) {
        let t = (moment - start) / span;
        // Outside 0..1 (a fixed rate over a short clip) the ends hold, and there is no tempo to bend.
        let bent = if (0.0..=1.0).contains(&t) { t + bend * (std::f64::consts::PI * t).sin() / std::f64::consts::PI } else { t };
        read_at(clip, row, start + span * (low + (high - low) * bent), &mut points);
    }
    rebuild(settings, joints, coords, row, &mut points, rng);
    disturb(settings, row, &mut points, rng);
    points
}

/// Another camera and another body: turn, tilt, mirror, lengths of bones, of rows [frames, row].
pub(super) fn rebuild(settings: &Augment, joints: &Joints, coords: usize, row: usize, points: &mut [f32], rng: &mut Rng) {
    if coords == 3 {
        turn(settings.yaw * rng.signed(), points);
        if settings.tilt > 0.0 {
            tilt(settings.tilt * rng.signed(), std::f32::consts::PI * rng.signed(), points);
        }
    }
    if settings.mirror > rng.unit() {
        mirror(joints, coords, points);
    }
    if settings.limb > 0.0 {
        let factors: Vec<f32> = (0..row / coords).map(|_| 1.0 + settings.limb * rng.signed()).collect();
        stretch_bones(&factors, joints, coords, points);
    }
}

/// A worse sensor, another size and another way to move: drift, amplitude, posture, size and noise, of rows [frames, row].
pub(super) fn disturb(settings: &Augment, row: usize, points: &mut [f32], rng: &mut Rng) {
    if settings.drift > 0.0 {
        drift(settings.drift, points.len() / row, row, points, rng);
    }
    if settings.amplitude > 0.0 || settings.posture > 0.0 {
        restyle(settings, row, points, rng);
    }
    let size = 1.0 + settings.scale * rng.signed();
    for value in points {
        *value = *value * size + if settings.noise > 0.0 { settings.noise * rng.normal() } else { 0.0 };
    }
}

fn turn(angle: f32, points: &mut [f32]) {
    let (sin, cos) = angle.sin_cos();
    for p in points.as_chunks_mut::<3>().0 {
        *p = [cos * p[0] - sin * p[2], p[1], sin * p[0] + cos * p[2]];
    }
}

/// By `angle` about the horizontal axis that lies `direction` from x.
fn tilt(angle: f32, direction: f32, points: &mut [f32]) {
    let (sin, cos) = angle.sin_cos();
    turn(-direction, points);
    for p in points.as_chunks_mut::<3>().0 {
        *p = [p[0], cos * p[1] - sin * p[2], sin * p[1] + cos * p[2]];
    }
    turn(direction, points);
}

fn mirror(joints: &Joints, coords: usize, points: &mut [f32]) {
    for person in points.chunks_exact_mut(joints.mirrored.len() * coords) {
        let old = person.to_vec();
        for (joint, &partner) in joints.mirrored.iter().enumerate() {
            person[joint * coords..(joint + 1) * coords].copy_from_slice(&old[partner * coords..(partner + 1) * coords]);
            person[joint * coords] = -person[joint * coords];
        }
    }
}

/// Scales every bone by its own factor ([persons, joints], one for the whole clip), from the root outwards.
fn stretch_bones(factors: &[f32], joints: &Joints, coords: usize, points: &mut [f32]) {
    let count = joints.parents.len();
    for (i, person) in points.chunks_exact_mut(count * coords).enumerate() {
        let old = person.to_vec();
        let first = i * count % factors.len();
        for &joint in &joints.order {
            let Some(parent) = joints.parents[joint] else { continue };
            for c in 0..coords {
                let bone = old[joint * coords + c] - old[parent * coords + c];
                person[joint * coords + c] = person[parent * coords + c] + factors[first + joint] * bone;
            }
        }
    }
}

fn drift(size: f32, frames: usize, row: usize, points: &mut [f32], rng: &mut Rng) {
    const KNOTS: usize = 4;
    let offsets: Vec<f32> = (0..KNOTS * row).map(|_| size * rng.normal()).collect();
    for (f, frame) in points.chunks_exact_mut(row).enumerate() {
        let at = f as f32 / (frames.max(2) - 1) as f32 * (KNOTS - 1) as f32;
        let knot = (at as usize).min(KNOTS - 2);
        let weight = at - knot as f32;
        for (i, value) in frame.iter_mut().enumerate() {
            *value += offsets[knot * row + i] * (1.0 - weight) + offsets[(knot + 1) * row + i] * weight;
        }
    }
}

/// The same action by someone who moves further or less far and holds the joints elsewhere, of rows [frames, row].
fn restyle(settings: &Augment, row: usize, points: &mut [f32], rng: &mut Rng) {
    let frames = points.len() / row;
    let factor = 1.0 + settings.amplitude * rng.signed();
    for channel in 0..row {
        let mean = points.iter().skip(channel).step_by(row).sum::<f32>() / frames as f32;
        let offset = settings.posture * rng.normal();
        points.iter_mut().skip(channel).step_by(row).for_each(|value| *value = mean + factor * (*value - mean) + offset);
    }
}

/// Zeroes whole joints of one stream in standardised features [frames, streams · persons · joints · coords].
pub fn drop_joints(chance: f32, preprocess: &Preprocess, features: &mut [f32], rng: &mut Rng) {
    if chance == 0.0 {
        return;
    }
    let channels = preprocess.features() / preprocess.coords;
    let dropped: Vec<bool> = (0..channels).map(|_| rng.unit() < chance).collect();
    for (i, joint) in features.chunks_exact_mut(preprocess.coords).enumerate() {
        if dropped[i % channels] {
            joint.fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilted_clip_is_turned_about_a_horizontal_axis() {
        let plain = [0.3f32, 1.0, -0.2, -0.5, 0.1, 0.7];
        for (angle, direction) in [(0.4f32, 0.0f32), (-0.3, 1.1), (0.2, -2.0)] {
            let mut points = plain;
            tilt(angle, direction, &mut points);
            let axis = [direction.cos(), 0.0, direction.sin()];
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            for (p, q) in plain.as_chunks::<3>().0.iter().zip(points.as_chunks::<3>().0) {
                // Rodrigues: q = p cos + (axis × p) sin + axis (axis · p)(1 − cos).
                let across = [-axis[2] * p[1], axis[2] * p[0] - axis[0] * p[2], axis[0] * p[1]];
                let along = dot(&axis, p) * (1.0 - angle.cos());
                for i in 0..3 {
                    let expected = p[i] * angle.cos() + across[i] * angle.sin() + axis[i] * along;
                    assert!((q[i] - expected).abs() < 1e-6, "{angle} about {direction}: {q:?}, axis {i} {expected}");
                }
            }
        }
        // None: nothing is drawn for it, so that other changes stay what they were.
        let joints = Joints { parents: vec![None, None], order: vec![0, 1], mirrored: vec![0, 1] };
        let (mut points, mut rng, mut other) = (plain, Rng::new(4, "rebuild", 0), Rng::new(4, "rebuild", 0));
        rebuild(&Augment::none(), &joints, 3, 6, &mut points, &mut rng);
        other.signed();
        other.unit();
        assert_eq!((points, rng.bits()), (plain, other.bits()));
    }

    #[test]
    fn a_restyled_clip_keeps_its_form_about_another_mean() {
        // Two channels over four frames; means 2.5 and 0.
        let plain = [1.0f32, 0.3, 2.0, -0.3, 3.0, 0.3, 4.0, -0.3];
        let settings = Augment { amplitude: 0.5, posture: 0.2, ..Augment::none() };
        let (mut points, mut rng) = (plain, Rng::new(3, "restyle", 0));
        restyle(&settings, 2, &mut points, &mut rng);
        let mut rng = Rng::new(3, "restyle", 0);
        let factor = 1.0 + 0.5 * rng.signed();
        let places = [2.5 + 0.2 * rng.normal(), 0.2 * rng.normal()];
        assert!(factor != 1.0 && places[1] != 0.0);
        for (i, (got, was)) in points.iter().zip(plain).enumerate() {
            let expected = places[i % 2] + factor * (was - [2.5, 0.0][i % 2]);
            assert!((got - expected).abs() < 1e-6, "{i}: {got} against {expected}");
        }
        // Neither: nothing is drawn but the size, so that other changes stay what they were.
        let (mut points, mut rng, mut other) = (plain, Rng::new(4, "disturb", 0), Rng::new(4, "disturb", 0));
        disturb(&Augment::none(), 2, &mut points, &mut rng);
        other.unit();
        assert_eq!((points, rng.bits()), (plain, other.bits()));
    }
}
