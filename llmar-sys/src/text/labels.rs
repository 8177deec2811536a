//! Labels as a token trie. How its best leaves are found stands in [`super::search`].

use std::collections::HashMap;

use crate::error::{Error, Result};

/// One scored label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelScore {
    /// Index into the label list.
    pub label: usize,
    /// Σ log p of its tokens and EOS; by words, ln of its probability.
    pub log_prob: f32,
}

/// The labels' token sequences, EOS included, as a trie.
///
/// Node [`ROOT`](Self::ROOT) is the end of the prompt. Every other node is a token after its parent's text. EOS nodes are the leaves, one a
/// label; no other node is without children. Parents have lower indices than their children.
#[derive(Clone, Debug)]
pub struct LabelTrie {
    nodes: Vec<Node>,
    labels: usize,
}

/// A token in its context.
#[derive(Clone, Debug)]
struct Node {
    /// Id of the token; of no meaning at the root.
    token: u32,
    /// The node before; the root's is itself.
    parent: u32,
    /// Tokens from the root to here: 0 at the root.
    depth: u32,
    /// Leaves at or below this node.
    leaves: u32,
    /// Children, in order of the first label that uses them.
    children: Vec<u32>,
    /// Label that ends here, for EOS nodes.
    label: Option<u32>,
}

/// Most labels of one recogniser.
pub(crate) const LABEL_LIMIT: u64 = 65_536;
/// Most tokens of one label.
pub(crate) const LABEL_TOKEN_LIMIT: u64 = 256;

impl LabelTrie {
    /// The end of the prompt.
    pub const ROOT: u32 = 0;

