//! Small ELF programs, made of functions that refer to each other: what a compiler and a linker leave, without either.

use crate::image::binary;

/// What a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// aarch64.
    Aarch64,
    /// x86-64, as Linux itself (kind 2: high addresses, and a list of them behind the sections) or a module of it
    /// (kind 1). Both have types.
    Kernel,
}

/// A program to be built.
#[derive(Debug, Clone)]
pub struct Program {
    /// For which machine.
    pub machine: Machine,
    /// `e_type`: 1 relocatable, 2 fixed addresses, 3 position independent.
    pub kind: u16,
    /// Its functions by number, in the order of their code. A number decides what a function does and what it refers to.
    pub functions: Vec<u32>,
    /// Bytes of other data in front of the code, at most 2^14.
    pub data: usize,
}

/// Bytes of a table of sections: type, flags, address, offset, length, link, info, entry.
struct Section(u32, u64, u64, u64, u64, u32, u32, u64);

/// Where code and data are loaded beyond their place in the file.
const CODE: u64 = 0x1000;
const DATA: u64 = 0x3000;

impl Program {
    /// The bytes of the file.
    pub fn build(&self) -> Vec<u8> {
        let base = match (self.machine, self.kind) {
            (Machine::Kernel, 2) => 0xffff_ffff_8100_0000,
            (_, 2) => 0x40_0000,
            _ => 0,
        };
        let code = (1200 + self.data as u64).next_multiple_of(16);
        // Distances do not change sizes, so a first pass with any places tells where functions start.
        let starts = |all: &[Vec<u8>]| -> Vec<u64> {
            let mut at = base + CODE + code;
            let mut out = Vec::new();
            for f in all {
                out.push(at);
                at += f.len() as u64;
            }
            out
        };
        let table = base + 1100;
        let write = |starts: &[u64]| -> Vec<Vec<u8>> {
            (0..self.functions.len()).map(|i| self.function(i, starts, table)).collect()
        };
        let nowhere = vec![base; self.functions.len()];
        let starts = starts(&write(&nowhere));
        let functions = write(&starts);
        let text = functions.concat();
        let mut file = vec![0; 1100];
        self.jump_table(&starts, table, &mut file);
        file.resize(1200, 0);
        file.extend(&binary(9, 1 << 14)[..self.data]);
        file.resize(code as usize, 0);
        file.extend(&text);
        let frames = self.frames(&starts, &functions, base + CODE, &mut file);
        file.resize(file.len().next_multiple_of(16), 0);
        let rela = file.len() as u64;
        let words = rela + 24 * self.functions.len() as u64;
        for (i, start) in starts.iter().enumerate() {
            let place = base + DATA + words + 8 * i as u64;
            let relative: u64 = if self.machine == Machine::Aarch64 { 1027 } else { 8 };
            let symbol = if i % 3 == 0 { i as u64 + 1 } else { 0 };
            [place, relative | symbol << 32, *start].iter().for_each(|n| file.extend(n.to_le_bytes()));
        }
        starts.iter().for_each(|s| file.extend(s.to_le_bytes()));
        let symbols = file.len() as u64;
        file.resize(file.len() + 24, 0);
        for (i, start) in starts.iter().enumerate() {
            file.extend((1 + 4 * self.functions[i] % 40).to_le_bytes());
            file.extend([0x12, 0, 1, 0]);
            file.extend(start.to_le_bytes());
            file.extend((functions[i].len() as u64).to_le_bytes());
        }
        let names = file.len() as u64;
        file.extend(binary(5, 64));
        let types = file.len() as u64;
        if self.machine == Machine::Kernel {
            file.extend(self.types());
        }
        let mut sections = vec![
            Section(0, 0, 0, 0, 0, 0, 0, 0),
            Section(1, 6, base + CODE + code, code, text.len() as u64, 0, 0, 0),
            Section(1, 2, base + CODE + frames.0, frames.0, frames.1 - frames.0, 0, 0, 0),
            Section(1, 2, base + CODE + frames.1, frames.1, rela - frames.1, 0, 0, 0),
            Section(4, 2, base + DATA + rela, rela, words - rela, 6, 5, 24),
            Section(1, 3, base + DATA + words, words, symbols - words, 0, 0, 8),
            Section(11, 2, 0, symbols, names - symbols, 7, 1, 24),
            Section(3, 0, 0, names, 64, 0, 0, 0),
        ];
        if self.machine == Machine::Kernel {
            sections.push(Section(1, 2, 0, types, file.len() as u64 - types, 0, 0, 0));
        }
        let headers = file.len() as u64;
        for s in &sections {
            file.extend([0; 4]);
            file.extend(s.0.to_le_bytes());
            [s.1, s.2, s.3, s.4].iter().for_each(|n| file.extend(n.to_le_bytes()));
            file.extend(s.5.to_le_bytes());
            file.extend(s.6.to_le_bytes());
            file.extend([8u64, s.7].iter().flat_map(|n| n.to_le_bytes()));
        }
        let mut loads = vec![
            (4, base, 0, code),
            (5, base + CODE + code, code, rela - code),
            (6, base + DATA + rela, rela, symbols - rela),
        ];
        if self.machine == Machine::Kernel && self.kind == 2 {
            // What each processor has of its own; and what is moved when the kernel starts.
            loads.insert(2, (6, 0x40, rela, 16));
            file.extend([0; 4]);
            starts.iter().for_each(|s| file.extend((*s as u32).to_le_bytes()));
        }
        self.head(&mut file, headers, sections.len() as u16, &loads, base + CODE + frames.1);
        file
    }

