//! A second decoder of native deltas, written from `docs/formats/native-delta.md` alone: simple rather than fast, and
//! without a line in common with the codec. What both make of the golden vectors must be the same.
//!
//! It trusts that lengths are small: it is for vectors, not for the world.

mod arithmetic;
mod deflate;
mod exec;
mod mixing;
mod packed;
mod tar;
mod tokens;

use std::collections::BTreeMap;
use std::io::Read;

use aws_lc_rs::digest::{SHA256, digest};

/// What a delta is applied to.
#[derive(Debug, Clone, Copy)]
pub enum Sources<'a> {
    /// Old archives, in order of extraction.
    Archives(&'a [Vec<u8>]),
    /// Files of a tree by path.
    Tree(&'a BTreeMap<Vec<u8>, Vec<u8>>),
}

/// What an encoder of deflate streams, by its number (section 8.2), makes of `content`.
///
/// # Errors
/// There is no such encoder.
pub fn deflate_stream(content: &[u8], encoder: u64) -> Result<Vec<u8>, String> {
    deflate::encode(content, encoder)
}

/// The deflate stream that a code of tokens makes of `content`, by an encoder of family 5 (section 8.8).
///
/// # Errors
/// There is no such encoder, or the code makes no stream.
pub fn token_stream(content: &[u8], encoder: u64, code: &[u8], most: usize) -> Result<Vec<u8>, String> {
    tokens::Tokens::new(code).stream(content, encoder, most)
}

/// What an encoder makes of `content`, told as in a plan: its number and the fields of its family (section 8.2).
///
/// # Errors
/// There is no such encoder, or it cannot be used.
pub fn packed_stream(content: &[u8], encoder: &[u8]) -> Result<Vec<u8>, String> {
    packed::Encoder::read(&mut Bytes(encoder))?.encode(content, usize::MAX, &mut None)
}

/// What `len` bytes a stream of method 3 decodes to (section 7.4).
pub fn mixed(encoded: &[u8], len: usize) -> Vec<u8> {
    mixing::decode(encoded, len)
}

/// Stands for 62 where it is a kernel (section 9.2.1).
pub const KERNEL: u32 = 1 << 16 | 62;

/// The references of an old program (section 9.2): place, kind and target, for machine 62 or 183, or [`KERNEL`].
pub fn references(file: &[u8], machine: u32) -> Vec<(u64, u8, u64)> {
    exec::Program::read(file.to_vec(), machine.into()).list()
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8], String> {
        let n = usize::try_from(n).map_err(|e| e.to_string())?;
        let (taken, rest) = self.0.split_at_checked(n).ok_or("bytes end too early")?;
        self.0 = rest;
        Ok(taken)
    }

    /// Section 3.
    fn number(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for i in 0..9 {
            let byte = self.take(1)?[0];
            value += u64::from(byte % 128) << (7 * i);
            if byte < 128 {
                return Ok(value);
            }
        }
        Err("number of more than 63 bits".into())
    }

    /// Section 3.
    fn signed(&mut self) -> Result<i128, String> {
        let v = i128::from(self.number()?);
        Ok(if v % 2 == 0 { v / 2 } else { -(v + 1) / 2 })
    }

    fn end(&self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes left over", self.0.len())) }
    }
}

/// An old member: framing and content.
struct Member {
    path: Vec<u8>,
    framing: Vec<u8>,
    content: Vec<u8>,
}

