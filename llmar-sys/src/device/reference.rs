//! The naive oracle: one plain function an op, never optimised. Every backend is compared with these.
//!
//! Sums run in f64 and from left to right. Shapes and units are those of [`Cpu`](super::Cpu)'s methods of the same names.

use super::matrix::{GROUP, Scheme};
use super::{AttentionShape, Codebook, Conv1d, Geometry, Matrix, Rows, Store};

/// Activations of one group as the quantised schemes see them: x ≈ q · scale, with q in −127..=127.
///
/// scale = max|x| / 127 and q = x · (127 / max|x|), all in f32, rounded to the nearest integer, ties to even. A group whose largest
/// magnitude is below 1e-30 is zero. A group that holds a value that is not finite has scale NaN, so every output that sees it is NaN.
pub fn quantize_activations(x: &[f32]) -> (Vec<i8>, f32) {
    if x.iter().any(|x| !x.is_finite()) {
        return (vec![0; x.len()], f32::NAN);
    }
    let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    if largest < 1e-30 {
        return (vec![0; x.len()], 0.0);
    }
    let inverse = 127.0 / largest;
    (x.iter().map(|x| (x * inverse).round_ties_even() as i8).collect(), largest / 127.0)
}

/// y [n, rows] = W x (or += W x). For q8 and q4, of the dequantised weights and the rounded activations.
pub fn linear(w: &Matrix, x: &[f32], n: usize, y: &mut [f32], store: Store) {
    let mut row = vec![0.0f32; w.cols];
    for i in 0..n {
        let x = &x[i * w.cols..(i + 1) * w.cols];
        let x: Vec<f64> = match w.scheme() {
            Scheme::F32 | Scheme::F16 => x.iter().map(|&x| f64::from(x)).collect(),
            Scheme::Q8 | Scheme::Q4 => x
                .chunks(GROUP)
                .flat_map(|group| {
                    let (quants, scale) = quantize_activations(group);
                    quants.into_iter().map(move |q| f64::from(q) * f64::from(scale))
                })
                .collect(),
        };
        for r in 0..w.rows {
            w.row(r, &mut row);
            let sum: f64 = row.iter().zip(&x).map(|(&w, &x)| f64::from(w) * x).sum();
            let y = &mut y[i * w.rows + r];
            match store {
                Store::Overwrite => *y = sum as f32,
                Store::Add => *y += sum as f32,
            }
        }
    }
}

/// `y[i] = x[i] · weight / √(mean(x[i]²) + eps)`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let d = weight.len();
    for (x, y) in x.chunks(d).zip(y.chunks_mut(d)) {
        let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / d as f64;
        let inverse = 1.0 / (mean + f64::from(eps)).sqrt();
        for k in 0..d {
            y[k] = (f64::from(x[k]) * inverse * f64::from(weight[k])) as f32;
        }
    }
}

/// Angle of one pair, in f32 as the model was trained: position · (1 / theta^(2i/head_dim)).
pub fn rope_angle(position: u32, i: usize, head_dim: usize, theta: f32) -> f32 {
    let exponent = (2 * i) as f32 / head_dim as f32;
    let power = f64::from(theta).powf(f64::from(exponent)) as f32;
    position as f32 * (1.0 / power)
}

/// Rotates half-split pairs in place.
pub fn rope(x: &mut [f32], stride: usize, heads: usize, head_dim: usize, positions: &[u32], theta: f32) {
    let half = head_dim / 2;
    for (row, &position) in x.chunks_mut(stride).zip(positions) {
        for head in row[..heads * head_dim].chunks_mut(head_dim) {
            for i in 0..half {
                let angle = f64::from(rope_angle(position, i, head_dim, theta));
                let (a, b) = (f64::from(head[i]), f64::from(head[i + half]));
                head[i] = (a * angle.cos() - b * angle.sin()) as f32;
                head[i + half] = (b * angle.cos() + a * angle.sin()) as f32;
            }
        }
    }
}

