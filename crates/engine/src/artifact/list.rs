//! What deltas there are for an image.

use std::sync::Arc;

use coracle_codec::artifact::{Artifact, DELTA_INDEX, Dialect, annotation, flatpak};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, ImageConfig, Limits, Manifest, Platform};

use super::layers::Image;
use super::publish::Board;
use crate::image::copy::{choose, stoppable};
use crate::image::{Environment, ImageName, Source, Transport, small_blob};
use crate::{Context, Error};

/// An image with the deltas that lead to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it runs on.
    pub platform: Option<Platform>,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Bytes of its layers.
    pub full: u64,
    /// Its deltas: those between images by source, then those between layers.
    pub deltas: Vec<Entry>,
}

/// A delta in a list.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its form.
    pub dialect: Dialect,
    /// Digest of the artifact's manifest; of the delta itself between layers.
    pub digest: Digest,
    /// Where it starts from: digest of a manifest, or the diff_id of a layer.
    pub source: Option<Digest>,
    /// Digest of the source's config.
    pub source_config: Option<Digest>,
    /// When the source was made, as somebody said.
    pub source_created: Option<String>,
    /// Bytes that an update fetches for layers.
    pub bytes: u64,
    /// The layer that it makes, between layers.
    pub layer: Option<Digest>,
}

/// The deltas of an image.
#[derive(Debug, Clone)]
pub struct Listed {
    /// By platform.
    pub targets: Vec<Target>,
    /// Deltas that were missing in a list and are there now.
    pub repaired: Vec<Digest>,
}

