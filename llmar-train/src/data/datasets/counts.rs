//! How many clips whole data sets have, for a look beside what a conversion found. Only what is stated for a set, follows from its lists, or was counted
//! in a whole copy; so nothing is noted for UAV-Human, PYSKL's files, J-HMDB as a whole, and the splits of Smarthome.

use super::Set;

/// Clips of a whole data set.
struct Counts {
    /// Name of the archive.
    set: &'static str,
    /// All clips that a conversion can keep.
    clips: usize,
    protocols: &'static [Split],
}

/// Clips trained and tested on.
struct Split {
    protocol: &'static str,
    counts: (usize, usize),
    /// With those on the official list of missing skeletons, which the protocol leaves out.
    before: Option<(usize, usize)>,
}

const fn split(protocol: &'static str, train: usize, test: usize) -> Split {
    Split { protocol, counts: (train, test), before: None }
}

const fn of_all(split: Split, train: usize, test: usize) -> Split {
    Split { before: Some((train, test)), ..split }
}

/// NTU: 56,880 and 114,480 clips, of which 302 and 535 are on the list (github.com/shahroudy/NTURGB-D); the counts without these are CTR-GCN's, those
/// before follow from the performers, cameras and setups on the list. Smarthome: the sum over the activities (github.com/YangDi666/UNIK). NW-UCLA and
/// UTD-MHAD: the usual protocols. MSR-Action3D: 566 clips, odd and even subjects. jhmdb14_ddnet: DD-Net's 14 of the 21 classes of J-HMDB.
const COUNTS: [Counts; 7] = [
    Counts {
        set: "ntu60",
        clips: 56_578,
        protocols: &[
            of_all(split("cross_subject", 40_091, 16_487), 40_320, 16_560),
            of_all(split("cross_view", 37_646, 18_932), 37_920, 18_960),
        ],
    },
    Counts {
        set: "ntu120",
        clips: 113_945,
        protocols: &[
            of_all(split("cross_subject", 63_026, 50_919), 63_360, 51_120),
            of_all(split("cross_setup", 54_468, 59_477), 54_720, 59_760),
        ],
    },
    Counts { set: "smarthome", clips: 16_115, protocols: &[] },
    Counts { set: "nw_ucla", clips: 1_484, protocols: &[split("cross_view", 1_020, 464)] },
    Counts { set: "utd_mhad", clips: 861, protocols: &[split("cross_subject", 431, 430)] },
    Counts { set: "msr_action3d", clips: 566, protocols: &[split("cross_subject", 291, 275)] },
    Counts {
        set: "jhmdb14_ddnet",
        clips: 609,
        protocols: &[split("split1", 433, 176), split("split2", 433, 176), split("split3", 434, 175)],
    },
];

/// Notes in a set what is known of the whole of it.
pub(super) fn note(set: &mut Set) {
    let Some(known) = COUNTS.iter().find(|known| known.set == set.name) else { return };
    set.published_clips = Some(known.clips);
    for (name, protocol) in &mut set.protocols {
        if let Some(split) = known.protocols.iter().find(|split| split.protocol == name) {
            (protocol.published, protocol.before) = (Some(split.counts), split.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use llmar::formats::ClipArchive;

    use super::super::{Format, Side, scan};
    use super::*;
    use crate::testing::shared;

    #[test]
    fn the_sides_of_a_split_are_the_whole_set() {
        for known in &COUNTS {
            let missing = if known.set.starts_with("ntu60") { 302 } else { 535 };
            for split in known.protocols {
                assert_eq!(split.counts.0 + split.counts.1, known.clips, "{}, {}", known.set, split.protocol);
                if let Some((train, test)) = split.before {
                    assert_eq!(train + test, known.clips + missing, "{}, {}", known.set, split.protocol);
                }
            }
        }
    }

    /// The clips on the lists, by the sides that the reader puts them on.
    #[test]
    fn what_the_lists_take_out_is_the_difference() {
        let missing: Vec<&str> = include_str!("ntu_missing.txt").lines().collect();
        for (format, set, whole) in [(Format::Ntu60, "ntu60", 56_880), (Format::Ntu120, "ntu120", 114_480)] {
            // The reader leaves listed clips out: the same performers, cameras and setups under a repetition that is not listed.
            let folder = tempfile::tempdir().unwrap();
            let (mut made, mut listed) = (0, 0);
            for name in &missing {
                let old = name[1..4] <= *"017";
                if set == "ntu60" && !old {
                    continue;
                }
                listed += 1;
                let alike = (3..1000).map(|r| format!("{}R{r:03}{}", &name[..12], &name[16..]));
                let path = alike.map(|name| folder.path().join(name + ".skeleton")).find(|path| !path.exists()).unwrap();
                std::fs::write(path, "").unwrap();
                made += 1;
            }
            let scanned = scan(format, &[folder.path().to_path_buf()]).unwrap();
            assert_eq!((scanned.entries.len(), made), (listed, listed));
            for (name, protocol) in &scanned.protocols {
                let count = |side| protocol.sides.iter().filter(|other| **other == side).count();
                let ((train, test), (train_before, test_before)) = (protocol.published.unwrap(), protocol.before.unwrap());
                let taken = (train_before - train, test_before - test);
                assert_eq!(taken, (count(Side::Train), count(Side::Test)), "{set}, {name}");
                assert_eq!(train_before + test_before, whole);
            }
        }
    }

    #[test]
    fn whole_copies_are_counted_so() {
        for (file, splits) in [("utd_mhad", 1), ("msr_action3d", 1), ("nw_ucla", 1), ("jhmdb14", 3)] {
            let Some(path) = shared("counts::whole_copies_are_counted_so", &format!("data/{file}.safetensors")) else { continue };
            let archive = ClipArchive::read(&path).unwrap();
            let known = COUNTS.iter().find(|known| known.set == archive.name).unwrap();
            assert_eq!((known.clips, known.protocols.len()), (archive.clips.len(), splits));
            for split in known.protocols {
                let test = archive.splits[split.protocol].iter().filter(|test| **test).count();
                assert_eq!(split.counts, (archive.clips.len() - test, test), "{file}, {}", split.protocol);
            }
            // As an archive that is converted again.
            let set = scan(Format::Archive, &[path]).unwrap();
            assert_eq!(set.published_clips, Some(known.clips));
            assert!(set.protocols.values().all(|protocol| protocol.published.is_some()), "{file}");
        }
    }

    #[test]
    fn the_list_of_activities_of_smarthome_has_as_many_clips() {
        let Some(path) = shared("counts::the_list_of_activities_of_smarthome_has_as_many_clips", "reference/smarthome.json") else {
            return;
        };
        let text = std::fs::read_to_string(path).unwrap();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sum: u64 = list["video_counts"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(COUNTS.iter().find(|known| known.set == "smarthome").unwrap().clips as u64, sum);
    }
}
