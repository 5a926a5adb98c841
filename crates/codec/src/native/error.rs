//! Why a native delta cannot be read or applied.

use std::io;

use super::streams::StreamId;
use crate::digest::Digest;
use crate::source::OpenError;
use crate::tar;
use crate::tardiff::show;

/// Why a delta cannot be read or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The first eight bytes are not the magic.
    #[error("not a native delta")]
    BadMagic,
    /// A later version of the format.
    #[error("native delta of version {0}; this program reads version 1")]
    Version(u8),
    /// The file ends inside its head or a block.
    #[error("delta ends inside its {0}")]
    Truncated(&'static str),
    /// A check that does not agree.
    #[error("head of the delta is damaged")]
    DamagedHead,
    /// A check that does not agree.
    #[error("block {number} of {count} is damaged")]
    DamagedBlock {
        /// Number of the block, from 1.
        number: usize,
        /// Blocks of the delta.
        count: usize,
    },
    /// Features that a reader must know and this one does not.
    #[error("delta needs features that this program does not know: {0:#x}")]
    UnknownFeatures(u64),
    /// A section, stream, method, item, transform or view that is not defined.
    #[error("unknown {what} {value}")]
    Unknown {
        /// What kind of thing.
        what: &'static str,
        /// Its number.
        value: u64,
    },
    /// A number of more than 63 bits.
    #[error("{0}: a number is too large")]
    NumberTooLarge(&'static str),
    /// A number out of its range.
    #[error("{quantity} is {value}, at most {most} is possible")]
    OutOfRange {
        /// What it counts.
        quantity: &'static str,
        /// What the delta says.
        value: u64,
        /// The bound.
        most: u64,
    },
    /// A stream ends too early.
    #[error("{0} ends too early")]
    StreamEnds(&'static str),
    /// A stream holds more than is used.
    #[error("{0} is longer than what is made of it")]
    StreamLeft(&'static str),
    /// Parts of the delta contradict each other.
    #[error("delta contradicts itself: {0}")]
    Contradiction(&'static str),
    /// A compressed stream does not decode to what it declares.
    #[error("stream {stream} of block {block} does not decode: {what}")]
    Stream {
        /// Number of the block, from 1.
        block: usize,
        /// Which stream.
        stream: StreamId,
        /// What the decoder says.
        what: String,
    },
    /// The table of source files does not decode.
    #[error("table of source files does not decode: {0}")]
    Table(String),
    /// Encoders that the delta needs and this program does not have.
    #[error("delta needs encoder {0}, which this program does not have")]
    NeedsEncoder(String),
    /// A packed stream of an old file does not expand as declared.
    #[error("{format} stream at byte {offset} of old member {member} does not expand: {what}")]
    Expand {
        /// What kind of stream.
        format: &'static str,
        /// Number of the old member, from 0.
        member: u64,
        /// Where the stream starts in its content.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A packed stream cannot be rebuilt as declared.
    #[error("rebuilt {format} stream has {made} bytes, {wanted} are declared")]
    Rebuilt {
        /// What kind of stream.
        format: &'static str,
        /// Bytes that came out.
        made: u64,
        /// Bytes that were declared.
        wanted: u64,
    },
    /// The tokens of a deflate stream make no stream of its content.
    #[error("tokens of a deflate stream do not fit its content")]
    Tokens,
    /// The delta declares more memory than allowed.
    #[error("delta needs {needed} bytes of memory, the limit is {limit}")]
    MemoryTooLarge {
        /// What it declares.
        needed: u64,
        /// The bound.
        limit: u64,
    },
    /// The delta uses more memory than it declares.
    #[error("delta takes more than the {0} bytes of memory that it declares")]
    MemoryExceeded(u64),
    /// The target would be larger than allowed.
    #[error("output of {size} bytes exceeds the limit of {limit}")]
    OutputTooLarge {
        /// What the delta declares.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// Too much work for the output.
    #[error("delta asks for more work than its output allows")]
    TooMuchWork,
    /// Another number of old archives.
    #[error("delta was made from {wanted} old archives, the source has {given}")]
    SourceCount {
        /// What the delta declares.
        wanted: usize,
        /// What the caller gave.
        given: usize,
    },
    /// An old archive is another one.
    #[error("old archive {number} is {actual}, the delta was made from {wanted}")]
    WrongSource {
        /// Number of the archive, from 1.
        number: usize,
        /// What the delta declares.
        wanted: Digest,
        /// What the source holds.
        actual: Digest,
    },
    /// An old archive is not among those given.
    #[error("old archive {number}, {wanted}, is not in the source")]
    MissingSource {
        /// Number of the archive, from 1.
        number: usize,
        /// What the delta declares.
        wanted: Digest,
    },
    /// A source file cannot be opened.
    #[error("source file {}: {error}", show(.path))]
    Source {
        /// Its path.
        path: Vec<u8>,
        /// The reason.
        error: OpenError,
    },
    /// A source file has another size.
    #[error("source file {} has {actual} bytes, the delta was made from one of {wanted}", show(.path))]
    WrongSize {
        /// Its path.
        path: Vec<u8>,
        /// What the delta declares.
        wanted: u64,
        /// What the source holds.
        actual: u64,
    },
    /// A source file has other content.
    #[error("source file {} is not the one that the delta was made from", show(.path))]
    WrongFile {
        /// Its path.
        path: Vec<u8>,
    },
    /// One of some source files has other content.
    #[error("a source file from {} to {} is not the one that the delta was made from", show(.first), show(.last))]
    WrongFiles {
        /// Path of the first of them.
        first: Vec<u8>,
        /// Path of the last of them.
        last: Vec<u8>,
    },
    /// The source files together are others.
    #[error("digest of the source files is {actual}, the delta was made from {wanted}")]
    WrongTree {
        /// What the delta declares.
        wanted: Digest,
        /// What the source holds.
        actual: Digest,
    },
    /// A path that could leave the source or names nothing.
    #[error("unsafe or empty source path {}", show(.0))]
    UnsafePath(Vec<u8>),
    /// The source has no headers, and the delta needs them.
    #[error("delta needs the old archives, the source is a tree of files")]
    NeedsArchives,
    /// An old archive cannot be read as one.
    #[error("old archive {number}: {error}")]
    Tar {
        /// Number of the archive, from 1.
        number: usize,
        /// The reason.
        error: tar::Error,
    },
    /// Old content cannot be read.
    #[error("reading the source: {0}")]
    ReadSource(io::Error),
    /// The delta cannot be read.
    #[error("reading the delta: {0}")]
    ReadDelta(io::Error),
    /// The output cannot be written.
    #[error("writing the output: {0}")]
    Write(io::Error),
    /// The result is not what the delta declares.
    #[error("result is {actual}, the delta declares {wanted}")]
    WrongResult {
        /// What the delta declares.
        wanted: Digest,
        /// What came out.
        actual: Digest,
    },
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
}
