//! Tar headers: ustar, with PAX records for what does not fit (POSIX.1-2001, "pax Interchange Format").
//!
//! Only framing is made here; whoever writes an archive brings the content. The same member gives the same bytes.

use super::BLOCK;

/// Two blocks of zeros: the end of an archive.
pub const END: [u8; 1024] = [0; 1024];

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file; its content and padding follow the header.
    File,
    /// A hardlink to an earlier member.
    Hardlink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory. Its name ends with a slash.
    Directory,
    /// A FIFO.
    Fifo,
}

/// A member to write a header for.
#[derive(Debug, Clone)]
pub struct Member {
    /// Name, any bytes but NUL.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Target, for links.
    pub link: Vec<u8>,
    /// Major and minor number, for devices.
    pub device: (u32, u32),
    /// Extended attributes: name and value. Written as `SCHILY.xattr.NAME`, as container tools do.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Member {
    /// A regular file of root, mode 0644, of the first second of 1970.
    pub fn file(name: &str, size: u64) -> Self {
        Member {
            name: name.into(),
            kind: MemberKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size,
            mtime: 0,
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// A directory like [`Member::file`], mode 0755.
    pub fn directory(name: &str) -> Self {
        Member { kind: MemberKind::Directory, mode: 0o755, ..Member::file(name, 0) }
    }

    /// The header blocks.
    pub fn header(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut record = |key: &[u8], value: &[u8]| record(&mut records, key, value);
        let plain = |text: &[u8]| text.len() <= 100 && text.is_ascii();
        if !plain(&self.name) {
            record(b"path", &self.name);
        }
        if !plain(&self.link) {
            record(b"linkpath", &self.link);
        }
        if self.size >= 1 << 33 {
            record(b"size", self.size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], self.uid), (b"gid", self.gid)] {
            if id >= 1 << 21 {
                record(key, id.to_string().as_bytes());
            }
        }
        if !(0..1 << 33).contains(&self.mtime) {
            record(b"mtime", self.mtime.to_string().as_bytes());
        }
        for (name, value) in &self.xattrs {
            record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        let mut out = Vec::new();
        if !records.is_empty() {
            let base = self.name.rsplit(|b| *b == b'/').find(|part| !part.is_empty()).unwrap_or_default();
            let name = [b"PaxHeaders.0/", base].concat();
            let extended = Member {
                mtime: self.mtime.clamp(0, (1 << 33) - 1),
                ..Member::file("", records.len() as u64)
            };
            out.extend_from_slice(&extended.block(&name, b'x'));
            out.extend_from_slice(&records);
            out.resize(out.len() + padding(records.len() as u64), 0);
        }
        let flag = match self.kind {
            MemberKind::File => b'0',
            MemberKind::Hardlink => b'1',
            MemberKind::Symlink => b'2',
            MemberKind::CharDevice => b'3',
            MemberKind::BlockDevice => b'4',
            MemberKind::Directory => b'5',
            MemberKind::Fifo => b'6',
        };
        out.extend_from_slice(&self.block(&self.name, flag));
        out
    }

    fn block(&self, name: &[u8], flag: u8) -> [u8; BLOCK as usize] {
        let mut block = [0; BLOCK as usize];
        let mut text = |at: usize, len: usize, value: &[u8]| {
            let n = value.len().min(len);
            block[at..at + n].copy_from_slice(&value[..n]);
        };
        // What does not fit is in a record, which counts.
        let octal = |value: u64, digits: usize| {
            let bits = 3 * digits as u32;
            let value = if value >> bits == 0 { value } else { 0 };
            format!("{value:0digits$o}").into_bytes()
        };
        text(0, 100, name);
        text(100, 7, &octal(u64::from(self.mode & 0o7777), 7));
        text(108, 7, &octal(u64::from(self.uid), 7));
        text(116, 7, &octal(u64::from(self.gid), 7));
        text(124, 11, &octal(self.size, 11));
        text(136, 11, &octal(self.mtime.max(0).cast_unsigned(), 11));
        text(156, 1, &[flag]);
        text(157, 100, &self.link);
        text(257, 8, b"ustar\x0000");
        text(329, 7, &octal(u64::from(self.device.0), 7));
        text(337, 7, &octal(u64::from(self.device.1), 7));
        text(148, 8, b"        ");
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// Writes a PAX record, `LENGTH KEY=VALUE`; the length counts its own digits.
pub(crate) fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    for part in [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"] {
        out.extend_from_slice(part);
    }
}

/// Zeros that follow `size` bytes of content, up to a whole block.
pub fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK) - size) as usize
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Limits, Reader};
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let long = [b"d/".as_slice(), &[b'n'; 200], "\u{e9}".as_bytes()].concat();
        let members = [
            Member::directory("d/"),
            Member { mode: 0o4755, uid: 5_000_000, gid: 7, mtime: 1_700_000_000, ..Member::file("d/a", 3) },
            Member { mtime: -5, ..Member::file("d/old", 0) },
            Member {
                name: long.clone(),
                kind: MemberKind::Symlink,
                link: vec![b't'; 150],
                ..Member::file("", 0)
            },
            Member { kind: MemberKind::Hardlink, link: b"d/a".to_vec(), ..Member::file("d/h", 0) },
            Member { kind: MemberKind::CharDevice, device: (1, 3), ..Member::file("d/null", 0) },
            Member { xattrs: vec![(b"user.x".to_vec(), b"\0\xff=\n".to_vec())], ..Member::file("d/x", 0) },
        ];
        let mut archive = Vec::new();
        for member in &members {
            archive.extend(member.header());
            archive.extend(vec![b'c'; member.size as usize]);
            archive.extend(vec![0; padding(member.size)]);
        }
        archive.extend(END);
        let mut reader = Reader::new(archive.as_slice(), Limits::default());
        for member in &members {
            let entry = reader.next_entry().unwrap().unwrap();
            assert_eq!(entry.name, member.name);
            assert_eq!(entry.link_name, member.link);
            assert_eq!(
                (entry.mode, entry.uid, entry.gid),
                (member.mode.into(), member.uid.into(), member.gid.into())
            );
            assert_eq!((entry.mtime, entry.content_len), (member.mtime, member.size));
        }
        assert!(reader.next_entry().unwrap().is_none());
        let large = Member::file("big", 1 << 40);
        let header = large.header();
        let mut reader = Reader::new(header.as_slice(), Limits::default());
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!((entry.kind, entry.content_len), (Kind::Regular, 1 << 40));
    }
}
