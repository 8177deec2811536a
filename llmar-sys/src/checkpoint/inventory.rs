//! Which tensors a checkpoint has: every name, element type and shape that follows from its metadata, and nothing else.

use std::collections::BTreeSet;

use super::header::{Dtype, Table, TensorInfo};
use super::schema::Metadata;
use crate::device::{Scheme, packed_shapes};
use crate::error::{Error, Result};
use crate::text::WordReading;

/// Schemes of the language model's matrices.
const ANY_SCHEME: &[Scheme] = &[Scheme::F32, Scheme::F16, Scheme::Q8, Scheme::Q4];
/// Schemes of the encoder's matrices: its convolutions run on floats.
const FLOATS: &[Scheme] = &[Scheme::F32, Scheme::F16];

/// Checks that `table` holds exactly the tensors that `metadata` asks for. `metadata` has passed its own checks, whose limits keep the
/// products below far from overflow.
pub(super) fn check_inventory(metadata: &Metadata, table: &Table) -> Result<()> {
    let mut inventory = Inventory { table, taken: BTreeSet::new() };
    inventory.tokenizer(metadata)?;
    inventory.encoder(metadata)?;
    inventory.quantizer(metadata)?;
    inventory.llama(metadata)?;
    inventory.words(metadata)?;
    match table.keys().find(|name| !inventory.taken.contains(name.as_str())) {
        Some(extra) => Err(Error::format(extra, "this tensor does not belong to a checkpoint of this description")),
        None => Ok(()),
    }
}

/// A matrix found in a table: its scheme and its tensors in the order of [`packed_shapes`].
pub(super) fn find_matrix<'t>(table: &'t Table, name: &str, rows: usize, cols: usize) -> Result<(Scheme, Vec<(&'t str, &'t TensorInfo)>)> {
    let has = |suffix: &str| table.get(&format!("{name}{suffix}"));
    let scheme = match (has(""), has(".q"), has(".min")) {
        (Some(TensorInfo { dtype: Dtype::F32, .. }), ..) => Scheme::F32,
        (Some(TensorInfo { dtype: Dtype::F16, .. }), ..) => Scheme::F16,
        (Some(other), ..) => return Err(Error::format(name, format!("expected F32 or F16 elements, got {:?}", other.dtype))),
        (None, Some(_), None) => Scheme::Q8,
        (None, Some(_), Some(_)) => Scheme::Q4,
        (None, None, _) => return Err(Error::format(name, format!("missing: neither `{name}` nor `{name}.q` is there"))),
    };
    let mut found = Vec::new();
    for (suffix, element, shape) in packed_shapes(scheme, rows, cols) {
        found.push(find(table, &format!("{name}{suffix}"), element.into(), &shape)?);
    }
    Ok((scheme, found))
}

/// The tensor `name`, of exactly this element type and shape.
pub(super) fn find<'t>(table: &'t Table, name: &str, dtype: Dtype, shape: &[usize]) -> Result<(&'t str, &'t TensorInfo)> {
    let Some((name, info)) = table.get_key_value(name) else {
        return Err(Error::format(name, "this tensor is missing"));
    };
    if info.dtype != dtype {
        return Err(Error::format(name, format!("expected {dtype:?} elements, got {:?}", info.dtype)));
    }
    if info.shape != shape {
        return Err(Error::Shape { what: name.clone(), expected: shape.to_vec(), got: info.shape.clone() });
    }
    Ok((name, info))
}

/// Tensors asked for so far.
struct Inventory<'t> {
    table: &'t Table,
    taken: BTreeSet<&'t str>,
}

impl<'t> Inventory<'t> {
    fn exact(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&'t TensorInfo> {
        let (name, info) = find(self.table, name, dtype, shape)?;
        self.taken.insert(name);
        Ok(info)
    }

