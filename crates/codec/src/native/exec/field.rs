//! References: fields that hold an address in one way or another (`docs/formats/native-delta.md`, section 9.6).

use super::Program;
use super::elf::{Layout, u32_at, u64_at};

/// How a field holds an address. The numbers are those of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// x86-64: the distance of a call from the end of the field, 32 bits.
    Call,
    /// The same of a jump.
    Jump,
    /// The same of a conditional jump.
    Branch,
    /// x86-64: the distance from the end of the instruction; so many bytes follow the field.
    Relative,
    /// An address in 32 bits.
    Absolute,
    /// An address in 64 bits.
    Word,
    /// A distance from the field's own place, 32 bits.
    Here,
    /// A distance from a base, 32 bits.
    From,
    /// A distance from a base, 64 bits.
    WideFrom,
    /// The distance back from the field's place, 32 bits.
    Back,
    /// Length of what the `Here` in front of it begins, 32 bits.
    Length,
    /// Length of what the `Word` in front of it begins, 64 bits.
    WideLength,
    /// A place in the file, 64 bits.
    Place,
    /// Length of what the `Place` in front of it begins, 64 bits.
    PlaceLength,
    /// The number of a symbol, 32 bits.
    Symbol,
    /// aarch64: distance in words, 26 bits.
    Far,
    /// aarch64: distance in words, 19 bits from bit 5.
    Near,
    /// aarch64: distance in words, 14 bits from bit 5.
    Short,
    /// aarch64: distance in bytes, 21 bits.
    Byte,
    /// aarch64: distance in pages, 21 bits. How many words on what is added to the page stands.
    Page,
    /// aarch64: place in a page, 12 bits from bit 10. How many words back the page stands, and the unit.
    Low,
    /// The number of a type, 32 bits.
    Type,
    /// The place of a name, 32 bits.
    Name,
}

/// Number of kinds.
pub(crate) const KINDS: usize = 23;
/// Bytes of an entry of a symbol table.
pub(crate) const SYMBOL: u64 = 24;

const ALL: [Kind; KINDS] = [
    Kind::Call,
    Kind::Jump,
    Kind::Branch,
    Kind::Relative,
    Kind::Absolute,
    Kind::Word,
    Kind::Here,
    Kind::From,
    Kind::WideFrom,
    Kind::Back,
    Kind::Length,
    Kind::WideLength,
    Kind::Place,
    Kind::PlaceLength,
    Kind::Symbol,
    Kind::Far,
    Kind::Near,
    Kind::Short,
    Kind::Byte,
    Kind::Page,
    Kind::Low,
    Kind::Type,
    Kind::Name,
];
/// Where numbers of types and places of names begin among targets: no address is there (section 9.6).
const TYPES: u64 = 1 << 48;
const TYPE_NAMES: u64 = TYPES + (1 << 32);

impl Kind {
    /// Bytes of the field.
    pub(crate) fn len(self) -> usize {
        match self {
            Kind::Word | Kind::WideFrom | Kind::WideLength | Kind::Place | Kind::PlaceLength => 8,
            _ => 4,
        }
    }

    /// Bits of the value in the field.
    pub(crate) fn bits(self) -> u32 {
        match self {
            Kind::Far => 26,
            Kind::Near => 19,
            Kind::Short => 14,
            Kind::Byte | Kind::Page => 21,
            Kind::Low => 12,
            _ => 8 * self.len() as u32,
        }
    }

    /// Whether the target is no address but a number, and where these numbers begin.
    pub(crate) fn numbers(self) -> Option<u64> {
        match self {
            Kind::Type => Some(TYPES),
            Kind::Name => Some(TYPE_NAMES),
            _ => None,
        }
    }

