//! Random numbers for data and initial weights: xoshiro256++ (Blackman and Vigna), seeded through SplitMix64.
//!
//! A generator is made anew for every step from (seed, purpose, step). So a resumed run needs no generator state, and nothing depends on
//! how many numbers an earlier step drew.

/// A generator of its own stream.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream of (seed, purpose, index); different triples give independent streams.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        let mut state = seed;
        for word in purpose.bytes().map(u64::from).chain([index]) {
            state = split_mix(&mut state) ^ word;
        }
        Self(std::array::from_fn(|_| split_mix(&mut state)))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [−1, 1).
    pub fn signed(&mut self) -> f32 {
        2.0 * self.unit() - 1.0
    }

    /// Standard normal (Box and Muller, one of the pair).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.unit()).cos()
    }

    /// Uniform in 0..n, for n ≥ 1. The bias of the multiplication, n / 2⁶⁴, is of no account here.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// 0..n in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// A seed for libtorch's generator. Positive, as its interface takes signed numbers.
    pub fn torch_seed(&mut self) -> i64 {
        (self.bits() >> 1) as i64
    }

    /// The clips of one step: passes over all n in an order drawn per pass, cut into batches that go on over the end of a pass.
    pub fn batch(seed: u64, purpose: &str, step: usize, size: usize, n: usize) -> Vec<usize> {
        let first = step * size;
        let mut order = (usize::MAX, Vec::new());
        (first..first + size)
            .map(|at| {
                if order.0 != at / n {
                    order = (at / n, Self::new(seed, purpose, (at / n) as u64).permutation(n));
                }
                order.1[at % n]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_streams() {
        let mut rng = Rng::new(7, "test", 0);
        let n = 200_000;
        let draws: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f32>() / n as f32;
        let variance = draws.iter().map(|x| x * x).sum::<f32>() / n as f32;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
        assert_ne!(Rng::new(7, "test", 0).bits(), Rng::new(7, "test", 1).bits());
        assert_ne!(Rng::new(7, "test", 0).bits(), Rng::new(7, "tesu", 0).bits());
        assert_eq!(Rng::new(7, "test", 3).bits(), Rng::new(7, "test", 3).bits());
    }

    #[test]
    fn batches_cover_every_pass() {
        let mut seen: Vec<usize> = (0..5).flat_map(|step| Rng::batch(1, "b", step, 4, 10)).collect();
        let mut second = seen.split_off(10);
        seen.sort_unstable();
        second.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(second, (0..10).collect::<Vec<_>>());
    }
}
