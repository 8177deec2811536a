//! Encoder (the runtime's, in tensors), decoder and classification head.

use llmar::motion::{ConvShape, EncoderConfig};
use tch::{Kind, Tensor};

use super::config::Losses;
use super::quantizer::clip_norm;
use crate::artifacts::{FloatTensor, Store, decoder_convs};
use crate::error::Result;
use crate::losses::supervised;
use crate::torch::{Params, round_f16, values};

/// One 1-D convolution over time, [batch, channels, frames].
#[derive(Debug)]
struct Conv {
    /// [c_out, c_in / groups, kernel]
    weight: Tensor,
    /// [c_out]
    bias: Tensor,
    stride: i64,
    dilation: i64,
    /// Zero frames before the first and after the last.
    padding: [i64; 2],
    /// Equal parts of the channels that are convolved apart; it divides both counts.
    groups: i64,
}

impl Conv {
    fn new(params: &mut Params, shape: &ConvShape, groups: usize) -> Self {
        let [c_out, c_in, kernel] = [shape.c_out, shape.c_in / groups, shape.kernel].map(|n| n as i64);
        let bound = 1.0 / ((c_in * kernel) as f32).sqrt();
        let weight = params.uniform(shape.weight(), &[c_out, c_in, kernel], bound);
        let bias = params.uniform(shape.bias(), &[c_out], bound);
        let padding = [shape.left as i64, shape.right as i64];
        Self { weight, bias, stride: shape.stride as i64, dilation: shape.dilation as i64, padding, groups: groups as i64 }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [left, right] = self.padding;
        if left == right {
            return x.conv1d(&self.weight, Some(&self.bias), self.stride, left, self.dilation, self.groups);
        }
        x.constant_pad_nd([left, right]).conv1d(&self.weight, Some(&self.bias), self.stride, 0, self.dilation, self.groups)
    }
}

impl Conv {
    /// The weight without groups, [c_out, c_in, kernel]: zero from one group's channels to another's. `shape`: its own.
    fn dense(&self, shape: &ConvShape) -> Tensor {
        let weight = self.weight.detach();
        let [c_out, c_in, kernel] = [shape.c_out, shape.c_in, shape.kernel].map(|n| n as i64);
        let (rows, columns) = (c_out / self.groups, c_in / self.groups);
        let whole = Tensor::zeros([c_out, c_in, kernel], (weight.kind(), weight.device()));
        for (i, part) in (0..).zip(weight.chunk(self.groups, 0)) {
            whole.narrow(0, i * rows, rows).narrow(1, i * columns, columns).copy_(&part);
        }
        whole
    }
}

/// Tensors in the artifact's form: weights [c_out, kernel · c_in], column tap · c_in + channel.
fn export(shapes: &[ConvShape], convs: &[Conv]) -> Result<Vec<FloatTensor>> {
    let mut out = Vec::new();
    for (shape, conv) in shapes.iter().zip(convs) {
        let rows = values(&conv.dense(shape).permute([0, 2, 1]))?;
        out.push((shape.weight(), vec![shape.c_out, shape.cols()], rows, Store::F16));
        out.push((shape.bias(), vec![shape.c_out], values(&conv.bias)?, Store::F32));
    }
    Ok(out)
}

/// Rounds the weights (not the biases) to f16, in place.
fn round(convs: &mut [Conv]) {
    tch::no_grad(|| convs.iter_mut().for_each(|conv| conv.weight.copy_(&round_f16(&conv.weight))));
}

/// x + conv_k1(relu(conv_k3,dilated(relu(x)))) for a pair of convolutions.
fn residual(pair: &[Conv], x: &Tensor) -> Tensor {
    pair.iter().fold(x.shallow_clone(), |h, conv| conv.forward(&h.relu())) + x
}

/// The motion encoder as `llmar::motion::Encoder` runs it, with the quantiser's gain and clip behind it.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    clip: f64,
    shapes: Vec<ConvShape>,
    /// In the order of `shapes`, which is the order in which they run.
    convs: Vec<Conv>,
    gain: Tensor,
}

