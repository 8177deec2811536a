//! An adapter as a PEFT folder.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::path::Path;

use llmar::checkpoint::replace_file;
use serde_json::json;

use super::{CODES, CONFIG, CodesMeta, EMBEDDING, Half, MODULES, Place, WEIGHTS, belongs, own_digest, own_pairs, shape_of, word_tensors};
use crate::artifacts::{self, AdapterMeta, BaseMeta, Opened, Planned, Store, Values};
use crate::error::{Error, Result};
use crate::export::merge::Lora;

/// Writes the folder `out`, made where it is not there; other files in it are left. Returns how many matrices have a LoRA.
///
/// `base_name` is what PEFT loads the base model by; without one it is the file or folder that the base model was imported from.
///
/// # Errors
/// [`Error::Unsupported`] for an adapter that answers by a head or reads features; [`Error::Mismatch`] when it was trained on another base model; [`Error::Format`] for half a pair, a tensor of a wrong shape or
/// storage, or an adapter without a LoRA; a file system's refusal.
pub fn export(adapter_path: &Path, base_path: &Path, base_name: Option<&str>, out: &Path) -> Result<usize> {
    let base: Opened<BaseMeta> = artifacts::open(base_path)?;
    let adapter: Opened<AdapterMeta> = artifacts::open(adapter_path)?;
    adapter.fits_the_runtime()?;
    belongs(adapter_path, &adapter.meta.base_source_sha256, base_path, &base.meta.source_sha256)?;
    let config = &base.meta.config;
    config.check()?;
    Lora::new(&adapter, config)?;
    let pairs = own_pairs(&adapter, config)?;
    let shape = |place, half| shape_of(&base, adapter.meta.rank, place, half);
    let lora_sha256 = own_digest(&adapter, &pairs, &shape)?;
    let codes = match adapter.info(EMBEDDING) {
        Some((&[codes, hidden], Store::F16)) if hidden == config.hidden_size => [codes, hidden],
        other => return Err(adapter.wrong(format!("`{EMBEDDING}`: expected f16 [codes, {}], got {other:?}", config.hidden_size))),
    };

    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let mut plan = vec![Planned { name: EMBEDDING.to_owned(), shape: codes.to_vec(), store: Store::F16 }];
    plan.extend(word_tensors(&adapter, &adapter.meta)?);
    let meta = CodesMeta { adapter: adapter.meta.clone(), lora_sha256 };
    let load = |index: usize| Ok(Values::Floats(Cow::Owned(adapter.floats(&plan[index].name, &plan[index].shape)?)));
    artifacts::write_lazily(&out.join(CODES), &meta, &plan, &load)?;

    let halves: Vec<(Place, Half)> = pairs.iter().flat_map(|&place| Half::BOTH.map(|half| (place, half))).collect();
    let planned =
        |&(place, half): &(Place, Half)| Ok(Planned { name: place.peft_name(half), shape: shape(place, half)?, store: Store::F16 });
    let plan = halves.iter().map(planned).collect::<Result<Vec<_>>>()?;
    let load = |index: usize| {
        let (place, half) = halves[index];
        Ok(Values::Floats(Cow::Owned(adapter.floats(&place.own_name(half), &plan[index].shape)?)))
    };
    // PEFT writes this word, and some readers of such files ask for it.
    let info = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    artifacts::write_tensors(&out.join(WEIGHTS), info, &plan, &load)?;

    // The settings come last: a folder that was interrupted opens in no tool.
    let name = base_name.unwrap_or(&base.meta.source);
    let settings = settings(&adapter.meta, &pairs, config.num_hidden_layers, name);
    let text = serde_json::to_string_pretty(&settings).map_err(|e| Error::format(CONFIG, e))?;
    replace_file(&out.join(CONFIG), |file| writeln!(file, "{text}"))?;
    Ok(pairs.len())
}

/// `adapter_config.json`: what has no say in the result stands at PEFT's default.
fn settings(meta: &AdapterMeta, pairs: &[Place], layers: usize, base_name: &str) -> serde_json::Value {
    let (modules, layers) = modules(pairs, layers);
    // PEFT declares an integer and takes a float; whole numbers are written as it writes them.
    let alpha = match meta.alpha {
        whole if whole.fract() == 0.0 && whole.abs() < 1e9 => json!(whole as i64),
        other => json!(f64::from(other)),
    };
    json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": layers,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": meta.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    })
}

/// `target_modules` and `layers_to_transform`: module names, and the layers unless they are all. PEFT can say no more than modules × layers; where
/// an adapter is no such rectangle, each module is named with its layer.
fn modules(pairs: &[Place], layers: usize) -> (Vec<String>, Option<Vec<usize>>) {
    let rows: BTreeSet<usize> = pairs.iter().map(|place| place.layer).collect();
    let columns: BTreeSet<usize> = pairs.iter().map(|place| place.target).collect();
    if rows.len() * columns.len() != pairs.len() {
        return (pairs.iter().map(|place| place.module()).collect(), None);
    }
    let last = |module: &str| module.rsplit('.').next().unwrap_or(module).to_owned();
    let names = columns.iter().map(|&target| last(MODULES[target])).collect();
    (names, (rows.len() < layers).then(|| rows.into_iter().collect()))
}
