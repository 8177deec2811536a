//! What the metadata must fulfil by itself, before any tensor is looked at.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::header::{NoDuplicates, is_sha256_hex};
use super::schema::{FORMAT_VERSION, Metadata, Words};
use crate::error::{Error, Result};
use crate::text::{LABEL_LIMIT, LABEL_TOKEN_LIMIT, words_of};

/// Longest name, producer or label text in bytes.
const NAME_LIMIT: usize = 1_024;
/// Most memory that a prompt's KV cache, or the encoder of one clip, may take: 16 GiB and more are no model of this kind.
const WORK_LIMIT: u64 = 16 << 30;
/// Most words of a vocabulary.
const WORDS_LIMIT: usize = 65_536;
/// Longest prompt text in bytes.
const PROMPT_LIMIT: usize = 65_536;

/// The metadata document as JSON without a key twice, of a version that this library reads. Nothing else is looked at yet: another version
/// may have any form.
pub(super) fn parse_document(document: &str) -> Result<Value> {
    let format = |e: serde_json::Error| Error::format("checkpoint metadata", e.to_string());
    let _: NoDuplicates = serde_json::from_str(document).map_err(format)?;
    let value: Value = serde_json::from_str(document).map_err(format)?;
    let version = value.get("format_version").and_then(Value::as_u64);
    let version = version.ok_or_else(|| Error::format("checkpoint metadata", "`format_version` is not there or not a count"))?;
    check_version(u32::try_from(version).unwrap_or(u32::MAX))?;
    Ok(value)
}

/// The metadata: no field unknown or missing, every number finite, every value in range.
pub(super) fn parse_metadata(document: &Value) -> Result<Metadata> {
    let format = |e: serde_json::Error| Error::format("checkpoint metadata", e.to_string());
    let metadata = Metadata::deserialize(document).map_err(format)?;
    same_form("metadata", document, &serde_json::to_value(&metadata).map_err(format)?)?;
    check_metadata(&metadata)?;
    Ok(metadata)
}

fn check_version(version: u32) -> Result<()> {
    if version == FORMAT_VERSION { Ok(()) } else { Err(Error::Version { expected: FORMAT_VERSION, got: version }) }
}

