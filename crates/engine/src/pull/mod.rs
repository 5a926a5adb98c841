//! Pulling images into the store (`docs/pull.md`): what is here stays, deltas make what they can, the rest is fetched
//! whole, and the name leads to the image only when all of it is there.
//!
//! | module | what it does |
//! |---|---|
//! | `chunks` | what of a layer is here already, if it can be read in parts |
//! | `discover` | asks what deltas there are |
//! | `job` | what it takes to have the image, images on the way included |
//! | [`plan`](mod@plan) | the cheapest way to each layer |
//! | `make` | does what the plan says |
//! | `elsewhere` | other places than the store that it goes to |
//! | `part` | a part of its files, into a tree |
//! | `balena` | delta images of balenaEngine, which lead to another image |
//! | [`platforms`] | an image for all platforms |
//! | [`update`] | all tracked images |

mod balena;
mod chunks;
mod discover;
mod elsewhere;
mod job;
mod make;
mod part;
pub mod plan;
pub mod platforms;
pub mod update;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coracle_codec::artifact::{Dialect, Payload};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{
    Descriptor, Document, ImageConfig, Manifest, Platform, Reference, Verified, Version,
};
use coracle_codec::{native, tardiff};
use coracle_store::{FsckOptions, Lease, Ref, Store};

use crate::artifact::layers::Image;
use crate::image::blob::Progress;
use crate::image::bundle::Bundle;
use crate::image::copy::{self, choose, watched, working};
use crate::image::spooled::Spooled;
use crate::image::stop::Stop;
use crate::image::{Environment, ImageName, Source, Transport, config_of};
use crate::subset::Subset;
use crate::trust::{Case, Subject, Verdict};
use crate::{Context, Error};

use chunks::Looker;
use discover::patiently;
use elsewhere::There;
use job::{Job, Planner, Route};
use make::Work;
use plan::{Prices, Way};

/// What to pull.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image.
    pub image: ImageName,
    /// What it is read from instead: a layout or an archive with deltas to it, and maybe with the image.
    pub bundle: Option<ImageName>,
    /// Where updates of it come from, if not from there.
    pub origin: Option<ImageName>,
    /// Its name in the store; by default the name that it has in its registry.
    pub name: Option<Reference>,
    /// Where layers and sources of deltas may be besides the store.
    pub sources: Vec<ImageName>,
    /// Trees of files on this machine in which contents of layers that are read in parts may be.
    pub trees: Vec<PathBuf>,
    /// Of an index the image for this platform; by default for this machine.
    pub platform: Option<Platform>,
    /// Where the image goes instead of the store, in which it is only made then.
    pub to: Option<ImageName>,
    /// Whether it stays in the store although it goes somewhere else. One whose name is in the store stays there.
    pub keep: bool,
    /// Whether the store is there for this place alone: its files may be files of the place, and changed there, so that
    /// damage is looked for first; and what is not needed any more goes at once.
    pub private: bool,
    /// The image that a delta image leads to, as it is: for its manifest, and for layers that cannot be made.
    pub full: Option<ImageName>,
    /// Whether deltas are used, and layers read in parts.
    pub deltas: bool,
    /// Only make the plan.
    pub dry_run: bool,
    /// Layers at a time.
    pub jobs: NonZeroUsize,
    /// Threads for decoding native deltas.
    pub threads: NonZeroUsize,
    /// Bounds for tar-diffs; the output is that of one layer, unless the delta declares its size.
    pub limits: tardiff::Limits,
    /// Bounds for native deltas, in the same sense.
    pub native_limits: native::Limits,
    /// What things cost.
    pub prices: Prices,
}

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// What is going to be done.
    Planned(&'a Planned),
    /// A layer is in the store.
    Layer(&'a Made),
    /// A delta could not be used; its layer is fetched whole.
    FellBack(&'a FellBack),
}

/// A plan, to be shown.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// For each layer of the image how it will come.
    pub layers: Vec<PlannedLayer>,
    /// Bytes of blobs to be fetched.
    pub bytes: u64,
    /// Bytes of all layers that are not here, as a pull without deltas would fetch them.
    pub full_bytes: u64,
}

/// A layer in a plan.
#[derive(Debug, Clone)]
pub struct PlannedLayer {
    /// Its number in the manifest.
    pub number: usize,
    /// Its diff_id.
    pub diff_id: Digest,
    /// How it comes.
    pub way: Way,
    /// Bytes of its blob; 0 if nobody knows that.
    pub full_bytes: u64,
    /// Bytes to be fetched for it.
    pub bytes: u64,
    /// The delta and its dialect.
    pub delta: Option<(String, Dialect)>,
    /// The images that are made first, the nearest to the target first.
    pub through: Vec<String>,
}

/// A layer that is in the store now.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its number in the manifest.
    pub number: usize,
    /// Its diff_id.
    pub diff_id: Digest,
    /// Its blob digest.
    pub blob: Digest,
    /// Where it came from.
    pub from: From,
    /// Bytes of the content that was fetched for it.
    pub bytes: u64,
    /// Of a layer in chunks: how what stands between its contents became known.
    pub headers: Option<Headers>,
}

