//! Toyota Smarthome: JSON files `Cook.Cleandishes_p02_r00_v02_c03.json` (activity, subject, repetition, video, camera) with the 13 joints
//! of LCR-Net in pixels: `{"frames": [[{"pose2d": [x × 13, y × 13]}, …] …]}`, a list of persons a frame. 3D poses in them are not read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use llmar::skeleton::MAX_FRAMES;
use serde::Deserialize;

use super::planar::{PERSONS, strongest};
use super::{Entry, Outcome, Protocol, Set, Side, files, read_bytes, split_by};
use crate::error::{Error, Result};

/// Longest file in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// V
const JOINTS: usize = 13;

/// Activity as the file names write it, and whether the cross-view protocols know it. Source of this and the splits: Das 2019;
/// github.com/YangDi666/UNIK.
const CLASSES: [(&str, bool); 31] = [
    ("Cook.Cleandishes", false),
    ("Cook.Cleanup", false),
    ("Cook.Cut", false),
    ("Cook.Stir", false),
    ("Cook.Usestove", false),
    ("Cutbread", true),
    ("Drink.Frombottle", true),
    ("Drink.Fromcan", true),
    ("Drink.Fromcup", true),
    ("Drink.Fromglass", true),
    ("Eat.Attable", true),
    ("Eat.Snack", true),
    ("Enter", true),
    ("Getup", true),
    ("Laydown", false),
    ("Leave", true),
    ("Makecoffee.Pourgrains", false),
    ("Makecoffee.Pourwater", false),
    ("Maketea.Boilwater", false),
    ("Maketea.Insertteabag", false),
    ("Pour.Frombottle", true),
    ("Pour.Fromcan", true),
    ("Pour.Fromkettle", false),
    ("Readbook", true),
    ("Sitdown", true),
    ("Takepills", true),
    ("Uselaptop", true),
    ("Usetelephone", true),
    ("Usetablet", true),
    ("Walk", true),
    ("WatchTV", false),
];

/// Joint and parent, in the order of the data; the head is the root, as the nose is in COCO.
const TREE: [(&str, i64); JOINTS] = [
    ("right_ankle", 2),
    ("left_ankle", 3),
    ("right_knee", 4),
    ("left_knee", 5),
    ("right_hip", 10),
    ("left_hip", 11),
    ("right_wrist", 8),
    ("left_wrist", 9),
    ("right_elbow", 10),
    ("left_elbow", 11),
    ("right_shoulder", 12),
    ("left_shoulder", 12),
    ("head", -1),
];

/// Subjects trained on; all others are tested on.
const TRAIN_SUBJECTS: [i64; 11] = [3, 4, 6, 7, 9, 12, 13, 15, 17, 19, 25];
/// Cameras trained on; camera 2 is tested on, and the others are in neither part.
const CROSS_VIEWS: [(&str, &[i64]); 2] = [("cross_view1", &[1]), ("cross_view2", &[1, 3, 4, 6, 7])];

#[derive(Deserialize)]
struct File {
    frames: Vec<Vec<Person>>,
}

#[derive(Deserialize)]
struct Person {
    /// x of each joint, then y of each, in pixels.
    pose2d: [f32; 2 * JOINTS],
}

pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let mut entries = Vec::new();
    for path in files(sources, ".json")? {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Not the usual stem: activities have dots.
        let name = file.strip_suffix(".json").unwrap_or(&file).to_owned();
        let wrong = |detail: &str| Error::format(path.display(), format!("file name: {detail}"));
        let (activity, subject, camera) = fields(&name).ok_or_else(|| wrong("expected Activity_p00_r00_v00_c00"))?;
        let label = CLASSES
            .iter()
            .position(|(class, _)| *class == activity)
            .ok_or_else(|| wrong(&format!("expected one of the 31 activities, got `{activity}`")))?;
        entries.push(Entry { name, path, index: 0, label, subject: Some(subject), camera: Some(camera) });
    }
    let sides = split_by(entries.iter().map(|entry| entry.subject), &TRAIN_SUBJECTS, None);
    let mut protocols = BTreeMap::from([("cross_subject".to_owned(), Protocol::of(sides))]);
    for (name, train) in CROSS_VIEWS {
        let mut sides = split_by(entries.iter().map(|entry| entry.camera), train, Some(&[2]));
        for (side, entry) in sides.iter_mut().zip(&entries) {
            if !CLASSES[entry.label].1 {
                *side = Side::Unused;
            }
        }
        protocols.insert(name.to_owned(), Protocol::of(sides));
    }
    Ok(Set {
        name: "smarthome".into(),
        classes: CLASSES.iter().map(|(name, _)| (*name).to_owned()).collect(),
        joints: TREE.iter().map(|(joint, _)| (*joint).to_owned()).collect(),
        parents: TREE.iter().map(|(_, parent)| *parent).collect(),
        persons: PERSONS,
        coords: 2,
        coordinates: "pixels of a 640x480 image, y down",
        entries,
        protocols,
        ..Set::default()
    })
}