impl Encoder {
    /// Parameters under the runtime's tensor names (`encoder.in.weight` …) and `quantizer.gain`. Of `members` encoders side by side each has its
    /// share of the channels and of the features, and nothing of another's; `members` divides both.
    pub fn new(params: &mut Params, config: &EncoderConfig, members: usize, gain: f32, clip: f32) -> Self {
        let shapes = config.convs();
        // All members see all inputs.
        let convs = shapes.iter().enumerate().map(|(i, shape)| Conv::new(params, shape, if i == 0 { 1 } else { members })).collect();
        let gain = params.add("quantizer.gain", &Tensor::from(gain));
        Self { config: config.clone(), clip: f64::from(clip), shapes, convs, gain }
    }

    /// Clipped tangent features `[batch, frames >> halvings, dim]` of inputs `[batch, frames, inputs]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let last = self.convs.len() - 1;
        let mut h = self.convs[0].forward(&x.transpose(1, 2)).relu();
        for stage in self.convs[1..last].chunks(1 + 2 * self.config.dilations.len()) {
            h = stage[0].forward(&h);
            for pair in stage[1..].chunks(2) {
                h = residual(pair, &h);
            }
        }
        clip_norm(&(self.convs[last].forward(&h).transpose(1, 2) * &self.gain), self.clip)
    }

    /// The gain, above zero.
    pub fn gain(&self) -> f32 {
        self.gain.double_value(&[]) as f32
    }

    /// Rounds the weights (not the biases) to f16, in place: what is evaluated afterwards is what ships.
    pub fn round(&mut self) {
        round(&mut self.convs);
    }

    /// Tensors in the artifact's form.
    pub fn export(&self) -> Result<Vec<FloatTensor>> {
        export(&self.shapes, &self.convs)
    }

    /// The opposite of [`export`](Self::export), for an encoder of one member: takes values [c_out, kernel · c_in] by name and shape from `find`.
    pub fn import(&mut self, find: impl Fn(&str, &[usize]) -> Result<Vec<f32>>) -> Result<()> {
        tch::no_grad(|| {
            for (shape, conv) in self.shapes.iter().zip(&mut self.convs) {
                let rows = Tensor::from_slice(&find(&shape.weight(), &[shape.c_out, shape.cols()])?);
                conv.weight.copy_(&rows.view([shape.c_out as i64, shape.kernel as i64, shape.c_in as i64]).permute([0, 2, 1]));
                conv.bias.copy_(&Tensor::from_slice(&find(&shape.bias(), &[shape.c_out])?));
            }
            Ok(())
        })
    }

    /// Its shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }
}

/// Codes back to clips: the encoder mirrored, with nearest-neighbour upsampling. Only training needs it, and `report`, which has it in plain Rust.
#[derive(Debug)]
pub struct Decoder {
    config: EncoderConfig,
    shapes: Vec<ConvShape>,
    /// In the order of `shapes`, which is the order in which they run.
    convs: Vec<Conv>,
}

impl Decoder {
    /// Parameters under `decoder.`.
    pub fn new(params: &mut Params, config: &EncoderConfig) -> Self {
        let shapes = decoder_convs(config);
        let convs = shapes.iter().map(|shape| Conv::new(params, shape, 1)).collect();
        Self { config: config.clone(), shapes, convs }
    }

    /// Clips `[batch, w << halvings, inputs]` of tangent codes `[batch, w, dim]`.
    pub fn forward(&self, codes: &Tensor) -> Tensor {
        let end = self.convs.len() - 2;
        let mut h = self.convs[0].forward(&codes.transpose(1, 2)).relu();
        for stage in self.convs[1..end].chunks(2 * self.config.dilations.len() + 1) {
            let (up, pairs) = (&stage[stage.len() - 1], &stage[..stage.len() - 1]);
            for pair in pairs.chunks(2) {
                h = residual(pair, &h);
            }
            let frames = h.size()[2] * 2;
            h = up.forward(&h.upsample_nearest1d(frames, None));
        }
        self.convs[end + 1].forward(&self.convs[end].forward(&h).relu()).transpose(1, 2)
    }