/// Applies `delta`.
///
/// # Errors
/// The first fault, in words.
pub fn apply(delta: &[u8], sources: Sources<'_>) -> Result<Vec<u8>, String> {
    let mut file = Bytes(delta);
    if file.take(8)? != b"coracle\x01" {
        return Err("another magic or version".into());
    }
    let len = u32::from_le_bytes(file.take(4)?.try_into().map_err(|_| "length")?);
    let head_bytes = file.take(len.into())?;
    if sha256(head_bytes)[..8] != *file.take(8)? {
        return Err("the head is damaged".into());
    }
    // Section 4.2.
    let mut head = Bytes(head_bytes);
    let features = head.number()?;
    if features & !2 != 0 {
        return Err("unknown features".into());
    }
    let mut encoders = Vec::new();
    if features == 2 {
        for _ in 0..head.number()? {
            let len = head.number()?;
            encoders.push(head.take(len)?);
        }
    }
    // Section 8.7: these are the libraries that this program is built with.
    if encoders.iter().any(|e| {
        !matches!(
            *e,
            b"liblzma-5.8.4"
                | b"zlib-filtered"
                | b"zstd-1.5.7"
                | TOKENS
                | CHUNKS
                | LZ4
                | X86_64
                | AARCH64
                | X86_64_KERNEL
        )
    }) {
        return Err("an encoder is missing".into());
    }
    let size = head.number()?;
    let wanted = head.take(32)?;
    let _memory = head.number()?;
    let (is_tree, members) = match head.number()? {
        0 => (false, archives(&mut head, sources)?),
        1 => (true, tree(&mut head, sources)?),
        other => return Err(format!("source of kind {other}")),
    };
    let mut blocks = Vec::new();
    for _ in 0..head.number()? {
        blocks.push((head.number()?, head.number()?, head.take(8)?));
    }
    head.end()?;
    let mut out = Vec::new();
    for (number, (output, encoded, check)) in blocks.into_iter().enumerate() {
        let bytes = file.take(encoded)?;
        if sha256(bytes)[..8] != *check {
            return Err(format!("block {} is damaged", number + 1));
        }
        let end = out.len() as u64 + output;
        block(bytes, &members, is_tree, &encoders, end, &mut out)?;
    }
    // Section 4.5.
    while !file.0.is_empty() {
        file.take(4)?;
        let len = u64::from_le_bytes(file.take(8)?.try_into().map_err(|_| "length")?);
        file.take(len)?;
    }
    if out.len() as u64 != size || sha256(&out) != wanted {
        return Err("the result is another".into());
    }
    Ok(out)
}

/// Section 4.2.1.
fn archives(head: &mut Bytes<'_>, sources: Sources<'_>) -> Result<Vec<Member>, String> {
    let Sources::Archives(archives) = sources else { return Err("archives are needed".into()) };
    if head.number()? != archives.len() as u64 {
        return Err("another number of archives".into());
    }
    let mut members = Vec::new();
    for archive in archives {
        if head.number()? != archive.len() as u64 || head.take(32)? != sha256(archive) {
            return Err("an archive is another".into());
        }
        members.extend(tar::members(archive)?);
    }
    Ok(members)
}

/// Section 4.2.2.
fn tree(head: &mut Bytes<'_>, sources: Sources<'_>) -> Result<Vec<Member>, String> {
    let Sources::Tree(files) = sources else { return Err("a tree is needed".into()) };
    let (count, method, len) = (head.number()?, head.number()?, head.number()?);
    let encoded = head.number()?;
    let table = decode(method, head.take(encoded)?, len as usize)?;
    let mut table = Bytes(&table);
    let mut members: Vec<Member> = Vec::new();
    let mut digests = Vec::new();
    for _ in 0..count {
        let before = members.last().map_or(&[][..], |m| &m.path);
        let shared = table.number()? as usize;
        let own = table.number()?;
        let path = [before.get(..shared).ok_or("shared start")?, table.take(own)?].concat();
        let content = files.get(&path).ok_or("a file is missing")?.clone();
        if table.number()? != content.len() as u64 {
            return Err("a file has another length".into());
        }
        digests.push(sha256(&content));
        members.push(Member { path, framing: Vec::new(), content });
    }
    table.end()?;
    if head.take(32)? != sha256(&digests.concat()) {
        return Err("the files are others".into());
    }
    for group in digests.chunks(64) {
        if head.take(4)? != &sha256(&group.concat())[..4] {
            return Err("a group of files is another".into());
        }
    }
    Ok(members)
}

