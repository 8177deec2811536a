//! One numeric variable of a MATLAB level-5 file.
//!
//! Written here because the crate for it, `matfile` 0.5, is not safe on damaged files: sizes are multiplied without a check, a packed variable
//! may unpack to any size, it prints to standard error, and its errors name no place. What is read here is what MATLAB writes for plain
//! arrays: a header of 128 bytes, then elements of an 8-byte tag (type and length, u32 each) and data; an element is a matrix, or a matrix
//! packed with zlib. Source: MathWorks, "MAT-File Format".

use std::path::Path;

use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

use super::bytes::Bytes;
use crate::error::{Error, Result};

/// Most bytes that a packed variable may have unpacked.
const MAX_UNPACKED: usize = 16 << 20;
/// Most dimensions of an array.
const MAX_DIMS: usize = 8;

const INT8: u32 = 1;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const MATRIX: u32 = 14;
const PACKED: u32 = 15;
/// Classes of arrays of real numbers: double, single and the integers.
const NUMERIC: std::ops::RangeInclusive<u32> = 6..=15;
/// Flag of an array with an imaginary part.
const COMPLEX: u32 = 0x800;

/// An array of real numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    /// At least two.
    pub dims: Vec<usize>,
    /// The first index runs fastest.
    pub values: Vec<f64>,
}

/// The variable `name` of a file's bytes.
///
/// # Errors
/// A file that is damaged, of another version or big-endian; a variable that is absent, stands twice, is packed to more than 16 MiB, or is no
/// array of real numbers. The error names the byte.
pub(super) fn variable(path: &Path, bytes: &[u8], name: &str) -> Result<Array> {
    let mut file = Bytes::new(path, bytes);
    let header = file.take(128, "the header of a MATLAB 5 file")?;
    match &header[124..] {
        [0, 1, b'I', b'M'] => {}
        [1, 0, b'M', b'I'] => return Err(file.wrong_at(124, "a big-endian MATLAB file, which is not read")),
        other => return Err(file.wrong_at(124, format!("expected version 5 of a MATLAB file (00 01 49 4d), got {other:02x?}"))),
    }
    let mut found = None;
    while file.left() > 0 {
        let at = file.at();
        let (kind, data) = element(&mut file, "a variable")?;
        let array = match kind {
            MATRIX => matrix(&mut Bytes::part(path, "", data, at + 8), name)?,
            PACKED => {
                let limit = MAX_UNPACKED;
                let unpacked = decompress_to_vec_zlib_with_limit(data, limit)
                    .map_err(|e| file.wrong_at(at + 8, format!("zlib data of a variable of at most {limit} bytes: {e}")))?;
                let part = format!("variable packed at byte {at}: ");
                let mut inner = Bytes::part(path, part.as_str(), &unpacked, 0);
                let (kind, data) = element(&mut inner, "a matrix")?;
                if kind != MATRIX || inner.left() > 0 {
                    return Err(inner.wrong(format!("expected one matrix, got type {kind} and {} bytes after it", inner.left())));
                }
                matrix(&mut Bytes::part(path, part, data, 8), name)?
            }
            other => return Err(file.wrong_at(at, format!("expected a matrix (14) or a packed one (15), got type {other}"))),
        };
        if array.is_some() && found.is_some() {
            return Err(file.wrong_at(at, format!("the variable `{name}` stands twice")));
        }
        found = found.or(array);
    }
    found.ok_or_else(|| Error::format(path.display(), format!("no variable `{name}`")))
}

/// Type and data of the next element; its padding is skipped.
fn element<'a>(from: &mut Bytes<'a>, what: &str) -> Result<(u32, &'a [u8])> {
    let at = from.at();
    let word = from.u32(what)?;
    // Data of at most four bytes stands in the tag, whose length is then the upper half of the first word.
    if let small @ 1.. = (word >> 16) as usize {
        let data = from.take(4, what)?.get(..small);
        let data = data.ok_or_else(|| from.wrong_at(at, format!("{what}: expected at most 4 bytes in a tag, got {small}")))?;
        return Ok((word & 0xffff, data));
    }
    let len = from.u32(what)? as usize;
    let data = from.take(len, what)?;
    if word != PACKED {
        from.take(len.wrapping_neg() % 8, "padding")?;
    }
    Ok((word, data))
}

