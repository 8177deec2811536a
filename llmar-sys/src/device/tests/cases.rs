//! The cases: each op over shapes that are odd in some way, against `reference.rs`.
//!
//! Inputs of matrix products, keys and values are numbers that f16 holds exactly, so that one tolerance for the order of f32 sums serves the CPU, which
//! keeps them as they are, and a GPU, which keeps halves. What a GPU rounds beyond that stands in [`Backend`].

use std::ops::Range;

use half::f16;

use super::Random;
use crate::control::Control;
use crate::device::{
    AttentionShape, Buffer, Codebook, Conditioning, Conv1d, Cpu, Device, Geometry, Input, Isa, Matrix, Operand, Rotations, Rows, Scheme,
    Store, Vector, reference as naive,
};

/// A device under test.
struct Backend {
    name: String,
    device: Device,
    /// Largest relative error of rounding an operand: 0 where it is kept in f32, 2^-11 in f16.
    operand: f32,
    /// Most rows whose activations are rounded to 8 bits for a quantised matrix; more rows see halves, and weights rounded to halves.
    rounded_rows: usize,
}

/// Every instruction set of this machine, and the GPU: a real one where `LLMAR_TEST_GPU` is set, otherwise the emulator's two.
fn backends() -> Vec<Backend> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let cpu = |isa, threads| Backend {
        name: format!("{isa:?}, {threads} threads"),
        device: Device::Cpu(Cpu::with_isa(isa, threads).unwrap()),
        operand: 0.0,
        rounded_rows: usize::MAX,
    };
    let all = isas.flat_map(|isa| [cpu(isa, 1), cpu(isa, 2)]);
    #[cfg(feature = "cuda")]
    let all = all.chain(super::gpu::devices().into_iter().map(|(name, device)| Backend {
        name,
        device,
        operand: 1.0 / 2048.0,
        rounded_rows: crate::device::cuda::FEW_ROWS,
    }));
    all.collect()
}

impl Backend {
    fn buffer(&self, values: &[f32]) -> Buffer {
        let mut buffer = self.device.buffer();
        self.device.write("test", &mut buffer, values).unwrap();
        buffer
    }

    fn values(&self, buffer: &Buffer, len: usize) -> Vec<f32> {
        let mut values = vec![f32::NAN; len];
        self.device.read(buffer, &mut values).unwrap();
        values
    }

    fn operand(&self, values: &[f32], n: usize, columns: usize) -> Operand {
        let mut operand = self.device.operand();
        self.device.write_operand("test", &mut operand, values, n, columns).unwrap();
        operand
    }

    fn empty_operand(&self, n: usize, columns: usize) -> Operand {
        let mut operand = self.device.operand();
        self.device.reserve_operand("test", &mut operand, n, columns).unwrap();
        operand
    }

    fn operand_values(&self, operand: &Operand, n: usize, columns: usize) -> Vec<f32> {
        self.device.read_operand(operand, n, columns).unwrap()
    }

    /// |got − want| ≤ tolerance · scale plus the rounding of an operand, or both not finite.
    #[track_caller]
    fn assert_operand(&self, got: &[f32], want: &[f32], tolerance: f32, scale: f32, what: &str) {
        assert_eq!(got.len(), want.len());
        for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
            // Below the normal halves the absolute error is 2^-25.
            let bound = tolerance * scale + self.operand * w.abs() + if self.operand > 0.0 { 3e-8 } else { 0.0 };
            let beyond = self.operand > 0.0 && w.abs() > 65_504.0;
            assert!(
                g == w || !g.is_finite() && (!w.is_finite() || beyond) || (g - w).abs() <= bound,
                "{what}, {}: element {i}: {g}, reference {w}",
                self.name
            );
        }
    }

    #[track_caller]
    fn assert_close(&self, got: &[f32], want: &[f32], tolerance: f32, scale: f32, what: &str) {
        assert_eq!(got.len(), want.len());
        for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
            let same = g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= tolerance * scale;
            assert!(same, "{what}, {}: element {i}: {g}, reference {w}", self.name);
        }
    }
}

