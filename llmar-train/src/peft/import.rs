//! A PEFT folder as an adapter.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use super::config::Config;
use super::weights::{Rounding, Weights};
use super::{
    CODES, CONFIG, CodesMeta, EMBEDDING, Half, LoraDigest, Place, WEIGHTS, belongs, own_digest, own_pairs, shape_of, word_tensors,
};
use crate::artifacts::{self, AdapterMeta, BaseMeta, Opened, Planned, Store, Values, file_digest};
use crate::error::{Error, Result};
use crate::export::merge::Lora;

/// What an import did.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The adapter's document.
    pub meta: AdapterMeta,
    /// Matrices with a LoRA.
    pub pairs: usize,
    /// What rounding changed.
    pub rounding: Rounding,
    /// Whether the LoRA is another one than that of the adapter whose codes, labels and calibration it got.
    pub other_lora: bool,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { meta, pairs, rounding, other_lora } = self;
        write!(
            f,
            "{}, {pairs} matrices with a LoRA of rank {}, alpha {}, {} labels; ",
            meta.name,
            meta.rank,
            meta.alpha,
            meta.labels.len()
        )?;
        match rounding.changed {
            0 => write!(f, "every value fits f16")?,
            changed => write!(f, "{changed} of {} values rounded to f16, {} of them to zero", rounding.values, rounding.vanished)?,
        }
        if *other_lora {
            write!(f, "\nthe LoRA is not the one that the calibration was fitted with: measure before you trust its probabilities")?;
        }
        Ok(())
    }
}

/// Codes, labels, prompt, calibration and reading of words, and the LoRA they came with.
struct Codes {
    path: PathBuf,
    meta: AdapterMeta,
    lora_sha256: String,
    /// The codes' embeddings f16 [codes, hidden], widened, and the tensors of the reading.
    tensors: Vec<(Planned, Vec<f32>)>,
}

/// Writes the adapter `out` from a PEFT folder. What PEFT has no place for comes from the adapter `template`, else from the folder's
/// `llmar_codes.safetensors`. If the folder's LoRA is no longer theirs, the provenance says so.
///
/// # Errors
/// [`Error::Unsupported`] for what an adapter cannot say; [`Error::Mismatch`] when the codes were trained on another base model; [`Error::Format`]
/// with the tensor and what is wrong with it. `out` is then as it was.
pub fn import(folder: &Path, base_path: &Path, template: Option<&Path>, out: &Path) -> Result<Imported> {
    let base: Opened<BaseMeta> = artifacts::open(base_path)?;
    base.meta.config.check()?;
    let config = Config::read(&folder.join(CONFIG))?;
    let weights_path = folder.join(WEIGHTS);
    let pickled = folder.join("adapter_model.bin");
    if !weights_path.exists() && pickled.exists() {
        return Err(Error::Unsupported {
            file: pickled,
            name: "adapter_model.bin".to_owned(),
            expected: format!("{WEIGHTS}, as save_pretrained(…, safe_serialization=True) writes it"),
            got: "a pickle, which is a program and is not run".to_owned(),
        });
    }
    let weights = Weights::open(&weights_path, &config, &base)?;
    let codes = codes(folder, template, &base)?;
    belongs(&codes.path, &codes.meta.base_source_sha256, base_path, &base.meta.source_sha256)?;

    // Once over all values before anything is written: the document holds what became of them.
    let mut digest = LoraDigest::new(config.rank, config.alpha);
    let mut rounding = Rounding::default();
    let mut halves: Vec<(Place, Half)> = Vec::new();
    let mut plan = Vec::new();
    for (place, half, shape) in weights.halves() {
        let (values, rounded) = weights.values(place, half)?;
        let name = place.own_name(half);
        digest.add(&name, shape, &values);
        rounding += rounded;
        halves.push((place, half));
        plan.push(Planned { name, shape: shape.to_vec(), store: Store::F16 });
    }
    let (pairs, tensors) = (halves.len() / 2, codes.tensors);
    let mut meta = AdapterMeta { rank: config.rank, alpha: config.alpha, ..codes.meta };
    let other_lora = digest.finish() != codes.lora_sha256;
    if other_lora {
        let from = format!("rank {}, base model `{}`, {WEIGHTS} {}", config.rank, config.base_name, file_digest(&weights_path)?);
        meta.provenance.insert("peft".to_owned(), from);
        if rounding.changed > 0 {
            meta.provenance.insert("peft_rounded".to_owned(), format!("{} of {} values", rounding.changed, rounding.values));
        }
    }

    plan.extend(tensors.iter().map(|(planned, _)| planned.clone()));
    let load = |index: usize| match halves.get(index) {
        Some(&(place, half)) => Ok(Values::Floats(Cow::Owned(weights.values(place, half)?.0))),
        None => Ok(Values::Floats(Cow::Borrowed(&tensors[index - halves.len()].1[..]))),
    };
    artifacts::write_lazily(out, &meta, &plan, &load)?;
    Ok(Imported { meta, pairs, rounding, other_lora })
}

fn codes(folder: &Path, template: Option<&Path>, base: &Opened<BaseMeta>) -> Result<Codes> {
    if let Some(path) = template {
        let adapter: Opened<AdapterMeta> = artifacts::open(path)?;
        Lora::new(&adapter, &base.meta.config)?;
        let pairs = own_pairs(&adapter, &base.meta.config)?;
        let shape = |place, half| shape_of(base, adapter.meta.rank, place, half);
        let lora_sha256 = own_digest(&adapter, &pairs, &shape)?;
        let tensors = beside(&adapter, &adapter.meta, base)?;
        return Ok(Codes { path: path.to_path_buf(), meta: adapter.meta, lora_sha256, tensors });
    }
    let path = folder.join(CODES);
    if !path.exists() {
        return Err(Error::Setting {
            name: "--adapter".to_owned(),
            expected: format!("an adapter to take codes, labels and prompt from, as {} has no {CODES}", folder.display()),
            got: "none".to_owned(),
        });
    }
    let opened: Opened<CodesMeta> = artifacts::open(&path)?;
    let tensors = beside(&opened, &opened.meta.adapter, base)?;
    if let Some(other) = opened.names().find(|name| tensors.iter().all(|(planned, _)| planned.name != *name)) {
        return Err(opened.wrong(format!("tensor `{other}`: expected `{EMBEDDING}` and the tensors of a reading of words alone")));
    }
    Ok(Codes { path, meta: opened.meta.adapter, lora_sha256: opened.meta.lora_sha256, tensors })
}

/// What stands beside the LoRA in the file of `adapter`: the codes' embeddings f16 [codes, hidden], widened, and the tensors of its reading of words.
fn beside<M>(opened: &Opened<M>, adapter: &AdapterMeta, base: &Opened<BaseMeta>) -> Result<Vec<(Planned, Vec<f32>)>> {
    let hidden = base.meta.config.hidden_size;
    let embedding = match opened.info(EMBEDDING) {
        Some((&[codes, width], Store::F16)) if width == hidden => {
            Planned { name: EMBEDDING.to_owned(), shape: vec![codes, width], store: Store::F16 }
        }
        other => return Err(opened.wrong(format!("`{EMBEDDING}`: expected f16 [codes, {hidden}], got {other:?}"))),
    };
    let planned = std::iter::once(embedding).chain(word_tensors(opened, adapter)?);
    planned.map(|planned| opened.floats(&planned.name, &planned.shape).map(|values| (planned, values))).collect()
}
