//! The steps from clip to features against hand-made clips, laws and real data.

use proptest::prelude::*;

use super::*;
use crate::Error;
use crate::formats::{ClipArchive, tests::shared};

const HIP: usize = 0;
const SHOULDERS: usize = 2;
const LEFT_HIP: usize = 12;
const RIGHT_HIP: usize = 16;

fn kinect() -> Layout {
    Layout::find("kinect1_20").unwrap()
}

/// The demo model's settings with neutral statistics.
fn settings() -> Preprocess {
    let segment = Scale::Segment { from: "hip_center".into(), to: "shoulder_center".into(), length: 0.5 };
    Preprocess {
        layout: "kinect1_20".into(),
        joints: kinect().joints,
        derived: vec![],
        persons: 1,
        coords: 3,
        frames: 64,
        resample: Resample::Stretch,
        root: "hip_center".into(),
        centre: Centre::FloorPerFrame,
        heading: Heading::HipsToX,
        scale: segment,
        velocities: true,
        mean: vec![0.0; 60],
        position_spread: 1.0,
        velocity_spread: 1.0,
    }
}

/// Nothing but mapping and filling.
fn plain(frames: usize) -> Preprocess {
    Preprocess { frames, centre: Centre::FirstFrame, heading: Heading::Keep, scale: Scale::Keep, velocities: false, ..settings() }
}

/// A body [frames, 1, 20, 3] that stands 3 m from the sensor, faces it and walks to the side.
fn body(frames: usize) -> Vec<f32> {
    let mut joints = vec![0.0; frames * 60];
    for (frame, row) in joints.chunks_exact_mut(60).enumerate() {
        for (joint, xyz) in row.chunks_exact_mut(3).enumerate() {
            let wave = (frame as f32 * 0.3 + joint as f32).sin() * 0.05;
            xyz.copy_from_slice(&[0.1 * frame as f32 + wave, joint as f32 * 0.01, 3.0 + wave]);
        }
        row[SHOULDERS * 3..][..3].copy_from_slice(&[0.1 * frame as f32, 0.4, 3.0]);
        row[HIP * 3..][..3].copy_from_slice(&[0.1 * frame as f32, 0.0, 3.0]);
        row[LEFT_HIP * 3..][..3].copy_from_slice(&[0.1 * frame as f32 - 0.1, -0.1, 3.0]);
        row[RIGHT_HIP * 3..][..3].copy_from_slice(&[0.1 * frame as f32 + 0.1, -0.1, 3.0]);
    }
    joints
}

fn clip(joints: &[f32]) -> Clip<'_> {
    let frames = joints.len() / 60;
    Clip { joints, frames, persons: 1, joints_per_person: 20, coords: 3, timing: Timing::Rate(30.0), layout: "kinect1_20", valid: None }
}

fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

/// Turned by `yaw` radians about y through the origin.
fn turned(joints: &[f32], yaw: f32) -> Vec<f32> {
    let (sin, cos) = yaw.sin_cos();
    joints.chunks_exact(3).flat_map(|p| [cos * p[0] - sin * p[2], p[1], sin * p[0] + cos * p[2]]).collect()
}

#[test]
fn place_heading_and_size_do_not_matter() {
    let joints = body(20);
    let expected = prepare(&settings(), &clip(&joints)).unwrap();
    assert_eq!((expected.features.len(), expected.missing), (64 * 120, 0.0));
    for (yaw, size) in [(0.7, 1.0), (-2.5, 0.5), (3.1, 3.0)] {
        let moved: Vec<f32> = turned(&joints, yaw).iter().enumerate().map(|(i, x)| x * size + [5.0, -2.0, 1.0][i % 3]).collect();
        let got = prepare(&settings(), &clip(&moved)).unwrap();
        assert!(close(&got.features, &expected.features, 2e-5), "yaw {yaw}, size {size}");
    }
}

#[test]
fn canonical_bodies_stand_at_the_origin_facing_the_sensor() {
    let joints = turned(&body(20), 1.2);
    let canonical = canonical(&settings(), &clip(&joints)).unwrap();
    assert_eq!((canonical.frames, canonical.present.as_slice(), canonical.timed), (20, [true].as_slice(), true));
    assert!((canonical.times[19] - 19.0 / 30.0).abs() < 1e-9);
    for row in canonical.joints.chunks_exact(60) {
        assert!(close(&row[..3], &[0.0; 3], 1e-6), "the root stays at the origin of the floor");
        assert!(close(&row[SHOULDERS * 3..][..3], &[0.0, 0.5, 0.0], 1e-5), "the torso has the length asked for");
    }
    let row = &canonical.joints[..60];
    assert!(row[LEFT_HIP * 3] < -0.1 && row[RIGHT_HIP * 3] > 0.1 && (row[LEFT_HIP * 3 + 2] - row[RIGHT_HIP * 3 + 2]).abs() < 1e-5);
}

