//! Runs the language model for a recogniser: prefix once, prompts packed, then label nodes pass by pass.
//!
//! Slots of the KV cache: the prefix in 0..P for the recogniser's whole life; behind it the clips of a call, one after another; behind them
//! label nodes as the searches ask for them. A row sees the prefix, its own clip up to itself, and for label nodes its ancestors, each
//! as a range of its own. So what a row adds up, and in which order, does not depend on the clips beside it.

use std::ops::Range;
use std::time::Instant;

use super::clip::Timings;
use super::model::Model;
use super::question::Question;
use crate::control::Control;
use crate::device::{Buffer, Device, Input, Rows};
use crate::error::{Error, Result};
use crate::llama::{KvCache, Llama, Workspace};
use crate::motion::ActionSentence;
use crate::text::{Decoding, LabelTrie, Search};

/// Buffers of a recogniser, and the prefix in the first slots of its cache.
#[derive(Debug)]
pub(super) struct Scorer {
    cache: KvCache,
    workspace: Workspace,
    /// P
    prefix: u32,
    /// Most rows of a pass, and of the prompts of one chunk of clips.
    pass_rows: usize,
    rows: Rows,
    /// [rows] what stands there
    inputs: Vec<Input>,
    /// Rows whose children's log p is wanted, in order.
    wanted: Vec<Wanted>,
    /// [rows, hidden]
    x: Buffer,
    /// A chunk of [rows, vocab]
    logits: Buffer,
    /// log p of children, row after row.
    log_probs: Vec<f64>,
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

/// A row whose children's log p is wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    row: usize,
    clip: usize,
    node: u32,
}

impl Scorer {
    /// Runs the model's fixed prefix.
    pub fn new(device: &Device, model: &Model) -> Result<Self> {
        let ids = &model.metadata().prompt.prefix_ids;
        let llama = model.llama();
        let limit = llama.config.max_position_embeddings;
        if ids.len() > limit {
            return Err(Error::Limit { what: "number of tokens of the prefix", limit: limit as u64, got: ids.len() as u64 });
        }
        let mut scorer = Self {
            cache: KvCache::new(device, &llama.config, ids.len().max(1))?,
            workspace: Workspace::new(device),
            prefix: 0,
            pass_rows: pass_rows(device, llama),
            rows: Rows::default(),
            inputs: Vec::new(),
            wanted: Vec::new(),
            x: device.buffer(),
            logits: device.buffer(),
            log_probs: Vec::new(),
        };
        for (i, &id) in (0..).zip(ids) {
            scorer.push_row(i, i, 0..i + 1, [], Input::Word(id));
        }
        scorer.run(device, model, None, |_, _| Ok(()), &Control::default())?;
        scorer.prefix = ids.len() as u32;
        Ok(scorer)
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
                && rows + rows_of(next) <= self.pass_rows
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
        self.clear_rows();
        for (clip, sentence) in sentences.iter().enumerate() {
            let start = asked.last().map_or(self.prefix, |a| a.prompt.end);
            let codes = sentence.tokens.iter().map(|&token| Input::Code(token));
            let words = suffix.iter().map(|&id| Input::Word(id));
            let mut slot = start;
            for input in codes.chain(words) {
                self.push_row(self.prefix + slot - start, slot, start..slot + 1, [], input);
                slot += 1;
            }
            self.wanted.push(Wanted { row: self.inputs.len() - 1, clip, node: LabelTrie::ROOT });
            let search = Search::new(&question.trie, top_k, decoding, model.metadata().calibration.temperature);
            asked.push(Asked { search, prompt: start..slot, slot: vec![0; question.trie.len()] });
        }
        timings.prompt_rows += self.inputs.len() as u64;
        self.answer(job, &mut asked)?;
        Ok(asked)
    }

