//! Matching the files and writing the operations.

use std::io::{self, Write};

use super::candidates::{Plan, Planner, text_budget};
use super::effort::{Finding, means};
use super::jobs::{self, Memory, Work};
use super::scan::Scan;
use super::{DiffError, FileCounts, Method, Options};
use crate::compress::{self, ZstdWriter, ZstdWriterOptions};
use crate::delta::likeness::Segment;
use crate::matching::approx::{self, Match, Part, Prices, Search};
use crate::matching::block::BlockFinder;
use crate::matching::suffix::SuffixFinder;
use crate::matching::{Finder, common_prefix};
use crate::observe::{Observer, Stage};
use crate::tardiff::{MAX_WINDOW_LOG, OpCounts, OpWriter, StreamOptions};
use crate::{ReadAt, Section};

/// A run of old bytes at least this long that needs no correction is worth a COPY of its own.
const COPY_RUN: usize = 512;
/// Bytes of a block where a file is too large for a suffix array.
const LARGE_BLOCK: usize = 32;
/// Bytes of opcode and size of two operations, about.
const OP_COST: usize = 6;
/// A patch must be smaller than the estimate of what it replaces by this part of itself: the estimate is too high, since
/// the stream goes on with what it learned from other files.
const CLEARLY: usize = 5;
/// A file gets no patch if other changed files have more than this part of the samples of what is new in it, or if these
/// samples are too few to tell.
const SHARED: u32 = 8;
const ENOUGH_SAMPLES: u32 = 8;
/// libzstd level of that estimate, at most.
const ESTIMATE_LEVEL: i32 = 9;
/// Bytes of a delta without operations: what an estimate by a delta of its own has too much.
const EMPTY_DELTA: usize = 21;
/// Bytes handled at once while writing.
const CHUNK: usize = 1 << 20;

/// Writes all operations.
pub(super) fn emit<W: Write>(
    new: &dyn ReadAt,
    scan: &Scan,
    planner: &Planner<'_>,
    out: &mut W,
    options: &Options,
    observer: &dyn Observer,
) -> Result<(OpCounts, u64, FileCounts), DiffError> {
    let matcher = Matcher::new(new, scan, planner, options, observer);
    jobs::run(&matcher, options.threads, options.memory / 4 * 3, |results| {
        let writer = OpWriter::new(out, options.version, options.stream.fit(options.memory))
            .map_err(DiffError::Write)?;
        let mut emitter = Emitter { new, planner, writer, observer, at: 0 };
        let mut files = FileCounts::default();
        let mut job = 0;
        for (i, (target, plan)) in scan.targets.iter().zip(&planner.plans).enumerate() {
            match *plan {
                Plan::Literal => files.literal += 1,
                Plan::Identical { source, path } => {
                    emitter.literal_to(target.offset)?;
                    emitter.copy(source, path, 0, target.size)?;
                    files.identical += 1;
                }
                Plan::Search => {
                    let mut helped = false;
                    while matcher.pieces.get(job).is_some_and(|p| p.target == i) {
                        match results.take(job)? {
                            Outcome::Matches(matches) => {
                                helped |= !matches.is_empty();
                                for m in &matches {
                                    emitter.matched(i, m)?;
                                }
                            }
                            Outcome::Frame { source, path, frame } => {
                                helped = true;
                                emitter.frame(source, path, &frame, target.offset, target.size)?;
                            }
                        }
                        job += 1;
                    }
                    *if helped { &mut files.changed } else { &mut files.literal } += 1;
                }
            }
        }
        emitter.literal_to(new.size())?;
        let (_, ops, stream_bytes) = emitter.writer.finish().map_err(DiffError::Write)?;
        Ok((ops, stream_bytes, files))
    })
}

/// A part of a new file that is matched on its own.
#[derive(Debug, Clone, Copy)]
struct Piece {
    target: usize,
    /// Offset in the new tar.
    offset: u64,
    len: usize,
}

