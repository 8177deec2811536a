//! Skeleton layouts: which joint stands where.

use std::ffi::{CString, c_char};
use std::sync::{Mutex, PoisonError};

use super::args;
use super::fence::fence;
use super::status::{Failure, llmar_status};
use crate::skeleton::{Layout, all_layouts};

/// A layout's texts as C reads them.
struct Texts {
    name: CString,
    joints: Vec<CString>,
}

/// Texts that were asked for. A layout never changes and never goes away, and their number is limited, so these stay for ever.
static TEXTS: Mutex<Vec<&'static Texts>> = Mutex::new(Vec::new());

fn texts(layout: &Layout) -> Result<&'static Texts, Failure> {
    // Nothing panics while the list is held, and it cannot be half changed.
    let mut all = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.iter().find(|known| known.name.as_bytes() == layout.name.as_bytes()) {
        return Ok(known);
    }
    let joints = layout.joints.iter().map(|joint| args::c_text(joint, "joint")).collect::<Result<_, _>>()?;
    let new: &'static Texts = Box::leak(Box::new(Texts { name: args::c_text(&layout.name, "layout")?, joints }));
    all.push(new);
    Ok(new)
}

/// Number of layouts that are known: the built-in ones, then those that were registered.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_layout_count(out_count: *mut usize) -> llmar_status {
    fence("llmar_layout_count", || {
        let out = args::out(out_count, "out_count")?;
        // SAFETY: `out` was checked.
        unsafe { out.write(all_layouts().len()) };
        Ok(())
    })
}

/// Name of a layout, for example "ntu25".
///
/// index: below llmar_layout_count; the name at an index never changes. out_text: receives a text that lives as long as the process.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_INVALID_ARGUMENT (index), LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_layout_name(index: usize, out_text: *mut *const c_char) -> llmar_status {
    fence("llmar_layout_name", || {
        let out = args::out(out_text, "out_text")?;
        let texts = texts(args::element(&all_layouts(), index, "index")?)?;
        // SAFETY: `out` was checked.
        unsafe { out.write(texts.name.as_ptr()) };
        Ok(())
    })
}

/// Number of joints of a layout.
///
/// layout: name, UTF-8.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_UNKNOWN_LAYOUT, LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_layout_joint_count(layout: *const c_char, out_count: *mut usize) -> llmar_status {
    fence("llmar_layout_joint_count", || {
        let out = args::out(out_count, "out_count")?;
        // SAFETY: NULL or as the header demands.
        let layout = Layout::find(unsafe { args::text(layout, "layout") }?)?;
        // SAFETY: `out` was checked.
        unsafe { out.write(layout.joints.len()) };
        Ok(())
    })
}

/// Name of a joint of a layout.
///
/// layout: name, UTF-8. joint: below llmar_layout_joint_count, in the order in which clips hold them. out_text: receives a text that lives as
/// long as the process.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_UNKNOWN_LAYOUT, LLMAR_ERROR_INVALID_ARGUMENT (joint), LLMAR_ERROR_INVALID_UTF8,
/// LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_layout_joint_name(layout: *const c_char, joint: usize, out_text: *mut *const c_char) -> llmar_status {
    fence("llmar_layout_joint_name", || {
        let out = args::out(out_text, "out_text")?;
        // SAFETY: NULL or as the header demands.
        let layout = Layout::find(unsafe { args::text(layout, "layout") }?)?;
        let name = args::element(&texts(&layout)?.joints, joint, "joint")?;
        // SAFETY: `out` was checked.
        unsafe { out.write(name.as_ptr()) };
        Ok(())
    })
}

/// Makes a layout known to the whole process, so that clips can name it.
///
/// name: UTF-8. joints: count names, UTF-8, in the order in which clips hold them; they are matched with the names of the built-in joints
/// and their synonyms, ignoring case, spaces, '-' and '_'. Registering the same name with the same joints again does nothing.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_INVALID_ARGUMENT (a name in use with other joints, an empty or double name),
/// LLMAR_ERROR_LIMIT (more than 256 layouts, 256 joints or 128 bytes a name), LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_layout_register(name: *const c_char, joints: *const *const c_char, count: usize) -> llmar_status {
    fence("llmar_layout_register", || {
        // SAFETY: NULL or as the header demands.
        let (name, joints) = unsafe { (args::text(name, "name")?, args::texts(args::not_null(joints, "joints")?, count, "joints")?) };
        Layout::register(name, &joints)?;
        Ok(())
    })
}
