//! Golden outputs of LLaMA models, as `shared/golden` holds them, and their comparison with this library's forward pass.

// Every test crate that includes this file uses another part of it.
#![allow(dead_code, reason = "shared by several test crates")]

use std::collections::BTreeMap;
use std::ops::Range;

use llmar::control::Control;
use llmar::device::{Buffer, Cpu, Device, Input, Matrix, Rows, Scheme, Store, Vector};
use llmar::llama::{KvCache, Llama, Workspace};
use serde::Deserialize;

use crate::shared::shared;

/// One golden file.
#[derive(Deserialize)]
pub struct Golden {
    /// SHA-256 of the safetensors file that it was computed from.
    pub model_safetensors_sha256: String,
    pub prompts: Vec<Prompt>,
    pub intermediates: Intermediates,
}

/// Top logits after a prompt, and its greedy continuation.
#[derive(Deserialize)]
pub struct Prompt {
    pub name: String,
    pub ids: Vec<u32>,
    pub next_top10: Vec<Logit>,
    pub greedy_ids: Vec<u32>,
}

#[derive(Deserialize)]
pub struct Logit {
    pub id: u32,
    pub logit: f64,
}

/// Rows of named tensors on the way through the model.
#[derive(Deserialize)]
pub struct Intermediates {
    pub ids: Vec<u32>,
    /// Per name one entry a position.
    pub taps: BTreeMap<String, Vec<Tap>>,
    pub layer_out_l2_last_pos: Vec<f64>,
    pub argmax_per_position: Vec<Logit>,
}

#[derive(Deserialize)]
pub struct Tap {
    pub l2: f64,
    pub head: Vec<f64>,
    pub tail: Vec<f64>,
}

/// A golden file of the shared folder; `None`, after saying so, where there is none.
pub fn load(test: &str, file: &str) -> Option<Golden> {
    let path = shared(test, &format!("golden/{file}"))?;
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).expect("a golden file"))
}

/// Rows in consecutive slots and positions, each seeing all before it.
pub fn causal(range: Range<u32>) -> Rows {
    Rows {
        position: range.clone().collect(),
        slot: range.clone().collect(),
        ranges: range.clone().map(|slot| 0..slot + 1).collect(),
        row_ranges: (0..range.len() as u32).map(|i| i..i + 1).collect(),
    }
}

/// Values that lie on a device.
pub fn read(device: &Device, buffer: &Buffer, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    device.read(buffer, &mut values).unwrap();
    values
}

/// Embeddings [n, hidden] of a text's tokens.
pub fn embed(llama: &Llama, device: &Device, ids: &[u32], x: &mut Buffer) {
    let inputs: Vec<Input> = ids.iter().map(|&id| Input::Word(id)).collect();
    llama.embed(device, &Vector::of(&[]), &inputs, x).unwrap();
}

/// Residual stream [n, hidden] after all layers of `llama`, for a text from its beginning.
fn residual(llama: &Llama, device: &Device, ids: &[u32], cache: &mut KvCache) -> Buffer {
    let mut x = device.buffer();
    embed(llama, device, ids, &mut x);
    let rows = causal(0..ids.len() as u32);
    llama.forward(device, &rows, &mut x, cache, &mut Workspace::new(device), &Control::default()).unwrap();
    x
}

fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

/// Largest |logit − golden| over the ten best of every prompt; the greedy continuation of every prompt but `lossy` must be equal.
pub fn worst_logit(llama: &Llama, device: &Device, golden: &Golden, lossy: &[&str]) -> f64 {
    let vocab = llama.config.vocab_size;
    let mut worst = 0.0_f64;
    for prompt in &golden.prompts {
        let n = prompt.ids.len();
        let mut cache = KvCache::new(device, &llama.config, n + prompt.greedy_ids.len()).unwrap();
        let mut x = residual(llama, device, &prompt.ids, &mut cache);
        let mut workspace = Workspace::new(device);
        let mut head = device.buffer();
        let mut logits_of = |x: &Buffer, row: usize, workspace: &mut Workspace| {
            llama.logits(device, x, &[row as u32], &mut head, workspace, &Control::default()).unwrap();
            read(device, &head, vocab)
        };
        let mut logits = logits_of(&x, n - 1, &mut workspace);
        for want in &prompt.next_top10 {
            worst = worst.max((f64::from(logits[want.id as usize]) - want.logit).abs());
        }
        if lossy.contains(&&prompt.name[..]) {
            continue;
        }
        for (step, &want) in prompt.greedy_ids.iter().enumerate() {
            assert_eq!(argmax(&logits), want, "prompt {}, token {step} of the greedy continuation", prompt.name);
            let at = (n + step) as u32;
            embed(llama, device, &[want], &mut x);
            llama.forward(device, &causal(at..at + 1), &mut x, &mut cache, &mut workspace, &Control::default()).unwrap();
            logits = logits_of(&x, 0, &mut workspace);
        }
    }
    worst
}

