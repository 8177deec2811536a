//! `llmar-train report`: a run on one page of HTML that needs nothing but a browser: no network, no other file.
//!
//! A section is one file here: it takes what it shows out of the `Material` and returns markup and the data that `page.js` draws from. A section
//! whose files are missing is left out, and the page says why.

mod clips;
mod codebook;
mod confusion;
mod curves;
mod decoder;
mod history;
mod html;
mod material;
mod mistakes;
mod page;
mod reconstruction;
mod reliability;
mod sentences;
mod summary;
mod usage;

use std::io::{Write, stdout};
use std::path::PathBuf;

use material::Material;

use crate::cli::ReportArgs;
use crate::error::{Error, Result};

/// Makes the page and prints where it is.
pub fn run(args: &ReportArgs) -> Result<()> {
    let path = report(args)?;
    writeln!(stdout(), "{}", path.display()).map_err(Error::io("standard output"))
}

/// Makes the page and returns its path. The page that was there stays whole until the new one is on disk.
///
/// # Errors
/// [`Error::Format`] for a folder without any part of a run, for damaged files and for a broken line of the metrics;
/// [`Error::Mismatch`] for files of different runs; those of the runtime for the archive and its clips.
pub fn report(args: &ReportArgs) -> Result<PathBuf> {
    let material = Material::gather(args)?;
    let parts = [
        curves::stage1(&material)?,
        curves::stage2(&material)?,
        confusion::section(&material)?,
        reliability::section(&material)?,
        usage::section(&material)?,
        codebook::section(&material)?,
        reconstruction::section(&material)?,
        mistakes::section(&material)?,
    ];
    let html = page::page(&material, &parts)?;
    let out = args.out.clone().unwrap_or_else(|| args.run.join("report.html"));
    llmar::checkpoint::replace_file(&out, |file| file.write_all(html.as_bytes()))?;
    Ok(out)
}
