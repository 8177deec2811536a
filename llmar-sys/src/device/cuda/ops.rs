//! The ops that are no matrix product, one function a kernel.

use std::sync::Arc;

use half::f16;

use super::launch::{Arg, Shape};
use super::memory::{memory_of, operand_of};
use super::place::{MatrixForm, padded};
use super::{Cuda, Memory, StagedRows};
use crate::device::cpu::rotation;
use crate::device::{
    AttentionShape, Buffer, Codebook as HostCodebook, Conditioning, Conv1d, GROUP, Geometry, Input, KvLayer, Matrix as HostMatrix, Operand,
    Rotations, Store, Vector,
};
use crate::error::{Error, Result};

/// Keys of a part of attention split over keys, at least.
const KEYS_A_PART: usize = 64;
/// Most features a head that the attention kernels take.
const MOST_HEAD_DIM: usize = 256;
/// Most parts that the keys of a row are split into.
const MOST_PARTS: usize = 16;

/// The copy of a vector on the GPU.
fn vector(vector: &Vector) -> Result<Arg> {
    vector.cuda.as_ref().map(|memory| Arg::from(&**memory)).ok_or_else(|| crate::device::storage::elsewhere("vector"))
}

/// Keys and values on the GPU.
fn kv(layer: &KvLayer) -> Result<(Arg, Arg)> {
    match layer {
        KvLayer::Cuda(layer) => Ok(((&layer.keys).into(), (&layer.values).into())),
        KvLayer::Host { .. } => Err(crate::device::storage::elsewhere("KV cache")),
    }
}

impl Cuda {
    /// Sends a list to the GPU; it stays there until the next one is sent.
    fn list(&self, what: &'static str, lists: &mut Memory, words: &[u32]) -> Result<()> {
        lists.reserve(what, (4 * words.len()).next_power_of_two())?;
        lists.write_at(what, 0, bytemuck::cast_slice(words))
    }

    /// See [`Device::write_operand`](crate::device::Device::write_operand).
    pub(in crate::device) fn write_operand(&self, operand: &mut Operand, values: &[f32], n: usize, columns: usize) -> Result<()> {
        let mut scratch = self.scratch();
        scratch.lists.reserve("activations", 4 * values.len())?;
        scratch.lists.write_at("activations", 0, bytemuck::cast_slice(values))?;
        let shape = Shape { grid: (columns.div_ceil(4 * GROUP) as u32, n as u32, 1), block: 128, shared: 0 };
        self.launch("operand", shape, &[(&scratch.lists).into(), operand_of(operand)?.arg(n), columns.into()])
    }

    /// See [`Device::read_operand`](crate::device::Device::read_operand).
    pub(in crate::device) fn read_operand(&self, operand: &Operand, n: usize, columns: usize) -> Result<Vec<f32>> {
        let ld = padded(columns);
        let mut halves = vec![f16::ZERO; n * ld];
        operand_of(operand)?.half.read_at("activations", 0, bytemuck::cast_slice_mut(&mut halves))?;
        let rows = halves.chunks_exact(ld.max(1)).take(n);
        Ok(rows.flat_map(|row| row[..columns].iter().map(|half| half.to_f32())).collect())
    }

    /// See [`Device::embed`](crate::device::Device::embed); the ids were checked there.
    pub(in crate::device) fn embed(&self, words: &HostMatrix, codes: &Vector, inputs: &[Input], x: &mut Buffer) -> Result<()> {
        const CODE: u32 = 1 << 31;
        let ids: Vec<u32> = inputs
            .iter()
            .map(|input| match *input {
                Input::Word(id) => id,
                Input::Code(code) => u32::from(code) | CODE,
            })
            .collect();
        let mut scratch = self.scratch();
        self.list("the tokens of a pass", &mut scratch.lists, &ids)?;
        let form = super::products::form_of(words)?;
        let kernel = match form {
            MatrixForm::Half(_) => "embed_f16",
            MatrixForm::Q8 { .. } => "embed_q8",
            MatrixForm::Q4 { .. } => "embed_q4",
            MatrixForm::Float(_) => return Err(crate::device::storage::elsewhere("matrix")),
        };
        let mut args = form.args();
        // A codebook may be absent where no input is a code.
        args.extend_from_slice(&[
            vector(codes).unwrap_or(Arg::Pointer(0)),
            (&scratch.lists).into(),
            memory_of(x)?.into(),
            words.cols.into(),
        ]);
        let shape = Shape { grid: (ids.len() as u32, words.cols.div_ceil(1024) as u32, 1), block: 256, shared: 0 };
        self.launch(kernel, shape, &args)
    }