/// Normal numbers that f16 holds exactly.
fn halves(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| f16::from_f32(random.normal()).to_f32()).collect()
}

/// The matrix whose weights are those of `w` rounded to halves, as a GPU multiplies many rows.
fn rounded_to_halves(w: &Matrix) -> Matrix {
    let mut weights = vec![0.0; w.rows * w.cols];
    weights.chunks_exact_mut(w.cols).enumerate().for_each(|(r, row)| w.row(r, row));
    Matrix::pack(Scheme::F16, w.rows, w.cols, &weights)
}

const SCHEMES: [Scheme; 4] = [Scheme::F32, Scheme::F16, Scheme::Q8, Scheme::Q4];

/// Shapes of matrices: below, at and beyond the edges of row blocks, groups and tiles.
const SHAPES: [(usize, usize); 9] = [(1, 1), (16, 32), (17, 33), (5, 100), (64, 64), (100, 31), (129, 96), (96, 576), (260, 160)];
/// Numbers of rows: every kernel of a GPU.
const COUNTS: [usize; 12] = [0, 1, 2, 3, 5, 8, 9, 17, 32, 33, 64, 130];

#[test]
fn linear() {
    let mut random = Random(1);
    let backends = backends();
    for scheme in SCHEMES {
        for (rows, cols) in SHAPES {
            let w = Matrix::pack(scheme, rows, cols, &halves(&mut random, rows * cols));
            let placed: Vec<Matrix> = backends.iter().map(|b| b.device.place_matrix(&w).unwrap()).collect();
            let rounded = rounded_to_halves(&w);
            for n in COUNTS {
                let x = halves(&mut random, n * cols);
                let before = random.vec(n * rows);
                let want = [&w, &rounded].map(|w| {
                    let mut want = before.clone();
                    naive::linear(w, &x, n, &mut want, Store::Add);
                    want
                });
                for (b, w) in backends.iter().zip(&placed) {
                    let what = format!("{scheme:?} {rows}×{cols}, n = {n}");
                    let operand = b.operand(&x, n, cols);
                    let mut y = b.buffer(&before);
                    b.device.linear(w, &operand, n, &mut y, Store::Add).unwrap();
                    let y = b.values(&y, n * rows);
                    b.assert_close(&y, &want[usize::from(n > b.rounded_rows)], 3e-6, cols as f32, &what);
                    let mut overwritten = b.buffer(&vec![f32::NAN; n * rows]);
                    b.device.linear(w, &operand, n, &mut overwritten, Store::Overwrite).unwrap();
                    let mut in_parts = b.buffer(&vec![f32::NAN; n * rows]);
                    b.device.linear_controlled(w, &operand, n, &mut in_parts, 17, &Control::default()).unwrap();
                    assert_eq!(b.values(&in_parts, n * rows), b.values(&overwritten, n * rows), "{what} in parts, {}", b.name);
                    let added: Vec<f32> = before.iter().zip(b.values(&overwritten, n * rows)).map(|(b, y)| b + y).collect();
                    b.assert_close(&added, &y, 1e-6, cols as f32, &what);
                }
            }
        }
    }
}

#[test]
fn linear_keeps_what_is_not_finite_in_its_row() {
    let mut random = Random(3);
    let backends = backends();
    for scheme in SCHEMES {
        let w = Matrix::pack(scheme, 20, 70, &random.vec(20 * 70));
        for n in [3, 12, 40] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = halves(&mut random, n * 70);
                x[70 + 65] = bad;
                for b in &backends {
                    let w = b.device.place_matrix(&w).unwrap();
                    let mut y = b.buffer(&vec![0.0; n * 20]);
                    b.device.linear(&w, &b.operand(&x, n, 70), n, &mut y, Store::Overwrite).unwrap();
                    let y = b.values(&y, n * 20);
                    assert!(y[..20].iter().chain(&y[40..]).all(|y| y.is_finite()), "{scheme:?}, n = {n}, {}", b.name);
                    assert!(y[20..40].iter().all(|y| !y.is_finite()), "{scheme:?}, n = {n}, {bad}, {}", b.name);
                }
            }
        }
    }
}

