//! Worker threads that share the parts of one op.
//!
//! A pass of a small LLaMA is some 200 ops of 20 to 200 µs, so what counts is how fast workers start. They spin for a moment after an op
//! and then sleep. An op never waits for a worker that has not started: what it would have done, the others do.
//!
//! Why not rayon: the products of one pass of SmolLM2-135M with 40 tokens, two threads, took 15.9 ms (q4) and 47.6 ms (f16) on a rayon pool
//! entered once a pass, and 13.2 and 43.0 ms on this one.

use std::cell::UnsafeCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle worker spins before it sleeps: longer than the single-threaded stretches between the ops of a pass.
const SPIN: Duration = Duration::from_micros(100);

/// Workers that end with the pool.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose job is running. A second caller does its work alone meanwhile.
    running: Mutex<()>,
}

/// A closure that takes the number of a part, without its type.
#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), usize),
    data: *const (),
    parts: usize,
}

#[derive(Debug)]
struct Shared {
    /// Ticket of the latest job (upper half), whether workers may still enter it ([`OPEN`]), and how many have (lower bits).
    gate: AtomicU64,
    /// Workers that have left the latest job.
    left: AtomicU64,
    /// Next part that nobody has taken.
    next: AtomicUsize,
    job: UnsafeCell<Job>,
    panicked: AtomicBool,
    stop: AtomicBool,
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

const TICKET: u64 = 1 << 32;
const OPEN: u64 = 1 << 31;

// SAFETY: `job` is written only while the gate is closed and everyone who entered has left, and read only by those who have entered;
// the gate's release and acquire order the two. The closure behind `data` is `Sync` (see `Pool::run`).
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts `workers` threads.
    pub fn new(workers: usize) -> io::Result<Self> {
        unsafe fn nothing(_: *const (), _: usize) {}
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            left: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { call: nothing, data: std::ptr::null(), parts: 0 }),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(workers), running: Mutex::new(()) };
        for i in 0..workers {
            let shared = Arc::clone(&pool.shared);
            // On failure, dropping the pool ends those that have started.
            pool.workers.push(std::thread::Builder::new().name(format!("llmar-{i}")).spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// Calls `f` once with every number below `parts`, here and on the workers, and returns when all calls have. Parts are taken in order.
    pub fn run<F: Fn(usize) + Sync>(&self, parts: usize, f: &F) {
        unsafe fn call<F: Fn(usize) + Sync>(data: *const (), part: usize) {
            // SAFETY: `data` is the `&F` of the `run` that published the job, which has not returned.
            let f = unsafe { &*data.cast::<F>() };
            f(part);
        }
        let _running = match self.running.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return (0..parts).for_each(f),
        };
        let shared = &*self.shared;
        // SAFETY: the last job is over: its gate is closed and everyone has left it, and `running` keeps other callers out.
        unsafe { *shared.job.get() = Job { call: call::<F>, data: (&raw const *f).cast(), parts } };
        shared.next.store(0, Relaxed);
        shared.left.store(0, Relaxed);
        let ticket = (shared.gate.load(Relaxed) & !(TICKET - 1)).wrapping_add(TICKET);
        shared.gate.store(ticket | OPEN, SeqCst);
        if shared.asleep.load(SeqCst) > 0 {
            drop(shared.sleep.lock());
            shared.wake.notify_all();
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| shared.take_parts(parts, f)));
        let entered = shared.gate.fetch_and(!OPEN, AcqRel) & (OPEN - 1);
        let mut spins = 0u32;
        while shared.left.load(Acquire) != entered {
            spins += 1;
            // A worker that was interrupted may need this core.
            if spins.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Relaxed), "a worker panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        drop(self.shared.sleep.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so it has none of its own to report.
            drop(worker.join());
        }
    }
}

impl Shared {
    fn take_parts(&self, parts: usize, f: impl Fn(usize)) {
        loop {
            let part = self.next.fetch_add(1, Relaxed);
            if part >= parts {
                return;
            }
            f(part);
        }
    }

    /// A worker's life.
    fn work(&self) {
        let mut seen = 0;
        while let Some(gate) = self.wait_for_other_than(seen) {
            seen = gate & !(TICKET - 1);
            if !self.enter(seen) {
                continue;
            }
            // SAFETY: this worker has entered, so the job stays as it is until it leaves.
            let job = unsafe { *self.job.get() };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: the caller that published the job waits for this worker to leave.
                self.take_parts(job.parts, |part| unsafe { (job.call)(job.data, part) });
            }));
            if outcome.is_err() {
                self.panicked.store(true, Relaxed);
            }
            self.left.fetch_add(1, Release);
        }
    }

    /// Enters the job of a ticket if it is still open.
    fn enter(&self, ticket: u64) -> bool {
        let entering = |gate: u64| (gate & !(TICKET - 1) == ticket && gate & OPEN != 0).then_some(gate + 1);
        self.gate.fetch_update(Acquire, Relaxed, entering).is_ok()
    }

    /// The gate once its ticket is another than `seen`; `None` when the pool ends.
    fn wait_for_other_than(&self, seen: u64) -> Option<u64> {
        let changed = || {
            let gate = self.gate.load(SeqCst);
            (gate & !(TICKET - 1) != seen).then_some(gate)
        };
        let begin = Instant::now();
        loop {
            for _ in 0..64 {
                if let Some(gate) = changed() {
                    return Some(gate);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(SeqCst) {
                return None;
            }
            if begin.elapsed() > SPIN {
                break;
            }
        }
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        // Announced before the last look, as the caller looks here after it has opened the gate: one of the two sees the other.
        self.asleep.fetch_add(1, SeqCst);
        let gate = loop {
            if let Some(gate) = changed() {
                break Some(gate);
            }
            if self.stop.load(SeqCst) {
                break None;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.asleep.fetch_sub(1, SeqCst);
        gate
    }
}
