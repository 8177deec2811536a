//! The folder is what PEFT's own code writes and reads (`tests/peft.rs` runs that where it is installed); what goes out comes back bit for bit; what
//! an adapter cannot say is refused.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use llmar::checkpoint::{Calibration, TokenizerKind, TokenizerMeta, Words};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::*;
use crate::artifacts::{Answer, BaseMeta, FloatTensor, Reads, base_tensors, open, write};
use crate::testing::{Random, tiny_config};

const RANK: usize = 4;

/// A base model and an adapter in a folder.
struct Fixture {
    folder: tempfile::TempDir,
    adapter: Vec<FloatTensor>,
    meta: AdapterMeta,
}

impl Fixture {
    /// With a LoRA on these (layer, target), whose matrices have these shapes.
    fn new(places: &[(usize, &str, [usize; 2])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random::new(3);
        let base: Vec<FloatTensor> = base_tensors(&tiny_config())
            .into_iter()
            .map(|t| (t.name, t.shape.clone(), random.halves(t.shape.iter().product()), t.store))
            .collect();
        let tokenizer = TokenizerMeta { kind: TokenizerKind::ByteLevelBpe, bos_id: None, unk_id: None };
        let base_meta = BaseMeta { config: tiny_config(), tokenizer, eos_id: 0, source: "tiny.gguf".into(), source_sha256: "5".repeat(64) };
        write(&folder.path().join("base"), &base_meta, &base).unwrap();
        let mut adapter = vec![("quantizer.embedding".to_owned(), vec![8, 32], random.halves(8 * 32), Store::F16)];
        for &(layer, target, [rows, cols]) in places {
            adapter.push((name(layer, target, "a"), vec![RANK, cols], random.halves(RANK * cols), Store::F16));
            adapter.push((name(layer, target, "b"), vec![rows, RANK], random.halves(rows * RANK), Store::F16));
        }
        for (name, shape) in [("words.weight", vec![3, 5]), ("words.bias", vec![3]), ("words.mean", vec![3])] {
            let values = (0..shape.iter().product()).map(|_| 0.5 + 0.3 * random.uniform()).collect();
            adapter.push((name.to_owned(), shape, values, Store::F32));
        }
        let meta = AdapterMeta {
            name: "wink — 眨眼".to_owned(),
            rank: RANK,
            alpha: 16.0,
            prefix: "Given".to_owned(),
            suffix: ":".to_owned(),
            answer_lead: " ".to_owned(),
            answer: Answer::LabelText,
            reads: Reads::Codes,
            labels: vec!["a".to_owned(), "b".to_owned()],
            needs: BTreeMap::new(),
            idle: None,
            calibration: Calibration { temperature: 1.1, unknown_below: 0.3 },
            words: Some(Words { vocabulary: ["down", "right", "up"].map(str::to_owned).to_vec(), temperature: 0.2 }),
            stage1_sha256: "1".repeat(64),
            base_source_sha256: "5".repeat(64),
            provenance: BTreeMap::from([("seed".to_owned(), "7".to_owned())]),
        };
        let fixture = Self { folder, adapter, meta };
        fixture.write("adapter");
        fixture
    }

    fn usual() -> Self {
        Self::new(&[(0, "q", [32, 32]), (0, "v", [16, 32]), (1, "q", [32, 32]), (1, "v", [16, 32])])
    }

    fn write(&self, name: &str) {
        write(&self.path(name), &self.meta, &self.adapter).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn export(&self) -> Result<usize> {
        export(&self.path("adapter"), &self.path("base"), Some("org/tiny"), &self.path("peft"))
    }

    fn import(&self, template: Option<&str>) -> Result<Imported> {
        let template = template.map(|name| self.path(name));
        import(&self.path("peft"), &self.path("base"), template.as_deref(), &self.path("back"))
    }

    fn settings(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("peft/adapter_config.json")).unwrap()).unwrap()
    }

    fn set(&self, key: &str, value: Value) {
        let mut settings = self.settings();
        settings[key] = value;
        std::fs::write(self.path("peft/adapter_config.json"), settings.to_string()).unwrap();
    }

    /// Writes `adapter_model.safetensors` anew, from what is in it.
    fn rewrite(&self, change: impl FnOnce(&mut Tensors)) {
        let path = self.path("peft/adapter_model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Tensors =
            read.iter().map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))).collect();
        change(&mut tensors);
        let views = tensors.iter().map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

const Q0A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

