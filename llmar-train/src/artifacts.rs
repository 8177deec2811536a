//! The files between the stages, each a safetensors file with one JSON document in its metadata: base model (`import`), stage-1 tokenizer
//! (`vqvae`), adapter (`lora`). `export` joins them into a `.llmar` checkpoint. The fourth, stage 1's decoder, never ships: `report` shows with it
//! what the tokens keep of a clip.

mod read;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use llmar::checkpoint::{Calibration, TokenizerMeta, Words};
use llmar::llama::LlamaConfig;
use llmar::motion::{ConvShape, EncoderConfig, QuantizerConfig};
use llmar::skeleton::Preprocess;
use llmar::text::WordReading;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

pub use read::{Opened, file_digest, map_file, open, read_header, sha256_hex};
pub use write::{FloatTensor, Planned, Values, write, write_lazily, write_tensors};

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

/// Tensors of a stage 1 whose MMD learned an affine map from codes to token embeddings: weight f32 [hidden, dim] and bias f32 `[hidden]`.
pub const WORD_MAP: [&str; 2] = ["map.weight", "map.bias"];

/// Stage 1: encoder and codebook. Tensors: the runtime's encoder names (`encoder.in.weight` …) f16, row-major [c_out, kernel · c_in] with column
/// tap · c_in + channel, biases f32; `quantizer.tangent` f32 [codes, dim]; [`WORD_MAP`] where there is one. Values are already rounded: what follows sees what ships.
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

/// Stage 1's decoder, where it learnt to reconstruct. Tensors: [`decoder_convs`] under their names, in the form of stage 1's encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderMeta {
    /// Shape of the encoder that it mirrors.
    pub encoder: EncoderConfig,
    /// SHA-256 of the stage-1 file whose codes it reads.
    pub stage1_sha256: String,
}

/// How the language model answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// With the words of a label: the method.
    #[default]
    LabelText,
    /// By a linear layer on the hidden state of the prompt's last token, a logit a label. The runtime has no such layer, so such an adapter is only
    /// measured by the trainer.
    LinearHead,
}

impl Answer {
    /// Settings and documents leave the default out: they stay what they were before there was a choice.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What stands in an action sentence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// The code nearest to each feature: the method.
    #[default]
    Codes,
    /// The features themselves, undiscretised: the paper's comparison. The runtime does not do this, so such an adapter is only measured by
    /// the trainer.
    Features,
}

impl Reads {
    /// As of [`Answer`]: documents leave the default out.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Tensor of an adapter that answers by [`Answer::LinearHead`]: f16 [labels, hidden].
pub const HEAD: &str = "head.weight";

/// Stage 2: LoRA and the codes' embeddings. Tensors: `lora.layers.{i}.{q|k|v|o|gate|up|down}.a` f16 [rank, in] and `.b` f16 [out, rank];
/// `quantizer.embedding` f16 [codes, hidden]; [`HEAD`] where there is one; where it tells labels by their words, the `words.*` of a checkpoint, f32.
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
    /// How one of the labels is named.
    #[serde(default, skip_serializing_if = "Answer::is_default")]
    pub answer: Answer,
    /// What its sentences are made of.
    #[serde(default, skip_serializing_if = "Reads::is_default")]
    pub reads: Reads,
    /// Labels by index.
    pub labels: Vec<String>,
    /// Of labels that cannot be told without some joints of the model's layout, their names. Live models.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, Vec<String>>,
    /// The label that says that nothing happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
    /// Fitted on validation clips.
    pub calibration: Calibration,
    /// The words that its reading of words knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Words>,
    /// SHA-256 of the stage-1 file it was trained with.
    pub stage1_sha256: String,
    /// `source_sha256` of the base model it was trained on.
    pub base_source_sha256: String,
    /// Command line, seed and metrics of the run, for people.
    pub provenance: BTreeMap<String, String>,
}

impl AdapterMeta {
    /// Names and shapes of the tensors of its reading of words, f32, for codes of `dim` features; none without one.
    pub fn word_tensors(&self, dim: usize) -> Vec<(&'static str, Vec<usize>)> {
        let of = |words: &Words| {
            let count = words.vocabulary.len();
            vec![(WordReading::WEIGHT, vec![count, dim]), (WordReading::BIAS, vec![count]), (WordReading::MEAN, vec![count])]
        };
        self.words.as_ref().map(of).unwrap_or_default()
    }
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
impl Kind for DecoderMeta {
    const KEY: &'static str = "llmar_decoder";
}
impl Kind for AdapterMeta {
    const KEY: &'static str = "llmar_adapter";
}

/// Precision in which a tensor is stored in an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// f16
    F16,
    /// f32
    F32,
    /// u8
    U8,
    /// u32
    U32,
}

impl Store {
    fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::F32 => Dtype::F32,
            Self::U8 => Dtype::U8,
            Self::U32 => Dtype::U32,
        }
    }

    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::F32 => Some(Self::F32),
            Dtype::U8 => Some(Self::U8),
            Dtype::U32 => Some(Self::U32),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 | Self::U32 => 4,
            Self::U8 => 1,
        }
    }
}

/// The float tensors of a base model of this shape, in the order of its layers: matrices f16, norms f32.
pub fn base_tensors(config: &LlamaConfig) -> Vec<Planned> {
    let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    let matrix = |name: String, rows: usize, cols: usize| Planned { name, shape: vec![rows, cols], store: Store::F16 };
    let norm = |name: String| Planned { name, shape: vec![hidden], store: Store::F32 };

    let mut plan = vec![matrix("model.embed_tokens.weight".to_string(), config.vocab_size, hidden)];
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        plan.extend([
            norm(name("input_layernorm")),
            matrix(name("self_attn.q_proj"), q, hidden),
            matrix(name("self_attn.k_proj"), kv, hidden),
            matrix(name("self_attn.v_proj"), kv, hidden),
            matrix(name("self_attn.o_proj"), hidden, q),
            norm(name("post_attention_layernorm")),
            matrix(name("mlp.gate_proj"), ffn, hidden),
            matrix(name("mlp.up_proj"), ffn, hidden),
            matrix(name("mlp.down_proj"), hidden, ffn),
        ]);
    }
    plan.push(norm("model.norm.weight".to_string()));
    if !config.tie_word_embeddings {
        plan.push(matrix("lm_head.weight".to_string(), config.vocab_size, hidden));
    }
    plan
}

/// The convolutions of the decoder that mirrors an encoder, in the order in which they run: `decoder.in`, then a stage for each halving
/// (the residual blocks' pairs, then `up` behind a doubling of the frames), `decoder.last`, `decoder.out`. All of stride 1 with symmetric padding.
pub fn decoder_convs(config: &EncoderConfig) -> Vec<ConvShape> {
    let width = config.width;
    let conv = |name: String, c_out: usize, c_in: usize, kernel: usize, dilation: usize| {
        let side = dilation * (kernel - 1) / 2;
        ConvShape { name: format!("decoder.{name}"), c_out, c_in, kernel, stride: 1, dilation, left: side, right: side }
    };
    let mut convs = vec![conv("in".into(), width, config.outputs, 3, 1)];
    for stage in 0..config.halvings {
        for (block, &dilation) in config.dilations.iter().enumerate() {
            convs.push(conv(format!("{stage}.{block}.dilated"), width, width, 3, dilation));
            convs.push(conv(format!("{stage}.{block}.point"), width, width, 1, 1));
        }
        convs.push(conv(format!("{stage}.up"), width, width, 3, 1));
    }
    convs.push(conv("last".into(), width, width, 3, 1));
    convs.push(conv("out".into(), config.inputs, width, 3, 1));
    convs
}
