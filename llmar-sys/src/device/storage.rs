//! Where a device keeps what the ops read and write. Each type has one form a backend; the ops ask for the form of theirs.

#[cfg(feature = "cuda")]
use std::sync::Arc;

use super::Rows;
#[cfg(feature = "cuda")]
use super::cuda;
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::memory::HostBuffer;

/// f32 values that ops write and read: the residual stream, logits, activations of the encoder.
#[derive(Debug)]
pub enum Buffer {
    /// In main memory.
    Host(HostBuffer),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Memory),
}

/// Activations [n, columns] as a matrix product reads them: f32 on the CPU; halves, 8-bit groups or both on a GPU, as its kernels want them.
#[derive(Debug)]
pub enum Operand {
    /// f32 [n, columns]
    Host(HostBuffer),
    /// See `kernels/common.cuh`.
    #[cfg(feature = "cuda")]
    Cuda(Box<cuda::Operand>),
}

/// Keys (after RoPE) and values of one layer, [slots, kv_heads · head_dim] each: f32 on the CPU, f16 on a GPU.
#[derive(Debug)]
pub enum KvLayer {
    /// f32
    Host {
        /// [slots, kv_heads · head_dim]
        keys: HostBuffer,
        /// [slots, kv_heads · head_dim]
        values: HostBuffer,
    },
    /// f16
    #[cfg(feature = "cuda")]
    Cuda(cuda::KvLayer),
}

/// Numbers of a model, f32: norm weights, biases, embeddings of codes. They stay where the checkpoint lies; a GPU has its own copy.
#[derive(Clone, Debug)]
pub struct Vector {
    host: Bytes,
    #[cfg(feature = "cuda")]
    pub(super) cuda: Option<Arc<cuda::Memory>>,
}

/// Rotary embedding of a model: rotations by text position. The CPU computes them when they are first needed; a GPU has a table.
#[derive(Clone, Debug)]
pub struct Rotations {
    /// Base of the angles.
    pub theta: f32,
    /// Features a head; even.
    pub head_dim: usize,
    /// Text positions that come are below this.
    pub positions: usize,
    /// (cos, sin) f32 [positions, head_dim / 2]
    #[cfg(feature = "cuda")]
    pub(super) cuda: Option<Arc<cuda::Memory>>,
}

/// Memory for the rows of a pass, kept between passes.
#[derive(Debug)]
pub enum Staging {
    /// The CPU reads [`Rows`] where they are.
    Host,
    /// Their copy on a GPU.
    #[cfg(feature = "cuda")]
    Cuda(Box<cuda::StagedRows>),
}

/// The rows of one pass, where the ops read them.
#[derive(Clone, Copy, Debug)]
pub enum Pass<'a> {
    /// For the CPU.
    Host(&'a Rows),
    /// For a GPU.
    #[cfg(feature = "cuda")]
    Cuda(&'a cuda::StagedRows),
}

/// Passes that were recorded to be run again. Nothing on the CPU.
#[derive(Debug)]
pub enum Recorded {
    /// The CPU records nothing.
    Host,
    /// CUDA graphs by number of rows.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Graphs),
}

/// A piece of memory of another device than the op runs on: never happens unless a program mixes devices.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "without CUDA there is one device"))]
pub(super) fn elsewhere(what: &'static str) -> Error {
    Error::argument(what, "memory of the device that runs the op", "another device's")
}

impl Buffer {
    /// Values in main memory.
    pub(super) fn host(&self) -> Result<&[f32]> {
        match self {
            Self::Host(buffer) => Ok(buffer.values()),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Err(elsewhere("buffer")),
        }
    }

    /// Values in main memory, to be changed.
    pub(super) fn host_mut(&mut self) -> Result<&mut [f32]> {
        match self {
            Self::Host(buffer) => Ok(buffer.values_mut()),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Err(elsewhere("buffer")),
        }
    }

    /// Where it lies, to tell whether a recorded pass is of this buffer.
    pub(crate) fn address(&self) -> usize {
        match self {
            Self::Host(buffer) => buffer.values().as_ptr() as usize,
            #[cfg(feature = "cuda")]
            Self::Cuda(memory) => memory.pointer() as usize,
        }
    }

    /// f32 values that it has room for.
    pub fn capacity(&self) -> usize {
        match self {
            Self::Host(buffer) => buffer.values().len(),
            #[cfg(feature = "cuda")]
            Self::Cuda(memory) => memory.len() / size_of::<f32>(),
        }
    }
}

impl Operand {
    /// f32 values in main memory.
    pub(super) fn host(&self) -> Result<&[f32]> {
        match self {
            Self::Host(buffer) => Ok(buffer.values()),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Err(elsewhere("operand")),
        }
    }

    /// The same, to be changed.
    pub(super) fn host_mut(&mut self) -> Result<&mut [f32]> {
        match self {
            Self::Host(buffer) => Ok(buffer.values_mut()),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Err(elsewhere("operand")),
        }
    }
}

impl KvLayer {
    /// Where its keys lie, to tell whether a recorded pass is of this cache.
    pub(crate) fn address(&self) -> usize {
        match self {
            Self::Host { keys, .. } => keys.values().as_ptr() as usize,
            #[cfg(feature = "cuda")]
            Self::Cuda(layer) => layer.keys.pointer() as usize,
        }
    }

    /// Keys and values in main memory.
    pub(super) fn host(&self) -> Result<(&[f32], &[f32])> {
        match self {
            Self::Host { keys, values } => Ok((keys.values(), values.values())),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Err(elsewhere("KV cache")),
        }
    }

    /// The same, to be changed.
    pub(super) fn host_mut(&mut self) -> Result<(&mut [f32], &mut [f32])> {
        match self {
            Self::Host { keys, values } => Ok((keys.values_mut(), values.values_mut())),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Err(elsewhere("KV cache")),
        }
    }
}

impl Rotations {
    /// Of a model's shape.
    pub fn new(theta: f32, head_dim: usize, positions: usize) -> Self {
        Self {
            theta,
            head_dim,
            positions,
            #[cfg(feature = "cuda")]
            cuda: None,
        }
    }
}

impl Vector {
    /// Over the bytes of f32 values.
    ///
    /// # Errors
    /// [`Error::Format`] when length or alignment do not fit.
    pub fn new(bytes: Bytes) -> Result<Self> {
        bytes.cast::<f32>()?;
        Ok(Self {
            host: bytes,
            #[cfg(feature = "cuda")]
            cuda: None,
        })
    }

    /// Of values, which it copies.
    pub fn of(values: &[f32]) -> Self {
        Self {
            host: Bytes::copy_from(bytemuck::cast_slice(values)),
            #[cfg(feature = "cuda")]
            cuda: None,
        }
    }

    /// The values.
    pub fn values(&self) -> &[f32] {
        bytemuck::cast_slice(self.host.as_slice())
    }
}
