//! Opening regular files beneath a directory that somebody else filled.
//!
//! The tree may hold anything: symlinks that point out of it, FIFOs that block whoever opens them, devices.
//! A path is resolved as if the directory were `/`: absolute links start over at the directory and `..` stops
//! there, exactly as in a container that has the tree as its root. What is found is opened only if it is a
//! regular file.
//!
//! Two implementations give the same answers: openat2(2) of Linux 5.6, and a walk component by component for
//! kernels without it and sandboxes that forbid it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, chmodat, fstat, mkdirat, openat, openat2,
    readlinkat,
};
use rustix::io::Errno;
use thiserror::Error;

use crate::file::kind_name;

/// Symlinks followed in one path before it counts as a loop; the kernel's own number (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// openat2 answers `EAGAIN` when a rename elsewhere makes `..` unsafe to judge; after this many the walk,
/// which has no such trouble, takes over.
const MAX_RACES: usize = 8;
/// Finds a file without opening it: no blocking on FIFOs, no side effects on devices.
const FIND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// Opens for reading. `NONBLOCK` and `NOCTTY` matter only if the file is replaced between the two opens; they
/// change nothing on a regular file.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Why [`Root::open_file`] or [`Root::open_plain`] gave no file.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Nothing is there: a component is missing, or one that has others below it is no directory.
    #[error("no such file")]
    NotFound,
    /// Something is there that is not a regular file.
    #[error("is a {kind}, not a regular file")]
    NotRegular {
        /// What it is: `directory`, `fifo`, `socket`, `device`.
        kind: &'static str,
    },
    /// The path is empty, absolute, or contains a NUL byte.
    #[error("invalid path")]
    InvalidPath,
    /// More symlinks than the kernel would follow, most likely a loop.
    #[error("too many levels of symbolic links")]
    TooManyLinks,
    /// Any other answer of the operating system.
    #[error(transparent)]
    Io(io::Error),
}

impl From<Errno> for OpenError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::NotFound,
            Errno::LOOP => Self::TooManyLinks,
            other => Self::Io(other.into()),
        }
    }
}

/// A directory whose regular files are opened by path, never leaving it.
///
/// The directory stays the same one even if its own path is renamed or replaced later.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    resolver: Resolver,
}

/// Which implementation resolves paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolver {
    /// openat2(2).
    Kernel,
    /// [`Walk`].
    Walk,
}

