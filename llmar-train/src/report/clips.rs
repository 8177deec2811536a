//! Skeletons in motion, small enough for a page: joints as 16-bit numbers of their clip's bounding box.

use llmar::formats::OwnedClip;
use llmar::skeleton::Layout;
use serde::Serialize;

use super::html::base64;

/// Stands for a joint that was not seen.
const UNSEEN: u16 = u16::MAX;
/// Steps along the longest side of the bounding box.
const STEPS: f32 = 65_534.0;

/// What is drawn: bones and sides of a layout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Skeleton {
    /// Joint names.
    pub joints: Vec<String>,
    /// Parent of each joint; −1 where there is none, or none is known.
    pub parents: Vec<i64>,
    /// `l`, `r` or `m` for each joint.
    pub sides: String,
}

/// Joints over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Motion {
    pub frames: usize,
    pub persons: usize,
    /// 2 or 3
    pub coords: usize,
    /// Frames a second; null when unknown.
    pub fps: Option<f32>,
    /// Whether y grows downwards, as in images.
    pub down: bool,
    /// Position = least + step · number; one step for all coordinates.
    pub least: Vec<f32>,
    pub step: f32,
    /// Base64 of u16, little-endian, [frames, persons, joints, coords]; 65535: not seen.
    pub joints: String,
}

/// Joint positions [frames, persons, joints, coords], with flags [frames, persons, joints] where not all of them were seen.
#[derive(Clone, Copy, Debug)]
pub struct Joints<'a> {
    pub values: &'a [f32],
    pub valid: Option<&'a [u8]>,
    pub persons: usize,
    pub per_person: usize,
    pub coords: usize,
}

impl Skeleton {
    /// Of a layout.
    pub fn of(layout: &Layout) -> Self {
        let side = |joint: &String| match joint.to_lowercase() {
            name if name.contains("left") => 'l',
            name if name.contains("right") => 'r',
            _ => 'm',
        };
        Self {
            joints: layout.joints.clone(),
            parents: layout.parents.iter().map(|parent| parent.map_or(-1, |p| p as i64)).collect(),
            sides: layout.joints.iter().map(side).collect(),
        }
    }
}

impl Motion {
    /// Of a clip as it was recorded.
    pub fn of_clip(clip: &OwnedClip, layout: &Layout) -> Self {
        let joints = Joints {
            values: &clip.joints,
            valid: clip.valid.as_deref(),
            persons: clip.persons,
            per_person: clip.joints_per_person,
            coords: clip.coords,
        };
        Self::of(&joints, clip.fps, layout)
    }

    /// Of joints of `layout`.
    pub fn of(joints: &Joints<'_>, fps: Option<f32>, layout: &Layout) -> Self {
        let coords = joints.coords;
        let points: Vec<Option<&[f32]>> = (joints.values.chunks_exact(coords).enumerate())
            .map(|(i, point)| (joints.valid.is_none_or(|valid| valid[i] != 0) && point.iter().all(|x| x.is_finite())).then_some(point))
            .collect();
        let (mut least, mut most) = (vec![f32::INFINITY; coords], vec![f32::NEG_INFINITY; coords]);
        for point in points.iter().flatten() {
            for (axis, &x) in point.iter().enumerate() {
                (least[axis], most[axis]) = (least[axis].min(x), most[axis].max(x));
            }
        }
        if points.iter().all(Option::is_none) {
            least.fill(0.0);
        }
        let side = least.iter().zip(&most).map(|(a, b)| b - a).fold(0.0, f32::max);
        let step = if side > 0.0 { side / STEPS } else { 1.0 };
        let mut numbers = Vec::with_capacity(2 * joints.values.len());
        for point in &points {
            for (axis, least) in least.iter().enumerate() {
                let number = point.map_or(UNSEEN, |p| ((p[axis] - least) / step).round().clamp(0.0, STEPS) as u16);
                numbers.extend(number.to_le_bytes());
            }
        }
        let down = coords == 2 && upside_down(&points, joints.per_person, layout);
        let frames = joints.values.len() / (joints.persons * joints.per_person * coords).max(1);
        Self { frames, persons: joints.persons, coords, fps, down, least, step, joints: base64(&numbers) }
    }
}

