//! UTD-MHAD: MATLAB files `a1_s1_t1_skeleton.mat` (action, subject, trial) with one variable `d_skel`, doubles [20 joints, 3, T frames]:
//! Kinect v1 joints in metres at 30 frames a second.
//!
//! Joints come in the data set's own order (its `Skeleton_joint_order.txt`) and are given in that of the layout `kinect1_20`. Published are
//! 861 clips of 27 actions by 8 subjects; the protocol cross_subject trains on the odd subjects and tests on the even (431 and 430 clips).
//! Source: Chen, Jafari, Kehtarnavaz, "UTD-MHAD", ICIP 2015.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Body, Entry, Outcome, Protocol, Set, files, joints_of, mat5, read_bytes, split_by, stem};
use crate::error::{Error, Result};

/// In order of their numbers, the first is 1.
const CLASSES: [&str; 27] = [
    "swipe left",
    "swipe right",
    "wave",
    "clap",
    "throw",
    "arm cross",
    "basketball shoot",
    "draw X",
    "draw circle clockwise",
    "draw circle counter clockwise",
    "draw triangle",
    "bowling",
    "boxing",
    "baseball swing",
    "tennis swing",
    "arm curl",
    "tennis serve",
    "push",
    "knock",
    "catch",
    "pickup and throw",
    "jog",
    "walk",
    "sit to stand",
    "stand to sit",
    "lunge",
    "squat",
];
const JOINTS: usize = 20;
/// Row of `d_skel` for each joint of `kinect1_20`: the file has head, shoulder centre, spine, hip centre and then the limbs in that order.
const ROWS: [usize; JOINTS] = [3, 2, 1, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];
/// Most bytes of a file; the longest published has about 30 kB.
const MAX_BYTES: u64 = 16 << 20;

/// The number between `prefix` and the next character that is no digit, and the rest.
fn number<'t>(text: &'t str, prefix: &str) -> Option<(i64, &'t str)> {
    let rest = text.strip_prefix(prefix)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    Some((rest[..digits].parse().ok()?, &rest[digits..]))
}

/// Finds clips. Files of the other sensors (`…_depth.mat`, `…_inertial.mat`) are passed over in folders.
pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let mut found = Vec::new();
    for path in files(sources, "_skeleton.mat")? {
        let name = stem(&path);
        let parts = number(&name, "a")
            .and_then(|(action, rest)| number(rest, "_s").map(|(subject, rest)| (action, subject, rest)))
            .and_then(|(action, subject, rest)| number(rest, "_t").map(|(trial, rest)| (action, subject, trial, rest)));
        let Some((action @ 1..=27, subject @ 1..=8, trial, "_skeleton")) = parts else {
            let detail = "file name: expected aA_sS_tT_skeleton.mat with A of 1 to 27 and S of 1 to 8";
            return Err(Error::format(path.display(), detail));
        };
        let entry = Entry { name, path, index: 0, label: action as usize - 1, subject: Some(subject), camera: None };
        found.push((action, subject, trial, entry));
    }
    // By number: in order of the paths a10 comes before a2.
    found.sort_by_key(|&(action, subject, trial, _)| (action, subject, trial));
    let entries: Vec<Entry> = found.into_iter().map(|(.., entry)| entry).collect();
    let sides = split_by(entries.iter().map(|entry| entry.subject), &[1, 3, 5, 7], Some(&[2, 4, 6, 8]));
    Ok(Set {
        name: "utd_mhad".into(),
        classes: CLASSES.map(str::to_owned).to_vec(),
        joints: joints_of("kinect1_20")?,
        persons: 1,
        coords: 3,
        fps: Some(30.0),
        coordinates: "metres, y up, z depth from the camera",
        protocols: BTreeMap::from([("cross_subject".to_owned(), Protocol::of(sides))]),
        entries,
        ..Set::default()
    })
}

