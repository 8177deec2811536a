//! Encoder and quantiser against plain loops that share nothing with them but the definition in words.

use std::collections::BTreeMap;

use super::*;
use crate::Error;
use crate::device::{Device, Geometry};

/// Reproducible numbers in −1..1 (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn vec(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.next() * scale).collect()
    }
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn lookup(tensors: &Tensors) -> impl FnMut(&str) -> crate::Result<(Vec<usize>, Vec<f32>)> + '_ {
    |name| tensors.get(name).cloned().ok_or_else(|| Error::format(name, "missing"))
}

fn config(causal: bool) -> EncoderConfig {
    EncoderConfig { inputs: 7, width: 19, halvings: 2, dilations: vec![9, 3, 1], outputs: 5, causal }
}

fn weights(config: &EncoderConfig, seed: u64) -> Tensors {
    let mut random = Random(seed);
    let mut tensors = Tensors::new();
    for conv in config.convs() {
        let scale = (3.0 / conv.cols() as f32).sqrt();
        tensors.insert(conv.weight(), (vec![conv.c_out, conv.cols()], random.vec(conv.c_out * conv.cols(), scale)));
        tensors.insert(conv.bias(), (vec![conv.c_out], random.vec(conv.c_out, 0.1)));
    }
    tensors
}

/// y[t, o] = b[o] + Σ_tap Σ_c w[o, tap · c_in + c] · x[t · stride + tap · dilation − left, c]; frames outside are zero.
fn conv(tensors: &Tensors, name: &str, x: &[Vec<f64>], [kernel, stride, dilation]: [usize; 3], causal: bool) -> Vec<Vec<f64>> {
    let (shape, weight) = &tensors[&format!("{name}.weight")];
    let bias = &tensors[&format!("{name}.bias")].1;
    let span = dilation * (kernel - 1) + 1;
    let left = if causal { span - stride } else { (span - stride) / 2 };
    let c_in = shape[1] / kernel;
    let frames = if stride == 1 { x.len() } else { x.len() / stride };
    let value = |t: usize, o: usize| {
        let mut sum = f64::from(bias[o]);
        for tap in 0..kernel {
            if let Some(row) = (t * stride + tap * dilation).checked_sub(left).and_then(|at| x.get(at)) {
                for (c, x) in row.iter().enumerate() {
                    sum += f64::from(weight[o * shape[1] + tap * c_in + c]) * x;
                }
            }
        }
        sum
    };
    (0..frames).map(|t| (0..shape[0]).map(|o| value(t, o)).collect()).collect()
}

fn relu(x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    x.iter().map(|row| row.iter().map(|x| x.max(0.0)).collect()).collect()
}

/// The encoder as its module's words have it.
fn naive(config: &EncoderConfig, tensors: &Tensors, input: &[f32]) -> Vec<f64> {
    let x: Vec<Vec<f64>> = input.chunks(config.inputs).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
    let mut x = relu(&conv(tensors, "encoder.in", &x, [3, 1, 1], config.causal));
    for stage in 0..config.halvings {
        x = conv(tensors, &format!("encoder.{stage}.down"), &x, [4, 2, 1], config.causal);
        for (block, &dilation) in config.dilations.iter().enumerate() {
            let h = relu(&conv(tensors, &format!("encoder.{stage}.{block}.dilated"), &relu(&x), [3, 1, dilation], config.causal));
            let h = conv(tensors, &format!("encoder.{stage}.{block}.point"), &h, [1, 1, 1], config.causal);
            x.iter_mut().flatten().zip(h.iter().flatten()).for_each(|(x, h)| *x += h);
        }
    }
    conv(tensors, "encoder.out", &x, [3, 1, 1], config.causal).concat()
}

#[test]
fn the_encoder_equals_plain_loops() {
    let device = Device::cpu(1).unwrap();
    for causal in [false, true] {
        let config = config(causal);
        let tensors = weights(&config, 5);
        let encoder = Encoder::from_tensors(&config, lookup(&tensors)).unwrap();
        let mut scratch = EncoderScratch::new(&device);
        for frames in [64, 4, 13, 7, 40] {
            let input = Random(frames as u64).vec(frames * config.inputs, 1.0);
            let got = encoder.features(&device, &input, frames).unwrap();
            let expected = naive(&config, &tensors, &input);
            assert_eq!(got.len(), (frames >> 2) * config.outputs);
            assert_eq!(got.len(), expected.len());
            let rms = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
            for (got, expected) in got.iter().zip(&expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-5 * rms, "causal {causal}, {frames} frames: {got} for {expected}");
            }
            // Kept buffers of another size change nothing.
            let mut again = vec![0.0; got.len()];
            device.read(encoder.forward(&device, &input, 1, frames, &mut scratch).unwrap(), &mut again).unwrap();
            assert_eq!(again, got);
            // Nor do clips beside it.
            let three = [&input[..], &input, &input].concat();
            let mut batch = vec![0.0; 3 * got.len()];
            device.read(encoder.forward(&device, &three, 3, frames, &mut scratch).unwrap(), &mut batch).unwrap();
            assert!(batch.chunks(got.len()).all(|one| one == got));
        }
        assert!(encoder.features(&device, &[0.5; 3 * 7], 3).unwrap().is_empty(), "three frames are no token");
    }
}

