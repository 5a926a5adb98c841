//! Tars made byte by byte.
//!
//! The layouts are those of POSIX pax (ustar header and extended header) and of the GNU tar manual, chapter
//! "Tar Internals". Everything not asked for is as GNU tar writes it, so that a reader which handles this data
//! handles the usual tar; [`Header`] and [`TarBuilder::raw`] are for the unusual one.

/// Size of a tar block: headers are one, content is padded to a multiple.
pub const BLOCK: usize = 512;

/// The magic and version fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Magic {
    /// `ustar\0` `00`: POSIX.
    Ustar,
    /// `ustar  \0`: GNU.
    Gnu,
    /// Zero bytes: from before 1988. Such a header ends after the link name.
    V7,
}

/// The fields of a tar header, as they are written.
///
/// Nothing is checked and nothing is rounded: a field that is too long is cut, a size need not be that of the
/// content.
#[derive(Debug, Clone)]
pub struct Header {
    /// Member name, at most 100 bytes.
    pub name: Vec<u8>,
    /// Permission bits.
    pub mode: u64,
    /// Numeric owner.
    pub uid: u64,
    /// Numeric group.
    pub gid: u64,
    /// Bytes of content that follow.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// `b'0'` file, `b'1'` hardlink, `b'2'` symlink, `b'5'` directory, `b'6'` fifo, `b'x'` pax, ...
    pub typeflag: u8,
    /// Target of a link, at most 100 bytes.
    pub linkname: Vec<u8>,
    /// Which kind of header.
    pub magic: Magic,
    /// Owner's name, at most 32 bytes.
    pub uname: Vec<u8>,
    /// Group's name, at most 32 bytes.
    pub gname: Vec<u8>,
    /// Device numbers; the fields stay empty if there are none.
    pub device: Option<(u64, u64)>,
    /// What stands before the name and a slash, at most 155 bytes. Only [`Magic::Ustar`] has it.
    pub prefix: Vec<u8>,
}

impl Header {
    /// The header of an empty regular file, mode 0644, owned by 0:0 without names, dated 1970.
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            typeflag: b'0',
            linkname: Vec::new(),
            magic: Magic::Ustar,
            uname: Vec::new(),
            gname: Vec::new(),
            device: None,
            prefix: Vec::new(),
        }
    }

    /// The header block with its checksum.
    pub fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put_text(&mut block[..100], &self.name);
        put_number(&mut block[100..108], self.mode);
        put_number(&mut block[108..116], self.uid);
        put_number(&mut block[116..124], self.gid);
        put_number(&mut block[124..136], self.size);
        put_number(&mut block[136..148], self.mtime);
        block[156] = self.typeflag;
        put_text(&mut block[157..257], &self.linkname);
        match self.magic {
            Magic::Ustar => block[257..265].copy_from_slice(b"ustar\x0000"),
            Magic::Gnu => block[257..265].copy_from_slice(b"ustar  \0"),
            Magic::V7 => {}
        }
        if self.magic != Magic::V7 {
            put_text(&mut block[265..297], &self.uname);
            put_text(&mut block[297..329], &self.gname);
        }
        if let Some((major, minor)) = self.device {
            put_number(&mut block[329..337], major);
            put_number(&mut block[337..345], minor);
        }
        if self.magic == Magic::Ustar {
            put_text(&mut block[345..500], &self.prefix);
        }
        set_checksum(&mut block);
        block
    }
}

/// Writes the checksum of `block` into it, as needed after a header was changed by hand.
pub fn set_checksum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
}

/// Octal digits and a NUL; base-256, big-endian after a first byte of 0x80, for what octal cannot hold.
fn put_number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    if value >> (3 * digits) == 0 {
        field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
        return;
    }
    let len = field.len();
    let bytes = value.to_be_bytes();
    let used = bytes.len().min(len - 1);
    field.fill(0);
    field[len - used..].copy_from_slice(&bytes[bytes.len() - used..]);
    field[0] = 0x80;
}

/// How names and link targets above 100 bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongNames {
    /// Members of type `L` and `K` before the entry; headers have the GNU magic.
    Gnu,
    /// Pax records `path` and `linkpath`; headers have the POSIX magic.
    Pax,
}

