//! Joint layouts. This file is the only place where joints, parents and left-right pairs stand.
//!
//! Joints are matched by name: names are folded (lower case, without spaces, `-` and `_`) and then looked up in [`SYNONYMS`], so
//! `SpineBase`, `pelvis` and `hip_center` are one joint. What a skeleton does not have may stand in [`DERIVATIONS`].

use std::sync::{LazyLock, PoisonError, RwLock};

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
    /// `kinect1_20`, `ntu25`, `coco17`, or the caller's name.
    pub name: String,
    /// Joint names in the order of the data.
    pub joints: Vec<String>,
    /// Parent of each joint; `None` for the root (and for registered layouts, where it may be unknown).
    pub parents: Vec<Option<usize>>,
}

/// Joint and parent (by name) of a built-in layout; the root is its own parent.
type Table = &'static [(&'static str, &'static str)];

/// Kinect v1 (SDK 1.x): MSR-Action3D, UTD-MHAD and NW-UCLA in one order.
const KINECT1_20: Table = &[
    ("hip_center", "hip_center"),
    ("spine", "hip_center"),
    ("shoulder_center", "spine"),
    ("head", "shoulder_center"),
    ("left_shoulder", "shoulder_center"),
    ("left_elbow", "left_shoulder"),
    ("left_wrist", "left_elbow"),
    ("left_hand", "left_wrist"),
    ("right_shoulder", "shoulder_center"),
    ("right_elbow", "right_shoulder"),
    ("right_wrist", "right_elbow"),
    ("right_hand", "right_wrist"),
    ("left_hip", "hip_center"),
    ("left_knee", "left_hip"),
    ("left_ankle", "left_knee"),
    ("left_foot", "left_ankle"),
    ("right_hip", "hip_center"),
    ("right_knee", "right_hip"),
    ("right_ankle", "right_knee"),
    ("right_foot", "right_ankle"),
];

/// Kinect v2, the order of NTU RGB+D; the edges of the sensor's tree, hung from the spine base.
const NTU25: Table = &[
    ("spine_base", "spine_base"),
    ("spine_mid", "spine_base"),
    ("neck", "spine_shoulder"),
    ("head", "neck"),
    ("left_shoulder", "spine_shoulder"),
    ("left_elbow", "left_shoulder"),
    ("left_wrist", "left_elbow"),
    ("left_hand", "left_wrist"),
    ("right_shoulder", "spine_shoulder"),
    ("right_elbow", "right_shoulder"),
    ("right_wrist", "right_elbow"),
    ("right_hand", "right_wrist"),
    ("left_hip", "spine_base"),
    ("left_knee", "left_hip"),
    ("left_ankle", "left_knee"),
    ("left_foot", "left_ankle"),
    ("right_hip", "spine_base"),
    ("right_knee", "right_hip"),
    ("right_ankle", "right_knee"),
    ("right_foot", "right_ankle"),
    ("spine_shoulder", "spine_mid"),
    ("left_hand_tip", "left_hand"),
    ("left_thumb", "left_hand"),
    ("right_hand_tip", "right_hand"),
    ("right_thumb", "right_hand"),
];

/// COCO keypoints: 2D pose estimators, UAV-Human.
const COCO17: Table = &[
    ("nose", "nose"),
    ("left_eye", "nose"),
    ("right_eye", "nose"),
    ("left_ear", "left_eye"),
    ("right_ear", "right_eye"),
    ("left_shoulder", "nose"),
    ("right_shoulder", "nose"),
    ("left_elbow", "left_shoulder"),
    ("right_elbow", "right_shoulder"),
    ("left_wrist", "left_elbow"),
    ("right_wrist", "right_elbow"),
    ("left_hip", "left_shoulder"),
    ("right_hip", "right_shoulder"),
    ("left_knee", "left_hip"),
    ("right_knee", "right_hip"),
    ("left_ankle", "left_knee"),
    ("right_ankle", "right_knee"),
];

/// Other names of the built-in layouts.
const ALIASES: &[(&str, &str)] = &[("kinect2", "ntu25")];

/// Canonical joint name, and other folded names of the same joint, without the side of a paired joint.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("hipcenter", &["spinebase", "pelvis", "hips", "midhip", "hipmid", "root"]),
    ("spine", &["spinemid", "spinenavel", "belly", "abdomen", "torso"]),
    ("shouldercenter", &["spineshoulder", "shouldermid", "midshoulder", "thorax"]),
    ("head", &["face"]),
    ("foot", &["toe", "toes", "toebase", "bigtoe", "footindex"]),
    ("handtip", &["fingertip", "middlefingertip"]),
];

