//! Settings of stage 1, as they stand in the TOML file. The defaults are the recipe for small data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use llmar::device::Geometry;
use llmar::skeleton::{ANCHOR_ROWS, Centre, Heading, Resample, Scale};
use serde::{Deserialize, Serialize};

use super::augment::Augment;
use crate::error::Result;
use crate::losses::{commit, mmd};
use crate::torch::{Schedule, file_name, in_range, setting};

/// All settings of a stage-1 run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of everything random: equal settings on one machine give equal files.
    #[serde(default)]
    pub seed: u64,
    /// Threads of libtorch.
    #[serde(default = "one")]
    pub threads: usize,
    /// `cpu`, `cuda` or `auto`.
    #[serde(default = "cpu")]
    pub device: String,
    /// Steps between two snapshots of the run; 0: none.
    #[serde(default = "snapshot_steps")]
    pub snapshot_steps: usize,
    /// Clips.
    pub data: Data,
    /// From clips to the encoder's input; the statistics are computed.
    pub input: Input,
    /// Random changes of training clips.
    #[serde(default)]
    pub augment: Augment,
    /// Encoder and decoder.
    #[serde(default)]
    pub encoder: Encoder,
    /// Codebook.
    #[serde(default)]
    pub quantizer: Quantizer,
    /// Weights of the losses.
    #[serde(default)]
    pub losses: Losses,
    /// Phase one: features without a codebook. 0 steps: none.
    #[serde(default = "Phase::first")]
    pub features: Phase,
    /// Phase two: with the codebook.
    #[serde(default = "Phase::second")]
    pub codes: Phase,
}

fn one() -> usize {
    1
}
fn cpu() -> String {
    "cpu".to_owned()
}
fn snapshot_steps() -> usize {
    200
}

/// Which clips.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Clip archive.
    pub archive: PathBuf,
    /// Split of the archive; its test side is never read.
    pub split: String,
    /// Only clips with this flag of the archive, such as `used_cvpr12`.
    #[serde(default)]
    pub only: Option<String>,
    /// Clips taken out of the training side to validate on: those of these subjects. With cameras or a fold beside them: those that fit all that
    /// is given.
    #[serde(default)]
    pub validation_subjects: Vec<i64>,
    /// Those of these cameras.
    #[serde(default)]
    pub validation_cameras: Vec<i64>,
    /// (which, of): of the training side's clips of each class, in the archive's order, one of `of` stretches. For archives that name no
    /// subjects: clips of one recording stand beside each other, so few have neighbours on both sides.
    #[serde(default)]
    pub validation_fold: Option<(usize, usize)>,
    /// Classes of which no clip is read, neither to train nor to validate, and whose labels the model does not have.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// What classes are called in place of their names in the archive, class → text: the labels of the model. A text that says how an action is done,
    /// in words that other texts have too, lets a class that no stage saw be told by its words. Every other setting goes by the archive's names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub texts: BTreeMap<String, String>,
    /// For live models: name of a further label, which says that nothing happens. Only windows of streams have it, no clip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
}

impl Data {
    /// Whether any clip is held out to validate on.
    pub fn validates(&self) -> bool {
        !self.validation_subjects.is_empty() || !self.validation_cameras.is_empty() || self.validation_fold.is_some()
    }

    /// What the classes of an archive, by name, are called.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::error::Error::Setting) for a text of a class that is not there, one without words, and one that two classes would have.
    pub fn called(&self, classes: &[String]) -> Result<Vec<String>> {
        if let Some(class) = self.texts.keys().find(|class| !classes.contains(class)) {
            return Err(setting("data.texts", format!("classes of {classes:?}"), class));
        }
        let called: Vec<String> = classes.iter().map(|class| self.texts.get(class).unwrap_or(class).clone()).collect();
        let mut known = BTreeSet::new();
        match called.iter().find(|text| text.trim().is_empty() || !known.insert(text.as_str())) {
            Some(text) => Err(setting("data.texts", "a text of its own for each class", format!("{text:?}"))),
            None => Ok(called),
        }
    }
}

