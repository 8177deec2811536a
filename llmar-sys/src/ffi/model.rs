//! Models: opened once, shared by any number of recognizers and threads.

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::sync::Arc;

use super::args;
use super::fence::{Poison, PoisonGuard, fence, fence_void};
use super::log::{LLMAR_LOG_INFO, LLMAR_LOG_WARN, log};
use super::status::{
    Failure, LLMAR_ERROR_INVALID_ARGUMENT, LLMAR_ERROR_INVALID_ENUM, LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_OUT_OF_MEMORY,
    LLMAR_ERROR_READER, llmar_status,
};
use super::types::{
    LLMAR_MODEL_BORROW, LLMAR_MODEL_VERIFY, LLMAR_NAME_BYTES, LLMAR_SCHEME_F16, LLMAR_SCHEME_F32, LLMAR_SCHEME_Q4, LLMAR_SCHEME_Q8,
    llmar_model_info, llmar_model_params, llmar_reader,
};
use crate::bytes::{Bytes, BytesBuilder};
use crate::device::{Place, Scheme};
use crate::recognizer::{Model, OpenOptions};

/// An opened checkpoint: immutable, reference counted, shared by recognizers of any thread. Opaque.
#[derive(Debug)]
pub struct llmar_model {
    pub(super) model: Arc<Model>,
    /// Texts of the model's labels, as `llmar_model_label` gives them.
    labels: Vec<CString>,
    poison: Poison,
}

impl llmar_model {
    /// What every entry point goes through before it uses the model.
    pub(super) fn enter(&self) -> Result<PoisonGuard<'_>, Failure> {
        self.poison.enter()
    }
}

/// Action tokens of a clip, [frames >> halvings].
pub(super) fn token_count(model: &Model) -> usize {
    let metadata = model.metadata();
    metadata.preprocess.frames >> metadata.encoder.halvings
}

/// Opens a .llmar file by mapping it: nothing is copied, and pages are read when they are needed. On a GPU the
/// weights are copied there.
///
/// path: UTF-8, also on Windows. The file must not be changed while the model lives; renaming a new one over it is fine. params: NULL for the
/// defaults. out: receives a model with one reference; free it with llmar_model_free.
///
/// Threads: any. Errors: LLMAR_ERROR_IO, LLMAR_ERROR_FORMAT, LLMAR_ERROR_VERSION, LLMAR_ERROR_LIMIT, LLMAR_ERROR_UNSUPPORTED,
/// LLMAR_ERROR_SHAPE, with LLMAR_MODEL_VERIFY also LLMAR_ERROR_CHECKSUM; LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_INVALID_ENUM (flags),
/// LLMAR_ERROR_INVALID_ARGUMENT (device). On a GPU also LLMAR_ERROR_NO_DRIVER, LLMAR_ERROR_OLD_DRIVER, LLMAR_ERROR_NO_GPU,
/// LLMAR_ERROR_GPU_ARCHITECTURE, LLMAR_ERROR_NO_KERNELS, LLMAR_ERROR_OUT_OF_MEMORY, LLMAR_ERROR_MEMORY_BUDGET, LLMAR_ERROR_DEVICE_FAULT; with
/// the device "auto" the first five become a warning in the log.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_model_open_path(
    path: *const c_char,
    params: *const llmar_model_params,
    out: *mut *mut llmar_model,
) -> llmar_status {
    fence("llmar_model_open_path", || {
        let out = args::out(out, "out")?;
        // SAFETY: NULL or as the header demands.
        let (path, (options, _)) = unsafe { (args::text(path, "path")?, options(params, LLMAR_MODEL_VERIFY)?) };
        let model = Model::open(Path::new(path), options)?;
        // SAFETY: `out` was checked.
        unsafe { hand_out(model, out) }
    })
}

