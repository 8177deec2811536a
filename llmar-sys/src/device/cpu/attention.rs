//! Attention over slot ranges: scores for sixteen slots at a time, softmax in two passes, weighted sum of the values.
//!
//! Heads that share their keys and values are computed side by side, so that each key is loaded once for all of them. The sums of a (row, head) go
//! in a fixed order of slots and lanes, whatever stands beside it, so heads, threads and batches do not change a bit.

use std::ops::Range;

use super::Cpu;
use super::lanes::{Kernel, LANES, Lanes, exp};
use super::parts::Parts;
use crate::device::{AttentionShape, Rows};

/// Multiplications below which attention stays on the calling thread.
const SERIAL_BELOW: usize = 1 << 17;

/// Some consecutive (row, key head) pairs, each with all query heads that share the key head.
struct Attend<'a> {
    shape: AttentionShape,
    rows: &'a Rows,
    q: &'a [f32],
    q_stride: usize,
    keys: &'a [f32],
    values: &'a [f32],
    /// Index row · kv_heads + key head of the first pair.
    first: usize,
    /// [pairs, heads / kv_heads, head_dim]
    out: &'a mut [f32],
    /// Room for the scores of a pair.
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

/// Per head h Σ_k q[h][k] key[k] in sixteen lanes.
#[inline(always)]
fn lane_products<L: Lanes, const H: usize>(l: L, q: [&[f32]; H], key: &[f32]) -> [L::F; H] {
    let (key, key_rest) = key.as_chunks::<LANES>();
    let q = q.map(|q| {
        let (full, rest) = q.as_chunks::<LANES>();
        (&full[..key.len()], rest)
    });
    let mut sums = [l.splat(0.0); H];
    for (k, key) in key.iter().enumerate() {
        let key = l.load(key);
        for h in 0..H {
            sums[h] = l.mul_add(l.load(&q[h].0[k]), key, sums[h]);
        }
    }
    if !key_rest.is_empty() {
        let mut padded = [0.0; LANES];
        padded[..key_rest.len()].copy_from_slice(key_rest);
        let key = l.load(&padded);
        for h in 0..H {
            let mut padded = [0.0; LANES];
            padded[..q[h].1.len()].copy_from_slice(q[h].1);
            sums[h] = l.mul_add(l.load(&padded), key, sums[h]);
        }
    }
    sums
}

/// Adds, per head h, Σ_s weights[h][s] · values[s] to D · 16 features, slot by slot.
#[inline(always)]
fn weighted_sum<L: Lanes, const H: usize, const D: usize>(l: L, weights: [&[f32]; H], values: &[f32], width: usize, out: [&mut [f32]; H]) {
    let out = out.map(|out| &mut out.as_chunks_mut::<LANES>().0[..D]);
    let mut sums = [[l.splat(0.0); D]; H];
    for h in 0..H {
        for d in 0..D {
            sums[h][d] = l.load(&out[h][d]);
        }
    }
    let weights = weights.map(|w| &w[..weights[0].len()]);
    for (slot, value) in (0..weights[0].len()).zip(values.chunks(width)) {
        let value = &value.as_chunks::<LANES>().0[..D];
        for h in 0..H {
            let weight = l.splat(weights[h][slot]);
            for d in 0..D {
                sums[h][d] = l.mul_add(weight, l.load(&value[d]), sums[h][d]);
            }
        }
    }
    for (sums, out) in sums.into_iter().zip(out) {
        for (sum, out) in sums.into_iter().zip(out) {
            l.store(sum, out);
        }
    }
}

/// Scores become weights, exp(score − largest); returns their sum.
#[inline(always)]
fn soft_weights<L: Lanes>(l: L, scores: &mut [f32]) -> f32 {
    let (scores, _) = scores.as_chunks_mut::<LANES>();
    let mut largest = l.splat(f32::NEG_INFINITY);
    for scores in scores.iter() {
        largest = l.max(l.load(scores), largest);
    }
    let largest = l.splat(l.largest(largest));
    let mut total = l.splat(0.0);
    for scores in scores {
        let weights = exp(l, l.sub(l.load(scores), largest));
        total = l.add(total, weights);
        l.store(weights, scores);
    }
    l.sum(total)
}

/// What the heads of one row look at: keys and values of one key head.
#[derive(Clone, Copy)]
struct Seen<'a> {
    ranges: &'a [Range<u32>],
    /// Number of slots in them, at least 1.
    slots: usize,
    /// First feature of the first slot.
    keys: &'a [f32],
    values: &'a [f32],
    /// From slot to slot.
    width: usize,
}

