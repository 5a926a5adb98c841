//! Locks between processes, on files that stay where they are.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A lock on a file (flock(2)), held until dropped, or until the process ends in whatever way.
///
/// Each lock is a description of its own, so two threads of one process exclude each other as two processes do.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

impl FileLock {
    /// Makes the file `path`, which must not exist, and locks it for this process alone.
    ///
    /// # Errors
    /// It exists, or it cannot be made or locked.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        wait_for(&file, FlockOperation::LockExclusive)?;
        Ok(FileLock(file))
    }

    /// Waits until nobody has the file `path` locked for itself alone, and shares it.
    ///
    /// # Errors
    /// It is missing or cannot be opened or locked.
    pub fn shared(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        wait_for(&file, FlockOperation::LockShared)?;
        Ok(FileLock(file))
    }

    /// Waits until nobody has the file `path` locked, and takes it alone.
    ///
    /// # Errors
    /// As [`FileLock::shared`].
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        wait_for(&file, FlockOperation::LockExclusive)?;
        Ok(FileLock(file))
    }

    /// Takes the file `path` alone if nobody has it locked; `None` if somebody has.
    ///
    /// # Errors
    /// As [`FileLock::shared`].
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        match wait_for(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(FileLock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn wait_for(file: &File, operation: FlockOperation) -> Result<(), Errno> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_share_and_one_excludes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(FileLock::shared(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let made = FileLock::create(&path).unwrap();
        assert_eq!(FileLock::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop(made);
        let (one, two) = (FileLock::shared(&path).unwrap(), FileLock::shared(&path).unwrap());
        drop(one);
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop(two);
        let alone = FileLock::try_exclusive(&path).unwrap().unwrap();
        let waiting = std::thread::spawn(move || drop(FileLock::exclusive(&path).unwrap()));
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(!waiting.is_finished());
        drop(alone);
        waiting.join().unwrap();
    }
}
