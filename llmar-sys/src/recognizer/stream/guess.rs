//! Which label nodes run together with the words after the sentence, before it is known which are wanted: those that the last update would have
//! needed, and a few more. A second pass costs more than a few rows, and a row in vain costs a row.

use crate::text::{LabelTrie, Search};

/// Nodes beyond those that would have done the last time.
const SPARE: usize = 3;
/// At least so many, if there are.
const FEWEST: usize = 4;
/// And no more.
pub(super) const MOST: usize = 24;

/// The nodes for the update after the one of this finished search, parents first, into `guessed`. `order` is scratch.
pub(super) fn next(search: &mut Search<'_>, trie: &LabelTrie, tolerance: f64, order: &mut Vec<(f64, u32)>, guessed: &mut Vec<u32>) {
    order.clear();
    let inner = (1..trie.len() as u32).filter(|node| trie.label(*node).is_none());
    order.extend(inner.map(|node| (search.log_prob(node), node)).filter(|(log_prob, _)| log_prob.is_finite()));
    // A parent is at least as likely as its children and has a lower number, so it comes before them.
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let enough = search.enough(order.iter().map(|(_, node)| *node), tolerance);
    guessed.clear();
    guessed.extend(order.iter().take((enough + SPARE).clamp(FEWEST, MOST)).map(|(_, node)| node));
}
