//! Matrix products: which kernel does one, by the number of rows and the scheme of the weights.
//!
//! | rows of activations | kernel | reads |
//! |---|---|---|
//! | 1 to [`FEW_ROWS`] | `gemv_*` | weights once, as they lie; activations as halves, or 8-bit groups for q8 and q4 |
//! | to [`SKINNY_ROWS`] | `skinny_*` | tensor cores, weights once |
//! | more | `small_*`, `gemm_*`, `wide_*` by size, or cuBLASLt where it is faster | tensor cores |

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::launch::{Arg, Shape};
use super::lt::{Key, WORKSPACE};
use super::memory::{memory_of, operand_of};
use super::place::{MatrixForm, padded};
use super::{Cuda, Memory, Scratch};
use crate::device::{Buffer, GROUP, Matrix as HostMatrix, Operand, ROW_BLOCK, Scheme, Store};
use crate::error::{Error, Result};

/// Most rows of the memory-bound kernels. Operands of so few rows are kept as 8-bit groups too.
pub const FEW_ROWS: usize = 8;
/// Most rows of the kernels that read weights once for all rows, and of passes that are recorded.
pub const SKINNY_ROWS: usize = 32;

/// Who multiplies many rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GemmChoice {
    /// The faster one, measured once a shape.
    #[default]
    Auto,
    /// The kernel of this library.
    Kernel,
    /// cuBLASLt; the kernel where it is not installed.
    Lt,
}

/// The faster one of shapes that were measured: scheme, rows, columns, activation rows rounded up to a power of two.
pub(super) type GemmTimes = HashMap<(Scheme, usize, usize, usize), GemmChoice>;

/// Tiles of `kernels/gemm.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tile {
    Skinny,
    Small,
    Large,
    Wide,
}

/// What a tile is, as the head of `gemm.cu` says.
struct TileShape {
    /// Rows of activations, features.
    rows: usize,
    features: usize,
    threads: u32,
    /// Dynamic shared memory in bytes.
    shared: usize,
    /// Blocks that a processor runs at one time.
    resident: usize,
    /// Share of the tensor cores' rate that it is believed to reach. Estimates by its traffic: to be measured.
    rate: f64,
}

impl Tile {
    fn shape(self) -> TileShape {
        match self {
            Self::Skinny => TileShape { rows: 32, features: 32, threads: 256, shared: 0, resident: 4, rate: 0.3 },
            Self::Small => TileShape { rows: 64, features: 64, threads: 128, shared: 48 << 10, resident: 2, rate: 0.6 },
            Self::Large => TileShape { rows: 128, features: 128, threads: 128, shared: 48 << 10, resident: 2, rate: 0.85 },
            Self::Wide => TileShape { rows: 256, features: 128, threads: 256, shared: 96 << 10, resident: 1, rate: 1.0 },
        }
    }

    fn blocks(self, n: usize, rows: usize) -> usize {
        let shape = self.shape();
        n.div_ceil(shape.rows) * rows.div_ceil(shape.features)
    }

    /// For few rows the one that reads weights once. Otherwise the one that is done first, if blocks run in waves and a wave takes as long as its tiles
    /// have outputs, the missing ones included.
    fn for_shape(n: usize, rows: usize, processors: usize, shared_memory: usize) -> Self {
        if n <= SKINNY_ROWS {
            return Self::Skinny;
        }
        let time = |tile: &Self| {
            let TileShape { rows: down, features: across, resident, rate, .. } = tile.shape();
            let waves = tile.blocks(n, rows).div_ceil(processors * resident);
            (waves * resident * down * across) as f64 / rate
        };
        let fitting = [Self::Wide, Self::Large, Self::Small].into_iter().filter(|tile| tile.shape().shared <= shared_memory);
        fitting.min_by(|a, b| time(a).total_cmp(&time(b))).unwrap_or(Self::Small)
    }
}

/// What a product does with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Store,
    Add,
    SwiGlu,
}

impl From<Store> for End {
    fn from(store: Store) -> Self {
        match store {
            Store::Overwrite => Self::Store,
            Store::Add => Self::Add,
        }
    }
}

