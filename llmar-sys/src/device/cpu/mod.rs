//! The CPU backend.

use super::{AttentionShape, Codebook, Conv1d, Matrix, Rows, Store};
use crate::error::Result;

/// Instruction sets with kernels of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, any machine.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL and VNNI.
    Avx512,
    /// aarch64.
    Neon,
}

/// The CPU with a fixed instruction set and number of threads.
#[derive(Debug)]
pub struct Cpu {}

#[expect(unused_variables, clippy::too_many_arguments, missing_docs)]
impl Cpu {
    pub fn new(threads: usize) -> Result<Self> {
        todo!()
    }
    pub fn linear(&self, w: &Matrix, x: &[f32], n: usize, y: &mut [f32], store: Store) {
        todo!()
    }
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        todo!()
    }
    pub fn rope(&self, x: &mut [f32], stride: usize, heads: usize, head_dim: usize, positions: &[u32], theta: f32) {
        todo!()
    }
    pub fn attention(&self, shape: AttentionShape, rows: &Rows, q: &[f32], q_stride: usize, keys: &[f32], values: &[f32], out: &mut [f32]) {
        todo!()
    }
    pub fn swiglu(&self, gate_up: &[f32], f: usize, y: &mut [f32]) {
        todo!()
    }
    pub fn log_sum_exp(&self, logits: &[f32], vocab: usize, out: &mut [f32]) {
        todo!()
    }
    pub fn conv1d(&self, conv: &Conv1d, x: &[f32], frames: usize, relu_in: bool, y: &mut [f32], store: Store) {
        todo!()
    }
    pub fn nearest_codes(&self, codebook: &Codebook, features: &[f32], n: usize, out: &mut [u16]) {
        todo!()
    }
}
