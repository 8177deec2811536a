//! Recognition: the only place that sees every stage, skeleton → tokens → LLaMA → label.

mod batch;
mod clip;
mod model;

pub use clip::{Options, Recognition, Recognizer, Timings};
pub use model::{Model, OpenOptions};
