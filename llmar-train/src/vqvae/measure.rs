//! What a live model says of windows of streams: the lengths that are asked about, and the figures.

use serde::Serialize;

/// Tokens of the windows that are measured; longer than the model's longest count as that.
pub const LENGTHS: [usize; 8] = [4, 8, 12, 16, 20, 24, 28, 32];

/// Answers about windows. Shares are percentages; 0 where there is nothing to count.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Told {
    /// Windows that end in an action.
    pub acting: usize,
    /// Of them, those whose action is named.
    pub named: f64,
    /// The same for windows of up to 8 tokens, and of more.
    pub named_short: f64,
    /// See `named_short`.
    pub named_long: f64,
    /// Windows that end when nothing happens.
    pub resting: usize,
    /// Of them, those of which that is said.
    pub idle_recall: f64,
    /// Of the windows of which it is said, those of which it is true.
    pub idle_precision: f64,
}

/// Of (tokens, label, answer) of each window.
pub fn told(windows: &[(usize, usize, usize)], idle: Option<usize>) -> Told {
    /// Tokens up to which a window is short: a second.
    const SHORT: usize = 8;
    let share = |of: &dyn Fn(&(usize, usize, usize)) -> bool, right: &dyn Fn(&(usize, usize, usize)) -> bool| {
        let count = windows.iter().filter(|w| of(w)).count();
        100.0 * windows.iter().filter(|w| of(w) && right(w)).count() as f64 / count.max(1) as f64
    };
    let acts = |w: &(usize, usize, usize)| Some(w.1) != idle;
    let named = |w: &(usize, usize, usize)| w.1 == w.2;
    Told {
        acting: windows.iter().filter(|w| acts(w)).count(),
        named: share(&acts, &named),
        named_short: share(&|w| acts(w) && w.0 <= SHORT, &named),
        named_long: share(&|w| acts(w) && w.0 > SHORT, &named),
        resting: windows.iter().filter(|w| !acts(w)).count(),
        idle_recall: share(&|w| !acts(w), &named),
        idle_precision: share(&|w| Some(w.2) == idle, &named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_and_rest_are_counted_apart() {
        // Label 2 is idle: two short windows, three long ones.
        let windows = [(4, 0, 0), (8, 1, 2), (12, 0, 0), (32, 1, 0), (32, 2, 2)];
        let told = told(&windows, Some(2));
        assert_eq!((told.acting, told.named, told.named_short, told.named_long), (4, 50.0, 50.0, 50.0));
        assert_eq!((told.resting, told.idle_recall, told.idle_precision), (1, 100.0, 50.0));
    }
}
