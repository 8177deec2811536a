//! One training step's loss, put together from `crate::losses` by weight.

use llmar::motion::EncoderConfig;
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::codebook::Codebook;
use super::config::{Config, Losses};
use super::model::{Decoder, Head, segment_means};
use super::parts::Parts;
use crate::artifacts::{self, BaseMeta};
use crate::error::Result;
use crate::losses::{commit, context, embed, mmd, reconstruction, usage, zipf};
use crate::torch::{Params, Rng, number, setting, tensor};

/// The parts of a loss: their weighted sum and each one's value for the metrics.
#[derive(Debug, Default)]
pub struct Sum {
    total: Option<Tensor>,
    /// Value of each part, before its weight.
    pub parts: Map<String, Value>,
}

impl Sum {
    /// Adds weight · value(); nothing is computed for a weight of 0.
    pub fn add(&mut self, name: &str, weight: f64, value: impl FnOnce() -> Tensor) {
        if weight > 0.0 {
            let value = value();
            self.parts.insert(name.to_owned(), number(&value).into());
            let weighted = value * weight;
            self.total = Some(self.total.take().map_or(weighted.shallow_clone(), |t| t + &weighted));
        }
    }

    /// The weighted sum, if there was any part.
    pub fn total(&self) -> Option<&Tensor> {
        self.total.as_ref()
    }
}

/// The modules that only the losses need.
#[derive(Debug)]
pub struct Objective {
    settings: Losses,
    head: Option<Head>,
    decoder: Option<Decoder>,
    mmd: Option<Embeddings>,
}

/// Token embeddings of a LLaMA and what the codes pass through before they are compared.
#[derive(Debug)]
struct Embeddings {
    /// [vocab, hidden], prepared as the map says.
    rows: Tensor,
    /// [hidden, dim] and `[hidden]`
    affine: Option<(Tensor, Tensor)>,
}

impl Embeddings {
    fn read(params: &mut Params, settings: &Losses, dim: usize, clip: f64) -> Result<Self> {
        let base = artifacts::open::<BaseMeta>(&settings.mmd_base)?;
        let (vocab, hidden) = (base.meta.config.vocab_size, base.meta.config.hidden_size);
        let rows = base.floats("model.embed_tokens.weight", &[vocab, hidden])?;
        let rows = tensor(&rows, &[vocab as i64, hidden as i64], params.device());
        if settings.mmd_map != mmd::Map::Affine && dim != hidden {
            return Err(setting(
                "losses.mmd_map",
                format!("affine, as a code has {dim} features and an embedding {hidden}"),
                "raw or standardised",
            ));
        }
        let mean = rows.mean_dim([0i64].as_slice(), false, Kind::Float);
        Ok(match settings.mmd_map {
            mmd::Map::Raw => Self { rows, affine: None },
            mmd::Map::Standardised => {
                let centred = &rows - &mean;
                let norm = centred.square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float).sqrt().mean(Kind::Float);
                Self { rows: centred / norm * clip, affine: None }
            }
            mmd::Map::Affine => {
                let weight = params.uniform("mmd.weight", &[hidden as i64, dim as i64], 1.0 / (dim as f32).sqrt());
                let bias = params.add("mmd.bias", &mean);
                Self { rows, affine: Some((weight, bias)) }
            }
        })
    }
}

/// What is said in sentences, and what it is called.
#[derive(Clone, Copy, Debug)]
pub enum Spoken<'a> {
    /// One action a sentence: labels [batch], i64.
    Whole(&'a Tensor),
    /// Several in one.
    Parts(&'a Parts),
}

impl Spoken<'_> {
    /// Mean cross-entropy of the labels that `head` reads from features or codes [batch, w, dim].
    fn loss(self, head: &Head, features: &Tensor, smoothing: f64) -> Tensor {
        match self {
            Self::Whole(labels) => head.loss(&segment_means(features, head.segments()), labels, smoothing),
            // Windows too short to show anything.
            Self::Parts(parts) if parts.ends.is_empty() => features.sum(Kind::Float) * 0.0,
            Self::Parts(parts) => head.loss(&parts.means(features), &parts.labels, smoothing),
        }
    }
}

/// What one step of phase two works on.
#[derive(Debug)]
pub struct Batch<'a> {
    /// [batch, frames, inputs]
    pub inputs: &'a Tensor,
    /// What the head is to read of the features.
    pub spoken: Spoken<'a>,
    /// [batch, w, dim]
    pub features: &'a Tensor,
}

