//! What the tokens keep of a clip: the decoder's reading of its sentence beside the clip as the encoder saw it.

use llmar::device::Device;
use llmar::skeleton::{Layout, Preprocess, Resample, canonical, prepare, resampled};
use serde::Serialize;

use super::clips::{Joints, Motion, Skeleton};
use super::decoder::Decoder;
use super::html::{Part, count};
use super::material::{DECODER, Material, STAGE1};
use crate::error::{Error, Result};

const TITLE: &str = "Reconstructions";
/// Most clips shown, each of another class.
const CLIPS: usize = 12;

#[derive(Serialize)]
struct Pairs {
    skeleton: Skeleton,
    /// Frames a token stands for.
    frames_a_token: usize,
    pairs: Vec<Pair>,
}

#[derive(Serialize)]
struct Pair {
    class: String,
    clip: String,
    tokens: Vec<u16>,
    original: Motion,
    rebuilt: Motion,
    /// Mean distance between a joint and its reconstruction, in the model's unit.
    error: f64,
}

/// A clip of each of a few classes, original and reconstruction in motion.
pub fn section(material: &Material) -> Result<Part> {
    let Some(file) = &material.decoder else {
        return Part::missing(TITLE, format!("{DECODER} is missing (stage 1 writes it when losses.reconstruction is above 0)"));
    };
    let (Some(stage1), Some(codebook)) = (&material.stage1, &material.codebook) else {
        return Part::missing(TITLE, format!("{STAGE1}, whose codes the decoder reads, is missing"));
    };
    let (Some(side), Some(sentences)) = (&material.side, &material.sentences) else {
        return Part::missing(TITLE, "there are no clips (--data and --split name them)");
    };
    let decoder = Decoder::read(file)?;
    if *decoder.config() != stage1.meta.encoder {
        return Err(file.wrong(format!("expected the shape of the encoder in {STAGE1}, got another")));
    }
    let (preprocess, device) = (&stage1.meta.preprocess, Device::cpu(1)?);
    let layout = drawn_layout(preprocess)?;
    let dim = codebook.config.dim;
    let mut pairs = Vec::new();
    for clip in one_a_class((0..side.chosen.len()).map(|clip| side.archive.labels[side.chosen[clip]])) {
        let owned = &side.archive.clips[side.chosen[clip]];
        let live = matches!(preprocess.resample, Resample::Live { .. });
        let mut original = match live {
            true => positions(preprocess, &prepare(preprocess, &owned.view())?.features),
            false => resampled(preprocess, &canonical(preprocess, &owned.view())?)?,
        };
        let tokens = sentences[clip].clone();
        let codes: Vec<f32> = tokens.iter().flat_map(|&t| &codebook.tangent[usize::from(t) * dim..][..dim]).copied().collect();
        let rebuilt = positions(preprocess, &decoder.forward(&device, &codes)?);
        if live {
            original.truncate(rebuilt.len()); // what is less than a token is not read
        }
        if rebuilt.len() != original.len() {
            let got = format!("expected {} positions of a clip, got {}", original.len(), rebuilt.len());
            return Err(Error::format(DECODER, got));
        }
        let joints = |values| Joints {
            values,
            valid: None,
            persons: preprocess.persons,
            per_person: layout.joints.len(),
            coords: preprocess.coords,
        };
        let fps = Some(match preprocess.resample {
            Resample::Live { fps } => fps,
            Resample::Stretch | Resample::Rate { .. } => preprocess.frames as f32 * owned.fps.unwrap_or(30.0) / owned.frames.max(1) as f32,
        });
        pairs.push(Pair {
            class: side.class(clip).to_owned(),
            clip: owned.name.clone(),
            error: mean_distance(&original, &rebuilt, preprocess.coords),
            original: Motion::of(&joints(&original), fps, &layout),
            rebuilt: Motion::of(&joints(&rebuilt), fps, &layout),
            tokens,
        });
    }
    let classes = side.archive.classes.len();
    let html = format!(
        "<p class=note>{} of {classes} classes, the first clip of each. Left: the clip as the encoder reads it, {} frames. Right: what stage 1's decoder makes of \
         its {} tokens alone; a token stands for {} frames. The figure is the mean distance between a joint and its reconstruction, in the model's unit. Drag \
         a figure to turn all of them.</p><div id=pairs-bar class=transport></div><div id=pairs class=pairs></div>",
        count(pairs.len(), "clip"),
        preprocess.frames,
        stage1.meta.encoder.tokens(preprocess.frames),
        1 << stage1.meta.encoder.halvings,
    );
    let frames_a_token = 1 << stage1.meta.encoder.halvings;
    Part::shown("reconstructions", TITLE, html, &Pairs { skeleton: Skeleton::of(&layout), frames_a_token, pairs })
}

