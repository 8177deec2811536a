//! Windows of streams of made-up clips: how long they are, what they are called, what they depend on.

use llmar::formats::ClipArchive;
use llmar::skeleton::prepare;

use super::super::dataset::ClipSet;
use super::super::tests::small_run;
use super::*;

const SETS: [&str; 5] =
    ["input.resample={kind=\"live\",fps=30.0}", "encoder.causal=true", "data.idle=\"stand still\"", "input.frames=64", "augment.limb=0.1"];

/// The made-up archive's training clips (24 rows each, three classes), and what they are prepared by.
fn made_up() -> Result<(tempfile::TempDir, super::super::Config, ClipSet, Preprocess)> {
    let (folder, config) = small_run(&SETS)?;
    let (train, _, preprocess) = ClipSet::read_and_measure(&config.data, &config.input)?;
    Ok((folder, config, train, preprocess))
}

fn settings(windows: Windows) -> Augment {
    Augment { windows: Some(windows), ..Augment::none() }
}

#[test]
fn batches_are_of_one_length_within_the_settings_and_repeat() -> Result<()> {
    let (_folder, config, set, preprocess) = made_up()?;
    let Some(streams) = set.streams(4) else { return Err(setting("streams", "some", "none")) };
    assert_eq!((set.classes.last().map(String::as_str), set.idle()), (Some("stand still"), Some(3)));
    let augment = Augment { windows: Some(Windows { tokens: (2, 9), ..Windows::default() }), ..config.augment };
    let which: Vec<usize> = (0..set.len()).collect();
    let (mut lengths, mut labels) = (vec![0; 20], vec![0; 4]);
    for step in 0..60 {
        let batch = streams.batch(&augment, &preprocess, &which, &mut Rng::new(5, "windows", step))?;
        assert_eq!(batch, streams.batch(&augment, &preprocess, &which, &mut Rng::new(5, "windows", step))?);
        let rows: Vec<usize> = batch.inputs.iter().map(|input| input.len() / preprocess.features()).collect();
        assert!(rows.iter().all(|rows| *rows == rows_of(&batch, &preprocess)), "{rows:?}");
        assert_eq!((batch.inputs.len(), batch.labels.len()), (set.len(), set.len()));
        lengths[rows[0] / 4] += 1;
        batch.labels.iter().for_each(|label| labels[*label] += 1);
        for part in &batch.parts {
            let rising = part.tokens.windows(2).all(|two| two[0].0 + 1 == two[1].0 && two[0].1 < two[1].1);
            assert!(rising && part.tokens.iter().all(|(_, progress)| (0.0..1.0).contains(progress)), "{part:?}");
            assert!(part.ends.is_none_or(|window| batch.labels[window] == part.label));
        }
    }
    assert!(lengths[2..=9].iter().all(|n| *n > 0) && lengths[..2].iter().chain(&lengths[10..]).all(|n| *n == 0), "{lengths:?}");
    assert!(labels.iter().all(|n| *n > 60), "{labels:?}");
    let one = |seed| streams.batch(&augment, &preprocess, &which, &mut Rng::new(seed, "windows", 0));
    assert_ne!(one(5)?, one(6)?);
    Ok(())
}

fn rows_of(batch: &Batch, preprocess: &Preprocess) -> usize {
    batch.inputs[0].len() / preprocess.features()
}

#[test]
fn labels_follow_from_the_time() -> Result<()> {
    let (_folder, _, set, preprocess) = made_up()?;
    let Some(streams) = set.streams(4) else { return Err(setting("streams", "some", "none")) };
    // Clips of 24 rows at 30 rows a second: told from row 9 (the tenth) to .3 s = 9 rows after the end, over from the 24th row after it.
    let exact = settings(Windows { tempo: 0.0, sway: 0.0, alone: 1.0, repeat: 0.0, ..Windows::default() });
    let (mut seen, label) = ([0usize; 3], set.labels()[4]);
    for step in 0..200 {
        let mut rng = Rng::new(1, "labels", step);
        let ends = [Ends::Acting, Ends::Soon, Ends::Resting][(step % 3) as usize];
        let Stream { rows, moments } = streams.window(&exact, &preprocess, (4, ends), 48, &mut rng);
        assert_eq!((moments.len(), rows.len()), (48, 48 * 60));
        let Some(last) = moments.last().and_then(|moment| moment.label) else { return Err(setting("window", "a label", "none")) };
        assert_eq!(last, if ends == Ends::Acting { label } else { 3 }, "{ends:?}");
        if ends == Ends::Resting {
            assert!(moments.iter().all(|moment| moment.label == Some(3)));
        }
        // Rows of the clip are those of piece 0; before it the body stands still, with nothing before.
        let Some(begins) = moments.iter().position(|moment| moment.piece.is_some_and(|piece| piece.label == label)) else { continue };
        seen[(step % 3) as usize] += 1;
        let cut = moments[begins].piece.map_or(0, |piece| (piece.progress * 24.0).round() as usize);
        for (i, moment) in moments.iter().enumerate() {
            let at = (i + cut).checked_sub(begins);
            let expected = match at {
                None => Some(3),
                Some(0..=8) => None,
                Some(9..=32) => Some(label),
                Some(33..=46) => None,
                Some(_) => Some(3),
            };
            assert_eq!(moment.label, expected, "row {at:?} of the clip, {ends:?}");
        }
    }
    assert!(seen[0] > 50 && seen[1] > 20, "{seen:?}");
    Ok(())
}

