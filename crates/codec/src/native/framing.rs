//! Tar headers predicted from others (`docs/formats/native-delta.md`, section 6.2).
//!
//! The *framing* of a member is its header block with the extended headers in front of it. What a new framing shares
//! with its reference costs nothing; time, name and length have forms of their own, anything else is patched.

use super::Error;
use super::numbers::{Fields, put, put_signed};

/// Bytes of a block.
const BLOCK: usize = 512;
/// Most blocks of one framing (section 6.2.2).
const MAX_BLOCKS: u64 = 1 << 13;
/// Times that are remembered (section 6.2.3).
const TIMES: usize = 48;

/// Fields of a header block (POSIX.1-1988, ustar).
const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const TIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Octal digits of size and time; the last byte of the field ends them.
const DIGITS: usize = 11;
/// Octal digits of the checksum; two bytes end it.
const CHECKSUM_DIGITS: usize = 6;

/// What differs from the reference, as bits (section 6.2.1).
const HAS_LENGTH: u64 = 1;
const HAS_TIME: u64 = 2;
const HAS_NAME: u64 = 4;
const HAS_PATCH: u64 = 8;
const HAS_CHECKSUM: u64 = 16;
/// The length of the content is stated, and content follows as items of its own.
pub(crate) const HAS_CONTENT: u64 = 32;
const ALL: u64 = 63;

/// What both sides remember from one header to the next within a block.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Latest framing; a zero block at the start.
    previous: Vec<u8>,
    times: Times,
}

/// Times, latest first.
#[derive(Debug, Default)]
struct Times(Vec<i64>);

impl Default for Memory {
    fn default() -> Self {
        Memory { previous: vec![0; BLOCK], times: Times::default() }
    }
}

impl Memory {
    /// The latest header block with another name: the reference of a file in a tree. The path gets the start that the
    /// name before it has (`./` or `/`); one that does not fit changes nothing.
    pub(crate) fn named(&self, path: &[u8]) -> Vec<u8> {
        let before = &self.previous[self.previous.len() - BLOCK..];
        let start: &[u8] = match before {
            [b'.', b'/', ..] => b"./",
            [b'/', ..] => b"/",
            _ => b"",
        };
        let mut made = before.to_vec();
        if start.len() + path.len() <= NAME.len() {
            set_name(&mut made, &[start, path].concat());
            set_checksum(&mut made, before);
        }
        made
    }

    /// Writes `framing` as what differs from `reference`, by default the framing before it. `content` is the length of
    /// the content, `explicit` if items will state it.
    pub(crate) fn encode(
        &mut self,
        framing: &[u8],
        reference: Option<&[u8]>,
        content: u64,
        explicit: bool,
        headers: &mut Vec<u8>,
        names: &mut Vec<u8>,
    ) {
        let base = reference.unwrap_or(&self.previous);
        let mut made = base.to_vec();
        let mut flags = 0;
        let mut fields = Vec::new();
        if explicit {
            flags |= HAS_CONTENT;
            put(&mut fields, content);
        }
        if framing.len() != base.len() {
            flags |= HAS_LENGTH;
            put(&mut fields, (framing.len() / BLOCK) as u64);
            resize(&mut made, framing.len());
        }
        let start = framing.len() - BLOCK;
        let (main, wanted) = (&mut made[start..], &framing[start..]);
        set_size(main, content);
        if let (Some(time), true) = (number(&wanted[TIME]), main[TIME] != wanted[TIME])
            && time < 1 << (3 * DIGITS)
        {
            flags |= HAS_TIME;
            self.times.put(time as i64, &mut fields);
            set_number(&mut main[TIME], time);
        }
        let name = text(&wanted[NAME]);
        if name != text(&main[NAME]) {
            flags |= HAS_NAME;
            let before = text(&self.previous[self.previous.len() - BLOCK..][NAME]);
            let shared = before.iter().zip(name).take_while(|(a, b)| a == b).count();
            put(&mut fields, shared as u64);
            names.extend_from_slice(&name[shared..]);
            names.push(0);
            set_name(main, name);
        }
        let runs = runs(&made, framing);
        if !runs.is_empty() {
            flags |= HAS_PATCH;
            put(&mut fields, runs.len() as u64 - 1);
            let mut at = 0;
            for run in runs {
                put(&mut fields, (run.start - at) as u64);
                put(&mut fields, run.len() as u64 - 1);
                names.extend_from_slice(&framing[run.clone()]);
                made[run.clone()].copy_from_slice(&framing[run.clone()]);
                at = run.end;
            }
        }
        set_checksum(&mut made, base);
        if made != framing {
            flags |= HAS_CHECKSUM;
            names.extend_from_slice(&framing[start..][CHECKSUM]);
        }
        put(headers, flags);
        headers.extend_from_slice(&fields);
        self.previous = framing.to_vec();
    }

