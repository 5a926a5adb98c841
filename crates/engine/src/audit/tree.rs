//! The files of an image: its layers laid over each other.

use std::collections::BTreeMap;

use coracle_codec::chunked::{Entry, EntryKind};
use coracle_codec::digest::Digest;
use coracle_codec::tar::{self, Kind, clean_path};

/// Links that are followed for one name.
const MAX_LINKS: usize = 40;
/// Prefix of a file that removes the one of its name from the layers below (image-spec 1.1, "layer", whiteouts).
const WHITEOUT: &[u8] = b".wh.";
/// A file that removes all that the layers below have in its folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// FIFO.
    Fifo,
}

impl FileKind {
    /// The letter that `ls -l` shows.
    pub fn letter(self) -> char {
        match self {
            FileKind::File => '-',
            FileKind::Directory => 'd',
            FileKind::Symlink => 'l',
            FileKind::CharDevice => 'c',
            FileKind::BlockDevice => 'b',
            FileKind::Fifo => 'p',
        }
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
            FileKind::CharDevice => "char-device",
            FileKind::BlockDevice => "block-device",
            FileKind::Fifo => "fifo",
        }
    }
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path in normal form, without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits and setuid, setgid, sticky.
    pub mode: i64,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Bytes of content.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Target of a symbolic link.
    pub link: Vec<u8>,
    /// Digest of the content, where it is known.
    pub digest: Option<Digest>,
    /// Number of the layer that it comes from.
    pub layer: usize,
    /// Number of the member in that layer that has the content.
    pub(super) source: (usize, usize),
}

/// A member of one layer.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) name: Vec<u8>,
    /// `None` for a hardlink.
    pub(super) kind: Option<FileKind>,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) link: Vec<u8>,
    pub(super) digest: Option<Digest>,
}

impl Found {
    pub(super) fn of_toc(entry: &Entry) -> Self {
        let kind = match entry.kind {
            EntryKind::File => Some(FileKind::File),
            EntryKind::Hardlink => None,
            EntryKind::Symlink => Some(FileKind::Symlink),
            EntryKind::Directory => Some(FileKind::Directory),
            EntryKind::CharDevice => Some(FileKind::CharDevice),
            EntryKind::BlockDevice => Some(FileKind::BlockDevice),
            EntryKind::Fifo => Some(FileKind::Fifo),
        };
        let empty = entry.kind == EntryKind::File && entry.size == 0;
        Found {
            name: entry.name.clone().into_bytes(),
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: if entry.kind == EntryKind::File { entry.size } else { 0 },
            mtime: entry.mtime.seconds,
            link: entry.link_name.clone().into_bytes(),
            digest: if empty { Some(Digest::of(b"")) } else { entry.digest },
        }
    }

    /// `None` for what is no file.
    pub(super) fn of_tar(entry: &tar::Entry, digest: Option<Digest>) -> Option<Self> {
        let kind = match entry.kind {
            Kind::Regular | Kind::GnuSparse => Some(FileKind::File),
            Kind::Hardlink => None,
            Kind::Symlink => Some(FileKind::Symlink),
            Kind::Directory => Some(FileKind::Directory),
            Kind::CharDevice => Some(FileKind::CharDevice),
            Kind::BlockDevice => Some(FileKind::BlockDevice),
            Kind::Fifo => Some(FileKind::Fifo),
            Kind::GlobalHeader | Kind::Other(_) => return None,
        };
        let is_file = kind == Some(FileKind::File);
        Some(Found {
            name: entry.name.clone(),
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: if is_file { u64::try_from(entry.size).unwrap_or(0) } else { 0 },
            mtime: entry.mtime,
            link: entry.link_name.clone(),
            digest,
        })
    }
}

/// The files of an image by their paths.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<Vec<u8>, Member>);

