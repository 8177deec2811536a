//! Settings of stage 2, as they stand in the TOML file. The defaults are the recipe for small data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::artifacts::{Answer, Reads};
use crate::error::Result;
use crate::torch::{Schedule, file_name, in_range, setting};
use crate::vqvae::{Augment, Data};

/// All settings of a stage-2 run.
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
    /// Name of the resulting model.
    pub name: String,
    /// Base model, from `import`; `--base` on the command line comes first.
    #[serde(default)]
    pub base: PathBuf,
    /// Encoder and codebook, from `vqvae`; `--stage1` on the command line comes first. The clips must be those it was trained on, or validation tokens are too clean.
    #[serde(default)]
    pub stage1: PathBuf,
    /// How the base model's matrices are kept.
    #[serde(default)]
    pub precision: Precision,
    /// What is trained.
    #[serde(default)]
    pub tune: Tune,
    /// What is taught to name the action.
    #[serde(default, skip_serializing_if = "Answer::is_default")]
    pub answer: Answer,
    /// Clips.
    pub data: Data,
    /// The words around the action sentence.
    #[serde(default)]
    pub prompt: Prompt,
    /// Random changes of training sentences.
    #[serde(default)]
    pub variation: Variation,
    /// LoRA.
    #[serde(default)]
    pub adapter: Adapter,
    /// From codes to the language model's input.
    #[serde(default)]
    pub map: Map,
    /// Steps and optimiser.
    #[serde(default)]
    pub train: Train,
    /// Probabilities.
    #[serde(default)]
    pub calibration: Calibration,
    /// Labels told by the words of their texts, for those that training does not see; left out: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Words>,
}

fn one() -> usize {
    1
}
fn cpu() -> String {
    "cpu".to_owned()
}
fn snapshot_steps() -> usize {
    50
}

/// Storage of the base model's matrices while it is trained on. Products take their factors in this precision; sums, norms and what is trained are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 4 bytes a weight.
    #[default]
    F32,
    /// 2 bytes a weight, 8 bits of mantissa.
    Bf16,
    /// 2 bytes a weight, 11 bits of mantissa; values beyond ±65504 are lost.
    F16,
}

impl Precision {
    /// libtorch's name.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::F16 => Kind::Half,
        }
    }

    /// Bytes a weight.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// Which of the language model's weights are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tune {
    /// None; LoRA beside them.
    #[default]
    Lora,
    /// All, without LoRA: the paper's comparison. Writes a base model of its own.
    All,
}

/// The words around the action sentence; the tokens of the clip stand between prefix and suffix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prompt {
    /// Without a trailing space, which would become a token of its own.
    pub prefix: String,
    /// After the action tokens.
    pub suffix: String,
    /// Before a label's text.
    pub answer_lead: String,
    /// Chance that the prompt of a training pass names the labels to choose from, 0..=1: "… the corresponding action from [a, b, c].", as the
    /// runtime asks when its labels are replaced. Named are the pass's right answers and others at random, in random order.
    pub listed: f32,
    /// Fewest and most labels named; the right answers of a pass are always among them.
    pub list: (usize, usize),
}

impl Default for Prompt {
    fn default() -> Self {
        Self {
            prefix: "Given a sequence of action tokens".into(),
            suffix: ", please predict the corresponding action.".into(),
            answer_lead: " ".into(),
            listed: 0.0,
            list: (3, 8),
        }
    }
}

/// How a clip is told differently every time it comes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Variation {
    /// Changes of the clip before it is tokenised anew.
    pub clip: Augment,
    /// Different changes of a clip in the whole run; 0: never the same twice.
    pub views: usize,
    /// Share of sentences that come from the clip as it is, 0..=1.
    pub plain: f32,
    /// Chance that a token is replaced by a random one.
    pub replace: f32,
}

impl Default for Variation {
    fn default() -> Self {
        Self { clip: Augment::default(), views: 0, plain: 0.05, replace: 0.05 }
    }
}

/// A matrix of a layer that LoRA can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Attention output.
    O,
    /// Feed-forward gate.
    Gate,
    /// Feed-forward input.
    Up,
    /// Feed-forward output.
    Down,
}

impl Target {
    /// As in tensor names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::O => "o",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// LoRA (Hu et al. 2021): W + (alpha / rank) · B A.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adapter {
    /// r
    pub rank: usize,
    /// α
    pub alpha: f32,
    /// Dropout before A.
    pub dropout: f64,
    /// Which matrices.
    pub targets: Vec<Target>,
    /// Layers [from, to), counted from 0; left out: all.
    pub layers: Option<(usize, usize)>,
}

