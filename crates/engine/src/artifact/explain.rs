//! What each file of the target image costs in a delta artifact.

use std::io::BufReader;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use coracle_codec::ReadAt;
use coracle_codec::artifact::balena::delta_in;
use coracle_codec::artifact::{Dialect, Payload};
use coracle_codec::delta::Cost;
use coracle_codec::digest::Digest;
use coracle_codec::native::{self, Sources};
use coracle_codec::oci::Platform;
use coracle_codec::{compress, rsync, tardiff};

use super::apply::Base;
use super::apply::find::{Content, Finder};
use super::layers::{self, Image, Reading, bytes, merge, old_files};
use crate::image::blob::Blob;
use crate::image::copy::working;
use crate::image::{Environment, ImageName};
use crate::{Context, Error};

/// What to explain.
#[derive(Debug, Clone)]
pub struct Request {
    /// The source.
    pub old: ImageName,
    /// The target.
    pub new: ImageName,
    /// The delta between them; the target again, to take the one that lies beside it.
    pub delta: ImageName,
    /// Of lists the one for this platform.
    pub platform: Option<Platform>,
    /// Layers unpacked at a time.
    pub jobs: NonZeroUsize,
    /// Bounds for tar-diffs.
    pub limits: tardiff::Limits,
    /// Bounds for native deltas.
    pub native_limits: native::Limits,
}

/// The costs of an artifact.
#[derive(Debug, Clone)]
pub struct Explained {
    /// Its form.
    pub dialect: Dialect,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Bytes of its content for layers.
    pub bytes: u64,
    /// The layers of the target.
    pub layers: Vec<Layer>,
    /// The members of all layers that deltas make.
    pub members: Vec<Member>,
}

impl Explained {
    /// Members of a layer: name, bytes of content, how each is made, bytes of the delta.
    fn add(&mut self, layer: usize, rows: impl Iterator<Item = (Vec<u8>, u64, Cost, u64)>) {
        self.members.extend(rows.map(|(path, size, cost, delta_bytes)| Member {
            layer,
            path,
            size,
            cost,
            delta_bytes,
        }));
    }
}

/// What a layer costs.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Its number.
    pub number: usize,
    /// Its diff_id.
    pub diff_id: Digest,
    /// Bytes of content for it; 0 if the source has it.
    pub bytes: u64,
    /// What the content is; `None` if the source has the layer.
    pub payload: Option<Payload>,
}

/// What a member of a layer costs.
#[derive(Debug, Clone)]
pub struct Member {
    /// Number of the layer.
    pub layer: usize,
    /// Its name.
    pub path: Vec<u8>,
    /// Bytes of its content.
    pub size: u64,
    /// How it is made.
    pub cost: Cost,
    /// Bytes of the delta, estimated so that all members of a layer give the exact size of its delta.
    pub delta_bytes: u64,
}