#[test]
fn what_came_before_is_of_the_same_body_and_joins_on() -> Result<()> {
    let (_folder, _, set, preprocess) = made_up()?;
    let Some(streams) = set.streams(4) else { return Err(setting("streams", "some", "none")) };
    let others = |repeat: f32| settings(Windows { sway: 0.0, alone: 0.0, repeat, ..Windows::default() });
    let (mut far, mut labels) = (0.0_f32, [0usize; 4]);
    for step in 0..100 {
        let repeat = if step < 50 { 0.0 } else { 1.0 };
        let Stream { rows, moments } = streams.window(&others(repeat), &preprocess, (7, Ends::Acting), 60, &mut Rng::new(2, "joins", step));
        let steps = rows.windows(61).step_by(1).map(|two| (two[60] - two[0]).abs());
        far = far.max(steps.fold(0.0, f32::max));
        for moment in &moments {
            let Some(piece) = moment.piece else { continue };
            if step >= 50 && Some(piece.label) != streams.idle {
                assert_eq!(piece.label, set.labels()[7]);
            }
            labels[piece.label] += 1;
        }
    }
    // A hand of the made-up clips goes at most .1 m in a row, a joint moved over to another pose at most .8 m in six rows.
    assert!(far < 0.35, "a joint jumps by {far}");
    assert!(labels.iter().all(|n| *n > 0), "{labels:?}");
    // Subject 1 alone is trained on here (2 validates, 3 tests): a stranger's clips are not drawn.
    let strangers: Vec<i64> = (0..set.len() as i64).collect();
    let alone = Clips { subjects: &strangers, ..streams };
    let Stream { moments, .. } = alone.window(&others(0.0), &preprocess, (7, Ends::Acting), 60, &mut Rng::new(2, "joins", 0));
    let of_others = moments.iter().filter_map(|moment| moment.piece).any(|piece| piece.label != set.labels()[7] && piece.label != 3);
    assert!(!of_others);
    Ok(())
}

#[test]
fn a_window_holds_nothing_of_what_comes_after_it() -> Result<()> {
    let (_folder, _, set, preprocess) = made_up()?;
    let Some(streams) = set.streams(4) else { return Err(setting("streams", "some", "none")) };
    let exact = settings(Windows { tempo: 0.0, sway: 0.0, ..Windows::default() });
    // Features of the first rows of a window are those of the shorter window that ends there.
    let stream = streams.window(&exact, &preprocess, (2, Ends::Acting), 32, &mut Rng::new(3, "causal", 0));
    let width = stream.rows.len() / 32;
    let features = |rows: usize| -> Result<Vec<f32>> {
        let mut placed = stream.rows[..rows * width].to_vec();
        Space::new(&preprocess)?.place_all(&mut placed)?;
        Ok(live_features(&preprocess, &placed)?)
    };
    let (short, long) = (features(8)?, features(32)?);
    assert_eq!(short, long[..short.len()]);
    Ok(())
}

#[test]
fn a_whole_clip_is_what_the_runtime_reads() -> Result<()> {
    let (_folder, config, set, preprocess) = made_up()?;
    let archive = ClipArchive::read(&config.data.archive)?;
    // The first three clips are of subject 1, the next three of subject 2, whose clips validate.
    let at = |clip: usize| clip / 3 * 9 + clip % 3;
    for clip in [0, 3, 10] {
        assert_eq!(set.plain(&preprocess, clip)?, prepare(&preprocess, &archive.clips[at(clip)].view())?.features, "clip {clip}");
    }
    let Some(streams) = set.streams(4) else { return Err(setting("streams", "some", "none")) };
    let whole = settings(Windows { tokens: (6, 6), whole: 1.0, sway: 0.0, ..Windows::default() });
    let batch = streams.batch(&whole, &preprocess, &[0, 1, 2, 3], &mut Rng::new(4, "whole", 0))?;
    for (input, label) in batch.inputs.iter().zip(&batch.labels) {
        let same = |clip: &usize| {
            let plain = set.plain(&preprocess, *clip).unwrap_or_default();
            plain.len() == input.len() && plain.iter().zip(input).all(|(a, b)| (a - b).abs() < 1e-3)
        };
        let found = (0..set.len()).find(same);
        assert_eq!(found.map(|clip| set.labels()[clip]), Some(*label));
    }
    Ok(())
}
