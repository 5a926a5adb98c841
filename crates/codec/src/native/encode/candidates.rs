//! Which old files may help with a file of the target.

use super::scan::{NewMember, Source};
use super::{DiffError, Options};
use crate::Section;
use crate::delta::likeness::{self, SMALL, Segment};
use crate::matching::pairing::{Names, OldName};
use crate::matching::sample::SampleIndex;
use crate::observe::Observer;

/// A further old file joins if it has one in so many of the samples of a new file that no other has.
const JOINS: u32 = 20;

/// Knows old files by name and by likeness.
pub(super) struct Candidates<'a> {
    source: &'a Source<'a>,
    /// Members that are files with a path.
    files: Vec<usize>,
    names: Names<'a>,
    samples: Option<SampleIndex>,
    most: usize,
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
            most: if options.effort.number() >= 7 { 6 } else { 4 },
        }
    }

    /// Samples all old files.
    pub(super) fn sample(&mut self, options: &Options, observer: &dyn Observer) -> Result<(), DiffError> {
        let members = &self.source.old.members;
        let files: Vec<Section<'_>> =
            self.files.iter().map(|&i| self.source.old.content(&members[i])).collect();
        self.samples = Some(likeness::sample_all(&files, options.threads, observer)?);
        Ok(())
    }

    /// Old runs for a text of at most `most` bytes to match `content` with, which belongs to `member` and starts at
    /// `offset` in it.
    pub(super) fn text(&self, member: &NewMember, offset: u64, content: &[u8], most: u64) -> Vec<Segment> {
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
        let size = |member: usize| self.source.old.members[member].len;
        let wanted = offset..offset + content.len() as u64;
        let windows = |member, left| match voted(member) {
            Some(votes) => likeness::windows(votes, &wanted, size(member), left),
            None => Vec::new(),
        };
        let sizes = chosen.iter().map(|&member| (member, size(member)));
        likeness::fit(sizes, content.len() as u64, most, windows)
    }
}

/// Bytes of old text that one search may use: sorting takes seven times that, on each thread.
pub(super) fn text_budget(options: &Options) -> u64 {
    (options.memory / 18).clamp(1 << 20, i32::MAX as u64 - 64)
}

/// Bytes of a program that is coded as one, and of old text for it. Sorting is done for one at a time on each thread;
/// what a program refers to may be anywhere in it, so it is not cut.
pub(super) fn program_budget(options: &Options) -> u64 {
    (options.memory / 8).clamp(1 << 20, i32::MAX as u64 - 64)
}
