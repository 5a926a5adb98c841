//! Looking after the store, where that takes a registry.

use std::collections::BTreeSet;

use coracle_store::{FsckOptions, FsckReport, Ref, Store};

use crate::image::{Environment, ImageName, Transport};
use crate::pull::{self, Event, Pulled};
use crate::{Context, Error};

/// What a check has found, and what became of it.
#[derive(Debug)]
pub struct Checked {
    /// The damage.
    pub report: FsckReport,
    /// Images that were pulled again: name, and what came of it.
    pub repaired: Vec<(String, Result<Pulled, Error>)>,
    /// What is damaged still, after a repair.
    pub after: Option<FsckReport>,
}

/// Looks whether the store is as it should be. With `repair`, what is damaged is removed, and the images that need it
/// are pulled again as `repair` says: the very images, whatever their tags lead to now. Blocks, and must not be called
/// on a thread of the runtime.
///
/// # Errors
/// See [`Error`]. Damage is no error.
pub fn fsck(
    options: &FsckOptions,
    repair: Option<&pull::Request>,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<Checked, Error> {
    let store = Store::open(&environment.store)?;
    let options = FsckOptions { remove_damaged: repair.is_some(), ..*options };
    let report = store.fsck(&options, context.observer)?;
    let mut checked = Checked { report, repaired: Vec::new(), after: None };
    let Some(like) = repair.filter(|_| !checked.report.damages.is_empty()) else { return Ok(checked) };
    let harmed: BTreeSet<&String> = checked.report.damages.iter().flat_map(|damage| &damage.refs).collect();
    for held in store.readable_refs()?.0 {
        if harmed.contains(&held.name.to_string()) {
            let result = again(&held, like, environment, context);
            if matches!(result, Err(Error::Cancelled)) {
                return Err(Error::Cancelled);
            }
            checked.repaired.push((held.name.to_string(), result));
        }
    }
    let options = FsckOptions { remove_damaged: false, ..options };
    checked.after = Some(store.fsck(&options, context.observer)?);
    Ok(checked)
}

/// Pulls the image that a name led to.
fn again(
    held: &Ref,
    like: &pull::Request,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<Pulled, Error> {
    let origin: ImageName = held.source.parse()?;
    let image = match origin.transport() {
        Transport::Registry(reference) => {
            ImageName::registry(reference.repository().with_digest(held.root.digest))
        }
        _ => origin.clone(),
    };
    let mut last = None;
    for entry in &held.images {
        let request = pull::Request {
            image: image.clone(),
            origin: Some(origin.clone()),
            name: Some(held.name.clone()),
            platform: entry.platform.clone(),
            ..like.clone()
        };
        last = Some(pull::run(&request, environment, context, &|_: &Event<'_>| {})?);
    }
    last.ok_or_else(|| Error::BadImage { image: held.name.to_string(), reason: "it holds no image".into() })
}
