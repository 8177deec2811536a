//! `llmar bench --device cuda:N`: every figure beside the ceiling that the same run measured.
//!
//! Times come from events on the GPU's stream, medians of five; recognitions a second from the clock, as a program sees them.

use std::io::{Write, stdout};
use std::sync::Arc;
use std::time::{Duration, Instant};

use llmar::control::Control;
use llmar::device::cuda::Cuda;
use llmar::device::{
    AttentionShape, Buffer, Codebook, Conditioning, Device, Geometry, Input, Matrix, Operand, Placed, Rows, Scheme, Store, packed_shapes,
};
use llmar::formats::OwnedClip;
use llmar::llama::{KvCache, Llama, LlamaConfig, Workspace};
use llmar::recognizer::{Model, Options, Recognizer, Timings};

use crate::{Arguments, Failure};

/// Clips of the packed prefill and of the batch, unless asked otherwise.
const CLIPS: usize = 64;
/// Text before a decoding step: about a prompt of this project.
const CONTEXT: usize = 64;

/// A published shape: LLaMA 1's, with positions enough for a prompt.
fn shape(name: &str, vocab: usize) -> Option<LlamaConfig> {
    let config = |hidden_size: usize, intermediate_size, num_hidden_layers, heads: usize| LlamaConfig {
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: hidden_size / heads,
        vocab_size: vocab.max(32_000),
        max_position_embeddings: 2048,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
    };
    match name {
        "llama-7b" => Some(config(4096, 11_008, 32, 32)),
        "llama-13b" => Some(config(5120, 13_824, 40, 40)),
        // For tests of this harness, in seconds where no GPU is.
        "tiny" => Some(LlamaConfig { vocab_size: vocab.max(320), ..config(64, 96, 2, 2) }),
        _ => None,
    }
}

/// One line of the report.
struct Line {
    what: String,
    /// Seconds.
    time: f64,
    /// Seconds that the bytes or the operations need at the measured ceilings.
    floor: f64,
    /// The same as a rate, for reading.
    rate: String,
}

/// What this GPU can do, measured in this run.
struct Ceilings {
    /// Bytes a second, read and written.
    copy: f64,
    /// Operations a second of a large dense f16 product.
    product: f64,
    /// Who did that product.
    by: &'static str,
}

pub fn bench(args: &Arguments, model: &Arc<Model>, clip: &OwnedClip) -> Result<(), Failure> {
    let device = model.placed().device(1)?;
    let Device::Cuda(cuda) = &device else { return Err(Failure::Usage("--device: expected a GPU".into())) };
    let small = args.synthetic.as_deref() == Some("tiny");
    let ceilings = ceilings(cuda, &device, small)?;
    let (batch, prompt) = (args.batch.unwrap_or(CLIPS), args.prompt.unwrap_or(40));
    let (mut lines, mut decodes) = (Vec::new(), Vec::new());

    let schemes = match &args.synthetic {
        Some(_) => vec![Scheme::F16, Scheme::Q8, Scheme::Q4],
        None => vec![model.metadata().scheme],
    };
    for scheme in schemes {
        let model = match &args.synthetic {
            Some(name) => {
                let config = shape(name, model.metadata().llama.vocab_size)
                    .ok_or_else(|| Failure::Usage(format!("--synthetic: expected llama-7b or llama-13b, got `{name}`")))?;
                model.synthetic(config, scheme)?
            }
            None => Arc::clone(model),
        };
        let decode = decode(cuda, &device, &model, &ceilings)?;
        decodes.push((scheme, decode.time));
        lines.push(decode);
        lines.push(prefill(cuda, &device, &model, &ceilings, batch, prompt)?);
        lines.extend(kernels(cuda, &device, &model, &ceilings, batch * prompt)?);
        lines.extend(recognitions(args, &model, &ceilings, clip, batch)?);
    }
    lines.push(quantiser(cuda, &device, &ceilings, if small { (300, 96, 64) } else { (65_536, 5120, 512) })?);
    report(args, model, &ceilings, &lines, &decodes)
}

