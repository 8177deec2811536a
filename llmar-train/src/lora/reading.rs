//! Labels told by the words of their texts: the ridge regression of the words that training labels have onto the mean features of their clips, by stage 1
//! alone. The language model has no part in it. See [`WordReading`] for what the runtime makes of it.
//!
//! The temperature of its cosines is a setting. Classes left out of the map alone cannot fit it: stage 1's labels have drawn the classes that it saw apart,
//! whatever their words (tried on UTD-MHAD, the temperature ran to the end of its range). It takes classes that neither stage has seen.

use std::collections::BTreeSet;

use llmar::checkpoint;
use llmar::device::Vector;
use llmar::text::{Described, WordReading, words_of};
use tch::{Device, Kind, Tensor};

use super::config::Words;
use super::sentences::{Sentences, plain};
use crate::artifacts::{FloatTensor, Reads, Store};
use crate::error::{Error, Result};
use crate::torch::{setting, values};
use crate::vqvae::{ClipSet, Stage1};

/// A reading of words, as an adapter and a checkpoint have it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The words, and the temperature.
    pub words: checkpoint::Words,
    /// W [words, dim]
    weight: Vec<f32>,
    /// b `[words]`
    bias: Vec<f32>,
    /// m `[words]`
    mean: Vec<f32>,
}

impl Reading {
    /// Of the plain training clips of a stage 1 that reads whole clips.
    ///
    /// # Errors
    /// [`Error::Setting`] for labels whose words do not tell them apart.
    pub fn fit(settings: &Words, stage1: &Stage1, clips: &ClipSet) -> Result<Self> {
        let Sentences::Features(features) = plain(Reads::Features, stage1, clips)? else {
            return Err(Error::format("features", "expected them of whole clips"));
        };
        let features = features.mean_dim([1i64].as_slice(), false, Kind::Double).to_device(Device::Cpu);
        Self::of(settings, &features, clips.labels(), &clips.classes)
    }

    /// Of mean features f64 [clips, dim], the label of each clip and the labels' texts: W = argmin Σ ‖W (x − x̄) − t̃‖² + λ ‖W‖², b = −W x̄, in f64, with λ the
    /// ridge times the mean of ‖x − x̄‖².
    pub fn of(settings: &Words, features: &Tensor, labels: &[usize], texts: &[String]) -> Result<Self> {
        let words: Vec<BTreeSet<String>> = texts.iter().map(|text| words_of(text)).collect();
        let all: BTreeSet<&String> = words.iter().flatten().collect();
        // A word that every label has tells none.
        let vocabulary: Vec<String> = all.into_iter().filter(|word| words.iter().any(|text| !text.contains(*word))).cloned().collect();
        if vocabulary.is_empty() {
            return Err(setting("words", "labels with different words", format!("{} labels with the same", texts.len())));
        }
        let has = |text: &BTreeSet<String>| vocabulary.iter().map(|word| f64::from(u8::from(text.contains(word)))).collect::<Vec<_>>();
        // [labels, words]
        let told = Tensor::from_slice(&words.iter().flat_map(has).collect::<Vec<_>>()).view([-1, vocabulary.len() as i64]);
        let mean = told.mean_dim([0i64].as_slice(), false, Kind::Double);
        let middle = features.mean_dim([0i64].as_slice(), true, Kind::Double);
        let x = features - &middle;
        let of: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
        let targets = (told - &mean).index_select(0, &Tensor::from_slice(&of));
        let square = x.tr().matmul(&x);
        let ridge = square.trace() * (settings.ridge / labels.len().max(1) as f64) + 1e-12;
        let ridge = Tensor::eye(square.size()[0], (Kind::Double, Device::Cpu)) * ridge;
        // [dim, words]
        let map = Tensor::linalg_solve(&(square + ridge), &x.tr().matmul(&targets), true);
        let reading = Self {
            words: checkpoint::Words { vocabulary, temperature: settings.temperature },
            weight: values(&map.tr().contiguous())?,
            bias: values(&(-middle.matmul(&map)))?,
            mean: values(&mean)?,
        };
        // Labels that nothing could tell apart are refused now, not when the checkpoint is used.
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        Described::new(&reading.runtime()?, &texts).map_err(|e| setting("words", "texts of labels that differ in their words", e))?;
        Ok(reading)
    }

