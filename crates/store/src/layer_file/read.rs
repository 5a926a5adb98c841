//! Reading layer files, whoever wrote them.

use coracle_codec::ReadAt;
use coracle_codec::digest::{Digest, Hasher};
use zstd_safe::get_error_name;

use super::number::Numbers;
use super::{Content, END, Error, FOOTER, FRAME, FileEntry, MAGIC, Piece};

/// Where a zstd frame says what it has, and the bit for a content checksum (RFC 8878 section 3.1.1.1.1).
const DESCRIPTOR: usize = 4;
const CHECKSUM: u8 = 4;

/// What a reader takes from one layer file at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the table, decoded.
    pub table_bytes: u64,
    /// Objects that the tar refers to.
    pub objects: u64,
    /// Regular files.
    pub files: u64,
}

impl Default for Limits {
    /// 256 MiB of table, 4 194 304 objects and as many files.
    fn default() -> Self {
        Limits { table_bytes: 256 << 20, objects: 1 << 22, files: 1 << 22 }
    }
}

/// An optional part of a layer file, told by its number. None is defined yet: section 4.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub number: u64,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
}

/// A layer file whose table was read and checked.
pub struct LayerFile<R> {
    input: R,
    diff_id: Digest,
    size: u64,
    pieces: Vec<Piece>,
    /// Where each frame begins in the file, and where the last one ends.
    frames: Vec<u64>,
    inline: u64,
    names: Vec<u8>,
    files: Vec<FileRecord>,
    sections: Vec<Section>,
}

/// A regular file: its name in `names`, and the piece that it is in.
struct FileRecord {
    name: usize,
    name_len: usize,
    offset: u64,
    size: u64,
    piece: usize,
}

impl<R> std::fmt::Debug for LayerFile<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerFile")
            .field("diff_id", &self.diff_id)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// What the footer says.
struct Footer {
    table: u64,
    table_stored: u64,
    table_bytes: u64,
    digest: Digest,
}

impl Footer {
    fn read(input: &impl ReadAt) -> Result<Self, Error> {
        let size = input.size();
        let shortest = (MAGIC.len() + FOOTER) as u64;
        if size < shortest {
            return Err(Error::TooShort(size));
        }
        let mut magic = [0; MAGIC.len()];
        input.read_exact_at(0, &mut magic)?;
        let (name, version) = (&magic[..7], magic[7]);
        if name != &MAGIC[..7] {
            return Err(Error::Magic("start"));
        }
        if version != MAGIC[7] {
            return Err(Error::Version(version));
        }
        let mut footer = [0; FOOTER];
        input.read_exact_at(size - FOOTER as u64, &mut footer)?;
        let (numbers, rest) = footer.split_at(16);
        let (digest, end) = rest.split_at(32);
        if end != END {
            return Err(Error::Magic("end"));
        }
        let table = number(&numbers[..8]);
        let table_end = size - FOOTER as u64;
        if table < MAGIC.len() as u64 || table > table_end {
            return Err(Error::TooShort(size));
        }
        Ok(Footer {
            table,
            table_stored: table_end - table,
            table_bytes: number(&numbers[8..]),
            digest: Digest::from_bytes(digest.try_into().unwrap_or_default()),
        })
    }
}

