//! Activations as the tiles of the matrix product read them.
//!
//! A call with n tokens is cut into tiles of a few tokens ([`Tiles`]); each tile's activations lie in the order in which its kernel reads them,
//! so a kernel walks one pointer. Rounding to 8 bits happens here, once a call.

use crate::device::matrix::{GROUP, Q8_OFFSET};

/// One group of one token, rounded to 8 bits: x ≈ q · scale. See `reference::quantize_activations` for the rule.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
pub(super) struct GroupActivations {
    /// q in −127..=127, zero beyond the last column.
    q: [[i8; 4]; GROUP / 4],
    /// max|x| / 127; NaN when a value of the group is not finite.
    pub scale: f32,
    /// −128 Σq: takes the offset of q8 weights out of the sum.
    pub offset: i32,
    /// scale · Σq: multiplies the minimum of q4 weights.
    pub sum: f32,
}

impl GroupActivations {
    /// Four neighbouring quants.
    #[inline(always)]
    pub fn word(&self, j: usize) -> [i8; 4] {
        self.q[j]
    }

    /// Four neighbouring quants as the bytes of one integer.
    #[inline(always)]
    pub fn packed_word(&self, j: usize) -> i32 {
        i32::from_ne_bytes(self.q[j].map(|q| q as u8))
    }

    /// Rounds one full group.
    #[inline(always)]
    pub fn quantize(x: &[f32; GROUP]) -> Self {
        // Bits of non-negative floats order as the floats do, and NaN above all.
        let largest = x.iter().fold(0u32, |m, x| m.max(x.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(largest);
        if !largest.is_finite() {
            return Self { scale: f32::NAN, sum: f32::NAN, ..Self::default() };
        }
        if largest < 1e-30 {
            return Self::default();
        }
        let inverse = 127.0 / largest;
        let mut out = Self { scale: largest / 127.0, ..Self::default() };
        let mut sum = 0i32;
        for (q, x) in out.q.as_flattened_mut().iter_mut().zip(x) {
            // Adding and taking away 1.5 · 2^23 rounds to an integer, ties to even, for magnitudes up to 2^22.
            const ROUND: f32 = 12_582_912.0;
            let rounded = ((x * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
            *q = rounded as i8;
            sum += rounded;
        }
        out.offset = -i32::from(Q8_OFFSET) * sum;
        out.sum = out.scale * sum as f32;
        out
    }
}

/// How n tokens are cut into tiles: as many of the largest size as fit, then smaller ones.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    next: usize,
    n: usize,
    largest: usize,
}

/// The tile sizes that kernels are compiled for.
pub(super) const TILE_SIZES: [usize; 7] = [1, 2, 3, 4, 6, 8, 12];

impl Tiles {
    /// Tiles of at most `largest` tokens.
    pub fn new(n: usize, largest: usize) -> Self {
        Self { next: 0, n, largest }
    }
}

impl Iterator for Tiles {
    /// First token and number of tokens.
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let left = self.n - self.next;
        let size = TILE_SIZES.into_iter().rev().find(|&size| size <= left.min(self.largest))?;
        let first = self.next;
        self.next += size;
        Some((first, size))
    }
}

/// Rounds the tokens of one tile, x [size, cols], to out [G, size].
#[inline(always)]
pub(super) fn quantize_tile(x: &[f32], size: usize, cols: usize, out: &mut [GroupActivations]) {
    for token in 0..size {
        let (full, rest) = x[token * cols..][..cols].as_chunks::<GROUP>();
        for (g, x) in full.iter().enumerate() {
            out[g * size + token] = GroupActivations::quantize(x);
        }
        if !rest.is_empty() {
            let mut padded = [0.0; GROUP];
            padded[..rest.len()].copy_from_slice(rest);
            out[full.len() * size + token] = GroupActivations::quantize(&padded);
        }
    }
}

/// Interleaves the tokens of one tile, x [size, cols], to out [cols, size].
#[inline(always)]
pub(super) fn interleave_tile(x: &[f32], size: usize, cols: usize, out: &mut [f32]) {
    for (k, values) in out.chunks_exact_mut(size).enumerate() {
        for (token, value) in values.iter_mut().enumerate() {
            *value = x[token * cols + k];
        }
    }
}