/// Section 7.
fn decode(method: u64, encoded: &[u8], len: usize) -> Result<Vec<u8>, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let out = match method {
        0 => encoded.to_vec(),
        1 => {
            let mut out = Vec::with_capacity(len + 1);
            zstd_safe::decompress(&mut out, encoded).map_err(|e| zstd_safe::get_error_name(e).to_owned())?;
            out
        }
        2 => {
            let dictionary = len.max(1).next_power_of_two().clamp(1 << 12, 1 << 24);
            let reader = lzma_rust2::LzmaReader::new(encoded, len as u64, 3, 0, 0, dictionary as u32, None);
            let mut out = Vec::new();
            reader.map_err(|e| text(&e))?.read_to_end(&mut out).map_err(|e| text(&e))?;
            out
        }
        3 => mixing::decode(encoded, len),
        other => return Err(format!("method {other}")),
    };
    if out.len() == len { Ok(out) } else { Err("a stream has another length".into()) }
}

/// Names of section 9.1.
const TOKENS: &[u8] = b"deflate-tokens-1";
const CHUNKS: &[u8] = b"png-chunks-1";
const LZ4: &[u8] = b"liblz4-1.10.0";
const X86_64: &[u8] = b"exec-x86_64-1";
const X86_64_KERNEL: &[u8] = b"exec-x86_64-kernel-1";
const AARCH64: &[u8] = b"exec-aarch64-1";

/// Streams by number, section 5.2.
const PLAN: usize = 0;
const HEADERS: usize = 1;
const NAMES: usize = 2;
const LITERAL_LENGTHS: usize = 3;
const COPY_LENGTHS: usize = 4;
const ADDRESSES: usize = 5;
const GAPS: usize = 6;
const CORRECTIONS: usize = 7;
const LITERALS: usize = 8;
const REFERENCES: usize = 11;
const TOKEN_CODES: usize = 12;

/// Sections 5 and 6.
fn block(
    bytes: &[u8],
    members: &[Member],
    is_tree: bool,
    encoders: &[&[u8]],
    end: u64,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let mut table = Bytes(bytes);
    let mut rows = Vec::new();
    for _ in 0..table.number()? {
        rows.push([table.number()?, table.number()?, table.number()?, table.number()?]);
    }
    let mut decoded: [Vec<u8>; 13] = Default::default();
    for [id, method, len, encoded] in rows {
        let stream = decoded.get_mut(id as usize).ok_or("unknown stream")?;
        *stream = decode(method, table.take(encoded)?, len as usize)?;
    }
    table.end()?;
    let streams = decoded.each_ref().map(|s| Bytes(s));
    let framing = vec![0; 512];
    let times = Vec::new();
    let mut maker =
        Maker { members, is_tree, encoders, s: streams, next_member: 0, next_file: 0, framing, times };
    while (out.len() as u64) < end {
        match maker.s[PLAN].number()? {
            0 => maker.header(out)?,
            1 => out.extend_from_slice(&members[maker.file()?].content),
            2 => maker.part(out)?,
            3 => {
                let zeros = maker.s[PLAN].number()? as usize;
                out.resize(out.len() + zeros, 0);
            }
            other => return Err(format!("item {other}")),
        }
    }
    if out.len() as u64 != end {
        return Err("a block makes too much".into());
    }
    maker.s.iter().try_for_each(Bytes::end)
}

struct Maker<'a> {
    members: &'a [Member],
    is_tree: bool,
    encoders: &'a [&'a [u8]],
    s: [Bytes<'a>; 13],
    next_member: i128,
    next_file: i128,
    framing: Vec<u8>,
    times: Vec<i128>,
}

