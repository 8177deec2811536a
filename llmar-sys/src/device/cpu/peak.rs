//! What the machine can do at most, measured by the lanes themselves: the floors that benches print beside their figures.

use super::Cpu;
use super::lanes::{Kernel, LANES, Lanes};

/// Independent sums: enough to hide the latency of a multiply-add on two ports.
const SUMS: usize = 12;

struct MultiplyAdd {
    rounds: usize,
}

impl Kernel for MultiplyAdd {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> f32 {
        let (a, b) = (l.splat(std::hint::black_box(0.999)), l.splat(std::hint::black_box(1e-3)));
        let mut sums = [a; SUMS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = l.mul_add(*sum, a, b);
            }
        }
        let mut total = l.splat(0.0);
        for sum in sums {
            total = l.add(total, sum);
        }
        l.sum(total)
    }
}

struct Read<'a> {
    values: &'a [[f32; LANES]],
}

impl Kernel for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> f32 {
        let mut sums = [l.splat(0.0); 8];
        for values in self.values.as_chunks::<8>().0 {
            for (sum, values) in sums.iter_mut().zip(values) {
                *sum = l.add(*sum, l.load(values));
            }
        }
        let mut total = l.splat(0.0);
        for sum in sums {
            total = l.add(total, sum);
        }
        l.sum(total)
    }
}

impl Cpu {
    /// Runs f32 multiply-adds in registers on every thread and returns their number, all threads together.
    #[doc(hidden)]
    pub fn multiply_adds(&self, rounds: usize) -> usize {
        self.split(self.threads(), |_| {
            std::hint::black_box(self.run(MultiplyAdd { rounds }));
        });
        self.threads() * rounds * SUMS * LANES
    }

    /// Reads all of `values` once, each thread its share.
    #[doc(hidden)]
    pub fn read(&self, values: &[f32]) {
        let values = values.as_chunks::<LANES>().0;
        let parts = self.threads();
        self.split(parts, |part| {
            let share = values.len() * part / parts..values.len() * (part + 1) / parts;
            std::hint::black_box(self.run(Read { values: &values[share] }));
        });
    }
}
