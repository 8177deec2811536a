//! Labels told by the words of their texts: a checkpoint's reading, whole and damaged, and what a recogniser makes of it.

#[path = "common/container.rs"]
mod container;
#[path = "common/tiny.rs"]
mod tiny;

use std::collections::BTreeSet;
use std::sync::Arc;

use container::Container;
use llmar::Error;
use llmar::checkpoint::{Checkpoint, ReadOptions, TensorData, write_checkpoint};
use llmar::control::Control;
use llmar::device::{Device, Scheme};
use llmar::motion::{ActionSentence, EncoderScratch};
use llmar::recognizer::{Model, OpenOptions, Options, Recognition, Recognizer, Scoring};
use llmar::skeleton::prepare;
use llmar::text::Decoding;
use serde_json::{Value, json};
use tiny::{DESCRIPTIONS, KNOWN, clip, motion};

fn described(scheme: Scheme) -> Arc<Model> {
    let folder = tempfile::tempdir().unwrap();
    Model::from_bytes(&std::fs::read(tiny::described_in(folder.path(), scheme)).unwrap(), OpenOptions::default()).unwrap()
}

fn by_words(model: &Arc<Model>, threads: usize) -> Recognizer {
    let options = Options { threads, top_k: 9, scoring: Scoring::Words, ..Options::default() };
    Recognizer::new(Arc::clone(model), options).unwrap()
}

/// Labels with the bits of their scores.
fn bits(answer: &Recognition) -> Vec<(usize, u32, u32)> {
    answer.top.iter().zip(&answer.probabilities).map(|(s, p)| (s.label, s.log_prob.to_bits(), p.to_bits())).collect()
}

/// Probability of each label by the definition in `text/words.rs`, from the features that the encoder gives, through full vectors of words.
fn naive(model: &Model, joints: &[f32], labels: &[&str]) -> Vec<f64> {
    let (metadata, tensors) = tiny::described(Scheme::F32);
    let tensor = |name: &str| match &tensors.iter().find(|t| t.name == name).unwrap().data {
        TensorData::F32(values) => values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(),
        other => panic!("{name} of {other:?}"),
    };
    let device = Device::cpu(1).unwrap();
    let prepared = prepare(&metadata.preprocess, &clip(joints)).unwrap();
    let (tokens, dim) = (tiny::FRAMES / 4, metadata.quantizer.dim);
    let mut features = vec![0.0; tokens * dim];
    let mut scratch = EncoderScratch::new(&device);
    let encoded = model.encoder().forward(&device, &prepared.features, 1, tiny::FRAMES, &mut scratch).unwrap();
    device.read(encoded, &mut features).unwrap();
    // f · gain · min(1, clip / ‖gain · f‖)
    let (gain, most) = (f64::from(metadata.quantizer.gain), f64::from(metadata.quantizer.clip));
    let mut mean = vec![0.0; dim];
    for row in features.chunks(dim) {
        let norm = gain * row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let factor = gain * (most / norm).min(1.0) / tokens as f64;
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += factor * f64::from(*x));
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (weight, bias, average) = (tensor("words.weight"), tensor("words.bias"), tensor("words.mean"));
    let read: Vec<f64> = weight.chunks(dim).zip(&bias).map(|(row, b)| dot(row, &mean) + b).collect();
    let shares: Vec<f64> = labels
        .iter()
        .map(|label| {
            let words: BTreeSet<String> = label.to_lowercase().split([' ', ',']).map(str::to_owned).collect();
            let told: Vec<f64> = KNOWN.iter().zip(&average).map(|(word, m)| f64::from(u8::from(words.contains(*word))) - m).collect();
            (dot(&read, &told) / (dot(&read, &read) * dot(&told, &told)).sqrt() / 0.25).exp()
        })
        .collect();
    let sum: f64 = shares.iter().sum();
    shares.iter().map(|share| share / sum).collect()
}

#[test]
fn probabilities_are_those_of_the_definition() {
    for scheme in [Scheme::F32, Scheme::Q8] {
        let model = described(scheme);
        let mut recognizer = by_words(&model, 1);
        let new = ["LEFT, up", "both hands down", "right", "left down sideways", "both"];
        for labels in [&DESCRIPTIONS[..], &new] {
            recognizer.set_labels(labels).unwrap();
            for seed in 0..4 {
                let joints = motion(seed, 30);
                let expected = naive(&model, &joints, labels);
                let answer = recognizer.recognize(&clip(&joints), &Control::default()).unwrap();
                assert_eq!(answer.top.len(), labels.len());
                for (score, p) in answer.top.iter().zip(&answer.probabilities) {
                    let expected = expected[score.label];
                    assert!((f64::from(*p) - expected).abs() < 1e-5, "{scheme:?}, {}: {p} against {expected}", labels[score.label]);
                    assert!((f64::from(score.log_prob) - expected.ln()).abs() < 1e-4);
                }
                assert!(answer.probabilities.is_sorted_by(|a, b| a >= b) && !answer.unknown);
                assert_eq!((answer.timings.prompt_rows, answer.timings.label_rows, answer.timings.prompt_ns), (0, 0, 0));
            }
        }
    }
}

