//! `llmar-train ablate`: variants of both stages over seeds, each trained, exported and measured the same way, and the table of them.
//!
//! A finished run is a line of `runs.jsonl` in the table's folder; the line carries a digest of everything the run depends on, so that a table
//! that was interrupted goes on, and one whose settings changed runs again what they touch. Equal stages 1 are trained once.

mod config;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use llmar::device::Scheme;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use config::{Config, Job, Measure, Scoring, Unseen, Variant};
pub use table::{Row, rows};

use crate::artifacts::{self, BaseMeta, sha256_hex};
use crate::cli::{AblateArgs, Part, SchemeName};
use crate::error::{Error, Result};
use crate::evaluate::{Asking, Disturbance, Side, ask};
use crate::export::export;
use crate::{lora, torch, vqvae};

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Row of the table.
    pub variant: String,
    /// Seed, or number of the draw of unseen classes.
    pub seed: u64,
    /// SHA-256 of settings and inputs.
    pub digest: String,
    /// Clips measured on.
    pub n: usize,
    /// Per cent.
    pub top1: f64,
    /// Per cent.
    pub top5: f64,
    /// Per cent; none where the trainer measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_class: Option<f64>,
    /// 0..=1
    pub ece: f64,
    /// Further accuracies by name, per cent: without flagged clips, or with each label's prior taken away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub further: BTreeMap<String, f64>,
    /// Classes left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
    /// Final figures of stage 1.
    pub stage1: Value,
    /// Final figures of stage 2.
    pub stage2: Value,
    /// Seconds of training and measuring; a stage 1 that was there already costs nothing.
    pub seconds: f64,
}

/// The command `ablate`.
pub fn run(args: &AblateArgs) -> Result<()> {
    let mut config = Config::read(&args.config)?;
    config.base = args.base.clone().unwrap_or(config.base);
    config.out = args.out.clone().unwrap_or(config.out);
    if let Some(name) = args.only.iter().find(|name| config.variants.iter().all(|v| v.name != **name)) {
        let names: Vec<&String> = config.variants.iter().map(|v| &v.name).collect();
        return Err(torch::setting("--only", format!("one of {names:?}"), name));
    }
    let folder = args.config.parent().map(Path::to_path_buf).unwrap_or_default();
    let lines = ablate(&config, &folder, &args.only, args.show)?;
    let rows = rows(&config, &lines);
    let text = if args.json {
        serde_json::to_string_pretty(&serde_json::json!({ "name": config.name, "rows": rows, "runs": lines }))
            .map_err(|e| Error::format("table", e))?
    } else {
        table::markdown(&config, &rows)
    };
    writeln!(stdout(), "{text}").map_err(Error::io("standard output"))
}

/// Runs what has no line yet (with `show`, nothing) and returns the lines of all variants, in the order of the table. With `only`, runs these
/// variants alone.
pub fn ablate(config: &Config, folder: &Path, only: &[String], show: bool) -> Result<Vec<Line>> {
    std::fs::create_dir_all(&config.out).map_err(Error::io(&config.out))?;
    let path = config.out.join("runs.jsonl");
    let base = artifacts::open::<BaseMeta>(&config.base)?.meta.source_sha256;
    let mut digests = BTreeMap::new();
    let mut lines = Vec::new();
    for variant in &config.variants {
        for job in config.jobs(variant, folder)? {
            // Where the encoder to start from was never made there is no run to show.
            if show && job.stage1.encoder.start.as_ref().is_some_and(|start| !start.exists()) {
                continue;
            }
            let archive = match digests.get(&job.stage1.data.archive) {
                Some(known) => String::clone(known),
                None => artifacts::file_digest(&job.stage1.data.archive)?,
            };
            digests.insert(job.stage1.data.archive.clone(), archive.clone());
            let mut inputs = vec![("archive", archive), ("base", base.clone())];
            inputs.extend(start_digest(&job)?);
            let digest = digest(&job, config.scheme, &inputs)?;
            // Read anew each time: another process may be at work on other variants.
            let known = read_lines(&path)?.into_iter().find(|line| line.variant == variant.name && line.digest == digest);
            if let Some(line) = known {
                lines.push(line);
            } else if !show && (only.is_empty() || only.contains(&variant.name)) {
                eprintln!("{}, seed {}", variant.name, job.seed);
                let line = one(config, &job, digest)?;
                let text = serde_json::to_string(&line).map_err(|e| Error::format("run", e))?;
                let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
                file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io(&path))?;
                lines.push(line);
            }
        }
    }
    Ok(lines)
}

