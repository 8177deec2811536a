//! The GPU of the tests: a real one where `LLMAR_TEST_GPU` is set, otherwise the emulator of `tests/cuda_emu`, built once and found by this process
//! and the programs it starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Whether the tests run on a real GPU.
pub fn is_real() -> bool {
    std::env::var_os("LLMAR_TEST_GPU").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Folder of the stand-ins for libcuda, libnvrtc and libcublasLt; built at the first call.
#[allow(dead_code, reason = "shared by several test crates")]
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = root.join("target/cuda_emu");
        let built = Command::new("bash").arg(root.join("tests/cuda_emu/build.sh")).arg(&folder).output().expect("bash");
        assert!(built.status.success(), "the emulator does not build:\n{}", String::from_utf8_lossy(&built.stderr));
        folder.canonicalize().expect("the emulator's folder")
    })
}

/// Makes this process find the emulator where it looks for CUDA; nothing on a real GPU.
#[allow(dead_code, reason = "shared by several test crates")]
pub fn load() {
    static LOADED: OnceLock<()> = OnceLock::new();
    LOADED.get_or_init(|| {
        if is_real() {
            return;
        }
        for library in ["libcuda.so", "libnvrtc.so", "libcublasLt.so"] {
            // SAFETY: the emulator's libraries do nothing when they are loaded. They stay for the process's life, so that a later look-up by the same
            // name (their SONAME) finds them.
            let library = unsafe { libloading::Library::new(folder().join(library)) };
            std::mem::forget(library.expect("a library of the emulator"));
        }
    });
}
