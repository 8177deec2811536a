//! UAV-Human: text files `P000S00G10B10H10UC022000LC021000A000R0_08241716.txt` in the layout of NTU RGB+D with the 17 joints of COCO,
//! x and y in pixels. The two cross-subject protocols test on 30 of the 119 subjects each.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::kinect_text::{MAX_BYTES, Source, parse};
use super::planar::{PERSONS, strongest};
use super::{Entry, Outcome, Protocol, Set, files, joints_of, numbered, read_text, split_by, stem};
use crate::error::{Error, Result};

/// Class names by number in the file name, verbatim ("figure snap" too). Source: README of github.com/sutdcv/UAV-Human.
const CLASSES: &str = include_str!("uav_human_classes.txt");
const SUBJECTS: i64 = 119;

/// Name of a protocol, and the subjects tested on; the others are trained on. Source: as the class names.
const PROTOCOLS: [(&str, &[i64]); 2] = [
    (
        "cross_subject_v1",
        &[1, 3, 4, 9, 22, 23, 24, 31, 41, 54, 58, 60, 66, 72, 74, 75, 91, 92, 93, 94, 95, 96, 97, 99, 101, 104, 107, 108, 109, 113],
    ),
    (
        "cross_subject_v2",
        &[1, 2, 7, 9, 13, 15, 17, 23, 25, 27, 28, 33, 34, 41, 42, 48, 50, 51, 53, 55, 58, 65, 68, 76, 82, 85, 90, 98, 105, 116],
    ),
];

/// Fields of a file name before the time stamp, with their digits: person, setup, gender, backpack, hat, upper and lower clothing, action,
/// repetition.
const FIELDS: [(&str, usize); 9] = [("P", 3), ("S", 2), ("G", 2), ("B", 2), ("H", 2), ("UC", 6), ("LC", 6), ("A", 3), ("R", 1)];

pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let classes: Vec<String> = CLASSES.lines().map(str::to_owned).collect();
    let mut entries = Vec::new();
    for path in files(sources, ".txt")? {
        let name = stem(&path);
        let wrong = |detail: &str| Error::format(path.display(), format!("file name: {detail}"));
        let (subject, action) = fields(&name).ok_or_else(|| wrong("expected P000S00G00B00H00UC000000LC000000A000R0_00000000"))?;
        if subject >= SUBJECTS {
            return Err(wrong("expected a person of 0 to 118"));
        }
        let label =
            usize::try_from(action).ok().filter(|label| *label < classes.len()).ok_or_else(|| wrong("expected an action of 0 to 154"))?;
        entries.push(Entry { name, path, index: 0, label, subject: Some(subject), camera: None });
    }
    let mut protocols = BTreeMap::new();
    for (name, test) in PROTOCOLS {
        let train: Vec<i64> = (0..SUBJECTS).filter(|subject| !test.contains(subject)).collect();
        let sides = split_by(entries.iter().map(|entry| entry.subject), &train, Some(test));
        protocols.insert(name.to_owned(), Protocol::of(sides));
    }
    Ok(Set {
        name: "uav_human".into(),
        classes,
        joints: joints_of("coco17")?,
        persons: PERSONS,
        coords: 2,
        coordinates: "pixels of the image, y down",
        entries,
        protocols,
        ..Set::default()
    })
}

/// Person and action of a file name.
fn fields(name: &str) -> Option<(i64, i64)> {
    let (mut rest, mut values) = (name, [0; FIELDS.len()]);
    for (value, (prefix, digits)) in values.iter_mut().zip(FIELDS) {
        (*value, rest) = numbered(rest, prefix, digits)?;
    }
    let (_, rest) = numbered(rest, "_", 8)?;
    rest.is_empty().then_some((values[0], values[7]))
}

pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let text = read_text(&entry.path, MAX_BYTES)?;
    let frames = parse(&entry.path, &text, Source::UavHuman)?;
    let flat = |joints: Vec<[f32; 3]>| joints.into_iter().map(|[x, y, _]| [x, y]).collect();
    let frames: Vec<Vec<Vec<[f32; 2]>>> =
        frames.into_iter().map(|frame| frame.into_iter().map(|sample| flat(sample.joints)).collect()).collect();
    Ok(strongest(&frames, Source::UavHuman.joints()))
}

#[cfg(test)]
mod tests {
    use super::super::kinect_text::Sample;
    use super::super::kinect_text::fixture::{body, write};
    use super::super::{Format, Side, read, scan};
    use super::*;

