//! A frozen LLaMA in tensors, with LoRA beside its matrices. The runtime's forward pass, with gradients.
//!
//! Rows are packed: [prefix ++ clip 0 ++ clip 1 ++ …, hidden]. The prefix is the same for all clips, so it is computed once; every clip's
//! rows attend to it and to rows of their own clip.

use llmar::llama::LlamaConfig;
use tch::{Device, Kind, Tensor};

use super::adapter::Lora;
use super::config::Target;
use crate::artifacts::{BaseMeta, Opened};
use crate::error::Result;
use crate::torch::tensor;

/// Weights, f32.
#[derive(Debug)]
pub struct Llama {
    /// Shape.
    pub config: LlamaConfig,
    /// [vocab, hidden]
    pub embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    /// [vocab, hidden]
    head: Tensor,
    /// cos and sin [positions, head_dim]
    rope: (Tensor, Tensor),
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    /// q, k, v one under another: [(heads + 2 · kv_heads) · head_dim, hidden]
    qkv: Tensor,
    out: Tensor,
    feed_forward_norm: Tensor,
    /// gate, up: [2 · intermediate, hidden]
    gate_up: Tensor,
    down: Tensor,
}

/// How the rows of a packed pass hang together.
#[derive(Debug)]
pub struct Packing {
    /// Rows of the shared prefix.
    pub prefix: i64,
    /// Clips.
    pub clips: i64,
    /// Rows of each clip.
    pub rows: i64,
    /// [prefix + rows] text position of the prefix's and of a clip's rows.
    pub positions: Vec<i64>,
    /// [rows, prefix + rows], 0 where a clip's row may look and a large negative number elsewhere.
    pub mask: Tensor,
}

/// Stands for −∞ in masks.
const HIDDEN: f32 = -1e30;

impl Packing {
    /// Clips whose rows stand one after another, each seeing the prefix and the rows before it.
    pub fn causal(prefix: usize, clips: usize, rows: usize, device: Device) -> Self {
        let parents: Vec<Option<usize>> = (0..rows).map(|i| i.checked_sub(1)).collect();
        Self::tree(prefix, clips, &parents, device)
    }

    /// Each row sees the prefix, its ancestors and itself; `parents[i]` < i, none: straight after the prefix.
    pub fn tree(prefix: usize, clips: usize, parents: &[Option<usize>], device: Device) -> Self {
        let (rows, width) = (parents.len(), prefix + parents.len());
        let mut mask = vec![HIDDEN; rows * width];
        let mut depth = vec![0usize; rows];
        for (i, parent) in parents.iter().enumerate() {
            if let Some(p) = *parent {
                let (before, own) = mask.split_at_mut(i * width);
                own[..width].copy_from_slice(&before[p * width..(p + 1) * width]);
                depth[i] = depth[p] + 1;
            } else {
                mask[i * width..i * width + prefix].fill(0.0);
            }
            mask[i * width + prefix + i] = 0.0;
        }
        let positions = (0..prefix).chain(depth.iter().map(|d| prefix + d)).map(|p| p as i64).collect();
        let mask = tensor(&mask, &[rows as i64, width as i64], device);
        Self { prefix: prefix as i64, clips: clips as i64, rows: rows as i64, positions, mask }
    }
}

