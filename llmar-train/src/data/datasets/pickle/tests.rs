//! The machine on pickles written by hand; those that Python wrote are read in `pyskl`'s tests.

use super::*;

fn parsed(input: &[u8]) -> Result<Pickle<'_>> {
    parse(Path::new("made.pkl"), input)
}

/// The error of protocol 4 and `program`.
fn error(program: &[u8]) -> String {
    parsed(&[b"\x80\x04", program].concat()).map(drop).unwrap_err().to_string()
}

#[test]
fn plain_objects_are_read() -> Result<()> {
    let pickle = parsed(
        b"\x80\x02}(X\x01\x00\x00\x00aK\x07X\x01\x00\x00\x00b](M\x01\x02J\xff\xff\xff\xff\x8a\x00\x8a\x02\x00\xff\
          \x8b\x01\x00\x00\x00\x80eX\x01\x00\x00\x00c\
          (N\x88\x89G\x3f\xf8\x00\x00\x00\x00\x00\x00tX\x01\x00\x00\x00aK\x08u.",
    )?;
    let root = pickle.root();
    assert_eq!(pickle.get(root, "a").and_then(|id| pickle.int(id)), Some(8)); // the last of two
    let list = pickle.get(root, "b").and_then(|id| pickle.items(id)).unwrap();
    assert_eq!(list.iter().map(|&id| pickle.int(id)).collect::<Vec<_>>(), [0x201, -1, 0, -256, -128].map(Some));
    let tuple = pickle.get(root, "c").and_then(|id| pickle.items(id)).unwrap();
    let nodes: Vec<_> = tuple.iter().map(|&id| pickle.node(id).clone()).collect();
    assert_eq!(nodes, [Node::None, Node::Bool(true), Node::Bool(false), Node::Float]);
    assert_eq!((pickle.get(root, "d"), pickle.text(root), pickle.array(root)), (None, None, None));
    Ok(())
}

#[test]
fn a_list_may_hold_itself() -> Result<()> {
    let pickle = parsed(b"\x80\x02]q\x00h\x00a.")?;
    assert_eq!(pickle.items(pickle.root()), Some(&[pickle.root()][..]));
    // Filled after it was remembered: both places see it.
    let pickle = parsed(b"\x80\x04(]\x94h\x00K\x05at.")?;
    let [first, second] = pickle.items(pickle.root()).unwrap() else { panic!("two lists") };
    assert_eq!((first, pickle.items(*second).map(<[Id]>::len)), (second, Some(1)));
    Ok(())
}

#[test]
fn a_file_runs_nothing() {
    // What `os.system("echo")` and its like are pickled as.
    for (program, name, byte) in [
        (&b"cos\nsystem\n\x8c\x04echo\x85R."[..], "os.system", 2),
        (b"\x8c\x05posix\x8c\x06system\x93\x8c\x04echo\x85R.", "posix.system", 17),
        (b"Nc__builtin__\neval\n\x8c\x01a\x85R.", "__builtin__.eval", 3),
        (b"\x8c\x08builtins\x8c\x07getattr\x93.", "builtins.getattr", 21),
        (b"cnumpy.core.multiarray\nfromfile\n.", "numpy.core.multiarray.fromfile", 2),
        (b"cnumpy\nload\n.", "numpy.load", 2),
        (b"c_codecs\ndecode\n.", "_codecs.decode", 2),
    ] {
        let error = error(program);
        assert!(error.contains(&format!("byte {byte}: the file names {name},")), "{error}");
    }
    // Names that are known, in places where they mean something else.
    for program in [
        &b"cnumpy\nndarray\nK\x01\x85R."[..],
        b"c_codecs\nencode\n\x8c\x01a\x8c\x05utf-8\x86R.",
        b"c_codecs\nencode\n\x8c\x03\xe2\x82\xac\x8c\x06latin1\x86R.",
        b"ccollections\nOrderedDict\nK\x01\x85R.",
        b"ccollections\nOrderedDict\nK\x01\x85\x81.",
        b"cbuiltins\nbytes\nK\x7f\x85R.",
        b"K\x01)R.",
        b"K\x01)\x81.",
        b"}}b.",
        b"})b.",
    ] {
        assert!(error(program).contains("made.pkl: byte "), "{:?}", String::from_utf8_lossy(program));
    }
}

