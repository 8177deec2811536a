//! Motion encoder: 1-D convolutions over time, frames → frames / 4. Source: T2M-GPT's VQ-VAE, which LLM-AR takes over.
//!
//! conv k3 → `halvings` × [conv k4 s2 → residual blocks, one a dilation] → conv k3; ReLU after the first conv; a residual block is
//! x + conv_k1(relu(conv_k3,dilated(relu(x)))). Symmetric: zero padding (k3: dilation each side; k4 s2: 1 each side). Causal: all of it on the left.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::device::{Buffer, Conv1d, Device, Matrix, Scheme, Store, Vector};
use crate::error::{Error, Result};

/// Largest accepted sizes, far above any sensible model: they bound what a hostile checkpoint can ask for.
const MAX_CHANNELS: usize = 16_384;
const MAX_HALVINGS: usize = 6;
const MAX_BLOCKS: usize = 16;
const MAX_DILATION: usize = 1024;

/// Shape of the encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Features a frame of its input.
    pub inputs: usize,
    /// Channels inside.
    pub width: usize,
    /// Halvings of the frame rate (2: W = frames / 4).
    pub halvings: usize,
    /// Dilations of the residual blocks of one stage, in order (9, 3, 1).
    pub dilations: Vec<usize>,
    /// Features of its output: the codebook's dimension.
    pub outputs: usize,
    /// Pad on the left only, so that later frames never change earlier tokens.
    pub causal: bool,
}

/// Shape of one convolution of the encoder, with the names of its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// `encoder.in`, `encoder.0.down`, …; the tensors are `{name}.weight` and `{name}.bias`.
    pub name: String,
    /// Output channels.
    pub c_out: usize,
    /// Input channels.
    pub c_in: usize,
    /// Taps.
    pub kernel: usize,
    /// Frames between two outputs.
    pub stride: usize,
    /// Frames between two taps.
    pub dilation: usize,
    /// Zero frames before the first.
    pub left: usize,
    /// Zero frames after the last.
    pub right: usize,
}

impl ConvShape {
    /// Name of the weight: a matrix [c_out, kernel · c_in], column tap · c_in + channel.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// Name of the bias: f32 `[c_out]`.
    pub fn bias(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// Columns of the weight: kernel · c_in.
    pub fn cols(&self) -> usize {
        self.kernel * self.c_in
    }
}

impl EncoderConfig {
    /// Numbers are within their caps.
    ///
    /// # Errors
    /// [`Error::Format`] that names the field.
    pub fn check(&self) -> Result<()> {
        let bad = |field: &str, range: String, got: String| {
            Err(Error::format(format!("encoder.{field}"), format!("expected {range}, got {got}")))
        };
        for (field, channels) in [("inputs", self.inputs), ("width", self.width), ("outputs", self.outputs)] {
            if !(1..=MAX_CHANNELS).contains(&channels) {
                return bad(field, format!("1..={MAX_CHANNELS}"), channels.to_string());
            }
        }
        if self.halvings > MAX_HALVINGS {
            return bad("halvings", format!("0..={MAX_HALVINGS}"), self.halvings.to_string());
        }
        if self.dilations.len() > MAX_BLOCKS || self.dilations.iter().any(|dilation| !(1..=MAX_DILATION).contains(dilation)) {
            return bad("dilations", format!("at most {MAX_BLOCKS} of 1..={MAX_DILATION}"), format!("{:?}", self.dilations));
        }
        Ok(())
    }

    /// The convolutions in the order in which they run. Reader, writer and trainer take names, shapes and padding from here.
    pub fn convs(&self) -> Vec<ConvShape> {
        let conv = |name: String, c_out: usize, c_in: usize, kernel: usize, stride: usize, dilation: usize| {
            // Both kinds of padding halve the frames exactly: span − stride zeros in all.
            let zeros = dilation * (kernel - 1) + 1 - stride;
            let right = if self.causal { 0 } else { zeros / 2 };
            ConvShape { name, c_out, c_in, kernel, stride, dilation, left: zeros - right, right }
        };
        let (inputs, width, outputs) = (self.inputs, self.width, self.outputs);
        let mut convs = vec![conv("encoder.in".into(), width, inputs, 3, 1, 1)];
        for stage in 0..self.halvings {
            convs.push(conv(format!("encoder.{stage}.down"), width, width, 4, 2, 1));
            for (block, &dilation) in self.dilations.iter().enumerate() {
                convs.push(conv(format!("encoder.{stage}.{block}.dilated"), width, width, 3, 1, dilation));
                convs.push(conv(format!("encoder.{stage}.{block}.point"), width, width, 1, 1, 1));
            }
        }
        convs.push(conv("encoder.out".into(), outputs, width, 3, 1, 1));
        convs
    }

