//! Layers that are read in parts (`docs/formats/chunked.md`): their tables of contents, what of them is here already, and
//! the rest by ranges.
//!
//! | module | what it does |
//! |---|---|
//! | `open` | fetches the documents of a layer |
//! | `bet` | what stands between contents, guessed from old layers |
//! | `local` | finds contents in the store, by digest |
//! | `host` | finds contents in trees of files, by name and digest |
//! | `ranges` | which ranges are asked for, and fetches them side by side |
//! | `kept` | what was fetched, for a second time |
//! | `tails` | headers of eStargz that come with contents, against those that were predicted |
//! | `assemble` | the tar, from what is here and what was fetched |

mod assemble;
mod bet;
mod host;
mod kept;
mod local;
mod open;
mod ranges;
mod tails;

pub(crate) use assemble::{Assembled, Plan, assemble};
pub(crate) use bet::predict;
pub(crate) use host::HostTree;
pub(crate) use kept::{Kept, Parted};
pub(crate) use local::Held;
pub(crate) use open::{Documents, Framing, Opened, framing, open};
pub(crate) use ranges::Link;

use coracle_codec::chunked;

use crate::Error;
use crate::image::Source;

/// The error of a layer that cannot be read in parts.
pub(crate) fn failed(source: &dyn Source, what: &str, error: chunked::Error) -> Error {
    match error {
        chunked::Error::Io(error) => crate::image::blob::reading(source.name(), what, error),
        error => {
            Error::Chunked { image: source.name().to_owned(), what: what.to_owned(), error: Box::new(error) }
        }
    }
}
