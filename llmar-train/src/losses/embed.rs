//! L_embed: moves codes to the features they stand for (VQ-VAE, LLM-AR eq. 11, in tangent space).

use tch::{Kind, Tensor};

/// Mean over tokens of ‖sg(f) − v‖², for features and codes [n, dim]; gradient to the codes only.
pub fn loss(features: &Tensor, codes: &Tensor) -> Tensor {
    (features.detach() - codes).square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float).mean(Kind::Float)
}
