//! MSR-Action3D: text files `a01_s01_e01_skeleton3D.txt` with real-world coordinates in metres. A frame is 20 lines, a line one joint:
//! `x y z confidence`. The joints stand in an order of their own ([`ORDER`]) and are put into that of Kinect v1.
//!
//! Frames in which the tracker lost the person are all zero; they are left out. A joint of confidence 0 is kept but not valid: the tracker
//! then placed it by guess. The cross-subject protocol trains on the odd and tests on the even of the 10 subjects.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Body, Entry, Numbers, Outcome, Protocol, Set, files, joints_of, numbered, read_text, split_by, stem};
use crate::error::{Error, Result};

/// By the number in the file name, less 1.
const CLASSES: [&str; 20] = [
    "high arm wave",
    "horizontal arm wave",
    "hammer",
    "hand catch",
    "forward punch",
    "high throw",
    "draw X",
    "draw tick",
    "draw circle",
    "hand clap",
    "two hand wave",
    "side boxing",
    "bend",
    "forward kick",
    "side kick",
    "jogging",
    "tennis swing",
    "tennis serve",
    "golf swing",
    "pickup and throw",
];

/// Joints of a frame.
const JOINTS: usize = 20;
/// Which of a frame's lines each joint of `kinect1_20` is: the file has shoulders, shoulder centre, spine, hips, hip centre, elbows,
/// wrists, hands, knees, ankles, feet, head, the left before the right.
const ORDER: [usize; JOINTS] = [6, 3, 2, 19, 0, 7, 9, 11, 1, 8, 10, 12, 4, 13, 15, 17, 5, 14, 16, 18];
/// The name behind the three numbers.
const SUFFIX: &str = "_skeleton3D";
/// Largest file; the longest clip of the data set has about 150 kB.
const MAX_BYTES: u64 = 64 << 20;

pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let mut entries = Vec::new();
    for path in files(sources, &format!("{SUFFIX}.txt"))? {
        let name = stem(&path);
        let wrong = |detail: &str| Error::format(path.display(), format!("file name: {detail}"));
        let parts = numbered(&name, "a", 2)
            .and_then(|(action, rest)| numbered(rest, "_s", 2).map(|(subject, rest)| (action, subject, rest)))
            .and_then(|(action, subject, rest)| numbered(rest, "_e", 2).map(|(_, rest)| (action, subject, rest)));
        let Some((action, subject, SUFFIX)) = parts else {
            return Err(wrong("expected a00_s00_e00_skeleton3D"));
        };
        let label = usize::try_from(action - 1).ok().filter(|&label| label < CLASSES.len());
        let label = label.ok_or_else(|| wrong("expected an action of 1 to 20"))?;
        entries.push(Entry { name, path, index: 0, label, subject: Some(subject), camera: None });
    }
    let sides = split_by(entries.iter().map(|entry| entry.subject), &[1, 3, 5, 7, 9], Some(&[2, 4, 6, 8, 10]));
    Ok(Set {
        name: "msr_action3d".into(),
        classes: CLASSES.iter().map(|name| (*name).to_owned()).collect(),
        joints: joints_of("kinect1_20")?,
        persons: 1,
        coords: 3,
        fps: Some(15.0),
        coordinates: "metres, y up, z depth from the camera",
        protocols: BTreeMap::from([("cross_subject".to_owned(), Protocol::of(sides))]),
        entries,
        ..Set::default()
    })
}

pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let text = read_text(&entry.path, MAX_BYTES)?;
    let mut numbers = Numbers::new(&entry.path, &text);
    let mut body = Body { joints: Vec::new(), frames: 0, persons: 1, valid: None };
    let mut flags = Vec::new();
    while !numbers.at_end() {
        // x, y, z, confidence
        let mut frame = [[0f32; 4]; JOINTS];
        for (line, value) in frame.iter_mut().enumerate().flat_map(|(line, joint)| joint.iter_mut().map(move |value| (line, value))) {
            *value = numbers.next(&format!("joint {} of {JOINTS} of a frame", line + 1))?;
            if !value.is_finite() {
                return Err(numbers.wrong(format!("expected a finite number, got {value}")));
            }
        }
        if frame.iter().all(|joint| joint[..3] == [0.0; 3]) {
            continue;
        }
        for joint in ORDER.map(|line| frame[line]) {
            body.joints.extend_from_slice(&joint[..3]);
            flags.push(u8::from(joint[3] > 0.0));
        }
        body.frames += 1;
    }
    if body.frames == 0 {
        return Ok(Outcome::Dropped("no frame with a person".into()));
    }
    body.valid = Some(flags);
    Ok(Outcome::Clip(body))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use llmar::formats::ClipArchive;

    use super::super::{Format, Side, scan};
    use super::*;
    use crate::testing::shared;

    /// `frames` frames; joint j of frame t stands at (t + 1, j, 2).
    fn text(frames: usize, confidence: impl Fn(usize) -> f32) -> String {
        (0..frames * JOINTS).map(|i| format!("{} {} 2.000000 {}\n", i / JOINTS + 1, i % JOINTS, confidence(i % JOINTS))).collect()
    }

    fn entry(folder: &Path, text: &str) -> Entry {
        let path = folder.join("a01_s01_e01_skeleton3D.txt");
        std::fs::write(&path, text).unwrap();
        Entry { path, ..Entry::default() }
    }

    #[test]
    fn genuine_files_equal_the_clips_of_the_archive() -> Result<()> {
        const TEST: &str = "msr_action3d::genuine_files_equal_the_clips_of_the_archive";
        let Some(folder) = shared(TEST, "data/raw/msr_action3d") else { return Ok(()) };
        let Some(archive) = shared(TEST, "data/msr_action3d.safetensors") else { return Ok(()) };
        let archive = ClipArchive::read(&archive)?;
        let set = scan(Format::MsrAction3d, &[folder])?;
        assert_eq!((&set.classes, set.fps), (&archive.classes, archive.fps));
        assert_eq!(archive.layout, "kinect1_20");
        let names: Vec<_> = set.entries.iter().map(|e| (&e.name[..11], e.label, e.subject)).collect();
        assert_eq!(names, [("a01_s01_e01", 0, Some(1)), ("a17_s03_e01", 16, Some(3)), ("a20_s07_e01", 19, Some(7))]);
        assert_eq!(set.protocols["cross_subject"].sides, [Side::Train; 3]);
        // The third file has 71 frames, 19 of them without a person.
        for (entry, frames) in set.entries.iter().zip([54, 32, 52]) {
            let same = |i: &usize| archive.labels[*i] == entry.label && Some(archive.subjects[*i]) == entry.subject;
            let clip = &archive.clips[(0..archive.clips.len()).find(same).unwrap()]; // e01 is the first
            let Outcome::Clip(body) = read(entry)? else { panic!("a clip") };
            assert_eq!(body.frames, frames);
            assert!(body.joints == clip.joints && body.valid.as_deref() == clip.valid.as_deref(), "{}", entry.name);
            assert!(body.valid.unwrap().contains(&0));
        }
        Ok(())
    }

    #[test]
    fn joints_stand_in_the_order_of_kinect_v1() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let file = text(1, |line| if line == 19 { 0.0 } else { 0.5 });
        let Outcome::Clip(body) = read(&entry(folder.path(), &file))? else { panic!("a clip") };
        let lines: Vec<f32> = body.joints.chunks_exact(3).map(|joint| joint[1]).collect();
        // By name, from the list of the data set's joints.
        let msr = "left_shoulder right_shoulder shoulder_center spine left_hip right_hip hip_center left_elbow right_elbow left_wrist \
                   right_wrist left_hand right_hand left_knee right_knee left_ankle right_ankle left_foot right_foot head";
        let msr: Vec<&str> = msr.split_whitespace().collect();
        let expected: Vec<f32> = joints_of("kinect1_20")?.iter().map(|name| msr.iter().position(|m| m == name).unwrap() as f32).collect();
        assert_eq!(lines, expected);
        let invalid: Vec<usize> = (0..JOINTS).filter(|&j| body.valid.as_ref().unwrap()[j] == 0).collect();
        assert_eq!(invalid, [3]); // the head
        Ok(())
    }

    #[test]
    fn frames_without_a_person_are_left_out() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let nobody = "0.000000 0.000000 0.000000 0.000000\n".repeat(JOINTS);
        let file = format!("{nobody}{}{nobody}{}", text(1, |_| 1.0), text(2, |_| 1.0));
        let Outcome::Clip(body) = read(&entry(folder.path(), &file))? else { panic!("a clip") };
        assert_eq!((body.frames, body.joints.len()), (3, 3 * JOINTS * 3));
        let x: Vec<f32> = body.joints.chunks_exact(JOINTS * 3).map(|frame| frame[0]).collect();
        assert_eq!(x, [1.0, 1.0, 2.0]);
        for nobody in [nobody.as_str(), "", "\n \n"] {
            assert_eq!(read(&entry(folder.path(), nobody))?, Outcome::Dropped("no frame with a person".into()));
        }
        Ok(())
    }

    #[test]
    fn damage_is_named_by_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let whole = text(2, |_| 1.0);
        let lines: Vec<&str> = whole.lines().collect();
        let replaced = |line: usize, by: &str| [&lines[..line], &[by], &lines[line + 1..]].concat().join("\n");
        for (text, place) in [
            (lines[..39].join("\n"), "line 39: expected joint 20 of 20 of a frame, got the end"),
            (replaced(21, "1 2 3"), "line 40: expected joint 20 of 20 of a frame, got the end"),
            (replaced(24, "1 2 x 1"), "line 25: expected joint 5 of 20 of a frame, got `x`"),
            (replaced(0, "1 nan 2 1"), "line 1: expected a finite number, got NaN"),
            (replaced(39, "1 2 3 1 5"), "line 40: expected joint 1 of 20"),
        ] {
            let error = read(&entry(folder.path(), &text)).unwrap_err().to_string();
            assert!(error.contains("a01_s01_e01_skeleton3D.txt: ") && error.contains(place), "{error}");
        }
        for cut in 0..whole.len() - 1 {
            // A cut between frames leaves a shorter clip, one inside a number a wrong number: both are sound text.
            if let Ok(Outcome::Clip(body)) = read(&entry(folder.path(), &whole[..cut])) {
                assert!(
                    body.frames == 1 && whole[..cut].lines().count() == 20 || body.frames == 2 && cut == whole.len() - 1,
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn names_and_protocol() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a01_s02_e01_skeleton3D.txt", "a20_s09_e03_skeleton3D.txt", "a05_s11_e01_skeleton3D.txt", "a01_s01_e01_skeleton.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let set = scan(Format::MsrAction3d, &[folder.path().to_path_buf()])?; // the last has screen coordinates and another name
        assert_eq!(set.entries.iter().map(|e| e.label).collect::<Vec<_>>(), [0, 4, 19]);
        assert_eq!(set.protocols["cross_subject"].sides, [Side::Test, Side::Unused, Side::Train]);
        for name in ["a00_s01_e01_skeleton3D.txt", "a21_s01_e01_skeleton3D.txt", "a01_s01_skeleton3D.txt", "a01_s01_e01_skeleton.txt"] {
            let error = scan(Format::MsrAction3d, &[folder.path().join(name)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("file name"), "{error}");
        }
        Ok(())
    }
}
