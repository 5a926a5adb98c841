//! Reading operations.

use std::io::{BufRead, BufReader, Read};

use super::{Error, Limits, MAGIC, Op};

/// Output that pays for one operation, in bytes (section 3.2).
const OP_OUTPUT: u64 = 4;

/// Reads a delta operation by operation. Memory: one buffer.
#[derive(Debug)]
pub struct OpReader<R> {
    delta: BufReader<R>,
    limits: Limits,
    /// Bytes of the delta that were read.
    at: u64,
    /// The operation at hand and where it begins.
    op: u8,
    began: u64,
    /// What is left of the literal at hand.
    literal: u64,
    ops: u64,
    output: u64,
    ended: bool,
}

impl<R: Read> OpReader<R> {
    /// Reads the magic of `delta`.
    ///
    /// # Errors
    /// [`Error::NoMagic`], [`Error::BadMagic`], [`Error::ReadDelta`].
    pub fn new(delta: R, limits: Limits) -> Result<Self, Error> {
        let mut delta = BufReader::with_capacity(128 << 10, delta);
        let mut magic = Vec::with_capacity(MAGIC.len());
        delta.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(Error::ReadDelta)?;
        let magic: [u8; 4] = magic.try_into().map_err(|_| Error::NoMagic)?;
        if magic != MAGIC {
            return Err(Error::BadMagic(magic));
        }
        let at = MAGIC.len() as u64;
        Ok(OpReader { delta, limits, at, op: 0, began: at, literal: 0, ops: 0, output: 0, ended: false })
    }

    /// Bytes of the delta read so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Where the last operation begins in the delta.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// The next operation; what is left of a literal is skipped. `None` at the end, behind which nothing may follow.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn next_op(&mut self) -> Result<Option<Op>, Error> {
        while self.literal > 0 {
            let n = self.fill_literal()?.len();
            self.consume_literal(n);
        }
        if self.ended {
            return Ok(None);
        }
        self.began = self.at;
        self.op = self.byte()?.ok_or(Error::NoEnd { at: self.at })?;
        let op = match self.op {
            0x00 => {
                self.ended = true;
                return match self.byte()? {
                    None => Ok(None),
                    Some(_) => Err(Error::Trailing { at: self.at - 1 }),
                };
            }
            len @ 0x01..=0x40 => Op::Literal(u64::from(len)),
            op @ 0x41..=0x44 => Op::Literal(self.number(op - 0x41)?),
            op @ 0x45..=0x54 => {
                let (offset, len) = ((op - 0x45) / 4, (op - 0x45) % 4);
                Op::Copy { offset: self.number(offset)?, len: self.number(len)? }
            }
            op => return Err(Error::Reserved { op, at: self.began }),
        };
        let len = match op {
            Op::Literal(len) => {
                self.literal = len;
                len
            }
            Op::Copy { len, .. } => len,
        };
        if len > self.limits.max_output - self.output {
            return Err(Error::OutputTooLarge(self.limits.max_output));
        }
        self.ops += 1;
        // The output of the operation at hand does not pay for itself: it is still to be made.
        if self.ops > self.limits.spare_ops.saturating_add(self.output / OP_OUTPUT) {
            return Err(Error::TooManyOps);
        }
        self.output += len;
        Ok(Some(op))
    }

    /// Some more bytes of the literal at hand; empty at its end.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::ReadDelta`].
    pub fn fill_literal(&mut self) -> Result<&[u8], Error> {
        if self.literal == 0 {
            return Ok(&[]);
        }
        // Asked twice because a borrow that is returned early would last too long.
        if self.fill()?.is_empty() {
            return Err(Error::Truncated { op: self.op, at: self.began });
        }
        let literal = usize::try_from(self.literal).unwrap_or(usize::MAX);
        let chunk = self.fill()?;
        Ok(&chunk[..chunk.len().min(literal)])
    }

    /// Takes `n` bytes of what [`OpReader::fill_literal`] gave.
    pub fn consume_literal(&mut self, n: usize) {
        self.delta.consume(n);
        self.at += n as u64;
        self.literal -= n as u64;
    }

    /// A big-endian number of 1, 2, 4 or 8 bytes.
    fn number(&mut self, width_log: u8) -> Result<u64, Error> {
        let mut number = 0;
        for _ in 0..1 << width_log {
            let byte = self.byte()?.ok_or(Error::Truncated { op: self.op, at: self.began })?;
            number = number << 8 | u64::from(byte);
        }
        if number > i64::MAX as u64 {
            return Err(Error::BadSize { op: self.op, at: self.began });
        }
        Ok(number)
    }

    fn byte(&mut self) -> Result<Option<u8>, Error> {
        let byte = self.fill()?.first().copied();
        if byte.is_some() {
            self.delta.consume(1);
            self.at += 1;
        }
        Ok(byte)
    }

    fn fill(&mut self) -> Result<&[u8], Error> {
        loop {
            match self.delta.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::ReadDelta(error)),
            }
        }
        self.delta.fill_buf().map_err(Error::ReadDelta)
    }
}
