//! Base model + stage 1 + adapter → one `.llmar` checkpoint: LoRA merged, matrices packed in the order in which the kernels read them.

pub(crate) mod merge;

use std::borrow::Cow;
use std::path::Path;

use half::f16;
use llmar::checkpoint::{FORMAT_VERSION, Label, Metadata, Prompt, Tensor, TensorData, write_checkpoint};
use llmar::device::{Packed, Scheme, pack, packed_shapes};
use llmar::text::Tokenizer;

use crate::artifacts::{self, AdapterMeta, BaseMeta, Opened, Stage1Meta, Store};
use crate::cli::ExportArgs;
use crate::error::{Error, Result};
use crate::import::tokenizer;

use merge::Lora;

/// Runs `llmar-train export`.
pub fn run(args: &ExportArgs) -> Result<()> {
    let scheme: Scheme = args.scheme.into();
    let mut storage = Storage::from(scheme);
    if let Some(adapted) = args.lora_scheme {
        storage.adapted = adapted.into();
    }
    let metadata = export(&args.base, &args.stage1, &args.adapter, storage, &args.out)?;
    let bytes = std::fs::metadata(&args.out).map_err(Error::io(&args.out))?.len();
    println!("{}: {}, {} labels, {scheme:?}, {:.1} MB", args.out.display(), metadata.name, metadata.labels.len(), bytes as f64 / 1e6);
    Ok(())
}

/// How the language model's matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Those of the layers.
    pub layers: Scheme,
    /// Embedding and head, whose rows are one token each, used alone.
    pub words: Scheme,
    /// Those of the layers that the LoRA changes. What it adds can be smaller than a step of 4 bits (benches/results/accuracy.md).
    pub adapted: Scheme,
}

impl From<Scheme> for Storage {
    /// All alike; with q4, words and adapted matrices in q8.
    fn from(layers: Scheme) -> Self {
        let others = if layers == Scheme::Q4 { Scheme::Q8 } else { layers };
        Self { layers, words: others, adapted: others }
    }
}

/// Joins three artifacts into the checkpoint `out` and returns its metadata (the checksum left empty).
///
/// One layer at a time is widened to f32 and merged; what is kept is packed, so the peak lies one layer above the size of the checkpoint.
///
/// # Errors
/// [`Error::Unsupported`] for an adapter that answers by a head or reads features; [`Error::Mismatch`] when it was trained with other files; [`Error::Format`] for a tensor that is missing, of a wrong shape or superfluous;
/// the runtime's errors for what makes no checkpoint. `out` is then as it was.
pub fn export(base_path: &Path, stage1_path: &Path, adapter_path: &Path, storage: impl Into<Storage>, out: &Path) -> Result<Metadata> {
    let storage = storage.into();
    let base: Opened<BaseMeta> = artifacts::open(base_path)?;
    let stage1: Opened<Stage1Meta> = artifacts::open(stage1_path)?;
    let adapter: Opened<AdapterMeta> = artifacts::open(adapter_path)?;
    adapter.fits_the_runtime()?;
    let belongs = |part, expected: &str, given: &Path, got: String| {
        if expected == got {
            return Ok(());
        }
        Err(Error::Mismatch { file: adapter_path.to_path_buf(), part, expected: expected.to_string(), given: given.to_path_buf(), got })
    };
    belongs("stage-1 file", &adapter.meta.stage1_sha256, stage1_path, stage1.sha256())?;
    belongs("base model's source", &adapter.meta.base_source_sha256, base_path, base.meta.source_sha256.clone())?;
    base.meta.config.check()?;
    let lora = Lora::new(&adapter, &base.meta.config)?;

    let tables = tokenizer::from_base(&base)?;
    let mut tensors = tables.tensors();
    let metadata = metadata(&base.meta, &stage1.meta, &adapter.meta, storage.layers, &Tokenizer::new(tables)?);
    motion_tensors(&stage1, &adapter, base.meta.config.hidden_size, &mut tensors)?;
    llama_tensors(&base, &lora, storage, &mut tensors)?;
    write_checkpoint(out, &metadata, &tensors)?;
    Ok(metadata)
}

