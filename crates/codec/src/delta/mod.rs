//! What the delta formats have in common: the words of their writers and explanations, the choice of old text, and
//! work on several threads.

pub(crate) mod likeness;
pub(crate) mod pool;

use std::io;

use crate::source::MergeError;
use crate::tar;

/// The work that goes into a smaller delta: 1 is the least, 3 little, 5 the default, 9 the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort(u8);

impl Effort {
    /// The effort of that number, if it is 1 to 9.
    pub fn new(number: u8) -> Option<Self> {
        (1..=9).contains(&number).then_some(Effort(number))
    }

    /// 1 to 9.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl Default for Effort {
    /// Where bytes and work are in balance.
    fn default() -> Self {
        Effort(5)
    }
}

/// How many files of the target went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileCounts {
    /// All of an old file.
    pub identical: u64,
    /// Expressed with the help of old files.
    pub changed: u64,
    /// Sent as literal bytes.
    pub literal: u64,
}

/// Why no delta could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// An old archive is not a readable tar.
    #[error("old archive {}: {error}", layer + 1)]
    Old {
        /// Its index.
        layer: usize,
        /// The reason.
        error: tar::Error,
    },
    /// The target is not a readable tar.
    #[error("new archive: {0}")]
    New(tar::Error),
    /// An input could not be read a second time.
    #[error("reading an input again: {0}")]
    Read(io::Error),
    /// The delta could not be written.
    #[error("writing the delta: {0}")]
    Write(io::Error),
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl From<MergeError> for DiffError {
    fn from(e: MergeError) -> Self {
        match e {
            MergeError::Tar { layer, error } => DiffError::Old { layer, error },
            MergeError::Cancelled => DiffError::Cancelled,
        }
    }
}

/// How a delta makes a member of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// All content is copied from old files.
    Copied,
    /// Content comes from old files with corrections, or is partly literal.
    Changed,
    /// Content is literal.
    Literal,
    /// A member without content: directories, links, devices, empty files.
    Metadata,
    /// Not a member: the end of the archive and what follows it.
    Trailer,
}

impl Cost {
    /// A word for people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Cost::Copied => "copied",
            Cost::Changed => "changed",
            Cost::Literal => "literal",
            Cost::Metadata => "metadata",
            Cost::Trailer => "trailer",
        }
    }
}
