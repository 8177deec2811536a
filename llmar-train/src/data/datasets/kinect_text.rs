//! The text that NTU RGB+D and UAV-Human write skeletons in. A line with the number of frames; for each frame a line with the number of
//! bodies; for each body a line about it, a line with the number of joints and a line a joint:
//! `x y z depthX depthY colorX colorY orientationW orientationX orientationY orientationZ trackingState`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use llmar::skeleton::MAX_FRAMES;

use crate::error::{Error, Result};

/// Longest file in bytes. The longest genuine ones have a few million.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// Most bodies of a frame. The Kinect tracks 6; a detector in a crowd may find more.
const MAX_BODIES: usize = 64;
/// Values of a whole line about a body.
const BODY_VALUES: usize = 10;
/// Values of a whole line about a joint.
const JOINT_VALUES: usize = 12;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// 25 joints with identities and tracking states; every line is whole.
    Ntu,
    /// 17 joints of which only x and y count. Its readers do not agree on the number of values in a line, so only these must be there.
    UavHuman,
}

/// One body in one frame.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// Identity over frames; 0 in UAV-Human, whose numbers identify nobody.
    pub id: u64,
    /// By joint: x, y and z, metres in NTU RGB+D; x, y in pixels and 0 in UAV-Human. Finite.
    pub joints: Vec<[f32; 3]>,
    /// By joint: tracking state 0. None is in UAV-Human.
    pub untracked: Vec<bool>,
}

impl Source {
    /// V
    pub(super) fn joints(self) -> usize {
        match self {
            Self::Ntu => 25,
            Self::UavHuman => 17,
        }
    }

    fn body_values(self) -> RangeInclusive<usize> {
        match self {
            Self::Ntu => BODY_VALUES..=BODY_VALUES,
            Self::UavHuman => 1..=BODY_VALUES,
        }
    }

    fn joint_values(self) -> RangeInclusive<usize> {
        match self {
            Self::Ntu => JOINT_VALUES..=JOINT_VALUES,
            Self::UavHuman => 2..=JOINT_VALUES,
        }
    }
}

/// The bodies of each frame, in the order of the file; a frame may have none.
///
/// # Errors
/// [`Error::Format`] that names `path` and the line: a count beyond its limit (65,536 frames, 64 bodies), other than `source`'s joints, a
/// line with too few or too many values, a word that is no number, a coordinate that is not finite, an identity that stands twice in a
/// frame, an early end, or text after the last frame.
pub(super) fn parse(path: &Path, text: &str, source: Source) -> Result<Vec<Vec<Sample>>> {
    let mut lines = Lines { path, text: text.lines(), number: 0 };
    let frames = lines.count("number of frames", 0..=MAX_FRAMES)?;
    // A count is a claim: memory grows with the lines that bear it out.
    let mut out = Vec::new();
    for _ in 0..frames {
        let bodies = lines.count("number of bodies", 0..=MAX_BODIES)?;
        let mut frame = Vec::new();
        let mut seen = BTreeSet::new();
        for _ in 0..bodies {
            let sample = sample(&mut lines, source, &mut seen)?;
            frame.push(sample);
        }
        out.push(frame);
    }
    match lines.text.all(|line| line.trim_ascii().is_empty()) {
        true => Ok(out),
        false => Err(lines.wrong("expected the end of the file after the last frame, got more lines")),
    }
}

fn sample(lines: &mut Lines<'_>, source: Source, seen: &mut BTreeSet<u64>) -> Result<Sample> {
    let words = lines.words("line about a body", source.body_values())?;
    let id = match source {
        Source::Ntu => {
            // 17 digits, more than an f64 holds.
            let id: u64 = words[0].parse().map_err(|_| lines.wrong(format!("expected the number of a body, got `{}`", words[0])))?;
            if !seen.insert(id) {
                return Err(lines.wrong(format!("body {id} stands twice in this frame")));
            }
            id
        }
        Source::UavHuman => 0,
    };
    for word in &words[1..] {
        lines.number(word)?;
    }
    let joints = source.joints();
    lines.count("number of joints", joints..=joints)?;
    let mut sample = Sample { id, joints: Vec::with_capacity(joints), untracked: Vec::with_capacity(joints) };
    for _ in 0..joints {
        let words = lines.words("line about a joint", source.joint_values())?;
        let mut values = [0.0; JOINT_VALUES];
        for (value, word) in values.iter_mut().zip(&words) {
            *value = lines.number(word)?;
        }
        let [x, y, z, .., state] = values;
        let joint = match source {
            Source::Ntu => [x, y, z],
            Source::UavHuman => [x, y, 0.0],
        };
        if joint.iter().any(|value| !value.is_finite()) {
            return Err(lines.wrong(format!("expected finite coordinates, got {joint:?}")));
        }
        if source == Source::Ntu && ![0.0, 1.0, 2.0].contains(&state) {
            return Err(lines.wrong(format!("expected the tracking state 0, 1 or 2, got {state}")));
        }
        sample.joints.push(joint);
        sample.untracked.push(source == Source::Ntu && state == 0.0);
    }
    Ok(sample)
}