/// Activity, subject and camera of a file name. What stands after the camera's two digits means nothing here.
fn fields(name: &str) -> Option<(&str, i64, i64)> {
    let mut parts = name.split('_');
    let activity = parts.next()?;
    let subject = parts.next()?.strip_prefix('p').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    parts.next()?.strip_prefix('r')?;
    parts.next()?.strip_prefix('v')?;
    let (camera, _) = super::numbered(parts.next()?, "c", 2)?;
    Some((activity, subject, camera))
}

pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let bytes = read_bytes(&entry.path, MAX_BYTES)?;
    // serde_json's errors name line and column.
    let file: File = serde_json::from_slice(&bytes).map_err(|e| Error::format(entry.path.display(), e))?;
    if file.frames.len() > MAX_FRAMES {
        return Err(Error::format(entry.path.display(), format!("frames: expected at most {MAX_FRAMES}, got {}", file.frames.len())));
    }
    for (t, persons) in file.frames.iter().enumerate() {
        if let Some(m) = persons.iter().position(|person| person.pose2d.iter().any(|value| !value.is_finite())) {
            return Err(Error::format(entry.path.display(), format!("frames[{t}][{m}].pose2d: expected numbers that fit f32")));
        }
    }
    let joints = |person: &Person| (0..JOINTS).map(|j| [person.pose2d[j], person.pose2d[j + JOINTS]]).collect();
    let frames: Vec<Vec<Vec<[f32; 2]>>> = file.frames.iter().map(|persons| persons.iter().map(joints).collect()).collect();
    Ok(strongest(&frames, JOINTS))
}

#[cfg(test)]
mod tests {
    use llmar::skeleton::Layout;

    use super::super::{Format, read, scan};
    use super::*;
    use crate::testing::Random;

    const NAME: &str = "Cook.Cut_p03_r00_v02_c02";

