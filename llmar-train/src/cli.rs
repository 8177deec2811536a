//! The command line: one struct of arguments a stage, and where each goes.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use llmar::device::Scheme;

use crate::data::datasets::Format;
use crate::error::Result;
use crate::settings::Setting;

/// Learns an action recogniser and writes the checkpoint that libllmar runs.
#[derive(Debug, Parser)]
#[command(name = "llmar-train", version)]
pub struct Cli {
    /// Which stage.
    #[command(subcommand)]
    pub command: Command,
}

/// The stages, in the order in which a model passes them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Turn a pre-trained LLaMA (Hugging Face folder or GGUF file) into a base model
    Import(ImportArgs),
    /// Look at data sets
    #[command(subcommand)]
    Data(DataCommand),
    /// Stage 1: learn the motion encoder and its codebook
    Vqvae(VqvaeArgs),
    /// Stage 2: teach the language model to read action sentences
    Lora(LoraArgs),
    /// Merge base model, stage 1 and adapter into one .llmar checkpoint
    Export(ExportArgs),
    /// Measure a checkpoint on a data set, through the shipped runtime
    Evaluate(EvaluateArgs),
    /// Train and measure variants of the settings over seeds, and print their table
    Ablate(AblateArgs),
    /// Show a run on one page of HTML: curves, mistakes, calibration, tokens, codebook, skeletons in motion
    Report(ReportArgs),
    /// Exchange adapters with Hugging Face PEFT
    #[command(subcommand)]
    Peft(PeftCommand),
}

/// The two directions of adapters.
#[derive(Debug, Subcommand)]
pub enum PeftCommand {
    /// Write an adapter as a PEFT folder
    Export(PeftExportArgs),
    /// Make an adapter of a PEFT folder
    Import(PeftImportArgs),
}

/// What can be done with data sets.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Print classes, clips, subjects, lengths, splits and missing joints of a clip archive
    Inspect(InspectArgs),
    /// Turn a published data set into a clip archive
    Convert(ConvertArgs),
}

/// Arguments of `import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// Folder with config.json, tokenizer.json and safetensors, or a GGUF file
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// Base model to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `data inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// Clip archive
    #[arg(value_name = "ARCHIVE")]
    pub archive: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `data convert`.
