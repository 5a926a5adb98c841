//! Which old files may help with a file of the target.

use super::scan::{NewMember, Source};
use super::{DiffError, Options, pool};
use crate::ReadAt;
use crate::matching::pairing::{Names, OldName};
use crate::matching::sample::{self, SampleIndex, Sampler, Votes};
use crate::observe::{Observer, Stage};

/// Old files below this size may join a text by name alone.
const SMALL: u64 = 1 << 20;

/// A further old file joins if it has one in so many of the samples of a new file that no other has.
const JOINS: u32 = 20;

/// A run of an old file that is part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Number of the old member.
    pub member: usize,
    pub offset: u64,
    pub len: u64,
}

/// Knows old files by name and by likeness.
pub(super) struct Candidates<'a> {
    source: &'a Source<'a>,
    /// Members that are files with a path.
    files: Vec<usize>,
    names: Names<'a>,
    samples: Option<SampleIndex>,
    most: usize,
    max_text: u64,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(source: &'a Source<'a>, options: &Options) -> Self {
        let files: Vec<usize> = (0..source.paths.len()).filter(|&i| !source.paths[i].is_empty()).collect();
        let names: Vec<OldName<'a>> = files
            .iter()
            .map(|&i| OldName {
                paths: source.paths[i].iter().map(Vec::as_slice).collect(),
                size: source.old.members[i].len,
            })
            .collect();
        Candidates {
            source,
            files,
            names: Names::new(&names),
            samples: None,
            most: if options.effort.level() >= 7 { 6 } else { 4 },
            max_text: text_budget(options),
        }
    }

    /// Samples all old files.
    pub(super) fn sample(&mut self, options: &Options, observer: &dyn Observer) -> Result<(), DiffError> {
        let total: u64 = self.files.iter().map(|&i| self.source.old.members[i].len).sum();
        let density = sample::density(total);
        let done = std::sync::atomic::AtomicU64::new(0);
        let taken = pool::run(self.files.len(), options.threads, |i| {
            let content = self.source.old.content(&self.source.old.members[self.files[i]]);
            let mut sampler = Sampler::new(i as u32, density);
            let (mut at, mut buf) = (0, vec![0; content.size().min(1 << 17) as usize]);
            while at < content.size() {
                if observer.cancelled() {
                    return Err(DiffError::Cancelled);
                }
                let n = (content.size() - at).min(buf.len() as u64) as usize;
                content.read_exact_at(at, &mut buf[..n]).map_err(DiffError::Read)?;
                sampler.update(&buf[..n]);
                at += n as u64;
            }
            let before = done.fetch_add(content.size(), std::sync::atomic::Ordering::Relaxed);
            observer.progress(Stage::Index, before + content.size(), total);
            Ok(sampler.finish())
        });
        let mut samples = Vec::new();
        for s in taken {
            samples.extend(s?);
        }
        self.samples = Some(SampleIndex::new(samples, density));
        Ok(())
    }

    /// Old runs for a text to match `content` with, which belongs to `member`.
    pub(super) fn text(&self, member: &NewMember, content: &[u8]) -> Vec<Segment> {
        let paths: Vec<&[u8]> = member.paths.iter().map(Vec::as_slice).collect();
        let named = self.names.candidates(&paths, member.content_len, self.most);
        let first = named.first().map(|&i| i as u32);
        let votes = match &self.samples {
            Some(samples) => samples.cover(content, first, self.most, |n| (n / JOINS).max(2)).0,
            None => Vec::new(),
        };
        let voted = |m: usize| votes.iter().find(|v| self.files[v.file as usize] == m);
        let mut chosen: Vec<usize> = votes.iter().map(|v| self.files[v.file as usize]).collect();
        if let (true, Some(&first)) = (chosen.is_empty(), named.first()) {
            chosen.push(self.files[first]);
        }
        // Small files may be too short for samples: a second name costs little.
        if votes.iter().all(|v| v.votes == 0) {
            let others = named.iter().skip(1).map(|&i| self.files[i]);
            chosen.extend(others.filter(|&m| self.source.old.members[m].len < SMALL));
        }
        self.fit(&chosen, content.len() as u64, voted)
    }

    /// Cuts candidates down to the budget: whole files while they fit, else the windows with most votes.
    fn fit<'v>(
        &self,
        chosen: &[usize],
        wanted: u64,
        voted: impl Fn(usize) -> Option<&'v Votes>,
    ) -> Vec<Segment> {
        // Sorting a large text for a small piece would cost more than it can save.
        let mut left = self.max_text.min((4 << 20) + wanted * 8);
        let mut text = Vec::new();
        for &member in chosen {
            let size = self.source.old.members[member].len;
            if size <= left {
                text.push(Segment { member, offset: 0, len: size });
                left -= size;
            } else if let Some(votes) = voted(member) {
                for w in best_windows(votes, size, left) {
                    left -= w.end - w.start;
                    text.push(Segment { member, offset: w.start, len: w.end - w.start });
                }
            }
        }
        text
    }
}

/// Bytes of old text that one search may use: sorting takes seven times that, on each thread.
pub(super) fn text_budget(options: &Options) -> u64 {
    (options.memory / 18).clamp(1 << 20, i32::MAX as u64 - 64)
}

/// The windows of a file with most votes and their neighbours, ascending, joined, at most `budget` bytes.
fn best_windows(votes: &Votes, size: u64, budget: u64) -> Vec<std::ops::Range<u64>> {
    let mut order: Vec<(u32, u32)> = votes.places.iter().map(|&(place, n)| (n, place)).collect();
    order.sort_by_key(|&(n, place)| (std::cmp::Reverse(n), place));
    let around = order.iter().flat_map(|&(_, p)| [p, p.saturating_add(1), p.saturating_sub(1)]);
    let mut taken = std::collections::BTreeSet::new();
    let mut left = budget;
    for place in around {
        let range = SampleIndex::place_range(place);
        let len = range.end.min(size).saturating_sub(range.start);
        if len > left {
            break;
        }
        if len > 0 && taken.insert(place) {
            left -= len;
        }
    }
    let mut out: Vec<std::ops::Range<u64>> = Vec::new();
    for place in taken {
        let range = SampleIndex::place_range(place);
        match out.last_mut().filter(|w| w.end == range.start) {
            Some(w) => w.end = range.end.min(size),
            None => out.push(range.start..range.end.min(size)),
        }
    }
    out
}