    /// Reads a framing and, where it is stated, the length of the content. `reference` comes with the length of its
    /// own content, which counts where nothing is stated.
    pub(crate) fn decode(
        &mut self,
        reference: Option<(&[u8], u64)>,
        headers: &mut Fields<'_>,
        names: &mut Fields<'_>,
    ) -> Result<(&[u8], Option<u64>), Error> {
        let flags = headers.at_most(ALL, "flags of a header")?;
        let explicit = if flags & HAS_CONTENT != 0 { Some(headers.number()?) } else { None };
        let content = explicit.or(reference.map(|r| r.1)).unwrap_or(0);
        let base = reference.map_or(&self.previous[..], |r| r.0);
        let mut made = base.to_vec();
        if flags & HAS_LENGTH != 0 {
            match headers.at_most(MAX_BLOCKS, "blocks of a header")? {
                0 => return Err(Error::Contradiction("a header of no blocks")),
                blocks => resize(&mut made, blocks as usize * BLOCK),
            }
        }
        let start = made.len() - BLOCK;
        let main = &mut made[start..];
        set_size(main, content);
        if flags & HAS_TIME != 0 {
            let time = self.times.read(headers)?;
            set_number(&mut main[TIME], time as u64);
        }
        if flags & HAS_NAME != 0 {
            let before = text(&self.previous[self.previous.len() - BLOCK..][NAME]);
            let shared = headers.at_most(before.len() as u64, "shared start of a name")?;
            let mut name = before[..shared as usize].to_vec();
            loop {
                match names.byte()? {
                    0 => break,
                    byte if name.len() < NAME.len() => name.push(byte),
                    _ => return Err(Error::Contradiction("a name is too long")),
                }
            }
            set_name(main, &name);
        }
        if flags & HAS_PATCH != 0 {
            let runs = headers.at_most(made.len() as u64, "patches of a header")? + 1;
            let mut at = 0;
            for _ in 0..runs {
                at += headers.at_most((made.len() - at) as u64, "place of a patch")? as usize;
                let len = headers.at_most((made.len() - at) as u64, "length of a patch")? as usize + 1;
                if len > made.len() - at {
                    return Err(Error::Contradiction("a patch beyond the end of a header"));
                }
                made[at..at + len].copy_from_slice(names.bytes(len)?);
                at += len;
            }
        }
        set_checksum(&mut made, base);
        if flags & HAS_CHECKSUM != 0 {
            made[start..][CHECKSUM].copy_from_slice(names.bytes(CHECKSUM.len())?);
        }
        self.previous = made;
        Ok((&self.previous, explicit))
    }
}

impl Times {
    fn put(&mut self, time: i64, fields: &mut Vec<u8>) {
        match self.0.iter().position(|&t| t == time) {
            Some(i) => {
                put(fields, i as u64 + 1);
                self.0.remove(i);
            }
            None => {
                put(fields, 0);
                put_signed(fields, time - self.0.first().copied().unwrap_or(0));
            }
        }
        self.remember(time);
    }

    fn read(&mut self, headers: &mut Fields<'_>) -> Result<i64, Error> {
        let place = headers.at_most(self.0.len() as u64, "place of a time")? as usize;
        let time = match place.checked_sub(1) {
            Some(i) => self.0.remove(i),
            None => {
                let time = self.0.first().copied().unwrap_or(0).checked_add(headers.signed()?);
                let time = time.filter(|t| (0..1 << (3 * DIGITS)).contains(t));
                time.ok_or(Error::Contradiction("a time that no header holds"))?
            }
        };
        self.remember(time);
        Ok(time)
    }

    fn remember(&mut self, time: i64) {
        self.0.insert(0, time);
        self.0.truncate(TIMES);
    }
}

/// Adds zeros in front, or takes bytes from there: the header block stays last.
fn resize(framing: &mut Vec<u8>, len: usize) {
    let have = framing.len();
    if len < have {
        framing.drain(..have - len);
    } else {
        framing.splice(..0, std::iter::repeat_n(0, len - have));
    }
}

/// States the length of the content, unless it is stated already, in whatever form.
fn set_size(main: &mut [u8], content: u64) {
    if number(&main[SIZE]) != Some(content) && content < 1 << (3 * DIGITS) {
        set_number(&mut main[SIZE], content);
    }
}

/// Eleven octal digits; the byte behind them stays.
fn set_number(field: &mut [u8], value: u64) {
    for (i, digit) in field[..DIGITS].iter_mut().rev().enumerate() {
        *digit = b'0' + (value >> (3 * i) & 7) as u8;
    }
}

/// The value of eleven octal digits.
fn number(field: &[u8]) -> Option<u64> {
    let digit = |value, &b: &u8| matches!(b, b'0'..=b'7').then(|| value << 3 | u64::from(b - b'0'));
    field[..DIGITS].iter().try_fold(0, digit)
}

