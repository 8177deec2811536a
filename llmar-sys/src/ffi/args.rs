//! Reading what a C caller passes. Every raw pointer of the ABI is checked and read here.

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;

use super::status::{
    Failure, LLMAR_ERROR_FORMAT, LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_LIMIT, LLMAR_ERROR_NULL_POINTER,
    LLMAR_ERROR_STRUCT_SIZE, LLMAR_ERROR_UNSUPPORTED,
};

/// Longest array of texts (labels, joint names) that is read.
const MAX_TEXTS: usize = 65_536;
/// A struct_size beyond this is taken for garbage and not for a struct of a later version.
const MAX_STRUCT_SIZE: usize = 4096;

/// Not NULL and aligned for `T`.
fn check<T>(ptr: *const T, what: &str) -> Result<(), Failure> {
    if ptr.is_null() {
        return Err(Failure::new(LLMAR_ERROR_NULL_POINTER, format!("{what}: must not be NULL")));
    }
    if !ptr.is_aligned() {
        let align = align_of::<T>();
        return Err(Failure::new(
            LLMAR_ERROR_INVALID_ARGUMENT,
            format!("{what}: expected an address that is a multiple of {align}, got {ptr:p}"),
        ));
    }
    Ok(())
}

/// A handle or other object behind a `const` pointer.
///
/// # Safety
/// `ptr` is NULL or points at a `T` that lives, and is not written, during `'a`.
pub(super) unsafe fn borrow<'a, T>(ptr: *const T, what: &str) -> Result<&'a T, Failure> {
    check(ptr, what)?;
    // SAFETY: checked above; the rest is the caller's promise.
    Ok(unsafe { &*ptr })
}

/// A place for a result.
pub(super) fn out<T>(ptr: *mut T, what: &str) -> Result<*mut T, Failure> {
    check(ptr, what).map(|()| ptr)
}

/// A pointer that is looked at later.
pub(super) fn not_null<T>(ptr: *const T, what: &str) -> Result<*const T, Failure> {
    check(ptr, what).map(|()| ptr)
}

/// A field that later versions may use.
pub(super) fn reserved(value: u32, what: &str) -> Result<(), Failure> {
    if value == 0 { Ok(()) } else { Err(Failure::new(LLMAR_ERROR_UNSUPPORTED, format!("{what}: must be 0, got {value}"))) }
}

/// `items[index]`.
pub(super) fn element<'a, T>(items: &'a [T], index: usize, what: &str) -> Result<&'a T, Failure> {
    let count = items.len();
    items.get(index).ok_or_else(|| Failure::new(LLMAR_ERROR_INVALID_ARGUMENT, format!("{what}: expected below {count}, got {index}")))
}

/// A count of the library as a 32-bit field.
pub(super) fn count32(count: usize, what: &str) -> Result<u32, Failure> {
    u32::try_from(count).map_err(|_| Failure::new(LLMAR_ERROR_LIMIT, format!("{what}: {count} does not fit into 32 bits")))
}

/// The product of counts that a caller stated.
pub(super) fn product(counts: &[usize], what: &str) -> Result<usize, Failure> {
    let product = counts.iter().try_fold(1usize, |product, count| product.checked_mul(*count));
    product.ok_or_else(|| Failure::new(LLMAR_ERROR_LIMIT, format!("{what}: {counts:?} values do not fit into the address space")))
}

/// `count` values. With `count` 0 the pointer is not looked at.
///
/// # Safety
/// `ptr` is NULL or points at `count` values that live, and are not written, during `'a`.
pub(super) unsafe fn slice<'a, T>(ptr: *const T, count: usize, what: &str) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    check(ptr, what)?;
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Failure::new(LLMAR_ERROR_LIMIT, format!("{what}: {count} values do not fit into the address space")));
    }
    // SAFETY: checked above; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(ptr, count) })
}

/// NUL-terminated UTF-8.
///
/// # Safety
/// `ptr` is NULL or points at a NUL-terminated text that lives, and is not written, during `'a`.
pub(super) unsafe fn text<'a>(ptr: *const c_char, what: &str) -> Result<&'a str, Failure> {
    check(ptr, what)?;
    // SAFETY: not NULL; the rest is the caller's promise.
    let bytes = unsafe { CStr::from_ptr(ptr) };
    bytes.to_str().map_err(|e| Failure::new(LLMAR_ERROR_INVALID_UTF8, format!("{what}: not UTF-8 after byte {}", e.valid_up_to())))
}

