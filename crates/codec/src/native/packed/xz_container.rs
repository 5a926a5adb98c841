//! Streams of `.xz` files without their compressed data: headers, checks, index (`docs/formats/native-delta.md`,
//! section 8.5; the `.xz` file format, version 1.2.1).

use std::ops::Range;

use crate::digest::Digest;

const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const FOOTER_MAGIC: [u8; 2] = *b"YZ";
/// Bytes of the header and of the footer of a stream.
const ENDS: usize = 12;
/// Id of LZMA2.
const LZMA2: u8 = 0x21;
/// Both sizes are in a block header.
const WITH_SIZES: u8 = 0xc0;
/// Most blocks of a stream that is looked into.
const MAX_BLOCKS: usize = 1 << 16;

/// What is the same in all blocks of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Check: 0, 1, 4 or 10.
    pub check: u8,
    /// BCJ filter, or 0.
    pub filter: u8,
    /// Properties of LZMA2: the dictionary.
    pub dictionary: u8,
    /// Length of a block header with sizes in units of four bytes; 0 if it has none and is as short as possible.
    pub header: u8,
}

/// A block: where its compressed data lie in the stream, and what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub data: Range<usize>,
    pub content: u64,
}

/// A stream taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub shape: Shape,
    pub blocks: Vec<Block>,
    /// Bytes of the stream.
    pub len: usize,
}

/// The ids of BCJ filters without options that are known: x86, PowerPC, ARM, ARM-Thumb, SPARC, ARM64, RISC-V.
pub(crate) const FILTERS: [u8; 7] = [4, 5, 7, 8, 9, 10, 11];
/// The checks that are known.
pub(crate) const CHECKS: [u8; 4] = [0, 1, 4, 10];

/// Takes apart the stream at the start of `bytes`. Only its structure is read; CRCs and checks are not compared.
pub(crate) fn parse(bytes: &[u8]) -> Option<Layout> {
    let check = match bytes.strip_prefix(&MAGIC)? {
        [0, check, ..] if CHECKS.contains(check) => *check,
        _ => return None,
    };
    let (mut at, mut blocks) = (ENDS, Vec::new());
    let mut shape: Option<Shape> = None;
    loop {
        let size = *bytes.get(at)?;
        if size == 0 {
            break;
        }
        let len = (usize::from(size) + 1) * 4;
        let header = bytes.get(at..at + len)?;
        let flags = header[1];
        let mut rest = &header[2..len - 4];
        let sizes = match flags & WITH_SIZES {
            0 => false,
            WITH_SIZES => {
                vli(&mut rest)?;
                vli(&mut rest)?;
                true
            }
            _ => return None,
        };
        let filter = match flags & 0x3f {
            0 => 0,
            1 => {
                let [id, 0, tail @ ..] = rest else { return None };
                rest = tail;
                *id
            }
            _ => return None,
        };
        let [LZMA2, 1, dictionary, ..] = rest else { return None };
        if filter != 0 && !FILTERS.contains(&filter) || *dictionary > 40 {
            return None;
        }
        let header = if sizes { (len / 4).try_into().ok()? } else { 0 };
        let this = Shape { check, filter, dictionary: *dictionary, header };
        if *shape.get_or_insert(this) != this || blocks.len() == MAX_BLOCKS {
            return None;
        }
        at += len;
        let (data, content) = chunks(bytes.get(at..)?)?;
        blocks.push(Block { data: at..at + data, content });
        at = (at + data).next_multiple_of(4) + check_len(check);
    }
    // The index: its records are as long as the blocks make them.
    let start = at;
    let mut rest = bytes.get(at + 1..)?;
    let count = vli(&mut rest)?;
    if count != blocks.len() as u64 {
        return None;
    }
    for _ in 0..count {
        vli(&mut rest)?;
        vli(&mut rest)?;
    }
    at = start + (bytes.len() - start - rest.len()).next_multiple_of(4) + 4;
    let footer = bytes.get(at..at + ENDS)?;
    let whole = footer.ends_with(&FOOTER_MAGIC) && !blocks.is_empty();
    whole.then_some(Layout { shape: shape?, blocks, len: at + ENDS })
}

