//! Coding the content of one member.

use std::ops::Range;

use super::candidates::{Candidates, program_budget, text_budget};
use super::expand::{Expanded, Unpacked};
use super::program::{self, Task};
use super::scan::{NewMember, Source};
use super::{DiffError, Options};
use crate::compress;
use crate::delta::likeness::Segment;
use crate::matching::Finder;
use crate::matching::approx::{self, Match, Prices, Search};
use crate::matching::block::BlockFinder;
use crate::matching::suffix::SuffixFinder;
use crate::native::entropy::{self, Method};
use crate::native::exec::Machine;
use crate::native::exec::elf::HEAD;
use crate::native::items;
use crate::native::numbers::{put, put_signed};
use crate::native::packed::{self, Encoder, ExpandError, Format, Stream};
use crate::native::streams::{StreamId, Streams};
use crate::observe::Observer;
use crate::{ReadAt, Section};

/// Matches with fewer agreeing bytes cost more than the literal they replace.
const MIN_AGREEING: usize = 14;
/// What a literal byte of a program without its references costs in a delta, in 256ths of a byte, by its class.
const TEXT_PRICE: i64 = 90;
const BINARY_PRICE: i64 = 150;
const DENSE_PRICE: i64 = 256;
/// What a literal byte costs otherwise: so many 256ths of what it costs where its block is compressed alone, quickly. Among
/// all literals of a delta it costs less.
const SHARE: i64 = 192;
const LEAST_PRICE: i64 = 20;
/// Bytes of a part: at this many literals, or at this much output, the next part begins.
const PART_LITERALS: usize = 1 << 20;
const PART_OUTPUT: usize = 16 << 20;
/// Largest content of a packed stream that is expanded, new or old.
const MAX_EXPANDED: usize = 32 << 20;
/// The same for a new stream of xz or zstd below effort 5: making it again takes a second for a few megabytes.
const MAX_QUICK: usize = 4 << 20;
/// From this effort on streams of xz and zstd are expanded.
const SLOW_FORMATS: u8 = 3;
/// From this effort on deflate streams of encoders that are not known are inflated.
const TOKENS: u8 = 3;
/// From this effort on programs are coded as such.
const PROGRAMS: u8 = 2;
/// Programs up to this size are matched as bytes as well.
const TWICE: usize = 1 << 20;
/// Larger ones are if coding them as programs saves less than one part in so many.
const DOUBT: usize = 4;
/// Bytes that the head takes for the name of a transform.
const NAME: usize = 16;
/// Bytes that a stream takes in the list of streams of its block.
const ENTRY: usize = 3;
/// Memory that the encoder of a stream may take (section 4.3): an xz dictionary of 16 MiB, a zstd window of 4 MiB in
/// multithreaded mode.
const MAX_ENCODER: u64 = 208 << 20;
/// Bytes of content for each byte of a stream: what lies above costs a reader more work than it saves.
const MAX_RATIO: u64 = 48;
/// Content that a stream may have in any case.
const SMALL_CONTENT: u64 = 256;

/// A view that a part needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub member: usize,
    pub kind: ViewKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ViewKind {
    Whole,
    Range {
        start: u64,
        len: u64,
    },
    Inflated {
        start: u64,
        len: u64,
    },
    /// A stream of a length stated, expanded.
    Expanded {
        format: Format,
        start: u64,
        stream: u64,
        len: u64,
    },
}

impl ViewKind {
    /// The content of a packed stream: where it starts, its length, and that of its content.
    pub(super) fn of(format: Format, start: u64, stream: u64, len: u64) -> Self {
        match format {
            Format::Deflate(_) => ViewKind::Inflated { start, len },
            format => ViewKind::Expanded { format, start, stream, len },
        }
    }
}

/// A packed stream that is rebuilt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rebuilt {
    /// Bytes of the part between the stream before and this one.
    pub before: u64,
    pub encoder: Encoder,
    /// Bytes of the stream.
    pub stream: u64,
    /// Bytes of its content.
    pub content: u64,
}

/// New bytes ready to be written.
pub(super) struct Part {
    /// Bytes of the target.
    pub len: u64,
    pub class: u64,
    pub views: Vec<View>,
    pub rebuilt: Vec<Rebuilt>,
    pub corrections: u64,
    pub streams: Streams,
    /// Bytes of the stream of tokens.
    pub tokens: u64,
    /// What makes it a program, if it is one.
    pub program: Option<ProgramPart>,
}

