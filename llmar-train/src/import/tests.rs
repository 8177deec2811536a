//! Import of files that the tests write themselves, of a real Hugging Face folder and of a real GGUF file.

use std::path::Path;

use half::f16;
use serde_json::{Value, json};

use super::*;
use crate::artifacts::{Opened, open};
use crate::testing::{GgufWriter, Random, shared, smollm2, tiny_config};

/// GPT-2's printable letters of all 256 bytes, built as GPT-2 builds them: printable bytes first, then the others from U+0100 on.
fn byte_letters() -> Vec<char> {
    let printable = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut next = 256;
    (0..256)
        .map(|b| {
            let code = if printable(b) { b } else { next };
            next += u32::from(!printable(b));
            char::from_u32(code).unwrap()
        })
        .collect()
}

/// A byte-level vocabulary of 300: 3 specials, 256 bytes, merges, padding.
fn byte_level_vocabulary() -> (Vec<String>, Vec<String>) {
    let letters = byte_letters();
    let mut pieces: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from).to_vec();
    pieces.extend(letters.iter().map(char::to_string));
    let merges: Vec<String> = (0..20).map(|i| format!("{} {}", letters[(13 * i) % 256], letters[(29 * i + 7) % 256])).collect();
    pieces.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    (pieces, merges)
}

/// Interleaves the rows of each head as GGUF stores q and k, written as llama.cpp's converter thinks of it: [2, head_dim/2] → [head_dim/2, 2].
fn interleave(values: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    let rows = values.len() / cols;
    (0..rows)
        .flat_map(|row| {
            let (head, within) = (row / head_dim, row % head_dim);
            let from = head * head_dim + (within % 2) * (head_dim / 2) + within / 2;
            values[from * cols..(from + 1) * cols].to_vec()
        })
        .collect()
}

fn f16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Random blocks of ggml's type `kind`, and the values that they stand for, after rounding to f16.
fn blocks(kind: u32, len: usize, random: &mut Random) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = Vec::new();
    let mut values = Vec::new();
    for _ in 0..len / 32 {
        let scale = f16::from_f32(random.uniform() * 0.1);
        let min = f16::from_f32(random.uniform());
        bytes.extend(scale.to_le_bytes());
        let (scale, min) = (scale.to_f32(), if kind == 3 { min.to_f32() } else { 0.0 });
        if kind == 3 {
            bytes.extend(f16::from_f32(min).to_le_bytes());
        }
        let levels: Vec<i32> = (0..32).map(|_| (random.next() % if kind == 8 { 256 } else { 16 }) as i32).collect();
        match kind {
            8 => bytes.extend(levels.iter().map(|&level| (level - 128) as i8 as u8)),
            _ => bytes.extend((0..16).map(|i| (levels[i] | levels[i + 16] << 4) as u8)),
        }
        let zero = [(8, 128), (2, 8), (3, 0)].into_iter().find(|&(k, _)| k == kind).unwrap().1;
        values.extend(levels.iter().map(|level| f16::from_f32((level - zero) as f32 * scale + min).to_f32()));
    }
    (bytes, values)
}

