//! NTU RGB+D 60 and 120: `.skeleton` files `S001C002P003R002A013` (setup, camera, performer, repetition, action) with the 25 joints of
//! Kinect v2 in metres.
//!
//! The clips on the official lists of missing skeletons are left out. The others are cleaned as in the 64-frame protocol, which CTR-GCN and
//! many after it use: bodies that are noise are dropped, and two actors are chosen. The protocol's translation, padding and resampling are
//! those of the model's own preprocessing.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::kinect_text::{MAX_BYTES, Sample, Source, parse};
use super::{Body, Entry, Outcome, Protocol, Set, files, joints_of, numbered, read_text, split_by, stem};
use crate::error::{Error, Result};

/// Which of the two data sets; the first is a part of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edition {
    /// 56,880 clips: setups 1 to 17, actions 1 to 60.
    Ntu60,
    /// 114,480 clips: setups 1 to 32, actions 1 to 120.
    Ntu120,
}

/// Class names in the order of the action numbers, verbatim. Source: README of github.com/shahroudy/NTURGB-D.
const CLASSES: &str = include_str!("ntu_classes.txt");
/// The official list of 535 clips of NTU RGB+D 120 without usable skeletons, sorted; those of setups 1 to 17 are the list
/// of 302 of NTU RGB+D 60. Source: as the class names.
const MISSING: &str = include_str!("ntu_missing.txt");

/// Performers trained on; all others are tested on. Those up to 40 are the list of NTU RGB+D 60. Source: Shahroudy 2016, Liu 2019.
const TRAIN_SUBJECTS: [i64; 53] = [
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74,
    78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103,
];
/// Numbers of NTU RGB+D 120.
const SETUPS: i64 = 32;
const CAMERAS: i64 = 3;
const PERFORMERS: i64 = 106;
/// Numbers of NTU RGB+D 60.
const SETUPS_60: i64 = 17;
const CLASSES_60: usize = 60;

/// A body of several is noise when it has at most so many frames.
const NOISE_FRAMES: usize = 11;
/// A frame of a body is noisy when it is wider than this part of its height: no person stands so.
const NOISE_WIDTH: f64 = 0.8;
/// A body of several is noise when so many of its frames are noisy. Source of the three: github.com/Uason-Chen/CTR-GCN, data/ntu.
const NOISE_SHARE: f64 = 0.69754;

pub(super) fn scan(edition: Edition, sources: &[PathBuf]) -> Result<Set> {
    let all: Vec<String> = CLASSES.lines().map(str::to_owned).collect();
    let missing: HashSet<&str> = MISSING.lines().collect();
    let (mut entries, mut setups) = (Vec::new(), Vec::new());
    let mut dropped = BTreeMap::<String, Vec<String>>::new();
    for path in files(sources, ".skeleton")? {
        let name = stem(&path);
        let [setup, camera, subject, label] = fields(&path, &name, all.len())?;
        let class = label as usize; // 0 to 119
        if edition == Edition::Ntu60 && (setup > SETUPS_60 || class >= CLASSES_60) {
            dropped.entry("not in NTU RGB+D 60 (setups 1 to 17, actions 1 to 60)".into()).or_default().push(name);
        } else if missing.contains(name.as_str()) {
            dropped.entry("on the official list of missing skeletons".into()).or_default().push(name);
        } else {
            setups.push(setup);
            entries.push(Entry { name, path, index: 0, label: class, subject: Some(subject), camera: Some(camera) });
        }
    }
    let subjects = split_by(entries.iter().map(|entry| entry.subject), &TRAIN_SUBJECTS, None);
    let (name, classes, protocols) = match edition {
        Edition::Ntu60 => {
            let cameras = split_by(entries.iter().map(|entry| entry.camera), &[2, 3], Some(&[1]));
            ("ntu60", CLASSES_60, [("cross_subject", subjects), ("cross_view", cameras)])
        }
        Edition::Ntu120 => {
            let even: Vec<i64> = (1..=SETUPS).filter(|setup| setup % 2 == 0).collect();
            let setups = split_by(setups.into_iter().map(Some), &even, None);
            ("ntu120", all.len(), [("cross_subject", subjects), ("cross_setup", setups)])
        }
    };
    Ok(Set {
        name: name.into(),
        classes: all.into_iter().take(classes).collect(),
        joints: joints_of("ntu25")?,
        persons: 2,
        coords: 3,
        fps: Some(30.0),
        coordinates: "metres, y up, z depth from the camera",
        entries,
        protocols: protocols.map(|(name, sides)| (name.to_owned(), Protocol::of(sides))).into(),
        dropped,
        ..Set::default()
    })
}