/// An array of NUL-terminated UTF-8 texts.
///
/// # Safety
/// `ptr` is NULL or points at `count` pointers as [`text`] wants them.
pub(super) unsafe fn texts<'a>(ptr: *const *const c_char, count: usize, what: &str) -> Result<Vec<&'a str>, Failure> {
    if count > MAX_TEXTS {
        return Err(Failure::new(LLMAR_ERROR_LIMIT, format!("{what}: {count} texts, the limit is {MAX_TEXTS}")));
    }
    // SAFETY: the caller's promise.
    let pointers = unsafe { slice(ptr, count, what) }?;
    // SAFETY: the caller's promise.
    pointers.iter().enumerate().map(|(i, p)| unsafe { text(*p, &format!("{what}[{i}]")) }).collect()
}

/// A struct of the ABI that starts with `uint32_t struct_size`.
///
/// # Safety
/// `repr(C)`, the first field is that `u32`, and all-zero bytes are a value.
pub(super) unsafe trait Versioned: Copy {
    /// The sizes that this struct has had, the first version's first. The last is today's.
    const SIZES: &'static [usize];
}

/// The value of which every field is the default.
pub(super) fn zeroed<T: Versioned>() -> T {
    // SAFETY: all-zero bytes are a value of every `Versioned`.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Reads a struct of any version, older or newer than this library: what an older caller does not have is zero (the default), what a newer
/// caller has beyond it must be zero.
///
/// # Safety
/// `ptr` is NULL or points at a `u32` and, when that is a plausible size, at so many readable bytes.
pub(super) unsafe fn versioned<T: Versioned>(ptr: *const T, what: &str) -> Result<T, Failure> {
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(ptr, what) }?;
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are readable by the caller's promise.
    let excess = unsafe { std::slice::from_raw_parts(ptr.cast::<u8>().add(known), size - known) };
    if let Some(at) = excess.iter().position(|byte| *byte != 0) {
        let detail = format!("{what}: byte {} is set, this library knows the first {known} of its {size}", known + at);
        return Err(Failure::new(LLMAR_ERROR_UNSUPPORTED, detail));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are readable there and fit here; all-zero plus bytes of the caller's struct make a `T` (repr(C), integers, floats
    // and pointers only).
    unsafe {
        std::ptr::copy_nonoverlapping(ptr.cast::<u8>(), value.as_mut_ptr().cast(), known);
        Ok(value.assume_init())
    }
}

/// [`versioned`], with NULL for "all defaults".
///
/// # Safety
/// As [`versioned`].
pub(super) unsafe fn versioned_or_default<T: Versioned>(ptr: *const T, what: &str) -> Result<T, Failure> {
    if ptr.is_null() {
        return Ok(zeroed());
    }
    // SAFETY: the caller's promise.
    unsafe { versioned(ptr, what) }
}

/// Elements of an array of versioned structs: they lie as far apart as the caller's struct is long, which the first one says.
///
/// # Safety
/// `ptr` is NULL or points at `count` structs as [`versioned`] wants them.
pub(super) unsafe fn versioned_array<T: Versioned>(ptr: *const T, count: usize, what: &str) -> Result<Vec<(*const T, T)>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the caller's promise, for the first element.
    let stride = unsafe { struct_size(ptr, what) }?;
    let mut elements = Vec::new();
    elements.try_reserve(count).map_err(|_| Failure::new(LLMAR_ERROR_LIMIT, format!("{what}: no memory for {count} elements")))?;
    for i in 0..count {
        let what = format!("{what}[{i}]");
        // SAFETY: inside the caller's array.
        let element = unsafe { ptr.byte_add(i * stride) };
        // SAFETY: the caller's promise.
        let size = unsafe { struct_size(element, &what) }?;
        if size != stride {
            let detail = format!("{what}: expected struct_size {stride} as in the first element, got {size}");
            return Err(Failure::new(LLMAR_ERROR_STRUCT_SIZE, detail));
        }
        // SAFETY: the caller's promise.
        let value = unsafe { versioned(element, &what) }?;
        elements.push((element, value));
    }
    Ok(elements)
}

