//! Executables: references in their code and data, found in old files and predicted in new ones
//! (`docs/formats/native-delta.md`, section 9).
//!
//! When a program is built anew, most of it stays as it was but for the distances between its pieces: each call, jump
//! and pointer changes, while what it leads to does not. The copies of a part tell where each piece of an old program
//! went. So the reader finds the references of the old file, follows each one through the copies, and knows what to put
//! in its place; the delta holds what it gets wrong.
//!
//! | module | what it is | section |
//! |---|---|---|
//! | `elf` | segments and sections | 9.2 |
//! | `data`, `btf` | references in data, and among types | 9.3 |
//! | `x86_64`, `aarch64` | references in code | 9.4, 9.5 |
//! | `field` | from a reference to its target and back | 9.6 |
//! | `map` | where old addresses went | 9.7 |
//! | `predict` | what a reference will be | 9.8 |

pub(crate) mod aarch64;
#[cfg(test)]
mod against_objdump;
mod btf;
pub(crate) mod data;
pub(crate) mod elf;
pub(crate) mod field;
pub(crate) mod map;
pub(crate) mod predict;
pub(crate) mod x86_64;

use std::collections::HashMap;

use super::items;
use elf::{Layout, Section};
use field::{Kind, Reference};

/// What a program runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// 64-bit ARM, little endian.
    Aarch64,
    /// x86-64: Linux itself, and its modules.
    X86_64Kernel,
}

impl Machine {
    /// All of them.
    pub const ALL: [Machine; 3] = [Machine::X86_64, Machine::Aarch64, Machine::X86_64Kernel];

    /// The name by which a delta asks for the rules (section 4.2.3).
    pub fn name(self) -> &'static str {
        match self {
            Machine::X86_64 => "exec-x86_64-1",
            Machine::Aarch64 => "exec-aarch64-1",
            Machine::X86_64Kernel => "exec-x86_64-kernel-1",
        }
    }

    /// The number of its transform (section 9.1).
    pub(crate) fn transform(self) -> u64 {
        match self {
            Machine::X86_64 => items::EXEC_X86_64,
            Machine::Aarch64 => items::EXEC_AARCH64,
            Machine::X86_64Kernel => items::EXEC_X86_64_KERNEL,
        }
    }

    /// The machine of a transform, if that is one for executables.
    pub(crate) fn of_transform(transform: u64) -> Option<Self> {
        Machine::ALL.into_iter().find(|machine| machine.transform() == transform)
    }

    /// The machine that an ELF file of 64 bits is for, if it is one of these; the narrowest that fits.
    pub fn of(file: &[u8]) -> Option<Self> {
        if elf::is_kernel(file) {
            return Some(Machine::X86_64Kernel);
        }
        [Machine::X86_64, Machine::Aarch64].into_iter().find(|&m| elf::is(file, m))
    }
}

/// The references of a program: place, number of the kind (section 9.6), and target. Any bytes will do.
pub fn references(file: &[u8], machine: Machine) -> Vec<(u64, u8, u64)> {
    let program = Program::read(file, machine);
    let all = program.references.iter();
    all.map(|&r| (u64::from(r.place()), r.kind() as u8, program.target(file, r).address)).collect()
}

/// Longest file that is looked at: places are 32-bit.
pub(crate) const MAX_FILE: u64 = 1 << 30;
/// At most one reference for so many bytes of a file (section 9.2).
const BYTES_PER_REFERENCE: usize = 8;

/// A program, and what in it refers to something.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub layout: Layout,
    /// Ascending, not overlapping.
    pub references: Vec<Reference>,
    /// Addresses from which references of some kinds count.
    pub bases: Vec<u64>,
}

/// References while they are found.
pub(crate) struct Found<'f> {
    file: &'f [u8],
    layout: Layout,
    sections: Vec<Section>,
    /// Places of instructions, first and behind the last, of each executable section.
    code: Vec<(u64, u64)>,
    references: Vec<Reference>,
    bases: Vec<u64>,
    /// The places of bases in their list.
    numbers: HashMap<u64, u32>,
}

