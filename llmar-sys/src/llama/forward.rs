//! One pass over n rows through all layers.

use crate::control::Control;
use crate::device::{AttentionShape, Device, Rows, Store};
use crate::error::{Error, Result};

use super::config::LlamaConfig;
use super::kv_cache::KvCache;
use super::weights::Weights;
use crate::memory::grow;

/// A LLaMA ready to run.
#[derive(Clone, Debug)]
pub struct Llama {
    /// Shape.
    pub config: LlamaConfig,
    /// Tensors.
    pub weights: Weights,
}

/// Buffers of a pass, kept between calls so that a steady state allocates nothing. They grow to the largest pass seen.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// [n, hidden], input of a projection after RMSNorm
    normed: Vec<f32>,
    /// [n, (heads + 2 · kv_heads) · head_dim]
    qkv: Vec<f32>,
    /// [n, heads · head_dim]
    attended: Vec<f32>,
    /// [n, 2 · intermediate]
    gate_up: Vec<f32>,
    /// [n, intermediate]
    activated: Vec<f32>,
}

/// The first `len` elements of a buffer that grows when it must.
fn grown(buffer: &mut Vec<f32>, len: usize) -> Result<&mut [f32]> {
    grow("a pass of the language model", buffer, len)?;
    Ok(&mut buffer[..len])
}

impl Llama {
    /// Embedding rows of `ids` into x [n, hidden]. Every id is below `vocab_size`: a model's ids are checked when it is opened.
    pub fn embed(&self, ids: &[u32], x: &mut [f32]) {
        for (&id, row) in ids.iter().zip(x.chunks_exact_mut(self.config.hidden_size)) {
            self.weights.embed.row(id as usize, row);
        }
    }

    /// Runs x [n, hidden] (embeddings in, residual stream after the last layer out) with keys and values going to `cache`.
    /// `control` is checked once a layer; on `Err`, x and the slots of this pass hold no meaning.
    ///
    /// A row is x₁ = x + W_o attention(rope(W_qkv norm(x))), x₂ = x₁ + W_down (silu(W_gate norm(x₁)) · W_up norm(x₁)) in each layer.
    pub fn forward(
        &self,
        device: &Device,
        rows: &Rows,
        x: &mut [f32],
        cache: &mut KvCache,
        workspace: &mut Workspace,
        control: &Control,
    ) -> Result<()> {
        self.check_pass(rows, x, cache)?;
        if x.is_empty() {
            return Ok(());
        }
        device.install(|| self.layers(device, rows, x, cache, workspace, control))
    }

    /// [`forward`](Self::forward) after its checks, on a thread from which parallel work starts cheaply.
    fn layers(
        &self,
        device: &Device,
        rows: &Rows,
        x: &mut [f32],
        cache: &mut KvCache,
        workspace: &mut Workspace,
        control: &Control,
    ) -> Result<()> {
        let c = &self.config;
        let n = rows.position.len();
        let (q_dim, kv_dim, stride) = (c.q_dim(), c.kv_dim(), c.qkv_rows());
        let shape = AttentionShape { heads: c.num_attention_heads, kv_heads: c.num_key_value_heads, head_dim: c.head_dim };
        let normed = grown(&mut workspace.normed, n * c.hidden_size)?;
        let qkv = grown(&mut workspace.qkv, n * stride)?;
        let attended = grown(&mut workspace.attended, n * q_dim)?;
        let gate_up = grown(&mut workspace.gate_up, n * 2 * c.intermediate_size)?;
        let activated = grown(&mut workspace.activated, n * c.intermediate_size)?;
        for (i, layer) in self.weights.layers.iter().enumerate() {
            control.check()?;
            device.rms_norm(x, &layer.attn_norm, c.rms_norm_eps, normed);
            device.linear(&layer.qkv, normed, n, qkv, Store::Overwrite);
            // Query and key heads are neighbours in a row, so one call turns both.
            let turned = c.num_attention_heads + c.num_key_value_heads;
            device.rope(qkv, stride, turned, c.head_dim, &rows.position, c.rope_theta);
            for (row, &slot) in qkv.chunks_exact(stride).zip(&rows.slot) {
                let at = slot as usize * kv_dim..(slot as usize + 1) * kv_dim;
                cache.keys[i][at.clone()].copy_from_slice(&row[q_dim..q_dim + kv_dim]);
                cache.values[i][at].copy_from_slice(&row[q_dim + kv_dim..]);
            }
            device.attention(shape, rows, qkv, stride, &cache.keys[i], &cache.values[i], attended);
            device.linear(&layer.o, attended, n, x, Store::Add);
            device.rms_norm(x, &layer.ffn_norm, c.rms_norm_eps, normed);
            device.linear(&layer.gate_up, normed, n, gate_up, Store::Overwrite);
            device.swiglu(gate_up, c.intermediate_size, activated);
            device.linear(&layer.down, activated, n, x, Store::Add);
        }
        Ok(())
    }

    /// Logits [m, vocab] of m rows x [m, hidden] of the residual stream: final RMSNorm, then the head.
    pub fn logits(&self, device: &Device, x: &[f32], logits: &mut [f32], workspace: &mut Workspace) -> Result<()> {
        let normed = grown(&mut workspace.normed, x.len())?;
        device.install(|| {
            device.rms_norm(x, &self.weights.norm, self.config.rms_norm_eps, normed);
            device.linear(&self.weights.head, normed, x.len() / self.config.hidden_size, logits, Store::Overwrite);
        });
        Ok(())
    }

    /// Every index of a pass lies inside the buffers it indexes, so that the ops need no checks of their own.
    fn check_pass(&self, rows: &Rows, x: &[f32], cache: &KvCache) -> Result<()> {
        let n = rows.position.len();
        check_len("residual stream", &[n, self.config.hidden_size], x.len())?;
        check_len("slots of a pass", &[n], rows.slot.len())?;
        check_len("ranges of a pass", &[n], rows.row_ranges.len())?;
        let depth = self.weights.layers.len();
        let layer = cache.slots() * self.config.kv_dim();
        if cache.keys.len() != depth || cache.keys.iter().chain(&cache.values).any(|l| l.len() < layer) {
            return Err(Error::argument("KV cache", "one made for this model", "another shape"));
        }
        let slots = cache.slots() as u64;
        if let Some(&slot) = rows.slot.iter().find(|&&slot| u64::from(slot) >= slots) {
            return Err(Error::argument("cache slot", format!("below {slots}"), slot));
        }
        if let Some(range) = rows.ranges.iter().find(|r| r.start >= r.end || u64::from(r.end) > slots) {
            return Err(Error::argument("range of cache slots", format!("not empty, within 0..{slots}"), format!("{range:?}")));
        }
        let ranges = rows.ranges.len();
        if let Some(seen) = rows.row_ranges.iter().find(|r| r.start >= r.end || r.end as usize > ranges) {
            return Err(Error::argument("ranges a row sees", format!("not empty, within 0..{ranges}"), format!("{seen:?}")));
        }
        Ok(())
    }
}

/// `Err` when `got` is not the product of `expected`.
fn check_len(what: &str, expected: &[usize], got: usize) -> Result<()> {
    if expected.iter().product::<usize>() == got {
        return Ok(());
    }
    Err(Error::Shape { what: what.to_owned(), expected: expected.to_vec(), got: vec![got] })
}