/// Reads a clip, at most 16 MiB.
pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let bytes = read_bytes(&entry.path, MAX_BYTES)?;
    let array = mat5::variable(&entry.path, &bytes, "d_skel")?;
    // MATLAB leaves out a last dimension of 1: a single frame.
    let frames = match array.dims[..] {
        [JOINTS, 3] => 1,
        [JOINTS, 3, frames] => frames,
        _ => return Err(Error::format(entry.path.display(), format!("`d_skel`: expected [20, 3, frames], got {:?}", array.dims))),
    };
    if frames == 0 {
        return Ok(Outcome::Dropped("no frame".into()));
    }
    let mut joints = Vec::with_capacity(array.values.len());
    for t in 0..frames {
        for row in ROWS {
            for c in 0..3 {
                let value = array.values[row + JOINTS * (c + 3 * t)] as f32;
                if !value.is_finite() {
                    let place = format!("`d_skel`({}, {}, {})", row + 1, c + 1, t + 1);
                    return Err(Error::format(entry.path.display(), format!("{place}: expected a finite number, got {value}")));
                }
                joints.push(value);
            }
        }
    }
    Ok(Outcome::Clip(Body { joints, frames, persons: 1, valid: None }))
}

#[cfg(test)]
mod tests {
    use llmar::formats::ClipArchive;

