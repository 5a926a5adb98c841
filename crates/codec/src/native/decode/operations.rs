//! The operations of a part: literals, copies, corrections (`docs/formats/native-delta.md`, section 6.6).

use super::program::Programs;
use super::text::Text;
use crate::native::Error;
use crate::native::exec::predict::Copy;
use crate::native::numbers::Fields;

/// The streams that operations are read from. Clones read the same again.
#[derive(Clone)]
pub(super) struct Cursors<'s> {
    pub literal_lengths: Fields<'s>,
    pub copy_lengths: Fields<'s>,
    pub addresses: Fields<'s>,
    pub gaps: Fields<'s>,
    pub corrections: Fields<'s>,
    pub literals: Fields<'s>,
}

/// The new text of a part, as literals and corrected copies give it.
pub(super) struct Operations<'p, 's, 'a> {
    text: &'p Text<'a>,
    input: Cursors<'s>,
    literal_left: u64,
    copy_left: u64,
    /// Whether a literal comes next, rather than a copy.
    fresh: bool,
    /// Address of the next byte to copy.
    address: u64,
    corrections_left: u64,
    /// Copied bytes before the next correction, if there is one.
    until_correction: u64,
    /// What predicts references in copies from programs.
    programs: Option<Programs<'p, 's>>,
    /// Bytes copied from a program that were not asked for yet, and how many of them were.
    ready: Vec<u8>,
    taken: usize,
}

impl<'p, 's, 'a> Operations<'p, 's, 'a> {
    pub(super) fn new(text: &'p Text<'a>, input: Cursors<'s>, corrections: u64) -> Result<Self, Error> {
        let mut operations = Operations {
            text,
            input,
            literal_left: 0,
            copy_left: 0,
            fresh: true,
            address: 0,
            corrections_left: corrections,
            until_correction: 0,
            programs: None,
            ready: Vec::new(),
            taken: 0,
        };
        operations.next_gap()?;
        Ok(operations)
    }

    /// The same operations with predicted references.
    pub(super) fn with(self, programs: Programs<'p, 's>) -> Self {
        Operations { programs: Some(programs), ..self }
    }

    /// The copies that make a text of `len` bytes; `None` if there are more than `most`.
    pub(super) fn copies(
        text: &'p Text<'a>,
        input: &Cursors<'s>,
        len: u64,
        most: u64,
    ) -> Result<Option<Vec<Copy>>, Error> {
        let mut reader = Operations::new(text, input.clone(), 0)?;
        let (mut copies, mut at) = (Vec::new(), 0u64);
        while at < len {
            at = at.saturating_add(reader.input.literal_lengths.number()?);
            if at < len {
                reader.next_copy()?;
                if copies.len() as u64 == most {
                    return Ok(None);
                }
                copies.push(Copy { new: at, old: reader.address, len: reader.copy_left });
                reader.address += reader.copy_left;
                at = at.saturating_add(reader.copy_left);
            }
        }
        if at > len {
            return Err(Error::Contradiction("operations make more than their part"));
        }
        Ok(Some(copies))
    }

    /// Reads the next copy.
    fn next_copy(&mut self) -> Result<(), Error> {
        let expected = self.address as i64;
        let address = expected.checked_add(self.input.addresses.signed()?);
        let len = self.input.copy_lengths.number()?;
        let address = address.and_then(|a| u64::try_from(a).ok());
        let address = address.filter(|a| a.checked_add(len).is_some_and(|end| end <= self.text.len()));
        self.address = address.ok_or(Error::Contradiction("a copy beyond the old text"))?;
        if len == 0 {
            return Err(Error::Contradiction("a copy of no bytes"));
        }
        self.copy_left = len;
        self.fresh = true;
        Ok(())
    }

    /// Fills `buf` with the next bytes.
    pub(super) fn fill(&mut self, mut buf: &mut [u8]) -> Result<(), Error> {
        while !buf.is_empty() {
            let n = if self.taken < self.ready.len() {
                let n = (self.ready.len() - self.taken).min(buf.len());
                buf[..n].copy_from_slice(&self.ready[self.taken..self.taken + n]);
                self.taken += n;
                n
            } else if self.literal_left > 0 {
                let n = self.literal_left.min(buf.len() as u64) as usize;
                buf[..n].copy_from_slice(self.input.literals.bytes(n)?);
                self.literal_left -= n as u64;
                n
            } else if self.copy_left > 0 {
                self.copy(buf)?
            } else if self.fresh {
                self.literal_left = self.input.literal_lengths.number()?;
                self.fresh = false;
                0
            } else {
                self.next_copy()?;
                0
            };
            buf = &mut buf[n..];
        }
        Ok(())
    }

    /// Copies to `buf` as much as it holds, or makes bytes ready that belong there. Returns how many bytes were copied.
    fn copy(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let program = self.text.program(self.address);
        let (made, direct) = match (&mut self.programs, program) {
            (Some(programs), Some((number, old))) => {
                self.ready.clear();
                self.taken = 0;
                let mut ready = std::mem::take(&mut self.ready);
                programs.make(number, old, self.copy_left, &mut ready)?;
                self.correct(&mut ready)?;
                self.ready = ready;
                (self.ready.len(), 0)
            }
            _ => {
                let n = self.copy_left.min(buf.len() as u64) as usize;
                self.text.read(self.address, &mut buf[..n])?;
                self.correct(&mut buf[..n])?;
                (n, n)
            }
        };
        self.address += made as u64;
        self.copy_left -= made as u64;
        Ok(direct)
    }

    /// Adds the corrections that fall into bytes just copied.
    fn correct(&mut self, copied: &mut [u8]) -> Result<(), Error> {
        let mut at = 0;
        while self.corrections_left > 0 && self.until_correction < (copied.len() - at) as u64 {
            at += self.until_correction as usize;
            copied[at] = copied[at].wrapping_add(self.input.corrections.byte()?);
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
            self.until_correction = self.input.gaps.number()?;
        }
        Ok(())
    }

    /// What the streams hold behind the operations. Nothing may be left of the operation at hand.
    pub(super) fn end(self) -> Result<Cursors<'s>, Error> {
        let ready = self.taken < self.ready.len();
        if ready || self.literal_left > 0 || self.copy_left > 0 || self.corrections_left > 0 {
            return Err(Error::Contradiction("operations make more than their part"));
        }
        Ok(self.input)
    }
}
