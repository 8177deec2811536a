//! `adapter_config.json`, as far as it says what the matrices do.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Place;
use crate::error::{Error, Result};
use crate::export::merge::MAX_RANK;

/// Largest file.
const MAX_BYTES: u64 = 16 << 20;

/// Keys without a say in what a trained LoRA does: how it is trained, initialised or stored, and what was trained on.
const WITHOUT_EFFECT: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "velora_config",
    "layers_pattern",  // read beside layers_to_transform
    "exclude_modules", // read beside target_modules
];

/// The starts that leave the base weights as they are. PEFT repeats the others (pissa, olora, corda, loftq, …) when it loads such an adapter, and
/// takes what they put into the LoRA out of the base weights.
const STARTS: [&str; 4] = ["default", "gaussian", "orthogonal", "eva"];

/// What an adapter's settings say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    /// r
    pub rank: usize,
    /// Such that (alpha / rank) is PEFT's factor, with or without `use_rslora`.
    pub alpha: f32,
    /// The base model's name, for people.
    pub base_name: String,
    /// Endings of the adapted modules' names; `None` where they are given by a pattern.
    modules: Option<Vec<String>>,
    /// Endings of modules that are not adapted.
    excluded: Vec<String>,
    /// The layers adapted; `None`: all.
    layers: Option<Vec<usize>>,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the key for what an adapter of this project cannot say; [`Error::Format`] for what is no such file.
    pub fn read(path: &Path) -> Result<Self> {
        use std::io::Read as _;
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(Error::io(path))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::format(path.display(), format!("expected settings of at most {MAX_BYTES} bytes")));
        }
        // Errors name line and column.
        let keys: Map<String, Value> = serde_json::from_slice(&text).map_err(|e| Error::format(path.display(), e))?;
        Reader { path: path.to_path_buf(), keys }.config()
    }

    /// Whether these settings adapt a matrix; `None` where they give the modules by a pattern, which is not evaluated here.
    pub fn adapts(&self, place: Place) -> Option<bool> {
        let modules = self.modules.as_ref()?;
        let name = format!("model.{}", place.module());
        let among = |endings: &[String]| endings.iter().any(|end| name == *end || name.ends_with(&format!(".{end}")));
        let layer = self.layers.as_ref().is_none_or(|layers| layers.contains(&place.layer));
        Some(layer && among(modules) && !among(&self.excluded))
    }
}

struct Reader {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl Reader {
    fn config(&self) -> Result<Config> {
        self.is("peft_type", "\"LORA\"", |value| value == "LORA")?;
        self.is("task_type", "\"CAUSAL_LM\" or null", |value| value.is_null() || value == "CAUSAL_LM")?;
        self.is("bias", "\"none\": no bias can be stored", |value| value.is_null() || value == "none")?;
        let start = |value: &Value| value.is_null() || value.is_boolean() || value.as_str().is_some_and(|word| STARTS.contains(&word));
        let starts = format!("true, false or one of {STARTS:?}: the others change the base weights too");
        self.is("init_lora_weights", &starts, start)?;

        let rank = self.get("r").as_u64().and_then(|r| usize::try_from(r).ok()).filter(|r| (1..=MAX_RANK).contains(r));
        let rank = rank.ok_or_else(|| self.unsupported("r", format!("1..={MAX_RANK}")))?;
        let alpha = self.get("lora_alpha").as_f64().ok_or_else(|| self.unsupported("lora_alpha", "a number"))?;
        self.pattern("rank_pattern", "r", rank as f64)?;
        self.pattern("alpha_pattern", "lora_alpha", alpha)?;
        let stable = match self.get("use_rslora") {
            Value::Null => false,
            Value::Bool(stable) => *stable,
            _ => return Err(self.unsupported("use_rslora", "true or false")),
        };
        let alpha = match stable {
            false => {
                Some(alpha as f32).filter(|alpha| alpha.is_finite()).ok_or_else(|| self.unsupported("lora_alpha", "a number of f32"))?
            }
            true => alpha_for(alpha / (rank as f64).sqrt(), rank).ok_or_else(|| {
                let expected = format!("false, as no f32 alpha over r = {rank} is lora_alpha {alpha} over the root of r exactly");
                self.unsupported("use_rslora", expected)
            })?,
        };

        let read = ["peft_type", "task_type", "bias", "init_lora_weights", "r", "lora_alpha", "rank_pattern", "alpha_pattern"];
        let read = [&read[..], &["use_rslora", "target_modules", "layers_to_transform"]].concat();
        for (key, value) in &self.keys {
            // All that is left asks for something beside the pairs, as use_dora, fan_in_fan_out and modules_to_save do, or is from a later PEFT.
            if !read.contains(&&key[..]) && !WITHOUT_EFFECT.contains(&&key[..]) && !is_empty(value) {
                return Err(self.unsupported(key, "null, false or empty, as an adapter holds pairs of matrices and nothing else"));
            }
        }
        let (modules, excluded) = self.modules()?;
        let base_name = self.get("base_model_name_or_path").as_str().unwrap_or_default().to_owned();
        Ok(Config { rank, alpha, base_name, modules, excluded, layers: self.layers()? })
    }