/// Opens a checkpoint that is in memory.
///
/// data, size: the bytes of a .llmar file. They are copied, unless LLMAR_MODEL_BORROW is set in params->flags. out: as for
/// llmar_model_open_path.
///
/// Threads: any. Errors: as llmar_model_open_path, without LLMAR_ERROR_IO; LLMAR_ERROR_INVALID_ARGUMENT when borrowed memory does not start
/// at a multiple of 64; LLMAR_ERROR_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_model_open_memory(
    data: *const c_void,
    size: usize,
    params: *const llmar_model_params,
    out: *mut *mut llmar_model,
) -> llmar_status {
    fence("llmar_model_open_memory", || {
        let out = args::out(out, "out")?;
        let data = args::not_null(data.cast::<u8>(), "data")?;
        // SAFETY: as the header demands. For a borrowed model it also demands that the bytes stay as they are until the last handle is freed:
        // 'static to every view of them, all of which live inside these handles.
        let (bytes, (options, flags)): (&'static [u8], _) =
            unsafe { (args::slice(data, size, "data")?, options(params, LLMAR_MODEL_VERIFY | LLMAR_MODEL_BORROW)?) };
        let bytes = if flags & LLMAR_MODEL_BORROW == 0 {
            let mut copy = BytesBuilder::default();
            copy.spare(size).map_err(|_| no_memory(size))?.copy_from_slice(bytes);
            copy.fill(size);
            copy.finish()
        } else if data.addr().is_multiple_of(64) {
            Bytes::from_static(bytes)
        } else {
            let detail = format!("data: expected borrowed memory at a multiple of 64, got {data:p}");
            return Err(Failure::new(LLMAR_ERROR_INVALID_ARGUMENT, detail));
        };
        let model = Model::from_shared(bytes, options)?;
        // SAFETY: `out` was checked.
        unsafe { hand_out(model, out) }
    })
}

/// Opens a checkpoint that the caller's functions read, from its first byte to its last, before this returns.
///
/// reader: used during this call only. out: as for llmar_model_open_path. The bytes are kept in memory.
///
/// Threads: any; the functions are called on the calling thread. Errors: as llmar_model_open_memory; LLMAR_ERROR_READER when a function
/// returns a negative number (read only), more bytes than were asked for, or fewer or more in all than size said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_model_open_reader(
    reader: *const llmar_reader,
    params: *const llmar_model_params,
    out: *mut *mut llmar_model,
) -> llmar_status {
    fence("llmar_model_open_reader", || {
        let out = args::out(out, "out")?;
        // SAFETY: NULL or as the header demands.
        let (reader, (options, _)) = unsafe { (args::versioned(reader, "reader")?, options(params, LLMAR_MODEL_VERIFY)?) };
        args::reserved(reader.reserved, "reader->reserved")?;
        // SAFETY: functions and user pointer belong together, says the header.
        let bytes = unsafe { read_all(&reader) }?;
        let model = Model::from_shared(bytes, options)?;
        // SAFETY: `out` was checked.
        unsafe { hand_out(model, out) }
    })
}

/// Checks a .llmar file completely, its SHA-256 included, and keeps nothing open. Reads the whole file.
///
/// path: UTF-8. params: NULL for the defaults; LLMAR_MODEL_VERIFY is implied.
///
/// Threads: any. Errors: as llmar_model_open_path with LLMAR_MODEL_VERIFY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_model_verify_path(path: *const c_char, params: *const llmar_model_params) -> llmar_status {
    fence("llmar_model_verify_path", || {
        // SAFETY: NULL or as the header demands.
        let (path, (options, _)) = unsafe { (args::text(path, "path")?, options(params, LLMAR_MODEL_VERIFY)?) };
        Model::open(Path::new(path), OpenOptions { verify: true, ..options })?;
        Ok(())
    })
}