impl Maker<'_> {
    fn member(&self, number: i128) -> Result<usize, String> {
        usize::try_from(number)
            .ok()
            .filter(|&n| n < self.members.len())
            .ok_or_else(|| "no such member".into())
    }

    /// Section 6.3.
    fn file(&mut self) -> Result<usize, String> {
        let step = self.s[PLAN].signed()?;
        let number = self.member(self.next_file + step)?;
        self.next_file = number as i128 + 1;
        Ok(number)
    }

    /// Section 6.2.
    fn header(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        out.resize(out.len().next_multiple_of(512), 0);
        let r = self.s[HEADERS].number()?;
        let member = if r == 0 {
            None
        } else {
            let v = i128::from(r - 1);
            let step = if v % 2 == 0 { v / 2 } else { -(v + 1) / 2 };
            let number = self.member(self.next_member + step)?;
            self.next_member = number as i128 + 1;
            Some(number)
        };
        let reference = match member {
            None => self.framing.clone(),
            Some(n) if self.is_tree => self.named(&self.members[n].path),
            Some(n) => self.members[n].framing.clone(),
        };
        if reference.is_empty() || !reference.len().is_multiple_of(512) {
            return Err("a reference without blocks".into());
        }
        let flags = self.s[HEADERS].number()?;
        let stated = if flags & 32 != 0 { Some(self.s[HEADERS].number()?) } else { None };
        let implied = member.map_or(0, |n| self.members[n].content.len() as u64);
        let length = stated.unwrap_or(implied);
        let mut made = reference.clone();
        if flags & 1 != 0 {
            let len = self.s[HEADERS].number()? as usize * 512;
            while made.len() < len {
                made.insert(0, 0);
            }
            made.drain(..made.len() - len);
        }
        let main = made.len() - 512;
        if octal(&made[main + 124..main + 135]) != Some(length) && length < 1 << 33 {
            made[main + 124..main + 135].copy_from_slice(format!("{length:011o}").as_bytes());
        }
        if flags & 2 != 0 {
            let time = self.time()?;
            made[main + 136..main + 147].copy_from_slice(format!("{time:011o}").as_bytes());
        }
        if flags & 4 != 0 {
            let before = &self.framing[self.framing.len() - 512..][..100];
            let shared = self.s[HEADERS].number()? as usize;
            let mut name = before.get(..shared).ok_or("shared start of a name")?.to_vec();
            loop {
                match self.s[NAMES].take(1)?[0] {
                    0 => break,
                    byte => name.push(byte),
                }
            }
            if name.len() > 100 {
                return Err("a name is too long".into());
            }
            name.resize(100, 0);
            made[main..main + 100].copy_from_slice(&name);
        }
        if flags & 8 != 0 {
            let mut at = 0;
            for _ in 0..=self.s[HEADERS].number()? {
                at += self.s[HEADERS].number()? as usize;
                for _ in 0..=self.s[HEADERS].number()? {
                    *made.get_mut(at).ok_or("a patch beyond the end")? = self.s[NAMES].take(1)?[0];
                    at += 1;
                }
            }
        }
        if made[main..] != reference[reference.len() - 512..] {
            checksum(&mut made[main..]);
        }
        if flags & 16 != 0 {
            made[main + 148..main + 156].copy_from_slice(self.s[NAMES].take(8)?);
        }
        out.extend_from_slice(&made);
        self.framing = made;
        if let (None, Some(n)) = (stated, member) {
            out.extend_from_slice(&self.members[n].content);
            self.next_file = n as i128 + 1;
        }
        Ok(())
    }

    /// Section 6.2.3.
    fn time(&mut self) -> Result<i128, String> {
        let k = self.s[HEADERS].number()? as usize;
        let time = match k {
            0 => self.times.first().copied().unwrap_or(0) + self.s[HEADERS].signed()?,
            k if k <= self.times.len() => self.times.remove(k - 1),
            _ => return Err("no such time".into()),
        };
        if !(0..1 << 33).contains(&time) {
            return Err("an impossible time".into());
        }
        self.times.insert(0, time);
        self.times.truncate(48);
        Ok(time)
    }

    /// Section 6.2.4.
    fn named(&self, path: &[u8]) -> Vec<u8> {
        let before = &self.framing[self.framing.len() - 512..];
        let start: &[u8] = if before.starts_with(b"./") {
            b"./"
        } else if before.starts_with(b"/") {
            b"/"
        } else {
            b""
        };
        let mut name = [start, path].concat();
        let mut made = before.to_vec();
        if name.len() <= 100 {
            name.resize(100, 0);
            made[..100].copy_from_slice(&name);
            if made != before {
                checksum(&mut made);
            }
        }
        made
    }

    /// Sections 6.4 to 6.6.
    fn part(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let transform = self.s[PLAN].number()?;
        let end = out.len() + self.s[PLAN].number()? as usize;
        let class = self.s[PLAN].number()? as usize;
        if class > 2 {
            return Err("unknown class".into());
        }
        let machine = match transform {
            0 | 1 => None,
            2 if self.encoders.contains(&X86_64) => Some(62),
            3 if self.encoders.contains(&AARCH64) => Some(183),
            4 if self.encoders.contains(&X86_64_KERNEL) => Some(KERNEL.into()),
            _ => return Err(format!("transform {transform}")),
        };
        let mut views: Vec<Vec<u8>> = Vec::new();
        let mut is_program = Vec::new();
        for _ in 0..self.s[PLAN].number()? {
            let content = &self.members[self.file()?].content;
            let kind = self.s[PLAN].number()?;
            is_program.push(machine.is_some() && matches!(kind, 8 | 10 | 12..=15));
            views.push(match if is_program.last() == Some(&true) { kind - 8 } else { kind } {
                0 => content.clone(),
                1 => {
                    let mut rest = Bytes(content);
                    rest.take(self.s[PLAN].number()?)?;
                    rest.take(self.s[PLAN].number()?)?.to_vec()
                }
                2 => {
                    let mut rest = Bytes(content);
                    rest.take(self.s[PLAN].number()?)?;
                    inflate(rest.0, self.s[PLAN].number()?)?
                }
                kind @ 4..=7 => {
                    let listed = |name| self.encoders.contains(&name);
                    if kind == 6 && !listed(CHUNKS) || kind == 7 && !listed(LZ4) {
                        return Err("a view that is not listed".into());
                    }
                    let mut rest = Bytes(content);
                    rest.take(self.s[PLAN].number()?)?;
                    let stream = rest.take(self.s[PLAN].number()?)?;
                    let len = self.s[PLAN].number()?;
                    match kind {
                        4 => packed::unxz(stream, len)?,
                        5 => packed::unzstd(stream, len)?,
                        7 => packed::unlz4(stream, len)?,
                        _ => packed::unchunk(stream, len)?,
                    }
                }
                other => return Err(format!("view {other}")),
            });
        }
        let corrections = self.s[PLAN].number()?;
        let mut rebuilt = Vec::new();
        if transform != 0 {
            for _ in 0..self.s[PLAN].number()? {
                let p = &mut self.s[PLAN];
                let (before, encoder) = (p.number()? as usize, packed::Encoder::read(p)?);
                if encoder.names().iter().any(|n| !self.encoders.contains(&n.as_bytes())) {
                    return Err("an encoder is not in the list".into());
                }
                rebuilt.push((before, encoder, p.number()? as usize, p.number()? as usize));
            }
        }
        let mut tokens = None;
        if rebuilt.iter().any(|r| r.1.has_tokens()) {
            let len = self.s[PLAN].number()?;
            tokens = Some(tokens::Tokens::new(self.s[TOKEN_CODES].take(len)?));
        }
        // How long the new text is: the part, with each stream replaced by its content.
        let shrunk: usize = rebuilt.iter().map(|r| r.2).sum();
        let grown: usize = rebuilt.iter().map(|r| r.3).sum();
        let wanted = end - out.len() - shrunk + grown;
        let text = match machine {
            None => self.operations(&views, class, corrections, wanted, |_, _, _| Ok(()))?,
            Some(machine) => {
                let len = self.s[PLAN].number()?;
                let references = self.s[REFERENCES].take(len)?;
                let predict = |text: &mut [u8], copies: &[[usize; 3]], corrected: &[u8]| {
                    predict(machine, &views, &is_program, references, text, copies, corrected)
                };
                self.operations(&views, class, corrections, wanted, predict)?
            }
        };
        let mut text = Bytes(&text);
        for (before, encoder, stream, content) in rebuilt {
            out.extend_from_slice(text.take(before as u64)?);
            let made = encoder.encode(text.take(content as u64)?, stream, &mut tokens)?;
            if made.len() != stream {
                return Err("a rebuilt stream has another length".into());
            }
            out.extend_from_slice(&made);
        }
        out.extend_from_slice(text.0);
        if out.len() == end { Ok(()) } else { Err("a part has another length".into()) }
    }

    /// Section 6.6.
    fn operations(
        &mut self,
        views: &[Vec<u8>],
        class: usize,
        n: u64,
        wanted: usize,
        predict: impl FnOnce(&mut [u8], &[[usize; 3]], &[u8]) -> Result<(), String>,
    ) -> Result<Vec<u8>, String> {
        let old = views.concat();
        let (mut text, mut copied, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        let mut address = 0i128;
        while text.len() < wanted {
            let literal = self.s[LITERAL_LENGTHS].number()?;
            text.extend_from_slice(self.s[LITERALS + class].take(literal)?);
            if text.len() >= wanted {
                break;
            }
            address += self.s[ADDRESSES].signed()?;
            let from = usize::try_from(address).map_err(|e| e.to_string())?;
            let len = self.s[COPY_LENGTHS].number()? as usize;
            if len == 0 {
                return Err("a copy of nothing".into());
            }
            copied.extend(text.len()..text.len() + len);
            copies.push([text.len(), from, len]);
            text.extend_from_slice(old.get(from..from + len).ok_or("a copy beyond the old text")?);
            address += len as i128;
        }
        if text.len() != wanted {
            return Err("operations make too much".into());
        }
        let mut at = 0;
        let mut corrections = Vec::new();
        for _ in 0..n {
            at += self.s[GAPS].number()? as usize;
            let place = *copied.get(at).ok_or("a correction beyond the copies")?;
            corrections.push((place, self.s[CORRECTIONS].take(1)?[0]));
            at += 1;
        }
        let correct = |text: &mut [u8]| {
            corrections.iter().for_each(|&(place, c)| text[place] = text[place].wrapping_add(c));
        };
        let mut corrected = text.clone();
        correct(&mut corrected);
        predict(&mut text, &copies, &corrected)?;
        correct(&mut text);
        Ok(text)
    }
}

