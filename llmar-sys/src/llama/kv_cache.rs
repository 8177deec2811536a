//! Keys and values of past positions.

use super::config::LlamaConfig;
use crate::device::{Device, KvLayer};
use crate::error::Result;

/// Per layer, keys (after RoPE) and values, [slots, kv_heads · head_dim].
#[derive(Debug)]
pub struct KvCache {
    pub(super) slots: usize,
    /// kv_heads · head_dim
    pub(super) width: usize,
    pub(super) layers: Vec<KvLayer>,
}

impl KvCache {
    /// Room for `slots` positions in every layer, in the memory of `device`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::Budget`](crate::Error::Budget).
    pub fn new(device: &Device, config: &LlamaConfig, slots: usize) -> Result<Self> {
        let layers = (0..config.num_hidden_layers).map(|_| device.kv_layer()).collect();
        let mut cache = Self { slots: 0, width: config.kv_dim(), layers };
        cache.reserve(device, slots)?;
        Ok(cache)
    }

    /// Positions it has room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Grows to at least `slots`, keeping what is there. On `Err` it stays usable as it was.
    pub fn reserve(&mut self, device: &Device, slots: usize) -> Result<()> {
        if slots > self.slots {
            for layer in &mut self.layers {
                device.reserve_kv(layer, slots, self.width)?;
            }
            self.slots = slots;
        }
        Ok(())
    }
}