#[test]
fn linear_swiglu() {
    let mut random = Random(11);
    let backends = backends();
    for scheme in SCHEMES {
        for (f, cols) in [(1, 5), (32, 64), (33, 40), (96, 96), (128, 576)] {
            let w = Matrix::pack(scheme, 2 * f, cols, &halves(&mut random, 2 * f * cols));
            let placed: Vec<Matrix> = backends.iter().map(|b| b.device.place_matrix(&w).unwrap()).collect();
            let rounded = rounded_to_halves(&w);
            for n in [0, 1, 2, 4, 7, 8, 9, 32, 33, 70] {
                let x: Vec<f32> = halves(&mut random, n * cols).iter().map(|x| x * 0.25).collect();
                let want = [&w, &rounded].map(|w| {
                    let (mut gate_up, mut want) = (vec![0.0; n * 2 * f], vec![0.0; n * f]);
                    naive::linear(w, &x, n, &mut gate_up, Store::Overwrite);
                    naive::swiglu(&gate_up, f, &mut want);
                    want
                });
                for (b, w) in backends.iter().zip(&placed) {
                    let mut scratch = b.buffer(&vec![0.0; n * 2 * f]);
                    let mut y = b.empty_operand(n, f);
                    b.device.linear_swiglu(w, &b.operand(&x, n, cols), n, &mut scratch, &mut y).unwrap();
                    let want = &want[usize::from(n > b.rounded_rows)];
                    let scale = cols as f32 * want.iter().fold(1.0f32, |m, y| m.max(y.abs())).sqrt();
                    b.assert_operand(
                        &b.operand_values(&y, n, f),
                        want,
                        3e-6,
                        scale,
                        &format!("{scheme:?} f = {f}, {cols} columns, n = {n}"),
                    );
                }
            }
        }
    }
}

#[test]
fn operands_keep_both_forms() {
    // What a producer writes as 8-bit groups is what a product of a quantised matrix reads: the identity of 64 columns gives it back.
    let identity: Vec<f32> = (0..64 * 64).map(|i| f32::from(u8::from(i / 64 == i % 64))).collect();
    let w = Matrix::pack(Scheme::Q8, 64, 64, &identity);
    let mut random = Random(21);
    for b in backends() {
        let w = b.device.place_matrix(&w).unwrap();
        for magnitude in [1e-38f32, 1e-31, 1e-20, 1.0, 1e20, 1e33] {
            let x: Vec<f32> = random.vec(3 * 64).iter().map(|x| x * magnitude).collect();
            let mut want = vec![0.0; 3 * 64];
            naive::linear(&w, &x, 3, &mut want, Store::Overwrite);
            let mut y = b.buffer(&vec![0.0; 3 * 64]);
            b.device.linear(&w, &b.operand(&x, 3, 64), 3, &mut y, Store::Overwrite).unwrap();
            b.assert_close(&b.values(&y, 3 * 64), &want, 1e-6, 8.0 * magnitude, &format!("{magnitude:e}"));
        }
    }
}

