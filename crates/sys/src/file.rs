//! Facts about files and file systems.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FileType, fstatvfs};

/// Bytes that the calling user can still write to the file system that holds `path`.
///
/// This is a snapshot: other processes write too, so it serves for an early refusal with a clear message and
/// never replaces handling `ENOSPC`.
///
/// # Errors
/// `path` cannot be opened for reading, or the file system does not answer fstatvfs(3).
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = fstatvfs(File::open(path)?)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether `mode` (`st_mode`, file type and permission bits) is that of a regular file.
pub fn mode_is_regular(mode: u32) -> bool {
    FileType::from_raw_mode(mode).is_file()
}

/// What `mode` (`st_mode`) says the file is, in one word for messages.
pub fn kind_name(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "unknown file type",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn free_space_is_some_and_errors_name_a_missing_path() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_space(dir.path()).unwrap() > 0);
        assert_eq!(free_space(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn kinds_by_mode() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().mode();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, b"x").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("plain", &link).unwrap();
        assert!(mode_is_regular(mode(&plain)));
        assert!(!mode_is_regular(mode(&link)));
        assert_eq!(kind_name(mode(dir.path())), "directory");
        assert_eq!(kind_name(mode(&link)), "symlink");
        assert_eq!(kind_name(mode(Path::new("/dev/null"))), "device");
    }
}
