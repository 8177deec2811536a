//! Untrimmed sequences: the test clips of each subject one after another, with rest between, and the actions that a stream finds in them.

use std::sync::Arc;

use llmar::control::Control;
use llmar::formats::ClipArchive;
use llmar::recognizer::Model;
use llmar::recognizer::stream::{Event, EventKind, Pose, Stream, StreamOptions};
use llmar::skeleton::Axes;
use serde_json::{Value, json};

use crate::Outcome;

/// Frames a second of UTD-MHAD.
const FPS: f64 = 30.0;
/// A detection counts for a while after the action has ended, seconds.
const GRACE: f64 = 1.0;

/// A stretch of an action, seconds.
#[derive(Clone, Copy, Debug)]
struct Segment {
    label: u32,
    start: f64,
    end: f64,
}

/// Frames [joints, coords] of one person, one after another.
struct Sequence {
    frames: Vec<f32>,
    truth: Vec<Segment>,
}

/// Numbers of a fixed sequence in 0..1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The clips of a subject in random order. Between two, 1 to 2.5 s: the last pose is held, goes over to the next clip's first one in 0.6 s, and that
/// is held; 2 mm of noise on every joint throughout the rest.
fn sequence(archive: &ClipArchive, labels: &[Option<u32>], mut clips: Vec<usize>, random: &mut Random) -> Sequence {
    for i in (1..clips.len()).rev() {
        clips.swap(i, (random.next() * (i + 1) as f64) as usize);
    }
    let (mut frames, mut truth): (Vec<f32>, Vec<Segment>) = (Vec::new(), Vec::new());
    for &index in &clips {
        let clip = &archive.clips[index];
        let width = clip.joints_per_person * clip.coords;
        let first = &clip.joints[..width];
        let last: Vec<f32> = if frames.is_empty() { first.to_vec() } else { frames[frames.len() - width..].to_vec() };
        let rest = ((1.0 + 1.5 * random.next()) * FPS) as usize;
        let (way, held) = (18, (rest - 18) / 2);
        for frame in 0..rest {
            let share = (frame as f32 - held as f32).clamp(0.0, way as f32) / way as f32;
            let noise = |random: &mut Random| (random.next() - 0.5) as f32 * 0.007;
            frames.extend(last.iter().zip(first).map(|(a, b)| a + share * (b - a) + noise(random)));
        }
        let start = (frames.len() / width) as f64 / FPS;
        // One person stands in every clip of the archive.
        clip.joints.chunks_exact(clip.persons * width).for_each(|frame| frames.extend_from_slice(&frame[..width]));
        if let Some(label) = labels[archive.labels[index]] {
            truth.push(Segment { label, start, end: (frames.len() / width) as f64 / FPS });
        }
    }
    Sequence { frames, truth }
}

/// Actions that a stream finds, with the time at which each became known.
fn found(model: &Arc<Model>, sequence: &Sequence, width: usize, options: &StreamOptions) -> Outcome<Vec<(Segment, f64)>> {
    let mut stream = Stream::new(Arc::clone(model), options.clone(), Axes::default())?;
    let mut events = [Event::default(); 64];
    let (mut open, mut done): (Option<f64>, Vec<(Segment, f64)>) = (None, Vec::new());
    let seconds = |ns: u64| ns as f64 / 1e9;
    let mut take = |stream: &mut Stream| -> Outcome<()> {
        loop {
            let count = stream.poll(&Control::default(), &mut events)?;
            for event in &events[..count] {
                match (event.kind, event.label) {
                    (EventKind::Begin, _) => open = Some(seconds(event.time_ns)),
                    (EventKind::End, Some(label)) => {
                        let segment = Segment { label, start: seconds(event.start_ns), end: seconds(event.end_ns) };
                        done.push((segment, open.take().unwrap_or(segment.start)));
                    }
                    _ => {}
                }
            }
            if count < events.len() {
                return Ok(());
            }
        }
    };
    for (frame, joints) in sequence.frames.chunks_exact(width).enumerate() {
        let time_ns = (frame as f64 * 1e9 / FPS) as u64;
        stream.push(&Pose { body: 0, time_ns, joints, valid: None, confidence: None })?;
        take(&mut stream)?;
    }
    stream.flush()?;
    take(&mut stream)?;
    Ok(done)
}

