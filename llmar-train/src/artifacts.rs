//! The three files between the stages, each a safetensors file with one JSON document in its metadata:
//! base model (`import`), stage-1 tokenizer (`vqvae`), adapter (`lora`). `export` joins them into a `.llmar` checkpoint.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use llmar::bytes::Bytes;
use llmar::checkpoint::{Calibration, TokenizerMeta};
use llmar::llama::LlamaConfig;
use llmar::motion::{EncoderConfig, QuantizerConfig};
use llmar::skeleton::Preprocess;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Largest header that is parsed.
const MAX_HEADER_BYTES: usize = 100 << 20;

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

/// An artifact in memory: its JSON document and its tensors, widened to f32.
#[derive(Clone, Debug)]
pub struct Artifact<M> {
    /// The document.
    pub meta: M,
    /// Name → (shape, row-major values), for f16 and f32 tensors; every value finite.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Name → values, for u8 and u32 tensors (the tokenizer's tables), all of one dimension.
    pub integers: BTreeMap<String, Vec<u32>>,
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
    /// u8, for values in 0..256
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

/// A mapped artifact whose tensors are read one at a time, for models that are large.
#[derive(Clone, Debug)]
pub struct Opened<M> {
    /// The document.
    pub meta: M,
    path: PathBuf,
    bytes: Bytes,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    store: Store,
    shape: Vec<usize>,
    range: Range<usize>,
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

/// Maps an artifact whose document is of kind `M`; structure is checked, values when they are read.
pub fn open<M: Kind>(path: &Path) -> Result<Opened<M>> {
    let bytes = map_file(path)?;
    let wrong = |detail: String| Error::format(path.display(), detail);
    let (data, metadata) = read_header(bytes.as_slice()).map_err(wrong)?;
    let document = metadata.metadata().as_ref().and_then(|m| m.get(M::KEY)).ok_or_else(|| {
        let mut keys: Vec<&str> = metadata.metadata().iter().flatten().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        wrong(format!("expected `{}` in the metadata, found {keys:?}", M::KEY))
    })?;
    let meta = serde_json::from_str(document).map_err(|e| wrong(format!("metadata `{}`: {e}", M::KEY)))?;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let store =
            Store::of(info.dtype).ok_or_else(|| wrong(format!("tensor `{name}`: expected f16, f32, u8 or u32, got {:?}", info.dtype)))?;
        let range = data + info.data_offsets.0..data + info.data_offsets.1;
        tensors.insert(name, Entry { store, shape: info.shape.clone(), range });
    }
    Ok(Opened { meta, path: path.to_path_buf(), bytes, tensors })
}

impl<M> Opened<M> {
    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape and storage of a tensor, if there is one.
    pub fn info(&self, name: &str) -> Option<(&[usize], Store)> {
        self.tensors.get(name).map(|entry| (entry.shape.as_slice(), entry.store))
    }

    /// A float tensor of exactly `shape`, widened to f32; every value finite.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        if entry.shape != shape {
            return Err(self.wrong(format!("tensor `{name}`: expected shape {shape:?}, got {:?}", entry.shape)));
        }
        let raw = &self.bytes.as_slice()[entry.range.clone()];
        let values: Vec<f32> = match entry.store {
            Store::F16 => raw.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Store::F32 => raw.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Store::U8 | Store::U32 => return Err(self.wrong(format!("tensor `{name}`: expected floats, got {:?}", entry.store))),
        };
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(self.wrong(format!("tensor `{name}`: value {at} is {}, expected a finite number", values[at]))),
            None => Ok(values),
        }
    }

    /// An integer tensor of one dimension.
    pub fn integers(&self, name: &str) -> Result<Vec<u32>> {
        let entry = self.entry(name)?;
        if entry.shape.len() != 1 {
            return Err(self.wrong(format!("tensor `{name}`: expected one dimension, got shape {:?}", entry.shape)));
        }
        let raw = &self.bytes.as_slice()[entry.range.clone()];
        match entry.store {
            Store::U8 => Ok(raw.iter().map(|&b| u32::from(b)).collect()),
            Store::U32 => Ok(raw.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect()),
            Store::F16 | Store::F32 => Err(self.wrong(format!("tensor `{name}`: expected integers, got {:?}", entry.store))),
        }
    }

    /// SHA-256 of the file, lowercase hex. Reads all of it.
    pub fn sha256(&self) -> String {
        sha256_hex(self.bytes.as_slice())
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| self.wrong(format!("tensor `{name}` is missing")))
    }

    /// An error about this file.
    pub fn wrong(&self, detail: impl ToString) -> Error {
        Error::format(self.path.display(), detail)
    }
}

