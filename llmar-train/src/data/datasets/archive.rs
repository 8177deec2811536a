//! Clip archives as a source: several of one layout become one, their classes joined by the text of the labels. They stand in the order in
//! which they are given, those of a folder by path.
//!
//! - Classes: all label texts, in the order in which they are first seen.
//! - Subjects: those of archive i are moved by i × 1000 (by the next multiple of 1000 where a number is larger), so that no two archives
//!   share one. Numbers below zero say nothing and are dropped.
//! - Splits: those that every archive has.
//! - Rate: where all agree within 1 %.
//!
//! An archive's clips are found all at once, and `read` is asked for one after another: the last two archives are kept open, by path, size and time of
//! change. Two, because workers at the border of two archives ask for both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use llmar::formats::ClipArchive;
use llmar::skeleton::{Layout, MAX_NAME, builtin_layouts};

use super::bvh::one_rate;
use super::{Body, Entry, Outcome, Protocol, Set, Side, files};
use crate::error::{Error, Result};

/// Archives kept.
const KEPT: usize = 2;
/// What keeps subjects of archives apart.
const APART: i64 = 1000;

/// An archive, and what its file was like.
struct Parsed {
    path: PathBuf,
    bytes: u64,
    changed: Option<SystemTime>,
    archive: Arc<ClipArchive>,
}

static PARSED: Mutex<Vec<Parsed>> = Mutex::new(Vec::new());

/// What is known of an archive when its clips are let go.
struct About {
    path: PathBuf,
    name: String,
    layout: Layout,
    coords: usize,
    splits: BTreeMap<String, Vec<bool>>,
    clips: usize,
}

