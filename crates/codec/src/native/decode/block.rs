//! Carrying out one block.

use std::io::Write;

use super::ItemUse;
use super::base::Base;
use super::text::{Text, View};
use crate::ReadAt;
use crate::digest::Hashing;
use crate::native::container::Head;
use crate::native::deflate;
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
        }
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
        ]
        .map(Fields::left)
    }

    /// Every stream must be used up.
    fn end(&self) -> Result<(), Error> {
        let fixed = [&self.plan, &self.headers, &self.names, &self.literal_lengths, &self.copy_lengths];
        let rest = [&self.addresses, &self.gaps, &self.corrections];
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
            text.push(self.view(member, &mut input.plan, &mut room)?)?;
        }
        let corrections = input.plan.number()?;
        let mut source = Operations {
            text: &text,
            literal_lengths: &mut input.literal_lengths,
            copy_lengths: &mut input.copy_lengths,
            addresses: &mut input.addresses,
            gaps: &mut input.gaps,
            corrections: &mut input.corrections,
            literals: &mut input.literals[class],
            literal_left: 0,
            copy_left: 0,
            fresh: true,
            address: 0,
            corrections_left: corrections,
            until_correction: 0,
        };
        source.next_gap()?;
        match transform {
            items::PLAIN => source.copy_to(len, out)?,
            items::PACKED => {
                let end = out.left - len;
                let streams = input.plan.at_most(items::MAX_STREAMS, "number of packed streams")?;
                item.rebuilt = streams;
                for _ in 0..streams {
                    let plain = input.plan.at_most(out.left - end, "bytes before a packed stream")?;
                    source.copy_to(plain, out)?;
                    let encoder = Encoder::read(&mut input.plan)?;
                    let listed = |name| self.head.encoders.iter().any(|e| e == name);
                    if !encoder.name().is_none_or(listed) {
                        return Err(Error::Contradiction(
                            "a part uses an encoder that the head does not list",
                        ));
                    }
                    let stream = input.plan.at_most(out.left - end, "length of a packed stream")?;
                    let content = input.plan.number()?;
                    if !may_hold(stream, content) {
                        return Err(Error::TooMuchWork);
                    }
                    self.budget.encode(encoder.work(content))?;
                    let taken = content.saturating_add(stream).saturating_add(encoder.memory(content));
                    if taken > room {
                        return Err(Error::MemoryExceeded(self.head.memory));
                    }
                    let mut bytes = vec![0; content as usize];
                    source.fill(&mut bytes)?;
                    let made = encoder.rebuild(&bytes, stream as usize).map_err(|_| Error::TooMuchWork)?;
                    if made.len() as u64 != stream {
                        let (format, made) = (encoder.format(), made.len() as u64);
                        return Err(Error::Rebuilt { format, made, wanted: stream });
                    }
                    out.write(&made)?;
                }
                source.copy_to(out.left - end, out)?;
            }
            value => return Err(Error::Unknown { what: "transform", value }),
        }
        source.end()
    }

    /// Section 6.5: one view of an old file.
    fn view(&mut self, member: u64, plan: &mut Fields<'_>, room: &mut u64) -> Result<View<'a>, Error> {
        let size = self.base.len(member);
        let content = self.base.content(member)?;
        match plan.number()? {
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
            kind @ (items::VIEW_INFLATED | items::VIEW_XZ | items::VIEW_ZSTD) => {
                let offset = plan.at_most(size, "start of a packed stream")?;
                let (format, name) = match kind {
                    items::VIEW_XZ => (Format::Xz, "xz"),
                    items::VIEW_ZSTD => (Format::Zstd, "zstd"),
                    _ => (Format::Deflate(None), "deflate"),
                };
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
                    ExpandError::Stream(what) => Error::Expand { format: name, member, offset, what },
                })
            }
            value => Err(Error::Unknown { what: "view", value }),
        }
    }
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

/// The new text of a part, as literals and corrected copies give it (section 6.6).
struct Operations<'p, 's, 'a> {
    text: &'p Text<'a>,
    literal_lengths: &'p mut Fields<'s>,
    copy_lengths: &'p mut Fields<'s>,
    addresses: &'p mut Fields<'s>,
    gaps: &'p mut Fields<'s>,
    corrections: &'p mut Fields<'s>,
    literals: &'p mut Fields<'s>,
    literal_left: u64,
    copy_left: u64,
    /// Whether a literal comes next, rather than a copy.
    fresh: bool,
    /// Address of the next byte to copy.
    address: u64,
    corrections_left: u64,
    /// Copied bytes before the next correction, if there is one.
    until_correction: u64,
}

impl Operations<'_, '_, '_> {
    /// Fills `buf` with the next bytes.
    fn fill(&mut self, mut buf: &mut [u8]) -> Result<(), Error> {
        while !buf.is_empty() {
            if self.literal_left > 0 {
                let n = self.literal_left.min(buf.len() as u64) as usize;
                let (now, later) = buf.split_at_mut(n);
                now.copy_from_slice(self.literals.bytes(n)?);
                self.literal_left -= n as u64;
                buf = later;
            } else if self.copy_left > 0 {
                let n = self.copy_left.min(buf.len() as u64) as usize;
                let (now, later) = buf.split_at_mut(n);
                self.text.read(self.address, now)?;
                self.correct(now)?;
                self.address += n as u64;
                self.copy_left -= n as u64;
                buf = later;
            } else if self.fresh {
                self.literal_left = self.literal_lengths.number()?;
                self.fresh = false;
            } else {
                let expected = self.address as i64;
                let address = expected.checked_add(self.addresses.signed()?);
                let len = self.copy_lengths.number()?;
                let address = address.and_then(|a| u64::try_from(a).ok());
                let address =
                    address.filter(|a| a.checked_add(len).is_some_and(|end| end <= self.text.len()));
                self.address = address.ok_or(Error::Contradiction("a copy beyond the old text"))?;
                if len == 0 {
                    return Err(Error::Contradiction("a copy of no bytes"));
                }
                self.copy_left = len;
                self.fresh = true;
            }
        }
        Ok(())
    }

    /// Adds the corrections that fall into bytes just copied.
    fn correct(&mut self, copied: &mut [u8]) -> Result<(), Error> {
        let mut at = 0;
        while self.corrections_left > 0 && self.until_correction < (copied.len() - at) as u64 {
            at += self.until_correction as usize;
            copied[at] = copied[at].wrapping_add(self.corrections.byte()?);
            at += 1;
            self.corrections_left -= 1;
            self.next_gap()?;
        }
        if self.corrections_left > 0 {
            self.until_correction -= (copied.len() - at) as u64;
        }
        Ok(())
    }

    fn next_gap(&mut self) -> Result<(), Error> {
        if self.corrections_left > 0 {
            self.until_correction = self.gaps.number()?;
        }
        Ok(())
    }

    fn copy_to<W: Write>(&mut self, mut len: u64, out: &mut Output<'_, '_, W>) -> Result<(), Error> {
        out.reserve(len)?;
        let mut buf = vec![0; CHUNK.min(len as usize)];
        while len > 0 {
            let n = len.min(buf.len() as u64) as usize;
            self.fill(&mut buf[..n])?;
            out.write(&buf[..n])?;
            len -= n as u64;
        }
        Ok(())
    }

    /// Nothing may be left of the operation at hand.
    fn end(&self) -> Result<(), Error> {
        if self.literal_left > 0 || self.copy_left > 0 || self.corrections_left > 0 {
            return Err(Error::Contradiction("operations make more than their part"));
        }
        Ok(())
    }
}
