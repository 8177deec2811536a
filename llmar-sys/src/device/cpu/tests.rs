//! What the CPU promises beyond the cases of every backend: the reference at its own tolerance, the same bits for any batch and number of threads.

use std::ops::Range;

use super::*;
use crate::device::tests::Random;
use crate::device::{
    AttentionShape, Codebook, Conditioning, Conv1d, GROUP, Geometry, Matrix, Rows, Scheme, Store, Vector, packed_shapes, reference as naive,
};

/// Every instruction set of this machine with 1, 2 and 4 threads.
fn devices() -> Vec<Cpu> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    isas.flat_map(|isa| [1, 2, 4].map(|threads| Cpu::with_isa(isa, threads).unwrap())).collect()
}

fn name(cpu: &Cpu) -> String {
    format!("{:?}, {} threads", cpu.isa(), cpu.threads())
}

/// |got − want| ≤ tolerance · scale, or both NaN.
#[track_caller]
fn assert_close(got: &[f32], want: &[f32], tolerance: f32, scale: f32, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tolerance * scale;
        assert!(same, "{what}: element {i}: {g}, reference {w}");
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

const SCHEMES: [Scheme; 4] = [Scheme::F32, Scheme::F16, Scheme::Q8, Scheme::Q4];

#[test]
fn linear_agrees_with_the_reference() {
    let mut random = Random(1);
    let devices = devices();
    for scheme in SCHEMES {
        for (rows, cols) in [(1, 1), (16, 32), (17, 33), (5, 100), (64, 64), (100, 31), (192, 576), (37, 1536)] {
            let weights = random.vec(rows * cols);
            let w = Matrix::pack(scheme, rows, cols, &weights);
            for n in [0, 1, 2, 3, 5, 8, 12, 17] {
                let x = random.vec(n * cols);
                let before = random.vec(n * rows);
                let mut want = before.clone();
                naive::linear(&w, &x, n, &mut want, Store::Add);
                for device in &devices {
                    let what = format!("{scheme:?} {rows}×{cols}, n = {n}, {}", name(device));
                    let mut y = before.clone();
                    device.linear(&w, &x, n, &mut y, Store::Add);
                    assert_close(&y, &want, 3e-6, cols as f32, &what);
                    let mut overwritten = vec![f32::NAN; n * rows];
                    device.linear(&w, &x, n, &mut overwritten, Store::Overwrite);
                    let added: Vec<f32> = before.iter().zip(&overwritten).map(|(b, y)| b + y).collect();
                    assert_eq!(bits(&y), bits(&added), "{what}");
                }
            }
        }
    }
}

#[test]
fn linear_gives_the_same_bits_for_any_batch_and_thread_count() {
    let mut random = Random(2);
    let devices = devices();
    let (rows, cols, n) = (150, 600, 29);
    for scheme in SCHEMES {
        let w = Matrix::pack(scheme, rows, cols, &random.vec(rows * cols));
        let x = random.vec(n * cols);
        let mut first_of_isa: Vec<(Isa, Vec<u32>)> = Vec::new();
        for device in &devices {
            let mut all = vec![0.0; n * rows];
            device.linear(&w, &x, n, &mut all, Store::Overwrite);
            for i in 0..n {
                let mut one = vec![0.0; rows];
                device.linear(&w, &x[i * cols..(i + 1) * cols], 1, &mut one, Store::Overwrite);
                assert_eq!(bits(&one), bits(&all[i * rows..(i + 1) * rows]), "{scheme:?} row {i}, {}", name(device));
            }
            first_of_isa.push((device.isa(), bits(&all)));
        }
        for (isa, result) in &first_of_isa {
            // Quantised products are integers and one fused sum, the same everywhere; float products are fused except in `Portable`.
            let comparable = |other: Isa| {
                other == *isa || matches!(scheme, Scheme::Q8 | Scheme::Q4) || (*isa != Isa::Portable && other != Isa::Portable)
            };
            for (other, other_result) in &first_of_isa {
                assert!(!comparable(*other) || result == other_result, "{scheme:?}: {isa:?} and {other:?} differ");
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let mut random = Random(3);
    for scheme in SCHEMES {
        let w = Matrix::pack(scheme, 20, 70, &random.vec(20 * 70));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for device in &devices() {
                let mut x = random.vec(3 * 70);
                x[70 + 65] = bad;
                let mut y = vec![0.0; 3 * 20];
                device.linear(&w, &x, 3, &mut y, Store::Overwrite);
                assert!(y[..20].iter().all(|y| y.is_finite()) && y[40..].iter().all(|y| y.is_finite()), "{scheme:?} {}", name(device));
                assert!(y[20..40].iter().all(|y| !y.is_finite()), "{scheme:?} {bad} {}", name(device));
            }
        }
    }
}

#[test]
fn linear_takes_huge_and_tiny_activations() {
    let mut random = Random(4);
    for scheme in SCHEMES {
        let w = Matrix::pack(scheme, 16, 64, &random.vec(16 * 64));
        for magnitude in [1e-38f32, 1e-30, 1e-20, 1e20, 1e33] {
            let x: Vec<f32> = random.vec(64).iter().map(|x| x * magnitude).collect();
            let mut want = vec![0.0; 16];
            naive::linear(&w, &x, 1, &mut want, Store::Overwrite);
            for device in &devices() {
                let mut y = vec![0.0; 16];
                device.linear(&w, &x, 1, &mut y, Store::Overwrite);
                assert_close(&y, &want, 3e-6, 64.0 * magnitude, &format!("{scheme:?} {magnitude:e} {}", name(device)));
            }
        }
    }
}

#[test]
fn packing_and_reading_rows_round_trips() {
    let mut random = Random(5);
    for scheme in SCHEMES {
        for (rows, cols) in [(1, 1), (16, 32), (33, 45), (50, 96)] {
            let weights = random.vec(rows * cols);
            let w = Matrix::pack(scheme, rows, cols, &weights);
            let lengths: usize = packed_shapes(scheme, rows, cols).iter().map(|(_, e, s)| s.iter().product::<usize>() * e.size()).sum();
            assert_eq!(lengths, w.byte_len());
            let mut row = vec![0.0; cols];
            for r in 0..rows {
                w.row(r, &mut row);
                for (group, original) in row.chunks(GROUP).zip(weights[r * cols..(r + 1) * cols].chunks(GROUP)) {
                    let largest = original.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                    let step = match scheme {
                        Scheme::F32 => 0.0,
                        Scheme::F16 => largest / 2048.0,
                        Scheme::Q8 => largest / 127.0 * 0.51,
                        Scheme::Q4 => largest * 2.0 / 15.0,
                    };
                    assert_close(group, original, step, 1.0, &format!("{scheme:?} row {r}"));
                }
            }
        }
    }
}

#[test]
fn packed_scales_are_finite_for_any_weights() {
    let extremes =
        [0.0, -0.0, 1e-45, -1e-38, 1e-7, -6e-8, 1.0, 65504.0, -70000.0, 1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let mut random = Random(6);
    for scheme in [Scheme::Q8, Scheme::Q4] {
        for _ in 0..500 {
            let weights: Vec<f32> = (0..40).map(|_| extremes[random.below(extremes.len())]).collect();
            let w = Matrix::pack(scheme, 1, 40, &weights);
            let mut row = vec![0.0; 40];
            w.row(0, &mut row);
            assert!(row.iter().all(|w| w.is_finite()), "{scheme:?} {weights:?} gave {row:?}");
        }
        // Weights so small that their scale would round to zero are still there.
        let tiny = [3e-6f32; 32];
        let w = Matrix::pack(scheme, 1, 32, &tiny);
        let mut row = vec![0.0; 32];
        w.row(0, &mut row);
        assert_close(&row, &tiny, 0.02, 3e-6, "tiny weights");
    }
}

#[test]
fn q4_is_better_than_its_full_range() {
    let mut random = Random(18);
    let weights = random.vec(32 * 4000);
    let w = Matrix::pack(Scheme::Q4, 4000, 32, &weights);
    let (mut packed, mut plain) = (0.0f64, 0.0f64);
    let mut row = vec![0.0; 32];
    for (r, group) in weights.chunks(32).enumerate() {
        w.row(r, &mut row);
        packed += row.iter().zip(group).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let low = group.iter().copied().fold(f32::INFINITY, f32::min);
        let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let step = (high - low) / 15.0;
        plain += group.iter().map(|w| f64::from(((w - low) / step).round() * step + low - w).powi(2)).sum::<f64>();
    }
    println!("squared error: {packed:.1}, of the plain range {plain:.1}");
    assert!(packed < 0.9 * plain, "{packed} against {plain}");
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    use crate::bytes::Bytes;
    let good = || vec![Bytes::copy_from(&[0; 2 * 16 * 32]), Bytes::copy_from(&[0; 2 * 16 * 2])];
    assert!(Matrix::from_tensors(Scheme::Q8, 20, 32, good()).is_ok());
    assert!(Matrix::from_tensors(Scheme::Q8, 20, 33, good()).is_err());
    assert!(Matrix::from_tensors(Scheme::Q8, 33, 32, good()).is_err());
    assert!(Matrix::from_tensors(Scheme::Q4, 20, 32, good()).is_err());
    assert!(Matrix::from_tensors(Scheme::F16, 20, 32, good()).is_err());
    let odd = Bytes::copy_from(&[0; 129]).slice(1..129).unwrap();
    assert!(Matrix::from_tensors(Scheme::F32, 16, 2, vec![odd]).is_err(), "misaligned");
}

#[test]
fn rms_norm_agrees_with_the_reference() {
    let mut random = Random(7);
    for d in [1, 7, 16, 576] {
        for n in [0, 1, 3] {
            let mut x = random.vec(n * d);
            if let Some(x) = x.first_mut() {
                *x = 25_000.0; // as the residual of a first position
            }
            let weight = random.vec(d);
            let mut want = vec![0.0; n * d];
            naive::rms_norm(&x, &weight, 1e-5, &mut want);
            for device in &devices() {
                let mut y = vec![0.0; n * d];
                device.rms_norm(&x, &weight, 1e-5, &mut y);
                for (y, want) in y.iter().zip(&want) {
                    assert!((y - want).abs() <= 2e-6 * want.abs(), "d = {d}, {}: {y}, reference {want}", name(device));
                }
            }
        }
    }
}

#[test]
fn rope_agrees_with_the_reference() {
    let mut random = Random(8);
    for (heads, head_dim, stride) in [(1, 2, 2), (3, 64, 200), (9, 64, 960)] {
        let positions = [0, 1, 5, 77, 2047, 40_000];
        let x = random.vec(positions.len() * stride);
        let mut want = x.clone();
        naive::rope(&mut want, stride, heads, head_dim, &positions, 10_000.0);
        for device in &devices() {
            let mut y = x.clone();
            device.rope(&mut y, stride, heads, head_dim, &positions, 10_000.0);
            assert_close(&y, &want, 1e-6, 4.0, &name(device));
            // What is not rotated is not touched.
            assert_eq!(y[heads * head_dim..stride], x[heads * head_dim..stride]);
        }
    }
}

/// Random rows that see up to three random ranges.
fn random_rows(random: &mut Random, n: usize, slots: usize) -> Rows {
    let mut rows = Rows::default();
    for _ in 0..6 {
        let (a, b) = (random.below(slots) as u32, random.below(slots) as u32);
        rows.ranges.push(a.min(b)..a.max(b) + 1);
    }
    for i in 0..n {
        let start = random.below(6) as u32;
        let end = (start + 1 + random.below(3) as u32).min(6);
        rows.position.push(i as u32);
        rows.slot.push(i as u32);
        rows.row_ranges.push(start..end);
    }
    rows
}

#[test]
fn attention_agrees_with_the_reference() {
    let mut random = Random(9);
    for (heads, kv_heads, head_dim) in [(1, 1, 2), (9, 3, 64), (4, 4, 24), (4, 2, 48), (8, 2, 100), (10, 2, 64)] {
        let shape = AttentionShape { heads, kv_heads, head_dim };
        let q_stride = (heads + 2 * kv_heads) * head_dim;
        for (n, slots) in [(0, 5), (1, 1), (2, 17), (17, 90)] {
            let rows = random_rows(&mut random, n, slots);
            let q = random.vec(n * q_stride);
            let keys = random.vec(slots * kv_heads * head_dim);
            let values = random.vec(slots * kv_heads * head_dim);
            let mut want = vec![0.0; n * heads * head_dim];
            naive::attention(shape, &rows, &q, q_stride, &keys, &values, &mut want);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let mut results = Vec::new();
                for threads in [1, 2, 4] {
                    let device = Cpu::with_isa(isa, threads).unwrap();
                    let mut out = vec![f32::NAN; n * heads * head_dim];
                    device.attention(shape, &rows, &q, q_stride, &keys, &values, &mut out);
                    assert_close(&out, &want, 1e-5, 4.0, &format!("{shape:?} n = {n}, {}", name(&device)));
                    for i in 0..n {
                        let one = Rows {
                            row_ranges: vec![rows.row_ranges[i].clone()],
                            position: vec![0],
                            slot: vec![0],
                            ranges: rows.ranges.clone(),
                        };
                        let mut alone = vec![0.0; heads * head_dim];
                        device.attention(shape, &one, &q[i * q_stride..], q_stride, &keys, &values, &mut alone);
                        assert_eq!(bits(&alone), bits(&out[i * heads * head_dim..][..heads * head_dim]), "row {i}, {}", name(&device));
                    }
                    results.push(bits(&out));
                }
                assert!(results.iter().all(|r| *r == results[0]), "{isa:?}: thread counts differ");
            }
        }
    }
}

#[test]
fn attention_splits_work_by_slots_without_changing_a_bit() {
    // Causal rows over one shape large enough to be split.
    let shape = AttentionShape { heads: 9, kv_heads: 3, head_dim: 64 };
    let (n, mut random) = (40, Random(10));
    let rows = Rows {
        position: (0..n as u32).collect(),
        slot: (0..n as u32).collect(),
        ranges: (0..n as u32).map(|i| 0..i + 1).collect(),
        row_ranges: (0..n as u32).map(|i| i..i + 1).collect(),
    };
    let (q, keys, values) = (random.vec(n * 960), random.vec(n * 192), random.vec(n * 192));
    let mut want = vec![0.0; n * 576];
    naive::attention(shape, &rows, &q, 960, &keys, &values, &mut want);
    let mut first: Option<Vec<u32>> = None;
    for threads in [1, 2, 3, 4, 7] {
        let mut out = vec![f32::NAN; n * 576];
        Cpu::new(threads).unwrap().attention(shape, &rows, &q, 960, &keys, &values, &mut out);
        assert_close(&out, &want, 1e-5, 4.0, "causal");
        assert_eq!(first.get_or_insert_with(|| bits(&out)), &bits(&out), "{threads} threads");
    }
}

#[test]
fn attention_of_a_row_that_sees_nothing_is_zero() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 16 };
    let nothing: Range<u32> = 0..0;
    let rows = Rows { position: vec![0], slot: vec![0], ranges: vec![], row_ranges: vec![nothing] };
    for device in &devices() {
        let mut out = vec![1.0; 16];
        device.attention(shape, &rows, &[1.0; 16], 16, &[1.0; 16], &[1.0; 16], &mut out);
        assert_eq!(out, [0.0; 16]);
    }
}

#[test]
fn swiglu_agrees_with_the_reference() {
    let mut random = Random(11);
    for f in [1, 16, 33, 1536] {
        let mut gate_up: Vec<f32> = random.vec(3 * 2 * f).iter().map(|x| x * 10.0).collect();
        gate_up[0] = -100.0;
        gate_up[2 * f] = 100.0;
        gate_up[4 * f] = f32::NAN;
        let mut want = vec![0.0; 3 * f];
        naive::swiglu(&gate_up, f, &mut want);
        for device in &devices() {
            let mut y = vec![0.0; 3 * f];
            device.swiglu(&gate_up, f, &mut y);
            for (y, want) in y.iter().zip(&want) {
                // Below a gate of −88 e^−gate exceeds f32 and the result, under 1e-36 times `up`, is zero.
                let same = (y.is_nan() && want.is_nan()) || (y - want).abs() <= 1e-6 * want.abs() + 1e-35;
                assert!(same, "f = {f}, {}: {y}, reference {want}", name(device));
            }
        }
    }
}

#[test]
fn log_sum_exp_agrees_with_the_reference() {
    let mut random = Random(12);
    for vocab in [1, 2, 16, 300, 5003] {
        let mut logits: Vec<f32> = random.vec(5 * vocab).iter().map(|x| x * 20.0).collect();
        logits[vocab..2 * vocab].fill(3.0);
        logits[2 * vocab] = f32::NAN;
        logits[3 * vocab..4 * vocab].fill(f32::NEG_INFINITY);
        logits[4 * vocab] = f32::INFINITY;
        let mut want = vec![0.0; 5];
        naive::log_sum_exp(&logits, vocab, &mut want);
        for device in &devices() {
            let mut out = vec![0.0; 5];
            device.log_sum_exp(&logits, vocab, &mut out);
            assert_close(&out[..2], &want[..2], 2e-7, 80.0, &name(device));
            assert!(out[2].is_nan() && out[3] == f32::NEG_INFINITY && out[4] == f32::INFINITY, "{}: {out:?}", name(device));
        }
    }
}

#[test]
fn conv1d_agrees_with_the_reference() {
    let mut random = Random(13);
    // (c_in, c_out, kernel, stride, dilation, left, right)
    for (c_in, c_out, kernel, stride, dilation, left, right) in [
        (3, 5, 3, 1, 1, 1, 1),
        (16, 32, 4, 2, 1, 1, 1),
        (16, 32, 4, 2, 1, 3, 0),
        (24, 24, 3, 1, 9, 9, 9),
        (24, 24, 3, 1, 9, 18, 0),
        (8, 8, 1, 1, 1, 0, 0),
    ] {
        for scheme in [Scheme::F32, Scheme::F16] {
            let weight = Matrix::pack(scheme, c_out, kernel * c_in, &random.vec(c_out * kernel * c_in));
            let conv = Conv1d { weight, bias: Vector::of(&random.vec(c_out)), kernel, stride, dilation, left, right };
            for frames in [4, 17, 64] {
                let x = random.vec(frames * c_in);
                let before = random.vec(conv.out_len(frames) * c_out);
                for (relu, store) in [(false, Store::Overwrite), (true, Store::Add)] {
                    let mut want = before.clone();
                    naive::conv1d(&conv, &x, frames, relu, &mut want, store);
                    for device in &devices() {
                        let mut y = before.clone();
                        device.conv1d(&conv, &x, frames, relu, &mut y, store);
                        assert_close(&y, &want, 3e-6, (kernel * c_in) as f32, &format!("kernel {kernel}, {}", name(device)));
                    }
                }
            }
        }
    }
}

#[test]
fn thread_counts_out_of_range_are_refused() {
    assert!(Cpu::new(0).is_err());
    assert!(Cpu::new(257).is_err());
    assert!(Cpu::new(3).is_ok());
}

/// A vector of random direction and the given norm.
fn direction(random: &mut Random, dim: usize, norm: f64) -> Vec<f32> {
    let v: Vec<f64> = (0..dim).map(|_| f64::from(random.normal())).collect();
    let length = v.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-30);
    v.iter().map(|v| (v / length * norm) as f32).collect()
}

