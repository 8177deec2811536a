//! LoRA adapters in the file layout of Hugging Face PEFT, both ways, so that an adapter can be trained, looked at or merged with other tools.
//!
//! ```text
//! adapter.safetensors ──► export ──► DIR/adapter_config.json, DIR/adapter_model.safetensors   PEFT's
//!                                    DIR/llmar_codes.safetensors   codes, labels, prompt, calibration, reading of words: what PEFT has no place for
//! adapter.safetensors ◄── import ◄── DIR, and for a DIR without llmar_codes.safetensors an adapter that has these
//! ```
//!
//! What is exported and imported again is the same file, bit for bit. Source of the layout: peft 0.21.2, `tuners/lora/config.py`,
//! `utils/save_and_load.py`.

mod config;
mod export;
mod import;
#[cfg(test)]
mod tests;
mod weights;

use llmar::llama::LlamaConfig;
use llmar::text::WordReading;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::artifacts::{AdapterMeta, Kind, Opened, Planned, Store};
use crate::cli::PeftCommand;
use crate::error::{Error, Result};
use crate::export::merge::{TARGETS, name};

pub use export::export;
pub use import::{Imported, import};
pub use weights::Rounding;

/// Settings of an adapter.
const CONFIG: &str = "adapter_config.json";
/// Its matrices.
const WEIGHTS: &str = "adapter_model.safetensors";
/// What an adapter of this project has beside them.
const CODES: &str = "llmar_codes.safetensors";
/// Name of the codes' embeddings, f16 [codes, hidden], here and in an adapter.
const EMBEDDING: &str = "quantizer.embedding";

/// The modules that PEFT names where an adapter of this project has its short [`TARGETS`], in their order.
const MODULES: [&str; 7] =
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"];

/// The document of [`CODES`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CodesMeta {
    /// That of the adapter that was exported; rank and alpha are those of PEFT's settings when it is imported.
    adapter: AdapterMeta,
    /// [`LoraDigest`] of its matrices: tells whether they were changed since.
    lora_sha256: String,
}

impl Kind for CodesMeta {
    const KEY: &'static str = "llmar_codes";
}

/// Runs `llmar-train peft`.
pub fn run(command: &PeftCommand) -> Result<()> {
    match command {
        PeftCommand::Export(args) => {
            let pairs = export(&args.adapter, &args.base, args.base_name.as_deref(), &args.out)?;
            println!("{}: {pairs} matrices with a LoRA", args.out.display());
        }
        PeftCommand::Import(args) => {
            let imported = import(&args.folder, &args.base, args.adapter.as_deref(), &args.out)?;
            println!("{}: {imported}", args.out.display());
        }
    }
    Ok(())
}

/// A matrix of the language model that carries a LoRA: layer, and index into [`TARGETS`] and [`MODULES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    layer: usize,
    target: usize,
}

impl Place {
    /// All of a model, layer by layer.
    fn all(config: &LlamaConfig) -> impl Iterator<Item = Self> {
        (0..config.num_hidden_layers).flat_map(|layer| (0..TARGETS.len()).map(move |target| Self { layer, target }))
    }

    /// `layers.3.self_attn.q_proj`
    fn module(self) -> String {
        format!("layers.{}.{}", self.layer, MODULES[self.target])
    }

    /// Name in PEFT's file: `base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight`.
    fn peft_name(self, half: Half) -> String {
        format!("base_model.model.model.{}.lora_{}.weight", self.module(), half.letter())
    }

    /// Name in an adapter of this project: `lora.layers.3.q.a`.
    fn own_name(self, half: Half) -> String {
        name(self.layer, TARGETS[self.target], &half.letter().to_lowercase())
    }
}

/// Which matrix of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Half {
    /// A [rank, in]
    A,
    /// B [out, rank]
    B,
}

impl Half {
    const BOTH: [Self; 2] = [Self::A, Self::B];

