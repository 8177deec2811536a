//! Runs the language model for a recogniser: prefix once, prompts packed, then label nodes pass by pass.
//!
//! Slots of the KV cache behind the prefix: the clips of a call, one after another; behind them label nodes as the searches ask for them. A row sees the prefix, its own clip up to itself, and for label nodes its ancestors, each
//! as a range of its own. So what a row adds up, and in which order, does not depend on the clips beside it.

use std::ops::Range;
use std::time::Instant;

use super::clip::Timings;
use super::model::Model;
use super::passes::{Passes, Wanted};
use super::question::Question;
use crate::control::Control;
use crate::device::{Device, Input};
use crate::error::Result;
use crate::motion::ActionSentence;
use crate::text::{Decoding, LabelTrie, Search};

/// The passes of a recogniser.
#[derive(Debug)]
pub(super) struct Scorer {
    passes: Passes,
}

/// What a call asks, of whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub device: &'a Device,
    pub model: &'a Model,
    pub question: &'a Question,
    /// Best labels wanted of each sentence.
    pub top_k: usize,
    pub decoding: Decoding,
    pub control: &'a Control,
}

/// One clip of a chunk.
struct Asked<'t> {
    search: Search<'t>,
    /// Slots of its prompt behind the prefix.
    prompt: Range<u32>,
    /// Cache slot of each node that was evaluated.
    slot: Vec<u32>,
}

impl Scorer {
    /// Runs the model's fixed prefix.
    pub fn new(device: &Device, model: &Model) -> Result<Self> {
        Ok(Self { passes: Passes::new(device, model)? })
    }

    /// Searches the best labels of each sentence. Finished searches come back in order.
    pub fn score<'q>(&mut self, job: Job<'q>, sentences: &[&ActionSentence], timings: &mut Timings) -> Result<Vec<Search<'q>>> {
        let question = job.question;
        // With every node evaluated, the label rows of a chunk can outnumber its prompts.
        let label_rows = if job.decoding == Decoding::Exact && job.top_k >= question.trie.labels() { question.trie.inner() } else { 0 };
        let rows_of = |s: &ActionSentence| s.tokens.len() + question.suffix_ids.len() + label_rows;
        let mut out = Vec::with_capacity(sentences.len());
        let mut rest = sentences;
        while let Some(first) = rest.first() {
            let (mut clips, mut rows) = (1, rows_of(first));
            while let Some(next) = rest.get(clips)
                && rows + rows_of(next) <= self.passes.limit()
            {
                rows += rows_of(next);
                clips += 1;
            }
            let (chunk, others) = rest.split_at(clips);
            rest = others;
            let start = Instant::now();
            let mut asked = self.prompts(job, chunk, timings)?;
            timings.prompt_ns += nanoseconds(start);
            let start = Instant::now();
            while self.labels(job, &mut asked, timings)? {}
            timings.label_ns += nanoseconds(start);
            out.extend(asked.into_iter().map(|a| a.search));
        }
        Ok(out)
    }

    /// Runs the prompts of a chunk of clips, packed, and supplies the root of each search.
    fn prompts<'q>(&mut self, job: Job<'q>, sentences: &[&ActionSentence], timings: &mut Timings) -> Result<Vec<Asked<'q>>> {
        let Job { model, question, top_k, decoding, .. } = job;
        let suffix = &question.suffix_ids;
        let mut asked: Vec<Asked<'q>> = Vec::with_capacity(sentences.len());
        self.passes.clear();
        for (clip, sentence) in sentences.iter().enumerate() {
            let start = asked.last().map_or(self.passes.prefix(), |a| a.prompt.end);
            let codes = sentence.tokens.iter().map(|&token| Input::Code(token));
            let words = suffix.iter().map(|&id| Input::Word(id));
            let mut slot = start;
            for input in codes.chain(words) {
                self.passes.push(self.passes.prefix() + slot - start, slot, std::iter::once(start..slot + 1), input);
                slot += 1;
            }
            self.passes.want(clip, LabelTrie::ROOT);
            let search = Search::new(&question.trie, top_k, decoding, model.metadata().calibration.temperature);
            asked.push(Asked { search, prompt: start..slot, slot: vec![0; question.trie.len()] });
        }
        timings.prompt_rows += self.passes.len() as u64;
        self.answer(job, &mut asked)?;
        Ok(asked)
    }

    /// One pass over the nodes that the searches of a chunk ask for; false once none asks.
    fn labels(&mut self, job: Job<'_>, asked: &mut [Asked<'_>], timings: &mut Timings) -> Result<bool> {
        let trie = &job.question.trie;
        let mut free = self.free_slot(asked);
        self.passes.clear();
        let mut path = Vec::new();
        for (clip, asked) in asked.iter_mut().enumerate() {
            for &node in asked.search.next_nodes() {
                asked.slot[node as usize] = free;
                path.clear();
                let mut at = node;
                while at != LabelTrie::ROOT {
                    path.push(asked.slot[at as usize]);
                    at = trie.parent(at);
                }
                let position = self.passes.prefix() + (asked.prompt.end - asked.prompt.start) + trie.node_depth(node) - 1;
                let ancestors = path.iter().rev().map(|&slot| slot..slot + 1);
                self.passes.push(position, free, std::iter::once(asked.prompt.clone()).chain(ancestors), Input::Word(trie.token(node)));
                self.passes.want(clip, node);
                free += 1;
            }
        }
        if self.passes.len() == 0 {
            return Ok(false);
        }
        timings.label_rows += self.passes.len() as u64;
        self.answer(job, asked)?;
        Ok(true)
    }

    /// The first slot that neither a prompt nor an evaluated node of the chunk uses.
    fn free_slot(&self, asked: &[Asked<'_>]) -> u32 {
        let prompts = asked.last().map_or(self.passes.prefix(), |a| a.prompt.end);
        let nodes = asked.iter().flat_map(|a| &a.slot).max().map_or(0, |slot| slot + 1);
        prompts.max(nodes)
    }

    /// Runs the rows and supplies the searches with log p of the children of every wanted node.
    fn answer(&mut self, job: Job<'_>, asked: &mut [Asked<'_>]) -> Result<()> {
        let supply = |wanted: &Wanted, log_probs: &[f64]| {
            asked[wanted.owner].search.supply(wanted.node, log_probs.iter().copied());
            Ok(())
        };
        self.passes.run(job.device, job.model, Some(&job.question.trie), supply, job.control)
    }
}

/// Time since `start`, in nanoseconds.
pub(super) fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
