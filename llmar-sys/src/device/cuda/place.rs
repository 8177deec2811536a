//! Copies of a model's tensors on the GPU, in the layouts of the kernels.

use std::sync::Arc;

use super::launch::{Arg, Shape};
use super::{Cuda, Memory};
use crate::bytes::Bytes;
use crate::device::matrix::{Q4_GROUP_BYTES, Q8_GROUP_BYTES};
use crate::device::{Codebook as HostCodebook, Conv1d, GROUP, Matrix as HostMatrix, MatrixData, ROW_BLOCK, Vector};
use crate::error::Result;

/// Bytes that are copied and unpacked at a time.
const PIECE: usize = 64 << 20;
/// What the memory holds, for errors.
const WEIGHTS: &str = "the weights of the model";

/// A matrix on the GPU.
#[derive(Debug)]
pub struct Matrix {
    pub(super) form: MatrixForm,
}

/// How it lies there.
#[derive(Debug)]
pub enum MatrixForm {
    /// f16 [rows, ld], row-major, ld = columns rounded up to 32, zeros behind the last column.
    Half(Memory),
    /// As in the checkpoint.
    Q8 {
        /// Quants.
        q: Memory,
        /// f16 scales.
        scale: Memory,
    },
    /// As in the checkpoint.
    Q4 {
        /// Quants.
        q: Memory,
        /// f16 scales.
        scale: Memory,
        /// f16 minima.
        min: Memory,
    },
    /// f32 [rows, columns], row-major: weights of a convolution.
    Float(Memory),
}

/// A codebook on the GPU, as `kernels/nearest_codes.cu` prepares it.
#[derive(Debug)]
pub struct Codebook {
    /// f32 [codes, dim]
    pub(super) points: Memory,
    /// f16 [codes, ld]: the points times `scale`, zeros behind the last column.
    pub(super) halves: Memory,
    /// f32 [codes, 4]: squared norm, 1 / (1 − c‖c_u‖²), norm, bound of the product's error.
    pub(super) codes: Memory,
    /// f64 [codes] 1 / (1 − c‖c_u‖²)
    pub(super) inverse_gap: Memory,
    /// A power of two that brings the largest magnitude near 1.
    pub(super) scale: f32,
}

/// Columns of a row of halves, in elements.
pub(super) fn padded(columns: usize) -> usize {
    columns.next_multiple_of(GROUP)
}

impl Cuda {
    /// Bytes on the GPU.
    fn copy(&self, what: &'static str, bytes: &[u8]) -> Result<Memory> {
        let mut memory = self.memory();
        memory.reserve(what, bytes.len().max(1))?;
        for (i, piece) in bytes.chunks(PIECE).enumerate() {
            memory.write_at(what, i * PIECE, piece)?;
        }
        Ok(memory)
    }

    /// See [`Device::place_matrix`](crate::device::Device::place_matrix). f32 weights are rounded to f16.
    pub(in crate::device) fn place_matrix(&self, matrix: &HostMatrix) -> Result<HostMatrix> {
        let form = match &matrix.data {
            MatrixData::F32(w) => MatrixForm::Half(self.unpack("unpack_f32", 4, matrix, w)?),
            MatrixData::F16(w) => MatrixForm::Half(self.unpack("unpack_f16", 2, matrix, w)?),
            MatrixData::Q8 { q, scale } => {
                MatrixForm::Q8 { q: self.copy(WEIGHTS, q.as_slice())?, scale: self.copy(WEIGHTS, scale.as_slice())? }
            }
            MatrixData::Q4 { q, scale, min } => MatrixForm::Q4 {
                q: self.copy(WEIGHTS, q.as_slice())?,
                scale: self.copy(WEIGHTS, scale.as_slice())?,
                min: self.copy(WEIGHTS, min.as_slice())?,
            },
        };
        Ok(HostMatrix { cuda: Some(Arc::new(Matrix { form })), ..matrix.clone() })
    }

    /// Packed floats [B, cols, 16] as row-major halves.
    fn unpack(&self, kernel: &'static str, size: usize, matrix: &HostMatrix, packed: &Bytes) -> Result<Memory> {
        let (rows, cols) = (matrix.rows, matrix.cols);
        let ld = padded(cols);
        let mut out = self.memory();
        out.reserve(WEIGHTS, (rows * ld * 2).max(1))?;
        let block = cols * ROW_BLOCK * size;
        if block == 0 {
            return Ok(out);
        }
        let mut piece = self.memory();
        let blocks_a_piece = (PIECE / block).max(1);
        for (i, bytes) in packed.as_slice().chunks(blocks_a_piece * block).enumerate() {
            piece.reserve(WEIGHTS, bytes.len())?;
            piece.write_at(WEIGHTS, 0, bytes)?;
            let first = i * blocks_a_piece * ROW_BLOCK;
            let count = (bytes.len() / block * ROW_BLOCK).min(rows - first);
            self.unpack_rows(kernel, &[Arg::from(&piece)], cols, first, count, &out)?;
        }
        Ok(out)
    }

    /// Unpacks `count` rows from `first` on; `sources` point at the row block of the first.
    pub(super) fn unpack_rows(
        &self,
        kernel: &'static str,
        sources: &[Arg],
        cols: usize,
        first: usize,
        count: usize,
        out: &Memory,
    ) -> Result<()> {
        let mut args = sources.to_vec();
        args.extend_from_slice(&[out.into(), first.into(), count.into(), cols.into(), padded(cols).into()]);
        let shape = Shape { grid: (padded(cols).div_ceil(64) as u32, count.div_ceil(ROW_BLOCK) as u32, 1), block: 256, shared: 0 };
        self.launch(kernel, shape, &args)
    }

