//! Cross-entropy of action labels: not in the paper; it gives the encoder features that tell actions apart where data are few.

use tch::{Reduction, Tensor};

/// Mean cross-entropy of logits [batch, labels] against labels `[batch]` (i64), targets smoothed by `smoothing` in 0..1.
pub fn loss(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Tensor {
    logits.cross_entropy_loss(labels, None::<&Tensor>, Reduction::Mean, -100, smoothing)
}
