//! Vocabularies of tokenizer.json and of GGUF metadata → the runtime's tables.
//!
//! Byte-level pieces become the raw bytes they stand for. SentencePiece pieces stay as they are written: UTF-8 with `▁` for a space, `<0x0A>` for
//! a byte that has no piece of its own. An id that nothing is written for gets an empty piece.
//! The runtime has exactly two ways of cutting text (see [`TokenizerKind`]); a tokenizer that cuts otherwise is refused, since its ids would
//! silently be others.

use std::collections::HashMap;

use llmar::checkpoint::{TokenizerKind, TokenizerMeta};
use llmar::text::TokenizerTables;
use serde_json::Value;

use crate::artifacts::{BaseMeta, Opened};
use crate::error::{Error, Result};

use super::gguf::{self, Gguf};

/// Most ids of a vocabulary.
const MAX_VOCAB: usize = 1 << 20;

/// Tables from a parsed tokenizer.json.
///
/// # Errors
/// [`Error::Format`] that names the part of tokenizer.json which is damaged or which the runtime does not do.
pub fn from_tokenizer_json(document: &Value) -> Result<TokenizerTables> {
    let model = &document["model"];
    expect(model, "model.type", &[Value::Null, "BPE".into()])?;
    for name in ["model.dropout", "model.continuing_subword_prefix", "model.end_of_word_suffix"] {
        expect(model, name, &[Value::Null, "".into()])?;
    }
    expect(model, "model.ignore_merges", &[Value::Null, false.into()])?;
    let kind = kind_of(document)?;

    let vocab = model["vocab"].as_object().ok_or_else(|| wrong("model.vocab: expected an object"))?;
    let mut pieces: Vec<Option<Vec<u8>>> = Vec::new();
    let mut ids: HashMap<&str, u32> = HashMap::with_capacity(vocab.len());
    for (piece, id) in vocab {
        let id = read_id(id).ok_or_else(|| wrong(format!("model.vocab: expected an id below {MAX_VOCAB} for {piece:?}, got {id}")))?;
        ids.insert(piece, id);
        // An added token may stand here too, in letters that are not GPT-2's stand-ins: it is put right below.
        let bytes = match kind {
            TokenizerKind::ByteLevelBpe => bytes_of_printable(piece).unwrap_or_default(),
            TokenizerKind::SentencePieceBpe => piece.as_bytes().to_vec(),
        };
        if put(&mut pieces, id, bytes).is_some() {
            return Err(wrong(format!("model.vocab: id {id} is given twice, once to {piece:?}")));
        }
    }

    let mut special = Vec::new();
    for token in document["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let content = token["content"].as_str().filter(|text| !text.is_empty());
        let (Some(content), Some(id)) = (content, read_id(&token["id"])) else {
            return Err(wrong(format!("added_tokens: expected content and id, got {token}")));
        };
        for flag in ["single_word", "lstrip", "rstrip"] {
            if token[flag].as_bool() == Some(true) {
                return Err(wrong(format!("added_tokens: {flag} of {content:?} is not supported, expected false")));
            }
        }
        put(&mut pieces, id, content.as_bytes().to_vec());
        ids.insert(content, id);
        special.push(id);
    }
    special.sort_unstable();
    special.dedup();
    if let Some((piece, id)) = ids.iter().find(|&(_, &id)| pieces[id as usize].as_ref().is_none_or(Vec::is_empty)) {
        return Err(wrong(format!("model.vocab: piece {piece:?} of id {id} is not written in the byte-level alphabet")));
    }

    let mut merges = Vec::new();
    for (rank, merge) in model["merges"].as_array().map(Vec::as_slice).unwrap_or_default().iter().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) if pair.len() == 2 => pair[0].as_str().zip(pair[1].as_str()),
            _ => None,
        };
        let pair = pair.ok_or_else(|| wrong(format!("model.merges[{rank}]: expected a pair of pieces, got {merge}")))?;
        merges.push(merge_ids(&ids, rank, pair)?);
    }
    if merges.is_empty() {
        return Err(wrong("model.merges: expected at least one merge"));
    }

    let unk_id = match &model["unk_token"] {
        Value::Null => None,
        token => Some(
            token
                .as_str()
                .and_then(|text| ids.get(text))
                .copied()
                .ok_or_else(|| wrong(format!("model.unk_token: {token} is not in the vocabulary")))?,
        ),
    };
    let meta = TokenizerMeta { kind, bos_id: bos_of(document, &ids)?, unk_id };
    Ok(TokenizerTables { meta, pieces: pieces.into_iter().map(Option::unwrap_or_default).collect(), merges, special })
}

