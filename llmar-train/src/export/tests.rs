//! Checkpoints written from tiny artifacts, read back through the runtime; and a real model's logits after import and export.

use std::collections::BTreeMap;
use std::path::PathBuf;

use llmar::checkpoint::{Calibration, Checkpoint, ReadOptions, TokenizerKind, TokenizerMeta, Words};
use llmar::control::Control;
use llmar::device::{Device, Geometry, Input, Matrix, Rows};
use llmar::llama::{KvCache, LlamaConfig, Weights, Workspace};
use llmar::motion::{EncoderConfig, QuantizerConfig};
use llmar::recognizer::{Model, OpenOptions};
use llmar::skeleton::{Centre, Heading, Layout, Preprocess, Resample, Scale};

use super::*;
use llmar::text::TokenizerTables;

use crate::artifacts::{Answer, FloatTensor, Planned, Reads, Values, base_tensors, write, write_lazily};
use crate::import::import;
use crate::testing::{Random, shared, tiny_config};

const CODES: usize = 8;
const RANK: usize = 3;
const ALPHA: f32 = 6.0;
const PREFIX: &str = "Given <|im_start|>";
const SUFFIX: &str = ", name it:";

/// The three artifacts in a folder of their own, and what was put into them.
struct Fixture {
    folder: tempfile::TempDir,
    base: BTreeMap<String, Vec<f32>>,
    /// Name → values, for the tensors of the adapter.
    adapter: Vec<FloatTensor>,
    stage1: Vec<FloatTensor>,
    meta: AdapterMeta,
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn export(&self, scheme: Scheme) -> Result<Checkpoint> {
        let out = self.path("m.llmar");
        export(&self.path("base"), &self.path("stage1"), &self.path("adapter"), scheme, &out)?;
        Ok(Checkpoint::open(&out, ReadOptions { verify: true })?)
    }

    fn write_adapter(&self) {
        write(&self.path("adapter"), &self.meta, &self.adapter).unwrap();
    }
}

/// Ids: 0 end, 1 a special token, then the 256 bytes, then "it".
fn tables(vocab: usize) -> TokenizerTables {
    let mut pieces = vec![b"<|end|>".to_vec(), b"<|im_start|>".to_vec()];
    pieces.extend((0..=255).map(|byte| vec![byte]));
    pieces.push(b"it".to_vec());
    pieces.resize(vocab, Vec::new());
    let meta = TokenizerMeta { kind: TokenizerKind::ByteLevelBpe, bos_id: None, unk_id: None };
    TokenizerTables { meta, pieces, merges: vec![(2 + u32::from(b'i'), 2 + u32::from(b't'))], special: vec![0, 1] }
}

fn stage1_meta() -> Stage1Meta {
    let joints = Layout::find("kinect1_20").unwrap().joints;
    let preprocess = Preprocess {
        layout: "kinect1_20".to_string(),
        root: joints[0].clone(),
        derived: vec![],
        persons: 1,
        coords: 3,
        frames: 16,
        resample: Resample::Stretch,
        centre: Centre::FirstFrame,
        heading: Heading::Keep,
        scale: Scale::Keep,
        velocities: true,
        mean: vec![0.25; joints.len() * 3],
        position_spread: 0.5,
        velocity_spread: 0.1,
        joints,
    };
    let encoder = EncoderConfig { inputs: 120, width: 4, halvings: 2, dilations: vec![3, 1], outputs: 5, causal: false };
    let quantizer = QuantizerConfig { codes: CODES, dim: 5, geometry: Geometry::Poincare { curvature: 1.0 }, gain: 0.5, clip: 1.0 };
    Stage1Meta { preprocess, encoder, quantizer, provenance: BTreeMap::new() }
}

