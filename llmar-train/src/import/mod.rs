//! A pre-trained LLaMA → base model: Hugging Face names, rows half-split for RoPE, f16 matrices, f32 norms, tokenizer tables.
//!
//! What the runtime's forward pass and tokenizer do not do is refused here, by name, and not guessed.

pub mod dequantize;
pub mod gguf;
pub mod hf;
pub mod tokenizer;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use llmar::checkpoint::TensorData;
use llmar::llama::LlamaConfig;
use llmar::text::{Tokenizer, TokenizerTables};

use crate::artifacts::{self, BaseMeta, Planned, Store, Values, base_tensors};
use crate::cli::ImportArgs;
use crate::error::{Error, Result};

use gguf::Gguf;
use hf::Folder;

/// Runs `llmar-train import`.
pub fn run(args: &ImportArgs) -> Result<()> {
    let meta = import(&args.source, &args.out)?;
    let c = &meta.config;
    println!(
        "{}: {} layers, hidden {}, feed-forward {}, {} heads and {} key-value heads of {}, vocabulary {}, end of answer {}",
        args.out.display(),
        c.num_hidden_layers,
        c.hidden_size,
        c.intermediate_size,
        c.num_attention_heads,
        c.num_key_value_heads,
        c.head_dim,
        c.vocab_size,
        meta.eos_id,
    );
    Ok(())
}

/// Imports a Hugging Face folder or a GGUF file and writes the base model to `out`.
///
/// # Errors
/// [`Error::Format`] for a damaged source and for anything the runtime does not do; [`Error::Io`]. `out` is then as it was.
pub fn import(source: &Path, out: &Path) -> Result<BaseMeta> {
    let name = source.canonicalize().map_err(Error::io(source))?;
    let name = name.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if source.is_dir() {
        let folder = Folder::open(source)?;
        folder.config.check()?;
        let tables = tokenizer::from_tokenizer_json(&folder.tokenizer)?;
        let meta = BaseMeta {
            config: folder.config.clone(),
            tokenizer: tables.meta,
            eos_id: folder.eos_id,
            source: name,
            source_sha256: folder.sha256.clone(),
        };
        refuse_others(source, &meta.config, folder.tensor_names(), |tensor| {
            // Old exporters store what RoPE computes, and the head even when it is the embedding.
            tensor.ends_with(".rotary_emb.inv_freq") || (meta.config.tie_word_embeddings && tensor == "lm_head.weight")
        })?;
        write_base(source, out, &meta, tables, &|tensor, shape| folder.floats(tensor, shape))?;
        Ok(meta)
    } else {
        let bytes = artifacts::map_file(source)?;
        let gguf = Gguf::parse(&source.display().to_string(), bytes.as_slice())?;
        let (config, eos_id) = gguf_config(&gguf)?;
        let tables = tokenizer::from_gguf(&gguf)?;
        let source_sha256 = artifacts::sha256_hex(bytes.as_slice());
        let meta = BaseMeta { config, tokenizer: tables.meta, eos_id, source: name, source_sha256 };
        let plan = base_tensors(&meta.config);
        let wanted: BTreeSet<String> = plan.iter().filter_map(|tensor| gguf_name(&tensor.name)).collect();
        if let Some(other) = gguf.tensor_names().find(|&tensor| !wanted.contains(tensor)) {
            return Err(
                gguf.wrong(format!("tensor `{other}` is none of a plain LLaMA's: biases, experts and RoPE factors are not supported"))
            );
        }
        write_base(source, out, &meta, tables, &|tensor, shape| gguf_floats(&gguf, &meta.config, tensor, shape))?;
        Ok(meta)
    }
}

/// Tokenizer tables of a Hugging Face folder or a GGUF file, without its weights.
pub fn tokenizer_of(source: &Path) -> Result<TokenizerTables> {
    if source.is_dir() {
        return tokenizer::from_tokenizer_json(&hf::read_json(&source.join("tokenizer.json"))?);
    }
    let bytes = artifacts::map_file(source)?;
    tokenizer::from_gguf(&Gguf::parse(&source.display().to_string(), bytes.as_slice())?)
}

/// Values of a tensor by Hugging Face name and expected shape, wherever they come from.
type Floats<'a> = dyn Fn(&str, &[usize]) -> Result<Vec<f32>> + 'a;

/// Checks vocabulary and shape against each other and writes the base model.
fn write_base(source: &Path, out: &Path, meta: &BaseMeta, mut tables: TokenizerTables, floats: &Floats<'_>) -> Result<()> {
    let wrong = |detail: String| Error::format(source.display(), detail);
    let vocab = meta.config.vocab_size;
    if tables.pieces.len() > vocab {
        return Err(wrong(format!("the tokenizer has {} ids, the embedding {vocab} rows", tables.pieces.len())));
    }
    if meta.eos_id as usize >= vocab {
        return Err(wrong(format!("end-of-sequence id: expected one below {vocab}, got {}", meta.eos_id)));
    }
    // Embeddings are often padded to a round number of rows; nothing is written for those.
    tables.pieces.resize(vocab, Vec::new());

    // Built only to find now what would fail at export or in training.
    Tokenizer::new(tables.clone())?;

    let mut plan = base_tensors(&meta.config);
    let matrices = plan.len();
    let vocabulary = tables.tensors();
    plan.extend(vocabulary.iter().map(|tensor| {
        let store = if matches!(tensor.data, TensorData::U8(_)) { Store::U8 } else { Store::U32 };
        Planned { name: tensor.name.clone(), shape: tensor.shape.clone(), store }
    }));
    artifacts::write_lazily(out, meta, &plan, &|index| match index.checked_sub(matrices).map(|table| &vocabulary[table].data) {
        None => floats(&plan[index].name, &plan[index].shape).map(|values| Values::Floats(Cow::Owned(values))),
        Some(TensorData::U8(bytes)) => Ok(Values::Bytes(Cow::Borrowed(bytes))),
        Some(TensorData::U32(ids)) => Ok(Values::Integers(Cow::Borrowed(ids))),
        Some(TensorData::F16(_) | TensorData::F32(_)) => Err(Error::format(&plan[index].name, "expected a table of integers")),
    })
}

