//! Settings of a stage: a TOML file, and `--set` values over it.

use std::path::Path;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// One `--set`: a dotted name and the value as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `train.steps`
    pub key: String,
    /// `400`
    pub value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
        let key = key.trim();
        if key.is_empty() || key.split('.').any(|part| part.trim().is_empty()) {
            return Err(format!("expected a dotted name before `=`, got `{key}`"));
        }
        Ok(Self { key: key.to_string(), value: value.trim().to_string() })
    }
}

/// Reads a TOML file, puts the `--set` values over it and checks the whole against `T`.
///
/// A value that is not TOML is taken as a string, so that `--set data.split=cross_subject` needs no quotes.
pub fn read_config<T: DeserializeOwned>(path: &Path, set: &[Setting]) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut config: toml::Table = text.parse().map_err(|e| Error::format(path.display(), e))?;
    for setting in set {
        override_setting(&mut config, setting)?;
    }
    config.try_into().map_err(|e| Error::format(path.display(), e))
}

fn override_setting(config: &mut toml::Table, setting: &Setting) -> Result<()> {
    let value = match format!("v = {}", setting.value).parse::<toml::Table>() {
        Ok(mut table) if table.len() == 1 => table.remove("v").unwrap_or_else(|| setting.value.clone().into()),
        _ => setting.value.clone().into(),
    };
    let mut at = config;
    let mut parts = setting.key.split('.').map(str::trim).peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            at.insert(part.to_string(), value);
            break;
        }
        let below = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let kind = below.type_str();
        at = below.as_table_mut().ok_or_else(|| Error::Setting {
            name: setting.key.clone(),
            expected: format!("a table at `{part}`"),
            got: kind.to_string(),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        name: String,
        train: Train,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Train {
        steps: usize,
        rates: Vec<f32>,
    }

    #[test]
    fn settings_go_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "name = \"a\"\n[train]\nsteps = 1\nrates = [1.0]\n").unwrap();
        let read = |set: &[&str]| {
            let set: Vec<Setting> = set.iter().map(|text| text.parse().unwrap()).collect();
            read_config::<Config>(&path, &set)
        };
        let config = |name: &str, steps, rates: &[f32]| Config { name: name.to_string(), train: Train { steps, rates: rates.to_vec() } };
        assert_eq!(read(&[]).unwrap(), config("a", 1, &[1.0]));
        let set = ["name=two words", "train.steps = 2", "train.rates=[0.5, 2.0]", "train.steps=3"];
        assert_eq!(read(&set).unwrap(), config("two words", 3, &[0.5, 2.0]));
        for (set, needle) in [("train.step=1", "step"), ("name.x=1", "table at `name`"), ("train.steps=-1", "-1"), ("train=1", "train")] {
            let text = read(&[set]).unwrap_err().to_string();
            assert!(text.contains(needle), "{set}: {text}");
        }
    }
}
