//! The labels of a stream: which may be named, and which the caller's skeletons cannot show.

use crate::error::{Error, Result};
use crate::recognizer::model::Model;
use crate::recognizer::question::Question;
use crate::skeleton::PoseMap;
use crate::text::LabelTrie;

/// Whether a label may be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelState {
    /// It may.
    Allowed,
    /// The caller does not want it.
    Denied,
    /// It needs joints that the layout of the frames does not have: a jump cannot be seen without legs.
    NotObservable,
}

/// What is asked, and of which labels.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    pub question: Question,
    /// Of the labels that may be named alone.
    pub trie: LabelTrie,
    /// Label of each label of `trie`.
    pub of_trie: Vec<u32>,
    pub states: Vec<LabelState>,
    /// The label that says that nothing happens.
    pub idle: Option<u32>,
}

impl Labels {
    /// The model's own.
    pub fn of_model(model: &Model, map: &PoseMap) -> Result<Self> {
        let metadata = model.metadata();
        let has = |joint: &String| metadata.preprocess.joints.iter().position(|name| name == joint).is_some_and(|joint| map.has(joint));
        let state = |needs: &[String]| if needs.iter().all(has) { LabelState::Allowed } else { LabelState::NotObservable };
        let states = metadata.labels.iter().map(|label| state(&label.needs)).collect();
        let idle = metadata.labels.iter().position(|label| label.idle).map(|label| label as u32);
        Self::new(Question::of_model(model)?, states, idle)
    }

    /// A list of the caller's, of which nothing is known but the texts.
    pub fn with(model: &Model, labels: &[&str]) -> Result<Self> {
        let question = Question::with_labels(model, labels)?;
        let states = vec![LabelState::Allowed; labels.len()];
        Self::new(question, states, None)
    }

    fn new(question: Question, states: Vec<LabelState>, idle: Option<u32>) -> Result<Self> {
        let keep: Vec<bool> = states.iter().map(|state| *state == LabelState::Allowed).collect();
        let of_trie: Vec<u32> = (0..states.len() as u32).filter(|label| keep[*label as usize]).collect();
        if of_trie.is_empty() {
            return Err(Error::argument("labels", "at least one that may be named", "none: all are denied or not observable"));
        }
        let trie = question.trie.subset(&keep)?;
        Ok(Self { question, trie, of_trie, states, idle })
    }

    /// The same with other labels denied; those that cannot be observed stay so.
    pub fn filtered(&self, allowed: impl Fn(usize) -> bool) -> Result<Self> {
        let state = |(label, state): (usize, &LabelState)| match (state, allowed(label)) {
            (LabelState::NotObservable, _) => LabelState::NotObservable,
            (_, true) => LabelState::Allowed,
            (_, false) => LabelState::Denied,
        };
        let states = self.states.iter().enumerate().map(state).collect();
        Self::new(self.question.clone(), states, self.idle)
    }
}