impl Program {
    /// Finds the references of a file. Any bytes will do: what is not as expected has none.
    pub(crate) fn read(file: &[u8], machine: Machine) -> Self {
        if !elf::is(file, machine) || file.len() as u64 > MAX_FILE {
            return Program::default();
        }
        let layout = Layout::read(file, file.len() as u64, machine);
        let sections = elf::sections(file);
        let mut found = Found {
            file,
            layout,
            sections,
            code: Vec::new(),
            references: Vec::new(),
            bases: Vec::new(),
            numbers: HashMap::new(),
        };
        match machine {
            Machine::X86_64 | Machine::X86_64Kernel => found.x86_64(),
            Machine::Aarch64 => found.aarch64(),
        }
        found.data(machine);
        found.finish()
    }

    /// Bytes of memory that it takes besides the file (section 4.3).
    pub(crate) fn memory(&self) -> u64 {
        (self.references.len() * 8 + self.bases.len() * 16) as u64
    }
}

impl Found<'_> {
    fn room(&self) -> bool {
        self.references.len() < self.file.len() / BYTES_PER_REFERENCE
    }

    fn push(&mut self, place: usize, kind: Kind, extra: u32) {
        if self.room() && place + kind.len() <= self.file.len() {
            self.references.push(Reference::new(place as u32, kind, extra));
        }
    }

    /// The number of a base.
    fn base(&mut self, address: u64) -> u32 {
        if !self.room() {
            return 0;
        }
        *self.numbers.entry(address).or_insert_with(|| {
            self.bases.push(address);
            self.bases.len() as u32 - 1
        })
    }

    /// Whether an address lies in an executable section.
    fn is_code(&self, address: u64) -> bool {
        self.code.iter().any(|&(start, end)| address >= start && address < end)
    }

    /// Whether an address lies in an executable segment.
    fn is_executable(&self, address: u64) -> bool {
        self.layout.segment(address).is_some_and(|s| s.executable)
    }

    /// Whether a field of 32 bits is an address of the program.
    fn is_absolute(&self, value: u32) -> bool {
        self.layout.segment(self.layout.address_in(value.into(), 32)).is_some()
    }

    /// The executable sections that lie in one segment: places of their first byte and behind their last, and the address
    /// of the first.
    fn code_sections(&mut self) -> Vec<(usize, usize, u64)> {
        let mut out = Vec::new();
        let mut covered = 0;
        for section in &self.sections {
            let code = section.kind == elf::PROGBITS && section.flags & elf::CODE != 0;
            let bytes = section.bytes(self.file).len() as u64;
            let segment = self
                .layout
                .segments
                .iter()
                .find(|s| section.offset >= s.offset && section.offset + bytes <= s.offset + s.len);
            if let (true, Some(segment)) = (code && bytes > 0 && section.offset >= covered, segment) {
                let address = section.offset - segment.offset + segment.address;
                covered = section.offset + bytes;
                self.code.push((address, address + bytes));
                out.push((section.offset as usize, covered as usize, address));
            }
        }
        out
    }

    /// Section 9.4: a sweep through all executable sections.
    fn x86_64(&mut self) {
        use x86_64::{Field, LONGEST, instruction};
        let fixed = self.layout.kind == elf::EXEC;
        let mut tables = Vec::new();
        for (start, end, address) in self.code_sections() {
            let mut at = start;
            while at < end {
                let code = &self.file[at..end.min(at + LONGEST)];
                let Some(found) = instruction(code) else {
                    at += 1;
                    continue;
                };
                let next = address + (at + found.len - start) as u64;
                let value = |at: usize| elf::u32_at(code, at).unwrap_or(0);
                let target = |at: usize| next.wrapping_add_signed(i64::from(value(at) as i32));
                let place = at + found.len - 4.min(found.len);
                match found.field {
                    Some(field @ (Field::Call | Field::Jump | Field::Branch)) => {
                        let kind = match field {
                            Field::Call => Kind::Call,
                            Field::Jump => Kind::Jump,
                            _ => Kind::Branch,
                        };
                        if self.is_executable(target(found.len - 4)) {
                            self.push(place, kind, 0);
                        }
                    }
                    Some(Field::Relative(from)) => {
                        let target = target(from);
                        if self.layout.segment(target).is_some() {
                            self.push(at + from, Kind::Relative, (found.len - from - 4) as u32);
                            // LEA with a 64-bit result.
                            if from == 3 && code[0] & 0xf8 == 0x48 && code[1] == 0x8d && target % 4 == 0 {
                                tables.push(target);
                            }
                        }
                    }
                    Some(Field::Absolute(from)) if fixed && self.is_absolute(value(from)) => {
                        self.push(at + from, Kind::Absolute, 0);
                    }
                    _ => {}
                }
                at += found.len;
            }
        }
        tables.sort_unstable();
        tables.dedup();
        self.jump_tables(&tables);
    }

    /// Section 9.4.3: tables of distances to code.
    fn jump_tables(&mut self, starts: &[u64]) {
        for (i, &base) in starts.iter().enumerate() {
            let Some(place) = self.layout.place(base) else { continue };
            if self.is_code(base) {
                continue;
            }
            let most = starts.get(i + 1).map_or(u64::MAX, |next| (next - base) / 4);
            let end = self.layout.stretch_end(place).min(self.file.len() as u64);
            let mut at = place as usize;
            for _ in 0..most {
                if at as u64 + 4 > end {
                    break;
                }
                let value = elf::u32_at(self.file, at).unwrap_or(0) as i32;
                if !self.is_code(base.wrapping_add_signed(i64::from(value))) {
                    break;
                }
                let number = self.base(base);
                self.push(at, Kind::From, number);
                at += 4;
            }
        }
    }

    /// Section 9.5: all words of executable sections.
    fn aarch64(&mut self) {
        use aarch64::{Field, field};
        for (start, end, address) in self.code_sections() {
            // For each register: where an ADRP put a page into it, and which; whether its reference has a target.
            let mut pages = [Page::default(); 32];
            for at in (start..end.saturating_sub(3)).step_by(4) {
                let here = address + (at - start) as u64;
                let word = elf::u32_at(self.file, at).unwrap_or(0);
                let Some(field) = field(word) else { continue };
                let kind = match field {
                    Field::Far => Kind::Far,
                    Field::Near => Kind::Near,
                    Field::Short => Kind::Short,
                    Field::Byte => Kind::Byte,
                    Field::Page(register) => {
                        let base = Kind::Page.target(word, here);
                        let reference = self.references.len();
                        if self.layout.segment(base).is_some() {
                            self.push(at, Kind::Page, 0);
                        }
                        let known = self.references.len() > reference;
                        pages[register as usize] = Page { known, at, base, reference };
                        continue;
                    }
                    Field::Low { base, scale, result } => {
                        let page = &mut pages[base as usize];
                        let words = (at - page.at) / 4;
                        if page.known && words <= PAIR {
                            let target = page.base + (u64::from(word >> 10 & 0xfff) << scale);
                            if self.layout.segment(target).is_some() {
                                let reference = &mut self.references[page.reference];
                                if reference.extra() == 0 {
                                    *reference = Reference::new(page.at as u32, Kind::Page, words as u32);
                                }
                                self.push(at, Kind::Low, words as u32 | scale << 8);
                            }
                        }
                        if let Some(result) = result {
                            pages[result as usize].known = false;
                        }
                        continue;
                    }
                };
                if self.layout.segment(kind.target(word, here)).is_some() {
                    self.push(at, kind, 0);
                }
            }
        }
    }

    /// Sorts; at overlaps the lowest place wins.
    fn finish(mut self) -> Program {
        self.references.sort_by_key(|r| (r.place(), r.kind() as u8));
        let mut end = 0;
        self.references.retain(|r| {
            let free = r.place() >= end;
            if free {
                end = r.place() + r.kind().len() as u32;
            }
            free
        });
        Program { layout: self.layout, references: self.references, bases: self.bases }
    }
}

/// Words behind an ADRP in which what is added to its page is looked for (section 9.5).
const PAIR: usize = 16;

/// What is known of a register.
#[derive(Debug, Clone, Copy, Default)]
struct Page {
    known: bool,
    at: usize,
    base: u64,
    reference: usize,
}