/// A match in terms of the new tar and an old file.
#[derive(Debug, Clone, Copy)]
struct FileMatch {
    new: u64,
    source: usize,
    old: u64,
    len: u64,
}

enum Outcome {
    Matches(Vec<FileMatch>),
    Frame { source: usize, path: usize, frame: Vec<u8> },
}

struct Matcher<'a> {
    new: &'a dyn ReadAt,
    scan: &'a Scan,
    planner: &'a Planner<'a>,
    options: &'a Options,
    observer: &'a dyn Observer,
    pieces: Vec<Piece>,
}

impl<'a> Matcher<'a> {
    fn new(
        new: &'a dyn ReadAt,
        scan: &'a Scan,
        planner: &'a Planner<'a>,
        options: &'a Options,
        observer: &'a dyn Observer,
    ) -> Self {
        // A piece and its text must fit the budget together; a patch frame needs the file whole. Where there is a choice
        // between the two, only files that are one piece anyway have it.
        let most = text_budget(options.memory) / 2;
        let mut pieces = Vec::new();
        for (target, _) in planner.plans.iter().enumerate().filter(|(_, p)| **p == Plan::Search) {
            let t = &scan.targets[target];
            let whole = matches!(options.method, Method::Zstd | Method::ZstdThenBsdiff)
                && t.size < options.max_patch_size;
            let step = if whole { t.size } else { most };
            let mut at = 0;
            while at < t.size {
                let len = (t.size - at).min(step);
                pieces.push(Piece { target, offset: t.offset + at, len: len as usize });
                at += len;
            }
        }
        Matcher { new, scan, planner, options, observer, pieces }
    }

    fn match_piece(&self, piece: Piece, memory: &dyn Memory) -> Result<Outcome, DiffError> {
        let content =
            Section::new(self.new, piece.offset, piece.len as u64).to_vec().map_err(DiffError::Read)?;
        let offset = piece.offset - self.scan.targets[piece.target].offset;
        let segments = self.planner.text(piece.target, offset, &content);
        match self.options.method {
            Method::Bsdiff => Ok(Outcome::Matches(self.approximate(piece, &content, &segments, memory)?)),
            Method::Zstd => {
                let patch = self.patch(piece, &content, &segments, memory)?;
                Ok(patch.unwrap_or(Outcome::Matches(Vec::new())))
            }
            Method::ZstdThenBsdiff => match self.patch(piece, &content, &segments, memory)? {
                Some(patch) => Ok(patch),
                None => Ok(Outcome::Matches(self.approximate(piece, &content, &segments, memory)?)),
            },
            Method::Smallest => {
                let matches = self.approximate(piece, &content, &segments, memory)?;
                let patch = self.smaller_patch(piece, &content, &segments, &matches, memory)?;
                Ok(patch.unwrap_or(Outcome::Matches(matches)))
            }
        }
    }

    /// The patch of a piece where it is smaller than its matches by a clear measure. Tried only
    /// * where matches leave more literal bytes than bytes that differ, as in text: elsewhere a patch is hardly ever
    ///   smaller, and takes longest;
    /// * where no other changed file has what is new in this one: the stream says such things once for all files, but
    ///   a patch says them for itself.
    fn smaller_patch(
        &self,
        piece: Piece,
        content: &[u8],
        segments: &[Segment],
        matches: &[FileMatch],
        memory: &dyn Memory,
    ) -> Result<Option<Outcome>, DiffError> {
        let mut literal = content.len();
        let mut differing = 0;
        for m in matches {
            let new = &content[(m.new - piece.offset) as usize..][..m.len as usize];
            let old = Section::new(&self.planner.sources[m.source].content, m.old, m.len).to_vec();
            let old = old.map_err(DiffError::Read)?;
            differing += new.iter().zip(&old).filter(|(n, o)| n != o).count();
            literal -= new.len();
        }
        let known = matches.iter().map(|m| {
            let from = (m.new - piece.offset) as usize;
            from..from + m.len as usize
        });
        if literal <= differing {
            return Ok(None);
        }
        let (all, shared) = self.planner.shared(piece.target, content, known);
        if all < ENOUGH_SAMPLES || shared > all / SHARED {
            return Ok(None);
        }
        let estimate = self.estimate(content, piece, matches)?;
        let patch = self.patch(piece, content, segments, memory)?;
        Ok(patch.filter(|patch| match patch {
            Outcome::Frame { source, path, frame } => {
                let open = self.planner.sources[*source].paths[*path].len() + OP_COST;
                frame.len() + frame.len() / CLEARLY + open < estimate
            }
            Outcome::Matches(_) => false,
        }))
    }