/// What a part that is a program has besides.
#[derive(Debug, Clone)]
pub(super) struct ProgramPart {
    pub machine: Machine,
    /// Which of the views are programs.
    pub views: Vec<bool>,
    /// Bytes of the stream of references.
    pub references: u64,
    /// Bytes of memory for predicting, all views that are programs included.
    pub memory: u64,
}

impl Part {
    /// Bytes of memory that a reader needs for it.
    pub(super) fn memory(&self) -> u64 {
        let (mut views, mut working) = (self.program.as_ref().map_or(0, |p| p.memory), 0);
        for (i, view) in self.views.iter().enumerate() {
            let is_program = self.program.as_ref().is_some_and(|p| p.views[i]);
            match view.kind {
                ViewKind::Whole | ViewKind::Range { .. } => {}
                ViewKind::Inflated { len, .. } => views += if is_program { 0 } else { len },
                ViewKind::Expanded { stream, len, .. } => {
                    views += if is_program { 0 } else { len };
                    working = working.max(packed::expanding(stream, len));
                }
            }
        }
        let rebuilt =
            self.rebuilt.iter().map(|r| r.content + r.stream + r.encoder.memory(r.content, r.stream));
        views + rebuilt.max().unwrap_or(0).max(working)
    }
}

/// A new text coded as a program, and the matches that it was coded with.
pub(super) struct Program {
    part: Part,
    matches: Vec<Match>,
}

/// The parts of one member.
#[derive(Default)]
pub(super) struct Coded {
    pub parts: Vec<Part>,
    pub other_streams: u64,
}

/// Codes members; shared by all threads.
pub(super) struct Coder<'a> {
    new: &'a dyn ReadAt,
    source: &'a Source<'a>,
    pub(super) candidates: &'a Candidates<'a>,
    pub(super) options: &'a Options,
    observer: &'a dyn Observer,
}

/// Old text: views and their bytes, one behind the other.
#[derive(Default)]
pub(super) struct OldText {
    pub bytes: Vec<u8>,
    pub views: Vec<View>,
    pub ends: Vec<usize>,
}

impl OldText {
    pub(super) fn push(&mut self, view: View, bytes: &[u8]) {
        let room = (self.views.len() as u64) < items::MAX_VIEWS;
        if room && !bytes.is_empty() && !self.views.contains(&view) {
            self.bytes.extend_from_slice(bytes);
            self.views.push(view);
            self.ends.push(self.bytes.len());
        }
    }
}

impl<'a> Coder<'a> {
    pub(super) fn new(
        new: &'a dyn ReadAt,
        source: &'a Source<'a>,
        candidates: &'a Candidates<'a>,
        options: &'a Options,
        observer: &'a dyn Observer,
    ) -> Self {
        Coder { new, source, candidates, options, observer }
    }

    /// Codes the content of a member.
    pub(super) fn code(&self, member: &NewMember) -> Result<Coded, DiffError> {
        if let Some(coded) = self.whole_program(member)? {
            return Ok(coded);
        }
        if let Some(coded) = self.payload(member)? {
            return Ok(coded);
        }
        let budget = text_budget(self.options);
        let step = budget / 2;
        let mut coded = Coded::default();
        let mut at = 0;
        while at < member.content_len {
            if self.observer.cancelled() {
                return Err(DiffError::Cancelled);
            }
            let len = (member.content_len - at).min(step);
            let piece = self.content(member, at, len)?;
            let segments = self.candidates.text(member, at, &piece, budget);
            let whole = len == member.content_len;
            let expanded = if whole { self.expand(piece, &segments) } else { Expanded::plain(piece) };
            let mut parts = self.expanded(&expanded, &segments, whole, budget)?;
            let mut other = expanded.other;
            // Whether tokens pay depends on how much of the content is old.
            if let Some(known) = expanded.without_tokens() {
                let without = self.expanded(&known, &segments, whole, budget)?;
                if estimate(&without) < estimate(&parts) {
                    (parts, other) = (without, known.other);
                }
            }
            coded.other_streams += other;
            coded.parts.extend(parts);
            at += len;
        }
        Ok(coded)
    }