impl Root {
    /// Opens the directory `path`. Symlinks in `path` itself are followed: it comes from the caller.
    ///
    /// # Errors
    /// `path` is missing, is no directory, or may not be searched.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut root = Self::open_portable(path)?;
        // Asked once, here: a kernel before 5.6 says ENOSYS, a seccomp filter that knows no openat2 may
        // say EPERM, and neither changes its mind later.
        if root.open_kernel(b".", FIND).is_ok() {
            root.resolver = Resolver::Kernel;
        }
        Ok(root)
    }

    /// As [`Root::open`], with the implementation for old kernels. For tests; `open` chooses by itself.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn open_portable(path: &Path) -> io::Result<Self> {
        let dir = openat(CWD, path, FIND | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { dir, resolver: Resolver::Walk })
    }

    /// Opens the regular file at `rel`, a relative path of raw bytes, for reading.
    ///
    /// Never blocks, whatever is there. Read permission is the caller's own, as usual.
    ///
    /// # Errors
    /// [`OpenError`]; no error depends on anything outside the directory.
    pub fn open_file(&self, rel: &[u8]) -> Result<File, OpenError> {
        if rel.is_empty() || rel[0] == b'/' || rel.contains(&0) {
            return Err(OpenError::InvalidPath);
        }
        match self.resolver {
            Resolver::Kernel => match self.open_file_kernel(rel) {
                // Too many races, or a path above PATH_MAX as a whole: the walk takes one component a call.
                Err(OpenError::Io(error))
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::AGAIN | Errno::NAMETOOLONG | Errno::STALE)
                    ) =>
                {
                    self.open_file_walk(rel)
                }
                result => result,
            },
            Resolver::Walk => self.open_file_walk(rel),
        }
    }

    /// As [`Root::open_file`], for a tree that nobody prepared for it: neither symlinks nor `..` are followed, and no other
    /// file system is entered, wherever one is mounted.
    ///
    /// # Errors
    /// [`OpenError`]; a symlink on the way is [`OpenError::TooManyLinks`], `..` [`OpenError::InvalidPath`], a mount point
    /// [`OpenError::Io`].
    pub fn open_plain(&self, rel: &[u8]) -> Result<File, OpenError> {
        if rel.is_empty() || rel[0] == b'/' || rel.contains(&0) {
            return Err(OpenError::InvalidPath);
        }
        let wanted = regular(&self.find_plain(rel, FIND)?)?;
        same_file(self.find_plain(rel, READ)?, &wanted)
    }

    /// Permission bits of the folder at `rel`, found as [`Root::open_plain`] finds a file; empty for the root itself.
    ///
    /// # Errors
    /// As [`Root::open_plain`]; something else than a folder is [`OpenError::NotFound`].
    pub fn plain_folder_mode(&self, rel: &[u8]) -> Result<u32, OpenError> {
        let rel = if rel.is_empty() { b"." } else { rel };
        Ok(fstat(&self.find_plain(rel, FIND | OFlags::DIRECTORY)?)?.st_mode & 0o7777)
    }

    fn find_plain(&self, rel: &[u8], flags: OFlags) -> Result<OwnedFd, OpenError> {
        if rel.split(|byte| *byte == b'/').any(|name| name == b"..") {
            return Err(OpenError::InvalidPath);
        }
        match self.resolver {
            Resolver::Kernel => {
                let resolve = ResolveFlags::BENEATH
                    | ResolveFlags::NO_SYMLINKS
                    | ResolveFlags::NO_MAGICLINKS
                    | ResolveFlags::NO_XDEV;
                Ok(openat2(&self.dir, rel, flags, Mode::empty(), resolve)?)
            }
            Resolver::Walk => self.open_plain_walk(rel, flags),
        }
    }

    fn open_plain_walk(&self, rel: &[u8], flags: OFlags) -> Result<OwnedFd, OpenError> {
        let device = fstat(&self.dir)?.st_dev;
        let names: Vec<&[u8]> = rel.split(|byte| *byte == b'/').collect();
        let mut folder: Option<OwnedFd> = None;
        for (number, name) in names.iter().enumerate() {
            let last = number + 1 == names.len();
            if matches!(*name, b"" | b".") && !last {
                continue;
            }
            let within = folder.as_ref().map_or(self.dir.as_fd(), AsFd::as_fd);
            let flags = if last { flags } else { FIND | OFlags::DIRECTORY };
            let name = if name.is_empty() { b"." } else { *name };
            let opened = openat(within, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
            let stat = fstat(&opened)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                return Err(OpenError::TooManyLinks);
            }
            if stat.st_dev != device {
                return Err(Errno::XDEV.into());
            }
            folder = Some(opened);
        }
        folder.ok_or(OpenError::InvalidPath)
    }

    /// Opens the folder at `rel`, with these flags. If `make`, what is missing is made, where a symlink leads to nothing
    /// also behind it.
    pub(crate) fn open_folder(&self, rel: &[u8], flags: OFlags, make: bool) -> io::Result<OwnedFd> {
        if self.resolver == Resolver::Kernel {
            match self.open_kernel(rel, flags) {
                Err(Errno::NOENT) if make => {}
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
        let mut walk = Walk { root: self.dir.as_fd(), below: Vec::new(), make };
        walk.follow(rel).map_err(|error| match error {
            OpenError::NotFound => io::Error::from(io::ErrorKind::NotFound),
            OpenError::TooManyLinks => Errno::LOOP.into(),
            OpenError::Io(error) => error,
            other => io::Error::other(other),
        })?;
        let dir = walk.below.last().map_or(walk.root, |step| step.fd.as_fd());
        Ok(openat(dir, ".", flags | OFlags::NOFOLLOW, Mode::empty())?)
    }

    fn open_file_kernel(&self, rel: &[u8]) -> Result<File, OpenError> {
        let found = self.open_kernel(rel, FIND)?;
        let wanted = regular(&found)?;
        let file = self.open_kernel(rel, READ)?;
        same_file(file, &wanted)
    }

    fn open_kernel(&self, rel: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut races = 0;
        loop {
            match openat2(&self.dir, rel, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if races < MAX_RACES => races += 1,
                result => return result,
            }
        }
    }

    fn open_file_walk(&self, rel: &[u8]) -> Result<File, OpenError> {
        let mut walk = Walk { root: self.dir.as_fd(), below: Vec::new(), make: false };
        walk.follow(rel)?;
        let Some(last) = walk.below.last() else {
            return Err(OpenError::NotRegular { kind: "directory" });
        };
        let wanted = regular(&last.fd)?;
        let parent = walk.below.iter().rev().nth(1).map_or(walk.root, |step| step.fd.as_fd());
        let file = openat(parent, last.name.as_slice(), READ | OFlags::NOFOLLOW, Mode::empty())?;
        same_file(file, &wanted)
    }
}

/// The `fstat` of `fd` if it is a regular file.
fn regular(fd: &OwnedFd) -> Result<Stat, OpenError> {
    let stat = fstat(fd)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat),
        _ => Err(OpenError::NotRegular { kind: kind_name(stat.st_mode) }),
    }
}

