//! Names of motion-capture joints, made those of the built-in layouts by name and place in the tree.
//!
//! One word means two joints in two schools: a BVH joint stands where its bone begins, so the `LeftArm` of MotionBuilder and Mixamo is a
//! shoulder and its `LeftShoulder` a collar, while the `LeftShoulder` of Biovision's own files is a shoulder. What hangs below tells.

/// Part of a limb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Hip,
    Knee,
    Ankle,
    Collar,
    Shoulder,
    Elbow,
    Wrist,
}

impl Part {
    /// As the layouts write it, after the side.
    fn name(self) -> &'static str {
        match self {
            Self::Hip => "hip",
            Self::Knee => "knee",
            Self::Ankle => "ankle",
            Self::Collar => "collar",
            Self::Shoulder => "shoulder",
            Self::Elbow => "elbow",
            Self::Wrist => "wrist",
        }
    }
}

/// A name taken apart.
struct Written {
    /// `left`, `right`, or `None` in the middle.
    side: Option<&'static str>,
    /// Lower case without side, prefix and separators.
    bare: String,
    /// What an unknown joint is called: as written without prefix, its side spelled out.
    plain: String,
}

const ARMS: [&str; 4] = ["arm", "uparm", "upperarm", "shldr"];

/// A name for each node (name, parent; parents first), or `None` for an end site (empty name) that is no foot or hand.
pub(super) fn named(nodes: &[(&str, Option<usize>)]) -> Vec<Option<String>> {
    let written: Vec<Written> = nodes.iter().map(|(name, _)| take_apart(name)).collect();
    let children = |i: usize| nodes.iter().enumerate().filter(move |(_, (_, parent))| *parent == Some(i)).map(|(child, _)| child);
    let mut parts: Vec<Option<Part>> = Vec::with_capacity(nodes.len());
    for (i, (_, parent)) in nodes.iter().enumerate() {
        let above = parent.and_then(|parent| parts[parent]);
        let over_arm = children(i).any(|child| ARMS.contains(&written[child].bare.as_str()));
        parts.push(written[i].side.and_then(|_| part(&written[i].bare, above, over_arm)));
    }
    let name = |i: usize| {
        let (name, parent) = nodes[i];
        let parent = parent.filter(|_| name.is_empty());
        // The end of a limb is a foot or hand where no joint follows: toes and fingers have names of their own.
        let end = parent.filter(|&parent| children(parent).count() == 1);
        let side = |node: usize| written[node].side.unwrap_or_default(); // parts have a side
        match (name.is_empty(), parts[i], end.and_then(|end| parts[end].map(|part| (end, part)))) {
            (false, Some(part), _) => Some(format!("{}_{}", side(i), part.name())),
            (false, None, _) => Some(written[i].plain.clone()),
            (true, _, Some((parent, Part::Ankle))) => Some(format!("{}_foot", side(parent))),
            (true, _, Some((parent, Part::Wrist))) => Some(format!("{}_hand", side(parent))),
            (true, ..) => None,
        }
    };
    (0..nodes.len()).map(name).collect()
}

/// What a joint with a side is, from its bare name, the part above it, and whether an upper arm hangs directly below.
fn part(bare: &str, above: Option<Part>, over_arm: bool) -> Option<Part> {
    match bare {
        "hip" | "upleg" | "upperleg" | "thigh" => Some(Part::Hip),
        "knee" | "lowleg" | "lowerleg" | "shin" | "calf" => Some(Part::Knee),
        "leg" if above == Some(Part::Hip) => Some(Part::Knee),
        "ankle" => Some(Part::Ankle),
        "foot" if above == Some(Part::Knee) => Some(Part::Ankle),
        "collar" | "clavicle" => Some(Part::Collar),
        "shoulder" if over_arm => Some(Part::Collar),
        "shoulder" => Some(Part::Shoulder),
        _ if ARMS.contains(&bare) => Some(Part::Shoulder),
        "elbow" | "forearm" | "lowarm" | "lowerarm" => Some(Part::Elbow),
        "wrist" => Some(Part::Wrist),
        "hand" if above == Some(Part::Elbow) => Some(Part::Wrist),
        _ => None,
    }
}