/// Section 9.1: replaces references in a text of literals and copies; `corrected` is the same with corrections, which is
/// what its head is read from.
fn predict(
    machine: u64,
    views: &[Vec<u8>],
    is_program: &[bool],
    references: &[u8],
    text: &mut [u8],
    copies: &[[usize; 3]],
    corrected: &[u8],
) -> Result<(), String> {
    let (mut programs, mut inside) = (Vec::new(), Vec::new());
    let mut start = 0;
    for (view, is_program) in views.iter().zip(is_program) {
        let end = start + view.len();
        let own = copies.iter().filter(|c| c[1] >= start && c[1] < end);
        let own: Vec<_> = own.map(|c| (c[0] as u64, (c[1] - start) as u64, c[2] as u64)).collect();
        if own.iter().any(|c| c.1 + c.2 > view.len() as u64) {
            return Err("a copy lies in two views".into());
        }
        if *is_program {
            programs.push(exec::Program::read(view.clone(), machine));
            inside.push(own);
        }
        start = end;
    }
    let head = &corrected[..corrected.len().min(1024)];
    exec::replace(text, head, machine, &programs, &inside, references);
    Ok(())
}

/// The content of a deflate stream at the start of some bytes.
fn inflate(bytes: &[u8], len: u64) -> Result<Vec<u8>, String> {
    let mut inflated = Vec::new();
    flate2::read::DeflateDecoder::new(bytes).read_to_end(&mut inflated).map_err(|e| e.to_string())?;
    if inflated.len() as u64 != len {
        return Err("an inflated view has another length".into());
    }
    Ok(inflated)
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

fn octal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
    u64::from_str_radix(text, 8).ok()
}

fn checksum(block: &mut [u8]) {
    block[148..154].fill(0);
    let (a, b) = (block[154], block[155]);
    block[154..156].fill(0);
    let sum = block.iter().map(|&b| u32::from(b)).sum::<u32>() + 8 * 32;
    block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    (block[154], block[155]) = (a, b);
}
