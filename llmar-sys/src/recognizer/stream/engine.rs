//! Updates: rows become tokens, tokens and labels go through the language model together, decisions become events.
//!
//! Slots of the KV cache behind the prefix: one stretch a body for the tokens of its window, for good; behind them the branches of the update that
//! runs, suffix and label nodes of each body, which the next update writes over.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::body::{Body, Due, Reader, nanoseconds};
use super::event::{Event, EventKind};
use super::inbox::{Inbox, Item};
use super::judge::{Judge, Rules};
use super::labels::Labels;
use super::options::StreamOptions;
use super::stats::{Histogram, StreamStats};
use super::{failed, guess};
use crate::control::Control;
use crate::device::{Device, Input};
use crate::error::Result;
use crate::recognizer::model::Model;
use crate::recognizer::passes::{Passes, Room};
use crate::skeleton::Taken;
use crate::text::{Decoding, LabelTrie, Ranking, Search, SearchMemory};

/// Bodies whose decisions go through the language model together.
const TOGETHER: usize = 16;
/// Where a told probability lies in the interval in which it is known, from its lower end. What a label node that was not evaluated may hold at most is
/// nearly what it holds: a trained model ends a label's words as they should. Chosen on training clips (benches/results/stream.md).
const PLACE: f64 = 0.2;

/// Everything but what comes in and goes out.
#[derive(Debug)]
pub(super) struct Engine {
    device: Device,
    model: Arc<Model>,
    reader: Reader,
    labels: Labels,
    rules: Rules,
    passes: Passes,
    places: Vec<Place>,
    deadline: Option<Duration>,
    /// A frame on its way from the inbox.
    frame: Vec<f32>,
    /// Time that an update takes, smoothed.
    expected: Duration,
}

/// A body, or room for one.
#[derive(Debug)]
pub(super) struct Place {
    pub taken: bool,
    pub body: Body,
    pub judge: Judge,
    thought: Thought,
}

/// Memory of a body's searches.
#[derive(Debug, Default)]
struct Thought {
    search: SearchMemory,
    ranking: Ranking,
    /// Cache slot of each label node that was evaluated in this update.
    slot: Vec<u32>,
    /// Nodes to evaluate with the next suffix, parents first.
    guessed: Vec<u32>,
    /// While it is made: L and node.
    order: Vec<(f64, u32)>,
}

/// Events on their way out, and counters.
#[derive(Debug)]
pub(super) struct Outbox {
    events: VecDeque<Event>,
    limit: usize,
    /// What went wrong on the worker, for the next poll.
    error: Option<crate::error::Error>,
    counters: StreamStats,
    latency: Histogram,
    update: Histogram,
}

impl Outbox {
    pub fn new(limit: usize) -> Self {
        Self {
            events: VecDeque::with_capacity(limit),
            limit,
            error: None,
            counters: StreamStats::default(),
            latency: Histogram::new(),
            update: Histogram::new(),
        }
    }

    fn put(&mut self, event: Event) {
        if self.events.len() == self.limit {
            self.events.pop_front();
            self.counters.dropped_events += 1;
        }
        self.events.push_back(event);
    }

    /// Moves the oldest events to `out`; first of all it tells what went wrong.
    pub fn take(&mut self, out: &mut [Event]) -> Result<usize> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let count = out.len().min(self.events.len());
        for (to, event) in out.iter_mut().zip(self.events.drain(..count)) {
            *to = event;
        }
        Ok(count)
    }

    pub fn fail(&mut self, error: crate::error::Error) {
        self.error.get_or_insert(error);
    }

    pub fn clear(&mut self) {
        self.events.clear();
        self.error = None;
    }

    pub fn count_frame(&mut self, taken: bool) {
        if taken {
            self.counters.frames += 1;
        } else {
            self.counters.refused_frames += 1;
        }
    }

    pub fn stats(&self) -> StreamStats {
        StreamStats {
            queued_events: self.events.len() as u64,
            latency: self.latency.percentiles(),
            update: self.update.percentiles(),
            ..self.counters
        }
    }

    pub fn reset_stats(&mut self) {
        self.counters = StreamStats::default();
        self.latency.clear();
        self.update.clear();
    }
}

/// Locks for a moment.
fn with<T, R>(mutex: &Mutex<T>, f: impl FnOnce(&mut T) -> R) -> Result<R> {
    mutex.lock().map(|mut inner| f(&mut inner)).map_err(|_| failed())
}