    /// See [`Device::place_vector`](crate::device::Device::place_vector).
    pub(in crate::device) fn place_vector(&self, vector: &Vector) -> Result<Vector> {
        let memory = self.copy(WEIGHTS, bytemuck::cast_slice(vector.values()))?;
        let mut placed = vector.clone();
        placed.cuda = Some(Arc::new(memory));
        Ok(placed)
    }

    /// See [`Device::place_conv`](crate::device::Device::place_conv).
    pub(in crate::device) fn place_conv(&self, conv: &Conv1d) -> Result<Conv1d> {
        let (rows, cols) = (conv.weight.rows, conv.weight.cols);
        let mut weights = vec![0.0f32; rows * cols];
        for (r, row) in weights.chunks_exact_mut(cols.max(1)).enumerate() {
            conv.weight.row(r, row);
        }
        let form = MatrixForm::Float(self.copy(WEIGHTS, bytemuck::cast_slice(&weights))?);
        let weight = HostMatrix { cuda: Some(Arc::new(Matrix { form })), ..conv.weight.clone() };
        Ok(Conv1d { weight, bias: self.place_vector(&conv.bias)?, ..conv.clone() })
    }

    /// See [`Device::place_codebook`](crate::device::Device::place_codebook).
    pub(in crate::device) fn place_codebook(&self, codebook: &HostCodebook) -> Result<HostCodebook> {
        const WHAT: &str = "the codebook";
        let (count, dim) = (codebook.codes, codebook.dim);
        let largest = codebook.points.iter().fold(0.0f32, |most, p| most.max(p.abs()));
        let scale = if largest > 0.0 && largest.is_finite() { (-largest.log2().ceil()).min(126.0).exp2() } else { 1.0 };
        let points = self.copy(WHAT, bytemuck::cast_slice(&codebook.points))?;
        let squared_norm = self.copy(WHAT, bytemuck::cast_slice(&codebook.squared_norm))?;
        let inverse_gap = self.copy(WHAT, bytemuck::cast_slice(&codebook.inverse_gap))?;
        let (mut halves, mut codes) = (self.memory(), self.memory());
        halves.reserve(WHAT, 2 * count * padded(dim))?;
        codes.reserve(WHAT, 16 * count)?;
        let args = [
            (&points).into(),
            (&squared_norm).into(),
            (&inverse_gap).into(),
            count.into(),
            dim.into(),
            scale.into(),
            (&halves).into(),
            (&codes).into(),
        ];
        self.launch("nearest_codes_prepare", Shape::new(count.div_ceil(8), 256), &args)?;
        let placed = Codebook { points, halves, codes, inverse_gap, scale };
        Ok(HostCodebook { cuda: Some(Arc::new(placed)), ..codebook.clone() })
    }

    /// A matrix of made-up weights in a scheme, for measurements without a checkpoint. Its tensors exist on the GPU alone.
    pub fn random_matrix(&self, scheme: crate::device::Scheme, rows: usize, cols: usize, seed: u32) -> Result<HostMatrix> {
        use crate::device::Scheme;
        let (blocks, groups) = (rows.div_ceil(ROW_BLOCK), cols.div_ceil(GROUP));
        let filled = |bytes: usize, mode: i32| {
            let mut memory = self.memory();
            memory.reserve(WEIGHTS, bytes)?;
            let words = bytes.div_ceil(4);
            let args = [Arg::from(&memory), Arg::Size(words as u64), Arg::Int(seed as i32), Arg::Int(mode)];
            self.launch("fill_random", Shape::new(words.div_ceil(1024).min(1 << 16), 256), &args)?;
            Ok::<_, crate::Error>(memory)
        };
        let scales = blocks * groups * ROW_BLOCK * 2;
        let empty = || Bytes::copy_from(&[]);
        let (form, data) = match scheme {
            Scheme::F32 | Scheme::F16 => (MatrixForm::Half(filled(rows * padded(cols) * 2, FILL_HALVES)?), MatrixData::F16(empty())),
            Scheme::Q8 => (
                MatrixForm::Q8 { q: filled(blocks * groups * Q8_GROUP_BYTES, FILL_QUANTS)?, scale: filled(scales, FILL_SCALES)? },
                MatrixData::Q8 { q: empty(), scale: empty() },
            ),
            Scheme::Q4 => (
                MatrixForm::Q4 {
                    q: filled(blocks * groups * Q4_GROUP_BYTES, FILL_QUANTS)?,
                    scale: filled(scales, FILL_SCALES)?,
                    min: filled(scales, FILL_MINIMA)?,
                },
                MatrixData::Q4 { q: empty(), scale: empty(), min: empty() },
            ),
        };
        Ok(HostMatrix { cuda: Some(Arc::new(Matrix { form })), ..HostMatrix::new(rows, cols, data) })
    }
}

// Modes of `fill_random` in kernels/fill.cu.
const FILL_HALVES: i32 = 0;
const FILL_QUANTS: i32 = 1;
const FILL_SCALES: i32 = 2;
const FILL_MINIMA: i32 = 3;
