//! Nearest codes: one matrix product picks candidates with a proven error bound, f64 decides among them.

use super::{Cpu, Scratch};
use crate::device::reference::{code_score, push_point};
use crate::device::{Codebook, Conditioning, Store};

/// Features whose scores are in memory at one time.
const BATCH: usize = 256;

impl Cpu {
    /// See [`Device::nearest_codes`](crate::device::Device::nearest_codes).
    ///
    /// With p = fl(⟨x, c_u⟩) from the f32 product, |p − ⟨x, c_u⟩| ≤ γ ‖x‖ ‖c_u‖ with γ = (d + 2) 2^-24 / (1 − …) for any order of summation, the
    /// rounding of x to f32 included. So every code's score lies in a known interval; a code whose interval lies above another's end is
    /// not the nearest. What is left, one code in the usual case, is compared by the direct ‖x − c_u‖² in f64. Near the rim the intervals grow
    /// and more codes are compared; the answer stays the f64 argmin.
    pub fn nearest_codes(&self, codebook: &Codebook, conditioning: Conditioning, features: &[f32], n: usize, out: &mut [u16]) {
        let (codes, dim) = (codebook.codes, codebook.dim);
        let gamma = (dim + 4) as f64 * f64::from(f32::EPSILON);
        let mut scratch = self.scratch();
        let Scratch { points, intervals, taps, scores, .. } = &mut scratch;
        intervals.clear();
        intervals.resize(codes, (0.0, 0.0));
        for (features, out) in features[..n * dim].chunks(BATCH * dim).zip(out[..n].chunks_mut(BATCH)) {
            let n = out.len();
            taps.clear();
            taps.extend_from_slice(features);
            conditioning.apply(dim, taps);
            points.clear();
            taps.chunks_exact(dim).for_each(|f| push_point(codebook.geometry, f, points));
            taps.clear();
            taps.extend(points.iter().map(|&x| x as f32));
            scores.clear();
            scores.resize(n * codes, 0.0);
            self.linear(&codebook.matrix, taps, n, scores, Store::Overwrite);
            for ((point, products), out) in points.chunks_exact(dim).zip(scores.chunks_exact(codes)).zip(out) {
                *out = nearest(codebook, point, products, gamma, intervals) as u16;
            }
        }
        self.put_back(scratch);
    }
}

/// The f64 argmin for one point x, given the f32 products with all codes.
fn nearest(codebook: &Codebook, point: &[f64], products: &[f32], gamma: f64, intervals: &mut [(f64, f64)]) -> usize {
    let x_squared: f64 = point.iter().map(|x| x * x).sum();
    let x_norm = x_squared.sqrt();
    let mut lowest_end = f64::INFINITY;
    for (code, interval) in intervals.iter_mut().enumerate() {
        let c_squared = codebook.squared_norm[code];
        let product = f64::from(products[code]);
        // The last term covers products that underflow.
        let error = 2.0 * gamma * x_norm * c_squared.sqrt() + 1e-30;
        let squared = x_squared - 2.0 * product + c_squared;
        let gap = codebook.inverse_gap[code];
        *interval = if squared.is_finite() && gap.is_finite() {
            ((squared - error) * gap, (squared + error) * gap)
        } else {
            (f64::NEG_INFINITY, f64::INFINITY) // overflow or a point on the rim: nothing is known
        };
        lowest_end = lowest_end.min(interval.1);
    }
    let mut best = (0, f64::INFINITY);
    for (code, interval) in intervals.iter().enumerate() {
        if interval.0 <= lowest_end {
            let score = code_score(codebook, point, code);
            if score < best.1 {
                best = (code, score);
            }
        }
    }
    best.0
}