#[test]
fn rms_norm() {
    let mut random = Random(7);
    for d in [1, 7, 16, 45, 576, 1030] {
        for n in [0, 1, 3, 40] {
            let mut x = random.vec(n * d);
            if let Some(x) = x.first_mut() {
                *x = 25_000.0; // as the residual of a first position
            }
            let weight = random.vec(d);
            let mut want = vec![0.0; n * d];
            naive::rms_norm(&x, &weight, 1e-5, &mut want);
            for b in backends() {
                let weight = b.device.place_vector(&Vector::of(&weight)).unwrap();
                let (x, mut y) = (b.buffer(&x), b.empty_operand(n, d));
                b.device.rms_norm(&x, &weight, 1e-5, n, &mut y).unwrap();
                let got = b.operand_values(&y, n, d);
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let bound = (2e-6 + b.operand) * want.abs() + if b.operand > 0.0 { 3e-8 } else { 0.0 };
                    assert!((got - want).abs() <= bound, "d = {d}, n = {n}, {}: element {i}: {got}, reference {want}", b.name);
                }
                let rows: Vec<u32> = (0..n as u32).rev().chain([0; 2].into_iter().take(n)).collect();
                let mut chosen = b.empty_operand(rows.len(), d);
                b.device.rms_norm_rows(&x, &rows, &weight, 1e-5, &mut chosen).unwrap();
                let chosen = b.operand_values(&chosen, rows.len(), d);
                assert!(rows.iter().zip(chosen.chunks(d)).all(|(&row, y)| *y == got[row as usize * d..][..d]), "d = {d}, {}", b.name);
                assert!(b.device.rms_norm_rows(&x, &[1 << 20], &weight, 1e-5, &mut b.empty_operand(1, d)).is_err());
            }
        }
    }
}

/// Random rows that see up to three random ranges, which do not overlap.
fn random_rows(random: &mut Random, n: usize, slots: usize) -> Rows {
    let mut rows = Rows::default();
    for i in 0..n {
        let start = rows.ranges.len() as u32;
        let mut cuts: Vec<u32> = (0..6).map(|_| random.below(slots + 1) as u32).collect();
        cuts.sort_unstable();
        let mut some: Vec<Range<u32>> = cuts.chunks(2).map(|c| c[0]..c[1]).filter(|r| !r.is_empty()).collect();
        if random.below(2) == 0 {
            some.reverse(); // ancestors of a label node come in any order of slots
        }
        if some.is_empty() {
            some.push(0..1);
        }
        rows.ranges.extend(some);
        rows.row_ranges.push(start..rows.ranges.len() as u32);
        rows.position.push(random.below(500) as u32);
        rows.slot.push(i as u32);
    }
    rows
}

/// Clips of different lengths behind a shared prefix.
fn packed_rows(prefix: u32, clips: &[u32]) -> (Rows, usize) {
    let mut rows = Rows::default();
    let mut slot = prefix;
    for &len in clips {
        let first = slot;
        for i in 0..len {
            let start = rows.ranges.len() as u32;
            rows.ranges.extend([0..prefix, first..slot + 1]);
            rows.row_ranges.push(start..start + 2);
            rows.position.push(prefix + i);
            rows.slot.push(slot);
            slot += 1;
        }
    }
    (rows, slot as usize)
}

