//! Sixteen f32 lanes: the one abstraction that all kernels are written over.
//!
//! A kernel is a generic function over [`Lanes`], written once. Each instruction set implements the few operations below; a value of its
//! type exists only on machines that have the instructions, which is what makes calling them sound. The order of every sum is part
//! of the kernels and of [`Lanes::sum`], so the fused instruction sets give the same bits; `Portable` differs only where [`Lanes::mul_add`] is
//! documented to.

use half::f16;

use super::activations::GroupActivations;
use crate::device::matrix::{Q4_GROUP_BYTES, Q8_GROUP_BYTES};

/// f32 lanes of one operation, and rows of a weight block.
pub(super) const LANES: usize = 16;

/// Operations on sixteen f32 lanes. Implemented by zero-sized proofs that the machine has the instructions.
pub(super) trait Lanes: Copy + Send + Sync {
    /// Sixteen f32.
    type F: Copy;

    /// Most tokens that a tile of the quantised kernels keeps in registers.
    const TOKENS_QUANTISED: usize;
    /// Most tokens that a tile of the float kernels keeps in registers.
    const TOKENS_FLOAT: usize;
    /// Row blocks that a tile of the float kernels works on at once when it has more than one token.
    const BLOCKS_FLOAT: usize;
    /// Heads of the same keys and values that attention computes side by side, 1 to 4.
    const HEADS_TOGETHER: usize;

    /// The same value in every lane.
    fn splat(self, value: f32) -> Self::F;
    /// Reads sixteen values.
    fn load(self, from: &[f32; LANES]) -> Self::F;
    /// Reads sixteen halves, exactly.
    fn load_f16(self, from: &[f16; LANES]) -> Self::F;
    /// Writes sixteen values.
    fn store(self, value: Self::F, to: &mut [f32; LANES]);
    /// a + b
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a − b
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a / b
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; NaN when `b` is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; NaN when `b` is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b + c, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// a · b + c, rounded once where the machine does that fast, otherwise twice.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Nearest integers, ties to even, of magnitudes up to 2^22.
    fn round(self, a: Self::F) -> Self::F;
    /// 2^n for integral n in −126..=127.
    fn exp2i(self, n: Self::F) -> Self::F;

    /// Sum of the lanes: halves are added to halves, 8 + 8, 4 + 4, 2 + 2, 1 + 1.
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        let mut v = [0.0; LANES];
        self.store(a, &mut v);
        tree_sum(v)
    }

    /// Largest lane; NaN when a lane is NaN.
    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        let mut v = [0.0; LANES];
        self.store(a, &mut v);
        v.into_iter().fold(f32::NEG_INFINITY, |m, x| if m > x || m.is_nan() { m } else { x })
    }

    /// Lane i = [`Lanes::sum`] of vector i.
    #[inline(always)]
    fn sums(self, a: [Self::F; LANES]) -> Self::F {
        let mut sums = [0.0; LANES];
        for (sum, a) in sums.iter_mut().zip(a) {
            *sum = self.sum(a);
        }
        self.load(&sums)
    }

    /// Asks for a cache line that will be read soon; a hint without effect on results.
    #[inline(always)]
    fn prefetch(self, _line: &[u8; 64]) {}

    /// For each of T tokens and 16 rows, Σ_k (q[k] − 128) x[k] over one group, exactly.
    fn dot_q8<const T: usize>(self, w: &[u8; Q8_GROUP_BYTES], x: &[GroupActivations; T]) -> [Self::F; T];
    /// For each of T tokens and 16 rows, Σ_k q[k] x[k] over one group, exactly.
    fn dot_q4<const T: usize>(self, w: &[u8; Q4_GROUP_BYTES], x: &[GroupActivations; T]) -> [Self::F; T];
}

/// The tree of [`Lanes::sum`].
#[inline(always)]
fn tree_sum(mut v: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            v[i] += v[i + width];
        }
        width /= 2;
    }
    v[0]
}

