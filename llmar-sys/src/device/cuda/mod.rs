//! The CUDA backend: one GPU of a model, a stream for each recogniser, hand-written kernels (`llmar-sys/kernels`).
//!
//! Everything of CUDA is found at run time. Ops put work on the stream and return; results are waited for where they are read. What went wrong
//! in between comes out there, or in [`Device::synchronize`](super::Device::synchronize).

mod gpu;
mod graphs;
mod kernels;
mod launch;
mod lt;
mod measure;
mod memory;
mod ops;
mod place;
mod products;
mod rows;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use gpu::Gpu;
pub use graphs::Graphs;
pub use lt::Lt;
pub use memory::{KvLayer, Memory, Operand};
pub use place::{Codebook, Matrix, MatrixForm};
pub use products::{FEW_ROWS, GemmChoice, SKINNY_ROWS};
pub use rows::StagedRows;

use crate::error::Result;
use crate::memory::Budget;

/// The device of one recogniser: a stream of a GPU with buffers of its own.
#[derive(Debug)]
pub struct Cuda {
    gpu: Arc<Gpu>,
    stream: Arc<memory::Stream>,
    scratch: Mutex<Box<Scratch>>,
}

/// Buffers of the ops themselves.
#[derive(Debug)]
struct Scratch {
    /// Lists that an op sends to the GPU: ids, rows, tokens.
    lists: Memory,
    /// Results on their way back.
    results: Memory,
    /// Partial results of attention split over keys.
    partials: Memory,
    /// A matrix unpacked to halves for cuBLASLt, and its workspace.
    unpacked: Memory,
    workspace: Memory,
}

impl Cuda {
    /// A stream of `gpu`.
    pub fn new(gpu: Arc<Gpu>) -> Result<Self> {
        let stream = Arc::new(memory::Stream { cuda: gpu.stream()?, allocations: AtomicU64::new(0) });
        let empty = || Memory::empty(&gpu, &stream);
        let scratch = Scratch { lists: empty(), results: empty(), partials: empty(), unpacked: empty(), workspace: empty() };
        Ok(Self { scratch: Mutex::new(Box::new(scratch)), gpu, stream })
    }

    /// Its GPU.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        self.gpu.budget()
    }

    /// See [`Device::synchronize`](super::Device::synchronize).
    pub(super) fn synchronize(&self) -> Result<()> {
        self.gpu.check("synchronise", self.stream.cuda.synchronize())
    }

    fn scratch(&self) -> MutexGuard<'_, Box<Scratch>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
