//! The three files between the stages, each a safetensors file with one JSON document in its metadata:
//! base model (`import`), stage-1 tokenizer (`vqvae`), adapter (`lora`). `export` joins them into a `.llmar` checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use llmar::checkpoint::{Calibration, TokenizerMeta};
use llmar::llama::LlamaConfig;
use llmar::motion::{EncoderConfig, QuantizerConfig};
use llmar::skeleton::Preprocess;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Base model: Hugging Face tensor names (`model.embed_tokens.weight`, `model.layers.0.self_attn.q_proj.weight`, …, `model.norm.weight`,
/// `lm_head.weight` when untied), rows half-split for RoPE, f16 matrices and f32 norms; tokenizer tables as in a checkpoint (`tokenizer.*`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseMeta {
    /// Shape.
    pub config: LlamaConfig,
    /// Tokenizer kind and ids.
    pub tokenizer: TokenizerMeta,
    /// Id that ends an answer.
    pub eos_id: u32,
    /// File name it was imported from, and its SHA-256.
    pub source: String,
    /// Lowercase hex.
    pub source_sha256: String,
}

/// Stage 1: encoder and codebook. Tensors: the runtime's encoder names (`encoder.in.weight` …) f16, row-major [c_out, kernel · c_in] with column
/// tap · c_in + channel, biases f32; `quantizer.tangent` f32 [codes, dim]. Values are already rounded: what follows sees what ships.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage1Meta {
    /// Skeleton to encoder input, statistics included.
    pub preprocess: Preprocess,
    /// Shape of the encoder.
    pub encoder: EncoderConfig,
    /// Codebook.
    pub quantizer: QuantizerConfig,
    /// Command line, seed and metrics of the run, for people.
    pub provenance: BTreeMap<String, String>,
}

/// Stage 2: LoRA and the codes' embeddings. Tensors: `lora.layers.{i}.{q|k|v|o|gate|up|down}.a` f16 [rank, in] and `.b` f16 [out, rank];
/// `quantizer.embedding` f16 [codes, hidden].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterMeta {
    /// Name of the resulting model.
    pub name: String,
    /// r
    pub rank: usize,
    /// The merge adds (alpha / rank) · B A.
    pub alpha: f32,
    /// Text before the codes.
    pub prefix: String,
    /// Text after the codes.
    pub suffix: String,
    /// Before a label's text.
    pub answer_lead: String,
    /// Labels by index.
    pub labels: Vec<String>,
    /// Fitted on validation clips.
    pub calibration: Calibration,
    /// SHA-256 of the stage-1 file it was trained with.
    pub stage1_sha256: String,
    /// `source_sha256` of the base model it was trained on.
    pub base_source_sha256: String,
    /// Command line, seed and metrics of the run, for people.
    pub provenance: BTreeMap<String, String>,
}

/// An artifact in memory: its JSON document and its tensors, widened to f32.
#[derive(Clone, Debug)]
pub struct Artifact<M> {
    /// The document.
    pub meta: M,
    /// Name → (shape, row-major values).
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// SHA-256 of the file, lowercase hex.
    pub sha256: String,
}

/// Precision in which a tensor is stored in an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// f16
    F16,
    /// f32
    F32,
}

/// Reads an artifact whose document is of kind `M`.
pub fn read<M: Kind>(_path: &Path) -> Result<Artifact<M>> {
    todo!()
}

/// Writes an artifact: temporary file, sync, rename.
pub fn write<M: Kind>(_path: &Path, _meta: &M, _tensors: &[(String, Vec<usize>, Vec<f32>, Store)]) -> Result<()> {
    todo!()
}

/// The kinds of artifact, told apart by the key of their document in the safetensors metadata.
pub trait Kind: Serialize + for<'de> Deserialize<'de> {
    /// Metadata key.
    const KEY: &'static str;
}

impl Kind for BaseMeta {
    const KEY: &'static str = "llmar_base";
}
impl Kind for Stage1Meta {
    const KEY: &'static str = "llmar_stage1";
}
impl Kind for AdapterMeta {
    const KEY: &'static str = "llmar_adapter";
}
