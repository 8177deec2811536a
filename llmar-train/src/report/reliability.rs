//! Whether a probability of 80 % is right 80 times in 100.

use serde::Serialize;

use super::html::Part;
use super::material::Material;
use crate::error::Result;
use crate::evaluate::{BINS, reliability};

const TITLE: &str = "Reliability";

#[derive(Serialize)]
struct Bars {
    /// (clips, right ones, mean probability of the best label) of each bin.
    bins: Vec<(usize, usize, f64)>,
    ece: f64,
}

/// The reliability diagram, in the bins of the calibration error.
pub fn section(material: &Material) -> Result<Part> {
    let (answers, _) = match material.answered() {
        Ok(answered) => answered,
        Err(reason) => return Part::missing(TITLE, reason),
    };
    let bins = reliability(&answers.samples());
    let bins = bins.iter().map(|bin| (bin.clips, bin.right, bin.confidence / bin.clips.max(1) as f64)).collect();
    let html = format!(
        "<p class=note>Clips in {BINS} equal bins of the best label's probability. A bar is the share right among the clips of its bin, the mark its mean \
         probability; where the bar ends at the mark, the probabilities can be believed. Below: how many clips each bin has.</p>\
         <div class=chart id=reliability-chart></div>"
    );
    Part::shown("reliability", TITLE, html, &Bars { bins, ece: answers.report.metrics.ece })
}