#[derive(Clone, Debug, Args)]
pub struct ConvertArgs {
    /// Format of the data set
    #[arg(value_enum, value_name = "FORMAT")]
    pub format: Format,
    /// Files, and folders that are searched to any depth
    #[arg(required = true, value_name = "SRC")]
    pub sources: Vec<PathBuf>,
    /// Clip archive to write
    #[arg(long, value_name = "ARCHIVE")]
    pub out: PathBuf,
    /// Keep the clips of this protocol only; without it, all clips, and the protocols that use them all
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// Add a split `subjects` whose test clips are those of these subjects (of archives that are pooled, the second's count from 1000, and so on)
    #[arg(long, value_name = "N,N", value_delimiter = ',', allow_negative_numbers = true)]
    pub test_subjects: Vec<i64>,
    /// Leave damaged clips out and count them, instead of stopping at the first
    #[arg(long)]
    pub skip_damaged: bool,
    /// Clips read at a time; 0: one a core
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub jobs: usize,
    /// Go on with a conversion that was interrupted
    #[arg(long)]
    pub resume: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `vqvae`.
#[derive(Clone, Debug, Args)]
pub struct VqvaeArgs {
    /// Settings (TOML)
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Change one setting: dotted name and TOML value; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Setting>,
    /// Folder of the run: metrics, snapshots, stage1.safetensors
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Go on from the last snapshot in the folder
    #[arg(long)]
    pub resume: bool,
}

/// Arguments of `lora`.
#[derive(Clone, Debug, Args)]
pub struct LoraArgs {
    /// Settings (TOML)
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Change one setting: dotted name and TOML value; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Setting>,
    /// Base model, from `import`; instead of the settings' `base`
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// Encoder and codebook, from `vqvae`; instead of the settings' `stage1`
    #[arg(long, value_name = "FILE")]
    pub stage1: Option<PathBuf>,
    /// Folder of the run: metrics, snapshots, adapter.safetensors
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Go on from the last snapshot in the folder
    #[arg(long)]
    pub resume: bool,
}

/// Arguments of `export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Base model, from `import`
    #[arg(long, value_name = "FILE")]
    pub base: PathBuf,
    /// Encoder and codebook, from `vqvae`
    #[arg(long, value_name = "FILE")]
    pub stage1: PathBuf,
    /// LoRA, from `lora`
    #[arg(long, value_name = "FILE")]
    pub adapter: PathBuf,
    /// Storage of the language model's matrices
    #[arg(long, value_enum, default_value_t = SchemeName::Q8)]
    pub scheme: SchemeName,
    /// Storage of those that the LoRA changes; as the others if left out, but q8 with q4
    #[arg(long, value_enum, value_name = "SCHEME")]
    pub lora_scheme: Option<SchemeName>,
    /// Checkpoint to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `peft export`.
#[derive(Clone, Debug, Args)]
pub struct PeftExportArgs {
    /// LoRA, from `lora`
    #[arg(long, value_name = "FILE")]
    pub adapter: PathBuf,
    /// Base model that it was trained on, from `import`
    #[arg(long, value_name = "FILE")]
    pub base: PathBuf,
    /// What PEFT is to load the base model by; the file or folder that it was imported from if left out
    #[arg(long, value_name = "NAME")]
    pub base_name: Option<String>,
    /// Folder to write: adapter_config.json, adapter_model.safetensors, llmar_codes.safetensors
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Arguments of `peft import`.
#[derive(Clone, Debug, Args)]
pub struct PeftImportArgs {
    /// Folder with adapter_config.json and adapter_model.safetensors
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Base model that it was trained on, from `import`
    #[arg(long, value_name = "FILE")]
    pub base: PathBuf,
    /// Adapter to take codes, labels, prompt and calibration from; the folder's llmar_codes.safetensors if left out
    #[arg(long, value_name = "FILE")]
    pub adapter: Option<PathBuf>,
    /// Adapter to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `evaluate`.
#[derive(Clone, Debug, Args)]
pub struct EvaluateArgs {
    /// Checkpoint
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Clip archive
    #[arg(long, value_name = "ARCHIVE")]
    pub data: PathBuf,
    /// Split of the archive
    #[arg(long, value_name = "NAME")]
    pub split: String,
    /// Which side of the split
    #[arg(long, value_enum, default_value_t = Part::Test)]
    pub part: Part,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Worker threads; 0 computes on the calling thread
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Decode greedily, as the paper does: one label a clip, so that of the figures only top-1 and the confusions keep their meaning
    #[arg(long)]
    pub greedy: bool,
    /// Tell labels by the words of their texts, without the language model, where the checkpoint can (setting `words` of stage 2)
    #[arg(long)]
    pub by_words: bool,
    /// Only clips with this flag of the archive
    #[arg(long, value_name = "FLAG")]
    pub only: Option<String>,
    /// Only clips without this flag of the archive
    #[arg(long, value_name = "FLAG")]
    pub without: Option<String>,
    /// Replace the model's labels by these, which the prompt then lists, and ask about clips of these classes alone; may be repeated
    #[arg(long = "label", value_name = "CLASS")]
    pub labels: Vec<String>,
    /// Ask about clips of this class alone, which the model calls LABEL, as in another data set it was trained on; may be repeated
    #[arg(long = "as", value_name = "CLASS=LABEL", conflicts_with_all = ["labels", "balance"])]
    pub called: Vec<Called>,
    /// Take out of the answers what each label gets on training clips whatever is shown (with --label: on those of the other classes)
    #[arg(long)]
    pub balance: bool,
    /// Average the answers about this many views of each clip, turned about the vertical by up to half a radian; 3D clips only
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub views: usize,
    /// Mark this share of all joints, frame by frame, as missing first
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub missing: f32,
    /// Thin clips to this many frames a second first; 0: as they are
    #[arg(long, default_value_t = 0.0, value_name = "FPS")]
    pub fps: f32,
    /// Turn clips about the vertical first, degrees
    #[arg(long, default_value_t = 0.0, value_name = "DEGREES", allow_negative_numbers = true)]
    pub yaw: f32,
    /// Seed of what is missing
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

/// What a model calls a class of a data set that it was not trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// Class of the archive.
    pub class: String,
    /// Label of the model.
    pub label: String,
}

impl FromStr for Called {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some((class, label)) if !class.is_empty() && !label.is_empty() => Ok(Self { class: class.into(), label: label.into() }),
            _ => Err("expected CLASS=LABEL".into()),
        }
    }
}

/// Arguments of `ablate`.
#[derive(Clone, Debug, Args)]
pub struct AblateArgs {
    /// Table (TOML)
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Base model, from `import`; instead of the table's `base`
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// Folder of the runs; instead of the table's `out`
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Run this variant only; may be repeated
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Run nothing: show what is finished
    #[arg(long)]
    pub show: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Folder of the run: any of stage1/, stage2/ and model.llmar
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Checkpoint; model.llmar of the run if left out
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Clip archive to ask the checkpoint about; without it the page has no answers, tokens and skeletons
    #[arg(long, value_name = "ARCHIVE", requires = "split")]
    pub data: Option<PathBuf>,
    /// Split of the archive
    #[arg(long, value_name = "NAME", requires = "data")]
    pub split: Option<String>,
    /// Which side of the split
    #[arg(long, value_enum, default_value_t = Part::Test)]
    pub part: Part,
    /// Worker threads; 0 computes on the calling thread
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Page to write; report.html of the run if left out
    #[arg(long, value_name = "FILE.html")]
    pub out: Option<PathBuf>,
    /// Heading of the page; the model's or the folder's name if left out
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
}

/// The two sides of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Clips flagged as test.
    Test,
    /// The others.
    Train,
}

