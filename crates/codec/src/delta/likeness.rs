//! The old text that a piece of new content is matched against.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Mutex;

use super::{DiffError, pool};
use crate::matching::sample::{self, SampleIndex, Sampler, Votes};
use crate::observe::{Observer, Stage};
use crate::{ReadAt, Section};

/// Old files below this size may join a text by name alone.
pub(crate) const SMALL: u64 = 1 << 20;

/// A run of an old file that is part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Number of the file, as the caller counts.
    pub file: usize,
    pub offset: u64,
    pub len: u64,
}

/// Cuts `chosen` old files, with their sizes, down to `budget` bytes of text for `wanted` bytes of new content: whole
/// files while they fit, else the `windows` of a file that fit what is left.
pub(crate) fn fit(
    chosen: impl IntoIterator<Item = (usize, u64)>,
    wanted: u64,
    budget: u64,
    windows: impl Fn(usize, u64) -> Vec<Range<u64>>,
) -> Vec<Segment> {
    // Sorting a large text for a small piece would cost more than it can save.
    let mut left = budget.min((4 << 20) + wanted * 8);
    let mut text = Vec::new();
    for (file, size) in chosen {
        let from = text.len();
        if size <= left {
            text.push(Segment { file, offset: 0, len: size });
        } else {
            let ranges = windows(file, left).into_iter();
            text.extend(ranges.map(|r| Segment { file, offset: r.start, len: r.end - r.start }));
        }
        left -= text[from..].iter().map(|s| s.len).sum::<u64>();
    }
    text
}

/// Windows of a file, ascending, joined, at most `budget` bytes: those with most votes and their neighbours, but from
/// half the budget on first those at the place that the new content has in its own file.
pub(crate) fn windows(votes: &Votes, wanted: &Range<u64>, size: u64, budget: u64) -> Vec<Range<u64>> {
    let margin = budget / 16;
    let near = wanted.start.saturating_sub(margin)..(wanted.end + margin).min(size);
    let near = SampleIndex::place(near.start)..SampleIndex::place(near.end) + 1;
    let half = ((budget / 2) >> SampleIndex::PLACE_LOG) as usize;
    let mut first = HashSet::new();
    let voted = votes.likeliest();
    let around = voted.clone().filter(|&p| first.insert(p)).take(half).chain(near).chain(voted);
    SampleIndex::windows(around, size, budget)
}

/// Samples all of `files`, each under its place in the list, on so many threads.
pub(crate) fn sample_all(
    files: &[Section<'_>],
    threads: NonZeroUsize,
    observer: &dyn Observer,
) -> Result<SampleIndex, DiffError> {
    let total: u64 = files.iter().map(ReadAt::size).sum();
    let density = sample::density(total);
    let done = Mutex::new(0);
    let taken = pool::run(files.len(), threads, |i| {
        let (content, size) = (&files[i], files[i].size());
        let mut sampler = Sampler::new(i as u32, density);
        let (mut at, mut buf) = (0, vec![0; size.min(1 << 17) as usize]);
        while at < size {
            if observer.cancelled() {
                return Err(DiffError::Cancelled);
            }
            let n = (size - at).min(buf.len() as u64) as usize;
            content.read_exact_at(at, &mut buf[..n]).map_err(DiffError::Read)?;
            sampler.update(&buf[..n]);
            at += n as u64;
        }
        // Reported under the lock, so that progress never goes back.
        let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
        *done += size;
        observer.progress(Stage::Index, *done, total);
        Ok(sampler.finish())
    });
    let samples = taken.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(SampleIndex::new(samples.concat(), density))
}
