//! Packed streams: found, expanded, and rebuilt to the last bit (`docs/formats/native-delta.md`, section 8).

mod locate;
pub mod lz4;
pub mod png;
pub mod xz;
mod xz_container;
pub mod zstd;

pub use locate::{Format, Stream, locate};

use super::Error;
use super::deflate::{self, coded};
use super::numbers::{Fields, put};
use crate::{ReadAt, Section};

/// An encoder with its settings (section 8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoder {
    /// Families 0, 1 and 4: models of our own.
    Deflate(deflate::Encoder),
    /// Family 2: liblzma.
    Xz(xz::Settings),
    /// Family 3: libzstd.
    Zstd(zstd::Settings),
    /// Family 5: deflate, any encoder, whose choices are sent.
    Tokens(coded::Settings),
    /// Family 6: a deflate stream in chunks of an image.
    Png(png::Chunks, png::Inner),
    /// Family 7: liblz4.
    Lz4(lz4::Settings),
}

/// Names of the encoders that this program has (section 8.7), ascending.
pub const NAMES: [&str; 6] =
    [coded::NAME, lz4::NAME, xz::NAME, png::NAME, deflate::FILTERED_NAME, zstd::NAME];

/// Content that counts one in the work of families 2, 3 and 7 counts this if the encoder is slow (section 8.4).
const SLOW: u64 = 4;

