//! From sources and a target to a delta.
//!
//! Old archives and target are read once. Each member of the target gets a reference for its header, and its content
//! is all of an old file, or new bytes to be coded from old text. Files are coded on several threads, a window of the
//! target at a time, and joined to blocks in order: the delta depends on inputs and options alone.

mod candidates;
mod expand;
mod join;
mod part;
mod payload;
mod program;
mod scan;
mod squeeze;

use std::io::{self, Write};
use std::num::NonZeroUsize;

use super::container::Head;
use crate::delta::{DiffError, Effort, FileCounts, pool};
use crate::digest::Digest;
use crate::observe::{Observer, Stage};
use crate::{ReadAt, tar};

/// What a delta will be applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Base {
    /// The old archives, whose headers predict the new ones.
    #[default]
    Archives,
    /// The tree that extraction of the old archives leaves: headers are not there.
    Tree {
        /// Honour whiteouts of old archives.
        apply_whiteouts: bool,
        /// Use old files that are not world-readable as well.
        any_mode: bool,
    },
}

/// How a delta is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The work put into it.
    pub effort: Effort,
    /// Memory to aim at, in bytes. The delta depends on it.
    pub memory: u64,
    /// Threads for coding. The delta does not depend on it.
    pub threads: NonZeroUsize,
    /// What it will be applied to.
    pub base: Base,
    /// Bounds for the archives.
    pub limits: tar::Limits,
    /// Parts of the writer, to measure what each is worth.
    pub parts: Parts,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            effort: Effort::default(),
            memory: 1 << 30,
            threads: NonZeroUsize::MIN,
            base: Base::default(),
            limits: tar::Limits::default(),
            parts: Parts::default(),
        }
    }
}

/// Parts of the writer that can be left out. The delta is then larger; the format is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Headers are predicted from old headers.
    pub old_headers: bool,
    /// Deflate streams are inflated and rebuilt.
    pub deflate: bool,
    /// Deflate streams of encoders that are not known are inflated as well, and their tokens sent.
    pub tokens: bool,
    /// Streams of xz and zstd are expanded and rebuilt.
    pub slow_formats: bool,
    /// Old files are found by likeness too, not by name alone.
    pub likeness: bool,
    /// Small streams are coded with mixed contexts.
    pub mixing: bool,
    /// Literals are grouped by kind.
    pub classes: bool,
    /// References of programs are predicted.
    pub programs: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Parts {
            old_headers: true,
            deflate: true,
            tokens: true,
            slow_formats: true,
            likeness: true,
            mixing: true,
            classes: true,
            programs: true,
        }
    }
}

/// What a delta turned out to be.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its head.
    pub head: Head,
    /// Members of the target.
    pub members: u64,
    /// Regular files of the target with content.
    pub files: FileCounts,
    /// Packed streams that are rebuilt.
    pub rebuilt_streams: u64,
    /// Packed streams that no known encoder makes, and that are left as they are.
    pub other_streams: u64,
}

/// Writes to `out` a delta that turns the archives `old` into the tar `new`.
///
/// All archives are uncompressed. The compressed blocks of the delta are held in memory until all are made, since the
/// head in front lists them.
///
/// # Errors
/// See [`DiffError`]; `out` has then received nothing, or a part of a delta.
pub fn diff(
    old: &[&dyn ReadAt],
    new: &dyn ReadAt,
    out: &mut impl Write,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report, DiffError> {
    let source = scan::source(old, options, observer)?;
    let target = scan::target(new, &source, options, observer)?;
    let mut finder = candidates::Candidates::new(&source, options);
    if target.members.iter().any(|m| matches!(m.content, scan::Content::Code)) && options.parts.likeness {
        finder.sample(options, observer)?;
    }
    let coder = part::Coder::new(new, &source, &finder, options, observer);
    let mut join = join::Join::new(new, &source, options);
    for window in target.windows() {
        let members = &target.members[window];
        let work: Vec<&scan::NewMember> = members.iter().filter(|m| m.is_coded()).collect();
        let coded = pool::run(work.len(), options.threads, |i| coder.code(work[i]));
        let mut coded = coded.into_iter();
        for member in members {
            if observer.cancelled() {
                return Err(DiffError::Cancelled);
            }
            let parts = if member.is_coded() { coded.next().transpose()? } else { None };
            join.member(member, parts)?;
            observer.progress(Stage::Diff, member.end(), new.size());
        }
    }
    join.rest(target.end)?;
    let (head, blocks, tally) = join.finish(target.digest)?;
    let write = |out: &mut dyn Write| -> io::Result<()> {
        out.write_all(&head.to_bytes())?;
        blocks.iter().try_for_each(|b| out.write_all(b))
    };
    write(out).map_err(DiffError::Write)?;
    observer.progress(Stage::Diff, new.size(), new.size());
    Ok(Report {
        head,
        members: target.members.len() as u64,
        files: tally.files,
        rebuilt_streams: tally.rebuilt,
        other_streams: tally.other,
    })
}

impl Report {
    /// sha256 of the target: what applying the delta must give.
    pub fn digest(&self) -> Digest {
        self.head.digest
    }
}
