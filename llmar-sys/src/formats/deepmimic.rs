//! DeepMimic motion JSON (as in the PyPI package pybullet): root position and joint rotations, turned into joint positions.
//!
//! `{"Loop": "wrap" | "none", "Frames": [[44 numbers] …]}`. A frame: duration in seconds (of the last frame: zero); root position x, y, z in
//! metres; rotations as quaternions w, x, y, z or hinge angles in radians about z, each relative to its parent: root, chest, neck, right hip, right
//! knee (angle), right ankle, right shoulder, right elbow (angle), left hip, left knee (angle), left ankle, left shoulder, left elbow (angle).
//! Right-handed: x forward, y up, z to the body's right.
//!
//! The clip that comes out is `kinect1_20` in metres, y up, turned about y so that the body faces −z as subjects of UTD-MHAD do; left and right
//! are kept. Joints stand where Kinect v1 sees them: its hip centre above the hips, its shoulder centre above the shoulders.

use super::OwnedClip;
use crate::error::{Error, Result};
use crate::skeleton::{Layout, MAX_FRAMES, interpolate, turn_hips_to_x};

/// Numbers of a frame.
const FRAME: usize = 44;
/// Shortest frame in seconds: bounds how often a motion is repeated.
const SHORTEST_FRAME: f64 = 1e-4;

/// A repeating motion below this many seconds is repeated …
const REPEAT_BELOW: f64 = 2.5;
/// … to this many, the travel of each cycle added: clips of UTD-MHAD last 1.4 to 4.2 s.
const REPEAT_TO: f64 = 3.0;

type Vector = [f64; 3];
type Rotation = [Vector; 3]; // rows

// Joint offsets of the body `humanoid3d` in metres, in the frame of the parent; side = +1 right, −1 left.
const CHEST: Vector = [0.0, 0.236_151, 0.0];
const NECK: Vector = [0.0, 0.223_894, 0.0];
const KNEE: Vector = [0.0, -0.421_546, 0.0];
const ANKLE: Vector = [0.0, -0.409_870, 0.0];
const ELBOW: Vector = [0.0, -0.274_788, 0.0];
const WRIST: Vector = [0.0, -0.258_947, 0.0];
const HIP_ASIDE: f64 = 0.084_887;
const SHOULDER: Vector = [-0.024_05, 0.243_5, 0.183_11];

// Joints that the body lacks, where Kinect v1 has them.
/// Hip centre above the root, in the root's frame, so that torso and legs have the proportions of UTD-MHAD (median hip centre to ankle 2.1
/// torso lengths).
const HIP_CENTER: Vector = [0.0, 0.12, 0.0];
/// Spine above the root (UTD-MHAD: 0.076 m above the hip centre).
const SPINE: Vector = [0.0, 0.19, 0.0];
/// Shoulder centre in the chest's frame: 0.07 m above the middle of both shoulders.
const SHOULDER_CENTER: Vector = [SHOULDER[0], SHOULDER[1] + 0.07, 0.0];
/// Middle of the head above the neck joint.
const HEAD: Vector = [0.0, 0.175, 0.0];
/// Hand below the wrist.
const HAND: Vector = [0.0, -0.08, 0.0];
/// Foot ahead of and below the ankle.
const FOOT: Vector = [0.11, -0.05, 0.0];

/// Joints of the result.
const JOINTS: usize = 20;

