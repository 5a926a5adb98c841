//! Whole images: where they are, and how they get from one place to another.
//!
//! | module | transport | reads | writes |
//! |---|---|---|---|
//! | `registry` | `docker://` | yes | yes |
//! | `layout` | `oci:` | yes | yes |
//! | `oci_archive` | `oci-archive:` | yes | yes |
//! | `docker_archive` | `docker-archive:` | yes | one image |
//! | `dir` | `dir:` | yes | yes |
//! | `rootfs` | `rootfs:` | yes | one image, its files |
//! | `daemon` | `docker-daemon:` | yes | one image |
//! | `storage` | `containers-storage:` | yes | one image |
//! | `store` | `store:` | yes, as tars | yes |
//! | `bundle` | deltas and images in a layout or an archive | yes | by `delta create` |
//!
//! [`copy`] and [`show`] are the work; [`ImageName`] is how people name images. A place to read from is a `Source`, a
//! place to write to a `Destination`: blocking calls, made from several threads at once. `docker://` drives its
//! asynchronous client from there.
//!
//! Nothing that a source gives is believed: documents are compared before they are parsed, blobs while they pass
//! (`blob`), and a destination publishes a blob only after the last byte of it was compared.

mod archive;
pub(crate) mod blob;
pub(crate) mod bundle;
pub(crate) mod compressed;
pub mod copy;
mod daemon;
mod dir;
pub(crate) mod docker_archive;
pub(crate) mod layout;
mod name;
mod oci_archive;
pub(crate) mod open;
pub(crate) mod registry;
pub(crate) mod rootfs;
pub mod show;
pub(crate) mod spooled;
pub(crate) mod stop;
mod storage;
pub(crate) mod store;

use std::io::{Cursor, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use coracle_codec::digest::Digest;
use coracle_codec::oci::{
    Descriptor, Document, ImageConfig, Limits, Manifest, Repository, Unverified, Verified,
};

pub use name::{ImageName, Transport};
pub use open::Environment;
pub use rootfs::{Sharing, store_beside};

use crate::Error;
use blob::Blob;

/// The answer to a question for a range.
pub(crate) enum Ranged {
    /// All bytes of it.
    Part(Vec<u8>),
    /// There are no ranges: the whole blob, from its start.
    Whole(Box<dyn Read + Send>),
}

/// A place that images are read from.
pub(crate) trait Source: Send + Sync {
    /// For messages: the image as the user named it.
    fn name(&self) -> &str;

    /// What the name leads to.
    fn root(&self) -> Result<Document, Error>;

    /// A document that an index lists, compared with its descriptor. By default there is none besides the root.
    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        let reason = format!("there is no manifest {}", wanted.digest);
        Err(Error::BadImage { image: self.name().to_owned(), reason })
    }

    /// The bytes of a blob from `offset` on, not compared with anything.
    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error>;

    /// The bytes of a range of a blob, not compared with anything.
    fn open_range(&self, wanted: &Descriptor, range: Range<u64>) -> Result<Ranged, Error> {
        let what = format!("blob {}", wanted.digest);
        let mut bytes = Vec::new();
        let rest = self.open_blob(wanted, range.start)?;
        let read = rest.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes);
        match read {
            Ok(n) if range.start + n as u64 == range.end => Ok(Ranged::Part(bytes)),
            Ok(_) => Err(blob::reading(self.name(), &what, std::io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(blob::reading(self.name(), &what, error)),
        }
    }

    /// Whether several ranges of a blob can be had in one request; `None` if nobody has tried.
    fn serves_several(&self, _wanted: &Descriptor) -> Option<bool> {
        Some(false)
    }

    /// The bytes of several ranges of a blob, asked for in one request; `None` for those that did not come.
    fn open_ranges(
        &self,
        _wanted: &Descriptor,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        Ok(vec![None; ranges.len()])
    }

    /// Why the manifest is not one that somebody published but was put together just now; `None` if it is the original.
    fn made_up(&self) -> Option<&'static str> {
        None
    }

    /// The repository that blobs could be mounted from.
    fn repository(&self) -> Option<Repository> {
        None
    }

    /// The document under another tag at the same place; `None` if it is known that there is none.
    fn tagged(&self, tag: &str) -> Result<Option<Document>, Error> {
        let _ = tag;
        Ok(None)
    }

    /// The bytes of a document that may be none we know, compared with its descriptor.
    fn raw_document(&self, wanted: &Descriptor) -> Result<Verified, Error> {
        Ok(self.document(wanted)?.raw().clone())
    }

    /// The document with this digest, whatever its size; `None` if it is known that there is none.
    fn known(&self, digest: &Digest) -> Result<Option<Document>, Error> {
        let _ = digest;
        Ok(None)
    }

    /// What is there that says it is about `subject`, of one artifact type or of all. Empty means that there is nothing.
    fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let _ = (subject, artifact_type);
        Ok(Vec::new())
    }

    /// The layer in the store that is this blob, if it is from there.
    fn stored_layer(&self, wanted: &Descriptor) -> Option<coracle_store::Layer> {
        let _ = wanted;
        None
    }

    /// Tells that a blob had wrong bytes; `true` if there is another place to try.
    fn distrust(&self, wanted: &Descriptor) -> bool {
        let _ = wanted;
        false
    }
}

