//! Several byte strings as one.

use std::io;

use crate::ReadAt;

/// Byte strings joined end to end, as the layers of an image are to a basis (`docs/formats/rsync.md`, section 6.2).
#[derive(Clone)]
pub struct Joined<'a> {
    parts: Vec<&'a dyn ReadAt>,
    /// Where each part ends.
    ends: Vec<u64>,
}

impl std::fmt::Debug for Joined<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl<'a> Joined<'a> {
    /// Joins `parts`.
    pub fn new(parts: Vec<&'a dyn ReadAt>) -> Self {
        let mut end = 0u64;
        let ends = parts.iter().map(|part| {
            end = end.saturating_add(part.size());
            end
        });
        Joined { ends: ends.collect(), parts }
    }
}

impl ReadAt for Joined<'_> {
    fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let number = self.ends.partition_point(|&end| end <= offset);
        let Some(part) = self.parts.get(number) else { return Ok(0) };
        let start = self.ends[number] - part.size();
        let n = (buf.len() as u64).min(self.ends[number] - offset) as usize;
        part.read_at(offset - start, &mut buf[..n])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_across_parts_and_empty_ones() {
        let parts: [&[u8]; 4] = [b"ab", b"", b"cde", b"f"];
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let joined = Joined::new(parts.iter().map(|part| part as &dyn ReadAt).collect());
        assert_eq!(joined.size(), 6);
        for start in 0..=6usize {
            for end in start..=6 {
                let mut buf = vec![0; end - start];
                joined.read_exact_at(start as u64, &mut buf).unwrap();
                assert_eq!(buf, b"abcdef"[start..end]);
            }
        }
        assert_eq!(joined.read_at(6, &mut [0; 1]).unwrap(), 0);
        assert_eq!(joined.read_exact_at(5, &mut [0; 2]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
