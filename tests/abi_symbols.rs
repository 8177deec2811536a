//! What libllmar.so shows to the linker: the functions of the header, nothing else, under its SONAME.

#![cfg(target_os = "linux")]

#[path = "common/cdylib.rs"]
mod cdylib;

use std::collections::BTreeSet;
use std::process::Command;

use cdylib::{folder, have, root, run};

/// Names that stand before a parenthesis at the start of a declaration.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(root().join("include/llmar.h")).unwrap();
    let name = |line: &str| {
        let declaration = line.starts_with(|c: char| c.is_ascii_lowercase()) && !line.starts_with("typedef");
        let head = line.split_once('(').filter(|_| declaration)?.0;
        Some(head.rsplit([' ', '*']).next()?.to_owned())
    };
    header.lines().filter_map(name).collect()
}

#[test]
fn library_exports_the_header_and_nothing_else() {
    if !have("nm") {
        return println!("SKIPPED library_exports_the_header_and_nothing_else: nm is missing");
    }
    let listing = run(Command::new("nm").args(["-D", "--defined-only"]).arg(folder().join("libllmar.so")));
    let exported: BTreeSet<String> = listing.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    assert!(exported.len() >= 29);
    assert_eq!(exported, declared());
}

#[test]
fn soname_is_the_major_number_of_the_abi() {
    if !have("readelf") {
        return println!("SKIPPED soname_is_the_major_number_of_the_abi: readelf is missing");
    }
    let dynamic = run(Command::new("readelf").arg("-d").arg(folder().join("libllmar.so")));
    let expected = format!("Library soname: [libllmar.so.{}]", llmar::ffi::LLMAR_ABI_MAJOR);
    assert!(dynamic.contains(&expected), "{dynamic}");
}
