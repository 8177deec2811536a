//! What is written comes back; what is damaged, foreign or interrupted does not pass.

use std::borrow::Cow;
use std::path::Path;

use super::*;
use crate::error::{Error, Result};
use crate::testing::{Random, tiny_config};

fn meta() -> AdapterMeta {
    AdapterMeta {
        name: "wink — 眨眼".to_string(),
        rank: 2,
        alpha: 16.0,
        prefix: "Given \"this\"".to_string(),
        suffix: ",\n".to_string(),
        answer_lead: " ".to_string(),
        answer: Answer::LabelText,
        reads: Reads::Codes,
        labels: vec!["a".to_string()],
        needs: BTreeMap::new(),
        idle: None,
        calibration: Calibration { temperature: 0.1 + 0.2, unknown_below: 0.0 },
        words: None,
        stage1_sha256: "s".to_string(),
        base_source_sha256: "b".to_string(),
        provenance: BTreeMap::from([("seed".to_string(), "7".to_string())]),
    }
}

type Tensors = Vec<FloatTensor>;

fn tensors() -> Tensors {
    let mut random = Random::new(1);
    vec![
        ("b".to_string(), vec![3, 5], random.halves(15), Store::F16),
        ("a".to_string(), vec![7], (0..7).map(|_| random.uniform()).collect(), Store::F32),
        ("empty".to_string(), vec![0, 4], vec![], Store::F32),
        ("scalar".to_string(), vec![], vec![-0.5], Store::F16),
    ]
}

fn text_of<T>(result: Result<T>) -> String {
    result.err().map_or_else(|| panic!("expected an error"), |error| error.to_string())
}

fn files(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_is_written_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write(&path, &meta(), &tensors()).unwrap();
    let opened: Opened<AdapterMeta> = open(&path).unwrap();
    assert_eq!(opened.meta, meta());
    assert_eq!(opened.names().collect::<Vec<_>>(), ["a", "b", "empty", "scalar"]);
    for (name, shape, values, store) in tensors() {
        assert_eq!(opened.info(&name), Some((&shape[..], store)));
        assert_eq!(opened.floats(&name, &shape).unwrap(), values, "{name}");
    }
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(opened.sha256(), sha256_hex(&bytes));
    assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");

    // Any reader of safetensors can open it, and the same content is the same file.
    assert_eq!(safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("b").unwrap().shape(), [3, 5]);
    write(&path, &meta(), &tensors()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(files(folder.path()), ["x.safetensors"]);
}

#[test]
fn adapters_of_before_live_models_are_read_and_written_as_they_were() {
    let text = serde_json::to_string(&meta()).unwrap();
    assert!(!text.contains("needs") && !text.contains("idle"), "{text}");
    assert_eq!(serde_json::from_str::<AdapterMeta>(&text).unwrap(), meta());
    let needs = BTreeMap::from([("a".to_string(), vec!["left_foot".to_string()])]);
    let live = AdapterMeta { needs, idle: Some("a".to_string()), ..meta() };
    assert_eq!(serde_json::from_str::<AdapterMeta>(&serde_json::to_string(&live).unwrap()).unwrap(), live);
}

#[test]
fn lists_of_integers_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let plan = |len: usize| {
        [("u8", len, Store::U8), ("u32", 2, Store::U32)].map(|(name, len, store)| Planned {
            name: name.to_string(),
            shape: vec![len],
            store,
        })
    };
    let load = |index: usize| {
        Ok(match index {
            0 => Values::Bytes(Cow::Borrowed(&[0, 255, 7])),
            _ => Values::Integers(Cow::Borrowed(&[u32::MAX, 1])),
        })
    };
    write_lazily(&path, &meta(), &plan(3), &load).unwrap();
    let opened: Opened<AdapterMeta> = open(&path).unwrap();
    assert_eq!((opened.bytes("u8").unwrap(), opened.integers("u32").unwrap()), (&[0, 255, 7][..], vec![u32::MAX, 1]));
    assert!(text_of(opened.bytes("u32")).contains("`u32`"));
    assert!(text_of(opened.floats("u32", &[2])).contains("expected floats"));
    assert!(text_of(write_lazily(&path, &meta(), &plan(4), &load)).contains("expected 4 values"));
}

#[test]
fn a_write_that_fails_leaves_the_previous_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    std::fs::write(&path, "previous").unwrap();
    let changed = |change: fn(&mut Tensors)| {
        let mut tensors = tensors();
        change(&mut tensors);
        text_of(write(&path, &meta(), &tensors))
    };
    assert!(changed(|t| t[0].2[4] = f32::NAN).contains("`b`: value 4 is NaN"));
    assert!(changed(|t| t[0].2[14] = 65_520.0).contains("`b`: value 14 is 65520")); // rounds to infinity in f16
    assert!(changed(|t| t[1].2[0] = f32::INFINITY).contains("`a`: value 0 is inf"));
    assert!(changed(|t| t[1].2.truncate(6)).contains("expected 7 values for shape [7], got 6"));
    assert!(changed(|t| t[0].0 = "a".to_string()).contains("`a` was given twice"));
    assert!(changed(|t| t[0].1 = vec![usize::MAX, 2]).contains("overflows"));
    assert!(changed(|t| t[0].3 = Store::U8).contains("U8"));
    assert_eq!(std::fs::read(&path).unwrap(), b"previous");
    assert_eq!(files(folder.path()), ["x"], "no temporary file is left");
}

