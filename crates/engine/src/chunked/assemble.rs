//! The tar of a chunked layer, from contents that are here and ranges of the blob.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use coracle_codec::chunked::{
    Chunk, ChunkReader, ContentWriter, Error as Reason, Family, Layer, Limits, Piece, Place,
};
use coracle_codec::compress;
use coracle_codec::digest::Digest;
use coracle_store::Store;

use super::Parted;
use super::local::{Held, Stretch};
use super::ranges::{Ended, Fetching, Link, Requests, Stream};
use super::tails::{MAX_SURPLUS, Tails};
use crate::Error;
use crate::image::blob::{Progress, reading};

/// Bytes of chunks that are remembered because they are needed again.
const MAX_REMEMBERED: u64 = 32 << 20;

/// How a layer will be put together.
#[derive(Debug)]
pub(crate) struct Plan {
    family: Family,
    layer: Layer,
    held: Arc<Held>,
    /// Whether what stands behind a content comes with it: eStargz, unless several contents share a member.
    tails: bool,
    /// What of the blob is needed.
    wanted: Vec<Range<u64>>,
    /// Chunks that are needed again after they were fetched once, with their sizes.
    repeated: HashSet<(Digest, u64)>,
    link: Link,
    /// Bytes that will be fetched for that, and requests, as far as it is known what the source serves.
    missing: (u64, u64),
    limits: Limits,
}

impl Plan {
    /// Finds out which ranges are needed; `None` if they do not follow each other as the tar does.
    pub(crate) fn new(
        place: &Place,
        layer: Layer,
        held: Arc<Held>,
        link: &Link,
        parted: &Parted<'_>,
        limits: &Limits,
    ) -> Option<Plan> {
        let mut wanted: Vec<Range<u64>> = Vec::new();
        let (mut seen, mut repeated, mut remembered) = (HashSet::new(), HashSet::new(), 0);
        for piece in &layer.pieces {
            match piece {
                Piece::Framing(_) => {}
                Piece::Glue(range) => wanted.push(range.clone()),
                Piece::Content { entry, .. } => {
                    let entry = &layer.toc.entries[*entry];
                    if !entry.digest.is_some_and(|digest| held.has(&digest)) {
                        for chunk in entry.chunks.iter().filter(|chunk| is_away(chunk, &held)) {
                            let key = chunk.digest.map(|digest| (digest, chunk.size));
                            if let Some(key) = key.filter(|key| !seen.insert(*key)) {
                                if repeated.contains(&key) {
                                    continue;
                                }
                                if remembered + chunk.size <= MAX_REMEMBERED {
                                    remembered += chunk.size;
                                    repeated.insert(key);
                                    continue;
                                }
                            }
                            wanted.push(chunk.stored.clone());
                        }
                    }
                }
            }
        }
        if wanted.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return None;
        }
        let shares = layer.toc.entries.iter().flat_map(|entry| &entry.chunks).any(|chunk| chunk.inner > 0);
        let tails = place.family == Family::Stargz && !shares;
        let missing = Requests::known(parted, &wanted, link).missing();
        Some(Plan {
            family: place.family,
            layer,
            held,
            tails,
            wanted,
            repeated,
            link: *link,
            missing,
            limits: *limits,
        })
    }

    /// What is known of the layer.
    pub(crate) fn layer(&self) -> &Layer {
        &self.layer
    }

    /// What of it is here.
    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// Bytes that will be fetched.
    pub(crate) fn bytes(&self) -> u64 {
        self.missing.0
    }

    /// Requests for them.
    pub(crate) fn requests(&self) -> u64 {
        self.missing.1
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
    /// All of the tar was written, or as much of it as shows that it is the wrong one; so many bytes were fetched for it.
    Tar(u64),
    /// The source sends the whole blob in place of a range.
    Whole(Box<dyn Read + Send>),
}

