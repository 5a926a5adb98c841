//! From a delta and its sources to the target (`docs/formats/native-delta.md`, section 6).

mod base;
mod block;
mod operations;
mod program;
mod text;

pub use base::Sources;

use std::io::{Read, Write};
use std::num::NonZeroUsize;

use super::container::{Head, read_block, skip_sections};
use super::exec::Machine;
use super::streams::{self, StreamId, StreamSize};
use super::{Error, Limits, packed};
use crate::digest::{Digest, Hashing};
use crate::observe::{Observer, Stage};

/// What applying a delta came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Bytes written.
    pub output: u64,
    /// sha256 of these, compared with what the delta declares.
    pub digest: Digest,
    /// Bytes of memory that the delta declares.
    pub memory: u64,
    /// Blocks.
    pub blocks: usize,
}

/// Rebuilds the target: reads `delta` once, front to back, and writes to `out`.
///
/// The sources are read first and compared with the digests of the delta; nothing is written before they all agree. With several `threads`, streams of blocks ahead are decoded beside the work on the present one. Memory is
/// what the delta declares, once more for each block ahead as far as `limits` allow, and a megabyte.
///
/// # Errors
/// See [`Error`]; `out` may then have received a part of the target.
pub fn apply(
    delta: impl Read,
    sources: Sources<'_>,
    out: &mut impl Write,
    limits: &Limits,
    threads: NonZeroUsize,
    observer: &dyn Observer,
) -> Result<Applied, Error> {
    let followed = follow(delta, sources, out, limits, threads, observer, &mut |_| {})?;
    let Head { size, digest, memory, blocks, .. } = followed.head;
    Ok(Applied { output: size, digest, memory, blocks: blocks.len() })
}

/// What one item took of the streams.
#[derive(Debug, Clone)]
pub(crate) struct ItemUse {
    /// Number of the block, from 0.
    pub block: usize,
    /// Where in the target it ends.
    pub end: u64,
    /// Bytes of each stream.
    pub taken: [u64; StreamId::ALL.len()],
    /// Packed streams rebuilt.
    pub rebuilt: u64,
    /// Whether it takes content from old files.
    pub copies: bool,
    /// Whether it is a part.
    pub codes: bool,
}

/// A delta that was carried out.
pub(crate) struct Followed {
    pub head: Head,
    pub streams: Vec<StreamSize>,
    /// Bytes of the delta.
    pub bytes: u64,
}

/// Applies a delta, and shows each item to `see`.
pub(crate) fn follow(
    delta: impl Read,
    sources: Sources<'_>,
    out: &mut impl Write,
    limits: &Limits,
    threads: NonZeroUsize,
    observer: &dyn Observer,
    see: &mut dyn FnMut(ItemUse),
) -> Result<Followed, Error> {
    let mut delta = Counted { inner: delta, bytes: 0 };
    let head = Head::read(&mut delta, limits)?;
    if let Some(name) = head.encoders.iter().find(|name| !knows(name)) {
        return Err(Error::NeedsEncoder(name.clone()));
    }
    let base = base::Base::open(sources, &head, limits, observer)?;
    let mut out = Hashing::new(out);
    let mut work = block::Work::new(&base, &head, observer, see);
    let ahead = ahead(&head, limits, threads);
    let mut sizes = Vec::new();
    let mut done = 0;
    while done < head.blocks.len() {
        let count = ahead.min(head.blocks.len() - done);
        let mut blocks = Vec::with_capacity(count);
        for number in done..done + count {
            let block = read_block(&mut delta, &head, number)?;
            let rows = streams::sizes(&block, &head, number)?;
            work.budget.streams(&rows, head.blocks[number].output)?;
            sizes.extend(rows);
            blocks.push(block);
        }
        let decoded = split_all(&blocks, &head, done);
        drop(blocks);
        for (i, streams) in decoded.into_iter().enumerate() {
            work.block(&streams?, done + i, &mut out)?;
        }
        done += count;
    }
    skip_sections(&mut delta)?;
    out.flush().map_err(Error::Write)?;
    let (_, actual, output) = out.finish();
    if actual != head.digest {
        return Err(Error::WrongResult { wanted: head.digest, actual });
    }
    observer.progress(Stage::Apply, output, output);
    Ok(Followed { bytes: delta.bytes, head, streams: sizes })
}

/// Whether this program can do what a name of the head stands for (sections 8.7 and 9.1).
fn knows(name: &str) -> bool {
    packed::has(name) || Machine::ALL.iter().any(|m| m.name() == name)
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// How many blocks may be decoded at once.
fn ahead(head: &Head, limits: &Limits, threads: NonZeroUsize) -> usize {
    let fit = limits.max_memory / head.memory.max(1);
    threads.get().min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
}

/// Decodes the streams of some blocks, each on a thread of its own.
fn split_all(blocks: &[Vec<u8>], head: &Head, first: usize) -> Vec<Result<streams::Streams, Error>> {
    if let [block] = blocks {
        return vec![streams::split(block, head, first)];
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = blocks
            .iter()
            .enumerate()
            .map(|(i, block)| scope.spawn(move || streams::split(block, head, first + i)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
