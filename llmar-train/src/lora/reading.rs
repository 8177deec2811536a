//! Labels told by the words of their texts: the ridge regression of the words that training labels have onto the mean features of their clips, by stage 1
//! alone, and the temperature of its cosines. The language model has no part in it. See [`WordReading`] for what the runtime makes of it.

use std::collections::BTreeSet;

use llmar::checkpoint;
use llmar::device::Vector;
use llmar::text::{Described, WordReading, words_of};
use tch::{Device, Kind, Tensor};

use super::config::{Reads, Words};
use super::score::fit_temperature;
use super::sentences::{Sentences, plain};
use crate::artifacts::{FloatTensor, Store};
use crate::error::{Error, Result};
use crate::torch::{setting, values};
use crate::vqvae::{ClipSet, Stage1};

/// Most groups of classes that are left out, one after another, to fit the temperature.
const GROUPS: usize = 5;
/// Cosines are multiplied by this while the temperature is looked for: [`fit_temperature`] looks from .22 to 12, so from .011 to .6 here.
const STRETCH: f64 = 20.0;

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
    /// [`Error::Setting`] for labels whose words do not tell them apart, and for too few to fit a temperature on where none is set.
    pub fn fit(settings: &Words, stage1: &Stage1, clips: &ClipSet) -> Result<Self> {
        let Sentences::Features(features) = plain(Reads::Features, stage1, clips)? else {
            return Err(Error::format("features", "expected them of whole clips"));
        };
        let features = features.mean_dim([1i64].as_slice(), false, Kind::Double).to_device(Device::Cpu);
        Self::of(settings, &features, clips.labels(), &clips.classes)
    }

    /// Of mean features f64 [clips, dim], the label of each clip and the labels' texts.
    pub fn of(settings: &Words, features: &Tensor, labels: &[usize], texts: &[String]) -> Result<Self> {
        let temperature = match settings.temperature {
            Some(temperature) => temperature,
            None => temperature(settings.ridge, features, labels, texts)?,
        };
        let all: Vec<usize> = (0..texts.len()).collect();
        let reading = Self::of_classes(settings.ridge, features, (labels, texts), &all, temperature)?;
        // Labels that nothing could tell apart are refused now, not when the checkpoint is used.
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        Described::new(&reading.runtime()?, &texts).map_err(|e| setting("words", "texts of labels that differ in their words", e))?;
        Ok(reading)
    }

    /// Of the clips of some classes: W = argmin Σ ‖W (x − x̄) − t̃‖² + λ ‖W‖², b = −W x̄, in f64, with λ the ridge times the mean of ‖x − x̄‖².
    fn of_classes(ridge: f64, features: &Tensor, (labels, texts): (&[usize], &[String]), classes: &[usize], temperature: f32) -> Result<Self> {
        let words: Vec<BTreeSet<String>> = classes.iter().map(|class| words_of(&texts[*class])).collect();
        let all: BTreeSet<&String> = words.iter().flatten().collect();
        // A word that every label has tells none.
        let vocabulary: Vec<String> = all.into_iter().filter(|word| words.iter().any(|text| !text.contains(*word))).cloned().collect();
        if vocabulary.is_empty() {
            return Err(setting("words", "labels with different words", format!("{} labels with the same", classes.len())));
        }
        let has = |text: &BTreeSet<String>| vocabulary.iter().map(|word| f64::from(u8::from(text.contains(word)))).collect::<Vec<_>>();
        let count = vocabulary.len() as i64;
        let told = Tensor::from_slice(&words.iter().flat_map(has).collect::<Vec<_>>()).view([-1, count]);
        let mean = told.mean_dim([0i64].as_slice(), false, Kind::Double);
        let (clips, of): (Vec<i64>, Vec<i64>) = labels
            .iter()
            .enumerate()
            .filter_map(|(clip, label)| Some((clip as i64, classes.iter().position(|class| class == label)? as i64)))
            .unzip();
        let x = features.index_select(0, &Tensor::from_slice(&clips));
        let middle = x.mean_dim([0i64].as_slice(), true, Kind::Double);
        let (x, targets) = (x - &middle, (told - &mean).index_select(0, &Tensor::from_slice(&of)));
        let square = x.tr().matmul(&x);
        let ridge = square.trace() * (ridge / clips.len().max(1) as f64) + 1e-12;
        let ridge = Tensor::eye(square.size()[0], (Kind::Double, Device::Cpu)) * ridge;
        // [dim, words]
        let map = Tensor::linalg_solve(&(square + ridge), &x.tr().matmul(&targets), true);
        Ok(Self {
            words: checkpoint::Words { vocabulary, temperature },
            weight: values(&map.tr().contiguous())?,
            bias: values(&(-middle.matmul(&map)))?,
            mean: values(&mean)?,
        })
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

/// The temperature of the cosines that fits clips of classes that the map was fitted without: class c is left out with all of c modulo the number of groups,
/// and its clips are told among these. Stage 1 has seen them, so it is a little too sure of classes that it has not.
fn temperature(ridge: f64, features: &Tensor, labels: &[usize], texts: &[String]) -> Result<f32> {
    let groups = GROUPS.min(texts.len() / 2);
    let (mut scores, mut truths) = (Vec::new(), Vec::new());
    for group in 0..if groups < 2 { 0 } else { groups } {
        let (kept, left): (Vec<usize>, Vec<usize>) = (0..texts.len()).partition(|class| class % groups != group);
        let Ok(reading) = Reading::of_classes(ridge, features, (labels, texts), &kept, 1.0) else { continue };
        let reading = reading.runtime()?;
        let knows = |class: &usize| words_of(&texts[*class]).iter().any(|word| reading.vocabulary().contains(word));
        let asked: Vec<usize> = left.into_iter().filter(knows).collect();
        let of_asked: Vec<&str> = asked.iter().map(|class| texts[*class].as_str()).collect();
        let Ok(described) = Described::new(&reading, &of_asked) else { continue };
        for (clip, label) in labels.iter().enumerate() {
            if let Some(truth) = asked.iter().position(|class| class == label) {
                let mean = Vec::<f64>::try_from(features.get(clip as i64))?;
                scores.push(described.cosines(&reading, &mean).into_iter().map(|cosine| STRETCH * cosine).collect());
                truths.push(truth);
            }
        }
    }
    if scores.is_empty() {
        let expected = "a number, as the labels are too few, or share too few words, to fit it on labels left out";
        return Err(setting("words.temperature", expected, "none"));
    }
    Ok((fit_temperature(&scores, &truths) / STRETCH) as f32)
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
        let reading = Reading::of(&Words { ridge: 0.1, temperature: None }, &features, &labels, &seen)?;
        assert_eq!(reading.words.vocabulary, ["down", "left", "right", "up"]);
        assert!((0.01..0.6).contains(&reading.words.temperature), "{}", reading.words.temperature);
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
        let fit = |of: &[&str], temperature| {
            let texts = texts(of);
            let (features, labels) = clips(2, &texts);
            Reading::of(&Words { ridge: 1.0, temperature }, &features, &labels, &texts).map(drop).map_err(|e| e.to_string())
        };
        for (of, temperature, word) in [
            (&["right up", "up right", "left"][..], Some(0.1), "alike"),
            (&["up", "UP"], Some(0.1), "labels with the same"),
            (&["right", "left", "up"], None, "words.temperature"),
            (&["right", "left", "up", "down"], None, "words.temperature"),
            (&["right", "right up", "up"], Some(0.1), ""),
        ] {
            let fitted = fit(of, temperature);
            assert!(if word.is_empty() { fitted.is_ok() } else { fitted.as_ref().is_err_and(|e| e.contains(word)) }, "{of:?}: {fitted:?}");
        }
        Ok(())
    }
}
