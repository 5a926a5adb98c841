//! Why a piece of work failed.

use std::io;
use std::path::PathBuf;

use coracle_codec::digest::Digest;
use coracle_codec::tardiff::{self, DiffError, ExplainError};
use coracle_codec::{compress, native, tar};
use coracle_sys::wait::is_stopped;

/// Why a piece of work failed. Names the file in question wherever there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An input cannot be opened.
    #[error("{}: {error}", path.display())]
    Open {
        /// The input.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// An input cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The input.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// An input that was read before cannot be read a second time.
    #[error("an input changed or went away while it was read: {0}")]
    ReadAgain(io::Error),
    /// A compressed input is damaged or out of bounds.
    #[error("{}: {error}", path.display())]
    Compressed {
        /// The input.
        path: PathBuf,
        /// The reason.
        error: compress::Error,
    },
    /// An input is not a readable tar.
    #[error("{}: {error}", path.display())]
    Tar {
        /// The input.
        path: PathBuf,
        /// The reason.
        error: tar::Error,
    },
    /// A delta is damaged, hostile or out of bounds, or does not fit its source.
    #[error("{}: {error}", path.display())]
    Delta {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: tardiff::Error,
    },
    /// A native delta is damaged, hostile or out of bounds, or does not fit its source.
    #[error("{}: {error}", path.display())]
    Native {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: native::Error,
    },
    /// A native delta makes another tar than the one it was said to make.
    #[error("{}: {error}", path.display())]
    ExplainNative {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: native::ExplainError,
    },
    /// A delta makes another tar than the one it was said to make.
    #[error("{}: {error}", path.display())]
    Explain {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: ExplainError,
    },
    /// The result has another digest than expected.
    #[error("result has digest {actual}, expected {expected}")]
    Digest {
        /// What the caller wants.
        expected: Digest,
        /// What came out.
        actual: Digest,
    },
    /// A delta just made does not give the new tar when it is applied.
    #[error("self-check failed: {0}")]
    SelfCheck(String),
    /// A directory was given among archives.
    #[error("{}: a directory can only be the one and only source", .0.display())]
    DirectoryAmongArchives(PathBuf),
    /// Standard input was named for more than one input.
    #[error("standard input can be given only once")]
    StdinTwice,
    /// The output would take the place of an input.
    #[error("{}: the output is one of the inputs", .0.display())]
    OutputIsInput(PathBuf),
    /// An output cannot be written.
    #[error("{}: {error}", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A temporary file cannot be made or written.
    #[error("temporary file in {}: {error}", dir.display())]
    Temporary {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// An input is of no known kind.
    #[error("{}: neither a delta nor an archive", .0.display())]
    UnknownFile(PathBuf),
    /// The observer asked to stop.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    /// Gives errors of applying a delta the delta's name.
    pub(crate) fn delta(path: &std::path::Path, out: &std::path::Path, error: tardiff::Error) -> Self {
        match error {
            tardiff::Error::Cancelled => Error::Cancelled,
            tardiff::Error::Write(error) => Error::Write { path: out.into(), error },
            tardiff::Error::ReadDelta(error) => Error::read(path, error),
            error => Error::Delta { path: path.into(), error },
        }
    }

    /// Gives errors of applying a native delta the delta's name.
    pub(crate) fn native(path: &std::path::Path, out: &std::path::Path, error: native::Error) -> Self {
        match error {
            native::Error::Cancelled => Error::Cancelled,
            native::Error::Write(error) => Error::Write { path: out.into(), error },
            native::Error::ReadDelta(error) => Error::read(path, error),
            error => Error::Native { path: path.into(), error },
        }
    }

    /// Gives errors of making a delta the names of its inputs.
    pub(crate) fn diff(
        old: &[PathBuf],
        new: &std::path::Path,
        out: &std::path::Path,
        error: DiffError,
    ) -> Self {
        match error {
            DiffError::Old { layer, error } => Error::tar(&old[layer], error),
            DiffError::New(error) => Error::tar(new, error),
            DiffError::Read(error) => Error::ReadAgain(error),
            DiffError::Write(error) => Error::Write { path: out.into(), error },
            DiffError::Cancelled => Error::Cancelled,
            other => Error::SelfCheck(other.to_string()),
        }
    }

    /// An input that cannot be read, or whose reading was given up because the observer asked for it.
    pub(crate) fn read(path: &std::path::Path, error: io::Error) -> Self {
        if is_stopped(&error) { Error::Cancelled } else { Error::Read { path: path.into(), error } }
    }

    pub(crate) fn tar(path: &std::path::Path, error: tar::Error) -> Self {
        Error::Tar { path: path.into(), error }
    }
}
