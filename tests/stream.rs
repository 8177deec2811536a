//! Live streams on the tiny models: decisions are those of the recogniser on the same frames, whatever the threads, the bodies beside and the input that
//! was refused; bodies come and go, actions begin and end.

#[path = "common/tiny.rs"]
mod tiny;

use std::sync::Arc;
use std::time::{Duration, Instant};

use llmar::Error;
use llmar::checkpoint::{Metadata, write_checkpoint};
use llmar::control::{CancelToken, Control};
use llmar::device::Scheme;
use llmar::recognizer::stream::{Event, EventKind, LabelState, Pose, Stream, StreamOptions};
use llmar::recognizer::{Model, OpenOptions, Options, Recognizer};
use llmar::skeleton::{Axes, Clip, Layout, PoseMap, Timing, Track};
use tiny::{LIVE_LABELS, Random, Wander};

/// Values of a frame.
const VALUES: usize = 20 * 3;

fn model(scheme: Scheme) -> Arc<Model> {
    Model::from_bytes(&tiny::live_bytes(scheme), OpenOptions::default()).unwrap()
}

/// The live model with other metadata.
fn changed(change: impl FnOnce(&mut Metadata)) -> Arc<Model> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.llmar");
    let mut metadata = tiny::live_metadata(Scheme::F32);
    change(&mut metadata);
    write_checkpoint(&path, &metadata, &tiny::tensors(Scheme::F32)).unwrap();
    Model::from_bytes(&std::fs::read(path).unwrap(), OpenOptions::default()).unwrap()
}

/// Every decision as the recogniser makes it: nothing of those before in it.
fn plain() -> StreamOptions {
    StreamOptions { smoothing: 0.0, ..StreamOptions::default() }
}

fn stream(model: &Arc<Model>, options: StreamOptions) -> Stream {
    Stream::new(Arc::clone(model), options, Axes::default()).unwrap()
}

/// A frame of a body.
#[derive(Clone, Debug)]
struct Frame {
    body: u64,
    time_ns: u64,
    joints: Vec<f32>,
}

impl Frame {
    fn pose(&self) -> Pose<'_> {
        Pose { body: self.body, time_ns: self.time_ns, joints: &self.joints, valid: None, confidence: None }
    }
}

/// Frames of a body at these times.
fn frames(body: u64, times: impl IntoIterator<Item = u64>) -> Vec<Frame> {
    let mut wander = Wander::new(body);
    times.into_iter().map(|time_ns| Frame { body, time_ns, joints: wander.next_frame().to_vec() }).collect()
}

/// The first `count` times at `fps`, from a time that is not zero.
fn every(fps: u64, count: u64) -> impl Iterator<Item = u64> + Clone {
    (0..count).map(move |frame| 7_000_000_000 + frame * 1_000_000_000 / fps)
}

/// Times of about `fps`, each up to 0.45 of a frame early or late.
fn jittered(fps: f32, count: u64, seed: u64) -> Vec<u64> {
    let mut random = Random(seed);
    (0..count).map(|frame| 7_000_000_000 + ((frame as f64 + 0.5 + 0.45 * f64::from(random.next_f32())) * 1e9 / f64::from(fps)) as u64).collect()
}

/// Frames of several bodies in the order of their times.
fn together(bodies: &[&[Frame]]) -> Vec<Frame> {
    let mut all: Vec<Frame> = bodies.iter().flat_map(|frames| frames.iter().cloned()).collect();
    all.sort_by_key(|frame| frame.time_ns);
    all
}

/// All events that wait, without how long they took.
fn poll(stream: &mut Stream) -> Vec<Event> {
    let mut out = [Event::default(); 64];
    let mut events = Vec::new();
    loop {
        let count = stream.poll(&Control::default(), &mut out).unwrap();
        if count == 0 {
            return events;
        }
        events.extend(out[..count].iter().map(|event| Event { latency_ns: 0, ..*event }));
    }
}

/// Events of these frames, polled after every one.
fn run(stream: &mut Stream, frames: &[Frame]) -> Vec<Event> {
    let mut events = Vec::new();
    for frame in frames {
        stream.push(&frame.pose()).unwrap();
        events.extend(poll(stream));
    }
    events
}

/// Those of one body.
fn of(body: u64, events: &[Event]) -> Vec<Event> {
    events.iter().filter(|event| event.body == body).copied().collect()
}

fn decisions(events: &[Event]) -> impl Iterator<Item = &Event> {
    events.iter().filter(|event| event.kind == EventKind::Decision)
}

fn count(kind: EventKind, events: &[Event]) -> usize {
    events.iter().filter(|event| event.kind == kind).count()
}