#[test]
fn lengths_are_bounded_by_the_file() {
    for (program, detail) in [
        (&b"X\xff\xff\xff\xffab."[..], "byte 2: a length of 4294967295 where 3 bytes are left"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", "byte 2: a length of 18446744073709551615 where 3"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.", "byte 2: a length of 9223372036854775807 where 3"),
        (b"\x96\x04\x00\x00\x00\x00\x00\x00\x00ab.", "byte 2: a length of 4 where 3"),
        (b"\x95\xff\xff\xff\xff\xff\xff\xff\xff.", "byte 2: a length of 18446744073709551615 where 1"),
        (b"C\x05ab.", "byte 2: a length of 5 where 3"),
        (b"\x8b\xff\xff\xff\x7f.", "byte 2: a length of 2147483647 where 1"),
        (b"\x8a\x09123456789.", "byte 2: an integer of 9 bytes"),
        (b"h\x07.", "byte 2: no memo entry 7"),
        (b"j\xff\xff\xff\xff.", "byte 2: no memo entry 4294967295"),
        (b"K", "byte 2: expected 1 more bytes, got 0"),
    ] {
        let error = error(program);
        assert!(error.contains(detail), "{error}");
    }
    // A place in the memo is a key, not a size.
    assert!(parsed(b"\x80\x02Nr\xff\xff\xff\xff.").is_ok());
    let long = [b"c".to_vec(), vec![b'a'; 257], b"\na\n.".to_vec()].concat();
    assert!(error(&long).contains("byte 2: a name without an end"));
}

#[test]
fn the_stack_is_checked() {
    for (program, detail) in [
        (&b"."[..], "expected one object at the end, got 0"),
        (b"NN.", "expected one object at the end, got 2"),
        (b"N(.", "expected one object"),
        (b"N.N", "1 bytes after the end"),
        (b"t.", "no mark is left"),
        (b"N\x86.", "nothing is left"),
        (b"N(\x85.", "nothing is left"), // what is below a mark is not taken
        (b"]NNs.", "expected a dict"),
        (b"}Na.", "expected a list"),
        (b"}(Nu.", "expected as many values as keys"),
        (b"\x94.", "nothing is left"),
        (b"NK\x01\x93.", "expected the names of a global"),
        (b"0.", "opcode 30 is none"),
        (b"X\x01\x00\x00\x00\xff.", "byte 7 is not UTF-8"),
        (b"\x80\x04N.", "opcode 80 is none"),
    ] {
        let error = error(program);
        assert!(error.contains(detail), "{error}");
    }
    for start in [&b"\x80\x01N."[..], b"\x80\x06N.", b"PK\x03\x04", b"(dp0\n."] {
        assert!(parsed(start).map(drop).unwrap_err().to_string().contains("expected a pickle of protocol 2 to 5"));
    }
}

/// `_frombuffer(data, dtype, shape, order)`, protocol 5.
fn array(data: &[u8], dtype: &str, order: &[u8], shape: &[u8]) -> Vec<u8> {
    let dtype =
        [b"cnumpy\ndtype\n\x8c", &[dtype.len() as u8][..], dtype.as_bytes(), b"\x89\x88\x87R(K\x03\x8c\x01", order, b"NNNtb"].concat();
    [b"\x80\x05cnumpy.core.numeric\n_frombuffer\n(C", &[data.len() as u8][..], data, &dtype, shape, b"\x8c\x01CtR."].concat()
}