    fn modules(&self) -> Result<(Option<Vec<String>>, Vec<String>)> {
        let list = |key: &str| match self.get(key) {
            Value::Null | Value::String(_) => Ok(None),
            Value::Array(words) => {
                let words: Option<Vec<String>> = words.iter().map(|word| word.as_str().map(str::to_owned)).collect();
                words.map(Some).ok_or_else(|| self.unsupported(key, "a list of names, a pattern or null"))
            }
            _ => Err(self.unsupported(key, "a list of names, a pattern or null")),
        };
        let (modules, excluded) = (list("target_modules")?, list("exclude_modules")?);
        // A pattern of modules that are left out makes the whole choice one of patterns.
        if self.get("exclude_modules").is_string() {
            return Ok((None, Vec::new()));
        }
        Ok((modules, excluded.unwrap_or_default()))
    }

    fn layers(&self) -> Result<Option<Vec<usize>>> {
        let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
        let layers = match self.get("layers_to_transform") {
            Value::Null => return Ok(None),
            Value::Array(indices) => indices.iter().map(index).collect(),
            one => index(one).map(|one| vec![one]),
        };
        let pattern = self.get("layers_pattern");
        let usual = |value: &Value| value == "layers";
        if !(is_empty(pattern) || usual(pattern) || pattern.as_array().is_some_and(|list| list.iter().any(usual))) {
            return Err(self.unsupported("layers_pattern", "null or \"layers\""));
        }
        layers.map(Some).ok_or_else(|| self.unsupported("layers_to_transform", "a list of layers, a layer or null"))
    }

    /// A pattern may name modules as long as it gives them what all have.
    fn pattern(&self, key: &str, of: &str, common: f64) -> Result<()> {
        let empty = Map::new();
        let values = match self.get(key) {
            Value::Null => &empty,
            Value::Object(values) => values,
            _ => return Err(self.unsupported(key, "an object or null")),
        };
        match values.values().find(|value| value.as_f64() != Some(common)) {
            Some(_) => Err(self.unsupported(key, format!("{common} for each module, as `{of}` has it"))),
            None => Ok(()),
        }
    }

    fn is(&self, key: &str, expected: &str, allowed: impl Fn(&Value) -> bool) -> Result<()> {
        if allowed(self.get(key)) { Ok(()) } else { Err(self.unsupported(key, expected)) }
    }

    /// Null where the key is not there.
    fn get(&self, key: &str) -> &Value {
        self.keys.get(key).unwrap_or(&Value::Null)
    }

