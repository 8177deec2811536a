//! L_commit: keeps features near their codes (VQ-VAE, LLM-AR eq. 11).

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::vqvae::Ball;

/// Where the distance between a feature and its code is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// ‖f − sg(v)‖² in tangent space, as the paper prints it.
    Tangent,
    /// d(exp₀ f, sg(c))² in the quantiser's geometry.
    Geodesic,
}

/// Mean over tokens of the squared distance between features and codes [n, dim] (tangent vectors); gradient to the features only.
pub fn loss(features: &Tensor, codes: &Tensor, metric: Metric, ball: Ball) -> Tensor {
    let codes = codes.detach();
    match metric {
        Metric::Tangent => (features - codes).square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float).mean(Kind::Float),
        Metric::Geodesic => ball.distance(features, &codes).square().mean(Kind::Float),
    }
}
