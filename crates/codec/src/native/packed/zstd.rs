//! zstd frames, made by libzstd (`docs/formats/native-delta.md`, section 8.6).

use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer, zstd_sys};

use super::TOO_LONG;
use crate::native::Error;
use crate::native::numbers::{Fields, put};

/// The name of this encoder (section 8.7).
pub const NAME: &str = "zstd-1.5.7";
/// The version that the name stands for.
const VERSION: u32 = 10_507;
/// Number of the family (section 8.2).
pub(super) const FAMILY: u64 = 3;
/// Highest level.
const MAX_LEVEL: u64 = 22;
/// Levels above this one count as slow (section 8.4).
const FAST: u8 = 15;
/// Bytes that are given to the library at a time.
const PIECE: usize = 128 << 10;
/// Windows that may be asked for, log2 of bytes.
const WINDOW: (u64, u64) = (10, 27);
/// Bytes of content up to which multithreaded mode makes no difference if the size is known.
const ONE_JOB: u64 = 512 << 10;

const CHECKSUM: u64 = 1;
const SIZE: u64 = 2;
const MULTITHREADED: u64 = 4;
const LONG: u64 = 8;

/// How a frame is made; the fields are those of section 8.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// 1 to 22.
    pub level: u8,
    /// A checksum of the content follows it.
    pub checksum: bool,
    /// The header states the size of the content.
    pub size: bool,
    /// Jobs as for several threads.
    pub multithreaded: bool,
    /// Long distance matching.
    pub long: bool,
    /// log2 of the window, or 0 for the level's.
    pub window: u8,
}

/// Whether the library is the one that [`NAME`] stands for.
pub(super) fn is_named_version() -> bool {
    zstd_safe::version_number() == VERSION
}

