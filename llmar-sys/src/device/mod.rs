//! The arithmetic: about a dozen ops, each with one naive reference and one kernel a backend.
//!
//! Activations are row-major, `[rows, features]`, in memory of the device that runs the op ([`storage`]). On the CPU everything is f32, and every op
//! gives bit-identical results for any number of threads and any batch size: threads split output rows, never a sum. On a GPU the inputs of
//! matrix products, keys and values are f16 (or 8-bit groups, as the weights ask), sums and the residual stream f32; a row's result may differ in
//! its last bits with the number of rows beside it, because one row and many rows run different kernels.

mod codebook;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod matrix;
mod place;
mod quantize;
pub mod reference;
pub mod storage;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

pub use codebook::{Codebook, Geometry};
pub use cpu::{Cpu, Isa};
pub use matrix::{ElementType, GROUP, Matrix, MatrixData, Packed, ROW_BLOCK, Scheme, pack, packed_shapes};
pub use place::{Place, Placed};
pub use storage::{Buffer, KvLayer, Operand, Pass, Recorded, Rotations, Staging, Vector};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::memory::{Budget, HostBuffer};

/// Where the ops run.
#[derive(Debug)]
pub enum Device {
    /// The CPU with a fixed number of threads.
    Cpu(Cpu),
    /// One GPU, on a stream of its own.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Cuda),
}

/// Sizes of work beyond which more at a time saves nothing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of one pass through the language model. On the CPU weights are read once a pass, and from a few dozen rows on arithmetic takes longer; a
    /// GPU needs thousands before its tensor cores are the limit.
    pub rows: usize,
    /// Logits held at a time: 4 MB on the CPU (21 rows of a vocabulary of 49,152), 64 MB on a GPU.
    pub logits: usize,
}

/// What [`Device::linear`] does with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// y = W x
    Overwrite,
    /// y += W x (the residual)
    Add,
}

/// Geometry of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Features a head; even.
    pub head_dim: usize,
}

/// Which rows of the KV cache each of the n rows of a pass writes and sees.
///
/// Row i stands at text position `position[i]`, is written to cache slot `slot[i]`, and attends to the slots of
/// `ranges[row_ranges[i]]`, in that order, itself included. This covers a shared prefix, packed clips without padding and the tree
/// mask of label scoring. All rows of a pass are written to the cache before any row reads it.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// `[n]` text position, for RoPE.
    pub position: Vec<u32>,
    /// `[n]` cache slot.
    pub slot: Vec<u32>,
    /// Slot ranges, rows share them freely.
    pub ranges: Vec<Range<u32>>,
    /// `[n]` which of `ranges` each row sees.
    pub row_ranges: Vec<Range<u32>>,
}

/// One row of the language model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A token of the vocabulary: its embedding.
    Word(u32),
    /// An action token: the embedding of its code.
    Code(u16),
}

/// What the quantiser does to a feature before it looks for the nearest code: f ← g f · min(1, clip/‖g f‖).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditioning {
    /// g > 0
    pub gain: f32,
    /// Largest norm, above 0.
    pub clip: f32,
}

/// One 1-D convolution over time, as the encoder uses it: `y[t] = b + Σ_tap W_tap x[t·stride + (tap·dilation) − left]`.
#[derive(Clone, Debug)]
pub struct Conv1d {
    /// [c_out, kernel · c_in], column tap · c_in + channel; f32 or f16.
    pub weight: Matrix,
    /// `[c_out]`
    pub bias: Vector,
    /// Taps.
    pub kernel: usize,
    /// Frames between two outputs.
    pub stride: usize,
    /// Frames between two taps.
    pub dilation: usize,
    /// Zero frames before the first.
    pub left: usize,
    /// Zero frames after the last.
    pub right: usize,
}

impl Conv1d {
    /// Output frames for `frames` input frames: ⌊(frames + left + right − dilation·(kernel − 1) − 1) / stride⌋ + 1.
    pub fn out_len(&self, frames: usize) -> usize {
        (frames + self.left + self.right).saturating_sub(self.dilation * (self.kernel - 1) + 1) / self.stride + 1
    }
}

