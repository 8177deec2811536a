//! One pass over n rows through all layers.

use crate::control::Control;
use crate::device::{AttentionShape, Buffer, Device, Input, KvLayer, Operand, Pass, Recorded, Rows, Staging, Store, Vector};
use crate::error::{Error, Result};

use super::config::LlamaConfig;
use super::kv_cache::KvCache;
use super::weights::Weights;

/// A LLaMA ready to run.
#[derive(Clone, Debug)]
pub struct Llama {
    /// Shape.
    pub config: LlamaConfig,
    /// Tensors.
    pub weights: Weights,
}

/// Buffers of a pass in the memory of one device, kept between calls so that a steady state allocates nothing. They grow to the largest pass seen.
#[derive(Debug)]
pub struct Workspace {
    /// [n, hidden], input of a projection after RMSNorm
    normed: Operand,
    /// [n, (heads + 2 · kv_heads) · head_dim]
    qkv: Buffer,
    /// [n, heads · head_dim]
    attended: Operand,
    /// [n, 2 · intermediate]
    gate_up: Buffer,
    /// [n, intermediate]
    activated: Operand,
    staging: Staging,
    recorded: Recorded,
}

/// What the buffers hold, for errors.
const PASS: &str = "a pass of the language model";

impl Workspace {
    /// Without room yet.
    pub fn new(device: &Device) -> Self {
        Self {
            normed: device.operand(),
            qkv: device.buffer(),
            attended: device.operand(),
            gate_up: device.buffer(),
            activated: device.operand(),
            staging: device.staging(),
            recorded: device.recorded(),
        }
    }

    /// Room for passes of `n` rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Budget`].
    pub fn reserve(&mut self, device: &Device, c: &LlamaConfig, n: usize) -> Result<()> {
        device.reserve_operand(PASS, &mut self.normed, n, c.hidden_size)?;
        device.reserve(PASS, &mut self.qkv, n.saturating_mul(c.qkv_rows()))?;
        device.reserve_operand(PASS, &mut self.attended, n, c.q_dim())?;
        device.reserve(PASS, &mut self.gate_up, n.saturating_mul(2 * c.intermediate_size))?;
        device.reserve_operand(PASS, &mut self.activated, n, c.intermediate_size)
    }
}

impl Llama {
    /// The model with a copy of its weights where the ops of `device` read them.
    pub fn place(&self, device: &Device) -> Result<Self> {
        Ok(Self { config: self.config.clone(), weights: self.weights.place(device)? })
    }

    /// Embeddings of words, and of action tokens by `codes` f32 [U, hidden], into x [n, hidden], which grows to fit.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an input beyond its table; those of the device.
    pub fn embed(&self, device: &Device, codes: &Vector, inputs: &[Input], x: &mut Buffer) -> Result<()> {
        device.embed(&self.weights.embed, codes, inputs, x)
    }

    /// Bytes that one more row of a pass takes on the CPU: the residual stream and the buffers of a workspace.
    pub fn row_bytes(&self) -> u64 {
        let c = &self.config;
        (size_of::<f32>() * (2 * c.hidden_size + c.qkv_rows() + c.q_dim() + 3 * c.intermediate_size)) as u64
    }

    /// Bytes that one slot of a KV cache takes on the CPU.
    pub fn slot_bytes(&self) -> u64 {
        (size_of::<f32>() * 2 * self.config.kv_dim() * self.config.num_hidden_layers) as u64
    }

    /// Runs x [n, hidden] (embeddings in, residual stream after the last layer out) with keys and values going to `cache`.
    /// `control` is checked once a layer on the CPU and once a pass on a GPU; on `Err`, x and the slots of this pass hold no meaning.
    ///
    /// A row is x₁ = x + W_o attention(rope(W_qkv norm(x))), x₂ = x₁ + W_down (silu(W_gate norm(x₁)) · W_up norm(x₁)) in each layer.
    pub fn forward(
        &self,
        device: &Device,
        rows: &Rows,
        x: &mut Buffer,
        cache: &mut KvCache,
        workspace: &mut Workspace,
        control: &Control,
    ) -> Result<()> {
        self.check_pass(rows, x, cache)?;
        let n = rows.position.len();
        if n == 0 {
            return Ok(());
        }
        control.check()?;
        workspace.reserve(device, &self.config, n)?;
        let Workspace { normed, qkv, attended, gate_up, activated, staging, recorded } = workspace;
        let pass = device.stage(staging, rows)?;
        let id = [self.weights.layers.as_ptr() as usize, cache.layers.first().map_or(0, KvLayer::address), x.address()];
        device.repeat(recorded, n, id, || self.layers(device, pass, n, x, cache, (normed, qkv, attended, gate_up, activated), control))
    }