impl Default for Adapter {
    fn default() -> Self {
        Self { rank: 16, alpha: 16.0, dropout: 0.0, targets: vec![Target::Q, Target::V], layers: None }
    }
}

/// What of a code the language model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// v_u = log₀(c_u)
    Tangent,
    /// c_u
    Ball,
}

/// How a code's point becomes a row of the language model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A matrix and a bias.
    Affine,
    /// The point times `scale`, as in the paper; needs as many features in a code as in an embedding.
    Identity,
}

/// First values of an affine map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Orthonormal columns times `scale`, and the mean token embedding: all distances between codes are kept.
    Orthonormal,
    /// What stage 1's MMD learned: codes lie where words lie.
    Words,
    /// The affine map that best takes each code to the words of the labels whose training clips it occurs in, by least squares: codes then speak of
    /// actions from the first step.
    Labels,
}

/// From codes to the language model's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Map {
    /// What the language model reads.
    pub reads: Reads,
    /// Which point goes in.
    pub point: Point,
    /// How.
    pub form: Form,
    /// First values of the affine map.
    pub start: Start,
    /// Factor at the start. 2.3 gives codes of norm 1 about the norm of SmolLM2's token embeddings around their mean.
    pub scale: f32,
    /// Whether an affine map is trained.
    pub trainable: bool,
    /// Learning rate of the map, as a factor on `train.lr`.
    pub lr_factor: f64,
    /// Learning rate of the codes' points themselves; 0: they stay. Tokens do not change, only what they mean to the language model.
    pub points_lr_factor: f64,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            reads: Reads::Codes,
            point: Point::Tangent,
            form: Form::Affine,
            start: Start::Orthonormal,
            scale: 2.3,
            trainable: true,
            lr_factor: 1.0,
            points_lr_factor: 0.0,
        }
    }
}

/// Steps and optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Optimiser steps.
    pub steps: usize,
    /// Clips a step.
    pub batch: usize,
    /// Clips a pass; gradients of a batch are summed over its passes.
    pub micro_batch: usize,
    /// Keep only each layer's input on the way forward and compute the rest again on the way back: a third more time, a fraction of the memory.
    pub checkpointing: bool,
    /// Peak learning rate.
    pub lr: f64,
    /// How it moves.
    pub schedule: Schedule,
    /// Decoupled weight decay of the LoRA matrices (the map has none).
    pub weight_decay: f64,
    /// Decays of AdamW's moments.
    pub betas: (f64, f64),
    /// Global gradient norm above which gradients are scaled down.
    pub clip: f64,
    /// Label smoothing over the vocabulary, or over the labels where a head answers.
    pub label_smoothing: f64,
    /// Steps between two looks at the validation clips; 0: only at the end.
    pub validate_steps: usize,
    /// Looks without a better validation loss after which training stops and the best adapter is kept; 0: trains to the end and keeps the last.
    pub patience: usize,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            steps: 120,
            batch: 8,
            micro_batch: 8,
            checkpointing: false,
            lr: 2e-3,
            schedule: Schedule::Cosine { warm_up: 0.1 },
            weight_decay: 0.01,
            betas: (0.9, 0.999),
            clip: 1.0,
            label_smoothing: 0.0,
            validate_steps: 0,
            patience: 0,
        }
    }
}

/// How scores become probabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Calibration {
    /// Temperature when there are no validation clips to fit it on: the mean of what runs with held-out subjects found.
    pub temperature: f32,
    /// Probability below which the answer is `unknown`.
    pub unknown_below: f32,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { temperature: 1.0, unknown_below: 0.0 }
    }
}

/// Reading of words, fitted beside the language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Added to the diagonal of the features' squares, whose trace is 1 a clip; above zero.
    pub ridge: f64,
    /// Of the cosines: p(label) = softmax(cosine / temperature). Chosen on classes that neither stage sees (`data.unseen`), as `ridge`.
    pub temperature: f32,
}

impl Config {
    /// The settings as JSON for a file's provenance: of paths only the file name, since folders are nobody else's business.
    pub fn record(&self) -> String {
        let mut own = self.clone();
        for path in [&mut own.base, &mut own.stage1, &mut own.data.archive] {
            *path = file_name(path);
        }
        serde_json::to_string(&own).unwrap_or_default()
    }

