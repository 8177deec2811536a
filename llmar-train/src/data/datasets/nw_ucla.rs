//! Northwestern-UCLA Multiview 3D: JSON files `a01_s01_e00_v01.json` with 20 Kinect v1 joints in metres (see `llmar::formats`).
//!
//! Classes are numbered 1 to 12 with 7 and 10 unused; the cross-view protocol trains on cameras 1 and 2 and tests on camera 3 (1,020 and
//! 464 clips).

use std::collections::BTreeMap;
use std::path::PathBuf;

use llmar::formats::read_clips;

use super::{Body, Entry, Outcome, Protocol, Set, files, joints_of, numbered, split_by, stem};
use crate::error::{Error, Result};

/// Number in the file name, and name.
const CLASSES: [(i64, &str); 10] = [
    (1, "pick up with one hand"),
    (2, "pick up with two hands"),
    (3, "drop trash"),
    (4, "walk around"),
    (5, "sit down"),
    (6, "stand up"),
    (8, "donning"),
    (9, "doffing"),
    (11, "throw"),
    (12, "carry"),
];

pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let mut entries = Vec::new();
    for path in files(sources, ".json")? {
        let name = stem(&path);
        let wrong = |detail: &str| Error::format(path.display(), format!("file name: {detail}"));
        let parts = numbered(&name, "a", 2)
            .and_then(|(action, rest)| numbered(rest, "_s", 2).map(|(subject, rest)| (action, subject, rest)))
            .and_then(|(action, subject, rest)| numbered(rest, "_e", 2).map(|(_, rest)| (action, subject, rest)))
            .and_then(|(action, subject, rest)| numbered(rest, "_v", 2).map(|(camera, rest)| (action, subject, camera, rest)));
        let Some((action, subject, camera, "")) = parts else {
            return Err(wrong("expected a00_s00_e00_v00"));
        };
        let label = CLASSES
            .iter()
            .position(|&(number, _)| number == action)
            .ok_or_else(|| wrong("expected one of the actions 1 to 6, 8, 9, 11, 12"))?;
        entries.push(Entry { name, path, index: 0, label, subject: Some(subject), camera: Some(camera) });
    }
    let sides = split_by(entries.iter().map(|entry| entry.camera), &[1, 2], Some(&[3]));
    Ok(Set {
        name: "nw_ucla".into(),
        classes: CLASSES.iter().map(|(_, name)| (*name).to_owned()).collect(),
        joints: joints_of("kinect1_20")?,
        persons: 1,
        coords: 3,
        coordinates: "metres, y up, z depth from the camera",
        protocols: BTreeMap::from([("cross_view".to_owned(), Protocol::of(sides))]),
        entries,
        ..Set::default()
    })
}

pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let clip = read_clips(&entry.path)?.swap_remove(0);
    if clip.layout != "kinect1_20" {
        return Err(Error::format(entry.path.display(), format!("expected the key `skeletons` of NW-UCLA, got a clip of {}", clip.layout)));
    }
    if clip.frames == 0 {
        return Ok(Outcome::Dropped("no frame".into()));
    }
    Ok(Outcome::Clip(Body { joints: clip.joints.into(), frames: clip.frames, persons: 1, valid: clip.valid.map(Vec::from) }))
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Side, scan};
    use super::*;
    use crate::testing::shared;

    #[test]
    fn genuine_files_are_read() -> Result<()> {
        let Some(folder) = shared("nw_ucla::genuine_files_are_read", "data/raw/nw_ucla") else { return Ok(()) };
        let set = scan(Format::NwUcla, &[folder])?;
        let names: Vec<_> = set.entries.iter().map(|e| (e.name.as_str(), e.label, e.subject, e.camera)).collect();
        assert_eq!(names, [("a01_s01_e00_v01", 0, Some(1), Some(1)), ("a12_s10_e04_v03", 9, Some(10), Some(3))]);
        assert_eq!(set.protocols["cross_view"].sides, [Side::Train, Side::Test]);
        let Outcome::Clip(body) = read(&set.entries[0])? else { panic!("a clip") };
        assert_eq!(body.joints.len(), body.frames * 20 * 3);
        Ok(())
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a01_s01_e00.json", "a07_s01_e00_v01.json", "a01_s01_e00_v01_x.json", "b.json"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "{}").unwrap();
            let error = scan(Format::NwUcla, std::slice::from_ref(&path)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("file name"), "{error}");
        }
    }
}