/// Attributes the bytes of an artifact to the members of the target's layers. Blocks, and must not be called on a thread
/// of the runtime.
///
/// # Errors
/// See [`Error`].
pub fn run(request: &Request, environment: &Environment, context: &Context<'_>) -> Result<Explained, Error> {
    working(context, |progress| {
        let platform = request.platform.as_ref();
        let old = Image::open(&request.old, platform, environment, &progress.stop, context)?;
        let new = Image::open(&request.new, platform, environment, &progress.stop, context)?;
        let base = Base::Image(request.old.clone());
        let finder = Finder {
            delta: &request.delta,
            base: &base,
            platform,
            environment,
            context,
            stop: &progress.stop,
        };
        let wanted = finder.find(Some(&old))?;
        if wanted.target.config.raw().digest() != new.config.raw().digest() {
            let base = request.new.to_string();
            let (expected, actual) = (wanted.target.config.raw().digest(), new.config.raw().digest());
            return Err(Error::WrongBase { delta: wanted.name, wanted: expected, base, actual });
        }
        let reading =
            Reading { jobs: request.jobs.get(), progress, temp_dir: &context.temp_dir, environment };
        let all: Vec<usize> = (0..old.config.diff_ids().len()).collect();
        let changed: Vec<usize> = wanted
            .contents
            .iter()
            .enumerate()
            .filter(|(_, content)| matches!(content, Content::Delta { .. }))
            .map(|(number, _)| number)
            .collect();
        let old_layers = old.unpack(&all, &reading)?;
        let new_layers = new.unpack(&changed, &reading)?;
        let archives = old_layers.in_order(old.config.diff_ids());
        let merged = merge(&archives, false, context.observer)?;
        let known: Vec<(Digest, &dyn ReadAt)> =
            old.config.diff_ids().iter().copied().zip(bytes(&archives)).collect();
        let mut found = Explained {
            dialect: wanted.dialect,
            digest: wanted.delta,
            bytes: wanted.contents.iter().map(Content::bytes).sum(),
            layers: Vec::new(),
            members: Vec::new(),
        };
        for (number, (content, &diff_id)) in
            wanted.contents.iter().zip(wanted.target.config.diff_ids()).enumerate()
        {
            let bytes = content.bytes();
            let mut layer = Layer { number, diff_id, bytes, payload: None };
            match content {
                Content::Source => {}
                Content::Target(_) => layer.payload = Some(Payload::Layer),
                Content::Delta { blob, from, .. } => {
                    let blob = Blob {
                        source: Arc::clone(&wanted.source),
                        descriptor: blob.clone(),
                        what: format!("content for layer {number}"),
                        progress: Arc::clone(progress),
                    };
                    let content = layers::Content::open(&blob)?;
                    let payload = wanted.payload(&content);
                    layer.payload = Some(payload);
                    let delta = BufReader::new(content.reader());
                    let Some(new_layer) = new_layers.get(&diff_id) else { continue };
                    let title = format!("layer {number}");
                    match payload {
                        Payload::Layer => {}
                        Payload::Rsync => {
                            let path = || title.clone().into();
                            let (_, layer) = compress::decoder(delta, environment.archive_limits)
                                .map_err(|error| Error::read(Path::new(&title), error))?;
                            let delta = delta_in(layer).map_err(|error| Error::DeltaLayer {
                                delta: wanted.name.clone(),
                                layer: title.clone(),
                                error,
                            })?;
                            let limits = rsync::Limits::default();
                            let told = rsync::explain(delta, new_layer.bytes(), &limits, context.observer)
                                .map_err(|error| Error::ExplainRsync { path: path(), error })?;
                            // What gzip made of it, shared out by bytes before.
                            let share = |raw: u64| {
                                (u128::from(raw) * u128::from(bytes) / u128::from(told.delta_bytes.max(1)))
                                    as u64
                            };
                            let rows = told.members.into_iter();
                            found.add(number, rows.map(|m| (m.path, m.size, m.cost, share(m.delta_bytes))));
                        }
                        Payload::Native => {
                            let limits = &request.native_limits;
                            let sources = Sources::Known(&known);
                            let told =
                                native::explain(delta, sources, new_layer.bytes(), limits, context.observer)
                                    .map_err(|error| Error::ExplainNative { path: title.into(), error })?;
                            let rows = told.members.into_iter();
                            found.add(number, rows.map(|m| (m.path, m.size, m.cost, m.delta_bytes)));
                        }
                        Payload::TarDiff(_) => {
                            let upto = from.and_then(|from| {
                                old.config.diff_ids().iter().position(|other| *other == from)
                            });
                            let source = old_files(&archives, &merged, upto, context.observer)?;
                            let limits = &request.limits;
                            let told =
                                tardiff::explain(delta, new_layer.bytes(), &source, limits, context.observer)
                                    .map_err(|error| Error::Explain { path: title.into(), error })?;
                            let rows = told.members.into_iter();
                            found.add(number, rows.map(|m| (m.path, m.size, m.cost, m.delta_bytes)));
                        }
                    }
                }
            }
            found.layers.push(layer);
        }
        Ok(found)
    })
}
