//! How fast both stages train on this machine, how much of that is matrix products, and whether a step ever waits for its data:
//! `make bench-training`. Short runs of the demo adapter's settings, then the products of one step alone, same shapes and precision, same run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use llmar_train::artifacts::{self, BaseMeta};
use llmar_train::settings::{Setting, read_config};
use llmar_train::{Error, Result, lora, vqvae};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Repetitions of the products; the fastest counts, as noise only adds.
const ROUNDS: usize = 7;

fn main() -> Result<()> {
    // Paths in the settings are the repository's.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::set_current_dir(&root).map_err(Error::io(&root))?;
    let base = std::env::args()
        .nth(1)
        .filter(|arg| !arg.starts_with('-'))
        .map_or_else(|| PathBuf::from("target/demo/base.safetensors"), PathBuf::from);
    let folder = PathBuf::from("target/bench-training");
    let configs = Path::new("llmar-train/configs");
    let sets = |sets: &[&str]| -> Vec<Setting> { sets.iter().filter_map(|set| set.parse().ok()).collect() };
    let stage1: vqvae::Config =
        read_config(&configs.join("utd-mhad-stage1.toml"), &sets(&["features.steps=80", "codes.steps=40", "snapshot_steps=0"]))?;
    let first = vqvae::train(&stage1, &folder.join("stage1"), false)?;
    println!("| | one step | products of it alone | share | waited for data |\n|---|---|---|---|---|");
    row("stage 1, 32 clips, f32", 1.0 / figure(&first, "steps_per_second"), convolutions(&stage1)?, &first);
    for precision in ["f32", "bf16"] {
        let set = format!("precision={precision}");
        let mut stage2: lora::Config =
            read_config(&configs.join("utd-mhad-stage2.toml"), &sets(&[&set, "train.steps=12", "snapshot_steps=0"]))?;
        stage2.base.clone_from(&base);
        stage2.stage1 = folder.join("stage1/stage1.safetensors");
        let second = lora::train(&stage2, &folder.join(precision), false, false)?;
        let step = stage2.train.batch as f64 / figure(&second, "samples_per_second");
        row(&format!("stage 2, {} clips, {precision}", stage2.train.batch), step, products(&stage2)?, &second);
        println!("| ({:.2} samples/s) | | | | |", figure(&second, "samples_per_second"));
    }
    Ok(())
}

fn figure(summary: &Value, name: &str) -> f64 {
    summary[name].as_f64().unwrap_or(f64::NAN)
}

fn row(name: &str, step: f64, products: f64, summary: &Value) {
    let waited = 100.0 * figure(summary, "waited_for_data");
    println!("| {name} | {:.1} ms | {:.1} ms | {:.0} % | {waited:.1} % |", 1e3 * step, 1e3 * products, 100.0 * products / step);
}

/// Fastest of some rounds, seconds.
fn fastest(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(once).fold(f64::INFINITY, f64::min)
}

/// Forward and backward passes of every convolution of the encoder: what a step without reconstruction multiplies.
fn convolutions(config: &vqvae::Config) -> Result<f64> {
    let (_, _, preprocess) = vqvae::ClipSet::read_and_measure(&config.data, &config.input)?;
    let shape = llmar::motion::EncoderConfig {
        inputs: preprocess.features(),
        width: config.encoder.width,
        halvings: config.encoder.halvings,
        dilations: config.encoder.dilations.clone(),
        outputs: config.encoder.dim,
        causal: config.encoder.causal,
    };
    let mut frames = config.input.frames as i64;
    let mut sum = 0.0;
    for conv in shape.convs() {
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let x = random(&[config.features.batch as i64, conv.c_in as i64, frames]);
        let weight = random(&[conv.c_out as i64, conv.c_in as i64, conv.kernel as i64]);
        let pass = || {
            let y = x.conv1d(&weight, None::<&Tensor>, conv.stride as i64, conv.left as i64, conv.dilation as i64, 1);
            y.sum(Kind::Float).backward();
        };
        sum += fastest(pass);
        frames /= conv.stride as i64;
    }
    Ok(sum)
}

/// Forward products and those of the gradients of rows, of every matrix of the language model, for one batch in one pass.
fn products(config: &lora::Config) -> Result<f64> {
    let base = artifacts::open::<BaseMeta>(&config.base)?;
    let c = &base.meta.config;
    // 7 rows of prefix, then 16 tokens, 8 words and the longest answer of each clip; logits of 4 rows a clip.
    let (rows, kept) = ((7 + config.train.batch * 28) as i64, (4 * config.train.batch) as i64);
    let (hidden, inner) = (c.hidden_size as i64, c.intermediate_size as i64);
    let (q, kv) = ((c.num_attention_heads * c.head_dim) as i64, (c.num_key_value_heads * c.head_dim) as i64);
    let kind = config.precision.kind();
    let mut sum = 0.0;
    let layers = c.num_hidden_layers as f64;
    let matrices = [
        (rows, hidden, q + 2 * kv, layers),
        (rows, q, hidden, layers),
        (rows, hidden, 2 * inner, layers),
        (rows, inner, hidden, layers),
        (kept, hidden, c.vocab_size as i64, 1.0),
    ];
    for (rows, cols, out, times) in matrices {
        let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
        let (x, weight, gradient) = (random([rows, cols]), random([out, cols]), random([rows, out]));
        let pass = || {
            let _ = x.linear::<&Tensor>(&weight, None);
            let _ = gradient.matmul(&weight);
        };
        sum += times * fastest(pass);
    }
    if sum > 0.0 { Ok(sum) } else { Err(Error::format("products", "no time at all")) }
}