fn metadata(base: &BaseMeta, stage1: &Stage1Meta, adapter: &AdapterMeta, scheme: Scheme, tokenizer: &Tokenizer) -> Metadata {
    // As in training: the prefix begins the text, everything after continues it.
    let label = |text: &String| Label {
        text: text.clone(),
        ids: tokenizer.encode_continuation(&format!("{}{text}", adapter.answer_lead)),
        needs: adapter.needs.get(text).cloned().unwrap_or_default(),
        idle: adapter.idle.as_ref() == Some(text),
    };
    Metadata {
        format_version: FORMAT_VERSION,
        name: adapter.name.clone(),
        producer: concat!("llmar-train ", env!("CARGO_PKG_VERSION")).to_string(),
        preprocess: stage1.preprocess.clone(),
        encoder: stage1.encoder.clone(),
        quantizer: stage1.quantizer.clone(),
        llama: base.config.clone(),
        scheme,
        prompt: Prompt {
            prefix: adapter.prefix.clone(),
            suffix: adapter.suffix.clone(),
            answer_lead: adapter.answer_lead.clone(),
            prefix_ids: tokenizer.encode(&adapter.prefix),
            suffix_ids: tokenizer.encode_continuation(&adapter.suffix),
            eos_id: base.eos_id,
        },
        labels: adapter.labels.iter().map(label).collect(),
        calibration: adapter.calibration,
        words: adapter.words.clone(),
        tokenizer: base.tokenizer,
        tensors_sha256: String::new(), // the writer's
    }
}

/// Encoder, in the precision in which stage 1 stored it, codebook, and the reading of words where there is one.
fn motion_tensors(stage1: &Opened<Stage1Meta>, adapter: &Opened<AdapterMeta>, hidden: usize, out: &mut Vec<Tensor<'static>>) -> Result<()> {
    for conv in stage1.meta.encoder.convs() {
        let (rows, cols) = (conv.c_out, conv.kernel * conv.c_in);
        let name = format!("{}.weight", conv.name);
        let weights = stage1.floats(&name, &[rows, cols])?;
        let scheme = if matches!(stage1.info(&name), Some((_, Store::F32))) { Scheme::F32 } else { Scheme::F16 };
        push_matrix(out, &name, scheme, rows, cols, &weights)?;
        let name = format!("{}.bias", conv.name);
        let bias = stage1.floats(&name, &[rows])?;
        push_f32(out, name, vec![rows], bias);
    }
    let (codes, dim) = (stage1.meta.quantizer.codes, stage1.meta.quantizer.dim);
    push_f32(out, "quantizer.tangent".to_string(), vec![codes, dim], stage1.floats("quantizer.tangent", &[codes, dim])?);
    let shape = vec![codes, hidden];
    push_f32(out, "quantizer.embedding".to_string(), shape.clone(), adapter.floats("quantizer.embedding", &shape)?);
    for (name, shape) in adapter.meta.word_tensors(dim) {
        push_f32(out, name.to_string(), shape.clone(), adapter.floats(name, &shape)?);
    }
    Ok(())
}

