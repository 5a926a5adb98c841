//! Legacy LZ4 frames, made by liblz4 (`docs/formats/native-delta.md`, section 8.10).

use lz4::block::{CompressionMode, compress, decompress};

use super::{TOO_LONG, TOO_SHORT};
use crate::native::Error;

/// The name of this encoder (section 8.7).
pub const NAME: &str = "liblz4-1.10.0";
/// The version that the name stands for.
const VERSION: i32 = 11_000;
/// Number of the family (section 8.2).
pub(super) const FAMILY: u64 = 7;
/// Levels of the encoder for high compression.
const LEVELS: (u64, u64) = (3, 12);
/// Bytes of content in a block, but for the last.
const BLOCK: usize = 8 << 20;
/// Most bytes of a block: what does not compress takes one more for each 255, and 16.
const MAX_BLOCK: usize = BLOCK + BLOCK / 255 + 16;
const MAGIC: [u8; 4] = 0x184c_2102_u32.to_le_bytes();

/// How a frame is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// 3 to 12.
    pub level: u8,
}

/// Whether the library is the one that [`NAME`] stands for.
pub(super) fn is_named_version() -> bool {
    lz4::version() == VERSION
}

impl Settings {
    pub(super) fn of(number: u64) -> Result<Self, Error> {
        let level = number & 0xff;
        if level < LEVELS.0 || level > LEVELS.1 {
            return Err(Error::Unknown { what: "lz4 encoder", value: level });
        }
        Ok(Settings { level: level as u8 })
    }

    pub(super) fn number(&self) -> u64 {
        FAMILY << 8 | u64::from(self.level)
    }

    pub(super) fn is_slow(&self) -> bool {
        self.level > 9
    }

    pub(super) fn memory(&self) -> u64 {
        MAX_BLOCK as u64 * 2 + (2 << 20)
    }

    /// The frame of `content`, if it has at most `most` bytes.
    pub fn encode(&self, content: &[u8], most: usize) -> Option<Vec<u8>> {
        self.encode_while(content, most, |_| true)
    }

    /// Whether this is how `frame` is made of `content`. Stops at the first block that differs.
    pub(super) fn makes(&self, content: &[u8], frame: &[u8]) -> bool {
        let agrees = |made: &[u8]| frame.starts_with(made);
        self.encode_while(content, frame.len(), agrees).is_some_and(|made| made == frame)
    }

    fn encode_while(&self, content: &[u8], most: usize, agrees: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let mode = CompressionMode::HIGHCOMPRESSION(i32::from(self.level));
        let mut out = MAGIC.to_vec();
        for block in content.chunks(BLOCK) {
            let made = compress(block, Some(mode), false).ok()?;
            out.extend((made.len() as u32).to_le_bytes());
            out.extend(made);
            if out.len() > most || !agrees(&out) {
                return None;
            }
        }
        (out.len() <= most).then_some(out)
    }
}

/// The blocks of the frame at the start of `bytes`, as far as there are any: what starts with another length is not
/// one. Where each lies, without its length.
fn blocks(bytes: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let mut at = MAGIC.len();
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let mut out = Vec::new();
    while let Some(len) = bytes.get(at..).and_then(|b| b.first_chunk()) {
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 || len > MAX_BLOCK || len > bytes.len() - at - 4 {
            break;
        }
        out.push(at + 4..at + 4 + len);
        at += 4 + len;
    }
    (!out.is_empty()).then_some(out)
}

/// The length of the frame at the start of `bytes`.
pub(super) fn frame_len(bytes: &[u8]) -> Option<usize> {
    Some(blocks(bytes)?.last()?.end)
}

/// The content of a frame that is all of `bytes`, if there are at most `most` bytes of it.
pub(crate) fn decode(bytes: &[u8], most: usize) -> Result<Vec<u8>, &'static str> {
    const BAD: &str = "it is no legacy frame of LZ4";
    let blocks = blocks(bytes).filter(|b| b.last().is_some_and(|l| l.end == bytes.len())).ok_or(BAD)?;
    let mut out: Vec<u8> = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let room = BLOCK.min(most - out.len());
        if room == 0 {
            return Err(TOO_LONG);
        }
        let made = decompress(&bytes[block.clone()], Some(room as i32)).map_err(|_| BAD)?;
        if made.is_empty() {
            return Err(BAD);
        }
        if made.len() < BLOCK && i + 1 < blocks.len() {
            return Err(TOO_SHORT);
        }
        out.extend_from_slice(&made);
    }
    Ok(out)
}

/// Ways in which a frame may have been made, the likeliest first.
pub(super) fn candidates() -> impl Iterator<Item = Settings> {
    [9, 12, 10, 11, 3, 4, 5, 6, 7, 8].into_iter().map(|level| Settings { level })
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_testkit::image::{binary, text};
    use coracle_testkit::native::packed_stream;

    fn contents() -> Vec<Vec<u8>> {
        let long = [binary(1, 70_000), text(2, 120_000)].concat().repeat(45);
        vec![b"a".to_vec(), text(3, 9000), vec![7; BLOCK], long]
    }

    #[test]
    fn frames_are_rebuilt_whatever_the_level() {
        for content in contents() {
            for level in [3, 9, 12] {
                let settings = Settings { level };
                let frame = settings.encode(&content, usize::MAX).unwrap();
                let mut number = Vec::new();
                crate::native::numbers::put(&mut number, settings.number());
                assert!(packed_stream(&content, &number).unwrap() == frame, "{level}");
                assert!(decode(&frame, content.len()).unwrap() == content, "{level}");
                let found = candidates().find(|s| s.makes(&content, &frame)).unwrap();
                assert!(found.encode(&content, frame.len()).unwrap() == frame, "{level}");
                assert_eq!(settings.encode(&content, frame.len() - 1), None);
                assert_eq!(frame_len(&[&frame[..], &[0; 9]].concat()), Some(frame.len()));
            }
        }
    }

    #[test]
    fn frames_that_are_damaged_are_refused() {
        let content = &contents()[3];
        let frame = Settings { level: 9 }.encode(content, usize::MAX).unwrap();
        assert_eq!(decode(&frame, BLOCK).unwrap_err(), TOO_LONG);
        assert!(decode(&frame, content.len() - 1).is_err());
        assert!(decode(&frame[..frame.len() - 1], content.len()).is_err());
        assert!(decode(&frame[1..], content.len()).is_err());
        // The last block in front of the first one.
        let first = 8 + u32::from_le_bytes(*frame[4..].first_chunk().unwrap()) as usize;
        let turned = [&frame[..4], &frame[first..], &frame[4..first]].concat();
        assert_eq!(decode(&turned, content.len()).unwrap_err(), TOO_SHORT);
        // A block without content.
        assert!(decode(&[&frame[..], &[1, 0, 0, 0, 0]].concat(), content.len() + 9).is_err());
        assert!(decode(&MAGIC, 9).is_err());
    }
}
