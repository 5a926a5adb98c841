//! What is read of an ELF file (`docs/formats/native-delta.md`, section 9.2): segments and sections, within bounds.

use super::Machine;

/// Most program headers and section headers that are read; a file with more has none.
const MAX_SEGMENTS: usize = 32;
const MAX_SECTIONS: usize = 4096;
/// Addresses are below this.
pub(crate) const MAX_ADDRESS: u64 = 1 << 47;
/// Bytes that are no part of any segment have their place in the file as address, from here on.
pub(crate) const UNLOADED: u64 = 1 << 47;
/// Program headers count only if they lie in so many bytes at the start of a file.
pub(crate) const HEAD: usize = 1024;

/// `e_type` of relocatable files.
pub(crate) const REL: u16 = 1;
/// `e_type` of programs with fixed addresses.
pub(crate) const EXEC: u16 = 2;
/// Magic and version of a section with types, and bytes of its header.
const BTF: u32 = 0x0001_eb9f;
const BTF_HEADER: u32 = 24;
/// Addresses from here on are those of a kernel (section 9.2.1); they count from here.
const HIGH: u64 = !(MAX_ADDRESS - 1);

/// Type of a program header: loaded.
const PT_LOAD: u32 = 1;
/// Type of a program header: table of exception frames.
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
/// Flag of a program header: executable.
const PF_X: u32 = 1;

/// A range of the file and where it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub address: u64,
    /// Bytes in the file.
    pub len: u64,
    /// Bytes in memory, at least `len`.
    pub memory: u64,
    pub executable: bool,
}

/// A section header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    pub kind: u32,
    pub flags: u64,
    pub address: u64,
    pub offset: u64,
    pub len: u64,
    pub link: u32,
    pub info: u32,
    /// Bytes of an entry, if it is a table.
    pub entry: u64,
}

/// Type of a section: bytes of the program.
pub(crate) const PROGBITS: u32 = 1;
/// Type of a section: symbols.
pub(crate) const SYMTAB: u32 = 2;
/// Type of a section: relocations with addends.
pub(crate) const RELA: u32 = 4;
/// Type of a section: the dynamic section.
pub(crate) const DYNAMIC: u32 = 6;
/// Type of a section: nothing in the file.
pub(crate) const NOBITS: u32 = 8;
/// Type of a section: symbols for loading.
pub(crate) const DYNSYM: u32 = 11;
/// Types of sections: arrays of functions to call at start and end.
pub(crate) const ARRAYS: std::ops::RangeInclusive<u32> = 14..=16;
/// Type of a section: packed relative relocations.
pub(crate) const RELR: u32 = 19;
/// Flag of a section: writable.
pub(crate) const WRITE: u64 = 1;
/// Flag of a section: loaded.
pub(crate) const ALLOC: u64 = 2;
/// Flag of a section: executable.
pub(crate) const CODE: u64 = 4;

/// The layout of a file: what is loaded where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub kind: u16,
    pub segments: Vec<Segment>,
    /// Where the table of exception frames is loaded.
    pub frames: Option<u64>,
    /// Addresses count from 2^64 - 2^47, as a kernel's do.
    pub high: bool,
}

/// Little-endian numbers of `bytes`, `None` beyond their end.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// Whether `bytes` are an ELF file of 64 bits, little endian, for a machine.
pub(crate) fn is(bytes: &[u8], machine: Machine) -> bool {
    let number = match machine {
        Machine::X86_64 | Machine::X86_64Kernel => 62,
        Machine::Aarch64 => 183,
    };
    let elf = bytes.starts_with(b"\x7fELF\x02\x01") && u16_at(bytes, 18) == Some(number);
    let kernel = || u16_at(bytes, 16) == Some(REL) || is_high(bytes).unwrap_or(false);
    elf && (machine != Machine::X86_64Kernel || kernel())
}

/// Whether a file is a program of transform 4 rather than one of transform 2: Linux itself, or a module with types.
pub(crate) fn is_kernel(file: &[u8]) -> bool {
    let types = || sections(file).iter().any(|s| s.kind == PROGBITS && btf(s.bytes(file)).is_some());
    is(file, Machine::X86_64Kernel) && (u16_at(file, 16) != Some(REL) || types())
}

/// Section 9.3.5: where the types lie in the bytes of a section, if it holds types.
pub(crate) fn btf(section: &[u8]) -> Option<std::ops::Range<usize>> {
    if u32_at(section, 0)? != BTF || u32_at(section, 4)? != BTF_HEADER {
        return None;
    }
    let (start, len) = (u32_at(section, 8)? as usize, u32_at(section, 12)? as usize);
    let start = BTF_HEADER as usize + start;
    (start + len <= section.len()).then_some(start..start + len)
}

/// Section 9.2.1: whether a file is loaded at fixed addresses, some of them a kernel's.
fn is_high(bytes: &[u8]) -> Option<bool> {
    let head = &bytes[..bytes.len().min(HEAD)];
    if u16_at(head, 16)? != EXEC {
        return Some(false);
    }
    let loaded = |at: usize| Some(u32_at(head, at)? == PT_LOAD && u64_at(head, at + 16)? >= HIGH);
    Some(program_headers(head)?.any(|at| loaded(at) == Some(true)))
}

/// Where the program headers lie; `None` if they are not as expected.
fn program_headers(head: &[u8]) -> Option<impl Iterator<Item = usize>> {
    let (start, size, count) = (u64_at(head, 32)?, u16_at(head, 54)?, usize::from(u16_at(head, 56)?));
    let start = usize::try_from(start).ok().filter(|&s| s <= HEAD || count == 0)?;
    (size == 56 && count <= MAX_SEGMENTS).then(|| (0..count).map(move |i| start + i * 56))
}