/// `mixamorig:LeftArm`, `Bip01 L UpperArm`, `UpperArm_L`, `lShldr`: prefix, side and rest.
fn take_apart(name: &str) -> Written {
    let name = name.rsplit(':').next().unwrap_or_default();
    let mut words: Vec<&str> = name.split([' ', '_', '-', '.']).filter(|word| !word.is_empty()).collect();
    // 3ds Max puts the name of the whole figure before every joint's.
    let figure = words.len() > 1 && words[0].strip_prefix("Bip").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    if figure {
        words.remove(0);
    }
    let sides = [("left", "l"), ("right", "r")];
    for (side, letter) in sides {
        // A side in a word of its own.
        let at = words.iter().position(|word| word.eq_ignore_ascii_case(side) || word.eq_ignore_ascii_case(letter));
        if let Some(at) = at.filter(|_| words.len() > 1) {
            words.remove(at);
            return Written { side: Some(side), bare: words.concat().to_lowercase(), plain: format!("{side}_{}", words.join("_")) };
        }
    }
    let joined = words.concat();
    let lower = joined.to_lowercase();
    let plain = if figure { words.join("_") } else { name.to_owned() };
    for (side, letter) in sides {
        if let Some(rest) = lower.strip_prefix(side).or_else(|| lower.strip_suffix(side)).filter(|rest| !rest.is_empty()) {
            return Written { side: Some(side), bare: rest.to_owned(), plain };
        }
        // A lone letter counts only before a capital: `lThigh`, `LThumb`, not `LowerBack`.
        let mut chars = joined.chars();
        let lone = chars.next().is_some_and(|first| first.to_ascii_lowercase().to_string() == letter);
        if lone && chars.clone().next().is_some_and(char::is_uppercase) {
            let rest = chars.as_str();
            return Written { side: Some(side), bare: rest.to_lowercase(), plain: format!("{side}_{rest}") };
        }
    }
    Written { side: None, bare: lower, plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of a chain, each the child of the one before.
    fn chain(names: &[&str]) -> Vec<String> {
        let nodes: Vec<_> = names.iter().enumerate().map(|(i, name)| (*name, i.checked_sub(1))).collect();
        named(&nodes).into_iter().map(|name| name.unwrap_or("-".into())).collect()
    }

    #[test]
    fn schools_of_naming_agree_on_limbs() {
        let arm = ["left_collar", "left_shoulder", "left_elbow", "left_wrist", "left_hand"];
        for names in [
            ["mixamorig:LeftShoulder", "mixamorig:LeftArm", "mixamorig:LeftForeArm", "mixamorig:LeftHand", ""],
            ["LeftCollar", "LeftShoulder", "LeftElbow", "LeftWrist", ""],
            ["LeftCollar", "LeftUpArm", "LeftLowArm", "LeftHand", ""],
            ["Shoulder_L", "UpperArm_L", "LowerArm_L", "Hand_L", ""],
            ["Bip01 L Clavicle", "Bip01 L UpperArm", "Bip01 L Forearm", "Bip01 L Hand", ""],
            ["lCollar", "lShldr", "lForeArm", "lHand", ""],
        ] {
            assert_eq!(chain(&names), arm, "{names:?}");
        }
        let leg = ["right_hip", "right_knee", "right_ankle", "right_foot"];
        for names in [
            ["RightUpLeg", "RightLeg", "RightFoot", ""],
            ["RightHip", "RightKnee", "RightAnkle", ""],
            ["RightHip", "RightKnee", "RightFoot", ""],
            ["rThigh", "rShin", "rFoot", ""],
        ] {
            assert_eq!(chain(&names), leg, "{names:?}");
        }
    }

    #[test]
    fn other_names_stay() {
        let names = ["Hips", "LowerBack", "Spine1", "LeftHandThumb1", "Root", "Reference", "Chest.001"];
        assert_eq!(chain(&names), names);
        // Without a forearm above, a hand is a hand; a leg without a thigh is unknown.
        assert_eq!(chain(&["Hips", "LeftHand", "", "LeftLeg", "LHipJoint"]), ["Hips", "LeftHand", "-", "LeftLeg", "left_HipJoint"]);
        assert_eq!(chain(&["Bip01", "Bip01 Pelvis", "Bip01 Spine1", "Bip01 R Toe0"]), ["Bip01", "Pelvis", "Spine1", "right_Toe0"]);
        // Toes below an ankle: its end site is not taken for the foot.
        assert_eq!(chain(&["LeftLeg"]), ["LeftLeg"]);
        assert_eq!(chain(&["LeftUpLeg", "LeftLeg", "LeftFoot", "LeftToeBase", ""])[2..], ["left_ankle", "LeftToeBase", "-"]);
    }

    #[test]
    fn odd_names_are_no_trouble() {
        for name in ["", ":", "::", "_", "L", "l", "left", "Left", "Bip", "Bip01", "é", "Lé", "LÉ", "L_", "_ _", "ß:ß"] {
            assert_eq!(chain(&[name]).len(), 1);
        }
    }
}
