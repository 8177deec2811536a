//! `llmar bench`: recognitions and tokens a second, memory, and the floors they stand on, in one run.
//!
//! Figures are the best of many repetitions: the machine's noise only ever adds time.

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use llmar::control::Control;
use llmar::device::{Cpu, Device, Input, Matrix, MatrixData, Rows, Scheme, Store};
use llmar::formats::{OwnedClip, read_clips};
use llmar::llama::{KvCache, Workspace};
use llmar::recognizer::{Model, Options, Recognizer, Timings};

use crate::{Arguments, Failure};

/// Steps of one decoding measurement.
const DECODE_STEPS: usize = 16;
/// Longest prompt measured.
const PROMPT_LIMIT: usize = 4096;

pub fn bench(args: &Arguments) -> Result<(), Failure> {
    let (path, rest) = args.model()?;
    let seconds = args.seconds.unwrap_or(3.0);
    let (threads, batch, prompt) = (args.threads(), args.batch.unwrap_or(16), args.prompt.unwrap_or(40));
    if !(0.001..=600.0).contains(&seconds) {
        return Err(Failure::Usage(format!("--seconds: expected .001 to 600, got {seconds}")));
    }
    if !(1..=4096).contains(&batch) {
        return Err(Failure::Usage(format!("--batch: expected 1 to 4096, got {batch}")));
    }
    let budget = Duration::from_secs_f64(seconds);

    let before = peak_memory();
    let start = Instant::now();
    let model = args.open(path)?;
    let open = start.elapsed();
    let longest = model.metadata().llama.max_position_embeddings.saturating_sub(DECODE_STEPS).min(PROMPT_LIMIT);
    if !(1..=longest).contains(&prompt) {
        return Err(Failure::Usage(format!("--prompt: expected 1 to {longest} for this model, got {prompt}")));
    }
    let owned = match rest {
        [] => waving(&model),
        [file] => read_clips(file)?.into_iter().next().ok_or_else(|| Failure::Usage(format!("{}: holds no clip", file.display())))?,
        [_, extra, ..] => return Err(Failure::Usage(format!("unexpected argument `{}`", extra.display()))),
    };
    #[cfg(feature = "cuda")]
    if crate::bench_gpu::is_gpu(&model) {
        return crate::bench_gpu::bench(args, &model, &owned);
    }
    if args.synthetic.is_some() {
        return Err(Failure::Usage("--synthetic: made-up weights are for a GPU, give --device cuda:0".into()));
    }
    let mut recognizer = Recognizer::new(model.clone(), Options { threads, ..Options::default() })?;

    let clip = owned.view();
    let control = Control::default();
    let (mut stages, mut label) = (Timings::default(), 0);
    let one = best(budget, || {
        let answer = recognizer.recognize(&clip, &control)?;
        (stages, label) = (answer.timings, answer.top[0].label);
        Ok(())
    })?;
    let peak = peak_memory();
    let clips = vec![clip; batch];
    let many = best(budget, || recognizer.recognize_batch(&clips, &control).map(drop))?;
    drop(recognizer);

    let cpu = Cpu::new(threads)?;
    let device = Device::cpu(threads)?;
    let (prefill, decode) = passes(&model, &device, prompt, budget)?;
    let weights = weight_bytes(&model);
    let bandwidth = read_bandwidth(&cpu, weights, budget)?;
    let ceiling = kernel_ceiling(&cpu, model.metadata().scheme, budget)?;

    let flop = 2.0 * matrix_parameters(&model);
    // Every row through every matrix at the kernel's rate, and the head's weights once for the prompt and once for the labels at memory's.
    let head = parts(&model.llama().weights.head).iter().map(|part| part.len()).sum::<usize>() as f64;
    let rows = (stages.prompt_rows + stages.label_rows) as f64;
    let floor = rows * flop / ceiling + 2.0 * head / bandwidth;
    let most = ceiling / (rows * flop); // recognitions a second, in a batch that is large enough
    let report = serde_json::json!({
        "model": model.metadata().name,
        "scheme": model.metadata().scheme,
        "threads": threads,
        "open_ms": ms(open),
        "clip": owned.name,
        "label": model.metadata().labels[label].text,
        "recognition_ms": ms(one),
        "recognitions_per_s": 1.0 / one.as_secs_f64(),
        "batch": batch,
        "batch_recognitions_per_s": batch as f64 / many.as_secs_f64(),
        "stages": {
            "tokenize_ms": stages.tokenize_ns as f64 / 1e6,
            "prompt_ms": stages.prompt_ns as f64 / 1e6, "prompt_rows": stages.prompt_rows,
            "prompt_rows_per_s": stages.prompt_rows as f64 / (stages.prompt_ns.max(1) as f64 / 1e9),
            "label_ms": stages.label_ns as f64 / 1e6, "label_rows": stages.label_rows,
        },
        "prefill_tokens": prompt,
        "prefill_tokens_per_s": prompt as f64 / prefill.as_secs_f64(),
        "decode_tokens_per_s": DECODE_STEPS as f64 / decode.as_secs_f64(),
        "floors": {
            "weight_bytes": weights,
            "read_gb_per_s": bandwidth / 1e9,
            "decode_tokens_per_s": bandwidth / weights as f64,
            "kernel_gflop_per_s": ceiling / 1e9,
            "prefill_tokens_per_s": ceiling / flop,
            "recognition_ms": 1e3 * floor,
            "batch_recognitions_per_s": most,
        },
        "peak_memory_bytes": peak,
        "peak_memory_above_file_bytes": peak.map(|p| p as i64 - model.file_len() as i64),
        "memory_before_open_bytes": before,
    });
    let mut out = stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{report:#}")?);
    }
    let metadata = model.metadata();
    writeln!(out, "{} ({:?}), {threads} thread(s), best of {:.1} s each", metadata.name, metadata.scheme, budget.as_secs_f64())?;
    writeln!(out, "open              {:9.2} ms", ms(open))?;
    writeln!(
        out,
        "one recognition   {:9.2} ms  = tokens {:.2} + prompt {:.2} ({} rows) + labels {:.2} ({} rows)   (floor: {:.2})",
        ms(one),
        stages.tokenize_ns as f64 / 1e6,
        stages.prompt_ns as f64 / 1e6,
        stages.prompt_rows,
        stages.label_ns as f64 / 1e6,
        stages.label_rows,
        1e3 * floor
    )?;
    writeln!(out, "batch of {batch:<3}      {:9.1} recognitions/s   (floor: {most:.1})", batch as f64 / many.as_secs_f64())?;
    writeln!(
        out,
        "prefill {prompt:>4}      {:9.1} tokens/s   (in-cache kernel rate: {:.1})",
        prompt as f64 / prefill.as_secs_f64(),
        ceiling / flop
    )?;
    writeln!(
        out,
        "decode            {:9.1} tokens/s   (memory floor: {:.1}, at {:.1} GB/s)",
        DECODE_STEPS as f64 / decode.as_secs_f64(),
        bandwidth / weights as f64,
        bandwidth / 1e9
    )?;
    match peak {
        Some(p) => Ok(writeln!(out, "peak memory       {:9.1} MB  (checkpoint {:.1} MB)", p as f64 / 1e6, model.file_len() as f64 / 1e6)?),
        None => Ok(writeln!(out, "peak memory       not known on this system")?),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Shortest time of `work`, repeated until `budget` is used up, at least three times.
pub fn best(budget: Duration, mut work: impl FnMut() -> llmar::Result<()>) -> llmar::Result<Duration> {
    let (mut best, start, mut runs) = (Duration::MAX, Instant::now(), 0);
    while runs < 3 || start.elapsed() < budget {
        let from = Instant::now();
        work()?;
        best = best.min(from.elapsed());
        runs += 1;
    }
    Ok(best)
}

/// A made-up 64-frame clip in the model's layout: every joint on its own small circle. How many label rows it takes depends on how sure the
/// model is of it, so give `bench` a real clip where one is at hand.
fn waving(model: &Model) -> OwnedClip {
    let preprocess = &model.metadata().preprocess;
    let (joints, coords) = (preprocess.joints.len(), preprocess.coords);
    let value = |i: usize| {
        let (t, j, c) = (i / (joints * coords), i / coords % joints, i % coords);
        0.1 * j as f32 + 0.2 * (0.1 * t as f32 + j as f32 + 1.6 * c as f32).sin()
    };
    OwnedClip {
        name: "made up".into(),
        joints: (0..64 * joints * coords).map(value).collect(),
        frames: 64,
        persons: 1,
        joints_per_person: joints,
        coords,
        fps: Some(30.0),
        layout: preprocess.layout.clone(),
        valid: None,
    }
}

/// Times of a prompt of `prompt` tokens (logits of its last), and of [`DECODE_STEPS`] single tokens after it.
fn passes(model: &Model, device: &Device, prompt: usize, budget: Duration) -> llmar::Result<(Duration, Duration)> {
    let llama = model.llama();
    let vocab = llama.config.vocab_size;
    let mut cache = KvCache::new(device, &llama.config, prompt + DECODE_STEPS)?;
    let mut work = Workspace::new(device);
    let control = Control::default();
    let (mut x, mut logits) = (device.buffer(), device.buffer());
    let mut pass = |from: usize, n: usize| {
        let inputs: Vec<Input> = (from..from + n).map(|i| Input::Word((i * 977 % vocab) as u32)).collect();
        let slots = from as u32..(from + n) as u32;
        let rows = Rows {
            position: slots.clone().collect(),
            slot: slots.clone().collect(),
            ranges: slots.map(|s| 0..s + 1).collect(),
            row_ranges: (0..n as u32).map(|i| i..i + 1).collect(),
        };
        llama.embed(device, model.quantizer().embeddings(), &inputs, &mut x)?;
        llama.forward(device, &rows, &mut x, &mut cache, &mut work, &control)?;
        llama.logits(device, &x, &[n as u32 - 1], &mut logits, &mut work, &control)?;
        device.synchronize()
    };
    let prefill = best(budget, || pass(0, prompt))?;
    let decode = best(budget, || (0..DECODE_STEPS).try_for_each(|i| pass(prompt + i, 1)))?;
    Ok((prefill, decode))
}

/// Every matrix that one token's pass reads.
fn matrices(model: &Model) -> impl Iterator<Item = &Matrix> {
    let weights = &model.llama().weights;
    weights.layers.iter().flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down]).chain([&weights.head])
}