/// H heads, q and out [H, head_dim], over the same keys and values.
#[inline(always)]
fn attend<L: Lanes, const H: usize>(l: L, q: &[f32], seen: Seen<'_>, scores: &mut Vec<f32>, out: &mut [f32]) {
    if H > L::HEADS_TOGETHER {
        return; // never taken; keeps the code from being compiled for this instruction set
    }
    let Seen { ranges, slots, keys, values, width } = seen;
    let head_dim = q.len() / H;
    let scale = l.splat(1.0 / (head_dim as f32).sqrt());
    let q: [&[f32]; H] = std::array::from_fn(|h| &q[h * head_dim..][..head_dim]);

    // Scores, one after another over all ranges; lanes beyond the last slot are −∞.
    let padded = slots.next_multiple_of(LANES);
    scores.clear();
    scores.resize(H * padded, f32::NEG_INFINITY);
    let mut written = 0;
    for range in ranges {
        let mut slot = range.start as usize;
        while slot < range.end as usize {
            let count = (range.end as usize - slot).min(LANES);
            let mut products = [[l.splat(0.0); LANES]; H];
            for i in 0..count {
                let of_slot = lane_products(l, q, &keys[(slot + i) * width..][..head_dim]);
                for h in 0..H {
                    products[h][i] = of_slot[h];
                }
            }
            for (h, products) in products.into_iter().enumerate() {
                let mut sums = [0.0; LANES];
                l.store(l.mul(l.sums(products), scale), &mut sums);
                scores[h * padded + written..][..count].copy_from_slice(&sums[..count]);
            }
            (slot, written) = (slot + count, written + count);
        }
    }
    let mut totals = [0.0; H];
    for (total, scores) in totals.iter_mut().zip(scores.chunks_exact_mut(padded)) {
        *total = soft_weights(l, scores);
    }

    out.fill(0.0);
    let full = head_dim / LANES * LANES;
    let mut read = 0;
    for range in ranges {
        let values = &values[range.start as usize * width..];
        let weights: [&[f32]; H] = std::array::from_fn(|h| &scores[h * padded + read..][..range.len()]);
        read += range.len();
        let mut done = 0;
        while done < full {
            let mut heads = out.chunks_exact_mut(head_dim);
            let heads = std::array::from_fn(|_| heads.next().map_or(&mut [][..], |out| &mut out[done..]));
            if full - done >= 4 * LANES {
                weighted_sum::<L, H, 4>(l, weights, &values[done..], width, heads);
                done += 4 * LANES;
            } else {
                weighted_sum::<L, H, 1>(l, weights, &values[done..], width, heads);
                done += LANES;
            }
        }
        for (weights, out) in weights.into_iter().zip(out.chunks_exact_mut(head_dim)) {
            for (k, out) in out.iter_mut().enumerate().skip(full) {
                for (weight, value) in weights.iter().zip(values.chunks(width)) {
                    *out += weight * value[k];
                }
            }
        }
    }
    for (total, out) in totals.into_iter().zip(out.chunks_exact_mut(head_dim)) {
        for out in out {
            *out /= total;
        }
    }
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let (shared, width) = (heads / kv_heads, kv_heads * head_dim);
        for (pair, out) in self.out.chunks_exact_mut(shared * head_dim).enumerate() {
            let (row, kv_head) = ((self.first + pair) / kv_heads, (self.first + pair) % kv_heads);
            let q = &self.q[row * self.q_stride + kv_head * shared * head_dim..][..shared * head_dim];
            let slots = slots_of(self.rows, row);
            if slots == 0 {
                out.fill(0.0);
                continue;
            }
            let at = kv_head * head_dim;
            let seen = Seen { ranges: ranges_of(self.rows, row), slots, keys: &self.keys[at..], values: &self.values[at..], width };
            let together = L::HEADS_TOGETHER * head_dim;
            for (q, out) in q.chunks(together).zip(out.chunks_mut(together)) {
                match q.len() / head_dim {
                    1 => attend::<L, 1>(l, q, seen, self.scores, out),
                    2 => attend::<L, 2>(l, q, seen, self.scores, out),
                    3 => attend::<L, 3>(l, q, seen, self.scores, out),
                    _ => attend::<L, 4>(l, q, seen, self.scores, out),
                }
            }
        }
    }
}

/// The first (row, key head) pair before which at least `work` slots are seen, where every pair counts for its slots and one more.
fn pair_at(rows: &Rows, kv_heads: usize, work: usize) -> usize {
    let mut before = 0;
    for row in 0..rows.row_ranges.len() {
        let each = slots_of(rows, row) + 1;
        if before + each * kv_heads >= work {
            return row * kv_heads + (work - before).div_ceil(each);
        }
        before += each * kv_heads;
    }
    rows.row_ranges.len() * kv_heads
}

impl Cpu {
    /// See [`Device::attention`](crate::device::Device::attention).
    #[expect(clippy::too_many_arguments, reason = "one op, its tensors and its shape")]
    pub fn attention(&self, shape: AttentionShape, rows: &Rows, q: &[f32], q_stride: usize, keys: &[f32], values: &[f32], out: &mut [f32]) {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let n = rows.row_ranges.len();
        let out = &mut out[..n * heads * head_dim];
        if out.is_empty() {
            return;
        }
        let work: usize = (0..n).map(|row| slots_of(rows, row) + 1).sum();
        let parts = if 2 * work * heads * head_dim < SERIAL_BELOW { 1 } else { self.threads().min(n * kv_heads) };

        let each = heads / kv_heads * head_dim;
        let output = Parts::new(out);
        self.split(parts, |part| {
            // Rows see different numbers of slots: the cuts lie where the work is equal.
            let pairs =
                pair_at(rows, kv_heads, work * kv_heads * part / parts)..pair_at(rows, kv_heads, work * kv_heads * (part + 1) / parts);
            let mut scratch = self.scratch();
            // SAFETY: `pair_at` grows with the work, so the ranges of different parts do not overlap.
            let out = unsafe { output.part(pairs.start * each..pairs.end * each) };
            self.run(Attend { shape, rows, q, q_stride, keys, values, first: pairs.start, out, scores: &mut scratch.scores });
            self.put_back(scratch);
        });
    }
}
