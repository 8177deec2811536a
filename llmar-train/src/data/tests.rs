//! Conversion as a whole, on made-up files of the simplest format.

use std::fs;
use std::path::{Path, PathBuf};

use llmar::formats::ClipArchive;

use super::datasets::Format;
use super::{convert, summarize};
use crate::cli::ConvertArgs;
use crate::error::Result;

/// Writes clips of NW-UCLA, `frames` frames each (0: a clip without frames), one a camera in turn.
fn files(folder: &Path, frames: &[usize]) -> PathBuf {
    let source = folder.join("json");
    fs::create_dir_all(&source).unwrap();
    for (i, &frames) in frames.iter().enumerate() {
        fs::write(source.join(name(i)), clip(i, frames)).unwrap();
    }
    source
}

fn name(i: usize) -> String {
    format!("a{:02}_s{:02}_e{:02}_v{:02}.json", [1, 2, 11][i % 3], i / 90 * 4 + i % 4 + 1, i % 90, i % 3 + 1)
}

fn clip(i: usize, frames: usize) -> String {
    let value = |t: usize, j: usize, c: usize| (i * 1000 + t * 10 + j) as f32 + c as f32 * 0.25;
    let skeletons: Vec<Vec<[f32; 3]>> = (0..frames).map(|t| (0..20).map(|j| [0, 1, 2].map(|c| value(t, j, c))).collect()).collect();
    serde_json::json!({ "file_name": name(i), "skeletons": skeletons }).to_string()
}

fn arguments(folder: &Path, source: &Path) -> ConvertArgs {
    ConvertArgs { jobs: 3, ..ConvertArgs::new(Format::NwUcla, &[source.to_path_buf()], &folder.join("out.safetensors")) }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn an_archive_holds_what_the_files_held() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let source = files(folder.path(), &[3, 7, 0, 12, 1, 5, 9]);
    let args = arguments(folder.path(), &source);
    let report = convert(&args)?;
    assert_eq!((report.clips, report.frames), (6, 37));
    assert_eq!(report.dropped["no frame"], ["a11_s03_e02_v03"]);
    assert_eq!(
        (report.splits["cross_view"].train, report.splits["cross_view"].test, report.splits["cross_view"].published),
        (5, 1, Some((1020, 464)))
    );

    let archive = ClipArchive::read(&args.out)?;
    let summary = summarize(&archive)?;
    assert_eq!((summary.clips, summary.layout.as_str(), summary.coords, summary.missing.joint_frames), (6, "kinect1_20", 3, 0));
    // In order of their names: a01 (files 0, 6, 3), a02 (4, 1), a11 (5).
    let order = [0usize, 6, 3, 4, 1, 5];
    assert_eq!(archive.labels, [0, 0, 0, 1, 1, 8]);
    for (clip, i) in archive.clips.iter().zip(order) {
        assert_eq!(clip.joints[4], (i * 1000 + 1) as f32 + 0.25, "clip {i}");
        assert_eq!(clip.frames, [3, 7, 0, 12, 1, 5, 9][i]);
    }
    assert_eq!(archive.subjects, order.map(|i| (i % 4 + 1) as i64));
    assert_eq!(archive.splits["cross_view"], order.map(|i| i % 3 == 2));
    assert_eq!(names(folder.path()), ["json", "out.safetensors"], "no part is left");
    Ok(())
}

#[test]
fn an_interrupted_conversion_goes_on_to_the_same_archive() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let source = files(folder.path(), &[4; 500]);
    let args = ConvertArgs { resume: true, ..arguments(folder.path(), &source) };
    convert(&args)?;
    let whole = fs::read(&args.out).unwrap();
    // A damaged clip near the end stops it; the archive that was there stays, and the parts are kept.
    let damaged = source.join(name(499));
    fs::write(&damaged, "{").unwrap();
    let error = convert(&args).unwrap_err().to_string();
    assert!(error.contains(&name(499)), "{error}");
    assert!(fs::read(&args.out).unwrap() == whole);
    let log = folder.path().join("out.safetensors.log");
    let lines = fs::read_to_string(&log).unwrap().lines().count();
    assert!(lines > 100, "{lines} lines: what was done is kept");
    // A power cut: the log's last line is half written, and data beyond it is there.
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, &text[..text.len() - 3]).unwrap();
    fs::write(&damaged, clip(499, 4)).unwrap();
    convert(&args)?;
    assert!(fs::read(&args.out).unwrap() == whole, "resumed, it is the same archive");
    convert(&ConvertArgs { jobs: 1, resume: false, ..args.clone() })?;
    assert!(fs::read(&args.out).unwrap() == whole, "one reader gives the same archive");
    Ok(())
}

#[test]
fn a_resumed_conversion_must_be_the_same_one() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let source = files(folder.path(), &[4, 4]);
    fs::write(source.join(name(1)), "[]").unwrap();
    let args = arguments(folder.path(), &source);
    assert!(convert(&args).is_err());
    fs::write(source.join(name(2)), clip(2, 4)).unwrap();
    let error = convert(&ConvertArgs { resume: true, ..args.clone() }).unwrap_err().to_string();
    assert!(error.contains("other clips"), "{error}");
    // Without --resume it begins anew.
    let report = convert(&ConvertArgs { skip_damaged: true, ..args.clone() })?;
    assert_eq!(report.clips, 2);
    let (reason, left_out) = report.dropped.first_key_value().unwrap();
    assert!(reason.starts_with("damaged: ") && reason.contains(&name(1)), "{reason}");
    assert_eq!(left_out.len(), 1);
    Ok(())
}

#[test]
fn a_protocol_can_be_chosen_and_a_wrong_one_is_named() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let source = files(folder.path(), &[2, 2, 2]);
    let args = ConvertArgs { protocol: Some("cross_view".into()), ..arguments(folder.path(), &source) };
    assert_eq!(convert(&args)?.clips, 3);
    let error = convert(&ConvertArgs { protocol: Some("cross_eye".into()), ..args }).unwrap_err().to_string();
    assert!(error.contains("cross_eye") && error.contains("cross_view"), "{error}");
    // A split of the caller's own, by subjects that there are.
    let own = ConvertArgs { test_subjects: vec![1], ..arguments(folder.path(), &source) };
    convert(&own)?;
    let archive = ClipArchive::read(&own.out)?;
    assert!(archive.subjects.iter().zip(&archive.splits["subjects"]).all(|(subject, test)| (*subject == 1) == *test));
    let error = convert(&ConvertArgs { test_subjects: vec![1, 77], ..own }).unwrap_err().to_string();
    assert!(error.contains("--test-subjects") && error.contains("77"), "{error}");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let error = convert(&arguments(folder.path(), &empty)).unwrap_err().to_string();
    assert!(error.contains("no clip"), "{error}");
    Ok(())
}
