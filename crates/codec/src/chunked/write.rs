//! Writing zstd:chunked.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};

use crate::compress::{ZstdWriter, ZstdWriterOptions};
use crate::digest::{Digest, Hasher, Hashing};
use crate::tar::{self, Reader};

use super::chunker::{Chunker, Event};
use super::frame::{Frames, Position};
use super::place::{SKIPPABLE, SKIPPABLE_HEADER};
use super::split::SplitWriter;
use super::toc::TocWriter;
use super::{Chunk, Crc64, Entry, Error, Family, Footer, Part, Place};

/// Bytes read at once.
const PIECE: usize = 128 << 10;

/// How a chunked layer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Level of the compressor.
    pub level: i32,
    /// Also set the annotations that podman before 2024 looks for.
    pub legacy: bool,
}

/// A layer that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Annotations for its descriptor.
    pub annotations: BTreeMap<String, String>,
    /// Digest of the tar that comes out of it.
    pub diff_id: Digest,
    /// Bytes of that tar.
    pub tar: u64,
    /// Members.
    pub entries: u64,
    /// Chunks.
    pub chunks: u64,
}

/// Something to write to that counts and hashes.
pub(super) struct Counted<W>(pub(super) Hashing<W>);

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W> Position for Counted<W> {
    fn position(&self) -> u64 {
        self.0.passed()
    }
}

/// Input of a tar reader that keeps what is no content, and hashes all.
pub(super) struct Capture<R> {
    input: R,
    hasher: Hasher,
    passed: u64,
    pub(super) framing: Vec<u8>,
    pub(super) keeps: bool,
}

impl<R> Capture<R> {
    pub(super) fn new(input: R) -> Self {
        Capture { input, hasher: Hasher::new(), passed: 0, framing: Vec::new(), keeps: true }
    }

    pub(super) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.passed)
    }
}

impl<R: Read> Read for Capture<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.passed += n as u64;
        if self.keeps {
            self.framing.extend_from_slice(&buf[..n]);
        }
        Ok(n)
    }
}

/// Names in normal form: a TOC must not have one twice.
#[derive(Default)]
pub(super) struct Names(HashSet<Vec<u8>>);

impl Names {
    pub(super) fn check(&mut self, entry: &Entry) -> Result<(), Error> {
        let unsupported = |what| Error::Unsupported { name: entry.name.clone(), what };
        let mut normal = Vec::new();
        for part in entry.name.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." {
                return Err(unsupported("its name leads out of the tree"));
            }
            normal.push(b'/');
            normal.extend_from_slice(part.as_bytes());
        }
        if entry.name.is_empty() || entry.name.contains('\0') {
            return Err(unsupported("it has no name, or one with a NUL byte"));
        }
        if self.0.insert(normal) { Ok(()) } else { Err(unsupported("its name stands in the tar twice")) }
    }
}

