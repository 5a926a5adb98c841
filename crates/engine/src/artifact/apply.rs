//! Applying a delta: from the source image, or its files, to the target image.

pub(crate) mod find;
mod rebuild;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::ReadAt;
use coracle_codec::artifact::{Dialect, Payload};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, LayerCompression, Platform, Unverified, media_type};
use coracle_codec::{native, tardiff};
use serde_json::{Value, json};

use super::assembled::Assembled;
use super::held::Held;
use super::layers::{Image, Reading};
use super::making::OldLayers;
use crate::image::blob::{Blob, Progress};
use crate::image::copy::{Sending, in_parallel, watched, working};
use crate::image::stop::Stop;
use crate::image::{Destination, Environment, ImageName, Source, Transport};
use crate::source::TreeSource;
use crate::trust::{Case, Subject, Verdict};
use crate::{Context, Error};

use find::{Content, Finder, Wanted};
use rebuild::{Old, Rebuilder};

/// What to apply to what.
#[derive(Debug, Clone)]
pub struct Request {
    /// A delta artifact, a list of them, or the target image itself: then its deltas are looked for beside it.
    pub delta: ImageName,
    /// What is there.
    pub base: Base,
    /// Where the target goes.
    pub destination: ImageName,
    /// How layers that are made anew are compressed; by default not, but gzip for a registry.
    pub compression: Option<LayerCompression>,
    /// Of lists the delta, or image, for this platform.
    pub platform: Option<Platform>,
    /// Write an image without the layers that source and target have in common, where the source does not have them as
    /// archives. Only whoever has them can use it.
    pub partial: bool,
    /// Layers at a time.
    pub jobs: NonZeroUsize,
    /// Bounds for tar-diffs; the output is that of one layer, unless the delta declares its size.
    pub limits: tardiff::Limits,
    /// Bounds for native deltas, in the same sense.
    pub native_limits: native::Limits,
}

/// What a delta is applied to.
#[derive(Debug, Clone)]
pub enum Base {
    /// An image.
    Image(ImageName),
    /// The files of one, extracted.
    Tree(PathBuf),
    /// The files of one, in a repository of ostree; by the name of a ref, or found by the delta's source.
    Ostree(PathBuf, Option<String>),
}

impl std::fmt::Display for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Base::Image(name) => name.fmt(f),
            Base::Tree(path) | Base::Ostree(path, _) => path.display().fmt(f),
        }
    }
}

/// A delta that was applied.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Digest of the manifest at the destination; of the config where it keeps no manifest.
    pub digest: Digest,
    /// Digest of the target's own manifest; `None` if a delta image does not tell.
    pub target: Option<Digest>,
    /// Whether both are the same.
    pub digest_kept: bool,
    /// Digest of the config, which is the image's ID. Always the target's own.
    pub config: Digest,
    /// Dialect of the delta.
    pub dialect: Dialect,
    /// Digest of the artifact's manifest.
    pub delta: Digest,
    /// The layers of the target.
    pub layers: Vec<Layer>,
    /// Bytes of content that the delta gave.
    pub delta_bytes: u64,
    /// Bytes of layers that were rebuilt, uncompressed.
    pub rebuilt_bytes: u64,
    /// Why the target is accepted.
    pub trust: Verdict,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// What became of a layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its diff_id.
    pub diff_id: Digest,
    /// Its blob digest in the target.
    pub original: Digest,
    /// Its blob digest at the destination.
    pub digest: Digest,
    /// Where it came from.
    pub how: How,
}

/// Where a layer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The source has it.
    Source,
    /// A delta made it.
    Delta(Payload),
    /// The artifact holds it whole.
    Whole,
    /// The target was there itself, and the layer fetched from it.
    Fetched,
    /// It was left out.
    Left,
}

/// Applies a delta. Blocks, and must not be called on a thread of the runtime.
///
/// # Errors
/// See [`Error`]. The destination's name then leads to what it led to before.
pub fn run(request: &Request, environment: &Environment, context: &Context<'_>) -> Result<Applied, Error> {
    working(context, |progress| Work { request, environment, context, stop: &progress.stop, progress }.run())
}

