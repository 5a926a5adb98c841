//! Contents in trees of files that are no image: one on this machine that somebody named, or a tree that is replaced.
//!
//! Files are looked up by the names that a table of contents has, each beneath the tree, and never by going through it.
//! What is found is believed only when it was hashed; it may change afterwards, which whoever uses it notices, since the
//! file is another one then and the result is compared in any case.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::ReadAt;
use coracle_codec::chunked::Entry;
use coracle_codec::digest::Hasher;
use coracle_codec::tar::clean_path;
use coracle_sys::beneath::Root;

use super::local::{Held, Stretch, wanted_chunks};

/// Bytes of files that are hashed for one look.
const MAX_HASHED: u64 = 16 << 30;
/// Permission to read a file, and to search a folder, for all.
const ALL_MAY_READ: u32 = 0o004;
const ALL_MAY_SEARCH: u32 = 0o001;

/// A tree of files.
#[derive(Debug, Clone)]
pub(crate) struct HostTree {
    root: Arc<Root>,
    /// Whether files count that not all may read.
    private: bool,
    /// Folders, and whether all may reach what is in them.
    open: Arc<Mutex<HashMap<Vec<u8>, bool>>>,
}

impl HostTree {
    /// A tree that this program has made.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn own(path: &Path) -> io::Result<Self> {
        Ok(HostTree { root: Arc::new(Root::open(path)?), private: true, open: Arc::default() })
    }

    /// Any tree. What is fetched tells the registry what is here, so of files that not all may read nothing is told.
    ///
    /// # Errors
    /// As [`HostTree::own`].
    pub(crate) fn named(path: &Path) -> io::Result<Self> {
        Ok(HostTree { private: false, ..HostTree::own(path)? })
    }

    /// The file of this name, if it is a regular one that may be used.
    fn file(&self, name: &[u8]) -> Option<(HostFile, File)> {
        let file = self.root.open_plain(name).ok()?;
        let seen = Seen::of(&file.metadata().ok()?);
        if !self.private && (seen.mode & ALL_MAY_READ == 0 || !self.all_may_reach(name)) {
            return None;
        }
        Some((HostFile { root: Arc::clone(&self.root), name: name.to_vec(), seen }, file))
    }
}

impl HostTree {
    /// Whether everybody may search all folders on the way to `name`, that of the tree itself among them.
    fn all_may_reach(&self, name: &[u8]) -> bool {
        let folder = match name.iter().rposition(|byte| *byte == b'/') {
            Some(at) => &name[..at],
            None => b"",
        };
        if let Some(known) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(folder) {
            return *known;
        }
        let mode = self.root.plain_folder_mode(folder);
        let open = mode.is_ok_and(|mode| mode & ALL_MAY_SEARCH != 0)
            && (folder.is_empty() || self.all_may_reach(folder));
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_vec(), open);
        open
    }
}

