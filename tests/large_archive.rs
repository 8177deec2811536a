//! An archive of 5 GiB, of holes but for its first and last clip: opened, it takes no memory but what is said of each clip. In a process of its own, as it
//! looks at the process's memory.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use llmar::formats::{ClipArchive, read_clips};

const CLIPS: usize = 3_000;
/// Frames of a clip. 2 persons, 25 joints, 3 coordinates: 600 bytes a frame, 1.8 MB a clip.
const FRAMES: usize = 3_000;
const ROW: usize = 2 * 25;

/// Writes the archive: `tensor(name, dtype, shape, bytes)` in the order in which they lie.
fn write(path: &Path) -> u64 {
    let total = CLIPS * FRAMES;
    let offsets: Vec<u8> = (0..=CLIPS as i64).flat_map(|i| (i * FRAMES as i64).to_le_bytes()).collect();
    let labels: Vec<u8> = (0..CLIPS as i64).flat_map(|i| (i % 2).to_le_bytes()).collect();
    let joints = (total * ROW * 3 * 4) as u64;
    let valid = (total * ROW) as u64;
    let mut at = 0;
    let mut tensor = |dtype: &str, shape: &[usize], bytes: u64| {
        at += bytes;
        serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [at - bytes, at] })
    };
    let names = llmar::skeleton::Layout::find("ntu25").unwrap().joints;
    let about = serde_json::json!({ "name": "large", "classes": ["a", "b"], "joints": names, "fps": 30.0 });
    let header = serde_json::json!({
        "__metadata__": { "clips": about.to_string() },
        "labels": tensor("I64", &[CLIPS], labels.len() as u64),
        "offsets": tensor("I64", &[CLIPS + 1], offsets.len() as u64),
        "joints": tensor("F32", &[total, 2, 25, 3], joints),
        "valid": tensor("U8", &[total, 2, 25], valid),
    });
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(path).unwrap();
    for part in [&(header.len() as u64).to_le_bytes()[..], &header, &labels, &offsets] {
        file.write_all(part).unwrap();
    }
    let start = file.stream_position().unwrap();
    file.set_len(start + joints + valid).unwrap();
    // The first number of the first and of the last clip, and the last flag of all.
    let last = start + ((CLIPS - 1) * FRAMES * ROW * 3 * 4) as u64;
    for (at, value) in [(start, 1.5f32), (last, -2.5), (start + joints - 4, 7.0)] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&value.to_le_bytes()).unwrap();
    }
    file.seek(SeekFrom::Start(start + joints + valid - 1)).unwrap();
    file.write_all(&[1]).unwrap();
    start + joints + valid
}

/// Memory of this process in bytes: its own, and that with the pages of files that it has touched.
#[cfg(target_os = "linux")]
fn memory() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    ["RssAnon:", "VmRSS:"].map(|key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    })
}

#[test]
#[cfg(target_os = "linux")] // where memory is looked at so, and files of holes take no room
fn five_gigabytes_are_opened_in_the_memory_of_their_list_of_clips() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let bytes = write(&path);
    assert!(bytes > 5 << 30, "{bytes}");
    let before = memory();
    let archive = ClipArchive::read(&path).unwrap();
    let grown = |what: &str, limit: u64| {
        for (now, before) in memory().iter().zip(before) {
            assert!(*now < before + limit, "{what}: {before} bytes before, {now} now");
        }
    };
    grown("opened", 8 << 20); // 3,000 clips, and the tables of the file
    assert_eq!((archive.clips.len(), archive.labels[CLIPS - 1], archive.layout.as_str()), (CLIPS, 1, "ntu25"));
    let (first, last) = (&archive.clips[0], &archive.clips[CLIPS - 1]);
    assert_eq!((first.frames, first.joints.len(), first.joints[0], first.joints[1]), (FRAMES, FRAMES * ROW * 3, 1.5, 0.0));
    assert_eq!((last.joints[0], last.joints[FRAMES * ROW * 3 - 1]), (-2.5, 7.0));
    let valid = last.valid.as_ref().unwrap();
    assert_eq!((valid.len(), valid[0], valid[FRAMES * ROW - 1]), (FRAMES * ROW, 0, 1));
    archive.clips.iter().for_each(|clip| clip.view().check().unwrap());
    grown("looked at", 8 << 20);
    // A whole clip: the pages of its numbers, which the system may take back.
    assert_eq!(last.joints.iter().filter(|x| **x != 0.0).count(), 2);
    grown("read one clip", 12 << 20);
    drop(archive);
    // By content, as the tool opens it.
    let clips = read_clips(&path).unwrap();
    assert_eq!((clips.len(), clips[0].joints[0], clips[0].name.as_str()), (CLIPS, 1.5, "large#0"));
    grown("opened by its content", 16 << 20);
}
