//! Pure codecs for container image layers: bytes in, bytes out.
//!
//! Nothing here touches a file system, a network, a terminal or the environment; whoever calls brings bytes
//! ([`std::io::Read`], [`ReadAt`]) and old files ([`source::Source`]). The formats are specified in
//! `docs/formats/`, the walls around this crate in `docs/architecture.md`.
//!
//! | module | what it is |
//! |---|---|
//! | [`artifact`] | delta artifacts: documents that carry deltas, in all their dialects |
//! | [`digest`] | sha256 digests, parsing and streaming |
//! | [`tar`] | a tar reader that accounts for every byte and reads like Go's `archive/tar` |
//! | [`chunked`] | layers that can be read in parts: zstd:chunked and eStargz |
//! | [`compress`] | gzip, zstd, bzip2 and xz by magic, bounded |
//! | [`source`] | where old files come from: the trait, and tars as an implementation |
//! | [`delta`] | what delta formats have in common: efforts, errors and words of their writers |
//! | [`matching`] | suffix arrays, approximate matching, sampled rolling hash, pairing of files |
//! | [`oci`] | images as documents: descriptors, manifests, indexes, configs, references, platforms |
//! | [`rpm`] | databases of rpm: which packages are installed |
//! | [`rsync`] | librsync: signatures, deltas, and a writer of our own for them |
//! | [`tardiff`] | tar-diff v1 and v2: reader, applier, writer, accounting |
//! | [`trust`] | policies, keys and signatures of images, read and judged |

pub mod artifact;
pub mod chunked;
pub mod compress;
pub mod delta;
pub mod digest;
pub mod matching;
pub mod native;
pub mod observe;
pub mod oci;
mod read_at;
pub mod rpm;
pub mod rsync;
pub mod source;
pub mod tar;
pub mod tardiff;
pub mod trust;

pub use read_at::{ReadAt, Section, SectionReader};
