//! What `ablate` runs, as it stands in its TOML file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::SchemeName;
use crate::error::{Error, Result};
use crate::settings::{Setting, read_config};
use crate::torch::setting;
use crate::{lora, vqvae};

/// A list of variants that are trained and measured alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Of the table.
    pub name: String,
    /// Folder of the runs; `--out` comes first.
    pub out: PathBuf,
    /// Base model, from `import`; `--base` comes first.
    #[serde(default)]
    pub base: PathBuf,
    /// Seeds of each variant.
    pub seeds: Vec<u64>,
    /// Settings of stage 1 for variants that name none, relative to this file.
    #[serde(default)]
    pub stage1: PathBuf,
    /// The same of stage 2.
    #[serde(default)]
    pub stage2: PathBuf,
    /// Storage in which the runtime is measured.
    #[serde(default = "q8")]
    pub scheme: SchemeName,
    /// Whether rows are compared with the first, seed by seed; not where they are of different data.
    #[serde(default = "yes")]
    pub compare: bool,
    /// The rows of the table.
    #[serde(rename = "variant")]
    pub variants: Vec<Variant>,
}

fn yes() -> bool {
    true
}
fn q8() -> SchemeName {
    SchemeName::Q8
}

/// One row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Unique, also the folder's.
    pub name: String,
    /// What the paper reports for it, per cent, and where.
    #[serde(default)]
    pub paper: Option<f64>,
    /// Settings of stage 1, in place of the table's.
    #[serde(default)]
    pub stage1: Option<PathBuf>,
    /// Settings of stage 2, in place of the table's.
    #[serde(default)]
    pub stage2: Option<PathBuf>,
    /// Changes of both stages, as `--set` takes them.
    #[serde(default)]
    pub set: Vec<String>,
    /// Changes of stage 1.
    #[serde(default)]
    pub set1: Vec<String>,
    /// Changes of stage 2.
    #[serde(default)]
    pub set2: Vec<String>,
    /// Who measures.
    #[serde(default)]
    pub measure: Measure,
    /// What the runtime tells labels by.
    #[serde(default)]
    pub scoring: Scoring,
    /// Flags of the archive: the accuracy without clips that have one is reported too.
    #[serde(default)]
    pub without: Vec<String>,
    /// Leave classes out of training and ask about them alone.
    #[serde(default)]
    pub unseen: Option<Unseen>,
}

/// What the runtime tells labels by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// The language model.
    #[default]
    LanguageModel,
    /// The words of the labels' texts alone.
    Words,
}

/// Where a run's accuracy comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The exported checkpoint through the shipped runtime, on the split's test side.
    #[default]
    Runtime,
    /// The trainer's own forward pass on the test side, for what the runtime does not run.
    Trainer,
    /// The trainer on the held-out training clips of the settings: for choices.
    Validation,
    /// Unseen classes alone: stage 1's sentences (or, with stage 2's `map.reads = "features"`, its features) read linearly onto the words of what the
    /// seen classes are called. There is no stage 2. Of features the runtime does the same (`scoring = "words"`); of tokens it does not.
    Words,
}

/// Unseen classes: `classes` drawn at random and left out of both stages; then the runtime is asked about their test clips alone, with a
/// prompt that lists their labels. One run a draw, with the table's first seed.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Unseen {
    /// How many.
    pub classes: usize,
    /// Draws.
    pub draws: usize,
    /// Seed of the draws.
    #[serde(default)]
    pub seed: u64,
    /// Ask about the training side's clips instead of the test side's: of classes that were left out of training, so that settings can be chosen.
    #[serde(default)]
    pub on_training_side: bool,
}

/// One training and measurement.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// Its row.
    pub variant: &'a Variant,
    /// Seed, or number of the draw of unseen classes.
    pub seed: u64,
    /// Stage 1, seed and unseen classes set.
    pub stage1: vqvae::Config,
    /// Stage 2, but for the path of stage 1.
    pub stage2: lora::Config,
}

