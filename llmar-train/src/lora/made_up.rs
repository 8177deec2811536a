//! Made-up actions: sentences that say the words of a text, to be called by that text out of a list of others.
//!
//! Of a few dozen seen classes a language model learns by heart which sentence has which name, and compares nothing. Made-up actions never come twice: to
//! name them it has to look in the sentence for the words of each text it may choose from, and then it can do the same for a class that no stage saw.
//!
//! A code lies, by `map.start = "labels"`, at s (e − ē) + μ with e the mean token embedding of the labels that it speaks of; a made-up token lies where a
//! code would that speaks of some of the text's words.

use std::collections::BTreeSet;

use llmar::text::{Tokenizer, words_of};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::adapter::text_places;
use super::config::{Form, Map, Prompt, Start};
use super::llama::Llama;
use crate::error::Result;
use crate::torch::{Rng, in_range, setting};

/// Settings. Lists are as long as `prompt.list` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeUp {
    /// Chance that a training pass is of made-up actions, 0..=1.
    pub share: f32,
    /// Length of the normal noise on each of their rows, whose words lie about `map.scale` from the mean embedding.
    pub noise: f64,
}

impl MadeUp {
    /// The numbers are in their ranges, and the other settings let made-up sentences lie where codes do.
    pub fn check(&self, map: &Map, prompt: &Prompt) -> Result<()> {
        in_range("made_up.share", f64::from(self.share), 0.0, 1.0)?;
        in_range("made_up.noise", self.noise, 0.0, 1e3)?;
        if map.start != Start::Labels || map.form != Form::Affine {
            let got = format!("{:?}, {:?}", map.form, map.start);
            return Err(setting("map", "affine and started at the labels with `made_up`, whose sentences lie there", got));
        }
        if prompt.listed == 0.0 {
            return Err(setting("prompt.listed", "above 0 with `made_up`, whose texts are told out of lists", 0));
        }
        Ok(())
    }
}

/// Share of a seen text's words, uniform in a range, that a made-up one keeps; the others become any word of any text.
const KEPT: [f32; 2] = [0.3, 0.9];
/// Share of its text's words that a token says: a sentence does not say everything at every moment.
const SAID: [f32; 2] = [0.3, 0.9];
/// Share of every token of a sentence that says a seen text instead: codes of unseen classes are codes of seen ones.
const OTHER: [f32; 2] = [0.0, 0.5];
/// Tries to make a text that is not there yet before it gets a word more: where there are few words, few texts are different.
const TRIES: usize = 20;
/// Chance that a text is made from one that is in the list already, so that lists hold texts that hardly differ.
const ALIKE: f32 = 0.5;

fn within([from, to]: [f32; 2], rng: &mut Rng) -> f32 {
    from + (to - from) * rng.unit()
}

/// Who makes actions up: the words of seen texts, and where they lie.
#[derive(Debug)]
pub struct Author {
    /// Each seen text as words.
    texts: Vec<Vec<String>>,
    /// All of their words.
    vocabulary: Vec<String>,
    /// ē `[hidden]`
    centre: Tensor,
    /// s
    factor: f64,
    /// μ `[hidden]`
    mean: Tensor,
    /// Length of the noise on a row.
    noise: f64,
}

/// One made-up action: its text, and a sentence that says it, rows [w, hidden].
pub type Action = (String, Tensor);

