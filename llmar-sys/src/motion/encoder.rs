//! Motion encoder: 1-D convolutions over time, frames → frames / 4. Source: T2M-GPT's VQ-VAE, which LLM-AR takes over.
//!
//! conv k3 → `halvings` × [conv k4 s2 → residual blocks, one a dilation] → conv k3; ReLU after the first conv; a residual block is
//! x + conv_k1(relu(conv_k3,dilated(relu(x)))). Symmetric: zero padding (k3: dilation each side; k4 s2: 1 each side). Causal: all of it on the left.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::device::Device;
use crate::error::Result;

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

/// The encoder with its weights.
#[derive(Clone, Debug)]
pub struct Encoder {
    config: EncoderConfig,
}

impl Encoder {
    /// Reads `encoder.in`, `encoder.{stage}.down`, `encoder.{stage}.{block}.dilated`, `encoder.{stage}.{block}.point`, `encoder.out`, each with
    /// `.weight` (matrix [c_out, kernel · c_in], column tap · c_in + channel) and `.bias` (f32 [c_out]).
    pub fn read(_config: &EncoderConfig, _checkpoint: &Checkpoint) -> Result<Self> {
        todo!()
    }

    /// Features [frames >> halvings, outputs] of an input [frames, inputs].
    pub fn forward(&self, _device: &Device, _input: &[f32], _frames: usize) -> Vec<f32> {
        let _ = &self.config;
        todo!()
    }
}
