//! Clips as worse sensors would have given them: joints that were not seen, fewer frames, another camera.

use llmar::formats::OwnedClip;

use crate::error::{Error, Result};

/// What is done to every clip before it is recognised. The default does nothing.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Disturbance {
    /// Chance that a joint of a frame is marked invalid, 0..=1.
    pub missing: f32,
    /// Frames a second to which a faster clip is thinned by leaving frames out; 0: all stay.
    pub fps: f32,
    /// Turn about the vertical (y), degrees: the camera stands elsewhere. 3D clips only.
    pub yaw: f32,
    /// Seed of the draw of missing joints.
    pub seed: u64,
}

impl Default for Disturbance {
    fn default() -> Self {
        Self { missing: 0.0, fps: 0.0, yaw: 0.0, seed: 0 }
    }
}

impl Disturbance {
    /// Every number is in its range.
    ///
    /// # Errors
    /// [`Error::Setting`] with its name.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, expected: &str, got: f32| {
            Err(Error::Setting { name: name.to_owned(), expected: expected.to_owned(), got: got.to_string() })
        };
        if !(0.0..=1.0).contains(&self.missing) {
            return wrong("missing", "0..=1", self.missing);
        }
        if !(self.fps.is_finite() && self.fps >= 0.0) {
            return wrong("fps", "0 or more", self.fps);
        }
        if !self.yaw.is_finite() {
            return wrong("yaw", "a finite angle", self.yaw);
        }
        Ok(())
    }

    /// The clip as it comes out; `index` is its place, so that every clip draws for itself.
    ///
    /// # Errors
    /// [`Error::Setting`] for a clip that cannot be thinned, because it names no rate or a lower one, or not be turned, because it is 2D.
    pub fn applied(&self, clip: &OwnedClip, index: usize) -> Result<OwnedClip> {
        let mut clip = clip.clone();
        if self.fps > 0.0 {
            thin(&mut clip, self.fps)?;
        }
        if self.yaw != 0.0 {
            turn(&mut clip, self.yaw.to_radians())?;
        }
        if self.missing > 0.0 {
            hide(&mut clip, self.missing, self.seed.wrapping_add(index as u64));
        }
        Ok(clip)
    }
}

fn cannot(clip: &OwnedClip, name: &str, expected: &str, got: String) -> Error {
    Error::Setting { name: name.to_owned(), expected: format!("{expected} in {}", clip.name), got }
}

/// Keeps the frames nearest after each tick of the lower rate.
fn thin(clip: &mut OwnedClip, fps: f32) -> Result<()> {
    let from = clip.fps.ok_or_else(|| cannot(clip, "fps", "a clip with a frame rate", "none".to_owned()))?;
    if fps > from {
        return Err(cannot(clip, "fps", &format!("at most the {from} of the clip"), fps.to_string()));
    }
    let step = f64::from(from) / f64::from(fps);
    let kept: Vec<usize> = (0..clip.frames).map(|i| (i as f64 * step).round() as usize).take_while(|i| *i < clip.frames).collect();
    let width = clip.persons * clip.joints_per_person;
    let rows = width * clip.coords;
    clip.joints = kept.iter().flat_map(|i| clip.joints[i * rows..(i + 1) * rows].to_vec()).collect::<Vec<_>>().into();
    clip.valid =
        clip.valid.as_ref().map(|valid| kept.iter().flat_map(|i| valid[i * width..(i + 1) * width].to_vec()).collect::<Vec<_>>().into());
    clip.frames = kept.len();
    clip.fps = Some(fps);
    Ok(())
}

/// Turns about the vertical, through the sensor: centring takes the shift away.
fn turn(clip: &mut OwnedClip, angle: f32) -> Result<()> {
    if clip.coords != 3 {
        return Err(cannot(clip, "yaw", "3 coordinates", clip.coords.to_string()));
    }
    let (sin, cos) = angle.sin_cos();
    for p in clip.joints.as_chunks_mut::<3>().0 {
        *p = [cos * p[0] - sin * p[2], p[1], sin * p[0] + cos * p[2]];
    }
    Ok(())
}

/// Marks joints of frames as invalid and their positions as not a number, so that nothing can be read from them.
fn hide(clip: &mut OwnedClip, chance: f32, seed: u64) {
    let count = clip.frames * clip.persons * clip.joints_per_person;
    let mut valid = clip.valid.take().unwrap_or_else(|| vec![1; count].into());
    // SplitMix64 (Steele et al. 2014).
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6a09_e667_f3bc_c909;
    let mut unit = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    };
    for (flag, joint) in valid.iter_mut().zip(clip.joints.chunks_exact_mut(clip.coords)) {
        if unit() < chance {
            *flag = 0;
            joint.fill(f32::NAN);
        }
    }
    clip.valid = Some(valid);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten frames of two joints; x counts frames.
    fn clip() -> OwnedClip {
        OwnedClip {
            name: "made up".to_owned(),
            joints: (0..10).flat_map(|f| [f as f32, 1.0, 2.0, f as f32, 3.0, 4.0]).collect::<Vec<_>>().into(),
            frames: 10,
            persons: 1,
            joints_per_person: 2,
            coords: 3,
            fps: Some(30.0),
            layout: "made_up".to_owned(),
            valid: None,
        }
    }

    #[test]
    fn a_third_of_the_frames_stays_at_a_third_of_the_rate() -> Result<()> {
        let thinned = Disturbance { fps: 10.0, ..Disturbance::default() }.applied(&clip(), 0)?;
        let first: Vec<f32> = thinned.joints.chunks_exact(6).map(|frame| frame[0]).collect();
        assert_eq!((first, thinned.frames, thinned.fps), (vec![0.0, 3.0, 6.0, 9.0], 4, Some(10.0)));
        assert!(Disturbance { fps: 60.0, ..Disturbance::default() }.applied(&clip(), 0).is_err());
        let unknown = OwnedClip { fps: None, ..clip() };
        assert!(Disturbance { fps: 10.0, ..Disturbance::default() }.applied(&unknown, 0).is_err());
        Ok(())
    }

    #[test]
    fn a_quarter_turn_brings_x_to_z() -> Result<()> {
        let turned = Disturbance { yaw: 90.0, ..Disturbance::default() }.applied(&clip(), 0)?;
        let last = &turned.joints[54..57];
        assert!((last[0] + 2.0).abs() < 1e-5 && last[1] == 1.0 && (last[2] - 9.0).abs() < 1e-5, "{last:?}");
        Ok(())
    }

    #[test]
    fn hidden_joints_cannot_be_read_and_every_clip_draws_its_own() -> Result<()> {
        let disturbance = Disturbance { missing: 0.5, ..Disturbance::default() };
        let (a, b) = (disturbance.applied(&clip(), 0)?, disturbance.applied(&clip(), 1)?);
        let valid = a.valid.as_ref().map(|valid| valid.to_vec()).unwrap_or_default();
        assert!(valid.iter().zip(a.joints.chunks_exact(3)).all(|(flag, joint)| (*flag == 0) == joint[0].is_nan()));
        assert!((4..=16).contains(&valid.iter().filter(|flag| **flag == 0).count()), "{valid:?}");
        let flags = |clip: &OwnedClip| clip.valid.as_ref().map(|valid| valid.to_vec());
        assert_ne!(flags(&a), flags(&b));
        assert_eq!(flags(&a), flags(&disturbance.applied(&clip(), 0)?));
        assert!(Disturbance { missing: 1.5, ..Disturbance::default() }.check().is_err());
        Ok(())
    }
}
