//! One chunk.

use std::io::{self, BufRead, Read};

use crate::compress::{FrameEnd, ZstdReader};
use crate::digest::{Digest, Hasher};

use super::{Chunk, Error, Family, Limits};

/// Gives the bytes of a chunk, as many as it has, from what is stored in its range; compares their digest at the end. What
/// is stored behind it is not looked at.
pub struct ChunkReader<'a> {
    decoded: Box<dyn Read + 'a>,
    left: u64,
    /// Bytes of the stream in front of it.
    skip: u64,
    digest: Option<(Digest, Hasher)>,
    name: &'a str,
}

impl std::fmt::Debug for ChunkReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChunkReader({}, {} bytes left)", self.name, self.left)
    }
}

impl<'a> ChunkReader<'a> {
    /// `stored` begins at [`Chunk::stored`]; `name` is that of the file, for messages.
    pub fn new(
        stored: impl BufRead + 'a,
        family: Family,
        chunk: &Chunk,
        name: &'a str,
        limits: &Limits,
    ) -> Self {
        let decoded: Box<dyn Read + 'a> = match family {
            // Behind the member with the chunk others may follow before the next chunk.
            Family::Stargz => Box::new(flate2::bufread::MultiGzDecoder::new(stored)),
            Family::Current | Family::Legacy => {
                Box::new(ZstdReader::new(stored, limits.window_log, FrameEnd::Continue))
            }
        };
        let digest = chunk.digest.map(|digest| (digest, Hasher::new()));
        ChunkReader { decoded, left: chunk.size, skip: chunk.inner, digest, name }
    }

    /// Of eStargz, what stands behind the chunk in its range: up to the next content of the tar. `limit` bytes are
    /// allowed.
    ///
    /// # Errors
    /// It is longer, or cannot be read; the chunk was not read to its end.
    pub fn rest(mut self, limit: u64) -> Result<Vec<u8>, Error> {
        if self.left > 0 || self.digest.is_some() {
            return Err(self.short().into());
        }
        let mut out = Vec::new();
        let actual = (&mut self.decoded).take(limit.saturating_add(1)).read_to_end(&mut out)? as u64;
        if actual > limit {
            return Err(Error::TooLarge { what: "what stands between contents", actual, limit });
        }
        Ok(out)
    }

    fn short(&self) -> io::Error {
        Error::Length { what: format!("a chunk of {:?}", self.name) }.into()
    }
}

impl Read for ChunkReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.skip > 0 {
            let skipped = io::copy(&mut (&mut self.decoded).take(self.skip), &mut io::sink())?;
            if skipped < self.skip {
                return Err(self.short());
            }
            self.skip = 0;
        }
        if buf.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            if let Some((expected, hasher)) = self.digest.take() {
                let actual = hasher.finish();
                if actual != expected {
                    let what = format!("a chunk of {:?}", self.name);
                    return Err(Error::Digest { what, expected, actual }.into());
                }
            }
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.decoded.read(&mut buf[..most])?;
        if n == 0 {
            return Err(self.short());
        }
        if let Some((_, hasher)) = &mut self.digest {
            hasher.update(&buf[..n]);
        }
        self.left -= n as u64;
        Ok(n)
    }
}
