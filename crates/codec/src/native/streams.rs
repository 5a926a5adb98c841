//! The streams of a block (`docs/formats/native-delta.md`, section 5).

use std::fmt;

use super::Error;
use super::container::{Head, check};
use super::deflate::coded;
use super::entropy::{self, Method};
use super::exec::Machine;
use super::numbers::{Fields, put};

/// What a stream holds; the numbers are those of section 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StreamId {
    /// Items of the block, and what parts are made of.
    Plan = 0,
    /// References and fields of tar headers.
    Headers = 1,
    /// Names and other bytes of headers.
    Names = 2,
    /// Lengths of literals.
    LiteralLengths = 3,
    /// Lengths of copies.
    CopyLengths = 4,
    /// Where copies start.
    Addresses = 5,
    /// Distances between corrections.
    Gaps = 6,
    /// Corrections.
    Corrections = 7,
    /// Literals that are text.
    Text = 8,
    /// Other literals.
    Binary = 9,
    /// Literals that are compressed already.
    Dense = 10,
    /// References of executables.
    References = 11,
    /// Tokens of deflate streams.
    Tokens = 12,
}

impl StreamId {
    /// All streams, in the order of their numbers.
    pub const ALL: [StreamId; 13] = [
        StreamId::Plan,
        StreamId::Headers,
        StreamId::Names,
        StreamId::LiteralLengths,
        StreamId::CopyLengths,
        StreamId::Addresses,
        StreamId::Gaps,
        StreamId::Corrections,
        StreamId::Text,
        StreamId::Binary,
        StreamId::Dense,
        StreamId::References,
        StreamId::Tokens,
    ];

    /// The name of the format page.
    pub fn name(self) -> &'static str {
        match self {
            StreamId::Plan => "plan",
            StreamId::Headers => "headers",
            StreamId::Names => "names",
            StreamId::LiteralLengths => "literal-lengths",
            StreamId::CopyLengths => "copy-lengths",
            StreamId::Addresses => "addresses",
            StreamId::Gaps => "gaps",
            StreamId::Corrections => "corrections",
            StreamId::Text => "text",
            StreamId::Binary => "binary",
            StreamId::Dense => "dense",
            StreamId::References => "references",
            StreamId::Tokens => "tokens",
        }
    }

    /// The stream of literals with a class (section 6.4).
    pub(crate) fn of_class(class: u64) -> Option<Self> {
        [StreamId::Text, StreamId::Binary, StreamId::Dense].get(usize::try_from(class).ok()?).copied()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The decoded streams of a block while they are written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Streams {
    all: [Vec<u8>; StreamId::ALL.len()],
}

impl Streams {
    pub(crate) fn get(&mut self, id: StreamId) -> &mut Vec<u8> {
        &mut self.all[id as usize]
    }

    pub(crate) fn bytes(&self, id: StreamId) -> &[u8] {
        &self.all[id as usize]
    }

    /// Bytes of all streams.
    pub(crate) fn len(&self) -> usize {
        self.all.iter().map(Vec::len).sum()
    }

    /// Appends what `other` holds.
    pub(crate) fn append(&mut self, other: &Streams) {
        for (to, from) in self.all.iter_mut().zip(&other.all) {
            to.extend_from_slice(from);
        }
    }
}

/// A compressed stream as it stands in a block.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub id: StreamId,
    pub method: Method,
    pub decoded: u64,
    pub bytes: Vec<u8>,
}

/// Joins streams to the bytes of a block and their check.
pub(crate) fn join(streams: &[Encoded]) -> (Vec<u8>, [u8; super::container::CHECK_LEN]) {
    let mut out = Vec::new();
    put(&mut out, streams.len() as u64);
    for s in streams {
        put(&mut out, s.id as u64);
        put(&mut out, s.method.number());
        put(&mut out, s.decoded);
        put(&mut out, s.bytes.len() as u64);
    }
    streams.iter().for_each(|s| out.extend_from_slice(&s.bytes));
    let check = check(&out);
    (out, check)
}

