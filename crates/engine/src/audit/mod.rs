//! What is in an image, without unpacking it: lists of files, single files, and how two images differ.
//!
//! A layer of an image in a registry that is in the store is read from there, by the diff_id that the config says. Of other
//! chunked layers the table of contents is read, and of contents only what is asked for, by ranges. All others are
//! fetched whole, and compared with manifest and config. A table of contents is what the manifest says it is; that it tells
//! the same as the tar is compared where a layer has a tar-split, and only the pull of an image compares all of it.

mod compare;
mod files;
mod here;
mod packages;
mod tree;

pub use compare::{Change, Compared, compare};
pub use packages::{Package, PackageChange};
pub use tree::{FileKind, Member};

use std::io::Write;
use std::sync::Arc;

use coracle_codec::oci::Platform;
use coracle_codec::tar::clean_path;

use crate::artifact::layers::Image;
use crate::image::blob::Progress;
use crate::image::copy::working;
use crate::image::{Environment, ImageName, Transport};
use crate::subset::Subset;
use crate::{Context, Error};

use files::Files;
use here::Here;

/// An image to look into.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its name.
    pub image: ImageName,
    /// Of an index the image for this platform; by default for this machine.
    pub platform: Option<Platform>,
    /// Layers at a time.
    pub jobs: usize,
}

/// How layers were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct How {
    /// Layers of an image in a registry that were read from the store.
    pub stored: u64,
    /// Layers of which parts were read by ranges.
    pub ranged: u64,
    /// Layers that were fetched whole.
    pub whole: u64,
    /// Requests to registries.
    pub requests: u64,
    /// Bytes received from there.
    pub received: u64,
}

/// A list of files.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The files, in order of their paths.
    pub members: Vec<Member>,
    /// What it is a part of, if it is only a part of an image.
    pub subset: Option<Subset>,
    /// How layers were read.
    pub how: How,
}

/// Lists what is at `path` and below it; all of it without one. With `digests`, contents of layers that are not chunked are
/// hashed, too.
///
/// # Errors
/// See [`Error`]; [`Error::NoSuchFile`] if nothing is there.
pub fn list(
    request: &Request,
    path: Option<&[u8]>,
    digests: bool,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<Listed, Error> {
    counted(environment, context, |progress| {
        let files = files(request, digests, environment, progress, context)?;
        let wanted = clean_path(path.unwrap_or_default()).unwrap_or_default();
        let members: Vec<Member> = files.tree.below(&wanted).cloned().collect();
        if members.is_empty() && path.is_some() && !wanted.is_empty() {
            return Err(no_such_file(request, &wanted));
        }
        Ok((Listed { members, subset: files.subset(), how: How::default() }, files.how))
    })
    .map(|(listed, how)| Listed { how, ..listed })
}

/// Writes the content of one regular file to `out`; symbolic links are followed inside of the image.
///
/// # Errors
/// As [`list`]; it is no regular file, or cannot be written.
pub fn cat(
    request: &Request,
    path: &[u8],
    out: &mut dyn Write,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<How, Error> {
    counted(environment, context, |progress| {
        let files = files(request, false, environment, progress, context)?;
        let Some(member) = files.tree.resolve(path) else {
            return Err(no_such_file(request, path));
        };
        if member.kind != FileKind::File {
            let (image, path) = (request.image.to_string(), String::from_utf8_lossy(path).into_owned());
            return Err(Error::Unsupported { image, reason: format!("{path} is no regular file") });
        }
        files.read(member, out)?;
        Ok(((), files.how))
    })
    .map(|((), how)| how)
}

fn no_such_file(request: &Request, path: &[u8]) -> Error {
    let (image, path) = (request.image.to_string(), String::from_utf8_lossy(path).into_owned());
    Error::NoSuchFile { image, path }
}

/// Opens an image and reads the lists of its layers.
fn files(
    request: &Request,
    digests: bool,
    environment: &Environment,
    progress: &Arc<Progress>,
    context: &Context<'_>,
) -> Result<Files, Error> {
    let platform = request.platform.as_ref();
    let image = Image::open(&request.image, platform, environment, &progress.stop, context)?;
    let here = match request.image.transport() {
        Transport::Registry(_) => {
            let (diff_ids, blobs) = (image.config.diff_ids(), image.manifest.layers());
            Here::find(diff_ids, blobs, request.jobs, environment, &progress.stop)?
        }
        _ => Here::default(),
    };
    Files::open(image, here, request.jobs, digests, environment, progress, context)
}

/// Does `work` and adds what it took of the network.
fn counted<R>(
    environment: &Environment,
    context: &Context<'_>,
    work: impl FnOnce(&Arc<Progress>) -> Result<(R, How), Error>,
) -> Result<(R, How), Error> {
    let before = environment.client.traffic();
    let (result, how) = working(context, work)?;
    let after = environment.client.traffic();
    let (requests, received) = (after.requests - before.requests, after.received - before.received);
    Ok((result, How { requests, received, ..how }))
}
