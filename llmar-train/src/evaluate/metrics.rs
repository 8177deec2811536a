//! Accuracy, per class, confusion and calibration of a list of answers.

use std::collections::BTreeMap;

use serde::Serialize;

/// Bins of the calibration error, equal in width.
pub const BINS: usize = 15;

/// One answer against the truth.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Index of the right label; `None` when the model has no such label.
    pub truth: Option<usize>,
    /// Label indices, best first.
    pub ranking: &'a [usize],
    /// Probability of each of `ranking`.
    pub probabilities: &'a [f32],
}

/// What `evaluate` reports. Shares are percentages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Right at first place, in per cent of all clips.
    pub top1: f64,
    /// Right among the first five.
    pub top5: f64,
    /// Mean over classes of the share right.
    pub mean_class: f64,
    /// Expected calibration error (Naeini et al. 2015): 15 equal bins of the best probability, |accuracy − confidence| weighted by size, 0..=1.
    pub ece: f64,
    /// Mean −ln p(right label), in nats; p is floored at 1e-12.
    pub nll: f64,
    /// Share right by class.
    pub per_class: BTreeMap<String, f64>,
    /// Mistakes: right label → answered label → count.
    pub confusion: BTreeMap<String, BTreeMap<String, usize>>,
}

/// The clips of one bin of the best probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Clips in it.
    pub clips: usize,
    /// Those whose best label is right.
    pub right: usize,
    /// Sum of their best probabilities.
    pub confidence: f64,
}

/// Bin i holds the clips whose best probability is in i/15..(i+1)/15; 1 is in the last.
pub fn reliability(samples: &[Sample<'_>]) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for sample in samples {
        let confidence = f64::from(sample.probabilities.first().copied().unwrap_or(0.0));
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.clips += 1;
        bin.right += usize::from(sample.right(1));
        bin.confidence += confidence;
    }
    bins
}

impl Sample<'_> {
    /// Whether the right label is among the first `places`.
    pub fn right(&self, places: usize) -> bool {
        self.truth.is_some_and(|t| self.ranking.iter().take(places).any(|&l| l == t))
    }
}

impl Metrics {
    /// Measures `samples` of a model with `labels`. No sample gives zeros.
    pub fn measure(labels: &[String], samples: &[Sample<'_>]) -> Self {
        let n = samples.len().max(1) as f64;
        let percent = |count: usize| 100.0 * count as f64 / n;

        let mut classes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut confusion: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        let mut nll = 0.0;
        for sample in samples {
            let hit = sample.right(1);
            if let Some(truth) = sample.truth {
                let entry = classes.entry(labels[truth].clone()).or_default();
                entry.0 += 1;
                entry.1 += usize::from(hit);
                if let (false, Some(&answer)) = (hit, sample.ranking.first()) {
                    *confusion.entry(labels[truth].clone()).or_default().entry(labels[answer].clone()).or_default() += 1;
                }
            }
            let place = sample.truth.and_then(|t| sample.ranking.iter().position(|&l| l == t));
            let p = place.map_or(0.0, |i| f64::from(sample.probabilities[i]));
            nll -= p.max(1e-12).ln();
        }
        let share = |&(all, hit): &(usize, usize)| 100.0 * hit as f64 / all as f64;
        Self {
            top1: percent(samples.iter().filter(|s| s.right(1)).count()),
            top5: percent(samples.iter().filter(|s| s.right(5)).count()),
            mean_class: classes.values().map(share).sum::<f64>() / classes.len().max(1) as f64,
            ece: reliability(samples).iter().map(|bin| (bin.right as f64 - bin.confidence).abs()).sum::<f64>() / n,
            nll: nll / n,
            per_class: classes.iter().map(|(name, counts)| (name.clone(), share(counts))).collect(),
            confusion,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_hits_places_and_confidence() {
        let labels = ["a".to_owned(), "b".to_owned()];
        let samples = [
            Sample { truth: Some(0), ranking: &[0, 1], probabilities: &[0.9, 0.1] },
            Sample { truth: Some(1), ranking: &[0, 1], probabilities: &[0.9, 0.1] },
            Sample { truth: Some(1), ranking: &[1, 0], probabilities: &[0.7, 0.3] },
            Sample { truth: None, ranking: &[1, 0], probabilities: &[0.7, 0.3] },
        ];
        let m = Metrics::measure(&labels, &samples);
        assert_eq!((m.top1, m.top5), (50.0, 75.0));
        assert_eq!(m.mean_class, 75.0); // a: 1 of 1, b: 1 of 2
        // Bin of .9: two clips, one right: |1 − 1.8|. Bin of .7: two clips, one right: |1 − 1.4|. A quarter of the sum.
        assert!((m.ece - (0.8 + 0.4) / 4.0).abs() < 1e-6, "{}", m.ece);
        assert_eq!(m.confusion["b"]["a"], 1);
        let expected = -(0.9f64.ln() + 0.1f64.ln() + 0.7f64.ln() + 1e-12f64.ln()) / 4.0;
        assert!((m.nll - expected).abs() < 1e-6);
    }

    #[test]
    fn bins_hold_their_lower_bound_and_the_last_one_certainty() {
        let sample = |ranking, p: &'static [f32]| Sample { truth: Some(0), ranking, probabilities: p };
        let samples = [sample(&[0], &[1.0]), sample(&[0], &[0.0]), sample(&[1], &[0.5]), sample(&[0], &[0.99])];
        let bins = reliability(&samples);
        assert_eq!((bins[0].clips, bins[7].clips, bins[14].clips), (1, 1, 2)); // .5 · 15 = 7.5
        assert_eq!((bins[7].right, bins[14].right), (0, 2));
        assert!((bins[14].confidence - 1.99).abs() < 1e-6);
        assert_eq!(bins.iter().map(|bin| bin.clips).sum::<usize>(), 4);
    }

    #[test]
    fn perfect_confidence_has_no_calibration_error() {
        let labels = ["a".to_owned(), "b".to_owned()];
        let samples = [Sample { truth: Some(1), ranking: &[1, 0], probabilities: &[1.0, 0.0] }; 3];
        let m = Metrics::measure(&labels, &samples);
        assert_eq!((m.top1, m.ece, m.nll), (100.0, 0.0, 0.0));
        assert!(m.confusion.is_empty());
    }
}
