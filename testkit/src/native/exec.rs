//! Section 9 once more: references of executables.

mod code;
mod data;
mod stream;

use std::collections::BTreeMap;

/// A segment of section 9.2.
#[derive(Clone, Debug)]
struct Segment {
    offset: u64,
    address: u64,
    len: u64,
    memory: u64,
    executable: bool,
}

/// Section 9.2.
#[derive(Clone, Debug, Default)]
struct Layout {
    kind: u64,
    segments: Vec<Segment>,
    frames: Option<u64>,
    kernel: bool,
}

const UNLOADED: u64 = 1 << 47;
/// Where a kernel's addresses begin.
const HIGH: u64 = 0xffff_8000_0000_0000;
/// Section 9.2.1.
const KERNEL: u64 = super::KERNEL as u64;

/// Whether a file is a program of a machine.
fn is(file: &[u8], machine: u64) -> bool {
    let elf = file.starts_with(b"\x7fELF\x02\x01") && number(file, 18, 2) == Some(machine % (1 << 16));
    if machine != KERNEL || !elf || number(file, 16, 2) == Some(1) {
        return elf;
    }
    let head = &file[..file.len().min(1024)];
    let (Some(start), Some(count)) = (number(head, 32, 8), number(head, 56, 2)) else { return false };
    let shape = number(head, 16, 2) == Some(2) && number(head, 54, 2) == Some(56) && count <= 32;
    shape
        && (0..count).any(|i| {
            let Some(at) = start.checked_add(56 * i).filter(|at| *at < 1024) else { return false };
            number(head, at, 4) == Some(1) && number(head, at + 16, 8).is_some_and(|a| a >= HIGH)
        })
}

