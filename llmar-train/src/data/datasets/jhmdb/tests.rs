//! Files made to the data set's description: no genuine one is at hand. Joints, classes and splits are compared with the archive of 14 classes.

use llmar::formats::ClipArchive;
use llmar::skeleton::Layout;

use super::super::mat5::writing::{doubles, file, matrix, packed};
use super::super::{Format, scan};
use super::*;
use crate::cli::ConvertArgs;
use crate::data::convert;
use crate::testing::shared;

/// x and y of joint `j` in frame `t`.
fn value(c: usize, j: usize, t: usize) -> f64 {
    c as f64 * 0.5 + j as f64 * 10.0 + t as f64 * 1000.0
}

/// The four variables, packed as MATLAB packs them.
fn clip(frames: usize) -> Vec<u8> {
    let image: Vec<f64> = (0..30 * frames).map(|i| value(i % 2, i / 2 % 15, i / 30)).collect();
    let world: Vec<f64> = image.iter().map(|x| x / 320.0 - 0.5).collect();
    let dims = [2, 15, frames as i32];
    file(&[
        packed(&matrix(4, "viewpoint", &[1, 1], 4, &[b'E', 0])),
        packed(&doubles("scale", &[1, frames as i32], &vec![1.25; frames])),
        packed(&doubles("pos_img", &dims, &image)),
        packed(&doubles("pos_world", &dims, &world)),
    ])
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn add(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn clip(&self, class: &str, clip: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.add(&format!("joint_positions/{class}/{clip}/joint_positions.mat"), content)
    }

    fn scan(&self) -> Result<Set> {
        scan(Format::Jhmdb, &[self.0.path().to_path_buf()])
    }

    /// A folder with one clip of this content, read.
    fn read(content: impl AsRef<[u8]>) -> Result<Outcome> {
        let folder = Self::new();
        folder.clip("golf", "a", content);
        read(&folder.scan()?.entries[0])
    }
}

#[test]
fn clips_are_found_by_their_folders_and_split_by_the_lists() {
    let folder = Folder::new();
    // Names as the data set has them: what stands behind a dot belongs to them.
    let odd = "#20_Rhythm_clap_(v1.2)_nm_np1!@+";
    folder.clip("clap", odd, clip(3));
    folder.clip("brush_hair", "b", clip(2));
    folder.clip("clap", "c", clip(1));
    folder.add(&format!("joint_positions/clap/{odd}/.AppleDouble/joint_positions.mat"), "no MATLAB file");
    folder.add("joint_positions/clap/c/._joint_positions.mat", "no MATLAB file");
    folder.add("README.txt", "passed over");
    folder.add("splits/clap_test_split1.txt", format!("{odd}.avi 2\nc.avi 1\n"));
    folder.add("splits/brush_hair_test_split1.txt", "b.avi 1 \r\n\n");
    folder.add("splits/clap_test_split2.txt", "c.avi 2\nabsent.avi 1\n");
    let set = folder.scan().unwrap();
    let names: Vec<_> = set.entries.iter().map(|entry| (entry.name.as_str(), set.classes[entry.label].as_str())).collect();
    assert_eq!(names, [("b", "brush hair"), (odd, "clap"), ("c", "clap")]);
    assert_eq!(set.protocols.keys().collect::<Vec<_>>(), ["split1", "split2"]);
    assert_eq!(set.protocols["split1"].sides, [Side::Train, Side::Test, Side::Train]);
    assert_eq!(set.protocols["split2"].sides, [Side::Unused, Side::Unused, Side::Test]);
    assert_eq!(set.dropped["in a split, but without joint positions"], ["clap/absent"]);
    // The lists may be given apart from the clips, as files too.
    let source = |path: &str| folder.0.path().join(path);
    let apart = scan(Format::Jhmdb, &[source("joint_positions"), source("splits/clap_test_split1.txt")]).unwrap();
    assert_eq!(apart.protocols["split1"].sides, [Side::Unused, Side::Test, Side::Train]);
    assert!(scan(Format::Jhmdb, &[source("joint_positions")]).unwrap().protocols.is_empty());
}

#[test]
fn a_converted_clip_has_the_joints_of_the_archive_of_14_classes() {
    let folder = Folder::new();
    folder.clip("wave", "a", clip(4));
    folder.clip("golf", "b", clip(2));
    folder.add("splits/wave_test_split3.txt", "a.avi 2\n");
    folder.add("splits/golf_test_split3.txt", "b.avi 1\n");
    let out = folder.0.path().join("out.safetensors");
    let format: Format = clap::ValueEnum::from_str("jhmdb", false).unwrap();
    convert(&ConvertArgs::new(format, &[folder.0.path().to_path_buf()], &out)).unwrap();
    let archive = ClipArchive::read(&out).unwrap();
    assert_eq!((archive.clips.len(), archive.classes.len(), archive.fps), (2, 21, None));
    assert_eq!(archive.splits["split3"], [false, true]);
    let wave = &archive.clips[1];
    assert_eq!((wave.frames, wave.persons, wave.coords, archive.classes[archive.labels[1]].as_str()), (4, 1, 2, "wave"));
    for (t, j, c) in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (3, 14, 1), (2, 7, 0)] {
        assert_eq!(wave.joints[(t * 15 + j) * 2 + c], value(c, j, t) as f32, "frame {t}, joint {j}, axis {c}");
    }
    wave.view().check().unwrap();

    let Some(path) = shared("jhmdb::a_converted_clip_has_the_joints_of_the_archive_of_14_classes", "data/jhmdb14.safetensors") else {
        return;
    };
    let known = ClipArchive::read(&path).unwrap();
    let (ours, theirs) = (Layout::find(&archive.layout).unwrap(), Layout::find(&known.layout).unwrap());
    assert_eq!((ours.joints, ours.parents), (theirs.joints, theirs.parents));
}