#[test]
fn another_kind_of_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    write(&path, &meta(), &tensors()).unwrap();
    let text = text_of(open::<BaseMeta>(&path));
    assert!(text.contains("`llmar_base`") && text.contains("llmar_adapter"), "{text}");
    assert!(matches!(open::<BaseMeta>(&folder.path().join("none")), Err(Error::Io { .. })));
    for (content, needle) in
        [(&b""[..], "empty"), (b"{}", "fewer than 8 bytes"), (&[255; 64], "header of"), (b"\x02\0\0\0\0\0\0\0{}", "llmar_adapter")]
    {
        std::fs::write(&path, content).unwrap();
        assert!(text_of(open::<AdapterMeta>(&path)).contains(needle), "{needle}");
    }
    let wide = br#"{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"__metadata__":{"llmar_adapter":"{}"}}"#;
    std::fs::write(&path, [&(wide.len() as u64).to_le_bytes()[..], wide, &[0; 8]].concat()).unwrap();
    assert!(text_of(open::<AdapterMeta>(&path)).contains("llmar_adapter"));
}

#[test]
fn shapes_and_values_are_checked_when_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    write(&path, &meta(), &tensors()).unwrap();
    let opened: Opened<AdapterMeta> = open(&path).unwrap();
    assert!(text_of(opened.floats("b", &[5, 3])).contains("expected shape [5, 3], got [3, 5]"));
    assert!(text_of(opened.floats("c", &[1])).contains("`c` is missing"));
    let mut bytes = std::fs::read(&path).unwrap();
    let (data, _) = read_header(&bytes).unwrap();
    bytes[data + 2..data + 4].copy_from_slice(&[0x80, 0x7f]); // the first f32 becomes infinite
    std::fs::write(&path, &bytes).unwrap();
    let opened: Opened<AdapterMeta> = open(&path).unwrap();
    assert!(text_of(opened.floats("a", &[7])).contains("`a`: value 0"));
}

#[test]
fn truncated_and_flipped_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    write(&path, &meta(), &tensors()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let read_all = |bytes: &[u8]| -> Result<()> {
        let opened: Opened<AdapterMeta> = read::parse(&path, llmar::bytes::Bytes::copy_from(bytes))?;
        let shapes: Vec<_> = opened.names().map(|name| (name.to_string(), opened.info(name).unwrap().0.to_vec())).collect();
        shapes.iter().try_for_each(|(name, shape)| opened.floats(name, shape).map(drop))
    };
    read_all(&bytes).unwrap();
    for len in 0..bytes.len() {
        assert!(read_all(&bytes[..len]).is_err(), "cut at {len}");
    }
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // Many flips only change a number or a text: they must not panic, and need not be noticed.
        let _ = read_all(&damaged);
    }
    // Eight tensors of 2^61 − 1 bytes end 8 bytes below 2^64: the header's length must not be added to that unchecked.
    let part = (1u64 << 61) - 1;
    let entry = |i: u64| format!(r#""{i}":{{"dtype":"U8","shape":[{part}],"data_offsets":[{},{}]}}"#, i * part, (i + 1) * part);
    let header = format!("{{{}}}", (0..8).map(entry).collect::<Vec<_>>().join(","));
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    assert!(read_header(&file).unwrap_err().contains("expected 18446744073709551608 bytes of tensors"));
}

#[test]
fn a_base_model_has_nine_tensors_a_layer() {
    let plan = base_tensors(&tiny_config());
    assert_eq!(plan.len(), 1 + 2 * 9 + 1);
    let shape = |name: &str| plan.iter().find(|tensor| tensor.name == name).map(|tensor| (tensor.shape.clone(), tensor.store));
    assert_eq!(shape("model.layers.1.self_attn.k_proj.weight"), Some((vec![16, 32], Store::F16)));
    assert_eq!(shape("model.layers.1.mlp.down_proj.weight"), Some((vec![32, 64], Store::F16)));
    assert_eq!(shape("model.norm.weight"), Some((vec![32], Store::F32)));
    assert_eq!(shape("lm_head.weight"), None);
    let untied = base_tensors(&LlamaConfig { tie_word_embeddings: false, ..tiny_config() });
    assert_eq!(untied.last().map(|tensor| tensor.name.as_str()), Some("lm_head.weight"));
}
