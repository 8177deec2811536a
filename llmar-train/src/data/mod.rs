//! Data sets: what an archive holds, before anything is trained on it.

mod inspect;

pub use inspect::{ClassCount, Frames, Missing, SplitCount, Summary, inspect, summarize};
