//! Byte-pair merging: of all neighbours that may be merged, the best-ranked pair first, the leftmost of equals.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::tables::TokenizerTables;
use crate::error::{Error, Result};

/// What two neighbouring ids become.
#[derive(Clone, Copy, Debug)]
struct Merge {
    /// Position in the list of merges: lower is better.
    rank: u32,
    /// The id of both together.
    id: u32,
}

/// All merges, by pair.
#[derive(Clone, Debug)]
pub(super) struct Merges(HashMap<(u32, u32), Merge>);

/// An id in the text, linked to its neighbours. `None` at the ends.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// `None` once it was merged into its left neighbour.
    id: Option<u32>,
    previous: Option<usize>,
    next: Option<usize>,
}

impl Merges {
    /// From checked tables; `ids` gives the id of a concatenation.
    pub(super) fn new(tables: &TokenizerTables, ids: &HashMap<Vec<u8>, u32>) -> Result<Self> {
        let mut merges = HashMap::with_capacity(tables.merges.len());
        for (rank, &(left, right)) in (0..).zip(&tables.merges) {
            // Of equal pairs the first counts; looking at a pair costs its pieces' length, and a file may repeat one a million times.
            if merges.contains_key(&(left, right)) {
                continue;
            }
            let both = [tables.piece(left), tables.piece(right)].concat();
            let Some(&id) = ids.get(&both) else {
                let detail = format!("merge {rank} gives {:?}, which is no piece", String::from_utf8_lossy(&both));
                return Err(Error::format("tokenizer.merges", detail));
            };
            merges.insert((left, right), Merge { rank, id });
        }
        Ok(Self(merges))
    }

    /// Merges `ids` as far as it goes and appends what is left to `out`. O(n log n).
    pub(super) fn apply(&self, ids: Vec<u32>, out: &mut Vec<u32>) {
        let last = ids.len().wrapping_sub(1);
        let node = |(at, id): (usize, u32)| Node { id: Some(id), previous: at.checked_sub(1), next: (at != last).then_some(at + 1) };
        let mut nodes: Vec<Node> = ids.into_iter().enumerate().map(node).collect();
        let mut candidates: BinaryHeap<_> = (0..nodes.len()).filter_map(|at| self.candidate(&nodes, at)).collect();
        while let Some(Reverse((rank, at))) = candidates.pop() {
            // The pair may have changed since it was put on the heap.
            let Some((merge, right)) = self.merge_at(&nodes, at).filter(|(merge, _)| merge.rank == rank) else { continue };
            let next = nodes[right].next;
            nodes[right].id = None;
            nodes[at].id = Some(merge.id);
            nodes[at].next = next;
            if let Some(next) = next {
                nodes[next].previous = Some(at);
            }
            candidates.extend(nodes[at].previous.and_then(|previous| self.candidate(&nodes, previous)));
            candidates.extend(self.candidate(&nodes, at));
        }
        out.extend(nodes.iter().filter_map(|node| node.id));
    }

    /// What node `at` and its right neighbour become, and where that neighbour is.
    fn merge_at(&self, nodes: &[Node], at: usize) -> Option<(Merge, usize)> {
        let right = nodes[at].next?;
        let merge = self.0.get(&(nodes[at].id?, nodes[right].id?))?;
        Some((*merge, right))
    }

    /// Heap entry of node `at` and its right neighbour: the lowest rank comes first, then the leftmost.
    fn candidate(&self, nodes: &[Node], at: usize) -> Option<Reverse<(u32, usize)>> {
        self.merge_at(nodes, at).map(|(merge, _)| Reverse((merge.rank, at)))
    }
}