#[test]
fn centring_on_the_first_frame_keeps_the_way() {
    let joints = body(20);
    let first = canonical(&plain(20), &clip(&joints)).unwrap();
    let expected: Vec<f32> = joints.chunks_exact(3).flat_map(|p| [p[0] - joints[0], p[1] - joints[1], p[2] - joints[2]]).collect();
    assert_eq!(first.joints, expected);
    // On the floor of each frame the height stays relative to the first frame.
    let mut jumping = joints;
    jumping[60..].iter_mut().skip(1).step_by(3).for_each(|y| *y += 0.25);
    let floor = canonical(&Preprocess { centre: Centre::FloorPerFrame, ..plain(20) }, &clip(&jumping)).unwrap();
    assert_eq!(&floor.joints[..3], [0.0, 0.0, 0.0]);
    assert_eq!(&floor.joints[60..63], [0.0, 0.25, 0.0]);
}

#[test]
fn joints_are_filled_from_the_nearest_frame_the_earlier_on_ties() {
    let joints = body(7);
    let mut valid = vec![1u8; 140];
    let hand = 7;
    for frame in [0, 2, 3, 4, 6] {
        valid[frame * 20 + hand] = 0;
    }
    let flagged = Clip { valid: Some(&valid), ..clip(&joints) };
    let got = canonical(&plain(7), &flagged).unwrap();
    let full = canonical(&plain(7), &clip(&joints)).unwrap();
    for (frame, from) in [1, 1, 1, 1, 5, 5, 5].into_iter().enumerate() {
        assert_eq!(got.joints[frame * 60 + hand * 3..][..3], full.joints[from * 60 + hand * 3..][..3], "frame {frame}");
    }
    assert_eq!(got.missing, 5.0 / 140.0);
    // A coordinate that is not finite masks its joint in the same way.
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut joints = joints.clone();
        for frame in [0, 2, 3, 4, 6] {
            joints[frame * 60 + hand * 3 + 1] = poison;
        }
        assert_eq!(canonical(&plain(7), &clip(&joints)).unwrap(), got);
    }
}

#[test]
fn joints_never_seen_stand_at_the_root_and_are_counted() {
    let joints = body(4);
    let mut valid = vec![1u8; 80];
    (0..4).for_each(|frame| valid[frame * 20 + 5] = 0); // an elbow, which nothing stands in for
    let got = canonical(&plain(4), &Clip { valid: Some(&valid), ..clip(&joints) }).unwrap();
    assert!((0..4).all(|frame| got.joints[frame * 60 + 15..][..3] == got.joints[frame * 60..][..3]));
    assert_eq!(got.missing, 4.0 / 80.0);
    // Without a root the mean of the other joints of the frame stands for it.
    let mut valid = vec![0u8; 80];
    (0..4).for_each(|frame| valid[frame * 20 + 4..][..2].fill(1));
    let got = canonical(&plain(4), &Clip { valid: Some(&valid), ..clip(&joints) }).unwrap();
    assert_eq!(got.missing, 72.0 / 80.0);
    let row = &got.joints[..60];
    assert_eq!(row[..3], [0.0; 3]);
    assert!((0..3).all(|axis| (row[12 + axis] + row[15 + axis]).abs() < 1e-6), "both joints lie about their mean");
}

#[test]
fn a_joint_never_seen_is_derived_as_if_the_layout_lacked_it() {
    let joints = body(4);
    let mut valid = vec![1u8; 80];
    (0..4).for_each(|frame| valid[frame * 20 + HIP] = 0);
    let keep = Preprocess { root: "head".into(), ..plain(4) };
    let full = canonical(&keep, &clip(&joints)).unwrap();
    let got = canonical(&keep, &Clip { valid: Some(&valid), ..clip(&joints) }).unwrap();
    for (row, full) in got.joints.chunks_exact(60).zip(full.joints.chunks_exact(60)) {
        for axis in 0..3 {
            let middle = f32::midpoint(full[LEFT_HIP * 3 + axis], full[RIGHT_HIP * 3 + axis]);
            assert!((row[HIP * 3 + axis] - middle).abs() < 1e-6);
        }
        assert_eq!(row[3..], full[3..]);
    }
    assert_eq!(got.missing, 4.0 / 80.0, "it was not seen, so it counts as missing");
}

