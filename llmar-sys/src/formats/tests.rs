//! Readers against genuine files where they are there, and against damaged ones.

use std::collections::HashMap;
use std::path::PathBuf;

use safetensors::tensor::{Dtype, TensorView};

use super::*;

/// A file of the shared data folder; `None` after naming the test as skipped.
pub(crate) fn shared(test: &str, file: &str) -> Option<PathBuf> {
    let folder =
        std::env::var_os("LLMAR_SHARED").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let path = folder.join(file);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED {test}: shared/{file} is not there");
    None
}

fn test_clips(archive: &ClipArchive, split: &str) -> usize {
    archive.splits[split].iter().filter(|test| **test).count()
}

#[test]
fn utd_mhad_has_its_published_counts() {
    let Some(path) = shared("utd_mhad_has_its_published_counts", "data/utd_mhad.safetensors") else { return };
    let archive = ClipArchive::read(&path).unwrap();
    assert_eq!((archive.clips.len(), archive.classes.len(), archive.layout.as_str(), archive.fps), (861, 27, "kinect1_20", Some(30.0)));
    assert_eq!(archive.subjects.iter().collect::<std::collections::BTreeSet<_>>().len(), 8);
    assert_eq!(test_clips(&archive, "cross_subject"), 430);
    assert!(archive.subjects.iter().zip(&archive.splits["cross_subject"]).all(|(subject, test)| (subject % 2 == 0) == *test));
    let mut frames: Vec<usize> = archive.clips.iter().map(|clip| clip.frames).collect();
    frames.sort_unstable();
    assert_eq!((frames[0], frames[430], frames[860]), (41, 67, 125));
    assert_eq!(archive.clips[860].name, "utd_mhad#860");
    assert!(archive.clips.iter().all(|clip| clip.valid.is_none() && clip.view().check().is_ok()));
    assert_eq!(archive.classes[archive.labels[860]], "squat");
}

#[test]
fn msr_action3d_has_its_published_counts() {
    let Some(path) = shared("msr_action3d_has_its_published_counts", "data/msr_action3d.safetensors") else { return };
    let archive = ClipArchive::read(&path).unwrap();
    assert_eq!((archive.clips.len(), archive.classes.len(), archive.layout.as_str(), archive.fps), (566, 20, "kinect1_20", Some(15.0)));
    assert_eq!(archive.subjects.iter().collect::<std::collections::BTreeSet<_>>().len(), 10);
    assert!(archive.subjects.iter().zip(&archive.splits["cross_subject"]).all(|(subject, test)| (subject % 2 == 0) == *test));
    assert!(archive.clips.iter().all(|clip| clip.valid.as_ref().is_some_and(|valid| valid.len() == clip.frames * 20)));
    assert!(archive.clips.iter().all(|clip| clip.view().check().is_ok()));
}

#[test]
fn nw_ucla_has_its_published_counts() {
    let Some(path) = shared("nw_ucla_has_its_published_counts", "data/nw_ucla.safetensors") else { return };
    let archive = ClipArchive::read(&path).unwrap();
    assert_eq!((archive.clips.len(), archive.classes.len(), archive.layout.as_str(), archive.fps), (1484, 10, "kinect1_20", None));
    assert_eq!(test_clips(&archive, "cross_view"), 464);
    assert!(archive.cameras.iter().zip(&archive.splits["cross_view"]).all(|(camera, test)| (*camera == 3) == *test));
    assert_eq!(archive.clips.iter().map(|clip| clip.frames).min(), Some(1));
    assert_eq!(archive.clips.iter().filter(|clip| clip.frames < 8).count(), 4);
}

