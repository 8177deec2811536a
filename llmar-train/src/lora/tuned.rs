//! A base model all of whose weights were trained.

use std::borrow::Cow;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::llama::Llama;
use crate::artifacts::{self, BaseMeta, Opened, Planned, Store, Values};
use crate::error::{Error, Result};
use crate::torch::{Params, round_f16};

/// Rounds the trained matrices to f16, in place, and writes a base model of them with the tokenizer of `from`. Returns the digest under which
/// an adapter names it: of its rounded values, as it has no source file.
pub fn round_and_write(params: &Params, llama: &Llama, from: &Opened<BaseMeta>, name: &str, path: &Path) -> Result<String> {
    tch::no_grad(|| {
        for (name, t) in params.entries().filter(|(name, t)| name.starts_with("llama.") && t.dim() == 2) {
            debug_assert!(t.requires_grad(), "{name}");
            t.shallow_clone().copy_(&round_f16(t));
        }
    });
    let floats = tch::no_grad(|| llama.export())?;
    let mut digest = Sha256::new();
    for (name, _, values, _) in &floats {
        digest.update(name.as_bytes());
        digest.update(bytemuck::cast_slice::<f32, u8>(values));
    }
    let source_sha256: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut plan: Vec<Planned> =
        floats.iter().map(|(name, shape, _, store)| Planned { name: name.clone(), shape: shape.clone(), store: *store }).collect();
    for name in from.names() {
        if let Some((shape, store @ (Store::U8 | Store::U32))) = from.info(name) {
            plan.push(Planned { name: name.to_owned(), shape: shape.to_vec(), store });
        }
    }
    let meta = BaseMeta {
        source: format!("{}, all weights tuned: {name}", from.meta.source),
        source_sha256: source_sha256.clone(),
        ..from.meta.clone()
    };
    artifacts::write_lazily(path, &meta, &plan, &|i| match floats.get(i) {
        Some((_, _, values, _)) => Ok(Values::Floats(Cow::Borrowed(values))),
        None if plan[i].store == Store::U8 => Ok(Values::Bytes(Cow::Borrowed(from.bytes(&plan[i].name)?))),
        None => Ok(Values::Integers(Cow::Owned(from.integers(&plan[i].name)?))),
    })
    .map_err(|e| Error::format(path.display(), e))?;
    Ok(source_sha256)
}
