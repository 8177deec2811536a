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
use crate::device::{Device, Rows};
use crate::error::{Error, Result};
use crate::llama::{KvCache, Llama, Workspace};
use crate::memory::grow;
use crate::motion::ActionSentence;
use crate::text::{Decoding, LabelTrie, Search};

/// Most rows of one pass, and of the prompts of one chunk of clips. More rows save nothing: weights are read once per pass, and from a few
/// dozen rows on arithmetic takes longer. A row of SmolLM2 takes 46 KB of KV cache and 31 KB of buffers.
const PASS_ROWS: usize = 256;
/// What `x` holds, for errors.
const ROWS: &str = "the rows of a pass";
/// Most logits held at a time (4 MB): 21 rows of a vocabulary of 49,152.
const LOGITS: usize = 1 << 20;

/// Buffers of a recogniser, and the prefix in the first slots of its cache.
#[derive(Debug)]
pub(super) struct Scorer {
    cache: KvCache,
    workspace: Workspace,
    /// P
    prefix: u32,
    rows: Rows,
    /// [rows, hidden]
    x: Vec<f32>,
    /// A chunk of [rows, vocab]
    logits: Vec<f32>,
    /// ln Σ exp of each row of `logits`
    normalisers: Vec<f32>,
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

/// A row whose children's log p is wanted: which clip, which node.
type Evaluated = (usize, u32);

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
            cache: KvCache::new(&llama.config, ids.len().max(1))?,
            workspace: Workspace::default(),
            prefix: 0,
            rows: Rows::default(),
            x: Vec::new(),
            logits: Vec::new(),
            normalisers: Vec::new(),
        };
        let prefix = ids.len() as u32;
        let rows = Rows {
            position: (0..prefix).collect(),
            slot: (0..prefix).collect(),
            ranges: (0..prefix).map(|i| 0..i + 1).collect(),
            row_ranges: (0..prefix).map(|i| i..i + 1).collect(),
        };
        let mut x = Vec::new();
        grow(ROWS, &mut x, ids.len() * llama.config.hidden_size)?;
        llama.embed(ids, &mut x);
        scorer.forward(device, llama, &rows, &mut x, &Control::default())?;
        scorer.prefix = prefix;
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
                && rows + rows_of(next) <= PASS_ROWS
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
        let Job { device, model, question, top_k, decoding, control } = job;
        let hidden = model.llama().config.hidden_size;
        let suffix = &question.suffix_ids;
        let mut asked: Vec<Asked<'q>> = Vec::with_capacity(sentences.len());
        let mut last = Vec::with_capacity(sentences.len()); // row that ends each prompt
        self.clear_rows();
        for sentence in sentences {
            let codes = sentence.tokens.len();
            let start = asked.last().map_or(self.prefix, |a| a.prompt.end);
            let prompt = start..start + (codes + suffix.len()) as u32;
            for (i, slot) in prompt.clone().enumerate() {
                self.push_row(self.prefix + i as u32, slot, start..slot + 1, []);
            }
            for &token in &sentence.tokens {
                self.x.extend_from_slice(model.quantizer().embedding(token));
            }
            let words = self.x.len();
            grow(ROWS, &mut self.x, words + suffix.len() * hidden)?;
            model.llama().embed(suffix, &mut self.x[words..]);
            last.push(self.rows.slot.len() - 1);
            let search = Search::new(&question.trie, top_k, decoding, model.metadata().calibration.temperature);
            asked.push(Asked { search, prompt, slot: vec![0; question.trie.len()] });
        }
        timings.prompt_rows += self.rows.slot.len() as u64;
        self.run(device, model.llama(), control)?;
        for (clip, row) in last.iter().enumerate() {
            self.x.copy_within(row * hidden..(row + 1) * hidden, clip * hidden);
        }
        let evaluated: Vec<Evaluated> = (0..asked.len()).map(|clip| (clip, LabelTrie::ROOT)).collect();
        self.supply(job, &mut asked, &evaluated)?;
        Ok(asked)
    }

    /// One pass over the nodes that the searches of a chunk ask for; false once none asks.
    fn labels(&mut self, job: Job<'_>, asked: &mut [Asked<'_>], timings: &mut Timings) -> Result<bool> {
        let Job { device, model, question, control, .. } = job;
        let trie = &question.trie;
        let mut ids = Vec::new();
        let mut evaluated: Vec<Evaluated> = Vec::new();
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
                self.push_row(position, free, asked.prompt.clone(), path.iter().rev().map(|&slot| slot..slot + 1));
                ids.push(trie.token(node));
                evaluated.push((clip, node));
                free += 1;
            }
        }
        if ids.is_empty() {
            return Ok(false);
        }
        grow(ROWS, &mut self.x, ids.len() * model.llama().config.hidden_size)?;
        model.llama().embed(&ids, &mut self.x);
        timings.label_rows += ids.len() as u64;
        self.run(device, model.llama(), control)?;
        self.supply(job, asked, &evaluated)?;
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
        self.x.clear();
    }

    /// Adds a row that sees the prefix, `own` and `more`, in this order.
    fn push_row(&mut self, position: u32, slot: u32, own: Range<u32>, more: impl IntoIterator<Item = Range<u32>>) {
        let first = self.rows.ranges.len() as u32;
        if self.prefix > 0 {
            self.rows.ranges.push(0..self.prefix);
        }
        self.rows.ranges.push(own);
        self.rows.ranges.extend(more);
        self.rows.row_ranges.push(first..self.rows.ranges.len() as u32);
        self.rows.position.push(position);
        self.rows.slot.push(slot);
    }

    /// Runs `self.rows` over `self.x`.
    fn run(&mut self, device: &Device, llama: &Llama, control: &Control) -> Result<()> {
        let (rows, mut x) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.x));
        let result = self.forward(device, llama, &rows, &mut x, control);
        (self.rows, self.x) = (rows, x);
        result
    }

    /// One pass, or several of [`PASS_ROWS`] rows where there are more: a row sees only itself and rows before it, so that changes nothing.
    fn forward(&mut self, device: &Device, llama: &Llama, rows: &Rows, x: &mut [f32], control: &Control) -> Result<()> {
        let n = rows.slot.len();
        let slots = rows.slot.iter().max().map_or(0, |slot| *slot as usize + 1);
        self.cache.reserve(slots)?;
        if n <= PASS_ROWS {
            return llama.forward(device, rows, x, &mut self.cache, &mut self.workspace, control);
        }
        for start in (0..n).step_by(PASS_ROWS) {
            let part = start..(start + PASS_ROWS).min(n);
            let part_rows = Rows {
                position: rows.position[part.clone()].to_vec(),
                slot: rows.slot[part.clone()].to_vec(),
                ranges: rows.ranges.clone(),
                row_ranges: rows.row_ranges[part.clone()].to_vec(),
            };
            let hidden = llama.config.hidden_size;
            let part_x = &mut x[part.start * hidden..part.end * hidden];
            llama.forward(device, &part_rows, part_x, &mut self.cache, &mut self.workspace, control)?;
        }
        Ok(())
    }

    /// Head and log-softmax of the first rows of `self.x`, one a node of `evaluated`: log p of the children goes to the searches.
    fn supply(&mut self, job: Job<'_>, asked: &mut [Asked<'_>], evaluated: &[Evaluated]) -> Result<()> {
        let (device, llama, trie, control) = (job.device, job.model.llama(), &job.question.trie, job.control);
        let (hidden, vocab) = (llama.config.hidden_size, llama.config.vocab_size);
        let chunk = (LOGITS / vocab).clamp(1, PASS_ROWS);
        for (i, nodes) in evaluated.chunks(chunk).enumerate() {
            control.check()?;
            let m = nodes.len();
            if self.normalisers.len() < m {
                grow("logits", &mut self.logits, m * vocab)?;
                self.normalisers.resize(m, 0.0);
            }
            let logits = &mut self.logits[..m * vocab];
            let normalisers = &mut self.normalisers[..m];
            llama.logits(device, &self.x[i * chunk * hidden..][..m * hidden], logits, &mut self.workspace)?;
            device.log_sum_exp(logits, vocab, normalisers);
            for ((&(clip, node), logits), &normaliser) in nodes.iter().zip(logits.chunks_exact(vocab)).zip(&*normalisers) {
                let log_p = |child: &u32| f64::from(logits[trie.token(*child) as usize]) - f64::from(normaliser);
                let children = trie.children(node);
                if !children.iter().all(|child| log_p(child).is_finite()) {
                    return Err(Error::format("llama", "its logits are not finite numbers: the weights overflow f32"));
                }
                asked[clip].search.supply(node, children.iter().map(log_p));
            }
        }
        Ok(())
    }
}

/// Time since `start`, in nanoseconds.
pub(super) fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