    /// Whether the target is where something ends, rather than where it begins.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Kind::Length | Kind::WideLength | Kind::PlaceLength)
    }

    /// The value of a field, not extended.
    pub(crate) fn get(self, field: u64) -> u64 {
        let word = field as u32;
        match self {
            Kind::Far => u64::from(word & 0x3ff_ffff),
            Kind::Near => u64::from(word >> 5 & 0x7_ffff),
            Kind::Short => u64::from(word >> 5 & 0x3fff),
            Kind::Byte | Kind::Page => u64::from((word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3),
            Kind::Low => u64::from(word >> 10 & 0xfff),
            _ => field,
        }
    }

    /// The field with another value.
    pub(crate) fn put(self, field: u64, value: u64) -> u64 {
        let (word, v) = (field as u32, value as u32);
        u64::from(match self {
            Kind::Far => word & !0x3ff_ffff | v & 0x3ff_ffff,
            Kind::Near => word & !(0x7_ffff << 5) | (v & 0x7_ffff) << 5,
            Kind::Short => word & !(0x3fff << 5) | (v & 0x3fff) << 5,
            Kind::Byte | Kind::Page => word & !0x60ff_ffe0 | (v >> 2 & 0x7_ffff) << 5 | (v & 3) << 29,
            Kind::Low => word & !(0xfff << 10) | (v & 0xfff) << 10,
            _ => return value,
        })
    }

    /// The target of an instruction of aarch64 at an address; for `Page` the page.
    pub(crate) fn target(self, word: u32, here: u64) -> u64 {
        decode(self, 0, self.get(u64::from(word)), here, 0, 0)
    }
}

/// A value of `bits` bits with its sign.
pub(crate) fn signed(value: u64, bits: u32) -> i64 {
    (value << (64 - bits)) as i64 >> (64 - bits)
}

/// A reference: where it is, its kind, and what the kind needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    place: u32,
    info: u32,
}

impl Reference {
    pub(crate) fn new(place: u32, kind: Kind, extra: u32) -> Self {
        Reference { place, info: kind as u32 | extra << 5 }
    }

    pub(crate) fn place(self) -> u32 {
        self.place
    }

    pub(crate) fn kind(self) -> Kind {
        ALL[(self.info & 31) as usize % KINDS]
    }

    pub(crate) fn extra(self) -> u32 {
        self.info >> 5
    }
}

/// What a reference leads to, in its own file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// The address it leads to; behind the last byte for lengths.
    pub address: u64,
    /// The address that the field counts from, if it is neither fixed nor the place of the field.
    pub base: Option<u64>,
}

/// Reads the field at the start of `bytes`.
pub(crate) fn load(kind: Kind, bytes: &[u8]) -> u64 {
    match kind.len() {
        8 => u64_at(bytes, 0).unwrap_or(0),
        _ => u64::from(u32_at(bytes, 0).unwrap_or(0)),
    }
}

/// Writes a field.
pub(crate) fn store(kind: Kind, field: u64, bytes: &mut [u8]) {
    bytes[..kind.len()].copy_from_slice(&field.to_le_bytes()[..kind.len()]);
}

/// The target that a field stands for: `here` is the address of its place, `base` where it counts from. `near` is the
/// target that was expected: some fields hold only a part of one.
pub(crate) fn decode(kind: Kind, extra: u32, value: u64, here: u64, base: u64, near: u64) -> u64 {
    let distance = |from: u64| from.wrapping_add_signed(signed(value, 32));
    let words = |bits: u32| here.wrapping_add_signed(signed(value, bits) * 4);
    match kind {
        Kind::Call | Kind::Jump | Kind::Branch | Kind::Relative => {
            distance(here.wrapping_add(4 + u64::from(extra)))
        }
        Kind::Absolute | Kind::Word | Kind::Place => value,
        Kind::Here => distance(here),
        Kind::From => distance(base),
        Kind::Back => here.wrapping_sub(value),
        Kind::WideFrom | Kind::Length | Kind::WideLength | Kind::PlaceLength => base.wrapping_add(value),
        Kind::Symbol => base.wrapping_add(value * SYMBOL),
        Kind::Far => words(26),
        Kind::Near => words(19),
        Kind::Short => words(14),
        Kind::Byte => here.wrapping_add_signed(signed(value, 21)),
        Kind::Page => (here & !0xfff).wrapping_add_signed(signed(value, 21) << 12) | near & 0xfff,
        Kind::Low => near & !0xfff | (value << (extra >> 8)) & 0xfff,
        Kind::Type => TYPES + value,
        Kind::Name => TYPE_NAMES + value,
    }
}

