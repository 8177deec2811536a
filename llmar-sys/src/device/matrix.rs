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

use super::quantize::{quantize_q4, quantize_q8, to_f16};
use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// Rows interleaved in one block.
pub const ROW_BLOCK: usize = 16;
/// Columns that share one scale in the quantised schemes.
pub const GROUP: usize = 32;
/// Bytes of the quants of one row block and one group of columns.
pub(super) const Q8_GROUP_BYTES: usize = GROUP * ROW_BLOCK;
/// The same for q4, two quants a byte.
pub(super) const Q4_GROUP_BYTES: usize = GROUP * ROW_BLOCK / 2;
/// What is added to a q8 quant so that it is stored without a sign.
pub(super) const Q8_OFFSET: u8 = 128;

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

/// Element type of a tensor that belongs to a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// IEEE single, 4 bytes.
    F32,
    /// IEEE half, 2 bytes.
    F16,
    /// Unsigned byte.
    U8,
}

impl ElementType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }
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
    /// Their copy on a GPU.
    #[cfg(feature = "cuda")]
    pub(super) cuda: Option<std::sync::Arc<super::cuda::Matrix>>,
}

/// Views of the tensors of one matrix. Lengths are checked by [`Matrix::from_tensors`]; [`Matrix::pack`] makes them right.
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

/// The tensors that hold a matrix [rows, cols]: suffix of the name, element type, shape. In the order of [`Matrix::from_tensors`].
pub fn packed_shapes(scheme: Scheme, rows: usize, cols: usize) -> Vec<(&'static str, ElementType, Vec<usize>)> {
    let blocks = rows.div_ceil(ROW_BLOCK);
    let groups = cols.div_ceil(GROUP);
    let scales = vec![blocks, groups, ROW_BLOCK];
    match scheme {
        Scheme::F32 => vec![("", ElementType::F32, vec![blocks, cols, ROW_BLOCK])],
        Scheme::F16 => vec![("", ElementType::F16, vec![blocks, cols, ROW_BLOCK])],
        Scheme::Q8 => vec![(".q", ElementType::U8, vec![blocks, groups, 8, ROW_BLOCK, 4]), (".scale", ElementType::F16, scales)],
        Scheme::Q4 => vec![
            (".q", ElementType::U8, vec![blocks, groups, 4, ROW_BLOCK, 4]),
            (".scale", ElementType::F16, scales.clone()),
            (".min", ElementType::F16, scales),
        ],
    }
}

/// Packs row-major `weights` [rows, cols] in `scheme`. Weights beyond the range of the scheme's f16 parts saturate.
///
/// `weights` shorter than rows · cols is read as if zeros followed.
pub fn pack(scheme: Scheme, rows: usize, cols: usize, weights: &[f32]) -> Packed {
    match scheme {
        Scheme::F32 => Packed::F32(pack_floats(rows, cols, weights, 0.0, |w| w)),
        Scheme::F16 => Packed::F16(pack_floats(rows, cols, weights, f16::ZERO, to_f16)),
        Scheme::Q8 => {
            let groups = cols.div_ceil(GROUP);
            let mut q = vec![Q8_OFFSET; rows.div_ceil(ROW_BLOCK) * groups * Q8_GROUP_BYTES];
            let mut scale = vec![f16::ZERO; rows.div_ceil(ROW_BLOCK) * groups * ROW_BLOCK];
            for_each_group(rows, cols, weights, |block, group, lane, w| {
                let at = block * groups + group;
                let (quants, s) = quantize_q8(w);
                scale[at * ROW_BLOCK + lane] = s;
                for (column, &quant) in quants.iter().enumerate() {
                    q[at * Q8_GROUP_BYTES + (column / 4) * 64 + lane * 4 + column % 4] = quant.wrapping_add_unsigned(Q8_OFFSET) as u8;
                }
            });
            Packed::Q8 { q, scale }
        }
        Scheme::Q4 => {
            let groups = cols.div_ceil(GROUP);
            let mut q = vec![0u8; rows.div_ceil(ROW_BLOCK) * groups * Q4_GROUP_BYTES];
            let mut scale = vec![f16::ZERO; rows.div_ceil(ROW_BLOCK) * groups * ROW_BLOCK];
            let mut min = scale.clone();
            for_each_group(rows, cols, weights, |block, group, lane, w| {
                let at = block * groups + group;
                let (quants, s, m) = quantize_q4(w);
                scale[at * ROW_BLOCK + lane] = s;
                min[at * ROW_BLOCK + lane] = m;
                for (column, &quant) in quants.iter().enumerate() {
                    let (j, t) = (column / 4, column % 4);
                    q[at * Q4_GROUP_BYTES + (j % 4) * 64 + lane * 4 + t] |= quant << (4 * (j / 4));
                }
            });
            Packed::Q4 { q, scale, min }
        }
    }
}

