//! y = W x for the four weight schemes: one tile kernel each, written once over [`Lanes`].
//!
//! For every (row, token) the sum runs over columns (f32, f16) or groups (q8, q4) from the first to the last into one f32. So neither the tile
//! that a token falls into, nor the batch, nor the number of threads changes a bit of the result.

use std::ops::Range;

use half::f16;

use super::Cpu;
use super::activations::{GroupActivations, Tiles, interleave_tile, quantize_tile};
use super::lanes::{Kernel, LANES, Lanes};
use super::parts::Parts;
use crate::device::Store;
use crate::device::matrix::{GROUP, Matrix, MatrixData, Q4_GROUP_BYTES, Q8_GROUP_BYTES, ROW_BLOCK, view};

/// Multiplications below which a product stays on the calling thread: handing work over costs about as much as this many.
const SERIAL_BELOW: usize = 1 << 17;

/// Activations below which they are prepared on the calling thread, for the same reason.
const SERIAL_PREPARE_BELOW: usize = 1 << 13;

/// Weights as the kernels see them; B blocks of 16 rows.
#[derive(Clone, Copy)]
enum Weights<'a> {
    /// [B, cols]
    F32(&'a [[f32; LANES]]),
    /// [B, cols]
    F16(&'a [[f16; LANES]]),
    /// Both [B, G]
    Q8 { q: &'a [[u8; Q8_GROUP_BYTES]], scale: &'a [[f16; LANES]] },
    /// All [B, G]
    Q4 { q: &'a [[u8; Q4_GROUP_BYTES]], scale: &'a [[f16; LANES]], min: &'a [[f16; LANES]] },
}

impl<'a> Weights<'a> {
    fn new(matrix: &'a Matrix) -> Self {
        match &matrix.data {
            MatrixData::F32(w) => Self::F32(view::<f32>(w).as_chunks().0),
            MatrixData::F16(w) => Self::F16(view::<f16>(w).as_chunks().0),
            MatrixData::Q8 { q, scale } => Self::Q8 { q: q.as_slice().as_chunks().0, scale: view::<f16>(scale).as_chunks().0 },
            MatrixData::Q4 { q, scale, min } => {
                Self::Q4 { q: q.as_slice().as_chunks().0, scale: view::<f16>(scale).as_chunks().0, min: view::<f16>(min).as_chunks().0 }
            }
        }
    }
}

/// Buffers of a product, kept between calls.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    groups: Vec<GroupActivations>,
    floats: Vec<f32>,
}

/// Activations of all n tokens in tiles.
#[derive(Clone, Copy)]
enum Activations<'a> {
    /// [tile][cols][size]
    Floats(&'a [f32]),
    /// [tile][G][size]
    Groups(&'a [GroupActivations]),
}

/// y [n, rows], written by several threads, each its own row blocks.
struct Output<'a> {
    y: Parts<'a, f32>,
    n: usize,
    rows: usize,
    store: Store,
}

impl Output<'_> {
    /// Stores the sums of one token and one block of rows.
    ///
    /// # Safety
    /// No other thread may put into the same block at the same time.
    #[inline(always)]
    unsafe fn put<L: Lanes>(&self, l: L, token: usize, block: usize, sums: L::F) {
        let row = block * ROW_BLOCK;
        let len = (self.rows - row).min(LANES);
        let start = token * self.rows + row;
        // SAFETY: the range holds rows of this block alone, and the caller owns the block.
        let y = unsafe { self.y.part(start..start + len) };
        if let Ok(y) = <&mut [f32; LANES]>::try_from(&mut *y) {
            let sums = if self.store == Store::Add { l.add(l.load(y), sums) } else { sums };
            l.store(sums, y);
        } else {
            let mut padded = [0.0; LANES];
            l.store(sums, &mut padded);
            for (y, sum) in y.iter_mut().zip(padded) {
                *y = if self.store == Store::Add { *y + sum } else { sum };
            }
        }
    }
}

