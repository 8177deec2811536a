//! Plays frames into the stream, and tells viewers and recording of them.

use std::fs::File;
use std::io::{LineWriter, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use llmar::Error;
use llmar::recognizer::stream::{Event, EventKind};
use serde_json::json;

use super::Command;
use super::hub::{Hub, Message};
use crate::Failure;
use crate::feed::{Clock, Feed, warn};
use crate::frames::{Frame, Next, Source};
use crate::lines::{Names, ms};

/// Longest wait before events and viewers are looked for.
const STEP: Duration = Duration::from_millis(5);
/// How often viewers are told of counters.
const STATISTICS: Duration = Duration::from_millis(500);
/// Between the end of a clip and its beginning when it is played again.
const AGAIN_NS: u64 = 1_000_000_000;

pub struct Player<'a> {
    feed: Feed,
    source: &'a Source,
    out: Out,
    commands: Receiver<Command>,
    clock: Clock,
    coords: usize,
    phase: &'static str,
    /// Time of the run's first frame, and of the newest.
    start_ns: Option<u64>,
    newest_ns: u64,
    /// Lines that were no frame.
    bad: u64,
    told_statistics: Instant,
}

/// Where everything goes.
struct Out {
    hub: Arc<Hub>,
    recording: Option<LineWriter<File>>,
}

impl Out {
    fn record(&mut self, line: &str) -> Result<(), Failure> {
        let Some(out) = &mut self.recording else { return Ok(()) };
        writeln!(out, "{line}").map_err(|e| Failure::Llmar(Error::io("recording")(e)))
    }

    fn event(&mut self, names: &Names, event: &Event) -> Result<(), Failure> {
        let line: Message = names.json(event).to_string().into();
        self.record(&line)?;
        match event.kind {
            EventKind::Decision => self.hub.tell_newest(("decision", event.body), line),
            EventKind::Begin | EventKind::End => self.hub.tell_mark(line),
            EventKind::Forgotten => {
                self.hub.tell_mark(line);
                self.hub.forget(Some(event.body));
            }
        }
        Ok(())
    }
}

/// What comes after a run of the input.
enum Ending {
    /// The input is at its end.
    End,
    Restart,
}

impl<'a> Player<'a> {
    pub fn new(feed: Feed, source: &'a Source, hub: Arc<Hub>, recording: Option<LineWriter<File>>, commands: Receiver<Command>) -> Self {
        let coords = feed.coords();
        Self {
            feed,
            source,
            out: Out { hub, recording },
            commands,
            clock: Clock::new(0, 1.0),
            coords,
            phase: "waiting",
            start_ns: None,
            newest_ns: 0,
            bad: 0,
            told_statistics: Instant::now(),
        }
    }

    /// Plays until the input is at its end (`once`, or standard input), or for ever.
    /// `paced`: frames of standard input wait for their time too.
    pub fn run(mut self, once: bool, paced: bool) -> Result<(), Failure> {
        self.tell_state();
        // Nothing is missed by who opens the page a moment later.
        while !once && !self.source.is_live() && !self.out.hub.has_viewers() {
            let _ = self.wait(STEP); // it has not begun yet
        }
        let mut start_ns = 0;
        loop {
            match self.play(start_ns, paced || !self.source.is_live())? {
                Ending::End if once || self.source.is_live() => return Ok(()),
                Ending::End => while self.wait(Duration::from_millis(100)).is_continue() {},
                Ending::Restart => {}
            }
            // Times go on, so that a recording of it all is in order.
            start_ns = self.newest_ns + AGAIN_NS;
            self.feed.reset()?;
            self.out.hub.forget(None);
            self.out.record(&json!({"kind": "restart", "start_s": start_ns as f64 / 1e9}).to_string())?;
        }
    }

