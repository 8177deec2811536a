//! A small classifier on frozen sentences: how much of the action the tokens still tell, with or without a supervised head.

use tch::Tensor;

use super::model::segment_means;
use crate::losses::supervised;
use crate::torch::{AdamW, Group, Params};

/// Share of `test` sentences, in percent, that a logistic regression fitted on `train` names rightly. Sentences are features or code
/// vectors [clips, w, dim] with labels [clips] (i64); the regression sees the means of `segments` parts.
pub fn accuracy(train: (&Tensor, &Tensor), test: (&Tensor, &Tensor), classes: usize, segments: usize) -> f64 {
    const STEPS: usize = 200;
    let pooled = |x: &Tensor| segment_means(&x.detach(), segments as i64) * segments as f64;
    let (x, y) = (pooled(train.0), pooled(test.0));
    let mut params = Params::new(x.device(), 0);
    let weight = params.uniform("weight", &[classes as i64, x.size()[1]], 0.01);
    let bias = params.uniform("bias", &[classes as i64], 0.0);
    let mut optimiser = AdamW::new(&params, (0.9, 0.999), vec![Group { prefix: String::new(), lr_factor: 1.0, weight_decay: 0.1 }]);
    for step in 0..STEPS {
        supervised::loss(&x.linear(&weight, Some(&bias)), train.1, 0.1).backward();
        optimiser.step(&params, 0.03 * (1.0 - step as f64 / STEPS as f64), None, 1e3);
    }
    hits(&y.linear(&weight, Some(&bias)), test.1)
}

/// Share of logits [n, classes], in percent, whose largest is at the label [n].
pub fn hits(logits: &Tensor, labels: &Tensor) -> f64 {
    logits.argmax(-1, false).eq_tensor(labels).to_kind(tch::Kind::Double).mean(tch::Kind::Double).double_value(&[]) * 100.0
}
