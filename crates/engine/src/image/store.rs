//! `store:`: images in the store of this machine, whose layers are kept as tars.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_codec::ReadAt;
use coracle_codec::compress;
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{
    Descriptor, Document, ImageConfig, Limits, Manifest, Platform, Reference, Verified, media_type,
};
use coracle_store::{Layer, LayerWriter, Lease, Options, Ref, Store, WriterOptions};

use super::blob::Blob;
use super::docker_archive::made_up;
use super::spooled::Spooled;
use super::stop::Stop;
use super::{Destination, Outcome, Source, Takes, bytes_from, config_of, small_blob};
use crate::Error;
use crate::artifact::layers;

/// Between two looks at a layer that another process makes.
const PERIOD: Duration = Duration::from_millis(50);

/// Makes a layer, unless it is in the store or another process makes it: then waits. `None` if it is there. Either way
/// the lease keeps it.
pub(crate) fn claimed<R>(
    (store, lease): (&Store, &Lease),
    diff_id: &Digest,
    stop: &Stop,
    make: impl FnOnce() -> Result<R, Error>,
) -> Result<Option<R>, Error> {
    let here = || Ok::<bool, Error>(store.has_layer(diff_id) && lease.keep_layer(diff_id)?);
    let _claim = loop {
        if here()? {
            return Ok(None);
        }
        match store.claim_layer(diff_id)? {
            Some(claim) => break claim,
            None if stop.raised() => return Err(Error::Cancelled),
            None => std::thread::sleep(PERIOD),
        }
    };
    // It may have come between the two looks.
    if here()? {
        return Ok(None);
    }
    make().map(Some)
}

/// Decodes a blob that is a layer, and whose `content` has not been read yet, into the store.
pub(crate) fn ingest(
    lease: &Lease,
    blob: &Blob,
    content: layers::Content,
    diff_id: &Digest,
    limits: compress::Limits,
    options: WriterOptions,
) -> Result<(), Error> {
    let mut out = Hashing::new(lease.layer_writer(&[], options)?);
    let fail = |error| Error::Write { path: lease.store().path().to_owned(), error };
    layers::decode(blob, content, diff_id, limits, &mut out, fail)?;
    LayerWriter::publish(out, diff_id)?;
    Ok(())
}

/// An image to read.
#[derive(Debug)]
pub(crate) struct StoreSource {
    name: String,
    store: Store,
    /// Keeps what is read while it is read.
    _lease: Lease,
    /// With the layers as tars.
    document: Document,
    config: Verified,
}

impl StoreSource {
    /// Opens an image; of several platforms the one for `host`, if it is there.
    pub(crate) fn open(
        name: &str,
        reference: &Reference,
        path: &std::path::Path,
        host: &Platform,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let store = Store::open(path)?;
        let lease = store.lease()?;
        let held = find(&store, name, reference)?;
        let fits = |image: &&Descriptor| image.platform.as_ref().is_some_and(|p| p.fits(host).is_some());
        let image = held.images.iter().find(fits).or(held.images.first());
        let bad = |reason: String| Error::BadImage { image: name.to_owned(), reason };
        let image = image.ok_or_else(|| bad("its entry in the store lists no image".into()))?;
        let missing = |what: &str, digest: &Digest| bad(format!("{what} {digest} is not in the store"));
        let read = |what, digest: &Digest| {
            lease.keep_document(digest)?;
            store.document(digest)?.ok_or_else(|| missing(what, digest))
        };
        let document = |error| Error::Document { image: name.to_owned(), error };
        let raw = read("manifest", &image.digest)?;
        let Document::Manifest(manifest) =
            Document::parse(raw, Some(&image.media_type), limits).map_err(document)?
        else {
            return Err(bad("its manifest is a list".into()));
        };
        let raw = read("config", &manifest.config().digest)?;
        StoreSource::of(name, store.clone(), lease, raw, limits)
    }

