//! What a clip's numbers lie in: memory of its own, or the file that it was mapped from.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::bytes::Bytes;

/// Numbers that are read as a slice. Those of a mapped file take no memory of the process, and keep the map alive; written to, they become owned.
#[derive(Clone)]
pub struct Numbers<T>(Place<T>);

#[derive(Clone)]
enum Place<T> {
    Owned(Vec<T>),
    /// Of a length and alignment that [`Numbers::mapped`] checked.
    Mapped(Bytes),
}

impl<T: bytemuck::AnyBitPattern> Numbers<T> {
    /// Little-endian numbers where they lie; `None` where they cannot be read so: not aligned, not whole, or on a big-endian machine.
    pub(super) fn mapped(bytes: Bytes) -> Option<Self> {
        let readable = cfg!(target_endian = "little") && bytes.cast::<T>().is_ok();
        readable.then_some(Self(Place::Mapped(bytes)))
    }
}

impl<T: bytemuck::AnyBitPattern> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Place::Owned(values) => values,
            Place::Mapped(bytes) => bytemuck::cast_slice(bytes.as_slice()),
        }
    }
}

impl<T: bytemuck::AnyBitPattern> DerefMut for Numbers<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        if let Place::Mapped(_) = self.0 {
            self.0 = Place::Owned(self.to_vec());
        }
        match &mut self.0 {
            Place::Owned(values) => values,
            Place::Mapped(_) => &mut [], // became owned above
        }
    }
}

impl<T> From<Vec<T>> for Numbers<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Place::Owned(values))
    }
}

impl<T> FromIterator<T> for Numbers<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        values.into_iter().collect::<Vec<T>>().into()
    }
}

impl<T: bytemuck::AnyBitPattern> From<Numbers<T>> for Vec<T> {
    fn from(numbers: Numbers<T>) -> Self {
        match numbers.0 {
            Place::Owned(values) => values,
            Place::Mapped(_) => numbers.to_vec(),
        }
    }
}

impl<T: bytemuck::AnyBitPattern + fmt::Debug> fmt::Debug for Numbers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: bytemuck::AnyBitPattern + PartialEq> PartialEq for Numbers<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: bytemuck::AnyBitPattern + PartialEq> PartialEq<Vec<T>> for Numbers<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        **self == **other
    }
}

impl<T: bytemuck::AnyBitPattern + PartialEq> PartialEq<Numbers<T>> for Vec<T> {
    fn eq(&self, other: &Numbers<T>) -> bool {
        **self == **other
    }
}

impl<T: bytemuck::AnyBitPattern + PartialEq, const N: usize> PartialEq<[T; N]> for Numbers<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        **self == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_numbers_are_those_of_the_bytes_and_become_owned_when_written() {
        let bytes = Bytes::copy_from(&[1.5f32, -2.0, 3.0].map(f32::to_le_bytes).concat());
        let mut numbers = Numbers::<f32>::mapped(bytes.clone()).unwrap();
        assert_eq!(numbers, [1.5, -2.0, 3.0]);
        assert_eq!(numbers.as_ptr() as usize, bytes.as_slice().as_ptr() as usize, "no copy");
        numbers[1] = 7.0;
        assert_eq!((numbers.to_vec(), &bytes.as_slice()[4..8]), (vec![1.5, 7.0, 3.0], &(-2f32).to_le_bytes()[..]));
        assert_eq!(Vec::from(numbers), [1.5, 7.0, 3.0]);
        for (part, whole) in [(1..5, "not aligned"), (0..7, "not whole")] {
            assert!(Numbers::<f32>::mapped(bytes.slice(part).unwrap()).is_none(), "{whole}");
        }
        assert!(Numbers::<f32>::mapped(bytes.slice(4..4).unwrap()).unwrap().is_empty());
    }
}