/// Setup, camera, performer, and action counted from 0.
fn fields(path: &Path, name: &str, classes: usize) -> Result<[i64; 4]> {
    let wrong = |detail: &str| Error::format(path.display(), format!("file name: {detail}"));
    let (mut rest, mut values) = (name, [0; 5]);
    for (value, letter) in values.iter_mut().zip(["S", "C", "P", "R", "A"]) {
        (*value, rest) = numbered(rest, letter, 3).ok_or_else(|| wrong("expected S000C000P000R000A000"))?;
    }
    let [setup, camera, subject, _, action] = values;
    let limits = [(setup, SETUPS), (camera, CAMERAS), (subject, PERFORMERS), (action, classes as i64)];
    if !rest.is_empty() {
        return Err(wrong("expected S000C000P000R000A000"));
    }
    if limits.iter().any(|(value, limit)| !(1..=*limit).contains(value)) {
        return Err(wrong("expected setups 1 to 32, cameras 1 to 3, performers 1 to 106, actions 1 to 120"));
    }
    Ok([setup, camera, subject, action - 1])
}

pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let text = read_text(&entry.path, MAX_BYTES)?;
    let mut frames = parse(&entry.path, &text, Source::Ntu)?;
    frames.retain(|bodies| !bodies.is_empty());
    if frames.is_empty() {
        return Ok(Outcome::Dropped("no frame with a body".into()));
    }
    let count = frames.len();
    let tracks = cleaned(tracks(frames));
    if tracks.is_empty() {
        return Ok(Outcome::Dropped("several bodies, all of them noise".into()));
    }
    Ok(body(&actors(&tracks, count)))
}

/// One body over the frames that have any.
#[derive(Clone, Debug)]
struct Track {
    /// First frame.
    start: usize,
    /// From the first frame on, without gaps: a body that leaves and comes back goes on at once, as the protocol has it. Never empty.
    samples: Vec<Sample>,
    /// See [`motion`].
    motion: f64,
}

/// The bodies by identity, in the order in which they appear.
fn tracks(frames: Vec<Vec<Sample>>) -> Vec<Track> {
    let (mut tracks, mut index) = (Vec::<Track>::new(), BTreeMap::new());
    for (start, bodies) in frames.into_iter().enumerate() {
        for sample in bodies {
            let at = *index.entry(sample.id).or_insert(tracks.len());
            match tracks.get_mut(at) {
                Some(track) => track.samples.push(sample),
                None => tracks.push(Track { start, samples: vec![sample], motion: 0.0 }),
            }
        }
    }
    for track in &mut tracks {
        track.motion = motion(track.samples.iter());
    }
    tracks
}

/// The sum over x, y and z of the variance over all frames and joints, in square metres; 0 without frames.
fn motion<'a>(samples: impl Iterator<Item = &'a Sample>) -> f64 {
    let joints: Vec<&[f32; 3]> = samples.flat_map(|sample| &sample.joints).collect();
    let count = joints.len().max(1) as f64;
    let variance = |axis: usize| {
        let values = || joints.iter().map(|joint| f64::from(joint[axis]));
        let mean = values().sum::<f64>() / count;
        values().map(|value| (value - mean).powi(2)).sum::<f64>() / count
    };
    (0..3).map(variance).sum()
}

/// Whether a body's joints lie further apart in x than a person's do for their extent in y.
fn noisy(sample: &Sample) -> bool {
    let extent = |axis: usize| {
        let values = || sample.joints.iter().map(|joint| f64::from(joint[axis]));
        values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min)
    };
    extent(0) > NOISE_WIDTH * extent(1)
}

/// The bodies that are no noise, most motion first. A body that is the only one, or the only one left, is not questioned.
fn cleaned(mut tracks: Vec<Track>) -> Vec<Track> {
    if tracks.len() > 1 {
        tracks.retain(|track| track.samples.len() > NOISE_FRAMES);
    }
    let mut at = 0;
    while tracks.len() > 1 && at < tracks.len() {
        let track = &mut tracks[at];
        let noise = track.samples.iter().filter(|sample| noisy(sample)).count();
        if noise as f64 / track.samples.len() as f64 >= NOISE_SHARE {
            tracks.remove(at);
            continue;
        }
        if noise > 0 {
            track.motion = track.motion.min(motion(track.samples.iter().filter(|sample| !noisy(sample))));
        }
        at += 1;
    }
    tracks.sort_by(|a, b| b.motion.total_cmp(&a.motion)); // stable
    tracks
}