    fn unsupported(&self, key: &str, expected: impl Into<String>) -> Error {
        let got = self.get(key).to_string();
        let got = if got.chars().count() > 200 { got.chars().take(200).chain("…".chars()).collect() } else { got };
        Error::Unsupported { file: self.path.clone(), name: key.to_owned(), expected: expected.into(), got }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(keys) => keys.is_empty(),
    }
}

/// The f32 alpha whose alpha / rank is `factor`, both rounded to f32; `None` where there is none, as for some odd ranks.
fn alpha_for(factor: f64, rank: usize) -> Option<f32> {
    let near = (factor * rank as f64) as f32;
    let factor = factor as f32;
    [near, near.next_up(), near.next_down()].into_iter().find(|alpha| alpha.is_finite() && *alpha / rank as f32 == factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(changes: Value) -> Result<Config> {
        let mut keys = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none",
            "fan_in_fan_out": false, "init_lora_weights": true, "inference_mode": true, "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {}, "alpha_pattern": {}, "use_dora": false, "use_rslora": false, "peft_version": "0.21.2",
            "qalora_group_size": 16, "megatron_core": "megatron.core", "loftq_config": {}, "base_model_name_or_path": "a/b",
        });
        for (key, value) in changes.as_object().unwrap() {
            keys[key] = value.clone();
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter_config.json");
        std::fs::write(&path, keys.to_string()).unwrap();
        Config::read(&path)
    }

    fn place(layer: usize, target: usize) -> Place {
        Place { layer, target }
    }

    #[test]
    fn settings_as_peft_writes_them_are_read() {
        let config = read(json!({})).unwrap();
        assert_eq!((config.rank, config.alpha, config.base_name.as_str()), (8, 16.0, "a/b"));
        assert_eq!([0, 1, 2].map(|target| config.adapts(place(5, target))), [Some(true), Some(false), Some(true)]);
        let config = read(json!({"layers_to_transform": [0, 2], "target_modules": ["self_attn.o_proj", "layers.2.mlp.up_proj"]})).unwrap();
        assert_eq!([0, 1, 2].map(|layer| config.adapts(place(layer, 3))), [Some(true), Some(false), Some(true)]);
        assert_eq!([0, 1, 2].map(|layer| config.adapts(place(layer, 5))), [Some(false), Some(false), Some(true)]);
        // A name ends a module only behind a dot.
        assert_eq!(read(json!({"target_modules": ["proj"]})).unwrap().adapts(place(0, 0)), Some(false));
        assert_eq!(read(json!({"target_modules": "all-linear"})).unwrap().adapts(place(0, 0)), None);
        let excluded = read(json!({"exclude_modules": ["layers.1.self_attn.q_proj"]})).unwrap();
        assert_eq!([0, 1].map(|layer| excluded.adapts(place(layer, 0))), [Some(true), Some(false)]);
        assert_eq!(read(json!({"exclude_modules": ".*q.*"})).unwrap().adapts(place(0, 0)), None);
        assert_eq!(read(json!({"layers_to_transform": 1})).unwrap().adapts(place(1, 0)), Some(true));
    }

    #[test]
    fn the_factor_is_pefts() {
        for (rank, alpha) in [(1usize, 1.0), (4, 0.1), (8, 16.0), (12, 7.0), (64, 16.0), (33, 2.5)] {
            let plain = read(json!({"r": rank, "lora_alpha": alpha})).unwrap();
            assert_eq!(plain.alpha, alpha as f32);
        }
        // With use_rslora, PEFT divides by √r: alpha is what gives the same factor over r.
        for rank in [1usize, 2, 4, 8, 9, 16, 25, 32, 64, 100, 128, 256, 4096] {
            for alpha in [1.0, 16.0, 2.5, 0.1] {
                let stable = read(json!({"r": rank, "lora_alpha": alpha, "use_rslora": true})).unwrap();
                assert_eq!(stable.alpha / rank as f32, (alpha / (rank as f64).sqrt()) as f32, "{rank}");
            }
        }
        let error = read(json!({"r": 11, "lora_alpha": 2.5, "use_rslora": true})).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { name, .. } if name == "use_rslora"), "{error}");
        assert_eq!(read(json!({"r": 16, "use_rslora": true})).unwrap().alpha, 64.0);
    }

    #[test]
    fn what_an_adapter_cannot_say_is_refused_by_its_key() {
        for (key, value) in [
            ("peft_type", json!("LOHA")),
            ("peft_type", json!(null)),
            ("task_type", json!("SEQ_CLS")),
            ("bias", json!("lora_only")),
            ("use_dora", json!(true)),
            ("fan_in_fan_out", json!(true)),
            ("lora_bias", json!(true)),
            ("use_qalora", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("layer_replication", json!([[0, 4], [2, 5]])),
            ("trainable_token_indices", json!([1])),
            ("alora_invocation_tokens", json!([5, 6])),
            ("target_parameters", json!(["x"])),
            ("monteclora_config", json!({"n": 1})),
            ("something_of_tomorrow", json!(0.5)),
            ("rank_pattern", json!({"q_proj": 4})),
            ("alpha_pattern", json!({"q_proj": 8})),
            ("alpha_pattern", json!({"q_proj": "16"})),
            ("rank_pattern", json!([])),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("init_lora_weights", json!("olora")),
            ("use_rslora", json!("yes")),
            ("r", json!(0)),
            ("r", json!(4097)),
            ("r", json!(8.5)),
            ("lora_alpha", json!("16")),
            ("lora_alpha", json!(1e60)),
            ("target_modules", json!([1])),
            ("layers_to_transform", json!([-1])),
        ] {
            match read(json!({key: value.clone()})) {
                Err(Error::Unsupported { name, got, file, .. }) => {
                    assert_eq!((name.as_str(), got), (key, value.to_string()));
                    assert!(file.ends_with("adapter_config.json"));
                }
                other => panic!("{key} {value}: {other:?}"),
            }
        }
        assert!(matches!(read(json!({"layers_to_transform": [0], "layers_pattern": "h"})),
            Err(Error::Unsupported { name, .. }) if name == "layers_pattern"));
        for (key, value) in [("rank_pattern", json!({"q_proj": 8})), ("alpha_pattern", json!({"v": 16})), ("lora_bias", json!(false))] {
            read(json!({key: value})).unwrap();
        }
    }
}