/// Which of the runtime's two tokenizers a tokenizer.json describes; any third is refused.
fn kind_of(document: &Value) -> Result<TokenizerKind> {
    let steps = flatten(&document["pre_tokenizer"], "pretokenizers");
    let normalizers = flatten(&document["normalizer"], "normalizers");
    let is_type = |value: &Value, name: &str| value["type"].as_str() == Some(name);

    if steps.iter().any(|step| is_type(step, "ByteLevel")) {
        let fits = match steps[..] {
            [digits, bytes] => {
                is_type(digits, "Digits")
                    && digits["individual_digits"].as_bool() == Some(true)
                    && is_type(bytes, "ByteLevel")
                    && bytes["add_prefix_space"].as_bool() != Some(true)
                    && bytes["use_regex"].as_bool() != Some(false)
            }
            _ => false,
        };
        if !fits || !normalizers.is_empty() {
            let got = format!("pre_tokenizer {} and normalizer {}", document["pre_tokenizer"], document["normalizer"]);
            return Err(wrong(format!("expected Digits(individual) then ByteLevel(no prefix space) and no normalizer, got {got}")));
        }
        return Ok(TokenizerKind::ByteLevelBpe);
    }

    let prepends = |value: &Value| is_type(value, "Prepend") && value["prepend"] == "▁";
    let replaces = |value: &Value| is_type(value, "Replace") && value["pattern"]["String"] == " " && value["content"] == "▁";
    let by_normalizer = steps.is_empty() && matches!(normalizers[..], [first, second] if prepends(first) && replaces(second));
    let by_metaspace = normalizers.is_empty()
        && matches!(steps[..], [step] if is_type(step, "Metaspace") && step["replacement"] == "▁" && step["split"] == false
            && (step["prepend_scheme"] == "first" || step["prepend_scheme"] == "always"));
    let by_bytes = document["model"]["byte_fallback"].as_bool() == Some(true);
    if (by_normalizer || by_metaspace) && by_bytes {
        return Ok(TokenizerKind::SentencePieceBpe);
    }
    Err(wrong(format!(
        "expected a byte-level BPE (Digits, ByteLevel) or a SentencePiece BPE (`▁` put in front and for spaces, byte_fallback), got pre_tokenizer {}, \
         normalizer {}, byte_fallback {}",
        document["pre_tokenizer"], document["normalizer"], document["model"]["byte_fallback"]
    )))
}

/// The steps of a tokenizer.json component: none for null, the members of a `Sequence`, else the one.
fn flatten<'a>(component: &'a Value, members: &str) -> Vec<&'a Value> {
    match component {
        Value::Null => Vec::new(),
        sequence if sequence["type"] == "Sequence" => sequence[members].as_array().map(|list| list.iter().collect()).unwrap_or_default(),
        one => vec![one],
    }
}

/// The id that the post-processor's template puts before a text, if it does. Whatever it puts after one is for pairs and training: not used here.
fn bos_of(document: &Value, ids: &HashMap<&str, u32>) -> Result<Option<u32>> {
    for step in flatten(&document["post_processor"], "processors") {
        match step["type"].as_str() {
            Some("TemplateProcessing") => {
                let Some(token) = step["single"][0]["SpecialToken"]["id"].as_str() else { continue };
                let template_id = read_id(&step["special_tokens"][token]["ids"][0]);
                let id = template_id.or_else(|| ids.get(token).copied());
                return id.map(Some).ok_or_else(|| wrong(format!("post_processor: {token:?} has no id")));
            }
            Some("ByteLevel") => {} // trims offsets, changes no id
            other => return Err(wrong(format!("post_processor: expected TemplateProcessing or ByteLevel, got {other:?}"))),
        }
    }
    Ok(None)
}

