//! A stream that is fed: made as the command line says, with frames going in, events coming out and a clock that says when.

use std::io::{Write, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use llmar::Error;
use llmar::control::Control;
use llmar::recognizer::Model;
use llmar::recognizer::stream::{Event, Pose, Stream, StreamOptions, StreamStats};

use crate::frames::{Frame, Source};
use crate::lines::Names;
use crate::{Arguments, Failure};

/// Events taken at once.
const AT_ONCE: usize = 16;

pub struct Feed {
    stream: Stream,
    events: Vec<Event>,
    pub names: Names,
    /// Frames come from a sensor that does not wait.
    live: bool,
}

/// Options of a stream, as far as they are common to everything that makes one.
pub fn options(args: &Arguments, source: &Source) -> Result<StreamOptions, Failure> {
    let default = StreamOptions::default();
    let deadline = match args.deadline_ms {
        Some(ms) if !(0.001..=3_600_000.0).contains(&ms) => {
            return Err(Failure::Usage(format!("--deadline-ms: expected .001 to 3600000, got {ms}")));
        }
        ms => ms.map(|ms| Duration::from_secs_f64(ms / 1e3)),
    };
    Ok(StreamOptions {
        threads: args.threads(),
        layout: source.layout.name.clone(),
        // Clips know how many there are.
        max_bodies: if source.bodies == 0 { default.max_bodies } else { source.bodies },
        tokens_per_decision: args.every.unwrap_or(default.tokens_per_decision),
        unknown_below: args.unknown_below,
        deadline,
        ..default
    })
}

impl Feed {
    pub fn new(model: &Arc<Model>, options: StreamOptions, source: &Source) -> Result<Self, Failure> {
        let stream = Stream::new(Arc::clone(model), options, Default::default())?;
        let names = Names { labels: stream.labels()?, joints: model.metadata().preprocess.joints.clone() };
        Ok(Self { stream, events: vec![Event::default(); AT_ONCE], names, live: source.is_live() })
    }

    /// Puts a frame in. `Ok(false)`: one of a live input was refused, which standard error was told.
    pub fn push(&mut self, frame: &Frame) -> Result<bool, Failure> {
        let pose = Pose { body: frame.body, time_ns: frame.time_ns, joints: &frame.joints, valid: None, confidence: None };
        match self.stream.push(&pose) {
            Ok(()) => Ok(true),
            // Files wait for the worker; a sensor does not.
            Err(Error::QueueFull { .. }) if !self.live => {
                self.stream.wait(&Control::default())?;
                self.stream.push(&pose)?;
                Ok(true)
            }
            Err(e) if self.live => {
                warn(&e.to_string());
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Tells every event that is there.
    pub fn poll(&mut self, mut tell: impl FnMut(&Names, &Event) -> Result<(), Failure>) -> Result<(), Failure> {
        loop {
            let count = self.stream.poll(&Control::default(), &mut self.events)?;
            if count == 0 {
                return Ok(());
            }
            self.events[..count].iter().try_for_each(|event| tell(&self.names, event))?;
        }
    }

    /// Ends actions, and tells what is left.
    pub fn finish(&mut self, tell: impl FnMut(&Names, &Event) -> Result<(), Failure>) -> Result<(), Failure> {
        self.stream.wait(&Control::default())?;
        self.stream.flush()?;
        self.stream.wait(&Control::default())?;
        self.poll(tell)
    }

    pub fn reset(&mut self) -> Result<(), Failure> {
        self.stream.reset()?;
        Ok(self.stream.reset_stats()?)
    }

    /// Coordinates of a joint.
    pub fn coords(&self) -> usize {
        self.stream.model().metadata().preprocess.coords
    }

    pub fn stats(&self) -> Result<StreamStats, Failure> {
        Ok(self.stream.stats()?)
    }
}

/// One line on standard error; that may be closed, and then nobody is left to tell.
pub fn warn(message: &str) {
    let _ = writeln!(stderr(), "llmar: {message}");
}

/// When a frame is due: its own time, from the first frame on, at a speed that may change.
pub struct Clock {
    /// When it was `at_ns`; `None` while it stands.
    since: Option<Instant>,
    /// Time of the frames at `since`.
    at_ns: u64,
    speed: f64,
}

impl Clock {
    /// Begins to run at the frames' time `at_ns`.
    pub fn new(at_ns: u64, speed: f64) -> Self {
        Self { since: Some(Instant::now()), at_ns, speed }
    }

    fn now_ns(&self) -> u64 {
        self.at_ns + self.since.map_or(0, |since| (since.elapsed().as_secs_f64() * self.speed * 1e9) as u64)
    }

    pub fn is_running(&self) -> bool {
        self.since.is_some()
    }

    pub fn run(&mut self, running: bool) {
        self.at_ns = self.now_ns();
        self.since = running.then(Instant::now);
    }

    pub fn set_speed(&mut self, speed: f64) {
        self.run(self.is_running());
        self.speed = speed;
    }

    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// How long until a frame is due; `None` while the clock stands.
    pub fn until(&self, time_ns: u64) -> Option<Duration> {
        let left = time_ns.saturating_sub(self.now_ns()) as f64 / 1e9 / self.speed;
        self.is_running().then(|| Duration::from_secs_f64(left.min(3600.0)))
    }
}
