//! Where packed streams lie in a file: `.gz` (RFC 1952), `.zip` with its kin (APPNOTE.TXT 6.3), `.png`, `.xz` and
//! `.zst`, and kernels of Linux. The writer's business alone: a delta says where streams are, a reader need not find
//! them.

use super::{lz4, png, xz_container};
use crate::native::deflate::{Encoder, Family};
use crate::native::items;
use crate::{ReadAt, Section};

/// The kind of a packed stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A deflate stream, and the encoder that its container hints at.
    Deflate(Option<Encoder>),
    /// A stream of an `.xz` file.
    Xz,
    /// A zstd frame.
    Zstd,
    /// The chunks with the data of an image, which are several.
    Png,
    /// A legacy frame of LZ4.
    Lz4,
}

impl Format {
    /// The format of a view by its number (section 6.5).
    pub(crate) fn of_view(kind: u64) -> Option<Self> {
        Some(match kind {
            items::VIEW_INFLATED => Format::Deflate(None),
            items::VIEW_XZ => Format::Xz,
            items::VIEW_ZSTD => Format::Zstd,
            items::VIEW_PNG => Format::Png,
            items::VIEW_LZ4 => Format::Lz4,
            _ => return None,
        })
    }

    /// The number of its views.
    pub(crate) fn view(self) -> u64 {
        match self {
            Format::Deflate(_) => items::VIEW_INFLATED,
            Format::Xz => items::VIEW_XZ,
            Format::Zstd => items::VIEW_ZSTD,
            Format::Png => items::VIEW_PNG,
            Format::Lz4 => items::VIEW_LZ4,
        }
    }

    /// The name that a head must list for its views.
    pub(crate) fn listed(self) -> Option<&'static str> {
        match self {
            Format::Png => Some(png::NAME),
            Format::Lz4 => Some(lz4::NAME),
            Format::Deflate(_) | Format::Xz | Format::Zstd => None,
        }
    }

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Deflate(_) => "deflate",
            Format::Xz => "xz",
            Format::Zstd => "zstd",
            Format::Png => "png",
            Format::Lz4 => "lz4",
        }
    }
}

/// A packed stream inside a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Offset of its first byte.
    pub start: u64,
    /// Bytes of the stream; `None` where only inflating it can tell.
    pub len: Option<u64>,
    /// Name within the container, empty where there is but one.
    pub name: Vec<u8>,
    /// CRC-32 of the content as a zip states it, else 0.
    pub crc: u32,
    /// What it is.
    pub format: Format,
}

/// Most streams of one file.
const MAX_STREAMS: usize = 1 << 16;
/// Bytes of the end of a zip that are searched for its directory.
const ZIP_TAIL: u64 = 22 + 0xffff;
/// Largest `.xz` or `.zst` file that is looked into.
const MAX_FILE: u64 = 32 << 20;

