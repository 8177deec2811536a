//! The stage-2 run: LoRA and code embeddings, snapshots, validation, `adapter.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use llmar::checkpoint::Calibration;
use llmar::skeleton::Preprocess;
use llmar::text::Tokenizer;
use serde_json::{Value, json};
use tch::{Device, Kind, Reduction, Tensor};

use super::adapter::{CodeMap, Codebook, Lora};
use super::config::{Config, Start, Tune};
use super::head::Head;
use super::llama::{Dropout, Llama};
use super::memory::Need;
use super::needs;
use super::prompt::Words;
use super::reading::Reading;
use super::score::{self, Report};
use super::sentences::{self, Sentences};
use super::tuned;
use crate::artifacts::{self, AdapterMeta, Answer, BaseMeta, Opened, Reads, Store};
use crate::cli::LoraArgs;
use crate::error::{Error, Result};
use crate::import::tokenizer;
use crate::torch::{self, AdamW, Group, Metrics, Params, Rng, State, round_f16, setting, values};
use crate::vqvae::{ClipSet, LENGTHS, Stage1};

/// Name of the artifact in a run's folder.
const ARTIFACT: &str = "adapter.safetensors";
/// Name of the base model that a run writes which tunes all weights.
const TUNED: &str = "base.safetensors";
/// Name of the snapshot in a run's folder.
const SNAPSHOT: &str = "adapter.state";

/// The command `lora`.
pub fn run(args: &LoraArgs) -> Result<()> {
    let mut config: Config = crate::settings::read_config(&args.config, &args.set)?;
    config.base = args.base.clone().unwrap_or(config.base);
    config.stage1 = args.stage1.clone().unwrap_or(config.stage1);
    let summary = train(&config, &args.out, args.resume, false)?;
    println!("{summary:#}");
    Ok(())
}

/// Trains an adapter into the folder `out` and returns its final measurements. With `resume`, goes on from the folder's snapshot; an
/// interrupted and resumed run ends in the same file as one that was left alone. `test` adds a measurement on the split's test side at the
/// very end, by the trainer itself in f32, for variants that the runtime does not run; nothing within the run depends on it.
pub fn train(config: &Config, out: &Path, resume: bool, test: bool) -> Result<Value> {
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
    let stage1 = Stage1::read(&config.stage1, device)?;
    let (preprocess, halved) = (stage1.meta.preprocess.clone(), 1 << stage1.meta.encoder.halvings);
    config.check_live(stage1.live())?;
    let (clips, validation) = ClipSet::read(&config.data, &preprocess)?;
    let mut run = Run::new(config, stage1, (&clips, validation), device)?;
    if let Some(state) = &snapshot {
        run.restore(state)?;
    }
    let mut metrics = Metrics::open(&out.join("metrics.jsonl"), run.done)?;
    let bar = torch::progress("stage 2", config.train.steps);
    let (began, start) = (run.done, Instant::now());
    let of_step = |step: usize| {
        let which = Rng::batch(config.seed, "order", step, config.train.batch, clips.len());
        let mut rng = Rng::new(config.seed, "clips", step as u64);
        let reading = (&preprocess, halved, config.train.micro_batch);
        sentences::varied(&config.variation, reading, &clips, &which, config.seed, &mut rng)
    };
    let waited = torch::prefetched(began..config.train.steps, of_step, |source| {
        while run.done < config.train.steps && !run.out_of_patience() {
            let (prepared, answers) = source.take()?;
            let line = run.step(&prepared, &answers)?;
            bar.set_position(run.done as u64);
            bar.set_message(line["loss"].as_f64().map_or_else(String::new, |loss| format!("loss {loss:.3}")));
            metrics.write(&line)?;
            if config.snapshot_steps > 0 && run.done.is_multiple_of(config.snapshot_steps) {
                run.snapshot(settings.clone()).write(&out.join(SNAPSHOT))?;
            }
        }
        Ok(source.waited())
    })?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let mut summary = run.finish(out, test)?;
    metrics.write(&summary)?;
    // Of this call alone, and never the same twice: not for the metrics.
    summary["samples_per_second"] = json!((run.done - began) as f64 * config.train.batch as f64 / seconds);
    summary["waited_for_data"] = json!(waited.as_secs_f64() / seconds);
    Ok(summary)
}