/// Runs `rope_append` and `attention` of one pass in a cache that other rows have filled, and compares both.
fn attention_case(random: &mut Random, backends: &[Backend], shape: AttentionShape, rows: &Rows, slots: usize) {
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let (q_dim, kv_dim, n) = (heads * head_dim, kv_heads * head_dim, rows.position.len());
    let stride = q_dim + 2 * kv_dim;
    let theta = 10_000.0;
    let what = format!("{shape:?}, n = {n}, {slots} slots");
    // The cache before: a pass that writes every slot, of text position = slot modulo 500.
    let fill = Rows {
        position: (0..slots as u32).map(|s| s % 500).collect(),
        slot: (0..slots as u32).collect(),
        ranges: std::iter::once(0..1).collect(),
        row_ranges: vec![0..1; slots],
    };
    let (before, qkv) = (halves(random, slots * stride), halves(random, n * stride));
    let (mut keys, mut values) = (vec![0.0; slots * kv_dim], vec![0.0; slots * kv_dim]);
    let mut queries = Vec::new();
    for (rows, qkv) in [(&fill, &before), (rows, &qkv)] {
        let mut turned = qkv.clone();
        naive::rope(&mut turned, stride, heads + kv_heads, head_dim, &rows.position, theta);
        for (row, &slot) in turned.chunks(stride).zip(&rows.slot) {
            keys[slot as usize * kv_dim..][..kv_dim].copy_from_slice(&row[q_dim..q_dim + kv_dim]);
            values[slot as usize * kv_dim..][..kv_dim].copy_from_slice(&row[q_dim + kv_dim..]);
        }
        queries = turned;
    }
    // A GPU keeps keys as halves.
    let rounded: Vec<f32> = keys.iter().map(|&k| f16::from_f32(k).to_f32()).collect();
    let want = [&keys, &rounded].map(|keys| {
        let mut want = vec![0.0; n * q_dim];
        naive::attention(shape, rows, &queries, stride, keys, &values, &mut want);
        want
    });
    for b in backends {
        let rotations = b.device.place_rotations(&Rotations::new(theta, head_dim, 500)).unwrap();
        let mut layer = b.device.kv_layer();
        b.device.reserve_kv(&mut layer, slots, kv_dim).unwrap();
        let mut out = b.empty_operand(n, q_dim);
        let (mut first, mut second) = (b.device.staging(), b.device.staging());
        let fill = b.device.stage(&mut first, &fill).unwrap();
        b.device.rope_append(shape, &rotations, fill, &mut b.buffer(&before), &mut layer).unwrap();
        let pass = b.device.stage(&mut second, rows).unwrap();
        let mut x = b.buffer(&qkv);
        b.device.rope_append(shape, &rotations, pass, &mut x, &mut layer).unwrap();
        let turned = b.values(&x, n * stride);
        for (got, want) in turned.chunks(stride).zip(queries.chunks(stride)) {
            b.assert_close(&got[..q_dim], &want[..q_dim], 1e-6, 4.0, &format!("rope, {what}"));
        }
        b.device.attention(shape, pass, &x, &layer, &mut out).unwrap();
        // Queries and weights of many rows go through the tensor cores as halves.
        let tolerance = if b.operand > 0.0 { if n > 32 { 2e-3 } else { 2e-5 } } else { 1e-5 };
        b.assert_operand(&b.operand_values(&out, n, q_dim), &want[usize::from(b.operand > 0.0)], tolerance, 4.0, &what);
    }
}

#[test]
fn attention_of_any_rows() {
    let mut random = Random(9);
    let backends = backends();
    for (heads, kv_heads, head_dim) in [(1, 1, 2), (9, 3, 64), (4, 4, 24), (8, 2, 100), (2, 1, 128), (2, 2, 8)] {
        let shape = AttentionShape { heads, kv_heads, head_dim };
        for (n, slots) in [(0, 5), (1, 1), (2, 17), (17, 90), (33, 40), (70, 150)] {
            let rows = random_rows(&mut random, n, slots);
            attention_case(&mut random, &backends, shape, &rows, slots);
        }
    }
}

#[test]
fn attention_of_packed_clips() {
    let mut random = Random(10);
    let backends = backends();
    for (heads, kv_heads, head_dim) in [(3, 1, 64), (2, 2, 128), (4, 2, 16)] {
        let shape = AttentionShape { heads, kv_heads, head_dim };
        for (prefix, clips) in [(7, &[20, 3, 31, 16][..]), (1, &[1]), (15, &[64, 65]), (40, &[2; 40])] {
            let (rows, slots) = packed_rows(prefix, clips);
            attention_case(&mut random, &backends, shape, &rows, slots);
        }
    }
}

