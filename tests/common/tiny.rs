//! A complete little model, the same at every call: hidden size 64, two layers, a byte-level vocabulary of 300, 32 codes, four labels.
//! Its weights are pseudo-random, so its answers mean nothing; they are finite, differ from clip to clip and never change.

// Every test crate that includes this file uses another part of it.
#![allow(dead_code, reason = "shared by several test crates")]

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use llmar::checkpoint::{
    Calibration, FORMAT_VERSION, Label, Metadata, Prompt, Tensor, TensorData, TokenizerKind, TokenizerMeta, Words, write_checkpoint,
};
use llmar::device::{Geometry, Packed, Scheme, pack};
use llmar::llama::LlamaConfig;
use llmar::motion::{EncoderConfig, QuantizerConfig};
use llmar::skeleton::{Centre, Clip, Heading, Layout, Preprocess, Resample, Scale, Timing};
use llmar::text::{Tokenizer, TokenizerTables};

/// Every storage of the language model's matrices.
pub const SCHEMES: [Scheme; 4] = [Scheme::F32, Scheme::F16, Scheme::Q8, Scheme::Q4];
/// The model's labels.
pub const LABELS: [&str; 4] = ["walk", "sit down", "wave", "drink water"];
/// Frames a clip is resampled to; a quarter as many action tokens.
pub const FRAMES: usize = 32;

const VOCAB: usize = 300;
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// Words whose pieces are merged from their letters, from left to right.
const WORDS: [&str; 8] = [" action", " sequence", " tokens", " water", " down", "Given", "walk", "wave"];

/// Words that [`described`] knows.
pub const KNOWN: [&str; 6] = ["both", "down", "hands", "left", "right", "up"];
/// Labels that it tells by them, which are its own.
pub const DESCRIPTIONS: [&str; 4] = ["right up", "left down", "both hands up", "hands down right"];

/// The model with a reading of words, and labels that are told by them.
pub fn described(scheme: Scheme) -> (Metadata, Vec<Tensor<'static>>) {
    let (mut metadata, mut tensors, mut random) = (metadata(scheme), tensors(scheme), Random(0xd0e5));
    let tokenizer = Tokenizer::new(tables()).expect("the tiny tokenizer");
    for (label, text) in metadata.labels.iter_mut().zip(DESCRIPTIONS) {
        (label.text, label.ids) = (text.to_owned(), tokenizer.encode_continuation(&format!(" {text}")));
    }
    metadata.words = Some(Words { vocabulary: KNOWN.map(str::to_owned).to_vec(), temperature: 0.25 });
    let (words, dim) = (KNOWN.len(), metadata.quantizer.dim);
    tensors.push(floats("words.weight", &[words, dim], random.values(words * dim, 1.0)));
    tensors.push(floats("words.bias", &[words], random.values(words, 0.1)));
    tensors.push(floats("words.mean", &[words], vec![0.25, 0.5, 0.5, 0.25, 0.5, 0.5]));
    (metadata, tensors)
}

/// Writes [`described`] into `folder` and returns its path.
pub fn described_in(folder: &Path, scheme: Scheme) -> PathBuf {
    let path = folder.join(format!("described-{scheme:?}.llmar").to_lowercase());
    let (metadata, tensors) = described(scheme);
    write_checkpoint(&path, &metadata, &tensors).expect("the described model can be written");
    path
}

/// Writes the model to `path`.
pub fn write(path: &Path, scheme: Scheme) -> llmar::Result<()> {
    write_checkpoint(path, &metadata(scheme), &tensors(scheme))
}

/// The model as the bytes of a file.
pub fn bytes(scheme: Scheme) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file_in(folder.path(), scheme);
    std::fs::read(path).expect("the model just written")
}

/// Writes the model into `folder` and returns its path.
pub fn file_in(folder: &Path, scheme: Scheme) -> PathBuf {
    let path = folder.join(format!("tiny-{scheme:?}.llmar").to_lowercase());
    write(&path, scheme).expect("the tiny model can be written");
    path
}

