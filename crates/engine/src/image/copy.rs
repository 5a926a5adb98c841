//! Copying an image, or an index with all its images, from one place to another.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_codec::digest::Digest;
use coracle_codec::observe::Stage;
use coracle_codec::oci::{Descriptor, Document, Platform, is_document};

use super::blob::{Blob, Progress};
use super::compressed::{self, Compressed};
use super::stop::Stop;
use super::{Destination, Environment, ImageName, Outcome, Source};
use crate::trust::{Subject, Verdict};
use crate::{Context, Error};

/// Bytes of all documents of one copy.
const MAX_DOCUMENTS: u64 = 256 << 20;
/// Between two looks at the observer.
const PERIOD: Duration = Duration::from_millis(40);

/// What to copy where.
#[derive(Debug, Clone)]
pub struct Request {
    /// From here.
    pub source: ImageName,
    /// To there.
    pub destination: ImageName,
    /// Of an index only the image for this platform.
    pub platform: Option<Platform>,
    /// Blobs copied at the same time.
    pub jobs: NonZeroUsize,
}

/// An image that was copied.
#[derive(Debug, Clone)]
pub struct Copied {
    /// Digest of the manifest or index as the destination has it; of the config where it keeps no manifest.
    pub digest: Digest,
    /// Media type of what has that digest.
    pub media_type: String,
    /// Digest of what the source's name leads to.
    pub source_digest: Digest,
    /// Whether the source's own manifest, with its digest, is what the destination has.
    pub digest_kept: bool,
    /// What a user should know: digests that are lost, and why; what was chosen.
    pub notes: Vec<String>,
    /// Images.
    pub images: u64,
    /// Blobs by what became of them.
    pub blobs: Tally,
    /// Why the image is accepted.
    pub trust: Verdict,
}

/// Blobs and their bytes.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Copied.
    pub copied: u64,
    /// Bytes of those.
    pub copied_bytes: u64,
    /// Were there.
    pub existed: u64,
    /// Bytes of those.
    pub existed_bytes: u64,
    /// Linked from another repository.
    pub mounted: u64,
    /// Bytes of those.
    pub mounted_bytes: u64,
    /// What the destination has to say.
    pub notes: Vec<String>,
}

/// Copies. Blocks, and must not be called on a thread of the runtime.
///
/// # Errors
/// See [`Error`]. The destination's name then leads to what it led to before; whole blobs may have been added.
pub fn run(request: &Request, environment: &Environment, context: &Context<'_>) -> Result<Copied, Error> {
    working(context, |progress| {
        if same_place(&request.source, &request.destination) {
            return Err(Error::Unsupported {
                image: request.destination.to_string(),
                reason: "it would be copied onto itself".into(),
            });
        }
        let stop = &progress.stop;
        let source = environment.source(&request.source, stop, context)?;
        let work = Work { request, environment, context, stop, progress };
        work.run(source)
    })
}

/// As [`run`], from a place that is open.
pub(crate) fn run_from(
    source: Arc<dyn Source>,
    request: &Request,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<Copied, Error> {
    working(context, |progress| {
        Work { request, environment, context, stop: &progress.stop, progress }.run(source)
    })
}

fn same_place(a: &ImageName, b: &ImageName) -> bool {
    a.transport() == b.transport()
}

struct Work<'a> {
    request: &'a Request,
    environment: &'a Environment,
    context: &'a Context<'a>,
    stop: &'a Stop,
    progress: &'a Arc<Progress>,
}