/// What a run depends on.
fn digest(job: &Job<'_>, scheme: SchemeName, inputs: &[(&str, String)]) -> Result<String> {
    let Variant { measure, without, unseen, scoring, .. } = job.variant;
    let measured = match scoring {
        // As before there was a choice: runs are still the same.
        Scoring::LanguageModel => serde_json::json!([measure, without, unseen, format!("{scheme:?}")]),
        Scoring::Words => serde_json::json!([measure, without, unseen, format!("{scheme:?}"), scoring]),
    };
    let settings = (&job.stage1, &job.stage2, measured, env!("CARGO_PKG_VERSION"));
    Ok(sha256_hex(torch::identity(&settings, inputs)?.as_bytes()))
}

/// Digest of the stage 1 that a job's stage 1 starts from, if it does.
fn start_digest(job: &Job<'_>) -> Result<Option<(&'static str, String)>> {
    job.stage1.encoder.start.as_ref().map(|path| Ok(("start", artifacts::file_digest(path)?))).transpose()
}

/// Lines of runs so far. A last line without its end is one that was cut off: it counts as not there.
fn read_lines(path: &Path) -> Result<Vec<Line>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(path)(e)),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse =
        |(i, line): (usize, &str)| serde_json::from_str(line).map_err(|e| Error::format(format!("{}, line {}", path.display(), i + 1), e));
    whole.lines().enumerate().map(parse).collect()
}

/// Trains and measures.
fn one(config: &Config, job: &Job<'_>, digest: String) -> Result<Line> {
    let start = Instant::now();
    let (stage1_folder, stage1) = stage1(config, job)?;
    let mut stage2 = job.stage2.clone();
    stage2.stage1 = stage1_folder.join("stage1.safetensors");
    let run = config.out.join("runs").join(format!("{}-{}", job.variant.name.replace(' ', "_"), &digest[..12]));
    let trained = match job.variant.measure {
        Measure::Words => Value::Null,
        measure => lora::train(&stage2, &run.join("stage2"), true, measure == Measure::Trainer)?,
    };
    let mut line = Line {
        variant: job.variant.name.clone(),
        seed: job.seed,
        digest,
        n: 0,
        top1: 0.0,
        top5: 0.0,
        mean_class: None,
        ece: 0.0,
        further: BTreeMap::new(),
        unseen: stage2.data.unseen.clone(),
        stage1,
        stage2: trained,
        seconds: 0.0,
    };
    match job.variant.measure {
        Measure::Runtime => runtime(config, job.variant, &stage2, &run, &mut line)?,
        Measure::Trainer | Measure::Validation => {
            let (part, count) =
                if job.variant.measure == Measure::Trainer { ("test", "test_clips") } else { ("validation", "validation_clips") };
            let figure = |name: &str| {
                line.stage2[part][name].as_f64().ok_or_else(|| torch::setting("variant.measure", format!("{part} clips"), "none"))
            };
            (line.top1, line.top5, line.ece) = (figure("top1")?, figure("top5")?, figure("ece")?);
            line.n = line.stage2[count].as_u64().unwrap_or(0) as usize;
        }
        Measure::Words => {
            let on_training_side = job.variant.unseen.is_some_and(|unseen| unseen.on_training_side);
            let (report, clips) = words::measure(&stage2.stage1, &stage2, on_training_side)?;
            (line.top1, line.top5, line.ece, line.n) = (report.top1, report.top5, report.ece, clips);
        }
    }
    line.seconds = start.elapsed().as_secs_f64();
    // Snapshots have served their purpose; artifacts and metrics stay.
    let _ = std::fs::remove_file(run.join("stage2/adapter.state"));
    Ok(line)
}

