//! The codebook of the quantiser and what is computed from it once.

use super::matrix::{Matrix, Scheme};
use crate::error::{Error, Result};

/// A codebook ready for the arcosh-free argmin.
#[derive(Clone, Debug)]
pub struct Codebook {
    /// Points [codes, dim]: ball points for `Poincare`, plain vectors for `Euclidean`.
    pub points: Vec<f32>,
    /// Codes U.
    pub codes: usize,
    /// Features d.
    pub dim: usize,
    /// How distances are measured.
    pub geometry: Geometry,
    /// The points as a matrix [codes, dim] for one product with all features.
    pub(super) matrix: Matrix,
    /// [codes] ‖c_u‖²
    pub(super) squared_norm: Vec<f64>,
    /// [codes] 1 / (1 − c‖c_u‖²), infinite for a point that rounding has put on the rim or beyond; 1 in flat space.
    pub(super) inverse_gap: Vec<f64>,
    /// Its copy on a GPU.
    #[cfg(feature = "cuda")]
    pub(super) cuda: Option<std::sync::Arc<super::cuda::Codebook>>,
}

/// Geometry of the latent space.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Geometry {
    /// Ball of curvature −c, radius 1/√c. A feature f (tangent vector at the origin) is the point exp₀(f).
    Poincare {
        /// c > 0
        curvature: f32,
    },
    /// Flat space: the feature is the point.
    Euclidean,
}

impl Codebook {
    /// A codebook of `points` [codes, dim], 1 to 65,536 codes. `Err` when counts or the length of `points` do not fit.
    pub fn new(points: Vec<f32>, codes: usize, dim: usize, geometry: Geometry) -> Result<Self> {
        if codes == 0 || codes > 1 << 16 {
            return Err(Error::argument("codes of a codebook", "1 to 65536", codes));
        }
        if dim == 0 || codes.checked_mul(dim) != Some(points.len()) {
            return Err(Error::Shape { what: "codebook".into(), expected: vec![codes, dim], got: vec![points.len()] });
        }
        let squared_norm: Vec<f64> = points.chunks(dim).map(|c| c.iter().map(|&x| f64::from(x).powi(2)).sum()).collect();
        let inverse_gap = squared_norm
            .iter()
            .map(|norm| match geometry {
                Geometry::Euclidean => 1.0,
                Geometry::Poincare { curvature } => 1.0 / (1.0 - f64::from(curvature) * norm).max(0.0),
            })
            .collect();
        let matrix = Matrix::pack(Scheme::F32, codes, dim, &points);
        Ok(Self {
            points,
            codes,
            dim,
            geometry,
            matrix,
            squared_norm,
            inverse_gap,
            #[cfg(feature = "cuda")]
            cuda: None,
        })
    }

    /// Point of one code, `[dim]`.
    pub fn point(&self, code: u16) -> &[f32] {
        &self.points[usize::from(code) * self.dim..][..self.dim]
    }
}
