//! On made-up files, and on the genuine ones.

use llmar::formats::ClipArchive;
use llmar::skeleton::Layout;

use super::super::{Format, read, scan};
use super::*;
use crate::cli::ConvertArgs;
use crate::testing::shared;

/// A file in the making: a component of two points before the pose's and one after it.
#[derive(Clone)]
struct File {
    version: f32,
    format: &'static str,
    points: Vec<String>,
    fps: f32,
    frames: usize,
    persons: usize,
}

impl File {
    fn new(version: f32, format: &'static str, frames: usize, persons: usize) -> Self {
        let points = JOINTS.map(|(name, _)| name.to_uppercase()).to_vec();
        Self { version, format, points, fps: 25.0, frames, persons }
    }

    /// Coordinate `c` of point `v` of all 36; confidence is 0 for a tenth of them.
    fn value(t: usize, p: usize, v: usize, c: usize) -> f32 {
        (t * 1000 + p * 300 + v) as f32 + c as f32 * 0.25
    }

    fn confidence(t: usize, p: usize, v: usize) -> f32 {
        if (t + v) % 10 == 3 { 0.0 } else { 0.25 * (p + 1) as f32 }
    }

    fn build(&self) -> Vec<u8> {
        let mut out = self.version.to_le_bytes().to_vec();
        let short = |out: &mut Vec<u8>, values: &[usize]| values.iter().for_each(|v| out.extend((*v as u16).to_le_bytes()));
        let text = |out: &mut Vec<u8>, text: &str| {
            short(out, &[text.len()]);
            out.extend(text.as_bytes());
        };
        short(&mut out, &[640, 480, 0, 3]);
        let two = ["a".to_owned(), "b".to_owned()];
        for (name, points) in [("OTHER", &two[..]), (COMPONENT, &self.points[..]), ("LAST", &two[..1])] {
            text(&mut out, name);
            text(&mut out, self.format);
            short(&mut out, &[points.len(), 1, 2]);
            points.iter().for_each(|point| text(&mut out, point));
            short(&mut out, &[0, 1, 255, 0, 0, 0, 255, 0]);
        }
        if self.version > 0.15 {
            out.extend(self.fps.to_le_bytes());
            out.extend((self.frames as u32).to_le_bytes());
        } else {
            short(&mut out, &[self.fps as usize, self.frames]);
        }
        short(&mut out, &[self.persons]);
        let (all, coords) = (3 + self.points.len(), self.format.len() - 1);
        let rows: Vec<[usize; 3]> =
            (0..self.frames * self.persons * all).map(|i| [i / all / self.persons, i / all % self.persons, i % all]).collect();
        for &[t, p, v] in &rows {
            (0..coords).for_each(|c| out.extend(Self::value(t, p, v, c).to_le_bytes()));
        }
        rows.iter().for_each(|&[t, p, v]| out.extend(Self::confidence(t, p, v).to_le_bytes()));
        out
    }
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, Entry) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("wave")).unwrap();
    let path = folder.path().join("wave/a.pose");
    std::fs::write(&path, bytes).unwrap();
    (folder, Entry { name: "wave/a".into(), path, ..Entry::default() })
}

fn error_of(bytes: &[u8]) -> String {
    let (_folder, entry) = written(bytes);
    read(Format::MediaPipe, &entry).unwrap_err().to_string()
}

#[test]
fn both_versions_and_both_kinds_of_coordinates_are_read() {
    for (version, format, coords) in [(0.1, "XYZC", 3), (0.2, "XYZC", 3), (0.1, "XYC", 2), (0.2, "XYC", 2)] {
        let (folder, entry) = written(&File::new(version, format, 4, 3).build());
        let set = scan(Format::MediaPipe, &[folder.path().to_path_buf()]).unwrap();
        assert_eq!((set.classes, set.entries), (vec!["wave".to_owned()], vec![entry.clone()]));
        assert_eq!((set.coords, set.persons, set.fps), (coords, 2, Some(25.0)));
        let Outcome::Clip(body) = read(Format::MediaPipe, &entry).unwrap() else { panic!("a clip") };
        assert_eq!((body.frames, body.persons, body.joints.len()), (4, 2, 4 * 2 * 33 * coords));
        let valid = body.valid.unwrap();
        for (row, values) in body.joints.chunks(coords).enumerate() {
            // Of three persons the second and third have most confidence; the pose starts after two points.
            let (t, person, point) = (row / 66, row / 33 % 2 + 1, row % 33 + 2);
            let there = File::confidence(t, person, point) > 0.0;
            assert_eq!(valid[row] == 1, there);
            for (c, value) in values.iter().enumerate() {
                assert_eq!(*value, if there { File::value(t, person, point, c) } else { 0.0 });
            }
        }
    }
}