impl Encoder {
    /// Reads an encoder and the fields that its family adds.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        let number = fields.number()?;
        match number >> 8 {
            xz::FAMILY => xz::Settings::read(number & 0xff, fields).map(Encoder::Xz),
            zstd::FAMILY => zstd::Settings::read(number & 0xff, fields).map(Encoder::Zstd),
            coded::FAMILY => coded::Settings::of(number).map(Encoder::Tokens),
            png::FAMILY => png::read(number & 0xff, fields).map(|(c, i)| Encoder::Png(c, i)),
            lz4::FAMILY => lz4::Settings::of(number).map(Encoder::Lz4),
            _ => deflate::Encoder::of(number).map(Encoder::Deflate),
        }
    }

    /// Appends its number and the fields that its family adds.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Encoder::Deflate(encoder) => put(out, encoder.number()),
            Encoder::Xz(settings) => settings.write(out),
            Encoder::Zstd(settings) => settings.write(out),
            Encoder::Tokens(settings) => put(out, settings.number()),
            Encoder::Png(chunks, inner) => png::write(*chunks, *inner, out),
            Encoder::Lz4(settings) => put(out, settings.number()),
        }
    }

    /// The names that a head must list (section 8.7).
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let around = matches!(self, Encoder::Png(..)).then_some(png::NAME);
        around.into_iter().chain(self.inner().name())
    }

    /// What makes the deflate stream in the chunks of an image; the encoder itself otherwise.
    pub(crate) fn inner(&self) -> Encoder {
        match *self {
            Encoder::Png(_, png::Inner::Known(encoder)) => Encoder::Deflate(encoder),
            Encoder::Png(_, png::Inner::Tokens(settings)) => Encoder::Tokens(settings),
            other => other,
        }
    }

    fn name(&self) -> Option<&'static str> {
        match self {
            Encoder::Deflate(encoder) if encoder.family == deflate::Family::Filtered => {
                Some(deflate::FILTERED_NAME)
            }
            Encoder::Deflate(_) => None,
            Encoder::Xz(_) => Some(xz::NAME),
            Encoder::Zstd(_) => Some(zstd::NAME),
            Encoder::Lz4(_) => Some(lz4::NAME),
            Encoder::Tokens(_) => Some(coded::NAME),
            Encoder::Png(..) => None,
        }
    }

    /// The kind of stream that it makes.
    pub fn format(&self) -> &'static str {
        match self {
            Encoder::Deflate(_) | Encoder::Tokens(_) => "deflate",
            Encoder::Png(..) => "png",
            Encoder::Xz(_) => "xz",
            Encoder::Zstd(_) => "zstd",
            Encoder::Lz4(_) => "lz4",
        }
    }

    /// Bytes of memory that rebuilding a stream of `stream` bytes takes, content and stream not counted (section 4.3).
    pub fn memory(&self, content: u64, stream: u64) -> u64 {
        match self {
            Encoder::Deflate(_) => deflate::memory(),
            Encoder::Tokens(_) => coded::memory(content),
            Encoder::Png(..) => self.inner().memory(content, stream).saturating_add(stream),
            Encoder::Xz(settings) => settings.memory(),
            Encoder::Zstd(settings) => settings.memory(content),
            Encoder::Lz4(settings) => settings.memory(),
        }
    }

    /// What `content` bytes count in the work of families 2, 3 and 7 (section 8.4).
    pub(crate) fn work(&self, content: u64) -> u64 {
        match self {
            Encoder::Deflate(_) | Encoder::Tokens(_) | Encoder::Png(..) => 0,
            Encoder::Xz(settings) if settings.extreme => content.saturating_mul(SLOW),
            Encoder::Zstd(settings) if settings.is_slow() => content.saturating_mul(SLOW),
            Encoder::Lz4(settings) if settings.is_slow() => content.saturating_mul(SLOW),
            _ => content,
        }
    }

    /// What the encoder makes of `content`, if that is no longer than `most` bytes.
    ///
    /// # Errors
    /// It is longer, takes more work than section 8.4 allows, or needs tokens (family 5).
    pub fn rebuild(&self, content: &[u8], most: usize) -> Result<Vec<u8>, deflate::Stop> {
        self.rebuild_with(content, most, None)
    }

    /// The same with the tokens of the part.
    pub(crate) fn rebuild_with(
        &self,
        content: &[u8],
        most: usize,
        tokens: Option<&mut coded::Decoder<'_>>,
    ) -> Result<Vec<u8>, deflate::Stop> {
        match self {
            Encoder::Deflate(encoder) => deflate::rebuild(content, *encoder),
            Encoder::Tokens(settings) => match tokens {
                Some(tokens) => tokens.stream(content, *settings, most),
                None => Err(deflate::Stop::Differs),
            },
            Encoder::Png(chunks, _) => {
                let stream = self.inner().rebuild_with(content, most, tokens)?;
                chunks.cut(&stream, content, most).ok_or(deflate::Stop::TooMuchWork)
            }
            Encoder::Xz(settings) => settings.encode(content, most).ok_or(deflate::Stop::TooMuchWork),
            Encoder::Zstd(settings) => settings.encode(content, most).ok_or(deflate::Stop::TooMuchWork),
            Encoder::Lz4(settings) => settings.encode(content, most).ok_or(deflate::Stop::TooMuchWork),
        }
    }
}