    /// Rounds the weights (not the biases) to f16, in place.
    pub fn round(&mut self) {
        round(&mut self.convs);
    }

    /// Tensors in the artifact's form.
    pub fn export(&self) -> Result<Vec<FloatTensor>> {
        export(&self.shapes, &self.convs)
    }

    /// The shape of the encoder that it mirrors.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }
}

/// A linear classifier on the means of a few segments of a sentence. Each member of an encoder has one of its own, and together they say their mean.
#[derive(Debug)]
pub struct Head {
    /// [labels, segments · dim]
    weight: Tensor,
    /// `[labels]`
    bias: Tensor,
    segments: i64,
    members: i64,
    dropout: f64,
}

impl Head {
    /// Parameters under `head.`; `segments` ≥ 1, and `members` divides `dim`.
    pub fn new(params: &mut Params, dim: usize, members: usize, labels: usize, losses: &Losses) -> Self {
        let segments = losses.head_segments;
        let bound = 1.0 / ((segments * dim) as f32).sqrt();
        let weight = params.uniform("head.weight", &[labels as i64, (segments * dim) as i64], bound);
        let bias = params.uniform("head.bias", &[labels as i64], bound);
        Self { weight, bias, segments: segments as i64, members: members as i64, dropout: losses.head_dropout }
    }

    /// Logits [batch, labels] of features [batch, w, dim].
    pub fn forward(&self, features: &Tensor) -> Tensor {
        self.read(&segment_means(features, self.segments))
    }

    /// Logits [n, labels] of the means of the segments [n, segments · dim].
    pub fn read(&self, means: &Tensor) -> Tensor {
        (means * self.segments as f64).linear(&self.weight, Some(&self.bias))
    }

    /// Mean cross-entropy of labels `[n]` (i64) over what each member says by itself of the means [n, segments · dim].
    pub fn loss(&self, means: &Tensor, labels: &Tensor, smoothing: f64) -> Tensor {
        let means = (means * self.segments as f64).dropout(self.dropout, true);
        if self.members == 1 {
            return supervised::loss(&means.linear(&self.weight, Some(&self.bias)), labels, smoothing);
        }
        supervised::loss(&self.apart(&means), &labels.repeat([self.members]), smoothing)
    }

    /// Logits [members · n, labels] by each member's features alone; their mean is [`read`](Self::read)'s.
    fn apart(&self, means: &Tensor) -> Tensor {
        // [.., segments · dim] to [members, .., segments · dim / members]
        let split = |x: &Tensor| {
            let parts = x.view([x.size()[0], self.segments, self.members, -1]).permute([2, 0, 1, 3]);
            parts.reshape([self.members, x.size()[0], -1])
        };
        let logits = split(means).bmm(&split(&self.weight).transpose(1, 2)) * self.members as f64 + &self.bias;
        logits.flatten(0, 1)
    }

    /// Segments of a sentence that it reads.
    pub fn segments(&self) -> i64 {
        self.segments
    }
}

