//! How a codebook is used.

use serde::Serialize;
use tch::Tensor;

use crate::losses::zipf;
use crate::torch::number;

/// Usage of a codebook over a set of tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// Tokens counted.
    pub tokens: usize,
    /// Codes that occur.
    pub used: usize,
    /// exp of the entropy of usage: codes that would carry as much if used evenly.
    pub perplexity: f64,
    /// Jensen-Shannon divergence from Zipf's law, natural log.
    pub zipf_js: f64,
}

impl Health {
    /// Of tokens below `codes`.
    pub fn of(tokens: &[u16], codes: usize) -> Self {
        let mut counts = vec![0f32; codes];
        tokens.iter().for_each(|t| counts[usize::from(*t)] += 1.0);
        let total = tokens.len().max(1) as f64;
        let entropy: f64 = counts.iter().filter(|c| **c > 0.0).map(|c| f64::from(*c) / total).map(|p| -p * p.ln()).sum();
        Self {
            tokens: tokens.len(),
            used: counts.iter().filter(|c| **c > 0.0).count(),
            perplexity: entropy.exp(),
            zipf_js: number(&zipf::loss(&Tensor::from_slice(&counts))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_and_single_use() {
        let even: Vec<u16> = (0..64).chain(0..64).collect();
        let health = Health::of(&even, 128);
        assert_eq!((health.tokens, health.used), (128, 64));
        assert!((health.perplexity - 64.0).abs() < 1e-9);
        assert!((Health::of(&[3; 10], 512).perplexity - 1.0).abs() < 1e-12);
    }
}
