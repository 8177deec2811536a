//! The clips of a run: canonical form once, then plain or augmented features on demand. Of live models, clips as a stream gives them, and windows.

use llmar::formats::ClipArchive;
use llmar::skeleton::{Canonical, Layout, Preprocess, Resample, canonical, live_features, resampled, standardised};

use super::augment::{Augment, Joints, augment, drop_joints};
use super::config::{Data, Input};
use super::live;
use crate::error::Result;
use crate::torch::{Rng, setting};

/// Clips in canonical form (of live models: as a stream gives them) with their labels.
#[derive(Debug)]
pub struct ClipSet {
    /// Class names; the idle one, where there is one, is the last.
    pub classes: Vec<String>,
    clips: Vec<Canonical>,
    labels: Vec<usize>,
    joints: Joints,
    /// Of each clip, where the archive says it.
    subjects: Vec<i64>,
    /// Label that says that nothing happens.
    idle: Option<usize>,
    /// Whether windows are read.
    live: bool,
}

/// The sides of an archive that a run sees, and the classes it knows.
struct Sides {
    train: Vec<usize>,
    validation: Vec<usize>,
    test: Vec<usize>,
    /// Classes of the archive without the unseen ones.
    classes: Vec<usize>,
}

/// Takes an archive apart. Clips of unseen classes are on no side.
fn sides(archive: &ClipArchive, data: &Data) -> Result<Sides> {
    let test = archive.splits.get(&data.split).ok_or_else(|| {
        let names: Vec<&String> = archive.splits.keys().collect();
        setting("data.split", format!("one of {names:?}"), &data.split)
    })?;
    let known = |name: &String| archive.classes.contains(name);
    if let Some(name) = data.unseen.iter().find(|name| !known(name)) {
        return Err(setting("data.unseen", format!("classes of {:?}", archive.classes), name));
    }
    for (key, wanted, got) in [
        ("data.validation_subjects", &data.validation_subjects, &archive.subjects),
        ("data.validation_cameras", &data.validation_cameras, &archive.cameras),
    ] {
        if !wanted.is_empty() && got.is_empty() {
            return Err(setting(key, "none, as the archive does not say them", format!("{wanted:?}")));
        }
    }
    if let Some((which, of)) = data.validation_fold
        && (which >= of || of < 2)
    {
        return Err(setting("data.validation_fold", "which < of, of 2 or more", format!("{which}, {of}")));
    }
    let kept = match &data.only {
        Some(name) => Some(archive.flags.get(name).ok_or_else(|| {
            setting("data.only", format!("one of the archive's flags {:?}", archive.flags.keys().collect::<Vec<_>>()), name)
        })?),
        None => None,
    };
    let classes: Vec<usize> = (0..archive.classes.len()).filter(|c| !data.unseen.contains(&archive.classes[*c])).collect();
    let (test, seen): (Vec<usize>, Vec<usize>) = (0..archive.clips.len())
        .filter(|i| kept.is_none_or(|kept| kept[*i]) && classes.contains(&archive.labels[*i]))
        .partition(|i| test[*i]);
    let mut in_fold = vec![false; archive.clips.len()];
    if let Some((which, of)) = data.validation_fold {
        for class in &classes {
            let of_class: Vec<usize> = seen.iter().copied().filter(|i| archive.labels[*i] == *class).collect();
            of_class.iter().enumerate().for_each(|(place, i)| in_fold[*i] = place * of / of_class.len() == which);
        }
    }
    let fits = |wanted: &[i64], got: &[i64], i: usize| wanted.is_empty() || got.get(i).is_some_and(|value| wanted.contains(value));
    let held_out = |i: &usize| {
        data.validates()
            && fits(&data.validation_subjects, &archive.subjects, *i)
            && fits(&data.validation_cameras, &archive.cameras, *i)
            && (data.validation_fold.is_none() || in_fold[*i])
    };
    let (validation, train): (Vec<usize>, Vec<usize>) = seen.iter().copied().partition(held_out);
    if train.is_empty() {
        return Err(setting("data.split", "clips to train on", format!("none in {}", data.split)));
    }
    if data.validates() && validation.is_empty() {
        return Err(setting("data.validation_subjects", "subjects, cameras or a fold of the training side", format!("{data:?}")));
    }
    Ok(Sides { train, validation, test, classes })
}