/// How far apart the elements of an array of versioned structs lie, which its first one says.
///
/// # Safety
/// `ptr` is NULL or points at a `u32`.
pub(super) unsafe fn stride<T: Versioned>(ptr: *const T, what: &str) -> Result<usize, Failure> {
    // SAFETY: the caller's promise.
    unsafe { struct_size(ptr, what) }
}

/// The element at `ptr` says the same. Allocates nothing, unlike [`versioned_array`].
///
/// # Safety
/// `ptr` points at a `u32`.
pub(super) unsafe fn same_stride<T: Versioned>(ptr: *const T, stride: usize, what: &str) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(ptr, what) }?;
    if size == stride {
        return Ok(());
    }
    Err(Failure::new(LLMAR_ERROR_STRUCT_SIZE, format!("{what}: expected struct_size {stride} as in the first element, got {size}")))
}

/// The checked `struct_size` of the struct at `ptr`.
///
/// # Safety
/// `ptr` is NULL or points at a `u32`.
unsafe fn struct_size<T: Versioned>(ptr: *const T, what: &str) -> Result<usize, Failure> {
    check(ptr, what)?;
    // SAFETY: not NULL, aligned as the first field is; a u32 is there by the caller's promise.
    let size = unsafe { ptr.cast::<u32>().read() } as usize;
    if T::SIZES.contains(&size) || (size > size_of::<T>() && size <= MAX_STRUCT_SIZE) {
        return Ok(size);
    }
    let (sizes, today) = (T::SIZES, size_of::<T>());
    Err(Failure::new(
        LLMAR_ERROR_STRUCT_SIZE,
        format!("{what}: expected a struct_size of {sizes:?} or one of {today} to {MAX_STRUCT_SIZE}, got {size}"),
    ))
}

/// Writes a result back into the caller's struct: as many bytes as the caller has room for.
///
/// # Safety
/// `ptr` was read by [`versioned`] and may be written.
pub(super) unsafe fn write_back<T: Versioned>(ptr: *mut T, value: &T) {
    // SAFETY: `versioned` has checked this size.
    let size = (unsafe { ptr.cast::<u32>().read() } as usize).min(size_of::<T>());
    let skip = size_of::<u32>(); // the caller's own struct_size stays
    // SAFETY: both sides hold `size` bytes; the value is the library's own, so they do not overlap.
    unsafe { std::ptr::copy_nonoverlapping((&raw const *value).cast::<u8>().add(skip), ptr.cast::<u8>().add(skip), size - skip) };
}

/// Prepares a struct that is only written: reads nothing but its size, and zeroes what this library does not know.
///
/// # Safety
/// `ptr` is NULL or points at a `u32` and, when that is a plausible size, at so many writable bytes.
pub(super) unsafe fn write_out<T: Versioned>(ptr: *mut T, value: &T, what: &str) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(ptr.cast_const(), what) }?;
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are writable there.
    unsafe {
        ptr.cast::<u8>().add(known).write_bytes(0, size - known);
        write_back(ptr, value);
    }
    Ok(())
}

/// A text that C can read.
pub(super) fn c_text(text: &str, what: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::new(LLMAR_ERROR_FORMAT, format!("{what}: {text:?} holds a NUL and cannot be given to C")))
}

