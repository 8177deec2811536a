//! Action sentences of a stage 1 that no model was made of yet: by the runtime's own encoder and quantiser.

use llmar::device::Device;
use llmar::motion::{Encoder, EncoderScratch, Quantizer};
use llmar::skeleton::prepare;

use crate::artifacts::{Opened, Stage1Meta};
use crate::error::Result;
use crate::evaluate::Side;

/// One sentence a clip.
pub fn of(stage1: &Opened<Stage1Meta>, side: &Side) -> Result<Vec<Vec<u16>>> {
    let find = |name: &str| {
        let (shape, _) = stage1.info(name).ok_or_else(|| llmar::Error::format(name, "the stage-1 file lacks this tensor"))?;
        let values = stage1.floats(name, shape).map_err(|e| llmar::Error::format(name, e.to_string()))?;
        Ok((shape.to_vec(), values))
    };
    let (device, meta) = (Device::cpu(1)?, &stage1.meta);
    let encoder = Encoder::from_tensors(&meta.encoder, find)?;
    let quantizer = Quantizer::from_tensors(&meta.quantizer, 0, find)?;
    let mut scratch = EncoderScratch::new(&device);
    let mut sentence = |clip: &llmar::formats::OwnedClip| {
        let input = prepare(&meta.preprocess, &clip.view())?.features;
        let frames = input.len() / meta.preprocess.features();
        let encoded = encoder.forward(&device, &input, 1, frames, &mut scratch)?;
        Ok(quantizer.quantize(&device, encoded, meta.encoder.tokens(frames))?.tokens)
    };
    side.clips().map(&mut sentence).collect()
}
