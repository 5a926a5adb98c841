//! Which delta to apply: the one that was named, one of a list, or one that is found beside the target.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use coracle_codec::artifact::balena::DeltaImage;
use coracle_codec::artifact::{self, Artifact, Dialect, LayerSource, Payload, Target, annotation};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, ImageConfig, Index, Manifest, Platform, media_type};

use super::Base;
use crate::artifact::layers::{self, Image};
use crate::artifact::list::layer_deltas;
use crate::image::copy::choose;
use crate::image::docker_archive::made_up;
use crate::image::stop::Stop;
use crate::image::{Environment, ImageName, Source, small_blob};
use crate::{Context, Error};

/// A target with all that leads to it.
pub(in crate::artifact) struct Wanted {
    /// The delta as named.
    pub(in crate::artifact) name: String,
    /// Where the delta's content is.
    pub(in crate::artifact) source: Arc<dyn Source>,
    pub(in crate::artifact) target: Target,
    /// The artifact, if it is one.
    pub(in crate::artifact) artifact: Option<Artifact>,
    /// Whether it was the target that was named, and the delta found beside it.
    pub(in crate::artifact) beside: bool,
    /// Whether the target's manifest is its own, and not one that was put together just now.
    pub(in crate::artifact) manifest_known: bool,
    pub(in crate::artifact) dialect: Dialect,
    /// Digest of the delta's manifest.
    pub(in crate::artifact) delta: Digest,
    /// The config that the source must have, if the delta says.
    pub(in crate::artifact) source_config: Option<Digest>,
    /// For each layer of the target where it comes from.
    pub(in crate::artifact) contents: Vec<Content>,
    pub(in crate::artifact) notes: Vec<String>,
    /// Bytes of layers made by deltas.
    pub(in crate::artifact) rebuilt: AtomicU64,
}

impl Wanted {
    /// What content for a layer is. That of a delta image looks like any layer.
    pub(in crate::artifact) fn payload(&self, content: &layers::Content) -> Payload {
        if self.dialect == Dialect::Balena { Payload::Rsync } else { content.payload() }
    }
}

/// Where a layer comes from.
#[derive(Debug, Clone)]
pub(in crate::artifact) enum Content {
    /// The source has it.
    Source,
    /// This content makes it, or is it; which of the two only its bytes tell.
    Delta {
        blob: Descriptor,
        /// Bytes of the uncompressed layer, if declared.
        size: Option<u64>,
        /// The old layer up to which old files are used; `None` for all.
        from: Option<Digest>,
    },
    /// It is fetched from where the target is.
    Target(Descriptor),
}

impl Content {
    /// Bytes that are read for it.
    pub(in crate::artifact) fn bytes(&self) -> u64 {
        match self {
            Content::Source => 0,
            Content::Delta { blob, .. } | Content::Target(blob) => blob.size,
        }
    }
}

/// What is looked for, and from where.
pub(in crate::artifact) struct Finder<'a> {
    pub(in crate::artifact) delta: &'a ImageName,
    pub(in crate::artifact) base: &'a Base,
    pub(in crate::artifact) platform: Option<&'a Platform>,
    pub(in crate::artifact) environment: &'a Environment,
    pub(in crate::artifact) context: &'a Context<'a>,
    pub(in crate::artifact) stop: &'a Stop,
}

