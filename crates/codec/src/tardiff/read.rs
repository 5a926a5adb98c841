//! Reading operations.

use std::io::{self, BufRead, BufReader, Read};

use super::{Error, Limits, MAGIC_LEN, MAX_ADD, MAX_PATH, Op, Version};
use crate::compress::{self, FrameEnd, ZstdReader};
use crate::tar::clean_path;

/// Operations without output that a delta may hold besides one for each byte it has produced.
const IDLE_OPS: u64 = 1 << 24;

/// Reads a delta operation by operation. Memory: the outer window, at most `2^max_window_log` bytes, and 256 KiB.
pub struct OpReader<'a> {
    stream: BufReader<ZstdReader<'a, BufReader<Box<dyn Read + 'a>>>>,
    version: Version,
    limits: Limits,
    /// Offset in the decoded stream.
    at: u64,
    payload: u64,
    op: &'static str,
    /// Operations that may still come without output.
    idle: u64,
}

impl std::fmt::Debug for OpReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpReader")
            .field("version", &self.version)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl<'a> OpReader<'a> {
    /// Reads the magic of `delta`.
    ///
    /// # Errors
    /// [`Error::BadMagic`], [`Error::EmptyStream`], [`Error::ReadDelta`].
    pub fn new(mut delta: impl Read + 'a, limits: Limits) -> Result<Self, Error> {
        let mut magic = Vec::with_capacity(MAGIC_LEN);
        delta.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut magic).map_err(Error::ReadDelta)?;
        if magic.is_empty() {
            return Err(Error::EmptyStream);
        }
        let version = Version::of_magic(&magic).ok_or(Error::BadMagic)?;
        let delta: Box<dyn Read + 'a> = Box::new(delta);
        let input = BufReader::with_capacity(64 << 10, delta);
        let stream = ZstdReader::new(input, limits.window_log(), FrameEnd::Continue);
        let stream = BufReader::with_capacity(128 << 10, stream);
        Ok(OpReader { stream, version, limits, at: 0, payload: 0, op: "", idle: IDLE_OPS })
    }

    /// Format version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Bytes of the decoded operation stream read so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next operation; what is left of the last one's payload is skipped. `None` at the end.
    pub fn next_op(&mut self) -> Result<Option<Op>, Error> {
        while self.payload > 0 {
            let n = self.fill_payload()?.len();
            self.consume_payload(n);
        }
        let at = self.at;
        let Some(code) = self.byte()? else {
            if self.stream.get_ref().data_frames() == 0 {
                return Err(Error::EmptyStream);
            }
            return Ok(None);
        };
        self.op = match code {
            Op::DATA => "DATA",
            Op::OPEN => "OPEN",
            Op::COPY => "COPY",
            Op::ADD => "ADD",
            Op::SEEK => "SEEK",
            Op::ZSTD_DICT if self.version < Version::V2 => return Err(Error::OpNotInVersion),
            Op::ZSTD_DICT => "ZSTDDICT",
            op => return Err(Error::UnknownOp { op, at }),
        };
        let size = self.varint(at)?;
        if i64::try_from(size).is_err() {
            return Err(self.size_error(code, size, at));
        }
        let op = match code {
            Op::DATA => Op::Data(size),
            Op::COPY => Op::Copy(size),
            Op::SEEK => Op::Seek(size),
            Op::ADD if size > MAX_ADD => return Err(self.size_error(code, size, at)),
            Op::ADD => Op::Add(size),
            Op::OPEN => Op::Open(self.path(size)?),
            _ => Op::ZstdDict(size),
        };
        if matches!(op, Op::Data(_) | Op::Add(_) | Op::ZstdDict(_)) {
            self.payload = size;
        }
        self.charge(&op)?;
        Ok(Some(op))
    }

    /// The payload of the last operation, as far as not read yet. Ends at its end.
    pub fn payload(&mut self) -> Payload<'_, 'a> {
        Payload { reader: self, error: None }
    }

    /// Some more bytes of the payload; empty at its end.
    pub(super) fn fill_payload(&mut self) -> Result<&[u8], Error> {
        if self.payload == 0 {
            return Ok(&[]);
        }
        // Asked twice because a borrow that is returned early would last too long.
        let empty = self.stream.fill_buf().map_err(stream_error)?.is_empty();
        if empty {
            return Err(Error::Truncated { op: self.op, at: self.at });
        }
        let chunk = self.stream.fill_buf().map_err(stream_error)?;
        let n = (chunk.len() as u64).min(self.payload) as usize;
        Ok(&chunk[..n])
    }

    pub(super) fn consume_payload(&mut self, n: usize) {
        self.stream.consume(n);
        self.at += n as u64;
        self.payload -= n as u64;
    }

    /// Counts operations that give nothing against the bytes that others gave, so that a few bytes of zstd cannot keep
    /// a reader busy for hours (section 7.3).
    fn charge(&mut self, op: &Op) -> Result<(), Error> {
        let gives = match op {
            Op::Data(n) | Op::Copy(n) | Op::Add(n) | Op::ZstdDict(n) => (*n).min(self.limits.max_output),
            Op::Open(_) | Op::Seek(_) => 0,
        };
        if gives == 0 {
            self.idle = self.idle.checked_sub(1).ok_or(Error::TooManyOps)?;
        }
        self.idle = self.idle.saturating_add(gives);
        Ok(())
    }

    fn size_error(&self, code: u8, size: u64, at: u64) -> Error {
        match code {
            Op::OPEN => Error::TooLarge { op: self.op, size, limit: MAX_PATH },
            Op::ADD => Error::TooLarge { op: self.op, size, limit: MAX_ADD },
            _ => Error::BadSize { op: self.op, at },
        }
    }

    fn path(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_PATH {
            return Err(self.size_error(Op::OPEN, size, self.at));
        }
        let mut path = vec![0; size as usize];
        let mut filled = 0;
        while filled < path.len() {
            let n = self.stream.read(&mut path[filled..]).map_err(stream_error)?;
            if n == 0 {
                return Err(Error::Truncated { op: self.op, at: self.at });
            }
            filled += n;
            self.at += n as u64;
        }
        // Writers emit clean relative paths. Empty and `.` components are harmless; a leading slash is not a
        // writer's, and `..` is an attack.
        match clean_path(&path) {
            Some(clean) if path[0] != b'/' => Ok(clean),
            _ => Err(Error::UnsafePath(path)),
        }
    }

    /// Unsigned LEB128 of at most ten bytes; over-long forms are legal.
    fn varint(&mut self, at: u64) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?.ok_or(Error::Truncated { op: self.op, at: self.at })?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::BadSize { op: self.op, at })
    }

    fn byte(&mut self) -> Result<Option<u8>, Error> {
        let byte = self.stream.fill_buf().map_err(stream_error)?.first().copied();
        if byte.is_some() {
            self.stream.consume(1);
            self.at += 1;
        }
        Ok(byte)
    }
}

/// Turns an error of the outer stream into ours.
fn stream_error(e: io::Error) -> Error {
    match e.downcast::<compress::Error>() {
        Ok(inner) => Error::Stream(inner),
        Err(e) => Error::ReadDelta(e),
    }
}

/// [`BufRead`] over one payload.
#[derive(Debug)]
pub struct Payload<'r, 'a> {
    reader: &'r mut OpReader<'a>,
    error: Option<Error>,
}

impl Payload<'_, '_> {
    /// The exact error behind an [`io::Error`] that reading gave.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }
}

impl BufRead for Payload<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Err(e) = self.reader.fill_payload() {
            self.error = Some(e);
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.reader.fill_payload().map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn consume(&mut self, n: usize) {
        self.reader.consume_payload(n);
    }
}

impl Read for Payload<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let n = chunk.len().min(buf.len());
        buf[..n].copy_from_slice(&chunk[..n]);
        self.consume(n);
        Ok(n)
    }
}