/// Builds a tar in memory. The calls append entries in turn and can be chained.
#[derive(Debug, Clone)]
pub struct TarBuilder {
    out: Vec<u8>,
    long_names: LongNames,
    mtime: u64,
    owner: (u64, u64),
    owner_names: (Vec<u8>, Vec<u8>),
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Default for TarBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TarBuilder {
    /// An empty tar: GNU headers, entries owned by root 0:0 and dated 2023-11-14 22:13:20 UTC.
    pub fn new() -> Self {
        Self {
            out: Vec::new(),
            long_names: LongNames::Gnu,
            mtime: 1_700_000_000,
            owner: (0, 0),
            owner_names: (b"root".to_vec(), b"root".to_vec()),
            pax: Vec::new(),
        }
    }

    /// An empty tar that writes long names in the given way.
    pub fn with_long_names(long_names: LongNames) -> Self {
        Self { long_names, ..Self::new() }
    }

    /// Dates the entries that follow, in seconds since 1970.
    pub fn mtime(&mut self, seconds: u64) -> &mut Self {
        self.mtime = seconds;
        self
    }

    /// Owner and group of the entries that follow, without names.
    pub fn owner(&mut self, uid: u64, gid: u64) -> &mut Self {
        self.owner = (uid, gid);
        self.owner_names = (Vec::new(), Vec::new());
        self
    }

    /// Adds pax records (`key`, `value`) to the next entry, before those that the entry may need itself.
    pub fn pax<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        self.pax
            .extend(records.into_iter().map(|(key, value)| (key.as_ref().to_vec(), value.as_ref().to_vec())));
        self
    }