/// Who is actor 1 and who actor 2 in each of `count` frames, without the frames that show neither. That with most motion is actor 1.
/// Each further one takes the place of actor 1, else of actor 2, where its time does not overlap that of the place, else none; one common
/// frame is not yet an overlap, and the later body has it. A place's time runs from its first body's first frame to its last one's last.
fn actors(tracks: &[Track], count: usize) -> Vec<[Option<&Sample>; 2]> {
    let mut places = vec![[None; 2]; count];
    // Actor 2 is taken to begin at frame 0, whenever its first body comes: so does the protocol.
    let mut times: [Option<(usize, usize)>; 2] = [None, Some((0, 0))];
    for track in tracks {
        let (start, end) = (track.start, track.start + track.samples.len() - 1);
        let free = |time: &Option<(usize, usize)>| time.is_none_or(|(from, to)| to.min(end) <= from.max(start));
        let Some(place) = times.iter().position(free) else { continue };
        let (from, to) = times[place].unwrap_or((start, end));
        times[place] = Some((from.min(start), to.max(end)));
        for (frame, sample) in places[start..].iter_mut().zip(&track.samples) {
            frame[place] = Some(sample);
        }
    }
    // The protocol deletes frames whose values sum to 0. Only zeros do, but for a chance that no clip can count on.
    let shown = |sample: &Option<&Sample>| sample.is_some_and(|sample| sample.joints.iter().flatten().any(|value| *value != 0.0));
    if tracks.len() > 1 {
        places.retain(|frame| frame.iter().any(shown));
    }
    places
}

/// The clip of the chosen actors: one person where nobody is actor 2.
fn body(actors: &[[Option<&Sample>; 2]]) -> Outcome {
    if actors.is_empty() {
        return Outcome::Dropped("no frame with a joint".into());
    }
    let persons = if actors.iter().any(|[_, second]| second.is_some()) { 2 } else { 1 };
    let joints = Source::Ntu.joints();
    let rows = actors.len() * persons * joints;
    let (mut values, mut valid) = (Vec::with_capacity(rows * 3), Vec::with_capacity(rows));
    for actor in actors.iter().flat_map(|frame| &frame[..persons]) {
        match actor {
            Some(sample) => {
                values.extend(sample.joints.iter().flatten());
                valid.extend(sample.untracked.iter().map(|untracked| u8::from(!untracked)));
            }
            None => {
                values.extend(std::iter::repeat_n(0.0, joints * 3));
                valid.extend(std::iter::repeat_n(0, joints));
            }
        }
    }
    Outcome::Clip(Body { joints: values, frames: actors.len(), persons, valid: Some(valid) })
}

#[cfg(test)]
mod tests {
    use super::super::kinect_text::fixture::{body as person, write};
    use super::super::{Format, Side, read, scan};
    use super::*;

    const NAME: &str = "S001C002P003R002A013";

