//! `rootfs:`: a tree of files. As a source it is an image with one layer ([`source`]); as a destination it is the layers
//! of an image laid over each other ([`unpack`]), put in place in one step ([`destination`]).

mod destination;
mod parts;
mod record;
mod source;
mod unpack;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::Error;

pub(crate) use destination::{Place, RootfsDestination};
pub(crate) use parts::{Came, Parts, Told};
pub(crate) use record::{InTree, Record};
pub(crate) use source::RootfsSource;
pub use unpack::Sharing;

/// Where a pull into the tree `path` keeps its own store. Makes the folder around it.
///
/// # Errors
/// The tree cannot be there.
pub fn store_beside(path: &Path) -> Result<PathBuf, Error> {
    let fail = |error| Error::Write { path: path.to_owned(), error };
    let record = Record::beside(path).map_err(fail)?;
    record.create().map_err(fail)?;
    Ok(record.store())
}

/// Another handle of an unnamed file.
pub(crate) fn reopen(file: &File, name: &str) -> Result<File, Error> {
    file.try_clone().map_err(|error| Error::ReadBlob { image: name.to_owned(), what: "layer".into(), error })
}

/// Reads a file from an offset without moving the position that its handles share.
#[derive(Debug)]
pub(crate) struct FileFrom {
    pub(crate) file: File,
    pub(crate) offset: u64,
}

impl Read for FileFrom {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = std::os::unix::fs::FileExt::read_at(&self.file, buf, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

impl Seek for FileFrom {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Start(offset) => self.offset = offset,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(self.offset)
    }
}
