//! Carrying out one block.

use std::io::Write;

use super::ItemUse;
use super::base::Base;
use super::operations::{Cursors, Operations};
use super::program::Programs;
use super::text::{Text, View};
use crate::ReadAt;
use crate::digest::Hashing;
use crate::native::container::Head;
use crate::native::deflate::{self, coded};
use crate::native::exec::{Machine, Program};
use crate::native::framing::Memory;
use crate::native::numbers::Fields;
use crate::native::packed::{self, Encoder, ExpandError, Format};
use crate::native::streams::{StreamId, Streams};
use crate::native::work::{Budget, may_hold};
use crate::native::{Error, items};
use crate::observe::{Observer, Stage};

/// Bytes handled at once.
const CHUNK: usize = 64 << 10;

/// What stays the same from block to block.
pub(super) struct Work<'a> {
    base: &'a Base<'a>,
    head: &'a Head,
    observer: &'a dyn Observer,
    see: &'a mut dyn FnMut(ItemUse),
    /// Bytes of the target made so far.
    made: u64,
    /// Work that may still be asked for.
    pub budget: Budget,
}

/// The streams of a block as they are read.
struct Input<'s> {
    plan: Fields<'s>,
    headers: Fields<'s>,
    names: Fields<'s>,
    literal_lengths: Fields<'s>,
    copy_lengths: Fields<'s>,
    addresses: Fields<'s>,
    gaps: Fields<'s>,
    corrections: Fields<'s>,
    literals: [Fields<'s>; items::CLASSES],
    references: Fields<'s>,
    tokens: Fields<'s>,
}

impl<'s> Input<'s> {
    fn new(streams: &'s Streams) -> Self {
        let fields = |id: StreamId| Fields::new(streams.bytes(id), id.name());
        Input {
            plan: fields(StreamId::Plan),
            headers: fields(StreamId::Headers),
            names: fields(StreamId::Names),
            literal_lengths: fields(StreamId::LiteralLengths),
            copy_lengths: fields(StreamId::CopyLengths),
            addresses: fields(StreamId::Addresses),
            gaps: fields(StreamId::Gaps),
            corrections: fields(StreamId::Corrections),
            literals: [fields(StreamId::Text), fields(StreamId::Binary), fields(StreamId::Dense)],
            references: fields(StreamId::References),
            tokens: fields(StreamId::Tokens),
        }
    }

    /// What the operations of a part read, with literals of a class.
    fn cursors(&self, class: usize) -> Cursors<'s> {
        Cursors {
            literal_lengths: self.literal_lengths.clone(),
            copy_lengths: self.copy_lengths.clone(),
            addresses: self.addresses.clone(),
            gaps: self.gaps.clone(),
            corrections: self.corrections.clone(),
            literals: self.literals[class].clone(),
        }
    }

    /// Goes on where operations left the streams.
    fn set(&mut self, class: usize, cursors: Cursors<'s>) {
        self.literal_lengths = cursors.literal_lengths;
        self.copy_lengths = cursors.copy_lengths;
        self.addresses = cursors.addresses;
        self.gaps = cursors.gaps;
        self.corrections = cursors.corrections;
        self.literals[class] = cursors.literals;
    }

    /// Bytes left of each stream.
    fn left(&self) -> [u64; StreamId::ALL.len()] {
        let [text, binary, dense] = &self.literals;
        [
            &self.plan,
            &self.headers,
            &self.names,
            &self.literal_lengths,
            &self.copy_lengths,
            &self.addresses,
            &self.gaps,
            &self.corrections,
            text,
            binary,
            dense,
            &self.references,
            &self.tokens,
        ]
        .map(Fields::left)
    }

    /// Every stream must be used up.
    fn end(&self) -> Result<(), Error> {
        let fixed = [&self.plan, &self.headers, &self.names, &self.literal_lengths, &self.copy_lengths];
        let rest = [&self.addresses, &self.gaps, &self.corrections, &self.references, &self.tokens];
        fixed.into_iter().chain(rest).chain(&self.literals).try_for_each(Fields::end)
    }
}