/// A codebook of ball points and features (tangent vectors) between `low` and `high` of the radius; a third of the features lie close to a
/// code, where the expanded square cancels.
fn ball_case(random: &mut Random, codes: usize, dim: usize, n: usize, low: f64, high: f64, curvature: f32) -> (Codebook, Vec<f32>) {
    let root = f64::from(curvature).sqrt();
    let radius = |random: &mut Random| low + (high - low) * f64::from(random.uniform().abs());
    let points: Vec<f32> = (0..codes)
        .flat_map(|_| {
            let r = radius(random) / root;
            direction(random, dim, r)
        })
        .collect();
    let mut features = Vec::with_capacity(n * dim);
    for i in 0..n {
        let r = radius(random);
        let tangent = r.atanh() / root;
        let mut feature = direction(random, dim, tangent);
        if i % 3 == 0 {
            let code = random.below(codes);
            let point = &points[code * dim..][..dim];
            let norm = point.iter().map(|&p| f64::from(p).powi(2)).sum::<f64>().sqrt().max(1e-30);
            let factor = (root * norm).min(1.0 - 1e-7).atanh() / (root * norm);
            let away = tangent * 10f64.powf(f64::from(random.uniform()) * 3.0 - 3.5);
            let near = direction(random, dim, away);
            feature = point.iter().zip(near).map(|(&p, n)| (f64::from(p) * factor) as f32 + n).collect();
        }
        features.extend(feature);
    }
    (Codebook::new(points, codes, dim, Geometry::Poincare { curvature }).unwrap(), features)
}