/// A tiny LLaMA as GGUF with matrices of ggml's type `kind`, and the values that the base model must hold.
fn tiny_gguf(kind: u32) -> (GgufWriter, Vec<(Planned, Vec<f32>)>) {
    let config = tiny_config();
    let (pieces, merges) = byte_level_vocabulary();
    let mut file = GgufWriter::default();
    file.string("general.architecture", "llama")
        .u32("llama.block_count", config.num_hidden_layers as u32)
        .u32("llama.context_length", config.max_position_embeddings as u32)
        .u32("llama.embedding_length", config.hidden_size as u32)
        .u32("llama.feed_forward_length", config.intermediate_size as u32)
        .u32("llama.attention.head_count", config.num_attention_heads as u32)
        .u32("llama.attention.head_count_kv", config.num_key_value_heads as u32)
        .u32("llama.rope.dimension_count", config.head_dim as u32)
        .f32("llama.rope.freq_base", config.rope_theta)
        .f32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "smollm")
        .i32s("tokenizer.ggml.token_type", &(0..pieces.len()).map(|id| if id < 3 { 3 } else { 1 }).collect::<Vec<_>>())
        .strings("tokenizer.ggml.tokens", &pieces)
        .strings("tokenizer.ggml.merges", &merges)
        .bool("tokenizer.ggml.add_bos_token", false)
        .u32("tokenizer.ggml.eos_token_id", 2);

    let mut random = Random::new(u64::from(kind) + 1);
    let mut expected = Vec::new();
    for tensor in base_tensors(&config) {
        let name = gguf_name(&tensor.name).unwrap();
        let len = tensor.shape.iter().product();
        let (kind, bytes, stored) = match (tensor.store, kind) {
            (Store::F32, _) | (_, 0) => {
                let values: Vec<f32> = (0..len).map(|_| random.uniform()).collect();
                let kept = values.iter().map(|&v| if tensor.store == Store::F32 { v } else { f16::from_f32(v).to_f32() }).collect();
                (0, f32_bytes(&values), kept)
            }
            (_, 1) => {
                let values = random.halves(len);
                (1, f16_bytes(&values), values)
            }
            _ => {
                let (bytes, values) = blocks(kind, len, &mut random);
                (kind, bytes, values)
            }
        };
        file.tensor(&name, &tensor.shape, kind, bytes);
        let rotated = name.contains("attn_q") || name.contains("attn_k");
        let values = if rotated { half_split_rows(&stored, config.head_dim, config.hidden_size) } else { stored };
        expected.push((tensor, values));
    }
    (file, expected)
}

fn import_bytes(bytes: &[u8]) -> Result<Opened<BaseMeta>> {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("m.gguf"), folder.path().join("base.safetensors"));
    std::fs::write(&source, bytes).unwrap();
    let result = import(&source, &out);
    assert_eq!(result.is_ok(), out.exists(), "a file is written exactly on success");
    result.map(|meta| {
        let base = open(&out).unwrap();
        assert_eq!(meta, base.meta);
        base
    })
}

#[track_caller]
fn refused<T>(result: Result<T>, needle: &str) {
    match result {
        Ok(_) => panic!("expected an error with {needle:?}"),
        Err(error) => assert!(error.to_string().contains(needle), "expected {needle:?} in {error}"),
    }
}

#[test]
fn every_gguf_type_gives_the_values_that_were_stored() {
    for kind in [0, 1, 2, 3, 8] {
        let (file, expected) = tiny_gguf(kind);
        let base = import_bytes(&file.build().0).unwrap();
        assert_eq!(base.meta.config, tiny_config());
        assert_eq!((base.meta.eos_id, base.meta.source.as_str()), (2, "m.gguf"));
        for (tensor, values) in expected {
            assert_eq!(base.info(&tensor.name), Some((&tensor.shape[..], tensor.store)), "{}", tensor.name);
            assert_eq!(base.floats(&tensor.name, &tensor.shape).unwrap(), values, "type {kind}, {}", tensor.name);
        }
        let tables = tokenizer::from_base(&base).unwrap();
        assert_eq!((tables.meta.bos_id, tables.meta.unk_id, &tables.special[..]), (None, None, &[0, 1, 2][..]));
        assert_eq!(tables.pieces[1], b"<|im_start|>");
        assert!((0..=255).all(|byte: u8| tables.pieces[3 + usize::from(byte)] == [byte]), "each byte's piece is that byte");
        assert_eq!(tables.pieces[259 + 4], [52, 123]); // the merge of bytes 13 · 4 and 29 · 4 + 7
        assert_eq!(tables.merges[4], (3 + 52, 3 + 123));
        assert_eq!((tables.pieces.len(), tables.pieces[299].len()), (300, 0));
    }
}

#[test]
fn rows_of_q_and_k_come_back_from_ggufs_order() {
    let (head_dim, cols) = (6, 5);
    let values: Vec<f32> = (0..3 * head_dim * cols).map(|i| i as f32).collect();
    let stored = interleave(&values, head_dim, cols);
    assert_ne!(stored, values);
    assert_eq!(half_split_rows(&stored, head_dim, cols), values);
}

