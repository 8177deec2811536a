//! Text: tokenizer, label trie and scoring, and labels told by their words.

mod balance;
mod labels;
mod prompt;
mod search;
mod tokenizer;
mod words;

pub(crate) use balance::Balance;
pub(crate) use labels::{LABEL_LIMIT, LABEL_TOKEN_LIMIT};
pub use labels::{LabelScore, LabelTrie};
pub use prompt::suffix_with_list;
pub use search::{Decoding, PROBABILITY_TOLERANCE};
pub(crate) use search::{Ranking, Search, SearchMemory};
pub use tokenizer::{Tokenizer, TokenizerTables};
pub use words::{Described, WordReading, words_of};