#[test]
fn the_archive_of_14_classes_is_split_as_its_lists_would_be() {
    let test = "jhmdb::the_archive_of_14_classes_is_split_as_its_lists_would_be";
    let Some(path) = shared(test, "data/jhmdb14.safetensors") else { return };
    let archive = ClipArchive::read(&path).unwrap();
    let folder = Folder::new();
    let mut lists = BTreeMap::<String, String>::new();
    for (index, label) in archive.labels.iter().enumerate() {
        let class = &archive.classes[*label];
        assert!(CLASSES.contains(&class.as_str()), "{class}");
        folder.clip(class, &format!("c{index:03}"), "");
        for (split, flags) in &archive.splits {
            let list = lists.entry(format!("splits/{class}_test_{split}.txt")).or_default();
            *list += &format!("c{index:03}.avi {}\n", if flags[index] { 2 } else { 1 });
        }
    }
    lists.iter().for_each(|(path, list)| drop(folder.add(path, list)));
    let set = folder.scan().unwrap();
    assert_eq!(set.entries.len(), archive.clips.len());
    for (split, flags) in &archive.splits {
        for (entry, side) in set.entries.iter().zip(&set.protocols[split].sides) {
            let index: usize = entry.name[1..].parse().unwrap();
            assert_eq!(*side == Side::Test, flags[index], "{split}, {}", entry.name);
            assert_ne!(*side, Side::Unused);
        }
    }
}

