//! Shape of a LLaMA.

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Hyper-parameters, named as in Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaConfig {
    /// Features of the residual stream.
    pub hidden_size: usize,
    /// Features inside the feed-forward network.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Features a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest text in tokens.
    pub max_position_embeddings: usize,
    /// RoPE base.
    pub rope_theta: f32,
    /// Inside the root of RMSNorm.
    pub rms_norm_eps: f32,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
}

impl LlamaConfig {
    /// Counts above zero and within limits, heads divisible, head_dim even.
    pub fn check(&self) -> Result<()> {
        todo!()
    }
}
