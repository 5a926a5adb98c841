//! The documents of a chunked layer.

use std::io::Read;
use std::time::{Duration, Instant};

use coracle_codec::chunked::{
    Error as Reason, Family, Layer, Limits, Place, TarSplit, Toc, read_stargz_end, read_stargz_toc,
    stargz_footer,
};

use super::{Parted, failed};
use crate::Error;
use crate::image::Ranged;

/// What is known of a layer by its table of contents.
pub(crate) struct Documents {
    pub(crate) place: Place,
    pub(crate) toc: Toc,
    /// The end of the tar of eStargz, which has the TOC as its last file.
    pub(crate) end: Option<Vec<u8>>,
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

/// Fetches the table of contents of a layer and compares it with what the descriptor says.
pub(crate) fn open(parted: &Parted<'_>, limits: &Limits) -> Result<Opened, Error> {
    let Parted { source, blob: layer, .. } = *parted;
    let what = format!("layer {}", layer.digest);
    let fail = |error| failed(source, &what, error);
    let Some(place) = Place::of(layer, limits).map_err(fail)? else { return Ok(Opened::Plain) };
    let wanted = place.toc.map_or_else(|| place.documents(), |toc| toc.range());
    let begin = Instant::now();
    let first = match parted.range(wanted.clone())? {
        Ranged::Part(bytes) => bytes,
        Ranged::Whole(stream) => return Ok(Opened::Whole(stream)),
    };
    let took = (begin.elapsed(), first.len() as u64);
    let mut documents = Documents {
        toc: Toc { entries: Vec::new(), split: None, ends_said: false },
        end: None,
        bytes: first.len() as u64,
        requests: 1,
        took,
        place,
    };
    let place = &documents.place;
    if place.family == Family::Stargz {
        let offset = stargz_footer(&first, place.size).map_err(fail)?;
        let end = wanted.start;
        if end - offset > limits.stored {
            let (what, actual, limit) = ("the TOC", end - offset, limits.stored);
            return Err(fail(Reason::TooLarge { what, actual, limit }));
        }
        let member = match parted.range(offset..end)? {
            Ranged::Part(bytes) => bytes,
            Ranged::Whole(stream) => return Ok(Opened::Whole(stream)),
        };
        documents.toc = read_stargz_toc(&member, place, offset, limits).map_err(fail)?;
        documents.end = read_stargz_end(&member, limits).ok();
        documents.bytes += member.len() as u64;
        documents.requests += 1;
        return Ok(Opened::Documents(Box::new(documents)));
    }
    documents.toc = Toc::read(&first, place, limits).map_err(fail)?;
    Ok(Opened::Documents(Box::new(documents)))
}

/// A layer with what stands between its contents, as the layer itself has it.
pub(crate) enum Framing {
    /// From its tar-split, or from frames of their own.
    Layer(Layer),
    /// It is not to be had by ranges.
    None,
    /// The source gives no ranges: the whole blob is coming, from its start.
    Whole(Box<dyn Read + Send>),
}

/// Fetches the tar-split of a layer, if it has one.
pub(crate) fn framing(
    parted: &Parted<'_>,
    place: &Place,
    toc: &Toc,
    limits: &Limits,
) -> Result<Framing, Error> {
    let what = format!("layer {}", parted.blob.digest);
    let fail = |error| failed(parted.source, &what, error);
    if place.family == Family::Stargz {
        return Ok(Framing::None);
    }
    let Some(split) = &place.split else {
        return Ok(Layer::without_split(toc.clone(), place).map_or(Framing::None, Framing::Layer));
    };
    let digest = toc.split.ok_or_else(|| fail(Reason::Unbound))?;
    let stored = match parted.range(split.range())? {
        Ranged::Part(bytes) => bytes,
        Ranged::Whole(stream) => return Ok(Framing::Whole(stream)),
    };
    let read = TarSplit::read(&stored, &digest, split, limits).map_err(fail)?;
    Ok(Framing::Layer(Layer::new(toc.clone(), read, limits).map_err(fail)?))
}
