//! ggml's block types → f32. Source: ggml's `block_q8_0`, `block_q4_0`, `block_q4_1`.
//!
//! | type | block | value |
//! |---|---|---|
//! | F32, F16 | one value | |
//! | Q8_0 | d f16, 32 × i8 | q · d |
//! | Q4_0 | d f16, 16 bytes | (q − 8) · d; low nibbles are values 0..16, high nibbles 16..32 |
//! | Q4_1 | d f16, m f16, 16 bytes | q · d + m; nibbles as above |

use half::f16;

/// The tensor types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 4 bits, scale.
    Q4_0,
    /// 4 bits, scale and minimum.
    Q4_1,
    /// 8 bits, scale.
    Q8_0,
}

impl BlockType {
    /// By ggml's number.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::F32),
            1 => Some(Self::F16),
            2 => Some(Self::Q4_0),
            3 => Some(Self::Q4_1),
            8 => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// (values, bytes) of one block.
    pub fn size(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q8_0 => (32, 34),
        }
    }

    /// Values of whole blocks; bytes beyond the last whole block are left out.
    pub fn dequantize(self, bytes: &[u8]) -> Vec<f32> {
        let (values, block_bytes) = self.size();
        let mut out = Vec::with_capacity(bytes.len() / block_bytes * values);
        let half_at = |block: &[u8], at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        match self {
            Self::F32 => out.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Self::F16 => out.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            Self::Q8_0 => {
                for block in bytes.as_chunks::<34>().0 {
                    let d = half_at(block, 0);
                    out.extend(block[2..].iter().map(|&q| f32::from(q.cast_signed()) * d));
                }
            }
            Self::Q4_0 => {
                for block in bytes.as_chunks::<18>().0 {
                    let d = half_at(block, 0);
                    out.extend(nibbles(&block[2..]).map(|q| (q - 8.0) * d));
                }
            }
            Self::Q4_1 => {
                for block in bytes.as_chunks::<20>().0 {
                    let (d, m) = (half_at(block, 0), half_at(block, 2));
                    out.extend(nibbles(&block[4..]).map(|q| q * d + m));
                }
            }
        }
        out
    }
}

/// All low nibbles, then all high nibbles.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.iter().map(|b| f32::from(b & 15)).chain(bytes.iter().map(|b| f32::from(b >> 4)))
}

/// ggml's name of a type, for messages.
pub fn type_name(number: u32) -> String {
    let name = match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        8 => "Q8_0",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        30 => "BF16",
        _ => return format!("number {number}"),
    };
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(value: f32) -> [u8; 2] {
        f16::from_f32(value).to_le_bytes()
    }

    #[test]
    fn blocks_give_the_values_that_were_put_in() {
        let quants: Vec<i8> = (-16..16).map(|i| i * 8 + 7).collect(); // -121 … 127
        let q8: Vec<u8> = half(0.5).into_iter().chain(quants.iter().map(|q| q.cast_unsigned())).collect();
        assert_eq!(BlockType::Q8_0.dequantize(&q8), quants.iter().map(|&q| f32::from(q) * 0.5).collect::<Vec<_>>());

        // Byte i holds i in the low nibble and 15 − i in the high one: values 0..16 rise, values 16..32 fall.
        let ramp: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let levels: Vec<f32> = (0..16).chain((0..16).rev()).map(|q| q as f32).collect();
        let q4_0 = [&half(0.25)[..], &ramp].concat();
        assert_eq!(BlockType::Q4_0.dequantize(&q4_0), levels.iter().map(|q| (q - 8.0) * 0.25).collect::<Vec<_>>());
        let q4_1 = [&half(0.25)[..], &half(-3.0), &ramp].concat();
        assert_eq!(BlockType::Q4_1.dequantize(&q4_1), levels.iter().map(|q| q * 0.25 - 3.0).collect::<Vec<_>>());
    }

    #[test]
    fn a_block_is_as_long_as_its_size_says() {
        for block in [BlockType::F32, BlockType::F16, BlockType::Q4_0, BlockType::Q4_1, BlockType::Q8_0] {
            let (values, bytes) = block.size();
            assert_eq!(block.dequantize(&vec![0; 3 * bytes]).len(), 3 * values, "{block:?}");
        }
    }
}
