//! The words around an action sentence and the answers, as token ids and rows.

use llmar::text::{LabelTrie, Tokenizer, suffix_with_list};
use tch::Tensor;

use super::config::Prompt;
use super::llama::{Llama, Packing};
use crate::error::Result;

/// A prompt ready for packing.
#[derive(Debug)]
pub struct Words {
    /// Ids before the sentence, the same for all clips.
    pub prefix: Vec<u32>,
    /// Ids after the sentence.
    pub suffix: Vec<u32>,
    /// Ids of each label's text.
    pub labels: Vec<Vec<u32>>,
    /// Ends an answer.
    pub eos: u32,
    /// The labels as a trie.
    pub trie: LabelTrie,
}

/// Rows of a pass with the text that is asked for: row → target id.
#[derive(Debug)]
pub struct Packed {
    /// [prefix + clips · rows, hidden]
    pub x: Tensor,
    /// How the rows hang together.
    pub packing: Packing,
    /// Rows whose hidden states or logits are wanted.
    pub keep: Vec<i64>,
}

impl Words {
    /// Tokenises prompt and labels.
    pub fn new(tokenizer: &Tokenizer, prompt: &Prompt, labels: &[String], eos: u32, vocab: usize) -> Result<Self> {
        let labels: Vec<Vec<u32>> =
            labels.iter().map(|label| tokenizer.encode_continuation(&format!("{}{label}", prompt.answer_lead))).collect();
        let trie = LabelTrie::new(labels.iter().map(Vec::as_slice), eos, vocab)?;
        let (prefix, suffix) = (tokenizer.encode(&prompt.prefix), tokenizer.encode_continuation(&prompt.suffix));
        Ok(Self { prefix, suffix, labels, eos, trie })
    }

    /// Text positions of a prompt with a sentence of `tokens` and the longest answer.
    pub fn rows(&self, tokens: usize) -> usize {
        self.prefix.len() + tokens + self.suffix.len() + self.longest()
    }

    /// Ids of the longest label.
    pub fn longest(&self) -> usize {
        self.labels.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Ids after the sentence when the prompt names `labels` to choose from.
    pub fn listing(tokenizer: &Tokenizer, prompt: &Prompt, labels: &[&str]) -> Vec<u32> {
        tokenizer.encode_continuation(&suffix_with_list(&prompt.suffix, labels))
    }

    /// Sentence and suffix of each clip, then `after` [ids of clip 0 ++ ids of clip 1 …], equally many a clip.
    fn packed_rows(&self, llama: &Llama, sentences: &Tensor, suffix: &[u32], after: &[u32]) -> Tensor {
        let [clips, _, hidden] = sentences.size()[..] else { return sentences.shallow_clone() };
        let suffix = llama.embed(suffix).unsqueeze(0).expand([clips, -1, -1], false);
        let after = llama.embed(after).view([clips, after.len() as i64 / clips, hidden]);
        let tails = Tensor::cat(&[sentences, &suffix, &after], 1).reshape([-1, hidden]);
        Tensor::cat(&[llama.embed(&self.prefix), tails], 0)
    }

    /// Clips, their sentences as rows [clips, w, hidden], without an answer; kept is the last row of each prompt, in the order of the clips.
    pub fn prompts(&self, llama: &Llama, sentences: &Tensor) -> Packed {
        let (clips, rows) = (sentences.size()[0] as usize, sentences.size()[1] as usize + self.suffix.len());
        let keep = (1..=clips).map(|clip| (self.prefix.len() + clip * rows - 1) as i64).collect();
        let x = self.packed_rows(llama, sentences, &self.suffix, &[]);
        Packed { x, packing: Packing::causal(self.prefix.len(), clips, rows, llama.device()), keep }
    }

    /// Clips, their sentences as rows [clips, w, hidden], with their answers, and the ids that follow at the kept rows: every answer's tokens and
    /// EOS. `suffix` stands after each sentence.
    pub fn with_answers(&self, llama: &Llama, sentences: &Tensor, suffix: &[u32], answers: &[usize]) -> (Packed, Vec<i64>) {
        let longest = answers.iter().map(|a| self.labels[*a].len()).max().unwrap_or(0);
        let words = sentences.size()[1] as usize + suffix.len();
        let rows = words + longest;
        let (mut after, mut keep, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (clip, answer) in answers.iter().enumerate() {
            let ids = &self.labels[*answer];
            after.extend(ids.iter().copied().chain(std::iter::repeat(self.eos)).take(longest));
            for (j, target) in ids.iter().chain([&self.eos]).enumerate() {
                keep.push((self.prefix.len() + clip * rows + words - 1 + j) as i64);
                targets.push(i64::from(*target));
            }
        }
        let x = self.packed_rows(llama, sentences, suffix, &after);
        let packing = Packing::causal(self.prefix.len(), answers.len(), rows, llama.device());
        (Packed { x, packing, keep }, targets)
    }

    /// Clips, their sentences as rows [clips, w, hidden], followed by the whole label trie, each node seeing its own path; kept are the last row of the prompt and all inner nodes, in
    /// the order of the returned node numbers (the root first).
    pub fn with_trie(&self, llama: &Llama, sentences: &Tensor) -> (Packed, Vec<u32>) {
        let (clips, words) = (sentences.size()[0] as usize, sentences.size()[1] as usize + self.suffix.len());
        let inner: Vec<u32> = (0..self.trie.len() as u32).filter(|n| self.trie.label(*n).is_none()).collect();
        // Rows of a clip: the words in a chain, then the inner nodes below the root, which is the last word.
        let row_of = |node: u32| inner.iter().position(|n| *n == node).map(|at| words - 1 + at);
        let mut parents: Vec<Option<usize>> = (0..words).map(|i| i.checked_sub(1)).collect();
        parents.extend(inner[1..].iter().map(|node| row_of(self.trie.parent(*node))));
        let ids: Vec<u32> = inner[1..].iter().map(|node| self.trie.token(*node)).collect();
        let after: Vec<u32> = (0..clips).flat_map(|_| ids.iter().copied()).collect();
        let rows = parents.len();
        let keep = (0..clips).flat_map(|clip| {
            let first = self.prefix.len() + clip * rows + words - 1;
            (0..inner.len()).map(move |i| (first + i) as i64)
        });
        let keep = keep.collect();
        let x = self.packed_rows(llama, sentences, &self.suffix, &after);
        let packing = Packing::tree(self.prefix.len(), clips, &parents, llama.device());
        (Packed { x, packing, keep }, inner)
    }
}