impl Device {
    /// The CPU with `threads` ≥ 1 threads and no memory budget; more than one starts workers that end with this device.
    pub fn cpu(threads: usize) -> Result<Self> {
        Ok(Self::Cpu(Cpu::new(threads)?))
    }

    /// Memory that its buffers are counted against.
    pub fn budget(&self) -> &Arc<Budget> {
        match self {
            Self::Cpu(cpu) => cpu.budget(),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.budget(),
        }
    }

    /// How much to give it at a time.
    pub fn limits(&self) -> Limits {
        match self {
            Self::Cpu(_) => Limits { rows: 256, logits: 1 << 20 },
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Limits { rows: 4096, logits: 1 << 24 },
        }
    }

    // --- memory ---------------------------------------------------------------------------------------------------------

    /// An empty buffer.
    pub fn buffer(&self) -> Buffer {
        match self {
            Self::Cpu(cpu) => Buffer::Host(HostBuffer::new(cpu.budget())),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => Buffer::Cuda(cuda.memory()),
        }
    }

    /// Makes room for `len` values. What it holds is lost where it grows.
    ///
    /// # Errors
    /// [`Error::Budget`], [`Error::OutOfMemory`]; the buffer stays usable as it was.
    pub fn reserve(&self, what: &'static str, buffer: &mut Buffer, len: usize) -> Result<()> {
        match (self, buffer) {
            (Self::Cpu(_), Buffer::Host(buffer)) => buffer.grow(what, len),
            #[cfg(feature = "cuda")]
            (Self::Cuda(cuda), Buffer::Cuda(memory)) => cuda.reserve(what, memory, len.saturating_mul(size_of::<f32>())),
            #[cfg(feature = "cuda")]
            _ => Err(storage::elsewhere("buffer")),
        }
    }

    /// Writes `values` to the start of `buffer`, which grows where it must.
    pub fn write(&self, what: &'static str, buffer: &mut Buffer, values: &[f32]) -> Result<()> {
        self.reserve(what, buffer, values.len())?;
        match self {
            Self::Cpu(_) => buffer.host_mut()?[..values.len()].copy_from_slice(values),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.write(buffer, values)?,
        }
        Ok(())
    }

    /// Reads the first `out.len()` values of `buffer`.
    pub fn read(&self, buffer: &Buffer, out: &mut [f32]) -> Result<()> {
        if out.len() > buffer.capacity() {
            return Err(Error::Shape { what: "buffer".into(), expected: vec![out.len()], got: vec![buffer.capacity()] });
        }
        match self {
            Self::Cpu(_) => out.copy_from_slice(&buffer.host()?[..out.len()]),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.read(buffer, out)?,
        }
        Ok(())
    }

    /// Copies `len` values of `from`, beginning at value `from_at`, to value `to_at` of `to`. Nothing grows.
    ///
    /// # Errors
    /// [`Error::Shape`] where either range is not within its buffer.
    pub fn copy(&self, (from, from_at): (&Buffer, usize), (to, to_at): (&mut Buffer, usize), len: usize) -> Result<()> {
        for (at, capacity) in [(from_at, from.capacity()), (to_at, to.capacity())] {
            if at.checked_add(len).is_none_or(|end| end > capacity) {
                return Err(Error::Shape { what: "range of a buffer".into(), expected: vec![at, len], got: vec![capacity] });
            }
        }
        match self {
            Self::Cpu(_) => to.host_mut()?[to_at..to_at + len].copy_from_slice(&from.host()?[from_at..from_at + len]),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.copy_between((from, from_at), (to, to_at), len)?,
        }
        Ok(())
    }

    /// Makes the first `len` values of `buffer` zero; it grows where it must, and is then lost as a whole.
    pub fn zero(&self, what: &'static str, buffer: &mut Buffer, len: usize) -> Result<()> {
        self.reserve(what, buffer, len)?;
        match self {
            Self::Cpu(_) => buffer.host_mut()?[..len].fill(0.0),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.zero(buffer, len)?,
        }
        Ok(())
    }

    /// An operand without room.
    pub fn operand(&self) -> Operand {
        match self {
            Self::Cpu(cpu) => Operand::Host(HostBuffer::new(cpu.budget())),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => Operand::Cuda(Box::new(cuda.operand())),
        }
    }