    fn head(
        &self,
        file: &mut [u8],
        headers: u64,
        sections: u16,
        loads: &[(u32, u64, u64, u64)],
        frames: u64,
    ) {
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let machine: u16 = if self.machine == Machine::Aarch64 { 183 } else { 62 };
        let count = if self.kind == 1 { 0 } else { loads.len() as u16 + 1 };
        for (at, n) in [(16, self.kind), (18, machine), (54, 56), (56, count), (58, 64), (60, sections)] {
            file[at..at + 2].copy_from_slice(&n.to_le_bytes());
        }
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[40..48].copy_from_slice(&headers.to_le_bytes());
        let frames = (4, frames, 0, 0);
        for (i, (flags, address, offset, len)) in loads.iter().chain([&frames]).enumerate() {
            let kind: u32 = if i == loads.len() { 0x6474_e550 } else { 1 };
            let header = &mut file[64 + 56 * i..][..56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[4..8].copy_from_slice(&u32::to_le_bytes(*flags));
            for (at, n) in [(8, offset), (16, address), (32, len), (40, len)] {
                header[at..at + 8].copy_from_slice(&n.to_le_bytes());
            }
        }
    }

    /// The code of the function at place `i`.
    fn function(&self, i: usize, starts: &[u64], table: u64) -> Vec<u8> {
        let number = self.functions[i];
        let noise = binary(u64::from(number) + 100, 64);
        let mut out = Vec::new();
        for (k, &byte) in noise.iter().enumerate().take(10 + number as usize % 30) {
            let here = starts[i] + out.len() as u64;
            // By number, so that a function refers to the same one wherever that is.
            let wanted = u32::from(byte) * 7 % 50;
            let to = self.functions.iter().position(|&f| f == wanted).map_or(table, |at| starts[at]);
            match self.machine {
                Machine::X86_64 | Machine::Kernel => {
                    x86_64(byte, k, here, to, table, self.kind == 2, &mut out)
                }
                Machine::Aarch64 => aarch64(byte, k, here, to, table, &mut out),
            }
        }
        out.resize(out.len().next_multiple_of(16), 0x90);
        out
    }

    /// The types of a kernel: for each function some that refer to others, and to names.
    fn types(&self) -> Vec<u8> {
        // Words of each kind: N a name, T a type; behind the bar those of an entry.
        const SHAPES: [(u32, &str); 19] = [
            (1, "N.x.|"),
            (2, ".xT|"),
            (3, "...TTx|"),
            (4, "N.x|NTx"),
            (5, "N.x|NTx"),
            (6, "N.x|Nx"),
            (7, "N..|"),
            (8, "N.T|"),
            (9, "..T|"),
            (10, "..T|"),
            (11, "..T|"),
            (12, "N.T|"),
            (13, "..T|NT"),
            (14, "N.Tx|"),
            (15, "N.x|Txx"),
            (16, "N.x|"),
            (17, "N.Tx|"),
            (18, "N.T|"),
            (19, "N.x|Nxx"),
        ];
        let mut types = Vec::new();
        for (i, &number) in self.functions.iter().enumerate() {
            for k in [number, number + 7] {
                let (kind, shape) = SHAPES[k as usize % SHAPES.len()];
                let (once, entry) = shape.split_once('|').unwrap_or((shape, ""));
                let count = if entry.is_empty() { 0 } else { 1 + number % 4 };
                let words = once.to_owned() + &entry.repeat(count as usize);
                for (at, word) in words.bytes().enumerate() {
                    let word = match word {
                        _ if at == 1 => kind << 24 | count,
                        // As if many came before, in the kernel that a module belongs to.
                        b'N' => 9000 + 11 * i as u32 + at as u32 % 3 * 40,
                        b'T' => 700 + (2 * i as u32 + 3 * at as u32) % 90,
                        b'x' => number,
                        _ => 0,
                    };
                    types.extend(word.to_le_bytes());
                }
            }
        }
        let words = [0x1_eb9f, 24, 0, types.len() as u32, types.len() as u32, 0];
        let head: Vec<u8> = words.iter().flat_map(|n: &u32| n.to_le_bytes()).collect();
        [head, types].concat()
    }

    /// Distances of the first functions from the table.
    fn jump_table(&self, starts: &[u64], table: u64, file: &mut Vec<u8>) {
        for start in starts.iter().take(6) {
            file.extend((start.wrapping_sub(table) as u32).to_le_bytes());
        }
    }

    /// Frames and their table; where each starts in the file.
    fn frames(&self, starts: &[u64], functions: &[Vec<u8>], shift: u64, file: &mut Vec<u8>) -> (u64, u64) {
        file.resize(file.len().next_multiple_of(8), 0);
        let begin = file.len() as u64;
        file.extend(20u32.to_le_bytes());
        file.extend(*b"\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0");
        let mut rows = Vec::new();
        for (start, function) in starts.iter().zip(functions) {
            let at = file.len() as u64;
            let distance = (start.wrapping_sub(shift + at + 8)) as u32;
            for n in [20, (at + 4 - begin) as u32, distance, function.len() as u32, 0, 0] {
                file.extend(n.to_le_bytes());
            }
            rows.push((*start, shift + at));
        }
        file.extend([0; 4]);
        let table = file.len() as u64;
        file.extend([1, 0x1b, 3, 0x3b]);
        file.extend((begin.wrapping_sub(table + 4) as u32).to_le_bytes());
        file.extend((rows.len() as u32).to_le_bytes());
        rows.sort_unstable();
        for (start, frame) in rows {
            file.extend((start.wrapping_sub(shift + table) as u32).to_le_bytes());
            file.extend((frame.wrapping_sub(shift + table) as u32).to_le_bytes());
        }
        (begin, table)
    }
}

/// One of some instructions.
fn x86_64(byte: u8, k: usize, here: u64, to: u64, table: u64, fixed: bool, out: &mut Vec<u8>) {
    let from = |len: u64, to: u64| (to.wrapping_sub(here + len) as u32).to_le_bytes();
    match (usize::from(byte) + k) % 9 {
        0 => out.extend([&[0xe8][..], &from(5, to)].concat()),
        1 => out.extend([&[0xe9][..], &from(5, to)].concat()),
        2 => out.extend([&[0x0f, 0x84][..], &from(6, to)].concat()),
        3 => out.extend([&[0x48, 0x8d, 0x05][..], &from(7, table)].concat()),
        4 => out.extend([&[0x81, 0x3d][..], &from(10, to), &[byte; 4]].concat()),
        5 => out.extend([0x48, 0x89, 0x44, 0x24, byte]),
        6 if fixed => out.extend([&[0xb8][..], &(to as u32).to_le_bytes()].concat()),
        7 => out.extend([0xc5, 0xf8, 0x28, 0x45, byte]),
        _ => out.extend([0x83, 0xc0, byte]),
    }
}

/// One or two of some instructions.
fn aarch64(byte: u8, k: usize, here: u64, to: u64, table: u64, out: &mut Vec<u8>) {
    let words = (to.wrapping_sub(here) / 4) as u32;
    let page = ((to >> 12).wrapping_sub(here >> 12)) as u32;
    let register = u32::from(byte) % 28;
    let adrp = 0x9000_0000 | (page & 3) << 29 | (page >> 2 & 0x7_ffff) << 5 | register;
    let all = match (usize::from(byte) + k) % 8 {
        0 => vec![0x9400_0000 | words & 0x3ff_ffff],
        1 => vec![0x5400_0001 | (words & 0x7_ffff) << 5],
        2 => vec![0x3600_0000 | (words & 0x3fff) << 5 | register],
        3 => vec![adrp, 0x9100_0000 | (to as u32 & 0xfff) << 10 | register << 5 | register],
        4 => vec![adrp, 0xf940_0000 | (to as u32 >> 3 & 0x1ff) << 10 | register << 5 | 29],
        5 => vec![0x1000_0000 | (table.wrapping_sub(here) as u32 >> 2 & 0x7_ffff) << 5 | register],
        6 => vec![0xaa00_03e0 | register << 16],
        _ => vec![0x1100_0400 | u32::from(byte) << 10],
    };
    all.into_iter().for_each(|word: u32| out.extend(word.to_le_bytes()));
}
