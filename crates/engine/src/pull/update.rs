//! Pulling all tracked images again.

use coracle_codec::digest::Digest;
use coracle_store::{Ref, Store};

use super::{Event, Pulled, Request, run};
use crate::image::{Environment, ImageName};
use crate::{Context, Error};

/// What became of one name.
#[derive(Debug)]
pub struct Updated {
    /// Its name in the store; of an entry that cannot be read, the entry.
    pub name: String,
    /// What it was before; `None` if that cannot be read.
    pub before: Option<Digest>,
    /// What came of it: one image for each platform that was there.
    pub result: Result<Vec<Pulled>, Error>,
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
    if !environment.store.exists() {
        return Ok(Vec::new());
    }
    let (names, damaged) = Store::open(&environment.store)?.readable_refs()?;
    let mut all: Vec<Updated> = damaged
        .into_iter()
        .map(|error| {
            let name = match &error {
                coracle_store::Error::Ref { path, .. } => path.display().to_string(),
                _ => "an entry of the store".to_owned(),
            };
            Updated { name, before: None, result: Err(error.into()) }
        })
        .collect();
    for held in names.into_iter().filter(|held| held.tracked) {
        let name = held.name.to_string();
        let tell = |event: &Event<'_>| events(&name, event);
        let result = one(&held, like, environment, context, &tell);
        if matches!(result, Err(Error::Cancelled)) {
            return Err(Error::Cancelled);
        }
        all.push(Updated { before: Some(held.root.digest), result, name });
    }
    Ok(all)
}

/// Pulls what a name led to, for each platform that is here; nearly always one.
fn one(
    held: &Ref,
    like: &Request,
    environment: &Environment,
    context: &Context<'_>,
    events: &(dyn Fn(&Event<'_>) + Sync),
) -> Result<Vec<Pulled>, Error> {
    let image: ImageName = held.source.parse()?;
    let mut pulled = Vec::new();
    for entry in &held.images {
        let platform = entry.platform.clone().or_else(|| like.platform.clone());
        let request =
            Request { image: image.clone(), name: Some(held.name.clone()), platform, ..like.clone() };
        pulled.push(run(&request, environment, context, events)?);
    }
    Ok(pulled)
}