    /// Makes room for `n` rows of `columns` values. What it holds is lost where it grows.
    pub fn reserve_operand(&self, what: &'static str, operand: &mut Operand, n: usize, columns: usize) -> Result<()> {
        match (self, operand) {
            (Self::Cpu(_), Operand::Host(buffer)) => buffer.grow(what, n.saturating_mul(columns)),
            #[cfg(feature = "cuda")]
            (Self::Cuda(cuda), Operand::Cuda(operand)) => cuda.reserve_operand(what, operand, n, columns),
            #[cfg(feature = "cuda")]
            _ => Err(storage::elsewhere("operand")),
        }
    }

    /// Writes `n` rows of `columns` values, as a producer of activations would.
    pub fn write_operand(&self, what: &'static str, operand: &mut Operand, values: &[f32], n: usize, columns: usize) -> Result<()> {
        if values.len() != n * columns {
            return Err(Error::Shape { what: what.into(), expected: vec![n, columns], got: vec![values.len()] });
        }
        self.reserve_operand(what, operand, n, columns)?;
        match self {
            Self::Cpu(_) => operand.host_mut()?[..values.len()].copy_from_slice(values),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.write_operand(operand, values, n, columns)?,
        }
        Ok(())
    }

    /// Reads `n` rows of `columns` values, as they were rounded.
    pub fn read_operand(&self, operand: &Operand, n: usize, columns: usize) -> Result<Vec<f32>> {
        match self {
            Self::Cpu(_) => Ok(operand.host()?[..n * columns].to_vec()),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.read_operand(operand, n, columns),
        }
    }

    /// A layer of a KV cache without room.
    pub fn kv_layer(&self) -> KvLayer {
        match self {
            Self::Cpu(cpu) => KvLayer::Host { keys: HostBuffer::new(cpu.budget()), values: HostBuffer::new(cpu.budget()) },
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => KvLayer::Cuda(cuda.kv_layer()),
        }
    }

    /// Makes room for `slots` slots of `width` keys and values, keeping what is there.
    pub fn reserve_kv(&self, layer: &mut KvLayer, slots: usize, width: usize) -> Result<()> {
        const WHAT: &str = "the KV cache";
        match (self, layer) {
            (Self::Cpu(_), KvLayer::Host { keys, values }) => {
                let len = slots.saturating_mul(width);
                keys.grow(WHAT, len)?;
                values.grow(WHAT, len)
            }
            #[cfg(feature = "cuda")]
            (Self::Cuda(cuda), KvLayer::Cuda(layer)) => cuda.reserve_kv(WHAT, layer, slots, width),
            #[cfg(feature = "cuda")]
            _ => Err(storage::elsewhere("KV cache")),
        }
    }

    /// Memory for the rows of passes.
    pub fn staging(&self) -> Staging {
        match self {
            Self::Cpu(_) => Staging::Host,
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => Staging::Cuda(Box::new(cuda.staged_rows())),
        }
    }

    /// Brings the rows of a pass to where the ops read them. Every index in `rows` lies inside what it indexes: the caller has checked that.
    pub fn stage<'a>(&self, staging: &'a mut Staging, rows: &'a Rows) -> Result<Pass<'a>> {
        match (self, staging) {
            (Self::Cpu(_), Staging::Host) => Ok(Pass::Host(rows)),
            #[cfg(feature = "cuda")]
            (Self::Cuda(cuda), Staging::Cuda(staged)) => {
                cuda.stage(staged, rows)?;
                Ok(Pass::Cuda(staged))
            }
            #[cfg(feature = "cuda")]
            _ => Err(storage::elsewhere("staging")),
        }
    }

    /// A place for recorded passes.
    pub fn recorded(&self) -> Recorded {
        match self {
            Self::Cpu(_) => Recorded::Host,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Recorded::Cuda(cuda::Graphs::default()),
        }
    }

    /// Runs `ops`, a pass of `n` rows; `id` says of which model, cache and residual stream. A GPU records passes of few rows as a graph and runs the
    /// graph the next times: the ops must do the same launches for the same `n` and `id`, with whatever the staged rows hold, as long as no
    /// memory of this device was allocated in between.
    pub fn repeat(&self, recorded: &mut Recorded, n: usize, id: [usize; 3], ops: impl FnOnce() -> Result<()>) -> Result<()> {
        match (self, recorded) {
            #[cfg(feature = "cuda")]
            (Self::Cuda(cuda), Recorded::Cuda(graphs)) => cuda.repeat(graphs, n, id, ops),
            _ => {
                let _ = (n, id);
                ops()
            }
        }
    }