/// The array in a matrix element; `None` where it has another name.
fn matrix(from: &mut Bytes, name: &str) -> Result<Option<Array>> {
    let mut part = |what: &str, kind: u32| -> Result<(usize, &[u8])> {
        let at = from.at();
        match element(from, what)? {
            (got, data) if got == kind => Ok((at, data)),
            (got, _) => Err(from.wrong_at(at, format!("{what}: expected type {kind}, got {got}"))),
        }
    };
    let (flags_at, flags) = part("array flags", UINT32)?;
    let (dims_at, dims) = part("dimensions", INT32)?;
    let (_, own_name) = part("name", INT8)?;
    if own_name != name.as_bytes() {
        return Ok(None);
    }
    let &[f0, f1, f2, f3, ..] = flags else {
        return Err(from.wrong_at(flags_at, format!("array flags: expected 8 bytes, got {}", flags.len())));
    };
    let flags = u32::from_le_bytes([f0, f1, f2, f3]);
    if !NUMERIC.contains(&(flags & 0xff)) || flags & COMPLEX != 0 {
        return Err(from.wrong_at(flags_at, format!("`{name}`: expected an array of real numbers, got flags {flags:#x}")));
    }
    if dims.len() % 4 != 0 || !(2..=MAX_DIMS).contains(&(dims.len() / 4)) {
        return Err(from.wrong_at(dims_at, format!("expected 2 to {MAX_DIMS} dimensions, got {} bytes", dims.len())));
    }
    let dims: Vec<u32> = dims.chunks_exact(4).map(|d| u32::from_le_bytes([d[0], d[1], d[2], d[3]])).collect();
    let count = dims.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim as usize));
    let at = from.at();
    let (kind, data) = element(from, "numbers")?;
    let values =
        numbers(kind, data).ok_or_else(|| from.wrong_at(at, format!("expected numbers, got {} bytes of type {kind}", data.len())))?;
    if count != Some(values.len()) {
        return Err(from.wrong_at(dims_at, format!("dimensions {dims:?} for {} numbers", values.len())));
    }
    if from.left() > 0 {
        return Err(from.wrong("expected the end of the variable"));
    }
    Ok(Some(Array { dims: dims.into_iter().map(|dim| dim as usize).collect(), values }))
}

/// Numbers of an element. MATLAB stores whole doubles as small integers, so every type can stand for every class.
fn numbers(kind: u32, data: &[u8]) -> Option<Vec<f64>> {
    fn all<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        let (chunks, rest) = data.as_chunks::<N>();
        rest.is_empty().then(|| chunks.iter().map(|chunk| number(*chunk)).collect())
    }
    match kind {
        INT8 => all(data, |b| f64::from(i8::from_le_bytes(b))),
        2 => all(data, |b| f64::from(u8::from_le_bytes(b))),
        3 => all(data, |b| f64::from(i16::from_le_bytes(b))),
        4 => all(data, |b| f64::from(u16::from_le_bytes(b))),
        INT32 => all(data, |b| f64::from(i32::from_le_bytes(b))),
        UINT32 => all(data, |b| f64::from(u32::from_le_bytes(b))),
        7 => all(data, |b| f64::from(f32::from_le_bytes(b))),
        9 => all(data, f64::from_le_bytes),
        12 => all(data, |b| i64::from_le_bytes(b) as f64),
        13 => all(data, |b| u64::from_le_bytes(b) as f64),
        _ => None,
    }
}

/// Files in the making, for tests.
#[cfg(test)]
pub(super) mod writing {
    use miniz_oxide::deflate::compress_to_vec_zlib;