/// From clips to the encoder's input. See [`llmar::skeleton::Preprocess`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Layout of the model; clips of others are mapped to it. Empty: the archive's.
    #[serde(default)]
    pub layout: String,
    /// Joints that are always had from others, whatever a clip says of them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub derived: Vec<String>,
    /// Persons, 1 or 2.
    pub persons: usize,
    /// Coordinates, 2 or 3.
    pub coords: usize,
    /// Frames, a multiple of 2^halvings.
    pub frames: usize,
    /// How a clip's time becomes `frames`.
    pub resample: Resample,
    /// Joint at the origin.
    pub root: String,
    /// What is subtracted.
    pub centre: Centre,
    /// Turn about the vertical.
    pub heading: Heading,
    /// Size.
    pub scale: Scale,
    /// Append velocities.
    pub velocities: bool,
    /// Smallest spread of a channel, in the units of the scaled clips, that goes into the shared spread.
    #[serde(default = "spread_floor")]
    pub spread_floor: f32,
    /// The same, as a share of the mean spread of all channels.
    #[serde(default = "spread_share")]
    pub spread_share: f32,
}

fn spread_floor() -> f32 {
    0.01
}
fn spread_share() -> f32 {
    0.2
}

/// Shape of encoder and decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Encoder {
    /// Channels.
    pub width: usize,
    /// Halvings of the frame rate.
    pub halvings: usize,
    /// Dilations of the residual blocks.
    pub dilations: Vec<usize>,
    /// Features of a code.
    pub dim: usize,
    /// Pad on the left only.
    pub causal: bool,
    /// Encoders side by side: each has its share of `width` and `dim`, sees all inputs and learns the labels by itself; together they are one encoder
    /// whose weights from one's channels to another's are zero. 1: one encoder.
    #[serde(skip_serializing_if = "is_one")]
    pub members: usize,
    /// `stage1.safetensors` of another run, from whose encoder and input statistics training starts; left out: from random weights. Its shape and
    /// its preparation of clips must be these. Its clips must not be this run's test or validation clips, which nothing here can check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { width: 128, halvings: 2, dilations: vec![9, 3, 1], dim: 64, causal: false, members: 1, start: None }
    }
}

// Runs are told apart by their settings as text: those of before there was a choice stay the same runs.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(value: &usize) -> bool {
    *value == 1
}

/// How codes move in phase two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Update {
    /// Running mean of the features assigned to them.
    Average {
        /// Share of the old mean kept at each step, 0..1.
        decay: f64,
    },
    /// By the gradients of L_embed and of the biases.
    Gradient,
}

/// The codebook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quantizer {
    /// U, even.
    pub codes: usize,
    /// Distance.
    pub geometry: Geometry,
    /// First value of the learned factor on the encoder's output.
    pub gain: f32,
    /// Tangent norm to which features are clipped.
    pub clip: f32,
    /// How codes move.
    pub update: Update,
    /// Keep all codes at the features' mean norm. The Poincaré distance favours codes nearer the origin, and means of features lie inside
    /// their shell: without this a handful of codes takes everything.
    pub shell: bool,
    /// k-means rounds at the start of phase two; 0: codes start as random features.
    pub kmeans_rounds: usize,
    /// Augmented passes over the training clips that k-means sees.
    pub kmeans_passes: usize,
    /// A code is moved to a random feature when its running count of uses a batch falls below this many per 512 tokens.
    pub reset_below: f64,
    /// Steps between two looks at unused codes; 0: never.
    pub reset_steps: usize,
    /// Share of phase two after which nothing is reset any more.
    pub reset_until: f64,
}

impl Default for Quantizer {
    fn default() -> Self {
        Self {
            codes: 512,
            geometry: Geometry::Poincare { curvature: 1.0 },
            gain: 0.3,
            clip: 1.0,
            update: Update::Average { decay: 0.98 },
            shell: true,
            kmeans_rounds: 12,
            kmeans_passes: 3,
            reset_below: 0.02,
            reset_steps: 20,
            reset_until: 0.7,
        }
    }
}

