//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

/// A result with the error of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the benchmark stopped. A tool that fails is no such error: its row says so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something without which nothing can be measured.
    #[error("{program} is not installed; it is in the Debian package {package}")]
    Missing { program: &'static str, package: &'static str },
    /// A file or folder could not be used.
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// A line of the results that cannot be understood.
    #[error("{}, line {line}: {what}", path.display())]
    Csv { path: PathBuf, line: usize, what: String },
    /// No pair, or not the ones that were asked for.
    #[error("{}: {what}", path.display())]
    Pair { path: PathBuf, what: String },
    /// A selection that selects nothing.
    #[error("no such tool or configuration: {0}")]
    Tool(String),
    /// A program that prepares a pair did not do its work.
    #[error("{program}: {what}")]
    Preparation { program: &'static str, what: String },
    /// A page without the place for the table.
    #[error("{} has no lines {begin} and {end}", path.display())]
    Markers { path: PathBuf, begin: &'static str, end: &'static str },
}

impl Error {
    /// For `map_err`: what was to be done with which path.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { what, path: path.to_owned(), source }
    }
}
