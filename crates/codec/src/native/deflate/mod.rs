//! Deflate streams (RFC 1951) inflated, and rebuilt to the last bit (`docs/formats/native-delta.md`, section 8).
//!
//! Programs that write `.gz`, `.zip`, `.jar` and the like share a few encoders. A stream that one of them made follows
//! from its content and the name of the encoder; the writer proves it for each stream.

mod blocks;
pub mod coded;
mod tokens;

use flate2::{Decompress, FlushDecompress, Status};

use super::Error;
use super::packed::{ExpandError, TOO_LONG, TOO_SHORT};
use crate::ReadAt;

/// Which program's rules an encoder follows (section 8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// zlib 1.2.0.4 and later.
    Zlib,
    /// GNU gzip, and Info-ZIP's zip.
    Gzip,
    /// zlib with its strategy for filtered data, as libpng calls it.
    Filtered,
}

/// Number of the family of [`Family::Filtered`] (section 8.2), and its name (section 8.7).
const FILTERED: u64 = 4;
pub(crate) const FILTERED_NAME: &str = "zlib-filtered";

/// An encoder: its family and settings (section 8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Encoder {
    /// Whose rules.
    pub family: Family,
    /// 1 to 9.
    pub level: u8,
    /// zlib's `memLevel`, 1 to 9; 9 for gzip.
    pub mem_level: u8,
}

impl Encoder {
    /// What most images are written with.
    pub(crate) const OF_IMAGES: Encoder = Encoder { family: Family::Filtered, level: 9, mem_level: 8 };

    /// Encoders in the order in which they are tried: what is common comes first.
    pub fn usual() -> impl Iterator<Item = Encoder> {
        const LEVELS: [u8; 9] = [9, 6, 1, 8, 7, 5, 4, 3, 2];
        LEVELS.into_iter().flat_map(|level| {
            [(Family::Gzip, 9), (Family::Zlib, 8), (Family::Zlib, 9)].map(|(family, mem_level)| Encoder {
                family,
                level,
                mem_level,
            })
        })
    }

    /// Encoders of images in the order in which they are tried.
    pub fn of_images() -> impl Iterator<Item = Encoder> {
        const LEVELS: [u8; 6] = [9, 6, 8, 7, 5, 4];
        let filtered = LEVELS
            .into_iter()
            .flat_map(|level| [8, 9].map(|mem_level| Encoder { family: Family::Filtered, level, mem_level }));
        filtered.chain(Encoder::usual().filter(|e| e.family == Family::Zlib))
    }

    /// The number in a delta.
    pub fn number(self) -> u64 {
        let family = match self.family {
            Family::Zlib => 0,
            Family::Gzip => 1,
            Family::Filtered => FILTERED,
        };
        family << 8 | u64::from(self.level) << 4 | u64::from(self.mem_level)
    }

    /// The encoder with a number.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn of(number: u64) -> Result<Self, Error> {
        let unknown = Error::Unknown { what: "deflate encoder", value: number };
        let family = match number >> 8 {
            0 => Family::Zlib,
            1 => Family::Gzip,
            FILTERED => Family::Filtered,
            _ => return Err(unknown),
        };
        let (level, mem_level) = ((number >> 4 & 15) as u8, (number & 15) as u8);
        let valid = (1..=9).contains(&level) && (1..=9).contains(&mem_level);
        if !valid || (family == Family::Gzip && mem_level != 9) {
            return Err(unknown);
        }
        Ok(Encoder { family, level, mem_level })
    }
}

/// Work that rebuilding `len` bytes may take, in steps of matching (section 8.4).
fn work_limit(len: usize) -> u64 {
    (1 << 22) + 160 * len as u64
}

/// Bytes of memory that rebuilding a stream of `len` bytes takes, content and stream not counted (section 4.3).
pub(crate) fn memory() -> u64 {
    2 << 20
}

/// Why a stream was not rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It differs from the one that was wanted.
    Differs,
    /// It takes more work than allowed.
    TooMuchWork,
}

/// What `encoder` makes of `content`. Takes about as long as that program does, and no more than section 8.4 allows.
///
/// # Errors
/// [`Stop::TooMuchWork`].
pub fn rebuild(content: &[u8], encoder: Encoder) -> Result<Vec<u8>, Stop> {
    tokens::deflate(content, encoder, work_limit(content.len()), |_| true)
}

/// Whether `encoder` makes exactly `stream` of `content`; stops at the first block that differs.
pub(crate) fn makes(content: &[u8], encoder: Encoder, stream: &[u8]) -> bool {
    let limit = work_limit(content.len());
    let agrees = |made: &[u8]| stream.starts_with(made);
    tokens::deflate(content, encoder, limit, agrees).is_ok_and(|made| made == stream)
}

