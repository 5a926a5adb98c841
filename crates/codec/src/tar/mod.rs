//! A tar reader that accounts for every byte and reads archives exactly as Go's `archive/tar` does.
//!
//! Container tools are written in Go: what *they* see in a layer is what the layer is. Where GNU tar and Go disagree
//! Coracle follows Go, and the golden archives in `testkit/golden/tar` hold Go's answers. Accepted: v7, ustar, STAR,
//! PAX (also global headers), GNU long names and base-256 numbers, sparse members in the four GNU forms.
//!
//! The reader is a pull parser over [`std::io::Read`]: [`Reader::next_entry`] gives one member at a time with the
//! offsets of its header and content. All bytes between contents (headers, extended headers, padding, the end-of-archive
//! blocks and whatever trails them) are *framing*; content plus framing is the whole archive, so copying both
//! reproduces it bit for bit.

mod block;
mod details;
mod pax;
mod reader;
mod sparse;
pub mod write;

pub(crate) use block::text as field_text;
pub use details::{Details, Time};
pub(crate) use pax::record as pax_record;
pub use reader::{Entry, Kind, Limits, Reader};
pub use sparse::{Fragment, SparseMap, expand};

use std::io;

/// Size of a tar block in bytes.
pub const BLOCK: u64 = 512;

/// Why an archive cannot be read. Offsets are bytes from the start of the uncompressed archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A header block, an extended header or a sparse map breaks the rules.
    #[error("invalid tar header at byte {offset}: {what}")]
    InvalidHeader {
        /// Start of the offending header block.
        offset: u64,
        /// The rule that was broken.
        what: &'static str,
    },
    /// The archive ends inside a header, an extended header or a content.
    #[error("tar ends unexpectedly at byte {offset}")]
    UnexpectedEof {
        /// Where the bytes ended.
        offset: u64,
    },
    /// An extended header, a long name or a sparse map is larger than [`Limits`] allows.
    #[error("tar header at byte {offset} is too long: {what}")]
    TooLong {
        /// Start of the offending header block.
        offset: u64,
        /// What was too long.
        what: &'static str,
    },
    /// More members than [`Limits`] allows.
    #[error("tar has more than {0} members")]
    TooManyMembers(u64),
    /// The input could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// `name` as a relative path in normal form: no leading slash, no empty or `.` components.
///
/// `None` when nothing is left, or when a component is `..` or the name holds a NUL byte: such names are read
/// differently by different extractors and are never used to find a file (`docs/formats/tar-diff.md`, path rules).
pub fn clean_path(name: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len());
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            _ if part.contains(&0) => return None,
            _ => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(part);
            }
        }
    }
    (!out.is_empty()).then_some(out)
}

/// `name` with `..` resolved by text alone and stopping at the top, as a careless extractor would: the path a `..` name
/// might touch. Without slashes at its ends, empty for the top itself.
pub fn lexical_path(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_paths() {
        for (name, want) in [
            (&b"a/b"[..], Some(&b"a/b"[..])),
            (b"./a//b/", Some(b"a/b")),
            (b"/etc/x", Some(b"etc/x")),
            (b"a/./b", Some(b"a/b")),
            (b"", None),
            (b"/", None),
            (b".", None),
            (b"a/../b", None),
            (b"../x", None),
            (b"a\0b", None),
            (b"\xff/\xfe", Some(b"\xff/\xfe")),
        ] {
            assert_eq!(clean_path(name).as_deref(), want, "{name:?}");
        }
        assert_eq!(lexical_path(b"../a/../../b/./c"), b"b/c");
    }
}
