//! The real language model of the tests.

use std::path::{Path, PathBuf};

/// The GGUF file of SmolLM2-135M: `LLMAR_SMOLLM2_GGUF`, or where `make fetch` puts it; `None`, after saying so, where it is not.
pub fn gguf(test: &str) -> Option<PathBuf> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/demo/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("LLMAR_SMOLLM2_GGUF").map_or(demo, PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED {test}: {} is missing", path.display());
    None
}