/// Reads a whole artifact whose document is of kind `M`.
pub fn read<M: Kind>(path: &Path) -> Result<Artifact<M>> {
    let opened = open::<M>(path)?;
    let mut tensors = BTreeMap::new();
    let mut integers = BTreeMap::new();
    for (name, entry) in &opened.tensors {
        match entry.store {
            Store::F16 | Store::F32 => {
                tensors.insert(name.clone(), (entry.shape.clone(), opened.floats(name, &entry.shape)?));
            }
            Store::U8 | Store::U32 => {
                integers.insert(name.clone(), opened.integers(name)?);
            }
        }
    }
    let sha256 = opened.sha256();
    Ok(Artifact { meta: opened.meta, tensors, integers, sha256 })
}

/// A tensor that [`write_lazily`] asks for when its turn comes.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Name in the file.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Storage.
    pub store: Store,
}

/// Values of a planned tensor, row-major.
#[derive(Clone, Debug)]
pub enum Values<'a> {
    /// For [`Store::F16`] and [`Store::F32`].
    Floats(Cow<'a, [f32]>),
    /// For [`Store::U8`] and [`Store::U32`].
    Integers(Cow<'a, [u32]>),
}

/// Writes an artifact: temporary file, sync, rename. The file that was there stays whole until the new one is on disk.
///
/// # Errors
/// A length that is not the shape's, a value that is not finite after rounding, or the file system's refusal.
pub fn write<M: Kind>(path: &Path, meta: &M, tensors: &[(String, Vec<usize>, Vec<f32>, Store)]) -> Result<()> {
    let plan: Vec<Planned> =
        tensors.iter().map(|(name, shape, _, store)| Planned { name: name.clone(), shape: shape.clone(), store: *store }).collect();
    write_lazily(path, meta, &plan, &|index| {
        let (_, _, values, store) = &tensors[index];
        Ok(match store {
            Store::F16 | Store::F32 => Values::Floats(Cow::Borrowed(values)),
            Store::U8 | Store::U32 => Values::Integers(values.iter().map(|&v| v as u32).collect()),
        })
    })
}

/// As [`write`], with only one tensor in memory at a time: `load(i)` gives the values of `plan[i]`, called once each, in the file's order.
pub fn write_lazily<'a, M: Kind>(path: &Path, meta: &M, plan: &[Planned], load: &dyn Fn(usize) -> Result<Values<'a>>) -> Result<()> {
    for (i, tensor) in plan.iter().enumerate() {
        if plan[..i].iter().any(|other| other.name == tensor.name) {
            return Err(Error::format(path.display(), format!("tensor `{}` was given twice", tensor.name)));
        }
    }
    let document = serde_json::to_string(meta).map_err(|e| Error::format(path.display(), format!("metadata: {e}")))?;
    // Wider types first and then by name, as the safetensors crate orders them: then every tensor is aligned to its type.
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by(|&a, &b| plan[b].store.bytes().cmp(&plan[a].store.bytes()).then_with(|| plan[a].name.cmp(&plan[b].name)));
    let header = header(plan, &order, HashMap::from([(M::KEY.to_string(), document)])).map_err(|e| Error::format(path.display(), e))?;

    let temporary = temporary_beside(path)?;
    let written = write_file(&temporary, &header, plan, &order, load).and_then(|()| rename(&temporary, path));
    if written.is_err() {
        // The error is what the caller needs to hear; a file that cannot be removed either is only litter.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Length word and JSON of a safetensors file, padded so that the data begins at a multiple of 8.
fn header(plan: &[Planned], order: &[usize], info: HashMap<String, String>) -> std::result::Result<Vec<u8>, String> {
    let mut tensors = Vec::with_capacity(plan.len());
    let mut end = 0usize;
    for tensor in order.iter().map(|&index| &plan[index]) {
        let start = end;
        let values = tensor.shape.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim));
        let bytes = values.and_then(|n| n.checked_mul(tensor.store.bytes()));
        end = bytes
            .and_then(|n| start.checked_add(n))
            .ok_or_else(|| format!("tensor `{}`: shape {:?} overflows", tensor.name, tensor.shape))?;
        let info = TensorInfo { dtype: tensor.store.dtype(), shape: tensor.shape.clone(), data_offsets: (start, end) };
        tensors.push((tensor.name.clone(), info));
    }
    let metadata = Metadata::new(Some(info), tensors).map_err(|e| e.to_string())?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| e.to_string())?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes(), &json[..]].concat())
}

