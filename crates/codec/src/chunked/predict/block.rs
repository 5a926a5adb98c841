//! One header block, written in the manner of another.

use crate::tar::BLOCK;

use super::{Entry, EntryKind};

/// A header block.
pub(super) type Block = [u8; BLOCK as usize];

/// Numbers in a header: mode, owner, group, size, time.
const MODE: (usize, usize) = (100, 8);
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const TIME: (usize, usize) = (136, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const FLAG: usize = 156;
const LINK: usize = 157;
const MAGIC: usize = 257;
const DEVICES: [(usize, usize); 2] = [(329, 8), (337, 8)];
const REST: usize = 345;
/// Times of the last access and change in a GNU header.
const GNU_TIMES: [(usize, usize); 2] = [(345, 12), (357, 12)];

/// The header of a member as a model for others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model<'a> {
    block: &'a Block,
    kind: EntryKind,
}

/// What a header says in place of what the entry says: names and numbers that are in records, or cut.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) name: Vec<u8>,
    pub(super) prefix: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// The time of the last change, where it is not that of the entry.
    pub(super) time: Option<i64>,
    /// Names of owner and group, where they are other ones than in the model.
    pub(super) owners: [Option<Vec<u8>>; 2],
}

impl<'a> Model<'a> {
    pub(super) fn new(block: &'a Block, kind: EntryKind) -> Self {
        Model { block, kind }
    }

    /// Whether it is a header of GNU tar's own format: numbers and names that do not fit stand in it otherwise.
    pub(super) fn is_gnu(&self) -> bool {
        &self.block[MAGIC..MAGIC + 8] == b"ustar  \0"
    }

    /// Whether it is a POSIX header.
    pub(super) fn is_posix(&self) -> bool {
        &self.block[MAGIC..MAGIC + 6] == b"ustar\0" && &self.block[508..] != b"tar\0"
    }

    /// Owner and group, and their names.
    pub(super) fn owners(&self) -> [(Option<u64>, &'a [u8]); 2] {
        let name = |at: usize| crate::tar::field_text(&self.block[at..at + 32]);
        [(octal(self.block, UID), name(265)), (octal(self.block, GID), name(297))]
    }

    /// Whether a number fits.
    pub(super) fn fits(number: i64, digits: u32) -> bool {
        (0..1i64 << (3 * digits)).contains(&number)
    }

    /// The header of `entry`; `None` if it cannot be written so.
    pub(super) fn block(&self, entry: &Entry, texts: &Texts) -> Option<Block> {
        let mut out = *self.block;
        text(&mut out[..100], &texts.name)?;
        text(&mut out[LINK..LINK + 100], &texts.link)?;
        let size = i64::try_from(entry.size).ok()?;
        let time = texts.time.unwrap_or(entry.mtime.seconds);
        let numbers = [(MODE, entry.mode), (UID, entry.uid), (GID, entry.gid), (SIZE, size), (TIME, time)];
        for (field, value) in numbers {
            self.number(&mut out, field, value);
        }
        if self.kind != entry.kind {
            out[FLAG] = match entry.kind {
                EntryKind::File => b'0',
                EntryKind::Hardlink => b'1',
                EntryKind::Symlink => b'2',
                EntryKind::CharDevice => b'3',
                EntryKind::BlockDevice => b'4',
                EntryKind::Directory => b'5',
                EntryKind::Fifo => b'6',
            };
        }
        for (at, name) in [265, 297].into_iter().zip(&texts.owners) {
            if let Some(name) = name {
                text(&mut out[at..at + 32], name)?;
            }
        }
        if self.is_gnu() || self.is_posix() {
            for (field, value) in DEVICES.into_iter().zip([entry.device.0, entry.device.1]) {
                // Some leave them out where there are none.
                let empty = out[field.0] == 0;
                if is_device(entry.kind) || !empty || is_device(self.kind) {
                    self.number(&mut out, field, value);
                }
            }
        }
        out[REST..].fill(0);
        if self.is_gnu() {
            for (field, time) in GNU_TIMES.into_iter().zip([entry.atime, entry.ctime]) {
                if let Some(time) = time {
                    self.number(&mut out, field, time.seconds);
                }
            }
        } else {
            text(&mut out[REST..REST + 155], &texts.prefix)?;
        }
        seal(&mut out, digits(self.block, CHECKSUM));
        Some(out)
    }

    /// Writes a number as the model has its own. One that does not fit is 0 where a record says it.
    fn number(&self, out: &mut Block, field: (usize, usize), value: i64) {
        let (at, width) = field;
        let width_of = match digits(self.block, field) {
            0 => width - 1,
            some => some,
        };
        if digits(self.block, field) == 0 {
            out[at..at + width].fill(0);
        }
        if Self::fits(value, width_of as u32) {
            put(&mut out[at..at + width_of], value.cast_unsigned());
        } else if Self::fits(value, width as u32 - 1) {
            out[at..at + width].fill(0);
            put(&mut out[at..at + width - 1], value.cast_unsigned());
        } else if self.is_gnu() {
            // Base 256: the first bit says so.
            let bytes = value.to_be_bytes();
            out[at..at + width].fill(if value < 0 { 0xff } else { 0 });
            let n = width.min(8);
            out[at + width - n..at + width].copy_from_slice(&bytes[8 - n..]);
            out[at] |= 0x80;
        } else {
            put(&mut out[at..at + width_of], 0);
        }
    }
}

fn is_device(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice)
}

