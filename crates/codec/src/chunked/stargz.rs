//! eStargz: gzip members, and the TOC as the last file of the tar (`docs/formats/chunked.md`, section 6).

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::digest::{Digest, Hasher, Hashing};
use crate::tar::write::{END, Member, padding};
use crate::tar::{self, Reader};

use super::place::stargz_footer_bytes;
use super::toc::{TocWriter, compare};
use super::write::{Capture, Names};
use super::{Chunk, Entry, Error, Family, Layer, Limits, Options, Piece, Place, STARGZ_SIZE, Toc, Written};

/// Name of the TOC in the tar.
const TOC_NAME: &str = "stargz.index.json";
/// File that says that no files are marked for being fetched early.
const LANDMARK: &str = ".no.prefetch.landmark";
const LANDMARK_CONTENT: &[u8] = &[0x0f];
/// All names that are eStargz's own.
const OWN_NAMES: [&str; 3] = [TOC_NAME, LANDMARK, ".prefetch.landmark"];
/// Contents are cut after so many bytes, as stargz-snapshotter does.
const CHUNK: u64 = 4 << 20;

/// Whether a member of a layer belongs to eStargz itself and not to the image.
pub fn is_stargz_own(name: &str) -> bool {
    OWN_NAMES.contains(&name.trim_start_matches("./"))
}

/// Reads the TOC out of the bytes of its gzip member, compared with `place`. `offset` is where the member begins.
///
/// # Errors
/// It is another TOC, or breaks a rule.
pub fn read_stargz_toc(member: &[u8], place: &Place, offset: u64, limits: &Limits) -> Result<Toc, Error> {
    let mut tar = Reader::new(GzDecoder::new(member), tar::Limits::default());
    let entry = tar.next_entry()?.filter(|entry| entry.name == TOC_NAME.as_bytes());
    let entry = entry.ok_or(Error::Footer("no TOC where it says that there is one"))?;
    if entry.content_len > limits.decoded {
        let (actual, limit) = (entry.content_len, limits.decoded);
        return Err(Error::TooLarge { what: "the TOC", actual, limit });
    }
    let mut json = Vec::new();
    tar.read_to_end(&mut json)?;
    compare("the TOC", &json, &place.digest)?;
    Toc::parse(&json, Family::Stargz, offset, limits)
}

/// The end of the tar of an eStargz layer, out of the gzip member with the TOC, which is its last file.
///
/// # Errors
/// It is longer than a TOC may be, or cannot be read.
pub fn read_stargz_end(member: &[u8], limits: &Limits) -> Result<Vec<u8>, Error> {
    // Headers and padding come to the TOC.
    let limit = limits.decoded.saturating_add(64 << 10);
    let (mut rest, mut end) = (member, Vec::new());
    let actual = GzDecoder::new(&mut rest).take(limit + 1).read_to_end(&mut end)? as u64;
    if actual > limit {
        return Err(Error::TooLarge { what: "the end of the tar", actual, limit });
    }
    if !rest.is_empty() {
        return Err(Error::Footer("something stands between the TOC and it"));
    }
    Ok(end)
}

impl Layer {
    /// Puts the end of an eStargz tar in place of the one that was predicted, zeros behind the last member. `None` if
    /// together they are too large.
    #[must_use]
    pub fn with_stargz_end(mut self, end: &[u8], limits: &Limits) -> Option<Layer> {
        let mut before = 0;
        let mut contents = 0u64;
        for piece in &self.pieces {
            match piece {
                Piece::Content { entry, .. } => {
                    let size = self.toc.entries.get(*entry)?.size;
                    (before, contents) = (padding(size), contents.checked_add(size)?);
                }
                Piece::Framing(_) => {}
                Piece::Glue(_) => return None,
            }
        }
        let Some(Piece::Framing(last)) = self.pieces.last_mut() else { return None };
        // The padding of the last content stays, and no header is all zeros.
        let block = tar::BLOCK as usize;
        let mut kept = last.end;
        while kept >= last.start + before + block && self.framing[kept - block..kept].iter().all(|b| *b == 0)
        {
            kept -= block;
        }
        self.framing.truncate(kept);
        self.framing.extend_from_slice(end);
        last.end = self.framing.len();
        let size = contents.checked_add(self.framing.len() as u64)?;
        (size <= limits.tar).then_some(self)
    }
}

/// Writes gzip members into `out`.
struct Members<W: Write> {
    open: GzEncoder<Hashing<W>>,
    level: Compression,
    diff_id: Hasher,
    tar: u64,
}

impl<W: Write> Members<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.diff_id.update(bytes);
        self.tar += bytes.len() as u64;
        self.open.write_all(bytes)
    }

    /// Ends the member at hand; where the next one begins.
    fn cut(self) -> io::Result<(Self, u64)> {
        let out = self.open.finish()?;
        let at = out.passed();
        Ok((Members { open: GzEncoder::new(out, self.level), ..self }, at))
    }
}

