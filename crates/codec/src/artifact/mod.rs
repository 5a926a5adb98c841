//! Delta artifacts: OCI documents that carry deltas between images (`docs/formats/delta-artifacts.md`).
//!
//! Documents in, one model out, and back; nothing here fetches or applies anything.
//!
//! | module | dialect | section |
//! |---|---|---|
//! | [`pair`] | `oci-delta` and `coracle`: one manifest for one pair of images | 3, 4 |
//! | [`flatpak`] | `_deltaindex`: one index for a repository, one manifest for a target | 5 |
//! | [`balena`] | `balena`: an image whose layers are deltas | 6 of `docs/formats/rsync.md` |

pub mod balena;
pub mod flatpak;
pub mod pair;

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::oci::{self, Descriptor};
use crate::tardiff;

pub use pair::{Artifact, Changed, Draft, DraftLayer, DraftSignature, Embedded, LayerSource, Target};

/// Artifact type of the `oci-delta` dialect (section 3).
pub const OCI_DELTA: &str = "application/vnd.io.github.containers.oci-delta.v1";
/// Artifact type of our own dialect (section 4).
pub const CORACLE: &str = "application/vnd.coracle.image-delta.v1";
/// Media type of tar-diffs, of either version (section 2).
pub const TAR_DIFF: &str = "application/vnd.tar-diff";
/// The older name of the same.
pub const TAR_DIFF_OLD: &str = "application/vnd.redhat.tar-diff";
/// Media type of native deltas (section 2).
pub const NATIVE: &str = "application/vnd.coracle.delta.v1";
/// The tag of the index of the `flatpak` dialect (section 5).
pub const DELTA_INDEX: &str = "_deltaindex";

/// Our annotations (section 2.2).
pub mod annotation {
    /// Bytes of the layer that a delta makes.
    pub const UNCOMPRESSED_SIZE: &str = "dev.coracle.delta.uncompressed-size";
    /// `1` or `2`.
    pub const TARDIFF_VERSION: &str = "dev.coracle.delta.tardiff-version";
    /// Bytes of all layer content of an artifact: what an update fetches.
    pub const SIZE: &str = "dev.coracle.delta.size";
    /// Version of these rules.
    pub const VERSION: &str = "dev.coracle.delta.version";
    /// When the source image was made, as its config says.
    pub const SOURCE_CREATED: &str = "dev.coracle.delta.source-created";
}

/// The layout of documents that carry deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// One pair of images, tar-diffs; what bootc and its relatives read.
    OciDelta,
    /// One pair of images, native deltas.
    Coracle,
    /// `_deltaindex`, as flatpak reads it.
    Flatpak,
    /// `_deltaindex`, as the patches to skopeo write it.
    Skopeo,
    /// An image whose layers are librsync deltas, as balenaEngine makes and pulls it.
    Balena,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Dialect; 5] =
        [Dialect::OciDelta, Dialect::Coracle, Dialect::Flatpak, Dialect::Skopeo, Dialect::Balena];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::OciDelta => "oci-delta",
            Dialect::Coracle => "coracle",
            Dialect::Flatpak => "flatpak",
            Dialect::Skopeo => "skopeo",
            Dialect::Balena => "balena",
        }
    }

    /// The one that an artifact type stands for.
    pub fn of_artifact_type(artifact_type: &str) -> Option<Self> {
        match artifact_type {
            OCI_DELTA => Some(Dialect::OciDelta),
            CORACLE => Some(Dialect::Coracle),
            _ => None,
        }
    }

    /// What its annotations begin with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Dialect::Coracle | Dialect::Balena => "dev.coracle.delta.",
            Dialect::OciDelta | Dialect::Flatpak | Dialect::Skopeo => "io.github.containers.delta.",
        }
    }

    /// The annotation `name` of this dialect in an entry of a list, without its prefix.
    pub fn said<'a>(self, entry: &'a Descriptor, name: &str) -> Option<&'a str> {
        entry.annotations.get(&format!("{}{name}", self.prefix())).map(String::as_str)
    }

    /// The artifact type, for dialects that have one.
    pub fn artifact_type(self) -> Option<&'static str> {
        match self {
            Dialect::OciDelta => Some(OCI_DELTA),
            Dialect::Coracle => Some(CORACLE),
            Dialect::Flatpak | Dialect::Skopeo | Dialect::Balena => None,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == text).ok_or(())
    }
}

/// What the bytes of a layer's content are. Media types are often wrong; the first bytes are not (section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// A tar-diff.
    TarDiff(tardiff::Version),
    /// A native delta.
    Native,
    /// A layer with a librsync delta in it. Its first bytes are those of any layer: only the dialect tells.
    Rsync,
    /// The layer itself, compressed or not.
    Layer,
}

impl Payload {
    /// Bytes to look at.
    pub const PREFIX: usize = 8;

    /// What begins with `prefix`, of which [`Payload::PREFIX`] bytes are enough.
    pub fn of_prefix(prefix: &[u8]) -> Self {
        if let Some(version) = prefix.get(..tardiff::MAGIC_LEN).and_then(tardiff::Version::of_magic) {
            Payload::TarDiff(version)
        } else if prefix.starts_with(&crate::native::MAGIC) {
            Payload::Native
        } else {
            Payload::Layer
        }
    }
}

/// Why documents are no delta, or cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something else than a delta.
    #[error("not a delta artifact but {}", match .0 { Some(kind) => format!("of type {kind:?}"), None => "without an artifact type".into() })]
    NotADelta(Option<String>),
    /// Something that has to be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Something that may be there once is there several times.
    #[error("{0} is there more than once")]
    Twice(String),
    /// An annotation cannot be read.
    #[error("annotation {key} is {value:?}")]
    Annotation {
        /// Its name.
        key: String,
        /// What it says.
        value: String,
    },
    /// Two parts contradict each other.
    #[error("{what} is {actual}, but {expected} {by}")]
    Contradiction {
        /// The part.
        what: &'static str,
        /// What it says.
        actual: Digest,
        /// What it should say.
        expected: Digest,
        /// Who says so.
        by: &'static str,
    },
    /// A delta makes a layer that the target does not have.
    #[error("it has a delta for layer {0}, which the target image does not have")]
    NotInTarget(Digest),
    /// A document cannot be used.
    #[error(transparent)]
    Document(#[from] oci::Error),
}

/// The digest in an annotation.
fn digest(key: &str, value: &str) -> Result<Digest, Error> {
    value.parse().map_err(|_| Error::Annotation { key: key.to_owned(), value: shortened(value) })
}

/// Enough of a text for a message.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
