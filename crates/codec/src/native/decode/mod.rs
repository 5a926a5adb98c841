//! From a delta and its sources to the target (`docs/formats/native-delta.md`, section 6).

mod base;
mod block;
mod text;

pub use base::Sources;

use std::io::{Read, Write};
use std::num::NonZeroUsize;

use super::container::{Head, read_block, skip_sections};
use super::{Error, Limits, streams};
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
    mut delta: impl Read,
    sources: Sources<'_>,
    out: &mut impl Write,
    limits: &Limits,
    threads: NonZeroUsize,
    observer: &dyn Observer,
) -> Result<Applied, Error> {
    let head = Head::read(&mut delta, limits)?;
    let base = base::Base::open(sources, &head, limits, observer)?;
    let mut out = Hashing::new(out);
    let mut work = block::Work::new(&base, &head, observer);
    let ahead = ahead(&head, limits, threads);
    let mut done = 0;
    while done < head.blocks.len() {
        let count = ahead.min(head.blocks.len() - done);
        let mut blocks = Vec::with_capacity(count);
        for number in done..done + count {
            blocks.push(read_block(&mut delta, &head, number)?);
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
    Ok(Applied { output, digest: actual, memory: head.memory, blocks: head.blocks.len() })
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
