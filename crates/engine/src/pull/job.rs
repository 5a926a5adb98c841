//! What it takes to have an image: its layers, the deltas that make them, and where those start from.

mod balena;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use coracle_codec::artifact::{Artifact, Dialect, LayerSource, NATIVE, Target};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, ImageConfig, LayerCompression, Limits, Manifest};
use coracle_store::Store;

use super::chunks::{Looker, Parts};
use super::discover::{Found, Pair, discover};
use super::plan::{Kind, Need, Offer, Plan, Prices, Step, Way, plan};
use crate::Error;
use crate::artifact::layers::Image;
use crate::image::{Source, config_of};

/// Artifacts that are fetched for one target, besides those that start far away.
const MAX_NEAR: usize = 4;
/// The same for those whose source is not here.
const MAX_FAR: usize = 3;
/// Images between a source that is here and the target.
const MAX_DEPTH: u32 = 3;
/// Images that are asked about on the way, all in all.
const MAX_ASKED: u32 = 8;
/// What there must be to save before more images are asked about.
const WORTH_ASKING: u64 = 256 << 10;
/// Requests for an image on the way: its manifest, its config, the delta's manifest.
const ASKING: u64 = 3;
/// Bytes of a tar for each byte of it compressed, as long as nobody says.
const USUAL_RATIO: u64 = 3;

/// A layer of an image; of several that are the same, the first.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) number: usize,
    pub(super) diff_id: Digest,
    pub(super) blob: Descriptor,
    pub(super) at: At,
    /// Bytes of its tar, if somebody says.
    pub(super) tar: Option<u64>,
    /// What of it is to be fetched if it is read in parts.
    pub(super) chunks: Option<Arc<Parts>>,
}

/// Where a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// In the store.
    Store,
    /// In the other source of this number.
    Source(usize),
    /// Neither.
    Away,
}

/// Content for a layer.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) blob: Descriptor,
    /// Bytes of the tar that it makes, if declared.
    pub(super) size: Option<u64>,
    /// The old layer up to which old files are used; `None` for all.
    pub(super) from: Option<Digest>,
}

impl Content {
    fn step(&self) -> Step {
        let kind = if self.blob.media_type == NATIVE { Kind::Native } else { Kind::TarDiff };
        Step { bytes: self.blob.size, kind }
    }
}

/// Deltas that start from one source.
#[derive(Debug)]
pub(super) struct Deltas {
    /// For messages.
    pub(super) name: String,
    pub(super) dialect: Dialect,
    pub(super) route: Route,
    /// For each layer of the job.
    pub(super) contents: Vec<Option<Content>>,
}

/// How to get to the layers that deltas start from.
#[derive(Debug)]
pub(super) enum Route {
    /// All are in the store.
    Here(Base),
    /// They are in the other source of this number.
    Import(usize),
    /// They are made first.
    Made(Box<Job>),
}

/// An image all of whose layers are in the store.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// For messages.
    pub(super) name: String,
    pub(super) diff_ids: Vec<Digest>,
}

/// An image to have.
#[derive(Debug)]
pub(super) struct Job {
    /// For messages.
    pub(super) name: String,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layer>,
    pub(super) deltas: Vec<Deltas>,
    pub(super) plan: Plan,
    /// Whether layers can be fetched whole.
    pub(super) whole: bool,
}

impl Job {
    /// Bytes that are fetched for layers, those of images on the way among them.
    pub(super) fn bytes(&self) -> u64 {
        let on_the_way = self.used().map(|deltas| match &deltas.route {
            Route::Made(job) => job.bytes(),
            Route::Here(_) | Route::Import(_) => 0,
        });
        on_the_way.fold(self.plan.bytes, u64::saturating_add)
    }

    /// The deltas that the plan uses.
    pub(super) fn used(&self) -> impl Iterator<Item = &Deltas> {
        let used: HashSet<usize> = self
            .plan
            .ways
            .iter()
            .filter_map(|way| match way {
                Way::Delta(at) => Some(*at),
                Way::Have | Way::Full | Way::Chunks => None,
            })
            .collect();
        self.deltas.iter().enumerate().filter(move |(at, _)| used.contains(at)).map(|(_, deltas)| deltas)
    }

    /// Bytes that may be needed on disk before it is over, no more than can be said for sure: what is fetched, and what
    /// comes out of it where that is known.
    pub(super) fn space(&self) -> u64 {
        let layers = self.layers.iter().zip(&self.plan.ways).map(|(layer, way)| match way {
            Way::Have => 0,
            Way::Full => layer.blob.size.max(layer.tar.unwrap_or(0)),
            // What is here is shared as a rule; what comes is kept until it is in its place.
            Way::Chunks => layer.chunks.as_ref().map_or(0, |parts| 2 * parts.plan.bytes()),
            Way::Delta(at) => {
                let number = self.layers.iter().position(|other| other.diff_id == layer.diff_id);
                let content = number.and_then(|number| self.deltas[*at].contents[number].as_ref());
                content.map_or(0, |content| content.blob.size)
            }
        });
        let on_the_way = self.used().map(|deltas| match &deltas.route {
            Route::Made(job) => job.space(),
            Route::Here(_) | Route::Import(_) => 0,
        });
        layers.chain(on_the_way).fold(0, u64::saturating_add)
    }
}

