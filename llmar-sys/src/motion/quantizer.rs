//! Features → indices of the nearest codes → rows that the LLaMA reads.

use serde::{Deserialize, Serialize};

use super::encoder::checked;
use super::poincare;
use crate::bytes::Bytes;
use crate::checkpoint::Checkpoint;
use crate::device::{Buffer, Codebook, Conditioning, Device, Geometry, Vector};
use crate::error::{Error, Result};

/// Largest accepted sizes.
const MAX_CODES: usize = 65_536;
const MAX_DIM: usize = 16_384;
/// Curvatures beyond 10^±6 are a damaged file: only √c · clip matters.
const CURVATURE: std::ops::RangeInclusive<f32> = 1e-6..=1e6;

/// The discrete form of a clip: W indices in 0..U.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionSentence {
    /// `[W]`
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

impl QuantizerConfig {
    /// Tensor of the codes' tangent vectors, f32 [codes, dim].
    pub const TANGENT: &str = "quantizer.tangent";
    /// Tensor of the codes' LLaMA input rows, f32 [codes, hidden].
    pub const EMBEDDING: &str = "quantizer.embedding";

    /// Numbers are within their ranges.
    ///
    /// # Errors
    /// [`Error::Format`] that names the field.
    pub fn check(&self) -> Result<()> {
        let bad = |field: &str, range: String, got: String| {
            Err(Error::format(format!("quantizer.{field}"), format!("expected {range}, got {got}")))
        };
        if !(2..=MAX_CODES).contains(&self.codes) || !self.codes.is_multiple_of(2) {
            return bad("codes", format!("an even number in 2..={MAX_CODES}"), self.codes.to_string());
        }
        if !(1..=MAX_DIM).contains(&self.dim) {
            return bad("dim", format!("1..={MAX_DIM}"), self.dim.to_string());
        }
        match self.geometry {
            Geometry::Poincare { curvature } if !CURVATURE.contains(&curvature) => {
                return bad("geometry", format!("a curvature in {CURVATURE:?}"), curvature.to_string());
            }
            Geometry::Poincare { .. } | Geometry::Euclidean => {}
        }
        for (field, number) in [("gain", self.gain), ("clip", self.clip)] {
            if !(number.is_finite() && number > 0.0) {
                return bad(field, "a finite number above zero".into(), number.to_string());
            }
        }
        Ok(())
    }

    /// Points of the space that tangent vectors [codes, dim] stand for: exp₀ in f64, rounded once, or the vectors themselves.
    pub fn points(&self, tangent: &[f32]) -> Vec<f32> {
        let mut points = tangent.to_vec();
        if let Geometry::Poincare { curvature } = self.geometry {
            for (tangent, point) in tangent.chunks_exact(self.dim).zip(points.chunks_exact_mut(self.dim)) {
                poincare::exp0(tangent, f64::from(curvature), point);
            }
        }
        points
    }

    /// What happens to the encoder's outputs before the nearest code is looked for.
    pub fn conditioning(&self) -> Conditioning {
        Conditioning { gain: self.gain, clip: self.clip }
    }

    /// [`Conditioning::apply`] to encoder outputs [n, dim].
    pub fn condition(&self, features: &mut [f32]) {
        self.conditioning().apply(self.dim, features);
    }
}

/// The codebook with its LLaMA embeddings.
#[derive(Clone, Debug)]
pub struct Quantizer {
    config: QuantizerConfig,
    codebook: Codebook,
    /// f32 [codes, hidden]
    embedding: Vector,
    hidden: usize,
}

impl Quantizer {
    /// Reads `quantizer.tangent` f32 [codes, dim] (v_u; the ball point is exp₀(v_u)) and `quantizer.embedding` f32 [codes, hidden].
    ///
    /// # Errors
    /// Those of [`QuantizerConfig::check`], and [`Error::Format`] or [`Error::Shape`] for tensors that are missing or do not fit.
    pub fn read(config: &QuantizerConfig, hidden: usize, checkpoint: &Checkpoint) -> Result<Self> {
        config.check()?;
        let tangent = checkpoint.f32s(QuantizerConfig::TANGENT, &[config.codes, config.dim])?;
        let embedding = checkpoint.f32s(QuantizerConfig::EMBEDDING, &[config.codes, hidden])?;
        Self::build(config, hidden, tangent.cast()?, embedding)
    }