/// Describes a model.
///
/// info: the caller sets struct_size; the rest is written. Fields that are newer than this library become 0.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_NULL_POINTER, LLMAR_ERROR_STRUCT_SIZE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_model_get_info(model: *const llmar_model, info: *mut llmar_model_info) -> llmar_status {
    fence("llmar_model_get_info", || {
        // SAFETY: a model that is not freed yet, or NULL.
        let model = unsafe { args::borrow(model, "model") }?;
        let _guard = model.enter()?;
        let described = describe(&model.model)?;
        // SAFETY: NULL or as the header demands.
        unsafe { args::write_out(info, &described, "info") }
    })
}

/// Number of labels that the model was trained for.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_model_label_count(model: *const llmar_model, out_count: *mut usize) -> llmar_status {
    fence("llmar_model_label_count", || {
        // SAFETY: a model that is not freed yet, or NULL.
        let model = unsafe { args::borrow(model, "model") }?;
        let _guard = model.enter()?;
        let out = args::out(out_count, "out_count")?;
        // SAFETY: `out` was checked.
        unsafe { out.write(model.labels.len()) };
        Ok(())
    })
}

/// Text of one of the model's labels.
///
/// index: below llmar_model_label_count. out_text: receives NUL-terminated UTF-8 that belongs to the model and lives as long as it.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_INVALID_ARGUMENT (index), LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_model_label(model: *const llmar_model, index: usize, out_text: *mut *const c_char) -> llmar_status {
    fence("llmar_model_label", || {
        // SAFETY: a model that is not freed yet, or NULL.
        let model = unsafe { args::borrow(model, "model") }?;
        let _guard = model.enter()?;
        let out = args::out(out_text, "out_text")?;
        let label = args::element(&model.labels, index, "index")?;
        // SAFETY: `out` was checked.
        unsafe { out.write(label.as_ptr()) };
        Ok(())
    })
}

/// Adds a reference to a model: it then needs one more llmar_model_free.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_model_retain(model: *const llmar_model) -> llmar_status {
    fence("llmar_model_retain", || {
        // SAFETY: a model that is not freed yet, or NULL.
        let model = unsafe { args::borrow(model, "model") }?;
        // SAFETY: every `llmar_model` lies in an `Arc` and was handed out by `Arc::into_raw`.
        unsafe { Arc::increment_strong_count(model) };
        Ok(())
    })
}

/// Gives one reference back; the last one frees the model, unless a recognizer still needs it. NULL is allowed.
///
/// Threads: any, at once, each with its own reference. Errors: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_model_free(model: *mut llmar_model) {
    fence_void("llmar_model_free", || {
        if !model.is_null() {
            // SAFETY: handed out by `Arc::into_raw`, and the caller owns one reference.
            drop(unsafe { Arc::from_raw(model.cast_const()) });
        }
    });
}

/// How a model is to be opened, and the flags that were set, all of them within `allowed`.
///
/// # Safety
/// `params` is NULL or as [`args::versioned`] wants it, `params->device` NULL or a text.
unsafe fn options(params: *const llmar_model_params, allowed: u32) -> Result<(OpenOptions, u32), Failure> {
    // SAFETY: the caller's promise.
    let params = unsafe { args::versioned_or_default(params, "params") }?;
    let unknown = params.flags & !allowed;
    if unknown != 0 {
        return Err(Failure::new(LLMAR_ERROR_INVALID_ENUM, format!("params->flags: {unknown:#x} is not a flag of this function")));
    }
    let device = if params.device.is_null() {
        Place::Cpu
    } else {
        // SAFETY: the caller's promise.
        unsafe { args::text(params.device, "params->device") }?.parse()?
    };
    let verify = params.flags & LLMAR_MODEL_VERIFY != 0;
    Ok((OpenOptions { verify, device, memory_budget: params.memory_budget }, params.flags))
}

