//! What a stream says, as lines of text and of JSON.

use std::fmt::Write;

use llmar::recognizer::stream::{Event, EventKind, StreamStats};
use serde_json::{Value, json};

/// Names for what events and statistics have as numbers.
pub struct Names {
    pub labels: Vec<String>,
    /// The model's joints.
    pub joints: Vec<String>,
}

fn kind(event: &Event) -> &'static str {
    match event.kind {
        EventKind::Decision => "decision",
        EventKind::Begin => "begin",
        EventKind::End => "end",
        EventKind::Forgotten => "forgotten",
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

impl Names {
    fn label(&self, label: u32) -> &str {
        self.labels.get(label as usize).map_or("?", String::as_str)
    }

    /// Joints of the model that were not seen in the whole window.
    fn unseen(&self, event: &Event) -> Vec<&str> {
        let is_unseen = |joint: usize| event.missing_joints.get(joint / 64).is_some_and(|word| word >> (joint % 64) & 1 == 1);
        self.joints.iter().enumerate().filter(|(joint, _)| is_unseen(*joint)).map(|(_, name)| name.as_str()).collect()
    }

    pub fn json(&self, event: &Event) -> Value {
        let top = event.top.iter().take(event.top_count as usize);
        let top: Vec<_> = top
            .map(|scored| json!({"label": self.label(scored.label), "probability": scored.probability, "log_prob": scored.log_prob}))
            .collect();
        json!({
            "kind": kind(event), "body": event.body, "time_s": seconds(event.time_ns), "start_s": seconds(event.start_ns),
            "end_s": seconds(event.end_ns), "label": event.label.map(|label| self.label(label)), "probability": event.probability,
            "unknown": event.unknown, "idle": event.idle, "tokens": event.tokens, "missing": event.missing,
            "missing_joints": self.unseen(event), "latency_ms": ms(event.latency_ns), "top": top,
        })
    }

    pub fn text(&self, event: &Event) -> String {
        let mut line = format!("{:9.3} s  body {}  {:<9} ", seconds(event.time_ns), event.body, kind(event));
        let label = event.label.map_or("nothing", |label| self.label(label));
        let percent = 100.0 * event.probability;
        // Writing to a String cannot fail.
        let _ = match event.kind {
            EventKind::Decision => {
                let top = event.top.iter().take(event.top_count as usize);
                let top: Vec<_> = top.map(|scored| format!("{} {:.0}%", self.label(scored.label), 100.0 * scored.probability)).collect();
                let state = if event.unknown {
                    "unknown: "
                } else if event.idle {
                    "idle: "
                } else {
                    ""
                };
                let missing =
                    if event.missing > 0.0 { format!(", {:.0}% of joints missing", 100.0 * event.missing) } else { String::new() };
                write!(line, "{state}{}  ({:.1} ms{missing})", top.join(", "), ms(event.latency_ns))
            }
            EventKind::Begin => write!(line, "{label} {percent:.0}%, since {:.3} s", seconds(event.start_ns)),
            EventKind::End => write!(line, "{label} {percent:.0}%, {:.3} to {:.3} s", seconds(event.start_ns), seconds(event.end_ns)),
            EventKind::Forgotten => Ok(()),
        };
        line.truncate(line.trim_end().len());
        line
    }
}

/// One line of what a stream has done.
pub fn statistics(stats: &StreamStats) -> String {
    format!(
        "{} frames ({} refused), {} decisions, {} skipped, latency p50 {:.1} ms, p99 {:.1} ms",
        stats.frames,
        stats.refused_frames,
        stats.decisions,
        stats.skipped_decisions,
        ms(stats.latency.p50_ns),
        ms(stats.latency.p99_ns)
    )
}
