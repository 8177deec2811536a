//! Import.

use crate::cli::ImportArgs;
use crate::error::Result;

/// Runs `llmar-train import`.
pub fn run(_args: &ImportArgs) -> Result<()> {
    todo!()
}