    /// The parts that make a new text, from old runs.
    fn expanded(
        &self,
        new: &Expanded,
        segments: &[Segment],
        whole: bool,
        budget: u64,
    ) -> Result<Vec<Part>, DiffError> {
        let old = self.old_text(new, segments, budget)?;
        let program = if whole { self.program(new, &old) } else { None };
        Ok(self.cheapest(new, &old, program))
    }

    pub(super) fn content(&self, member: &NewMember, at: u64, len: u64) -> Result<Vec<u8>, DiffError> {
        Section::new(self.new, member.framing.end + at, len).to_vec().map_err(DiffError::Read)
    }

    /// Codes a member that is a program too large to be cut; `None` if it is nothing of the kind.
    fn whole_program(&self, member: &NewMember) -> Result<Option<Coded>, DiffError> {
        let (len, budget) = (member.content_len, program_budget(self.options));
        let small = len <= text_budget(self.options) / 2;
        let start = self.content(member, 0, len.min(HEAD as u64))?;
        if small || len > budget || !self.codes_programs() || Machine::of(&start).is_none() {
            return Ok(None);
        }
        let new = Expanded::plain(self.content(member, 0, len)?);
        let segments = self.candidates.text(member, 0, &new.text, budget);
        let old = self.old_text(&new, &segments, budget)?;
        let Some(program) = self.program(&new, &old) else { return Ok(None) };
        Ok(Some(Coded { parts: self.cheapest(&new, &old, Some(program)), other_streams: 0 }))
    }

    /// The parts that make a new text: a program if it was coded as one and that is cheaper.
    pub(super) fn cheapest(&self, new: &Expanded, old: &OldText, program: Option<Program>) -> Vec<Part> {
        let matched = || self.parts(new, old, &self.matches(&new.text, old));
        let Some(program) = program else { return matched() };
        let as_program = estimate([&program.part]) + NAME;
        if new.text.len() > TWICE {
            // Matching this much once more takes long. As bytes, the same matches are a guess that tells if it may pay.
            let guess = estimate(&self.parts(new, old, &program.matches));
            if guess >= as_program + as_program / DOUBT + NAME {
                return vec![program.part];
            }
        }
        let parts = matched();
        if as_program < estimate(&parts) { vec![program.part] } else { parts }
    }

    /// Expands the streams that a known encoder makes and that no old file holds as they are.
    fn expand(&self, content: Vec<u8>, segments: &[Segment]) -> Expanded {
        let mut found = packed::locate(&content);
        found.retain(|s| self.opens(s));
        if found.is_empty() {
            return Expanded::plain(content);
        }
        let known: Vec<Stream> = segments.iter().flat_map(|s| self.old_streams(s)).collect();
        let mut out = Expanded { text: Vec::with_capacity(content.len() * 2), streams: Vec::new(), other: 0 };
        let tokens = self.options.parts.tokens && self.options.effort.number() >= TOKENS;
        let (mut done, mut likely) = (0, None);
        for stream in found {
            let same = |k: &Stream| k.name == stream.name && (k.crc, k.len) == (stream.crc, stream.len);
            if !stream.name.is_empty() && known.iter().any(same) {
                continue;
            }
            let start = stream.start as usize;
            let most = match stream.format {
                Format::Xz | Format::Zstd | Format::Lz4 if self.options.effort.number() < 5 => MAX_QUICK,
                _ => MAX_EXPANDED,
            };
            let Ok((inflated, len)) = packed::expand(&content, &stream, most) else { continue };
            let len = len as usize;
            let declared = stream.len.is_none_or(|l| l == len as u64);
            if !declared || inflated.len() as u64 > MAX_RATIO * len as u64 + SMALL_CONTENT {
                continue;
            }
            let bytes = &content[start..start + len];
            match packed::guess(&inflated, bytes, stream.format, likely, MAX_ENCODER, tokens) {
                Some(encoder) => {
                    likely = Some(encoder);
                    out.text.extend_from_slice(&content[done..start]);
                    let at = out.text.len();
                    out.text.extend_from_slice(&inflated);
                    let (name, content) = (stream.name, inflated.len());
                    let raw = matches!(encoder.inner(), Encoder::Tokens(_)).then(|| bytes.to_vec());
                    out.streams.push(Unpacked { at, encoder, stream: len as u64, content, name, raw });
                    done = start + len;
                }
                None => out.other += 1,
            }
        }
        out.text.extend_from_slice(&content[done..]);
        out
    }