/// What stands in for a joint that a layout lacks or a clip never shows: the first line whose sources are all there; their mean is taken, a name that stands
/// twice counts twice. A source without a side takes the side of the joint where such a joint is there (a left hand from the left wrist).
const DERIVATIONS: &[(&str, &[&str])] = &[
    ("hipcenter", &["left hip", "right hip"]),
    ("shouldercenter", &["left shoulder", "right shoulder"]),
    ("shouldercenter", &["neck"]),
    ("neck", &["shouldercenter"]),
    ("neck", &["left shoulder", "right shoulder"]),
    ("spine", &["hipcenter", "shouldercenter"]),
    ("spine", &["hipcenter", "hipcenter", "left shoulder", "right shoulder"]),
    ("spine", &["left hip", "right hip", "shouldercenter", "shouldercenter"]),
    ("spine", &["left hip", "right hip", "left shoulder", "right shoulder"]),
    ("head", &["nose"]),
    ("head", &["left ear", "right ear"]),
    ("nose", &["head"]),
    ("eye", &["nose"]),
    ("eye", &["head"]),
    ("ear", &["head"]),
    ("hand", &["wrist"]),
    ("wrist", &["hand"]),
    ("handtip", &["hand"]),
    ("handtip", &["wrist"]),
    ("thumb", &["hand"]),
    ("thumb", &["wrist"]),
    ("foot", &["ankle"]),
    ("ankle", &["foot"]),
];

/// A joint by side and canonical name, however it was written.
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
    let Joint { side, name } = split(name);
    let canonical = SYNONYMS.iter().find(|(_, others)| others.contains(&name.as_str())).map_or(name, |(name, _)| (*name).to_owned());
    Joint { side, name: canonical }
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
    vec![layout("kinect1_20", KINECT1_20), layout("ntu25", NTU25), layout("coco17", COCO17)]
});

static REGISTERED: RwLock<Vec<Layout>> = RwLock::new(Vec::new());

/// The layouts this library knows: `kinect1_20`, `ntu25` (alias `kinect2`), `coco17`.
pub fn builtin_layouts() -> &'static [Layout] {
    &BUILTIN
}

/// The built-in layouts, then those registered so far, in the order of registration.
pub fn all_layouts() -> Vec<Layout> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    BUILTIN.iter().chain(registered.iter()).cloned().collect()
}