/// Interleaves the rows of each block: [B, cols, 16].
fn pack_floats<T: Copy>(rows: usize, cols: usize, weights: &[f32], zero: T, convert: impl Fn(f32) -> T) -> Vec<T> {
    let mut out = vec![zero; rows.div_ceil(ROW_BLOCK) * cols * ROW_BLOCK];
    if cols == 0 {
        return out;
    }
    for (r, row) in weights.chunks(cols).take(rows).enumerate() {
        for (k, &w) in row.iter().enumerate() {
            out[((r / ROW_BLOCK) * cols + k) * ROW_BLOCK + r % ROW_BLOCK] = convert(w);
        }
    }
    out
}

/// Calls `f(block, group, lane, weights)` for every group of every row; the last group of a row may be shorter than [`GROUP`].
fn for_each_group(rows: usize, cols: usize, weights: &[f32], mut f: impl FnMut(usize, usize, usize, &[f32])) {
    if cols == 0 {
        return;
    }
    for (r, row) in weights.chunks(cols).take(rows).enumerate() {
        for (g, w) in row.chunks(GROUP).enumerate() {
            f(r / ROW_BLOCK, g, r % ROW_BLOCK, w);
        }
    }
}

impl Packed {
    /// The matrix [rows, cols] that these tensors hold.
    pub fn into_matrix(self, rows: usize, cols: usize) -> Matrix {
        fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> Bytes {
            Bytes::copy_from(bytemuck::cast_slice(values))
        }
        let data = match self {
            Self::F32(w) => MatrixData::F32(bytes(&w)),
            Self::F16(w) => MatrixData::F16(bytes(&w)),
            Self::Q8 { q, scale } => MatrixData::Q8 { q: bytes(&q), scale: bytes(&scale) },
            Self::Q4 { q, scale, min } => MatrixData::Q4 { q: bytes(&q), scale: bytes(&scale), min: bytes(&min) },
        };
        Matrix::new(rows, cols, data)
    }
}

impl Matrix {
    pub(super) fn new(rows: usize, cols: usize, data: MatrixData) -> Self {
        Self {
            rows,
            cols,
            data,
            #[cfg(feature = "cuda")]
            cuda: None,
        }
    }

    /// Packs row-major `weights` [rows, cols] and owns the result.
    pub fn pack(scheme: Scheme, rows: usize, cols: usize, weights: &[f32]) -> Self {
        pack(scheme, rows, cols, weights).into_matrix(rows, cols)
    }