#[test]
fn other_depths_run_too() {
    let device = Device::cpu(1).unwrap();
    for (halvings, dilations) in [(0, vec![3]), (1, vec![]), (3, vec![1, 2])] {
        let config = EncoderConfig { halvings, dilations, ..config(true) };
        let tensors = weights(&config, 9);
        let input = Random(3).vec(24 * config.inputs, 1.0);
        let got = Encoder::from_tensors(&config, lookup(&tensors)).unwrap().features(&device, &input, 24).unwrap();
        let expected = naive(&config, &tensors, &input);
        assert_eq!(got.len(), config.tokens(24) * config.outputs);
        assert!(got.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5 * (1.0 + b.abs())), "{halvings}");
    }
}

#[test]
fn causal_tokens_never_change_when_later_frames_come() {
    let device = Device::cpu(1).unwrap();
    let config = config(true);
    let encoder = Encoder::from_tensors(&config, lookup(&weights(&config, 5))).unwrap();
    let input = Random(77).vec(64 * config.inputs, 1.0);
    let whole = encoder.features(&device, &input, 64).unwrap();
    for frames in (4..64).step_by(4) {
        let part = encoder.features(&device, &input[..frames * config.inputs], frames).unwrap();
        assert_eq!(part, whole[..part.len()], "{frames} frames");
    }
    // The symmetric encoder looks ahead: the same cut does change its last token.
    let config = self::config(false);
    let encoder = Encoder::from_tensors(&config, lookup(&weights(&config, 5))).unwrap();
    let (whole, part) =
        (encoder.features(&device, &input, 64).unwrap(), encoder.features(&device, &input[..32 * config.inputs], 32).unwrap());
    assert_ne!(part[part.len() - 5..], whole[part.len() - 5..part.len()]);
}

#[test]
fn the_first_causal_token_sees_all_four_of_its_frames() {
    let device = Device::cpu(1).unwrap();
    let config = config(true);
    let encoder = Encoder::from_tensors(&config, lookup(&weights(&config, 5))).unwrap();
    let input = Random(7).vec(8 * config.inputs, 1.0);
    let before = encoder.features(&device, &input, 8).unwrap();
    for frame in 0..8 {
        let mut changed = input.clone();
        changed[frame * config.inputs..][..config.inputs].iter_mut().for_each(|x| *x += 0.5);
        let after = encoder.features(&device, &changed, 8).unwrap();
        assert_eq!(after[..5] != before[..5], frame < 4, "frame {frame}");
    }
}

#[test]
fn names_of_the_checkpoint_stand_in_the_listing() {
    let names: Vec<String> =
        EncoderConfig { dilations: vec![3, 1], halvings: 1, ..config(false) }.convs().into_iter().map(|conv| conv.name).collect();
    let expected = [
        "encoder.in",
        "encoder.0.down",
        "encoder.0.0.dilated",
        "encoder.0.0.point",
        "encoder.0.1.dilated",
        "encoder.0.1.point",
        "encoder.out",
    ];
    assert_eq!(names, expected);
    let symmetric = config(false).convs();
    assert_eq!((symmetric[1].left, symmetric[1].right, symmetric[2].left, symmetric[2].right), (1, 1, 9, 9));
    let causal = config(true).convs();
    assert_eq!((causal[0].left, causal[1].left, causal[1].right, causal[2].left), (2, 2, 0, 18));
}