/// One stream as the table of a block lists it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub id: StreamId,
    pub method: Method,
    pub decoded: u64,
    pub encoded: &'a [u8],
}

/// Reads the table of a block (section 5.1). What its streams take decoded is counted against `head.memory`.
pub(crate) fn table<'a>(block: &'a [u8], head: &Head) -> Result<Vec<Row<'a>>, Error> {
    let mut fields = Fields::new(block, "table of streams");
    let count = fields.at_most(StreamId::ALL.len() as u64, "number of streams")?;
    let mut rows: Vec<(StreamId, Method, u64, u64)> = Vec::new();
    let mut memory = block.len() as u64;
    for _ in 0..count {
        let number = fields.number()?;
        let id = usize::try_from(number).ok().and_then(|n| StreamId::ALL.get(n)).copied();
        let id = id.filter(|&id| match id {
            StreamId::References => Machine::ALL.iter().any(|m| head.lists(m.name())),
            StreamId::Tokens => head.lists(coded::NAME),
            _ => true,
        });
        let id = id.ok_or(Error::Unknown { what: "stream", value: number })?;
        if rows.last().is_some_and(|r| r.0 >= id) {
            return Err(Error::Contradiction("streams are not in order"));
        }
        let method = Method::of(fields.number()?)?;
        let decoded = fields.at_most(head.memory, "length of a stream")?;
        let encoded = fields.at_most(block.len() as u64, "length of a compressed stream")?;
        memory = memory.saturating_add(decoded);
        rows.push((id, method, decoded, encoded));
    }
    let working = rows.iter().map(|r| r.1.memory(r.2)).max().unwrap_or(0);
    if memory.saturating_add(working) > head.memory {
        return Err(Error::MemoryExceeded(head.memory));
    }
    let mut out = Vec::new();
    for (id, method, decoded, encoded) in rows {
        out.push(Row { id, method, decoded, encoded: fields.bytes(encoded as usize)? });
    }
    fields.end()?;
    Ok(out)
}

/// Decodes all streams of a block; `number` is its own, from 0.
pub(crate) fn split(block: &[u8], head: &Head, number: usize) -> Result<Streams, Error> {
    let mut streams = Streams::default();
    for row in table(block, head)? {
        let fail = |what| Error::Stream { block: number + 1, stream: row.id, what };
        *streams.get(row.id) =
            entropy::decode(row.method, row.encoded, row.decoded as usize).map_err(fail)?;
    }
    Ok(streams)
}

/// What a stream takes in a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSize {
    /// Number of the block, from 1.
    pub block: usize,
    /// Which stream.
    pub stream: StreamId,
    /// How it is compressed.
    pub method: Method,
    /// Bytes uncompressed.
    pub decoded: u64,
    /// Bytes in the delta.
    pub encoded: u64,
}

/// The streams of one block; `number` is its own, from 0.
pub(crate) fn sizes(block: &[u8], head: &Head, number: usize) -> Result<Vec<StreamSize>, Error> {
    let size = |row: &Row<'_>| StreamSize {
        block: number + 1,
        stream: row.id,
        method: row.method,
        decoded: row.decoded,
        encoded: row.encoded.len() as u64,
    };
    Ok(table(block, head)?.iter().map(size).collect())
}

/// What a delta says of itself, and the streams of its blocks without decoding them.
///
/// # Errors
/// Those of [`Head::read`], damaged blocks and sections.
pub fn inspect(
    delta: &mut impl std::io::Read,
    limits: &super::Limits,
) -> Result<(Head, Vec<StreamSize>), Error> {
    let head = Head::read(delta, limits)?;
    let mut all = Vec::new();
    for number in 0..head.blocks.len() {
        let block = super::container::read_block(delta, &head, number)?;
        all.extend(sizes(&block, &head, number)?);
    }
    super::container::skip_sections(delta)?;
    Ok((head, all))
}
