//! `llmar`: look into a model, check it, recognise clips and live frames with it, watch it at work, measure it.

mod bench;
#[cfg(feature = "cuda")]
mod bench_gpu;
mod clip;
mod feed;
mod frames;
mod info;
mod lines;
mod recognize;
mod stream;
mod view;

use std::io::{self, Write};
use std::process::ExitCode;

use lexopt::prelude::*;
use llmar::device::Place;
use llmar::recognizer::{Model, OpenOptions, THREAD_LIMIT};
use llmar::skeleton::Axes;

const HELP: &str = "\
llmar: recognises human actions in skeleton clips and live streams

usage:
  llmar info MODEL [--json]
  llmar verify MODEL
  llmar recognize MODEL CLIPS... [--top N] [--threads N] [--batch N] [--labels A,B,..] [--unknown-below P] [--greedy]
                  [--by-words] [--balance CLIPS] [--device D] [--memory BYTES] [--json]
  llmar stream MODEL CLIPS...|- [--top N] [--actions] [--worker] [--json] [LIVE]
  llmar view MODEL CLIPS...|- [--port P] [--record FILE] [--once] [LIVE]
  llmar clip CLIPS... [--index I] [--out FILE]
  llmar bench MODEL [CLIP] [--threads N] [--seconds S] [--batch N] [--prompt N] [--json]
  llmar bench MODEL [CLIP] --device cuda:N [--synthetic llama-7b|llama-13b] [--seconds S] [--batch N] [--prompt N] [--json]

MODEL is a .llmar checkpoint. CLIPS are files of skeleton clips: clip archives (.safetensors), NW-UCLA JSON or DeepMimic JSON;
the kind is found from the content. D is cpu, cuda:0, cuda:1, ... or auto. `--memory` is a budget for what the model and the recogniser allocate.
`--by-words` tells labels by the words of their texts, without the language model, where the checkpoint can; `info` lists the words that it knows.
`--balance` takes out of the answers what each label gets on other actions whatever is shown; for --labels that no training saw.
`stream` feeds clips into a live stream and prints what it says: decisions, and actions that begin and end. `view` shows the same on a page
that only this machine can open, in real time; what `--record` writes can be played like a clip. `-` reads frames from standard input,
one a line: {\"time_ns\": 0, \"body\": 0, \"joints\": [[x, y, z], null, ...]}. LIVE are options of both:
  [--real-time] [--pause S] [--fps F] [--every K] [--threads N] [--deadline-ms D] [--layout NAME] [--axes A]
  [--unknown-below P] [--device D] [--memory BYTES]
`--real-time` waits for each frame's time (`view` does so for clips), S are the seconds between clips (1), F the rate of clips that do not
say theirs (30), K the action tokens between decisions (1). A decision later than D ms is not made; NAME is the layout of the frames of `-`,
A their axes and unit: openxr (the default: y up, z back, metres), unity, unreal, ros, azure_kinect, or opencv in metres.
`--synthetic` measures a language model of that shape with made-up weights in MODEL's place. `clip` writes one clip as the plain text that examples/c reads.
Exit status: 0 done, 1 error, 2 wrong usage.";

/// Options of everything that makes a live stream.
const LIVE: &[&str] = &["pause", "fps", "every", "threads", "deadline-ms", "layout", "axes", "unknown-below", "device", "memory"];

/// Why the program ends without success.
enum Failure {
    /// None: help was asked for behind a command.
    Help,
    /// Wrong words on the command line.
    Usage(String),
    /// The library refused.
    Llmar(llmar::Error),
    /// The library refused a clip: of which file, and which of its clips.
    Clip(String, llmar::Error),
    /// Standard output is gone.
    Output(io::Error),
    /// Standard input cannot be read.
    Input(io::Error),
    /// No page can be served on this port.
    Port(u16, io::Error),
}

impl From<lexopt::Error> for Failure {
    fn from(e: lexopt::Error) -> Self {
        Self::Usage(e.to_string())
    }
}
impl From<llmar::Error> for Failure {
    fn from(e: llmar::Error) -> Self {
        Self::Llmar(e)
    }
}
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

/// Everything after the subcommand; each subcommand takes what it knows and refuses the rest.
#[derive(Default)]
struct Arguments {
    paths: Vec<std::path::PathBuf>,
    json: bool,
    greedy: bool,
    by_words: bool,
    threads: Option<usize>,
    top: Option<usize>,
    batch: Option<usize>,
    prompt: Option<usize>,
    index: Option<usize>,
    seconds: Option<f64>,
    unknown_below: Option<f32>,
    labels: Option<Vec<String>>,
    balance: Option<std::path::PathBuf>,
    device: Place,
    memory: u64,
    synthetic: Option<String>,
    out: Option<std::path::PathBuf>,
    real_time: bool,
    worker: bool,
    actions: bool,
    once: bool,
    every: Option<usize>,
    port: u16,
    pause: Option<f64>,
    fps: Option<f32>,
    deadline_ms: Option<f64>,
    layout: Option<String>,
    axes: Option<Axes>,
    record: Option<std::path::PathBuf>,
}

impl Arguments {
    fn parse(parser: &mut lexopt::Parser, known: &[&str]) -> Result<Self, Failure> {
        let mut all = Self::default();
        while let Some(arg) = parser.next()? {
            let name = match &arg {
                Value(path) => {
                    all.paths.push(path.into());
                    continue;
                }
                Long(name) if known.contains(name) => (*name).to_owned(),
                Long("help") | Short('h') => return Err(Failure::Help),
                _ => return Err(arg.unexpected().into()),
            };
            match name.as_str() {
                "json" => all.json = true,
                "greedy" => all.greedy = true,
                "by-words" => all.by_words = true,
                "threads" => all.threads = Some(parser.value()?.parse()?),
                "top" => all.top = Some(parser.value()?.parse()?),
                "batch" => all.batch = Some(parser.value()?.parse()?),
                "prompt" => all.prompt = Some(parser.value()?.parse()?),
                "index" => all.index = Some(parser.value()?.parse()?),
                "seconds" => all.seconds = Some(parser.value()?.parse()?),
                "unknown-below" => all.unknown_below = Some(parser.value()?.parse()?),
                "labels" => all.labels = Some(parser.value()?.string()?.split(',').map(|s| s.trim().to_owned()).collect()),
                "balance" => all.balance = Some(parser.value()?.into()),
                "device" => {
                    all.device = parser.value()?.string()?.parse::<Place>().map_err(|e| Failure::Usage(format!("--device: {e}")))?
                }
                "memory" => all.memory = parser.value()?.parse()?,
                "real-time" => all.real_time = true,
                "worker" => all.worker = true,
                "actions" => all.actions = true,
                "once" => all.once = true,
                "every" => all.every = Some(parser.value()?.parse()?),
                "port" => all.port = parser.value()?.parse()?,
                "pause" => all.pause = Some(parser.value()?.parse()?),
                "fps" => all.fps = Some(parser.value()?.parse()?),
                "deadline-ms" => all.deadline_ms = Some(parser.value()?.parse()?),
                "layout" => all.layout = Some(parser.value()?.string()?),
                "axes" => all.axes = Some(axes(&parser.value()?.string()?)?),
                "record" => all.record = Some(parser.value()?.into()),
                "synthetic" => all.synthetic = Some(parser.value()?.string()?),
                _ => all.out = Some(parser.value()?.into()),
            }
        }
        Ok(all)
    }

    /// The model's path and the paths after it.
    fn model(&self) -> Result<(&std::path::Path, &[std::path::PathBuf]), Failure> {
        match self.paths.split_first() {
            Some((model, rest)) => Ok((model, rest)),
            None => Err(Failure::Usage("a MODEL is missing".into())),
        }
    }

    /// How a model is opened, as asked for. Says so where `auto` has to take the CPU.
    fn open(&self, path: &std::path::Path) -> Result<std::sync::Arc<Model>, Failure> {
        let model = Model::open(path, OpenOptions { device: self.device, memory_budget: self.memory, ..OpenOptions::default() })?;
        if let Some(reason) = model.fallback() {
            let _ = writeln!(io::stderr(), "llmar: runs on the CPU: {reason}");
        }
        Ok(model)
    }

    /// Threads asked for, else one a core, as many as a recogniser takes.
    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from).min(THREAD_LIMIT))
    }
}

