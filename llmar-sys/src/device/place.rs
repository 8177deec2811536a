//! Which device a model runs on: what a caller may ask for, and what that comes to on this machine.

use std::str::FromStr;
use std::sync::Arc;

use super::{Cpu, Device};
use crate::error::{Error, Result};
use crate::memory::Budget;

/// The device asked for: `cpu`, `cuda:0`, `cuda:1`, …, or `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The CPU.
    #[default]
    Cpu,
    /// The GPU of this number, in the driver's order; an error where it cannot be used.
    Cuda(u32),
    /// The first GPU where one can be used, otherwise the CPU.
    Auto,
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |rest: &str| rest.parse().ok().filter(|_| rest.bytes().all(|b| b.is_ascii_digit()));
        match text {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(0)),
            _ => (text.strip_prefix("cuda:").and_then(number))
                .map(Self::Cuda)
                .ok_or_else(|| Error::argument("device", "`cpu`, `cuda:0`, `cuda:1`, … or `auto`", format!("`{text}`"))),
        }
    }
}

/// Where an opened model lies.
#[derive(Clone, Debug)]
pub enum Placed {
    /// In main memory.
    Cpu(Arc<Budget>),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(Arc<super::cuda::Gpu>),
}

impl Placed {
    /// Finds the device and makes it ready. `budget` bytes (0: no limit) are for everything that its models and recognisers allocate there; the mapped
    /// checkpoint is not counted. For [`Place::Auto`], the second value says why the CPU was taken where a GPU was looked for.
    ///
    /// # Errors
    /// [`Error::NoDevice`] for [`Place::Cuda`] where it cannot be used.
    pub fn find(place: Place, budget: u64) -> Result<(Self, Option<Error>)> {
        let budget = Budget::new(budget);
        match place {
            Place::Cpu => Ok((Self::Cpu(budget), None)),
            Place::Cuda(ordinal) => Ok((Self::cuda(ordinal, &budget)?, None)),
            Place::Auto => match Self::cuda(0, &budget) {
                Ok(placed) => Ok((placed, None)),
                Err(reason) => Ok((Self::Cpu(budget), Some(reason))),
            },
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda(ordinal: u32, budget: &Arc<Budget>) -> Result<Self> {
        super::cuda::Gpu::open(ordinal, Arc::clone(budget)).map(Self::Cuda)
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda(ordinal: u32, _: &Arc<Budget>) -> Result<Self> {
        let detail = "this library was built without the feature `cuda`".to_owned();
        Err(Error::NoDevice { device: format!("cuda:{ordinal}"), missing: crate::error::Missing::Feature, detail })
    }

    /// A device for one recogniser: the CPU with `threads` threads, or a stream of the GPU.
    pub fn device(&self, threads: usize) -> Result<Device> {
        match self {
            Self::Cpu(budget) => Ok(Device::Cpu(Cpu::new(threads)?.with_budget(Arc::clone(budget)))),
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => Ok(Device::Cuda(super::cuda::Cuda::new(Arc::clone(gpu))?)),
        }
    }

    /// `cpu`, or `cuda:0 (name of the GPU)`.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu(_) => "cpu".into(),
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => format!("{} ({})", gpu.place(), gpu.name()),
        }
    }

    /// Memory that is counted against its budget.
    pub fn budget(&self) -> &Arc<Budget> {
        match self {
            Self::Cpu(budget) => budget,
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => gpu.budget(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let read = |text: &str| text.parse::<Place>().ok();
        assert_eq!(read("cpu"), Some(Place::Cpu));
        assert_eq!(read("auto"), Some(Place::Auto));
        assert_eq!((read("cuda"), read("cuda:0"), read("cuda:12")), (Some(Place::Cuda(0)), Some(Place::Cuda(0)), Some(Place::Cuda(12))));
        for odd in ["", "CPU", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:1x", "cuda:99999999999", "cuda 0"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
