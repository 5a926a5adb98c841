//! A TOC and the framing that belongs to it: all but the contents.

use std::io::{self, Write};
use std::ops::Range;

use crate::digest::Hasher;
use crate::tar;

use super::{Crc64, Entry, Error, Family, Limits, Place, TarSplit, Toc};

/// A stretch of the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes of [`Layer::framing`].
    Framing(Range<usize>),
    /// What the frames in this range of the blob decode to, all of them.
    Glue(Range<u64>),
    /// The content of the entry of this number.
    Content {
        /// Its number.
        entry: usize,
        /// What a tar-split says of it.
        crc: Option<u64>,
    },
}

/// A layer without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The table of contents.
    pub toc: Toc,
    /// What stands between contents, as far as it is known.
    pub framing: Vec<u8>,
    /// The tar from its first byte to its last.
    pub pieces: Vec<Piece>,
}

impl Layer {
    /// Puts a TOC and its tar-split together, if they tell the same about each member, in the same order.
    ///
    /// # Errors
    /// [`Error::Disagree`], or the headers cannot be read.
    pub fn new(toc: Toc, split: TarSplit, limits: &Limits) -> Result<Layer, Error> {
        let TarSplit { framing, members } = split;
        let bounds = tar::Limits { max_members: limits.entries, ..tar::Limits::default() };
        let mut headers = tar::Reader::new(framing.as_slice(), bounds);
        let (mut pieces, mut framed, mut contents) = (Vec::new(), 0, 0);
        let mut entries = toc.entries.iter().zip(&members).enumerate();
        while let Some(member) = headers.next_entry()? {
            let name = String::from_utf8_lossy(&member.name).into_owned();
            let disagree = |what| Error::Disagree { name: name.clone(), what };
            let Some((number, (said, placed))) = entries.next() else {
                return Err(disagree("its being there"));
            };
            let found = Entry::of(&member, headers.details(&member)?)?;
            if let Some(what) = said.difference(&found) {
                return Err(disagree(what));
            }
            if placed.name != member.name || placed.size != member.content_len {
                return Err(disagree("name or size in the tar-split"));
            }
            headers.omit_content();
            if member.content_len > 0 {
                // The content goes where the tar has it, and nowhere else.
                if placed.framing as u64 + contents != member.content_offset {
                    return Err(disagree("the place in the tar-split"));
                }
                pieces.push(Piece::Framing(framed..placed.framing));
                pieces.push(Piece::Content { entry: number, crc: placed.crc });
                framed = placed.framing;
                contents += member.content_len;
            }
        }
        if let Some((_, (said, _))) = entries.next() {
            return Err(Error::Disagree { name: said.name.clone(), what: "its being there" });
        }
        if toc.entries.len() != members.len() {
            return Err(Error::Disagree { name: String::new(), what: "the number of members" });
        }
        pieces.push(Piece::Framing(framed..framing.len()));
        let size = contents.saturating_add(framing.len() as u64);
        if size > limits.tar {
            return Err(Error::TooLarge { what: "the tar", actual: size, limit: limits.tar });
        }
        Ok(Layer { toc, framing, pieces })
    }

    /// The layer of a TOC without a tar-split, if all of it can be had by ranges: what lies between contents is in frames
    /// of its own. Nothing says that it fits the TOC but the diff_id.
    pub fn without_split(toc: Toc, place: &Place) -> Option<Layer> {
        let (mut pieces, mut end) = (Vec::new(), 0);
        for (number, entry) in toc.entries.iter().enumerate() {
            let (Some(first), Some(last)) = (entry.chunks.first(), entry.chunks.last()) else { continue };
            if !toc.ends_said || first.stored.start < end {
                return None;
            }
            pieces.push(Piece::Glue(end..first.stored.start));
            pieces.push(Piece::Content { entry: number, crc: None });
            end = last.stored.end;
        }
        if end > place.data_end() {
            return None;
        }
        pieces.push(Piece::Glue(end..place.data_end()));
        Some(Layer { toc, framing: Vec::new(), pieces })
    }

    /// The layer as the frames, or gzip members, of the blob, from first to last: for what knows nothing of it but where
    /// they end.
    pub fn of_frames(toc: Toc, place: &Place) -> Layer {
        // The TOC of eStargz is a part of the tar.
        let end = if place.family == Family::Stargz { place.size } else { place.data_end() };
        Layer { toc, framing: Vec::new(), pieces: vec![Piece::Glue(0..end)] }
    }
}

/// Passes a content on to `out` and compares it with what was said of it.
#[derive(Debug)]
pub struct ContentWriter<'a, W> {
    out: W,
    entry: &'a Entry,
    left: u64,
    crc: Option<(u64, Crc64)>,
    hasher: Option<Hasher>,
}

impl<'a, W: Write> ContentWriter<'a, W> {
    /// A content of `entry`. Its digest is compared unless it is one chunk, whose reader has compared it.
    pub fn new(out: W, entry: &'a Entry, crc: Option<u64>) -> Self {
        let hasher = (entry.chunks.len() > 1).then(Hasher::new);
        ContentWriter { out, entry, left: entry.size, crc: crc.map(|crc| (crc, Crc64::default())), hasher }
    }

    /// Ends the content.
    ///
    /// # Errors
    /// It is another one than was said.
    pub fn finish(self) -> Result<(), Error> {
        let what = || format!("the content of {:?}", self.entry.name);
        if self.left > 0 {
            return Err(Error::Length { what: what() });
        }
        if let (Some(hasher), Some(expected)) = (self.hasher, self.entry.digest) {
            let actual = hasher.finish();
            if actual != expected {
                return Err(Error::Digest { what: what(), expected, actual });
            }
        }
        match self.crc {
            Some((expected, crc)) if crc.value() != expected => {
                Err(Error::Disagree { name: self.entry.name.clone(), what: "the checksum of the content" })
            }
            _ => Ok(()),
        }
    }
}

impl<W: Write> Write for ContentWriter<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        let too_long = || Error::Length { what: format!("the content of {:?}", self.entry.name) };
        self.left = self.left.checked_sub(n as u64).ok_or_else(too_long)?;
        if let Some((_, crc)) = &mut self.crc {
            crc.update(&buf[..n]);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..n]);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