/// How a file was when it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    place: (u64, u64),
    size: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(meta: &Metadata) -> Self {
        Seen {
            place: (meta.dev(), meta.ino()),
            size: meta.len(),
            mode: meta.mode(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// A file of a tree. It is opened for each reading: there may be more of them than files can be open.
#[derive(Debug)]
struct HostFile {
    root: Arc<Root>,
    name: Vec<u8>,
    seen: Seen,
}

impl ReadAt for HostFile {
    fn size(&self) -> u64 {
        self.seen.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = self.root.open_plain(&self.name).map_err(io::Error::other)?;
        if Seen::of(&file.metadata()?) != self.seen {
            return Err(io::Error::other(format!("{} has changed", self.name.escape_ascii())));
        }
        file.read_at(buf, offset)
    }
}

/// A file that is open.
struct Open<'a>(&'a File, u64);

impl ReadAt for Open<'_> {
    fn size(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
}

impl Held {
    /// Looks for contents of these files in a tree, under their own names: whole ones, and chunks of those that have
    /// several.
    pub(super) fn look_in<'a>(&mut self, tree: &HostTree, entries: impl Iterator<Item = &'a Entry>) {
        let mut hashed = 0_u64;
        for entry in entries {
            let Some(digest) = entry.digest.filter(|digest| !self.has(digest)) else { continue };
            let Some(name) = clean_path(entry.name.as_bytes()) else { continue };
            let Some((here, file)) = tree.file(&name) else { continue };
            let (same_size, cut) = (here.seen.size == entry.size, entry.chunks.len() > 1);
            if here.seen.size == 0 || !(same_size || cut) {
                continue;
            }
            hashed = hashed.saturating_add(here.seen.size);
            if hashed > MAX_HASHED {
                return;
            }
            let (open, here) = (Open(&file, here.seen.size), Arc::new(here) as Arc<dyn ReadAt>);
            // What cannot be read is not here.
            if same_size && digest_of(&open).is_ok_and(|actual| actual == digest) {
                self.stretches.insert(digest, Stretch { bytes: here, offset: 0 });
            } else if cut {
                let _ = self.cut(&open, &here, 0, open.1, &wanted_chunks([entry]));
            }
        }
    }
}

fn digest_of(bytes: &dyn ReadAt) -> io::Result<coracle_codec::digest::Digest> {
    let (mut hasher, mut at) = (Hasher::new(), 0);
    let mut piece = vec![0; bytes.size().min(256 << 10) as usize];
    while at < bytes.size() {
        let n = (bytes.size() - at).min(piece.len() as u64) as usize;
        bytes.read_exact_at(at, &mut piece[..n])?;
        hasher.update(&piece[..n]);
        at += n as u64;
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use coracle_codec::chunked::{Chunk, EntryKind};
    use coracle_codec::digest::Digest;

    use super::*;

    fn entry(name: &str, content: &[u8]) -> Entry {
        let (size, digest) = (content.len() as u64, Some(Digest::of(content)));
        let chunk = Chunk { offset: 0, size, digest, zeros: false, stored: 1..2, inner: 0 };
        Entry {
            kind: EntryKind::File,
            name: name.into(),
            link_name: String::new(),
            mode: 0o644,
            size,
            uid: 0,
            gid: 0,
            mtime: Default::default(),
            atime: None,
            ctime: None,
            device: (0, 0),
            user_name: String::new(),
            group_name: String::new(),
            xattrs: Default::default(),
            digest,
            chunks: vec![chunk],
        }
    }

    #[test]
    fn files_are_used_that_are_what_they_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(at("home/below")).unwrap();
        std::fs::set_permissions(at("home"), PermissionsExt::from_mode(0o750)).unwrap();
        let files = [("good", "content"), ("other", "contend"), ("secret", "private"), ("long", "too long")];
        for (name, content) in files.into_iter().chain([("home/below/readable", "readable")]) {
            std::fs::write(at(name), content).unwrap();
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(0o644)).unwrap();
        }
        std::fs::set_permissions(at("secret"), PermissionsExt::from_mode(0o640)).unwrap();
        symlink("good", at("link")).unwrap();
        let entries = [
            entry("./good", b"content"),
            entry("other", b"content!"),
            entry("secret", b"private"),
            entry("home/below/readable", b"readable"),
            entry("long", b"too"),
            entry("link", b"linked!"),
            entry("../good", b"outside"),
            entry("absent", b"absent"),
        ];
        let look = |tree: HostTree| {
            let mut held = Held::default();
            held.look_in(&tree, entries.iter());
            held
        };
        let held = look(HostTree::named(dir.path()).unwrap());
        assert_eq!(held.stretches.keys().collect::<Vec<_>>(), [&Digest::of(b"content")]);
        let own = look(HostTree::own(dir.path()).unwrap());
        assert!(own.has(&Digest::of(b"private")) && own.has(&Digest::of(b"readable")));
        // One that changes afterwards is no source any more, whatever its size and time.
        let stretch = &held.stretches[&Digest::of(b"content")];
        let mut bytes = [0; 7];
        stretch.bytes.read_exact_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"content");
        std::fs::write(at("good"), "changed").unwrap();
        assert!(stretch.bytes.read_exact_at(0, &mut bytes).is_err());
        assert!(HostTree::named(&at("absent")).is_err());
    }
}
