//! Launching a kernel: arguments by name of their type, shapes in one struct.

use std::ffi::c_void;

use cudarc::driver::result;

use super::{Cuda, Memory, Operand};
use crate::error::Result;

/// One argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg {
    /// An address on the GPU; 0 is NULL.
    Pointer(u64),
    Int(i32),
    Float(f32),
    /// A `size_t`.
    Size(u64),
    /// `struct Operand` of common.cuh, by value.
    Operand([u64; 3]),
}

/// Blocks, threads of a block, dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub grid: (u32, u32, u32),
    pub block: u32,
    /// Bytes.
    pub shared: usize,
}

impl Shape {
    /// A row of blocks without dynamic shared memory.
    pub fn new(blocks: usize, threads: u32) -> Self {
        Self { grid: (blocks as u32, 1, 1), block: threads, shared: 0 }
    }
}

impl From<&Memory> for Arg {
    fn from(memory: &Memory) -> Self {
        Self::Pointer(memory.pointer())
    }
}

impl From<usize> for Arg {
    /// Counts of rows, columns and the like: all far below 2^31, by the limits of a model's configuration.
    fn from(count: usize) -> Self {
        Self::Int(count as i32)
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl Operand {
    /// Both forms for few rows, halves alone for more.
    pub(super) fn arg(&self, n: usize) -> Arg {
        if n <= super::FEW_ROWS {
            Arg::Operand([self.half.pointer(), self.quants.pointer(), self.scales.pointer()])
        } else {
            Arg::Operand([self.half.pointer(), 0, 0])
        }
    }
}

impl Cuda {
    /// Puts a kernel on the stream; nothing where the grid is empty.
    pub(super) fn launch(&self, name: &'static str, shape: Shape, args: &[Arg]) -> Result<()> {
        let (x, y, z) = shape.grid;
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        let function = self.gpu.function(name)?;
        let mut pointers: Vec<*mut c_void> = args
            .iter()
            .map(|arg| match arg {
                Arg::Pointer(v) | Arg::Size(v) => std::ptr::from_ref(v).cast_mut().cast(),
                Arg::Int(v) => std::ptr::from_ref(v).cast_mut().cast(),
                Arg::Float(v) => std::ptr::from_ref(v).cast_mut().cast(),
                Arg::Operand(v) => std::ptr::from_ref(v).cast_mut().cast(),
            })
            .collect();
        self.gpu.check(name, self.gpu.context().bind_to_thread())?;
        // SAFETY: `args` are the kernel's parameters in its order: each kernel is launched by one function, whose tests run it against the reference
        // with a guard page behind every buffer. The driver copies them before the call returns.
        let launched = unsafe {
            result::launch_kernel(
                function.cu_function(),
                shape.grid,
                (shape.block, 1, 1),
                shape.shared as u32,
                self.stream.cuda.cu_stream(),
                &mut pointers,
            )
        };
        self.gpu.check(name, launched)
    }
}