fn report(args: &Arguments, model: &Model, ceilings: &Ceilings, lines: &[Line], decodes: &[(Scheme, f64)]) -> Result<(), Failure> {
    let speedups: Vec<_> = decodes.iter().skip(1).map(|(scheme, time)| (*scheme, decodes[0].1 / time)).collect();
    let mut out = stdout().lock();
    if args.json {
        let line = |l: &Line| serde_json::json!({"work": l.what, "us": 1e6 * l.time, "floor_us": 1e6 * l.floor, "share_of_floor": l.floor / l.time, "rate": l.rate});
        let document = serde_json::json!({
            "device": model.placed().name(),
            "model": model.metadata().name,
            "synthetic": args.synthetic,
            "ceilings": {"copy_gb_per_s": ceilings.copy / 1e9, "product_tflop_per_s": ceilings.product / 1e12, "product_by": ceilings.by},
            "lines": lines.iter().map(line).collect::<Vec<_>>(),
            "decode_speed_over_f16": speedups.iter().map(|(s, x)| serde_json::json!({"scheme": s, "ratio": x})).collect::<Vec<_>>(),
        });
        return Ok(writeln!(out, "{document:#}")?);
    }
    writeln!(out, "{}, {}", model.placed().name(), args.synthetic.as_deref().unwrap_or(&model.metadata().name))?;
    writeln!(
        out,
        "ceilings, this run: copy {:.0} GB/s, dense f16 product {:.1} TFLOP/s ({})",
        ceilings.copy / 1e9,
        ceilings.product / 1e12,
        ceilings.by
    )?;
    writeln!(out, "{:52} {:>12} {:>12} {:>8}  rate", "work", "µs", "floor µs", "of floor")?;
    for l in lines {
        writeln!(out, "{:52} {:12.1} {:12.1} {:7.0}%  {}", l.what, 1e6 * l.time, 1e6 * l.floor, 100.0 * l.floor / l.time, l.rate)?;
    }
    for (scheme, ratio) in speedups {
        writeln!(out, "decode, {scheme:?} over {:?}: {ratio:.2} x", decodes[0].0)?;
    }
    Ok(())
}

fn ceilings(cuda: &Cuda, device: &Device, small: bool) -> Result<Ceilings, Failure> {
    let (free, _) = cuda.gpu().memory()?;
    let copy = cuda.copy_bandwidth(if small { 1 << 20 } else { (2 << 30).min(free / 4) })?;
    let size = if small { 256 } else { 8192 };
    let (w, x) = (cuda.random_matrix(Scheme::F16, size, size, 1)?, operand(device, size, size)?);
    let mut y = device.buffer();
    device.reserve("product", &mut y, size * size)?;
    let time = cuda.seconds(10, || device.linear(&w, &x, size, &mut y, Store::Overwrite))?;
    let by = if cuda.gpu().has_cublaslt() {
        "cuBLASLt or this library's kernel, the faster one"
    } else {
        "this library's kernel: cuBLASLt is not installed"
    };
    Ok(Ceilings { copy, product: 2.0 * (size as f64).powi(3) / time, by })
}

/// n rows of made-up activations.
fn operand(device: &Device, n: usize, columns: usize) -> Result<Operand, Failure> {
    let values: Vec<f32> = (0..n * columns).map(|i| ((i.wrapping_mul(2_654_435_761) >> 9) % 2001) as f32 / 1000.0 - 1.0).collect();
    let mut operand = device.operand();
    device.write_operand("activations", &mut operand, &values, n, columns)?;
    Ok(operand)
}

/// Bytes of a matrix as its scheme stores it.
fn bytes(m: &Matrix) -> f64 {
    let tensors = packed_shapes(m.scheme(), m.rows, m.cols);
    tensors.iter().map(|(_, element, shape)| (element.size() * shape.iter().product::<usize>()) as f64).sum()
}

