//! Compressed streams: told apart by magic, decoded within bounds.
//!
//! gzip (RFC 1952, several members), zstd (RFC 8878, several frames, skippable frames), bzip2 (several streams) and
//! xz (several streams). File names never matter.

mod zstd;

pub use zstd::{FrameEnd, Tuning, ZstdReader, ZstdWriter, ZstdWriterOptions, zstd_size};

use std::io::{self, BufRead, BufReader, Read, Write};

/// Bytes that [`detect`] wants to see.
pub const MAGIC_LEN: usize = 10;

/// The compression of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None of the known magics.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Compression {
    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Bzip2 => "bzip2",
            Compression::Xz => "xz",
        }
    }
}

/// What decoding one stream may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Decoded bytes.
    pub max_output: u64,
    /// zstd window, log2 of bytes; at most 31.
    pub max_window_log: u32,
    /// Memory of an xz decoder in bytes.
    pub max_memory: u64,
}

impl Default for Limits {
    /// 64 GiB of output, windows of 128 MiB, 128 MiB for xz.
    fn default() -> Self {
        Limits { max_output: 64 << 30, max_window_log: 27, max_memory: 128 << 20 }
    }
}

/// Why a compressed stream cannot be read; found inside the [`io::Error`] that a decoder returns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More output than [`Limits::max_output`].
    #[error("decoded data exceeds {0} bytes")]
    OutputTooLarge(u64),
    /// The stream does not follow its format.
    #[error("corrupt {name} stream: {what}", name = .format.name())]
    Corrupt {
        /// The format in question.
        format: Compression,
        /// What the decoder says.
        what: String,
    },
    /// The stream ends inside a frame.
    #[error("{name} stream ends unexpectedly", name = .0.name())]
    Truncated(Compression),
    /// The stream asks for a larger window than allowed.
    #[error("zstd window is larger than {0} bytes")]
    WindowTooLarge(u64),
    /// The stream asks for more memory than allowed.
    #[error("xz stream needs more than {0} bytes of memory")]
    MemoryTooLarge(u64),
}

impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        let kind = match e {
            Error::Truncated(_) => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, e)
    }
}

/// Compresses with gzip, without a name or a time: the same bytes give the same stream.
#[derive(Debug)]
pub struct GzipWriter<W: Write>(flate2::write::GzEncoder<W>);

impl<W: Write> GzipWriter<W> {
    /// A stream into `out`, of level 6.
    pub fn new(out: W) -> Self {
        Self::with_level(out, 6)
    }

    /// A stream into `out` of a level from 0 to 9; a higher one counts as 9.
    pub fn with_level(out: W, level: u32) -> Self {
        GzipWriter(flate2::write::GzEncoder::new(out, flate2::Compression::new(level.min(9))))
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Compresses with gzip as tightly as libdeflate does, without a name or a time: the same bytes give the same stream.
///
/// libdeflate wants all of its input at once, so what is longer than [`TightGzipWriter::MEMBER`] becomes several members,
/// which all readers of gzip join. Memory: twice a member, and 10 MiB.
pub struct TightGzipWriter<W: Write> {
    out: W,
    compressor: libdeflater::Compressor,
    pending: Vec<u8>,
    packed: Vec<u8>,
    members: u64,
}

impl<W: Write> std::fmt::Debug for TightGzipWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TightGzipWriter").field("members", &self.members).finish_non_exhaustive()
    }
}

impl<W: Write> TightGzipWriter<W> {
    /// Bytes of input that are compressed together.
    pub const MEMBER: usize = 32 << 20;

    /// A stream into `out`.
    pub fn new(out: W) -> Self {
        let level = libdeflater::CompressionLvl::best();
        let compressor = libdeflater::Compressor::new(level);
        TightGzipWriter { out, compressor, pending: Vec::new(), packed: Vec::new(), members: 0 }
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.pending.is_empty() || self.members == 0 {
            self.member()?;
        }
        Ok(self.out)
    }

    fn member(&mut self) -> io::Result<()> {
        self.packed.resize(self.compressor.gzip_compress_bound(self.pending.len()), 0);
        let n = self
            .compressor
            .gzip_compress(&self.pending, &mut self.packed)
            .map_err(|error| io::Error::other(format!("libdeflate: {error}")))?;
        self.pending.clear();
        self.members += 1;
        self.out.write_all(&self.packed[..n])
    }
}

impl<W: Write> Write for TightGzipWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.pending.len() == Self::MEMBER {
            self.member()?;
        }
        let n = buf.len().min(Self::MEMBER - self.pending.len());
        self.pending.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    /// Passes on what is complete: a member that was cut short would cost bytes.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The compression that the first bytes of a stream announce. A shorter `prefix` than [`MAGIC_LEN`] will do when the
