//! From the probabilities of decisions to actions that begin and end.

use super::event::{Event, EventKind, Scored};
use super::labels::Labels;
use super::motion::Motion;
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
    pub tolerance: f64,
    pub actions_only: bool,
}

/// What is thought of one body.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    /// Smoothed probability of every label; of those that may not be named 0.
    pub smoothed: Vec<f32>,
    /// Since when each label's smoothed probability is not below `end_below`; `u64::MAX` where it is.
    pub since: Vec<u64>,
    /// When the last action ended.
    pub ended_ns: u64,
    /// Time of the last decision, or of an action's end after it; `None` before the first.
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
            tolerance: options.tolerance,
            actions_only: options.actions_only,
        }
    }
}

impl Judge {
    /// Before the first decision.
    pub fn new(labels: usize) -> Self {
        Self { smoothed: vec![0.0; labels], since: vec![u64::MAX; labels], ended_ns: 0, decided_ns: None, action: None }
    }

    /// Forgets everything; there may be another number of labels now.
    pub fn clear(&mut self, labels: usize) {
        self.smoothed.clear();
        self.smoothed.resize(labels, 0.0);
        self.since.clear();
        self.since.resize(labels, u64::MAX);
        (self.ended_ns, self.decided_ns, self.action) = (0, None, None);
    }