/// Trackers that vouch for a centre now and then, or have it elsewhere, give what a tracker without one gives.
#[test]
fn a_derived_joint_is_never_read() {
    let model = Preprocess { derived: vec!["hip_center".into(), "spine".into(), "left_foot".into()], ..settings() };
    model.check().unwrap();
    let (joints, elsewhere) = (body(8), {
        let mut joints = body(8);
        joints.chunks_exact_mut(60).for_each(|row| [HIP, 1, 15].into_iter().for_each(|joint| row[joint * 3 + 1] += 0.3));
        joints
    });
    let expected = prepare(&model, &clip(&joints)).unwrap();
    assert_eq!(expected.missing, 0.0, "what is never read is not missing");
    assert_ne!(expected, prepare(&settings(), &clip(&joints)).unwrap());
    for vouched in 0..8 {
        let mut valid = vec![1u8; 160];
        (0..8).filter(|frame| *frame != vouched).for_each(|frame| [HIP, 1, 15].into_iter().for_each(|joint| valid[frame * 20 + joint] = 0));
        assert_eq!(prepare(&model, &Clip { valid: Some(&valid), ..clip(&elsewhere) }).unwrap(), expected);
    }
    let canonical = canonical(&Preprocess { derived: model.derived.clone(), ..plain(8) }, &clip(&elsewhere)).unwrap();
    let row = &canonical.joints[..60];
    let middle = |a: usize, b: usize| -> Vec<f32> { (0..3).map(|axis| f32::midpoint(row[a * 3 + axis], row[b * 3 + axis])).collect() };
    assert!(close(&row[HIP * 3..][..3], &middle(LEFT_HIP, RIGHT_HIP), 1e-6));
    assert!(close(&row[3..6], &middle(HIP, SHOULDERS), 1e-6), "the spine lies between hips and shoulders");
    assert_eq!(row[15 * 3..][..3], row[14 * 3..][..3], "the foot is at its ankle");
    // The same joints by other names: ntu25's spine base and mid are not read, its hips are.
    let ntu = Layout::find("ntu25").unwrap();
    let middle = ["spine_base", "spine_mid", "left_foot"].map(|name| ntu.joint(name).unwrap());
    let ways = ntu.ways_to(&kinect(), &model.derived);
    assert!(ways.iter().flatten().flatten().all(|joint| !middle.contains(joint)));
    assert!(ways.iter().all(|ways| !ways.is_empty()));
}

#[test]
fn a_joint_made_of_several_needs_all_of_them() {
    let coco = Layout::find("coco17").unwrap();
    let mut joints = vec![0.0f32; 17 * 3];
    joints.chunks_exact_mut(3).enumerate().for_each(|(joint, xyz)| xyz.copy_from_slice(&[joint as f32, 1.0, 2.0]));
    let (left, right) = (coco.joint("left_hip").unwrap(), coco.joint("right_hip").unwrap());
    let of_coco = |joints: &[f32]| {
        let timing = Timing::Unknown;
        let clip = Clip { joints, frames: 1, persons: 1, joints_per_person: 17, coords: 3, timing, layout: "coco17", valid: None };
        canonical(&plain(1), &clip).unwrap()
    };
    let whole = of_coco(&joints);
    assert_eq!(whole.missing, 0.0);
    assert_eq!(whole.joints[SHOULDERS * 3], 5.5 - (left + right) as f32 / 2.0);
    joints[left * 3] = f32::NAN;
    // Left hip, hip centre and spine need it.
    assert_eq!(of_coco(&joints).missing, 3.0 / 20.0);
}

