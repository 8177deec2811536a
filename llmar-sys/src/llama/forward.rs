//! One pass over n rows through all layers.

use crate::control::Control;
use crate::device::{Device, Rows};
use crate::error::Result;

use super::config::LlamaConfig;
use super::kv_cache::KvCache;
use super::weights::Weights;

/// A LLaMA ready to run.
#[derive(Clone, Debug)]
pub struct Llama {
    /// Shape.
    pub config: LlamaConfig,
    /// Tensors.
    pub weights: Weights,
}

/// Buffers of a pass, kept between calls so that a steady state allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Workspace {}

impl Llama {
    /// Embedding rows of `ids` into x [n, hidden].
    pub fn embed(&self, _ids: &[u32], _x: &mut [f32]) {
        todo!()
    }

    /// Runs x [n, hidden] (embeddings in, residual stream after the last layer out) with keys and values going to `cache`.
    /// `control` is checked once a layer; on `Err`, x and the slots of this pass hold no meaning.
    pub fn forward(
        &self,
        _device: &Device,
        _rows: &Rows,
        _x: &mut [f32],
        _cache: &mut KvCache,
        _workspace: &mut Workspace,
        _control: &Control,
    ) -> Result<()> {
        todo!()
    }

    /// Logits [m, vocab] of m rows of the residual stream: final RMSNorm, then the head.
    pub fn logits(&self, _device: &Device, _x: &[f32], _logits: &mut [f32], _workspace: &mut Workspace) {
        todo!()
    }
}
