//! `llmar view`: a page of this machine that shows the frames of a stream and what the recogniser says about them, in real time.
//!
//! The main thread plays: frames go into the stream at their time, and frames and events to every viewer and into the recording. A thread
//! accepts connections, each of which has a thread of its own; what a viewer asks for comes back to the main thread as a [`Command`].

mod http;
mod hub;
mod player;

use std::fs::File;
use std::io::{LineWriter, Write, stdout};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use llmar::Error;
use llmar::recognizer::Model;
use llmar::recognizer::stream::{StreamOptions, TOP};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::feed::{Feed, options};
use crate::frames::{Source, header};
use crate::{Arguments, Failure};
use hub::Hub;
use player::Player;

/// A decision that comes later than this after its frame is of no use to who watches.
const DEADLINE: Duration = Duration::from_secs(1);

/// What a viewer asks for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    Pause(bool),
    Restart,
    Speed(f64),
}

pub fn view(args: &Arguments) -> Result<(), Failure> {
    let (path, files) = args.model()?;
    let model = args.open(path)?;
    let source = Source::open(args, files, &model)?;
    let default = options(args, &source)?;
    let deadline = default.deadline.or(Some(DEADLINE));
    // Drawing does not wait for decisions.
    let options = StreamOptions { top_k: TOP.min(model.metadata().labels.len()), worker: true, deadline, ..default };
    let about = about(&model, &source, &options);
    let feed = Feed::new(&model, options, &source)?;
    let recording = args.record.as_ref().map(|file| record(file, files, &model, &source)).transpose()?;

    let failed = |e| Failure::Port(args.port, e);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (sender, commands) = channel();
    let hub = Arc::new(Hub::new(about));
    http::serve(listener, Arc::clone(&hub), sender).map_err(failed)?;
    writeln!(stdout(), "http://{address}/")?;
    stdout().flush()?;
    let played = Player::new(feed, &source, Arc::clone(&hub), recording, commands).run(args.once, args.real_time);
    hub.close();
    played
}

/// What a page has to know of model and skeleton.
fn about(model: &Model, source: &Source, options: &StreamOptions) -> Value {
    let layout = &source.layout;
    let mirrored = layout.mirrored();
    let side = |(joint, name): (usize, &String)| match name.to_lowercase() {
        _ if mirrored.get(joint) == Some(&joint) => "middle",
        name if name.contains("right") || name.starts_with('r') => "right",
        _ => "left",
    };
    json!({
        "kind": "hello", "model": model.metadata().name, "source": source.name, "live": source.is_live(),
        "length_s": source.length_ns().map(|ns| ns as f64 / 1e9), "coords": model.metadata().preprocess.coords,
        "joints": layout.joints, "parents": layout.parents, "sides": layout.joints.iter().enumerate().map(side).collect::<Vec<_>>(),
        "begin_at": options.begin_at, "end_below": options.end_below,
    })
}

/// Begins a recording; never over what is played.
fn record(file: &Path, played: &[PathBuf], model: &Model, source: &Source) -> Result<LineWriter<File>, Failure> {
    if let Ok(known) = file.canonicalize()
        && played.iter().any(|path| path.canonicalize().is_ok_and(|path| path == known))
    {
        return Err(Failure::Usage(format!("--record {}: would overwrite what is played", file.display())));
    }
    let mut out = LineWriter::new(File::create(file).map_err(Error::io(file))?);
    writeln!(out, "{}", header(model, &source.layout.name)).map_err(Error::io(file))?;
    Ok(out)
}