/// `Err` on the first tensor that is neither part of a plain LLaMA nor known to be superfluous.
fn refuse_others<'a>(
    source: &Path,
    config: &LlamaConfig,
    names: impl Iterator<Item = &'a str>,
    superfluous: impl Fn(&str) -> bool,
) -> Result<()> {
    let wanted: BTreeSet<String> = base_tensors(config).into_iter().map(|tensor| tensor.name).collect();
    for name in names {
        if !wanted.contains(name) && !superfluous(name) {
            return Err(Error::format(
                source.display(),
                format!("tensor `{name}` is none of a plain LLaMA's: biases and others are not supported"),
            ));
        }
    }
    Ok(())
}

/// Shape and end-of-sequence id from `llama.*` and `tokenizer.ggml.*`.
fn gguf_config(gguf: &Gguf<'_>) -> Result<(LlamaConfig, u32)> {
    match gguf.string("general.architecture")? {
        Some("llama") => {}
        other => return Err(gguf.wrong(format!("general.architecture: expected `llama`, got {other:?}"))),
    }
    let need = |key: &str| gguf.integer(key)?.ok_or_else(|| gguf.wrong(format!("{key} is missing")));
    for key in ["llama.expert_count", "llama.attention.sliding_window"] {
        if gguf.integer(key)?.is_some_and(|n| n != 0) {
            return Err(gguf.wrong(format!("{key}: expected 0, experts and sliding windows are not supported")));
        }
    }
    for key in ["llama.rope.scale_linear", "llama.rope.scaling.factor"] {
        if gguf.float(key)?.is_some_and(|factor| factor != 1.0) {
            return Err(gguf.wrong(format!("{key}: expected 1, RoPE scaling is not supported")));
        }
    }
    if let Some(kind) = gguf.string("llama.rope.scaling.type")?.filter(|&kind| kind != "none") {
        return Err(gguf.wrong(format!("llama.rope.scaling.type: expected `none`, got `{kind}`")));
    }

    let hidden_size = need("llama.embedding_length")?;
    let num_attention_heads = need("llama.attention.head_count")?;
    let head_dim = match gguf.integer("llama.attention.key_length")? {
        Some(dim) => dim,
        None if num_attention_heads > 0 && hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
        None => return Err(gguf.wrong(format!("hidden size {hidden_size} is not a multiple of {num_attention_heads} heads"))),
    };
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        if let Some(dim) = gguf.integer(key)?.filter(|&dim| dim != head_dim) {
            return Err(gguf.wrong(format!("{key}: expected the head's {head_dim} features, got {dim}")));
        }
    }
    // The embedding has the last word on the vocabulary: `llama.vocab_size` is optional.
    let embedding = gguf.tensor("token_embd.weight").ok_or_else(|| gguf.wrong("tensor `token_embd.weight` is missing"))?;
    let vocab_size = embedding.shape[0];
    if let Some(said) = gguf.integer("llama.vocab_size")?.filter(|&said| said != vocab_size) {
        return Err(gguf.wrong(format!("llama.vocab_size is {said}, tensor `token_embd.weight` has {vocab_size} rows")));
    }
    let config = LlamaConfig {
        hidden_size,
        intermediate_size: need("llama.feed_forward_length")?,
        num_hidden_layers: need("llama.block_count")?,
        num_attention_heads,
        num_key_value_heads: gguf.integer("llama.attention.head_count_kv")?.unwrap_or(num_attention_heads),
        head_dim,
        vocab_size,
        max_position_embeddings: need("llama.context_length")?,
        rope_theta: gguf.float("llama.rope.freq_base")?.unwrap_or(10_000.0),
        rms_norm_eps: gguf
            .float("llama.attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| gguf.wrong("llama.attention.layer_norm_rms_epsilon is missing"))?,
        tie_word_embeddings: gguf.tensor("output.weight").is_none(),
    };
    config.check()?;
    // `integer` has checked the range.
    Ok((config, need("tokenizer.ggml.eos_token_id")? as u32))
}

/// GGUF's name of a Hugging Face tensor.
fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_string()),
        "model.norm.weight" => return Some("output_norm.weight".to_string()),
        "lm_head.weight" => return Some("output.weight".to_string()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let part = match part.strip_suffix(".weight")? {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.weight"))
}

/// A tensor by its Hugging Face name, q and k with their rows in Hugging Face's order.
fn gguf_floats(gguf: &Gguf<'_>, config: &LlamaConfig, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let stored = gguf_name(name).ok_or_else(|| gguf.wrong(format!("no tensor of a GGUF file is `{name}`")))?;
    let values = gguf.floats(&stored, shape)?;
    if name.ends_with(".q_proj.weight") || name.ends_with(".k_proj.weight") {
        return Ok(half_split_rows(&values, config.head_dim, config.hidden_size));
    }
    Ok(values)
}

/// Undoes GGUF's order of the rows of q and k: there, the two features that RoPE turns as one pair are neighbours (rows 2i and 2i + 1 of a head);
/// here, they are half a head apart (rows i and head_dim/2 + i).
fn half_split_rows(values: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * cols) {
        for half in 0..2 {
            for i in 0..head_dim / 2 {
                let row = 2 * i + half;
                out.extend_from_slice(&head[row * cols..(row + 1) * cols]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
