//! On made-up frames, and on the genuine ones.

use llmar::formats::ClipArchive;
use llmar::skeleton::Layout;
use serde_json::{Value, json};

use super::super::{Format, read, scan};
use super::*;
use crate::cli::ConvertArgs;
use crate::testing::{Random, shared};

/// A person all of whose points are `at`, of `confidence`.
fn person(id: i64, points: usize, at: [f64; 2], confidence: f64) -> Value {
    let values: Vec<f64> = (0..points).flat_map(|v| [at[0] + v as f64, at[1], confidence]).collect();
    json!({ "person_id": [id], "pose_keypoints_2d": values, "face_keypoints_2d": [], "hand_left_keypoints_2d": [1, 2, 3] })
}

fn frame(people: &[Value]) -> String {
    json!({ "version": 1.3, "people": people }).to_string()
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

fn set(folder: &Path) -> Set {
    scan(Format::OpenPose, &[folder.to_path_buf()]).unwrap()
}

/// The only clip of frames with these people.
fn clip(frames: &[Vec<Value>]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    for (t, people) in frames.iter().enumerate() {
        write(folder.path(), &format!("wave/a_{t:012}_keypoints.json"), &frame(people));
    }
    read(Format::OpenPose, &set(folder.path()).entries[0]).unwrap()
}

fn body(frames: &[Vec<Value>]) -> Body {
    match clip(frames) {
        Outcome::Clip(body) => body,
        Outcome::Dropped(reason) => panic!("{reason}"),
    }
}

/// x of the first joint of each person in each frame.
fn xs(body: &Body, points: usize) -> Vec<f32> {
    body.joints.iter().step_by(points * 2).copied().collect()
}

#[test]
fn files_are_grouped_by_name_or_by_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text = frame(&[person(-1, 25, [1.0, 2.0], 0.5)]);
    for name in [
        "wave/a_000000000009_keypoints.json",
        "wave/a_000000000010_keypoints.json",
        "wave/b.0.json",
        "bow/clip7/0000.json",
        "bow/clip7/0001.json",
        "bow/clip8/clip8_0_keypoints.json",
        "bow/a1_s2_3.json",
    ] {
        write(folder.path(), name, &text);
    }
    let set = set(folder.path());
    assert_eq!(set.classes, ["bow", "wave"]);
    let clips: Vec<_> = set.entries.iter().map(|e| (e.name.as_str(), e.label)).collect();
    assert_eq!(clips, [("bow/a1_s2", 0), ("bow/clip7", 0), ("bow/clip8", 0), ("wave/a", 1), ("wave/b", 1)]);
    let frames = |entry: &Entry| match read(Format::OpenPose, entry).unwrap() {
        Outcome::Clip(body) => body.frames,
        Outcome::Dropped(_) => 0,
    };
    assert_eq!(set.entries.iter().map(frames).collect::<Vec<_>>(), [1, 2, 1, 2, 1]);
    // One file stands for its clip.
    let one = scan(Format::OpenPose, &[folder.path().join("wave/a_000000000010_keypoints.json")]).unwrap();
    assert_eq!(one.entries.iter().map(frames).collect::<Vec<_>>(), [2]);
}

#[test]
fn frames_stand_in_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for t in 0..12 {
        write(folder.path(), &format!("wave/a_{t}.json"), &frame(&[person(-1, 25, [f64::from(t), 2.0], 0.5)]));
    }
    let Outcome::Clip(body) = read(Format::OpenPose, &set(folder.path()).entries[0]).unwrap() else { panic!("a clip") };
    assert_eq!(xs(&body, 25), (0..12).map(|t| t as f32).collect::<Vec<_>>());
}

