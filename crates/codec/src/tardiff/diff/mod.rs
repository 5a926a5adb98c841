//! Deciding which operations rebuild a new tar from old ones.
//!
//! The old layers are merged ([`crate::source::Tree`]), the new tar is read once for its table of contents, and every
//! regular file of it becomes either a copy of an identical old file, a job for the matcher, or literal bytes. Jobs run
//! on several threads; operations are written in order, so the delta depends on inputs and options alone.

mod candidates;
mod effort;
mod emit;
mod jobs;
mod scan;

use std::io::Write;
use std::num::NonZeroUsize;

use effort::means;

use super::{OpCounts, StreamOptions, Version};
use crate::delta::{DiffError, Effort, FileCounts};
use crate::digest::Digest;
use crate::observe::{Observer, Stage};
use crate::source::{MergeOptions, Tree};
use crate::{ReadAt, tar};

/// How a changed file is expressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Approximate matches: COPY and ADD.
    Bsdiff,
    /// One ZSTDDICT operation where both sizes allow it, else literal bytes.
    Zstd,
    /// ZSTDDICT where both sizes allow it, else approximate matches: upstream's `auto`.
    ZstdThenBsdiff,
    /// Approximate matches, or ZSTDDICT where that comes out clearly smaller.
    Smallest,
}

/// What to write and what it may cost.
#[derive(Debug, Clone)]
pub struct Options {
    /// How hard matching works. The fields below can differ from what [`Options::at`] gives them.
    pub effort: Effort,
    /// Format version; version 1 has no ZSTDDICT.
    pub version: Version,
    /// How changed files are expressed.
    pub method: Method,
    /// Compression of the operation stream.
    pub stream: StreamOptions,
    /// libzstd level of ZSTDDICT frames.
    pub patch_level: i32,
    /// Window of ZSTDDICT frames as log2 of bytes; by default it holds the old and the new file.
    pub patch_window_log: Option<u32>,
    /// Sizes from which on a file gets no suffix array but a table of blocks.
    pub max_suffix_size: u64,
    /// Sizes from which on a file gets no ZSTDDICT.
    pub max_patch_size: u64,
    /// Memory to aim at, in bytes. Smaller values make texts and pieces smaller; the delta depends on it.
    pub memory: u64,
    /// Threads for matching. The delta does not depend on it.
    pub threads: NonZeroUsize,
    /// Honour whiteouts of old layers.
    pub apply_whiteouts: bool,
    /// Use old files that are not world-readable as well.
    pub any_mode: bool,
    /// If not empty, only old files below one of these paths are sources.
    pub source_prefixes: Vec<Vec<u8>>,
    /// Old files below these paths are no sources.
    pub ignore_prefixes: Vec<Vec<u8>>,
    /// Use old files with names in UTF-8 alone: some readers refuse others.
    pub utf8_names: bool,
    /// Bounds for the archives.
    pub limits: tar::Limits,
}

impl Default for Options {
    fn default() -> Self {
        Options::at(Effort::default())
    }
}

impl Options {
    /// What `effort` stands for, with defaults for everything else.
    pub fn at(effort: Effort) -> Self {
        let means = means(effort);
        Options {
            effort,
            version: Version::V1,
            method: Method::Bsdiff,
            stream: StreamOptions {
                tuning: means.stream_tuning,
                ..StreamOptions::level(means.stream_level, 23)
            },
            patch_level: means.patch_level,
            patch_window_log: None,
            max_suffix_size: 256 << 20,
            max_patch_size: 512 << 20,
            memory: 1 << 30,
            threads: NonZeroUsize::MIN,
            apply_whiteouts: false,
            any_mode: false,
            source_prefixes: Vec::new(),
            ignore_prefixes: Vec::new(),
            utf8_names: false,
            limits: tar::Limits::default(),
        }
    }
}

/// What a delta turned out to be.
#[derive(Debug, Clone)]
pub struct Report {
    /// Digest of the new tar: its diff_id, and what applying the delta must give.
    pub digest: Digest,
    /// Bytes of the new tar.
    pub new_size: u64,
    /// Members of the new tar.
    pub members: u64,
    /// Regular files of the new tar with content.
    pub files: FileCounts,
    /// Old files the delta may open.
    pub sources: u64,
    /// Operations written.
    pub ops: OpCounts,
    /// Bytes of the operation stream before compression.
    pub stream_bytes: u64,
    /// Whether an old layer holds whiteouts.
    pub has_whiteouts: bool,
}

/// Writes to `out` a delta that turns the tree extracted from `old`, in order, into the tar `new`.
///
/// All archives are uncompressed. Time is about linear in their sizes but for changed files, whose old content is
/// suffix-sorted.
///
/// # Errors
/// See [`DiffError`]; `out` has then received a part of a delta.
pub fn diff(
    old: &[&dyn ReadAt],
    new: &dyn ReadAt,
    out: &mut impl Write,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report, DiffError> {
    let merge = MergeOptions { apply_whiteouts: options.apply_whiteouts, hash: true, limits: options.limits };
    let tree = Tree::merge(old, merge, observer)?;
    diff_from(&tree, old, new, out, options, observer)
}

/// As [`diff`], with `old` merged before: for several new archives. `tree` is what [`Tree::merge`] makes of `old` with
/// hashes; [`Options::apply_whiteouts`] then means nothing.
///
/// # Errors
/// As [`diff`].
pub fn diff_from(
    tree: &Tree,
    old: &[&dyn ReadAt],
    new: &dyn ReadAt,
    out: &mut impl Write,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report, DiffError> {
    let sources = candidates::sources(tree, old, options);
    let scan = scan::scan(new, &sources, options, observer)?;
    let planner = candidates::Planner::new(&sources, new, &scan, options, observer)?;
    let (ops, stream_bytes, files) = emit::emit(new, &scan, &planner, out, options, observer)?;
    observer.progress(Stage::Diff, new.size(), new.size());
    Ok(Report {
        digest: scan.digest,
        new_size: new.size(),
        members: scan.members,
        files,
        sources: sources.len() as u64,
        ops,
        stream_bytes,
        has_whiteouts: tree.has_whiteouts(),
    })
}
