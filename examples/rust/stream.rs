//! Tells what the people of a clip do while it plays:
//!
//!   stream MODEL.llmar CLIP.txt [--real-time]
//!
//! Every person is a body of a stream, and every event is a line. `--real-time` plays the clip at its speed, otherwise it goes as fast as it can. The same
//! program is there in C, C++ and Python. CLIP.txt: see examples/c/clip_text.h.

use std::error::Error;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use llmar::control::Control;
use llmar::recognizer::stream::{Event, EventKind, Pose, Stream, StreamOptions};
use llmar::recognizer::{Model, OpenOptions};
use llmar::skeleton::Axes;

/// Joints f32 [frames, persons, joints, coords].
struct Clip {
    layout: String,
    frames: usize,
    persons: usize,
    joints: usize,
    coords: usize,
    fps: f32,
    values: Vec<f32>,
}

fn read_clip(path: &str) -> Result<Clip, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    let mut words = text.split_ascii_whitespace();
    let mut word = || words.next().ok_or("ends before its numbers");
    let layout = word()?.to_owned();
    let (frames, persons, joints, coords) = (word()?.parse()?, word()?.parse()?, word()?.parse()?, word()?.parse()?);
    let fps = word()?.parse()?;
    let values = words.map(str::parse).collect::<Result<Vec<f32>, _>>()?;
    let count = [frames, persons, joints, coords].iter().try_fold(1_usize, |product, n| product.checked_mul(*n));
    if count != Some(values.len()) || count == Some(0) {
        return Err(format!("{path}: not the numbers that its first line says").into());
    }
    Ok(Clip { layout, frames, persons, joints, coords, fps, values })
}

fn print(event: &Event, labels: &[String]) {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let name = |label: u32| &labels[label as usize];
    let (label, probability) = (event.label.map_or("?", |label| name(label)), event.probability);
    print!("{:7.3} body {} ", seconds(event.time_ns), event.body);
    match event.kind {
        EventKind::Decision => {
            print!("decision {label} {probability:.2}");
            for other in &event.top[1..event.top_count as usize] {
                print!(", {} {:.2}", name(other.label), other.probability);
            }
            println!("{}", if event.unknown { " (unknown)" } else { "" });
        }
        EventKind::Begin => println!("begin {label} {probability:.2} from {:.3}", seconds(event.start_ns)),
        EventKind::End => println!("end {label} {probability:.2} from {:.3} to {:.3}", seconds(event.start_ns), seconds(event.end_ns)),
        EventKind::Forgotten => println!("forgotten"),
    }
}

/// Prints all events that there are now.
fn poll(stream: &mut Stream, labels: &[String]) -> llmar::Result<()> {
    let mut events = [Event::default(); 16];
    loop {
        let count = stream.poll(&Control::default(), &mut events)?;
        events[..count].iter().for_each(|event| print(event, labels));
        if count < events.len() {
            return Ok(());
        }
    }
}

fn run(model: &str, clip: &str, real_time: bool) -> Result<(), Box<dyn Error>> {
    let clip = read_clip(clip)?;
    let model = Model::open(Path::new(model), OpenOptions::default())?;
    let coords = model.metadata().preprocess.coords;
    if clip.coords != coords {
        return Err(format!("the clip has {} coordinates, the model {coords}", clip.coords).into());
    }
    let options = StreamOptions { layout: clip.layout, max_bodies: clip.persons, ..StreamOptions::default() };
    let mut stream = Stream::new(model, options, Axes::default())?;
    let labels = stream.labels()?;
    let fps = if clip.fps > 0.0 { f64::from(clip.fps) } else { 30.0 };
    let begin = Instant::now();
    for (t, frame) in clip.values.chunks_exact(clip.persons * clip.joints * clip.coords).enumerate().take(clip.frames) {
        let time_ns = (t as f64 * 1e9 / fps) as u64;
        if real_time {
            sleep(Duration::from_nanos(time_ns).saturating_sub(begin.elapsed()));
        }
        for (body, joints) in (0..).zip(frame.chunks_exact(clip.joints * clip.coords)) {
            // A person of whom nothing is seen is not there.
            if joints.iter().any(|x| x.is_finite()) {
                stream.push(&Pose { body, time_ns, joints, valid: None, confidence: None })?;
            }
        }
        poll(&mut stream, &labels)?;
    }
    stream.flush()?;
    poll(&mut stream, &labels)?;
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [model, clip] => run(model, clip, false),
        [model, clip, flag] if flag == "--real-time" => run(model, clip, true),
        _ => Err("usage: stream MODEL.llmar CLIP.txt [--real-time]".into()),
    };
    if let Err(error) = result {
        eprintln!("stream: {error}");
        std::process::exit(1);
    }
}
