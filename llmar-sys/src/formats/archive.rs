//! Clip archives: a safetensors file with `joints` f32 [F, M, V, C], `offsets` i64 [N + 1], `labels`, optional `subjects`, `cameras` i64 [N],
//! `valid` u8 or `confidence` f32 [F, …, V], `split.<name>.test` u8 [N], and metadata `clips` (JSON).

use std::collections::BTreeMap;
use std::path::Path;

use super::OwnedClip;
use crate::error::Result;

/// A data set in one file.
#[derive(Clone, Debug)]
pub struct ClipArchive {
    /// `utd_mhad`
    pub name: String,
    /// Class names by label.
    pub classes: Vec<String>,
    /// Layout name, found from the joint names.
    pub layout: String,
    /// Frames a second, if known.
    pub fps: Option<f32>,
    /// Clips in file order.
    pub clips: Vec<OwnedClip>,
    /// [N]
    pub labels: Vec<usize>,
    /// [N] or empty
    pub subjects: Vec<i64>,
    /// [N] or empty
    pub cameras: Vec<i64>,
    /// Test flags [N] by split name.
    pub splits: BTreeMap<String, Vec<bool>>,
}

impl ClipArchive {
    /// Reads and checks an archive.
    pub fn read(_path: &Path) -> Result<Self> {
        todo!()
    }
}
