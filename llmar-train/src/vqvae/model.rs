//! Encoder (the runtime's, in tensors), decoder and classification head.

use llmar::motion::EncoderConfig;
use tch::{Kind, Tensor};

use super::quantizer::clip_norm;
use crate::artifacts::Store;
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

#[derive(Clone, Copy)]
struct ConvShape {
    c_in: usize,
    c_out: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    causal: bool,
}

impl Conv {
    fn new(params: &mut Params, name: &str, shape: ConvShape) -> Self {
        let ConvShape { c_in, c_out, kernel, stride, dilation, causal } = shape;
        let bound = 1.0 / ((c_in * kernel) as f32).sqrt();
        let weight = params.uniform(format!("{name}.weight"), &[c_out as i64, c_in as i64, kernel as i64], bound);
        let bias = params.uniform(format!("{name}.bias"), &[c_out as i64], bound);
        let total = (dilation * (kernel - 1) + 1 - stride) as i64;
        let padding = if causal { [total, 0] } else { [total / 2, total - total / 2] };
        Self { weight, bias, stride: stride as i64, dilation: dilation as i64, padding }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [left, right] = self.padding;
        if left == right {
            return x.conv1d(&self.weight, Some(&self.bias), self.stride, left, self.dilation, 1);
        }
        x.constant_pad_nd([left, right]).conv1d(&self.weight, Some(&self.bias), self.stride, 0, self.dilation, 1)
    }
}

/// x + conv_k1(relu(conv_k3,dilated(relu(x)))).
#[derive(Debug)]
struct Residual {
    dilated: Conv,
    point: Conv,
}

impl Residual {
    fn new(params: &mut Params, name: &str, width: usize, dilation: usize, causal: bool) -> Self {
        let shape = ConvShape { c_in: width, c_out: width, kernel: 3, stride: 1, dilation, causal };
        Self {
            dilated: Conv::new(params, &format!("{name}.dilated"), shape),
            point: Conv::new(params, &format!("{name}.point"), ConvShape { kernel: 1, dilation: 1, ..shape }),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x + self.point.forward(&self.dilated.forward(&x.relu()).relu())
    }
}

/// The motion encoder as `llmar::motion::Encoder` runs it, with the quantiser's gain and clip behind it.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    clip: f64,
    conv_in: Conv,
    stages: Vec<(Conv, Vec<Residual>)>,
    conv_out: Conv,
    gain: Tensor,
}

impl Encoder {
    /// Parameters under the runtime's tensor names (`encoder.in.weight` …) and `quantizer.gain`.
    pub fn new(params: &mut Params, config: &EncoderConfig, gain: f32, clip: f32) -> Self {
        let (width, causal) = (config.width, config.causal);
        let k3 = ConvShape { c_in: config.inputs, c_out: width, kernel: 3, stride: 1, dilation: 1, causal };
        let conv_in = Conv::new(params, "encoder.in", k3);
        let stages = (0..config.halvings)
            .map(|stage| {
                let down = ConvShape { c_in: width, kernel: 4, stride: 2, ..k3 };
                let down = Conv::new(params, &format!("encoder.{stage}.down"), down);
                let block = |(block, dilation): (usize, &usize)| {
                    Residual::new(params, &format!("encoder.{stage}.{block}"), width, *dilation, causal)
                };
                (down, config.dilations.iter().enumerate().map(block).collect())
            })
            .collect();
        let conv_out = Conv::new(params, "encoder.out", ConvShape { c_in: width, c_out: config.outputs, ..k3 });
        let gain = params.add("quantizer.gain", &Tensor::from(gain));
        Self { config: config.clone(), clip: f64::from(clip), conv_in, stages, conv_out, gain }
    }

