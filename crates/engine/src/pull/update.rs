//! Pulling all tracked images again.

use coracle_store::Store;

use super::{Event, Pulled, Request, run};
use crate::image::{Environment, ImageName};
use crate::{Context, Error};

/// What became of one image.
#[derive(Debug)]
pub struct Updated {
    /// Its name in the store.
    pub name: String,
    /// What it was before.
    pub before: coracle_codec::digest::Digest,
    /// What came of it.
    pub result: Result<Pulled, Error>,
}

/// Pulls each tracked image of the store as `like` says. An image that fails does not keep the others from being
/// updated. Blocks, and must not be called on a thread of the runtime.
///
/// # Errors
/// The store cannot be read; [`Error::Cancelled`].
pub fn update(
    like: &Request,
    environment: &Environment,
    context: &Context<'_>,
    events: &(dyn Fn(&str, &Event<'_>) + Sync),
) -> Result<Vec<Updated>, Error> {
    let store = Store::open_or_create(&environment.store, coracle_store::Options::default())?;
    let mut all = Vec::new();
    for held in store.refs()? {
        if !held.tracked {
            continue;
        }
        let name = held.name.to_string();
        let pull = |image: ImageName| {
            let platforms: Vec<_> = held.images.iter().map(|image| image.platform.clone()).collect();
            let mut last = None;
            // Each platform that is here; nearly always one.
            for platform in platforms {
                let platform = platform.or_else(|| like.platform.clone());
                let request =
                    Request { image: image.clone(), name: Some(held.name.clone()), platform, ..like.clone() };
                last = Some(run(&request, environment, context, &|event| events(&name, event))?);
            }
            last.ok_or_else(|| Error::BadImage { image: name.clone(), reason: "it holds no image".into() })
        };
        let result = held.source.parse().and_then(pull);
        if matches!(result, Err(Error::Cancelled)) {
            return Err(Error::Cancelled);
        }
        all.push(Updated { name, before: held.root.digest, result });
    }
    Ok(all)
}