/// Walks over the chunks of LZMA2: their bytes with the end, and bytes of content.
fn chunks(bytes: &[u8]) -> Option<(usize, u64)> {
    let (mut at, mut content) = (0, 0);
    loop {
        let word = |i: usize| Some(u64::from(*bytes.get(at + i)?) << 8 | u64::from(*bytes.get(at + i + 1)?));
        match *bytes.get(at)? {
            0 => return Some((at + 1, content)),
            1 | 2 => {
                let len = word(1)? + 1;
                content += len;
                at += 3 + len as usize;
            }
            control @ 0x80.. => {
                content += (u64::from(control & 0x1f) << 16) + word(1)? + 1;
                at += 5 + usize::from(control >= 0xc0) + word(3)? as usize + 1;
            }
            _ => return None,
        }
    }
}

/// The byte lc, lp and pb of the first compressed chunk of LZMA2.
pub(crate) fn properties(bytes: &[u8]) -> Option<u8> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            1 | 2 => at += 4 + usize::from(*bytes.get(at + 1)?) * 256 + usize::from(*bytes.get(at + 2)?),
            0xc0.. => return bytes.get(at + 5).copied(),
            _ => return None,
        }
    }
}

/// Puts a stream together; blocks are given as compressed data and content.
#[derive(Debug)]
pub(crate) struct Writer {
    shape: Shape,
    out: Vec<u8>,
    records: Vec<(u64, u64)>,
}

impl Writer {
    pub(crate) fn new(shape: Shape) -> Self {
        let flags = [0, shape.check];
        let out = [&MAGIC[..], &flags, &crc32(&flags)].concat();
        Writer { shape, out, records: Vec::new() }
    }

    /// What there is so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Adds a block; `None` if its header has no room for its sizes.
    pub(crate) fn block(&mut self, data: &[u8], content: &[u8]) -> Option<()> {
        let Shape { check, filter, dictionary, header } = self.shape;
        let mut fields = vec![0, u8::from(filter != 0)];
        if header != 0 {
            fields[1] |= WITH_SIZES;
            put_vli(&mut fields, data.len() as u64);
            put_vli(&mut fields, content.len() as u64);
        }
        if filter != 0 {
            fields.extend([filter, 0]);
        }
        fields.extend([LZMA2, 1, dictionary]);
        let len = match header {
            0 => fields.len().next_multiple_of(4) + 4,
            n => usize::from(n) * 4,
        };
        if len < fields.len() + 4 {
            return None;
        }
        fields.resize(len - 4, 0);
        fields[0] = (len / 4 - 1) as u8;
        fields.extend(crc32(&fields));
        self.out.extend_from_slice(&fields);
        self.out.extend_from_slice(data);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
        match check {
            1 => self.out.extend(crc32(content)),
            4 => self.out.extend(crc64(content)),
            10 => self.out.extend_from_slice(Digest::of(content).as_bytes()),
            _ => {}
        }
        self.records.push(((len + data.len() + check_len(check)) as u64, content.len() as u64));
        Some(())
    }

    /// Adds index and footer.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let mut index = vec![0];
        put_vli(&mut index, self.records.len() as u64);
        for (unpadded, content) in self.records {
            put_vli(&mut index, unpadded);
            put_vli(&mut index, content);
        }
        index.resize(index.len().next_multiple_of(4), 0);
        index.extend(crc32(&index));
        let backward = (index.len() / 4 - 1) as u32;
        let footer = [&backward.to_le_bytes()[..], &[0, self.shape.check]].concat();
        self.out.extend_from_slice(&index);
        self.out.extend(crc32(&footer));
        self.out.extend_from_slice(&footer);
        self.out.extend_from_slice(&FOOTER_MAGIC);
        self.out
    }
}

fn check_len(check: u8) -> usize {
    match check {
        1 => 4,
        4 => 8,
        10 => 32,
        _ => 0,
    }
}

fn vli(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_vli(out: &mut Vec<u8>, value: u64) {
    crate::native::numbers::put(out, value);
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

fn crc64(bytes: &[u8]) -> [u8; 8] {
    let step = |crc: u64, &byte: &u8| CRC64[usize::from(crc as u8 ^ byte)] ^ crc >> 8;
    (!bytes.iter().fold(!0, step)).to_le_bytes()
}

/// The polynomial of ECMA-182, bits reversed.
const CRC64: [u64; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xc96c_5795_d787_0f42 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};
