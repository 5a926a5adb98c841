//! The pull parser.

use std::io::{self, Read};

use super::block::{self, Block, Fields, Layout};
use super::details::Details;
use super::pax::{self, Records, decimal};
use super::sparse::{self, RawFragment, SparseMap};
use super::{BLOCK, Error};

/// What a reader spends at most on one archive.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one extended header, long name or PAX 1.0 sparse map. Go's bound is the default: 1 MiB.
    pub max_special: u64,
    /// Fragments of one sparse file.
    pub max_fragments: usize,
    /// Members of the archive.
    pub max_members: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_special: 1 << 20, max_fragments: 1 << 16, max_members: 1 << 24 }
    }
}

/// What kind of member an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file (`0`; NUL in old archives).
    Regular,
    /// Hardlink to [`Entry::link_name`].
    Hardlink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Directory.
    Directory,
    /// FIFO.
    Fifo,
    /// Sparse file in the old GNU form; the PAX forms are [`Kind::Regular`] with a map.
    GnuSparse,
    /// Global PAX header, reported as a member as Go does.
    GlobalHeader,
    /// Any other type flag; its data is kept.
    Other(u8),
}

impl Kind {
    fn of(typeflag: u8) -> Self {
        match typeflag {
            b'0' | 0 => Kind::Regular,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => Kind::GnuSparse,
            b'g' => Kind::GlobalHeader,
            other => Kind::Other(other),
        }
    }

    /// The type flag that Go reports.
    pub fn typeflag(self) -> u8 {
        match self {
            Kind::Regular => b'0',
            Kind::Hardlink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
            Kind::GnuSparse => b'S',
            Kind::GlobalHeader => b'g',
            Kind::Other(other) => other,
        }
    }

    /// Whether a member of this type has no data whatever its size field says.
    fn header_only(self) -> bool {
        use Kind::{BlockDevice, CharDevice, Directory, Fifo, Hardlink, Symlink};
        matches!(self, Hardlink | Symlink | CharDevice | BlockDevice | Directory | Fifo)
    }
}

/// One member of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Offset of the first block that belongs to the member: its extended headers, else its header.
    pub offset: u64,
    /// Offset of the stored content.
    pub content_offset: u64,
    /// Bytes of stored content, without padding.
    pub content_len: u64,
    /// Name as written, PAX and GNU long names applied; any bytes.
    pub name: Vec<u8>,
    /// Link target, for links.
    pub link_name: Vec<u8>,
    /// Type of the member.
    pub kind: Kind,
    /// Size as Go reports it: the expanded size of a sparse file; for links and directories whatever the header says.
    pub size: i64,
    /// Permission bits and setuid, setgid, sticky.
    pub mode: i64,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Modification time, whole seconds (rounded down).
    pub mtime: i64,
    /// Nanoseconds after [`Entry::mtime`].
    pub mtime_nanos: u32,
    /// Major and minor number of a device.
    pub device: (i64, i64),
    /// Extended attributes (`SCHILY.xattr.*`): names and values, in byte order of the names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Map of a sparse file in any of the four forms.
    pub sparse: Option<SparseMap>,
}

/// Reads an archive member by member; see the [module](super).
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    limits: Limits,
    pos: u64,
    /// Stored bytes of the current content not read yet.
    left: u64,
    padding: u64,
    members: u64,
    done: bool,
    /// The header of the last member, and its records.
    last: Option<(Block, Layout, Records)>,
}

impl<R: Read> Reader<R> {
    /// A reader at the start of an uncompressed archive.
    pub fn new(input: R, limits: Limits) -> Self {
        Reader { input, limits, pos: 0, left: 0, padding: 0, members: 0, done: false, last: None }
    }

    /// What an [`Entry`] leaves out about the last member; nothing before the first and after a global header.
    ///
    /// # Errors
    /// [`Error::InvalidHeader`] for times and numbers that Go would not read.
    pub fn details(&self, entry: &Entry) -> Result<Details, Error> {
        let Some((header, layout, records)) = &self.last else { return Ok(Details::default()) };
        Details::new(header, *layout, records, entry.mtime)
            .map_err(|what| Error::InvalidHeader { offset: entry.offset, what })
    }

