//! What a run leaves on disk: metrics as JSON lines, and the state from which it can be resumed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// The state of an interrupted run: named tensors (f32 or f64), the step to go on with, and the settings it was begun with.
#[derive(Debug, Default)]
pub struct State {
    /// Steps done.
    pub step: usize,
    /// [`identity`] of the run; it is only resumed under an equal one.
    pub settings: String,
    /// Parameters, moments, codebook statistics.
    pub tensors: BTreeMap<String, Tensor>,
    /// Further values, for example the best validation figure so far.
    pub notes: BTreeMap<String, String>,
}

impl State {
    /// Writes to a temporary file, syncs, renames: the previous state stays whole until the new one is.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut buffers = Vec::with_capacity(self.tensors.len());
        for (name, t) in &self.tensors {
            let shape: Vec<usize> = t.size().iter().map(|&n| n as usize).collect();
            let t = t.detach().to_device(Device::Cpu).contiguous().view(-1);
            let (dtype, bytes) = match t.kind() {
                Kind::Double => (Dtype::F64, bytemuck::cast_slice::<f64, u8>(&Vec::try_from(&t)?).to_vec()),
                _ => (Dtype::F32, bytemuck::cast_slice::<f32, u8>(&Vec::try_from(&t.to_kind(Kind::Float))?).to_vec()),
            };
            buffers.push((name.clone(), dtype, shape, bytes));
        }
        let document = json!({ "step": self.step, "settings": self.settings, "notes": self.notes }).to_string();
        let bad = |e: safetensors::SafeTensorError| Error::format(path.display(), e);
        let views: Vec<(&str, TensorView<'_>)> = buffers
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).map_err(bad)?)))
            .collect::<Result<_>>()?;
        let bytes = safetensors::serialize(views, Some([("llmar_run".to_owned(), document)].into())).map_err(bad)?;
        replace(path, &bytes)
    }

    /// Reads a state; `Ok(None)` when there is no file.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(path)(e)),
        };
        let bad = |detail: String| Error::format(path.display(), detail);
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let document = header
            .metadata()
            .as_ref()
            .and_then(|m| m.get("llmar_run"))
            .ok_or_else(|| bad("no key llmar_run: not the state of a run".into()))?;
        let document: Value = serde_json::from_str(document).map_err(|e| bad(e.to_string()))?;
        let mut state = Self {
            step: document["step"].as_u64().ok_or_else(|| bad("no step".into()))? as usize,
            settings: document["settings"].as_str().unwrap_or_default().to_owned(),
            notes: serde_json::from_value(document["notes"].clone()).map_err(|e| bad(e.to_string()))?,
            tensors: BTreeMap::new(),
        };
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?.tensors() {
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            let t = match view.dtype() {
                Dtype::F32 => Tensor::from_slice(&view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>()),
                Dtype::F64 => Tensor::from_slice(&view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect::<Vec<_>>()),
                other => return Err(bad(format!("{name}: expected F32 or F64, got {other:?}"))),
            };
            state.tensors.insert(name, t.view(&shape[..]));
        }
        Ok(Some(state))
    }
}

/// Puts `bytes` in the place of the file at `path`: temporary file beside it, sync, rename.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial).map_err(Error::io(&partial))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io(&partial))?;
    fs::rename(&partial, path).map_err(Error::io(path))
}

/// What a run is a run of, as text: its settings, and a digest of each input by name. A run is only resumed under an equal one, since a file may
/// change while its path stays.
pub fn identity(config: &impl serde::Serialize, inputs: &[(&str, String)]) -> Result<String> {
    let inputs: BTreeMap<&str, &String> = inputs.iter().map(|(name, digest)| (*name, digest)).collect();
    let settings = serde_json::to_value(config).map_err(|e| Error::format("settings", e))?;
    Ok(json!({ "settings": settings, "inputs": inputs }).to_string())
}

/// `metrics.jsonl`: one JSON object a line, each with its step.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file of a run that has done `step` steps: lines of later steps, left by an interrupted run, are dropped, and so are final
    /// measurements, which are made again.
    pub fn open(path: &Path, step: usize) -> Result<Self> {
        let old = if step == 0 { String::new() } else { fs::read_to_string(path).unwrap_or_default() };
        let done = |line: &&str| {
            let before = |v: Value| v["step"].as_u64().is_some_and(|s| s <= step as u64) && v["phase"] != "final";
            serde_json::from_str(line).is_ok_and(before)
        };
        let kept: String = old.lines().filter(done).flat_map(|line| [line, "\n"]).collect();
        replace(path, kept.as_bytes())?;
        let file = File::options().append(true).open(path).map_err(Error::io(path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends a line.
    pub fn write(&mut self, line: &Value) -> Result<()> {
        writeln!(self.file, "{line}").map_err(Error::io(&self.path))
    }
}

/// A progress bar on the terminal; silent where there is none.
pub fn progress(name: &str, steps: usize) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(steps as u64);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {eta} {msg}") {
        bar.set_style(style);
    }
    bar.with_prefix(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_a_round_trip_and_a_torn_write() -> Result<()> {
        let folder = tempfile::tempdir().map_err(Error::io("temporary folder"))?;
        let path = folder.path().join("run.state");
        assert!(State::read(&path)?.is_none());
        let tensors = BTreeMap::from([
            ("a".to_owned(), Tensor::from_slice(&[1.5f32, -2.0, 3.25, 4.0]).view([2, 2])),
            ("b".to_owned(), Tensor::from_slice(&[0.1f64])),
        ]);
        let state = State { step: 7, settings: "{}".into(), tensors, notes: BTreeMap::from([("best".into(), "1".into())]) };
        state.write(&path)?;
        // What a write that was cut off leaves behind is never read.
        fs::write(path.with_extension("partial"), b"torn").map_err(Error::io(&path))?;
        let back = State::read(&path)?.ok_or_else(|| Error::format("state", "gone"))?;
        assert_eq!((back.step, back.settings.as_str(), back.notes.len()), (7, "{}", 1));
        assert_eq!(back.tensors["a"], state.tensors["a"]);
        assert_eq!(back.tensors["b"].double_value(&[0]), 0.1);
        assert_eq!(back.tensors["a"].size(), [2, 2]);
        Ok(())
    }

    #[test]
    fn metrics_of_steps_that_are_done_again_are_dropped() -> Result<()> {
        let folder = tempfile::tempdir().map_err(Error::io("temporary folder"))?;
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0)?;
        for step in 1..=4 {
            metrics.write(&json!({ "step": step }))?;
        }
        metrics.write(&json!({ "step": 2, "phase": "final" }))?;
        Metrics::open(&path, 2)?.write(&json!({ "step": 3, "again": true }))?;
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        assert_eq!(text, "{\"step\":1}\n{\"step\":2}\n{\"again\":true,\"step\":3}\n");
        Ok(())
    }
}
