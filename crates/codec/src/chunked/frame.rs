//! Frames of zstd, one for each chunk.

use std::io::{self, Write};

use zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

use crate::compress::{ZstdWriter, ZstdWriterOptions};

/// Bytes of a frame that are held so that it is made at once, with tables for its size.
const HELD: usize = 1 << 20;

/// Writes frame after frame into `out`, and counts.
pub(super) struct Frames<W> {
    out: Option<W>,
    written: u64,
    level: i32,
    ctx: CCtx<'static>,
    held: Vec<u8>,
    made: Vec<u8>,
    /// The frame at hand, if it has more bytes than are held.
    large: Option<ZstdWriter<'static, W>>,
}

impl<W: Write> Frames<W> {
    pub(super) fn new(out: W, level: i32) -> io::Result<Self> {
        let mut ctx = CCtx::create();
        ctx.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
        Ok(Frames { out: Some(out), written: 0, level, ctx, held: Vec::new(), made: Vec::new(), large: None })
    }
}

fn failed(code: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, get_error_name(code))
}

/// Bytes that were written to `out`.
pub(super) trait Position {
    fn position(&self) -> u64;
}

impl<W: Write + Position> Frames<W> {
    /// Adds to the frame at hand.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(large) = &mut self.large {
            return large.write_all(bytes);
        }
        if self.held.len() + bytes.len() <= HELD {
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        let out = self.out.take().unwrap_or_else(|| unreachable!("it is in use by a large frame only"));
        let options = ZstdWriterOptions { level: self.level, ..ZstdWriterOptions::default() };
        let mut large = ZstdWriter::new(out, options)?;
        large.write_all(&self.held)?;
        self.held.clear();
        large.write_all(bytes)?;
        self.large = Some(large);
        Ok(())
    }

    /// Adds zeros to the frame at hand.
    pub(super) fn push_zeros(&mut self, mut count: u64) -> io::Result<()> {
        let zeros = [0; 32 << 10];
        while count > 0 {
            let n = count.min(zeros.len() as u64);
            self.push(&zeros[..n as usize])?;
            count -= n;
        }
        Ok(())
    }

    /// Ends the frame at hand, if it has any bytes. Where the next one begins.
    pub(super) fn cut(&mut self) -> io::Result<u64> {
        if let Some(large) = self.large.take() {
            self.out = Some(large.finish()?);
        } else if !self.held.is_empty() {
            self.made.clear();
            self.made.reserve(compress_bound(self.held.len()));
            self.ctx.compress2(&mut self.made, &self.held).map_err(failed)?;
            self.held.clear();
            let out = self.out.as_mut().unwrap_or_else(|| unreachable!("no large frame is open"));
            out.write_all(&self.made)?;
        }
        self.written = self.out.as_ref().map_or(self.written, Position::position);
        Ok(self.written)
    }

    /// What comes behind the last frame goes there.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.cut()?;
        Ok(self.out.unwrap_or_else(|| unreachable!("no large frame is open")))
    }
}
