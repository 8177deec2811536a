//! The stage-2 run: LoRA and code embeddings, snapshots, validation, `adapter.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use llmar::checkpoint::Calibration;
use llmar::text::Tokenizer;
use serde_json::{Value, json};
use tch::{Device, Reduction, Tensor};

use super::adapter::{CodeMap, Lora};
use super::config::Config;
use super::llama::Llama;
use super::prompt::Words;
use super::score::{self, Report};
use super::sentences;
use crate::artifacts::{self, AdapterMeta, BaseMeta, Store};
use crate::cli::LoraArgs;
use crate::error::{Error, Result};
use crate::import::tokenizer;
use crate::torch::{self, AdamW, Group, Metrics, Params, Rng, State, round_f16, setting, values};
use crate::vqvae::{Ball, ClipSet, Stage1};

/// Name of the artifact in a run's folder.
const ARTIFACT: &str = "adapter.safetensors";
/// Name of the snapshot in a run's folder.
const SNAPSHOT: &str = "adapter.state";

/// The command `lora`.
pub fn run(args: &LoraArgs) -> Result<()> {
    let mut config: Config = crate::cli::read_config(&args.config, &args.set)?;
    config.base = args.base.clone().unwrap_or(config.base);
    config.stage1 = args.stage1.clone().unwrap_or(config.stage1);
    let summary = train(&config, &args.out, args.resume)?;
    println!("{summary:#}");
    Ok(())
}

/// Trains an adapter into the folder `out` and returns its final measurements. With `resume`, goes on from the folder's snapshot; an
/// interrupted and resumed run ends in the same file as one that was left alone.
pub fn train(config: &Config, out: &Path, resume: bool) -> Result<Value> {
    config.check()?;
    let device = torch::start(&config.device, config.threads)?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let inputs = [
        ("archive", artifacts::file_digest(&config.data.archive)?),
        ("stage1", artifacts::file_digest(&config.stage1)?),
        ("base", artifacts::open::<BaseMeta>(&config.base)?.meta.source_sha256),
    ];
    let settings = torch::identity(config, &inputs)?;
    let snapshot = if resume { State::read(&out.join(SNAPSHOT))? } else { None };
    if let Some(state) = &snapshot
        && state.settings != settings
    {
        return Err(setting("--resume", "the settings and input files the run was begun with", "others"));
    }
    let mut run = Run::new(config, device)?;
    if let Some(state) = &snapshot {
        run.restore(state)?;
    }
    let mut metrics = Metrics::open(&out.join("metrics.jsonl"), run.done)?;
    let bar = torch::progress("stage 2", config.train.steps);
    while run.done < config.train.steps && !run.out_of_patience() {
        let line = run.step()?;
        bar.set_position(run.done as u64);
        bar.set_message(line["loss"].as_f64().map_or_else(String::new, |loss| format!("loss {loss:.3}")));
        metrics.write(&line)?;
        if config.snapshot_steps > 0 && run.done.is_multiple_of(config.snapshot_steps) {
            run.snapshot(settings.clone()).write(&out.join(SNAPSHOT))?;
        }
    }
    bar.finish_and_clear();
    let summary = run.finish(&out.join(ARTIFACT))?;
    metrics.write(&summary)?;
    Ok(summary)
}

struct Run<'a> {
    config: &'a Config,
    base: BaseMeta,
    stage1: Stage1,
    llama: Llama,
    words: Words,
    train: ClipSet,
    validation: ClipSet,
    validation_sentences: Vec<Vec<u16>>,
    params: Params,
    lora: Lora,
    map: CodeMap,
    optimiser: AdamW,
    /// Steps done.
    done: usize,
    /// Smallest validation loss so far with the parameters that gave it, and looks since.
    best: Option<(f64, Vec<Tensor>)>,
    looks_since_best: usize,
}

