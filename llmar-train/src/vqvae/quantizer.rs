//! Distances and nearest codes in tensors; the maths is that of `llmar::motion::poincare`.

use llmar::device::Geometry;
use tch::{Kind, Tensor};

/// Tangent vectors at the origin with the distance between the points that they stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ball {
    geometry: Geometry,
}

fn squared_norm(x: &Tensor) -> Tensor {
    x.square().sum_dim_intlist([-1i64].as_slice(), true, Kind::Float)
}

impl Ball {
    /// Of a geometry.
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry }
    }

    /// Points [n, d] of tangent vectors [n, d]: exp₀(v) = tanh(√c‖v‖) v / (√c‖v‖); in flat space the vector itself.
    pub fn exp0(&self, v: &Tensor) -> Tensor {
        match self.geometry {
            Geometry::Euclidean => v.shallow_clone(),
            Geometry::Poincare { curvature } => {
                let scaled = (squared_norm(v) * f64::from(curvature)).clamp_min(1e-18).sqrt();
                v * (scaled.tanh() / scaled)
            }
        }
    }

    /// Distances `[n]` between the points of tangent vectors a and b [n, d].
    pub fn distance(&self, a: &Tensor, b: &Tensor) -> Tensor {
        let (x, y) = (self.exp0(a), self.exp0(b));
        let squared = squared_norm(&(&x - &y));
        self.of_squares(&squared, &squared_norm(&x), &squared_norm(&y)).squeeze_dim(-1)
    }

    /// Distances [n, u] between the points of all pairs of tangent vectors a [n, d] and b [u, d].
    pub fn distances(&self, a: &Tensor, b: &Tensor) -> Tensor {
        let (x, y) = (self.exp0(a), self.exp0(b));
        let (xx, yy) = (squared_norm(&x), squared_norm(&y).tr());
        let squared = (&xx + &yy - x.matmul(&y.tr()) * 2.0).clamp_min(0.0);
        self.of_squares(&squared, &xx, &yy)
    }

    fn of_squares(&self, squared: &Tensor, xx: &Tensor, yy: &Tensor) -> Tensor {
        match self.geometry {
            Geometry::Euclidean => squared.clamp_min(1e-12).sqrt(),
            Geometry::Poincare { curvature } => {
                let c = f64::from(curvature);
                let room = ((xx * -c + 1.0) * (yy * -c + 1.0)).clamp_min(1e-12);
                // arcosh has an infinite slope at 1: a margin keeps the gradient of a feature on its code finite.
                (squared * (2.0 * c) / room + 1.0).clamp_min(1.0 + 1e-7).acosh() / c.sqrt()
            }
        }
    }

    /// Index `[n]` (i64) of the nearest of codes [u, d] for each feature [n, d], both tangent vectors. No gradient, no arcosh: the point x is
    /// the same for all codes, so argmin d = argmin ‖x − c‖² / (1 − c‖c‖²).
    pub fn nearest(&self, features: &Tensor, codes: &Tensor) -> Tensor {
        tch::no_grad(|| {
            let (x, y) = (self.exp0(features), self.exp0(codes));
            let yy = squared_norm(&y).tr();
            let squared = squared_norm(&x) + &yy - x.matmul(&y.tr()) * 2.0;
            match self.geometry {
                Geometry::Euclidean => squared.argmin(-1, false),
                Geometry::Poincare { curvature } => (squared / (yy * -f64::from(curvature) + 1.0)).argmin(-1, false),
            }
        })
    }
}

/// f · min(1, clip/‖f‖), as the runtime clips.
pub fn clip_norm(f: &Tensor, clip: f64) -> Tensor {
    let norm = squared_norm(f).clamp_min(1e-18).sqrt();
    f * (norm.reciprocal() * clip).clamp_max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{Rng, values};

    fn draw(index: u64, n: i64, d: i64, size: f32) -> Tensor {
        let mut rng = Rng::new(11, "ball", index);
        Tensor::from_slice(&(0..n * d).map(|_| size * rng.normal()).collect::<Vec<_>>()).view([n, d])
    }

    #[test]
    fn nearest_is_the_smallest_distance() -> crate::Result<()> {
        for geometry in [Geometry::Euclidean, Geometry::Poincare { curvature: 1.0 }, Geometry::Poincare { curvature: 0.3 }] {
            let ball = Ball::new(geometry);
            let (f, codes) = (draw(0, 200, 8, 0.4), draw(1, 32, 8, 0.4));
            let by_distance: Vec<i64> = Vec::try_from(ball.distances(&f, &codes).argmin(-1, false))?;
            let direct: Vec<i64> = Vec::try_from(ball.nearest(&f, &codes))?;
            assert_eq!(by_distance, direct, "{geometry:?}");
        }
        Ok(())
    }

    #[test]
    fn distance_from_the_origin_and_pairs() -> crate::Result<()> {
        let ball = Ball::new(Geometry::Poincare { curvature: 0.5 });
        let (a, b) = (draw(2, 5, 4, 0.5), draw(3, 5, 4, 0.5));
        // d(0, exp₀(v)) = 2‖v‖, whatever the curvature.
        let from_origin = values(&ball.distance(&a.zeros_like(), &a))?;
        let norms = values(&squared_norm(&a).sqrt())?;
        for (d, n) in from_origin.iter().zip(&norms) {
            assert!((d - 2.0 * n).abs() < 1e-4, "{d} against {}", 2.0 * n);
        }
        let pairs = values(&ball.distances(&a, &b).diag(0))?;
        for (p, q) in pairs.iter().zip(values(&ball.distance(&a, &b))?) {
            assert!((p - q).abs() < 1e-4, "{p} against {q}");
        }
        Ok(())
    }
}
