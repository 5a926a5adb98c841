//! What each member of the new tar costs in a delta.

use std::io::{self, BufReader, Read, Write};

use super::{Error, Limits, Op, OpCounts, OpReader, Version};
use crate::compress::{FrameEnd, ZstdReader, ZstdWriter, ZstdWriterOptions};
use crate::delta::Cost;
use crate::observe::Observer;
use crate::source::Source;
use crate::tar::{self, Kind};
use crate::{ReadAt, Section, digest};

/// One member of the new tar and its part of the delta.
#[derive(Debug, Clone)]
pub struct MemberCost {
    /// Name as written in the tar.
    pub path: Vec<u8>,
    /// Bytes of content.
    pub size: u64,
    /// How it is made.
    pub cost: Cost,
    /// Estimated bytes of the delta: what the member's operations add to a compressed stream, scaled so that all
    /// members together give the delta's exact size.
    pub delta_bytes: u64,
    /// Bytes of its operations before compression.
    pub stream_bytes: u64,
    /// Bytes of header, padding and content sent as they are.
    pub literal: u64,
    /// Bytes copied unchanged.
    pub copied: u64,
    /// Bytes copied with corrections.
    pub added: u64,
    /// Bytes decoded from dictionary frames.
    pub patched: u64,
    /// Old files used, in order of first use.
    pub sources: Vec<Vec<u8>>,
}

/// The costs of one delta.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Format version.
    pub version: Version,
    /// Bytes of the delta.
    pub delta_bytes: u64,
    /// Bytes of the operation stream before compression.
    pub stream_bytes: u64,
    /// Operations.
    pub ops: OpCounts,
    /// Members in the order of the tar; the trailer last.
    pub members: Vec<MemberCost>,
}

/// Attributes every byte of `delta` to the member of the tar `new` that it helps to make.
///
/// `source` is asked only for the dictionaries of version 2 deltas.
///
/// # Errors
/// [`ExplainError::Mismatch`] and [`ExplainError::OtherArchive`] when the delta makes another tar, as far as that shows
/// without applying it.
pub fn explain(
    delta: impl Read,
    new: &dyn ReadAt,
    source: &dyn Source,
    limits: &Limits,
    observer: &dyn Observer,
) -> Result<Explanation, ExplainError> {
    let mut members = contents(new)?;
    let mut delta = digest::Hashing::new(delta);
    let mut ops = OpReader::new(&mut delta, *limits)?;
    let mut counts = OpCounts::default();
    let mut ledger = Ledger::new(&mut members)?;
    let mut path: Vec<u8> = Vec::new();
    while let Some(op) = ops.next_op()? {
        if observer.cancelled() {
            return Err(Error::Cancelled.into());
        }
        counts.count(&op);
        ledger.control(&op)?;
        match op {
            Op::Open(p) => path = p,
            Op::Seek(_) => {}
            Op::Copy(n) => ledger.output(n, &path, |m| &mut m.copied)?,
            Op::Data(_) => loop {
                let chunk = ops.fill_payload()?;
                if chunk.is_empty() {
                    break;
                }
                let at = ledger.made;
                let n = ledger.payload(chunk, None, |m| &mut m.literal)?;
                if !same(new, at, &chunk[..n])? {
                    return Err(ExplainError::OtherArchive { offset: at });
                }
                ops.consume_payload(n);
            },
            Op::Add(_) => loop {
                let chunk = ops.fill_payload()?;
                if chunk.is_empty() {
                    break;
                }
                let n = ledger.payload(chunk, Some(&path), |m| &mut m.added)?;
                ops.consume_payload(n);
            },
            Op::ZstdDict(0) => {}
            Op::ZstdDict(n) => {
                let mut frame = vec![0; usize::try_from(n).unwrap_or(usize::MAX).min(1 << 30)];
                ops.payload().read_exact(&mut frame).map_err(Error::ReadDelta)?;
                let made = decoded_len(&frame, &path, source, limits)?;
                ledger.opaque(&frame)?;
                ledger.output(made, &path, |m| &mut m.patched)?;
            }
        }
    }
    let version = ops.version();
    let stream_bytes = ops.position();
    drop(ops);
    let costs = ledger.finish(new.size())?;
    io::copy(&mut delta, &mut io::sink()).map_err(Error::ReadDelta)?;
    let delta_bytes = delta.passed();
    scale(&mut members, &costs, delta_bytes);
    Ok(Explanation {
        version,
        delta_bytes,
        stream_bytes,
        ops: counts,
        members: members.into_iter().map(|m| m.cost).collect(),
    })
}

