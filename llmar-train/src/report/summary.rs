//! The head of the page: final figures, what the model is, with which settings it was trained.

use std::collections::BTreeMap;
use std::fmt::Write;

use llmar::checkpoint::Metadata;
use llmar::llama::LlamaConfig;
use serde_json::Value;

use super::html::{bytes, count, facts, number, text};
use super::material::Material;
use crate::evaluate::Report;

/// Markup below the page's heading.
pub fn html(material: &Material) -> String {
    let mut html = String::new();
    if let Some(answers) = &material.answers {
        html += &tiles(&answers.report);
    }
    html += &facts(&about(material));
    if let Some(labels) = labels(material) {
        let names: Vec<String> = labels.iter().map(|label| format!("<li>{}</li>", text(label))).collect();
        let _ = write!(
            html,
            "<details><summary>{}</summary><ol class=labels start=0>{}</ol></details>",
            count(labels.len(), "label"),
            names.concat()
        );
    }
    let stage1 = material.stage1.as_ref().map(|file| &file.meta.provenance);
    let stage2 = material.adapter.as_ref().map(|file| &file.meta.provenance);
    for (stage, provenance) in [("Stage 1", stage1), ("Stage 2", stage2)] {
        for (key, value) in provenance.into_iter().flatten() {
            let _ = write!(html, "<details><summary>{stage}: {}</summary>{}</details>", text(key), facts(&flat(value)));
        }
    }
    html
}

fn tiles(report: &Report) -> String {
    let m = &report.metrics;
    let unknown = match report.unknown {
        0 => "none".to_owned(),
        n => format!("{n} <small>best label right: {}</small>", report.unknown_right),
    };
    let tiles = [
        ("Top-1", format!("{:.2} %", m.top1)),
        ("Top-5", format!("{:.2} %", m.top5)),
        ("Mean class", format!("{:.2} %", m.mean_class)),
        ("Calibration error", format!("{:.3}", m.ece)),
        ("NLL", format!("{:.3}", m.nll)),
        ("Called unknown", unknown),
        ("Clips", report.n.to_string()),
    ];
    let tile = |(name, value): &(&str, String)| format!("<div class=tile><span>{name}</span><b>{value}</b></div>");
    format!("<div class=tiles>{}</div>", tiles.iter().map(tile).collect::<String>())
}

/// What the model is, from its checkpoint, else from the stages' files.
fn about(material: &Material) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut add = |name: &str, value: String| pairs.push((name.to_owned(), value));
    if let Some(answers) = &material.answers {
        add("Asked about", format!("{}, {:.1} ms a clip", answers.report.data, 1e3 * answers.report.seconds_per_clip));
    } else if let Some(side) = &material.side {
        add("Clips", format!("{} of {}", side.chosen.len(), side.name));
    }
    if let Some(checkpoint) = &material.model {
        of_model(checkpoint.metadata(), checkpoint.file_len(), &mut add);
    } else if let Some(file) = &material.stage1 {
        let meta = &file.meta;
        skeleton(&meta.preprocess, &meta.encoder, &meta.quantizer, &mut add);
    }
    if let Some(file) = &material.adapter {
        let meta = &file.meta;
        add("Adapter", format!("{}, rank {}, alpha {}", meta.name, meta.rank, meta.alpha));
    }
    pairs
}

fn of_model(meta: &Metadata, file_len: u64, add: &mut impl FnMut(&str, String)) {
    add("Model", format!("{}, written by {}", meta.name, meta.producer));
    add("Checkpoint", format!("{}, matrices {}", bytes(file_len), format!("{:?}", meta.scheme).to_lowercase()));
    skeleton(&meta.preprocess, &meta.encoder, &meta.quantizer, add);
    let llama: &LlamaConfig = &meta.llama;
    add(
        "Language model",
        format!(
            "{} layers of {}, {} heads, {} of keys and values, vocabulary {}",
            llama.num_hidden_layers, llama.hidden_size, llama.num_attention_heads, llama.num_key_value_heads, llama.vocab_size
        ),
    );
    add("Prompt", format!("{} [tokens]{}", meta.prompt.prefix, meta.prompt.suffix));
    add("Calibration", format!("temperature {}, unknown below {}", meta.calibration.temperature, meta.calibration.unknown_below));
}

fn skeleton(
    preprocess: &llmar::skeleton::Preprocess,
    encoder: &llmar::motion::EncoderConfig,
    quantizer: &llmar::motion::QuantizerConfig,
    add: &mut impl FnMut(&str, String),
) {
    let (joints, coords) = (preprocess.joints.len(), preprocess.coords);
    let persons = count(preprocess.persons, "person");
    add("Skeleton", format!("{}: {persons}, {joints} joints of {coords} coordinates, {} frames", preprocess.layout, preprocess.frames));
    let (tokens, causal) = (encoder.tokens(preprocess.frames), if encoder.causal { ", causal" } else { "" });
    add(
        "Encoder",
        format!("{} \u{2192} {} \u{2192} {} channels, {tokens} tokens a clip{causal}", encoder.inputs, encoder.width, encoder.outputs),
    );
    let geometry = match quantizer.geometry {
        llmar::device::Geometry::Poincare { curvature } => format!("Poincar\u{e9} ball of curvature \u{2212}{curvature}"),
        llmar::device::Geometry::Euclidean => "flat".to_owned(),
    };
    add("Codebook", format!("{} codes of {} features, {geometry}", quantizer.codes, quantizer.dim));
}

fn labels(material: &Material) -> Option<Vec<String>> {
    let of_model = material.model.as_ref().map(|model| model.metadata().labels.iter().map(|label| label.text.clone()).collect());
    of_model.or_else(|| material.adapter.as_ref().map(|adapter| adapter.meta.labels.clone()))
}

/// A provenance entry as pairs: JSON objects by dotted name, other text as it is.
fn flat(entry: &str) -> Vec<(String, String)> {
    let Ok(value @ Value::Object(_)) = serde_json::from_str::<Value>(entry) else { return vec![("text".to_owned(), entry.to_owned())] };
    let mut out = BTreeMap::new();
    flatten("", &value, &mut out);
    out.into_iter().collect()
}

fn flatten(name: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    if let Value::Object(inner) = value {
        let dot = if name.is_empty() { "" } else { "." };
        inner.iter().for_each(|(key, value)| flatten(&format!("{name}{dot}{key}"), value, out));
        return;
    }
    let shown = match value {
        Value::String(text) => text.clone(),
        Value::Number(n) if n.is_f64() => n.as_f64().map_or_else(|| n.to_string(), number),
        other => other.to_string(),
    };
    out.insert(name.to_owned(), shown);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_dotted_names() {
        let pairs = flat(r#"{"train":{"lr":0.002,"betas":[0.9,0.999]},"name":"a","seed":0,"layers":null}"#);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let expected = [("layers", "null"), ("name", "a"), ("seed", "0"), ("train.betas", "[0.9,0.999]"), ("train.lr", "0.002")];
        assert_eq!(pairs, expected);
        assert_eq!(flat("by hand"), [("text".to_owned(), "by hand".to_owned())]);
    }
}
