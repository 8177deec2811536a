//! Writing a clip archive clip by clip, so that neither memory nor an interruption limits its size.
//!
//! Clips go to three files beside the archive: `.joints` (f32), `.valid` (u8) and `.log`, a JSON line a clip, written last. A run that is
//! resumed reads the log, cuts the other two where its last line says, and goes on. `finish` joins them into the archive (temporary file, sync,
//! rename) and removes them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use llmar::checkpoint::replace_file;
use serde::{Deserialize, Serialize};

use super::datasets::{Body, Outcome};
use crate::error::{Error, Result};

/// What became of one clip: a line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Done {
    /// It stands in the archive with so many frames.
    Frames(usize),
    /// It was dropped, and why.
    Dropped(String),
}

/// The shape that all clips of an archive share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// M
    pub persons: usize,
    /// V
    pub joints: usize,
    /// C
    pub coords: usize,
}

/// An archive in the making.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    shape: Shape,
    joints: BufWriter<File>,
    valid: BufWriter<File>,
    log: BufWriter<File>,
    /// In the order of the set's entries.
    done: Vec<Done>,
}

impl Writer {
    /// Begins an archive, or goes on with one: with `resume`, as long as the log's first line is `plan` (what is converted, and how).
    ///
    /// # Errors
    /// Files that cannot be written; a log of another plan.
    pub fn open(path: &Path, shape: Shape, plan: &str, resume: bool) -> Result<Self> {
        let [log, joints, valid] = parts(path);
        let done = if resume { read_log(&log, plan)? } else { None };
        let open = |path: &Path, keep: u64| -> Result<BufWriter<File>> {
            let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(path).map_err(Error::io(path))?;
            file.set_len(keep).and_then(|()| file.seek(SeekFrom::End(0))).map_err(Error::io(path))?;
            Ok(BufWriter::with_capacity(1 << 20, file))
        };
        let (done, log_bytes) = done.unwrap_or_default();
        let rows = frames(&done) as u64 * (shape.persons * shape.joints) as u64;
        let expected = [(&joints, rows * shape.coords as u64 * 4), (&valid, rows)];
        if log_bytes > 0 {
            for (path, keep) in expected {
                let there = std::fs::metadata(path).map_err(Error::io(path))?.len();
                if there < keep {
                    return Err(Error::format(path.display(), format!("expected at least the {keep} bytes of its log, got {there}")));
                }
            }
        }
        let mut writer = Self {
            path: path.to_path_buf(),
            shape,
            joints: open(&joints, expected[0].1)?,
            valid: open(&valid, expected[1].1)?,
            log: open(&log, log_bytes)?,
            done,
        };
        if log_bytes == 0 {
            writeln!(writer.log, "{plan}").and_then(|()| writer.log.flush()).map_err(Error::io(&log))?;
        }
        Ok(writer)
    }

    /// Clips that are done, in order.
    pub fn done(&self) -> &[Done] {
        &self.done
    }

    /// Adds the next clip.
    pub fn push(&mut self, outcome: Outcome) -> Result<()> {
        let done = match outcome {
            Outcome::Clip(body) => {
                self.write(&body).map_err(Error::io(&self.path))?;
                Done::Frames(body.frames)
            }
            Outcome::Dropped(reason) => Done::Dropped(reason),
        };
        let line = serde_json::to_string(&done).map_err(|e| Error::format(self.path.display(), e))?;
        writeln!(self.log, "{line}").map_err(Error::io(&self.path))?;
        self.done.push(done);
        Ok(())
    }

    /// Persons that a clip does not have are zero, and not valid.
    fn write(&mut self, body: &Body) -> io::Result<()> {
        let Shape { persons, joints, coords } = self.shape;
        let there = body.persons.min(persons);
        for (t, frame) in body.joints.chunks_exact(body.persons * joints * coords).enumerate() {
            for x in &frame[..there * joints * coords] {
                self.joints.write_all(&x.to_le_bytes())?;
            }
            for _ in there * joints * coords..persons * joints * coords {
                self.joints.write_all(&[0; 4])?;
            }
            match &body.valid {
                Some(valid) => self.valid.write_all(&valid[t * body.persons * joints..][..there * joints])?,
                None => self.valid.write_all(&vec![1; there * joints])?,
            }
            self.valid.write_all(&vec![0; (persons - there) * joints])?;
        }
        Ok(())
    }

