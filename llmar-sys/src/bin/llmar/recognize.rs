//! `llmar recognize`: names the action of every clip of the given files.

use std::io::{Write, stdout};
use std::path::Path;

use llmar::control::Control;
use llmar::formats::{OwnedClip, read_clips};
use llmar::recognizer::{Options, Recognition, Recognizer, Scoring};
use llmar::text::Decoding;

use crate::{Arguments, Failure};

pub fn recognize(args: &Arguments) -> Result<(), Failure> {
    let (path, files) = args.model()?;
    if files.is_empty() {
        return Err(Failure::Usage("CLIPS are missing".into()));
    }
    let model = args.open(path)?;
    let decoding = if args.greedy { Decoding::Greedy } else { Decoding::Exact };
    let scoring = if args.by_words { Scoring::Words } else { Scoring::LanguageModel };
    let options = Options { threads: args.threads(), top_k: args.top.unwrap_or(3), decoding, unknown_below: args.unknown_below, scoring };
    let mut recognizer = Recognizer::new(model, options)?;
    if let Some(labels) = &args.labels {
        recognizer.set_labels(&labels.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    if let Some(file) = &args.balance {
        let others = read_clips(file)?;
        if others.is_empty() {
            return Err(Failure::Usage(format!("--balance: {} has no clips", file.display())));
        }
        let views: Vec<_> = others.iter().map(OwnedClip::view).collect();
        recognizer.balance(&views, &Control::default()).map_err(|e| in_file(file, &others, 0, e))?;
    }
    let labels = recognizer.labels();
    for file in files {
        let clips = read_clips(file)?;
        let mut done = 0;
        for batch in clips.chunks(args.batch.unwrap_or(1).max(1)) {
            let start = std::time::Instant::now();
            let views: Vec<_> = batch.iter().map(OwnedClip::view).collect();
            let answers = recognizer.recognize_batch(&views, &Control::default()).map_err(|e| in_file(file, &clips, done, e))?;
            done += batch.len();
            let ms = start.elapsed().as_secs_f64() * 1e3 / batch.len() as f64;
            for (clip, answer) in batch.iter().zip(&answers) {
                print(args, &labels, clip, answer, ms)?;
            }
        }
    }
    Ok(())
}

/// An error of a batch that begins at clip `done` of a file, with the clip's name in place of its index.
fn in_file(file: &Path, clips: &[OwnedClip], done: usize, error: llmar::Error) -> Failure {
    match error {
        llmar::Error::Clip { index, source } => {
            let name = clips.get(done + index).map_or("", |clip| &clip.name);
            Failure::Clip(format!("{}: {name}", file.display()), *source)
        }
        other => Failure::Clip(file.display().to_string(), other),
    }
}

/// One line a clip. `ms`: wall time of the clip, or its share of the batch.
fn print(args: &Arguments, labels: &[String], clip: &OwnedClip, answer: &Recognition, ms: f64) -> Result<(), Failure> {
    let mut out = stdout().lock();
    let top = answer.top.iter().zip(&answer.probabilities);
    if args.json {
        let top: Vec<_> =
            top.map(|(s, p)| serde_json::json!({"label": labels[s.label], "probability": p, "log_prob": s.log_prob})).collect();
        let line = serde_json::json!({
            "clip": clip.name, "top": top, "unknown": answer.unknown, "tokens": answer.sentence.tokens,
            "missing": answer.missing, "ms": ms,
        });
        return Ok(writeln!(out, "{line}")?);
    }
    let names: Vec<_> = top.map(|(s, p)| format!("{} {:.1}%", labels[s.label], 100.0 * p)).collect();
    let unknown = if answer.unknown { "unknown: " } else { "" };
    let missing = if answer.missing > 0.0 { format!(", {:.1}% of joints missing", 100.0 * answer.missing) } else { String::new() };
    Ok(writeln!(out, "{}: {unknown}{}  ({ms:.1} ms{missing})", clip.name, names.join(", "))?)
}
