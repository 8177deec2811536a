//! `llmar clip`: a clip as plain text, for programs that do not want a JSON or safetensors parser (examples/c/clip_text.h has the format).

use std::fmt::Write as _;
use std::io::{Write, stdout};

use llmar::checkpoint::replace_file;
use llmar::formats::{OwnedClip, read_clips};

use crate::{Arguments, Failure};

pub fn clip(args: &Arguments) -> Result<(), Failure> {
    let mut clips = Vec::new();
    for path in &args.paths {
        clips.extend(read_clips(path)?);
    }
    let index = args.index.unwrap_or(0);
    let clip = clips
        .get(index)
        .ok_or_else(|| Failure::Usage(format!("--index {index}: the files hold {} clip(s), counted from 0", clips.len())))?;
    let text = to_text(clip);
    match &args.out {
        None => Ok(stdout().lock().write_all(text.as_bytes())?),
        Some(path) => Ok(replace_file(path, |out| out.write_all(text.as_bytes()))?),
    }
}

/// Header line `layout frames persons joints coords fps` (fps 0: unknown), then one line of coordinates a frame and person; an invalid
/// joint is written as `nan`.
fn to_text(clip: &OwnedClip) -> String {
    let mut text = format!(
        "{} {} {} {} {} {}\n",
        clip.layout,
        clip.frames,
        clip.persons,
        clip.joints_per_person,
        clip.coords,
        clip.fps.unwrap_or(0.0)
    );
    for (row, body) in clip.joints.chunks(clip.joints_per_person * clip.coords).enumerate() {
        for (joint, point) in body.chunks(clip.coords).enumerate() {
            let valid = clip.valid.as_ref().is_none_or(|v| v[row * clip.joints_per_person + joint] != 0);
            for &x in point {
                // Writing to a String cannot fail.
                let _ = if valid && x.is_finite() { write!(text, "{x} ") } else { write!(text, "nan ") };
            }
        }
        text.pop();
        text.push('\n');
    }
    text
}
