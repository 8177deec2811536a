//! The CPU backend: kernels over sixteen lanes, an instruction set chosen once at run time, and a fixed number of threads.

mod activations;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod convolution;
mod elementwise;
mod lanes;
mod linear;
mod nearest;
#[cfg(target_arch = "aarch64")]
mod neon;
mod parts;
mod peak;
mod pool;
mod rope;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::memory::Budget;
use lanes::{Kernel, Portable};
#[cfg(feature = "cuda")]
pub(super) use rope::rotation;

/// Instruction sets with kernels of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, any machine.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL and VNNI.
    Avx512,
    /// aarch64 with NEON; the dot product instructions are used where the machine has them.
    Neon,
}

impl Isa {
    /// Every instruction set, the fastest last.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::is_available(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::is_available(),
            _ => false,
        }
    }

    /// The fastest that this machine has.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }
}

/// Most threads that a device may have.
const MAX_THREADS: usize = 256;

/// The CPU with a fixed instruction set and number of threads.
#[derive(Debug)]
pub struct Cpu {
    /// Available on this machine: checked on construction, which is what makes [`Cpu::run`] sound.
    isa: Isa,
    threads: usize,
    /// Workers; none when everything runs on the calling thread.
    pool: Option<pool::Pool>,
    /// Buffers that are not in use. A list, because several callers may share one device.
    scratch: Mutex<Vec<Scratch>>,
    rope: rope::Tables,
    /// What buffers made for this device are counted against.
    budget: Arc<Budget>,
}

/// Buffers of one running op.
#[derive(Debug, Default)]
struct Scratch {
    linear: linear::Scratch,
    /// Input of a convolution, taps side by side; features on their way to points.
    taps: Vec<f32>,
    /// Attention scores, scores of codes, normalisers of a softmax.
    scores: Vec<f32>,
    /// Points whose nearest codes are looked for.
    points: Vec<f64>,
    /// What is known of the distance of each code.
    intervals: Vec<(f64, f64)>,
}

impl Cpu {
    /// The fastest instruction set of this machine and `threads` threads, 1 to 256. With one, everything runs on the calling thread.
    pub fn new(threads: usize) -> Result<Self> {
        Self::with_isa(Isa::best(), threads)
    }

    /// As [`Cpu::new`] with a given instruction set, for tests and measurements. `Err` when this machine lacks it.
    #[doc(hidden)]
    pub fn with_isa(isa: Isa, threads: usize) -> Result<Self> {
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Error::argument("threads", format!("1 to {MAX_THREADS}"), threads));
        }
        if !isa.is_available() {
            return Err(Error::argument("instruction set", "one that this machine has", format!("{isa:?}")));
        }
        let pool = if threads == 1 {
            None
        } else {
            let pool = pool::Pool::new(threads - 1);
            Some(pool.map_err(|e| Error::argument("threads", "workers that the system can start", e))?)
        };
        Ok(Self { isa, threads, pool, scratch: Mutex::default(), rope: rope::Tables::default(), budget: Budget::new(0) })
    }

    /// The instruction set of its kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that an op may use, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Counts the buffers of this device against `budget`.
    pub(super) fn with_budget(mut self, budget: Arc<Budget>) -> Self {
        self.budget = budget;
        self
    }

    /// See [`Device::budget`](crate::device::Device::budget).
    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Runs a kernel on this machine's lanes.
    #[inline]
    fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        match self.isa {
            // SAFETY: `with_isa` has checked that the machine has the instructions.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { neon::run(kernel) },
            _ => kernel.run(Portable),
        }
    }

    /// Calls `f` with every number below `parts`, on as many threads as there are.
    fn split(&self, parts: usize, f: impl Fn(usize) + Sync) {
        match &self.pool {
            Some(pool) if parts > 1 => pool.run(parts, &f),
            _ => (0..parts).for_each(f),
        }
    }

    /// Buffers for one op; [`Cpu::put_back`] keeps them for the next.
    fn scratch(&self) -> Scratch {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn put_back(&self, scratch: Scratch) {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}
