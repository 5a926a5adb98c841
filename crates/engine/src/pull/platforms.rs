//! Pulling the images of an index for all platforms.

use coracle_codec::oci::{Document, Platform};

use super::{Event, Pulled, Request, run};
use crate::image::Environment;
use crate::image::copy::stoppable;
use crate::{Context, Error};

/// Pulls the images for all platforms that the name leads to, one after the other; one that is no index is pulled as it
/// is. Blocks, and must not be called on a thread of the runtime.
///
/// # Errors
/// Those of [`run`]: images that were pulled before it stay, under the name. [`Error::Unsupported`] if they are to go
/// elsewhere: only the store holds several under one name.
pub fn run_all(
    request: &Request,
    environment: &Environment,
    context: &Context<'_>,
    events: &(dyn Fn(&Event<'_>) + Sync),
) -> Result<Vec<Pulled>, Error> {
    if let Some(to) = &request.to {
        let reason = "images for several platforms go into the store only".to_owned();
        return Err(Error::Unsupported { image: to.to_string(), reason });
    }
    let platforms = stoppable(context, |stop| {
        let source = environment.source(&request.image, stop, context)?;
        Ok(platforms(&source.root()?))
    })?;
    let pull = |platform| run(&Request { platform, ..request.clone() }, environment, context, events);
    if platforms.is_empty() {
        return Ok(vec![pull(None)?]);
    }
    platforms.into_iter().map(|platform| pull(Some(platform))).collect()
}

/// What an index has images for, in its order. Attestations say that they are for an unknown platform.
fn platforms(root: &Document) -> Vec<Platform> {
    let Document::Index(index) = root else { return Vec::new() };
    let mut all: Vec<Platform> = Vec::new();
    for platform in index.manifests().iter().filter_map(|entry| entry.platform.as_ref()) {
        if platform.os != "unknown" && !all.contains(platform) {
            all.push(platform.clone());
        }
    }
    all
}