#[test]
fn names_are_known_to_the_built_in_layouts() {
    let own = Layout::new("own", &JOINTS.map(|(name, _)| name)).unwrap();
    let mirror = own.mirrored();
    for (v, (name, parent)) in JOINTS.iter().enumerate() {
        assert_eq!(mirror[v] == v, *name == "nose", "{name}");
        assert!(*parent < v as i64);
        if let Ok(parent) = usize::try_from(*parent) {
            assert_eq!(JOINTS[mirror[v]].1, mirror[parent] as i64, "{name}");
        }
    }
    for target in ["kinect1_20", "ntu25", "coco17"] {
        let target = Layout::find(target).unwrap();
        for (sources, joint) in own.map_to(&target).iter().zip(&target.joints) {
            assert!(!sources.is_empty(), "{joint} of {}", target.name);
        }
    }
    assert_eq!((own.joint("left_foot"), own.joint("right_thumb")), (Some(31), Some(22)));
}

#[test]
fn a_version_0_1_file_counts_frames_modulo_65536() {
    let mut file = File::new(0.1, "XYC", 65_537, 1);
    assert_eq!(file.frames as u16, 1);
    let (_folder, entry) = written(&file.build());
    let Outcome::Clip(body) = read(Format::MediaPipe, &entry).unwrap() else { panic!("a clip") };
    assert_eq!(body.frames, 65_537);
    file.frames = 3;
    let bytes = file.build();
    assert!(error_of(&bytes[..bytes.len() - 36 * 12]).contains("expected 3 frames (modulo 65536) of 432 bytes, got 864 bytes"));
}

#[test]
fn one_rate_is_kept_and_several_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::new(0.2, "XYZC", 1, 1);
    let add = |name: &str, file: &File| std::fs::write(folder.path().join(name), file.build()).unwrap();
    let fps = || scan(Format::MediaPipe, &[folder.path().to_path_buf()]).map(|set| set.fps);
    add("a.pose", &file);
    add("b.pose", &file);
    assert_eq!(fps().unwrap(), Some(25.0));
    std::fs::write(folder.path().join("c.pose"), "damaged").unwrap();
    assert_eq!(fps().unwrap(), Some(25.0));
    file.fps = 0.0;
    add("d.pose", &file);
    assert_eq!(fps().unwrap(), None);
    add("e.pose", &File::new(0.2, "XYC", 1, 1));
    let error = fps().unwrap_err().to_string();
    assert!(error.contains("e.pose") && error.contains("2 coordinates, but other files have 3"), "{error}");
}

#[test]
fn nothing_to_see_is_dropped() {
    for (frames, persons) in [(0, 1), (4, 0), (0, 0)] {
        let mut file = File::new(0.2, "XYZC", frames, persons);
        for version in [0.1, 0.2] {
            file.version = version;
            let (_folder, entry) = written(&file.build());
            assert_eq!(read(Format::MediaPipe, &entry).unwrap(), Outcome::Dropped("no frame, or none of a person".into()));
        }
    }
    let mut bytes = File::new(0.2, "XYZC", 1, 1).build();
    let start = bytes.len() - 36 * 4;
    bytes[start..].fill(0);
    let (_folder, entry) = written(&bytes);
    assert_eq!(read(Format::MediaPipe, &entry).unwrap(), Outcome::Dropped("no person in any frame".into()));
}

