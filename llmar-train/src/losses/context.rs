//! L_context: codes u and u + U/2 should come together in a sentence, as opening and closing words do (LLM-AR eqs. 4 and 5).

use tch::{Kind, Tensor};

/// 1 − Σ_b Corr(t_b) / (B·W) for counts t [B, U] of sentences of W tokens, U even, Corr(t) = 2 Σ_u min(t_u, t_{u+U/2}). 0: fully paired;
/// 1: no pair.
pub fn loss(counts: &Tensor) -> Tensor {
    let half = counts.size()[1] / 2;
    let paired = counts.narrow(1, 0, half).minimum(&counts.narrow(1, half, half)).sum(Kind::Float) * 2.0;
    -(paired / counts.sum(Kind::Float)) + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::number;

    #[test]
    fn paired_and_unpaired() {
        let paired = Tensor::from_slice(&[2f32, 0., 1., 2., 0., 1., 0., 3., 0., 0., 3., 0.]).view([2, 6]);
        assert!(number(&loss(&paired)).abs() < 1e-6);
        let apart = Tensor::from_slice(&[2f32, 0., 4., 0., 0., 0.]).view([1, 6]);
        assert!((number(&loss(&apart)) - 1.0).abs() < 1e-6);
        // One of two pairs complete: 2 · 1 of 4 tokens.
        let half = Tensor::from_slice(&[1f32, 2., 0., 1., 0., 0.]).view([1, 6]);
        assert!((number(&loss(&half)) - 0.5).abs() < 1e-6);
    }
}
