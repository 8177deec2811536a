//! Memory of a GPU: counted against the model's budget, freed when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DriverError, result, sys};

use super::{Cuda, Gpu};
use crate::device::{Buffer, GROUP};
use crate::error::{Error, Result};
use crate::memory::Lease;

/// Every allocation is a multiple of this; the driver aligns their starts to it.
const ALIGNMENT: usize = 256;

/// A stream, and how often memory was allocated on it: a recorded pass holds pointers, and is made anew when one may have changed.
#[derive(Debug)]
pub(super) struct Stream {
    pub cuda: Arc<CudaStream>,
    pub allocations: AtomicU64,
}

/// Bytes on a GPU. They grow; what they hold is then lost.
#[derive(Debug)]
pub struct Memory {
    gpu: Arc<Gpu>,
    stream: Arc<Stream>,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    slice: CudaSlice<u8>,
    pointer: u64,
    _lease: Lease,
}

impl Memory {
    /// No memory yet.
    pub(super) fn empty(gpu: &Arc<Gpu>, stream: &Arc<Stream>) -> Self {
        Self { gpu: Arc::clone(gpu), stream: Arc::clone(stream), held: None }
    }

    /// Bytes that it holds.
    pub fn len(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.slice.len())
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// Address on the GPU; 0 while it holds nothing.
    pub(in crate::device) fn pointer(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.pointer)
    }

    /// Makes it at least `bytes` long. What it holds is lost where it grows; on `Err` it stays as it was.
    pub(super) fn reserve(&mut self, what: &'static str, bytes: usize) -> Result<()> {
        if bytes > self.len() {
            self.held = Some(self.allocate(what, bytes)?);
        }
        Ok(())
    }

    /// Makes it at least `bytes` long and keeps what it holds.
    fn grow(&mut self, what: &'static str, bytes: usize) -> Result<()> {
        if bytes > self.len() {
            let new = self.allocate(what, bytes)?;
            let mut grown = Self { gpu: Arc::clone(&self.gpu), stream: Arc::clone(&self.stream), held: Some(new) };
            grown.copy_from(what, self, self.len())?;
            *self = grown;
        }
        Ok(())
    }

    fn allocate(&self, what: &'static str, bytes: usize) -> Result<Held> {
        let no_memory = |_| Error::OutOfMemory { what, bytes: bytes as u64 };
        let padded = bytes.checked_next_multiple_of(ALIGNMENT).ok_or_else(|| no_memory(()))?;
        let lease = self.gpu.budget().take(what, padded as u64)?;
        // SAFETY: no kernel reads a byte that nothing has written: each op's documentation says what it needs.
        let slice = unsafe { self.stream.cuda.alloc::<u8>(padded) };
        let slice = match slice {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => return Err(no_memory(())),
            other => self.gpu.check(what, other)?,
        };
        let pointer = slice.device_ptr(&self.stream.cuda).0;
        self.stream.allocations.fetch_add(1, Ordering::Relaxed);
        Ok(Held { slice, pointer, _lease: lease })
    }

    /// Copies `bytes` to `offset` behind its start. They fit: the caller has reserved them.
    pub(super) fn write_at(&mut self, what: &'static str, offset: usize, bytes: &[u8]) -> Result<()> {
        self.in_range(what, offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.gpu.check(what, self.gpu.context().bind_to_thread())?;
        // SAFETY: the range was checked; the driver has copied pageable memory before the call returns.
        let copied = unsafe { result::memcpy_htod_async(self.pointer() + offset as u64, bytes, self.stream.cuda.cu_stream()) };
        self.gpu.check(what, copied)
    }

    /// Reads the bytes at its start, after all work of its stream is done.
    pub(super) fn read_at(&self, what: &'static str, offset: usize, out: &mut [u8]) -> Result<()> {
        self.in_range(what, offset, out.len())?;
        if !out.is_empty() {
            self.gpu.check(what, self.gpu.context().bind_to_thread())?;
            // SAFETY: the range was checked, and the copy is waited for.
            let copied = unsafe { result::memcpy_dtoh_async(out, self.pointer() + offset as u64, self.stream.cuda.cu_stream()) };
            self.gpu.check(what, copied)?;
        }
        self.gpu.check(what, self.stream.cuda.synchronize())
    }

    /// Copies the first `bytes` of other memory on the same stream.
    pub(super) fn copy_from(&mut self, what: &'static str, from: &Self, bytes: usize) -> Result<()> {
        self.copy_range(what, 0, (from, 0), bytes)
    }

    /// Copies `bytes` at offset `from_at` of other memory on the same stream to offset `at`.
    fn copy_range(&mut self, what: &'static str, at: usize, (from, from_at): (&Self, usize), bytes: usize) -> Result<()> {
        self.in_range(what, at, bytes)?;
        from.in_range(what, from_at, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        self.gpu.check(what, self.gpu.context().bind_to_thread())?;
        let (to, from) = (self.pointer() + at as u64, from.pointer() + from_at as u64);
        // SAFETY: both ranges were checked, and they are of different memory.
        self.gpu.check(what, unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cuda.cu_stream()) })
    }

    /// Fills its first `bytes` with zeros.
    pub(super) fn clear(&mut self, what: &'static str, bytes: usize) -> Result<()> {
        self.in_range(what, 0, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        self.gpu.check(what, self.gpu.context().bind_to_thread())?;
        // SAFETY: the range was checked.
        self.gpu.check(what, unsafe { result::memset_d8_async(self.pointer(), 0, bytes, self.stream.cuda.cu_stream()) })
    }

    fn in_range(&self, what: &'static str, offset: usize, bytes: usize) -> Result<()> {
        if offset.checked_add(bytes).is_some_and(|end| end <= self.len()) {
            return Ok(());
        }
        Err(Error::Shape { what: what.into(), expected: vec![offset, bytes], got: vec![self.len()] })
    }
}

