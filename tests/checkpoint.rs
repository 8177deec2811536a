//! Checkpoints: what is written comes back, and whatever is wrong with a file is a typed error, never a panic.

#[path = "common/container.rs"]
mod container;
#[path = "common/tiny.rs"]
mod tiny;

use std::collections::BTreeMap;
use std::path::Path;

use container::Container;
use llmar::Error;
use llmar::bytes::Bytes;
use llmar::checkpoint::{Checkpoint, Metadata, ReadOptions, TensorData, write_checkpoint};
use llmar::device::{Matrix, Scheme};
use llmar::recognizer::{Model, OpenOptions};
use llmar::text::{Tokenizer, TokenizerTables};
use proptest::prelude::*;
use serde_json::{Value, json};

const VERIFY: ReadOptions = ReadOptions { verify: true };

fn open(file: &[u8]) -> llmar::Result<Checkpoint> {
    Checkpoint::from_bytes(Bytes::copy_from(file), ReadOptions::default())
}

fn verify(file: &[u8]) -> llmar::Result<Checkpoint> {
    Checkpoint::from_bytes(Bytes::copy_from(file), VERIFY)
}

/// Opens a file as a user does: container, metadata, tensors and every stage of the model.
fn open_model(file: &[u8]) -> llmar::Result<()> {
    Model::from_bytes(file, OpenOptions::default()).map(|_| ())
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    for scheme in tiny::SCHEMES {
        let path = tiny::file_in(folder.path(), scheme);
        let checkpoint = Checkpoint::open(&path, VERIFY).unwrap();
        let sha = checkpoint.metadata().tensors_sha256.clone();
        assert_eq!(*checkpoint.metadata(), Metadata { tensors_sha256: sha, ..tiny::metadata(scheme) });
        assert_eq!(checkpoint.file_len(), std::fs::metadata(&path).unwrap().len());
        let tensors = tiny::tensors(scheme);
        assert_eq!(checkpoint.tensors().count(), tensors.len());
        for tensor in &tensors {
            match &tensor.data {
                TensorData::F32(values) if !tensor.name.starts_with("llama.layers.0.qkv") => {
                    let read = checkpoint.f32s(&tensor.name, &tensor.shape).unwrap();
                    assert_eq!(read.cast::<f32>().unwrap(), &values[..], "{}", tensor.name);
                }
                TensorData::U32(values) => assert_eq!(checkpoint.u32s(&tensor.name).unwrap().cast::<u32>().unwrap(), &values[..]),
                _ => {}
            }
        }
        let config = &checkpoint.metadata().llama;
        let matrix = checkpoint.matrix("llama.layers.1.down", config.hidden_size, config.intermediate_size).unwrap();
        assert_eq!(matrix.scheme(), scheme);
        assert_eq!(Tokenizer::read(&checkpoint).unwrap().tables(), &tiny::tables());
        assert!(Model::open(&path, OpenOptions { verify: true, ..OpenOptions::default() }).is_ok());
    }
}

#[test]
fn a_matrix_keeps_its_weights() {
    let values: Vec<f32> = tiny::Random(7).values(64 * 96, 0.1);
    for scheme in tiny::SCHEMES {
        let mut tensors = tiny::tensors(scheme);
        tensors.retain(|tensor| !tensor.name.starts_with("llama.layers.0.down"));
        tiny::matrix(&mut tensors, "llama.layers.0.down", scheme, 64, 96, &values);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        write_checkpoint(&path, &tiny::metadata(scheme), &tensors).unwrap();
        let read = Checkpoint::open(&path, VERIFY).unwrap().matrix("llama.layers.0.down", 64, 96).unwrap();
        let packed = Matrix::pack(scheme, 64, 96, &values);
        let (mut a, mut b) = ([0.0; 96], [0.0; 96]);
        for row in 0..64 {
            read.row(row, &mut a);
            packed.row(row, &mut b);
            assert_eq!(a, b, "{scheme:?} row {row}");
        }
    }
}

