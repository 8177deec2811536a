//! `llmar stream`: frames into a live stream, and what it says about them.

use std::io::{Write, stdout};
use std::time::Duration;

use llmar::Error;
use llmar::recognizer::stream::{Event, StreamOptions};

use crate::feed::{Clock, Feed, options, warn};
use crate::frames::{Next, Source};
use crate::lines::{Names, statistics};
use crate::{Arguments, Failure};

/// Longest wait before the worker's events are looked for.
const STEP: Duration = Duration::from_millis(5);

pub fn stream(args: &Arguments) -> Result<(), Failure> {
    let (path, files) = args.model()?;
    let model = args.open(path)?;
    let source = Source::open(args, files, &model)?;
    let default = StreamOptions::default();
    let options = StreamOptions {
        top_k: args.top.unwrap_or(default.top_k),
        actions_only: args.actions,
        worker: args.worker,
        ..options(args, &source)?
    };
    let mut feed = Feed::new(&model, options, &source)?;
    let tell = |names: &Names, event: &Event| {
        let mut out = stdout().lock();
        Ok(if args.json { writeln!(out, "{}", names.json(event)) } else { writeln!(out, "{}", names.text(event)) }?)
    };
    let mut input = source.input(0);
    let (mut clock, mut refused) = (None, 0u64);
    loop {
        match input.next(STEP)? {
            Next::Frame(frame) => {
                let clock = clock.get_or_insert_with(|| Clock::new(frame.time_ns, 1.0));
                while let Some(left) = clock.until(frame.time_ns).filter(|left| args.real_time && !left.is_zero()) {
                    std::thread::sleep(left.min(STEP));
                    feed.poll(tell)?;
                }
                feed.push(&frame)?;
            }
            Next::Bad(message) => {
                refused += 1;
                warn(&format!("standard input: {message}"));
            }
            Next::Nothing => {}
            Next::End => break,
        }
        feed.poll(tell)?;
    }
    feed.finish(tell)?;
    let mut stats = feed.stats()?;
    stats.refused_frames += refused;
    if stats.frames == 0 && stats.refused_frames > 0 {
        return Err(Failure::Llmar(Error::format("standard input", "no line holds a frame that the stream takes")));
    }
    warn(&statistics(&stats));
    Ok(())
}