/// Tables from GGUF metadata (`tokenizer.ggml.*`): model `gpt2` with pre-tokenizer `smollm`, or model `llama`.
pub fn from_gguf(gguf: &Gguf<'_>) -> Result<TokenizerTables> {
    const MODEL: &str = "tokenizer.ggml.model";
    let kind = match gguf.string(MODEL)? {
        Some("gpt2") => TokenizerKind::ByteLevelBpe,
        Some("llama") => TokenizerKind::SentencePieceBpe,
        other => return Err(gguf.wrong(format!("{MODEL}: expected `gpt2` or `llama`, got {other:?}"))),
    };
    if kind == TokenizerKind::ByteLevelBpe {
        match gguf.string("tokenizer.ggml.pre")? {
            Some("smollm") => {}
            other => return Err(gguf.wrong(format!("tokenizer.ggml.pre: expected `smollm`, got {other:?}"))),
        }
    }
    let written = strings(gguf, "tokenizer.ggml.tokens")?.ok_or_else(|| gguf.wrong("tokenizer.ggml.tokens is missing"))?;
    if written.len() > MAX_VOCAB {
        return Err(gguf.wrong(format!("tokenizer.ggml.tokens: {} ids, the limit is {MAX_VOCAB}", written.len())));
    }
    let types = match gguf.get("tokenizer.ggml.token_type") {
        Some(gguf::Value::Ints(types)) if types.len() == written.len() => types.clone(),
        None => vec![TYPE_NORMAL; written.len()],
        Some(other) => {
            return Err(gguf.wrong(format!("tokenizer.ggml.token_type: expected {} integers, got {}", written.len(), other.kind())));
        }
    };

    let mut ids: HashMap<&str, u32> = HashMap::with_capacity(written.len());
    let mut pieces = Vec::with_capacity(written.len());
    let mut special = Vec::new();
    for (id, (&piece, &kind_of_piece)) in written.iter().zip(&types).enumerate() {
        ids.entry(piece).or_insert(id as u32);
        let matched_whole = matches!(kind_of_piece, TYPE_UNKNOWN | TYPE_CONTROL | TYPE_USER_DEFINED);
        if matched_whole {
            special.push(id as u32);
        }
        pieces.push(match kind {
            TokenizerKind::ByteLevelBpe if !matched_whole => bytes_of_printable(piece)
                .ok_or_else(|| gguf.wrong(format!("tokenizer.ggml.tokens[{id}]: {piece:?} is not written in the byte-level alphabet")))?,
            _ => piece.as_bytes().to_vec(),
        });
    }
    let id_at = |key: &str| match gguf.integer(key)? {
        Some(id) if id >= written.len() => Err(gguf.wrong(format!("{key}: expected an id below {}, got {id}", written.len()))),
        id => Ok(id.map(|id| id as u32)),
    };

    let merges = match (strings(gguf, "tokenizer.ggml.merges")?, kind) {
        (Some(list), _) => list
            .iter()
            .enumerate()
            .map(|(rank, merge)| {
                let pair = merge.split_once(' ').ok_or_else(|| wrong(format!("merges[{rank}]: expected two pieces, got {merge:?}")))?;
                merge_ids(&ids, rank, pair)
            })
            .collect::<Result<_>>()
            .map_err(|e| gguf.wrong(format!("tokenizer.ggml.merges: {e}")))?,
        (None, TokenizerKind::SentencePieceBpe) => match gguf.get("tokenizer.ggml.scores") {
            Some(gguf::Value::Floats(scores)) if scores.len() == written.len() => merges_of_scores(&written, &types, scores, &ids),
            _ => return Err(gguf.wrong(format!("expected tokenizer.ggml.merges, or {} tokenizer.ggml.scores", written.len()))),
        },
        (None, TokenizerKind::ByteLevelBpe) => return Err(gguf.wrong("tokenizer.ggml.merges is missing")),
    };

    let sentence_piece = kind == TokenizerKind::SentencePieceBpe;
    // llama.cpp's defaults where the keys are absent: a SentencePiece vocabulary has both, a byte-level one neither.
    if gguf.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(sentence_piece) != sentence_piece {
        return Err(gguf.wrong(format!("tokenizer.ggml.add_space_prefix: expected {sentence_piece} for this kind of tokenizer")));
    }
    let bos_id = match gguf.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(sentence_piece) {
        true => Some(id_at("tokenizer.ggml.bos_token_id")?.ok_or_else(|| gguf.wrong("tokenizer.ggml.bos_token_id is missing"))?),
        false => None,
    };
    let meta = TokenizerMeta { kind, bos_id, unk_id: id_at("tokenizer.ggml.unknown_token_id")? };
    Ok(TokenizerTables { meta, pieces, merges, special })
}

const TYPE_NORMAL: i64 = 1;
const TYPE_UNKNOWN: i64 = 2;
const TYPE_CONTROL: i64 = 3;
const TYPE_USER_DEFINED: i64 = 4;

/// An array of UTF-8 strings, if the key is there.
fn strings<'a>(gguf: &Gguf<'a>, key: &str) -> Result<Option<Vec<&'a str>>> {
    match gguf.get(key) {
        None => Ok(None),
        Some(gguf::Value::Strings(list)) => list
            .iter()
            .enumerate()
            .map(|(i, bytes)| std::str::from_utf8(bytes).map_err(|e| gguf.wrong(format!("{key}[{i}]: expected UTF-8: {e}"))))
            .collect::<Result<_>>()
            .map(Some),
        Some(other) => Err(gguf.wrong(format!("{key}: expected an array of strings, got {}", other.kind()))),
    }
}

