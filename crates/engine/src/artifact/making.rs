//! Making a layer: a delta and old files in, the layer's tar out, compared with all that is said of it.

use std::io::{self, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_codec::ReadAt;
use coracle_codec::artifact::Payload;
use coracle_codec::artifact::balena::{LayerError, delta_in};
use coracle_codec::compress;
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::native::{self, Sources};
use coracle_codec::observe::Observer;
use coracle_codec::oci::{Descriptor, LayerCompression};
use coracle_codec::rsync::{self, Joined};
use coracle_codec::source::{MergeError, MergeOptions, Source, TarSource, Tree};
use coracle_codec::{tar, tardiff};

use super::layers::Content;
use crate::Error;
use crate::image::blob::Blob;
use crate::image::stop::Stop;

/// The layers of an old image, uncompressed, in order, and the tree that they leave.
pub(crate) struct OldLayers {
    /// For messages.
    names: Vec<PathBuf>,
    diff_ids: Vec<Digest>,
    bytes: Vec<Arc<dyn ReadAt>>,
    /// The tree, unless only bytes are wanted.
    merged: Option<Tree>,
}

impl OldLayers {
    /// Layers with their diff_ids and names for messages.
    pub(crate) fn new(
        layers: Vec<(Digest, PathBuf, Arc<dyn ReadAt>)>,
        observer: &dyn Observer,
    ) -> Result<Self, Error> {
        let mut old = OldLayers::bare(layers);
        let options = MergeOptions { apply_whiteouts: true, hash: false, limits: Default::default() };
        let merged = Tree::merge(&old.bytes(), options, observer);
        old.merged = Some(merged.map_err(|error| unreadable(&old.names, error))?);
        Ok(old)
    }

    /// The same for deltas that take bytes, not files.
    pub(crate) fn bare(layers: Vec<(Digest, PathBuf, Arc<dyn ReadAt>)>) -> Self {
        let (mut names, mut diff_ids, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for (diff_id, name, layer) in layers {
            names.push(name);
            diff_ids.push(diff_id);
            bytes.push(layer);
        }
        OldLayers { names, diff_ids, bytes, merged: None }
    }

    fn bytes(&self) -> Vec<&dyn ReadAt> {
        self.bytes.iter().map(|layer| &**layer).collect()
    }

    /// What tar-diffs open: the files of all layers, or of those up to the layer `upto`.
    fn files(&self, upto: Option<Digest>, observer: &dyn Observer) -> Result<TarSource<'_>, Error> {
        match upto.and_then(|upto| self.diff_ids.iter().position(|diff_id| *diff_id == upto)) {
            None => match &self.merged {
                Some(merged) => Ok(TarSource::merged(self.bytes(), merged)),
                None => Err(Error::SelfCheck("no merged tree".into())),
            },
            Some(upto) => TarSource::new(self.bytes()[..=upto].to_vec(), Default::default(), observer)
                .map_err(|error| unreadable(&self.names, error)),
        }
    }
}

fn unreadable(names: &[PathBuf], error: MergeError) -> Error {
    match error {
        MergeError::Cancelled => Error::Cancelled,
        MergeError::Tar { layer, error } => Error::tar(&names[layer], error),
    }
}

/// What deltas start from.
pub(crate) enum OldFiles<'a> {
    Layers(&'a OldLayers),
    Tree(&'a dyn Source),
}

/// Makes layers.
pub(crate) struct Maker<'a> {
    /// The artifact, for messages.
    pub(crate) delta: &'a str,
    pub(crate) old: OldFiles<'a>,
    /// For one layer.
    pub(crate) threads: NonZeroUsize,
    pub(crate) stop: &'a Stop,
    pub(crate) limits: tardiff::Limits,
    pub(crate) native_limits: native::Limits,
}

/// Stops codecs when the work is stopped.
pub(crate) struct Watch<'a>(pub(crate) &'a Stop);

impl Observer for Watch<'_> {
    fn cancelled(&self) -> bool {
        self.0.raised()
    }
}

