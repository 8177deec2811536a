//! The runtime's tokenizer, on vocabularies that the trainer imports, against the ids and texts of Hugging Face's tokenizers.

#[path = "common/shared.rs"]
mod shared;
#[path = "common/smollm2.rs"]
mod smollm2;

use std::path::Path;

use llmar::text::Tokenizer;
use llmar_train::import::tokenizer_of;
use serde_json::Value;
use shared::shared;

/// All of a golden file: encoded ids and decoded text.
fn check(vocabulary: &Path, golden: &Path, count: usize) {
    let tokenizer = Tokenizer::new(tokenizer_of(vocabulary).unwrap()).unwrap();
    let goldens: Vec<Value> = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    assert_eq!(goldens.len(), count);
    for golden in &goldens {
        let text = golden["text"].as_str().unwrap();
        let ids: Vec<u32> = golden["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), golden["decoded"].as_str().unwrap(), "{text:?}");
    }
}

#[test]
fn smollm2_tokenizes_as_hugging_face() {
    let test = "smollm2_tokenizes_as_hugging_face";
    let Some(golden) = shared(test, "golden/golden_tokenizer_smollm2-135m-instruct.json") else { return };
    let Some(vocabulary) = smollm2::gguf(test) else { return };
    check(&vocabulary, &golden, 131);
}

#[test]
fn stories260k_tokenizes_as_hugging_face() {
    let test = "stories260k_tokenizes_as_hugging_face";
    let Some(golden) = shared(test, "golden/golden_tokenizer_stories260k.json") else { return };
    let Some(vocabulary) = shared(test, "golden/stories260k") else { return };
    check(&vocabulary, &golden, 130);
}