fn bytes_of(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn the_folder_has_the_names_and_settings_of_peft() {
    let fixture = Fixture::usual();
    assert_eq!(fixture.export().unwrap(), 4);
    let mut files: Vec<_> =
        std::fs::read_dir(fixture.path("peft")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.sort_unstable();
    assert_eq!(files, ["adapter_config.json", "adapter_model.safetensors", "llmar_codes.safetensors"]);

    // By hand, from get_peft_model_state_dict and LoraConfig of peft 0.21.2.
    let bytes = bytes_of(&fixture.path("peft/adapter_model.safetensors"));
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata(), &Some(HashMap::from([("format".to_owned(), "pt".to_owned())])));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let infos = header.tensors();
    let mut shapes: Vec<(&str, &[usize], Dtype)> = infos.iter().map(|(name, info)| (&name[..], &info.shape[..], info.dtype)).collect();
    shapes.sort_unstable_by_key(|(name, ..)| *name);
    let expected = [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", [4usize, 32]),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", [32, 4]),
        ("base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight", [4, 32]),
        ("base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight", [16, 4]),
        ("base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", [4, 32]),
        ("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight", [32, 4]),
        ("base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight", [4, 32]),
        ("base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight", [16, 4]),
    ];
    assert_eq!(shapes, expected.each_ref().map(|(name, shape)| (*name, &shape[..], Dtype::F16)));
    let data: Vec<f32> = tensors.tensor(Q0A).unwrap().data().as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect();
    assert_eq!(data, fixture.adapter[1].2);

    let settings = fixture.settings();
    for (key, value) in [
        ("peft_type", json!("LORA")),
        ("task_type", json!("CAUSAL_LM")),
        ("r", json!(4)),
        ("lora_alpha", json!(16)),
        ("lora_dropout", json!(0.0)),
        ("target_modules", json!(["q_proj", "v_proj"])),
        ("layers_to_transform", json!(null)),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("base_model_name_or_path", json!("org/tiny")),
        ("inference_mode", json!(true)),
        ("use_rslora", json!(false)),
        ("use_dora", json!(false)),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
        ("modules_to_save", json!(null)),
    ] {
        assert_eq!(settings.get(key), Some(&value), "{key}");
    }
    export(&fixture.path("adapter"), &fixture.path("base"), None, &fixture.path("peft")).unwrap();
    assert_eq!(fixture.settings()["base_model_name_or_path"], "tiny.gguf");
}

#[test]
fn what_goes_out_comes_back_bit_for_bit() {
    let mlp = [(0, "down", [32, 64]), (0, "gate", [64, 32])];
    for (fixture, modules, layers) in [
        (Fixture::usual(), json!(["q_proj", "v_proj"]), json!(null)),
        (Fixture::new(&[(1, "k", [16, 32]), (1, "o", [32, 32])]), json!(["k_proj", "o_proj"]), json!([1])),
        (Fixture::new(&mlp), json!(["gate_proj", "down_proj"]), json!([0])),
        // No rectangle of modules × layers.
        (
            Fixture::new(&[(0, "q", [32, 32]), (1, "up", [64, 32])]),
            json!(["layers.0.self_attn.q_proj", "layers.1.mlp.up_proj"]),
            json!(null),
        ),
    ] {
        fixture.export().unwrap();
        let settings = fixture.settings();
        assert_eq!((&settings["target_modules"], &settings["layers_to_transform"]), (&modules, &layers));
        for template in [None, Some("adapter")] {
            let imported = fixture.import(template).unwrap();
            assert!(!imported.other_lora);
            assert_eq!((imported.pairs, imported.rounding.changed), ((fixture.adapter.len() - 4) / 2, 0));
            assert_eq!(bytes_of(&fixture.path("back")), bytes_of(&fixture.path("adapter")));
        }
    }
    // An alpha that no short decimal has.
    let mut fixture = Fixture::usual();
    fixture.meta.alpha = f32::from_bits(0x4049_0fdb);
    fixture.write("adapter");
    fixture.export().unwrap();
    fixture.import(None).unwrap();
    assert_eq!(bytes_of(&fixture.path("back")), bytes_of(&fixture.path("adapter")));
}