impl Objective {
    /// Modules for the weights that are above 0.
    pub fn new(params: &mut Params, config: &Config, encoder: &EncoderConfig, classes: usize) -> Result<Self> {
        let (settings, clip) = (&config.losses, f64::from(config.quantizer.clip));
        let head = settings.supervised().then(|| Head::new(params, encoder.outputs, config.encoder.members, classes, settings));
        let decoder = (settings.reconstruction > 0.0).then(|| Decoder::new(params, encoder));
        let mmd = (settings.mmd > 0.0).then(|| Embeddings::read(params, settings, encoder.outputs, clip)).transpose()?;
        Ok(Self { settings: settings.clone(), head, decoder, mmd })
    }

    /// The affine map between codes and token embeddings, [hidden, dim] and `[hidden]`, where the MMD learns one.
    pub fn word_map(&self) -> Option<(&Tensor, &Tensor)> {
        self.mmd.as_ref().and_then(|embeddings| embeddings.affine.as_ref()).map(|(weight, bias)| (weight, bias))
    }

    /// The classification head, where there is one.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The decoder, where the run reconstructs.
    pub fn decoder(&self) -> Option<&Decoder> {
        self.decoder.as_ref()
    }

    /// Phase one: features straight into head and decoder.
    pub fn of_features(&self, batch: &Batch<'_>) -> Sum {
        let mut sum = Sum::default();
        if let Some(head) = &self.head {
            let loss = || batch.spoken.loss(head, batch.features, self.settings.label_smoothing);
            // Alone in this phase: how strong it is beside the other losses matters only later.
            let weight = if self.settings.supervised_features > 0.0 { 1.0 } else { 0.0 };
            sum.add("supervised_features", weight, loss);
        }
        if let Some(decoder) = &self.decoder {
            let loss = || reconstruction::loss(&decoder.forward(batch.features), batch.inputs, self.settings.velocity);
            sum.add("reconstruction", self.settings.reconstruction, loss);
        }
        sum
    }

    /// Phase two, `done` steps into it: everything through the codebook. Also returns the nearest codes [batch · w].
    pub fn of_codes(&self, batch: &Batch<'_>, codebook: &Codebook, done: usize, rng: &mut Rng) -> (Sum, Tensor) {
        let settings = &self.settings;
        let [clips, _, dim] = batch.features.size()[..] else { return (Sum::default(), Tensor::new()) };
        let flat = batch.features.reshape([-1, dim]);
        let (nearest, codes) = codebook.quantize(&flat);
        // The code forwards, the feature backwards.
        let through = (&flat + (&codes - &flat).detach()).view_as(batch.features);
        let mut sum = Sum::default();
        if let Some(head) = &self.head {
            let smoothing = settings.label_smoothing;
            sum.add("supervised_codes", settings.supervised_codes, || batch.spoken.loss(head, &through, smoothing));
            sum.add("supervised_features", settings.supervised_features, || batch.spoken.loss(head, batch.features, smoothing));
        }
        if let Some(decoder) = &self.decoder {
            let loss = || reconstruction::loss(&decoder.forward(&through), batch.inputs, settings.velocity);
            sum.add("reconstruction", settings.reconstruction, loss);
        }
        sum.add("embed", settings.embed, || embed::loss(&flat, &codes));
        sum.add("commit", settings.commit, || commit::loss(&flat, &codes, settings.commit_metric, codebook.ball()));
        let ramp = if settings.bias_ramp == 0 { 1.0 } else { ((done + 1) as f64 / settings.bias_ramp as f64).min(1.0) };
        if settings.zipf > 0.0 || settings.context > 0.0 {
            let logits = codebook.ball().distances(&flat, codebook.tangent()) * -settings.beta;
            let one_hot = usage::one_hot(&logits, settings.tau, true);
            let per_clip = usage::per_clip(&one_hot, clips);
            sum.add("zipf", settings.zipf * ramp, || zipf::loss(&per_clip.sum_dim_intlist([0i64].as_slice(), false, Kind::Float)));
            sum.add("context", settings.context * ramp, || context::loss(&per_clip));
        }
        if let Some(embeddings) = &self.mmd {
            let vocabulary = embeddings.rows.size()[0] as usize;
            let drawn: Vec<i64> = (0..settings.mmd_rows).map(|_| rng.below(vocabulary) as i64).collect();
            let sample = embeddings.rows.index_select(0, &Tensor::from_slice(&drawn).to_device(flat.device()));
            let codes = if settings.mmd_ball { codebook.ball().exp0(codebook.tangent()) } else { codebook.tangent().shallow_clone() };
            let mapped = match &embeddings.affine {
                Some((weight, bias)) => codes.linear(weight, Some(bias)),
                None => codes,
            };
            sum.add("mmd", settings.mmd * ramp, || mmd::loss(&mapped, &sample));
        }
        (sum, nearest)
    }
}
