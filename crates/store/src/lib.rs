//! The local store of Coracle: layers whose files are shared, documents, and names.
//!
//! A [`Store`] is a folder ([`docs/formats/store.md`][format]). It holds *objects*, the contents of regular files by
//! their sha256; *layer files*, each a tar less the contents that are objects; *documents*, the manifests, indexes and
//! configs, byte for byte; and *names* that lead to them. Each tar comes back bit for bit, in order or at any offset.
//!
//! Whoever changes a store takes a [`Lease`] first: what it keeps and what it makes stays until it is dropped, whatever
//! other processes remove. What has a name in the store is whole and durable; a process that is killed at any moment
//! leaves nothing but the folder of its lease, which the next [`Store::gc`] removes.
//!
//! | module | what it is |
//! |---|---|
//! | [`layer_file`] | the format of a layer file: bytes only |
//!
//! The crate knows no network, prints nothing and asks for no time.
//!
//! [format]: https://github.com/coracle-delta/coracle/blob/main/docs/formats/store.md

mod error;
mod fsck;
mod gc;
mod ingest;
mod layer;
pub mod layer_file;
mod layout;
mod lease;
mod reach;
mod reader;
mod refs;
mod store;
mod tocs;
mod usage;

pub use error::Error;
pub use fsck::{Damage, FsckOptions, FsckReport, Part};
pub use gc::{GcOptions, GcReport, Swept};
pub use ingest::{Count, LayerInfo, LayerWriter, WriterOptions};
pub use layer::{Layer, StoredObject};
pub use layer_file::{Content, FileEntry, Piece};
pub use lease::Lease;
pub use reader::LayerReader;
pub use refs::Ref;
pub use store::{Claim, INLINE_LIMIT, Options, Store};
pub use usage::{RefUsage, Usage};
