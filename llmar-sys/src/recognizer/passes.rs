//! Passes through the language model: rows are put down, run, and log p of what may follow the wanted ones is handed back.
//!
//! The prompt's fixed prefix lies in slots 0..P of the cache for the whole life of its owner. What lies behind is the owner's business; a row sees
//! the prefix and the ranges it is given, so what it adds up, and in which order, does not depend on the rows beside it.

use std::ops::Range;

use super::model::Model;
use crate::control::Control;
use crate::device::{Buffer, Device, Input, Rows};
use crate::error::{Error, Result};
use crate::llama::{KvCache, Llama, Workspace};
use crate::text::LabelTrie;

/// Cache, buffers and the rows of the pass that is put together. In a steady state nothing is allocated.
#[derive(Debug)]
pub(crate) struct Passes {
    cache: KvCache,
    workspace: Workspace,
    /// P
    prefix: u32,
    /// Most rows of a pass.
    limit: usize,
    rows: Rows,
    /// Some of them, where there are more than the limit.
    part: Rows,
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
    /// Of the chunk: its rows in the pass, the tokens whose log p is wanted, and where each row's tokens end.
    chunk: (Vec<u32>, Vec<u32>, Vec<usize>),
}

/// What passes will need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Slots of the cache, the prefix among them.
    pub slots: usize,
    /// Rows put down at a time.
    pub rows: usize,
    /// Ranges that they see, all together.
    pub ranges: usize,
    /// Rows whose children's log p is wanted.
    pub wanted: usize,
    /// Those children.
    pub children: usize,
}

/// A row whose children's log p is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    row: usize,
    /// Whose it is: a number of the caller's.
    pub owner: usize,
    /// Node of the trie that it stands for.
    pub node: u32,
}

impl Passes {
    /// Runs the model's fixed prefix.
    pub fn new(device: &Device, model: &Model) -> Result<Self> {
        let ids = &model.metadata().prompt.prefix_ids;
        let llama = model.llama();
        let limit = llama.config.max_position_embeddings;
        if ids.len() > limit {
            return Err(Error::Limit { what: "number of tokens of the prefix", limit: limit as u64, got: ids.len() as u64 });
        }
        let mut passes = Self {
            cache: KvCache::new(device, &llama.config, ids.len().max(1))?,
            workspace: Workspace::new(device),
            prefix: 0,
            limit: pass_rows(device, llama),
            rows: Rows::default(),
            part: Rows::default(),
            inputs: Vec::new(),
            wanted: Vec::new(),
            x: device.buffer(),
            logits: device.buffer(),
            log_probs: Vec::new(),
            chunk: Default::default(),
        };
        for (i, &id) in (0..).zip(ids) {
            passes.push(i, i, std::iter::once(0..i + 1), Input::Word(id));
        }
        passes.run(device, model, None, |_, _| Ok(()), &Control::default())?;
        passes.prefix = ids.len() as u32;
        Ok(passes)
    }

    /// Takes now what passes of so many rows, wanted ones and cache slots will need, so that no such pass has to.
    pub fn reserve(&mut self, device: &Device, model: &Model, room: Room) -> Result<()> {
        let llama = model.llama();
        let Room { slots, rows, ranges, wanted, children } = room;
        let at_once = rows.min(self.limit);
        self.cache.reserve(device, slots)?;
        self.workspace.reserve(device, &llama.config, at_once)?;
        device.reserve("a pass of the language model", &mut self.x, at_once.saturating_mul(llama.config.hidden_size))?;
        let heads = wanted.min(logit_rows(device, llama, self.limit));
        device.reserve("logits", &mut self.logits, heads.saturating_mul(llama.config.vocab_size))?;
        for (list, count) in [(&mut self.rows, rows), (&mut self.part, if rows > self.limit { self.limit } else { 0 })] {
            // They are empty between two passes.
            list.position.reserve(count);
            list.slot.reserve(count);
            list.row_ranges.reserve(count);
            list.ranges.reserve(if count > 0 { ranges } else { 0 });
        }
        self.inputs.reserve(rows);
        self.wanted.reserve(wanted);
        let (chosen, tokens, ends) = &mut self.chunk;
        chosen.reserve(heads);
        ends.reserve(heads);
        tokens.reserve(children);
        self.log_probs.reserve(children);
        Ok(())
    }

    /// P: slots and positions of the prefix.
    pub fn prefix(&self) -> u32 {
        self.prefix
    }

