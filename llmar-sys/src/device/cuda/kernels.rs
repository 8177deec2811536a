//! The compiled kernels: from cubins inside this library, from a cache, or from the run-time compiler (NVRTC) where it is installed.
//!
//! All kernels are one program, `#include "a.cu"` for every file of `llmar-sys/kernels` in the order of their names. `make kernels` compiles it for
//! each architecture, and the build script embeds what it finds, if it was made from the same sources.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaModule};
use cudarc::nvrtc::{Ptx, result, sys};
use sha2::{Digest, Sha256};

use crate::error::{Error, Missing, Result};

// `SOURCES: &[(&str, &str)]`, every file of the folder by name, and `CUBINS: &[(i32, &[u8])]` by compute capability (80 is 8.0), ascending.
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Folder of compiled kernels, instead of the user's cache.
const CACHE_VARIABLE: &str = "LLMAR_KERNEL_CACHE";

/// Loads the kernels for a compute capability.
pub(super) fn load(
    context: &Arc<CudaContext>,
    (major, minor): (i32, i32),
    no: impl Fn(Missing, String) -> Error,
) -> Result<Arc<CudaModule>> {
    // A cubin runs on every later minor version of its major one.
    let embedded = CUBINS.iter().rev().find(|(of, _)| of / 10 == major && of % 10 <= minor);
    let refused = |detail: String| no(Missing::Kernels, detail);
    if let Some((_, cubin)) = embedded {
        return context
            .load_module(Ptx::from_binary(cubin.to_vec()))
            .map_err(|e| refused(format!("the embedded kernels do not load: {e:?}")));
    }
    let architecture = format!("sm_{major}{minor}");
    // SAFETY: loads the compiler's library, as every program that compiles at run time does.
    if !unsafe { sys::is_culib_present() } {
        let known: Vec<_> = CUBINS.iter().map(|(of, _)| format!("sm_{of}")).collect();
        let held = if known.is_empty() { "no kernels".into() } else { format!("kernels for {}", known.join(", ")) };
        let detail = format!("this library holds {held}, none for {architecture}, and the run-time compiler (libnvrtc) is not installed");
        return Err(refused(detail));
    }
    let options = options(&architecture);
    let cached = cache_file(&options);
    if let Some(file) = &cached
        && let Ok(cubin) = std::fs::read(file)
        && let Ok(module) = context.load_module(Ptx::from_binary(cubin))
    {
        return Ok(module);
    }
    let cubin =
        compile(&options).map_err(|detail| refused(format!("libnvrtc does not compile the kernels for {architecture}: {detail}")))?;
    if let Some(file) = cached {
        keep(&file, &cubin);
    }
    context.load_module(Ptx::from_binary(cubin)).map_err(|e| refused(format!("the kernels compiled for {architecture} do not load: {e:?}")))
}

/// As in `kernels/build.py`.
fn options(architecture: &str) -> Vec<String> {
    vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()]
}

/// The one program.
fn program() -> String {
    SOURCES.iter().filter(|(name, _)| name.ends_with(".cu")).map(|(name, _)| format!("#include \"{name}\"\n")).collect()
}

/// Compiles the program to a cubin. `Err` carries the compiler's words.
fn compile(options: &[String]) -> std::result::Result<Vec<u8>, String> {
    let text = |s: &str| CString::new(s).map_err(|e| e.to_string());
    let source = text(&program())?;
    let files = SOURCES.iter().map(|(name, body)| Ok((text(name)?, text(body)?))).collect::<std::result::Result<Vec<_>, String>>()?;
    let names: Vec<*const c_char> = files.iter().map(|(name, _)| name.as_ptr()).collect();
    let bodies: Vec<*const c_char> = files.iter().map(|(_, body)| body.as_ptr()).collect();
    let mut made = std::ptr::null_mut();
    // SAFETY: as many names as bodies, all NUL-terminated; the compiler copies them.
    unsafe {
        sys::nvrtcCreateProgram(&raw mut made, source.as_ptr(), c"llmar.cu".as_ptr(), files.len() as i32, bodies.as_ptr(), names.as_ptr())
    }
    .result()
    .map_err(|e| format!("{e:?}"))?;
    // SAFETY: `made` is a program until it is destroyed below.
    let compiled = unsafe { result::compile_program(made, options) };
    let cubin = match compiled {
        Ok(()) => cubin_of(made).map_err(|e| format!("{e:?}")),
        // SAFETY: as above.
        Err(e) => Err(match unsafe { result::get_program_log(made) } {
            // SAFETY: the compiler ends its log with a NUL.
            Ok(log) if log.last() == Some(&0) => unsafe { CStr::from_ptr(log.as_ptr()) }.to_string_lossy().into_owned(),
            _ => format!("{e:?}"),
        }),
    };
    // SAFETY: it is not used any more. A failure to free it is no failure to compile.
    let _ = unsafe { result::destroy_program(made) };
    cubin
}

fn cubin_of(made: sys::nvrtcProgram) -> std::result::Result<Vec<u8>, result::NvrtcError> {
    let mut len = 0;
    // SAFETY: a compiled program; one number is written.
    unsafe { sys::nvrtcGetCUBINSize(made, &raw mut len) }.result()?;
    let mut cubin = vec![0u8; len];
    // SAFETY: so many bytes are written.
    unsafe { sys::nvrtcGetCUBIN(made, cubin.as_mut_ptr().cast()) }.result()?;
    Ok(cubin)
}

/// Where kernels compiled from these sources with these options are kept; `None` where there is no place for a cache.
fn cache_file(options: &[String]) -> Option<PathBuf> {
    let folder = std::env::var_os(CACHE_VARIABLE).map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).map(|cache| cache.join("llmar"))
    })?;
    let mut hash = Sha256::new();
    let (mut major, mut minor) = (0, 0);
    // SAFETY: two integers are written.
    let _ = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    hash.update(format!("{major}.{minor} {options:?}\n"));
    for (name, body) in SOURCES {
        hash.update(format!("{name} {}\n{body}", body.len()));
    }
    let digest: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Some(folder.join(format!("kernels-{digest}.cubin")))
}

/// Keeps compiled kernels for the next process. A cache that cannot be written is not an error.
fn keep(file: &std::path::Path, cubin: &[u8]) {
    let Some(folder) = file.parent() else { return };
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&part, cubin)).and_then(|()| std::fs::rename(&part, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
}
