//! Tokens of deflate streams in native deltas.

use coracle_codec::native::deflate::coded::{Decoder, Encoder, Settings};
use coracle_codec::native::deflate::{Stop, inflate};
use coracle_testkit::native as second;

/// Longest stream and content.
const MOST: usize = 1 << 14;

/// Makes a stream of a content and a code of tokens, and codes a stream. `data` are: settings (1 byte), the length of the
/// content (2), the content, and what is a code or a deflate stream.
///
/// * A code makes what the second decoder makes of it, or nothing in both.
/// * A stream that can be coded comes back, and in the second decoder as well.
pub fn native_tokens(data: &[u8]) {
    let Some(([settings, a, b], rest)) = data.split_first_chunk() else { return };
    let Ok(settings) = Settings::of(0x500 | u64::from(*settings)) else { return };
    let (content, rest) = rest.split_at(usize::from(u16::from_le_bytes([*a, *b])).min(rest.len()).min(MOST));
    same(content, settings, rest);
    let Ok((content, len)) = inflate(&rest.to_vec(), 0, MOST) else { return };
    let stream = &rest[..len as usize];
    let mut encoder = Encoder::new();
    if encoder.stream(&content, settings, stream).is_ok() {
        let made = same(&content, settings, &encoder.finish());
        assert!(made.as_deref() == Some(stream), "a stream does not come back");
    }
}

/// What both decoders make of a code.
fn same(content: &[u8], settings: Settings, code: &[u8]) -> Option<Vec<u8>> {
    let made = Decoder::new(code).stream(content, settings, MOST * 8);
    if made == Err(Stop::TooMuchWork) {
        return None;
    }
    let other = second::token_stream(content, settings.number(), code, MOST * 8);
    assert!(made.clone().ok() == other.clone().ok(), "{made:?}, the second decoder: {other:?}");
    made.ok()
}