    /// Approximate matches of a piece in its text.
    fn approximate(
        &self,
        piece: Piece,
        content: &[u8],
        segments: &[Segment],
        memory: &dyn Memory,
    ) -> Result<Vec<FileMatch>, DiffError> {
        let len: u64 = segments.iter().map(|s| s.len).sum();
        if len == 0 {
            return Ok(Vec::new());
        }
        let largest = segments.iter().map(|s| self.planner.sources[s.file].size).max().unwrap_or(0);
        let file = self.scan.targets[piece.target].size;
        let finding = match means(self.options.effort).finding {
            Finding::Suffixes if largest.max(file) >= self.options.max_suffix_size => {
                Finding::Blocks(LARGE_BLOCK)
            }
            finding => finding,
        };
        let need = match finding {
            Finding::Suffixes => SuffixFinder::memory(len),
            Finding::Blocks(block) => BlockFinder::memory(len, block),
        };
        let mut found = Ok((Vec::new(), Vec::new()));
        memory.with(len + need, &mut || found = self.search(content, segments, finding));
        let (matches, parts) = found?;
        // Back from text positions to files.
        let mut out = Vec::with_capacity(matches.len());
        for Match { new, old, len } in matches {
            let i = parts.partition_point(|part| part.end <= old);
            let start = if i == 0 { 0 } else { parts[i - 1].end };
            out.push(FileMatch {
                new: piece.offset + new as u64,
                source: segments[i].file,
                old: segments[i].offset + (old - start) as u64,
                len: len as u64,
            });
        }
        Ok(out)
    }

    fn search(
        &self,
        content: &[u8],
        segments: &[Segment],
        finding: Finding,
    ) -> Result<(Vec<Match>, Vec<Part>), DiffError> {
        if self.observer.cancelled() {
            return Err(DiffError::Cancelled);
        }
        let mut text = Vec::with_capacity(segments.iter().map(|s| s.len as usize).sum());
        let mut parts = Vec::with_capacity(segments.len());
        for s in segments {
            let from = text.len();
            text.resize(from + s.len as usize, 0);
            let source = &self.planner.sources[s.file].content;
            source.read_exact_at(s.offset, &mut text[from..]).map_err(DiffError::Read)?;
            parts.push(Part { end: text.len(), file: s.file });
        }
        let sorting;
        let hashing;
        let finder: &dyn Finder = match finding {
            Finding::Suffixes => {
                sorting = SuffixFinder::new(&text);
                &sorting
            }
            Finding::Blocks(block) => {
                hashing = BlockFinder::new(&text, block);
                &hashing
            }
        };
        let stride = means(self.options.effort).stride;
        let search = Search { stride, prices: Prices::default(), literal: &literal_price };
        let matches = approx::matches(finder, &parts, content, search);
        Ok((matches, parts))
    }

