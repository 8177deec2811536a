//! L_Zipf: the usage of codes, sorted, should fall as word frequencies do (LLM-AR eqs. 1 to 3).

use tch::Tensor;

use crate::health::{EPS, target};

/// Jensen-Shannon divergence, 0..=ln 2, between counts of codes `[codes]` (any sum above 0), sorted downwards, and [`target`].
pub fn loss(counts: &Tensor) -> Tensor {
    let codes = counts.size()[0];
    let (sorted, _) = counts.sort(-1, true);
    let kind = counts.kind();
    let p = &sorted / (sorted.sum(kind) + EPS);
    let q = Tensor::from_slice(&target(codes as usize)).to_kind(kind).to_device(p.device());
    let middle = (&p + &q) * 0.5;
    let divergence = |a: &Tensor| (a * ((a + EPS).log() - (&middle + EPS).log())).sum(kind);
    (divergence(&p) + divergence(&q)) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    use crate::torch::{Rng, number};

    /// Divergence of 4,096 tokens drawn from a distribution over 512 codes.
    fn sampled(distribution: &[f64]) -> f64 {
        let cumulative: Vec<f64> = distribution
            .iter()
            .scan(0.0, |sum, p| {
                *sum += p;
                Some(*sum)
            })
            .collect();
        let mut rng = Rng::new(3, "zipf", 0);
        let mut counts = vec![0f32; 512];
        for _ in 0..4096 {
            let draw = (rng.bits() >> 11) as f64 / (1u64 << 53) as f64;
            counts[cumulative.partition_point(|c| *c < draw).min(511)] += 1.0;
        }
        number(&loss(&Tensor::from_slice(&counts)))
    }

    #[test]
    fn known_sources() {
        let zipf = sampled(&target(512));
        assert!((zipf - 0.0069).abs() < 0.0012, "Zipf source {zipf}");
        let uniform = sampled(&[1.0 / 512.0; 512]);
        assert!((uniform - 0.109).abs() < 0.004, "uniform source {uniform}");
        let mut one = vec![0f32; 512];
        one[77] = 4096.0;
        let collapsed = number(&loss(&Tensor::from_slice(&one)));
        assert!((collapsed - 0.588).abs() < 5e-4, "one code {collapsed}");
        let exact: Vec<f32> = target(512).iter().map(|p| *p as f32).collect();
        assert!(number(&loss(&Tensor::from_slice(&exact))).abs() < 1e-6);
    }

    #[test]
    fn the_measured_divergence_is_the_loss() {
        let mut rng = Rng::new(5, "zipf", 1);
        let tokens: Vec<u16> = (0..2000).map(|_| (rng.below(64) * rng.below(8)) as u16).collect();
        let mut counts = vec![0f32; 512];
        tokens.iter().for_each(|t| counts[usize::from(*t)] += 1.0);
        let (measured, loss) = (Health::of(&tokens, 512).zipf_js, number(&loss(&Tensor::from_slice(&counts))));
        assert!(loss > 0.05 && (measured - loss).abs() < 1e-5, "{measured} against {loss}");
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let at = [5.0f64, 1.0, 3.0, 0.5, 2.0, 9.0];
        let x = Tensor::from_slice(&at).set_requires_grad(true);
        loss(&x).backward();
        let grad = Vec::<f64>::try_from(x.grad()).unwrap_or_default();
        for (i, g) in grad.iter().enumerate() {
            let moved = |h: f64| {
                let mut y = at;
                y[i] += h;
                number(&loss(&Tensor::from_slice(&y)))
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((g - difference).abs() < 1e-7 + 1e-4 * difference.abs(), "{i}: {g} against {difference}");
        }
        assert_eq!(grad.len(), 6);
    }
}
