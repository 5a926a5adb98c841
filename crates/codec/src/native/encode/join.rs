//! Joining headers and parts to blocks.

use std::collections::{BTreeSet, HashMap};
use std::io;

use super::part::{Coded, Part, ViewKind, class};
use super::scan::{Content, NewMember, Source};
use super::squeeze::squeeze;
use super::{Base, DiffError, FileCounts, Options};
use crate::digest::{Digest, Hasher, Hashing};
use crate::native::container::{Block, Head, Origin, Tree, TreeFile, group_check};
use crate::native::entropy::Method;
use crate::native::framing::Memory;
use crate::native::items::{self, BLOCK};
use crate::native::numbers::{put, put_signed};
use crate::native::packed::Encoder;
use crate::native::streams::{self, StreamId, Streams};
use crate::native::work::Budget;
use crate::{ReadAt, Section};

/// A block ends at the first item with which its streams hold this much, or its output is this long.
const BLOCK_STREAMS: usize = 4 << 20;
const BLOCK_OUTPUT: u64 = 64 << 20;
/// Bytes of streams of a part for each byte that it makes, and in any case; a block may have more (section 8.4).
const STREAMS_PER_BYTE: u64 = 96;
const SMALL_STREAMS: u64 = 1 << 10;
/// Bytes that are sent without structure at a time.
const RAW: u64 = 1 << 20;
/// Largest framing that is a header, in bytes (section 6.2.2).
const MAX_FRAMING: u64 = 4 << 20;

/// What became of files and streams.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub files: FileCounts,
    pub rebuilt: u64,
    pub other: u64,
}

/// Takes members in order and makes blocks of them.
pub(super) struct Join<'a> {
    new: &'a dyn ReadAt,
    source: &'a Source<'a>,
    options: &'a Options,
    tally: Tally,
    /// Bytes of the target that blocks cover, the present one included.
    at: u64,
    blocks: Vec<(Block, Vec<u8>)>,
    memory: u64,
    /// In a delta for a tree: the old members used, in order of first use, and their places in this list.
    files: Vec<usize>,
    numbers: HashMap<usize, u64>,
    /// The present block.
    start: u64,
    streams: Streams,
    headers: Memory,
    next_reference: u64,
    next_file: u64,
    part_memory: u64,
    budget: Budget,
    /// Names of the encoders used.
    encoders: BTreeSet<&'static str>,
}

impl<'a> Join<'a> {
    pub(super) fn new(new: &'a dyn ReadAt, source: &'a Source<'a>, options: &'a Options) -> Self {
        Join {
            new,
            source,
            options,
            tally: Tally::default(),
            at: 0,
            blocks: Vec::new(),
            memory: 0,
            files: Vec::new(),
            numbers: HashMap::new(),
            start: 0,
            streams: Streams::default(),
            headers: Memory::default(),
            next_reference: 0,
            next_file: 0,
            part_memory: 0,
            budget: Budget::new(new.size()),
            encoders: BTreeSet::new(),
        }
    }