/// The first usual encoder that makes `stream` of `content`; `likely` is tried before the others.
pub(crate) fn guess(content: &[u8], stream: &[u8], likely: Option<Encoder>) -> Option<Encoder> {
    let mut order: Vec<Encoder> = likely.into_iter().collect();
    match likely.map(|e| e.family) {
        Some(Family::Filtered) => order.extend(Encoder::of_images().filter(|&e| Some(e) != likely)),
        _ => order.extend(Encoder::usual().filter(|&e| Some(e) != likely)),
    }
    order.into_iter().find(|&encoder| makes(content, encoder, stream))
}

/// Why a stream does not inflate.
const BAD_STREAM: &str = "it is no deflate stream";

/// Inflates the stream at `offset` of `input`, of at most `most` bytes: its content, and its own length.
///
/// # Errors
/// It is no stream, or longer.
pub fn inflate(input: &dyn ReadAt, offset: u64, most: usize) -> Result<(Vec<u8>, u64), ExpandError> {
    let mut state = Decompress::new(false);
    let mut content = Vec::new();
    let (mut at, mut buf) = (offset, vec![0; 1 << 15]);
    loop {
        let n = input.read_at(at, &mut buf).map_err(ExpandError::Read)?;
        let mut chunk = &buf[..n];
        loop {
            if content.len() == content.capacity() {
                content.reserve(
                    (content.len() / 2).clamp(1 << 12, 1 << 22).min(most + 1 - content.len().min(most)),
                );
            }
            let before = state.total_in();
            let status = state.decompress_vec(chunk, &mut content, FlushDecompress::None);
            let status = status.map_err(|_| ExpandError::Stream(BAD_STREAM))?;
            let used = (state.total_in() - before) as usize;
            chunk = &chunk[used..];
            at += used as u64;
            if content.len() > most {
                return Err(ExpandError::Stream(TOO_LONG));
            }
            match status {
                Status::StreamEnd => return Ok((content, state.total_in())),
                _ if content.len() == content.capacity() => {}
                _ if chunk.is_empty() => break,
                _ if used == 0 => return Err(ExpandError::Stream(BAD_STREAM)),
                _ => {}
            }
        }
        if n == 0 {
            return Err(ExpandError::Stream(TOO_SHORT));
        }
    }
}

/// Inflates a stream that must have exactly `len` bytes of content.
pub(crate) fn inflate_exact(input: &dyn ReadAt, offset: u64, len: usize) -> Result<Vec<u8>, ExpandError> {
    let (content, _) = inflate(input, offset, len)?;
    if content.len() == len { Ok(content) } else { Err(ExpandError::Stream(TOO_SHORT)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_testkit::image::{binary, mutate};

    #[test]
    fn encoders_have_one_number_each() {
        let all = || Encoder::usual().chain(Encoder::of_images().take(12));
        let mut numbers: Vec<u64> = all().map(Encoder::number).collect();
        assert!(all().all(|e| Encoder::of(e.number()).unwrap() == e));
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all().count());
        for bad in [0, 0x0a8, 0x190, 0x098 + 0x200, 0x198, 0x10] {
            assert!(Encoder::of(bad).is_err(), "{bad:#x}");
        }
    }

    #[test]
    fn what_was_rebuilt_inflates_to_the_same() {
        let noise = binary(1, 60_000);
        let text = b"the lightest boat there is, ".repeat(3000);
        let mixed = [&noise[..], &text, &mutate(&noise, 2, 400), &[0; 40_000]].concat();
        for content in [&b""[..], b"a", b"abcabcabcabc", &noise, &text, &mixed] {
            for encoder in Encoder::usual().chain(Encoder::of_images().take(12)) {
                let stream = rebuild(content, encoder).unwrap();
                let (back, used) = inflate(&stream, 0, content.len()).unwrap();
                assert!(back == content && used == stream.len() as u64, "{encoder:?}, {}", content.len());
                assert!(makes(content, encoder, &stream));
                if content.len() > 1000 {
                    assert!(inflate(&stream, 0, content.len() - 1).is_err());
                    assert!(inflate_exact(&stream, 0, content.len() + 1).is_err());
                    assert!(!makes(content, encoder, &stream[..stream.len() - 1]));
                }
            }
        }
    }

    #[test]
    fn damaged_streams_are_told() {
        for bad in [&b""[..], b"\x07", b"\xff\xff\xff\xff", b"\x4b"].map(<[u8]>::to_vec) {
            assert!(matches!(inflate(&bad, 0, 1000), Err(ExpandError::Stream(_))), "{bad:?}");
        }
    }
}