/// So many bytes as a number.
fn number(file: &[u8], at: u64, len: u64) -> Option<u64> {
    let bytes = file.get(usize::try_from(at).ok()?..)?.get(..len as usize)?;
    Some(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}

impl Layout {
    fn read(head: &[u8], len: u64, machine: u64) -> Layout {
        let head = &head[..head.len().min(1024)];
        if !is(head, machine) {
            return Layout::default();
        }
        if number(head, 16, 2) == Some(1) {
            let all = Segment { offset: 0, address: 0, len, memory: len, executable: true };
            return Layout { kind: 1, segments: vec![all], ..Layout::default() };
        }
        Layout::headers(head, machine == KERNEL).unwrap_or_default()
    }

    fn headers(head: &[u8], kernel: bool) -> Option<Layout> {
        let (start, count) = (number(head, 32, 8)?, number(head, 56, 2)?);
        if number(head, 54, 2)? != 56 || count > 32 {
            return None;
        }
        let mut layout = Layout { kind: number(head, 16, 2)?, kernel, ..Layout::default() };
        let mut end = (0, 0);
        for i in 0..count {
            let at = start.checked_add(i * 56)?;
            number(head, at.checked_add(48)?, 8)?;
            let kind = number(head, at, 4)?;
            let field = |n| number(head, at + n, 8);
            let (offset, mut address, len, memory) = (field(8)?, field(16)?, field(32)?, field(40)?);
            if kind == 0x6474_e550 && !kernel {
                layout.frames = Some(address);
            }
            if kind != 1 || kernel && address < HIGH {
                continue;
            }
            if kernel {
                address -= HIGH;
            }
            let ends = (offset.checked_add(len)?, address.checked_add(memory)?);
            if ends.0 >= UNLOADED || ends.1 >= UNLOADED || len > memory || offset < end.0 || address < end.1 {
                return None;
            }
            end = (offset + len, address + memory);
            let executable = number(head, at + 4, 4)? % 2 == 1;
            layout.segments.push(Segment { offset, address, len, memory, executable });
        }
        Some(layout)
    }

    fn address(&self, place: u64) -> u64 {
        for s in &self.segments {
            if (s.offset..s.offset + s.len).contains(&place) {
                return place - s.offset + s.address;
            }
        }
        UNLOADED.wrapping_add(place)
    }

    fn place(&self, address: u64) -> Option<u64> {
        for s in &self.segments {
            if (s.address..s.address + s.len).contains(&address) {
                return Some(address - s.address + s.offset);
            }
        }
        address.checked_sub(UNLOADED)
    }

    fn loaded(&self, address: u64) -> Option<&Segment> {
        self.segments.iter().find(|s| (s.address..s.address + s.memory).contains(&address))
    }

    /// The address that a value of so many bits stands for.
    fn stands_for(&self, value: u64, bits: u32) -> u64 {
        let long = signed(value, bits);
        if self.kernel && long >= HIGH { long - HIGH } else { value }
    }

    /// Number of the stretch of a place.
    fn stretch(&self, place: u64) -> usize {
        let mut number = 0;
        for s in &self.segments {
            number += usize::from(place >= s.offset) + usize::from(place >= s.offset + s.len);
        }
        number
    }
}

/// A reference; `base` is an address, `extra` the bytes behind, words on or words back; `unit` that of kind 20.
#[derive(Clone, Debug, Default)]
struct Reference {
    place: u64,
    kind: u64,
    base: u64,
    extra: u64,
    unit: u64,
}

/// Bytes of the field of a kind.
fn width(kind: u64) -> u64 {
    if matches!(kind, 5 | 8 | 11 | 12 | 13) { 8 } else { 4 }
}

/// The bits of a field that are its value, highest first, as (shift, count).
fn bits(kind: u64) -> Vec<(u32, u32)> {
    match kind {
        15 => vec![(0, 26)],
        16 => vec![(5, 19)],
        17 => vec![(5, 14)],
        18 | 19 => vec![(5, 19), (29, 2)],
        20 => vec![(10, 12)],
        _ => vec![(0, 8 * width(kind) as u32)],
    }
}

/// Number of bits of a value.
fn size(kind: u64) -> u32 {
    bits(kind).iter().map(|b| b.1).sum()
}

fn low(value: u64, bits: u32) -> u64 {
    if bits == 64 { value } else { value % (1 << bits) }
}

fn get(kind: u64, field: u64) -> u64 {
    bits(kind).into_iter().fold(
        0,
        |v, (shift, count)| if count == 64 { field } else { v << count | low(field >> shift, count) },
    )
}

fn put(kind: u64, mut field: u64, mut value: u64) -> u64 {
    for (shift, count) in bits(kind).into_iter().rev() {
        if count == 64 {
            return value;
        }
        field = field & !(((1 << count) - 1) << shift) | low(value, count) << shift;
        value >>= count;
    }
    field
}

fn signed(value: u64, bits: u32) -> u64 {
    if bits < 64 && value >> (bits - 1) & 1 == 1 { value.wrapping_sub(1 << bits) } else { value }
}

/// Section 9.6, from a value to a target. `near` is the guess.
fn target(layout: &Layout, r: &Reference, value: u64, here: u64, base: u64, near: u64) -> u64 {
    let v = signed(value, size(r.kind));
    match r.kind {
        0..=3 => here.wrapping_add(4 + r.extra).wrapping_add(v),
        4 | 5 => layout.stands_for(value, size(r.kind)),
        6 | 18 => here.wrapping_add(v),
        7 => base.wrapping_add(v),
        9 => here.wrapping_sub(value),
        8 | 10 | 11 | 13 => base.wrapping_add(value),
        12 => layout.address(value.min((1 << 47) - 1)),
        21 | 22 => (1 << 48) + ((r.kind - 21) << 32) + value,
        14 => base.wrapping_add(value * 24),
        15..=17 => here.wrapping_add(v.wrapping_mul(4)),
        19 => (here - here % 4096).wrapping_add(v.wrapping_mul(4096)) + near % 4096,
        _ => near - near % 4096 + (value << r.unit) % 4096,
    }
}

/// Section 9.6, from a target to a value.
fn value(layout: &Layout, r: &Reference, target: u64, here: u64, base: u64) -> u64 {
    let value = match r.kind {
        0..=3 => target.wrapping_sub(here).wrapping_sub(4 + r.extra),
        4 | 5 if layout.kernel && target < UNLOADED => target + HIGH,
        4 | 5 => target,
        6 | 18 => target.wrapping_sub(here),
        9 => here.wrapping_sub(target),
        12 => layout.place(target).unwrap_or(target),
        14 => target.wrapping_sub(base) / 24,
        15..=17 => target.wrapping_sub(here) / 4,
        19 => (target / 4096).wrapping_sub(here / 4096),
        20 => (target % 4096) >> r.unit,
        21 | 22 => target,
        _ => target.wrapping_sub(base),
    };
    low(value, size(r.kind))
}

/// An old program.
pub(super) struct Program {
    file: Vec<u8>,
    layout: Layout,
    references: Vec<Reference>,
}

impl Program {
    /// Section 9.2.
    pub(super) fn read(file: Vec<u8>, machine: u64) -> Program {
        let layout = Layout::read(&file, file.len() as u64, machine);
        let mut program = Program { file, layout, references: Vec::new() };
        if !is(&program.file, machine) {
            return program;
        }
        let mut found = data::Found::new(&program.file, &program.layout);
        if machine != 183 {
            code::x86_64(&mut found)
        } else {
            code::aarch64(&mut found)
        }
        found.data(machine);
        let mut references = found.references;
        references.sort_by_key(|r| (r.place, r.kind));
        let mut end = 0;
        references.retain(|r| {
            let keep = r.place >= end;
            if keep {
                end = r.place + width(r.kind);
            }
            keep
        });
        program.references = references;
        program
    }

    pub(super) fn list(&self) -> Vec<(u64, u8, u64)> {
        self.references.iter().map(|r| (r.place, r.kind as u8, self.target(r).0)).collect()
    }

    fn field(&self, r: &Reference) -> u64 {
        number(&self.file, r.place, width(r.kind)).unwrap_or(0)
    }

    /// The target of an old reference, and its base if it has one that may move.
    fn target(&self, r: &Reference) -> (u64, Option<u64>) {
        let here = self.layout.address(r.place);
        let before = |back: u64, len| number(&self.file, r.place.wrapping_sub(back), len).unwrap_or(0);
        let base = match r.kind {
            7 | 8 | 14 => Some(r.base),
            10 => Some(here.wrapping_sub(4).wrapping_add(signed(before(4, 4), 32))),
            11 => Some(self.layout.stands_for(before(8, 8), 64)),
            13 => Some(self.layout.address(before(8, 8).min((1 << 47) - 1))),
            _ => None,
        };
        let value = get(r.kind, self.field(r));
        let near = match r.kind {
            20 => {
                let adrp = Reference { kind: 19, ..r.clone() };
                let word = before(4 * r.extra, 4);
                let page = target(&self.layout, &adrp, get(19, word), here.wrapping_sub(4 * r.extra), 0, 0);
                return (page.wrapping_add(value << r.unit), None);
            }
            _ => 0,
        };
        let mut to = target(&self.layout, r, value, here, base.unwrap_or(0), near);
        if r.kind == 19 && r.extra > 0 {
            let word = number(&self.file, r.place + 4 * r.extra, 4).unwrap_or(0);
            to = to.wrapping_add(get(20, word) << code::unit(word));
        }
        (to, base)
    }
}

/// Section 9.7.
struct Piece {
    new: u64,
    old: u64,
    len: u64,
    new_address: u64,
    old_address: u64,
}

/// The pieces of a program, and for each old address where a block starts: its end and its new address.
struct Moved {
    pieces: Vec<Piece>,
    blocks: BTreeMap<u64, (u64, u64)>,
}

impl Moved {
    fn new(program: &Program, after: &Layout, copies: &[(u64, u64, u64)]) -> Moved {
        let mut pieces: Vec<Piece> = Vec::new();
        for &(new, old, len) in copies {
            let mut at = 0;
            while at < len {
                let kind = |i: u64| (program.layout.stretch(old + i), after.stretch(new + i));
                let end = (at..len).find(|&i| kind(i) != kind(at)).unwrap_or(len);
                pieces.push(Piece {
                    new: new + at,
                    old: old + at,
                    len: end - at,
                    new_address: after.address(new + at),
                    old_address: program.layout.address(old + at),
                });
                at = end;
            }
        }
        // Between two borders each address belongs to the same piece.
        let mut borders: Vec<u64> =
            pieces.iter().flat_map(|p| [p.old_address, p.old_address + p.len]).collect();
        borders.sort_unstable();
        borders.dedup();
        let mut blocks = BTreeMap::new();
        for pair in borders.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            let holders = pieces.iter().filter(|p| p.old_address <= start && end <= p.old_address + p.len);
            if let Some(p) = holders.reduce(|best, p| if p.len > best.len { p } else { best }) {
                blocks.insert(start, (end, p.new_address + (start - p.old_address)));
            }
        }
        Moved { pieces, blocks }
    }

    fn map(&self, old: u64) -> u64 {
        let before = self.blocks.range(..=old).next_back();
        let after = self.blocks.range(old..).find(|b| *b.0 > old);
        let go_on = |(start, (_, new)): (&u64, &(u64, u64))| new.wrapping_add(old.wrapping_sub(*start));
        match (before, after) {
            (None, None) => old,
            (None, Some(a)) => go_on(a),
            (Some(b), None) => go_on(b),
            (Some(b), Some(a)) if old < b.1.0 || old - b.1.0 < a.0 - old => {
                let _ = a;
                go_on(b)
            }
            (Some(_), Some(a)) => go_on(a),
        }
    }

    fn map_as(&self, old: u64, is_end: bool) -> u64 {
        if is_end { self.map(old.wrapping_sub(1)).wrapping_add(1) } else { self.map(old) }
    }
}

