//! On pickles that Python wrote under numpy 1 and 2 (`fixtures/make_pyskl.py`), and on damage to them.

use llmar::formats::ClipArchive;

use super::super::{Format, read_of, scan};
use super::*;
use crate::cli::ConvertArgs;
use crate::data::convert;

macro_rules! fixtures {
    ($($name:literal),*) => { [$(($name, include_bytes!(concat!("../fixtures/pyskl_", $name, ".pkl")) as &[u8])),*] };
}

const SOLID: [(&str, &[u8]); 6] = fixtures!["3d_numpy1_p2", "3d_numpy1_p4", "3d_numpy1_p5", "3d_numpy2_p2", "3d_numpy2_p4", "3d_numpy2_p5"];
const FLAT: [(&str, &[u8]); 6] = fixtures!["2d_numpy1_p2", "2d_numpy1_p4", "2d_numpy1_p5", "2d_numpy2_p2", "2d_numpy2_p4", "2d_numpy2_p5"];

/// Value `i` of the keypoints of clip `index`, as the script has it.
fn value(index: usize, i: usize) -> f32 {
    ((i * 7 + index * 31) % 250) as f32 / 8.0 - 12.5 + 1.0 / 16.0
}

fn write(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("made.pkl");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Scans bytes and reads every clip.
fn all(folder: &Path, bytes: &[u8]) -> Result<(Set, Vec<Outcome>)> {
    let set = scan(Format::Pyskl, &[write(folder, bytes)])?;
    let outcomes = set.entries.iter().map(|entry| read_of(Format::Pyskl, &set, entry)).collect::<Result<_>>()?;
    Ok((set, outcomes))
}

/// `bytes` with the one place where `old` stands replaced by as many bytes.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let at: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i..].starts_with(old)).collect();
    assert_eq!(at.len(), 1, "{:?} stands at {at:?}", String::from_utf8_lossy(old));
    [&bytes[..at[0]], new, &bytes[at[0] + old.len()..]].concat()
}

#[test]
fn every_protocol_and_numpy_gives_the_same_3d_clips() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in SOLID {
        let (set, outcomes) = all(folder.path(), bytes)?;
        assert_eq!((set.name.as_str(), set.persons, set.coords, set.fps), ("made", 2, 3, Some(30.0)), "{name}");
        assert_eq!(set.joints, joints_of("ntu25")?);
        assert_eq!(set.classes, ["class 0", "class 1", "class 2"]);
        let entries: Vec<_> = set.entries.iter().map(|e| (e.name.as_str(), e.index, e.label, e.subject, e.camera)).collect();
        let expected = [
            ("S001C001P001R001A001", 0, 0, Some(1), Some(1)),
            ("S001C002P002R001A002", 1, 1, Some(2), Some(2)),
            ("S001C003P003R001A003", 2, 2, Some(3), Some(3)),
        ];
        assert_eq!(entries, expected, "{name}");
        assert_eq!(set.protocols["xsub"].sides, [Side::Train, Side::Train, Side::Test]);
        assert_eq!(set.protocols["xview"].sides, [Side::Test, Side::Train, Side::Unused]);
        assert!(set.dropped.is_empty());

        let bodies: Vec<_> = outcomes.iter().map(|o| if let Outcome::Clip(body) = o { body } else { panic!("{name}: {o:?}") }).collect();
        let shapes: Vec<_> = bodies.iter().map(|body| (body.frames, body.persons, body.joints.len())).collect();
        assert_eq!(shapes, [(2, 2, 300), (2, 1, 150), (1, 2, 150)], "{name}");
        // [M, T, V, C] to [T, M, V, C]; frame 1 of person 1 is not there.
        for (t, m) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for i in 0..75 {
                let expected = if (t, m) == (1, 1) { 0.0 } else { value(0, (m * 2 + t) * 75 + i) };
                assert_eq!(bodies[0].joints[(t * 2 + m) * 75 + i], expected, "{name}: frame {t}, person {m}, value {i}");
            }
        }
        let valid = bodies[0].valid.as_ref().unwrap();
        assert_eq!((&valid[..75], &valid[75..]), (&[1u8; 75][..], &[0u8; 25][..]));
        // Fortran order.
        assert_eq!(bodies[1].joints, (0..150).map(|i| value(1, i)).collect::<Vec<_>>(), "{name}");
        // Of three persons the second has the fewest joints.
        assert_eq!(bodies[2].joints, (0..75).chain(150..225).map(|i| value(2, i)).collect::<Vec<_>>(), "{name}");
        for (entry, outcome) in set.entries.iter().zip(&outcomes) {
            assert_eq!(&super::super::read(Format::Pyskl, entry)?, outcome, "{name}: without the scan's places");
        }
    }
    Ok(())
}