/// [`Scheme`] by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchemeName {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// 8-bit integers, groups of 32
    Q8,
    /// 4-bit integers, groups of 32; embedding, head and what the LoRA changes in 8 bits
    Q4,
}

impl From<SchemeName> for Scheme {
    fn from(name: SchemeName) -> Self {
        match name {
            SchemeName::F32 => Self::F32,
            SchemeName::F16 => Self::F16,
            SchemeName::Q8 => Self::Q8,
            SchemeName::Q4 => Self::Q4,
        }
    }
}

/// Runs what the command line asks for.
pub fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Import(args) => crate::import::run(args),
        Command::Data(DataCommand::Inspect(args)) => crate::data::inspect(args),
        Command::Data(DataCommand::Convert(args)) => crate::data::run(args),
        #[cfg(feature = "torch")]
        Command::Vqvae(args) => crate::vqvae::run(args),
        #[cfg(feature = "torch")]
        Command::Lora(args) => crate::lora::run(args),
        #[cfg(not(feature = "torch"))]
        Command::Vqvae(_) => Err(crate::Error::NotBuilt { command: "vqvae" }),
        #[cfg(not(feature = "torch"))]
        Command::Lora(_) => Err(crate::Error::NotBuilt { command: "lora" }),
        #[cfg(feature = "torch")]
        Command::Ablate(args) => crate::ablate::run(args),
        #[cfg(not(feature = "torch"))]
        Command::Ablate(_) => Err(crate::Error::NotBuilt { command: "ablate" }),
        Command::Export(args) => crate::export::run(args),
        Command::Evaluate(args) => crate::evaluate::run(args),
        Command::Peft(command) => crate::peft::run(command),
        Command::Report(args) => crate::report::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_stages_take_the_arguments_that_the_manual_names() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let line = "llmar-train evaluate --model m.llmar --data d.safetensors --split cross_subject --json";
        let Ok(Command::Evaluate(args)) = parse(line) else { panic!("{line}") };
        assert_eq!((args.split.as_str(), args.part, args.json, args.threads), ("cross_subject", Part::Test, true, 0));
        let Ok(Command::Evaluate(args)) = parse(&format!("{line} --as jogging=jog --as jump==")) else { panic!("{line}") };
        let called: Vec<_> = args.called.iter().map(|c| (c.class.as_str(), c.label.as_str())).collect();
        assert_eq!(called, [("jogging", "jog"), ("jump", "=")]);
        let line = "llmar-train report run --data d.safetensors --split cross_subject --part train --title t";
        let Ok(Command::Report(args)) = parse(line) else { panic!("{line}") };
        assert_eq!((args.run, args.model, args.part), (PathBuf::from("run"), None, Part::Train));
        let line = "llmar-train export --base b --stage1 s --adapter a --scheme q4 --out m";
        let Ok(Command::Export(args)) = parse(line) else { panic!("{line}") };
        assert_eq!(Scheme::from(args.scheme), Scheme::Q4);
        let line = "llmar-train lora c.toml --set a.b=1 --set c=x=y --out run --resume";
        let Ok(Command::Lora(args)) = parse(line) else { panic!("{line}") };
        let set: Vec<_> = args.set.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
        assert_eq!((set, args.resume), (vec![("a.b", "1"), ("c", "x=y")], true));
        for line in [
            "llmar-train",
            "llmar-train import a",
            "llmar-train report r --data d",
            "llmar-train lora c --out o --set a",
            "llmar-train lora c --out o --set .a=1",
            "llmar-train evaluate --model m --data d --split s --as walk",
            "llmar-train evaluate --model m --data d --split s --as =walk",
            "llmar-train evaluate --model m --data d --split s --as a=b --label a",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