#[test]
fn threads_batches_and_schemes_do_not_change_a_bit() {
    let all: Vec<Vec<f32>> = (0..5).map(|seed| motion(seed, 24 + seed as usize)).collect();
    let clips: Vec<_> = all.iter().map(|joints| clip(joints)).collect();
    let mut wanted = None;
    // The language model's storage has no part in it.
    for scheme in tiny::SCHEMES {
        let model = described(scheme);
        for threads in [1, 3] {
            let mut recognizer = by_words(&model, threads);
            let single: Vec<_> = clips.iter().map(|clip| bits(&recognizer.recognize(clip, &Control::default()).unwrap())).collect();
            let batch: Vec<_> = recognizer.recognize_batch(&clips, &Control::default()).unwrap().iter().map(bits).collect();
            assert_eq!(single, batch);
            assert_eq!(wanted.get_or_insert(single), &batch);
        }
    }
}

#[test]
fn labels_come_and_go() {
    let model = described(Scheme::Q8);
    assert_eq!(model.words().unwrap().vocabulary(), KNOWN);
    let mut recognizer = by_words(&model, 1);
    assert_eq!(recognizer.labels(), DESCRIPTIONS);
    let joints = motion(3, 30);
    let before = bits(&recognizer.recognize(&clip(&joints), &Control::default()).unwrap());
    let new = ["left up", "right down"];
    recognizer.set_labels(&new).unwrap();
    let long = "up ".repeat(400);
    let bad: [&[&str]; 6] = [&[], &["left up", ""], &["left up", "left up"], &["up", "forward"], &["left up", "up left, once"], &[&long]];
    for labels in bad {
        let error = recognizer.set_labels(labels).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. } | Error::Limit { .. }), "{labels:?}: {error}");
    }
    assert_eq!(recognizer.labels(), new);
    // More than any prompt could list.
    let many: Vec<String> = (1..1u32 << KNOWN.len())
        .map(|set| KNOWN.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, word)| *word).collect::<Vec<_>>().join(" "))
        .collect();
    recognizer.set_labels(&many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    recognizer.reset_labels().unwrap();
    assert_eq!(bits(&recognizer.recognize(&clip(&joints), &Control::default()).unwrap()), before);
    let error = recognizer.score_sentences(&[ActionSentence { tokens: vec![1] }], &Control::default()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn the_language_model_answers_as_it_would_without_a_reading() {
    let (mut metadata, mut tensors) = tiny::described(Scheme::Q8);
    metadata.words = None;
    tensors.retain(|tensor| !tensor.name.starts_with("words."));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("without.llmar");
    write_checkpoint(&path, &metadata, &tensors).unwrap();
    let without = Model::open(&path, OpenOptions::default()).unwrap();
    let joints = motion(4, 30);
    let of = |model: &Arc<Model>| {
        let mut recognizer = Recognizer::new(Arc::clone(model), Options { top_k: 9, ..Options::default() }).unwrap();
        bits(&recognizer.recognize(&clip(&joints), &Control::default()).unwrap())
    };
    assert_eq!(of(&without), of(&described(Scheme::Q8)));
    // And by words such a model says that it cannot.
    let error = Recognizer::new(without, Options { scoring: Scoring::Words, ..Options::default() }).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { detail, .. } if detail.contains("tiny")), "{error}");
    let greedy = Options { scoring: Scoring::Words, decoding: Decoding::Greedy, ..Options::default() };
    assert!(matches!(Recognizer::new(described(Scheme::Q8), greedy), Err(Error::InvalidArgument { .. })));
}