/// Stage 1 of a job, trained unless an equal one is there, and its final figures.
fn stage1(config: &Config, job: &Job<'_>) -> Result<(PathBuf, Value)> {
    let mut inputs = vec![("archive", artifacts::file_digest(&job.stage1.data.archive)?)];
    inputs.extend(start_digest(job)?);
    let identity = torch::identity(&job.stage1, &inputs)?;
    let folder = config.out.join("stage1").join(&sha256_hex(identity.as_bytes())[..16]);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    // Two processes may want the same stage 1: the second waits for the first.
    let lock = File::create(folder.join("lock")).map_err(Error::io(&folder))?;
    lock.lock().map_err(Error::io(&folder))?;
    let summary = folder.join("summary.json");
    if let Ok(text) = std::fs::read_to_string(&summary)
        && folder.join("stage1.safetensors").exists()
    {
        let value = serde_json::from_str(&text).map_err(|e| Error::format(summary.display(), e))?;
        return Ok((folder, value));
    }
    let value = vqvae::train(&job.stage1, &folder, true)?;
    std::fs::write(&summary, value.to_string()).map_err(Error::io(&summary))?;
    let _ = std::fs::remove_file(folder.join("stage1.state"));
    Ok((folder, value))
}

/// Exports and asks the shipped runtime.
fn runtime(config: &Config, variant: &Variant, stage2: &lora::Config, run: &Path, line: &mut Line) -> Result<()> {
    let base = match stage2.tune {
        lora::Tune::Lora => config.base.clone(),
        lora::Tune::All => run.join("stage2/base.safetensors"),
    };
    let model = run.join("model.llmar");
    export(&base, &stage2.stage1, &run.join("stage2/adapter.safetensors"), Scheme::from(config.scheme), &model)?;
    let data = &stage2.data;
    let part = if variant.unseen.is_some_and(|u| u.on_training_side) { Part::Train } else { Part::Test };
    let side = |part: Part| -> Result<Side> {
        let mut side = Side::read(&data.archive, &data.split, part)?;
        side.archive.classes = data.called(&side.archive.classes)?;
        data.only.as_ref().map_or(Ok(side.clone()), |flag| side.flagged(flag, true))
    };
    let unseen: Vec<String> = data.unseen.iter().map(|class| data.texts.get(class).unwrap_or(class).clone()).collect();
    let asking = Asking { labels: unseen.clone(), by_words: variant.scoring == Scoring::Words, ..Asking::default() };
    let plain = Disturbance::default();
    let chosen = if variant.unseen.is_some() { side(part)?.of_classes(&unseen, true)? } else { side(part)? };
    let answers = ask(&model, &chosen, &asking, &plain)?;
    let (report, metrics) = (&answers.report, &answers.report.metrics);
    (line.n, line.top1, line.top5, line.mean_class, line.ece) =
        (report.n, metrics.top1, metrics.top5, Some(metrics.mean_class), metrics.ece);
    for flag in &variant.without {
        let kept = chosen.clone().flagged(flag, false)?;
        line.further.insert(format!("without {flag}"), ask(&model, &kept, &asking, &plain)?.report.metrics.top1);
    }
    if variant.unseen.is_some() {
        // What each label gets on clips of other classes, from the training side, taken out.
        let others = side(Part::Train)?.of_classes(&unseen, false)?;
        let balanced = Asking { balance: others.clips().cloned().collect(), ..asking.clone() };
        line.further.insert("balanced".to_owned(), ask(&model, &chosen, &balanced, &plain)?.report.metrics.top1);
    }
    // A hundred megabytes that the artifacts give back at any time.
    for large in [model, run.join("stage2/base.safetensors")] {
        let _ = std::fs::remove_file(large);
    }
    Ok(())
}
