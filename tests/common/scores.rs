//! Scores of labels the long way, as an oracle for the recogniser.

// Every test crate that includes this file uses another part of it.
#![allow(dead_code, reason = "shared by several test crates")]

use llmar::control::Control;
use llmar::device::{Device, Input, Matrix, Scheme};
use llmar::llama::{KvCache, Llama, Workspace};
use llmar::motion::ActionSentence;
use llmar::recognizer::Model;

use crate::golden::{causal, read};

/// log p(label, EOS | prompt) the long way: the whole text of each label from its first token, in a cache of its own.
pub fn spelled_out(
    llama: &Llama,
    model: &Model,
    prefix: &[u32],
    sentence: &ActionSentence,
    suffix: &[u32],
    labels: &[Vec<u32>],
) -> Vec<f64> {
    let device = Device::cpu(1).unwrap();
    let vocab = llama.config.vocab_size;
    let eos = model.metadata().prompt.eos_id;
    let words = |ids: &[u32]| ids.iter().map(|&id| Input::Word(id)).collect::<Vec<_>>();
    let score = |label: &Vec<u32>| {
        let mut inputs = words(prefix);
        inputs.extend(sentence.tokens.iter().map(|&t| Input::Code(t)));
        inputs.extend(words(suffix));
        let prompt = inputs.len();
        inputs.extend(words(label));
        let n = inputs.len();
        let mut cache = KvCache::new(&device, &llama.config, n).unwrap();
        let mut workspace = Workspace::new(&device);
        let (mut x, mut head) = (device.buffer(), device.buffer());
        llama.embed(&device, model.quantizer().embeddings(), &inputs, &mut x).unwrap();
        llama.forward(&device, &causal(0..n as u32), &mut x, &mut cache, &mut workspace, &Control::default()).unwrap();
        let rows: Vec<u32> = (0..n as u32).collect();
        llama.logits(&device, &x, &rows, &mut head, &mut workspace, &Control::default()).unwrap();
        let logits = read(&device, &head, n * vocab);
        let log_p = |row: usize, id: u32| {
            let row = &logits[row * vocab..(row + 1) * vocab];
            let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
            f64::from(row[id as usize]) - sum.ln()
        };
        label.iter().chain([&eos]).enumerate().map(|(i, &id)| log_p(prompt - 1 + i, id)).sum()
    };
    labels.iter().map(score).collect()
}

/// The model with its weights as f32 numbers: what a quantised model stands for, without rounding of activations.
pub fn dequantised(llama: &Llama) -> Llama {
    let plain = |w: &Matrix| {
        let mut values = vec![0.0; w.rows * w.cols];
        values.chunks_exact_mut(w.cols).enumerate().for_each(|(row, out)| w.row(row, out));
        Matrix::pack(Scheme::F32, w.rows, w.cols, &values)
    };
    let mut exact = llama.clone();
    let weights = &mut exact.weights;
    (weights.embed, weights.head) = (plain(&weights.embed), plain(&weights.head));
    for layer in &mut weights.layers {
        (layer.qkv, layer.o, layer.gate_up, layer.down) = (plain(&layer.qkv), plain(&layer.o), plain(&layer.gate_up), plain(&layer.down));
    }
    exact
}
