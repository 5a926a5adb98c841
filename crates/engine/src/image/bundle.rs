//! Bundles: a layout, or an archive of one, with deltas to an image and maybe the image itself, for places without a
//! network (`docs/deltas.md`).
//!
//! What an artifact leads to is inside of it: manifest and config. So a bundle is a source of the target image even if
//! its layers are not there; asked for one of those, it says so.

use std::io::Read;
use std::sync::Arc;

use coracle_codec::artifact::Artifact;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, ImageConfig, Limits, Manifest, Platform, Verified};

use super::{Source, config_of, small_blob};
use crate::Error;

/// A bundle to read from.
pub(crate) struct Bundle {
    inner: Arc<dyn Source>,
    target: Manifest,
    /// Artifacts with the manifests that they lead to.
    deltas: Vec<(Digest, Descriptor)>,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bundle({}, {})", self.inner.name(), self.target.digest())
    }
}

impl Bundle {
    /// The image in `inner` for `platform`; of several the one with the digest `wanted`.
    pub(crate) fn open(
        inner: Arc<dyn Source>,
        wanted: Option<Digest>,
        platform: &Platform,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let mut found = Contents { inner: &inner, limits, images: Vec::new(), deltas: Vec::new() };
        found.add(inner.root()?, 0)?;
        let Contents { images, deltas, .. } = found;
        let name = inner.name().to_owned();
        let all = images.len();
        let mut fitting = Vec::new();
        let mut has = Vec::new();
        for image in images {
            if wanted.is_some_and(|wanted| wanted != image.digest()) {
                continue;
            }
            let config: ImageConfig = config_of(inner.as_ref(), &image, limits)?;
            match config.platform() {
                Some(of) if of.fits(platform).is_none() => has.push(of.to_string()),
                _ => fitting.push(image),
            }
        }
        match (fitting.pop(), fitting.pop()) {
            (Some(target), None) => Ok(Bundle { inner, target, deltas }),
            (Some(_), Some(_)) => {
                let reason = "it leads to several images; name one by its digest".to_owned();
                Err(Error::BadImage { image: name, reason })
            }
            (None, _) if !has.is_empty() => {
                Err(Error::NoPlatform { image: name, wanted: Box::new(platform.clone()), has })
            }
            (None, _) => {
                let reason = match all {
                    0 => "there is neither a delta nor an image in it".to_owned(),
                    _ => "it leads to another image".to_owned(),
                };
                Err(Error::NoSuchImage { image: name, reason })
            }
        }
    }
}

/// What is found in a bundle.
struct Contents<'a> {
    inner: &'a Arc<dyn Source>,
    limits: &'a Limits,
    /// Each once.
    images: Vec<Manifest>,
    deltas: Vec<(Digest, Descriptor)>,
}

impl Contents<'_> {
    fn add(&mut self, document: Document, depth: u32) -> Result<(), Error> {
        let name = self.inner.name();
        let manifest = match document {
            Document::Index(_) if depth >= self.limits.nesting => {
                let reason = "indexes lie in each other too deep".to_owned();
                return Err(Error::BadImage { image: name.to_owned(), reason });
            }
            Document::Index(index) => {
                for entry in index.manifests() {
                    self.add(self.inner.document(entry)?, depth + 1)?;
                }
                return Ok(());
            }
            Document::Manifest(manifest) => manifest,
        };
        if manifest.is_image() {
            self.image(manifest);
            return Ok(());
        }
        // Something else may lie beside them, such as signatures.
        if Artifact::dialect_of(&manifest).is_none_or(|dialect| dialect.artifact_type().is_none()) {
            return Ok(());
        }
        let artifact = Artifact::parse(&manifest)
            .map_err(|error| Error::Artifact { image: name.to_owned(), error: Box::new(error) })?;
        let wanted = &artifact.target_manifest;
        let raw = small_blob(self.inner.as_ref(), wanted, "target manifest", self.limits.manifest_bytes)?;
        let target = Document::parse(raw, Some(&wanted.media_type), self.limits)
            .map_err(|error| Error::Document { image: name.to_owned(), error })?;
        match target {
            Document::Manifest(target) if target.is_image() => {
                let entry = Document::Manifest(manifest).descriptor();
                self.deltas.push((target.digest(), entry));
                self.image(target);
                Ok(())
            }
            _ => {
                let reason = "the target in the delta is no image".to_owned();
                Err(Error::BadImage { image: name.to_owned(), reason })
            }
        }
    }

    fn image(&mut self, image: Manifest) {
        if self.images.iter().all(|other| other.digest() != image.digest()) {
            self.images.push(image);
        }
    }
}

impl Source for Bundle {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn root(&self) -> Result<Document, Error> {
        Ok(Document::Manifest(self.target.clone()))
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        self.inner.document(wanted)
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        let is_layer = self.target.layers().iter().any(|layer| layer.digest == wanted.digest);
        self.inner.open_blob(wanted, offset).map_err(|error| match error {
            Error::BadImage { image, .. } if is_layer => Error::NotInBundle { image, layer: wanted.digest },
            other => other,
        })
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>, Error> {
        self.inner.tagged(tag)
    }

    fn raw_document(&self, wanted: &Descriptor) -> Result<Verified, Error> {
        self.inner.raw_document(wanted)
    }

    fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let fits = |entry: &&Descriptor| {
            artifact_type.is_none_or(|wanted| entry.artifact_type.as_deref() == Some(wanted))
        };
        let ours = self.deltas.iter().filter(|(target, _)| target == subject).map(|(_, entry)| entry);
        let mut all: Vec<Descriptor> = ours.filter(fits).cloned().collect();
        for entry in self.inner.referrers(subject, artifact_type)? {
            if !all.contains(&entry) {
                all.push(entry);
            }
        }
        Ok(all)
    }
}