#[test]
fn bad_encoders_are_refused() {
    let field = |config: EncoderConfig| config.check().unwrap_err().to_string().split(':').next().unwrap_or_default().to_owned();
    assert_eq!(field(EncoderConfig { inputs: 0, ..config(false) }), "encoder.inputs");
    assert_eq!(field(EncoderConfig { width: usize::MAX, ..config(false) }), "encoder.width");
    assert_eq!(field(EncoderConfig { outputs: 0, ..config(false) }), "encoder.outputs");
    assert_eq!(field(EncoderConfig { halvings: 7, ..config(false) }), "encoder.halvings");
    assert_eq!(field(EncoderConfig { dilations: vec![0], ..config(false) }), "encoder.dilations");
    assert_eq!(field(EncoderConfig { dilations: vec![1; 17], ..config(false) }), "encoder.dilations");
    let config = config(false);
    let with = |name: &str, tensor: Option<(Vec<usize>, Vec<f32>)>| {
        let mut tensors = weights(&config, 1);
        match tensor {
            Some(tensor) => tensors.insert(name.into(), tensor),
            None => tensors.remove(name),
        };
        Encoder::from_tensors(&config, lookup(&tensors)).unwrap_err()
    };
    assert!(matches!(with("encoder.1.2.point.bias", None), Error::Format { .. }));
    assert!(matches!(with("encoder.out.bias", Some((vec![4], vec![0.0; 4]))), Error::Shape { .. }));
    assert!(matches!(with("encoder.out.bias", Some((vec![5], vec![0.0; 4]))), Error::Shape { .. }));
    assert!(matches!(with("encoder.out.bias", Some((vec![5], vec![f32::NAN; 5]))), Error::Format { .. }));
}

// ---- quantiser ----

const CODES: usize = 24;
const DIM: usize = 6;
const HIDDEN: usize = 3;

fn codes(geometry: Geometry) -> QuantizerConfig {
    QuantizerConfig { codes: CODES, dim: DIM, geometry, gain: 0.3, clip: 1.0 }
}

fn codebook(seed: u64) -> Tensors {
    let mut random = Random(seed);
    Tensors::from([
        (QuantizerConfig::TANGENT.into(), (vec![CODES, DIM], random.vec(CODES * DIM, 0.7))),
        (QuantizerConfig::EMBEDDING.into(), (vec![CODES, HIDDEN], random.vec(CODES * HIDDEN, 1.0))),
    ])
}

/// Tokens of encoder outputs in main memory.
fn quantize(quantizer: &Quantizer, device: &Device, encoded: &[f32]) -> crate::Result<ActionSentence> {
    let mut features = device.buffer();
    device.write("test", &mut features, encoded)?;
    quantizer.quantize(device, &features, encoded.len() / DIM)
}

#[test]
fn tokens_are_the_nearest_codes_of_the_scaled_and_clipped_features() {
    let device = Device::cpu(1).unwrap();
    let encoded = Random(11).vec(400 * DIM, 6.0);
    for geometry in [Geometry::Poincare { curvature: 1.0 }, Geometry::Poincare { curvature: 0.5 }, Geometry::Euclidean] {
        let (config, tensors) = (codes(geometry), codebook(4));
        let quantizer = Quantizer::from_tensors(&config, HIDDEN, lookup(&tensors)).unwrap();
        let tangent: Vec<Vec<f64>> =
            tensors[QuantizerConfig::TANGENT].1.chunks(DIM).map(|v| v.iter().map(|x| f64::from(*x)).collect()).collect();
        let sentence = quantize(&quantizer, &device, &encoded).unwrap();
        assert_eq!(sentence.tokens.len(), 400);
        quantizer.check(&sentence).unwrap();
        let mut used = std::collections::BTreeSet::new();
        for (feature, token) in encoded.chunks(DIM).zip(&sentence.tokens) {
            let scaled: Vec<f64> = feature.iter().map(|f| f64::from(config.gain) * f64::from(*f)).collect();
            let norm = scaled.iter().map(|x| x * x).sum::<f64>().sqrt();
            let clipped: Vec<f64> = scaled.iter().map(|x| x * (f64::from(config.clip) / norm).min(1.0)).collect();
            let distance = |code: &[f64]| match geometry {
                Geometry::Euclidean => clipped.iter().zip(code).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt(),
                Geometry::Poincare { curvature } => {
                    let ball = |v: &[f64]| {
                        let mut point = vec![0.0; DIM];
                        poincare::exp0(v, f64::from(curvature), &mut point);
                        point
                    };
                    poincare::distance(&ball(&clipped), &ball(code), f64::from(curvature))
                }
            };
            let distances: Vec<f64> = tangent.iter().map(|code| distance(code)).collect();
            let best = distances.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(distances[usize::from(*token)] <= best * (1.0 + 1e-5), "{geometry:?}: code {token}");
            used.insert(*token);
        }
        assert!(used.len() > CODES / 2, "the case is varied: {} codes", used.len());
    }
}

#[test]
fn embeddings_are_rows_by_token() {
    let tensors = codebook(4);
    let quantizer = Quantizer::from_tensors(&codes(Geometry::Euclidean), HIDDEN, lookup(&tensors)).unwrap();
    let rows = &tensors[QuantizerConfig::EMBEDDING].1;
    assert!((0..CODES).all(|token| quantizer.embedding(token as u16) == &rows[token * HIDDEN..][..HIDDEN]));
    let stray = ActionSentence { tokens: vec![0, CODES as u16] };
    assert!(matches!(quantizer.check(&stray), Err(Error::InvalidArgument { .. })));
}