    /// The input.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// Passes over the content of the current member, which the input does not have: it goes on with the padding.
    /// [`Reader::position`] counts it nonetheless.
    pub fn omit_content(&mut self) {
        self.pos += self.left;
        self.left = 0;
    }

    /// Bytes taken from the input so far.
    pub fn position(&self) -> u64 {
        self.pos
    }

    /// The next member; content that was not read is skipped. `None` at the end of the archive, which is two zero
    /// blocks, one zero block before the end of the input, or the end of the input.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        if self.done {
            return Ok(None);
        }
        let entry = self.parse_entry()?;
        if entry.is_none() {
            self.done = true;
        } else {
            self.members += 1;
            if self.members > self.limits.max_members {
                return Err(Error::TooManyMembers(self.limits.max_members));
            }
        }
        Ok(entry)
    }

    /// The rest of the input after [`Reader::next_entry`] gave `None`: anything behind the end of the archive.
    pub fn into_rest(self) -> R {
        self.input
    }

    fn parse_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut records = Records::new();
        let (mut long_name, mut long_link) = (Vec::new(), Vec::new());
        let mut start = None;
        loop {
            self.skip_content()?;
            let offset = self.pos;
            let Some((header, layout)) = self.header_block()? else { return Ok(None) };
            let start = *start.get_or_insert(offset);
            let invalid = |what| Error::InvalidHeader { offset, what };
            let fields = block::fields(&header, layout).map_err(invalid)?;
            self.set_content(&fields, Kind::of(fields.typeflag), offset)?;
            match fields.typeflag {
                b'x' => records = pax::parse(&self.special("PAX header", offset)?).map_err(invalid)?,
                b'g' => {
                    let records = pax::parse(&self.special("PAX header", offset)?).map_err(invalid)?;
                    let mut merged = fields;
                    merge(&mut merged, &records).map_err(invalid)?;
                    self.last = None;
                    return Ok(Some(global_header(start, self.pos, merged.name)));
                }
                b'L' => long_name = block::text(&self.special("long name", offset)?).to_vec(),
                b'K' => long_link = block::text(&self.special("long link name", offset)?).to_vec(),
                _ => {
                    let mut fields = fields;
                    merge(&mut fields, &records).map_err(invalid)?;
                    if !long_name.is_empty() {
                        fields.name = long_name;
                    }
                    if !long_link.is_empty() {
                        fields.link_name = long_link;
                    }
                    let entry = self.member(start, offset, fields, &records, &header, layout)?;
                    self.last = Some((header, layout, records));
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Finishes a member once all its extended headers are merged.
    fn member(
        &mut self,
        start: u64,
        offset: u64,
        mut fields: Fields,
        records: &Records,
        header: &Block,
        layout: Layout,
    ) -> Result<Entry, Error> {
        let kind = match fields.typeflag {
            0 if fields.name.ends_with(b"/") => Kind::Directory,
            flag => Kind::of(flag),
        };
        self.set_content(&fields, kind, offset)?;
        let map = self.sparse_map(&mut fields, kind, records, header, layout, offset)?;
        let sparse =
            match map {
                None => None,
                Some(_) if kind.header_only() => {
                    return Err(Error::InvalidHeader { offset, what: "sparse map on a member without data" });
                }
                Some(raw) => Some(SparseMap::new(raw, fields.size).ok_or(Error::InvalidHeader {
                    offset,
                    what: "sparse map out of order or out of range",
                })?),
            };
        Ok(Entry {
            offset: start,
            content_offset: self.pos,
            content_len: self.left,
            name: fields.name,
            link_name: fields.link_name,
            kind,
            size: fields.size,
            mode: fields.mode,
            uid: fields.uid,
            gid: fields.gid,
            mtime: fields.mtime,
            mtime_nanos: records.get(&b"mtime"[..]).and_then(|t| pax::time(t)).map_or(0, |(_, nanos)| nanos),
            device: fields.device,
            xattrs: xattrs(records),
            sparse,
        })
    }

    /// Finds the sparse map of a member, if it has one; updates its name and size.
    fn sparse_map(
        &mut self,
        fields: &mut Fields,
        kind: Kind,
        records: &Records,
        header: &Block,
        layout: Layout,
        offset: u64,
    ) -> Result<Option<Vec<RawFragment>>, Error> {
        let invalid = |what| Error::InvalidHeader { offset, what };
        if kind == Kind::GnuSparse {
            if layout != Layout::Gnu {
                return Err(invalid("sparse member outside a GNU archive"));
            }
            fields.size = block::number(&header[483..495]).map_err(invalid)?;
            let (mut map, mut more) = sparse::gnu_entries(header, true).map_err(invalid)?;
            while more {
                let extension = self.block()?.ok_or(Error::UnexpectedEof { offset: self.pos })?;
                let (entries, again) = sparse::gnu_entries(&extension, false).map_err(invalid)?;
                map.extend(entries);
                if map.len() > self.limits.max_fragments {
                    return Err(Error::TooLong { offset, what: "sparse map" });
                }
                more = again;
            }
            return Ok(Some(map));
        }
        let get = |key: &[u8]| records.get(key).map(Vec::as_slice).unwrap_or_default();
        let format_1 = match (get(b"GNU.sparse.major"), get(b"GNU.sparse.minor")) {
            (b"0", b"0" | b"1") => false,
            (b"1", b"0") => true,
            (b"", b"") if !get(b"GNU.sparse.map").is_empty() => false,
            _ => return Ok(None),
        };
        if !get(b"GNU.sparse.name").is_empty() {
            fields.name = get(b"GNU.sparse.name").to_vec();
        }
        let size = [get(b"GNU.sparse.size"), get(b"GNU.sparse.realsize")];
        if let Some(size) = size.into_iter().find(|s| !s.is_empty()) {
            fields.size = decimal(size).ok_or_else(|| invalid("malformed sparse size"))?;
        }
        if format_1 {
            return self.pax_1_map(offset).map(Some);
        }
        sparse::pax_0_map(records).map(Some).ok_or_else(|| invalid("malformed sparse map in a PAX header"))
    }

    /// The map that PAX format 1.0 puts in front of the data, in whole blocks of decimal lines.
    fn pax_1_map(&mut self, offset: u64) -> Result<Vec<RawFragment>, Error> {
        let malformed = || Error::InvalidHeader { offset, what: "malformed sparse map" };
        let mut text: Vec<u8> = Vec::new();
        let (mut read_to, mut wanted, mut numbers) = (0, 1usize, Vec::new());
        while numbers.len() < wanted {
            let Some(len) = text[read_to..].iter().position(|&b| b == b'\n') else {
                if text.len() as u64 + BLOCK > self.limits.max_special {
                    return Err(Error::TooLong { offset, what: "sparse map" });
                }
                let mut b = [0; BLOCK as usize];
                self.read_content_exact(&mut b)?;
                text.extend_from_slice(&b);
                continue;
            };
            let number = decimal(&text[read_to..read_to + len]).ok_or_else(malformed)?;
            read_to += len + 1;
            if numbers.is_empty() {
                let count = usize::try_from(number).map_err(|_| malformed())?;
                if count > self.limits.max_fragments {
                    return Err(Error::TooLong { offset, what: "sparse map" });
                }
                wanted += 2 * count;
            }
            numbers.push(number);
        }
        Ok(numbers[1..].chunks_exact(2).map(|p| (p[0], p[1])).collect())
    }

    /// Declares the content that follows the header just read.
    fn set_content(&mut self, fields: &Fields, kind: Kind, offset: u64) -> Result<(), Error> {
        let stored = if kind.header_only() { 0 } else { fields.size };
        self.left =
            u64::try_from(stored).map_err(|_| Error::InvalidHeader { offset, what: "negative size" })?;
        self.padding = self.left.next_multiple_of(BLOCK) - self.left;
        Ok(())
    }

    /// The content of an extended header, bounded.
    fn special(&mut self, what: &'static str, offset: u64) -> Result<Vec<u8>, Error> {
        if self.left > self.limits.max_special {
            return Err(Error::TooLong { offset, what });
        }
        let mut content = vec![0; self.left as usize];
        self.read_content_exact(&mut content)?;
        Ok(content)
    }

    fn read_content_exact(&mut self, buf: &mut [u8]) -> Result<(), Error> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read(&mut buf[filled..])? {
                0 => return Err(Error::UnexpectedEof { offset: self.pos }),
                n => filled += n,
            }
        }
        Ok(())
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        let mut buf = [0; 8192];
        while self.left > 0 {
            if self.read(&mut buf)? == 0 {
                return Err(Error::UnexpectedEof { offset: self.pos });
            }
        }
        // A last member without padding is legal for Go.
        let want = self.padding as usize;
        self.padding = 0;
        self.fill(&mut buf[..want])?;
        Ok(())
    }

    /// The next header block; `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<(Block, Layout)>, Error> {
        let offset = self.pos;
        let Some(first) = self.block()? else { return Ok(None) };
        if first != [0; 512] {
            let layout =
                block::layout(&first).ok_or(Error::InvalidHeader { offset, what: block::BAD_CHECKSUM })?;
            return Ok(Some((first, layout)));
        }
        match self.block()? {
            None => Ok(None),
            Some(second) if second == [0; 512] => Ok(None),
            Some(_) => Err(Error::InvalidHeader { offset, what: "a lone zero block inside the archive" }),
        }
    }

    /// One whole block; `None` at a clean end of the input.
    fn block(&mut self) -> Result<Option<Block>, Error> {
        let mut b = [0; BLOCK as usize];
        match self.fill(&mut b)? {
            0 => Ok(None),
            512 => Ok(Some(b)),
            _ => Err(Error::UnexpectedEof { offset: self.pos }),
        }
    }

    /// Reads until `buf` is full or the input ends; bytes read.
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut n = 0;
        while n < buf.len() {
            match self.input.read(&mut buf[n..]) {
                Ok(0) => break,
                Ok(k) => n += k,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.pos += n as u64;
        Ok(n)
    }
}

