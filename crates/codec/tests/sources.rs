//! Sources for tests.

use std::collections::BTreeMap;
use std::io::Cursor;

use coracle_codec::source::{OpenError, Source, SourceFile};

/// Files in memory.
pub struct Files(pub BTreeMap<Vec<u8>, Vec<u8>>);

struct File<'a>(Cursor<&'a [u8]>);

impl std::io::Read for File<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl std::io::Seek for File<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

impl SourceFile for File<'_> {
    fn size(&self) -> u64 {
        self.0.get_ref().len() as u64
    }
}

impl Source for Files {
    fn open_path(&self, path: &[u8]) -> Result<Box<dyn SourceFile + '_>, OpenError> {
        let content = self.0.get(path).ok_or(OpenError::NotFound)?;
        Ok(Box::new(File(Cursor::new(content))))
    }
}
