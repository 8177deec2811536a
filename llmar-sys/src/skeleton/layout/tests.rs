//! Layouts and their mappings, joint by joint.

use super::*;

fn named<'a>(layout: &'a Layout, indices: &[usize]) -> Vec<&'a str> {
    indices.iter().map(|&i| layout.joints[i].as_str()).collect()
}

/// Joint names of a built-in layout.
fn joints(layout: &str) -> Vec<&'static str> {
    let layout = builtin_layouts().iter().find(|known| known.name == layout).unwrap();
    layout.joints.iter().map(String::as_str).collect()
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
    let known = [("kinect1_20", 20), ("ntu25", 25), ("coco17", 17), ("openpose18", 18), ("mediapipe33", 33), ("azure32", 32)];
    assert_eq!(counts, [known.as_slice(), &[("smpl24", 24), ("xr_fb70", 70), ("xr_htc26", 26)]].concat());
    assert_eq!(Layout::find("kinect2").unwrap().name, "ntu25");
    assert_eq!(Layout::find("xr_bd24").unwrap().name, "smpl24");
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

/// Expects the joints of `source` that stand for each joint of `target`, in its order, as one text each; `-` for a joint that cannot be had.
fn expect_map(source: &str, target: &str, expected: &[&str]) {
    let (source, target) = (Layout::find(source).unwrap(), Layout::find(target).unwrap());
    let map = source.map_to(&target);
    let text = |sources: &Vec<usize>| match sources.is_empty() {
        true => "-".to_owned(),
        false => named(&source, sources).join(" "),
    };
    let got: Vec<String> = map.iter().map(text).collect();
    for (joint, (got, expected)) in target.joints.iter().zip(got.iter().zip(expected)) {
        assert_eq!(got, expected, "{joint} of {} from {}", target.name, source.name);
    }
    assert_eq!(got.len(), expected.len());
}