#[test]
fn a_clip_with_a_gap_is_left_out_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = frame(&[person(-1, 25, [1.0, 2.0], 0.5)]);
    for name in ["wave/a_1.json", "wave/a_2.json", "wave/a_4.json", "wave/b_1.json", "wave/b_01.json", "wave/c_3.json", "wave/d_0.json"] {
        write(folder.path(), name, &text);
    }
    let set = set(folder.path());
    assert_eq!(set.entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["wave/c", "wave/d"]);
    assert_eq!(set.dropped["no file of frame 3"], ["wave/a"]);
    assert_eq!(set.dropped["two files of frame 1"], ["wave/b"]);
    let torn = ["wave/a_1.json", "wave/a_4.json"].map(|name| folder.path().join(name));
    let error = scan(Format::OpenPose, &torn).unwrap_err().to_string();
    assert!(error.contains("no whole clip; no file of frame 2 in wave/a"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = scan(Format::OpenPose, &[empty.path().to_path_buf()]).unwrap_err().to_string();
    assert!(error.contains("no file shows a person"), "{error}");
    // A file that vanishes between scan and read.
    write(folder.path(), "wave/c_5.json", &text);
    let error = read(Format::OpenPose, &set.entries[0]).unwrap_err().to_string();
    assert!(error.contains("c_3.json") && error.contains("no file of frame 4"), "{error}");
}

#[test]
fn the_model_follows_from_the_number_of_points() {
    for (points, joints, first) in [(25, 25, "nose"), (18, 18, "nose"), (15, 15, "head"), (137, 25, "nose")] {
        let folder = tempfile::tempdir().unwrap();
        // A first frame without anybody, and a person of whom only the hands were found.
        write(folder.path(), "wave/a_0.json", &frame(&[]));
        write(folder.path(), "wave/a_1.json", &frame(&[person(-1, 0, [0.0; 2], 0.0), person(-1, points, [3.0, 4.0], 0.5)]));
        let set = set(folder.path());
        assert_eq!((set.joints.len(), set.joints[0].as_str(), set.parents.len()), (joints, first, joints));
        let Outcome::Clip(body) = read(Format::OpenPose, &set.entries[0]).unwrap() else { panic!("a clip") };
        assert_eq!((body.frames, body.persons, body.joints.len()), (2, 1, 2 * joints * 2));
        let valid = body.valid.unwrap();
        assert!(valid[..joints].iter().all(|v| *v == 0) && valid[joints..].iter().all(|v| *v == 1));
        assert_eq!(body.joints[joints * 2..][..4], [3.0, 4.0, 4.0, 4.0]);
    }
}

fn layout_of(table: Table) -> Layout {
    Layout::new("own", &table.iter().map(|(name, _)| *name).collect::<Vec<_>>()).unwrap()
}

#[test]
fn every_model_is_a_tree_that_the_built_in_layouts_know() {
    for table in [BODY_25, COCO_18, MPI_15] {
        assert_eq!(table.iter().filter(|(_, parent)| *parent == -1).count(), 1);
        for start in 0..table.len() {
            let up = |&at: &i64| Some(table[usize::try_from(at).ok()?].1).filter(|parent| *parent >= 0);
            let steps = std::iter::successors(Some(start as i64), up).take(table.len() + 1).count();
            assert!(steps <= table.len(), "{} stands in a circle", table[start].0);
        }
        let own = layout_of(table);
        // Left and right stand in pairs, and a limb's parent is on its side.
        let mirror = own.mirrored();
        for (v, (name, parent)) in table.iter().enumerate() {
            assert_eq!(mirror[v] != v, name.contains('_') && *name != "mid_hip", "{name}");
            if let Ok(parent) = usize::try_from(*parent) {
                assert_eq!(table[mirror[v]].1, mirror[parent] as i64, "{name}");
            }
        }
        for target in ["kinect1_20", "ntu25", "coco17"] {
            let target = Layout::find(target).unwrap();
            for (sources, joint) in own.map_to(&target).iter().zip(&target.joints) {
                assert!(!sources.is_empty(), "{} points: {} of {}", table.len(), joint, target.name);
            }
        }
    }
    let body = layout_of(BODY_25);
    assert_eq!(body.joint("hip_center"), Some(8));
    assert_eq!(body.joint("left_foot"), Some(19));
    assert_eq!(layout_of(MPI_15).joint("spine"), Some(14));
}

#[test]
fn the_two_with_most_confidence_are_kept_by_place() {
    let people = |c: [f64; 3]| (0..3).map(|i| person(-1, 25, [100.0 * (i + 1) as f64, 0.0], c[i])).collect::<Vec<_>>();
    // Over the clip the places 0 and 2 have most, though place 1 leads in the first frame; in the last only one person is left.
    let body = body(&[people([0.1, 0.9, 0.5]), people([0.9, 0.0, 0.5]), people([0.9, 0.1, 0.9])[..1].to_vec()]);
    assert_eq!((body.frames, body.persons), (3, 2));
    assert_eq!(xs(&body, 25), [100.0, 300.0, 100.0, 300.0, 100.0, 0.0]);
    let valid = body.valid.unwrap();
    assert!(valid[..125].iter().all(|v| *v == 1) && valid[125..].iter().all(|v| *v == 0));
}

#[test]
fn tracked_persons_are_kept_by_id() {
    let p = |id: i64, x: f64| person(id, 25, [x, 0.0], 0.5);
    let tracked = body(&[vec![p(9, 900.0), p(4, 400.0)], vec![p(4, 401.0), p(9, 901.0)], vec![p(9, 902.0)]]);
    assert_eq!(xs(&tracked, 25), [400.0, 900.0, 401.0, 901.0, 0.0, 902.0]);
    // One person without an id: places count, for the whole clip.
    let untracked = body(&[vec![p(9, 900.0), p(-1, 400.0)], vec![p(4, 401.0), p(9, 901.0)]]);
    assert_eq!(xs(&untracked, 25), [900.0, 400.0, 401.0, 901.0]);
}

#[test]
fn points_without_confidence_are_not_valid_and_zero() {
    let mut one = person(-1, 25, [5.0, 6.0], 0.5);
    one["pose_keypoints_2d"][3 * 4 + 2] = json!(0);
    let body = body(&[vec![one]]);
    let valid = body.valid.unwrap();
    assert_eq!(valid.iter().position(|v| *v == 0), Some(4));
    assert_eq!(valid.iter().filter(|v| **v == 1).count(), 24);
    assert_eq!(body.joints[6..12], [8.0, 6.0, 0.0, 0.0, 10.0, 6.0]);
}

#[test]
fn clips_without_anybody_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "wave/a_0.json", &frame(&[]));
    assert!(scan(Format::OpenPose, &[folder.path().to_path_buf()]).unwrap_err().to_string().contains("no file shows a person"));
    write(folder.path(), "wave/b_0.json", &frame(&[person(-1, 25, [1.0; 2], 0.5)]));
    let set = set(folder.path());
    assert_eq!(read(Format::OpenPose, &set.entries[0]).unwrap(), Outcome::Dropped("no person in any frame".into()));
    assert_eq!(clip(&[vec![person(-1, 25, [1.0; 2], 0.0)]]), Outcome::Dropped("no person in any frame".into()));
}