/// An encoder that makes exactly `stream` of `content` and takes at most `memory` bytes; `likely` is tried first. With
/// `tokens` a deflate stream may be one whose tokens are sent, if that is worth it.
pub fn guess(
    content: &[u8],
    stream: &[u8],
    format: Format,
    likely: Option<Encoder>,
    memory: u64,
    tokens: bool,
) -> Option<Encoder> {
    let fits = |encoder: &Encoder| encoder.memory(content.len() as u64, stream.len() as u64) <= memory;
    match format {
        Format::Deflate(hint) => {
            let (known, coded) = match likely {
                Some(Encoder::Deflate(encoder)) => (Some(encoder), None),
                Some(Encoder::Tokens(settings)) => (hint, Some(settings)),
                _ => (hint, None),
            };
            let by_tokens = || {
                let settings = tokens.then(|| coded::choose(content, stream, coded));
                settings.flatten().map(Encoder::Tokens)
            };
            deflate::guess(content, stream, known).map(Encoder::Deflate).or_else(by_tokens)
        }
        Format::Png => {
            let (inner, chunks) = png::join(stream)?;
            if chunks.cut(&inner, content, stream.len()).as_deref() != Some(stream) {
                return None;
            }
            let hint = Format::Deflate(Some(deflate::Encoder::OF_IMAGES));
            match guess(content, &inner, hint, likely.map(|l| l.inner()), memory, tokens)? {
                Encoder::Deflate(encoder) => Some(Encoder::Png(chunks, png::Inner::Known(encoder))),
                Encoder::Tokens(settings) => Some(Encoder::Png(chunks, png::Inner::Tokens(settings))),
                _ => None,
            }
        }
        Format::Xz => {
            let all = xz::candidates(stream, content.len() as u64)?.into_iter();
            all.filter(|s| fits(&Encoder::Xz(*s))).find(|s| s.makes(content, stream)).map(Encoder::Xz)
        }
        Format::Lz4 => {
            let mut all = lz4::candidates().filter(|s| fits(&Encoder::Lz4(*s)));
            all.find(|s| s.makes(content, stream)).map(Encoder::Lz4)
        }
        Format::Zstd => {
            let all = zstd::candidates(stream, content.len() as u64)?.into_iter();
            let usual = all.map(Encoder::Zstd).filter(|e| Some(*e) != likely);
            let all = likely.filter(|e| matches!(e, Encoder::Zstd(_))).into_iter().chain(usual);
            let makes = |e: &Encoder| match e {
                Encoder::Zstd(settings) => settings.makes(content, stream),
                _ => false,
            };
            all.filter(fits).find(makes)
        }
    }
}