#[test]
fn features_that_are_not_finite_are_refused() {
    let device = Device::cpu(1).unwrap();
    let quantizer = Quantizer::from_tensors(&codes(Geometry::Poincare { curvature: 1.0 }), HIDDEN, lookup(&codebook(4))).unwrap();
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut features = [0.5; 3 * DIM];
        features[DIM + 2] = poison;
        assert!(matches!(quantize(&quantizer, &device, &features), Err(Error::Format { .. })));
    }
    assert_eq!(quantize(&quantizer, &device, &[f32::MAX; DIM]).unwrap().tokens.len(), 1);
}

#[test]
fn bad_codebooks_are_refused() {
    let good = codes(Geometry::Poincare { curvature: 1.0 });
    good.check().unwrap();
    let field = |config: QuantizerConfig| config.check().unwrap_err().to_string().split(':').next().unwrap_or_default().to_owned();
    for codes in [0, 1, 3, 65_538, usize::MAX] {
        assert_eq!(field(QuantizerConfig { codes, ..good.clone() }), "quantizer.codes");
    }
    assert_eq!(field(QuantizerConfig { dim: 0, ..good.clone() }), "quantizer.dim");
    for number in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(field(QuantizerConfig { gain: number, ..good.clone() }), "quantizer.gain");
        assert_eq!(field(QuantizerConfig { clip: number, ..good.clone() }), "quantizer.clip");
        assert_eq!(field(codes(Geometry::Poincare { curvature: number })), "quantizer.geometry");
    }
    let mut tensors = codebook(4);
    tensors.insert(QuantizerConfig::TANGENT.into(), (vec![CODES, DIM], vec![f32::NAN; CODES * DIM]));
    assert!(matches!(Quantizer::from_tensors(&good, HIDDEN, lookup(&tensors)), Err(Error::Format { .. })));
    tensors.insert(QuantizerConfig::TANGENT.into(), (vec![DIM, CODES], vec![0.0; CODES * DIM]));
    assert!(matches!(Quantizer::from_tensors(&good, HIDDEN, lookup(&tensors)), Err(Error::Shape { .. })));
}

#[test]
fn tangents_of_any_length_are_points_inside_the_ball() {
    let config = QuantizerConfig { codes: 2, dim: 2, ..codes(Geometry::Poincare { curvature: 4.0 }) };
    let points = config.points(&[30.0, 40.0, 0.1, 0.0]);
    assert!(4.0 * poincare::norm_squared(&points[..2]) < 1.0);
    assert!((points[2] - (0.2f32).tanh() / 2.0).abs() < 1e-7 && points[3] == 0.0);
    assert_eq!(QuantizerConfig { geometry: Geometry::Euclidean, ..config }.points(&[30.0, 40.0]), [30.0, 40.0]);
}

#[test]
fn a_causal_encoder_fed_in_pieces_gives_the_bits_of_the_whole() {
    let config = config(true);
    let tensors = weights(&config, 77);
    let encoder = Encoder::from_tensors(&config, lookup(&tensors)).unwrap();
    let device = Device::cpu(1).unwrap();
    let frames = 4 * 61;
    let input = Random(5).vec(frames * config.inputs, 1.0);
    let whole = encoder.features(&device, &input, frames).unwrap();
    let causal = CausalEncoder::new(&encoder).unwrap();
    let (mut past, mut scratch) = (causal.start(&device).unwrap(), CausalScratch::new(&device));
    for pieces in [[1, 1, 1], [3, 1, 7], [40, 1, 20]] {
        past.restart(&device).unwrap();
        let (mut got, mut rest, mut turn) = (Vec::new(), &input[..], 0);
        while !rest.is_empty() {
            let piece = (4 * pieces[turn % 3] * config.inputs).min(rest.len());
            let features = causal.forward(&device, &mut past, &rest[..piece], &mut scratch).unwrap();
            let mut out = vec![0.0; piece / config.inputs / 4 * config.outputs];
            device.read(features, &mut out).unwrap();
            got.extend(out);
            (rest, turn) = (&rest[piece..], turn + 1);
        }
        assert!(got.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits()) && got.len() == whole.len(), "{pieces:?}");
    }
    assert!(matches!(causal.forward(&device, &mut past, &input[..config.inputs * 6], &mut scratch), Err(Error::Shape { .. })));
    assert!(CausalEncoder::new(&Encoder::from_tensors(&super::tests::config(false), lookup(&tensors)).unwrap()).is_err());
}