    /// See [`Device::rms_norm`](crate::device::Device::rms_norm) and `rms_norm_rows`.
    pub(in crate::device) fn rms_norm(
        &self,
        x: &Buffer,
        rows: Option<&[u32]>,
        weight: &Vector,
        eps: f32,
        n: usize,
        y: &mut Operand,
    ) -> Result<()> {
        let mut scratch = self.scratch();
        let chosen = match rows {
            Some(rows) => {
                self.list("the rows of the head", &mut scratch.lists, rows)?;
                Arg::from(&scratch.lists)
            }
            None => Arg::Pointer(0),
        };
        let d = weight.values().len();
        let args = [memory_of(x)?.into(), chosen, vector(weight)?, operand_of(y)?.arg(n), d.into(), eps.into()];
        self.launch("rms_norm", Shape::new(n, 256), &args)
    }

    /// See [`Device::place_rotations`](crate::device::Device::place_rotations).
    pub(in crate::device) fn place_rotations(&self, rotations: &Rotations) -> Result<Rotations> {
        const WHAT: &str = "the rotations of positions";
        let Rotations { theta, head_dim, positions, .. } = *rotations;
        // The attention kernels give a key to at most a warp of lanes, eight features each: with more they would never end.
        if head_dim > MOST_HEAD_DIM {
            let detail = format!("expected at most {MOST_HEAD_DIM} on a GPU, got {head_dim}");
            return Err(Error::Unsupported { what: "head_dim".into(), detail });
        }
        let mut table = Vec::with_capacity(positions * head_dim);
        for position in 0..positions as u32 {
            table.extend((0..head_dim / 2).flat_map(|i| <[f32; 2]>::from(rotation(position, i, head_dim, theta))));
        }
        let mut memory = self.memory();
        memory.reserve(WHAT, 4 * table.len())?;
        memory.write_at(WHAT, 0, bytemuck::cast_slice(&table))?;
        Ok(Rotations { cuda: Some(Arc::new(memory)), ..*rotations })
    }

    /// See [`Device::rope_append`](crate::device::Device::rope_append).
    pub(in crate::device) fn rope_append(
        &self,
        shape: AttentionShape,
        rotations: &Rotations,
        rows: &StagedRows,
        qkv: &mut Buffer,
        layer: &mut KvLayer,
    ) -> Result<()> {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let table = rotations.cuda.as_ref().ok_or_else(|| crate::device::storage::elsewhere("rotations"))?;
        let (keys, values) = kv(layer)?;
        let args = [
            memory_of(qkv)?.into(),
            (&**table).into(),
            rows.positions(),
            rows.slots(),
            keys,
            values,
            heads.into(),
            kv_heads.into(),
            head_dim.into(),
        ];
        // Few rows are all latency: several blocks share one.
        let blocks = if rows.count > super::SKINNY_ROWS { 1 } else { ((heads + 2 * kv_heads) * head_dim).div_ceil(512) };
        self.launch("rope_append", Shape { grid: (rows.count as u32, blocks as u32, 1), block: 256, shared: 0 }, &args)
    }

