//! zstd frames (RFC 8878) by libzstd, with the checks that libzstd leaves to its caller.

use std::io::{self, BufRead, Read, Write};

use zstd_safe::get_error_name as describe;
use zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, Strategy, zstd_sys,
};

use super::{Compression, Error};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Longest frame header (RFC 8878 section 3.1.1.1) with its magic, in bytes.
const MAX_HEADER: usize = 18;

/// Bytes that `content` takes as a zstd frame of that level; at most the bytes of a frame that does not compress.
pub fn zstd_size(content: &[u8], level: i32) -> usize {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    zstd_safe::compress(&mut out, content, level)
        .unwrap_or_else(|code| unreachable!("compressing {} bytes: {}", content.len(), describe(code)))
}

/// What may follow a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameEnd {
    /// More frames, skippable ones too.
    Continue,
    /// Nothing: the input is exactly one frame.
    Stop,
}

/// Decodes zstd frames. Unlike a bare libzstd stream it refuses bytes behind a frame that are no frame, a truncated
/// frame, and a window above the bound.
pub struct ZstdReader<'a, R> {
    input: R,
    ctx: DCtx<'a>,
    max_window_log: u32,
    frame_end: FrameEnd,
    /// The start of the frame at hand, as far as libzstd has not taken it: `head[head_pos..head_len]`. libzstd gets it
    /// byte by byte, against its short cut for whole frames: that one looks for a frame where the piece of input starts
    /// that completes a header, even behind the magic, and it never looks at the window.
    head: [u8; MAX_HEADER],
    head_pos: usize,
    head_len: usize,
    inside: bool,
    data_frames: u64,
}

impl<R> std::fmt::Debug for ZstdReader<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZstdReader").field("data_frames", &self.data_frames).finish_non_exhaustive()
    }
}

impl<'a, R: BufRead> ZstdReader<'a, R> {
    /// A reader of frames whose windows are at most `2^max_window_log` bytes.
    pub fn new(input: R, max_window_log: u32, frame_end: FrameEnd) -> Self {
        let mut ctx = DCtx::create();
        // libzstd accepts 10 to 31; a bound outside only ever means "as far as you can".
        ctx.set_parameter(DParameter::WindowLogMax(max_window_log.clamp(10, 31)))
            .unwrap_or_else(|e| unreachable!("window bound: {}", describe(e)));
        ZstdReader {
            input,
            ctx,
            max_window_log,
            frame_end,
            head: [0; MAX_HEADER],
            head_pos: 0,
            head_len: 0,
            inside: false,
            data_frames: 0,
        }
    }

    /// Like [`ZstdReader::new`], with `prefix` as raw-content dictionary of the first frame (`zstd --patch-from`).
    pub fn with_prefix(input: R, max_window_log: u32, frame_end: FrameEnd, prefix: &'a [u8]) -> Self {
        let mut reader = Self::new(input, max_window_log, frame_end);
        reader.ctx.ref_prefix(prefix).unwrap_or_else(|e| unreachable!("prefix: {}", describe(e)));
        reader
    }

    /// Frames begun so far, skippable ones not counted.
    pub fn data_frames(&self) -> u64 {
        self.data_frames
    }

    /// Reads the start of the next frame; false at the end of the input.
    fn begin_frame(&mut self) -> io::Result<bool> {
        // A short frame may have left a part of its successor here.
        self.head.copy_within(self.head_pos..self.head_len, 0);
        self.head_len -= self.head_pos;
        self.head_pos = 0;
        while self.head_len < MAX_HEADER {
            match self.input.read(&mut self.head[self.head_len..]) {
                Ok(0) => break,
                Ok(n) => self.head_len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let corrupt = |what: &str| Error::Corrupt { format: Compression::Zstd, what: what.into() };
        match &self.head[..self.head_len] {
            [] => return Ok(false),
            _ if self.frame_end == FrameEnd::Stop && self.data_frames > 0 => {
                return Err(corrupt("bytes after the frame").into());
            }
            head if head.starts_with(&MAGIC) => self.data_frames += 1,
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] if self.frame_end == FrameEnd::Continue => {}
            [_, _, _, _, ..] => return Err(corrupt("magic number mismatch").into()),
            _ => return Err(Error::Truncated(Compression::Zstd).into()),
        }
        self.inside = true;
        Ok(true)
    }
}

impl<R: BufRead> Read for ZstdReader<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside && !self.begin_frame()? {
                return Ok(0);
            }
            let from_head = self.head_pos < self.head_len;
            let chunk =
                if from_head { &self.head[self.head_pos..=self.head_pos] } else { self.input.fill_buf()? };
            let ended = chunk.is_empty();
            let mut input = InBuffer::around(chunk);
            let mut output = OutBuffer::around(&mut *buf);
            let result = self.ctx.decompress_stream(&mut output, &mut input);
            let (taken, made) = (input.pos(), output.pos());
            if from_head {
                self.head_pos += taken;
            } else {
                self.input.consume(taken);
            }
            let hint = result.map_err(|code| explain(code, self.max_window_log))?;
            if hint == 0 {
                self.inside = false;
            }
            if made > 0 {
                return Ok(made);
            }
            if ended && hint != 0 {
                return Err(Error::Truncated(Compression::Zstd).into());
            }
        }
    }
}