#[test]
fn what_is_wrong_is_named_with_file_and_line() {
    let good = person(-1, 25, [1.0; 2], 0.5);
    let lines = |text: &str| text.replace("\"people\":[", "\n\n\"people\":[\n");
    let mut big = good.clone();
    big["pose_keypoints_2d"][7] = json!(1e300);
    let long = vec!["1"; 1_000_000].join(",");
    for (text, expected) in [
        (
            lines(&frame(&[person(-1, 24, [1.0; 2], 0.5)])),
            "invalid length 72, expected x, y and confidence of 25, 18, 15 or 137 points at line 4",
        ),
        (lines(&frame(&[big])), "value 8 is too large at line 4"),
        (lines(&format!("{{\"people\":[{{\"pose_keypoints_2d\":[{long}]}}]}}")), "invalid length 412"),
        (lines(&frame(&[json!({ "person_id": [-1] })])), "missing field `pose_keypoints_2d` at line 4"),
        ("{\"version\":1.3}".into(), "missing field `people`"),
        (frame(&[person(3, 25, [1.0; 2], 0.5), person(3, 25, [1.0; 2], 0.5)]), "people[1]: a second person with the person_id 3"),
        (frame(&[good.clone(), person(-1, 18, [1.0; 2], 0.5)]), "people[1] has 18 points in a clip of 25"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut ids = good.clone();
        ids["person_id"] = json!(3);
        write(folder.path(), "wave/a_0.json", &frame(&[ids]));
        write(folder.path(), "wave/a_1.json", &text);
        let error = read(Format::OpenPose, &set(folder.path()).entries[0]).unwrap_err().to_string();
        assert!(error.contains("a_1.json") && error.contains(expected), "{error}, not: {expected}");
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["wave/a.json", "wave/a_1_x.json", "wave/123456789012345678901234567890.json"] {
        let path = write(folder.path(), name, "{}");
        let error = scan(Format::OpenPose, &[path]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("frame number"), "{error}");
    }
}

#[test]
fn cut_files_are_errors_and_flipped_bytes_never_panic() {
    let text = frame(&[person(7, 15, [1.5, 2.0], 0.5), person(8, 15, [3.5, 2.0], 0.25)]);
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "wave/a_0.json", &text);
    let entry = set(folder.path()).entries[0].clone();
    for len in 0..text.len() {
        std::fs::write(&path, &text[..len]).unwrap();
        let error = read(Format::OpenPose, &entry).unwrap_err().to_string();
        assert!(error.contains("a_0.json") && error.contains("line 1"), "{len}: {error}");
    }
    let mut random = Random::new(5);
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1 << (random.next() % 8);
        std::fs::write(&path, &bytes).unwrap();
        // Every outcome but a panic is right: a flipped digit is another number.
        let _ = (read(Format::OpenPose, &entry), scan(Format::OpenPose, &[folder.path().to_path_buf()]));
    }
}