/// Lines that are not blank, counted from 1 with those that are.
struct Lines<'a> {
    path: &'a Path,
    text: std::str::Lines<'a>,
    number: usize,
}

impl<'a> Lines<'a> {
    /// The words of the next line.
    fn words(&mut self, what: &str, values: RangeInclusive<usize>) -> Result<Vec<&'a str>> {
        for line in self.text.by_ref() {
            self.number += 1;
            // One more than allowed is enough to see that there are too many.
            let words: Vec<_> = line.split_ascii_whitespace().take(values.end() + 1).collect();
            match words.len() {
                0 => {}
                got if values.contains(&got) => return Ok(words),
                got => {
                    let got = if got > *values.end() { "more".to_owned() } else { got.to_string() };
                    return Err(self.wrong(format!("{what}: expected {}, got {got}", range(&values, "value"))));
                }
            }
        }
        Err(self.wrong(format!("expected a {what} after it, got the end of the file")))
    }

    /// A line that holds one count.
    fn count(&mut self, what: &str, limits: RangeInclusive<usize>) -> Result<usize> {
        let words = self.words(what, 1..=1)?;
        match words[0].parse() {
            Ok(count) if limits.contains(&count) => Ok(count),
            _ => Err(self.wrong(format!("{what}: expected {}, got `{}`", range(&limits, ""), words[0]))),
        }
    }

    /// A word as a number, finite or not: depth and colour positions outside the image are not.
    fn number(&self, word: &str) -> Result<f32> {
        word.parse().map_err(|_| self.wrong(format!("expected a number, got `{word}`")))
    }

    /// An error at the line last read.
    fn wrong(&self, detail: impl std::fmt::Display) -> Error {
        Error::format(self.path.display(), format!("line {}: {detail}", self.number.max(1)))
    }
}

/// `17`, `0 to 64`, `12 values`.
fn range(values: &RangeInclusive<usize>, unit: &str) -> String {
    let (low, high) = (values.start(), values.end());
    let number = if low == high { low.to_string() } else { format!("{low} to {high}") };
    match (unit, *high) {
        ("", _) => number,
        (_, 1) => format!("{number} {unit}"),
        _ => format!("{number} {unit}s"),
    }
}

/// Writes the text, for tests.
#[cfg(test)]
pub(super) mod fixture {
    use super::{Sample, Source};

    /// A tracked body.
    pub fn body(id: u64, joints: impl IntoIterator<Item = [f32; 3]>) -> Sample {
        let joints: Vec<_> = joints.into_iter().collect();
        Sample { id, untracked: vec![false; joints.len()], joints }
    }

