//! Live streams on the tiny models: decisions are those of the recogniser on the same frames, whatever the threads, the bodies beside and
//! the input that was refused; bodies come and go, actions begin and end.

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
    (0..count)
        .map(|frame| 7_000_000_000 + ((frame as f64 + 0.5 + 0.45 * f64::from(random.next_f32())) * 1e9 / f64::from(fps)) as u64)
        .collect()
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
fn probabilities_lie_in_the_interval_that_was_asked_for() {
    let model = model(Scheme::Q8);
    let frames = frames(11, every(30, 120));
    // So many that a guess does not take in all their nodes.
    let labels: Vec<String> = (0..30).map(|i| format!("act {i}")).collect();
    let labels: Vec<&str> = labels.iter().map(|label| &label[..]).collect();
    let mut recognizer = Recognizer::new(Arc::clone(&model), Options { top_k: labels.len(), ..Options::default() }).unwrap();
    recognizer.set_labels(&labels).unwrap();
    let told = |tolerance| -> Vec<Event> {
        let mut live = stream(&model, StreamOptions { top_k: 1, tolerance, ..plain() });
        live.set_labels(&labels).unwrap();
        decisions(&run(&mut live, &frames)).copied().collect()
    };
    let exact = told(0.0);
    let rows = rows(&model, &frames);
    for decision in &exact {
        let row = |time_ns: u64| ((time_ns - frames[0].time_ns) as f64 * 3e-8).round() as usize;
        let window = &rows[row(decision.start_ns) * VALUES..(row(decision.time_ns) + 1) * VALUES];
        let want = recognizer.recognize(&clip(window, Timing::Rate(tiny::LIVE_FPS)), &Control::default()).unwrap();
        assert!((decision.probability - want.probabilities[0]).abs() <= 1e-4, "{decision:?} against {want:?}");
    }
    let mut inexact = 0;
    for tolerance in [0.02, StreamOptions::default().tolerance, 0.6, 1.0] {
        let told = told(tolerance);
        assert_eq!(told.len(), exact.len());
        for (told, exact) in told.iter().zip(&exact) {
            assert_eq!(told.label, exact.label);
            // The place told is a fifth of the way up: four fifths of the interval may lie above it.
            let error = f64::from(exact.probability - told.probability);
            assert!((-0.2 * tolerance - 1e-4..=0.8 * tolerance + 1e-4).contains(&error), "{tolerance}: {told:?} against {exact:?}");
            inexact += usize::from(error.abs() > 1e-4);
        }
    }
    assert!(inexact > 0, "every search went to its end");
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
        let all =
            [frames(1, every(30, 120)), frames(2, every(15, 60)), frames(3, jittered(60.0, 240, 3)), frames(4, jittered(20.0, 80, 4))];
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

/// Poses that a stream with bodies 1 and 2 refuses, and how. `at` is the time of the newest frame.
#[test]
fn input_that_is_refused_changes_nothing_else() {
    let model = model(Scheme::F32);
    let options = StreamOptions { max_bodies: 2, ..StreamOptions::default() };
    let good = together(&[&frames(1, every(30, 80)), &frames(2, every(30, 80))]);
    let want = run(&mut stream(&model, options.clone()), &good);
    assert!(decisions(&want).count() > 20);

    let joints = good[0].joints.clone();
    let (short, long) = (&joints[1..], [&joints[..], &[0.0]].concat());
    let (valid, confidence) = ([1_u8; 21], [1.0_f32; 19]);
    let pose = Pose { body: 1, time_ns: 0, joints: &joints, valid: None, confidence: None };
    type Check = fn(&Error) -> bool;
    let shape: Check = |error| matches!(error, Error::Shape { .. });
    let second = 1_000_000_000;
    let bad = |at: u64| -> Vec<(Pose<'_>, Check)> {
        let next = at + 1_000;
        vec![
            (Pose { time_ns: at - 1, ..pose }, |error| matches!(error, Error::BackwardTime { body: 1, .. })),
            (Pose { time_ns: 0, ..pose }, |error| matches!(error, Error::BackwardTime { body: 1, got_ns: 0, .. })),
            (Pose { time_ns: at, ..pose }, |error| matches!(error, Error::DuplicateTime { body: 1, .. })),
            (Pose { time_ns: at + 11 * second, ..pose }, |error| matches!(error, Error::FutureTime { body: 1, .. })),
            (Pose { time_ns: u64::MAX, ..pose }, |error| matches!(error, Error::FutureTime { body: 1, got_ns: u64::MAX, .. })),
            (Pose { body: 3, time_ns: next, ..pose }, |error| matches!(error, Error::BodyLimit { body: 3, limit: 2 })),
            (Pose { time_ns: next, joints: short, ..pose }, shape),
            (Pose { time_ns: next, joints: &long, ..pose }, shape),
            (Pose { time_ns: next, joints: &[], ..pose }, shape),
            (Pose { time_ns: next, valid: Some(&valid), ..pose }, shape),
            (Pose { time_ns: next, confidence: Some(&confidence), ..pose }, shape),
        ]
    };
    // All of it after every pair of frames, and each kind alone once.
    for only in (0..bad(second).len()).map(Some).chain([None]) {
        let mut live = stream(&model, options.clone());
        let (mut events, mut refused) = (Vec::new(), 0);
        for (i, frame) in good.iter().enumerate() {
            live.push(&frame.pose()).unwrap();
            events.extend(poll(&mut live));
            if i % 2 == 1 {
                for (_, (pose, check)) in bad(frame.time_ns).iter().enumerate().filter(|(kind, _)| only.is_none_or(|only| only == *kind)) {
                    let error = live.push(pose).unwrap_err();
                    assert!(check(&error), "{only:?}: {error}");
                    refused += 1;
                }
                assert!(matches!(live.remove_body(77), Err(Error::UnknownBody { body: 77 })));
                assert!(matches!(live.advance(frame.time_ns - 1), Err(Error::InvalidArgument { .. })));
            }
        }
        assert_eq!(events, want, "{only:?}");
        let stats = live.stats().unwrap();
        assert_eq!((stats.refused_frames, stats.frames, stats.bodies), (refused, good.len() as u64, 2));
    }
}

#[test]
fn a_clock_that_jumps_is_believed_at_its_second_frame() {
    let model = model(Scheme::F32);
    let options = StreamOptions { forget_after: Duration::from_secs(3_600), ..StreamOptions::default() };
    let mut live = stream(&model, options);
    let frames = frames(1, every(30, 60));
    let hour = 3_600_000_000_000;
    let shifted = |frame: &Frame| Frame { time_ns: frame.time_ns + hour / 2, ..frame.clone() };
    run(&mut live, &frames[..30]);
    // One wrong stamp, and the right time again: the next wrong one is again the first.
    for at in [30, 31] {
        assert!(matches!(live.push(&shifted(&frames[at]).pose()), Err(Error::FutureTime { limit_ns: 10_000_000_000, .. })));
        live.push(&frames[at].pose()).unwrap();
    }
    // Two at one time do not confirm each other.
    for _ in 0..2 {
        assert!(matches!(live.push(&shifted(&frames[32]).pose()), Err(Error::FutureTime { .. })));
    }
    poll(&mut live);
    assert_eq!(live.stats().unwrap().gaps, 0);
    live.push(&shifted(&frames[33]).pose()).unwrap();
    let moved: Vec<Frame> = frames[34..].iter().map(shifted).collect();
    assert!(decisions(&run(&mut live, &moved)).all(|decision| decision.start_ns >= hour / 2));
    let stats = live.stats().unwrap();
    assert_eq!((stats.gaps, stats.refused_frames, stats.bodies), (1, 4, 1));
    assert!(matches!(live.push(&frames[40].pose()), Err(Error::BackwardTime { .. })));
}

/// Not a number, infinite, flagged or doubtful: all say that a joint was not seen, and none has an effect on what is.
#[test]
fn joints_that_were_not_seen_are_filled_alike() {
    let model = model(Scheme::F32);
    let good = frames(1, every(30, 80));
    let hand = 7;
    let hidden = |frame: usize| frame % 20 > 12;
    let options = StreamOptions { min_confidence: 0.5, ..StreamOptions::default() };
    let mut all = Vec::new();
    for how in 0..5 {
        let mut live = stream(&model, options.clone());
        let mut events = Vec::new();
        for (i, frame) in good.iter().enumerate() {
            let mut frame = frame.clone();
            let (mut valid, mut confidence) = ([1; 20], [1.0; 20]);
            if hidden(i) {
                let x = &mut frame.joints[hand * 3 + 1];
                match how {
                    0 => *x = f32::NAN,
                    1 => *x = f32::INFINITY,
                    2 => valid[hand] = 0,
                    3 => confidence[hand] = 0.49,
                    _ => confidence[hand] = f32::NAN,
                }
            }
            live.push(&Pose { valid: Some(&valid), confidence: Some(&confidence), ..frame.pose() }).unwrap();
            events.extend(poll(&mut live));
        }
        all.push(events);
    }
    assert!(all.iter().all(|events| *events == all[0]));
    assert!(decisions(&all[0]).any(|decision| decision.missing > 0.0));

    // A frame in which nothing was seen, and frames before the body can be placed, are counted and no more.
    let mut live = stream(&model, options);
    let blind = Frame { time_ns: good[0].time_ns - 2, joints: vec![f32::NAN; VALUES], ..good[0].clone() };
    let mut rootless = Frame { time_ns: good[0].time_ns - 1, ..good[0].clone() };
    rootless.joints[2 * 3] = f32::NAN;
    for shoulder in [4, 8] {
        rootless.joints[shoulder * 3] = f32::NAN;
    }
    let with_them: Vec<Frame> = [blind, rootless].iter().chain(&good).cloned().collect();
    let want = run(&mut stream(&model, StreamOptions::default()), &good);
    assert_eq!(run(&mut live, &with_them), want);
    assert_eq!(live.stats().unwrap().unseen_frames, 2);
}

/// Joints so far away that no feature of them fits f32: the poll says so once, and the body begins anew.
#[test]
fn positions_beyond_f32_harm_nobody_for_long() {
    let model = model(Scheme::F32);
    let (mut mad, sane) = (frames(1, every(30, 120)), frames(2, every(30, 120)));
    let want = run(&mut stream(&model, StreamOptions::default()), &sane);
    mad[41].joints[7 * 3] = f32::MAX;
    mad[42].joints[7 * 3] = -f32::MAX;
    let (mut live, mut events, mut errors) = (stream(&model, StreamOptions::default()), Vec::new(), 0);
    for frame in together(&[&mad, &sane]) {
        live.push(&frame.pose()).unwrap();
        let mut out = [Event::default(); 64];
        loop {
            match live.poll(&Control::default(), &mut out) {
                Ok(0) => break,
                Ok(count) => events.extend(out[..count].iter().map(|event| Event { latency_ns: 0, ..*event })),
                Err(error) => {
                    assert!(matches!(error, Error::InvalidArgument { .. } | Error::Format { .. }), "{error}");
                    errors += 1;
                }
            }
        }
    }
    assert!((1..=2).contains(&errors), "{errors}");
    assert_eq!(of(2, &events), want);
    let last = events.iter().rfind(|event| event.body == 1).unwrap();
    assert!(last.time_ns > mad[110].time_ns, "the body goes on");
}

#[test]
fn a_full_queue_loses_nothing() {
    let model = model(Scheme::F32);
    let frames = frames(1, every(30, 90));
    let want = run(&mut stream(&model, StreamOptions::default()), &frames);
    let mut live = stream(&model, StreamOptions { queued_frames: 10, ..StreamOptions::default() });
    let (mut events, mut full) = (Vec::new(), 0);
    for frame in &frames {
        if let Err(error) = live.push(&frame.pose()) {
            assert!(matches!(error, Error::QueueFull { limit: 10 }), "{error}");
            assert_eq!(live.stats().unwrap().queued_frames, 10);
            full += 1;
            events.extend(poll(&mut live));
            live.push(&frame.pose()).unwrap();
        }
    }
    events.extend(poll(&mut live));
    assert_eq!((events, full), (want, 8));
}

#[test]
fn a_body_is_lost_and_comes_back() {
    let model = model(Scheme::F32);
    let second = 1_000_000_000;
    // A gap of 0.5 s goes on, a longer one begins a new window.
    for (pause, gaps) in [(second / 2, 0), (second / 2 + 1, 1), (2 * second, 1)] {
        let mut live = stream(&model, StreamOptions { begin_at: 0.01, end_below: 0.0, ..plain() });
        let all = frames(1, every(30, 80));
        let (before, after) = all.split_at(40);
        let first = run(&mut live, before);
        assert_eq!(count(EventKind::Begin, &first), count(EventKind::End, &first) + 1, "an action goes on");
        let later = after[0].time_ns - before[39].time_ns;
        let after: Vec<Frame> = after.iter().map(|frame| Frame { time_ns: frame.time_ns - later + pause, ..frame.clone() }).collect();
        let second = run(&mut live, &after);
        assert_eq!(live.stats().unwrap().gaps, gaps);
        if gaps == 1 {
            let end = second[0];
            assert_eq!((end.kind, end.end_ns, end.time_ns), (EventKind::End, before[39].time_ns, after[0].time_ns));
            let alone = run(&mut stream(&model, StreamOptions { begin_at: 0.01, end_below: 0.0, ..plain() }), &after);
            assert_eq!(second[1..], alone, "nothing of the window before is left");
        } else {
            assert!(decisions(&second).next().unwrap().start_ns < before[39].time_ns, "the window goes on");
        }
    }

    // Forgotten by frames of another body, by the time alone, by name, and by a newcomer that finds no place.
    let forget_after = Duration::from_secs(3);
    for how in ["another body", "the time alone", "by name", "a newcomer"] {
        let max_bodies = if how == "a newcomer" { 1 } else { 2 };
        let mut live = stream(&model, StreamOptions { begin_at: 0.01, end_below: 0.0, max_bodies, forget_after, ..plain() });
        let frames = frames(1, every(30, 40));
        let seen = frames[39].time_ns;
        let first = run(&mut live, &frames);
        let goes_on = *first.iter().rfind(|event| event.kind == EventKind::Begin).unwrap();
        let other = |time_ns: u64| Frame { body: 2, time_ns, ..frames[0].clone() };
        match how {
            "another body" => {
                assert!(run(&mut live, &[other(seen + 3 * second)]).is_empty(), "not yet");
                live.push(&other(seen + 3 * second + 1).pose()).unwrap();
            }
            "the time alone" => {
                live.advance(seen + 3 * second).unwrap();
                assert!(poll(&mut live).is_empty(), "not yet");
                live.advance(seen + 3 * second + 1).unwrap();
            }
            "by name" => live.remove_body(1).unwrap(),
            _ => {
                assert!(matches!(live.push(&other(seen + 3 * second).pose()), Err(Error::BodyLimit { body: 2, limit: 1 })));
                live.push(&other(seen + 3 * second + 1).pose()).unwrap();
            }
        }
        let events = poll(&mut live);
        let kinds: Vec<_> = events.iter().map(|event| (event.kind, event.body, event.time_ns)).collect();
        assert_eq!(kinds, [(EventKind::End, 1, seen), (EventKind::Forgotten, 1, seen)], "{how}");
        assert_eq!((events[0].label, events[0].start_ns, events[0].end_ns), (goes_on.label, goes_on.start_ns, seen), "{how}");
        assert_eq!(live.stats().unwrap().bodies, u64::from(how == "another body" || how == "a newcomer"), "{how}");
        assert!(matches!(live.remove_body(1), Err(Error::UnknownBody { body: 1 })), "{how}");
    }
}

#[test]
fn decisions_that_would_be_late_are_skipped_and_counted() {
    let model = model(Scheme::F32);
    let frames = frames(1, every(30, 400));
    let with = |deadline| {
        let mut live = stream(&model, StreamOptions { deadline, ..plain() });
        let events = run(&mut live, &frames);
        let stats = live.stats().unwrap();
        assert_eq!(decisions(&events).count() as u64, stats.decisions);
        assert_eq!(stats.decisions + stats.skipped_decisions, 400 / 4 - 3, "each is made or skipped");
        stats
    };
    let free = with(None);
    assert_eq!((free.skipped_decisions, with(Some(Duration::from_secs(600))).skipped_decisions), (0, 0));
    let none = with(Some(Duration::from_nanos(1)));
    assert_eq!((none.decisions, none.passes, none.tokens), (0, 0, free.tokens));
    // Less than an update takes: some decisions are tried all the same, since the next one may be faster.
    let some = with(Some(Duration::from_nanos(free.update.p50_ns * 2 / 3)));
    assert!(some.decisions >= 2 && some.skipped_decisions > 0, "{some:?}");
}

#[test]
fn a_poll_that_was_stopped_changes_no_decision() {
    let model = model(Scheme::Q4);
    let frames = together(&[&frames(1, every(30, 100)), &frames(2, every(30, 100)), &frames(3, every(15, 50))]);
    let want = run(&mut stream(&model, StreamOptions::default()), &frames);
    let mut live = stream(&model, StreamOptions::default());
    let (cancel, mut events, mut stopped, mut random) = (CancelToken::default(), Vec::new(), 0, Random(5));
    let cancelled = Control { cancel: Some(cancel.clone()), deadline: None };
    for frame in &frames {
        live.push(&frame.pose()).unwrap();
        let mut out = [Event::default(); 64];
        cancel.request();
        assert!(matches!(live.poll(&cancelled, &mut out), Err(Error::Cancelled)));
        cancel.clear();
        // A deadline that falls anywhere into the update.
        let within = Duration::from_micros(((random.next_f32() + 1.0) * 200.0) as u64);
        match live.poll(&Control { cancel: None, deadline: Some(Instant::now() + within) }, &mut out) {
            Ok(count) => events.extend(out[..count].iter().map(|event| Event { latency_ns: 0, ..*event })),
            Err(Error::DeadlineExceeded) => stopped += 1,
            Err(other) => panic!("{other}"),
        }
        events.extend(poll(&mut live));
    }
    assert!(stopped > 0, "none was stopped");
    assert_eq!(events, want);
}

#[test]
fn labels_that_cannot_be_seen_or_are_denied_are_never_named() {
    let model = model(Scheme::F32);
    let kept =
        ["hip_center", "spine", "shoulder_center", "head", "left_shoulder", "left_elbow", "left_wrist", "left_hand", "right_shoulder"];
    let kept = [&kept[..], &["right_elbow", "right_wrist", "right_hand", "left_hip", "right_hip"]].concat();
    Layout::register("stream test without legs", &kept).unwrap();
    let whole = Layout::find("kinect1_20").unwrap();
    let frames = frames(1, every(30, 200));
    let upper: Vec<Frame> = frames
        .iter()
        .map(|frame| {
            let joints = kept.iter().flat_map(|name| frame.joints[whole.joint(name).unwrap() * 3..][..3].to_vec()).collect();
            Frame { joints, ..frame.clone() }
        })
        .collect();
    let named = |events: &[Event]| {
        let mut named: Vec<_> =
            decisions(events).flat_map(|decision| decision.top[..decision.top_count as usize].to_vec()).map(|s| s.label).collect();
        named.extend(events.iter().filter_map(|event| event.label));
        named.sort_unstable();
        named.dedup();
        named
    };
    let sums_to_one = |events: &[Event], exactly: bool| {
        for decision in decisions(events) {
            let sum: f32 = decision.top[..decision.top_count as usize].iter().map(|scored| scored.probability).sum();
            assert!(sum <= 1.0 + 1e-5 && (!exactly || sum > 1.0 - 1e-4), "{sum}");
        }
    };
    let options = StreamOptions { top_k: 5, begin_at: 0.3, ..plain() };
    let all = run(&mut stream(&model, options.clone()), &frames);
    assert_eq!(named(&all), [0, 1, 2, 3, 4, 5]);
    sums_to_one(&all, false);

    let mut live = stream(&model, StreamOptions { layout: "stream test without legs".to_owned(), ..options.clone() });
    let (allowed, blind, denied) = (LabelState::Allowed, LabelState::NotObservable, LabelState::Denied);
    assert_eq!(live.labels().unwrap(), LIVE_LABELS);
    assert_eq!(live.label_states().unwrap(), [blind, blind, allowed, allowed, allowed, allowed]);
    let events = run(&mut live, &upper);
    assert_eq!(named(&events), [2, 3, 4, 5]);
    sums_to_one(&events, true);
    let knees = 1 << whole.joint("left_knee").unwrap();
    assert!(decisions(&events).all(|decision| decision.missing_joints[0] & knees != 0 && decision.missing > 0.2));
    assert!(decisions(&all).all(|decision| decision.missing_joints == [0; 4] && decision.missing == 0.0));
    // What is denied and what cannot be seen is out; what cannot be seen stays so when it is allowed.
    live.filter_labels(|label| label != 3).unwrap();
    assert_eq!(live.label_states().unwrap(), [blind, blind, allowed, denied, allowed, allowed]);
    live.filter_labels(|_| true).unwrap();
    assert_eq!(live.label_states().unwrap(), [blind, blind, allowed, allowed, allowed, allowed]);
    assert!(matches!(live.filter_labels(|label| label < 2), Err(Error::InvalidArgument { what: "labels", .. })));

    let mut live = stream(&model, options.clone());
    live.filter_labels(|label| label % 2 == 1).unwrap();
    for refused in [live.filter_labels(|_| false), live.filter_labels(|label| label > 5)] {
        assert!(matches!(refused, Err(Error::InvalidArgument { what: "labels", .. })));
    }
    assert_eq!(live.label_states().unwrap(), [denied, allowed, denied, allowed, denied, allowed]);
    let events = run(&mut live, &frames);
    assert_eq!(named(&events), [1, 3, 5]);
    sums_to_one(&events, true);
    // Over the labels that are left: as likely to each other as before.
    for (few, many) in decisions(&events).zip(decisions(&all)) {
        for scored in &few.top[..few.top_count as usize] {
            let same = many.top.iter().find(|other| other.label == scored.label && other.log_prob.is_finite());
            assert!(same.is_none_or(|same| (same.log_prob - scored.log_prob).abs() < 1e-5 && same.probability < scored.probability));
        }
    }

    // A model all of whose labels need knees has nothing to say of such a body.
    let legs = changed(|metadata| metadata.labels.truncate(2));
    let refused = Stream::new(legs, StreamOptions { layout: "stream test without legs".to_owned(), ..options }, Axes::default());
    assert!(matches!(refused, Err(Error::InvalidArgument { what: "labels", .. })));
}

#[test]
fn replaced_labels_are_those_of_the_recogniser() {
    let model = model(Scheme::Q8);
    let labels = ["jump", "jump rope", "wave", "ärmel hoch"];
    let mut recognizer = Recognizer::new(Arc::clone(&model), Options { top_k: 3, ..Options::default() }).unwrap();
    let mut live = stream(&model, plain());
    let frames = frames(1, every(30, 120));
    run(&mut live, &frames[..45]);
    live.set_labels(&labels).unwrap();
    recognizer.set_labels(&labels).unwrap();
    assert_eq!((live.labels().unwrap(), live.label_states().unwrap()), (recognizer.labels(), vec![LabelState::Allowed; 4]));
    for bad in [&["wave", "wave"][..], &[""]] {
        assert!(live.set_labels(bad).is_err());
        assert_eq!(live.labels().unwrap(), labels);
    }
    let events = run(&mut live, &frames[45..90]);
    assert!(decisions(&events).count() > 8);
    for decision in decisions(&events) {
        assert_recognized_in(&mut recognizer, decision, &frames, &format!("at {} ns", decision.time_ns));
    }
    live.set_labels(&[]).unwrap();
    recognizer.reset_labels().unwrap();
    assert_eq!(live.labels().unwrap(), LIVE_LABELS);
    for decision in decisions(&run(&mut live, &frames[90..])) {
        assert_recognized_in(&mut recognizer, decision, &frames, &format!("at {} ns", decision.time_ns));
    }
}

#[test]
fn events_that_nobody_takes_are_dropped_the_oldest_first() {
    let model = model(Scheme::F32);
    let frames = frames(1, every(30, 200));
    let options = StreamOptions { begin_at: 0.3, end_below: 0.25, ..plain() };
    let all = run(&mut stream(&model, options.clone()), &frames);
    for queued_events in [1, 7] {
        let mut live = stream(&model, StreamOptions { queued_events, worker: true, ..options.clone() });
        for frame in &frames {
            live.push(&frame.pose()).unwrap();
        }
        live.wait(&Control::default()).unwrap();
        let stats = live.stats().unwrap();
        assert_eq!((stats.queued_events as usize, stats.dropped_events as usize), (queued_events, all.len() - queued_events));
        assert_eq!(poll(&mut live), all[all.len() - queued_events..]);
    }
    let actions: Vec<Event> = all.iter().filter(|event| event.kind != EventKind::Decision).copied().collect();
    assert!(actions.len() > 4);
    let mut live = stream(&model, StreamOptions { actions_only: true, ..options });
    assert_eq!(run(&mut live, &frames), actions);
    assert_eq!(live.stats().unwrap().decisions as usize, decisions(&all).count());
}

#[test]
fn a_flush_decides_what_is_not_due_and_ends_actions() {
    let model = model(Scheme::F32);
    let frames = frames(1, every(30, 26));
    let mut recognizer = Recognizer::new(Arc::clone(&model), Options { top_k: 3, ..Options::default() }).unwrap();
    let mut live = stream(&model, StreamOptions { tokens_per_decision: 5, begin_at: 0.01, end_below: 0.0, ..plain() });
    // Six tokens: a decision at the fifth.
    let events = run(&mut live, &frames);
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Decision, EventKind::Begin]);
    assert_eq!(events[0].tokens, 5);
    live.flush().unwrap();
    let last = poll(&mut live);
    assert_eq!((last[0].kind, last[0].tokens), (EventKind::Decision, 6));
    assert_recognized_in(&mut recognizer, &last[0], &frames, "the last one");
    let end = last.last().unwrap();
    assert_eq!((end.kind, end.end_ns, end.time_ns), (EventKind::End, frames[25].time_ns, frames[25].time_ns));
    assert_eq!(count(EventKind::Begin, &events) + count(EventKind::Begin, &last), count(EventKind::End, &last));
    // Nothing new: nothing to say.
    live.flush().unwrap();
    assert!(poll(&mut live).is_empty());

    // Fewer tokens than are asked about otherwise.
    let mut live = stream(&model, plain());
    assert!(run(&mut live, &frames[..9]).is_empty());
    live.flush().unwrap();
    assert_eq!(decisions(&poll(&mut live)).map(|decision| decision.tokens).collect::<Vec<_>>(), [2]);
}