/// Writes `input`, an uncompressed tar, to `out` as zstd:chunked. The same input and options give the same bytes.
///
/// # Errors
/// [`Error::Unsupported`] for a tar that cannot be chunked; it cannot be read, or written. What is in `out` is of no use
/// then.
pub fn write(input: impl Read, out: impl Write, options: &Options) -> Result<Written, Error> {
    let mut frames = Frames::new(Counted(Hashing::new(out)), options.level)?;
    let side = || {
        let options = ZstdWriterOptions { level: options.level, ..ZstdWriterOptions::default() };
        ZstdWriter::new(Vec::new(), options)
    };
    let mut split = SplitWriter::new(side()?);
    let mut toc = TocWriter::new(side()?, Family::Current)?;
    let mut tar = Reader::new(Capture::new(input), tar::Limits::default());
    let (mut names, mut entries, mut chunks) = (Names::default(), 0, 0);
    let mut piece = vec![0; PIECE];
    while let Some(member) = tar.next_entry()? {
        let mut entry = Entry::of(&member, tar.details(&member)?)?;
        names.check(&entry)?;
        let capture = tar.get_mut();
        let framing = std::mem::take(&mut capture.framing);
        capture.keeps = false;
        frames.push(&framing)?;
        split.segment(&framing)?;
        let mut crc = Crc64::default();
        if member.content_len > 0 {
            content(&mut tar, &mut frames, &mut entry, &mut crc, &mut piece)?;
        }
        tar.get_mut().keeps = true;
        split.member(&entry.name, member.content_len, crc)?;
        toc.entry(&entry)?;
        entries += 1;
        chunks += entry.chunks.len() as u64;
    }
    // The end of the archive, and whatever stands behind it.
    let mut rest = tar.into_rest();
    loop {
        let framing = std::mem::take(&mut rest.framing);
        frames.push(&framing)?;
        split.segment(&framing)?;
        if rest.read(&mut piece)? == 0 {
            break;
        }
    }
    let (diff_id, size) = rest.finish();
    let mut out = frames.finish()?;
    let (split, decoded) = split.finish();
    let split = split.finish()?;
    let (toc, toc_decoded) = toc.finish(Some(Digest::of(&split)))?;
    let toc = toc.finish()?;
    let mut place = Place {
        family: Family::Current,
        digest: Digest::of(&toc),
        toc: Some(skippable(&mut out, &toc, toc_decoded)?),
        split: Some(skippable(&mut out, &split, decoded)?),
        size: 0,
    };
    let footer = Footer { toc: place.toc.unwrap_or_else(|| unreachable!("just set")), split: place.split };
    out.write_all(&footer.to_bytes())?;
    out.flush()?;
    place.size = out.position();
    Ok(Written { annotations: place.annotations(options.legacy), diff_id, tar: size, entries, chunks })
}

fn skippable(out: &mut (impl Write + Position), bytes: &[u8], decoded: u64) -> Result<Part, Error> {
    let len = u32::try_from(bytes.len()).map_err(|_| Error::TooLarge {
        what: "a skippable frame",
        actual: bytes.len() as u64,
        limit: u64::from(u32::MAX),
    })?;
    let offset = out.position() + SKIPPABLE_HEADER;
    out.write_all(&SKIPPABLE)?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(bytes)?;
    Ok(Part { offset, stored: u64::from(len), decoded })
}

/// Writes the content of a file in chunks, and notes them.
fn content<R: Read, W: Write>(
    tar: &mut Reader<Capture<R>>,
    frames: &mut Frames<Counted<W>>,
    entry: &mut Entry,
    crc: &mut Crc64,
    piece: &mut [u8],
) -> Result<(), Error> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let (mut whole, mut part) = (Hasher::new(), Hasher::new());
    let (mut open, mut offset) = (0, 0);
    let mut start = frames.cut()?;
    let mut chunker = Chunker::default();
    let mut emit = |event: Event<'_>| {
        let (size, digest, zeros) = match event {
            Event::Data(bytes) => {
                part.update(bytes);
                open += bytes.len() as u64;
                return frames.push(bytes);
            }
            Event::Hole(count) => {
                frames.push_zeros(count)?;
                (count, digest_of_zeros(count), true)
            }
            Event::Cut => (std::mem::take(&mut open), std::mem::take(&mut part).finish(), false),
        };
        let end = frames.cut()?;
        chunks.push(Chunk { offset, size, digest: Some(digest), zeros, stored: start..end, inner: 0 });
        offset += size;
        start = end;
        Ok(())
    };
    loop {
        let n = tar.read(piece)?;
        if n == 0 {
            break;
        }
        whole.update(&piece[..n]);
        crc.update(&piece[..n]);
        chunker.push(&piece[..n], &mut emit)?;
    }
    chunker.finish(&mut emit)?;
    entry.digest = Some(whole.finish());
    entry.chunks = chunks;
    Ok(())
}

/// The digest of so many zeros.
fn digest_of_zeros(mut count: u64) -> Digest {
    let zeros = [0; 32 << 10];
    let mut hasher = Hasher::new();
    while count > 0 {
        let n = count.min(zeros.len() as u64);
        hasher.update(&zeros[..n as usize]);
        count -= n;
    }
    hasher.finish()
}