    /// The image with this config, whose layers are in the store.
    pub(crate) fn of(
        name: &str,
        store: Store,
        lease: Lease,
        raw: Verified,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let document = |error| Error::Document { image: name.to_owned(), error };
        let missing = |digest: &Digest| {
            let reason = format!("layer {digest} is not in the store");
            Error::BadImage { image: name.to_owned(), reason }
        };
        let config = ImageConfig::parse(raw.clone(), limits).map_err(document)?;
        let mut described = Vec::new();
        for diff_id in config.diff_ids() {
            let kept = lease.keep_layer(diff_id)?;
            let layer = store.layer(diff_id)?.filter(|_| kept).ok_or_else(|| missing(diff_id))?;
            described.push(Descriptor::new(media_type::OCI_LAYER, *diff_id, layer.size()));
        }
        let made = made_up(&raw, &described, limits).map_err(document)?;
        Ok(StoreSource { name: name.to_owned(), store, _lease: lease, document: made, config: raw })
    }
}

/// The entry for a name, or an error that says what there is.
pub(crate) fn find(store: &Store, name: &str, reference: &Reference) -> Result<Ref, Error> {
    if let Some(held) = store.reference(reference)? {
        return Ok(held);
    }
    let names: Vec<String> = store.readable_refs()?.0.iter().map(|held| held.name.to_string()).collect();
    let reason = if names.is_empty() {
        "the store is empty".to_owned()
    } else {
        format!("it has: {}", names.join(", "))
    };
    Err(Error::NoSuchImage { image: name.to_owned(), reason })
}

impl Source for StoreSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Document, Error> {
        Ok(self.document.clone())
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        if wanted.digest == self.config.digest() {
            return Ok(bytes_from(self.config.as_bytes(), offset));
        }
        match self.store.layer(&wanted.digest)? {
            Some(layer) if offset == 0 => Ok(Box::new(layer.reader())),
            Some(layer) => Ok(Box::new(LayerFrom { layer, offset })),
            None => Err(Error::BadImage {
                image: self.name.clone(),
                reason: format!("the store has no layer {}", wanted.digest),
            }),
        }
    }

    fn stored_layer(&self, wanted: &Descriptor) -> Option<Layer> {
        self.store.layer(&wanted.digest).ok().flatten()
    }

    fn made_up(&self) -> Option<&'static str> {
        Some("the store keeps layers uncompressed")
    }
}

/// A layer from an offset on.
struct LayerFrom {
    layer: Layer,
    offset: u64,
}

impl Read for LayerFrom {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.layer.read_at(self.offset, buf)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// An image to write.
#[derive(Debug)]
pub(crate) struct StoreDestination {
    name: String,
    reference: Reference,
    store: Store,
    lease: Lease,
    limits: Limits,
    archive_limits: compress::Limits,
    stop: Stop,
    now: u64,
    /// Manifests that were announced.
    announced: Mutex<Vec<Manifest>>,
    /// Configs by digest.
    configs: Mutex<HashMap<Digest, ImageConfig>>,
}

/// What a destination in the store needs to know.
pub(crate) struct Place<'a> {
    pub(crate) path: &'a std::path::Path,
    pub(crate) limits: Limits,
    pub(crate) archive_limits: compress::Limits,
    pub(crate) now: u64,
}

impl StoreDestination {
    pub(crate) fn create(
        name: &str,
        reference: &Reference,
        place: &Place<'_>,
        stop: &Stop,
    ) -> Result<Self, Error> {
        let store = Store::open_or_create(place.path, Options::default())?;
        Ok(StoreDestination {
            name: name.to_owned(),
            reference: reference.clone(),
            lease: store.lease()?,
            store,
            limits: place.limits,
            archive_limits: place.archive_limits,
            stop: stop.clone(),
            now: place.now,
            announced: Mutex::default(),
            configs: Mutex::default(),
        })
    }

