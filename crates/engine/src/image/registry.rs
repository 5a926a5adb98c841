//! `docker://`: images in registries, with the client of `coracle-registry`.

use std::future::Future;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use coracle_codec::artifact::Artifact;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, Limits, Reference, Repository, Verified, Version};
use coracle_registry::{BlobStream, Client, Content, PushOptions, Pushed, RangeAnswer};
use tokio::runtime::Handle;

use super::blob::Blob;
use super::stop::Stop;
use super::{Destination, Outcome, Ranged, Source, Takes};
use crate::Error;
use crate::artifact::Board;

/// Asynchronous calls from blocking threads, which end when the work is stopped.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) client: Client,
    pub(crate) runtime: Handle,
    pub(crate) stop: Stop,
}

impl Wire {
    pub(crate) fn wait<T>(
        &self,
        context: &str,
        call: impl Future<Output = Result<T, coracle_registry::Error>>,
    ) -> Result<T, Error> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.wait() => Err(Error::Cancelled),
                result = call => result.map_err(|error| translate(context, error)),
            }
        })
    }
}

/// Errors that came from our own content go back to what they were.
fn translate(context: &str, error: coracle_registry::Error) -> Error {
    match error {
        coracle_registry::Error::Content { what, error } => super::blob::reading(context, &what, error),
        coracle_registry::Error::ContentMismatch { what, mismatch } => {
            Error::WrongBlob { image: context.to_owned(), what: what.into(), mismatch }
        }
        error => Error::Registry { context: context.to_owned(), error: Box::new(error) },
    }
}

/// An image in a registry.
#[derive(Debug)]
pub(crate) struct RegistrySource {
    pub(crate) name: String,
    pub(crate) wire: Wire,
    pub(crate) reference: Reference,
    pub(crate) limits: Limits,
    pub(crate) hosts: std::sync::Mutex<std::collections::HashMap<Digest, String>>,
}