#[test]
fn the_most_moving_persons_come_first_and_absent_ones_are_zero() {
    let (still, moving) = (body(1).repeat(6), body(6));
    let mut joints = Vec::new();
    for frame in 0..6 {
        joints.extend_from_slice(&[f32::NAN; 60]); // an empty slot
        joints.extend_from_slice(&still[frame * 60..][..60]);
        joints.extend_from_slice(&moving[frame * 60..][..60]);
    }
    let three = Clip { persons: 3, frames: 6, ..clip(&joints) };
    let alone = canonical(&plain(6), &clip(&moving)).unwrap();
    assert_eq!(canonical(&plain(6), &three).unwrap().joints, alone.joints);
    let pair = Preprocess { persons: 2, mean: vec![0.5; 120], velocities: true, ..plain(6) };
    let both = canonical(&pair, &three).unwrap();
    assert_eq!((both.present.as_slice(), both.missing), ([true, true].as_slice(), 0.0));
    assert!((0..6).all(|frame| both.joints[frame * 120..][..60] == alone.joints[frame * 60..][..60]));
    // The second person is centred on the first one's root.
    assert_eq!(both.joints[60], 0.0);
    assert_eq!(both.joints[3 * 120 + 60 + 3] - both.joints[60 + 3], 0.0);
    let one = prepare(&pair, &clip(&moving)).unwrap();
    for row in one.features.chunks_exact(240) {
        assert!(row[60..120].iter().chain(&row[180..]).all(|x| *x == 0.0), "an absent person is zero, not minus the mean");
        assert!(row[..60].iter().any(|x| *x != 0.0));
    }
}

#[test]
fn features_are_positions_then_velocities_standardised() {
    let joints = body(5);
    let mean: Vec<f32> = (0..60).map(|i| i as f32 * 0.01).collect();
    let statistics = Preprocess { velocities: true, mean: mean.clone(), position_spread: 0.5, velocity_spread: 0.1, ..plain(5) };
    let canonical = canonical(&statistics, &clip(&joints)).unwrap();
    let features = finish(&statistics, &canonical).unwrap().features;
    for frame in 0..5 {
        for value in 0..60 {
            let here = canonical.joints[frame * 60 + value];
            let next = canonical.joints[(frame + 1).min(4) * 60 + value];
            assert!((features[frame * 120 + value] - (here - mean[value]) / 0.5).abs() < 1e-5);
            assert!((features[frame * 120 + 60 + value] - (next - here) / 0.1).abs() < 1e-5);
        }
    }
    assert!(features[4 * 120 + 60..].iter().all(|x| *x == 0.0));
}