/// The rows of some blocks, all tokens.
struct Product<'a> {
    weights: Weights<'a>,
    cols: usize,
    blocks: Range<usize>,
    x: Activations<'a>,
    y: &'a Output<'a>,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let groups = self.cols.div_ceil(GROUP);
        match (self.weights, self.x) {
            (Weights::F32(w), Activations::Floats(x)) => floats(l, w, self.cols, self.blocks, x, self.y),
            (Weights::F16(w), Activations::Floats(x)) => floats(l, w, self.cols, self.blocks, x, self.y),
            (Weights::Q8 { q, scale }, Activations::Groups(x)) => {
                for block in self.blocks.clone() {
                    let at = block * groups..(block + 1) * groups;
                    let mut ahead =
                        Ahead::new(q, at.end..at.end + groups, self.blocks.end * groups, self.y.n.div_ceil(L::TOKENS_QUANTISED));
                    let ahead = &mut ahead;
                    let (q, scale) = (&q[at.clone()], &scale[at]);
                    for (first, size) in Tiles::new(self.y.n, L::TOKENS_QUANTISED) {
                        let x = &x[first * groups..][..groups * size];
                        match size {
                            1 => q8_tile::<L, 1>(l, q, scale, x, first, block, self.y, ahead),
                            2 => q8_tile::<L, 2>(l, q, scale, x, first, block, self.y, ahead),
                            3 => q8_tile::<L, 3>(l, q, scale, x, first, block, self.y, ahead),
                            4 => q8_tile::<L, 4>(l, q, scale, x, first, block, self.y, ahead),
                            6 => q8_tile::<L, 6>(l, q, scale, x, first, block, self.y, ahead),
                            8 => q8_tile::<L, 8>(l, q, scale, x, first, block, self.y, ahead),
                            _ => q8_tile::<L, 12>(l, q, scale, x, first, block, self.y, ahead),
                        }
                    }
                }
            }
            (Weights::Q4 { q, scale, min }, Activations::Groups(x)) => {
                for block in self.blocks.clone() {
                    let at = block * groups..(block + 1) * groups;
                    let mut ahead =
                        Ahead::new(q, at.end..at.end + groups, self.blocks.end * groups, self.y.n.div_ceil(L::TOKENS_QUANTISED));
                    let ahead = &mut ahead;
                    let (q, scale, min) = (&q[at.clone()], &scale[at.clone()], &min[at]);
                    for (first, size) in Tiles::new(self.y.n, L::TOKENS_QUANTISED) {
                        let x = &x[first * groups..][..groups * size];
                        match size {
                            1 => q4_tile::<L, 1>(l, q, scale, min, x, first, block, self.y, ahead),
                            2 => q4_tile::<L, 2>(l, q, scale, min, x, first, block, self.y, ahead),
                            3 => q4_tile::<L, 3>(l, q, scale, min, x, first, block, self.y, ahead),
                            4 => q4_tile::<L, 4>(l, q, scale, min, x, first, block, self.y, ahead),
                            6 => q4_tile::<L, 6>(l, q, scale, min, x, first, block, self.y, ahead),
                            8 => q4_tile::<L, 8>(l, q, scale, min, x, first, block, self.y, ahead),
                            _ => q4_tile::<L, 12>(l, q, scale, min, x, first, block, self.y, ahead),
                        }
                    }
                }
            }
            (_, _) => unreachable!("activations are prepared for the weights that they meet"),
        }
    }
}

/// The weights of the next row blocks, asked for while the present ones are worked on: memory and arithmetic then take the longer of their two
/// times instead of their sum. The products of one pass of SmolLM2-135M, q8, 40 tokens, on one and two cores of a Sapphire Rapids: 31.1 and
/// 20.7 ms without, 21.3 and 15.2 ms with.
struct Ahead<'a> {
    lines: std::slice::Chunks<'a, [u8; 64]>,
}