    fn announced(&self) -> Vec<Manifest> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn config(&self, blob: &Blob, manifest: &Manifest) -> Result<ImageConfig, Error> {
        let digest = manifest.config().digest;
        let known = self.configs.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        if let Some(config) = known {
            return Ok(config);
        }
        let config = config_of(blob.source.as_ref(), manifest, &self.limits)?;
        self.configs.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, config.clone());
        Ok(config)
    }

    fn put_layer(&self, blob: &Arc<Blob>, diff_id: &Digest) -> Result<Outcome, Error> {
        let store = self.store.clone();
        let spooled = Arc::new(Spooled::new(Arc::clone(&blob.source), move |digest| store.partial(digest)));
        let made = claimed((&self.store, &self.lease), diff_id, &self.stop, || {
            let kept = Blob {
                source: Arc::clone(&spooled) as Arc<dyn Source>,
                descriptor: blob.descriptor.clone(),
                what: blob.what.clone(),
                progress: Arc::clone(&blob.progress),
            };
            let result = self.decode(&kept, diff_id);
            match result {
                Err(Error::WrongBlob { .. } | Error::Layer { .. } | Error::WrongLayer { .. })
                    if spooled.forget(&blob.descriptor.digest) > 0 =>
                {
                    self.decode(&kept, diff_id)
                }
                other => other,
            }
        })?;
        match made {
            None => {
                blob.skipped(blob.descriptor.size);
                Ok(Outcome::Existed)
            }
            Some(()) => {
                spooled.forget(&blob.descriptor.digest);
                Ok(Outcome::Copied)
            }
        }
    }

    fn decode(&self, blob: &Blob, diff_id: &Digest) -> Result<(), Error> {
        let content = layers::Content::open(blob)?;
        ingest(&self.lease, blob, content, diff_id, self.archive_limits, WriterOptions::default())
    }
}

impl Destination for StoreDestination {
    fn takes(&self) -> Takes {
        Takes { index: true, parallel: true, artifacts: false, loses: None, wants_compressed: false }
    }

    fn announce(&self, root: &Document, below: &[Document]) -> Result<(), Error> {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        for document in below.iter().chain([root]) {
            if let Document::Manifest(manifest) = document
                && manifest.is_image()
            {
                announced.push(manifest.clone());
            }
        }
        Ok(())
    }

    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error> {
        let digest = blob.descriptor.digest;
        for manifest in self.announced() {
            if let Some(number) = manifest.layers().iter().position(|layer| layer.digest == digest) {
                let diff_id = self.config(blob, &manifest)?.diff_ids()[number];
                return self.put_layer(blob, &diff_id);
            }
        }
        let raw = small_blob(blob.source.as_ref(), &blob.descriptor, "config", self.limits.config_bytes)?;
        self.lease.put_document(&raw)?;
        blob.skipped(blob.descriptor.size);
        Ok(Outcome::Copied)
    }

    fn put_document(&self, document: &Document) -> Result<(), Error> {
        Ok(self.lease.put_document(document.raw())?)
    }

    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error> {
        self.put_document(root)?;
        let configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let images: Vec<Descriptor> = self
            .announced()
            .iter()
            .map(|manifest| {
                let mut image =
                    Descriptor::new(manifest.media_type(), manifest.digest(), manifest.raw().size());
                let config = configs.get(&manifest.config().digest);
                image.platform = config.and_then(|config| config.platform().cloned());
                image
            })
            .collect();
        if images.is_empty() {
            let reason = "there is no image in it".to_owned();
            return Err(Error::BadImage { image: self.name, reason });
        }
        self.lease.set_ref(&Ref {
            name: self.reference.clone(),
            root: Descriptor::new(root.media_type(), root.digest(), root.raw().size()),
            images,
            source: format!("docker://{}", self.reference),
            // It was put here by hand: nobody said where newer ones come from.
            tracked: false,
            updated: self.now,
        })?;
        Ok(Vec::new())
    }
}
