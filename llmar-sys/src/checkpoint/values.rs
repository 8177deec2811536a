//! Looking for NaN and infinity in a checkpoint's floats, on the bit patterns: an exponent of all ones.

use super::header::Dtype;
use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// Name suffixes of the f16 tensors that scale quantised weights.
const SCALES: [&str; 2] = [".scale", ".min"];
/// Elements looked at between two decisions to stop.
const CHUNK: usize = 4096;

/// Whether opening a file reads this tensor: f32 tensors, the f16 scales and minima, and the encoder. The language model's f16 weights are most
/// of their file and are read by `verify` alone; where they give NaN, so do its logits, and that is an error.
pub(super) fn read_at_opening(name: &str, dtype: Dtype) -> bool {
    match dtype {
        Dtype::F32 => true,
        Dtype::F16 => name.starts_with("encoder.") || SCALES.iter().any(|suffix| name.ends_with(suffix)),
        Dtype::U8 | Dtype::U32 => false,
    }
}

/// The check that every opening makes.
pub(super) fn check_values(name: &str, dtype: Dtype, bytes: &Bytes) -> Result<()> {
    match dtype {
        Dtype::F32 => check_finite_f32(name, bytes.cast()?),
        Dtype::F16 if read_at_opening(name, dtype) => check_finite_f16(name, bytes.cast()?),
        // Alignment alone: a caller's memory may start anywhere.
        Dtype::F16 => bytes.cast::<u16>().map(|_| ()),
        Dtype::U32 => bytes.cast::<u32>().map(|_| ()),
        Dtype::U8 => Ok(()),
    }
}

/// Every f16 whose bits are in `words` is finite: the largest magnitude of a chunk, as an integer, is below infinity's. This vectorises.
pub(super) fn check_finite_f16(name: &str, words: &[u16]) -> Result<()> {
    for (chunk, words) in words.chunks(CHUNK).enumerate() {
        if words.iter().fold(0, |largest, word| largest.max(word & 0x7fff)) >= 0x7c00 {
            return Err(not_finite(name, chunk));
        }
    }
    Ok(())
}

/// As [`check_finite_f16`], for f32.
pub(super) fn check_finite_f32(name: &str, words: &[u32]) -> Result<()> {
    for (chunk, words) in words.chunks(CHUNK).enumerate() {
        if words.iter().fold(0, |largest, word| largest.max(word & 0x7fff_ffff)) >= 0x7f80_0000 {
            return Err(not_finite(name, chunk));
        }
    }
    Ok(())
}

fn not_finite(name: &str, chunk: usize) -> Error {
    Error::format(name, format!("NaN or infinity among the {CHUNK} elements from {}", chunk * CHUNK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_pattern_is_judged_as_half_judges_it() {
        for bits in 0..=u16::MAX {
            let finite = check_finite_f16("x", &[bits]).is_ok();
            assert_eq!(finite, half::f16::from_bits(bits).is_finite(), "{bits:#x}");
        }
    }

    #[test]
    fn one_bad_f32_is_found_wherever_it_stands() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, CHUNK - 1, CHUNK, 2 * CHUNK + 5] {
                let mut values = vec![f32::MAX; 2 * CHUNK + 6];
                assert!(check_finite_f32("x", bytemuck::cast_slice(&values)).is_ok());
                values[at] = bad;
                assert!(check_finite_f32("x", bytemuck::cast_slice(&values)).is_err(), "{bad} at {at}");
            }
        }
    }
}