/// How what stands between the contents of a layer became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// It was fetched.
    Fetched,
    /// It was predicted, from the table of contents and an old layer.
    Predicted,
    /// It was predicted wrongly, and fetched then.
    Corrected,
}

/// Where a layer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// It was here, or another process made it.
    Store,
    /// From one of the other sources.
    Source,
    /// From a delta.
    Delta(Payload),
    /// From contents that were here, and ranges of its blob.
    Chunks,
    /// Fetched whole.
    Full,
}

/// A delta that could not be used.
#[derive(Debug, Clone)]
pub struct FellBack {
    /// Number of the layer.
    pub number: usize,
    /// Its diff_id.
    pub diff_id: Digest,
    /// What was to make it.
    pub delta: String,
    /// Why that failed.
    pub reason: String,
}

/// An image that is in the store.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// Its name there.
    pub name: Reference,
    /// Digest of what the name leads to: a manifest, or the index it was chosen from.
    pub root: Digest,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Digest of the config, which is the image's ID.
    pub config: Digest,
    /// Whether nothing had to be done.
    pub up_to_date: bool,
    /// The plan.
    pub planned: Planned,
    /// The layers; none after a dry run.
    pub layers: Vec<Made>,
    /// Deltas that failed.
    pub fallbacks: Vec<FellBack>,
    /// Bytes that an earlier run had fetched.
    pub resumed_bytes: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// Bytes of answers that were received.
    pub received_bytes: u64,
    /// Which part of the image there is at the destination, if it is not all of it.
    pub subset: Option<Subset>,
    /// The copy that was asked for.
    pub copied: Option<copy::Copied>,
    /// Why the image is accepted.
    pub trust: Verdict,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Pulls. Blocks, and must not be called on a thread of the runtime. `events` is called from several threads.
///
/// # Errors
/// See [`Error`]. The name in the store then leads to what it led to before; what was fetched is gone on with next time.
pub fn run(
    request: &Request,
    environment: &Environment,
    context: &Context<'_>,
    events: &(dyn Fn(&Event<'_>) + Sync),
) -> Result<Pulled, Error> {
    let before = environment.client.traffic();
    let store = Store::open_or_create(&environment.store, coracle_store::Options::default())?;
    let lease = store.lease()?;
    let (mut pulled, made) = working(context, |progress| {
        Pull { request, environment, context, progress, store: &store, lease: &lease, events }.run()
    })?;
    if let (Some(to), Some(made)) = (&request.to, &made) {
        elsewhere::put(to, made, (&store, lease), request, environment, context, &mut pulled)?;
    } else if pulled.subset.is_some() && !pulled.up_to_date && request.private {
        drop(lease);
        elsewhere::tidy(&store, None, request, environment, context, &mut pulled)?;
    }
    let after = environment.client.traffic();
    pulled.requests = after.requests - before.requests;
    pulled.received_bytes = after.received - before.received;
    Ok(pulled)
}

/// An image that is in the store, maybe without a name.
struct Ready {
    name: Reference,
    config: Verified,
    /// Whether a name leads to it.
    named: bool,
}

impl Pulled {
    /// Nothing done yet.
    fn begin(name: Reference, documents: &Documents) -> Self {
        Pulled {
            name,
            root: documents.root.digest(),
            digest: documents.manifest.digest(),
            config: documents.config.raw().digest(),
            up_to_date: false,
            planned: Planned::default(),
            layers: Vec::new(),
            fallbacks: Vec::new(),
            resumed_bytes: 0,
            requests: 0,
            received_bytes: 0,
            subset: None,
            copied: None,
            trust: documents.trust.clone(),
            notes: Vec::new(),
        }
    }
}

struct Pull<'a> {
    request: &'a Request,
    environment: &'a Environment,
    context: &'a Context<'a>,
    progress: &'a Arc<Progress>,
    store: &'a Store,
    lease: &'a Lease,
    events: &'a (dyn Fn(&Event<'_>) + Sync),
}

