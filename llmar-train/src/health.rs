//! How a codebook is used, against Zipf's law. Plain Rust: training, its Zipf bias and `report` share it.

use serde::Serialize;

/// Keeps logarithms of unused codes finite.
pub(crate) const EPS: f64 = 1e-10;

/// Zipf's law with Mandelbrot's offset: p(i) ∝ 1 / (i + 2.7), i = 1..=codes; `[codes]`, sums to 1.
pub fn target(codes: usize) -> Vec<f64> {
    let raw: Vec<f64> = (1..=codes).map(|i| 1.0 / (i as f64 + 2.7)).collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|p| p / sum).collect()
}

/// Uses of each code, `[codes]`, of tokens below `codes`.
pub fn counts(tokens: &[u16], codes: usize) -> Vec<usize> {
    let mut counts = vec![0; codes];
    tokens.iter().for_each(|t| counts[usize::from(*t)] += 1);
    counts
}

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
        let mut counts = counts(tokens, codes);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let total = tokens.len().max(1) as f64;
        let usage: Vec<f64> = counts.iter().map(|&count| count as f64 / total).collect();
        let entropy: f64 = usage.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        Self {
            tokens: tokens.len(),
            used: counts.iter().filter(|count| **count > 0).count(),
            perplexity: entropy.exp(),
            zipf_js: divergence(&usage, &target(codes)),
        }
    }
}

/// Jensen-Shannon divergence, 0..=ln 2, of two distributions over the same ranks.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let from_middle = |a: &f64, p: &f64, q: &f64| a * ((a + EPS).ln() - ((p + q) / 2.0 + EPS).ln());
    p.iter().zip(q).map(|(p, q)| (from_middle(p, p, q) + from_middle(q, p, q)) / 2.0).sum()
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
        let single = Health::of(&[3; 10], 512);
        assert!((single.perplexity - 1.0).abs() < 1e-12);
        assert!((single.zipf_js - 0.588).abs() < 5e-4, "{}", single.zipf_js);
    }

    #[test]
    fn usage_after_zipfs_law_does_not_diverge() {
        let law = target(512);
        assert!((law.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let tokens: Vec<u16> = law.iter().zip(0u16..).flat_map(|(p, code)| vec![code; (p * 1e6).round() as usize]).collect();
        assert!(Health::of(&tokens, 512).zipf_js < 1e-6);
        assert_eq!(Health::of(&[], 8).used, 0);
    }
}