    /// The packed streams of an old file.
    fn old_streams(&self, segment: &Segment) -> Vec<Stream> {
        let mut found = packed::locate(&self.old_file(segment.file));
        found.retain(|s| self.opens(s));
        found
    }

    /// Whether streams of this format are expanded at this effort.
    pub(super) fn opens(&self, stream: &Stream) -> bool {
        match stream.format {
            Format::Deflate(_) | Format::Png => self.options.parts.deflate,
            Format::Xz | Format::Zstd | Format::Lz4 => {
                self.options.parts.slow_formats && self.options.effort.number() >= SLOW_FORMATS
            }
        }
    }

    pub(super) fn old_file(&self, member: usize) -> Section<'a> {
        self.source.old.content(&self.source.old.members[member])
    }

    /// Joins what may help: old runs as they are, and old streams inflated.
    fn old_text(&self, new: &Expanded, segments: &[Segment], mut room: u64) -> Result<OldText, DiffError> {
        let mut text = OldText::default();
        let gzip = new.streams.iter().any(|s| s.name.is_empty());
        for s in segments {
            let file = self.old_file(s.file);
            let streams = self.old_streams(s);
            let single = streams.iter().any(|s| s.name.is_empty());
            for stream in streams {
                let wanted = stream.name.is_empty() || new.streams.iter().any(|n| n.name == stream.name);
                if !wanted {
                    continue;
                }
                let most = MAX_EXPANDED.min(room as usize);
                match packed::expand(&file, &stream, most) {
                    Ok((bytes, len)) if bytes.len() as u64 <= MAX_RATIO * len + SMALL_CONTENT => {
                        let (start, content) = (stream.start, bytes.len() as u64);
                        let kind = ViewKind::of(stream.format, start, len, content);
                        room -= bytes.len() as u64;
                        text.push(View { member: s.file, kind }, &bytes);
                    }
                    Ok(_) | Err(ExpandError::Stream(_)) => {}
                    Err(ExpandError::Read(e)) => return Err(DiffError::Read(e)),
                }
            }
            // What is inside a .gz says all about it, if the new file was opened too.
            if (single && gzip) || s.len > room {
                continue;
            }
            room -= s.len;
            let mut bytes = vec![0; s.len as usize];
            file.read_exact_at(s.offset, &mut bytes).map_err(DiffError::Read)?;
            let all = s.offset == 0 && s.len == file.size();
            let kind = if all { ViewKind::Whole } else { ViewKind::Range { start: s.offset, len: s.len } };
            text.push(View { member: s.file, kind }, &bytes);
        }
        Ok(text)
    }

    fn codes_programs(&self) -> bool {
        self.options.parts.programs && self.options.effort.number() >= PROGRAMS
    }

    /// Codes a program from old ones.
    pub(super) fn program(&self, new: &Expanded, old: &OldText) -> Option<Program> {
        if !self.codes_programs() {
            return None;
        }
        let task = Task::new(new, old)?;
        let literal = |bytes: &[u8]| match class(bytes) {
            items::TEXT => TEXT_PRICE,
            items::DENSE => DENSE_PRICE,
            _ => BINARY_PRICE,
        };
        let search = Search { stride: 1, prices: program::PRICES, literal: &literal };
        let matches = task.matches(self.options.effort, |new, text| self.search(new, text, old, search));
        let used = used_views(old, &matches);
        let coded = task.code(matches, &used);
        let (rebuilt, len) = new.rebuilt(0..new.text.len(), &new.streams);
        let views: Vec<usize> = (0..used.len()).filter(|&i| used[i].is_some()).collect();
        let memory = task.memory(&coded, &used);
        let mut streams = coded.streams;
        let class = self.classify(&mut streams);
        let tokens = new.tokens(&new.streams);
        let token_bytes = tokens.len() as u64;
        *streams.get(StreamId::Tokens) = tokens;
        let program = ProgramPart {
            machine: task.machine(),
            views: views.iter().map(|&i| task.is_program(i)).collect(),
            references: coded.references,
            memory,
        };
        let part = Part {
            len,
            class,
            views: views.iter().map(|&i| old.views[i]).collect(),
            rebuilt,
            corrections: coded.corrections,
            streams,
            tokens: token_bytes,
            program: Some(program),
        };
        Some(Program { part, matches: coded.matches })
    }

    /// Moves literals to the stream of their class.
    fn classify(&self, streams: &mut Streams) -> u64 {
        let literals = std::mem::take(streams.get(StreamId::Binary));
        let class = if self.options.parts.classes { class(&literals) } else { items::BINARY };
        let id = StreamId::of_class(class).unwrap_or(StreamId::Binary);
        *streams.get(id) = literals;
        class
    }

    /// Matches `new` with `old` as bytes.
    pub(super) fn matches(&self, new: &[u8], old: &OldText) -> Vec<Match> {
        let literal = |bytes: &[u8]| {
            let alone = compress::zstd_size(bytes, 1) as i64;
            (alone * SHARE / bytes.len() as i64).clamp(LEAST_PRICE, 256)
        };
        let search = Search { stride: 1, prices: Prices::default(), literal: &literal };
        self.search(new, &old.bytes, old, search)
    }

    /// Matches `new` with `text`, which consists of the views of `old`.
    fn search(&self, new: &[u8], text: &[u8], old: &OldText, search: Search<'_>) -> Vec<Match> {
        if text.is_empty() {
            return Vec::new();
        }
        let (sorting, hashing);
        let finder: &dyn Finder = if self.options.effort.number() > 1 {
            sorting = SuffixFinder::new(text);
            &sorting
        } else {
            hashing = BlockFinder::new(text, 32);
            &hashing
        };
        let parts: Vec<approx::Part> = old
            .ends
            .iter()
            .zip(&old.views)
            .map(|(&end, view)| approx::Part { end, file: view.member })
            .collect();
        let mut matches = approx::matches(finder, &parts, new, search);
        matches.retain(|m| {
            let (a, b) = (&new[m.new..m.new + m.len], &text[m.old..m.old + m.len]);
            a.iter().zip(b).filter(|(a, b)| a == b).count() >= MIN_AGREEING
        });
        matches
    }

    /// Cuts an expanded text into parts and writes each.
    pub(super) fn parts(&self, new: &Expanded, old: &OldText, matches: &[Match]) -> Vec<Part> {
        // Between streams a part may end anywhere, inside of one nowhere.
        let mut parts = Vec::new();
        let mut start = 0;
        let (mut literals, mut next) = (0, 0);
        let mut streams = new.streams.iter().peekable();
        while start < new.text.len() {
            let mut end = start;
            let mut inside = 0;
            while end < new.text.len() && end - start < PART_OUTPUT && literals < PART_LITERALS {
                let step = match streams.peek() {
                    Some(s) if s.at == end => {
                        let content = s.content;
                        inside += 1;
                        streams.next();
                        content
                    }
                    Some(s) => (s.at - end).min(1 << 16),
                    None => (new.text.len() - end).min(1 << 16),
                };
                // Literals: what no match covers.
                literals += step;
                while let Some(m) = matches.get(next).filter(|m| m.new < end + step) {
                    let covered = (m.new + m.len).min(end + step).saturating_sub(m.new.max(end));
                    literals -= covered;
                    if m.new + m.len > end + step {
                        break;
                    }
                    next += 1;
                }
                end += step;
            }
            let first = new.streams.partition_point(|s| s.at < start);
            parts.push(self.part(new, start..end, first..first + inside, old, matches));
            start = end;
            literals = 0;
        }
        parts
    }

    /// Writes one part.
    fn part(
        &self,
        new: &Expanded,
        range: Range<usize>,
        streams: Range<usize>,
        old: &OldText,
        matches: &[Match],
    ) -> Part {
        let streams = &new.streams[streams];
        let (rebuilt, len) = new.rebuilt(range.clone(), streams);
        let from = matches.partition_point(|m| m.new + m.len <= range.start);
        let matches: Vec<Match> = matches[from..]
            .iter()
            .take_while(|m| m.new < range.end)
            .map(|m| {
                let cut = range.start.saturating_sub(m.new);
                let end = (m.new + m.len).min(range.end);
                Match { new: m.new + cut, old: m.old + cut, len: end - m.new - cut }
            })
            .collect();
        let used = used_views(old, &matches);
        let mut out = Streams::default();
        let corrections = operations(&new.text, range, old, &used, &matches, &mut out);
        let class = self.classify(&mut out);
        let coded = new.tokens(streams);
        let tokens = coded.len() as u64;
        *out.get(StreamId::Tokens) = coded;
        let views = old.views.iter().zip(&used).filter(|(_, used)| used.is_some()).map(|(v, _)| *v).collect();
        Part { len, class, views, rebuilt, corrections, streams: out, tokens, program: None }
    }
}

