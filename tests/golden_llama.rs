//! The forward pass against golden outputs of stories260k, a LLaMA of 260 thousand parameters.
//!
//! The shared folder has its weights in f16 and two golden files: one computed from these f16 weights, one from the f32 weights that they were
//! rounded from. The first is what the forward pass is held to, with weights kept as f32 and as f16 (both hold f16 values exactly). The
//! two golden files differ by up to 8.6e-3 on the top-10 logits, so the second cannot be met within 2e-3 from rounded weights; its
//! f32 weights are looked for in `LLMAR_STORIES260K_F32` (a safetensors file with Hugging Face names).

#[path = "common/golden.rs"]
mod golden;
#[path = "common/shared.rs"]
mod shared;

use golden::{load, worst_intermediate, worst_logit};
use half::f16;
use llmar::Error;
use llmar::device::{Device, Scheme};
use llmar::llama::{Llama, LlamaConfig, Weights};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use shared::shared;

fn config() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 64,
        intermediate_size: 172,
        num_hidden_layers: 5,
        num_attention_heads: 8,
        num_key_value_heads: 4,
        head_dim: 8,
        vocab_size: 512,
        max_position_embeddings: 512,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
    }
}

/// The model of a safetensors file with Hugging Face names in f16 or f32.
fn llama(file: &[u8], scheme: Scheme) -> Llama {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let weights = Weights::from_tensors(&config(), scheme, |name| {
        let view = tensors.tensor(name).map_err(|e| Error::format(name, e.to_string()))?;
        Ok(match view.dtype() {
            Dtype::F16 => view.data().as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            other => return Err(Error::format(name, format!("unexpected type {other:?}"))),
        })
    });
    Llama { config: config(), weights: weights.unwrap_or_else(|e: Error| panic!("{e}")) }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The f16 weights of the shared folder; `None`, after saying so, where they are not.
fn f16_file(test: &str) -> Option<Vec<u8>> {
    Some(std::fs::read(shared(test, "golden/stories260k/model.safetensors")?).unwrap())
}

#[test]
fn stories260k_from_its_f16_weights() {
    let test = "stories260k_from_its_f16_weights";
    let (Some(golden), Some(file)) = (load(test, "golden_stories260k-f16.json"), f16_file(test)) else { return };
    assert_eq!(golden.model_safetensors_sha256, sha256(&file), "the golden file goes with these weights");
    for threads in [1, 2] {
        let device = Device::cpu(threads).unwrap();
        for scheme in [Scheme::F32, Scheme::F16] {
            let llama = llama(&file, scheme);
            let logits = worst_logit(&llama, &device, &golden, &[]);
            let inner = worst_intermediate(&llama, &device, &golden);
            println!("{scheme:?}: top-10 logits differ by {logits:.1e}, intermediates by {inner:.1e} of their norm");
            assert!(logits <= 1e-4, "{scheme:?}, {threads} threads: top-10 logits differ by {logits:.1e}");
            assert!(inner <= 1e-5, "{scheme:?}, {threads} threads: intermediates differ by {inner:.1e} of their norm");
        }
    }
}

/// Rounded activations and weights move logits, by a bound that is wide but no longer met when a scale or a minimum is mistaken.
#[test]
fn stories260k_quantised() {
    let test = "stories260k_quantised";
    let (Some(golden), Some(file)) = (load(test, "golden_stories260k-f16.json"), f16_file(test)) else { return };
    let device = Device::cpu(1).unwrap();
    let every: Vec<&str> = golden.prompts.iter().map(|p| &p.name[..]).collect();
    for (scheme, bound) in [(Scheme::Q8, 0.5), (Scheme::Q4, 5.0)] {
        let worst = worst_logit(&llama(&file, scheme), &device, &golden, &every);
        println!("{scheme:?}: top-10 logits differ by {worst:.2e}");
        assert!(worst <= bound, "{scheme:?}: top-10 logits differ by {worst:.1e}");
    }
}

#[test]
fn stories260k_from_its_f32_weights() {
    let test = "stories260k_from_its_f32_weights";
    let Some(golden) = load(test, "golden_stories260k.json") else { return };
    let Some(path) = std::env::var_os("LLMAR_STORIES260K_F32") else {
        println!("SKIPPED {test}: LLMAR_STORIES260K_F32 names no safetensors file with the f32 weights");
        return;
    };
    let file = std::fs::read(path).unwrap();
    let device = Device::cpu(1).unwrap();
    let worst = worst_logit(&llama(&file, Scheme::F32), &device, &golden, &[]);
    assert!(worst <= 1e-4, "top-10 logits differ by {worst:.1e}");
    let worst = worst_logit(&llama(&file, Scheme::F16), &device, &golden, &["zoo"]);
    assert!(worst <= 1e-2, "top-10 logits of rounded weights differ by {worst:.1e}");
}

#[test]
fn a_missing_or_misshapen_tensor_is_an_error() {
    let values = |name: &str| -> Result<Vec<f32>, Error> {
        match name {
            "model.embed_tokens.weight" => Ok(vec![0.0; 512 * 64]),
            "model.layers.0.self_attn.q_proj.weight" => Ok(vec![0.0; 7]),
            other => Err(Error::format(other, "absent")),
        }
    };
    match Weights::from_tensors(&config(), Scheme::F32, values) {
        Err(Error::Shape { what, expected, got }) => {
            assert_eq!((&what[..], &expected[..], &got[..]), ("model.layers.0.self_attn.q_proj.weight", &[64, 64][..], &[7][..]));
        }
        other => panic!("{other:?}"),
    }
}

mod passes {
    //! A pass refuses rows that reach outside its buffers.
    use super::*;
    use llmar::control::{CancelToken, Control};
    use llmar::llama::{KvCache, Workspace};

    fn tiny() -> Llama {
        let config = config();
        let zeros = |name: &str| -> Result<Vec<f32>, Error> {
            let (h, f, v) = (config.hidden_size, config.intermediate_size, config.vocab_size);
            Ok(vec![
                0.01;
                match name.rsplit('.').nth(1) {
                    Some("embed_tokens") => v * h,
                    Some("q_proj" | "o_proj") => config.q_dim() * h,
                    Some("k_proj" | "v_proj") => config.kv_dim() * h,
                    Some("gate_proj" | "up_proj" | "down_proj") => f * h,
                    _ => h,
                }
            ])
        };
        Llama { weights: Weights::from_tensors(&config, Scheme::F32, zeros).unwrap_or_else(|e: Error| panic!("{e}")), config }
    }

    #[test]
    fn rows_outside_the_cache_are_refused() {
        let (llama, device) = (tiny(), Device::cpu(1).unwrap());
        let mut cache = KvCache::new(&device, &llama.config, 4).unwrap();
        let mut pass = |rows: &llmar::device::Rows, len: usize| {
            let mut x = device.buffer();
            device.write("test", &mut x, &vec![0.1; len]).unwrap();
            llama.forward(&device, rows, &mut x, &mut cache, &mut Workspace::new(&device), &Control::default())
        };
        let good = golden::causal(0..4);
        assert!(pass(&good, 4 * 64).is_ok());
        assert!(pass(&golden::causal(0..0), 0).is_ok());
        assert!(pass(&good, 3 * 64).is_err());
        let damages: [fn(&mut llmar::device::Rows); 7] = [
            |r| r.position[1] = 1 << 20,
            |r| r.slot[1] = 4,
            |r| r.slot.truncate(3),
            |r| r.ranges[2] = 0..5,
            |r| r.ranges[2] = 3..3,
            |r| r.row_ranges[0] = 3..5,
            |r| r.row_ranges[3] = 2..2,
        ];
        for damage in damages {
            let mut rows = good.clone();
            damage(&mut rows);
            assert!(pass(&rows, 4 * 64).is_err());
        }
    }

    #[test]
    fn a_cancelled_pass_says_so() {
        let (llama, device) = (tiny(), Device::cpu(1).unwrap());
        let mut cache = KvCache::new(&device, &llama.config, 4).unwrap();
        let token = CancelToken::default();
        let control = Control { cancel: Some(token.clone()), deadline: None };
        token.request();
        let mut run = || {
            let mut x = device.buffer();
            device.write("test", &mut x, &[0.1; 256]).unwrap();
            llama.forward(&device, &golden::causal(0..4), &mut x, &mut cache, &mut Workspace::new(&device), &control)
        };
        assert!(matches!(run(), Err(Error::Cancelled)));
        token.clear();
        assert!(run().is_ok());
    }
}