fn write_file<'a>(path: &Path, header: &[u8], plan: &[Planned], order: &[usize], load: &dyn Fn(usize) -> Result<Values<'a>>) -> Result<()> {
    let mut out = BufWriter::new(File::create(path).map_err(Error::io(path))?);
    out.write_all(header).map_err(Error::io(path))?;
    for &index in order {
        out.write_all(&encode(&plan[index], &load(index)?)?).map_err(Error::io(path))?;
    }
    let file = out.into_inner().map_err(|e| Error::io(path)(e.into_error()))?;
    file.sync_all().map_err(Error::io(path))
}

/// Little-endian bytes of a tensor in its storage type.
fn encode(tensor: &Planned, values: &Values<'_>) -> Result<Vec<u8>> {
    let wrong = |detail: String| Error::format(format!("tensor `{}`", tensor.name), detail);
    let expected: usize = tensor.shape.iter().product();
    let got = match values {
        Values::Floats(v) => v.len(),
        Values::Integers(v) => v.len(),
    };
    if got != expected {
        return Err(wrong(format!("expected {expected} values for shape {:?}, got {got}", tensor.shape)));
    }
    let not_finite = |at: usize, value: f32| wrong(format!("value {at} is {value}, expected a finite {:?}", tensor.store));
    let mut bytes = Vec::with_capacity(expected * tensor.store.bytes());
    match (tensor.store, values) {
        (Store::F16, Values::Floats(v)) => {
            for (at, &value) in v.iter().enumerate() {
                let rounded = f16::from_f32(value);
                if !rounded.is_finite() {
                    return Err(not_finite(at, value));
                }
                bytes.extend(rounded.to_le_bytes());
            }
        }
        (Store::F32, Values::Floats(v)) => {
            for (at, &value) in v.iter().enumerate() {
                if !value.is_finite() {
                    return Err(not_finite(at, value));
                }
                bytes.extend(value.to_le_bytes());
            }
        }
        (Store::U8, Values::Integers(v)) => {
            for &value in v.iter() {
                bytes.push(u8::try_from(value).map_err(|_| wrong(format!("expected values in 0..256, got {value}")))?);
            }
        }
        (Store::U32, Values::Integers(v)) => v.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
        (store, _) => return Err(wrong(format!("values are not of the kind that {store:?} stores"))),
    }
    Ok(bytes)
}

/// Start of the data, and the checked header, of a safetensors file.
///
/// Not `SafeTensors::read_metadata`: that adds a length from the file to others without a check for overflow.
pub fn read_header(bytes: &[u8]) -> std::result::Result<(usize, Metadata), String> {
    let (length, rest) = bytes.split_first_chunk().ok_or("expected a safetensors file, got fewer than 8 bytes")?;
    let length = u64::from_le_bytes(*length);
    let json = usize::try_from(length).ok().filter(|&n| n <= MAX_HEADER_BYTES).and_then(|n| rest.get(..n));
    let json = json.ok_or_else(|| format!("expected a safetensors file, got a header of {length} bytes in a file of {}", bytes.len()))?;
    let metadata: Metadata = serde_json::from_slice(json).map_err(|e| format!("expected a safetensors header: {e}"))?;
    let left = rest.len() - json.len();
    if metadata.data_len() != left {
        return Err(format!("expected {} bytes of tensors, got {left}", metadata.data_len()));
    }
    Ok((bytes.len() - left, metadata))
}

/// Maps a file read-only.
pub fn map_file(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(Error::io(path))?;
    let len = file.metadata().map_err(Error::io(path))?.len();
    if len == 0 {
        return Err(Error::format(path.display(), "the file is empty")); // and an empty file cannot be mapped
    }
    // SAFETY: the map is read-only and private to this process's view. It is sound as long as nobody changes the file while it lives; this
    // program itself replaces files by rename and never in place, and the manual asks the same of others.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
    Ok(Bytes::from_mmap(map))
}

/// SHA-256 in lowercase hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name for a temporary file in the directory of `path`, so that a rename stays within one file system.
fn temporary_beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::format(path.display(), "expected the name of a file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    // An empty parent is the current directory, which the file system only knows as `.`.
    Ok(directory_of(path).join(temporary))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Renames, and syncs the directory entry where the system can.
fn rename(temporary: &Path, path: &Path) -> Result<()> {
    std::fs::rename(temporary, path).map_err(Error::io(path))?;
    #[cfg(unix)]
    File::open(directory_of(path)).and_then(|dir| dir.sync_all()).map_err(Error::io(path))?;
    Ok(())
}