#[test]
fn what_is_wrong_is_named_with_its_byte() {
    let good = File::new(0.2, "XYZC", 2, 1);
    let bytes = good.build();
    let find = |word: &str| bytes.windows(word.len()).position(|w| w == word.as_bytes()).unwrap();
    let changed = |at: usize, new: &[u8]| {
        let mut out = bytes.clone();
        out[at..at + new.len()].copy_from_slice(new);
        out
    };
    let body = bytes.len() - 2 * 36 * 16;
    let less = File { points: good.points[..32].to_vec(), ..good.clone() };
    for (bytes, expected) in [
        (changed(0, &0.3f32.to_le_bytes()), "byte 0: expected version 0.1 or 0.2"),
        (changed(0, &f32::NAN.to_le_bytes()), "byte 0: expected version"),
        (changed(find("POSE_LANDMARKS"), b"Q"), "no component POSE_LANDMARKS"),
        (changed(find("NOSE"), b"X"), "expected the point nose, got `XOSE`"),
        (changed(find("NOSE"), &[0xff]), "expected UTF-8"),
        (changed(find("XYZC"), b"XYZW"), "expected a format such as XYZC, got `XYZW`"),
        (less.build(), "POSE_LANDMARKS: expected 33 points, got 32"),
        (File { format: "XC", ..good.clone() }.build(), "expected the format XYZC or XYC, got `XC`"),
        (File { fps: f32::INFINITY, ..good.clone() }.build(), "expected frames a second, got inf"),
        (changed(body + (2 * 3 + 1) * 4, &f32::NAN.to_le_bytes()), &format!("byte {}: coordinate", body + 28)),
        (changed(bytes.len() - 4 * 2, &f32::NAN.to_le_bytes()), &format!("byte {}: confidence", bytes.len() - 8)),
        ([&bytes[..], &[0]].concat(), "expected 2 frames of 576 bytes, got 1153 bytes"),
    ] {
        let error = error_of(&bytes);
        assert!(error.contains("a.pose") && error.contains(expected), "{error}, not: {expected}");
    }
    // Counts for which there is no memory.
    let error = error_of(&changed(body - 6, &u32::MAX.to_le_bytes()));
    assert!(error.contains("expected 4294967295 frames of 576 bytes"), "{error}");
    let error = error_of(&changed(body - 2, &u16::MAX.to_le_bytes()));
    assert!(error.contains("expected 2 frames of 37748160 bytes"), "{error}");
    // What face and hands hold does not matter.
    let (_folder, entry) = written(&changed(body, &f32::NAN.to_le_bytes()));
    assert!(read(Format::MediaPipe, &entry).is_ok());
}

#[test]
fn cut_files_are_errors_and_flipped_bytes_never_panic() {
    for version in [0.1, 0.2] {
        let bytes = File::new(version, "XYZC", 2, 2).build();
        let (folder, entry) = written(&bytes);
        let whole = read(Format::MediaPipe, &entry).unwrap();
        for len in 0..bytes.len() {
            std::fs::write(&entry.path, &bytes[..len]).unwrap();
            let error = read(Format::MediaPipe, &entry).unwrap_err().to_string();
            assert!(error.contains("a.pose") && error.contains("byte "), "{len}: {error}");
        }
        let mut noticed = 0;
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut flipped = bytes.clone();
                flipped[at] ^= flip;
                std::fs::write(&entry.path, &flipped).unwrap();
                noticed += usize::from(read(Format::MediaPipe, &entry).ok().as_ref() != Some(&whole));
                let _ = scan(Format::MediaPipe, &[folder.path().to_path_buf()]);
            }
        }
        assert!(noticed > bytes.len(), "{noticed} of {} flips noticed", 3 * bytes.len());
    }
}

#[test]
fn genuine_files_are_read() {
    let Some(source) = shared("mediapipe::genuine_files_are_read", "data/raw/mediapipe_pose") else { return };
    let set = scan(Format::MediaPipe, std::slice::from_ref(&source)).unwrap();
    assert_eq!(set.entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["mediapipe_pose/en_ase_A", "mediapipe_pose/en_ase_B"]);
    assert_eq!((set.fps, set.coords, set.persons), (Some(25.0), 3, 1));
    for (entry, frames) in set.entries.iter().zip([21, 24]) {
        let Outcome::Clip(body) = read(Format::MediaPipe, entry).unwrap() else { panic!("a clip") };
        assert_eq!((body.frames, body.persons, body.joints.len()), (frames, 1, frames * 33 * 3));
        let (at, valid) = (|t: usize, v: usize, c: usize| body.joints[(t * 33 + v) * 3 + c], body.valid.as_ref().unwrap());
        for t in 0..frames {
            // A signer who faces the camera: the nose over the shoulders over the hips, the left shoulder on the right of the picture.
            assert!(at(t, 0, 1) < at(t, 11, 1) && at(t, 11, 1) < at(t, 23, 1) && at(t, 11, 0) > at(t, 12, 0), "frame {t}");
            assert!(valid[t * 33] == 1 && valid[t * 33 + 11] == 1);
        }
        if frames == 21 {
            assert_eq!([at(0, 0, 0), at(0, 0, 1), at(0, 0, 2)], [246.283_57, 131.634_03, 248.959_17]);
            // The left wrist is not in the picture.
            assert!((0..21).all(|t| valid[t * 33 + 15] == 0) && valid.iter().filter(|v| **v == 0).count() == 21);
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let args = ConvertArgs::new(Format::MediaPipe, &[source], &folder.path().join("out.safetensors"));
    let report = crate::data::convert(&args).unwrap();
    assert_eq!((report.clips, report.frames), (2, 45));
    let archive = ClipArchive::read(&args.out).unwrap();
    assert_eq!((archive.fps, archive.classes, archive.clips[1].frames), (Some(25.0), vec!["mediapipe_pose".to_owned()], 24));
}
