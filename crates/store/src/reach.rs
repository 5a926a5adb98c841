//! What a name, or a document, needs.

use std::collections::HashSet;

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Document, ImageConfig, Index, Limits, Manifest, Verified};

use crate::error::Error;
use crate::refs::Ref;
use crate::store::Store;

/// What is needed, by kind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Needs {
    /// Manifests, indexes and configs that are in the store.
    pub documents: HashSet<Digest>,
    /// Layers by diff_id, whether they are in the store or not.
    pub layers: HashSet<Digest>,
    /// Of each layer the manifest of an image that has it.
    pub images: Vec<(Digest, Digest)>,
}

/// The document `digest`, which has to be here.
fn required(store: &Store, digest: &Digest) -> Result<Verified, Error> {
    store.document(digest)?.ok_or(Error::Missing { what: "document", digest: *digest })
}

fn parse(raw: Verified) -> Result<Document, Error> {
    let digest = raw.digest();
    let bad = |source| Error::Document { digest, source };
    Document::parse(raw, None, &Limits::default()).map_err(bad)
}

fn manifest(store: &Store, digest: &Digest) -> Result<Manifest, Error> {
    match parse(required(store, digest)?)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => {
            let reason = "an index where a manifest is needed".into();
            let source = coracle_codec::oci::Error::Invalid { what: "manifest", reason };
            Err(Error::Document { digest: *digest, source })
        }
    }
}

/// The diff_ids of an image; none of a manifest that is no image.
fn diff_ids(store: &Store, manifest: &Manifest) -> Result<Vec<Digest>, Error> {
    let config = required(store, &manifest.config().digest)?;
    if !manifest.is_image() {
        return Ok(Vec::new());
    }
    let digest = config.digest();
    let config = ImageConfig::parse(config, &Limits::default());
    Ok(config.map_err(|source| Error::Document { digest, source })?.diff_ids().to_vec())
}

/// Looks whether all that `entry` leads to is in the store.
pub(crate) fn require_whole(store: &Store, entry: &Ref) -> Result<(), Error> {
    required(store, &entry.root.digest)?;
    for image in &entry.images {
        let manifest = manifest(store, &image.digest)?;
        for diff_id in diff_ids(store, &manifest)? {
            if !store.has_layer(&diff_id) {
                return Err(Error::Missing { what: "layer", digest: diff_id });
            }
        }
    }
    Ok(())
}

impl Needs {
    /// Adds what a name needs.
    ///
    /// # Errors
    /// One of its documents, or one of those that an image cannot be read without, is missing or damaged.
    pub fn add_ref(&mut self, store: &Store, entry: &Ref) -> Result<(), Error> {
        let root = parse(required(store, &entry.root.digest)?)?;
        self.documents.insert(root.digest());
        if let Document::Index(index) = &root {
            self.add_entries(store, index, 0);
        }
        for image in &entry.images {
            self.add_image(store, &manifest(store, &image.digest)?)?;
        }
        // A name may lead to a manifest without listing it as an image.
        if let Document::Manifest(manifest) = &root {
            self.add_image(store, manifest)?;
        }
        Ok(())
    }

    /// Adds what is kept by a lease: a document of any kind, with what it leads to as far as that is here. Work is under
    /// way, so much may be missing still.
    pub fn add_kept(&mut self, store: &Store, digest: &Digest) {
        self.documents.insert(*digest);
        match store.document(digest).ok().flatten().map(parse) {
            Some(Ok(Document::Index(index))) => self.add_entries(store, &index, 0),
            Some(Ok(Document::Manifest(manifest))) => self.add_image_leniently(store, &manifest),
            // A config, for instance.
            _ => {}
        }
    }

    fn add_image(&mut self, store: &Store, manifest: &Manifest) -> Result<(), Error> {
        self.documents.insert(manifest.digest());
        let layers = diff_ids(store, manifest)?;
        self.documents.insert(manifest.config().digest);
        self.images.extend(layers.iter().map(|layer| (*layer, manifest.digest())));
        self.layers.extend(layers);
        Ok(())
    }

    fn add_image_leniently(&mut self, store: &Store, manifest: &Manifest) {
        if self.add_image(store, manifest).is_err() {
            self.documents.insert(manifest.config().digest);
        }
    }

    /// Entries of an index that are here: manifests of platforms, and indexes between them and the root.
    fn add_entries(&mut self, store: &Store, index: &Index, depth: u32) {
        for entry in index.manifests() {
            if self.documents.contains(&entry.digest) || depth > Limits::default().nesting {
                continue;
            }
            match store.document(&entry.digest).ok().flatten().map(parse) {
                Some(Ok(Document::Index(inner))) => {
                    self.documents.insert(entry.digest);
                    self.add_entries(store, &inner, depth + 1);
                }
                Some(Ok(Document::Manifest(manifest))) => self.add_image_leniently(store, &manifest),
                _ => {}
            }
        }
    }
}