/// Features whose code is not the f64 argmin, computed here by the direct squares. Scores within 1e-12 of each other, far closer than the 1e-5
/// that the rule allows, are rounding of the two f64 computations.
fn wrong_codes(codebook: &Codebook, features: &[f32], got: &[u16]) -> usize {
    let gaps: Vec<f64> = (codebook.points.chunks(codebook.dim))
        .map(|c| match codebook.geometry {
            Geometry::Poincare { curvature } => 1.0 - f64::from(curvature) * c.iter().map(|&c| f64::from(c).powi(2)).sum::<f64>(),
            Geometry::Euclidean => 1.0,
        })
        .collect();
    let mut wrong = 0;
    for (feature, &got) in features.chunks(codebook.dim).zip(got) {
        let x = naive::point_of(codebook.geometry, feature);
        let score = |u: usize| {
            let c = &codebook.points[u * codebook.dim..][..codebook.dim];
            let squared: f64 = x.iter().zip(c).map(|(&x, &c)| (x - f64::from(c)) * (x - f64::from(c))).sum();
            if gaps[u] > 0.0 { squared / gaps[u] } else { f64::INFINITY }
        };
        let best = (0..codebook.codes).map(score).fold(f64::INFINITY, f64::min);
        wrong += usize::from(score(usize::from(got)) > best * (1.0 + 1e-12));
    }
    wrong
}

