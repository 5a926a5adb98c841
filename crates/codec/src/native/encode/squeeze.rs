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

/// Mixing must gain one byte in so many.
const LITTLE: usize = 100;

/// Compresses the streams of a block that makes `output` bytes, at most `most` of theirs by mixing. The memory returned is what decoding takes besides the
/// streams themselves.
pub(super) fn squeeze(streams: &Streams, output: u64, most: u64, options: &Options) -> (Vec<Encoded>, u64) {
    let settings = settings(options.effort.number());
    let budget = match settings.mixing {
        Some(share) if options.parts.mixing => (output / share).max(settings.mixing_free).min(most),
        _ => 0,
    };
    let ids: Vec<StreamId> = StreamId::ALL.into_iter().filter(|&id| !streams.bytes(id).is_empty()).collect();
    let tried = pool::run(ids.len(), options.threads, |i| {
        let data = streams.bytes(ids[i]);
        let with = |method, level| (method, entropy::encode(method, data, level));
        let is_dense = matches!(ids[i], StreamId::Dense | StreamId::References | StreamId::Tokens);
        let mut fast = vec![(Method::Stored, data.to_vec())];
        fast.push(with(Method::Zstd, if is_dense { 3 } else { settings.zstd }));
        if let Some(preset) = settings.lzma
            && !is_dense
        {
            fast.push(with(Method::Lzma, preset));
        }
        let mixed = (!is_dense && data.len() as u64 <= budget).then(|| with(Method::Mixing, 0));
        (fast.into_iter().min_by_key(|(_, bytes)| bytes.len()).unwrap_or_default(), mixed)
    });
    // Where mixing gains little the budget is better spent on what follows, and the reader's time as well.
    let mut left = budget;
    let mut encoded = Vec::new();
    for (id, (fast, mixed)) in ids.into_iter().zip(tried) {
        let decoded = streams.bytes(id).len() as u64;
        let gains = |m: &(Method, Vec<u8>)| m.1.len() + m.1.len() / LITTLE + 2 < fast.1.len();
        let (method, bytes) = match mixed.filter(|m| decoded <= left && gains(m)) {
            Some(mixed) => {
                left -= decoded;
                mixed
            }
            None => fast,
        };
        encoded.push(Encoded { id, method, decoded, bytes });
    }
    let working = encoded.iter().map(|e| e.method.memory(e.decoded)).max().unwrap_or(0);
    (encoded, working)
}
