//! Files inside a tar, found by name and read in place.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use coracle_codec::tar::{self, Kind, clean_path};
use coracle_codec::{Section, compress};

use crate::input::Archive;
use crate::{Context, Error};

/// Links followed for one name.
const MAX_LINKS: usize = 8;
/// Members of an archive of images: several for each layer at most.
const MAX_MEMBERS: u64 = 100_000;

/// An archive with the places of its files.
#[derive(Debug, Clone)]
pub(crate) struct TarFiles {
    archive: Arc<Archive>,
    files: Arc<HashMap<Vec<u8>, Member>>,
}

#[derive(Debug, Clone)]
enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Of this name.
    Link(Vec<u8>),
}

impl TarFiles {
    pub(crate) fn open(path: &Path, limits: compress::Limits, context: &Context<'_>) -> Result<Self, Error> {
        let archive = Archive::open(path, limits, context)?;
        Self::of(archive, context)
    }

    pub(crate) fn of(archive: Archive, context: &Context<'_>) -> Result<Self, Error> {
        let mut files = HashMap::new();
        let fail = |error| Error::tar(&archive.path, error);
        {
            let input = BufReader::with_capacity(1 << 17, Section::whole(archive.bytes()).reader());
            let limits = tar::Limits { max_members: MAX_MEMBERS, ..tar::Limits::default() };
            let mut reader = tar::Reader::new(input, limits);
            while let Some(entry) = reader.next_entry().map_err(fail)? {
                if context.observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                let Some(name) = clean_path(&entry.name) else { continue };
                let member = match entry.kind {
                    Kind::Regular if entry.sparse.is_none() => {
                        Member::File { offset: entry.content_offset, size: entry.content_len }
                    }
                    Kind::Hardlink => match clean_path(&entry.link_name) {
                        Some(target) => Member::Link(target),
                        None => continue,
                    },
                    Kind::Symlink => match beside(&name, &entry.link_name) {
                        Some(target) => Member::Link(target),
                        None => continue,
                    },
                    _ => continue,
                };
                files.insert(name, member);
            }
        }
        Ok(TarFiles { archive: Arc::new(archive), files: Arc::new(files) })
    }

    /// Where the file `name` lies, and its size.
    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = clean_path(name.as_bytes())?;
        for _ in 0..MAX_LINKS {
            match self.files.get(&name)? {
                Member::File { offset, size } => return Some((*offset, *size)),
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// The size of the file `name`; `None` if there is none.
    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        self.find(name).map(|(_, size)| size)
    }

    /// Reads the file `name` from `offset` on.
    pub(crate) fn reader(&self, name: &str, offset: u64) -> Option<TarFile> {
        let (start, size) = self.find(name)?;
        Some(TarFile { archive: Arc::clone(&self.archive), pos: start + offset.min(size), end: start + size })
    }

    /// The whole file `name`, if it has at most `limit` bytes.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Option<io::Result<Vec<u8>>> {
        let reader = self.reader(name, 0)?;
        if reader.end - reader.pos > limit {
            return Some(Err(io::Error::other(format!("{name} has more than {limit} bytes"))));
        }
        let mut bytes = Vec::new();
        let mut reader = reader;
        Some(reader.read_to_end(&mut bytes).map(|_| bytes))
    }
}

/// The target of a symlink, relative to where it stands; `None` if it leads out.
fn beside(name: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let mut parts: Vec<&[u8]> = name.split(|b| *b == b'/').collect();
    parts.pop();
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    clean_path(&parts.join(&b'/'))
}

/// One file of an archive.
#[derive(Debug)]
pub(crate) struct TarFile {
    archive: Arc<Archive>,
    pos: u64,
    end: u64,
}

impl Read for TarFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (buf.len() as u64).min(self.end - self.pos) as usize;
        let n = self.archive.bytes().read_at(self.pos, &mut buf[..n])?;
        self.pos += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        assert_eq!(beside(b"a/layer.tar", b"../b/layer.tar"), Some(b"b/layer.tar".to_vec()));
        assert_eq!(beside(b"a", b"b"), Some(b"b".to_vec()));
        assert_eq!(beside(b"a", b"../b"), None);
        assert_eq!(beside(b"a/b", b"/c"), None);
    }
}