#[test]
fn nearest_codes_are_the_f64_argmin_of_a_million_cases() {
    let mut random = Random(14);
    let mut cases = 0;
    // (codes, dim, features, lowest and highest radius as a part of the ball's, curvature)
    for (codes, dim, n, low, high, curvature) in [
        (64, 8, 400_000, 0.0, 1e-3, 1.0),
        (64, 8, 300_000, 0.99, 0.9999, 1.0),
        (64, 8, 160_000, 0.0, 0.9999, 1.0),
        (64, 8, 60_000, 0.9, 0.99999, 0.25),
        (256, 32, 40_000, 0.999, 0.99999, 1.0),
        (256, 32, 20_000, 0.3, 0.76, 1.0),
        (512, 64, 10_000, 0.7, 0.76, 1.0),
        (512, 64, 10_000, 0.9, 0.9999, 4.0),
    ] {
        let (codebook, features) = ball_case(&mut random, codes, dim, n, low, high, curvature);
        let mut got = vec![0; n];
        Cpu::new(1).unwrap().nearest_codes(&codebook, Conditioning::NONE, &features, n, &mut got);
        assert_eq!(wrong_codes(&codebook, &features, &got), 0, "{codes} codes, {dim} features, radius {low}..{high}, c = {curvature}");
        cases += n;
    }
    assert_eq!(cases, 1_000_000);
}