/// The value that leads to `target`.
pub(crate) fn encode(kind: Kind, extra: u32, target: u64, here: u64, base: u64) -> u64 {
    let value = match kind {
        Kind::Call | Kind::Jump | Kind::Branch | Kind::Relative => {
            target.wrapping_sub(here.wrapping_add(4 + u64::from(extra)))
        }
        Kind::Absolute | Kind::Word | Kind::Place => target,
        Kind::Here | Kind::Byte => target.wrapping_sub(here),
        Kind::Back => here.wrapping_sub(target),
        Kind::From | Kind::WideFrom | Kind::Length | Kind::WideLength | Kind::PlaceLength => {
            target.wrapping_sub(base)
        }
        Kind::Symbol => target.wrapping_sub(base) / SYMBOL,
        Kind::Far | Kind::Near | Kind::Short => target.wrapping_sub(here) >> 2,
        Kind::Page => (target >> 12).wrapping_sub(here >> 12),
        Kind::Low => (target & 0xfff) >> (extra >> 8),
        Kind::Type | Kind::Name => target,
    };
    if kind.bits() == 64 { value } else { value & ((1 << kind.bits()) - 1) }
}

impl Program {
    /// What a reference of this program, of which `file` are the bytes, leads to.
    pub(crate) fn target(&self, file: &[u8], reference: Reference) -> Target {
        let (kind, extra, place) = (reference.kind(), reference.extra(), reference.place() as usize);
        let bytes = file.get(place..).unwrap_or(&[]);
        let here = self.layout.address(place as u64);
        let value = kind.get(load(kind, bytes));
        let base = match kind {
            Kind::From | Kind::WideFrom | Kind::Symbol => {
                Some(self.bases.get(extra as usize).copied().unwrap_or(0))
            }
            Kind::Length => {
                let begin = u32_at(file, place.wrapping_sub(4)).unwrap_or(0) as i32;
                Some(here.wrapping_sub(4).wrapping_add_signed(i64::from(begin)))
            }
            Kind::WideLength => {
                Some(self.layout.address_in(u64_at(file, place.wrapping_sub(8)).unwrap_or(0), 64))
            }
            Kind::PlaceLength => {
                Some(self.layout.address_of(u64_at(file, place.wrapping_sub(8)).unwrap_or(0)))
            }
            _ => None,
        };
        let address = match kind {
            Kind::Page if extra > 0 => {
                let other = u32_at(file, place + 4 * extra as usize).unwrap_or(0);
                let scale = super::aarch64::scale(other);
                Kind::Page
                    .target(load(kind, bytes) as u32, here)
                    .wrapping_add(u64::from(other >> 10 & 0xfff) << scale)
            }
            Kind::Low => {
                let words = (extra & 0xff) as usize;
                let (page, from) = (place.wrapping_sub(4 * words), here.wrapping_sub(4 * words as u64));
                let page = Kind::Page.target(u32_at(file, page).unwrap_or(0), from);
                page.wrapping_add(value << (extra >> 8))
            }
            _ => self.layout.target(kind, decode(kind, extra, value, here, base.unwrap_or(0), 0)),
        };
        Target { address, base }
    }
}

impl Layout {
    /// The target of a field whose value is `target` itself, for kinds that hold one; otherwise `target`.
    pub(crate) fn target(&self, kind: Kind, target: u64) -> u64 {
        match kind {
            Kind::Place => self.address_of(target),
            Kind::Word | Kind::Absolute => self.address_in(target, kind.bits()),
            _ => target,
        }
    }

    /// As [`Layout::address`], for a number that a file holds.
    pub(crate) fn address_of(&self, place: u64) -> u64 {
        self.address(place.min(super::elf::MAX_ADDRESS - 1))
    }
}