#[test]
fn wider_numbers_are_rounded_and_counted() {
    let fixture = Fixture::usual();
    fixture.export().unwrap();
    let count = RANK * (4 * 32 + 2 * 32 + 2 * 16); // A of 32 columns four times; B of 32 and of 16 rows, twice each
    // The same numbers in f32 change nothing.
    fixture.rewrite(|tensors| {
        for (dtype, _, data) in tensors.values_mut() {
            *data = data.as_chunks().0.iter().flat_map(|&b| f16::from_le_bytes(b).to_f32().to_le_bytes()).collect();
            *dtype = Dtype::F32;
        }
    });
    let imported = fixture.import(None).unwrap();
    assert_eq!(imported.rounding, Rounding { values: count, changed: 0, vanished: 0 });
    assert_eq!(bytes_of(&fixture.path("back")), bytes_of(&fixture.path("adapter")));

    let a = |values: Vec<f32>| values.into_iter().chain(std::iter::repeat(0.5)).take(RANK * 32).collect::<Vec<f32>>();
    fixture.rewrite(|tensors| {
        let data = a(vec![1e-9, -1e-9, 0.1, 65_519.0, -0.0]).iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.insert(Q0A.to_owned(), (Dtype::F32, vec![RANK, 32], data));
    });
    let imported = fixture.import(None).unwrap();
    assert_eq!(imported.rounding, Rounding { values: count, changed: 4, vanished: 2 });
    assert!(imported.other_lora && imported.meta.provenance["peft_rounded"] == format!("4 of {count} values"));
    assert!(imported.meta.provenance["peft"].contains("org/tiny"), "{:?}", imported.meta.provenance);
    let back = open::<AdapterMeta>(&fixture.path("back")).unwrap();
    assert_eq!(back.floats("lora.layers.0.q.a", &[RANK, 32]).unwrap()[..5], [0.0, -0.0, f16::from_f32(0.1).to_f32(), 65_504.0, -0.0]);
    assert_eq!((back.meta.labels, back.meta.calibration), (fixture.meta.labels.clone(), fixture.meta.calibration));

    // bf16 has fewer digits than f16 and a wider range.
    fixture.rewrite(|tensors| {
        let data = a(vec![1.0 / 3.0, 1e-30]).iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        tensors.insert(Q0A.to_owned(), (Dtype::BF16, vec![RANK, 32], data));
    });
    assert_eq!(fixture.import(None).unwrap().rounding, Rounding { values: count, changed: 1, vanished: 1 });

    for (value, dtype) in [(65_520.0, Dtype::F32), (f32::NAN, Dtype::F32), (f32::INFINITY, Dtype::BF16), (f32::NEG_INFINITY, Dtype::F16)] {
        let before = bytes_of(&fixture.path("back"));
        fixture.rewrite(|tensors| {
            let values = a(vec![1.0, value]);
            let data: Vec<u8> = match dtype {
                Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                Dtype::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            };
            tensors.insert(Q0A.to_owned(), (dtype, vec![RANK, 32], data));
        });
        let error = fixture.import(None).unwrap_err().to_string();
        assert!(error.contains(Q0A) && error.contains(&format!("value 1 is {value}")), "{error}");
        assert_eq!(bytes_of(&fixture.path("back")), before, "a failed import leaves the previous adapter");
    }
}

#[test]
fn tensors_that_an_adapter_cannot_hold_are_refused() {
    let refused = |change: fn(&mut Tensors), needle: &str| {
        let fixture = Fixture::usual();
        fixture.export().unwrap();
        fixture.rewrite(change);
        let error = fixture.import(None).expect_err(needle);
        assert!(error.to_string().contains(needle), "expected {needle:?} in {error}");
        assert!(!fixture.path("back").exists());
        error
    };
    // Each of these names stands for something that PEFT saves and an adapter has no place for.
    macro_rules! named {
        ($($to:literal),*) => { $({
            let error = refused(|tensors| { let tensor = tensors[Q0A].clone(); tensors.insert($to.to_owned(), tensor); }, $to);
            assert!(matches!(&error, Error::Unsupported { name, .. } if name == $to), "{error}");
        })* };
    }
    named!(
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.01.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.rotary.lora_A.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight"
    );
    refused(|tensors| drop(tensors.remove(Q0A)), "q_proj.lora_A.weight` is missing: its other half is there");
    refused(
        |tensors| tensors.retain(|name, _| !name.contains("layers.1.self_attn.v_proj")),
        "layers.1.self_attn.v_proj.lora_A.weight` is missing: the settings name its module",
    );
    refused(|tensors| tensors.clear(), "no matrix has a LoRA");
    refused(|tensors| tensors.get_mut(Q0A).unwrap().1 = vec![32, 4], "expected shape [4, 32], got [32, 4]");
    let error = refused(|tensors| *tensors.get_mut(Q0A).unwrap() = (Dtype::F64, vec![4, 32], vec![0; 1024]), "F64");
    assert!(matches!(error, Error::Unsupported { .. }));
}

