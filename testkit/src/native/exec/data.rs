//! Section 9.3.

use std::ops::Range;

use super::{Layout, Reference, number, signed, width};

/// A section header of section 9.2.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub kind: u64,
    pub flags: u64,
    pub address: u64,
    pub offset: u64,
    pub len: u64,
    pub link: u64,
    pub info: u64,
    pub entry: u64,
}

/// References while they are found.
pub(super) struct Found<'f> {
    pub file: &'f [u8],
    pub layout: &'f Layout,
    pub sections: Vec<Section>,
    pub code: Vec<Range<u64>>,
    pub references: Vec<Reference>,
}

impl<'f> Found<'f> {
    pub(super) fn new(file: &'f [u8], layout: &'f Layout) -> Self {
        let sections = sections(file).unwrap_or_default();
        Found { file, layout, sections, code: Vec::new(), references: Vec::new() }
    }

    pub(super) fn push(&mut self, r: Reference) {
        let fits = r.place + width(r.kind) <= self.file.len() as u64;
        if self.references.len() < self.file.len() / 8 && fits {
            self.references.push(r);
        }
    }

    fn add(&mut self, place: u64, kind: u64, base: u64) {
        self.push(Reference { place, kind, base, ..Reference::default() });
    }

    fn n(&self, at: u64, len: u64) -> u64 {
        number(self.file, at, len).unwrap_or(0)
    }

    fn loaded(&self, address: u64) -> bool {
        self.layout.loaded(address).is_some()
    }

    /// Kind 5, if loaded and in the file.
    fn pointer(&mut self, place: u64) -> bool {
        let is = number(self.file, place, 8).is_some_and(|v| self.loaded(self.layout.stands_for(v, 64)));
        if is {
            self.add(place, 5, 0);
        }
        is
    }

    /// Where the bytes of a section are; nowhere if they are not in the file.
    fn bytes(&self, s: &Section) -> Range<u64> {
        let end = s.offset.saturating_add(s.len);
        if s.kind == 8 || end > self.file.len() as u64 { 0..0 } else { s.offset..end }
    }

    fn entries(&self, s: &Section, size: u64) -> Vec<u64> {
        let bytes = self.bytes(s);
        (0..(bytes.end - bytes.start) / size).map(|i| bytes.start + i * size).collect()
    }

