//! The table of contents (`docs/formats/chunked.md`, section 3).

mod read;
mod time;
mod write;

pub use time::rfc3339;
pub(super) use write::TocWriter;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::compress::{FrameEnd, ZstdReader};
use crate::digest::Digest;
use crate::tar::{Details, Kind, Time};

use super::{Error, Family, Limits, Place};

/// What a TOC says a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Hardlink.
    Hardlink,
    /// Symbolic link.
    Symlink,
    /// Directory.
    Directory,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// FIFO.
    Fifo,
}

impl EntryKind {
    const ALL: [(EntryKind, &'static str, Kind); 7] = [
        (EntryKind::File, "reg", Kind::Regular),
        (EntryKind::Hardlink, "hardlink", Kind::Hardlink),
        (EntryKind::Symlink, "symlink", Kind::Symlink),
        (EntryKind::Directory, "dir", Kind::Directory),
        (EntryKind::CharDevice, "char", Kind::CharDevice),
        (EntryKind::BlockDevice, "block", Kind::BlockDevice),
        (EntryKind::Fifo, "fifo", Kind::Fifo),
    ];

    /// The word for it in a TOC.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, other, _)| *other == name).map(|(kind, ..)| *kind)
    }

    /// What it is in a tar.
    pub fn in_tar(self) -> Kind {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or(Kind::Regular, |(_, _, kind)| *kind)
    }

    /// That of a tar; `None` if a TOC has no word for it.
    pub fn of(kind: Kind) -> Option<Self> {
        Self::ALL.iter().find(|(_, _, other)| *other == kind).map(|(kind, ..)| *kind)
    }
}

/// A part of a content that can be had by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins in the content.
    pub offset: u64,
    /// Bytes of it.
    pub size: u64,
    /// Digest of its bytes.
    pub digest: Option<Digest>,
    /// Whether it is nothing but zeros.
    pub zeros: bool,
    /// Where it is stored in the blob. The end may lie behind its last byte, never before it.
    pub stored: Range<u64>,
    /// Bytes to pass over in the stream that begins there.
    pub inner: u64,
}

/// A member as a TOC has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Name as the tar has it.
    pub name: String,
    /// Target of links.
    pub link_name: String,
    /// Permission bits and setuid, setgid, sticky.
    pub mode: i64,
    /// Bytes of content of a file; of anything else what the header says.
    pub size: u64,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Modification time; without one, that of the year 1970.
    pub mtime: Time,
    /// Last access, if it is said.
    pub atime: Option<Time>,
    /// Last change, if it is said.
    pub ctime: Option<Time>,
    /// Major and minor number of devices.
    pub device: (i64, i64),
    /// Name of the owner; only eStargz says it.
    pub user_name: String,
    /// Name of the group; only eStargz says it.
    pub group_name: String,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Digest of the content, of files that have any.
    pub digest: Option<Digest>,
    /// The content in its order, of files that have any.
    pub chunks: Vec<Chunk>,
}

impl Entry {
    /// What a TOC says of a member of a tar, all but its content.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for what a TOC cannot say.
    pub(super) fn of(entry: &crate::tar::Entry, details: Details) -> Result<Entry, Error> {
        let shown = || String::from_utf8_lossy(&entry.name).into_owned();
        let unsupported = |what| Error::Unsupported { name: shown(), what };
        let text = |bytes: Vec<u8>, what| String::from_utf8(bytes).map_err(|_| unsupported(what));
        let kind = EntryKind::of(entry.kind).filter(|_| entry.sparse.is_none());
        let kind = kind.ok_or(unsupported("there is no word for its type"))?;
        let mut xattrs = BTreeMap::new();
        for (name, value) in details.xattrs {
            xattrs.insert(text(name, "the name of an extended attribute is no UTF-8")?, value);
        }
        Ok(Entry {
            kind,
            name: text(entry.name.clone(), "its name is no UTF-8")?,
            link_name: text(entry.link_name.clone(), "its target is no UTF-8")?,
            mode: entry.mode,
            size: u64::try_from(entry.size).map_err(|_| unsupported("its size is negative"))?,
            uid: entry.uid,
            gid: entry.gid,
            mtime: details.mtime,
            atime: details.atime,
            ctime: details.ctime,
            device: details.device,
            user_name: text(details.user_name, "the name of its owner is no UTF-8")?,
            group_name: text(details.group_name, "the name of its group is no UTF-8")?,
            xattrs,
            digest: None,
            chunks: Vec::new(),
        })
    }

    /// The first thing that another entry says otherwise of the same member. Names of owners and contents are not
    /// compared.
    pub(super) fn difference(&self, other: &Entry) -> Option<&'static str> {
        let epoch = |time: Option<Time>| time.unwrap_or_default();
        let sizes = self.kind == EntryKind::File && self.size != other.size;
        [
            ("name", self.name != other.name),
            ("type", self.kind != other.kind),
            ("link target", self.link_name != other.link_name),
            ("mode", self.mode != other.mode),
            ("size", sizes),
            ("owner", self.uid != other.uid || self.gid != other.gid),
            ("modification time", self.mtime != other.mtime),
            ("access time", epoch(self.atime) != epoch(other.atime)),
            ("change time", epoch(self.ctime) != epoch(other.ctime)),
            ("device numbers", self.device != other.device),
            ("extended attributes", self.xattrs != other.xattrs),
        ]
        .into_iter()
        .find(|(_, differs)| *differs)
        .map(|(what, _)| what)
    }
}

/// A table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// The members, in the order of the tar.
    pub entries: Vec<Entry>,
    /// Digest of the stored tar-split that belongs to it.
    pub split: Option<Digest>,
    /// Whether each content says where it ends: what lies between contents can be had by itself then.
    pub ends_said: bool,
}

impl Toc {
    /// Reads the stored bytes of the TOC of a zstd:chunked layer, compared with `place`.
    ///
    /// # Errors
    /// They are others, or break a rule.
    pub fn read(stored: &[u8], place: &Place, limits: &Limits) -> Result<Toc, Error> {
        let toc = place.toc.ok_or(Error::Outside { what: "the TOC" })?;
        compare("the TOC", stored, &place.digest)?;
        let json = decode("the TOC", stored, toc.decoded, limits)?;
        Toc::parse(&json, place.family, place.data_end(), limits)
    }

    /// Parses a TOC. Contents lie before `data_end` in the blob.
    ///
    /// # Errors
    /// It breaks a rule.
    pub fn parse(json: &[u8], family: Family, data_end: u64, limits: &Limits) -> Result<Toc, Error> {
        read::parse(json, family, data_end, limits)
    }
}

pub(super) fn compare(what: &str, bytes: &[u8], expected: &Digest) -> Result<(), Error> {
    let (what, actual) = (what.to_owned(), Digest::of(bytes));
    if actual == *expected { Ok(()) } else { Err(Error::Digest { what, expected: *expected, actual }) }
}

/// Decodes one document to exactly as many bytes as were said.
pub(super) fn decode(
    what: &'static str,
    stored: &[u8],
    decoded: u64,
    limits: &Limits,
) -> Result<Vec<u8>, Error> {
    if decoded > limits.decoded {
        return Err(Error::TooLarge { what, actual: decoded, limit: limits.decoded });
    }
    let mut out = Vec::new();
    let mut reader = ZstdReader::new(stored, limits.window_log, FrameEnd::Stop);
    std::io::Read::read_to_end(&mut std::io::Read::take(&mut reader, decoded + 1), &mut out)?;
    if out.len() as u64 == decoded { Ok(out) } else { Err(Error::Length { what: what.to_owned() }) }
}