impl Layout {
    /// Reads the header and the program headers, which must lie in the first [`HEAD`] bytes; `len` is the length of the
    /// whole file. A file that is not as expected has no segments.
    pub(crate) fn read(head: &[u8], len: u64, machine: Machine) -> Self {
        let head = &head[..head.len().min(HEAD)];
        if is(head, machine) {
            Self::try_read(head, len, machine == Machine::X86_64Kernel).unwrap_or_default()
        } else {
            Layout::default()
        }
    }

    fn try_read(head: &[u8], len: u64, high: bool) -> Option<Self> {
        let kind = u16_at(head, 16)?;
        if kind == REL {
            // Nothing is loaded anywhere yet: places in the file stand for addresses.
            let all = Segment { offset: 0, address: 0, len, memory: len, executable: true };
            return (len < MAX_ADDRESS).then(|| Layout { kind, segments: vec![all], ..Layout::default() });
        }
        let mut segments: Vec<Segment> = Vec::new();
        let mut frames = None;
        for at in program_headers(head)? {
            let field = |n: usize| u64_at(head, at + n);
            let mut segment = Segment {
                offset: field(8)?,
                address: field(16)?,
                len: field(32)?,
                memory: field(40)?,
                executable: u32_at(head, at + 4)? & PF_X != 0,
            };
            match u32_at(head, at)? {
                // What lies at other addresses is moved when the kernel starts.
                PT_LOAD if high && segment.address < HIGH => continue,
                PT_LOAD if high => segment.address -= HIGH,
                PT_LOAD => {}
                PT_GNU_EH_FRAME if high => continue,
                PT_GNU_EH_FRAME => {
                    frames = Some(segment.address);
                    continue;
                }
                _ => continue,
            }
            let fits = |start: u64, len: u64| start.checked_add(len).is_some_and(|end| end < MAX_ADDRESS);
            let after = segments.last().is_none_or(|before| {
                segment.offset >= before.offset + before.len
                    && segment.address >= before.address + before.memory
            });
            if !fits(segment.offset, segment.len)
                || !fits(segment.address, segment.memory)
                || segment.memory < segment.len
                || !after
            {
                return None;
            }
            segments.push(segment);
        }
        Some(Layout { kind, segments, frames, high })
    }

    /// The address that a field stands for which holds one, of so many bits.
    pub(crate) fn address_in(&self, value: u64, bits: u32) -> u64 {
        let wide = if bits == 32 { value as u32 as i32 as u64 } else { value };
        if self.high && wide >= HIGH { wide - HIGH } else { value }
    }

    /// What a field of 64 bits holds for an address.
    pub(crate) fn word_for(&self, address: u64) -> u64 {
        if self.high && address < MAX_ADDRESS { address + HIGH } else { address }
    }

    /// The address of a place in the file.
    pub(crate) fn address(&self, place: u64) -> u64 {
        let holds = |s: &&Segment| place >= s.offset && place - s.offset < s.len;
        self.segments
            .iter()
            .find(holds)
            .map_or(UNLOADED.wrapping_add(place), |s| place - s.offset + s.address)
    }

    /// The place in the file of an address; `None` if it is not in the file.
    pub(crate) fn place(&self, address: u64) -> Option<u64> {
        if address >= UNLOADED {
            return Some(address - UNLOADED);
        }
        let holds = |s: &&Segment| address >= s.address && address - s.address < s.len;
        self.segments.iter().find(holds).map(|s| address - s.address + s.offset)
    }

    /// The segment that has an address.
    pub(crate) fn segment(&self, address: u64) -> Option<&Segment> {
        self.segments.iter().find(|s| address >= s.address && address - s.address < s.memory)
    }

    /// Where the range of constant distance between place and address ends that holds `place`.
    pub(crate) fn stretch_end(&self, place: u64) -> u64 {
        for s in &self.segments {
            if place < s.offset {
                return s.offset;
            }
            if place - s.offset < s.len {
                return s.offset + s.len;
            }
        }
        u64::MAX
    }
}

/// The section headers of a file: those that lie in it, or none at all.
pub(crate) fn sections(file: &[u8]) -> Vec<Section> {
    try_sections(file).unwrap_or_default()
}

fn try_sections(file: &[u8]) -> Option<Vec<Section>> {
    let (start, size, count) = (table(file)?, u16_at(file, 58)?, usize::from(u16_at(file, 60)?));
    if size != 64 || count > MAX_SECTIONS {
        return None;
    }
    let mut out = Vec::with_capacity(count);
    for i in 0..count {
        let header = file.get(start.checked_add(i * 64)?..)?.get(..64)?;
        let section = Section {
            kind: u32_at(header, 4)?,
            flags: u64_at(header, 8)?,
            address: u64_at(header, 16)?,
            offset: u64_at(header, 24)?,
            len: u64_at(header, 32)?,
            link: u32_at(header, 40)?,
            info: u32_at(header, 44)?,
            entry: u64_at(header, 56)?,
        };
        out.push(section);
    }
    Some(out)
}

/// Where the section headers start.
pub(crate) fn table(file: &[u8]) -> Option<usize> {
    usize::try_from(u64_at(file, 40)?).ok()
}

impl Section {
    /// Where its bytes start and end, if it has any and they lie in the file.
    pub(crate) fn range(&self, file: &[u8]) -> Option<(usize, usize)> {
        let start = usize::try_from(self.offset).ok()?;
        let end = start.checked_add(usize::try_from(self.len).ok()?)?;
        (self.kind != NOBITS && end <= file.len() && start < end).then_some((start, end))
    }

    /// Its bytes; empty if they do not lie in the file.
    pub(crate) fn bytes<'f>(&self, file: &'f [u8]) -> &'f [u8] {
        self.range(file).map_or(&[], |(start, end)| &file[start..end])
    }
}
