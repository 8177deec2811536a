//! MMD: codes should be distributed as the LLaMA's token embeddings are (LLM-AR eq. 6).

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What stands between a code and the embeddings it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Map {
    /// Codes as they are against embeddings as they are (the paper); needs as many features in a code as in an embedding.
    Raw,
    /// Codes as they are against embeddings with their mean taken away and divided by one spread, so that the mean norm is the codes'; needs
    /// equal feature counts.
    Standardised,
    /// Codes through a learned affine map against embeddings as they are.
    Affine,
}

/// Bandwidths as multiples of the median squared distance.
const BANDWIDTHS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// ‖x_i − y_j‖², [n, m].
fn squared_distances(x: &Tensor, y: &Tensor) -> Tensor {
    let norms = |a: &Tensor| a.square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
    (norms(x).unsqueeze(1) + norms(y).unsqueeze(0) - x.matmul(&y.tr()) * 2.0).clamp_min(0.0)
}

/// Unbiased squared maximum mean discrepancy between samples x [n, d] and y [m, d], n and m ≥ 2: mean over five Gaussian kernels
/// exp(−‖·‖² / (b · median)); about 0 (also a little below) for samples of one distribution.
pub fn loss(x: &Tensor, y: &Tensor) -> Tensor {
    let (n, m) = (x.size()[0] as f64, y.size()[0] as f64);
    let (xx, yy, xy) = (squared_distances(x, x), squared_distances(y, y), squared_distances(x, y));
    let median = xy.detach().median().clamp_min(1e-12);
    let mut total = Tensor::zeros([], (Kind::Float, x.device()));
    for b in BANDWIDTHS {
        let kernel = |d: &Tensor| (-(d / (&median * b))).exp();
        // The diagonals are exp(0) = 1 each.
        let within = |d: &Tensor, n: f64| (kernel(d).sum(Kind::Float) - n) / (n * (n - 1.0));
        total += within(&xx, n) + within(&yy, m) - kernel(&xy).mean(Kind::Float) * 2.0;
    }
    total / BANDWIDTHS.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{Rng, number};

    fn sample(index: u64, shift: f32) -> Tensor {
        let mut rng = Rng::new(5, "mmd", index);
        let drawn: Vec<f32> = (0..400 * 8).map(|_| rng.normal() + shift).collect();
        Tensor::from_slice(&drawn).view([400, 8])
    }

    #[test]
    fn equal_and_shifted_samples() {
        let same = number(&loss(&sample(0, 0.0), &sample(1, 0.0)));
        let shifted = number(&loss(&sample(0, 0.0), &sample(1, 0.5)));
        assert!(same.abs() < 5e-3, "equal sources: {same}");
        assert!(shifted > 10.0 * same.abs() && shifted > 0.02, "shifted: {shifted}");
    }
}
