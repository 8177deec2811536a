//! `data convert`: a published data set into one clip archive, in parallel, resumable, every clip left out counted with its reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use llmar::formats::MAX_CLIPS;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::datasets::{self, Entry, Format, Outcome, Protocol, Set, Side};
use super::writer::{Column, Done, Shape, Writer};
use crate::cli::ConvertArgs;
use crate::error::{Error, Result};

/// Clips read between two syncs, for each worker.
const CHUNK: usize = 64;
/// Names listed a reason in the report for people.
const NAMED: usize = 5;

/// What a conversion did. The JSON output is this struct.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Conversion {
    /// Name of the set.
    pub name: String,
    /// Clips in the archive.
    pub clips: usize,
    /// Clips of the whole data set that can be kept, where that is known.
    pub published_clips: Option<usize>,
    /// Frames in the archive.
    pub frames: usize,
    /// Names of clips left out, by reason.
    pub dropped: BTreeMap<String, Vec<String>>,
    /// By name of the protocol.
    pub splits: BTreeMap<String, SplitReport>,
}

/// One split beside what was published of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SplitReport {
    /// Clips trained on.
    pub train: usize,
    /// Clips tested on.
    pub test: usize,
    /// Published (train, test) counts of the whole data set.
    pub published: Option<(usize, usize)>,
    /// Those before the clips on an official list of missing skeletons were taken out.
    pub published_before_missing: Option<(usize, usize)>,
}

/// Runs `llmar-train data convert`.
pub fn run(args: &ConvertArgs) -> Result<()> {
    let report = convert(args)?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&report).map_err(|e| Error::format("report", e))?,
        false => for_people(&report),
    };
    writeln!(std::io::stdout(), "{}", text.trim_end()).map_err(Error::io("standard output"))
}

/// Converts; see [`ConvertArgs`].
///
/// # Errors
/// Those of [`datasets::scan`]; a damaged clip, unless `skip_damaged`; an unknown protocol; a file system's refusal. What was converted until
/// then is kept for `resume`, and an archive that was there stays as it was.
pub fn convert(args: &ConvertArgs) -> Result<Conversion> {
    let mut set = datasets::scan(args.format, &args.sources)?;
    if !args.test_subjects.is_empty() {
        let protocol = by_subjects(&set, &args.test_subjects)?;
        set.protocols.insert("subjects".to_owned(), protocol);
    }
    let chosen = protocols(&set, args.protocol.as_deref())?;
    let keep: Vec<bool> = match (&args.protocol, chosen.values().next()) {
        (Some(_), Some(protocol)) => protocol.sides.iter().map(|side| *side != Side::Unused).collect(),
        _ => vec![true; set.entries.len()],
    };
    for (entry, _) in set.entries.iter().zip(&keep).filter(|(_, keep)| !**keep) {
        let reason = format!("not in protocol {}", args.protocol.as_deref().unwrap_or_default());
        set.dropped.entry(reason).or_default().push(entry.name.clone());
    }
    // Index of each planned clip among the set's entries.
    let planned: Vec<usize> = (0..set.entries.len()).filter(|&i| keep[i]).collect();
    let entries: Vec<&Entry> = planned.iter().map(|&i| &set.entries[i]).collect();
    room_for(entries.len())?;

    let shape = Shape { persons: set.persons, joints: set.joints.len(), coords: set.coords };
    let mut writer = Writer::open(&args.out, shape, &plan(args, &set, &entries), args.resume)?;
    let bar = indicatif::ProgressBar::new(entries.len() as u64); // draws on standard error, and only on a terminal
    bar.set_position(writer.done().len() as u64);
    let jobs = if args.jobs == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { args.jobs };
    while writer.done().len() < entries.len() {
        let from = writer.done().len();
        let chunk = &entries[from..(from + jobs * CHUNK).min(entries.len())];
        for (outcome, entry) in read_all(args.format, &set, chunk, jobs).into_iter().zip(chunk) {
            let outcome = match outcome {
                Ok(outcome) => checked(outcome, &set, entry)?,
                Err(error) if args.skip_damaged => Outcome::Dropped(format!("damaged: {error}")),
                Err(error) => {
                    writer.sync()?;
                    return Err(error);
                }
            };
            writer.push(outcome)?;
            bar.inc(1);
        }
        writer.sync()?;
    }
    bar.finish_and_clear();

    let (name, dropped) = (set.name.clone(), set.dropped.clone());
    // A protocol that was chosen may leave clips out: then there are fewer by intent.
    let published_clips = set.published_clips.filter(|_| planned.len() == set.entries.len());
    let mut report = Conversion { name, dropped, published_clips, ..Conversion::default() };
    let mut kept = Vec::with_capacity(planned.len());
    for (done, &i) in writer.done().iter().zip(&planned) {
        match done {
            Done::Frames(frames) => {
                kept.push(i);
                report.frames += frames;
            }
            Done::Dropped(reason) => report.dropped.entry(reason.clone()).or_default().push(set.entries[i].name.clone()),
        }
    }
    if kept.is_empty() {
        let reasons: Vec<&String> = report.dropped.keys().collect();
        return Err(Error::format(args.out.display(), format!("no clip is left to write; left out: {reasons:?}")));
    }
    report.clips = kept.len();
    let mut tensors = columns(&set, &kept);
    for (name, protocol) in &chosen {
        let flags: Vec<u8> = kept.iter().map(|&i| u8::from(protocol.sides[i] == Side::Test)).collect();
        let test = flags.iter().filter(|flag| **flag == 1).count();
        let (published, published_before_missing) = (protocol.published, protocol.before);
        report.splits.insert(name.clone(), SplitReport { train: flags.len() - test, test, published, published_before_missing });
        tensors.push((format!("split.{name}.test"), Column::U8(flags)));
    }
    writer.finish(&tensors, &about(&set, &report))?;
    Ok(report)
}

