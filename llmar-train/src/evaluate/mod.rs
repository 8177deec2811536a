//! Accuracy of a checkpoint on a data set, through the shipped runtime.

use crate::cli::EvaluateArgs;
use crate::error::Result;

/// Runs `llmar-train evaluate`.
pub fn run(_args: &EvaluateArgs) -> Result<()> {
    todo!()
}
