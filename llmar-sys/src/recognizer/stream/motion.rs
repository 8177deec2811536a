//! When a body moved: where actions begin and end. A label shows only when enough of an action has been seen, and goes only when rest has been; the
//! motion itself says when.

use std::collections::VecDeque;

/// Tokens that are remembered: as many as the longest action that is given a beginning.
const REMEMBERED: usize = 64;
/// A token is motion when its speed is at least this share of the largest since the action may have begun.
const SHARE: f32 = 0.25;
/// Quiet tokens that do not part a motion.
const PAUSE: usize = 1;

/// Motion of the last tokens of a body.
#[derive(Clone, Debug)]
pub(super) struct Motion {
    /// Beginning, end and speed of each token, the oldest first.
    tokens: VecDeque<(u64, u64, f32)>,
}

impl Motion {
    pub fn new() -> Self {
        Self { tokens: VecDeque::with_capacity(REMEMBERED) }
    }

    pub fn clear(&mut self) {
        self.tokens.clear();
    }

    /// A token from `start_ns` to `end_ns`, with the largest mean speed of any joint, seen from the root, in any unit.
    pub fn add(&mut self, start_ns: u64, end_ns: u64, speed: f32) {
        if self.tokens.len() == REMEMBERED {
            self.tokens.pop_front();
        }
        self.tokens.push_back((start_ns, end_ns, speed));
    }

    /// Largest speed of the tokens that begin at `since_ns` or later.
    fn threshold(&self, since_ns: u64) -> f32 {
        SHARE * self.tokens.iter().filter(|token| token.0 >= since_ns).map(|token| token.2).fold(0.0, f32::max)
    }

    /// When the newest motion began, not before `since_ns`. `None` when nothing is known of it.
    pub fn began(&self, since_ns: u64) -> Option<u64> {
        let threshold = self.threshold(since_ns);
        let (mut began, mut quiet) = (None, 0);
        for &(start_ns, _, speed) in self.tokens.iter().rev().take_while(|token| token.0 >= since_ns) {
            if speed >= threshold {
                (began, quiet) = (Some(start_ns), 0);
            } else if began.is_some() {
                quiet += 1;
                if quiet > PAUSE {
                    break;
                }
            }
        }
        began
    }

    /// When the last motion since `since_ns` ended. `None` when nothing is known of it.
    pub fn ended(&self, since_ns: u64) -> Option<u64> {
        let threshold = self.threshold(since_ns);
        let last = self.tokens.iter().rev().take_while(|token| token.0 >= since_ns).find(|token| token.2 >= threshold);
        last.map(|token| token.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn motion(speeds: &[f32]) -> Motion {
        let mut motion = Motion::new();
        for (i, &speed) in (0..).zip(speeds) {
            motion.add(i * 10, i * 10 + 10, speed);
        }
        motion
    }

    #[test]
    fn the_newest_motion_begins_behind_a_rest_and_ends_before_one() {
        //                     0    10   20   30   40   50   60   70   80   90
        let motion = motion(&[1.0, 0.9, 0.1, 0.1, 0.1, 0.6, 0.1, 1.0, 0.8, 0.1]);
        assert_eq!((motion.began(0), motion.ended(0)), (Some(50), Some(90)), "one quiet token parts nothing");
        assert_eq!(motion.began(70), Some(70));
        assert_eq!((motion.began(200), motion.ended(200)), (None, None));
        assert_eq!((Motion::new().began(0), Motion::new().ended(0)), (None, None));
    }

    #[test]
    fn only_the_last_tokens_are_remembered() {
        let mut motion = motion(&[1.0; 200]);
        assert_eq!(motion.began(0), Some((200 - REMEMBERED as u64) * 10));
        motion.clear();
        assert_eq!(motion.began(0), None);
    }
}
