//! Output that appears under its name only when it is complete.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, PROC_SUPER_MAGIC, access, fsync, linkat, openat, statfs,
};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempPath};

use crate::spool::lacks_tmpfile;

/// Permission bits of a new file, before the umask.
const NEW_FILE: Mode = Mode::from_bits_truncate(0o666);
/// Bytes of the destination's name in the name of its temporary file, so that this stays below `NAME_MAX`.
const MAX_STEM: usize = 200;

/// An output file in the making.
///
/// What is written goes to a file without a name in the directory of the destination. [`Pending::publish`]
/// makes it durable and gives it the destination's name in one step; until then an existing destination is
/// untouched, and whatever ends the process leaves nothing behind. File systems without unnamed files get a
/// hidden temporary file instead, removed on drop but not when the process is killed.
///
/// A destination that is no file on a disk is written directly, see [`Pending::is_direct`].
#[derive(Debug)]
pub struct Pending {
    file: File,
    place: Place,
}

/// Where the bytes are until they are published.
#[derive(Debug)]
enum Place {
    /// In a file without a name, to be linked into the directory.
    Unnamed(Destination),
    /// In a file with a hidden name, to be renamed.
    Hidden(TempPath, Destination),
    /// In the destination.
    Direct,
}

/// The name to publish under.
#[derive(Debug)]
struct Destination {
    /// Absolute, so that a change of the working directory changes nothing.
    dir_path: PathBuf,
    /// The same directory, for fsync; `None` if the user may write into it but not read it.
    dir: Option<OwnedFd>,
    name: OsString,
}

impl Pending {
    /// Starts an output that will be `dest`, with the permissions of any new file (0666 less the umask).
    ///
    /// A symlink to a regular file stays and the file it points to is replaced. A device, a FIFO, or an open
    /// descriptor (`/dev/stdout`, `/dev/fd/3`) is opened for writing at once, as cp(1) would.
    ///
    /// # Errors
    /// `EISDIR` if `dest` is a directory; otherwise the directory of `dest` is missing or cannot be written,
    /// an existing `dest` cannot be written, or `dest` is a symlink to nothing.
    pub fn create(dest: &Path) -> io::Result<Self> {
        match fs::metadata(dest) {
            Ok(found) if found.is_dir() => Err(Errno::ISDIR.into()),
            Ok(found) if found.is_file() && !leads_to_descriptor(dest)? => {
                // Renaming over a file asks only the directory; a file that is write-protected is meant to
                // stay as it is.
                access(dest, Access::WRITE_OK)?;
                Self::create_file(&fs::canonicalize(dest)?)
            }
            Ok(_) => {
                let flags = (OFlags::TRUNC | OFlags::NOCTTY).bits().cast_signed();
                let file = OpenOptions::new().write(true).custom_flags(flags).open(dest)?;
                Ok(Self { file, place: Place::Direct })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if dest.as_os_str().as_bytes().ends_with(b"/") {
                    return Err(Errno::ISDIR.into());
                }
                if dest.is_symlink() {
                    return Err(io::Error::new(error.kind(), "symbolic link to a missing file"));
                }
                Self::create_file(dest)
            }
            Err(error) => Err(error),
        }
    }

    fn create_file(dest: &Path) -> io::Result<Self> {
        let destination = Destination::new(dest)?;
        match destination.unnamed_file() {
            Ok(file) => Ok(Self { file, place: Place::Unnamed(destination) }),
            Err(error) if lacks_tmpfile(error) => Self::create_hidden(destination),
            Err(error) => Err(error.into()),
        }
    }

    fn create_hidden(destination: Destination) -> io::Result<Self> {
        let (file, path) = destination
            .hidden_name(|path| {
                OpenOptions::new().read(true).write(true).create_new(true).mode(NEW_FILE.bits()).open(path)
            })?
            .into_parts();
        Ok(Self { file, place: Place::Hidden(path, destination) })
    }

    /// The file being written. Readable as well, unless [`Pending::is_direct`].
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether bytes are visible as soon as they are written, since the destination is a device, a FIFO or
    /// an open descriptor. They cannot be taken back then.
    pub fn is_direct(&self) -> bool {
        matches!(self.place, Place::Direct)
    }

