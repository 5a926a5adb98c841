//! The container of a delta: magic, head, blocks (`docs/formats/native-delta.md`, section 4).

use std::io::{self, Read};

use super::entropy::{self, Method};
use super::numbers::{Fields, put};
use super::{Error, Limits};
use crate::digest::Digest;
use crate::tar::clean_path;

/// Bytes of the magic.
pub const MAGIC_LEN: usize = 8;
/// Magic and version (section 4.1).
pub const MAGIC: [u8; MAGIC_LEN] = *b"coracle\x01";
/// Largest head in bytes (section 4.2).
pub const MAX_HEAD: u32 = 16 << 20;
/// Most old archives (section 4.2).
pub const MAX_ARCHIVES: u64 = 1 << 10;
/// Kind of source: archives (section 4.2.1).
const ARCHIVES: u64 = 0;
/// Kind of source: a tree of files (section 4.2.2).
const TREE: u64 = 1;
/// Most files of a tree (section 4.2.2).
pub const MAX_FILES: u64 = 1 << 22;
/// Largest table of files, in bytes (section 4.2.2).
pub const MAX_TABLE: u64 = 1 << 26;
/// Longest path of a file (section 4.2.2).
pub const MAX_PATH: u64 = 4096;
/// Bytes of memory that a file of a tree takes besides its path (section 4.3).
pub(crate) const ROW: u64 = 64;
/// Most blocks (section 4.2).
pub const MAX_BLOCKS: u64 = 1 << 20;
/// Feature: the delta needs encoders by name (section 4.2).
const ENCODERS: u64 = 2;
/// Most encoders by name, and the longest name (section 4.2.3).
const MAX_ENCODERS: u64 = 16;
const MAX_NAME: u64 = 64;
/// Bytes of a check: the first of a sha256 (section 4.4).
pub const CHECK_LEN: usize = 8;

/// An old archive as a delta names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archive {
    /// Bytes, uncompressed.
    pub size: u64,
    /// sha256 of these bytes: the diff_id, if it is a layer.
    pub digest: Digest,
}

/// A file of a tree as a delta names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Path relative to the root: bytes, no leading slash, no `.` or `..` components.
    pub path: Vec<u8>,
    /// Bytes of content.
    pub size: u64,
}

impl TreeFile {
    /// Files that share a check (section 4.2.2).
    pub const GROUP: usize = 64;
}

/// The files that a delta uses from a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// In order of first use.
    pub files: Vec<TreeFile>,
    /// sha256 of the sha256 of all files, one behind the other.
    pub digest: Digest,
    /// For each group of files, the first bytes of the sha256 of their sha256.
    pub checks: Vec<[u8; 4]>,
}

/// What a delta was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Old archives in order of extraction: headers and contents.
    Archives(Vec<Archive>),
    /// Files of the tree that the extraction of old archives leaves.
    Tree(Tree),
}

/// A block as the head lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Bytes of the target that it makes.
    pub output: u64,
    /// Bytes that it takes in the delta.
    pub encoded: u64,
    /// First bytes of the sha256 of these.
    pub check: [u8; CHECK_LEN],
}

/// What a delta says of itself before its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the target.
    pub size: u64,
    /// sha256 of the target: its diff_id, if it is a layer.
    pub digest: Digest,
    /// Bytes of memory that decoding takes, with one thread and besides buffers of constant size (section 4.3).
    pub memory: u64,
    /// Names of the encoders that a reader must have, ascending (section 4.2.3).
    pub encoders: Vec<String>,
    /// What it takes old bytes from.
    pub origin: Origin,
    /// Blocks in the order of the target.
    pub blocks: Vec<Block>,
}

impl Head {
    /// Whether the delta needs what a name stands for (section 4.2.3).
    pub(crate) fn lists(&self, name: &str) -> bool {
        self.encoders.iter().any(|e| e == name)
    }

