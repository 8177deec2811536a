//! Action sentences of clips, told differently every time.

use std::collections::BTreeMap;
use std::ops::Range;

use llmar::skeleton::Preprocess;
use tch::Tensor;

use super::adapter::CodeMap;
use super::config::Variation;
use crate::artifacts::Reads;
use crate::error::Result;
use crate::torch::Rng;
use crate::vqvae::{ClipSet, Stage1};

/// What the language model is to read of some clips, before it is mapped to rows.
#[derive(Debug)]
pub enum Sentences {
    /// W tokens a clip; of live models, of which only equally long ones go into one pass, any number.
    Codes(Vec<Vec<u16>>),
    /// Clipped tangent features [clips, w, dim].
    Features(Tensor),
}

impl Sentences {
    /// Of prepared clips, [frames · inputs] each.
    pub fn of(reads: Reads, stage1: &Stage1, prepared: &[Vec<f32>]) -> Result<Self> {
        Ok(match reads {
            Reads::Codes => Self::Codes(stage1.tokens(prepared)?),
            Reads::Features => Self::Features(Tensor::cat(&prepared.chunks(64).map(|part| stage1.features(part)).collect::<Vec<_>>(), 0)),
        })
    }

    /// Clips whose sentences are equally long, each kind with its length. Features are all of one.
    pub fn alike(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut alike: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        match self {
            Self::Codes(sentences) => {
                sentences.iter().enumerate().for_each(|(clip, sentence)| alike.entry(sentence.len()).or_default().push(clip));
            }
            Self::Features(features) => {
                alike.insert(features.size()[1] as usize, (0..features.size()[0] as usize).collect());
            }
        }
        alike
    }

    /// Those of some of the clips.
    pub fn some(&self, clips: &[usize]) -> Self {
        match self {
            Self::Codes(sentences) => Self::Codes(clips.iter().map(|clip| sentences[*clip].clone()).collect()),
            Self::Features(features) => {
                let which: Vec<i64> = clips.iter().map(|clip| *clip as i64).collect();
                Self::Features(features.index_select(0, &Tensor::from_slice(&which).to_device(features.device())))
            }
        }
    }

    /// Rows [clips, w, hidden] of some of the clips, which are equally long; `codes` [codes, hidden] are the map's embeddings.
    pub fn rows(&self, map: &CodeMap, codes: &Tensor, clips: Range<usize>) -> Tensor {
        match self {
            Self::Codes(sentences) => code_rows(codes, &sentences[clips]),
            Self::Features(features) => map.of_features(&features.narrow(0, clips.start as i64, clips.len() as i64)),
        }
    }
}

/// Rows [sentences, w, hidden] of equally long sentences, from the codes' embeddings [codes, hidden].
pub fn code_rows(codes: &Tensor, sentences: &[Vec<u16>]) -> Tensor {
    let ids: Vec<i64> = sentences.iter().flatten().map(|t| i64::from(*t)).collect();
    codes.index_select(0, &Tensor::from_slice(&ids).to_device(codes.device())).view([sentences.len() as i64, -1, codes.size()[1]])
}

/// Sentences of the plain clips of a set.
pub fn plain(reads: Reads, stage1: &Stage1, set: &ClipSet) -> Result<Sentences> {
    let clips = (0..set.len()).map(|clip| set.plain(&stage1.meta.preprocess, clip)).collect::<Result<Vec<_>>>()?;
    if clips.is_empty() {
        return Ok(Sentences::Codes(Vec::new()));
    }
    Sentences::of(reads, stage1, &clips)
}

/// Training clips of one step, changed as the settings say and prepared [frames · inputs], and their labels: what needs no tensors, and so can be done
/// ahead. Of live models, windows that end in or after them, of one length in each pass of `micro_batch`.
pub fn varied(
    settings: &Variation,
    (preprocess, halved, micro_batch): (&Preprocess, usize, usize),
    set: &ClipSet,
    clips: &[usize],
    seed: u64,
    rng: &mut Rng,
) -> Result<(Vec<Vec<f32>>, Vec<usize>)> {
    if let Some(streams) = set.streams(halved) {
        let (mut prepared, mut labels) = (Vec::with_capacity(clips.len()), Vec::with_capacity(clips.len()));
        for part in clips.chunks(micro_batch) {
            let batch = streams.batch(&settings.clip, preprocess, part, rng)?;
            prepared.extend(batch.inputs);
            labels.extend(batch.labels);
        }
        return Ok((prepared, labels));
    }
    let mut prepared = Vec::with_capacity(clips.len());
    for &clip in clips {
        prepared.push(if rng.unit() < settings.plain {
            set.plain(preprocess, clip)?
        } else if settings.views == 0 {
            set.augmented(&settings.clip, preprocess, clip, rng)?
        } else {
            // A view is known by its number: it needs no store.
            let view = clip * settings.views + rng.below(settings.views);
            set.augmented(&settings.clip, preprocess, clip, &mut Rng::new(seed, "view", view as u64))?
        });
    }
    Ok((prepared, clips.iter().map(|clip| set.labels()[*clip]).collect()))
}

/// Sentences of prepared clips, some tokens replaced; `rng` is the step's.
pub fn told(reads: Reads, settings: &Variation, stage1: &Stage1, prepared: &[Vec<f32>], rng: &mut Rng) -> Result<Sentences> {
    let mut sentences = Sentences::of(reads, stage1, prepared)?;
    if let Sentences::Codes(sentences) = &mut sentences {
        for token in sentences.iter_mut().flatten() {
            if rng.unit() < settings.replace {
                *token = rng.below(stage1.meta.quantizer.codes) as u16;
            }
        }
    }
    Ok(sentences)
}
