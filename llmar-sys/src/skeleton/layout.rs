//! Joint layouts. `tables.rs` is the only place where joints and parents stand; left-right pairs follow from the names.
//!
//! Joints are matched by name: names are folded (lower case, without spaces, `-` and `_`) and then looked up in [`SYNONYMS`], so
//! `SpineBase`, `pelvis` and `hip_center` are one joint. What a skeleton does not have may stand in [`DERIVATIONS`].

mod tables;

use std::sync::{LazyLock, PoisonError, RwLock};

use self::tables::{ALIASES, DERIVATIONS, LAYOUTS, SYNONYMS, Table};
use crate::error::{Error, Result};

/// Most joints of a layout.
pub const MAX_JOINTS: usize = 256;
/// Most layouts that can be registered in one process.
pub const MAX_REGISTERED: usize = 256;
/// Longest layout or joint name in bytes.
pub const MAX_NAME: usize = 128;

/// The joints of one kind of skeleton.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of [`builtin_layouts`], or the caller's name.
    pub name: String,
    /// Joint names in the order of the data.
    pub joints: Vec<String>,
    /// Parent of each joint; `None` for the root (and for registered layouts, where it may be unknown).
    pub parents: Vec<Option<usize>>,
}

/// A joint by side and folded name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Joint {
    side: Side,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Middle,
    Left,
    Right,
}

/// Lower case without spaces, `-` and `_`.
fn fold(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Splits the side off a written name: `HandLeft` and `left_hand` are both (left, hand).
fn split(name: &str) -> Joint {
    let folded = fold(name);
    for (side, word) in [(Side::Left, "left"), (Side::Right, "right")] {
        match folded.strip_prefix(word).or_else(|| folded.strip_suffix(word)) {
            Some(rest) if !rest.is_empty() => return Joint { side, name: rest.to_owned() },
            _ => {}
        }
    }
    Joint { side: Side::Middle, name: folded }
}

/// The joint that a written name means, synonyms resolved.
fn identify(name: &str) -> Joint {
    canonical(&split(name))
}

/// The same joint by its canonical name.
fn canonical(joint: &Joint) -> Joint {
    let known = SYNONYMS.iter().find(|(_, others)| others.contains(&joint.name.as_str()));
    Joint { side: joint.side, name: known.map_or_else(|| joint.name.clone(), |(name, _)| (*name).to_owned()) }
}

static BUILTIN: LazyLock<Vec<Layout>> = LazyLock::new(|| {
    let layout = |name: &str, table: Table| {
        let index = |joint: &str| table.iter().position(|(other, _)| *other == joint);
        Layout {
            name: name.to_owned(),
            joints: table.iter().map(|(joint, _)| (*joint).to_owned()).collect(),
            parents: table.iter().map(|(joint, parent)| index(parent).filter(|_| joint != parent)).collect(),
        }
    };
    LAYOUTS.iter().map(|(name, table)| layout(name, table)).collect()
});

static REGISTERED: RwLock<Vec<Layout>> = RwLock::new(Vec::new());

/// The layouts this library knows: `kinect1_20`, `ntu25` (alias `kinect2`), `coco17`, `openpose18`, `mediapipe33`, `azure32`, `smpl24` (alias
/// `xr_bd24`), `xr_fb70`, `xr_htc26`.
pub fn builtin_layouts() -> &'static [Layout] {
    &BUILTIN
}

/// The built-in layouts, then those registered so far, in the order of registration.
pub fn all_layouts() -> Vec<Layout> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    BUILTIN.iter().chain(registered.iter()).cloned().collect()
}