    /// Builds a quantiser of raw tensors, as the trainer has them: `tensor` gives shape and row-major values by name. With `hidden` = 0 no
    /// embedding is asked for: enough to tokenise.
    ///
    /// # Errors
    /// Those of [`QuantizerConfig::check`] and of `tensor`; [`Error::Shape`] for a tensor of another shape, [`Error::Format`] for values not finite.
    pub fn from_tensors(
        config: &QuantizerConfig,
        hidden: usize,
        mut tensor: impl FnMut(&str) -> Result<(Vec<usize>, Vec<f32>)>,
    ) -> Result<Self> {
        config.check()?;
        let tangent = checked(QuantizerConfig::TANGENT.into(), &[config.codes, config.dim], &mut tensor)?;
        let embedding = match hidden {
            0 => Vec::new(),
            _ => checked(QuantizerConfig::EMBEDDING.into(), &[config.codes, hidden], &mut tensor)?,
        };
        Self::build(config, hidden, &tangent, Bytes::copy_from(bytemuck::cast_slice(&embedding)))
    }

    fn build(config: &QuantizerConfig, hidden: usize, tangent: &[f32], embedding: Bytes) -> Result<Self> {
        let embedding = Vector::new(embedding)?;
        let points = config.points(tangent);
        let codebook = Codebook::new(points, config.codes, config.dim, config.geometry)?;
        Ok(Self { config: config.clone(), codebook, embedding, hidden })
    }

    /// Its shape.
    pub fn config(&self) -> &QuantizerConfig {
        &self.config
    }

    /// The codes as points, ready for the nearest-code search.
    pub fn codebook(&self) -> &Codebook {
        &self.codebook
    }

    /// The quantiser with a copy where the ops of `device` read it.
    pub fn place(&self, device: &Device) -> Result<Self> {
        let (codebook, embedding) = (device.place_codebook(&self.codebook)?, device.place_vector(&self.embedding)?);
        Ok(Self { config: self.config.clone(), codebook, embedding, hidden: self.hidden })
    }

    /// The same codes with made-up embeddings f32 [codes, hidden], for measurements.
    #[cfg(feature = "cuda")]
    pub(crate) fn with_random_embeddings(&self, device: &Device, hidden: usize) -> Result<Self> {
        let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 2001) as f32 / 1000.0 - 1.0;
        let embedding: Vec<f32> = (0..self.config.codes * hidden).map(value).collect();
        let embedding = device.place_vector(&Vector::of(&embedding))?;
        Ok(Self { config: self.config.clone(), codebook: self.codebook.clone(), embedding, hidden })
    }

    /// Tokens of the first `count` encoder outputs of `encoded` [.., dim].
    ///
    /// # Errors
    /// [`Error::Format`] when an output is not finite; those of the device.
    pub fn quantize(&self, device: &Device, encoded: &Buffer, count: usize) -> Result<ActionSentence> {
        let mut tokens = vec![0; count];
        self.quantize_into(device, encoded, &mut tokens)?;
        Ok(ActionSentence { tokens })
    }

    /// [`quantize`](Self::quantize) of as many outputs as there is room for in `tokens`.
    pub fn quantize_into(&self, device: &Device, encoded: &Buffer, tokens: &mut [u16]) -> Result<()> {
        device.nearest_codes(&self.codebook, self.config.conditioning(), encoded, tokens)
    }

    /// Every token of a sentence is a code.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the first that is not.
    pub fn check(&self, sentence: &ActionSentence) -> Result<()> {
        match sentence.tokens.iter().find(|token| usize::from(**token) >= self.config.codes) {
            None => Ok(()),
            Some(token) => Err(Error::argument("action token", format!("0..{}", self.config.codes), token)),
        }
    }

    /// LLaMA input rows of all tokens, f32 [codes, hidden].
    pub fn embeddings(&self) -> &Vector {
        &self.embedding
    }

    /// LLaMA input row of one token, `[hidden]`.
    ///
    /// # Panics
    /// When the token is not a code: [`check`](Self::check) sentences that [`quantize`](Self::quantize) did not make.
    pub fn embedding(&self, token: u16) -> &[f32] {
        &self.embedding.values()[usize::from(token) * self.hidden..][..self.hidden]
    }
}
