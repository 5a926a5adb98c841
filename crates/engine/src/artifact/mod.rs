//! Delta artifacts: made between real images, published, listed, pruned and applied
//! (`docs/formats/delta-artifacts.md`, `docs/images.md`).
//!
//! | module | what it does |
//! |---|---|
//! | [`create`] | deltas from old images to a new one, into a layout, an archive or a registry |
//! | [`apply`] | a delta and its source in, the target out |
//! | [`explain`] | what each file of the target costs in a delta |
//! | [`list`] | what deltas there are for an image, and mending their lists |
//! | [`prune`] | removing deltas that nobody needs any more |
//! | [`push`] | deltas from a layout or an archive into a registry |
//! | `publish` | lists that several write at once without losing anybody's entry |
//! | `ostree` | files in a repository of ostree, as old files |
//! | `held` | deltas in memory, or in a temporary file |
//! | `layers` | layers as uncompressed archives, compared |
//! | `making` | a delta and old files in, a layer out |
//! | `assembled` | documents and blobs that were just made, as an image source |
//! | [`tags`] | which tags came before one |

pub mod apply;
pub(crate) mod assembled;
pub mod create;
pub mod explain;
mod held;
pub(crate) mod layers;
pub mod list;
pub(crate) mod making;
mod ostree;
pub mod prune;
mod publish;
pub mod push;
pub mod tags;

pub(crate) use publish::Board;