    fn folder<'a>(names: impl IntoIterator<Item = &'a str>, text: impl AsRef<[u8]>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(format!("{name}.json")), &text).unwrap();
        }
        folder
    }

    fn scanned<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Set> {
        scan(Format::Smarthome, &[folder(names, "{}").path().to_path_buf()])
    }

    fn read_back(text: impl AsRef<[u8]>) -> Result<Outcome> {
        let folder = folder([NAME], text);
        read(Format::Smarthome, &scan(Format::Smarthome, &[folder.path().to_path_buf()])?.entries[0])
    }

    /// x: `at` + `scale` · joint, y: 100 + joint
    fn person(at: f32, scale: f32) -> serde_json::Value {
        let pose: Vec<f32> = (0..13).map(|j| at + scale * j as f32).chain((0..13).map(|j| 100.0 + j as f32)).collect();
        serde_json::json!({ "pose2d": pose, "pose3d": vec![0.5; 39], "cumscore": 1.5 })
    }

    fn text() -> String {
        serde_json::json!({ "njts": 13, "frames": [[person(1.0, 1.0), person(2.0, 2.0)], [], [person(3.0, 1.0)]] }).to_string()
    }

    #[test]
    fn clips_are_on_their_sides() {
        let names: Vec<String> = (1..=25)
            .map(|p| format!("Walk_p{p:02}_r00_v01_c05"))
            .chain((1..=7).flat_map(|c| ["Cook.Cut", "Drink.Fromcup", "WatchTV"].map(|name| format!("{name}_p03_r10_v02_c{c:02}"))))
            .collect();
        let set = scanned(names.iter().map(String::as_str)).unwrap();
        assert_eq!((set.classes.len(), CLASSES.iter().filter(|(_, cross)| *cross).count()), (31, 19));
        assert_eq!((set.entries.len(), set.entries[0].name.as_str()), (46, "Cook.Cut_p03_r10_v02_c01"));
        let count = |protocol: &str, side| set.protocols[protocol].sides.iter().filter(|other| **other == side).count();
        let counts = ["cross_subject", "cross_view1", "cross_view2"]
            .map(|name| [Side::Train, Side::Test, Side::Unused].map(|side| count(name, side)));
        assert_eq!(counts, [[11 + 21, 14, 0], [1, 1, 44], [5, 1, 40]]);
        let tested = set.protocols["cross_view2"].sides.iter().position(|side| *side == Side::Test).unwrap();
        assert_eq!((set.entries[tested].label, set.entries[tested].camera), (8, Some(2)));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in [
            "Walk",
            "Walk_p01_r00_v01",
            "Run_p01_r00_v01_c01",
            "Walk_px_r00_v01_c01",
            "Walk_p+1_r00_v01_c01",
            "Walk_p_r00_v01_c01",
            "Walk_p01_r00_v01_cx1",
        ] {
            let error = scanned([name]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}.json: file name: expected")), "{error}");
        }
        assert_eq!(scanned(["Walk_p1_r00_v01_c03_pose3d"]).unwrap().entries[0].camera, Some(3));
    }

    #[test]
    fn the_joints_are_known_by_name() {
        let set = scanned([NAME]).unwrap();
        let layout = Layout::new("smarthome", &set.joints).unwrap();
        for known in ["coco17", "ntu25", "kinect1_20"] {
            let map = layout.map_to(&Layout::find(known).unwrap());
            assert!(map.iter().all(|sources| !sources.is_empty()), "{known}");
        }
        assert_eq!(layout.mirrored(), [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12]);
        for (joint, parent) in
            [("left_ankle", "left_knee"), ("right_wrist", "right_elbow"), ("left_hip", "left_shoulder"), ("right_shoulder", "head")]
        {
            assert_eq!(set.parents[layout.joint(joint).unwrap()], layout.joint(parent).unwrap() as i64, "{joint}");
        }
    }

    #[test]
    fn poses_are_read_in_pixels() {
        let Outcome::Clip(body) = read_back(text()).unwrap() else { panic!("a clip") };
        assert_eq!((body.frames, body.persons, body.joints.len()), (3, 2, 3 * 2 * 26));
        // The second person's joints lie further apart.
        assert_eq!(body.joints[..4], [2.0, 100.0, 4.0, 101.0]);
        assert_eq!(body.joints[26..30], [1.0, 100.0, 2.0, 101.0]);
        assert_eq!(body.joints[5 * 26..][..2], [3.0, 100.0]);
        assert_eq!(body.valid.unwrap(), [[1; 13], [1; 13], [0; 13], [0; 13], [0; 13], [1; 13]].concat());
        assert_eq!(read_back(r#"{"frames": [[], []]}"#).unwrap(), Outcome::Dropped("no frame with a person".into()));
    }

    #[test]
    fn a_converted_clip_is_in_the_archive() {
        let folder = folder([NAME], text());
        let out = folder.path().join("smarthome.safetensors");
        let format = clap::ValueEnum::from_str("smarthome", false).unwrap();
        let args = crate::cli::ConvertArgs::new(format, &[folder.path().to_path_buf()], &out);
        assert_eq!(crate::data::convert(&args).unwrap().splits.into_keys().collect::<Vec<_>>(), ["cross_subject"]);
        let archive = llmar::formats::ClipArchive::read(&out).unwrap();
        let clip = &archive.clips[0];
        assert_eq!((archive.classes.len(), archive.labels[0], clip.frames, clip.persons, clip.coords), (31, 2, 3, 2, 2));
        assert_eq!(Layout::find(&archive.layout).unwrap().joints[12], "head");
        let args = crate::cli::ConvertArgs { protocol: Some("cross_view1".into()), out: folder.path().join("none"), ..args };
        let error = crate::data::convert(&args).unwrap_err().to_string();
        assert!(error.contains("no clip is left") && error.contains("not in protocol cross_view1"), "{error}");
    }

    #[test]
    fn damage_names_file_and_line() {
        let pose = |values: &str| format!("{{\"frames\": [[\n{{\"pose2d\": [{values}]}}]]}}");
        let ones = |n: usize| vec!["1"; n].join(",");
        for (text, expected) in [
            (pose(&ones(25)), "invalid length 25, expected an array of length 26 at line 2"),
            (pose(&ones(27)), "at line 2"),
            (pose(&ones(26).replacen('1', "\"x\"", 1)), "invalid type: string \"x\", expected f32 at line 2"),
            (pose(&ones(26).replacen('1', "null", 1)), "at line 2"),
            (pose(&ones(26).replacen('1', "1e99", 1)), "frames[0][0].pose2d: expected numbers that fit f32"),
            ("{}".into(), "missing field `frames` at line 1"),
            ("{\"frames\": [[{}]]}".into(), "missing field `pose2d` at line 1"),
            (String::new(), "EOF while parsing a value at line 1"),
            (format!("{{\"frames\": [{}[]]}}", "[],".repeat(65_536)), "frames: expected at most 65536, got 65537"),
            ("[".repeat(100_000), "at line 1"),
        ] {
            let error = read_back(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("{NAME}.json: ")) && error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn cut_and_flipped_bytes_never_panic() {
        let bytes = text().into_bytes();
        for end in 0..bytes.len() {
            assert!(serde_json::from_slice::<File>(&bytes[..end]).is_err(), "{end}");
        }
        let folder = folder([NAME], &bytes);
        let set = scan(Format::Smarthome, &[folder.path().to_path_buf()]).unwrap();
        let mut random = Random::new(5);
        let mut refused = 0;
        for _ in 0..500 {
            let mut bytes = bytes.clone();
            let at = random.next() as usize % bytes.len();
            bytes[at] ^= 1 << (random.next() % 8);
            std::fs::write(&set.entries[0].path, &bytes).unwrap();
            refused += usize::from(read(Format::Smarthome, &set.entries[0]).is_err());
        }
        assert!((100..500).contains(&refused), "{refused}");
    }
}