impl Layout {
    /// A built-in or registered layout by name.
    ///
    /// # Errors
    /// [`Error::UnknownLayout`].
    pub fn find(name: &str) -> Result<Layout> {
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, target)| *target);
        if let Some(layout) = BUILTIN.iter().find(|layout| layout.name == name) {
            return Ok(layout.clone());
        }
        let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
        registered.iter().find(|layout| layout.name == name).cloned().ok_or_else(|| Error::UnknownLayout { name: name.to_owned() })
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
        self.index_of(&identify(name))
    }

    /// The joint that is written canonically, else the first that is a synonym.
    fn index_of(&self, wanted: &Joint) -> Option<usize> {
        let exact = self.joints.iter().position(|written| split(written) == *wanted);
        exact.or_else(|| self.joints.iter().position(|written| identify(written) == *wanted))
    }

    /// How each joint of `target` is had from this layout: the mean of these joints of `self`; empty when it cannot be had.
    pub fn map_to(&self, target: &Layout) -> Vec<Vec<usize>> {
        self.ways_to(target).into_iter().map(|ways| ways.into_iter().next().unwrap_or_default()).collect()
    }

    /// Every way to have each joint of `target`, best first: the joint itself, then each line of [`DERIVATIONS`] whose sources are there.
    pub(super) fn ways_to(&self, target: &Layout) -> Vec<Vec<Vec<usize>>> {
        target.joints.iter().map(|joint| self.ways(&identify(joint))).collect()
    }

    fn ways(&self, wanted: &Joint) -> Vec<Vec<usize>> {
        let source = |written: &&str| {
            let Joint { side, name } = identify(written);
            // A joint without a side is meant on the wanted side where that exists: a hand's wrist, but an eye's nose.
            let sided = (side == Side::Middle).then(|| self.index_of(&Joint { side: wanted.side, name: name.clone() })).flatten();
            sided.or_else(|| self.index_of(&Joint { side, name }))
        };
        let lines = DERIVATIONS.iter().filter(|(name, _)| *name == wanted.name);
        let derived = lines.filter_map(|(_, sources)| sources.iter().map(source).collect::<Option<Vec<_>>>());
        self.index_of(wanted).map(|index| vec![index]).into_iter().chain(derived).collect()
    }

    /// Left-right pairs: the joint on the other side of each joint, itself for middle joints and joints without a partner.
    pub fn mirrored(&self) -> Vec<usize> {
        let other = |(index, written): (usize, &String)| {
            let mut joint = identify(written);
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
mod tests {
    use super::*;

    fn named<'a>(layout: &'a Layout, indices: &[usize]) -> Vec<&'a str> {
        indices.iter().map(|&i| layout.joints[i].as_str()).collect()
    }

    #[test]
    fn builtin_tables_are_trees_with_one_root() {
        for layout in builtin_layouts() {
            assert_eq!(layout.parents.iter().filter(|parent| parent.is_none()).count(), 1, "{}", layout.name);
            for start in 0..layout.joints.len() {
                let steps = std::iter::successors(Some(start), |&j| layout.parents[j]).take(layout.joints.len() + 1).count();
                assert!(steps <= layout.joints.len(), "{}: joint {start} stands in a circle", layout.name);
            }
        }
        let counts: Vec<_> = builtin_layouts().iter().map(|l| (l.name.as_str(), l.joints.len())).collect();
        assert_eq!(counts, [("kinect1_20", 20), ("ntu25", 25), ("coco17", 17)]);
        assert_eq!(Layout::find("kinect2").unwrap().name, "ntu25");
    }

    #[test]
    fn mapping_a_layout_to_itself_is_the_identity() {
        for layout in builtin_layouts() {
            let identity: Vec<_> = (0..layout.joints.len()).map(|i| vec![i]).collect();
            assert_eq!(layout.map_to(layout), identity, "{}", layout.name);
        }
    }

    #[test]
    fn kinect_versions_and_coco_map_by_name() {
        let (k1, k2, coco) = (Layout::find("kinect1_20").unwrap(), Layout::find("ntu25").unwrap(), Layout::find("coco17").unwrap());
        let map = k2.map_to(&k1);
        assert_eq!(named(&k2, &map[0]), ["spine_base"]);
        assert_eq!(named(&k2, &map[2]), ["spine_shoulder"]);
        assert_eq!(named(&k2, &map[7]), ["left_hand"]);
        let map = coco.map_to(&k1);
        assert_eq!(named(&coco, &map[0]), ["left_hip", "right_hip"]);
        assert_eq!(named(&coco, &map[1]), ["left_hip", "right_hip", "left_shoulder", "right_shoulder"]);
        assert_eq!(named(&coco, &map[2]), ["left_shoulder", "right_shoulder"]);
        assert_eq!(named(&coco, &map[3]), ["nose"]);
        assert_eq!(named(&coco, &map[7]), ["left_wrist"]);
        assert_eq!(named(&coco, &map[19]), ["right_ankle"]);
        let map = k1.map_to(&k2);
        assert_eq!(named(&k1, &map[2]), ["shoulder_center"]);
        assert_eq!(named(&k1, &map[24]), ["right_hand"]);
        let map = k1.map_to(&coco);
        assert_eq!(named(&k1, &map[1]), ["head"]);
        assert!(map.iter().all(|sources| !sources.is_empty()));
    }

    #[test]
    fn a_joint_that_cannot_be_had_maps_to_nothing() {
        let hands = Layout::new("hands", &["left_wrist", "right_wrist"]).unwrap();
        let map = hands.map_to(&Layout::find("kinect1_20").unwrap());
        let had: Vec<usize> = (0..20).filter(|&j| !map[j].is_empty()).collect();
        assert_eq!(had, [6, 7, 10, 11]);
    }

    #[test]
    fn names_are_folded_and_synonyms_found() {
        let odd = Layout::new("odd", &["Pelvis", "Left Foot-Index", "HandRight", "MyMarker"]).unwrap();
        assert_eq!(odd.joint("hip_center"), Some(0));
        assert_eq!(odd.joint("left_foot"), Some(1));
        assert_eq!(odd.joint("right hand"), Some(2));
        assert_eq!(odd.joint("my_marker"), Some(3));
        assert_eq!(odd.joint("head"), None);
        // A canonical spelling wins over a synonym that stands before it.
        assert_eq!(Layout::new("both", &["face", "head"]).unwrap().joint("head"), Some(1));
    }

    #[test]
    fn registration_is_process_wide_and_idempotent() {
        Layout::register("test_register", &["head", "left_hand"]).unwrap();
        Layout::register("test_register", &["Head", "HandLeft"]).unwrap();
        assert_eq!(Layout::find("test_register").unwrap().joints, ["head", "left_hand"]);
        assert!(all_layouts().iter().any(|layout| layout.name == "test_register"));
        assert!(matches!(Layout::register("test_register", &["head"]), Err(Error::InvalidArgument { .. })));
        assert!(matches!(Layout::register("kinect2", &["head"]), Err(Error::InvalidArgument { .. })));
        assert!(matches!(Layout::register("", &["head"]), Err(Error::InvalidArgument { .. })));
        assert!(matches!(Layout::register("x", &[]), Err(Error::InvalidArgument { .. })));
        assert!(matches!(Layout::register("x", &["head", "HEAD"]), Err(Error::InvalidArgument { .. })));
        assert!(matches!(Layout::register("x", &["head"; 257]), Err(Error::Limit { .. })));
        assert!(matches!(Layout::register(&"x".repeat(129), &["head"]), Err(Error::Limit { .. })));
        assert!(matches!(Layout::find("test_absent"), Err(Error::UnknownLayout { .. })));
    }

    #[test]
    fn mirrored_pairs_are_an_involution() {
        for layout in builtin_layouts() {
            let mirror = layout.mirrored();
            assert!((0..mirror.len()).all(|i| mirror[mirror[i]] == i));
        }
        // The permutation published with NTU RGB+D.
        let ntu = [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 20, 23, 24, 21, 22];
        assert_eq!(Layout::find("ntu25").unwrap().mirrored(), ntu);
    }
}