impl ClipSet {
    fn new(archive: &ClipArchive, data: &Data, preprocess: &Preprocess, which: &[usize], classes: &[usize]) -> Result<Self> {
        let live = matches!(preprocess.resample, Resample::Live { .. });
        let read = |i: &usize| {
            let clip = &archive.clips[*i].view();
            if live { live::read(preprocess, clip) } else { Ok(canonical(preprocess, clip)?) }
        };
        let clips = which.iter().map(read).collect::<Result<_>>()?;
        let layout = Layout::find(&preprocess.layout)?;
        let called = data.called(&archive.classes)?;
        let mut names: Vec<String> = classes.iter().map(|c| called[*c].clone()).collect();
        if let Some(idle) = &data.idle {
            if !live || names.contains(idle) {
                let expected = if live { "a name that no class has" } else { "none, as the model is not live" };
                return Err(setting("data.idle", expected, idle));
            }
            names.push(idle.clone());
        }
        Ok(Self {
            idle: data.idle.as_ref().map(|_| names.len() - 1),
            classes: names,
            clips,
            labels: which.iter().map(|i| classes.partition_point(|c| *c < archive.labels[*i])).collect(),
            joints: Joints::new(&layout),
            subjects: which.iter().filter_map(|i| archive.subjects.get(*i).copied()).collect(),
            live,
        })
    }

    /// Training and validation clips of a finished preprocessing (its statistics are kept).
    pub fn read(data: &Data, preprocess: &Preprocess) -> Result<(Self, Self)> {
        let archive = ClipArchive::read(&data.archive)?;
        let Sides { train, validation, classes, .. } = sides(&archive, data)?;
        Ok((Self::new(&archive, data, preprocess, &train, &classes)?, Self::new(&archive, data, preprocess, &validation, &classes)?))
    }

    /// Test clips of a finished preprocessing, without those of unseen classes. For measurements after a run, never for choices within it.
    pub fn read_test(data: &Data, preprocess: &Preprocess) -> Result<Self> {
        let archive = ClipArchive::read(&data.archive)?;
        let Sides { test, classes, .. } = sides(&archive, data)?;
        Self::new(&archive, data, preprocess, &test, &classes)
    }

    /// The same, with statistics computed from the plain training clips.
    pub fn read_and_measure(data: &Data, input: &Input) -> Result<(Self, Self, Preprocess)> {
        let archive = ClipArchive::read(&data.archive)?;
        let name = if input.layout.is_empty() { &archive.layout } else { &input.layout };
        let layout = Layout::find(name)?;
        let channels = input.persons * layout.joints.len() * input.coords;
        let mut preprocess = Preprocess {
            layout: layout.name.clone(),
            joints: layout.joints.clone(),
            derived: input.derived.clone(),
            persons: input.persons,
            coords: input.coords,
            frames: input.frames,
            resample: input.resample,
            root: input.root.clone(),
            centre: input.centre,
            heading: input.heading,
            scale: input.scale.clone(),
            velocities: input.velocities,
            mean: vec![0.0; channels],
            position_spread: 1.0,
            velocity_spread: 1.0,
        };
        preprocess.check()?;
        let Sides { train, validation, classes, .. } = sides(&archive, data)?;
        let train = Self::new(&archive, data, &preprocess, &train, &classes)?;
        let validation = Self::new(&archive, data, &preprocess, &validation, &classes)?;
        let plain = (0..train.len()).map(|clip| train.positions(&preprocess, clip)).collect::<Result<Vec<_>>>()?;
        let floor = (f64::from(input.spread_floor), f64::from(input.spread_share));
        let positions = plain.iter().flat_map(|clip| clip.chunks_exact(channels).map(<[f32]>::to_vec));
        let (mean, position_spread) = statistics(positions, channels, floor);
        let steps = |clip: &Vec<f32>| -> Vec<Vec<f32>> {
            let rows: Vec<&[f32]> = clip.chunks_exact(channels).collect();
            rows.windows(2).map(|w| w[1].iter().zip(w[0]).map(|(b, a)| b - a).collect()).collect()
        };
        let (_, velocity_spread) = statistics(plain.iter().flat_map(steps), channels, floor);
        preprocess.mean = mean.into_iter().map(|m| m as f32).collect();
        preprocess.position_spread = position_spread as f32;
        preprocess.velocity_spread = velocity_spread as f32;
        preprocess.check()?;
        Ok((train, validation, preprocess))
    }

    /// Number of clips.
    pub fn len(&self) -> usize {
        self.clips.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.clips.is_empty()
    }