#[test]
fn jhmdb_registers_its_own_layout() {
    let Some(path) = shared("jhmdb_registers_its_own_layout", "data/jhmdb14.safetensors") else { return };
    let archive = ClipArchive::read(&path).unwrap();
    assert_eq!((archive.clips.len(), archive.classes.len(), archive.splits.len()), (609, 14, 3));
    assert_eq!((archive.clips[0].coords, archive.clips[0].joints_per_person), (2, 15));
    let layout = crate::skeleton::Layout::find(&archive.layout).unwrap();
    assert_eq!((layout.joints[1].as_str(), layout.parents[0], layout.parents[14]), ("belly", None, Some(10)));
    assert!(archive.clips[0].view().check().is_ok());
    // Read twice, the layout is the same one.
    assert_eq!(read_clips(&path).unwrap(), archive.clips);
}

#[test]
fn nw_ucla_json_equals_its_clip_in_the_archive() {
    let name = "nw_ucla_json_equals_its_clip_in_the_archive";
    let Some(path) = shared(name, "data/raw/nw_ucla/a12_s10_e04_v03.json") else { return };
    let clips = read_clips(&path).unwrap();
    assert_eq!((clips.len(), clips[0].name.as_str(), clips[0].layout.as_str()), (1, "a12_s10_e04_v03", "kinect1_20"));
    clips[0].view().check().unwrap();
    let Some(archive) = shared(name, "data/nw_ucla.safetensors") else { return };
    assert!(ClipArchive::read(&archive).unwrap().clips.iter().any(|clip| clip.joints == clips[0].joints));
}

// ---- damaged archives ----