#[test]
fn embed() {
    let mut random = Random(22);
    for scheme in SCHEMES {
        for hidden in [1, 32, 45, 130] {
            let words = Matrix::pack(scheme, 37, hidden, &halves(&mut random, 37 * hidden));
            let codes = Vector::of(&random.vec(6 * hidden));
            let inputs: Vec<Input> =
                (0..50).map(|i| if i % 3 == 0 { Input::Code(i % 6) } else { Input::Word(u32::from(i) % 37) }).collect();
            for b in backends() {
                let (words, codes) = (b.device.place_matrix(&words).unwrap(), b.device.place_vector(&codes).unwrap());
                let mut x = b.device.buffer();
                b.device.embed(&words, &codes, &inputs, &mut x).unwrap();
                let got = b.values(&x, 50 * hidden);
                let mut want = vec![0.0; hidden];
                for (input, got) in inputs.iter().zip(got.chunks(hidden)) {
                    match *input {
                        Input::Word(id) => words.row(id as usize, &mut want),
                        Input::Code(code) => want.copy_from_slice(&codes.values()[usize::from(code) * hidden..][..hidden]),
                    }
                    assert_eq!(got, want, "{scheme:?}, {hidden}, {input:?}, {}", b.name);
                }
                for bad in [Input::Word(37), Input::Code(6)] {
                    assert!(b.device.embed(&words, &codes, &[bad], &mut x).is_err(), "{bad:?}, {}", b.name);
                }
            }
        }
    }
}

#[test]
fn log_softmax() {
    let mut random = Random(12);
    for vocab in [1, 2, 16, 300, 5003] {
        let mut logits: Vec<f32> = random.vec(5 * vocab).iter().map(|x| x * 20.0).collect();
        logits[vocab..2 * vocab].fill(3.0);
        logits[2 * vocab] = f32::NAN;
        logits[3 * vocab..4 * vocab].fill(f32::NEG_INFINITY);
        logits[4 * vocab] = f32::INFINITY;
        let mut normalisers = vec![0.0; 5];
        naive::log_sum_exp(&logits, vocab, &mut normalisers);
        let tokens: Vec<u32> = (0..9).map(|_| random.below(vocab) as u32).collect();
        let ends = [3, 3, 5, 7, 9];
        // Row 1 asks for nothing.
        let row_of = |i: usize| ends.iter().position(|&end| i < end).unwrap();
        for b in backends() {
            let mut out = vec![0.0; 77];
            b.device.log_softmax_at(&b.buffer(&logits), vocab, &ends, &tokens, &mut out).unwrap();
            assert_eq!(out.len(), 9);
            for (i, (&token, &got)) in tokens.iter().zip(&out).enumerate() {
                let row = row_of(i);
                let want = f64::from(logits[row * vocab + token as usize]) - f64::from(normalisers[row]);
                if row < 2 {
                    assert!((got - want).abs() <= 2e-6 * 80.0, "vocabulary {vocab}, {}: {got} for {want}", b.name);
                } else {
                    assert!(!got.is_finite(), "vocabulary {vocab}, row {row}, {}: {got}", b.name);
                }
            }
        }
    }
}

#[test]
fn conv1d() {
    let mut random = Random(13);
    // (c_in, c_out, kernel, stride, dilation, left, right)
    for (c_in, c_out, kernel, stride, dilation, left, right) in [
        (3, 5, 3, 1, 1, 1, 1),
        (16, 32, 4, 2, 1, 1, 1),
        (16, 32, 4, 2, 1, 3, 0),
        (24, 24, 3, 1, 9, 9, 9),
        (24, 24, 3, 1, 9, 18, 0),
        (8, 8, 1, 1, 1, 0, 0),
        (70, 130, 3, 1, 3, 3, 3),
    ] {
        for scheme in [Scheme::F32, Scheme::F16] {
            let weight = Matrix::pack(scheme, c_out, kernel * c_in, &random.vec(c_out * kernel * c_in));
            let conv = Conv1d { weight, bias: Vector::of(&random.vec(c_out)), kernel, stride, dilation, left, right };
            for (batch, frames) in [(1, 4), (3, 17), (2, 64)] {
                let (x_len, y_len) = (frames * c_in, conv.out_len(frames) * c_out);
                let x = random.vec(batch * x_len);
                let before = random.vec(batch * y_len);
                for (relu, store) in [(false, Store::Overwrite), (true, Store::Add)] {
                    let mut want = before.clone();
                    for (x, y) in x.chunks(x_len).zip(want.chunks_mut(y_len)) {
                        naive::conv1d(&conv, x, frames, relu, y, store);
                    }
                    for b in backends() {
                        let conv = b.device.place_conv(&conv).unwrap();
                        let mut y = b.buffer(&before);
                        b.device.conv1d(&conv, &b.buffer(&x), (batch, frames), relu, &mut y, store).unwrap();
                        b.assert_close(&b.values(&y, batch * y_len), &want, 3e-6, (kernel * c_in) as f32, &format!("kernel {kernel}"));
                    }
                }
            }
        }
    }
}

