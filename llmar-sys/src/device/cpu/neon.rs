//! Sixteen lanes in four registers: aarch64, with the dot product instructions of ARMv8.2 where the machine has them.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use half::f16;

use super::activations::GroupActivations;
use super::lanes::{Kernel, LANES, Lanes};
use crate::device::matrix::{Q4_GROUP_BYTES, Q8_GROUP_BYTES, Q8_OFFSET};

/// Proof that the machine has NEON, and, with `DOT`, the dot product instructions: [`run`] alone makes one.
#[derive(Clone, Copy)]
pub(super) struct Neon<const DOT: bool>(());

/// Lanes 0..4, 4..8, 8..12 and 12..16.
type Four = [float32x4_t; 4];

/// Whether this machine has NEON.
pub(super) fn is_available() -> bool {
    is_aarch64_feature_detected!("neon")
}

/// Runs a kernel with the best of these instructions.
///
/// # Safety
/// [`is_available`] must hold.
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    if is_aarch64_feature_detected!("dotprod") {
        // SAFETY: just detected; NEON by this function's contract.
        unsafe { run_dot(kernel) }
    } else {
        // SAFETY: this function's contract.
        unsafe { run_base(kernel) }
    }
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn run_dot<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<true>(()))
}

#[target_feature(enable = "neon")]
unsafe fn run_base<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<false>(()))
}

/// One intrinsic or a short run of them.
macro_rules! simd {
    ($($body:tt)*) => {{
        // SAFETY: a `Neon` exists only where the instructions do; pointers come from references to as many bytes as are read or written.
        unsafe { $($body)* }
    }};
}

/// The same operation on all four registers.
macro_rules! each {
    ($op:ident($($operand:ident),+)) => {
        simd!([$op($($operand[0]),+), $op($($operand[1]),+), $op($($operand[2]),+), $op($($operand[3]),+)])
    };
}

impl<const DOT: bool> Lanes for Neon<DOT> {
    type F = Four;

    // 4 sums of integers a token with the dot product, 8 without.
    const TOKENS_QUANTISED: usize = if DOT { 4 } else { 2 };
    // 6 × 4 sums, four weights and an activation: 29 of 32 registers.
    const TOKENS_FLOAT: usize = 6;
    const BLOCKS_FLOAT: usize = 1;
    const HEADS_TOGETHER: usize = 1;

    #[inline(always)]
    fn splat(self, value: f32) -> Four {
        simd!([vdupq_n_f32(value); 4])
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Four {
        let from = from.as_ptr();
        simd!([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))])
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Four {
        let from = from.as_ptr().cast::<u16>();
        simd!({
            let [a, b] = halves_to_floats(vld1q_u16(from));
            let [c, d] = halves_to_floats(vld1q_u16(from.add(8)));
            [a, b, c, d]
        })
    }
    #[inline(always)]
    fn store(self, value: Four, to: &mut [f32; LANES]) {
        for (value, to) in value.into_iter().zip(to.as_chunks_mut::<4>().0) {
            simd!(vst1q_f32(to.as_mut_ptr(), value));
        }
    }
    #[inline(always)]
    fn add(self, a: Four, b: Four) -> Four {
        each!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Four, b: Four) -> Four {
        each!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Four, b: Four) -> Four {
        each!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: Four, b: Four) -> Four {
        each!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn min(self, a: Four, b: Four) -> Four {
        each!(vminq_f32(a, b))
    }
    #[inline(always)]
    fn max(self, a: Four, b: Four) -> Four {
        each!(vmaxq_f32(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Four, b: Four, c: Four) -> Four {
        each!(vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: Four, b: Four, c: Four) -> Four {
        self.fma(a, b, c)
    }
    #[inline(always)]
    fn round(self, a: Four) -> Four {
        each!(vrndnq_f32(a))
    }
    #[inline(always)]
    fn exp2i(self, n: Four) -> Four {
        let mut powers = n;
        for power in &mut powers {
            *power = simd!(vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(*power), vdupq_n_s32(127)))));
        }
        powers
    }

    #[inline(always)]
    fn sums(self, a: [Four; LANES]) -> Four {
        simd!({
            let mut sums = [vdupq_n_f32(0.0); 4];
            for (i, sum) in sums.iter_mut().enumerate() {
                // 8 + 8 and 4 + 4 lanes of four vectors, then 2 + 2 of two vectors in one register, then neighbours.
                let mut s = [vdupq_n_f32(0.0); 4];
                for (s, a) in s.iter_mut().zip(&a[4 * i..]) {
                    *s = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
                }
                *sum = vpaddq_f32(add_halves(s[0], s[1]), add_halves(s[2], s[3]));
            }
            sums
        })
    }

    #[inline(always)]
    fn prefetch(self, line: &[u8; 64]) {
        // SAFETY: a hint; it reads nothing that the program could see.
        unsafe { asm!("prfm pldl2keep, [{0}]", in(reg) line.as_ptr(), options(nostack, preserves_flags, readonly)) };
    }

    #[inline(always)]
    fn dot_q8<const T: usize>(self, w: &[u8; Q8_GROUP_BYTES], x: &[GroupActivations; T]) -> [Four; T] {
        simd!({
            let offset = vdupq_n_u8(Q8_OFFSET);
            let mut sums = [Sums::<DOT>::zero(); T];
            for (j, w) in w.as_chunks::<64>().0.iter().enumerate() {
                for (quarter, w) in w.as_chunks::<16>().0.iter().enumerate() {
                    let w = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w.as_ptr()), offset));
                    for t in 0..T {
                        sums[t].add(quarter, w, vreinterpretq_s8_s32(vdupq_n_s32(x[t].packed_word(j))));
                    }
                }
            }
            let mut floats = [[vdupq_n_f32(0.0); 4]; T];
            for t in 0..T {
                floats[t] = sums[t].to_floats();
            }
            floats
        })
    }

    #[inline(always)]
    fn dot_q4<const T: usize>(self, w: &[u8; Q4_GROUP_BYTES], x: &[GroupActivations; T]) -> [Four; T] {
        simd!({
            let mask = vdupq_n_u8(15);
            let mut sums = [Sums::<DOT>::zero(); T];
            for (j, w) in w.as_chunks::<64>().0.iter().enumerate() {
                for (quarter, w) in w.as_chunks::<16>().0.iter().enumerate() {
                    let w = vld1q_u8(w.as_ptr());
                    let (low, high) = (vreinterpretq_s8_u8(vandq_u8(w, mask)), vreinterpretq_s8_u8(vshrq_n_u8::<4>(w)));
                    for t in 0..T {
                        sums[t].add(quarter, low, vreinterpretq_s8_s32(vdupq_n_s32(x[t].packed_word(j))));
                        sums[t].add(quarter, high, vreinterpretq_s8_s32(vdupq_n_s32(x[t].packed_word(j + 4))));
                    }
                }
            }
            let mut floats = [[vdupq_n_f32(0.0); 4]; T];
            for t in 0..T {
                floats[t] = sums[t].to_floats();
            }
            floats
        })
    }
}

