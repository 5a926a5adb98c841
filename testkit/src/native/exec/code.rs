//! Sections 9.4 and 9.5.

use super::data::Found;
use super::{Reference, get, number, target};

/// Executable sections: start and end in the file, address.
fn sections(found: &mut Found<'_>) -> Vec<(u64, u64, u64)> {
    let mut out: Vec<(u64, u64, u64)> = Vec::new();
    for s in found.sections.clone() {
        let end = s.offset.saturating_add(s.len);
        let whole = s.kind == 1 && s.flags & 4 != 0 && s.len > 0 && end <= found.file.len() as u64;
        let segment = found.layout.segments.iter().find(|g| s.offset >= g.offset && end <= g.offset + g.len);
        if let Some(segment) = segment
            && whole
            && out.last().is_none_or(|before| s.offset >= before.1)
        {
            out.push((s.offset, end, s.offset - segment.offset + segment.address));
        }
    }
    found.code = out.iter().map(|&(start, end, address)| address..address + (end - start)).collect();
    out
}

/// What 9.4.2 tells of an instruction.
struct Instruction {
    len: u64,
    /// Kind, and where the field starts.
    field: Option<(u64, u64)>,
}

/// ModRM, and bytes of immediates; `F` is counted as 100.
fn behind(map: u8, op: u8) -> Option<(bool, u64)> {
    const F: u64 = 100;
    Some(match (map, op) {
        (0, 0x00..=0x3f) => match op % 8 {
            0..=3 => (true, 0),
            4 => (false, 1),
            5 => (false, F),
            _ => return None,
        },
        (0, 0x60 | 0x61 | 0x82 | 0x9a | 0xce | 0xd4..=0xd6 | 0xea) => return None,
        (0, 0x63 | 0x84..=0x8f | 0xd0..=0xd3 | 0xd8..=0xdf | 0xfe | 0xff) => (true, 0),
        (0, 0x68 | 0xa9) => (false, F),
        (0, 0x69 | 0x81 | 0xc7) => (true, F),
        (0, 0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6) => (true, 1),
        (0, 0x6a | 0x70..=0x7f | 0xa8 | 0xb0..=0xb7 | 0xcd | 0xe0..=0xe7 | 0xeb) => (false, 1),
        (0, 0xc2 | 0xca) => (false, 2),
        (0, 0xc8) => (false, 3),
        (0, 0xe8 | 0xe9) => (false, 4),
        (0, 0xf6 | 0xf7) => (true, 0),
        (0, _) => (false, 0),
        (1, 0x04 | 0x0a | 0x0c | 0x24..=0x27 | 0x36 | 0x39 | 0x3b..=0x3f | 0x7a | 0x7b | 0xa6 | 0xa7) => {
            return None;
        }
        (
            1,
            0x05..=0x09 | 0x0b | 0x0e | 0x30..=0x35 | 0x37 | 0x77 | 0xa0..=0xa2 | 0xa8..=0xaa | 0xc8..=0xcf,
        ) => (false, 0),
        (1, 0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6) => (true, 1),
        (1, 0x80..=0x8f) => (false, 4),
        (3, _) => (true, 1),
        (1 | 2, _) => (true, 0),
        _ => return None,
    })
}

fn instruction(code: &[u8]) -> Option<Instruction> {
    let byte = |i: usize| code.get(i).copied();
    let (mut at, mut p66, mut p67, mut wide) = (0, false, false, false);
    loop {
        match byte(at)? {
            0x66 => p66 = true,
            0x67 => p67 = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3 | 0x40..=0x4f => {}
            _ => break,
        }
        wide = byte(at)? & 0xf8 == 0x48;
        at += 1;
        if at == 15 {
            return None;
        }
    }
    let full = if p66 && !wide { 2 } else { 4 };
    let op = byte(at)?;
    at += 1;
    let mut absolute = false;
    let mut jump = None;
    let (modrm, mut immediate) = match op {
        0x0f => {
            let second = byte(at)?;
            at += 1;
            match second {
                0x38 | 0x3a => {
                    at += 1;
                    (true, u64::from(second == 0x3a))
                }
                _ => {
                    jump = (0x80..=0x8f).contains(&second).then_some(2);
                    behind(1, second)?
                }
            }
        }
        0xc4 | 0xc5 | 0x62 => {
            let (map, skip) = match op {
                0xc5 => (1, 1),
                0xc4 => (byte(at)? % 32, 2),
                _ => (byte(at)? % 8, 3),
            };
            let operation = byte(at + skip)?;
            at += skip + 1;
            match (map, operation) {
                (1, 0x77) if op != 0x62 => (false, 0),
                (1, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6) | (3, _) => (true, 1),
                (1 | 2, _) => (true, 0),
                (5 | 6, _) if op == 0x62 => (true, 0),
                _ => return None,
            }
        }
        0xa0..=0xa3 => (false, if p67 { 4 } else { 8 }),
        0xb8..=0xbf => {
            absolute = true;
            (false, if wide { 8 } else { 100 })
        }
        0xf6 | 0xf7 if byte(at)? & 0x30 == 0 => (true, if op == 0xf6 { 1 } else { 100 }),
        _ => {
            absolute = matches!(op, 0x68 | 0x81 | 0xc7);
            jump = match op {
                0xe8 => Some(0),
                0xe9 => Some(1),
                _ => None,
            };
            behind(0, op)?
        }
    };
    if immediate == 100 {
        immediate = full;
    }
    let mut field = None;
    if modrm {
        let (mode, mut rm) = (byte(at)? >> 6, byte(at)? % 8);
        at += 1;
        let mut sib = false;
        if mode != 3 && rm == 4 {
            (sib, rm) = (true, byte(at)? % 8);
            at += 1;
        }
        if mode == 2 || mode == 0 && rm == 5 {
            field = Some((if mode == 0 && !sib { 3 } else { 4 }, at as u64));
            at += 4;
        } else if mode == 1 {
            at += 1;
        }
    }
    let len = at as u64 + immediate;
    if let Some(kind) = jump {
        field = Some((kind, len - 4));
    } else if field.is_none() && absolute && immediate == 4 {
        field = Some((4, len - 4));
    }
    (len <= 15 && len <= code.len() as u64).then_some(Instruction { len, field })
}

