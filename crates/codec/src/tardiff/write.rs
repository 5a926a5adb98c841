//! Writing operations.

use std::io::{self, Write};

use super::{MAX_ADD, Op, OpCounts, Version};
use crate::compress::{Tuning, ZstdWriter, ZstdWriterOptions};

/// How the operation stream is compressed.
#[derive(Debug, Clone, Copy)]
pub struct StreamOptions {
    /// libzstd level.
    pub level: i32,
    /// Details in place of those of the level.
    pub tuning: Option<Tuning>,
    /// Window as log2 of bytes.
    pub window_log: u32,
    /// log2 of the largest table that libzstd may have, in entries of four bytes; `None` leaves it to the level.
    pub max_table_log: Option<u32>,
}

impl StreamOptions {
    /// A level of libzstd as it is.
    pub fn level(level: i32, window_log: u32) -> Self {
        StreamOptions { level, tuning: None, window_log, max_table_log: None }
    }

    /// The same with a window and tables that take about a sixth of `memory` bytes at most.
    pub(crate) fn fit(self, memory: u64) -> Self {
        let log = (memory / 16).max(1 << 12).ilog2();
        StreamOptions {
            window_log: self.window_log.min(log).max(10),
            // The window of the default is the first to go, at less than 128 MiB.
            max_table_log: (log < 26).then_some(log - 2),
            ..self
        }
    }
}

/// A DATA operation is written when this many bytes have gathered.
const FLUSH: usize = 4 << 20;

/// Writes a delta. Literals gather into few DATA operations, adjacent copies into one COPY, OPEN and SEEK are written
/// only where the reader does not stand there already, and ADD is split at the format's bound.
#[derive(Debug)]
pub struct OpWriter<W: Write> {
    stream: ZstdWriter<'static, W>,
    counts: OpCounts,
    literal: Vec<u8>,
    pending_copy: u64,
    /// What the reader has open, and where it stands.
    path: Option<Vec<u8>>,
    cursor: u64,
    written: u64,
    version: Version,
}

impl<W: Write> OpWriter<W> {
    /// Writes the magic and starts the stream.
    pub fn new(mut out: W, version: Version, options: StreamOptions) -> io::Result<Self> {
        out.write_all(&version.magic())?;
        let stream = ZstdWriter::new(
            out,
            ZstdWriterOptions {
                level: options.level,
                tuning: options.tuning,
                max_table_log: options.max_table_log,
                window_log: Some(options.window_log),
                ..Default::default()
            },
        )?;
        Ok(OpWriter {
            stream,
            counts: OpCounts::default(),
            literal: Vec::new(),
            pending_copy: 0,
            path: None,
            cursor: 0,
            written: 0,
            version,
        })
    }

    /// Operations written so far; gathering ones not counted.
    pub fn counts(&self) -> OpCounts {
        self.counts
    }

