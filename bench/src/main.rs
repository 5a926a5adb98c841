//! The command `coracle-bench`: what deltas between two versions of an image cost, with Coracle and with its peers.
//!
//! | module | what it does |
//! |---|---|
//! | [`args`] | the command line |
//! | [`run`] | takes pairs through tools and writes down what it cost |
//! | [`tools`] | the tools, their configurations and their commands, as a table |
//! | [`setup`] | finds out which of them can be run here |
//! | [`measure`] | runs one command and says what it took |
//! | [`pair`] | two versions of an image, and the folder in which tools work on them |
//! | [`hash`] | sha256 of files, and its speed |
//! | [`results`] | the rows of `bench/results.csv` |
//! | [`choice`] | which rows a chart or a table shows, and in which order |
//! | [`chart`], [`table`] | the results as SVG and as Markdown |
//! | [`date`] | today, for the rows |
//! | [`mod@print`] | the only place that writes to the terminal |

mod args;
mod chart;
mod choice;
mod date;
mod error;
mod hash;
mod measure;
mod pair;
mod print;
mod results;
mod run;
mod setup;
mod table;
mod tools;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use error::{Error, Result};
use results::Results;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Sha256(args) => sha256(&args),
        Command::Chart(args) => draw(&args),
        Command::Table(args) => write_table(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::problem(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn sha256(args: &args::Sha256) -> Result<()> {
    let mut results = Results::read(&args.out)?;
    let row = hash::speed(&args.file, &date::today(), &args.note)?;
    print::line(&format!("sha256: {:.0} MB/s", row.megabytes_per_second().unwrap_or_default()));
    results.put(row);
    results.write(&args.out)
}

fn draw(args: &args::Chart) -> Result<()> {
    let results = Results::read_existing(&args.input)?;
    write(&args.out, &chart::svg(&choice::groups(&results, &args.choice)))
}

fn write_table(args: &args::Table) -> Result<()> {
    let results = Results::read_existing(&args.input)?;
    let text = table::markdown(&results, &choice::groups(&results, &args.choice));
    let Some(page) = &args.write else {
        print::line(text.trim_end());
        return Ok(());
    };
    let before = std::fs::read_to_string(page).map_err(Error::io("read", page))?;
    let after = table::between_markers(&before, &text).ok_or_else(|| Error::Markers {
        path: page.clone(),
        begin: table::BEGIN,
        end: table::END,
    })?;
    if after == before { Ok(()) } else { write(page, &after) }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    std::fs::write(path, text).map_err(Error::io("write", path))
}
