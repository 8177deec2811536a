//! Gives the shared library its SONAME, so that a program keeps to the ABI it was linked against.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // The number is LLMAR_ABI_MAJOR of src/ffi/version.rs; a test compares them.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libllmar.so.0");
    }
}
