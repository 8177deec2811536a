//! An opened model: immutable, shared by recognisers of any number of threads.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::bytes::Bytes;
use crate::checkpoint::{Checkpoint, Metadata, ReadOptions};
use crate::control::Control;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::llama::{Llama, Weights};
use crate::motion::{ActionSentence, Encoder, Quantizer};
use crate::skeleton::{Clip, prepare};
use crate::text::Tokenizer;

/// How a model is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Recompute the SHA-256 over the tensors (reads the whole file).
    pub verify: bool,
}

/// A checkpoint with its stages ready to run.
#[derive(Debug)]
pub struct Model {
    checkpoint: Checkpoint,
    encoder: Encoder,
    quantizer: Quantizer,
    llama: Llama,
    /// Built when labels are first replaced.
    tokenizer: OnceLock<Tokenizer>,
}

impl Model {
    /// Maps a `.llmar` file. The file must not be changed while the model lives (a new one may be renamed over it).
    pub fn open(path: &Path, options: OpenOptions) -> Result<Arc<Self>> {
        Self::new(Checkpoint::open(path, read_options(options))?)
    }

    /// Copies a `.llmar` file that is in memory.
    pub fn from_bytes(bytes: &[u8], options: OpenOptions) -> Result<Arc<Self>> {
        Self::new(Checkpoint::from_bytes(Bytes::copy_from(bytes), read_options(options))?)
    }

    /// Uses memory that is never freed, without a copy.
    pub fn from_static(bytes: &'static [u8], options: OpenOptions) -> Result<Arc<Self>> {
        Self::new(Checkpoint::from_bytes(Bytes::from_static(bytes), read_options(options))?)
    }

    /// Uses bytes as they are, without a copy.
    pub fn from_shared(bytes: Bytes, options: OpenOptions) -> Result<Arc<Self>> {
        Self::new(Checkpoint::from_bytes(bytes, read_options(options))?)
    }

    fn new(checkpoint: Checkpoint) -> Result<Arc<Self>> {
        let metadata = checkpoint.metadata();
        check_stages(metadata)?;
        let encoder = Encoder::read(&metadata.encoder, &checkpoint)?;
        let quantizer = Quantizer::read(&metadata.quantizer, metadata.llama.hidden_size, &checkpoint)?;
        let llama = Llama { config: metadata.llama.clone(), weights: Weights::read(&metadata.llama, &checkpoint)? };
        Ok(Arc::new(Self { checkpoint, encoder, quantizer, llama, tokenizer: OnceLock::new() }))
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

    /// The tokenizer, built at the first call and kept.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        // Two threads may build it at once; the first one's stays.
        let built = Tokenizer::read(&self.checkpoint)?;
        Ok(self.tokenizer.get_or_init(|| built))
    }

    /// The action sentence of a clip, and the share of its joint-frames that were missing and filled.
    pub(super) fn tokenize(&self, device: &Device, clip: &Clip<'_>, control: &Control) -> Result<(ActionSentence, f32)> {
        let preprocess = &self.metadata().preprocess;
        control.check()?;
        let prepared = prepare(preprocess, clip)?;
        control.check()?;
        let encoded = self.encoder.forward(device, &prepared.features, preprocess.frames);
        if !encoded.iter().all(|x| x.is_finite()) {
            return Err(Error::format("encoder", "its features are not finite numbers: the weights overflow f32"));
        }
        Ok((self.quantizer.quantize(device, &encoded), prepared.missing))
    }
}

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
