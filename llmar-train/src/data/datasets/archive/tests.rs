use safetensors::tensor::{Dtype, TensorView};

use super::super::{Format, read, scan};
use super::*;
use crate::cli::ConvertArgs;
use crate::data::convert;
use crate::testing::shared;

/// What an archive of the tests holds: clips of 1, 2, 3 … frames, whose coordinates are all `x`.
#[derive(Clone)]
struct Plan<'a> {
    name: &'a str,
    classes: &'a [&'a str],
    joints: &'a [&'a str],
    coords: usize,
    persons: usize,
    fps: Option<f32>,
    labels: &'a [i64],
    subjects: &'a [i64],
    splits: &'a [(&'a str, &'a [u8])],
    x: f32,
}

const PLAN: Plan = Plan {
    name: "pool_a",
    classes: &["wave", "sit"],
    joints: &["head", "left_hand", "right_hand"],
    coords: 3,
    persons: 1,
    fps: Some(30.0),
    labels: &[0, 1],
    subjects: &[7, 8],
    splits: &[("half", &[0, 1]), ("own", &[1, 0])],
    x: 1.0,
};

fn bytes(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn write(folder: &Path, file: &str, plan: &Plan) -> PathBuf {
    let count = plan.labels.len();
    let offsets: Vec<i64> = (0..=count as i64).map(|n| n * (n + 1) / 2).collect();
    let total = offsets[count] as usize;
    let shape = vec![total, plan.persons, plan.joints.len(), plan.coords];
    let joints: Vec<u8> = (0..shape.iter().product::<usize>()).flat_map(|_| plan.x.to_le_bytes()).collect();
    let (offsets, labels, subjects) = (bytes(&offsets), bytes(plan.labels), bytes(plan.subjects));
    let mut tensors = vec![
        ("joints".to_owned(), TensorView::new(Dtype::F32, shape, &joints).unwrap()),
        ("offsets".to_owned(), TensorView::new(Dtype::I64, vec![count + 1], &offsets).unwrap()),
        ("labels".to_owned(), TensorView::new(Dtype::I64, vec![count], &labels).unwrap()),
    ];
    if !plan.subjects.is_empty() {
        tensors.push(("subjects".to_owned(), TensorView::new(Dtype::I64, vec![count], &subjects).unwrap()));
    }
    for (name, flags) in plan.splits {
        tensors.push((format!("split.{name}.test"), TensorView::new(Dtype::U8, vec![count], flags).unwrap()));
    }
    let about = serde_json::json!({ "name": plan.name, "classes": plan.classes, "joints": plan.joints, "fps": plan.fps });
    let path = folder.join(file);
    let metadata = [("clips".to_owned(), about.to_string())].into();
    std::fs::write(&path, safetensors::serialize(tensors, Some(metadata)).unwrap()).unwrap();
    path
}

#[test]
fn archives_are_pooled_by_the_text_of_their_labels() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let second = Plan {
        name: "pool_b",
        classes: &["sit", "jump", "wave"],
        persons: 2,
        fps: Some(30.1),
        labels: &[2, 1, 0],
        subjects: &[7, -1, 9],
        splits: &[("half", &[1, 0, 0])],
        x: 2.0,
        ..PLAN
    };
    let sources = [write(folder.path(), "a.safetensors", &PLAN), write(folder.path(), "b.safetensors", &second)];
    let set = scan(Format::Archive, &sources)?;
    assert_eq!(set.classes, ["wave", "sit", "jump"]);
    assert_eq!((set.name.as_str(), set.persons, set.coords, set.fps), ("pool_a+pool_b", 2, 3, Some(30.0)));
    assert_eq!(set.joints, PLAN.joints);
    assert!(set.parents.is_empty(), "unknown: {:?}", set.parents);
    let entries: Vec<_> = set.entries.iter().map(|e| (e.name.as_str(), e.index, e.label, e.subject)).collect();
    let expected =
        [("a#0", 0, 0, Some(7)), ("a#1", 1, 1, Some(8)), ("b#0", 0, 0, Some(1007)), ("b#1", 1, 2, None), ("b#2", 2, 1, Some(1009))];
    assert_eq!(entries, expected);
    // As given, each once.
    let turned = scan(Format::Archive, &[sources[1].clone(), sources[0].clone(), sources[1].clone()])?;
    assert_eq!((turned.classes, turned.entries.len()), (vec!["sit".into(), "jump".into(), "wave".into()], 5));
    assert_eq!(set.protocols.keys().collect::<Vec<_>>(), ["half"]);
    assert_eq!(set.protocols["half"].sides, [Side::Train, Side::Test, Side::Test, Side::Train, Side::Train]);
    for (entry, (frames, persons, x)) in set.entries.iter().zip([(1, 1, 1.0), (2, 1, 1.0), (1, 2, 2.0), (2, 2, 2.0), (3, 2, 2.0)]) {
        let body = Body { joints: vec![x; frames * persons * 9], frames, persons, valid: None };
        assert_eq!(read(Format::Archive, entry)?, Outcome::Clip(body), "{}", entry.name);
    }
    Ok(())
}

