//! The old text of a part: views of old files, one behind the other (`docs/formats/native-delta.md`, section 6.5).

use super::base::OldFile;
use crate::ReadAt;
use crate::native::Error;
use crate::native::exec::Program;

/// Old bytes that copies may take.
pub(crate) enum View<'a> {
    /// Bytes of an old file as they are: where they start, and how many.
    Raw(OldFile<'a>, u64, u64),
    /// A stream of an old file, expanded.
    Expanded(Vec<u8>),
    /// A program, read to memory, and what is known of it.
    Program(Vec<u8>, Box<Program>),
}

impl View<'_> {
    fn len(&self) -> u64 {
        match self {
            View::Raw(_, _, len) => *len,
            View::Expanded(bytes) | View::Program(bytes, _) => bytes.len() as u64,
        }
    }
}

/// Views one behind the other. An address counts from the start of the first.
#[derive(Default)]
pub(crate) struct Text<'a> {
    views: Vec<View<'a>>,
    /// Where each view ends.
    ends: Vec<u64>,
    /// Which views are programs, ascending.
    programs: Vec<usize>,
}

impl<'a> Text<'a> {
    pub(crate) fn push(&mut self, view: View<'a>) -> Result<(), Error> {
        let end = self.len().checked_add(view.len()).filter(|&end| end < 1 << 62);
        self.ends.push(end.ok_or(Error::Contradiction("views of too many bytes"))?);
        if matches!(view, View::Program(..)) {
            self.programs.push(self.views.len());
        }
        self.views.push(view);
        Ok(())
    }

    /// How many views are programs.
    pub(crate) fn programs(&self) -> usize {
        self.programs.len()
    }

    /// Bytes of all programs.
    pub(crate) fn program_bytes(&self) -> u64 {
        self.programs.iter().map(|&view| self.views[view].len()).sum()
    }

    /// A program by its number among the programs.
    pub(crate) fn program_number(&self, number: usize) -> Option<(&[u8], &Program)> {
        match self.views.get(*self.programs.get(number)?)? {
            View::Program(bytes, program) => Some((bytes, program)),
            _ => None,
        }
    }

    /// The number among the programs of the one that holds an address, and the place in it.
    pub(crate) fn program(&self, address: u64) -> Option<(usize, u64)> {
        let view = self.ends.partition_point(|&end| end <= address);
        let number = self.programs.binary_search(&view).ok()?;
        Some((number, address - if view == 0 { 0 } else { self.ends[view - 1] }))
    }

    pub(crate) fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Reads bytes that lie in one view; `address + buf.len()` is at most the length of the text.
    pub(crate) fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Error> {
        let i = self.ends.partition_point(|&end| end <= address);
        let Some(view) = self.views.get(i) else {
            return Err(Error::Contradiction("a copy beyond the old text"));
        };
        let offset = address - if i == 0 { 0 } else { self.ends[i - 1] };
        if buf.len() as u64 > view.len() - offset {
            return Err(Error::Contradiction("a copy across the border of two views"));
        }
        match view {
            View::Raw(file, start, _) => file.read_exact_at(start + offset, buf).map_err(Error::ReadSource),
            View::Expanded(bytes) | View::Program(bytes, _) => {
                let offset = offset as usize;
                buf.copy_from_slice(&bytes[offset..offset + buf.len()]);
                Ok(())
            }
        }
    }
}
