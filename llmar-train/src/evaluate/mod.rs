//! `llmar-train evaluate`: what the shipped library answers on the clips of a split, asked through its C ABI.

mod abi;
mod disturb;
mod metrics;

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::Path;

use llmar::formats::{ClipArchive, OwnedClip};

pub use abi::{Answer, Asking, recognize_all};
pub use disturb::Disturbance;
pub use metrics::{BINS, Bin, Metrics, Sample, reliability};

use crate::cli::{EvaluateArgs, Part};
use crate::error::{Error, Result};

/// Furthest turn of a view, degrees: what the demo adapter's training clips were turned by.
const VIEW_RANGE: f32 = 28.6;

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

/// The clips of one side of a split.
#[derive(Clone, Debug)]
pub struct Side {
    /// The data set.
    pub archive: ClipArchive,
    /// Data set, split and part, for people.
    pub name: String,
    /// Indices of the side's clips in the archive.
    pub chosen: Vec<usize>,
}

impl Side {
    /// Reads an archive and takes one side of its split.
    ///
    /// # Errors
    /// Those of the archive's reader; [`Error::Setting`] for a split that it does not have.
    pub fn read(data: &Path, split: &str, part: Part) -> Result<Self> {
        let archive = ClipArchive::read(data)?;
        let test = archive.splits.get(split).ok_or_else(|| Error::Setting {
            name: "split".into(),
            expected: format!("one of {:?}", archive.splits.keys().collect::<Vec<_>>()),
            got: split.to_owned(),
        })?;
        let chosen = (0..archive.clips.len()).filter(|&i| test[i] == (part == Part::Test)).collect();
        let name = format!("{} {split} {part:?}", archive.name).to_lowercase();
        Ok(Self { archive, name, chosen })
    }

    /// Keeps the clips that have a flag of the archive, or (`with` false) those that have not.
    ///
    /// # Errors
    /// [`Error::Setting`] for a flag that the archive does not have.
    pub fn flagged(mut self, flag: &str, with: bool) -> Result<Self> {
        let flags = self.archive.flags.get(flag).ok_or_else(|| Error::Setting {
            name: "flag".into(),
            expected: format!("one of {:?}", self.archive.flags.keys().collect::<Vec<_>>()),
            got: flag.to_owned(),
        })?;
        self.chosen.retain(|&i| flags[i] == with);
        self.name += &format!(" {} {flag}", if with { "with" } else { "without" });
        Ok(self)
    }

    /// Keeps the clips of these classes, or (`with` false) those of all others.
    ///
    /// # Errors
    /// [`Error::Setting`] for a class that the archive does not have.
    pub fn of_classes(mut self, classes: &[String], with: bool) -> Result<Self> {
        let known = &self.archive.classes;
        if let Some(class) = classes.iter().find(|class| !known.contains(class)) {
            return Err(Error::Setting { name: "classes".into(), expected: format!("classes of {known:?}"), got: class.clone() });
        }
        self.chosen.retain(|&i| classes.contains(&known[self.archive.labels[i]]) == with);
        self.name += &format!(" {} {classes:?}", if with { "only" } else { "without" });
        Ok(self)
    }

    /// The clips, in the archive's order.
    pub fn clips(&self) -> impl ExactSizeIterator<Item = &OwnedClip> {
        self.chosen.iter().map(|&i| &self.archive.clips[i])
    }

    /// Class of a clip by its place among [`clips`](Self::clips).
    pub fn class(&self, clip: usize) -> &str {
        &self.archive.classes[self.archive.labels[self.chosen[clip]]]
    }
}

/// What a model answered on the clips of a [`Side`].
#[derive(Clone, Debug)]
pub struct Answers {
    /// The model's labels, by index.
    pub labels: Vec<String>,
    /// Index of each clip's right label among them; `None` when the model has no such label.
    pub truths: Vec<Option<usize>>,
    /// One a clip.
    pub answers: Vec<Answer>,
    /// The figures.
    pub report: Report,
}