#[test]
fn nearest_codes_agree_on_every_device() {
    let mut random = Random(15);
    for (codes, dim, n) in [(1, 1, 3), (2, 5, 17), (100, 33, 300), (512, 576, 40)] {
        let (ball, features) = ball_case(&mut random, codes, dim, n, 0.0, 0.999, 1.0);
        let flat = Codebook::new(ball.points.clone(), codes, dim, Geometry::Euclidean).unwrap();
        for codebook in [ball, flat] {
            let mut want = vec![0; n];
            naive::nearest_codes(&codebook, &features, n, &mut want);
            for device in &devices() {
                let mut got = vec![u16::MAX; n];
                device.nearest_codes(&codebook, Conditioning::NONE, &features, n, &mut got);
                assert_eq!(got, want, "{codes} codes of {dim}, {:?}, {}", codebook.geometry, name(device));
            }
        }
    }
}

#[test]
fn nearest_codes_take_the_lower_index_on_ties() {
    let mut random = Random(16);
    let (codebook, features) = ball_case(&mut random, 40, 16, 200, 0.1, 0.999, 1.0);
    let twice = [codebook.points.clone(), codebook.points.clone()].concat();
    let twice = Codebook::new(twice, 80, 16, codebook.geometry).unwrap();
    let mut got = vec![0; 200];
    Cpu::new(1).unwrap().nearest_codes(&twice, Conditioning::NONE, &features, 200, &mut got);
    assert!(got.iter().all(|&code| code < 40));
}

