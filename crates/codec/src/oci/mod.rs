//! Images as documents: descriptors, manifests, indexes, configs, references and platforms.
//!
//! The JSON is read into the types of the crate oci-spec and checked from there. Two rules of `docs/architecture.md`
//! are kept by types:
//!
//! * **Raw bytes are kept.** A [`Manifest`] or [`Index`] holds the [`Verified`] bytes it was read from; its digest is
//!   that of those bytes, never of JSON written again.
//! * **Unverified bytes are another type.** [`Unverified`] can be turned into [`Verified`] only by comparing a digest
//!   and a size, or, where a name and no digest is known, by saying so ([`Unverified::identify`]). Only verified bytes
//!   are parsed.
//!
//! Sources: image-spec 1.1 (descriptor, manifest, image-index, config) and the Docker v2 schema 2 of distribution.

mod bytes;
mod config;
mod descriptor;
mod document;
mod json;
mod platform;
mod reference;

pub use bytes::{Mismatch, Unverified, Verified, Verifier};
pub use config::ImageConfig;
pub use descriptor::{Descriptor, LayerCompression, media_type};
pub use document::{Document, Index, Manifest, is_document};
pub(crate) use json::check as check_json;
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference, Repository, Version, is_tag};

/// What reading a document may cost, and how large the things may be that it announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest or an index. Registries accept 4 MiB (distribution-spec 1.1, "Pushing Manifests").
    pub manifest_bytes: u64,
    /// Bytes of a config.
    pub config_bytes: u64,
    /// Objects and arrays within each other.
    pub depth: u32,
    /// Values and keys in one document.
    pub values: u32,
    /// Layers of a manifest, or entries of an index.
    pub entries: u32,
    /// Bytes of one blob as announced by its descriptor.
    pub blob_bytes: u64,
    /// Indexes within indexes.
    pub nesting: u32,
}

impl Default for Limits {
    /// 4 MiB manifests, 8 MiB configs, depth 24, 300 000 values, 10 000 entries, blobs of 1 TiB, 3 indexes deep.
    fn default() -> Self {
        Limits {
            manifest_bytes: 4 << 20,
            config_bytes: 8 << 20,
            depth: 24,
            values: 300_000,
            entries: 10_000,
            blob_bytes: 1 << 40,
            nesting: 3,
        }
    }
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More bytes than [`Limits`] allows for this kind of document.
    #[error("{what} has {actual} bytes, more than {limit}")]
    TooLarge {
        /// `manifest` or `config`.
        what: &'static str,
        /// Its size in bytes.
        actual: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// Not JSON, or not of the required form.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// `manifest`, `index`, `config` or `descriptor`.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// Objects and arrays nest deeper than [`Limits::depth`].
    #[error("JSON is nested deeper than {0}")]
    TooDeep(u32),
    /// More values and keys than [`Limits::values`].
    #[error("JSON has more than {0} values")]
    TooManyValues(u32),
    /// A key stands twice in one object: readers would differ on what it says.
    #[error("key {0:?} stands twice in one object")]
    DuplicateKey(String),
    /// More layers or entries than [`Limits::entries`].
    #[error("more than {0} entries")]
    TooManyEntries(u32),
    /// It could be read as a manifest and as an index (image-spec 1.1, "Image Manifest", CVE-2021-41190).
    #[error("document has members of a manifest and of an index")]
    Ambiguous,
    /// The media type inside differs from the one it came with.
    #[error("document says it is {inside:?} but was given as {outside:?}")]
    MediaType {
        /// `mediaType` of the document.
        inside: String,
        /// `Content-Type`, or `mediaType` of the descriptor.
        outside: String,
    },
    /// A media type that is neither a manifest nor an index.
    #[error("unknown kind of manifest: {0:?}")]
    UnknownMediaType(String),
    /// Docker's schema 1, which names layers only.
    #[error("manifest of schema version 1")]
    SchemaOne,
    /// A digest that is none, or of another algorithm than sha256.
    #[error("{what}: digest {digest:?} is not a sha256 digest")]
    Digest {
        /// Which descriptor: `config`, `layer 3`, `entry 0`, ...
        what: String,
        /// What stands there, shortened.
        digest: String,
    },
    /// A size that no blob has.
    #[error("{what}: size {size} is more than {limit} bytes")]
    Size {
        /// Which descriptor.
        what: String,
        /// What stands there.
        size: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// The config does not list as many layers as the manifest.
    #[error("config lists {diff_ids} layers, manifest {layers}")]
    LayerCount {
        /// diff_ids of the config.
        diff_ids: usize,
        /// Layers of the manifest.
        layers: usize,
    },
}

/// At most 100 characters of `text`, for messages.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}
