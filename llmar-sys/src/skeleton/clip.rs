//! A clip as the caller has it.

use crate::error::Result;

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
    pub fn check(&self) -> Result<()> {
        todo!()
    }
}