pub(super) fn clip(file: &str, name: String, looped: Option<&str>, frames: &[Vec<f64>]) -> Result<OwnedClip> {
    let wrap = match looped {
        Some("wrap") => true,
        Some("none") | None => false,
        Some(other) => return Err(Error::format(file, format!("Loop: expected `wrap` or `none`, got `{other}`"))),
    };
    check(file, frames)?;
    let mut times = Vec::with_capacity(frames.len());
    let mut poses = Vec::with_capacity(frames.len() * JOINTS * 3); // [frames, joints, 3]
    let mut now = 0.0;
    for frame in frames {
        times.push(now);
        now += frame[0];
        poses.extend(pose(frame).iter().flatten().map(|x| *x as f32));
    }
    let step = typical_step(frames);
    if wrap {
        let last = &frames[frames.len() - 1];
        repeat(&mut poses, &mut times, [last[1] - frames[0][1], 0.0, last[3] - frames[0][3]]);
    }
    let (count, mut joints) = evenly(&poses, &times, step)?;
    let layout = Layout::find("kinect1_20")?;
    if let (Some(left), Some(right)) = (layout.joint("left_hip"), layout.joint("right_hip")) {
        // Forward and left of this frame are forward and left of UTD-MHAD's after one turn about y: both are right-handed with y up.
        turn_hips_to_x(&mut joints, JOINTS * 3, [left, right]);
    }
    Ok(OwnedClip {
        name,
        joints: joints.into(),
        frames: count,
        persons: 1,
        joints_per_person: JOINTS,
        coords: 3,
        fps: Some((1.0 / step) as f32),
        layout: layout.name,
        valid: None,
    })
}

fn check(file: &str, frames: &[Vec<f64>]) -> Result<()> {
    if frames.is_empty() {
        return Err(Error::format(file, "Frames: expected at least one, got none"));
    }
    if frames.len() > MAX_FRAMES {
        return Err(Error::Limit { what: "frames", limit: MAX_FRAMES as u64, got: frames.len() as u64 });
    }
    for (index, frame) in frames.iter().enumerate() {
        let bad = |detail: String| Err(Error::format(file, format!("Frames[{index}]: {detail}")));
        if frame.len() != FRAME {
            return bad(format!("expected {FRAME} numbers of the body humanoid3d, got {}", frame.len()));
        }
        if let Some(at) = frame.iter().position(|x| !(-1e6..=1e6).contains(x)) {
            return bad(format!("number {at}: expected metres, radians or seconds, got {}", frame[at]));
        }
        let last = index + 1 == frames.len();
        if frame[0] < SHORTEST_FRAME && !(last && frame[0] == 0.0) {
            return bad(format!("expected a duration of at least {SHORTEST_FRAME} s, got {}", frame[0]));
        }
        for at in [4, 8, 12, 16, 21, 25, 30, 35, 39] {
            let norm = frame[at..at + 4].iter().map(|x| x * x).sum::<f64>().sqrt();
            if !(0.5..=2.0).contains(&norm) {
                return bad(format!("numbers {at}..{}: expected a unit quaternion, got norm {norm}", at + 4));
            }
        }
    }
    Ok(())
}

/// Median duration of the frames but the last, whose duration says nothing; 1/30 s for a single frame without one.
fn typical_step(frames: &[Vec<f64>]) -> f64 {
    let mut steps: Vec<f64> = frames[..frames.len().max(2) - 1].iter().map(|frame| frame[0]).filter(|step| *step > 0.0).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(1.0 / 30.0)
}

/// Repeats a short motion. Its last frame is the first of the next cycle, which takes its place, moved by the root's horizontal `travel` in a cycle (metres).
fn repeat(poses: &mut Vec<f32>, times: &mut Vec<f64>, travel: Vector) {
    let (row, cycle, total) = (JOINTS * 3, times.len() - 1, times[times.len() - 1]);
    if cycle == 0 || total >= REPEAT_BELOW {
        return;
    }
    poses.truncate(cycle * row);
    times.truncate(cycle);
    let mut index = cycle;
    while times[times.len() - 1] < REPEAT_TO - 1e-6 && times.len() < MAX_FRAMES {
        let (turn, frame) = (index / cycle, index % cycle);
        let moved = |(at, x): (usize, &f32)| x + (turn as f64 * travel[at % 3]) as f32;
        let pose: Vec<f32> = poses[frame * row..][..row].iter().enumerate().map(moved).collect();
        poses.extend(pose);
        times.push(turn as f64 * total + times[frame]);
        index += 1;
    }
}

