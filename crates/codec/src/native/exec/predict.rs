//! Predicting references, and coding what they are (`docs/formats/native-delta.md`, section 9.8).

use super::elf::{HEAD, Layout};
use super::field::{KINDS, Kind, Reference, decode, encode, load, signed, store};
use super::map::{Map, Piece, cut};
use super::{Machine, Program};
use crate::native::entropy::decisions::{Coder, Mixed, Numbers, Tables};

/// One slot of the table of targets for so many bytes of old programs, within bounds (section 9.8).
const BYTES_PER_SLOT: u64 = 32;
const SLOTS: (u32, u32) = (8, 22);

/// An old program as a view: its bytes, what refers to what in it, and where its pieces went.
#[derive(Debug)]
pub(crate) struct Old<'a> {
    /// Its number among the programs of the part.
    pub number: usize,
    pub file: &'a [u8],
    pub program: &'a Program,
    pub pieces: Vec<Piece>,
    map: Map,
}

/// A copy from a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copy {
    pub new: u64,
    /// Place in the view.
    pub old: u64,
    pub len: u64,
}

impl<'a> Old<'a> {
    /// What the copies from this view, ascending in the new text, tell of its addresses; `None` if they make more than
    /// `most` pieces.
    pub(crate) fn new(
        number: usize,
        file: &'a [u8],
        program: &'a Program,
        copies: &[Copy],
        after: &Layout,
        most: u64,
    ) -> Option<Self> {
        let mut pieces = Vec::with_capacity(copies.len());
        for c in copies {
            cut(c.new, c.old, c.len, &program.layout, after, &mut pieces);
            if pieces.len() as u64 > most {
                return None;
            }
        }
        let map = Map::new(&pieces);
        Some(Old { number, file, program, pieces, map })
    }

    /// Where an old address went; for ends, by the byte in front.
    pub(crate) fn map(&self, address: u64, is_end: bool) -> u64 {
        if is_end { self.map.get(address.wrapping_sub(1)).wrapping_add(1) } else { self.map.get(address) }
    }

    /// The references that lie wholly in `old .. old + len`, where the new text is beyond its head.
    pub(crate) fn references(&self, piece: &Piece) -> &'a [Reference] {
        let start = piece.old + (HEAD as u64).saturating_sub(piece.new);
        let all = &self.program.references;
        let from = all.partition_point(|r| u64::from(r.place()) < start);
        let end = piece.old + piece.len;
        let fits = |r: &Reference| u64::from(r.place()) + r.kind().len() as u64 <= end;
        let to = from + all[from..].partition_point(fits);
        &all[from..to]
    }
}

/// What an old target became the last time.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    target: u64,
    /// How often in a row it was right, or the opposite.
    trust: u8,
}

/// Predicts references in the order of the new text.
#[derive(Debug)]
pub(crate) struct Predictor {
    after: Layout,
    slots: Vec<Slot>,
    shift: u32,
    tables: Tables,
    hits: Mixed<4>,
    seconds: Mixed<2>,
    numbers: Numbers,
    types: Shifts,
    names: Shifts,
    /// The last outcomes, one bit each.
    history: usize,
    /// Outcomes of the last references of each kind.
    by_kind: [u8; KINDS],
}

/// Slots of the table of targets for old programs of so many bytes, log2.
fn slots_log(bytes: u64) -> u32 {
    (bytes / BYTES_PER_SLOT).max(1).next_power_of_two().ilog2().clamp(SLOTS.0, SLOTS.1)
}

/// How far numbers that are no addresses have moved: by ranges of them, the last one seen (section 9.8.1).
#[derive(Debug)]
struct Shifts {
    /// Numbers of a range, log2.
    range: u32,
    seen: Vec<Option<i32>>,
}

/// Ranges that are told apart; the last one has all numbers beyond.
const RANGES: usize = 1 << 13;

impl Shifts {
    fn new(range: u32) -> Self {
        Shifts { range, seen: vec![None; RANGES] }
    }

    fn range(&self, number: u32) -> usize {
        ((number >> self.range) as usize).min(RANGES - 1)
    }

    /// What an old number became, by the nearest range below it of which something is known, or else above.
    fn guess(&self, number: u32) -> u32 {
        let range = self.range(number);
        let below = self.seen[..=range].iter().rev().find_map(|s| *s);
        let shift = below.or_else(|| self.seen[range..].iter().find_map(|s| *s));
        number.wrapping_add_signed(shift.unwrap_or(0))
    }

    fn learn(&mut self, old: u32, new: u32) {
        let range = self.range(old);
        self.seen[range] = Some(new.wrapping_sub(old) as i32);
    }
}

/// Bytes of memory that predicting takes for `bytes` bytes of programs, besides these (section 4.3).
pub(crate) fn memory(bytes: u64) -> u64 {
    (24 << slots_log(bytes)) + (1 << 20)
}

/// Bytes of memory that each copy and each piece takes (section 4.3).
pub(crate) const PER_COPY: u64 = 128;

/// What there is to know of a field in the new text before it is.
struct Guess {
    value: u64,
    target: u64,
}

impl Predictor {
    /// `bytes` of all programs that are views.
    pub(crate) fn new(after: Layout, bytes: u64) -> Self {
        let log = slots_log(bytes);
        Predictor {
            after,
            slots: vec![Slot::default(); 1 << log],
            shift: 64 - log,
            tables: Tables::new(),
            hits: Mixed::new([KINDS * 16, 1 << 10, KINDS * 256, 16 * 16 * 4], KINDS),
            seconds: Mixed::new([KINDS * 4, 256], 1),
            numbers: Numbers::new(KINDS),
            types: Shifts::new(5),
            names: Shifts::new(8),
            history: 0,
            by_kind: [0; KINDS],
        }
    }