    /// Builds the trie of `labels`, each the ids of its text without EOS, for a vocabulary of `vocab` ids.
    ///
    /// `Err` without a label, with more than 65,536, with a label of no or more than 256 ids, with an id outside the vocabulary or equal to
    /// `eos` (its label could not be told from a shorter one), and when two labels have the same ids.
    pub fn new<'a>(labels: impl IntoIterator<Item = &'a [u32]>, eos: u32, vocab: usize) -> Result<Self> {
        let mut nodes = vec![Node { token: eos, parent: 0, depth: 0, leaves: 0, children: Vec::new(), label: None }];
        let mut edges: HashMap<(u32, u32), u32> = HashMap::new(); // (parent, token) → child
        let mut count = 0_u32;
        if eos as usize >= vocab {
            return Err(Error::argument("EOS id", format!("below {vocab}"), eos));
        }
        for ids in labels {
            if u64::from(count) == LABEL_LIMIT {
                return Err(Error::Limit { what: "number of labels", limit: LABEL_LIMIT, got: u64::from(count) + 1 });
            }
            if ids.is_empty() {
                return Err(Error::argument("label", "at least one token", format!("label {count} with none")));
            }
            if ids.len() as u64 > LABEL_TOKEN_LIMIT {
                return Err(Error::Limit { what: "number of tokens of a label", limit: LABEL_TOKEN_LIMIT, got: ids.len() as u64 });
            }
            let mut at = Self::ROOT;
            for &token in ids.iter().chain([&eos]) {
                if token as usize >= vocab {
                    return Err(Error::argument("label token id", format!("below {vocab}"), format!("{token} in label {count}")));
                }
                let next = nodes.len() as u32;
                at = *edges.entry((at, token)).or_insert_with(|| {
                    let depth = nodes[at as usize].depth + 1;
                    nodes.push(Node { token, parent: at, depth, leaves: 0, children: Vec::new(), label: None });
                    nodes[at as usize].children.push(next);
                    next
                });
            }
            // The walk ends on this label's EOS. An EOS inside the ids would have made an inner node of one.
            if ids.contains(&eos) {
                return Err(Error::argument("label", "no EOS among its tokens", format!("EOS id {eos} in label {count}")));
            }
            if let Some(first) = nodes[at as usize].label.replace(count) {
                return Err(Error::argument("label", "other tokens than every other label", format!("labels {first} and {count} alike")));
            }
            count += 1;
        }
        if count == 0 {
            return Err(Error::argument("number of labels", "at least 1", 0));
        }
        for i in (0..nodes.len()).rev() {
            nodes[i].leaves += u32::from(nodes[i].label.is_some());
            if i > 0 {
                let parent = nodes[i].parent as usize;
                nodes[parent].leaves += nodes[i].leaves;
            }
        }
        Ok(Self { nodes, labels: count as usize })
    }

    /// The trie of some of the labels, in their order; `keep` says of each whether it stays.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where none does.
    pub fn subset(&self, keep: &[bool]) -> Result<Self> {
        let eos = self.nodes[0].token;
        let mut ids: Vec<Vec<u32>> = vec![Vec::new(); self.labels];
        for (node, label) in (0..).zip(&self.nodes).filter_map(|(node, leaf)| leaf.label.map(|label| (node, label as usize))) {
            let path = std::iter::successors(Some(self.parent(node)), |&at| (at != Self::ROOT).then(|| self.parent(at)));
            ids[label] = path.take_while(|&at| at != Self::ROOT).map(|at| self.token(at)).collect();
            ids[label].reverse();
        }
        let kept = ids.iter().zip(keep).filter(|(_, keep)| **keep).map(|(ids, _)| &ids[..]);
        // Every id was below the vocabulary when this trie was made.
        Self::new(kept, eos, usize::MAX)
    }

    /// Number of labels.
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// Number of nodes, root and leaves included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Always false: a trie has at least one label.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Nodes whose row must run to score every label: all but the root (which the prompt's last row stands for) and the leaves.
    pub fn inner(&self) -> usize {
        self.nodes.len() - 1 - self.labels
    }

    /// Tokens of the longest label, EOS not counted.
    pub fn depth(&self) -> usize {
        self.nodes.iter().map(|n| n.depth as usize).max().unwrap_or(0).saturating_sub(1)
    }

    /// Token id of a node below the root.
    pub fn token(&self, node: u32) -> u32 {
        self.nodes[node as usize].token
    }

    /// The node before; the root's is itself.
    pub fn parent(&self, node: u32) -> u32 {
        self.nodes[node as usize].parent
    }

    /// Tokens from the root to the node.
    pub fn node_depth(&self, node: u32) -> u32 {
        self.nodes[node as usize].depth
    }

    /// Leaves at or below the node.
    pub fn leaves(&self, node: u32) -> u32 {
        self.nodes[node as usize].leaves
    }

    /// Nodes that follow; empty for leaves alone.
    pub fn children(&self, node: u32) -> &[u32] {
        &self.nodes[node as usize].children
    }

    /// The label that ends at this node, for EOS nodes.
    pub fn label(&self, node: u32) -> Option<usize> {
        self.nodes[node as usize].label.map(|l| l as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EOS: u32 = 0;

    fn trie(labels: &[&[u32]]) -> Result<LabelTrie> {
        LabelTrie::new(labels.iter().copied(), EOS, 100)
    }

    #[test]
    fn shared_beginnings_share_nodes_and_a_label_may_begin_another() {
        // wave; wave left; wave right; clap
        let t = trie(&[&[5], &[5, 6], &[5, 7], &[9, 8]]).unwrap();
        // root, 5, 5·EOS, 5·6, 5·6·EOS, 5·7, 5·7·EOS, 9, 9·8, 9·8·EOS
        assert_eq!((t.len(), t.labels(), t.inner(), t.depth()), (10, 4, 5, 2));
        let wave = t.children(LabelTrie::ROOT)[0];
        assert_eq!((t.token(wave), t.leaves(wave), t.children(wave).len()), (5, 3, 3));
        assert_eq!(t.leaves(LabelTrie::ROOT), 4);
        for node in 1..t.len() as u32 {
            assert!(t.parent(node) < node && t.children(t.parent(node)).contains(&node));
            assert_eq!(t.children(node).is_empty(), t.label(node).is_some());
            assert_eq!(t.token(node) == EOS, t.label(node).is_some());
        }
    }

    #[test]
    fn every_label_is_read_back_from_its_leaf() {
        let labels: [&[u32]; 4] = [&[5], &[5, 6], &[5, 7], &[9, 8]];
        let t = trie(&labels).unwrap();
        for node in (0..t.len() as u32).filter(|&n| t.label(n).is_some()) {
            let (mut ids, mut at) = (Vec::new(), t.parent(node));
            while at != LabelTrie::ROOT {
                ids.push(t.token(at));
                at = t.parent(at);
            }
            ids.reverse();
            assert_eq!(ids, labels[t.label(node).unwrap()]);
        }
    }

    #[test]
    fn a_subset_is_the_trie_of_what_stays() {
        let labels: [&[u32]; 4] = [&[5], &[5, 6], &[5, 7], &[9, 8]];
        let whole = trie(&labels).unwrap();
        for keep in [[true, false, true, true], [true; 4], [false, false, false, true]] {
            let stays: Vec<&[u32]> = labels.iter().zip(keep).filter(|(_, keep)| *keep).map(|(ids, _)| *ids).collect();
            let (got, want) = (whole.subset(&keep).unwrap(), trie(&stays).unwrap());
            assert_eq!((got.len(), got.labels()), (want.len(), want.labels()));
            for node in 0..want.len() as u32 {
                assert_eq!((got.token(node), got.parent(node), got.label(node)), (want.token(node), want.parent(node), want.label(node)));
            }
        }
        assert!(whole.subset(&[false; 4]).is_err());
    }

    #[test]
    fn bad_label_lists_are_refused() {
        let long = vec![1; 257];
        for (labels, word) in [
            (&[][..], "at least 1"),
            (&[&[1][..], &[]][..], "at least one token"),
            (&[&[1][..], &[1]], "alike"),
            (&[&[1, EOS, 2][..]], "EOS"),
            (&[&[100][..]], "below 100"),
            (&[&long[..]], "256"),
        ] {
            let message = trie(labels).unwrap_err().to_string();
            assert!(message.contains(word), "{word}: {message}");
        }
        let many: Vec<[u32; 3]> = (0..65_537).map(|i| [1 + i / 4_096, 1 + i / 64 % 64, 1 + i % 64]).collect();
        assert!(matches!(LabelTrie::new(many.iter().map(|l| &l[..]), EOS, 100), Err(Error::Limit { .. })));
        assert!(LabelTrie::new(many[..65_536].iter().map(|l| &l[..]), EOS, 100).is_ok());
    }
}