/// Finds out what it takes.
pub(super) struct Planner<'a> {
    pub(super) store: &'a Store,
    /// Where the image is. Its calls end when the look for deltas has taken too long.
    pub(super) source: Arc<dyn Source>,
    /// Other places with layers.
    pub(super) others: &'a [Image],
    pub(super) limits: &'a Limits,
    pub(super) prices: Prices,
    /// Whether to look for deltas at all.
    pub(super) deltas: bool,
    /// What could not be looked at, and why.
    pub(super) notes: Vec<String>,
    /// Looks for layers that can be read in parts.
    pub(super) chunks: Option<Looker<'a>>,
    asked: HashSet<Digest>,
    here: Option<HashMap<Digest, Base>>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        store: &'a Store,
        source: Arc<dyn Source>,
        others: &'a [Image],
        limits: &'a Limits,
        prices: Prices,
        deltas: bool,
    ) -> Self {
        let (notes, asked) = (Vec::new(), HashSet::new());
        Planner { store, source, others, limits, prices, deltas, notes, chunks: None, asked, here: None }
    }

    /// The cheapest way to an image.
    pub(super) fn job(
        &mut self,
        name: &str,
        manifest: &Manifest,
        config: &ImageConfig,
    ) -> Result<Job, Error> {
        let mut job = self.job_at(name, manifest, config, 0)?;
        if let Some(looker) = &self.chunks {
            looker.look(&mut job, &mut self.notes)?;
            self.replan(&mut job);
        }
        Ok(job)
    }

    fn job_at(
        &mut self,
        name: &str,
        manifest: &Manifest,
        config: &ImageConfig,
        depth: u32,
    ) -> Result<Job, Error> {
        self.asked.insert(manifest.digest());
        let layers = self.layers(manifest, config);
        let mut job = Job {
            name: name.to_owned(),
            config: config.clone(),
            layers,
            deltas: Vec::new(),
            plan: plan(&[], &[], &self.prices),
            whole: true,
        };
        if job.layers.iter().all(|layer| layer.at != At::Away) || !self.deltas {
            self.replan(&mut job);
            return Ok(job);
        }
        let found = discover(&self.source, &manifest.digest(), self.limits);
        self.notes.extend(found.problems.iter().cloned());
        let (near, far) = self.sorted(&found)?;
        let whole: u64 = job.layers.iter().map(|layer| layer.blob.size).fold(0, u64::saturating_add);
        let mut bases = HashSet::new();
        // Of several from one source the smallest, which comes first.
        let worthwhile = near.iter().filter(|pair| {
            pair.bytes.is_none_or(|bytes| bytes < whole)
                && pair.source_config.is_none_or(|config| bases.insert(config))
        });
        for pair in worthwhile.take(MAX_NEAR) {
            let route = match &pair.source_config {
                Some(config) => self.route_to(config)?,
                None => None,
            };
            self.offer(&mut job, manifest, pair, route);
        }
        self.offer_layers(&mut job, &found)?;
        self.replan(&mut job);
        let enough = |job: &Job, pair: &Pair| {
            let missing = job.plan.ways.contains(&Way::Full) && job.plan.cost > WORTH_ASKING;
            !missing || pair.bytes.is_none_or(|bytes| bytes >= job.plan.cost)
        };
        for pair in far.into_iter().take(MAX_FAR) {
            if depth < MAX_DEPTH && !enough(&job, &pair) {
                let route = self.far_route(&pair, depth);
                self.offer(&mut job, manifest, &pair, route);
                self.replan(&mut job);
            }
        }
        Ok(job)
    }

    /// The layers of an image, each once.
    fn layers(&self, manifest: &Manifest, config: &ImageConfig) -> Vec<Layer> {
        let mut seen = HashSet::new();
        let all = config.diff_ids().iter().zip(manifest.layers()).enumerate();
        let once = all.filter(|(_, (diff_id, _))| seen.insert(**diff_id));
        once.map(|(number, (diff_id, blob))| {
            let other = || self.others.iter().position(|other| other.config.diff_ids().contains(diff_id));
            let at = match self.store.has_layer(diff_id) {
                true => At::Store,
                false => other().map_or(At::Away, At::Source),
            };
            let tar = (blob.layer_compression() == LayerCompression::None).then_some(blob.size);
            Layer { number, diff_id: *diff_id, blob: blob.clone(), at, tar, chunks: None }
        })
        .collect()
    }

    fn replan(&self, job: &mut Job) {
        for (number, layer) in job.layers.iter_mut().enumerate() {
            let said = job.deltas.iter().find_map(|deltas| deltas.contents[number].as_ref()?.size);
            layer.tar = layer.tar.or(said);
        }
        let needs: Vec<Need> = job
            .layers
            .iter()
            .map(|layer| Need {
                have: layer.at != At::Away,
                full: layer.blob.size,
                tar: layer.tar.unwrap_or(layer.blob.size.saturating_mul(USUAL_RATIO)),
                chunks: layer.chunks.as_ref().map(|parts| parts.price()),
            })
            .collect();
        let offers: Vec<Offer> = job
            .deltas
            .iter()
            .map(|deltas| Offer {
                entry: match &deltas.route {
                    Route::Here(_) => 0,
                    Route::Import(number) => self.import_price(&self.others[*number]),
                    Route::Made(job) => job.plan.cost.max(1),
                },
                steps: deltas.contents.iter().map(|content| content.as_ref().map(Content::step)).collect(),
            })
            .collect();
        job.plan = plan(&needs, &offers, &self.prices);
    }

    /// What it costs to bring the layers of another image into the store: nothing, unless a registry has to be asked.
    fn import_price(&self, other: &Image) -> u64 {
        if other.source.repository().is_none() {
            return 0;
        }
        let layers = other.config.diff_ids().iter().zip(other.manifest.layers());
        let missing = layers.filter(|(diff_id, _)| !self.store.has_layer(diff_id));
        missing.map(|(_, layer)| layer.size.saturating_add(self.prices.request)).fold(0, u64::saturating_add)
    }

    /// Deltas whose source is here, or may be, and the others.
    fn sorted(&mut self, found: &Found) -> Result<(Vec<Pair>, Vec<Pair>), Error> {
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for pair in &found.pairs {
            let is_near = match &pair.source_config {
                None => true,
                Some(config) => self.route_to(config)?.is_some(),
            };
            if is_near { near.push(pair.clone()) } else { far.push(pair.clone()) }
        }
        Ok((near, far))
    }

    /// The way to an image with this config, if its layers are at hand.
    fn route_to(&mut self, config: &Digest) -> Result<Option<Route>, Error> {
        if let Some(base) = self.here()?.get(config) {
            return Ok(Some(Route::Here(base.clone())));
        }
        let other = self.others.iter().position(|other| other.config.raw().digest() == *config);
        Ok(other.map(Route::Import))
    }

    /// The images in the store that are whole, by config.
    fn here(&mut self) -> Result<&HashMap<Digest, Base>, Error> {
        if self.here.is_none() {
            self.here = Some(images_here(self.store, self.limits)?);
        }
        Ok(self.here.get_or_insert_default())
    }

    /// Adds the deltas of an artifact. Without a route, the artifact says what it starts from.
    fn offer(&mut self, job: &mut Job, target: &Manifest, pair: &Pair, route: Option<Route>) {
        match self.deltas_of(job, target, pair, route) {
            Ok(Some(deltas)) => job.deltas.push(deltas),
            Ok(None) => {}
            Err(error) => self.notes.push(format!("delta {} is of no use: {error}", pair.entry.digest)),
        }
    }

    fn deltas_of(
        &mut self,
        job: &Job,
        target: &Manifest,
        pair: &Pair,
        route: Option<Route>,
    ) -> Result<Option<Deltas>, Error> {
        // Somebody told what it starts from, and it is nowhere to be had.
        if route.is_none() && pair.source_config.is_some() {
            return Ok(None);
        }
        let name = self.source.name().to_owned();
        let Document::Manifest(manifest) = self.source.document(&pair.entry)? else {
            return Err(Error::BadImage {
                image: name,
                reason: "it is listed as a delta and is none".into(),
            });
        };
        let bad = |error| Error::Artifact { image: name.clone(), error: Box::new(error) };
        let artifact = Artifact::parse(&manifest).map_err(bad)?;
        let route = match route {
            Some(route) => Some(route),
            None => self.route_to(&artifact.source_config)?,
        };
        let Some(route) = route else { return Ok(None) };
        if let Some(said) = &pair.source_config
            && *said != artifact.source_config
        {
            let reason = "it starts from another image than its list says".to_owned();
            return Err(Error::BadImage { image: name, reason });
        }
        if artifact.target_manifest.digest != target.digest() {
            let reason = "it leads to another image than its list says".to_owned();
            return Err(Error::BadImage { image: name, reason });
        }
        let checked = Target::new(&artifact, target.clone(), job.config.clone()).map_err(bad)?;
        let contents = job.layers.iter().map(|layer| match &checked.layers[layer.number] {
            LayerSource::Source => None,
            LayerSource::Artifact(number) => {
                let changed = &artifact.layers[*number];
                // The layer itself is fetched as any layer.
                (changed.blob.digest != layer.blob.digest).then(|| Content {
                    blob: changed.blob.clone(),
                    size: changed.uncompressed_size,
                    from: None,
                })
            }
        });
        Ok(Some(Deltas {
            name: format!("delta {}", pair.entry.digest),
            dialect: artifact.dialect,
            route,
            contents: contents.collect(),
        }))
    }

    /// Deltas between layers, whose sources are layers of images in the store.
    fn offer_layers(&mut self, job: &mut Job, found: &Found) -> Result<(), Error> {
        if found.layers.is_empty() {
            return Ok(());
        }
        let mut bases: Vec<Base> = self.here()?.values().cloned().collect();
        bases.sort_by(|a, b| a.name.cmp(&b.name));
        for base in bases {
            let from_here = |layer: &Layer| {
                let fitting = found
                    .layers
                    .iter()
                    .filter(|delta| delta.to == layer.diff_id && base.diff_ids.contains(&delta.from));
                fitting.min_by_key(|delta| delta.blob.size).map(|delta| Content {
                    blob: delta.blob.clone(),
                    size: delta.uncompressed_size,
                    from: Some(delta.from),
                })
            };
            let contents: Vec<Option<Content>> = job.layers.iter().map(from_here).collect();
            if contents.iter().any(Option::is_some) {
                let name = format!("deltas between layers, from {}", base.name);
                job.deltas.push(Deltas {
                    name,
                    dialect: Dialect::Flatpak,
                    route: Route::Here(base),
                    contents,
                });
            }
        }
        Ok(())
    }

    /// The way to a source that is not here: its layers may be, or deltas that lead to it.
    fn far_route(&mut self, pair: &Pair, depth: u32) -> Option<Route> {
        let (source, expected) = (pair.source?, pair.source_config?);
        if self.asked.len() >= MAX_ASKED as usize || !self.asked.insert(source) {
            return None;
        }
        match self.far_image(&source, &expected) {
            Ok(Some((manifest, config))) => {
                let name = format!("image {source}");
                if config.diff_ids().iter().all(|diff_id| self.store.has_layer(diff_id)) {
                    return Some(Route::Here(Base { name, diff_ids: config.diff_ids().to_vec() }));
                }
                let mut job = self.job_at(&name, &manifest, &config, depth + 1).ok()?;
                job.plan.cost = job.plan.cost.saturating_add(ASKING * self.prices.request);
                Some(Route::Made(Box::new(job)))
            }
            Ok(None) => None,
            Err(error) => {
                self.notes.push(format!("the source of delta {} is of no use: {error}", pair.entry.digest));
                None
            }
        }
    }

    fn far_image(
        &self,
        digest: &Digest,
        expected: &Digest,
    ) -> Result<Option<(Manifest, ImageConfig)>, Error> {
        let Some(Document::Manifest(manifest)) = self.source.known(digest)? else { return Ok(None) };
        if !manifest.is_image() || manifest.config().digest != *expected {
            return Ok(None);
        }
        let config = config_of(self.source.as_ref(), &manifest, self.limits)?;
        Ok(Some((manifest, config)))
    }
}

