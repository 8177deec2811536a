//! Labels told by the words of their texts, without the language model, so that a label that training never saw is told by words it shares with others.
//!
//! A linear map reads from what a clip shows which words its label has; a label's text has each word of the vocabulary or has it not. The answer is the
//! label whose words point the same way. The words are attributes in the sense of Lampert et al. (2009).
//!
//! With the mean x of a clip's features, r = W x + b, and for a label's words t ∈ {0, 1}ⁿ, t̃ = t − m, where m is the mean of t over the labels of training:
//! cos(r, t̃) = r · t̃ / (‖r‖ ‖t̃‖), and p(label) = softmax over the labels of cos / T, with a T chosen in training. All in f64, in the order of the indices.

use std::collections::BTreeSet;

use super::labels::LabelScore;
use super::search::Ranking;
use crate::checkpoint::{Checkpoint, Metadata};
use crate::device::Vector;
use crate::error::{Error, Result};

/// The different words of a text: cut at white space, signs at their ends taken off, in lower case.
pub fn words_of(text: &str) -> BTreeSet<String> {
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    text.split_whitespace().map(bare).filter(|word| !word.is_empty()).collect()
}

/// The linear map from a clip's features to words, with the words. Immutable.
#[derive(Clone, Debug)]
pub struct WordReading {
    /// n words, ascending.
    vocabulary: Vec<String>,
    /// W f32 [n, dim]
    weight: Vector,
    /// b f32 `[n]`
    bias: Vector,
    /// m f32 `[n]`, 0 to below 1
    mean: Vector,
    /// T > 0
    temperature: f64,
}

impl WordReading {
    /// Tensor of W, f32 [words, dim].
    pub const WEIGHT: &str = "words.weight";
    /// Tensor of b, f32 `[words]`.
    pub const BIAS: &str = "words.bias";
    /// Tensor of m, f32 `[words]`.
    pub const MEAN: &str = "words.mean";

    /// The reading of a checkpoint, if it has one. Nothing is copied but the words.
    ///
    /// # Errors
    /// [`Error::Format`] for a mean outside 0..1; those of [`Checkpoint::f32s`].
    pub fn read(metadata: &Metadata, checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let Some(words) = &metadata.words else { return Ok(None) };
        let count = words.vocabulary.len();
        let tensor = |name: &str, shape: &[usize]| Vector::new(checkpoint.f32s(name, shape)?);
        let weight = tensor(Self::WEIGHT, &[count, metadata.quantizer.dim])?;
        Self::new(words.vocabulary.clone(), (weight, tensor(Self::BIAS, &[count])?, tensor(Self::MEAN, &[count])?), words.temperature)
            .map(Some)
    }

    /// Of n words, ascending, W [n, dim], b `[n]` and m `[n]`, and a temperature above 0.
    ///
    /// # Errors
    /// [`Error::Shape`] where lengths do not fit, [`Error::Format`] for a mean outside 0..1: a word that every label has tells none.
    pub fn new(vocabulary: Vec<String>, (weight, bias, mean): (Vector, Vector, Vector), temperature: f32) -> Result<Self> {
        let count = vocabulary.len();
        for (what, vector) in [(Self::BIAS, &bias), (Self::MEAN, &mean)] {
            if vector.values().len() != count {
                return Err(Error::Shape { what: what.into(), expected: vec![count], got: vec![vector.values().len()] });
            }
        }
        if count == 0 || !weight.values().len().is_multiple_of(count) {
            return Err(Error::format(
                Self::WEIGHT,
                format!("expected as many rows as words, {count}, got {} values", weight.values().len()),
            ));
        }
        if let Some(at) = mean.values().iter().position(|m| !(0.0..1.0).contains(m)) {
            return Err(Error::format(Self::MEAN, format!("expected 0 to below 1 for `{}`, got {}", vocabulary[at], mean.values()[at])));
        }
        Ok(Self { vocabulary, weight, bias, mean, temperature: f64::from(temperature) })
    }

    /// The words that it knows, ascending.
    pub fn vocabulary(&self) -> &[String] {
        &self.vocabulary
    }