/// Bytes that parts take in a delta, roughly.
fn estimate<'p>(parts: impl IntoIterator<Item = &'p Part>) -> usize {
    let squeezed = |part: &Part, id| {
        let bytes = part.streams.bytes(id);
        entropy::encode(Method::Zstd, bytes, 6).len().min(bytes.len()) + ENTRY
    };
    let of = |part: &Part| -> usize {
        StreamId::ALL
            .into_iter()
            .filter(|&id| !part.streams.bytes(id).is_empty())
            .map(|id| squeezed(part, id))
            .sum()
    };
    parts.into_iter().map(of).sum()
}

/// For each view, where it starts in a text of the views that are used alone.
fn used_views(old: &OldText, matches: &[Match]) -> Vec<Option<usize>> {
    let mut used = vec![None; old.views.len()];
    for m in matches {
        used[old.ends.partition_point(|&end| end <= m.old)] = Some(0);
    }
    let mut at = 0;
    for (i, slot) in used.iter_mut().enumerate() {
        if slot.is_some() {
            *slot = Some(at);
            at += old.ends[i] - if i == 0 { 0 } else { old.ends[i - 1] };
        }
    }
    used
}

/// Writes literals, copies and corrections; literals go to the stream of class binary. Returns the corrections.
fn operations(
    new: &[u8],
    range: Range<usize>,
    old: &OldText,
    used: &[Option<usize>],
    matches: &[Match],
    out: &mut Streams,
) -> u64 {
    let mut corrections = 0;
    let (mut at, mut expected, mut gap) = (range.start, 0i64, 0u64);
    for m in matches {
        let view = old.ends.partition_point(|&end| end <= m.old);
        let start = if view == 0 { 0 } else { old.ends[view - 1] };
        let address = (used[view].unwrap_or(0) + m.old - start) as i64;
        put(out.get(StreamId::LiteralLengths), (m.new - at) as u64);
        out.get(StreamId::Binary).extend_from_slice(&new[at..m.new]);
        put_signed(out.get(StreamId::Addresses), address - expected);
        put(out.get(StreamId::CopyLengths), m.len as u64);
        for (a, b) in new[m.new..m.new + m.len].iter().zip(&old.bytes[m.old..]) {
            if a == b {
                gap += 1;
            } else {
                put(out.get(StreamId::Gaps), gap);
                out.get(StreamId::Corrections).push(a.wrapping_sub(*b));
                corrections += 1;
                gap = 0;
            }
        }
        at = m.new + m.len;
        expected = address + m.len as i64;
    }
    if at < range.end {
        put(out.get(StreamId::LiteralLengths), (range.end - at) as u64);
        out.get(StreamId::Binary).extend_from_slice(&new[at..range.end]);
    }
    corrections
}

/// What kind of bytes literals are.
pub(super) fn class(literals: &[u8]) -> u64 {
    let mut counts = [0u64; 256];
    literals.iter().for_each(|&b| counts[usize::from(b)] += 1);
    let total = literals.len() as u64;
    let printable: u64 = (32..127).chain([9, 10, 13]).chain(128..256).map(|b| counts[b]).sum();
    let high: u64 = counts[128..].iter().sum();
    if printable * 100 >= total * 97 && high * 3 <= total {
        return items::TEXT;
    }
    // Bits by order 0: compressed bytes come close to eight.
    let entropy: f64 =
        counts.iter().filter(|&&n| n > 0).map(|&n| n as f64 * (total as f64 / n as f64).log2()).sum();
    if total >= 4096 && entropy > 7.85 * total as f64 { items::DENSE } else { items::BINARY }
}
