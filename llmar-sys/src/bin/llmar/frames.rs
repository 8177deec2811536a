//! Where the frames of a live stream come from: clips and recordings one after the other, or lines of standard input.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use llmar::Error;
use llmar::formats::{OwnedClip, read_clips};
use llmar::recognizer::Model;
use llmar::skeleton::{Conversion, Layout};
use serde::{Deserialize, Serialize};

use crate::{Arguments, Failure};

/// Longest line of a recording or of standard input: a frame of 256 joints takes a tenth of it.
const LINE_LIMIT: u64 = 1 << 18;
/// Frames of standard input that were read and wait.
const READ_AHEAD: usize = 64;
/// Rate of clips that do not say theirs.
const FPS: f32 = 30.0;

/// One frame of one body.
#[derive(Clone, Debug)]
pub struct Frame {
    pub time_ns: u64,
    pub body: u64,
    /// [joints, coords], NaN where not seen.
    pub joints: Vec<f32>,
}

/// A frame as a line of JSON; other kinds of line stand between frames in a recording.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(default = "frame_kind")]
    kind: String,
    time_ns: Option<u64>,
    #[serde(default)]
    body: u64,
    joints: Option<Vec<Option<Vec<Option<f32>>>>>,
}

/// First line of a recording.
#[derive(Serialize, Deserialize)]
struct Header {
    kind: String,
    model: String,
    layout: String,
    coords: usize,
}

fn frame_kind() -> String {
    "frame".into()
}

/// First line of a recording of frames of this layout.
pub fn header(model: &Model, layout: &str) -> String {
    let metadata = model.metadata();
    let header = Header { kind: "stream".into(), model: metadata.name.clone(), layout: layout.into(), coords: metadata.preprocess.coords };
    serde_json::to_string(&header).unwrap_or_default() // strings and a number always become JSON
}

impl Frame {
    pub fn to_json(&self, coords: usize) -> String {
        let point = |point: &[f32]| point.iter().all(|x| x.is_finite()).then(|| point.iter().map(|x| Some(*x)).collect());
        let joints = self.joints.chunks(coords).map(point).collect();
        let line = Line { kind: frame_kind(), time_ns: Some(self.time_ns), body: self.body, joints: Some(joints) };
        serde_json::to_string(&line).unwrap_or_default() // finite numbers always become JSON
    }

    /// `Ok(None)`: a line that is no frame. The message says what is wrong.
    fn from_json(text: &[u8], joints: usize, coords: usize) -> Result<Option<Self>, String> {
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        let line: Line = serde_json::from_slice(text).map_err(|e| format!("not a frame in JSON: {e}"))?;
        if line.kind != "frame" {
            return Ok(None);
        }
        let (Some(time_ns), Some(points)) = (line.time_ns, line.joints) else {
            return Err("expected the keys `time_ns` and `joints`".into());
        };
        if points.len() != joints {
            return Err(format!("expected {joints} joints, got {}", points.len()));
        }
        let mut values = Vec::with_capacity(joints * coords);
        for (joint, point) in points.into_iter().enumerate() {
            match point {
                None => values.extend(std::iter::repeat_n(f32::NAN, coords)),
                Some(point) if point.len() == coords => values.extend(point.into_iter().map(|x| x.unwrap_or(f32::NAN))),
                Some(point) => return Err(format!("joint {joint}: expected {coords} coordinates or null, got {}", point.len())),
            }
        }
        Ok(Some(Self { time_ns, body: line.body, joints: values }))
    }
}

/// What is played from its beginning to its end.
enum Part {
    Clip {
        clip: OwnedClip,
        fps: f32,
        /// Persons who are seen in any frame.
        persons: Vec<usize>,
    },
    Recording(Vec<Frame>),
}

/// Frames, and what they are of.
pub struct Source {
    pub name: String,
    /// Layout of the frames.
    pub layout: Layout,
    /// Bodies at one time; 0: not known.
    pub bodies: usize,
    /// `None`: lines of standard input.
    parts: Option<Vec<Part>>,
    /// From the axes of standard input to the library's.
    conversion: Conversion,
    pause_ns: u64,
}

