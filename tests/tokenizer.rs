//! The tokenizer against Hugging Face's ids, a naive merger, and damaged vocabularies.

#[path = "common/shared.rs"]
mod shared;
#[path = "common/tiny.rs"]
mod tiny;

use std::collections::HashMap;
use std::path::Path;

use llmar::checkpoint::{TokenizerKind, TokenizerMeta};
use llmar::text::{Tokenizer, TokenizerTables};
use proptest::prelude::*;
use serde_json::Value;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Just enough of `tokenizer.json` for the LLaMA-style vocabulary of the golden model.
fn sentence_piece_tables(file: &Value) -> TokenizerTables {
    let ids: HashMap<&str, u32> =
        file["model"]["vocab"].as_object().unwrap().iter().map(|(piece, id)| (piece.as_str(), id.as_u64().unwrap() as u32)).collect();
    let mut pieces = vec![Vec::new(); ids.len()];
    for (piece, id) in &ids {
        pieces[*id as usize] = piece.as_bytes().to_vec();
    }
    let pair = |merge: &Value| {
        let (left, right) = merge.as_str().unwrap().split_once(' ').unwrap();
        (ids[left], ids[right])
    };
    TokenizerTables {
        meta: TokenizerMeta { kind: TokenizerKind::SentencePieceBpe, bos_id: Some(ids["<s>"]), unk_id: Some(ids["<unk>"]) },
        pieces,
        merges: file["model"]["merges"].as_array().unwrap().iter().map(pair).collect(),
        special: file["added_tokens"].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap() as u32).collect(),
    }
}

#[test]
fn sentence_piece_goldens() {
    let name = "sentence_piece_goldens";
    let Some(vocabulary) = shared::shared(name, "golden/stories260k/tokenizer.json") else { return };
    let Some(goldens) = shared::shared(name, "golden/golden_tokenizer_stories260k.json") else { return };
    let tokenizer = Tokenizer::new(sentence_piece_tables(&json(&vocabulary))).unwrap();
    let goldens = json(&goldens);
    let goldens = goldens.as_array().unwrap();
    assert_eq!(goldens.len(), 130);
    for golden in goldens {
        let text = golden["text"].as_str().unwrap();
        let ids: Vec<u32> = golden["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), golden["decoded"].as_str().unwrap(), "{text:?}");
    }
}

/// A little SentencePiece vocabulary: bytes of `é` but not of `世`.
fn little_sentence_piece() -> TokenizerTables {
    let pieces = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "ab", "▁ab", "aba"];
    TokenizerTables {
        meta: TokenizerMeta { kind: TokenizerKind::SentencePieceBpe, bos_id: Some(1), unk_id: Some(0) },
        pieces: pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect(),
        merges: vec![(6, 7), (5, 8), (8, 6)],
        special: vec![0, 1, 2],
    }
}

#[test]
fn sentence_piece_rules() {
    let tokenizer = Tokenizer::new(little_sentence_piece()).unwrap();
    assert_eq!(tokenizer.encode(""), [1]);
    assert_eq!(tokenizer.encode("ab ab"), [1, 9, 9], "a space in front");
    assert_eq!(tokenizer.encode_continuation("ab ab"), [8, 9], "no BOS, no space in front");
    assert_eq!(tokenizer.encode_continuation("aba"), [10]);
    assert_eq!(tokenizer.encode_continuation("é世界a"), [3, 4, 0, 6], "bytes where there are some, one unknown for a run without");
    assert_eq!(tokenizer.encode("a</s>b"), [1, 5, 6, 2, 5, 7], "a space in front of every stretch, as the normaliser puts it");
    assert_eq!(tokenizer.decode(&[9, 9]), "ab ab");
    assert_eq!(tokenizer.decode(&[8, 3, 4, 8]), "abéab");
    assert_eq!(tokenizer.decode(&[4, 4, 3]), "\u{fffd}\u{fffd}\u{fffd}");
    assert_eq!(tokenizer.decode(&[8, 999]), "ab\u{fffd}");
}

#[test]
fn byte_level_rules() {
    let tokenizer = Tokenizer::new(tiny::tables()).unwrap();
    let byte = |b: u8| u32::from(b) + 3;
    assert_eq!(tokenizer.encode(""), [0; 0]);
    assert_eq!(tokenizer.encode("\0é"), [byte(0), byte(0xc3), byte(0xa9)]);
    assert_eq!(tokenizer.encode("walk").len(), 1);
    assert_eq!(tokenizer.encode("walk 12").len(), 4, "a space and single digits");
    assert_eq!(tokenizer.encode("<|im_end|>walk<|im_end|"), [&[2], &tokenizer.encode("walk")[..], &tokenizer.encode("<|im_end|")].concat());
    assert_eq!(tokenizer.decode(&[byte(0xc3)]), "\u{fffd}");
    assert_eq!(tokenizer.decode(&[1, byte(b'x'), 5_000_000]), "<|im_start|>x\u{fffd}");
    let mut gaps = tiny::tables();
    gaps.pieces[byte(b'#') as usize].clear();
    assert_eq!(Tokenizer::new(gaps.clone()).unwrap().encode("#!"), [byte(b'!')], "dropped without an unknown id");
    gaps.meta.unk_id = Some(0);
    assert_eq!(Tokenizer::new(gaps).unwrap().encode("#!"), [0, byte(b'!')]);
}

