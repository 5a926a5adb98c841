//! Making a tree of files beneath a directory, whatever the names say.
//!
//! The names come from archives, and what the tree holds by now came from archives, too. A path is resolved as in
//! [`beneath`](crate::beneath): links count from the directory on, `..` stops there, and the last component is never
//! followed. Nothing outside is opened, made, changed or removed.
//!
//! Names are taken apart here and passed to the kernel one component at a time where more is to be made than is there.
//! A name longer than the kernel takes as a whole ([`PATH_MAX`]) is refused: no program could open the file by it.

mod sift;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Dev, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, fstat, futimens, ioctl_ficlone, linkat,
    lsetxattr, makedev, mkdirat, mknodat, openat, renameat_with, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::beneath::Root;

pub use sift::Fate;

/// Bytes of a path, its NUL included, that the kernel takes at once.
pub const PATH_MAX: usize = 4096;
/// How deep [`Folder::remove_but`] and [`Folder::sift`] go: they keep a folder open for each level.
const MAX_DEPTH: usize = 256;
/// Opens a folder to make things in it and to change it.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Owner, mode, time and extended attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, setuid, setgid and sticky.
    pub mode: u32,
    /// Owner and group; `None` leaves them as they are.
    pub owner: Option<(u32, u32)>,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// Anything else.
    Other,
}

/// A file that is neither a regular file, nor a folder, nor a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A FIFO.
    Fifo,
    /// A character device of these numbers.
    CharDevice(u32, u32),
    /// A block device of these numbers.
    BlockDevice(u32, u32),
}

/// The directory that a tree is made in.
#[derive(Debug)]
pub struct Tree {
    root: Root,
    top: Folder,
    /// The folder that was used last: archives put neighbours together.
    last: Option<(Vec<u8>, Folder)>,
}

/// A folder of the tree. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Folder(Arc<OwnedFd>);