impl Tree {
    /// Lays a layer over what is here.
    pub(super) fn lay(&mut self, layer: usize, members: &[Found]) {
        let parts = |name: &[u8]| {
            let path = clean_path(name)?;
            let cut = path.iter().rposition(|byte| *byte == b'/');
            let (folder, file) = match cut {
                Some(at) => (path[..at].to_vec(), path[at + 1..].to_vec()),
                None => (Vec::new(), path.clone()),
            };
            Some((path, folder, file))
        };
        // What a layer removes lies below it, wherever in the layer that is said.
        for found in members {
            let Some((_, folder, file)) = parts(&found.name) else { continue };
            if file == OPAQUE {
                self.remove_below(&folder);
            } else if let Some(name) = file.strip_prefix(WHITEOUT) {
                let path =
                    if folder.is_empty() { name.to_vec() } else { [&folder, &b"/"[..], name].concat() };
                self.0.remove(&path);
                self.remove_below(&path);
            }
        }
        for (number, found) in members.iter().enumerate() {
            let Some((path, _, file)) = parts(&found.name) else { continue };
            if file.starts_with(WHITEOUT) {
                continue;
            }
            let member = |kind, size, digest, source| Member {
                path: path.clone(),
                kind,
                mode: found.mode,
                uid: found.uid,
                gid: found.gid,
                size,
                mtime: found.mtime,
                link: if kind == FileKind::Symlink { found.link.clone() } else { Vec::new() },
                digest,
                layer,
                source,
            };
            let member = match found.kind {
                Some(kind) => member(kind, found.size, found.digest, (layer, number)),
                // Another name of a file that is here by now.
                None => match clean_path(&found.link).and_then(|target| self.0.get(&target)) {
                    Some(target) => Member { path: path.clone(), layer, ..target.clone() },
                    None => continue,
                },
            };
            if member.kind != FileKind::Directory {
                self.remove_below(&path);
            }
            self.0.insert(path, member);
        }
    }

    fn remove_below(&mut self, folder: &[u8]) {
        let doomed: Vec<Vec<u8>> = self.strictly_below(folder).map(|(path, _)| path.clone()).collect();
        doomed.iter().for_each(|path| {
            self.0.remove(path);
        });
    }

    fn strictly_below(&self, folder: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Member)> {
        let prefix = if folder.is_empty() { Vec::new() } else { [folder, b"/"].concat() };
        self.0.range(prefix.clone()..).take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// What is at `path`, and below it.
    pub(super) fn below(&self, path: &[u8]) -> impl Iterator<Item = &Member> {
        let own = if path.is_empty() { None } else { self.0.get(path) };
        own.into_iter().chain(self.strictly_below(path).map(|(_, member)| member))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Member)> {
        self.0.iter()
    }

    /// What a path leads to, links followed as the kernel would inside of the image.
    pub(super) fn resolve(&self, path: &[u8]) -> Option<&Member> {
        let mut rest: Vec<Vec<u8>> = components(path);
        rest.reverse();
        let (mut at, mut links) = (Vec::<Vec<u8>>::new(), 0);
        while let Some(part) = rest.pop() {
            if part == b".." {
                at.pop();
                continue;
            }
            at.push(part);
            let here = at.join(&b'/');
            if let Some(member) = self.0.get(&here)
                && member.kind == FileKind::Symlink
            {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                if member.link.starts_with(b"/") {
                    at.clear();
                } else {
                    at.pop();
                }
                rest.extend(components(&member.link).into_iter().rev());
            }
        }
        self.0.get(&at.join(&b'/'))
    }
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, kind: Option<FileKind>, link: &str) -> Found {
        Found {
            name: name.into(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: link.into(),
            digest: None,
        }
    }

    fn file(name: &str) -> Found {
        found(name, Some(FileKind::File), "")
    }

    fn link(name: &str, to: &str) -> Found {
        found(name, Some(FileKind::Symlink), to)
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    }

    #[test]
    fn layers_hide_what_they_say() {
        let mut tree = Tree::default();
        tree.lay(0, &[file("a/x"), file("a/y"), file("b/z"), file("ab"), file("c/d/e"), file("kept")]);
        tree.lay(1, &[file("a/.wh.x"), file("b/new"), file("b/.wh..wh..opq"), file("./c"), file(".wh.kept")]);
        assert_eq!(paths(&tree), ["a/y", "ab", "b/new", "c"]);
        tree.lay(2, &[found("hard", None, "./a/y"), found("lost", None, "nowhere")]);
        let hard = tree.resolve(b"/hard").unwrap();
        assert_eq!((hard.layer, hard.source), (2, (0, 1)));
        assert_eq!(tree.below(b"a").count(), 1);
    }

    #[test]
    fn links_lead_where_the_kernel_would_go() {
        let mut tree = Tree::default();
        tree.lay(
            0,
            &[
                file("usr/bin/tool"),
                link("bin", "usr/bin"),
                link("etc/up", "../../../bin/tool"),
                link("abs", "/etc/up"),
                link("loop", "loop"),
            ],
        );
        for path in ["usr/bin/tool", "/bin/tool", "bin/../bin/./tool", "abs"] {
            assert_eq!(tree.resolve(path.as_bytes()).unwrap().path, b"usr/bin/tool", "{path}");
        }
        assert!(tree.resolve(b"loop").is_none());
        assert!(tree.resolve(b"bin/none").is_none());
    }
}
