//! Making deltas between images.

mod balena;
mod encode;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coracle_codec::artifact::pair::EMPTY;
use coracle_codec::artifact::{Dialect, Draft, DraftSignature, Payload};
use coracle_codec::delta::Effort;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{
    Descriptor, Document, Limits, Platform, Repository, Unverified, Version, media_type,
};
use coracle_codec::tardiff;
use serde_json::json;

use super::assembled::Assembled;
use super::layers::{Image, Layers, Reading};
use super::publish::Board;
use crate::image::blob::Progress;
use crate::image::copy::{Sending, choose, watched, working};
use crate::image::stop::Stop;
use crate::image::{Environment, ImageName, Source, Transport};
use crate::trust::find::{self, Kept};
use crate::trust::{Case, Subject, Verdict};
use crate::{Context, Error};

use encode::{Base, Content, Encoding};

/// What deltas to make.
#[derive(Debug, Clone)]
pub struct Request {
    /// Images to start from.
    pub old: Vec<ImageName>,
    /// The image to lead to.
    pub new: ImageName,
    /// Of indexes only the images for this platform; else all platforms that both sides have.
    pub platform: Option<Platform>,
    /// In which forms, best first for readers that take the first that fits.
    pub dialects: Vec<Dialect>,
    /// Where they go.
    pub to: To,
    /// The work put into them.
    pub effort: Effort,
    /// Version of tar-diffs.
    pub version: tardiff::Version,
    /// Memory to aim at for one layer, in bytes. Deltas depend on it.
    pub memory: u64,
    /// Layers at a time, or threads for one.
    pub threads: NonZeroUsize,
    /// Use old files that are not world-readable for tar-diffs as well.
    pub any_mode: bool,
    /// Make deltas that are published already.
    pub again: bool,
    /// Whether the new image goes into the output as well.
    pub with_image: bool,
    /// Make Balena deltas as the engine itself does.
    pub classic: bool,
}

/// Where deltas go.
#[derive(Debug, Clone)]
pub enum To {
    /// Into a layout or an archive: one delta as it is, several as an index.
    Image(ImageName),
    /// Beside the new image in its registry; the first also under this tag there.
    Registry(Option<String>),
    /// Nowhere: only sizes are wanted.
    Nowhere,
}

/// Deltas that were made.
#[derive(Debug, Clone)]
pub struct Created {
    /// Each of them.
    pub deltas: Vec<Delta>,
    /// The images that were read, and why they are accepted.
    pub trust: Vec<(String, Verdict)>,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// A delta between two images.
#[derive(Debug, Clone)]
pub struct Delta {
    /// The old image as named.
    pub from: String,
    /// What it runs on.
    pub platform: Option<Platform>,
    /// Its form.
    pub dialect: Dialect,
    /// Digest of the artifact's manifest.
    pub digest: Digest,
    /// Digest of the old manifest.
    pub source: Digest,
    /// Digest of the new manifest.
    pub target: Digest,
    /// Bytes of the new image's layers as they are: what a client without anything fetches.
    pub full: u64,
    /// Bytes of the new image's layers that the old image does not have: what a client without deltas fetches.
    pub changed: u64,
    /// Layers of the new image, in order, each once.
    pub layers: Vec<Layer>,
    /// Whether it is published already and was not made.
    pub existed: bool,
}

impl Delta {
    /// Bytes of all content for layers: what a client with the delta fetches.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }
}

/// What became of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Its number in the new image.
    pub number: usize,
    /// Its blob digest.
    pub to: Digest,
    /// Its diff_id.
    pub diff_id: Digest,
    /// Bytes of the blob as it is.
    pub full: u64,
    /// Bytes of the content for it; 0 if it is the same in the old image.
    pub bytes: u64,
    /// What the content is; `None` if the old image has the same layer.
    pub payload: Option<Payload>,
    /// Digest of the content; `None` as before.
    pub content: Option<Digest>,
}

/// Makes deltas and puts them where they belong. Blocks, and must not be called on a thread of the runtime.
///
/// # Errors
/// See [`Error`]. What was published before stays: each delta is of use alone.
pub fn run(request: &Request, environment: &Environment, context: &Context<'_>) -> Result<Created, Error> {
    working(context, |progress| {
        let work = Work { request, environment, context, stop: &progress.stop, progress };
        work.run()
    })
}

struct Work<'a> {
    request: &'a Request,
    environment: &'a Environment,
    context: &'a Context<'a>,
    stop: &'a Stop,
    progress: &'a Arc<Progress>,
}