fn overlap(a: &Segment, b: &Segment) -> f64 {
    let both = a.end.min(b.end) - a.start.max(b.start);
    if both <= 0.0 { 0.0 } else { both / (a.end.max(b.end) - a.start.min(b.start)) }
}

/// Segments of the right label that overlap a true one by at least `least` of their union; each counts once.
fn hits(truth: &[Segment], found: &[(Segment, f64)], least: f64) -> usize {
    let mut used = vec![false; found.len()];
    let mut hits = 0;
    for segment in truth {
        let fits =
            |(i, (other, _)): &(usize, &(Segment, f64))| !used[*i] && other.label == segment.label && overlap(segment, other) >= least;
        let best = found.iter().enumerate().filter(fits).max_by(|a, b| overlap(segment, &a.1.0).total_cmp(&overlap(segment, &b.1.0)));
        if let Some((i, _)) = best {
            used[i] = true;
            hits += 1;
        }
    }
    hits
}

pub fn measure(model: &Arc<Model>, archive: &ClipArchive, threads: usize) -> Outcome<Value> {
    let test = archive.splits.get("cross_subject").ok_or("the archive has no split `cross_subject`")?;
    let label_of = |class: &String| model.metadata().labels.iter().position(|label| label.text == *class).map(|label| label as u32);
    let labels: Vec<Option<u32>> = archive.classes.iter().map(label_of).collect();
    let mut subjects: Vec<i64> = (0..archive.clips.len()).filter(|i| test[*i]).map(|i| archive.subjects[i]).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let options = StreamOptions { threads, actions_only: true, ..StreamOptions::default() };
    let width = archive.clips[0].joints_per_person * archive.clips[0].coords;
    let mut random = Random(7);
    let (mut truths, mut founds, mut seconds) = (0, 0, 0.0);
    let mut at = [(0.1, 0), (0.25, 0), (0.5, 0)];
    let (mut latencies, mut after_end) = (Vec::new(), Vec::new());
    for subject in subjects {
        let clips = (0..archive.clips.len()).filter(|i| test[*i] && archive.subjects[*i] == subject).collect();
        let sequence = sequence(archive, &labels, clips, &mut random);
        let found = found(model, &sequence, width, &options)?;
        seconds += (sequence.frames.len() / width) as f64 / FPS;
        truths += sequence.truth.len();
        founds += found.len();
        for (least, count) in &mut at {
            *count += hits(&sequence.truth, &found, *least);
        }
        for segment in &sequence.truth {
            let known = found
                .iter()
                .filter(|(other, known)| other.label == segment.label && *known >= segment.start && *known <= segment.end + GRACE);
            if let Some((_, known)) = known.min_by(|a, b| a.1.total_cmp(&b.1)) {
                latencies.push(known - segment.start);
                after_end.push(known - segment.end);
            }
        }
    }
    latencies.sort_by(f64::total_cmp);
    after_end.sort_by(f64::total_cmp);
    let f1 = |hits: usize| 2.0 * hits as f64 / (truths + founds) as f64;
    let median = |sorted: &[f64]| sorted.get(sorted.len() / 2).copied();
    Ok(json!({
        "minutes": seconds / 60.0, "actions": truths, "found": founds,
        "f1_at_10": f1(at[0].1), "f1_at_25": f1(at[1].1), "f1_at_50": f1(at[2].1),
        "detected": latencies.len() as f64 / truths as f64,
        "latency_median_s": median(&latencies), "latency_p90_s": latencies.get(latencies.len() * 9 / 10),
        "latency_to_end_median_s": median(&after_end),
    }))
}
