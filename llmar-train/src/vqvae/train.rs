//! The stage-1 run: two phases, snapshots, final measurements, `stage1.safetensors`, and `decoder.safetensors` of a run that reconstructs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use llmar::motion::{EncoderConfig, QuantizerConfig};
use llmar::skeleton::{Preprocess, Resample};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::codebook::{self, Codebook};
use super::config::{Config, Phase};
use super::dataset::ClipSet;
use super::live::{Batch as WindowBatch, Clips as Streams};
use super::losses::{Batch, Objective, Spoken};
use super::measure::{LENGTHS, Told, told};
use super::model::{Decoder, Encoder, Head, segment_means};
use super::parts::Parts;
use super::probe;
use crate::artifacts::{self, BaseMeta, DecoderMeta, Opened, Stage1Meta, Store, WORD_MAP};
use crate::cli::VqvaeArgs;
use crate::error::{Error, Result};
use crate::health::Health;
use crate::torch::{self, AdamW, Group, Metrics, Params, Rng, State, setting, tensor, values};

/// Name of the artifact in a run's folder.
const ARTIFACT: &str = "stage1.safetensors";
/// Name of the decoder beside it.
const DECODER: &str = "decoder.safetensors";
/// Name of the snapshot in a run's folder.
const SNAPSHOT: &str = "stage1.state";

/// The command `vqvae`.
pub fn run(args: &VqvaeArgs) -> Result<()> {
    let config: Config = crate::settings::read_config(&args.config, &args.set)?;
    let summary = train(&config, &args.out, args.resume)?;
    println!("{summary:#}");
    Ok(())
}

/// Trains a tokenizer into the folder `out` and returns its final measurements. With `resume`, goes on from the folder's snapshot; an
/// interrupted and resumed run ends in the same file as one that was left alone.
pub fn train(config: &Config, out: &Path, resume: bool) -> Result<Value> {
    config.check()?;
    let device = torch::start(&config.device, config.threads)?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let mut inputs = vec![("archive", artifacts::file_digest(&config.data.archive)?)];
    if config.losses.mmd > 0.0 {
        inputs.push(("mmd_base", artifacts::open::<BaseMeta>(&config.losses.mmd_base)?.meta.source_sha256));
    }
    if let Some(start) = &config.encoder.start {
        inputs.push(("start", artifacts::file_digest(start)?));
    }
    let settings = torch::identity(config, &inputs)?;
    let snapshot = if resume { State::read(&out.join(SNAPSHOT))? } else { None };
    if let Some(state) = &snapshot
        && state.settings != settings
    {
        return Err(setting("--resume", "the settings and input files the run was begun with", "others"));
    }
    let clips = Clips::read(config)?;
    let mut run = Run::new(config, &clips, device)?;
    let done = match &snapshot {
        Some(state) => run.restore(state)?,
        None => 0,
    };
    let mut metrics = Metrics::open(&out.join("metrics.jsonl"), done)?;
    let bar = torch::progress("stage 1", run.steps());
    let (start, steps) = (Instant::now(), run.steps());
    let waited = torch::prefetched(
        done..steps,
        |step| clips.of_step(step),
        |source| {
            for step in done..steps {
                let line = run.step(step, source.take()?)?;
                bar.set_position(step as u64 + 1);
                bar.set_message(line["loss"].as_f64().map_or_else(String::new, |loss| format!("loss {loss:.3}")));
                metrics.write(&line)?;
                if config.snapshot_steps > 0 && (step + 1).is_multiple_of(config.snapshot_steps) {
                    run.snapshot(step + 1, settings.clone()).write(&out.join(SNAPSHOT))?;
                }
            }
            Ok(source.waited())
        },
    )?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let mut summary = run.finish(&out.join(ARTIFACT))?;
    metrics.write(&summary)?;
    // Of this call alone, and never the same twice: not for the metrics.
    summary["steps_per_second"] = json!((steps - done) as f64 / seconds);
    summary["waited_for_data"] = json!(waited.as_secs_f64() / seconds);
    Ok(summary)
}