/// Integer sums of sixteen lanes. Without the dot product each lane has two parts, in neighbouring elements of a pair of registers.
#[derive(Clone, Copy)]
struct Sums<const DOT: bool>([[int32x4_t; 2]; 4]);

impl<const DOT: bool> Sums<DOT> {
    #[inline]
    #[target_feature(enable = "neon")]
    fn zero() -> Self {
        Self([[vdupq_n_s32(0); 2]; 4])
    }

    /// Adds to lanes 4 · quarter.. the product of their four weights with four activations.
    ///
    /// # Safety
    /// With `DOT`, the machine must have the dot product.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn add(&mut self, quarter: usize, w: int8x16_t, x: int8x16_t) {
        let sums = &mut self.0[quarter];
        if DOT {
            // SAFETY: this function's contract.
            sums[0] = unsafe { dot(sums[0], w, x) };
        } else {
            sums[0] = vpadalq_s16(sums[0], vmull_s8(vget_low_s8(w), vget_low_s8(x)));
            sums[1] = vpadalq_s16(sums[1], vmull_high_s8(w, x));
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn to_floats(self) -> Four {
        let mut floats = [vdupq_n_f32(0.0); 4];
        for (float, [a, b]) in floats.iter_mut().zip(self.0) {
            *float = vcvtq_f32_s32(if DOT { a } else { vpaddq_s32(a, b) });
        }
        floats
    }
}

/// sum[i] + Σ_t w[4i + t] x[4i + t]. The intrinsic of this instruction is not in the oldest compiler that the crate supports.
///
/// # Safety
/// The machine must have the dot product.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: registers in, register out; the instruction is there by the contract.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) w, in(vreg) x, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// [a0 + a2, a1 + a3, b0 + b2, b1 + b3]
#[inline]
#[target_feature(enable = "neon")]
fn add_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vaddq_f32(vcombine_f32(vget_low_f32(a), vget_low_f32(b)), vcombine_f32(vget_high_f32(a), vget_high_f32(b)))
}

/// Eight halves to floats, exactly. The intrinsics of this conversion want a type that is not stable.
#[inline]
#[target_feature(enable = "neon")]
fn halves_to_floats(halves: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: registers in, registers out; part of every ARMv8 with NEON.
    unsafe {
        asm!("fcvtl {0:v}.4s, {2:v}.4h", "fcvtl2 {1:v}.4s, {2:v}.8h", out(vreg) low, out(vreg) high, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    [low, high]
}