    /// Label of each clip, below the number of classes.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Rows [frames, persons · joints · coords] of a clip before it is resampled, or of a live model placed.
    pub fn rows(&self, clip: usize) -> &[f32] {
        &self.clips[clip].joints
    }

    /// Label that says that nothing happens, where the model has one.
    pub fn idle(&self) -> Option<usize> {
        self.idle
    }

    /// Positions [frames, persons · joints · coords] of a clip as the runtime prepares it, before statistics.
    pub fn positions(&self, preprocess: &Preprocess, clip: usize) -> Result<Vec<f32>> {
        let clip = &self.clips[clip];
        if self.live { live::placed(preprocess, clip) } else { Ok(resampled(preprocess, clip)?) }
    }

    /// Features [frames, inputs] of a clip as the runtime prepares it; of live models as many frames as the clip has, up to the model's.
    pub fn plain(&self, preprocess: &Preprocess, clip: usize) -> Result<Vec<f32>> {
        let positions = self.positions(preprocess, clip)?;
        if self.live {
            return Ok(live_features(preprocess, &positions)?);
        }
        Ok(standardised(preprocess, &positions, &self.clips[clip].present)?)
    }

    /// For live models: what windows are made of, with tokens of `halved` rows.
    pub fn streams(&self, halved: usize) -> Option<live::Clips<'_>> {
        let Self { clips, labels, subjects, idle, joints, .. } = self;
        self.live.then_some(live::Clips { clips, labels, subjects, idle: *idle, joints, halved })
    }

    /// Features [frames, inputs] of a changed clip.
    pub fn augmented(&self, settings: &Augment, preprocess: &Preprocess, clip: usize, rng: &mut Rng) -> Result<Vec<f32>> {
        let clip = &self.clips[clip];
        let points = augment(settings, preprocess, &self.joints, clip, rng);
        let mut features = standardised(preprocess, &points, &clip.present)?;
        drop_joints(settings.joint_drop, preprocess, &mut features, rng);
        Ok(features)
    }
}