/// Reads the stored content of the current member; 0 at its end.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when the archive ends inside the content.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = (buf.len() as u64).min(self.left) as usize;
        if want == 0 {
            return Ok(0);
        }
        let n = self.input.read(&mut buf[..want])?;
        if n == 0 {
            let what = format!("tar ends unexpectedly at byte {}", self.pos);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.pos += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Applies PAX records to a header; empty values keep what the header says.
fn merge(fields: &mut Fields, records: &Records) -> Result<(), &'static str> {
    const BAD: &str = "malformed number in a PAX header";
    for (key, value) in records.iter().filter(|(_, v)| !v.is_empty()) {
        match key.as_slice() {
            b"path" => fields.name.clone_from(value),
            b"linkpath" => fields.link_name.clone_from(value),
            b"uid" => fields.uid = decimal(value).ok_or(BAD)?,
            b"gid" => fields.gid = decimal(value).ok_or(BAD)?,
            b"size" => fields.size = decimal(value).ok_or(BAD)?,
            b"mtime" => fields.mtime = pax::time(value).ok_or(BAD)?.0,
            b"atime" | b"ctime" => {
                pax::time(value).ok_or(BAD)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Extended attributes; one without a name is none.
fn xattrs(records: &Records) -> Vec<(Vec<u8>, Vec<u8>)> {
    const PREFIX: &[u8] = b"SCHILY.xattr.";
    let named = records.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    named.filter(|(name, _)| !name.is_empty()).map(|(name, value)| (name.to_vec(), value.clone())).collect()
}

/// Go reports a global header as a member that has only a name.
fn global_header(offset: u64, end: u64, name: Vec<u8>) -> Entry {
    Entry {
        offset,
        content_offset: end,
        content_len: 0,
        name,
        link_name: Vec::new(),
        kind: Kind::GlobalHeader,
        size: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nanos: 0,
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    }
}