#[test]
fn nearest_codes() {
    let mut random = Random(15);
    for (codes, dim, n) in [(1, 1, 3), (2, 5, 17), (100, 33, 90), (300, 64, 70), (64, 576, 20)] {
        for geometry in [Geometry::Poincare { curvature: 1.0 }, Geometry::Poincare { curvature: 0.5 }, Geometry::Euclidean] {
            let norm = |values: &mut [f32], to: f32| {
                let length = values.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-20);
                values.iter_mut().for_each(|v| *v *= to / length);
            };
            let mut points = random.vec(codes * dim);
            points.chunks_mut(dim).for_each(|p| norm(p, 0.05 + 0.9 * random.uniform().abs()));
            if codes > 2 {
                points.copy_within(0..dim, dim); // a tie: the lower index is the answer
            }
            let mut features = random.vec(n * dim);
            for (i, feature) in features.chunks_mut(dim).enumerate() {
                norm(feature, 3.0 * random.uniform().abs());
                match i % 4 {
                    0 => feature.iter_mut().zip(&points[random.below(codes) * dim..]).for_each(|(f, p)| *f = p + 1e-3 * *f),
                    1 if i < 8 => feature.fill(0.0),
                    2 if i < 8 => feature.iter_mut().for_each(|f| *f *= 1e-25),
                    3 if i < 8 => feature.iter_mut().for_each(|f| *f *= 1e15),
                    _ => {}
                }
            }
            let codebook = Codebook::new(points, codes, dim, geometry).unwrap();
            for conditioning in [Conditioning { gain: 0.7, clip: 1.0 }, Conditioning { gain: 2.0, clip: 0.3 }] {
                let mut conditioned = features.clone();
                conditioning.apply(dim, &mut conditioned);
                let mut want = vec![0; n];
                naive::nearest_codes(&codebook, &conditioned, n, &mut want);
                for b in backends() {
                    let codebook = b.device.place_codebook(&codebook).unwrap();
                    let mut got = vec![u16::MAX; n];
                    b.device.nearest_codes(&codebook, conditioning, &b.buffer(&features), &mut got).unwrap();
                    for (i, (&got, &want)) in got.iter().zip(&want).enumerate().filter(|(_, (got, want))| got != want) {
                        let point = naive::point_of(geometry, &conditioned[i * dim..(i + 1) * dim]);
                        let (a, b_) = (naive::code_score(&codebook, &point, got.into()), naive::code_score(&codebook, &point, want.into()));
                        assert!(
                            a <= b_ * (1.0 + 1e-5),
                            "{codes} codes of {dim}, {geometry:?}, {}: feature {i}: {got}, reference {want}",
                            b.name
                        );
                    }
                }
            }
            for bad in [f32::NAN, f32::INFINITY] {
                let mut features = features.clone();
                features[n * dim - 1] = bad;
                for b in backends() {
                    let codebook = b.device.place_codebook(&codebook).unwrap();
                    let result = b.device.nearest_codes(&codebook, Conditioning::NONE, &b.buffer(&features), &mut vec![0; n]);
                    assert!(result.is_err(), "{bad}, {}", b.name);
                }
            }
        }
    }
}
