//! Text ↔ token ids, for the two tokenizer families of LLaMA models.

use crate::checkpoint::{Checkpoint, TokenizerMeta};
use crate::error::Result;

/// The vocabulary in the form in which a checkpoint stores it.
///
/// Tensors: `tokenizer.pieces` u8 (all pieces, one after another, id order), `tokenizer.offsets` u32 [vocab + 1],
/// `tokenizer.merges` u32 [2 · merges] (pairs of ids, best first), `tokenizer.special` u32 (ids matched in text before anything else).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerTables {
    /// Algorithm and special ids.
    pub meta: TokenizerMeta,
    /// Piece of each id. Byte-level: the raw bytes themselves (not GPT-2's printable stand-ins).
    pub pieces: Vec<Vec<u8>>,
    /// (left id, right id), best first.
    pub merges: Vec<(u32, u32)>,
    /// Special ids.
    pub special: Vec<u32>,
}

/// Built on demand: only when labels are replaced, or by the trainer.
#[derive(Clone, Debug)]
pub struct Tokenizer {}

impl Tokenizer {
    /// Builds the look-up tables.
    pub fn new(_tables: TokenizerTables) -> Result<Self> {
        todo!()
    }

    /// Builds from the `tokenizer.*` tensors of a checkpoint.
    pub fn read(_checkpoint: &Checkpoint) -> Result<Self> {
        todo!()
    }

    /// Ids of a text, BOS first where the model has one.
    pub fn encode(&self, _text: &str) -> Vec<u32> {
        todo!()
    }

    /// Ids of a text that continues another: no BOS, no space put in front.
    pub fn encode_continuation(&self, _text: &str) -> Vec<u32> {
        todo!()
    }

    /// Text of ids; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, _ids: &[u32]) -> String {
        todo!()
    }
}
