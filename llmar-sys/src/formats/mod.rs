//! Clip files: archives (safetensors), NW-UCLA JSON, DeepMimic JSON. For the command-line tool, the trainer and tests.

mod archive;
mod deepmimic;
mod numbers;
mod nw_ucla;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::skeleton::{Clip, Timing};

pub use archive::{ClipArchive, MAX_CLIPS};
pub use numbers::Numbers;

/// Most bytes of clips that are held in memory: of an archive that cannot be mapped, or of numbers that cannot be read where they lie.
const MAX_HELD: u64 = 1 << 30;
/// Largest JSON clip read, in bytes: parsed, it takes several times its size.
const MAX_JSON: u64 = 64 << 20;

/// A clip with its data: in memory of its own, or in the file that it was mapped from.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedClip {
    /// Name: the file's, with the clip's index in an archive.
    pub name: String,
    /// f32 [frames, persons, joints, coords]
    pub joints: Numbers<f32>,
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
    /// u8 [frames, persons, joints], where the file says so; 0 where a joint is not there.
    pub valid: Option<Numbers<u8>>,
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
/// The clips of an archive are views of the mapped file, as [`ClipArchive::read`] has it.
///
/// # Errors
/// [`Error::Io`], [`Error::Limit`] above 64 MiB (JSON), [`Error::Format`] with the place of what is wrong.
pub fn read_clips(path: &Path) -> Result<Vec<OwnedClip>> {
    let bytes = contents(path)?;
    let name = path.file_stem().map_or_else(|| "clip".into(), |stem| stem.to_string_lossy().into_owned());
    if is_archive(bytes.as_slice()) {
        return Ok(ClipArchive::parse(&path.display().to_string(), &name, &bytes)?.clips);
    }
    Ok(vec![parse_json(&path.display().to_string(), name, bytes.as_slice())?])
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

/// The bytes of a file: mapped; those of a pipe, which cannot be, in memory and at most [`MAX_HELD`].
fn contents(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(Error::io(path))?;
    let about = file.metadata().map_err(Error::io(path))?;
    if about.is_file() && about.len() > 0 {
        // SAFETY: the mapping is read-only. It is sound as long as nobody changes the file while a clip of it is in use, which the documentation of
        // `ClipArchive::read` demands; what this project writes is renamed over a file, never written into it.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
        return Ok(Bytes::from_mmap(map));
    }
    let mut bytes = Vec::new();
    file.take(MAX_HELD + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_HELD {
        return Err(Error::Limit { what: "bytes of clips that are no file", limit: MAX_HELD, got: bytes.len() as u64 });
    }
    Ok(Bytes::copy_from(&bytes))
}

#[cfg(test)]
pub(crate) mod tests;