    /// As [`Pending::publish`], under another name in the same directory: for what gets its name from its content.
    ///
    /// # Errors
    /// As [`Pending::publish`]; `EINVAL` if `name` is more than a name, or the destination is written directly.
    pub fn publish_as(mut self, name: &OsStr) -> io::Result<()> {
        if Path::new(name).file_name() != Some(name) {
            return Err(Errno::INVAL.into());
        }
        match &mut self.place {
            Place::Unnamed(destination) | Place::Hidden(_, destination) => destination.name = name.to_owned(),
            Place::Direct => return Err(Errno::INVAL.into()),
        }
        self.publish()
    }

    /// Makes the output durable and puts it in place of the destination.
    ///
    /// The order is: fsync the file, give it its name, fsync the directory. On an error before the rename
    /// the destination is as before and nothing is left behind; an error of the last step means that the
    /// new file is in place but might not survive a power cut.
    ///
    /// For a destination that is written directly this only flushes.
    ///
    /// # Errors
    /// The disk is full or broken, or the directory changed meanwhile (removed, made read-only, the name is
    /// a directory now).
    pub fn publish(self) -> io::Result<()> {
        let Self { mut file, place } = self;
        match place {
            Place::Unnamed(destination) => {
                file.sync_all()?;
                destination.link(&file)?;
                destination.sync()
            }
            Place::Hidden(path, destination) => {
                file.sync_all()?;
                path.persist(destination.path())?;
                destination.sync()
            }
            Place::Direct => file.flush(),
        }
    }
}

impl Write for Pending {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.file.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Destination {
    fn new(dest: &Path) -> io::Result<Self> {
        let name = dest.file_name().ok_or(Errno::ISDIR)?.to_owned();
        let parent = match dest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let dir_path = fs::canonicalize(parent)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match openat(CWD, &dir_path, flags, Mode::empty()) {
            Ok(fd) => Some(fd),
            Err(Errno::ACCESS) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { dir_path, dir, name })
    }

    fn path(&self) -> PathBuf {
        self.dir_path.join(&self.name)
    }

    fn unnamed_file(&self) -> Result<File, Errno> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(openat(CWD, &self.dir_path, flags, NEW_FILE)?);
        // Whether it can be named in the end is better known now than after hours of writing.
        if !can_link_unnamed(&file) {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(file)
    }

    /// Gives the unnamed `file` its name.
    fn link(&self, file: &File) -> io::Result<()> {
        // A name that is free needs no detour, and leaves no moment in which a kill would leave a temporary
        // name behind.
        match link_unnamed(file, &self.path()) {
            Err(Errno::EXIST) => {}
            result => return Ok(result?),
        }
        let hidden = self.hidden_name(|path| Ok(link_unnamed(file, path)?))?;
        hidden.into_temp_path().persist(self.path())?;
        Ok(())
    }

    /// Runs `make` with hidden names `.NAME.tmpXXXXXX` until one is free. The result removes it on drop.
    fn hidden_name<R>(&self, make: impl FnMut(&Path) -> io::Result<R>) -> io::Result<NamedTempFile<R>> {
        let stem = self.name.as_bytes();
        let mut prefix = b".".to_vec();
        prefix.extend_from_slice(&stem[..stem.len().min(MAX_STEM)]);
        prefix.extend_from_slice(b".tmp");
        let prefix = OsString::from_vec(prefix);
        tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(OsStr::new(""))
            .rand_bytes(6)
            .make_in(&self.dir_path, make)
    }

