//! Copies from programs, with their references predicted (`docs/formats/native-delta.md`, section 9).

use super::operations::{Cursors, Operations};
use super::text::Text;
use crate::native::Error;
use crate::native::entropy::decisions::Reader;
use crate::native::exec::Machine;
use crate::native::exec::elf::HEAD;
use crate::native::exec::predict::{self, Copy, Old, Predictor};

/// Bytes made at once, and what a reference may add.
const CHUNK: u64 = 64 << 10;

/// The programs among the views of a part, and the state of predictions.
pub(super) struct Programs<'p, 's> {
    olds: Vec<Old<'p>>,
    /// For each, which of its pieces is made, and how much of that is.
    next: Vec<(usize, u64)>,
    predictor: Predictor,
    reader: Reader<'s>,
}

impl<'p, 's> Programs<'p, 's> {
    /// Reads the copies of a new text of `len` bytes, and what they tell. `left` is the memory that there is.
    pub(super) fn new<'a>(
        machine: Machine,
        text: &'p Text<'a>,
        input: &Cursors<'s>,
        corrections: u64,
        references: &'s [u8],
        len: u64,
        left: u64,
    ) -> Result<Option<Self>, Error> {
        let Some(left) = left.checked_sub(predict::memory(text.program_bytes())) else { return Ok(None) };
        let mut most = left / predict::PER_COPY;
        let Some(copies) = Operations::copies(text, input, len, most)? else { return Ok(None) };
        most -= copies.len() as u64;
        let mut head = vec![0; len.min(HEAD as u64) as usize];
        Operations::new(text, input.clone(), corrections)?.fill(&mut head)?;
        let after = predict::layout(&head, len, machine);
        let mut by_view = vec![Vec::new(); text.programs()];
        for copy in copies {
            if let Some((number, old)) = text.program(copy.old) {
                by_view[number].push(Copy { old, ..copy });
            }
        }
        let mut olds = Vec::with_capacity(by_view.len());
        for (number, copies) in by_view.iter().enumerate() {
            let Some((file, program)) = text.program_number(number) else { continue };
            if copies.iter().any(|c| c.old + c.len > file.len() as u64) {
                return Err(Error::Contradiction("a copy across the border of two views"));
            }
            let Some(old) = Old::new(number, file, program, copies, &after, most) else { return Ok(None) };
            most -= old.pieces.len() as u64;
            olds.push(old);
        }
        let next = vec![(0, 0); olds.len()];
        let predictor = Predictor::new(after, text.program_bytes());
        Ok(Some(Programs { olds, next, predictor, reader: Reader::new(references) }))
    }

    /// Makes the next bytes of a copy from byte `old` of a program on, of which `left` bytes are left.
    pub(super) fn make(
        &mut self,
        number: usize,
        old: u64,
        left: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let program = &self.olds[number];
        let (index, done) = &mut self.next[number];
        let lost = || Error::Contradiction("a copy across the border of two views");
        let piece = *program.pieces.get(*index).ok_or_else(lost)?;
        let left = left.min(piece.len - *done);
        if piece.old + *done != old || left == 0 {
            return Err(lost());
        }
        // Up to a reference that would be cut in two.
        let references = program.references(&piece);
        let from = references.partition_point(|r| u64::from(r.place()) < old);
        let mut until = old + left.min(CHUNK);
        let to = from + references[from..].partition_point(|r| u64::from(r.place()) < until);
        let references = &references[from..to];
        if let Some(last) = references.last() {
            until = until.max(u64::from(last.place()) + last.kind().len() as u64);
        }
        out.extend_from_slice(&program.file[old as usize..until as usize]);
        for &reference in references {
            let at = (u64::from(reference.place()) - old) as usize;
            let field = &mut out[at..at + reference.kind().len()];
            self.predictor.code(program, &piece, reference, field, None, &mut self.reader);
        }
        *done += until - old;
        if *done == piece.len {
            (*index, *done) = (*index + 1, 0);
        }
        Ok(())
    }
}