    /// See [`Device::log_softmax_at`](crate::device::Device::log_softmax_at).
    pub(in crate::device) fn log_softmax_at(
        &self,
        logits: &Buffer,
        vocab: usize,
        ends: &[usize],
        tokens: &[u32],
        out: &mut Vec<f64>,
    ) -> Result<()> {
        const WHAT: &str = "log-probabilities of tokens";
        let m = ends.len();
        let mut words = Vec::with_capacity(1 + m + tokens.len());
        words.push(0);
        words.extend(ends.iter().map(|&end| end as u32));
        words.extend_from_slice(tokens);
        let mut scratch = self.scratch();
        self.list(WHAT, &mut scratch.lists, &words)?;
        scratch.results.reserve(WHAT, (8 * tokens.len()).next_power_of_two())?;
        let (lists, results) = (&scratch.lists, &scratch.results);
        let tokens_at = Arg::Pointer(lists.pointer() + 4 * (1 + m as u64));
        let args = [memory_of(logits)?.into(), vocab.into(), lists.into(), tokens_at, results.into()];
        self.launch("child_log_probs", Shape::new(m, 512), &args)?;
        out.resize(tokens.len(), 0.0);
        results.read_at(WHAT, 0, bytemuck::cast_slice_mut(out))
    }

    /// See [`Device::attention`](crate::device::Device::attention).
    pub(in crate::device) fn attention(
        &self,
        shape: AttentionShape,
        rows: &StagedRows,
        qkv: &Buffer,
        layer: &KvLayer,
        out: &mut Operand,
    ) -> Result<()> {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let (n, qkv, out) = (rows.count, memory_of(qkv)?, operand_of(out)?);
        let (keys, values) = kv(layer)?;
        let prefill = match head_dim {
            64 => Some("attention_prefill_64"),
            128 => Some("attention_prefill_128"),
            _ => None,
        };
        if let (Some(name), true) = (prefill, n > super::SKINNY_ROWS) {
            let args = [
                qkv.into(),
                keys,
                values,
                rows.first(),
                rows.last(),
                rows.ranges(),
                rows.tile_first(),
                rows.tile_ranges(),
                (&out.half).into(),
                n.into(),
                heads.into(),
                kv_heads.into(),
            ];
            return self.launch(name, Shape { grid: (heads as u32, rows.tile_count() as u32, 1), block: 128, shared: 0 }, &args);
        }
        // As many parts as make a part worth a block, by the room of the cache: what a recorded launch does must not depend on a pass's content.
        let splits =
            if n <= super::SKINNY_ROWS { self.slots_of(layer, kv_heads * head_dim)?.div_ceil(KEYS_A_PART).clamp(1, MOST_PARTS) } else { 1 };
        let mut scratch = self.scratch();
        scratch.partials.reserve("partial sums of attention", 4 * n * heads * splits * (head_dim + 2))?;
        // One split of whole groups of 32 features needs no second kernel.
        let direct = splits == 1 && head_dim.is_multiple_of(GROUP);
        let partials = if direct { Arg::Pointer(0) } else { (&scratch.partials).into() };
        let (name, at_once) = match heads / kv_heads {
            1 => ("attention_decode_1", 1),
            2 => ("attention_decode_2", 2),
            3 => ("attention_decode_3", 3),
            4 => ("attention_decode_4", 4),
            _ => ("attention_decode_8", 8),
        };
        let padded_dim = 8 * head_dim.div_ceil(8).next_power_of_two();
        let grid = (n as u32, kv_heads as u32, splits as u32);
        let parts = Shape { grid, block: 128, shared: 4 * at_once * (5 * padded_dim + 8) };
        let args = [
            qkv.into(),
            keys,
            values,
            rows.first(),
            rows.last(),
            rows.ranges(),
            partials,
            out.arg(n),
            heads.into(),
            kv_heads.into(),
            head_dim.into(),
        ];
        self.launch(name, parts, &args)?;
        if direct {
            return Ok(());
        }
        let combine = Shape { grid: ((heads * head_dim).div_ceil(4 * GROUP) as u32, n as u32, 1), block: 128, shared: 0 };
        self.launch("attention_combine", combine, &[partials, out.arg(n), splits.into(), heads.into(), head_dim.into()])
    }