    /// The file as one frame with the first candidate as dictionary; `None` where sizes forbid it or it does not pay.
    fn patch(
        &self,
        piece: Piece,
        content: &[u8],
        segments: &[Segment],
        memory: &dyn Memory,
    ) -> Result<Option<Outcome>, DiffError> {
        let target = &self.scan.targets[piece.target];
        let Some(first) = segments.first() else { return Ok(None) };
        let old = &self.planner.sources[first.file];
        let max = self.options.max_patch_size;
        if piece.len as u64 != target.size || target.size >= max || old.size >= max {
            return Ok(None);
        }
        let both = (old.size + target.size).max(1 << 10);
        let log = both.next_power_of_two().ilog2().min(MAX_WINDOW_LOG);
        let window_log = self.options.patch_window_log.unwrap_or(log);
        let mut frame = Ok(Vec::new());
        memory.with(old.size + 6 * both, &mut || {
            frame = old.content.to_vec().and_then(|dictionary| {
                let mut writer = ZstdWriter::new(
                    Vec::new(),
                    ZstdWriterOptions {
                        level: self.options.patch_level,
                        window_log: Some(window_log),
                        prefix: Some(&dictionary),
                        content_size: Some(content.len() as u64),
                        long_distance: both > 8 << 20,
                        ..Default::default()
                    },
                )?;
                writer.write_all(content)?;
                writer.finish()
            });
        });
        let frame = frame.map_err(DiffError::Read)?;
        if frame.len() >= content.len() {
            return Ok(None);
        }
        let path = self.planner.open_path(first.file, piece.target);
        Ok(Some(Outcome::Frame { source: first.file, path, frame }))
    }

    /// About how many bytes matches and the literals between them take in the delta, OPEN included.
    fn estimate(&self, content: &[u8], piece: Piece, matches: &[FileMatch]) -> Result<usize, DiffError> {
        // The stream itself will do better than one that starts afresh, so much effort would be wasted here. A window
        // that is no larger than what is written saves most of the time.
        let window_log = content.len().max(1 << 10).next_power_of_two().ilog2().min(23);
        let stream = StreamOptions::level(self.options.stream.level.min(ESTIMATE_LEVEL), window_log);
        let mut writer = OpWriter::new(Vec::new(), self.options.version, stream).map_err(DiffError::Write)?;
        let mut at = 0;
        for m in matches {
            let from = (m.new - piece.offset) as usize;
            writer.literal(&content[at..from]).map_err(DiffError::Write)?;
            let path = self.planner.sources[m.source].paths[0];
            let old = Section::new(&self.planner.sources[m.source].content, m.old, m.len).to_vec();
            let old = old.map_err(DiffError::Read)?;
            write_match(&mut writer, path, m.old, &old, &content[from..from + old.len()])
                .map_err(DiffError::Write)?;
            at = from + old.len();
        }
        writer.literal(&content[at..]).map_err(DiffError::Write)?;
        let bytes = writer.finish().map_err(DiffError::Write)?.0.len();
        Ok(bytes.saturating_sub(EMPTY_DELTA))
    }
}

impl Work for Matcher<'_> {
    type Output = Result<Outcome, DiffError>;

    fn len(&self) -> usize {
        self.pieces.len()
    }

    fn run(&self, job: usize, memory: &dyn Memory) -> Self::Output {
        self.match_piece(self.pieces[job], memory)
    }

    fn weight(&self, output: &Self::Output) -> u64 {
        match output {
            Ok(Outcome::Matches(m)) => (m.len() * size_of::<FileMatch>()) as u64,
            Ok(Outcome::Frame { frame, .. }) => frame.len() as u64,
            Err(_) => 0,
        }
    }
}

/// What a literal byte of `content` takes in the delta, in 256ths of a byte: three quarters of what it takes alone and
/// compressed in haste, because the stream knows what went before; but nothing helps with what does not compress.
fn literal_price(content: &[u8]) -> i64 {
    let alone = compress::zstd_size(content, 1) as i64 * 256 / content.len().max(1) as i64;
    let steep = 154 + (alone - 205) * 2;
    steep.max(alone * 3 / 4).clamp(60, 256)
}

