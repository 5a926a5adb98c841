//! The tar of a chunked layer, from contents that are here and ranges of the blob.

use std::io::{self, Read, Write};
use std::ops::Range;

use coracle_codec::chunked::{
    Chunk, ChunkReader, ContentWriter, Error as Reason, Family, Layer, Limits, Piece, Place,
};
use coracle_codec::compress;
use coracle_codec::oci::Descriptor;
use coracle_store::Store;

use super::local::{Held, Stretch};
use super::ranges::{Ended, Fetching, Link, Stream, coalesce};
use crate::Error;
use crate::image::Source;
use crate::image::blob::{Progress, reading};

/// How a layer will be put together.
#[derive(Debug)]
pub(crate) struct Plan {
    family: Family,
    layer: Layer,
    held: Held,
    ranges: Vec<Range<u64>>,
    limits: Limits,
}

impl Plan {
    /// Finds out which ranges are needed; `None` if they do not follow each other as the tar does.
    pub(crate) fn new(place: &Place, layer: Layer, held: Held, link: &Link, limits: &Limits) -> Option<Plan> {
        let mut wanted: Vec<Range<u64>> = Vec::new();
        for piece in &layer.pieces {
            match piece {
                Piece::Framing(_) => {}
                Piece::Glue(range) => wanted.push(range.clone()),
                Piece::Content { entry, .. } => {
                    let entry = &layer.toc.entries[*entry];
                    if !entry.digest.is_some_and(|digest| held.has(&digest)) {
                        let away = entry.chunks.iter().filter(|chunk| is_away(chunk, &held));
                        wanted.extend(away.map(|chunk| chunk.stored.clone()));
                    }
                }
            }
        }
        if wanted.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return None;
        }
        let ranges = coalesce(&wanted, link);
        Some(Plan { family: place.family, layer, held, ranges, limits: *limits })
    }

    /// Bytes that will be fetched.
    pub(crate) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Requests for them.
    pub(crate) fn requests(&self) -> u64 {
        self.ranges.len() as u64
    }

    /// Bytes of the tar, as far as they are known.
    pub(crate) fn tar(&self) -> u64 {
        let contents = self.layer.toc.entries.iter().filter(|entry| !entry.chunks.is_empty());
        let contents = contents.map(|entry| entry.size.next_multiple_of(512) + 512);
        contents.fold(self.layer.framing.len() as u64, u64::saturating_add)
    }
}

fn is_away(chunk: &Chunk, held: &Held) -> bool {
    !chunk.zeros && !chunk.digest.is_some_and(|digest| held.stretches.contains_key(&digest))
}

/// What came of it.
pub(crate) enum Assembled {
    /// All of the tar was written.
    Tar,
    /// The source sends the whole blob in place of a range.
    Whole(Box<dyn Read + Send>),
}

/// Writes the tar to `out`. Whoever gets it compares it with the diff_id.
pub(crate) fn assemble(
    plan: &Plan,
    store: &Store,
    source: &dyn Source,
    layer: &Descriptor,
    progress: &Progress,
    out: &mut dyn Write,
    fail: &dyn Fn(io::Error) -> Error,
) -> Result<Assembled, Error> {
    let what = format!("layer {}", layer.digest);
    let fetching = Fetching::new(source, layer, &plan.ranges, progress);
    let mut out = Failing { out, failed: None };
    let (result, ended) = fetching.run(|stream| {
        let mut work = Work { plan, store, progress, stream, out: &mut out, left: plan.limits.tar };
        work.run().map_err(|error| match error {
            Reason::Io(error) => reading(source.name(), &what, error),
            error => super::failed(source, &what, error),
        })
    });
    match ended {
        Some(Ended::Whole(stream)) => return Ok(Assembled::Whole(stream)),
        Some(Ended::Failed(error)) => return Err(error),
        Some(Ended::Other) | None => {}
    }
    if let Some(error) = out.failed {
        return Err(fail(error));
    }
    result.map(|()| Assembled::Tar)
}

/// Remembers why nothing could be written.
struct Failing<'a> {
    out: &'a mut dyn Write,
    failed: Option<io::Error>,
}

impl Write for Failing<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write(buf).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct Work<'w, 'f, 'a, 'o> {
    plan: &'w Plan,
    store: &'w Store,
    progress: &'w Progress,
    stream: &'w mut Stream<'f, 'a>,
    out: &'w mut Failing<'o>,
    /// Bytes of the tar that are still allowed.
    left: u64,
}

impl Work<'_, '_, '_, '_> {
    fn run(&mut self) -> Result<(), Reason> {
        let plan = self.plan;
        for piece in &plan.layer.pieces {
            if self.progress.stop.raised() {
                return Err(Reason::Io(io::Error::other(Error::Cancelled)));
            }
            match piece {
                Piece::Framing(range) => self.out.write_all(&plan.layer.framing[range.clone()])?,
                Piece::Glue(range) if range.is_empty() => {}
                Piece::Glue(range) => {
                    let part = self.stream.range(range.clone())?;
                    let limits = compress::Limits { max_output: self.left, ..Default::default() };
                    // Frames alone may stand there; they are decoded where they are fetched.
                    let mut glue =
                        compress::ZstdReader::new(part, limits.max_window_log, compress::FrameEnd::Continue);
                    let written = io::copy(&mut (&mut glue).take(self.left + 1), self.out)?;
                    self.left = self.left.checked_sub(written).ok_or(Reason::TooLarge {
                        what: "the tar",
                        actual: plan.limits.tar + 1,
                        limit: plan.limits.tar,
                    })?;
                }
                Piece::Content { entry, crc } => self.content(*entry, *crc)?,
            }
        }
        Ok(())
    }

    fn content(&mut self, number: usize, crc: Option<u64>) -> Result<(), Reason> {
        let plan = self.plan;
        let entry = &plan.layer.toc.entries[number];
        let mut out = ContentWriter::new(&mut *self.out, entry, crc);
        if let Some(digest) = entry.digest.filter(|digest| plan.held.has(digest)) {
            match plan.held.stretches.get(&digest) {
                Some(stretch) => copy(stretch, entry.size, &mut out)?,
                None => {
                    let gone = || io::Error::other(format!("object {digest} is gone"));
                    let file = self.store.object(&digest).map_err(io::Error::other)?.ok_or_else(gone)?;
                    io::copy(&mut file.take(entry.size), &mut out)?;
                }
            }
            return out.finish();
        }
        for chunk in &entry.chunks {
            if chunk.zeros {
                zeros(chunk.size, &mut out)?;
            } else if let Some(stretch) = chunk.digest.and_then(|d| plan.held.stretches.get(&d)) {
                copy(stretch, chunk.size, &mut out)?;
            } else {
                let part = self.stream.range(chunk.stored.clone())?;
                let mut reader = ChunkReader::new(part, plan.family, chunk, &entry.name, &plan.limits);
                io::copy(&mut reader, &mut out)?;
            }
        }
        out.finish()
    }
}

fn zeros(mut count: u64, out: &mut impl Write) -> io::Result<()> {
    let zeros = [0; 32 << 10];
    while count > 0 {
        let n = count.min(zeros.len() as u64);
        out.write_all(&zeros[..n as usize])?;
        count -= n;
    }
    Ok(())
}

fn copy(stretch: &Stretch, size: u64, out: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; size.min(128 << 10) as usize];
    let mut done = 0;
    while done < size {
        let n = (size - done).min(piece.len() as u64) as usize;
        stretch.bytes.read_exact_at(stretch.offset + done, &mut piece[..n])?;
        out.write_all(&piece[..n])?;
        done += n as u64;
    }
    Ok(())
}