    /// As the runtime has it.
    pub fn runtime(&self) -> Result<WordReading> {
        let tensors = (Vector::of(&self.weight), Vector::of(&self.bias), Vector::of(&self.mean));
        Ok(WordReading::new(self.words.vocabulary.clone(), tensors, self.words.temperature)?)
    }

    /// Its tensors, as an adapter has them.
    pub fn export(&self) -> Vec<FloatTensor> {
        let count = self.bias.len();
        let tensor = |name: &str, shape: Vec<usize>, values: &Vec<f32>| (name.to_owned(), shape, values.clone(), Store::F32);
        vec![
            tensor(WordReading::WEIGHT, vec![count, self.weight.len() / count.max(1)], &self.weight),
            tensor(WordReading::BIAS, vec![count], &self.bias),
            tensor(WordReading::MEAN, vec![count], &self.mean),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(of: &[&str]) -> Vec<String> {
        of.iter().map(|text| (*text).to_owned()).collect()
    }

    /// The first feature is the side, the second the direction, and each class has clips around its own.
    fn clips(per_class: usize, texts: &[String]) -> (Tensor, Vec<usize>) {
        let mut rng = crate::torch::Rng::new(3, "readings", 0);
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        for (class, text) in texts.iter().enumerate() {
            let along = |up: &str, down: &str| f64::from(i8::from(text.contains(up)) - i8::from(text.contains(down)));
            for _ in 0..per_class {
                let mut noisy = |x: f64| 5.0 + x + 0.1 * f64::from(rng.normal());
                features.extend([noisy(along("right", "left")), noisy(along("up", "down")), noisy(0.0)]);
                labels.push(class);
            }
        }
        (Tensor::from_slice(&features).view([-1, 3]), labels)
    }

    #[test]
    fn classes_are_told_by_words_that_others_share() -> Result<()> {
        let seen = texts(&["right up", "left down", "right", "left", "up", "down"]);
        let (features, labels) = clips(8, &seen);
        let reading = Reading::of(&Words { ridge: 0.1, temperature: 0.2 }, &features, &labels, &seen)?;
        assert_eq!(reading.words.vocabulary, ["down", "left", "right", "up"]);
        let runtime = reading.runtime()?;
        let asked = Described::new(&runtime, &["Right, down", "left up"])?;
        for (features, right) in [([6.0, 4.0, 5.0], 0), ([4.0, 6.0, 5.0], 1)] {
            let cosines = asked.cosines(&runtime, &features);
            assert!(cosines[right] > 0.5 && cosines[1 - right] < 0.0, "{cosines:?}");
        }
        let shapes: Vec<_> = reading.export().into_iter().map(|(name, shape, values, _)| (name, shape, values.len())).collect();
        let expected = [("words.weight", vec![4, 3], 12), ("words.bias", vec![4], 4), ("words.mean", vec![4], 4)];
        assert_eq!(shapes, expected.map(|(name, shape, len)| (name.to_owned(), shape, len)));
        Ok(())
    }

    #[test]
    fn labels_that_words_cannot_tell_are_refused() -> Result<()> {
        for (of, word) in [
            (&["right up", "up right", "left"][..], "alike"),
            (&["up", "UP"], "labels with the same"),
            (&["up", "right up", "up once"], "label 0"),
        ] {
            let texts = texts(of);
            let (features, labels) = clips(2, &texts);
            let fitted =
                Reading::of(&Words { ridge: 1.0, temperature: 0.2 }, &features, &labels, &texts).map(drop).map_err(|e| e.to_string());
            assert!(fitted.as_ref().is_err_and(|e| e.contains(word)), "{of:?}: {fitted:?}");
        }
        Ok(())
    }
}
