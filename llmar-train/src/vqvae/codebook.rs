//! The codebook while it is trained: its tangent vectors, their running usage, and what happens to codes that nobody uses.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::config::{Quantizer, Update};
use super::kmeans::{kmeans, mean_norm, on_shell};
use super::quantizer::Ball;
use crate::error::{Error, Result};
use crate::torch::{Params, Rng};

/// Name of the codes among the parameters.
pub const NAME: &str = "codebook.tangent";
/// Share of the old value kept a step by the running usage under [`Update::Gradient`], and by the running radius.
const RUNNING: f64 = 0.98;

/// Codes as tangent vectors, with their statistics.
#[derive(Debug)]
pub struct Codebook {
    settings: Quantizer,
    ball: Ball,
    /// v_u [codes, dim]; a parameter.
    tangent: Tensor,
    /// Running uses a batch, [codes].
    counts: Tensor,
    /// Running sums of assigned features, [codes, dim].
    sums: Tensor,
    /// Running mean norm of features.
    radius: f64,
    resets: usize,
}

impl Codebook {
    /// Zero codes, until [`start`](Self::start).
    pub fn new(params: &mut Params, settings: &Quantizer, dim: usize) -> Self {
        let (codes, dim) = (settings.codes as i64, dim as i64);
        let options = (Kind::Float, params.device());
        let tangent = params.add(NAME, &Tensor::zeros([codes, dim], options));
        Self {
            settings: settings.clone(),
            ball: Ball::new(settings.geometry),
            tangent,
            counts: Tensor::ones([codes], options),
            sums: Tensor::zeros([codes, dim], options),
            radius: 1.0,
            resets: 0,
        }
    }

    /// Starts the codes from features [n, dim].
    pub fn start(&mut self, features: &Tensor, rng: &mut Rng) {
        let settings = &self.settings;
        let centres = kmeans(features, settings.codes, settings.kmeans_rounds, settings.shell, self.ball, rng);
        self.radius = mean_norm(features);
        self.sums.copy_(&centres);
        let _ = self.counts.fill_(1.0);
        self.write(&centres);
    }

    fn write(&mut self, values: &Tensor) {
        tch::no_grad(|| self.tangent.copy_(values));
    }

    /// Distances.
    pub fn ball(&self) -> Ball {
        self.ball
    }

    /// v_u [codes, dim], with gradient.
    pub fn tangent(&self) -> &Tensor {
        &self.tangent
    }

    /// Codes moved to a feature so far.
    pub fn resets(&self) -> usize {
        self.resets
    }

    /// Nearest codes [n] (i64) of features [n, dim], and their tangent vectors [n, dim], with gradient under [`Update::Gradient`].
    pub fn quantize(&self, features: &Tensor) -> (Tensor, Tensor) {
        let nearest = self.ball.nearest(&features.detach(), &self.tangent.detach());
        let codes = self.tangent.index_select(0, &nearest);
        (nearest, if self.settings.update == Update::Gradient { codes } else { codes.detach() })
    }

    /// After a step of phase two at `done` of its `steps`: moves the codes by their features [n, dim] (no gradient), keeps them on the shell
    /// and resets those that are not used.
    pub fn follow(&mut self, features: &Tensor, nearest: &Tensor, done: usize, steps: usize, rng: &mut Rng) {
        tch::no_grad(|| {
            let features = features.detach();
            let fresh = nearest.bincount::<Tensor>(None, self.settings.codes as i64).to_kind(Kind::Float);
            let keep = if let Update::Average { decay } = self.settings.update { decay } else { RUNNING };
            self.counts = &self.counts * keep + fresh * (1.0 - keep);
            self.radius = RUNNING * self.radius + (1.0 - RUNNING) * mean_norm(&features);
            let mut codes = self.tangent.detach().copy();
            if matches!(self.settings.update, Update::Average { .. }) {
                self.sums = &self.sums * keep + self.sums.zeros_like().index_add(0, nearest, &features) * (1.0 - keep);
                codes = &self.sums / self.counts.unsqueeze(-1).clamp_min(1e-6);
            }
            if self.settings.shell {
                codes = on_shell(&codes, self.radius);
            }
            let settings = &self.settings;
            let look = settings.reset_steps > 0 && (done + 1).is_multiple_of(settings.reset_steps);
            if look && (done as f64) < settings.reset_until * steps as f64 {
                codes = self.reset(codes, &features, rng);
            }
            self.write(&codes);
        });
    }

    fn reset(&mut self, codes: Tensor, features: &Tensor, rng: &mut Rng) -> Tensor {
        let n = features.size()[0];
        let dead = self.counts.lt(self.settings.reset_below * n as f64 / 512.0);
        let count = dead.sum(Kind::Int64).int64_value(&[]) as usize;
        if count == 0 {
            return codes;
        }
        self.resets += count;
        let picks: Vec<i64> = (0..self.settings.codes).map(|_| rng.below(n as usize) as i64).collect();
        let strays = features.index_select(0, &Tensor::from_slice(&picks).to_device(features.device()));
        let column = dead.unsqueeze(-1);
        self.counts = self.counts.ones_like().where_self(&dead, &self.counts);
        self.sums = strays.where_self(&column, &self.sums);
        strays.where_self(&column, &codes)
    }

    /// What a resumed run needs besides the parameters.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        vec![
            ("codebook.counts".to_owned(), self.counts.shallow_clone()),
            ("codebook.sums".to_owned(), self.sums.shallow_clone()),
            ("codebook.scalars".to_owned(), Tensor::from_slice(&[self.radius, self.resets as f64])),
        ]
    }

    /// Takes a saved state back.
    pub fn restore(&mut self, saved: &BTreeMap<String, Tensor>) -> Result<()> {
        let find = |name: &str| saved.get(name).ok_or_else(|| Error::format("run state", format!("tensor {name} is missing")));
        self.counts.copy_(find("codebook.counts")?);
        self.sums.copy_(find("codebook.sums")?);
        let scalars = Vec::<f64>::try_from(find("codebook.scalars")?)?;
        let [radius, resets] = scalars[..] else { return Err(Error::format("run state", "codebook.scalars: expected 2 numbers")) };
        (self.radius, self.resets) = (radius, resets as usize);
        Ok(())
    }
}
