//! include/llmar.h: made from the sources, and clean C and C++ on its own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of src/ffi with something public in them, in the order in which the header shall have them.
const SOURCES: [&str; 11] = [
    "version.rs",
    "status.rs",
    "last_error.rs",
    "log.rs",
    "types.rs",
    "stream_types.rs",
    "model.rs",
    "recognizer.rs",
    "stream.rs",
    "cancel.rs",
    "layout.rs",
];

fn generate() -> String {
    let package = root().join("llmar-sys");
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).unwrap();
    let builder =
        SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |b, file| b.with_src(package.join("src/ffi").join(file)));
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    let mut header = String::from_utf8(header).unwrap();
    header.truncate(header.trim_end().len());
    header.push('\n');
    header
}

#[test]
fn header_is_what_the_sources_say() {
    let (path, fresh) = (root().join("include/llmar.h"), generate());
    if std::env::var_os("LLMAR_UPDATE_HEADER").is_some() {
        fs::write(&path, &fresh).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let line =
        committed.lines().zip(fresh.lines()).position(|(a, b)| a != b).unwrap_or(committed.lines().count().min(fresh.lines().count()));
    assert!(committed == fresh, "include/llmar.h is stale from line {} on; refresh it with `make header`", line + 1);
}

/// Compiles one file that only includes the header, as each language.
#[test]
fn header_compiles_alone_as_every_language() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("llmar.h"), generate()).unwrap();
    for (compiler, standard, extension, extra) in [
        ("cc", "c99", "c", &["-Wstrict-prototypes", "-Wmissing-prototypes"][..]),
        ("cc", "c11", "c", &["-Wstrict-prototypes", "-Wmissing-prototypes"]),
        ("c++", "c++11", "cpp", &["-Wold-style-cast"]),
        ("c++", "c++17", "cpp", &["-Wold-style-cast"]),
    ] {
        let source = folder.path().join(format!("alone.{extension}"));
        fs::write(&source, "#include \"llmar.h\"\n#include \"llmar.h\"\n").unwrap();
        let output = Command::new(compiler)
            .arg(format!("-std={standard}"))
            .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-Wconversion", "-Wundef", "-fsyntax-only"])
            .args(extra)
            .arg(&source)
            .output()
            .unwrap();
        assert!(output.status.success(), "{compiler} -std={standard}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The conventions that a reader of the header relies on.
#[test]
fn every_function_states_its_rules() {
    let header = generate();
    let mut faults = String::new();
    let mut functions = 0;
    for (at, _) in header.match_indices("(") {
        let line_start = header[..at].rfind('\n').map_or(0, |n| n + 1);
        let Some(name) = header[line_start..at].split_whitespace().last().map(|word| word.trim_start_matches('*')) else { continue };
        let declaration = !header[line_start..].starts_with([' ', '#', '/']) && name.starts_with("llmar_");
        if !declaration || header[line_start..].starts_with("typedef") {
            continue;
        }
        functions += 1;
        let comment_start = header[..line_start].rfind("/**").unwrap_or(0);
        let comment = &header[comment_start..line_start];
        for rule in ["Threads:", "Errors:"] {
            if !comment.trim_end().ends_with("*/") || comment.matches("*/").count() != 1 || !comment.contains(rule) {
                writeln!(faults, "{name}: no `{rule}`").unwrap();
            }
        }
    }
    assert!(functions >= 29 && faults.is_empty(), "{functions} functions\n{faults}");
}