/// Whether heads are below hips on average: nothing in a 2D clip says which way y grows.
fn upside_down(points: &[Option<&[f32]>], per_person: usize, layout: &Layout) -> bool {
    let find = |names: [&str; 3]| names.into_iter().find_map(|name| layout.joint(name));
    let (Some(head), Some(hip)) = (find(["head", "nose", "neck"]), find(["hip_center", "left_hip", "right_hip"])) else { return false };
    let height = |skeleton: &[Option<&[f32]>]| Some(f64::from(skeleton[head]?[1]) - f64::from(skeleton[hip]?[1]));
    points.chunks_exact(per_person).filter_map(height).sum::<f64>() < 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(joints: &[&str]) -> Layout {
        Layout::new("test", joints).unwrap()
    }

    /// What the script does.
    fn decoded(motion: &Motion) -> Vec<Option<f32>> {
        let digit = |c: u8| match c {
            b'A'..=b'Z' => u32::from(c - b'A'),
            b'a'..=b'z' => u32::from(c - b'a') + 26,
            b'0'..=b'9' => u32::from(c - b'0') + 52,
            b'+' => 62,
            b'/' => 63,
            _ => 0,
        };
        let words = motion.joints.as_bytes().chunks(4).map(|c| c.iter().fold(0, |word, c| word << 6 | digit(*c)));
        let bytes: Vec<u8> = words.flat_map(|word| word.to_be_bytes()[1..].to_vec()).collect();
        let numbers = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let place = |(i, n): (usize, u16)| (n != UNSEEN).then(|| motion.least[i % motion.coords] + motion.step * f32::from(n));
        numbers.enumerate().map(place).take(motion.frames * motion.persons * 2 * motion.coords).collect()
    }

    #[test]
    fn joints_come_back_to_a_step_and_unseen_ones_do_not() {
        let values = [0.1f32, 2.0, -3.0, 1.0, f32::NAN, 0.0, 9.0, 9.0, 9.0, -0.5, 0.25, 5.0];
        let valid = [1u8, 1, 0, 1];
        let joints = Joints { values: &values, valid: Some(&valid), persons: 1, per_person: 2, coords: 3 };
        let motion = Motion::of(&joints, Some(30.0), &layout(&["head", "left_hand"]));
        assert_eq!((motion.frames, &motion.least[..], motion.down), (2, &[-0.5, 0.25, -3.0][..], false));
        assert!((motion.step - 8.0 / STEPS).abs() < 1e-9);
        for (i, value) in decoded(&motion).into_iter().enumerate() {
            match i {
                3..=8 => assert_eq!(value, None, "{i}"),
                _ => assert!((value.unwrap() - values[i]).abs() <= motion.step, "{i}: {value:?}"),
            }
        }
        let nothing = Motion::of(&Joints { valid: Some(&[0; 4]), ..joints }, None, &layout(&["head", "left_hand"]));
        assert!(decoded(&nothing).iter().all(Option::is_none) && nothing.least == [0.0; 3]);
    }

    #[test]
    fn images_are_turned_the_right_way_up() {
        let values = [0.0f32, 10.0, 0.0, 60.0]; // the head has the smaller y
        let joints = Joints { values: &values, valid: None, persons: 1, per_person: 2, coords: 2 };
        let people = layout(&["head", "hip_center"]);
        assert!(Motion::of(&joints, None, &people).down);
        assert!(!Motion::of(&joints, None, &layout(&["hip_center", "head"])).down);
        assert_eq!(Skeleton::of(&layout(&["head", "LeftHand", "right_hand"])).sides, "mlr");
    }
}
