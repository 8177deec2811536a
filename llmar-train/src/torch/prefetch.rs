//! Data made ready on a thread of its own, so that no step waits for it.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Steps whose data lies ready at most.
const AHEAD: usize = 2;

/// What [`prefetched`] hands out, in order.
#[derive(Debug)]
pub struct Source<T> {
    ready: Receiver<Result<T>>,
    waited: Duration,
}

impl<T> Source<T> {
    /// The next step's data.
    ///
    /// # Errors
    /// What went wrong while it was made.
    pub fn take(&mut self) -> Result<T> {
        let start = Instant::now();
        let next = self.ready.recv().unwrap_or_else(|_| Err(Error::format("training data", "asked for beyond the last step")));
        self.waited += start.elapsed();
        next
    }

    /// How long it was waited for so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

/// Runs `body` while another thread makes the data of `steps` ready, a few steps ahead. What a step's data is depends on `make` and the step
/// alone, never on how far ahead it was made. When `body` returns early, the thread ends too.
pub fn prefetched<T: Send, R>(
    steps: Range<usize>,
    make: impl Fn(usize) -> Result<T> + Sync,
    body: impl FnOnce(&mut Source<T>) -> Result<R>,
) -> Result<R> {
    std::thread::scope(|scope| {
        let (sender, ready) = sync_channel(AHEAD);
        let make = &make;
        scope.spawn(move || {
            for step in steps {
                let made = make(step);
                let failed = made.is_err();
                // A closed channel means that nobody wants more.
                if sender.send(made).is_err() || failed {
                    break;
                }
            }
        });
        let mut source = Source { ready, waited: Duration::ZERO };
        body(&mut source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_comes_in_order_and_errors_where_they_happen() -> Result<()> {
        let make = |step: usize| if step == 5 { Err(Error::format("step", "five")) } else { Ok(step * step) };
        let got = prefetched(2..9, make, |source| {
            let first: Vec<usize> = (2..5).map(|_| source.take()).collect::<Result<_>>()?;
            assert!(source.take().is_err_and(|e| e.to_string().contains("five")));
            assert!(source.take().is_err_and(|e| e.to_string().contains("last step")));
            Ok(first)
        })?;
        assert_eq!(got, [4, 9, 16]);
        // A body that stops early does not hang.
        prefetched(0..1_000_000, |step| Ok(vec![0u8; step % 7]), |source| source.take().map(|_| ()))
    }
}
