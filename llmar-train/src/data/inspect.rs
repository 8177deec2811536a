//! `data inspect`: classes, subjects, lengths, splits and missing joints of a clip archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;

use llmar::formats::{ClipArchive, OwnedClip};
use llmar::skeleton::Layout;
use serde::Serialize;

use crate::cli::InspectArgs;
use crate::error::{Error, Result};

/// What an archive holds. The JSON output is this struct.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The archive's own name.
    pub name: String,
    /// Name of its skeleton layout.
    pub layout: String,
    /// V
    pub joints: usize,
    /// C
    pub coords: usize,
    /// Most persons in a clip, M.
    pub persons: usize,
    /// Frames a second, where known.
    pub fps: Option<f32>,
    /// N
    pub clips: usize,
    /// Lengths; absent when there is no clip.
    pub frames: Option<Frames>,
    /// By label.
    pub classes: Vec<ClassCount>,
    /// Clips by camera, where known.
    pub cameras: BTreeMap<i64, usize>,
    /// By name.
    pub splits: BTreeMap<String, SplitCount>,
    /// Joints that are flagged invalid or are not finite.
    pub missing: Missing,
}

/// Lengths of the clips in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Frames {
    /// Shortest.
    pub min: usize,
    /// The middle one, the longer of two.
    pub median: usize,
    /// Longest.
    pub max: usize,
    /// All together.
    pub total: usize,
}

/// Clips of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The class.
    pub name: String,
    /// All its clips.
    pub clips: usize,
    /// Clips by subject, where known; subjects without a clip stand with 0.
    pub subjects: BTreeMap<i64, usize>,
}

/// Clips on either side of a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SplitCount {
    /// Not flagged as test.
    pub train: usize,
    /// Flagged as test.
    pub test: usize,
}

/// Missing joints, over all frames and persons.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Missing {
    /// Joints in frames that are missing.
    pub joint_frames: usize,
    /// Of all joints in all frames, 0..=1.
    pub share: f64,
    /// Clips with at least one.
    pub clips: usize,
    /// By name of the joint; joints that are never missing are left out.
    pub by_joint: BTreeMap<String, usize>,
}

/// Runs `llmar-train data inspect`.
pub fn inspect(args: &InspectArgs) -> Result<()> {
    let summary = summarize(&ClipArchive::read(&args.archive)?)?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&summary).map_err(|e| Error::format("summary", e))?,
        false => for_people(&summary),
    };
    writeln!(std::io::stdout(), "{}", text.trim_end()).map_err(Error::io("standard output"))
}

/// Counts what an archive holds.
pub fn summarize(archive: &ClipArchive) -> Result<Summary> {
    let subjects: BTreeSet<i64> = archive.subjects.iter().copied().collect();
    let no_clips: BTreeMap<i64, usize> = subjects.iter().map(|&subject| (subject, 0)).collect();
    let mut classes: Vec<ClassCount> =
        archive.classes.iter().map(|name| ClassCount { name: name.clone(), clips: 0, subjects: no_clips.clone() }).collect();
    for (clip, &label) in archive.labels.iter().enumerate() {
        let Some(class) = classes.get_mut(label) else {
            return Err(Error::format(&archive.name, format!("label {label} of clip {clip}: there are {} classes", archive.classes.len())));
        };
        class.clips += 1;
        if let Some(subject) = archive.subjects.get(clip) {
            *class.subjects.entry(*subject).or_default() += 1;
        }
    }
    let mut cameras = BTreeMap::new();
    for &camera in &archive.cameras {
        *cameras.entry(camera).or_default() += 1;
    }
    let splits = archive.splits.iter().map(|(name, test)| {
        let tests = test.iter().filter(|&&is_test| is_test).count();
        (name.clone(), SplitCount { train: test.len() - tests, test: tests })
    });
    let joints = Layout::find(&archive.layout)?.joints;
    Ok(Summary {
        name: archive.name.clone(),
        layout: archive.layout.clone(),
        joints: joints.len(),
        coords: archive.clips.iter().map(|clip| clip.coords).max().unwrap_or(0),
        persons: archive.clips.iter().map(|clip| clip.persons).max().unwrap_or(0),
        fps: archive.fps,
        clips: archive.clips.len(),
        frames: lengths(&archive.clips),
        classes,
        cameras,
        splits: splits.collect(),
        missing: missing(&archive.clips, &joints),
    })
}

fn lengths(clips: &[OwnedClip]) -> Option<Frames> {
    let mut lengths: Vec<usize> = clips.iter().map(|clip| clip.frames).collect();
    lengths.sort_unstable();
    let (&min, &max) = (lengths.first()?, lengths.last()?);
    Some(Frames { min, median: lengths[lengths.len() / 2], max, total: lengths.iter().sum() })
}

fn missing(clips: &[OwnedClip], joints: &[String]) -> Missing {
    let mut found = Missing::default();
    let mut all = 0;
    let mut by_joint = vec![0usize; joints.len()];
    for clip in clips {
        let before = found.joint_frames;
        // One row of coordinates is one joint of one person in one frame; joints run fastest.
        for (at, coords) in clip.joints.chunks_exact(clip.coords.max(1)).enumerate() {
            all += 1;
            let flagged = clip.valid.as_ref().is_some_and(|valid| valid.get(at) == Some(&0));
            if flagged || coords.iter().any(|c| !c.is_finite()) {
                found.joint_frames += 1;
                if let Some(count) = by_joint.get_mut(at % clip.joints_per_person.max(1)) {
                    *count += 1;
                }
            }
        }
        found.clips += usize::from(found.joint_frames > before);
    }
    found.share = found.joint_frames as f64 / all.max(1) as f64;
    found.by_joint = joints.iter().cloned().zip(by_joint).filter(|&(_, count)| count > 0).collect();
    found
}

