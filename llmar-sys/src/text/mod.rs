//! Text: tokenizer, label trie and scoring.

mod labels;
mod tokenizer;

pub use labels::{LabelScore, LabelTrie};
pub use tokenizer::{Tokenizer, TokenizerTables};
