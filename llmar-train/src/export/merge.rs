//! LoRA: W + (alpha / rank) · B A. Source: Hu et al. 2021, equation 3.

use std::collections::BTreeSet;

use llmar::llama::LlamaConfig;

use crate::artifacts::{AdapterMeta, Opened};
use crate::error::{Error, Result};

/// Largest rank that is believed.
pub const MAX_RANK: usize = 4096;

/// The matrices that may carry a LoRA, by their names in an adapter.
pub const TARGETS: [&str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];

/// An adapter whose tensors are added to a base model.
#[derive(Debug)]
pub struct Lora<'a> {
    adapter: &'a Opened<AdapterMeta>,
    scale: f32,
}

impl<'a> Lora<'a> {
    /// Checks that rank and alpha are sane and that every tensor of the adapter belongs to a layer of this shape: none would be left out silently.
    pub fn new(adapter: &'a Opened<AdapterMeta>, config: &LlamaConfig) -> Result<Self> {
        let AdapterMeta { rank, alpha, .. } = adapter.meta;
        let setting = |name: &str, expected: String, got: String| Error::Setting { name: name.to_string(), expected, got };
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(setting("rank", format!("1..={MAX_RANK}"), rank.to_string()));
        }
        if !alpha.is_finite() {
            return Err(setting("alpha", "a finite number".to_string(), alpha.to_string()));
        }
        let mut known = BTreeSet::from(["quantizer.embedding".to_string()]);
        known.extend(adapter.meta.word_tensors(0).into_iter().map(|(name, _)| name.to_owned()));
        for layer in 0..config.num_hidden_layers {
            known.extend(TARGETS.iter().flat_map(|target| [name(layer, target, "a"), name(layer, target, "b")]));
        }
        match adapter.names().find(|&tensor| !known.contains(tensor)) {
            Some(other) => Err(adapter.wrong(format!("tensor `{other}` belongs to no layer of this base model"))),
            None => Ok(Self { adapter, scale: alpha / rank as f32 }),
        }
    }

    /// Whether the adapter changes this matrix.
    pub fn changes(&self, layer: usize, target: &str) -> bool {
        ["a", "b"].iter().any(|part| self.adapter.info(&name(layer, target, part)).is_some())
    }

    /// Adds (alpha / rank) · B A to `weights` [rows, cols], in f32, where the adapter has a pair for this target; else leaves them.
    ///
    /// # Errors
    /// One of A [rank, cols] and B [rows, rank] is missing, or has another shape.
    pub fn add_to(&self, weights: &mut [f32], layer: usize, target: &str, rows: usize, cols: usize) -> Result<()> {
        if !self.changes(layer, target) {
            return Ok(());
        }
        let (a, b) = (name(layer, target, "a"), name(layer, target, "b"));
        let rank = self.adapter.meta.rank;
        let a = self.adapter.floats(&a, &[rank, cols])?;
        let b = self.adapter.floats(&b, &[rows, rank])?;
        let mut delta = vec![0.0f32; cols]; // one row of B A
        for (row, b) in weights.chunks_exact_mut(cols).zip(b.chunks_exact(rank)) {
            delta.fill(0.0);
            for (&factor, a) in b.iter().zip(a.chunks_exact(cols)) {
                delta.iter_mut().zip(a).for_each(|(sum, &a)| *sum += factor * a);
            }
            row.iter_mut().zip(&delta).for_each(|(w, &d)| *w += self.scale * d);
        }
        Ok(())
    }
}

/// Name of one half of a pair in an adapter; `part` is `a` or `b`.
pub fn name(layer: usize, target: &str, part: &str) -> String {
    format!("lora.layers.{layer}.{target}.{part}")
}
