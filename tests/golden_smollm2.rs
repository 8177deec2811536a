//! The forward pass against golden outputs of SmolLM2-135M-Instruct, imported from its GGUF file.

#[path = "common/golden.rs"]
mod golden;
#[path = "common/shared.rs"]
mod shared;

use std::path::{Path, PathBuf};

use golden::{load, worst_intermediate, worst_logit};
use llmar::device::{Device, Scheme};
use llmar::llama::{Llama, Weights};
use llmar_train::artifacts::{self, BaseMeta};
use llmar_train::import::import;

/// The GGUF file: `LLMAR_SMOLLM2_GGUF`, or where the demo puts it; `None`, after saying so, where it is not.
fn gguf(test: &str) -> Option<PathBuf> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/demo/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("LLMAR_SMOLLM2_GGUF").map_or(demo, PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED {test}: {} is missing", path.display());
    None
}

#[test]
fn smollm2_from_f16_weights() {
    let test = "smollm2_from_f16_weights";
    let (Some(golden), Some(gguf)) = (load(test, "golden_smollm2-135m-instruct.json"), gguf(test)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.safetensors");
    let config = import(&gguf, &path).unwrap().config;
    let base = artifacts::open::<BaseMeta>(&path).unwrap();
    let model = |scheme| {
        let weights = Weights::from_tensors(&config, scheme, |name| {
            let (shape, _) = base.info(name).ok_or_else(|| base.wrong(format!("no tensor {name}")))?;
            base.floats(name, &shape.to_vec())
        });
        Llama { config: config.clone(), weights: weights.unwrap_or_else(|e: llmar_train::Error| panic!("{e}")) }
    };
    let device = Device::cpu(2).unwrap();

    let f16 = model(Scheme::F16);
    let logits = worst_logit(&f16, &device, &golden, &[]);
    let inner = worst_intermediate(&f16, &device, &golden);
    println!("f16: top-10 logits differ by {logits:.1e}, intermediates by {inner:.1e} of their norm");
    assert!(logits <= 2e-3, "top-10 logits differ by {logits:.1e}");
    assert!(inner <= 1e-4, "intermediates differ by {inner:.1e} of their norm");

    // Rounded weights and activations stay near; a mistaken scale would not.
    let every: Vec<&str> = golden.prompts.iter().map(|p| &p.name[..]).collect();
    let logits = worst_logit(&model(Scheme::Q8), &device, &golden, &every);
    println!("q8: top-10 logits differ by {logits:.1e}");
    assert!(logits <= 2.0, "q8: top-10 logits differ by {logits:.1e}");
}