impl Maker<'_> {
    /// Applies a delta and compares what comes out.
    pub(crate) fn make(
        &self,
        making: &Making<'_>,
        content: Content,
        out: &mut Hashing<impl Write>,
        fail: &dyn Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        let watch = Watch(self.stop);
        let whole = content.checked.clone();
        let delta = BufReader::with_capacity(1 << 16, content.reader());
        let bound = making.bound(self.limits.max_output);
        let result = match making.payload {
            Payload::Native => {
                let limits = native::Limits { max_output: bound, ..self.native_limits };
                self.native(delta, out, &limits, making, fail, &watch)
            }
            Payload::Rsync => self.rsync(delta, out, bound, making, fail, &watch),
            Payload::TarDiff(_) | Payload::Layer => {
                let limits = tardiff::Limits { max_output: bound, ..self.limits };
                self.tar_diff(delta, out, &limits, making, fail, &watch)
            }
        };
        match result {
            Err(error @ (Error::Cancelled | Error::Write { .. } | Error::Temporary { .. })) => {
                return Err(error);
            }
            Err(error) => return Err(whole.reason(making.blob, error)),
            Ok(()) => whole.finish(making.blob)?,
        }
        let actual = out.digest();
        if actual != making.diff_id {
            return Err(Error::WrongLayer {
                image: self.delta.to_owned(),
                layer: format!("layer {}", making.number),
                expected: making.diff_id,
                actual,
            });
        }
        Ok(())
    }

    fn tar_diff(
        &self,
        delta: impl Read,
        out: &mut impl Write,
        limits: &tardiff::Limits,
        making: &Making<'_>,
        fail: &dyn Fn(io::Error) -> Error,
        watch: &Watch<'_>,
    ) -> Result<(), Error> {
        let fixed;
        let source: &dyn Source = match self.old {
            OldFiles::Tree(tree) => tree,
            OldFiles::Layers(layers) => {
                fixed = layers.files(making.from, watch)?;
                &fixed
            }
        };
        tardiff::apply(delta, source, out, limits, watch).map(|_| ()).map_err(|error| match error {
            tardiff::Error::Cancelled => Error::Cancelled,
            tardiff::Error::Write(error) => fail(error),
            tardiff::Error::ReadDelta(error) => making.blob.unreadable(error),
            error => Error::ApplyTarDiff {
                delta: self.delta.to_owned(),
                layer: making.title(),
                error: Box::new(error),
            },
        })
    }

    /// A layer of a delta image: gzip, a tar with one member, a librsync delta.
    fn rsync(
        &self,
        layer: impl Read + Send,
        out: &mut impl Write,
        bound: u64,
        making: &Making<'_>,
        fail: &dyn Fn(io::Error) -> Error,
        watch: &Watch<'_>,
    ) -> Result<(), Error> {
        let OldFiles::Layers(old) = self.old else {
            let reason = "Balena deltas start from an image, not from its files".to_owned();
            return Err(Error::Unsupported { image: self.delta.to_owned(), reason });
        };
        // Literals are as long as the output at most, and the operations that a reader takes are not five times as long.
        let limits = compress::Limits {
            max_output: bound.saturating_mul(6).saturating_add(4 << 20),
            ..compress::Limits::default()
        };
        let undecodable = |error: io::Error| match error.downcast::<compress::Error>() {
            Ok(error) => Error::Layer { image: self.delta.to_owned(), what: making.blob.title(), error },
            Err(error) => making.blob.unreadable(error),
        };
        let (_, decoded) = compress::decoder(layer, limits).map_err(undecodable)?;
        let delta = delta_in(decoded).map_err(|error| match error {
            LayerError::Tar(tar::Error::Io(error)) => undecodable(error),
            error => Error::DeltaLayer { delta: self.delta.to_owned(), layer: making.title(), error },
        })?;
        let limits = rsync::Limits { max_output: bound, ..rsync::Limits::default() };
        rsync::apply(delta, &Joined::new(old.bytes()), out, &limits, watch).map(|_| ()).map_err(|error| {
            match error {
                rsync::Error::Cancelled => Error::Cancelled,
                rsync::Error::Write(error) => fail(error),
                rsync::Error::ReadDelta(error) => undecodable(error),
                error => Error::ApplyRsync {
                    delta: self.delta.to_owned(),
                    layer: making.title(),
                    error: Box::new(error),
                },
            }
        })
    }

    fn native(
        &self,
        delta: impl Read,
        out: &mut impl Write,
        limits: &native::Limits,
        making: &Making<'_>,
        fail: &dyn Fn(io::Error) -> Error,
        watch: &Watch<'_>,
    ) -> Result<(), Error> {
        let known: Vec<(Digest, &dyn ReadAt)>;
        let sources = match self.old {
            OldFiles::Tree(tree) => Sources::Tree(tree),
            OldFiles::Layers(layers) => {
                known = layers.diff_ids.iter().copied().zip(layers.bytes()).collect();
                Sources::Known(&known)
            }
        };
        native::apply(delta, sources, out, limits, self.threads, watch).map(|_| ()).map_err(|error| {
            match error {
                native::Error::Cancelled => Error::Cancelled,
                native::Error::Write(error) => fail(error),
                native::Error::ReadDelta(error) => making.blob.unreadable(error),
                error => Error::ApplyNative {
                    delta: self.delta.to_owned(),
                    layer: making.title(),
                    error: Box::new(error),
                },
            }
        })
    }
}

/// A layer that a delta makes.
pub(crate) struct Making<'a> {
    pub(crate) number: usize,
    pub(crate) layer: &'a Descriptor,
    pub(crate) blob: &'a Blob,
    pub(crate) payload: Payload,
    pub(crate) size: Option<u64>,
    pub(crate) from: Option<Digest>,
    pub(crate) diff_id: Digest,
}

impl Making<'_> {
    fn title(&self) -> String {
        format!("layer {}", self.number)
    }

    /// Bytes that the layer can have at most: what is declared, what its compressed size allows, or what the caller
    /// does.
    fn bound(&self, policy: u64) -> u64 {
        // deflate's best is 1032 to 1 (RFC 1951: 258 bytes from two bits).
        const DEFLATE: u64 = 1032;
        let possible = match self.layer.layer_compression() {
            LayerCompression::None => self.layer.size,
            LayerCompression::Gzip => self.layer.size.saturating_mul(DEFLATE).saturating_add(1 << 16),
            LayerCompression::Zstd | LayerCompression::Unknown => u64::MAX,
        };
        self.size.unwrap_or(possible).min(policy)
    }
}