/// `read` must have exactly the keys that writing what was understood gives. This finds keys that serde passes over in tagged enums, options that
/// are left out instead of null, and numbers that overflow to infinity as f32 (JSON writes those as null).
fn same_form(path: &str, read: &Value, understood: &Value) -> Result<()> {
    match (read, understood) {
        (Value::Object(a), Value::Object(b)) => {
            if let Some(key) = a.keys().find(|key| !b.contains_key(*key)) {
                return Err(Error::format(format!("{path}.{key}"), "unknown field"));
            }
            b.iter().try_for_each(|(key, b)| match a.get(key) {
                Some(a) => same_form(&format!("{path}.{key}"), a, b),
                None => Err(Error::format(format!("{path}.{key}"), "missing field")),
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a.iter().zip(b).try_for_each(|(a, b)| same_form(path, a, b)),
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => Ok(()),
        (Value::Null, Value::Null) => Ok(()),
        (Value::Number(number), Value::Null) => Err(Error::format(path, format!("{number} is not finite as f32"))),
        _ => Err(Error::format(path, format!("expected the form of {understood}, got {read}"))),
    }
}

/// Every rule of FORMAT.md that needs the metadata alone. The writer holds itself to it as well.
pub(super) fn check_metadata(metadata: &Metadata) -> Result<()> {
    check_version(metadata.format_version)?;
    text("name", &metadata.name, NAME_LIMIT)?;
    text("producer", &metadata.producer, NAME_LIMIT)?;
    stage(metadata.preprocess.check())?;
    stage(metadata.encoder.check())?;
    stage(metadata.quantizer.check())?;
    stage(metadata.llama.check())?;
    same("encoder.inputs", "the features of the preprocessing", metadata.encoder.inputs, metadata.preprocess.features())?;
    same("quantizer.dim", "encoder.outputs", metadata.quantizer.dim, metadata.encoder.outputs)?;
    check_prompt(metadata)?;
    check_labels(metadata)?;
    check_work(metadata)?;
    check_calibration(metadata)?;
    metadata.words.as_ref().map_or(Ok(()), check_words)?;
    let vocab = metadata.llama.vocab_size;
    ids("tokenizer.bos_id", metadata.tokenizer.bos_id.as_slice(), vocab)?;
    ids("tokenizer.unk_id", metadata.tokenizer.unk_id.as_slice(), vocab)?;
    if !is_sha256_hex(&metadata.tensors_sha256) {
        return Err(Error::format("tensors_sha256", format!("expected 64 lowercase hex digits, got `{}`", metadata.tensors_sha256)));
    }
    Ok(())
}

/// A stage's own check calls its configuration an argument; here it stands in a file.
fn stage(checked: Result<()>) -> Result<()> {
    checked.map_err(|error| match error {
        Error::InvalidArgument { what, expected, got } => Error::format(what, format!("expected {expected}, got {got}")),
        other => other,
    })
}

fn check_prompt(metadata: &Metadata) -> Result<()> {
    let prompt = &metadata.prompt;
    let vocab = metadata.llama.vocab_size;
    for (what, words) in [("prompt.prefix", &prompt.prefix), ("prompt.suffix", &prompt.suffix), ("prompt.answer_lead", &prompt.answer_lead)]
    {
        if words.len() > PROMPT_LIMIT {
            return Err(Error::Limit { what, limit: PROMPT_LIMIT as u64, got: words.len() as u64 });
        }
    }
    if prompt.prefix_ids.is_empty() {
        return Err(Error::format("prompt.prefix_ids", "expected at least one id, got none"));
    }
    ids("prompt.prefix_ids", &prompt.prefix_ids, vocab)?;
    ids("prompt.suffix_ids", &prompt.suffix_ids, vocab)?;
    ids("prompt.eos_id", &[prompt.eos_id], vocab)?;
    let halvings = u32::try_from(metadata.encoder.halvings).unwrap_or(u32::MAX);
    let tokens = metadata.preprocess.frames.checked_shr(halvings).unwrap_or(0);
    if tokens == 0 {
        let detail = format!("{} frames, halved {} times, leave no token", metadata.preprocess.frames, metadata.encoder.halvings);
        return Err(Error::format("encoder.halvings", detail));
    }
    let longest = metadata.labels.iter().map(|label| label.ids.len()).max().unwrap_or(0);
    let text = prompt.prefix_ids.len() + tokens + prompt.suffix_ids.len() + longest;
    if text > metadata.llama.max_position_embeddings {
        let detail = format!("prompt and longest label take {text} positions, the model has {}", metadata.llama.max_position_embeddings);
        return Err(Error::format("prompt", detail));
    }
    Ok(())
}

/// Memory that one clip takes beside the weights, from the sizes in the metadata: a small file must not ask for all there is.
fn check_work(metadata: &Metadata) -> Result<()> {
    let floats = |factors: &[usize]| factors.iter().fold(4u64, |bytes, &factor| bytes.saturating_mul(factor as u64));
    let llama = &metadata.llama;
    let positions = metadata.prompt.prefix_ids.len() + metadata.preprocess.frames + metadata.prompt.suffix_ids.len();
    let cache = floats(&[positions, llama.num_hidden_layers, 2, llama.kv_dim()]);
    let encoder = &metadata.encoder;
    let activations = floats(&[metadata.preprocess.frames, encoder.width.max(encoder.inputs).max(encoder.outputs), 4]);
    for (what, bytes) in [("bytes of the KV cache of a prompt", cache), ("bytes of the encoder's activations", activations)] {
        if bytes > WORK_LIMIT {
            return Err(Error::Limit { what, limit: WORK_LIMIT, got: bytes });
        }
    }
    Ok(())
}

fn check_labels(metadata: &Metadata) -> Result<()> {
    let labels = &metadata.labels;
    if labels.is_empty() || labels.len() as u64 > LABEL_LIMIT {
        return Err(Error::format("labels", format!("expected 1 to {LABEL_LIMIT} labels, got {}", labels.len())));
    }
    let mut texts = BTreeSet::new();
    let mut sequences = BTreeSet::new();
    for (index, label) in labels.iter().enumerate() {
        let what = || format!("labels[{index}]");
        text("label", &label.text, NAME_LIMIT)?;
        if label.text.is_empty() || label.ids.is_empty() {
            return Err(Error::format(what(), "expected a text and its ids, got none"));
        }
        if label.ids.len() as u64 > LABEL_TOKEN_LIMIT {
            return Err(Error::Limit { what: "number of tokens of a label", limit: LABEL_TOKEN_LIMIT, got: label.ids.len() as u64 });
        }
        ids(&what(), &label.ids, metadata.llama.vocab_size)?;
        if label.ids.contains(&metadata.prompt.eos_id) {
            return Err(Error::format(what(), format!("its ids contain the end of the answer, {}", metadata.prompt.eos_id)));
        }
        if let Some(joint) = label.needs.iter().find(|joint| !metadata.preprocess.joints.contains(joint)) {
            return Err(Error::format(what(), format!("needs `{joint}`, which is no joint of the model")));
        }
        if label.idle && labels[..index].iter().any(|other| other.idle) {
            return Err(Error::format(what(), "a second label that says that nothing happens"));
        }
        if !texts.insert(&label.text) {
            return Err(Error::format(what(), format!("the text `{}` stands there twice", label.text)));
        }
        if !sequences.insert(&label.ids) {
            return Err(Error::format(what(), format!("another label has the same ids as `{}`", label.text)));
        }
    }
    Ok(())
}

fn check_calibration(metadata: &Metadata) -> Result<()> {
    let calibration = metadata.calibration;
    if !(calibration.temperature.is_finite() && calibration.temperature > 0.0) {
        return Err(Error::format("calibration.temperature", format!("expected a finite value above 0, got {}", calibration.temperature)));
    }
    if !(0.0..=1.0).contains(&calibration.unknown_below) {
        return Err(Error::format("calibration.unknown_below", format!("expected 0 to 1, got {}", calibration.unknown_below)));
    }
    Ok(())
}

/// The vocabulary is what the runtime looks words up in: ascending, and each word as a label's text gives it.
fn check_words(words: &Words) -> Result<()> {
    let Words { vocabulary, temperature } = words;
    if vocabulary.is_empty() || vocabulary.len() > WORDS_LIMIT {
        return Err(Error::format("words.vocabulary", format!("expected 1 to {WORDS_LIMIT} words, got {}", vocabulary.len())));
    }
    for (index, word) in vocabulary.iter().enumerate() {
        let what = || format!("words.vocabulary[{index}]");
        text("word", word, NAME_LIMIT)?;
        if !words_of(word).into_iter().eq([word.as_str()]) {
            return Err(Error::format(what(), format!("expected one word in lower case without signs at its ends, got `{word}`")));
        }
        if index > 0 && vocabulary[index - 1] >= *word {
            return Err(Error::format(what(), format!("expected a word after `{}`, got `{word}`", vocabulary[index - 1])));
        }
    }
    if !(temperature.is_finite() && *temperature > 0.0) {
        return Err(Error::format("words.temperature", format!("expected a finite value above 0, got {temperature}")));
    }
    Ok(())
}

/// Texts that people read and C programs get as C strings: bounded, no control characters.
fn text(what: &'static str, text: &str, limit: usize) -> Result<()> {
    if text.len() > limit {
        return Err(Error::Limit { what, limit: limit as u64, got: text.len() as u64 });
    }
    if text.chars().any(char::is_control) {
        return Err(Error::format(what, format!("{text:?} contains a control character")));
    }
    Ok(())
}

fn ids(what: &str, ids: &[u32], vocab: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => Err(Error::format(what, format!("expected ids below {vocab}, got {id}"))),
        None => Ok(()),
    }
}

fn same(what: &str, other: &str, got: usize, expected: usize) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::format(what, format!("expected {expected} as {other}, got {got}"))) }
}