/// The limbs of `kinect1_20` in its order, with other `hands` and `feet`, and the given four joints before them.
fn kinect1(middle: [&'static str; 4], hands: [&'static str; 2], feet: [&'static str; 2]) -> Vec<&'static str> {
    let mut all = middle.to_vec();
    all.extend(["left_shoulder", "left_elbow", "left_wrist", hands[0], "right_shoulder", "right_elbow", "right_wrist", hands[1]]);
    all.extend(["left_hip", "left_knee", "left_ankle", feet[0], "right_hip", "right_knee", "right_ankle", feet[1]]);
    all
}

const SHOULDERS: &str = "left_shoulder right_shoulder";
const HIPS_AND_SHOULDERS: &str = "left_hip right_hip left_shoulder right_shoulder";
const HANDS: [&str; 2] = ["left_hand", "right_hand"];
const WRISTS: [&str; 2] = ["left_wrist", "right_wrist"];
const FEET: [&str; 2] = ["left_foot", "right_foot"];

#[test]
fn openpose18_maps_by_name() {
    let middle = ["left_hip right_hip", HIPS_AND_SHOULDERS, SHOULDERS, "nose"];
    expect_map("openpose18", "kinect1_20", &kinect1(middle, WRISTS, ["left_ankle", "right_ankle"]));
    // COCO's own points are all there, in another order.
    expect_map("openpose18", "coco17", &joints("coco17"));
}

#[test]
fn mediapipe33_maps_by_name() {
    let middle = ["left_hip right_hip", HIPS_AND_SHOULDERS, SHOULDERS, "nose"];
    let hands = ["left_wrist left_wrist left_index left_pinky", "right_wrist right_wrist right_index right_pinky"];
    expect_map("mediapipe33", "kinect1_20", &kinect1(middle, hands, ["left_foot_index", "right_foot_index"]));
    expect_map("mediapipe33", "coco17", &joints("coco17"));
    let tips = ["left_index left_pinky", "left_thumb", "right_index right_pinky", "right_thumb"];
    let (source, target) = (Layout::find("mediapipe33").unwrap(), Layout::find("ntu25").unwrap());
    let map = source.map_to(&target);
    assert_eq!([21, 22, 23, 24].map(|joint| named(&source, &map[joint]).join(" ")), tips);
}

#[test]
fn azure32_maps_by_name() {
    expect_map("azure32", "kinect1_20", &kinect1(["pelvis", "spine_navel", SHOULDERS, "head"], HANDS, FEET));
    expect_map("azure32", "coco17", &joints("coco17"));
    let mut ntu = joints("ntu25");
    (ntu[0], ntu[1], ntu[20]) = ("pelvis", "spine_navel", SHOULDERS);
    expect_map("azure32", "ntu25", &ntu);
}

#[test]
fn smpl24_maps_by_name() {
    expect_map("smpl24", "kinect1_20", &kinect1(["pelvis", "spine2", SHOULDERS, "head"], HANDS, FEET));
    let mut ntu = joints("ntu25");
    (ntu[0], ntu[1], ntu[20]) = ("pelvis", "spine2", SHOULDERS);
    ntu[21..].copy_from_slice(&["left_hand", "left_hand", "right_hand", "right_hand"]);
    expect_map("smpl24", "ntu25", &ntu);
    let mut coco = joints("coco17");
    coco[..5].fill("head");
    expect_map("smpl24", "coco17", &coco);
}

#[test]
fn xr_fb70_maps_by_anatomy_and_has_no_legs() {
    let mut kinect = kinect1(["hips", "spine_middle", SHOULDERS, "head"], ["left_palm", "right_palm"], FEET);
    kinect[12..].fill("-");
    expect_map("xr_fb70", "kinect1_20", &kinect);
    let mut ntu = joints("ntu25");
    (ntu[0], ntu[1], ntu[7], ntu[11], ntu[20]) = ("hips", "spine_middle", "left_palm", "right_palm", SHOULDERS);
    ntu[12..20].fill("-");
    ntu[21..].copy_from_slice(&["left_middle_tip", "left_thumb_tip", "right_middle_tip", "right_thumb_tip"]);
    expect_map("xr_fb70", "ntu25", &ntu);
    let mut coco = joints("coco17");
    coco[..5].fill("head");
    coco[11..].fill("-");
    expect_map("xr_fb70", "coco17", &coco);
    // Places of the enum: SHOULDER_FB 8 is no shoulder, ARM_UPPER_FB 10 is.
    let fb = Layout::find("xr_fb70").unwrap();
    let places = ["hip_center", "left_shoulder", "right_shoulder", "left_wrist", "right_wrist", "left_little_tip", "right_little_tip"];
    assert_eq!(places.map(|name| fb.joint(name)), [1, 10, 15, 19, 45, 43, 69].map(Some));
    // The root on the floor stands for nothing.
    assert!(builtin_layouts().iter().filter(|target| **target != fb).all(|target| !fb.map_to(target).contains(&vec![0])));
}

#[test]
fn xr_htc26_maps_by_anatomy() {
    expect_map("xr_htc26", "kinect1_20", &kinect1(["pelvis", "spine_middle", SHOULDERS, "head"], WRISTS, FEET));
    let mut ntu = joints("ntu25");
    (ntu[0], ntu[1], ntu[7], ntu[11], ntu[20]) = ("pelvis", "spine_middle", "left_wrist", "right_wrist", SHOULDERS);
    ntu[21..].copy_from_slice(&["left_wrist", "left_wrist", "right_wrist", "right_wrist"]);
    expect_map("xr_htc26", "ntu25", &ntu);
    let mut coco = joints("coco17");
    coco[..5].fill("head");
    expect_map("xr_htc26", "coco17", &coco);
}

#[test]
fn clavicles_and_scapulae_stand_for_nothing_in_layouts_without_them() {
    for source in builtin_layouts() {
        for target in builtin_layouts().iter().filter(|target| ["kinect1_20", "ntu25", "coco17"].contains(&target.name.as_str())) {
            for index in source.map_to(target).concat() {
                let name = &source.joints[index];
                assert!(!["clavicle", "scapula", "collar"].iter().any(|bone| name.contains(bone)), "{name} for {}", target.name);
            }
        }
    }
}

#[test]
fn two_synonyms_in_one_layout_stay_apart() {
    let both = Layout::new("both", &["left_hand", "left_palm", "right_hand", "right_palm"]).unwrap();
    assert_eq!(both.map_to(&both), [[0], [1], [2], [3]].map(|index| index.to_vec()));
    assert_eq!(both.mirrored(), [2, 3, 0, 1]);
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
        for (joint, written) in layout.joints.iter().enumerate() {
            assert_eq!(mirror[joint] != joint, written.contains("left") || written.contains("right"), "{written} of {}", layout.name);
            // A tree is its own mirror image.
            let mirrored_parent = layout.parents[joint].map(|parent| mirror[parent]);
            assert_eq!(layout.parents[mirror[joint]], mirrored_parent, "{written} of {}", layout.name);
        }
    }
    // The permutation published with NTU RGB+D.
    let ntu = [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 20, 23, 24, 21, 22];
    assert_eq!(Layout::find("ntu25").unwrap().mirrored(), ntu);
}

#[test]
fn a_layout_without_some_joints_keeps_the_rest_in_order() {
    let whole = Layout::find("kinect1_20").unwrap();
    let part = Layout::find("kinect1_20 without right_foot,spine , LeftFoot").unwrap();
    assert_eq!(part.name, "kinect1_20 without spine, left_foot, right_foot");
    assert_eq!(Layout::find(&part.name).unwrap(), part);
    assert_eq!(part.joints.len(), 17);
    let parent_of = |layout: &Layout, joint: &str| {
        let parent = layout.parents[layout.joint(joint).unwrap()].map(|parent| layout.joints[parent].clone());
        parent.unwrap_or_default()
    };
    for joint in &part.joints {
        let expected = if joint == "shoulder_center" { "hip_center".to_owned() } else { parent_of(&whole, joint) };
        assert_eq!(parent_of(&part, joint), expected, "{joint}");
    }
    assert!(whole.map_to(&part).iter().zip(&part.joints).all(|(from, joint)| named(&whole, from) == [joint.as_str()]));
    // By an alias, and of a registered layout.
    assert_eq!(Layout::find("kinect2 without neck").unwrap().joints.len(), 24);
    Layout::register("test_without", &["root", "tip", "end"]).unwrap();
    assert_eq!(Layout::find("test_without without tip").unwrap().joints, ["root", "end"]);
    let long = "l".repeat(MAX_NAME);
    Layout::register(&long, &["root", "tip"]).unwrap();
    for (wrong, said) in [
        ("kinect1_21 without spine", "kinect1_21"),
        ("kinect1_20 without tail", "`tail`"),
        ("kinect1_20 without ", "``"),
        ("test_without without root, tip, end", "none"),
        (&format!("{long} without tip"), "128"),
    ] {
        let error = Layout::find(wrong).unwrap_err().to_string();
        assert!(error.contains(said), "{wrong}: {error}");
    }
}