#[test]
fn timestamps_count_not_frames() {
    // The same straight walk, once even and once with frames dropped: stretching by time gives the same.
    let way = |frames: &[usize]| -> Vec<f32> {
        frames
            .iter()
            .flat_map(|frame| body(1).into_iter().enumerate().map(move |(i, x)| if i % 3 == 0 { x + *frame as f32 } else { x }))
            .collect()
    };
    let even = way(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let expected = prepare(&plain(32), &clip(&even)).unwrap();
    let kept = [0, 1, 5, 6, 9];
    let stamps: Vec<u64> = kept.iter().map(|frame| 7_000_000_000_000 + *frame as u64 * 33_333_333).collect();
    let dropped = way(&kept);
    let got = prepare(&plain(32), &Clip { timing: Timing::Timestamps(&stamps), ..clip(&dropped) }).unwrap();
    assert!(close(&got.features, &expected.features, 1e-4));
}

#[test]
fn a_fixed_rate_needs_a_known_timing() {
    let rate = Preprocess { resample: Resample::Rate { fps: 15.0 }, ..plain(32) };
    let joints = body(9);
    assert!(prepare(&rate, &clip(&joints)).is_ok());
    let unknown = Clip { timing: Timing::Unknown, ..clip(&joints) };
    assert!(matches!(prepare(&rate, &unknown), Err(Error::InvalidArgument { what: "timing", .. })));
}

#[test]
fn one_frame_is_enough() {
    let joints = body(1);
    let got = prepare(&settings(), &clip(&joints)).unwrap();
    assert!(got.features.chunks_exact(120).all(|row| row[..60] == got.features[..60] && row[60..].iter().all(|x| *x == 0.0)));
}

#[test]
fn unusable_clips_have_their_errors() {
    let joints = body(3);
    let error = |clip: &Clip<'_>| prepare(&settings(), clip).unwrap_err();
    assert!(matches!(error(&Clip { frames: 0, joints: &[], ..clip(&joints) }), Error::EmptyClip { .. }));
    assert!(matches!(error(&clip(&[f32::NAN; 180])), Error::EmptyClip { .. }));
    assert!(matches!(error(&Clip { valid: Some(&[0; 60]), ..clip(&joints) }), Error::EmptyClip { .. }));
    assert!(matches!(error(&Clip { layout: "starfish", ..clip(&joints) }), Error::UnknownLayout { .. }));
    assert!(matches!(error(&Clip { layout: "coco17", ..clip(&joints) }), Error::Shape { .. }));
    assert!(matches!(error(&clip(&[f32::MAX, f32::MIN].repeat(90))), Error::InvalidArgument { .. } | Error::EmptyClip { .. }));
    assert!(matches!(error(&clip(&[1.0; 180])), Error::EmptyClip { .. }), "a body that is a point has no size");
    let flat = Clip { coords: 2, joints: &joints[..120], ..clip(&joints) };
    assert!(matches!(error(&flat), Error::InvalidArgument { what: "coords", .. }));
    Layout::register("test_tail", &["tail_base", "tail_tip"]).unwrap();
    let tail = Clip { layout: "test_tail", joints_per_person: 2, joints: &joints[..18], ..clip(&joints) };
    assert!(matches!(error(&tail), Error::EmptyClip { .. }));
}

#[test]
fn a_model_brings_its_own_layout() {
    let joints: Vec<String> = ["tail_base", "tail_tip"].map(String::from).to_vec();
    let own = Preprocess {
        layout: "test_unregistered".into(),
        joints,
        root: "tail_base".into(),
        heading: Heading::Keep,
        scale: Scale::Keep,
        mean: vec![0.0; 6],
        ..plain(3)
    };
    own.check().unwrap();
    let data = body(3);
    let clip = Clip { layout: "test_unregistered", joints_per_person: 2, joints: &data[..18], ..clip(&data) };
    assert_eq!(prepare(&own, &clip).unwrap().features.len(), 18);
}

#[test]
fn each_bad_setting_is_named() {
    settings().check().unwrap();
    plain(1).check().unwrap();
    let says = |preprocess: Preprocess, field: &str| {
        let error = preprocess.check().unwrap_err().to_string();
        assert!(error.starts_with(&format!("preprocess.{field}:")), "`{error}` is not about {field}");
    };
    says(Preprocess { joints: vec![], ..settings() }, "joints");
    says(Preprocess { joints: kinect().joints[1..].to_vec(), ..settings() }, "joints");
    says(Preprocess { joints: kinect().joints.into_iter().rev().collect(), ..settings() }, "joints");
    says(Preprocess { layout: String::new(), ..settings() }, "joints");
    says(Preprocess { derived: vec!["tail".into()], ..settings() }, "derived");
    says(Preprocess { derived: vec!["left_knee".into()], ..settings() }, "derived"); // nothing stands in for it
    says(Preprocess { derived: ["hip_center", "left_hip"].map(str::to_owned).to_vec(), ..settings() }, "derived");
    says(Preprocess { persons: 0, ..settings() }, "persons");
    says(Preprocess { persons: 3, ..settings() }, "persons");
    says(Preprocess { coords: 4, ..settings() }, "coords");
    says(Preprocess { frames: 0, ..settings() }, "frames");
    says(Preprocess { frames: usize::MAX, ..settings() }, "frames");
    says(Preprocess { resample: Resample::Rate { fps: 0.0 }, ..settings() }, "resample");
    says(Preprocess { resample: Resample::Rate { fps: f32::NAN }, ..settings() }, "resample");
    says(Preprocess { root: "tail".into(), ..settings() }, "root");
    says(Preprocess { coords: 2, mean: vec![0.0; 40], ..settings() }, "heading");
    let segment = |to: &str, length| Scale::Segment { from: "head".into(), to: to.into(), length };
    says(Preprocess { scale: segment("tail", 1.0), ..settings() }, "scale");
    says(Preprocess { scale: segment("head", 1.0), ..settings() }, "scale");
    says(Preprocess { scale: segment("spine", 0.0), ..settings() }, "scale");
    says(Preprocess { scale: segment("spine", f32::INFINITY), ..settings() }, "scale");
    says(Preprocess { mean: vec![0.0; 59], ..settings() }, "mean");
    says(Preprocess { mean: vec![f32::NAN; 60], ..settings() }, "mean");
    says(Preprocess { position_spread: 0.0, ..settings() }, "position_spread");
    says(Preprocess { velocity_spread: f32::NAN, ..settings() }, "velocity_spread");
}

#[test]
fn settings_survive_json() {
    let text = serde_json::to_string(&settings()).unwrap();
    assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), settings());
    assert!(serde_json::from_str::<Preprocess>(&text.replace("\"root\"", "\"roof\"")).is_err());
}

