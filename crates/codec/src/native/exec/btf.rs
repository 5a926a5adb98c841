//! References among the types of a kernel and its modules: the *BPF Type Format* (`docs/formats/native-delta.md`, section
//! 9.3.5; Documentation/bpf/btf.rst of Linux). Types are told by their numbers and names by their places, both of which
//! move when there is one more in front.

use super::Found;
use super::elf::{PROGBITS, Section, btf, u32_at};
use super::field::Kind;

/// What stands behind the first two words of a type, and in each of its entries.
#[derive(Debug, Clone, Copy)]
enum Word {
    Type,
    Name,
    Other,
}

use Word::{Name, Other, Type};

/// The third word of a type by its kind, words behind that, and words of an entry; `None` for a kind that is not known.
fn shape(kind: u32) -> Option<(Word, &'static [Word], &'static [Word])> {
    Some(match kind {
        1 => (Other, &[Other], &[]),
        2 | 8..=12 | 18 => (Type, &[], &[]),
        3 => (Other, &[Type, Type, Other], &[]),
        4 | 5 => (Other, &[], &[Name, Type, Other]),
        6 => (Other, &[], &[Name, Other]),
        7 | 16 => (Other, &[], &[]),
        13 => (Type, &[], &[Name, Type]),
        14 | 17 => (Type, &[Other], &[]),
        15 => (Other, &[], &[Type, Other, Other]),
        19 => (Other, &[], &[Name, Other, Other]),
        _ => return None,
    })
}

impl Found<'_> {
    /// 9.3.5: the types of a section.
    pub(super) fn types(&mut self, section: &Section) {
        if section.kind != PROGBITS {
            return;
        }
        let (Some((start, _)), Some(types)) = (section.range(self.file), btf(section.bytes(self.file)))
        else {
            return;
        };
        let (mut at, end) = (start + types.start, start + types.end);
        while at + 12 <= end {
            let info = u32_at(self.file, at + 4).unwrap_or(0);
            let Some((third, behind, entry)) = shape(info >> 24 & 31) else { return };
            let entries = (info & 0xffff) as usize;
            let len = 12 + 4 * (behind.len() + entries * entry.len());
            if len > end - at {
                return;
            }
            let words = [Name, Other, third].into_iter().chain(behind.iter().copied());
            let entries = entry.iter().copied().cycle().take(entries * entry.len());
            for (i, word) in words.chain(entries).enumerate() {
                let place = at + 4 * i;
                let kind = match word {
                    Type => Kind::Type,
                    Name => Kind::Name,
                    Other => continue,
                };
                if u32_at(self.file, place) != Some(0) {
                    self.push(place, kind, 0);
                }
            }
            at += len;
        }
    }
}
