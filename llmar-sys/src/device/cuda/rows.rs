//! The rows of a pass on the GPU, in one copy.

use super::launch::Arg;
use super::{Cuda, Memory};
use crate::device::Rows;
use crate::error::Result;

/// Rows of a tile of the prefill attention: TILE_ROWS of `kernels/attention_prefill.cu`.
pub(super) const TILE_ROWS: usize = 64;

/// [`Rows`] as the kernels read them: u32, one array behind another, each at a place that depends on the number of rows alone.
#[derive(Debug)]
pub struct StagedRows {
    memory: Memory,
    /// Room on the way to the GPU.
    words: Vec<u32>,
    /// n
    pub(super) count: usize,
    /// R
    ranges: usize,
    /// Longest list of slots that a row sees, an upper bound for the work of attention.
    tiles: bool,
}

impl StagedRows {
    fn at(&self, word: usize) -> Arg {
        Arg::Pointer(self.memory.pointer() + 4 * word as u64)
    }

    /// `[n]` text positions.
    pub(super) fn positions(&self) -> Arg {
        self.at(0)
    }

    /// `[n]` cache slots.
    pub(super) fn slots(&self) -> Arg {
        self.at(self.count)
    }

    /// `[n]` first range of each row.
    pub(super) fn first(&self) -> Arg {
        self.at(2 * self.count)
    }

    /// `[n]` end of each row's ranges.
    pub(super) fn last(&self) -> Arg {
        self.at(3 * self.count)
    }

    /// [tiles + 1] first interval of each tile.
    pub(super) fn tile_first(&self) -> Arg {
        self.at(4 * self.count)
    }

    /// [R, 2] start and end of each range.
    pub(super) fn ranges(&self) -> Arg {
        self.at(4 * self.count + self.tile_count() + 1)
    }

    /// [.., 2] intervals of the tiles. Where they lie depends on the number of ranges, so no recorded pass may read them.
    pub(super) fn tile_ranges(&self) -> Arg {
        debug_assert!(self.tiles, "intervals are made for passes of many rows");
        self.at(4 * self.count + self.tile_count() + 1 + 2 * self.ranges)
    }

    /// ⌈n / TILE_ROWS⌉
    pub(super) fn tile_count(&self) -> usize {
        self.count.div_ceil(TILE_ROWS)
    }
}

/// The union of what some rows see, as sorted intervals that do not touch.
fn union(rows: &Rows, some: std::ops::Range<usize>, out: &mut Vec<(u32, u32)>) {
    out.clear();
    for seen in &rows.row_ranges[some] {
        out.extend(rows.ranges[seen.start as usize..seen.end as usize].iter().map(|range| (range.start, range.end)));
    }
    out.sort_unstable();
    let mut kept = 0;
    for i in 0..out.len() {
        let (start, end) = out[i];
        if kept > 0 && start <= out[kept - 1].1 {
            out[kept - 1].1 = out[kept - 1].1.max(end);
        } else {
            out[kept] = (start, end);
            kept += 1;
        }
    }
    out.truncate(kept);
}

impl Cuda {
    pub(in crate::device) fn staged_rows(&self) -> StagedRows {
        StagedRows { memory: self.memory(), words: Vec::new(), count: 0, ranges: 0, tiles: false }
    }

    /// See [`Device::stage`](crate::device::Device::stage).
    pub(in crate::device) fn stage(&self, staged: &mut StagedRows, rows: &Rows) -> Result<()> {
        const WHAT: &str = "the rows of a pass";
        let n = rows.position.len();
        (staged.count, staged.ranges, staged.tiles) = (n, rows.ranges.len(), n > super::SKINNY_ROWS);
        let words = &mut staged.words;
        words.clear();
        words.extend_from_slice(&rows.position);
        words.extend_from_slice(&rows.slot);
        words.extend(rows.row_ranges.iter().map(|r| r.start));
        words.extend(rows.row_ranges.iter().map(|r| r.end));
        let tiles = n.div_ceil(TILE_ROWS);
        let first = words.len();
        words.resize(first + tiles + 1, 0);
        words.extend(rows.ranges.iter().flat_map(|r| [r.start, r.end]));
        if staged.tiles {
            let (mut intervals, mut count) = (Vec::new(), 0);
            for tile in 0..tiles {
                union(rows, tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(n), &mut intervals);
                words.extend(intervals.iter().flat_map(|&(start, end)| [start, end]));
                count += intervals.len() as u32;
                words[first + tile + 1] = count;
            }
        }
        // Room for twice as much, so that passes a little longer do not move it: a recorded pass must find it where it was.
        let bytes = 4 * words.len();
        if bytes > staged.memory.len() {
            staged.memory.reserve(WHAT, (2 * bytes).max(1 << 14))?;
        }
        let words = std::mem::take(&mut staged.words);
        let written = staged.memory.write_at(WHAT, 0, bytemuck::cast_slice(&words));
        staged.words = words;
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_sees_the_union_of_its_rows() {
        let rows = Rows {
            position: vec![0; 4],
            slot: vec![0; 4],
            ranges: vec![0..3, 10..12, 3..4, 7..8, 20..21, 11..15],
            row_ranges: vec![0..2, 2..4, 3..3, 4..6],
        };
        let mut out = Vec::new();
        union(&rows, 0..4, &mut out);
        assert_eq!(out, [(0, 4), (7, 8), (10, 15), (20, 21)]);
        union(&rows, 2..3, &mut out);
        assert_eq!(out, []);
    }

    #[test]
    fn tiles_are_those_of_the_kernel() {
        let source = include_str!("../../../kernels/attention_prefill.cu");
        assert!(source.contains(&format!("constexpr int TILE_ROWS = {TILE_ROWS};")));
    }
}