/// That a decision is what the recogniser says of a clip.
fn assert_recognized(recognizer: &mut Recognizer, decision: &Event, clip: &Clip<'_>, what: &str) {
    let want = recognizer.recognize(clip, &Control::default()).unwrap();
    assert_eq!(decision.tokens as usize, want.sentence.tokens.len(), "{what}");
    let top = &decision.top[..decision.top_count as usize];
    let labels: Vec<_> = top.iter().map(|scored| scored.label as usize).collect();
    assert_eq!(labels, want.top.iter().map(|score| score.label).collect::<Vec<_>>(), "{what}");
    for ((got, want), probability) in top.iter().zip(&want.top).zip(&want.probabilities) {
        assert!((got.log_prob - want.log_prob).abs() <= 1e-4, "{what}: {got:?} against {want:?}");
        assert!((got.probability - probability).abs() <= 1e-4, "{what}: {got:?} against {probability}");
    }
    assert_eq!((decision.label, decision.probability), (Some(top[0].label), top[0].probability), "{what}");
    assert!((decision.missing - want.missing).abs() <= 1e-6, "{what}: {} against {}", decision.missing, want.missing);
}

fn clip<'a>(joints: &'a [f32], timing: Timing<'a>) -> Clip<'a> {
    Clip { timing, ..tiny::clip(joints) }
}

/// The clip of raw frames whose times lie in the decision's window, give or take less than a frame.
fn assert_recognized_in(recognizer: &mut Recognizer, decision: &Event, frames: &[Frame], what: &str) {
    let near = 1_000;
    let inside = |frame: &&Frame| frame.time_ns + near >= decision.start_ns && frame.time_ns <= decision.time_ns + near;
    let times: Vec<u64> = frames.iter().filter(inside).map(|frame| frame.time_ns).collect();
    let joints: Vec<f32> = frames.iter().filter(inside).flat_map(|frame| frame.joints.iter().copied()).collect();
    assert_recognized(recognizer, decision, &clip(&joints, Timing::Timestamps(&times)), what);
}

/// Rows of a body at the model's rate.
fn rows(model: &Model, frames: &[Frame]) -> Vec<f32> {
    let preprocess = &model.metadata().preprocess;
    let map = PoseMap::new(preprocess, &Layout::find("kinect1_20").unwrap()).unwrap();
    let mut track = Track::new(&map, tiny::LIVE_FPS);
    let mut rows = Vec::new();
    for frame in frames {
        let seconds = (frame.time_ns - frames[0].time_ns) as f64 * 1e-9;
        track.push(&map, seconds, &frame.joints, None, |row| rows.extend_from_slice(row.joints));
    }
    rows
}

#[test]
fn decisions_are_those_of_the_recogniser_on_the_same_frames() {
    let second = 1_000_000_000;
    for scheme in tiny::SCHEMES {
        let model = model(scheme);
        let mut recognizer = Recognizer::new(Arc::clone(&model), Options { top_k: 3, ..Options::default() }).unwrap();
        let cases = [
            ("30 fps", every(30, 90).collect::<Vec<_>>(), 30),
            ("15 fps", every(15, 45).collect(), 15),
            ("about 60 fps", jittered(60.0, 180, 5), 60),
            ("about 24 fps", jittered(24.0, 72, 6), 24),
        ];
        for (what, times, fps) in cases {
            let frames = frames(11, times.iter().copied());
            let mut live = stream(&model, plain());
            let rows = rows(&model, &frames);
            let (mut raw, mut anchors, mut made) = (0, Vec::new(), Vec::new());
            for (newest, frame) in frames.iter().enumerate() {
                live.push(&frame.pose()).unwrap();
                for decision in decisions(&poll(&mut live)) {
                    let what = format!("{scheme:?}, {what}, decision at {} ns", decision.time_ns);
                    let row = |time_ns: u64| ((time_ns - frames[0].time_ns) as f64 * 30.0 / second as f64).round() as usize;
                    let (first, last) = (row(decision.start_ns), row(decision.time_ns));
                    assert!(decision.time_ns <= frame.time_ns + 1_000, "{what}");
                    assert_eq!((last + 1 - first) / 4, decision.tokens as usize, "{what}");
                    let window = clip(&rows[first * VALUES..(last + 1) * VALUES], Timing::Rate(tiny::LIVE_FPS));
                    assert_recognized(&mut recognizer, decision, &window, &what);
                    // Where no row of the newest frame lies beyond the window, the frames themselves can be asked about.
                    let seen = &frames[..=newest];
                    let made = ((frame.time_ns - frames[0].time_ns + 1_000) as f64 * 30.0 / second as f64) as usize + 1;
                    if first == 0 && (made <= tiny::FRAMES || made == last + 1) {
                        let times: Vec<u64> = seen.iter().map(|frame| frame.time_ns).collect();
                        let joints: Vec<f32> = seen.iter().flat_map(|frame| frame.joints.iter().copied()).collect();
                        assert_recognized(&mut recognizer, decision, &clip(&joints, Timing::Timestamps(&times)), &what);
                        raw += 1;
                    } else if fps == 30 {
                        assert_recognized_in(&mut recognizer, decision, &frames, &what);
                        raw += 1;
                    }
                    anchors.push(first);
                }
                made.push(live.stats().unwrap().decisions);
            }
            anchors.dedup();
            assert!(anchors.len() > 3 && anchors.windows(2).all(|pair| pair[1] - pair[0] == 16), "{what}: {anchors:?}");
            assert!(raw >= if fps == 30 { 19 } else { 4 }, "{what}: {raw} decisions against raw frames");
            assert_eq!(made.last(), Some(&(rows.len() as u64 / VALUES as u64 / 4 - 3)), "{what}: one a token, from the fourth on");
            let stats = live.stats().unwrap();
            assert_eq!((stats.reanchored, stats.frames), (anchors.len() as u64 - 1, frames.len() as u64), "{what}");
        }
    }
}