#[test]
fn settings_and_tensors_must_tell_the_same() {
    let fixture = Fixture::usual();
    fixture.export().unwrap();
    let error = |key: &str, value: Value| {
        fixture.export().unwrap();
        fixture.set(key, value);
        fixture.import(None).unwrap_err()
    };
    let says = |error: Error, needle: &str| assert!(error.to_string().contains(needle), "expected {needle:?} in {error}");
    says(error("target_modules", json!(["q_proj"])), "v_proj.lora_A.weight`: the settings name no such module");
    says(error("layers_to_transform", json!([0])), "layers.1.self_attn.q_proj.lora_A.weight`: the settings name no such module");
    says(error("target_modules", json!(["q_proj", "v_proj", "o_proj"])), "o_proj.lora_A.weight` is missing");
    says(error("r", json!(8)), "expected shape [8, 32], got [4, 32]");
    assert!(matches!(error("use_dora", json!(true)), Error::Unsupported { .. }));
    // A pattern is not evaluated: what stands in the file is what is meant.
    fixture.export().unwrap();
    fixture.set("target_modules", json!(".*(q|v)_proj"));
    assert!(!fixture.import(None).unwrap().other_lora);
    // √4 = 2: PEFT's factor 16/2 is ours with alpha 32.
    fixture.set("use_rslora", json!(true));
    let imported = fixture.import(None).unwrap();
    assert!(imported.other_lora && imported.meta.alpha == 32.0);
}

#[test]
fn codes_come_from_the_folder_or_a_template_of_the_same_base_model() {
    let mut fixture = Fixture::usual();
    fixture.export().unwrap();
    std::fs::remove_file(fixture.path("peft/llmar_codes.safetensors")).unwrap();
    let error = fixture.import(None).unwrap_err().to_string();
    assert!(error.contains("--adapter") && error.contains("llmar_codes.safetensors"), "{error}");
    assert!(!fixture.import(Some("adapter")).unwrap().other_lora);
    assert_eq!(bytes_of(&fixture.path("back")), bytes_of(&fixture.path("adapter")));

    // A template with another LoRA, of another rank, gives its codes and texts, and the provenance says whose the LoRA is.
    let mut other = Fixture::new(&[(0, "o", [32, 32])]);
    other.meta.labels = vec!["c".to_owned()];
    other.write("adapter");
    std::fs::copy(other.path("adapter"), fixture.path("template")).unwrap();
    let imported = fixture.import(Some("template")).unwrap();
    assert!(imported.other_lora && imported.to_string().contains("calibration"));
    let back = open::<AdapterMeta>(&fixture.path("back")).unwrap();
    assert_eq!((back.meta.labels.clone(), back.meta.provenance["seed"].as_str(), back.meta.rank), (other.meta.labels.clone(), "7", RANK));
    assert!(back.meta.provenance.contains_key("peft") && back.info("lora.layers.0.o.a").is_none());
    assert_eq!(back.floats("quantizer.embedding", &[8, 32]).unwrap(), other.adapter[0].2);

    fixture.meta.base_source_sha256 = "6".repeat(64);
    fixture.write("adapter");
    assert!(matches!(fixture.import(Some("adapter")), Err(Error::Mismatch { .. })));
    assert!(matches!(fixture.export(), Err(Error::Mismatch { .. })));

    std::fs::rename(fixture.path("peft/adapter_model.safetensors"), fixture.path("peft/adapter_model.bin")).unwrap();
    assert!(matches!(fixture.import(Some("template")), Err(Error::Unsupported { name, .. }) if name == "adapter_model.bin"));
}

#[test]
fn half_an_adapter_is_not_exported() {
    let mut fixture = Fixture::usual();
    let whole = fixture.adapter.clone();
    let refused = |fixture: &Fixture, needle: &str| {
        fixture.write("adapter");
        let error = fixture.export().expect_err(needle).to_string();
        assert!(error.contains(needle), "expected {needle:?} in {error}");
        assert!(!fixture.path("peft").exists());
    };
    fixture.adapter.remove(2);
    refused(&fixture, "`lora.layers.0.q.b` is missing");
    fixture.adapter = whole[..1].to_vec();
    refused(&fixture, "no matrix has a LoRA");
    fixture.adapter = whole[1..].to_vec();
    refused(&fixture, "quantizer.embedding");
    fixture.adapter = whole.clone();
    fixture.adapter[1].3 = Store::F32;
    refused(&fixture, "expected f16, got F32");
    fixture.adapter = whole;
    fixture.adapter[1].1 = vec![32, RANK];
    refused(&fixture, "expected shape [4, 32], got [32, 4]");
}