/// Writes one match: long runs without correction as COPY, the rest as ADD.
fn write_match<W: Write>(
    writer: &mut OpWriter<W>,
    path: &[u8],
    old_offset: u64,
    old: &[u8],
    new: &[u8],
) -> io::Result<()> {
    let (mut from, mut at) = (0, 0);
    while at < new.len() {
        let run = common_prefix(&old[at..], &new[at..]);
        let all_the_rest = from == at && at + run == new.len();
        if run >= COPY_RUN || (run > 0 && all_the_rest) {
            add(writer, path, old_offset, old, new, from..at)?;
            writer.copy(path, old_offset + at as u64, run as u64)?;
            from = at + run;
        }
        at += run;
        at += old[at..new.len()].iter().zip(&new[at..]).take_while(|(o, n)| o != n).count();
    }
    add(writer, path, old_offset, old, new, from..new.len())
}

fn add<W: Write>(
    writer: &mut OpWriter<W>,
    path: &[u8],
    old_offset: u64,
    old: &[u8],
    new: &[u8],
    range: std::ops::Range<usize>,
) -> io::Result<()> {
    let diff: Vec<u8> =
        new[range.clone()].iter().zip(&old[range.clone()]).map(|(n, o)| n.wrapping_sub(*o)).collect();
    writer.add(path, old_offset + range.start as u64, &diff)
}

/// Walks through the new tar and writes what covers it.
struct Emitter<'a, W: Write> {
    new: &'a dyn ReadAt,
    planner: &'a Planner<'a>,
    writer: OpWriter<W>,
    observer: &'a dyn Observer,
    /// Bytes of the new tar covered so far.
    at: u64,
}

impl<W: Write> Emitter<'_, W> {
    fn progress(&self) -> Result<(), DiffError> {
        self.observer.progress(Stage::Diff, self.at, self.new.size());
        if self.observer.cancelled() { Err(DiffError::Cancelled) } else { Ok(()) }
    }

    fn literal_to(&mut self, end: u64) -> Result<(), DiffError> {
        let mut buf = vec![0; (end - self.at).min(CHUNK as u64) as usize];
        while self.at < end {
            let n = (end - self.at).min(CHUNK as u64) as usize;
            self.new.read_exact_at(self.at, &mut buf[..n]).map_err(DiffError::Read)?;
            self.writer.literal(&buf[..n]).map_err(DiffError::Write)?;
            self.at += n as u64;
            self.progress()?;
        }
        Ok(())
    }

    fn copy(&mut self, source: usize, path: usize, offset: u64, len: u64) -> Result<(), DiffError> {
        let path = self.planner.sources[source].paths[path];
        self.writer.copy(path, offset, len).map_err(DiffError::Write)?;
        self.at += len;
        self.progress()
    }

    fn matched(&mut self, target: usize, m: &FileMatch) -> Result<(), DiffError> {
        self.literal_to(m.new)?;
        let source = &self.planner.sources[m.source];
        let path = source.paths[self.planner.open_path(m.source, target)];
        let mut done = 0;
        let mut old = vec![0; m.len.min(CHUNK as u64) as usize];
        let mut new = old.clone();
        while done < m.len {
            let n = (m.len - done).min(CHUNK as u64) as usize;
            source.content.read_exact_at(m.old + done, &mut old[..n]).map_err(DiffError::Read)?;
            self.new.read_exact_at(m.new + done, &mut new[..n]).map_err(DiffError::Read)?;
            write_match(&mut self.writer, path, m.old + done, &old[..n], &new[..n])
                .map_err(DiffError::Write)?;
            done += n as u64;
            self.at += n as u64;
            self.progress()?;
        }
        Ok(())
    }

    fn frame(
        &mut self,
        source: usize,
        path: usize,
        frame: &[u8],
        offset: u64,
        size: u64,
    ) -> Result<(), DiffError> {
        self.literal_to(offset)?;
        let old = &self.planner.sources[source];
        self.writer.zstd_dict(old.paths[path], old.size, frame).map_err(DiffError::Write)?;
        self.at += size;
        self.progress()
    }
}
