//! libllmar: names human actions in skeleton clips, on the device.
//!
//! ```text
//! skeleton clip ──► motion encoder ──► Poincaré quantiser ──► action sentence (discrete tokens)
//!    skeleton/          motion/            motion/                   │
//! label ◄── label scoring ◄── LoRA-merged LLaMA ◄── "Given a sequence of action tokens [tokens], …"
//!              text/               llama/                        recognizer/
//! ```

pub mod bytes;
pub mod checkpoint;
pub mod control;
pub mod device;
pub mod error;
pub mod ffi;
pub mod formats;
pub mod llama;
pub mod motion;
pub mod recognizer;
pub mod skeleton;
pub mod text;

pub use error::{Error, Result};