fn layer_matrices(llama: &Llama) -> impl Iterator<Item = &Matrix> {
    llama.weights.layers.iter().flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down])
}

/// Multiply-adds of one row through all layers, times two.
fn flop_a_row(llama: &Llama) -> f64 {
    2.0 * layer_matrices(llama).map(|m| m.rows as f64 * m.cols as f64).sum::<f64>()
}

/// One token after [`CONTEXT`] others, its logits included: bytes of weights, keys and values.
fn decode(cuda: &Cuda, device: &Device, model: &Model, ceilings: &Ceilings) -> Result<Line, Failure> {
    let (llama, control) = (model.llama(), Control::default());
    let c = &llama.config;
    let mut cache = KvCache::new(device, c, CONTEXT + 1)?;
    let mut work = Workspace::new(device);
    let (mut x, mut logits) = (device.buffer(), device.buffer());
    // The context's keys and values: what they hold does not matter for the time, but they must be numbers.
    let fill = causal(0, CONTEXT);
    let words = |n: usize| (0..n).map(|i| Input::Word((i * 977 % c.vocab_size) as u32)).collect::<Vec<_>>();
    llama.embed(device, model.quantizer().embeddings(), &words(CONTEXT), &mut x)?;
    llama.forward(device, &fill, &mut x, &mut cache, &mut work, &control)?;
    let rows = causal(CONTEXT, 1);
    let one = words(1);
    let time = cuda.seconds(10, || {
        llama.embed(device, model.quantizer().embeddings(), &one, &mut x)?;
        llama.forward(device, &rows, &mut x, &mut cache, &mut work, &control)?;
        llama.logits(device, &x, &[0], &mut logits, &mut work, &control)
    })?;
    let weights = layer_matrices(llama).chain([&llama.weights.head]).map(bytes).sum::<f64>();
    let kv = (2 * 2 * c.kv_dim() * c.num_hidden_layers * (CONTEXT + 1)) as f64;
    let read = weights + kv;
    Ok(Line {
        what: format!("decode, 1 token behind {CONTEXT}, {:?}", model.metadata().scheme),
        time,
        floor: read / ceilings.copy,
        rate: format!("{:.1} tokens/s, {:.0} GB/s", 1.0 / time, read / time / 1e9),
    })
}

/// Rows of one text from position `from` on.
fn causal(from: usize, n: usize) -> Rows {
    let slots = from as u32..(from + n) as u32;
    Rows {
        position: slots.clone().collect(),
        slot: slots.clone().collect(),
        ranges: slots.map(|s| 0..s + 1).collect(),
        row_ranges: (0..n as u32).map(|i| i..i + 1).collect(),
    }
}

/// Clips packed without padding, no prefix.
fn packed(clips: usize, tokens: usize) -> Rows {
    let mut rows = Rows::default();
    for clip in 0..clips as u32 {
        let start = clip * tokens as u32;
        for i in 0..tokens as u32 {
            rows.position.push(i);
            rows.slot.push(start + i);
            rows.row_ranges.push(start + i..start + i + 1);
            rows.ranges.push(start..start + i + 1);
        }
    }
    rows
}

fn prefill(cuda: &Cuda, device: &Device, model: &Model, ceilings: &Ceilings, clips: usize, tokens: usize) -> Result<Line, Failure> {
    let (llama, control) = (model.llama(), Control::default());
    let (c, n) = (&llama.config, clips * tokens);
    let mut cache = KvCache::new(device, c, n)?;
    let mut work = Workspace::new(device);
    let mut x = device.buffer();
    let rows = packed(clips, tokens);
    let inputs: Vec<Input> = (0..n).map(|i| Input::Word((i * 977 % c.vocab_size) as u32)).collect();
    let time = cuda.seconds(3, || {
        llama.embed(device, model.quantizer().embeddings(), &inputs, &mut x)?;
        llama.forward(device, &rows, &mut x, &mut cache, &mut work, &control)
    })?;
    let flop = flop_a_row(llama) * n as f64;
    Ok(Line {
        what: format!("prefill, {clips} clips x {tokens} tokens, {:?}", model.metadata().scheme),
        time,
        floor: flop / ceilings.product,
        rate: format!("{:.0} tokens/s, {:.1} TFLOP/s", n as f64 / time, flop / time / 1e12),
    })
}