/// Its metadata; `tensors_sha256` is filled in by the writer.
pub fn metadata(scheme: Scheme) -> Metadata {
    let tokenizer = Tokenizer::new(tables()).expect("the tiny tokenizer");
    let layout = Layout::find("kinect1_20").expect("a built-in layout");
    let preprocess = Preprocess {
        layout: layout.name,
        derived: vec![],
        persons: 1,
        coords: 3,
        frames: FRAMES,
        resample: Resample::Stretch,
        root: layout.joints[0].clone(),
        centre: Centre::FirstFrame,
        heading: Heading::Keep,
        scale: Scale::Keep,
        velocities: true,
        mean: vec![0.01; layout.joints.len() * 3],
        position_spread: 0.4,
        velocity_spread: 0.05,
        joints: layout.joints,
    };
    let prefix = "Given a sequence of action tokens";
    let suffix = ", please predict the corresponding action.";
    let answer_lead = " ";
    let label = |text: &str| Label {
        text: text.to_owned(),
        ids: tokenizer.encode_continuation(&format!("{answer_lead}{text}")),
        needs: Vec::new(),
        idle: false,
    };
    Metadata {
        format_version: FORMAT_VERSION,
        name: "tiny".to_owned(),
        producer: "tests".to_owned(),
        encoder: EncoderConfig { inputs: preprocess.features(), width: 16, halvings: 2, dilations: vec![3, 1], outputs: 32, causal: false },
        quantizer: QuantizerConfig { codes: 32, dim: 32, geometry: Geometry::Poincare { curvature: 1.0 }, gain: 0.7, clip: 1.0 },
        llama: LlamaConfig {
            hidden_size: 64,
            intermediate_size: 96,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 16,
            vocab_size: VOCAB,
            max_position_embeddings: 256,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
        },
        scheme,
        prompt: Prompt {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            answer_lead: answer_lead.to_owned(),
            prefix_ids: tokenizer.encode(prefix),
            suffix_ids: tokenizer.encode_continuation(suffix),
            eos_id: 2,
        },
        labels: LABELS.map(label).to_vec(),
        calibration: Calibration { temperature: 1.0, unknown_below: 0.0 },
        words: None,
        tokenizer: tables().meta,
        tensors_sha256: String::new(),
        preprocess,
    }
}

/// Byte-level BPE: three special tokens, the 256 bytes, and merges that spell [`WORDS`].
pub fn tables() -> TokenizerTables {
    let mut pieces: Vec<Vec<u8>> = SPECIAL.iter().map(|text| text.as_bytes().to_vec()).collect();
    pieces.extend((0..=255).map(|byte| vec![byte]));
    let mut merges = Vec::new();
    for word in WORDS {
        let mut left = id_of(&pieces, &word.as_bytes()[..1]);
        for end in 2..=word.len() {
            let piece = &word.as_bytes()[..end];
            if pieces.iter().all(|known| known != piece) {
                merges.push((left, id_of(&pieces, &piece[end - 1..])));
                pieces.push(piece.to_vec());
            }
            left = id_of(&pieces, piece);
        }
    }
    assert!(pieces.len() <= VOCAB, "{} pieces", pieces.len());
    pieces.resize(VOCAB, Vec::new()); // ids without a piece
    TokenizerTables {
        meta: TokenizerMeta { kind: TokenizerKind::ByteLevelBpe, bos_id: None, unk_id: None },
        pieces,
        merges,
        special: vec![0, 1, 2],
    }
}

fn id_of(pieces: &[Vec<u8>], piece: &[u8]) -> u32 {
    pieces.iter().position(|known| known == piece).expect("a known piece") as u32
}

/// Its tensors.
pub fn tensors(scheme: Scheme) -> Vec<Tensor<'static>> {
    let metadata = metadata(scheme);
    let mut random = Random(0x5eed);
    let mut out = tables().tensors();
    let encoder = &metadata.encoder;
    let mut convolution = |name: &str, outputs: usize, cols: usize| {
        let spread = (2.0 / cols as f32).sqrt();
        matrix(&mut out, &format!("encoder.{name}.weight"), Scheme::F16, outputs, cols, &random.values(outputs * cols, spread));
        out.push(floats(&format!("encoder.{name}.bias"), &[outputs], random.values(outputs, 0.1)));
    };
    convolution("in", encoder.width, 3 * encoder.inputs);
    for stage in 0..encoder.halvings {
        convolution(&format!("{stage}.down"), encoder.width, 4 * encoder.width);
        for block in 0..encoder.dilations.len() {
            convolution(&format!("{stage}.{block}.dilated"), encoder.width, 3 * encoder.width);
            convolution(&format!("{stage}.{block}.point"), encoder.width, encoder.width);
        }
    }
    convolution("out", encoder.outputs, 3 * encoder.width);
    let (codes, dim, hidden) = (metadata.quantizer.codes, metadata.quantizer.dim, metadata.llama.hidden_size);
    out.push(floats("quantizer.tangent", &[codes, dim], random.values(codes * dim, 0.15)));
    out.push(floats("quantizer.embedding", &[codes, hidden], random.values(codes * hidden, 0.5)));
    llama(&mut out, &metadata.llama, scheme, &mut random);
    out
}

fn llama(out: &mut Vec<Tensor<'static>>, config: &LlamaConfig, scheme: Scheme, random: &mut Random) {
    let hidden = config.hidden_size;
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let mut weights = |out: &mut Vec<Tensor<'static>>, name: &str, rows: usize, cols: usize| {
        let spread = 1.5 / (cols as f32).sqrt();
        matrix(out, name, scheme, rows, cols, &random.values(rows * cols, spread));
    };
    weights(out, "llama.embed", config.vocab_size, hidden);
    for layer in 0..config.num_hidden_layers {
        let name = |field: &str| format!("llama.layers.{layer}.{field}");
        out.push(floats(&name("attn_norm"), &[hidden], vec![1.0; hidden]));
        weights(out, &name("qkv"), queries + 2 * keys, hidden);
        weights(out, &name("o"), hidden, queries);
        out.push(floats(&name("ffn_norm"), &[hidden], vec![1.0; hidden]));
        weights(out, &name("gate_up"), 2 * config.intermediate_size, hidden);
        weights(out, &name("down"), hidden, config.intermediate_size);
    }
    out.push(floats("llama.norm", &[hidden], vec![1.0; hidden]));
}