#[test]
fn genuine_files_are_read() {
    let Some(source) = shared("openpose::genuine_files_are_read", "data/raw/openpose_json") else { return };
    let set = set(&source);
    assert_eq!(set.classes, ["openpose_json"]);
    assert_eq!(set.entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["openpose_json/cam01", "openpose_json/multi"]);
    for (entry, frames, first) in [(&set.entries[0], 10, [505.232, 431.63]), (&set.entries[1], 3, [0.0, 0.0])] {
        let Outcome::Clip(body) = read(Format::OpenPose, entry).unwrap() else { panic!("a clip") };
        assert_eq!((body.frames, body.persons, body.joints.len()), (frames, 2, frames * 2 * 25 * 2));
        assert!(body.joints.iter().all(|x| (-200.0..2000.0).contains(x)));
        let valid = body.valid.unwrap();
        assert!(valid.iter().zip(body.joints.chunks(2)).all(|(v, xy)| *v == 1 || xy == [0.0, 0.0]));
        if frames == 10 {
            assert_eq!(body.joints[..2], first.map(|x: f64| x as f32));
            // The person who walks there: the head over the hips over the feet.
            let y = |t: usize, v: usize| body.joints[(t * 50 + v) * 2 + 1];
            assert!((0..frames).all(|t| y(t, 0) < y(t, 8) && y(t, 8) < y(t, 11)));
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let args = ConvertArgs::new(Format::OpenPose, &[source], &folder.path().join("out.safetensors"));
    let report = crate::data::convert(&args).unwrap();
    assert_eq!((report.clips, report.frames), (2, 13));
    let archive = ClipArchive::read(&args.out).unwrap();
    assert_eq!((archive.clips[0].persons, archive.clips[0].coords, archive.labels), (2, 2, vec![0, 0]));
}