impl Settings {
    pub(super) fn read(value: u64, fields: &mut Fields<'_>) -> Result<Self, Error> {
        if !(1..=MAX_LEVEL).contains(&value) {
            return Err(Error::Unknown { what: "zstd encoder", value });
        }
        let flags = fields.at_most(CHECKSUM | SIZE | MULTITHREADED | LONG, "flags of a zstd encoder")?;
        let window = fields.at_most(WINDOW.1, "window of a zstd encoder")?;
        if window != 0 && window < WINDOW.0 {
            return Err(Error::Unknown { what: "window of a zstd encoder", value: window });
        }
        let has = |bit| flags & bit != 0;
        Ok(Settings {
            level: value as u8,
            checksum: has(CHECKSUM),
            size: has(SIZE),
            multithreaded: has(MULTITHREADED),
            long: has(LONG),
            window: window as u8,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put(out, FAMILY << 8 | u64::from(self.level));
        let bit = |set, bit| if set { bit } else { 0 };
        let flags = bit(self.checksum, CHECKSUM)
            | bit(self.size, SIZE)
            | bit(self.multithreaded, MULTITHREADED)
            | bit(self.long, LONG);
        put(out, flags);
        put(out, self.window.into());
    }

    pub(super) fn is_slow(&self) -> bool {
        self.level > FAST
    }

    /// log2 of the window (section 8.6).
    fn window_log(&self) -> u8 {
        match (self.window, self.level) {
            (0, _) if self.long => 27,
            (0, 0..=8) => 21,
            (0, 9..=15) => 22,
            (0, 16..=19) => 23,
            (0, level) => level + 5,
            (window, _) => window,
        }
    }

    pub(super) fn memory(&self, content: u64) -> u64 {
        if !self.size {
            // Tables are as large as for the longest content, whatever the window.
            let tables = match self.level {
                0..=8 => 20,
                9..=19 => 24,
                level => level + 5,
            };
            let window = self.window_log();
            // The library turns long distance matching on by itself for the largest window.
            let long = if self.long || window == 27 { 1 << (window - 1) } else { 0 };
            return (5 << tables) + long + 2 * content + (8 << 20);
        }
        let doubled = u8::from(self.window != 0);
        let content = content.checked_next_power_of_two().unwrap_or(u64::MAX);
        let window = content.min(1 << (self.window_log() + doubled)).max(1 << 17);
        let times = if self.multithreaded { 48 } else { 24 };
        times * window + (8 << 20)
    }

    /// The frame of `content`, if it has at most `most` bytes.
    pub fn encode(&self, content: &[u8], most: usize) -> Option<Vec<u8>> {
        self.encode_while(content, most, |_| true)
    }

    /// Whether this is how `frame` is made of `content`. Stops at the first difference.
    pub(super) fn makes(&self, content: &[u8], frame: &[u8]) -> bool {
        let mut compared = 0;
        let agrees = |made: &[u8]| {
            let start = std::mem::replace(&mut compared, made.len());
            frame.get(start..made.len()) == Some(&made[start..])
        };
        self.encode_while(content, frame.len(), agrees).is_some_and(|made| made.len() == frame.len())
    }

    fn encode_while(
        &self,
        content: &[u8],
        most: usize,
        agrees: impl FnMut(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        self.encode_with(&mut CCtx::create(), content, most, agrees)
    }

    fn encode_with(
        &self,
        context: &mut CCtx<'_>,
        content: &[u8],
        most: usize,
        mut agrees: impl FnMut(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let mut set = |parameter| context.set_parameter(parameter).ok();
        set(CParameter::CompressionLevel(self.level.into()))?;
        set(CParameter::ChecksumFlag(self.checksum))?;
        set(CParameter::NbWorkers(self.multithreaded.into()))?;
        if self.long {
            set(CParameter::EnableLongDistanceMatching(true))?;
        }
        if self.window != 0 {
            set(CParameter::WindowLog(self.window.into()))?;
        }
        context.set_pledged_src_size(self.size.then_some(content.len() as u64)).ok()?;
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let piece = &content[at..content.len().min(at + PIECE)];
            at += piece.len();
            let last = if self.size { at == content.len() } else { piece.is_empty() };
            let mut input = InBuffer::around(piece);
            loop {
                // One byte more than allowed tells what is too long.
                let start = out.len();
                out.reserve_exact((start / 2).clamp(1 << 12, 1 << 20).min(most + 1 - start));
                let mut output = OutBuffer::around_pos(&mut out, start);
                let left = if last {
                    let end = zstd_sys::ZSTD_EndDirective::ZSTD_e_end;
                    context.compress_stream2(&mut output, &mut input, end).ok()?
                } else {
                    let go_on = zstd_sys::ZSTD_EndDirective::ZSTD_e_continue;
                    context.compress_stream2(&mut output, &mut input, go_on).ok()?
                };
                if out.len() > most || !agrees(&out) {
                    return None;
                }
                if input.pos() == piece.len() && (!last || left == 0) {
                    break;
                }
            }
            if last {
                return Some(out);
            }
        }
    }
}

/// The content of a frame that is all of `bytes`, if there are at most `most` bytes of it.
pub(crate) fn decode(bytes: &[u8], most: usize) -> Result<Vec<u8>, &'static str> {
    const BAD: &str = "it is no zstd frame";
    if zstd_safe::find_frame_compressed_size(bytes) != Ok(bytes.len()) {
        return Err(BAD);
    }
    // At once into one buffer: then the window takes no memory of its own, however large the frame says it is.
    let declared = zstd_safe::get_frame_content_size(bytes).ok().flatten();
    let room = match declared.map(usize::try_from) {
        Some(Ok(size)) if size <= most => size,
        Some(_) => return Err(TOO_LONG),
        None => most,
    };
    let mut out = Vec::with_capacity(room);
    let made = DCtx::create().decompress(&mut out, bytes);
    made.map_err(|_| BAD)?;
    out.shrink_to_fit();
    Ok(out)
}

/// Ways in which the frame `stream` may have been made, the likeliest first.
pub(super) fn candidates(stream: &[u8], content: u64) -> Option<Vec<Settings>> {
    // RFC 8878, section 3.1.1.1.1.
    let descriptor = *stream.get(4)?;
    let (single, checksum) = (descriptor & 0x20 != 0, descriptor & 4 != 0);
    if descriptor & 3 != 0 {
        return None;
    }
    let size = single || descriptor >> 6 != 0;
    let declared = if single { 0 } else { *stream.get(5)? >> 3 };
    let mut out = Vec::new();
    let modes: &[bool] = if size && content <= ONE_JOB { &[false] } else { &[true, false] };
    for level in [3, 19, 1, 9, 6, 12, 15, 22, 10, 7, 5, 4, 2, 8, 11, 13, 14, 16, 17, 18, 20, 21] {
        // A header without a size has the window of the level.
        let window = match level {
            1 => 19,
            2 => 20,
            3..=8 => 21,
            9..=16 => 22,
            17..=19 => 23,
            _ => 5 + level,
        };
        let fits = size || window == declared + 10;
        for &multithreaded in modes {
            let usual = Settings { level, checksum, size, multithreaded, long: false, window: 0 };
            if fits {
                out.push(usual);
            }
            // `zstd --long` takes a window of 2^27 if none is given; it is cut to a known size.
            if declared + 10 >= 24 {
                out.push(Settings { long: true, window: declared + 10, ..usual });
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_testkit::image::binary;

    /// What the library has reserved at last is what section 4.3 says, but for the window, which is touched only as far as
    /// there is content.
    #[test]
    fn memory_is_no_less_than_what_is_taken() {
        let content = binary(1, 20_000);
        for level in 1..=22 {
            for (size, long) in [(false, false), (false, true), (true, false), (true, true)] {
                for window in [0, 10, 14, 20, 24, 27] {
                    let settings =
                        Settings { level, checksum: false, size, multithreaded: false, long, window };
                    let mut context = CCtx::create();
                    let made = settings.encode_with(&mut context, &content, usize::MAX - 1, |_| true);
                    let untouched = if size { 0 } else { 1 << settings.window_log() };
                    let told = settings.memory(20_000) + untouched;
                    let taken = context.sizeof() as u64;
                    assert!(made.is_some() && taken <= told, "{settings:?}: {taken} bytes, {told} told");
                }
            }
        }
    }
}