/// Frames every `step` seconds: their number and positions. Motions with even durations come out as they are.
fn evenly(poses: &[f32], times: &[f64], step: f64) -> Result<(usize, Vec<f32>)> {
    // Half a thousandth of a step absorbs the rounding of summed durations.
    let count = (times[times.len() - 1] / step + 5e-4) as usize + 1;
    if count > MAX_FRAMES {
        return Err(Error::Limit { what: "frames at an even rate", limit: MAX_FRAMES as u64, got: count as u64 });
    }
    let moments: Vec<f64> = (0..count).map(|i| i as f64 * step).collect();
    Ok((count, interpolate(poses, times, &moments)))
}

/// Joint positions of a frame, in the order of `kinect1_20`.
fn pose(frame: &[f64]) -> [Vector; JOINTS] {
    let quaternion = |at: usize| rotation([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let root = [frame[1], frame[2], frame[3]];
    let pelvis = quaternion(4);
    let chest_turn = product(&pelvis, &quaternion(8));
    let neck_turn = product(&chest_turn, &quaternion(12));
    let chest = place(root, &pelvis, CHEST);
    let neck = place(chest, &chest_turn, NECK);

    let arm = |side: f64, at: usize| -> [Vector; 4] {
        let upper = product(&chest_turn, &quaternion(at));
        let lower = product(&upper, &hinge(frame[at + 4]));
        let shoulder = place(chest, &chest_turn, [SHOULDER[0], SHOULDER[1], SHOULDER[2] * side]);
        let elbow = place(shoulder, &upper, ELBOW);
        let wrist = place(elbow, &lower, WRIST);
        [shoulder, elbow, wrist, place(wrist, &lower, HAND)]
    };
    let leg = |side: f64, at: usize| -> [Vector; 4] {
        let thigh = product(&pelvis, &quaternion(at));
        let shin = product(&thigh, &hinge(frame[at + 4]));
        let foot_turn = product(&shin, &quaternion(at + 5));
        let hip = place(root, &pelvis, [0.0, 0.0, HIP_ASIDE * side]);
        let knee = place(hip, &thigh, KNEE);
        let ankle = place(knee, &shin, ANKLE);
        [hip, knee, ankle, place(ankle, &foot_turn, FOOT)]
    };
    let (right_leg, right_arm, left_leg, left_arm) = (leg(1.0, 16), arm(1.0, 25), leg(-1.0, 30), arm(-1.0, 39));
    let [ls, le, lw, lh] = left_arm;
    let [rs, re, rw, rh] = right_arm;
    let [lp, lk, la, lf] = left_leg;
    let [rp, rk, ra, rf] = right_leg;
    let (hip_center, spine) = (place(root, &pelvis, HIP_CENTER), place(root, &pelvis, SPINE));
    let (shoulder_center, head) = (place(chest, &chest_turn, SHOULDER_CENTER), place(neck, &neck_turn, HEAD));
    [hip_center, spine, shoulder_center, head, ls, le, lw, lh, rs, re, rw, rh, lp, lk, la, lf, rp, rk, ra, rf]
}

/// Where `offset`, in a frame turned by `turn` at `origin`, lies in the world.
fn place(origin: Vector, turn: &Rotation, offset: Vector) -> Vector {
    std::array::from_fn(|i| origin[i] + turn[i].iter().zip(offset).map(|(a, b)| a * b).sum::<f64>())
}

fn product(a: &Rotation, b: &Rotation) -> Rotation {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// Rotation by `angle` radians about z.
fn hinge(angle: f64) -> Rotation {
    let (sin, cos) = angle.sin_cos();
    [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]
}

/// Rotation of a quaternion w, x, y, z, which is normalised first.
fn rotation(q: [f64; 4]) -> Rotation {
    let norm = q.iter().map(|x| x * x).sum::<f64>().sqrt();
    let [w, x, y, z] = q.map(|x| x / norm);
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
        [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
    ]
}