/// Replaces references in `text`, a new text of literals and uncorrected copies; its head is told apart, as it is with
/// corrections. `copies` are for each program places in the new text and in it, and lengths.
pub(super) fn replace(
    text: &mut [u8],
    head: &[u8],
    machine: u64,
    programs: &[Program],
    copies: &[Vec<(u64, u64, u64)>],
    references: &[u8],
) {
    let after = Layout::read(head, text.len() as u64, machine);
    let moved: Vec<Moved> = programs.iter().zip(copies).map(|(p, c)| Moved::new(p, &after, c)).collect();
    let bytes: u64 = programs.iter().map(|p| p.file.len() as u64).sum();
    let mut coder = stream::Reader::new(references, bytes);
    let mut order: Vec<(usize, &Piece)> = Vec::new();
    for (n, m) in moved.iter().enumerate() {
        order.extend(m.pieces.iter().map(|p| (n, p)));
    }
    order.sort_by_key(|(_, p)| p.new);
    for (n, piece) in order {
        for r in &programs[n].references {
            let inside = r.place >= piece.old && r.place + width(r.kind) <= piece.old + piece.len;
            let at = (piece.new + r.place).wrapping_sub(piece.old);
            if !inside || at < 1024 {
                continue;
            }
            let (to, base) = programs[n].target(r);
            let is_end = matches!(r.kind, 10 | 11 | 13);
            let here = piece.new_address + (r.place - piece.old);
            let base = base.map_or(0, |b| coder.known(n, b, false).unwrap_or_else(|| moved[n].map(b)));
            let known = coder.known(n, to, is_end);
            let own = programs[n].field(r);
            let mapped = match r.kind {
                21 | 22 => target(&after, r, coder.number(r.kind, own), here, base, 0),
                _ => moved[n].map_as(to, is_end),
            };
            let first = known.unwrap_or(mapped);
            let guess = |to| value(&after, r, to, here, base);
            let right = coder.first(r.kind, n, to, is_end);
            let (new, made) = if right {
                (guess(first), first)
            } else if known.is_some() && guess(mapped) != guess(first) && coder.second(r.kind, n, to, is_end)
            {
                (guess(mapped), mapped)
            } else {
                let step = coder.step(r.kind);
                let new = low(guess(first).wrapping_add(step), size(r.kind));
                (new, target(&after, r, new, here, base, first))
            };
            coder.learn(r.kind, n, to, is_end, made, right);
            if r.kind >= 21 {
                coder.moved(r.kind, own, new);
            }
            let field = put(r.kind, programs[n].field(r), new).to_le_bytes();
            let len = width(r.kind) as usize;
            text[at as usize..][..len].copy_from_slice(&field[..len]);
        }
    }
}
