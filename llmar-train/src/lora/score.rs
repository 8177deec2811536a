//! Exact label scores, and what they say about a model.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::adapter::Lora;
use super::llama::{Dropout, Llama};
use super::prompt::Words;
use crate::error::Result;
use crate::evaluate::{Metrics, Sample};
use crate::vqvae::{Told, told};

/// log p(label, EOS | prompt) of every label for each of `count` sentences, `[sentences][labels]`. `rows` gives a range of them as the language
/// model reads them, [sentences, w, hidden]; `at_once` share a pass.
pub fn scores(
    llama: &Llama,
    lora: Option<&Lora>,
    words: &Words,
    (count, at_once): (usize, usize),
    rows: impl Fn(Range<usize>) -> Tensor,
) -> Result<Vec<Vec<f64>>> {
    let mut out = Vec::with_capacity(count);
    for start in (0..count).step_by(at_once.max(1)) {
        let part = start..(start + at_once.max(1)).min(count);
        let (logits, inner) = tch::no_grad(|| {
            let (packed, inner) = words.with_trie(llama, &rows(part.clone()));
            let logits = llama.logits(&packed.x, &packed.packing, &packed.keep, lora, Dropout::Off);
            (logits.log_softmax(-1, Kind::Float), inner)
        });
        // Only the tokens that follow some node are read.
        let mut steps = Vec::new(); // (row within a clip, node after it)
        for (row, node) in inner.iter().enumerate() {
            steps.extend(words.trie.children(*node).iter().map(|child| (row, *child)));
        }
        let (vocab, nodes) = (logits.size()[1], inner.len());
        let steps_of = |clip: usize| steps.iter().map(move |(row, child)| ((clip * nodes + row) as i64, *child));
        let wanted: Vec<i64> =
            (0..part.len()).flat_map(steps_of).map(|(row, child)| row * vocab + i64::from(words.trie.token(child))).collect();
        let read = logits.view(-1).index_select(0, &Tensor::from_slice(&wanted).to_device(logits.device()));
        let read = Vec::<f32>::try_from(read)?;
        for clip in read.chunks(steps.len()) {
            let mut sum = vec![0f64; words.trie.len()];
            let mut labels = vec![0f64; words.labels.len()];
            // Parents come before their children in a trie's numbering, and steps are in order of the parents.
            for ((row, child), log_prob) in steps.iter().zip(clip) {
                sum[*child as usize] = sum[inner[*row] as usize] + f64::from(*log_prob);
                if let Some(label) = words.trie.label(*child) {
                    labels[label] = sum[*child as usize];
                }
            }
            out.push(labels);
        }
    }
    Ok(out)
}

/// What a live model says of windows of streams.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Live {
    /// Which of the answers are right.
    #[serde(flatten)]
    pub told: Told,
    /// Of all windows.
    pub report: Report,
}

/// Measures scores of windows `[windows][labels]` of so many tokens each against labels.
pub fn live(scores: &[Vec<f64>], tokens: &[usize], labels: &[usize], (names, idle): (&[String], Option<usize>)) -> Live {
    let best = |s: &Vec<f64>| (0..s.len()).max_by(|a, b| s[*a].total_cmp(&s[*b])).unwrap_or(0);
    let windows: Vec<(usize, usize, usize)> =
        tokens.iter().zip(labels).zip(scores).map(|((tokens, label), scores)| (*tokens, *label, best(scores))).collect();
    Live { told: told(&windows, idle), report: report(scores, labels, names) }
}

/// What a set of scored sentences with known labels says.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// Right at first place, in per cent.
    pub top1: f64,
    /// Right among the first five, in per cent.
    pub top5: f64,
    /// Mean −ln p(label) of the probabilities over labels at temperature 1.
    pub nll: f64,
    /// The temperature at which `nll` is smallest.
    pub temperature: f64,
    /// The smallest nll.
    pub nll_at_temperature: f64,
    /// Expected calibration error at that temperature, 0..=1 (see [`Metrics`]).
    pub ece: f64,
    /// Probability that 98 of 100 right answers have at least, at that temperature: a threshold for `unknown`. 0 without right answers.
    pub sure: f64,
}

