//! A LLaMA in tensors, frozen with LoRA beside its matrices, or trained as a whole. The runtime's forward pass, with gradients.
//!
//! The matrices are kept in the precision asked for; norms, attention, residuals and LoRA compute in f32. Rows are packed: [prefix ++ clip 0 ++ clip 1 ++ …, hidden]. The prefix is the same for all clips, so it is computed once; every clip's
//! rows attend to it and to rows of their own clip.

use llmar::llama::LlamaConfig;
use tch::{Device, Kind, Tensor};

use super::adapter::Lora;
use super::config::{Precision, Target};
use crate::artifacts::{BaseMeta, FloatTensor, Opened, Store};
use crate::error::Result;
use crate::torch::{Params, number, tensor, values};

/// Weights.
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

/// What a pass needs beside its rows, the same in every layer.
struct Pass<'a> {
    packing: &'a Packing,
    /// The prefix's rows among themselves.
    prefix: Packing,
    /// [prefix + clips · rows, 1, head_dim]
    cos: Tensor,
    sin: Tensor,
    /// Rows whose hidden states are wanted.
    keep: Tensor,
    lora: Option<&'a Lora>,
    dropout: Dropout,
}

/// Whether LoRA drops inputs. The seed makes a pass repeatable, which gradient checkpointing needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropout {
    /// Nothing is dropped.
    Off,
    /// As the adapter's settings say, drawn from this seed and the layer.
    Seeded(i64),
}

