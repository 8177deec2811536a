//! What the process needs from the system before libtorch runs well. Three C calls, unsafe each.

/// Loads libtorch's CUDA half, so that one binary serves machines with and without a GPU: libtorch sees a GPU only when that library is
/// in the process before the first call. It is never linked, since its own dependencies are missing on CPU machines.
#[cfg(unix)]
pub fn load_torch_cuda() -> Result<(), String> {
    use std::ffi::{CStr, c_char, c_int, c_void};
    unsafe extern "C" {
        fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }
    const RTLD_NOW: c_int = 2;
    #[cfg(target_os = "linux")]
    const RTLD_GLOBAL: c_int = 0x100;
    #[cfg(not(target_os = "linux"))]
    const RTLD_GLOBAL: c_int = 8;
    let name = if cfg!(target_os = "macos") { c"libtorch_cuda.dylib" } else { c"libtorch_cuda.so" };
    // SAFETY: `name` is a C string; the library's initialisers are libtorch's own, made to run inside dlopen. The handle is kept open for
    // the life of the process.
    if !unsafe { dlopen(name.as_ptr(), RTLD_NOW | RTLD_GLOBAL) }.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror returns null or a C string that stays valid until the next dl call of this thread; it is copied at once.
    let detail = unsafe {
        let text = dlerror();
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Err(detail)
}

/// Elsewhere libtorch's own loading is all there is.
#[cfg(not(unix))]
pub fn load_torch_cuda() -> Result<(), String> {
    Ok(())
}

/// Tells glibc to keep freed memory: by default every large tensor is mapped and unmapped anew, and the page faults double the time of
/// convolutions on the CPU. Nothing on other systems.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_freed_memory() {
    use std::ffi::c_int;
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    // SAFETY: mallopt takes two plain numbers and may be called at any time; it returns 0 when it refuses a value, which costs speed only.
    unsafe {
        mallopt(M_TRIM_THRESHOLD, c_int::MAX);
        mallopt(M_MMAP_THRESHOLD, 1 << 30);
    }
}

/// Nothing to do.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_memory() {}
