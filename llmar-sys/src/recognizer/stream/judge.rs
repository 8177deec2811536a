//! From the probabilities of decisions to actions that begin and end.

use super::event::{Event, EventKind, Scored};
use super::labels::Labels;
use super::options::{StreamOptions, TOP};
use crate::text::Ranking;

/// How decisions become actions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub smoothing: f32,
    pub begin_at: f32,
    pub end_below: f32,
    pub unknown_below: f32,
    pub top_k: usize,
    pub actions_only: bool,
}

/// What is thought of one body.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    /// Smoothed probability of every label; of those that may not be named 0.
    pub smoothed: Vec<f32>,
    /// Since when each label's smoothed probability is not below `end_below`; `u64::MAX` where it is.
    pub since: Vec<u64>,
    /// Since when the label that says that nothing happens is not the best one any more; `None` while it is, or where there is no such label.
    pub moving_ns: Option<u64>,
    /// Time of the last decision; `None` before the first.
    pub decided_ns: Option<u64>,
    pub action: Option<Action>,
}

/// An action that goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Action {
    pub label: u32,
    pub start_ns: u64,
    /// Largest smoothed probability so far.
    pub peak: f32,
}

impl Rules {
    pub fn new(options: &StreamOptions, unknown_below: f32) -> Self {
        Self {
            smoothing: options.smoothing,
            begin_at: options.begin_at,
            end_below: options.end_below,
            unknown_below: options.unknown_below.unwrap_or(unknown_below),
            top_k: options.top_k,
            actions_only: options.actions_only,
        }
    }
}

impl Judge {
    /// Before the first decision.
    pub fn new(labels: usize) -> Self {
        Self { smoothed: vec![0.0; labels], since: vec![u64::MAX; labels], moving_ns: None, decided_ns: None, action: None }
    }

    /// Forgets everything; there may be another number of labels now.
    pub fn clear(&mut self, labels: usize) {
        self.smoothed.clear();
        self.smoothed.resize(labels, 0.0);
        self.since.clear();
        self.since.resize(labels, u64::MAX);
        (self.moving_ns, self.decided_ns, self.action) = (None, None, None);
    }

    /// Takes a decision: `event` has body, times and what was missing; `ranking` counts the labels of `labels.trie`. Gives `tell` the
    /// decision, and the actions that end and begin by it.
    ///
    /// What the ranking does not name shares what it leaves of the probability.
    pub fn decide(&mut self, rules: &Rules, labels: &Labels, ranking: &Ranking, mut event: Event, mut tell: impl FnMut(Event)) {
        let named = ranking.top.len();
        let left = 1.0 - ranking.probabilities.iter().sum::<f32>();
        let others = labels.of_trie.len() - named.min(labels.of_trie.len());
        let rest = if others == 0 { 0.0 } else { left.max(0.0) / others as f32 };
        // The first decision has nothing before it.
        let past = if self.decided_ns.is_some() { rules.smoothing } else { 0.0 };
        for &label in &labels.of_trie {
            let smoothed = &mut self.smoothed[label as usize];
            *smoothed = past * *smoothed + (1.0 - past) * rest;
        }
        for (score, probability) in ranking.top.iter().zip(&ranking.probabilities) {
            self.smoothed[labels.of_trie[score.label] as usize] += (1.0 - past) * (probability - rest);
        }
        let before_ns = self.decided_ns.unwrap_or(event.start_ns).max(event.start_ns);
        for (since, smoothed) in self.since.iter_mut().zip(&self.smoothed) {
            // It rose since the decision before: the middle between both is the best guess.
            *since = if *smoothed < rules.end_below { u64::MAX } else { (*since).min(u64::midpoint(before_ns, event.time_ns)) };
        }
        let log_prob = |label: u32| {
            let of_label = ranking.top.iter().find(|score| labels.of_trie[score.label] == label);
            of_label.map_or(f32::NEG_INFINITY, |score| score.log_prob)
        };
        event.top_count = 0;
        for place in 0..rules.top_k.min(TOP).min(labels.of_trie.len()) {
            let taken = &event.top[..place];
            let rest = labels.of_trie.iter().filter(|label| taken.iter().all(|scored| scored.label != **label));
            let best = rest.copied().max_by(|a, b| self.smoothed[*a as usize].total_cmp(&self.smoothed[*b as usize]).then(b.cmp(a)));
            let Some(label) = best else { break };
            event.top[place] = Scored { label, log_prob: log_prob(label), probability: self.smoothed[label as usize] };
            event.top_count += 1;
        }
        let best = event.top[0];
        event.label = Some(best.label);
        event.probability = best.probability;
        event.unknown = best.probability < rules.unknown_below;
        event.idle = labels.idle == Some(best.label);
        self.decided_ns = Some(event.time_ns);
        self.moving_ns = match labels.idle {
            Some(_) if !event.idle => Some(self.moving_ns.unwrap_or(before_ns)),
            _ => None,
        };
        if !rules.actions_only {
            tell(event);
        }

        if let Some(action) = &mut self.action {
            let now = self.smoothed[action.label as usize];
            action.peak = action.peak.max(now);
            if now < rules.end_below {
                self.end(event.body, before_ns, event.time_ns, &mut tell);
            }
        }
        let begins = best.probability >= rules.begin_at && !event.idle && self.action.is_none_or(|action| action.label != best.label);
        if begins {
            // An action shows before it can be named: it began when rest ended, or the action before it.
            let named_ns = self.since[best.label as usize].min(event.time_ns);
            let start_ns = if self.action.is_some() { named_ns } else { self.moving_ns.map_or(named_ns, |moving| moving.min(named_ns)) };
            self.end(event.body, start_ns, event.time_ns, &mut tell);
            self.action = Some(Action { label: best.label, start_ns, peak: best.probability });
            tell(Event {
                start_ns,
                label: Some(best.label),
                probability: best.probability,
                ..Event::new(EventKind::Begin, event.body, event.time_ns)
            });
        }
    }

    /// Ends the action that goes on, if any.
    pub fn end(&mut self, body: u64, end_ns: u64, time_ns: u64, tell: &mut impl FnMut(Event)) {
        if let Some(Action { label, start_ns, peak }) = self.action.take() {
            let end_ns = end_ns.max(start_ns);
            tell(Event { start_ns, end_ns, label: Some(label), probability: peak, ..Event::new(EventKind::End, body, time_ns) });
        }
    }
}
