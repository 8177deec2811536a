//! How soon a poll returns after another thread has cancelled it.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use llmar::control::{CancelToken, Control};
use llmar::error::Error;
use llmar::formats::ClipArchive;
use llmar::recognizer::Model;
use llmar::recognizer::stream::{Event, StreamOptions};
use serde_json::{Value, json};

use crate::{Motion, Outcome, RATE, percentile, pose, stream};

/// Cancelled polls that are measured.
const COUNT: usize = 400;

/// Polls of `bodies` bodies, each with a full window to read anew, because a cancelled pass leaves nothing behind; the request comes at any
/// moment of it.
pub fn measure(model: &Arc<Model>, archive: &ClipArchive, threads: usize, bodies: u64) -> Outcome<Value> {
    let options = StreamOptions { threads, max_bodies: bodies as usize, ..StreamOptions::default() };
    let mut stream = stream(model, options)?;
    let mut motions: Vec<_> = (0..bodies).map(|body| Motion::new(archive, 31 * body as usize)).collect();
    let mut events = [Event::default(); 64];
    let token = CancelToken::default();
    let control = Control { cancel: Some(token.clone()), deadline: None };
    // The thread that cancels: it is told how long to wait, and answers with the moment of its request.
    let (ask, asked) = mpsc::channel::<Duration>();
    let (answer, answered) = mpsc::channel::<Instant>();
    let canceller = std::thread::spawn({
        let token = token.clone();
        move || {
            while let Ok(wait) = asked.recv() {
                std::thread::sleep(wait);
                let at = Instant::now();
                token.request();
                if answer.send(at).is_err() {
                    return;
                }
            }
        }
    });
    let mut frame = 0;
    let mut push = |stream: &mut llmar::recognizer::stream::Stream, count: u64| -> Outcome<()> {
        for _ in 0..count {
            for (body, motion) in (0..).zip(&mut motions) {
                stream.push(&pose(body, frame, motion.next()))?;
            }
            frame += 1;
        }
        Ok(())
    };
    // A window's tokens, and a decision that is due for every body.
    for _ in 0..RATE {
        push(&mut stream, 4)?;
        while stream.poll(&Control::default(), &mut events)? > 0 {}
    }
    push(&mut stream, 4)?;
    // How long reading whole windows takes: known once a pass was cancelled and then made.
    let mut whole: Option<Duration> = None;
    let (mut times, mut tries) = (Vec::new(), 0_u32);
    while times.len() < COUNT {
        // Any moment of it, in an order that is not the tries'.
        ask.send(whole.map_or(Duration::from_millis(1), |whole| whole.mul_f64(f64::from(tries * 37 % 97) / 97.0)))?;
        tries += 1;
        let result = stream.poll(&control, &mut events);
        let end = Instant::now();
        let requested = answered.recv()?;
        token.clear();
        match (result, whole) {
            (Err(Error::Cancelled), Some(_)) => times.push(end.saturating_duration_since(requested).as_secs_f64() * 1e3),
            (Err(Error::Cancelled), None) => {
                let begin = Instant::now();
                while stream.poll(&Control::default(), &mut events)? > 0 {}
                whole = Some(begin.elapsed());
                push(&mut stream, 4)?;
            }
            (Err(error), _) => return Err(error.into()),
            (Ok(_), _) => {
                while stream.poll(&Control::default(), &mut events)? > 0 {}
                push(&mut stream, 4)?;
            }
        }
    }
    drop(ask);
    canceller.join().map_err(|_| "the thread that cancels panicked")?;
    times.sort_by(f64::total_cmp);
    let whole = whole.unwrap_or_default().as_secs_f64() * 1e3;
    let layer = whole / model.metadata().llama.num_hidden_layers as f64;
    Ok(json!({
        "bodies": bodies, "cancelled": times.len(), "finished_before_it": tries as usize - times.len(), "whole_pass_ms": whole, "layer_ms": layer,
        "p50_ms": percentile(&times, 0.5), "p99_ms": percentile(&times, 0.99), "max_ms": times[times.len() - 1],
    }))
}