impl Author {
    /// Of the labels' texts with their ids, for lists of up to `most`; `scale` is that of the map.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::error::Error::Setting) for labels whose few words do not make so many different texts.
    pub fn new(texts: &[String], ids: &[Vec<u32>], most: usize, llama: &Llama, (scale, noise): (f64, f64)) -> Result<Self> {
        let texts: Vec<Vec<String>> = texts.iter().map(|text| text.split_whitespace().map(str::to_owned).collect()).collect();
        let vocabulary: BTreeSet<&String> = texts.iter().flatten().collect();
        let vocabulary: Vec<String> = vocabulary.into_iter().cloned().collect();
        // All sets of n words are 2ⁿ; half of them are found soon.
        if vocabulary.len() < 2 * usize::BITS as usize && 1u128 << vocabulary.len() < 4 * most as u128 {
            let expected = format!("labels of more words, so that lists of {most} differ");
            return Err(setting("made_up", expected, format!("{} words", vocabulary.len())));
        }
        let places = tch::no_grad(|| Tensor::stack(&ids.iter().map(|ids| llama.mean_embedding(ids)).collect::<Vec<_>>(), 0));
        let (centre, factor) = text_places(&places, scale);
        let mean = llama.embedding.to_kind(Kind::Float).mean_dim([0i64].as_slice(), false, Kind::Float);
        Ok(Self { texts, vocabulary, centre, factor, mean, noise })
    }

    /// `count` texts of which no two have the same words.
    fn texts(&self, count: usize, rng: &mut Rng) -> Vec<Vec<String>> {
        let mut made: Vec<Vec<String>> = Vec::new();
        let (mut known, mut failed) = (BTreeSet::new(), 0);
        while made.len() < count {
            let alike = !made.is_empty() && rng.unit() < ALIKE;
            let from = if alike { &made[rng.below(made.len())] } else { &self.texts[rng.below(self.texts.len())] };
            let kept = within(KEPT, rng);
            let mut text: Vec<String> = Vec::new();
            for word in from {
                let word = if rng.unit() < kept { word } else { &self.vocabulary[rng.below(self.vocabulary.len())] };
                if !text.contains(word) {
                    text.push(word.clone());
                }
            }
            text.extend((0..failed / TRIES).map(|_| self.vocabulary[rng.below(self.vocabulary.len())].clone()));
            if known.insert(words_of(&text.join(" "))) {
                made.push(text);
                failed = 0;
            } else {
                failed += 1;
            }
        }
        made
    }

    /// Rows [w, hidden] of a sentence of `w` tokens that says a text.
    fn sentence(&self, text: &[String], w: usize, llama: &Llama, tokenizer: &Tokenizer, rng: &mut Rng) -> Tensor {
        let place = |words: &[String]| {
            let ids = tokenizer.encode_continuation(&format!(" {}", words.join(" ")));
            (llama.mean_embedding(&ids) - &self.centre) * self.factor
        };
        let other = place(&self.texts[rng.below(self.texts.len())]);
        let share = f64::from(within(OTHER, rng));
        let said = within(SAID, rng);
        let row = |_| {
            let some: Vec<String> = text.iter().filter(|_| rng.unit() < said).cloned().collect();
            place(if some.is_empty() { text } else { &some }) * (1.0 - share) + &other * share
        };
        let rows = Tensor::stack(&(0..w).map(row).collect::<Vec<_>>(), 0);
        let normal: Vec<f32> = (0..rows.numel()).map(|_| rng.normal()).collect();
        let noise = Tensor::from_slice(&normal).to_device(rows.device()).view_as(&rows);
        &rows + noise * (self.noise / (rows.size()[1] as f64).sqrt()) + &self.mean
    }

