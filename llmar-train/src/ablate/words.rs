//! Unseen classes told by the words of their texts, without the language model: what seen clips show is read, linearly, onto the words of what their
//! classes are called, and a clip of unseen classes has the one whose words lie nearest. The words are attributes in the sense of Lampert et al. (2009),
//! and there is no table of them besides the texts.

use std::collections::BTreeSet;
use std::path::Path;

use llmar::formats::ClipArchive;
use llmar::text::words_of;
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::lora::score::{Report, report};
use crate::lora::{Config, Sentences, code_rows, plain};
use crate::torch::{setting, tensor, values};
use crate::vqvae::{ClipSet, Data, Stage1};

/// Added to the diagonal of the features' squares, whose trace is 1 a clip. Chosen on classes and draws that the table does not ask
/// about, as is that the mean over a sentence is read and not its parts.
const RIDGE: f64 = 10.0;

/// Asks a finished stage 1 about the clips of the unseen classes, on the test side or the training side, and measures.
pub fn measure(stage1: &Path, settings: &Config, on_training_side: bool) -> Result<(Report, usize)> {
    let stage1 = Stage1::read(stage1, Device::Cpu)?;
    if stage1.live() {
        return Err(setting("variant.measure", "runtime or trainer, as stage 1 is live", "words"));
    }
    let (data, preprocess) = (&settings.data, &stage1.meta.preprocess);
    let archive = ClipArchive::read(&data.archive)?;
    let others = archive.classes.iter().filter(|class| !data.unseen.contains(class)).cloned().collect();
    // Of the classes that training does not know, these and nothing else are read.
    let asked = Data { unseen: others, ..data.clone() };
    let seen = ClipSet::read(data, preprocess)?.0;
    let asked = if on_training_side { ClipSet::read(&asked, preprocess)?.0 } else { ClipSet::read_test(&asked, preprocess)? };
    let words = words(&seen.classes, &asked.classes);
    let features = |clips: &ClipSet| -> Result<Tensor> {
        let rows = match plain(settings.map.reads, &stage1, clips)? {
            Sentences::Codes(sentences) => code_rows(stage1.tangent(), &sentences),
            Sentences::Features(features) => features,
        };
        Ok(rows.mean_dim([1i64].as_slice(), false, Kind::Double))
    };
    let scores = scores(&features(&seen)?, seen.labels(), &features(&asked)?, &words)?;
    Ok((report(&scores, asked.labels(), &asked.classes), asked.len()))
}

/// Which words the texts of seen and asked classes have, as 1 and 0 less the mean over seen ones: [seen, words] and [asked, words]. Words that no seen
/// class has, and those that all have, cannot be learned and are left out.
fn words(seen: &[String], asked: &[String]) -> (Tensor, Tensor) {
    let split = |text: &String| words_of(text);
    let (seen, asked): (Vec<_>, Vec<_>) = (seen.iter().map(split).collect(), asked.iter().map(split).collect());
    let all: BTreeSet<&String> = seen.iter().flatten().collect();
    let told: Vec<&String> = all.into_iter().filter(|word| seen.iter().any(|text| !text.contains(*word))).collect();
    let rows = |texts: &[BTreeSet<String>]| {
        let has = |text: &BTreeSet<String>| told.iter().map(|word| f32::from(u8::from(text.contains(*word)))).collect::<Vec<_>>();
        let values: Vec<f32> = texts.iter().flat_map(has).collect();
        tensor(&values, &[texts.len() as i64, told.len() as i64], Device::Cpu).to_kind(Kind::Double)
    };
    let (seen, asked) = (rows(&seen), rows(&asked));
    let mean = seen.mean_dim([0i64].as_slice(), true, Kind::Double);
    (seen - &mean, asked - mean)
}