/// Probabilities over the labels: softmax(score / temperature).
pub fn probabilities(scores: &[f64], temperature: f64) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let raw: Vec<f64> = scores.iter().map(|s| ((s - most) / temperature).exp()).collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|p| p / sum).collect()
}

/// Mean −ln p(label).
pub fn nll(scores: &[Vec<f64>], labels: &[usize], temperature: f64) -> f64 {
    let one = |(s, label): (&Vec<f64>, &usize)| -probabilities(s, temperature)[*label].max(1e-300).ln();
    scores.iter().zip(labels).map(one).sum::<f64>() / labels.len().max(1) as f64
}

/// The temperature in e^−1.5 to e^2.5 with the smallest nll, by golden-section search over its logarithm.
pub fn fit_temperature(scores: &[Vec<f64>], labels: &[usize]) -> f64 {
    let at = |log_t: f64| nll(scores, labels, log_t.exp());
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (-1.5f64, 2.5f64);
    for _ in 0..40 {
        let (a, b) = (high - ratio * (high - low), low + ratio * (high - low));
        if at(a) < at(b) { high = b } else { low = a }
    }
    ((low + high) / 2.0).exp()
}

/// Measures scores `[sentences][labels]` against labels, with the temperature that fits them.
pub fn report(scores: &[Vec<f64>], labels: &[usize], names: &[String]) -> Report {
    let temperature = fit_temperature(scores, labels);
    let ranked: Vec<(Vec<usize>, Vec<f32>)> = scores
        .iter()
        .map(|s| {
            let p = probabilities(s, temperature);
            let mut ranking: Vec<usize> = (0..p.len()).collect();
            ranking.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
            let sorted = ranking.iter().map(|label| p[*label] as f32).collect();
            (ranking, sorted)
        })
        .collect();
    let right = ranked.iter().zip(labels).filter(|((ranking, _), truth)| ranking.first() == Some(truth));
    let mut right: Vec<f64> = right.map(|((_, p), _)| f64::from(p[0])).collect();
    right.sort_by(f64::total_cmp);
    let samples: Vec<Sample<'_>> =
        ranked.iter().zip(labels).map(|((ranking, probabilities), truth)| Sample { truth: Some(*truth), ranking, probabilities }).collect();
    let metrics = Metrics::measure(names, &samples);
    Report {
        top1: metrics.top1,
        top5: metrics.top5,
        nll: nll(scores, labels, 1.0),
        temperature,
        nll_at_temperature: nll(scores, labels, temperature),
        ece: metrics.ece,
        sure: right.get(right.len() / 50).copied().unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::Rng;

    #[test]
    fn temperature_of_over_confident_scores_is_found() {
        // Labels drawn from softmax(z), scores handed over as 3 z: the fitted temperature is 3, and the error is then small.
        let mut rng = Rng::new(4, "temperature", 0);
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..4000 {
            let z: Vec<f64> = (0..5).map(|_| f64::from(rng.normal()) * 1.5).collect();
            let p = probabilities(&z, 1.0);
            let mut draw = f64::from(rng.unit());
            let label = p
                .iter()
                .position(|p| {
                    draw -= p;
                    draw < 0.0
                })
                .unwrap_or(4);
            scores.push(z.iter().map(|z| 3.0 * z).collect::<Vec<f64>>());
            labels.push(label);
        }
        let names: Vec<String> = (0..5).map(|label| label.to_string()).collect();
        let found = report(&scores, &labels, &names);
        assert!((found.temperature - 3.0).abs() < 0.25, "{found:?}");
        assert!(found.ece < 0.025 && found.nll_at_temperature < found.nll, "{found:?}");
        assert_eq!(found.top5, 100.0);
        let low = scores.iter().zip(&labels).filter_map(|(s, label)| {
            let p = probabilities(s, found.temperature);
            p.iter().all(|other| *other <= p[*label]).then_some(p[*label] < found.sure)
        });
        let low: Vec<bool> = low.collect();
        let share = low.iter().filter(|below| **below).count() as f64 / low.len() as f64;
        assert!((share - 0.02).abs() < 1e-3, "{share} of right answers are below {}", found.sure);
    }
}