impl Source {
    /// Reads the files named on the command line.
    pub fn open(args: &Arguments, paths: &[PathBuf], model: &Model) -> Result<Self, Failure> {
        let preprocess = &model.metadata().preprocess;
        let (pause, fps) = (args.pause.unwrap_or(1.0), args.fps.unwrap_or(FPS));
        if !(0.0..=3600.0).contains(&pause) {
            return Err(Failure::Usage(format!("--pause: expected 0 to 3600, got {pause}")));
        }
        if !(0.1..=1000.0).contains(&fps) {
            return Err(Failure::Usage(format!("--fps: expected .1 to 1000, got {fps}")));
        }
        let live = paths.iter().any(|path| path.as_os_str() == "-");
        if paths.is_empty() || (live && paths.len() > 1) {
            return Err(Failure::Usage("expected CLIPS, or - alone".into()));
        }
        let find = |name: &str| match Layout::find(name) {
            Ok(layout) => Ok(layout),
            // The model's own need not be registered.
            Err(_) => preprocess.source_layout(name),
        };
        let mut source = Self {
            name: "standard input".into(),
            layout: find(args.layout.as_deref().unwrap_or(&preprocess.layout))?,
            bodies: 0,
            parts: None,
            conversion: args.axes.unwrap_or_default().conversion(preprocess.coords)?,
            pause_ns: (pause * 1e9) as u64,
        };
        if live {
            return Ok(source);
        }
        for (option, given) in [("layout", args.layout.is_some()), ("axes", args.axes.is_some())] {
            if given {
                return Err(Failure::Usage(format!("--{option} is for -: clips say theirs")));
            }
        }
        let (mut parts, mut layout) = (Vec::new(), None);
        for path in paths {
            for (part, name) in read(path, fps, preprocess.coords, &find)? {
                let first = layout.get_or_insert_with(|| name.clone());
                if *first != name {
                    let what = format!("{}: its layout is `{name}`, that of what comes before `{first}`; a stream has one", path.display());
                    return Err(Failure::Usage(what));
                }
                source.bodies = source.bodies.max(part.bodies());
                parts.push(part);
            }
        }
        let Some(layout) = layout else { return Err(Failure::Usage(format!("{}: holds no clip", paths[0].display()))) };
        source.layout = find(&layout)?;
        source.name = match &parts[..] {
            [Part::Clip { clip, .. }] => clip.name.clone(),
            _ => paths.iter().filter_map(|path| path.file_stem()).map(|stem| stem.to_string_lossy()).collect::<Vec<_>>().join(", "),
        };
        source.parts = Some(parts);
        Ok(source)
    }

    pub fn is_live(&self) -> bool {
        self.parts.is_none()
    }

    /// From the first frame to the last; not known of standard input.
    pub fn length_ns(&self) -> Option<u64> {
        Some(self.stored(self.parts.as_ref()?, 0).last().map_or(0, |frame| frame.time_ns))
    }

    /// The frames; those of files come again at every call, the first at `start_ns`.
    pub fn input(&self, start_ns: u64) -> Input<'_> {
        match &self.parts {
            Some(parts) => Input::Stored(Box::new(self.stored(parts, start_ns))),
            None => Input::Live(read_live(self.layout.joints.len(), self.conversion)),
        }
    }

    fn stored<'a>(&'a self, parts: &'a [Part], start_ns: u64) -> impl Iterator<Item = Frame> + 'a {
        let starts = parts.iter().scan(start_ns, |next, part| {
            let start = *next;
            // Also without a pause the first frame of a clip comes after the last of the clip before.
            *next += part.length_ns() + self.pause_ns.max(part.step_ns());
            Some(start)
        });
        parts.iter().zip(starts).flat_map(|(part, start)| part.frames(start))
    }
}

impl Part {
    fn bodies(&self) -> usize {
        match self {
            Self::Clip { persons, .. } => persons.len(),
            Self::Recording(frames) => {
                let mut ids: Vec<u64> = frames.iter().map(|frame| frame.body).collect();
                ids.sort_unstable();
                ids.dedup();
                ids.len()
            }
        }
    }

