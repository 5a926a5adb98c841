//! What an image, or an index, holds.

use std::collections::BTreeMap;

use coracle_codec::artifact::Artifact;
use coracle_codec::artifact::balena::DeltaImage;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, Platform};

use super::copy::choose;
use super::{Environment, ImageName, config_of};
use crate::subset::Subset;
use crate::{Context, Error};

/// What a name leads to.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The digest of the document that the name leads to.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Why it was put together just now; `None` if it is what somebody published.
    pub made_up: Option<&'static str>,
    /// What it is.
    pub content: Content,
}

/// An image or a list of them.
#[derive(Debug, Clone)]
pub enum Content {
    /// One image, or an artifact in its form.
    Image(Box<Image>),
    /// A list.
    Index {
        /// What it lists.
        entries: Vec<Descriptor>,
        /// Free texts.
        annotations: BTreeMap<String, String>,
    },
}

/// One image.
#[derive(Debug, Clone)]
pub struct Image {
    /// What it runs on, as its config says.
    pub platform: Option<Platform>,
    /// When it was made, as its config says.
    pub created: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Digests of the uncompressed layers; none for an artifact.
    pub diff_ids: Vec<Digest>,
    /// What kind of artifact it is, if it says so.
    pub artifact_type: Option<String>,
    /// Free texts.
    pub annotations: BTreeMap<String, String>,
    /// What it is about, if it says so.
    pub subject: Option<Descriptor>,
    /// What it holds if it is a delta artifact.
    pub delta: Option<Artifact>,
    /// What its labels say if it is a delta image of balenaEngine.
    pub delta_image: Option<DeltaImage>,
    /// What its labels say if it was made of a tree with a part of an image.
    pub subset: Option<Subset>,
}

/// Looks at an image; of an index at the image for `platform`, if given. Blocks, and must not be called on a thread of
/// the runtime.
///
/// # Errors
/// See [`Error`].
pub fn run(
    name: &ImageName,
    platform: Option<&Platform>,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<Shown, Error> {
    super::copy::stoppable(context, |stop| {
        let source = environment.source(name, stop, context)?;
        let mut document = source.root()?;
        if let Some(platform) = platform {
            document = choose(source.as_ref(), document, platform, &environment.limits)?.0;
        }
        let content = match &document {
            Document::Index(index) => Content::Index {
                entries: index.manifests().to_vec(),
                annotations: index.annotations().clone(),
            },
            Document::Manifest(manifest) => {
                let config = if manifest.is_image() {
                    Some(config_of(source.as_ref(), manifest, &environment.limits)?)
                } else {
                    None
                };
                let delta = match Artifact::dialect_of(manifest) {
                    Some(_) => Some(Artifact::parse(manifest).map_err(|error| Error::Artifact {
                        image: source.name().to_owned(),
                        error: Box::new(error),
                    })?),
                    None => None,
                };
                let delta_image = match &config {
                    Some(config) => DeltaImage::of(config, &environment.limits).map_err(|error| {
                        Error::Artifact { image: source.name().to_owned(), error: Box::new(error) }
                    })?,
                    None => None,
                };
                Content::Image(Box::new(Image {
                    delta_image,
                    subset: config.as_ref().and_then(Subset::of),
                    delta,
                    platform: config.as_ref().and_then(|config| config.platform().cloned()),
                    created: config.as_ref().and_then(|config| config.created().map(str::to_owned)),
                    config: manifest.config().clone(),
                    layers: manifest.layers().to_vec(),
                    diff_ids: config.map(|config| config.diff_ids().to_vec()).unwrap_or_default(),
                    artifact_type: manifest.artifact_type().map(str::to_owned),
                    annotations: manifest.annotations().clone(),
                    subject: manifest.subject().cloned(),
                }))
            }
        };
        Ok(Shown {
            digest: document.digest(),
            media_type: document.media_type().to_owned(),
            made_up: source.made_up(),
            content,
        })
    })
}
