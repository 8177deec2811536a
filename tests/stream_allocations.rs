//! A live stream in its steady state allocates nothing, and a long run needs no more memory than a short one. In a crate of its own: it
//! counts what the allocator of the whole process does on the thread that asks.

#[path = "common/tiny.rs"]
mod tiny;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use llmar::control::Control;
use llmar::device::Scheme;
use llmar::recognizer::stream::{Event, EventKind, Pose, Stream, StreamOptions};
use llmar::recognizer::{Model, OpenOptions};
use llmar::skeleton::Axes;
use tiny::Wander;

/// Counts, by thread.
struct Counting;

thread_local! {
    /// Calls that asked for memory.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Bytes taken and not given back.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

fn count(calls: u64, bytes: i64) {
    CALLS.with(|counter| counter.set(counter.get() + calls));
    LIVE.with(|counter| counter.set(counter.get() + bytes));
}

// SAFETY: every call is handed to the system's allocator as it came; counting allocates nothing and cannot panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn calls() -> u64 {
    CALLS.with(Cell::get)
}

fn live() -> i64 {
    LIVE.with(Cell::get)
}

fn stream(scheme: Scheme, max_bodies: usize) -> Stream {
    let model = Model::from_bytes(&tiny::live_bytes(scheme), OpenOptions::default()).unwrap();
    let options = StreamOptions { max_bodies, begin_at: 0.3, end_below: 0.25, ..StreamOptions::default() };
    Stream::new(model, options, Axes::default()).unwrap()
}

/// Frames before anything is counted.
const WARM_UP: u64 = 40;

/// Time of a frame at the model's rate.
fn time(frame: u64) -> u64 {
    frame * 1_000_000_000 / 30
}

/// Pushes and polls frame `frame` of every body; the number of decisions.
fn step(stream: &mut Stream, bodies: &mut [Wander], frame: u64, out: &mut [Event]) -> u64 {
    let mut decisions = 0;
    for (body, wander) in (0..).zip(bodies) {
        let joints = wander.next_frame();
        stream.push(&Pose { body, time_ns: time(frame), joints, valid: None, confidence: None }).unwrap();
    }
    loop {
        let count = stream.poll(&Control::default(), out).unwrap();
        if count == 0 {
            return decisions;
        }
        decisions += out[..count].iter().filter(|event| event.kind == EventKind::Decision).count() as u64;
    }
}

/// From the first full window of three bodies on: caches and buffers have their size from the start, and a window is begun anew in every 16 frames.
#[test]
fn a_steady_state_allocates_nothing() {
    for scheme in tiny::SCHEMES {
        let mut stream = stream(scheme, 3);
        let mut bodies = [Wander::new(1), Wander::new(2), Wander::new(3)];
        let mut out = [Event::default(); 64];
        let mut decisions = 0;
        for frame in 0..WARM_UP {
            decisions += step(&mut stream, &mut bodies, frame, &mut out);
        }
        let (before, early) = (calls(), decisions);
        for frame in WARM_UP..2_500 {
            decisions += step(&mut stream, &mut bodies, frame, &mut out);
        }
        let count = calls() - before;
        assert_eq!(count, 0, "{scheme:?}");
        let stats = stream.stats().unwrap();
        let counted = 3 * (2_500 - WARM_UP);
        assert!(early > 0 && decisions - early == counted / 4 && stats.reanchored > counted / 16, "{decisions}: {stats:?}");
    }
}

#[test]
fn a_long_run_needs_no_more_memory_than_a_short_one() {
    let mut stream = stream(Scheme::Q4, 2);
    let mut bodies = [Wander::new(4)];
    let mut out = [Event::default(); 64];
    let (mut decisions, mut before) = (0, 0);
    for frame in 0..20_000 {
        decisions += step(&mut stream, &mut bodies, frame, &mut out);
        // The ops' own scratch, some kilobytes, has met its largest pass by then.
        if frame == 500 {
            before = live();
        }
    }
    assert_eq!(live() - before, 0);
    let stats = stream.stats().unwrap();
    // One a token, but for the first three: a window of fewer than four is not asked about.
    assert_eq!((decisions, stats.decisions, stats.frames), (20_000 / 4 - 3, 20_000 / 4 - 3, 20_000));
    // When the 33rd row comes, and then with every 16th.
    assert_eq!(stats.reanchored, (20_000 - 33) / 16 + 1);
    assert_eq!((stats.bodies, stats.queued_frames, stats.queued_events, stats.gaps, stats.dropped_events), (1, 0, 0, 0, 0));
}