impl Answers {
    /// Each answer against its truth.
    pub fn samples(&self) -> Vec<Sample<'_>> {
        samples(&self.truths, &self.answers)
    }

    /// Mean probability of each label over the clips.
    pub fn mean_probabilities(&self) -> Vec<f64> {
        let mut mean = vec![0f64; self.labels.len()];
        for answer in &self.answers {
            for (label, p) in answer.ranking.iter().zip(&answer.probabilities) {
                mean[*label] += f64::from(*p) / self.answers.len() as f64;
            }
        }
        mean
    }

    /// Every label's probability over `prior`, what the label gets on clips of no such class, normalised anew and measured anew: a label that the
    /// language model likes to say, whatever it reads, has no head start (contextual calibration, Zhao et al. 2021).
    pub fn balanced(mut self, prior: &[f64]) -> Self {
        for answer in &mut self.answers {
            let mut weighted: Vec<(usize, f64)> =
                answer.ranking.iter().zip(&answer.probabilities).map(|(l, p)| (*l, f64::from(*p) / prior[*l].max(1e-12))).collect();
            let sum: f64 = weighted.iter().map(|(_, w)| w).sum();
            weighted.sort_by(|a, b| b.1.total_cmp(&a.1));
            answer.ranking = weighted.iter().map(|(label, _)| *label).collect();
            answer.probabilities = weighted.iter().map(|(_, w)| (w / sum.max(1e-300)) as f32).collect();
        }
        self.report = report(self.report.data + ", balanced", &self.labels, &self.truths, &self.answers, self.report.seconds_per_clip);
        self
    }
}

fn samples<'a>(truths: &[Option<usize>], answers: &'a [Answer]) -> Vec<Sample<'a>> {
    let sample = |(&truth, a): (&Option<usize>, &'a Answer)| Sample { truth, ranking: &a.ranking, probabilities: &a.probabilities };
    truths.iter().zip(answers).map(sample).collect()
}

/// Recognises every clip of the part, one call a clip, and measures.
pub fn evaluate(args: &EvaluateArgs) -> Result<Report> {
    let mut side = Side::read(&args.data, &args.split, args.part)?;
    if let Some(flag) = &args.only {
        side = side.flagged(flag, true)?;
    }
    if let Some(flag) = &args.without {
        side = side.flagged(flag, false)?;
    }
    if !args.labels.is_empty() {
        side = side.of_classes(&args.labels, true)?;
    }
    let (greedy, by_words) = (args.greedy, args.by_words);
    let asking = Asking { threads: args.threads, greedy, by_words, labels: args.labels.clone(), views: args.views };
    if args.greedy && args.views > 1 {
        return Err(Error::Setting { name: "views".into(), expected: "probabilities of all labels".into(), got: "--greedy".into() });
    }
    let mut disturbance = Disturbance { missing: args.missing, fps: args.fps, yaw: args.yaw, seed: args.seed };
    if !args.balance {
        return Ok(ask(&args.model, &side, &asking, &disturbance)?.report);
    }
    if args.greedy {
        return Err(Error::Setting { name: "balance".into(), expected: "probabilities of all labels".into(), got: "--greedy".into() });
    }
    let others = Side::read(&args.data, &args.split, Part::Train)?.of_classes(&args.labels, false)?;
    let answers = ask(&args.model, &side, &asking, &disturbance)?;
    disturbance = Disturbance::default();
    let prior = ask(&args.model, &others, &asking, &disturbance)?.mean_probabilities();
    Ok(answers.balanced(&prior).report)
}

/// The answers of `model` on every clip of a side, disturbed first, one call a clip, measured.
pub fn ask(model: &Path, side: &Side, asking: &Asking, disturbance: &Disturbance) -> Result<Answers> {
    disturbance.check()?;
    let bar = indicatif::ProgressBar::new(side.chosen.len() as u64); // draws on standard error, and only on a terminal
    let start = std::time::Instant::now();
    let clips = side.clips().enumerate().map(|(i, clip)| disturbance.applied(clip, i));
    let (labels, answers) = if asking.views <= 1 {
        recognize_all(model, clips, asking, || bar.inc(1))?
    } else {
        let views = clips.flat_map(|clip| views(clip, asking.views));
        let (labels, answers) = recognize_all(model, views, asking, || ())?;
        (labels, answers.chunks(asking.views).map(averaged).collect())
    };
    let elapsed = start.elapsed().as_secs_f64();
    bar.finish_and_clear();

    // Labels are matched by their text: a model's indices are its own.
    let index: BTreeMap<&str, usize> = labels.iter().enumerate().map(|(i, l)| (l.as_str(), i)).collect();
    let truths: Vec<Option<usize>> = (0..side.chosen.len()).map(|clip| index.get(side.class(clip)).copied()).collect();
    let mut name = side.name.clone();
    if *disturbance != Disturbance::default() {
        name +=
            &format!(", {} of joints missing, {} frames/s, turned by {} degrees", disturbance.missing, disturbance.fps, disturbance.yaw);
    }
    let report = report(name, &labels, &truths, &answers, elapsed / side.chosen.len().max(1) as f64);
    Ok(Answers { labels, truths, answers, report })
}

