//! What several tests need: real data where it is there, a GGUF writer, a tiny LLaMA.

use half::f16;
use llmar::llama::LlamaConfig;

#[path = "../../tests/common/shared.rs"]
mod folder;
#[path = "../../tests/common/smollm2.rs"]
mod smollm2;

pub use folder::shared;
pub use smollm2::gguf as smollm2;

/// Numbers in −1..1, the same for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// splitmix64
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Values that f16 holds exactly.
    pub fn halves(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| f16::from_f32(self.uniform()).to_f32()).collect()
    }
}

/// The smallest shape with all that matters: grouped heads, whole blocks of 32, q and k of several heads.
pub fn tiny_config() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 300,
        max_position_embeddings: 128,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
    }
}

/// A GGUF file in the making.
#[derive(Clone, Default)]
pub struct GgufWriter {
    keys: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

impl GgufWriter {
    /// Adds or replaces a key; `value` is its type number and bytes.
    pub fn raw(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut Self {
        self.without(key);
        self.keys.push((key.to_string(), [&kind.to_le_bytes(), value].concat()));
        self
    }

    pub fn without(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|(name, _)| name != key);
        self
    }

    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(key, 7, &[u8::from(value)])
    }

    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, 8, &string(value))
    }

    pub fn strings(&mut self, key: &str, values: &[String]) -> &mut Self {
        let body: Vec<u8> = values.iter().flat_map(|v| string(v)).collect();
        self.array(key, 8, values.len(), &body)
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        let body: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.array(key, 5, values.len(), &body)
    }

    pub fn f32s(&mut self, key: &str, values: &[f32]) -> &mut Self {
        let body: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.array(key, 6, values.len(), &body)
    }

    fn array(&mut self, key: &str, kind: u32, len: usize, body: &[u8]) -> &mut Self {
        let value = [&kind.to_le_bytes()[..], &(len as u64).to_le_bytes(), body].concat();
        self.raw(key, 9, &value)
    }

    /// Adds or replaces a tensor: shape outermost first, ggml's type number, its bytes.
    pub fn tensor(&mut self, name: &str, shape: &[usize], kind: u32, bytes: Vec<u8>) -> &mut Self {
        self.without_tensor(name);
        self.tensors.push((name.to_string(), shape.to_vec(), kind, bytes));
        self
    }

    pub fn without_tensor(&mut self, name: &str) -> &mut Self {
        self.tensors.retain(|(other, ..)| other != name);
        self
    }

    /// The file, and the length of what comes before the tensors.
    pub fn build(&self) -> (Vec<u8>, usize) {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            file.extend(string(key));
            file.extend(value);
        }
        let mut offset = 0u64;
        for (name, shape, kind, bytes) in &self.tensors {
            file.extend(string(name));
            file.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|&dim| file.extend((dim as u64).to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
            offset = (offset + bytes.len() as u64).next_multiple_of(32);
        }
        let header = file.len();
        for (.., bytes) in &self.tensors {
            file.resize(file.len().next_multiple_of(32), 0);
            file.extend(bytes);
        }
        (file, header)
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}
