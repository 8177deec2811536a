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

use crate::cli::{Called, EvaluateArgs, Part};
use crate::error::{Error, Result};

/// Furthest turn of a view, degrees: half a radian, as the training clips of the tables are turned.
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

    /// Keeps the clips of these classes and calls each as the model does; two classes may have one label.
    ///
    /// # Errors
    /// [`Error::Setting`] for a class that the archive does not have, one that is named twice, and a label that is not among `labels`, the model's.
    pub fn called(mut self, called: &[Called], labels: &[String]) -> Result<Self> {
        let classes: Vec<String> = called.iter().map(|c| c.class.clone()).collect();
        self = self.of_classes(&classes, true)?;
        for (i, Called { class, label }) in called.iter().enumerate() {
            if !labels.contains(label) {
                return Err(Error::Setting { name: "as".into(), expected: format!("labels of {labels:?}"), got: label.clone() });
            }
            if classes[..i].contains(class) {
                return Err(Error::Setting { name: "as".into(), expected: "each class once".into(), got: format!("{class} again") });
            }
        }
        for class in &mut self.archive.classes {
            if let Some(as_model) = called.iter().find(|c| c.class == *class) {
                class.clone_from(&as_model.label);
            }
        }
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
    let mut asking =
        Asking { threads: args.threads, greedy, by_words, labels: args.labels.clone(), views: args.views, ..Asking::default() };
    for (needs_probabilities, name) in [(args.views > 1, "views"), (args.balance, "balance")] {
        if args.greedy && needs_probabilities {
            return Err(Error::Setting { name: name.into(), expected: "probabilities of all labels".into(), got: "--greedy".into() });
        }
    }
    if args.balance {
        let others = Side::read(&args.data, &args.split, Part::Train)?.of_classes(&args.labels, false)?;
        asking.balance = others.clips().cloned().collect();
    }
    if !args.called.is_empty() {
        let (labels, _) = recognize_all(&args.model, std::iter::empty(), &asking, || ())?;
        side = side.called(&args.called, &labels)?;
    }
    let disturbance = Disturbance { missing: args.missing, fps: args.fps, yaw: args.yaw, seed: args.seed };
    Ok(ask(&args.model, &side, &asking, &disturbance)?.report)
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
    if !asking.balance.is_empty() {
        name += ", balanced";
    }
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
    fn classes_of_another_data_set_are_called_as_the_model_does() -> Result<()> {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let archive = ClipArchive {
            name: "other".to_owned(),
            classes: text(&["jogging", "hammer", "forward punch", "side boxing"]),
            layout: "kinect1_20".to_owned(),
            fps: None,
            clips: Vec::new(),
            labels: vec![0, 1, 2, 3, 0],
            subjects: Vec::new(),
            cameras: Vec::new(),
            splits: BTreeMap::new(),
            flags: BTreeMap::new(),
        };
        let side = Side { archive, name: "other".to_owned(), chosen: vec![0, 1, 2, 3] };
        let called = |pairs: &[&str]| pairs.iter().map(|pair| pair.parse::<Called>().unwrap_or_else(|e| panic!("{e}"))).collect::<Vec<_>>();
        let labels = text(&["boxing", "jog", "hammer"]);
        let asked = side.clone().called(&called(&["side boxing=boxing", "forward punch=boxing", "jogging=jog"]), &labels)?;
        assert_eq!(asked.chosen, [0, 2, 3]); // the hammer is not asked about, though the model has such a label
        assert_eq!([asked.class(0), asked.class(1), asked.class(2)], ["jog", "boxing", "boxing"]);
        for (pairs, named) in
            [(&["running=jog"][..], "running"), (&["jogging=running"], "running"), (&["jogging=jog", "jogging=boxing"], "jogging again")]
        {
            let error = side.clone().called(&called(pairs), &labels).err().map(|e| e.to_string());
            assert!(error.as_ref().is_some_and(|e| e.contains(named)), "{pairs:?}: {error:?}");
        }
        Ok(())
    }
}