    /// `count` actions of `w` tokens, and further texts to choose from, so that there are `texts` in all if that is more.
    pub fn actions(
        &self,
        (count, w, texts): (usize, usize, usize),
        llama: &Llama,
        tokenizer: &Tokenizer,
        rng: &mut Rng,
    ) -> (Vec<Action>, Vec<String>) {
        let made = self.texts(texts.max(count), rng);
        let (own, others) = made.split_at(count);
        let action = |text: &Vec<String>| (text.join(" "), self.sentence(text, w, llama, tokenizer, rng));
        (own.iter().map(action).collect(), others.iter().map(|text| text.join(" ")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::{self, BaseMeta};
    use crate::import::tokenizer;
    use crate::lora::Precision;
    use crate::lora::tests::{folder, imported};
    use crate::testing::shared;
    use crate::torch::values;

    const CPU: tch::Device = tch::Device::Cpu;
    const TEXTS: [&str; 4] = [
        "right hand raised swing left and right",
        "both hands low bend elbows up and down",
        "left leg step forward bend knees",
        "bend torso down right hand low",
    ];

    /// Every made-up sentence says its own text more than the others of its list; so the nearest text is the right one where no noise is.
    #[test]
    fn sentences_say_their_texts() -> Result<()> {
        let Some(source) = shared("sentences_say_their_texts", "golden/stories260k") else { return Ok(()) };
        let folder = folder()?;
        let base = artifacts::open::<BaseMeta>(&imported(&source, folder.path())?)?;
        let llama = Llama::read(&base, CPU, Precision::F32)?;
        let tokenizer = Tokenizer::new(tokenizer::from_base(&base)?)?;
        let texts = TEXTS.map(str::to_owned);
        let ids = texts.clone().map(|text| tokenizer.encode_continuation(&format!(" {text}")));
        let author = Author::new(&texts, &ids, 4, &llama, (2.0, 0.0))?;
        let vocabulary = words_of(&TEXTS.join(" "));
        let mut rng = Rng::new(5, "made up", 0);
        let (mut nearest, mut count) = (0, 0);
        for _ in 0..20 {
            let (actions, others) = author.actions((2, 8, 4), &llama, &tokenizer, &mut rng);
            let all: Vec<&String> = actions.iter().map(|(text, _)| text).chain(&others).collect();
            let different: BTreeSet<_> = all.iter().map(|text| words_of(text)).collect();
            assert!(all.len() == 4 && different.len() == 4 && different.iter().all(|words| words.is_subset(&vocabulary)), "{all:?}");
            for (own, rows) in &actions {
                assert_eq!(rows.size(), [8, llama.config.hidden_size as i64]);
                let said = rows.mean_dim([0i64].as_slice(), false, Kind::Float) - &author.mean;
                let cosine = |text: &String| {
                    let place = llama.mean_embedding(&tokenizer.encode_continuation(&format!(" {text}"))) - &author.centre;
                    (said.dot(&place) / (said.norm() * place.norm())).double_value(&[])
                };
                let best = all.iter().max_by(|a, b| cosine(a).total_cmp(&cosine(b)));
                nearest += usize::from(best == Some(&own));
                count += 1;
            }
        }
        // A fourth by chance; texts that hardly differ are told apart less often.
        assert!(count == 40 && nearest >= 26, "{nearest} of {count}");

        // The same draws give the same actions; noise is of the length that was asked for.
        let noisy = Author::new(&texts, &ids, 4, &llama, (2.0, 1.5))?;
        let drawn = |author: &Author| author.actions((1, 64, 3), &llama, &tokenizer, &mut Rng::new(7, "made up", 1)).0.remove(0);
        let (quiet, loud) = (drawn(&author), drawn(&noisy));
        assert_eq!(quiet.0, loud.0);
        assert_eq!(values(&loud.1)?, values(&drawn(&noisy).1)?);
        let length = (&loud.1 - &quiet.1).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float).mean(Kind::Float).sqrt();
        assert!((length.double_value(&[]) - 1.5).abs() < 0.15, "{length:?}");

        // Three words make seven texts, and a list of two takes no longer than one of seven would; more than that is refused.
        let (few, ids) = (["a b", "c"].map(str::to_owned), [vec![5], vec![6]]);
        let author = Author::new(&few, &ids, 2, &llama, (2.0, 0.0))?;
        assert_eq!(author.texts(7, &mut rng).len(), 7);
        assert!(Author::new(&few, &ids, 3, &llama, (2.0, 0.0)).is_err_and(|e| e.to_string().contains("made_up")));
        Ok(())
    }
}