/// Largest difference of any intermediate row, as a share of the row's norm.
pub fn worst_intermediate(llama: &Llama, device: &Device, golden: &Golden) -> f64 {
    let c = &llama.config;
    let Intermediates { ids, taps, .. } = &golden.intermediates;
    let (n, hidden) = (ids.len(), c.hidden_size);
    let out_of_layers = |count: usize| {
        let mut cut = llama.clone();
        cut.weights.layers.truncate(count);
        cut.config.num_hidden_layers = count;
        let mut cache = KvCache::new(device, &cut.config, n).unwrap();
        let x = residual(&cut, device, ids, &mut cache);
        read(device, &x, n * hidden)
    };
    // The same kernels that the device's ops run, where a step between two ops is looked at.
    let cpu = Cpu::new(1).unwrap();
    let normed = |x: &[f32], weight: &Vector| {
        let mut y = vec![0.0; x.len()];
        cpu.rms_norm(x, weight.values(), c.rms_norm_eps, &mut y);
        y
    };
    // Columns of q, k and v in layer 0, after RoPE.
    let mut x = device.buffer();
    embed(llama, device, ids, &mut x);
    let embedded = read(device, &x, n * hidden);
    let first = &llama.weights.layers[0];
    let mut qkv = vec![0.0; n * c.qkv_rows()];
    cpu.linear(&first.qkv, &normed(&embedded, &first.attn_norm), n, &mut qkv, Store::Overwrite);
    let positions: Vec<u32> = (0..n as u32).collect();
    let turned = c.num_attention_heads + c.num_key_value_heads;
    cpu.rope(&mut qkv, c.qkv_rows(), turned, c.head_dim, &positions, c.rope_theta);
    let columns = |range: Range<usize>| qkv.chunks_exact(c.qkv_rows()).flat_map(|row| row[range.clone()].to_vec()).collect::<Vec<_>>();

    let mut worst = 0.0_f64;
    for (name, want) in taps {
        let got = match &name[..] {
            "embed" => embedded.clone(),
            "layer0_q_rope" => columns(0..c.q_dim()),
            "layer0_k_rope" => columns(c.q_dim()..c.q_dim() + c.kv_dim()),
            "layer0_v" => columns(c.q_dim() + c.kv_dim()..c.qkv_rows()),
            "layer0_after_attn" => {
                // A layer whose feed-forward network adds nothing.
                let mut cut = llama.clone();
                cut.weights.layers.truncate(1);
                cut.config.num_hidden_layers = 1;
                let nothing = vec![0.0; hidden * c.intermediate_size];
                cut.weights.layers[0].down = Matrix::pack(Scheme::F32, hidden, c.intermediate_size, &nothing);
                let mut cache = KvCache::new(device, &cut.config, n).unwrap();
                let x = residual(&cut, device, ids, &mut cache);
                read(device, &x, n * hidden)
            }
            "final_norm" => normed(&out_of_layers(c.num_hidden_layers), &llama.weights.norm),
            layer => {
                let number = layer.strip_prefix("layer").and_then(|l| l.strip_suffix("_out")).and_then(|l| l.parse::<usize>().ok());
                out_of_layers(number.unwrap_or_else(|| panic!("unknown intermediate {layer}")) + 1)
            }
        };
        let width = got.len() / n;
        assert_eq!(want.len(), n, "{name}");
        for (row, want) in got.chunks_exact(width).zip(want) {
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let head = row.iter().zip(&want.head);
            let tail = row[width - want.tail.len()..].iter().zip(&want.tail);
            let each = head.chain(tail).map(|(&got, want)| (f64::from(got) - want).abs());
            worst = each.chain([(norm - want.l2).abs()]).map(|error| error / want.l2).fold(worst, f64::max);
        }
    }
    for (i, want) in golden.intermediates.layer_out_l2_last_pos.iter().enumerate() {
        let last = &out_of_layers(i + 1)[(n - 1) * hidden..];
        let norm = last.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        worst = worst.max((norm - want).abs() / want);
    }
    let (mut x, mut head) = (device.buffer(), device.buffer());
    device.write("test", &mut x, &out_of_layers(c.num_hidden_layers)).unwrap();
    let every: Vec<u32> = (0..n as u32).collect();
    llama.logits(device, &x, &every, &mut head, &mut Workspace::new(device), &Control::default()).unwrap();
    let logits = read(device, &head, n * c.vocab_size);
    for (row, want) in logits.chunks_exact(c.vocab_size).zip(&golden.intermediates.argmax_per_position) {
        assert_eq!(argmax(row), want.id);
    }
    worst
}