    /// As the specification has it: 10 values a body, 12 a joint.
    pub fn write(frames: &[Vec<Sample>], source: Source) -> String {
        let mut text = format!("{}\n", frames.len());
        for frame in frames {
            text += &format!("{}\n", frame.len());
            for body in frame {
                match source {
                    Source::Ntu => text += &format!("{} 0 1 1 1 1 0 0.02764709 0.05745083 2\n", body.id),
                    Source::UavHuman => text += "000 0 0 0 0 0 0 0 0 0\n",
                }
                text += &format!("{}\n", body.joints.len());
                for ([x, y, z], untracked) in body.joints.iter().zip(&body.untracked) {
                    let state = if *untracked { 0 } else { 2 };
                    text += &format!("{x} {y} {z} 277.4 191.8 1036.1 519.9 -0.2059 0.05349 0.9692 -0.1240 {state}\n");
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{body, write};
    use super::*;
    use crate::testing::Random;

    fn parsed(text: &str, source: Source) -> Result<Vec<Vec<Sample>>> {
        parse(Path::new("a.skeleton"), text, source)
    }

    fn message(text: &str, source: Source) -> String {
        let error = parsed(text, source).unwrap_err().to_string();
        assert!(error.starts_with("a.skeleton: line "), "{error}");
        error
    }

    fn frames(source: Source) -> Vec<Vec<Sample>> {
        let mut random = Random::new(7);
        let mut next = |id| {
            let z = |z| if source == Source::Ntu { z } else { 0.0 };
            body(id, (0..source.joints()).map(|_| [random.uniform(), random.uniform(), z(random.uniform())]).collect::<Vec<_>>())
        };
        match source {
            Source::Ntu => vec![vec![next(72057594037931101), next(72057594037931102)], vec![], vec![next(72057594037931102)]],
            Source::UavHuman => vec![vec![next(0), next(0)], vec![], vec![next(0)]],
        }
    }

    /// Replaces one line, counted from 1.
    fn with_line(text: &str, number: usize, line: &str) -> String {
        let lines = text.lines().enumerate().map(|(i, old)| if i + 1 == number { line } else { old });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn text_that_was_written_is_read_back() {
        for source in [Source::Ntu, Source::UavHuman] {
            let mut frames = frames(source);
            if source == Source::Ntu {
                frames[0][1].untracked[24] = true;
            }
            let text = write(&frames, source);
            assert_eq!(parsed(&text, source).unwrap(), frames);
            let spaced = text.replace('\n', "\r\n\r\n");
            assert_eq!(parsed(&spaced, source).unwrap(), frames);
        }
        assert_eq!(parsed("0\n", Source::Ntu).unwrap(), Vec::<Vec<Sample>>::new());
    }

    #[test]
    fn short_lines_are_read_where_readers_disagree() {
        let short = "1\n1\n000\n17\n".to_owned() + &"3.5 4\n".repeat(17);
        assert_eq!(parsed(&short, Source::UavHuman).unwrap()[0][0].joints, [[3.5, 4.0, 0.0]; 17]);
        assert!(
            message(&with_line(&short, 5, "3.5"), Source::UavHuman).contains("line 5: line about a joint: expected 2 to 12 values, got 1")
        );
        let short = "1\n1\n1 0 0 0 0 0 0 0 0 2\n25\n".to_owned() + &"1 2 3 4 5 6 7 8 9 10 2\n".repeat(25);
        assert!(message(&short, Source::Ntu).contains("line 5: line about a joint: expected 12 values, got 11"));
    }

    #[test]
    fn a_cut_at_any_line_is_an_error_that_names_the_last_line() {
        for source in [Source::Ntu, Source::UavHuman] {
            let text = write(&frames(source), source);
            let lines: Vec<&str> = text.lines().collect();
            for end in 0..lines.len() {
                let error = message(&lines[..end].join("\n"), source);
                assert!(
                    error.starts_with(&format!("a.skeleton: line {}: ", end.max(1))) && error.contains("end of the file"),
                    "{end}: {error}"
                );
            }
        }
    }

    #[test]
    fn damage_names_the_line() {
        let text = write(&frames(Source::Ntu), Source::Ntu);
        let joint = "0 0 0 277.4 191.8 1036.1 519.9 -0.2 0.05 0.97 -0.12 2";
        for (line, damaged, expected) in [
            (1, "18446744073709551616", "number of frames: expected 0 to 65536"),
            (1, "65537", "number of frames: expected 0 to 65536"),
            (1, "-1", "number of frames"),
            (2, "65", "number of bodies: expected 0 to 64, got `65`"),
            (2, "2 2", "number of bodies: expected 1 value, got more"),
            (3, "x 0 0 0 0 0 0 0 0 2", "expected the number of a body, got `x`"),
            (3, "-5 0 0 0 0 0 0 0 0 2", "got `-5`"),
            (3, "1 0 0 0 0 0 0 0 0", "line about a body: expected 10 values, got 9"),
            (4, "24", "number of joints: expected 25, got `24`"),
            (4, "17", "number of joints: expected 25, got `17`"),
            (5, &joint.replace("277.4", "2a7"), "expected a number, got `2a7`"),
            (5, &joint.replacen('0', "nan", 1), "expected finite coordinates"),
            (5, &joint.replacen('0', "1e99", 1), "expected finite coordinates"),
            (5, &format!("{joint} 2"), "expected 12 values, got more"),
            (5, &joint.replace(" 2", " 3"), "tracking state 0, 1 or 2, got 3"),
            (30, "72057594037931101 0 0 0 0 0 0 0 0 2", "body 72057594037931101 stands twice in this frame"),
        ] {
            let error = message(&with_line(&text, line, damaged), Source::Ntu);
            assert!(error.contains(&format!("line {line}: ")) && error.contains(expected), "{damaged}: {error}");
        }
        assert!(message(&format!("{text}3\n"), Source::Ntu).contains("expected the end of the file"));
        // What nobody reads may be anything that is a number.
        parsed(&with_line(&text, 5, &joint.replace("277.4", "-inf")), Source::Ntu).unwrap();
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let mut random = Random::new(3);
        for source in [Source::Ntu, Source::UavHuman] {
            let bytes = write(&frames(source), source).into_bytes();
            let mut refused = 0;
            for _ in 0..2_000 {
                let mut bytes = bytes.clone();
                for _ in 0..=random.next() % 3 {
                    let at = random.next() as usize % bytes.len();
                    bytes[at] ^= 1 << (random.next() % 7);
                }
                bytes.truncate(bytes.len() - random.next() as usize % 2 * (random.next() as usize % 99));
                refused += usize::from(parsed(&String::from_utf8_lossy(&bytes), source).is_err());
            }
            assert!((500..2_000).contains(&refused), "{refused}");
        }
    }
}
