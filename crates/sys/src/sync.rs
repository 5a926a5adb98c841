//! Making things durable that are more than one file.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{fsync, syncfs};

/// Writes out everything that waits to be written to the file system that holds `path`.
///
/// One call in place of an fsync for each of many files: the disk is waited for once. It writes what others have
/// written, too, and says nothing of errors that came before it where the kernel is older than 5.8.
///
/// # Errors
/// `path` cannot be opened for reading; or those of syncfs(2), which are those of the disk.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(syncfs(File::open(path)?)?)
}

/// Makes the names in the folder `path` durable: what was made, renamed or removed in it.
///
/// # Errors
/// `path` cannot be opened for reading; or those of fsync(2).
pub fn sync_folder(path: &Path) -> io::Result<()> {
    Ok(fsync(File::open(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_work_and_name_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), "x").unwrap();
        sync_folder(dir.path()).unwrap();
        sync_file_system(dir.path()).unwrap();
        let absent = dir.path().join("absent");
        for call in [sync_folder, sync_file_system] {
            assert_eq!(call(&absent).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
