//! The language model: a LLaMA (RMSNorm, RoPE, grouped-query attention, SwiGLU) whose LoRA is merged into its weights.

mod config;
mod forward;
mod kv_cache;
mod weights;

pub use config::LlamaConfig;
pub use forward::{Llama, Workspace};
pub use kv_cache::KvCache;
pub use weights::{Layer, Weights};