/// How often each code occurs in the plain training clips of each label (of live models, in the actions and rests of windows) [codes, labels], and the
/// mean token embedding of each label [labels, hidden].
fn said_of_labels(stage1: &Stage1, clips: &ClipSet, llama: &Llama, words: &Words) -> Result<(Tensor, Tensor)> {
    let (codes, labels) = (stage1.meta.quantizer.codes, words.labels.len());
    let mut counts = vec![0f32; codes * labels];
    let mut count = |token: u16, label: usize| counts[usize::from(token) * labels + label] += 1.0;
    if let Some(streams) = clips.streams(1 << stage1.meta.encoder.halvings) {
        for length in LENGTHS {
            let batch = streams.unchanged(&stage1.meta.preprocess, length)?;
            let tokens = stage1.tokens(&batch.inputs)?.concat();
            batch.parts.iter().for_each(|part| part.tokens.iter().for_each(|(token, _)| count(tokens[*token], part.label)));
        }
    } else if let Sentences::Codes(sentences) = sentences::plain(Reads::Codes, stage1, clips)? {
        for (sentence, label) in sentences.iter().zip(clips.labels()) {
            sentence.iter().for_each(|token| count(*token, *label));
        }
    }
    let text = |ids: &Vec<u32>| llama.embed(ids).mean_dim([0i64].as_slice(), false, Kind::Float);
    let texts = tch::no_grad(|| Tensor::stack(&words.labels.iter().map(text).collect::<Vec<_>>(), 0));
    Ok((torch::tensor(&counts, &[codes as i64, labels as i64], llama.device()), texts))
}

struct Run<'a> {
    config: &'a Config,
    base: Opened<BaseMeta>,
    stage1: Stage1,
    llama: Llama,
    tokenizer: Tokenizer,
    words: Words,
    need: Need,
    train: &'a ClipSet,
    validation: ClipSet,
    validation_sentences: Sentences,
    params: Params,
    /// None where all weights are trained.
    lora: Option<Lora>,
    map: CodeMap,
    /// What answers in the place of the labels' words, where the settings say so.
    head: Option<Head>,
    /// Where labels are told by their words, too.
    reading: Option<Reading>,
    optimiser: AdamW,
    /// Steps done.
    done: usize,
    /// Smallest validation loss so far with the parameters that gave it, and looks since.
    best: Option<(f64, Vec<Tensor>)>,
    looks_since_best: usize,
}

