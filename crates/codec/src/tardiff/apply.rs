//! Applying a delta.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{Error, Limits, Op, OpCounts, OpReader, Version};
use crate::compress::{self, FrameEnd, ZstdReader};
use crate::observe::{Observer, Stage};
use crate::source::{Source, SourceFile};

/// What applying a delta came to.
#[derive(Debug, Clone, Copy)]
pub struct Applied {
    /// Format version of the delta.
    pub version: Version,
    /// Bytes written.
    pub output: u64,
    /// Operations carried out.
    pub ops: OpCounts,
}

const CHUNK: usize = 128 << 10;

/// Rebuilds a new tar: reads `delta` once, front to back, and old files from `source`, and writes to `out`.
///
/// What is written is unverified: nothing in a delta ties it to its sources or its result. Compare the digest before
/// use. Memory: the outer window (8 MiB for deltas of usual writers) and half a MiB; a ZSTDDICT operation adds its
/// dictionary and window.
///
/// # Errors
/// See [`Error`]; `out` has then received a part of the tar.
pub fn apply(
    delta: impl Read,
    source: &dyn Source,
    out: &mut impl Write,
    limits: &Limits,
    observer: &dyn Observer,
) -> Result<Applied, Error> {
    let mut ops = OpReader::new(delta, *limits)?;
    let mut out = Output { out, written: 0, max: limits.max_output, observer };
    let mut counts = OpCounts::default();
    let mut current: Option<Current<'_>> = None;
    let mut buf = vec![0; CHUNK];
    let mut dictionary_budget = limits.dictionary_budget();
    while let Some(op) = ops.next_op()? {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        counts.count(&op);
        match op {
            Op::Data(size) => {
                out.reserve(size)?;
                copy_payload(&mut ops, &mut out)?;
            }
            Op::Open(path) => current = Some(Current::open(source, path)?),
            Op::Seek(offset) => need(&mut current, "SEEK")?.cursor = offset,
            // Upstream's reader lets an empty COPY or ADD pass before any OPEN.
            Op::Copy(0) | Op::Add(0) => {}
            Op::Copy(size) => {
                let file = need(&mut current, "COPY")?;
                out.reserve(size)?;
                file.check(size)?;
                let mut left = size;
                while left > 0 {
                    let n = left.min(CHUNK as u64) as usize;
                    file.read_exact(&mut buf[..n])?;
                    out.write(&buf[..n])?;
                    left -= n as u64;
                }
            }
            Op::Add(size) => {
                let file = need(&mut current, "ADD")?;
                out.reserve(size)?;
                file.check(size)?;
                add_payload(&mut ops, file, &mut out, &mut buf)?;
            }
            Op::ZstdDict(size) => {
                let file = need(&mut current, "ZSTDDICT")?;
                if size > 0 {
                    if file.dictionary.is_none() {
                        dictionary_budget =
                            dictionary_budget.checked_sub(file.size).ok_or(Error::TooManyDictionaries)?;
                        file.load_dictionary(limits)?;
                    }
                    patch(&mut ops, file, &mut out, limits, &mut buf)?;
                }
                file.cursor = file.size;
            }
        }
    }
    out.out.flush().map_err(Error::Write)?;
    observer.progress(Stage::Apply, out.written, out.written);
    Ok(Applied { version: ops.version(), output: out.written, ops: counts })
}

/// Where output goes, bounded.
struct Output<'a, W> {
    out: &'a mut W,
    written: u64,
    max: u64,
    /// Asked at every write: one operation may make all of the output.
    observer: &'a dyn Observer,
}

impl<W: Write> Output<'_, W> {
    /// Refuses output of a declared size before any of it is made.
    fn reserve(&self, size: u64) -> Result<(), Error> {
        if size > self.max - self.written { Err(Error::OutputTooLarge(self.max)) } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.reserve(bytes.len() as u64)?;
        if self.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        self.out.write_all(bytes).map_err(Error::Write)?;
        self.written += bytes.len() as u64;
        self.observer.progress(Stage::Apply, self.written, 0);
        Ok(())
    }
}

/// The open source file.
struct Current<'s> {
    path: Vec<u8>,
    file: Box<dyn SourceFile + 's>,
    size: u64,
    cursor: u64,
    /// Where the file itself stands: SEEK operations cost nothing until something is read.
    position: u64,
    /// All of it, once an operation needed that.
    dictionary: Option<Vec<u8>>,
}