    /// r = W x + b `[words]` of the mean features x `[dim]` of a clip.
    fn read_words(&self, features: &[f64]) -> Vec<f64> {
        let rows = self.weight.values().chunks_exact((self.weight.values().len() / self.vocabulary.len()).max(1));
        rows.zip(self.bias.values())
            .map(|(row, bias)| row.iter().zip(features).map(|(w, x)| f64::from(*w) * x).sum::<f64>() + f64::from(*bias))
            .collect()
    }
}

/// Labels by their words, ready to be compared.
#[derive(Clone, Debug)]
pub struct Described {
    /// Texts by index.
    names: Vec<String>,
    /// Of each label its words' places in the vocabulary, ascending, and ‖t̃‖ > 0.
    labels: Vec<(Vec<usize>, f64)>,
}

impl Described {
    /// Of labels that are texts of their own.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] without a label, for one that has no word of the vocabulary, and for two that have the same of them: nothing could tell these.
    pub fn new(reading: &WordReading, labels: &[&str]) -> Result<Self> {
        if labels.is_empty() {
            return Err(Error::argument("labels", "at least one", "none"));
        }
        let (known, mean) = (reading.vocabulary.len(), reading.mean.values());
        let of_none: f64 = mean.iter().map(|m| f64::from(*m).powi(2)).sum();
        let mut told: Vec<(Vec<usize>, f64)> = Vec::with_capacity(labels.len());
        let mut seen = std::collections::HashMap::new();
        for (i, label) in labels.iter().enumerate() {
            let places: Vec<usize> = words_of(label).iter().filter_map(|word| reading.vocabulary.binary_search(word).ok()).collect();
            if places.is_empty() {
                let got = format!("label {i}, `{label}`, with none");
                return Err(Error::argument("label", format!("at least one of the {known} words that the model knows"), got));
            }
            if let Some(first) = seen.insert(places.clone(), i) {
                let got = format!("labels {first} and {i} alike, `{}` and `{label}`", labels[first]);
                return Err(Error::argument("labels", format!("others of the {known} words that the model knows in each"), got));
            }
            let squares = of_none + places.iter().map(|&place| 1.0 - 2.0 * f64::from(mean[place])).sum::<f64>();
            told.push((places, squares.max(0.0).sqrt()));
        }
        Ok(Self { names: labels.iter().map(|&label| label.to_owned()).collect(), labels: told })
    }

    /// Texts of the labels.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// cos(r, t̃) of each label for the mean features `[dim]` of a clip, −1 to 1; all 0 where r = 0.
    pub fn cosines(&self, reading: &WordReading, features: &[f64]) -> Vec<f64> {
        let read = reading.read_words(features);
        let length = read.iter().map(|r| r * r).sum::<f64>().sqrt();
        let of_mean: f64 = read.iter().zip(reading.mean.values()).map(|(r, m)| r * f64::from(*m)).sum();
        let cosine = |(places, norm): &(Vec<usize>, f64)| {
            let along = places.iter().map(|&place| read[place]).sum::<f64>() - of_mean;
            let scale = length * norm;
            if scale > 0.0 { (along / scale).clamp(-1.0, 1.0) } else { 0.0 }
        };
        self.labels.iter().map(cosine).collect()
    }

