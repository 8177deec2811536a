//! NW-UCLA clips as JSON: `{"file_name": …, "skeletons": [[[x, y, z] × 20] …]}`. Kinect v1 joints in metres, y up; no frame rate.

use super::OwnedClip;
use crate::error::{Error, Result};
use crate::skeleton::MAX_FRAMES;

/// Joints of Kinect v1.
const JOINTS: usize = 20;

pub(super) fn clip(file: &str, name: String, skeletons: &[Vec<[f32; 3]>]) -> Result<OwnedClip> {
    if skeletons.len() > MAX_FRAMES {
        return Err(Error::Limit { what: "frames", limit: MAX_FRAMES as u64, got: skeletons.len() as u64 });
    }
    if let Some((frame, joints)) = skeletons.iter().enumerate().find(|(_, joints)| joints.len() != JOINTS) {
        return Err(Error::format(file, format!("skeletons[{frame}]: expected {JOINTS} joints, got {}", joints.len())));
    }
    Ok(OwnedClip {
        name,
        joints: skeletons.iter().flatten().flatten().copied().collect(),
        frames: skeletons.len(),
        persons: 1,
        joints_per_person: JOINTS,
        coords: 3,
        fps: None,
        layout: "kinect1_20".into(),
        valid: None,
    })
}
