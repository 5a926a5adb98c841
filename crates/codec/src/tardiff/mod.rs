//! tar-diff, versions 1 and 2 (`docs/formats/tar-diff.md`).
//!
//! A delta is eight bytes of magic and a zstd stream of operations that rebuild a new tar from literal bytes and from
//! old files opened by path. [`OpReader`] reads operations, [`apply`] carries them out, [`OpWriter`] writes them,
//! [`diff`] decides which ones to write, [`explain`] says what they cost.

mod apply;
mod diff;
mod explain;
mod read;
mod write;

pub use apply::{Applied, apply};
pub use diff::{Method, Options, Report, diff, diff_from};
pub use explain::{ExplainError, Explanation, MemberCost, explain};
pub use read::OpReader;
pub use write::{OpWriter, StreamOptions};

use std::io;

use crate::compress;
use crate::source::OpenError;

/// Bytes of the magic.
pub const MAGIC_LEN: usize = 8;
/// Magic of version 1 (section 3.1).
pub const MAGIC_V1: [u8; MAGIC_LEN] = *b"tardf1\n\0";
/// Magic of version 2 (section 3.1).
pub const MAGIC_V2: [u8; MAGIC_LEN] = *b"tardf2\n\0";
/// Longest path of an OPEN operation, in bytes.
pub const MAX_PATH: u64 = 4096;
/// Largest ADD operation, in bytes.
pub const MAX_ADD: u64 = 100 << 20;
/// Largest window of the outer stream and of a dictionary frame, log2 of bytes.
pub const MAX_WINDOW_LOG: u32 = 29;
/// Largest dictionary, in bytes.
pub const MAX_DICTIONARY: u64 = 512 << 20;

/// Format version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `tardf1`.
    V1,
    /// `tardf2`: adds [`Op::ZstdDict`].
    V2,
}

impl Version {
    /// The version that a magic announces.
    pub fn of_magic(magic: &[u8]) -> Option<Self> {
        [(MAGIC_V1, Version::V1), (MAGIC_V2, Version::V2)]
            .into_iter()
            .find(|(m, _)| m == magic)
            .map(|(_, v)| v)
    }

    /// 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }

    fn magic(self) -> [u8; MAGIC_LEN] {
        match self {
            Version::V1 => MAGIC_V1,
            Version::V2 => MAGIC_V2,
        }
    }
}

/// One operation, its payload left in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Append the payload.
    Data(u64),
    /// Make the file at this path the current one, cursor at its start.
    Open(Vec<u8>),
    /// Append bytes from the cursor on.
    Copy(u64),
    /// Append bytes from the cursor on, each with a payload byte added modulo 256.
    Add(u64),
    /// Set the cursor, absolute.
    Seek(u64),
    /// Append what the payload, a zstd frame, decodes to with the whole current file as dictionary.
    ZstdDict(u64),
}

impl Op {
    const DATA: u8 = 0;
    const OPEN: u8 = 1;
    const COPY: u8 = 2;
    const ADD: u8 = 3;
    const SEEK: u8 = 4;
    const ZSTD_DICT: u8 = 5;

    /// Its name in the format page.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Data(_) => "DATA",
            Op::Open(_) => "OPEN",
            Op::Copy(_) => "COPY",
            Op::Add(_) => "ADD",
            Op::Seek(_) => "SEEK",
            Op::ZstdDict(_) => "ZSTDDICT",
        }
    }
}

/// How often each operation occurs and how many bytes they stand for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpCounts {
    /// DATA operations.
    pub data: Count,
    /// OPEN operations; bytes of path.
    pub open: Count,
    /// COPY operations.
    pub copy: Count,
    /// ADD operations.
    pub add: Count,
    /// SEEK operations; bytes always 0.
    pub seek: Count,
    /// ZSTDDICT operations; bytes of frames.
    pub zstd_dict: Count,
}

/// A number of operations and the sum of their sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Operations.
    pub ops: u64,
    /// Bytes.
    pub bytes: u64,
}

impl OpCounts {
    /// Counts one more.
    pub fn count(&mut self, op: &Op) {
        let (count, bytes) = match op {
            Op::Data(n) => (&mut self.data, *n),
            Op::Open(path) => (&mut self.open, path.len() as u64),
            Op::Copy(n) => (&mut self.copy, *n),
            Op::Add(n) => (&mut self.add, *n),
            Op::Seek(_) => (&mut self.seek, 0),
            Op::ZstdDict(n) => (&mut self.zstd_dict, *n),
        };
        count.ops += 1;
        count.bytes += bytes;
    }