/// What goes into an artifact besides the documents of its target.
struct Parts {
    contents: Vec<Content>,
    signatures: Vec<Kept>,
}

/// An artifact with its content, not yet published.
struct Made {
    delta: Delta,
    document: Document,
    contents: Vec<Content>,
    signatures: Vec<Kept>,
    /// For a list of them.
    platform: Option<Platform>,
}

impl Work<'_> {
    fn run(&self) -> Result<Created, Error> {
        if self.request.dialects == [Dialect::Balena] {
            return self.balena();
        }
        let mut created = Created { deltas: Vec::new(), trust: Vec::new(), notes: Vec::new() };
        let new = self.environment.source(&self.request.new, self.stop, self.context)?;
        let new_root = new.root()?;
        let mut kept: Vec<(Made, Image)> = Vec::new();
        for platform in self.platforms(&new, &new_root)? {
            let image = self.image(&new, &new_root, platform.as_ref())?;
            created.trust.push((image.source.name().to_owned(), self.trust(&self.request.new, &image)?));
            let signatures = self.signatures(&image, &mut created.notes)?;
            let mut unpacked = Layers::default();
            for name in &self.request.old {
                let old = self.environment.source(name, self.stop, self.context)?;
                let old_image = match self.image(&old, &old.root()?, platform.as_ref()) {
                    Ok(image) => image,
                    Err(Error::NoPlatform { .. }) if self.request.platform.is_none() => {
                        let platform = platform.as_ref().map(ToString::to_string).unwrap_or_default();
                        created.notes.push(format!("{name} has no image for {platform}: no delta from it"));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if let (Some(has), Some(wanted)) = (old_image.config.platform(), image.config.platform())
                    && has.fits(wanted).is_none()
                {
                    let (image, wanted) = (name.to_string(), Box::new(wanted.clone()));
                    return Err(Error::NoPlatform { image, wanted, has: vec![has.to_string()] });
                }
                created.trust.push((name.to_string(), self.trust(name, &old_image)?));
                for made in self.deltas(name, &old_image, &image, &signatures, &mut unpacked)? {
                    match made {
                        Ok(made) => {
                            let delta = made.delta.clone();
                            if let To::Registry(tag) = &self.request.to {
                                self.push(
                                    &image,
                                    made,
                                    tag.as_deref().filter(|_| created.deltas.is_empty()),
                                )?;
                            } else {
                                kept.push((Made { platform: platform.clone(), ..made }, image.clone()));
                            }
                            created.deltas.push(delta);
                        }
                        Err(existing) => {
                            if let To::Registry(Some(tag)) = &self.request.to
                                && created.deltas.is_empty()
                            {
                                self.tag(&image, &existing.digest, tag)?;
                            }
                            created.deltas.push(existing);
                        }
                    }
                }
            }
        }
        if let To::Image(name) = &self.request.to {
            self.write(name, kept)?;
        }
        if created.deltas.is_empty() && created.notes.is_empty() {
            created.notes.push("there was nothing to make a delta from".into());
        }
        Ok(created)
    }

    /// The platforms to make deltas for: those of the new index that are images, `None` for a single image.
    fn platforms(&self, new: &Arc<dyn Source>, root: &Document) -> Result<Vec<Option<Platform>>, Error> {
        if let Some(platform) = &self.request.platform {
            return Ok(vec![Some(platform.clone())]);
        }
        let Document::Index(index) = root else { return Ok(vec![None]) };
        let mut platforms: Vec<Option<Platform>> = Vec::new();
        for entry in index.manifests() {
            // Attestations are listed for a platform that is none.
            let Some(platform) = entry.platform.as_ref().filter(|platform| platform.os != "unknown") else {
                continue;
            };
            if !platforms.iter().any(|known| known.as_ref() == Some(platform)) {
                platforms.push(Some(platform.clone()));
            }
        }
        if platforms.is_empty() {
            let reason = "its index names no platform".to_owned();
            return Err(Error::BadImage { image: new.name().to_owned(), reason });
        }
        Ok(platforms)
    }

    fn image(
        &self,
        source: &Arc<dyn Source>,
        root: &Document,
        platform: Option<&Platform>,
    ) -> Result<Image, Error> {
        let platform = platform.unwrap_or(&self.environment.host);
        let (document, _) = choose(source.as_ref(), root.clone(), platform, &self.environment.limits)?;
        Image::of(Arc::clone(source), document, self.environment)
    }

    /// The deltas between two images in all dialects; those that are published already as they are listed.
    fn deltas(
        &self,
        name: &ImageName,
        old: &Image,
        new: &Image,
        signatures: &[Kept],
        unpacked: &mut Layers,
    ) -> Result<Vec<Result<Made, Delta>>, Error> {
        let plan = plan(old, new);
        let mut wanted = Vec::new();
        let mut out = Vec::new();
        for &dialect in &self.request.dialects {
            match self.published(dialect, old, new)? {
                Some(digest) => {
                    let mut delta = self.summary(name, dialect, old, new, &plan, digest);
                    delta.existed = true;
                    out.push(Err(delta));
                }
                None => wanted.push(dialect),
            }
        }
        if wanted.is_empty() {
            return Ok(out);
        }
        let reading = Reading {
            jobs: self.request.threads.get(),
            progress: self.progress,
            temp_dir: &self.context.temp_dir,
            environment: self.environment,
        };
        let changed: Vec<usize> =
            plan.iter().filter(|layer| layer.payload.is_some()).map(|layer| layer.number).collect();
        let old_wanted: Vec<usize> =
            if changed.is_empty() { Vec::new() } else { (0..old.config.diff_ids().len()).collect() };
        // Another old image may have asked for the same layers.
        let missing: Vec<usize> = changed
            .iter()
            .copied()
            .filter(|&number| !unpacked.0.contains_key(&new.config.diff_ids()[number]))
            .collect();
        let total = bytes(old, &old_wanted) + bytes(new, &missing);
        self.progress.done.store(0, Ordering::Relaxed);
        let old_layers = watched(self.context, self.progress, total, || {
            unpacked.0.extend(new.unpack(&missing, &reading)?.0);
            old.unpack(&old_wanted, &reading)
        })?;
        let new_layers = &*unpacked;
        let base =
            Base { layers: old_layers.in_order(old.config.diff_ids()), diff_ids: old.config.diff_ids() };
        let encoding = Encoding { request: self.request, context: self.context, stop: self.stop };
        for dialect in wanted {
            let contents = encoding.encode(dialect, &base, new_layers, &plan)?;
            let readable = |kept: &&Kept| dialect == Dialect::Coracle || kept.is_simple();
            let signatures = signatures.iter().filter(readable).cloned().collect();
            out.push(Ok(self.artifact(name, dialect, old, new, &plan, Parts { contents, signatures })?));
        }
        Ok(out)
    }

    /// The digest of a delta that a registry lists for this pair, unless it is to be made again.
    fn published(&self, dialect: Dialect, old: &Image, new: &Image) -> Result<Option<Digest>, Error> {
        let (To::Registry(_), false, Some(kind)) =
            (&self.request.to, self.request.again, dialect.artifact_type())
        else {
            return Ok(None);
        };
        let source = old.manifest.digest().to_string();
        let listed = new.source.referrers(&new.manifest.digest(), Some(kind))?;
        let found = listed.iter().find(|entry| dialect.said(entry, "source") == Some(source.as_str()));
        Ok(found.map(|entry| entry.digest))
    }

    fn summary(
        &self,
        name: &ImageName,
        dialect: Dialect,
        old: &Image,
        new: &Image,
        plan: &[Layer],
        digest: Digest,
    ) -> Delta {
        Delta {
            from: name.to_string(),
            platform: new.config.platform().cloned(),
            dialect,
            digest,
            source: old.manifest.digest(),
            target: new.manifest.digest(),
            full: plan.iter().map(|layer| layer.full).sum(),
            changed: plan.iter().filter(|layer| layer.payload.is_some()).map(|layer| layer.full).sum(),
            layers: plan.to_vec(),
            existed: false,
        }
    }

    /// Puts documents around contents.
    fn artifact(
        &self,
        name: &ImageName,
        dialect: Dialect,
        old: &Image,
        new: &Image,
        plan: &[Layer],
        parts: Parts,
    ) -> Result<Made, Error> {
        let Parts { contents, signatures } = parts;
        let bytes = match dialect {
            Dialect::OciDelta | Dialect::Coracle => Draft {
                dialect,
                target: &new.manifest,
                target_config: new.config.raw().size(),
                source: old.manifest.digest(),
                source_config: old.config.raw().digest(),
                source_created: old.config.created(),
                layers: contents.iter().map(|content| content.layer.clone()).collect(),
                signatures: draft(&signatures),
            }
            .to_bytes(),
            Dialect::Flatpak | Dialect::Skopeo => encode::flatpak_manifest(dialect, new, &contents),
            Dialect::Balena => return Err(alone(new)),
        };
        let raw = Unverified::new(bytes).identify();
        let document = Document::parse(raw, Some(media_type::OCI_MANIFEST), &self.environment.limits)
            .map_err(|error| Error::Document { image: new.source.name().to_owned(), error })?;
        let mut layers = plan.to_vec();
        for layer in &mut layers {
            let content = contents.iter().find(|content| content.layer.to == layer.to);
            layer.payload = content.map(|content| content.layer.payload);
            layer.bytes = content.map_or(0, |content| content.layer.size);
            layer.content = content.map(|content| content.layer.digest);
            if content.is_none() && !old.config.diff_ids().contains(&layer.diff_id) {
                // This dialect has no content for it: clients fetch the layer.
                layer.payload = Some(Payload::Layer);
                layer.bytes = layer.full;
                layer.content = Some(layer.to);
            }
        }
        let delta = Delta { layers, ..self.summary(name, dialect, old, new, plan, document.digest()) };
        Ok(Made { delta, document, contents, signatures, platform: None })
    }

    /// Whether an image may be read.
    fn trust(&self, name: &ImageName, image: &Image) -> Result<Verdict, Error> {
        let subject = Subject::of(name);
        let (manifest, source) = (image.manifest.raw(), image.source.as_ref());
        let limits = &self.environment.limits;
        self.environment.trust.judge(&Case { subject: &subject, manifest, source, artifact: None, limits })
    }

    /// Signatures of the new image, to go with the deltas.
    fn signatures(&self, new: &Image, notes: &mut Vec<String>) -> Result<Vec<Kept>, Error> {
        match self.request.to {
            To::Nowhere => Ok(Vec::new()),
            To::Image(_) | To::Registry(_) => find::keep(new.source.as_ref(), &new.manifest.digest(), notes),
        }
    }

    /// Puts a delta beside its target.
    fn push(&self, new: &Image, made: Made, tag: Option<&str>) -> Result<(), Error> {
        let repository = self.repository()?;
        let version = match tag {
            Some(tag) => Version::Tag(tag.to_owned()),
            None => Version::Digest(made.document.digest()),
        };
        let name = format!("docker://{repository}");
        let source: Arc<dyn Source> = Arc::new(assemble(&name, new, [&made].into_iter(), &made.document));
        let board = Board {
            name: &name,
            wire: self.environment.wire(self.stop),
            repository,
            limits: &self.environment.limits,
        };
        board.push_blobs(&source, &made.document, self.request.threads.get(), self.context, self.progress)?;
        match made.delta.dialect {
            Dialect::OciDelta | Dialect::Coracle => board.refer(&version, &made.document),
            Dialect::Flatpak | Dialect::Skopeo => {
                board.index(&made.document, &new.manifest.digest(), new.config.platform())
            }
            Dialect::Balena => Err(alone(new)),
        }
    }

    /// Gives a delta that is published a tag.
    fn tag(&self, new: &Image, digest: &Digest, tag: &str) -> Result<(), Error> {
        let repository = self.repository()?;
        let Some(document) = new.source.known(digest)? else { return Ok(()) };
        let wire = self.environment.wire(self.stop);
        let version = Version::Tag(tag.to_owned());
        let push = wire.client.push_manifest(repository, &version, &document);
        wire.wait(&format!("docker://{repository}"), push).map(|_| ())
    }

    /// Where the new image is.
    fn repository(&self) -> Result<&Repository, Error> {
        match self.request.new.transport() {
            Transport::Registry(target) => Ok(target.repository()),
            _ => {
                let reason =
                    "deltas are pushed beside the new image, and this one is in no registry".to_owned();
                Err(Error::Unsupported { image: self.request.new.to_string(), reason })
            }
        }
    }

    /// Writes deltas into a layout or an archive.
    fn write(&self, name: &ImageName, made: Vec<(Made, Image)>) -> Result<(), Error> {
        let Some((_, new)) = made.first() else {
            let reason = "no delta was made for it".to_owned();
            return Err(Error::NoDelta { image: name.to_string(), base: "the old images".into(), reason });
        };
        let root = if let ([(only, _)], false) = (made.as_slice(), self.request.with_image) {
            only.document.clone()
        } else {
            list(&made, self.request.with_image, &self.environment.limits)
                .map_err(|error| Error::Document { image: name.to_string(), error })?
        };
        let mut source = assemble(&name.to_string(), new, made.iter().map(|(made, _)| made), &root);
        for (made, image) in &made {
            source.below(made.document.clone());
            source.bytes(image.manifest.raw().as_bytes());
            source.bytes(image.config.raw().as_bytes());
            if self.request.with_image {
                source.below(Document::Manifest(image.manifest.clone()));
            }
        }
        let source: Arc<dyn Source> = Arc::new(source);
        let destination = self.environment.destination(name, self.stop, self.context)?;
        if !destination.takes().artifacts {
            let reason = "it holds images, not artifacts".to_owned();
            return Err(Error::Unsupported { image: name.to_string(), reason });
        }
        let sending =
            Sending { jobs: self.request.threads.get(), context: self.context, progress: self.progress };
        sending.send_all(&source, &root, destination, &self.environment.limits)?;
        Ok(())
    }
}

/// A delta image is no artifact, so it is never made along with some.
fn alone(new: &Image) -> Error {
    let reason = "Balena deltas are made alone, not together with others".to_owned();
    Error::Unsupported { image: new.source.name().to_owned(), reason }
}

/// The layers of `new`, each blob once; those with a payload are not in `old`.
fn plan(old: &Image, new: &Image) -> Vec<Layer> {
    let mut seen = HashMap::new();
    let layers = new.manifest.layers().iter().zip(new.config.diff_ids()).enumerate();
    let mut plan = Vec::new();
    for (number, (blob, &diff_id)) in layers {
        if seen.insert(blob.digest, ()).is_none() {
            let known = old.config.diff_ids().contains(&diff_id);
            let payload = (!known).then_some(Payload::Layer);
            let bytes = if known { 0 } else { blob.size };
            let content = (!known).then_some(blob.digest);
            plan.push(Layer { number, to: blob.digest, diff_id, full: blob.size, bytes, payload, content });
        }
    }
    plan
}

fn bytes(image: &Image, layers: &[usize]) -> u64 {
    layers.iter().map(|&number| image.manifest.layers()[number].size).sum()
}

/// Artifacts and all that they need as something to copy from.
fn assemble<'a>(name: &str, new: &Image, made: impl Iterator<Item = &'a Made>, root: &Document) -> Assembled {
    let mut source = Assembled::new(name, root.clone(), Arc::clone(&new.source));
    source.bytes(EMPTY);
    source.bytes(new.manifest.raw().as_bytes());
    source.bytes(new.config.raw().as_bytes());
    for made in made {
        for content in &made.contents {
            if let Some(held) = &content.held {
                source.held(content.layer.digest, held.clone());
            }
        }
        for kept in &made.signatures {
            source.bytes(kept.manifest.raw().as_bytes());
            kept.blobs.iter().for_each(|(_, raw)| source.bytes(raw.as_bytes()));
        }
    }
    source
}