/// The documents of an image.
struct Documents {
    root: Document,
    manifest: Manifest,
    platform: Platform,
    config: ImageConfig,
    trust: Verdict,
}

impl Pull<'_> {
    /// The image, and what to put elsewhere, if it is not there already.
    fn run(&self) -> Result<(Pulled, Option<Ready>), Error> {
        let name = self.name()?;
        let stop = &self.progress.stop;
        let source = self.source(stop)?;
        let (begin, before) = (Instant::now(), self.environment.client.traffic().requests);
        let documents = self.documents(&source)?;
        let asked = self.environment.client.traffic().requests - before;
        let latency = begin.elapsed() / u32::try_from(asked).unwrap_or(1).max(1);
        if let Some(image) = self.delta_image(&source, &documents)? {
            return self.balena(name, source, &documents, &image);
        }
        if let Some(full) = &self.request.full {
            let reason = format!("it is no delta image, so that it does not lead to {full}");
            return Err(Error::Unsupported { image: source.name().to_owned(), reason });
        }
        // One that is damaged is written anew.
        let held = self.store.reference(&name).ok().flatten();
        let mut pulled = Pulled::begin(name, &documents);
        let named = self.named(held.as_ref());
        let here = held.as_ref().is_some_and(|held| self.is_whole(held, &documents));
        let there = self.there()?;
        pulled.subset = self.subset_of(&pulled.config)?;
        let selected = self.environment.selection.as_ref();
        let there_is = there.as_ref().is_none_or(|there| there.has(&pulled.config, selected));
        let in_parts = pulled.subset.is_some() && self.may_be_in_parts();
        pulled.up_to_date = (here || !named || in_parts) && there_is;
        if pulled.up_to_date {
            return Ok((pulled, None));
        }
        if in_parts {
            self.in_parts(&mut pulled, &source, &documents, latency)?;
            return Ok((pulled, None));
        }
        let others = self.others(there)?;
        let spooled = self.spooled(source);
        let (job, notes) = self.plan(&pulled.name, &documents, &others, &spooled, latency)?;
        pulled.notes = notes;
        if !self.make(&mut pulled, &spooled, &job, &others)? {
            return Ok((pulled, None));
        }
        let ready = self.ready(&pulled.name, &documents, held, named)?;
        Ok((pulled, Some(ready)))
    }

    /// What is in the store now, under its name if it is to have one.
    fn ready(
        &self,
        name: &Reference,
        documents: &Documents,
        held: Option<Ref>,
        named: bool,
    ) -> Result<Ready, Error> {
        if named {
            self.publish(name, documents, held)?;
        }
        Ok(Ready { name: name.clone(), config: documents.config.raw().clone(), named })
    }

    /// A source that keeps in the store what is read of it.
    fn spooled(&self, source: Arc<dyn Source>) -> Arc<Spooled> {
        let store = self.store.clone();
        Arc::new(Spooled::new(source, move |digest| store.partial(digest)))
    }

    /// Makes all layers, unless only the plan is wanted: whether it did.
    fn make(
        &self,
        pulled: &mut Pulled,
        spooled: &Arc<Spooled>,
        job: &Job,
        others: &[Image],
    ) -> Result<bool, Error> {
        pulled.planned = planned(job);
        (self.events)(&Event::Planned(&pulled.planned));
        if self.request.dry_run {
            return Ok(false);
        }
        self.check_space(job)?;
        let work = Work {
            request: self.request,
            environment: self.environment,
            progress: self.progress,
            store: self.store,
            lease: self.lease,
            source: spooled,
            others,
            events: self.events,
            fallbacks: Mutex::default(),
            resumed: AtomicU64::new(0),
        };
        pulled.layers = watched(self.context, self.progress, job.bytes(), || work.run(job, true))?;
        pulled.fallbacks = work.fallbacks.into_inner().unwrap_or_else(PoisonError::into_inner);
        pulled.resumed_bytes = work.resumed.into_inner();
        Ok(true)
    }

    /// Whether a name in the store is to lead to the image.
    fn named(&self, held: Option<&Ref>) -> bool {
        self.request.to.is_none() || self.request.keep || self.request.private || held.is_some()
    }

    /// What is where the image goes to, if it goes somewhere else.
    fn there(&self) -> Result<Option<There>, Error> {
        let Some(to) = &self.request.to else { return Ok(None) };
        There::look(to, self.request.platform.as_ref(), self.environment, &self.progress.stop, self.context)
            .map(Some)
    }

    fn remove_damaged(&self) -> Result<(), Error> {
        let options = FsckOptions { remove_damaged: true, ..FsckOptions::new(self.request.threads) };
        self.store.fsck(&options, self.context.observer)?;
        Ok(())
    }

    /// Where the image is.
    fn source(&self, stop: &Stop) -> Result<Arc<dyn Source>, Error> {
        let Some(bundle) = &self.request.bundle else {
            return self.environment.source(&self.request.image, stop, self.context);
        };
        let inner = self.environment.source(bundle, stop, self.context)?;
        let wanted = match self.request.image.transport() {
            Transport::Registry(reference) => reference.digest(),
            _ => None,
        };
        let platform = self.request.platform.as_ref().unwrap_or(&self.environment.host);
        Ok(Arc::new(Bundle::open(inner, wanted, platform, &self.environment.limits)?))
    }

    /// The name in the store.
    fn name(&self) -> Result<Reference, Error> {
        match (&self.request.name, self.request.image.transport()) {
            (Some(name), _) => Ok(name.clone()),
            (None, Transport::Registry(reference)) => Ok(reference.clone()),
            (None, _) => {
                let reason =
                    "it is not in a registry and has no name there: give it one with --name".to_owned();
                Err(Error::Unsupported { image: self.request.image.to_string(), reason })
            }
        }
    }

    fn documents(&self, source: &Arc<dyn Source>) -> Result<Documents, Error> {
        let root = source.root()?;
        let wanted = self.request.platform.as_ref().unwrap_or(&self.environment.host);
        let limits = &self.environment.limits;
        let (document, platform) = match &root {
            // One that is here need not be fetched again.
            Document::Index(index) => match index.choose(wanted).and_then(|entry| self.here(entry)) {
                Some(manifest) => {
                    let platform = index.choose(wanted).and_then(|entry| entry.platform.clone());
                    (Document::Manifest(manifest), platform.unwrap_or_else(|| wanted.clone()))
                }
                None => choose(source.as_ref(), root.clone(), wanted, limits)?,
            },
            Document::Manifest(_) => (root.clone(), wanted.clone()),
        };
        let Document::Manifest(manifest) = document else {
            let reason = "it is a list of images; choose one with --platform".to_owned();
            return Err(Error::BadImage { image: source.name().to_owned(), reason });
        };
        if !manifest.is_image() {
            let kind = manifest.artifact_type().unwrap_or(&manifest.config().media_type);
            let reason = format!("it is no image but an artifact ({kind})");
            return Err(Error::Unsupported { image: source.name().to_owned(), reason });
        }
        // Before anything else of the image is read, and also if it is here: the policy may be another one today.
        let trust = self.trust(source.as_ref(), &manifest)?;
        let config = match self.config_here(&manifest) {
            Some(config) => config,
            None => config_of(source.as_ref(), &manifest, limits)?,
        };
        Ok(Documents { root, manifest, platform, config, trust })
    }

    /// Whether the image is accepted, by the name under which it will be asked for again.
    fn trust(&self, source: &dyn Source, manifest: &Manifest) -> Result<Verdict, Error> {
        let subject = Subject::of(self.request.origin.as_ref().unwrap_or(&self.request.image));
        let limits = &self.environment.limits;
        let case = Case { subject: &subject, manifest: manifest.raw(), source, artifact: None, limits };
        self.environment.trust.judge(&case)
    }

    fn here(&self, entry: &Descriptor) -> Option<Manifest> {
        let raw = self.store.document(&entry.digest).ok().flatten()?;
        match Document::parse(raw, Some(&entry.media_type), &self.environment.limits) {
            Ok(Document::Manifest(manifest)) => Some(manifest),
            _ => None,
        }
    }

    fn config_here(&self, manifest: &Manifest) -> Option<ImageConfig> {
        let raw: Verified = self.store.document(&manifest.config().digest).ok().flatten()?;
        let config = ImageConfig::parse(raw, &self.environment.limits).ok()?;
        (config.diff_ids().len() == manifest.layers().len()).then_some(config)
    }

    /// Whether the store has the image under its name.
    fn is_whole(&self, held: &Ref, documents: &Documents) -> bool {
        held.root.digest == documents.root.digest()
            && held.images.iter().any(|image| image.digest == documents.manifest.digest())
            && [documents.root.raw(), documents.manifest.raw(), documents.config.raw()]
                .iter()
                .all(|raw| self.store.document(&raw.digest()).is_ok_and(|document| document.is_some()))
            && documents
                .config
                .diff_ids()
                .iter()
                .all(|diff_id| self.store.layer(diff_id).is_ok_and(|layer| layer.is_some()))
    }

    /// The sources besides the store, what is where the image goes to among them; and the store without damage, if others
    /// may have changed it.
    fn others(&self, there: Option<There>) -> Result<Vec<Image>, Error> {
        if self.request.private {
            self.remove_damaged()?;
        }
        let open = |name: &ImageName| {
            let platform = self.request.platform.as_ref();
            Image::open(name, platform, self.environment, &self.progress.stop, self.context)
        };
        let named = self.request.sources.iter().map(open);
        named.chain(there.and_then(There::image).map(Ok)).collect()
    }

    fn plan(
        &self,
        name: &Reference,
        documents: &Documents,
        others: &[Image],
        spooled: &Arc<Spooled>,
        latency: Duration,
    ) -> Result<(Job, Vec<String>), Error> {
        let stop = &self.progress.stop;
        let own = Stop::new();
        let source = self.source(&own)?;
        let prices = self.request.prices;
        let limits = &self.environment.limits;
        let trees = self.trees()?;
        let mut planner = Planner::new(self.store, source, others, limits, prices, self.request.deltas);
        planner.chunks = self.request.deltas.then(|| Looker {
            store: self.store,
            lease: self.lease,
            source: spooled,
            progress: self.progress,
            trees: &trees,
            jobs: self.request.jobs.get(),
            prices,
            keeps: !self.request.dry_run,
            latency,
        });
        let (manifest, config) = (&documents.manifest, &documents.config);
        let job = patiently(stop, &own, || planner.job(&name.to_string(), manifest, config));
        if stop.raised() {
            return Err(Error::Cancelled);
        }
        Ok((job?, planner.notes))
    }

    /// Fails before anything is fetched if it could not be kept.
    fn check_space(&self, job: &Job) -> Result<(), Error> {
        let (needed, free) = (job.space(), self.store.free_bytes()?);
        if needed > free {
            let path = self.store.path().to_owned();
            return Err(Error::NoSpace { path, needed, free });
        }
        Ok(())
    }

    /// Makes the name lead to the image, of which everything is there.
    fn publish(&self, name: &Reference, documents: &Documents, held: Option<Ref>) -> Result<(), Error> {
        let Documents { root, manifest, platform, config, .. } = documents;
        for raw in [config.raw(), manifest.raw(), root.raw()] {
            self.lease.put_document(raw)?;
        }
        let mut image = Descriptor::new(manifest.media_type(), manifest.digest(), manifest.raw().size());
        image.platform = Some(config.platform().cloned().unwrap_or_else(|| platform.clone()));
        // Images for other platforms stay as long as it is the same index.
        let mut images = match held {
            Some(held) if held.root.digest == root.digest() => held.images,
            _ => Vec::new(),
        };
        images.retain(|other| other.digest != image.digest);
        images.push(image);
        self.lease.set_ref(&Ref {
            name: name.clone(),
            root: Descriptor::new(root.media_type(), root.digest(), root.raw().size()),
            images,
            source: self.request.origin.as_ref().unwrap_or(&self.request.image).to_string(),
            tracked: matches!(name.version(), Version::Tag(_)),
            updated: self.environment.now,
        })?;
        Ok(())
    }
}