    /// Makes what was pushed survive an interruption: data first, then the log that vouches for it.
    pub fn sync(&mut self) -> Result<()> {
        for file in [&mut self.joints, &mut self.valid, &mut self.log] {
            file.flush().and_then(|()| file.get_ref().sync_data()).map_err(Error::io(&self.path))?;
        }
        Ok(())
    }

    /// Joins the parts into the archive and removes them. `tensors` are further i64 or u8 tensors, one value a kept clip.
    pub fn finish(mut self, tensors: &[(String, Column)], about: &serde_json::Value) -> Result<()> {
        self.sync()?;
        let [log, joints, valid] = parts(&self.path);
        let Shape { persons, joints: v, coords } = self.shape;
        let total = frames(&self.done);
        let mut offsets = vec![0i64];
        offsets.extend(self.done.iter().filter_map(|done| if let Done::Frames(n) = done { Some(*n as i64) } else { None }).scan(
            0,
            |end, n| {
                *end += n;
                Some(*end)
            },
        ));

        // As the safetensors crate orders them: wider elements first, so that each tensor is aligned; the large ones stay files.
        let mut plan: Vec<(String, &str, Vec<usize>, Source<'_>)> =
            vec![("offsets".into(), "I64", vec![offsets.len()], Source::I64(&offsets))];
        plan.extend(tensors.iter().filter_map(|(name, column)| match column {
            Column::I64(values) => Some((name.clone(), "I64", vec![values.len()], Source::I64(values))),
            Column::U8(_) => None,
        }));
        plan.push(("joints".into(), "F32", vec![total, persons, v, coords], Source::File(&joints)));
        plan.push(("valid".into(), "U8", vec![total, persons, v], Source::File(&valid)));
        plan.extend(tensors.iter().filter_map(|(name, column)| match column {
            Column::U8(values) => Some((name.clone(), "U8", vec![values.len()], Source::U8(values))),
            Column::I64(_) => None,
        }));

        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), serde_json::json!({ "clips": about.to_string() }));
        let mut at = 0u64;
        for (name, dtype, shape, source) in &plan {
            let end = at + source.len()?;
            header.insert(name.clone(), serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, end] }));
            at = end;
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        replace_file(&self.path, |out| {
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            plan.iter().try_for_each(|(.., source)| source.copy_to(out))
        })?;
        for part in [&log, &joints, &valid] {
            std::fs::remove_file(part).map_err(Error::io(part))?;
        }
        Ok(())
    }
}

/// A tensor with one value a clip.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Column {
    /// Labels, subjects, cameras.
    I64(Vec<i64>),
    /// Flags of a split.
    U8(Vec<u8>),
}

enum Source<'a> {
    I64(&'a [i64]),
    U8(&'a [u8]),
    File(&'a Path),
}

impl Source<'_> {
    fn len(&self) -> Result<u64> {
        Ok(match self {
            Self::I64(values) => values.len() as u64 * 8,
            Self::U8(values) => values.len() as u64,
            Self::File(path) => std::fs::metadata(path).map_err(Error::io(*path))?.len(),
        })
    }

    fn copy_to(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::I64(values) => values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
            Self::U8(values) => out.write_all(values),
            Self::File(path) => io::copy(&mut File::open(path)?, out).map(drop),
        }
    }
}

/// Log, joints, valid.
fn parts(path: &Path) -> [PathBuf; 3] {
    ["log", "joints", "valid"].map(|part| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{part}"));
        name.into()
    })
}

fn frames(done: &[Done]) -> usize {
    done.iter().map(|done| if let Done::Frames(n) = done { *n } else { 0 }).sum()
}

/// The whole lines of a log, and their length in bytes; `None` where there is no log.
fn read_log(path: &Path, plan: &str) -> Result<Option<(Vec<Done>, u64)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path)(e)),
    };
    let mut reader = BufReader::new(file);
    let (mut done, mut bytes, mut line) = (Vec::new(), 0u64, String::new());
    loop {
        line.clear();
        let read = reader.read_line(&mut line).map_err(Error::io(path))?;
        // A last line without its end was being written when the run ended.
        if !line.ends_with('\n') {
            return Ok(if bytes == 0 { None } else { Some((done, bytes)) });
        }
        if bytes == 0 {
            if line.trim_end() != plan {
                return Err(Error::format(
                    path.display(),
                    "a conversion of other clips or with other settings was begun here: remove it, or leave --resume out",
                ));
            }
        } else {
            done.push(serde_json::from_str(&line).map_err(|e| Error::format(path.display(), format!("line {}: {e}", done.len() + 2)))?);
        }
        bytes += read as u64;
    }
}
