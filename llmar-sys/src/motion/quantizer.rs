//! Features → indices of the nearest codes → rows that the LLaMA reads.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::device::{Device, Geometry};
use crate::error::Result;

/// The discrete form of a clip: W indices in 0..U.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionSentence {
    /// [W]
    pub tokens: Vec<u16>,
}

/// Shape of the codebook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizerConfig {
    /// U, even, at most 65,536.
    pub codes: usize,
    /// Features of a code.
    pub dim: usize,
    /// How distances are measured.
    pub geometry: Geometry,
    /// The encoder's output is multiplied by this (learned), above zero.
    pub gain: f32,
    /// Tangent norm to which a feature is clipped after the gain: f · min(1, clip/‖f‖); above zero.
    pub clip: f32,
}

/// The codebook with its LLaMA embeddings.
#[derive(Clone, Debug)]
pub struct Quantizer {
    config: QuantizerConfig,
}

impl Quantizer {
    /// Reads `quantizer.tangent` f32 [codes, dim] (v_u; the ball point is exp₀(v_u)) and `quantizer.embedding` f32 [codes, hidden].
    pub fn read(_config: &QuantizerConfig, _hidden: usize, _checkpoint: &Checkpoint) -> Result<Self> {
        todo!()
    }

    /// Tokens of encoder outputs [w, dim].
    pub fn quantize(&self, _device: &Device, _encoded: &[f32]) -> ActionSentence {
        let _ = &self.config;
        todo!()
    }

    /// LLaMA input row of one token, [hidden].
    pub fn embedding(&self, _token: u16) -> &[f32] {
        todo!()
    }
}
