//! A standing body in every built-in layout, mapped to `kinect1_20` as clips are: a joint in a wrong place of a table lies in a wrong place here.

use super::{Layout, Side, builtin_layouts, split};
use crate::skeleton::{Canonical, Centre, Clip, Heading, Preprocess, Resample, Scale, Timing, canonical, prepare};

/// How far a joint may lie from where `kinect1_20` has it: other layouts have other hip centres, hands and feet.
const NEAR: f32 = 0.18;

/// Place of a joint of a body that faces −z, in metres: x to its right, y up from the floor.
fn place(name: &str) -> [f32; 3] {
    let joint = split(name);
    let [x, y, z] = match joint.name.as_str() {
        "bodyroot" => [0.0, 0.0, 0.0],
        "hipcenter" | "spinebase" | "pelvis" | "hips" => [0.0, 1.0, 0.0],
        "waist" => [0.0, 1.05, 0.0],
        "spinelower" | "spine1" => [0.0, 1.1, 0.0],
        "spinenavel" => [0.0, 1.18, 0.0],
        "spine" | "spinemid" | "spinemiddle" | "spine2" => [0.0, 1.2, 0.0],
        "spineupper" | "spinehigh" | "spinechest" | "spine3" => [0.0, 1.32, 0.0],
        "chest" => [0.0, 1.38, 0.0],
        "shouldercenter" | "spineshoulder" => [0.0, 1.48, 0.0],
        "neck" => [0.0, 1.52, 0.0],
        "head" => [0.0, 1.65, 0.0],
        "nose" => [0.0, 1.63, -0.12],
        "eye" | "eyeinner" | "eyeouter" => [0.03, 1.67, -0.1],
        "ear" => [0.08, 1.65, 0.0],
        "mouth" => [0.02, 1.58, -0.1],
        "clavicle" | "collar" => [0.03, 1.45, 0.0],
        "scapula" => [0.1, 1.44, 0.05],
        "shoulder" => [0.19, 1.42, 0.0],
        "elbow" => [0.23, 1.15, 0.0],
        "wristtwist" => [0.25, 0.95, 0.0],
        "wrist" => [0.25, 0.9, 0.0],
        "hand" | "palm" => [0.25, 0.83, 0.0],
        "thumb" | "index" | "pinky" | "handtip" => [0.25, 0.77, 0.0],
        "hip" => [0.1, 0.95, 0.0],
        "knee" => [0.11, 0.5, 0.0],
        "ankle" => [0.12, 0.1, 0.0],
        "heel" => [0.12, 0.03, 0.06],
        "foot" | "footindex" => [0.12, 0.03, -0.12],
        bone if bone.ends_with("metacarpal") => [0.25, 0.87, 0.0],
        bone if ["proximal", "intermediate", "distal", "tip"].iter().any(|part| bone.ends_with(part)) => [0.25, 0.75, 0.0],
        other => panic!("no place for `{other}`"),
    };
    match joint.side {
        Side::Left => [-x, y, z],
        Side::Middle | Side::Right => [x, y, z],
    }
}

fn preprocess(heading: Heading, scale: Scale) -> Preprocess {
    Preprocess {
        layout: "kinect1_20".into(),
        joints: Layout::find("kinect1_20").unwrap().joints,
        derived: vec![],
        persons: 1,
        coords: 3,
        frames: 1,
        resample: Resample::Stretch,
        root: "hip_center".into(),
        centre: Centre::FirstFrame,
        heading,
        scale,
        velocities: false,
        mean: vec![0.0; 60],
        position_spread: 1.0,
        velocity_spread: 1.0,
    }
}

/// The body [joints, 3] of a layout, seen from another side.
fn body(layout: &Layout, yaw: f32) -> Vec<f32> {
    let (sin, cos) = yaw.sin_cos();
    let turned = |[x, y, z]: [f32; 3]| [cos * x - sin * z, y, sin * x + cos * z];
    layout.joints.iter().flat_map(|name| turned(place(name))).collect()
}