    /// Takes a decision: `event` has body, times and what was missing; `ranking` counts the labels of `labels.trie`. Gives `tell` the
    /// decision, and the actions that end and begin by it.
    ///
    /// What the ranking does not name shares what it leaves of the probability.
    pub fn decide(
        &mut self,
        rules: &Rules,
        labels: &Labels,
        ranking: &Ranking,
        motion: &Motion,
        mut event: Event,
        mut tell: impl FnMut(Event),
    ) {
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
        if !rules.actions_only {
            tell(event);
        }

        if let Some(action) = &mut self.action {
            let now = self.smoothed[action.label as usize];
            action.peak = action.peak.max(now);
            if now < rules.end_below {
                // It is missed only when rest has been seen.
                let end_ns = motion.ended(action.start_ns).map_or(before_ns, |ended_ns| ended_ns.min(before_ns));
                self.end(event.body, end_ns, event.time_ns, &mut tell);
            }
        }
        let begins = best.probability >= rules.begin_at && !event.idle && self.action.is_none_or(|action| action.label != best.label);
        if begins {
            let named_ns = self.since[best.label as usize].min(event.time_ns);
            let start_ns = match (&self.action, motion.began(self.ended_ns)) {
                // Where another action goes on, this one was not the likelier until now.
                (Some(_), _) => named_ns.max(u64::midpoint(before_ns, event.time_ns)).min(event.time_ns),
                // An action shows before it can be named.
                (None, Some(began_ns)) => began_ns.min(named_ns),
                (None, None) => named_ns,
            };
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
            // What comes next has not begun before.
            self.decided_ns = self.decided_ns.map(|decided_ns| decided_ns.max(end_ns));
            self.ended_ns = self.ended_ns.max(end_ns);
            self.since.iter_mut().filter(|since| **since != u64::MAX).for_each(|since| *since = (*since).max(end_ns));
            tell(Event { start_ns, end_ns, label: Some(label), probability: peak, ..Event::new(EventKind::End, body, time_ns) });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recognizer::question::Question;
    use crate::recognizer::stream::labels::LabelState;
    use crate::text::{LabelScore, LabelTrie};

    const LABELS: usize = 4;

    /// Four labels, the last of them idle.
    fn labels() -> Labels {
        let ids = [[1], [2], [3], [4]];
        let trie = LabelTrie::new(ids.iter().map(|ids| &ids[..]), 0, 5).unwrap();
        let names = (0..LABELS).map(|label| label.to_string()).collect();
        Labels {
            question: Question { suffix_ids: Vec::new(), names, trie: trie.clone() },
            trie,
            of_trie: (0..LABELS as u32).collect(),
            states: vec![LabelState::Allowed; LABELS],
            idle: Some(LABELS as u32 - 1),
        }
    }

    /// The best `top_k` of these weights, as a search ranks them.
    fn ranking(weights: [f32; LABELS], top_k: usize) -> Ranking {
        let total: f32 = weights.iter().sum();
        let mut order: Vec<usize> = (0..LABELS).collect();
        order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
        order.truncate(top_k);
        Ranking {
            top: order.iter().map(|&label| LabelScore { label, log_prob: (weights[label] / total).ln() }).collect(),
            probabilities: order.iter().map(|&label| weights[label] / total).collect(),
        }
    }

    /// Weights of a label that is often far ahead of the others.
    fn weights() -> impl Strategy<Value = [f32; LABELS]> {
        prop::array::uniform4(0.0_f32..6.0).prop_map(|logits| logits.map(f32::exp))
    }

    /// A decision and how long it came after the one before, or an end of the input.
    fn steps() -> impl Strategy<Value = Vec<(Option<[f32; LABELS]>, u64)>> {
        prop::collection::vec((prop::option::weighted(0.9, weights()), 2_u64..1_000), 1..80)
    }

    proptest! {
        #[test]
        fn actions_begin_and_end_in_turn_and_in_time(
            steps in steps(),
            smoothing in 0.0_f32..0.9,
            begin_at in 0.2_f32..0.9,
            share in 0.0_f32..=1.0,
            top_k in 1_usize..=LABELS,
            window in 0_u64..3_000,
        ) {
            let rules = Rules { smoothing, begin_at, end_below: begin_at * share, unknown_below: 0.0, top_k, tolerance: 0.15, actions_only: false };
            let (labels, mut judge) = (labels(), Judge::new(LABELS));
            let mut motion = Motion::new();
            let mut events = Vec::new();
            let mut now = 5_000;
            for (weights, later) in steps {
                now += later;
                match weights {
                    Some(weights) => {
                        let event = Event { start_ns: now - window, ..Event::new(EventKind::Decision, 7, now) };
                        motion.add(now - later, now, weights[0]);
                        judge.decide(&rules, &labels, &ranking(weights, top_k), &motion, event, |event| events.push(event));
                    }
                    None => judge.end(7, now, now, &mut |event| events.push(event)),
                }
                prop_assert!((judge.smoothed.iter().sum::<f32>() - 1.0).abs() < 1e-4 || judge.decided_ns.is_none());
            }
            let mut on: Option<Event> = None;
            let (mut told_ns, mut free_ns) = (0, 0);
            for event in events {
                prop_assert!(event.time_ns >= told_ns && event.body == 7);
                told_ns = event.time_ns;
                match event.kind {
                    EventKind::Decision => {
                        let top = &event.top[..event.top_count as usize];
                        prop_assert_eq!(top.len(), top_k);
                        prop_assert!(top.windows(2).all(|pair| pair[0].probability >= pair[1].probability));
                        prop_assert!(top.iter().map(|scored| scored.probability).sum::<f32>() <= 1.0 + 1e-4);
                        prop_assert_eq!((event.label, event.idle), (Some(top[0].label), top[0].label == LABELS as u32 - 1));
                    }
                    EventKind::Begin => {
                        prop_assert!(on.is_none() && event.probability >= begin_at);
                        prop_assert!(event.label.is_some_and(|label| label + 1 < LABELS as u32), "idle is no action");
                        prop_assert!(free_ns <= event.start_ns && event.start_ns <= event.time_ns, "{free_ns}: {event:?}");
                        on = Some(event);
                    }
                    EventKind::End => {
                        let Some(begin) = on.take() else { return Err(TestCaseError::fail("an end without a beginning")) };
                        prop_assert_eq!((event.label, event.start_ns), (begin.label, begin.start_ns));
                        prop_assert!(event.start_ns <= event.end_ns && event.end_ns <= event.time_ns, "{event:?}");
                        prop_assert!(event.probability >= begin.probability);
                        free_ns = event.end_ns;
                    }
                    EventKind::Forgotten => return Err(TestCaseError::fail("nobody was forgotten")),
                }
            }
        }
    }
}