    /// Tokens that `frames` frames give: frames >> halvings.
    pub fn tokens(&self, frames: usize) -> usize {
        frames >> self.halvings
    }
}

/// The encoder with its weights.
#[derive(Clone, Debug)]
pub struct Encoder {
    config: EncoderConfig,
    first: Conv1d,
    stages: Vec<Stage>,
    last: Conv1d,
}

#[derive(Clone, Debug)]
struct Stage {
    down: Conv1d,
    blocks: Vec<Block>,
}

/// x + point(relu(dilated(relu(x))))
#[derive(Clone, Debug)]
struct Block {
    dilated: Conv1d,
    point: Conv1d,
}

/// Buffers of [`Encoder::forward`], kept between calls.
#[derive(Debug)]
pub struct EncoderScratch {
    /// Activations [batch, frames, width] of the stage that runs; at the end the output [batch, tokens, outputs].
    x: Buffer,
    /// Inside of a residual block, or the next stage's activations.
    h: Buffer,
}

impl EncoderScratch {
    /// Without room yet.
    pub fn new(device: &Device) -> Self {
        Self { x: device.buffer(), h: device.buffer() }
    }
}

impl Encoder {
    /// Reads `encoder.in`, `encoder.{stage}.down`, `encoder.{stage}.{block}.dilated`, `encoder.{stage}.{block}.point`, `encoder.out`, each with
    /// `.weight` (matrix [c_out, kernel · c_in], column tap · c_in + channel) and `.bias` (f32 `[c_out]`).
    ///
    /// # Errors
    /// Those of [`EncoderConfig::check`], and [`Error::Format`] or [`Error::Shape`] for tensors that are missing or do not fit.
    pub fn read(config: &EncoderConfig, checkpoint: &Checkpoint) -> Result<Self> {
        Self::build(config, |shape| {
            let weight = checkpoint.matrix(&shape.weight(), shape.c_out, shape.cols())?;
            let bias = Vector::new(checkpoint.f32s(&shape.bias(), &[shape.c_out])?)?;
            Ok((weight, bias))
        })
    }

    /// Builds an encoder of raw tensors, as the trainer has them: `tensor` gives shape and row-major values by name.
    ///
    /// # Errors
    /// Those of [`EncoderConfig::check`] and of `tensor`; [`Error::Shape`] for a tensor of another shape, [`Error::Format`] for values not finite.
    pub fn from_tensors(config: &EncoderConfig, mut tensor: impl FnMut(&str) -> Result<(Vec<usize>, Vec<f32>)>) -> Result<Self> {
        Self::build(config, |shape| {
            let weight = checked(shape.weight(), &[shape.c_out, shape.cols()], &mut tensor)?;
            let bias = checked(shape.bias(), &[shape.c_out], &mut tensor)?;
            Ok((Matrix::pack(Scheme::F32, shape.c_out, shape.cols(), &weight), Vector::of(&bias)))
        })
    }

    fn build(config: &EncoderConfig, mut read: impl FnMut(&ConvShape) -> Result<(Matrix, Vector)>) -> Result<Self> {
        config.check()?;
        let mut shapes = config.convs().into_iter();
        let mut next = || -> Result<Conv1d> {
            // The loops below ask for exactly the convolutions that `convs` lists, in its order.
            let shape = shapes.next().ok_or_else(|| Error::format("encoder", "fewer convolutions than its stages need"))?;
            let (weight, bias) = read(&shape)?;
            let ConvShape { kernel, stride, dilation, left, right, .. } = shape;
            Ok(Conv1d { weight, bias, kernel, stride, dilation, left, right })
        };
        let first = next()?;
        let mut stages = Vec::with_capacity(config.halvings);
        for _ in 0..config.halvings {
            let down = next()?;
            let blocks = config.dilations.iter().map(|_| Ok(Block { dilated: next()?, point: next()? })).collect::<Result<_>>()?;
            stages.push(Stage { down, blocks });
        }
        Ok(Self { config: config.clone(), first, stages, last: next()? })
    }

