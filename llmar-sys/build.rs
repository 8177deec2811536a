//! Gives the shared library its SONAME, so that a program keeps to the ABI it was linked against, and lists the CUDA kernels for the runtime.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Folder of cubins, instead of `target/kernels`, where `make kernels` leaves them.
const CUBINS_VARIABLE: &str = "LLMAR_CUBINS";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // The number is LLMAR_ABI_MAJOR of src/ffi/version.rs; a test compares them.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libllmar.so.0");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        kernels()?;
    }
    Ok(())
}

/// Writes `kernels.rs`: every source of `kernels/`, and the cubins that were made from just these sources.
fn kernels() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let sources = files(&root.join("kernels"), &["cu", "cuh"])?;
    println!("cargo::rerun-if-changed={}", root.join("kernels").display());
    println!("cargo::rerun-if-env-changed={CUBINS_VARIABLE}");
    let folder = env::var_os(CUBINS_VARIABLE).map_or_else(|| root.join("../target/kernels"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", folder.join("sources.txt").display());

    let mut all = String::new();
    let mut text = String::from("pub(super) const SOURCES: &[(&str, &str)] = &[\n");
    for path in &sources {
        let (name, body) = (name_of(path), fs::read_to_string(path)?);
        let _ = write!(all, "{name} {}\n{body}", body.len());
        let _ = writeln!(text, "    ({name:?}, include_str!({:?})),", path.display().to_string());
    }
    text.push_str("];\npub(super) const CUBINS: &[(i32, &[u8])] = &[\n");
    match fs::read_to_string(folder.join("sources.txt")) {
        Ok(made_from) if made_from == all => {
            for path in files(&folder, &["cubin"])? {
                // The code of 8.6 runs on 8.7 and 8.9 as well: three of a kind would make the library larger than all else in it.
                if ["sm_87.cubin", "sm_89.cubin"].contains(&&*name_of(&path)) && folder.join("sm_86.cubin").exists() {
                    continue;
                }
                if let Some(capability) = name_of(&path).strip_prefix("sm_").and_then(|n| n.strip_suffix(".cubin")?.parse::<i32>().ok()) {
                    let _ = writeln!(text, "    ({capability}, include_bytes!({:?})),", path.display().to_string());
                }
            }
        }
        Ok(_) => println!("cargo::warning=the cubins in {} are of other sources and are left out: run `make kernels`", folder.display()),
        Err(_) => {} // none were made
    }
    text.push_str("];\n");
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("kernels.rs"), text)
}

/// Files of a folder with one of these extensions, sorted by name.
fn files(folder: &Path, extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
