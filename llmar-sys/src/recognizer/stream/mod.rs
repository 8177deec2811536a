//! Live streams: frames of several bodies in, decisions and actions out, with the language model's cache reused from update to update.
//!
//! ```text
//! push ──► inbox ──► body: track, window, tokens ──► engine: new tokens + suffix + label nodes, one pass for all bodies ──► judge ──► outbox ──► poll
//! ```
//!
//! A push checks a frame and puts it down. An update happens in [`Stream::poll`], or on the stream's worker. With a live model (causal encoder,
//! [`Resample::Live`](crate::skeleton::Resample::Live)) tokens are only appended: an update runs the new tokens, and on a branch that is dropped again the
//! words after the sentence and the label nodes. A window that is full begins anew with its last half. Any other model works too, by reading the last
//! [`StreamOptions::window`] anew at every decision: that costs a whole clip's tokenization, and a prompt from the first token that differs on.

mod body;
mod engine;
mod event;
mod guess;
mod inbox;
mod judge;
mod labels;
mod motion;
mod options;
mod state;
mod stats;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

pub use event::{Event, EventKind, Scored};
pub use labels::LabelState;
pub use options::{BODY_LIMIT, QUEUE_LIMIT, StreamOptions, TOP};
pub use stats::{Percentiles, StreamStats};

use super::model::Model;
use crate::control::{CancelToken, Control};
use crate::error::{Error, Result};
use crate::skeleton::{Axes, Conversion};
use engine::{Engine, Outbox};
use inbox::Inbox;

/// One frame of one body: joints f32 [V, C] of the stream's layout, in the caller's axes and units.
#[derive(Clone, Copy, Debug)]
pub struct Pose<'a> {
    /// Who: any number that stays the same for a body.
    pub body: u64,
    /// When, in nanoseconds from any zero; later than the body's frame before.
    pub time_ns: u64,
    /// [V, C]; a joint that is not finite was not seen.
    pub joints: &'a [f32],
    /// `[V]`: 0 = not seen. `None`: every finite joint was.
    pub valid: Option<&'a [u8]>,
    /// `[V]`, compared with [`StreamOptions::min_confidence`]. `None`: not known.
    pub confidence: Option<&'a [f32]>,
}

/// What caller and worker share.
#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    /// Something came in, or the worker has to end.
    filled: Condvar,
    outbox: Mutex<Outbox>,
    /// Everything that came in has been worked on.
    idle: Condvar,
    engine: Mutex<Engine>,
    stop: AtomicBool,
    /// Raised when the stream is dropped, so that the worker does not finish its pass.
    cancel: CancelToken,
}

/// A stream of skeletons. Belongs to one thread at a time and keeps its model alive. A call that failed leaves it usable, and other bodies untouched.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
    model: Arc<Model>,
    conversion: Conversion,
    /// Events after which a poll empties the outbox before it goes on, so that none is dropped while the caller has room.
    at_a_time: usize,
}

/// A poisoned lock: the worker panicked while it held it.
fn failed() -> Error {
    Error::WorkerFailed { detail: "it ended with an internal error".into() }
}

impl Shared {
    fn inbox(&self) -> Result<MutexGuard<'_, Inbox>> {
        self.inbox.lock().map_err(|_| failed())
    }

    fn outbox(&self) -> Result<MutexGuard<'_, Outbox>> {
        self.outbox.lock().map_err(|_| failed())
    }

    fn engine(&self) -> Result<MutexGuard<'_, Engine>> {
        self.engine.lock().map_err(|_| failed())
    }

    /// The worker's life.
    fn work(&self) {
        let control = Control { cancel: Some(self.cancel.clone()), deadline: None };
        loop {
            {
                let Ok(mut inbox) = self.inbox.lock() else { return };
                while inbox.is_empty() && !self.stop.load(Ordering::Acquire) {
                    self.idle.notify_all();
                    match self.filled.wait(inbox) {
                        Ok(guard) => inbox = guard,
                        Err(_) => return,
                    }
                }
            }
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let Ok(mut engine) = self.engine.lock() else { return };
            if let Err(error) = engine.run(&self.inbox, &self.outbox, usize::MAX, &control) {
                let Ok(mut outbox) = self.outbox.lock() else { return };
                outbox.fail(error);
            }
        }
    }
}

