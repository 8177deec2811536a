//! Counters and latencies of a stream: fixed memory, whatever comes.

use std::time::Duration;

/// What a stream has done since it was made or its statistics were last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamStats {
    /// Frames taken, a body's frame each.
    pub frames: u64,
    /// Frames refused with an error.
    pub refused_frames: u64,
    /// Frames in which no joint of the model was seen, or that came before a body could be placed.
    pub unseen_frames: u64,
    /// Action tokens made.
    pub tokens: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Decisions that were not made because they would have been late.
    pub skipped_decisions: u64,
    /// Events dropped because nobody took them.
    pub dropped_events: u64,
    /// Windows that were full and begun anew with their last half.
    pub reanchored: u64,
    /// Bodies that began a new window after a gap.
    pub gaps: u64,
    /// Passes through the language model, and rows of them.
    pub passes: u64,
    /// Rows of all passes.
    pub rows: u64,
    /// Bodies now.
    pub bodies: u64,
    /// Frames that wait now.
    pub queued_frames: u64,
    /// Events that wait now.
    pub queued_events: u64,
    /// From the push of the newest frame that a decision needed until it was there.
    pub latency: Percentiles,
    /// Time of one update: all bodies whose decision was due, together.
    pub update: Percentiles,
}

/// A distribution of times in nanoseconds; each percentile is at most 1/16 too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of the times are not above it.
    pub p50_ns: u64,
    /// Nine of ten.
    pub p90_ns: u64,
    /// 99 of a hundred.
    pub p99_ns: u64,
    /// 999 of a thousand.
    pub p999_ns: u64,
    /// The largest, exactly.
    pub max_ns: u64,
}

/// Times below 2^4 ns have a bucket each; above, every octave has 16.
const BUCKETS: usize = 61 * 16;

/// Counts of times in buckets that grow with the time.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0, max: 0 }
    }

    pub fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.max = self.max.max(ns);
    }

    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.total, self.max) = (0, 0);
    }

    pub fn percentiles(&self) -> Percentiles {
        let at = |per_mille: u64| {
            let wanted = (self.total * per_mille).div_ceil(1000).max(1);
            let mut seen = 0;
            for (i, count) in self.counts.iter().enumerate() {
                seen += count;
                if seen >= wanted {
                    return upper(i).min(self.max);
                }
            }
            self.max
        };
        if self.total == 0 {
            return Percentiles::default();
        }
        Percentiles { p50_ns: at(500), p90_ns: at(900), p99_ns: at(990), p999_ns: at(999), max_ns: self.max }
    }
}

/// Bucket of a time: the value itself below 16, then octave and the four bits below its highest.
fn bucket(ns: u64) -> usize {
    if ns < 16 {
        return ns as usize;
    }
    let octave = 63 - ns.leading_zeros() as usize; // 4..=63
    (octave - 3) * 16 + (ns >> (octave - 4)) as usize - 16
}

/// Largest time of a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let (octave, part) = (bucket / 16 + 3, (bucket % 16) as u64);
    // In the last bucket the sum would leave u64.
    ((16 + part + 1) << (octave - 4)).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_hold_their_times() {
        let mut times: Vec<u64> = (0..4096).collect();
        times.extend((12..64).flat_map(|octave| [1_u64 << octave, (1_u64 << octave) + 1, (1_u64 << octave) + (1_u64 << (octave - 1))]));
        times.push(u64::MAX);
        times.sort_unstable();
        for pair in times.windows(2) {
            assert!(bucket(pair[0]) <= bucket(pair[1]), "{pair:?}");
        }
        for time in times {
            let top = upper(bucket(time));
            assert!(bucket(time) < BUCKETS && top >= time && (top - time) as f64 <= time as f64 / 16.0, "{time}: {top}");
        }
    }

    #[test]
    fn percentiles_are_at_most_a_sixteenth_too_large() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentiles(), Percentiles::default());
        for us in 1..=10_000 {
            histogram.add(Duration::from_micros(us));
        }
        let got = histogram.percentiles();
        for (got, exact) in [(got.p50_ns, 5_000_000), (got.p90_ns, 9_000_000), (got.p99_ns, 9_900_000), (got.p999_ns, 9_990_000)] {
            assert!(got >= exact && got as f64 <= exact as f64 * 1.0625, "{got} for {exact}");
        }
        assert_eq!(got.max_ns, 10_000_000);
        histogram.clear();
        assert_eq!(histogram.percentiles(), Percentiles::default());
    }
}