/// The language model with its LoRA merged.
fn llama_tensors(base: &Opened<BaseMeta>, lora: &Lora<'_>, storage: Storage, out: &mut Vec<Tensor<'static>>) -> Result<()> {
    let c = &base.meta.config;
    let (hidden, ffn, vocab) = (c.hidden_size, c.intermediate_size, c.vocab_size);
    let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
    let words = storage.words;

    push_matrix(out, "llama.embed", words, vocab, hidden, &base.floats("model.embed_tokens.weight", &[vocab, hidden])?)?;
    for layer in 0..c.num_hidden_layers {
        let norm = |part: &str| base.floats(&format!("model.layers.{layer}.{part}.weight"), &[hidden]);
        let matrix = |part: &str, target: &str, rows: usize, cols: usize| {
            let mut weights = base.floats(&format!("model.layers.{layer}.{part}.weight"), &[rows, cols])?;
            lora.add_to(&mut weights, layer, target, rows, cols)?;
            Ok::<_, Error>(weights)
        };
        let name = |field: &str| format!("llama.layers.{layer}.{field}");
        let scheme_of =
            |targets: &[&str]| if targets.iter().any(|target| lora.changes(layer, target)) { storage.adapted } else { storage.layers };

        push_f32(out, name("attn_norm"), vec![hidden], norm("input_layernorm")?);
        let mut qkv = matrix("self_attn.q_proj", "q", q, hidden)?;
        qkv.extend(matrix("self_attn.k_proj", "k", kv, hidden)?);
        qkv.extend(matrix("self_attn.v_proj", "v", kv, hidden)?);
        push_matrix(out, &name("qkv"), scheme_of(&["q", "k", "v"]), q + 2 * kv, hidden, &qkv)?;
        push_matrix(out, &name("o"), scheme_of(&["o"]), hidden, q, &matrix("self_attn.o_proj", "o", hidden, q)?)?;
        push_f32(out, name("ffn_norm"), vec![hidden], norm("post_attention_layernorm")?);
        let mut gate_up = matrix("mlp.gate_proj", "gate", ffn, hidden)?;
        gate_up.extend(matrix("mlp.up_proj", "up", ffn, hidden)?);
        push_matrix(out, &name("gate_up"), scheme_of(&["gate", "up"]), 2 * ffn, hidden, &gate_up)?;
        push_matrix(out, &name("down"), scheme_of(&["down"]), hidden, ffn, &matrix("mlp.down_proj", "down", hidden, ffn)?)?;
    }
    push_f32(out, "llama.norm".to_string(), vec![hidden], base.floats("model.norm.weight", &[hidden])?);
    if !c.tie_word_embeddings {
        push_matrix(out, "llama.head", words, vocab, hidden, &base.floats("lm_head.weight", &[vocab, hidden])?)?;
    }
    Ok(())
}

fn push_f32(out: &mut Vec<Tensor<'static>>, name: String, shape: Vec<usize>, values: Vec<f32>) {
    out.push(Tensor { name, shape, data: TensorData::F32(Cow::Owned(values)) });
}

/// Packs a row-major matrix [rows, cols] and appends its tensors. `Err` on a weight that f16 parts cannot hold: packing would saturate it.
fn push_matrix(out: &mut Vec<Tensor<'static>>, name: &str, scheme: Scheme, rows: usize, cols: usize, weights: &[f32]) -> Result<()> {
    let limit = if scheme == Scheme::F32 { f32::MAX } else { f16::MAX.to_f32() };
    if let Some(at) = weights.iter().position(|w| w.is_nan() || w.abs() > limit) {
        return Err(Error::format(
            name,
            format!("weight {at} is {}, expected a finite number of at most ±{limit} for {scheme:?}", weights[at]),
        ));
    }
    let f16s = |values: Vec<f16>| TensorData::F16(Cow::Owned(values));
    let u8s = |values: Vec<u8>| TensorData::U8(Cow::Owned(values));
    let parts = match pack(scheme, rows, cols, weights) {
        Packed::F32(w) => vec![TensorData::F32(Cow::Owned(w))],
        Packed::F16(w) => vec![f16s(w)],
        Packed::Q8 { q, scale } => vec![u8s(q), f16s(scale)],
        Packed::Q4 { q, scale, min } => vec![u8s(q), f16s(scale), f16s(min)],
    };
    for ((suffix, _, shape), data) in packed_shapes(scheme, rows, cols).into_iter().zip(parts) {
        out.push(Tensor { name: format!("{name}{suffix}"), shape, data });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
