//! Labels as a token trie, and the exact log p(label, EOS | prompt) of each.

/// One scored label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelScore {
    /// Index into the label list.
    pub label: usize,
    /// Σ log p of its tokens and EOS.
    pub log_prob: f32,
}

/// The labels' token sequences, EOS included, as a trie.
#[derive(Clone, Debug)]
pub struct LabelTrie {}
