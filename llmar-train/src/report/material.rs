//! What there is to show: the files of a run, and what its model answers.

use std::path::{Path, PathBuf};

use llmar::checkpoint::{Checkpoint, ReadOptions};
use llmar::motion::QuantizerConfig;

use super::history::History;
use super::sentences;
use crate::artifacts::{self, AdapterMeta, DecoderMeta, Kind, Opened, Stage1Meta};
use crate::cli::ReportArgs;
use crate::error::{Error, Result};
use crate::evaluate::{self, Answers, Asking, Disturbance, Side};

/// Files of a run, by their path in its folder.
pub const STAGE1_METRICS: &str = "stage1/metrics.jsonl";
pub const STAGE1: &str = "stage1/stage1.safetensors";
pub const DECODER: &str = "stage1/decoder.safetensors";
pub const STAGE2_METRICS: &str = "stage2/metrics.jsonl";
pub const ADAPTER: &str = "stage2/adapter.safetensors";
pub const MODEL: &str = "model.llmar";

/// Everything that the sections read.
#[derive(Debug)]
pub struct Material {
    /// Heading of the page.
    pub title: String,
    pub stage1_history: Option<History>,
    pub stage1: Option<Opened<Stage1Meta>>,
    pub decoder: Option<Opened<DecoderMeta>>,
    pub stage2_history: Option<History>,
    pub adapter: Option<Opened<AdapterMeta>>,
    pub model: Option<Checkpoint>,
    pub codebook: Option<Codes>,
    /// The clips that were asked about.
    pub side: Option<Side>,
    /// The model's answers on them.
    pub answers: Option<Answers>,
    /// Their action sentences: the model's, or without one stage 1's.
    pub sentences: Option<Vec<Vec<u16>>>,
}

/// The codebook of stage 1, or of the model where stage 1 is not there.
#[derive(Clone, Debug)]
pub struct Codes {
    /// Shape and geometry.
    pub config: QuantizerConfig,
    /// v_u [codes, dim]
    pub tangent: Vec<f32>,
}

impl Material {
    /// Reads the run's folder and asks its model about the clips.
    pub fn gather(args: &ReportArgs) -> Result<Self> {
        let at = |name: &str| args.run.join(name);
        let model_path = args.model.clone().unwrap_or_else(|| at(MODEL));
        let stage1 = open_if_there::<Stage1Meta>(&at(STAGE1))?;
        let decoder = open_if_there::<DecoderMeta>(&at(DECODER))?;
        let adapter = open_if_there::<AdapterMeta>(&at(ADAPTER))?;
        let (stage1_history, stage2_history) = (History::read(&at(STAGE1_METRICS))?, History::read(&at(STAGE2_METRICS))?);
        let model = match args.model.is_some() || model_path.exists() {
            true => Some(Checkpoint::open(&model_path, ReadOptions::default())?),
            false => None,
        };
        let nothing = stage1.is_none() && decoder.is_none() && adapter.is_none() && model.is_none();
        if nothing && stage1_history.is_none() && stage2_history.is_none() {
            let parts = [STAGE1_METRICS, STAGE1, DECODER, STAGE2_METRICS, ADAPTER, MODEL].join(", ");
            return Err(Error::format(
                args.run.display(),
                format!("expected the folder of a run with any of {parts}; none of them is there"),
            ));
        }
        if let Some(stage1) = &stage1 {
            let (file, got) = (at(STAGE1), stage1.sha256());
            let expected =
                [(DECODER, decoder.as_ref().map(|d| &d.meta.stage1_sha256)), (ADAPTER, adapter.as_ref().map(|a| &a.meta.stage1_sha256))];
            for (name, expected) in expected {
                if let Some(expected) = expected.filter(|expected| **expected != got) {
                    return Err(Error::Mismatch { file: at(name), part: "stage-1 file", expected: expected.clone(), given: file, got });
                }
            }
        }
        let codebook = codebook(stage1.as_ref(), model.as_ref(), &model_path)?;
        let side = match (&args.data, &args.split) {
            (Some(data), Some(split)) => Some(Side::read(data, split, args.part)?),
            _ => None,
        };
        let answers = match (&model, &side) {
            (Some(_), Some(side)) => {
                Some(evaluate::ask(&model_path, side, &Asking { threads: args.threads, ..Asking::default() }, &Disturbance::default())?)
            }
            _ => None,
        };
        let sentences = match (&answers, &stage1, &side) {
            (Some(answers), ..) => Some(answers.answers.iter().map(|answer| answer.tokens.clone()).collect()),
            (None, Some(stage1), Some(side)) => Some(sentences::of(stage1, side)?),
            _ => None,
        };
        let name = model.as_ref().map(|m| m.metadata().name.clone()).or_else(|| adapter.as_ref().map(|a| a.meta.name.clone()));
        let title = args.title.clone().or(name).unwrap_or_else(|| folder_name(&args.run));
        Ok(Self { title, stage1_history, stage1, decoder, stage2_history, adapter, model, codebook, side, answers, sentences })
    }

    /// The answers with their clips, or why there are none.
    pub fn answered(&self) -> std::result::Result<(&Answers, &Side), &'static str> {
        match (&self.answers, &self.side, &self.model) {
            (Some(answers), Some(side), _) if !answers.answers.is_empty() => Ok((answers, side)),
            (Some(_), ..) => Err("this side of the split has no clips"),
            (_, _, None) => Err("model.llmar is missing (export writes it, --model names another)"),
            _ => Err("the model was not asked about any clips (--data and --split name them)"),
        }
    }
}

fn open_if_there<M: Kind>(path: &Path) -> Result<Option<Opened<M>>> {
    if path.exists() { artifacts::open(path).map(Some) } else { Ok(None) }
}

fn folder_name(path: &Path) -> String {
    let path: PathBuf = path.canonicalize().unwrap_or_else(|_| path.to_owned()); // `.` has no name of its own
    path.file_name().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Takes the codes of stage 1 or the model; where both are there, they must be one.
fn codebook(stage1: Option<&Opened<Stage1Meta>>, model: Option<&Checkpoint>, path: &Path) -> Result<Option<Codes>> {
    let of_model = model.map(|model| {
        let config = model.metadata().quantizer.clone();
        let tangent = model.f32s(QuantizerConfig::TANGENT, &[config.codes, config.dim])?.cast::<f32>()?.to_vec();
        Ok::<_, Error>(Codes { config, tangent })
    });
    let of_model = of_model.transpose()?;
    let Some(stage1) = stage1 else { return Ok(of_model) };
    stage1.meta.preprocess.check()?;
    stage1.meta.encoder.check()?;
    stage1.meta.quantizer.check()?;
    let config = stage1.meta.quantizer.clone();
    let tangent = stage1.floats(QuantizerConfig::TANGENT, &[config.codes, config.dim])?;
    if let (Some(model), Some(codes)) = (model, of_model) {
        let meta = model.metadata();
        let same = codes.tangent == tangent && meta.encoder == stage1.meta.encoder && meta.preprocess == stage1.meta.preprocess;
        if !same {
            return Err(Error::format(path.display(), format!("expected the model of this run, but its codebook is not that of {STAGE1}")));
        }
    }
    Ok(Some(Codes { config, tangent }))
}
