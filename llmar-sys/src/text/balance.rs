//! What labels get whatever is read, taken out of the answers: contextual calibration (Zhao et al., "Calibrate Before Use", 2021), with clips of other actions in the place
//! of an input without content.

use super::{LabelScore, Ranking};

/// Smallest prior that a probability is divided by.
const FLOOR: f64 = 1e-12;

/// Mean probability of each label over clips that show none of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    /// [labels], sums to 1 but for rounding
    prior: Vec<f64>,
}

impl Balance {
    /// Of answers that rank all `labels` labels. Without answers nothing is known, and `None` comes back.
    pub fn over<'a>(labels: usize, answers: impl ExactSizeIterator<Item = &'a Ranking>) -> Option<Self> {
        if answers.len() == 0 {
            return None;
        }
        let share = 1.0 / answers.len() as f64;
        let mut prior = vec![0f64; labels];
        for answer in answers {
            for (score, p) in answer.top.iter().zip(&answer.probabilities) {
                prior[score.label] += f64::from(*p) * share;
            }
        }
        Some(Self { prior })
    }

    /// An answer that ranks all labels, with every probability divided by the label's prior and normalised anew: the best `top_k`. Scores stay what they were.
    pub fn applied(&self, answer: &Ranking, top_k: usize) -> Ranking {
        let weighted = |(score, p): (&LabelScore, &f32)| (f64::from(*p) / self.prior[score.label].max(FLOOR), *score);
        let mut weighted: Vec<(f64, LabelScore)> = answer.top.iter().zip(&answer.probabilities).map(weighted).collect();
        let sum = weighted.iter().map(|(weight, _)| weight).sum::<f64>().max(f64::MIN_POSITIVE);
        weighted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.label.cmp(&b.1.label)));
        weighted.truncate(top_k);
        let probabilities = weighted.iter().map(|(weight, _)| (weight / sum) as f32).collect();
        Ranking { top: weighted.into_iter().map(|(_, score)| score).collect(), probabilities }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(answer: &[(usize, f32)]) -> Ranking {
        let top = answer.iter().map(|&(label, p)| LabelScore { label, log_prob: p.ln() }).collect();
        Ranking { top, probabilities: answer.iter().map(|(_, p)| *p).collect() }
    }

    #[test]
    fn a_favourite_label_loses_its_head_start() {
        let answers = [ranking(&[(0, 0.9), (1, 0.1)]), ranking(&[(0, 0.6), (1, 0.4)])];
        let balance = Balance::over(2, answers.iter()).unwrap_or_else(|| panic!("two answers")); // .75 and .25
        let second = balance.applied(&answers[1], 2);
        assert_eq!(second.top.iter().map(|s| s.label).collect::<Vec<_>>(), [1, 0]); // .4 / .25 = 1.6 against .6 / .75 = .8
        assert!((second.probabilities[0] - 1.6 / 2.4).abs() < 1e-6 && (second.probabilities[1] - 0.8 / 2.4).abs() < 1e-6);
        assert_eq!(second.top[0].log_prob, 0.4f32.ln(), "scores stay");
        assert_eq!(balance.applied(&answers[1], 1).top, second.top[..1]);
        assert_eq!(balance.applied(&answers[1], 1).probabilities, second.probabilities[..1], "over all labels, however many are returned");
    }

    #[test]
    fn labels_that_are_alike_stay_as_they_are() {
        let answers = [ranking(&[(0, 0.7), (1, 0.3)]), ranking(&[(1, 0.7), (0, 0.3)])];
        let balance = Balance::over(2, answers.iter()).unwrap_or_else(|| panic!("two answers"));
        let same = balance.applied(&answers[0], 2);
        assert!(same.top == answers[0].top && same.probabilities.iter().zip(&answers[0].probabilities).all(|(a, b)| (a - b).abs() < 1e-6));
        // A label that never got anything is divided by the floor, not by zero; of equal weights the lower label comes first.
        let never = Balance::over(3, [ranking(&[(0, 1.0), (1, 0.0), (2, 0.0)])].iter()).unwrap_or_else(|| panic!("an answer"));
        let answer = never.applied(&ranking(&[(0, 1.0), (2, 0.0), (1, 0.0)]), 3);
        assert_eq!((answer.top.iter().map(|s| s.label).collect::<Vec<_>>(), answer.probabilities), (vec![0, 1, 2], vec![1.0, 0.0, 0.0]));
        assert_eq!(Balance::over(2, [].iter()), None);
    }
}