impl Engine {
    pub fn new(model: Arc<Model>, options: &StreamOptions) -> Result<Self> {
        let device = model.placed().device(options.threads.max(1))?;
        let reader = Reader::new(Arc::clone(&model), options, &device)?;
        let labels = Labels::of_model(&model, &reader.map)?;
        let passes = Passes::new(&device, &model)?;
        let place = |_| {
            let body = reader.body(&device)?;
            Ok(Place { taken: false, body, judge: Judge::new(labels.states.len()), thought: Thought::default() })
        };
        let places = (0..options.max_bodies).map(place).collect::<Result<Vec<_>>>()?;
        let frame = vec![0.0; reader.map.joints() * reader.map.coords()];
        let rules = Rules::new(options, model.metadata().calibration.unknown_below);
        let mut engine =
            Self { device, model, reader, labels, rules, passes, places, deadline: options.deadline, frame, expected: Duration::ZERO };
        let labels = engine.labels.clone();
        engine.change_labels(labels)?;
        Ok(engine)
    }

    /// Joints of a frame of the caller.
    pub fn joints(&self) -> usize {
        self.reader.map.joints()
    }

    /// Name of the layout of the frames.
    pub fn layout(&self) -> &str {
        &self.reader.layout
    }

    /// Most tokens of a window.
    pub fn window_tokens(&self) -> usize {
        self.reader.window_tokens()
    }

    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    pub fn set_labels(&mut self, labels: &[&str]) -> Result<()> {
        let new = if labels.is_empty() { Labels::of_model(&self.model, &self.reader.map)? } else { Labels::with(&self.model, labels)? };
        self.change_labels(new)
    }

    pub fn filter_labels(&mut self, allowed: impl Fn(usize) -> bool) -> Result<()> {
        self.change_labels(self.labels.filtered(allowed)?)
    }

    /// Asks about these labels from now on; what was thought of others is of no use. On `Err` nothing has changed.
    fn change_labels(&mut self, labels: Labels) -> Result<()> {
        self.passes.reserve(&self.device, &self.model, self.room(&labels))?;
        self.labels = labels;
        let (labels, nodes) = (self.labels.states.len(), self.labels.trie.len());
        for Place { judge, thought, .. } in &mut self.places {
            judge.clear(labels);
            thought.guessed.clear();
            thought.slot.clear();
            thought.slot.resize(nodes, 0);
            // A search that is harder than those before must not allocate.
            thought.search.reserve(&self.labels.trie);
            thought.guessed.reserve(guess::MOST);
            thought.order.clear();
            thought.order.reserve(self.labels.trie.inner());
        }
        Ok(())
    }

    /// What the largest update needs. One that evaluates more label nodes a body than this provides for takes more slots then: at most all nodes'.
    fn room(&self, labels: &Labels) -> Room {
        let (trie, suffix) = (&labels.trie, labels.question.suffix_ids.len());
        let (window, together) = (self.reader.window_tokens(), self.places.len().min(TOGETHER));
        let (guessed, evaluated) = (trie.inner().min(guess::MOST), trie.inner().min(2 * guess::MOST));
        let rows = together * (window + suffix + guessed);
        Room {
            slots: self.passes.prefix() as usize + self.places.len() * window + together * (suffix + evaluated),
            rows,
            // Prefix, tokens, suffix, and a node's ancestors.
            ranges: rows * (3 + trie.depth()),
            wanted: together * (1 + guessed),
            children: together * trie.len(),
        }
    }

    pub fn reset(&mut self) -> Result<()> {
        let labels = self.labels.states.len();
        for Place { taken, body, judge, .. } in &mut self.places {
            *taken = false;
            self.reader.restart(&self.device, body)?;
            judge.clear(labels);
        }
        Ok(())
    }

    /// A restored body in its place.
    pub fn put(&mut self, place: usize, fill: impl FnOnce(&mut Body, &mut Judge)) -> Result<()> {
        let Place { taken, body, judge, .. } = &mut self.places[place];
        fill(body, judge);
        *taken = true;
        self.reader.replay(&self.device, body)
    }

    /// Works on what waits until nothing does, or `enough` events are there.
    pub fn run(&mut self, inbox: &Mutex<Inbox>, outbox: &Mutex<Outbox>, enough: usize, control: &Control) -> Result<()> {
        loop {
            if with(outbox, |outbox| outbox.events.len() >= enough)? {
                return Ok(());
            }
            control.check()?;
            let more = self.take_in(inbox, outbox)?;
            if self.places.iter().any(|place| place.body.due.is_some()) {
                self.update(outbox, control)?;
            } else if !more {
                return Ok(());
            }
        }
    }