    fn name(person: usize, action: usize) -> String {
        format!("P{person:03}S00G10B10H10UC022000LC021000A{action:03}R0_08241716")
    }

    /// A folder with a file of each name.
    fn folder(names: impl IntoIterator<Item = String>, text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name + ".txt"), text).unwrap();
        }
        folder
    }

    fn sample(scale: f32, at: f32) -> Sample {
        body(0, (0..17).map(|j| [at + scale * j as f32, at + 1.0, 7.0]).collect::<Vec<_>>())
    }

    #[test]
    fn every_subject_is_on_its_side() {
        let folder = folder((0..119).map(|person| name(person, person + 36)), "");
        let format: Format = clap::ValueEnum::from_str("uav-human", false).unwrap();
        let set = scan(format, &[folder.path().to_path_buf()]).unwrap();
        assert_eq!((set.classes.len(), set.joints.len(), set.persons, set.coords), (155, 17, 2, 2));
        assert_eq!((set.entries[118].label, set.entries[118].subject), (154, Some(118)));
        assert_eq!(["drink", "figure snap", "close an umbrella"], [0, 43, 154].map(|label| set.classes[label].as_str()));
        for (protocol, subject_9, subject_2) in
            [("cross_subject_v1", Side::Test, Side::Train), ("cross_subject_v2", Side::Test, Side::Test)]
        {
            let sides = &set.protocols[protocol].sides;
            let count = |side| sides.iter().filter(|other| **other == side).count();
            assert_eq!((count(Side::Train), count(Side::Test)), (89, 30), "{protocol}");
            assert_eq!((sides[9], sides[2]), (subject_9, subject_2), "{protocol}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for wrong in [
            "readme".to_owned(),
            name(0, 155),
            name(119, 0),
            name(0, 0).replace('U', "V"),
            name(0, 0).replace("R0_", "R0"),
            name(0, 0) + "_x",
            name(0, 0).replace("A000", "A00x"),
        ] {
            let folder = folder([wrong.clone()], "");
            let error = scan(Format::UavHuman, &[folder.path().to_path_buf()]).unwrap_err().to_string();
            assert!(error.contains(&wrong) && error.contains("file name"), "{error}");
        }
    }

    #[test]
    fn the_two_that_move_most_are_read_in_pixels() {
        let frames = [vec![sample(1.0, 5.0), sample(3.0, 5.0), sample(2.0, 5.0)], vec![], vec![sample(1.0, 5.0), sample(3.0, 6.0)]];
        let folder = folder([name(3, 7)], &write(&frames, Source::UavHuman));
        let set = scan(Format::UavHuman, &[folder.path().to_path_buf()]).unwrap();
        let Outcome::Clip(body) = read(Format::UavHuman, &set.entries[0]).unwrap() else { panic!("a clip") };
        assert_eq!((body.frames, body.persons, body.joints.len()), (3, 2, 3 * 2 * 17 * 2));
        assert_eq!(body.joints[..6], [5.0, 6.0, 8.0, 6.0, 11.0, 6.0]);
        assert_eq!(body.joints[34..40], [5.0, 6.0, 7.0, 6.0, 9.0, 6.0]);
        assert_eq!(body.joints[2 * 68..2 * 68 + 4], [6.0, 7.0, 9.0, 7.0]);
        // The second frame shows nobody, the third no third person.
        assert_eq!(body.valid.unwrap(), [[1; 17], [1; 17], [0; 17], [0; 17], [1; 17], [0; 17]].concat());
    }

    #[test]
    fn damage_names_file_and_line_and_nobody_is_dropped() {
        let good = write(&[vec![sample(1.0, 5.0)]], Source::UavHuman);
        for (text, expected) in [(good.replacen("17\n", "25\n", 1), "line 4: number of joints: expected 17"), ("one".into(), "line 1: ")] {
            let folder = folder([name(0, 0)], &text);
            let set = scan(Format::UavHuman, &[folder.path().to_path_buf()]).unwrap();
            let error = read(Format::UavHuman, &set.entries[0]).unwrap_err().to_string();
            assert!(error.contains(&name(0, 0)) && error.contains(expected), "{error}");
        }
        let folder = folder([name(0, 0)], "2\n0\n0\n");
        let set = scan(Format::UavHuman, &[folder.path().to_path_buf()]).unwrap();
        assert_eq!(read(Format::UavHuman, &set.entries[0]).unwrap(), Outcome::Dropped("no frame with a person".into()));
    }
}
