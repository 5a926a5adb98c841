//! What can go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_codec::digest::Digest;
use coracle_codec::oci::{self, Mismatch};

use crate::layer_file;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: a verb.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A folder that holds something, and no store.
    #[error("{}: not a store", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// A store of another version, or one whose `format` cannot be read.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file `format`.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer file that is not what it should be.
    #[error("layer {diff_id}: {source}")]
    Layer {
        /// The layer.
        diff_id: Digest,
        /// What is wrong with its file.
        source: layer_file::Error,
    },
    /// An object whose size is not the one that its layer states.
    #[error("object {digest}: {actual} bytes, expected {expected}")]
    ObjectSize {
        /// The object.
        digest: Digest,
        /// Bytes, as the layer states them.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// A document whose bytes are not those of its name.
    #[error("document {digest}: {source}")]
    Damaged {
        /// Its name.
        digest: Digest,
        /// What is there.
        source: Mismatch,
    },
    /// A document that is larger than any that could have been put there.
    #[error("document {digest}: more than {limit} bytes")]
    DocumentTooLarge {
        /// Its name.
        digest: Digest,
        /// The bound in bytes.
        limit: u64,
    },
    /// A document that is no manifest, index or config where one is needed.
    #[error("document {digest}: {source}")]
    Document {
        /// Its name.
        digest: Digest,
        /// What is wrong with it.
        source: oci::Error,
    },
    /// Something that something else needs is not there.
    #[error("{what} {digest} is not in the store")]
    Missing {
        /// `document`, `layer` or `object`.
        what: &'static str,
        /// Which.
        digest: Digest,
    },
    /// The file of a name in the store cannot be used.
    #[error("{}: {reason}", path.display())]
    Ref {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes of a layer are not those that were expected. Nothing was published.
    #[error("layer is {actual}, expected {expected}")]
    WrongLayer {
        /// The diff_id that was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Others went on publishing for as long as the caller was ready to wait.
    #[error("{}: in use by others for {waited:?}", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It cannot be told what belongs to a name, so nothing is removed.
    #[error("cannot tell what {name} needs: {source}")]
    Unclear {
        /// The name in the store, or the file of it.
        name: String,
        /// Why.
        source: Box<Error>,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A layer ended before all of its bytes were given.
    #[error("the layer was given up before its end")]
    Abandoned,
}

impl Error {
    /// Makes an [`Error::Io`] of what the system said: `file.sync_all().map_err(Error::io("sync", &path))`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Error::Io { path: path.to_owned(), doing, source }
    }

    /// Whether the disk, or what the user may put on it, is full.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Error::Io { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge),
            _ => false,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. } => source.kind(),
            Error::Missing { .. } => io::ErrorKind::NotFound,
            Error::Layer { .. } | Error::ObjectSize { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
