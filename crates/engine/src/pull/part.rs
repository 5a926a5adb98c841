//! A part of an image, into a tree of files: of layers that can be read in parts no more is fetched than the tree gets.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_codec::digest::Digest;
use coracle_codec::oci::Document;

use super::plan::Way;
use super::{Documents, Event, FellBack, From, Made, Planned, PlannedLayer, Pull, Pulled};
use crate::Error;
use crate::chunked::HostTree;
use crate::image::copy::{Copied, Sending, watched};
use crate::image::rootfs::{Came, Parts, Place, Record, RootfsDestination, Told};
use crate::image::{Source, Transport};
use crate::subset::{Selection, Subset};

impl Pull<'_> {
    /// What of the image is to be at the destination, if not all of it.
    fn part(&self) -> Result<Option<Selection>, Error> {
        let told = self.environment.selection.clone();
        let Some(path) = self.tree() else {
            return match (told, &self.request.to) {
                (Some(told), to) if !told.is_everything() => {
                    let image = to.as_ref().unwrap_or(&self.request.image).to_string();
                    let reason = "only a tree of files (rootfs:) can hold a part of an image".to_owned();
                    Err(Error::Unsupported { image, reason })
                }
                _ => Ok(None),
            };
        };
        let there = || Record::beside(path).ok().and_then(|record| record.in_tree());
        let selection = told.or_else(|| there().map(|found| found.selection)).unwrap_or_default();
        Ok(Some(selection).filter(|selection| !selection.is_everything()))
    }

    /// The same, as it is told.
    pub(super) fn subset_of(&self, config: &Digest) -> Result<Option<Subset>, Error> {
        Ok(self.part()?.map(|part| Subset { of: *config, patterns: part.patterns() }))
    }

    /// The tree that the image goes to.
    fn tree(&self) -> Option<&Path> {
        match self.request.to.as_ref()?.transport() {
            Transport::Rootfs(path) => Some(path),
            _ => None,
        }
    }

    /// Whether a part may go right into its tree; else the whole image goes by way of the store.
    pub(super) fn may_be_in_parts(&self) -> bool {
        let request = self.request;
        !request.keep && request.deltas && request.bundle.is_none() && request.sources.is_empty()
    }

    /// Trees of files that were named as sources.
    pub(super) fn trees(&self) -> Result<Vec<HostTree>, Error> {
        let open = |path: &std::path::PathBuf| {
            HostTree::named(path).map_err(|error| Error::Open { path: path.clone(), error })
        };
        self.request.trees.iter().map(open).collect()
    }

    /// Makes the tree.
    pub(super) fn in_parts(
        &self,
        pulled: &mut Pulled,
        source: &Arc<dyn Source>,
        documents: &Documents,
        latency: Duration,
    ) -> Result<(), Error> {
        let Some((path, to)) = self.tree().zip(self.request.to.as_ref()) else { return Ok(()) };
        if self.request.dry_run {
            let reason = "what a part of it takes is known only when its tree is made".to_owned();
            return Err(Error::Unsupported { image: self.request.image.to_string(), reason });
        }
        let (manifest, config) = (&documents.manifest, &documents.config);
        for diff_id in config.diff_ids() {
            self.lease.keep_layer(diff_id)?;
        }
        let mut trees = self.trees()?;
        // What is replaced has most of it.
        if let Some(old) = Record::beside(path).ok().filter(|record| record.in_tree().is_some()) {
            trees.extend(HostTree::own(&old.tree).ok());
        }
        let told = Arc::new(Mutex::new(Told::default()));
        let spooled = self.spooled(Arc::clone(source));
        let parts = Parts {
            store: self.store.clone(),
            trees,
            source: Arc::clone(&spooled),
            latency,
            progress: Arc::clone(self.progress),
            told: Arc::clone(&told),
        };
        let environment = self.environment;
        let selection = environment.selection.as_ref();
        let (limits, archive_limits) = (environment.limits, environment.archive_limits);
        let place = Place { selection, path, limits, archive_limits, sharing: environment.sharing };
        let mut destination = RootfsDestination::create(&to.to_string(), &place)?;
        destination.read_in_parts(parts, config);
        let root = Document::Manifest(manifest.clone());
        let source = spooled as Arc<dyn Source>;
        let jobs = self.request.jobs.get();
        let sending = Sending { jobs, context: self.context, progress: self.progress };
        let total = manifest.layers().iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        let tally = watched(self.context, self.progress, total, || {
            sending.send_all(&source, &root, Box::new(destination), &limits)
        })?;
        let Told { came, fell_back } =
            std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
        let fell_back = fell_back.into_iter().map(|(number, reason)| {
            let delta = "reading it in parts".to_owned();
            FellBack { number, diff_id: config.diff_ids()[number], delta, reason }
        });
        pulled.fallbacks = fell_back.collect();
        for fell_back in &pulled.fallbacks {
            (self.events)(&Event::FellBack(fell_back));
        }
        for (number, how, bytes) in came {
            let (diff_id, blob) = (config.diff_ids()[number], &manifest.layers()[number]);
            let (from, way) = match how {
                Came::Store => (From::Store, Way::Have),
                Came::Parts => (From::Chunks, Way::Chunks),
                Came::Whole => (From::Full, Way::Full),
            };
            let full_bytes = blob.size;
            let (delta, through) = (None, Vec::new());
            let planned = PlannedLayer { number, diff_id, way, full_bytes, bytes, delta, through };
            add(&mut pulled.planned, planned);
            let made = Made { number, diff_id, blob: blob.digest, from, bytes, headers: None };
            (self.events)(&Event::Layer(&made));
            pulled.layers.push(made);
        }
        pulled.copied = Some(Copied {
            digest: config.raw().digest(),
            media_type: manifest.config().media_type.clone(),
            source_digest: manifest.digest(),
            digest_kept: false,
            notes: tally.notes.clone(),
            images: 1,
            blobs: tally,
            trust: documents.trust.clone(),
        });
        Ok(())
    }
}

fn add(planned: &mut Planned, layer: PlannedLayer) {
    planned.bytes = planned.bytes.saturating_add(layer.bytes);
    if layer.way != Way::Have {
        planned.full_bytes = planned.full_bytes.saturating_add(layer.full_bytes);
    }
    planned.layers.push(layer);
}