impl Work<'_> {
    fn run(&self, mut source: Arc<dyn Source>) -> Result<Copied, Error> {
        let original = source.root()?;
        let mut notes = Vec::new();
        // Asked before anything is fetched: what cannot be written need not be read.
        let destination = self.environment.destination(&self.request.destination, self.stop, self.context)?;
        let takes = destination.takes();
        let mut root = original.clone();
        if let Some(platform) = &self.request.platform {
            root = choose(source.as_ref(), root, platform, &self.environment.limits)?.0;
        } else if !takes.index && matches!(root, Document::Index(_)) {
            let host = &self.environment.host;
            let (chosen, platform) = choose(source.as_ref(), root, host, &self.environment.limits)?;
            root = chosen;
            notes.push(format!("the destination holds one image: took the one for {platform}"));
        }
        let trust = trust(self.environment, &self.request.source, source.as_ref(), &root)?;
        if let Some(reason) = source.made_up() {
            notes.push(format!("the manifest is new: {reason}"));
        }
        if takes.wants_compressed && source.made_up().is_some() && Compressed::is_due(&root) {
            let needs = compressed::Needs {
                jobs: self.request.jobs.get(),
                progress: self.progress,
                temp_dir: &self.context.temp_dir,
                limits: &self.environment.limits,
            };
            let compressed = Compressed::new(source, &root, &needs)?;
            root = compressed.root()?;
            source = Arc::new(compressed);
            notes.push("layers were compressed with gzip for the registry".into());
        }
        let tree = Tree::read(source.as_ref(), &root, &self.environment.limits)?;
        if !takes.artifacts
            && let Document::Manifest(manifest) = &root
            && !manifest.is_image()
        {
            let reason = format!("it is no image but an artifact ({})", manifest.config().media_type);
            return Err(Error::Unsupported { image: source.name().to_owned(), reason });
        }
        let images = tree.images;
        let sending =
            Sending { jobs: self.request.jobs.get(), context: self.context, progress: self.progress };
        let tally = sending.send(&source, &root, &tree, destination)?;
        notes.extend(tally.notes.iter().cloned());
        let (digest, media_type) = match (&root, takes.loses) {
            (Document::Manifest(manifest), Some(reason)) => {
                notes.push(format!("the digest {} is not kept: {reason}", root.digest()));
                (manifest.config().digest, manifest.config().media_type.clone())
            }
            _ => (root.digest(), root.media_type().to_owned()),
        };
        Ok(Copied {
            digest,
            media_type,
            source_digest: original.digest(),
            digest_kept: source.made_up().is_none() && digest == original.digest(),
            notes,
            images,
            blobs: tally,
            trust,
        })
    }
}

/// Whether the image `name` may be copied; of an index, whether all its images may.
pub(crate) fn trust(
    environment: &Environment,
    name: &ImageName,
    source: &dyn Source,
    root: &Document,
) -> Result<Verdict, Error> {
    let limits = &environment.limits;
    let below = match root {
        Document::Index(_) => Tree::read(source, root, limits)?.below,
        Document::Manifest(_) => Vec::new(),
    };
    environment.trust.judge_all(&Subject::of(name), source, root, &below, limits)
}

/// Sends all that a root leads to.
pub(crate) struct Sending<'a> {
    pub(crate) jobs: usize,
    pub(crate) context: &'a Context<'a>,
    pub(crate) progress: &'a Arc<Progress>,
}

