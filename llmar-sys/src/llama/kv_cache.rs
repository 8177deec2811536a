//! Keys and values of past positions.

use super::config::LlamaConfig;
use crate::error::Result;
use crate::memory::grow;

/// Per layer, keys (after RoPE) and values, f32 [slots, kv_heads · head_dim].
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(super) slots: usize,
    /// kv_heads · head_dim
    width: usize,
    pub(super) keys: Vec<Vec<f32>>,
    pub(super) values: Vec<Vec<f32>>,
}

impl KvCache {
    /// Room for `slots` positions in every layer. [`Error::OutOfMemory`](crate::Error::OutOfMemory) where there is none.
    pub fn new(config: &LlamaConfig, slots: usize) -> Result<Self> {
        let layers = config.num_hidden_layers;
        let mut cache = Self { slots: 0, width: config.kv_dim(), keys: vec![Vec::new(); layers], values: vec![Vec::new(); layers] };
        cache.reserve(slots)?;
        Ok(cache)
    }

    /// Positions it has room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Grows to at least `slots`, keeping what is there. On [`Error::OutOfMemory`](crate::Error::OutOfMemory) it stays usable as it was.
    pub fn reserve(&mut self, slots: usize) -> Result<()> {
        if slots > self.slots {
            let len = slots.saturating_mul(self.width);
            for layer in self.keys.iter_mut().chain(&mut self.values) {
                grow("the KV cache", layer, len)?;
            }
            self.slots = slots;
        }
        Ok(())
    }
}