/// Cosine between the words read from each clip and those of each asked class, `[clips][asked]`. The reading is the ridge regression of the words of
/// seen clips' classes onto their features [clips, features].
fn scores(seen: &Tensor, labels: &[usize], asked: &Tensor, (words, asked_words): &(Tensor, Tensor)) -> Result<Vec<Vec<f64>>> {
    let double = |x: &Tensor| x.to_kind(Kind::Double);
    let labels: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
    let mean = double(seen).mean_dim([0i64].as_slice(), true, Kind::Double);
    let (x, asked) = (double(seen) - &mean, double(asked) - mean);
    let square = x.tr().matmul(&x);
    // Features whose squares are 1 a clip, in all.
    let unit = square.trace() / labels.len().max(1) as f64;
    let ridge = Tensor::eye(x.size()[1], (Kind::Double, Device::Cpu)) * (&unit * RIDGE + 1e-12);
    let targets = x.tr().matmul(&words.index_select(0, &Tensor::from_slice(&labels)));
    let read = asked.matmul(&Tensor::linalg_solve(&(square + ridge), &targets, true));
    let unit = |x: &Tensor| x / x.square().sum_dim_intlist([-1i64].as_slice(), true, Kind::Double).sqrt().clamp_min(1e-12);
    let cosines = values(&unit(&read).matmul(&unit(asked_words).tr()))?;
    Ok(cosines.chunks(asked_words.size()[0].max(1) as usize).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect())
}

#[cfg(test)]
mod tests {
    use llmar::text::Described;

    use super::*;
    use crate::lora::{Reading, WordSettings};

    fn texts(of: &[&str]) -> Vec<String> {
        of.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn only_words_that_tell_seen_classes_apart_count() -> Result<()> {
        let (seen, asked) = words(&texts(&["right hand up", "both hands up"]), &texts(&["Right hand down"]));
        // both, hand, hands, right; not "up", which all have, nor "down", which none has.
        assert_eq!(values(&seen)?, [-0.5, 0.5, -0.5, 0.5, 0.5, -0.5, 0.5, -0.5]);
        assert_eq!(values(&asked)?, [-0.5, 0.5, -0.5, 0.5]);
        Ok(())
    }

    /// What stage 2 fits, scored as the runtime scores it, against this file's own way: one and the same cosine.
    #[test]
    fn the_runtime_scores_as_this_does() -> Result<()> {
        let (seen, asked) =
            (texts(&["right up", "left down", "right", "left once", "up", "down once"]), texts(&["right down", "left up, twice"]));
        let mut rng = crate::torch::Rng::new(5, "features", 0);
        let mut features = |clips: i64| Tensor::from_slice(&(0..clips * 4).map(|_| rng.normal()).collect::<Vec<_>>()).view([clips, 4]);
        let (of_seen, of_asked, labels) = (features(24), features(7), (0..24).map(|clip| clip % 6).collect::<Vec<_>>());
        let expected = scores(&of_seen, &labels, &of_asked, &words(&seen, &asked))?;
        let settings = WordSettings { ridge: RIDGE, temperature: 0.2 };
        let reading = Reading::of(&settings, &of_seen.to_kind(Kind::Double), &labels, &seen)?.runtime()?;
        let described = Described::new(&reading, &asked.iter().map(String::as_str).collect::<Vec<_>>())?;
        for (clip, expected) in expected.iter().enumerate() {
            let mean = Vec::<f64>::try_from(of_asked.get(clip as i64).to_kind(Kind::Double))?;
            for (got, expected) in described.cosines(&reading, &mean).iter().zip(expected) {
                assert!((got - expected).abs() < 1e-5, "clip {clip}: {got} against {expected}");
            }
        }
        Ok(())
    }

    #[test]
    fn classes_are_told_by_words_that_others_share() -> Result<()> {
        // The first feature is the side, the second the direction: (right, down) and (left, up) were never seen.
        let told = words(&texts(&["right up", "left down", "right", "left", "up", "down"]), &texts(&["right down", "left up"]));
        let seen = Tensor::from_slice(&[1f32, 1.0, -1.0, -1.0, 1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0]).view([6, 2]);
        let asked = Tensor::from_slice(&[0.9f32, -1.1, -1.0, 0.8]).view([2, 2]);
        let scores = scores(&seen, &[0, 1, 2, 3, 4, 5], &asked, &told)?;
        assert!(scores[0][0] > 0.5 && scores[0][1] < 0.0 && scores[1][1] > 0.5 && scores[1][0] < 0.0, "{scores:?}");
        Ok(())
    }
}