/// Eight bytes, lowest first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl<R: ReadAt> LayerFile<R> {
    /// Reads and checks footer and table. Frames are decoded when they are asked for; that the file as a whole is
    /// what was written is looked at by [`LayerFile::check`] only.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(input: R, limits: &Limits) -> Result<Self, Error> {
        let footer = Footer::read(&input)?;
        bound("bytes of table", footer.table_bytes, limits.table_bytes)?;
        // A frame that does not shrink is a little longer than its content; anything beyond is no frame of ours.
        let most = zstd_safe::compress_bound(footer.table_bytes as usize) as u64;
        bound("bytes of compressed table", footer.table_stored, most)?;
        let mut stored = vec![0; footer.table_stored as usize];
        input.read_exact_at(footer.table, &mut stored)?;
        let table = decode(&stored, footer.table_bytes as usize, || "table".into())?;
        drop(stored);
        Self::parse(input, &table, footer.table, limits)
    }

    fn parse(input: R, table: &[u8], table_offset: u64, limits: &Limits) -> Result<Self, Error> {
        let mut numbers = Numbers(table);
        let diff_id = Digest::from_bytes(numbers.bytes(32)?.try_into().unwrap_or_default());
        let size = numbers.number()?;
        let (pieces, inline) = pieces(&mut numbers, size, limits)?;
        let (frames, mut position) = frames(&mut numbers, inline, table_offset)?;
        let (names, files) = files(&mut numbers, &pieces, size, limits)?;
        let mut sections = Vec::new();
        for _ in 0..count(&mut numbers, 2, "sections", u64::MAX)? {
            let section = Section { number: numbers.number()?, offset: position, len: numbers.number()? };
            position = add(position, section.len)?;
            sections.push(section);
        }
        if !numbers.0.is_empty() {
            return Err(Error::Table("bytes behind its end"));
        }
        if position != table_offset {
            return Err(Error::Table("frames and sections do not end where the table begins"));
        }
        Ok(LayerFile { input, diff_id, size, pieces, frames, inline, names, files, sections })
    }

    /// The sha256 that the tar has, as the file states it.
    pub fn diff_id(&self) -> Digest {
        self.diff_id
    }

    /// Bytes of the tar.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the tar that are in this file.
    pub fn inline(&self) -> u64 {
        self.inline
    }

    /// Bytes of the layer file itself.
    pub fn stored(&self) -> u64 {
        self.input.size()
    }

    /// The tar from its first byte to its last.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The regular files in the order of the tar, without sparse ones.
    pub fn files(&self) -> impl ExactSizeIterator<Item = FileEntry<'_>> {
        self.files.iter().map(|file| self.entry(file))
    }

    /// The regular file of this number.
    pub fn file(&self, number: usize) -> Option<FileEntry<'_>> {
        self.files.get(number).map(|file| self.entry(file))
    }

    fn entry(&self, file: &FileRecord) -> FileEntry<'_> {
        let object = match self.pieces.get(file.piece).map(|piece| piece.content) {
            Some(Content::Object(digest)) => Some(digest),
            _ => None,
        };
        let path = &self.names[file.name..file.name + file.name_len];
        FileEntry { path, offset: file.offset, size: file.size, object }
    }

    /// Optional parts.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.frames.len() - 1
    }

    /// Decodes a frame: the inline bytes from `number` times [`FRAME`] on.
    ///
    /// # Errors
    /// It is damaged or cannot be read.
    pub fn frame(&self, number: usize) -> Result<Vec<u8>, Error> {
        let (Some(&start), Some(&end)) = (self.frames.get(number), self.frames.get(number + 1)) else {
            return Err(Error::Table("a frame that it does not list"));
        };
        let mut stored = vec![0; (end - start) as usize];
        self.input.read_exact_at(start, &mut stored)?;
        let len = (self.inline - (number * FRAME) as u64).min(FRAME as u64);
        decode(&stored, len as usize, || format!("frame {number}"))
    }

    /// Reads the whole file and compares it with its own digest. Reports how many bytes it has read.
    ///
    /// # Errors
    /// [`Error::Digest`], or it cannot be read.
    pub fn check(&self) -> Result<u64, Error> {
        let end = self.input.size() - (32 + END.len()) as u64;
        let mut hasher = Hasher::new();
        let mut buf = vec![0; FRAME];
        let mut at = 0;
        while at < end {
            let n = (end - at).min(FRAME as u64) as usize;
            self.input.read_exact_at(at, &mut buf[..n])?;
            hasher.update(&buf[..n]);
            at += n as u64;
        }
        let (expected, actual) = (Footer::read(&self.input)?.digest, hasher.finish());
        if expected == actual { Ok(end) } else { Err(Error::Digest { expected, actual }) }
    }
}

fn bound(what: &'static str, actual: u64, limit: u64) -> Result<(), Error> {
    if actual > limit { Err(Error::TooLarge { what, actual, limit }) } else { Ok(()) }
}

fn add(a: u64, b: u64) -> Result<u64, Error> {
    a.checked_add(b).ok_or(Error::Table("a sum of more than 64 bits"))
}

/// A number of things of which each takes at least `least` bytes of the table: nothing is made room for that cannot be
/// there.
fn count(numbers: &mut Numbers<'_>, least: u64, what: &'static str, limit: u64) -> Result<usize, Error> {
    let count = numbers.number()?;
    bound(what, count, limit)?;
    if count > numbers.0.len() as u64 / least {
        return Err(Error::Table("fewer bytes than its counts need"));
    }
    Ok(count as usize)
}