    fn play(&mut self, start_ns: u64, paced: bool) -> Result<Ending, Failure> {
        let mut input = self.source.input(start_ns);
        self.start_ns = None;
        loop {
            match input.next(STEP)? {
                Next::Frame(frame) => {
                    if self.start_ns.is_none() {
                        self.start_ns = Some(frame.time_ns);
                        self.clock = Clock::new(frame.time_ns, self.clock.speed());
                        self.phase = "playing";
                        self.tell_state();
                    }
                    if paced && self.wait_for(frame.time_ns)?.is_break() {
                        return Ok(Ending::Restart);
                    }
                    self.push(&frame)?;
                }
                Next::Bad(message) => {
                    self.bad += 1;
                    warn(&format!("standard input: {message}"));
                }
                Next::Nothing => {
                    let _ = self.wait(Duration::ZERO); // standard input cannot begin anew
                }
                Next::End => break,
            }
            self.poll()?;
        }
        let (out, feed) = (&mut self.out, &mut self.feed);
        feed.finish(|names, event| out.event(names, event))?;
        self.tell_statistics()?;
        self.phase = "ended";
        self.tell_state();
        Ok(Ending::End)
    }

    fn push(&mut self, frame: &Frame) -> Result<(), Failure> {
        if self.feed.push(frame)? {
            self.newest_ns = self.newest_ns.max(frame.time_ns);
            let line: Message = frame.to_json(self.coords).into();
            self.out.record(&line)?;
            self.out.hub.tell_newest(("frame", frame.body), line);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<(), Failure> {
        let (out, feed) = (&mut self.out, &mut self.feed);
        feed.poll(|names, event| out.event(names, event))?;
        if self.told_statistics.elapsed() > STATISTICS { self.tell_statistics() } else { Ok(()) }
    }

    /// Waits until a frame is due; `Break` when everything has to begin anew.
    fn wait_for(&mut self, time_ns: u64) -> Result<ControlFlow<()>, Failure> {
        loop {
            let left = self.clock.until(time_ns);
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(ControlFlow::Continue(()));
            }
            if self.wait(left.unwrap_or(STEP).min(STEP)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.poll()?;
        }
    }

    /// Waits, and does what viewers ask for; `Break` when that is to begin anew.
    fn wait(&mut self, time: Duration) -> ControlFlow<()> {
        let command = match self.commands.recv_timeout(time) {
            Ok(command) => command,
            Err(RecvTimeoutError::Timeout) => return ControlFlow::Continue(()),
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(time); // nobody accepts connections any more; what plays goes on
                return ControlFlow::Continue(());
            }
        };
        match command {
            Command::Restart if !self.source.is_live() => {
                self.clock.run(true);
                return ControlFlow::Break(());
            }
            // A sensor neither stops nor begins anew nor hurries: there the page holds its picture by itself.
            Command::Pause(pause) if !self.source.is_live() && self.phase != "ended" => self.clock.run(!pause),
            Command::Speed(speed) if (0.05..=8.0).contains(&speed) => self.clock.set_speed(speed),
            _ => return ControlFlow::Continue(()),
        }
        self.tell_state();
        ControlFlow::Continue(())
    }

    fn tell_state(&self) {
        let state = json!({
            "kind": "state", "phase": self.phase, "paused": !self.clock.is_running(), "speed": self.clock.speed(),
            "start_s": self.start_ns.map(|ns| ns as f64 / 1e9),
        });
        self.out.hub.tell_state(state.to_string().into());
    }

    fn tell_statistics(&mut self) -> Result<(), Failure> {
        self.told_statistics = Instant::now();
        let stats = self.feed.stats()?;
        let line = json!({
            "kind": "statistics", "frames": stats.frames, "refused": stats.refused_frames + self.bad, "decisions": stats.decisions,
            "skipped": stats.skipped_decisions, "p50_ms": ms(stats.latency.p50_ns), "p99_ms": ms(stats.latency.p99_ns),
        });
        self.out.hub.tell_newest(("statistics", u64::MAX), line.to_string().into());
        Ok(())
    }
}