impl<'a> Run<'a> {
    fn new(config: &'a Config, stage1: Stage1, (train, validation): (&'a ClipSet, ClipSet), device: Device) -> Result<Self> {
        let base = artifacts::open::<BaseMeta>(&config.base)?;
        let shape = base.meta.config.clone();
        let tokenizer = Tokenizer::new(tokenizer::from_base(&base)?)?;
        let words = Words::new(&tokenizer, &config.prompt, &train.classes, base.meta.eos_id, shape.vocab_size)?;
        // A list names each label once, with what stands between two.
        let named = config.prompt.list.1.max(config.train.micro_batch).min(train.classes.len());
        let listed = if config.prompt.listed > 0.0 { named * (words.longest() + 2) } else { 0 };
        let rows = words.rows(stage1.meta.encoder.tokens(stage1.meta.preprocess.frames)) + listed;
        if rows > shape.max_position_embeddings {
            let limit = format!("at most {} tokens with sentence and answer", shape.max_position_embeddings);
            return Err(setting("prompt", limit, rows));
        }
        let logits = match config.answer {
            Answer::LabelText => (words.longest() + 1, shape.vocab_size),
            Answer::LinearHead => (1, words.labels.len()),
        };
        let quantizer = &stage1.meta.quantizer;
        let need = Need::of(config, &shape, (config.train.micro_batch, rows), logits, (quantizer.codes, quantizer.dim));
        eprintln!("memory: {need}");
        let mut llama = Llama::read(&base, device, config.precision)?;
        let validation_sentences = sentences::plain(config.map.reads, &stage1, &validation)?;
        let mut params = Params::new(device, config.seed);
        let lora = match config.tune {
            Tune::Lora => Some(Lora::new(&mut params, &config.adapter, &shape)?),
            Tune::All => {
                llama.train_all(&mut params);
                None
            }
        };
        let said = (config.map.start == Start::Labels).then(|| said_of_labels(&stage1, train, &llama, &words)).transpose()?;
        let codebook = Codebook::of(&stage1, said.as_ref().map(|(counts, texts)| (counts, texts)));
        let map = CodeMap::new(&mut params, &config.map, &codebook, &llama.embedding.to_kind(Kind::Float), config.seed)?;
        let head = (config.answer == Answer::LinearHead).then(|| Head::new(&mut params, words.labels.len(), shape.hidden_size));
        let reading = config.words.as_ref().map(|words| Reading::fit(words, &stage1, train)).transpose()?;
        let group = |prefix: &str, lr_factor, weight_decay| Group { prefix: prefix.to_owned(), lr_factor, weight_decay };
        let groups = vec![
            group("map.points", config.map.points_lr_factor, 0.0),
            group("map.", config.map.lr_factor, 0.0),
            group("", 1.0, config.train.weight_decay),
        ];
        let optimiser = AdamW::new(&params, config.train.betas, groups);
        Ok(Self {
            config,
            base,
            stage1,
            llama,
            tokenizer,
            words,
            need,
            train,
            validation,
            validation_sentences,
            params,
            lora,
            map,
            head,
            reading,
            optimiser,
            done: 0,
            best: None,
            looks_since_best: 0,
        })
    }

    fn out_of_patience(&self) -> bool {
        self.config.train.patience > 0 && self.looks_since_best >= self.config.train.patience
    }

    /// One optimiser step on prepared clips and their labels, and a look at the validation clips when it is time.
    fn step(&mut self, prepared: &[Vec<f32>], answers: &[usize]) -> Result<Value> {
        let (config, train) = (self.config, &self.config.train);
        let step = self.done;
        let mut rng = Rng::new(config.seed, "step", step as u64);
        tch::manual_seed(rng.torch_seed());
        let mut loss = 0.0;
        for (answers, prepared) in answers.chunks(train.micro_batch).zip(prepared.chunks(train.micro_batch)) {
            let sentences = sentences::told(config.map.reads, &config.variation, &self.stage1, prepared, &mut rng)?;
            loss += self.backward(&sentences, answers, &mut rng);
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

    /// Adds the gradients of a part of the batch: cross-entropy of the answers' tokens and EOS, or of the head's labels, summed, over the batch's size.
    /// Returns it.
    fn backward(&self, sentences: &Sentences, answers: &[usize], rng: &mut Rng) -> f64 {
        let (prompt, train) = (&self.config.prompt, &self.config.train);
        let suffix = if prompt.listed > 0.0 && rng.unit() < prompt.listed {
            let list = self.listed(answers, rng);
            Words::listing(&self.tokenizer, prompt, &list)
        } else {
            self.words.suffix.clone()
        };
        let rows = sentences.rows(&self.map, &self.map.embeddings(), 0..answers.len());
        let (packed, targets) = match &self.head {
            Some(_) => (self.words.prompts(&self.llama, &rows), answers.iter().map(|answer| *answer as i64).collect()),
            None => self.words.with_answers(&self.llama, &rows, &suffix, answers),
        };
        let targets = Tensor::from_slice(&targets).to_device(self.llama.device());
        let loss = |hidden: &Tensor| {
            let logits = self.head.as_ref().map_or_else(|| self.llama.words(hidden), |head| head.logits(hidden));
            let sum = logits.cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Sum, -100, train.label_smoothing);
            sum / train.batch as f64
        };
        let dropout = Dropout::Seeded(rng.torch_seed());
        let (x, packing, keep) = (&packed.x, &packed.packing, &packed.keep);
        if train.checkpointing {
            return self.llama.backward_checkpointed(x, packing, keep, self.lora.as_ref(), dropout, loss);
        }
        let value = loss(&self.llama.hidden(x, packing, keep, self.lora.as_ref(), dropout));
        value.backward();
        torch::number(&value)
    }

    /// Names of the answers and of other labels, in random order, as many as `prompt.list` says.
    fn listed(&self, answers: &[usize], rng: &mut Rng) -> Vec<&str> {
        let (least, most) = self.config.prompt.list;
        let wanted = least + rng.below(most - least + 1);
        let mut list: Vec<usize> = answers.to_vec();
        list.sort_unstable();
        list.dedup();
        let others: Vec<usize> = rng.permutation(self.train.classes.len()).into_iter().filter(|label| !list.contains(label)).collect();
        list.extend(others.into_iter().take(wanted.saturating_sub(list.len())));
        rng.permutation(list.len()).into_iter().map(|i| self.train.classes[list[i]].as_str()).collect()
    }

    fn validate(&self, codes: &Tensor) -> Result<Option<Report>> {
        self.measure(codes, &self.validation, &self.validation_sentences)
    }

    /// Scores a set of clips; none gives nothing.
    fn measure(&self, codes: &Tensor, clips: &ClipSet, sentences: &Sentences) -> Result<Option<Report>> {
        if clips.is_empty() {
            return Ok(None);
        }
        let scores = self.scores(codes, sentences)?;
        Ok(Some(score::report(&scores, clips.labels(), &clips.classes)))
    }

    /// Scores of sentences `[sentences][labels]`, those of one length together.
    fn scores(&self, codes: &Tensor, sentences: &Sentences) -> Result<Vec<Vec<f64>>> {
        let mut scores = vec![Vec::new(); sentences.alike().values().map(Vec::len).sum()];
        for which in sentences.alike().values() {
            let some = sentences.some(which);
            let rows = |part| some.rows(&self.map, codes, part);
            let (lora, passes) = (self.lora.as_ref(), (which.len(), self.config.train.micro_batch));
            let of_some = match &self.head {
                Some(head) => head.scores(&self.llama, lora, &self.words, passes, rows)?,
                None => score::scores(&self.llama, lora, &self.words, passes, rows)?,
            };
            which.iter().zip(of_some).for_each(|(clip, of_clip)| scores[*clip] = of_clip);
        }
        Ok(scores)
    }

    /// Of live models, the joints that each label needs.
    fn needs(&self) -> BTreeMap<String, Vec<String>> {
        let Preprocess { joints, coords, root, .. } = &self.stage1.meta.preprocess;
        if self.stage1.live() { needs::needs(self.train, joints, *coords, root) } else { BTreeMap::new() }
    }

    /// What a live model says of windows of the clips of a set; nothing of other models.
    fn windows(&self, codes: &Tensor, clips: &ClipSet) -> Result<Option<score::Live>> {
        let meta = &self.stage1.meta;
        let Some(streams) = clips.streams(1 << meta.encoder.halvings).filter(|_| !clips.is_empty()) else { return Ok(None) };
        let (mut scores, mut tokens, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for length in LENGTHS {
            let batch = streams.unchanged(&meta.preprocess, length)?;
            let sentences = Sentences::of(self.config.map.reads, &self.stage1, &batch.inputs)?;
            tokens.extend(sentences.alike().into_iter().flat_map(|(length, which)| vec![length; which.len()]));
            scores.extend(self.scores(codes, &sentences)?);
            labels.extend(batch.labels);
        }
        Ok(Some(score::live(&scores, &tokens, &labels, (&clips.classes, clips.idle()))))
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
    fn finish(&mut self, out: &Path, test: bool) -> Result<Value> {
        let config = self.config;
        if config.train.patience > 0
            && let Some((_, best)) = &self.best
        {
            tch::no_grad(|| self.params.entries().zip(best).for_each(|((_, t), best)| t.shallow_clone().copy_(best)));
        }
        let base_sha256 = match &mut self.lora {
            Some(lora) => {
                lora.round();
                self.base.meta.source_sha256.clone()
            }
            None => tuned::round_and_write(&self.params, &self.llama, &self.base, &config.name, &out.join(TUNED))?,
        };
        if let Some(head) = &mut self.head {
            head.round();
        }
        let codes = tch::no_grad(|| round_f16(&self.map.embeddings()));
        let trained: usize = self.params.entries().map(|(_, t)| t.numel()).sum();
        let mut summary = json!({
            "step": self.done, "phase": "final", "clips": self.train.len(), "validation_clips": self.validation.len(),
            "trained_parameters": trained, "memory": self.need,
        });
        let mut temperature = config.calibration.temperature;
        if let Some(report) = self.validate(&codes)? {
            temperature = report.temperature as f32;
            summary["validation"] = json!(report);
        }
        if let Some(live) = self.windows(&codes, &self.validation)? {
            temperature = live.report.temperature as f32;
            summary["validation_windows"] = json!(live);
        }
        if test {
            let clips = ClipSet::read_test(&config.data, &self.stage1.meta.preprocess)?;
            let sentences = sentences::plain(config.map.reads, &self.stage1, &clips)?;
            summary["test"] = json!(self.measure(&codes, &clips, &sentences)?);
            if let Some(live) = self.windows(&codes, &clips)? {
                summary["test_windows"] = json!(live);
            }
            summary["test_clips"] = clips.len().into();
        }
        summary["temperature"] = temperature.into();
        if let Some(reading) = &self.reading {
            summary["words"] = json!({ "words": reading.words.vocabulary.len(), "temperature": reading.words.temperature });
        }
        let meta = AdapterMeta {
            name: config.name.clone(),
            rank: config.adapter.rank,
            alpha: config.adapter.alpha,
            prefix: config.prompt.prefix.clone(),
            suffix: config.prompt.suffix.clone(),
            answer_lead: config.prompt.answer_lead.clone(),
            answer: config.answer,
            reads: config.map.reads,
            labels: self.train.classes.clone(),
            needs: self.needs(),
            idle: self.train.idle().map(|idle| self.train.classes[idle].clone()),
            calibration: Calibration { temperature, unknown_below: config.calibration.unknown_below },
            words: self.reading.as_ref().map(|reading| reading.words.clone()),
            stage1_sha256: self.stage1.sha256.clone(),
            base_source_sha256: base_sha256,
            provenance: [("settings".to_owned(), config.record()), ("metrics".to_owned(), summary.to_string())].into(),
        };
        let mut tensors = self.lora.as_ref().map_or_else(|| Ok(Vec::new()), Lora::export)?;
        let shape = codes.size().iter().map(|n| *n as usize).collect();
        tensors.push(("quantizer.embedding".to_owned(), shape, values(&codes)?, Store::F16));
        if let Some(head) = &self.head {
            tensors.push(head.export()?);
        }
        tensors.extend(self.reading.iter().flat_map(Reading::export));
        artifacts::write(&out.join(ARTIFACT), &meta, &tensors)?;
        Ok(summary)
    }
}