/// The packed streams of a file, ascending, not overlapping.
pub fn locate(file: &dyn ReadAt) -> Vec<Stream> {
    let mut magic = [0; 4];
    match file.read_exact_at(0, &mut magic) {
        Ok(()) if magic[..3] == [0x1f, 0x8b, 8] => gzip(file).into_iter().collect(),
        Ok(()) if magic == *b"\x89PNG" => image(file).into_iter().collect(),
        Ok(()) if magic == *b"PK\x03\x04" => zip(file).unwrap_or_default(),
        Ok(()) if magic == [0xfd, b'7', b'z', b'X'] => {
            row(file, Format::Xz, |bytes| xz_container::parse(bytes).map(|l| l.len))
        }
        Ok(()) if magic == [0x28, 0xb5, 0x2f, 0xfd] => {
            row(file, Format::Zstd, |bytes| zstd_safe::find_frame_compressed_size(bytes).ok())
        }
        Ok(()) if magic[..2] == *b"MZ" => kernel(file).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Streams one behind the other from the start of a file, as far as there are any.
fn row(file: &dyn ReadAt, format: Format, len: impl Fn(&[u8]) -> Option<usize>) -> Vec<Stream> {
    let mut streams = Vec::new();
    if file.size() > MAX_FILE {
        return streams;
    }
    let Ok(bytes) = Section::new(file, 0, file.size()).to_vec() else { return streams };
    let mut at = 0;
    while let Some(len) = len(&bytes[at..]).filter(|&l| l > 0 && streams.len() < MAX_STREAMS) {
        let (start, len) = (at as u64, len as u64);
        streams.push(Stream { start, len: Some(len), name: Vec::new(), crc: 0, format });
        at += len as usize;
    }
    streams
}

/// The payload of a kernel of Linux: of x86 by its boot protocol (2.08 and later), of others by the header of EFI
/// zboot.
fn kernel(file: &dyn ReadAt) -> Option<Stream> {
    let mut head = vec![0; file.size().min(1024) as usize];
    file.read_exact_at(0, &mut head).ok()?;
    let (start, len) = if head.get(4..8)? == b"zimg" {
        (u64::from(u32_at(&head, 8)?), u64::from(u32_at(&head, 12)?))
    } else if head.get(0x202..0x206)? == b"HdrS" && u16_at(&head, 0x206)? >= 0x208 {
        // Sectors of the part for real mode, but for the first.
        let sectors = match head[0x1f1] {
            0 => 4,
            n => u64::from(n),
        };
        ((sectors + 1) * 512 + u64::from(u32_at(&head, 0x248)?), u64::from(u32_at(&head, 0x24c)?))
    } else {
        return None;
    };
    if len > MAX_FILE || start.checked_add(len)? > file.size() {
        return None;
    }
    let payload = Section::new(file, start, len);
    let bytes = payload.to_vec().ok()?;
    let found =
        |format, len: usize| Stream { start, len: Some(len as u64), name: Vec::new(), crc: 0, format };
    match bytes.get(..4)? {
        [0x1f, 0x8b, 8, _] => gzip(&payload).map(|s| Stream { start: start + s.start, ..s }),
        [0xfd, b'7', b'z', b'X'] => xz_container::parse(&bytes).map(|l| found(Format::Xz, l.len)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let len = zstd_safe::find_frame_compressed_size(&bytes).ok()?;
            Some(found(Format::Zstd, len))
        }
        _ => lz4::frame_len(&bytes).map(|len| found(Format::Lz4, len)),
    }
}

fn gzip(file: &dyn ReadAt) -> Option<Stream> {
    let mut head = vec![0; file.size().min(1 << 16) as usize];
    file.read_exact_at(0, &mut head).ok()?;
    let (flags, extra, system) = (*head.get(3)?, *head.get(8)?, *head.get(9)?);
    let mut at = 10;
    if flags & 4 != 0 {
        at += 2 + usize::from(u16_at(&head, at)?);
    }
    for bit in [8, 16] {
        if flags & bit != 0 {
            at += head.get(at..)?.iter().position(|&b| b == 0)? + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    // RFC 1952, section 2.3.1: 2 for the best, 4 for the fastest compression; system 3 is Unix, where gzip is at home.
    let level = match extra {
        2 => 9,
        4 => 1,
        _ => 6,
    };
    let family = if system == 3 { Family::Gzip } else { Family::Zlib };
    let mem_level = if family == Family::Gzip { 9 } else { 8 };
    let format = Format::Deflate(Some(Encoder { family, level, mem_level }));
    (at < head.len()).then_some(Stream { start: at as u64, len: None, name: Vec::new(), crc: 0, format })
}

/// The chunks `IDAT` of an image, which follow one another; of a single one, the stream in it.
fn image(file: &dyn ReadAt) -> Option<Stream> {
    let (mut at, mut start, mut len, mut chunks) = (8, 0, 0, 0);
    while at + 12 <= file.size() {
        let mut head = [0; 8];
        file.read_exact_at(at, &mut head).ok()?;
        let data = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        match &head[4..] {
            b"IDAT" if chunks == 0 => (start, len, chunks) = (at, data + 12, 1),
            b"IDAT" if at == start + len => (len, chunks) = (len + data + 12, chunks + 1),
            b"IDAT" => return None,
            b"IEND" => break,
            _ => {}
        }
        at += 12 + data;
    }
    if start + len > file.size() || len > MAX_FILE {
        return None;
    }
    let found = |start, len, format| Stream { start, len: Some(len), name: Vec::new(), crc: 0, format };
    match chunks {
        // Around the stream stand two bytes of header and four of checksum (RFC 1950).
        1 => len
            .checked_sub(12 + 6)
            .filter(|&len| len > 0)
            .map(|len| found(start + 8 + 2, len, Format::Deflate(Some(Encoder::OF_IMAGES)))),
        2.. => Some(found(start, len, Format::Png)),
        _ => None,
    }
}

fn zip(file: &dyn ReadAt) -> Option<Vec<Stream>> {
    let size = file.size();
    let mut tail = vec![0; size.min(ZIP_TAIL) as usize];
    file.read_exact_at(size - tail.len() as u64, &mut tail).ok()?;
    let end = tail.windows(4).rposition(|w| w == b"PK\x05\x06")?;
    let end = &tail[end..];
    let (count, len, start) = (u16_at(end, 10)?, u32_at(end, 12)?, u32_at(end, 16)?);
    if u64::from(start) + u64::from(len) > size || usize::from(count) > MAX_STREAMS {
        return None;
    }
    let mut directory = vec![0; len as usize];
    file.read_exact_at(start.into(), &mut directory).ok()?;
    let mut rest = &directory[..];
    let mut streams = Vec::new();
    for _ in 0..count {
        if rest.get(..4)? != b"PK\x01\x02" {
            return None;
        }
        let (method, crc, stored) = (u16_at(rest, 10)?, u32_at(rest, 16)?, u32_at(rest, 20)?);
        let (name, extra, comment) = (u16_at(rest, 28)?, u16_at(rest, 30)?, u16_at(rest, 32)?);
        let local = u64::from(u32_at(rest, 42)?);
        let name = rest.get(46..46 + usize::from(name))?;
        rest = rest.get(46 + name.len() + usize::from(extra) + usize::from(comment)..)?;
        if method != 8 || stored == 0 {
            continue;
        }
        let mut header = [0; 30];
        file.read_exact_at(local, &mut header).ok()?;
        if header[..4] != *b"PK\x03\x04" {
            return None;
        }
        let start = local + 30 + u64::from(u16_at(&header, 26)?) + u64::from(u16_at(&header, 28)?);
        let format = Format::Deflate(None);
        streams.push(Stream { start, len: Some(stored.into()), name: name.to_vec(), crc, format });
    }
    streams.sort_by_key(|s| s.start);
    let mut at = 0;
    for s in &streams {
        if s.start < at {
            return None;
        }
        at = s.start + s.len?;
    }
    (at <= size).then_some(streams)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16_at(bytes, at)?) | u32::from(u16_at(bytes, at + 2)?) << 16)
}
