//! L_Zipf: the usage of codes, sorted, should fall as word frequencies do (LLM-AR eqs. 1 to 3).

use tch::{Kind, Tensor};

const EPS: f64 = 1e-10;

/// Zipf's law with Mandelbrot's offset: p(i) ∝ 1 / (i + 2.7), i = 1..=codes; [codes], sums to 1.
pub fn target(codes: usize) -> Vec<f64> {
    let raw: Vec<f64> = (1..=codes).map(|i| 1.0 / (i as f64 + 2.7)).collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|p| p / sum).collect()
}

/// Jensen-Shannon divergence, 0..=ln 2, between counts of codes [codes] (any sum above 0), sorted downwards, and [`target`].
pub fn loss(counts: &Tensor) -> Tensor {
    let codes = counts.size()[0];
    let (sorted, _) = counts.sort(-1, true);
    let p = &sorted / (sorted.sum(Kind::Float) + EPS);
    let q = Tensor::from_slice(&target(codes as usize)).to_kind(p.kind()).to_device(p.device());
    let middle = (&p + &q) * 0.5;
    let divergence = |a: &Tensor| (a * ((a + EPS).log() - (&middle + EPS).log())).sum(Kind::Float);
    (divergence(&p) + divergence(&q)) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{Rng, number};

    #[test]
    fn known_sources() {
        let uniform = number(&loss(&Tensor::ones([512], (Kind::Float, tch::Device::Cpu))));
        assert!((uniform - 0.109).abs() < 5e-4, "uniform {uniform}");
        let mut one = vec![0f32; 512];
        one[77] = 4096.0;
        let collapsed = number(&loss(&Tensor::from_slice(&one)));
        assert!((collapsed - 0.588).abs() < 5e-4, "one code {collapsed}");
        // A perfect Zipf source, 4,096 tokens.
        let cumulative: Vec<f64> = target(512)
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
        let sampled = number(&loss(&Tensor::from_slice(&counts)));
        assert!((sampled - 0.0069).abs() < 0.0012, "Zipf source {sampled}");
        let exact: Vec<f32> = target(512).iter().map(|p| *p as f32).collect();
        assert!(number(&loss(&Tensor::from_slice(&exact))).abs() < 1e-6);
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