fn fixture(config: LlamaConfig) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::new(5);
    let mut halves = |shape: &[usize]| random.halves(shape.iter().product());

    let mut plan = base_tensors(&config);
    let base: BTreeMap<String, Vec<f32>> = plan.iter().map(|tensor| (tensor.name.clone(), halves(&tensor.shape))).collect();
    let tables = tables(config.vocab_size);
    let meta = BaseMeta {
        config: config.clone(),
        tokenizer: tables.meta,
        eos_id: 0,
        source: "made up".to_string(),
        source_sha256: "5".repeat(64),
    };
    let vocabulary = tables.tensors();
    let matrices = plan.len();
    plan.extend(vocabulary.iter().map(|tensor| {
        let store = if tensor.name == "tokenizer.pieces" { Store::U8 } else { Store::U32 };
        Planned { name: tensor.name.clone(), shape: tensor.shape.clone(), store }
    }));
    write_lazily(&folder.path().join("base"), &meta, &plan, &|index| {
        Ok(match index.checked_sub(matrices).map(|table| &vocabulary[table].data) {
            None => Values::Floats(Cow::Borrowed(&base[&plan[index].name])),
            Some(TensorData::U8(bytes)) => Values::Bytes(Cow::Borrowed(bytes)),
            Some(TensorData::U32(ids)) => Values::Integers(Cow::Borrowed(ids)),
            Some(other) => panic!("a table of {other:?}"),
        })
    })
    .unwrap();

    let meta = stage1_meta();
    let mut stage1 = vec![("quantizer.tangent".to_string(), vec![CODES, 5], halves(&[CODES, 5]), Store::F32)];
    for conv in meta.encoder.convs() {
        let shape = vec![conv.c_out, conv.kernel * conv.c_in];
        stage1.push((format!("{}.bias", conv.name), vec![conv.c_out], halves(&[conv.c_out]), Store::F32));
        stage1.push((format!("{}.weight", conv.name), shape.clone(), halves(&shape), Store::F16));
    }
    write(&folder.path().join("stage1"), &meta, &stage1).unwrap();

    let hidden = config.hidden_size;
    let mut adapter = vec![("quantizer.embedding".to_string(), vec![CODES, hidden], halves(&[CODES, hidden]), Store::F16)];
    let (q, kv, ffn) =
        (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim, config.intermediate_size);
    for (layer, target, rows, cols) in
        [(0, "q", q, hidden), (0, "v", kv, hidden), (1, "k", kv, hidden), (1, "up", ffn, hidden), (1, "down", hidden, ffn)]
    {
        adapter.push((format!("lora.layers.{layer}.{target}.a"), vec![RANK, cols], halves(&[RANK, cols]), Store::F16));
        adapter.push((format!("lora.layers.{layer}.{target}.b"), vec![rows, RANK], halves(&[rows, RANK]), Store::F16));
    }
    for (name, shape) in [("words.weight", vec![3, 5]), ("words.bias", vec![3]), ("words.mean", vec![3])] {
        // No halves: the reading stays in f32.
        let values = halves(&shape).iter().map(|x| 0.5 + x / 3.0).collect();
        adapter.push((name.to_string(), shape, values, Store::F32));
    }
    let meta = AdapterMeta {
        name: "tiny".to_string(),
        rank: RANK,
        alpha: ALPHA,
        prefix: PREFIX.to_string(),
        suffix: SUFFIX.to_string(),
        answer_lead: " ".to_string(),
        answer: Answer::LabelText,
        reads: Reads::Codes,
        labels: vec!["sit".to_string(), "wave".to_string()],
        needs: BTreeMap::new(),
        idle: None,
        calibration: Calibration { temperature: 1.5, unknown_below: 0.25 },
        words: Some(Words { vocabulary: ["down", "right", "up"].map(str::to_owned).to_vec(), temperature: 0.2 }),
        stage1_sha256: artifacts::open::<Stage1Meta>(&folder.path().join("stage1")).unwrap().sha256(),
        base_source_sha256: "5".repeat(64),
        provenance: BTreeMap::new(),
    };
    let fixture = Fixture { folder, base, adapter, stage1, meta };
    fixture.write_adapter();
    fixture
}

