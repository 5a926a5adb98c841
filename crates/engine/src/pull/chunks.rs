//! Layers that can be read in parts: what of them is here, and what the rest costs.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_codec::chunked::{Limits, Place};
use coracle_store::{Layer as Stored, Lease, Store};

use super::job::{At, Job, Layer, config_here};
use super::plan::{Chunks, Prices, Way};
use crate::Error;
use crate::chunked::{Held, HostTree, Link, Opened, Plan, open};
use crate::image::Source;
use crate::image::blob::Progress;
use crate::image::copy::in_parallel;
use crate::image::spooled::Spooled;

/// Smaller layers are fetched whole: their table of contents is a good part of them.
const MIN_LAYER: u64 = 64 << 10;

/// A layer in parts.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) plan: Plan,
    /// Layers here that it is a likely successor of.
    pub(super) hints: Vec<Stored>,
    link: Link,
}

impl Parts {
    pub(super) fn price(&self) -> Chunks {
        let (bytes, requests) = (self.plan.bytes(), self.plan.requests());
        Chunks { bytes, requests, request: self.link.request(bytes, requests) }
    }
}

/// Looks at layers.
pub(super) struct Looker<'a> {
    pub(super) store: &'a Store,
    pub(super) lease: &'a Lease,
    pub(super) source: &'a Arc<Spooled>,
    pub(super) progress: &'a Arc<Progress>,
    /// Trees of files that were named as sources.
    pub(super) trees: &'a [HostTree],
    pub(super) jobs: usize,
    pub(super) prices: Prices,
    /// What a request without content takes.
    pub(super) latency: Duration,
}

impl Looker<'_> {
    /// Finds out for each layer of a job what parts of it are missing. What cannot be read in parts is fetched otherwise.
    pub(super) fn look(&self, job: &mut Job, notes: &mut Vec<String>) -> Result<(), Error> {
        let limits = Limits::default();
        let wanted: Vec<usize> =
            (0..job.layers.len()).filter(|&number| self.pays(job, number, &limits)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let layers = self.layers(job)?;
        // Without old layers next to nothing is here, and a layer that comes whole can be gone on with after a break.
        if layers.is_empty() && self.trees.is_empty() {
            return Ok(());
        }
        let found = Mutex::new(Vec::new());
        in_parallel(&wanted, self.jobs, &self.progress.stop, |&number| {
            let parts = self.parts(&job.layers[number], &layers, &limits);
            found.lock().unwrap_or_else(PoisonError::into_inner).push((number, parts));
            Ok(())
        })?;
        for (number, parts) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            match parts {
                Ok(parts) => {
                    if let Some(parts) = &parts {
                        job.layers[number].tar.get_or_insert(parts.plan.tar());
                    }
                    job.layers[number].chunks = parts.map(Arc::new);
                }
                Err(error) if super::make::is_ours(&error) => return Err(error),
                Err(error) => {
                    let number = job.layers[number].number;
                    notes.push(format!("layer {number} cannot be read in parts: {error}"));
                }
            }
        }
        Ok(())
    }

    /// Whether it may be cheaper to ask for the table of contents of a layer.
    fn pays(&self, job: &Job, number: usize, limits: &Limits) -> bool {
        let layer = &job.layers[number];
        let Ok(Some(place)) = Place::of(&layer.blob, limits) else { return false };
        let documents = place.documents();
        let cheapest = match job.plan.ways[number] {
            Way::Delta(at) => job.deltas[at].contents[number].as_ref().map_or(0, |content| content.blob.size),
            Way::Full => layer.blob.size,
            Way::Have | Way::Chunks => 0,
        };
        // All that is fetched already, and half of a layer that an earlier run left, is nearer than any part.
        layer.at == At::Away
            && layer.blob.size >= MIN_LAYER
            && documents.end - documents.start + 2 * self.prices.request < cheapest
            && self.source.kept(&layer.blob.digest) < layer.blob.size / 2
    }

    fn parts(&self, layer: &Layer, layers: &[Stored], limits: &Limits) -> Result<Option<Parts>, Error> {
        let source: &dyn Source = self.source.as_ref();
        // eStargz has headers and contents in the same members: all of it is needed whatever is here.
        let documents = match Place::of(&layer.blob, limits) {
            Ok(Some(place)) if place.toc.is_some() => open(source, &layer.blob, true, limits)?,
            _ => return Ok(None),
        };
        let documents = match documents {
            Opened::Documents(documents) => documents,
            Opened::Whole(stream) => {
                self.source.expect(&layer.blob.digest, stream);
                return Ok(None);
            }
            Opened::Plain => return Ok(None),
        };
        let Some(contents) = documents.layer else { return Ok(None) };
        let held = Held::find(self.store, layers, self.trees, &contents.toc)?;
        let (took, bytes) = documents.took;
        let link = Link::to(source, self.latency, took, bytes);
        let hints = layers.iter().take(8).cloned().collect();
        let plan = Plan::new(&documents.place, contents, held, &link, limits);
        let plan = plan.filter(|plan| plan.bytes() < layer.blob.size / 10 * 9);
        Ok(plan.map(|plan| Parts { plan, hints, link }))
    }

    /// The layers of the images that are here, those of the same repository first; kept until the work is done.
    fn layers(&self, job: &Job) -> Result<Vec<Stored>, Error> {
        let (refs, _) = self.store.readable_refs()?;
        let repository = job.name.rsplit_once([':', '@']).map_or(job.name.as_str(), |(name, _)| name);
        let mut refs: Vec<_> = refs.into_iter().collect();
        refs.sort_by_key(|entry| {
            (entry.name.repository().to_string() != repository, std::cmp::Reverse(entry.updated))
        });
        let (mut seen, mut layers) = (HashSet::new(), Vec::new());
        for image in refs.iter().flat_map(|entry| &entry.images) {
            let limits = coracle_codec::oci::Limits::default();
            let Ok(Some(config)) = config_here(self.store, &image.digest, &limits) else { continue };
            // Upper layers change most often.
            for diff_id in config.diff_ids().iter().rev() {
                if seen.insert(*diff_id)
                    && self.lease.keep_layer(diff_id)?
                    && let Ok(Some(layer)) = self.store.layer(diff_id)
                {
                    layers.push(layer);
                }
            }
        }
        Ok(layers)
    }
}
