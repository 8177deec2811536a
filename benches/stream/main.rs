//! Live streams with a real model: what an update costs, how its latency spreads, how many bodies keep real time, how soon
//! a cancel takes effect, how near probabilities are to the exact ones, whether memory stays flat, and how well actions are found in untrimmed sequences.
//!
//! usage: stream MODEL ARCHIVE [--threads 2] [--minutes 10] [--day] [--json] [--only PART]
//!
//! MODEL is a live model, ARCHIVE the clip archive that it was trained for; its split `cross_subject` gives the test clips.

mod cancel;
mod probabilities;
mod untrimmed;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llmar::control::Control;
use llmar::formats::{ClipArchive, OwnedClip};
use llmar::recognizer::stream::{Event, Pose, Stream, StreamOptions};
use llmar::recognizer::{Model, OpenOptions};
use llmar::skeleton::Axes;
use serde_json::{Value, json};

/// Frames a second of what is pushed.
const RATE: u64 = 30;
/// Frames of one update: those of one token at the model's rate of 30 a second.
const UPDATE_FRAMES: u64 = 4;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Arguments {
    threads: usize,
    minutes: u64,
    day: bool,
    json: bool,
    only: Option<String>,
}

fn main() -> Outcome<()> {
    let (mut paths, mut arguments) = (Vec::new(), Arguments { threads: 2, minutes: 10, day: false, json: false, only: None });
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word}: a value is missing"));
        match word.as_str() {
            "--threads" => arguments.threads = value()?.parse()?,
            "--minutes" => arguments.minutes = value()?.parse()?,
            "--only" => arguments.only = Some(value()?),
            "--day" => arguments.day = true,
            "--json" => arguments.json = true,
            "--bench" => {} // what cargo adds
            _ => paths.push(word),
        }
    }
    let [model, archive] = &paths[..] else { return Err("usage: stream MODEL ARCHIVE [options]".into()) };
    let model = Model::open(Path::new(model), OpenOptions::default())?;
    let archive = ClipArchive::read(Path::new(archive))?;
    let wanted = |part: &str| arguments.only.as_deref().is_none_or(|only| only == part);
    let mut report = json!({ "model": model.metadata().name, "scheme": model.metadata().scheme, "threads": arguments.threads });
    if wanted("update") {
        report["update"] = update(&model, &archive, &arguments)?;
    }
    if wanted("crowd") {
        report["crowd"] = crowd(&model, &archive, &arguments)?;
    }
    for (part, bodies) in [("cancel", 1), ("cancel8", 8)] {
        if wanted(part) {
            report[part] = cancel::measure(&model, &archive, arguments.threads, bodies)?;
        }
    }
    if wanted("probabilities") {
        report["probabilities"] = probabilities::measure(&model, &archive, arguments.threads)?;
    }
    if wanted("untrimmed") {
        report["untrimmed"] = untrimmed::measure(&model, &archive, arguments.threads)?;
    }
    if arguments.day || arguments.only.as_deref() == Some("day") {
        report["day"] = day(&model, &archive, &arguments)?;
    }
    if arguments.json {
        println!("{report:#}");
    } else {
        print(&report);
    }
    Ok(())
}

/// Every part as lines `part  name  value`.
fn print(report: &Value) {
    for (part, values) in report.as_object().into_iter().flatten() {
        match values.as_object() {
            Some(values) => values.iter().for_each(|(name, value)| println!("{part:10} {name:34} {value}")),
            None => println!("{part:10} {values}"),
        }
    }
}

/// An endless motion: clips of an archive, each played forwards and backwards, one after another.
struct Motion<'a> {
    clips: Vec<&'a OwnedClip>,
    clip: usize,
    frame: usize,
    back: bool,
}

impl<'a> Motion<'a> {
    fn new(archive: &'a ClipArchive, from: usize) -> Self {
        Self::of(archive.clips.iter().collect(), from)
    }

    /// 40 of these clips.
    fn of(clips: Vec<&'a OwnedClip>, from: usize) -> Self {
        Self { clips: (0..40).map(|i| clips[(from + i * 7) % clips.len()]).collect(), clip: 0, frame: 0, back: false }
    }

    /// The next frame [joints, coords] of the first person.
    fn next(&mut self) -> &'a [f32] {
        let clip = self.clips[self.clip];
        let width = clip.joints_per_person * clip.coords;
        let frame = &clip.joints[self.frame * clip.persons * width..][..width];
        match (self.back, self.frame) {
            (false, at) if at + 1 < clip.frames => self.frame += 1,
            (false, _) => self.back = true,
            (true, 0) => (self.clip, self.back) = ((self.clip + 1) % self.clips.len(), false),
            (true, _) => self.frame -= 1,
        }
        frame
    }
}

fn stream(model: &Arc<Model>, options: StreamOptions) -> Outcome<Stream> {
    Ok(Stream::new(Arc::clone(model), options, Axes::default())?)
}

fn time(frame: u64) -> u64 {
    frame * 1_000_000_000 / RATE
}

fn pose(body: u64, frame: u64, joints: &[f32]) -> Pose<'_> {
    Pose { body, time_ns: time(frame), joints, valid: None, confidence: None }
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
}

