//! Opening a GPU: which of the things it needs are there, and what its driver's errors mean.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, result};

use super::kernels;
use super::lt::Lt;
use super::products::{GemmChoice, GemmTimes};
use crate::error::{Error, Missing, Result};
use crate::memory::Budget;

/// Oldest driver whose symbols are used: CUDA 11.4.
const OLDEST_DRIVER: i32 = 11_040;
/// Oldest architecture with kernels: Turing.
const OLDEST_CAPABILITY: (i32, i32) = (7, 5);

/// One GPU, opened for one model: its context, its kernels and what its memory is counted against.
pub struct Gpu {
    context: Arc<CudaContext>,
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<&'static str, CudaFunction>>,
    ordinal: u32,
    name: String,
    capability: (i32, i32),
    /// Most dynamic shared memory of a block, in bytes.
    shared_memory: u32,
    multiprocessors: u32,
    budget: Arc<Budget>,
    /// cuBLASLt, where its library is installed.
    pub(super) lt: Option<Lt>,
    /// Who multiplies many rows.
    pub(super) gemm: GemmChoice,
    /// Which product is the faster one, by shape.
    pub(super) gemm_times: Mutex<GemmTimes>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("place", &self.place())
            .field("name", &self.name)
            .field("capability", &self.capability)
            .finish_non_exhaustive()
    }
}

impl Gpu {
    /// Opens GPU `ordinal` and loads its kernels.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with what is missing; [`Error::DeviceFault`] when the driver fails.
    pub fn open(ordinal: u32, budget: Arc<Budget>) -> Result<Arc<Self>> {
        let no = |missing, detail: String| Error::NoDevice { device: format!("cuda:{ordinal}"), missing, detail };
        // SAFETY: loads the driver's library, as every CUDA program does.
        if !unsafe { sys::is_culib_present() } {
            return Err(no(Missing::Driver, "no CUDA driver library is installed".into()));
        }
        result::init().map_err(|e| match e.0 {
            CUresult::CUDA_ERROR_NO_DEVICE => no(Missing::Gpu, "the driver sees no GPU".into()),
            _ => no(Missing::Driver, format!("the CUDA driver does not start: {}", text(e))),
        })?;
        let version =
            driver_version().map_err(|e| no(Missing::Driver, format!("the CUDA driver does not tell its version: {}", text(e))))?;
        if version < OLDEST_DRIVER {
            let detail = format!("expected a driver of CUDA {} or newer, got CUDA {}", dotted(OLDEST_DRIVER), dotted(version));
            return Err(no(Missing::NewerDriver, detail));
        }
        let count = result::device::get_count().unwrap_or(0).max(0);
        if i64::from(ordinal) >= i64::from(count) {
            return Err(no(Missing::Gpu, format!("expected a number below {count}, the GPUs that the driver sees")));
        }
        let fault = |call, e| fault(ordinal, call, e);
        let context = CudaContext::new(ordinal as usize).map_err(|e| fault("opening the context", e))?;
        // SAFETY: every buffer is used on the stream it was made for, or was written completely before another stream reads it: no events are needed.
        unsafe { context.disable_event_tracking() };
        let attribute = |a| context.attribute(a).map_err(|e| fault("reading its properties", e));
        let capability = context.compute_capability().map_err(|e| fault("reading its properties", e))?;
        if capability < OLDEST_CAPABILITY {
            let (major, minor) = capability;
            return Err(no(Missing::Architecture, format!("expected compute capability 7.5 or newer, got {major}.{minor}")));
        }
        let shared_memory = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let name = context.name().map_err(|e| fault("reading its name", e))?;
        let module = kernels::load(&context, capability, no)?;
        Ok(Arc::new(Self {
            module,
            functions: Mutex::default(),
            ordinal,
            name,
            capability,
            shared_memory: shared_memory.max(0) as u32,
            multiprocessors: multiprocessors.max(1) as u32,
            budget,
            lt: Lt::find(),
            gemm: GemmChoice::asked(),
            gemm_times: Mutex::default(),
            context,
        }))
    }

    /// `cuda:0`
    pub fn place(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }

    /// Name of the GPU.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compute capability: major, minor.
    pub fn capability(&self) -> (i32, i32) {
        self.capability
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Whether cuBLASLt was found.
    pub fn has_cublaslt(&self) -> bool {
        self.lt.is_some()
    }

    /// Memory that is counted against the model's budget.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Bytes free and in all on the GPU.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.check("asking for free memory", self.context.mem_get_info())
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// A new stream.
    pub(super) fn stream(&self) -> Result<Arc<CudaStream>> {
        self.check("making a stream", self.context.new_stream())
    }

    /// The kernel `name`, ready for as much dynamic shared memory as the GPU gives a block.
    pub(super) fn function(&self, name: &'static str) -> Result<CudaFunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let function = self.check(name, self.module.load_function(name))?;
        let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let fixed = self.check(name, function.shared_size_bytes())?;
        self.check(name, function.set_attribute(most, (self.shared_memory as i32 - fixed).max(0)))?;
        functions.insert(name, function.clone());
        Ok(function)
    }

    /// Most dynamic shared memory of a block, in bytes.
    pub(super) fn shared_memory(&self) -> u32 {
        self.shared_memory
    }

    /// The result of a driver call as this library's.
    pub(super) fn check<T>(&self, call: &'static str, result: std::result::Result<T, DriverError>) -> Result<T> {
        result.map_err(|e| fault(self.ordinal, call, e))
    }
}

/// What a failed driver call means.
fn fault(ordinal: u32, call: &'static str, error: DriverError) -> Error {
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { what: call, bytes: 0 },
        _ => Error::DeviceFault { device: format!("cuda:{ordinal}"), call, detail: text(error) },
    }
}

/// `illegal address (CUDA_ERROR_ILLEGAL_ADDRESS)`
fn text(error: DriverError) -> String {
    let name = error.error_name().map_or("unknown error", |name| name.to_str().unwrap_or("unknown error"));
    match error.error_string() {
        Ok(meaning) => format!("{} ({name})", meaning.to_string_lossy()),
        Err(_) => name.to_owned(),
    }
}

fn driver_version() -> std::result::Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: the driver writes one integer.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    Ok(version)
}

/// 11040 → `11.4`
fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}
