//! cuBLASLt, where its library is installed: matrix products of many rows, beside the kernel of `kernels/gemm.cu`.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use super::memory::Stream;

/// Workspace that it may use, in bytes: what NVIDIA advises for Hopper.
pub(super) const WORKSPACE: usize = 32 << 20;
/// CUBLAS_OP_T.
const TRANSPOSED: i32 = 1;
/// Plans kept before all are made anew.
const PLANS: usize = 256;

/// A handle of the library and the plans made with it.
pub struct Lt {
    handle: sys::cublasLtHandle_t,
    plans: Mutex<HashMap<Key, Plan>>,
}

// SAFETY: NVIDIA documents the handle as usable from several threads.
unsafe impl Send for Lt {}
// SAFETY: as above; the plans are behind a mutex.
unsafe impl Sync for Lt {}

/// One product: y [n, rows] (f32) = or += X [n, ld] · W [rows, ld]ᵀ (f16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub rows: usize,
    pub ld: usize,
    pub n: usize,
    pub add: bool,
}

/// How the library does it. The library's arrays are column-major: it sees W as [ld, rows] to be transposed, X as [ld, n], y as [rows, n].
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    w: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    y: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Lt {
    /// The library, if it is installed and starts.
    pub fn find() -> Option<Self> {
        // SAFETY: loads NVIDIA's library, as every program that uses it does.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        let handle = result::create_handle().ok()?;
        Some(Self { handle, plans: Mutex::default() })
    }

    /// Puts a product on the stream. `Err` where the library has no way to do it.
    ///
    /// # Safety
    /// The addresses hold what `key` says, and [`WORKSPACE`] bytes.
    pub(super) unsafe fn product(&self, stream: &Stream, key: Key, w: u64, x: u64, y: u64, workspace: u64) -> Result<(), CublasError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= PLANS && !plans.contains_key(&key) {
            plans.drain().for_each(|(_, plan)| plan.destroy());
        }
        let plan = match plans.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(Plan::new(self.handle, key)?),
        };
        let (alpha, beta) = (1.0f32, if key.add { 1.0f32 } else { 0.0 });
        let address = |at: u64| at as *mut c_void;
        // SAFETY: the plan's shapes are the key's, the caller's promise covers the rest; the scalars are read before the call returns.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                address(w),
                plan.w,
                address(x),
                plan.x,
                address(y),
                plan.y,
                address(y),
                plan.y,
                &raw const plan.algorithm,
                address(workspace),
                WORKSPACE,
                stream.cuda.cu_stream().cast(),
            )
        }
    }
}

impl Drop for Lt {
    fn drop(&mut self) {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.drain().for_each(|(_, plan)| plan.destroy());
        // SAFETY: made by `find`, used nowhere else. Nothing can be done about a failure here.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Plan {
    fn new(handle: sys::cublasLtHandle_t, key: Key) -> Result<Self, CublasError> {
        use sys::cudaDataType_t::{CUDA_R_16F, CUDA_R_32F};
        let Key { rows, ld, n, .. } = key;
        let description = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, CUDA_R_32F)?;
        let w = result::create_matrix_layout(CUDA_R_16F, ld as u64, rows as u64, ld as i64)?;
        let x = result::create_matrix_layout(CUDA_R_16F, ld as u64, n as u64, ld as i64)?;
        let y = result::create_matrix_layout(CUDA_R_32F, rows as u64, n as u64, rows as i64)?;
        let preference = result::create_matmul_pref()?;
        let transposed = TRANSPOSED;
        // SAFETY: each attribute gets a value of its type; the descriptors were just made.
        let found = unsafe {
            use sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
            use sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            result::set_matmul_desc_attribute(description, CUBLASLT_MATMUL_DESC_TRANSA, (&raw const transposed).cast(), size_of::<i32>())
                .and_then(|()| {
                    let bytes = WORKSPACE;
                    let value = (&raw const bytes).cast();
                    result::set_matmul_pref_attribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, value, size_of::<usize>())
                })
                .and_then(|()| result::get_matmul_algo_heuristic(handle, description, w, x, y, y, preference))
        };
        // SAFETY: used nowhere else.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        match found {
            Ok(found) => Ok(Self { description, w, x, y, algorithm: found.algo }),
            Err(e) => {
                // SAFETY: as above, for what a plan would have held.
                unsafe { destroy(description, [w, x, y]) };
                Err(e)
            }
        }
    }

    fn destroy(self) {
        // SAFETY: a plan is used by `product` alone, under the mutex that gave it away.
        unsafe { destroy(self.description, [self.w, self.x, self.y]) };
    }
}

/// Frees descriptors; nothing can be done about a failure here.
///
/// # Safety
/// They are used nowhere else.
unsafe fn destroy(description: sys::cublasLtMatmulDesc_t, layouts: [sys::cublasLtMatrixLayout_t; 3]) {
    // SAFETY: the caller's promise.
    unsafe {
        let _ = result::destroy_matmul_desc(description);
        for layout in layouts {
            let _ = result::destroy_matrix_layout(layout);
        }
    }
}