struct Fake {
    about: String,
    joints: Vec<usize>,
    offsets: Vec<i64>,
    labels: Vec<i64>,
    extra: Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Default for Fake {
    fn default() -> Self {
        let about = r#"{"name": "fake_clips", "classes": ["a", "b"], "joints": ["head", "left_hand"], "parents": [-1, 0], "fps": null}"#;
        Self { about: about.into(), joints: vec![3, 1, 2, 3], offsets: vec![0, 1, 3], labels: vec![0, 1], extra: Vec::new() }
    }
}

impl Fake {
    fn bytes(&self) -> Vec<u8> {
        let le = |numbers: &[i64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let joints: Vec<u8> = (0..self.joints.iter().product::<usize>()).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let (offsets, labels) = (le(&self.offsets), le(&self.labels));
        let mut tensors = vec![
            ("joints", TensorView::new(Dtype::F32, self.joints.clone(), &joints).unwrap()),
            ("offsets", TensorView::new(Dtype::I64, vec![self.offsets.len()], &offsets).unwrap()),
            ("labels", TensorView::new(Dtype::I64, vec![self.labels.len()], &labels).unwrap()),
        ];
        for (name, dtype, shape, data) in &self.extra {
            tensors.push((name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        }
        safetensors::serialize(tensors, Some(HashMap::from([("clips".to_owned(), self.about.clone())]))).unwrap()
    }

    fn parse(&self) -> Result<ClipArchive> {
        ClipArchive::parse("fake.safetensors", "fake", &Bytes::copy_from(&self.bytes()))
    }

    fn error(&self) -> String {
        match self.parse() {
            Err(error @ Error::Format { .. }) => error.to_string(),
            other => panic!("expected a format error, got {other:?}"),
        }
    }
}

#[test]
fn a_small_archive_is_read_as_written() {
    let confidence: Vec<u8> = [1.0f32, 0.0, f32::NAN, -1.0, 0.5, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let extra = vec![
        ("confidence", Dtype::F32, vec![3, 2], confidence),
        ("valid", Dtype::U8, vec![3, 1, 2], vec![1, 1, 1, 1, 1, 0]),
        ("split.half.test", Dtype::U8, vec![2], vec![0, 1]),
    ];
    let archive = Fake { extra, ..Fake::default() }.parse().unwrap();
    assert_eq!((archive.name.as_str(), archive.layout.as_str()), ("fake_clips", "fake_clips"));
    assert_eq!((archive.clips[0].frames, archive.clips[1].frames), (1, 2));
    assert_eq!(archive.clips[1].joints, (6..18).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!(archive.clips[0].valid.as_deref(), Some([1, 0].as_slice()));
    assert_eq!(archive.clips[1].valid.as_deref(), Some([0, 0, 1, 0].as_slice()));
    assert_eq!(archive.splits["half"], [false, true]);
}

#[test]
fn clips_are_views_where_their_numbers_are_aligned_and_copies_where_not() {
    let flags = ("valid", Dtype::U8, vec![3, 1, 2], vec![1, 1, 7, 1, 1, 0]);
    let aligned = Bytes::copy_from(&Fake { extra: vec![flags], ..Fake::default() }.bytes());
    // One byte of header more than the safetensors crate would write: everything behind it is moved.
    let mut moved = aligned.as_slice().to_vec();
    let length = u64::from_le_bytes(moved[..8].try_into().unwrap()) + 1;
    moved[..8].copy_from_slice(&length.to_le_bytes());
    moved.insert(8 + length as usize - 1, b' ');
    let moved = Bytes::copy_from(&moved);
    let parse = |bytes: &Bytes| ClipArchive::parse("fake", "fake", bytes).unwrap().clips;
    let inside = |bytes: &Bytes, at: usize| bytes.as_slice().as_ptr_range().contains(&(at as *const u8));
    let (views, copies) = (parse(&aligned), parse(&moved));
    for (view, copy) in views.iter().zip(&copies) {
        assert!(inside(&aligned, view.joints.as_ptr() as usize) && !inside(&moved, copy.joints.as_ptr() as usize));
        let valid = |clip: &OwnedClip| clip.valid.as_ref().unwrap().as_ptr() as usize;
        assert!(inside(&aligned, valid(view)) && inside(&moved, valid(copy)), "bytes are always aligned");
        assert_eq!(view, copy);
    }
    assert_eq!(views[1].joints, (6..18).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!(views[1].valid.as_deref(), Some([7, 1, 1, 0].as_slice()));
    // A clip outlives its archive and the name that the bytes had.
    let clip = views[1].clone();
    drop((views, aligned));
    assert_eq!(clip.joints[11], 17.0);
}

#[test]
fn each_damage_of_an_archive_is_named() {
    let says = |fake: Fake, words: &str| {
        let error = fake.error();
        assert!(error.contains(words), "`{error}` does not say `{words}`");
    };
    says(Fake { offsets: vec![0, 2, 1], ..Fake::default() }, "offsets");
    says(Fake { offsets: vec![0, 2, 4], ..Fake::default() }, "entry 2: expected 2..=3, got 4");
    says(Fake { offsets: vec![-1, 2, 3], ..Fake::default() }, "got -1");
    says(Fake { offsets: vec![], ..Fake::default() }, "[clips + 1]");
    says(Fake { offsets: vec![0, 3], ..Fake::default() }, "labels");
    says(Fake { labels: vec![0, 2], ..Fake::default() }, "clip 1: expected a class in 0..2, got 2");
    says(Fake { labels: vec![-1, 0], ..Fake::default() }, "got -1");
    says(Fake { joints: vec![3, 1, 3, 3], ..Fake::default() }, "joints");
    says(Fake { joints: vec![3, 1, 2, 4], ..Fake::default() }, "joints");
    says(Fake { joints: vec![3, 0, 2, 3], ..Fake::default() }, "joints");
    says(Fake { joints: vec![6, 3], ..Fake::default() }, "[frames, persons, joints, coords]");
    says(Fake { about: "{".into(), ..Fake::default() }, "metadata `clips`");
    says(Fake { about: Fake::default().about.replace("null", "-3"), ..Fake::default() }, "fps");
    says(Fake { about: Fake::default().about.replace("[-1, 0]", "[-1, 2]"), ..Fake::default() }, "parents");
    says(Fake { about: Fake::default().about.replace("[-1, 0]", "[-1]"), ..Fake::default() }, "parents");
    says(Fake { about: Fake::default().about.replace("fake_clips", "ntu25"), ..Fake::default() }, "ntu25");
    let with =
        |name, dtype, shape: &[usize], data: &[u8]| Fake { extra: vec![(name, dtype, shape.to_vec(), data.to_vec())], ..Fake::default() };
    says(with("valid", Dtype::U8, &[3], &[1; 3]), "valid");
    says(with("valid", Dtype::I8, &[6], &[1; 6]), "expected U8");
    says(with("subjects", Dtype::I64, &[1], &[0; 8]), "subjects");
    says(with("split.x.test", Dtype::U8, &[2], &[0, 2]), "clip 1: expected 0 or 1, got 2");
    says(with("split.x.test", Dtype::U8, &[3], &[0; 3]), "split.x.test");
}

#[test]
fn clips_without_end_are_refused_before_they_are_made() {
    let count = (1 << 20) + 1;
    let fake = Fake { joints: vec![0, 1, 2, 3], offsets: vec![0; count + 1], labels: vec![0; count], ..Fake::default() };
    assert!(matches!(fake.parse(), Err(Error::Limit { limit: 1_048_576, got: 1_048_577, .. })));
}

#[test]
fn a_truncated_archive_is_an_error_at_every_length() {
    let bytes = Fake::default().bytes();
    for length in 0..bytes.len() {
        let error = ClipArchive::parse("fake", "fake", &Bytes::copy_from(&bytes[..length])).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{length}: {error}");
    }
}

#[test]
fn the_kind_is_found_from_the_content_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.dat");
    let kind = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        read_clips(&path)
    };
    assert_eq!(kind(&Fake::default().bytes()).unwrap().len(), 2);
    let frame = format!("[{}]", vec!["[1, 2.5, -3e-1]"; 20].join(","));
    let clips = kind(format!(" {{\"skeletons\": [{frame}, {frame}], \"label\": 4}}").as_bytes()).unwrap();
    assert_eq!((clips[0].name.as_str(), clips[0].frames, &clips[0].joints[..3]), ("clip", 2, [1.0, 2.5, -0.3].as_slice()));
    for damaged in [
        "",
        "[]",
        "{}",
        "{\"skeletons\": [[[1, 2, 3]]]}",
        "{\"skeletons\": [[[1, 2]]]}",
        "{\"Frames\": []}",
        "{\"skeletons\": [], \"Frames\": []}",
    ] {
        assert!(matches!(kind(damaged.as_bytes()), Err(Error::Format { .. })), "{damaged}");
    }
    assert!(matches!(read_clips(&folder.path().join("absent")), Err(Error::Io { .. })));
}

// ---- DeepMimic ----

/// A frame of the body in its rest pose at `x`, upright.
fn rest(x: f64, duration: f64) -> Vec<f64> {
    let mut frame = vec![0.0; 44];
    (frame[0], frame[1], frame[2]) = (duration, x, 0.88);
    for at in [4, 8, 12, 16, 21, 25, 30, 35, 39] {
        frame[at] = 1.0;
    }
    frame
}

fn at(clip: &OwnedClip, frame: usize, joint: usize) -> [f32; 3] {
    let at = (frame * 20 + joint) * 3;
    [clip.joints[at], clip.joints[at + 1], clip.joints[at + 2]]
}

#[test]
fn the_rest_pose_faces_the_sensor() {
    // Two frames that walk along +x, the body's forward: in the clip forward is −z, left is −x.
    let clip = deepmimic::clip("rest", "rest".into(), Some("none"), &[rest(0.0, 0.1), rest(1.0, 0.0)]).unwrap();
    assert_eq!((clip.frames, clip.fps, clip.layout.as_str()), (2, Some(10.0), "kinect1_20"));
    let (left, right) = (at(&clip, 0, 4), at(&clip, 0, 8));
    assert!(left[0] < -0.18 && right[0] > 0.18 && (left[1] - right[1]).abs() < 1e-6);
    assert!((at(&clip, 1, 0)[2] - at(&clip, 0, 0)[2] + 1.0).abs() < 1e-5);
    // The foot points forward, the head is above, the ankles are below: 0.88 − 0.4215 − 0.4099 m.
    assert!(at(&clip, 0, 15)[2] < at(&clip, 0, 14)[2] - 0.1);
    assert!((at(&clip, 0, 18)[1] - 0.0486).abs() < 1e-4);
    assert!((at(&clip, 0, 3)[1] - (0.88 + 0.236151 + 0.223894 + 0.175)).abs() < 1e-5);
}

#[test]
fn hinges_and_quaternions_turn_the_limbs() {
    let mut bent = rest(0.0, 0.1);
    bent[20] = -std::f64::consts::FRAC_PI_2; // right knee: DeepMimic bends knees by negative angles, the shin goes back
    bent[43] = std::f64::consts::FRAC_PI_2; // left elbow: positive angles bring the hand forward
    // right shoulder by 90° about x: the arm, which hangs along −y, points to −z × … = R_x(90°)(−y) = −z, across the body
    (bent[25], bent[26]) = (std::f64::consts::FRAC_1_SQRT_2, std::f64::consts::FRAC_1_SQRT_2);
    let clip = deepmimic::clip("bent", "bent".into(), None, &[bent]).unwrap();
    let (knee, ankle) = (at(&clip, 0, 17), at(&clip, 0, 18));
    assert!((ankle[2] - knee[2] - 0.40987).abs() < 1e-5 && (ankle[1] - knee[1]).abs() < 1e-5, "the shin points back, to +z");
    let (elbow, wrist) = (at(&clip, 0, 5), at(&clip, 0, 6));
    assert!((wrist[2] - elbow[2] + 0.258947).abs() < 1e-5, "the forearm points forward, to −z");
    let (shoulder, elbow) = (at(&clip, 0, 8), at(&clip, 0, 9));
    assert!((elbow[0] - shoulder[0] + 0.274788).abs() < 1e-5, "the right arm points to the left, to −x");
}

#[test]
fn short_cycles_repeat_with_their_travel() {
    let cycle: Vec<Vec<f64>> = (0..=10).map(|i| rest(0.05 * f64::from(i), if i < 10 { 0.1 } else { 0.0 })).collect(); // 1 s, 0.5 m
    let clip = deepmimic::clip("walk", "walk".into(), Some("wrap"), &cycle).unwrap();
    assert_eq!(clip.frames, 31); // 3 s at 10 fps
    for frame in 0..clip.frames {
        assert!((at(&clip, frame, 0)[2] + 0.05 * frame as f32).abs() < 1e-5, "{frame}");
    }
    assert_eq!(deepmimic::clip("once", "once".into(), Some("none"), &cycle).unwrap().frames, 11);
    let long: Vec<Vec<f64>> = (0..30).map(|_| rest(0.0, 0.1)).collect();
    assert_eq!(deepmimic::clip("long", "long".into(), Some("wrap"), &long).unwrap().frames, 30);
}

#[test]
fn uneven_durations_come_out_at_an_even_rate() {
    let mut frames: Vec<Vec<f64>> = [0.0, 0.1, 0.2, 0.4, 0.5].iter().map(|x| rest(*x, 0.1)).collect();
    frames[2][0] = 0.2;
    let clip = deepmimic::clip("uneven", "uneven".into(), None, &frames).unwrap();
    assert_eq!((clip.frames, clip.fps), (6, Some(10.0)));
    assert!((at(&clip, 3, 0)[2] + 0.3).abs() < 1e-6);
}

#[test]
fn damaged_motions_are_named() {
    let says = |looped: Option<&str>, frames: &[Vec<f64>], words: &str| {
        let error = deepmimic::clip("m.txt", "m".into(), looped, frames).unwrap_err().to_string();
        assert!(error.contains(words), "`{error}` does not say `{words}`");
    };
    says(Some("sometimes"), &[rest(0.0, 0.1)], "Loop");
    says(None, &[], "at least one");
    says(None, &[rest(0.0, 0.1), vec![0.0; 20]], "Frames[1]: expected 44");
    let changed = |index: usize, value: f64| {
        let mut frame = rest(0.0, 0.1);
        frame[index] = value;
        [frame, rest(0.0, 0.1)]
    };
    says(None, &changed(0, 0.0), "duration");
    says(None, &changed(0, -1.0), "duration");
    says(None, &changed(2, f64::NAN), "number 2");
    says(None, &changed(20, 1e300), "number 20");
    says(None, &changed(4, 0.0), "quaternion");
    let mut slow = vec![rest(0.0, 1e-4), rest(0.0, 1e-4), rest(0.0, 1e6), rest(0.0, 0.0)];
    slow[1][0] = 1e-4;
    says(None, &slow, "frames");
}

#[test]
fn genuine_motions_are_bodies() {
    for (name, seconds) in [("walk", 3.0), ("kick", 1.5), ("backflip", 3.0)] {
        let Some(path) = shared("genuine_motions_are_bodies", &format!("data/raw/deepmimic_pybullet/humanoid3d_{name}.txt")) else {
            return;
        };
        let clip = read_clips(&path).unwrap().remove(0);
        clip.view().check().unwrap();
        let length = (clip.frames - 1) as f32 / clip.fps.unwrap();
        assert!((length - seconds).abs() < 0.1, "{name}: {length} s");
        // Bones between joints that move with one link keep their length; interpolation of even frames adds nothing.
        for (a, b) in [(4, 5), (5, 6), (8, 9), (9, 10), (12, 13), (13, 14), (16, 17), (17, 18), (12, 16), (4, 8), (0, 1)] {
            let bone = |frame| at(&clip, frame, a).iter().zip(at(&clip, frame, b)).map(|(x, y)| (x - y) * (x - y)).sum::<f32>().sqrt();
            let first = bone(0);
            assert!((0..clip.frames).all(|frame| (bone(frame) - first).abs() < 1e-3), "{name}: bone {a}-{b}");
        }
        assert!(at(&clip, 0, 12)[0] < at(&clip, 0, 16)[0] - 0.1, "{name}: the left hip is at −x of the right");
        let lowest = clip.joints.chunks_exact(3).map(|joint| joint[1]).fold(f32::MAX, f32::min);
        assert!((-0.1..0.15).contains(&lowest), "{name}: lowest joint at {lowest} m");
    }
}

#[test]
fn walking_alternates_and_goes_towards_the_sensor() {
    let Some(path) = shared("walking_alternates_and_goes_towards_the_sensor", "data/raw/deepmimic_pybullet/humanoid3d_walk.txt") else {
        return;
    };
    let clip = read_clips(&path).unwrap().remove(0);
    let last = clip.frames - 1;
    let (start, end) = (at(&clip, 0, 0), at(&clip, last, 0));
    assert!(end[2] - start[2] < -2.0, "three seconds of walking cover over two metres, to −z");
    // The ankles pass each other twice a cycle; knees bend forward of the line hip – ankle (−z); hands swing against the feet.
    let lead = |frame| at(&clip, frame, 14)[2] - at(&clip, frame, 18)[2];
    let passes = (1..clip.frames).filter(|&frame| (lead(frame) > 0.0) != (lead(frame - 1) > 0.0)).count();
    assert!((4..=6).contains(&passes), "{passes} passes");
    let swing: f32 = (0..clip.frames).map(|frame| lead(frame) * (at(&clip, frame, 6)[2] - at(&clip, frame, 10)[2])).sum();
    assert!(swing < 0.0, "arms swing against the legs");
    for frame in 0..clip.frames {
        for (hip, knee, ankle) in [(12, 13, 14), (16, 17, 18)] {
            let line = f32::midpoint(at(&clip, frame, hip)[2], at(&clip, frame, ankle)[2]);
            assert!(at(&clip, frame, knee)[2] < line + 0.01, "frame {frame}: the knee bends forward");
        }
    }
}
