//! Layers that can be read in parts: what of them is here, and what the rest costs.

use std::collections::HashSet;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_codec::chunked::{Family, Layer as Contents, Limits, Place};
use coracle_codec::digest::Digest;
use coracle_codec::oci::Descriptor;
use coracle_store::{Layer as Stored, Lease, Store};

use super::job::{At, Job, Layer, config_here};
use super::plan::{Chunks, Prices, Way};
use crate::Error;
use crate::chunked::{Framing, Held, HostTree, Kept, Link, Opened, Parted, Plan, framing, open, predict};
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
    place: Place,
    /// Whether what stands between contents was not fetched but predicted.
    pub(super) predicted: bool,
    /// What was fetched of it.
    kept: Option<Kept>,
}

/// What a layer that is not as predicted is made of.
pub(super) enum Corrected {
    /// The same contents, with what stands between them as the layer has it.
    Plan(Box<Plan>),
    /// The source sends all of it instead.
    Whole(Box<dyn Read + Send>),
}

impl Parts {
    /// The blob, whose ranges are fetched once.
    pub(super) fn parted<'a>(&'a self, source: &'a dyn Source, blob: &'a Descriptor) -> Parted<'a> {
        Parted { source, blob, kept: self.kept.as_ref() }
    }

    /// Fetches what was predicted, and plans again.
    pub(super) fn correct(&self, parted: &Parted<'_>) -> Result<Corrected, Error> {
        let limits = Limits::default();
        let toc = &self.plan.layer().toc;
        let layer = match framing(parted, &self.place, toc, &limits)? {
            Framing::Layer(layer) => layer,
            // What is missing of its frames is all the rest.
            Framing::None => Contents::of_frames(toc.clone(), &self.place),
            Framing::Whole(stream) => return Ok(Corrected::Whole(stream)),
        };
        let held = Arc::clone(self.plan.held());
        let plan = Plan::new(&self.place, layer, held, &self.link, parted, &limits);
        // Contents that do not follow each other were no plan before.
        let plan = plan.ok_or_else(|| Error::BadImage {
            image: parted.source.name().to_owned(),
            reason: format!("the parts of the layer {} do not follow each other", parted.blob.digest),
        })?;
        Ok(Corrected::Plan(Box::new(plan)))
    }

    /// The digest of the table of contents, if that leaves no choice what the tar is.
    pub(super) fn pins(&self) -> Option<Digest> {
        self.plan.layer().toc.split.is_some().then_some(self.place.digest)
    }

    /// From here on a run that is cut off can be gone on with.
    pub(super) fn begin(&self) {
        if let Some(kept) = &self.kept {
            kept.is_worth_keeping();
        }
    }

    /// Throws away what was fetched: the layer is there, or it is of no use. How much of it an earlier run had fetched.
    pub(super) fn forget(&self) -> u64 {
        let Some(kept) = &self.kept else { return 0 };
        kept.discard();
        kept.resumed()
    }

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
    /// Whether what is fetched is kept: not for a plan alone.
    pub(super) keeps: bool,
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
        let (blob, digest) = (&layer.blob, &layer.blob.digest);
        let Ok(Some(place)) = Place::of(blob, limits) else { return Ok(None) };
        // What is known to make another tar need not be tried.
        if self.store.made_of_toc(&place.digest)?.is_some_and(|made| made != layer.diff_id) {
            return Err(Error::BadImage {
                image: source.name().to_owned(),
                reason: format!("the table of contents of {digest} makes another layer than the config says"),
            });
        }
        let path = self.store.partial_ranges(digest);
        let kept = if self.keeps { Kept::open(&path, blob.size) } else { Ok(None) };
        let kept = kept.map_err(|error| Error::Write { path, error })?;
        let parted = Parted { source, blob, kept: kept.as_ref() };
        let documents = match open(&parted, limits)? {
            Opened::Documents(documents) => documents,
            Opened::Whole(stream) => {
                self.source.expect(digest, stream);
                return Ok(None);
            }
            Opened::Plain => return Ok(None),
        };
        let toc = &documents.toc;
        let mut predicted = predict(toc, layers, limits);
        if documents.place.family == Family::Stargz {
            // Its headers share members with contents: what is not predicted comes whole.
            let end = documents.end.as_deref().unwrap_or_default();
            predicted = predicted.and_then(|layer| layer.with_stargz_end(end, limits));
        }
        let (contents, predicted) = match predicted {
            Some(layer) => (layer, true),
            None => match framing(&parted, &documents.place, toc, limits)? {
                Framing::Layer(layer) => (layer, false),
                Framing::None => return Ok(None),
                Framing::Whole(stream) => {
                    self.source.expect(digest, stream);
                    return Ok(None);
                }
            },
        };
        let held = Arc::new(Held::find(self.store, layers, self.trees, &contents.toc)?);
        let (took, bytes) = documents.took;
        let link = Link::to(source, self.latency, took, bytes);
        let hints = layers.iter().take(8).cloned().collect();
        let place = documents.place;
        let plan = Plan::new(&place, contents, held, &link, &parted, limits);
        let plan = plan.filter(|plan| plan.bytes() < layer.blob.size / 10 * 9);
        Ok(plan.map(|plan| Parts { plan, hints, link, place, predicted, kept }))
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
