//! The command `coracle`, which is also `tar-diff` and `tar-patch` when called by those names.

mod args;
mod commands;
mod failure;
mod progress;
#[cfg(test)]
mod reference;
mod size;
mod table;
mod upstream;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let name =
        args.first().and_then(|a| Path::new(a).file_name()).and_then(|n| n.to_str()).unwrap_or_default();
    match name {
        "tar-diff" => return upstream::tar_diff(&args[1..]),
        "tar-patch" => return upstream::tar_patch(&args[1..]),
        _ => {}
    }
    let cli = Cli::parse_from(args);
    let json = cli.command.json();
    let result = match cli.command {
        Command::Diff(args) => commands::diff::run(&args),
        Command::Patch(args) => commands::patch::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Explain(args) => commands::explain::run(&args),
        Command::Copy(args) => commands::copy::run(&args),
        Command::Ls(args) => commands::audit::ls(&args),
        Command::Cat(args) => commands::audit::cat(&args),
        Command::Compare(args) => commands::audit::compare_images(&args),
        Command::Convert(args) => commands::convert::run(&args),
        Command::Delta(args) => commands::delta::run(&args),
        Command::Pull(args) => commands::pull::run(&args),
        Command::Update(args) => commands::pull::update(&args),
        Command::Store(args) => commands::store::run(&args),
        Command::Completions(args) => commands::manual::completions(&args),
        Command::ManPages(args) => commands::manual::pages(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