/// Why a delta could not be explained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The delta cannot be read.
    #[error(transparent)]
    Delta(#[from] Error),
    /// The new tar cannot be read.
    #[error("new archive: {0}")]
    New(#[from] tar::Error),
    /// The delta makes another tar: its literal bytes are not the archive's.
    #[error("delta does not make the new archive: they differ behind byte {offset}")]
    OtherArchive {
        /// Where the literal bytes begin that are not there.
        offset: u64,
    },
    /// The delta makes a tar of another size.
    #[error("delta makes a tar of {made} bytes, the new archive has {wanted}")]
    Mismatch {
        /// Bytes the delta gives, as far as it was followed.
        made: u64,
        /// Bytes of the archive.
        wanted: u64,
    },
}

struct Member {
    /// Offset in the new tar where it ends.
    end: u64,
    cost: MemberCost,
}

/// Members of the new tar, then its trailer.
fn contents(new: &dyn ReadAt) -> Result<Vec<Member>, ExplainError> {
    let input = BufReader::with_capacity(1 << 16, Section::whole(new).reader());
    let mut reader = tar::Reader::new(input, tar::Limits::default());
    let mut members: Vec<Member> = Vec::new();
    let blank = |path: Vec<u8>, size, cost| MemberCost {
        path,
        size,
        cost,
        delta_bytes: 0,
        stream_bytes: 0,
        literal: 0,
        copied: 0,
        added: 0,
        patched: 0,
        sources: Vec::new(),
    };
    let mut end = 0;
    while let Some(entry) = reader.next_entry()? {
        if let Some(last) = members.last_mut() {
            last.end = entry.offset;
        }
        let cost = match entry.kind {
            Kind::Regular | Kind::GnuSparse | Kind::Other(_) if entry.content_len > 0 => Cost::Literal,
            _ => Cost::Metadata,
        };
        end = (entry.content_offset + entry.content_len).next_multiple_of(tar::BLOCK).min(new.size());
        members.push(Member { end, cost: blank(entry.name, entry.content_len, cost) });
    }
    if let Some(last) = members.last_mut() {
        last.end = end;
    }
    members.push(Member { end: u64::MAX, cost: blank(Vec::new(), new.size() - end, Cost::Trailer) });
    Ok(members)
}

/// Books operations on members while the new tar grows.
struct Ledger<'m> {
    members: &'m mut [Member],
    at: usize,
    made: u64,
    /// The operations of one member after the other, compressed: the growth is a member's cost.
    meter: ZstdWriter<'static, Meter>,
    costs: Vec<u64>,
}

#[derive(Default)]
struct Meter(u64);

impl Write for Meter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'m> Ledger<'m> {
    fn new(members: &'m mut [Member]) -> Result<Self, Error> {
        let options = ZstdWriterOptions { level: 6, window_log: Some(23), ..Default::default() };
        let meter = ZstdWriter::new(Meter::default(), options).map_err(Error::Write)?;
        Ok(Ledger { costs: vec![0; members.len()], members, at: 0, made: 0, meter })
    }

    /// Moves on to the member that the next byte belongs to; what was metered so far is the last one's.
    fn settle(&mut self) -> Result<(), Error> {
        while self.made >= self.members[self.at].end {
            let before = self.costs[..self.at].iter().sum::<u64>();
            self.meter.flush().map_err(Error::Write)?;
            self.costs[self.at] = self.meter.get_ref().0 - before;
            self.at += 1;
        }
        Ok(())
    }

    /// Opcode and operand.
    fn control(&mut self, op: &Op) -> Result<(), Error> {
        self.settle()?;
        let (code, operand, path): (u8, u64, &[u8]) = match op {
            Op::Data(n) => (Op::DATA, *n, &[]),
            Op::Open(path) => (Op::OPEN, path.len() as u64, path),
            Op::Copy(n) => (Op::COPY, *n, &[]),
            Op::Add(n) => (Op::ADD, *n, &[]),
            Op::Seek(n) => (Op::SEEK, *n, &[]),
            Op::ZstdDict(n) => (Op::ZSTD_DICT, *n, &[]),
        };
        let used = (64 - operand.leading_zeros()).div_ceil(7).max(1) as usize;
        let mut bytes = vec![code];
        bytes.extend((0..used).map(|i| (operand >> (7 * i)) as u8 | if i + 1 < used { 0x80 } else { 0 }));
        bytes.extend_from_slice(path);
        self.opaque(&bytes)
    }