#[test]
fn what_is_wrong_with_names_and_lists_is_named() {
    let says = |folder: &Folder, needles: &[&str]| {
        let error = folder.scan().unwrap_err().to_string();
        assert!(needles.iter().all(|needle| error.contains(needle)), "{error}, not: {needles:?}");
    };
    let folder = Folder::new();
    folder.clip("juggle", "a", "");
    says(&folder, &["joint_positions.mat", "expected <class>/<clip>", "`juggle/a`"]);
    for (name, list, needle) in [
        ("juggle_test_split1.txt", "a.avi 1\n", "file name"),
        ("golf_test_split4.txt", "a.avi 1\n", "file name"),
        ("golf_test_split1.txt", "a.avi 1\nb.avi 3\n", "line 2: expected `<clip>.avi 1`"),
        ("golf_test_split1.txt", "a.avi\n", "line 1: expected `<clip>.avi 1`"),
        ("golf_test_split1.txt", "a.mp4 1\n", "line 1: expected a name that ends in .avi"),
        ("golf_test_split1.txt", "a.avi 1\n\na.avi 2\n", "line 3: the clip `a` stands twice"),
    ] {
        let folder = Folder::new();
        folder.clip("golf", "a", "");
        folder.add(&format!("splits/{name}"), list);
        says(&folder, &[name, needle]);
    }
    let folder = Folder::new();
    folder.clip("golf", "a", "");
    folder.add("splits/golf_test_split1.txt", "");
    folder.add("sub_splits/golf_test_split1.txt", "");
    says(&folder, &["sub_splits", "same class and split"]);
    folder.add("again/golf/a/joint_positions.mat", "");
    says(&folder, &["stands in", "again"]);
    let error = scan(Format::Jhmdb, &[folder.add("golf/a/other.mat", "")]).unwrap_err().to_string();
    assert!(error.contains("other.mat") && error.contains("file name"), "{error}");
}

#[test]
fn other_contents_are_refused_and_missing_joints_flagged() {
    let zeros = vec![0.0; 60];
    let with = |at: usize, value: f64| {
        let mut values = zeros.clone();
        values[at] = value;
        file(&[doubles("pos_img", &[2, 15, 2], &values)])
    };
    for (bytes, needle) in [
        (file(&[doubles("pos_world", &[2, 15, 2], &zeros)]), "no variable `pos_img`"),
        (file(&[doubles("pos_img", &[15, 2, 2], &zeros)]), "expected [2, 15, frames], got [15, 2, 2]"),
        (file(&[doubles("pos_img", &[2, 30], &zeros)]), "got [2, 30]"),
        (with(30 + 9, 1e300), "`pos_img`(2, 5, 2): expected a number of f32, got 1e300"),
        (with(0, f64::NEG_INFINITY), "`pos_img`(1, 1, 1)"),
    ] {
        let error = Folder::read(bytes).unwrap_err().to_string();
        assert!(error.contains("joint_positions.mat") && error.contains(needle), "{error}");
    }
    let Outcome::Clip(body) = Folder::read(with(30 + 9, f64::NAN)).unwrap() else { panic!("a clip") };
    let valid = body.valid.unwrap();
    assert_eq!((valid.len(), valid.iter().position(|v| *v == 0), valid.iter().filter(|v| **v == 0).count()), (30, Some(15 + 4), 1));
    let Outcome::Clip(body) = Folder::read(file(&[doubles("pos_img", &[2, 15], &zeros[..30])])).unwrap() else { panic!("a clip") };
    assert_eq!((body.frames, body.valid), (1, None));
    assert_eq!(Folder::read(file(&[doubles("pos_img", &[2, 15, 0], &[])])).unwrap(), Outcome::Dropped("no frame".into()));
}

#[test]
fn cut_files_are_errors() {
    let variables = [doubles("pos_img", &[2, 15, 2], &[0.5; 60]), packed(&doubles("scale", &[1, 2], &[1.0; 2]))];
    let bytes = file(&variables);
    let folder = Folder::new();
    let path = folder.clip("golf", "a", &bytes);
    let entry = &folder.scan().unwrap().entries[0];
    read(entry).unwrap();
    for len in (0..bytes.len()).filter(|len| *len != bytes.len() - variables[1].len()) {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let error = read(entry).unwrap_err().to_string();
        assert!(error.contains("joint_positions.mat"), "{len}: {error}");
    }
}