impl RegistrySource {
    /// `None` if the registry says that there is none.
    fn fetch_if_there(&self, reference: &Reference) -> Result<Option<Document>, Error> {
        match self.fetch(reference, None) {
            Err(Error::Registry { error, .. })
                if matches!(*error, coracle_registry::Error::NotFound { .. }) =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    fn fetch(&self, reference: &Reference, media_type: Option<&str>) -> Result<Document, Error> {
        let fetched = self.wire.wait(&self.name, self.wire.client.manifest(reference))?;
        let media_type = media_type.or(fetched.media_type.as_deref());
        Document::parse(fetched.raw, media_type, &self.limits)
            .map_err(|error| Error::Document { image: self.name.clone(), error })
    }
}

impl Source for RegistrySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Document, Error> {
        self.fetch(&self.reference, None)
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        let document =
            self.fetch(&self.reference.repository().with_digest(wanted.digest), Some(&wanted.media_type))?;
        if document.raw().size() != wanted.size {
            return Err(Error::WrongBlob {
                image: self.name.clone(),
                what: format!("manifest {}", wanted.digest).into(),
                mismatch: coracle_codec::oci::Mismatch::Size {
                    expected: wanted.size,
                    actual: document.raw().size(),
                },
            });
        }
        Ok(document)
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        let repository = self.reference.repository();
        let opened = self.wire.wait(&self.name, self.wire.client.blob(repository, wanted, offset));
        let stream = opened.map_err(|error| match error {
            Error::Registry { error, .. }
                if wanted.is_foreign() && matches!(*error, coracle_registry::Error::NotFound { .. }) =>
            {
                Error::ForeignLayer {
                    image: self.name.clone(),
                    layer: wanted.digest,
                    urls: wanted.urls.clone(),
                }
            }
            other => other,
        })?;
        if let Ok(mut hosts) = self.hosts.lock() {
            hosts.insert(wanted.digest, stream.host().to_owned());
        }
        Ok(Box::new(Incoming {
            stream,
            wire: self.wire.clone(),
            name: self.name.clone(),
            piece: Bytes::new(),
        }))
    }

    fn open_range(&self, wanted: &Descriptor, range: Range<u64>) -> Result<Ranged, Error> {
        let call = self.wire.client.blob_range(self.reference.repository(), wanted, range);
        Ok(match self.wire.wait(&self.name, call)? {
            RangeAnswer::Part(bytes) => Ranged::Part(bytes),
            RangeAnswer::Whole(stream) => Ranged::Whole(Box::new(Incoming {
                stream: *stream,
                wire: self.wire.clone(),
                name: self.name.clone(),
                piece: Bytes::new(),
            })),
        })
    }

    fn serves_several(&self, wanted: &Descriptor) -> Option<bool> {
        self.wire.client.serves_several(self.reference.repository(), wanted).unwrap_or(Some(false))
    }

    fn open_ranges(&self, wanted: &Descriptor, ranges: &[Range<u64>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let call = self.wire.client.blob_ranges(self.reference.repository(), wanted, ranges);
        self.wire.wait(&self.name, call)
    }

    fn raw_document(&self, wanted: &Descriptor) -> Result<Verified, Error> {
        let reference = self.reference.repository().with_digest(wanted.digest);
        Ok(self.wire.wait(&self.name, self.wire.client.manifest(&reference))?.raw)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>, Error> {
        let Some(reference) = self.reference.repository().with_tag(tag) else { return Ok(None) };
        self.fetch_if_there(&reference)
    }

    fn known(&self, digest: &Digest) -> Result<Option<Document>, Error> {
        self.fetch_if_there(&self.reference.repository().with_digest(*digest))
    }

    fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let repository = self.reference.repository();
        let call = self.wire.client.referrers(repository, subject, artifact_type);
        Ok(self.wire.wait(&self.name, call)?.descriptors)
    }

    fn repository(&self) -> Option<Repository> {
        Some(self.reference.repository().clone())
    }

    fn distrust(&self, wanted: &Descriptor) -> bool {
        let host = self.hosts.lock().ok().and_then(|mut hosts| hosts.remove(&wanted.digest));
        if let Some(host) = &host {
            self.wire.client.distrust(host, wanted.digest);
        }
        host.is_some()
    }
}

/// A stream as something to read.
struct Incoming {
    stream: BlobStream,
    wire: Wire,
    name: String,
    piece: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let next = self.wire.wait(&self.name, self.stream.next()).map_err(io::Error::other)?;
            match next {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.piece.len());
        buf[..n].copy_from_slice(&self.piece[..n]);
        self.piece.advance(n);
        Ok(n)
    }
}

/// A repository to write to.
#[derive(Debug)]
pub(crate) struct RegistryDestination {
    pub(crate) name: String,
    pub(crate) wire: Wire,
    pub(crate) reference: Reference,
}

impl Destination for RegistryDestination {
    fn takes(&self) -> Takes {
        Takes { index: true, parallel: true, artifacts: true, loses: None, wants_compressed: true }
    }

    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error> {
        let repository = self.reference.repository();
        let from = blob.source.repository().filter(|from| from.registry() == repository.registry());
        let options = PushOptions { mount_from: from, chunk: None };
        let content: Arc<dyn Content> = Arc::clone(blob) as Arc<dyn Content>;
        let push = self.wire.client.push_blob(repository, &blob.descriptor, content, &options);
        let pushed = self.wire.wait(&self.name, push).map_err(|error| match error {
            // The bytes came from the source.
            Error::WrongBlob { mismatch, .. } => blob.wrong(mismatch),
            other => other,
        })?;
        let outcome = match pushed {
            Pushed::Existed => Outcome::Existed,
            Pushed::Mounted => Outcome::Mounted,
            Pushed::Uploaded { .. } => return Ok(Outcome::Copied),
        };
        blob.skipped(blob.descriptor.size);
        Ok(outcome)
    }

    fn put_document(&self, document: &Document) -> Result<(), Error> {
        self.push(&Version::Digest(document.digest()), document)
    }

    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error> {
        if let Some(digest) = self.reference.digest()
            && digest != root.digest()
        {
            let mismatch = coracle_codec::oci::Mismatch::Digest { expected: digest, actual: root.digest() };
            return Err(Error::WrongBlob { image: self.name.clone(), what: "manifest".into(), mismatch });
        }
        // A tag beside a digest is a wish, too.
        let version = match self.reference.tag() {
            Some(tag) => Version::Tag(tag.to_owned()),
            None => Version::Digest(root.digest()),
        };
        self.push(&version, root)?;
        Ok(Vec::new())
    }
}

impl RegistryDestination {
    fn push(&self, version: &Version, document: &Document) -> Result<(), Error> {
        if let Document::Manifest(manifest) = document
            && Artifact::dialect_of(manifest).is_some()
        {
            let (name, wire) = (self.name.as_str(), self.wire.clone());
            let limits = self.wire.client.settings().limits;
            let repository = self.reference.repository();
            return Board { name, wire, repository, limits: &limits }.refer(version, document);
        }
        let (client, repository) = (&self.wire.client, self.reference.repository());
        self.wire.wait(&self.name, async {
            // A document about another one has to be found from there.
            if document.subject().is_some() {
                client.push_referrer(repository, version, document).await
            } else {
                client.push_manifest(repository, version, document).await
            }
        })?;
        Ok(())
    }
}