#[test]
fn a_folder_and_its_shards_and_a_gguf_file_are_the_same_model() {
    let config = tiny_config();
    let (mut file, expected) = tiny_gguf(1);
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), &config_json(), &expected, 1);
    let shards = tempfile::tempdir().unwrap();
    write_folder(shards.path(), &config_json(), &expected, 3);
    // The folder's norms are exact in f32 and f16 alike only if they are stored in f32, as here.
    for (tensor, values) in expected.iter().filter(|(tensor, _)| tensor.name.contains("q_proj") || tensor.name.contains("k_proj")) {
        let stored = interleave(values, config.head_dim, config.hidden_size);
        file.tensor(&gguf_name(&tensor.name).unwrap(), &tensor.shape, 1, f16_bytes(&stored));
    }
    let from_gguf = import_bytes(&file.build().0).unwrap();
    for source in [folder.path(), shards.path()] {
        let out = folder.path().join("base.safetensors");
        import(source, &out).unwrap();
        let base: Opened<BaseMeta> = open(&out).unwrap();
        assert_eq!(base.meta.config, from_gguf.meta.config);
        assert_eq!(base.names().collect::<Vec<_>>(), from_gguf.names().collect::<Vec<_>>());
        for (tensor, values) in &expected {
            assert_eq!(&base.floats(&tensor.name, &tensor.shape).unwrap(), values, "{}", tensor.name);
            assert_eq!(&from_gguf.floats(&tensor.name, &tensor.shape).unwrap(), values, "{}", tensor.name);
        }
        assert!(tokenizer::from_base(&base).unwrap() == tokenizer::from_base(&from_gguf).unwrap(), "the tokenizers differ");
    }
}

fn config_json() -> Value {
    json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "rope_scaling": null, "tie_word_embeddings": true, "eos_token_id": 2,
    })
}

