//! `llmar-train`: see `llmar-train --help`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match llmar_train::cli::run(&llmar_train::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