    use super::super::mat5::writing::{doubles, file, packed};
    use super::super::{Format, Side, scan};
    use super::*;
    use crate::testing::shared;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, Entry) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a3_s4_t2_skeleton.mat");
        std::fs::write(&path, bytes).unwrap();
        let set = scan(Format::UtdMhad, &[folder.path().to_path_buf()]).unwrap();
        (folder, set.entries[0].clone())
    }

    fn value(j: usize, c: usize, t: usize) -> f64 {
        j as f64 + c as f64 * 0.25 + t as f64 * 100.0
    }

    fn clip(frames: usize) -> Vec<u8> {
        let values: Vec<f64> = (0..60 * frames).map(|i| value(i % 20, i / 20 % 3, i / 60)).collect();
        doubles("d_skel", &[20, 3, frames as i32], &values)
    }

    #[test]
    fn joints_are_reordered_by_name() {
        let (_folder, entry) = written(&file(&[packed(&clip(4))]));
        assert_eq!((entry.name.as_str(), entry.label, entry.subject), ("a3_s4_t2_skeleton", 2, Some(4)));
        let Outcome::Clip(body) = read(&entry).unwrap() else { panic!("a clip") };
        assert_eq!((body.frames, body.persons, body.valid), (4, 1, None));
        // Names as they stand in the data set's own list.
        let listed = "head shoulder_center spine hip_center left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow \
            right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot";
        for (v, name) in joints_of("kinect1_20").unwrap().iter().enumerate() {
            let row = listed.split_whitespace().position(|other| other == name).unwrap();
            for (t, c) in [(0, 0), (2, 1), (3, 2)] {
                assert_eq!(body.joints[(t * 20 + v) * 3 + c], value(row, c, t) as f32, "{name}");
            }
        }
    }

    #[test]
    fn genuine_files_equal_their_clips_in_the_archive() {
        let test = "utd_mhad::genuine_files_equal_their_clips_in_the_archive";
        let Some(folder) = shared(test, "data/raw/utd_mhad") else { return };
        let set = scan(Format::UtdMhad, &[folder]).unwrap();
        let names: Vec<_> = set.entries.iter().map(|e| (e.name.as_str(), e.label, e.subject)).collect();
        assert_eq!(names, [("a1_s1_t1_skeleton", 0, Some(1)), ("a27_s8_t1_skeleton", 26, Some(8))]);
        assert_eq!(set.protocols["cross_subject"].sides, [Side::Train, Side::Test]);
        let bodies = set.entries.iter().map(|entry| match read(entry).unwrap() {
            Outcome::Clip(body) => body,
            Outcome::Dropped(reason) => panic!("{reason}"),
        });
        let bodies: Vec<Body> = bodies.collect();
        assert_eq!(bodies.iter().map(|body| body.frames).collect::<Vec<_>>(), [48, 101]);

        let Some(path) = shared(test, "data/utd_mhad.safetensors") else { return };
        let archive = ClipArchive::read(&path).unwrap();
        assert_eq!(set.classes, archive.classes);
        for (entry, body) in set.entries.iter().zip(&bodies) {
            // Which clip of the archive: the same class and subject; it has no trial numbers.
            let same = |i: &usize| archive.labels[*i] == entry.label && Some(archive.subjects[*i]) == entry.subject;
            let clips: Vec<usize> = (0..archive.clips.len()).filter(same).filter(|&i| archive.clips[i].frames == body.frames).collect();
            let equal: Vec<&usize> = clips.iter().filter(|&&i| archive.clips[i].joints == body.joints).collect();
            assert_eq!(equal.len(), 1, "{}: {} clips of its class, subject and length", entry.name, clips.len());
        }
    }

    #[test]
    fn the_whole_data_set_is_split_as_published() {
        let Some(path) = shared("utd_mhad::the_whole_data_set_is_split_as_published", "data/utd_mhad.safetensors") else { return };
        let archive = ClipArchive::read(&path).unwrap();
        // Its clips as files: trials count up within a class and subject.
        let folder = tempfile::tempdir().unwrap();
        let mut trials = BTreeMap::new();
        for (label, subject) in archive.labels.iter().zip(&archive.subjects) {
            let trial = trials.entry((label, subject)).and_modify(|trial| *trial += 1).or_insert(1);
            std::fs::write(folder.path().join(format!("a{}_s{subject}_t{trial}_skeleton.mat", label + 1)), "").unwrap();
        }
        let set = scan(Format::UtdMhad, &[folder.path().to_path_buf()]).unwrap();
        assert_eq!(set.entries.iter().map(|e| e.label).collect::<Vec<_>>(), archive.labels);
        assert_eq!(set.entries.iter().filter_map(|e| e.subject).collect::<Vec<_>>(), archive.subjects);
        let protocol = &set.protocols["cross_subject"];
        assert_eq!(protocol.sides.iter().map(|side| *side == Side::Test).collect::<Vec<_>>(), archive.splits["cross_subject"]);
        let count = |side| protocol.sides.iter().filter(|other| **other == side).count();
        assert_eq!(Some((count(Side::Train), count(Side::Test))), protocol.published);
    }

    #[test]
    fn names_that_are_none_are_refused_and_other_sensors_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        for name in
            ["a0_s1_t1_skeleton.mat", "a28_s1_t1_skeleton.mat", "a1_s9_t1_skeleton.mat", "a1_s1_skeleton.mat", "a1_s1_t1_x_skeleton.mat"]
        {
            let error = scan(Format::UtdMhad, &[at(name)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("file name"), "{error}");
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        for name in ["a1_s1_t1_depth.mat", "a10_s1_t1_skeleton.mat", "a2_s1_t1_skeleton.mat"] {
            at(name);
        }
        let set = scan(Format::UtdMhad, &[folder.path().to_path_buf()]).unwrap();
        assert_eq!(set.entries.iter().map(|e| e.label).collect::<Vec<_>>(), [1, 9]);
    }

    #[test]
    fn other_contents_are_refused() {
        let values = vec![0.0; 60];
        let mut infinite = values.clone();
        infinite[20 + 4] = 1e300;
        for (bytes, expected) in [
            (file(&[doubles("d_iner", &[20, 3], &values)]), "no variable `d_skel`"),
            (file(&[doubles("d_skel", &[3, 20], &values)]), "expected [20, 3, frames], got [3, 20]"),
            (file(&[doubles("d_skel", &[20, 3], &infinite)]), "`d_skel`(5, 2, 1): expected a finite number"),
        ] {
            let (_folder, entry) = written(&bytes);
            let error = read(&entry).unwrap_err().to_string();
            assert!(error.contains("a3_s4_t2_skeleton.mat") && error.contains(expected), "{error}");
        }
        let (_folder, entry) = written(&file(&[doubles("d_skel", &[20, 3], &values)]));
        assert!(matches!(read(&entry).unwrap(), Outcome::Clip(Body { frames: 1, .. })));
        let (_folder, entry) = written(&file(&[doubles("d_skel", &[20, 3, 0], &[])]));
        assert_eq!(read(&entry).unwrap(), Outcome::Dropped("no frame".into()));
    }

    #[test]
    fn cut_files_are_errors_and_flipped_bytes_never_panic() {
        for bytes in [file(&[clip(2)]), file(&[packed(&clip(2))])] {
            let (_folder, entry) = written(&bytes);
            let whole = read(&entry).unwrap();
            for len in 0..bytes.len() {
                std::fs::write(&entry.path, &bytes[..len]).unwrap();
                let error = read(&entry).unwrap_err().to_string();
                assert!(error.contains("a3_s4_t2_skeleton.mat"), "{len}: {error}");
            }
            let mut damage = 0;
            for at in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= flip;
                    std::fs::write(&entry.path, &flipped).unwrap();
                    damage += usize::from(read(&entry).ok().as_ref() != Some(&whole));
                }
            }
            assert!(damage > bytes.len(), "{damage} of {} flips noticed", 3 * bytes.len());
        }
    }
}
