//! Layer files: `docs/formats/store.md`, section 4.
//!
//! A layer file is a tar without the contents that are objects: the bytes between them in compressed frames, and a table
//! that says where they belong. This module knows bytes only; where objects are is the caller's business.

mod number;
mod read;
mod write;

pub use read::{LayerFile, Limits, Section};
pub(crate) use write::Table as TableWriter;
pub use write::{Summary, Writer};

use std::io;

use coracle_codec::digest::Digest;

/// First bytes of a layer file, the version last: section 4.1.
pub const MAGIC: [u8; 8] = *b"CRLAYER\x01";
/// Last bytes of a layer file: section 4.1.
pub const END: [u8; 8] = *b"CRLAYEND";
/// Bytes of inline content in a frame, but for the last one: section 4.2.
pub const FRAME: usize = 256 << 10;
/// Bytes of the footer: offset and size of the table, digest, [`END`].
pub(crate) const FOOTER: usize = 8 + 8 + 32 + 8;

/// Why a layer file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It could not be read.
    #[error("cannot read layer file: {0}")]
    Io(#[from] io::Error),
    /// Fewer bytes than the shortest one has, or than its footer speaks of.
    #[error("layer file has only {0} bytes")]
    TooShort(u64),
    /// It does not begin, or does not end, as a layer file does.
    #[error("not a layer file: wrong {0}")]
    Magic(&'static str),
    /// Another version.
    #[error("layer file of version {0}")]
    Version(u8),
    /// More than [`Limits`] allows.
    #[error("layer file has {actual} {what}, more than {limit}")]
    TooLarge {
        /// `bytes of table`, `files`, ...
        what: &'static str,
        /// As it states.
        actual: u64,
        /// The bound.
        limit: u64,
    },
    /// The table contradicts itself or the file around it.
    #[error("invalid table of layer file: {0}")]
    Table(&'static str),
    /// A compressed part cannot be decoded, or to another length than stated.
    #[error("damaged {what} of layer file: {reason}")]
    Compressed {
        /// `table` or `frame 3`.
        what: String,
        /// What the decoder says.
        reason: String,
    },
    /// The digest at the end is not that of the bytes before it.
    #[error("layer file is damaged: digest {actual}, expected {expected}")]
    Digest {
        /// What stands in the footer.
        expected: Digest,
        /// Of the bytes.
        actual: Digest,
    },
}

/// A stretch of the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where in the tar it begins, in bytes.
    pub start: u64,
    /// Bytes; at least one.
    pub len: u64,
    /// Where its bytes are.
    pub content: Content,
}

/// Where bytes of a tar are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// In the layer file, from this offset of all inline bytes on.
    Inline(u64),
    /// In an object.
    Object(Digest),
}

/// A regular file of the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry<'a> {
    /// Its name as the tar has it, any bytes.
    pub path: &'a [u8],
    /// Where in the tar its content begins, in bytes.
    pub offset: u64,
    /// Bytes of content.
    pub size: u64,
    /// Digest of the content if it is an object; `None` if it is inline.
    pub object: Option<Digest>,
}
