//! Tensors of a LLaMA, shapes beside them.

use crate::checkpoint::Checkpoint;
use crate::device::Matrix;
use crate::error::Result;

use super::config::LlamaConfig;

/// One transformer layer. Names in a checkpoint: `llama.layers.{i}.` + the field's name.
#[derive(Clone, Debug)]
pub struct Layer {
    /// f32 [hidden]
    pub attn_norm: Vec<f32>,
    /// [(heads + 2 · kv_heads) · head_dim, hidden]: q, k, v rows one after another; q and k half-split for RoPE
    pub qkv: Matrix,
    /// [hidden, heads · head_dim]
    pub o: Matrix,
    /// f32 [hidden]
    pub ffn_norm: Vec<f32>,
    /// [2 · intermediate, hidden]: gate rows, then up rows
    pub gate_up: Matrix,
    /// [hidden, intermediate]
    pub down: Matrix,
}

/// All weights. Names: `llama.embed`, `llama.norm`, `llama.head` (absent when tied).
#[derive(Clone, Debug)]
pub struct Weights {
    /// [vocab, hidden]
    pub embed: Matrix,
    /// Layers in order.
    pub layers: Vec<Layer>,
    /// f32 [hidden]
    pub norm: Vec<f32>,
    /// [vocab, hidden]; a clone of `embed` when tied
    pub head: Matrix,
}

impl Weights {
    /// Views of a checkpoint's tensors, shapes checked against `config`.
    pub fn read(_config: &LlamaConfig, _checkpoint: &Checkpoint) -> Result<Self> {
        todo!()
    }
}