impl Llama {
    /// Reads a base model.
    pub fn read(file: &Opened<BaseMeta>, device: Device) -> Result<Self> {
        let c = file.meta.config.clone();
        c.check()?;
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        let matrix = |name: &str, rows: usize, cols: usize| -> Result<Tensor> {
            Ok(tensor(&file.floats(name, &[rows, cols])?, &[rows as i64, cols as i64], device))
        };
        let vector = |name: &str| -> Result<Tensor> { Ok(tensor(&file.floats(name, &[hidden])?, &[hidden as i64], device)) };
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for i in 0..c.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            let joined = |parts: &[(&str, usize)]| -> Result<Tensor> {
                let parts: Vec<Tensor> = parts.iter().map(|(part, rows)| matrix(&name(part), *rows, hidden)).collect::<Result<_>>()?;
                Ok(Tensor::cat(&parts, 0))
            };
            layers.push(Layer {
                attention_norm: vector(&name("input_layernorm"))?,
                qkv: joined(&[("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)])?,
                out: matrix(&name("self_attn.o_proj"), hidden, q)?,
                feed_forward_norm: vector(&name("post_attention_layernorm"))?,
                gate_up: joined(&[("mlp.gate_proj", inner), ("mlp.up_proj", inner)])?,
                down: matrix(&name("mlp.down_proj"), hidden, inner)?,
            });
        }
        let embedding = matrix("model.embed_tokens.weight", c.vocab_size, hidden)?;
        let head = if c.tie_word_embeddings { embedding.shallow_clone() } else { matrix("lm_head.weight", c.vocab_size, hidden)? };
        let norm = vector("model.norm.weight")?;
        let rope = rope_tables(&c, device);
        Ok(Self { config: c, embedding, layers, norm, head, rope })
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// Embeddings [ids, hidden].
    pub fn embed(&self, ids: &[u32]) -> Tensor {
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        self.embedding.index_select(0, &Tensor::from_slice(&ids).to_device(self.device()))
    }

    /// Logits [keep, vocab] at the packed rows `keep` of inputs x [prefix + clips · rows, hidden].
    pub fn logits(&self, x: &Tensor, packing: &Packing, keep: &[i64], lora: Option<&Lora>, training: bool) -> Tensor {
        let (p, b, t) = (packing.prefix, packing.clips, packing.rows);
        let device = self.device();
        let keep = Tensor::from_slice(keep).to_device(device);
        let positions = Tensor::from_slice(&packing.positions).to_device(device);
        let turns = |table: &Tensor| {
            let rows = table.index_select(0, &positions);
            Tensor::cat(&[rows.narrow(0, 0, p), rows.narrow(0, p, t).repeat([b, 1])], 0).unsqueeze(1)
        };
        let (cos, sin) = (turns(&self.rope.0), turns(&self.rope.1));
        let prefix_packing = Packing::causal(0, 1, p as usize, device);
        let add = |y: Tensor, layer: usize, target: Target, x: &Tensor| match lora.and_then(|l| l.delta(layer, target, x, training)) {
            Some(delta) => y + delta,
            None => y,
        };
        let c = &self.config;
        let (heads, groups, d) = (c.num_attention_heads as i64, c.num_key_value_heads as i64, c.head_dim as i64);
        let mut x = x.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let h = self.rms_norm(&x, &layer.attention_norm);
            let parts = h.linear::<&Tensor>(&layer.qkv, None).split_with_sizes([heads * d, groups * d, groups * d], -1);
            let [q, k, v] = &parts[..] else { return x };
            let q = rotate(&add(q.shallow_clone(), i, Target::Q, &h).view([-1, heads, d]), &cos, &sin);
            let k = rotate(&add(k.shallow_clone(), i, Target::K, &h).view([-1, groups, d]), &cos, &sin);
            let v = add(v.shallow_clone(), i, Target::V, &h).view([-1, groups, d]);
            let mut attended = attention(&q.narrow(0, p, b * t), (&k, &v), packing);
            if p > 0 {
                let own = attention(&q.narrow(0, 0, p), (&k.narrow(0, 0, p), &v.narrow(0, 0, p)), &prefix_packing);
                attended = Tensor::cat(&[own, attended], 0);
            }
            if i + 1 == self.layers.len() {
                // Behind the last attention only the rows whose logits are wanted go on.
                attended = attended.index_select(0, &keep);
                x = x.index_select(0, &keep);
            }
            x = &x + add(attended.linear::<&Tensor>(&layer.out, None), i, Target::O, &attended);
            let h = self.rms_norm(&x, &layer.feed_forward_norm);
            let inner = c.intermediate_size as i64;
            let gate_up = h.linear::<&Tensor>(&layer.gate_up, None);
            let gate = add(gate_up.narrow(-1, 0, inner), i, Target::Gate, &h);
            let up = add(gate_up.narrow(-1, inner, inner), i, Target::Up, &h);
            let h = gate.silu() * up;
            x = &x + add(h.linear::<&Tensor>(&layer.down, None), i, Target::Down, &h);
        }
        self.rms_norm(&x, &self.norm).linear::<&Tensor>(&self.head, None)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let mean = x.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        x * (mean + f64::from(self.config.rms_norm_eps)).rsqrt() * weight
    }
}

/// Half-split RoPE: pairs (i, i + head_dim/2) turned by position · theta^(−2i/head_dim).
fn rope_tables(c: &LlamaConfig, device: Device) -> (Tensor, Tensor) {
    let half = c.head_dim / 2;
    let angles = (0..c.max_position_embeddings).flat_map(|position| {
        let angle = move |i: usize| position as f64 * f64::from(c.rope_theta).powf(-2.0 * i as f64 / c.head_dim as f64);
        (0..c.head_dim).map(move |i| angle(i % half))
    });
    let angles: Vec<f64> = angles.collect();
    let shape = [c.max_position_embeddings as i64, c.head_dim as i64];
    let table = |f: fn(f64) -> f64| tensor(&angles.iter().map(|a| f(*a) as f32).collect::<Vec<_>>(), &shape, device);
    (table(f64::cos), table(f64::sin))
}

/// x [rows, heads, head_dim] turned by cos and sin [rows, 1, head_dim].
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let half = x.size()[2] / 2;
    let turned = Tensor::cat(&[-x.narrow(-1, half, half), x.narrow(-1, 0, half)], -1);
    x * cos + turned * sin
}

/// Attention output [clips · rows, heads · head_dim] of q [clips · rows, heads, head_dim] over k and v [prefix + clips · rows, groups, head_dim].
fn attention(q: &Tensor, (k, v): (&Tensor, &Tensor), packing: &Packing) -> Tensor {
    let (p, b, t) = (packing.prefix, packing.clips, packing.rows);
    let (heads, d) = (q.size()[1], q.size()[2]);
    let groups = k.size()[1];
    let share = heads / groups;
    let q = q.view([b, t, groups, share, d]).permute([0, 2, 3, 1, 4]).reshape([b, groups, share * t, d]);
    let seen = |x: &Tensor| {
        let own = x.narrow(0, p, b * t).view([b, t, groups, d]).transpose(1, 2);
        if p == 0 {
            return own;
        }
        let prefix = x.narrow(0, 0, p).transpose(0, 1).unsqueeze(0).expand([b, -1, -1, -1], false);
        Tensor::cat(&[prefix, own], 2)
    };
    let (k, v) = (seen(k), seen(v));
    let scores = q.matmul(&k.transpose(-1, -2)) * (d as f64).powf(-0.5);
    let scores = scores.view([b, groups, share, t, p + t]) + &packing.mask;
    let weights = scores.softmax(-1, Kind::Float).view([b, groups, share * t, p + t]);
    weights.matmul(&v).view([b, groups, share, t, d]).permute([0, 3, 1, 2, 4]).reshape([b * t, heads * d])
}
