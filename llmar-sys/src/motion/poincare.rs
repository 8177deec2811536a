//! Maths of the Poincaré ball of curvature −c, radius 1/√c (Ganea et al. 2018; Ungar 2008), in f32 and f64.
//!
//! Every function computes in f64 and rounds once to the type of its arguments. Points are kept off the rim: a result's norm is at most
//! (1 − [`Real::RIM`])/√c, so that 1 − c‖x‖² stays far from its rounding error. That caps distances from the origin at 2·artanh(1 − RIM)/√c:
//! 12.2/√c in f32, 25.9/√c in f64. Arguments on or beyond the rim are read as if they lay at that cap.

/// The two float types of the ball's points.
pub trait Real: Copy + private::Sealed {
    /// Distance that a unit ball's points keep from its rim: some 80 units in the last place for f32, 20,000 for f64.
    const RIM: f64;
    /// Widens.
    fn to_f64(self) -> f64;
    /// Rounds to nearest.
    fn from_f64(value: f64) -> Self;
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Real for f32 {
    const RIM: f64 = 1e-5;
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    const RIM: f64 = 1e-11;
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// Σ x², in f64.
pub fn norm_squared<T: Real>(x: &[T]) -> f64 {
    x.iter().map(|x| x.to_f64() * x.to_f64()).sum()
}

/// exp₀(v) = tanh(√c‖v‖) v / (√c‖v‖): the ball point of a tangent vector at the origin. `point` has the length of `tangent`; c > 0.
pub fn exp0<T: Real>(tangent: &[T], curvature: f64, point: &mut [T]) {
    let norm = (curvature * norm_squared(tangent)).sqrt();
    let factor = if norm > 0.0 { norm.tanh().min(1.0 - T::RIM) / norm } else { 1.0 };
    point.iter_mut().zip(tangent).for_each(|(p, v)| *p = T::from_f64(factor * v.to_f64()));
}

/// log₀(x) = artanh(√c‖x‖) x / (√c‖x‖): the tangent vector at the origin of a ball point. `tangent` has the length of `point`; c > 0.
pub fn log0<T: Real>(point: &[T], curvature: f64, tangent: &mut [T]) {
    let norm = (curvature * norm_squared(point)).sqrt();
    let factor = if norm > 0.0 { norm.min(1.0 - T::RIM).atanh() / norm } else { 1.0 };
    tangent.iter_mut().zip(point).for_each(|(v, x)| *v = T::from_f64(factor * x.to_f64()));
}

/// d(x, y) = (1/√c) arcosh(1 + 2c‖x−y‖² / ((1−c‖x‖²)(1−c‖y‖²))) of two ball points of one length; c > 0.
///
/// Computed as (2/√c) arsinh √(c‖x−y‖² / (…)), which is the same number (cosh 2a = 1 + 2 sinh² a) and does not cancel for near points.
pub fn distance<T: Real>(x: &[T], y: &[T], curvature: f64) -> f64 {
    let apart: f64 = x.iter().zip(y).map(|(x, y)| (x.to_f64() - y.to_f64()).powi(2)).sum();
    let smallest = 1.0 - (1.0 - T::RIM).powi(2);
    let inside = |x: &[T]| (1.0 - curvature * norm_squared(x)).max(smallest);
    2.0 / curvature.sqrt() * (curvature * apart / (inside(x) * inside(y))).sqrt().asinh()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ball points of dimension 4 for curvature c: a direction and a share of the radius, up to the cap of f32.
    fn point() -> impl Strategy<Value = Vec<f64>> {
        (prop::array::uniform4(-1.0..1.0f64), prop_oneof![0.0..1.0f64, Just(1.0 - 1e-5), Just(0.999), Just(1e-6)]).prop_map(|(v, share)| {
            let norm = norm_squared(&v).sqrt().max(1e-12);
            v.iter().map(|x| x / norm * share.min(1.0 - 1e-5)).collect()
        })
    }

    fn at(unit: &[f64], c: f64) -> Vec<f64> {
        unit.iter().map(|x| x / c.sqrt()).collect()
    }

    fn narrow(x: &[f64]) -> Vec<f32> {
        x.iter().map(|x| *x as f32).collect()
    }

    /// x ⊕ y, for the gyrovector form of the distance.
    fn mobius_add(x: &[f64], y: &[f64], c: f64) -> Vec<f64> {
        let dot: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
        let (xx, yy) = (norm_squared(x), norm_squared(y));
        let below = 1.0 + 2.0 * c * dot + c * c * xx * yy;
        let (a, b) = ((1.0 + 2.0 * c * dot + c * yy) / below, (1.0 - c * xx) / below);
        x.iter().zip(y).map(|(x, y)| a * x + b * y).collect()
    }

    proptest! {
        #[test]
        fn a_metric(x in point(), y in point(), z in point(), c in prop_oneof![Just(1.0), Just(0.3), Just(4.0)]) {
            let (x, y, z) = (at(&x, c), at(&y, c), at(&z, c));
            let d = |a: &[f64], b: &[f64]| distance(a, b, c);
            prop_assert_eq!(d(&x, &x), 0.0);
            prop_assert_eq!(d(&x, &y), d(&y, &x));
            prop_assert!(d(&x, &z) <= (d(&x, &y) + d(&y, &z)) * (1.0 + 1e-9) + 1e-12);
            let (x32, y32, z32) = (narrow(&x), narrow(&y), narrow(&z));
            prop_assert_eq!(distance(&x32, &x32, c), 0.0);
            prop_assert_eq!(distance(&x32, &y32, c), distance(&y32, &x32, c));
            prop_assert!(distance(&x32, &z32, c) <= (distance(&x32, &y32, c) + distance(&y32, &z32, c)) * (1.0 + 1e-6) + 1e-6);
        }

        #[test]
        fn from_the_origin_it_is_twice_artanh(x in point(), c in prop_oneof![Just(1.0), Just(0.3), Just(4.0)]) {
            let unit = norm_squared(&x).sqrt();
            let x = at(&x, c);
            let expected = 2.0 / c.sqrt() * unit.atanh();
            // 1 − ‖x‖² at the rim is 2e-5: its rounding error is 1e-11 relative.
            prop_assert!((distance(&[0.0; 4], &x, c) - expected).abs() <= 1e-10 * expected.max(1e-3));
        }

        #[test]
        fn the_gyrovector_form_agrees(x in point(), y in point(), c in prop_oneof![Just(1.0), Just(0.3), Just(4.0)]) {
            let (x, y) = (at(&x, c), at(&y, c));
            let minus: Vec<f64> = x.iter().map(|x| -x).collect();
            let norm = (c * norm_squared(&mobius_add(&minus, &y, c))).sqrt();
            // artanh near 1 amplifies the rounding of the sum; compared where it does not.
            prop_assume!(norm < 1.0 - 1e-6);
            let expected = 2.0 / c.sqrt() * norm.atanh();
            prop_assert!((distance(&x, &y, c) - expected).abs() <= 1e-6 * expected.max(1e-3), "{} {expected}", distance(&x, &y, c));
        }

        #[test]
        fn exp_and_log_are_inverse(v in prop::array::uniform4(-2.0..2.0f64), c in prop_oneof![Just(1.0), Just(0.3), Just(4.0)]) {
            let v = at(&v, c); // √c‖v‖ ≤ 4
            let (mut x, mut back) = ([0.0; 4], [0.0; 4]);
            exp0(&v, c, &mut x);
            prop_assert!(c * norm_squared(&x) < 1.0);
            log0(&x, c, &mut back);
            for (a, b) in v.iter().zip(back) {
                prop_assert!((a - b).abs() <= 1e-11 * (1.0 + a.abs()) * 100.0, "{a} {b}");
            }
            // The tangent norm is half the distance from the origin.
            let expected = 2.0 * norm_squared(&v).sqrt();
            prop_assert!((distance(&[0.0; 4], &x, c) - expected).abs() <= 1e-10 * expected.max(1e-3));
            // In f32 a norm near 1 − 7e-4 is known to 6e-8: artanh amplifies that by 1/(1 − x²).
            let (v32, mut x32, mut back32) = (narrow(&v), [0.0f32; 4], [0.0f32; 4]);
            exp0(&v32, c, &mut x32);
            log0(&x32, c, &mut back32);
            let amplified = 1e-6 / (1.0 - c * norm_squared(&x32));
            for (a, b) in v32.iter().zip(back32) {
                prop_assert!(f64::from((a - b).abs()) <= amplified, "{a} {b}");
            }
        }
    }

    #[test]
    fn any_tangent_stays_inside_the_ball() {
        for c in [0.3, 1.0, 4.0] {
            for scale in [0.0f32, 1e-30, 1e-3, 1.0, 20.0, 1e10] {
                let v = [scale, -scale, 0.5 * scale];
                let mut x = [0.0f32; 3];
                exp0(&v, c, &mut x);
                assert!(x.iter().all(|x| x.is_finite()) && c * norm_squared(&x) < 1.0, "{scale} {c}");
                assert!(distance(&x, &[0.0; 3], c) <= 12.3 / c.sqrt());
                let mut wide = [0.0f64; 3];
                exp0(&v.map(f64::from), c, &mut wide);
                assert!(c * norm_squared(&wide) < 1.0, "{scale} {c}");
                assert!(distance(&wide, &[0.0; 3], c) <= 26.1 / c.sqrt());
            }
        }
    }

    #[test]
    fn points_on_the_rim_have_finite_distances_and_logarithms() {
        let (rim, origin, mut v) = ([1.0f32, 0.0], [0.0f32; 2], [0.0f32; 2]);
        assert!(distance(&rim, &origin, 1.0).is_finite());
        assert!(distance(&rim, &[-1.0, 0.0], 1.0).is_finite());
        log0(&rim, 1.0, &mut v);
        assert!(v[0].is_finite() && v[0] > 6.0);
    }
}