#[test]
fn every_real_clip_prepares() {
    for (name, file) in [("utd_mhad", 861), ("msr_action3d", 566), ("nw_ucla", 1484)] {
        let Some(path) = shared("every_real_clip_prepares", &format!("data/{name}.safetensors")) else { return };
        let archive = ClipArchive::read(&path).unwrap();
        let failed: Vec<_> =
            archive.clips.iter().filter_map(|clip| prepare(&settings(), &clip.view()).err().map(|e| (&clip.name, e))).collect();
        assert!(failed.is_empty(), "{} of {file}: {:?}", failed.len(), failed[0]);
    }
}

#[test]
fn subjects_of_utd_mhad_face_the_sensor() {
    let Some(path) = shared("subjects_of_utd_mhad_face_the_sensor", "data/utd_mhad.safetensors") else { return };
    let archive = ClipArchive::read(&path).unwrap();
    for clip in &archive.clips {
        // As recorded: the left hip at −x of the right one, within 27° of the x axis.
        let across = |axis: usize| -> f32 {
            clip.joints.chunks_exact(60).take(5).map(|row| row[LEFT_HIP * 3 + axis] - row[RIGHT_HIP * 3 + axis]).sum()
        };
        let yaw = across(2).atan2(-across(0)).to_degrees();
        assert!(yaw.abs() < 27.0, "{}: {yaw}°", clip.name);
        // So turning the hips to x hardly turns the clip, and never by half a turn.
        let turned = canonical(&Preprocess { heading: Heading::HipsToX, ..plain(64) }, &clip.view()).unwrap();
        let kept = canonical(&plain(64), &clip.view()).unwrap();
        let (mut dot, mut norm) = (0.0, 0.0);
        for (a, b) in turned.joints.iter().zip(&kept.joints) {
            dot += f64::from(a * b);
            norm += f64::from(b * b);
        }
        assert!(dot > 0.9 * norm, "{}", clip.name);
        // Sizes of people after scaling: 0.5 from hip to shoulder centre, nothing further than three metres of that scale from the root.
        let scaled = prepare(&settings(), &clip.view()).unwrap();
        assert_eq!(scaled.missing, 0.0);
        assert!(scaled.features.iter().all(|x| x.abs() < 3.0), "{}", clip.name);
    }
}

proptest! {
    #[test]
    fn preparing_never_panics_and_stays_finite(
        joints in prop::collection::vec(
            prop_oneof![8 => -3.0..3.0f32, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => any::<f32>(), 1 => Just(0.0f32)],
            0..(6 * 2 * 5 * 3),
        ),
        valid in prop::option::of(prop::collection::vec(0..2u8, 90)),
        persons in 1..3usize,
        coords in 2..4usize,
        timing in 0..3usize,
        model in (1..3usize, 1..20usize, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        Layout::register("test_five", &["pelvis", "neck", "left_hip", "right_hip", "head"]).unwrap();
        let frames = joints.len() / (persons * 5 * coords);
        let joints = &joints[..frames * persons * 5 * coords];
        let stamps: Vec<u64> = (0..frames as u64).map(|i| i * i * 1_000 + i).collect();
        let timing = [Timing::Unknown, Timing::Rate(25.0), Timing::Timestamps(&stamps)][timing];
        let valid = valid.as_ref().map(|valid| &valid[..frames * persons * 5]);
        let clip = Clip { joints, frames, persons, joints_per_person: 5, coords, timing, layout: "test_five", valid };
        let (model_persons, model_frames, floor, turn, sized, stretch) = model;
        let preprocess = Preprocess {
            persons: model_persons,
            frames: model_frames,
            centre: if floor { Centre::FloorPerFrame } else { Centre::FirstFrame },
            heading: if turn { Heading::HipsToX } else { Heading::Keep },
            scale: if sized { settings().scale } else { Scale::Keep },
            resample: if stretch { Resample::Stretch } else { Resample::Rate { fps: 10.0 } },
            mean: vec![0.1; model_persons * 60],
            ..settings()
        };
        preprocess.check().unwrap();
        match prepare(&preprocess, &clip) {
            Ok(prepared) => {
                prop_assert_eq!(coords, 3);
                prop_assert_eq!(prepared.features.len(), model_frames * preprocess.features());
                prop_assert!(prepared.features.iter().all(|x| x.is_finite()));
                prop_assert!((0.0..=1.0).contains(&prepared.missing));
            }
            Err(Error::EmptyClip { .. } | Error::InvalidArgument { .. }) => {}
            Err(other) => prop_assert!(false, "unexpected error: {}", other),
        }
    }
}