/// Gives the caller a handle with one reference.
///
/// # Safety
/// `out` may be written.
unsafe fn hand_out(model: Arc<Model>, out: *mut *mut llmar_model) -> Result<(), Failure> {
    let metadata = model.metadata();
    let labels = metadata.labels.iter().map(|label| args::c_text(&label.text, "label")).collect::<Result<_, _>>()?;
    log(LLMAR_LOG_INFO, || format!("opened model `{}`, {} bytes, on {}", metadata.name, model.file_len(), model.placed().name()));
    if let Some(reason) = model.fallback() {
        log(LLMAR_LOG_WARN, || format!("model `{}` runs on the CPU: {reason}", metadata.name));
    }
    let handle = Arc::new(llmar_model { model, labels, poison: Poison::default() });
    // SAFETY: the caller's promise. C never writes through the pointer, so losing `const` is harmless.
    unsafe { out.write(Arc::into_raw(handle).cast_mut()) };
    Ok(())
}

/// Everything that `reader` gives.
///
/// # Safety
/// `reader.read` and `reader.size` may be called with `reader.user`.
unsafe fn read_all(reader: &llmar_reader) -> Result<Bytes, Failure> {
    /// What is asked for at once: memory grows with what really comes, not with what `size` promises.
    const STEP: u64 = 4 << 20;
    let read = reader.read.ok_or_else(|| Failure::new(LLMAR_ERROR_NULL_POINTER, "reader->read: must not be NULL"))?;
    let promised = match reader.size {
        // SAFETY: the caller's promise.
        Some(size) => u64::try_from(unsafe { size(reader.user) }).ok(),
        None => None,
    };
    let mut bytes = BytesBuilder::default();
    loop {
        let old = bytes.len();
        // With a promise, one byte more is asked for than it says: a longer source must show.
        let want = promised.map_or(STEP, |size| (size - old as u64 + 1).min(STEP)) as usize;
        let room = bytes.spare(want).map_err(|_| no_memory(old + want))?;
        // SAFETY: `want` writable bytes; the rest is the caller's promise.
        let told = unsafe { read(reader.user, room.as_mut_ptr().cast(), want) };
        let Some(got) = usize::try_from(told).ok().filter(|got| *got <= want) else {
            return Err(broken(format!("returned {told} for a buffer of {want} after {old} bytes")));
        };
        bytes.fill(got);
        let all = (old + got) as u64;
        match promised {
            Some(size) if all > size => return Err(broken(format!("gave more than the {size} bytes that reader->size told"))),
            Some(size) if got == 0 && all < size => {
                return Err(broken(format!("ended after {all} of the {size} bytes that reader->size told")));
            }
            _ if got == 0 => return Ok(bytes.finish()),
            _ => {}
        }
    }
}

fn no_memory(size: usize) -> Failure {
    Failure::new(LLMAR_ERROR_OUT_OF_MEMORY, format!("no memory for {size} bytes of a checkpoint"))
}

fn broken(detail: String) -> Failure {
    Failure::new(LLMAR_ERROR_READER, format!("reader->read: {detail}"))
}

fn describe(model: &Model) -> Result<llmar_model_info, Failure> {
    let metadata = model.metadata();
    Ok(llmar_model_info {
        struct_size: size_of::<llmar_model_info>() as u32,
        format_version: metadata.format_version,
        file_bytes: model.file_len(),
        label_count: args::count32(metadata.labels.len(), "labels")?,
        token_count: args::count32(token_count(model), "tokens")?,
        code_count: args::count32(metadata.quantizer.codes, "codes")?,
        frames: args::count32(metadata.preprocess.frames, "frames")?,
        persons: args::count32(metadata.preprocess.persons, "persons")?,
        joints: args::count32(metadata.preprocess.joints.len(), "joints")?,
        coords: args::count32(metadata.preprocess.coords, "coords")?,
        causal: metadata.encoder.causal.into(),
        scheme: match metadata.scheme {
            Scheme::F32 => LLMAR_SCHEME_F32,
            Scheme::F16 => LLMAR_SCHEME_F16,
            Scheme::Q8 => LLMAR_SCHEME_Q8,
            Scheme::Q4 => LLMAR_SCHEME_Q4,
        },
        hidden_size: args::count32(metadata.llama.hidden_size, "hidden_size")?,
        layers: args::count32(metadata.llama.num_hidden_layers, "layers")?,
        vocab_size: args::count32(metadata.llama.vocab_size, "vocab_size")?,
        temperature: metadata.calibration.temperature,
        unknown_below: metadata.calibration.unknown_below,
        name: name_field(&metadata.name),
        producer: name_field(&metadata.producer),
        layout: name_field(&metadata.preprocess.layout),
        device: name_field(&model.placed().name()),
    })
}