/// Writes the tar to `out`. Whoever gets it compares it with the diff_id.
pub(crate) fn assemble(
    plan: &Plan,
    store: &Store,
    parted: Parted<'_>,
    progress: &Progress,
    out: &mut dyn Write,
    fail: &dyn Fn(io::Error) -> Error,
) -> Result<Assembled, Error> {
    let Parted { source, blob, .. } = parted;
    let what = format!("layer {}", blob.digest);
    let fetching = Fetching::new(parted, &plan.wanted, &plan.link, progress)?;
    let mut out = Failing { out, failed: None };
    let (result, ended, fetched) = fetching.run(|stream| {
        let (left, tails, again) = (plan.limits.tar, Tails::default(), HashMap::new());
        let mut work = Work { plan, store, progress, stream, out: &mut out, left, tails, again };
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
    result.map(|()| Assembled::Tar(fetched))
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
    tails: Tails,
    /// Chunks that are needed again.
    again: HashMap<(Digest, u64), Vec<u8>>,
}

impl Work<'_, '_, '_, '_> {
    fn run(&mut self) -> Result<(), Reason> {
        let plan = self.plan;
        let mut pieces = plan.layer.pieces.iter().peekable();
        while let Some(piece) = pieces.next() {
            if self.progress.stop.raised() {
                return Err(Reason::Io(io::Error::other(Error::Cancelled)));
            }
            match piece {
                Piece::Framing(range) => self.out.write_all(&plan.layer.framing[range.clone()])?,
                Piece::Glue(range) if range.is_empty() => {}
                Piece::Glue(range) => self.glue(range)?,
                Piece::Content { entry, crc } => {
                    let Some(actual) = self.content(*entry, *crc)? else { continue };
                    let Some(Piece::Framing(range)) =
                        pieces.next_if(|next| matches!(next, Piece::Framing(_)))
                    else {
                        continue;
                    };
                    // Behind the last content the TOC follows, in a member of its own.
                    let predicted = &plan.layer.framing[range.clone()];
                    let end = if pieces.peek().is_none() {
                        actual.len().min(predicted.len())
                    } else {
                        predicted.len()
                    };
                    if !self.tails.note(&predicted[..end], &actual) {
                        return Ok(());
                    }
                    self.out.write_all(&actual)?;
                    self.out.write_all(&predicted[end..])?;
                }
            }
        }
        Ok(())
    }

    fn glue(&mut self, range: &Range<u64>) -> Result<(), Reason> {
        let part = self.stream.range(range.clone())?;
        let limits = compress::Limits { max_output: self.left, ..Default::default() };
        // Frames alone may stand there; they are decoded where they are fetched.
        let mut glue: Box<dyn Read + '_> = match self.plan.family {
            Family::Stargz => compress::decoder(part, limits)?.1,
            _ => {
                Box::new(compress::ZstdReader::new(part, limits.max_window_log, compress::FrameEnd::Continue))
            }
        };
        let written = io::copy(&mut (&mut glue).take(self.left + 1), self.out)?;
        let limit = self.plan.limits.tar;
        let too_large = Reason::TooLarge { what: "the tar", actual: limit + 1, limit };
        self.left = self.left.checked_sub(written).ok_or(too_large)?;
        Ok(())
    }

    /// Writes a content. If what follows it up to the next one came with it, gives that.
    fn content(&mut self, number: usize, crc: Option<u64>) -> Result<Option<Vec<u8>>, Reason> {
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
            return out.finish().map(|()| None);
        }
        let mut tail = None;
        for chunk in &entry.chunks {
            if chunk.zeros {
                zeros(chunk.size, &mut out)?;
            } else if let Some(stretch) = chunk.digest.and_then(|d| plan.held.stretches.get(&d)) {
                copy(stretch, chunk.size, &mut out)?;
            } else {
                let key = chunk.digest.map(|digest| (digest, chunk.size));
                let key = key.filter(|key| plan.repeated.contains(key));
                if let Some(bytes) = key.and_then(|key| self.again.get(&key)) {
                    out.write_all(bytes)?;
                    continue;
                }
                let part = self.stream.range(chunk.stored.clone())?;
                let mut reader = ChunkReader::new(part, plan.family, chunk, &entry.name, &plan.limits);
                match key {
                    None => _ = io::copy(&mut reader, &mut out)?,
                    Some(key) => {
                        let mut bytes = Vec::new();
                        reader.read_to_end(&mut bytes)?;
                        out.write_all(&bytes)?;
                        self.again.insert(key, bytes);
                    }
                }
                if plan.tails && chunk.offset + chunk.size == entry.size {
                    tail = Some(reader.rest(MAX_SURPLUS)?);
                }
            }
        }
        out.finish()?;
        Ok(tail)
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