/// The pieces of a tar of `size` bytes, and how many bytes of it are inline.
fn pieces(numbers: &mut Numbers<'_>, size: u64, limits: &Limits) -> Result<(Vec<Piece>, u64), Error> {
    let objects = count(numbers, 34, "objects", limits.objects)?;
    let mut pieces = Vec::with_capacity(objects * 2 + 1);
    let (mut start, mut inline) = (0u64, 0u64);
    for number in 0..=objects {
        let len = numbers.number()?;
        if len > 0 {
            pieces.push(Piece { start, len, content: Content::Inline(inline) });
            start = add(start, len)?;
            inline += len;
        }
        if number < objects {
            let len = numbers.number()?;
            if len == 0 {
                return Err(Error::Table("an object without bytes"));
            }
            let digest = Digest::from_bytes(numbers.bytes(32)?.try_into().unwrap_or_default());
            pieces.push(Piece { start, len, content: Content::Object(digest) });
            start = add(start, len)?;
        }
    }
    if start != size {
        return Err(Error::Table("pieces do not add up to the size of the tar"));
    }
    Ok((pieces, inline))
}

/// Where the frames of `inline` bytes begin, and where they end.
fn frames(numbers: &mut Numbers<'_>, inline: u64, table: u64) -> Result<(Vec<u64>, u64), Error> {
    let count = inline.div_ceil(FRAME as u64);
    if count > numbers.0.len() as u64 {
        return Err(Error::Table("fewer frames than its inline bytes need"));
    }
    let most = zstd_safe::compress_bound(FRAME) as u64;
    let mut position = MAGIC.len() as u64;
    let mut frames = Vec::with_capacity(count as usize + 1);
    frames.push(position);
    for _ in 0..count {
        let len = numbers.number()?;
        bound("bytes in a compressed frame", len, most)?;
        position = add(position, len)?;
        frames.push(position);
    }
    if position > table {
        return Err(Error::Table("frames reach beyond its start"));
    }
    Ok((frames, position))
}

/// The names, and the files that lie in one piece each.
fn files(
    numbers: &mut Numbers<'_>,
    pieces: &[Piece],
    size: u64,
    limits: &Limits,
) -> Result<(Vec<u8>, Vec<FileRecord>), Error> {
    let count = count(numbers, 3, "files", limits.files)?;
    let mut files = Vec::with_capacity(count);
    let (mut names, mut end, mut piece) = (Vec::new(), 0u64, 0);
    for _ in 0..count {
        let name_len = numbers.number()?;
        let path = numbers.bytes(name_len)?;
        let offset = add(end, numbers.number()?)?;
        let size_of_file = numbers.number()?;
        end = add(offset, size_of_file)?;
        if end > size {
            return Err(Error::Table("a file beyond the end of the tar"));
        }
        while pieces.get(piece).is_some_and(|piece| piece.start + piece.len <= offset) {
            piece += 1;
        }
        check_place(pieces.get(piece), offset, size_of_file)?;
        files.push(FileRecord {
            name: names.len(),
            name_len: path.len(),
            offset,
            size: size_of_file,
            // Nothing is in no object.
            piece: if size_of_file == 0 { usize::MAX } else { piece },
        });
        names.extend_from_slice(path);
    }
    Ok((names, files))
}

/// A file is one whole object, or lies within the bytes between two.
fn check_place(piece: Option<&Piece>, offset: u64, size: u64) -> Result<(), Error> {
    let good = match piece {
        _ if size == 0 => true,
        None => false,
        Some(piece) => match piece.content {
            Content::Object(_) => piece.start == offset && piece.len == size,
            Content::Inline(_) => offset + size <= piece.start + piece.len,
        },
    };
    if good { Ok(()) } else { Err(Error::Table("a file that is neither an object nor inline")) }
}

/// Decodes exactly one frame to exactly `len` bytes.
fn decode(stored: &[u8], len: usize, what: impl Fn() -> String) -> Result<Vec<u8>, Error> {
    let fail = |reason: &str| Error::Compressed { what: what(), reason: reason.into() };
    match zstd_safe::find_frame_compressed_size(stored) {
        Ok(size) if size == stored.len() => {}
        Ok(_) => return Err(fail("bytes behind the frame")),
        Err(code) => return Err(fail(get_error_name(code))),
    }
    if stored.get(DESCRIPTOR).is_none_or(|descriptor| descriptor & CHECKSUM == 0) {
        return Err(fail("no checksum"));
    }
    if zstd_safe::get_frame_content_size(stored).ok().flatten() != Some(len as u64) {
        return Err(fail("another length than stated"));
    }
    let mut out = Vec::with_capacity(len);
    zstd_safe::decompress(&mut out, stored).map_err(|code| fail(get_error_name(code)))?;
    if out.len() == len { Ok(out) } else { Err(fail("another length than stated")) }
}