/// Writes as much of `text` as fits into `len` bytes with a NUL, cut between two characters.
///
/// # Safety
/// `buf` has `len` writable bytes.
pub(super) unsafe fn write_cut(text: &str, buf: *mut c_char, len: usize) {
    let Some(room) = len.checked_sub(1) else { return };
    let cut = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    // SAFETY: cut + 1 ≤ len bytes; a Rust text does not overlap the caller's buffer.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast::<u8>(), cut);
        buf.add(cut).write(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A struct in its second version, as a caller of each version sees it.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct First {
        struct_size: u32,
        a: u32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Second {
        struct_size: u32,
        a: u32,
        b: u64,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Third {
        struct_size: u32,
        a: u32,
        b: u64,
        c: u64,
    }
    // SAFETY: repr(C), u32 first, plain integers.
    unsafe impl Versioned for Second {
        const SIZES: &'static [usize] = &[size_of::<First>(), size_of::<Second>()];
    }

    fn read<T>(value: &T) -> Result<Second, i32> {
        // SAFETY: every probe below states a size within its own, or one that is refused.
        unsafe { versioned((&raw const *value).cast::<Second>(), "probe") }.map_err(|f| f.status)
    }

    #[test]
    fn structs_of_older_equal_and_newer_callers() {
        #[repr(align(8))]
        struct Aligned<T>(T);
        let size = |n: usize| u32::try_from(n).unwrap();
        let old = Aligned(First { struct_size: 8, a: 1 });
        assert_eq!(read(&old), Ok(Second { struct_size: 8, a: 1, b: 0 }));
        let same = Second { struct_size: 16, a: 1, b: 2 };
        assert_eq!(read(&same), Ok(same));
        let newer = Third { struct_size: 24, a: 1, b: 2, c: 0 };
        assert_eq!(read(&newer), Ok(Second { struct_size: 24, a: 1, b: 2 }));
        assert_eq!(read(&Third { c: 1 << 63, ..newer }), Err(LLMAR_ERROR_UNSUPPORTED));
        for wrong in [0, 4, 7, 9, 12, 15, size(MAX_STRUCT_SIZE) + 1, u32::MAX] {
            assert_eq!(read(&Third { struct_size: wrong, ..newer }), Err(LLMAR_ERROR_STRUCT_SIZE), "{wrong}");
        }
    }

    #[test]
    fn results_fill_what_the_caller_has_and_no_more() {
        let value = Second { struct_size: 16, a: 5, b: 6 };
        let mut old = Third { struct_size: 8, a: 1, b: 77, c: 88 };
        // SAFETY: 8 bytes of 24.
        unsafe { write_out((&raw mut old).cast::<Second>(), &value, "probe") }.unwrap();
        assert_eq!(old, Third { struct_size: 8, a: 5, b: 77, c: 88 });
        let mut newer = Third { struct_size: 24, a: 1, b: 77, c: 88 };
        // SAFETY: 24 bytes of 24.
        unsafe { write_out((&raw mut newer).cast::<Second>(), &value, "probe") }.unwrap();
        assert_eq!(newer, Third { struct_size: 24, a: 5, b: 6, c: 0 });
    }

    #[test]
    fn arrays_step_by_the_callers_size() {
        let newer = [1, 2, 3].map(|a| Third { struct_size: 24, a, b: 9, c: 0 });
        // SAFETY: three structs of the size they state.
        let read = unsafe { versioned_array(newer.as_ptr().cast::<Second>(), 3, "probe") }.unwrap();
        assert_eq!(read.iter().map(|(_, value)| value.a).collect::<Vec<_>>(), [1, 2, 3]);
        let mut mixed = newer;
        mixed[2].struct_size = 16;
        // SAFETY: as above; the last states less than it has.
        let refused = unsafe { versioned_array(mixed.as_ptr().cast::<Second>(), 3, "probe") }.unwrap_err();
        assert_eq!((refused.status, refused.detail.contains("probe[2]")), (LLMAR_ERROR_STRUCT_SIZE, true), "{}", refused.detail);
    }

    #[test]
    fn odd_addresses_and_lengths_are_refused() {
        let numbers = [0u64; 2];
        let odd = numbers.as_ptr().cast::<u8>().wrapping_add(1).cast::<u64>();
        // SAFETY: refused before anything is read.
        unsafe {
            assert_eq!(slice(odd, 1, "probe").unwrap_err().status, LLMAR_ERROR_INVALID_ARGUMENT);
            assert_eq!(slice(numbers.as_ptr(), usize::MAX / 4, "probe").unwrap_err().status, LLMAR_ERROR_LIMIT);
            assert_eq!(texts(std::ptr::null(), MAX_TEXTS + 1, "probe").unwrap_err().status, LLMAR_ERROR_LIMIT);
            assert_eq!(slice(std::ptr::null::<u64>(), 0, "probe").unwrap(), &[] as &[u64]);
        }
    }
}
