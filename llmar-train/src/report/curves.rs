//! Curves over the steps of a stage: losses and their parts, learning rate, gradient norm, resets, validation figures.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::history::History;
use super::html::{Part, text};
use super::material::{Material, STAGE1_METRICS, STAGE2_METRICS};
use crate::error::Result;

/// Most points of a curve: more than a screen has columns for it.
const POINTS: usize = 800;

/// One figure over the steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Curve {
    /// `loss`, `parts.commit`, `validation.top1`
    name: String,
    /// (step, value)
    points: Vec<(f64, f64)>,
    /// Lines of the metrics behind one point; above 1 a point is their mean.
    mean_of: usize,
}

#[derive(Debug, Serialize)]
struct Curves {
    curves: Vec<Curve>,
    /// First step of every phase but the first, and its name.
    phases: Vec<(f64, String)>,
}

/// The curves of stage 1.
pub fn stage1(material: &Material) -> Result<Part> {
    section("stage1", "Stage 1: tokens", material.stage1_history.as_ref(), STAGE1_METRICS)
}

/// The curves of stage 2.
pub fn stage2(material: &Material) -> Result<Part> {
    section("stage2", "Stage 2: language model", material.stage2_history.as_ref(), STAGE2_METRICS)
}

fn section(id: &'static str, title: &'static str, history: Option<&History>, file: &str) -> Result<Part> {
    let Some(history) = history else { return Part::missing(title, format!("{file} is missing")) };
    let curves = curves(history);
    if curves.curves.is_empty() {
        return Part::missing(title, format!("{file} has no step yet"));
    }
    let coarse = curves.curves.iter().map(|curve| curve.mean_of).max().unwrap_or(1);
    let mut html = String::from("<p class=note>The faint line is what was measured, the strong one its running mean. ");
    if coarse > 1 {
        html += &format!("A point stands for the mean of up to {coarse} steps. ");
    }
    for (step, phase) in &curves.phases {
        html += &format!("A dashed line marks step {step}, where phase `{}` begins. ", text(phase));
    }
    html += "Point at a curve, or focus it and press the arrow keys, to read its values.</p><div class=curves></div>";
    Part::shown(id, title, html, &curves)
}

/// Every number of the lines by name, in the order in which people ask for them.
fn curves(history: &History) -> Curves {
    let mut by_name: BTreeMap<(usize, String), Vec<(f64, f64)>> = BTreeMap::new();
    let mut phases: Vec<(f64, String)> = Vec::new();
    for (index, line) in history.steps.iter().enumerate() {
        let step = line["step"].as_f64().unwrap_or(index as f64 + 1.0);
        if let Some(phase) = line["phase"].as_str()
            && phases.last().is_none_or(|(_, last)| last != phase)
        {
            phases.push((step, phase.to_owned()));
        }
        for (name, value) in line.as_object().into_iter().flat_map(numbers) {
            by_name.entry((rank(&name), name)).or_default().push((step, value));
        }
    }
    let curves = by_name.into_iter().filter(|(_, points)| points.len() > 1).map(|((_, name), points)| thin(name, &points)).collect();
    Curves { curves, phases: phases.split_off(phases.len().min(1)) }
}

/// The numbers of an object and of the objects in it, by dotted name; the step is none.
fn numbers(object: &Map<String, Value>) -> Vec<(String, f64)> {
    let mut out = Vec::new();
    for (key, value) in object.iter().filter(|(key, _)| *key != "step") {
        match value {
            Value::Object(inner) => out.extend(numbers(inner).into_iter().map(|(name, x)| (format!("{key}.{name}"), x))),
            value => out.extend(value.as_f64().map(|x| (key.clone(), x))),
        }
    }
    out
}

fn rank(name: &str) -> usize {
    let order = ["loss", "parts.", "validation.", "lr", "grad_norm", "resets"];
    order.iter().position(|start| name.starts_with(start)).unwrap_or(order.len())
}

/// At most [`POINTS`] points, each the mean of as many lines.
fn thin(name: String, points: &[(f64, f64)]) -> Curve {
    let mean_of = points.len().div_ceil(POINTS);
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    Curve { name, points: points.chunks(mean_of).map(mean).collect(), mean_of }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_number_becomes_a_curve_in_order() {
        let line = |step: usize, phase: &str| {
            json!({ "step": step, "phase": phase, "loss": 1.0 / step as f64, "lr": 0.1, "resets": 0,
                    "parts": { "zipf": 0.5, "commit": 1.0 }, "validation": { "top1": 10.0 * step as f64 } })
        };
        let history = History { steps: vec![line(1, "features"), line(2, "features"), line(3, "codes")], last: None };
        let got = curves(&history);
        let names: Vec<&str> = got.curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["loss", "parts.commit", "parts.zipf", "validation.top1", "lr", "resets"]);
        assert_eq!(got.curves[3].points, [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]);
        assert_eq!(got.phases, [(3.0, "codes".to_owned())]);
    }

    #[test]
    fn long_runs_are_averaged_and_keep_their_ends() {
        let points: Vec<(f64, f64)> = (0..300_000).map(|step| (f64::from(step), f64::from(step))).collect();
        let curve = thin("loss".into(), &points);
        assert!(curve.points.len() <= POINTS && curve.mean_of == 375, "{} of {}", curve.points.len(), curve.mean_of);
        assert_eq!((curve.points[0], curve.points[799].1), ((187.0, 187.0), 299_812.0));
    }
}