    /// A list whose length only the file knows, a multiple of `step`, at most `limit`.
    fn list(&mut self, name: &str, dtype: Dtype, step: usize, what: &'static str, limit: usize) -> Result<()> {
        let len = match self.table.get(name).map(|info| info.shape.as_slice()) {
            Some(&[len]) => len,
            _ => 0, // `exact` says what is wrong
        };
        if len > limit {
            return Err(Error::Limit { what, limit: limit as u64, got: len as u64 });
        }
        if !len.is_multiple_of(step) {
            return Err(Error::format(name, format!("expected a multiple of {step} elements, got {len}")));
        }
        self.exact(name, dtype, &[len]).map(|_| ())
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize, allowed: &[Scheme]) -> Result<Scheme> {
        let (scheme, tensors) = find_matrix(self.table, name, rows, cols)?;
        if !allowed.contains(&scheme) {
            return Err(Error::format(name, format!("expected one of the schemes {allowed:?}, got {scheme:?}")));
        }
        self.taken.extend(tensors.into_iter().map(|(name, _)| name));
        Ok(scheme)
    }

    fn tokenizer(&mut self, metadata: &Metadata) -> Result<()> {
        let vocab = metadata.llama.vocab_size;
        self.exact("tokenizer.offsets", Dtype::U32, &[vocab + 1])?;
        self.list("tokenizer.pieces", Dtype::U8, 1, "bytes of tokenizer pieces", 64 << 20)?;
        self.list("tokenizer.merges", Dtype::U32, 2, "ids in tokenizer merges", 8 << 20)?;
        self.list("tokenizer.special", Dtype::U32, 1, "special tokens", vocab)
    }

    /// Convolutions: a matrix [c_out, kernel · c_in] and a bias each.
    fn encoder(&mut self, metadata: &Metadata) -> Result<()> {
        for conv in metadata.encoder.convs() {
            self.matrix(&format!("{}.weight", conv.name), conv.c_out, conv.kernel * conv.c_in, FLOATS)?;
            self.exact(&format!("{}.bias", conv.name), Dtype::F32, &[conv.c_out])?;
        }
        Ok(())
    }

    fn quantizer(&mut self, metadata: &Metadata) -> Result<()> {
        let config = &metadata.quantizer;
        self.exact("quantizer.tangent", Dtype::F32, &[config.codes, config.dim])?;
        self.exact("quantizer.embedding", Dtype::F32, &[config.codes, metadata.llama.hidden_size]).map(|_| ())
    }

    fn words(&mut self, metadata: &Metadata) -> Result<()> {
        let Some(words) = &metadata.words else { return Ok(()) };
        let count = words.vocabulary.len();
        self.exact(WordReading::WEIGHT, Dtype::F32, &[count, metadata.quantizer.dim])?;
        self.exact(WordReading::BIAS, Dtype::F32, &[count])?;
        self.exact(WordReading::MEAN, Dtype::F32, &[count]).map(|_| ())
    }

    fn llama(&mut self, metadata: &Metadata) -> Result<()> {
        let config = &metadata.llama;
        let hidden = config.hidden_size;
        let mut schemes = Vec::new();
        self.matrix("llama.embed", config.vocab_size, hidden, ANY_SCHEME)?;
        for layer in 0..config.num_hidden_layers {
            let name = |field: &str| format!("llama.layers.{layer}.{field}");
            self.exact(&name("attn_norm"), Dtype::F32, &[hidden])?;
            schemes.push(self.matrix(&name("qkv"), config.qkv_rows(), hidden, ANY_SCHEME)?);
            schemes.push(self.matrix(&name("o"), hidden, config.q_dim(), ANY_SCHEME)?);
            self.exact(&name("ffn_norm"), Dtype::F32, &[hidden])?;
            schemes.push(self.matrix(&name("gate_up"), 2 * config.intermediate_size, hidden, ANY_SCHEME)?);
            schemes.push(self.matrix(&name("down"), hidden, config.intermediate_size, ANY_SCHEME)?);
        }
        self.exact("llama.norm", Dtype::F32, &[hidden])?;
        if !config.tie_word_embeddings {
            self.matrix("llama.head", config.vocab_size, hidden, ANY_SCHEME)?;
        }
        if !schemes.contains(&metadata.scheme) {
            return Err(Error::format("scheme", format!("the metadata says {:?}, but no layer's matrix is stored so", metadata.scheme)));
        }
        Ok(())
    }
}