    fn step_ns(&self) -> u64 {
        match self {
            Self::Clip { fps, .. } => (1e9 / f64::from(*fps)) as u64,
            Self::Recording(_) => (1e9 / f64::from(FPS)) as u64,
        }
    }

    fn length_ns(&self) -> u64 {
        match self {
            Self::Clip { clip, fps, .. } => at_ns(clip.frames.saturating_sub(1), *fps),
            Self::Recording(frames) => match (frames.first(), frames.last()) {
                (Some(first), Some(last)) => last.time_ns.saturating_sub(first.time_ns),
                _ => 0,
            },
        }
    }

    fn frames(&self, start_ns: u64) -> Box<dyn Iterator<Item = Frame> + '_> {
        match self {
            Self::Clip { clip, fps, persons } => Box::new((0..clip.frames).flat_map(move |frame| {
                let time_ns = start_ns + at_ns(frame, *fps);
                persons.iter().map(move |person| Frame { time_ns, body: *person as u64, joints: pose(clip, frame, *person) })
            })),
            Self::Recording(frames) => {
                let first = frames.first().map_or(0, |frame| frame.time_ns);
                let shifted = move |frame: &Frame| Frame { time_ns: frame.time_ns.saturating_sub(first) + start_ns, ..frame.clone() };
                Box::new(frames.iter().map(shifted))
            }
        }
    }
}

fn at_ns(frame: usize, fps: f32) -> u64 {
    (frame as f64 * 1e9 / f64::from(fps)).round() as u64
}

/// Joints of a person [joints, coords], NaN where not seen.
fn pose(clip: &OwnedClip, frame: usize, person: usize) -> Vec<f32> {
    let body = frame * clip.persons + person;
    let width = clip.joints_per_person * clip.coords;
    let mut joints = clip.joints[body * width..][..width].to_vec();
    for (joint, point) in joints.chunks_mut(clip.coords).enumerate() {
        let valid = clip.valid.as_ref().is_none_or(|valid| valid[body * clip.joints_per_person + joint] != 0);
        if !valid || !point.iter().all(|x| x.is_finite()) {
            point.fill(f32::NAN);
        }
    }
    joints
}

/// The clips of a file, or the frames of a recording, each with its layout.
fn read(path: &Path, fps: f32, coords: usize, find: &impl Fn(&str) -> llmar::Result<Layout>) -> Result<Vec<(Part, String)>, Failure> {
    if let Some((header, lines)) = recording(path)? {
        let layout = find(&header.layout)?;
        check_coords(path.display().to_string(), coords, header.coords)?;
        let frames = read_recording(path, lines, layout.joints.len(), coords)?;
        return Ok(vec![(Part::Recording(frames), header.layout)]);
    }
    let mut parts = Vec::new();
    for clip in read_clips(path)? {
        let name = || format!("{}: {}", path.display(), clip.name);
        clip.view().check().map_err(|e| Failure::Clip(name(), e))?;
        check_coords(name(), coords, clip.coords)?;
        let seen = |person: &usize| (0..clip.frames).any(|frame| pose(&clip, frame, *person).iter().any(|x| x.is_finite()));
        let persons: Vec<usize> = (0..clip.persons).filter(seen).collect();
        if persons.is_empty() {
            return Err(Failure::Clip(name(), Error::EmptyClip { detail: "no joint is seen in any frame".into() }));
        }
        let layout = clip.layout.clone();
        parts.push((Part::Clip { fps: clip.fps.unwrap_or(fps), persons, clip }, layout));
    }
    Ok(parts)
}

fn check_coords(name: String, model: usize, got: usize) -> Result<(), Failure> {
    if model == got { Ok(()) } else { Err(Failure::Clip(name, Error::argument("coordinates of a joint", model.to_string(), got))) }
}

