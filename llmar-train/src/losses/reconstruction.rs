//! L_re: smooth L1 between a clip and what the decoder makes of its codes (LLM-AR eq. 10), plus the same on frame differences (T2M-GPT).

use tch::{Reduction, Tensor};

/// Mean smooth L1 over `predicted` and `target` [batch, frames, features], plus `velocity` times that of their frame differences.
pub fn loss(predicted: &Tensor, target: &Tensor, velocity: f64) -> Tensor {
    let whole = predicted.smooth_l1_loss(target, Reduction::Mean, 1.0);
    if velocity == 0.0 {
        return whole;
    }
    let step = |x: &Tensor| x.diff(1, 1, None::<&Tensor>, None::<&Tensor>);
    whole + step(predicted).smooth_l1_loss(&step(target), Reduction::Mean, 1.0) * velocity
}
