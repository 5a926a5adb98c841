//! Where an image goes that is not to stay in the store.
//!
//! Such a place is its own source: what it has under the name that is written is used as any other source is, and
//! nothing of the image stays in the store, which is where layers are made.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Platform, Reference};
use coracle_store::{GcOptions, Lease, Store};

use super::{Pulled, Ready, Request};
use crate::artifact::layers::Image;
use crate::image::rootfs::{InTree, Record};
use crate::image::stop::Stop;
use crate::image::store::StoreSource;
use crate::image::{Environment, ImageName, Transport, copy};
use crate::input::STDIO;
use crate::subset::Selection;
use crate::{Context, Error};

/// What is at the destination.
pub(super) enum There {
    /// An image.
    Image(Box<Image>),
    /// Files of an image.
    Files(InTree),
    /// Nothing that is known.
    Nothing,
}

impl There {
    pub(super) fn look(
        to: &ImageName,
        platform: Option<&Platform>,
        environment: &Environment,
        stop: &Stop,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        match to.transport() {
            // An archive to standard output.
            Transport::OciArchive { path, .. } | Transport::DockerArchive { path, .. }
                if path.as_os_str() == STDIO =>
            {
                return Ok(There::Nothing);
            }
            // The store is looked at anyway; what a registry has would have to be fetched.
            Transport::Store(_) | Transport::Registry(_) => return Ok(There::Nothing),
            Transport::Rootfs(path) => {
                let found = Record::beside(path).ok().and_then(|record| record.in_tree());
                return Ok(found.map_or(There::Nothing, There::Files));
            }
            _ => {}
        }
        match Image::open(to, platform, environment, stop, context) {
            Ok(image) => Ok(There::Image(Box::new(image))),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            // It is not there yet, or something that will be told when it is written.
            Err(_) => Ok(There::Nothing),
        }
    }

    /// Whether it is the image with this config; in a tree, of its files the `selected` ones, or those that were.
    pub(super) fn has(&self, config: &Digest, selected: Option<&Selection>) -> bool {
        match self {
            There::Image(image) => image.config.raw().digest() == *config,
            There::Files(found) => {
                found.config == *config && selected.is_none_or(|selected| *selected == found.selection)
            }
            There::Nothing => false,
        }
    }

    /// The image, to be a source.
    pub(super) fn image(self) -> Option<Image> {
        match self {
            There::Image(image) => Some(*image),
            There::Files(_) | There::Nothing => None,
        }
    }
}

/// Puts an image of the store there.
pub(super) fn put(
    to: &ImageName,
    ready: &Ready,
    (store, lease): (&Store, Lease),
    request: &Request,
    environment: &Environment,
    context: &Context<'_>,
    pulled: &mut Pulled,
) -> Result<(), Error> {
    let name = ImageName::store(ready.name.clone());
    let source =
        StoreSource::of(&name.to_string(), store.clone(), lease, ready.config.clone(), &environment.limits)?;
    let copy = copy::Request { source: name, destination: to.clone(), platform: None, jobs: request.jobs };
    pulled.copied = Some(copy::run_from(Arc::new(source), &copy, environment, context)?);
    if !ready.named || request.private {
        tidy(store, Some(&ready.name), request, environment, context, pulled)?;
    }
    Ok(())
}

/// Removes what is not needed any more: from a store that is there for one place alone, all but one image.
pub(super) fn tidy(
    store: &Store,
    kept: Option<&Reference>,
    request: &Request,
    environment: &Environment,
    context: &Context<'_>,
    pulled: &mut Pulled,
) -> Result<(), Error> {
    if request.private {
        for held in store.readable_refs()?.0.iter().filter(|held| Some(&held.name) != kept) {
            store.remove_ref(&held.name)?;
        }
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(environment.now);
    let options = GcOptions { patience: Duration::ZERO, ..GcOptions::new(now) };
    if let Err(error) = store.gc(&options, context.observer) {
        pulled
            .notes
            .push(format!("what was made on the way is still in the store, until the next gc: {error}"));
    }
    Ok(())
}