    /// Why the runtime does not run what these settings train, if it does not.
    pub fn beyond_the_runtime(&self) -> Option<&'static str> {
        match (self.answer, self.map.reads) {
            (Answer::LinearHead, _) => Some("the runtime has no linear head"),
            (_, Reads::Features) => Some("the runtime reads no features"),
            (Answer::LabelText, Reads::Codes) => None,
        }
    }

    /// What a live stage 1 asks for, or what is for live ones alone.
    pub fn check_live(&self, live: bool) -> Result<()> {
        if live && self.map.reads == Reads::Features {
            return Err(setting("map.reads", "codes, as stage 1 is live and its sentences are of any length", "features"));
        }
        if live && self.words.is_some() {
            return Err(setting("words", "none, as stage 1 is live and what is read is the mean of a whole clip", "some"));
        }
        if live && self.variation.views > 0 {
            return Err(setting("variation.views", "0, as stage 1 is live and no window comes twice", self.variation.views));
        }
        if !live && self.variation.clip.windows.is_some() {
            return Err(setting("variation.clip.windows", "none, as stage 1 is not live", "some"));
        }
        Ok(())
    }

    /// Every number is in its range.
    pub fn check(&self) -> Result<()> {
        let (adapter, train) = (&self.adapter, &self.train);
        in_range("adapter.rank", adapter.rank as f64, 1.0, 4096.0)?;
        in_range("adapter.dropout", adapter.dropout, 0.0, 0.999)?;
        in_range("variation.plain", f64::from(self.variation.plain), 0.0, 1.0)?;
        in_range("variation.replace", f64::from(self.variation.replace), 0.0, 1.0)?;
        in_range("train.steps", train.steps as f64, 0.0, 1e9)?;
        in_range("train.batch", train.batch as f64, 1.0, 1e6)?;
        in_range("train.micro_batch", train.micro_batch as f64, 1.0, 1e6)?;
        in_range("train.lr", train.lr, 0.0, 1.0)?;
        in_range("train.weight_decay", train.weight_decay, 0.0, 10.0)?;
        in_range("train.betas", train.betas.0.max(train.betas.1), 0.0, 0.999_999)?;
        in_range("train.clip", train.clip, 1e-9, f64::INFINITY)?;
        train.schedule.check("train.schedule")?;
        in_range("train.label_smoothing", train.label_smoothing, 0.0, 0.999)?;
        in_range("calibration.temperature", f64::from(self.calibration.temperature), 1e-3, 1e3)?;
        in_range("calibration.unknown_below", f64::from(self.calibration.unknown_below), 0.0, 1.0)?;
        if let Some(words) = &self.words {
            in_range("words.ridge", words.ridge, 1e-9, 1e9)?;
            in_range("words.temperature", f64::from(words.temperature), 1e-3, 1e3)?;
        }
        if adapter.targets.is_empty() {
            return Err(setting("adapter.targets", "one or more of q, k, v, o, gate, up, down", "none"));
        }
        let map = &self.map;
        if map.form == Form::Identity && map.trainable {
            return Err(setting("map.trainable", "false for the identity", true));
        }
        in_range("map.scale", f64::from(map.scale), 1e-6, 1e6)?;
        in_range("prompt.listed", f64::from(self.prompt.listed), 0.0, 1.0)?;
        let (least, most) = self.prompt.list;
        if self.prompt.listed > 0.0 && (least == 0 || least > most) {
            return Err(setting("prompt.list", "1 ≤ fewest ≤ most", format!("{least}, {most}")));
        }
        if self.answer == Answer::LinearHead && self.prompt.listed > 0.0 {
            return Err(setting("prompt.listed", "0 where a head answers, which always chooses among all labels", self.prompt.listed));
        }
        if self.tune == Tune::All && self.precision != Precision::F32 {
            return Err(setting("precision", "f32 where all weights are trained", format!("{:?}", self.precision)));
        }
        if map.reads == Reads::Features && map.points_lr_factor > 0.0 {
            return Err(setting("map.points_lr_factor", "0 where features are read", map.points_lr_factor));
        }
        if train.patience > 0 && (train.validate_steps == 0 || !self.data.validates()) {
            return Err(setting("train.patience", "0 without train.validate_steps and held-out clips", train.patience));
        }
        self.variation.clip.check()
    }
}