impl Tree {
    /// The tree in the directory `path`.
    ///
    /// # Errors
    /// `path` is missing, is no directory, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = Root::open(path)?;
        let top = openat(CWD, path, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())?;
        Ok(Tree { root, top: Folder(Arc::new(top)), last: None })
    }

    /// The directory itself.
    pub fn top(&self) -> Folder {
        self.top.clone()
    }

    /// The folder at `path`, with symlinks followed inside the tree; `None` if there is none, or something else.
    ///
    /// # Errors
    /// The operating system's.
    pub fn folder(&mut self, path: &[u8]) -> io::Result<Option<Folder>> {
        match self.find(path, false) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The folder at `path`; what is missing is made, with mode 0755.
    ///
    /// # Errors
    /// Something on the way is no folder, or the operating system's.
    pub fn folder_or_new(&mut self, path: &[u8]) -> io::Result<Folder> {
        self.find(path, true)
    }

    fn find(&mut self, path: &[u8], make: bool) -> io::Result<Folder> {
        if path.contains(&0) {
            return Err(Errno::INVAL.into());
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        if path.is_empty() {
            return Ok(self.top());
        }
        if let Some((last, folder)) = &self.last
            && last == path
        {
            return Ok(folder.clone());
        }
        let found = self.root.open_folder(path, FOLDER.difference(OFlags::NOFOLLOW), make)?;
        let folder = Folder(Arc::new(found));
        self.last = Some((path.to_vec(), folder.clone()));
        Ok(folder)
    }

    /// Forgets the folder that was used last: it may be another one by now.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

impl Folder {
    /// Its number on its file system.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn id(&self) -> io::Result<u64> {
        Ok(fstat(&self.0)?.st_ino)
    }

    /// What `name` is, and its number; `None` if there is nothing.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn look(&self, name: &[u8]) -> io::Result<Option<(Kind, u64)>> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((kind(&stat), stat.st_ino))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The folder `name` in it, not a link to one.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn enter(&self, name: &[u8]) -> io::Result<Folder> {
        Ok(Folder(Arc::new(openat(&self.0, name, FOLDER, Mode::empty())?)))
    }

    /// Makes the folder `name`, for its owner only as yet.
    ///
    /// # Errors
    /// Those of mkdirat(2): `name` is there.
    pub fn make_folder(&self, name: &[u8]) -> io::Result<Folder> {
        mkdirat(&self.0, name, Mode::RWXU)?;
        self.enter(name)
    }

    /// Makes the file `name`, for its owner only as yet.
    ///
    /// # Errors
    /// Those of openat(2): `name` is there.
    pub fn make_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Makes the symlink `name`.
    ///
    /// # Errors
    /// Those of symlinkat(2): `name` is there, the target is empty or too long.
    pub fn make_symlink(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(symlinkat(target, &self.0, name)?)
    }

    /// Makes `name` another name of what `other` is called in `folder`, which is not followed if it is a symlink.
    ///
    /// # Errors
    /// Those of linkat(2).
    pub fn make_link(&self, name: &[u8], folder: &Folder, other: &[u8]) -> io::Result<()> {
        Ok(linkat(&folder.0, other, &self.0, name, AtFlags::empty())?)
    }

    /// Makes `name` another name of the file `path`, anywhere.
    ///
    /// # Errors
    /// Those of linkat(2): another file system, too many names.
    pub fn link_from(&self, name: &[u8], path: &Path) -> io::Result<()> {
        Ok(linkat(CWD, path, &self.0, name, AtFlags::empty())?)
    }

    /// Makes a FIFO or a device.
    ///
    /// # Errors
    /// Those of mknodat(2): devices are for root.
    pub fn make_node(&self, name: &[u8], node: Node) -> io::Result<()> {
        let (kind, device) = match node {
            Node::Fifo => (FileType::Fifo, 0),
            Node::CharDevice(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
            Node::BlockDevice(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
        };
        Ok(mknodat(&self.0, name, kind, Mode::RUSR | Mode::WUSR, device as Dev)?)
    }

    /// Removes `name` and all below it, if it is there.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn remove(&self, name: &[u8]) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        self.enter_to_empty(name)?.empty()?;
        Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes the folder `name` if there is nothing in it.
    ///
    /// # Errors
    /// Those of unlinkat(2), but for one that is not empty.
    pub fn remove_if_empty(&self, name: &[u8]) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The folder `name`, whose mode must not keep its owner from emptying it.
    fn enter_to_empty(&self, name: &[u8]) -> io::Result<Folder> {
        if !geteuid().is_root() {
            chmodat(&self.0, name, Mode::RWXU, AtFlags::empty())?;
        }
        self.enter(name)
    }

    /// Removes everything in it. A tree may be deeper than there can be open folders, or calls: what lies deep is moved
    /// up first.
    fn empty(&self) -> io::Result<()> {
        let mut moved = 0u64;
        loop {
            let names = self.names()?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                match unlinkat(&self.0, name.as_slice(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR) => {}
                    Err(error) => return Err(error.into()),
                }
                let below = self.enter_to_empty(&name)?;
                for inner in below.names()? {
                    match unlinkat(&below.0, inner.as_slice(), AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => continue,
                        Err(Errno::ISDIR) => {}
                        Err(error) => return Err(error.into()),
                    }
                    match unlinkat(&below.0, inner.as_slice(), AtFlags::REMOVEDIR) {
                        Ok(()) => continue,
                        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    loop {
                        moved += 1;
                        let to = format!(".coracle-{moved}");
                        match renameat_with(&below.0, inner.as_slice(), &self.0, to, RenameFlags::NOREPLACE) {
                            Err(Errno::EXIST) => {}
                            result => break result?,
                        }
                    }
                }
                unlinkat(&self.0, name.as_slice(), AtFlags::REMOVEDIR)?;
            }
        }
    }

    /// Removes what is in it, but not what `keep` is true of, told by the number of a folder and a name in it; folders
    /// stay that are kept or hold something that is.
    ///
    /// # Errors
    /// Those of the operating system; more than 256 levels.
    pub fn remove_but(&self, keep: &dyn Fn(u64, &[u8]) -> bool) -> io::Result<()> {
        struct Level {
            folder: Folder,
            id: u64,
            left: Vec<Vec<u8>>,
            /// The name in the level above, and whether it may go if it is empty in the end.
            name: Vec<u8>,
            may_go: bool,
        }
        let level = |folder: Folder, name, may_go| -> io::Result<Level> {
            Ok(Level { id: folder.id()?, left: folder.names()?, folder, name, may_go })
        };
        let mut levels = vec![level(self.clone(), Vec::new(), false)?];
        while let Some(top) = levels.last_mut() {
            let Some(name) = top.left.pop() else {
                let Some(done) = levels.pop() else { break };
                if let Some(above) = levels.last()
                    && done.may_go
                {
                    above.folder.remove_if_empty(&done.name)?;
                }
                continue;
            };
            let kept = keep(top.id, &name);
            match top.folder.look(&name)? {
                Some((Kind::Folder, _)) => {
                    let below = top.folder.enter(&name)?;
                    if levels.len() == MAX_DEPTH {
                        return Err(Errno::NAMETOOLONG.into());
                    }
                    levels.push(level(below, name, !kept)?);
                }
                Some(_) if !kept => unlinkat(&top.folder.0, name.as_slice(), AtFlags::empty())?,
                _ => {}
            }
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Sets owner, mode, attributes and time of the folder itself; see [`set_metadata`].
    ///
    /// # Errors
    /// As [`set_metadata`].
    pub fn set_own_metadata(&self, metadata: &Metadata) -> Result<Vec<Vec<u8>>, MetadataError> {
        set(&self.0, metadata)
    }

    /// Sets owner, attributes and time of `name`, which is no regular file; and its mode, unless it is a symlink.
    ///
    /// # Errors
    /// As [`set_metadata`].
    pub fn set_metadata_of(
        &self,
        name: &[u8],
        is_symlink: bool,
        metadata: &Metadata,
    ) -> Result<Vec<Vec<u8>>, MetadataError> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if let Some((uid, gid)) = metadata.owner {
            chownat(&self.0, name, Some(uid_of(uid)), Some(gid_of(gid)), nofollow)
                .map_err(MetadataError::owner)?;
        }
        if !is_symlink {
            chmodat(&self.0, name, Mode::from_raw_mode(metadata.mode), AtFlags::empty())
                .map_err(MetadataError::mode)?;
        }
        // There is no call that takes a folder and a name; the folder has one in /proc.
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd())).into_os_string();
        path.push("/");
        path.push(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
        let refused = each_attribute(metadata, |name, value| {
            lsetxattr(Path::new(&path), name, value, XattrFlags::empty())
        })?;
        utimensat(&self.0, name, &times(metadata), nofollow).map_err(MetadataError::time)?;
        Ok(refused)
    }
}

/// Why metadata could not be set: what could not, and the operating system's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot set its {what}: {error}")]
pub struct MetadataError {
    /// `owner`, `mode`, `attribute NAME`, `time`.
    pub what: String,
    /// Why.
    pub error: io::Error,
}

impl MetadataError {
    fn new(what: impl Into<String>, error: Errno) -> Self {
        MetadataError { what: what.into(), error: error.into() }
    }

    fn owner(error: Errno) -> Self {
        Self::new("owner", error)
    }

    fn mode(error: Errno) -> Self {
        Self::new("mode", error)
    }

    fn time(error: Errno) -> Self {
        Self::new("time", error)
    }
}

/// Sets owner, mode, attributes and time of a regular file, in the order in which they do not undo each other: a change
/// of owner takes setuid and capabilities away. Returns the attributes that the file system, or the kernel for this
/// user, does not take.
///
/// # Errors
/// [`MetadataError`].
pub fn set_metadata(file: &File, metadata: &Metadata) -> Result<Vec<Vec<u8>>, MetadataError> {
    set(file, metadata)
}

fn set(file: &impl std::os::fd::AsFd, metadata: &Metadata) -> Result<Vec<Vec<u8>>, MetadataError> {
    if let Some((uid, gid)) = metadata.owner {
        fchown(file, Some(uid_of(uid)), Some(gid_of(gid))).map_err(MetadataError::owner)?;
    }
    fchmod(file, Mode::from_raw_mode(metadata.mode)).map_err(MetadataError::mode)?;
    let refused = each_attribute(metadata, |name, value| fsetxattr(file, name, value, XattrFlags::empty()))?;
    futimens(file, &times(metadata)).map_err(MetadataError::time)?;
    Ok(refused)
}

fn each_attribute(
    metadata: &Metadata,
    set: impl Fn(&CString, &[u8]) -> rustix::io::Result<()>,
) -> Result<Vec<Vec<u8>>, MetadataError> {
    let mut refused = Vec::new();
    for (name, value) in &metadata.xattrs {
        let shown = || format!("attribute {}", name.escape_ascii());
        let text = CString::new(name.clone()).map_err(|_| MetadataError::new(shown(), Errno::INVAL))?;
        match set(&text, value) {
            Ok(()) => {}
            // EINVAL: no value of this kind, such as a capability of another user namespace.
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL) => refused.push(name.clone()),
            Err(error) => return Err(MetadataError::new(shown(), error)),
        }
    }
    Ok(refused)
}

fn uid_of(uid: u32) -> Uid {
    Uid::from_raw(uid)
}

fn gid_of(gid: u32) -> Gid {
    Gid::from_raw(gid)
}

fn times(metadata: &Metadata) -> Timestamps {
    let (seconds, nanos) = metadata.mtime;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Folder,
        FileType::RegularFile => Kind::File,
        _ => Kind::Other,
    }
}