/// A clip turned about the vertical, in equal steps from one end of ±[`VIEW_RANGE`] to the other. An error stays one.
fn views(clip: Result<OwnedClip>, count: usize) -> Vec<Result<OwnedClip>> {
    let clip = match clip {
        Ok(clip) => clip,
        Err(error) => return vec![Err(error)],
    };
    let yaw = |i: usize| VIEW_RANGE * (2.0 * i as f32 / (count - 1) as f32 - 1.0);
    (0..count).map(|i| Disturbance { yaw: yaw(i), ..Disturbance::default() }.applied(&clip, 0)).collect()
}

/// One answer of several about one clip: the geometric mean of each label's probabilities, normalised anew. Sentence and `unknown` are the middle view's.
fn averaged(views: &[Answer]) -> Answer {
    let middle = &views[views.len() / 2];
    let mut logs = vec![0f64; middle.ranking.len()];
    for answer in views {
        for (label, p) in answer.ranking.iter().zip(&answer.probabilities) {
            logs[*label] += f64::from(*p).max(1e-30).ln() / views.len() as f64;
        }
    }
    let sum: f64 = logs.iter().map(|log| log.exp()).sum();
    let mut ranking: Vec<usize> = (0..logs.len()).collect();
    ranking.sort_by(|a, b| logs[*b].total_cmp(&logs[*a]));
    let probabilities = ranking.iter().map(|label| (logs[*label].exp() / sum) as f32).collect();
    Answer { ranking, probabilities, ..middle.clone() }
}

fn report(data: String, labels: &[String], truths: &[Option<usize>], answers: &[Answer], seconds_per_clip: f64) -> Report {
    let samples = samples(truths, answers);
    let unknown: Vec<bool> = samples.iter().zip(answers).filter(|(_, a)| a.unknown).map(|(s, _)| s.right(1)).collect();
    Report {
        data,
        n: truths.len(),
        unnameable: truths.iter().filter(|t| t.is_none()).count(),
        unknown: unknown.len(),
        unknown_right: unknown.iter().filter(|right| **right).count(),
        seconds_per_clip,
        metrics: Metrics::measure(labels, &samples),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_averaged_as_logarithms() {
        let answer = |ranking: &[usize], p: [f32; 2]| Answer {
            ranking: ranking.to_vec(),
            probabilities: p.to_vec(),
            tokens: vec![7],
            unknown: false,
        };
        // Label 0: √(.9 · .2), label 1: √(.1 · .8).
        let one = averaged(&[answer(&[0, 1], [0.9, 0.1]), answer(&[1, 0], [0.8, 0.2])]);
        let (a, b) = (0.18f64.sqrt(), 0.08f64.sqrt());
        assert_eq!(one.ranking, [0, 1]);
        assert!((f64::from(one.probabilities[0]) - a / (a + b)).abs() < 1e-6);
    }

    #[test]
    fn a_favourite_label_loses_its_head_start() {
        let answer = |p: [f32; 2]| Answer { ranking: vec![0, 1], probabilities: p.to_vec(), tokens: Vec::new(), unknown: false };
        let labels = vec!["a".to_owned(), "b".to_owned()];
        let truths = vec![Some(0), Some(1)];
        let answers = vec![answer([0.9, 0.1]), answer([0.6, 0.4])];
        let before = report("d".to_owned(), &labels, &truths, &answers, 0.0);
        let all = Answers { labels, truths, answers, report: before };
        assert_eq!(all.report.metrics.top1, 50.0);
        let prior = all.mean_probabilities();
        assert!((prior[0] - 0.75).abs() < 1e-6 && (prior[1] - 0.25).abs() < 1e-6);
        let balanced = all.balanced(&prior);
        assert_eq!(balanced.report.metrics.top1, 100.0);
        assert_eq!(balanced.answers[1].ranking, [1, 0]); // .6 / .75 = .8 against .4 / .25 = 1.6
        assert!((balanced.answers[1].probabilities[0] - 1.6 / 2.4).abs() < 1e-6);
    }
}