/// SentencePiece knows no merges: it always joins the pair whose joined piece scores best. So every way to cut a piece in two pieces is a merge, and
/// merges rank by the joined piece's score; those of one piece by the ids of their parts (the order that Hugging Face's converter writes).
fn merges_of_scores(written: &[&str], types: &[i64], scores: &[f64], ids: &HashMap<&str, u32>) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    for (id, &piece) in written.iter().enumerate() {
        if types[id] != TYPE_NORMAL && types[id] != TYPE_USER_DEFINED {
            continue;
        }
        let cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let mut pairs: Vec<(u32, u32)> = cuts.filter_map(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?))).collect();
        pairs.sort_unstable();
        found.extend(pairs.into_iter().map(|pair| (scores[id], pair)));
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable: equal scores stay in the order of ids
    found.into_iter().map(|(_, pair)| pair).collect()
}

/// Ids of a merge's parts; the joined piece must be there as well.
fn merge_ids(ids: &HashMap<&str, u32>, rank: usize, (left, right): (&str, &str)) -> Result<(u32, u32)> {
    let id = |piece: &str| ids.get(piece).copied().ok_or_else(|| wrong(format!("merge {rank}: {piece:?} is not in the vocabulary")));
    id(&format!("{left}{right}"))?;
    Ok((id(left)?, id(right)?))
}

fn put(pieces: &mut Vec<Option<Vec<u8>>>, id: u32, piece: Vec<u8>) -> Option<Vec<u8>> {
    let at = id as usize;
    if at >= pieces.len() {
        pieces.resize(at + 1, None);
    }
    pieces[at].replace(piece)
}

fn read_id(value: &Value) -> Option<u32> {
    value.as_u64().filter(|&id| id < MAX_VOCAB as u64).map(|id| id as u32)
}

/// `Err` unless the last part of `name` in `object` is one of `accepted`.
fn expect(object: &Value, name: &str, accepted: &[Value]) -> Result<()> {
    let got = &object[name.rsplit('.').next().unwrap_or(name)];
    if accepted.contains(got) {
        return Ok(());
    }
    Err(wrong(format!("{name}: expected one of {accepted:?}, got {got}")))
}

fn wrong(detail: impl ToString) -> Error {
    Error::format("tokenizer.json", detail)
}

/// Raw bytes of a piece written in GPT-2's printable alphabet, or `None` when a letter is not of it.
///
/// GPT-2 writes the bytes `!`..=`~`, `¡`..=`¬` and `®`..=`ÿ` as the characters of these numbers, and the other 68 bytes, in order, as U+0100 onwards.
fn bytes_of_printable(piece: &str) -> Option<Vec<u8>> {
    piece
        .chars()
        .map(|letter| match u32::from(letter) {
            code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
            code @ 0x100..=0x143 => hidden_byte(code - 0x100),
            _ => None,
        })
        .collect()
}

/// The n-th byte, n in 0..68, that has no printable character of its own.
fn hidden_byte(n: u32) -> Option<u8> {
    let byte = match n {
        0..=32 => n,              // control characters and space
        33..=66 => n - 33 + 0x7f, // delete … no-break space
        67 => 0xad,               // soft hyphen
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The tables in a base model, which stores them as a checkpoint does.
pub fn from_base(base: &Opened<BaseMeta>) -> Result<TokenizerTables> {
    let bytes = base.bytes("tokenizer.pieces")?;
    let offsets = base.integers("tokenizer.offsets")?;
    let merges = base.integers("tokenizer.merges")?;
    let special = base.integers("tokenizer.special")?;
    let mut pieces = Vec::with_capacity(offsets.len());
    for (id, ends) in offsets.windows(2).enumerate() {
        let piece = bytes.get(ends[0] as usize..ends[1] as usize);
        let piece = piece.ok_or_else(|| base.wrong(format!("tokenizer.offsets: piece {id} lies at {ends:?} of {} bytes", bytes.len())))?;
        pieces.push(piece.to_vec());
    }
    let (merges, rest) = merges.as_chunks();
    if !rest.is_empty() {
        return Err(base.wrong("tokenizer.merges: expected pairs, got an odd number of ids"));
    }
    let known = |&id: &u32| (id as usize) < pieces.len();
    if let Some(id) = merges.as_flattened().iter().chain(&special).find(|id| !known(id)) {
        return Err(base.wrong(format!("tokenizer: id {id} in merges or special ids, the vocabulary has {}", pieces.len())));
    }
    Ok(TokenizerTables { meta: base.meta.tokenizer, pieces, merges: merges.iter().map(|&[left, right]| (left, right)).collect(), special })
}