    pub(super) fn data(&mut self, machine: u64) {
        self.frame_table();
        let all = self.sections.clone();
        let words = self.layout.kind == 2 || all.iter().any(|s| s.kind == 19);
        for s in &all {
            match s.kind {
                4 => self.relocations(s, &all, machine),
                2 | 11 => self.symbols(s, &all),
                6 => {
                    for at in self.entries(s, 16) {
                        let tags = [
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
                        if tags.contains(&self.n(at, 8)) {
                            self.pointer(at + 8);
                        }
                    }
                }
                1 if s.flags & 3 == 3 && (words || s.entry == 8) => self.words(s),
                14..=16 => self.words(s),
                _ => {}
            }
        }
        self.headers(&all);
        if machine == super::KERNEL {
            self.kernel(&all);
        }
    }

    /// Section 9.3.5: `T` a type, `N` a name, a dot something else; a bar in front of what stands once for each entry.
    fn types(&mut self, s: &Section) {
        const SHAPES: [&str; 20] = [
            "", "N...|", "N.T|", "N..TT.|", "N..|NT.", "N..|NT.", "N..|N.", "N..|", "N.T|", "N.T|", "N.T|",
            "N.T|", "N.T|", "N.T|NT", "N.T.|", "N..|T..", "N..|", "N.T.|", "N.T|", "N..|N..",
        ];
        let bytes = self.bytes(s);
        let head = |at| number(&self.file[..bytes.end as usize], bytes.start + at, 4).unwrap_or(0);
        if head(0) != 0x1_eb9f || head(4) != 24 {
            return;
        }
        let mut at = bytes.start + 24 + head(8);
        let end = at + head(12);
        if bytes.end < bytes.start + 24 || end > bytes.end {
            return;
        }
        while at + 12 <= end {
            let info = self.n(at + 4, 4);
            let shape = SHAPES.get(info as usize >> 24 & 31).copied().unwrap_or("");
            let Some((once, entry)) = shape.split_once('|') else { return };
            let words = [once, &entry.repeat(info as usize % 65_536)].concat();
            if at + 4 * words.len() as u64 > end {
                return;
            }
            for word in words.bytes() {
                if word != b'.' && self.n(at, 4) != 0 {
                    self.add(at, if word == b'T' { 21 } else { 22 }, 0);
                }
                at += 4;
            }
        }
    }

    /// Sections 9.3.4 and 9.3.5.
    fn kernel(&mut self, all: &[Section]) {
        if self.layout.kernel {
            self.distances(all);
        }
        for s in all.iter().filter(|s| s.kind == 1) {
            self.types(s);
        }
    }

    /// Section 9.3.4.
    fn distances(&mut self, all: &[Section]) {
        for s in all.iter().filter(|s| s.kind == 1 && s.flags & 6 == 2) {
            let bytes = self.bytes(s);
            for at in bytes.clone().filter(|at| self.layout.address(*at).is_multiple_of(4)) {
                let to = self.layout.address(at).wrapping_add(signed(self.n(at, 4), 32));
                if at + 4 <= bytes.end && self.code.iter().any(|c| c.contains(&to)) {
                    self.add(at, 6, 0);
                }
            }
        }
        let Some(start) = number(self.file, 40, 8) else { return };
        let mut at = start.saturating_add(64 * all.len() as u64);
        while at + 4 <= self.file.len() as u64 {
            if self.loaded(self.layout.stands_for(self.n(at, 4), 32)) {
                self.add(at, 4, 0);
            }
            at += 4;
        }
    }

    /// Section 9.3.3.
    fn headers(&mut self, all: &[Section]) {
        let Some(start) = number(self.file, 40, 8) else { return };
        for (i, s) in all.iter().enumerate().filter(|(_, s)| s.kind != 0) {
            let at = start + 64 * i as u64;
            if s.flags & 2 != 0 && s.address != 0 {
                self.add(at + 16, 5, 0);
            }
            self.add(at + 24, 12, 0);
            if s.kind != 8 && s.len != 0 {
                self.add(at + 32, 13, 0);
            }
        }
    }

    fn words(&mut self, s: &Section) {
        let bytes = self.bytes(s);
        let aligned = |at: &u64| self.layout.address(*at).is_multiple_of(8);
        let first = (bytes.start..bytes.start + 8).find(aligned).unwrap_or(bytes.end);
        for at in (first..bytes.end).step_by(8) {
            if at + 8 <= bytes.end && self.n(at, 8) != 0 {
                self.pointer(at);
            }
        }
    }

    fn relocations(&mut self, s: &Section, all: &[Section], machine: u64) {
        let movable = self.layout.kind == 1;
        let symbols = all.get(s.link as usize).filter(|l| l.kind == 2 || l.kind == 11);
        for at in self.entries(s, 24) {
            let (offset, kind) = (self.n(at, 8), self.n(at + 8, 4));
            let (symbol, addend) = (self.n(at + 12, 4), self.n(at + 16, 8));
            if !movable {
                self.pointer(at);
            } else if let Some(patched) = all.get(s.info as usize) {
                self.add(at, 8, patched.offset);
            }
            if let Some(symbols) = symbols.filter(|_| symbol != 0) {
                self.add(at + 12, 14, self.layout.address(symbols.offset));
            }
            let relative = if machine == 183 { [1027, 1032] } else { [8, 37] };
            if !movable {
                if relative.contains(&kind) && self.pointer(at + 16) {
                    let place =
                        self.layout.place(self.layout.stands_for(offset, 64)).filter(|p| *p < 1 << 47);
                    if let Some(place) = place.filter(|p| number(self.file, *p, 8) == Some(addend)) {
                        self.add(place, 5, 0);
                    }
                }
                continue;
            }
            let Some(symbols) = symbols else { continue };
            let Some(&entry) = self.entries(symbols, 24).get(symbol as usize) else { continue };
            let number = self.n(entry + 6, 2);
            if self.n(entry + 4, 1) % 16 == 3
                && number != 0
                && let Some(to) = all.get(number as usize)
            {
                let behind = if machine != 183 && (kind == 2 || kind == 4) { 4 } else { 0 };
                self.add(at + 16, 8, to.offset.wrapping_add(behind));
            }
        }
    }

    fn symbols(&mut self, s: &Section, all: &[Section]) {
        for at in self.entries(s, 24) {
            if let Some(names) = all.get(s.link as usize).filter(|_| self.n(at, 4) != 0) {
                self.add(at, 7, self.layout.address(names.offset));
            }
            let number = self.n(at + 6, 2);
            if number == 0 || number >= 0xff00 {
                continue;
            }
            if self.layout.kind == 1 {
                if let Some(holder) = all.get(number as usize) {
                    self.add(at + 8, 8, holder.offset);
                }
            } else if self.pointer(at + 8) && self.n(at + 16, 8) != 0 {
                self.add(at + 16, 11, 0);
            }
        }
    }

    /// Section 9.3.1.
    fn frame_table(&mut self) {
        let Some(table) = self.layout.frames else { return };
        let Some(place) = self.layout.place(table) else { return };
        if number(self.file, place, 4) != Some(0x3b03_1b01) {
            return;
        }
        let (Some(frames), Some(count)) = (number(self.file, place + 4, 4), number(self.file, place + 8, 4))
        else {
            return;
        };
        self.add(place + 4, 6, 0);
        for i in 0..2 * count {
            if place + 12 + 4 * i >= self.file.len() as u64 {
                break;
            }
            self.add(place + 12 + 4 * i, 7, table);
        }
        let frames = table.wrapping_add(4).wrapping_add(signed(frames, 32));
        let section = self.sections.iter().find(|s| s.kind == 1 && s.address == frames).cloned();
        let Some(section) = section else { return };
        let bytes = self.bytes(&section);
        let mut known: Vec<(u64, u64, Option<u64>)> = Vec::new();
        let mut at = bytes.start;
        while at + 8 <= bytes.end {
            let (len, id) = (self.n(at, 4), self.n(at + 4, 4));
            let end = at + 4 + len;
            if len < 4 || end > bytes.end {
                return;
            }
            if id == 0 {
                if let Some((code, language)) = self.common(at, end) {
                    known.push((at, code, language));
                }
            } else if let Some(&(_, code, language)) =
                known.iter().find(|k| Some(k.0) == (at + 4).checked_sub(id))
            {
                self.add(at + 4, 9, 0);
                if code == 0x1b && end - at >= 16 {
                    self.add(at + 8, 6, 0);
                    self.add(at + 12, 10, 0);
                    let has = language == Some(0x1b) && end - at >= 21 && self.n(at + 16, 1) == 4;
                    if has && self.n(at + 17, 4) != 0 {
                        self.add(at + 17, 6, 0);
                    }
                }
            }
            at = end;
        }
    }

    /// The encodings of a common record.
    fn common(&mut self, at: u64, end: u64) -> Option<(u64, Option<u64>)> {
        let file = &self.file[..end as usize];
        let mut next = at + 8;
        let byte = |next: &mut u64| {
            *next += 1;
            file.get(*next as usize - 1).copied()
        };
        let version = byte(&mut next)?;
        let string = file.get(next as usize..)?;
        let string: Vec<u8> = string.iter().take(8).take_while(|b| **b != 0).copied().collect();
        next += string.len() as u64 + 1;
        let skip = |next: &mut u64| {
            while byte(next)? >= 128 {}
            Some(())
        };
        skip(&mut next)?;
        skip(&mut next)?;
        if version == 1 {
            next += 1;
        } else {
            skip(&mut next)?;
        }
        let (mut code, mut language) = (0, None);
        if string.first() != Some(&b'z') {
            return Some((code, language));
        }
        skip(&mut next)?;
        for letter in &string[1..] {
            let encoding = u64::from(byte(&mut next)?);
            match letter {
                b'R' => code = encoding,
                b'L' => language = Some(encoding),
                b'P' if encoding == 0x1b || encoding == 0x9b => {
                    if next + 4 <= end {
                        self.push(Reference { place: next, kind: 6, ..Reference::default() });
                    }
                    next += 4;
                }
                _ => return None,
            }
        }
        Some((code, language))
    }
}

fn sections(file: &[u8]) -> Option<Vec<Section>> {
    let (start, size, count) = (number(file, 40, 8)?, number(file, 58, 2)?, number(file, 60, 2)?);
    if size != 64 || count > 4096 {
        return None;
    }
    (0..count)
        .map(|i| {
            let at = start.checked_add(64 * i)?;
            number(file, at.checked_add(56)?, 8)?;
            let n = |offset, len| number(file, at + offset, len);
            Some(Section {
                kind: n(4, 4)?,
                flags: n(8, 8)?,
                address: n(16, 8)?,
                offset: n(24, 8)?,
                len: n(32, 8)?,
                link: n(40, 4)?,
                info: n(44, 4)?,
                entry: n(56, 8)?,
            })
        })
        .collect()
}
