//! Files that a later run goes on with, and locks between processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, fsync};
use rustix::io::Errno;

/// A half-written file that keeps its name and its bytes when the process ends, until it is published or discarded.
///
/// Nobody may take it for the whole: its name is in a folder of its own, and what is in it has to be compared again by
/// whoever goes on. A lock keeps a second process away for as long as the first one has it.
#[derive(Debug)]
pub struct Resumable {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Resumable {
    /// Opens the file `path` to go on with, or makes it. `None` if another process has it.
    ///
    /// # Errors
    /// The file or its folder cannot be made or locked.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let meta = file.metadata()?;
        // Published or discarded by another process between the two calls.
        if !fs::metadata(path).is_ok_and(|now| same(&now, &meta)) {
            return Ok(None);
        }
        Ok(Some(Resumable { len: meta.len(), file, path: path.to_owned() }))
    }

    /// Bytes that were there when it was opened. Reading gives them first; writing goes on behind them.
    pub fn resumed(&self) -> u64 {
        self.len
    }

    /// Throws away what is there.
    ///
    /// # Errors
    /// Those of ftruncate(2).
    pub fn clear(&mut self) -> io::Result<()> {
        self.cut(0)
    }

    /// Throws away what is there behind the first `len` bytes; writing goes on there.
    ///
    /// # Errors
    /// Those of ftruncate(2).
    pub fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        io::Seek::seek(&mut self.file, io::SeekFrom::Start(len))?;
        self.len = self.len.min(len);
        Ok(())
    }

    /// Reads what is there or was written, wherever reading and writing are.
    ///
    /// # Errors
    /// It cannot be read, or ends before.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buf, offset)
    }

    /// Makes it durable and moves it to `to`, in the same file system.
    ///
    /// # Errors
    /// Those of fsync(2) and rename(2).
    pub fn publish(self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, to)?;
        sync_folder_of(to)
    }

    /// Removes it.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn discard(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

impl Read for Resumable {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Write for Resumable {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => Ok(fsync(File::open(folder)?)?),
        None => Ok(()),
    }
}

/// An exclusive lock on a folder, held until dropped. For what several processes read, change and write.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

impl FolderLock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// The folder cannot be opened or locked.
    pub fn take(folder: &Path) -> io::Result<Self> {
        let file = File::open(folder)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(FolderLock(file)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("partial/x");
        let mut first = Resumable::open(&path).unwrap().unwrap();
        assert_eq!(first.resumed(), 0);
        first.write_all(b"half").unwrap();
        // Somebody has it.
        assert!(Resumable::open(&path).unwrap().is_none());
        drop(first);
        let mut second = Resumable::open(&path).unwrap().unwrap();
        assert_eq!(second.resumed(), 4);
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        second.write_all(b" and whole").unwrap();
        let to = dir.path().join("done");
        second.publish(&to).unwrap();
        assert_eq!((text.as_str(), fs::read_to_string(&to).unwrap().as_str()), ("half", "half and whole"));
        assert!(!path.exists());
        let mut third = Resumable::open(&path).unwrap().unwrap();
        third.write_all(b"wrong").unwrap();
        third.clear().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        third.discard().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_is_locked_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(dir.path()).unwrap();
        let path = dir.path().to_owned();
        let other = std::thread::spawn(move || drop(FolderLock::take(&path).unwrap()));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!other.is_finished());
        drop(lock);
        other.join().unwrap();
    }
}