/// Activations as the products read them: halves [n, 32 G], and for few rows 8-bit groups with their scales.
#[derive(Debug)]
pub struct Operand {
    /// f16 [n, 32 G]
    pub(super) half: Memory,
    /// i8 [n, G, 32]
    pub(super) quants: Memory,
    /// f32 [n, G, 2]: scale, scale · Σq
    pub(super) scales: Memory,
}

/// Keys and values of a layer, f16 [slots, width] each.
#[derive(Debug)]
pub struct KvLayer {
    pub(in crate::device) keys: Memory,
    pub(super) values: Memory,
}

impl Cuda {
    /// Memory of this stream without room.
    pub(in crate::device) fn memory(&self) -> Memory {
        Memory::empty(&self.gpu, &self.stream)
    }

    pub(in crate::device) fn operand(&self) -> Operand {
        Operand { half: self.memory(), quants: self.memory(), scales: self.memory() }
    }

    pub(in crate::device) fn kv_layer(&self) -> KvLayer {
        KvLayer { keys: self.memory(), values: self.memory() }
    }

    pub(in crate::device) fn reserve(&self, what: &'static str, memory: &mut Memory, bytes: usize) -> Result<()> {
        memory.reserve(what, bytes)
    }

    /// Few rows are kept in both forms, because the scheme of the matrix that reads them decides.
    pub(in crate::device) fn reserve_operand(&self, what: &'static str, operand: &mut Operand, n: usize, columns: usize) -> Result<()> {
        let groups = columns.div_ceil(GROUP);
        let few = n.min(super::FEW_ROWS);
        operand.half.reserve(what, n.saturating_mul(groups * GROUP * 2))?;
        operand.quants.reserve(what, few * groups * GROUP)?;
        operand.scales.reserve(what, few * groups * 8)
    }

    pub(in crate::device) fn reserve_kv(&self, what: &'static str, layer: &mut KvLayer, slots: usize, width: usize) -> Result<()> {
        let bytes = slots.saturating_mul(width).saturating_mul(2);
        layer.keys.grow(what, bytes)?;
        layer.values.grow(what, bytes)
    }

    pub(in crate::device) fn write(&self, buffer: &mut Buffer, values: &[f32]) -> Result<()> {
        pointer_of_mut(buffer)?.write_at("copying to the GPU", 0, bytemuck::cast_slice(values))
    }

    /// `from` and `to` are different buffers, which their borrows say.
    pub(in crate::device) fn copy_between(
        &self,
        (from, from_at): (&Buffer, usize),
        (to, to_at): (&mut Buffer, usize),
        len: usize,
    ) -> Result<()> {
        let bytes = |values: usize| values * size_of::<f32>();
        pointer_of_mut(to)?.copy_range("copying on the GPU", bytes(to_at), (memory_of(from)?, bytes(from_at)), bytes(len))
    }

    pub(in crate::device) fn zero(&self, buffer: &mut Buffer, len: usize) -> Result<()> {
        pointer_of_mut(buffer)?.clear("clearing GPU memory", len * size_of::<f32>())
    }

    pub(in crate::device) fn read(&self, buffer: &Buffer, out: &mut [f32]) -> Result<()> {
        memory_of(buffer)?.read_at("copying from the GPU", 0, bytemuck::cast_slice_mut(out))
    }
}

/// The memory of a buffer on a GPU.
pub(super) fn memory_of(buffer: &Buffer) -> Result<&Memory> {
    match buffer {
        Buffer::Cuda(memory) => Ok(memory),
        Buffer::Host(_) => Err(crate::device::storage::elsewhere("buffer")),
    }
}

/// The same, to be changed.
fn pointer_of_mut(buffer: &mut Buffer) -> Result<&mut Memory> {
    match buffer {
        Buffer::Cuda(memory) => Ok(memory),
        Buffer::Host(_) => Err(crate::device::storage::elsewhere("buffer")),
    }
}

/// The parts of an operand on a GPU.
pub(super) fn operand_of(operand: &crate::device::Operand) -> Result<&Operand> {
    match operand {
        crate::device::Operand::Cuda(operand) => Ok(operand),
        crate::device::Operand::Host(_) => Err(crate::device::storage::elsewhere("operand")),
    }
}
