//! Persons in an image whose only identity is their place in each frame's list, and the choice of those that a clip keeps.

use super::{Body, Outcome};

/// Places of a frame's list that are looked at.
const PLACES: usize = 4;
/// Persons that are kept.
pub(super) const PERSONS: usize = 2;

/// Keeps the `PERSONS` persons with the most energy, most first, the lower place on ties: the standard deviation of x over all joints of
/// the frames that show the person, plus that of y, as the tools of UAV-Human and UNIK have it. Every frame stays, so that time does; a
/// person that a frame does not show is zero and not valid there, and so is a joint at exactly (0, 0), which is how detectors write a joint
/// not found.
///
/// `frames[t][m][j]`: x and y of a joint, `joints` of them a person.
pub(super) fn strongest(frames: &[Vec<Vec<[f32; 2]>>], joints: usize) -> Outcome {
    let mut persons: Vec<(f64, usize)> =
        (0..PLACES).filter_map(|place| energy(frames.iter().filter_map(|frame| frame.get(place))).map(|energy| (energy, place))).collect();
    persons.sort_by(|(a, _), (b, _)| b.total_cmp(a)); // stable
    persons.truncate(PERSONS);
    if persons.is_empty() {
        return Outcome::Dropped("no frame with a person".into());
    }
    let rows = frames.len() * persons.len();
    let (mut values, mut valid) = (Vec::with_capacity(rows * joints * 2), Vec::with_capacity(rows * joints));
    for frame in frames {
        for (_, place) in &persons {
            let person = frame.get(*place);
            for joint in 0..joints {
                let [x, y] = person.and_then(|person| person.get(joint)).copied().unwrap_or_default();
                values.extend([x, y]);
                valid.push(u8::from(x != 0.0 || y != 0.0));
            }
        }
    }
    Outcome::Clip(Body { joints: values, frames: frames.len(), persons: persons.len(), valid: Some(valid) })
}

/// `None` for a person who is nowhere to be seen.
fn energy<'a>(person: impl Iterator<Item = &'a Vec<[f32; 2]>>) -> Option<f64> {
    let shown: Vec<_> = person.filter(|frame| frame.iter().flatten().any(|value| *value != 0.0)).flatten().collect();
    if shown.is_empty() {
        return None;
    }
    let deviation = |axis: usize| {
        let values = || shown.iter().map(|joint| f64::from(joint[axis]));
        let mean = values().sum::<f64>() / shown.len() as f64;
        (values().map(|value| (value - mean).powi(2)).sum::<f64>() / shown.len() as f64).sqrt()
    };
    Some(deviation(0) + deviation(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(frames: &[Vec<Vec<[f32; 2]>>]) -> Body {
        match strongest(frames, 2) {
            Outcome::Clip(body) => body,
            Outcome::Dropped(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn the_two_with_most_energy_are_kept_in_its_order() {
        let still = vec![[5.0, 5.0], [5.0, 6.0]];
        let wide = |x: f32| vec![[x, 1.0], [x + 4.0, 1.0]];
        let wider = |x: f32| vec![[x, 1.0], [x + 9.0, 2.0]];
        let frames = [vec![still.clone(), wide(1.0), wider(1.0)], vec![still.clone(), wide(2.0)], vec![still]];
        let body = body(&frames);
        assert_eq!((body.frames, body.persons), (3, 2));
        let expected = [[1.0, 1.0, 10.0, 2.0, 1.0, 1.0, 5.0, 1.0], [0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 6.0, 1.0], [0.0; 8]];
        assert_eq!(body.joints, expected.concat());
        assert_eq!(body.valid.unwrap(), [1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn energy_is_the_standard_deviation_of_x_and_y_over_shown_frames() {
        let frames = [vec![[1.0, 0.0], [3.0, 4.0]], vec![[0.0; 2]; 2], vec![[5.0, 0.0], [7.0, 4.0]]];
        // x: 1, 3, 5, 7 about 4; y: 0, 4, 0, 4 about 2.
        assert_eq!(energy(frames.iter()), Some(5f64.sqrt() + 2.0));
        assert_eq!(energy(frames[1..2].iter()), None);
        assert_eq!(energy([].iter()), None);
    }

    #[test]
    fn one_person_is_one_and_nobody_is_dropped() {
        let one = body(&[vec![], vec![vec![[0.0, 0.0], [3.0, 0.0]], vec![[0.0; 2]; 2]]]);
        assert_eq!((one.frames, one.persons), (2, 1));
        assert_eq!(one.valid.unwrap(), [0, 0, 0, 1]);
        assert_eq!(strongest(&[vec![], vec![vec![[0.0; 2]; 2]]], 2), Outcome::Dropped("no frame with a person".into()));
        assert_eq!(strongest(&[], 2), Outcome::Dropped("no frame with a person".into()));
    }

    #[test]
    fn a_fifth_person_is_not_looked_at() {
        let still = vec![[1.0, 1.0]; 2];
        let moving = vec![[1.0, 1.0], [99.0, 99.0]];
        let mut frame = vec![still; PLACES];
        frame.push(moving);
        assert_eq!(body(&[frame]).joints, [1.0; 8]);
    }
}
