//! Data sets.

use crate::cli::InspectArgs;
use crate::error::Result;

/// Runs `llmar-train data inspect`.
pub fn inspect(_args: &InspectArgs) -> Result<()> {
    todo!()
}