    /// Clipped tangent features [batch, frames >> halvings, dim] of inputs [batch, frames, inputs].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = self.conv_in.forward(&x.transpose(1, 2)).relu();
        for (down, blocks) in &self.stages {
            h = down.forward(&h);
            for block in blocks {
                h = block.forward(&h);
            }
        }
        clip_norm(&(self.conv_out.forward(&h).transpose(1, 2) * &self.gain), self.clip)
    }

    /// The gain, above zero.
    pub fn gain(&self) -> f32 {
        self.gain.double_value(&[]) as f32
    }

    fn convs(&self) -> Vec<(String, &Conv)> {
        let mut out = vec![("encoder.in".to_owned(), &self.conv_in)];
        for (i, (down, blocks)) in self.stages.iter().enumerate() {
            out.push((format!("encoder.{i}.down"), down));
            for (j, block) in blocks.iter().enumerate() {
                out.push((format!("encoder.{i}.{j}.dilated"), &block.dilated));
                out.push((format!("encoder.{i}.{j}.point"), &block.point));
            }
        }
        out.push(("encoder.out".to_owned(), &self.conv_out));
        out
    }

    /// Rounds the weights (not the biases) to f16, in place: what is evaluated afterwards is what ships.
    pub fn round(&mut self) {
        tch::no_grad(|| {
            for (_, conv) in self.convs() {
                conv.weight.shallow_clone().copy_(&round_f16(&conv.weight));
            }
        });
    }

    /// Tensors in the artifact's form: weights [c_out, kernel · c_in], column tap · c_in + channel.
    pub fn export(&self) -> Result<Vec<(String, Vec<usize>, Vec<f32>, Store)>> {
        let mut out = Vec::new();
        for (name, conv) in self.convs() {
            let [c_out, c_in, kernel] = conv.weight.size()[..] else { continue };
            let rows = values(&conv.weight.detach().permute([0, 2, 1]))?;
            out.push((format!("{name}.weight"), vec![c_out as usize, (kernel * c_in) as usize], rows, Store::F16));
            out.push((format!("{name}.bias"), vec![c_out as usize], values(&conv.bias)?, Store::F32));
        }
        Ok(out)
    }

    /// The opposite of [`export`](Self::export): takes values [c_out, kernel · c_in] by name from `find`.
    pub fn import(&mut self, find: impl Fn(&str, &[usize]) -> Result<Vec<f32>>) -> Result<()> {
        tch::no_grad(|| {
            for (name, conv) in self.convs() {
                let [c_out, c_in, kernel] = conv.weight.size()[..] else { continue };
                let rows = find(&format!("{name}.weight"), &[c_out as usize, (kernel * c_in) as usize])?;
                let rows = Tensor::from_slice(&rows).view([c_out, kernel, c_in]).permute([0, 2, 1]);
                conv.weight.shallow_clone().copy_(&rows);
                conv.bias.shallow_clone().copy_(&Tensor::from_slice(&find(&format!("{name}.bias"), &[c_out as usize])?));
            }
            Ok(())
        })
    }

    /// Its shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }
}

/// Codes back to clips: the encoder mirrored, with nearest-neighbour upsampling. Only training needs it.
#[derive(Debug)]
pub struct Decoder {
    conv_in: Conv,
    stages: Vec<(Vec<Residual>, Conv)>,
    last: Conv,
    conv_out: Conv,
}

impl Decoder {
    /// Parameters under `decoder.`.
    pub fn new(params: &mut Params, config: &EncoderConfig) -> Self {
        let width = config.width;
        let k3 = ConvShape { c_in: width, c_out: width, kernel: 3, stride: 1, dilation: 1, causal: false };
        let conv_in = Conv::new(params, "decoder.in", ConvShape { c_in: config.outputs, ..k3 });
        let stages = (0..config.halvings)
            .map(|stage| {
                let blocks = config.dilations.iter().enumerate();
                let blocks = blocks.map(|(b, d)| Residual::new(params, &format!("decoder.{stage}.{b}"), width, *d, false)).collect();
                (blocks, Conv::new(params, &format!("decoder.{stage}.up"), k3))
            })
            .collect();
        let last = Conv::new(params, "decoder.last", k3);
        let conv_out = Conv::new(params, "decoder.out", ConvShape { c_out: config.inputs, ..k3 });
        Self { conv_in, stages, last, conv_out }
    }

    /// Clips [batch, w << halvings, inputs] of tangent codes [batch, w, dim].
    pub fn forward(&self, codes: &Tensor) -> Tensor {
        let mut h = self.conv_in.forward(&codes.transpose(1, 2)).relu();
        for (blocks, up) in &self.stages {
            for block in blocks {
                h = block.forward(&h);
            }
            let frames = h.size()[2] * 2;
            h = up.forward(&h.upsample_nearest1d(frames, None));
        }
        self.conv_out.forward(&self.last.forward(&h).relu()).transpose(1, 2)
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
    /// Parameters under `head.`; `segments` ≥ 1 divides the sentence.
    pub fn new(params: &mut Params, dim: usize, labels: usize, segments: usize, dropout: f64) -> Self {
        let bound = 1.0 / ((segments * dim) as f32).sqrt();
        let weight = params.uniform("head.weight", &[labels as i64, (segments * dim) as i64], bound);
        let bias = params.uniform("head.bias", &[labels as i64], bound);
        Self { weight, bias, segments: segments as i64, dropout }
    }

    /// Logits [batch, labels] of features [batch, w, dim].
    pub fn forward(&self, features: &Tensor, training: bool) -> Tensor {
        let pooled = segment_means(features, self.segments) * self.segments as f64;
        pooled.dropout(self.dropout, training).linear(&self.weight, Some(&self.bias))
    }
}

/// Means over `segments` equal parts of the sentence, [batch, segments · dim], of features [batch, w, dim].
pub fn segment_means(features: &Tensor, segments: i64) -> Tensor {
    let [batch, w, dim] = features.size()[..] else { return features.shallow_clone() };
    features.reshape([batch, segments, w / segments, dim]).mean_dim([2i64].as_slice(), false, Kind::Float).flatten(1, -1)
}