impl Finder<'_> {
    /// Finds the delta.
    pub(in crate::artifact) fn find(&self, base: Option<&Image>) -> Result<Wanted, Error> {
        let source = self.environment.source(self.delta, self.stop, self.context)?;
        let root = source.root()?;
        match &root {
            Document::Index(index) if lists_deltas(index) => {
                let found = self.of_list(&source, index, base)?;
                self.pair(&source, &found)
            }
            Document::Manifest(manifest) if !manifest.is_image() => self.pair(&source, manifest),
            _ => {
                let platform = self.platform(base);
                let (document, _) =
                    choose(source.as_ref(), root.clone(), &platform, &self.environment.limits)?;
                let target = Image::of(Arc::clone(&source), document, self.environment)?;
                match self.delta_image(&target)? {
                    Some(image) => self.balena(&target, image, base),
                    None => self.beside(&target, base),
                }
            }
        }
        .and_then(|wanted| self.fits(wanted, base))
    }

    fn platform(&self, base: Option<&Image>) -> Platform {
        let asked = self.platform.cloned();
        let same = base.and_then(|base| base.config.platform().cloned());
        asked.or(same).unwrap_or_else(|| self.environment.host.clone())
    }

    /// Refuses a delta that starts from another image.
    fn fits(&self, wanted: Wanted, base: Option<&Image>) -> Result<Wanted, Error> {
        if let (Some(expected), Some(base)) = (wanted.source_config, base) {
            let actual = base.config.raw().digest();
            if expected != actual {
                let base = base.source.name().to_owned();
                return Err(Error::WrongBase { delta: wanted.name, wanted: expected, base, actual });
            }
        }
        Ok(wanted)
    }

    /// The delta of a list that fits: for the platform, from the source, in the form that is smallest.
    fn of_list(
        &self,
        source: &Arc<dyn Source>,
        index: &Index,
        base: Option<&Image>,
    ) -> Result<Manifest, Error> {
        let platform = self.platform(base);
        let mut fitting: Vec<&Descriptor> = index
            .manifests()
            .iter()
            .filter(|entry| dialect(entry).is_some_and(|dialect| self.can_read(dialect)))
            .filter(|entry| entry.platform.as_ref().is_none_or(|other| other.fits(&platform).is_some()))
            .collect();
        if let Some(base) = base {
            let config = base.config.raw().digest().to_string();
            fitting.retain(|entry| source_config(entry).is_none_or(|source| source == config));
        }
        fitting.sort_by_key(|entry| size(entry));
        let Some(entry) = fitting.first() else {
            let kinds: Vec<String> = index
                .manifests()
                .iter()
                .map(|entry| {
                    let platform = entry.platform.as_ref().map(ToString::to_string).unwrap_or_default();
                    let kind = dialect(entry).map_or("other", Dialect::name);
                    format!("{kind} {platform} from {}", source_config(entry).unwrap_or_default())
                })
                .collect();
            return Err(Error::NoDelta {
                image: source.name().to_owned(),
                base: self.base.to_string(),
                reason: format!("the list has {}", kinds.join(", ")),
            });
        };
        match source.document(entry)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => {
                let reason = "its list of deltas leads to another list".to_owned();
                Err(Error::BadImage { image: source.name().to_owned(), reason })
            }
        }
    }

    /// Native deltas need old archives, which an extracted tree does not have.
    fn can_read(&self, dialect: Dialect) -> bool {
        dialect != Dialect::Coracle || matches!(self.base, Base::Image(_))
    }

    /// A delta between two images, with the documents that it holds.
    fn pair(&self, source: &Arc<dyn Source>, manifest: &Manifest) -> Result<Wanted, Error> {
        let name = source.name().to_owned();
        let bad = |error| Error::Artifact { image: name.clone(), error: Box::new(error) };
        let artifact = Artifact::parse(manifest).map_err(bad)?;
        let limits = &self.environment.limits;
        let raw =
            small_blob(source.as_ref(), &artifact.target_manifest, "target manifest", limits.manifest_bytes)?;
        let media = Some(artifact.target_manifest.media_type.as_str());
        let document = |error| Error::Document { image: name.clone(), error };
        let target = match Document::parse(raw, media, limits).map_err(document)? {
            Document::Manifest(target) if target.is_image() => target,
            _ => {
                let reason = "the target in the delta is no image".to_owned();
                return Err(Error::BadImage { image: name, reason });
            }
        };
        let raw = small_blob(source.as_ref(), &artifact.target_config, "target config", limits.config_bytes)?;
        let config = ImageConfig::parse(raw, limits).map_err(document)?;
        let target = Target::new(&artifact, target, config).map_err(bad)?;
        if let Some(asked) = self.platform
            && let Some(has) = target.config.platform()
            && has.fits(asked).is_none()
        {
            return Err(Error::NoPlatform {
                image: name,
                wanted: Box::new(asked.clone()),
                has: vec![has.to_string()],
            });
        }
        let contents = target.layers.iter().map(|layer| match layer {
            LayerSource::Source => Content::Source,
            LayerSource::Artifact(number) => {
                let layer = &artifact.layers[*number];
                Content::Delta { blob: layer.blob.clone(), size: layer.uncompressed_size, from: None }
            }
        });
        Ok(Wanted {
            name,
            source: Arc::clone(source),
            dialect: artifact.dialect,
            delta: manifest.digest(),
            source_config: Some(artifact.source_config),
            contents: contents.collect(),
            target,
            artifact: Some(artifact),
            beside: false,
            manifest_known: true,
            notes: Vec::new(),
            rebuilt: AtomicU64::new(0),
        })
    }

    fn delta_image(&self, image: &Image) -> Result<Option<DeltaImage>, Error> {
        let bad = |error| Error::Artifact { image: image.source.name().to_owned(), error: Box::new(error) };
        DeltaImage::of(&image.config, &self.environment.limits).map_err(bad)
    }

    /// A delta image, as balenaEngine makes it.
    fn balena(&self, delta: &Image, image: DeltaImage, base: Option<&Image>) -> Result<Wanted, Error> {
        let name = delta.source.name().to_owned();
        let DeltaImage { base: source_config, target, target_manifest, sizes } = image;
        let size = |number: usize| sizes.as_ref().and_then(|sizes| sizes.get(number).copied());
        let known = manifest_of(delta.source.as_ref(), target_manifest.as_ref(), &target);
        let mut notes = Vec::new();
        let manifest_known = known.is_some();
        let manifest = match known {
            Some(manifest) => manifest,
            None => {
                notes.push(UNKNOWN_MANIFEST.to_owned());
                let layers = target.diff_ids().iter().enumerate().map(|(number, diff_id)| {
                    Descriptor::new(media_type::OCI_LAYER, *diff_id, size(number).unwrap_or(0))
                });
                let layers: Vec<Descriptor> = layers.collect();
                match made_up(target.raw(), &layers, &self.environment.limits) {
                    Ok(Document::Manifest(manifest)) => manifest,
                    Ok(Document::Index(_)) => {
                        return Err(Error::SelfCheck("a manifest became a list".into()));
                    }
                    Err(error) => return Err(Error::Document { image: name, error }),
                }
            }
        };
        let have = |diff_id| base.is_some_and(|base| base.config.diff_ids().contains(diff_id));
        let layers = delta.manifest.layers().iter().zip(target.diff_ids()).enumerate();
        let contents = layers.map(|(number, (blob, diff_id))| match have(diff_id) {
            true => Content::Source,
            // Nobody says how large it may become: what the caller allows.
            false => {
                let size = size(number).filter(|size| *size > 0).or(Some(u64::MAX));
                Content::Delta { blob: blob.clone(), size, from: None }
            }
        });
        Ok(Wanted {
            name,
            source: Arc::clone(&delta.source),
            dialect: Dialect::Balena,
            delta: delta.manifest.digest(),
            source_config: Some(source_config),
            contents: contents.collect(),
            target: Target { manifest, config: target, layers: Vec::new() },
            artifact: None,
            beside: false,
            manifest_known,
            notes,
            rebuilt: AtomicU64::new(0),
        })
    }

    /// A delta that is listed for the target where the target is.
    fn beside(&self, target: &Image, base: Option<&Image>) -> Result<Wanted, Error> {
        let digest = target.manifest.digest();
        let base_config = base.map(|base| base.config.raw().digest().to_string());
        let mut found: Vec<Descriptor> = Vec::new();
        for dialect in [Dialect::Coracle, Dialect::OciDelta].into_iter().filter(|d| self.can_read(*d)) {
            let Some(kind) = dialect.artifact_type() else { continue };
            found.extend(target.source.referrers(&digest, Some(kind))?);
        }
        let all = found.len();
        if let Some(config) = &base_config {
            found.retain(|entry| source_config(entry).is_none_or(|source| source == *config));
        }
        found.sort_by_key(size);
        self.one_source(target, base, &found)?;
        let mut refused = None;
        for entry in &found {
            // Anybody may list anything: what is no delta from here to there is passed over, and so is what is damaged.
            match self.listed(target, entry).and_then(|wanted| self.fits(wanted, base)) {
                Ok(mut wanted) => {
                    wanted.beside = true;
                    wanted.notes.extend(refused.map(|error: Error| format!("passed over: {error}")));
                    return Ok(wanted);
                }
                Err(error @ (Error::Cancelled | Error::Registry { .. })) => return Err(error),
                Err(error) => refused = Some(error),
            }
        }
        let layers = layer_deltas(target.source.as_ref(), &digest, &self.environment.limits)?;
        let have = |diff_id: &Digest| base.is_some_and(|base| base.config.diff_ids().contains(diff_id));
        let (mut contents, mut used) = (Vec::new(), 0);
        for (layer, diff_id) in target.manifest.layers().iter().zip(target.config.diff_ids()) {
            let fitting = layers.iter().filter(|delta| delta.to == *diff_id && have(&delta.from));
            contents.push(match fitting.min_by_key(|delta| delta.blob.size) {
                _ if have(diff_id) => Content::Source,
                Some(delta) => {
                    used += 1;
                    let (blob, size) = (delta.blob.clone(), delta.uncompressed_size);
                    Content::Delta { blob, size, from: Some(delta.from) }
                }
                None => Content::Target(layer.clone()),
            });
        }
        if used == 0 {
            let reason = match (all, refused) {
                (_, Some(error)) => error.to_string(),
                (0, None) if layers.is_empty() => "there are no deltas for it".to_owned(),
                (0, None) if base.is_none() => "deltas between layers need the source as an image".to_owned(),
                _ => format!("{} deltas start from others", all + layers.len()),
            };
            let base = self.base.to_string();
            return Err(Error::NoDelta { image: target.source.name().to_owned(), base, reason });
        }
        Ok(Wanted {
            name: target.source.name().to_owned(),
            source: Arc::clone(&target.source),
            dialect: Dialect::Flatpak,
            delta: digest,
            source_config: None,
            contents,
            target: Target {
                manifest: target.manifest.clone(),
                config: target.config.clone(),
                layers: Vec::new(),
            },
            artifact: None,
            beside: true,
            manifest_known: true,
            notes: Vec::new(),
            rebuilt: AtomicU64::new(0),
        })
    }

    /// A delta of a list, if it leads to the target.
    fn listed(&self, target: &Image, entry: &Descriptor) -> Result<Wanted, Error> {
        let image = || target.source.name().to_owned();
        let Document::Manifest(manifest) = target.source.document(entry)? else {
            let reason = format!("{} is listed as a delta and is none", entry.digest);
            return Err(Error::BadImage { image: image(), reason });
        };
        let wanted = self.pair(&target.source, &manifest)?;
        let (actual, expected) = (wanted.target.manifest.digest(), target.manifest.digest());
        if actual != expected {
            let (what, by) = ("the target of a listed delta", "was asked for");
            let error = artifact::Error::Contradiction { what, actual, expected, by };
            return Err(Error::Artifact { image: image(), error: Box::new(error) });
        }
        Ok(wanted)
    }

    /// Files do not say which image they are of: there must be one answer.
    fn one_source(&self, target: &Image, base: Option<&Image>, found: &[Descriptor]) -> Result<(), Error> {
        let mut sources: Vec<String> = found.iter().filter_map(source_config).collect();
        sources.sort();
        sources.dedup();
        if base.is_some() || sources.len() < 2 {
            return Ok(());
        }
        Err(Error::NoDelta {
            image: target.source.name().to_owned(),
            base: self.base.to_string(),
            reason: "there are deltas from several images, and files do not tell which they are of: name one by its \
                     digest"
                .to_owned(),
        })
    }
}