/// A kernel's name: family, scheme, end.
macro_rules! named {
    ($family:literal, $form:expr, $end:expr $(, $few:literal)?) => {
        match ($form, $end) {
            (MatrixForm::Half(_), End::Store) => concat!($family, "_f16", $($few,)? "_store"),
            (MatrixForm::Half(_), End::Add) => concat!($family, "_f16", $($few,)? "_add"),
            (MatrixForm::Half(_), End::SwiGlu) => concat!($family, "_f16", $($few,)? "_swiglu"),
            (MatrixForm::Q8 { .. }, End::Store) => concat!($family, "_q8", $($few,)? "_store"),
            (MatrixForm::Q8 { .. }, End::Add) => concat!($family, "_q8", $($few,)? "_add"),
            (MatrixForm::Q8 { .. }, End::SwiGlu) => concat!($family, "_q8", $($few,)? "_swiglu"),
            (MatrixForm::Q4 { .. }, End::Store) => concat!($family, "_q4", $($few,)? "_store"),
            (MatrixForm::Q4 { .. }, End::Add) => concat!($family, "_q4", $($few,)? "_add"),
            (MatrixForm::Q4 { .. }, End::SwiGlu) => concat!($family, "_q4", $($few,)? "_swiglu"),
            (MatrixForm::Float(_), _) => return Err(not_placed()),
        }
    };
}

/// The matrix was not placed on this device: a bug of the program.
fn not_placed() -> Error {
    Error::argument("matrix", "one that was placed on the device that runs the op", "another")
}

/// Where the weights of a matrix lie.
pub(super) fn form_of(matrix: &HostMatrix) -> Result<&MatrixForm> {
    matrix.cuda.as_ref().map(|placed| &placed.form).ok_or_else(not_placed)
}

impl MatrixForm {
    /// Addresses of its tensors, in the order of the kernels' parameters.
    pub(super) fn args(&self) -> Vec<Arg> {
        match self {
            Self::Half(w) | Self::Float(w) => vec![w.into()],
            Self::Q8 { q, scale } => vec![q.into(), scale.into()],
            Self::Q4 { q, scale, min } => vec![q.into(), scale.into(), min.into()],
        }
    }
}

impl GemmChoice {
    /// What `LLMAR_GEMM` asks for: `kernel`, `cublaslt`, or by default the faster one.
    pub(super) fn asked() -> Self {
        match std::env::var("LLMAR_GEMM").as_deref() {
            Ok("kernel") => Self::Kernel,
            Ok("cublaslt") => Self::Lt,
            _ => Self::Auto,
        }
    }
}

impl Cuda {
    /// See [`Device::linear`](crate::device::Device::linear).
    pub(in crate::device) fn linear(&self, w: &HostMatrix, x: &Operand, n: usize, y: &mut Buffer, store: Store) -> Result<()> {
        let (form, x, y) = (form_of(w)?, operand_of(x)?, memory_of(y)?);
        if n <= FEW_ROWS {
            return self.gemv(w, form, x, n, Arg::from(y), store.into());
        }
        if n > SKINNY_ROWS && self.lt_is_faster(w, form, x, n)? {
            match self.lt_product(&mut self.scratch(), w, form, x, n, y, store) {
                Err(Error::Budget { .. } | Error::OutOfMemory { .. }) => {} // the kernel needs no memory of its own
                done => return done,
            }
        }
        self.gemm(w, form, x, n, Arg::from(y), store.into())
    }

    /// See [`Device::linear_swiglu`](crate::device::Device::linear_swiglu).
    pub(in crate::device) fn linear_swiglu(
        &self,
        w: &HostMatrix,
        x: &Operand,
        n: usize,
        scratch: &mut Buffer,
        y: &mut Operand,
    ) -> Result<()> {
        let f = w.rows / 2;
        let (form, x_on, y) = (form_of(w)?, operand_of(x)?, operand_of(y)?);
        // The fused kernels own 32 neighbouring outputs a block.
        let fused = f.is_multiple_of(GROUP);
        if fused && n <= FEW_ROWS {
            return self.gemv(w, form, x_on, n, y.arg(n), End::SwiGlu);
        }
        if fused && (n <= SKINNY_ROWS || !self.lt_is_faster(w, form, x_on, n)?) {
            return self.gemm(w, form, x_on, n, y.arg(n), End::SwiGlu);
        }
        self.linear(w, x, n, scratch, Store::Overwrite)?;
        let shape = Shape { grid: (f.div_ceil(4 * GROUP) as u32, n as u32, 1), block: 128, shared: 0 };
        self.launch("swiglu", shape, &[memory_of(scratch)?.into(), y.arg(n), f.into()])
    }