impl Stream {
    /// Takes the memory of the largest update, the KV cache above all, runs the prompt's fixed prefix, and starts the worker if one is asked for.
    /// `axes`: those of the caller's joints.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] and [`Error::Limit`] for options out of range; [`Error::UnknownLayout`]; [`Error::InvalidArgument`] for a layout that
    /// lacks a joint by which the model places a body, and for one that can show none of the labels; those of memory and device.
    pub fn new(model: Arc<Model>, options: StreamOptions, axes: Axes) -> Result<Self> {
        options.check()?;
        let conversion = axes.conversion(model.metadata().preprocess.coords)?;
        let engine = Engine::new(Arc::clone(&model), &options)?;
        let inbox = Inbox::new(&options, engine.joints(), model.metadata().preprocess.coords);
        let shared = Arc::new(Shared {
            inbox: Mutex::new(inbox),
            filled: Condvar::new(),
            outbox: Mutex::new(Outbox::new(options.queued_events)),
            idle: Condvar::new(),
            engine: Mutex::new(engine),
            stop: AtomicBool::new(false),
            cancel: CancelToken::default(),
        });
        let worker = if options.worker {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("llmar-stream".into()).spawn(move || shared.work());
            Some(thread.map_err(|e| Error::argument("worker", "a thread that the system can start", e))?)
        } else {
            None
        };
        // An update tells at most that an action has ended and another begun, and the decision; and a body may be forgotten.
        let at_a_time = options.queued_events.saturating_sub(4 * options.max_bodies).max(1);
        Ok(Self { shared, worker, model, conversion, at_a_time })
    }

    /// The model it was made from.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Takes a frame. Never waits for an update.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::BackwardTime`], [`Error::DuplicateTime`], [`Error::FutureTime`], [`Error::BodyLimit`], [`Error::QueueFull`]: the
    /// frame is refused, and nothing else changes.
    pub fn push(&mut self, pose: &Pose<'_>) -> Result<()> {
        let taken = self.shared.inbox()?.push(pose, |joints| self.conversion.convert(joints));
        self.shared.outbox()?.count_frame(taken.is_ok());
        if taken.is_ok() && self.worker.is_some() {
            self.shared.filled.notify_one();
        }
        taken
    }

    /// Says that it is `time_ns` now, also when nobody is seen: bodies that were not seen for [`StreamOptions::forget_after`] are forgotten.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a time before the newest frame.
    pub fn advance(&mut self, time_ns: u64) -> Result<()> {
        self.shared.inbox()?.advance(time_ns)?;
        self.shared.filled.notify_one();
        Ok(())
    }

    /// Forgets a body: an action of it ends, and its place is free.
    ///
    /// # Errors
    /// [`Error::UnknownBody`]; [`Error::QueueFull`].
    pub fn remove_body(&mut self, body: u64) -> Result<()> {
        self.shared.inbox()?.remove(body)?;
        self.shared.filled.notify_one();
        Ok(())
    }

    /// Asks for the decisions that are not due yet and ends the actions that go on: the end of the input. They come with the next polls.
    ///
    /// # Errors
    /// [`Error::QueueFull`].
    pub fn flush(&mut self) -> Result<()> {
        self.shared.inbox()?.flush()?;
        self.shared.filled.notify_one();
        Ok(())
    }

    /// Events, oldest first, as many as there are or fit into `out`; returns their number. Without a worker this makes the updates that are due;
    /// 0 then means that nothing waits any more. With one it only takes what is there.
    ///
    /// # Errors
    /// [`Error::Cancelled`] and [`Error::DeadlineExceeded`] by `control`, and those of memory and device. No event is lost: the next poll goes on.
    pub fn poll(&mut self, control: &Control, out: &mut [Event]) -> Result<usize> {
        let mut done = 0;
        loop {
            if self.worker.is_none() {
                let enough = (out.len() - done).min(self.at_a_time);
                let ran = self.shared.engine()?.run(&self.shared.inbox, &self.shared.outbox, enough, control);
                match ran {
                    Err(error) if done == 0 => return Err(error),
                    // What was taken is the caller's. That the call was to stop is no news for the next one; anything else is.
                    Err(Error::Cancelled | Error::DeadlineExceeded) => return Ok(done),
                    Err(error) => {
                        self.shared.outbox()?.fail(error);
                        return Ok(done);
                    }
                    Ok(()) => {}
                }
            }
            let got = self.shared.outbox()?.take(&mut out[done..])?;
            done += got;
            if self.worker.is_some() || got == 0 || done == out.len() {
                return Ok(done);
            }
        }
    }

