//! Pulling what a delta image of balenaEngine leads to (`docs/formats/rsync.md`, section 6.5).

use std::sync::Arc;

use coracle_codec::artifact::balena::DeltaImage;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, Manifest, Reference, media_type};
use coracle_store::Ref;

use super::discover::patiently;
use super::job::{Job, Planner, config_here};
use super::{Documents, Pull, Pulled, Ready};
use crate::Error;
use crate::artifact::apply::find::{UNKNOWN_MANIFEST, leads_to, manifest_of};
use crate::artifact::assembled::Assembled;
use crate::artifact::layers::Image;
use crate::image::docker_archive::made_up;
use crate::image::stop::Stop;
use crate::image::{ImageName, Source};

/// The target as it is, found.
struct Full {
    /// Where its layers are, if elsewhere than the delta image.
    source: Option<Arc<dyn Source>>,
    root: Document,
    manifest: Manifest,
}

impl Pull<'_> {
    /// What the labels of an image say, if they are those of a delta image.
    pub(super) fn delta_image(
        &self,
        source: &Arc<dyn Source>,
        documents: &Documents,
    ) -> Result<Option<DeltaImage>, Error> {
        DeltaImage::of(&documents.config, &self.environment.limits)
            .map_err(|error| Error::Artifact { image: source.name().to_owned(), error: Box::new(error) })
    }

    /// Pulls the target of a delta image.
    pub(super) fn balena(
        &self,
        name: Reference,
        source: Arc<dyn Source>,
        delta: &Documents,
        image: &DeltaImage,
    ) -> Result<(Pulled, Option<Ready>), Error> {
        let mut notes = vec![format!(
            "{} is a delta image; it leads to the image {}",
            self.request.image,
            image.target.raw().digest()
        )];
        let full = self.full(&source, image, &mut notes)?;
        if full.is_none() {
            notes.push(UNKNOWN_MANIFEST.to_owned());
        }
        let held = self.store.reference(&name).ok().flatten();
        let documents = full.as_ref().map(|full| Documents {
            root: full.root.clone(),
            manifest: full.manifest.clone(),
            platform: delta.platform.clone(),
            config: image.target.clone(),
            trust: delta.trust.clone(),
        });
        let is_here = held.as_ref().and_then(|held| match &documents {
            Some(documents) => {
                self.is_whole(held, documents).then(|| (held.root.digest, documents.manifest.digest()))
            }
            None => self.has_target(held, image),
        });
        let mut pulled = match &documents {
            Some(documents) => Pulled::begin(name, documents),
            None => Pulled::begin(name, delta),
        };
        pulled.config = image.target.raw().digest();
        if let Some((root, digest)) = is_here {
            (pulled.root, pulled.digest) = (root, digest);
        }
        let named = self.named(held.as_ref());
        let there = self.there()?;
        pulled.subset = self.subset_of(&pulled.config)?;
        let selected = self.environment.selection.as_ref();
        let there_is = there.as_ref().is_none_or(|there| there.has(&pulled.config, selected));
        if (is_here.is_some() || !named) && there_is {
            (pulled.up_to_date, pulled.notes) = (true, notes);
            return Ok((pulled, None));
        }
        let others = self.others(there)?;
        let (job, found) =
            self.balena_plan(&pulled.name, delta, image, full.as_ref().map(|full| &full.manifest), &others)?;
        pulled.notes = notes.into_iter().chain(found).collect();
        // The layers of the target are where it is, all else is where the delta image is.
        let source = match full {
            Some(Full { source: Some(elsewhere), root, manifest }) => {
                let mut both = Assembled::new(source.name(), root, source.clone());
                for layer in manifest.layers() {
                    both.at(layer.digest, Arc::clone(&elsewhere));
                }
                Arc::new(both) as Arc<dyn Source>
            }
            _ => source,
        };
        if !self.make(&mut pulled, &self.spooled(source), &job, &others)? {
            return Ok((pulled, None));
        }
        let documents = match documents {
            Some(documents) => documents,
            None => self.put_together(delta, image)?,
        };
        (pulled.root, pulled.digest) = (documents.root.digest(), documents.manifest.digest());
        let ready = self.ready(&pulled.name, &documents, held, named)?;
        Ok((pulled, Some(ready)))
    }

    /// The target as it is: the image that was named, or the manifest that the delta image names, at the same place.
    fn full(
        &self,
        source: &Arc<dyn Source>,
        image: &DeltaImage,
        notes: &mut Vec<String>,
    ) -> Result<Option<Full>, Error> {
        let Some(name) = &self.request.full else {
            let manifest = manifest_of(source.as_ref(), image.target_manifest.as_ref(), &image.target);
            if manifest.is_none()
                && let Some(digest) = &image.target_manifest
            {
                notes.push(format!("the manifest {digest} that the delta image names is not there"));
            }
            return Ok(manifest.map(|manifest| Full {
                source: None,
                root: Document::Manifest(manifest.clone()),
                manifest,
            }));
        };
        self.full_of(name, image).map(Some)
    }

    fn full_of(&self, name: &ImageName, image: &DeltaImage) -> Result<Full, Error> {
        let platform = image.target.platform().or(self.request.platform.as_ref());
        let found = Image::open(name, platform, self.environment, &self.progress.stop, self.context)?;
        if !leads_to(&found.manifest, &image.target) {
            return Err(Error::WrongBase {
                delta: self.request.image.to_string(),
                wanted: image.target.raw().digest(),
                base: name.to_string(),
                actual: found.config.raw().digest(),
            });
        }
        let root = Document::Manifest(found.manifest.clone());
        Ok(Full { source: Some(found.source), root, manifest: found.manifest })
    }

    /// Whether a name in the store leads to the target with all its layers: what it leads to.
    fn has_target(&self, held: &Ref, image: &DeltaImage) -> Option<(Digest, Digest)> {
        let target = image.target.raw().digest();
        let found = held.images.iter().find(|entry| {
            let config = config_here(self.store, &entry.digest, &self.environment.limits);
            config.ok().flatten().is_some_and(|config| config.raw().digest() == target)
        })?;
        let layers = image.target.diff_ids();
        let whole = layers.iter().all(|id| self.store.layer(id).is_ok_and(|layer| layer.is_some()));
        whole.then_some((held.root.digest, found.digest))
    }

    fn balena_plan(
        &self,
        name: &Reference,
        delta: &Documents,
        image: &DeltaImage,
        full: Option<&Manifest>,
        others: &[Image],
    ) -> Result<(Job, Vec<String>), Error> {
        let stop = &self.progress.stop;
        let own = Stop::new();
        let asked = self.request.full.as_ref().unwrap_or(&self.request.image);
        let source = self.environment.source(asked, &own, self.context)?;
        let (prices, limits) = (self.request.prices, &self.environment.limits);
        let mut planner = Planner::new(self.store, source, others, limits, prices, self.request.deltas);
        let job =
            patiently(stop, &own, || planner.balena_job(&name.to_string(), &delta.manifest, image, full));
        if stop.raised() {
            return Err(Error::Cancelled);
        }
        Ok((job?, planner.notes))
    }

    /// Documents for a target whose manifest nobody knows: its config, and its layers as they are in the store.
    fn put_together(&self, delta: &Documents, image: &DeltaImage) -> Result<Documents, Error> {
        let name = self.request.image.to_string();
        let mut layers = Vec::new();
        for diff_id in image.target.diff_ids() {
            let layer = self.store.layer(diff_id)?.ok_or_else(|| Error::BadImage {
                image: name.clone(),
                reason: format!("layer {diff_id} is gone"),
            })?;
            let size = coracle_codec::ReadAt::size(&layer);
            layers.push(Descriptor::new(media_type::OCI_LAYER, *diff_id, size));
        }
        let root = made_up(image.target.raw(), &layers, &self.environment.limits)
            .map_err(|error| Error::Document { image: name.clone(), error })?;
        let Document::Manifest(manifest) = root.clone() else {
            return Err(Error::SelfCheck("a manifest became a list".into()));
        };
        let (platform, trust) = (delta.platform.clone(), delta.trust.clone());
        Ok(Documents { root, manifest, platform, config: image.target.clone(), trust })
    }
}
