//! Best-first search over a label trie: the exact best labels, and probabilities with a proven error, from few evaluated nodes.
//!
//! Evaluating a node means running its row through the LLaMA: that gives log p of each of its children. Let L(v) be the sum of log p on the
//! path from the root to v. A label's score is L of its EOS leaf. Two facts bound what lies below a node v that was not evaluated, with n
//! leaves of scores s₁ … sₙ:
//!
//! 1. Log-probabilities are ≤ 0, so sᵢ ≤ L(v). Once the k best known leaves all lie strictly above every such L, they are the exact top k
//!    (strictly, so that of equal scores the lower label index wins, as in an exhaustive search).
//! 2. The leaves are disjoint continuations: Σ exp(sᵢ) ≤ exp(L(v)). The calibrated probability of a label is exp(s/T) / Z over all labels,
//!    and v's share of Z is Σ exp(sᵢ)^(1/T). For T ≤ 1 that is largest when one leaf has everything, exp(L/T); for T ≥ 1 when the leaves share
//!    evenly, n · (exp(L)/n)^(1/T). So Z lies between Z_lo, the sum over known leaves, and Z_hi, with these bounds of all unevaluated nodes added.
//!
//! The search goes on until the top k is exact and the best label's probability is known within [`PROBABILITY_TOLERANCE`]. The probability
//! reported is the middle of [exp(s/T)/Z_hi, exp(s/T)/Z_lo], or, in a stream, another place in it; the other labels have less and a
//! smaller error. With k ≥ the number of labels
//! every node is evaluated, Z_lo = Z_hi, and probabilities are exact.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::labels::{LabelScore, LabelTrie};

/// Width of the interval in which the probability of the best label is known when a search stops, unless a stream asks for another;
/// what is reported is its middle and errs by half of it at most.
///
/// On 80 clips of UTD-MHAD (27 labels with 44 inner nodes, temperature 1.8) the best label takes 25 evaluated nodes on average with 1e-3, 9 with
/// 1e-2 and 6 with 2e-2; the best five take 14 with 1e-2. The mean error of the reported probability was .002 with 1e-2.
pub const PROBABILITY_TOLERANCE: f64 = 1e-2;

/// Rows that a pass holds although they might turn out not to be needed: a pass over few rows waits for memory, so they cost little.
const FREE_ROWS: usize = 4;
/// Rows of a pass that the search expects to need, when it need not evaluate everything.
const PASS_ROWS: usize = 32;

/// How the answer is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decoding {
    /// Best-first: the labels of highest probability, whatever their first tokens promise.
    #[default]
    Exact,
    /// Token by token, always the likeliest that still leads to a label, as language models are usually decoded (and LLM-AR's is). One label
    /// comes out, a valid one, not always the best; its probability is the middle of what is possible after the few nodes that were seen.
    Greedy,
}

/// The state of one search. It asks for nodes ([`next_nodes`](Self::next_nodes)), and is told the log p of their children
/// ([`supply`](Self::supply)); who computes them is not its business. What it asks for depends on nothing but what it was told.
#[derive(Clone, Debug)]
pub struct Search<'t> {
    trie: &'t LabelTrie,
    /// Labels wanted, 1..=labels.
    top_k: usize,
    decoding: Decoding,
    temperature: f64,
    /// Width of the interval in which the best label's probability has to be known.
    tolerance: f64,
    /// Where in it the reported one lies, 0 its lower end and 1 its upper.
    place: f64,
    memory: SearchMemory,
}

/// What a search remembers, to be handed to the next one so that a steady state allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct SearchMemory {
    /// Per node, L where its parent was evaluated.
    log_prob: Vec<f64>,
    /// Inner nodes whose parent was evaluated and that were not, in no order.
    open: Vec<u32>,
    /// Scored labels: (score, label), in no order.
    found: Vec<(f64, usize)>,
    /// The nodes asked for last.
    pass: Vec<u32>,
    /// While they are chosen: nodes that might join, scores of leaves, nodes that stay open.
    candidates: BinaryHeap<Candidate>,
    scores: Vec<f64>,
    still_open: Vec<u32>,
}

