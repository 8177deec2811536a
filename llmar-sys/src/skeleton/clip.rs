//! A clip as the caller has it.

use super::layout::{Layout, MAX_JOINTS};
use crate::error::{Error, Result};

/// Most frames of a clip.
pub const MAX_FRAMES: usize = 65_536;
/// Most persons of a clip.
pub const MAX_PERSONS: usize = 16;

/// When the frames were taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Timing<'a> {
    /// Unknown: frames are evenly spaced.
    Unknown,
    /// Frames a second, finite and above zero.
    Rate(f32),
    /// One timestamp a frame in nanoseconds, strictly increasing.
    Timestamps(&'a [u64]),
}

/// A borrowed skeleton clip: joints f32 [T, M, V, C].
#[derive(Clone, Copy, Debug)]
pub struct Clip<'a> {
    /// [frames, persons, joints, coords], metres (3D) or pixels (2D). Non-finite joints count as invalid.
    pub joints: &'a [f32],
    /// T ≥ 1
    pub frames: usize,
    /// M ≥ 1
    pub persons: usize,
    /// V, of `layout`
    pub joints_per_person: usize,
    /// C: 2 or 3
    pub coords: usize,
    /// When.
    pub timing: Timing<'a>,
    /// Name of a built-in or registered layout.
    pub layout: &'a str,
    /// [frames, persons, joints]: 0 = invalid. `None`: all finite joints are valid.
    pub valid: Option<&'a [u8]>,
}

impl Clip<'_> {
    /// Lengths, counts and ranges, before anything reads the clip. Limits: 1..=65,536 frames, 1..=16 persons, 1..=256 joints.
    ///
    /// # Errors
    /// [`Error::EmptyClip`] without frames, [`Error::Limit`] beyond the limits, [`Error::Shape`] for buffers of other lengths,
    /// [`Error::UnknownLayout`], [`Error::InvalidArgument`] for anything else.
    pub fn check(&self) -> Result<()> {
        self.check_counts()?;
        self.check_layout(&Layout::find(self.layout)?)
    }

    /// Everything but the layout.
    pub(super) fn check_counts(&self) -> Result<()> {
        if self.frames == 0 {
            return Err(Error::EmptyClip { detail: "it has no frame".into() });
        }
        in_range("frames", self.frames, MAX_FRAMES)?;
        in_range("persons", self.persons, MAX_PERSONS)?;
        in_range("joints per person", self.joints_per_person, MAX_JOINTS)?;
        if !(2..=3).contains(&self.coords) {
            return Err(Error::argument("coords", "2 or 3", self.coords));
        }
        // No overflow: 2^16 · 2^4 · 2^8 · 3 < 2^30.
        let flags = [self.frames, self.persons, self.joints_per_person];
        if self.joints.len() != flags.iter().product::<usize>() * self.coords {
            let expected = [flags.as_slice(), &[self.coords]].concat();
            return Err(Error::Shape { what: "joints".into(), expected, got: vec![self.joints.len()] });
        }
        if let Some(valid) = self.valid
            && valid.len() != flags.iter().product::<usize>()
        {
            return Err(Error::Shape { what: "valid".into(), expected: flags.to_vec(), got: vec![valid.len()] });
        }
        self.check_timing()
    }

    fn check_timing(&self) -> Result<()> {
        match self.timing {
            Timing::Unknown => Ok(()),
            Timing::Rate(rate) if rate.is_finite() && rate > 0.0 => Ok(()),
            Timing::Rate(rate) => Err(Error::argument("frame rate", "a finite number above zero", rate)),
            Timing::Timestamps(stamps) if stamps.len() != self.frames => {
                Err(Error::Shape { what: "timestamps".into(), expected: vec![self.frames], got: vec![stamps.len()] })
            }
            Timing::Timestamps(stamps) => match stamps.windows(2).position(|pair| pair[0] >= pair[1]) {
                None => Ok(()),
                Some(at) => {
                    let got = format!("{} ns after {} ns at frame {}", stamps[at + 1], stamps[at], at + 1);
                    Err(Error::argument("timestamps", "strictly increasing", got))
                }
            },
        }
    }

    /// The joint count is the layout's.
    pub(super) fn check_layout(&self, layout: &Layout) -> Result<()> {
        if self.joints_per_person != layout.joints.len() {
            let what = format!("joints per person of layout `{}`", self.layout);
            return Err(Error::Shape { what, expected: vec![layout.joints.len()], got: vec![self.joints_per_person] });
        }
        Ok(())
    }

    /// Time of each frame in seconds since the first; frame numbers when the timing is unknown. `[frames]`
    pub(super) fn times(&self) -> Vec<f64> {
        match self.timing {
            Timing::Unknown => (0..self.frames).map(|frame| frame as f64).collect(),
            Timing::Rate(rate) => (0..self.frames).map(|frame| frame as f64 / f64::from(rate)).collect(),
            Timing::Timestamps(stamps) => stamps.iter().map(|&stamp| (stamp - stamps[0]) as f64 * 1e-9).collect(),
        }
    }
}

fn in_range(what: &'static str, got: usize, limit: usize) -> Result<()> {
    match got {
        0 => Err(Error::argument(what, format!("1..={limit}"), got)),
        _ if got > limit => Err(Error::Limit { what, limit: limit as u64, got: got as u64 }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(joints: &[f32]) -> Clip<'_> {
        let timing = Timing::Unknown;
        Clip { joints, frames: 2, persons: 1, joints_per_person: 20, coords: 3, timing, layout: "kinect1_20", valid: None }
    }

    #[test]
    fn each_bad_field_has_its_error() {
        let joints = [0.0; 120];
        clip(&joints).check().unwrap();
        assert!(matches!(Clip { frames: 0, ..clip(&joints) }.check(), Err(Error::EmptyClip { .. })));
        assert!(matches!(Clip { frames: 65_537, ..clip(&joints) }.check(), Err(Error::Limit { got: 65_537, .. })));
        assert!(matches!(Clip { persons: 0, ..clip(&joints) }.check(), Err(Error::InvalidArgument { .. })));
        assert!(matches!(Clip { persons: 17, ..clip(&joints) }.check(), Err(Error::Limit { .. })));
        assert!(matches!(Clip { joints_per_person: usize::MAX, ..clip(&joints) }.check(), Err(Error::Limit { .. })));
        assert!(matches!(Clip { coords: 4, ..clip(&joints) }.check(), Err(Error::InvalidArgument { .. })));
        assert!(matches!(clip(&joints[1..]).check(), Err(Error::Shape { .. })));
        assert!(matches!(Clip { valid: Some(&[1; 39]), ..clip(&joints) }.check(), Err(Error::Shape { .. })));
        assert!(matches!(Clip { layout: "no such", ..clip(&joints) }.check(), Err(Error::UnknownLayout { .. })));
        assert!(matches!(Clip { layout: "coco17", ..clip(&joints) }.check(), Err(Error::Shape { .. })));
        for rate in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(Clip { timing: Timing::Rate(rate), ..clip(&joints) }.check(), Err(Error::InvalidArgument { .. })));
        }
        for stamps in [[5, 5], [5, 4]] {
            let timing = Timing::Timestamps(&stamps);
            assert!(matches!(Clip { timing, ..clip(&joints) }.check(), Err(Error::InvalidArgument { .. })));
        }
        assert!(matches!(Clip { timing: Timing::Timestamps(&[1]), ..clip(&joints) }.check(), Err(Error::Shape { .. })));
        Clip { timing: Timing::Timestamps(&[0, u64::MAX]), ..clip(&joints) }.check().unwrap();
    }
}
