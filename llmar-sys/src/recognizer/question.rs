//! What a recogniser asks the language model: the words after the action sentence, and the answers to choose from.

use std::collections::HashSet;

use super::model::Model;
use crate::error::{Error, Result};
use crate::text::{LABEL_LIMIT, LabelTrie, suffix_with_list};

/// Longest text of one label in bytes.
const LABEL_BYTES: usize = 1_024;

/// Suffix and label list of a recogniser.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Ids after the action sentence.
    pub suffix_ids: Vec<u32>,
    /// Names of the labels by index.
    pub names: Vec<String>,
    /// Their tokens.
    pub trie: LabelTrie,
}

impl Question {
    /// The question that the model was trained on.
    pub fn of_model(model: &Model) -> Result<Self> {
        let metadata = model.metadata();
        let trie = LabelTrie::new(metadata.labels.iter().map(|l| &l.ids[..]), metadata.prompt.eos_id, metadata.llama.vocab_size)?;
        let names = metadata.labels.iter().map(|l| l.text.clone()).collect();
        let question = Self { suffix_ids: metadata.prompt.suffix_ids.clone(), names, trie };
        question.check_length(model, codes(model))?;
        Ok(question)
    }

    /// The same question with other answers, which it lists.
    pub fn with_labels(model: &Model, labels: &[&str]) -> Result<Self> {
        check_texts(labels)?;
        let prompt = &model.metadata().prompt;
        let tokenizer = model.tokenizer()?;
        let ids: Vec<Vec<u32>> =
            labels.iter().map(|label| tokenizer.encode_continuation(&format!("{}{label}", prompt.answer_lead))).collect();
        let suffix_ids = tokenizer.encode_continuation(&suffix_with_list(&prompt.suffix, labels));
        let vocab = model.metadata().llama.vocab_size;
        if let Some(id) = suffix_ids.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::format("tokenizer", format!("gives id {id}, beyond the vocabulary's {vocab}")));
        }
        let trie = LabelTrie::new(ids.iter().map(|l| &l[..]), prompt.eos_id, vocab)?;
        let question = Self { suffix_ids, names: labels.iter().map(|&l| l.to_owned()).collect(), trie };
        question.check_length(model, codes(model))?;
        Ok(question)
    }

    /// `Err` when the prompt with `codes` action tokens and the longest label does not fit the model's positions.
    pub fn check_length(&self, model: &Model, codes: usize) -> Result<()> {
        let metadata = model.metadata();
        let got = metadata.prompt.prefix_ids.len() + codes + self.suffix_ids.len() + self.trie.depth();
        let limit = metadata.llama.max_position_embeddings;
        if got > limit {
            return Err(Error::Limit { what: "number of tokens of prompt and label", limit: limit as u64, got: got as u64 });
        }
        Ok(())
    }
}

/// Labels of a caller's: at least one, each a text of its own, neither too many nor too long.
pub(super) fn check_texts(labels: &[&str]) -> Result<()> {
    if labels.is_empty() {
        return Err(Error::argument("labels", "at least one", "none"));
    }
    if labels.len() as u64 > LABEL_LIMIT {
        return Err(Error::Limit { what: "number of labels", limit: LABEL_LIMIT, got: labels.len() as u64 });
    }
    let mut seen = HashSet::new();
    for (i, label) in labels.iter().enumerate() {
        if label.trim().is_empty() {
            return Err(Error::argument("label", "a text that is not empty", format!("label {i}, `{label}`")));
        }
        if label.len() > LABEL_BYTES {
            return Err(Error::Limit { what: "length of a label in bytes", limit: LABEL_BYTES as u64, got: label.len() as u64 });
        }
        if !seen.insert(label) {
            return Err(Error::argument("labels", "texts that differ", format!("`{label}` twice")));
        }
    }
    Ok(())
}

/// Action tokens of a clip.
fn codes(model: &Model) -> usize {
    model.metadata().preprocess.frames >> model.metadata().encoder.halvings
}
