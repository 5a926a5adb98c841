//! Deltas from a layout or an archive into a registry.

use std::num::NonZeroUsize;

use coracle_codec::artifact::Artifact;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Document, Version};

use super::publish::Board;
use crate::image::copy::working;
use crate::image::{Environment, ImageName, Transport};
use crate::{Context, Error};

/// What to push where.
#[derive(Debug, Clone)]
pub struct Request {
    /// A delta artifact, or a list of them.
    pub delta: ImageName,
    /// The repository, in a registry; with a tag, the first delta gets it.
    pub to: ImageName,
    /// Whether the tag was given, and not just the one that names without a tag have.
    pub tagged: bool,
    /// Blobs at a time.
    pub jobs: NonZeroUsize,
}

/// A delta that was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Digest of the artifact's manifest.
    pub digest: Digest,
    /// The image that it leads to.
    pub target: Digest,
    /// Bytes of its content for layers.
    pub bytes: u64,
    /// Whether the repository has that image.
    pub target_there: bool,
}

/// Pushes deltas, and lists each with its target. Blocks, and must not be called on a thread of the runtime.
///
/// # Errors
/// See [`Error`]. What was pushed before stays.
pub fn run(
    request: &Request,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<Vec<Pushed>, Error> {
    working(context, |progress| {
        let name = request.to.to_string();
        let Transport::Registry(reference) = request.to.transport() else {
            let reason = "deltas are pushed into registries".to_owned();
            return Err(Error::Unsupported { image: name, reason });
        };
        let source = environment.source(&request.delta, &progress.stop, context)?;
        let mut deltas = Vec::new();
        match source.root()? {
            Document::Manifest(manifest) => deltas.push(manifest),
            Document::Index(index) => {
                for entry in index.manifests() {
                    if let Document::Manifest(manifest) = source.document(entry)? {
                        deltas.push(manifest);
                    }
                }
            }
        }
        let board = Board {
            name: &name,
            wire: environment.wire(&progress.stop),
            repository: reference.repository(),
            limits: &environment.limits,
        };
        let mut pushed = Vec::new();
        for manifest in deltas {
            let artifact = Artifact::parse(&manifest).map_err(|error| Error::Artifact {
                image: source.name().to_owned(),
                error: Box::new(error),
            })?;
            let document = Document::Manifest(manifest);
            let target = artifact.target_manifest.digest;
            // Before its manifest lies there as a blob, which some registries take for the same.
            let image = reference.repository().with_digest(target);
            let there = board.wire.client.manifest_digest(&image);
            let target_there = board.wire.wait(&name, there)?.is_some();
            board.push_blobs(&source, &document, request.jobs.get(), context, progress)?;
            let tag = reference.tag().filter(|_| request.tagged && pushed.is_empty());
            let version = tag.map_or(Version::Digest(document.digest()), |tag| Version::Tag(tag.to_owned()));
            board.refer(&version, &document)?;
            pushed.push(Pushed {
                digest: document.digest(),
                target,
                bytes: artifact.layer_bytes(),
                target_there,
            });
        }
        Ok(pushed)
    })
}