#[test]
fn actions_begin_and_end_in_turn() {
    let model = model(Scheme::Q8);
    let frames = together(&[&frames(1, every(30, 600)), &frames(2, jittered(40.0, 800, 2))]);
    for smoothing in [0.0, 0.5, 0.9] {
        let mut live = stream(&model, StreamOptions { smoothing, begin_at: 0.3, end_below: 0.25, ..StreamOptions::default() });
        let mut events = run(&mut live, &frames);
        live.flush().unwrap();
        events.extend(poll(&mut live));
        for body in [1, 2] {
            let (mut on, mut free_ns, mut told_ns, mut begun) = (None, 0, 0, 0);
            for event in of(body, &events) {
                assert!(event.time_ns >= told_ns && event.start_ns <= event.end_ns && event.end_ns <= event.time_ns, "{event:?}");
                told_ns = event.time_ns;
                match event.kind {
                    EventKind::Begin => {
                        assert!(on.is_none() && event.start_ns >= free_ns && event.probability >= 0.3, "{event:?}");
                        assert!(event.label.is_some_and(|label| label < 5), "idle is no action");
                        on = Some((event.label, event.start_ns));
                        begun += 1;
                    }
                    EventKind::End => {
                        assert_eq!(on.take(), Some((event.label, event.start_ns)));
                        free_ns = event.end_ns;
                    }
                    EventKind::Decision => assert_eq!(event.idle, event.label == Some(5)),
                    EventKind::Forgotten => panic!("{event:?}"),
                }
            }
            assert!(on.is_none() && begun > 1, "smoothing {smoothing}: {begun}");
        }
    }
}