impl Fixture {
    /// W + (alpha / rank) · B A, in f64, straight from the definition.
    fn merged(&self, layer: usize, part: &str, target: &str, cols: usize) -> Vec<f64> {
        let find = |part: &str| {
            let name = format!("lora.layers.{layer}.{target}.{part}");
            self.adapter.iter().find(|(other, ..)| *other == name).map(|(.., values, _)| values)
        };
        let base = &self.base[&format!("model.layers.{layer}.{part}.weight")];
        let at = |i: usize| {
            let (row, col) = (i / cols, i % cols);
            let delta = match (find("a"), find("b")) {
                (Some(a), Some(b)) => (0..RANK).map(|k| f64::from(b[row * RANK + k]) * f64::from(a[k * cols + col])).sum::<f64>(),
                _ => 0.0,
            };
            f64::from(base[i]) + f64::from(ALPHA) / RANK as f64 * delta
        };
        (0..base.len()).map(at).collect()
    }

    /// The rows of `qkv` or `gate_up`, and so on, as they must be.
    fn expected(&self, layer: usize, field: &str) -> Vec<f64> {
        let config = tiny_config();
        let (hidden, ffn, q) = (config.hidden_size, config.intermediate_size, config.num_attention_heads * config.head_dim);
        let parts: &[(&str, &str, usize)] = match field {
            "qkv" => &[("self_attn.q_proj", "q", hidden), ("self_attn.k_proj", "k", hidden), ("self_attn.v_proj", "v", hidden)],
            "o" => &[("self_attn.o_proj", "o", q)],
            "gate_up" => &[("mlp.gate_proj", "gate", hidden), ("mlp.up_proj", "up", hidden)],
            _ => &[("mlp.down_proj", "down", ffn)],
        };
        parts.iter().flat_map(|&(part, target, cols)| self.merged(layer, part, target, cols)).collect()
    }
}

fn rows_of(matrix: &Matrix) -> Vec<f32> {
    let mut out = vec![0.0; matrix.rows * matrix.cols];
    out.chunks_exact_mut(matrix.cols).enumerate().for_each(|(row, out)| matrix.row(row, out));
    out
}

/// Every value within `bound(largest weight of its matrix)` of what it must be.
fn assert_near(matrix: &Matrix, expected: &[f64], bound: impl Fn(f64) -> f64, what: &str) {
    let bound = bound(expected.iter().fold(0.0, |max, v| v.abs().max(max)));
    assert_eq!(matrix.rows * matrix.cols, expected.len(), "{what}");
    for (at, (got, &expected)) in rows_of(matrix).into_iter().zip(expected).enumerate() {
        assert!((f64::from(got) - expected).abs() <= bound, "{what}, value {at}: expected {expected} ± {bound}, got {got}");
    }
}