    /// [`forward`](Self::forward) after its checks.
    #[expect(clippy::too_many_arguments, reason = "what a pass reads and writes")]
    fn layers(
        &self,
        device: &Device,
        pass: Pass<'_>,
        n: usize,
        x: &mut Buffer,
        cache: &mut KvCache,
        (normed, qkv, attended, gate_up, activated): (&mut Operand, &mut Buffer, &mut Operand, &mut Buffer, &mut Operand),
        control: &Control,
    ) -> Result<()> {
        let c = &self.config;
        let shape = AttentionShape { heads: c.num_attention_heads, kv_heads: c.num_key_value_heads, head_dim: c.head_dim };
        for (layer, kv) in self.weights.layers.iter().zip(&mut cache.layers) {
            control.check()?;
            device.rms_norm(x, &layer.attn_norm, c.rms_norm_eps, n, normed)?;
            device.linear(&layer.qkv, normed, n, qkv, Store::Overwrite)?;
            device.rope_append(shape, &self.weights.rotations, pass, qkv, kv)?;
            device.attention(shape, pass, qkv, kv, attended)?;
            device.linear(&layer.o, attended, n, x, Store::Add)?;
            device.rms_norm(x, &layer.ffn_norm, c.rms_norm_eps, n, normed)?;
            device.linear_swiglu(&layer.gate_up, normed, n, gate_up, activated)?;
            device.linear(&layer.down, activated, n, x, Store::Add)?;
        }
        Ok(())
    }

    /// Logits [m, vocab] of the chosen `rows` of x [.., hidden], the residual stream: final RMSNorm, then the head. `logits` grows to fit. On the CPU
    /// `control` is checked once for every part of the head that is as much work as a layer.
    pub fn logits(
        &self,
        device: &Device,
        x: &Buffer,
        rows: &[u32],
        logits: &mut Buffer,
        workspace: &mut Workspace,
        control: &Control,
    ) -> Result<()> {
        let c = &self.config;
        device.reserve_operand(PASS, &mut workspace.normed, rows.len(), c.hidden_size)?;
        device.reserve("logits", logits, rows.len().saturating_mul(c.vocab_size))?;
        device.rms_norm_rows(x, rows, &self.weights.norm, c.rms_norm_eps, &mut workspace.normed)?;
        // Rows of the head with as many weights as a layer has: q, k, v, o and the three of the feed-forward part.
        let at_a_time = c.qkv_rows() + c.q_dim() + 3 * c.intermediate_size;
        device.linear_controlled(&self.weights.head, &workspace.normed, rows.len(), logits, at_a_time, control)
    }

    /// Every index of a pass lies inside the buffers it indexes, so that the ops need no checks of their own.
    fn check_pass(&self, rows: &Rows, x: &Buffer, cache: &KvCache) -> Result<()> {
        let n = rows.position.len();
        let residual = [n, self.config.hidden_size];
        if x.capacity() < residual.iter().product::<usize>() {
            return Err(Error::Shape { what: "residual stream".into(), expected: residual.to_vec(), got: vec![x.capacity()] });
        }
        check_len("slots of a pass", n, rows.slot.len())?;
        check_len("ranges of a pass", n, rows.row_ranges.len())?;
        if cache.layers.len() != self.weights.layers.len() || cache.width != self.config.kv_dim() {
            return Err(Error::argument("KV cache", "one made for this model", "another shape"));
        }
        let positions = self.config.max_position_embeddings as u64;
        if let Some(&position) = rows.position.iter().find(|&&position| u64::from(position) >= positions) {
            return Err(Error::argument("position", format!("below {positions}"), position));
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

/// `Err` when a list of a pass has another length than the pass has rows.
fn check_len(what: &str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Shape { what: what.to_owned(), expected: vec![expected], got: vec![got] })
}