impl Config {
    /// Reads the file and checks that its rows can be told apart.
    pub fn read(path: &Path) -> Result<Self> {
        let config: Self = read_config(path, &[])?;
        let mut names = std::collections::BTreeSet::new();
        if let Some(twice) = config.variants.iter().find(|v| !names.insert(&v.name)) {
            return Err(setting("variant.name", "names that differ", &twice.name));
        }
        if let Some(odd) = config.variants.iter().find(|v| v.measure == Measure::Words && v.unseen.is_none()) {
            return Err(setting("variant.measure", "runtime, trainer or validation without `unseen`", format!("words of {}", odd.name)));
        }
        if let Some(odd) = config.variants.iter().find(|v| v.scoring == Scoring::Words && v.measure != Measure::Runtime) {
            return Err(setting("variant.scoring", "language_model where the runtime does not measure", format!("words of {}", odd.name)));
        }
        let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_ .=".contains(c));
        if let Some(odd) = config.variants.iter().find(|v| !plain(&v.name)) {
            return Err(setting("variant.name", "letters, digits, space, `-`, `_`, `.` and `=`", &odd.name));
        }
        if config.variants.is_empty() || config.seeds.is_empty() {
            return Err(setting("variant, seeds", "one or more", "none"));
        }
        Ok(config)
    }

    /// Every run of a variant; `folder` is the one that paths of settings are relative to.
    pub fn jobs<'a>(&'a self, variant: &'a Variant, folder: &Path) -> Result<Vec<Job<'a>>> {
        let read = |own: &Option<PathBuf>, common: &PathBuf, set: &[String]| -> Result<(PathBuf, Vec<Setting>)> {
            let parse = |text: &String| text.parse::<Setting>().map_err(|e| setting("variant.set", e, text));
            let set = variant.set.iter().chain(set).map(parse).collect::<Result<_>>()?;
            Ok((folder.join(own.as_ref().unwrap_or(common)), set))
        };
        let (path1, set1) = read(&variant.stage1, &self.stage1, &variant.set1)?;
        let (path2, set2) = read(&variant.stage2, &self.stage2, &variant.set2)?;
        let mut stage1: vqvae::Config = read_config(&path1, &set1)?;
        let mut stage2: lora::Config = read_config(&path2, &set2)?;
        stage2.base.clone_from(&self.base);
        // Stage 1 knows classes by number: rows that call them otherwise share it.
        stage1.data.texts.clear();
        if stage1.data != (vqvae::Data { texts: stage1.data.texts.clone(), ..stage2.data.clone() }) {
            return Err(Error::Setting {
                name: format!("data of {}", variant.name),
                expected: format!("those of stage 1: {:?}", stage1.data),
                got: format!("{:?}", stage2.data),
            });
        }
        let count = variant.unseen.map_or(self.seeds.len(), |unseen| unseen.draws);
        (0..count)
            .map(|i| {
                let mut job = Job { variant, seed: i as u64, stage1: stage1.clone(), stage2: stage2.clone() };
                let seed = match variant.unseen {
                    None => {
                        job.seed = self.seeds[i];
                        job.seed
                    }
                    Some(unseen) => {
                        let drawn = draw(&stage1, unseen, i)?;
                        job.stage1.data.unseen.clone_from(&drawn);
                        job.stage2.data.unseen = drawn;
                        self.seeds[0]
                    }
                };
                (job.stage1.seed, job.stage2.seed) = (seed, seed);
                if job.stage1.losses.mmd > 0.0 {
                    job.stage1.losses.mmd_base.clone_from(&self.base);
                }
                job.stage1.check()?;
                job.stage2.check()?;
                if variant.scoring == Scoring::Words && job.stage2.words.is_none() {
                    return Err(setting("words", "some in stage 2, as the runtime is to tell labels by them", "none"));
                }
                if let (Measure::Runtime, Some(why)) = (variant.measure, job.stage2.beyond_the_runtime()) {
                    return Err(setting("variant.measure", format!("trainer or validation, as {why}"), "runtime"));
                }
                Ok(job)
            })
            .collect()
    }
}

/// The classes of one draw.
fn draw(stage1: &vqvae::Config, unseen: Unseen, draw: usize) -> Result<Vec<String>> {
    let archive = llmar::formats::ClipArchive::read(&stage1.data.archive)?;
    if !(1..archive.classes.len()).contains(&unseen.classes) {
        return Err(setting("unseen.classes", format!("1 to {}", archive.classes.len() - 1), unseen.classes));
    }
    let order = crate::torch::Rng::new(unseen.seed, "unseen", draw as u64).permutation(archive.classes.len());
    let mut chosen: Vec<usize> = order.into_iter().take(unseen.classes).collect();
    chosen.sort_unstable();
    Ok(chosen.into_iter().map(|class| archive.classes[class].clone()).collect())
}