pub(super) fn scan(sources: &[PathBuf]) -> Result<Set> {
    let mut set = Set { coordinates: "as in the archives pooled", ..Set::default() };
    let (mut archives, mut rates): (Vec<About>, Vec<Option<f64>>) = (Vec::new(), Vec::new());
    let mut paths: Vec<PathBuf> = Vec::new();
    for source in sources {
        for path in files(std::slice::from_ref(source), ".safetensors")? {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    for path in paths {
        let archive = parsed(&path)?;
        let Some(clip) = archive.clips.first() else { continue };
        let about = About {
            layout: Layout::find(&archive.layout)?,
            coords: clip.coords,
            name: archive.name.clone(),
            splits: archive.splits.clone(),
            clips: archive.clips.len(),
            path,
        };
        if let Some(first) = archives.first() {
            same_layout(&about, first)?;
        }
        set.persons = set.persons.max(clip.persons);
        rates.push(archive.fps.map(f64::from));
        let labels: Vec<usize> = archive.classes.iter().map(|class| label_of(&mut set.classes, class)).collect();
        for (index, clip) in archive.clips.iter().enumerate() {
            set.entries.push(Entry {
                name: clip.name.clone(),
                path: about.path.clone(),
                index,
                label: labels[archive.labels[index]],
                subject: archive.subjects.get(index).copied().filter(|subject| *subject >= 0),
                camera: archive.cameras.get(index).copied(),
            });
        }
        archives.push(about);
    }
    let Some(first) = archives.first() else { return Ok(set) };
    set.coords = first.coords;
    set.joints = first.layout.joints.clone();
    if !builtin_layouts().iter().any(|layout| layout.name == first.layout.name) {
        let parent = |parent: &Option<usize>| parent.map_or(-1, |parent| parent as i64);
        // A layout of a name list alone has no parents at all: then they are unknown.
        let known = first.layout.parents.iter().any(Option::is_some);
        set.parents = if known { first.layout.parents.iter().map(parent).collect() } else { Vec::new() };
    }
    let rates: Option<Vec<f64>> = rates.into_iter().collect();
    set.fps = rates.and_then(|rates| one_rate(&rates));
    set.name = name_of(&archives);
    move_subjects(&mut set.entries, &archives)?;
    set.protocols = shared_splits(&archives);
    Ok(set)
}

pub(super) fn read(entry: &Entry) -> Result<Outcome> {
    let archive = parsed(&entry.path)?;
    let clip = archive.clips.get(entry.index).ok_or_else(|| {
        let detail = format!("expected clip {}, got {} clips: changed since it was searched", entry.index, archive.clips.len());
        Error::format(entry.path.display(), detail)
    })?;
    if clip.frames == 0 {
        return Ok(Outcome::Dropped("no frame".into()));
    }
    let valid = clip.valid.as_ref().map(|valid| valid.to_vec());
    Ok(Outcome::Clip(Body { joints: clip.joints.to_vec(), frames: clip.frames, persons: clip.persons, valid }))
}

/// An archive of this process's memory. Others wait while one is parsed: they would mostly parse the same.
fn parsed(path: &Path) -> Result<Arc<ClipArchive>> {
    kept_or_read(&mut PARSED.lock().unwrap_or_else(PoisonError::into_inner), path)
}

/// An archive from `kept` where it is the one that was parsed, else from its file, kept then.
fn kept_or_read(kept: &mut Vec<Parsed>, path: &Path) -> Result<Arc<ClipArchive>> {
    let file = std::fs::metadata(path).map_err(Error::io(path))?;
    let (bytes, changed) = (file.len(), file.modified().ok());
    if let Some(known) = kept.iter().find(|p| p.path == path && p.bytes == bytes && changed.is_some() && p.changed == changed) {
        return Ok(Arc::clone(&known.archive));
    }
    kept.retain(|parsed| parsed.path != path);
    kept.truncate(KEPT - 1); // before the next is there, so that no more than these are open
    let archive = Arc::new(ClipArchive::read(path)?);
    kept.insert(0, Parsed { path: path.to_path_buf(), bytes, changed, archive: Arc::clone(&archive) });
    Ok(archive)
}

/// The label of a class, which is added where it is new.
fn label_of(classes: &mut Vec<String>, class: &str) -> usize {
    classes.iter().position(|known| known == class).unwrap_or_else(|| {
        classes.push(class.to_owned());
        classes.len() - 1
    })
}

fn same_layout(about: &About, first: &About) -> Result<()> {
    let wrong = |detail: String| Err(Error::format(about.path.display(), format!("{detail}, as in {}", first.path.display())));
    let (got, expected) = (&about.layout.joints, &first.layout.joints);
    if !first.layout.has_joints(got) {
        let same = |a: &String, b: &String| Layout::new("one", &[a]).is_ok_and(|one| one.has_joints(&[b])); // synonyms are the same
        let at = got.iter().zip(expected).position(|(a, b)| !same(a, b)).unwrap_or(got.len().min(expected.len()));
        let name = |names: &[String]| names.get(at).map_or("none".to_owned(), |name| format!("`{name}`"));
        return wrong(format!("joint {at}: expected {}, got {}", name(expected), name(got)));
    }
    if about.coords != first.coords {
        return wrong(format!("expected {} coordinates, got {}", first.coords, about.coords));
    }
    Ok(())
}

/// The archives' names, or `pooled` where that is too long for a layout's name.
fn name_of(archives: &[About]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for about in archives {
        if !names.contains(&about.name.as_str()) {
            names.push(&about.name);
        }
    }
    let name = names.join("+");
    if name.len() <= MAX_NAME { name } else { "pooled".into() }
}

/// Makes subjects of different archives different.
fn move_subjects(entries: &mut [Entry], archives: &[About]) -> Result<()> {
    let largest = entries.iter().filter_map(|entry| entry.subject).max().unwrap_or(0);
    let mut entries = entries.iter_mut();
    for (index, about) in archives.iter().enumerate() {
        let shift = (largest / APART).checked_add(1).and_then(|steps| steps.checked_mul(APART)?.checked_mul(index as i64));
        for entry in entries.by_ref().take(about.clips) {
            let Some(subject) = entry.subject else { continue };
            let moved = shift.and_then(|shift| shift.checked_add(subject));
            let moved = moved.ok_or_else(|| Error::format(about.path.display(), format!("a subject of the pool is numbered {largest}")))?;
            entry.subject = Some(moved);
        }
    }
    Ok(())
}

/// Splits that every archive has.
fn shared_splits(archives: &[About]) -> BTreeMap<String, Protocol> {
    let Some(first) = archives.first() else { return BTreeMap::new() };
    let side = |test: &bool| if *test { Side::Test } else { Side::Train };
    let whole = |name: &String| {
        let flags: Option<Vec<&Vec<bool>>> = archives.iter().map(|about| about.splits.get(name)).collect();
        let sides = flags?.into_iter().flatten().map(side).collect();
        Some((name.clone(), Protocol::of(sides)))
    };
    first.splits.keys().filter_map(whole).collect()
}

#[cfg(test)]
mod tests;
