//! The losses of both stages, one file each. All return a scalar tensor; natural logarithms.

pub mod commit;
pub mod context;
pub mod embed;
pub mod mmd;
pub mod reconstruction;
pub mod supervised;
pub mod usage;
pub mod zipf;