/// Writes `input`, an uncompressed tar, to `out` as eStargz. The tar that comes out of it is another one: it has a
/// landmark in front and the TOC at its end.
///
/// # Errors
/// As [`write`](super::write()).
pub fn write_stargz(input: impl Read, out: impl Write, options: &Options) -> Result<Written, Error> {
    let level = Compression::new(u32::try_from(options.level).unwrap_or(9).min(9));
    let open = GzEncoder::new(Hashing::new(out), level);
    let mut members = Members { open, level, diff_id: Hasher::new(), tar: 0 };
    let mut toc = TocWriter::new(Vec::new(), Family::Stargz)?;
    let (mut entries, mut chunks, mut names) = (1, 1, Names::default());
    (members, _) = landmark(members, &mut toc)?;
    let mut tar = Reader::new(Capture::new(input), tar::Limits::default());
    let mut piece = vec![0; 128 << 10];
    while let Some(member) = tar.next_entry()? {
        let mut entry = Entry::of(&member, tar.details(&member)?)?;
        if is_stargz_own(&entry.name) {
            let what = "the name is one of eStargz's own";
            return Err(Error::Unsupported { name: entry.name, what });
        }
        names.check(&entry)?;
        let capture = tar.get_mut();
        members.put(&std::mem::take(&mut capture.framing))?;
        capture.keeps = false;
        let mut whole = Hasher::new();
        while entry.chunks.last().map_or(0, |chunk| chunk.offset + chunk.size) < member.content_len {
            let offset = entry.chunks.last().map_or(0, |chunk| chunk.offset + chunk.size);
            let size = (member.content_len - offset).min(CHUNK);
            let start;
            (members, start) = members.cut()?;
            let mut part = Hasher::new();
            let mut left = size;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                let n = tar.read(&mut piece[..most])?;
                if n == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                members.put(&piece[..n])?;
                whole.update(&piece[..n]);
                part.update(&piece[..n]);
                left -= n as u64;
            }
            // An end is not written: it is where the next member begins.
            let digest = Some(part.finish());
            entry.chunks.push(Chunk { offset, size, digest, zeros: false, stored: start..start, inner: 0 });
        }
        tar.get_mut().keeps = true;
        if !entry.chunks.is_empty() {
            entry.digest = Some(whole.finish());
        }
        toc.entry(&entry)?;
        entries += 1;
        chunks += entry.chunks.len() as u64;
    }
    let mut rest = tar.into_rest();
    // Padding of the last content stands in front of the end of the archive, which is zeros as well.
    let kept = rest.framing.len().min(padding_of(members.tar));
    members.put(&rest.framing[..kept])?;
    loop {
        if std::mem::take(&mut rest.framing).iter().any(|byte| *byte != 0) {
            let (name, what) = (String::new(), "there is something behind the end of the archive");
            return Err(Error::Unsupported { name, what });
        }
        if rest.read(&mut piece)? == 0 {
            break;
        }
    }
    members.put(&vec![0; padding_of(members.tar)])?;
    let (mut members, offset) = members.cut()?;
    let (json, _) = toc.finish(None)?;
    members.put(&Member { mode: 0o444, ..Member::file(TOC_NAME, json.len() as u64) }.header())?;
    members.put(&json)?;
    members.put(&vec![0; padding(json.len() as u64)])?;
    members.put(&END)?;
    let (diff_id, tar) = (members.diff_id.finish(), members.tar);
    let mut out = members.open.finish()?;
    out.write_all(&stargz_footer_bytes(offset))?;
    out.flush()?;
    let place = Place {
        family: Family::Stargz,
        digest: Digest::of(&json),
        toc: None,
        split: None,
        size: out.passed(),
    };
    let mut annotations = place.annotations(false);
    annotations.insert(STARGZ_SIZE.to_owned(), tar.to_string());
    Ok(Written { annotations, diff_id, tar, entries, chunks })
}

/// Bytes up to the next block.
fn padding_of(at: u64) -> usize {
    (at.next_multiple_of(tar::BLOCK) - at) as usize
}

fn landmark<W: Write>(
    mut members: Members<W>,
    toc: &mut TocWriter<Vec<u8>>,
) -> Result<(Members<W>, u64), Error> {
    let member = Member::file(LANDMARK, LANDMARK_CONTENT.len() as u64);
    let header = member.header();
    members.put(&header)?;
    let (mut members, start) = members.cut()?;
    members.put(LANDMARK_CONTENT)?;
    members.put(&vec![0; padding(LANDMARK_CONTENT.len() as u64)])?;
    let mut headers = Reader::new(header.as_slice(), tar::Limits::default());
    let read = headers.next_entry()?.unwrap_or_else(|| unreachable!("one header"));
    let mut entry = Entry::of(&read, headers.details(&read)?)?;
    let digest = Some(Digest::of(LANDMARK_CONTENT));
    entry.digest = digest;
    entry.chunks.push(Chunk { offset: 0, size: 1, digest, zeros: false, stored: start..start, inner: 0 });
    toc.entry(&entry)?;
    Ok((members, start))
}
