//! The forward pass against golden outputs of SmolLM2-135M-Instruct, imported from its GGUF file.

#[path = "common/golden.rs"]
mod golden;
#[path = "common/shared.rs"]
mod shared;
#[path = "common/smollm2.rs"]
mod smollm2;

use golden::{load, worst_intermediate, worst_logit};
use llmar::device::{Device, Scheme};
use llmar::llama::{Llama, Weights};
use llmar_train::artifacts::{self, BaseMeta};
use llmar_train::import::import;

#[test]
fn smollm2_from_f16_weights() {
    let test = "smollm2_from_f16_weights";
    let (Some(golden), Some(gguf)) = (load(test, "golden_smollm2-135m-instruct.json"), smollm2::gguf(test)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.safetensors");
    let config = import(&gguf, &path).unwrap().config;
    let base = artifacts::open::<BaseMeta>(&path).unwrap();
    let model = |scheme| {
        let weights = Weights::from_tensors(&config, scheme, |name| {
            let (shape, _) = base.info(name).ok_or_else(|| base.wrong(format!("no tensor {name}")))?;
            base.floats(name, shape)
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
