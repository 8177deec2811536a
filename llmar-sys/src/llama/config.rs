//! Shape of a LLaMA.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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

/// Largest accepted counts: several times LLaMA-65B, small enough that no product of two overflows 64 bits or asks for absurd memory.
const LIMITS: [(&str, usize); 8] = [
    ("llama hidden_size", 32_768),
    ("llama intermediate_size", 131_072),
    ("llama num_hidden_layers", 256),
    ("llama num_attention_heads", 512),
    ("llama num_key_value_heads", 512),
    ("llama head_dim", 1_024),
    ("llama vocab_size", 1 << 20),
    ("llama max_position_embeddings", 1 << 24),
];

impl LlamaConfig {
    /// Counts above zero and within limits, query heads a multiple of the key and value heads, `head_dim` even, `rope_theta` ≥ 1 and
    /// `rms_norm_eps` > 0, both finite.
    pub fn check(&self) -> Result<()> {
        let counts = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.vocab_size,
            self.max_position_embeddings,
        ];
        for ((what, limit), got) in LIMITS.into_iter().zip(counts) {
            if got == 0 {
                return Err(Error::argument(what, format!("1..={limit}"), got));
            }
            if got > limit {
                return Err(Error::Limit { what, limit: limit as u64, got: got as u64 });
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let expected = format!("a multiple of num_key_value_heads = {}", self.num_key_value_heads);
            return Err(Error::argument("llama num_attention_heads", expected, self.num_attention_heads));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::argument("llama head_dim", "an even number", self.head_dim));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta >= 1.0) {
            return Err(Error::argument("llama rope_theta", "finite, at least 1", self.rope_theta));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return Err(Error::argument("llama rms_norm_eps", "finite, above 0", self.rms_norm_eps));
        }
        Ok(())
    }

    /// Rows of the joint q, k, v projection: (heads + 2 · kv_heads) · head_dim.
    pub fn qkv_rows(&self) -> usize {
        (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim
    }

    /// Features of all query heads: heads · head_dim.
    pub fn q_dim(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Features of a key or a value of one position: kv_heads · head_dim.
    pub fn kv_dim(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smollm2() -> LlamaConfig {
        LlamaConfig {
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            vocab_size: 49_152,
            max_position_embeddings: 8_192,
            rope_theta: 100_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
        }
    }

    #[test]
    fn a_real_shape_passes_and_each_broken_field_is_named() {
        let good = smollm2();
        good.check().unwrap();
        assert_eq!((good.qkv_rows(), good.q_dim(), good.kv_dim()), (960, 576, 192));
        type Damage = fn(&mut LlamaConfig);
        let broken: [(&str, Damage); 10] = [
            ("hidden_size", |c| c.hidden_size = 0),
            ("intermediate_size", |c| c.intermediate_size = usize::MAX),
            ("num_hidden_layers", |c| c.num_hidden_layers = 257),
            ("num_attention_heads", |c| c.num_attention_heads = 10),
            ("num_key_value_heads", |c| c.num_key_value_heads = 0),
            ("head_dim", |c| c.head_dim = 63),
            ("vocab_size", |c| c.vocab_size = 1 << 21),
            ("max_position_embeddings", |c| c.max_position_embeddings = 0),
            ("rope_theta", |c| c.rope_theta = f32::NAN),
            ("rms_norm_eps", |c| c.rms_norm_eps = 0.0),
        ];
        for (field, damage) in broken {
            let mut config = smollm2();
            damage(&mut config);
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
