//! Joints without which an action cannot be told, measured on training clips.
//!
//! A clip moves a limb (left arm, right arm, left leg, right leg) as far as the limb's farthest moving joint goes: the root mean square of its way
//! from where it is on average, seen from the root. An action needs the limbs that go at least [`SHARE`] as far as the farthest of their clip, in at least
//! [`CLIPS`] of its clips: of an action that some do with the left and some with the right hand, both. Distances and not speeds, because a sensor's noise
//! is fast and does not go far.

use std::collections::BTreeMap;

use crate::vqvae::ClipSet;

/// Share of the farthest limb's way.
const SHARE: f64 = 1.0 / 3.0;
/// Share of an action's clips.
const CLIPS: f64 = 0.4;
/// Joints of a limb, as their names end behind `left_` and `right_`; longer names, such as `hand_tip`, count as well.
const LIMBS: [[&str; 3]; 2] = [["elbow", "wrist", "hand"], ["knee", "ankle", "foot"]];

/// Names of the joints that each class of a set needs; `joints` are the set's, `coords` axes each, the root among them. Classes without clips, and
/// layouts without limbs, need nothing.
pub fn needs(set: &ClipSet, joints: &[String], coords: usize, root: &str) -> BTreeMap<String, Vec<String>> {
    let limbs: Vec<Vec<usize>> = limbs(joints);
    let Some(root) = joints.iter().position(|joint| joint == root) else { return BTreeMap::new() };
    let mut moved = vec![(0usize, vec![0usize; limbs.len()]); set.classes.len()];
    for (clip, label) in set.labels().iter().enumerate() {
        let ways = ways(set.rows(clip), joints.len() * coords, coords, root);
        let of_limbs: Vec<f64> = limbs.iter().map(|limb| limb.iter().map(|joint| ways[*joint]).fold(0.0, f64::max)).collect();
        let most = of_limbs.iter().copied().fold(0.0, f64::max);
        let (clips, counts) = &mut moved[*label];
        *clips += 1;
        counts.iter_mut().zip(&of_limbs).for_each(|(count, way)| *count += usize::from(*way > 0.0 && *way >= SHARE * most));
    }
    let needed = |(clips, counts): &(usize, Vec<usize>)| -> Vec<String> {
        let mut needed: Vec<usize> = limbs
            .iter()
            .zip(counts)
            .filter(|(_, count)| **count as f64 >= CLIPS * *clips as f64 && **count > 0)
            .flat_map(|(limb, _)| limb.clone())
            .collect();
        needed.sort_unstable();
        needed.into_iter().map(|joint| joints[joint].clone()).collect()
    };
    set.classes.iter().cloned().zip(moved.iter().map(needed)).filter(|(_, joints)| !joints.is_empty()).collect()
}

/// Joints of each limb that the layout has.
fn limbs(joints: &[String]) -> Vec<Vec<usize>> {
    let of = |side: &str, limb: &[&str; 3]| -> Vec<usize> {
        let belongs = |name: &String| name.strip_prefix(side).is_some_and(|rest| limb.iter().any(|part| rest.starts_with(part)));
        (0..joints.len()).filter(|joint| belongs(&joints[*joint])).collect()
    };
    let all = LIMBS.iter().flat_map(|limb| ["left_", "right_"].map(|side| of(side, limb)));
    all.filter(|limb| !limb.is_empty()).collect()
}

/// Root mean square of each joint's way from its mean place, seen from the root, in rows [frames, width].
fn ways(rows: &[f32], width: usize, coords: usize, root: usize) -> Vec<f64> {
    let count = (rows.len() / width).max(1) as f64;
    let mut way = vec![0.0; width / coords];
    for value in 0..width {
        let at = |row: &[f32]| f64::from(row[value] - row[root * coords + value % coords]);
        let (mut sum, mut squares) = (0.0, 0.0);
        let first = rows.get(..width).map_or(0.0, at);
        for row in rows.chunks_exact(width) {
            let x = at(row) - first;
            (sum, squares) = (sum + x, squares + x * x);
        }
        way[value / coords] += (squares / count - (sum / count).powi(2)).max(0.0);
    }
    way.into_iter().map(f64::sqrt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use crate::vqvae::tests::small_run;

    #[test]
    fn an_action_needs_the_limbs_that_go_far_in_it() -> Result<()> {
        let (_folder, config) = small_run(&[])?;
        let (set, _, preprocess) = ClipSet::read_and_measure(&config.data, &config.input)?;
        let needs = needs(&set, &preprocess.joints, preprocess.coords, &preprocess.root);
        let of = |class: &str| needs.get(class).map(|joints| joints.iter().map(String::as_str).collect::<Vec<_>>());
        // A right hand goes up and down, a left foot, and everything but the root.
        assert_eq!(of("wave"), Some(vec!["right_elbow", "right_wrist", "right_hand"]));
        assert_eq!(of("kick"), Some(vec!["left_knee", "left_ankle", "left_foot"]));
        assert_eq!(of("sink").map(|joints| joints.len()), Some(12));
        Ok(())
    }

    #[test]
    fn a_way_is_seen_from_the_root() {
        // Two joints in 2D, two frames; the root goes 4 to the right, the other stays: from the root it goes 4 to the left, 2 from its mean place.
        let ways = ways(&[0.0, 0.0, 1.0, 1.0, 4.0, 0.0, 1.0, 1.0], 4, 2, 0);
        assert_eq!(ways, [0.0, 2.0]);
    }
}