#[test]
fn every_protocol_and_numpy_gives_the_same_2d_clips() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in FLAT {
        let (set, outcomes) = all(folder.path(), bytes)?;
        assert_eq!((set.persons, set.coords, set.fps, set.classes.len()), (1, 2, None, 4), "{name}");
        assert_eq!(set.joints, joints_of("coco17")?);
        assert_eq!(set.protocols["split1"].sides, [Side::Train, Side::Test]);
        assert_eq!(set.entries.iter().map(|e| (e.label, e.subject)).collect::<Vec<_>>(), [(0, None), (3, None)]);
        for (index, outcome) in outcomes.iter().enumerate() {
            let frames = 2 - index;
            let expected = Body {
                joints: (0..frames * 34).map(|i| value(index, i)).collect(),
                frames,
                persons: 1,
                valid: Some((0..frames * 17).map(|i| u8::from(i % 4 != 0)).collect()),
            };
            assert_eq!(outcome, &Outcome::Clip(expected), "{name}");
        }
    }
    Ok(())
}

#[test]
fn an_archive_holds_the_clips_of_a_protocol() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let source = write(folder.path(), SOLID[4].1);
    let mut args = ConvertArgs { jobs: 2, ..ConvertArgs::new(Format::Pyskl, &[source], &folder.path().join("out.safetensors")) };
    args.protocol = Some("xview".into());
    let report = convert(&args)?;
    assert_eq!((report.clips, report.frames), (2, 4));
    assert_eq!(report.dropped["not in protocol xview"], ["S001C003P003R001A003"]);
    let archive = ClipArchive::read(&args.out)?;
    assert_eq!((archive.layout.as_str(), archive.splits["xview"].as_slice()), ("ntu25", &[true, false][..]));
    assert_eq!(archive.clips[1].joints[..75], (0..75).map(|i| value(1, i)).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in SOLID.iter().chain(&FLAT) {
        for cut in 0..bytes.len() {
            let path = folder.path().join("made.pkl");
            // Parsed in memory: 30,000 files would take their time.
            let error = parse(&path, &bytes[..cut]).map(drop).unwrap_err().to_string();
            assert!(error.contains("made.pkl: byte "), "{name}, cut at {cut}: {error}");
        }
    }
    let path = write(folder.path(), &[]);
    assert!(scan(Format::Pyskl, &[path]).unwrap_err().to_string().contains("empty"));
}

