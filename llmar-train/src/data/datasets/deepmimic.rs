//! DeepMimic motion JSON of the body `humanoid3d`, as in the folder `data/motions` of the PyPI package pybullet. `llmar::formats` turns the
//! rotations into positions of `kinect1_20`, in metres.
//!
//! The class is the file's stem without `humanoid3d_`, digits at its end, and then `_a` or `_b`: `humanoid3d_dance_b.txt` is `dance`,
//! `humanoid3d_walk_01.txt` is `walk`. Files of a folder without that prefix are of another body (pybullet's `laikago_*` are a dog's) and
//! are left out; a file that is named itself is taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llmar::formats::{OwnedClip, read_clips};

use super::bvh::one_rate;
use super::folders::label;
use super::{Body, Entry, Outcome, Set, files, joints_of, stem};
use crate::error::{Error, Result};

/// What the stem of a motion of the human body begins with.
const PREFIX: &str = "humanoid3d_";

/// The rate stands in the files, so they are read here too; a damaged one is left to `read`, which reports it.
pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let (mut found, mut rates) = (Vec::new(), Vec::new());
    let mut dropped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files(sources, ".txt")? {
        let name = stem(&path);
        if !name.starts_with(PREFIX) && !sources.contains(&path) {
            dropped.entry(format!("name without {PREFIX}: of another body")).or_default().push(name);
            continue;
        }
        let class = class_of(&name);
        if class.is_empty() {
            return Err(Error::format(path.display(), format!("file name: expected {PREFIX} and a class")));
        }
        rates.extend(motion(&path).ok().and_then(|clip| clip.fps).map(f64::from));
        let class = class.to_owned();
        found.push((class, Entry { name, path, ..Entry::default() }));
    }
    let (classes, entries) = label(found);
    Ok(Set {
        name: "deep_mimic".into(),
        entries,
        classes,
        joints: joints_of("kinect1_20")?,
        persons: 1,
        coords: 3,
        fps: one_rate(&rates),
        coordinates: "metres, y up, facing -z",
        dropped,
        ..Set::default()
    })
}

pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let clip = motion(&entry.path)?;
    Ok(Outcome::Clip(Body { joints: clip.joints.into(), frames: clip.frames, persons: 1, valid: clip.valid.map(Vec::from) }))
}

/// The motion of a file, at least one frame.
fn motion(path: &Path) -> Result<OwnedClip> {
    let mut clips = read_clips(path)?;
    // NW-UCLA's JSON has no rate.
    let clip = clips.pop().filter(|clip| clips.is_empty() && clip.layout == "kinect1_20" && clip.persons == 1);
    clip.filter(|clip| clip.fps.is_some() && clip.frames > 0)
        .ok_or_else(|| Error::format(path.display(), "expected the key `Frames` of DeepMimic, got a clip of another format"))
}

/// The class in a stem.
fn class_of(stem: &str) -> &str {
    let name = stem.strip_prefix(PREFIX).unwrap_or(stem);
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    name.strip_suffix("_a").or_else(|| name.strip_suffix("_b")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::super::{Format, read, scan};
    use super::*;
    use crate::testing::shared;

    #[test]
    fn genuine_files_are_read() -> Result<()> {
        let Some(folder) = shared("deepmimic::genuine_files_are_read", "data/raw/deepmimic_pybullet") else { return Ok(()) };
        let set = scan(Format::DeepMimic, &[folder])?;
        assert_eq!(set.classes, ["backflip", "kick", "walk"]);
        let labels: Vec<_> = set.entries.iter().map(|entry| (entry.name.as_str(), entry.label)).collect();
        assert_eq!(labels, [("humanoid3d_backflip", 0), ("humanoid3d_kick", 1), ("humanoid3d_walk", 2)]);
        for entry in &set.entries {
            let Outcome::Clip(body) = read(Format::DeepMimic, entry)? else { panic!("a clip") };
            assert_eq!(body.joints.len(), body.frames * 20 * 3);
            let lowest = body.joints.iter().skip(1).step_by(3).copied().fold(f32::MAX, f32::min);
            assert!(lowest.abs() < 0.2, "{}: the lowest joint is at {lowest} m", entry.name);
        }
        Ok(())
    }

    #[test]
    fn classes_stand_in_names() {
        for (stem, class) in [
            ("humanoid3d_walk", "walk"),
            ("humanoid3d_dance_a", "dance"),
            ("humanoid3d_dance_b", "dance"),
            ("humanoid3d_walk_01", "walk"),
            ("humanoid3d_walk12", "walk"),
            ("humanoid3d_dance_a2", "dance"),
            ("humanoid3d_getup_facedown", "getup_facedown"),
            ("humanoid3d_spin_c", "spin_c"),
            ("mine", "mine"),
            ("humanoid3d_", ""),
            ("humanoid3d_01", ""),
        ] {
            assert_eq!(class_of(stem), class, "{stem}");
        }
    }

    /// Two frames, `step` seconds apart, standing.
    fn standing(step: f64) -> String {
        let mut frame = vec![0.0; 44];
        (frame[0], frame[2]) = (step, 0.9);
        for at in [4, 8, 12, 16, 21, 25, 30, 35, 39] {
            frame[at] = 1.0;
        }
        format!(r#"{{"Loop": "none", "Frames": [{frame:?}, {frame:?}]}}"#)
    }

    #[test]
    fn other_bodies_are_left_out_and_damage_is_left_to_read() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        file("laikago_pace.txt", "{}");
        file("humanoid3d_run.txt", &standing(0.02));
        file("humanoid3d_walk.txt", &standing(0.02));
        file("humanoid3d_zap.txt", r#"{"file_name": "x", "skeletons": []}"#);
        let set = scan(Format::DeepMimic, &[folder.path().to_path_buf()])?;
        assert_eq!((set.classes.len(), set.fps), (3, Some(50.0)));
        assert_eq!(set.dropped.values().flatten().collect::<Vec<_>>(), ["laikago_pace"]);
        assert!(matches!(read(Format::DeepMimic, &set.entries[1])?, Outcome::Clip(body) if body.frames == 2));
        let error = read(Format::DeepMimic, &set.entries[2]).unwrap_err().to_string();
        assert!(error.contains("humanoid3d_zap.txt"), "{error}");

        file("humanoid3d_walk.txt", &standing(0.03));
        assert_eq!(scan(Format::DeepMimic, &[folder.path().to_path_buf()])?.fps, None);
        let named = scan(Format::DeepMimic, &[folder.path().join("laikago_pace.txt")])?;
        assert_eq!(named.classes, ["laikago_pace"]);
        file("humanoid3d_1.txt", "{}");
        assert!(scan(Format::DeepMimic, &[folder.path().to_path_buf()]).unwrap_err().to_string().contains("file name"));
        Ok(())
    }
}