    /// Takes frames until a body comes again whose decision is due; false when nothing waits any more.
    fn take_in(&mut self, inbox: &Mutex<Inbox>, outbox: &Mutex<Outbox>) -> Result<bool> {
        // Rows that were left when a decision became due.
        for place in 0..self.places.len() {
            self.advance(place, Instant::now(), outbox)?;
        }
        loop {
            let Some(item) = with(inbox, |inbox| inbox.first())? else { return Ok(false) };
            let waits = |place: &Place| place.body.due.is_some();
            let blocked = match item {
                Item::Frame { place, .. } | Item::Forget { place } => waits(&self.places[place]),
                Item::Flush => self.places.iter().any(waits),
            };
            if blocked {
                return Ok(true);
            }
            with(inbox, |inbox| inbox.take(&mut self.frame))?;
            match item {
                Item::Frame { place, body, time_ns, arrived, .. } => self.take_frame(place, body, time_ns, arrived, outbox)?,
                Item::Forget { place } => self.forget(place, outbox)?,
                Item::Flush => {
                    self.flush(outbox)?;
                    return Ok(true);
                }
            }
        }
    }

    fn take_frame(&mut self, place: usize, id: u64, time_ns: u64, arrived: Instant, outbox: &Mutex<Outbox>) -> Result<()> {
        let Place { taken, body, judge, .. } = &mut self.places[place];
        if !*taken {
            *taken = true;
            body.id = id;
            self.reader.restart(&self.device, body)?;
            judge.clear(self.labels.states.len());
        }
        if self.reader.is_gap(body, time_ns) {
            let seen_ns = body.seen_ns;
            self.reader.restart(&self.device, body)?;
            let mut outbox = outbox.lock().map_err(|_| failed())?;
            judge.end(id, seen_ns, time_ns, &mut |event| outbox.put(event));
            judge.clear(self.labels.states.len());
            outbox.counters.gaps += 1;
        }
        if self.reader.take(body, time_ns, arrived, &self.frame) == Taken::Frame {
            self.advance(place, arrived, outbox)
        } else {
            with(outbox, |outbox| outbox.counters.unseen_frames += 1)
        }
    }

    /// Makes tokens until a decision is due, and drops those that would be late.
    fn advance(&mut self, place: usize, arrived: Instant, outbox: &Mutex<Outbox>) -> Result<()> {
        let body = &mut self.places[place].body;
        while body.due.is_none() {
            let step = self.reader.advance(&self.device, body, arrived)?;
            let late = |due: Due| self.deadline.is_some_and(|deadline| due.arrived.elapsed() + self.expected > deadline);
            let skipped = body.due.take_if(|due| late(*due)).is_some();
            if step.tokens + step.reanchored > 0 || skipped {
                with(outbox, |outbox| {
                    outbox.counters.tokens += step.tokens;
                    outbox.counters.reanchored += step.reanchored;
                    outbox.counters.skipped_decisions += u64::from(skipped);
                })?;
            }
            if !skipped {
                break;
            }
            // One slow update must not put an end to all others: with every one that is left out the next is more likely.
            self.expected = self.expected * 7 / 8;
        }
        Ok(())
    }

    fn forget(&mut self, place: usize, outbox: &Mutex<Outbox>) -> Result<()> {
        let Place { taken, body, judge, .. } = &mut self.places[place];
        if std::mem::take(taken) {
            let (id, seen_ns) = (body.id, body.seen_ns);
            with(outbox, |outbox| {
                judge.end(id, seen_ns, seen_ns, &mut |event| outbox.put(event));
                outbox.put(Event::new(EventKind::Forgotten, id, seen_ns));
            })?;
        }
        judge.clear(self.labels.states.len());
        self.reader.restart(&self.device, body)
    }

    /// Makes every decision due that has something new to say; the actions end after them.
    fn flush(&mut self, outbox: &Mutex<Outbox>) -> Result<()> {
        for place in 0..self.places.len() {
            if self.places[place].taken {
                let step = self.reader.finish(&self.device, &mut self.places[place].body, Instant::now())?;
                with(outbox, |outbox| outbox.counters.tokens += step.tokens)?;
            }
        }
        if self.places.iter().any(|place| place.body.due.is_some()) {
            self.update(outbox, &Control::default())?;
        }
        for Place { taken, body, judge, .. } in &mut self.places {
            if *taken {
                let (id, seen_ns) = (body.id, body.seen_ns);
                with(outbox, |outbox| judge.end(id, seen_ns, seen_ns, &mut |event| outbox.put(event)))?;
            }
        }
        Ok(())
    }

    /// Makes all decisions that are due.
    fn update(&mut self, outbox: &Mutex<Outbox>, control: &Control) -> Result<()> {
        let begin = Instant::now();
        let mut from = 0;
        while from < self.places.len() {
            let mut group = [0_usize; TOGETHER];
            let mut count = 0;
            while count < TOGETHER && from < self.places.len() {
                if self.places[from].body.due.is_some() {
                    group[count] = from;
                    count += 1;
                }
                from += 1;
            }
            if count > 0 {
                self.decide(&group[..count], outbox, control)?;
            }
        }
        let took = begin.elapsed();
        self.expected = if self.expected.is_zero() { took } else { (self.expected * 7 + took) / 8 };
        with(outbox, |outbox| outbox.update.add(took))
    }