#[test]
fn merged_weights_come_back_in_every_scheme() {
    let fixture = fixture(tiny_config());
    // Rounding of the scheme: half a step of the largest weight's group. q4 has 15 steps from minimum to maximum and chooses both by squared
    // error, which may leave a weight at either end a whole step away.
    type Bound = fn(f64) -> f64;
    let schemes: [(Scheme, Bound); 4] = [
        (Scheme::F32, |max| 1e-6 * max),
        (Scheme::F16, |max| max / 2048.0 + 1e-6),
        (Scheme::Q8, |max| max / 127.0 * 0.51),
        (Scheme::Q4, |max| 2.0 * max / 15.0),
    ];
    for (scheme, bound) in schemes {
        let checkpoint = fixture.export(scheme).unwrap();
        let weights = Weights::read(&tiny_config(), &checkpoint).unwrap();
        for (i, layer) in weights.layers.iter().enumerate() {
            for (field, matrix) in [("qkv", &layer.qkv), ("o", &layer.o), ("gate_up", &layer.gate_up), ("down", &layer.down)] {
                // What the fixture's adapter changes is stored in q8 at q4.
                let changed = [(0, "qkv"), (1, "qkv"), (1, "gate_up"), (1, "down")].contains(&(i, field));
                let (stored, bound) = if changed && scheme == Scheme::Q4 { (Scheme::Q8, schemes[2].1) } else { (scheme, bound) };
                assert_eq!(matrix.scheme(), stored, "{scheme:?}, layer {i}, {field}");
                assert_near(matrix, &fixture.expected(i, field), bound, &format!("{scheme:?}, layer {i}, {field}"));
            }
            assert_eq!(layer.attn_norm.values(), fixture.base[&format!("model.layers.{i}.input_layernorm.weight")]);
            assert_eq!(layer.ffn_norm.values(), fixture.base[&format!("model.layers.{i}.post_attention_layernorm.weight")]);
        }
        assert_eq!(weights.norm.values(), fixture.base["model.norm.weight"]);
        let (words, words_bound) = if scheme == Scheme::Q4 { (Scheme::Q8, schemes[2].1) } else { (scheme, bound) };
        assert_eq!((weights.embed.scheme(), weights.head.scheme()), (words, words));
        let embed: Vec<f64> = fixture.base["model.embed_tokens.weight"].iter().map(|&v| f64::from(v)).collect();
        assert_near(&weights.embed, &embed, words_bound, "embed");
    }
}

#[test]
fn an_untied_head_is_kept() {
    let fixture = fixture(LlamaConfig { tie_word_embeddings: false, ..tiny_config() });
    let checkpoint = fixture.export(Scheme::F32).unwrap();
    let weights = Weights::read(&checkpoint.metadata().llama, &checkpoint).unwrap();
    assert_eq!(rows_of(&weights.head), fixture.base["lm_head.weight"]);
    assert_eq!(rows_of(&weights.embed), fixture.base["model.embed_tokens.weight"]);
}

#[test]
fn motion_prompt_and_labels_are_those_of_the_artifacts() {
    let fixture = fixture(tiny_config());
    let checkpoint = fixture.export(Scheme::Q8).unwrap();
    let metadata = checkpoint.metadata();
    let meta = stage1_meta();
    assert_eq!((&metadata.preprocess, &metadata.encoder, &metadata.quantizer), (&meta.preprocess, &meta.encoder, &meta.quantizer));
    assert_eq!((metadata.scheme, metadata.calibration, metadata.name.as_str()), (Scheme::Q8, fixture.meta.calibration, "tiny"));

    let bytes = |text: &str| text.bytes().map(|byte| 2 + u32::from(byte)).collect::<Vec<_>>();
    assert_eq!(metadata.prompt.prefix_ids, [bytes("Given "), vec![1]].concat());
    assert_eq!(metadata.prompt.suffix_ids, [bytes(", name "), vec![258], bytes(":")].concat());
    assert_eq!(metadata.prompt.eos_id, 0);
    let labels: Vec<_> = metadata.labels.iter().map(|label| (label.text.as_str(), label.ids.clone())).collect();
    assert_eq!(labels, [("sit", [bytes(" s"), vec![258]].concat()), ("wave", bytes(" wave"))]);

    let f32s = |name: &str, shape: &[usize]| checkpoint.f32s(name, shape).unwrap().cast::<f32>().unwrap().to_vec();
    for (name, shape, values, store) in &fixture.stage1 {
        match store {
            Store::F32 => assert_eq!(&f32s(name, shape), values, "{name}"),
            _ => {
                let matrix = checkpoint.matrix(name, shape[0], shape[1]).unwrap();
                assert_eq!((matrix.scheme(), &rows_of(&matrix)), (Scheme::F16, values), "{name}");
            }
        }
    }
    assert_eq!(f32s("quantizer.embedding", &[CODES, 32]), fixture.adapter[0].2);
    assert_eq!(metadata.words, fixture.meta.words);
    for (name, shape, values, _) in fixture.adapter.iter().filter(|(name, ..)| name.starts_with("words.")) {
        assert_eq!(&f32s(name, shape), values, "{name}");
    }
    Model::open(&fixture.path("m.llmar"), OpenOptions { verify: true, ..OpenOptions::default() }).unwrap();
}

