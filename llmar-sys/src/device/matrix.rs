//! Weight matrices as they lie in a checkpoint: row blocks of 16, interleaved for the kernels. Layout only, no arithmetic.
//!
//! A matrix W [rows, cols] multiplies a column of activations: y[r] = Σ_k W[r, k] x[k]. Its rows are cut into blocks of
//! [`ROW_BLOCK`] = 16; missing rows of the last block are zero. For the quantised schemes the columns are cut into groups of
//! [`GROUP`] = 32; missing columns of the last group stand for weight zero. B = ⌈rows/16⌉, G = ⌈cols/32⌉.
//!
//! | scheme | tensor | type and shape | weight (row 16b + i, column 32g + 4j + t) |
//! |---|---|---|---|
//! | f32 | `name` | f32 [B, cols, 16] | w[b, k, i] |
//! | f16 | `name` | f16 [B, cols, 16] | w[b, k, i] |
//! | q8 | `name.q` | u8 [B, G, 8, 16, 4] | (q[b, g, j, i, t] − 128) · scale[b, g, i] |
//! |    | `name.scale` | f16 [B, G, 16] | |
//! | q4 | `name.q` | u8 [B, G, 4, 16, 4] | low nibble: j in 0..4; high nibble: j − 4, j in 4..8; q · scale + min |
//! |    | `name.scale`, `name.min` | f16 [B, G, 16] | min may be negative |

use half::f16;
use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// Rows interleaved in one block.
pub const ROW_BLOCK: usize = 16;
/// Columns that share one scale in the quantised schemes.
pub const GROUP: usize = 32;

/// How the language model's matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// 32-bit floats: tests and tiny models.
    F32,
    /// 16-bit floats, arithmetic in f32.
    F16,
    /// 8-bit integers in groups of 32 with an f16 scale; activations are rounded to 8 bits per group as well.
    Q8,
    /// 4-bit integers in groups of 32 with an f16 scale and minimum; activations as in `Q8`.
    Q4,
}

/// A weight matrix in one of the layouts above.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// The weights.
    pub data: MatrixData,
}

/// Views of the tensors of one matrix. Lengths are checked when a checkpoint is opened, or by [`Matrix::pack`].
#[derive(Clone, Debug)]
pub enum MatrixData {
    /// See the module's table.
    F32(Bytes),
    /// See the module's table.
    F16(Bytes),
    /// See the module's table.
    Q8 {
        /// Quants.
        q: Bytes,
        /// f16 scales.
        scale: Bytes,
    },
    /// See the module's table.
    Q4 {
        /// Quants.
        q: Bytes,
        /// f16 scales.
        scale: Bytes,
        /// f16 minima.
        min: Bytes,
    },
}

/// Packed tensors of one matrix, on their way into a checkpoint.
#[derive(Clone, Debug)]
pub enum Packed {
    /// See the module's table.
    F32(Vec<f32>),
    /// See the module's table.
    F16(Vec<f16>),
    /// See the module's table.
    Q8 {
        /// Quants.
        q: Vec<u8>,
        /// Scales.
        scale: Vec<f16>,
    },
    /// See the module's table.
    Q4 {
        /// Quants.
        q: Vec<u8>,
        /// Scales.
        scale: Vec<f16>,
        /// Minima.
        min: Vec<f16>,
    },
}

/// Packs row-major `weights` [rows, cols] in `scheme`.
pub fn pack(_scheme: Scheme, _rows: usize, _cols: usize, _weights: &[f32]) -> Packed {
    todo!()
}

impl Matrix {
    /// Packs row-major `weights` [rows, cols] and owns the result.
    pub fn pack(_scheme: Scheme, _rows: usize, _cols: usize, _weights: &[f32]) -> Self {
        todo!()
    }

    /// The scheme of its data.
    pub fn scheme(&self) -> Scheme {
        match self.data {
            MatrixData::F32(_) => Scheme::F32,
            MatrixData::F16(_) => Scheme::F16,
            MatrixData::Q8 { .. } => Scheme::Q8,
            MatrixData::Q4 { .. } => Scheme::Q4,
        }
    }

    /// Writes row `row` as f32 [cols] (embedding look-up, tests).
    pub fn row(&self, _row: usize, _out: &mut [f32]) {
        todo!()
    }
}
