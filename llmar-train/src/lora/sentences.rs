//! Action sentences of clips, told differently every time.

use super::config::Variation;
use crate::error::Result;
use crate::torch::Rng;
use crate::vqvae::{ClipSet, Stage1};

/// Sentences of the plain clips of a set.
pub fn plain(stage1: &Stage1, set: &ClipSet) -> Result<Vec<Vec<u16>>> {
    let clips = (0..set.len()).map(|clip| set.plain(&stage1.meta.preprocess, clip)).collect::<Result<Vec<_>>>()?;
    stage1.tokens(&clips)
}

/// Sentences of training clips, changed as the settings say; `rng` is the step's.
pub fn varied(stage1: &Stage1, set: &ClipSet, clips: &[usize], settings: &Variation, seed: u64, rng: &mut Rng) -> Result<Vec<Vec<u16>>> {
    let preprocess = &stage1.meta.preprocess;
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
    let mut sentences = stage1.tokens(&prepared)?;
    for token in sentences.iter_mut().flatten() {
        if rng.unit() < settings.replace {
            *token = rng.below(stage1.meta.quantizer.codes) as u16;
        }
    }
    Ok(sentences)
}
