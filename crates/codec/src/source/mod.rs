//! Where old files come from.
//!
//! An applier asks for old files by path or by digest and gets something that reads and seeks. Directory trees, stores
//! and archives implement [`Source`]; the one for archives, [`TarSource`], lives here because it needs bytes only.

mod merge;
mod tars;

pub use merge::{MergeError, MergeOptions, OldFile, Tree};
pub use tars::TarSource;

use std::io::{self, Read, Seek};

use crate::digest::Digest;

/// An old file opened for reading.
pub trait SourceFile: Read + Seek + Send {
    /// Its length in bytes when it was opened.
    fn size(&self) -> u64;
}

/// Why a source file could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The source has no such file.
    #[error("not found")]
    NotFound,
    /// The path leads to something else than a regular file.
    #[error("not a regular file but a {0}")]
    NotRegular(&'static str),
    /// The path cannot name a file.
    #[error("invalid path")]
    InvalidPath,
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A collection of old files.
pub trait Source: Send + Sync {
    /// Opens a regular file by its path relative to the root: bytes, no leading slash, no `.` or `..` components.
    fn open_path(&self, path: &[u8]) -> Result<Box<dyn SourceFile + '_>, OpenError>;

    /// Opens a file by the digest of its content. Sources that keep no digests have none.
    fn open_digest(&self, digest: &Digest) -> Result<Box<dyn SourceFile + '_>, OpenError> {
        let _ = digest;
        Err(OpenError::NotFound)
    }
}

/// A source without files: enough for a delta that is all literal.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptySource;

impl Source for EmptySource {
    fn open_path(&self, _: &[u8]) -> Result<Box<dyn SourceFile + '_>, OpenError> {
        Err(OpenError::NotFound)
    }
}