    /// Magic and head as they stand in a delta.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = Vec::new();
        if self.encoders.is_empty() {
            put(&mut head, 0);
        } else {
            put(&mut head, ENCODERS);
            put(&mut head, self.encoders.len() as u64);
            for name in &self.encoders {
                put(&mut head, name.len() as u64);
                head.extend_from_slice(name.as_bytes());
            }
        }
        put(&mut head, self.size);
        head.extend_from_slice(self.digest.as_bytes());
        put(&mut head, self.memory);
        match &self.origin {
            Origin::Archives(archives) => {
                put(&mut head, ARCHIVES);
                put(&mut head, archives.len() as u64);
                for archive in archives {
                    put(&mut head, archive.size);
                    head.extend_from_slice(archive.digest.as_bytes());
                }
            }
            Origin::Tree(tree) => {
                put(&mut head, TREE);
                tree.write(&mut head, self.memory);
            }
        }
        put(&mut head, self.blocks.len() as u64);
        for block in &self.blocks {
            put(&mut head, block.output);
            put(&mut head, block.encoded);
            head.extend_from_slice(&block.check);
        }
        let len = head.len() as u32;
        [&MAGIC[..], &len.to_le_bytes(), &head, &check(&head)].concat()
    }

    /// Reads magic and head from the start of a delta.
    ///
    /// # Errors
    /// Any fault of the head; a size above `limits`.
    pub fn read(input: &mut impl Read, limits: &Limits) -> Result<Self, Error> {
        let mut magic = [0; MAGIC_LEN + 4];
        fill(input, &mut magic[..MAGIC_LEN], "magic")?;
        match &magic[..MAGIC_LEN] {
            known if known == MAGIC => {}
            [name @ .., version] if name == &MAGIC[..MAGIC_LEN - 1] => return Err(Error::Version(*version)),
            _ => return Err(Error::BadMagic),
        }
        fill(input, &mut magic[MAGIC_LEN..], "head")?;
        let len = u32::from_le_bytes([magic[8], magic[9], magic[10], magic[11]]);
        if len > MAX_HEAD {
            let (value, most) = (u64::from(len), u64::from(MAX_HEAD));
            return Err(Error::OutOfRange { quantity: "length of the head", value, most });
        }
        // Taken as it comes: the length alone is no reason to set memory aside.
        let mut head = Vec::new();
        let wanted = u64::from(len) + CHECK_LEN as u64;
        input.take(wanted).read_to_end(&mut head).map_err(Error::ReadDelta)?;
        if head.len() as u64 != wanted {
            return Err(Error::Truncated("head"));
        }
        let stated = head.split_off(len as usize);
        if stated != check(&head) {
            return Err(Error::DamagedHead);
        }
        Self::parse(&head, limits)
    }

    /// Reads what stands between the length of the head and its check.
    pub(crate) fn parse(head: &[u8], limits: &Limits) -> Result<Self, Error> {
        let mut fields = Fields::new(head, "head");
        let features = fields.number()?;
        if features & !ENCODERS != 0 {
            return Err(Error::UnknownFeatures(features & !ENCODERS));
        }
        let encoders = if features & ENCODERS == 0 { Vec::new() } else { encoders(&mut fields)? };
        let size = fields.number()?;
        if size > limits.max_output {
            return Err(Error::OutputTooLarge { size, limit: limits.max_output });
        }
        let digest = Digest::from_bytes(fields.array()?);
        let memory = fields.number()?;
        if memory > limits.max_memory {
            return Err(Error::MemoryTooLarge { needed: memory, limit: limits.max_memory });
        }
        let origin = match fields.number()? {
            ARCHIVES => {
                let count = fields.at_most(MAX_ARCHIVES, "number of old archives")?;
                let mut archives = Vec::new();
                for _ in 0..count {
                    let size = fields.number()?;
                    archives.push(Archive { size, digest: Digest::from_bytes(fields.array()?) });
                }
                Origin::Archives(archives)
            }
            TREE => Origin::Tree(Tree::read(&mut fields, memory)?),
            value => return Err(Error::Unknown { what: "kind of source", value }),
        };
        let count = fields.at_most(MAX_BLOCKS, "number of blocks")?;
        let mut blocks = Vec::new();
        let mut left = size;
        for _ in 0..count {
            let output = fields.at_most(left, "output of a block")?;
            let encoded = fields.at_most(memory, "length of a block")?;
            blocks.push(Block { output, encoded, check: fields.array()? });
            left -= output;
        }
        fields.end()?;
        if left != 0 {
            return Err(Error::Contradiction("the blocks make less than the target"));
        }
        Ok(Head { size, digest, memory, encoders, origin, blocks })
    }
}

impl Tree {
    /// Bytes of memory that reading the table takes (section 4.3).
    pub(crate) fn memory(&self) -> u64 {
        let paths: u64 = self.files.iter().map(|f| f.path.len() as u64 + ROW).sum();
        let table = self.table().len() as u64;
        paths.max(table + Method::Mixing.memory(table))
    }

    fn table(&self) -> Vec<u8> {
        let mut table = Vec::new();
        let mut before: &[u8] = &[];
        for file in &self.files {
            let shared = before.iter().zip(&file.path).take_while(|(a, b)| a == b).count();
            put(&mut table, shared as u64);
            put(&mut table, (file.path.len() - shared) as u64);
            table.extend_from_slice(&file.path[shared..]);
            put(&mut table, file.size);
            before = &file.path;
        }
        table
    }

