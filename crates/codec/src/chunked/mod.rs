//! Layers that can be read in parts: zstd:chunked and eStargz (`docs/formats/chunked.md`).
//!
//! Both are ordinary compressed tars whose files begin at places of their own in the stream, and a table of contents
//! (TOC) that tells where. Whoever has most of the files fetches the TOC and the rest by ranges.
//!
//! | module | what it is |
//! |---|---|
//! | `place` | where TOC and tar-split are: annotations and footers |
//! | `toc` | the table of contents, read and written |
//! | `split` | tar-split: what stands between the contents, so that the very tar comes back |
//! | `layer` | TOC and framing that agree, and the rebuilt tar |
//! | `predict` | what stands between contents, from an older tar |
//! | `content` | one chunk out of its bytes, compared |
//! | [`chunker`] | where contents are cut, as podman does |
//! | `write`, `stargz` | writers of zstd:chunked and of eStargz |
//!
//! Nothing that a TOC says is believed for itself: with the TOC's digest from a manifest, files are what the TOC says, and
//! a layer is what its diff_id says only when the rebuilt tar was hashed. The caller does that.

pub mod chunker;
mod content;
mod crc;
mod frame;
mod layer;
mod place;
mod predict;
mod split;
mod stargz;
mod toc;
mod write;

use std::io;

pub use content::ChunkReader;
pub use crc::Crc64;
pub use layer::{ContentWriter, Layer, Piece};
pub use place::{Family, Footer, Part, Place, STARGZ_DIGEST, STARGZ_SIZE, stargz_footer};
pub use predict::Style;
pub use split::TarSplit;
pub use stargz::{is_stargz_own, read_stargz_end, read_stargz_toc, write_stargz};
pub use toc::{Chunk, Entry, EntryKind, Toc, rfc3339};
pub use write::{Options, Written, write};

use crate::digest::Digest;
use crate::tar;

/// What reading a layer in parts may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a TOC or a tar-split as they are stored.
    pub stored: u64,
    /// Bytes of a TOC or a tar-split, decoded.
    pub decoded: u64,
    /// Entries of a TOC, chunks included.
    pub entries: u64,
    /// Bytes of the rebuilt tar.
    pub tar: u64,
    /// zstd windows, log2 of bytes.
    pub window_log: u32,
}

impl Default for Limits {
    /// 32 MiB stored, 256 MiB decoded, 4 million entries, tars of 64 GiB, windows of 128 MiB.
    fn default() -> Self {
        Limits { stored: 32 << 20, decoded: 256 << 20, entries: 4 << 20, tar: 64 << 30, window_log: 27 }
    }
}

/// Why a layer cannot be read, or written, in parts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An annotation is not what it should be.
    #[error("annotation {name}: {what}")]
    Annotation {
        /// Its name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// One descriptor claims to be both zstd:chunked and eStargz.
    #[error("annotations of zstd:chunked and of eStargz on one layer")]
    BothFamilies,
    /// The end of the blob is no footer, or contradicts the annotations.
    #[error("footer: {0}")]
    Footer(&'static str),
    /// A part lies outside of where it can be.
    #[error("{what} lies outside of the blob, or over something else")]
    Outside {
        /// Which part.
        what: &'static str,
    },
    /// Something is larger than [`Limits`] allow.
    #[error("{what} has {actual} bytes or entries, {limit} are allowed")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it is or claims to be.
        actual: u64,
        /// The bound.
        limit: u64,
    },
    /// Bytes have another digest than was said.
    #[error("{what} has the digest {actual} and not {expected}")]
    Digest {
        /// Whose bytes.
        what: String,
        /// As announced.
        expected: Digest,
        /// As found.
        actual: Digest,
    },
    /// A part does not decode to as many bytes as were said.
    #[error("{what} does not have the length it should")]
    Length {
        /// Which part.
        what: String,
    },
    /// The TOC does not say which tar-split belongs to it.
    #[error("the TOC does not name the digest of its tar-split")]
    Unbound,
    /// A document is no JSON of the right form.
    #[error("{what}: {reason}")]
    Json {
        /// Which document.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// An entry of the TOC breaks a rule.
    #[error("TOC entry {name:?}: {what}")]
    Entry {
        /// Name of the entry.
        name: String,
        /// The rule.
        what: &'static str,
    },
    /// A line of the tar-split breaks a rule.
    #[error("tar-split line {line}: {what}")]
    Split {
        /// Number of the line, from 0.
        line: u64,
        /// The rule.
        what: &'static str,
    },
    /// TOC and tar tell different things about a member.
    #[error("TOC and tar differ in {what} of {name:?}")]
    Disagree {
        /// Name of the member.
        name: String,
        /// In what.
        what: &'static str,
    },
    /// A member that the format has no room for: the layer can be had in other formats.
    #[error("{name:?} cannot be in a chunked layer: {what}")]
    Unsupported {
        /// Name of the member.
        name: String,
        /// Why.
        what: &'static str,
    },
    /// The headers of the tar cannot be read.
    #[error(transparent)]
    Tar(#[from] tar::Error),
    /// Something could not be read, decoded or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}
