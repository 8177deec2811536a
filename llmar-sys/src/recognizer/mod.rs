//! Recognition: the only place that sees every stage, skeleton → tokens → LLaMA → label.

mod batch;
mod clip;
mod model;
mod passes;
mod question;
mod scorer;
pub mod stream;

pub use clip::{Options, Recognition, Recognizer, THREAD_LIMIT, Timings};
pub use model::{Model, OpenOptions};