#[test]
fn flipped_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (mut refused, mut read) = (0, 0);
    for (_, bytes) in [SOLID[5], FLAT[0], FLAT[4]] {
        for i in 0..bytes.len() {
            for mask in [0x01, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[i] ^= mask;
                // Most damage lies in the numbers and makes other sound numbers; a clip must keep its shape whatever comes.
                let path = folder.path().join("made.pkl");
                let Ok(set) = parse(&path, &damaged).and_then(|pickle| gather(&path, &pickle)) else {
                    refused += 1;
                    continue;
                };
                std::fs::write(&path, &damaged).unwrap();
                for place in &set.places {
                    if let Ok(Outcome::Clip(body)) = load(&path, place) {
                        assert_eq!(body.joints.len(), body.frames * body.persons * set.joints.len() * set.coords);
                        assert!(body.persons <= set.persons && body.joints.iter().all(|x| x.is_finite()));
                        read += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 1000 && read > 1000, "{refused} refused, {read} clips read");
}

#[test]
fn wrong_content_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (solid, flat) = (SOLID[4].1, FLAT[4].1);
    let shape = [b'K', 1, b'K', 2, b'K', 17, b'K', 2];
    for (bytes, detail) in [
        (replaced(solid, b"annotations", b"annotation5"), "got no `annotations`"),
        (replaced(flat, b"\x05split\x94", b"\x05splat\x94"), "got no `split`"),
        (replaced(flat, b"\x05label\x94", b"\x05babel\x94"), "annotation 0: expected a dict with the key `label`"),
        (replaced(flat, b"\x08keypoint\x94", b"\x08kpfiles_\x94"), "annotation 0: expected a dict with the key `keypoint`"),
        (replaced(flat, b"keypoint_score", b"keypoint_scare"), "annotation 0: expected the key `keypoint_score`"),
        (replaced(flat, b"\x02f8", b"\x02i8"), "annotation 1: `keypoint`: expected float16, float32 or float64, got i8"),
        (replaced(flat, &shape, &[b'K', 1, b'K', 2, b'K', 2, b'K', 17]), "got 2 joints in 17D"),
        (replaced(flat, &shape, &[b'K', 1, b'K', 17, b'K', 2, b'K', 2]), "got 2 joints in 2D"),
        (replaced(flat, &shape, &[b'K', 2, b'K', 1, b'K', 17, b'K', 2]), "`keypoint_score`: expected [2, 1, 17], got [1, 2, 17]"),
    ] {
        let error = scan(Format::Pyskl, &[write(folder.path(), &bytes)]).unwrap_err().to_string();
        assert!(error.contains("made.pkl: ") && error.contains(detail), "{error}");
    }
    // One that only a clip's reading tells, so that the others can still be converted.
    let set =
        scan(Format::Pyskl, &[write(folder.path(), &replaced(flat, b"\x0ctotal_frames\x94K\x02", b"\x0ctotal_frames\x94K\x03"))]).unwrap();
    let error = read_of(Format::Pyskl, &set, &set.entries[0]).unwrap_err().to_string();
    assert!(error.contains("`total_frames` is 3, but `keypoint` has 2 frames"), "{error}");
    assert!(matches!(read_of(Format::Pyskl, &set, &set.entries[1]), Ok(Outcome::Clip(_))));
}

#[test]
fn splits_that_do_not_fit_are_told() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let flat = FLAT[4].1;
    let (set, _) = all(folder.path(), &replaced(flat, b"\x06train1", b"\x06drain1"))?;
    assert!(set.protocols.is_empty());
    let (set, _) = all(folder.path(), &replaced(flat, b"\x05test1", b"\x05text1"))?;
    assert!(set.protocols.is_empty());
    let bytes = replaced(flat, b"test1\x94]\x94\x8c\x05clip1", b"test1\x94]\x94\x8c\x05clip0");
    let error = scan(Format::Pyskl, &[write(folder.path(), &bytes)]).unwrap_err().to_string();
    assert!(error.contains("split `train1`: clip0 is both trained and tested on"), "{error}");
    // A name without an annotation, `val` beside `test`, and no list at all.
    let file = |split: &[u8]| {
        replaced(flat, b"\x05split\x94", b"\x05spl1t\x94").split_last().map(|(_, all)| [all, b"\x8c\x05split", split, b"s."].concat())
    };
    let split = b"}(\x8c\x05train](\x8c\x05clip0\x8c\x05clip7e\x8c\x03val](\x8c\x05clip1e\x8c\x04test]\x8c\x05g_valNu";
    let error = scan(Format::Pyskl, &[write(folder.path(), &file(split).unwrap())]).unwrap_err().to_string();
    assert!(error.contains("split `g_val`: expected a list of names"), "{error}");
    let (set, _) = all(folder.path(), &file(&[&split[..split.len() - 9], b"u"].concat()).unwrap())?;
    assert_eq!(set.protocols.keys().collect::<Vec<_>>(), ["split"]);
    assert_eq!(set.protocols["split"].sides, [Side::Train, Side::Unused]);
    assert_eq!(set.dropped["in a split, but without an annotation"], ["clip7"]);
    Ok(())
}

#[test]
fn several_files_are_no_set() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.pkl", "b.pkl"] {
        std::fs::write(folder.path().join(name), FLAT[0].1).unwrap();
    }
    let scan = |path: &Path| scan(Format::Pyskl, &[path.to_path_buf()]);
    assert!(scan(folder.path()).unwrap_err().to_string().contains("expected one, got 2"));
    assert_eq!(scan(&folder.path().join("a.pkl")).unwrap().name, "a");
    std::fs::create_dir(folder.path().join("none")).unwrap();
    assert!(scan(&folder.path().join("none")).unwrap_err().to_string().contains("no clip"));
}