impl<'a> Ahead<'a> {
    /// The elements `next` of `weights`, as far as they lie below `end`, to be asked for in `passes` passes over as many elements.
    #[inline(always)]
    fn new<W: bytemuck::NoUninit>(weights: &'a [W], next: Range<usize>, end: usize, passes: usize) -> Self {
        let next = next.start.min(end)..next.end.min(end);
        let lines = bytemuck::cast_slice::<W, u8>(&weights[next]).as_chunks().0;
        Self { lines: lines.chunks((size_of::<W>() / 64).div_ceil(passes).max(1)) }
    }

    /// Asks for the next few lines.
    #[inline(always)]
    fn step<L: Lanes>(&mut self, l: L) {
        for line in self.lines.next().unwrap_or_default() {
            l.prefetch(line);
        }
    }
}

/// sum = fma(Σ(q − 128) x, weight scale · activation scale, sum), group by group.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "operands of one tile")]
fn q8_tile<L: Lanes, const T: usize>(
    l: L,
    q: &[[u8; Q8_GROUP_BYTES]],
    scale: &[[f16; LANES]],
    x: &[GroupActivations],
    first: usize,
    block: usize,
    y: &Output<'_>,
    ahead: &mut Ahead,
) {
    if T > L::TOKENS_QUANTISED {
        return; // never taken; keeps the tile from being compiled for this instruction set
    }
    let mut sums = [l.splat(0.0); T];
    for ((q, scale), x) in q.iter().zip(scale).zip(x.as_chunks::<T>().0) {
        ahead.step(l);
        let dots = l.dot_q8(q, x);
        let scale = l.load_f16(scale);
        for t in 0..T {
            sums[t] = l.fma(dots[t], l.mul(scale, l.splat(x[t].scale)), sums[t]);
        }
    }
    for (t, sum) in sums.into_iter().enumerate() {
        // SAFETY: this thread owns the block.
        unsafe { y.put(l, first + t, block, sum) };
    }
}

/// sum = fma(min, scale_x Σx, fma(Σ q x, weight scale · activation scale, sum)), group by group.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "operands of one tile")]
fn q4_tile<L: Lanes, const T: usize>(
    l: L,
    q: &[[u8; Q4_GROUP_BYTES]],
    scale: &[[f16; LANES]],
    min: &[[f16; LANES]],
    x: &[GroupActivations],
    first: usize,
    block: usize,
    y: &Output<'_>,
    ahead: &mut Ahead,
) {
    if T > L::TOKENS_QUANTISED {
        return; // never taken; keeps the tile from being compiled for this instruction set
    }
    let mut sums = [l.splat(0.0); T];
    for (((q, scale), min), x) in q.iter().zip(scale).zip(min).zip(x.as_chunks::<T>().0) {
        ahead.step(l);
        let dots = l.dot_q4(q, x);
        let (scale, min) = (l.load_f16(scale), l.load_f16(min));
        for t in 0..T {
            sums[t] = l.fma(dots[t], l.mul(scale, l.splat(x[t].scale)), sums[t]);
            sums[t] = l.fma(min, l.splat(x[t].sum), sums[t]);
        }
    }
    for (t, sum) in sums.into_iter().enumerate() {
        // SAFETY: this thread owns the block.
        unsafe { y.put(l, first + t, block, sum) };
    }
}

/// An element type of float weights.
trait FloatWeight: bytemuck::Pod {
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F;
}

impl FloatWeight for f32 {
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        l.load(from)
    }
}

impl FloatWeight for f16 {
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F {
        l.load_f16(from)
    }
}

/// Row blocks of a tile of one token: enough independent sums to hide the latency of the multiply-add.
const BLOCKS_ONE_TOKEN: usize = 4;

/// Columns between two steps of [`Ahead`].
const COLUMNS_A_STEP: usize = 8;