/// The clips of a run and how they are prepared.
struct Clips<'a> {
    config: &'a Config,
    preprocess: Preprocess,
    train: ClipSet,
    validation: ClipSet,
    /// Stage 1 whose encoder training starts from.
    start: Option<Opened<Stage1Meta>>,
}

/// The preparation of the stage 1 that training starts from, statistics included: its encoder reads inputs on their scale.
fn prepared_alike(own: &Preprocess, start: &Preprocess) -> Result<Preprocess> {
    let Preprocess { mean, position_spread, velocity_spread, .. } = start.clone();
    let taken = Preprocess { mean, position_spread, velocity_spread, ..own.clone() };
    if taken == *start { Ok(taken) } else { Err(setting("encoder.start", "a stage 1 that prepares clips as `input` says", "another")) }
}

/// What one step works on.
struct Step {
    /// [batch · frames · inputs]
    inputs: Vec<f32>,
    /// [batch]
    labels: Vec<i64>,
    /// What the windows of a live model show.
    windows: Option<WindowBatch>,
}

impl<'a> Clips<'a> {
    fn read(config: &'a Config) -> Result<Self> {
        let (train, validation, mut preprocess) = ClipSet::read_and_measure(&config.data, &config.input)?;
        let start = config.encoder.start.as_ref().map(|path| artifacts::open::<Stage1Meta>(path)).transpose()?;
        if let Some(start) = &start {
            preprocess = prepared_alike(&preprocess, &start.meta.preprocess)?;
        }
        Ok(Self { config, preprocess, train, validation, start })
    }

    /// Changed training clips of a step; `step` counts through both phases.
    fn of_step(&self, step: usize) -> Result<Step> {
        let config = self.config;
        let first = config.features.steps;
        let (name, done, batch) =
            if step < first { ("features", step, config.features.batch) } else { ("codes", step - first, config.codes.batch) };
        let clips = Rng::batch(config.seed, name, done, batch, self.train.len());
        self.changed(&clips, &mut Rng::new(config.seed, "clips", step as u64))
    }

    /// Changed training clips, or windows that end in or after them.
    fn changed(&self, clips: &[usize], rng: &mut Rng) -> Result<Step> {
        let (augment, preprocess) = (&self.config.augment, &self.preprocess);
        if let Some(streams) = self.train.streams(1 << self.config.encoder.halvings) {
            let batch = streams.batch(augment, preprocess, clips, rng)?;
            let labels = batch.labels.iter().map(|label| *label as i64).collect();
            return Ok(Step { inputs: batch.inputs.concat(), labels, windows: Some(batch) });
        }
        let mut step = Step { inputs: Vec::new(), labels: Vec::new(), windows: None };
        for clip in clips {
            step.inputs.extend(self.train.augmented(augment, preprocess, *clip, rng)?);
            step.labels.push(self.train.labels()[*clip] as i64);
        }
        Ok(step)
    }

    /// As a tensor [clips, frames, inputs]; all of one length.
    fn tensor(&self, clips: usize, inputs: &[f32], device: Device) -> Tensor {
        tensor(inputs, &[clips as i64, -1, self.preprocess.features() as i64], device)
    }
}

struct Run<'a> {
    config: &'a Config,
    clips: &'a Clips<'a>,
    params: Params,
    encoder: Encoder,
    codebook: Codebook,
    objective: Objective,
    optimiser: AdamW,
}

