//! The metadata of a checkpoint: one JSON document, under the key `llmar` of the safetensors header.
//!
//! These structs are the single definition. The trainer fills them, the writer serialises them, the reader checks them.
//! FORMAT.md explains every field.

use serde::{Deserialize, Serialize};

use crate::device::Scheme;
use crate::llama::LlamaConfig;
use crate::motion::{EncoderConfig, QuantizerConfig};
use crate::skeleton::Preprocess;

/// The format version that this library writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Everything about a model that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Name of the model, for people: `utd-mhad`.
    pub name: String,
    /// Program and version that wrote the file.
    pub producer: String,
    /// From a caller's clip to the encoder's input.
    pub preprocess: Preprocess,
    /// Motion encoder.
    pub encoder: EncoderConfig,
    /// Codebook.
    pub quantizer: QuantizerConfig,
    /// Language model.
    pub llama: LlamaConfig,
    /// Storage of the language model's matrices.
    pub scheme: Scheme,
    /// The words around the action sentence.
    pub prompt: Prompt,
    /// The label set that the model was trained for, in the order of its indices.
    pub labels: Vec<Label>,
    /// Turns scores into probabilities.
    pub calibration: Calibration,
    /// Words that are read from a clip, for labels that are told by them; the `words.*` tensors hold the map. Left out where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Words>,
    /// Kind of the tokenizer whose vocabulary the `tokenizer.*` tensors hold.
    pub tokenizer: TokenizerMeta,
    /// SHA-256, lowercase hex, over the data section of the file: every byte after the header.
    pub tensors_sha256: String,
}

/// Token ids before and after the action sentence, and the text they came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// Text before the action tokens, without a trailing space.
    pub prefix: String,
    /// Text after the action tokens.
    pub suffix: String,
    /// Written before a label's text when it is tokenised, as the answer was in training (for example one space).
    pub answer_lead: String,
    /// Ids of `prefix`, BOS included where the LLaMA was trained with one.
    pub prefix_ids: Vec<u32>,
    /// Ids of `suffix`.
    pub suffix_ids: Vec<u32>,
    /// Id that ends an answer.
    pub eos_id: u32,
}

/// One action the model can name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The action's name.
    pub text: String,
    /// Ids of `answer_lead + text`, without EOS.
    pub ids: Vec<u32>,
    /// Joints of the model's layout without which this action cannot be told: a jump needs legs. Left out where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Whether this label says that nothing happens; at most one does. Left out where false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle: bool,
}

/// p(label) ∝ exp(score / temperature); below `unknown_below` the answer is `unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Fitted on validation clips; finite and above zero.
    pub temperature: f32,
    /// Probability in 0..=1 below which the best label is not believed; 0 never says `unknown`.
    pub unknown_below: f32,
}

/// What is read from a clip so that labels can be told by the words of their texts: see [`WordReading`](crate::text::WordReading).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// The words, ascending, each as [`words_of`](crate::text::words_of) gives it.
    pub vocabulary: Vec<String>,
    /// p(label) = softmax(cosine / temperature); finite and above zero.
    pub temperature: f32,
}

/// How text becomes ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerMeta {
    /// Which algorithm.
    pub kind: TokenizerKind,
    /// Id put before every text, if any.
    pub bos_id: Option<u32>,
    /// Id of unknown pieces, where the vocabulary has one.
    pub unk_id: Option<u32>,
}

/// The two tokenizer families of LLaMA models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerKind {
    /// GPT-2 style byte-level BPE behind a pre-tokenizer that splits single digits off (SmolLM2).
    ByteLevelBpe,
    /// SentencePiece BPE: `▁` for spaces, one put in front, byte fallback (LLaMA 1 and 2).
    SentencePieceBpe,
}
