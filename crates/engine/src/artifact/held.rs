//! Deltas on their way into an artifact: small ones in memory, so that layers alone take temporary disk.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_sys::spool::spool_file;

use crate::image::rootfs::FileFrom;

/// Bytes of one delta that are kept in memory.
const IN_MEMORY: usize = 64 << 20;

/// Bytes that were written, to be read any number of times.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    Memory(Arc<Vec<u8>>),
    File(Arc<File>),
}

impl Held {
    /// The bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Held::Memory(bytes) => Box::new(From(Arc::clone(bytes), offset)),
            Held::File(file) => Box::new(FileFrom { file: file.try_clone()?, offset }),
        })
    }
}

struct From(Arc<Vec<u8>>, u64);

impl Read for From {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut rest = Cursor::new(self.0.as_slice());
        rest.set_position(self.1);
        let n = rest.read(buf)?;
        self.1 += n as u64;
        Ok(n)
    }
}

/// Writes bytes to be held.
#[derive(Debug)]
pub(crate) struct Holder {
    memory: Vec<u8>,
    file: Option<File>,
    dir: PathBuf,
    limit: usize,
}

impl Holder {
    /// Nothing yet; what is too much for memory goes to an unnamed file in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Holder { memory: Vec::new(), file: None, dir: dir.to_owned(), limit: IN_MEMORY }
    }

    pub(crate) fn finish(self) -> io::Result<Held> {
        match self.file {
            None => Ok(Held::Memory(Arc::new(self.memory))),
            Some(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                Ok(Held::File(Arc::new(file)))
            }
        }
    }
}

impl Write for Holder {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.file.is_none() {
            if self.memory.len() + buf.len() <= self.limit {
                self.memory.extend_from_slice(buf);
                return Ok(buf.len());
            }
            let mut file = spool_file(&self.dir)?;
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write(buf),
            None => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_wherever_it_is() {
        for limit in [0, 10, 1000] {
            let mut holder = Holder { limit, ..Holder::new(&std::env::temp_dir()) };
            let bytes: Vec<u8> = (0..=255).collect();
            bytes.chunks(7).for_each(|piece| holder.write_all(piece).unwrap());
            let held = holder.finish().unwrap();
            assert_eq!(matches!(held, Held::Memory(_)), limit == 1000);
            for offset in [0, 1, 200, 256, 300] {
                let mut read = Vec::new();
                held.read(offset).unwrap().read_to_end(&mut read).unwrap();
                assert_eq!(read, bytes[(offset as usize).min(256)..], "{limit} {offset}");
            }
        }
    }
}