struct Work<'a> {
    request: &'a Request,
    environment: &'a Environment,
    context: &'a Context<'a>,
    stop: &'a Stop,
    progress: &'a Arc<Progress>,
}

/// A layer that is ready to be sent.
struct Ready {
    descriptor: Descriptor,
    how: How,
    /// Where its blob is, unless it was written to the destination or left out.
    from: Option<From>,
}

enum From {
    Source(Arc<dyn Source>),
    Held(Held),
}

impl Work<'_> {
    fn run(&self) -> Result<Applied, Error> {
        let base = match &self.request.base {
            Base::Image(name) => Some(Image::open(
                name,
                self.request.platform.as_ref(),
                self.environment,
                self.stop,
                self.context,
            )?),
            Base::Tree(_) | Base::Ostree(..) => None,
        };
        let finder = Finder {
            delta: &self.request.delta,
            base: &self.request.base,
            platform: self.request.platform.as_ref(),
            environment: self.environment,
            context: self.context,
            stop: self.stop,
        };
        let wanted = finder.find(base.as_ref())?;
        let trust = self.trust(&wanted)?;
        self.check_layers(&wanted, base.as_ref())?;
        // Not before: a folder would be made for a delta that cannot be applied.
        let destination = self.environment.destination(&self.request.destination, self.stop, self.context)?;
        let old = self.old(&wanted, base)?;
        let ready = self.layers(&wanted, &old, destination.as_ref())?;
        self.finish(&wanted, ready, destination, trust)
    }

    /// Whether the target is accepted: by its own name if that was given, else as an image of the place where the delta is.
    /// Signatures that the delta carries are as good as others.
    fn trust(&self, wanted: &Wanted) -> Result<Verdict, Error> {
        let manifest = wanted.target.manifest.raw();
        let subject = match wanted.beside {
            true => Subject::of(&self.request.delta),
            false => Subject::target_of(&self.request.delta, manifest.digest()),
        };
        let source = wanted.source.as_ref();
        let (artifact, limits) = (wanted.artifact.as_ref(), &self.environment.limits);
        self.environment.trust.judge(&Case { subject: &subject, manifest, source, artifact, limits })
    }

    /// Fails early if a layer can come from nowhere.
    fn check_layers(&self, wanted: &Wanted, base: Option<&Image>) -> Result<(), Error> {
        for (number, content) in wanted.contents.iter().enumerate() {
            let diff_id = wanted.target.config.diff_ids()[number];
            let in_base = base.is_some_and(|base| base.config.diff_ids().contains(&diff_id));
            if matches!(content, Content::Source) && !in_base && !self.request.partial {
                return Err(Error::MissingLayer {
                    delta: wanted.name.clone(),
                    layer: number,
                    diff_id,
                    base: self.request.base.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Opens old files: all old layers are unpacked if a delta may open any file of them.
    fn old(&self, wanted: &Wanted, base: Option<Image>) -> Result<Old, Error> {
        let Some(base) = base else {
            let open = |path: &PathBuf, error| Error::Open { path: path.clone(), error };
            return match &self.request.base {
                Base::Tree(path) => TreeSource::open(path).map(Old::Tree).map_err(|e| open(path, e)),
                Base::Ostree(repo, name) => {
                    let wanted = wanted.source_config.as_ref();
                    super::ostree::Tree::open(repo, name.as_deref(), wanted).map(Old::Ostree)
                }
                Base::Image(_) => Err(Error::SelfCheck("an image without layers".into())),
            };
        };
        let needed = wanted.contents.iter().any(|content| matches!(content, Content::Delta { .. }));
        let all: Vec<usize> = if needed { (0..base.config.diff_ids().len()).collect() } else { Vec::new() };
        let total = all.iter().map(|&number| base.manifest.layers()[number].size).sum();
        let reading = self.reading();
        let layers = watched(self.context, self.progress, total, || base.unpack(&all, &reading))?;
        self.progress.done.store(0, Ordering::Relaxed);
        let archives = layers.in_order(base.config.diff_ids());
        let old = base.config.diff_ids().iter().zip(archives);
        let old = old.map(|(diff_id, archive)| (*diff_id, archive.path.clone(), archive as Arc<dyn ReadAt>));
        let layers = match wanted.dialect {
            Dialect::Balena => OldLayers::bare(old.collect()),
            _ => OldLayers::new(old.collect(), self.context.observer)?,
        };
        Ok(Old::Image { image: Box::new(base), layers })
    }

    fn reading(&self) -> Reading<'_> {
        Reading {
            jobs: self.request.jobs.get(),
            progress: self.progress,
            temp_dir: &self.context.temp_dir,
            environment: self.environment,
        }
    }

    fn compression(&self) -> LayerCompression {
        let registry = matches!(self.request.destination.transport(), Transport::Registry(_));
        let default = if registry { LayerCompression::Gzip } else { LayerCompression::None };
        self.request.compression.unwrap_or(default)
    }

    /// Makes or finds all layers.
    fn layers(&self, wanted: &Wanted, old: &Old, destination: &dyn Destination) -> Result<Vec<Ready>, Error> {
        let rebuilder = Rebuilder { work: self, wanted, old, compression: self.compression(), destination };
        let total = wanted.contents.iter().map(Content::bytes).sum();
        let ready = Mutex::new(Vec::new());
        // The same layer twice in an image is made once.
        let mut seen = HashSet::new();
        let once: Vec<usize> = (0..wanted.contents.len())
            .filter(|&number| seen.insert(wanted.target.manifest.layers()[number].digest))
            .collect();
        watched(self.context, self.progress, total, || {
            in_parallel(&once, self.request.jobs.get(), self.stop, |&number| {
                let made = rebuilder.layer(number)?;
                ready.lock().unwrap_or_else(PoisonError::into_inner).push((number, made));
                Ok(())
            })
        })?;
        self.progress.done.store(0, Ordering::Relaxed);
        let mut ready = ready.into_inner().unwrap_or_else(PoisonError::into_inner);
        ready.sort_by_key(|(number, _)| *number);
        let layers = wanted.target.manifest.layers();
        let mut all: Vec<Ready> = Vec::with_capacity(layers.len());
        let mut ready = ready.into_iter().peekable();
        for (number, layer) in layers.iter().enumerate() {
            if let Some((_, made)) = ready.next_if(|(made, _)| *made == number) {
                all.push(made);
            } else if let Some(first) = layers[..number].iter().position(|other| other.digest == layer.digest)
            {
                let (descriptor, how) = (all[first].descriptor.clone(), all[first].how);
                all.push(Ready { descriptor, how, from: None });
            }
        }
        Ok(all)
    }

    /// Puts the documents around the layers and makes the image visible.
    fn finish(
        &self,
        wanted: &Wanted,
        ready: Vec<Ready>,
        destination: Box<dyn Destination>,
        trust: Verdict,
    ) -> Result<Applied, Error> {
        let target = &wanted.target;
        let kept = ready
            .iter()
            .zip(target.manifest.layers())
            .all(|(ready, layer)| ready.descriptor.digest == layer.digest);
        let root =
            if kept { Document::Manifest(target.manifest.clone()) } else { self.rewritten(wanted, &ready)? };
        let mut source = Assembled::new(&wanted.name, root.clone(), Arc::clone(&wanted.source));
        source.bytes(target.config.raw().as_bytes());
        let mut left = HashSet::new();
        for ready in &ready {
            let digest = ready.descriptor.digest;
            match &ready.from {
                Some(From::Source(other)) => source.at(digest, Arc::clone(other)),
                Some(From::Held(held)) => source.held(digest, held.clone()),
                None if ready.how == How::Left => drop(left.insert(digest)),
                None => {}
            }
        }
        let mut notes = wanted.notes.clone();
        if !left.is_empty() {
            notes.push(format!("{} layers were left out: whoever uses the image needs them", left.len()));
        }
        let changed = ready
            .iter()
            .zip(target.manifest.layers())
            .filter(|(ready, layer)| ready.descriptor.digest != layer.digest)
            .count();
        if changed > 0 && wanted.manifest_known {
            notes.push(format!(
                "{changed} of {} layers have another digest, since they are not compressed as before, and so has the \
                 manifest: {} instead of {}. The image ID is the same: {}",
                ready.len(),
                root.digest(),
                target.manifest.digest(),
                target.config.raw().digest()
            ));
        }
        let takes = destination.takes();
        let (digest, digest_kept) = match takes.loses {
            Some(reason) => {
                notes.push(format!("the manifest is not kept: {reason}"));
                (target.config.raw().digest(), false)
            }
            None => (root.digest(), kept && wanted.manifest_known),
        };
        let sending =
            Sending { jobs: self.request.jobs.get(), context: self.context, progress: self.progress };
        let source: Arc<dyn Source> = Arc::new(source);
        let sent = sending.send_partly(&source, &root, destination, &self.environment.limits, &left)?;
        notes.extend(sent.notes);
        let layers = ready.iter().enumerate().map(|(number, ready)| Layer {
            diff_id: target.config.diff_ids()[number],
            original: target.manifest.layers()[number].digest,
            digest: ready.descriptor.digest,
            how: ready.how,
        });
        Ok(Applied {
            digest,
            target: wanted.manifest_known.then(|| target.manifest.digest()),
            digest_kept,
            config: target.config.raw().digest(),
            dialect: wanted.dialect,
            delta: wanted.delta,
            layers: layers.collect(),
            delta_bytes: wanted.contents.iter().map(Content::bytes).sum(),
            rebuilt_bytes: wanted.rebuilt.load(Ordering::Relaxed),
            trust,
            notes,
        })
    }

    /// The target's manifest with the layers as they are now.
    fn rewritten(&self, wanted: &Wanted, ready: &[Ready]) -> Result<Document, Error> {
        let manifest = &wanted.target.manifest;
        let bad = |reason: String| Error::BadImage { image: wanted.name.clone(), reason };
        let mut value: Value =
            serde_json::from_slice(manifest.raw().as_bytes()).map_err(|e| bad(e.to_string()))?;
        let Some(layers) = value.get_mut("layers").and_then(Value::as_array_mut) else {
            return Err(bad("the manifest has no layers".into()));
        };
        for ((entry, layer), ready) in layers.iter_mut().zip(manifest.layers()).zip(ready) {
            if ready.descriptor.digest != layer.digest {
                // What annotations say of the compressed bytes is no longer true.
                *entry = json!({
                    "mediaType": ready.descriptor.media_type,
                    "digest": ready.descriptor.digest.to_string(),
                    "size": ready.descriptor.size,
                });
            }
        }
        let raw = Unverified::new(value.to_string().into_bytes()).identify();
        Document::parse(raw, Some(manifest.media_type()), &self.environment.limits)
            .map_err(|error| Error::Document { image: wanted.name.clone(), error })
    }
}

/// The media type of a layer in a manifest of the given type.
pub(in crate::artifact) fn layer_type(
    manifest: &str,
    compression: LayerCompression,
) -> Result<&'static str, String> {
    let docker = manifest == media_type::DOCKER_MANIFEST;
    match (docker, compression) {
        (true, LayerCompression::None) => Ok(media_type::DOCKER_LAYER),
        (true, LayerCompression::Gzip | LayerCompression::Unknown) => Ok(media_type::DOCKER_LAYER_GZIP),
        (true, LayerCompression::Zstd) => {
            Err("Docker's manifests know no zstd: choose gzip or none".to_owned())
        }
        (false, LayerCompression::None) => Ok(media_type::OCI_LAYER),
        (false, LayerCompression::Zstd) => Ok(media_type::OCI_LAYER_ZSTD),
        (false, LayerCompression::Gzip | LayerCompression::Unknown) => Ok(media_type::OCI_LAYER_GZIP),
    }
}

/// A blob on its way.
fn blob(source: &Arc<dyn Source>, descriptor: &Descriptor, what: String, progress: &Arc<Progress>) -> Blob {
    Blob { source: Arc::clone(source), descriptor: descriptor.clone(), what, progress: Arc::clone(progress) }
}
