//! An opened model: immutable, shared by recognisers of any number of threads.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::bytes::Bytes;
use crate::checkpoint::{Checkpoint, Metadata, ReadOptions};
use crate::control::Control;
use crate::device::{Buffer, Device, Place, Placed};
use crate::error::{Error, Result};
use crate::llama::{Llama, Weights};
use crate::motion::{ActionSentence, Encoder, EncoderScratch, Quantizer};
use crate::skeleton::{Clip, prepare};
use crate::text::{Tokenizer, WordReading};

/// How a model is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Recompute the SHA-256 over the tensors (reads the whole file).
    pub verify: bool,
    /// Where the model and its recognisers run.
    pub device: Place,
    /// Bytes that the model and all its recognisers may allocate for what they keep between calls: on the CPU their buffers and caches, on a GPU the
    /// weights as well. The mapped checkpoint is not counted. 0 sets no limit.
    pub memory_budget: u64,
}

/// A checkpoint with its stages ready to run.
#[derive(Debug)]
pub struct Model {
    checkpoint: Checkpoint,
    encoder: Encoder,
    quantizer: Quantizer,
    llama: Llama,
    /// Where labels can be told by their words.
    words: Option<WordReading>,
    /// Built when labels are first replaced.
    tokenizer: OnceLock<Tokenizer>,
    placed: Placed,
    /// Why the CPU was taken where [`Place::Auto`] looked for a GPU.
    fallback: Option<Error>,
}

impl Model {
    /// Maps a `.llmar` file. The file must not be changed while the model lives (a new one may be renamed over it).
    pub fn open(path: &Path, options: OpenOptions) -> Result<Arc<Self>> {
        Self::new(Checkpoint::open(path, read_options(options))?, options)
    }

    /// Copies a `.llmar` file that is in memory.
    pub fn from_bytes(bytes: &[u8], options: OpenOptions) -> Result<Arc<Self>> {
        Self::new(Checkpoint::from_bytes(Bytes::copy_from(bytes), read_options(options))?, options)
    }

    /// Uses memory that is never freed, without a copy.
    pub fn from_static(bytes: &'static [u8], options: OpenOptions) -> Result<Arc<Self>> {
        Self::new(Checkpoint::from_bytes(Bytes::from_static(bytes), read_options(options))?, options)
    }

    /// Uses bytes as they are, without a copy.
    pub fn from_shared(bytes: Bytes, options: OpenOptions) -> Result<Arc<Self>> {
        Self::new(Checkpoint::from_bytes(bytes, read_options(options))?, options)
    }

    fn new(checkpoint: Checkpoint, options: OpenOptions) -> Result<Arc<Self>> {
        let metadata = checkpoint.metadata();
        check_stages(metadata)?;
        let encoder = Encoder::read(&metadata.encoder, &checkpoint)?;
        let quantizer = Quantizer::read(&metadata.quantizer, metadata.llama.hidden_size, &checkpoint)?;
        let llama = Llama { config: metadata.llama.clone(), weights: Weights::read(&metadata.llama, &checkpoint)? };
        let words = WordReading::read(metadata, &checkpoint)?;
        let (placed, fallback) = Placed::find(options.device, options.memory_budget)?;
        let device = placed.device(1)?;
        let (encoder, quantizer, llama) = (encoder.place(&device)?, quantizer.place(&device)?, llama.place(&device)?);
        device.synchronize()?;
        drop(device);
        Ok(Arc::new(Self { checkpoint, encoder, quantizer, llama, words, tokenizer: OnceLock::new(), placed, fallback }))
    }

    /// This model, on its GPU, with a language model of another shape and made-up weights in place of its own: skeletons, prompt and labels stay, the
    /// answers mean nothing. For measurements without a checkpoint.
    #[cfg(feature = "cuda")]
    pub fn synthetic(&self, config: crate::llama::LlamaConfig, scheme: crate::device::Scheme) -> Result<Arc<Self>> {
        let device = self.placed.device(1)?;
        let weights = Weights::random(&config, scheme, &device)?;
        let quantizer = self.quantizer.with_random_embeddings(&device, config.hidden_size)?;
        device.synchronize()?;
        let metadata = Metadata {
            llama: config.clone(),
            scheme,
            name: format!("{} of made-up weights", self.metadata().name),
            ..self.metadata().clone()
        };
        Ok(Arc::new(Self {
            checkpoint: self.checkpoint.with_metadata(metadata),
            encoder: self.encoder.clone(),
            quantizer,
            llama: Llama { config, weights },
            words: self.words.clone(),
            tokenizer: OnceLock::new(),
            placed: self.placed.clone(),
            fallback: None,
        }))
    }

    /// Where it lies.
    pub fn placed(&self) -> &Placed {
        &self.placed
    }

    /// Why it lies on the CPU although [`Place::Auto`] looked for a GPU.
    pub fn fallback(&self) -> Option<&Error> {
        self.fallback.as_ref()
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Metadata {
        self.checkpoint.metadata()
    }

    /// Bytes of the checkpoint.
    pub fn file_len(&self) -> u64 {
        self.checkpoint.file_len()
    }

    /// The language model.
    pub fn llama(&self) -> &Llama {
        &self.llama
    }

    /// The motion encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The codebook.
    pub fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    /// What tells labels by their words, where the checkpoint has it.
    pub fn words(&self) -> Option<&WordReading> {
        self.words.as_ref()
    }

    /// The tokenizer, built at the first call and kept.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        // Two threads may build it at once; the first one's stays.
        let built = Tokenizer::read(&self.checkpoint)?;
        Ok(self.tokenizer.get_or_init(|| built))
    }

