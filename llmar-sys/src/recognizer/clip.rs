//! Recognising clips.

use std::sync::Arc;
use std::time::Instant;

use super::answers::Answers;
use super::model::{Model, Tokenized};
use super::scorer::nanoseconds;
use crate::control::Control;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::motion::{ActionSentence, EncoderScratch};
use crate::skeleton::Clip;
use crate::text::{Balance, Decoding, LabelScore, Ranking};

/// Settings of a recogniser.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Threads, for a model on the CPU; 0 and 1 run on the caller's thread alone, more start workers that end with the recogniser. At most 256.
    pub threads: usize,
    /// Labels returned, best first; 0 means 5. With `top_k` ≥ the number of labels the full distribution is computed.
    pub top_k: usize,
    /// How the answer is found. With [`Decoding::Greedy`] one label comes back, whatever `top_k`.
    pub decoding: Decoding,
    /// `None` takes the model's threshold; by words, whose probabilities it was not chosen for, none.
    pub unknown_below: Option<f32>,
    /// What labels are told by.
    pub scoring: Scoring,
}

/// What labels are told by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scoring {
    /// The language model: log p(label, EOS | prompt).
    #[default]
    LanguageModel,
    /// The words of the labels' texts alone, for labels that training never saw: see [`WordReading`](crate::text::WordReading). The language model is
    /// not run.
    Words,
}

/// Labels returned where [`Options::top_k`] is 0.
const DEFAULT_TOP_K: usize = 5;
/// Most threads of a recogniser.
pub const THREAD_LIMIT: usize = 256;

/// One answer.
#[derive(Clone, Debug)]
pub struct Recognition {
    /// Best first by probability: exact log p(label, EOS | prompt); by words, ln of the probability before any balance.
    pub top: Vec<LabelScore>,
    /// Calibrated probability of each of `top`, over all labels of the recogniser: exact when all of them are returned or the labels are
    /// [balanced](Recognizer::balance), otherwise within half of [`PROBABILITY_TOLERANCE`](crate::text::PROBABILITY_TOLERANCE).
    pub probabilities: Vec<f32>,
    /// The best probability is below the threshold.
    pub unknown: bool,
    /// The action sentence that was read.
    pub sentence: ActionSentence,
    /// Share of joint-frames that were missing and filled.
    pub missing: f32,
    /// Where the time went.
    pub timings: Timings,
}

/// Wall time of the stages, in nanoseconds. In a batch: of the whole batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Skeleton → action sentence.
    pub tokenize_ns: u64,
    /// Prompt through the LLaMA.
    pub prompt_ns: u64,
    /// Label scoring.
    pub label_ns: u64,
    /// LLaMA rows run for prompts.
    pub prompt_rows: u64,
    /// LLaMA rows run for labels.
    pub label_rows: u64,
}

/// Recognises clips, one call at a time. Keeps its model alive. A call that failed or was cancelled leaves it as it was.
#[derive(Debug)]
pub struct Recognizer {
    model: Arc<Model>,
    device: Device,
    encoder: EncoderScratch,
    answers: Answers,
    top_k: usize,
    decoding: Decoding,
    unknown_below: f32,
    /// Of the labels that are set.
    balance: Option<Balance>,
}

impl Recognizer {
    /// Allocates buffers, starts the workers asked for and runs the prompt's fixed prefix once, where the language model answers.
    ///
    /// `Err` for too many threads, a threshold outside 0..=1, and a model whose prompt and longest label exceed its positions. By words, [`Error::Unsupported`]
    /// for a model without a reading, and [`Error::InvalidArgument`] for greedy decoding and where the model's own labels cannot be told by the words it knows.
    pub fn new(model: Arc<Model>, options: Options) -> Result<Self> {
        if options.threads > THREAD_LIMIT {
            return Err(Error::Limit { what: "number of threads", limit: THREAD_LIMIT as u64, got: options.threads as u64 });
        }
        let threshold = match options.scoring {
            Scoring::LanguageModel => model.metadata().calibration.unknown_below,
            Scoring::Words => 0.0,
        };
        let unknown_below = options.unknown_below.unwrap_or(threshold);
        if !(0.0..=1.0).contains(&unknown_below) {
            return Err(Error::argument("unknown_below", "0..=1", unknown_below));
        }
        let device = model.placed().device(options.threads.max(1))?;
        let answers = Answers::of_model(&device, &model, &options)?;
        let top_k = if options.top_k == 0 { DEFAULT_TOP_K } else { options.top_k };
        let encoder = EncoderScratch::new(&device);
        Ok(Self { model, device, encoder, answers, top_k, decoding: options.decoding, unknown_below, balance: None })
    }

    /// The model it was made from.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Names of the labels that it chooses from.
    pub fn labels(&self) -> Vec<String> {
        self.answers.names().to_vec()
    }

