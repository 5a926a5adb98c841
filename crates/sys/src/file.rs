//! Facts about files and file systems.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FileType, fstatvfs, lgetxattr, llistxattr, major, minor};
use rustix::io::Errno;

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

/// Extended attributes of what `path` is, links not followed: name and value, in order of names. None where the file
/// system has no such thing.
///
/// # Errors
/// Those of llistxattr(2) and lgetxattr(2).
pub fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; 1 << 16];
    let len = match llistxattr(path, list.as_mut_slice()) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names: Vec<&[u8]> = list[..len].split(|b| *b == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut found = Vec::new();
    let mut value = vec![0; 1 << 16];
    for name in names {
        match lgetxattr(path, name, value.as_mut_slice()) {
            Ok(len) => found.push((name.to_vec(), value[..len].to_vec())),
            // Removed meanwhile, or not for us to read.
            Err(Errno::NODATA | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Major and minor number of a device, from `st_rdev`.
pub fn device_numbers(device: u64) -> (u32, u32) {
    (major(device), minor(device))
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
    fn attributes_and_devices() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, b"x").unwrap();
        assert_eq!(xattrs(&plain).unwrap(), []);
        assert!(xattrs(&dir.path().join("absent")).is_err());
        let flags = rustix::fs::XattrFlags::empty();
        match rustix::fs::setxattr(&plain, "user.b", b"2", flags) {
            // A temporary directory may lie on a file system without them.
            Err(Errno::OPNOTSUPP) => {}
            result => {
                result.unwrap();
                rustix::fs::setxattr(&plain, "user.a", b"\0\xff", flags).unwrap();
                let want = [(b"user.a".to_vec(), b"\0\xff".to_vec()), (b"user.b".to_vec(), b"2".to_vec())];
                assert_eq!(xattrs(&plain).unwrap(), want);
            }
        }
        let null = std::fs::metadata("/dev/null").unwrap();
        assert_eq!(device_numbers(null.rdev()), (1, 3));
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
