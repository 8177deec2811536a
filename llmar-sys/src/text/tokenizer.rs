//! Text ↔ token ids, for the two tokenizer families of LLaMA models.
//!
//! Both are byte-pair encoders over ids (`merge`); they differ in what a text is cut into first and in what ids it starts from:
//!
//! - byte-level: special tokens out, then words (`split`), each word's bytes;
//! - SentencePiece: special tokens out, `▁` in front and for every space, characters of the whole text; a character without a piece
//!   becomes its bytes' pieces `<0xNN>`, or the unknown id.

mod merge;
mod split;
mod tables;

use std::collections::{HashMap, HashSet};

use merge::Merges;
pub use tables::TokenizerTables;

use crate::checkpoint::{Checkpoint, TokenizerKind};
use crate::error::Result;

/// What SentencePiece writes for a space.
const LOWER_BLOCK: &str = "▁";

/// Built on demand: only when labels are replaced, or by the trainer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    tables: TokenizerTables,
    /// Id of each piece that is no special token and not empty; of equal pieces the first.
    ids: HashMap<Vec<u8>, u32>,
    merges: Merges,
    /// Id of each single byte: the byte itself, or `<0xNN>`.
    bytes: Vec<Option<u32>>,
    /// The byte that an id stands for by itself, for SentencePiece's `<0xNN>`.
    byte_of: HashMap<u32, u8>,
    /// Special ids, longest piece first.
    special: Vec<u32>,
}