fn tokenizer_json() -> Value {
    let (pieces, merges) = byte_level_vocabulary();
    let vocab: serde_json::Map<String, Value> = pieces.iter().enumerate().map(|(id, piece)| (piece.clone(), id.into())).collect();
    let added: Vec<Value> = (0..3).map(|id| json!({"id": id, "content": pieces[id], "special": true})).collect();
    json!({
        "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
}

/// Writes a Hugging Face folder whose matrices are f16, in `shards` files.
fn write_folder(folder: &Path, config: &Value, tensors: &[(Planned, Vec<f32>)], shards: usize) {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    let mut weight_map = serde_json::Map::new();
    for shard in 0..shards {
        let name = if shards == 1 { "model.safetensors".to_string() } else { format!("model-{shard}-of-{shards}.safetensors") };
        let members: Vec<_> = tensors.iter().skip(shard).step_by(shards).collect();
        let bytes: Vec<Vec<u8>> =
            members.iter().map(|(tensor, values)| if tensor.store == Store::F32 { f32_bytes(values) } else { f16_bytes(values) }).collect();
        let views: Vec<_> = members
            .iter()
            .zip(&bytes)
            .map(|((tensor, _), bytes)| {
                let dtype = if tensor.store == Store::F32 { safetensors::Dtype::F32 } else { safetensors::Dtype::F16 };
                weight_map.insert(tensor.name.clone(), name.clone().into());
                (tensor.name.as_str(), safetensors::tensor::TensorView::new(dtype, tensor.shape.clone(), bytes).unwrap())
            })
            .collect();
        std::fs::write(folder.join(name), safetensors::serialize(views, None).unwrap()).unwrap();
    }
    if shards > 1 {
        std::fs::write(folder.join("model.safetensors.index.json"), json!({"weight_map": weight_map}).to_string()).unwrap();
    }
}

#[test]
fn a_folder_that_the_forward_pass_does_not_do_is_refused_by_field() {
    let (_, mut tensors) = tiny_gguf(1);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("base.safetensors");
    write_folder(folder.path(), &config_json(), &tensors, 1);
    import(folder.path(), &out).unwrap();
    std::fs::remove_file(&out).unwrap();
    for (field, value) in [
        ("model_type", json!("qwen2")),
        ("model_type", Value::Null),
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
        ("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4})),
        ("sliding_window", json!(4096)),
        ("quantization_config", json!({"bits": 4})),
        ("partial_rotary_factor", json!(0.5)),
        ("hidden_size", json!(-1)),
        ("hidden_size", json!(1e30)),
        ("num_attention_heads", json!(5)),
        ("eos_token_id", json!("</s>")),
        ("rope_theta", json!("large")),
    ] {
        let mut config = config_json();
        config[field] = value;
        write_folder(folder.path(), &config, &tensors, 1);
        refused(import(folder.path(), &out), field);
    }
    for (field, value, needle) in [
        ("num_hidden_layers", json!(3), "model.layers.2"),
        ("num_hidden_layers", json!(0), "num_hidden_layers"),
        ("num_hidden_layers", json!(4_000_000_000_u32), "num_hidden_layers"),
        ("intermediate_size", json!(96), "expected shape [32, 96], got [32, 64]"),
        ("tie_word_embeddings", json!(false), "lm_head.weight"),
        ("eos_token_id", json!(300), "below 300"),
        ("vocab_size", json!(200), "279 ids"),
    ] {
        let mut config = config_json();
        config[field] = value;
        write_folder(folder.path(), &config, &tensors, 1);
        refused(import(folder.path(), &out), needle);
    }
    tensors[1].0.name = "model.layers.0.self_attn.q_proj.bias".to_string();
    write_folder(folder.path(), &config_json(), &tensors, 1);
    refused(import(folder.path(), &out), "q_proj.bias");
    assert!(!out.exists());
}

#[test]
fn a_shard_index_cannot_lead_out_of_its_folder() {
    let (_, tensors) = tiny_gguf(1);
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), &config_json(), &tensors, 2);
    for name in [json!("../model.safetensors"), json!("/model.safetensors"), json!(""), json!(7)] {
        let index = json!({"weight_map": {"model.norm.weight": name}});
        std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        refused(import(folder.path(), &folder.path().join("out")), "expected a file name");
    }
    std::fs::write(folder.path().join("model.safetensors.index.json"), json!({"weight_map": {"a": "gone.safetensors"}}).to_string())
        .unwrap();
    refused(import(folder.path(), &folder.path().join("out")), "gone.safetensors");
}

#[test]
fn a_gguf_file_that_the_forward_pass_does_not_do_is_refused_by_key() {
    let (good, _) = tiny_gguf(8);
    let refuse = |needle: &str, change: &dyn Fn(&mut GgufWriter)| {
        let mut file = good.clone();
        change(&mut file);
        refused(import_bytes(&file.build().0), needle);
    };
    refuse("general.architecture", &|f| _ = f.string("general.architecture", "gemma"));
    refuse("general.architecture", &|f| _ = f.u32("general.architecture", 1));
    refuse("llama.expert_count", &|f| _ = f.u32("llama.expert_count", 8));
    refuse("llama.rope.scaling.type", &|f| _ = f.string("llama.rope.scaling.type", "yarn"));
    refuse("llama.rope.scaling.factor", &|f| _ = f.f32("llama.rope.scaling.factor", 2.0));
    refuse("llama.rope.dimension_count", &|f| _ = f.u32("llama.rope.dimension_count", 4));
    refuse("llama.block_count", &|f| _ = f.without("llama.block_count"));
    refuse("llama.block_count", &|f| _ = f.raw("llama.block_count", 5, &(-1i32).to_le_bytes()));
    refuse("layer_norm_rms_epsilon", &|f| _ = f.f32("llama.attention.layer_norm_rms_epsilon", f32::NAN));
    refuse("llama.vocab_size", &|f| _ = f.u32("llama.vocab_size", 299));
    refuse("tokenizer.ggml.model", &|f| _ = f.string("tokenizer.ggml.model", "bert"));
    refuse("tokenizer.ggml.pre", &|f| _ = f.string("tokenizer.ggml.pre", "llama-bpe"));
    refuse("tokenizer.ggml.merges", &|f| _ = f.without("tokenizer.ggml.merges"));
    refuse("merge 0", &|f| _ = f.strings("tokenizer.ggml.merges", &["no such".to_string()]));
    refuse("tokenizer.ggml.token_type", &|f| _ = f.i32s("tokenizer.ggml.token_type", &[1]));
    refuse("tokenizer.ggml.tokens[3]", &|f| {
        let (mut pieces, _) = byte_level_vocabulary();
        pieces[3] = "世".to_string();
        f.i32s("tokenizer.ggml.token_type", &[1; 279]).strings("tokenizer.ggml.tokens", &pieces);
    });
    refuse("below 300", &|f| _ = f.u32("tokenizer.ggml.eos_token_id", 300));
    refuse("general.alignment", &|f| _ = f.u32("general.alignment", 48));
    refuse("blk.1.ffn_up.weight", &|f| _ = f.without_tensor("blk.1.ffn_up.weight"));
    refuse("blk.0.attn_q.bias", &|f| _ = f.tensor("blk.0.attn_q.bias", &[32], 0, vec![0; 128]));
    refuse("Q4_K", &|f| _ = f.tensor("blk.0.attn_q.weight", &[32, 32], 12, vec![0; 1024]));
    refuse("expected shape [32, 32], got [64, 32]", &|f| _ = f.tensor("blk.0.attn_q.weight", &[64, 32], 1, vec![0; 4096]));
    refuse("not whole blocks", &|f| _ = f.tensor("blk.0.attn_q.weight", &[32, 33], 8, vec![0; 4096]));
    refuse("beyond the file", &|f| _ = f.tensor("z", &[32, 32], 0, vec![0; 8]));
    refuse("overflow", &|f| _ = f.tensor("z", &[usize::MAX, 32, 32], 0, vec![0; 8]));
    refuse("expected a finite", &|f| _ = f.tensor("blk.0.attn_q.weight", &[32, 32], 0, f32_bytes(&[1e6; 1024])));
    refuse("expected a finite", &|f| _ = f.tensor("output_norm.weight", &[32], 0, f32_bytes(&[f32::NAN; 32])));
}

#[test]
fn counts_that_a_file_cannot_hold_are_refused_before_memory_is_taken() {
    let head = |tensors: u64, keys: u64| [&b"GGUF\x03\0\0\0"[..], &tensors.to_le_bytes(), &keys.to_le_bytes()].concat();
    refused(Gguf::parse("f", &head(u64::MAX, 0)), "number of tensors");
    refused(Gguf::parse("f", &head(0, u64::MAX)), "number of metadata keys");
    refused(Gguf::parse("f", &head(1 << 16, 0)), "tensor name");
    let key = [&1u64.to_le_bytes()[..], b"k"].concat();
    for (element, len) in [(0u32, u64::MAX), (8, 1 << 60), (4, 3), (12, 2)] {
        let array = [&9u32.to_le_bytes()[..], &element.to_le_bytes(), &len.to_le_bytes(), &[0; 8]].concat();
        refused(Gguf::parse("f", &[head(0, 1), key.clone(), array].concat()), "does not fit");
    }
    let nested = [&9u32.to_le_bytes()[..], &9u32.to_le_bytes(), &1u64.to_le_bytes()].concat();
    refused(Gguf::parse("f", &[head(0, 1), key.clone(), nested].concat()), "arrays of arrays");
    let long = [&8u32.to_le_bytes()[..], &(u64::MAX - 3).to_le_bytes()].concat();
    refused(Gguf::parse("f", &[head(0, 1), key, long].concat()), "expected 18446744073709551612 bytes");
    refused(Gguf::parse("f", b"GGUF\0\0\0\x03"), "big-endian");
    refused(Gguf::parse("f", b"GGUF\x01\0\0\0"), "version 2 or 3, got 1");
}

/// All that `import` reads of a GGUF file, without writing.
fn read_all(bytes: &[u8]) -> Result<()> {
    let gguf = Gguf::parse("tiny", bytes)?;
    let (config, _) = gguf_config(&gguf)?;
    tokenizer::from_gguf(&gguf)?;
    base_tensors(&config).iter().try_for_each(|tensor| gguf_floats(&gguf, &config, &tensor.name, &tensor.shape).map(drop))
}

#[test]
fn truncated_and_flipped_gguf_files_never_panic() {
    // A vocabulary of 14 keeps the header short: each of its bits is flipped.
    let letters = byte_letters();
    let mut pieces: Vec<String> = ["<|end|>".to_string()].into_iter().chain(letters[..12].iter().map(char::to_string)).collect();
    pieces.push(format!("{}{}", letters[3], letters[4]));
    let (file, header) = tiny_gguf(3)
        .0
        .strings("tokenizer.ggml.tokens", &pieces)
        .strings("tokenizer.ggml.merges", &[format!("{} {}", letters[3], letters[4])])
        .i32s("tokenizer.ggml.token_type", &[3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
        .build();
    read_all(&file).unwrap();
    for len in (0..header).chain((header..file.len()).step_by(61)) {
        assert!(read_all(&file[..len]).is_err(), "cut at {len} of {}", file.len());
    }
    let mut damaged = file.clone();
    let mut errors = 0;
    for bit in 0..8 * header {
        damaged[bit / 8] ^= 1 << (bit % 8);
        errors += usize::from(read_all(&damaged).is_err());
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(errors > 4 * header, "only {errors} of {} flips were noticed", 8 * header);
}

#[test]
fn stories260k_comes_through_unchanged() {
    let Some(source) = shared("stories260k_comes_through_unchanged", "golden/stories260k") else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("base.safetensors");
    let meta = import(&source, &out).unwrap();
    assert_eq!((meta.eos_id, meta.tokenizer.bos_id, meta.tokenizer.unk_id), (2, Some(1), Some(0)));
    let base = open(&out).unwrap();
    check_first_layer(&base, &source.with_file_name("golden_stories260k-f16.json"));

    let tables = tokenizer::from_base(&base).unwrap();
    assert_eq!((tables.pieces.len(), tables.merges.len(), &tables.special[..]), (512, 165, &[0, 1, 2][..]));
    assert_eq!((&tables.pieces[13][..], &tables.pieces[259][..]), (&b"<0x0A>"[..], "▁t".as_bytes()));
    assert!(tables == tokenizer_of(&source).unwrap(), "the base model holds other tables than tokenizer.json");
}

/// SentencePiece scores stand for merges: those of stories260k, whose learned pieces score 0, −1, −2 … in the order of their ids.
#[test]
fn scores_give_the_merges_that_tokenizer_json_has() {
    let Some(source) = shared("scores_give_the_merges_that_tokenizer_json_has", "golden/stories260k") else { return };
    let from_json = tokenizer_of(&source).unwrap();
    let pieces: Vec<String> = from_json.pieces.iter().map(|piece| String::from_utf8(piece.clone()).unwrap()).collect();
    let types: Vec<i32> = (0..512).map(|id| [2, 3, 3].get(id).copied().unwrap_or(if id < 259 { 6 } else { 1 })).collect();
    let scores: Vec<f32> = (0..512).map(|id| if id < 259 { 0.0 } else { 259.0 - id as f32 }).collect();
    let mut file = GgufWriter::default();
    file.string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &pieces)
        .i32s("tokenizer.ggml.token_type", &types)
        .f32s("tokenizer.ggml.scores", &scores)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.unknown_token_id", 0);
    let (bytes, _) = file.build();
    let from_scores = tokenizer::from_gguf(&Gguf::parse("f", &bytes).unwrap()).unwrap();
    assert_eq!(from_scores.merges, from_json.merges);
    assert!(from_scores == from_json, "pieces, special ids or settings differ");

    let (bytes, _) = file.bool("tokenizer.ggml.add_space_prefix", false).build();
    refused(tokenizer::from_gguf(&Gguf::parse("f", &bytes).unwrap()), "add_space_prefix");
    let (bytes, _) = file.bool("tokenizer.ggml.add_space_prefix", true).bool("tokenizer.ggml.add_bos_token", false).build();
    assert_eq!(tokenizer::from_gguf(&Gguf::parse("f", &bytes).unwrap()).unwrap().meta.bos_id, None);
}

#[test]
fn smollm2_comes_through() {
    let Some(source) = smollm2("smollm2_comes_through") else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("base.safetensors");
    let meta = import(&source, &out).unwrap();
    let config = LlamaConfig {
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        head_dim: 64,
        vocab_size: 49152,
        max_position_embeddings: 8192,
        rope_theta: 1e5,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
    };
    assert_eq!((meta.config, meta.eos_id, meta.tokenizer.bos_id), (config, 2, None));
    assert_eq!(meta.source_sha256, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
    let base = open(&out).unwrap();
    let tables = tokenizer::from_base(&base).unwrap();
    assert_eq!((tables.pieces.len(), tables.merges.len(), tables.special.len()), (49152, 48900, 17));
    assert_eq!((&tables.pieces[2][..], &tables.pieces[216][..], &tables.pieces[198][..]), (&b"<|im_end|>"[..], &b" "[..], &b"\n"[..]));
    let Some(golden) = shared("smollm2_comes_through", "golden/golden_smollm2-135m-instruct.json") else { return };
    check_first_layer(&base, &golden);
}

/// Embedding, and q, k and v of layer 0 after RoPE in half-split order, against the golden's activations.
fn check_first_layer(base: &Opened<BaseMeta>, golden: &Path) {
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let golden = &golden["intermediates"];
    let c = &base.meta.config;
    let embed = base.floats("model.embed_tokens.weight", &[c.vocab_size, c.hidden_size]).unwrap();
    let norm = base.floats("model.layers.0.input_layernorm.weight", &[c.hidden_size]).unwrap();
    for (position, id) in golden["ids"].as_array().unwrap().iter().enumerate() {
        let id = id.as_u64().unwrap() as usize;
        let x = &embed[id * c.hidden_size..(id + 1) * c.hidden_size];
        check_tap(golden, "embed", position, x);
        let mean_square = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64;
        let factor = 1.0 / (mean_square + f64::from(c.rms_norm_eps)).sqrt();
        let normed: Vec<f64> = x.iter().zip(&norm).map(|(&v, &w)| f64::from(v) * factor * f64::from(w)).collect();
        for (tap, part, heads) in [
            ("layer0_q_rope", "q_proj", c.num_attention_heads),
            ("layer0_k_rope", "k_proj", c.num_key_value_heads),
            ("layer0_v", "v_proj", c.num_key_value_heads),
        ] {
            let w = base.floats(&format!("model.layers.0.self_attn.{part}.weight"), &[heads * c.head_dim, c.hidden_size]).unwrap();
            let mut y: Vec<f64> =
                w.chunks_exact(c.hidden_size).map(|row| row.iter().zip(&normed).map(|(&w, &v)| f64::from(w) * v).sum()).collect();
            if tap.ends_with("rope") {
                for head in y.chunks_exact_mut(c.head_dim) {
                    for i in 0..c.head_dim / 2 {
                        let angle = position as f64 * f64::from(c.rope_theta).powf(-2.0 * i as f64 / c.head_dim as f64);
                        let (a, b) = (head[i], head[i + c.head_dim / 2]);
                        head[i] = a * angle.cos() - b * angle.sin();
                        head[i + c.head_dim / 2] = a * angle.sin() + b * angle.cos();
                    }
                }
            }
            check_tap(golden, tap, position, &y.iter().map(|&v| v as f32).collect::<Vec<_>>());
        }
    }
}

fn check_tap(golden: &Value, tap: &str, position: usize, got: &[f32]) {
    let golden = &golden["taps"][tap][position];
    let numbers = |name: &str| golden[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    let (head, tail) = (numbers("head"), numbers("tail"));
    let near = |golden: f64, got: f64, what: &str| {
        assert!((golden - got).abs() <= 2e-5 * golden.abs().max(1.0), "{tap} {what} at position {position}: golden {golden}, got {got}");
    };
    near(golden["l2"].as_f64().unwrap(), got.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt(), "norm");
    head.iter().zip(got).for_each(|(&golden, &got)| near(golden, f64::from(got), "head"));
    tail.iter().zip(&got[got.len() - tail.len()..]).for_each(|(&golden, &got)| near(golden, f64::from(got), "tail"));
}