/// One body: four frames and a poll, again and again.
fn update(model: &Arc<Model>, archive: &ClipArchive, arguments: &Arguments) -> Outcome<Value> {
    let mut stream = stream(model, StreamOptions { threads: arguments.threads, ..StreamOptions::default() })?;
    let mut motion = Motion::new(archive, 0);
    let mut events = [Event::default(); 16];
    let mut times = Vec::new();
    let (warm_up, frames) = (20 * RATE, arguments.minutes * 60 * RATE);
    for update in 0..(warm_up + frames) / UPDATE_FRAMES {
        if update == warm_up / UPDATE_FRAMES {
            stream.reset_stats()?;
            times.clear();
        }
        let begin = Instant::now();
        for frame in 0..UPDATE_FRAMES {
            stream.push(&pose(1, update * UPDATE_FRAMES + frame, motion.next()))?;
        }
        while stream.poll(&Control::default(), &mut events)? == events.len() {}
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let stats = stream.stats()?;
    times.sort_by(f64::total_cmp);
    let (median, rare) = (percentile(&times, 0.5), percentile(&times, 0.999));
    Ok(json!({
        "frames": frames, "updates": times.len(), "decisions": stats.decisions,
        "best_ms": times[0], "p50_ms": median, "p99_ms": percentile(&times, 0.99), "p999_ms": rare, "max_ms": times[times.len() - 1],
        "p999_over_p50": rare / median,
        "rows_per_decision": stats.rows as f64 / stats.decisions as f64, "passes_per_decision": stats.passes as f64 / stats.decisions as f64,
        "reanchored": stats.reanchored,
    }))
}

/// Eight bodies at 30 frames a second, a decision every half second, in real time with a worker.
fn crowd(model: &Arc<Model>, archive: &ClipArchive, arguments: &Arguments) -> Outcome<Value> {
    const BODIES: u64 = 8;
    const SECONDS: u64 = 20;
    let options = StreamOptions {
        threads: arguments.threads,
        tokens_per_decision: 4,
        worker: true,
        deadline: Some(Duration::from_millis(500)),
        ..StreamOptions::default()
    };
    let mut stream = stream(model, options)?;
    let mut motions: Vec<_> = (0..BODIES).map(|body| Motion::new(archive, 31 * body as usize)).collect();
    let mut events = [Event::default(); 64];
    let mut slowest = Duration::ZERO;
    let begin = Instant::now();
    for frame in 0..SECONDS * RATE {
        let due = Duration::from_nanos(time(frame));
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        let start = Instant::now();
        for (body, motion) in (0..).zip(&mut motions) {
            stream.push(&pose(body, frame, motion.next()))?;
        }
        while stream.poll(&Control::default(), &mut events)? == events.len() {}
        slowest = slowest.max(start.elapsed());
    }
    stream.wait(&Control::default())?;
    let stats = stream.stats()?;
    let busy = stats.update.p50_ns as f64 * 1e-9 * stats.passes as f64;
    Ok(json!({
        "bodies": BODIES, "seconds": SECONDS, "decisions": stats.decisions, "skipped": stats.skipped_decisions,
        "dropped_events": stats.dropped_events,
        "latency_p50_ms": stats.latency.p50_ns as f64 / 1e6, "latency_p99_ms": stats.latency.p99_ns as f64 / 1e6,
        "latency_max_ms": stats.latency.max_ns as f64 / 1e6, "update_p50_ms": stats.update.p50_ns as f64 / 1e6,
        "slowest_push_and_poll_ms": slowest.as_secs_f64() * 1e3, "busy_share_at_most": busy / SECONDS as f64,
    }))
}

/// A day of one body's frames, a decision at every new window; resident memory after the first hour and at the end.
fn day(model: &Arc<Model>, archive: &ClipArchive, arguments: &Arguments) -> Outcome<Value> {
    const HOURS: u64 = 24;
    let options = StreamOptions { threads: arguments.threads, tokens_per_decision: 16, ..StreamOptions::default() };
    let mut stream = stream(model, options)?;
    let mut motion = Motion::new(archive, 5);
    let mut events = [Event::default(); 16];
    let (mut first, mut largest) = (0, 0);
    for frame in 0..HOURS * 3600 * RATE {
        stream.push(&pose(1, frame, motion.next()))?;
        while stream.poll(&Control::default(), &mut events)? == events.len() {}
        if frame == 3600 * RATE {
            first = resident()?;
        }
        if frame > 3600 * RATE && frame.is_multiple_of(600 * RATE) {
            largest = largest.max(resident()?);
        }
    }
    let (last, stats) = (resident()?, stream.stats()?);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    Ok(json!({
        "hours": HOURS, "frames": stats.frames, "decisions": stats.decisions, "reanchored": stats.reanchored,
        "resident_after_1_hour_mb": megabytes(first), "resident_largest_mb": megabytes(largest), "resident_at_end_mb": megabytes(last),
        "grown_mb": (last as f64 - first as f64) / 1e6,
    }))
}

/// Resident bytes of this process.
fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).ok_or("no number behind VmRSS")?.parse()?;
    Ok(kilobytes * 1024)
}
