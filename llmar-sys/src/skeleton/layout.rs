//! Joint layouts. This file is the only place where joints, parents and left-right pairs stand.

use crate::error::Result;

/// The joints of one kind of skeleton.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `kinect1_20`, `ntu25`, `coco17`, or the caller's name.
    pub name: String,
    /// Joint names in the order of the data.
    pub joints: Vec<String>,
    /// Parent of each joint; `None` for the root (and for registered layouts, where it may be unknown).
    pub parents: Vec<Option<usize>>,
}

/// The layouts this library knows: `kinect1_20`, `ntu25` (alias `kinect2`), `coco17`.
pub fn builtin_layouts() -> &'static [Layout] {
    todo!()
}

impl Layout {
    /// A built-in or registered layout by name.
    pub fn find(_name: &str) -> Result<Layout> {
        todo!()
    }

    /// Makes a layout of the caller's joint names known to the whole process. Names are matched, ignoring case, spaces, `-` and `_`,
    /// against the canonical joint names and their synonyms. Registering the same name with the same joints again is fine; with others, an error.
    pub fn register(_name: &str, _joints: &[&str]) -> Result<()> {
        todo!()
    }

    /// How each joint of `target` is had from this layout: the mean of these joints of `self`; empty when it cannot be had.
    pub fn map_to(&self, _target: &Layout) -> Vec<Vec<usize>> {
        todo!()
    }
}