/// What a destination can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Takes {
    /// Indexes; else one image.
    pub(crate) index: bool,
    /// Several blobs at once; else one after the other, in order.
    pub(crate) parallel: bool,
    /// Anything with the form of an image; else only images that can be run.
    pub(crate) artifacts: bool,
    /// Why digests are lost; `None` if they are kept.
    pub(crate) loses: Option<&'static str>,
    /// Whether a layer that is not compressed had better be.
    pub(crate) wants_compressed: bool,
}

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was there.
    Existed,
    /// It was linked from another repository.
    Mounted,
    /// It was copied.
    Copied,
}

/// A place that images are written to. Dropped before [`Destination::finish`] it shows nothing new.
pub(crate) trait Destination: Send + Sync {
    /// What it can hold.
    fn takes(&self) -> Takes;

    /// Tells what is coming, before the first blob: the root and the documents below it. Places that are read from
    /// front to back put them there.
    fn announce(&self, root: &Document, below: &[Document]) -> Result<(), Error> {
        let _ = (root, below);
        Ok(())
    }

    /// Puts a blob whose digest is known only when it has been made: `make` writes it, and fails if it is not what it
    /// should be. `None` if this place has to know the digest before; nothing was called then.
    fn put_new(
        &self,
        make: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<Option<(Digest, u64)>, Error> {
        let _ = make;
        Ok(None)
    }

    /// Puts a blob, if it is not there. Compares it.
    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error>;

    /// Puts a document that is not the root. All that it lists is there.
    fn put_document(&self, document: &Document) -> Result<(), Error>;

    /// Puts the root and makes the image visible under its name. Returns what a user should know.
    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error>;
}

/// The bytes of a blob in memory, from `offset` on.
pub(crate) fn bytes_from(bytes: &[u8], offset: u64) -> Box<dyn Read + Send> {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    Box::new(Cursor::new(bytes[from..].to_vec()))
}

/// Reads all bytes of a small blob and compares them.
pub(crate) fn small_blob(
    source: &dyn Source,
    wanted: &Descriptor,
    what: &'static str,
    limit: u64,
) -> Result<Verified, Error> {
    if wanted.size > limit {
        let error = coracle_codec::oci::Error::TooLarge { what, actual: wanted.size, limit };
        return Err(Error::Document { image: source.name().to_owned(), error });
    }
    let blob_error = |mismatch| Error::WrongBlob {
        image: source.name().to_owned(),
        what: format!("{what} {}", wanted.digest).into(),
        mismatch,
    };
    let mut bytes = Vec::new();
    source
        .open_blob(wanted, 0)?
        .take(wanted.size.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| blob::reading(source.name(), &format!("{what} {}", wanted.digest), error))?;
    Unverified::new(bytes).verify_sized(&wanted.digest, wanted.size).map_err(blob_error)
}

/// The config of an image, compared and parsed, with as many diff_ids as the manifest has layers.
pub(crate) fn config_of(
    source: &dyn Source,
    manifest: &Manifest,
    limits: &Limits,
) -> Result<ImageConfig, Error> {
    let document = |error| Error::Document { image: source.name().to_owned(), error };
    let raw = small_blob(source, manifest.config(), "config", limits.config_bytes)?;
    let config = ImageConfig::parse(raw, limits).map_err(document)?;
    let (diff_ids, layers) = (config.diff_ids().len(), manifest.layers().len());
    if diff_ids != layers {
        return Err(document(coracle_codec::oci::Error::LayerCount { diff_ids, layers }));
    }
    Ok(config)
}