    fn sync(&self) -> io::Result<()> {
        match &self.dir {
            Some(dir) => Ok(fsync(dir)?),
            None => Ok(()),
        }
    }
}

/// linkat(2) of a file that has no name.
fn link_unnamed(file: &File, path: &Path) -> Result<(), Errno> {
    match linkat(file, "", CWD, path, AtFlags::EMPTY_PATH) {
        // What the kernel says to callers without CAP_DAC_READ_SEARCH; since 6.10 the opener may, too.
        Err(Errno::NOENT | Errno::PERM) => {
            linkat(CWD, descriptor_path(file), CWD, path, AtFlags::SYMLINK_FOLLOW)
        }
        result => result,
    }
}

/// Whether [`link_unnamed`] can work: through `/proc`, or with the right to do it directly, which is tried
/// on a name that exists for sure.
fn can_link_unnamed(file: &File) -> bool {
    Path::new(&descriptor_path(file)).exists()
        || linkat(file, "", CWD, "/", AtFlags::EMPTY_PATH) == Err(Errno::EXIST)
}

fn descriptor_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Whether `path` is a symlink to an open descriptor, as `/dev/stdout` is. The file behind it belongs to who
/// opened it: replacing it by another would leave them with the old one.
fn leads_to_descriptor(path: &Path) -> io::Result<bool> {
    let mut path = path.to_owned();
    // As many links as the kernel follows; the path is known to lead somewhere.
    for _ in 0..40 {
        if !path.is_symlink() {
            return Ok(false);
        }
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        if statfs(&parent)?.f_type == PROC_SUPER_MAGIC {
            return Ok(true);
        }
        path = parent.join(fs::read_link(&path)?);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use rustix::fs::mkfifoat;

    use super::*;

    /// Runs `test` with each way of making a pending file for a path that is no special file.
    fn both(test: impl Fn(&dyn Fn(&Path) -> io::Result<Pending>)) {
        test(&Pending::create);
        test(&|dest| Pending::create_hidden(Destination::new(dest)?));
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn appears_on_publish_only() {
        both(|create| {
            let dir = tempfile::tempdir().unwrap();
            let dest = dir.path().join("out");
            let mut pending = create(&dest).unwrap();
            assert!(!pending.is_direct());
            pending.write_all(b"complete").unwrap();
            assert!(!dest.exists());
            let mut back = String::new();
            pending.file().rewind().unwrap();
            pending.file().read_to_string(&mut back).unwrap();
            assert_eq!(back, "complete");
            pending.publish().unwrap();
            assert_eq!(fs::read(&dest).unwrap(), b"complete");
            assert_eq!(names(dir.path()), ["out"]);
        });
    }

    #[test]
    fn nothing_is_visible_while_writing() {
        let dir = tempfile::tempdir().unwrap();
        let mut pending = Pending::create(&dir.path().join("out")).unwrap();
        pending.write_all(b"x").unwrap();
        if matches!(pending.place, Place::Unnamed(_)) {
            assert!(names(dir.path()).is_empty());
        }
        drop(pending);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn drop_leaves_nothing_and_keeps_what_was() {
        both(|create| {
            let dir = tempfile::tempdir().unwrap();
            let dest = dir.path().join("out");
            fs::write(&dest, "old").unwrap();
            let mut pending = create(&dest).unwrap();
            pending.write_all(b"half").unwrap();
            drop(pending);
            assert_eq!(fs::read(&dest).unwrap(), b"old");
            assert_eq!(names(dir.path()), ["out"]);
        });
    }

    #[test]
    fn publish_replaces_what_was() {
        both(|create| {
            let dir = tempfile::tempdir().unwrap();
            let dest = dir.path().join("out");
            fs::write(&dest, "old and longer").unwrap();
            let held = File::open(&dest).unwrap();
            let mut pending = create(&dest).unwrap();
            pending.write_all(b"new").unwrap();
            assert_eq!(fs::read(&dest).unwrap(), b"old and longer");
            pending.publish().unwrap();
            assert_eq!(fs::read(&dest).unwrap(), b"new");
            assert_eq!(names(dir.path()), ["out"]);
            assert_ne!(held.metadata().unwrap().ino(), fs::metadata(&dest).unwrap().ino());
        });
    }

    #[test]
    fn a_failed_publish_leaves_nothing() {
        both(|create| {
            let dir = tempfile::tempdir().unwrap();
            let dest = dir.path().join("out");
            let pending = create(&dest).unwrap();
            fs::create_dir(&dest).unwrap();
            assert!(pending.publish().is_err());
            assert_eq!(names(dir.path()), ["out"]);
        });
    }

    #[test]
    fn permissions_are_those_of_any_new_file() {
        both(|create| {
            let dir = tempfile::tempdir().unwrap();
            File::create(dir.path().join("usual")).unwrap();
            create(&dir.path().join("out")).unwrap().publish().unwrap();
            let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode("out"), mode("usual"));
        });
    }

    #[test]
    fn long_names_fit() {
        both(|create| {
            let dir = tempfile::tempdir().unwrap();
            let dest = dir.path().join("n".repeat(255));
            fs::write(&dest, "old").unwrap();
            create(&dest).unwrap().publish().unwrap();
            assert_eq!(fs::read(&dest).unwrap(), b"");
        });
    }

    #[test]
    fn unnamed_files_can_be_linked_through_proc() {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::new(&dir.path().join("out")).unwrap();
        let Ok(file) = destination.unnamed_file() else { return };
        linkat(CWD, descriptor_path(&file), CWD, destination.path(), AtFlags::SYMLINK_FOLLOW).unwrap();
        assert_eq!(names(dir.path()), ["out"]);
        assert_eq!(link_unnamed(&file, &destination.path()), Err(Errno::EXIST));
    }

    #[test]
    fn symlink_stays_and_its_target_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        let target = dir.path().join("there/target");
        fs::write(&target, "old").unwrap();
        let dest = dir.path().join("link");
        symlink("there/target", &dest).unwrap();
        let mut pending = Pending::create(&dest).unwrap();
        pending.write_all(b"new").unwrap();
        pending.publish().unwrap();
        assert!(dest.is_symlink());
        assert!(!target.is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn dangling_symlink_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("link");
        symlink("missing", &dest).unwrap();
        assert_eq!(Pending::create(&dest).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(dest.is_symlink());
    }

    #[test]
    fn directories_and_missing_places_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let kind = |path: &Path| Pending::create(path).unwrap_err().kind();
        assert_eq!(kind(dir.path()), io::ErrorKind::IsADirectory);
        assert_eq!(kind(Path::new("/")), io::ErrorKind::IsADirectory);
        assert_eq!(kind(&dir.path().join("new/")), io::ErrorKind::IsADirectory);
        assert_eq!(kind(&dir.path().join("missing/out")), io::ErrorKind::NotFound);
        assert_eq!(kind(Path::new("")), io::ErrorKind::IsADirectory);
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(kind(&dir.path().join("file/out")), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn unwritable_places_are_errors() {
        // procfs and sysfs refuse new files to everybody, root as well.
        assert!(Pending::create(Path::new("/proc/coracle-test")).is_err());
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("protected");
        fs::write(&dest, "kept").unwrap();
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o444)).unwrap();
        if rustix::process::geteuid().is_root() {
            return;
        }
        assert_eq!(Pending::create(&dest).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let error = Pending::create(&dir.path().join("new")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn devices_are_written_directly() {
        let mut null = Pending::create(Path::new("/dev/null")).unwrap();
        assert!(null.is_direct());
        null.write_all(b"gone").unwrap();
        null.publish().unwrap();
        let mut full = Pending::create(Path::new("/dev/full")).unwrap();
        let result = full.write_all(b"x").and_then(|()| full.publish());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!fs::metadata("/dev/full").unwrap().is_file());
    }

    #[test]
    fn a_fifo_is_written_directly() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || fs::read(fifo).unwrap()
        });
        let mut pending = Pending::create(&fifo).unwrap();
        pending.write_all(b"through").unwrap();
        pending.publish().unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert_eq!(names(dir.path()), ["fifo"]);
    }

    #[test]
    fn an_open_descriptor_keeps_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = tempfile::tempfile_in(dir.path()).unwrap();
        let link = dir.path().join("like-dev-stdout");
        symlink(descriptor_path(&opened), &link).unwrap();
        let mut pending = Pending::create(&link).unwrap();
        assert!(pending.is_direct());
        pending.write_all(b"same file").unwrap();
        pending.publish().unwrap();
        let mut text = String::new();
        opened.read_to_string(&mut text).unwrap();
        assert_eq!(text, "same file");
    }
}
