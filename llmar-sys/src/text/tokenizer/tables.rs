//! The vocabulary as data: its form in a checkpoint, and what it must fulfil.

use std::collections::HashSet;

use crate::checkpoint::{Checkpoint, Tensor, TensorData, TokenizerMeta};
use crate::error::{Error, Result};

/// Longest piece in bytes. The longest of known vocabularies are runs of spaces, some hundred bytes; every merge copies two of them.
const PIECE_LIMIT: usize = 1024;

/// The vocabulary in the form in which a checkpoint stores it.
///
/// Tensors: `tokenizer.pieces` u8 (all pieces, one after another, id order), `tokenizer.offsets` u32 [vocab + 1],
/// `tokenizer.merges` u32 [2 · merges] (pairs of ids, best first), `tokenizer.special` u32 (ids matched in text before anything else).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerTables {
    /// Algorithm and special ids.
    pub meta: TokenizerMeta,
    /// Piece of each id, empty where an id has none. Byte-level: the raw bytes themselves (not GPT-2's printable stand-ins).
    /// SentencePiece: as written, `▁` for spaces and `<0x0A>` for bytes.
    pub pieces: Vec<Vec<u8>>,
    /// (left id, right id), best first. Each gives the piece that is their concatenation.
    pub merges: Vec<(u32, u32)>,
    /// Special ids: no empty piece, UTF-8.
    pub special: Vec<u32>,
}

impl TokenizerTables {
    /// Reads the `tokenizer.*` tensors of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Format`] when the offsets do not ascend from 0 to the end of the pieces, or for what [`Tokenizer::new`](super::Tokenizer::new)
    /// refuses.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let bytes = checkpoint.u8s("tokenizer.pieces")?;
        let offsets = checkpoint.u32s("tokenizer.offsets")?;
        let merges = checkpoint.u32s("tokenizer.merges")?;
        let special = checkpoint.u32s("tokenizer.special")?;
        let tables = Self {
            meta: checkpoint.metadata().tokenizer,
            pieces: cut(bytes.as_slice(), offsets.cast()?)?,
            merges: merges.cast::<u32>()?.as_chunks().0.iter().map(|&[left, right]| (left, right)).collect(),
            special: special.cast::<u32>()?.to_vec(),
        };
        tables.check()?;
        Ok(tables)
    }

    /// The tensors of a checkpoint that hold this vocabulary. The metadata's `tokenizer` must be [`meta`](Self::meta).
    pub fn tensors(&self) -> Vec<Tensor<'static>> {
        let mut offsets = vec![0];
        offsets.extend(self.pieces.iter().scan(0, |end, piece| {
            *end += piece.len() as u32;
            Some(*end)
        }));
        let merges: Vec<u32> = self.merges.iter().flat_map(|&(left, right)| [left, right]).collect();
        let pieces = self.pieces.concat();
        let tensor = |name: &str, len: usize, data| Tensor { name: format!("tokenizer.{name}"), shape: vec![len], data };
        vec![
            tensor("pieces", pieces.len(), TensorData::U8(pieces.into())),
            tensor("offsets", offsets.len(), TensorData::U32(offsets.into())),
            tensor("merges", merges.len(), TensorData::U32(merges.into())),
            tensor("special", self.special.len(), TensorData::U32(self.special.clone().into())),
        ]
    }

    /// Every id has a piece, no piece is longer than a word could be, special pieces can stand in a text, and no special id stands there twice.
    pub(super) fn check(&self) -> Result<()> {
        let below = |what: &str, id: u32| {
            let count = self.pieces.len();
            let detail = || format!("expected ids below {count}, got {id}");
            if (id as usize) < count { Ok(()) } else { Err(Error::format(format!("tokenizer.{what}"), detail())) }
        };
        if let Some((id, piece)) = self.pieces.iter().enumerate().find(|(_, piece)| piece.len() > PIECE_LIMIT) {
            let detail = format!("expected at most {PIECE_LIMIT} bytes, got {} as the piece of {id}", piece.len());
            return Err(Error::format("tokenizer.pieces", detail));
        }
        self.meta.bos_id.iter().try_for_each(|&id| below("bos_id", id))?;
        self.meta.unk_id.iter().try_for_each(|&id| below("unk_id", id))?;
        self.merges.iter().try_for_each(|&(left, right)| below("merges", left).and_then(|()| below("merges", right)))?;
        let mut seen = HashSet::new();
        for &id in &self.special {
            below("special", id)?;
            let piece = self.piece(id);
            if piece.is_empty() || std::str::from_utf8(piece).is_err() {
                let detail = format!("expected UTF-8 text as the piece of {id}, got {:?}", String::from_utf8_lossy(piece));
                return Err(Error::format("tokenizer.special", detail));
            }
            if !seen.insert(id) {
                return Err(Error::format("tokenizer.special", format!("{id} stands there twice")));
            }
        }
        Ok(())
    }

    /// The piece of an id that [`check`](Self::check) has seen.
    pub(super) fn piece(&self, id: u32) -> &[u8] {
        &self.pieces[id as usize]
    }
}

/// Cuts the concatenated pieces at `offsets`.
fn cut(bytes: &[u8], offsets: &[u32]) -> Result<Vec<Vec<u8>>> {
    let at = |index: usize| offsets.get(index).map(|&offset| offset as usize);
    if at(0) != Some(0) || at(offsets.len().wrapping_sub(1)) != Some(bytes.len()) {
        return Err(Error::format("tokenizer.offsets", format!("expected 0 first and {} last", bytes.len())));
    }
    let piece = |pair: &[u32]| bytes.get(pair[0] as usize..pair[1] as usize).map(<[u8]>::to_vec);
    let pieces: Option<Vec<_>> = offsets.windows(2).map(piece).collect();
    pieces.ok_or_else(|| Error::format("tokenizer.offsets", "expected offsets that never fall"))
}