    /// A regular file, mode 0644.
    pub fn file(&mut self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> &mut Self {
        self.file_mode(path, 0o644, content)
    }

    /// A regular file with the given permission bits.
    pub fn file_mode(&mut self, path: impl AsRef<[u8]>, mode: u64, content: impl AsRef<[u8]>) -> &mut Self {
        self.member(path.as_ref(), b'0', mode, b"", content.as_ref())
    }

    /// A directory, mode 0755. The path gets its final slash here if it has none.
    pub fn dir(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        let mut path = path.as_ref().to_vec();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        self.member(&path, b'5', 0o755, b"", b"")
    }

    /// A symlink at `path` to `target`.
    pub fn symlink(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> &mut Self {
        self.member(path.as_ref(), b'2', 0o777, target.as_ref(), b"")
    }

    /// A hardlink at `path` to the member `target`.
    pub fn hardlink(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> &mut Self {
        self.member(path.as_ref(), b'1', 0o644, target.as_ref(), b"")
    }

    /// A FIFO, mode 0644.
    pub fn fifo(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        self.member(path.as_ref(), b'6', 0o644, b"", b"")
    }

    /// A sparse file of `size` bytes in the old GNU form (type `S`): `parts` are (offset, bytes), in order and
    /// without overlap; the rest is holes. A last part of no bytes at `size` is added, as GNU tar does for a
    /// file that ends in a hole.
    pub fn sparse_gnu(&mut self, path: impl AsRef<[u8]>, size: u64, parts: &[(u64, &[u8])]) -> &mut Self {
        let content: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let mut map: Vec<(u64, u64)> =
            parts.iter().map(|(offset, bytes)| (*offset, bytes.len() as u64)).collect();
        if map.last().is_none_or(|(offset, len)| offset + len < size) {
            map.push((size, 0));
        }
        // The map goes where the ustar prefix would be: 4 fragments, a flag for more, the real size.
        let mut block = self.header(path.as_ref(), b'S', 0o644, b"", content.len() as u64).block();
        let (first, mut rest) = map.split_at(map.len().min(4));
        put_map(&mut block[386..482], first);
        block[482] = u8::from(!rest.is_empty());
        put_number(&mut block[483..495], size);
        set_checksum(&mut block);
        self.raw(block);
        while !rest.is_empty() {
            let mut block = [0; BLOCK];
            let (next, after) = rest.split_at(rest.len().min(21));
            put_map(&mut block[..504], next);
            block[504] = u8::from(!after.is_empty());
            self.raw(block);
            rest = after;
        }
        self.padded(&content)
    }

    /// An entry with the given header, and `content` padded to whole blocks, whatever the header says.
    pub fn entry(&mut self, header: &Header, content: impl AsRef<[u8]>) -> &mut Self {
        self.raw(header.block()).padded(content.as_ref())
    }

    /// A global pax header with the given records.
    pub fn pax_global<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        let body: Vec<u8> =
            records.into_iter().flat_map(|(key, value)| pax_record(key.as_ref(), value.as_ref())).collect();
        let header = Header { size: body.len() as u64, typeflag: b'g', ..Header::new("pax_global_header") };
        self.entry(&header, body)
    }

    /// Appends `bytes` as they are, such as a header block made elsewhere.
    pub fn raw(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.out.extend_from_slice(bytes.as_ref());
        self
    }

    /// The tar with its end: two zero blocks.
    pub fn finish(&self) -> Vec<u8> {
        self.finish_with(b"")
    }

    /// As [`TarBuilder::finish`], then zeros up to a multiple of `factor` blocks (20 is what tar(1) does).
    pub fn finish_padded(&self, factor: usize) -> Vec<u8> {
        let mut out = self.finish();
        out.resize(out.len().next_multiple_of(factor * BLOCK), 0);
        out
    }

    /// The entries alone, as in a tar that was cut off or is to be continued.
    pub fn finish_without_trailer(&self) -> Vec<u8> {
        self.out.clone()
    }

    /// As [`TarBuilder::finish`], then `trailing` bytes, which belong to the file but not to the archive.
    pub fn finish_with(&self, trailing: &[u8]) -> Vec<u8> {
        let mut out = self.out.clone();
        out.resize(out.len() + 2 * BLOCK, 0);
        out.extend_from_slice(trailing);
        out
    }

    fn member(&mut self, path: &[u8], typeflag: u8, mode: u64, link: &[u8], content: &[u8]) -> &mut Self {
        let header = self.header(path, typeflag, mode, link, content.len() as u64);
        self.entry(&header, content)
    }

    /// Writes what must stand before the entry, and returns its own header.
    fn header(&mut self, path: &[u8], typeflag: u8, mode: u64, link: &[u8], size: u64) -> Header {
        let mut pax = std::mem::take(&mut self.pax);
        let magic = match self.long_names {
            LongNames::Gnu => {
                // GNU tar writes the long target before the long name.
                self.gnu_long(b'K', link);
                self.gnu_long(b'L', path);
                Magic::Gnu
            }
            LongNames::Pax => {
                for (key, value) in [("linkpath", link), ("path", path)] {
                    if value.len() > 100 {
                        pax.push((key.into(), value.to_vec()));
                    }
                }
                Magic::Ustar
            }
        };
        if !pax.is_empty() {
            let body: Vec<u8> = pax.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
            let base = path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()).unwrap_or(b"");
            let name = [b"PaxHeaders/", base].concat();
            let header = Header {
                size: body.len() as u64,
                mtime: self.mtime,
                typeflag: b'x',
                ..Header::new(&name[..name.len().min(100)])
            };
            self.entry(&header, body);
        }
        Header {
            mode,
            uid: self.owner.0,
            gid: self.owner.1,
            size,
            mtime: self.mtime,
            typeflag,
            linkname: link[..link.len().min(100)].to_vec(),
            magic,
            uname: self.owner_names.0.clone(),
            gname: self.owner_names.1.clone(),
            // GNU tar writes zeros in its POSIX headers and nothing in its own.
            device: (magic == Magic::Ustar).then_some((0, 0)),
            ..Header::new(&path[..path.len().min(100)])
        }
    }

    /// A member that carries the name (`L`) or link target (`K`) of the next one, with a final NUL.
    fn gnu_long(&mut self, typeflag: u8, value: &[u8]) {
        if value.len() <= 100 {
            return;
        }
        let header = Header {
            size: value.len() as u64 + 1,
            typeflag,
            magic: Magic::Gnu,
            uname: b"root".to_vec(),
            gname: b"root".to_vec(),
            ..Header::new("././@LongLink")
        };
        self.entry(&header, [value, b"\0"].concat());
    }

    fn padded(&mut self, content: &[u8]) -> &mut Self {
        self.out.extend_from_slice(content);
        let padding = content.len().next_multiple_of(BLOCK) - content.len();
        self.out.resize(self.out.len() + padding, 0);
        self
    }
}

/// `LEN KEY=VALUE\n`, where LEN counts the whole record, its own digits too.
pub fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn put_map(field: &mut [u8], map: &[(u64, u64)]) {
    for (slot, (offset, len)) in field.chunks_exact_mut(24).zip(map) {
        put_number(&mut slot[..12], *offset);
        put_number(&mut slot[12..], *len);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::oracle::{run_ok, tool};
    use crate::tree;

    const LIMIT: Duration = Duration::from_secs(60);

    /// What `tar tvf` says about `bytes`.
    fn listing(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.tar");
        std::fs::write(&file, bytes).unwrap();
        let mut command = Command::new(tool("tar").unwrap());
        command.args(["--utc", "--full-time", "--quoting-style=escape", "-tvf"]).arg(&file);
        String::from_utf8(run_ok(command.env("LC_ALL", "C"), LIMIT).unwrap()).unwrap()
    }

    fn every_kind(long_names: LongNames) -> Vec<u8> {
        let long = "l".repeat(60) + "/" + &"m".repeat(90);
        TarBuilder::with_long_names(long_names)
            .dir("d")
            .file("d/a", "hello\n")
            .file_mode("d/run", 0o4755, vec![7; 1000])
            .symlink("d/s", "a")
            .hardlink("d/h", "d/a")
            .mtime(86400)
            .owner(1000, 100)
            .fifo("d/f")
            .file(b"caf\xe9", "")
            .file(&long, "long")
            .symlink(format!("{long}.s"), "t".repeat(150))
            .hardlink("d/h2", &long)
            .finish()
    }

    #[test]
    fn gnu_tar_lists_every_kind() {
        let long = "l".repeat(60) + "/" + &"m".repeat(90);
        let target = "t".repeat(150);
        let expected = format!(
            "\
drwxr-xr-x root/root         0 2023-11-14 22:13:20 d/
-rw-r--r-- root/root         6 2023-11-14 22:13:20 d/a
-rwsr-xr-x root/root      1000 2023-11-14 22:13:20 d/run
lrwxrwxrwx root/root         0 2023-11-14 22:13:20 d/s -> a
hrw-r--r-- root/root         0 2023-11-14 22:13:20 d/h link to d/a
prw-r--r-- 1000/100          0 1970-01-02 00:00:00 d/f
-rw-r--r-- 1000/100          0 1970-01-02 00:00:00 caf\\351
-rw-r--r-- 1000/100          4 1970-01-02 00:00:00 {long}
lrwxrwxrwx 1000/100          0 1970-01-02 00:00:00 {long}.s -> {target}
hrw-r--r-- 1000/100          0 1970-01-02 00:00:00 d/h2 link to {long}
"
        );
        assert_eq!(listing(&every_kind(LongNames::Gnu)), expected);
        assert_eq!(listing(&every_kind(LongNames::Pax)), expected);
    }

    /// The same tree by GNU tar itself, in its own format and in pax.
    #[test]
    fn bytes_are_those_of_gnu_tar() {
        let long = "l".repeat(60) + "/" + &"m".repeat(90);
        for (format, long_names) in [("gnu", LongNames::Gnu), ("posix", LongNames::Pax)] {
            let mut builder = TarBuilder::with_long_names(long_names);
            builder.dir("d").file("d/a", "hello\n").file_mode("d/b", 0o755, vec![7; 1000]);
            builder.hardlink("d/h", "d/a").symlink("d/s", "a").fifo("f");
            builder.dir("l".repeat(60)).file(&long, "long").symlink(format!("{long}s"), "t".repeat(150));
            let ours = builder.finish_padded(20);
            let tree = tree::extract(&ours).unwrap();
            let mut command = Command::new(tool("tar").unwrap());
            command.arg(format!("--format={format}")).arg("--directory").arg(tree.path());
            if long_names == LongNames::Pax {
                command.arg("--pax-option=exthdr.name=PaxHeaders/%f,delete=atime,delete=ctime");
            }
            command.args([
                "--sort=name",
                "--owner=root:0",
                "--group=root:0",
                "--mtime=@1700000000",
                "-cf",
                "-",
            ]);
            let theirs = run_ok(command.args(["d", "f", &"l".repeat(60)]), LIMIT).unwrap();
            assert_eq!(theirs.len(), ours.len(), "{format}");
            let different: Vec<usize> = (0..ours.len()).filter(|i| ours[*i] != theirs[*i]).collect();
            assert!(different.is_empty(), "{format}: {different:?}");
        }
    }

    #[test]
    fn content_is_extracted() {
        let tree = tree::extract(&every_kind(LongNames::Pax)).unwrap();
        let files = tree::files(tree.path()).unwrap();
        assert_eq!(files[&b"d/a"[..]], b"hello\n");
        assert_eq!(files[&b"d/h"[..]], b"hello\n");
        assert_eq!(files[&b"caf\xe9"[..]], b"");
        assert_eq!(files[&b"d/run"[..]].len(), 1000);
        assert_eq!(files.len(), 6);
    }

    #[test]
    fn pax_records_reach_the_next_entry_only() {
        let mut builder = TarBuilder::with_long_names(LongNames::Pax);
        builder.pax([("path", "renamed")]).file("short", "x").file("next", "y");
        let bytes = builder.pax_global([("comment", "c")]).finish();
        let names: Vec<String> =
            listing(&bytes).lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["renamed", "next"]);
    }

    #[test]
    fn pax_record_lengths_count_themselves() {
        assert_eq!(pax_record(b"a", b"b"), b"6 a=b\n");
        // 99 and 100 are where the number of digits changes.
        for len in 80..120 {
            let record = pax_record(b"key", &vec![b'v'; len]);
            let digits = record.iter().position(|byte| *byte == b' ').unwrap();
            let said: usize = std::str::from_utf8(&record[..digits]).unwrap().parse().unwrap();
            assert_eq!(said, record.len());
        }
    }

    #[test]
    fn sparse_files_are_expanded_by_gnu_tar() {
        for count in [0, 1, 3, 4, 5, 25, 26, 60] {
            let parts: Vec<(u64, Vec<u8>)> =
                (0..count).map(|n| (n * 8192, vec![b'a' + (n % 20) as u8; 4096])).collect();
            let borrowed: Vec<(u64, &[u8])> =
                parts.iter().map(|(offset, bytes)| (*offset, bytes.as_slice())).collect();
            let tar = TarBuilder::new().sparse_gnu("hole", 600_000, &borrowed).file("z", "end").finish();
            let tree = tree::extract(&tar).unwrap();
            let mut expected = vec![0; 600_000];
            for (offset, bytes) in &parts {
                expected[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            let files = tree::files(tree.path()).unwrap();
            assert!(files[&b"hole"[..]] == expected, "{count} parts");
            assert_eq!(files[&b"z"[..]], b"end");
        }
    }

    #[test]
    fn ends_are_as_asked_for() {
        let mut builder = TarBuilder::new();
        builder.file("a", "x");
        assert_eq!(builder.finish_without_trailer().len(), 1024);
        assert_eq!(builder.finish().len(), 2048);
        assert_eq!(builder.finish_padded(20).len(), 10240);
        assert!(builder.finish_with(b"TRAIL").ends_with(b"\0TRAIL"));
        assert_eq!(TarBuilder::default().finish(), [0; 1024]);
    }

    #[test]
    fn large_numbers_become_base_256() {
        let mut field = [0; 12];
        put_number(&mut field, 0o77_777_777_777);
        assert_eq!(&field, b"77777777777\0");
        put_number(&mut field, 0o100_000_000_000);
        assert_eq!(field, [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        let mut field = [0; 8];
        put_number(&mut field, 1 << 32);
        assert_eq!(field, [0x80, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn old_headers_end_after_the_link_name() {
        let header = Header { magic: Magic::V7, uname: b"u".to_vec(), ..Header::new("old") };
        assert!(header.block()[257..].iter().all(|byte| *byte == 0));
        let device =
            Header { typeflag: b'3', device: Some((1, 3)), magic: Magic::Gnu, ..Header::new("null") };
        let bytes = TarBuilder::new().entry(&header, "").entry(&device, "").finish();
        assert_eq!(
            listing(&bytes),
            "-rw-r--r-- 0/0               0 1970-01-01 00:00:00 old\n\
             crw-r--r-- 0/0             1,3 1970-01-01 00:00:00 null\n"
        );
    }
}