#[test]
fn nearest_codes_survive_features_that_mean_nothing() {
    let rim = [1.0f32, 0.0, 0.0, 1.5, 0.1, 0.1];
    for geometry in [Geometry::Poincare { curvature: 1.0 }, Geometry::Euclidean] {
        let codebook = Codebook::new(rim.to_vec(), 3, 2, geometry).unwrap();
        let features = [f32::NAN, 0.0, f32::INFINITY, 1.0, f32::MAX, f32::MAX, 0.0, 0.0, 1e-45, 0.0, 30.0, 0.0];
        let mut got = vec![9; 6];
        Cpu::new(1).unwrap().nearest_codes(&codebook, Conditioning::NONE, &features, 6, &mut got);
        assert!(got.iter().all(|&code| code < 3));
        assert_eq!(got[3..5], [2, 2], "the origin is nearest to the one code inside the ball, and in flat space too");
    }
    assert!(Codebook::new(vec![], 0, 2, Geometry::Euclidean).is_err());
    assert!(Codebook::new(vec![0.0; 5], 2, 3, Geometry::Euclidean).is_err());
}

#[test]
fn one_device_serves_many_threads_at_once() {
    let mut random = Random(17);
    let (rows, cols, n) = (700, 600, 3);
    let w = Matrix::pack(Scheme::Q8, rows, cols, &random.vec(rows * cols));
    let x = random.vec(n * cols);
    let device = Cpu::new(3).unwrap();
    let mut want = vec![0.0; n * rows];
    device.linear(&w, &x, n, &mut want, Store::Overwrite);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let mut y = vec![0.0; n * rows];
                    device.linear(&w, &x, n, &mut y, Store::Overwrite);
                    assert_eq!(bits(&y), bits(&want));
                }
            });
        }
    });
}