/// Why a stream could not be expanded.
#[derive(Debug)]
pub enum ExpandError {
    /// What is wrong with the stream.
    Stream(&'static str),
    /// The file cannot be read.
    Read(std::io::Error),
}

/// Why a stream does not give what it should.
pub(crate) const TOO_SHORT: &str = "it is shorter than declared";
const NO_CHUNKS: &str = "it is no row of chunks of data";
pub(crate) const TOO_LONG: &str = "it is longer than declared";

/// A stream of `file` expanded, if that gives at most `most` bytes: its content, and its own length. But for deflate that
/// length must be known.
///
/// # Errors
/// See [`ExpandError`].
pub fn expand(file: &dyn ReadAt, stream: &Stream, most: usize) -> Result<(Vec<u8>, u64), ExpandError> {
    let whole = || {
        let len = stream.len.unwrap_or(0);
        Section::new(file, stream.start, len).to_vec().map_err(ExpandError::Read)
    };
    match stream.format {
        Format::Deflate(_) => deflate::inflate(file, stream.start, most),
        Format::Png => {
            let bytes = whole()?;
            let (inner, _) = png::join(&bytes).ok_or(ExpandError::Stream(NO_CHUNKS))?;
            let (content, _) = deflate::inflate(&inner, 0, most)?;
            Ok((content, bytes.len() as u64))
        }
        Format::Xz => {
            let bytes = whole()?;
            let content = xz::decode(&bytes, most).map_err(ExpandError::Stream)?;
            Ok((content, bytes.len() as u64))
        }
        Format::Lz4 => {
            let bytes = whole()?;
            let content = lz4::decode(&bytes, most).map_err(ExpandError::Stream)?;
            Ok((content, bytes.len() as u64))
        }
        Format::Zstd => {
            let bytes = whole()?;
            let content = zstd::decode(&bytes, most).map_err(ExpandError::Stream)?;
            Ok((content, bytes.len() as u64))
        }
    }
}

/// Expands a stream of a length stated that must have exactly `len` bytes of content.
pub(crate) fn expand_exact(
    file: &dyn ReadAt,
    start: u64,
    stream: u64,
    format: Format,
    len: usize,
) -> Result<Vec<u8>, ExpandError> {
    let stream = Stream { start, len: Some(stream), name: Vec::new(), crc: 0, format };
    let (content, _) = expand(file, &stream, len)?;
    if content.len() == len { Ok(content) } else { Err(ExpandError::Stream(TOO_SHORT)) }
}

/// Bytes of memory that expanding a stream of xz, zstd or lz4 takes, its content not counted (section 4.3).
pub(crate) fn expanding(stream: u64, content: u64) -> u64 {
    stream.saturating_add(content.checked_next_power_of_two().unwrap_or(u64::MAX)).saturating_add(1 << 20)
}

/// Whether this program has the encoder of a name: the library that is linked is the version named (section 8.7).
pub(crate) fn has(name: &str) -> bool {
    match name {
        xz::NAME | deflate::FILTERED_NAME | coded::NAME | png::NAME => true,
        zstd::NAME => zstd::is_named_version(),
        lz4::NAME => lz4::is_named_version(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_testkit::image::{binary, text};
    use coracle_testkit::native::packed_stream;
    use liblzma::stream::{Action, Check, Filters, LzmaOptions, MatchFinder, PRESET_EXTREME};

    const MEMORY: u64 = 208 << 20;

    fn contents() -> Vec<Vec<u8>> {
        let (noise, words) = (binary(1, 70_000), text(2, 120_000));
        let mixed = [&noise[..], &words, &noise[..9000], &[0; 30_000]].concat();
        vec![b"a".to_vec(), noise, words, mixed, vec![7; 300_000]]
    }

    /// A file as liblzma's own writer of `.xz` makes it.
    fn xz_file(content: &[u8], options: &LzmaOptions, x86: bool, check: Check) -> Vec<u8> {
        let mut filters = Filters::new();
        if x86 {
            filters.x86();
        }
        filters.lzma2(options);
        let mut stream = liblzma::stream::Stream::new_stream_encoder(&filters, check).unwrap();
        let mut out = Vec::with_capacity(content.len() * 2 + 4096);
        stream.process_vec(content, &mut out, Action::Finish).unwrap();
        out
    }

    fn proved(content: &[u8], file: &[u8]) -> Option<Encoder> {
        let found = locate(&file.to_vec());
        let [stream] = &found[..] else { panic!("{} streams", found.len()) };
        let (back, len) = expand(&file.to_vec(), stream, content.len()).unwrap();
        assert!(back == content && len == file.len() as u64);
        assert!(expand(&file.to_vec(), stream, content.len() - 1).is_err());
        let encoder = guess(content, file, stream.format, None, MEMORY, true)?;
        assert!(encoder.rebuild(content, file.len()).unwrap() == file, "{encoder:?}");
        assert!(encoder.rebuild(content, file.len() - 1).is_err());
        let mut number = Vec::new();
        encoder.write(&mut number);
        assert_eq!(Encoder::read(&mut Fields::new(&number, "test")).unwrap(), encoder);
        assert!(packed_stream(content, &number).unwrap() == file, "{encoder:?}: the second encoder differs");
        Some(encoder)
    }

    #[test]
    fn files_of_xz_are_rebuilt_whatever_the_preset() {
        for preset in [0, 1, 2, 3, 4, 5, 6, 7, 9, 3 | PRESET_EXTREME, 6 | PRESET_EXTREME, 9 | PRESET_EXTREME]
        {
            // The largest dictionaries take a while to set up.
            let options = LzmaOptions::new_preset(preset).unwrap();
            for content in contents().into_iter().take(if preset & 15 > 6 { 2 } else { 9 }) {
                let file = xz_file(&content, &options, preset == 2, Check::Crc64);
                assert!(proved(&content, &file).is_some(), "{preset:#x}, {} bytes", content.len());
            }
        }
    }

    #[test]
    fn modules_of_a_kernel_are_rebuilt_with_a_small_dictionary() {
        let mut options = LzmaOptions::new_preset(6).unwrap();
        options.dict_size(1 << 20);
        for (x86, check) in [(false, Check::Crc32), (true, Check::Sha256), (false, Check::None)] {
            for content in contents() {
                let encoder = proved(&content, &xz_file(&content, &options, x86, check)).unwrap();
                assert!(encoder.memory(content.len() as u64, 0) < 16 << 20);
            }
        }
    }

    #[test]
    fn what_several_threads_of_xz_write_is_rebuilt() {
        let content = contents().concat();
        // Family 2, preset 6; 1 MiB, lc 3, no filter, the same dictionary, CRC32; blocks; headers of 20 bytes.
        for block in [0u64, 100_000, 4096] {
            let mut encoder = Vec::new();
            [0x206, 20, 93, 0, 16, 1, block, 5].into_iter().for_each(|n| put(&mut encoder, n));
            let file = packed_stream(&content, &encoder).unwrap();
            assert!(proved(&content, &file).is_some(), "{block}");
        }
    }

    #[test]
    fn settings_that_no_preset_has_are_left_alone() {
        let mut options = LzmaOptions::new_preset(6).unwrap();
        options.nice_len(17).match_finder(MatchFinder::HashChain3);
        let content = &contents()[3];
        assert_eq!(proved(content, &xz_file(content, &options, false, Check::Crc64)), None);
    }

    #[test]
    fn frames_of_zstd_are_rebuilt() {
        let long = contents().concat().repeat(3);
        let all = contents();
        let cases: [(u64, u64, u64, &[u8]); 9] = [
            (3, 3, 0, &all[3]),
            (3, 1, 0, &all[3]),
            (1, 2, 0, &all[2]),
            (19, 3, 0, &all[1]),
            (9, 0, 0, &all[2]),
            (3, 7, 0, &long),
            (3, 3, 0, &long),
            (5, 5, 0, &long),
            (3, 13, 27, &all[3]),
        ];
        for (level, flags, window, content) in cases {
            let mut encoder = Vec::new();
            [0x300 + level, flags, window].into_iter().for_each(|n| put(&mut encoder, n));
            let file = packed_stream(content, &encoder).unwrap();
            assert!(
                proved(content, &file).is_some(),
                "level {level}, flags {flags}, {} bytes",
                content.len()
            );
        }
    }

    #[test]
    fn fields_out_of_range_are_refused() {
        let good = [0x206, 20, 93, 0, 16, 1, 0, 0];
        let read = |fields: &[u64]| {
            let mut bytes = Vec::new();
            fields.iter().for_each(|&n| put(&mut bytes, n));
            Encoder::read(&mut Fields::new(&bytes, "test"))
        };
        assert!(read(&good).is_ok());
        let changes =
            [(0, 0x207), (0, 0x220), (0, 0x400), (1, 11), (1, 27), (2, 225), (2, 44), (3, 6), (3, 12)];
        let more = [(4, 41), (5, 2), (6, 4095), (7, 256)];
        for (at, value) in changes.into_iter().chain(more) {
            let mut bad = good;
            bad[at] = value;
            assert!(read(&bad).is_err(), "{at}: {value:#x}");
        }
        assert!(read(&[0x303, 3, 0]).is_ok());
        for bad in [[0x300, 3, 0], [0x317, 3, 0], [0x303, 16, 0], [0x303, 3, 9], [0x303, 3, 28]] {
            assert!(read(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn damaged_streams_are_told() {
        let content = contents().remove(3);
        let xz = xz_file(&content, &LzmaOptions::new_preset(1).unwrap(), false, Check::Crc32);
        let mut number = Vec::new();
        [0x303, 3, 0].into_iter().for_each(|n| put(&mut number, n));
        let zstd = packed_stream(&content, &number).unwrap();
        for (file, format) in [(xz, Format::Xz), (zstd, Format::Zstd)] {
            for cut in [1, 13, 40, file.len() / 2, file.len() - 1] {
                let file = file[..cut].to_vec();
                let len = Some(cut as u64);
                let stream = Stream { start: 0, len, name: Vec::new(), crc: 0, format };
                assert!(matches!(expand(&file, &stream, 1 << 20), Err(ExpandError::Stream(_))), "{cut}");
            }
        }
    }
}