    /// Up to [`FEW_ROWS`] rows, by the kernel for 1, 2, 4 or 8.
    fn gemv(&self, w: &HostMatrix, form: &MatrixForm, x: &super::Operand, n: usize, y: Arg, end: End) -> Result<()> {
        let name = match n {
            0 => return Ok(()),
            1 => named!("gemv", form, end, "_n1"),
            2 => named!("gemv", form, end, "_n2"),
            3 | 4 => named!("gemv", form, end, "_n4"),
            _ => named!("gemv", form, end, "_n8"),
        };
        let (rows, columns) = (if end == End::SwiGlu { w.rows / 2 } else { w.rows }, padded(w.cols));
        let quantised = !matches!(form, MatrixForm::Half(_));
        let mut args = form.args();
        if quantised {
            args.extend_from_slice(&[(&x.quants).into(), (&x.scales).into(), y, rows.into(), (columns / GROUP).into(), n.into()]);
        } else {
            args.extend_from_slice(&[(&x.half).into(), y, rows.into(), columns.into(), n.into()]);
        }
        // Rows of a block: see the head of gemv.cu.
        let rows_a_block = if end == End::SwiGlu || quantised && n > 4 { 32 } else { 16 };
        self.launch(name, Shape::new(rows.div_ceil(rows_a_block), 256), &args)
    }

    /// More rows, by the tensor cores.
    fn gemm(&self, w: &HostMatrix, form: &MatrixForm, x: &super::Operand, n: usize, y: Arg, end: End) -> Result<()> {
        let tile = Tile::for_shape(n, w.rows, self.gpu.multiprocessors() as usize, self.gpu.shared_memory() as usize);
        self.gemm_by(tile, w, form, x, n, y, end)
    }

    /// A product by a given tile.
    #[expect(clippy::too_many_arguments, reason = "operands of a product and who does it")]
    fn gemm_by(&self, tile: Tile, w: &HostMatrix, form: &MatrixForm, x: &super::Operand, n: usize, y: Arg, end: End) -> Result<()> {
        let name = match tile {
            Tile::Skinny => named!("skinny", form, end),
            Tile::Small => named!("small", form, end),
            Tile::Large => named!("gemm", form, end),
            Tile::Wide => named!("wide", form, end),
        };
        let shape = tile.shape();
        let mut args = form.args();
        let rows = if end == End::SwiGlu { w.rows / 2 } else { w.rows };
        args.extend_from_slice(&[(&x.half).into(), y, rows.into(), padded(w.cols).into(), n.into()]);
        self.launch(name, Shape { shared: shape.shared, ..Shape::new(tile.blocks(n, w.rows), shape.threads) }, &args)
    }

    /// Whether cuBLASLt does this shape faster than the kernel; measured at the first time.
    fn lt_is_faster(&self, w: &HostMatrix, form: &MatrixForm, x: &super::Operand, n: usize) -> Result<bool> {
        let lock = || self.gpu.gemm_times.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match (self.gpu.gemm, &self.gpu.lt) {
            (GemmChoice::Kernel, _) | (_, None) => return Ok(false),
            (GemmChoice::Lt, Some(_)) => return Ok(true),
            (GemmChoice::Auto, Some(_)) => {}
        }
        let key = (w.scheme(), w.rows, w.cols, n.next_power_of_two());
        if let Some(&known) = lock().get(&key) {
            return Ok(known == GemmChoice::Lt);
        }
        let faster = match self.race(w, form, x, n) {
            Ok(faster) => faster,
            // A shape that it does not do, or has too little memory for, is the kernel's.
            Err(Error::Unsupported { .. } | Error::Budget { .. } | Error::OutOfMemory { .. }) => GemmChoice::Kernel,
            Err(e) => return Err(e),
        };
        lock().insert(key, faster);
        Ok(faster == GemmChoice::Lt)
    }

    /// Both ways to do a product, timed, into memory of their own: a product that adds must not run twice into the caller's.
    fn race(&self, w: &HostMatrix, form: &MatrixForm, x: &super::Operand, n: usize) -> Result<GemmChoice> {
        let mut trial = self.memory();
        trial.reserve("a trial product", 4 * n * w.rows)?;
        let mut scratch = self.scratch();
        let lt = self.stopwatch(|| self.lt_product(&mut scratch, w, form, x, n, &trial, Store::Overwrite))?;
        let kernel = self.stopwatch(|| self.gemm(w, form, x, n, Arg::from(&trial), End::Store))?;
        Ok(if lt < kernel { GemmChoice::Lt } else { GemmChoice::Kernel })
    }

    /// Time of the second of two runs.
    fn stopwatch(&self, mut work: impl FnMut() -> Result<()>) -> Result<Duration> {
        work()?;
        self.synchronize()?;
        let start = Instant::now();
        work()?;
        self.synchronize()?;
        Ok(start.elapsed())
    }

