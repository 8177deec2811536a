//! Settings: a TOML file, with `key=value` pairs of the command line laid over it.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::setting;
use crate::error::{Error, Result};

/// Reads `path` and overrides dotted keys by `sets` (`phase.lr=1e-3`; the value is TOML, or a bare word taken as a string). Keys that the
/// settings do not have are errors.
pub fn load<T: DeserializeOwned>(path: &Path, sets: &[String]) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut table: toml::Table = toml::from_str(&text).map_err(|e| Error::format(path.display(), e))?;
    for pair in sets {
        let (key, value) = pair.split_once('=').ok_or_else(|| setting("--set", "key=value", pair))?;
        let value = toml::from_str::<toml::Table>(&format!("v = {value}"))
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        let mut parts: Vec<&str> = key.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        let mut at = &mut table;
        for part in parts {
            let next = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            at = next.as_table_mut().ok_or_else(|| setting("--set", "a key whose parents are tables", key))?;
        }
        at.insert(last.to_owned(), value);
    }
    T::deserialize(toml::Value::Table(table)).map_err(|e| Error::format(path.display(), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        lr: f64,
        #[serde(default)]
        name: String,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        steps: usize,
        phase: Inner,
    }

    #[test]
    fn overrides_and_unknown_keys() -> Result<()> {
        let folder = tempfile::tempdir().map_err(Error::io("temporary folder"))?;
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "steps = 3\n[phase]\nlr = 0.1\n").map_err(Error::io(&path))?;
        let sets: Vec<String> = ["steps=5", "phase.lr=1e-3", "phase.name=plain"].map(str::to_owned).into();
        let got: Outer = load(&path, &sets)?;
        assert_eq!(got, Outer { steps: 5, phase: Inner { lr: 1e-3, name: "plain".into() } });
        let error = load::<Outer>(&path, &["phase.rate=1".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("rate"), "{error}");
        assert!(load::<Outer>(&path, &["steps.x=1".to_owned()]).is_err());
        assert!(load::<Outer>(&path, &["steps".to_owned()]).is_err());
        Ok(())
    }
}