#[test]
fn a_pool_is_converted() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let second = Plan { name: "pool_d", persons: 2, subjects: &[1, 2], x: 2.0, ..PLAN };
    let first = Plan { name: "pool_c", ..PLAN };
    let sources = [write(folder.path(), "a.safetensors", &first), write(folder.path(), "b.safetensors", &second)];
    let out = folder.path().join("out.safetensors");
    convert(&ConvertArgs::new(Format::Archive, &sources, &out))?;
    let pooled = ClipArchive::read(&out)?;
    assert_eq!((pooled.labels, pooled.subjects), (vec![0, 1, 0, 1], vec![7, 8, 1001, 1002]));
    assert_eq!(pooled.splits["half"], [false, true, false, true]);
    assert_eq!(pooled.clips.iter().map(|clip| clip.frames).collect::<Vec<_>>(), [1, 2, 1, 2]);
    // The first archive has one person: the second is not there.
    assert_eq!(pooled.clips[0].valid.as_deref(), Some([1, 1, 1, 0, 0, 0].as_slice()));
    assert_eq!(pooled.clips[2].joints, [2.0; 18]);
    Ok(())
}

#[test]
fn archives_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = write(folder.path(), "a.safetensors", &Plan { name: "pool_e", ..PLAN });
    let others = [
        (Plan { name: "pool_f", joints: &["head", "left_hand", "neck"], ..PLAN }, "joint 2: expected `right_hand`, got `neck`"),
        (Plan { name: "pool_g", joints: &["face", "left_hand"], ..PLAN }, "joint 2: expected `right_hand`, got none"),
        (Plan { name: "pool_h", coords: 2, ..PLAN }, "expected 3 coordinates, got 2"),
    ];
    for (other, message) in others {
        let second = write(folder.path(), "b.safetensors", &other);
        let error = scan(Format::Archive, &[first.clone(), second]).unwrap_err().to_string();
        assert!(error.contains("b.safetensors") && error.contains("a.safetensors") && error.contains(message), "{error}");
    }
    let damaged = folder.path().join("c.safetensors");
    std::fs::write(&damaged, "none").unwrap();
    assert!(scan(Format::Archive, &[damaged]).unwrap_err().to_string().contains("c.safetensors"));
}

#[test]
fn large_subjects_and_other_rates() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let first = write(folder.path(), "a.safetensors", &Plan { name: "pool_i", subjects: &[3, 2500], ..PLAN });
    let second = write(folder.path(), "b.safetensors", &Plan { name: "pool_i", fps: Some(31.0), subjects: &[3, 4], ..PLAN });
    let set = scan(Format::Archive, &[first.clone(), second])?;
    let subjects: Vec<_> = set.entries.iter().filter_map(|entry| entry.subject).collect();
    assert_eq!((subjects, set.fps, set.name.as_str()), (vec![3, 2500, 3003, 3004], None, "pool_i"));
    // A rate that one archive does not give is not known of all.
    let third = write(folder.path(), "c.safetensors", &Plan { name: "pool_i", fps: None, subjects: &[], splits: &[], ..PLAN });
    let set = scan(Format::Archive, &[first.clone(), third])?;
    assert_eq!((set.fps, set.protocols.len(), set.entries[2].subject), (None, 0, None));
    let huge = write(folder.path(), "d.safetensors", &Plan { name: "pool_i", subjects: &[3, i64::MAX], ..PLAN });
    assert!(scan(Format::Archive, &[first, huge]).unwrap_err().to_string().contains("a subject of the pool"));
    Ok(())
}

#[test]
fn a_changed_archive_is_read_anew() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.safetensors", &Plan { name: "pool_j", ..PLAN });
    let set = scan(Format::Archive, std::slice::from_ref(&path))?;
    write(folder.path(), "a.safetensors", &Plan { name: "pool_j", labels: &[0], subjects: &[1], splits: &[], ..PLAN });
    let error = read(Format::Archive, &set.entries[1]).unwrap_err().to_string();
    assert!(error.contains("expected clip 1, got 1 clips"), "{error}");
    Ok(())
}

#[test]
fn the_last_two_archives_are_kept() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| write(folder.path(), name, &Plan { name: "pool_k", ..PLAN }));
    let mut kept = Vec::new();
    let first = kept_or_read(&mut kept, &a)?;
    let second = kept_or_read(&mut kept, &b)?;
    assert!(Arc::ptr_eq(&first, &kept_or_read(&mut kept, &a)?) && Arc::ptr_eq(&second, &kept_or_read(&mut kept, &b)?));
    kept_or_read(&mut kept, &c)?;
    assert_eq!(kept.iter().map(|parsed| &parsed.path).collect::<Vec<_>>(), [&c, &b]);
    assert!(!Arc::ptr_eq(&first, &kept_or_read(&mut kept, &a)?));
    Ok(())
}

#[test]
fn genuine_archives_are_pooled() -> Result<()> {
    let test = "archive::genuine_archives_are_pooled";
    let Some(utd) = shared(test, "data/utd_mhad.safetensors") else { return Ok(()) };
    let Some(ucla) = shared(test, "data/nw_ucla.safetensors") else { return Ok(()) };
    let set = scan(Format::Archive, &[utd, ucla])?;
    // Neither set has a class of the other's exact text but those that are equal; 861 and 1,484 clips.
    assert_eq!(set.entries.len(), 861 + 1484);
    assert_eq!((set.joints.len(), set.persons), (20, 1));
    assert!(set.classes.len() <= 37 && set.classes.len() > 27, "{}", set.classes.len());
    let moved: Vec<bool> = set.entries.iter().filter_map(|entry| entry.subject.map(|s| s >= 1000)).collect();
    let first = set.entries[0].path.clone();
    assert!(set.entries.iter().zip(moved).all(|(entry, moved)| moved == (entry.path != first)));
    Ok(())
}