    /// Decides for the bodies at these places, in one pass or a few.
    fn decide(&mut self, group: &[usize], outbox: &Mutex<Outbox>, control: &Control) -> Result<()> {
        let Self { device, model, labels, rules, passes, places, reader, .. } = self;
        let (trie, suffix) = (&labels.trie, &labels.question.suffix_ids);
        let temperature = model.metadata().calibration.temperature;
        let (prefix, window) = (passes.prefix(), reader.window_tokens() as u32);
        let mut free = prefix + window * places.len() as u32;
        let mut searches: [Option<Search<'_>>; TOGETHER] = Default::default();
        // Slots of each body's tokens and suffix.
        let mut spans: [[Range<u32>; 2]; TOGETHER] = Default::default();
        let (mut ran, mut rows) = (0, 0);
        passes.clear();
        for (i, &place) in group.iter().enumerate() {
            let Place { body, thought, .. } = &mut places[place];
            let search = std::mem::take(&mut thought.search);
            let search = Search::with_memory(trie, rules.top_k, Decoding::Exact, temperature, search);
            searches[i] = Some(search.with_interval(rules.tolerance, PLACE));
            let base = prefix + window * place as u32;
            for (at, &token) in (0..).zip(&body.tokens).skip(body.cached) {
                passes.push(prefix + at, base + at, std::iter::once(base..base + at + 1), Input::Code(token));
            }
            let tokens = base..base + body.tokens.len() as u32;
            let begin = free;
            for (at, &id) in (tokens.len() as u32..).zip(suffix) {
                passes.push(prefix + at, free, [tokens.clone(), begin..free + 1], Input::Word(id));
                free += 1;
            }
            passes.want(i, LabelTrie::ROOT);
            spans[i] = [tokens, begin..free];
            for &node in &thought.guessed {
                push_node(passes, trie, &mut thought.slot, &spans[i], &mut free, node);
                passes.want(i, node);
            }
        }
        loop {
            (ran, rows) = (ran + 1, rows + passes.len() as u64);
            let run = passes.run(
                device,
                model,
                Some(trie),
                |wanted, log_probs| {
                    if let Some(search) = &mut searches[wanted.owner] {
                        search.supply(wanted.node, log_probs.iter().copied());
                    }
                    Ok(())
                },
                control,
            );
            if let Err(error) = run {
                // What the slots hold is lost; the decisions stay due.
                group.iter().for_each(|place| places[*place].body.cached = 0);
                return Err(error);
            }
            passes.clear();
            for (i, &place) in group.iter().enumerate() {
                let Some(search) = &mut searches[i] else { continue };
                for &node in search.next_nodes() {
                    push_node(passes, trie, &mut places[place].thought.slot, &spans[i], &mut free, node);
                    passes.want(i, node);
                }
            }
            if passes.len() == 0 {
                break;
            }
        }
        let mut outbox = outbox.lock().map_err(|_| failed())?;
        outbox.counters.passes += ran;
        outbox.counters.rows += rows;
        for (i, &place) in group.iter().enumerate() {
            let Place { body, judge, thought, .. } = &mut places[place];
            let (Some(mut search), Some(due)) = (searches[i].take(), body.due.take()) else { continue };
            body.cached = body.tokens.len();
            search.rank(&mut thought.ranking);
            guess::next(&mut search, trie, rules.tolerance, &mut thought.order, &mut thought.guessed);
            thought.search = search.into_memory();
            let latency = due.arrived.elapsed();
            let event = Event {
                start_ns: due.start_ns,
                tokens: body.tokens.len() as u32,
                missing: due.missing,
                missing_joints: due.missing_joints,
                latency_ns: nanoseconds(latency),
                ..Event::new(EventKind::Decision, body.id, due.time_ns)
            };
            judge.decide(rules, labels, &thought.ranking, &body.motion, event, |event| outbox.put(event));
            outbox.counters.decisions += 1;
            outbox.latency.add(latency);
        }
        Ok(())
    }
}

/// Puts down the row of a label node behind a body's suffix.
fn push_node(passes: &mut Passes, trie: &LabelTrie, slots: &mut [u32], [tokens, suffix]: &[Range<u32>; 2], free: &mut u32, node: u32) {
    slots[node as usize] = *free;
    let position = passes.prefix() + (tokens.len() + suffix.len()) as u32 + trie.node_depth(node) - 1;
    let depth = trie.node_depth(node);
    // Ancestors from the root's child down, itself last.
    let ancestors = (1..=depth).map(|wanted| {
        let mut at = node;
        while trie.node_depth(at) > wanted {
            at = trie.parent(at);
        }
        slots[at as usize]..slots[at as usize] + 1
    });
    passes.push(position, *free, [tokens.clone(), suffix.clone()].into_iter().chain(ancestors), Input::Word(trie.token(node)));
    *free += 1;
}
