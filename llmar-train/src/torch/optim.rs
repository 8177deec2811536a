//! AdamW (Loshchilov and Hutter 2019) and learning-rate schedules.
//!
//! Own arithmetic on tensors, because tch's optimiser gives no access to its moments, and without them a run cannot be resumed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{Params, in_range};
use crate::error::{Error, Result};

/// How the learning rate moves over a phase of `steps` steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Schedule {
    /// Smith's one-cycle: from lr/25 up to lr over the first `warm_up` of the steps, down to lr/250,000, both along a cosine; the first
    /// moment's decay moves the other way between .95 and .85.
    OneCycle {
        /// Share of the steps, above 0 and below 1.
        warm_up: f64,
    },
    /// Linear warm-up over a share of the steps, then a cosine to zero.
    Cosine {
        /// Share of the steps, 0..1.
        warm_up: f64,
    },
    /// Linear warm-up over this many steps, then constant.
    Constant {
        /// Steps.
        warm_up_steps: usize,
    },
}

impl Schedule {
    /// Shares are shares.
    pub fn check(&self, name: &str) -> Result<()> {
        match *self {
            Self::OneCycle { warm_up } | Self::Cosine { warm_up } => in_range(&format!("{name}.warm_up"), warm_up, 0.0, 1.0),
            Self::Constant { .. } => Ok(()),
        }
    }

    /// Learning rate as a factor, and the first moment's decay where the schedule sets it, for step 0..steps.
    pub fn at(&self, step: usize, steps: usize) -> (f64, Option<f64>) {
        let cosine = |from: f64, to: f64, share: f64| to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos());
        match *self {
            Self::OneCycle { warm_up } => {
                let peak = (warm_up * steps as f64 - 1.0).max(1e-9);
                let last = (steps as f64 - 1.0).max(peak + 1e-9);
                let s = step as f64;
                if s <= peak {
                    (cosine(1.0 / 25.0, 1.0, s / peak), Some(cosine(0.95, 0.85, s / peak)))
                } else {
                    let share = (s - peak) / (last - peak);
                    (cosine(1.0, 1.0 / 250_000.0, share), Some(cosine(0.85, 0.95, share)))
                }
            }
            Self::Cosine { warm_up } => {
                let warm = warm_up * steps as f64;
                let s = step as f64;
                if s < warm {
                    ((s + 1.0) / warm.max(1.0), None)
                } else {
                    (cosine(1.0, 0.0, (s - warm) / (steps as f64 - warm).max(1.0)), None)
                }
            }
            Self::Constant { warm_up_steps } => (((step + 1) as f64 / warm_up_steps.max(1) as f64).min(1.0), None),
        }
    }
}

/// Parameters that share settings: those whose name starts with `prefix`.
#[derive(Clone, Debug)]
pub struct Group {
    /// First matching group wins; the empty prefix takes all.
    pub prefix: String,
    /// Factor on the learning rate.
    pub lr_factor: f64,
    /// Decoupled decay: p ← p − lr · weight_decay · p.
    pub weight_decay: f64,
}

/// The optimiser's moments for a set of parameters.
#[derive(Debug)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    groups: Vec<Group>,
    /// (first, second) moment of each parameter, in the order of the set.
    moments: Vec<(Tensor, Tensor)>,
    /// Π β₁ over the steps so far, for the bias correction under a schedule of β₁.
    beta1_product: f64,
    beta2_product: f64,
}

impl AdamW {
    /// Zero moments.
    pub fn new(params: &Params, betas: (f64, f64), groups: Vec<Group>) -> Self {
        let moments = params.entries().map(|(_, t)| (t.detach().zeros_like(), t.detach().zeros_like())).collect();
        Self { beta1: betas.0, beta2: betas.1, eps: 1e-8, groups, moments, beta1_product: 1.0, beta2_product: 1.0 }
    }

    /// Clips the gradients to a global norm of `clip`, updates the parameters, clears the gradients. Parameters without a gradient stay
    /// as they are. Returns the norm before clipping.
    pub fn step(&mut self, params: &Params, lr: f64, beta1: Option<f64>, clip: f64) -> f64 {
        let beta1 = beta1.unwrap_or(self.beta1);
        self.beta1_product *= beta1;
        self.beta2_product *= self.beta2;
        tch::no_grad(|| {
            let grads: Vec<Option<Tensor>> = params.entries().map(|(_, t)| Some(t.grad()).filter(Tensor::defined)).collect();
            let squares: f64 = grads.iter().flatten().map(|g| g.norm().double_value(&[]).powi(2)).sum();
            let norm = squares.sqrt();
            let shrink = (clip / (norm + 1e-6)).min(1.0);
            let root = (1.0 - self.beta2_product).sqrt();
            for (((name, t), (m, v)), grad) in params.entries().zip(&mut self.moments).zip(grads) {
                let (Some(grad), Some(group)) = (grad, self.groups.iter().find(|g| name.starts_with(&g.prefix))) else { continue };
                let lr = lr * group.lr_factor;
                let grad = grad * shrink;
                let _ = m.g_mul_scalar_(beta1).g_add_(&(&grad * (1.0 - beta1)));
                let _ = v.g_mul_scalar_(self.beta2).g_add_(&(&grad * &grad * (1.0 - self.beta2)));
                let update = &*m / (v.sqrt() / root + self.eps) * (lr / (1.0 - self.beta1_product));
                let mut t = t.shallow_clone();
                let _ = t.g_mul_scalar_(1.0 - lr * group.weight_decay).g_sub_(&update);
                t.zero_grad();
            }
            norm
        })
    }