#[test]
fn writing_twice_gives_the_same_file() {
    assert_eq!(tiny::bytes(Scheme::Q4), tiny::bytes(Scheme::Q4));
}

#[test]
fn other_readers_of_safetensors_agree() {
    for scheme in tiny::SCHEMES {
        let file = tiny::bytes(scheme);
        let other = safetensors::SafeTensors::deserialize(&file).unwrap();
        let ours = open(&file).unwrap();
        assert_eq!(other.names().len(), ours.tensors().count());
        let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
        for (name, info) in ours.tensors() {
            let theirs = header.info(name).unwrap();
            assert_eq!(format!("{:?}", theirs.dtype), format!("{:?}", info.dtype));
            assert_eq!(theirs.shape, info.shape);
            assert_eq!(theirs.data_offsets, (info.range.start, info.range.end));
        }
    }
}

#[test]
fn data_is_aligned_for_the_kernels() {
    for scheme in tiny::SCHEMES {
        let file = tiny::bytes(scheme);
        let data = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        assert_eq!(data % 64, 0);
        for (name, info) in open(&file).unwrap().tensors() {
            let whole_lines = info.range.len().is_multiple_of(64);
            assert!(!whole_lines || (data + info.range.start).is_multiple_of(64), "{name} at {}", info.range.start);
            assert!(info.range.start.is_multiple_of(info.dtype.size()), "{name} at {}", info.range.start);
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    for scheme in tiny::SCHEMES {
        let file = tiny::bytes(scheme);
        for part in 0..64 {
            let len = file.len() * part / 64;
            assert!(open_model(&file[..len]).is_err(), "{scheme:?}, {len} of {} bytes", file.len());
        }
        assert!(open_model(&file[..file.len() - 1]).is_err());
        assert!(open_model(&[&file[..], &[0]].concat()).is_err(), "a byte too many");
    }
}

#[test]
fn every_flipped_header_bit_is_an_error() {
    let mut file = tiny::bytes(Scheme::Q8);
    let data = Container::read(&file).data_start();
    for bit in 0..8 * data {
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(open_model(&file).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
        file[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(open_model(&file).is_ok());
}

#[test]
fn flipped_data_bits_never_panic_and_are_found_by_verify() {
    let mut file = tiny::bytes(Scheme::Q4);
    let data = Container::read(&file).data_start();
    for byte in (data..file.len()).step_by(file.len() / 500) {
        file[byte] ^= 0x80;
        let _ = open_model(&file);
        assert!(verify(&file).is_err(), "byte {byte}");
        file[byte] ^= 0x80;
    }
}

#[test]
fn another_version_is_named_before_anything_else() {
    for version in [0u64, 2, u64::from(u32::MAX), u64::MAX] {
        let mut file = Container::tiny(Scheme::Q8);
        // What a later version might look like: other fields, another checksum.
        file.document = json!({ "format_version": version, "something": "else" });
        let got = u32::try_from(version).unwrap_or(u32::MAX);
        assert!(matches!(open(&file.bytes()), Err(Error::Version { expected: 1, got: g }) if g == got), "{version}");
        assert!(matches!(open(&file.unsealed_bytes()), Err(Error::Version { .. })), "{version}");
    }
    let mut file = Container::tiny(Scheme::Q8);
    file.document["format_version"] = json!("1");
    assert!(matches!(open(&file.bytes()), Err(Error::Format { .. })));
}

#[test]
fn a_foreign_safetensors_file_is_refused() {
    let values = [0u8; 16];
    let tensor = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![4], &values).unwrap();
    let file = safetensors::serialize([("weight", tensor)], None).unwrap();
    let error = open_model(&file).unwrap_err();
    assert!(matches!(&error, Error::Format { detail, .. } if detail.contains("llmar")), "{error}");
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(folder.path(), VERIFY), Err(Error::Format { .. })));
    assert!(matches!(Checkpoint::open(&folder.path().join("none"), VERIFY), Err(Error::Io { .. })));
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    assert!(matches!(Checkpoint::open(&empty, VERIFY), Err(Error::Format { .. })));
}

#[test]
fn misaligned_memory_is_an_error() {
    let file = tiny::bytes(Scheme::F16);
    let mut shifted = vec![0; file.len() + 64];
    let at = shifted.as_ptr().align_offset(64) + 1;
    shifted[at..at + file.len()].copy_from_slice(&file);
    let memory: &'static [u8] = shifted.leak();
    assert!(matches!(Model::from_static(&memory[at..at + file.len()], OpenOptions::default()), Err(Error::Format { .. })));
}

/// Changes to the document that leave it valid JSON, each wrong in one way.
#[test]
fn wrong_metadata_is_refused() {
    let changes: [(&str, Value); 47] = [
        ("/name", json!("a\u{0}b")),
        ("/name", json!("a".repeat(2000))),
        ("/name", json!(7)),
        ("/scheme", json!("q5")),
        ("/scheme", json!("f16")),
        ("/tensors_sha256", json!("ABC")),
        ("/preprocess/persons", json!(0)),
        ("/preprocess/frames", json!(0)),
        ("/preprocess/frames", json!(1u64 << 40)),
        ("/preprocess/frames", json!(3)),
        ("/preprocess/joints", json!([])),
        ("/preprocess/mean", json!([0.0])),
        ("/preprocess/mean/0", json!(1e39)),
        ("/preprocess/position_spread", json!(0.0)),
        ("/preprocess/scale/surplus", json!(1)),
        ("/preprocess/velocities", json!(false)),
        ("/encoder/inputs", json!(u64::MAX)),
        ("/encoder/width", json!(0)),
        ("/encoder/halvings", json!(70)),
        ("/encoder/halvings", json!(3)),
        ("/encoder/dilations", json!([0])),
        ("/encoder/outputs", json!(31)),
        ("/quantizer/codes", json!(31)),
        ("/quantizer/codes", json!(1u64 << 40)),
        ("/quantizer/dim", json!(16)),
        ("/quantizer/gain", json!(0.0)),
        ("/quantizer/clip", json!(-1.0)),
        ("/quantizer/geometry/curvature", json!(0.0)),
        ("/quantizer/geometry/kind", json!("flat")),
        ("/llama/vocab_size", json!(1u64 << 40)),
        ("/llama/vocab_size", json!(299)),
        ("/llama/num_hidden_layers", json!(1u64 << 60)),
        ("/llama/num_key_value_heads", json!(0)),
        ("/llama/hidden_size", json!(u64::MAX)),
        ("/llama/tie_word_embeddings", json!(false)),
        ("/llama/max_position_embeddings", json!(16)),
        ("/prompt/prefix_ids", json!([])),
        ("/prompt/prefix_ids/0", json!(300)),
        ("/prompt/suffix_ids/0", json!(-1)),
        ("/prompt/eos_id", json!(300)),
        ("/labels", json!([])),
        ("/labels/0/ids", json!([])),
        ("/labels/0/ids/0", json!(300)),
        ("/labels/0/ids/0", json!(2)),
        ("/labels/1/text", json!("walk")),
        ("/calibration/temperature", json!(0.0)),
        ("/calibration/unknown_below", json!(1.5)),
    ];
    assert!(open_model(&Container::tiny(Scheme::Q8).bytes()).is_ok(), "sealing works");
    for (at, value) in changes {
        let mut file = Container::tiny(Scheme::Q8);
        let (parent, key) = at.rsplit_once('/').unwrap();
        match file.document.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value.clone(),
            object => object[key] = value.clone(),
        }
        let error = open_model(&file.bytes()).expect_err(at);
        let typed = matches!(error, Error::Format { .. } | Error::Limit { .. } | Error::Shape { .. });
        assert!(typed, "{at} = {value}: {error:?}");
        assert!(!error.to_string().contains("SHA-256"), "{at}: this test must reach the check behind the checksum");
    }
}

/// A small file cannot ask for memory without end, and what opens can be used.
#[test]
fn sizes_beyond_any_model_are_refused() {
    let refused = |change: &dyn Fn(&mut Value)| -> String {
        let mut file = Container::tiny(Scheme::Q8);
        change(&mut file.document);
        match open_model(&file.bytes()) {
            Err(error @ Error::Limit { .. }) => error.to_string(),
            other => panic!("expected a limit, got {other:?}"),
        }
    };
    let error = refused(&|document| {
        let llama = &mut document["llama"];
        for (field, value) in
            [("num_attention_heads", 512), ("num_key_value_heads", 512), ("head_dim", 1024), ("max_position_embeddings", 1 << 20)]
        {
            llama[field] = json!(value);
        }
        document["prompt"]["prefix_ids"] = json!(vec![1; 4000]);
    });
    assert!(error.contains("KV cache"), "{error}");
    let error = refused(&|document| {
        document["llama"]["max_position_embeddings"] = json!(4096);
        document["labels"][0]["ids"] = json!(vec![5; 300]);
    });
    assert!(error.contains("tokens of a label"), "{error}");
}

#[test]
fn a_missing_field_is_refused() {
    let document = Container::tiny(Scheme::F16).document;
    let mut paths = vec![String::new()];
    let mut tried = 0;
    while let Some(at) = paths.pop() {
        let Some(Value::Object(fields)) = document.pointer(&at) else { continue };
        for key in fields.keys() {
            let mut file = Container::tiny(Scheme::F16);
            file.document.pointer_mut(&at).unwrap().as_object_mut().unwrap().remove(key);
            assert!(open(&file.bytes()).is_err(), "{at}/{key}");
            paths.push(format!("{at}/{key}"));
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
}

#[test]
fn a_key_twice_is_refused() {
    let good = Container::tiny(Scheme::Q8);
    let text = good.header_text();
    let document = serde_json::to_string(&serde_json::to_string(&good.document).unwrap()).unwrap();
    for (from, to) in [
        // a tensor, the metadata, the document
        (
            "\"llama.norm\":{".to_owned(),
            "\"llama.norm\":{\"dtype\":\"F32\",\"shape\":[64],\"data_offsets\":[0,256]},\"llama.norm\":{".to_owned(),
        ),
        ("{\"__metadata__\":{".to_owned(), "{\"__metadata__\":{},\"__metadata__\":{".to_owned()),
        (format!("\"llmar\":{document}"), format!("\"llmar\":{document},\"llmar\":{document}")),
        // fields of a tensor, of the document, of a list's member, of a tagged enum
        ("\"llama.norm\":{".to_owned(), "\"llama.norm\":{\"dtype\":\"F32\",".to_owned()),
        (r#"\"name\":\"tiny\""#.to_owned(), r#"\"name\":\"tiny\",\"name\":\"tiny\""#.to_owned()),
        (r#"\"text\":\"walk\""#.to_owned(), r#"\"text\":\"walk\",\"text\":\"walk\""#.to_owned()),
        (r#"\"curvature\":1.0"#.to_owned(), r#"\"curvature\":1.0,\"curvature\":1.0"#.to_owned()),
    ] {
        assert_eq!(text.matches(&from).count(), 1, "{from}");
        let file = container::seal(text.replacen(&from, &to, 1), &good.data);
        let error = open(&file).expect_err(&from).to_string();
        assert!(error.contains("twice") || error.contains("duplicate"), "{from}: {error}");
    }
    assert!(open(&container::seal(text, &good.data)).is_ok());
}

#[test]
fn wrong_tensor_tables_are_refused() {
    let changes: [(&str, &str, Value); 12] = [
        ("llama.norm", "dtype", json!("F16")),
        ("llama.norm", "dtype", json!("BF16")),
        ("llama.norm", "shape", json!([32, 2])),
        ("llama.norm", "shape", json!([65])),
        ("llama.norm", "shape", json!([1u64 << 33, 1u64 << 33])),
        ("llama.norm", "shape", json!([64, 1, 1, 1, 1, 1, 1, 1, 1])),
        ("llama.norm", "shape", json!([-64])),
        ("llama.norm", "data_offsets", json!([0, u64::MAX])),
        ("llama.norm", "data_offsets", json!([256, 0])),
        ("llama.norm", "data_offsets", json!([0, 256, 512])),
        ("llama.norm", "surplus", json!(1)),
        ("llama.embed.scale", "dtype", json!("U8")),
    ];
    for (name, field, value) in changes {
        let mut file = Container::tiny(Scheme::Q8);
        file.tensors.get_mut(name).unwrap()[field] = value.clone();
        assert!(open_model(&file.bytes()).is_err(), "{name}.{field} = {value}");
    }
}

#[test]
fn missing_tensors_are_refused() {
    for scheme in tiny::SCHEMES {
        for name in Container::tiny(scheme).tensors.keys() {
            let mut file = Container::tiny(scheme);
            file.remove(name);
            let error = open_model(&file.bytes()).expect_err(name);
            // Without its minima a q4 matrix looks like a q8 matrix of another shape.
            assert!(matches!(error, Error::Format { .. } | Error::Shape { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn surplus_tensors_are_refused() {
    for (name, len) in [("llama.head", 8), ("llama.norm.q", 4), ("", 4), ("x", 0)] {
        let mut file = Container::tiny(Scheme::Q8);
        let end = file.data.len();
        file.tensors.insert(name.to_owned(), json!({ "dtype": "U8", "shape": [len], "data_offsets": [end, end + len] }));
        file.data.resize(end + len, 0);
        assert!(matches!(open(&file.bytes()), Err(Error::Format { what, .. }) if what == name), "{name}");
    }
}

#[test]
fn overlaps_and_holes_are_refused() {
    let mut holed = Container::tiny(Scheme::Q8);
    for tensor in holed.tensors.values_mut() {
        let [start, end] = container::offsets(tensor);
        tensor["data_offsets"] = json!([start + 64, end + 64]);
    }
    holed.data.splice(0..0, [0; 64]);
    assert!(matches!(open(&holed.bytes()), Err(Error::Format { detail, .. }) if detail.contains("hole")));

    let mut overlapping = Container::tiny(Scheme::Q8);
    let offsets = overlapping.tensors["llama.layers.0.ffn_norm"]["data_offsets"].clone();
    overlapping.tensors.get_mut("llama.norm").unwrap()["data_offsets"] = offsets;
    assert!(matches!(open(&overlapping.bytes()), Err(Error::Format { detail, .. }) if detail.contains("overlap")));

    let mut longer = Container::tiny(Scheme::Q8);
    longer.data.push(0);
    assert!(open(&longer.bytes()).is_err());
}

#[test]
fn oversized_headers_are_refused() {
    let mut file = tiny::bytes(Scheme::Q8);
    file[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(open(&file), Err(Error::Limit { .. })));
    file[..8].copy_from_slice(&(16u64 << 20).to_le_bytes());
    assert!(matches!(open(&file), Err(Error::Limit { .. })));

    let mut file = Container::tiny(Scheme::Q8);
    let end = file.data.len();
    let none = json!({ "dtype": "U8", "shape": [0], "data_offsets": [end, end] });
    file.tensors.extend((0..20_000).map(|i| (format!("x{i}"), none.clone())));
    assert!(open(&file.bytes()).unwrap_err().to_string().contains("tensors"));

    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    let file = [&(deep.len() as u64).to_le_bytes()[..], deep.as_bytes()].concat();
    assert!(matches!(open(&file), Err(Error::Format { .. })));
}

#[test]
fn values_that_are_not_finite_are_refused() {
    for (scheme, name) in [
        (Scheme::Q8, "llama.embed.scale"),
        (Scheme::Q4, "llama.layers.1.down.scale"),
        (Scheme::Q4, "llama.layers.0.qkv.min"),
        (Scheme::Q8, "llama.norm"),
        (Scheme::Q8, "encoder.out.bias"),
        (Scheme::Q8, "encoder.0.down.weight"),
        (Scheme::Q8, "quantizer.tangent"),
        (Scheme::F32, "llama.layers.0.o"),
    ] {
        for pattern in [0xffu8, 0x7f] {
            let mut file = Container::tiny(scheme);
            let [start, end] = container::offsets(&file.tensors[name]);
            let size = if file.tensors[name]["dtype"] == "F16" { 2 } else { 4 };
            file.data[end - size..end].fill(pattern); // 0xff…: NaN; 0x7f7f is NaN as f16, finite as f32
            if size == 4 {
                file.data[start..start + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
            }
            let error = open_model(&file.bytes()).expect_err(name);
            assert!(matches!(&error, Error::Format { what, .. } if what == name), "{error}");
        }
    }
}

#[test]
fn verify_looks_into_f16_weights() {
    let mut file = Container::tiny(Scheme::F16);
    let [start, _] = container::offsets(&file.tensors["llama.layers.0.down"]);
    file.data[start..start + 2].copy_from_slice(&[0xff, 0xff]);
    assert!(open(&file.bytes()).is_ok(), "not read when a file is opened");
    assert!(matches!(verify(&file.bytes()), Err(Error::Checksum { .. })));
    file.hash_data();
    assert!(matches!(verify(&file.bytes()), Err(Error::Format { what, .. }) if what == "llama.layers.0.down"));
}

#[test]
fn a_damaged_vocabulary_is_refused_when_it_is_built() {
    for (name, at, value) in [
        ("tokenizer.offsets", 0, 1u32),
        ("tokenizer.offsets", 5, u32::MAX),
        ("tokenizer.offsets", 5, 2),
        ("tokenizer.offsets", 300, 7),
        ("tokenizer.merges", 0, 300),
        ("tokenizer.special", 1, 300),
        ("tokenizer.special", 1, 0),
    ] {
        let mut file = Container::tiny(Scheme::Q8);
        let [start, _] = container::offsets(&file.tensors[name]);
        file.data[start + 4 * at..start + 4 * at + 4].copy_from_slice(&value.to_le_bytes());
        file.hash_data();
        let checkpoint = open(&file.bytes()).unwrap();
        assert!(matches!(TokenizerTables::read(&checkpoint), Err(Error::Format { .. })), "{name}[{at}] = {value}");
        assert!(verify(&file.bytes()).is_err());
    }
}

#[test]
fn asking_for_another_shape_is_an_error() {
    let checkpoint = open(&tiny::bytes(Scheme::Q8)).unwrap();
    assert!(matches!(checkpoint.matrix("llama.layers.0.o", 64, 128), Err(Error::Shape { .. })));
    assert!(matches!(checkpoint.matrix("llama.layers.2.o", 64, 64), Err(Error::Format { .. })));
    assert!(matches!(checkpoint.f32s("llama.norm", &[63]), Err(Error::Shape { .. })));
    assert!(matches!(checkpoint.f32s("llama.embed.q", &[63]), Err(Error::Format { .. })));
    assert!(matches!(checkpoint.u8s("tokenizer.offsets"), Err(Error::Format { .. })));
    assert!(matches!(checkpoint.u32s("nothing"), Err(Error::Format { .. })));
}

#[test]
fn a_refused_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.llmar");
    std::fs::write(&path, "old").unwrap();
    type Damage = fn(&mut Metadata, &mut Vec<llmar::checkpoint::Tensor<'static>>);
    let cases: [(&str, Damage); 7] = [
        ("version", |m, _| m.format_version = 2),
        ("label", |m, _| m.labels[0].text.clear()),
        ("missing", |_, t| drop(t.pop())),
        ("twice", |_, t| t.push(t[0].clone())),
        ("surplus", |_, t| t.push(llmar::checkpoint::Tensor { name: "x".into(), shape: vec![1], data: TensorData::U8(vec![0].into()) })),
        ("shape", |_, t| t[0].shape = vec![usize::MAX, 2]),
        ("NaN", |_, t| {
            t.iter_mut().for_each(|t| {
                if let TensorData::F32(values) = &mut t.data {
                    values.to_mut()[0] = f32::NAN
                }
            })
        }),
    ];
    for (what, spoil) in cases {
        let (mut metadata, mut tensors) = (tiny::metadata(Scheme::Q8), tiny::tensors(Scheme::Q8));
        spoil(&mut metadata, &mut tensors);
        assert!(write_checkpoint(&path, &metadata, &tensors).is_err(), "{what}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old", "{what}");
        assert_eq!(names_in(folder.path()), ["model.llmar"], "{what}");
    }
    tiny::write(&path, Scheme::Q8).unwrap();
    assert!(Checkpoint::open(&path, VERIFY).is_ok());
    assert_eq!(names_in(folder.path()), ["model.llmar"]);
}

#[test]
fn an_open_model_survives_its_replacement() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.llmar");
    tiny::write(&path, Scheme::Q8).unwrap();
    let old = Checkpoint::open(&path, VERIFY).unwrap();
    tiny::write(&path, Scheme::F32).unwrap();
    old.verify().unwrap();
    assert_eq!(Checkpoint::open(&path, VERIFY).unwrap().metadata().scheme, Scheme::F32);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn random_headers_never_panic(text in r#"\{("[a-z_]{0,3}":(\{|\[|-?[0-9]{1,20}|"[A-Z0-9]{0,3}"|,|\}|\]){0,9},?){0,5}\}?"#, data: Vec<u8>) {
        let file = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &data].concat();
        prop_assert!(open(&file).is_err());
    }

    #[test]
    fn random_tensor_entries_never_panic(
        shape in prop::collection::vec(prop_oneof![0u64..5, any::<u64>()], 0..10),
        offsets: [u64; 2],
        dtype in prop_oneof![Just("F32"), Just("F16"), Just("U8"), Just("U32"), Just("I64")],
        len in 0usize..64,
    ) {
        let mut file = Container::tiny(Scheme::Q8);
        file.tensors = BTreeMap::from([("x".to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }))]);
        file.data.truncate(len);
        prop_assert!(open(&file.bytes()).is_err());
    }

    #[test]
    fn spliced_files_never_panic(at: prop::sample::Index, len in 0usize..40, with: Vec<u8>) {
        let mut file = tiny_q8().to_vec();
        let at = at.index(20_000.min(file.len()));
        let end = (at + len).min(file.len());
        file.splice(at..end, with);
        let _ = open_model(&file);
    }
}

proptest! {
    // Every case writes and syncs a file.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn numbers_in_metadata_come_back_bit_for_bit(bits in prop::collection::vec(any::<u32>(), 60), gain in 1e-30f32..1e30) {
        let mut metadata = tiny::metadata(Scheme::Q8);
        metadata.preprocess.mean = bits.into_iter().map(f32::from_bits).map(|x| if x.is_finite() { x } else { 1.0 }).collect();
        metadata.quantizer.gain = gain;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        write_checkpoint(&path, &metadata, tiny_q8_tensors()).unwrap();
        let read = Checkpoint::open(&path, ReadOptions::default()).unwrap();
        prop_assert_eq!(&read.metadata().preprocess.mean, &metadata.preprocess.mean);
        prop_assert_eq!(read.metadata().quantizer.gain, gain);
    }
}

fn tiny_q8() -> &'static [u8] {
    static FILE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| tiny::bytes(Scheme::Q8));
    &FILE
}

fn tiny_q8_tensors() -> &'static [llmar::checkpoint::Tensor<'static>] {
    static TENSORS: std::sync::LazyLock<Vec<llmar::checkpoint::Tensor<'static>>> = std::sync::LazyLock::new(|| tiny::tensors(Scheme::Q8));
    &TENSORS
}
