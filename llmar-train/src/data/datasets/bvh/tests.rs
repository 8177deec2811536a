use super::super::{Format, read, scan};
use super::*;
use crate::testing::{Random, shared};

/// A chain of two joints and an end; the root moves, both turn.
fn chain(root: &str, second: &str, values: &str) -> String {
    format!(
        "HIERARCHY\nROOT Hips\n{{\n  OFFSET 0 0 0\n  CHANNELS {root}\n  JOINT Tip\n  {{\n    OFFSET 0 2 0\n    CHANNELS {second}\n    \
         End Site\n    {{\n      OFFSET 1 0 0\n    }}\n  }}\n}}\nMOTION\nFrames: 1\nFrame Time: 0.04\n{values}\n"
    )
}

fn parse(text: &str) -> Result<(Head, Joints, Vec<f32>)> {
    let path = Path::new("a.bvh");
    let mut numbers = Numbers::new(path, text);
    let head = head(&mut numbers)?;
    let joints = joints(path, &head.nodes)?;
    let places = motion(&mut numbers, &head, &joints)?;
    Ok((head, joints, places))
}

fn fails(text: &str) -> String {
    parse(text).map(|_| ()).unwrap_err().to_string()
}

fn near(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "got {got:?}, expected {expected:?}");
}

/// Turns a vector about one axis, written out apart from `about` and `product`.
fn turned([x, y, z]: Vector, axis: char, degrees: f64) -> Vector {
    let (s, c) = (degrees * std::f64::consts::PI / 180.0).sin_cos();
    match axis {
        'X' => [x, c * y - s * z, s * y + c * z],
        'Y' => [c * x + s * z, y, c * z - s * x],
        'Z' => [c * x - s * y, s * x + c * y, z],
        _ => unreachable!(),
    }
}

#[test]
fn quarter_turns_by_hand() {
    // About z by 90°: (0, 2, 0) → (−2, 0, 0); the end (1, 0, 0) → (0, 1, 0).
    let places = |root: &str, values: &str| {
        let nodes = parse(&chain(&format!("3 {root}"), "0", values)).unwrap().0.nodes;
        pose(&nodes, &values.split(' ').map(|x| x.parse().unwrap()).collect::<Vec<f64>>()).concat()
    };
    near(&places("Zrotation Xrotation Yrotation", "90 0 0"), &[0.0, 0.0, 0.0, -2.0, 0.0, 0.0, -2.0, 1.0, 0.0]);
    near(&places("Xrotation Yrotation Zrotation", "90 0 0"), &[0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0, 2.0]);
    near(&places("Yrotation Xrotation Zrotation", "90 0 0"), &[0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 2.0, -1.0]);
    // Rz(90) · Rx(90): x → y, y → z. Rx(90) · Rz(90): x → z, y → −x.
    near(&places("Zrotation Xrotation Yrotation", "90 90 0"), &[0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0, 2.0]);
    near(&places("Xrotation Zrotation Yrotation", "90 90 0"), &[0.0, 0.0, 0.0, -2.0, 0.0, 0.0, -2.0, 0.0, 1.0]);
}

#[test]
fn every_order_of_rotations_on_both_joints() {
    let angles = [31.0, -47.0, 112.0];
    // The channel written last turns first.
    let turns = |v: Vector, order: &str| order.chars().rev().zip(angles.into_iter().rev()).fold(v, |v, (axis, x)| turned(v, axis, x));
    for outer in ["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX", "ZXZ"] {
        for inner in ["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX", "XYX"] {
            let channels = |order: &str| order.chars().map(|axis| format!(" {axis}rotation")).collect::<String>();
            let line = "0.5 -0.25 3 31 -47 112 31 -47 112";
            let root = format!("6 Xposition Yposition Zposition{}", channels(outer));
            let (head, _, places) = parse(&chain(&root, &format!("3{}", channels(inner)), line)).unwrap();
            let add = |a: Vector, b: Vector| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
            let root = [0.5, -0.25, 3.0];
            let tip = add(root, turns([0.0, 2.0, 0.0], outer));
            let end = add(tip, turns(turns([1.0, 0.0, 0.0], inner), outer));
            let values: Vec<f64> = line.split(' ').map(|x| x.parse().unwrap()).collect();
            near(&pose(&head.nodes, &values).concat(), &[root, tip, end].concat());
            // Below 10 units: metres. The end is no joint.
            let expected: Vec<f32> = [root, tip].concat().iter().map(|x| *x as f32).collect();
            assert_eq!(places, expected, "{outer} {inner}");
        }
    }
}