    /// A product by cuBLASLt. Quantised weights are unpacked to halves first.
    #[expect(clippy::too_many_arguments, reason = "operands of a product and its scratch")]
    fn lt_product(
        &self,
        scratch: &mut Scratch,
        w: &HostMatrix,
        form: &MatrixForm,
        x: &super::Operand,
        n: usize,
        y: &Memory,
        store: Store,
    ) -> Result<()> {
        let Some(lt) = &self.gpu.lt else { return Err(not_placed()) };
        let ld = padded(w.cols);
        let unpacked = match form {
            MatrixForm::Half(weights) => weights.pointer(),
            MatrixForm::Q8 { .. } | MatrixForm::Q4 { .. } => {
                let kernel = if matches!(form, MatrixForm::Q8 { .. }) { "unpack_q8" } else { "unpack_q4" };
                scratch.unpacked.reserve("unpacked weights", 2 * ld * w.rows.next_multiple_of(ROW_BLOCK))?;
                self.unpack_rows(kernel, &form.args(), w.cols, 0, w.rows, &scratch.unpacked)?;
                scratch.unpacked.pointer()
            }
            MatrixForm::Float(_) => return Err(not_placed()),
        };
        scratch.workspace.reserve("cuBLASLt's workspace", WORKSPACE)?;
        let key = Key { rows: w.rows, ld, n, add: store == Store::Add };
        self.gpu.check("a product of cuBLASLt", self.gpu.context().bind_to_thread())?;
        // SAFETY: the weights are [rows, ld], the activations [n, ld], y has room for [n, rows], the workspace was reserved above.
        let done = unsafe { lt.product(&self.stream, key, unpacked, x.half.pointer(), y.pointer(), scratch.workspace.pointer()) };
        done.map_err(|e| Error::Unsupported { what: format!("a product of {key:?} by cuBLASLt"), detail: format!("{e:?}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::tests::{Random, gpu};

    #[test]
    fn tiles_suit_their_shapes() {
        let tile = |n, rows| Tile::for_shape(n, rows, 132, 227 << 10);
        assert_eq!(tile(20, 5120), Tile::Skinny);
        assert_eq!(tile(40, 5120), Tile::Small);
        assert_eq!(tile(2560, 15_360), Tile::Wide);
        assert_eq!(Tile::for_shape(2560, 15_360, 40, 64 << 10), Tile::Large, "Turing has too little shared memory for the widest");
    }

    /// Every way to multiply many rows gives what the few-row kernel gives for halves of the same weights, to rounding.
    #[test]
    fn every_tile_and_cublaslt_agree() {
        let mut random = Random(40);
        for (_, device) in gpu::devices() {
            let Device::Cuda(cuda) = &device else { unreachable!("a GPU") };
            for (n, rows, cols) in [(33, 70, 96), (130, 300, 64), (300, 200, 160)] {
                let weights = random.vec(rows * cols);
                let mut x = device.operand();
                device.write_operand("test", &mut x, &random.vec(n * cols), n, cols).unwrap();
                let x = operand_of(&x).unwrap();
                for scheme in [Scheme::F16, Scheme::Q8, Scheme::Q4] {
                    let host = HostMatrix::pack(scheme, rows, cols, &weights);
                    let w = device.place_matrix(&host).unwrap();
                    let form = form_of(&w).unwrap();
                    let mut results: Vec<Vec<f32>> = Vec::new();
                    for store in [Store::Overwrite, Store::Add] {
                        for by in [Some(Tile::Small), Some(Tile::Large), Some(Tile::Wide), None] {
                            let mut y = device.buffer();
                            device.write("test", &mut y, &vec![0.0; n * rows]).unwrap();
                            let memory = memory_of(&y).unwrap();
                            match by {
                                Some(tile) => cuda.gemm_by(tile, &w, form, x, n, memory.into(), store.into()).unwrap(),
                                None if cuda.gpu.lt.is_some() => {
                                    cuda.lt_product(&mut cuda.scratch(), &w, form, x, n, memory, store).unwrap()
                                }
                                None => continue,
                            }
                            let mut values = vec![f32::NAN; n * rows];
                            device.read(&y, &mut values).unwrap();
                            results.push(values);
                        }
                    }
                    for other in &results[1..] {
                        let worst = other.iter().zip(&results[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        assert!(worst <= 3e-6 * cols as f32 * 4.0, "{scheme:?} {rows}×{cols}, n = {n}: {worst}");
                    }
                }
            }
        }
    }
}