fn set_name(main: &mut [u8], name: &[u8]) {
    main[NAME].fill(0);
    main[..name.len()].copy_from_slice(name);
}

/// Bytes up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// Six octal digits, the two bytes behind them stay; nothing if the header block is that of `base`.
fn set_checksum(framing: &mut [u8], base: &[u8]) {
    let start = framing.len() - BLOCK;
    if framing[start..] == base[base.len() - BLOCK..] {
        return;
    }
    let main = &mut framing[start..];
    let mut sum: u64 = main.iter().map(|&b| u64::from(b)).sum();
    sum -= main[CHECKSUM].iter().map(|&b| u64::from(b)).sum::<u64>();
    sum += CHECKSUM.len() as u64 * u64::from(b' ');
    for (i, digit) in main[CHECKSUM][..CHECKSUM_DIGITS].iter_mut().rev().enumerate() {
        *digit = b'0' + (sum >> (3 * i) & 7) as u8;
    }
}

/// Where two framings of one length differ, the checksum left out; runs that are close are one.
fn runs(made: &[u8], wanted: &[u8]) -> Vec<std::ops::Range<usize>> {
    const CLOSE: usize = 3;
    let start = wanted.len() - BLOCK;
    let checksum = start + CHECKSUM.start..start + CHECKSUM.end;
    let mut out: Vec<std::ops::Range<usize>> = Vec::new();
    for i in (0..wanted.len()).filter(|&i| made[i] != wanted[i] && !checksum.contains(&i)) {
        match out.last_mut() {
            Some(run) if i - run.end <= CLOSE && !(run.end..i).any(|j| checksum.contains(&j)) => {
                run.end = i + 1
            }
            _ => out.push(i..i + 1),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(name: &str, size: u64, time: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        set_number(&mut block[SIZE], size);
        set_number(&mut block[TIME], time);
        block[155] = b' ';
        set_checksum(&mut block, &[0; BLOCK]);
        block
    }

    /// Framing, reference, length of the content.
    type Case = (Vec<u8>, Option<Vec<u8>>, u64);

    /// Encodes and decodes; returns how many bytes it took.
    fn round_trip(list: &[Case]) -> usize {
        let (mut headers, mut names) = (Vec::new(), Vec::new());
        let mut memory = Memory::default();
        for (framing, reference, content) in list {
            memory.encode(framing, reference.as_deref(), *content, true, &mut headers, &mut names);
        }
        let mut memory = Memory::default();
        let (mut h, mut n) = (Fields::new(&headers, "headers"), Fields::new(&names, "names"));
        for (framing, reference, content) in list {
            let reference = reference.as_deref().map(|r| (r, 7));
            let (made, stated) = memory.decode(reference, &mut h, &mut n).unwrap();
            assert!(made == framing);
            assert_eq!(stated, Some(*content));
        }
        assert!(h.end().is_ok() && n.end().is_ok());
        headers.len() + names.len()
    }

    #[test]
    fn new_times_and_sizes_cost_little() {
        let old = header("usr/bin/busybox", 700_000, 1_700_000_000);
        let new = header("usr/bin/busybox", 700_100, 1_710_000_000);
        assert!(round_trip(&[(new.clone(), Some(old.clone()), 700_100)]) < 12);
        let next = header("usr/bin/busybox2", 700_100, 1_710_000_000);
        assert!(round_trip(&[(new.clone(), Some(old), 700_100), (next, Some(new), 700_100)]) < 20);
    }

    #[test]
    fn long_names_keep_their_blocks() {
        let long = [header("././@LongLink", 120, 0), vec![b'x'; 512], header("xxxx", 5, 77)].concat();
        let short = header("short", 6, 78);
        round_trip(&[
            (long.clone(), None, 5),
            (short.clone(), None, 6),
            (long.clone(), Some(short.clone()), 5),
            (short, Some(long), 6),
        ]);
    }

    proptest! {
        #[test]
        fn any_blocks_come_back(
            mut bytes in proptest::collection::vec(any::<u8>(), BLOCK * 2),
            reference in proptest::collection::vec(any::<u8>(), BLOCK),
            content in any::<u32>(),
        ) {
            let content = u64::from(content);
            round_trip(&[(bytes.clone(), Some(reference.clone()), content), (reference, None, 1)]);
            set_number(&mut bytes[BLOCK..][TIME], 5);
            round_trip(&[(bytes, None, content)]);
        }

        #[test]
        fn damaged_streams_give_errors_not_panics(
            headers in proptest::collection::vec(any::<u8>(), 0..60),
            names in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut memory = Memory::default();
            let (mut h, mut n) = (Fields::new(&headers, "headers"), Fields::new(&names, "names"));
            while memory.decode(None, &mut h, &mut n).is_ok() {}
        }
    }
}