fn clip<'a>(layout: &'a Layout, joints: &'a [f32]) -> Clip<'a> {
    let (joints_per_person, timing) = (layout.joints.len(), Timing::Unknown);
    Clip { joints, frames: 1, persons: 1, joints_per_person, coords: 3, timing, layout: &layout.name, valid: None }
}

/// Expects `joints` [20, 3] to stand upright with left and right on their sides; `legs`: whether the layout has them.
fn expect_upright(joints: &[f32], legs: bool, of: &str) {
    let kinect = Layout::find("kinect1_20").unwrap();
    let at = |name: &str| -> [f32; 3] { std::array::from_fn(|axis| joints[kinect.joint(name).unwrap() * 3 + axis]) };
    let down = ["head", "shoulder_center", "spine", "hip_center"];
    assert!(down.windows(2).all(|pair| at(pair[0])[1] > at(pair[1])[1]), "{of}: the spine stands");
    for (side, sign) in [("left", -1.0), ("right", 1.0)] {
        let limbs = [["shoulder", "elbow", "wrist"], ["hip", "knee", "ankle"]];
        for limb in &limbs[..if legs { 2 } else { 1 }] {
            let names = limb.map(|joint| format!("{side}_{joint}"));
            assert!(names.windows(2).all(|pair| at(&pair[0])[1] > at(&pair[1])[1]), "{of}: {side} limbs hang");
            assert!(names.iter().all(|name| at(name)[0] * sign > 0.05), "{of}: {side} is on its side");
        }
        let hand = at(&format!("{side}_hand"));
        assert!(hand[1] <= at(&format!("{side}_wrist"))[1] && hand[0] * sign > 0.05, "{of}: the {side} hand hangs");
        if legs {
            let foot = at(&format!("{side}_foot"));
            assert!(foot[1] <= at(&format!("{side}_ankle"))[1] && foot[0] * sign > 0.05, "{of}: the {side} foot stands");
            assert!(
                at("head")[1] > at(&format!("{side}_shoulder"))[1] && at(&format!("{side}_shoulder"))[1] > at(&format!("{side}_hip"))[1]
            );
        }
    }
}

#[test]
fn every_layout_stands_as_kinect1_20_does() {
    let kinect = Layout::find("kinect1_20").unwrap();
    for layout in builtin_layouts() {
        let joints = body(layout, 0.0);
        let keep = preprocess(Heading::Keep, Scale::Keep);
        let Canonical { joints, missing, .. } = canonical(&keep, &clip(layout, &joints)).unwrap();
        let legs = layout.name != "xr_fb70";
        assert_eq!(missing, if legs { 0.0 } else { 8.0 / 20.0 }, "{}", layout.name);
        expect_upright(&joints, legs, &layout.name);
        let root = place("hip_center");
        for (name, got) in kinect.joints.iter().zip(joints.chunks_exact(3)) {
            let leg = ["hip", "knee", "ankle", "foot"].iter().any(|part| name.ends_with(part));
            if leg && !legs {
                assert_eq!(got, [0.0; 3], "{name} of {} is not known and stands at the root", layout.name);
                continue;
            }
            let expected = place(name);
            let distance = (0..3).map(|axis| (expected[axis] - root[axis] - got[axis]).powi(2)).sum::<f32>().sqrt();
            assert!(distance < NEAR, "{name} of {} lies {distance} m off", layout.name);
        }
    }
}

#[test]
fn every_layout_with_legs_is_turned_and_scaled_alike() {
    let segment = Scale::Segment { from: "hip_center".into(), to: "shoulder_center".into(), length: 0.5 };
    let model = preprocess(Heading::HipsToX, segment);
    for layout in builtin_layouts().iter().filter(|layout| layout.name != "xr_fb70") {
        for yaw in [0.0, 1.0, 3.0, -2.0] {
            let joints = body(layout, yaw);
            let prepared = prepare(&model, &clip(layout, &joints)).unwrap();
            expect_upright(&prepared.features, true, &layout.name);
            assert!((prepared.features[2 * 3 + 1] - 0.5).abs() < 1e-5, "{}: the torso has the model's length", layout.name);
        }
    }
}