/// A kernel with its operands, to be run on the machine's lanes. Implementations are `#[inline(always)]`, so that the code they hold is
/// compiled for the instruction set of the function that they are inlined into.
pub(super) trait Kernel {
    /// What it returns.
    type Output;
    /// Runs it.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// e^x within 2 ulp, subnormal results included; NaN stays NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by its Taylor polynomial of degree 7 (remainder below 2^-27); 2^n in two factors, so that
/// neither overflows before the product does.
#[inline(always)]
pub(super) fn exp<L: Lanes>(l: L, x: L::F) -> L::F {
    let x = l.min(l.splat(89.0), l.max(l.splat(-104.0), x));
    let n = l.round(l.mul(x, l.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts: the first has few enough bits that n times it is exact.
    let r = l.mul_add(n, l.splat(-0.693_359_4), x);
    let r = l.mul_add(n, l.splat(2.121_944_4e-4), r);
    let mut p = l.splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        p = l.mul_add(p, r, l.splat(c));
    }
    // 1 + (r + r² p): the small part is summed first.
    let p = l.add(l.splat(1.0), l.mul_add(l.mul(r, r), p, r));
    let half = l.round(l.mul(n, l.splat(0.5)));
    l.mul(l.mul(p, l.exp2i(half)), l.exp2i(l.sub(n, half)))
}

/// Plain Rust on any machine.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Applies `f` to each pair of lanes.
#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Portable {
    type F = [f32; LANES];

    const TOKENS_QUANTISED: usize = 4;
    const TOKENS_FLOAT: usize = 2;
    const BLOCKS_FLOAT: usize = 1;
    const HEADS_TOGETHER: usize = 1;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        *from
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Self::F {
        from.map(f16_to_f32)
    }
    #[inline(always)]
    fn store(self, value: Self::F, to: &mut [f32; LANES]) {
        *to = value;
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // A fused product is a library call where the baseline lacks the instruction.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // Exact below 2^22, which is more than the exponents it is used for, and without the library call of `round_ties_even`.
        a.map(|a| (a + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    fn exp2i(self, n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn dot_q8<const T: usize>(self, w: &[u8; Q8_GROUP_BYTES], x: &[GroupActivations; T]) -> [Self::F; T] {
        let mut sums = x.map(|x| [x.offset; LANES]);
        for (j, w) in w.as_chunks::<64>().0.iter().enumerate() {
            for (sums, x) in sums.iter_mut().zip(x) {
                dot4(sums, w, x.word(j));
            }
        }
        sums.map(|sums| sums.map(|sum| sum as f32))
    }
    #[inline(always)]
    fn dot_q4<const T: usize>(self, w: &[u8; Q4_GROUP_BYTES], x: &[GroupActivations; T]) -> [Self::F; T] {
        let mut sums = [[0i32; LANES]; T];
        for (j, w) in w.as_chunks::<64>().0.iter().enumerate() {
            let (low, high) = (w.map(|w| w & 15), w.map(|w| w >> 4));
            for (sums, x) in sums.iter_mut().zip(x) {
                dot4(sums, &low, x.word(j));
                dot4(sums, &high, x.word(j + 4));
            }
        }
        sums.map(|sums| sums.map(|sum| sum as f32))
    }
}

/// Adds to each lane the product of its four weights with the four activations.
#[inline(always)]
fn dot4(sums: &mut [i32; LANES], w: &[u8; 64], x: [i8; 4]) {
    for (sum, w) in sums.iter_mut().zip(w.as_chunks::<4>().0) {
        for (&w, x) in w.iter().zip(x) {
            *sum += i32::from(w) * i32::from(x);
        }
    }
}

/// Exact for every finite half and the infinities, without a branch: the exponent is moved by a product, which also normalises subnormals.
#[inline(always)]
fn f16_to_f32(half: f16) -> f32 {
    let bits = u32::from(half.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000); // 2^112
    // Infinity and NaN have all exponent bits set, which the product does not do.
    let magnitude = if bits & 0x7c00 == 0x7c00 { f32::from_bits(0x7f80_0000 | (bits & 0x3ff) << 13) } else { magnitude };
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}