    /// Stream bytes that stand for no output of their own.
    fn opaque(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.members[self.at].cost.stream_bytes += bytes.len() as u64;
        self.meter.write_all(bytes).map_err(Error::Write)
    }

    /// Payload that stands for as many bytes of output; returns how many were booked.
    fn payload(
        &mut self,
        chunk: &[u8],
        source: Option<&[u8]>,
        field: impl Fn(&mut MemberCost) -> &mut u64,
    ) -> Result<usize, ExplainError> {
        self.settle()?;
        let room = self.members[self.at].end - self.made;
        let n = (chunk.len() as u64).min(room);
        self.opaque(&chunk[..n as usize])?;
        self.book(n, source, &field);
        Ok(n as usize)
    }

    /// Output without stream bytes.
    fn output(
        &mut self,
        mut n: u64,
        source: &[u8],
        field: impl Fn(&mut MemberCost) -> &mut u64,
    ) -> Result<(), ExplainError> {
        while n > 0 {
            self.settle()?;
            let part = n.min(self.members[self.at].end - self.made);
            self.book(part, Some(source), &field);
            n -= part;
        }
        Ok(())
    }

    fn book(&mut self, n: u64, source: Option<&[u8]>, field: &impl Fn(&mut MemberCost) -> &mut u64) {
        let cost = &mut self.members[self.at].cost;
        *field(cost) += n;
        if let Some(source) = source
            && !cost.sources.iter().any(|s| s == source)
        {
            cost.sources.push(source.to_vec());
        }
        self.made = self.made.saturating_add(n);
    }

    /// The metered cost of each member.
    fn finish(mut self, wanted: u64) -> Result<Vec<u64>, ExplainError> {
        if self.made != wanted {
            return Err(ExplainError::Mismatch { made: self.made, wanted });
        }
        self.settle()?;
        self.meter.flush().map_err(Error::Write)?;
        let before = self.costs[..self.at].iter().sum::<u64>();
        self.costs[self.at] = self.meter.get_ref().0 - before;
        for m in self.members.iter_mut().map(|m| &mut m.cost).filter(|c| c.cost == Cost::Literal) {
            // Headers are literal in any case: content counts.
            m.cost = match (m.added, m.patched, m.copied) {
                (0, 0, 0) => Cost::Literal,
                (0, 0, copied) if copied >= m.size => Cost::Copied,
                _ => Cost::Changed,
            };
        }
        Ok(self.costs)
    }
}

/// Spreads the delta's size over the members in proportion to what was metered; no byte is lost to rounding.
fn scale(members: &mut [Member], costs: &[u64], delta_bytes: u64) {
    let total: u64 = costs.iter().sum::<u64>().max(1);
    let (mut metered, mut given) = (0u64, 0u64);
    for (member, cost) in members.iter_mut().zip(costs) {
        metered += cost;
        let upto = (u128::from(delta_bytes) * u128::from(metered) / u128::from(total)) as u64;
        member.cost.delta_bytes = upto - given;
        given = upto;
    }
}

/// Whether `new` holds `bytes` at `offset`.
fn same(new: &dyn ReadAt, offset: u64, bytes: &[u8]) -> Result<bool, ExplainError> {
    let there = Section::new(new, offset, bytes.len() as u64).to_vec().map_err(tar::Error::Io)?;
    Ok(there == bytes)
}

/// How many bytes a dictionary frame gives.
fn decoded_len(frame: &[u8], path: &[u8], source: &dyn Source, limits: &Limits) -> Result<u64, Error> {
    let mut file = source.open_path(path).map_err(|error| Error::Source { path: path.to_vec(), error })?;
    if file.size() > limits.max_dictionary {
        let (size, limit) = (file.size(), limits.max_dictionary);
        return Err(Error::DictionaryTooLarge { path: path.to_vec(), size, limit });
    }
    let failed = |error| Error::ReadSource { path: path.to_vec(), error };
    let mut dictionary = Vec::new();
    file.read_to_end(&mut dictionary).map_err(failed)?;
    let frame = ZstdReader::with_prefix(frame, limits.window_log(), FrameEnd::Stop, &dictionary);
    io::copy(&mut frame.take(limits.max_output), &mut io::sink()).map_err(failed)
}
