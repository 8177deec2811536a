//! Buffers whose size a file or a caller decides: where there is no memory for them, the call fails, not the process.

use crate::error::{Error, Result};

/// Makes `buffer` at least `len` long, new elements zero. What is there stays, also on `Err`.
pub(crate) fn grow(what: &'static str, buffer: &mut Vec<f32>, len: usize) -> Result<()> {
    if let Some(more) = len.checked_sub(buffer.len()) {
        buffer.try_reserve_exact(more).map_err(|_| Error::OutOfMemory { what, bytes: len.saturating_mul(size_of::<f32>()) as u64 })?;
        buffer.resize(len, 0.0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_and_never_shrinks() {
        let mut buffer = vec![1.0; 3];
        grow("test", &mut buffer, 5).unwrap();
        grow("test", &mut buffer, 2).unwrap();
        assert_eq!(buffer, [1.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn too_much_is_an_error() {
        let mut buffer = vec![1.0; 3];
        for len in [usize::MAX, isize::MAX as usize / 4 + 1] {
            assert!(matches!(grow("test", &mut buffer, len), Err(Error::OutOfMemory { what: "test", .. })));
        }
        assert_eq!(buffer, [1.0; 3]);
    }
}