/// The model's layout with its bones: a known layout of that name has them, the model's own list of joints does not.
fn drawn_layout(preprocess: &Preprocess) -> Result<Layout> {
    match Layout::find(&preprocess.layout) {
        Ok(known) => Ok(known),
        Err(_) => Ok(Layout::new(&preprocess.layout, &preprocess.joints)?),
    }
}

/// The first clip of each class, of at most [`CLIPS`] classes spread evenly over those that occur.
fn one_a_class(labels: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut first = std::collections::BTreeMap::new();
    labels.enumerate().for_each(|(clip, label)| {
        first.entry(label).or_insert(clip);
    });
    let all: Vec<usize> = first.into_values().collect();
    let shown = all.len().min(CLIPS);
    (0..shown).map(|i| all[i * all.len() / shown]).collect()
}

/// The opposite of `llmar::skeleton::standardised`: positions [frames, persons · joints · coords] of features [frames, features].
fn positions(preprocess: &Preprocess, features: &[f32]) -> Vec<f32> {
    let frames = features.chunks_exact(preprocess.features());
    frames.flat_map(|frame| frame.iter().zip(&preprocess.mean).map(|(x, mean)| x * preprocess.position_spread + mean)).collect()
}

/// Mean Euclidean distance between the points of two lists.
fn mean_distance(a: &[f32], b: &[f32], coords: usize) -> f64 {
    let distance = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let pairs = a.chunks_exact(coords).zip(b.chunks_exact(coords));
    pairs.map(distance).sum::<f64>() / (a.len() / coords).max(1) as f64
}

#[cfg(test)]
mod tests {
    use llmar::skeleton::{Centre, Heading, Resample, Scale, standardised};

    use super::*;

    #[test]
    fn positions_undo_the_standardisation() {
        let layout = Layout::find("kinect1_20").unwrap();
        for (velocities, persons) in [(true, 1), (false, 2)] {
            let width = persons * 20 * 3;
            let preprocess = Preprocess {
                layout: layout.name.clone(),
                joints: layout.joints.clone(),
                derived: vec![],
                persons,
                coords: 3,
                frames: 5,
                resample: Resample::Stretch,
                root: "hip_center".into(),
                centre: Centre::FirstFrame,
                heading: Heading::Keep,
                scale: Scale::Keep,
                velocities,
                mean: (0..width).map(|i| i as f32 / 7.0).collect(),
                position_spread: 0.4,
                velocity_spread: 0.05,
            };
            let mut random = crate::testing::Random::new(2);
            let original: Vec<f32> = (0..5 * width).map(|_| random.uniform()).collect();
            let back = positions(&preprocess, &standardised(&preprocess, &original, &vec![true; persons]).unwrap());
            assert_eq!(back.len(), original.len());
            assert!(mean_distance(&back, &original, 3) < 1e-5);
        }
    }

    #[test]
    fn clips_are_spread_over_the_classes() {
        assert_eq!(one_a_class([2usize, 2, 0, 1, 0].into_iter()), [2, 3, 0]);
        let shown = one_a_class((0..54).map(|clip| clip / 2));
        assert_eq!((shown.len(), shown[0], shown[11]), (12, 0, 48));
        assert!(one_a_class(std::iter::empty()).is_empty());
    }

    #[test]
    fn distance_is_the_mean_over_joints() {
        assert!((mean_distance(&[0.0, 0.0, 1.0, 1.0], &[3.0, 4.0, 1.0, 1.0], 2) - 2.5).abs() < 1e-12);
    }
}