/// All tiles of float weights w [B, cols].
#[inline(always)]
fn floats<L: Lanes, W: FloatWeight>(l: L, w: &[[W; LANES]], cols: usize, blocks: Range<usize>, x: &[f32], y: &Output<'_>) {
    let together = if y.n == 1 { BLOCKS_ONE_TOKEN } else { L::BLOCKS_FLOAT };
    let mut block = blocks.start;
    while block < blocks.end {
        let count = if blocks.end - block >= together { together } else { 1 };
        let (chunks, _) = w.as_chunks::<COLUMNS_A_STEP>();
        let at = |block: usize| block * cols / COLUMNS_A_STEP;
        let mut ahead = Ahead::new(chunks, at(block + count)..at(block + 2 * count), at(blocks.end), y.n.div_ceil(L::TOKENS_FLOAT));
        let ahead = &mut ahead;
        for (first, size) in Tiles::new(y.n, L::TOKENS_FLOAT) {
            let x = &x[first * cols..][..cols * size];
            let w = &w[block * cols..][..count * cols];
            match (count, size) {
                (4, 1) => float_tile::<L, W, 4, 1>(l, w, cols, x, first, block, y, ahead),
                (1, 1) => float_tile::<L, W, 1, 1>(l, w, cols, x, first, block, y, ahead),
                (1, 2) => float_tile::<L, W, 1, 2>(l, w, cols, x, first, block, y, ahead),
                (1, 3) => float_tile::<L, W, 1, 3>(l, w, cols, x, first, block, y, ahead),
                (1, 4) => float_tile::<L, W, 1, 4>(l, w, cols, x, first, block, y, ahead),
                (1, 6) => float_tile::<L, W, 1, 6>(l, w, cols, x, first, block, y, ahead),
                (1, 8) => float_tile::<L, W, 1, 8>(l, w, cols, x, first, block, y, ahead),
                (1, _) => float_tile::<L, W, 1, 12>(l, w, cols, x, first, block, y, ahead),
                (_, 1) => float_tile::<L, W, 2, 1>(l, w, cols, x, first, block, y, ahead),
                (_, 2) => float_tile::<L, W, 2, 2>(l, w, cols, x, first, block, y, ahead),
                (_, 3) => float_tile::<L, W, 2, 3>(l, w, cols, x, first, block, y, ahead),
                (_, 4) => float_tile::<L, W, 2, 4>(l, w, cols, x, first, block, y, ahead),
                (_, 6) => float_tile::<L, W, 2, 6>(l, w, cols, x, first, block, y, ahead),
                (_, 8) => float_tile::<L, W, 2, 8>(l, w, cols, x, first, block, y, ahead),
                (_, _) => float_tile::<L, W, 2, 12>(l, w, cols, x, first, block, y, ahead),
            }
        }
        block += count;
    }
}

/// sum += w[k] x[k], column by column, for R neighbouring row blocks and T tokens.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "operands of one tile")]
fn float_tile<L: Lanes, W: FloatWeight, const R: usize, const T: usize>(
    l: L,
    w: &[[W; LANES]],
    cols: usize,
    x: &[f32],
    first: usize,
    block: usize,
    y: &Output<'_>,
    ahead: &mut Ahead,
) {
    if T > L::TOKENS_FLOAT || (R > L::BLOCKS_FLOAT && T > 1) {
        return; // never taken; keeps the tile from being compiled for this instruction set
    }
    let w: [&[[W; LANES]]; R] = std::array::from_fn(|r| &w[r * cols..][..cols]);
    let mut sums = [[l.splat(0.0); T]; R];
    for (step, x) in x.as_chunks::<T>().0.chunks(COLUMNS_A_STEP).enumerate() {
        for _ in 0..R {
            ahead.step(l);
        }
        for (k, x) in x.iter().enumerate() {
            for r in 0..R {
                let weight = W::load(l, &w[r][step * COLUMNS_A_STEP + k]);
                for t in 0..T {
                    sums[r][t] = l.mul_add(weight, l.splat(x[t]), sums[r][t]);
                }
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (t, sum) in sums.into_iter().enumerate() {
            // SAFETY: this thread owns the block.
            unsafe { y.put(l, first + t, block + r, sum) };
        }
    }
}

/// Where [`Prepare`] writes the activations of all tiles.
enum Tiled<'a> {
    /// [tile][cols][size]
    Floats(Parts<'a, f32>),
    /// [tile][G][size]
    Groups(Parts<'a, GroupActivations>),
}

/// Rounds or interleaves the activations of one tile.
struct Prepare<'a> {
    /// [n, cols]
    x: &'a [f32],
    cols: usize,
    /// First token and number of tokens.
    tile: (usize, usize),
    out: &'a Tiled<'a>,
}

impl Kernel for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let (first, size) = self.tile;
        let (tile, groups) = (first..first + size, self.cols.div_ceil(GROUP));
        let x = &self.x[tile.start * self.cols..tile.end * self.cols];
        match self.out {
            // SAFETY: tiles do not overlap, and each is prepared once.
            Tiled::Floats(out) => interleave_tile(x, size, self.cols, unsafe { out.part(tile.start * self.cols..tile.end * self.cols) }),
            // SAFETY: as above.
            Tiled::Groups(out) => quantize_tile(x, size, self.cols, unsafe { out.part(tile.start * groups..tile.end * groups) }),
        }
    }
}