/// Weights of the losses and their own settings. A weight of 0 leaves a loss out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Losses {
    /// Cross-entropy of the labels read from features: its weight in phase two. In phase one the weight is 1, or 0 where it is 0 here.
    pub supervised_features: f64,
    /// Cross-entropy of the labels read from codes, straight through, in phase two.
    pub supervised_codes: f64,
    /// Label smoothing of both.
    pub label_smoothing: f64,
    /// Segments of a sentence that the classification head sees, and the probe that measures the finished tokens.
    pub head_segments: usize,
    /// Dropout before the classification head.
    pub head_dropout: f64,
    /// Smooth L1 between clip and decoded codes (decoded features in phase one).
    pub reconstruction: f64,
    /// Share of frame differences in the reconstruction.
    pub velocity: f64,
    /// Codes to features.
    pub embed: f64,
    /// Features to codes (ω₁).
    pub commit: f64,
    /// Where `commit` measures.
    pub commit_metric: commit::Metric,
    /// Zipf bias (ω₂).
    pub zipf: f64,
    /// Context bias (ω₂).
    pub context: f64,
    /// MMD bias (ω₂); needs `quantizer.update` of kind gradient: codes that are averages do not follow it. Of the biases, Zipf and context also act on
    /// the features, so they do without.
    pub mmd: f64,
    /// What the MMD compares with the embeddings.
    pub mmd_map: mmd::Map,
    /// Compare the points of the ball instead of the tangent vectors: what stage 2 feeds with `map.point = "ball"`.
    pub mmd_ball: bool,
    /// Base model whose token embeddings the MMD sees.
    pub mmd_base: PathBuf,
    /// Embeddings drawn a step.
    pub mmd_rows: usize,
    /// Steps over which the three biases rise from 0.
    pub bias_ramp: usize,
    /// Negative distances are multiplied by this before the Gumbel draw. At 1 the noise, of order 1, swamps their differences.
    pub beta: f64,
    /// Temperature of the Gumbel-softmax.
    pub tau: f64,
}

impl Default for Losses {
    fn default() -> Self {
        Self {
            supervised_features: 0.5,
            supervised_codes: 1.0,
            label_smoothing: 0.1,
            head_segments: 4,
            head_dropout: 0.3,
            reconstruction: 0.0,
            velocity: 0.5,
            embed: 0.0,
            commit: 0.1,
            commit_metric: commit::Metric::Geodesic,
            zipf: 0.0,
            context: 0.0,
            mmd: 0.0,
            mmd_map: mmd::Map::Affine,
            mmd_ball: false,
            mmd_base: PathBuf::new(),
            mmd_rows: 2048,
            bias_ramp: 50,
            beta: 20.0,
            tau: 1.0,
        }
    }
}

impl Losses {
    /// Whether any loss needs the classification head.
    pub fn supervised(&self) -> bool {
        self.supervised_features > 0.0 || self.supervised_codes > 0.0
    }
}

/// One phase of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Steps.
    pub steps: usize,
    /// Clips a step.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// How it moves.
    #[serde(default = "one_cycle")]
    pub schedule: Schedule,
    /// Decoupled weight decay.
    #[serde(default = "decay")]
    pub weight_decay: f64,
    /// Decays of AdamW's moments.
    #[serde(default = "betas")]
    pub betas: (f64, f64),
    /// Global gradient norm above which gradients are scaled down.
    #[serde(default = "clip")]
    pub clip: f64,
}

fn batch() -> usize {
    32
}
fn one_cycle() -> Schedule {
    Schedule::OneCycle { warm_up: 0.15 }
}
fn decay() -> f64 {
    0.05
}
fn betas() -> (f64, f64) {
    (0.9, 0.999)
}
fn clip() -> f64 {
    2.0
}

impl Phase {
    fn first() -> Self {
        Self { steps: 400, batch: batch(), lr: 1.5e-3, schedule: one_cycle(), weight_decay: decay(), betas: betas(), clip: clip() }
    }

    fn second() -> Self {
        Self { steps: 220, lr: 7e-4, ..Self::first() }
    }

    fn check(&self, name: &str) -> Result<()> {
        let key = |field: &str| format!("{name}.{field}");
        in_range(&key("batch"), self.batch as f64, 1.0, 1e6)?;
        in_range(&key("lr"), self.lr, 0.0, 1.0)?;
        in_range(&key("weight_decay"), self.weight_decay, 0.0, 10.0)?;
        in_range(&key("betas"), self.betas.0.max(self.betas.1), 0.0, 0.999_999)?;
        in_range(&key("clip"), self.clip, 1e-9, f64::INFINITY)?;
        self.schedule.check(&key("schedule"))
    }
}

impl Config {
    /// The settings as JSON for a file's provenance: of paths only the file name, since folders are nobody else's business.
    pub fn record(&self) -> String {
        let mut own = self.clone();
        own.data.archive = file_name(&own.data.archive);
        own.losses.mmd_base = file_name(&own.losses.mmd_base);
        own.encoder.start = own.encoder.start.as_ref().map(|path| file_name(path));
        serde_json::to_string(&own).unwrap_or_default()
    }

