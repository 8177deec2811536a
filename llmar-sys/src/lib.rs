//! libllmar: names human actions in skeleton clips, on the device.
//!
//! ```text
//! skeleton clip ──► motion encoder ──► Poincaré quantiser ──► action sentence (discrete tokens)
//!    skeleton/          motion/            motion/                   │
//! label ◄── label scoring ◄── LoRA-merged LLaMA ◄── "Given a sequence of action tokens [tokens], …"
//!              text/               llama/                        recognizer/
//! ```
//!
//! C programs use this library through `include/llmar.h` ([`ffi`]); in Rust it goes like this:
//!
//! ```no_run
//! use llmar::control::Control;
//! use llmar::recognizer::{Model, OpenOptions, Options, Recognizer};
//! use llmar::skeleton::{Clip, Timing};
//!
//! # fn main() -> llmar::Result<()> {
//! let model = Model::open("utd-mhad-q8.llmar".as_ref(), OpenOptions::default())?;
//! let mut recognizer = Recognizer::new(model, Options { threads: 2, ..Options::default() })?;
//!
//! let joints = vec![0.0; 67 * 20 * 3]; // f32 [frames, persons, joints, coordinates] in metres; NaN where a joint was not seen
//! let clip = Clip {
//!     joints: &joints,
//!     frames: 67,
//!     persons: 1,
//!     joints_per_person: 20,
//!     coords: 3,
//!     timing: Timing::Rate(30.0),
//!     layout: "kinect1_20",
//!     valid: None,
//! };
//! let answer = recognizer.recognize(&clip, &Control::default())?;
//! let labels = recognizer.labels();
//! for (score, probability) in answer.top.iter().zip(&answer.probabilities) {
//!     println!("{} {:.1} %", labels[score.label], 100.0 * probability);
//! }
//! # Ok(())
//! # }
//! ```

pub mod bytes;
pub mod checkpoint;
pub mod control;
pub mod device;
pub mod error;
pub mod ffi;
pub mod formats;
pub mod llama;
mod memory;
pub mod motion;
pub mod recognizer;
pub mod skeleton;
pub mod text;

pub use error::{Error, Result};