/// Each kernel of one layer: for one row against the bytes of its weights, for many rows against its operations or its bytes.
fn kernels(cuda: &Cuda, device: &Device, model: &Model, ceilings: &Ceilings, many: usize) -> Result<Vec<Line>, Failure> {
    let llama = model.llama();
    let c = &llama.config;
    let layer = &llama.weights.layers[0];
    let scheme = model.metadata().scheme;
    let mut lines = Vec::new();
    for n in [1, many] {
        let mut line = |name: &str, bytes: f64, flop: f64, time: f64| {
            let floor = (bytes / ceilings.copy).max(flop / ceilings.product);
            let rate = format!("{:.0} GB/s, {:.1} TFLOP/s", bytes / time / 1e9, flop / time / 1e12);
            lines.push(Line { what: format!("  {name}, {n} row(s), {scheme:?}"), time, floor, rate });
        };
        let mut normed = operand(device, n, c.hidden_size)?;
        let (mut x, mut qkv, mut gate_up) = (device.buffer(), device.buffer(), device.buffer());
        device.write("residual", &mut x, &vec![0.5; n * c.hidden_size])?;
        device.write("qkv", &mut qkv, &vec![0.1; n * c.qkv_rows()])?;
        device.reserve("gate and up", &mut gate_up, n * 2 * c.intermediate_size)?;
        let (mut attended, mut activated) = (operand(device, n, c.q_dim())?, operand(device, n, c.intermediate_size)?);
        let moved = |m: &Matrix| bytes(m) + (n * (2 * m.cols + 4 * m.rows)) as f64;
        let flop = |m: &Matrix| 2.0 * (m.rows * m.cols) as f64 * n as f64;

        let time = cuda.seconds(20, || device.rms_norm(&x, &layer.attn_norm, c.rms_norm_eps, n, &mut normed))?;
        line("rms_norm", (6 * n * c.hidden_size) as f64, 0.0, time);
        let time = cuda.seconds(20, || device.linear(&layer.qkv, &normed, n, &mut qkv, Store::Overwrite))?;
        line("qkv", moved(&layer.qkv), flop(&layer.qkv), time);
        let rows = if n == 1 { causal(0, 1) } else { packed(n.div_ceil(40), 40.min(n)) };
        let count = rows.position.len();
        let mut staging = device.staging();
        let pass = device.stage(&mut staging, &rows)?;
        let mut kv = device.kv_layer();
        device.reserve_kv(&mut kv, count, c.kv_dim())?;
        let shape = AttentionShape { heads: c.num_attention_heads, kv_heads: c.num_key_value_heads, head_dim: c.head_dim };
        if count == n {
            let time = cuda.seconds(20, || device.rope_append(shape, &llama.weights.rotations, pass, &mut qkv, &mut kv))?;
            line("rope_append", (n * (8 * c.q_dim() + 12 * c.kv_dim())) as f64, 0.0, time);
            let time = cuda.seconds(20, || device.attention(shape, pass, &qkv, &kv, &mut attended))?;
            let pairs: usize = rows.ranges.iter().map(ExactSizeIterator::len).sum();
            line("attention", (n * (6 * c.q_dim() + 4 * c.kv_dim())) as f64, (4 * pairs * c.q_dim()) as f64, time);
        }
        let time = cuda.seconds(20, || device.linear(&layer.o, &attended, n, &mut x, Store::Add))?;
        line("o + residual", moved(&layer.o), flop(&layer.o), time);
        let time = cuda.seconds(20, || device.linear_swiglu(&layer.gate_up, &normed, n, &mut gate_up, &mut activated))?;
        line("gate, up, SwiGLU", moved(&layer.gate_up), flop(&layer.gate_up), time);
        let time = cuda.seconds(20, || device.linear(&layer.down, &activated, n, &mut x, Store::Add))?;
        line("down + residual", moved(&layer.down), flop(&layer.down), time);
    }
    Ok(lines)
}

