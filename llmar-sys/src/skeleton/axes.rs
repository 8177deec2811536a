//! The caller's axes and units.
use crate::error::Result;
/// Axes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Axes;
/// Conversion.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conversion;
impl Axes {
    /// x
    pub fn conversion(&self) -> Result<Conversion> {
        Ok(Conversion)
    }
}
impl Conversion {
    /// x
    pub fn apply(&self, _joints: &mut [f32]) {}
}
