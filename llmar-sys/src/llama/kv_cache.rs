//! Keys and values of past positions.

use super::config::LlamaConfig;

/// Per layer, keys (after RoPE) and values, f32 [slots, kv_heads · head_dim].
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(super) slots: usize,
    pub(super) keys: Vec<Vec<f32>>,
    pub(super) values: Vec<Vec<f32>>,
}

impl KvCache {
    /// Room for `slots` positions in every layer.
    pub fn new(config: &LlamaConfig, slots: usize) -> Self {
        let len = slots * config.num_key_value_heads * config.head_dim;
        let layers = config.num_hidden_layers;
        Self { slots, keys: vec![vec![0.0; len]; layers], values: vec![vec![0.0; len]; layers] }
    }

    /// Positions it has room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Grows to at least `slots`, keeping what is there.
    pub fn reserve(&mut self, slots: usize) {
        if slots > self.slots {
            for layer in self.keys.iter_mut().chain(&mut self.values) {
                let width = layer.len() / self.slots.max(1);
                layer.resize(slots * width, 0.0);
            }
            self.slots = slots;
        }
    }
}
