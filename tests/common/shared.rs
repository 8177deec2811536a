//! The folder with the real data and the goldens.

use std::path::PathBuf;

/// A file of the shared folder (`LLMAR_SHARED`, or `shared` beside the repository); when it is absent, says so and returns `None`.
pub fn shared(test: &str, file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("LLMAR_SHARED").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")));
    let path = folder.join(file);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED {test}: {} is missing", path.display());
    None
}