impl Llama {
    /// Reads a base model, its matrices in `precision`.
    pub fn read(file: &Opened<BaseMeta>, device: Device, precision: Precision) -> Result<Self> {
        let c = file.meta.config.clone();
        c.check()?;
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        let matrix = |name: &str, rows: usize, cols: usize| -> Result<Tensor> {
            Ok(tensor(&file.floats(name, &[rows, cols])?, &[rows as i64, cols as i64], Device::Cpu)
                .to_kind(precision.kind())
                .to_device(device))
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

    /// Makes every weight a parameter under `llama.`, as tuning all of them needs.
    pub fn train_all(&mut self, params: &mut Params) {
        self.embedding = params.add("llama.embed", &self.embedding);
        for (i, layer) in self.layers.iter_mut().enumerate() {
            for (part, t) in layer.parts_mut() {
                *t = params.add(format!("llama.layers.{i}.{part}"), t);
            }
        }
        self.norm = params.add("llama.norm", &self.norm);
        self.head = if self.config.tie_word_embeddings { self.embedding.shallow_clone() } else { params.add("llama.head", &self.head) };
    }

    /// Tensors of a base model, matrices in f16: what [`read`](Self::read) reads back.
    pub fn export(&self) -> Result<Vec<FloatTensor>> {
        let c = &self.config;
        let (q, kv, inner) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim, c.intermediate_size);
        let mut out = Vec::new();
        let mut push = |name: String, t: &Tensor| -> Result<()> {
            let shape: Vec<usize> = t.size().iter().map(|n| *n as usize).collect();
            let store = if shape.len() == 2 { Store::F16 } else { Store::F32 };
            out.push((name, shape, values(t)?, store));
            Ok(())
        };
        push("model.embed_tokens.weight".to_owned(), &self.embedding)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            push(name("input_layernorm"), &layer.attention_norm)?;
            for (part, from, rows) in [("q", 0, q), ("k", q, kv), ("v", q + kv, kv)] {
                push(name(&format!("self_attn.{part}_proj")), &layer.qkv.narrow(0, from as i64, rows as i64))?;
            }
            push(name("self_attn.o_proj"), &layer.out)?;
            push(name("post_attention_layernorm"), &layer.feed_forward_norm)?;
            for (part, from) in [("gate", 0), ("up", inner)] {
                push(name(&format!("mlp.{part}_proj")), &layer.gate_up.narrow(0, from as i64, inner as i64))?;
            }
            push(name("mlp.down_proj"), &layer.down)?;
        }
        push("model.norm.weight".to_owned(), &self.norm)?;
        if !c.tie_word_embeddings {
            push("lm_head.weight".to_owned(), &self.head)?;
        }
        Ok(out)
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// Embeddings [ids, hidden], f32.
    pub fn embed(&self, ids: &[u32]) -> Tensor {
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        self.embedding.index_select(0, &Tensor::from_slice(&ids).to_device(self.device())).to_kind(Kind::Float)
    }

    /// Logits [keep, vocab] at the packed rows `keep` of inputs x [prefix + clips · rows, hidden].
    pub fn logits(&self, x: &Tensor, packing: &Packing, keep: &[i64], lora: Option<&Lora>, dropout: Dropout) -> Tensor {
        self.words(&self.hidden(x, packing, keep, lora, dropout))
    }

    /// Hidden states [keep, hidden] behind the final norm at the packed rows `keep`.
    pub fn hidden(&self, x: &Tensor, packing: &Packing, keep: &[i64], lora: Option<&Lora>, dropout: Dropout) -> Tensor {
        let pass = self.pass(packing, keep, lora, dropout);
        let x = (0..self.layers.len()).fold(x.shallow_clone(), |x, i| self.layer(i, &x, &pass));
        self.rms_norm(&x, &self.norm)
    }

    /// Logits [rows, vocab] of hidden states.
    pub fn words(&self, hidden: &Tensor) -> Tensor {
        product(hidden, &self.head)
    }

    /// The gradients of loss(hidden), as [`hidden`](Self::hidden) followed by `backward` gives them, keeping no more than the input of each
    /// layer: a layer's inner values are computed again when the gradient arrives there (Chen et al. 2016). Returns the loss.
    pub fn backward_checkpointed(
        &self,
        x: &Tensor,
        packing: &Packing,
        keep: &[i64],
        lora: Option<&Lora>,
        dropout: Dropout,
        loss: impl FnOnce(&Tensor) -> Tensor,
    ) -> f64 {
        let pass = self.pass(packing, keep, lora, dropout);
        let mut inputs = vec![x.detach()];
        tch::no_grad(|| {
            for i in 0..self.layers.len() {
                inputs.push(self.layer(i, &inputs[i], &pass));
            }
        });
        let leaf = |t: &Tensor| t.detach().set_requires_grad(true);
        let last = leaf(&inputs[self.layers.len()]);
        let value = loss(&self.rms_norm(&last, &self.norm));
        value.backward();
        let mut gradient = last.grad();
        for i in (0..self.layers.len()).rev() {
            inputs.truncate(i + 1);
            let input = leaf(&inputs[i]);
            // d(Σ y·g)/dy = g: the way to hand a gradient over that tch has.
            (self.layer(i, &input, &pass) * gradient).sum(Kind::Float).backward();
            gradient = input.grad();
        }
        if x.requires_grad() {
            (x * gradient).sum(Kind::Float).backward();
        }
        number(&value)
    }

    fn pass<'a>(&self, packing: &'a Packing, keep: &[i64], lora: Option<&'a Lora>, dropout: Dropout) -> Pass<'a> {
        let (p, b, t) = (packing.prefix, packing.clips, packing.rows);
        let device = self.device();
        let positions = Tensor::from_slice(&packing.positions).to_device(device);
        let turns = |table: &Tensor| {
            let rows = table.index_select(0, &positions);
            Tensor::cat(&[rows.narrow(0, 0, p), rows.narrow(0, p, t).repeat([b, 1])], 0).unsqueeze(1)
        };
        let keep = Tensor::from_slice(keep).to_device(device);
        let prefix = Packing::causal(0, 1, p as usize, device);
        Pass { packing, prefix, cos: turns(&self.rope.0), sin: turns(&self.rope.1), keep, lora, dropout }
    }

    /// Rows behind layer `i`; behind the last layer, the kept rows alone.
    fn layer(&self, i: usize, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let (c, layer, packing) = (&self.config, &self.layers[i], pass.packing);
        let (heads, groups, d) = (c.num_attention_heads as i64, c.num_key_value_heads as i64, c.head_dim as i64);
        let (p, b, t) = (packing.prefix, packing.clips, packing.rows);
        let drops = match pass.dropout {
            Dropout::Seeded(seed) if pass.lora.is_some_and(Lora::drops) => {
                tch::manual_seed(seed.wrapping_add(i as i64));
                true
            }
            _ => false,
        };
        let add = |y: Tensor, target: Target, x: &Tensor| match pass.lora.and_then(|l| l.delta(i, target, x, drops)) {
            Some(delta) => y + delta,
            None => y,
        };
        let h = self.rms_norm(x, &layer.attention_norm);
        let qkv = product(&h, &layer.qkv);
        let part = |from: i64, heads: i64| qkv.narrow(-1, from * d, heads * d);
        let q = rotate(&add(part(0, heads), Target::Q, &h).view([-1, heads, d]), &pass.cos, &pass.sin);
        let k = rotate(&add(part(heads, groups), Target::K, &h).view([-1, groups, d]), &pass.cos, &pass.sin);
        let v = add(part(heads + groups, groups), Target::V, &h).reshape([-1, groups, d]);
        let mut attended = attention(&q.narrow(0, p, b * t), (&k, &v), packing);
        if p > 0 {
            let own = attention(&q.narrow(0, 0, p), (&k.narrow(0, 0, p), &v.narrow(0, 0, p)), &pass.prefix);
            attended = Tensor::cat(&[own, attended], 0);
        }
        let mut x = x.shallow_clone();
        if i + 1 == self.layers.len() {
            // Behind the last attention only the rows that are wanted go on.
            attended = attended.index_select(0, &pass.keep);
            x = x.index_select(0, &pass.keep);
        }
        x = &x + add(product(&attended, &layer.out), Target::O, &attended);
        let h = self.rms_norm(&x, &layer.feed_forward_norm);
        let inner = c.intermediate_size as i64;
        let gate_up = product(&h, &layer.gate_up);
        let gate = add(gate_up.narrow(-1, 0, inner), Target::Gate, &h);
        let up = add(gate_up.narrow(-1, inner, inner), Target::Up, &h);
        let h = gate.silu() * up;
        &x + add(product(&h, &layer.down), Target::Down, &h)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let mean = x.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        x * (mean + f64::from(self.config.rms_norm_eps)).rsqrt() * weight
    }
}

impl Layer {
    /// Every tensor with its name.
    fn parts_mut(&mut self) -> [(&'static str, &mut Tensor); 6] {
        [
            ("attention_norm", &mut self.attention_norm),
            ("qkv", &mut self.qkv),
            ("out", &mut self.out),
            ("feed_forward_norm", &mut self.feed_forward_norm),
            ("gate_up", &mut self.gate_up),
            ("down", &mut self.down),
        ]
    }
}

/// x [rows, in] · Wᵀ in f32, from factors in the precision of W [out, in].
fn product(x: &Tensor, weight: &Tensor) -> Tensor {
    if weight.kind() == Kind::Float {
        return x.linear::<&Tensor>(weight, None);
    }
    x.to_kind(weight.kind()).linear::<&Tensor>(weight, None).to_kind(Kind::Float)
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
