//! Replacing a file in one step: whoever looks sees the old one or the new one, whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes gathered before a system call.
const BUFFER: usize = 1 << 20;

/// Writes a file by `write` beside `path` under a temporary name, syncs it, renames it over `path` and syncs the folder. On any error, a panic of
/// `write` included, the temporary file is removed and what was at `path` stays as it was. A symbolic link at `path` is itself replaced.
///
/// # Errors
/// [`Error::Io`] with `path` for whatever the system or `write` reports.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let (temporary, file) = create_beside(path).map_err(Error::io(path))?;
    let guard = RemoveOnDrop(&temporary);
    let mut out = BufWriter::with_capacity(BUFFER, file);
    write(&mut out).map_err(Error::io(path))?;
    let file = out.into_inner().map_err(|e| Error::io(path)(e.into_error()))?;
    file.sync_all().map_err(Error::io(path))?;
    drop(file); // Windows renames closed files only
    fs::rename(&temporary, path).map_err(Error::io(path))?;
    std::mem::forget(guard); // there is no temporary file any more
    sync_folder(path).map_err(Error::io(path))
}

/// A new file in the folder of `path`, so that the rename stays within one file system.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name"))?;
    loop {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let temporary = path.with_file_name(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            // Left by a killed process that had this process's number.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // An error is being reported already; a temporary file that cannot be removed does no harm.
        let _ = fs::remove_file(self.0);
    }
}

/// Makes the rename last through a power cut.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file; the rename is durable when the system says so.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<OsString> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for content in ["a long first content", "second"] {
            replace_file(&path, |out| out.write_all(content.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_failing_writer_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let result = replace_file(&path, |out| {
            out.write_all(&vec![1; 3 * BUFFER])?;
            Err(io::Error::other("disk full"))
        });
        assert!(matches!(result, Err(Error::Io { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_panicking_writer_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let path_in = path.clone();
        let result = std::panic::catch_unwind(move || replace_file(&path_in, |_| panic!("a test's panic")));
        assert!(result.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_rename_that_fails_removes_the_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("kept"), "kept").unwrap();
        assert!(matches!(replace_file(&path, |out| out.write_all(b"new")), Err(Error::Io { .. })));
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(fs::read_to_string(path.join("kept")).unwrap(), "kept");
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(replace_file(&folder.path().join("none/a"), |_| Ok(())), Err(Error::Io { .. })));
        assert!(matches!(replace_file(Path::new("/"), |_| Ok(())), Err(Error::Io { .. })));
    }
}
