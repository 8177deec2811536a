//! Ops without a matrix: RMSNorm, SwiGLU, log-sum-exp. Cheap beside the products; SwiGLU and log-sum-exp of many values are split over threads.

use super::Cpu;
use super::lanes::{Kernel, LANES, Lanes, exp};
use super::parts::Parts;

/// Elements of SwiGLU or log-sum-exp below which they stay on the calling thread: about 4 µs.
const SERIAL_BELOW: usize = 1 << 13;

/// The first `len` ≤ 16 values of `from`, then `fill`.
#[inline(always)]
fn load_part<L: Lanes>(l: L, from: &[f32], fill: f32) -> L::F {
    let mut padded = [fill; LANES];
    padded[..from.len()].copy_from_slice(from);
    l.load(&padded)
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let d = self.weight.len();
        for (x, y) in self.x.chunks_exact(d).zip(self.y.chunks_exact_mut(d)) {
            // Sixteen sums in f32, added up by a fixed tree: squares of residuals around 25,000 are far from the range's end.
            let mut sums = l.splat(0.0);
            let (full, rest) = x.as_chunks::<LANES>();
            for x in full {
                let x = l.load(x);
                sums = l.mul_add(x, x, sums);
            }
            let x_rest = load_part(l, rest, 0.0);
            sums = l.mul_add(x_rest, x_rest, sums);
            let inverse = 1.0 / (l.sum(sums) / d as f32 + self.eps).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(self.weight) {
                *y = x * inverse * w;
            }
        }
    }
}

struct SwiGlu<'a> {
    gate_up: &'a [f32],
    f: usize,
    y: &'a mut [f32],
}

impl Kernel for SwiGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for (row, y) in self.gate_up.chunks_exact(2 * self.f).zip(self.y.chunks_exact_mut(self.f)) {
            let (gate, up) = row.split_at(self.f);
            let ((gate, gate_rest), (up, up_rest)) = (gate.as_chunks::<LANES>(), up.as_chunks::<LANES>());
            let (y, y_rest) = y.as_chunks_mut::<LANES>();
            for ((gate, up), y) in gate.iter().zip(up).zip(y) {
                l.store(silu_times(l, l.load(gate), l.load(up)), y);
            }
            if !y_rest.is_empty() {
                let mut padded = [0.0; LANES];
                l.store(silu_times(l, load_part(l, gate_rest, 0.0), load_part(l, up_rest, 0.0)), &mut padded);
                y_rest.copy_from_slice(&padded[..y_rest.len()]);
            }
        }
    }
}

/// gate / (1 + e^−gate) · up
#[inline(always)]
fn silu_times<L: Lanes>(l: L, gate: L::F, up: L::F) -> L::F {
    let one = l.splat(1.0);
    let decay = exp(l, l.sub(l.splat(0.0), gate));
    l.mul(l.div(gate, l.add(one, decay)), up)
}

struct LogSumExp<'a> {
    logits: &'a [f32],
    vocab: usize,
    out: &'a mut [f32],
}

impl Kernel for LogSumExp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        // Sums of this many vectors stay in f32, which costs at most 2^-20 relatively; the sum of those sums is f64.
        const VECTORS: usize = 16;
        for (row, out) in self.logits.chunks_exact(self.vocab).zip(self.out) {
            let (full, rest) = row.as_chunks::<LANES>();
            let mut largest = load_part(l, rest, f32::NEG_INFINITY);
            for x in full {
                largest = l.max(largest, l.load(x));
            }
            let largest = l.largest(largest);
            if !largest.is_finite() {
                *out = if row.iter().any(|x| x.is_nan()) { f32::NAN } else { largest };
                continue;
            }
            let shift = l.splat(largest);
            let mut total = 0.0f64;
            for chunk in row.chunks(VECTORS * LANES) {
                let mut sums = l.splat(0.0);
                let (full, rest) = chunk.as_chunks::<LANES>();
                for x in full {
                    sums = l.add(sums, exp(l, l.sub(l.load(x), shift)));
                }
                if !rest.is_empty() {
                    sums = l.add(sums, exp(l, l.sub(load_part(l, rest, f32::NEG_INFINITY), shift)));
                }
                total += f64::from(l.sum(sums));
            }
            *out = (f64::from(largest) + total.ln()) as f32;
        }
    }
}

impl Cpu {
    /// See [`Device::rms_norm`](crate::device::Device::rms_norm).
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        if !weight.is_empty() {
            self.run(RmsNorm { x, weight, eps, y });
        }
    }

    /// y [n, f] = silu(gate) · up, where each row of `gate_up` [n, 2f] is gate then up.
    pub fn swiglu(&self, gate_up: &[f32], f: usize, y: &mut [f32]) {
        if f == 0 {
            return;
        }
        let n = gate_up.len() / (2 * f);
        let parts = if n * f < SERIAL_BELOW { 1 } else { n.min(self.threads()) };
        let y = Parts::new(&mut y[..n * f]);
        self.split(parts, |part| {
            let rows = n * part / parts..n * (part + 1) / parts;
            // SAFETY: the parts' rows do not overlap.
            let y = unsafe { y.part(rows.start * f..rows.end * f) };
            self.run(SwiGlu { gate_up: &gate_up[rows.start * 2 * f..rows.end * 2 * f], f, y });
        });
    }

    /// Per row of logits [n, vocab]: ln Σ exp, in f64 inside.
    pub(super) fn log_sum_exp(&self, logits: &[f32], vocab: usize, out: &mut [f32]) {
        if vocab == 0 {
            return;
        }
        let n = out.len();
        let parts = if n * vocab < SERIAL_BELOW { 1 } else { n.min(self.threads()) };
        let out = Parts::new(out);
        self.split(parts, |part| {
            let rows = n * part / parts..n * (part + 1) / parts;
            // SAFETY: the parts' rows do not overlap.
            let out = unsafe { out.part(rows.clone()) };
            self.run(LogSumExp { logits: &logits[rows.start * vocab..rows.end * vocab], vocab, out });
        });
    }

    /// See [`Device::log_softmax_at`](crate::device::Device::log_softmax_at); adds to the end of `out`.
    pub fn log_softmax_at(&self, logits: &[f32], vocab: usize, ends: &[usize], tokens: &[u32], out: &mut Vec<f64>) {
        let mut scratch = self.scratch();
        let normalisers = &mut scratch.scores;
        normalisers.clear();
        normalisers.resize(ends.len(), 0.0);
        self.log_sum_exp(logits, vocab, normalisers);
        let mut start = 0;
        for ((row, &normaliser), &end) in logits.chunks_exact(vocab).zip(normalisers.iter()).zip(ends) {
            out.extend(tokens[start..end].iter().map(|&token| f64::from(row[token as usize]) - f64::from(normaliser)));
            start = end;
        }
        self.put_back(scratch);
    }
}
