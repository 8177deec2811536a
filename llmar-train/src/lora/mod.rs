//! Stage 2: LoRA on the language model.

use crate::cli::LoraArgs;
use crate::error::Result;

/// The command `lora`.
pub fn run(_args: &LoraArgs) -> Result<()> {
    Ok(())
}
