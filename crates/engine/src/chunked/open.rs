//! The documents of a chunked layer.

use std::io::Read;
use std::time::{Duration, Instant};

use coracle_codec::chunked::{
    Error as Reason, Family, Layer, Limits, Place, TarSplit, Toc, read_stargz_toc, stargz_footer,
};
use coracle_codec::oci::Descriptor;

use super::failed;
use crate::Error;
use crate::image::{Ranged, Source};

/// What is known of a layer by its documents.
pub(crate) struct Documents {
    pub(crate) place: Place,
    pub(crate) toc: Toc,
    /// All but the contents; `None` if it is not to be had by ranges.
    pub(crate) layer: Option<Layer>,
    /// Bytes that were fetched for it, and requests.
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
    /// How long the largest request took, and its bytes.
    pub(crate) took: (Duration, u64),
}

/// A layer whose documents were asked for.
pub(crate) enum Opened {
    /// It is not chunked.
    Plain,
    /// Here they are.
    Documents(Box<Documents>),
    /// The source gives no ranges: the whole blob is coming, from its start.
    Whole(Box<dyn Read + Send>),
}

/// Fetches the documents of a layer and compares them with what its descriptor says. With `all`, also what stands between
/// contents, where there is such a document.
pub(crate) fn open(
    source: &dyn Source,
    layer: &Descriptor,
    all: bool,
    limits: &Limits,
) -> Result<Opened, Error> {
    let what = format!("layer {}", layer.digest);
    let fail = |error| failed(source, &what, error);
    let Some(place) = Place::of(layer, limits).map_err(fail)? else { return Ok(Opened::Plain) };
    let mut wanted = place.documents();
    if let (Some(toc), false) = (&place.toc, all) {
        wanted = toc.range();
    }
    let begin = Instant::now();
    let first = match source.open_range(layer, wanted.clone())? {
        Ranged::Part(bytes) => bytes,
        Ranged::Whole(stream) => return Ok(Opened::Whole(stream)),
    };
    let took = (begin.elapsed(), first.len() as u64);
    let mut documents = Documents {
        toc: Toc { entries: Vec::new(), split: None, ends_said: false },
        layer: None,
        bytes: first.len() as u64,
        requests: 1,
        took,
        place,
    };
    let place = &documents.place;
    let part = |range: std::ops::Range<u64>| {
        &first[(range.start - wanted.start) as usize..(range.end - wanted.start) as usize]
    };
    if place.family == Family::Stargz {
        let offset = stargz_footer(&first, place.size).map_err(fail)?;
        let end = wanted.start;
        if end - offset > limits.stored {
            let (what, actual, limit) = ("the TOC", end - offset, limits.stored);
            return Err(fail(Reason::TooLarge { what, actual, limit }));
        }
        let member = match source.open_range(layer, offset..end)? {
            Ranged::Part(bytes) => bytes,
            Ranged::Whole(stream) => return Ok(Opened::Whole(stream)),
        };
        documents.toc = read_stargz_toc(&member, place, offset, limits).map_err(fail)?;
        documents.bytes += member.len() as u64;
        documents.requests += 1;
        return Ok(Opened::Documents(Box::new(documents)));
    }
    let Some(toc) = place.toc else { return Ok(Opened::Plain) };
    documents.toc = Toc::read(part(toc.range()), place, limits).map_err(fail)?;
    if all {
        let toc = documents.toc.clone();
        documents.layer = match (&place.split, &toc.split) {
            (Some(split), Some(digest)) => {
                let framing = TarSplit::read(part(split.range()), digest, split, limits).map_err(fail)?;
                Some(Layer::new(toc, framing, limits).map_err(fail)?)
            }
            (Some(_), None) => return Err(fail(Reason::Unbound)),
            (None, _) => Layer::without_split(toc, place),
        };
    }
    Ok(Opened::Documents(Box::new(documents)))
}
