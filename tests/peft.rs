//! The demo adapter through PEFT: out, back, and, with a python3 that has torch, transformers and peft (`LLMAR_PEFT_PYTHON`), run there.
//!
//! ```sh
//! python3 -m venv DIR && DIR/bin/pip install torch==2.11.0 transformers==5.24.0 peft==0.21.2
//! LLMAR_PEFT_PYTHON=DIR/bin/python3 cargo test -p llmar-train --test peft
//! ```

#[path = "common/golden.rs"]
mod golden;
#[path = "common/shared.rs"]
mod shared;
#[path = "common/smollm2.rs"]
mod smollm2;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use golden::{causal, embed, read};
use llmar::control::Control;
use llmar::device::{Device, Scheme};
use llmar::llama::{KvCache, Llama, Workspace};
use llmar::recognizer::{Model, OpenOptions};
use llmar_train::artifacts::{self, BaseMeta, Values, base_tensors, write_tensors};
use llmar_train::import::import;
use llmar_train::{export, peft};

/// Largest difference of a logit. Both compute in f32 from the same f16 weights; logits of up to 30 differ by the order of sums, 8e-5 measured.
const TOLERANCE: f32 = 1e-3;

fn demo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/utd-mhad").join(file)
}

/// The base model as a Hugging Face folder.
fn hugging_face(base_path: &Path, folder: &Path) {
    let base = artifacts::open::<BaseMeta>(base_path).unwrap();
    let c = &base.meta.config;
    let plan = base_tensors(c);
    std::fs::create_dir(folder).unwrap();
    let info = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let load = |i: usize| Ok(Values::Floats(Cow::Owned(base.floats(&plan[i].name, &plan[i].shape)?)));
    write_tensors(&folder.join("model.safetensors"), info, &plan, &load).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size, "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads, "num_key_value_heads": c.num_key_value_heads, "head_dim": c.head_dim,
        "vocab_size": c.vocab_size, "max_position_embeddings": c.max_position_embeddings, "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta, "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "tie_word_embeddings": c.tie_word_embeddings, "bos_token_id": 1, "eos_token_id": base.meta.eos_id,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// Logits behind the last token.
fn logits(llama: &Llama, ids: &[u32]) -> Vec<f32> {
    let device = Device::cpu(1).unwrap();
    let mut cache = KvCache::new(&device, &llama.config, ids.len()).unwrap();
    let (mut workspace, mut x, mut head) = (Workspace::new(&device), device.buffer(), device.buffer());
    embed(llama, &device, ids, &mut x);
    llama.forward(&device, &causal(0..ids.len() as u32), &mut x, &mut cache, &mut workspace, &Control::default()).unwrap();
    llama.logits(&device, &x, &[ids.len() as u32 - 1], &mut head, &mut workspace, &Control::default()).unwrap();
    read(&device, &head, llama.config.vocab_size)
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn the_demo_adapter_comes_back_from_a_peft_folder() {
    let Some(gguf) = smollm2::gguf("the_demo_adapter_comes_back_from_a_peft_folder") else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (base, adapter) = (at("base"), demo("adapter.safetensors"));
    import(&gguf, &base).unwrap();
    let pairs = peft::export(&adapter, &base, None, &at("peft")).unwrap();
    let settings: serde_json::Value = serde_json::from_slice(&std::fs::read(at("peft/adapter_config.json")).unwrap()).unwrap();
    let layers = settings["layers_to_transform"].as_array().map_or(30, Vec::len);
    assert_eq!(pairs, layers * settings["target_modules"].as_array().unwrap().len());
    let imported = peft::import(&at("peft"), &base, None, &at("back")).unwrap();
    assert_eq!((imported.pairs, imported.rounding.changed, imported.other_lora), (pairs, 0, false));
    assert_eq!(std::fs::read(at("back")).unwrap(), std::fs::read(&adapter).unwrap(), "the same adapter, bit for bit");
}

#[test]
fn peft_itself_gives_the_same_logits_and_the_adapter_back() {
    const TEST: &str = "peft_itself_gives_the_same_logits_and_the_adapter_back";
    let Some(gguf) = smollm2::gguf(TEST) else { return };
    let Some(python) = std::env::var_os("LLMAR_PEFT_PYTHON") else {
        println!("SKIPPED {TEST}: LLMAR_PEFT_PYTHON names no python3 with torch, transformers and peft");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (base, adapter) = (at("base"), demo("adapter.safetensors"));
    import(&gguf, &base).unwrap();
    let pairs = peft::export(&adapter, &base, None, &at("peft")).unwrap();
    hugging_face(&base, &at("hf"));
    let model = |adapter: &Path| {
        export::export(&base, &demo("stage1.safetensors"), adapter, Scheme::F32, &at("model.llmar")).unwrap();
        Model::open(&at("model.llmar"), OpenOptions::default()).unwrap()
    };
    let with_lora = model(&adapter);
    let texts = ["Given a sequence of action tokens", "The person in the picture is", "walk, jog, lunge and"];
    let prompts: Vec<Vec<u32>> = texts.iter().map(|text| with_lora.tokenizer().unwrap().encode(text)).collect();
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peft_logits.py"))
        .args([at("hf"), at("peft"), at("resaved")])
        .arg(serde_json::to_string(&prompts).unwrap())
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Vec<Vec<f32>> = serde_json::from_slice(&output.stdout).unwrap();

    // Another alpha gives other logits: a comparison that could not see the LoRA would pass as well.
    let mut half = artifacts::open::<artifacts::AdapterMeta>(&adapter).unwrap();
    half.meta.alpha /= 2.0;
    let plan: Vec<artifacts::Planned> = half
        .names()
        .map(|name| artifacts::Planned { name: name.to_owned(), shape: half.info(name).unwrap().0.to_vec(), store: artifacts::Store::F16 })
        .collect();
    let load = |i: usize| Ok(Values::Floats(Cow::Owned(half.floats(&plan[i].name, &plan[i].shape)?)));
    artifacts::write_lazily(&at("half"), &half.meta, &plan, &load).unwrap();
    let ours: Vec<Vec<f32>> = prompts.iter().map(|ids| logits(with_lora.llama(), ids)).collect();
    let weaker = model(&at("half"));
    for ((ids, ours), theirs) in prompts.iter().zip(&ours).zip(&theirs) {
        let (difference, other) = (apart(ours, theirs), apart(&logits(weaker.llama(), ids), theirs));
        println!("{} tokens: logits differ by {difference:.1e} at most, with half of alpha by {other:.1e}", ids.len());
        assert!(difference < TOLERANCE, "{difference}");
        assert!(other > 100.0 * TOLERANCE, "{other}");
    }

    // As PEFT itself writes it, in f32 and without our file of codes, onto the adapter it came from.
    assert!(!at("resaved/llmar_codes.safetensors").exists());
    let imported = peft::import(&at("resaved"), &base, Some(&adapter), &at("back")).unwrap();
    assert_eq!((imported.pairs, imported.rounding.changed, imported.other_lora), (pairs, 0, false));
    assert_eq!(std::fs::read(at("back")).unwrap(), std::fs::read(&adapter).unwrap());
}