/// The images in a store all of whose layers are there, by config. Those that cannot be read are passed over: it is not
/// them that somebody wants.
fn images_here(store: &Store, limits: &Limits) -> Result<HashMap<Digest, Base>, Error> {
    let mut here = HashMap::new();
    for reference in store.readable_refs()?.0 {
        for image in &reference.images {
            let Ok(Some(config)) = config_here(store, &image.digest, limits) else { continue };
            if config.diff_ids().iter().all(|diff_id| store.has_layer(diff_id)) {
                let base = Base { name: reference.name.to_string(), diff_ids: config.diff_ids().to_vec() };
                here.entry(config.raw().digest()).or_insert(base);
            }
        }
    }
    Ok(here)
}

/// The config of an image in the store.
pub(super) fn config_here(
    store: &Store,
    manifest: &Digest,
    limits: &Limits,
) -> Result<Option<ImageConfig>, Error> {
    let Some(raw) = store.document(manifest)? else { return Ok(None) };
    let document = |error| Error::Document { image: format!("store: {manifest}"), error };
    let Document::Manifest(manifest) = Document::parse(raw, None, limits).map_err(document)? else {
        return Ok(None);
    };
    let Some(raw) = store.document(&manifest.config().digest)? else { return Ok(None) };
    ImageConfig::parse(raw, limits).map(Some).map_err(document)
}
