//! `llmar info` and `llmar verify`.

use std::io::{Write, stdout};

use llmar::recognizer::{Model, OpenOptions};

use crate::{Arguments, Failure};

pub fn info(args: &Arguments) -> Result<(), Failure> {
    let (path, rest) = args.model()?;
    if let Some(extra) = rest.first() {
        return Err(Failure::Usage(format!("unexpected argument `{}`", extra.display())));
    }
    let model = Model::open(path, OpenOptions::default())?;
    let meta = model.metadata();
    let mut out = stdout().lock();
    if args.json {
        let mut document = serde_json::to_value(meta).map_err(|e| llmar::Error::format("metadata", e.to_string()))?;
        document["file_bytes"] = model.file_len().into();
        return Ok(writeln!(out, "{document:#}")?);
    }
    let labels: Vec<&str> = meta.labels.iter().map(|l| l.text.as_str()).collect();
    writeln!(out, "model        {} (format {}, written by {})", meta.name, meta.format_version, meta.producer)?;
    writeln!(out, "file         {} bytes, matrices {:?}", model.file_len(), meta.scheme)?;
    writeln!(
        out,
        "skeleton     {}, {} person(s), {} joints x {} coordinates, {} frames",
        meta.preprocess.layout,
        meta.preprocess.persons,
        meta.preprocess.joints.len(),
        meta.preprocess.coords,
        meta.preprocess.frames
    )?;
    writeln!(
        out,
        "encoder      {} -> {} -> {} channels, {} tokens a clip{}",
        meta.encoder.inputs,
        meta.encoder.width,
        meta.encoder.outputs,
        meta.preprocess.frames >> meta.encoder.halvings,
        if meta.encoder.causal { ", causal" } else { "" }
    )?;
    writeln!(out, "codebook     {} codes of {} features, {:?}", meta.quantizer.codes, meta.quantizer.dim, meta.quantizer.geometry)?;
    writeln!(
        out,
        "llama        {} layers, hidden {}, {} heads / {} kv heads of {}, vocabulary {}",
        meta.llama.num_hidden_layers,
        meta.llama.hidden_size,
        meta.llama.num_attention_heads,
        meta.llama.num_key_value_heads,
        meta.llama.head_dim,
        meta.llama.vocab_size
    )?;
    writeln!(out, "prompt       {:?} [tokens] {:?}", meta.prompt.prefix, meta.prompt.suffix)?;
    writeln!(out, "calibration  temperature {}, unknown below {}", meta.calibration.temperature, meta.calibration.unknown_below)?;
    if let Some(words) = &meta.words {
        writeln!(out, "words        {}, temperature {}: {}", words.vocabulary.len(), words.temperature, words.vocabulary.join(" "))?;
    }
    Ok(writeln!(out, "labels       {}: {}", labels.len(), labels.join(", "))?)
}

pub fn verify(args: &Arguments) -> Result<(), Failure> {
    let (path, rest) = args.model()?;
    if let Some(extra) = rest.first() {
        return Err(Failure::Usage(format!("unexpected argument `{}`", extra.display())));
    }
    let model = Model::open(path, OpenOptions { verify: true, ..OpenOptions::default() })?;
    Ok(writeln!(stdout(), "{}: sound, SHA-256 {}", path.display(), model.metadata().tensors_sha256)?)
}