/// `fd` as a file if it is the one that was looked at before; `ESTALE` if it was replaced in between.
fn same_file(fd: OwnedFd, wanted: &Stat) -> Result<File, OpenError> {
    let stat = fstat(&fd)?;
    if (stat.st_dev, stat.st_ino) != (wanted.st_dev, wanted.st_ino) {
        return Err(Errno::STALE.into());
    }
    Ok(File::from(fd))
}

/// Resolves a path by hand. Every directory on the way is held open, so `..` is the one before in `below`
/// and not whatever the tree says it is by now: a rename meanwhile cannot lead out of the root.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    below: Vec<Step>,
    /// Whether to make folders where there is nothing.
    make: bool,
}

struct Step {
    name: Vec<u8>,
    fd: OwnedFd,
    is_dir: bool,
}

impl Walk<'_> {
    /// Moves to what `path` names.
    fn follow(&mut self, path: &[u8]) -> Result<(), OpenError> {
        // What is left to do, next component last.
        let mut todo = Vec::new();
        push_components(&mut todo, path);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if self.below.last().is_some_and(|step| !step.is_dir) {
                return Err(Errno::NOTDIR.into());
            }
            match name.as_slice() {
                b"." => {}
                b".." => {
                    self.below.pop();
                }
                _ => {
                    let Some(target) = self.descend(name)? else { continue };
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(OpenError::TooManyLinks);
                    }
                    if target.starts_with(b"/") {
                        self.below.clear();
                    }
                    push_components(&mut todo, &target);
                }
            }
        }
        Ok(())
    }

    /// Goes down to `name`, or returns the target if it is a symlink.
    fn descend(&mut self, name: Vec<u8>) -> Result<Option<Vec<u8>>, OpenError> {
        let parent = self.below.last().map_or(self.root, |step| step.fd.as_fd());
        let find = || openat(parent, name.as_slice(), FIND | OFlags::NOFOLLOW, Mode::empty());
        let fd = match find() {
            Err(Errno::NOENT) if self.make => {
                let mode = Mode::from_raw_mode(0o755);
                mkdirat(parent, name.as_slice(), mode)?;
                // The umask is of no concern to what is inside the tree.
                chmodat(parent, name.as_slice(), mode, AtFlags::empty())?;
                find()?
            }
            result => result?,
        };
        let kind = FileType::from_raw_mode(fstat(&fd)?.st_mode);
        if kind == FileType::Symlink {
            // Reads the very link that was opened: it has no name to be swapped behind.
            return Ok(Some(readlinkat(&fd, "", Vec::new())?.into_bytes()));
        }
        self.below.push(Step { name, fd, is_dir: kind == FileType::Directory });
        Ok(None)
    }
}