/// The header and the rest of a file that `llmar view --record` wrote; `None`: another kind of file.
fn recording(path: &Path) -> llmar::Result<Option<(Header, BufReader<File>)>> {
    let file = File::open(path).map_err(Error::io(path))?;
    if !file.metadata().map_err(Error::io(path))?.is_file() {
        return Ok(None); // a pipe is read once, by who reads clips
    }
    let (mut lines, mut first) = (BufReader::new(file), Vec::new());
    lines.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut first).map_err(Error::io(path))?;
    let header: Option<Header> = serde_json::from_slice(&first).ok();
    Ok(header.filter(|header| header.kind == "stream").map(|header| (header, lines)))
}

fn read_recording(path: &Path, mut lines: impl BufRead, joints: usize, coords: usize) -> llmar::Result<Vec<Frame>> {
    let mut frames: Vec<Frame> = Vec::new();
    let (mut line, mut number) = (Vec::new(), 1);
    while lines.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line).map_err(Error::io(path))? > 0 {
        number += 1;
        match Frame::from_json(&line, joints, coords) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => {}
            // The last line of a recording that was cut off.
            Err(_) if line.last() != Some(&b'\n') && (line.len() as u64) < LINE_LIMIT => {}
            Err(e) => return Err(Error::format(path.display().to_string(), format!("line {number}: {e}"))),
        }
        line.clear();
    }
    if frames.is_empty() {
        return Err(Error::format(path.display().to_string(), "a recording without a frame"));
    }
    Ok(frames)
}

/// What comes next of an input.
pub enum Next {
    Frame(Frame),
    /// A line that is no frame; the input goes on.
    Bad(String),
    /// Nothing yet.
    Nothing,
    End,
}

/// Frames one by one.
pub enum Input<'a> {
    Stored(Box<dyn Iterator<Item = Frame> + 'a>),
    Live(Receiver<Reading>),
}

/// A frame that was read, a message about a line that is none, or the failure that ends the input.
type Reading = Result<Result<Frame, String>, std::io::Error>;

impl Input<'_> {
    /// The next frame; that of standard input is waited for so long.
    pub fn next(&mut self, patience: Duration) -> Result<Next, Failure> {
        Ok(match self {
            Self::Stored(frames) => frames.next().map_or(Next::End, Next::Frame),
            Self::Live(lines) => match lines.recv_timeout(patience) {
                Ok(Ok(Ok(frame))) => Next::Frame(frame),
                Ok(Ok(Err(message))) => Next::Bad(message),
                Ok(Err(e)) => return Err(Failure::Input(e)),
                Err(RecvTimeoutError::Timeout) => Next::Nothing,
                Err(RecvTimeoutError::Disconnected) => Next::End,
            },
        })
    }
}

/// Reads standard input on a thread of its own: a read of it cannot be given up when something else is due.
fn read_live(joints: usize, axes: Conversion) -> Receiver<Reading> {
    let (sender, receiver) = sync_channel(READ_AHEAD);
    std::thread::spawn(move || {
        if let Err(e) = read_lines(joints, axes, &sender) {
            let _ = sender.send(Err(e)); // nobody may be there any more
        }
    });
    receiver
}

fn read_lines(joints: usize, axes: Conversion, sender: &SyncSender<Reading>) -> std::io::Result<()> {
    let mut lines = stdin().lock();
    let (mut line, mut number) = (Vec::new(), 0u64);
    while lines.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)? > 0 {
        number += 1;
        let read = if line.len() as u64 == LINE_LIMIT && line.last() != Some(&b'\n') {
            lines.skip_until(b'\n')?;
            Err(format!("longer than {LINE_LIMIT} bytes"))
        } else {
            Frame::from_json(&line, joints, axes.coords())
        };
        line.clear();
        let told = match read {
            Ok(None) => continue,
            Ok(Some(mut frame)) => {
                axes.convert(&mut frame.joints);
                Ok(frame)
            }
            Err(e) => Err(format!("line {number}: {e}")),
        };
        if sender.send(Ok(told)).is_err() {
            return Ok(()); // nobody listens any more
        }
    }
    Ok(())
}