/// What cannot be said of an image that came from a delta image alone.
pub(crate) const UNKNOWN_MANIFEST: &str = "the image's own manifest is not known: the layers and the image ID are those that the \
     delta image names, but its digest, and signatures of it, could not be compared";

/// The manifest with this digest, if it is at the same place and that of the target.
pub(crate) fn manifest_of(
    source: &dyn Source,
    digest: Option<&Digest>,
    target: &ImageConfig,
) -> Option<Manifest> {
    match source.known(digest?) {
        Ok(Some(Document::Manifest(manifest))) if leads_to(&manifest, target) => Some(manifest),
        _ => None,
    }
}

/// Whether a manifest is one of the image with this config.
pub(crate) fn leads_to(manifest: &Manifest, target: &ImageConfig) -> bool {
    manifest.is_image()
        && manifest.config().digest == target.raw().digest()
        && manifest.layers().len() == target.diff_ids().len()
}

/// The dialect that an entry of a list says it has.
fn dialect(entry: &Descriptor) -> Option<Dialect> {
    entry.artifact_type.as_deref().and_then(Dialect::of_artifact_type)
}

fn lists_deltas(index: &Index) -> bool {
    index.manifests().iter().any(|entry| dialect(entry).is_some())
}

/// The config of the source of an entry.
fn source_config(entry: &Descriptor) -> Option<String> {
    let dialects = [Dialect::OciDelta, Dialect::Coracle];
    dialects.iter().find_map(|dialect| dialect.said(entry, "source-config")).map(str::to_owned)
}

/// What an entry says an update fetches; those that do not say come last.
fn size(entry: &Descriptor) -> u64 {
    entry.annotations.get(annotation::SIZE).and_then(|size| size.parse().ok()).unwrap_or(u64::MAX)
}