/// An archive of so many clips is one that the reader takes.
fn room_for(clips: usize) -> Result<()> {
    match clips {
        0..=MAX_CLIPS => Ok(()),
        _ => Err(llmar::Error::Limit { what: "clips of an archive", limit: MAX_CLIPS as u64, got: clips as u64 }.into()),
    }
}

/// The caller's own split: clips of these subjects are test clips.
fn by_subjects(set: &Set, subjects: &[i64]) -> Result<Protocol> {
    let setting = |expected: String, got: String| Error::Setting { name: "--test-subjects".into(), expected, got };
    if let Some(entry) = set.entries.iter().find(|entry| entry.subject.is_none()) {
        return Err(setting("clips that name their subject".into(), format!("none at {}", entry.name)));
    }
    let known: std::collections::BTreeSet<i64> = set.entries.iter().filter_map(|entry| entry.subject).collect();
    if let Some(subject) = subjects.iter().find(|subject| !known.contains(subject)) {
        return Err(setting(format!("some of {known:?}"), subject.to_string()));
    }
    let side = |entry: &Entry| if entry.subject.is_some_and(|s| subjects.contains(&s)) { Side::Test } else { Side::Train };
    Ok(Protocol { sides: set.entries.iter().map(side).collect(), ..Protocol::default() })
}

/// The protocol asked for; without one, those that use every clip.
fn protocols(set: &Set, name: Option<&str>) -> Result<BTreeMap<String, Protocol>> {
    let Some(name) = name else {
        let whole = set.protocols.iter().filter(|(_, protocol)| !protocol.sides.contains(&Side::Unused));
        return Ok(whole.map(|(name, protocol)| (name.clone(), protocol.clone())).collect());
    };
    let protocol = set.protocols.get(name).ok_or_else(|| Error::Setting {
        name: "--protocol".into(),
        expected: format!("one of {:?}", set.protocols.keys().collect::<Vec<_>>()),
        got: name.into(),
    })?;
    Ok(BTreeMap::from([(name.to_owned(), protocol.clone())]))
}

/// What a resumed run must have in common with the one that was begun.
fn plan(args: &ConvertArgs, set: &Set, entries: &[&Entry]) -> String {
    let mut hash = Sha256::new();
    for entry in entries {
        hash.update(format!("{}\0{}\0{}\n", entry.path.display(), entry.index, entry.name));
    }
    let entries: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    serde_json::json!({
        "set": set.name, "format": format!("{:?}", args.format), "skip_damaged": args.skip_damaged, "clips": entries,
        "shape": [set.persons, set.joints.len(), set.coords],
    })
    .to_string()
}

/// Reads clips in parallel; results in order.
fn read_all(format: Format, set: &Set, entries: &[&Entry], jobs: usize) -> Vec<Result<Outcome>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<Outcome>>>> = Mutex::new(entries.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(entries.len()) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(entry) = entries.get(i) else { return };
                    let outcome = datasets::read_of(format, set, entry);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(outcome);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let missing = |entry: &&Entry| Err(Error::format(entry.path.display(), "not read: its reader panicked"));
    results.into_iter().zip(entries).map(|(result, entry)| result.unwrap_or_else(|| missing(entry))).collect()
}

/// A body has the shape that its set promises; anything else is a mistake of the reader, caught before it is written.
fn checked(outcome: Outcome, set: &Set, entry: &Entry) -> Result<Outcome> {
    if let Outcome::Clip(body) = &outcome {
        let rows = body.frames * body.persons * set.joints.len();
        let valid = body.valid.as_ref().is_none_or(|valid| valid.len() == rows);
        if body.frames == 0 || body.persons == 0 || body.persons > set.persons || body.joints.len() != rows * set.coords || !valid {
            let detail =
                format!("{} values for {} frames of {} persons, {} joints", body.joints.len(), body.frames, body.persons, set.joints.len());
            return Err(Error::format(entry.path.display(), detail));
        }
    }
    Ok(outcome)
}

