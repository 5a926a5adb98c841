//! Several ranges of a blob in one request, where the registry serves that.
//!
//! Registries answer in many ways: with all parts, with one, with 200 and the whole blob, with 400, 416 or 501. So it is
//! tried once for each host, with ranges that are needed anyway, and remembered as long as the client is there.

use std::ops::Range;

use coracle_codec::oci::{Descriptor, Repository};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE};

use crate::http::Body;
use crate::multipart::{MAX_HEAD, Part, boundary, parts};
use crate::range::content_range;
use crate::{Client, Error};

/// Ranges in one request: their text has to fit into the headers that servers accept, 8 KiB and less.
const MAX_RANGES: usize = 128;
/// Bytes of all ranges of a request, which are kept in memory.
const MAX_BYTES: u64 = 16 << 20;

impl Client {
    /// Whether several ranges of a blob can be had at once where it is read first; `None` if nobody has tried.
    ///
    /// # Errors
    /// See [`Client::blob`].
    pub fn serves_several(&self, repository: &Repository, blob: &Descriptor) -> Result<Option<bool>, Error> {
        Ok(self.gives_several(self.stream(repository, blob, 0)?.host()))
    }

    /// Asks for several ranges of a blob in one request, at most 128 and 16 MiB; `None` for what was not answered, which is to
    /// be had by [`Client::blob_range`]. A request that fails is an answer: that there is nothing to be had this way.
    ///
    /// # Errors
    /// See [`Client::blob`].
    pub async fn blob_ranges(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let stream = self.stream(repository, blob, 0)?;
        let mut out = vec![None; ranges.len()];
        let bytes: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        let fit = ranges.iter().all(|range| !range.is_empty() && range.end <= blob.size);
        if !fit || !(2..=MAX_RANGES).contains(&ranges.len()) || bytes > MAX_BYTES {
            return Ok(out);
        }
        if self.gives_several(stream.host()) == Some(false) {
            return Ok(out);
        }
        let text: Vec<String> =
            ranges.iter().map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
        // The same words again in a request for one range say what is wrong with the line.
        let Ok(answer) = stream.ask_for(Some(format!("bytes={}", text.join(",")))).await else {
            return Ok(out);
        };
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let boundary = header(CONTENT_TYPE).and_then(boundary).map(str::to_owned);
        let single = header(CONTENT_RANGE).and_then(content_range);
        if answer.status() != StatusCode::PARTIAL_CONTENT || (boundary.is_none() && single.is_none()) {
            // What of a whole blob is on its way is lost: once for each host.
            self.note_several(stream.host(), false);
            return Ok(out);
        }
        let most = bytes as usize + (ranges.len() + 2) * MAX_HEAD;
        let body = Body::new(answer, self, &format!("{repository}: blob {}", blob.digest), stream.host());
        // An error: it broke, or there is more than was asked for.
        let Ok(read) = body.read_all(most).await else { return Ok(out) };
        let found = match (&boundary, single) {
            (Some(boundary), _) => parts(&read, boundary, blob.size).unwrap_or_default(),
            (None, Some((range, _))) if range.end - range.start == read.len() as u64 => {
                vec![(range, read.as_slice())]
            }
            (None, _) => Vec::new(),
        };
        // In any order; neighbours may have been joined.
        for (wanted, out) in ranges.iter().zip(&mut out) {
            let has = |(range, _): &&Part<'_>| range.start <= wanted.start && wanted.end <= range.end;
            if let Some((range, bytes)) = found.iter().find(has) {
                let from = (wanted.start - range.start) as usize;
                *out = Some(bytes[from..from + (wanted.end - wanted.start) as usize].to_vec());
            }
        }
        self.note_several(stream.host(), out.iter().all(Option::is_some));
        Ok(out)
    }
}
