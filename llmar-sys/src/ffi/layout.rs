//! Skeleton layouts: which joint stands where.

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char};
use std::sync::{Mutex, PoisonError};

use super::args;
use super::fence::fence;
use super::status::{Failure, llmar_status};
use crate::skeleton::{Layout, all_layouts};

/// Names of layouts and joints that were asked for, as C reads them. They are those of whole layouts, of which the number is limited and none goes
/// away, so these stay for ever. (A layout without some of its joints has the joints of the whole one, and no name here.)
static TEXTS: Mutex<BTreeSet<&'static CStr>> = Mutex::new(BTreeSet::new());

fn lasting(text: &str, what: &'static str) -> Result<*const c_char, Failure> {
    let text = args::c_text(text, what)?;
    // Nothing panics while the set is held, and it cannot be half changed.
    let mut all = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.get(text.as_c_str()) {
        return Ok(known.as_ptr());
    }
    let new: &'static CStr = Box::leak(text.into_boxed_c_str());
    all.insert(new);
    Ok(new.as_ptr())
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
        let name = lasting(&args::element(&all_layouts(), index, "index")?.name, "layout")?;
        // SAFETY: `out` was checked.
        unsafe { out.write(name) };
        Ok(())
    })
}

/// Number of joints of a layout.
///
/// layout: name, UTF-8. "kinect1_20 without spine, left_foot" is a layout too, in every place where one is named: a known one with fewer joints.
///
/// Threads: any, at once. Errors: LLMAR_ERROR_UNKNOWN_LAYOUT, LLMAR_ERROR_INVALID_ARGUMENT (a joint after "without" that is not there),
/// LLMAR_ERROR_LIMIT (a name beyond 128 bytes), LLMAR_ERROR_INVALID_UTF8, LLMAR_ERROR_NULL_POINTER.
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
/// Threads: any, at once. Errors: LLMAR_ERROR_UNKNOWN_LAYOUT, LLMAR_ERROR_INVALID_ARGUMENT (joint), LLMAR_ERROR_LIMIT, LLMAR_ERROR_INVALID_UTF8,
/// LLMAR_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llmar_layout_joint_name(layout: *const c_char, joint: usize, out_text: *mut *const c_char) -> llmar_status {
    fence("llmar_layout_joint_name", || {
        let out = args::out(out_text, "out_text")?;
        // SAFETY: NULL or as the header demands.
        let layout = Layout::find(unsafe { args::text(layout, "layout") }?)?;
        let name = lasting(args::element(&layout.joints, joint, "joint")?, "joint")?;
        // SAFETY: `out` was checked.
        unsafe { out.write(name) };
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
