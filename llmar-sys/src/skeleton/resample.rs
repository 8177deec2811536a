//! Time: from any number of frames at any times to the model's frames, by linear interpolation.

use serde::{Deserialize, Serialize};

/// How a clip's time span becomes the model's frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Resample {
    /// First frame to first, last to last.
    Stretch,
    /// A fixed rate in frames a second; a longer clip keeps its middle, a shorter one is held at both ends.
    Rate {
        /// Frames a second.
        fps: f32,
    },
    /// A fixed rate, as a live stream is read: the last `frames` of what is there, fewer where less is there, each made from the past alone
    /// (see [`Track`](super::Track)).
    Live {
        /// Frames a second.
        fps: f32,
    },
}

impl Resample {
    /// The `frames` moments at which a clip from `start` to `end` (seconds) is read. Moments outside the clip stand for its ends. Live: the
    /// first `frames`.
    pub fn moments(self, start: f64, end: f64, frames: usize) -> Vec<f64> {
        let steps = frames.saturating_sub(1) as f64;
        match self {
            Self::Stretch if frames == 1 => vec![start],
            Self::Stretch => (0..frames).map(|i| start + (end - start) * (i as f64 / steps)).collect(),
            Self::Rate { fps } => {
                let middle = start + (end - start) / 2.0;
                (0..frames).map(|i| middle + (i as f64 - steps / 2.0) / f64::from(fps)).collect()
            }
            Self::Live { fps } => (0..frames).map(|i| start + i as f64 / f64::from(fps)).collect(),
        }
    }
}

/// Linear interpolation of `values` [times.len(), width], taken at non-decreasing `times`, at non-decreasing `moments`: [moments.len(), width].
/// Before the first and after the last time the end values hold.
pub(crate) fn interpolate(values: &[f32], times: &[f64], moments: &[f64]) -> Vec<f32> {
    if times.is_empty() {
        return Vec::new();
    }
    let width = values.len() / times.len();
    let row = |frame: usize| &values[frame * width..][..width];
    let mut out = Vec::with_capacity(moments.len() * width);
    let mut frame = 0;
    for &moment in moments {
        while frame + 1 < times.len() && times[frame + 1] <= moment {
            frame += 1;
        }
        if frame + 1 == times.len() || moment <= times[frame] {
            out.extend_from_slice(row(frame));
            continue;
        }
        let weight = ((moment - times[frame]) / (times[frame + 1] - times[frame])) as f32;
        out.extend(row(frame).iter().zip(row(frame + 1)).map(|(a, b)| a + weight * (b - a)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretch_keeps_both_ends_and_is_linear_between() {
        let times = [0.0, 1.0, 2.0];
        let values = [0.0, 10.0, 2.0, 10.0, 6.0, 10.0]; // [3, 2]
        let moments = Resample::Stretch.moments(0.0, 2.0, 5);
        assert_eq!(interpolate(&values, &times, &moments), [0.0, 10.0, 1.0, 10.0, 2.0, 10.0, 4.0, 10.0, 6.0, 10.0]);
        assert_eq!(interpolate(&values, &times, &Resample::Stretch.moments(0.0, 2.0, 1)), [0.0, 10.0]);
        let same = Resample::Stretch.moments(0.0, 2.0, 3);
        assert_eq!(interpolate(&values, &times, &same), values);
    }

    #[test]
    fn uneven_times_are_read_by_time_not_by_frame() {
        // x(t) = t, sampled unevenly, must come out even.
        let times = [0.0, 0.1, 0.7, 1.0];
        let values: Vec<f32> = times.iter().map(|&t| t as f32).collect();
        let out = interpolate(&values, &times, &Resample::Stretch.moments(0.0, 1.0, 11));
        for (i, x) in out.iter().enumerate() {
            assert!((x - i as f32 / 10.0).abs() < 1e-6, "{i}: {x}");
        }
    }

    #[test]
    fn a_rate_keeps_the_middle_and_holds_the_ends() {
        let times: Vec<f64> = (0..=10).map(f64::from).collect();
        let values: Vec<f32> = (0..=10).map(|i| i as f32).collect();
        let rate = Resample::Rate { fps: 1.0 };
        assert_eq!(interpolate(&values, &times, &rate.moments(0.0, 10.0, 5)), [3.0, 4.0, 5.0, 6.0, 7.0]);
        let held = interpolate(&values[..3], &times[..3], &rate.moments(0.0, 2.0, 7));
        assert_eq!(held, [0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn one_frame_fills_every_moment() {
        assert_eq!(interpolate(&[3.0, 4.0], &[0.0], &Resample::Stretch.moments(0.0, 0.0, 3)), [3.0, 4.0, 3.0, 4.0, 3.0, 4.0]);
        assert_eq!(interpolate(&[], &[], &[0.0]), [0.0; 0]);
    }
}