fn floats(name: &str, shape: &[usize], values: Vec<f32>) -> Tensor<'static> {
    Tensor { name: name.to_owned(), shape: shape.to_vec(), data: TensorData::F32(Cow::Owned(values)) }
}

/// Packs `weights` [rows, cols] and adds the tensors of the scheme.
pub fn matrix(out: &mut Vec<Tensor<'static>>, name: &str, scheme: Scheme, rows: usize, cols: usize, weights: &[f32]) {
    let data = match pack(scheme, rows, cols, weights) {
        Packed::F32(w) => vec![TensorData::F32(w.into())],
        Packed::F16(w) => vec![TensorData::F16(w.into())],
        Packed::Q8 { q, scale } => vec![TensorData::U8(q.into()), TensorData::F16(scale.into())],
        Packed::Q4 { q, scale, min } => vec![TensorData::U8(q.into()), TensorData::F16(scale.into()), TensorData::F16(min.into())],
    };
    for ((suffix, _, shape), data) in llmar::device::packed_shapes(scheme, rows, cols).into_iter().zip(data) {
        out.push(Tensor { name: format!("{name}{suffix}"), shape, data });
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// Uniform in −1..1.
    pub fn next_f32(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Uniform values of standard deviation `spread`.
    pub fn values(&mut self, len: usize, spread: f32) -> Vec<f32> {
        (0..len).map(|_| self.next_f32() * spread * 3f32.sqrt()).collect()
    }
}

/// Joints [frames, 1, 20, 3] of a random walk; every seed another.
pub fn motion(seed: u64, frames: usize) -> Vec<f32> {
    const VALUES: usize = 20 * 3;
    let mut random = Random(seed);
    let mut joints = random.values(VALUES, 0.5);
    for at in VALUES..frames * VALUES {
        joints.push(joints[at - VALUES] + random.next_f32() * 0.1);
    }
    joints
}

/// The labels of the live model, as many tokens each, so that now this one is likelier and now that. The last one says that nothing
/// happens; the first two need knees.
pub const LIVE_LABELS: [&str; 6] = ["walk down", "walk water", "wave down", "wave water", "wave tokens", "walk tokens"];
/// Frames a second of the live model.
pub const LIVE_FPS: f32 = 30.0;

/// The model with a causal encoder that reads frames as they come, and labels that say what they need.
pub fn live_metadata(scheme: Scheme) -> Metadata {
    let mut metadata = metadata(scheme);
    let preprocess = &mut metadata.preprocess;
    preprocess.resample = Resample::Live { fps: LIVE_FPS };
    preprocess.heading = Heading::HipsToX;
    preprocess.scale = Scale::Segment { from: "hip_center".to_owned(), to: "shoulder_center".to_owned(), length: 0.5 };
    metadata.encoder.causal = true;
    let tokenizer = Tokenizer::new(tables()).expect("the tiny tokenizer");
    let label = |(at, text): (usize, &str)| Label {
        text: text.to_owned(),
        ids: tokenizer.encode_continuation(&format!(" {text}")),
        needs: if at < 2 { vec!["left_knee".to_owned(), "right_knee".to_owned()] } else { Vec::new() },
        idle: at + 1 == LIVE_LABELS.len(),
    };
    metadata.labels = LIVE_LABELS.into_iter().enumerate().map(label).collect();
    metadata
}

/// The live model as the bytes of a file. Its tensors are those of the other.
pub fn live_bytes(scheme: Scheme) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("live.llmar");
    write_checkpoint(&path, &live_metadata(scheme), &tensors(scheme)).expect("the tiny live model can be written");
    std::fs::read(path).expect("the model just written")
}

/// Frames [20, 3] without end, of joints that wander about a posture of their own: hips and shoulders stay apart however long it lasts.
pub struct Wander {
    random: Random,
    rest: Vec<f32>,
    now: Vec<f32>,
}

impl Wander {
    /// Every seed another.
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut rest = random.values(20 * 3, 0.4);
        rest[..3].copy_from_slice(&[0.0, 0.9, 2.0]);
        rest[2 * 3..3 * 3].copy_from_slice(&[0.0, 1.9, 2.0]);
        Self { random, now: rest.clone(), rest }
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> &[f32] {
        for (now, rest) in self.now.iter_mut().zip(&self.rest) {
            *now = rest + 0.9 * (*now - rest) + 0.1 * self.random.next_f32();
        }
        &self.now
    }
}

/// The clip of these joints.
pub fn clip(joints: &[f32]) -> Clip<'_> {
    Clip {
        joints,
        frames: joints.len() / (20 * 3),
        persons: 1,
        joints_per_person: 20,
        coords: 3,
        timing: Timing::Unknown,
        layout: "kinect1_20",
        valid: None,
    }
}
