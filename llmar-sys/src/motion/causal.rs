//! A causal encoder fed frame by frame: each convolution keeps the inputs that it looks back to, so that new tokens cost new frames alone. The
//! features are those of [`Encoder::forward`] over all frames since the start, bit for bit on the CPU.

use super::encoder::{Encoder, EncoderConfig};
use crate::device::{Buffer, Conv1d, Device, Store};
use crate::error::{Error, Result};

/// What the buffers hold, for errors.
const BUFFER: &str = "the motion encoder of a stream";

/// A causal encoder without padding: what stands before a convolution's first input comes from what it keeps of the past.
#[derive(Clone, Debug)]
pub struct CausalEncoder {
    config: EncoderConfig,
    first: Conv1d,
    stages: Vec<(Conv1d, Vec<(Conv1d, Conv1d)>)>,
    last: Conv1d,
}

/// How far one sequence has come. Every sequence has its own.
#[derive(Debug)]
pub struct EncoderPast {
    /// Of the convolutions that look back, in the order in which they run.
    convs: Vec<Past>,
}

/// The last inputs of one convolution.
#[derive(Debug)]
struct Past {
    /// Rows that it looks back.
    rows: usize,
    /// Channels of its input.
    width: usize,
    /// [rows, width], zero at the start of a sequence.
    kept: Buffer,
}

/// Buffers of [`CausalEncoder::forward`], shared by sequences.
#[derive(Debug)]
pub struct CausalScratch {
    x: Buffer,
    h: Buffer,
    /// Past and new inputs of the convolution that runs.
    joined: Buffer,
}

impl CausalScratch {
    /// Without room yet.
    pub fn new(device: &Device) -> Self {
        Self { x: device.buffer(), h: device.buffer(), joined: device.buffer() }
    }
}

impl CausalEncoder {
    /// Of an encoder that pads on the left only.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a symmetric one.
    pub fn new(encoder: &Encoder) -> Result<Self> {
        if !encoder.config().causal {
            return Err(Error::argument("encoder", "a causal one", "a symmetric one"));
        }
        let bare = |conv: &Conv1d| Conv1d { left: 0, right: 0, ..conv.clone() };
        let (first, stages, last) = encoder.parts();
        let stages = stages.map(|(down, blocks)| (bare(down), blocks.map(|(dilated, point)| (bare(dilated), bare(point))).collect()));
        Ok(Self { config: encoder.config().clone(), first: bare(first), stages: stages.collect(), last: bare(last) })
    }

    /// The start of a sequence.
    pub fn start(&self, device: &Device) -> Result<EncoderPast> {
        let mut past = EncoderPast { convs: Vec::new() };
        let looking_back =
            self.stages.iter().flat_map(|(down, blocks)| std::iter::once(down).chain(blocks.iter().map(|(dilated, _)| dilated)));
        for conv in std::iter::once(&self.first).chain(looking_back).chain(std::iter::once(&self.last)) {
            let rows = conv.dilation * (conv.kernel - 1) + 1 - conv.stride;
            past.convs.push(Past { rows, width: conv.weight.cols / conv.kernel, kept: device.buffer() });
        }
        past.restart(device)?;
        Ok(past)
    }

    /// Features `[n >> halvings, outputs]` of the next `n` frames `[n, inputs]` of a sequence, in a buffer of `scratch`. `n` is a multiple of 2^halvings.
    ///
    /// # Errors
    /// [`Error::Shape`] for any other number; those of the device. A sequence whose call failed has to be restarted.
    pub fn forward<'s>(
        &self,
        device: &Device,
        past: &mut EncoderPast,
        frames: &[f32],
        scratch: &'s mut CausalScratch,
    ) -> Result<&'s Buffer> {
        let inputs = self.config.inputs;
        let mut n = frames.len() / inputs;
        if !frames.len().is_multiple_of(inputs << self.config.halvings) {
            let expected = vec![n >> self.config.halvings << self.config.halvings, inputs];
            return Err(Error::Shape { what: "frames of a stream".into(), expected, got: vec![frames.len()] });
        }
        let CausalScratch { x, h, joined } = scratch;
        if n == 0 {
            return Ok(x);
        }
        device.write(BUFFER, h, frames)?;
        let mut pasts = past.convs.iter_mut();
        let mut step = |conv: &Conv1d, from: &Buffer, n: usize, relu: bool, to: &mut Buffer| -> Result<()> {
            // As many pasts as `start` has made, in the same order.
            let past = pasts.next().ok_or_else(|| Error::format("encoder", "fewer pasts than convolutions"))?;
            past.join(device, from, n, joined)?;
            device.reserve(BUFFER, to, n / conv.stride * conv.weight.rows)?;
            device.conv1d(conv, joined, (1, past.rows + n), relu, to, Store::Overwrite)
        };
        step(&self.first, h, n, false, x)?;
        // The first convolution's ReLU is applied by whatever reads its result next.
        let mut relu = true;
        for (down, blocks) in &self.stages {
            step(down, x, n, relu, h)?;
            n /= 2;
            std::mem::swap(x, h);
            relu = false;
            for (dilated, point) in blocks {
                step(dilated, x, n, true, h)?;
                device.conv1d(point, h, (1, n), true, x, Store::Add)?;
            }
        }
        step(&self.last, x, n, relu, h)?;
        std::mem::swap(x, h);
        Ok(x)
    }
}

impl EncoderPast {
    /// Goes back to the start of a sequence.
    pub fn restart(&mut self, device: &Device) -> Result<()> {
        self.convs.iter_mut().try_for_each(|past| device.zero(BUFFER, &mut past.kept, past.rows * past.width))
    }
}

impl Past {
    /// `joined` becomes the kept rows and then the first `n` of `from`; the last rows of both are kept for the next time.
    fn join(&mut self, device: &Device, from: &Buffer, n: usize, joined: &mut Buffer) -> Result<()> {
        let (kept, new) = (self.rows * self.width, n * self.width);
        device.reserve(BUFFER, joined, kept + new)?;
        device.copy((&self.kept, 0), (joined, 0), kept)?;
        device.copy((from, 0), (joined, kept), new)?;
        device.copy((joined, new), (&mut self.kept, 0), kept)
    }
}