/// stream has no more.
pub fn detect(prefix: &[u8]) -> Compression {
    match prefix {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        // A tar may begin with a file called "BZh1...": ask for the block or end-of-stream magic as well.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
        | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        _ => Compression::None,
    }
}

/// Detects the compression of `input` and returns a bounded reader of the decoded bytes.
///
/// # Errors
/// Those of reading the first bytes. The reader's own errors carry an [`Error`]; those of `input` come out as they are.
pub fn decoder<'a>(
    mut input: impl Read + Send + 'a,
    limits: Limits,
) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut head = Vec::with_capacity(MAGIC_LEN);
    input.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut head)?;
    let compression = detect(&head);
    let input = BufReader::with_capacity(64 << 10, io::Cursor::new(head).chain(Input(input)));
    Ok((compression, decoder_of(compression, input, limits)))
}

fn decoder_of<'a>(
    format: Compression,
    input: impl BufRead + Send + 'a,
    limits: Limits,
) -> Box<dyn Read + Send + 'a> {
    let decoded: Box<dyn Read + Send + 'a> = match format {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Compression::Xz => {
            let kib = u32::try_from(limits.max_memory >> 10).unwrap_or(u32::MAX - 1);
            Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, kib))
        }
        Compression::Zstd => Box::new(ZstdReader::new(input, limits.max_window_log, FrameEnd::Continue)),
    };
    Box::new(Bounded { input: decoded, format, left: limits.max_output, limits })
}

/// What is decoded. Its errors are marked: that it cannot be read says nothing of the bytes.
struct Input<R>(R);

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, Unreadable(error)),
        })
    }
}

/// An error of the input on its way through a decoder.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Unreadable(io::Error);

/// Gives errors one shape and stops at the output bound.
struct Bounded<R> {
    input: R,
    format: Compression,
    left: u64,
    limits: Limits,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // One byte more than allowed is asked for, to tell "exactly at the bound" from "beyond it".
        let want = (buf.len() as u64).min(self.left.saturating_add(1)) as usize;
        let n = self.input.read(&mut buf[..want]).map_err(|e| self.explain(e))?;
        self.left = self.left.checked_sub(n as u64).ok_or(Error::OutputTooLarge(self.limits.max_output))?;
        Ok(n)
    }
}

