//! Sixteen lanes in one register: x86-64 with AVX-512 F, BW, VL and VNNI.

use std::arch::x86_64::*;

use half::f16;

use super::activations::GroupActivations;
use super::lanes::{Kernel, LANES, Lanes};
use crate::device::matrix::{Q4_GROUP_BYTES, Q8_GROUP_BYTES};

/// Proof that the machine has the instructions: [`run`] alone makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// Whether this machine has the instructions.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// Runs a kernel with these instructions.
///
/// # Safety
/// [`is_available`] must hold.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// One intrinsic or a short run of them.
macro_rules! simd {
    ($($body:tt)*) => {{
        // SAFETY: an `Avx512` exists only where `is_available` holds; pointers come from references to as many bytes as are read or written.
        unsafe { $($body)* }
    }};
}

impl Lanes for Avx512 {
    type F = __m512;

    // 12 sums of integers, 12 of floats, a weight and its scale: 26 of 32 registers.
    const TOKENS_QUANTISED: usize = 12;
    // 2 blocks of 12 sums, two weights and an activation: 27 of 32 registers.
    const TOKENS_FLOAT: usize = 12;
    const BLOCKS_FLOAT: usize = 2;
    // 4 heads of 4 sums, four values and a weight: 21 of 32 registers.
    const HEADS_TOGETHER: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        simd!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        simd!(_mm512_loadu_ps(from.as_ptr()))
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> __m512 {
        simd!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn store(self, value: __m512, to: &mut [f32; LANES]) {
        simd!(_mm512_storeu_ps(to.as_mut_ptr(), value));
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        simd!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        simd!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        simd!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        simd!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        simd!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        simd!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        simd!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.fma(a, b, c)
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        simd!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn exp2i(self, n: __m512) -> __m512 {
        simd!({
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }

    #[inline(always)]
    fn sums(self, a: [__m512; LANES]) -> __m512 {
        simd!({
            // Four levels, each adds halves of what is left of a sum and puts two sums (groups of sums) into one register.
            let mut t = [_mm512_setzero_ps(); 8];
            for m in 0..4 {
                for (to, from) in [(2 * m, m), (2 * m + 1, 8 + m)] {
                    let (x, y) = (a[from], a[from + 4]);
                    t[to] = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(x, y), _mm512_shuffle_f32x4::<0xee>(x, y));
                }
            }
            let mut u = [_mm512_setzero_ps(); 4];
            for m in 0..4 {
                let (x, y) = (t[2 * m], t[2 * m + 1]);
                u[m] = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(x, y), _mm512_shuffle_f32x4::<0xdd>(x, y));
            }
            let mut v = [_mm512_setzero_ps(); 2];
            for m in 0..2 {
                let (x, y) = (u[2 * m], u[2 * m + 1]);
                v[m] = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(x, y), _mm512_shuffle_ps::<0xee>(x, y));
            }
            _mm512_add_ps(_mm512_shuffle_ps::<0x88>(v[0], v[1]), _mm512_shuffle_ps::<0xdd>(v[0], v[1]))
        })
    }

    #[inline(always)]
    fn prefetch(self, line: &[u8; 64]) {
        simd!(_mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()));
    }

    #[inline(always)]
    fn dot_q8<const T: usize>(self, w: &[u8; Q8_GROUP_BYTES], x: &[GroupActivations; T]) -> [__m512; T] {
        simd!({
            let mut sums = [_mm512_setzero_si512(); T];
            for t in 0..T {
                sums[t] = _mm512_set1_epi32(x[t].offset);
            }
            for (j, w) in w.as_chunks::<64>().0.iter().enumerate() {
                let w = _mm512_loadu_si512(w.as_ptr().cast());
                for t in 0..T {
                    sums[t] = _mm512_dpbusd_epi32(sums[t], w, _mm512_set1_epi32(x[t].packed_word(j)));
                }
            }
            to_floats(sums)
        })
    }

    #[inline(always)]
    fn dot_q4<const T: usize>(self, w: &[u8; Q4_GROUP_BYTES], x: &[GroupActivations; T]) -> [__m512; T] {
        simd!({
            let mask = _mm512_set1_epi8(15);
            let mut sums = [_mm512_setzero_si512(); T];
            for (j, w) in w.as_chunks::<64>().0.iter().enumerate() {
                let w = _mm512_loadu_si512(w.as_ptr().cast());
                let (low, high) = (_mm512_and_si512(w, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask));
                for t in 0..T {
                    sums[t] = _mm512_dpbusd_epi32(sums[t], low, _mm512_set1_epi32(x[t].packed_word(j)));
                    sums[t] = _mm512_dpbusd_epi32(sums[t], high, _mm512_set1_epi32(x[t].packed_word(j + 4)));
                }
            }
            to_floats(sums)
        })
    }
}

/// Integers to floats.
#[inline]
#[target_feature(enable = "avx512f")]
fn to_floats<const T: usize>(sums: [__m512i; T]) -> [__m512; T] {
    let mut floats = [_mm512_setzero_ps(); T];
    for t in 0..T {
        floats[t] = _mm512_cvtepi32_ps(sums[t]);
    }
    floats
}
