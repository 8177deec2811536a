//! Rounding weights to the quantised schemes, one group of at most [`GROUP`] columns of one row at a time.

use half::f16;

use super::matrix::GROUP;

/// Largest finite f16.
const F16_MAX: f32 = 65504.0;
/// Largest q8 quant; −128 is not used, so that a pair of products fits 16 bits.
const Q8_MAX: f32 = 127.0;
/// Largest q4 quant.
const Q4_MAX: f32 = 15.0;

/// Nearest f16; a finite or infinite value beyond its range becomes ±65504. NaN stays NaN.
pub(super) fn to_f16(value: f32) -> f16 {
    f16::from_f32(value.clamp(-F16_MAX, F16_MAX))
}

/// w ≈ q · scale with q in −127..=127. The scale is rounded to f16 first and the quants fit the rounded scale. NaN becomes 0.
pub(super) fn quantize_q8(w: &[f32]) -> ([i8; GROUP], f16) {
    let largest = w.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    let mut quants = [0i8; GROUP];
    if largest == 0.0 {
        return (quants, f16::ZERO);
    }
    let mut scale = to_f16(largest / Q8_MAX);
    // A subnormal scale may be rounded down by so much that the largest weight would be cut off.
    if largest > scale.to_f32() * (Q8_MAX + 0.5) && scale < f16::MAX {
        scale = f16::from_bits(scale.to_bits() + 1);
    }
    let s = scale.to_f32();
    for (quant, &w) in quants.iter_mut().zip(w) {
        *quant = (w / s).round_ties_even().clamp(-Q8_MAX, Q8_MAX) as i8;
    }
    (quants, scale)
}

/// w ≈ q · scale + min with q in 0..=15. Non-finite weights saturate, NaN becomes 0.
pub(super) fn quantize_q4(w: &[f32]) -> ([u8; GROUP], f16, f16) {
    let mut clean = [0.0f32; GROUP];
    for (clean, &w) in clean.iter_mut().zip(w) {
        *clean = if w.is_nan() { 0.0 } else { w.clamp(-F16_MAX, F16_MAX) };
    }
    let w = &clean[..w.len()];
    let low = w.iter().copied().fold(f32::INFINITY, f32::min);
    let high = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // The full range loses least at its ends; pulling them in makes the steps finer for the many weights in between. From each range, the best
    // line through the quants (least squares) is tried as well. On normal weights this lowers the mean squared error by 14 %.
    let mut best: Option<(f32, [u8; GROUP], f16, f16)> = None;
    for shrink in [0.0, 0.03, 0.06, 0.09, 0.12] {
        let cut = (high - low) * shrink * 0.5;
        let (mut scale, mut min) = (to_f16((high - low - 2.0 * cut) / Q4_MAX), to_f16(low + cut));
        for _ in 0..2 {
            let quants = q4_quants(w, scale.to_f32(), min.to_f32());
            let error = q4_error(w, &quants, scale.to_f32(), min.to_f32());
            // A comparison that also holds for an error that overflowed.
            if best.as_ref().is_none_or(|best| error < best.0) {
                best = Some((error, quants, scale, min));
            }
            match line_through(w, &quants) {
                Some((s, m)) => (scale, min) = (to_f16(s), to_f16(m)),
                None => break,
            }
        }
    }
    best.map_or(([0; GROUP], f16::ZERO, f16::ZERO), |(_, quants, scale, min)| (quants, scale, min))
}

/// Σ (w − q · scale − min)²
fn q4_error(w: &[f32], quants: &[u8; GROUP], scale: f32, min: f32) -> f32 {
    w.iter().zip(quants).map(|(&w, &q)| (w - (f32::from(q) * scale + min)).powi(2)).sum()
}

/// (scale, minimum) of the line w ≈ q · scale + min with the least squared error; `None` when all quants are the same or the slope is not above
/// zero.
fn line_through(w: &[f32], quants: &[u8; GROUP]) -> Option<(f32, f32)> {
    let n = w.len() as f32;
    let (mut q_sum, mut qq_sum, mut w_sum, mut qw_sum) = (0.0f32, 0.0, 0.0, 0.0);
    for (&w, &q) in w.iter().zip(quants) {
        let q = f32::from(q);
        q_sum += q;
        qq_sum += q * q;
        w_sum += w;
        qw_sum += q * w;
    }
    let spread = n * qq_sum - q_sum * q_sum;
    let scale = (n * qw_sum - q_sum * w_sum) / spread;
    (spread > 0.0 && scale > 0.0 && scale.is_finite()).then(|| (scale, (w_sum - scale * q_sum) / n))
}

/// Nearest quants for a given scale and minimum.
fn q4_quants(w: &[f32], scale: f32, min: f32) -> [u8; GROUP] {
    let mut quants = [0u8; GROUP];
    if scale > 0.0 {
        for (quant, &w) in quants.iter_mut().zip(w) {
            *quant = ((w - min) / scale).round_ties_even().clamp(0.0, Q4_MAX) as u8;
        }
    }
    quants
}
