//! A Hugging Face folder: config.json, tokenizer.json, model.safetensors or its shards with model.safetensors.index.json.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use llmar::bytes::Bytes;
use llmar::llama::LlamaConfig;
use safetensors::Dtype;
use serde_json::{Map, Value};

use crate::artifacts::{map_file, read_header, sha256_hex};
use crate::error::{Error, Result};

/// Largest JSON file that is read.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// An opened folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Shape of the model.
    pub config: LlamaConfig,
    /// `eos_token_id` of config.json; the first where it is a list.
    pub eos_id: u32,
    /// tokenizer.json
    pub tokenizer: Value,
    /// SHA-256 of the lines `digest  name` (two spaces, newline at the end) of config.json, tokenizer.json and the safetensors files, by name:
    /// what `sha256sum FILES | sha256sum` prints.
    pub sha256: String,
    shards: Vec<Bytes>,
    tensors: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl Folder {
    /// Reads the JSON files and maps the weights.
    pub fn open(path: &Path) -> Result<Self> {
        let config_path = path.join("config.json");
        let document = read_json(&config_path)?;
        let (config, eos_id) = read_config(&config_path, &document)?;
        let tokenizer = read_json(&path.join("tokenizer.json"))?;

        let names = shard_names(path)?;
        let mut shards = Vec::new();
        let mut tensors = BTreeMap::new();
        for (shard, name) in names.iter().enumerate() {
            let file = path.join(name);
            let bytes = map_file(&file)?;
            let (data, metadata) = read_header(bytes.as_slice()).map_err(|e| Error::format(file.display(), e))?;
            for (tensor, info) in metadata.tensors() {
                let range = data + info.data_offsets.0..data + info.data_offsets.1;
                let place = Place { shard, dtype: info.dtype, shape: info.shape.clone(), range };
                if tensors.insert(tensor.clone(), place).is_some() {
                    return Err(Error::format(file.display(), format!("tensor `{tensor}` stands in another shard as well")));
                }
            }
            shards.push(bytes);
        }

        let mut digests = BTreeMap::new();
        for name in ["config.json", "tokenizer.json"] {
            digests.insert(name.to_string(), sha256_hex(map_file(&path.join(name))?.as_slice()));
        }
        digests.extend(names.iter().zip(&shards).map(|(name, bytes)| (name.clone(), sha256_hex(bytes.as_slice()))));
        let mut lines = String::new();
        for (name, digest) in &digests {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{digest}  {name}");
        }
        let sha256 = sha256_hex(lines.as_bytes());
        Ok(Self { path: path.to_path_buf(), config, eos_id, tokenizer, sha256, shards, tensors })
    }

    /// Names of all tensors.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor of exactly `shape`, widened to f32 row-major.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let wrong = |detail: String| Error::format(self.path.display(), format!("tensor `{name}`: {detail}"));
        let place = self.tensors.get(name).ok_or_else(|| wrong("it is missing".to_string()))?;
        if place.shape != shape {
            return Err(wrong(format!("expected shape {shape:?}, got {:?}", place.shape)));
        }
        let raw = &self.shards[place.shard].as_slice()[place.range.clone()];
        match place.dtype {
            Dtype::F32 => Ok(raw.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            Dtype::F16 => Ok(raw.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()),
            Dtype::BF16 => Ok(raw.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
            other => Err(wrong(format!("type {other:?} is not read, expected F32, F16 or BF16"))),
        }
    }
}

/// Reads and parses a JSON file.
pub fn read_json(path: &Path) -> Result<Value> {
    let len = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if len > MAX_JSON_BYTES {
        return Err(Error::format(path.display(), format!("{len} bytes of JSON, the limit is {MAX_JSON_BYTES}")));
    }
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::format(path.display(), format!("expected JSON: {e}")))
}

/// The safetensors files of a folder, sorted.
fn shard_names(folder: &Path) -> Result<Vec<String>> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec!["model.safetensors".to_string()]);
    }
    let document = read_json(&index)?;
    let map = document
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::format(index.display(), "expected an object `weight_map`"))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        // A plain name: an index must not lead out of its folder.
        let plain = file.as_str().filter(|name| {
            let mut parts = Path::new(name).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        });
        let name = plain.ok_or_else(|| Error::format(index.display(), format!("weight_map.{tensor}: expected a file name, got {file}")))?;
        names.insert(name.to_string());
    }
    Ok(names.into_iter().collect())
}