impl<'s> Current<'s> {
    fn open(source: &'s dyn Source, path: Vec<u8>) -> Result<Self, Error> {
        match source.open_path(&path) {
            Ok(file) => {
                Ok(Current { size: file.size(), path, file, cursor: 0, position: 0, dictionary: None })
            }
            Err(error) => Err(Error::Source { path, error }),
        }
    }

    /// Refuses a read beyond the end before any output is made from it.
    fn check(&self, wanted: u64) -> Result<(), Error> {
        match self.cursor.checked_add(wanted) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(self.short(wanted)),
        }
    }

    fn short(&self, wanted: u64) -> Error {
        Error::ShortSource { path: self.path.clone(), offset: self.cursor, wanted, size: self.size }
    }

    fn load_dictionary(&mut self, limits: &Limits) -> Result<(), Error> {
        if self.size > limits.max_dictionary {
            let (size, limit) = (self.size, limits.max_dictionary);
            return Err(Error::DictionaryTooLarge { path: self.path.clone(), size, limit });
        }
        let mut dictionary = vec![0; self.size as usize];
        self.cursor = 0;
        self.read_exact(&mut dictionary)?;
        self.dictionary = Some(dictionary);
        Ok(())
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), Error> {
        let failed = |path: &[u8], error| Error::ReadSource { path: path.to_vec(), error };
        if self.position != self.cursor {
            self.file.seek(SeekFrom::Start(self.cursor)).map_err(|e| failed(&self.path, e))?;
            self.position = self.cursor;
        }
        match self.file.read_exact(buf) {
            Ok(()) => {
                self.cursor += buf.len() as u64;
                self.position = self.cursor;
                Ok(())
            }
            // It shrank after it was opened.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.short(buf.len() as u64)),
            Err(e) => Err(failed(&self.path, e)),
        }
    }
}

fn need<'c, 's>(
    current: &'c mut Option<Current<'s>>,
    op: &'static str,
) -> Result<&'c mut Current<'s>, Error> {
    current.as_mut().ok_or(Error::NoSource(op))
}

fn copy_payload<W: Write>(ops: &mut OpReader<'_>, out: &mut Output<'_, W>) -> Result<(), Error> {
    loop {
        let chunk = ops.fill_payload()?;
        let n = chunk.len();
        if n == 0 {
            return Ok(());
        }
        out.write(chunk)?;
        ops.consume_payload(n);
    }
}

fn add_payload<W: Write>(
    ops: &mut OpReader<'_>,
    file: &mut Current<'_>,
    out: &mut Output<'_, W>,
    buf: &mut [u8],
) -> Result<(), Error> {
    loop {
        let chunk = ops.fill_payload()?;
        let n = chunk.len().min(buf.len());
        if n == 0 {
            return Ok(());
        }
        file.read_exact(&mut buf[..n])?;
        for (old, diff) in buf.iter_mut().zip(&chunk[..n]) {
            *old = old.wrapping_add(*diff);
        }
        ops.consume_payload(n);
        out.write(&buf[..n])?;
    }
}

/// ZSTDDICT: exactly one frame, the whole source file its dictionary.
fn patch<W: Write>(
    ops: &mut OpReader<'_>,
    file: &mut Current<'_>,
    out: &mut Output<'_, W>,
    limits: &Limits,
    buf: &mut [u8],
) -> Result<(), Error> {
    let dictionary = file.dictionary.as_deref().unwrap_or_default();
    let mut payload = ops.payload();
    let mut frame = ZstdReader::with_prefix(&mut payload, limits.window_log(), FrameEnd::Stop, dictionary);
    loop {
        match frame.read(buf) {
            Ok(0) if frame.data_frames() == 0 => {
                let error = compress::Error::Truncated(compress::Compression::Zstd);
                return Err(Error::Frame { path: file.path.clone(), error });
            }
            Ok(0) => return Ok(()),
            Ok(n) => out.write(&buf[..n])?,
            Err(e) => {
                drop(frame);
                return Err(match (payload.take_error(), e.downcast::<compress::Error>()) {
                    (Some(error), _) => error,
                    (None, Ok(error)) => Error::Frame { path: file.path.clone(), error },
                    (None, Err(e)) => Error::ReadDelta(e),
                });
            }
        }
    }
}
