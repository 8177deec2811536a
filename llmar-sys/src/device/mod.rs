//! The arithmetic: about a dozen ops, each with one naive reference and one kernel a backend.
//!
//! All activations are f32, row-major, `[rows, features]`. Every op gives bit-identical results for any number of threads
//! and any batch size: threads split output rows, never a sum.

mod codebook;
mod cpu;
mod matrix;
mod quantize;
pub mod reference;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use codebook::{Codebook, Geometry};
pub use cpu::{Cpu, Isa};
pub use matrix::{ElementType, GROUP, Matrix, MatrixData, Packed, ROW_BLOCK, Scheme, pack, packed_shapes};

use crate::error::Result;

/// Where the ops run.
#[derive(Debug)]
pub enum Device {
    /// The CPU with a fixed number of threads.
    Cpu(Cpu),
}

/// What [`Device::linear`] does with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// y = W x
    Overwrite,
    /// y += W x (the residual)
    Add,
}

/// Geometry of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Features a head; even.
    pub head_dim: usize,
}

/// Which rows of the KV cache each of the n rows of a pass writes and sees.
///
/// Row i stands at text position `position[i]`, is written to cache slot `slot[i]`, and attends to the slots of
/// `ranges[row_ranges[i]]`, in that order, itself included. This covers a shared prefix, packed clips without padding and the tree
/// mask of label scoring. All rows of a pass are written to the cache before any row reads it.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// `[n]` text position, for RoPE.
    pub position: Vec<u32>,
    /// `[n]` cache slot.
    pub slot: Vec<u32>,
    /// Slot ranges, rows share them freely.
    pub ranges: Vec<Range<u32>>,
    /// `[n]` which of `ranges` each row sees.
    pub row_ranges: Vec<Range<u32>>,
}

/// One 1-D convolution over time, as the encoder uses it: `y[t] = b + Σ_tap W_tap x[t·stride + (tap·dilation) − left]`.
#[derive(Clone, Debug)]
pub struct Conv1d {
    /// [c_out, kernel · c_in], column tap · c_in + channel; f32 or f16.
    pub weight: Matrix,
    /// `[c_out]`
    pub bias: Vec<f32>,
    /// Taps.
    pub kernel: usize,
    /// Frames between two outputs.
    pub stride: usize,
    /// Frames between two taps.
    pub dilation: usize,
    /// Zero frames before the first.
    pub left: usize,
    /// Zero frames after the last.
    pub right: usize,
}

impl Conv1d {
    /// Output frames for `frames` input frames: ⌊(frames + left + right − dilation·(kernel − 1) − 1) / stride⌋ + 1.
    pub fn out_len(&self, frames: usize) -> usize {
        (frames + self.left + self.right).saturating_sub(self.dilation * (self.kernel - 1) + 1) / self.stride + 1
    }
}

impl Device {
    /// The CPU with `threads` ≥ 1 threads; more than one starts workers that end with this device.
    pub fn cpu(threads: usize) -> Result<Self> {
        Ok(Self::Cpu(Cpu::new(threads)?))
    }

    /// Runs `f` where the ops dispatch fastest: a caller that runs many ops in a row wraps them in one call.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Cpu(cpu) => cpu.install(f),
        }
    }

    /// y [n, w.rows] = W x (or += W x) for x [n, w.cols].
    pub fn linear(&self, w: &Matrix, x: &[f32], n: usize, y: &mut [f32], store: Store) {
        match self {
            Self::Cpu(cpu) => cpu.linear(w, x, n, y, store),
        }
    }

    /// `y[i] = x[i] · weight / √(mean(x[i]²) + eps)`, for x, y `[n, d]` and weight `[d]`.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        match self {
            Self::Cpu(cpu) => cpu.rms_norm(x, weight, eps, y),
        }
    }

    /// Rotates, in place, the first `heads` heads of every row of x [n, stride] by its position: half-split pairs (i, i + head_dim/2),
    /// angle position · theta^(−2i/head_dim).
    pub fn rope(&self, x: &mut [f32], stride: usize, heads: usize, head_dim: usize, positions: &[u32], theta: f32) {
        match self {
            Self::Cpu(cpu) => cpu.rope(x, stride, heads, head_dim, positions, theta),
        }
    }

    /// out [n, heads·head_dim]: softmax(q·k/√head_dim) v over the slots each row sees. q is the start of each row of `q` [n, q_stride];
    /// keys and values [slots, kv_heads·head_dim].
    #[expect(clippy::too_many_arguments, reason = "one op, its tensors and its shape")]
    pub fn attention(&self, shape: AttentionShape, rows: &Rows, q: &[f32], q_stride: usize, keys: &[f32], values: &[f32], out: &mut [f32]) {
        match self {
            Self::Cpu(cpu) => cpu.attention(shape, rows, q, q_stride, keys, values, out),
        }
    }

    /// y [n, f] = silu(gate) · up, where each row of `gate_up` [n, 2f] is gate then up.
    pub fn swiglu(&self, gate_up: &[f32], f: usize, y: &mut [f32]) {
        match self {
            Self::Cpu(cpu) => cpu.swiglu(gate_up, f, y),
        }
    }

    /// Per row of logits [n, vocab]: ln Σ exp, in f64 inside.
    pub fn log_sum_exp(&self, logits: &[f32], vocab: usize, out: &mut [f32]) {
        match self {
            Self::Cpu(cpu) => cpu.log_sum_exp(logits, vocab, out),
        }
    }

    /// y [out_len, c_out] = conv(x [frames, c_in]); with `relu_in`, of max(x, 0); with [`Store::Add`], added to y.
    pub fn conv1d(&self, conv: &Conv1d, x: &[f32], frames: usize, relu_in: bool, y: &mut [f32], store: Store) {
        match self {
            Self::Cpu(cpu) => cpu.conv1d(conv, x, frames, relu_in, y, store),
        }
    }

    /// Nearest code of each feature f [n, dim] (tangent vectors for `Poincare`, already scaled and clipped): the f64 argmin wherever the two
    /// best distances differ by more than 1e-5 relatively, the lower index on ties.
    pub fn nearest_codes(&self, codebook: &Codebook, features: &[f32], n: usize, out: &mut [u16]) {
        match self {
            Self::Cpu(cpu) => cpu.nearest_codes(codebook, features, n, out),
        }
    }
}
