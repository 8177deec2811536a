//! Sixteen lanes in two registers: x86-64 with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use half::f16;

use super::activations::GroupActivations;
use super::lanes::{Kernel, LANES, Lanes};
use crate::device::matrix::{Q4_GROUP_BYTES, Q8_GROUP_BYTES, Q8_OFFSET};

/// Proof that the machine has the instructions: [`run`] alone makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Lanes 0..8 and 8..16.
type Pair = [__m256; 2];

/// Whether this machine has the instructions.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Runs a kernel with these instructions.
///
/// # Safety
/// [`is_available`] must hold.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// One intrinsic or a short run of them.
macro_rules! simd {
    ($($body:tt)*) => {{
        // SAFETY: an `Avx2` exists only where `is_available` holds; pointers come from references to as many bytes as are read or written.
        unsafe { $($body)* }
    }};
}

impl Lanes for Avx2 {
    type F = Pair;

    // 3 × 2 sums of integers and 3 × 2 of floats leave 4 of 16 registers for weights and activations.
    const TOKENS_QUANTISED: usize = 3;
    // 6 × 2 sums, two weights and an activation: 15 of 16 registers.
    const TOKENS_FLOAT: usize = 6;
    const BLOCKS_FLOAT: usize = 1;
    const HEADS_TOGETHER: usize = 1;

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        simd!([_mm256_set1_ps(value); 2])
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Pair {
        simd!([_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))])
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Pair {
        simd!({
            let from = from.as_ptr().cast::<__m128i>();
            [_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1)))]
        })
    }
    #[inline(always)]
    fn store(self, value: Pair, to: &mut [f32; LANES]) {
        simd!({
            _mm256_storeu_ps(to.as_mut_ptr(), value[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), value[1]);
        });
    }
    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        simd!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: Pair, b: Pair) -> Pair {
        simd!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        simd!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: Pair, b: Pair) -> Pair {
        simd!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn min(self, a: Pair, b: Pair) -> Pair {
        simd!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn max(self, a: Pair, b: Pair) -> Pair {
        simd!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: Pair, b: Pair, c: Pair) -> Pair {
        simd!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn mul_add(self, a: Pair, b: Pair, c: Pair) -> Pair {
        self.fma(a, b, c)
    }
    #[inline(always)]
    fn round(self, a: Pair) -> Pair {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        simd!([_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])])
    }
    #[inline(always)]
    fn exp2i(self, n: Pair) -> Pair {
        simd!({
            let bias = _mm256_set1_epi32(127);
            let [a, b] = [_mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias), _mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias)];
            [_mm256_castsi256_ps(_mm256_slli_epi32::<23>(a)), _mm256_castsi256_ps(_mm256_slli_epi32::<23>(b))]
        })
    }

    #[inline(always)]
    fn sums(self, a: [Pair; LANES]) -> Pair {
        simd!({
            let mut halves = [_mm256_setzero_ps(); 2];
            for (h, half) in halves.iter_mut().enumerate() {
                // Eight vectors; after each level a register holds the unfinished sums of twice as many vectors.
                let mut s = [_mm256_setzero_ps(); 8];
                for (s, a) in s.iter_mut().zip(&a[8 * h..]) {
                    *s = _mm256_add_ps(a[0], a[1]);
                }
                let mut u = [_mm256_setzero_ps(); 4];
                for m in 0..4 {
                    let (x, y) = (s[m], s[m + 4]);
                    u[m] = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(x, y), _mm256_permute2f128_ps::<0x31>(x, y));
                }
                let mut v = [_mm256_setzero_ps(); 2];
                for m in 0..2 {
                    let (x, y) = (u[2 * m], u[2 * m + 1]);
                    v[m] = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(x, y), _mm256_shuffle_ps::<0xee>(x, y));
                }
                *half = _mm256_add_ps(_mm256_shuffle_ps::<0x88>(v[0], v[1]), _mm256_shuffle_ps::<0xdd>(v[0], v[1]));
            }
            halves
        })
    }

    #[inline(always)]
    fn prefetch(self, line: &[u8; 64]) {
        simd!(_mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()));
    }

    #[inline(always)]
    fn dot_q8<const T: usize>(self, w: &[u8; Q8_GROUP_BYTES], x: &[GroupActivations; T]) -> [Pair; T] {
        simd!({
            // The pairwise product of unsigned and signed bytes saturates at 16 bits, and 2 · 255 · 127 is too much. So |w| takes the place of the
            // unsigned operand and x the sign of w: 2 · 127 · 127 fits.
            let ones = _mm256_set1_epi16(1);
            let offset = _mm256_set1_epi8(Q8_OFFSET as i8);
            let mut sums = [[_mm256_setzero_si256(); 2]; T];
            for (j, w) in w.as_chunks::<64>().0.iter().enumerate() {
                for (h, w) in w.as_chunks::<32>().0.iter().enumerate() {
                    let w = _mm256_xor_si256(_mm256_loadu_si256(w.as_ptr().cast()), offset);
                    let magnitude = _mm256_abs_epi8(w);
                    for t in 0..T {
                        let signed = _mm256_sign_epi8(_mm256_set1_epi32(x[t].packed_word(j)), w);
                        let pairs = _mm256_maddubs_epi16(magnitude, signed);
                        sums[t][h] = _mm256_add_epi32(sums[t][h], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            to_floats(sums)
        })
    }

    #[inline(always)]
    fn dot_q4<const T: usize>(self, w: &[u8; Q4_GROUP_BYTES], x: &[GroupActivations; T]) -> [Pair; T] {
        simd!({
            // Eight pairs of products of at most 15 · 127 fit 16 bits: 30,480.
            let ones = _mm256_set1_epi16(1);
            let mask = _mm256_set1_epi8(15);
            let mut pairs = [[_mm256_setzero_si256(); 2]; T];
            for (j, w) in w.as_chunks::<64>().0.iter().enumerate() {
                for (h, w) in w.as_chunks::<32>().0.iter().enumerate() {
                    let w = _mm256_loadu_si256(w.as_ptr().cast());
                    let (low, high) = (_mm256_and_si256(w, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask));
                    for t in 0..T {
                        let (x_low, x_high) = (_mm256_set1_epi32(x[t].packed_word(j)), _mm256_set1_epi32(x[t].packed_word(j + 4)));
                        let products = _mm256_add_epi16(_mm256_maddubs_epi16(low, x_low), _mm256_maddubs_epi16(high, x_high));
                        pairs[t][h] = _mm256_add_epi16(pairs[t][h], products);
                    }
                }
            }
            let mut sums = [[_mm256_setzero_si256(); 2]; T];
            for t in 0..T {
                sums[t] = [_mm256_madd_epi16(pairs[t][0], ones), _mm256_madd_epi16(pairs[t][1], ones)];
            }
            to_floats(sums)
        })
    }
}

/// Integers to floats.
#[inline]
#[target_feature(enable = "avx2")]
fn to_floats<const T: usize>(sums: [[__m256i; 2]; T]) -> [Pair; T] {
    let mut floats = [[_mm256_setzero_ps(); 2]; T];
    for t in 0..T {
        floats[t] = [_mm256_cvtepi32_ps(sums[t][0]), _mm256_cvtepi32_ps(sums[t][1])];
    }
    floats
}