    /// Replaces the label list: at least one, no empty or duplicate text, at most 65,536 of at most 1,024 bytes. The prompt then lists them
    /// ("… predict the corresponding action from [a, b, c]."), and must fit the model's positions. By words there is no prompt; each must then have at least one
    /// word that the model knows ([`WordReading::vocabulary`](crate::text::WordReading::vocabulary); others are passed over), and no two the same of them.
    /// On `Err` the previous list stays, and its [balance](Self::balance); a new list has none.
    pub fn set_labels(&mut self, labels: &[&str]) -> Result<()> {
        self.answers.set_labels(&self.model, Some(labels))?;
        self.balance = None;
        Ok(())
    }

    /// Goes back to the model's own labels.
    pub fn reset_labels(&mut self) -> Result<()> {
        self.answers.set_labels(&self.model, None)?;
        self.balance = None;
        Ok(())
    }

    /// Takes out of later answers what each label gets whatever is shown, p(label | clip) / mean p(label) normalised anew, the mean over `clips`: some dozens, of actions that
    /// are none of the labels, by the same camera. For labels that training never saw, of which a language model likes to say some more than others
    /// (contextual calibration, Zhao et al. 2021). All labels are then scored at every call. Lasts until the labels are replaced; without clips it ends.
    ///
    /// `Err` for greedy decoding, which has no probabilities, and as [`recognize_batch`](Self::recognize_batch); what was before then stays.
    pub fn balance(&mut self, clips: &[Clip<'_>], control: &Control) -> Result<()> {
        if self.decoding == Decoding::Greedy {
            return Err(Error::argument("decoding", "exact, as labels are balanced by their probabilities", "greedy"));
        }
        let (read, mut timings) = (self.tokenize_all(clips, control, super::batch::of_clip)?, Timings::default());
        let labels = self.answers.names().len();
        let rankings = self.answers.rank((&self.device, &self.model), &read, (labels, self.decoding), control, &mut timings)?;
        self.balance = Balance::over(labels, rankings.iter());
        Ok(())
    }

    /// The action sentence of a clip, without the language model, and the share of its joint-frames that were missing and filled.
    pub fn tokenize(&mut self, clip: &Clip<'_>, control: &Control) -> Result<(ActionSentence, f32)> {
        let Tokenized { sentence, missing, .. } = self.tokenize_all(&[*clip], control, |_, source| source)?.remove(0);
        Ok((sentence, missing))
    }

    /// The action sentences of clips, with what else the answers need; `of_clip` says in an error which clip it was.
    pub(super) fn tokenize_all(
        &mut self,
        clips: &[Clip<'_>],
        control: &Control,
        of_clip: impl Fn(usize, Error) -> Error,
    ) -> Result<Vec<Tokenized>> {
        self.model.tokenize(&self.device, clips, &mut self.encoder, control, self.answers.reads_means(), of_clip)
    }

    /// Recognises one clip.
    pub fn recognize(&mut self, clip: &Clip<'_>, control: &Control) -> Result<Recognition> {
        let start = Instant::now();
        let clips = self.tokenize_all(&[*clip], control, |_, source| source)?;
        Ok(self.answered(clips, start, control)?.remove(0))
    }

    /// Scores every label of given action sentences exactly: log p(label, EOS | prompt), `[sentences][labels]`. For the trainer's parity tests.
    ///
    /// `Err` for a sentence without tokens, with one beyond the codebook, or too long for the model's positions, and for a recogniser that goes by words.
    pub fn score_sentences(&mut self, sentences: &[ActionSentence], control: &Control) -> Result<Vec<Vec<f32>>> {
        let codes = self.model.metadata().quantizer.codes;
        for (i, sentence) in sentences.iter().enumerate() {
            if sentence.tokens.is_empty() {
                return Err(Error::argument("action sentence", "at least one token", format!("none in sentence {i}")));
            }
            if let Some(token) = sentence.tokens.iter().find(|&&t| usize::from(t) >= codes) {
                return Err(Error::argument("action token", format!("below {codes}"), format!("{token} in sentence {i}")));
            }
        }
        self.answers.scores((&self.device, &self.model), sentences, control)
    }

    /// The answers about clips whose tokens were made since `start`.
    pub(super) fn answered(&mut self, clips: Vec<Tokenized>, start: Instant, control: &Control) -> Result<Vec<Recognition>> {
        let mut timings = Timings { tokenize_ns: nanoseconds(start), ..Timings::default() };
        let asked = if self.balance.is_some() { self.answers.names().len() } else { self.top_k };
        let mut rankings = self.answers.rank((&self.device, &self.model), &clips, (asked, self.decoding), control, &mut timings)?;
        if let Some(balance) = &self.balance {
            rankings.iter_mut().for_each(|ranking| *ranking = balance.applied(ranking, self.top_k));
        }
        let recognition = |(clip, ranking)| self.recognition(clip, ranking, timings);
        Ok(clips.into_iter().zip(rankings).map(recognition).collect())
    }

    /// Puts an answer together.
    fn recognition(&self, Tokenized { sentence, missing, .. }: Tokenized, ranking: Ranking, timings: Timings) -> Recognition {
        let unknown = ranking.probabilities.first().is_none_or(|&p| p < self.unknown_below);
        Recognition { top: ranking.top, probabilities: ranking.probabilities, unknown, sentence, missing, timings }
    }
}