/// Axes by name.
fn axes(name: &str) -> Result<Axes, Failure> {
    let names = Axes::NAMED.map(|(known, _)| known).join(", ");
    let found = Axes::NAMED.into_iter().find_map(|(known, axes)| (known == name).then_some(axes));
    found.ok_or_else(|| Failure::Usage(format!("--axes: expected one of {names}, got {name}")))
}

fn run() -> Result<(), Failure> {
    let mut parser = lexopt::Parser::from_env();
    let command = match parser.next()? {
        Some(Value(word)) => word.string()?,
        Some(Long("version") | Short('V')) => "version".to_owned(),
        Some(Long("help") | Short('h')) | None => "help".to_owned(),
        Some(other) => return Err(other.unexpected().into()),
    };
    let mut parse = |known: &[&str]| Arguments::parse(&mut parser, known);
    match command.as_str() {
        "info" => info::info(&parse(&["json"])?),
        "verify" => info::verify(&parse(&[])?),
        "recognize" => recognize::recognize(&parse(&[
            "json",
            "threads",
            "top",
            "batch",
            "labels",
            "unknown-below",
            "greedy",
            "by-words",
            "balance",
            "device",
            "memory",
        ])?),
        "stream" => {
            let own = ["json", "real-time", "worker", "actions", "top"];
            stream::stream(&parse(&[&own[..], LIVE].concat())?)
        }
        "view" => {
            let own = ["port", "record", "once", "real-time"];
            view::view(&parse(&[&own[..], LIVE].concat())?)
        }
        "clip" => clip::clip(&parse(&["index", "out"])?),
        "bench" => bench::bench(&parse(&["json", "threads", "seconds", "batch", "prompt", "device", "synthetic"])?),
        "help" => Ok(writeln!(io::stdout(), "{HELP}")?),
        "version" => Ok(writeln!(io::stdout(), "llmar {}", env!("CARGO_PKG_VERSION"))?),
        other => Err(Failure::Usage(format!("unknown command `{other}`"))),
    }
}

fn main() -> ExitCode {
    let (code, message) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        // A reader that closes our output early (head) is no failure worth a message.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(Failure::Help) => match writeln!(io::stdout(), "{HELP}") {
            Ok(()) => return ExitCode::SUCCESS,
            Err(e) => (1, format!("standard output: {e}")),
        },
        Err(Failure::Usage(m)) => (2, format!("{m}\n\n{HELP}")),
        Err(Failure::Llmar(e)) => (1, e.to_string()),
        Err(Failure::Clip(clip, e)) => (1, format!("{clip}: {e}")),
        Err(Failure::Output(e)) => (1, format!("standard output: {e}")),
        Err(Failure::Input(e)) => (1, format!("standard input: {e}")),
        Err(Failure::Port(port, e)) => (1, format!("127.0.0.1:{port}: {e}")),
    };
    // Standard error may be closed too; there is nobody left to tell.
    let _ = writeln!(io::stderr(), "llmar: {message}");
    ExitCode::from(code)
}
