//! What a measurement needs: time on the GPU, and the ceilings of its memory.

use cudarc::driver::sys::CUevent_flags;

use super::Cuda;
use crate::error::Result;

impl Cuda {
    /// Seconds that `work`, put on the stream `repeats` times, takes on the GPU, for one time. Median of five such runs, after one to warm up.
    pub fn seconds(&self, repeats: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
        const CALL: &str = "timing";
        let repeats = repeats.max(1);
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        work()?;
        self.synchronize()?;
        let mut runs = Vec::with_capacity(5);
        for _ in 0..5 {
            let start = self.gpu.check(CALL, self.stream.cuda.record_event(timed))?;
            for _ in 0..repeats {
                work()?;
            }
            let end = self.gpu.check(CALL, self.stream.cuda.record_event(timed))?;
            let milliseconds = self.gpu.check(CALL, start.elapsed_ms(&end))?;
            runs.push(f64::from(milliseconds) / 1e3 / repeats as f64);
        }
        self.synchronize()?;
        runs.sort_by(f64::total_cmp);
        Ok(runs[2])
    }

    /// Bytes read and written a second by a copy of `bytes` from one place of its memory to another.
    pub fn copy_bandwidth(&self, bytes: usize) -> Result<f64> {
        const WHAT: &str = "measuring the bandwidth";
        let (mut from, mut to) = (self.memory(), self.memory());
        from.reserve(WHAT, bytes)?;
        to.reserve(WHAT, bytes)?;
        from.clear(WHAT, bytes)?;
        let time = self.seconds(10, || to.copy_from(WHAT, &from, bytes))?;
        Ok(2.0 * bytes as f64 / time)
    }
}