/// Where a block's bytes go.
struct Output<'o, 'w, W: Write> {
    out: &'o mut Hashing<&'w mut W>,
    /// Bytes of the block still to be made.
    left: u64,
    /// Bytes of the target before this block.
    before: u64,
    total: u64,
    observer: &'o dyn Observer,
}

impl<W: Write> Output<'_, '_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.reserve(bytes.len() as u64)?;
        if self.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        self.out.write_all(bytes).map_err(Error::Write)?;
        self.left -= bytes.len() as u64;
        self.observer.progress(Stage::Apply, self.position(), self.total);
        Ok(())
    }

    /// Refuses what the block has no room for.
    fn reserve(&self, len: u64) -> Result<(), Error> {
        if len > self.left {
            Err(Error::Contradiction("a block makes more than it declares"))
        } else {
            Ok(())
        }
    }

    fn position(&self) -> u64 {
        self.out.passed()
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(
        base: &'a Base<'a>,
        head: &'a Head,
        observer: &'a dyn Observer,
        see: &'a mut dyn FnMut(ItemUse),
    ) -> Self {
        Work { base, head, observer, see, made: 0, budget: Budget::new(head.size) }
    }

    /// Makes the bytes of block `number`, from 0.
    pub(super) fn block<W: Write>(
        &mut self,
        streams: &Streams,
        number: usize,
        out: &mut Hashing<&mut W>,
    ) -> Result<(), Error> {
        let output = self.head.blocks[number].output;
        let mut out =
            Output { out, left: output, before: self.made, total: self.head.size, observer: self.observer };
        let mut input = Input::new(streams);
        let room = self.head.memory.saturating_sub(streams.len() as u64);
        let mut state = State { memory: Memory::default(), next_reference: 0, next_file: 0, room };
        while out.left > 0 {
            let before = input.left();
            let mut item =
                ItemUse { block: number, end: 0, taken: before, rebuilt: 0, copies: false, codes: false };
            match input.plan.number()? {
                items::HEADER => item.copies = self.header(&mut input, &mut state, &mut out)?,
                items::WHOLE => {
                    let member = state.file(&mut input.plan, self.base)?;
                    self.whole(member, &mut out)?;
                    item.copies = true;
                }
                items::PART => self.part(&mut input, &mut state, &mut out, &mut item)?,
                items::ZEROS => {
                    let len = input.plan.at_most(out.left, "length of zeros")?;
                    if len == 0 {
                        return Err(Error::Contradiction("an item of no bytes"));
                    }
                    zeros(len, &mut out)?;
                }
                value => return Err(Error::Unknown { what: "item", value }),
            }
            item.end = out.position();
            item.taken.iter_mut().zip(input.left()).for_each(|(taken, left)| *taken -= left);
            (self.see)(item);
        }
        debug_assert_eq!(out.position(), out.before + output);
        self.made += output;
        input.end()
    }

    /// Section 6.2: a header, and the content if it is that of the reference; whether it is.
    fn header<W: Write>(
        &self,
        input: &mut Input<'_>,
        state: &mut State,
        out: &mut Output<'_, '_, W>,
    ) -> Result<bool, Error> {
        let padding = out.position().next_multiple_of(items::BLOCK) - out.position();
        zeros(padding, out)?;
        let reference = match input.headers.number()? {
            0 => None,
            value => {
                let step = ((value - 1) >> 1) as i64 ^ -(((value - 1) & 1) as i64);
                let number = state.next_reference.checked_add_signed(step);
                let number = number.filter(|&n| n < self.base.count());
                let number = number.ok_or(Error::Contradiction("a header refers to no old member"))?;
                state.next_reference = number + 1;
                Some(number)
            }
        };
        let framing = reference.map(|n| self.base.framing(n, &state.memory)).transpose()?;
        if framing.as_ref().is_some_and(|f| f.is_empty() || !(f.len() as u64).is_multiple_of(items::BLOCK)) {
            return Err(Error::Contradiction("a header refers to a member without header blocks"));
        }
        let base = framing.as_deref().zip(reference.map(|n| self.base.len(n)));
        let (made, explicit) = state.memory.decode(base, &mut input.headers, &mut input.names)?;
        out.write(made)?;
        match (reference, explicit) {
            (Some(number), None) => {
                state.next_file = number + 1;
                self.whole(number, out)?;
                Ok(self.base.len(number) > 0)
            }
            _ => Ok(false),
        }
    }

    /// Section 6.3: all of an old file.
    fn whole<W: Write>(&self, member: u64, out: &mut Output<'_, '_, W>) -> Result<(), Error> {
        let content = self.base.content(member)?;
        out.reserve(content.size())?;
        let mut buf = vec![0; CHUNK.min(content.size() as usize)];
        let mut at = 0;
        while at < content.size() {
            let n = (content.size() - at).min(buf.len() as u64) as usize;
            content.read_exact_at(at, &mut buf[..n]).map_err(Error::ReadSource)?;
            out.write(&buf[..n])?;
            at += n as u64;
        }
        Ok(())
    }

    /// Section 6.4: new bytes from old text and literals.
    fn part<W: Write>(
        &mut self,
        input: &mut Input<'_>,
        state: &mut State,
        out: &mut Output<'_, '_, W>,
        item: &mut ItemUse,
    ) -> Result<(), Error> {
        let transform = input.plan.number()?;
        let listed = Machine::of_transform(transform).is_some_and(|m| self.head.lists(m.name()));
        if transform > items::PACKED && !listed {
            return Err(Error::Unknown { what: "transform", value: transform });
        }
        let len = input.plan.at_most(out.left, "length of a part")?;
        if len == 0 {
            return Err(Error::Contradiction("an item of no bytes"));
        }
        let class = input.plan.at_most(items::CLASSES as u64 - 1, "class of literals")? as usize;
        let mut room = state.room;
        let views = input.plan.at_most(items::MAX_VIEWS, "number of views")?;
        (item.codes, item.copies) = (true, views > 0);
        let mut text = Text::default();
        for _ in 0..views {
            let member = state.file(&mut input.plan, self.base)?;
            text.push(self.view(member, transform, &mut input.plan, &mut room)?)?;
        }
        let corrections = input.plan.number()?;
        let packed = if transform == items::PLAIN { Vec::new() } else { self.streams(input, len)? };
        item.rebuilt = packed.len() as u64;
        let mut tokens = None;
        if packed.iter().any(|p| matches!(p.encoder.inner(), Encoder::Tokens(_))) {
            let coded = input.plan.at_most(input.tokens.left(), "length of tokens")?;
            tokens = Some(coded::Decoder::new(input.tokens.bytes(coded as usize)?));
        }
        let cursors = input.cursors(class);
        let mut source = Operations::new(&text, cursors.clone(), corrections)?;
        if let Some(machine) = Machine::of_transform(transform) {
            let coded = input.plan.at_most(input.references.left(), "length of references")?;
            let references = input.references.bytes(coded as usize)?;
            let content: u64 = packed.iter().map(|p| p.content).sum();
            let new = len - packed.iter().map(|p| p.stream).sum::<u64>() + content;
            let largest = packed.iter().map(Packed::memory).max().unwrap_or(0);
            let left = room.saturating_sub(largest);
            let programs = Programs::new(machine, &text, &cursors, corrections, references, new, left)?;
            source = source.with(programs.ok_or(Error::MemoryExceeded(self.head.memory))?);
        }
        for stream in &packed {
            copy_to(&mut source, stream.before, out)?;
            self.rebuild(stream, &mut source, tokens.as_mut(), room, out)?;
        }
        let streams: u64 = packed.iter().map(|p| p.before + p.stream).sum();
        copy_to(&mut source, len - streams, out)?;
        input.set(class, source.end()?);
        Ok(())
    }

    /// Section 8.1: the packed streams of a part of `len` bytes.
    fn streams(&self, input: &mut Input<'_>, len: u64) -> Result<Vec<Packed>, Error> {
        let count = input.plan.at_most(items::MAX_STREAMS, "number of packed streams")?;
        let mut left = len;
        let mut out = Vec::new();
        for _ in 0..count {
            let before = input.plan.at_most(left, "bytes before a packed stream")?;
            let encoder = Encoder::read(&mut input.plan)?;
            if !encoder.names().all(|name| self.head.lists(name)) {
                return Err(Error::Contradiction("a part uses an encoder that the head does not list"));
            }
            let stream = input.plan.at_most(left - before, "length of a packed stream")?;
            let content = input.plan.number()?;
            if !may_hold(stream, content) {
                return Err(Error::TooMuchWork);
            }
            left -= before + stream;
            out.push(Packed { before, encoder, stream, content });
        }
        Ok(out)
    }

    /// Makes a packed stream of its content.
    fn rebuild<W: Write>(
        &mut self,
        packed: &Packed,
        source: &mut Operations<'_, '_, '_>,
        tokens: Option<&mut coded::Decoder<'_>>,
        room: u64,
        out: &mut Output<'_, '_, W>,
    ) -> Result<(), Error> {
        let Packed { encoder, stream, content, .. } = *packed;
        self.budget.encode(encoder.work(content))?;
        if packed.memory() > room {
            return Err(Error::MemoryExceeded(self.head.memory));
        }
        let mut bytes = vec![0; content as usize];
        source.fill(&mut bytes)?;
        let most = stream as usize;
        let made = encoder.rebuild_with(&bytes, most, tokens).map_err(|stop| match stop {
            deflate::Stop::Differs => Error::Tokens,
            deflate::Stop::TooMuchWork => Error::TooMuchWork,
        })?;
        if made.len() as u64 != stream {
            let (format, made) = (encoder.format(), made.len() as u64);
            return Err(Error::Rebuilt { format, made, wanted: stream });
        }
        out.write(&made)
    }

    /// Sections 6.5 and 9.1: one view of an old file.
    fn view(
        &mut self,
        member: u64,
        transform: u64,
        plan: &mut Fields<'_>,
        room: &mut u64,
    ) -> Result<View<'a>, Error> {
        let number = plan.number()?;
        let Some(machine) = Machine::of_transform(transform).filter(|_| number & items::VIEW_PROGRAM != 0)
        else {
            return self.bytes(member, number, plan, room);
        };
        let exceeded = Error::MemoryExceeded(self.head.memory);
        let bytes = match number - items::VIEW_PROGRAM {
            items::VIEW_WHOLE => {
                let size = self.base.len(member);
                let Some(left) = room.checked_sub(size) else { return Err(exceeded) };
                *room = left;
                self.budget.view(size)?;
                let mut bytes = vec![0; size as usize];
                self.base.content(member)?.read_exact_at(0, &mut bytes).map_err(Error::ReadSource)?;
                bytes
            }
            kind => match self.bytes(member, kind, plan, room)? {
                View::Expanded(bytes) => bytes,
                _ => return Err(Error::Unknown { what: "view", value: number }),
            },
        };
        let program = Program::read(&bytes, machine);
        let Some(left) = room.checked_sub(program.memory()) else { return Err(exceeded) };
        *room = left;
        Ok(View::Program(bytes, Box::new(program)))
    }

    /// Section 6.5: the bytes of a view.
    fn bytes(
        &mut self,
        member: u64,
        kind: u64,
        plan: &mut Fields<'_>,
        room: &mut u64,
    ) -> Result<View<'a>, Error> {
        let size = self.base.len(member);
        let content = self.base.content(member)?;
        match kind {
            items::VIEW_WHOLE => {
                self.budget.view(0)?;
                Ok(View::Raw(content, 0, size))
            }
            items::VIEW_RANGE => {
                self.budget.view(0)?;
                let start = plan.at_most(size, "start of a view")?;
                let len = plan.at_most(size - start, "length of a view")?;
                Ok(View::Raw(content, start, len))
            }
            kind => {
                let known = Format::of_view(kind);
                let format = known.filter(|f| f.listed().is_none_or(|name| self.head.lists(name)));
                let Some(format) = format else { return Err(Error::Unknown { what: "view", value: kind }) };
                let offset = plan.at_most(size, "start of a packed stream")?;
                let stream = match format {
                    Format::Deflate(_) => None,
                    _ => Some(plan.at_most(size - offset, "length of a packed stream")?),
                };
                let len = plan.number()?;
                let exceeded = Error::MemoryExceeded(self.head.memory);
                let Some(left) = room.checked_sub(len) else { return Err(exceeded) };
                *room = left;
                if stream.is_some_and(|s| packed::expanding(s, len) > left) {
                    return Err(exceeded);
                }
                self.budget.view(len.saturating_add(stream.unwrap_or(0)))?;
                let expanded = match stream {
                    None => deflate::inflate_exact(&content, offset, len as usize),
                    Some(stream) => packed::expand_exact(&content, offset, stream, format, len as usize),
                };
                expanded.map(View::Expanded).map_err(|e| match e {
                    ExpandError::Read(e) => Error::ReadSource(e),
                    ExpandError::Stream(what) => {
                        Error::Expand { format: format.name(), member, offset, what }
                    }
                })
            }
        }
    }
}

