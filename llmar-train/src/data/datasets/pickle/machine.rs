//! The machine that a pickle is a program for: opcodes and their operands, checked one by one.

use std::collections::HashMap;
use std::path::Path;

use super::{Array, Chunk, Dtype, Global, Id, Node, Pickle, Text};
use crate::error::{Error, Result};

/// Most objects of a file, and most entries of its memo: six times what the annotations of NTU RGB+D 120 take; 1 GiB of memory.
const MAX_NODES: usize = 1 << 25;
/// Longest module or name of a global in bytes.
const MAX_GLOBAL: usize = 256;

/// Opcodes push objects and combine those on top of the stack.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    path: &'a Path,
    input: &'a [u8],
    /// Next byte.
    at: usize,
    /// Byte of the present opcode.
    op: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub fn new(path: &'a Path, input: &'a [u8]) -> Self {
        Self { path, input, at: 0, op: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// Runs the whole file.
    pub fn run(mut self) -> Result<Pickle<'a>> {
        match self.fixed::<2>()? {
            [0x80, 2..=5] => {}
            [first, second] => {
                return Err(self.wrong(format!("expected a pickle of protocol 2 to 5 (80 02 to 80 05), got {first:02x} {second:02x}")));
            }
        }
        loop {
            self.op = self.at;
            let [code] = self.fixed::<1>()?;
            if code == b'.' {
                break;
            }
            if !self.constant(code)? && !self.structure(code)? {
                return Err(self.wrong(format!("opcode {code:02x} is none that such files need")));
            }
        }
        if self.at != self.input.len() {
            return Err(self.wrong(format!("{} bytes after the end of the pickle", self.input.len() - self.at)));
        }
        match (&self.stack[..], &self.marks[..]) {
            (&[root], []) => Ok(Pickle { nodes: self.nodes, root }),
            _ => Err(self.wrong(format!("expected one object at the end, got {}", self.stack.len()))),
        }
    }

    /// Opcodes that push what stands behind them. `false`: `code` is none of them.
    fn constant(&mut self, code: u8) -> Result<bool> {
        let node = match code {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b'K' => Node::Int(self.fixed::<1>()?[0].into()),
            b'M' => Node::Int(u16::from_le_bytes(self.fixed()?).into()),
            b'J' => Node::Int(i32::from_le_bytes(self.fixed()?).into()),
            0x8a => self.long::<1>()?,
            0x8b => self.long::<4>()?,
            b'G' => {
                self.take(8)?;
                Node::Float
            }
            0x8c => self.read_text::<1>()?,
            b'X' => self.read_text::<4>()?,
            0x8d => self.read_text::<8>()?,
            b'C' => self.read_bytes::<1>()?,
            b'B' => self.read_bytes::<4>()?,
            0x8e | 0x96 => self.read_bytes::<8>()?, // bytes, bytearray
            b')' => Node::Tuple(Vec::new()),
            b']' => Node::List(Vec::new()),
            b'}' => Node::Dict(Vec::new()),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?
            }
            _ => return Ok(false),
        };
        self.push(node)?;
        Ok(true)
    }

    /// Opcodes that work on the stack. `false`: `code` is none of them.
    fn structure(&mut self, code: u8) -> Result<bool> {
        match code {
            0x95 => drop(self.length::<8>()?), // a frame: only a hint for readers of streams
            b'(' => self.marks.push(self.stack.len()),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))?;
            }
            0x85..=0x87 => {
                let mut items = vec![0; usize::from(code - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.push(Node::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.insert(&items)?;
            }
            b'q' => {
                let [index] = self.fixed::<1>()?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.fixed()?);
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let [index] = self.fixed::<1>()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.fixed()?);
                self.recall(index)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Text(module), Node::Text(name)) = (self.node(module)?, self.node(name)?) else {
                    return Err(self.wrong("expected the names of a global"));
                };
                let global = self.global(module.text, name.text)?;
                self.push(global)?;
            }
            b'R' => self.reduce()?,
            0x81 => self.new_object()?,
            b'b' => self.build()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// REDUCE: `callable(*arguments)`.
    fn reduce(&mut self) -> Result<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let (&Node::Global(global), Node::Tuple(arguments)) = (self.node(callable)?, self.node(arguments)?) else {
            return Err(self.wrong("expected a global and a tuple of its arguments"));
        };
        let arguments = arguments.iter().map(|&id| self.node(id)).collect::<Result<Vec<_>>>()?;
        let made = match (global, &arguments[..]) {
            (Global::Reconstruct, [Node::Global(Global::NdArray), Node::Tuple(_), Node::Bytes(_)]) => Node::Array(None),
            (Global::FromBuffer, [Node::Bytes(data), Node::Dtype(dtype), Node::Tuple(shape), Node::Text(order)]) => {
                let fortran = match order.text {
                    "C" => false,
                    "F" => true,
                    other => return Err(self.wrong(format!("order of an array: expected C or F, got {other:?}"))),
                };
                Node::Array(Some(Box::new(self.array(shape, *dtype, fortran, *data)?)))
            }
            (Global::Scalar, [Node::Dtype(dtype), Node::Bytes(data)]) => self.scalar(*dtype, *data)?,
            // The two others are `align` and `copy`.
            (Global::Dtype, [Node::Text(name), ..]) if arguments.len() <= 3 => Node::Dtype(self.dtype(name.text)?),
            (Global::Encode, [Node::Text(text), Node::Text(Text { text: "latin1" | "latin-1", .. })]) => {
                let mut len = 0;
                for c in text.text.chars() {
                    if u8::try_from(c).is_err() {
                        return Err(self.wrong(format!("{c:?} is no byte in Latin-1")));
                    }
                    len += 1;
                }
                Node::Bytes(Chunk { at: text.at, stored: text.text.len(), len })
            }
            (Global::OrderedDict, []) => Node::Dict(Vec::new()),
            (Global::Bytes, []) => Node::Bytes(Chunk { at: self.op, stored: 0, len: 0 }),
            _ => return Err(self.wrong(format!("{} arguments that {global:?} does not take here", arguments.len()))),
        };
        self.push(made)
    }

    /// NEWOBJ: `class.__new__(class, *arguments)`.
    fn new_object(&mut self) -> Result<()> {
        let (arguments, class) = (self.pop()?, self.pop()?);
        match (self.node(class)?, self.node(arguments)?) {
            (Node::Global(Global::OrderedDict), Node::Tuple(arguments)) if arguments.is_empty() => self.push(Node::Dict(Vec::new())),
            _ => Err(self.wrong("expected an empty OrderedDict")),
        }
    }

    /// BUILD: gives an array or dtype its state.
    fn build(&mut self) -> Result<()> {
        let (state, object) = (self.pop()?, self.top()?);
        let Node::Tuple(state) = self.node(state)? else {
            return Err(self.wrong("expected a tuple as the state of an object"));
        };
        let state = state.iter().map(|&id| self.node(id)).collect::<Result<Vec<_>>>()?;
        let built = match (self.node(object)?, &state[..]) {
            // Version, byte order, sub-array, field names, fields, size and alignment where the name does not tell them, flags.
            (&Node::Dtype(dtype), [Node::Int(3 | 4), Node::Text(order), ..]) => match order.text {
                "<" | "=" | "|" => Node::Dtype(dtype),
                other => return Err(self.wrong(format!("byte order of a dtype: expected `<`, got {other:?}"))),
            },
            (Node::Array(None), [Node::Int(1), Node::Tuple(shape), Node::Dtype(dtype), Node::Bool(fortran), Node::Bytes(data)]) => {
                Node::Array(Some(Box::new(self.array(shape, *dtype, *fortran, *data)?)))
            }
            (Node::Dtype(_), _) => return Err(self.wrong("expected the state of a dtype")),
            (Node::Array(_), _) => return Err(self.wrong("expected the state of an array: 1, shape, dtype, Fortran order, bytes")),
            _ => return Err(self.wrong("expected an array or a dtype below its state")),
        };
        match self.nodes.get_mut(object as usize) {
            Some(node) => *node = built,
            None => return Err(self.wrong("no such object")),
        }
        Ok(())
    }

    /// A dtype by its name: `f4`, `<f4`.
    fn dtype(&self, name: &str) -> Result<Dtype> {
        let mut rest = name.strip_prefix(['<', '=', '|']).unwrap_or(name).chars();
        let (kind, size) = (rest.next(), rest.as_str().parse::<u32>());
        match (kind, size) {
            (Some(kind), Ok(size)) if kind.is_ascii_alphabetic() => Ok(Dtype { kind, size: size as usize }),
            _ => Err(self.wrong(format!("dtype: expected one like f4, got {name:?}"))),
        }
    }

    fn array(&self, shape: &[Id], dtype: Dtype, fortran: bool, data: Chunk) -> Result<Array> {
        let mut sizes = Vec::with_capacity(shape.len());
        for &id in shape {
            match self.node(id)? {
                &Node::Int(size) if size >= 0 => sizes.push(usize::try_from(size).map_err(|e| self.wrong(e))?),
                _ => return Err(self.wrong("shape of an array: expected sizes of at least 0")),
            }
        }
        let bytes = sizes.iter().try_fold(dtype.size, |product, &size| product.checked_mul(size));
        if bytes != Some(data.len) {
            return Err(self.wrong(format!("{} bytes of data for an array {sizes:?} of {}{}", data.len, dtype.kind, dtype.size)));
        }
        Ok(Array { shape: sizes, dtype, fortran, data })
    }

    fn scalar(&self, dtype: Dtype, data: Chunk) -> Result<Node<'a>> {
        let stored = self.input.get(data.range()).filter(|_| data.len == dtype.size && data.len <= 8).map(<[u8]>::to_vec);
        let Some(bytes) = stored.and_then(|stored| data.decode(stored)) else {
            return Err(self.wrong(format!("{} bytes for a number {}{}", data.len, dtype.kind, dtype.size)));
        };
        let number = match dtype.kind {
            'f' => Some(Node::Float),
            'i' => Some(Node::Int(integer(&bytes, true))),
            'u' if bytes.len() < 8 || bytes[7] < 0x80 => Some(Node::Int(integer(&bytes, false))),
            'b' if bytes.len() == 1 => Some(Node::Bool(bytes[0] != 0)),
            _ => None,
        };
        number.ok_or_else(|| self.wrong(format!("a number {}{} is none that such files need", dtype.kind, dtype.size)))
    }

    fn global(&self, module: &str, name: &str) -> Result<Node<'a>> {
        // STACK_GLOBAL takes names of any length.
        let shown = |text: &str| text.chars().take(MAX_GLOBAL).collect::<String>().escape_debug().to_string();
        let refused = || self.wrong(format!("the file names {}.{}, which no data needs; it was not run", shown(module), shown(name)));
        Ok(Node::Global(Global::find(module, name).ok_or_else(refused)?))
    }

    fn append(&mut self, mut items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match self.nodes.get_mut(list as usize) {
            Some(Node::List(list)) => list.append(&mut items),
            _ => return Err(self.wrong("expected a list below its elements")),
        }
        Ok(())
    }

    /// Key, value, key, value, … into the dict on top.
    fn insert(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.wrong("expected as many values as keys"));
        };
        match self.nodes.get_mut(dict as usize) {
            Some(Node::Dict(dict)) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(self.wrong("expected a dict below its entries")),
        }
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Result<()> {
        let id = self.top()?;
        self.memo.insert(index, id);
        if self.memo.len() > MAX_NODES { Err(self.wrong(format!("more than {MAX_NODES} memo entries"))) } else { Ok(()) }
    }

    fn recall(&mut self, index: u32) -> Result<()> {
        let id = *self.memo.get(&index).ok_or_else(|| self.wrong(format!("no memo entry {index}")))?;
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) -> Result<()> {
        if self.nodes.len() >= MAX_NODES {
            return Err(self.wrong(format!("more than {MAX_NODES} objects")));
        }
        self.stack.push(self.nodes.len() as Id);
        self.nodes.push(node);
        Ok(())
    }

    fn node(&self, id: Id) -> Result<&Node<'a>> {
        self.nodes.get(id as usize).ok_or_else(|| self.wrong("no such object"))
    }

    /// What stands on top, above the last mark.
    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[Id]>::last).copied().ok_or_else(|| self.wrong("nothing is left on the stack"))
    }

    fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| self.wrong("no mark is left on the stack"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// The next `len` bytes.
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let left = self.input.len() - self.at;
        let bytes = self.input[self.at..].get(..len).ok_or_else(|| self.wrong(format!("expected {len} more bytes, got {left}")))?;
        self.at += len;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// A length of N bytes, no more than there are left.
    fn length<const N: usize>(&mut self) -> Result<usize> {
        let bytes = self.fixed::<N>()?;
        let length = bytes.iter().rev().fold(0u64, |all, &byte| all << 8 | u64::from(byte));
        let left = self.input.len() - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => Ok(length),
            _ => Err(self.wrong(format!("a length of {length} where {left} bytes are left"))),
        }
    }

    fn long<const N: usize>(&mut self) -> Result<Node<'a>> {
        match self.length::<N>()? {
            length @ 0..=8 => Ok(Node::Int(integer(self.take(length)?, true))),
            length => Err(self.wrong(format!("an integer of {length} bytes; expected at most 8"))),
        }
    }

    fn read_text<const N: usize>(&mut self) -> Result<Node<'a>> {
        let length = self.length::<N>()?;
        let (at, bytes) = (self.at, self.take(length)?);
        let text = std::str::from_utf8(bytes).map_err(|e| self.wrong(format!("byte {} is not UTF-8", at + e.valid_up_to())))?;
        Ok(Node::Text(Text { text, at }))
    }

    fn read_bytes<const N: usize>(&mut self) -> Result<Node<'a>> {
        let length = self.length::<N>()?;
        let at = self.at;
        self.take(length)?;
        Ok(Node::Bytes(Chunk { at, stored: length, len: length }))
    }

    /// A line of a GLOBAL.
    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.input[self.at..];
        let end = rest.iter().take(MAX_GLOBAL + 1).position(|&byte| byte == b'\n').ok_or_else(|| self.wrong("a name without an end"))?;
        let line = std::str::from_utf8(self.take(end)?).map_err(|e| self.wrong(e))?;
        self.take(1)?;
        Ok(line)
    }

    /// An error at the present opcode.
    fn wrong(&self, detail: impl std::fmt::Display) -> Error {
        Error::format(self.path.display(), format!("byte {}: {detail}", self.op))
    }
}

/// At most 8 little-endian bytes as an integer.
fn integer(bytes: &[u8], signed: bool) -> i64 {
    let negative = signed && bytes.last().is_some_and(|&byte| byte >= 0x80);
    let fill = if negative { !0u64 } else { 0 };
    bytes.iter().rev().fold(fill, |all, &byte| all << 8 | u64::from(byte)) as i64
}