#[test]
fn longest_special_token_wins() {
    let mut tables = tiny::tables();
    tables.pieces[0] = b"<a".to_vec();
    tables.pieces[1] = b"<a>".to_vec();
    assert_eq!(Tokenizer::new(tables).unwrap().encode("<a><a<a>"), [1, 0, 1]);
}

/// Best-ranked pair of the whole list, leftmost first, one at a time.
fn merge_naively(tables: &TokenizerTables, text: &str) -> Vec<u32> {
    let id_of = |piece: &[u8]| tables.pieces.iter().position(|known| known == piece).unwrap() as u32;
    let mut ids: Vec<u32> = text.bytes().map(|byte| id_of(&[byte])).collect();
    for_best(&mut ids, tables, id_of);
    ids
}

fn for_best(ids: &mut Vec<u32>, tables: &TokenizerTables, id_of: impl Fn(&[u8]) -> u32) {
    loop {
        let rank = |pair: &[u32]| tables.merges.iter().position(|&merge| merge == (pair[0], pair[1]));
        let best = ids.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min();
        let Some((_, at)) = best else { return };
        let both = [&tables.pieces[ids[at] as usize][..], &tables.pieces[ids[at + 1] as usize]].concat();
        ids.splice(at..at + 2, [id_of(&both)]);
    }
}

/// Random vocabulary over the letters a, b, c: pieces of two known ones.
fn random_tables(choices: &[(usize, usize)]) -> TokenizerTables {
    let mut tables = TokenizerTables {
        meta: TokenizerMeta { kind: TokenizerKind::ByteLevelBpe, bos_id: None, unk_id: None },
        pieces: ["a", "b", "c"].map(|piece| piece.as_bytes().to_vec()).to_vec(),
        merges: Vec::new(),
        special: Vec::new(),
    };
    for (left, right) in choices {
        let (left, right) = (left % tables.pieces.len(), right % tables.pieces.len());
        let both = [&tables.pieces[left][..], &tables.pieces[right]].concat();
        if !tables.merges.contains(&(left as u32, right as u32)) {
            tables.merges.push((left as u32, right as u32));
            if !tables.pieces.contains(&both) {
                tables.pieces.push(both);
            }
        }
    }
    tables
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merges_as_the_naive_merger_does(choices in prop::collection::vec((0usize..64, 0usize..64), 0..16), text in "[abc]{0,40}") {
        let tables = random_tables(&choices);
        let tokenizer = Tokenizer::new(tables.clone()).unwrap();
        prop_assert_eq!(tokenizer.encode(&text), merge_naively(&tables, &text));
    }

    #[test]
    fn byte_level_text_comes_back(text: String) {
        let tokenizer = Tokenizer::new(tiny::tables()).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
    }

    #[test]
    fn sentence_piece_never_panics(text: String, ids in prop::collection::vec(0u32..20, 0..20)) {
        let tokenizer = Tokenizer::new(little_sentence_piece()).unwrap();
        prop_assert!(tokenizer.encode(&text).iter().all(|&id| id < 11));
        tokenizer.decode(&ids);
    }
}

#[test]
fn damaged_tables_are_refused() {
    type Damage = fn(&mut TokenizerTables);
    let damages: [(&str, Damage); 9] = [
        ("bos beyond the vocabulary", |t| t.meta.bos_id = Some(300)),
        ("unk beyond the vocabulary", |t| t.meta.unk_id = Some(u32::MAX)),
        ("merge of an unknown id", |t| t.merges[0].1 = 300),
        ("merge without a piece", |t| t.merges[0] = (200, 201)),
        ("special beyond the vocabulary", |t| t.special[0] = 300),
        ("special twice", |t| t.special[1] = 0),
        ("empty special", |t| t.pieces[1].clear()),
        ("special that is no UTF-8", |t| t.pieces[1] = vec![0x80]),
        ("a piece of a book", |t| t.pieces[200] = vec![b'a'; 1025]),
    ];
    for (what, damage) in damages {
        let mut tables = tiny::tables();
        damage(&mut tables);
        assert!(matches!(Tokenizer::new(tables), Err(llmar::Error::Format { .. })), "{what}");
    }
}