impl<'a> Run<'a> {
    fn new(config: &'a Config, device: Device) -> Result<Self> {
        let stage1 = Stage1::read(&config.stage1, device)?;
        let base = artifacts::open::<BaseMeta>(&config.base)?;
        let llama = Llama::read(&base, device)?;
        let tokenizer = Tokenizer::new(tokenizer::from_base(&base)?)?;
        let (train, validation) = ClipSet::read(&config.data, &stage1.meta.preprocess)?;
        let words = Words::new(&tokenizer, &config.prompt, &train.classes, base.meta.eos_id, llama.config.vocab_size)?;
        let rows = words.rows(stage1.meta.encoder.tokens(stage1.meta.preprocess.frames));
        if rows > llama.config.max_position_embeddings {
            let limit = format!("at most {} tokens with sentence and answer", llama.config.max_position_embeddings);
            return Err(setting("prompt", limit, rows));
        }
        let validation_sentences = sentences::plain(&stage1, &validation)?;
        let mut params = Params::new(device, config.seed);
        let lora = Lora::new(&mut params, &config.adapter, &llama.config)?;
        let ball = Ball::new(stage1.meta.quantizer.geometry);
        let map = CodeMap::new(&mut params, &config.map, stage1.tangent(), ball, &llama.embedding, config.seed)?;
        let group = |prefix: &str, lr_factor, weight_decay| Group { prefix: prefix.to_owned(), lr_factor, weight_decay };
        let groups = vec![
            group("map.points", config.map.points_lr_factor, 0.0),
            group("map.", config.map.lr_factor, 0.0),
            group("", 1.0, config.train.weight_decay),
        ];
        let optimiser = AdamW::new(&params, config.train.betas, groups);
        Ok(Self {
            config,
            base: base.meta,
            stage1,
            llama,
            words,
            train,
            validation,
            validation_sentences,
            params,
            lora,
            map,
            optimiser,
            done: 0,
            best: None,
            looks_since_best: 0,
        })
    }

    fn out_of_patience(&self) -> bool {
        self.config.train.patience > 0 && self.looks_since_best >= self.config.train.patience
    }

    /// One optimiser step, and a look at the validation clips when it is time.
    fn step(&mut self) -> Result<Value> {
        let (config, train) = (self.config, &self.config.train);
        let step = self.done;
        let mut rng = Rng::new(config.seed, "step", step as u64);
        tch::manual_seed(rng.torch_seed());
        let clips = Rng::batch(config.seed, "order", step, train.batch, self.train.len());
        let mut loss = 0.0;
        for part in clips.chunks(train.micro_batch) {
            let sentences = sentences::varied(&self.stage1, &self.train, part, &config.variation, config.seed, &mut rng)?;
            let answers: Vec<usize> = part.iter().map(|clip| self.train.labels()[*clip]).collect();
            let part_loss = self.loss(&sentences, &answers) / train.batch as f64;
            part_loss.backward();
            loss += torch::number(&part_loss);
        }
        if !loss.is_finite() {
            return Err(Error::format("training", format!("the loss of step {step} is {loss}")));
        }
        let (factor, beta1) = train.schedule.at(step, train.steps);
        let norm = self.optimiser.step(&self.params, train.lr * factor, beta1, train.clip);
        self.done += 1;
        let mut line = json!({ "step": self.done, "loss": loss, "lr": train.lr * factor, "grad_norm": norm });
        let look = train.validate_steps > 0 && self.done.is_multiple_of(train.validate_steps);
        if look && let Some(report) = self.validate(&self.map.embeddings().detach())? {
            line["validation"] = json!(report);
            if self.best.as_ref().is_none_or(|(best, _)| report.nll_at_temperature < *best) {
                self.best = Some((report.nll_at_temperature, self.params.entries().map(|(_, t)| t.detach().copy()).collect()));
                self.looks_since_best = 0;
            } else {
                self.looks_since_best += 1;
            }
        }
        Ok(line)
    }