/// Signatures as an artifact lists them: each blob once, and none that the artifact has anyway.
fn draft(signatures: &[Kept]) -> Vec<DraftSignature> {
    let mut seen = HashSet::from([Digest::of(EMPTY)]);
    let drafts = signatures.iter().map(|kept| DraftSignature {
        manifest: Descriptor::new(
            kept.manifest.media_type(),
            kept.manifest.digest(),
            kept.manifest.raw().size(),
        ),
        contents: kept
            .blobs
            .iter()
            .map(|(blob, _)| blob.clone())
            .filter(|blob| seen.insert(blob.digest))
            .collect(),
    });
    drafts.collect()
}

/// An index of artifacts, each with its kind and platform, and of the images that they lead to.
fn list(
    made: &[(Made, Image)],
    with_image: bool,
    limits: &Limits,
) -> Result<Document, coracle_codec::oci::Error> {
    let mut entries: Vec<_> = made
        .iter()
        .map(|(made, image)| {
            let described = made.document.descriptor();
            let platform = made.platform.clone().or_else(|| image.config.platform().cloned());
            Descriptor { platform, annotations: described.annotations.clone(), ..described }.to_json()
        })
        .collect();
    // In front: an artifact holds the manifest as a blob, and what was there as a blob is not looked into.
    for (_, image) in made.iter().filter(|_| with_image) {
        let described = Document::Manifest(image.manifest.clone()).descriptor();
        let entry = Descriptor { platform: image.config.platform().cloned(), ..described }.to_json();
        if !entries.contains(&entry) {
            entries.insert(0, entry);
        }
    }
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
    let raw = Unverified::new(index.to_string().into_bytes()).identify();
    Document::parse(raw, Some(media_type::OCI_INDEX), limits)
}
