//! Python pickles of plain data and numpy arrays, protocols 2 to 5, as far as published skeleton files need them.
//!
//! Nothing is ever run: the names that a file may call are a closed enum ([`Global`]), each with the one meaning written down here; any
//! other name is an error. Objects stand in one flat list and refer to each other by index, so an object that two others share, or that
//! holds itself, costs neither a copy nor a recursion. Array data is not copied either: an array says where in the file its bytes stand.
//!
//! Why no crate: serde-pickle 1.2.0, the one that is kept up, knows none of the names that build arrays. An array comes out as the state
//! that BUILD gives it, in which the dtype's name is lost, so f2 and i2 are the same; those of protocol 5, and numbers of a dtype, are not
//! to be had at all; and a name it does not know is no error as long as a BUILD follows, while here it must be refused.

mod machine;

use std::ops::Range;
use std::path::Path;

use self::machine::Machine;
use crate::error::Result;

/// Index into a pickle's objects.
pub(super) type Id = u32;

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// Without its value: none of what is read is a Python float.
    Float,
    Text(Text<'a>),
    Bytes(Chunk),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// In order of insertion; of equal keys the last counts.
    Dict(Vec<(Id, Id)>),
    Dtype(Dtype),
    /// `None` between `_reconstruct` and BUILD.
    Array(Option<Box<Array>>),
    Global(Global),
}

/// A text, and at which byte of the file it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a> {
    text: &'a str,
    at: usize,
}

/// Bytes by their place in the file. Protocol 2 has no bytes: it writes them as text, a character a byte, and characters from U+0080 take
/// two bytes in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    at: usize,
    /// Bytes in the file; where that is more than `len`, they are UTF-8.
    stored: usize,
    len: usize,
}

/// A numpy dtype: `kind` as in numpy (`f`, `i`, `u`, `b`, …) and size in bytes; little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    pub kind: char,
    pub size: usize,
}

/// A numpy array whose data has the length that shape and dtype ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    /// First index fastest; else the last.
    pub fortran: bool,
    pub data: Chunk,
}

/// Everything that a file may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// An empty array that BUILD fills.
    Reconstruct,
    /// An array from its bytes, protocol 5.
    FromBuffer,
    /// A number of a dtype.
    Scalar,
    /// The class of arrays; only an argument of `_reconstruct`.
    NdArray,
    Dtype,
    /// Bytes from text, protocol 2.
    Encode,
    OrderedDict,
    /// Empty bytes, protocol 2.
    Bytes,
}

impl Global {
    /// numpy 2 moved its core from `numpy.core` to `numpy._core`.
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Self::Reconstruct,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::Scalar,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Self::FromBuffer,
            ("numpy", "ndarray") => Self::NdArray,
            ("numpy", "dtype") => Self::Dtype,
            ("_codecs", "encode") => Self::Encode,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("builtins" | "__builtin__", "bytes") => Self::Bytes,
            _ => return None,
        })
    }
}

impl Chunk {
    /// Where the bytes stand in the file, as they are stored.
    pub fn range(&self) -> Range<usize> {
        self.at..self.at + self.stored
    }

    /// The bytes, from what stands at [`range`](Self::range). `None` where that is other than it was when the file was parsed.
    pub fn decode(&self, stored: Vec<u8>) -> Option<Vec<u8>> {
        if self.stored == self.len {
            return (stored.len() == self.len).then_some(stored);
        }
        let bytes: Vec<u8> = std::str::from_utf8(&stored).ok()?.chars().map(|c| u8::try_from(c).ok()).collect::<Option<_>>()?;
        (bytes.len() == self.len).then_some(bytes)
    }
}

/// A parsed file.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// The object that the file is.
    pub fn root(&self) -> Id {
        self.root
    }

    pub fn node(&self, id: Id) -> &Node<'a> {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    /// The value of a dict's key. `None` where the key is missing, or `id` is no dict.
    pub fn get(&self, id: Id, key: &str) -> Option<Id> {
        let pairs = self.pairs(id)?;
        pairs.iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|&(_, value)| value)
    }

    /// Keys and values of a dict.
    pub fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        if let Node::Dict(pairs) = self.node(id) { Some(pairs) } else { None }
    }

    /// Elements of a list or tuple.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        if let Node::List(items) | Node::Tuple(items) = self.node(id) { Some(items) } else { None }
    }

    pub fn text(&self, id: Id) -> Option<&'a str> {
        if let Node::Text(text) = self.node(id) { Some(text.text) } else { None }
    }

    pub fn int(&self, id: Id) -> Option<i64> {
        if let Node::Int(value) = self.node(id) { Some(*value) } else { None }
    }

    /// A finished array.
    pub fn array(&self, id: Id) -> Option<&Array> {
        if let Node::Array(Some(array)) = self.node(id) { Some(array) } else { None }
    }
}

/// Parses a whole file, `path` for errors.
///
/// # Errors
/// [`crate::error::Error::Format`] with the file and the byte of the opcode: a protocol, opcode or name other than those above, a length
/// beyond the end of the file, operands of the wrong kind, an array whose data does not fit its shape, too many objects, bytes behind the
/// end.
pub(super) fn parse<'a>(path: &'a Path, input: &'a [u8]) -> Result<Pickle<'a>> {
    Machine::new(path, input).run()
}

impl Dtype {
    /// Bytes as f32, f8 rounded to it. `None` for a dtype other than f2, f4 and f8.
    pub fn floats(self, bytes: &[u8]) -> Option<Vec<f32>> {
        Some(match (self.kind, self.size) {
            ('f', 2) => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
            ('f', 4) => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            ('f', 8) => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
