//! Recognising clips.

use std::sync::Arc;

use super::model::Model;
use crate::control::Control;
use crate::error::Result;
use crate::motion::ActionSentence;
use crate::skeleton::Clip;
use crate::text::LabelScore;

/// Settings of a recogniser.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Threads; 0 and 1 run on the caller's thread alone, more start workers that end with the recogniser. At most 256.
    pub threads: usize,
    /// Labels returned, best first; 0 means 5. With `top_k` ≥ the number of labels the full distribution is computed.
    pub top_k: usize,
    /// `None` takes the model's threshold.
    pub unknown_below: Option<f32>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Recognition {
    /// Best first: exact log p(label, EOS | prompt).
    pub top: Vec<LabelScore>,
    /// Calibrated probability of each of `top`, over all labels of the recogniser.
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

/// Recognises clips, one call at a time. Keeps its model alive.
#[derive(Debug)]
pub struct Recognizer {
    model: Arc<Model>,
}

impl Recognizer {
    /// Allocates buffers, starts the workers asked for and runs the prompt's fixed prefix once.
    pub fn new(_model: Arc<Model>, _options: Options) -> Result<Self> {
        todo!()
    }

    /// The model it was made from.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Names of the labels that it chooses from.
    pub fn labels(&self) -> Vec<String> {
        todo!()
    }

    /// Replaces the label list: at least one, no empty or duplicate text. The prompt then lists them
    /// ("… predict the corresponding action from [a, b, c].").
    pub fn set_labels(&mut self, _labels: &[&str]) -> Result<()> {
        todo!()
    }

    /// Goes back to the model's own labels.
    pub fn reset_labels(&mut self) -> Result<()> {
        todo!()
    }

    /// The action sentence of a clip, without the language model.
    pub fn tokenize(&mut self, _clip: &Clip<'_>) -> Result<(ActionSentence, f32)> {
        todo!()
    }

    /// Recognises one clip.
    pub fn recognize(&mut self, clip: &Clip<'_>, control: &Control) -> Result<Recognition> {
        Ok(self.recognize_batch(std::slice::from_ref(clip), control)?.remove(0))
    }

    /// Scores every label of given action sentences exactly: log p(label, EOS | prompt), [sentences][labels]. For the trainer's parity tests.
    pub fn score_sentences(&mut self, _sentences: &[ActionSentence], _control: &Control) -> Result<Vec<Vec<f32>>> {
        todo!()
    }
}
