//! Tensors of a LLaMA, shapes beside them.

use crate::checkpoint::Checkpoint;
use crate::device::{Device, Matrix, Rotations, Scheme, Vector};
use crate::error::{Error, Result};

use super::config::LlamaConfig;

/// One transformer layer. Names in a checkpoint: `llama.layers.{i}.` + the field's name.
#[derive(Clone, Debug)]
pub struct Layer {
    /// f32 `[hidden]`
    pub attn_norm: Vector,
    /// [(heads + 2 · kv_heads) · head_dim, hidden]: q, k, v rows one after another; q and k half-split for RoPE
    pub qkv: Matrix,
    /// [hidden, heads · head_dim]
    pub o: Matrix,
    /// f32 `[hidden]`
    pub ffn_norm: Vector,
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
    /// f32 `[hidden]`
    pub norm: Vector,
    /// [vocab, hidden]; a clone of `embed` when tied
    pub head: Matrix,
    /// Whether `head` is `embed`.
    pub tied: bool,
    /// Of the configuration, no tensor of a checkpoint.
    pub rotations: Rotations,
}

fn rotations(config: &LlamaConfig) -> Rotations {
    Rotations::new(config.rope_theta, config.head_dim, config.max_position_embeddings)
}

impl Weights {
    /// Views of a checkpoint's tensors, shapes checked against `config`.
    pub fn read(config: &LlamaConfig, checkpoint: &Checkpoint) -> Result<Self> {
        config.check()?;
        let (hidden, ffn, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let norm = |name: &str| Vector::new(checkpoint.f32s(name, &[hidden])?);
        let embed = checkpoint.matrix("llama.embed", vocab, hidden)?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let at = |field: &str| format!("llama.layers.{i}.{field}");
                Ok(Layer {
                    attn_norm: norm(&at("attn_norm"))?,
                    qkv: checkpoint.matrix(&at("qkv"), config.qkv_rows(), hidden)?,
                    o: checkpoint.matrix(&at("o"), hidden, config.q_dim())?,
                    ffn_norm: norm(&at("ffn_norm"))?,
                    gate_up: checkpoint.matrix(&at("gate_up"), 2 * ffn, hidden)?,
                    down: checkpoint.matrix(&at("down"), hidden, ffn)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let head = if config.tie_word_embeddings { embed.clone() } else { checkpoint.matrix("llama.head", vocab, hidden)? };
        Ok(Self { embed, layers, norm: norm("llama.norm")?, head, tied: config.tie_word_embeddings, rotations: rotations(config) })
    }

    /// The weights with a copy where the ops of `device` read them.
    pub fn place(&self, device: &Device) -> Result<Self> {
        let embed = device.place_matrix(&self.embed)?;
        let layer = |layer: &Layer| {
            Ok(Layer {
                attn_norm: device.place_vector(&layer.attn_norm)?,
                qkv: device.place_matrix(&layer.qkv)?,
                o: device.place_matrix(&layer.o)?,
                ffn_norm: device.place_vector(&layer.ffn_norm)?,
                gate_up: device.place_matrix(&layer.gate_up)?,
                down: device.place_matrix(&layer.down)?,
            })
        };
        let layers = self.layers.iter().map(layer).collect::<Result<_>>()?;
        let head = if self.tied { embed.clone() } else { device.place_matrix(&self.head)? };
        let rotations = device.place_rotations(&self.rotations)?;
        Ok(Self { embed, layers, norm: device.place_vector(&self.norm)?, head, tied: self.tied, rotations })
    }

    /// Made-up weights of a shape, on a GPU alone: for measurements without a checkpoint.
    #[cfg(feature = "cuda")]
    pub fn random(config: &LlamaConfig, scheme: Scheme, device: &Device) -> Result<Self> {
        config.check()?;
        let Device::Cuda(cuda) = device else {
            return Err(Error::argument("device", "a GPU", "the CPU"));
        };
        let (hidden, ffn, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let mut seed = 0;
        let mut matrix = |rows, cols| {
            seed += 1;
            cuda.random_matrix(scheme, rows, cols, seed)
        };
        let ones = device.place_vector(&Vector::of(&vec![1.0; hidden]))?;
        let embed = matrix(vocab, hidden)?;
        let layers = (0..config.num_hidden_layers)
            .map(|_| {
                Ok(Layer {
                    attn_norm: ones.clone(),
                    qkv: matrix(config.qkv_rows(), hidden)?,
                    o: matrix(hidden, config.q_dim())?,
                    ffn_norm: ones.clone(),
                    gate_up: matrix(2 * ffn, hidden)?,
                    down: matrix(hidden, ffn)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let head = if config.tie_word_embeddings { embed.clone() } else { matrix(vocab, hidden)? };
        let rotations = device.place_rotations(&rotations(config))?;
        Ok(Self { embed, layers, norm: ones, head, tied: config.tie_word_embeddings, rotations })
    }

    /// Packs a base model in `scheme`. `tensor` gives each tensor by its Hugging Face name (`model.embed_tokens.weight`,
    /// `model.layers.0.self_attn.q_proj.weight`, …), row-major f32, q and k rows half-split for RoPE; it is asked once for each, and for
    /// `lm_head.weight` only when the head is not tied.
    pub fn from_tensors<E: From<Error>>(
        config: &LlamaConfig,
        scheme: Scheme,
        mut tensor: impl FnMut(&str) -> std::result::Result<Vec<f32>, E>,
    ) -> std::result::Result<Self, E> {
        config.check()?;
        let (hidden, ffn, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let mut of_shape = |name: &str, shape: &[usize]| -> std::result::Result<Vec<f32>, E> {
            let values = tensor(name)?;
            if values.len() != shape.iter().product::<usize>() {
                return Err(Error::Shape { what: name.to_owned(), expected: shape.to_vec(), got: vec![values.len()] }.into());
            }
            Ok(values)
        };
        let embed = Matrix::pack(scheme, vocab, hidden, &of_shape("model.embed_tokens.weight", &[vocab, hidden])?);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let at = |rest: &str| format!("model.layers.{i}.{rest}.weight");
            let mut qkv = of_shape(&at("self_attn.q_proj"), &[config.q_dim(), hidden])?;
            qkv.extend(of_shape(&at("self_attn.k_proj"), &[config.kv_dim(), hidden])?);
            qkv.extend(of_shape(&at("self_attn.v_proj"), &[config.kv_dim(), hidden])?);
            let mut gate_up = of_shape(&at("mlp.gate_proj"), &[ffn, hidden])?;
            gate_up.extend(of_shape(&at("mlp.up_proj"), &[ffn, hidden])?);
            layers.push(Layer {
                attn_norm: Vector::of(&of_shape(&at("input_layernorm"), &[hidden])?),
                qkv: Matrix::pack(scheme, config.qkv_rows(), hidden, &qkv),
                o: Matrix::pack(scheme, hidden, config.q_dim(), &of_shape(&at("self_attn.o_proj"), &[hidden, config.q_dim()])?),
                ffn_norm: Vector::of(&of_shape(&at("post_attention_layernorm"), &[hidden])?),
                gate_up: Matrix::pack(scheme, 2 * ffn, hidden, &gate_up),
                down: Matrix::pack(scheme, hidden, ffn, &of_shape(&at("mlp.down_proj"), &[hidden, ffn])?),
            });
        }
        let norm = Vector::of(&of_shape("model.norm.weight", &[hidden])?);
        let head = if config.tie_word_embeddings {
            embed.clone()
        } else {
            Matrix::pack(scheme, vocab, hidden, &of_shape("lm_head.weight", &[vocab, hidden])?)
        };
        Ok(Self { embed, layers, norm, head, tied: config.tie_word_embeddings, rotations: rotations(config) })
    }
}