impl Sending<'_> {
    /// Sends `root` of `source`, and all below it, and makes it visible.
    pub(crate) fn send_all(
        &self,
        source: &Arc<dyn Source>,
        root: &Document,
        destination: Box<dyn Destination>,
        limits: &coracle_codec::oci::Limits,
    ) -> Result<Tally, Error> {
        self.send_partly(source, root, destination, limits, &HashSet::new())
    }

    /// As [`Sending::send_all`], without the blobs `left`.
    pub(crate) fn send_partly(
        &self,
        source: &Arc<dyn Source>,
        root: &Document,
        destination: Box<dyn Destination>,
        limits: &coracle_codec::oci::Limits,
        left: &HashSet<Digest>,
    ) -> Result<Tally, Error> {
        let mut tree = Tree::read(source.as_ref(), root, limits)?;
        tree.blobs.retain(|(blob, _)| !left.contains(&blob.digest));
        self.send(source, root, &tree, destination)
    }

    /// Sends the blobs that `root` of `source` leads to, and no document.
    pub(crate) fn send_blobs(
        &self,
        source: &Arc<dyn Source>,
        root: &Document,
        destination: &dyn Destination,
        limits: &coracle_codec::oci::Limits,
    ) -> Result<(), Error> {
        let tree = Tree::read(source.as_ref(), root, limits)?;
        self.blobs(source, destination, &tree, self.jobs).map(|_| ())
    }

    fn send(
        &self,
        source: &Arc<dyn Source>,
        root: &Document,
        tree: &Tree,
        destination: Box<dyn Destination>,
    ) -> Result<Tally, Error> {
        destination.announce(root, &tree.below)?;
        let jobs = if destination.takes().parallel { self.jobs } else { 1 };
        let mut tally = self.blobs(source, destination.as_ref(), tree, jobs)?;
        for document in &tree.below {
            destination.put_document(document)?;
        }
        if self.progress.stop.raised() {
            return Err(Error::Cancelled);
        }
        tally.notes = destination.finish(root)?;
        Ok(tally)
    }

    fn blobs(
        &self,
        source: &Arc<dyn Source>,
        destination: &dyn Destination,
        tree: &Tree,
        jobs: usize,
    ) -> Result<Tally, Error> {
        let total: u64 = tree.blobs.iter().map(|(blob, _)| blob.size).sum();
        let tally = Mutex::new(Tally::default());
        let one = |(descriptor, what): &(Descriptor, String)| {
            let blob = Arc::new(Blob {
                source: Arc::clone(source),
                descriptor: descriptor.clone(),
                what: what.clone(),
                progress: Arc::clone(self.progress),
            });
            let outcome = match destination.put_blob(&blob) {
                // Another mirror, or the registry itself, may have the right bytes.
                Err(Error::WrongBlob { .. }) if jobs > 1 && source.distrust(descriptor) => {
                    destination.put_blob(&blob)
                }
                other => other,
            };
            let outcome = outcome.map_err(|error| match error {
                Error::Registry { context, error } => {
                    Error::Registry { context: format!("{context}: {what}"), error }
                }
                other => other,
            })?;
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            let (count, bytes) = match outcome {
                Outcome::Copied => {
                    let tally = &mut *tally;
                    (&mut tally.copied, &mut tally.copied_bytes)
                }
                Outcome::Existed => {
                    let tally = &mut *tally;
                    (&mut tally.existed, &mut tally.existed_bytes)
                }
                Outcome::Mounted => {
                    let tally = &mut *tally;
                    (&mut tally.mounted, &mut tally.mounted_bytes)
                }
            };
            *count += 1;
            *bytes += descriptor.size;
            Ok(())
        };
        watched(self.context, self.progress, total, || {
            in_parallel(&tree.blobs, jobs, &self.progress.stop, one)
        })?;
        Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The image of an index for `platform`, and what it says it is for. A manifest is itself.
pub(crate) fn choose(
    source: &dyn Source,
    mut document: Document,
    platform: &Platform,
    limits: &coracle_codec::oci::Limits,
) -> Result<(Document, Platform), Error> {
    let mut found = platform.clone();
    for _ in 0..=limits.nesting {
        let Document::Index(index) = &document else { return Ok((document, found)) };
        let Some(entry) = index.choose(platform) else {
            let has: Vec<String> = index
                .manifests()
                .iter()
                .filter_map(|entry| Some(entry.platform.as_ref()?.to_string()))
                .collect();
            return Err(Error::NoPlatform {
                image: source.name().to_owned(),
                wanted: Box::new(platform.clone()),
                has,
            });
        };
        found = entry.platform.clone().unwrap_or(found);
        document = source.document(entry)?;
    }
    Err(too_nested(source, limits.nesting))
}

fn too_nested(source: &dyn Source, nesting: u32) -> Error {
    let reason = format!("indexes lie in each other more than {nesting} deep");
    Error::BadImage { image: source.name().to_owned(), reason }
}

/// Everything that a root leads to.
struct Tree {
    /// Documents below the root; each after all that it lists.
    below: Vec<Document>,
    /// Blobs with names for messages, each once, in the order of the manifests: config, then layers.
    blobs: Vec<(Descriptor, String)>,
    images: u64,
}

impl Tree {
    fn read(
        source: &dyn Source,
        root: &Document,
        limits: &coracle_codec::oci::Limits,
    ) -> Result<Self, Error> {
        let mut tree = Tree { below: Vec::new(), blobs: Vec::new(), images: 0 };
        let mut seen = HashMap::new();
        let mut bytes = 0;
        tree.add(source, root, limits, 0, &mut seen, &mut bytes)?;
        Ok(tree)
    }

    fn add(
        &mut self,
        source: &dyn Source,
        document: &Document,
        limits: &coracle_codec::oci::Limits,
        depth: u32,
        seen: &mut HashMap<Digest, u64>,
        bytes: &mut u64,
    ) -> Result<(), Error> {
        *bytes += document.raw().size();
        let bad = |reason: String| Error::BadImage { image: source.name().to_owned(), reason };
        if *bytes > MAX_DOCUMENTS {
            return Err(bad(format!("its manifests have more than {MAX_DOCUMENTS} bytes")));
        }
        // Whether it is new; the same digest with another size is a lie either way.
        let first = |seen: &mut HashMap<Digest, u64>, descriptor: &Descriptor| {
            let (digest, size) = (descriptor.digest, descriptor.size);
            match seen.insert(digest, size) {
                None => Ok(true),
                Some(other) if other == size => Ok(false),
                Some(other) => {
                    Err(bad(format!("{digest} has {size} bytes in one place and {other} in another")))
                }
            }
        };
        match document {
            Document::Manifest(manifest) => {
                self.images += 1;
                let layers =
                    manifest.layers().iter().enumerate().map(|(i, layer)| (layer, format!("layer {i}")));
                for (descriptor, what) in
                    std::iter::once((manifest.config(), "config".to_owned())).chain(layers)
                {
                    if first(seen, descriptor)? {
                        self.blobs.push((descriptor.clone(), what));
                    }
                }
            }
            Document::Index(index) => {
                if depth >= limits.nesting {
                    return Err(too_nested(source, limits.nesting));
                }
                for (i, entry) in index.manifests().iter().enumerate() {
                    if !is_document(&entry.media_type) {
                        let reason =
                            format!("entry {i} of its index is of an unknown kind: {:?}", entry.media_type);
                        return Err(Error::Unsupported { image: source.name().to_owned(), reason });
                    }
                    if first(seen, entry)? {
                        let below = source.document(entry)?;
                        self.add(source, &below, limits, depth + 1, seen, bytes)?;
                        self.below.push(below);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Runs `work` while a second thread shows progress to the observer and asks it whether to stop.
pub(crate) fn watched<R>(
    context: &Context<'_>,
    progress: &Progress,
    total: u64,
    work: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Error> {
    let (over, ended) = std::sync::mpsc::channel::<()>();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                if context.observer.cancelled() {
                    progress.stop.raise();
                }
                if total > 0 {
                    context.observer.progress(
                        Stage::Copy,
                        progress.done.load(Ordering::Relaxed).min(total),
                        total,
                    );
                }
                // Ends when the other side is dropped.
                if ended.recv_timeout(PERIOD) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        let result = work();
        drop(over);
        result
    });
    // Whatever broke because of it: the reason is that somebody asked to stop.
    if result.is_err() && context.observer.cancelled() { Err(Error::Cancelled) } else { result }
}

/// Does `work` while a second thread asks the observer whether to stop. What it gets counts, and can be stopped.
pub(crate) fn working<R>(
    context: &Context<'_>,
    work: impl FnOnce(&Arc<Progress>) -> Result<R, Error>,
) -> Result<R, Error> {
    let progress = Arc::new(Progress { done: AtomicU64::new(0), stop: Stop::new() });
    watched(context, &progress, 0, || work(&progress))
}

/// As [`working`], for work that counts nothing.
pub(crate) fn stoppable<R>(
    context: &Context<'_>,
    work: impl FnOnce(&Stop) -> Result<R, Error>,
) -> Result<R, Error> {
    working(context, |progress| work(&progress.stop))
}

/// Does `work` for each item, `jobs` at a time, in order of their beginning. The first error stops the rest and is
/// returned.
pub(crate) fn in_parallel<T: Sync>(
    items: &[T],
    jobs: usize,
    stop: &Stop,
    work: impl Fn(&T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let first = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while !stop.raised()
                    && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = work(item) {
                        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                        // Others fail because they are stopped; that is not the reason.
                        if first.is_none() {
                            *first = Some(error);
                        }
                        drop(first);
                        stop.raise();
                    }
                }
            });
        }
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None if stop.raised() => Err(Error::Cancelled),
        None => Ok(()),
    }
}