    /// With a worker: waits until everything that was pushed has been worked on, or `control` ends it. Without one it does nothing.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::DeadlineExceeded`], [`Error::WorkerFailed`].
    pub fn wait(&mut self, control: &Control) -> Result<()> {
        let Some(worker) = &self.worker else { return Ok(()) };
        loop {
            let inbox = self.shared.inbox()?;
            let done = inbox.is_empty();
            if !done {
                let step = std::time::Duration::from_millis(5);
                drop(self.shared.idle.wait_timeout(inbox, step).map_err(|_| failed())?);
            } else {
                drop(inbox);
                // What was taken last may still be worked on.
                drop(self.shared.engine()?);
                return Ok(());
            }
            if worker.is_finished() {
                return Err(failed());
            }
            control.check()?;
        }
    }

    /// Forgets all bodies, frames and events; labels, settings and statistics stay.
    ///
    /// # Errors
    /// [`Error::WorkerFailed`]; those of the device.
    pub fn reset(&mut self) -> Result<()> {
        self.shared.inbox()?.clear();
        self.shared.engine()?.reset()?;
        self.shared.outbox()?.clear();
        Ok(())
    }

    /// Names of the labels.
    ///
    /// # Errors
    /// [`Error::WorkerFailed`].
    pub fn labels(&self) -> Result<Vec<String>> {
        Ok(self.shared.engine()?.labels().question.names.clone())
    }

    /// Whether each label may be named.
    ///
    /// # Errors
    /// [`Error::WorkerFailed`].
    pub fn label_states(&self) -> Result<Vec<LabelState>> {
        Ok(self.shared.engine()?.labels().states.clone())
    }

    /// Replaces the labels, as [`Recognizer::set_labels`](super::Recognizer::set_labels); an empty list goes back to the model's own. Actions that
    /// go on are dropped without an event. On `Err` the previous list stays.
    pub fn set_labels(&mut self, labels: &[&str]) -> Result<()> {
        self.shared.engine()?.set_labels(labels)
    }

    /// Names only labels for which `allowed` (by index) says so. On `Err`, as when none is left, the previous filter stays.
    pub fn filter_labels(&mut self, allowed: impl Fn(usize) -> bool) -> Result<()> {
        self.shared.engine()?.filter_labels(allowed)
    }

    /// Counters and latencies.
    ///
    /// # Errors
    /// [`Error::WorkerFailed`].
    pub fn stats(&self) -> Result<StreamStats> {
        let (bodies, queued_frames) = {
            let inbox = self.shared.inbox()?;
            (inbox.bodies() as u64, inbox.frames() as u64)
        };
        Ok(StreamStats { bodies, queued_frames, ..self.shared.outbox()?.stats() })
    }

    /// Begins counters and latencies anew.
    ///
    /// # Errors
    /// [`Error::WorkerFailed`].
    pub fn reset_stats(&mut self) -> Result<()> {
        self.shared.outbox()?.reset_stats();
        Ok(())
    }

    /// Everything known of all bodies, to go on later or elsewhere. Waits for the worker, if there is one.
    ///
    /// # Errors
    /// [`Error::QueueFull`] while frames wait that nobody has polled for.
    pub fn save(&mut self) -> Result<Vec<u8>> {
        self.wait(&Control::default())?;
        let engine = self.shared.engine()?;
        let inbox = self.shared.inbox()?;
        if !inbox.is_empty() {
            return Err(Error::QueueFull { limit: inbox.frames() });
        }
        Ok(state::save(&engine, &inbox))
    }

    /// Goes on from a saved state; what the stream knew before is forgotten, events that wait stay.
    ///
    /// # Errors
    /// [`Error::ForeignState`] for another model, layout, label list or number of places; [`Error::Format`] for damaged bytes: the stream is then as
    /// it was. Those of the device, after which it is as after [`reset`](Self::reset).
    pub fn load(&mut self, bytes: &[u8]) -> Result<()> {
        self.wait(&Control::default())?;
        let mut engine = self.shared.engine()?;
        let mut inbox = self.shared.inbox()?;
        state::load(bytes, &mut engine, &mut inbox)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.cancel.request();
        // The lock orders the flag before the worker's wait.
        drop(self.shared.inbox.lock());
        self.shared.filled.notify_all();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
