//! Positional reading, so that several threads can read one input without sharing a cursor.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

/// Bytes of known length that can be read at any offset by several threads at once.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Reads up to `buf.len()` bytes at `offset`; 0 only at or past the end, or for an empty `buf`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Fills `buf` from `offset`; [`io::ErrorKind::UnexpectedEof`] when the bytes end first.
    fn read_exact_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(offset, buf) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let n = buf.len().min(self.len() - start);
        buf[..n].copy_from_slice(&self[start..start + n]);
        Ok(n)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buf)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }
}

/// A byte range of a [`ReadAt`], itself a [`ReadAt`].
#[derive(Clone, Copy)]
pub struct Section<'a> {
    inner: &'a dyn ReadAt,
    start: u64,
    len: u64,
}

impl std::fmt::Debug for Section<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Section({}..{})", self.start, self.start + self.len)
    }
}

impl<'a> Section<'a> {
    /// The bytes `start..start + len` of `inner`, cut short where `inner` ends.
    pub fn new(inner: &'a dyn ReadAt, start: u64, len: u64) -> Self {
        let start = start.min(inner.size());
        Section { inner, start, len: len.min(inner.size() - start) }
    }

    /// All of `inner`.
    pub fn whole(inner: &'a dyn ReadAt) -> Self {
        Section { inner, start: 0, len: inner.size() }
    }

    /// A sequential reader from the start of the section.
    pub fn reader(self) -> SectionReader<'a> {
        SectionReader { section: self, pos: 0 }
    }

    /// The whole section in memory.
    pub fn to_vec(self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut v = vec![0; len];
        self.read_exact_at(0, &mut v)?;
        Ok(v)
    }
}

impl ReadAt for Section<'_> {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(offset);
        let n = (buf.len() as u64).min(left) as usize;
        if n == 0 { Ok(0) } else { self.inner.read_at(self.start + offset, &mut buf[..n]) }
    }
}

/// [`Read`] and [`Seek`] over a [`Section`].
#[derive(Debug)]
pub struct SectionReader<'a> {
    section: Section<'a>,
    pos: u64,
}

impl Read for SectionReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.section.read_at(self.pos, buf)?;
        self.pos += n as u64;
        Ok(n)
    }
}

impl Seek for SectionReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(d) => self.section.size().checked_add_signed(d),
            SeekFrom::Current(d) => self.pos.checked_add_signed(d),
        };
        self.pos = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.pos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_cut_at_the_end_and_seek_past_it() {
        let data = b"0123456789".to_vec();
        let s = Section::new(&data, 4, 100);
        assert_eq!(s.size(), 6);
        assert_eq!(s.to_vec().unwrap(), b"456789");
        let mut r = Section::new(&data, 2, 3).reader();
        r.seek(SeekFrom::Start(7)).unwrap();
        let mut out = Vec::new();
        assert_eq!(r.read_to_end(&mut out).unwrap(), 0);
        r.seek(SeekFrom::End(-1)).unwrap();
        r.read_to_end(&mut out).unwrap();
        assert_eq!(out, b"4");
        assert!(r.seek(SeekFrom::Current(-100)).is_err());
    }

    #[test]
    fn read_exact_at_past_the_end_is_an_error() {
        let data = b"abc".to_vec();
        let mut buf = [0; 4];
        assert_eq!(data.read_exact_at(0, &mut buf).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
