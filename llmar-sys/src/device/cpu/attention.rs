//! Attention over slot ranges: scores for sixteen slots at a time, softmax in two passes, weighted sum of the values.
//!
//! Each (row, head) is computed alone and in a fixed order of slots, so threads and batches do not change a bit.

use std::ops::Range;

use super::Cpu;
use super::lanes::{Kernel, LANES, Lanes, exp};
use super::parts::Parts;
use crate::device::{AttentionShape, Rows};

/// Multiplications below which attention stays on the calling thread.
const SERIAL_BELOW: usize = 1 << 17;

/// Some consecutive (row, head) pairs.
struct Attend<'a> {
    shape: AttentionShape,
    rows: &'a Rows,
    q: &'a [f32],
    q_stride: usize,
    keys: &'a [f32],
    values: &'a [f32],
    /// Index row · heads + head of the first pair.
    first: usize,
    /// [pairs, head_dim]
    out: &'a mut [f32],
    /// Room for the scores of one pair.
    scores: &'a mut Vec<f32>,
}

/// Slot ranges of one row.
fn ranges_of(rows: &Rows, row: usize) -> &[Range<u32>] {
    let at = &rows.row_ranges[row];
    &rows.ranges[at.start as usize..at.end as usize]
}

/// Slots that a row sees.
fn slots_of(rows: &Rows, row: usize) -> usize {
    ranges_of(rows, row).iter().map(|r| r.len()).sum()
}

/// Σ_k a[k] b[k] in sixteen lanes.
#[inline(always)]
fn lane_products<L: Lanes>(l: L, a: &[f32], b: &[f32]) -> L::F {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = l.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sums = l.mul_add(l.load(a), l.load(b), sums);
    }
    if !a_rest.is_empty() {
        let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
        a[..a_rest.len()].copy_from_slice(a_rest);
        b[..b_rest.len()].copy_from_slice(b_rest);
        sums = l.mul_add(l.load(&a), l.load(&b), sums);
    }
    sums
}

/// Adds Σ_s weight[s] · values[s] to D · 16 features, slot by slot.
#[inline(always)]
fn weighted_sum<L: Lanes, const D: usize>(l: L, weights: &[f32], values: &[f32], width: usize, out: &mut [[f32; LANES]]) {
    let mut sums = [l.splat(0.0); D];
    for (d, sum) in sums.iter_mut().enumerate() {
        *sum = l.load(&out[d]);
    }
    for (weight, value) in weights.iter().zip(values.chunks(width)) {
        let weight = l.splat(*weight);
        let value = &value.as_chunks::<LANES>().0[..D];
        for (sum, value) in sums.iter_mut().zip(value) {
            *sum = l.mul_add(weight, l.load(value), *sum);
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        l.store(sum, out);
    }
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let width = kv_heads * head_dim;
        let scale = l.splat(1.0 / (head_dim as f32).sqrt());
        for (pair, out) in self.out.chunks_exact_mut(head_dim).enumerate() {
            let (row, head) = ((self.first + pair) / heads, (self.first + pair) % heads);
            let at = head / (heads / kv_heads) * head_dim;
            let q = &self.q[row * self.q_stride + head * head_dim..][..head_dim];
            let ranges = ranges_of(self.rows, row);
            let slots = slots_of(self.rows, row);
            out.fill(0.0);
            if slots == 0 {
                continue;
            }

            // Scores, one after another over all ranges; lanes beyond the last slot are −∞.
            self.scores.clear();
            self.scores.resize(slots.next_multiple_of(LANES), f32::NEG_INFINITY);
            let mut written = 0;
            for range in ranges {
                let mut slot = range.start as usize;
                while slot < range.end as usize {
                    let count = (range.end as usize - slot).min(LANES);
                    let mut products = [l.splat(0.0); LANES];
                    for (i, product) in products.iter_mut().enumerate().take(count) {
                        *product = lane_products(l, q, &self.keys[(slot + i) * width + at..][..head_dim]);
                    }
                    let mut sums = [0.0; LANES];
                    l.store(l.mul(l.sums(products), scale), &mut sums);
                    self.scores[written..written + count].copy_from_slice(&sums[..count]);
                    (slot, written) = (slot + count, written + count);
                }
            }

            let (scores, _) = self.scores.as_chunks_mut::<LANES>();
            let mut largest = l.splat(f32::NEG_INFINITY);
            for scores in scores.iter() {
                largest = l.max(l.load(scores), largest);
            }
            let largest = l.splat(l.largest(largest));
            let mut total = l.splat(0.0);
            for scores in scores.iter_mut() {
                let weights = exp(l, l.sub(l.load(scores), largest));
                total = l.add(total, weights);
                l.store(weights, scores);
            }
            let total = l.sum(total);

            let (full, rest) = out.as_chunks_mut::<LANES>();
            let mut read = 0;
            for range in ranges {
                let values = &self.values[range.start as usize * width + at..];
                let weights = &self.scores[read..read + range.len()];
                read += range.len();
                let mut done = 0;
                while done < full.len() {
                    let step = if full.len() - done >= 4 { 4 } else { 1 };
                    let values = &values[done * LANES..];
                    match step {
                        4 => weighted_sum::<L, 4>(l, weights, values, width, &mut full[done..done + 4]),
                        _ => weighted_sum::<L, 1>(l, weights, values, width, &mut full[done..done + 1]),
                    }
                    done += step;
                }
                for (k, out) in rest.iter_mut().enumerate() {
                    for (weight, value) in weights.iter().zip(values.chunks(width)) {
                        *out += weight * value[done * LANES + k];
                    }
                }
            }
            for out in out {
                *out /= total;
            }
        }
    }
}

/// The first (row, head) pair before which at least `work` slots are seen, where every pair counts for its slots and one more.
fn pair_at(rows: &Rows, heads: usize, work: usize) -> usize {
    let mut before = 0;
    for row in 0..rows.row_ranges.len() {
        let each = slots_of(rows, row) + 1;
        if before + each * heads >= work {
            return row * heads + (work - before).div_ceil(each);
        }
        before += each * heads;
    }
    rows.row_ranges.len() * heads
}

impl Cpu {
    /// See [`Device::attention`](crate::device::Device::attention).
    #[expect(clippy::too_many_arguments, reason = "one op, its tensors and its shape")]
    pub fn attention(&self, shape: AttentionShape, rows: &Rows, q: &[f32], q_stride: usize, keys: &[f32], values: &[f32], out: &mut [f32]) {
        let AttentionShape { heads, head_dim, .. } = shape;
        let n = rows.row_ranges.len();
        let out = &mut out[..n * heads * head_dim];
        if out.is_empty() {
            return;
        }
        let work: usize = (0..n).map(|row| slots_of(rows, row) + 1).sum();
        let parts = if 2 * work * heads * head_dim < SERIAL_BELOW { 1 } else { self.threads().min(n * heads) };

        let output = Parts::new(out);
        self.split(parts, |part| {
            // Rows see different numbers of slots: the cuts lie where the work is equal.
            let pairs = pair_at(rows, heads, work * heads * part / parts)..pair_at(rows, heads, work * heads * (part + 1) / parts);
            let mut scratch = self.scratch();
            // SAFETY: `pair_at` grows with the work, so the ranges of different parts do not overlap.
            let out = unsafe { output.part(pairs.start * head_dim..pairs.end * head_dim) };
            self.run(Attend { shape, rows, q, q_stride, keys, values, first: pairs.start, out, scores: &mut scratch.scores });
            self.put_back(scratch);
        });
    }
}
