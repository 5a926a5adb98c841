//! x86-64: how long instructions are, and the references in them (`docs/formats/native-delta.md`, section 9.4).

/// Follows the opcode: a ModRM byte, and what that announces.
const MODRM: u8 = 1;
/// An immediate of one byte.
const BYTE: u8 = 2;
/// An immediate of two bytes.
const WORD: u8 = 4;
/// An immediate of four bytes, or two with prefix 66 and without REX.W.
const FULL: u8 = 8;
/// An immediate of four bytes, whatever the prefixes: the distance of a jump.
const JUMP: u8 = 16;
/// Something else: see [`length`].
const OTHER: u8 = 32;
/// No instruction.
const NONE: u8 = 64;

/// One-byte opcodes.
const ONE: [u8; 256] = one_byte();
/// Opcodes behind 0F.
const TWO: [u8; 256] = two_byte();

const fn one_byte() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = match i {
            0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 => OTHER,
            0x0f | 0x62 | 0xa0..=0xa3 | 0xb8..=0xbf | 0xc4 | 0xc5 | 0xf6 | 0xf7 => OTHER,
            0x00..=0x3f => match i & 7 {
                0..=3 => MODRM,
                4 => BYTE,
                5 => FULL,
                _ => NONE,
            },
            0x60 | 0x61 | 0x82 | 0x9a | 0xce | 0xd4..=0xd6 | 0xea => NONE,
            0x63 | 0x84..=0x8f | 0xd0..=0xd3 | 0xd8..=0xdf | 0xfe | 0xff => MODRM,
            0x68 | 0xa9 => FULL,
            0x69 | 0x81 | 0xc7 => MODRM | FULL,
            0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => MODRM | BYTE,
            0x6a | 0x70..=0x7f | 0xa8 | 0xb0..=0xb7 | 0xcd | 0xe0..=0xe7 | 0xeb => BYTE,
            0xc2 | 0xca => WORD,
            0xc8 => WORD | BYTE,
            0xe8 | 0xe9 => JUMP,
            _ => 0,
        };
        i += 1;
    }
    table
}

const fn two_byte() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = match i {
            0x04 | 0x0a | 0x0c | 0x24..=0x27 | 0x36 | 0x39 | 0x3b..=0x3f | 0x7a | 0x7b | 0xa6 | 0xa7 => NONE,
            0x05..=0x09 | 0x0b | 0x0e | 0x30..=0x37 | 0x77 | 0xa0..=0xa2 | 0xa8..=0xaa | 0xc8..=0xcf => 0,
            0x38 | 0x3a => OTHER,
            0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => MODRM | BYTE,
            0x80..=0x8f => JUMP,
            _ => MODRM,
        };
        i += 1;
    }
    table
}

/// An instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub len: usize,
    /// What in it may refer to something.
    pub field: Option<Field>,
}

/// Four bytes of an instruction that may refer to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// The last four: distance of a call, a jump, a conditional jump from the end.
    Call,
    Jump,
    Branch,
    /// A displacement from the end of the instruction, which starts at this byte of it.
    Relative(usize),
    /// A displacement or immediate that may be an address, which starts at this byte.
    Absolute(usize),
}

/// Longest instruction, in bytes.
pub(crate) const LONGEST: usize = 15;

/// The instruction at the start of `code`; `None` if there is none that is complete.
pub(crate) fn instruction(code: &[u8]) -> Option<Instruction> {
    let mut at = 0;
    let (mut narrow, mut short, mut wide) = (false, false, false);
    let opcode = loop {
        let byte = *code.get(at)?;
        at += 1;
        match byte {
            0x66 => (narrow, wide) = (true, false),
            0x67 => (short, wide) = (true, false),
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3 => wide = false,
            0x40..=0x4f => wide = byte & 8 != 0,
            _ => break byte,
        }
        if at == LONGEST {
            return None;
        }
    };
    // What stands between prefixes and ModRM, and what follows.
    let (form, opcode) = match opcode {
        0x0f => {
            let second = *code.get(at)?;
            at += 1;
            match second {
                0x38 | 0x3a => {
                    at += 1;
                    (if second == 0x38 { MODRM } else { MODRM | BYTE }, 0x0f00)
                }
                _ => (TWO[usize::from(second)], 0x0f00 | u32::from(second)),
            }
        }
        0xc4 | 0xc5 | 0x62 => {
            let (map, skip) = match opcode {
                0xc5 => (1, 1),
                0xc4 => (*code.get(at)? & 31, 2),
                _ => (*code.get(at)? & 7, 3),
            };
            let operation = *code.get(at + skip)?;
            at += skip + 1;
            (vector(map, operation, opcode == 0x62), 0x0f00)
        }
        _ => (ONE[usize::from(opcode)], u32::from(opcode)),
    };
    if form & NONE != 0 {
        return None;
    }
    let full = if narrow && !wide { 2 } else { 4 };
    let mut field = None;
    let mut immediate = 0;
    let mut form = form;
    if form & OTHER != 0 {
        form = 0;
        match opcode {
            0xa0..=0xa3 => immediate = if short { 4 } else { 8 },
            0xb8..=0xbf => immediate = if wide { 8 } else { full },
            // F6 and F7: an immediate only for the first two of eight operations.
            _ => {
                form = MODRM;
                if *code.get(at)? & 0x30 == 0 {
                    form |= if opcode == 0xf6 { BYTE } else { FULL };
                }
            }
        }
    }
    if form & MODRM != 0 {
        let modrm = *code.get(at)?;
        at += 1;
        let (mode, rm) = (modrm >> 6, modrm & 7);
        if mode != 3 {
            let base = if rm == 4 { *code.get(at)? & 7 } else { rm };
            at += usize::from(rm == 4);
            match (mode, base) {
                (0, 5) => {
                    field = Some(if rm == 5 { Field::Relative(at) } else { Field::Absolute(at) });
                    at += 4;
                }
                (1, _) => at += 1,
                (2, _) => {
                    field = Some(Field::Absolute(at));
                    at += 4;
                }
                _ => {}
            }
        }
    }
    immediate += match form & (BYTE | WORD | FULL | JUMP) {
        0 => 0,
        BYTE => 1,
        WORD => 2,
        FULL => full,
        JUMP => 4,
        _ => 3,
    };
    if form & JUMP != 0 {
        field = Some(match opcode {
            0xe8 => Field::Call,
            0xe9 => Field::Jump,
            _ => Field::Branch,
        });
    } else if immediate == 4 && field.is_none() && matches!(opcode, 0x68 | 0x81 | 0xb8..=0xbf | 0xc7) {
        field = Some(Field::Absolute(at));
    }
    let len = at + immediate;
    (len <= LONGEST && len <= code.len()).then_some(Instruction { len, field })
}

/// The form of an instruction with a VEX or EVEX prefix.
fn vector(map: u8, operation: u8, evex: bool) -> u8 {
    match (map, operation) {
        (1, 0x77) if !evex => 0,
        (1, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6) | (3, _) => MODRM | BYTE,
        (1 | 2, _) => MODRM,
        (5 | 6, _) if evex => MODRM,
        _ => NONE,
    }
}
