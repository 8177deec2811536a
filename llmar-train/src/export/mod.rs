//! Export.

use crate::cli::ExportArgs;
use crate::error::Result;

/// Runs `llmar-train export`.
pub fn run(_args: &ExportArgs) -> Result<()> {
    todo!()
}