impl Tokenizer {
    /// Builds the look-up tables.
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) when an id is not below the number of pieces, a merge gives no piece, or a special piece is empty or no UTF-8.
    pub fn new(tables: TokenizerTables) -> Result<Self> {
        tables.check()?;
        let special: HashSet<u32> = tables.special.iter().copied().collect();
        let mut ids = HashMap::with_capacity(tables.pieces.len());
        for (id, piece) in (0..).zip(&tables.pieces) {
            if !piece.is_empty() && !special.contains(&id) {
                ids.entry(piece.clone()).or_insert(id);
            }
        }
        let merges = Merges::new(&tables, &ids)?;
        let spelled = |byte: u8| match tables.meta.kind {
            TokenizerKind::ByteLevelBpe => vec![byte],
            TokenizerKind::SentencePieceBpe => format!("<0x{byte:02X}>").into_bytes(),
        };
        let bytes: Vec<Option<u32>> = (0..=u8::MAX).map(|byte| ids.get(&spelled(byte)).copied()).collect();
        let byte_of = (0..=u8::MAX).zip(&bytes).filter_map(|(byte, id)| id.map(|id| (id, byte))).collect();
        let mut special = tables.special.clone();
        special.sort_by_key(|&id| std::cmp::Reverse(tables.piece(id).len()));
        Ok(Self { ids, merges, bytes, byte_of, special, tables })
    }

    /// Builds from the `tokenizer.*` tensors of a checkpoint.
    ///
    /// # Errors
    /// Those of [`TokenizerTables::read`] and [`new`](Self::new).
    pub fn read(checkpoint: &Checkpoint) -> Result<Self> {
        Self::new(TokenizerTables::read(checkpoint)?)
    }

    /// Ids of a text, BOS first where the model has one.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut out: Vec<u32> = self.tables.meta.bos_id.into_iter().collect();
        self.encode_into(text, true, &mut out);
        out
    }

    /// Ids of a text that continues another: no BOS, no space put in front.
    pub fn encode_continuation(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::new();
        self.encode_into(text, false, &mut out);
        out
    }

    /// Text of ids; bytes that are not UTF-8, and ids without a piece, become U+FFFD. Special tokens are written out. SentencePiece: one leading
    /// space is taken off, because encoding puts one there.
    pub fn decode(&self, ids: &[u32]) -> String {
        match self.tables.meta.kind {
            TokenizerKind::ByteLevelBpe => {
                let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.decoded_piece(id)).copied().collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            TokenizerKind::SentencePieceBpe => self.decode_sentence_piece(ids),
        }
    }

    /// Number of ids.
    pub fn vocab_size(&self) -> usize {
        self.tables.pieces.len()
    }

    /// The vocabulary it was built from.
    pub fn tables(&self) -> &TokenizerTables {
        &self.tables
    }

    fn encode_into(&self, text: &str, put_space: bool, out: &mut Vec<u32>) {
        let mut rest = text;
        while let Some((at, id)) = self.find_special(rest) {
            self.encode_plain(&rest[..at], put_space, out);
            out.push(id);
            rest = &rest[at + self.tables.piece(id).len()..];
        }
        self.encode_plain(rest, put_space, out);
    }

    /// The first special token in a text, the longest of several, and where it stands. Special pieces are UTF-8, so in a text they begin and
    /// end between characters.
    fn find_special(&self, text: &str) -> Option<(usize, u32)> {
        (0..text.len()).find_map(|at| {
            let here = &text.as_bytes()[at..];
            self.special.iter().find(|&&id| here.starts_with(self.tables.piece(id))).map(|&id| (at, id))
        })
    }

    /// A stretch of text without special tokens.
    fn encode_plain(&self, text: &str, put_space: bool, out: &mut Vec<u32>) {
        match self.tables.meta.kind {
            TokenizerKind::ByteLevelBpe => {
                for word in split::words(text) {
                    // A byte without a piece and without an unknown id is dropped, as Hugging Face's tokenizers do.
                    let ids = word.bytes().filter_map(|byte| self.bytes[usize::from(byte)].or(self.tables.meta.unk_id));
                    self.merges.apply(ids.collect(), out);
                }
            }
            TokenizerKind::SentencePieceBpe if text.is_empty() => {}
            TokenizerKind::SentencePieceBpe => {
                let front = if put_space { LOWER_BLOCK } else { "" };
                let text = format!("{front}{}", text.replace(' ', LOWER_BLOCK));
                self.merges.apply(self.characters(&text), out);
            }
        }
    }

    /// Ids of the single characters; several unknown ones in a row become one unknown id.
    fn characters(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len());
        let mut after_unknown = false;
        for character in text.chars() {
            let mut buffer = [0; 4];
            let bytes = character.encode_utf8(&mut buffer).as_bytes();
            let fallback: Option<Vec<u32>> = match self.ids.get(bytes) {
                Some(&id) => Some(vec![id]),
                None => bytes.iter().map(|&byte| self.bytes[usize::from(byte)]).collect(),
            };
            match (fallback, self.tables.meta.unk_id) {
                (Some(ids), _) => out.extend(ids),
                (None, Some(unknown)) if !after_unknown => {
                    out.push(unknown);
                    after_unknown = true;
                    continue;
                }
                (None, _) => continue,
            }
            after_unknown = false;
        }
        out
    }

    fn decode_sentence_piece(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        for id in ids {
            if let Some(&byte) = self.byte_of.get(id) {
                bytes.push(byte);
                continue;
            }
            flush(&mut bytes, &mut text);
            text.push_str(&String::from_utf8_lossy(self.decoded_piece(*id)).replace(LOWER_BLOCK, " "));
        }
        flush(&mut bytes, &mut text);
        match text.strip_prefix(' ') {
            Some(rest) => rest.to_owned(),
            None => text,
        }
    }

    fn decoded_piece(&self, id: u32) -> &[u8] {
        self.tables.pieces.get(id as usize).map_or("\u{fffd}".as_bytes(), Vec::as_slice)
    }
}

/// A run of byte pieces: the text they spell, or one U+FFFD for each when they spell none.
fn flush(bytes: &mut Vec<u8>, text: &mut String) {
    match std::str::from_utf8(bytes) {
        Ok(spelled) => text.push_str(spelled),
        Err(_) => text.extend(std::iter::repeat_n('\u{fffd}', bytes.len())),
    }
    bytes.clear();
}