    /// The best `top_k` labels of a clip, best first, of equal ones the lower index first: ln p and p = softmax(cos / T) over all labels.
    pub(crate) fn ranking(&self, reading: &WordReading, features: &[f64], top_k: usize) -> Ranking {
        let cosines = self.cosines(reading, features);
        let mut order: Vec<usize> = (0..cosines.len()).collect();
        order.sort_by(|a, b| cosines[*b].total_cmp(&cosines[*a]).then(a.cmp(b)));
        let best = order.first().map_or(0.0, |label| cosines[*label]);
        let above = |label: usize| (cosines[label] - best) / reading.temperature;
        let sum = order.iter().map(|label| above(*label).exp()).sum::<f64>().ln();
        let mut ranking = Ranking::default();
        for &label in order.iter().take(top_k) {
            let log_prob = above(label) - sum;
            ranking.top.push(LabelScore { label, log_prob: log_prob as f32 });
            ranking.probabilities.push(log_prob.exp() as f32);
        }
        ranking
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(mean: &[f32]) -> Result<WordReading> {
        let vocabulary = ["down", "left", "right", "up"].map(str::to_owned).to_vec();
        // Two features: the side (right above 0) and the direction (up above 0).
        let weight = Vector::of(&[0.0, -0.5, -0.5, 0.0, 0.5, 0.0, 0.0, 0.5]);
        WordReading::new(vocabulary, (weight, Vector::of(&[0.125, 0.0, 0.0, 0.0]), Vector::of(mean)), 0.25)
    }

    #[test]
    fn words_are_bare_and_lower_case() {
        let words: Vec<String> = words_of("  Right hand, (RIGHT)\tele-vated — twice! ").into_iter().collect();
        assert_eq!(words, ["ele-vated", "hand", "right", "twice"]);
        assert!(words_of(" - , ").is_empty());
    }

    /// Every cosine spelled out, [words] by [words].
    #[test]
    fn cosines_are_those_of_the_definition() -> Result<()> {
        let mean = [0.5f32, 0.25, 0.75, 0.125];
        let reading = reading(&mean)?;
        let labels = ["up, right", "Down left", "right", "left unheard of"];
        let described = Described::new(&reading, &labels)?;
        assert_eq!(described.names(), labels);
        for features in [[1.0, 2.0], [-0.3, 0.7], [0.0, -4.0]] {
            let [side, direction] = features;
            let read = [-0.5 * direction + 0.125, -0.5 * side, 0.5 * side, 0.5 * direction];
            let cosines = described.cosines(&reading, &features);
            for (label, cosine) in labels.iter().zip(&cosines) {
                let has = |word: &String| f64::from(u8::from(words_of(label).contains(word)));
                let told: Vec<f64> = reading.vocabulary().iter().zip(mean).map(|(word, m)| has(word) - f64::from(m)).collect();
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let expected = dot(&read, &told) / (dot(&read, &read) * dot(&told, &told)).sqrt();
                assert!((cosine - expected).abs() < 1e-12, "{label}: {cosine} against {expected}");
            }
            let ranking = described.ranking(&reading, &features, 9);
            let sum: f64 = cosines.iter().map(|c| (c / 0.25).exp()).sum();
            assert_eq!(ranking.top.len(), 4);
            for (score, probability) in ranking.top.iter().zip(&ranking.probabilities) {
                let expected = (cosines[score.label] / 0.25).exp() / sum;
                assert!((f64::from(*probability) - expected).abs() < 1e-6 && (f64::from(score.log_prob) - expected.ln()).abs() < 1e-5);
            }
            assert!(ranking.probabilities.is_sorted_by(|a, b| a >= b));
            assert_eq!(described.ranking(&reading, &features, 2).top, ranking.top[..2]);
        }
        Ok(())
    }

    #[test]
    fn nothing_is_read_from_nothing() -> Result<()> {
        let vocabulary = ["a", "b"].map(str::to_owned).to_vec();
        let zero = |n: usize| Vector::of(&vec![0.0; n]);
        let reading = WordReading::new(vocabulary, (zero(4), zero(2), zero(2)), 1.0)?;
        let described = Described::new(&reading, &["b", "a"])?;
        assert_eq!(described.cosines(&reading, &[1.0, 1.0]), [0.0, 0.0]);
        let ranking = described.ranking(&reading, &[1.0, 1.0], 2);
        assert_eq!((ranking.top[0].label, ranking.probabilities), (0, vec![0.5, 0.5]));
        Ok(())
    }

    #[test]
    fn labels_that_nothing_could_tell_are_refused() -> Result<()> {
        let reading = reading(&[0.5; 4])?;
        for (labels, word) in [
            (&[][..], "at least one"),
            (&["up", "jump rope"][..], "`jump rope`"),
            (&["up", "..."], "label 1"),
            (&["hand up", "left", "UP once"], "labels 0 and 2 alike"),
        ] {
            let error = Described::new(&reading, labels).map(drop).map_err(|e| e.to_string());
            assert!(error.as_ref().is_err_and(|e| e.contains(word)), "{word}: {error:?}");
        }
        Ok(())
    }

    #[test]
    fn readings_that_do_not_fit_are_refused() {
        for mean in [&[0.5f32, 0.5, 1.0, 0.5][..], &[-0.1, 0.5, 0.5, 0.5], &[f32::NAN; 4], &[0.5; 3]] {
            assert!(matches!(reading(mean), Err(Error::Format { .. } | Error::Shape { .. })), "{mean:?}");
        }
    }
}