impl<'a> Run<'a> {
    fn new(config: &'a Config, clips: &'a Clips<'a>, device: Device) -> Result<Self> {
        let shape = EncoderConfig {
            inputs: clips.preprocess.features(),
            width: config.encoder.width,
            halvings: config.encoder.halvings,
            dilations: config.encoder.dilations.clone(),
            outputs: config.encoder.dim,
            causal: config.encoder.causal,
        };
        let mut params = Params::new(device, config.seed);
        let gain = clips.start.as_ref().map_or(config.quantizer.gain, |start| start.meta.quantizer.gain);
        let mut encoder = Encoder::new(&mut params, &shape, config.encoder.members, gain, config.quantizer.clip);
        if let Some(start) = &clips.start {
            if start.meta.encoder != shape {
                return Err(setting("encoder.start", format!("a stage 1 of the shape {shape:?}"), format!("{:?}", start.meta.encoder)));
            }
            encoder.import(|name, shape| start.floats(name, shape))?;
        }
        let codebook = Codebook::new(&mut params, &config.quantizer, config.encoder.dim);
        let objective = Objective::new(&mut params, config, &shape, clips.train.classes.len())?;
        let optimiser = optimiser(&params, &config.features);
        Ok(Self { config, clips, params, encoder, codebook, objective, optimiser })
    }

    fn steps(&self) -> usize {
        self.config.features.steps + self.config.codes.steps
    }

    fn restore(&mut self, state: &State) -> Result<usize> {
        self.params.restore(&state.tensors, "params.")?;
        self.codebook.restore(&state.tensors)?;
        self.optimiser = optimiser(&self.params, &self.config.features);
        // At the very end of phase one the moments are about to be dropped anyway.
        if state.step > self.config.features.steps {
            self.optimiser = optimiser(&self.params, &self.config.codes);
        }
        self.optimiser.restore(&self.params, &state.tensors)?;
        Ok(state.step)
    }

    fn snapshot(&self, step: usize, settings: String) -> State {
        let mut tensors: BTreeMap<String, Tensor> =
            self.params.entries().map(|(name, t)| (format!("params.{name}"), t.shallow_clone())).collect();
        tensors.extend(self.codebook.state());
        tensors.extend(self.optimiser.state(&self.params));
        State { step, settings, tensors, notes: BTreeMap::new() }
    }

    /// One step; `step` counts through both phases.
    fn step(&mut self, step: usize, data: Step) -> Result<Value> {
        let config = self.config;
        let first = config.features.steps;
        let (phase, done) = if step < first { (&config.features, step) } else { (&config.codes, step - first) };
        if step == first {
            self.begin_codes()?;
        }
        let mut rng = Rng::new(config.seed, "step", step as u64);
        tch::manual_seed(rng.torch_seed());
        let name = if step < first { "features" } else { "codes" };
        let device = self.params.device();
        let inputs = self.clips.tensor(data.labels.len(), &data.inputs, device);
        let labels = Tensor::from_slice(&data.labels).to_device(device);
        let parts = data.windows.map(|windows| Parts::new(&windows, config.losses.head_segments, device));
        let features = self.encoder.forward(&inputs);
        let spoken = parts.as_ref().map_or(Spoken::Whole(&labels), Spoken::Parts);
        let batch = Batch { inputs: &inputs, spoken, features: &features };
        let (sum, nearest) = if step < first {
            (self.objective.of_features(&batch), None)
        } else {
            let (sum, nearest) = self.objective.of_codes(&batch, &self.codebook, done, &mut rng);
            (sum, Some(nearest))
        };
        let Some(total) = sum.total() else { return Err(setting("losses", "a weight above 0 in this phase", "none")) };
        total.backward();
        let loss = torch::number(total);
        if !loss.is_finite() {
            return Err(Error::format("training", format!("the loss of step {step} is {loss}")));
        }
        let (factor, beta1) = phase.schedule.at(done, phase.steps);
        let norm = self.optimiser.step(&self.params, phase.lr * factor, beta1, phase.clip);
        let mut line =
            json!({ "step": step + 1, "phase": name, "loss": loss, "lr": phase.lr * factor, "grad_norm": norm, "parts": sum.parts });
        if let Some(nearest) = nearest {
            let dim = config.encoder.dim as i64;
            self.codebook.follow(&features.reshape([-1, dim]), &nearest, done, phase.steps, &mut rng);
            line["resets"] = self.codebook.resets().into();
        }
        Ok(line)
    }