    fn folder<'a>(names: impl IntoIterator<Item = &'a str>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(format!("{name}.skeleton")), "0\n").unwrap();
        }
        folder
    }

    fn scanned<'a>(format: Format, names: impl IntoIterator<Item = &'a str>) -> Result<Set> {
        scan(format, &[folder(names).path().to_path_buf()])
    }

    fn read_back(text: impl AsRef<[u8]>) -> Result<Outcome> {
        let folder = folder([NAME]);
        std::fs::write(folder.path().join(format!("{NAME}.skeleton")), text).unwrap();
        let set = scan(Format::Ntu60, &[folder.path().to_path_buf()])?;
        read(Format::Ntu60, &set.entries[0])
    }

    fn clip(frames: &[Vec<Sample>]) -> Body {
        match read_back(write(frames, Source::Ntu)).unwrap() {
            Outcome::Clip(body) => body,
            Outcome::Dropped(reason) => panic!("{reason}"),
        }
    }

    /// A body 0.3 wide and 1.6 high at x = `at`; `swing` moves it up and down with the frame.
    fn standing(id: u64, at: f32, frame: usize, swing: f32) -> Sample {
        let lift = if frame.is_multiple_of(2) { swing } else { -swing };
        person(id, (0..25).map(|j| [at + (j % 4) as f32 * 0.1, lift + j as f32 / 15.0, 3.0]).collect::<Vec<_>>())
    }

    /// A body as wide as high.
    fn lying(id: u64, frame: usize, swing: f32) -> Sample {
        let mut sample = standing(id, 0.0, frame, swing);
        for (j, joint) in sample.joints.iter_mut().enumerate() {
            joint[0] = j as f32 / 15.0;
        }
        sample
    }

    /// The first x of each person in each frame; `None` where nothing is valid.
    fn at(body: &Body) -> Vec<Vec<Option<f32>>> {
        let valid = body.valid.as_ref().unwrap();
        let first = |row: usize| valid[row * 25..][..25].contains(&1).then_some(body.joints[row * 75]);
        (0..body.frames).map(|t| (0..body.persons).map(|m| first(t * body.persons + m)).collect()).collect()
    }

    #[test]
    fn the_two_who_move_most_are_the_actors_in_that_order() {
        let frames: Vec<_> = (0..20)
            .map(|t| match t {
                5 | 6 => vec![],
                _ => vec![standing(1, 1.0, t, 0.1), standing(72057594037931102, 2.0, t, 0.3), standing(72057594037931103, 3.0, t, 0.2)],
            })
            .collect();
        let body = clip(&frames);
        assert_eq!((body.frames, body.persons, body.joints.len()), (18, 2, 18 * 2 * 75));
        assert_eq!(at(&body), vec![vec![Some(2.0), Some(3.0)]; 18]);
        assert_eq!(body.joints[..6], [2.0, 0.3, 3.0, 2.1, 0.3 + 1.0 / 15.0, 3.0]);
    }

    #[test]
    fn an_untracked_joint_is_not_valid_and_one_body_is_one_person() {
        let mut frames: Vec<_> = (0..3).map(|t| vec![lying(1, t, 0.1)]).collect();
        frames[1][0].untracked[24] = true;
        frames[1][0].joints[24] = [0.0; 3];
        let body = clip(&frames);
        assert_eq!((body.frames, body.persons), (3, 1));
        let zeros: Vec<_> = body.valid.as_ref().unwrap().iter().enumerate().filter(|(_, v)| **v == 0).map(|(i, _)| i).collect();
        assert_eq!(zeros, [49]);
        let expected: Vec<f32> = frames.iter().flatten().flat_map(|sample| sample.joints.iter().flatten().copied()).collect();
        assert_eq!(body.joints, expected);
    }

    #[test]
    fn a_body_that_comes_back_goes_on_without_its_gap() {
        // Body 2 is away in frames 4 to 7: its 16 samples follow each other from frame 0 on, as in the protocol.
        let second = |t: usize| standing(2, t as f32, 0, 0.0);
        let frames: Vec<_> = (0..20)
            .map(|t| if (4..8).contains(&t) { vec![standing(1, -1.0, t, 9.0)] } else { vec![standing(1, -1.0, t, 9.0), second(t)] })
            .collect();
        let expected: Vec<_> = (0..4).chain(8..20).map(|t| Some(t as f32)).chain([None; 4]).map(|x| vec![Some(-1.0), x]).collect();
        assert_eq!(at(&clip(&frames)), expected);
    }

    #[test]
    fn short_and_wide_bodies_are_noise_only_beside_others() {
        let short = |frames: usize| -> Vec<_> {
            let second = |t| (t < frames).then(|| standing(2, 2.0, t, 0.5));
            (0..20).map(|t| std::iter::once(standing(1, 1.0, t, 0.1)).chain(second(t)).collect()).collect()
        };
        assert_eq!(clip(&short(11)).persons, 1);
        assert_eq!(clip(&short(12)).persons, 2);
        // 69.754 % of 20 frames: 13 are too few, 14 are enough.
        let wide = |noisy: usize| {
            let second = move |t| if t < noisy { lying(2, t, 0.5) } else { standing(2, 2.0, t, 0.5) };
            (0..20).map(move |t| vec![standing(1, 1.0, t, 0.1), second(t)]).collect::<Vec<_>>()
        };
        assert_eq!(clip(&wide(13)).persons, 2);
        assert_eq!(clip(&wide(14)).persons, 1);
        // Of two that lie the first in the file is noise, and the one left is not questioned.
        let both: Vec<_> = (0..20).map(|t| vec![lying(1, t, 0.1), lying(2, t, 0.5)]).collect();
        assert_eq!((clip(&both).persons, clip(&both).joints[1]), (1, 0.5));
        let brief: Vec<_> = (0..5).map(|t| vec![standing(1, 1.0, t, 0.1), standing(2, 2.0, t, 0.1)]).collect();
        assert_eq!(read_back(write(&brief, Source::Ntu)).unwrap(), Outcome::Dropped("several bodies, all of them noise".into()));
    }

    #[test]
    fn motion_counts_clean_frames_only() {
        let joints = [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 4.0, 0.0], [2.0, 4.0, 8.0]];
        // Variances 1, 4 and 12.
        assert_eq!(motion([person(1, joints)].iter()), 17.0);
        // Body 2 is all over the place in five noisy frames and still in the others.
        let second = |t| if t < 5 { lying(2, t, 50.0) } else { standing(2, 2.0, 0, 0.0) };
        let frames: Vec<_> = (0..20).map(|t| vec![standing(1, 1.0, t, 0.1), second(t)]).collect();
        assert_eq!(at(&clip(&frames))[10], [Some(1.0), Some(2.0)]);
    }

    #[test]
    fn bodies_share_a_place_in_turn_and_empty_frames_go() {
        let track = |start: usize, at: f32, frames: usize| Track {
            start,
            samples: (0..frames).map(|t| standing(1, at, t, 0.1)).collect(),
            motion: 0.0,
        };
        let first = |tracks: &[Track], count: usize| -> Vec<[f32; 2]> {
            actors(tracks, count).iter().map(|frame| frame.map(|sample| sample.map_or(0.0, |sample| sample.joints[0][0]))).collect()
        };
        // The second begins in the last frame of the first: no overlap, and it has that frame.
        assert_eq!(first(&[track(0, 1.0, 2), track(1, 2.0, 2)], 3), [[1.0, 0.0], [2.0, 0.0], [2.0, 0.0]]);
        // The second overlaps: actor 2. The third overlaps both, the fourth follows actor 1.
        let tracks = [track(0, 1.0, 4), track(1, 2.0, 4), track(2, 3.0, 3), track(4, 4.0, 2)];
        assert_eq!(first(&tracks, 7), [[1.0, 0.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [4.0, 2.0], [4.0, 0.0]]);
        // Actor 2's time starts at frame 0, so nobody else fits before its first body.
        let tracks = [track(0, 1.0, 9), track(6, 2.0, 3), track(1, 3.0, 3)];
        assert!(first(&tracks, 9).iter().all(|frame| frame[1] != 3.0));
        // A frame of zeros is deleted beside another body, and kept of one that is alone.
        let mut zero = track(0, 1.0, 3);
        zero.samples[1].joints = vec![[0.0; 3]; 25];
        assert_eq!(first(&[zero.clone(), track(0, 2.0, 1)], 3).len(), 2);
        assert_eq!(first(&[zero], 3).len(), 3);
    }

    #[test]
    fn files_without_bodies_are_dropped_and_damage_is_named() {
        for text in ["0\n", "2\n0\n0\n"] {
            assert_eq!(read_back(text).unwrap(), Outcome::Dropped("no frame with a body".into()));
        }
        let good = write(&[vec![standing(1, 1.0, 0, 0.0)]], Source::Ntu);
        for (text, expected) in
            [("", "line 1: "), ("1\n1\n1 2\n", "line 3: "), (&good.replacen("277.4", "z", 1), "line 5: expected a number, got `z`")]
        {
            let error = read_back(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{NAME}.skeleton: ")) && error.contains(expected), "{error}");
        }
        let error = read_back(b"1\n\xff").unwrap_err().to_string();
        assert!(error.contains("byte 2 is not UTF-8"), "{error}");
    }

    #[test]
    fn clips_off_the_edition_and_on_the_missing_list_are_counted() {
        let names = [
            "S001C002P005R002A008",
            "S001C001P001R001A001",
            "S017C001P001R001A060",
            "S018C001P001R001A001",
            "S017C001P001R001A061",
            "S019C001P046R001A075",
        ];
        let set = scanned(Format::Ntu60, names).unwrap();
        assert_eq!((set.name.as_str(), set.classes.len(), set.joints.len(), set.fps), ("ntu60", 60, 25, Some(30.0)));
        let of = |set: &Set| set.entries.iter().map(|e| (e.name.clone(), e.label)).collect::<Vec<_>>();
        assert_eq!(of(&set), [(names[1].to_owned(), 0), (names[2].to_owned(), 59)]);
        assert_eq!(set.dropped["on the official list of missing skeletons"], [names[0]]);
        assert_eq!(set.dropped["not in NTU RGB+D 60 (setups 1 to 17, actions 1 to 60)"], [names[4], names[3], names[5]]);
        let set = scanned(Format::Ntu120, names).unwrap();
        assert_eq!((set.name.as_str(), set.classes.len(), set.classes[119].starts_with("finger-guessing")), ("ntu120", 120, true));
        assert_eq!(set.dropped.into_values().collect::<Vec<_>>(), [vec![names[0].to_owned(), names[5].to_owned()]]);
    }

    #[test]
    fn the_missing_list_is_both_official_ones() {
        let names: Vec<&str> = MISSING.lines().collect();
        let old = names.iter().filter(|name| fields(Path::new("list"), name, 60).is_ok_and(|[setup, ..]| setup <= SETUPS_60)).count();
        assert_eq!((names.len(), old), (535, 302));
        assert!(names.is_sorted_by(|a, b| a < b));
        let [classes, short] = [CLASSES.lines().count(), CLASSES.lines().filter(|name| name.trim().len() < 4).count()];
        assert_eq!((classes, short), (120, 0));
    }

    #[test]
    fn every_subject_camera_and_setup_is_on_its_side() {
        let counts = |set: &Set, protocol: &str| {
            let count = |side| set.protocols[protocol].sides.iter().filter(|other| **other == side).count();
            (count(Side::Train), count(Side::Test), set.protocols[protocol].published.unwrap())
        };
        // Action 49 of the first and 103 of the last setup are not on the list.
        let names: Vec<String> = (1..=40).flat_map(|p| (1..=3).map(move |c| format!("S017C{c:03}P{p:03}R001A049"))).collect();
        let set = scanned(Format::Ntu60, names.iter().map(String::as_str)).unwrap();
        assert_eq!(counts(&set, "cross_subject"), (60, 60, (40_091, 16_487)));
        assert_eq!(counts(&set, "cross_view"), (80, 40, (37_646, 18_932)));
        assert_eq!((set.entries[0].camera, set.protocols["cross_view"].sides[0]), (Some(1), Side::Test));
        let names: Vec<String> = (1..=106).map(|p| format!("S{:03}C001P{p:03}R001A103", if p <= 16 { p } else { 17 + p % 16 })).collect();
        let set = scanned(Format::Ntu120, names.iter().map(String::as_str)).unwrap();
        assert_eq!(counts(&set, "cross_subject"), (53, 53, (63_026, 50_919)));
        let sides = &set.protocols["cross_setup"].sides;
        let even = |entry: &Entry| entry.name[3..4].parse::<u8>().unwrap().is_multiple_of(2);
        assert!(set.entries.iter().zip(sides).all(|(entry, side)| (*side == Side::Train) == even(entry) && *side != Side::Unused));
        let published = [&set.protocols["cross_setup"], &set.protocols["cross_subject"]].map(|p| p.published.map(|(a, b)| a + b));
        assert_eq!(published, [Some(113_945); 2]);
    }

    #[test]
    fn a_converted_clip_is_in_the_archive() {
        let folder = folder([NAME]);
        let frames: Vec<_> = (0..12).map(|t| vec![standing(1, 1.0, t, 0.1), standing(2, 2.0, t, 0.2)]).collect();
        std::fs::write(folder.path().join(format!("{NAME}.skeleton")), write(&frames, Source::Ntu)).unwrap();
        let format = clap::ValueEnum::from_str("ntu60", false).unwrap();
        let out = folder.path().join("ntu60.safetensors");
        crate::data::convert(&crate::cli::ConvertArgs::new(format, &[folder.path().to_path_buf()], &out)).unwrap();
        let archive = llmar::formats::ClipArchive::read(&out).unwrap();
        assert_eq!((archive.layout.as_str(), archive.fps, archive.splits["cross_view"].as_slice()), ("ntu25", Some(30.0), &[false][..]));
        assert_eq!((archive.clips[0].frames, archive.clips[0].persons, archive.clips[0].joints[0]), (12, 2, 2.0));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in [
            "a",
            "S001C001P001R001",
            "S001C001P001R001A001x",
            "S033C001P001R001A001",
            "S001C004P001R001A001",
            "S001C001P107R001A001",
            "S001C001P001R001A121",
            "S001C001P001R001A000",
        ] {
            let error = scanned(Format::Ntu60, [name]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}.skeleton: file name: expected")), "{error}");
        }
    }
}