impl SearchMemory {
    /// Room for all that a search in this trie may need, so that no later one allocates.
    pub fn reserve(&mut self, trie: &LabelTrie) {
        let (inner, labels) = (trie.inner() + 1, trie.labels());
        let room = |len: usize, wanted: usize| wanted.saturating_sub(len);
        self.log_prob.reserve(room(self.log_prob.len(), trie.len()));
        self.open.reserve(room(self.open.len(), inner));
        self.found.reserve(room(self.found.len(), labels));
        self.pass.reserve(room(self.pass.len(), inner));
        self.candidates.reserve(room(self.candidates.len(), inner));
        self.scores.reserve(room(self.scores.len(), labels + inner));
        self.still_open.reserve(room(self.still_open.len(), inner));
    }
}

/// The result of a finished search.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranking {
    /// The top k, best first; of equal scores the lower label index first.
    pub top: Vec<LabelScore>,
    /// Calibrated probability of each of `top`, over all labels of the trie.
    pub probabilities: Vec<f32>,
}

/// Order of answers: higher score, then lower label.
fn better(a: &(f64, usize), b: &(f64, usize)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// A node that might join a pass. Ordered by its L, known or guessed, then by index.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    estimate: f64,
    known: bool,
    node: u32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.estimate.total_cmp(&other.estimate).then(other.node.cmp(&self.node))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

impl<'t> Search<'t> {
    /// A search for the best `top_k` (at least 1) labels with calibration temperature T > 0. The root is to be [`supply`](Self::supply)-ed
    /// first: its row is the prompt's last one.
    pub fn new(trie: &'t LabelTrie, top_k: usize, decoding: Decoding, temperature: f32) -> Self {
        Self::with_memory(trie, top_k, decoding, temperature, SearchMemory::default())
    }

    /// [`new`](Self::new) in the memory of a search that is over.
    pub fn with_memory(trie: &'t LabelTrie, top_k: usize, decoding: Decoding, temperature: f32, mut memory: SearchMemory) -> Self {
        memory.log_prob.clear();
        memory.log_prob.resize(trie.len(), f64::NEG_INFINITY);
        memory.log_prob[LabelTrie::ROOT as usize] = 0.0;
        memory.open.clear();
        memory.open.push(LabelTrie::ROOT);
        memory.found.clear();
        Self {
            trie,
            top_k: top_k.clamp(1, trie.labels()),
            decoding,
            temperature: f64::from(temperature),
            tolerance: PROBABILITY_TOLERANCE,
            place: 0.5,
            memory,
        }
    }

    /// The same, content with another width of the interval in which the best label's probability is known, 0 to 1, and reporting another place
    /// in it, from 0, its lower end, to 1. What is reported errs by the larger part of the width on either side of that place at most.
    pub fn with_interval(self, tolerance: f64, place: f64) -> Self {
        Self { tolerance, place, ..self }
    }

    /// Its memory, for the next one.
    pub fn into_memory(self) -> SearchMemory {
        self.memory
    }

    /// Takes the log p of the children of an evaluated node, in the order of [`LabelTrie::children`]. A node's parent comes before it.
    /// Rounding may have brought log p above zero; it counts as zero.
    pub fn supply(&mut self, node: u32, children_log_p: impl IntoIterator<Item = f64>) {
        let SearchMemory { log_prob, open, found, .. } = &mut self.memory;
        open.retain(|&n| n != node);
        let here = log_prob[node as usize];
        for (&child, log_p) in self.trie.children(node).iter().zip(children_log_p) {
            let score = here + log_p.min(0.0);
            log_prob[child as usize] = score;
            match self.trie.label(child) {
                Some(label) => found.push((score, label)),
                None => open.push(child),
            }
        }
    }

    /// The nodes to evaluate next, each after its parent; empty once the search is finished.
    ///
    /// A chain of single children is walked at once, to its leaf or the next branching. Open nodes are taken, best first, as long as they would
    /// still be wanted if the best leaf below each node taken before kept all of that node's probability. Free rows are filled with the next best
    /// nodes, those behind a branching of this pass included, on the guess that its children share evenly.
    pub fn next_nodes(&mut self) -> &[u32] {
        self.memory.pass.clear();
        if self.is_finished() {
            return &self.memory.pass;
        }
        if self.decoding == Decoding::Greedy {
            let end = self.greedy_end();
            push_chain(self.trie, end, &mut self.memory.pass);
            return &self.memory.pass;
        }
        let (trie, everything) = (self.trie, self.top_k == self.trie.labels());
        // Taken out while `self` answers questions, and put back.
        let (mut pass, mut candidates) = (std::mem::take(&mut self.memory.pass), std::mem::take(&mut self.memory.candidates));
        let (mut scores, mut still_open) = (std::mem::take(&mut self.memory.scores), std::mem::take(&mut self.memory.still_open));
        candidates.clear();
        candidates.extend(self.memory.open.iter().map(|&node| Candidate { estimate: self.log_prob(node), known: true, node }));
        // The state that this pass is hoped to end in.
        scores.clear();
        scores.extend(self.memory.found.iter().map(|f| f.0));
        still_open.clear();
        still_open.extend_from_slice(&self.memory.open);
        while let Some(head) = candidates.pop() {
            let wanted = everything || pass.is_empty() || head.known && self.is_wanted(head.estimate, &mut scores, &still_open);
            if !everything && pass.len() >= if wanted { PASS_ROWS } else { FREE_ROWS } {
                continue;
            }
            if head.known {
                still_open.retain(|&n| n != head.node);
                scores.push(head.estimate);
            }
            let node = push_chain(trie, head.node, &mut pass);
            let inner = trie.children(node).iter().filter(|&&child| trie.label(child).is_none());
            let estimate = head.estimate - (trie.children(node).len() as f64).ln();
            candidates.extend(inner.map(|&node| Candidate { estimate, known: false, node }));
        }
        (self.memory.pass, self.memory.candidates) = (pass, candidates);
        (self.memory.scores, self.memory.still_open) = (scores, still_open);
        &self.memory.pass
    }

    /// Whether the top k is exact and the best probability known well enough.
    pub fn is_finished(&mut self) -> bool {
        if self.decoding == Decoding::Greedy {
            return self.trie.label(self.greedy_end()).is_some();
        }
        let mut scores = std::mem::take(&mut self.memory.scores);
        scores.clear();
        scores.extend(self.memory.found.iter().map(|f| f.0));
        let bound = self.memory.open.iter().map(|&n| self.log_prob(n)).max_by(f64::total_cmp);
        let finished = bound.is_none_or(|bound| !self.is_wanted(bound, &mut scores, &self.memory.open));
        self.memory.scores = scores;
        finished
    }

    /// L of a node whose parent was evaluated; −∞ of others.
    pub fn log_prob(&self, node: u32) -> f64 {
        self.memory.log_prob[node as usize]
    }

    /// Of a finished search: how many of `nodes` from the front would have been enough to finish, had no others been evaluated, and the best label's
    /// probability had to be known within `tolerance`. `nodes` are all inner nodes that were reached, the likeliest first and each after its parent.
    pub fn enough(&mut self, nodes: impl IntoIterator<Item = u32>, tolerance: f64) -> usize {
        let best = self.memory.found.iter().map(|found| found.0).fold(f64::NEG_INFINITY, f64::max);
        let mut scores = std::mem::take(&mut self.memory.scores);
        scores.clear();
        // Shares of Z of what is known and what is open: those of the children of every node that counts as evaluated.
        let (mut known, mut open) = (0.0, 0.0);
        let mut enough = 0;
        let evaluate = |node: u32, known: &mut f64, open: &mut f64, scores: &mut Vec<f64>| {
            for &child in self.trie.children(node) {
                let score = self.log_prob(child);
                if self.trie.label(child).is_some() {
                    scores.push(score);
                    *known += self.share(score - best);
                } else {
                    *open += self.open_share(best, &[child]);
                }
            }
        };
        evaluate(LabelTrie::ROOT, &mut known, &mut open, &mut scores);
        for node in nodes {
            // No open node is likelier than the next.
            let bound = self.log_prob(node);
            let certain = scores.iter().filter(|score| **score > bound).count() >= self.top_k;
            if certain && 1.0 / known - 1.0 / (known + open) <= tolerance {
                break;
            }
            open = (open - self.open_share(best, &[node])).max(0.0);
            evaluate(node, &mut known, &mut open, &mut scores);
            enough += 1;
        }
        self.memory.scores = scores;
        enough
    }

    /// The answer. Meant for a finished search; before that it is the best so far.
    pub fn ranking(&mut self) -> Ranking {
        let mut ranking = Ranking::default();
        self.rank(&mut ranking);
        ranking
    }

    /// [`ranking`](Self::ranking) into one that is there.
    pub fn rank(&mut self, out: &mut Ranking) {
        out.top.clear();
        out.probabilities.clear();
        let mut found = std::mem::take(&mut self.memory.found);
        found.sort_unstable_by(better);
        if self.decoding == Decoding::Greedy {
            // Of the leaves beside the path, some were seen and some not: only the path's own is an answer.
            let end = self.trie.label(self.greedy_end());
            found.sort_unstable_by(|a, b| (Some(a.1) != end).cmp(&(Some(b.1) != end)).then(better(a, b)));
        }
        if let Some(&(best, _)) = found.first() {
            let known = self.known_share(best, found.iter().map(|f| f.0));
            let open = self.open_share(best, &self.memory.open);
            let scale = self.place / known + (1.0 - self.place) / (known + open);
            let wanted = if self.decoding == Decoding::Greedy { 1 } else { self.top_k };
            for &(score, label) in found.iter().take(wanted) {
                out.top.push(LabelScore { label, log_prob: score as f32 });
                out.probabilities.push((self.share(score - best) * scale) as f32);
            }
        }
        self.memory.found = found;
    }

    /// Scores of all labels by index, once everything was evaluated.
    pub fn all_scores(&self) -> Vec<f32> {
        let mut scores = vec![f32::NEG_INFINITY; self.trie.labels()];
        for &(score, label) in &self.memory.found {
            scores[label] = score as f32;
        }
        scores
    }

    /// Where the path of the likeliest tokens ends: at a node to be evaluated, or at a leaf. Of equal tokens the first.
    fn greedy_end(&self) -> u32 {
        let mut node = LabelTrie::ROOT;
        while self.trie.label(node).is_none() && !self.memory.open.contains(&node) {
            let score = |&&child: &&u32| self.log_prob(child);
            let likeliest = self.trie.children(node).iter().rev().max_by(|a, b| score(a).total_cmp(&score(b)));
            let Some(&child) = likeliest else { break };
            node = child;
        }
        node
    }

    /// Whether, with leaves of these scores known and these nodes open, a node of log-probability `bound` (the highest open one) must still
    /// be evaluated.
    fn is_wanted(&self, bound: f64, scores: &mut [f64], open: &[u32]) -> bool {
        if scores.len() < self.top_k {
            return true;
        }
        let (_, kth, _) = scores.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
        if *kth <= bound {
            return true;
        }
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let known = self.known_share(best, scores.iter().copied());
        1.0 / known - 1.0 / (known + self.open_share(best, open)) > self.tolerance
    }

    /// exp(x/T), the share of a leaf whose score differs from the best one's by x; 0 below the range of f64.
    fn share(&self, x: f64) -> f64 {
        (x / self.temperature).exp()
    }

    /// Z_lo ÷ exp(best/T).
    fn known_share(&self, best: f64, scores: impl Iterator<Item = f64>) -> f64 {
        scores.map(|score| self.share(score - best)).sum()
    }

    /// (Z_hi − Z_lo) ÷ exp(best/T): fact 2 of the module.
    fn open_share(&self, best: f64, open: &[u32]) -> f64 {
        let spread = (1.0 - 1.0 / self.temperature).max(0.0);
        open.iter().map(|&node| f64::from(self.trie.leaves(node)).powf(spread) * self.share(self.log_prob(node) - best)).sum()
    }
}

/// Adds `node` and the chain of single inner children below it, which need no decision; returns the last one added.
fn push_chain(trie: &LabelTrie, mut node: u32, pass: &mut Vec<u32>) -> u32 {
    pass.push(node);
    while let &[only] = trie.children(node)
        && trie.label(only).is_none()
    {
        node = only;
        pass.push(node);
    }
    node
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EOS: u32 = 0;

    /// log p of every node given its parent; at the root 0.
    type Conditional = Vec<f64>;

    /// Label sequences over a small alphabet, so that they share beginnings.
    fn tries() -> impl Strategy<Value = LabelTrie> {
        prop::collection::btree_set(prop::collection::vec(1_u32..6, 1..6), 1..40)
            .prop_map(|labels| LabelTrie::new(labels.iter().map(|l| &l[..]), EOS, 6).unwrap())
    }

    /// Random next-token distributions: the children of a node share at most 1. `grain` > 0 rounds log p down to multiples of it, which makes ties.
    fn with_conditional(grain: f64) -> impl Strategy<Value = (LabelTrie, Conditional)> {
        tries().prop_flat_map(move |trie| {
            let n = trie.len();
            // Per node a weight with a heavy tail, and how much of the parent's mass goes to tokens outside the trie.
            (Just(trie), prop::collection::vec(0.0_f64..12.0, n), prop::collection::vec(0.0_f64..0.5, n)).prop_map(
                move |(trie, weight, lost)| {
                    let mut log_p = vec![0.0; trie.len()];
                    for node in 0..trie.len() as u32 {
                        let children = trie.children(node);
                        let total: f64 = children.iter().map(|&c| weight[c as usize].exp()).sum();
                        for &c in children {
                            let exact = (weight[c as usize].exp() / total * (1.0 - lost[node as usize])).ln();
                            log_p[c as usize] = if grain > 0.0 { (exact / grain).floor() * grain } else { exact };
                        }
                    }
                    (trie, log_p)
                },
            )
        })
    }

    /// Runs a search to its end; the number of nodes it evaluated beside the root, and of passes.
    fn run<'t>(trie: &'t LabelTrie, log_p: &Conditional, top_k: usize, temperature: f32) -> (Search<'t>, usize, usize) {
        search_with(Search::new(trie, top_k, Decoding::Exact, temperature), log_p)
    }

    /// [`run`] for any search.
    fn search_with<'t>(mut search: Search<'t>, log_p: &Conditional) -> (Search<'t>, usize, usize) {
        let trie = search.trie;
        let children = |node: u32| trie.children(node).iter().map(|&c| log_p[c as usize]).collect::<Vec<_>>();
        search.supply(LabelTrie::ROOT, children(LabelTrie::ROOT));
        let (mut evaluated, mut passes) = (0, 0);
        let mut seen = vec![false; trie.len()];
        seen[0] = true;
        loop {
            let nodes = search.next_nodes().to_vec();
            if nodes.is_empty() {
                assert!(search.is_finished());
                return (search, evaluated, passes);
            }
            passes += 1;
            for node in nodes {
                assert!(seen[trie.parent(node) as usize], "a node comes after its parent");
                assert!(!std::mem::replace(&mut seen[node as usize], true), "no node is evaluated twice");
                assert!(trie.label(node).is_none(), "leaves need no evaluation");
                evaluated += 1;
                search.supply(node, children(node));
            }
        }
    }

    /// Scores of all labels by walking each one's path.
    fn exhaustive(trie: &LabelTrie, log_p: &Conditional) -> Vec<(f64, usize)> {
        let mut total = vec![0.0; trie.len()];
        let mut all = Vec::new();
        for node in 1..trie.len() as u32 {
            total[node as usize] = total[trie.parent(node) as usize] + log_p[node as usize];
            if let Some(label) = trie.label(node) {
                all.push((total[node as usize], label));
            }
        }
        all.sort_by(better);
        all
    }

    /// Calibrated probabilities of ranked scores, straight from the definition.
    fn softmax(ranked: &[(f64, usize)], temperature: f32) -> Vec<f64> {
        let t = f64::from(temperature);
        let z: f64 = ranked.iter().map(|r| ((r.0 - ranked[0].0) / t).exp()).sum();
        ranked.iter().map(|r| ((r.0 - ranked[0].0) / t).exp() / z).collect()
    }

    fn check(trie: &LabelTrie, log_p: &Conditional, top_k: usize, temperature: f32) {
        let want = exhaustive(trie, log_p);
        let exact = softmax(&want, temperature);
        let (mut search, evaluated, _) = run(trie, log_p, top_k, temperature);
        assert!(evaluated <= trie.inner());
        let got = search.ranking();
        let k = top_k.min(trie.labels());
        assert_eq!(got.top.len(), k);
        for (i, score) in got.top.iter().enumerate() {
            assert_eq!((score.label, score.log_prob), (want[i].1, want[i].0 as f32), "place {i}");
            let error = (f64::from(got.probabilities[i]) - exact[i]).abs();
            let allowed = if top_k >= trie.labels() { 1e-6 } else { 0.5 * PROBABILITY_TOLERANCE + 1e-6 };
            assert!(error <= allowed, "place {i}: {} against {}", got.probabilities[i], exact[i]);
        }
        if top_k >= trie.labels() {
            assert_eq!(evaluated, trie.inner());
            let by_label = search.all_scores();
            assert!(want.iter().all(|&(score, label)| by_label[label] == score as f32));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn best_first_equals_exhaustive((trie, log_p) in with_conditional(0.0), top_k in 1_usize..45, temperature in 0.2_f32..5.0) {
            check(&trie, &log_p, top_k, temperature);
        }

        #[test]
        fn ties_take_the_lower_label((trie, log_p) in with_conditional(1.0), top_k in 1_usize..10) {
            check(&trie, &log_p, top_k, 1.0);
        }

        #[test]
        fn enough_nodes_finish_a_search_and_one_less_does_not(
            (trie, log_p) in with_conditional(0.0),
            top_k in 1_usize..6,
            temperature in 0.2_f32..5.0,
            tolerance in 1e-3_f64..0.3,
        ) {
            let search = || Search::new(&trie, top_k, Decoding::Exact, temperature).with_interval(tolerance, 0.5);
            let supply = |search: &mut Search<'_>, node: u32| search.supply(node, trie.children(node).iter().map(|&c| log_p[c as usize]));
            // One that has seen everything says how many nodes would have done.
            let mut all = search();
            let inner: Vec<u32> = (0..trie.len() as u32).filter(|node| trie.label(*node).is_none()).collect();
            inner.iter().for_each(|&node| supply(&mut all, node));
            let mut nodes = inner[1..].to_vec();
            nodes.sort_by(|a, b| all.log_prob(*b).total_cmp(&all.log_prob(*a)).then(a.cmp(b)));
            let enough = all.enough(nodes.iter().copied(), tolerance);
            for count in 0..=enough {
                let mut some = search();
                supply(&mut some, LabelTrie::ROOT);
                nodes[..count].iter().for_each(|&node| supply(&mut some, node));
                prop_assert_eq!(some.is_finished(), count == enough, "{} of {}", count, enough);
            }
        }

        #[test]
        fn greedy_takes_the_likeliest_token_each_time((trie, log_p) in with_conditional(0.0), temperature in 0.2_f32..5.0) {
            let mut node = LabelTrie::ROOT;
            let (mut score, mut inner) = (0.0, 0);
            while trie.label(node).is_none() {
                node = *trie.children(node).iter().max_by(|&&a, &&b| log_p[a as usize].total_cmp(&log_p[b as usize])).unwrap();
                score += log_p[node as usize];
                inner += usize::from(trie.label(node).is_none());
            }
            let (mut search, evaluated, passes) = search_with(Search::new(&trie, 5, Decoding::Greedy, temperature), &log_p);
            let got = search.ranking();
            prop_assert_eq!(got.top.len(), 1);
            prop_assert_eq!((Some(got.top[0].label), got.top[0].log_prob), (trie.label(node), score as f32));
            prop_assert!(evaluated == inner && passes <= inner, "{evaluated} rows in {passes} passes for {inner} nodes");
            prop_assert!((0.0..=1.0).contains(&got.probabilities[0]));
        }

        #[test]
        fn open_mass_bounds_what_lies_below((trie, log_p) in with_conditional(0.0), temperature in 0.2_f32..5.0) {
            // The bound of fact 2, with the whole trie open, against the true total.
            let search = Search::new(&trie, 1, Decoding::Exact, temperature);
            let total: f64 = exhaustive(&trie, &log_p).iter().map(|r| (r.0 / f64::from(temperature)).exp()).sum();
            prop_assert!(total <= search.open_share(0.0, &[LabelTrie::ROOT]) * (1.0 + 1e-12));
        }
    }

    #[test]
    fn the_open_mass_bound_is_reached_at_both_ends() {
        let trie = LabelTrie::new([&[1, 1][..], &[1, 2], &[1, 3], &[1, 4]], EOS, 6).unwrap();
        let at = |temperature| Search::new(&trie, 1, Decoding::Exact, temperature).open_share(0.0, &[LabelTrie::ROOT]);
        assert!((at(2.0) - 4.0 * (0.25_f64).sqrt()).abs() < 1e-12); // four equal leaves at T = 2
        assert!((at(0.5) - 1.0).abs() < 1e-12); // one leaf has all at T = 1/2
    }

    #[test]
    fn a_confident_model_needs_one_pass_of_a_few_rows() {
        // 60 labels of three tokens, one of them nearly certain.
        let labels: Vec<[u32; 3]> = (0..60).map(|i| [1 + i / 20, 1 + i % 20, 7]).collect();
        let trie = LabelTrie::new(labels.iter().map(|l| &l[..]), EOS, 100).unwrap();
        let mut log_p = vec![-14.0; trie.len()];
        let mut node = LabelTrie::ROOT;
        while let Some(&child) = trie.children(node).first() {
            log_p[child as usize] = -1e-4;
            node = child;
        }
        let (mut search, evaluated, passes) = run(&trie, &log_p, 1, 1.0);
        assert_eq!(search.ranking().top[0].label, 0);
        assert!(passes <= 2 && evaluated <= 2 * FREE_ROWS, "{evaluated} rows in {passes} passes");
        let (_, evaluated, passes) = run(&trie, &log_p, 60, 1.0);
        assert_eq!((evaluated, passes), (trie.inner(), 1), "the full distribution takes one pass over all nodes");
    }

    #[test]
    fn a_log_probability_rounded_above_zero_counts_as_zero() {
        let trie = LabelTrie::new([&[1][..], &[2]], EOS, 6).unwrap();
        let mut search = Search::new(&trie, 2, Decoding::Exact, 1.0);
        search.supply(LabelTrie::ROOT, [1e-9, -30.0]);
        for node in search.next_nodes().to_vec() {
            search.supply(node, [1e-9]);
        }
        assert_eq!(search.all_scores(), [0.0, -30.0]);
    }
}
