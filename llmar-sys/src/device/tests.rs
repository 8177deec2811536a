//! Every backend against the reference, the same cases for each: all instruction sets of this machine, and the CUDA kernels, on a GPU or in
//! the emulator.

mod cases;
#[cfg(feature = "cuda")]
pub(super) mod gpu;

/// Small, seeded generator (splitmix64): the cases are the same on every machine.
pub(in crate::device) struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// −1..1
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    /// Roughly normal: the sum of four uniforms, variance 4/3.
    pub fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.uniform()).sum()
    }
    pub fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.normal()).collect()
    }
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }
}