/// A plan as it is shown.
fn planned(job: &Job) -> Planned {
    let layers = job.layers.iter().zip(&job.plan.ways).enumerate().map(|(number, (layer, way))| {
        let deltas = match way {
            Way::Delta(at) => Some(&job.deltas[*at]),
            Way::Have | Way::Full | Way::Chunks => None,
        };
        let content = deltas.and_then(|deltas| deltas.contents[number].as_ref());
        let mut through = Vec::new();
        let mut route = deltas.map(|deltas| &deltas.route);
        while let Some(Route::Made(job)) = route {
            through.push(job.name.clone());
            route = job.used().map(|deltas| &deltas.route).next();
        }
        PlannedLayer {
            number: layer.number,
            diff_id: layer.diff_id,
            way: *way,
            full_bytes: if job.whole { layer.blob.size } else { 0 },
            bytes: match way {
                Way::Have => 0,
                Way::Full => layer.blob.size,
                Way::Chunks => layer.chunks.as_ref().map_or(0, |parts| parts.plan.bytes()),
                Way::Delta(_) => content.map_or(0, |content| content.blob.size),
            },
            delta: deltas.map(|deltas| (deltas.name.clone(), deltas.dialect)),
            through,
        }
    });
    let layers: Vec<PlannedLayer> = layers.collect();
    let away = layers.iter().filter(|layer| layer.way != Way::Have);
    let full_bytes = away.map(|layer| layer.full_bytes).fold(0, u64::saturating_add);
    Planned { layers, bytes: job.bytes(), full_bytes }
}