/// Labels, and subjects and cameras where every kept clip has one.
fn columns(set: &Set, kept: &[usize]) -> Vec<(String, Column)> {
    let mut out = vec![("labels".to_owned(), Column::I64(kept.iter().map(|&i| set.entries[i].label as i64).collect()))];
    for (name, value) in [("subjects", (|e| e.subject) as fn(&Entry) -> Option<i64>), ("cameras", |e| e.camera)] {
        if let Some(values) = kept.iter().map(|&i| value(&set.entries[i])).collect::<Option<Vec<i64>>>() {
            out.push((name.to_owned(), Column::I64(values)));
        }
    }
    out
}

/// The archive's description of itself.
fn about(set: &Set, report: &Conversion) -> serde_json::Value {
    let dropped: BTreeMap<&String, usize> = report.dropped.iter().map(|(reason, names)| (reason, names.len())).collect();
    let mut about = serde_json::json!({
        "name": set.name, "classes": set.classes, "joints": set.joints, "fps": set.fps, "coordinates": set.coordinates,
        "made_by": concat!("llmar-train ", env!("CARGO_PKG_VERSION"), " data convert"), "dropped": dropped,
    });
    if !set.parents.is_empty() {
        about["parents"] = serde_json::json!(set.parents);
    }
    about
}

fn for_people(report: &Conversion) -> String {
    let mut text = format!("{}: {} clips, {} frames", report.name, report.clips, report.frames);
    text += &match report.published_clips {
        Some(published) if published == report.clips => "; clips as published\n".to_owned(),
        Some(published) => format!("; DIFFERS from the published {published} clips: {}\n", apart(report.clips, published)),
        None => "\n".to_owned(),
    };
    // Writing to a String cannot fail.
    for (reason, names) in &report.dropped {
        let more = if names.len() > NAMED { ", …" } else { "" };
        let _ = writeln!(text, "left out, {reason}: {} ({}{more})", names.len(), names[..names.len().min(NAMED)].join(", "));
    }
    for (name, split) in &report.splits {
        let _ = write!(text, "split {name}: {} train, {} test", split.train, split.test);
        let _ = match split.published {
            Some(published) if published == (split.train, split.test) => write!(text, ", as published"),
            Some((train, test)) => {
                let (trained, tested) = (apart(split.train, train), apart(split.test, test));
                write!(text, "; DIFFERS from the published {train} and {test}: {trained} and {tested}")
            }
            None => write!(text, "; published counts are not known"),
        };
        if let Some((train, test)) = split.published_before_missing {
            let _ = write!(text, " ({train} and {test} before clips without skeletons were taken out)");
        }
        text.push('\n');
    }
    text
}

/// `+3` or `-3`
fn apart(found: usize, published: usize) -> String {
    format!("{:+}", found as i64 - published as i64)
}

impl ConvertArgs {
    /// Arguments with every option at its default, for calls from Rust.
    pub fn new(format: Format, sources: &[PathBuf], out: &Path) -> Self {
        Self {
            format,
            sources: sources.to_vec(),
            out: out.to_path_buf(),
            protocol: None,
            test_subjects: Vec::new(),
            skip_damaged: false,
            jobs: 0,
            resume: false,
            json: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_counts_stand_beside_the_published_ones() {
        let split = |train, test, published, published_before_missing| SplitReport { train, test, published, published_before_missing };
        let mut report = Conversion { name: "set".into(), clips: 10, frames: 50, published_clips: Some(10), ..Conversion::default() };
        report.splits.insert("a".into(), split(6, 4, Some((6, 4)), Some((7, 5))));
        report.splits.insert("b".into(), split(3, 7, Some((4, 5)), None));
        report.splits.insert("c".into(), split(1, 9, None, None));
        let lines = |report: &Conversion| for_people(report).lines().map(str::to_owned).collect::<Vec<_>>();
        let expected = [
            "set: 10 clips, 50 frames; clips as published",
            "split a: 6 train, 4 test, as published (7 and 5 before clips without skeletons were taken out)",
            "split b: 3 train, 7 test; DIFFERS from the published 4 and 5: -1 and +2",
            "split c: 1 train, 9 test; published counts are not known",
        ];
        assert_eq!(lines(&report), expected);
        report.published_clips = Some(12);
        assert_eq!(lines(&report)[0], "set: 10 clips, 50 frames; DIFFERS from the published 12 clips: -2");
        report.published_clips = None;
        assert_eq!(lines(&report)[0], "set: 10 clips, 50 frames");
    }

    #[test]
    fn more_clips_than_are_read_are_not_written() {
        room_for(MAX_CLIPS).unwrap();
        assert!(matches!(room_for(MAX_CLIPS + 1), Err(Error::Runtime(llmar::Error::Limit { got, .. })) if got == MAX_CLIPS as u64 + 1));
    }
}