#[test]
fn arrays_are_checked() -> Result<()> {
    let file = array(&[0, 0x3c, 0, 0xc0], "f2", b"<", b"K\x02\x85");
    let pickle = parsed(&file)?;
    let found = pickle.array(pickle.root()).unwrap();
    assert_eq!((&found.shape[..], found.dtype, found.fortran), (&[2][..], Dtype { kind: 'f', size: 2 }, false));
    assert_eq!(found.dtype.floats(&file[found.data.range()]), Some(vec![1.0, -2.0]));
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    for (file, detail) in [
        (array(&[0; 4], "f2", b"<", b"K\x03\x85"), "4 bytes of data for an array [3] of f2"),
        (array(&[0; 4], "f2", b">", b"K\x02\x85"), "byte order of a dtype: expected `<`, got \">\""),
        (array(&[0; 4], ">f2", b"<", b"K\x02\x85"), "dtype: expected one like f4"),
        (array(&[0; 4], "f", b"<", b"K\x02\x85"), "dtype: expected one like f4"),
        (array(&[0; 4], "f2", b"<", b"J\xff\xff\xff\xff\x85"), "expected sizes of at least 0"),
        (array(&[0; 4], "f2", b"<", &[&huge[..], huge, huge, b"\x87"].concat()), "4 bytes of data for an array"),
    ] {
        let error = parsed(&file).map(drop).unwrap_err().to_string();
        assert!(error.contains(detail), "{error}");
    }
    // An array whose state never came is none.
    let bare = parsed(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R.")?;
    assert_eq!((bare.node(bare.root()), bare.array(bare.root())), (&Node::Array(None), None));
    Ok(())
}

#[test]
fn numbers_of_a_dtype_are_read() -> Result<()> {
    let file = |dtype: &str, data: &[u8]| {
        let dtype = [b"cnumpy\ndtype\n\x8c", &[dtype.len() as u8][..], dtype.as_bytes(), b"\x89\x88\x87R"].concat();
        [b"\x80\x03cnumpy._core.multiarray\nscalar\n", &dtype[..], b"C", &[data.len() as u8], data, b"\x86R."].concat()
    };
    for (dtype, data, expected) in [
        ("i8", &[5, 0, 0, 0, 0, 0, 0, 0][..], Node::Int(5)),
        ("i2", &[0xfe, 0xff], Node::Int(-2)),
        ("u1", &[0xfe], Node::Int(254)),
        ("u8", &[0, 0, 0, 0, 0, 0, 0, 0x7f], Node::Int(0x7f << 56)),
        ("b1", &[1], Node::Bool(true)),
        ("f4", &[0; 4], Node::Float),
    ] {
        let file = file(dtype, data);
        let pickle = parsed(&file)?;
        assert_eq!(pickle.node(pickle.root()), &expected, "{dtype}");
    }
    for (dtype, data) in [("i8", &[0; 4][..]), ("i4", &[0; 8]), ("u8", &[0xff; 8]), ("U1", &[0; 4]), ("f16", &[0; 16])] {
        assert!(parsed(&file(dtype, data)).map(drop).unwrap_err().to_string().contains("made.pkl: byte"), "{dtype}");
    }
    Ok(())
}

#[test]
fn bytes_written_as_text_are_decoded() -> Result<()> {
    let file = b"\x80\x02c_codecs\nencode\nX\x05\x00\x00\x00a\xc3\xbf\xc2\x80X\x06\x00\x00\x00latin1\x86R.";
    let pickle = parsed(file)?;
    let Node::Bytes(chunk) = pickle.node(pickle.root()) else { panic!("bytes") };
    assert_eq!(chunk.decode(file[chunk.range()].to_vec()), Some(vec![b'a', 0xff, 0x80]));
    assert_eq!(chunk.decode(b"abcde".to_vec()), None); // the file was changed
    assert_eq!(chunk.decode(b"a\xff\xff\xff\xff".to_vec()), None);
    Ok(())
}
