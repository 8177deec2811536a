//! `metrics.jsonl` of a run, read back.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// The lines of a run's metrics, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// One object a step.
    pub steps: Vec<Value>,
    /// The measurements at the end of the run, if it came there.
    pub last: Option<Value>,
}

impl History {
    /// Reads a file; `Ok(None)` when there is none. A last line without its end is what a killed run leaves, and skipped.
    ///
    /// # Errors
    /// [`Error::Format`] with file and line for any other line that is not a JSON object.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(path)(e)),
        };
        let mut history = Self::default();
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        // What stands behind the last line's end: nothing, or a line that was cut off.
        let torn = lines.pop().unwrap_or_default();
        let whole = serde_json::from_slice::<Value>(torn).is_ok_and(|line| line.is_object());
        lines.extend(whole.then_some(torn));
        for (index, line) in lines.into_iter().enumerate() {
            let wrong = |detail: String| Error::format(format!("{}:{}", path.display(), index + 1), detail);
            let line: Value = serde_json::from_slice(line).map_err(|e| wrong(e.to_string()))?;
            if !line.is_object() {
                return Err(wrong(format!("expected a JSON object, got {line}")));
            }
            if line["phase"] == "final" { history.last = Some(line) } else { history.steps.push(line) }
        }
        Ok(Some(history))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_end_is_skipped_and_a_broken_middle_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert!(History::read(&path).unwrap().is_none());
        let read = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            History::read(&path).map(Option::unwrap)
        };
        let whole = read(b"{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"phase\":\"final\"}\n").unwrap();
        assert_eq!((whole.steps.len(), whole.last.unwrap()["step"].as_u64()), (2, Some(2)));
        for torn in [&b"{\"step\":1}\n{\"st"[..], b"{\"step\":1}\n{\"a\":\"\xc3", b"{\"step\":1}\n12", b"{\"step\":1}"] {
            let history = read(torn).unwrap();
            assert_eq!((history.steps.len(), history.last.is_none()), (1, true), "{torn:?}");
        }
        for broken in [&b"{\"step\":1}\n{\"st\n{\"step\":3}\n"[..], b"{\"step\":1}\n12\n", b"{}\n\n{}\n"] {
            let error = read(broken).unwrap_err();
            assert!(matches!(error, Error::Format { .. }) && error.to_string().contains("metrics.jsonl:2: "), "{error}");
        }
        assert!(read(b"").unwrap().steps.is_empty());
    }
}
