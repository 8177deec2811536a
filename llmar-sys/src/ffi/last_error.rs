//! The detail of the last error, one a thread.

use std::cell::RefCell;
use std::ffi::c_char;

use super::args;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Replaces this thread's detail. Does nothing while the thread is being torn down.
pub(super) fn set(text: String) {
    // A failed borrow would mean that `set` is running further up this very stack, which nothing here does.
    let _ = LAST.try_with(|last| last.try_borrow_mut().map(|mut last| *last = text));
}

/// Copies what went wrong in the last call of this thread that failed.
///
/// At most len bytes are written to buf, the terminating NUL included; a longer text is cut between two characters. buf may be NULL when
/// len is 0. Calls that succeed leave the text as it is, like errno.
///
/// Returns the bytes that the whole text needs, NUL included, or 0 when no call of this thread has failed yet (buf is then "").
///
/// Threads: any; each has its own text. Errors: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_last_error(buf: *mut c_char, len: usize) -> usize {
    // No fence: nothing below can panic, and a fence would write the text that is being read.
    LAST.try_with(|last| {
        let Ok(text) = last.try_borrow() else { return 0 };
        if !buf.is_null() {
            // SAFETY: the caller gives `len` writable bytes at a `buf` that is not NULL.
            unsafe { args::write_cut(&text, buf, len) };
        }
        if text.is_empty() { 0 } else { text.len() + 1 }
    })
    .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_the_whole_length_is_returned() {
        set("aé€".to_owned()); // 1 + 2 + 3 bytes
        for (len, expected) in [(7, "aé€"), (6, "aé"), (4, "aé"), (3, "a"), (2, "a"), (1, "")] {
            let mut buf = [0x55u8; 8];
            // SAFETY: `len` ≤ 8 bytes of `buf`.
            assert_eq!(unsafe { llmar_last_error(buf.as_mut_ptr().cast(), len) }, 7);
            assert_eq!(CStr::from_bytes_until_nul(&buf).unwrap().to_str().unwrap(), expected);
            assert!(buf[len..].iter().all(|b| *b == 0x55), "wrote beyond {len} bytes");
        }
        // SAFETY: no byte is written.
        assert_eq!(unsafe { llmar_last_error(std::ptr::null_mut(), 0) }, 7);
        std::thread::spawn(|| {
            // SAFETY: no byte is written.
            assert_eq!(unsafe { llmar_last_error(std::ptr::null_mut(), 0) }, 0, "another thread has its own text");
        })
        .join()
        .unwrap();
    }
}