    /// Writes the table by the method that takes least, of those that readers may use with so much memory.
    fn write(&self, head: &mut Vec<u8>, memory: u64) {
        let table = self.table();
        let len = table.len() as u64;
        let fits = |method: &Method| *method == Method::Stored || len + method.memory(len) <= memory;
        let methods = [Method::Stored, Method::Mixing].into_iter().filter(fits);
        let encoded = methods.map(|method| (method, entropy::encode(method, &table, 0)));
        let (method, bytes) = encoded.min_by_key(|(_, b)| b.len()).unwrap_or_default();
        put(head, self.files.len() as u64);
        put(head, method.number());
        put(head, table.len() as u64);
        put(head, bytes.len() as u64);
        head.extend_from_slice(&bytes);
        head.extend_from_slice(self.digest.as_bytes());
        self.checks.iter().for_each(|check| head.extend_from_slice(check));
    }

    fn read(fields: &mut Fields<'_>, memory: u64) -> Result<Self, Error> {
        let count = fields.at_most(MAX_FILES, "number of source files")?;
        let method = Method::of(fields.number()?)?;
        let len = fields.at_most(MAX_TABLE, "length of the table of source files")?;
        if len.saturating_add(method.memory(len)) > memory {
            return Err(Error::MemoryExceeded(memory));
        }
        let encoded = fields.at_most(u64::from(MAX_HEAD), "length of the table of source files")?;
        let table = entropy::decode(method, fields.bytes(encoded as usize)?, len as usize);
        let table = table.map_err(Error::Table)?;
        let mut rows = Fields::new(&table, "table of source files");
        let mut files: Vec<TreeFile> = Vec::new();
        // Shared starts cost nothing in the table, but memory here.
        let mut room = memory;
        for _ in 0..count {
            let before = files.last().map_or(&[][..], |f| &f.path);
            let shared = rows.at_most(before.len() as u64, "shared start of a path")?;
            let own = rows.at_most(MAX_PATH - shared, "length of a path")?;
            let path = [&before[..shared as usize], rows.bytes(own as usize)?].concat();
            room = room.checked_sub(path.len() as u64 + ROW).ok_or(Error::MemoryExceeded(memory))?;
            if clean_path(&path).as_ref() != Some(&path) {
                return Err(Error::UnsafePath(path));
            }
            files.push(TreeFile { path, size: rows.number()? });
        }
        rows.end()?;
        let digest = Digest::from_bytes(fields.array()?);
        let groups = files.len().div_ceil(TreeFile::GROUP);
        let checks = (0..groups).map(|_| fields.array()).collect::<Result<_, _>>()?;
        Ok(Tree { files, digest, checks })
    }
}

/// The list of encoders by name (section 4.2.3).
fn encoders(fields: &mut Fields<'_>) -> Result<Vec<String>, Error> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b".-_".contains(b);
    let mut names: Vec<String> = Vec::new();
    for _ in 0..fields.at_most(MAX_ENCODERS, "number of encoders")? {
        let len = fields.at_most(MAX_NAME, "length of the name of an encoder")?;
        let name = fields.bytes(len as usize)?;
        let name = std::str::from_utf8(name).ok().filter(|n| !n.is_empty() && n.bytes().all(|b| allowed(&b)));
        let name = name.ok_or(Error::Contradiction("an encoder has no proper name"))?;
        if names.last().is_some_and(|before| &before[..] >= name) {
            return Err(Error::Contradiction("encoders are not in order"));
        }
        names.push(name.to_owned());
    }
    if names.is_empty() {
        return Err(Error::Contradiction("a list of no encoders"));
    }
    Ok(names)
}

/// The check of a group of files, by their digests one behind the other.
pub(crate) fn group_check(digests: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = check(digests);
    [a, b, c, d]
}

/// The check of some bytes.
pub(crate) fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut out = [0; CHECK_LEN];
    out.copy_from_slice(&Digest::of(bytes).as_bytes()[..CHECK_LEN]);
    out
}

/// Reads a block and compares its check; `number` counts from 0.
pub(crate) fn read_block(input: &mut impl Read, head: &Head, number: usize) -> Result<Vec<u8>, Error> {
    let block = &head.blocks[number];
    let mut bytes = Vec::new();
    input.take(block.encoded).read_to_end(&mut bytes).map_err(Error::ReadDelta)?;
    if bytes.len() as u64 != block.encoded {
        return Err(Error::Truncated("blocks"));
    }
    if check(&bytes) != block.check {
        return Err(Error::DamagedBlock { number: number + 1, count: head.blocks.len() });
    }
    Ok(bytes)
}