    /// What a resumed run needs, by name.
    pub fn state(&self, params: &Params) -> Vec<(String, Tensor)> {
        let mut out = vec![("optim.products".to_owned(), Tensor::from_slice(&[self.beta1_product, self.beta2_product]))];
        for ((name, _), (m, v)) in params.entries().zip(&self.moments) {
            out.push((format!("optim.first.{name}"), m.shallow_clone()));
            out.push((format!("optim.second.{name}"), v.shallow_clone()));
        }
        out
    }

    /// Takes a saved state back.
    pub fn restore(&mut self, params: &Params, saved: &BTreeMap<String, Tensor>) -> Result<()> {
        let find = |name: &str| saved.get(name).ok_or_else(|| Error::format("run state", format!("tensor {name} is missing")));
        let products = Vec::<f64>::try_from(find("optim.products")?)?;
        [self.beta1_product, self.beta2_product] =
            products.try_into().map_err(|_| Error::format("run state", "optim.products: expected 2 numbers"))?;
        tch::no_grad(|| {
            for ((name, _), (m, v)) in params.entries().zip(&mut self.moments) {
                m.copy_(find(&format!("optim.first.{name}"))?);
                v.copy_(find(&format!("optim.second.{name}"))?);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{number, values};
    use tch::{Device, Kind};

    /// Two steps by hand from p = 1, gradients 0.5 and −0.25 of a sum (the second after clipping to norm 0.25).
    #[test]
    fn two_steps_agree_with_the_formula() -> Result<()> {
        let mut params = Params::new(Device::Cpu, 0);
        let p = params.add("p", &Tensor::ones([1], (Kind::Float, Device::Cpu)));
        let mut optimiser = AdamW::new(&params, (0.9, 0.99), vec![Group { prefix: String::new(), lr_factor: 2.0, weight_decay: 0.1 }]);
        let (mut expected, mut m, mut v) = (1.0f64, 0.0, 0.0);
        for (t, (gradient, clip)) in [(0.5, 10.0), (-1.0, 0.25)].into_iter().enumerate() {
            (&p * gradient).sum(Kind::Float).backward();
            let norm = optimiser.step(&params, 0.01, None, clip);
            assert!((norm - f64::abs(gradient)).abs() < 1e-6);
            let g = f64::clamp(gradient, -clip, clip);
            (m, v) = (0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g);
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t as i32 + 1)), v / (1.0 - 0.99f64.powi(t as i32 + 1)));
            expected = expected * (1.0 - 0.02 * 0.1) - 0.02 * m_hat / (v_hat.sqrt() + 1e-8);
            assert!((number(&p.sum(Kind::Float)) - expected).abs() < 1e-6, "step {t}: {:?}, expected {expected}", values(&p)?);
        }
        Ok(())
    }

    #[test]
    fn schedules_rise_and_fall() {
        let one_cycle = Schedule::OneCycle { warm_up: 0.2 };
        assert!((one_cycle.at(0, 100).0 - 0.04).abs() < 1e-9);
        assert!((one_cycle.at(19, 100).0 - 1.0).abs() < 1e-9 && (one_cycle.at(19, 100).1.unwrap_or(0.0) - 0.85).abs() < 1e-9);
        assert!(one_cycle.at(99, 100).0 < 1e-5);
        let cosine = Schedule::Cosine { warm_up: 0.1 };
        assert!((cosine.at(0, 100).0 - 0.1).abs() < 1e-9 && (cosine.at(9, 100).0 - 1.0).abs() < 1e-9);
        assert!((cosine.at(55, 100).0 - 0.5).abs() < 1e-9 && cosine.at(99, 100).0 < 1e-3);
        assert_eq!(Schedule::Constant { warm_up_steps: 4 }.at(1, 100).0, 0.5);
        assert_eq!(Schedule::Constant { warm_up_steps: 0 }.at(0, 100).0, 1.0);
    }
}