/// Mean of each channel, and one spread for all: the root mean square of the channels' standard deviations, each first raised to
/// max(floor, share · mean deviation). One spread for all joints keeps those that hardly move from becoming amplified noise.
fn statistics(rows: impl Iterator<Item = Vec<f32>> + Clone, channels: usize, (floor, share): (f64, f64)) -> (Vec<f64>, f64) {
    let (mut count, mut mean) = (0usize, vec![0f64; channels]);
    for row in rows.clone() {
        count += 1;
        mean.iter_mut().zip(&row).for_each(|(m, x)| *m += f64::from(*x));
    }
    let count = count.max(1) as f64;
    mean.iter_mut().for_each(|m| *m /= count);
    let mut squares = vec![0f64; channels];
    for row in rows {
        squares.iter_mut().zip(row.iter().zip(&mean)).for_each(|(s, (x, m))| *s += (f64::from(*x) - m).powi(2));
    }
    let deviations: Vec<f64> = squares.iter().map(|s| (s / count).sqrt()).collect();
    let least = floor.max(share * deviations.iter().sum::<f64>() / channels as f64).max(1e-9);
    let spread = (deviations.iter().map(|d| d.max(least).powi(2)).sum::<f64>() / channels as f64).sqrt();
    (mean, spread)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use llmar::formats::OwnedClip;

    use super::*;

    /// Twelve clips of three classes; clip i has subject i % 3 and camera i % 2, the last four are test clips, and odd ones are flagged.
    fn archive() -> ClipArchive {
        ClipArchive {
            name: "made up".to_owned(),
            classes: ["walk", "wave", "sit down"].map(str::to_owned).to_vec(),
            layout: "kinect1_20".to_owned(),
            fps: None,
            clips: (0..12).map(|i| clip(&i.to_string())).collect(),
            labels: (0..12).map(|i| i / 2 % 3).collect(),
            subjects: (0..12).map(|i| i % 3).collect(),
            cameras: (0..12).map(|i| i % 2).collect(),
            splits: [("last".to_owned(), (0..12).map(|i| i >= 8).collect())].into(),
            flags: [("odd".to_owned(), (0..12).map(|i| i % 2 == 1).collect())].into(),
        }
    }

    fn clip(name: &str) -> OwnedClip {
        let joints = vec![0.5; 20 * 3].into();
        let layout = "kinect1_20".to_owned();
        OwnedClip { name: name.to_owned(), joints, frames: 1, persons: 1, joints_per_person: 20, coords: 3, fps: None, layout, valid: None }
    }

    fn data() -> Data {
        Data {
            archive: "made_up.safetensors".into(),
            split: "last".to_owned(),
            only: None,
            validation_subjects: Vec::new(),
            validation_cameras: Vec::new(),
            validation_fold: None,
            unseen: Vec::new(),
            texts: BTreeMap::new(),
            idle: None,
        }
    }

    #[test]
    fn what_is_held_out_fits_all_that_is_given() -> Result<()> {
        let archive = archive();
        let sides_of = |data: &Data| sides(&archive, data).map(|s| (s.train, s.validation, s.test));
        assert_eq!(sides_of(&data())?, ((0..8).collect(), vec![], vec![8, 9, 10, 11]));
        let subject = Data { validation_subjects: vec![1], ..data() };
        assert_eq!(sides_of(&subject)?.1, [1, 4, 7]);
        let both = Data { validation_cameras: vec![1], ..subject.clone() };
        assert_eq!(sides_of(&both)?, (vec![0, 2, 3, 4, 5, 6], vec![1, 7], vec![8, 9, 10, 11]));
        let flagged = Data { only: Some("odd".to_owned()), ..subject };
        assert_eq!(sides_of(&flagged)?, (vec![3, 5], vec![1, 7], vec![9, 11]));
        // Walk has the training clips 0, 1, 6, 7; wave 2 and 3; sitting down 4 and 5: the second half of each.
        let fold = Data { validation_fold: Some((1, 2)), ..data() };
        assert_eq!(sides_of(&fold)?.1, [3, 5, 6, 7]);
        Ok(())
    }

    #[test]
    fn clips_of_unseen_classes_are_on_no_side() -> Result<()> {
        let seen = sides(&archive(), &Data { unseen: vec!["wave".to_owned()], ..data() })?;
        assert_eq!((seen.train, seen.test, seen.classes), (vec![0, 1, 4, 5, 6, 7], vec![10, 11], vec![0, 2]));
        Ok(())
    }

    #[test]
    fn texts_take_the_place_of_names() {
        let classes = archive().classes;
        let texts = |of: &[(&str, &str)]| Data { texts: of.iter().map(|(c, t)| ((*c).to_owned(), (*t).to_owned())).collect(), ..data() };
        let called = texts(&[("wave", "right hand left and right")]).called(&classes);
        assert_eq!(called.ok(), Some(vec![classes[0].clone(), "right hand left and right".to_owned(), classes[2].clone()]));
        for (wrong, got) in
            [(texts(&[("run", "both legs")]), "run"), (texts(&[("wave", " ")]), "\" \""), (texts(&[("wave", &classes[0])]), &classes[0])]
        {
            let error = wrong.called(&classes).err().map(|e| e.to_string());
            assert!(error.as_ref().is_some_and(|e| e.contains("data.texts") && e.contains(got)), "{got}: {error:?}");
        }
    }

    #[test]
    fn what_an_archive_does_not_have_is_named() {
        for (wrong, name) in [
            (Data { split: "first".to_owned(), ..data() }, "data.split"),
            (Data { only: Some("even".to_owned()), ..data() }, "data.only"),
            (Data { unseen: vec!["run".to_owned()], ..data() }, "data.unseen"),
            (Data { validation_subjects: vec![9], ..data() }, "data.validation_subjects"),
            (Data { validation_fold: Some((2, 2)), ..data() }, "data.validation_fold"),
        ] {
            let error = sides(&archive(), &wrong).err().map(|e| e.to_string());
            assert!(error.as_ref().is_some_and(|e| e.contains(name)), "{name}: {error:?}");
        }
        let without = ClipArchive { cameras: Vec::new(), ..archive() };
        let error = sides(&without, &Data { validation_cameras: vec![1], ..data() }).err().map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|e| e.contains("data.validation_cameras")), "{error:?}");
    }

    #[test]
    fn spread_is_shared_and_floored() {
        // Deviations 1, 0 and 0.1 around means 2, 5 and 0.
        let rows = [vec![1f32, 5.0, -0.1], vec![3.0, 5.0, 0.1]];
        let (mean, spread) = statistics(rows.into_iter(), 3, (0.01, 0.5));
        assert!((mean[0] - 2.0).abs() < 1e-6 && (mean[1] - 5.0).abs() < 1e-6 && mean[2].abs() < 1e-6);
        let least: f64 = 0.5 * 1.1 / 3.0;
        let expected = ((1.0 + 2.0 * least * least) / 3.0).sqrt();
        assert!((spread - expected).abs() < 1e-6, "{spread} against {expected}");
    }
}