#[test]
fn a_reading_of_words_comes_whole_or_not_at_all() {
    let mut fixture = fixture(tiny_config());
    let words = fixture.meta.words.take();
    fixture.write_adapter();
    assert!(fixture.export(Scheme::Q8).is_err_and(|e| e.to_string().contains("words.")), "tensors of no reading");
    let whole = fixture.adapter.clone();
    fixture.adapter.retain(|(name, ..)| !name.starts_with("words."));
    fixture.write_adapter();
    let checkpoint = fixture.export(Scheme::Q8).unwrap();
    assert!(checkpoint.metadata().words.is_none() && checkpoint.tensors().all(|(name, _)| !name.starts_with("words.")));
    fixture.meta.words = words;
    fixture.adapter = whole.into_iter().filter(|(name, ..)| name != "words.mean").collect();
    fixture.write_adapter();
    assert!(fixture.export(Scheme::Q8).is_err_and(|e| e.to_string().contains("words.mean")));
}

#[test]
fn labels_say_what_they_need_and_which_is_idle() {
    let mut fixture = fixture(tiny_config());
    let joint = stage1_meta().preprocess.joints[0].clone();
    fixture.meta.needs = BTreeMap::from([("wave".to_string(), vec![joint.clone()])]);
    fixture.meta.idle = Some("sit".to_string());
    fixture.write_adapter();
    let checkpoint = fixture.export(Scheme::Q8).unwrap();
    let labels: Vec<_> = checkpoint.metadata().labels.iter().map(|label| (label.needs.clone(), label.idle)).collect();
    assert_eq!(labels, [(vec![], true), (vec![joint], false)]);
    // What the runtime would refuse to read is not written.
    fixture.meta.needs = BTreeMap::from([("wave".to_string(), vec!["tail".to_string()])]);
    fixture.write_adapter();
    assert!(fixture.export(Scheme::Q8).is_err_and(|e| e.to_string().contains("`tail`")));
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let mut fixture = fixture(tiny_config());
    std::fs::write(fixture.path("m.llmar"), "the previous model").unwrap();
    let good = fixture.meta.clone();
    for (part, meta) in [
        ("stage-1 file", AdapterMeta { stage1_sha256: "0".repeat(64), ..good.clone() }),
        ("base model's source", AdapterMeta { base_source_sha256: "0".repeat(64), ..good.clone() }),
    ] {
        fixture.meta = meta;
        fixture.write_adapter();
        match fixture.export(Scheme::F16) {
            Err(Error::Mismatch { part: named, expected, given, got, .. }) => {
                assert_eq!((named, expected), (part, "0".repeat(64)));
                assert_eq!(given, fixture.path(if part == "stage-1 file" { "stage1" } else { "base" }));
                assert_ne!(got, "0".repeat(64));
            }
            other => panic!("expected a mismatch, got {other:?}"),
        }
    }
    fixture.meta = good;
    let refused = |fixture: &Fixture, needle: &str| {
        fixture.write_adapter();
        let error = fixture.export(Scheme::F16).expect_err(needle).to_string();
        assert!(error.contains(needle), "expected {needle:?} in {error}");
    };
    for (alpha, rank, needle) in
        [(f32::MAX, RANK, "finite"), (ALPHA, 0, "`rank`"), (ALPHA, 4, "lora.layers.0.q.a"), (ALPHA, usize::MAX, "`rank`")]
    {
        fixture.meta = AdapterMeta { alpha, rank, ..fixture.meta.clone() };
        refused(&fixture, needle);
    }
    fixture.meta = AdapterMeta { alpha: ALPHA, rank: RANK, ..fixture.meta.clone() };
    let tensors = fixture.adapter.clone();
    for (from, to, needle) in [
        ("lora.layers.0.q.a", "lora.layers.2.q.a", "`lora.layers.2.q.a` belongs to no layer"),
        ("lora.layers.0.q.b", "lora.layers.0.o.b", "`lora.layers.0.q.b` is missing"),
        ("quantizer.embedding", "embedding", "`embedding` belongs to no layer"),
    ] {
        fixture.adapter = tensors.clone();
        fixture.adapter.iter_mut().filter(|tensor| tensor.0 == from).for_each(|tensor| tensor.0 = to.to_string());
        refused(&fixture, needle);
    }
    fixture.adapter = tensors[1..].to_vec();
    refused(&fixture, "quantizer.embedding");
    std::fs::copy(fixture.path("stage1"), fixture.path("adapter")).unwrap();
    let error = fixture.export(Scheme::F16).unwrap_err().to_string();
    assert!(error.contains("`llmar_adapter`") && error.contains("llmar_stage1"), "{error}");
    assert_eq!(std::fs::read(fixture.path("m.llmar")).unwrap(), b"the previous model");
}

