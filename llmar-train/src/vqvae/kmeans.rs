//! The codebook's start: k-means over features, with the quantiser's own distance.

use tch::{Kind, Tensor};

use super::quantizer::Ball;
use crate::torch::Rng;

/// `codes` centres [codes, dim] of features [n, dim] (tangent vectors) after `rounds` rounds. Assignment is by the ball's distance, centres
/// are tangent means; with `shell` they are then rescaled to the features' mean norm (see `quantizer.shell`). Empty centres jump to features.
pub fn kmeans(features: &Tensor, codes: usize, rounds: usize, shell: bool, ball: Ball, rng: &mut Rng) -> Tensor {
    let n = features.size()[0] as usize;
    let device = features.device();
    let mut pick = |count: usize| -> Vec<i64> { (0..count).map(|_| rng.below(n) as i64).collect() };
    let mut centres = if n >= codes {
        let order: Vec<i64> = distinct(n, codes, &mut pick);
        features.index_select(0, &Tensor::from_slice(&order).to_device(device))
    } else {
        features.index_select(0, &Tensor::from_slice(&pick(codes)).to_device(device))
    };
    let radius = mean_norm(features);
    for _ in 0..rounds {
        let nearest = ball.nearest(features, &centres);
        let counts = nearest.bincount::<Tensor>(None, codes as i64).to_kind(Kind::Float).unsqueeze(-1);
        let sums = centres.zeros_like().index_add(0, &nearest, features);
        let strays = features.index_select(0, &Tensor::from_slice(&pick(codes)).to_device(device));
        centres = (sums / counts.clamp_min(1.0)).where_self(&counts.gt(0.0), &strays);
        if shell {
            centres = on_shell(&centres, radius);
        }
    }
    centres
}

/// `codes` different indices below n, by drawing again on repeats.
fn distinct(n: usize, codes: usize, pick: &mut impl FnMut(usize) -> Vec<i64>) -> Vec<i64> {
    let mut taken = vec![false; n];
    let mut out = Vec::with_capacity(codes);
    while out.len() < codes {
        for index in pick(codes - out.len()) {
            if !std::mem::replace(&mut taken[index as usize], true) {
                out.push(index);
            }
        }
    }
    out
}

/// Mean norm of the rows of x [n, d].
pub fn mean_norm(x: &Tensor) -> f64 {
    norms(x).mean(Kind::Float).double_value(&[])
}

fn norms(x: &Tensor) -> Tensor {
    x.detach().square().sum_dim_intlist([-1i64].as_slice(), true, Kind::Float).sqrt()
}

/// Rows of x [n, d], rescaled to norm `radius`.
pub fn on_shell(x: &Tensor, radius: f64) -> Tensor {
    x * (norms(x).clamp_min(1e-9).reciprocal() * radius)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::values;
    use llmar::device::Geometry;

    #[test]
    fn finds_separate_clusters_on_the_shell() -> crate::Result<()> {
        let mut rng = Rng::new(2, "clusters", 0);
        let centres: Vec<[f32; 4]> = (0..8).map(|_| std::array::from_fn(|_| rng.normal())).collect();
        let rows: Vec<f32> = (0..800).flat_map(|i| centres[i % 8].map(|c| c + 0.01 * rng.normal())).collect();
        let features = on_shell(&Tensor::from_slice(&rows).view([800, 4]), 1.0);
        let ball = Ball::new(Geometry::Poincare { curvature: 1.0 });
        let found = kmeans(&features, 64, 12, true, ball, &mut rng);
        let distance = ball.distances(&features, &found).amin([1i64].as_slice(), false);
        assert!(distance.max().double_value(&[]) < 0.2, "every feature has a code nearby");
        for norm in values(&norms(&found))? {
            assert!((norm - 1.0).abs() < 1e-5, "{norm}");
        }
        Ok(())
    }
}