fn parts(matrix: &Matrix) -> Vec<&[u8]> {
    match &matrix.data {
        MatrixData::F32(w) | MatrixData::F16(w) => vec![w.as_slice()],
        MatrixData::Q8 { q, scale } => vec![q.as_slice(), scale.as_slice()],
        MatrixData::Q4 { q, scale, min } => vec![q.as_slice(), scale.as_slice(), min.as_slice()],
    }
}

fn weight_bytes(model: &Model) -> usize {
    matrices(model).flat_map(parts).map(<[u8]>::len).sum()
}

/// Parameters that each token of a prompt is multiplied with: all but the head's, which only its last token needs.
fn matrix_parameters(model: &Model) -> f64 {
    let layers = &model.llama().weights.layers;
    layers.iter().flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down]).map(|m| m.rows as f64 * m.cols as f64).sum()
}

/// Bytes a second at which the device's threads read memory as large as the model's weights, doing nothing with them.
fn read_bandwidth(cpu: &Cpu, bytes: usize, budget: Duration) -> llmar::Result<f64> {
    let values = vec![1.0f32; bytes / size_of::<f32>()];
    let time = best(budget, || {
        cpu.read(&values);
        Ok(())
    })?;
    Ok(bytes as f64 / time.as_secs_f64())
}

/// Operations a second of the scheme's own kernel on a matrix that stays in the cache: what the prompt pass could reach if nothing else took time.
fn kernel_ceiling(cpu: &Cpu, scheme: Scheme, budget: Duration) -> llmar::Result<f64> {
    let (rows, cols, n) = (512, 512, 48);
    let weights: Vec<f32> = (0..rows * cols).map(|i| ((i * 31 % 97) as f32 - 48.0) / 97.0).collect();
    let matrix = Matrix::pack(scheme, rows, cols, &weights);
    let x: Vec<f32> = (0..n * cols).map(|i| ((i * 17 % 89) as f32 - 44.0) / 89.0).collect();
    let mut y = vec![0.0; n * rows];
    let time = best(budget, || {
        cpu.linear(&matrix, &x, n, &mut y, Store::Overwrite);
        Ok(())
    })?;
    Ok((2 * rows * cols * n) as f64 / time.as_secs_f64())
}

/// Largest resident memory of this process so far, in bytes; Linux only.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