impl Layout {
    /// A built-in or registered layout by name, or such a layout with fewer joints: `kinect1_20 without spine, left_foot, right_foot`.
    ///
    /// # Errors
    /// [`Error::UnknownLayout`]; [`Error::InvalidArgument`] when a joint to be left out is not there, or none would be left;
    /// [`Error::Limit`] when the name of what is left would be longer than [`MAX_NAME`].
    pub fn find(name: &str) -> Result<Layout> {
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, target)| *target);
        if let Some(layout) = BUILTIN.iter().find(|layout| layout.name == name) {
            return Ok(layout.clone());
        }
        let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = registered.iter().find(|layout| layout.name == name) {
            return Ok(layout.clone());
        }
        drop(registered);
        match name.split_once(" without ") {
            Some((whole, joints)) => Layout::find(whole)?.without(&joints.split(',').map(str::trim).collect::<Vec<_>>()),
            None => Err(Error::UnknownLayout { name: name.to_owned() }),
        }
    }

    /// This layout without some of its joints, under the name by which [`find`](Self::find) has it. A joint's parent is the nearest that is left.
    fn without(&self, names: &[&str]) -> Result<Layout> {
        let mut left_out = vec![false; self.joints.len()];
        for name in names {
            let Some(joint) = self.joint(name) else {
                return Err(Error::argument("layout", format!("joints of `{}` after `without`", self.name), format!("`{name}`")));
            };
            left_out[joint] = true;
        }
        let of = |wanted: bool| (0..left_out.len()).filter(|joint| left_out[*joint] == wanted).collect::<Vec<_>>();
        let (kept, gone) = (of(false), of(true));
        let written = |joints: &[usize]| joints.iter().map(|joint| self.joints[*joint].as_str()).collect::<Vec<_>>();
        let mut layout = Layout::new(&format!("{} without {}", self.name, written(&gone).join(", ")), &written(&kept))?;
        for (parent, joint) in layout.parents.iter_mut().zip(&kept) {
            let mut ancestors = std::iter::successors(self.parents[*joint], |joint| self.parents[*joint]);
            *parent = ancestors.find_map(|ancestor| kept.binary_search(&ancestor).ok());
        }
        Ok(layout)
    }

    /// A layout that is not in the registry: distinct joint names, parents unknown.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for empty or duplicate names, [`Error::Limit`] beyond [`MAX_JOINTS`] joints or [`MAX_NAME`] bytes.
    pub fn new<S: AsRef<str>>(name: &str, joints: &[S]) -> Result<Layout> {
        check_name("layout name", name)?;
        if joints.is_empty() {
            return Err(Error::argument("joints of a layout", format!("1..={MAX_JOINTS} names"), "none"));
        }
        if joints.len() > MAX_JOINTS {
            return Err(Error::Limit { what: "joints of a layout", limit: MAX_JOINTS as u64, got: joints.len() as u64 });
        }
        let mut folded: Vec<String> = Vec::with_capacity(joints.len());
        for joint in joints {
            check_name("joint name", joint.as_ref())?;
            let name = fold(joint.as_ref());
            if name.is_empty() || folded.contains(&name) {
                return Err(Error::argument("joint name", "distinct names with a letter", format!("`{}`", joint.as_ref())));
            }
            folded.push(name);
        }
        let joints: Vec<String> = joints.iter().map(|joint| joint.as_ref().to_owned()).collect();
        Ok(Layout { name: name.to_owned(), parents: vec![None; joints.len()], joints })
    }

    /// Makes a layout of the caller's joint names known to the whole process. Names are matched, ignoring case, spaces, `-` and `_`,
    /// against the canonical joint names and their synonyms. Registering the same name with the same joints again is fine; with others, an error.
    ///
    /// # Errors
    /// Those of [`Layout::new`]; [`Error::InvalidArgument`] for a name that stands for other joints; [`Error::Limit`] beyond [`MAX_REGISTERED`].
    pub fn register(name: &str, joints: &[&str]) -> Result<()> {
        Layout::new(name, joints)?.register_self()
    }

    /// [`Layout::register`] for a layout that is built already, parents included.
    pub(crate) fn register_self(self) -> Result<()> {
        let same = |known: &Layout| {
            if known.has_joints(&self.joints) {
                return Ok(());
            }
            let expected = format!("the {} joints it is known with", known.joints.len());
            Err(Error::argument("layout", expected, format!("`{}` with {} other joints", self.name, self.joints.len())))
        };
        let name = ALIASES.iter().find(|(alias, _)| *alias == self.name).map_or(self.name.as_str(), |(_, target)| *target);
        if let Some(known) = BUILTIN.iter().find(|layout| layout.name == name) {
            return same(known);
        }
        let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = registered.iter().find(|layout| layout.name == name) {
            return same(known);
        }
        if registered.len() >= MAX_REGISTERED {
            return Err(Error::Limit { what: "registered layouts", limit: MAX_REGISTERED as u64, got: registered.len() as u64 + 1 });
        }
        registered.push(self);
        Ok(())
    }

    /// Whether `joints` name the joints of this layout in this order, synonyms allowed.
    pub fn has_joints<S: AsRef<str>>(&self, joints: &[S]) -> bool {
        self.joints.len() == joints.len() && self.joints.iter().zip(joints).all(|(a, b)| identify(a) == identify(b.as_ref()))
    }

    /// Index of a joint by any of its names.
    pub fn joint(&self, name: &str) -> Option<usize> {
        self.index_of(&split(name))
    }

    /// The joint that is written as `wanted` is, else the one that is written canonically, else the first that is a synonym. So a layout with two
    /// synonyms of a joint (a hand and its palm) keeps them apart.
    fn index_of(&self, wanted: &Joint) -> Option<usize> {
        let written_as = |joint: &Joint| self.joints.iter().position(|written| split(written) == *joint);
        let canonical = canonical(wanted);
        let synonym = || self.joints.iter().position(|written| identify(written) == canonical);
        written_as(wanted).or_else(|| written_as(&canonical)).or_else(synonym)
    }

    /// How each joint of `target` is had from this layout: the mean of these joints of `self`; empty when it cannot be had.
    pub fn map_to(&self, target: &Layout) -> Vec<Vec<usize>> {
        self.ways_to(target, &[]).into_iter().map(|ways| ways.into_iter().next().unwrap_or_default()).collect()
    }

    /// Every way to have each joint of `target`, best first: the joint itself, then each line of [`DERIVATIONS`] whose sources are there. No way
    /// goes over a joint that any name of `derived` means.
    pub(super) fn ways_to(&self, target: &Layout, derived: &[String]) -> Vec<Vec<Vec<usize>>> {
        let derived: Vec<Joint> = derived.iter().map(|name| identify(name)).collect();
        let hidden: Vec<bool> = self.joints.iter().map(|joint| derived.contains(&identify(joint))).collect();
        let open = |way: &Vec<usize>| way.iter().all(|joint| !hidden[*joint]);
        target.joints.iter().map(|joint| self.ways(&split(joint)).into_iter().filter(open).collect()).collect()
    }

    fn ways(&self, wanted: &Joint) -> Vec<Vec<usize>> {
        let source = |written: &&str| {
            let Joint { side, name } = split(written);
            // A joint without a side is meant on the wanted side where that exists: a hand's wrist, but an eye's nose.
            let sided = (side == Side::Middle).then(|| self.index_of(&Joint { side: wanted.side, name: name.clone() })).flatten();
            sided.or_else(|| self.index_of(&Joint { side, name }))
        };
        let canonical = canonical(wanted);
        let lines = DERIVATIONS.iter().filter(|(name, _)| *name == canonical.name);
        let derived = lines.filter_map(|(_, sources)| sources.iter().map(source).collect::<Option<Vec<_>>>());
        self.index_of(wanted).map(|index| vec![index]).into_iter().chain(derived).collect()
    }

    /// Left-right pairs: the joint on the other side of each joint, itself for middle joints and joints without a partner.
    pub fn mirrored(&self) -> Vec<usize> {
        let other = |(index, written): (usize, &String)| {
            let mut joint = split(written);
            joint.side = match joint.side {
                Side::Middle => return index,
                Side::Left => Side::Right,
                Side::Right => Side::Left,
            };
            self.index_of(&joint).unwrap_or(index)
        };
        self.joints.iter().enumerate().map(other).collect()
    }
}

fn check_name(what: &'static str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::argument(what, "a name", "an empty string"));
    }
    if name.len() > MAX_NAME {
        return Err(Error::Limit { what, limit: MAX_NAME as u64, got: name.len() as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod standing;
#[cfg(test)]
mod tests;
