//! The table of an ablation: mean and spread over seeds, and the difference to the first row, seed by seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::{Config, Line};

/// Mean and standard deviation (with n − 1; 0 for one value).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Values.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation.
    pub deviation: f64,
}

impl Spread {
    /// Of some values; none without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let deviation = if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 };
        (n > 0).then_some(Self { n, mean, deviation })
    }
}

/// One variant.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub variant: String,
    /// What the paper has, per cent.
    pub paper: Option<f64>,
    /// Top-1, per cent; none while no run is finished.
    pub top1: Option<Spread>,
    /// Mean over classes, per cent.
    pub mean_class: Option<Spread>,
    /// Expected calibration error, 0..=1.
    pub ece: Option<Spread>,
    /// Further accuracies by name, per cent.
    pub further: BTreeMap<String, Spread>,
    /// Top-1 minus the first row's with the same seed, where the table compares.
    pub difference: Option<Spread>,
}

/// A row a variant.
pub fn rows(config: &Config, lines: &[Line]) -> Vec<Row> {
    let of = |name: &str| lines.iter().filter(|line| line.variant == name).collect::<Vec<_>>();
    let first = config.variants.first().map(|v| of(&v.name)).unwrap_or_default();
    let row = |variant: &super::Variant| {
        let own = of(&variant.name);
        let spread = |figure: &dyn Fn(&Line) -> Option<f64>| Spread::of(&own.iter().filter_map(|line| figure(line)).collect::<Vec<_>>());
        let mut names: Vec<&String> = own.iter().flat_map(|line| line.further.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let pair = |line: &Line| first.iter().find(|other| other.seed == line.seed).map(|other| line.top1 - other.top1);
        // Draws of unseen classes are not seeds: they compare with rows of draws only.
        let comparable = config.variants.first().is_some_and(|v| v.unseen.is_some() == variant.unseen.is_some() && v.name != variant.name);
        Row {
            variant: variant.name.clone(),
            paper: variant.paper,
            top1: spread(&|line| Some(line.top1)),
            mean_class: spread(&|line| line.mean_class),
            ece: spread(&|line| Some(line.ece)),
            further: names.into_iter().filter_map(|name| Some((name.clone(), spread(&|line| line.further.get(name).copied())?))).collect(),
            difference: if comparable && config.compare { spread(&pair) } else { None },
        }
    };
    config.variants.iter().map(row).collect()
}

/// The rows for people.
pub fn markdown(config: &Config, rows: &[Row]) -> String {
    let mut text = format!("## {}\n\n", config.name);
    text += "| variant | runs | top-1 % | mean class % | ECE | minus the first, same seed | paper |\n|---|---|---|---|---|---|---|\n";
    let cell = |spread: Option<Spread>, digits: usize| match spread {
        Some(s) if s.n > 1 => format!("{:.digits$} ± {:.digits$}", s.mean, s.deviation),
        Some(s) => format!("{:.digits$}", s.mean),
        None => "–".to_owned(),
    };
    for row in rows {
        let further: String = row.further.iter().map(|(name, s)| format!("; {name} {}", cell(Some(*s), 1))).collect();
        let paper = row.paper.map_or_else(|| "–".to_owned(), |p| format!("{p:.1}"));
        let signed = row.difference.map_or_else(|| "–".to_owned(), |s| format!("{:+.1} ± {:.1}", s.mean, s.deviation));
        let runs = row.top1.map_or(0, |s| s.n);
        let _ = writeln!(
            text,
            "| {} | {runs} | {}{further} | {} | {} | {signed} | {paper} |",
            row.variant,
            cell(row.top1, 1),
            cell(row.mean_class, 1),
            cell(row.ece, 3)
        );
    }
    text
}