    /// Between the phases: the codebook starts from the features, the optimiser anew.
    fn begin_codes(&mut self) -> Result<()> {
        let mut rng = Rng::new(self.config.seed, "kmeans", 0);
        let mut features = Vec::new();
        for _ in 0..self.config.quantizer.kmeans_passes.max(1) {
            let clips: Vec<usize> = (0..self.clips.train.len()).collect();
            for part in clips.chunks(64) {
                let inputs = self.clips.tensor(part.len(), &self.clips.changed(part, &mut rng)?.inputs, self.params.device());
                features.push(tch::no_grad(|| self.encoder.forward(&inputs).flatten(0, 1)));
            }
        }
        self.codebook.start(&Tensor::cat(&features, 0), &mut rng);
        self.optimiser = optimiser(&self.params, &self.config.codes);
        Ok(())
    }

    /// Of all plain clips of a set: features and the codes they become [clips, w, dim], and the tokens. Sentences of live models, which are of any
    /// length, are told by the means of their segments, [clips, segments, dim].
    fn plain_sentences(&self, set: &ClipSet, codes: &Tensor) -> Result<(Tensor, Tensor, Vec<u16>)> {
        let clips = (0..set.len()).map(|clip| set.plain(&self.clips.preprocess, clip)).collect::<Result<Vec<_>>>()?;
        let live = matches!(self.clips.preprocess.resample, Resample::Live { .. });
        let (segments, dim) = (self.config.losses.head_segments as i64, self.config.encoder.dim as i64);
        let pooled = |x: Tensor| if live { segment_means(&x, segments).view([-1, segments, dim]) } else { x };
        let (mut all, mut all_codes, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for part in clips.chunks(64).flat_map(|part| part.chunk_by(|a, b| a.len() == b.len())) {
            let inputs = self.clips.tensor(part.len(), &part.concat(), self.params.device());
            let features = tch::no_grad(|| self.encoder.forward(&inputs));
            let nearest = self.codebook.quantize(&features.flatten(0, 1)).0;
            tokens.extend(Vec::<i64>::try_from(&nearest)?.into_iter().map(|t| t as u16));
            all_codes.push(pooled(codes.index_select(0, &nearest).view_as(&features)));
            all.push(pooled(features));
        }
        Ok((Tensor::cat(&all, 0), Tensor::cat(&all_codes, 0), tokens))
    }

    /// What the head says of the codes of windows where it is told when what it is asked about began.
    fn windows(&self, streams: &Streams<'_>, head: &Head, codes: &Tensor) -> Result<Told> {
        let mut all = Vec::new();
        for tokens in LENGTHS {
            let batch = streams.unchanged(&self.clips.preprocess, tokens)?;
            let inputs = self.clips.tensor(batch.inputs.len(), &batch.inputs.concat(), self.params.device());
            let features = tch::no_grad(|| self.encoder.forward(&inputs));
            let nearest = self.codebook.quantize(&features.flatten(0, 1)).0;
            let parts = Parts::new(&batch, self.config.losses.head_segments, self.params.device());
            let said = head.read(&parts.means(&codes.index_select(0, &nearest).view_as(&features))).argmax(-1, false);
            let said = Vec::<i64>::try_from(&said)?;
            let last = parts.ends.iter().zip(said).filter_map(|(window, said)| Some((usize::try_from(*window).ok()?, said)));
            all.extend(last.map(|(window, said)| (features.size()[1] as usize, batch.labels[window], said as usize)));
        }
        Ok(told(&all, streams.idle))
    }

    /// Rounds, measures, writes.
    fn finish(mut self, path: &Path) -> Result<Value> {
        self.encoder.round();
        let codes = self.codebook.tangent().detach();
        let labels = |set: &ClipSet| -> Tensor {
            let all: Vec<i64> = set.labels().iter().map(|l| *l as i64).collect();
            Tensor::from_slice(&all).to_device(self.params.device())
        };
        let (train, train_codes, tokens) = self.plain_sentences(&self.clips.train, &codes)?;
        let clip = f64::from(self.config.quantizer.clip);
        let norms = train.square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float).sqrt();
        let clipped = norms.ge(clip * 0.999).to_kind(Kind::Float).mean(Kind::Float);
        let mut summary = json!({
            "step": self.steps(), "phase": "final", "clips": self.clips.train.len(), "validation_clips": self.clips.validation.len(),
            "train_usage": Health::of(&tokens, self.config.quantizer.codes), "resets": self.codebook.resets(),
            "gain": self.encoder.gain(), "features_on_the_clip": torch::number(&clipped),
        });
        if !self.clips.validation.is_empty() {
            let (validation, validation_codes, tokens) = self.plain_sentences(&self.clips.validation, &codes)?;
            let (classes, segments) = (self.clips.train.classes.len(), self.config.losses.head_segments);
            let (y, z) = (labels(&self.clips.train), labels(&self.clips.validation));
            summary["validation_usage"] = json!(Health::of(&tokens, self.config.quantizer.codes));
            summary["probe_features"] = probe::accuracy((&train, &y), (&validation, &z), classes, segments).into();
            summary["probe_tokens"] = probe::accuracy((&train_codes, &y), (&validation_codes, &z), classes, segments).into();
            if let Some(head) = self.objective.head() {
                summary["head_features"] = probe::hits(&head.forward(&validation), &z).into();
                summary["head_tokens"] = probe::hits(&head.forward(&validation_codes), &z).into();
                if let Some(streams) = self.clips.validation.streams(1 << self.config.encoder.halvings) {
                    summary["head_windows"] = json!(self.windows(&streams, head, &codes)?);
                }
            }
        }
        let mut tensors = self.encoder.export()?;
        tensors.push((
            "quantizer.tangent".to_owned(),
            vec![self.config.quantizer.codes, self.config.encoder.dim],
            values(&codes)?,
            Store::F32,
        ));
        if let Some((weight, bias)) = self.objective.word_map() {
            let shape = |t: &Tensor| t.size().iter().map(|n| *n as usize).collect();
            tensors.push((WORD_MAP[0].to_owned(), shape(weight), values(weight)?, Store::F32));
            tensors.push((WORD_MAP[1].to_owned(), shape(bias), values(bias)?, Store::F32));
        }
        let meta = Stage1Meta {
            preprocess: self.clips.preprocess.clone(),
            encoder: self.encoder.config().clone(),
            quantizer: QuantizerConfig {
                codes: self.config.quantizer.codes,
                dim: self.config.encoder.dim,
                geometry: self.config.quantizer.geometry,
                gain: self.encoder.gain(),
                clip: self.config.quantizer.clip,
            },
            provenance: [("settings".to_owned(), self.config.record()), ("metrics".to_owned(), summary.to_string())].into(),
        };
        artifacts::write(path, &meta, &tensors)?;
        write_decoder(self.objective.decoder(), path)?;
        Ok(summary)
    }
}

/// Writes the decoder beside the finished `stage1`. Without one, that of an earlier run in the folder goes: it reads other codes.
fn write_decoder(decoder: Option<&Decoder>, stage1: &Path) -> Result<()> {
    let path = stage1.with_file_name(DECODER);
    let Some(decoder) = decoder else {
        return match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(e)),
            _ => Ok(()),
        };
    };
    let meta = DecoderMeta { encoder: decoder.config().clone(), stage1_sha256: artifacts::file_digest(stage1)? };
    artifacts::write(&path, &meta, &decoder.export()?)
}

fn optimiser(params: &Params, phase: &Phase) -> AdamW {
    let group = |prefix: &str, weight_decay| Group { prefix: prefix.to_owned(), lr_factor: 1.0, weight_decay };
    AdamW::new(params, phase.betas, vec![group(codebook::NAME, 0.0), group("", phase.weight_decay)])
}