#[test]
fn frames_that_wait_together_are_decided_upon_as_if_they_had_come_alone() {
    let model = model(Scheme::Q8);
    let frames = together(&[&frames(1, every(30, 100)), &frames(2, jittered(60.0, 200, 2))]);
    let want = run(&mut stream(&model, StreamOptions::default()), &frames);
    assert!(decisions(&want).count() > 40);
    let mut late = stream(&model, StreamOptions::default());
    for frame in &frames {
        late.push(&frame.pose()).unwrap();
    }
    let got = poll(&mut late);
    for body in [1, 2] {
        assert_eq!(of(body, &got), of(body, &want));
    }
}

#[test]
fn bodies_threads_and_a_worker_do_not_change_a_bit() {
    for scheme in tiny::SCHEMES {
        let model = model(scheme);
        let all = [frames(1, every(30, 120)), frames(2, every(15, 60)), frames(3, jittered(60.0, 240, 3)), frames(4, jittered(20.0, 80, 4))];
        let mixed = together(&[&all[0], &all[1], &all[2], &all[3]]);
        let options = StreamOptions { begin_at: 0.3, end_below: 0.25, ..StreamOptions::default() };
        let alone: Vec<_> = all.iter().map(|frames| run(&mut stream(&model, options.clone()), frames)).collect();
        for events in &alone {
            let mut scores: Vec<_> = decisions(events).map(|event| event.top[0].log_prob.to_bits()).collect();
            assert!(scores.len() > 10, "{}", scores.len());
            scores.sort_unstable();
            scores.dedup();
            assert!(scores.len() > 10, "the answers differ from window to window");
        }
        for (threads, worker) in [(1, false), (2, false), (1, true), (2, true)] {
            let mut live = stream(&model, StreamOptions { threads, worker, ..options.clone() });
            let mut events = Vec::new();
            for frame in &mixed {
                live.push(&frame.pose()).unwrap();
                events.extend(poll(&mut live));
                // So that no event is dropped, however slow the worker is.
                if live.stats().unwrap().queued_frames > 256 {
                    live.wait(&Control::default()).unwrap();
                }
            }
            live.wait(&Control::default()).unwrap();
            events.extend(poll(&mut live));
            for (frames, want) in all.iter().zip(&alone) {
                assert_eq!(&of(frames[0].body, &events), want, "{scheme:?}, {threads} threads, worker {worker}");
            }
            assert_eq!(events.len(), alone.iter().map(Vec::len).sum::<usize>());
        }
    }
}

#[test]
fn a_model_of_whole_clips_reads_the_last_window() {
    for scheme in tiny::SCHEMES {
        let model = Model::from_bytes(&tiny::bytes(scheme), OpenOptions::default()).unwrap();
        let mut recognizer = Recognizer::new(Arc::clone(&model), Options { top_k: 3, ..Options::default() }).unwrap();
        let options = StreamOptions { window: Duration::from_secs(1), ..plain() };
        // The last one comes faster than a window holds frames.
        for (times, exact) in [(every(30, 90).collect(), true), (jittered(50.0, 150, 8), true), (jittered(600.0, 1_800, 9), false)] {
            let frames = frames(21, times);
            let events = run(&mut stream(&model, options.clone()), &frames);
            // From half a window on, one in an eighth of it.
            assert!((16..=22).contains(&decisions(&events).count()), "{}", decisions(&events).count());
            for decision in decisions(&events) {
                assert!(decision.time_ns - decision.start_ns <= 1_000_000_000);
                if exact {
                    let inside = |frame: &&Frame| (decision.start_ns..=decision.time_ns).contains(&frame.time_ns);
                    let window: Vec<Frame> = frames.iter().filter(inside).cloned().collect();
                    assert!(window[0].time_ns == frames[0].time_ns || decision.time_ns - decision.start_ns > 900_000_000);
                    assert_recognized_in(&mut recognizer, decision, &window, &format!("{scheme:?}, at {} ns", decision.time_ns));
                }
            }
        }
    }
}
