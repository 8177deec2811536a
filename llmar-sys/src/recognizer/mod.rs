//! Recognition: the only place that sees every stage, skeleton → tokens → LLaMA → label.

mod answers;
mod batch;
mod clip;
mod model;
mod passes;
mod question;
mod scorer;
pub mod stream;

pub use clip::{Options, Recognition, Recognizer, Scoring, THREAD_LIMIT, Timings};
pub use model::{Model, OpenOptions};
