//! `llmar-train evaluate`: what the shipped library answers on the clips of a split, asked through its C ABI.

mod abi;
mod metrics;

use std::collections::BTreeMap;
use std::io::{Write, stdout};

use llmar::formats::ClipArchive;

pub use abi::{Answer, recognize_all};
pub use metrics::{Metrics, Sample};

use crate::cli::{EvaluateArgs, Part};
use crate::error::{Error, Result};

/// The outcome of one evaluation.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// Data set, split and part.
    pub data: String,
    /// Clips evaluated.
    pub n: usize,
    /// Clips whose label the model does not have; they count as wrong.
    pub unnameable: usize,
    /// Clips answered `unknown`. The accuracy below counts their best label all the same.
    pub unknown: usize,
    /// Those of them whose best label was right.
    pub unknown_right: usize,
    /// Seconds a clip, wall time through the C ABI.
    pub seconds_per_clip: f64,
    /// Accuracy, calibration, confusion.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// Evaluates and prints, as one JSON document or for people.
pub fn run(args: &EvaluateArgs) -> Result<()> {
    let report = evaluate(args)?;
    let text = if args.json { serde_json::to_string_pretty(&report).map_err(|e| Error::format("report", e))? } else { for_people(&report) };
    writeln!(stdout(), "{text}").map_err(Error::io("standard output"))
}

/// Recognises every clip of the part, one call a clip, and measures.
pub fn evaluate(args: &EvaluateArgs) -> Result<Report> {
    let archive = ClipArchive::read(&args.data)?;
    let test = archive.splits.get(&args.split).ok_or_else(|| Error::Setting {
        name: "split".into(),
        expected: format!("one of {:?}", archive.splits.keys().collect::<Vec<_>>()),
        got: args.split.clone(),
    })?;
    let chosen: Vec<usize> = (0..archive.clips.len()).filter(|&i| test[i] == (args.part == Part::Test)).collect();
    let bar = indicatif::ProgressBar::new(chosen.len() as u64); // draws on standard error, and only on a terminal
    let start = std::time::Instant::now();
    let clips = chosen.iter().map(|&i| &archive.clips[i]);
    let (labels, answers) = recognize_all(&args.model, clips, args.threads, args.greedy, || bar.inc(1))?;
    let elapsed = start.elapsed().as_secs_f64();
    bar.finish_and_clear();

    // Labels are matched by their text: a model's indices are its own.
    let index: BTreeMap<&str, usize> = labels.iter().enumerate().map(|(i, l)| (l.as_str(), i)).collect();
    let truths: Vec<Option<usize>> = chosen.iter().map(|&i| index.get(archive.classes[archive.labels[i]].as_str()).copied()).collect();
    let samples: Vec<Sample<'_>> =
        truths.iter().zip(&answers).map(|(&truth, a)| Sample { truth, ranking: &a.ranking, probabilities: &a.probabilities }).collect();
    let unknown: Vec<bool> = samples
        .iter()
        .zip(&answers)
        .filter(|(_, a)| a.unknown)
        .map(|(s, _)| s.truth.is_some() && s.ranking.first().copied() == s.truth)
        .collect();
    Ok(Report {
        data: format!("{} {} {:?}", archive.name, args.split, args.part).to_lowercase(),
        n: chosen.len(),
        unnameable: truths.iter().filter(|t| t.is_none()).count(),
        unknown: unknown.len(),
        unknown_right: unknown.iter().filter(|right| **right).count(),
        seconds_per_clip: elapsed / chosen.len().max(1) as f64,
        metrics: Metrics::measure(&labels, &samples),
    })
}

/// The report as a few lines of text.
fn for_people(report: &Report) -> String {
    let m = &report.metrics;
    let mut text = format!(
        "{}: {} clips\ntop-1 {:.2} %, top-5 {:.2} %, mean class {:.2} %, ECE {:.3}, NLL {:.3}, {:.1} ms a clip",
        report.data,
        report.n,
        m.top1,
        m.top5,
        m.mean_class,
        m.ece,
        m.nll,
        1e3 * report.seconds_per_clip
    );
    if report.unknown > 0 {
        text += &format!("\n{} clips were called unknown; the best label of {} of them was right", report.unknown, report.unknown_right);
    }
    if report.unnameable > 0 {
        text += &format!("\n{} clips have a label that the model does not know", report.unnameable);
    }
    for (class, share) in &m.per_class {
        let mistakes: Vec<_> = m.confusion.get(class).into_iter().flatten().map(|(answer, count)| format!("{answer} x{count}")).collect();
        text += &format!("\n  {share:6.1} %  {class}  {}", mistakes.join(", "));
    }
    text
}
