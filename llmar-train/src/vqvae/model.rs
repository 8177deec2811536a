//! Encoder (the runtime's, in tensors), decoder and classification head.

use llmar::motion::{ConvShape, EncoderConfig};
use tch::{Kind, Tensor};

use super::quantizer::clip_norm;
use crate::artifacts::{FloatTensor, Store, decoder_convs};
use crate::error::Result;
use crate::torch::{Params, round_f16, values};

/// One 1-D convolution over time, [batch, channels, frames].
#[derive(Debug)]
struct Conv {
    /// [c_out, c_in, kernel]
    weight: Tensor,
    /// [c_out]
    bias: Tensor,
    stride: i64,
    dilation: i64,
    /// Zero frames before the first and after the last.
    padding: [i64; 2],
}

impl Conv {
    fn new(params: &mut Params, shape: &ConvShape) -> Self {
        let [c_out, c_in, kernel] = [shape.c_out, shape.c_in, shape.kernel].map(|n| n as i64);
        let bound = 1.0 / ((c_in * kernel) as f32).sqrt();
        let weight = params.uniform(shape.weight(), &[c_out, c_in, kernel], bound);
        let bias = params.uniform(shape.bias(), &[c_out], bound);
        let padding = [shape.left as i64, shape.right as i64];
        Self { weight, bias, stride: shape.stride as i64, dilation: shape.dilation as i64, padding }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [left, right] = self.padding;
        if left == right {
            return x.conv1d(&self.weight, Some(&self.bias), self.stride, left, self.dilation, 1);
        }
        x.constant_pad_nd([left, right]).conv1d(&self.weight, Some(&self.bias), self.stride, 0, self.dilation, 1)
    }
}

/// Tensors in the artifact's form: weights [c_out, kernel · c_in], column tap · c_in + channel.
fn export(shapes: &[ConvShape], convs: &[Conv]) -> Result<Vec<FloatTensor>> {
    let mut out = Vec::new();
    for (shape, conv) in shapes.iter().zip(convs) {
        let rows = values(&conv.weight.detach().permute([0, 2, 1]))?;
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
    /// Parameters under the runtime's tensor names (`encoder.in.weight` …) and `quantizer.gain`.
    pub fn new(params: &mut Params, config: &EncoderConfig, gain: f32, clip: f32) -> Self {
        let shapes = config.convs();
        let convs = shapes.iter().map(|shape| Conv::new(params, shape)).collect();
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

    /// The opposite of [`export`](Self::export): takes values [c_out, kernel · c_in] by name and shape from `find`.
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
        let convs = shapes.iter().map(|shape| Conv::new(params, shape)).collect();
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

/// A linear classifier on the means of a few segments of a sentence.
#[derive(Debug)]
pub struct Head {
    weight: Tensor,
    bias: Tensor,
    segments: i64,
    dropout: f64,
}

impl Head {
    /// Parameters under `head.`; `segments` ≥ 1.
    pub fn new(params: &mut Params, dim: usize, labels: usize, segments: usize, dropout: f64) -> Self {
        let bound = 1.0 / ((segments * dim) as f32).sqrt();
        let weight = params.uniform("head.weight", &[labels as i64, (segments * dim) as i64], bound);
        let bias = params.uniform("head.bias", &[labels as i64], bound);
        Self { weight, bias, segments: segments as i64, dropout }
    }

    /// Logits [batch, labels] of features [batch, w, dim].
    pub fn forward(&self, features: &Tensor, training: bool) -> Tensor {
        self.read(&segment_means(features, self.segments), training)
    }

    /// Logits [n, labels] of the means of the segments [n, segments · dim].
    pub fn read(&self, means: &Tensor, training: bool) -> Tensor {
        (means * self.segments as f64).dropout(self.dropout, training).linear(&self.weight, Some(&self.bias))
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