    /// A matrix over the tensors that [`packed_shapes`] lists, in its order, without a copy. `Err` when their number, a length or an
    /// alignment does not fit; the values are not looked at.
    pub fn from_tensors(scheme: Scheme, rows: usize, cols: usize, tensors: Vec<Bytes>) -> Result<Self> {
        let shapes = packed_shapes(scheme, rows, cols);
        if tensors.len() != shapes.len() {
            return Err(Error::argument("tensors of a matrix", shapes.len().to_string(), tensors.len()));
        }
        for ((suffix, element, shape), bytes) in shapes.iter().zip(&tensors) {
            let expected = shape.iter().try_fold(element.size(), |size, &d| size.checked_mul(d));
            if expected != Some(bytes.len()) {
                let got = bytes.len() / element.size();
                return Err(Error::Shape { what: format!("matrix{suffix}"), expected: shape.clone(), got: vec![got] });
            }
            match element {
                ElementType::F32 => drop(bytes.cast::<f32>()?),
                ElementType::F16 => drop(bytes.cast::<f16>()?),
                ElementType::U8 => {}
            }
        }
        let mut tensors = tensors.into_iter();
        // As many tensors as shapes: the `else` arm is never taken.
        let mut next = || tensors.next().ok_or_else(|| Error::argument("tensors of a matrix", shapes.len().to_string(), "fewer"));
        let data = match scheme {
            Scheme::F32 => MatrixData::F32(next()?),
            Scheme::F16 => MatrixData::F16(next()?),
            Scheme::Q8 => MatrixData::Q8 { q: next()?, scale: next()? },
            Scheme::Q4 => MatrixData::Q4 { q: next()?, scale: next()?, min: next()? },
        };
        Ok(Self::new(rows, cols, data))
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

    /// Bytes of its tensors.
    pub fn byte_len(&self) -> usize {
        match &self.data {
            MatrixData::F32(w) | MatrixData::F16(w) => w.len(),
            MatrixData::Q8 { q, scale } => q.len() + scale.len(),
            MatrixData::Q4 { q, scale, min } => q.len() + scale.len() + min.len(),
        }
    }

    /// Writes row `row` as f32 `[cols]` (embedding look-up, tests). A row beyond the last is written as zeros.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let out = &mut out[..self.cols];
        if row >= self.rows {
            return out.fill(0.0);
        }
        let (block, lane) = (row / ROW_BLOCK, row % ROW_BLOCK);
        let groups = self.cols.div_ceil(GROUP);
        match &self.data {
            MatrixData::F32(w) => {
                let w = &view::<f32>(w)[block * self.cols * ROW_BLOCK..];
                for (k, out) in out.iter_mut().enumerate() {
                    *out = w[k * ROW_BLOCK + lane];
                }
            }
            MatrixData::F16(w) => {
                let w = &view::<f16>(w)[block * self.cols * ROW_BLOCK..];
                for (k, out) in out.iter_mut().enumerate() {
                    *out = w[k * ROW_BLOCK + lane].to_f32();
                }
            }
            MatrixData::Q8 { q, scale } => {
                let (q, scale) = (q.as_slice(), view::<f16>(scale));
                for (g, out) in out.chunks_mut(GROUP).enumerate() {
                    let at = block * groups + g;
                    let s = scale[at * ROW_BLOCK + lane].to_f32();
                    for (column, out) in out.iter_mut().enumerate() {
                        let quant = q[at * Q8_GROUP_BYTES + (column / 4) * 64 + lane * 4 + column % 4];
                        *out = (i32::from(quant) - i32::from(Q8_OFFSET)) as f32 * s;
                    }
                }
            }
            MatrixData::Q4 { q, scale, min } => {
                let (q, scale, min) = (q.as_slice(), view::<f16>(scale), view::<f16>(min));
                for (g, out) in out.chunks_mut(GROUP).enumerate() {
                    let at = block * groups + g;
                    let s = scale[at * ROW_BLOCK + lane].to_f32();
                    let m = min[at * ROW_BLOCK + lane].to_f32();
                    for (column, out) in out.iter_mut().enumerate() {
                        let (j, t) = (column / 4, column % 4);
                        let quant = q[at * Q4_GROUP_BYTES + (j % 4) * 64 + lane * 4 + t] >> (4 * (j / 4)) & 15;
                        *out = f32::from(quant) * s + m;
                    }
                }
            }
        }
    }
}

/// The elements of a matrix's tensor.
///
/// [`Matrix::from_tensors`] and [`Matrix::pack`] have checked length and alignment. A tensor put together by hand that does not fit is a
/// bug of the program, not of its input.
pub(super) fn view<T: bytemuck::AnyBitPattern>(bytes: &Bytes) -> &[T] {
    match bytes.cast() {
        Ok(elements) => elements,
        Err(e) => unreachable!("a matrix whose tensors were not checked: {e}"),
    }
}
