//! Memory whose size a file or a caller decides: where there is none, or where the budget has none left, the call fails, not the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes that a model and its recognisers may take beside the mapped checkpoint, and how many they have taken.
#[derive(Debug)]
pub struct Budget {
    /// 0: no limit.
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes; 0 sets no limit.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Bytes taken now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that can still be taken; `u64::MAX` without a limit.
    pub fn left(&self) -> u64 {
        if self.limit == 0 { u64::MAX } else { self.limit.saturating_sub(self.used()) }
    }

    /// Takes `bytes` for `what`, until the lease is dropped.
    ///
    /// # Errors
    /// [`Error::Budget`] where fewer are left.
    pub fn take(self: &Arc<Self>, what: &'static str, bytes: u64) -> Result<Lease> {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| self.limit == 0 || sum <= self.limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(Lease { budget: Arc::clone(self), bytes }),
            Err(used) => Err(Error::Budget { what, bytes, left: self.limit.saturating_sub(used), budget: self.limit }),
        }
    }
}

/// Bytes taken from a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// f32 values in main memory, counted against a budget. They grow and never shrink.
#[derive(Debug)]
pub struct HostBuffer {
    values: Vec<f32>,
    budget: Arc<Budget>,
    lease: Option<Lease>,
}

impl HostBuffer {
    /// An empty buffer.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { values: Vec::new(), budget: Arc::clone(budget), lease: None }
    }

    /// Makes it at least `len` long, new elements zero. What is there stays, also on `Err`.
    ///
    /// # Errors
    /// [`Error::Budget`], [`Error::OutOfMemory`].
    pub fn grow(&mut self, what: &'static str, len: usize) -> Result<()> {
        let Some(more) = len.checked_sub(self.values.len()).filter(|&more| more > 0) else { return Ok(()) };
        let bytes = |count: usize| (count as u64).saturating_mul(size_of::<f32>() as u64);
        let taken = self.lease.as_ref().map_or(0, |lease| lease.bytes);
        let mut added = self.budget.take(what, bytes(len).saturating_sub(taken))?;
        self.values.try_reserve_exact(more).map_err(|_| Error::OutOfMemory { what, bytes: bytes(len) })?;
        self.values.resize(len, 0.0);
        if let Some(mut lease) = self.lease.take() {
            added.bytes += std::mem::take(&mut lease.bytes);
        }
        self.lease = Some(added);
        Ok(())
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_and_never_shrinks() {
        let budget = Budget::new(0);
        let mut buffer = HostBuffer::new(&budget);
        buffer.grow("test", 3).unwrap();
        buffer.values_mut().fill(1.0);
        buffer.grow("test", 5).unwrap();
        buffer.grow("test", 2).unwrap();
        assert_eq!(buffer.values(), [1.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(budget.used(), 20);
        drop(buffer);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn too_much_is_an_error() {
        let mut buffer = HostBuffer::new(&Budget::new(0));
        buffer.grow("test", 3).unwrap();
        for len in [usize::MAX, isize::MAX as usize / 4 + 1] {
            assert!(matches!(buffer.grow("test", len), Err(Error::OutOfMemory { what: "test", .. })));
        }
        assert_eq!(buffer.values(), [0.0; 3]);
        assert_eq!(buffer.budget.used(), 12);
    }

    #[test]
    fn a_budget_is_kept() {
        let budget = Budget::new(100);
        let mut buffer = HostBuffer::new(&budget);
        buffer.grow("test", 20).unwrap();
        match HostBuffer::new(&budget).grow("more", 6) {
            Err(Error::Budget { what: "more", bytes: 24, left: 20, budget: 100 }) => {}
            other => panic!("{other:?}"),
        }
        buffer.grow("test", 25).unwrap();
        assert_eq!((budget.used(), budget.left()), (100, 0));
        drop(buffer);
        assert_eq!(budget.left(), 100);
    }
}