/// Import and export of a real model, without a LoRA: its logits are the golden's.
#[test]
fn stories260k_has_its_golden_logits_after_import_and_export() {
    let test = "stories260k_has_its_golden_logits_after_import_and_export";
    let Some(source) = shared(test, "golden/stories260k") else { return };
    let golden = std::fs::read(source.with_file_name("golden_stories260k-f16.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();

    let mut fixture = fixture(tiny_config());
    let base = import(&source, &fixture.path("base")).unwrap();
    fixture.adapter = vec![("quantizer.embedding".to_string(), vec![CODES, 64], vec![0.0; CODES * 64], Store::F16)];
    fixture.meta.words = None;
    fixture.meta.base_source_sha256 = base.source_sha256;
    fixture.write_adapter();
    fixture.export(Scheme::F16).unwrap();
    let model = Model::open(&fixture.path("m.llmar"), OpenOptions::default()).unwrap();
    let (llama, device) = (model.llama(), Device::cpu(1).unwrap());
    let mut checked = 0;
    for prompt in golden["prompts"].as_array().unwrap() {
        let ids: Vec<u32> = prompt["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(model.tokenizer().unwrap().encode(prompt["text"].as_str().unwrap()), ids);
        let n = ids.len() as u32;
        let rows = Rows {
            position: (0..n).collect(),
            slot: (0..n).collect(),
            ranges: (1..=n).map(|end| 0..end).collect(),
            row_ranges: (0..n).map(|row| row..row + 1).collect(),
        };
        let (mut cache, mut workspace) = (KvCache::new(&device, &llama.config, ids.len()).unwrap(), Workspace::new(&device));
        let (mut x, mut head) = (device.buffer(), device.buffer());
        let inputs: Vec<_> = ids.iter().map(|&id| Input::Word(id)).collect();
        llama.embed(&device, model.quantizer().embeddings(), &inputs, &mut x).unwrap();
        llama.forward(&device, &rows, &mut x, &mut cache, &mut workspace, &Control::default()).unwrap();
        let mut logits = vec![0.0; 512];
        llama.logits(&device, &x, &[n - 1], &mut head, &mut workspace, &Control::default()).unwrap();
        device.read(&head, &mut logits).unwrap();
        for entry in prompt["next_top10"].as_array().unwrap() {
            let (id, logit) = (entry["id"].as_u64().unwrap() as usize, entry["logit"].as_f64().unwrap());
            assert!((f64::from(logits[id]) - logit).abs() < 2e-3, "{}: id {id}: golden {logit}, got {}", prompt["name"], logits[id]);
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked} logits");
}
