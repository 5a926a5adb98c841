//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::choice::Choice;

/// What deltas between two versions of an image cost, with Coracle and with its peers.
#[derive(Debug, Parser)]
#[command(name = "coracle-bench", version, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take pairs through tools; put bytes, time and memory into the results
    Run(Run),
    /// Measure sha256 alone: no tool that checks what it makes can be faster
    Sha256(Sha256),
    /// Draw the delta sizes as SVG
    Chart(Chart),
    /// Write the results as a Markdown table
    Table(Table),
}

#[derive(Debug, Args)]
pub struct Run {
    /// Folder of pairs: NAME/old.tar and NAME/new.tar
    #[arg(long, value_name = "DIR", default_value = "target/bench/corpus")]
    pub corpus: PathBuf,
    /// Names of the pairs [default: all in the corpus]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub pairs: Vec<String>,
    /// Tools to run, as TOOL or TOOL/CONFIG [default: all]
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    pub tools: Vec<String>,
    /// How often to run each; the least time counts, and the most memory
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// The results to add to
    #[arg(long, value_name = "FILE", default_value = "bench/results.csv")]
    pub out: PathBuf,
    /// The program to measure [default: target/release/coracle, or one on the path]
    #[arg(long, value_name = "PATH")]
    pub coracle: Option<PathBuf>,
    /// One more configuration of Coracle: a name and options for `coracle diff` (may be repeated)
    #[arg(long, value_name = "NAME=OPTIONS", value_parser = named)]
    pub config: Vec<(String, String)>,
    /// Folders to look for programs in before those of PATH, with colons between them
    #[arg(long, value_name = "DIRS")]
    pub peer_path: Option<std::ffi::OsString>,
    /// A python that has the package hdiffpatch [default: python3]
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Stop a tool that takes more CPU time than this
    #[arg(long, value_name = "SECONDS")]
    pub limit: Option<u64>,
    /// Something to say about the machine, for each row; or, with a tool before `=`, about that tool (may be
    /// repeated)
    #[arg(long, value_name = "[TOOL=]TEXT")]
    pub note: Vec<String>,
    /// Where to work; takes about three times the new tar
    #[arg(long, value_name = "DIR")]
    pub temp_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Sha256 {
    /// What to hash; some hundred megabytes are good
    pub file: PathBuf,
    /// The results to add to
    #[arg(long, value_name = "FILE", default_value = "bench/results.csv")]
    pub out: PathBuf,
    /// Something to say about the machine
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
}

#[derive(Debug, Args)]
pub struct Chart {
    /// The results
    #[arg(long = "in", value_name = "FILE", default_value = "bench/results.csv")]
    pub input: PathBuf,
    /// The picture to write
    #[arg(long, value_name = "FILE", default_value = "docs/assets/deltas.svg")]
    pub out: PathBuf,
    #[command(flatten)]
    pub choice: Choice,
}

#[derive(Debug, Args)]
pub struct Table {
    /// The results
    #[arg(long = "in", value_name = "FILE", default_value = "bench/results.csv")]
    pub input: PathBuf,
    /// A page to put the table into, between the lines <!-- bench:begin --> and <!-- bench:end -->
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    #[command(flatten)]
    pub choice: Choice,
}

fn named(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, options)) if !name.is_empty() => Ok((name.to_owned(), options.to_owned())),
        _ => Err("expected NAME=OPTIONS".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_configuration_has_a_name() {
        assert_eq!(named("w=--window=8MiB"), Ok(("w".to_owned(), "--window=8MiB".to_owned())));
        assert!(named("--window").is_err());
        assert!(named("=x").is_err());
    }
}
