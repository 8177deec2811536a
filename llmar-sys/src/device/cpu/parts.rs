//! One output slice, cut into parts that several threads write.

use std::marker::PhantomData;
use std::ops::Range;

/// An exclusively borrowed slice whose parts are handed to threads.
pub(super) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it is an exclusive borrow; `part` obliges its callers to keep threads apart.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// One part; what of `range` lies beyond the slice is cut off.
    ///
    /// # Safety
    /// Parts that live at the same time must not overlap.
    #[expect(clippy::mut_from_ref, reason = "parts do not overlap: the caller's obligation")]
    #[inline(always)]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        let end = range.end.min(self.len);
        let start = range.start.min(end);
        // SAFETY: start..end lies within the borrowed slice, and the caller keeps parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), end - start) }
    }
}
