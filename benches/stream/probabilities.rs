//! How far a decision's probability is from the exact one, and what each costs: the same frames through a stream that evaluates as many label nodes as
//! its `tolerance` asks for and through one that evaluates all.

use std::sync::Arc;

use llmar::control::Control;
use llmar::formats::ClipArchive;
use llmar::recognizer::Model;
use llmar::recognizer::stream::{Event, StreamOptions};
use serde_json::{Map, Value, json};

use crate::{Motion, Outcome, UPDATE_FRAMES, pose, stream};

/// Intervals that are tried.
const TOLERANCES: [f64; 4] = [0.05, 0.1, 0.15, 0.2];
/// Decisions with each.
const DECISIONS: usize = 600;

/// Best label and its probability.
type Told = (u32, f32);

/// Both sides of the archive's split: the training side is where the streams' constants are chosen.
pub fn measure(model: &Arc<Model>, archive: &ClipArchive, threads: usize) -> Outcome<Value> {
    let test = archive.splits.get("cross_subject").ok_or("the archive has no split `cross_subject`")?;
    let mut report = Map::new();
    for (side, is_test) in [("training", false), ("test", true)] {
        let motion = || Motion::of((0..archive.clips.len()).filter(|i| test[*i] == is_test).map(|i| &archive.clips[i]).collect(), 0);
        let (exact, all_rows) = run(model, motion(), threads, 0.0)?;
        for tolerance in TOLERANCES {
            let (told, rows) = run(model, motion(), threads, tolerance)?;
            let errors: Vec<f64> = told.iter().zip(&exact).map(|(told, exact)| f64::from((told.1 - exact.1).abs())).collect();
            let tally = json!({
                "mean_error": errors.iter().sum::<f64>() / errors.len() as f64,
                "largest_error": errors.iter().fold(0.0, |a: f64, b| a.max(*b)),
                "other_labels": told.iter().zip(&exact).filter(|(told, exact)| told.0 != exact.0).count(),
                "rows_per_decision": rows, "rows_of_all": all_rows,
            });
            report.insert(format!("{side}_{tolerance}"), tally);
        }
    }
    Ok(report.into())
}

/// What each decision tells, and rows a decision.
fn run(model: &Arc<Model>, mut motion: Motion<'_>, threads: usize, tolerance: f64) -> Outcome<(Vec<Told>, f64)> {
    let mut stream = stream(model, StreamOptions { threads, tolerance, smoothing: 0.0, ..StreamOptions::default() })?;
    let (mut decisions, mut frame) = (Vec::new(), 0);
    let mut events = [Event::default(); 1];
    while decisions.len() < DECISIONS {
        for _ in 0..UPDATE_FRAMES {
            stream.push(&pose(1, frame, motion.next()))?;
            frame += 1;
        }
        while stream.poll(&Control::default(), &mut events)? > 0 {
            let [scored, ..] = events[0].top;
            if events[0].top_count > 0 {
                decisions.push((scored.label, scored.probability));
            }
        }
    }
    let stats = stream.stats()?;
    Ok((decisions, stats.rows as f64 / stats.decisions as f64))
}
