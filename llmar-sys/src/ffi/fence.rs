//! What every entry point goes through: a panic becomes a status, a failure leaves its detail, nothing is printed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use super::last_error;
use super::log::{LLMAR_LOG_DEBUG, LLMAR_LOG_ERROR, log};
use super::status::{Failure, LLMAR_ERROR_PANIC, LLMAR_ERROR_POISONED, LLMAR_OK, llmar_status};

thread_local! {
    /// Entry points of this library on this thread's stack.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic inside a fence happened.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the body of the entry point `name`.
///
/// `AssertUnwindSafe` is right because whatever a panic could leave half changed is guarded by [`Poison`] or a `Mutex`.
pub(super) fn fence(name: &str, body: impl FnOnce() -> Result<(), Failure>) -> llmar_status {
    silence_panics();
    let _inside = Inside::enter();
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return LLMAR_OK,
        Ok(Err(failure)) => {
            log(LLMAR_LOG_DEBUG, || format!("{name}: {}", failure.detail));
            failure
        }
        Err(payload) => {
            let place = PLACE.take();
            let failure = Failure::new(LLMAR_ERROR_PANIC, format!("internal error at {place}: {}", panic_text(payload)));
            log(LLMAR_LOG_ERROR, || format!("{name}: {}", failure.detail));
            failure
        }
    };
    last_error::set(format!("{name}: {}", failure.detail));
    failure.status
}

/// The same for functions that return nothing.
pub(super) fn fence_void(name: &str, body: impl FnOnce()) {
    fence(name, || {
        body();
        Ok(())
    });
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&'static str>() {
            Ok(text) => (*text).to_owned(),
            Err(payload) => {
                // Dropping a payload of an unknown type could panic again.
                std::mem::forget(payload);
                "panic without a text".to_owned()
            }
        },
    }
}

/// Counts this thread's way into the library.
struct Inside;

impl Inside {
    fn enter() -> Self {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() - 1));
    }
}

/// Keeps the panics of this library off stderr. The hook only takes those that a fence will catch: on a thread that is inside an entry
/// point, or on one of the library's own workers. A Rust program that links this crate keeps its own hook for everything else.
fn silence_panics() {
    static INSTALL: Once = Once::new();
    if std::thread::panicking() {
        return; // the hook cannot be changed now; a later call does it
    }
    INSTALL.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let inside = DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false);
            let worker = std::thread::current().name().is_some_and(|name| name.starts_with("llmar"));
            if !inside && !worker {
                return previous(info);
            }
            let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            let _ = PLACE.try_with(|cell| cell.try_borrow_mut().map(|mut last| *last = place));
        }));
    });
}

/// Remembers that a call on a handle panicked. For handles that several threads use at once; the others have a `Mutex`, which does the same.
#[derive(Debug, Default)]
pub(super) struct Poison(AtomicBool);

impl Poison {
    /// `Err` when the handle is poisoned; otherwise the handle will be if the thread panics while the guard lives.
    pub fn enter(&self) -> Result<PoisonGuard<'_>, Failure> {
        if self.0.load(Ordering::Acquire) { Err(poisoned()) } else { Ok(PoisonGuard(self)) }
    }
}

/// See [`Poison::enter`].
#[derive(Debug)]
pub(super) struct PoisonGuard<'a>(&'a Poison);

impl Drop for PoisonGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.store(true, Ordering::Release);
        }
    }
}

/// The failure of every call on a poisoned handle.
pub(super) fn poisoned() -> Failure {
    Failure::new(LLMAR_ERROR_POISONED, "an earlier call on this handle ended with an internal error; free it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::last_error::llmar_last_error;

    fn detail() -> String {
        let mut buf = [0u8; 512];
        // SAFETY: 512 writable bytes.
        let needed = unsafe { llmar_last_error(buf.as_mut_ptr().cast(), buf.len()) };
        String::from_utf8(buf[..needed - 1].to_vec()).unwrap()
    }

    #[test]
    fn a_panic_becomes_a_status_with_its_text_and_place() {
        assert_eq!(fence("llmar_probe", || panic!("bone {} is broken", 7)), LLMAR_ERROR_PANIC);
        assert!(detail().starts_with("llmar_probe: internal error at "), "{}", detail());
        assert!(detail().contains("fence.rs") && detail().ends_with("bone 7 is broken"), "{}", detail());

        assert_eq!(fence("llmar_probe", || std::panic::panic_any(17_u64)), LLMAR_ERROR_PANIC);
        assert!(detail().ends_with("panic without a text"), "{}", detail());
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn a_panic_poisons_the_handle_it_happened_in_and_no_other() {
        let (broken, sound) = (Poison::default(), Poison::default());
        let call = |poison: &Poison, fail: bool| {
            fence("llmar_probe", || {
                let _guard = poison.enter()?;
                assert!(!fail, "on purpose");
                Ok(())
            })
        };
        assert_eq!(call(&broken, false), LLMAR_OK);
        assert_eq!(call(&broken, true), LLMAR_ERROR_PANIC);
        assert_eq!(call(&broken, false), LLMAR_ERROR_POISONED);
        assert_eq!(call(&sound, false), LLMAR_OK);
    }
}
