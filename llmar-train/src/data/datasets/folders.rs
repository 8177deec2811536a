//! What data sets without labels of their own share: the name of a folder is the class of its clips, and of many persons the two that show
//! most are kept.

use std::collections::BTreeSet;
use std::path::Path;

use super::Entry;
use crate::error::{Error, Result};

/// Most persons kept of a clip of a pose estimator.
pub(super) const PERSONS: usize = 2;

/// Names of the folder that `path` lies in and of the folder around that: `("wave", "data")` of `data/wave/a.pose`. The second is empty where
/// there is none.
///
/// # Errors
/// A path without a named folder, such as `/a.pose`.
pub(super) fn folders_of(path: &Path) -> Result<(String, String)> {
    let whole = std::path::absolute(path).map_err(Error::io(path))?;
    let name = |folder: &Path| folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let folder =
        whole.parent().and_then(name).ok_or_else(|| Error::format(path.display(), "it lies in no folder whose name is a class"))?;
    let around = whole.parent().and_then(Path::parent).and_then(name).unwrap_or_default();
    Ok((folder, around))
}

/// Class names in order of the alphabet, and the entries with their labels; each clip comes with the name of its class.
pub(super) fn label(clips: Vec<(String, Entry)>) -> (Vec<String>, Vec<Entry>) {
    let classes: Vec<String> = clips.iter().map(|(class, _)| class.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let entries =
        clips.into_iter().map(|(class, entry)| Entry { label: classes.partition_point(|other| *other < class), ..entry }).collect();
    (classes, entries)
}

/// Which persons are kept: the [`PERSONS`] with the largest sums of confidence over the clip (of equal ones the earlier), in their order.
/// Persons without any confidence are not kept.
pub(super) fn main_persons(sums: &[f64]) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..sums.len()).filter(|&person| sums[person] > 0.0).collect();
    kept.sort_by(|&a, &b| sums[b].total_cmp(&sums[a])); // stable
    kept.truncate(PERSONS);
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_who_show_most_are_kept_in_their_order() {
        assert_eq!(main_persons(&[1.0, 3.0, 2.0]), [1, 2]);
        assert_eq!(main_persons(&[4.0, 3.0, 3.0]), [0, 1]);
        assert_eq!(main_persons(&[0.0, 0.5]), [1]);
        assert!(main_persons(&[]).is_empty());
    }

    #[test]
    fn labels_follow_the_sorted_names_of_the_folders() {
        let clip = |class: &str| (class.to_owned(), Entry { name: class.into(), ..Entry::default() });
        let (classes, entries) = label(vec![clip("wave"), clip("bow"), clip("wave"), clip("run")]);
        assert_eq!(classes, ["bow", "run", "wave"]);
        assert_eq!(entries.iter().map(|e| e.label).collect::<Vec<_>>(), [2, 0, 2, 1]);
    }

    #[test]
    fn folders_are_named_or_refused() {
        assert_eq!(folders_of(Path::new("/data/wave/a.pose")).unwrap(), ("wave".into(), "data".into()));
        assert_eq!(folders_of(Path::new("/wave/a.pose")).unwrap(), ("wave".into(), String::new()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(folders_of(Path::new("a.pose")).unwrap().0, here.file_name().unwrap().to_string_lossy());
        assert!(folders_of(Path::new("/a.pose")).unwrap_err().to_string().contains("/a.pose"));
    }
}
