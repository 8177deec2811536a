//! Small helpers around libtorch: process set-up, device choice, parameters and their optimiser, run files.

mod native;
mod optim;
mod params;
mod prefetch;
mod rng;
mod run;

pub use optim::{AdamW, Group, Schedule};
pub use params::Params;
pub use prefetch::{Source, prefetched};
pub use rng::Rng;
pub use run::{Metrics, State, identity, progress};

use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Sets the process up for training: allocator, libtorch's CUDA half where it is installed, number of threads; returns the device. One seed on
/// one machine gives the same bits on the CPU; on a GPU, libtorch's sums may differ from run to run.
pub fn start(device: &str, threads: usize) -> Result<Device> {
    native::keep_freed_memory();
    let threads_i32 = i32::try_from(threads).ok().filter(|n| *n >= 1);
    tch::set_num_threads(threads_i32.ok_or_else(|| setting("threads", "1 or more", threads))?);
    match device {
        "cpu" => Ok(Device::Cpu),
        "cuda" | "auto" => {
            let loaded = native::load_torch_cuda();
            if tch::Cuda::is_available() {
                Ok(Device::Cuda(0))
            } else if device == "auto" {
                Ok(Device::Cpu)
            } else {
                Err(setting("device", "a GPU that libtorch sees", loaded.err().unwrap_or_else(|| "no GPU".to_owned())))
            }
        }
        other => Err(setting("device", "cpu, cuda or auto", other)),
    }
}

/// Shorthand for [`Error::Setting`].
pub fn setting(name: &str, expected: impl ToString, got: impl ToString) -> Error {
    Error::Setting { name: name.to_owned(), expected: expected.to_string(), got: got.to_string() }
}

/// `Err` unless low ≤ value ≤ high.
pub fn in_range(name: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if value >= low && value <= high { Ok(()) } else { Err(setting(name, format!("{low} to {high}"), value)) }
}

/// The last part of a path.
pub fn file_name(path: &Path) -> PathBuf {
    path.file_name().map(PathBuf::from).unwrap_or_default()
}

/// f32 values of a shape, on a device.
pub fn tensor(values: &[f32], shape: &[i64], device: Device) -> Tensor {
    Tensor::from_slice(values).view(shape).to_device(device)
}

/// Values of a tensor, row-major.
pub fn values(t: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::try_from(t.detach().to_kind(Kind::Float).to_device(Device::Cpu).contiguous().view(-1))?)
}

/// The one number of a tensor of one element.
pub fn number(t: &Tensor) -> f64 {
    t.detach().double_value(&[])
}

/// Rounded to f16 and widened again: the value that a file in f16 gives back.
pub fn round_f16(t: &Tensor) -> Tensor {
    t.detach().to_kind(Kind::Half).to_kind(Kind::Float)
}
