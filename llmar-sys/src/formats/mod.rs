//! Clip files: archives (safetensors), NW-UCLA JSON, DeepMimic JSON. For the command-line tool, the trainer and tests.

mod archive;
mod deepmimic;
mod nw_ucla;

use std::path::Path;

use crate::error::Result;
use crate::skeleton::{Clip, Timing};

pub use archive::ClipArchive;

/// A clip that owns its data.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedClip {
    /// Name: the file's, with the clip's index in an archive.
    pub name: String,
    /// f32 [frames, persons, joints, coords]
    pub joints: Vec<f32>,
    /// T
    pub frames: usize,
    /// M
    pub persons: usize,
    /// V
    pub joints_per_person: usize,
    /// C
    pub coords: usize,
    /// Frames a second, where the file says so.
    pub fps: Option<f32>,
    /// Layout name.
    pub layout: String,
    /// u8 [frames, persons, joints], where the file says so.
    pub valid: Option<Vec<u8>>,
}

impl OwnedClip {
    /// A borrowed view.
    pub fn view(&self) -> Clip<'_> {
        Clip {
            joints: &self.joints,
            frames: self.frames,
            persons: self.persons,
            joints_per_person: self.joints_per_person,
            coords: self.coords,
            timing: self.fps.map_or(Timing::Unknown, Timing::Rate),
            layout: &self.layout,
            valid: self.valid.as_deref(),
        }
    }
}

/// Reads the clips of a file whose kind is found from its content: a clip archive, NW-UCLA JSON or DeepMimic JSON.
pub fn read_clips(_path: &Path) -> Result<Vec<OwnedClip>> {
    todo!()
}