    /// The action sentences of clips, in order, and with `means` the means of their features. An unusable clip fails the whole call; `of_clip` says which
    /// one it was.
    pub(super) fn tokenize(
        &self,
        device: &Device,
        clips: &[Clip<'_>],
        scratch: &mut EncoderScratch,
        control: &Control,
        means: bool,
        of_clip: impl Fn(usize, Error) -> Error,
    ) -> Result<Vec<Tokenized>> {
        let preprocess = &self.metadata().preprocess;
        let mut sentences: Vec<Tokenized> = Vec::with_capacity(clips.len());
        for some in clips.chunks(TOGETHER) {
            let mut prepared = Vec::with_capacity(some.len());
            for (i, clip) in some.iter().enumerate() {
                control.check()?;
                prepared.push(prepare(preprocess, clip).map_err(|source| of_clip(sentences.len() + i, source))?);
            }
            // Clips of equal length go through the encoder together: all of them, but for a live model.
            for alike in prepared.chunk_by(|a, b| a.features.len() == b.features.len()) {
                control.check()?;
                let frames = alike[0].features.len() / preprocess.features();
                let tokens = self.encoder.config().tokens(frames);
                if tokens == 0 {
                    let detail = format!("it lasts {frames} frames at the model's rate, less than one action token");
                    return Err(of_clip(sentences.len(), Error::EmptyClip { detail }));
                }
                let features: Vec<f32> = alike.iter().flat_map(|prepared| &prepared.features).copied().collect();
                let encoded = self.encoder.forward(device, &features, alike.len(), frames, scratch)?;
                let all = self.quantizer.quantize(device, encoded, alike.len() * tokens)?.tokens;
                let means = if means { self.means(device, encoded, alike.len(), tokens)? } else { vec![Vec::new(); alike.len()] };
                for ((tokens, prepared), mean) in all.chunks(tokens).zip(alike).zip(means) {
                    let sentence = ActionSentence { tokens: tokens.to_vec() };
                    sentences.push(Tokenized { sentence, missing: prepared.missing, mean });
                }
            }
        }
        Ok(sentences)
    }

    /// Means over the tokens of each clip of the encoder's outputs [clips, tokens, dim] after gain and clip: [clips, dim], added up in f64 in their order.
    fn means(&self, device: &Device, encoded: &Buffer, clips: usize, tokens: usize) -> Result<Vec<Vec<f64>>> {
        let config = self.quantizer.config();
        let mut features = vec![0.0; clips * tokens * config.dim];
        device.read(encoded, &mut features)?;
        config.condition(&mut features);
        let mean = |clip: &[f32]| {
            let mut mean = vec![0f64; config.dim];
            clip.chunks_exact(config.dim).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x)));
            mean.iter_mut().for_each(|m| *m /= tokens as f64);
            mean
        };
        Ok(features.chunks_exact(tokens * config.dim).map(mean).collect())
    }
}

/// What a clip became without the language model.
#[derive(Clone, Debug)]
pub(super) struct Tokenized {
    pub sentence: ActionSentence,
    /// Share of its joint-frames that were missing and filled.
    pub missing: f32,
    /// Mean of its features `[dim]` where it was asked for, else empty.
    pub mean: Vec<f64>,
}

/// Clips that go through the encoder together.
const TOGETHER: usize = 64;

fn read_options(options: OpenOptions) -> ReadOptions {
    ReadOptions { verify: options.verify }
}

/// The stages fit together: what one gives is what the next one takes.
fn check_stages(metadata: &Metadata) -> Result<()> {
    let Metadata { preprocess, encoder, quantizer, llama, prompt, calibration, .. } = metadata;
    let equal = |what: &str, expected: usize, got: usize| {
        if expected == got { Ok(()) } else { Err(Error::format(what, format!("expected {expected}, got {got}"))) }
    };
    llama.check()?;
    equal("encoder.inputs against the features of preprocess", preprocess.features(), encoder.inputs)?;
    equal("quantizer.dim against encoder.outputs", encoder.outputs, quantizer.dim)?;
    if preprocess.frames.checked_shr(encoder.halvings as u32).unwrap_or(0) == 0 {
        return Err(Error::format(
            "preprocess.frames",
            format!("{} leaves no token after {} halvings", preprocess.frames, encoder.halvings),
        ));
    }
    let vocab = llama.vocab_size;
    if let Some(id) = prompt.prefix_ids.iter().chain(&prompt.suffix_ids).find(|&&id| id as usize >= vocab) {
        return Err(Error::format("prompt ids", format!("expected ids below the vocabulary's {vocab}, got {id}")));
    }
    if !(calibration.temperature.is_finite() && calibration.temperature > 0.0) {
        return Err(Error::format("calibration.temperature", format!("expected a finite number above 0, got {}", calibration.temperature)));
    }
    if !(0.0..=1.0).contains(&calibration.unknown_below) {
        return Err(Error::format("calibration.unknown_below", format!("expected 0..=1, got {}", calibration.unknown_below)));
    }
    Ok(())
}