    /// Its shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The encoder with a copy where the ops of `device` read it.
    pub fn place(&self, device: &Device) -> Result<Self> {
        let stage = |stage: &Stage| {
            let block = |block: &Block| Ok(Block { dilated: device.place_conv(&block.dilated)?, point: device.place_conv(&block.point)? });
            Ok(Stage { down: device.place_conv(&stage.down)?, blocks: stage.blocks.iter().map(block).collect::<Result<_>>()? })
        };
        let stages = self.stages.iter().map(stage).collect::<Result<_>>()?;
        Ok(Self { config: self.config.clone(), first: device.place_conv(&self.first)?, stages, last: device.place_conv(&self.last)? })
    }

    /// Features `[batch, frames >> halvings, outputs]` of inputs `[batch, frames, inputs]`, in a buffer of `scratch`. A clip's features do not
    /// depend on the clips beside it. Too few frames for one token give no features.
    ///
    /// # Errors
    /// [`Error::Shape`] when `input` is not [batch, frames, inputs]; those of the device.
    pub fn forward<'s>(
        &self,
        device: &Device,
        input: &[f32],
        batch: usize,
        frames: usize,
        scratch: &'s mut EncoderScratch,
    ) -> Result<&'s Buffer> {
        let expected = [batch, frames, self.config.inputs];
        if input.len() != expected.iter().product::<usize>() {
            return Err(Error::Shape { what: "encoder input".into(), expected: expected.to_vec(), got: vec![input.len()] });
        }
        let EncoderScratch { x, h } = scratch;
        if self.config.tokens(frames) == 0 || batch == 0 {
            return Ok(x);
        }
        device.write(BUFFER, h, input)?;
        let mut frames = run(device, &self.first, h, (batch, frames), false, x)?;
        // The first conv's ReLU is applied by whatever reads its result next.
        let mut relu = true;
        for stage in &self.stages {
            frames = run(device, &stage.down, x, (batch, frames), relu, h)?;
            std::mem::swap(x, h);
            relu = false;
            for block in &stage.blocks {
                run(device, &block.dilated, x, (batch, frames), true, h)?;
                device.conv1d(&block.point, h, (batch, frames), true, x, Store::Add)?;
            }
        }
        run(device, &self.last, x, (batch, frames), relu, h)?;
        std::mem::swap(x, h);
        Ok(x)
    }

    /// First convolution, stages of a halving and its residual blocks (dilated, point), last convolution.
    pub(super) fn parts(&self) -> (&Conv1d, impl Iterator<Item = (&Conv1d, impl Iterator<Item = (&Conv1d, &Conv1d)>)>, &Conv1d) {
        let stages = self.stages.iter().map(|stage| (&stage.down, stage.blocks.iter().map(|block| (&block.dilated, &block.point))));
        (&self.first, stages, &self.last)
    }

    /// [`forward`](Self::forward) of one clip, with the features brought to main memory: `[frames >> halvings, outputs]`.
    pub fn features(&self, device: &Device, input: &[f32], frames: usize) -> Result<Vec<f32>> {
        let mut scratch = EncoderScratch::new(device);
        let mut features = vec![0.0; self.config.tokens(frames) * self.config.outputs];
        let encoded = self.forward(device, input, 1, frames, &mut scratch)?;
        device.read(encoded, &mut features)?;
        Ok(features)
    }
}

/// What the buffers hold, for errors.
const BUFFER: &str = "the motion encoder";

/// Runs one convolution over x [batch, frames, c_in] into `y`, which grows to fit. Returns its number of output frames.
fn run(device: &Device, conv: &Conv1d, x: &Buffer, shape: (usize, usize), relu: bool, y: &mut Buffer) -> Result<usize> {
    let out = conv.out_len(shape.1);
    device.reserve(BUFFER, y, shape.0 * out * conv.weight.rows)?;
    device.conv1d(conv, x, shape, relu, y, Store::Overwrite)?;
    Ok(out)
}

/// A raw tensor of exactly `shape`, all finite.
pub(super) fn checked(name: String, shape: &[usize], tensor: &mut impl FnMut(&str) -> Result<(Vec<usize>, Vec<f32>)>) -> Result<Vec<f32>> {
    let (got, values) = tensor(&name)?;
    if got != shape || values.len() != shape.iter().product::<usize>() {
        return Err(Error::Shape { what: name, expected: shape.to_vec(), got });
    }
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(values),
        Some(at) => Err(Error::format(name, format!("value {at} is {}", values[at]))),
    }
}