/// softmax(q·k/√head_dim) v over the slots each row sees; zero for a row that sees none.
pub fn attention(shape: AttentionShape, rows: &Rows, q: &[f32], q_stride: usize, keys: &[f32], values: &[f32], out: &mut [f32]) {
    let d = shape.head_dim;
    let kv_width = shape.kv_heads * d;
    for i in 0..rows.position.len() {
        let ranges = &rows.ranges[rows.row_ranges[i].start as usize..rows.row_ranges[i].end as usize];
        let slots: Vec<usize> = ranges.iter().cloned().flatten().map(|s| s as usize).collect();
        for head in 0..shape.heads {
            let kv = head / (shape.heads / shape.kv_heads) * d;
            let q = &q[i * q_stride + head * d..][..d];
            let scores: Vec<f64> = slots
                .iter()
                .map(|s| {
                    let key = &keys[s * kv_width + kv..][..d];
                    q.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() / (d as f64).sqrt()
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for k in 0..d {
                let sum: f64 = slots.iter().zip(&weights).map(|(s, w)| w * f64::from(values[s * kv_width + kv + k])).sum();
                out[(i * shape.heads + head) * d + k] = if slots.is_empty() { 0.0 } else { (sum / total) as f32 };
            }
        }
    }
}

/// silu(gate) · up.
pub fn swiglu(gate_up: &[f32], f: usize, y: &mut [f32]) {
    for (row, y) in gate_up.chunks(2 * f).zip(y.chunks_mut(f)) {
        for k in 0..f {
            let gate = f64::from(row[k]);
            y[k] = (gate / (1.0 + (-gate).exp()) * f64::from(row[f + k])) as f32;
        }
    }
}

/// ln Σ exp of each row.
pub fn log_sum_exp(logits: &[f32], vocab: usize, out: &mut [f32]) {
    for (row, out) in logits.chunks(vocab).zip(out) {
        let largest = row.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x)));
        let sum: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
        *out = if largest.is_infinite() && !sum.is_finite() { largest as f32 } else { (largest + sum.ln()) as f32 };
    }
}

/// b + Σ_tap W_tap x[t·stride + tap·dilation − left].
pub fn conv1d(conv: &Conv1d, x: &[f32], frames: usize, relu_in: bool, y: &mut [f32], store: Store) {
    let c_out = conv.weight.rows;
    let c_in = conv.weight.cols / conv.kernel;
    let mut row = vec![0.0f32; conv.weight.cols];
    for t in 0..conv.out_len(frames) {
        for o in 0..c_out {
            conv.weight.row(o, &mut row);
            let mut sum = f64::from(conv.bias.values()[o]);
            for tap in 0..conv.kernel {
                let at = (t * conv.stride + tap * conv.dilation) as isize - conv.left as isize;
                if at < 0 || at as usize >= frames {
                    continue;
                }
                for c in 0..c_in {
                    let x = x[at as usize * c_in + c];
                    let x = if relu_in { x.max(0.0) } else { x };
                    sum += f64::from(row[tap * c_in + c]) * f64::from(x);
                }
            }
            let y = &mut y[t * c_out + o];
            match store {
                Store::Overwrite => *y = sum as f32,
                Store::Add => *y += sum as f32,
            }
        }
    }
}

/// The point that a feature stands for, in f64.
pub fn point_of(geometry: Geometry, feature: &[f32]) -> Vec<f64> {
    let mut point = Vec::with_capacity(feature.len());
    push_point(geometry, feature, &mut point);
    point
}

/// [`point_of`] to the end of `points`.
pub fn push_point(geometry: Geometry, feature: &[f32], points: &mut Vec<f64>) {
    let v = feature.iter().map(|&f| f64::from(f));
    match geometry {
        Geometry::Euclidean => points.extend(v),
        Geometry::Poincare { curvature } => {
            let scaled = (f64::from(curvature) * v.clone().map(|v| v * v).sum::<f64>()).sqrt();
            let factor = if scaled > 0.0 { scaled.tanh() / scaled } else { 1.0 };
            points.extend(v.map(|v| v * factor));
        }
    }
}

/// A value that orders the codes as the distance does: ‖x − c_u‖² / (1 − c‖c_u‖²), or ‖x − c_u‖² in flat space.
pub fn code_score(codebook: &Codebook, point: &[f64], code: usize) -> f64 {
    let c = &codebook.points[code * codebook.dim..(code + 1) * codebook.dim];
    let squared: f64 = point.iter().zip(c).map(|(x, &c)| (x - f64::from(c)).powi(2)).sum();
    match codebook.geometry {
        Geometry::Euclidean => squared,
        Geometry::Poincare { curvature } => {
            let norm: f64 = c.iter().map(|&c| f64::from(c).powi(2)).sum();
            let gap = 1.0 - f64::from(curvature) * norm;
            // A point that rounding has put on the rim or beyond it is infinitely far away.
            if gap > 0.0 { squared / gap } else { f64::INFINITY }
        }
    }
}

/// Nearest code of each feature in f64, the lower index on ties.
pub fn nearest_codes(codebook: &Codebook, features: &[f32], n: usize, out: &mut [u16]) {
    for i in 0..n {
        let point = point_of(codebook.geometry, &features[i * codebook.dim..(i + 1) * codebook.dim]);
        let mut best = 0;
        let mut best_score = f64::INFINITY;
        for code in 0..codebook.codes {
            let score = code_score(codebook, &point, code);
            if score < best_score {
                (best, best_score) = (code, score);
            }
        }
        out[i] = best as u16;
    }
}
