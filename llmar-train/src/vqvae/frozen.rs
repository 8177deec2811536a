//! A finished tokenizer, read back from its artifact: what stage 2 trains on.

use std::path::Path;

use llmar::skeleton::Resample;
use tch::{Device, Tensor};

use super::model::Encoder;
use super::quantizer::Ball;
use crate::artifacts::{self, Stage1Meta, WORD_MAP};
use crate::error::{Error, Result};
use crate::torch::{Params, tensor};

/// Encoder and codebook, frozen.
#[derive(Debug)]
pub struct Stage1 {
    /// The artifact's document.
    pub meta: Stage1Meta,
    /// SHA-256 of the file.
    pub sha256: String,
    encoder: Encoder,
    /// v_u [codes, dim]
    tangent: Tensor,
    /// [hidden, dim] and `[hidden]`
    word_map: Option<(Tensor, Tensor)>,
    device: Device,
}

impl Stage1 {
    /// Reads `stage1.safetensors`.
    pub fn read(path: &Path, device: Device) -> Result<Self> {
        let file = artifacts::open::<Stage1Meta>(path)?;
        let Stage1Meta { preprocess, encoder: shape, quantizer, .. } = &file.meta;
        preprocess.check()?;
        shape.check()?;
        quantizer.check()?;
        let fits = shape.inputs == preprocess.features() && shape.outputs == quantizer.dim && shape.tokens(preprocess.frames) > 0;
        if !fits {
            let detail = format!(
                "an encoder from {} to {} features a frame does not fit {} frames of {} features and codes of {}",
                shape.inputs,
                shape.outputs,
                preprocess.frames,
                preprocess.features(),
                quantizer.dim
            );
            return Err(Error::format(path.display(), detail));
        }
        let mut params = Params::new(device, 0);
        let mut encoder = Encoder::new(&mut params, shape, 1, quantizer.gain, quantizer.clip);
        encoder.import(|name, shape| file.floats(name, shape))?;
        let tangent = file.floats("quantizer.tangent", &[quantizer.codes, quantizer.dim])?;
        let tangent = tensor(&tangent, &[quantizer.codes as i64, quantizer.dim as i64], device);
        let [weight, bias] = WORD_MAP;
        let word_map = match file.info(weight).map(|(shape, _)| shape.to_vec()) {
            Some(shape) if shape.len() == 2 && shape[1] == quantizer.dim => {
                let dims = [shape[0] as i64, shape[1] as i64];
                let weight = tensor(&file.floats(weight, &shape)?, &dims, device);
                Some((weight, tensor(&file.floats(bias, &shape[..1])?, &dims[..1], device)))
            }
            Some(shape) => {
                return Err(Error::format(path.display(), format!("`{weight}`: expected [hidden, {}], got {shape:?}", quantizer.dim)));
            }
            None => None,
        };
        Ok(Self { sha256: file.sha256(), meta: file.meta, encoder, tangent, word_map, device })
    }

    /// The map from codes to token embeddings that its MMD learned, [hidden, dim] and `[hidden]`.
    pub fn word_map(&self) -> Option<(&Tensor, &Tensor)> {
        self.word_map.as_ref().map(|(weight, bias)| (weight, bias))
    }

    /// v_u [codes, dim].
    pub fn tangent(&self) -> &Tensor {
        &self.tangent
    }

    /// Whether it reads windows of streams.
    pub fn live(&self) -> bool {
        matches!(self.meta.preprocess.resample, Resample::Live { .. })
    }

    /// Encoder outputs after gain and clip [clips, w, dim] of prepared clips of one length, [frames · inputs] each.
    pub fn features(&self, clips: &[Vec<f32>]) -> Tensor {
        let inputs = self.meta.preprocess.features() as i64;
        tch::no_grad(|| self.encoder.forward(&tensor(&clips.concat(), &[clips.len() as i64, -1, inputs], self.device)))
    }

    /// Tokens of prepared clips, [frames · inputs] each, and of live models of any length: W tokens a clip.
    pub fn tokens(&self, clips: &[Vec<f32>]) -> Result<Vec<Vec<u16>>> {
        let mut out = Vec::with_capacity(clips.len());
        for part in clips.chunks(64).flat_map(|part| part.chunk_by(|a, b| a.len() == b.len())) {
            let features = self.features(part);
            let w = features.size()[1] as usize;
            let nearest = Ball::new(self.meta.quantizer.geometry).nearest(&features.flatten(0, 1), &self.tangent);
            let all: Vec<i64> = Vec::try_from(nearest)?;
            out.extend(all.chunks(w.max(1)).map(|sentence| sentence.iter().map(|t| *t as u16).collect()));
        }
        Ok(out)
    }
}