/// Fields of a JSON object with errors that name them.
struct Fields<'a> {
    file: &'a Path,
    object: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn wrong(&self, name: &str, expected: &str) -> Error {
        let got = self.object.get(name).unwrap_or(&Value::Null);
        Error::format(self.file.display(), format!("{name}: expected {expected}, got {got}"))
    }

    /// `null` counts as absent.
    fn get(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|v| !v.is_null())
    }

    fn count(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let count = value.as_u64().and_then(|n| u32::try_from(n).ok());
        count.map(|n| Some(n as usize)).ok_or_else(|| self.wrong(name, "an integer in 0..=4294967295"))
    }

    fn need(&self, name: &str) -> Result<usize> {
        self.count(name)?.ok_or_else(|| self.wrong(name, "an integer"))
    }

    fn float(&self, name: &str, default: f32) -> Result<f32> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value.as_f64().map(|v| v as f32).filter(|v| v.is_finite()).ok_or_else(|| self.wrong(name, "a finite number"))
    }

    fn flag(&self, name: &str) -> Result<bool> {
        let Some(value) = self.get(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(name, "a bool"))
    }

    /// `Err` unless the field is absent or one of `accepted`.
    fn only(&self, name: &str, accepted: &[&str]) -> Result<()> {
        match self.get(name) {
            None => Ok(()),
            Some(value) if value.as_str().is_some_and(|text| accepted.contains(&text)) => Ok(()),
            Some(_) => Err(self.wrong(name, &format!("one of {accepted:?}: this LLaMA does nothing else"))),
        }
    }
}

/// config.json → shape and end-of-sequence id. What the forward pass does not do is refused by name.
fn read_config(file: &Path, document: &Value) -> Result<(LlamaConfig, u32)> {
    let object = document.as_object().ok_or_else(|| Error::format(file.display(), "expected a JSON object"))?;
    let fields = Fields { file, object };
    if fields.get("model_type").is_none() {
        return Err(fields.wrong("model_type", "\"llama\" or \"mistral\""));
    }
    fields.only("model_type", &["llama", "mistral"])?;
    fields.only("hidden_act", &["silu", "swish"])?;
    for name in ["attention_bias", "mlp_bias"] {
        if fields.flag(name)? {
            return Err(fields.wrong(name, "false: biases are not supported"));
        }
    }
    for (name, why) in [
        ("sliding_window", "null: a sliding attention window is not supported"),
        ("quantization_config", "null: only plain float weights are read"),
    ] {
        if fields.get(name).is_some() {
            return Err(fields.wrong(name, why));
        }
    }
    if fields.float("partial_rotary_factor", 1.0)? != 1.0 {
        return Err(fields.wrong("partial_rotary_factor", "1"));
    }

    let hidden_size = fields.need("hidden_size")?;
    let num_attention_heads = fields.need("num_attention_heads")?;
    let head_dim = match fields.count("head_dim")? {
        Some(dim) => dim,
        None if num_attention_heads > 0 && hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
        None => {
            return Err(fields.wrong("num_attention_heads", &format!("a divisor of hidden_size {hidden_size}, as head_dim is not given")));
        }
    };
    let config = LlamaConfig {
        hidden_size,
        intermediate_size: fields.need("intermediate_size")?,
        num_hidden_layers: fields.need("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: fields.count("num_key_value_heads")?.unwrap_or(num_attention_heads),
        head_dim,
        vocab_size: fields.need("vocab_size")?,
        max_position_embeddings: fields.count("max_position_embeddings")?.unwrap_or(2048),
        rope_theta: rope_theta(&fields)?,
        rms_norm_eps: fields.float("rms_norm_eps", 1e-6)?,
        tie_word_embeddings: fields.flag("tie_word_embeddings")?,
    };
    let eos = match fields.get("eos_token_id") {
        Some(Value::Array(ids)) => ids.first(),
        other => other,
    };
    let eos_id = eos.and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    Ok((config, eos_id.ok_or_else(|| fields.wrong("eos_token_id", "an id"))?))
}

/// RoPE base from `rope_theta` or the newer `rope_parameters`; any scaling is refused.
fn rope_theta(fields: &Fields<'_>) -> Result<f32> {
    for name in ["rope_scaling", "rope_parameters"] {
        let Some(value) = fields.get(name) else { continue };
        let object = value.as_object().ok_or_else(|| fields.wrong(name, "null or an object"))?;
        let kind = object.get("rope_type").or(object.get("type")).and_then(Value::as_str);
        if kind != Some("default") {
            return Err(fields.wrong(name, "null or type \"default\": RoPE scaling is not supported"));
        }
        if object.contains_key("rope_theta") {
            return Fields { file: fields.file, object }.float("rope_theta", 10_000.0);
        }
    }
    fields.float("rope_theta", 10_000.0)
}