    fn letter(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// SHA-256 over names, shapes and values of the LoRA's matrices in the order of [`Place::all`], A before B.
struct LoraDigest(Sha256);

impl LoraDigest {
    fn new(rank: usize, alpha: f32) -> Self {
        Self(Sha256::new().chain_update(format!("rank {rank} alpha {:08x}\n", alpha.to_bits())))
    }

    /// `values` are already halves.
    fn add(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        self.0.update(format!("{name} {shape:?}\n"));
        for value in values {
            self.0.update(value.to_le_bytes());
        }
    }

    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The pairs of an adapter of this project. Names and rank were checked by [`crate::export::merge::Lora::new`].
///
/// # Errors
/// Half a pair, a matrix that is no f16, or no pair at all.
fn own_pairs(adapter: &Opened<AdapterMeta>, config: &LlamaConfig) -> Result<Vec<Place>> {
    let there = |place: Place, half| match adapter.info(&place.own_name(half)) {
        Some((_, Store::F16)) => Ok(true),
        Some((_, store)) => Err(adapter.wrong(format!("tensor `{}`: expected f16, got {store:?}", place.own_name(half)))),
        None => Ok(false),
    };
    let mut pairs = Vec::new();
    for place in Place::all(config) {
        match (there(place, Half::A)?, there(place, Half::B)?) {
            (true, true) => pairs.push(place),
            (false, false) => {}
            (a, _) => {
                let missing = place.own_name(if a { Half::B } else { Half::A });
                return Err(adapter.wrong(format!("tensor `{missing}` is missing, its other half is there")));
            }
        }
    }
    if pairs.is_empty() {
        return Err(adapter.wrong("no matrix has a LoRA"));
    }
    Ok(pairs)
}

/// Digest of the pairs of an adapter.
fn own_digest(adapter: &Opened<AdapterMeta>, pairs: &[Place], shape: &dyn Fn(Place, Half) -> Result<Vec<usize>>) -> Result<String> {
    let mut digest = LoraDigest::new(adapter.meta.rank, adapter.meta.alpha);
    for &place in pairs {
        for half in Half::BOTH {
            let (name, shape) = (place.own_name(half), shape(place, half)?);
            digest.add(&name, &shape, &adapter.floats(&name, &shape)?);
        }
    }
    Ok(digest.finish())
}

/// The tensors of the reading of words that `adapter` has in `file`, as they are planned.
fn word_tensors<M>(file: &Opened<M>, adapter: &AdapterMeta) -> Result<Vec<Planned>> {
    let dim = match file.info(WordReading::WEIGHT) {
        Some((&[_, dim], _)) => dim,
        _ => 0, // whoever reads it says what is wrong
    };
    let planned = |(name, shape): (&str, Vec<usize>)| match file.info(name) {
        Some((_, Store::F32)) => Ok(Planned { name: name.to_owned(), shape, store: Store::F32 }),
        other => Err(file.wrong(format!("`{name}`: expected f32 {shape:?}, got {other:?}"))),
    };
    adapter.word_tensors(dim).into_iter().map(planned).collect()
}

/// Shape of a half: [rank, in] or [out, rank] of the base model's matrix.
fn shape_of<M>(base: &Opened<M>, rank: usize, place: Place, half: Half) -> Result<Vec<usize>> {
    let matrix = format!("model.{}.weight", place.module());
    match base.info(&matrix) {
        Some((&[rows, cols], _)) => Ok(match half {
            Half::A => vec![rank, cols],
            Half::B => vec![rows, rank],
        }),
        Some((shape, _)) => Err(base.wrong(format!("tensor `{matrix}`: expected a matrix, got {shape:?}"))),
        None => Err(base.wrong(format!("tensor `{matrix}` is missing"))),
    }
}

/// The adapter and the base model belong together.
fn belongs(adapter: &std::path::Path, expected: &str, base: &std::path::Path, got: &str) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Mismatch {
        file: adapter.to_path_buf(),
        part: "base model's source",
        expected: expected.to_owned(),
        given: base.to_path_buf(),
        got: got.to_owned(),
    })
}