    /// Waits until everything asked of the device is done; reports what failed on the way.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.synchronize(),
        }
    }

    /// The matrix with a copy where the ops of this device read it.
    pub fn place_matrix(&self, matrix: &Matrix) -> Result<Matrix> {
        match self {
            Self::Cpu(_) => Ok(matrix.clone()),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.place_matrix(matrix),
        }
    }

    /// The vector with a copy where the ops of this device read it.
    pub fn place_vector(&self, vector: &Vector) -> Result<Vector> {
        match self {
            Self::Cpu(_) => Ok(vector.clone()),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.place_vector(vector),
        }
    }

    /// The rotations with a table where the ops of this device read it.
    pub fn place_rotations(&self, rotations: &Rotations) -> Result<Rotations> {
        match self {
            Self::Cpu(_) => Ok(rotations.clone()),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.place_rotations(rotations),
        }
    }

    /// The convolution with copies where the ops of this device read them.
    pub fn place_conv(&self, conv: &Conv1d) -> Result<Conv1d> {
        match self {
            Self::Cpu(_) => Ok(conv.clone()),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.place_conv(conv),
        }
    }

    /// The codebook with a copy where the ops of this device read it.
    pub fn place_codebook(&self, codebook: &Codebook) -> Result<Codebook> {
        match self {
            Self::Cpu(_) => Ok(codebook.clone()),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.place_codebook(codebook),
        }
    }

    // --- ops ------------------------------------------------------------------------------------------------------------

    /// x [n, hidden] = the embedding of each input: a row of `words` [vocab, hidden] or of `codes` f32 [U, hidden].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an input beyond its table.
    pub fn embed(&self, words: &Matrix, codes: &Vector, inputs: &[Input], x: &mut Buffer) -> Result<()> {
        let hidden = words.cols;
        let code_count = codes.values().len() / hidden.max(1);
        for input in inputs {
            match *input {
                Input::Word(id) if id as usize >= words.rows => return Err(Error::argument("token", format!("below {}", words.rows), id)),
                Input::Code(code) if usize::from(code) >= code_count => {
                    return Err(Error::argument("action token", format!("below {code_count}"), code));
                }
                Input::Word(_) | Input::Code(_) => {}
            }
        }
        self.reserve("the rows of a pass", x, inputs.len() * hidden)?;
        match self {
            Self::Cpu(_) => {
                for (input, row) in inputs.iter().zip(x.host_mut()?.chunks_exact_mut(hidden)) {
                    match *input {
                        Input::Word(id) => words.row(id as usize, row),
                        Input::Code(code) => row.copy_from_slice(&codes.values()[usize::from(code) * hidden..][..hidden]),
                    }
                }
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.embed(words, codes, inputs, x),
        }
    }

    /// y [n, w.rows] = W x (or += W x) for x [n, w.cols].
    pub fn linear(&self, w: &Matrix, x: &Operand, n: usize, y: &mut Buffer, store: Store) -> Result<()> {
        match self {
            Self::Cpu(cpu) => cpu.linear(w, x.host()?, n, y.host_mut()?, store),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.linear(w, x, n, y, store)?,
        }
        Ok(())
    }

    /// [`linear`](Self::linear) into `y`, with `control` looked at after every `rows` of them on the CPU, so that a large product can be cancelled; a
    /// GPU is cancelled between passes.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::DeadlineExceeded`]: y holds no meaning then.
    pub fn linear_controlled(&self, w: &Matrix, x: &Operand, n: usize, y: &mut Buffer, rows: usize, control: &Control) -> Result<()> {
        match self {
            Self::Cpu(cpu) => {
                let (blocks, step) = (w.rows.div_ceil(ROW_BLOCK), rows.div_ceil(ROW_BLOCK).max(1));
                for first in (0..blocks).step_by(step) {
                    control.check()?;
                    cpu.linear_blocks(w, x.host()?, n, y.host_mut()?, Store::Overwrite, first..(first + step).min(blocks));
                }
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.linear(w, x, n, y, Store::Overwrite)?,
        }
        Ok(())
    }

    /// y [n, f] = silu(gate) · up, where W x [n, 2f] holds gate and then up of each row. `scratch` has room for [n, 2f].
    pub fn linear_swiglu(&self, w: &Matrix, x: &Operand, n: usize, scratch: &mut Buffer, y: &mut Operand) -> Result<()> {
        match self {
            Self::Cpu(cpu) => {
                let (gate_up, f) = (scratch.host_mut()?, w.rows / 2);
                cpu.linear(w, x.host()?, n, gate_up, Store::Overwrite);
                cpu.swiglu(&gate_up[..n * w.rows], f, &mut y.host_mut()?[..n * f]);
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.linear_swiglu(w, x, n, scratch, y)?,
        }
        Ok(())
    }

    /// `y[i] = x[i] · weight / √(mean(x[i]²) + eps)`, for x, y `[n, d]` and weight `[d]`.
    pub fn rms_norm(&self, x: &Buffer, weight: &Vector, eps: f32, n: usize, y: &mut Operand) -> Result<()> {
        let d = weight.values().len();
        match self {
            Self::Cpu(cpu) => cpu.rms_norm(&x.host()?[..n * d], weight.values(), eps, &mut y.host_mut()?[..n * d]),
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.rms_norm(x, None, weight, eps, n, y)?,
        }
        Ok(())
    }

    /// [`rms_norm`](Self::rms_norm) of chosen rows: row i of y is that of row `rows[i]` of x.
    pub fn rms_norm_rows(&self, x: &Buffer, rows: &[u32], weight: &Vector, eps: f32, y: &mut Operand) -> Result<()> {
        let d = weight.values().len();
        let held = x.capacity() / d.max(1);
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= held) {
            return Err(Error::argument("row", format!("below {held}"), row));
        }
        match self {
            Self::Cpu(cpu) => {
                let (x, y) = (x.host()?, y.host_mut()?);
                for (&row, y) in rows.iter().zip(y.chunks_exact_mut(d)) {
                    cpu.rms_norm(&x[row as usize * d..][..d], weight.values(), eps, y);
                }
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.rms_norm(x, Some(rows), weight, eps, rows.len(), y)?,
        }
        Ok(())
    }

    /// Turns query and key heads of every row of `qkv` [n, (heads + 2 · kv_heads) · head_dim] by the row's position, and writes keys and values to the
    /// row's slot: half-split pairs (i, i + head_dim/2), angle position · theta^(−2i/head_dim). The queries are turned in place.
    pub fn rope_append(
        &self,
        shape: AttentionShape,
        rotations: &Rotations,
        pass: Pass<'_>,
        qkv: &mut Buffer,
        layer: &mut KvLayer,
    ) -> Result<()> {
        match (self, pass) {
            (Self::Cpu(cpu), Pass::Host(rows)) => {
                let AttentionShape { heads, kv_heads, head_dim } = shape;
                let (q_dim, kv_dim) = (heads * head_dim, kv_heads * head_dim);
                let stride = q_dim + 2 * kv_dim;
                let qkv = &mut qkv.host_mut()?[..rows.position.len() * stride];
                // Query and key heads are neighbours in a row, so one call turns both.
                cpu.rope(qkv, stride, heads + kv_heads, head_dim, &rows.position, rotations.theta);
                let (keys, values) = layer.host_mut()?;
                for (row, &slot) in qkv.chunks_exact(stride).zip(&rows.slot) {
                    let at = slot as usize * kv_dim..(slot as usize + 1) * kv_dim;
                    keys[at.clone()].copy_from_slice(&row[q_dim..q_dim + kv_dim]);
                    values[at].copy_from_slice(&row[q_dim + kv_dim..]);
                }
                Ok(())
            }
            #[cfg(feature = "cuda")]
            (Self::Cuda(cuda), Pass::Cuda(rows)) => cuda.rope_append(shape, rotations, rows, qkv, layer),
            #[cfg(feature = "cuda")]
            _ => Err(storage::elsewhere("rows of a pass")),
        }
    }

    /// out [n, heads·head_dim]: softmax(q·k/√head_dim) v over the slots each row sees. Queries as [`rope_append`](Self::rope_append) leaves them.
    pub fn attention(&self, shape: AttentionShape, pass: Pass<'_>, qkv: &Buffer, layer: &KvLayer, out: &mut Operand) -> Result<()> {
        match (self, pass) {
            (Self::Cpu(cpu), Pass::Host(rows)) => {
                let stride = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
                let (keys, values) = layer.host()?;
                cpu.attention(shape, rows, qkv.host()?, stride, keys, values, out.host_mut()?);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            (Self::Cuda(cuda), Pass::Cuda(rows)) => cuda.attention(shape, rows, qkv, layer, out),
            #[cfg(feature = "cuda")]
            _ => Err(storage::elsewhere("rows of a pass")),
        }
    }

    /// log-softmax of logits [m, vocab] at a few tokens of each row: row i's tokens are `tokens[ends[i − 1]..ends[i]]` (from 0 for the first), `out`
    /// gets one number a token. The normaliser runs over the whole vocabulary. A row with a logit that is not finite gives numbers that are not finite.
    pub fn log_softmax_at(&self, logits: &Buffer, vocab: usize, ends: &[usize], tokens: &[u32], out: &mut Vec<f64>) -> Result<()> {
        out.clear();
        match self {
            Self::Cpu(cpu) => {
                let logits = &logits.host()?[..ends.len() * vocab];
                cpu.log_softmax_at(logits, vocab, ends, tokens, out);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.log_softmax_at(logits, vocab, ends, tokens, out),
        }
    }

    /// y [batch, out_len, c_out] = conv(x [batch, frames, c_in]); with `relu_in`, of max(x, 0); with [`Store::Add`], added to y.
    pub fn conv1d(&self, conv: &Conv1d, x: &Buffer, shape: (usize, usize), relu_in: bool, y: &mut Buffer, store: Store) -> Result<()> {
        let (batch, frames) = shape;
        match self {
            Self::Cpu(cpu) => {
                let (x_len, y_len) = (frames * (conv.weight.cols / conv.kernel.max(1)), conv.out_len(frames) * conv.weight.rows);
                let (x, y) = (x.host()?, y.host_mut()?);
                for i in 0..batch {
                    cpu.conv1d(conv, &x[i * x_len..(i + 1) * x_len], frames, relu_in, &mut y[i * y_len..(i + 1) * y_len], store);
                }
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.conv1d(conv, x, shape, relu_in, y, store)?,
        }
        Ok(())
    }

    /// Nearest code of each feature [n, dim] after its conditioning (tangent vectors for `Poincare`): the f64 argmin wherever the two best
    /// distances differ by more than 1e-5 relatively, the lower index on ties.
    ///
    /// # Errors
    /// [`Error::Format`] when a feature is not finite, which only a damaged model gives.
    pub fn nearest_codes(&self, codebook: &Codebook, conditioning: Conditioning, features: &Buffer, out: &mut [u16]) -> Result<()> {
        let finite = match self {
            Self::Cpu(cpu) => {
                let features = &features.host()?[..out.len() * codebook.dim];
                cpu.nearest_codes(codebook, conditioning, features, out.len(), out);
                features.iter().all(|x| x.is_finite())
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(cuda) => cuda.nearest_codes(codebook, conditioning, features, out)?,
        };
        if finite { Ok(()) } else { Err(Error::format("encoder", "its features are not finite numbers: the weights overflow f32")) }
    }
}

impl Conditioning {
    /// Features as they are.
    pub const NONE: Self = Self { gain: 1.0, clip: f32::MAX };

    /// Conditions features [n, dim] in place, norms in f64. A feature that is not finite becomes the origin, so that it has a defined token.
    pub fn apply(&self, dim: usize, features: &mut [f32]) {
        let (gain, clip) = (f64::from(self.gain), f64::from(self.clip));
        for feature in features.chunks_exact_mut(dim) {
            let norm = gain * feature.iter().map(|&f| f64::from(f).powi(2)).sum::<f64>().sqrt();
            let factor = if norm > clip { gain * (clip / norm) } else { gain };
            let finite = norm.is_finite();
            feature.iter_mut().for_each(|f| *f = if finite { (f64::from(*f) * factor) as f32 } else { 0.0 });
        }
    }
}