impl<R> Bounded<R> {
    fn explain(&self, e: io::Error) -> io::Error {
        let e = match e.downcast::<Unreadable>() {
            Ok(Unreadable(error)) => return error,
            Err(e) => e,
        };
        let ours = e.get_ref().is_some_and(|inner| inner.is::<Error>());
        if ours || self.format == Compression::None {
            return e;
        }
        match e.kind() {
            io::ErrorKind::Interrupted => e,
            io::ErrorKind::UnexpectedEof => Error::Truncated(self.format).into(),
            _ if self.format == Compression::Xz && e.to_string().contains("mem_limit_kb") => {
                Error::MemoryTooLarge(self.limits.max_memory).into()
            }
            _ => Error::Corrupt { format: self.format, what: e.to_string() }.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut w = GzipWriter::new(Vec::new());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        let mut w = ZstdWriter::new(Vec::new(), ZstdWriterOptions::default()).unwrap();
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn bzip2(data: &[u8]) -> Vec<u8> {
        let mut w = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(9));
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn decode(data: &[u8], limits: Limits) -> io::Result<(Compression, Vec<u8>)> {
        let (c, mut r) = decoder(data, limits)?;
        let mut out = Vec::new();
        r.read_to_end(&mut out)?;
        Ok((c, out))
    }

    fn inner(e: io::Error) -> Error {
        e.get_ref().and_then(|e| e.downcast_ref::<Error>()).unwrap_or_else(|| panic!("{e:?}")).clone()
    }

    #[test]
    fn tight_gzip_is_gzip_and_tighter() {
        let text = coracle_testkit::image::text(3, 400_000);
        let packed = |mut writer: TightGzipWriter<Vec<u8>>| {
            text.chunks(10_007).for_each(|piece| writer.write_all(piece).unwrap());
            writer.finish().unwrap()
        };
        let tight = packed(TightGzipWriter::new(Vec::new()));
        assert_eq!(tight, packed(TightGzipWriter::new(Vec::new())));
        assert!(decode(&tight, Limits::default()).unwrap().1 == text);
        let mut usual = GzipWriter::new(Vec::new());
        usual.write_all(&text).unwrap();
        let usual = usual.finish().unwrap();
        assert!(tight.len() < usual.len(), "{} and {}", tight.len(), usual.len());
        // Several members are one stream.
        let long = vec![7; TightGzipWriter::<Vec<u8>>::MEMBER + 5];
        let mut writer = TightGzipWriter::new(Vec::new());
        writer.write_all(&long).unwrap();
        assert!(decode(&writer.finish().unwrap(), Limits::default()).unwrap().1 == long);
        let nothing = TightGzipWriter::new(Vec::new()).finish().unwrap();
        assert!(decode(&nothing, Limits::default()).unwrap().1.is_empty());
    }

    #[test]
    fn every_format_is_detected_and_members_join() {
        let text = b"the lightest boat there is\n".repeat(1000);
        for (make, want) in [
            (gzip as fn(&[u8]) -> Vec<u8>, Compression::Gzip),
            (zstd, Compression::Zstd),
            (bzip2, Compression::Bzip2),
        ] {
            let twice = [make(&text[..500]), make(&text[500..])].concat();
            let (got, out) = decode(&twice, Limits::default()).unwrap();
            assert_eq!(got, want);
            assert!(out == text, "{want:?}");
        }
        assert_eq!(decode(b"", Limits::default()).unwrap(), (Compression::None, vec![]));
        assert_eq!(decode(b"BZh9AY&SX plain", Limits::default()).unwrap().0, Compression::None);
    }

    #[test]
    fn xz_is_read_and_its_memory_is_bounded() {
        // printf hello | xz -9: a dictionary of 64 MiB.
        let xz: [u8; 64] = [
            0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01,
            0x1c, 0x00, 0x00, 0x00, 0x10, 0xcf, 0x58, 0xcc, 0x01, 0x00, 0x04, 0x68, 0x65, 0x6c, 0x6c, 0x6f,
            0x00, 0x00, 0x00, 0x00, 0xb1, 0x37, 0xb9, 0xdb, 0xe5, 0xda, 0x1e, 0x9b, 0x00, 0x01, 0x1d, 0x05,
            0xb8, 0x2d, 0x80, 0xaf, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
        ];
        assert_eq!(decode(&xz, Limits::default()).unwrap(), (Compression::Xz, b"hello".to_vec()));
        let small = Limits { max_memory: 1 << 20, ..Limits::default() };
        assert_eq!(inner(decode(&xz, small).unwrap_err()), Error::MemoryTooLarge(1 << 20));
        assert_eq!(
            inner(decode(&xz[..40], Limits::default()).unwrap_err()),
            Error::Truncated(Compression::Xz)
        );
    }

    #[test]
    fn output_stops_exactly_at_the_bound() {
        let data = gzip(&[7; 1000]);
        let at = |max_output| decode(&data, Limits { max_output, ..Limits::default() });
        assert_eq!(at(1000).unwrap().1.len(), 1000);
        assert_eq!(inner(at(999).unwrap_err()), Error::OutputTooLarge(999));
        assert_eq!(inner(at(0).unwrap_err()), Error::OutputTooLarge(0));
    }

    /// A reader that fails in the way of a source: an error of its own inside.
    struct Broken<'a>(&'a [u8]);

    #[derive(Debug, thiserror::Error)]
    #[error("the line is cut")]
    struct Cut;

    impl Read for Broken<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf)? {
                0 => Err(io::Error::other(Cut)),
                n => Ok(n),
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_damage() {
        let data: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let xz = {
            let mut writer =
                lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
            writer.write_all(&data).unwrap();
            writer.finish().unwrap()
        };
        for stream in [gzip(&data), zstd(&data), bzip2(&data), xz, data.clone()] {
            for len in [16, stream.len() / 2, stream.len() - 1] {
                let (_, mut decoded) = decoder(Broken(&stream[..len]), Limits::default()).unwrap();
                let error = io::copy(&mut decoded, &mut io::sink()).unwrap_err();
                assert!(error.get_ref().is_some_and(|inner| inner.is::<Cut>()), "{len}: {error:?}");
            }
        }
    }

    #[test]
    fn damage_is_an_error_of_one_shape() {
        for (make, format) in [
            (gzip as fn(&[u8]) -> Vec<u8>, Compression::Gzip),
            (zstd, Compression::Zstd),
            (bzip2, Compression::Bzip2),
        ] {
            let good = make(b"some text that is long enough to be worth a block of its own");
            let cut = &good[..good.len() - 3];
            assert_eq!(
                inner(decode(cut, Limits::default()).unwrap_err()),
                Error::Truncated(format),
                "{format:?}"
            );
            let mut flipped = good.clone();
            let last = flipped.len() - 5;
            flipped[last] ^= 0x55;
            assert!(
                matches!(inner(decode(&flipped, Limits::default()).unwrap_err()), Error::Corrupt { .. }),
                "{format:?}"
            );
            let junk = [&good[..], b"junk behind the end"].concat();
            assert!(decode(&junk, Limits::default()).is_err(), "{format:?}");
        }
    }
}