/// The summary as text: a table of classes by subjects, then splits and missing joints.
fn for_people(s: &Summary) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, so the results below are left.
    let fps = s.fps.map_or("frame rate unknown".to_string(), |fps| format!("{fps} frames a second"));
    let _ = writeln!(
        out,
        "{}: {} clips, {} classes, layout {} ({} joints, {}D), {fps}",
        s.name,
        s.clips,
        s.classes.len(),
        s.layout,
        s.joints,
        s.coords
    );
    if let Some(f) = s.frames {
        let _ = writeln!(out, "frames: min {}, median {}, max {}, {} in all; persons: {}", f.min, f.median, f.max, f.total, s.persons);
    }

    let width = s.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max("class, by subject".len());
    let subjects: Vec<i64> = s.classes.first().map(|class| class.subjects.keys().copied().collect()).unwrap_or_default();
    let _ = write!(out, "\n{:width$} {:>6}", if subjects.is_empty() { "class" } else { "class, by subject" }, "clips");
    subjects.iter().for_each(|subject| _ = write!(out, " {subject:>4}"));
    for class in &s.classes {
        let _ = write!(out, "\n{:width$} {:>6}", class.name, class.clips);
        class.subjects.values().for_each(|count| _ = write!(out, " {count:>4}"));
    }
    let _ = write!(out, "\n{:width$} {:>6}", "all", s.clips);
    for subject in &subjects {
        let _ = write!(out, " {:>4}", s.classes.iter().filter_map(|class| class.subjects.get(subject)).sum::<usize>());
    }
    out.push_str("\n\n");

    for (camera, clips) in &s.cameras {
        let _ = writeln!(out, "camera {camera}: {clips} clips");
    }
    for (name, split) in &s.splits {
        let _ = writeln!(out, "split {name}: {} train, {} test", split.train, split.test);
    }
    let m = &s.missing;
    let _ = writeln!(out, "missing joints: {} ({:.3} %), in {} clips", m.joint_frames, 100.0 * m.share, m.clips);
    for (joint, count) in &m.by_joint {
        let _ = writeln!(out, "  {joint}: {count}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::shared;

    fn clip(frames: usize, valid: Option<Vec<u8>>) -> OwnedClip {
        OwnedClip {
            name: "c".to_string(),
            joints: vec![0.5; frames * 17 * 2].into(),
            frames,
            persons: 1,
            joints_per_person: 17,
            coords: 2,
            fps: None,
            layout: "coco17".to_string(),
            valid: valid.map(Into::into),
        }
    }

    #[test]
    fn counts_are_those_of_the_archive() {
        let mut valid = vec![1u8; 3 * 17];
        valid[17] = 0; // frame 1, joint 0
        valid[2 * 17 + 5] = 0;
        let mut clips = vec![clip(3, Some(valid)), clip(8, None), clip(5, None), clip(1, None)];
        clips[1].joints[2 * (17 + 5) + 1] = f32::NAN; // frame 1, joint 5, y
        let archive = ClipArchive {
            name: "set".to_string(),
            classes: vec!["wave".to_string(), "sit down".to_string(), "never".to_string()],
            layout: "coco17".to_string(),
            fps: Some(15.0),
            clips,
            labels: vec![1, 0, 1, 1],
            subjects: vec![7, 7, -2, 7],
            cameras: vec![],
            splits: BTreeMap::from([("s".to_string(), vec![true, false, false, true])]),
            flags: BTreeMap::new(),
        };
        let summary = summarize(&archive).unwrap();
        assert_eq!(summary.frames, Some(Frames { min: 1, median: 5, max: 8, total: 17 }));
        let class = |name: &str, clips, a, b| ClassCount { name: name.to_string(), clips, subjects: BTreeMap::from([(-2, a), (7, b)]) };
        assert_eq!(summary.classes, [class("wave", 1, 0, 1), class("sit down", 3, 1, 2), class("never", 0, 0, 0)]);
        assert_eq!(summary.splits["s"], SplitCount { train: 2, test: 2 });
        let joints = Layout::find("coco17").unwrap().joints;
        assert_eq!((summary.missing.joint_frames, summary.missing.clips), (3, 2));
        assert_eq!(summary.missing.share, 3.0 / (17.0 * 17.0));
        assert_eq!(summary.missing.by_joint, BTreeMap::from([(joints[0].clone(), 1), (joints[5].clone(), 2)]));

        let text = for_people(&summary);
        for part in [
            "set: 4 clips, 3 classes, layout coco17 (17 joints, 2D), 15 frames",
            "sit down               3    1    2",
            "split s: 2 train, 2 test",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&summary).unwrap()).unwrap();
        assert_eq!((&json["classes"][1]["subjects"]["7"], &json["frames"]["median"]), (&2.into(), &5.into()));
    }

    #[test]
    fn utd_mhad_is_what_its_readme_says() {
        let Some(path) = shared("utd_mhad_is_what_its_readme_says", "data/utd_mhad.safetensors") else { return };
        let s = summarize(&ClipArchive::read(&path).unwrap()).unwrap();
        assert_eq!((s.clips, s.classes.len(), s.joints, s.coords, s.fps), (861, 27, 20, 3, Some(30.0)));
        let frames = s.frames.unwrap();
        assert_eq!((frames.min, frames.median, frames.max), (41, 67, 125));
        assert_eq!(s.splits["cross_subject"], SplitCount { train: 431, test: 430 });
        assert_eq!(s.classes[0].subjects.len(), 8);
    }
}