#[test]
fn positions_take_the_place_of_offsets_on_any_joint() {
    let second = "6 Zposition Yrotation Xposition Zrotation Yposition Xrotation"; // any order and number
    let values = [5.0, 90.0, 7.0, 0.0, 3.0, 0.0, 4.0, 0.0];
    let line = values.map(|x| x.to_string()).join(" ");
    let text = chain("2 Yposition Zrotation", second, &line).replace("OFFSET 0 0 0", "OFFSET 1 90 0");
    let (head, ..) = parse(&text).unwrap();
    // The root stands at y 5, not 95, and at x 1, which no channel replaces; the tip at (3, 4, 7) in its frame, a quarter turn about z.
    near(&pose(&head.nodes, &values)[..2].concat(), &[1.0, 5.0, 0.0, 1.0 - 4.0, 5.0 + 3.0, 7.0]);
}

#[test]
fn joints_without_channels_follow_their_parent() {
    let (head, _, places) = parse(&chain("0", "1 Zrotation", "90")).unwrap();
    assert_eq!(places, [0.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
    near(&pose(&head.nodes, &[90.0])[2], &[0.0, 3.0, 0.0]);
    assert!(fails(&chain("0", "0", "")).contains("expected a joint with channels"));
}

#[test]
fn units_go_by_the_rest_pose() {
    let height = |offset: &str| {
        let text = chain("1 Yposition", "0", "1").replace("OFFSET 0 2 0", &format!("OFFSET {offset}"));
        f64::from(parse(&text).unwrap().2[4]) // 1 for the root, then the tip
    };
    for (offset, expected) in [("0 9 0", 10.0), ("0 10 0", 11.0), ("0 11 0", 0.12), ("0 170 0", 1.71), ("0 1001 0", 1.002)] {
        assert!((height(offset) - expected).abs() < 1e-6, "{offset}: {}", height(offset));
    }
    // Without offsets the first frame tells.
    let text = chain("1 Yposition", "1 Yposition", "0 50").replace("OFFSET 0 2 0", "OFFSET 0 0 0").replace("OFFSET 1 0 0", "OFFSET 0 0 0");
    assert_eq!(parse(&text).unwrap().2, [0.0, 0.0, 0.0, 0.0, 0.5, 0.0]);
}

#[test]
fn errors_name_file_and_line() {
    let good = chain("2 Yposition Zrotation", "1 Yrotation", "1 2 3");
    parse(&good).unwrap();
    for (from, to, place) in [
        ("HIERARCHY", "HIERARCHIE", "line 1: expected HIERARCHY"),
        ("ROOT", "JOINT", "line 2: expected ROOT"),
        ("ROOT Hips", "ROOT", "line 3: expected a joint's name"),
        ("OFFSET 0 0 0", "OFFSET 0 0", "line 5: expected an offset, got `CHANNELS`"),
        ("OFFSET 0 2 0", "OFFSET 0 nan 0", "line 8: an offset: expected at most"),
        ("OFFSET 0 2 0", "OFFSET 0 1e7 0", "line 8: an offset: expected at most"),
        ("2 Yposition", "7 Yposition", "line 5: channels of a joint: expected at most 6"),
        ("Yposition", "Zrotatio", "line 5: expected Xposition"),
        ("Yposition Zrotation", "Zposition Zposition", "line 5: channel `Zposition` stands twice"),
        ("Yposition", "ÿposition", "line 5: expected Xposition"),
        ("JOINT Tip", "JOIN Tip", "line 6: expected JOINT, End Site or }, got `JOIN`"),
        ("JOINT Tip", "JOINT hi_ps", "line 6: joint `hi_ps`: `hi_ps` is `Hips` of line 2 already"),
        ("JOINT Tip", "JOINT _", "line 6: joint `_`: expected a name with a letter"),
        ("End Site", "End Sight", "line 10: expected Site"),
        ("MOTION", "ROOT B", "line 16: expected MOTION, got `ROOT`"),
        ("Frames: 1", "Frames: 2", "line 19: expected a channel's value, got the end"),
        ("Frames: 1", "Frames: 0", "line 18: expected the end after 0 frames"),
        ("Frames: 1", "Frames: -1", "line 17: expected frames"),
        ("Frames: 1", "Frames: 99999999999", "line 17: frames: expected at most 65536"),
        ("0.04", "0", "line 18: Frame Time"),
        ("0.04", "inf", "line 18: Frame Time"),
        ("1 2 3", "1 2", "line 19: expected a channel's value, got the end"),
        ("1 2 3", "1 2 x", "line 19: expected a channel's value, got `x`"),
        ("1 2 3", "1 NaN 3", "line 19: a channel's value"),
        ("1 2 3", "1 2 3 4", "line 19: expected the end after 1 frames"),
        ("1 2 3", "1 2\n3", "line 20: frame 0: expected a line of 3 numbers, got 2 on line 19"),
        ("0.04\n1 2 3", "0.04 1 2 3", "line 18: frame 0: expected a line of 3 numbers"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let error = fails(&text);
        assert!(error.starts_with(&format!("a.bvh: {place}")), "{from} → {to}: {error}");
    }
    let long = good.replace("Tip", &"x".repeat(200));
    assert!(fails(&long).contains("line 6: expected { after a name"));
}

#[test]
fn absurd_counts_are_refused_before_memory_is_taken() {
    let open = |i: usize, what: &str| format!("{what} J{i}\n{{\nOFFSET 0 1 0\nCHANNELS 1 Zrotation\n");
    let mut text = format!("HIERARCHY\n{}", open(0, "ROOT"));
    (1..100_000).for_each(|i| text.push_str(&open(i, "JOINT")));
    let error = fails(&text);
    assert!(error.contains("at most 256 joints"), "{error}");
    let ends = format!("HIERARCHY\n{}{}", open(0, "ROOT"), "End Site { OFFSET 0 0 0 }\n".repeat(1000));
    assert!(fails(&ends).contains("as many end sites"));
    // A head without an end is read to its limit only.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bvh");
    std::fs::write(&path, "HIERARCHY\n".repeat(300_000)).unwrap();
    assert!(scan(Format::Bvh, &[path]).unwrap_err().to_string().contains("no line `Frame Time:`"));
}

#[test]
fn cut_and_flipped_files_are_errors_or_clips() {
    let mut text = chain("6 Xposition Yposition Zposition Zrotation Xrotation Yrotation", "3 Zrotation Xrotation Yrotation", "0");
    text = text.replace("Frames: 1", "Frames: 3").replace("0.04\n0\n", "0.04\n");
    text.push_str(&"1 2.5 -3 10 20 30 -10 5e1 .5\n".repeat(3));
    parse(&text).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for count in 0..lines.len() {
        let error = fails(&lines[..count].concat());
        assert!(error.contains("a.bvh: line "), "{count} lines: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bvh");
    let entry = Entry { path: path.clone(), ..Entry::default() };
    let mut random = Random::new(3);
    let mut damaged = 0;
    for _ in 0..2000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..1 + random.next() % 3 {
            let at = random.next() as usize % bytes.len();
            bytes[at] ^= 1 << (random.next() % 8);
        }
        std::fs::write(&path, bytes).unwrap();
        damaged += usize::from(read(Format::Bvh, &entry).is_err());
        let _ = scan(Format::Bvh, std::slice::from_ref(&path));
    }
    assert!(damaged > 500, "{damaged} of 2000");
}

/// Writes clips into folders; the first argument of each is `class/file`.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn scanned(folder: &tempfile::TempDir) -> Result<Set> {
    scan(Format::Bvh, &[folder.path().to_path_buf()])
}

#[test]
fn folders_are_classes_and_joints_must_agree() -> Result<()> {
    let good = chain("1 Yposition", "1 Zrotation", "1 2");
    let files = folder(&[("walk/b.bvh", &good), ("kick/c.bvh", &good), ("walk/a.bvh", &good.replace("0.04", "0.0401"))]);
    let set = scanned(&files)?;
    assert_eq!(set.classes, ["kick", "walk"]);
    let entries: Vec<_> = set.entries.iter().map(|entry| (entry.name.as_str(), entry.label)).collect();
    assert_eq!(entries, [("c", 0), ("a", 1), ("b", 1)]);
    assert_eq!((set.joints, set.parents, set.fps), (vec!["Hips".into(), "Tip".into()], vec![-1, 0], Some(25.0)));

    std::fs::write(files.path().join("walk/b.bvh"), good.replace("0.04", "0.05")).unwrap();
    assert_eq!(scanned(&files)?.fps, None);

    for (from, to, message) in [
        ("JOINT Tip", "JOINT Top", "joint 1 is `Top`: expected `Tip`"),
        ("End Site", "JOINT More { OFFSET 0 0 0 CHANNELS 0 }\nEnd Site", "joint 2 is `More`: expected 2 joints"),
    ] {
        std::fs::write(files.path().join("walk/b.bvh"), good.replace(from, to)).unwrap();
        let error = scanned(&files).unwrap_err().to_string();
        assert!(error.contains("b.bvh") && error.contains("c.bvh") && error.contains(message), "{error}");
    }
    // Same names in another tree.
    let three = good.replace("End Site", "JOINT More { OFFSET 0 0 0 CHANNELS 0 }\nEnd Site");
    let flat = good.replace("MOTION", "").replace("}\n\nFrames", "JOINT More { OFFSET 0 0 0 CHANNELS 0 }\n}\nMOTION\nFrames");
    let error = scanned(&folder(&[("a/a.bvh", &three), ("a/b.bvh", &flat)])).unwrap_err().to_string();
    assert!(error.contains("parent of joint 2, `More`, is `Hips`: expected `Tip`"), "{error}");

    // A damaged file is the reader's to report; where none is sound, the scan does.
    std::fs::write(files.path().join("walk/b.bvh"), "HIERARCHY\nROOT").unwrap();
    let set = scanned(&files)?;
    assert_eq!(set.entries.len(), 3);
    assert!(read(Format::Bvh, &set.entries[2]).unwrap_err().to_string().contains("b.bvh: line 2"));
    let error = scanned(&folder(&[("a/a.bvh", "x")])).unwrap_err().to_string();
    assert!(error.contains("a.bvh: line 1: expected HIERARCHY"), "{error}");
    assert!(scanned(&folder(&[])).unwrap_err().to_string().contains("no clip"));

    let empty = chain("1 Yposition", "0", "").replace("Frames: 1", "Frames: 0");
    let files = folder(&[("a/a.bvh", &empty)]);
    let set = scanned(&files)?;
    assert_eq!(read(Format::Bvh, &set.entries[0])?, Outcome::Dropped("no frame".into()));
    Ok(())
}

#[test]
fn rates_near_a_whole_number_are_one() {
    assert_eq!(one_rate(&[1.0 / 0.033333, 1.0 / 0.0333333]), Some(30.0));
    assert_eq!(one_rate(&[1.0 / 0.008333]), Some(120.0));
    assert_eq!(one_rate(&[29.97]), Some(29.97));
    assert_eq!(one_rate(&[30.0, 30.29]), Some(30.0));
    assert_eq!(one_rate(&[30.0, 30.31]), None);
    assert_eq!(one_rate(&[]), None);
}

/// Reads a genuine file: its set, its joints by name and frame, and its frames.
fn genuine(test: &str, file: &str) -> Option<(Set, Body)> {
    let path = shared(test, &format!("data/raw/bvh/{file}"))?;
    let set = scan(Format::Bvh, &[path]).unwrap();
    let Outcome::Clip(body) = read(Format::Bvh, &set.entries[0]).unwrap() else { panic!("a clip") };
    Some((set, body))
}

#[test]
fn genuine_files_are_people_on_the_ground() {
    let layout = joints_of_kinect();
    for (file, frames, count, head_above) in [("test_freebvh.bvh", 69, 55, 1.2..1.9), ("test_mocapbank.bvh", 455, 23, 1.2..1.9)] {
        let Some((set, body)) = genuine("bvh::genuine_files_are_people_on_the_ground", file) else { return };
        assert_eq!((body.frames, set.joints.len(), set.fps), (frames, count, Some(30.0)), "{file}");
        assert_eq!(set.classes, ["bvh"]);
        let at =
            |frame: usize, joint: usize| -> Vector { std::array::from_fn(|i| f64::from(body.joints[(frame * count + joint) * 3 + i])) };
        let own = llmar::skeleton::Layout::new(&set.name, &set.joints).unwrap();
        let missing: Vec<_> =
            own.map_to(&layout).iter().zip(&layout.joints).filter(|(from, _)| from.is_empty()).map(|(_, n)| n.clone()).collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
        for limb in ["hip", "knee", "ankle", "foot", "shoulder", "elbow", "wrist"] {
            for side in ["left", "right"] {
                assert!(own.joint(&format!("{side}_{limb}")).is_some(), "{file}: {side} {limb} in {:?}", set.joints);
            }
        }
        // Bones keep their length.
        for (joint, parent) in set.parents.iter().enumerate().filter_map(|(j, p)| usize::try_from(*p).ok().map(|p| (j, p))) {
            let length = |frame: usize| at(frame, joint).iter().zip(at(frame, parent)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            let first = length(0);
            for frame in 1..frames {
                assert!((length(frame) - first).abs() <= 1e-5 * first, "{file}: {} in frame {frame}", set.joints[joint]);
            }
        }
        let foot = |frame: usize| {
            let y = |side: &str| at(frame, own.joint(&format!("{side}_foot")).unwrap())[1];
            y("left").min(y("right"))
        };
        let lowest: Vec<f64> = (0..frames).map(foot).collect();
        let floor = lowest.iter().copied().fold(f64::MAX, f64::min);
        let highest = lowest.iter().copied().fold(f64::MIN, f64::max);
        println!("{file}: lower foot {floor:.3}..{highest:.3} m");
        assert!((-0.05..0.1).contains(&floor) && highest < 0.2, "{file}: lower foot at {floor}..{highest} m");
        let head = at(0, own.joint("head").unwrap())[1] - lowest[0];
        assert!(head_above.contains(&head), "{file}: head {head} m above the foot");
    }
}

fn joints_of_kinect() -> llmar::skeleton::Layout {
    llmar::skeleton::Layout::find("kinect1_20").unwrap()
}

#[test]
fn genuine_files_of_two_skeletons_do_not_mix_and_cut_ones_fail() {
    let Some(folder) = shared("bvh::genuine_files_of_two_skeletons", "data/raw/bvh") else { return };
    let error = scan(Format::Bvh, std::slice::from_ref(&folder)).unwrap_err().to_string();
    assert!(error.contains("test_mocapbank.bvh: joint 1 is `Chest`: expected `Spine`"), "{error}");
    let text = std::fs::read_to_string(folder.join("test_mocapbank.bvh")).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    // Each line of the head; of the frames, which are alike, every 50th and the last.
    let cuts = (0..130).chain((130..lines.len()).step_by(50)).chain([lines.len() - 1]);
    for count in cuts {
        let error = fails(&lines[..count].concat());
        assert!(error.contains("a.bvh: line "), "{count} lines: {error}");
    }
}
