//! Clip files: archives (safetensors), NW-UCLA JSON, DeepMimic JSON. For the command-line tool, the trainer and tests.

mod archive;
mod deepmimic;
mod nw_ucla;

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::skeleton::{Clip, Timing};

pub use archive::ClipArchive;

/// Largest archive read, in bytes: it is held in memory.
const MAX_ARCHIVE: u64 = 1 << 30;
/// Largest JSON clip read, in bytes: parsed, it takes several times its size.
const MAX_JSON: u64 = 64 << 20;

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

/// Either kind of JSON clip; which one it is shows in the keys.
#[derive(Deserialize)]
struct JsonClip {
    /// NW-UCLA: the clip's name.
    file_name: Option<String>,
    /// NW-UCLA: `[frames][joints]` positions.
    skeletons: Option<Vec<Vec<[f32; 3]>>>,
    /// DeepMimic: `wrap` or `none`.
    #[serde(rename = "Loop")]
    looped: Option<String>,
    /// DeepMimic: `[frames]` of duration, root and rotations.
    #[serde(rename = "Frames")]
    motion: Option<Vec<Vec<f64>>>,
}

/// Reads the clips of a file whose kind is found from its content: a clip archive, NW-UCLA JSON or DeepMimic JSON.
///
/// # Errors
/// [`Error::Io`], [`Error::Limit`] above 1 GiB (archives) or 64 MiB (JSON), [`Error::Format`] with the place of what is wrong.
pub fn read_clips(path: &Path) -> Result<Vec<OwnedClip>> {
    let bytes = read_limited(path, MAX_ARCHIVE)?;
    let name = path.file_stem().map_or_else(|| "clip".into(), |stem| stem.to_string_lossy().into_owned());
    if is_archive(&bytes) {
        return Ok(ClipArchive::parse(&path.display().to_string(), &name, &bytes)?.clips);
    }
    Ok(vec![parse_json(&path.display().to_string(), name, &bytes)?])
}

fn parse_json(file: &str, name: String, bytes: &[u8]) -> Result<OwnedClip> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Error::format(file, "expected a clip archive (safetensors), NW-UCLA JSON or DeepMimic JSON, got another kind of file"));
    }
    if bytes.len() as u64 > MAX_JSON {
        return Err(Error::Limit { what: "bytes of a JSON clip", limit: MAX_JSON, got: bytes.len() as u64 });
    }
    let clip: JsonClip = serde_json::from_slice(bytes).map_err(|error| Error::format(file, format!("not a clip in JSON: {error}")))?;
    match (clip.skeletons, clip.motion) {
        (Some(skeletons), None) => nw_ucla::clip(file, clip.file_name.unwrap_or(name), &skeletons),
        (None, Some(motion)) => deepmimic::clip(file, name, clip.looped.as_deref(), &motion),
        (None, None) => Err(Error::format(file, "expected the key `skeletons` (NW-UCLA) or `Frames` (DeepMimic), got neither")),
        (Some(_), Some(_)) => Err(Error::format(file, "expected the key `skeletons` (NW-UCLA) or `Frames` (DeepMimic), got both")),
    }
}

/// A safetensors file: the length of its header, which fits the file, then the header's brace.
fn is_archive(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    let json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    // A truncated archive is still told as one; JSON that has a brace at byte 8 is not taken for one: its first bytes are a huge length.
    rest.first() == Some(&b'{') && (!json || u64::from_le_bytes(*length) <= rest.len() as u64)
}

/// A whole file of at most `limit` bytes.
fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let size = file.metadata().map_err(Error::io(path))?.len();
    let too_large = |got| Error::Limit { what: "bytes of a clip file", limit, got };
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // A file may grow or be a pipe: the limit holds for what is read.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

#[cfg(test)]
pub(crate) mod tests;