/// Means over `segments` parts of the sentence, [batch, segments · dim], of features [batch, w, dim]: equal parts where they divide it, else parts that
/// share the tokens where they meet.
pub fn segment_means(features: &Tensor, segments: i64) -> Tensor {
    let [batch, w, dim] = features.size()[..] else { return features.shallow_clone() };
    if w % segments != 0 {
        return features.transpose(1, 2).adaptive_avg_pool1d(segments).transpose(1, 2).flatten(1, -1);
    }
    features.reshape([batch, segments, w / segments, dim]).mean_dim([2i64].as_slice(), false, Kind::Float).flatten(1, -1)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::torch::tensor;

    /// Three members of 4 channels and 2 features each, in one encoder: as the dense one that is stored, and no member sees another.
    #[test]
    fn members_are_one_encoder_of_blocks() -> Result<()> {
        let shape = EncoderConfig { inputs: 6, width: 12, halvings: 1, dilations: vec![2, 1], outputs: 6, causal: false };
        let mut params = Params::new(Device::Cpu, 5);
        let encoder = Encoder::new(&mut params, &shape, 3, 0.3, 1.0);
        let x: Vec<f32> = (0..2 * 8 * 6).map(|i| (i as f32 * 0.37).sin()).collect();
        let x = tensor(&x, &[2, 8, 6], Device::Cpu);
        let tensors = encoder.export()?;
        let stored = |name: &str| tensors.iter().find(|(n, ..)| n == name).map(|(_, shape, values, _)| (shape.clone(), values.clone()));
        let mut dense = Encoder::new(&mut Params::new(Device::Cpu, 6), &shape, 1, 0.3, 1.0);
        dense.import(|name, shape| match stored(name) {
            Some((stored, values)) if stored == shape => Ok(values),
            other => Err(crate::error::Error::format(name, format!("expected {shape:?}, got {:?}", other.map(|o| o.0)))),
        })?;
        let (expected, got) = (values(&dense.forward(&x))?, values(&encoder.forward(&x))?);
        assert_eq!(expected.len(), 2 * 4 * 6);
        assert!(expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?}, expected {expected:?}");
        // The second member's channels of the last convolution change its two features and, but for the common clip of the norm, no other's.
        let last = encoder.convs.len() - 1;
        let before = encoder.convs[last].forward(&Tensor::ones([1, 12, 4], (Kind::Float, Device::Cpu)));
        let changed = Tensor::ones([1, 12, 4], (Kind::Float, Device::Cpu));
        let _ = changed.narrow(1, 4, 4).fill_(3.0);
        let moved = values(&(encoder.convs[last].forward(&changed) - before).abs().amax([2i64].as_slice(), false))?;
        assert!(moved[2] > 1e-3 && moved[3] > 1e-3 && [0, 1, 4, 5].iter().all(|i| moved[*i] < 1e-6), "{moved:?}");
        Ok(())
    }

    /// What members say apart, by hand from the head's weights; their mean is what it says.
    #[test]
    fn members_are_taught_apart_and_say_their_mean() -> Result<()> {
        let losses = Losses { head_segments: 2, head_dropout: 0.0, ..Losses::default() };
        let mut params = Params::new(Device::Cpu, 7);
        let head = Head::new(&mut params, 4, 2, 3, &losses); // two members of two features
        let drawn: Vec<f32> = (0..2 * 8).map(|i| (i as f32 * 0.9).cos()).collect();
        let means = tensor(&drawn, &[2, 8], Device::Cpu); // [n, segments · dim]
        let (apart, together) = (values(&head.apart(&(&means * 2.0)))?, values(&head.read(&means))?);
        let (weight, bias) = (values(&head.weight)?, values(&head.bias)?);
        for (n, label) in [(0, 0), (0, 2), (1, 1)] {
            let said = |member: usize| {
                let features = (0..2).flat_map(|segment| (0..2).map(move |f| segment * 4 + member * 2 + f));
                let sum: f32 = features.map(|i| weight[label * 8 + i] * drawn[n * 8 + i]).sum();
                2.0 * 2.0 * sum + bias[label]
            };
            for member in 0..2 {
                let got = apart[(member * 2 + n) * 3 + label];
                assert!((got - said(member)).abs() < 1e-5, "{n}, {label}, {member}: {got}, expected {}", said(member));
            }
            assert!((together[n * 3 + label] - f32::midpoint(said(0), said(1))).abs() < 1e-5);
        }
        let labels = Tensor::from_slice(&[2i64, 0]);
        let log_p = |row: usize, label: usize| {
            let row = &apart[row * 3..][..3];
            row[label] - row.iter().map(|l| l.exp()).sum::<f32>().ln()
        };
        let expected = -(log_p(0, 2) + log_p(1, 0) + log_p(2, 2) + log_p(3, 0)) / 4.0;
        let got = crate::torch::number(&head.loss(&means, &labels, 0.0)) as f32;
        assert!((got - expected).abs() < 1e-5, "{got}, expected {expected}");
        Ok(())
    }
}