    /// What live models need, and what is for them alone.
    fn check_live(&self, halved: usize) -> Result<()> {
        if !matches!(self.input.resample, Resample::Live { .. }) {
            if self.augment.windows.is_some() {
                return Err(setting("input.resample", "of kind live, as augment.windows is given", "another"));
            }
            return Ok(());
        }
        if !self.encoder.causal {
            return Err(setting("encoder.causal", "true for a live model, whose tokens must not change any more", false));
        }
        let least = self.augment.windows.clone().unwrap_or_default().tokens.0;
        if least * halved < ANCHOR_ROWS {
            return Err(setting("augment.windows.tokens", format!("tokens of {ANCHOR_ROWS} rows or more together"), least));
        }
        Ok(())
    }

    /// Every number is in its range and the parts fit together.
    pub fn check(&self) -> Result<()> {
        let (encoder, quantizer, losses) = (&self.encoder, &self.quantizer, &self.losses);
        in_range("encoder.width", encoder.width as f64, 1.0, 8192.0)?;
        in_range("encoder.halvings", encoder.halvings as f64, 0.0, 6.0)?;
        in_range("encoder.dim", encoder.dim as f64, 1.0, 16384.0)?;
        let members = encoder.members;
        if members == 0 || !encoder.width.is_multiple_of(members) || !encoder.dim.is_multiple_of(members) {
            let expected = format!("a divisor of encoder.width = {} and encoder.dim = {}", encoder.width, encoder.dim);
            return Err(setting("encoder.members", expected, members));
        }
        if members > 1 && encoder.start.is_some() {
            return Err(setting("encoder.members", "1, as training starts from another encoder (encoder.start)", members));
        }
        let halved = 1usize << encoder.halvings;
        if self.input.frames == 0 || !self.input.frames.is_multiple_of(halved) {
            return Err(setting("input.frames", format!("a multiple of 2^encoder.halvings = {halved}"), self.input.frames));
        }
        if !matches!(quantizer.codes, 2..=65_536) || !quantizer.codes.is_multiple_of(2) {
            return Err(setting("quantizer.codes", "even, 2 to 65536", quantizer.codes));
        }
        if let Geometry::Poincare { curvature } = quantizer.geometry {
            in_range("quantizer.geometry.curvature", f64::from(curvature), 1e-6, 1e6)?;
        }
        in_range("quantizer.gain", f64::from(quantizer.gain), 1e-9, 1e9)?;
        in_range("quantizer.clip", f64::from(quantizer.clip), 1e-9, 1e9)?;
        let w = self.input.frames / halved;
        if losses.head_segments == 0 || !w.is_multiple_of(losses.head_segments) {
            return Err(setting("losses.head_segments", format!("a divisor of the {w} tokens of a sentence"), losses.head_segments));
        }
        self.check_live(halved)?;
        in_range("losses.label_smoothing", losses.label_smoothing, 0.0, 0.999)?;
        in_range("losses.head_dropout", losses.head_dropout, 0.0, 0.999)?;
        in_range("losses.tau", losses.tau, 1e-6, 1e6)?;
        for (name, weight) in [
            ("losses.supervised_features", losses.supervised_features),
            ("losses.supervised_codes", losses.supervised_codes),
            ("losses.reconstruction", losses.reconstruction),
            ("losses.velocity", losses.velocity),
            ("losses.embed", losses.embed),
            ("losses.commit", losses.commit),
            ("losses.zipf", losses.zipf),
            ("losses.context", losses.context),
            ("losses.mmd", losses.mmd),
        ] {
            in_range(name, weight, 0.0, 1e6)?;
        }
        in_range("losses.beta", losses.beta, 0.0, 1e6)?;
        in_range("quantizer.reset_until", quantizer.reset_until, 0.0, 1.0)?;
        in_range("quantizer.reset_below", quantizer.reset_below, 0.0, 1e6)?;
        if let Update::Average { decay } = quantizer.update {
            in_range("quantizer.update.decay", decay, 0.0, 0.999_999)?;
        }
        // Without a step with the quantiser there is no codebook.
        in_range("codes.steps", self.codes.steps as f64, 1.0, 1e9)?;
        if losses.mmd > 0.0 && quantizer.update != Update::Gradient {
            return Err(setting("quantizer.update", "of kind gradient, as losses.mmd is above 0", "average"));
        }
        if losses.mmd > 0.0 && losses.mmd_rows < 2 {
            return Err(setting("losses.mmd_rows", "2 or more", losses.mmd_rows));
        }
        self.augment.check()?;
        self.features.check("features")?;
        self.codes.check("codes")
    }
}