/// Section 9.4.
pub(super) fn x86_64(found: &mut Found<'_>) {
    let mut tables = Vec::new();
    for (start, end, address) in sections(found) {
        let mut at = start;
        while at < end {
            let code = &found.file[at as usize..end as usize];
            let Some(instruction) = instruction(code) else {
                at += 1;
                continue;
            };
            if let Some((kind, from)) = instruction.field {
                let extra = if kind == 3 { instruction.len - from - 4 } else { 0 };
                let r = Reference { place: at + from, kind, extra, ..Reference::default() };
                let v = number(found.file, r.place, 4).unwrap_or(0);
                let to = target(found.layout, &r, v, address + (r.place - start), 0, 0);
                let segment = found.layout.loaded(to);
                let counts = match kind {
                    0..=2 => segment.is_some_and(|s| s.executable),
                    3 => segment.is_some(),
                    _ => segment.is_some() && found.layout.kind == 2,
                };
                if counts {
                    found.push(r);
                    if kind == 3 && from == 3 && code[0] / 8 == 9 && code[1] == 0x8d && to.is_multiple_of(4) {
                        tables.push(to);
                    }
                }
            }
            at += instruction.len;
        }
    }
    tables.sort_unstable();
    tables.dedup();
    let in_code = |found: &Found<'_>, a: u64| found.code.iter().any(|c| c.contains(&a));
    for (i, &base) in tables.iter().enumerate() {
        let Some(place) = found.layout.place(base).filter(|_| !in_code(found, base)) else { continue };
        for n in 0.. {
            let at = place + 4 * n;
            let next = tables.get(i + 1).is_some_and(|next| base + 4 * n + 4 > *next);
            let Some(v) = number(found.file, at, 4).filter(|_| !next) else { break };
            let same = found.layout.stretch(at) == found.layout.stretch(place)
                && found.layout.stretch(at + 3) == found.layout.stretch(place);
            let r = Reference { place: at, kind: 7, base, ..Reference::default() };
            let to = target(found.layout, &r, v, 0, base, 0);
            if !same || !in_code(found, to) {
                break;
            }
            found.push(r);
        }
    }
}

/// The unit of an ADD, LDR or STR.
pub(super) fn unit(word: u64) -> u64 {
    if word & 0x3b00_0000 != 0x3900_0000 {
        0
    } else if word >> 26 & 1 == 1 && word >> 23 & 1 == 1 {
        4
    } else {
        word >> 30 & 3
    }
}

/// What is kept for a register.
#[derive(Clone, Copy, Default)]
struct Kept {
    found: bool,
    page: u64,
    place: u64,
    index: usize,
}

/// Section 9.5.
pub(super) fn aarch64(found: &mut Found<'_>) {
    let rows = [
        (0x7c00_0000, 0x1400_0000, 15),
        (0xff00_0010, 0x5400_0000, 16),
        (0x7e00_0000, 0x3400_0000, 16),
        (0x3b00_0000, 0x1800_0000, 16),
        (0x7e00_0000, 0x3600_0000, 17),
        (0x9f00_0000, 0x1000_0000, 18),
        (0x9f00_0000, 0x9000_0000, 19),
        (0xffc0_0000, 0x9100_0000, 20),
        (0x3b00_0000, 0x3900_0000, 20),
    ];
    for (start, end, address) in sections(found) {
        let mut kept = [Kept::default(); 32];
        let mut at = start;
        while at + 4 <= end {
            let word = number(found.file, at, 4).unwrap_or(0);
            let here = address + (at - start);
            let register = |shift: u32| (word >> shift & 31) as usize;
            if let Some(&(_, _, kind)) = rows.iter().find(|row| word & row.0 == row.1) {
                let mut r = Reference { place: at, kind, ..Reference::default() };
                if kind == 20 {
                    let base = kept[register(5)];
                    let unit = unit(word);
                    let to = base.page.wrapping_add((word >> 10 & 0xfff) << unit);
                    if base.found && at - base.place <= 64 && found.layout.loaded(to).is_some() {
                        (r.extra, r.unit) = ((at - base.place) / 4, unit);
                        if found.references[base.index].extra == 0 {
                            found.references[base.index].extra = r.extra;
                        }
                        found.push(r);
                    }
                    let load = word & 0x3b00_0000 == 0x3900_0000;
                    if !load || word >> 26 & 1 == 0 && word >> 22 & 3 != 0 {
                        kept[register(0)].found = false;
                    }
                } else {
                    let to = target(found.layout, &r, get(kind, word), here, 0, 0);
                    let loaded = found.layout.loaded(to).is_some();
                    let index = found.references.len();
                    if loaded {
                        found.push(r);
                    }
                    if kind == 19 {
                        let is = found.references.len() > index;
                        kept[register(0)] = Kept { found: is, page: to, place: at, index };
                    }
                }
            }
            at += 4;
        }
    }
}
