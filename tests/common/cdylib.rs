//! libllmar.so as C programs link it, and those programs.

// Every test crate that includes this file uses another part of it.
#![allow(dead_code, reason = "shared by several test crates")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder that holds `libllmar.so` and, as its SONAME asks, `libllmar.so.0`.
///
/// `cargo test` compiles the library as every crate type at once, so the shared one lies beside this test. Where a runner does without, it is
/// built now, into the target folder and profile of the running test.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // target / profile / deps / this test
        let test = std::env::current_exe().unwrap();
        let deps = test.parent().unwrap();
        let profile = deps.parent().unwrap();
        if !deps.join("libllmar.so").exists() {
            let name = profile.file_name().unwrap().to_str().unwrap();
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["build", "--quiet", "-p", "llmar-sys", "--lib", "--profile", if name == "debug" { "test" } else { name }]);
            cargo.arg("--target-dir").arg(profile.parent().unwrap()).current_dir(root());
            run(&mut cargo);
        }
        let folder = profile.join("abi");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["libllmar.so", "libllmar.so.0"] {
            // Another test may have made it already, or be making it now.
            let _ = std::os::unix::fs::symlink("../deps/libllmar.so", folder.join(name));
            assert!(folder.join(name).exists(), "{} leads nowhere", folder.join(name).display());
        }
        folder
    })
}

/// Whether `program` can be run here.
pub fn have(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs a command to its end; panics with what it printed unless it succeeds, and returns that, stdout first.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// How a C or C++ program is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// With AddressSanitizer and UndefinedBehaviorSanitizer: faults end the program.
    Sanitized,
    /// For valgrind.
    Plain,
}

/// Compiles `sources` (of the repository, the first names the program; C++ when that ends in `.cpp`) into `folder` against
/// include/llmar.h and the shared library.
pub fn compile(sources: &[&str], folder: &Path, build: Build) -> PathBuf {
    let source = Path::new(sources[0]);
    let cpp = source.extension().is_some_and(|extension| extension == "cpp");
    let out = folder.join(source.file_stem().unwrap());
    let mut compiler = Command::new(if cpp { "c++" } else { "cc" });
    compiler.args(if cpp { &["-std=c++17"][..] } else { &["-std=c11", "-Wstrict-prototypes"] });
    compiler.args(["-g", "-O1", "-Wall", "-Wextra", "-pedantic", "-Werror", "-pthread"]);
    if build == Build::Sanitized {
        compiler.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]);
    }
    for folder in ["include", "examples/c", "bindings/cpp"] {
        compiler.arg("-I").arg(root().join(folder));
    }
    compiler.args(sources.iter().map(|source| root().join(source)));
    compiler.arg("-o").arg(&out).arg("-L").arg(self::folder()).arg("-lllmar").arg("-lm");
    compiler.arg(format!("-Wl,-rpath,{}", self::folder().display()));
    run(&mut compiler);
    out
}
