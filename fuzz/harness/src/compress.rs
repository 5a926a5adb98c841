//! Compressed streams.

use std::io::Read;

use coracle_codec::compress::{Compression, Error, Limits, MAGIC_LEN, decoder, detect};

use crate::frame;
use crate::pieces::Pieces;

const LIMITS: Limits = Limits { max_output: 1 << 20, max_window_log: 20, max_memory: 8 << 20 };

/// Detects and decodes `data` within small bounds, as it is and, if it is xz, with the checksums of its first headers
/// set right.
///
/// * Detection depends on the first [`MAGIC_LEN`] bytes alone; a shorter prefix gives the same answer or none.
/// * No more bytes come out than `max_output` allows. A bound one below what came out stops the decoder there with
///   [`Error::OutputTooLarge`], and a bound at it changes nothing.
/// * A zstd frame with a window above the bound is refused.
/// * Decoding the same stream in small pieces gives the same bytes and the same verdict.
/// * What is not compressed comes out as it is.
pub fn compress_detect(data: &[u8]) {
    check(data);
    if detect(data) == Compression::Xz {
        let mut repaired = data.to_vec();
        repair_xz(&mut repaired);
        if repaired != data {
            check(&repaired);
        }
    }
}

/// Writes the CRC32 of the stream header and of the first block header (xz file format specification, sections
/// 2.1.1.3 and 3.1.7).
fn repair_xz(stream: &mut [u8]) {
    let block = 12..stream.get(12).map_or(0, |&size| 12 + usize::from(size) * 4);
    for (covered, crc) in [(6..8, 8), (block.clone(), block.end)] {
        if covered.start < covered.end && crc + 4 <= stream.len() {
            let value = crc32(&stream[covered]);
            stream[crc..crc + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

fn check(data: &[u8]) {
    let format = detect(data);
    for n in 0..=data.len().min(MAGIC_LEN) {
        let seen = detect(&data[..n]);
        assert!(seen == format || (seen == Compression::None && n < MAGIC_LEN), "prefix of {n}: {seen:?}");
    }
    let whole = decode(data, format, LIMITS);
    let pieces = decode(Pieces::new(data), format, LIMITS);
    let both = whole.bytes.len().min(pieces.bytes.len());
    assert!(whole.bytes[..both] == pieces.bytes[..both], "pieces give other bytes");
    assert_eq!(whole.error.is_some(), pieces.error.is_some(), "{:?} or {:?}", whole.error, pieces.error);
    if whole.error.is_none() {
        let window = frame::window(data).unwrap_or(0);
        assert!(window <= 1 << LIMITS.max_window_log, "a window of {window} bytes");
        assert_eq!(whole.bytes.len(), pieces.bytes.len(), "pieces give another length");
        let len = whole.bytes.len() as u64;
        let at = decode(data, format, Limits { max_output: len, ..LIMITS });
        assert!(at.error.is_none() && at.bytes == whole.bytes, "a bound that is just met: {:?}", at.error);
        if let Some(below) = len.checked_sub(1) {
            let cut = decode(data, format, Limits { max_output: below, ..LIMITS });
            assert_eq!(cut.error, Some(Error::OutputTooLarge(below).to_string()));
            assert!(whole.bytes.starts_with(&cut.bytes));
        }
    }
    if format == Compression::None && data.len() as u64 <= LIMITS.max_output {
        assert!(whole.error.is_none() && whole.bytes == data, "plain bytes changed");
    }
}

struct Decoded {
    bytes: Vec<u8>,
    error: Option<String>,
}

fn decode(input: impl Read + Send, want: Compression, limits: Limits) -> Decoded {
    let (format, mut reader) = decoder(input, limits).unwrap_or_else(|e| panic!("memory cannot fail: {e}"));
    assert_eq!(format, want, "decoder and detect disagree");
    let mut bytes = Vec::new();
    let mut buf = vec![0; 16 << 10];
    loop {
        match reader.read(&mut buf) {
            Ok(0) => return Decoded { bytes, error: None },
            Ok(n) => bytes.extend_from_slice(&buf[..n]),
            Err(e) => {
                // A stream in memory fails for reasons of its own only: always the codec's error.
                let error = e.get_ref().and_then(|e| e.downcast_ref::<Error>());
                let error = error.unwrap_or_else(|| panic!("error without a reason: {e:?}")).to_string();
                return Decoded { bytes, error: Some(error) };
            }
        }
        assert!(bytes.len() as u64 <= limits.max_output, "{} bytes of output", bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_is_the_one_of_xz() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        // A stream header with CRC64, as xz writes it.
        let mut header = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 4, 0, 0, 0, 0];
        repair_xz(&mut header);
        assert_eq!(header[8..], [0xe6, 0xd6, 0xb4, 0x46]);
    }
}