    /// Adds a member, with its parts if its content was coded.
    pub(super) fn member(&mut self, member: &NewMember, coded: Option<Coded>) -> Result<(), DiffError> {
        self.cut_if_full();
        let len = member.framing.end - member.framing.start;
        let padded =
            self.at.next_multiple_of(BLOCK) == member.framing.start && self.is_zero(member.framing.start)?;
        let structured = padded && len >= BLOCK && len.is_multiple_of(BLOCK) && len <= MAX_FRAMING;
        let implied = if structured { self.header(member)? } else { false };
        if !structured {
            self.raw(member.framing.end)?;
        }
        match (member.content, coded) {
            (Content::None, _) => {}
            (Content::Whole(_), _) if implied => self.tally.files.identical += 1,
            (Content::Whole(old), _) => {
                self.tally.files.identical += 1;
                put(self.streams.get(StreamId::Plan), items::WHOLE);
                self.file(old);
                self.at += member.content_len;
            }
            (Content::Code, coded) => {
                let coded = coded.unwrap_or_default();
                let helped = coded.parts.iter().any(|p| !p.views.is_empty());
                *if helped { &mut self.tally.files.changed } else { &mut self.tally.files.literal } += 1;
                self.tally.other += coded.other_streams;
                for part in coded.parts {
                    self.cut_if_full();
                    if self.affordable(&part) {
                        self.part(&part);
                    } else {
                        self.raw(self.at + part.len)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds what follows the last member.
    pub(super) fn rest(&mut self, end: u64) -> Result<(), DiffError> {
        self.raw(end)
    }

    /// The head, the blocks and what became of the files.
    pub(super) fn finish(mut self, digest: Digest) -> Result<(Head, Vec<Vec<u8>>, Tally), DiffError> {
        self.cut();
        let origin = match self.options.base {
            Base::Archives => Origin::Archives(self.source.archives.clone()),
            Base::Tree { .. } => Origin::Tree(self.tree()?),
        };
        let (blocks, bytes) = self.blocks.into_iter().unzip();
        let encoders = self.encoders.into_iter().map(str::to_owned).collect();
        Ok((Head { size: self.at, digest, memory: self.memory, encoders, origin, blocks }, bytes, self.tally))
    }

    /// Names the files used and hashes them.
    fn tree(&mut self) -> Result<Tree, DiffError> {
        let (mut files, mut checks, mut all) = (Vec::new(), Vec::new(), Hasher::new());
        for group in self.files.chunks(TreeFile::GROUP) {
            let mut digests = Vec::new();
            for &number in group {
                let content = self.source.old.content(&self.source.old.members[number]);
                let mut hashing = Hashing::new(io::sink());
                io::copy(&mut content.reader(), &mut hashing).map_err(DiffError::Read)?;
                let (_, digest, size) = hashing.finish();
                digests.extend_from_slice(digest.as_bytes());
                files.push(TreeFile { path: self.source.paths[number][0].clone(), size });
            }
            checks.push(group_check(&digests));
            all.update(&digests);
        }
        let tree = Tree { files, digest: all.finish(), checks };
        self.memory = self.memory.max(tree.memory());
        Ok(tree)
    }

    /// The number by which a delta knows an old member.
    fn number(&mut self, member: usize) -> u64 {
        if self.options.base == Base::Archives {
            return member as u64;
        }
        *self.numbers.entry(member).or_insert_with(|| {
            self.files.push(member);
            self.files.len() as u64 - 1
        })
    }

    /// Writes a header; whether the content is implied by the reference.
    fn header(&mut self, member: &NewMember) -> Result<bool, DiffError> {
        let old = member.reference.map(|n| (n, &self.source.old.members[n]));
        let implied = match (old, member.content) {
            (Some((n, _)), Content::Whole(w)) => n == w,
            (Some((_, m)), Content::None) => m.len == 0,
            (None, content) => content == Content::None,
            _ => false,
        };
        let read = |range: &std::ops::Range<u64>| {
            Section::new(self.new, range.start, range.end - range.start).to_vec().map_err(DiffError::Read)
        };
        let framing = read(&member.framing)?;
        let base = match (old, self.options.base) {
            (None, _) => None,
            (Some((_, m)), Base::Archives) => Some(self.source.old.framing(m).map_err(DiffError::Read)?),
            (Some((n, _)), Base::Tree { .. }) => Some(self.headers.named(&self.source.paths[n][0])),
        };
        put(self.streams.get(StreamId::Plan), items::HEADER);
        let reference = match member.reference {
            None => 0,
            Some(n) => {
                let n = self.number(n);
                let step = n as i64 - self.next_reference as i64;
                self.next_reference = n + 1;
                if implied {
                    self.next_file = n + 1;
                }
                (step << 1 ^ step >> 63) as u64 + 1
            }
        };
        let mut headers = std::mem::take(self.streams.get(StreamId::Headers));
        put(&mut headers, reference);
        let names = self.streams.get(StreamId::Names);
        self.headers.encode(&framing, base.as_deref(), member.content_len, !implied, &mut headers, names);
        *self.streams.get(StreamId::Headers) = headers;
        self.at = member.framing.end;
        if implied {
            self.at += member.content_len;
        }
        Ok(implied)
    }

    fn file(&mut self, member: usize) {
        let number = self.number(member);
        put_signed(self.streams.get(StreamId::Plan), number as i64 - self.next_file as i64);
        self.next_file = number + 1;
    }

    fn part(&mut self, part: &Part) {
        let transform = match &part.program {
            Some(program) => program.machine.transform(),
            None if part.rebuilt.is_empty() => items::PLAIN,
            None => items::PACKED,
        };
        let head = [items::PART, transform, part.len, part.class, part.views.len() as u64];
        head.into_iter().for_each(|n| put(self.streams.get(StreamId::Plan), n));
        for (i, view) in part.views.iter().enumerate() {
            self.file(view.member);
            let plan = self.streams.get(StreamId::Plan);
            let is_program = part.program.as_ref().is_some_and(|p| p.views[i]);
            let program = if is_program { items::VIEW_PROGRAM } else { 0 };
            match view.kind {
                ViewKind::Whole => put(plan, items::VIEW_WHOLE + program),
                ViewKind::Range { start, len } => {
                    [items::VIEW_RANGE, start, len].into_iter().for_each(|n| put(plan, n));
                }
                ViewKind::Inflated { start, len } => {
                    [items::VIEW_INFLATED + program, start, len].into_iter().for_each(|n| put(plan, n));
                }
                ViewKind::Expanded { format, start, stream, len } => {
                    [format.view() + program, start, stream, len].into_iter().for_each(|n| put(plan, n));
                    self.encoders.extend(format.listed());
                }
            }
        }
        let plan = self.streams.get(StreamId::Plan);
        put(plan, part.corrections);
        if transform != items::PLAIN {
            put(plan, part.rebuilt.len() as u64);
            for r in &part.rebuilt {
                put(plan, r.before);
                r.encoder.write(plan);
                [r.stream, r.content].into_iter().for_each(|n| put(plan, n));
                self.encoders.extend(r.encoder.names());
            }
            if part.rebuilt.iter().any(|r| matches!(r.encoder.inner(), Encoder::Tokens(_))) {
                put(plan, part.tokens);
            }
        }
        if let Some(program) = &part.program {
            put(plan, program.references);
            self.encoders.insert(program.machine.name());
        }
        self.streams.append(&part.streams);
        self.part_memory = self.part_memory.max(part.memory());
        self.tally.rebuilt += part.rebuilt.len() as u64;
        self.at += part.len;
    }

    /// Whether a reader may do the work that a part asks for (section 8.4); if so, it is taken from the budget.
    fn affordable(&mut self, part: &Part) -> bool {
        let mut budget = self.budget.clone();
        let is_program = |i: usize| part.program.as_ref().is_some_and(|p| p.views[i]);
        let views = part.views.iter().enumerate().try_for_each(|(i, view)| match view.kind {
            ViewKind::Whole if is_program(i) => budget.view(self.source.old.members[view.member].len),
            ViewKind::Inflated { len, .. } => budget.view(len),
            ViewKind::Expanded { stream, len, .. } => budget.view(stream + len),
            _ => budget.view(0),
        });
        let encoded = part.rebuilt.iter().try_for_each(|r| budget.encode(r.encoder.work(r.content)));
        if views.is_err()
            || encoded.is_err()
            || part.streams.len() as u64 > STREAMS_PER_BYTE * part.len + SMALL_STREAMS
        {
            return false;
        }
        self.budget = budget;
        true
    }

    /// Sends the target up to `end` as zeros and literals.
    fn raw(&mut self, end: u64) -> Result<(), DiffError> {
        while self.at < end {
            self.cut_if_full();
            let len = (end - self.at).min(RAW);
            let bytes = Section::new(self.new, self.at, len).to_vec().map_err(DiffError::Read)?;
            let zeros = bytes.iter().take_while(|&&b| b == 0).count();
            if zeros > 0 {
                put(self.streams.get(StreamId::Plan), items::ZEROS);
                put(self.streams.get(StreamId::Plan), zeros as u64);
                self.at += zeros as u64;
                continue;
            }
            let mut streams = Streams::default();
            put(streams.get(StreamId::LiteralLengths), len);
            let class = class(&bytes);
            *streams.get(StreamId::of_class(class).unwrap_or(StreamId::Binary)) = bytes;
            let (views, rebuilt) = (Vec::new(), Vec::new());
            self.part(&Part {
                len,
                class,
                views,
                rebuilt,
                corrections: 0,
                streams,
                tokens: 0,
                program: None,
            });
        }
        Ok(())
    }

    /// Whether the target holds zeros up to `end`.
    fn is_zero(&self, end: u64) -> Result<bool, DiffError> {
        let bytes = Section::new(self.new, self.at, end.saturating_sub(self.at)).to_vec();
        Ok(bytes.map_err(DiffError::Read)?.iter().all(|&b| b == 0))
    }

    fn cut_if_full(&mut self) {
        if self.streams.len() >= BLOCK_STREAMS || self.at - self.start >= BLOCK_OUTPUT {
            self.cut();
        }
    }

    /// Ends the present block.
    fn cut(&mut self) {
        if self.at == self.start {
            return;
        }
        let output = self.at - self.start;
        let streams = std::mem::take(&mut self.streams);
        let (encoded, working) = squeeze(&streams, output, self.budget.mixed(), self.options);
        let (bytes, check) = streams::join(&encoded);
        let mixed = encoded.iter().filter(|e| e.method == Method::Mixing).map(|e| e.decoded).sum();
        self.budget.spend_mixed(mixed);
        // Streams and their compressed forms are there while they are decoded, then streams and what parts take.
        let decoding = bytes.len() as u64 + working;
        self.memory = self.memory.max(streams.len() as u64 + decoding.max(self.part_memory));
        self.blocks.push((Block { output, encoded: bytes.len() as u64, check }, bytes));
        self.start = self.at;
        self.headers = Memory::default();
        (self.next_reference, self.next_file, self.part_memory) = (0, 0, 0);
    }
}
