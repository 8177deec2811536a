//! Soft counts of codes with a gradient: straight-through Gumbel-softmax (Jang et al. 2017) over negative distances.

use tch::{Kind, Tensor};

/// One-hot rows [n, codes] drawn from softmax(logits / tau): exact one-hot forward, the softmax's gradient backward. With `noise` false the
/// largest logit is taken, no draw.
pub fn one_hot(logits: &Tensor, tau: f64, noise: bool) -> Tensor {
    let logits = if noise {
        let uniform = logits.rand_like().clamp(1e-20, 1.0 - 1e-7);
        logits - (-uniform.log()).log()
    } else {
        logits.shallow_clone()
    };
    let soft = (&logits / tau).softmax(-1, Kind::Float);
    let hard = soft.detach().zeros_like().scatter_value(-1, &logits.detach().argmax(-1, true), 1.0);
    hard - soft.detach() + soft
}

/// Counts of each code a clip, [batch, codes], from one-hot rows [batch · w, codes].
pub fn per_clip(one_hot: &Tensor, batch: i64) -> Tensor {
    let codes = one_hot.size()[1];
    one_hot.view([batch, -1, codes]).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
}