/// Makes `to` share the blocks of `from`, where the file system can; false where it cannot.
///
/// # Errors
/// Those of FICLONE that are no "cannot".
pub fn share_blocks(from: &File, to: &File) -> io::Result<bool> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts the folder `new` in the place of `old` in one step: whoever looks sees one or the other. What was `old` is then
/// at `new`; false if there was nothing at `old`.
///
/// # Errors
/// Those of renameat2(2): another file system, a mount point.
pub fn exchange(new: &Path, old: &Path) -> io::Result<bool> {
    match renameat_with(CWD, new, CWD, old, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(false),
        Err(Errno::EXIST) => {
            renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE)?;
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes the folder `path` and all below it, however deep, if it is there.
///
/// # Errors
/// Those of the operating system.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match openat(CWD, path, FOLDER, Mode::empty()) {
        Ok(top) => Folder(Arc::new(top)),
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    top.empty()?;
    Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    /// A directory with a file beside the tree.
    fn place() -> (TempDir, PathBuf, Tree) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/file"), "precious").unwrap();
        let top = dir.path().join("tree");
        std::fs::create_dir(&top).unwrap();
        let tree = Tree::open(&top).unwrap();
        (dir, top, tree)
    }

    fn put(tree: &mut Tree, folder: &[u8], name: &[u8], text: &str) {
        let folder = tree.folder_or_new(folder).unwrap();
        folder.make_file(name).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn links_stay_inside() {
        let (dir, top, mut tree) = place();
        symlink(dir.path().join("outside"), top.join("absolute")).unwrap();
        symlink("../outside", top.join("relative")).unwrap();
        symlink("usr/lib", top.join("lib")).unwrap();
        put(&mut tree, b"absolute", b"file", "mine");
        put(&mut tree, b"relative", b"file", "mine");
        put(&mut tree, b"lib/x", b"file", "linked");
        assert_eq!(std::fs::read(dir.path().join("outside/file")).unwrap(), b"precious");
        assert_eq!(std::fs::read(top.join("usr/lib/x/file")).unwrap(), b"linked");
        assert_eq!(std::fs::read(top.join("outside/file")).unwrap(), b"mine");
        let made = std::fs::metadata(top.join("usr/lib/x")).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o755);
        assert!(tree.folder(b"nowhere").unwrap().is_none());
        assert!(tree.folder(b"usr/lib/x/file").unwrap().is_none(), "a file is no folder");
        assert!(tree.folder_or_new(b"usr/lib/x/file/y").is_err());
        assert!(tree.folder_or_new(b"a\0b").is_err());
        assert!(tree.folder_or_new(&[b'a'; PATH_MAX]).is_err());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let (_dir, top, mut tree) = place();
        symlink("b", top.join("a")).unwrap();
        symlink("a", top.join("b")).unwrap();
        assert!(tree.folder_or_new(b"a/x").is_err());
        assert!(tree.folder(b"a/x").unwrap().is_none());
    }

    #[test]
    fn the_last_component_is_not_followed() {
        let (dir, top, tree) = place();
        symlink(dir.path().join("outside/file"), top.join("link")).unwrap();
        let folder = tree.top();
        assert!(folder.make_file(b"link").is_err());
        assert!(folder.enter(b"link").is_err());
        assert_eq!(folder.look(b"link").unwrap().unwrap().0, Kind::Other);
        folder.make_link(b"second", &folder, b"link").unwrap();
        assert!(std::fs::symlink_metadata(top.join("second")).unwrap().is_symlink());
        folder.remove(b"link").unwrap();
        folder.remove(b"nothing").unwrap();
        assert!(dir.path().join("outside/file").exists());
    }

    #[test]
    fn a_deep_tree_is_removed() {
        let (_dir, top, mut tree) = place();
        // Deeper than there are file descriptors, and than a path may be long.
        let mut path = b"deep".to_vec();
        let mut folder = tree.folder_or_new(&path).unwrap();
        for level in 0..3000 {
            folder.make_file(b"file").unwrap();
            folder = folder.make_folder(b"a-rather-long-name").unwrap();
            path = level.to_string().into_bytes();
        }
        put(&mut tree, b"deep/other", b"x", "x");
        tree.forget();
        tree.top().remove(b"deep").unwrap();
        assert_eq!(std::fs::read_dir(&top).unwrap().count(), 0, "{path:?}");
        put(&mut tree, b"a/b", b"x", "x");
        drop(tree);
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }

    #[test]
    fn what_is_kept_stays_with_its_folders() {
        let (_dir, top, mut tree) = place();
        for folder in [&b"old"[..], b"old/deep", b"mixed/deep"] {
            put(&mut tree, folder, b"file", "old");
        }
        put(&mut tree, b"mixed/deep", b"new", "new");
        let kept = tree.folder(b"mixed/deep").unwrap().unwrap().id().unwrap();
        let keep = |folder, name: &[u8]| (folder, name) == (kept, b"new");
        tree.top().remove_but(&keep).unwrap();
        assert_eq!(std::fs::read(top.join("mixed/deep/new")).unwrap(), b"new");
        assert!(!top.join("mixed/deep/file").exists());
        assert!(!top.join("mixed/file").exists());
        assert!(!top.join("old").exists());
    }

    #[test]
    fn metadata_is_set() {
        let (_dir, top, tree) = place();
        let folder = tree.top();
        let root = geteuid().is_root();
        let metadata = Metadata {
            mode: 0o6751,
            owner: root.then_some((1234, 70_000)),
            mtime: (-5, 250_000_000),
            xattrs: vec![(b"user.note".to_vec(), b"\0\xff".to_vec())],
        };
        let file = folder.make_file(b"file").unwrap();
        let refused = set_metadata(&file, &metadata).unwrap();
        let found = std::fs::metadata(top.join("file")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime(), found.mtime_nsec()), (0o6751, -5, 250_000_000));
        if root {
            assert_eq!((found.uid(), found.gid()), (1234, 70_000));
        }
        let xattrs = crate::file::xattrs(&top.join("file")).unwrap();
        assert!(refused.len() + xattrs.len() == 1, "{refused:?} {xattrs:?}");
        folder.make_symlink(b"link", b"nowhere").unwrap();
        let plain = Metadata { xattrs: Vec::new(), ..metadata.clone() };
        folder.set_metadata_of(b"link", true, &plain).unwrap();
        assert_eq!(std::fs::symlink_metadata(top.join("link")).unwrap().mtime(), -5);
        folder.make_node(b"pipe", Node::Fifo).unwrap();
        folder.set_metadata_of(b"pipe", false, &plain).unwrap();
        assert_eq!(std::fs::symlink_metadata(top.join("pipe")).unwrap().mode() & 0o7777, 0o6751);
        let below = folder.make_folder(b"folder").unwrap();
        below.set_own_metadata(&plain).unwrap();
        assert_eq!(std::fs::metadata(top.join("folder")).unwrap().mtime(), -5);
    }

    #[test]
    fn trees_change_places() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        std::fs::create_dir(&new).unwrap();
        std::fs::write(new.join("n"), "n").unwrap();
        assert!(!exchange(&new, &old).unwrap(), "there was nothing");
        assert!(!new.exists() && old.join("n").exists());
        std::fs::create_dir(&new).unwrap();
        assert!(exchange(&new, &old).unwrap());
        assert!(new.join("n").exists() && !old.join("n").exists());
    }
}
