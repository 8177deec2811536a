//! What a run of stage 2 needs of memory, from shapes alone: said before the weights are read.

use std::fmt;

use llmar::llama::LlamaConfig;

use super::config::{Config, Target, Tune};
use crate::artifacts::Answer;

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Need {
    /// The base model's matrices.
    pub base: u64,
    /// Trained parameters with their gradients and AdamW's two moments, f32.
    pub trained: u64,
    /// Values of one pass that wait for their gradients, an estimate from above.
    pub activations: u64,
    /// Logits of the kept rows (words, or labels where a head answers), their log-probabilities and gradients.
    pub logits: u64,
}

impl Need {
    /// For passes of `clips` clips of `rows` rows each behind a shared prefix, `kept` rows of a clip with `answers` logits each, and `codes` points of
    /// `dim` features.
    pub fn of(
        config: &Config,
        llama: &LlamaConfig,
        (clips, rows): (usize, usize),
        (kept, answers): (usize, usize),
        (codes, dim): (usize, usize),
    ) -> Self {
        let c = llama;
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        let head = if c.tie_word_embeddings { 1 } else { 2 };
        let layer = hidden * (q + 2 * kv) + q * hidden + 3 * hidden * inner;
        let weights = c.num_hidden_layers * layer + head * c.vocab_size * hidden;
        let norms = (2 * c.num_hidden_layers + 1) * hidden;
        let (from, to) = config.adapter.layers.unwrap_or((0, c.num_hidden_layers));
        let shape = |target: &Target| match target {
            Target::Q => hidden + q,
            Target::K | Target::V => hidden + kv,
            Target::O => q + hidden,
            Target::Gate | Target::Up | Target::Down => hidden + inner,
        };
        let adapted = match config.tune {
            Tune::Lora => (to - from) * config.adapter.rank * config.adapter.targets.iter().map(shape).sum::<usize>(),
            Tune::All => weights + norms,
        };
        let map = if config.map.trainable { hidden * (dim + 1) } else { 0 };
        let points = if config.map.points_lr_factor > 0.0 { codes * dim } else { 0 };
        let own_head = if config.answer == Answer::LinearHead { answers * hidden } else { 0 };
        let trained = adapted + map + points + own_head;

        // Values a row of one layer that autograd keeps: input and norm (5), attention's output and residual (3); q, k, v with their rotations (4 of
        // each); gate, up, their product and silu (5); scores and their softmax (3 a head and visible row).
        let inside = 8 * hidden + 4 * (q + 2 * kv) + 5 * inner + 3 * c.num_attention_heads * rows;
        let all = clips * rows;
        // With half-precision weights, each product's factors are kept in that precision too.
        let copies = if config.precision.bytes() == 4 { 0 } else { (hidden + q + inner) / 2 };
        let activations = if config.train.checkpointing {
            all * (hidden * c.num_hidden_layers + inside + copies)
        } else {
            all * (inside + copies) * c.num_hidden_layers
        };
        Self {
            base: (weights * config.precision.bytes() + norms * 4) as u64 * u64::from(config.tune == Tune::Lora),
            trained: trained as u64 * 16,
            activations: activations as u64 * 4,
            logits: (clips * kept * answers) as u64 * 12,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.base + self.trained + self.activations + self.logits
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        write!(
            f,
            "about {:.2} GB: base weights {:.2}, trained parameters with gradients and moments {:.2}, activations of a pass {:.2}, logits {:.2}",
            gb(self.total()),
            gb(self.base),
            gb(self.trained),
            gb(self.activations),
            gb(self.logits)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::Precision;

    /// LLaMA-13B.
    fn llama_13b() -> LlamaConfig {
        LlamaConfig {
            hidden_size: 5120,
            intermediate_size: 13824,
            num_hidden_layers: 40,
            num_attention_heads: 40,
            num_key_value_heads: 40,
            head_dim: 128,
            vocab_size: 32000,
            max_position_embeddings: 2048,
            rope_theta: 1e4,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
        }
    }

    #[test]
    fn the_papers_run_fits_one_gpu_of_80_gb() -> crate::Result<()> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper-ntu60-stage2.toml");
        let config: Config = crate::settings::read_config(&path, &[])?;
        let need = Need::of(&config, &llama_13b(), (config.train.micro_batch, 120), (6, 32000), (512, 5120));
        // 13.0 billion weights at two bytes, 52.4 million trained parameters (r = 64 on q and v) at 16.
        assert!((25.9e9..26.2e9).contains(&(need.base as f64)), "{need}");
        assert_eq!(need.trained, 52_428_800 * 16);
        assert!(need.total() < 80_000_000_000, "{need}");
        let plain = Config { precision: Precision::F32, ..config.clone() };
        assert!(Need::of(&plain, &llama_13b(), (4, 120), (6, 32000), (512, 5120)).base > 2 * need.base - 10_000_000);
        let mut kept = config;
        kept.train.checkpointing = !kept.train.checkpointing;
        let other = Need::of(&kept, &llama_13b(), (4, 120), (6, 32000), (512, 5120));
        assert!(other.activations.max(need.activations) > 10 * other.activations.min(need.activations));
        Ok(())
    }
}