    /// Summed cross-entropy of the answers' tokens and EOS.
    fn loss(&self, sentences: &[Vec<u16>], answers: &[usize]) -> Tensor {
        let (packed, targets) = self.words.with_answers(&self.llama, &self.map.embeddings(), sentences, answers);
        let logits = self.llama.logits(&packed.x, &packed.packing, &packed.keep, Some(&self.lora), true);
        let targets = Tensor::from_slice(&targets).to_device(self.llama.device());
        logits.cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Sum, -100, self.config.train.label_smoothing)
    }

    fn validate(&self, codes: &Tensor) -> Result<Option<Report>> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let at_once = self.config.train.micro_batch;
        let scores = score::scores(&self.llama, Some(&self.lora), &self.words, codes, &self.validation_sentences, at_once)?;
        Ok(Some(score::report(&scores, self.validation.labels(), &self.validation.classes)))
    }

    fn snapshot(&self, settings: String) -> State {
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for (i, (name, t)) in self.params.entries().enumerate() {
            tensors.insert(format!("params.{name}"), t.shallow_clone());
            if let Some((_, best)) = &self.best {
                tensors.insert(format!("best.{name}"), best[i].shallow_clone());
            }
        }
        tensors.extend(self.optimiser.state(&self.params));
        let mut notes = BTreeMap::from([("looks_since_best".to_owned(), self.looks_since_best.to_string())]);
        if let Some((loss, _)) = &self.best {
            notes.insert("best".to_owned(), format!("{:016x}", loss.to_bits()));
        }
        State { step: self.done, settings, tensors, notes }
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        self.params.restore(&state.tensors, "params.")?;
        self.optimiser.restore(&self.params, &state.tensors)?;
        self.done = state.step;
        let bad = |what: &str| Error::format("run state", format!("note {what} is missing or damaged"));
        self.looks_since_best = state.notes.get("looks_since_best").and_then(|n| n.parse().ok()).ok_or_else(|| bad("looks_since_best"))?;
        if let Some(bits) = state.notes.get("best") {
            let loss = f64::from_bits(u64::from_str_radix(bits, 16).map_err(|_| bad("best"))?);
            let find = |(name, _): (&str, &Tensor)| state.tensors.get(&format!("best.{name}")).map(Tensor::copy).ok_or_else(|| bad(name));
            let tensors = self.params.entries().map(find).collect::<Result<_>>()?;
            self.best = Some((loss, tensors));
        }
        Ok(())
    }

    /// Takes the best parameters back where validation chose them, rounds, measures, writes.
    fn finish(mut self, path: &Path) -> Result<Value> {
        if self.config.train.patience > 0
            && let Some((_, best)) = &self.best
        {
            tch::no_grad(|| self.params.entries().zip(best).for_each(|((_, t), best)| t.shallow_clone().copy_(best)));
        }
        self.lora.round();
        let codes = round_f16(&self.map.embeddings());
        let report = self.validate(&codes)?;
        let trained: usize = self.params.entries().map(|(_, t)| t.numel()).sum();
        let mut summary = json!({
            "step": self.done, "phase": "final", "clips": self.train.len(), "validation_clips": self.validation.len(),
            "trained_parameters": trained,
        });
        let mut temperature = self.config.calibration.temperature;
        if let Some(report) = report {
            summary["validation"] = json!(report);
            temperature = report.temperature as f32;
        }
        summary["temperature"] = temperature.into();
        let meta = AdapterMeta {
            name: self.config.name.clone(),
            rank: self.config.adapter.rank,
            alpha: self.config.adapter.alpha,
            prefix: self.config.prompt.prefix.clone(),
            suffix: self.config.prompt.suffix.clone(),
            answer_lead: self.config.prompt.answer_lead.clone(),
            labels: self.train.classes.clone(),
            calibration: Calibration { temperature, unknown_below: self.config.calibration.unknown_below },
            stage1_sha256: self.stage1.sha256.clone(),
            base_source_sha256: self.base.source_sha256.clone(),
            provenance: [("settings".to_owned(), self.config.record()), ("metrics".to_owned(), summary.to_string())].into(),
        };
        let mut tensors = self.lora.export()?;
        let shape = codes.size().iter().map(|n| *n as usize).collect();
        tensors.push(("quantizer.embedding".to_owned(), shape, values(&codes)?, Store::F16));
        artifacts::write(path, &meta, &tensors)?;
        Ok(summary)
    }
}