fn name_field(text: &str) -> [c_char; LLMAR_NAME_BYTES] {
    let mut field = [0; LLMAR_NAME_BYTES];
    // SAFETY: the field's own length.
    unsafe { args::write_cut(text, field.as_mut_ptr(), field.len()) };
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source of `data` that gives at most `at_once` bytes a call and fails where told.
    struct Source {
        data: Vec<u8>,
        at: usize,
        at_once: usize,
        fail_at: usize,
    }

    unsafe extern "C" fn read(user: *mut c_void, buf: *mut c_void, len: usize) -> i64 {
        // SAFETY: `user` is the `Source` of the test.
        let source = unsafe { &mut *user.cast::<Source>() };
        let n = len.min(source.at_once).min(source.data.len() - source.at);
        if source.at >= source.fail_at {
            return -5;
        }
        // SAFETY: n ≤ len bytes of room, n bytes left in the source.
        unsafe { std::ptr::copy_nonoverlapping(source.data.as_ptr().add(source.at), buf.cast(), n) };
        source.at += n;
        n as i64
    }

    unsafe extern "C" fn read_too_much(_: *mut c_void, _: *mut c_void, len: usize) -> i64 {
        len as i64 + 1
    }

    unsafe extern "C" fn says_10_000(_: *mut c_void) -> i64 {
        10_000
    }

    unsafe extern "C" fn cannot_say(_: *mut c_void) -> i64 {
        -1
    }

    fn run(bytes: usize, at_once: usize, fail_at: usize, size: super::super::llmar_size_fn) -> Result<Bytes, Failure> {
        let mut source = Source { data: (0..bytes).map(|i| (i % 251) as u8).collect(), at: 0, at_once, fail_at };
        let user = (&raw mut source).cast();
        // SAFETY: functions and source belong together.
        unsafe { read_all(&llmar_reader { struct_size: 32, reserved: 0, user, read: Some(read), size }) }
    }

    #[test]
    fn readers_that_keep_their_word() {
        for (at_once, size) in
            [(1, None), (7, Some(says_10_000 as _)), (usize::MAX, Some(cannot_say as _)), (10_000, Some(says_10_000 as _))]
        {
            let bytes = run(10_000, at_once, usize::MAX, size).unwrap();
            assert!(bytes.len() == 10_000 && bytes.as_slice().iter().enumerate().all(|(i, b)| usize::from(*b) == i % 251));
        }
    }

    #[test]
    fn readers_that_do_not() {
        for (bytes, fail_at, size) in
            [(9_999, usize::MAX, Some(says_10_000 as _)), (10_001, usize::MAX, Some(says_10_000 as _)), (10_000, 5_000, None), (0, 0, None)]
        {
            assert_eq!(run(bytes, 512, fail_at, size).unwrap_err().status, LLMAR_ERROR_READER);
        }
        let reader = |read| llmar_reader { struct_size: 32, reserved: 0, user: std::ptr::null_mut(), read, size: None };
        // SAFETY: the function does not touch its arguments.
        assert_eq!(unsafe { read_all(&reader(Some(read_too_much))) }.unwrap_err().status, LLMAR_ERROR_READER);
        // SAFETY: nothing is called.
        assert_eq!(unsafe { read_all(&reader(None)) }.unwrap_err().status, LLMAR_ERROR_NULL_POINTER);
    }
}