fn explain(code: usize, max_window_log: u32) -> io::Error {
    let what = describe(code);
    // ZSTD_error_frameParameter_windowTooLarge: the one code that is the bound's doing, not the stream's.
    let too_large = zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as usize;
    if 0usize.wrapping_sub(code) == too_large {
        return Error::WindowTooLarge(1 << max_window_log).into();
    }
    Error::Corrupt { format: Compression::Zstd, what: what.into() }.into()
}

/// How a frame is written.
#[derive(Debug, Clone, Copy)]
pub struct ZstdWriterOptions<'a> {
    /// libzstd level, 1 to 22.
    pub level: i32,
    /// Window as log2 of bytes, 10 to 31; `None` leaves it to the level.
    pub window_log: Option<u32>,
    /// Raw-content dictionary (`zstd --patch-from`).
    pub prefix: Option<&'a [u8]>,
    /// Exact content size in bytes, when known: libzstd then sizes its tables for it.
    pub content_size: Option<u64>,
    /// Look for matches far back in the window with long-distance matching.
    pub long_distance: bool,
    /// Details in place of those that the level stands for.
    pub tuning: Option<Tuning>,
    /// log2 of the largest table in entries of four bytes, where the level would have larger ones.
    pub max_table_log: Option<u32>,
}

/// How hard libzstd's optimal parser works (zstd_compression_format does not depend on it). Its levels stop short of
/// what pays for streams that are mostly zeros: they give up on comparing once a match has `target_length` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Weigh in the cost of symbols with statistics of a first pass (`btultra2`), not with rough ones (`btopt`).
    pub two_passes: bool,
    /// log2 of the candidates looked at for each position.
    pub search_log: u32,
    /// Matches of this length in bytes are taken without weighing alternatives; up to 4095 make a difference.
    pub target_length: u32,
}

impl Default for ZstdWriterOptions<'_> {
    fn default() -> Self {
        ZstdWriterOptions {
            level: 3,
            window_log: None,
            prefix: None,
            content_size: None,
            long_distance: false,
            tuning: None,
            max_table_log: None,
        }
    }
}

/// Encodes one zstd frame with a content checksum. One thread, so that bytes depend on input and options alone.
pub struct ZstdWriter<'a, W> {
    out: W,
    ctx: CCtx<'a>,
    buf: Vec<u8>,
}

impl<W> std::fmt::Debug for ZstdWriter<'_, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ZstdWriter")
    }
}

