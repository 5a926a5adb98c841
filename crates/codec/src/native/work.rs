//! How much work a delta may ask for (`docs/formats/native-delta.md`, section 8.4). Writers keep to it, readers enforce it.

use super::Error;
use super::entropy::Method;
use super::streams::StreamSize;

/// Bytes of streams for each byte that a block makes, and in any case.
const STREAMS_PER_BYTE: u64 = 128;
const FREE_STREAMS: u64 = 1 << 16;
/// Bytes coded by mixing for each byte of the target, and in any case.
const MIXED_PER_BYTE: u64 = 2;
const FREE_MIXED: u64 = 1 << 24;
/// Bytes that may be inflated for each byte of the target, and in any case.
const INFLATED_PER_BYTE: u64 = 64;
const FREE_INFLATED: u64 = 1 << 26;
/// One view for so many bytes of the target, and so many in any case.
const BYTES_PER_VIEW: u64 = 16;
const FREE_VIEWS: u64 = 1 << 20;
/// Content of rebuilt streams of xz and zstd for each byte of the target, and in any case.
const ENCODED_PER_BYTE: u64 = 8;
const FREE_ENCODED: u64 = 1 << 26;
/// Bytes of content for each byte of a rebuilt stream, and in any case.
const CONTENT_PER_BYTE: u64 = 64;
const FREE_CONTENT: u64 = 1 << 10;

/// What may still be spent on a delta.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    mixed: u64,
    inflated: u64,
    views: u64,
    encoded: u64,
}

impl Budget {
    /// The budget of a delta whose target has `size` bytes.
    pub(crate) fn new(size: u64) -> Self {
        Budget {
            mixed: FREE_MIXED.saturating_add(size.saturating_mul(MIXED_PER_BYTE)),
            inflated: FREE_INFLATED.saturating_add(size.saturating_mul(INFLATED_PER_BYTE)),
            views: FREE_VIEWS.saturating_add(size / BYTES_PER_VIEW),
            encoded: FREE_ENCODED.saturating_add(size.saturating_mul(ENCODED_PER_BYTE)),
        }
    }

    /// Bytes that may still be coded by mixing.
    pub(crate) fn mixed(&self) -> u64 {
        self.mixed
    }

    /// Takes bytes that were coded by mixing; no more than there are.
    pub(crate) fn spend_mixed(&mut self, bytes: u64) {
        self.mixed = self.mixed.saturating_sub(bytes);
    }

    /// Takes the streams of a block that makes `output` bytes.
    pub(crate) fn streams(&mut self, streams: &[StreamSize], output: u64) -> Result<(), Error> {
        let all = streams.iter().fold(0u64, |sum, s| sum.saturating_add(s.decoded));
        if all > output.saturating_mul(STREAMS_PER_BYTE).saturating_add(FREE_STREAMS) {
            return Err(Error::TooMuchWork);
        }
        let mixed = streams.iter().filter(|s| s.method == Method::Mixing).map(|s| s.decoded).sum();
        self.mixed = self.mixed.checked_sub(mixed).ok_or(Error::TooMuchWork)?;
        Ok(())
    }

    /// Takes the work of rebuilding a stream ([`Encoder::work`](super::packed::Encoder)).
    pub(crate) fn encode(&mut self, work: u64) -> Result<(), Error> {
        self.encoded = self.encoded.checked_sub(work).ok_or(Error::TooMuchWork)?;
        Ok(())
    }

    /// Takes a view, of which `inflated` bytes have to be expanded.
    pub(crate) fn view(&mut self, inflated: u64) -> Result<(), Error> {
        self.views = self.views.checked_sub(1).ok_or(Error::TooMuchWork)?;
        self.inflated = self.inflated.checked_sub(inflated).ok_or(Error::TooMuchWork)?;
        Ok(())
    }
}

/// Whether a stream of `stream` bytes may have `content` bytes of content.
pub(crate) fn may_hold(stream: u64, content: u64) -> bool {
    content <= stream.saturating_mul(CONTENT_PER_BYTE).saturating_add(FREE_CONTENT)
}