/// Digits at the beginning of a field.
fn digits(block: &Block, (at, width): (usize, usize)) -> usize {
    block[at..at + width].iter().take_while(|byte| (b'0'..=b'7').contains(byte)).count()
}

fn octal(block: &Block, field: (usize, usize)) -> Option<u64> {
    let digits = &block[field.0..field.0 + digits(block, field)];
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

fn put(field: &mut [u8], value: u64) {
    let width = field.len();
    field.copy_from_slice(format!("{value:0width$o}").as_bytes());
}

/// Writes a text and zeros behind it; `None` if it is too long.
fn text(field: &mut [u8], text: &[u8]) -> Option<()> {
    field.fill(0);
    field.get_mut(..text.len())?.copy_from_slice(text);
    Some(())
}

/// Sets the checksum: so many digits, and behind them what stood there.
fn seal(block: &mut Block, digits: usize) {
    let (at, width) = CHECKSUM;
    let digits = if digits == 0 { 6 } else { digits.min(7) };
    let behind = block[at + digits..at + width].to_vec();
    block[at..at + width].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put(&mut block[at..at + digits], sum);
    block[at + digits..at + width].copy_from_slice(&behind);
}

/// The header of an extended member: as the model, with this name and size, and this time if there is any.
pub(super) fn extended(model: &Block, name: &[u8], size: u64, time: Option<i64>) -> Option<Block> {
    let mut out = *model;
    text(&mut out[..100], name)?;
    let (at, width) = SIZE;
    let n = digits(model, SIZE);
    if n == 0 || n >= width || !Model::fits(i64::try_from(size).ok()?, n as u32) {
        return None;
    }
    put(&mut out[at..at + n], size);
    if let Some(time) = time {
        let n = digits(model, TIME);
        if n == 0 || !Model::fits(time, n as u32) {
            return None;
        }
        put(&mut out[TIME.0..TIME.0 + n], time.cast_unsigned());
    }
    seal(&mut out, digits(model, CHECKSUM));
    Some(out)
}

/// The time in a header, if it is written in digits.
pub(super) fn time(block: &Block) -> Option<i64> {
    i64::try_from(octal(block, TIME)?).ok()
}

/// The bytes of content that a header announces, if they are written in digits.
pub(super) fn size(block: &Block) -> Option<u64> {
    octal(block, SIZE)
}

/// The type flag.
pub(super) fn flag(block: &Block) -> u8 {
    block[FLAG]
}

/// What stands before the name of a POSIX header.
pub(super) fn prefix(block: &Block) -> &[u8] {
    &block[REST..REST + 155]
}
