//! Who answers about clips: the language model, or the words of the labels alone.

use std::time::Instant;

use super::clip::{Options, Scoring, Timings};
use super::model::{Model, Tokenized};
use super::question::{Question, check_texts};
use super::scorer::{Job, Scorer, nanoseconds};
use crate::control::Control;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::motion::ActionSentence;
use crate::text::{Decoding, Described, Ranking, WordReading};

/// Labels, and what it takes to choose among them.
#[derive(Debug)]
pub(super) enum Answers {
    /// The language model: its passes, and what it is asked.
    Language(Box<(Scorer, Question)>),
    /// The words of the labels. The language model is not run.
    Words(Described),
}

impl Answers {
    /// Of the model's own labels.
    pub fn of_model(device: &Device, model: &Model, options: &Options) -> Result<Self> {
        match options.scoring {
            Scoring::LanguageModel => Ok(Self::Language(Box::new((Scorer::new(device, model)?, Question::of_model(model)?)))),
            Scoring::Words if options.decoding == Decoding::Greedy => {
                Err(Error::argument("decoding", "exact, as no tokens are decoded by words", "greedy"))
            }
            Scoring::Words => Ok(Self::Words(Described::new(reading(model)?, &own(model))?)),
        }
    }

    /// Replaces the labels; without any, back to the model's own. On `Err` they stay.
    pub fn set_labels(&mut self, model: &Model, labels: Option<&[&str]>) -> Result<()> {
        match (self, labels) {
            (Self::Language(language), Some(labels)) => language.1 = Question::with_labels(model, labels)?,
            (Self::Language(language), None) => language.1 = Question::of_model(model)?,
            (Self::Words(described), labels) => {
                let own = own(model);
                let labels = labels.unwrap_or(&own);
                check_texts(labels)?;
                *described = Described::new(reading(model)?, labels)?;
            }
        }
        Ok(())
    }

    /// Texts of the labels.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Language(language) => &language.1.names,
            Self::Words(described) => described.names(),
        }
    }

    /// Whether clips are to be read with the means of their features.
    pub fn reads_means(&self) -> bool {
        matches!(self, Self::Words(_))
    }

    /// The best labels of each clip.
    pub fn rank(
        &mut self,
        (device, model): (&Device, &Model),
        clips: &[Tokenized],
        (top_k, decoding): (usize, Decoding),
        control: &Control,
        timings: &mut Timings,
    ) -> Result<Vec<Ranking>> {
        match self {
            Self::Language(language) => {
                let (scorer, question) = &mut **language;
                let sentences: Vec<_> = clips.iter().map(|clip| &clip.sentence).collect();
                let job = Job { device, model, question, top_k, decoding, control };
                Ok(scorer.score(job, &sentences, timings)?.into_iter().map(|mut search| search.ranking()).collect())
            }
            Self::Words(described) => {
                let (reading, start) = (reading(model)?, Instant::now());
                let ranking = |clip: &Tokenized| control.check().map(|()| described.ranking(reading, &clip.mean, top_k));
                let rankings = clips.iter().map(ranking).collect();
                timings.label_ns += nanoseconds(start);
                rankings
            }
        }
    }

    /// log p(label, EOS | prompt) of every label, `[sentences][labels]`.
    pub fn scores(&mut self, (device, model): (&Device, &Model), sentences: &[ActionSentence], control: &Control) -> Result<Vec<Vec<f32>>> {
        let Self::Language(language) = self else {
            let detail = "sentences are scored by the language model; this recogniser goes by words";
            return Err(Error::Unsupported { what: "scores of sentences".into(), detail: detail.into() });
        };
        let (scorer, question) = &mut **language;
        for sentence in sentences {
            question.check_length(model, sentence.tokens.len())?;
        }
        let (sentences, mut timings): (Vec<_>, _) = (sentences.iter().collect(), Timings::default());
        let job = Job { device, model, question, top_k: question.trie.labels(), decoding: Decoding::Exact, control };
        Ok(scorer.score(job, &sentences, &mut timings)?.iter().map(|search| search.all_scores()).collect())
    }
}

/// Texts of the model's own labels.
fn own(model: &Model) -> Vec<&str> {
    model.metadata().labels.iter().map(|label| label.text.as_str()).collect()
}

/// The model's reading of words.
fn reading(model: &Model) -> Result<&WordReading> {
    model.words().ok_or_else(|| Error::Unsupported {
        what: "scoring by words".into(),
        detail: format!("the checkpoint of `{}` has no reading of words: its stage 2 had no setting `words`", model.metadata().name),
    })
}