    /// An element with tag and padding.
    pub fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut out = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        out.extend(data);
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }

    /// A matrix of any number type; `class` 6 is double.
    pub fn matrix(class: u32, name: &str, dims: &[i32], kind: u32, data: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
        let flags = [class.to_le_bytes(), [0; 4]].concat();
        element(14, &[element(6, &flags), element(5, &dims), element(1, name.as_bytes()), element(kind, data)].concat())
    }

    /// A matrix of doubles.
    pub fn doubles(name: &str, dims: &[i32], values: &[f64]) -> Vec<u8> {
        matrix(6, name, dims, 9, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// Packed as MATLAB does it: no padding.
    pub fn packed(data: &[u8]) -> Vec<u8> {
        let data = compress_to_vec_zlib(data, 6);
        [&15u32.to_le_bytes(), &(data.len() as u32).to_le_bytes(), &data[..]].concat()
    }

    pub fn file(variables: &[Vec<u8>]) -> Vec<u8> {
        let mut out = b"MATLAB 5.0 MAT-file".to_vec();
        out.resize(124, b' ');
        out.extend([0, 1, b'I', b'M']);
        out.extend(variables.concat());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::writing::{doubles, element, file, matrix, packed};
    use super::*;

    fn get(bytes: &[u8]) -> std::result::Result<Array, String> {
        variable(Path::new("x.mat"), bytes, "x").map_err(|e| e.to_string())
    }

    fn array(dims: &[usize], values: &[f64]) -> Array {
        Array { dims: dims.to_vec(), values: values.to_vec() }
    }

    #[test]
    fn plain_and_packed_variables_are_found_among_others() {
        let wanted = doubles("x", &[2, 1, 2], &[1.5, -2.0, 3.0, 4.25]);
        let cell = element(14, &[element(6, &[1, 0, 0, 0, 0, 0, 0, 0]), element(5, &[0; 8]), element(1, b"cell")].concat());
        let expected = array(&[2, 1, 2], &[1.5, -2.0, 3.0, 4.25]);
        assert_eq!(get(&file(&[cell.clone(), wanted.clone()])), Ok(expected.clone()));
        assert_eq!(get(&file(&[packed(&wanted), packed(&cell)])), Ok(expected));
    }

    #[test]
    fn every_number_type_is_read() {
        for (kind, data) in [
            (1, vec![7u8, 254]),
            (3, [7i16, -2].map(i16::to_le_bytes).concat()),
            (5, [7i32, -2].map(i32::to_le_bytes).concat()),
            (7, [7f32, -2.0].map(f32::to_le_bytes).concat()),
            (9, [7f64, -2.0].map(f64::to_le_bytes).concat()),
            (12, [7i64, -2].map(i64::to_le_bytes).concat()),
        ] {
            assert_eq!(get(&file(&[matrix(6, "x", &[1, 2], kind, &data)])), Ok(array(&[1, 2], &[7.0, -2.0])), "type {kind}");
        }
        for (kind, data) in [(2, vec![7u8, 254]), (4, vec![7, 0, 254, 0]), (6, vec![7, 0, 0, 0, 254, 0, 0, 0])] {
            assert_eq!(get(&file(&[matrix(6, "x", &[2, 1], kind, &data)])), Ok(array(&[2, 1], &[7.0, 254.0])), "type {kind}");
        }
        let small = [&[2u8, 0, 2, 0, 7, 9, 0, 0][..]].concat();
        let body = [element(6, &[6, 0, 0, 0, 0, 0, 0, 0]), element(5, &[2, 0, 0, 0, 1, 0, 0, 0]), vec![1, 0, 1, 0, b'x', 0, 0, 0], small];
        assert_eq!(get(&file(&[element(14, &body.concat())])), Ok(array(&[2, 1], &[7.0, 9.0])));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_byte() {
        let good = doubles("x", &[1, 1], &[1.0]);
        let mut big_endian = file(std::slice::from_ref(&good));
        big_endian[124..].copy_from_slice(&[&[1, 0, b'M', b'I'], &good[..]].concat());
        let mut hdf = file(std::slice::from_ref(&good));
        hdf[125] = 2;
        for (bytes, expected) in [
            (vec![], "byte 0"),
            (big_endian, "big-endian"),
            (hdf, "byte 124: expected version 5"),
            (file(&[]), "no variable `x`"),
            (file(&[doubles("y", &[1, 1], &[1.0])]), "no variable `x`"),
            (file(&[good.clone(), packed(&good)]), "byte 200: the variable `x` stands twice"),
            (file(&[element(9, &[0; 8])]), "byte 128: expected a matrix"),
            (file(&[matrix(1, "x", &[1, 1], 9, &[0; 8])]), "x.mat: byte 136: `x`: expected an array of real numbers"),
            (file(&[matrix(6 | COMPLEX, "x", &[1, 1], 9, &[0; 8])]), "array of real numbers"),
            (file(&[matrix(6, "x", &[1, 2], 9, &[0; 8])]), "dimensions [1, 2] for 1 numbers"),
            (file(&[packed(&matrix(6, "x", &[1, 2], 9, &[0; 8]))]), "variable packed at byte 128: byte 24: dimensions [1, 2]"),
            (file(&[matrix(6, "x", &[1], 9, &[0; 8])]), "2 to 8 dimensions"),
            (file(&[matrix(6, "x", &[1, 1], 9, &[0; 7])]), "7 bytes of type 9"),
            (file(&[matrix(6, "x", &[1, 1], 16, &[0; 8])]), "type 16"),
            (file(&[packed(&[good.clone(), good].concat())]), "packed at byte 128: byte 72: expected one matrix"),
        ] {
            let error = get(&bytes).unwrap_err();
            assert!(error.contains("x.mat") && error.contains(expected), "{error}, not: {expected}");
        }
    }

    #[test]
    fn absurd_sizes_are_refused() {
        // Each of these would ask for more memory than there is, or overflow.
        for dims in [[i32::MAX, i32::MAX, i32::MAX], [-1, -1, -1], [0, i32::MAX, 1]] {
            assert!(get(&file(&[doubles("x", &dims, &[1.0])])).unwrap_err().contains("dimensions"));
        }
        let mut long = file(&[doubles("x", &[1, 1], &[1.0])]);
        long[132..136].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(get(&long).unwrap_err().contains("expected 4294967295 bytes"));
        let bomb = packed(&vec![0; MAX_UNPACKED + 1]);
        assert!(bomb.len() < 100_000);
        assert!(get(&file(&[bomb])).unwrap_err().contains("at most 16777216 bytes"));
    }
}