/// A packed stream that is rebuilt (section 8.1).
struct Packed {
    /// Bytes of the part between the stream before and this one.
    before: u64,
    encoder: Encoder,
    stream: u64,
    content: u64,
}

impl Packed {
    /// Bytes of memory that it takes.
    fn memory(&self) -> u64 {
        self.content
            .saturating_add(self.stream)
            .saturating_add(self.encoder.memory(self.content, self.stream))
    }
}

/// Sends the next `len` bytes of a new text.
fn copy_to<W: Write>(
    source: &mut Operations<'_, '_, '_>,
    mut len: u64,
    out: &mut Output<'_, '_, W>,
) -> Result<(), Error> {
    out.reserve(len)?;
    let mut buf = vec![0; CHUNK.min(len as usize)];
    while len > 0 {
        let n = len.min(buf.len() as u64) as usize;
        source.fill(&mut buf[..n])?;
        out.write(&buf[..n])?;
        len -= n as u64;
    }
    Ok(())
}

/// What a block remembers from item to item.
struct State {
    memory: Memory,
    /// The old member behind the latest reference.
    next_reference: u64,
    /// The old member behind the latest file used.
    next_file: u64,
    /// Bytes of memory that a part may take.
    room: u64,
}

impl State {
    /// An old file, told by its distance from the one expected.
    fn file(&mut self, plan: &mut Fields<'_>, base: &Base<'_>) -> Result<u64, Error> {
        let number = self.next_file.checked_add_signed(plan.signed()?);
        let number = number.filter(|&n| n < base.count());
        let number = number.ok_or(Error::Contradiction("an item refers to no old member"))?;
        self.next_file = number + 1;
        Ok(number)
    }
}

fn zeros<W: Write>(mut len: u64, out: &mut Output<'_, '_, W>) -> Result<(), Error> {
    const ZEROS: [u8; 4096] = [0; 4096];
    out.reserve(len)?;
    while len > 0 {
        let n = len.min(ZEROS.len() as u64);
        out.write(&ZEROS[..n as usize])?;
        len -= n;
    }
    Ok(())
}