    /// One pass over the nodes that the searches of a chunk ask for; false once none asks.
    fn labels(&mut self, job: Job<'_>, asked: &mut [Asked<'_>], timings: &mut Timings) -> Result<bool> {
        let trie = &job.question.trie;
        let mut free = self.free_slot(asked);
        self.clear_rows();
        let mut path = Vec::new();
        for (clip, asked) in asked.iter_mut().enumerate() {
            for node in asked.search.next_nodes() {
                asked.slot[node as usize] = free;
                path.clear();
                let mut at = node;
                while at != LabelTrie::ROOT {
                    path.push(asked.slot[at as usize]);
                    at = trie.parent(at);
                }
                let position = self.prefix + (asked.prompt.end - asked.prompt.start) + trie.node_depth(node) - 1;
                let ancestors = path.iter().rev().map(|&slot| slot..slot + 1);
                self.push_row(position, free, asked.prompt.clone(), ancestors, Input::Word(trie.token(node)));
                self.wanted.push(Wanted { row: self.inputs.len() - 1, clip, node });
                free += 1;
            }
        }
        if self.inputs.is_empty() {
            return Ok(false);
        }
        timings.label_rows += self.inputs.len() as u64;
        self.answer(job, asked)?;
        Ok(true)
    }

    /// The first slot that neither a prompt nor an evaluated node of the chunk uses.
    fn free_slot(&self, asked: &[Asked<'_>]) -> u32 {
        let prompts = asked.last().map_or(self.prefix, |a| a.prompt.end);
        let nodes = asked.iter().flat_map(|a| &a.slot).max().map_or(0, |slot| slot + 1);
        prompts.max(nodes)
    }

    fn clear_rows(&mut self) {
        self.rows.position.clear();
        self.rows.slot.clear();
        self.rows.ranges.clear();
        self.rows.row_ranges.clear();
        self.inputs.clear();
        self.wanted.clear();
    }

    /// Adds a row that sees the prefix, `own` and `more`, in this order.
    fn push_row(&mut self, position: u32, slot: u32, own: Range<u32>, more: impl IntoIterator<Item = Range<u32>>, input: Input) {
        let first = self.rows.ranges.len() as u32;
        if self.prefix > 0 {
            self.rows.ranges.push(0..self.prefix);
        }
        self.rows.ranges.push(own);
        self.rows.ranges.extend(more);
        self.rows.row_ranges.push(first..self.rows.ranges.len() as u32);
        self.rows.position.push(position);
        self.rows.slot.push(slot);
        self.inputs.push(input);
    }

    /// Runs the rows and supplies the searches with log p of the children of every wanted node.
    fn answer(&mut self, job: Job<'_>, asked: &mut [Asked<'_>]) -> Result<()> {
        let trie = &job.question.trie;
        let supply = |wanted: &Wanted, log_probs: &[f64]| {
            if !log_probs.iter().all(|log_p| log_p.is_finite()) {
                return Err(Error::format("llama", "its logits are not finite numbers: the weights overflow"));
            }
            asked[wanted.clip].search.supply(wanted.node, log_probs.iter().copied());
            Ok(())
        };
        self.run(job.device, job.model, Some(trie), supply, job.control)
    }

    /// Runs the rows, and supplies log p of the children in `trie` of every wanted node. One pass, or several of `pass_rows` where there are more: a row sees only itself and rows before it, so that changes nothing.
    fn run(
        &mut self,
        device: &Device,
        model: &Model,
        trie: Option<&LabelTrie>,
        mut supply: impl FnMut(&Wanted, &[f64]) -> Result<()>,
        control: &Control,
    ) -> Result<()> {
        let (llama, codes) = (model.llama(), model.quantizer().embeddings());
        let slots = self.rows.slot.iter().max().map_or(0, |slot| *slot as usize + 1);
        self.cache.reserve(device, slots)?;
        let n = self.inputs.len();
        let mut wanted = &self.wanted[..];
        for start in (0..n).step_by(self.pass_rows) {
            let part = start..(start + self.pass_rows).min(n);
            llama.embed(device, codes, &self.inputs[part.clone()], &mut self.x)?;
            let own;
            let rows = if part.len() == n {
                &self.rows
            } else {
                own = part_of(&self.rows, part.clone());
                &own
            };
            llama.forward(device, rows, &mut self.x, &mut self.cache, &mut self.workspace, control)?;
            let (now, later) = wanted.split_at(wanted.partition_point(|w| w.row < part.end));
            wanted = later;
            let vocab = llama.config.vocab_size;
            for some in now.chunks((device.limits().logits / vocab).clamp(1, self.pass_rows)) {
                control.check()?;
                let rows: Vec<u32> = some.iter().map(|w| (w.row - part.start) as u32).collect();
                let (mut tokens, mut ends) = (Vec::new(), Vec::with_capacity(some.len()));
                for (wanted, trie) in some.iter().zip(std::iter::repeat(trie).flatten()) {
                    tokens.extend(trie.children(wanted.node).iter().map(|&child| trie.token(child)));
                    ends.push(tokens.len());
                }
                llama.logits(device, &self.x, &rows, &mut self.logits, &mut self.workspace)?;
                device.log_softmax_at(&self.logits, vocab, &ends, &tokens, &mut self.log_probs)?;
                let mut from = 0;
                for (wanted, &end) in some.iter().zip(&ends) {
                    supply(wanted, &self.log_probs[from..end])?;
                    from = end;
                }
            }
        }
        // A GPU may still be at work where no row is wanted; what failed there must not be blamed on a later call.
        device.synchronize()
    }
}

/// Rows of a pass that a device takes well and its memory budget allows: a row takes its share of the buffers and a slot of the cache. At least
/// one, so that a budget that is too small for it fails with the bytes it needs.
fn pass_rows(device: &Device, llama: &Llama) -> usize {
    let each = llama.row_bytes() + llama.slot_bytes();
    let fit = device.budget().left() / (2 * each).max(1);
    device.limits().rows.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
}

/// Some consecutive rows of a pass.
fn part_of(rows: &Rows, part: Range<usize>) -> Rows {
    Rows {
        position: rows.position[part.clone()].to_vec(),
        slot: rows.slot[part.clone()].to_vec(),
        ranges: rows.ranges.clone(),
        row_ranges: rows.row_ranges[part].to_vec(),
    }
}

/// Time since `start`, in nanoseconds.
pub(super) fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
