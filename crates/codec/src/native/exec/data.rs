//! References in data: tables of frames, relocations, symbols, pointers and section headers
//! (`docs/formats/native-delta.md`, section 9.3).

use super::elf::{self, Section, u16_at, u32_at, u64_at};
use super::field::{Kind, SYMBOL};
use super::{Found, Machine};

/// Tags of the dynamic section whose value is an address.
const POINTERS: [u64; 17] = [
    3,
    4,
    5,
    6,
    7,
    12,
    13,
    23,
    25,
    26,
    32,
    36,
    0x6fff_fef5,
    0x6fff_fef6,
    0x6fff_fff0,
    0x6fff_fffc,
    0x6fff_fffe,
];
/// Encodings of pointers in exception frames: signed, four bytes, from their place; the second goes through a pointer.
const HERE: u8 = 0x1b;
const INDIRECT: u8 = 0x9b;
/// Longest augmentation of a CIE that is understood.
const MAX_AUGMENTATION: usize = 8;

/// What the frames of a CIE look like.
#[derive(Debug, Clone, Copy)]
struct Cie {
    place: usize,
    /// Encoding of code addresses, and of the pointer to data of the language.
    code: u8,
    language: Option<u8>,
}

impl Found<'_> {
    /// Finds what is not in code.
    pub(super) fn data(&mut self, machine: Machine) {
        self.frame_table();
        let sections = std::mem::take(&mut self.sections);
        let words = self.layout.kind == elf::EXEC || sections.iter().any(|s| s.kind == elf::RELR);
        for section in &sections {
            let writable = section.flags & (elf::WRITE | elf::ALLOC) == elf::WRITE | elf::ALLOC;
            match section.kind {
                elf::RELA => self.relocations(section, &sections, machine),
                elf::SYMTAB | elf::DYNSYM => self.symbols(section, &sections),
                elf::DYNAMIC => self.dynamic(section),
                elf::PROGBITS if writable && (words || section.entry == 8) => self.pointers(section),
                kind if elf::ARRAYS.contains(&kind) => self.pointers(section),
                _ => {}
            }
        }
        self.headers(&sections);
        if machine == Machine::X86_64Kernel {
            if self.layout.high {
                sections.iter().for_each(|section| self.distances(section));
                self.trailer(sections.len());
            }
            sections.iter().for_each(|section| self.types(section));
        }
        self.sections = sections;
    }

    /// Whether a word of 64 bits is an address of the program.
    fn is_loaded(&self, word: u64) -> bool {
        self.layout.segment(self.layout.address_in(word, 64)).is_some()
    }

    fn address(&self, place: usize) -> u64 {
        self.layout.address(place as u64)
    }

    /// 9.3.1: the sorted table of frames, and the frames that it leads to.
    fn frame_table(&mut self) {
        let Some(address) = self.layout.frames else { return };
        let Some(place) = self.layout.place(address).map(|p| p as usize) else { return };
        if self.file.get(place..).and_then(|b| b.get(..4)) != Some(&[1, HERE, 3, 0x3b]) {
            return;
        }
        let (Some(frames), Some(count)) = (u32_at(self.file, place + 4), u32_at(self.file, place + 8)) else {
            return;
        };
        let frames = address.wrapping_add(4).wrapping_add_signed(i64::from(frames as i32));
        self.push(place + 4, Kind::Here, 0);
        let number = self.base(address);
        let entries = place + 12..self.file.len().min((place + 12).saturating_add(8 * count as usize));
        for at in entries.step_by(4) {
            self.push(at, Kind::From, number);
        }
        let frames = self.sections.iter().find(|s| s.address == frames && s.kind == elf::PROGBITS);
        if let Some(section) = frames.copied() {
            self.frames(&section);
        }
    }

    /// The records of `.eh_frame`.
    fn frames(&mut self, section: &Section) {
        let Some((start, end)) = section.range(self.file) else { return };
        let mut cies: Vec<Cie> = Vec::new();
        let mut at = start;
        while at + 8 <= end {
            let len = u32_at(self.file, at).unwrap_or(0) as usize;
            let record = at + 4..(at + 4).saturating_add(len);
            if len < 4 || record.end > end {
                return;
            }
            let id = u32_at(self.file, at + 4).unwrap_or(0) as usize;
            if id == 0 {
                if let Some(cie) = self.cie(at, record.end) {
                    cies.push(cie);
                }
            } else {
                let cie = (at + 4).checked_sub(id);
                let known = cie.and_then(|place| {
                    let i = cies.binary_search_by_key(&place, |c| c.place).ok()?;
                    cies.get(i).copied()
                });
                if let Some(cie) = known {
                    self.frame(at, record.end, cie);
                }
            }
            at = record.end;
        }
    }

    /// Reads a CIE, which starts at `at` with its length.
    fn cie(&mut self, at: usize, end: usize) -> Option<Cie> {
        let bytes = &self.file[..end];
        let version = *bytes.get(at + 8)?;
        let name = bytes.get(at + 9..)?.iter().take(MAX_AUGMENTATION).take_while(|&&b| b != 0);
        let name: Vec<u8> = name.copied().collect();
        let mut next = at + 10 + name.len();
        let skip = |next: &mut usize| {
            while bytes.get(*next)? & 0x80 != 0 {
                *next += 1;
            }
            *next += 1;
            Some(())
        };
        skip(&mut next)?;
        skip(&mut next)?;
        if version == 1 {
            next += 1;
        } else {
            skip(&mut next)?;
        }
        let mut cie = Cie { place: at, code: 0, language: None };
        let Some((b'z', rest)) = name.split_first() else { return Some(cie) };
        skip(&mut next)?;
        for letter in rest {
            let encoding = *bytes.get(next)?;
            next += 1;
            match letter {
                b'R' => cie.code = encoding,
                b'L' => cie.language = Some(encoding),
                b'P' => {
                    if encoding != HERE && encoding != INDIRECT {
                        return None;
                    }
                    if next + 4 <= end {
                        self.push(next, Kind::Here, 0);
                    }
                    next += 4;
                }
                _ => return None,
            }
        }
        Some(cie)
    }

    /// Reads a frame, which starts at `at` with its length.
    fn frame(&mut self, at: usize, end: usize, cie: Cie) {
        self.push(at + 4, Kind::Back, 0);
        if cie.code != HERE || at + 16 > end {
            return;
        }
        self.push(at + 8, Kind::Here, 0);
        self.push(at + 12, Kind::Length, 0);
        let language = cie.language == Some(HERE) && at + 21 <= end && self.file[at + 16] == 4;
        if language && u32_at(self.file, at + 17) != Some(0) {
            self.push(at + 17, Kind::Here, 0);
        }
    }

    /// 9.3.2: relocations.
    fn relocations(&mut self, section: &Section, all: &[Section], machine: Machine) {
        let relative: [u32; 2] = match machine {
            Machine::X86_64 | Machine::X86_64Kernel => [8, 37],
            Machine::Aarch64 => [1027, 1032],
        };
        let symbols = all.get(section.link as usize).filter(|s| matches!(s.kind, elf::SYMTAB | elf::DYNSYM));
        let patched = all.get(section.info as usize);
        let movable = self.layout.kind == elf::REL;
        let count = section.bytes(self.file).len() / 24;
        for at in (0..count).map(|i| section.offset as usize + 24 * i) {
            let offset = u64_at(self.file, at).unwrap_or(0);
            let (kind, symbol) = (u32_at(self.file, at + 8), u32_at(self.file, at + 12).unwrap_or(0));
            let addend = u64_at(self.file, at + 16).unwrap_or(0);
            if movable {
                if let Some(patched) = patched {
                    let base = self.base(patched.offset);
                    self.push(at, Kind::WideFrom, base);
                }
            } else if self.is_loaded(offset) {
                self.push(at, Kind::Word, 0);
            }
            if let (Some(symbols), true) = (symbols, symbol != 0) {
                let base = self.base(self.layout.address(symbols.offset));
                self.push(at + 12, Kind::Symbol, base);
            }
            if relative.into_iter().any(|r| kind == Some(r)) && !movable && self.is_loaded(addend) {
                self.push(at + 16, Kind::Word, 0);
                let place =
                    self.layout.place(self.layout.address_in(offset, 64)).filter(|p| *p < elf::MAX_ADDRESS);
                if let Some(place) = place.map(|p| p as usize)
                    && u64_at(self.file, place) == Some(addend)
                {
                    self.push(place, Kind::Word, 0);
                }
            } else if let (true, Some(symbols), Some(kind)) = (movable, symbols, kind) {
                self.addend(at + 16, kind, symbol, symbols, all, machine);
            }
        }
    }

    /// The addend of a relocation against a section of a relocatable file.
    fn addend(
        &mut self,
        at: usize,
        kind: u32,
        symbol: u32,
        symbols: &Section,
        all: &[Section],
        machine: Machine,
    ) {
        let entry = symbols.bytes(self.file).get(symbol as usize * SYMBOL as usize..);
        let Some(entry) = entry.filter(|e| e.len() >= SYMBOL as usize) else { return };
        let (is_section, number) = (entry[4] & 15 == 3, u16_at(entry, 6).unwrap_or(0));
        let Some(target) = all.get(usize::from(number)).filter(|_| is_section && number != 0) else { return };
        // Distances from the end of a field of four bytes.
        let behind = machine != Machine::Aarch64 && matches!(kind, 2 | 4);
        let base = self.base(target.offset.wrapping_add(if behind { 4 } else { 0 }));
        self.push(at, Kind::WideFrom, base);
    }

    /// 9.3.3: symbols.
    fn symbols(&mut self, section: &Section, all: &[Section]) {
        let movable = self.layout.kind == elf::REL;
        let names = all.get(section.link as usize).map(|s| self.layout.address(s.offset));
        let count = section.bytes(self.file).len() / SYMBOL as usize;
        for at in (0..count).map(|i| section.offset as usize + SYMBOL as usize * i) {
            let name = u32_at(self.file, at).unwrap_or(0);
            if let (Some(names), true) = (names, name != 0) {
                let base = self.base(names);
                self.push(at, Kind::From, base);
            }
            let (number, value) =
                (u16_at(self.file, at + 6).unwrap_or(0), u64_at(self.file, at + 8).unwrap_or(0));
            if number == 0 || number >= 0xff00 {
                continue;
            }
            if movable {
                if let Some(holder) = all.get(usize::from(number)) {
                    let base = self.base(holder.offset);
                    self.push(at + 8, Kind::WideFrom, base);
                }
            } else if self.is_loaded(value) {
                self.push(at + 8, Kind::Word, 0);
                if u64_at(self.file, at + 16).is_some_and(|len| len != 0) {
                    self.push(at + 16, Kind::WideLength, 0);
                }
            }
        }
    }

    /// 9.3.4: the dynamic section.
    fn dynamic(&mut self, section: &Section) {
        let count = section.bytes(self.file).len() / 16;
        for at in (0..count).map(|i| section.offset as usize + 16 * i) {
            let (tag, value) = (u64_at(self.file, at).unwrap_or(0), u64_at(self.file, at + 8).unwrap_or(0));
            if POINTERS.contains(&tag) && self.is_loaded(value) {
                self.push(at + 8, Kind::Word, 0);
            }
        }
    }

    /// 9.3.5: words that are addresses.
    fn pointers(&mut self, section: &Section) {
        let Some((start, end)) = section.range(self.file) else { return };
        let first =
            start + self.address(start).next_multiple_of(8).wrapping_sub(self.address(start)) as usize;
        for at in (first..end.saturating_sub(7)).step_by(8) {
            let value = u64_at(self.file, at).unwrap_or(0);
            if value != 0 && self.is_loaded(value) {
                self.push(at, Kind::Word, 0);
            }
        }
    }

    /// 9.3.4: distances from their own place to code, of which a kernel has many tables.
    fn distances(&mut self, section: &Section) {
        if section.kind != elf::PROGBITS || section.flags & (elf::ALLOC | elf::CODE) != elf::ALLOC {
            return;
        }
        let Some((start, end)) = section.range(self.file) else { return };
        let address = self.address(start);
        let first = start + address.next_multiple_of(4).wrapping_sub(address) as usize;
        for at in (first..end.saturating_sub(3)).step_by(4) {
            let distance = u32_at(self.file, at).unwrap_or(0) as i32;
            if self.is_code(self.address(at).wrapping_add_signed(i64::from(distance))) {
                self.push(at, Kind::Here, 0);
            }
        }
    }

    /// 9.3.4: the list of addresses behind a kernel, which are moved when it starts.
    fn trailer(&mut self, sections: usize) {
        let Some(start) = elf::table(self.file).map(|start| start + 64 * sections) else { return };
        for at in (start..self.file.len().saturating_sub(3)).step_by(4) {
            if self.is_absolute(u32_at(self.file, at).unwrap_or(0)) {
                self.push(at, Kind::Absolute, 0);
            }
        }
    }

    /// 9.3.3: section headers.
    fn headers(&mut self, sections: &[Section]) {
        let Some(start) = elf::table(self.file) else { return };
        for (i, section) in sections.iter().enumerate() {
            let at = start + 64 * i;
            if section.kind == 0 {
                continue;
            }
            if section.flags & elf::ALLOC != 0 && section.address != 0 {
                self.push(at + 16, Kind::Word, 0);
            }
            self.push(at + 24, Kind::Place, 0);
            if section.kind != elf::NOBITS && section.len != 0 {
                self.push(at + 32, Kind::PlaceLength, 0);
            }
        }
    }
}