    /// Names and counts in the order of the opcodes.
    pub fn rows(&self) -> [(&'static str, Count); 6] {
        [
            ("DATA", self.data),
            ("OPEN", self.open),
            ("COPY", self.copy),
            ("ADD", self.add),
            ("SEEK", self.seek),
            ("ZSTDDICT", self.zstd_dict),
        ]
    }
}

/// What reading or applying one delta may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the new tar.
    pub max_output: u64,
    /// Window of the outer stream and of dictionary frames, log2 of bytes.
    pub max_window_log: u32,
    /// Bytes of an old file used as a dictionary: it is held in memory.
    pub max_dictionary: u64,
}

impl Limits {
    /// The window bound; limits may lower the format's, never raise it.
    fn window_log(&self) -> u32 {
        self.max_window_log.min(MAX_WINDOW_LOG)
    }

    /// Bytes of dictionaries that one delta may have read: tiny frames with large dictionaries cost time, not output.
    fn dictionary_budget(&self) -> u64 {
        self.max_output.saturating_mul(4).saturating_add(1 << 30)
    }
}

impl Default for Limits {
    /// The format's own bounds and 64 GiB of output.
    fn default() -> Self {
        Limits { max_output: 64 << 30, max_window_log: MAX_WINDOW_LOG, max_dictionary: MAX_DICTIONARY }
    }
}

/// Why a delta cannot be read or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The first eight bytes are not a known magic.
    #[error("not a tar-diff delta")]
    BadMagic,
    /// The file ends inside the magic, or the magic is all there is.
    #[error("delta is empty: no operation stream")]
    EmptyStream,
    /// The operation stream ends inside an operation.
    #[error("delta ends inside operation {op} at byte {at} of its operation stream")]
    Truncated {
        /// Name of the operation.
        op: &'static str,
        /// Offset in the decoded stream.
        at: u64,
    },
    /// The outer zstd stream is damaged or out of bounds.
    #[error("operation stream: {0}")]
    Stream(compress::Error),
    /// An opcode that is not defined.
    #[error("unknown operation {op} at byte {at} of the operation stream")]
    UnknownOp {
        /// The opcode.
        op: u8,
        /// Offset in the decoded stream.
        at: u64,
    },
    /// ZSTDDICT in a version 1 delta.
    #[error("operation ZSTDDICT needs a version 2 delta")]
    OpNotInVersion,
    /// A size of more than 64 bits, or above `i64::MAX`.
    #[error("operation {op} with an impossible size at byte {at} of the operation stream")]
    BadSize {
        /// Name of the operation.
        op: &'static str,
        /// Offset in the decoded stream.
        at: u64,
    },
    /// A path or an ADD above the format's bound.
    #[error("operation {op} of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Name of the operation.
        op: &'static str,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// A path that could leave the source or names nothing.
    #[error("unsafe or empty source path {}", show(.0))]
    UnsafePath(Vec<u8>),
    /// COPY, ADD, SEEK or ZSTDDICT before any OPEN.
    #[error("operation {0} without an open source file")]
    NoSource(&'static str),
    /// A source file cannot be opened.
    #[error("source file {}: {error}", show(.path))]
    Source {
        /// Its path.
        path: Vec<u8>,
        /// The reason.
        error: OpenError,
    },
    /// A source file is shorter than the delta needs.
    #[error("source file {} is too short: {wanted} bytes wanted at offset {offset}, it has {size}", show(.path))]
    ShortSource {
        /// Its path.
        path: Vec<u8>,
        /// Where reading began.
        offset: u64,
        /// Bytes wanted from there.
        wanted: u64,
        /// Size of the file.
        size: u64,
    },
    /// A source file cannot be read.
    #[error("source file {}: {error}", show(.path))]
    ReadSource {
        /// Its path.
        path: Vec<u8>,
        /// The reason.
        error: io::Error,
    },
    /// A source file is too large to be a dictionary.
    #[error("source file {} of {size} bytes is too large for a dictionary of at most {limit}", show(.path))]
    DictionaryTooLarge {
        /// Its path.
        path: Vec<u8>,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// A dictionary frame does not decode.
    #[error("patch of source file {}: {error}", show(.path))]
    Frame {
        /// Path of the dictionary.
        path: Vec<u8>,
        /// The reason.
        error: compress::Error,
    },
    /// The new tar would be larger than allowed.
    #[error("output exceeds the limit of {0} bytes")]
    OutputTooLarge(u64),
    /// Too many operations that produce nothing.
    #[error("delta holds too many operations for the output they give")]
    TooManyOps,
    /// Too much reading for dictionaries.
    #[error("delta reads too many bytes of dictionaries for the output they may give")]
    TooManyDictionaries,
    /// The delta cannot be read.
    #[error("reading the delta: {0}")]
    ReadDelta(io::Error),
    /// The output cannot be written.
    #[error("writing the output: {0}")]
    Write(io::Error),
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// A path for people: quoted, what is not UTF-8 escaped.
pub(crate) fn show(path: &[u8]) -> String {
    format!("\"{}\"", path.escape_ascii())
}
