//! Removing deltas that nobody needs any more.

use std::time::{Duration, SystemTime};

use coracle_codec::artifact::Artifact;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Document, Platform};
use coracle_registry::Error as WireError;
use jiff::Timestamp;

use super::layers::Image;
use super::list::{Entry, created, images, target};
use super::publish::Board;
use crate::image::copy::stoppable;
use crate::image::{Environment, ImageName, Transport};
use crate::{Context, Error};

/// Which deltas to remove. With both rules, those that both let go.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image that they lead to, in a registry.
    pub image: ImageName,
    /// Of an index only the image for this platform.
    pub platform: Option<Platform>,
    /// Keep those from so many sources, the latest.
    pub keep_sources: Option<usize>,
    /// Keep those whose source was made within this time, or at a time that is not known.
    pub older_than: Option<Duration>,
    /// Now.
    pub now: SystemTime,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Debug, Clone)]
pub struct Pruned {
    /// Deltas that were removed, or would be.
    pub removed: Vec<Entry>,
    /// Deltas that stay.
    pub kept: Vec<Entry>,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Removes deltas between images. Each is looked at before: only what is a delta to this very image is deleted. Blocks,
/// and must not be called on a thread of the runtime.
///
/// # Errors
/// See [`Error`]; a registry that does not allow deleting says so at the first one.
pub fn run(request: &Request, environment: &Environment, context: &Context<'_>) -> Result<Pruned, Error> {
    stoppable(context, |stop| {
        let text = request.image.to_string();
        let Transport::Registry(reference) = request.image.transport() else {
            let reason = "deltas are pruned in registries".to_owned();
            return Err(Error::Unsupported { image: text, reason });
        };
        let source = environment.source(&request.image, stop, context)?;
        let mut pruned = Pruned { removed: Vec::new(), kept: Vec::new(), notes: Vec::new() };
        let board = Board {
            name: &text,
            wire: environment.wire(stop),
            repository: reference.repository(),
            limits: &environment.limits,
        };
        for image in images(&source, request.platform.as_ref(), environment)? {
            let (removed, kept) = choose(request, &image, environment, &mut pruned.notes)?;
            for entry in removed {
                if stop.raised() {
                    return Err(Error::Cancelled);
                }
                if !is_delta(&entry, &image)? {
                    pruned
                        .notes
                        .push(format!("{} is listed as a delta, but is none to this image", entry.digest));
                    pruned.kept.push(entry);
                    continue;
                }
                if !request.dry_run {
                    delete(&board, &image.manifest.digest(), &entry.digest, pruned.removed.len())?;
                }
                pruned.removed.push(entry);
            }
            pruned.kept.extend(kept);
        }
        Ok(pruned)
    })
}

/// Those to remove, and those that stay.
fn choose(
    request: &Request,
    image: &Image,
    environment: &Environment,
    notes: &mut Vec<String>,
) -> Result<(Vec<Entry>, Vec<Entry>), Error> {
    let (mut between_images, between_layers): (Vec<Entry>, Vec<Entry>) =
        target(image, environment)?.deltas.into_iter().partition(|entry| entry.layer.is_none());
    if !between_layers.is_empty() {
        notes.push(format!("{} deltas between layers are left alone", between_layers.len()));
    }
    for entry in &mut between_images {
        if let (None, Some(source)) = (&entry.source_created, &entry.source) {
            entry.source_created = created(source, image, environment)?;
        }
    }
    // Latest first; a source of unknown age is as old as can be.
    between_images.sort_by_key(|entry| std::cmp::Reverse(instant(entry)));
    let since = request.older_than.and_then(|age| {
        let since = request.now.checked_sub(age)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok()
    });
    let mut sources: Vec<Option<Digest>> = Vec::new();
    let (mut removed, mut kept) = (Vec::new(), between_layers);
    for entry in between_images {
        let key = entry.source_config.or(entry.source);
        let rank = sources.iter().position(|other| *other == key).unwrap_or_else(|| {
            sources.push(key);
            sources.len() - 1
        });
        let too_many = request.keep_sources.map(|keep| rank >= keep);
        let too_old = request
            .older_than
            .map(|_| since.is_some_and(|since| instant(&entry).is_some_and(|created| created < since)));
        let goes = match (too_many, too_old) {
            (Some(many), Some(old)) => many && old,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => false,
        };
        if goes { removed.push(entry) } else { kept.push(entry) }
    }
    Ok((removed, kept))
}

/// When the source of a delta was made.
fn instant(entry: &Entry) -> Option<Timestamp> {
    entry.source_created.as_ref()?.parse().ok()
}

/// Whether the document itself says that it is a delta to this image.
fn is_delta(entry: &Entry, image: &Image) -> Result<bool, Error> {
    let Some(Document::Manifest(manifest)) = image.source.known(&entry.digest)? else { return Ok(true) };
    Ok(Artifact::parse(&manifest)
        .is_ok_and(|artifact| artifact.target_manifest.digest == image.manifest.digest()))
}

fn delete(board: &Board<'_>, subject: &Digest, digest: &Digest, before: usize) -> Result<(), Error> {
    let client = &board.wire.client;
    match board.wire.wait(board.name, client.delete_manifest(board.repository, digest)) {
        Ok(_) => {}
        Err(Error::Registry { error, .. })
            if matches!(*error, WireError::Status { status: 400 | 405 | 501, .. }) =>
        {
            let reason =
                format!("the registry does not allow deleting ({error}); {before} were removed before");
            return Err(Error::Unsupported { image: board.name.to_owned(), reason });
        }
        Err(error) => return Err(error),
    }
    board.forget(subject, digest)
}