#[test]
fn a_threshold_counts_where_it_is_given() {
    let (mut metadata, tensors) = tiny::described(Scheme::Q8);
    // The language model is never quite sure.
    (metadata.calibration.unknown_below, metadata.calibration.temperature) = (1.0, 50.0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("doubtful.llmar");
    write_checkpoint(&path, &metadata, &tensors).unwrap();
    let model = Model::open(&path, OpenOptions::default()).unwrap();
    let joints = motion(3, 30);
    for (scoring, unknown_below, unknown) in
        [(Scoring::LanguageModel, None, true), (Scoring::Words, None, false), (Scoring::Words, Some(1.0), true)]
    {
        let mut recognizer = Recognizer::new(Arc::clone(&model), Options { scoring, unknown_below, ..Options::default() }).unwrap();
        assert_eq!(recognizer.recognize(&clip(&joints), &Control::default()).unwrap().unknown, unknown, "{scoring:?}");
    }
}

#[test]
fn a_reading_comes_back() {
    for scheme in tiny::SCHEMES {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(&tiny::described_in(folder.path(), scheme), ReadOptions { verify: true }).unwrap();
        let (metadata, tensors) = tiny::described(scheme);
        assert_eq!(checkpoint.metadata().words, metadata.words);
        for tensor in tensors.iter().filter(|tensor| tensor.name.starts_with("words.")) {
            let TensorData::F32(values) = &tensor.data else { panic!("{} of {:?}", tensor.name, tensor.data) };
            assert_eq!(checkpoint.f32s(&tensor.name, &tensor.shape).unwrap().cast::<f32>().unwrap(), &values[..], "{}", tensor.name);
        }
    }
}

#[test]
fn damaged_readings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = Container::read(&std::fs::read(tiny::described_in(folder.path(), Scheme::Q8)).unwrap());
    let open = |file: &Container| Model::from_bytes(&file.bytes(), OpenOptions::default()).map(drop);
    open(&good).unwrap();
    let long = "a".repeat(2_000);
    let changes: [(&str, Value); 16] = [
        ("/words", json!(null)),
        ("/words/surplus", json!(1)),
        ("/words/vocabulary", json!([])),
        ("/words/vocabulary", json!(["both", "down", "hands", "left", "right"])),
        ("/words/vocabulary/0", json!("Both")),
        ("/words/vocabulary/0", json!("at once")),
        ("/words/vocabulary/0", json!("both,")),
        ("/words/vocabulary/0", json!("")),
        ("/words/vocabulary/0", json!("down")),
        ("/words/vocabulary/0", json!("zig")),
        ("/words/vocabulary/0", json!("a\u{7}b")),
        ("/words/vocabulary/0", json!(long)),
        ("/words/vocabulary/0", json!(3)),
        ("/words/temperature", json!(0.0)),
        ("/words/temperature", json!(1e39)),
        ("/words/temperature", json!(null)),
    ];
    let refused = |file: &Container, what: &str| {
        let error = open(file).expect_err(what);
        assert!(matches!(error, Error::Format { .. } | Error::Shape { .. } | Error::Limit { .. }), "{what}: {error:?}");
        assert!(!error.to_string().contains("SHA-256"), "{what}: this test must reach the check behind the checksum");
    };
    for (at, value) in changes {
        let mut file = good.clone();
        let (parent, key) = at.rsplit_once('/').unwrap();
        match file.document.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value.clone(),
            object => object[key] = value.clone(),
        }
        refused(&file, &format!("{at} = {value}"));
    }
    for at in ["words", "words/vocabulary", "words/temperature"] {
        let mut file = good.clone();
        let (parent, key) = at.rsplit_once('/').map_or(("", at), |(parent, key)| (parent, key));
        let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
        file.document.pointer_mut(&parent).unwrap().as_object_mut().unwrap().remove(key);
        refused(&file, &format!("without {at}"));
    }
    for name in ["words.weight", "words.bias", "words.mean"] {
        let mut file = good.clone();
        file.tensors.get_mut(name).unwrap()["dtype"] = json!("U32");
        refused(&file, &format!("{name} of u32"));
        let mut file = good.clone();
        let shape = file.tensors.get_mut(name).unwrap()["shape"].as_array_mut().unwrap();
        shape.insert(0, json!(1));
        refused(&file, &format!("{name} of another shape"));
        let mut file = good.clone();
        let entry = file.tensors.remove(name).unwrap();
        file.tensors.insert(format!("{name}s"), entry);
        refused(&file, &format!("{name} under another name"));
        for value in [f32::NAN, f32::INFINITY] {
            let mut file = good.clone();
            let at = file.tensors[name]["data_offsets"][0].as_u64().unwrap() as usize;
            file.data[at..at + 4].copy_from_slice(&value.to_le_bytes());
            refused(&file, &format!("{name} with {value}"));
        }
    }
    for value in [1.0f32, -0.25] {
        let mut file = good.clone();
        let at = file.tensors["words.mean"]["data_offsets"][0].as_u64().unwrap() as usize;
        file.data[at..at + 4].copy_from_slice(&value.to_le_bytes());
        refused(&file, &format!("a mean of {value}"));
    }
}