/// Puts the components of `path` on the stack `todo`. A slash at the end counts as `.`, as for the kernel:
/// what is before it must be a directory.
fn push_components(todo: &mut Vec<Vec<u8>>, path: &[u8]) {
    if path.ends_with(b"/") {
        todo.push(b".".to_vec());
    }
    todo.extend(path.split(|byte| *byte == b'/').rev().filter(|name| !name.is_empty()).map(<[u8]>::to_vec));
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, Instant};

    use rustix::fs::mkfifoat;
    use tempfile::TempDir;

    use super::*;

    /// A directory `root` with something worth protecting next to it.
    fn nested_root() -> (TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("plain"), "plain").unwrap();
        std::fs::write(root.join("a/b/deep"), "deep").unwrap();
        (dir, root)
    }

    /// Runs `test` over both implementations.
    fn both(path: &Path, test: impl Fn(&Root)) {
        let root = Root::open(path).unwrap();
        if root.resolver == Resolver::Walk {
            say_skipped("openat2 is not available here: only the walk was tested");
        } else {
            test(&root);
        }
        let walk = Root::open_portable(path).unwrap();
        assert_eq!(walk.resolver, Resolver::Walk);
        test(&walk);
    }

    #[expect(clippy::print_stderr, reason = "a skipped part of a test has to say so")]
    fn say_skipped(what: &str) {
        eprintln!("skipped: {what}");
    }

    fn content(root: &Root, path: impl AsRef<[u8]>) -> String {
        let mut text = String::new();
        root.open_file(path.as_ref()).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn kind(root: &Root, path: impl AsRef<[u8]>) -> &'static str {
        match root.open_file(path.as_ref()).unwrap_err() {
            OpenError::NotRegular { kind } => kind,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn assert_missing(root: &Root, path: impl AsRef<[u8]>) {
        let error = root.open_file(path.as_ref()).unwrap_err();
        assert!(matches!(error, OpenError::NotFound), "{error:?}");
    }

    #[test]
    fn plain_and_nested() {
        let (_dir, root) = nested_root();
        std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "bytes").unwrap();
        both(&root, |root| {
            assert_eq!(content(root, "plain"), "plain");
            assert_eq!(content(root, "a/b/deep"), "deep");
            assert_eq!(content(root, ".//a/./b//deep"), "deep");
            assert_eq!(content(root, "a/b/../../plain"), "plain");
            assert_eq!(content(root, b"caf\xe9"), "bytes");
        });
    }

    #[test]
    fn missing() {
        let (_dir, root) = nested_root();
        both(&root, |root| {
            assert_missing(root, "nothing");
            assert_missing(root, "nowhere/plain");
            assert_missing(root, "plain/below");
            assert_missing(root, "plain/..");
            assert_missing(root, "plain/");
        });
    }

    #[test]
    fn invalid_paths() {
        let (_dir, root) = nested_root();
        both(&root, |root| {
            for path in [&b""[..], b"/", b"/plain", b"pl\0ain", b"\0"] {
                let error = root.open_file(path).unwrap_err();
                assert!(matches!(error, OpenError::InvalidPath), "{path:?}: {error:?}");
            }
        });
    }

    #[test]
    fn symlinks_inside() {
        let (_dir, root) = nested_root();
        symlink("plain", root.join("link")).unwrap();
        symlink("../../plain", root.join("a/b/up")).unwrap();
        symlink("b", root.join("a/also-b")).unwrap();
        symlink("link", root.join("link-to-link")).unwrap();
        symlink("b/", root.join("a/slash")).unwrap();
        both(&root, |root| {
            assert_eq!(content(root, "link"), "plain");
            assert_eq!(content(root, "a/b/up"), "plain");
            assert_eq!(content(root, "a/also-b/deep"), "deep");
            assert_eq!(content(root, "a/also-b/../b/deep"), "deep");
            assert_eq!(content(root, "link-to-link"), "plain");
            assert_eq!(content(root, "a/slash/deep"), "deep");
            assert_missing(root, "link/");
        });
    }

    #[test]
    fn absolute_symlink_starts_over_at_the_root() {
        let (dir, root) = nested_root();
        symlink("/plain", root.join("a/absolute")).unwrap();
        symlink("/a/b", root.join("jump")).unwrap();
        // The real path of the secret: not a path of the tree.
        symlink(dir.path().join("secret"), root.join("real")).unwrap();
        symlink("/etc/passwd", root.join("host")).unwrap();
        both(&root, |root| {
            assert_eq!(content(root, "a/absolute"), "plain");
            assert_eq!(content(root, "jump/deep"), "deep");
            assert_missing(root, "real");
            assert_missing(root, "host");
        });
    }

    #[test]
    fn dot_dot_stops_at_the_root() {
        let (_dir, root) = nested_root();
        symlink("../secret", root.join("escape")).unwrap();
        symlink("../../../../../../secret", root.join("a/escape")).unwrap();
        symlink("../plain", root.join("clamped")).unwrap();
        both(&root, |root| {
            assert_missing(root, "escape");
            assert_missing(root, "a/escape");
            assert_missing(root, "../secret");
            assert_missing(root, "a/../../secret");
            assert_eq!(content(root, "clamped"), "plain");
            assert_eq!(content(root, "../../plain"), "plain");
            assert_eq!(kind(root, ".."), "directory");
        });
    }

    #[test]
    fn parent_symlink_does_not_leave() {
        let (dir, root) = nested_root();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/f"), "outside").unwrap();
        symlink("../outside", root.join("x")).unwrap();
        symlink(dir.path().join("outside"), root.join("y")).unwrap();
        both(&root, |root| {
            assert_missing(root, "x/f");
            assert_missing(root, "y/f");
        });
        // The same names within the root are what the links mean.
        std::fs::create_dir(root.join("outside")).unwrap();
        std::fs::write(root.join("outside/f"), "inside").unwrap();
        both(&root, |root| assert_eq!(content(root, "x/f"), "inside"));
    }

    #[test]
    fn fifo_is_refused_without_blocking() {
        let (_dir, root) = nested_root();
        mkfifoat(CWD, root.join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        symlink("fifo", root.join("to-fifo")).unwrap();
        let start = Instant::now();
        both(&root, |root| {
            assert_eq!(kind(root, "fifo"), "fifo");
            assert_eq!(kind(root, "to-fifo"), "fifo");
        });
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn other_kinds_are_refused() {
        let (_dir, root) = nested_root();
        let _socket = UnixListener::bind(root.join("socket")).unwrap();
        both(&root, |root| {
            assert_eq!(kind(root, "a"), "directory");
            assert_eq!(kind(root, "a/"), "directory");
            assert_eq!(kind(root, "."), "directory");
            assert_eq!(kind(root, "socket"), "socket");
        });
        both(Path::new("/dev"), |dev| assert_eq!(kind(dev, "null"), "device"));
    }

    #[test]
    fn symlink_loops() {
        let (_dir, root) = nested_root();
        symlink("self", root.join("self")).unwrap();
        symlink("pong", root.join("ping")).unwrap();
        symlink("ping", root.join("pong")).unwrap();
        symlink(".", root.join("here")).unwrap();
        both(&root, |root| {
            for path in ["self", "ping", "ping/f", &"here/".repeat(41)] {
                let error = root.open_file(path.as_bytes()).unwrap_err();
                assert!(matches!(error, OpenError::TooManyLinks), "{path}: {error:?}");
            }
            assert_eq!(content(root, format!("{}plain", "here/".repeat(40))), "plain");
        });
    }

    #[test]
    fn paths_above_path_max_work() {
        let (_dir, root) = nested_root();
        both(&root, |root| assert_eq!(content(root, format!("{}plain", "./".repeat(4000))), "plain"));
        let mut name = b"plain".to_vec();
        name.resize(256, b'x');
        both(&root, |root| {
            let error = root.open_file(&name).unwrap_err();
            let OpenError::Io(error) = error else { panic!("{error:?}") };
            assert_eq!(Errno::from_io_error(&error), Some(Errno::NAMETOOLONG));
        });
    }

    #[test]
    fn plain_paths_follow_nothing() {
        let (dir, root) = nested_root();
        symlink("plain", root.join("link")).unwrap();
        symlink("a", root.join("folder")).unwrap();
        symlink(dir.path(), root.join("out")).unwrap();
        mkfifoat(CWD, root.join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        both(&root, |root| {
            let mut text = String::new();
            root.open_plain(b"a/b/deep").unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "deep");
            assert!(root.open_plain(b"./a//b/deep").is_ok());
            assert!(root.plain_folder_mode(b"a/b").is_ok() && root.plain_folder_mode(b"").is_ok());
            for path in ["plain", "folder", "out", "a/../a", ".."] {
                assert!(root.plain_folder_mode(path.as_bytes()).is_err(), "{path}");
            }
            let bad = [
                "link",
                "folder/b/deep",
                "out/secret",
                "../secret",
                "a/../plain",
                "fifo",
                "a",
                "a/",
                "nothing",
            ];
            for path in bad {
                assert!(root.open_plain(path.as_bytes()).is_err(), "{path}");
            }
            for path in ["", "/plain", "pl\0ain"] {
                assert!(matches!(root.open_plain(path.as_bytes()).unwrap_err(), OpenError::InvalidPath));
            }
        });
        // Another file system is mounted there.
        both(Path::new("/"), |root| {
            let error = root.open_plain(b"proc/self/status").unwrap_err();
            let OpenError::Io(error) = error else { panic!("{error:?}") };
            assert_eq!(Errno::from_io_error(&error), Some(Errno::XDEV));
        });
        both(Path::new("/dev"), |dev| assert!(dev.open_plain(b"null").is_err()));
    }

    #[test]
    fn the_directory_is_held_not_its_path() {
        let (dir, root) = nested_root();
        let opened = Root::open(&root).unwrap();
        std::fs::rename(&root, dir.path().join("moved")).unwrap();
        std::fs::create_dir(&root).unwrap();
        assert_eq!(content(&opened, "plain"), "plain");
    }

    #[test]
    fn opening_a_bad_root() {
        let (_dir, root) = nested_root();
        assert_eq!(Root::open(&root.join("plain")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(Root::open(&root.join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_replaced_file_is_noticed() {
        let (_dir, root) = nested_root();
        let opened = Root::open(&root).unwrap();
        let plain = opened.open_file(b"plain").unwrap();
        let deep = opened.open_file(b"a/b/deep").unwrap();
        let wanted = fstat(&plain).unwrap();
        assert!(same_file(plain.into(), &wanted).is_ok());
        let OpenError::Io(error) = same_file(deep.into(), &wanted).unwrap_err() else { panic!() };
        assert_eq!(Errno::from_io_error(&error), Some(Errno::STALE));
    }
}