impl<'a, W: Write> ZstdWriter<'a, W> {
    /// Where the frame goes.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// Starts a frame.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a window out of range.
    pub fn new(out: W, options: ZstdWriterOptions<'a>) -> io::Result<Self> {
        let invalid = |code| io::Error::new(io::ErrorKind::InvalidInput, describe(code));
        let mut ctx = CCtx::create();
        ctx.set_parameter(CParameter::CompressionLevel(options.level)).map_err(invalid)?;
        let most = options.max_table_log.unwrap_or(u32::MAX);
        let (chain_log, hash_log) = if options.tuning.is_some() { (24, 22) } else { (22, 21) };
        if options.tuning.is_some() || options.max_table_log.is_some() {
            ctx.set_parameter(CParameter::ChainLog(most.clamp(8, chain_log))).map_err(invalid)?;
            ctx.set_parameter(CParameter::HashLog(most.clamp(8, hash_log))).map_err(invalid)?;
        }
        if let Some(Tuning { two_passes, search_log, target_length }) = options.tuning {
            let strategy = if two_passes { Strategy::ZSTD_btultra2 } else { Strategy::ZSTD_btopt };
            ctx.set_parameter(CParameter::Strategy(strategy)).map_err(invalid)?;
            ctx.set_parameter(CParameter::MinMatch(3)).map_err(invalid)?;
            ctx.set_parameter(CParameter::SearchLog(search_log)).map_err(invalid)?;
            ctx.set_parameter(CParameter::TargetLength(target_length)).map_err(invalid)?;
        }
        ctx.set_parameter(CParameter::ChecksumFlag(true)).map_err(invalid)?;
        ctx.set_parameter(CParameter::ContentSizeFlag(options.content_size.is_some())).map_err(invalid)?;
        if let Some(log) = options.window_log {
            ctx.set_parameter(CParameter::WindowLog(log)).map_err(invalid)?;
        }
        if options.long_distance {
            ctx.set_parameter(CParameter::EnableLongDistanceMatching(true)).map_err(invalid)?;
        }
        ctx.set_pledged_src_size(options.content_size).map_err(invalid)?;
        if let Some(prefix) = options.prefix {
            ctx.ref_prefix(prefix).map_err(invalid)?;
        }
        Ok(ZstdWriter { out, ctx, buf: vec![0; CCtx::out_size()] })
    }

    /// Ends the frame and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        loop {
            let mut output = OutBuffer::around(&mut self.buf[..]);
            let left = self.ctx.end_stream(&mut output).map_err(failed)?;
            let made = output.pos();
            self.out.write_all(&self.buf[..made])?;
            if left == 0 {
                // The prefix must not outlive the frame.
                let _ = self.ctx.reset(ResetDirective::SessionAndParameters);
                return Ok(self.out);
            }
        }
    }
}

impl<W: Write> Write for ZstdWriter<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut input = InBuffer::around(data);
        while input.pos() < data.len() {
            let mut output = OutBuffer::around(&mut self.buf[..]);
            self.ctx.compress_stream(&mut output, &mut input).map_err(failed)?;
            let made = output.pos();
            self.out.write_all(&self.buf[..made])?;
        }
        Ok(data.len())
    }

    /// Ends the block: all that was written so far can be decoded from what has come out.
    fn flush(&mut self) -> io::Result<()> {
        loop {
            let mut output = OutBuffer::around(&mut self.buf[..]);
            let left = self.ctx.flush_stream(&mut output).map_err(failed)?;
            let made = output.pos();
            self.out.write_all(&self.buf[..made])?;
            if left == 0 {
                return self.out.flush();
            }
        }
    }
}

fn failed(code: usize) -> io::Error {
    io::Error::other(describe(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(data: &[u8]) -> Vec<u8> {
        let mut w = ZstdWriter::new(Vec::new(), ZstdWriterOptions::default()).unwrap();
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn decode(data: &[u8], piece: usize, end: FrameEnd) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        ZstdReader::new(io::BufReader::with_capacity(piece, data), 23, end).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn frames_of_any_size_in_pieces_of_any_size() {
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0][..], b"xy"].concat();
        let empty_skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
        let stream =
            [&frame(b""), &skippable[..], &frame(b"a"), &empty_skippable, &frame(&[7; 5000]), &frame(b"")]
                .concat();
        let want = [&b"a"[..], &[7; 5000]].concat();
        for piece in [1, 2, 3, 5, 17, 18, 19, 64, 9000] {
            assert!(decode(&stream, piece, FrameEnd::Continue).unwrap() == want, "pieces of {piece}");
            for cut in [1, 3, 6, stream.len() - 1] {
                assert!(decode(&stream[..cut], piece, FrameEnd::Continue).is_err(), "cut at {cut}");
            }
            assert_eq!(decode(&frame(b"one"), piece, FrameEnd::Stop).unwrap(), b"one");
            assert!(decode(&[frame(b"one"), frame(b"")].concat(), piece, FrameEnd::Stop).is_err());
            assert!(decode(&[frame(b"one"), vec![0]].concat(), piece, FrameEnd::Stop).is_err());
        }
    }
}
