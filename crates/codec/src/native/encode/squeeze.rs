//! Choosing how the streams of a block are compressed.

use super::Options;
use crate::delta::pool;
use crate::native::entropy::{self, Method};
use crate::native::streams::{Encoded, StreamId, Streams};

/// What an effort spends on streams.
struct Settings {
    /// Level of zstd.
    zstd: i32,
    /// Preset of LZMA, if it is tried.
    lzma: Option<i32>,
    /// One byte in so many of the output may be coded with mixed contexts; decoding them takes about as long as fifty
    /// bytes of other work.
    mixing: Option<u64>,
    /// Bytes of a block that may be in any case.
    mixing_free: u64,
}

fn settings(effort: u8) -> Settings {
    let of = |zstd, lzma, mixing, mixing_free| Settings { zstd, lzma, mixing, mixing_free };
    match effort {
        1 => of(3, None, None, 0),
        2 => of(9, None, None, 0),
        3 => of(15, None, Some(512), 64 << 10),
        4 => of(17, None, Some(128), 256 << 10),
        5 => of(19, Some(6), Some(160), 512 << 10),
        6 => of(19, Some(7), Some(48), 1 << 20),
        7 => of(19, Some(8), Some(24), 2 << 20),
        8 => of(22, Some(9), Some(8), 4 << 20),
        _ => of(22, Some(9), Some(1), 8 << 20),
    }
}

/// Compresses the streams of a block that makes `output` bytes, at most `most` of theirs by mixing. The memory returned is what decoding takes besides the
/// streams themselves.
pub(super) fn squeeze(streams: &Streams, output: u64, most: u64, options: &Options) -> (Vec<Encoded>, u64) {
    let settings = settings(options.effort.number());
    let mut budget = match settings.mixing {
        Some(share) if options.parts.mixing => (output / share).max(settings.mixing_free).min(most),
        _ => 0,
    };
    let mut jobs = Vec::new();
    for id in StreamId::ALL {
        let len = streams.bytes(id).len() as u64;
        if len > 0 {
            let mixed = id != StreamId::Dense && len <= budget;
            budget -= if mixed { len } else { 0 };
            jobs.push((id, mixed));
        }
    }
    let encoded = pool::run(jobs.len(), options.threads, |i| {
        let (id, mixed) = jobs[i];
        let data = streams.bytes(id);
        let with = |method, level| (method, entropy::encode(method, data, level));
        let mut all = vec![(Method::Stored, data.to_vec())];
        if mixed {
            all.push(with(Method::Mixing, 0));
        } else {
            all.push(with(Method::Zstd, if id == StreamId::Dense { 3 } else { settings.zstd }));
            if let Some(preset) = settings.lzma
                && id != StreamId::Dense
            {
                all.push(with(Method::Lzma, preset));
            }
        }
        let (method, bytes) = all.into_iter().min_by_key(|(_, bytes)| bytes.len()).unwrap_or_default();
        Encoded { id, method, decoded: data.len() as u64, bytes }
    });
    let working = encoded.iter().map(|e| e.method.memory(e.decoded)).max().unwrap_or(0);
    (encoded, working)
}