    /// Slots that a layer of a cache has room for.
    fn slots_of(&self, layer: &KvLayer, width: usize) -> Result<usize> {
        match layer {
            KvLayer::Cuda(layer) => Ok(layer.keys.len() / (2 * width.max(1))),
            KvLayer::Host { .. } => Err(crate::device::storage::elsewhere("KV cache")),
        }
    }

    /// See [`Device::conv1d`](crate::device::Device::conv1d).
    pub(in crate::device) fn conv1d(
        &self,
        conv: &Conv1d,
        x: &Buffer,
        (batch, frames): (usize, usize),
        relu_in: bool,
        y: &mut Buffer,
        store: Store,
    ) -> Result<()> {
        let Conv1d { weight, kernel, stride, dilation, left, .. } = conv;
        let (c_in, c_out, out) = (weight.cols / (*kernel).max(1), weight.rows, conv.out_len(frames));
        let MatrixForm::Float(weights) = super::products::form_of(weight)? else {
            return Err(crate::device::storage::elsewhere("convolution"));
        };
        let name = match (relu_in, store) {
            (false, Store::Overwrite) => "conv1d_store",
            (false, Store::Add) => "conv1d_add",
            (true, Store::Overwrite) => "conv1d_relu_store",
            (true, Store::Add) => "conv1d_relu_add",
        };
        let shape = Shape { grid: ((batch * out).div_ceil(32) as u32, c_out.div_ceil(64) as u32, 1), block: 128, shared: 0 };
        let mut args = vec![weights.into(), vector(&conv.bias)?, memory_of(x)?.into(), memory_of(y)?.into()];
        args.extend([batch, frames, c_in, c_out, out, *kernel, *stride, *dilation, *left].map(Arg::from));
        self.launch(name, shape, &args)
    }

    /// See [`Device::nearest_codes`](crate::device::Device::nearest_codes). Whether every feature was finite.
    pub(in crate::device) fn nearest_codes(
        &self,
        codebook: &HostCodebook,
        conditioning: Conditioning,
        features: &Buffer,
        out: &mut [u16],
    ) -> Result<bool> {
        const WHAT: &str = "nearest codes";
        let Some(placed) = &codebook.cuda else { return Err(crate::device::storage::elsewhere("codebook")) };
        let (n, dim) = (out.len(), codebook.dim);
        let curvature = match codebook.geometry {
            Geometry::Poincare { curvature } => curvature,
            Geometry::Euclidean => 0.0,
        };
        // A word that says whether a feature was damaged, then the codes.
        let mut scratch = self.scratch();
        scratch.results.reserve(WHAT, (4 + 2 * n).next_power_of_two())?;
        scratch.results.clear(WHAT, 4)?;
        let results = &scratch.results;
        let args = [
            memory_of(features)?.into(),
            n.into(),
            dim.into(),
            conditioning.gain.into(),
            conditioning.clip.into(),
            curvature.into(),
            (&placed.points).into(),
            (&placed.halves).into(),
            (&placed.codes).into(),
            (&placed.inverse_gap).into(),
            codebook.codes.into(),
            (1.0 / placed.scale).into(),
            Arg::Pointer(results.pointer() + 4),
            results.into(),
        ];
        // Rows and dynamic shared memory of a block: see the kernels.
        let many = n >= 96 * self.gpu.multiprocessors() as usize && self.gpu.shared_memory() as usize >= 88_192;
        let (name, rows, shared) = if many { ("nearest_codes_96", 96, 88_192) } else { ("nearest_codes_32", 32, 54_656) };
        self.launch(name, Shape { shared, ..Shape::new(n.div_ceil(rows), 256) }, &args)?;
        let mut words = vec![0u16; 2 + n];
        results.read_at(WHAT, 0, bytemuck::cast_slice_mut(&mut words))?;
        out.copy_from_slice(&words[2..]);
        Ok(words[0] == 0)
    }
}