    /// Appends bytes of the new tar.
    pub fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.flush_copy()?;
        self.literal.extend_from_slice(bytes);
        if self.literal.len() >= FLUSH {
            self.flush_literal()?;
        }
        Ok(())
    }

    /// Appends `len` bytes of the old file `path` from `offset` on.
    pub fn copy(&mut self, path: &[u8], offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let goes_on = self.pending_copy > 0
            && self.literal.is_empty()
            && self.path.as_deref() == Some(path)
            && self.cursor + self.pending_copy == offset;
        if !goes_on {
            self.go_to(path, offset)?;
        }
        self.pending_copy += len;
        Ok(())
    }

    /// Appends `diff.len()` bytes of the old file `path` from `offset` on, with `diff` added bytewise.
    pub fn add(&mut self, path: &[u8], offset: u64, diff: &[u8]) -> io::Result<()> {
        if diff.is_empty() {
            return Ok(());
        }
        self.go_to(path, offset)?;
        for part in diff.chunks(MAX_ADD as usize) {
            self.op(Op::ADD, part.len() as u64)?;
            self.payload(part)?;
            self.counts.count(&Op::Add(part.len() as u64));
        }
        self.cursor += diff.len() as u64;
        Ok(())
    }

    /// Appends what `frame` decodes to with the old file `path`, of `size` bytes, as its dictionary.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] in a version 1 delta.
    pub fn zstd_dict(&mut self, path: &[u8], size: u64, frame: &[u8]) -> io::Result<()> {
        if self.version < Version::V2 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "ZSTDDICT in a version 1 delta"));
        }
        self.open(path)?;
        self.op(Op::ZSTD_DICT, frame.len() as u64)?;
        self.payload(frame)?;
        self.counts.count(&Op::ZstdDict(frame.len() as u64));
        self.cursor = size;
        Ok(())
    }

    /// Ends the stream; the output, the final counts, and the bytes of the operation stream before compression.
    pub fn finish(mut self) -> io::Result<(W, OpCounts, u64)> {
        self.flush_copy()?;
        self.flush_literal()?;
        Ok((self.stream.finish()?, self.counts, self.written))
    }

    fn go_to(&mut self, path: &[u8], offset: u64) -> io::Result<()> {
        self.open(path)?;
        if self.cursor != offset {
            self.op(Op::SEEK, offset)?;
            self.counts.count(&Op::Seek(offset));
            self.cursor = offset;
        }
        Ok(())
    }

    fn open(&mut self, path: &[u8]) -> io::Result<()> {
        self.flush_copy()?;
        self.flush_literal()?;
        if self.path.as_deref() != Some(path) {
            self.op(Op::OPEN, path.len() as u64)?;
            self.payload(path)?;
            self.counts.open.ops += 1;
            self.counts.open.bytes += path.len() as u64;
            self.path = Some(path.to_vec());
            self.cursor = 0;
        }
        Ok(())
    }

    fn flush_copy(&mut self) -> io::Result<()> {
        let len = std::mem::take(&mut self.pending_copy);
        if len > 0 {
            self.op(Op::COPY, len)?;
            self.counts.count(&Op::Copy(len));
            self.cursor += len;
        }
        Ok(())
    }

    fn flush_literal(&mut self) -> io::Result<()> {
        if self.literal.is_empty() {
            return Ok(());
        }
        let literal = std::mem::take(&mut self.literal);
        self.op(Op::DATA, literal.len() as u64)?;
        self.payload(&literal)?;
        self.counts.count(&Op::Data(literal.len() as u64));
        self.literal = literal;
        self.literal.clear();
        Ok(())
    }

    /// Opcode and size.
    fn op(&mut self, code: u8, mut size: u64) -> io::Result<()> {
        let mut bytes = [0; 11];
        bytes[0] = code;
        let mut n = 1;
        while size >= 0x80 {
            bytes[n] = size as u8 | 0x80;
            size >>= 7;
            n += 1;
        }
        bytes[n] = size as u8;
        self.payload(&bytes[..=n])
    }

    fn payload(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.stream.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tardiff::{Limits, OpReader};

    fn ops(delta: &[u8]) -> Vec<Op> {
        let mut reader = OpReader::new(delta, Limits::default()).unwrap();
        std::iter::from_fn(|| reader.next_op().unwrap()).collect()
    }

    fn writer(version: Version) -> OpWriter<Vec<u8>> {
        OpWriter::new(Vec::new(), version, StreamOptions::level(1, 20)).unwrap()
    }

    #[test]
    fn writes_only_what_the_reader_needs() {
        let mut w = writer(Version::V1);
        w.literal(b"ab").unwrap();
        w.literal(b"").unwrap();
        w.literal(b"c").unwrap();
        w.copy(b"x", 0, 10).unwrap();
        w.copy(b"x", 10, 5).unwrap();
        w.add(b"x", 15, &[1, 2]).unwrap();
        w.add(b"x", 17, &[]).unwrap();
        w.copy(b"x", 4, 1).unwrap();
        w.copy(b"y", 0, 1).unwrap();
        w.copy(b"y", 1, 0).unwrap();
        w.copy(b"x", 7, 300).unwrap();
        let (delta, counts, _) = w.finish().unwrap();
        let open = |p: &[u8]| Op::Open(p.to_vec());
        let want = [
            Op::Data(3),
            open(b"x"),
            Op::Copy(15),
            Op::Add(2),
            Op::Seek(4),
            Op::Copy(1),
            open(b"y"),
            Op::Copy(1),
            open(b"x"),
            Op::Seek(7),
            Op::Copy(300),
        ];
        assert_eq!(ops(&delta), want);
        assert_eq!((counts.copy.ops, counts.copy.bytes, counts.open.ops, counts.seek.ops), (4, 317, 3, 2));
    }

    #[test]
    fn additions_are_split_at_the_bound() {
        let mut w = writer(Version::V1);
        w.add(b"x", 0, &vec![0; MAX_ADD as usize + 1]).unwrap();
        assert_eq!(ops(&w.finish().unwrap().0)[1..], [Op::Add(MAX_ADD), Op::Add(1)]);
    }

    #[test]
    fn after_a_patch_the_cursor_is_the_end_of_the_file() {
        let mut w = writer(Version::V2);
        w.zstd_dict(b"x", 100, b"frame").unwrap();
        w.copy(b"x", 100, 1).unwrap();
        w.zstd_dict(b"x", 100, b"frame").unwrap();
        w.copy(b"x", 0, 1).unwrap();
        let got = ops(&w.finish().unwrap().0);
        let want = [Op::ZstdDict(5), Op::Copy(1), Op::ZstdDict(5), Op::Seek(0), Op::Copy(1)];
        assert_eq!(got[1..], want);
        assert!(writer(Version::V1).zstd_dict(b"x", 1, b"").is_err());
    }
}
