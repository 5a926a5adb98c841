//! The algorithm of the engine: whole blocks of the basis, found by their sums (section 5.1).

use std::collections::HashMap;
use std::io::{self, Read, Write};

use super::signature::Rolling;
use super::{Error, MAX_LITERAL, OpCounts, OpWriter, Signature};
use crate::observe::{Observer, Stage};

/// Makes a delta from the signature of a basis as librsync-go does: greedily, one candidate for each weak sum, copies of blocks
/// that follow each other joined, everything else literal, the end too when it is shorter than a block.
///
/// Gives what was written. Memory: 16 bytes for each block besides the signature, and a literal of up to 16 MiB.
///
/// # Errors
/// [`Error::ReadBasis`] when `new` cannot be read, [`Error::Write`], [`Error::Cancelled`].
pub fn classic(
    signature: &Signature,
    new: impl Read,
    out: &mut impl Write,
    observer: &dyn Observer,
) -> Result<(OpCounts, u64), Error> {
    let mut numbers = HashMap::with_capacity(signature.weak_sums().len());
    for (number, weak) in signature.weak_sums().iter().enumerate() {
        numbers.insert(*weak, number);
    }
    let len = signature.block_len() as usize;
    let mut window = Window { new, buf: Vec::new(), at: 0, literal: 0, ended: false };
    let mut writer = OpWriter::classic(out).map_err(Error::Write)?;
    let mut copy: Option<(u64, u64)> = None;
    let mut rolling = None;
    let mut done = 0;
    while window.fill(len).map_err(Error::ReadBasis)? {
        let block = &window.buf[window.at..window.at + len];
        let sum = *rolling.get_or_insert_with(|| Rolling::new(signature.kinds().0, block));
        let found = numbers.get(&sum.sum()).filter(|number| signature.is_block(**number, block));
        if let Some(number) = found {
            window.flush(&mut writer, &mut copy)?;
            let offset = *number as u64 * len as u64;
            match &mut copy {
                Some((begin, joined)) if *begin + *joined == offset => *joined += len as u64,
                _ => {
                    put(&mut writer, &mut copy)?;
                    copy = Some((offset, len as u64));
                }
            }
            window.at += len;
            window.literal = window.at;
            rolling = None;
        } else {
            // The byte behind the window, to roll on to.
            let more = window.fill(len + 1).map_err(Error::ReadBasis)?;
            if more && let Some(rolling) = &mut rolling {
                rolling.roll(window.buf[window.at], window.buf[window.at + len]);
            }
            window.at += 1;
            if (window.at - window.literal) as u64 >= MAX_LITERAL {
                window.flush(&mut writer, &mut copy)?;
            }
        }
        done += 1;
        if done & 0xffff == 0 {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            observer.progress(Stage::Diff, done, 0);
        }
    }
    window.at = window.buf.len();
    window.flush(&mut writer, &mut copy)?;
    put(&mut writer, &mut copy)?;
    let (_, counts, bytes) = writer.finish().map_err(Error::Write)?;
    Ok((counts, bytes))
}

fn put<W: Write>(writer: &mut OpWriter<W>, copy: &mut Option<(u64, u64)>) -> Result<(), Error> {
    match copy.take() {
        Some((offset, len)) => writer.copy(offset, len).map_err(Error::Write),
        None => Ok(()),
    }
}

/// New content around the place that is looked at.
struct Window<R> {
    new: R,
    buf: Vec<u8>,
    /// Where in `buf` the block at hand begins.
    at: usize,
    /// Where in `buf` the literal begins that is not written yet.
    literal: usize,
    ended: bool,
}

impl<R: Read> Window<R> {
    /// Sees to it that `len` bytes are there; false when the content ends first.
    fn fill(&mut self, len: usize) -> io::Result<bool> {
        const PIECE: usize = 1 << 18;
        while !self.ended && self.buf.len() - self.at < len {
            if self.literal >= PIECE {
                self.buf.drain(..self.literal);
                self.at -= self.literal;
                self.literal = 0;
            }
            let before = self.buf.len();
            self.buf.resize(before + PIECE, 0);
            let n = loop {
                match self.new.read(&mut self.buf[before..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            self.buf.truncate(before + n);
            self.ended = n == 0;
        }
        Ok(self.buf.len() - self.at >= len)
    }

    /// Writes what waits before the block at hand.
    fn flush<W: Write>(
        &mut self,
        writer: &mut OpWriter<W>,
        copy: &mut Option<(u64, u64)>,
    ) -> Result<(), Error> {
        if self.literal < self.at {
            put(writer, copy)?;
            for piece in self.buf[self.literal..self.at].chunks(MAX_LITERAL as usize) {
                writer.literal(piece).map_err(Error::Write)?;
            }
            self.literal = self.at;
        }
        Ok(())
    }
}