/// Lists the deltas of an image, or of all images of an index. With `repair`, adds what publishers that were cut off
/// have left out. Blocks, and must not be called on a thread of the runtime.
///
/// # Errors
/// See [`Error`].
pub fn run(
    name: &ImageName,
    platform: Option<&Platform>,
    repair: bool,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<Listed, Error> {
    stoppable(context, |stop| {
        let source = environment.source(name, stop, context)?;
        let images = images(&source, platform, environment)?;
        let mut listed = Listed { targets: Vec::new(), repaired: Vec::new() };
        for image in images {
            if repair {
                let Transport::Registry(reference) = name.transport() else {
                    let reason = "only lists in a registry can be repaired".to_owned();
                    return Err(Error::Unsupported { image: name.to_string(), reason });
                };
                let text = name.to_string();
                let board = Board {
                    name: &text,
                    wire: environment.wire(stop),
                    repository: reference.repository(),
                    limits: &environment.limits,
                };
                for digest in board.repair(&image.manifest.digest())? {
                    if !listed.repaired.contains(&digest) {
                        listed.repaired.push(digest);
                    }
                }
            }
            listed.targets.push(target(&image, environment)?);
        }
        Ok(listed)
    })
}

/// The images that a name leads to.
pub(super) fn images(
    source: &Arc<dyn Source>,
    platform: Option<&Platform>,
    environment: &Environment,
) -> Result<Vec<Image>, Error> {
    let root = source.root()?;
    let mut documents = Vec::new();
    match (&root, platform) {
        (_, Some(platform)) => {
            documents.push(choose(source.as_ref(), root, platform, &environment.limits)?.0);
        }
        (Document::Index(index), None) => {
            for entry in index.manifests() {
                let real = entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
                if let (true, Document::Manifest(manifest)) = (real, source.document(entry)?)
                    && manifest.is_image()
                {
                    documents.push(Document::Manifest(manifest));
                }
            }
        }
        (Document::Manifest(_), None) => documents.push(root),
    }
    documents.into_iter().map(|document| Image::of(Arc::clone(source), document, environment)).collect()
}

/// The deltas of one image.
pub(super) fn target(image: &Image, environment: &Environment) -> Result<Target, Error> {
    let digest = image.manifest.digest();
    let mut deltas = Vec::new();
    for dialect in [Dialect::Coracle, Dialect::OciDelta] {
        let Some(kind) = dialect.artifact_type() else { continue };
        for entry in image.source.referrers(&digest, Some(kind))? {
            deltas.push(entry_of(dialect, &entry, image)?);
        }
    }
    deltas.sort_by(|a, b| {
        (&b.source_created, a.source, a.dialect).cmp(&(&a.source_created, b.source, b.dialect))
    });
    let layers = layer_deltas(image.source.as_ref(), &digest, &environment.limits)?;
    deltas.extend(layers.into_iter().map(|delta| Entry {
        dialect: Dialect::Flatpak,
        digest: delta.blob.digest,
        source: Some(delta.from),
        source_config: None,
        source_created: None,
        bytes: delta.blob.size,
        layer: Some(delta.to),
    }));
    Ok(Target {
        platform: image.config.platform().cloned(),
        digest,
        full: image.manifest.layers().iter().map(|layer| layer.size).fold(0, u64::saturating_add),
        deltas,
    })
}

/// What `_deltaindex` has for the image with this manifest.
pub(crate) fn layer_deltas(
    source: &dyn Source,
    target: &Digest,
    limits: &Limits,
) -> Result<Vec<flatpak::LayerDelta>, Error> {
    let Some(Document::Index(index)) = source.tagged(DELTA_INDEX)? else { return Ok(Vec::new()) };
    let Some(entry) = flatpak::entry(&index, target) else { return Ok(Vec::new()) };
    let raw = source.raw_document(entry)?;
    flatpak::parse(&raw, target, limits)
        .map_err(|error| Error::Artifact { image: source.name().to_owned(), error: Box::new(error) })
}

/// What a list of referrers says of a delta; what it leaves out, the delta's manifest says.
fn entry_of(dialect: Dialect, entry: &Descriptor, image: &Image) -> Result<Entry, Error> {
    let said = |name: &str| dialect.said(entry, name).and_then(|digest| digest.parse().ok());
    let created = entry.annotations.get(annotation::SOURCE_CREATED).cloned();
    let bytes = entry.annotations.get(annotation::SIZE).and_then(|size| size.parse().ok());
    let (source, source_config): (Option<Digest>, Option<Digest>) = (said("source"), said("source-config"));
    if let (Some(bytes), Some(_)) = (bytes, source_config) {
        let (digest, source_created) = (entry.digest, created);
        return Ok(Entry { dialect, digest, source, source_config, source_created, bytes, layer: None });
    }
    let Document::Manifest(manifest) = image.source.document(entry)? else {
        let reason = format!("{} is listed as a delta and is none", entry.digest);
        return Err(Error::BadImage { image: image.source.name().to_owned(), reason });
    };
    let artifact = artifact(&manifest, image)?;
    Ok(Entry {
        dialect,
        digest: entry.digest,
        source: artifact.source,
        source_config: Some(artifact.source_config),
        source_created: created.or(artifact.source_created.clone()),
        bytes: artifact.layer_bytes(),
        layer: None,
    })
}

fn artifact(manifest: &Manifest, image: &Image) -> Result<Artifact, Error> {
    Artifact::parse(manifest)
        .map_err(|error| Error::Artifact { image: image.source.name().to_owned(), error: Box::new(error) })
}

/// When an image in the same place was made; `None` if it is gone or does not say.
pub(super) fn created(
    digest: &Digest,
    image: &Image,
    environment: &Environment,
) -> Result<Option<String>, Error> {
    let Some(Document::Manifest(manifest)) = image.source.known(digest)? else { return Ok(None) };
    let limits = &environment.limits;
    let raw = small_blob(image.source.as_ref(), manifest.config(), "config", limits.config_bytes)?;
    let config = ImageConfig::parse(raw, limits)
        .map_err(|error| Error::Document { image: image.source.name().to_owned(), error })?;
    Ok(config.created().map(str::to_owned))
}
