//! Named trainable tensors.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::{Rng, tensor};
use crate::error::{Error, Result};

/// The trainable tensors of a model by name, in the order of their creation.
#[derive(Debug)]
pub struct Params {
    device: Device,
    seed: u64,
    entries: Vec<(String, Tensor)>,
}

impl Params {
    /// No parameters yet; initial values come from `seed` and each parameter's name.
    pub fn new(device: Device, seed: u64) -> Self {
        Self { device, seed, entries: Vec::new() }
    }

    /// Where the tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Adds a tensor and returns a handle to the same storage.
    pub fn add(&mut self, name: impl Into<String>, initial: &Tensor) -> Tensor {
        let leaf = initial.detach().copy().to_kind(Kind::Float).to_device(self.device).set_requires_grad(true);
        let handle = leaf.shallow_clone();
        self.entries.push((name.into(), leaf));
        handle
    }

    /// Adds a tensor drawn uniformly from ±bound. libtorch's default for convolutions and linear maps is bound = 1/√fan-in.
    pub fn uniform(&mut self, name: impl Into<String>, shape: &[i64], bound: f32) -> Tensor {
        let name = name.into();
        let mut rng = Rng::new(self.seed, &name, 0);
        let drawn: Vec<f32> = (0..shape.iter().product()).map(|_| bound * rng.signed()).collect();
        self.add(name, &tensor(&drawn, shape, self.device))
    }

    /// (name, tensor) in order of creation.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, t)| (name.as_str(), t))
    }

    /// Overwrites every parameter from `source` under `prefix` + name.
    pub fn restore(&mut self, source: &BTreeMap<String, Tensor>, prefix: &str) -> Result<()> {
        tch::no_grad(|| {
            for (name, t) in &mut self.entries {
                let key = format!("{prefix}{name}");
                let saved = source.get(&key).filter(|s| s.size() == t.size());
                let saved = saved.ok_or_else(|| Error::format("run state", format!("{key}: expected shape {:?}, not there", t.size())))?;
                t.copy_(saved);
            }
            Ok(())
        })
    }
}