    /// Most rows of a pass; more are cut into several.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Rows put down so far.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Begins a new pass.
    pub fn clear(&mut self) {
        self.rows.position.clear();
        self.rows.slot.clear();
        self.rows.ranges.clear();
        self.rows.row_ranges.clear();
        self.inputs.clear();
        self.wanted.clear();
    }

    /// Adds a row that sees the prefix and then `own`, in this order, empty ranges left out; the last range holds its own slot.
    pub fn push(&mut self, position: u32, slot: u32, own: impl IntoIterator<Item = Range<u32>>, input: Input) {
        let first = self.rows.ranges.len() as u32;
        if self.prefix > 0 {
            self.rows.ranges.push(0..self.prefix);
        }
        self.rows.ranges.extend(own.into_iter().filter(|range| !range.is_empty()));
        self.rows.row_ranges.push(first..self.rows.ranges.len() as u32);
        self.rows.position.push(position);
        self.rows.slot.push(slot);
        self.inputs.push(input);
    }

    /// Asks for log p of the children of `node` at the row put down last.
    pub fn want(&mut self, owner: usize, node: u32) {
        self.wanted.push(Wanted { row: self.inputs.len() - 1, owner, node });
    }

    /// Runs the rows, and supplies log p of the children in `trie` of every wanted node. One pass, or several of [`limit`](Self::limit) rows where
    /// there are more: a row sees only itself and rows before it, so that changes nothing.
    ///
    /// # Errors
    /// [`Error::Format`] for logits that are not finite; those of `supply`, of the device and of `control`. What the rows' slots hold is lost then.
    pub fn run(
        &mut self,
        device: &Device,
        model: &Model,
        trie: Option<&LabelTrie>,
        mut supply: impl FnMut(&Wanted, &[f64]) -> Result<()>,
        control: &Control,
    ) -> Result<()> {
        let (llama, codes) = (model.llama(), model.quantizer().embeddings());
        let Self { cache, workspace, limit, rows, part: some_rows, inputs, wanted, x, logits, log_probs, chunk, .. } = self;
        let slots = rows.slot.iter().max().map_or(0, |slot| *slot as usize + 1);
        cache.reserve(device, slots)?;
        let n = inputs.len();
        let mut wanted = &wanted[..];
        for start in (0..n).step_by(*limit) {
            let part = start..(start + *limit).min(n);
            llama.embed(device, codes, &inputs[part.clone()], x)?;
            let rows = if part.len() == n {
                &*rows
            } else {
                take_part(rows, part.clone(), some_rows);
                &*some_rows
            };
            llama.forward(device, rows, x, cache, workspace, control)?;
            let (now, later) = wanted.split_at(wanted.partition_point(|w| w.row < part.end));
            wanted = later;
            let vocab = llama.config.vocab_size;
            for some in now.chunks(logit_rows(device, llama, *limit)) {
                let (chosen, tokens, ends) = &mut *chunk;
                chosen.clear();
                tokens.clear();
                ends.clear();
                chosen.extend(some.iter().map(|w| (w.row - part.start) as u32));
                for (wanted, trie) in some.iter().zip(std::iter::repeat(trie).flatten()) {
                    tokens.extend(trie.children(wanted.node).iter().map(|&child| trie.token(child)));
                    ends.push(tokens.len());
                }
                llama.logits(device, x, chosen, logits, workspace, control)?;
                device.log_softmax_at(logits, vocab, ends, tokens, log_probs)?;
                let mut from = 0;
                for (wanted, &end) in some.iter().zip(&*ends) {
                    let log_probs = &log_probs[from..end];
                    if !log_probs.iter().all(|log_p| log_p.is_finite()) {
                        return Err(Error::format("llama", "its logits are not finite numbers: the weights overflow"));
                    }
                    supply(wanted, log_probs)?;
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

/// Rows whose logits are computed together.
fn logit_rows(device: &Device, llama: &Llama, limit: usize) -> usize {
    (device.limits().logits / llama.config.vocab_size).clamp(1, limit)
}

/// Some consecutive rows of a pass, into `out`.
fn take_part(rows: &Rows, part: Range<usize>, out: &mut Rows) {
    out.position.clear();
    out.position.extend_from_slice(&rows.position[part.clone()]);
    out.slot.clear();
    out.slot.extend_from_slice(&rows.slot[part.clone()]);
    out.ranges.clear();
    out.ranges.extend_from_slice(&rows.ranges);
    out.row_ranges.clear();
    out.row_ranges.extend_from_slice(&rows.row_ranges[part]);
}
