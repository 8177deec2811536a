//! The handshake between a header and a library.

use std::ffi::c_char;

/// Major number of the ABI that this header describes. It is also the number in the library's SONAME. Another major number: do not call.
pub const LLMAR_ABI_MAJOR: u32 = 0;

/// Minor number of the ABI that this header describes. It grows when functions, constants or struct fields are added.
pub const LLMAR_ABI_MINOR: u32 = 5;

/// ABI version of the library that is loaded: major * 65536 + minor.
///
/// A program works with a library whose major number equals its header's LLMAR_ABI_MAJOR and whose minor number is at least
/// LLMAR_ABI_MINOR. Bindings that load the library at run time check this before any other call.
///
/// Threads: any. Errors: none.
#[unsafe(no_mangle)]
pub extern "C" fn llmar_abi_version() -> u32 {
    LLMAR_ABI_MAJOR << 16 | LLMAR_ABI_MINOR
}

/// Version of the library as text, for example "0.1.0". Static, never NULL, not to be freed.
///
/// Threads: any. Errors: none.
#[unsafe(no_mangle)]
pub extern "C" fn llmar_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