/// Whole recognitions by the clock: one clip, and a batch, exact top-1.
fn recognitions(args: &Arguments, model: &Arc<Model>, ceilings: &Ceilings, clip: &OwnedClip, batch: usize) -> Result<Vec<Line>, Failure> {
    let budget = Duration::from_secs_f64(args.seconds.unwrap_or(3.0));
    let control = Control::default();
    let mut recognizer = Recognizer::new(Arc::clone(model), Options { top_k: 1, ..Options::default() })?;
    let mut lines = Vec::new();
    for n in [1, batch] {
        let clips = vec![clip.view(); n];
        let mut stages = Timings::default();
        let time = super::bench::best(budget, || {
            stages = recognizer.recognize_batch(&clips, &control)?[0].timings;
            Ok(())
        })?
        .as_secs_f64();
        // Every row through every layer once; one row alone cannot be faster than reading the weights.
        let rows = (stages.prompt_rows + stages.label_rows) as f64;
        let llama = model.llama();
        let weights = layer_matrices(llama).map(bytes).sum::<f64>();
        let floor = (rows * flop_a_row(llama) / ceilings.product).max(2.0 * weights / ceilings.copy);
        lines.push(Line {
            what: format!("recognise {n} clip(s), exact top-1, {:?}", model.metadata().scheme),
            time,
            floor,
            rate: format!("{:.1} recognitions/s, {} prompt rows, {} label rows", n as f64 / time, stages.prompt_rows, stages.label_rows),
        });
    }
    Ok(lines)
}

fn quantiser(cuda: &Cuda, device: &Device, ceilings: &Ceilings, (n, dim, codes): (usize, usize, usize)) -> Result<Line, Failure> {
    let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 9) % 2001) as f32 / 1000.0 - 1.0;
    let scale = 0.6 / (dim as f32 / 3.0).sqrt();
    let points: Vec<f32> = (0..codes * dim).map(|i| scale * value(i)).collect();
    let codebook = device.place_codebook(&Codebook::new(points, codes, dim, Geometry::Poincare { curvature: 1.0 })?)?;
    let mut features: Buffer = device.buffer();
    let values: Vec<f32> = (0..n * dim).map(|i| value(i + 77)).collect();
    device.write("features", &mut features, &values)?;
    drop(values);
    let mut out = vec![0; n];
    let conditioning = Conditioning { gain: 0.05, clip: 1.0 };
    // Its answer comes back to the host: 2 bytes a feature, part of the time.
    let time = cuda.seconds(3, || device.nearest_codes(&codebook, conditioning, &features, &mut out))?;
    let start = Instant::now();
    device.nearest_codes(&codebook, conditioning, &features, &mut out)?;
    let wall = start.elapsed().as_secs_f64();
    let (flop, moved) = (2.0 * (n * dim * codes) as f64, (4 * n * dim) as f64);
    Ok(Line {
        what: format!("quantiser, {n} x {dim} features, {codes} codes"),
        time,
        floor: (flop / ceilings.product).max(moved / ceilings.copy),
        rate: format!("{:.1} M features/s; {:.2} ms with the host", n as f64 / time / 1e6, 1e3 * wall),
    })
}

/// Whether the model lies on a GPU.
pub fn is_gpu(model: &Model) -> bool {
    matches!(model.placed(), Placed::Cuda(_))
}