/// Most tokens of a tile of the quantised and of the float kernels.
struct TileSizes;

impl Kernel for TileSizes {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> (usize, usize) {
        (L::TOKENS_QUANTISED, L::TOKENS_FLOAT)
    }
}

impl Cpu {
    /// See [`Device::linear`](crate::device::Device::linear).
    pub fn linear(&self, w: &Matrix, x: &[f32], n: usize, y: &mut [f32], store: Store) {
        self.linear_blocks(w, x, n, y, store, 0..w.rows.div_ceil(ROW_BLOCK));
    }

    /// Some row blocks of [`linear`](Self::linear) alone; the other rows of y stay as they are.
    pub fn linear_blocks(&self, w: &Matrix, x: &[f32], n: usize, y: &mut [f32], store: Store, wanted: Range<usize>) {
        if n == 0 || wanted.is_empty() {
            return;
        }
        let x = &x[..n * w.cols];
        let y = &mut y[..n * w.rows];
        let weights = Weights::new(w);
        let quantised = matches!(weights, Weights::Q8 { .. } | Weights::Q4 { .. });
        let mut scratch = self.scratch();
        let (tile_quantised, tile_float) = self.run(TileSizes);
        let activations = if n == 1 && !quantised {
            Activations::Floats(x) // one token is its own interleaving
        } else {
            let Scratch { groups, floats } = &mut scratch.linear;
            let (tiles, out) = if quantised {
                groups.resize(n * w.cols.div_ceil(GROUP), GroupActivations::default());
                (Tiles::new(n, tile_quantised), Tiled::Groups(Parts::new(groups)))
            } else {
                floats.resize(n * w.cols, 0.0);
                (Tiles::new(n, tile_float), Tiled::Floats(Parts::new(floats)))
            };
            let prepare = |tile| self.run(Prepare { x, cols: w.cols, tile, out: &out });
            if n * w.cols < SERIAL_PREPARE_BELOW {
                tiles.for_each(prepare);
            } else {
                self.split(tiles.clone().count(), |i| tiles.clone().nth(i).into_iter().for_each(prepare));
            }
            if quantised { Activations::Groups(groups) } else { Activations::Floats(floats) }
        };
        let output = Output { y: Parts::new(y), n, rows: w.rows, store };
        let count = wanted.len();
        let parts = if n * count * ROW_BLOCK * w.cols < SERIAL_BELOW { 1 } else { self.threads().min(count) };
        self.split(parts, |part| {
            let blocks = wanted.start + count * part / parts..wanted.start + count * (part + 1) / parts;
            self.run(Product { weights, cols: w.cols, blocks, x: activations, y: &output });
        });
        self.put_back(scratch);
    }
}
