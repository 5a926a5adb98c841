//! Writing operations.

use std::io::{self, Read, Write};

use super::{MAGIC, MAX_LITERAL, Op, OpCounts};

/// Writes a delta operation by operation, each in its shortest form (section 4).
#[derive(Debug)]
pub struct OpWriter<W> {
    out: W,
    counts: OpCounts,
    written: u64,
    /// Literals of up to 64 bytes get an operation without a length field. The engine's own writer has no such form.
    short_literals: bool,
}

impl<W: Write> OpWriter<W> {
    /// Writes the magic.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        let written = MAGIC.len() as u64;
        Ok(OpWriter { out, counts: OpCounts::default(), written, short_literals: true })
    }

    /// The same, but literals in the forms that the engine writes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn classic(out: W) -> io::Result<Self> {
        Ok(OpWriter { short_literals: false, ..OpWriter::new(out)? })
    }

    /// Writes a literal, nothing if it is empty. It is at most [`MAX_LITERAL`] bytes long.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u64;
        if len == 0 {
            return Ok(());
        }
        self.begin_literal(len)?;
        self.put(bytes)
    }

    /// Writes `len` bytes of `content` as literals.
    ///
    /// # Errors
    /// Those of `out` and of `content`, which must not end first.
    pub fn literal_from(&mut self, content: &mut impl Read, mut len: u64) -> io::Result<()> {
        let mut buf = vec![0; len.min(64 << 10) as usize];
        while len > 0 {
            let mut left = len.min(MAX_LITERAL);
            len -= left;
            self.begin_literal(left)?;
            while left > 0 {
                let n = left.min(buf.len() as u64) as usize;
                content.read_exact(&mut buf[..n])?;
                self.put(&buf[..n])?;
                left -= n as u64;
            }
        }
        Ok(())
    }

    fn begin_literal(&mut self, len: u64) -> io::Result<()> {
        if self.short_literals && len <= 0x40 {
            self.put(&[len as u8])?;
        } else {
            let width = width_log(len);
            self.put(&[0x41 + width])?;
            self.number(len, width)?;
        }
        self.counts.count(Op::Literal(len));
        Ok(())
    }

    /// Writes a copy, nothing if it is empty.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn copy(&mut self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (offset_width, len_width) = (width_log(offset), width_log(len));
        self.put(&[0x45 + 4 * offset_width + len_width])?;
        self.number(offset, offset_width)?;
        self.number(len, len_width)?;
        self.counts.count(Op::Copy { offset, len });
        Ok(())
    }

    /// Writes the end. Gives the output back, what was written, and its bytes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<(W, OpCounts, u64)> {
        self.put(&[0])?;
        Ok((self.out, self.counts, self.written))
    }

    fn number(&mut self, number: u64, width_log: u8) -> io::Result<()> {
        let bytes = number.to_be_bytes();
        self.put(&bytes[8 - (1 << width_log)..])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// log2 of the bytes that a number takes: 1, 2, 4 or 8.
pub(super) fn width_log(number: u64) -> u8 {
    match number {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}