    fn slot(&self, program: usize, address: u64, is_end: bool) -> (usize, u64) {
        let key = ((program as u64 + 1) << 50 | address & ((1 << 49) - 1)) << 1 | u64::from(is_end);
        ((key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize, key)
    }

    /// What an old address became: what it was the last time, else what the map says.
    fn known(&self, old: &Old<'_>, address: u64) -> u64 {
        let (slot, key) = self.slot(old.number, address, false);
        let slot = &self.slots[slot];
        if slot.key == key { slot.target } else { old.map(address, false) }
    }

    /// Codes one reference of `old` that lies in `piece`. `field` holds the old bytes and
    /// receives the new ones. A writer passes the new ones; what it gets may be others, if it would not pay to code
    /// them.
    pub(crate) fn code(
        &mut self,
        old: &Old<'_>,
        piece: &Piece,
        reference: Reference,
        field: &mut [u8],
        actual: Option<&[u8]>,
        coder: &mut impl Coder,
    ) {
        let (kind, extra) = (reference.kind(), reference.extra());
        let target = old.program.target(old.file, reference);
        let here = piece.new_address + (u64::from(reference.place()) - piece.old);
        let base = target.base.map_or(0, |b| self.known(old, b));
        let (slot, key) = self.slot(old.number, target.address, kind.is_end());
        let Slot { key: found, target: learned, trust } = self.slots[slot];
        let is_known = found == key;
        let old_number = load(kind, field) as u32;
        let shifted = match kind {
            Kind::Type => Some(self.types.guess(old_number)),
            Kind::Name => Some(self.names.guess(old_number)),
            _ => None,
        };
        let mapped = || match (kind.numbers(), shifted) {
            (Some(start), Some(number)) => start + u64::from(number),
            _ => old.map(target.address, kind.is_end()),
        };
        let after = &self.after;
        let guess = |target: u64| Guess { target, value: value(after, kind, extra, target, here, base) };
        let first = guess(if is_known { learned } else { mapped() });
        let bytes = load(kind, field);
        let wanted = actual.map(|new| load(kind, new));
        // A writer gives up where more than the value changed.
        let actual = wanted.filter(|&w| kind.put(w, 0) == kind.put(bytes, 0)).map(|w| kind.get(w));
        let k = kind as usize;
        let state = if is_known { 1 + usize::from(trust.min(14)) } else { 0 };
        let contexts = [
            k * 16 + state,
            self.history & 0x3f | state << 6,
            k * 256 + usize::from(self.by_kind[k]),
            (state * 16 + (self.history & 15)) * 4 + usize::from(self.by_kind[k] & 3),
        ];
        let right = u32::from(actual.is_none_or(|a| a == first.value));
        let right = self.hits.code(&self.tables, coder, contexts, k, right) == 1;
        let mut found = first.target;
        let mut value = first.value;
        if !right {
            let second = if is_known { Some(guess(mapped())) } else { None };
            let second = second.filter(|s| s.value != first.value);
            let is_second = second.as_ref().is_some_and(|s| {
                let bit = u32::from(actual == Some(s.value));
                let contexts = [k * 4 + state.min(3), usize::from(self.by_kind[k])];
                self.seconds.code(&self.tables, coder, contexts, 0, bit) == 1
            });
            match second.filter(|_| is_second) {
                Some(second) => (value, found) = (second.value, second.target),
                None => {
                    let bits = kind.bits();
                    let step = signed(actual.unwrap_or(0).wrapping_sub(first.value), bits);
                    let step = self.numbers.code(&self.tables, coder, k, step);
                    value = first.value.wrapping_add_signed(step);
                    if bits < 64 {
                        value &= (1 << bits) - 1;
                    }
                    found = address(after, kind, extra, value, here, base, first.target);
                }
            }
        }
        self.history = self.history << 1 | usize::from(!right);
        self.by_kind[k] = self.by_kind[k] << 1 | u8::from(!right);
        let trust = match (is_known, right) {
            (true, true) => (trust + 1).min(7),
            (true, false) => 8 + (trust.saturating_sub(8) + 1).min(5) * u8::from(trust >= 8),
            (false, right) => u8::from(!right) * 8,
        };
        self.slots[slot] = Slot { key, target: found, trust };
        match kind {
            Kind::Type => self.types.learn(old_number, value as u32),
            Kind::Name => self.names.learn(old_number, value as u32),
            _ => {}
        }
        store(kind, kind.put(bytes, value), field);
    }
}

/// The value of a field of the new text.
fn value(after: &Layout, kind: Kind, extra: u32, target: u64, here: u64, base: u64) -> u64 {
    let target = match kind {
        Kind::Place => after.place(target).unwrap_or(target),
        Kind::Word | Kind::Absolute => after.word_for(target),
        _ => target,
    };
    encode(kind, extra, target, here, base)
}

/// The target of a field of the new text.
fn address(after: &Layout, kind: Kind, extra: u32, value: u64, here: u64, base: u64, near: u64) -> u64 {
    let target = decode(kind, extra, value, here, base, near);
    after.target(kind, target)
}

/// The layout that the first bytes of a new text of `len` bytes tell.
pub(crate) fn layout(head: &[u8], len: u64, machine: Machine) -> Layout {
    Layout::read(head, len, machine)
}
