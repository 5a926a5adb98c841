//! How streams are compressed (`docs/formats/native-delta.md`, section 7).

pub(crate) mod decisions;
pub(crate) mod logistic;
mod mixing;

use std::io::{Read, Write};

use lzma_rust2::{LzmaOptions, LzmaReader, LzmaWriter};

use super::Error;
use crate::compress::{FrameEnd, ZstdReader, ZstdWriter, ZstdWriterOptions};

/// lc, lp and pb of method 2 (section 7.3).
const LZMA_LC_LP_PB: (u32, u32, u32) = (3, 0, 0);
/// Smallest and largest dictionary of method 2, log2 of bytes (section 7.3).
const LZMA_DICTIONARY: (u32, u32) = (12, 24);
/// Largest window of method 1, log2 of bytes (section 7.2).
const ZSTD_WINDOW: u32 = 24;
/// What method 1 takes besides its window, in bytes (section 4.3).
const ZSTD_MEMORY: u64 = 1 << 20;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Not at all (section 7.1).
    #[default]
    Stored,
    /// One zstd frame (section 7.2).
    Zstd,
    /// LZMA without header (section 7.3).
    Lzma,
    /// Mixed contexts (section 7.4).
    Mixing,
}

impl Method {
    /// All methods, in the order of their numbers.
    pub const ALL: [Method; 4] = [Method::Stored, Method::Zstd, Method::Lzma, Method::Mixing];

    /// The number in a delta.
    pub fn number(self) -> u64 {
        self as u64
    }

    pub(crate) fn of(number: u64) -> Result<Self, Error> {
        let method = usize::try_from(number).ok().and_then(|n| Self::ALL.get(n)).copied();
        method.ok_or(Error::Unknown { what: "compression method", value: number })
    }

    /// Its name on the format page.
    pub fn name(self) -> &'static str {
        match self {
            Method::Stored => "stored",
            Method::Zstd => "zstd",
            Method::Lzma => "lzma",
            Method::Mixing => "mixing",
        }
    }

    /// Bytes of memory to decode `len` bytes, these not counted (section 4.3).
    pub fn memory(self, len: u64) -> u64 {
        match self {
            Method::Stored => 0,
            Method::Zstd => len.next_power_of_two().min(1 << ZSTD_WINDOW) + ZSTD_MEMORY,
            Method::Lzma => u64::from(dictionary(len)) + (1 << 16),
            Method::Mixing => mixing::memory(usize::try_from(len).unwrap_or(usize::MAX)),
        }
    }
}

/// The dictionary of method 2 for a stream of `len` bytes.
fn dictionary(len: u64) -> u32 {
    let log = len.max(1).next_power_of_two().ilog2();
    1 << log.clamp(LZMA_DICTIONARY.0, LZMA_DICTIONARY.1)
}

/// Compresses `data` by one method. `level` is that of zstd (1 to 22) or LZMA (0 to 9); the others have none.
pub fn encode(method: Method, data: &[u8], level: i32) -> Vec<u8> {
    match method {
        Method::Stored => data.to_vec(),
        Method::Zstd => zstd(data, level).unwrap_or_else(|e| unreachable!("zstd into memory: {e}")),
        Method::Lzma => {
            lzma(data, level.clamp(0, 9) as u32).unwrap_or_else(|e| unreachable!("lzma into memory: {e}"))
        }
        Method::Mixing => mixing::encode(data),
    }
}

fn zstd(data: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let log = (data.len() as u64).next_power_of_two().ilog2().clamp(10, ZSTD_WINDOW);
    let options = ZstdWriterOptions {
        level,
        window_log: Some(log),
        content_size: Some(data.len() as u64),
        ..ZstdWriterOptions::default()
    };
    let mut writer = ZstdWriter::new(Vec::new(), options)?;
    writer.write_all(data)?;
    writer.finish()
}

fn lzma(data: &[u8], preset: u32) -> std::io::Result<Vec<u8>> {
    let mut options = LzmaOptions::with_preset(preset);
    (options.lc, options.lp, options.pb) = LZMA_LC_LP_PB;
    options.dict_size = dictionary(data.len() as u64);
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false)?;
    writer.write_all(data)?;
    writer.finish()
}

/// Decompresses exactly `len` bytes. Takes these and [`Method::memory`].
///
/// # Errors
/// What the decoder says; `encoded` does not give this many bytes, or more than these.
pub fn decode(method: Method, encoded: &[u8], len: usize) -> Result<Vec<u8>, String> {
    let out = match method {
        Method::Stored => encoded.to_vec(),
        Method::Zstd => {
            let mut reader = ZstdReader::new(encoded, ZSTD_WINDOW, FrameEnd::Stop);
            take(&mut reader, len)?
        }
        Method::Lzma => {
            let (lc, lp, pb) = LZMA_LC_LP_PB;
            let dictionary = dictionary(len as u64);
            let mut reader = LzmaReader::new(encoded, len as u64, lc, lp, pb, dictionary, None)
                .map_err(|e| e.to_string())?;
            take(&mut reader, len)?
        }
        Method::Mixing => mixing::decode(encoded, len),
    };
    if out.len() == len { Ok(out) } else { Err(format!("{} bytes instead of {len}", out.len())) }
}

/// Reads all of it, at most one byte more than `len`.
fn take(reader: &mut impl Read, len: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(len.min(1 << 20));
    reader.take(len as u64 + 1).read_to_end(&mut out).map_err(|e| e.to_string())?;
    Ok(out)
}
