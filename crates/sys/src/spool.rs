//! Unnamed temporary files: room for data that is too large for memory and that nobody else should see.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// Makes an empty temporary file in `dir`, open for reading and writing, that never has a name.
///
/// It can be given none later either (`O_TMPFILE | O_EXCL`), so nothing is left behind however the process
/// ends. File systems without `O_TMPFILE` get a file that is unlinked as soon as it is made.
///
/// # Errors
/// `dir` is missing, is no directory, or cannot be written.
pub fn spool_file(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    match openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => Ok(File::from(fd)),
        Err(error) if lacks_tmpfile(error) => tempfile::tempfile_in(dir),
        Err(error) => Err(error.into()),
    }
}

/// Makes an empty folder in `dir` that only its owner may enter, for programs that want names. Whoever asked for it
/// removes it.
///
/// # Errors
/// As [`spool_file`].
pub fn temp_folder(dir: &Path) -> io::Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix(".coracle").tempdir_in(dir)?.keep())
}

/// Whether `error` is one of the answers of a kernel or file system that does not know `O_TMPFILE`.
///
/// open(2) documents `EOPNOTSUPP`, and `EISDIR` or `ENOENT` for kernels that take the flag for `O_DIRECTORY`;
/// some network file systems say `EINVAL`. The same numbers also stand for a bad directory: the fallback that
/// is tried next then fails with the right error.
pub(crate) fn lacks_tmpfile(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};

    use super::*;

    #[test]
    fn written_data_is_read_back_and_the_directory_stays_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = spool_file(dir.path()).unwrap();
        file.write_all(b"spooled").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        file.seek(SeekFrom::Start(2)).unwrap();
        let mut back = String::new();
        file.read_to_string(&mut back).unwrap();
        assert_eq!(back, "ooled");
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = spool_file(&dir.path().join("absent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