/// Passes over the sections that may follow the blocks; each may be skipped (section 4.5).
pub(crate) fn skip_sections(input: &mut impl Read) -> Result<(), Error> {
    loop {
        let mut start = [0; 12];
        let mut got = 0;
        while got < start.len() {
            match input.read(&mut start[got..]) {
                Ok(0) if got == 0 => return Ok(()),
                Ok(0) => return Err(Error::Truncated("sections")),
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::ReadDelta(e)),
            }
        }
        let mut len = [0; 8];
        len.copy_from_slice(&start[4..]);
        let len = u64::from_le_bytes(len);
        let skipped = io::copy(&mut input.take(len), &mut io::sink()).map_err(Error::ReadDelta)?;
        if skipped != len {
            return Err(Error::Truncated("sections"));
        }
    }
}

fn fill(input: &mut impl Read, buf: &mut [u8], what: &'static str) -> Result<(), Error> {
    input.read_exact(buf).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::Truncated(what),
        _ => Error::ReadDelta(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            size: 1000,
            digest: Digest::of(b"target"),
            encoders: Vec::new(),
            memory: 1 << 20,
            origin: Origin::Archives(vec![Archive { size: 10, digest: Digest::of(b"old") }]),
            blocks: vec![
                Block { output: 600, encoded: 20, check: [1; 8] },
                Block { output: 400, encoded: 0, check: [2; 8] },
            ],
        }
    }

    #[test]
    fn heads_come_back() {
        let bytes = head().to_bytes();
        assert_eq!(Head::read(&mut &bytes[..], &Limits::default()).unwrap(), head());
        for cut in 0..bytes.len() {
            let error = Head::read(&mut &bytes[..cut], &Limits::default()).unwrap_err();
            assert!(matches!(error, Error::Truncated(_)), "cut at {cut}: {error}");
        }
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 4;
            assert!(Head::read(&mut &bad[..], &Limits::default()).is_err(), "byte {i}");
        }
    }

    #[test]
    fn trees_come_back() {
        let path = |i: u32| format!("usr/share/{}/{i}", i / 7).into_bytes();
        let files: Vec<_> =
            (0..200).map(|i| TreeFile { path: path(i), size: u64::from(i) << (i % 40) }).collect();
        let tree = Tree { files, digest: Digest::of(b"all"), checks: vec![[7; 4]; 4] };
        let head = Head { origin: Origin::Tree(tree.clone()), memory: 1 << 24, ..head() };
        assert_eq!(Head::read(&mut &head.to_bytes()[..], &Limits::default()).unwrap(), head);
        for bad in [&b"../x"[..], b"/x", b"a//b", b"", b"a/./b", b"a\0"] {
            let mut tree = tree.clone();
            tree.files[3].path = bad.to_vec();
            let head = Head { origin: Origin::Tree(tree), ..head.clone() };
            let error = Head::read(&mut &head.to_bytes()[..], &Limits::default()).unwrap_err();
            assert!(matches!(error, Error::UnsafePath(_)), "{error}");
        }
    }

    #[test]
    fn faults_have_their_own_errors() {
        let limits = Limits::default();
        let read = |head: &Head, limits: &Limits| Head::read(&mut &head.to_bytes()[..], limits).unwrap_err();
        let mut future = head().to_bytes();
        future[7] = 2;
        assert!(matches!(Head::read(&mut &future[..], &limits), Err(Error::Version(2))));
        assert!(matches!(Head::read(&mut &b"tardf1\n\0"[..], &limits), Err(Error::BadMagic)));
        let small = Limits { max_output: 999, ..limits };
        assert!(matches!(read(&head(), &small), Error::OutputTooLarge { size: 1000, limit: 999 }));
        let small = Limits { max_memory: 1000, ..limits };
        assert!(matches!(read(&head(), &small), Error::MemoryTooLarge { limit: 1000, .. }));
        let mut less = head();
        less.blocks.pop();
        assert!(matches!(read(&less, &limits), Error::Contradiction(_)));
        let mut more = head();
        more.blocks[0].output = 1001;
        assert!(matches!(read(&more, &limits), Error::OutOfRange { quantity: "output of a block", .. }));
        assert!(matches!(Head::parse(&[4], &limits), Err(Error::UnknownFeatures(4))));
    }

    #[test]
    fn sections_are_passed_over() {
        let section = [&[9, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..], b"abc"].concat();
        assert!(skip_sections(&mut &section.repeat(2)[..]).is_ok());
        assert!(matches!(skip_sections(&mut &section[..14]), Err(Error::Truncated("sections"))));
        assert!(matches!(skip_sections(&mut &section[..5]), Err(Error::Truncated("sections"))));
    }
}
