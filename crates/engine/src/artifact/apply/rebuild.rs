//! Layers: made by deltas, taken whole, or found in the source.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coracle_codec::ReadAt;
use coracle_codec::artifact::Payload;
use coracle_codec::compress::{GzipWriter, ZstdWriter, ZstdWriterOptions};
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::native::{self, Sources};
use coracle_codec::observe::Observer;
use coracle_codec::oci::{Descriptor, LayerCompression};
use coracle_codec::source::{Source, Tree};
use coracle_codec::tardiff;
use coracle_sys::spool::spool_file;

use super::find::{Content, Wanted};
use super::{From, How, Ready, Work, blob, layer_type};
use crate::Error;
use crate::artifact::held::Held;
use crate::artifact::layers::{self, Image};
use crate::artifact::ostree;
use crate::image::Destination;
use crate::image::blob::Blob;
use crate::image::stop::Stop;
use crate::input::Archive;
use crate::source::TreeSource;

/// Level of zstd for layers that are made anew: most of what level 19 saves, at a tenth of its time.
const ZSTD_LEVEL: i32 = 9;

/// Old files.
pub(super) enum Old {
    /// An image with its layers, in order, if a delta needs them, and the tree that they leave.
    Image {
        image: Box<Image>,
        archives: Vec<Arc<Archive>>,
        merged: Tree,
    },
    Tree(TreeSource),
    Ostree(ostree::Tree),
}

pub(super) struct Rebuilder<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) wanted: &'a Wanted,
    pub(super) old: &'a Old,
    pub(super) compression: LayerCompression,
    pub(super) destination: &'a dyn Destination,
}

/// Stops codecs when the work is stopped.
struct Watch<'a>(&'a Stop);

impl Observer for Watch<'_> {
    fn cancelled(&self) -> bool {
        self.0.raised()
    }
}

impl Rebuilder<'_> {
    /// Makes or finds layer `number`.
    pub(super) fn layer(&self, number: usize) -> Result<Ready, Error> {
        let layer = &self.wanted.target.manifest.layers()[number];
        let diff_id = self.wanted.target.config.diff_ids()[number];
        match &self.wanted.contents[number] {
            Content::Source => self.have(layer, &diff_id),
            Content::Target(layer) => Ok(Ready {
                descriptor: layer.clone(),
                how: How::Fetched,
                from: Some(From::Source(Arc::clone(&self.wanted.source))),
            }),
            Content::Delta { blob: content, size, from } => {
                let blob = blob(
                    &self.wanted.source,
                    content,
                    format!("content for layer {number}"),
                    self.work.progress,
                );
                let content = layers::Content::open(&blob)?;
                match content.payload() {
                    Payload::Layer => self.whole(layer, &blob, content, &diff_id),
                    payload => {
                        let making =
                            Making { number, layer, blob: &blob, payload, size: *size, from: *from, diff_id };
                        self.make(&making, content)
                    }
                }
            }
        }
    }

    fn have(&self, layer: &Descriptor, diff_id: &Digest) -> Result<Ready, Error> {
        if let Old::Image { image, .. } = self.old
            && let Some(at) = image.config.diff_ids().iter().position(|other| other == diff_id)
        {
            let mut descriptor = image.manifest.layers()[at].clone();
            descriptor.annotations.clear();
            descriptor.media_type =
                self.type_of(descriptor.layer_compression(), self.wanted.target.manifest.media_type())?;
            return Ok(Ready {
                descriptor,
                how: How::Source,
                from: Some(From::Source(Arc::clone(&image.source))),
            });
        }
        // Asked for: see `Request::partial`.
        Ok(Ready { descriptor: layer.clone(), how: How::Left, from: None })
    }

    fn type_of(&self, compression: LayerCompression, manifest: &str) -> Result<String, Error> {
        layer_type(manifest, compression)
            .map(str::to_owned)
            .map_err(|reason| Error::Unsupported { image: self.work.request.destination.to_string(), reason })
    }

    /// The layer itself as content: looked at before it is sent.
    fn whole(
        &self,
        layer: &Descriptor,
        blob: &Blob,
        content: layers::Content,
        diff_id: &Digest,
    ) -> Result<Ready, Error> {
        let limits = self.work.environment.archive_limits;
        let fail = |error| Error::Write { path: "nowhere".into(), error };
        let compression =
            layers::decode(blob, content, diff_id, limits, &mut Hashing::new(io::sink()), fail)?;
        let mut descriptor = layer.clone();
        if blob.descriptor.digest != layer.digest {
            let compression = layers::layer_compression(compression);
            descriptor = Descriptor::new(
                &self.type_of(compression, self.wanted.target.manifest.media_type())?,
                blob.descriptor.digest,
                blob.descriptor.size,
            );
        }
        descriptor.size = blob.descriptor.size;
        Ok(Ready { descriptor, how: How::Whole, from: Some(From::Source(Arc::clone(&blob.source))) })
    }

    /// Makes a layer from a delta, straight into the destination if that can take it.
    fn make(&self, making: &Making<'_>, content: layers::Content) -> Result<Ready, Error> {
        let how = How::Delta(making.payload);
        let media = self.type_of(self.compression, self.wanted.target.manifest.media_type())?;
        let mut content = Some(content);
        let put = self.destination.put_new(&mut |out: &mut dyn Write| {
            let Some(content) = content.take() else {
                return Err(Error::SelfCheck("a layer was asked for twice".into()));
            };
            let fail = |error| Error::Write { path: self.work.request.destination.to_string().into(), error };
            self.write(making, content, out, &fail)
        })?;
        if let Some((digest, size)) = put {
            return Ok(Ready { descriptor: Descriptor::new(&media, digest, size), how, from: None });
        }
        let Some(content) = content.take() else {
            return Err(Error::SelfCheck("a layer went astray".into()));
        };
        let dir = &self.work.context.temp_dir;
        let temporary = |error| Error::Temporary { dir: dir.clone(), error };
        let file = spool_file(dir).map_err(temporary)?;
        let mut out = Hashing::new(BufWriter::with_capacity(1 << 18, file));
        self.write(making, content, &mut out, &temporary)?;
        out.flush().map_err(temporary)?;
        let (out, digest, size) = out.finish();
        let file: File = out.into_inner().map_err(|e| temporary(e.into_error()))?;
        Ok(Ready {
            descriptor: Descriptor::new(&media, digest, size),
            how,
            from: Some(From::Held(Held::File(Arc::new(file)))),
        })
    }

    /// Writes a layer, compressed as wanted, and compares it before the last byte is out.
    fn write(
        &self,
        making: &Making<'_>,
        content: layers::Content,
        out: &mut dyn Write,
        fail: &dyn Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        match self.compression {
            LayerCompression::Gzip | LayerCompression::Unknown => {
                let mut gzip = GzipWriter::new(out);
                self.apply(making, content, &mut gzip, fail)?;
                gzip.finish().map_err(fail)?;
            }
            LayerCompression::Zstd => {
                let options = ZstdWriterOptions { level: ZSTD_LEVEL, ..ZstdWriterOptions::default() };
                let mut zstd = ZstdWriter::new(out, options).map_err(fail)?;
                self.apply(making, content, &mut zstd, fail)?;
                zstd.finish().map_err(fail)?;
            }
            LayerCompression::None => self.apply(making, content, out, fail)?,
        }
        Ok(())
    }

    /// Applies a delta and compares what comes out.
    fn apply(
        &self,
        making: &Making<'_>,
        content: layers::Content,
        out: &mut dyn Write,
        fail: &dyn Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        let watch = Watch(self.work.stop);
        let whole = content.checked.clone();
        let delta = BufReader::with_capacity(1 << 16, content.reader());
        let mut out = Hashing::new(out);
        let bound = making.bound(self.work.request.limits.max_output);
        let result = match making.payload {
            Payload::Native => {
                let limits = native::Limits { max_output: bound, ..self.work.request.native_limits };
                self.native(delta, &mut out, &limits, making, fail, &watch)
            }
            _ => {
                let limits = tardiff::Limits { max_output: bound, ..self.work.request.limits };
                self.tar_diff(delta, &mut out, &limits, making, fail, &watch)
            }
        };
        // Wrong bytes are the reason for all that comes of them.
        match result {
            Err(error @ (Error::Cancelled | Error::Write { .. } | Error::Temporary { .. })) => {
                return Err(error);
            }
            Err(error) => return Err(whole.finish(making.blob).err().unwrap_or(error)),
            Ok(()) => whole.finish(making.blob)?,
        }
        let (_, actual, size) = out.finish();
        self.wanted.rebuilt.fetch_add(size, Ordering::Relaxed);
        if actual != making.diff_id {
            return Err(Error::WrongLayer {
                image: self.wanted.name.clone(),
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
            Old::Tree(tree) => tree,
            Old::Ostree(tree) => tree,
            Old::Image { image, archives, merged } => {
                let number = |from| image.config.diff_ids().iter().position(|diff_id| *diff_id == from);
                fixed = layers::old_files(archives, merged, making.from.and_then(number), watch)?;
                &fixed
            }
        };
        tardiff::apply(delta, source, out, limits, watch).map(|_| ()).map_err(|error| match error {
            tardiff::Error::Cancelled => Error::Cancelled,
            tardiff::Error::Write(error) => fail(error),
            tardiff::Error::ReadDelta(error) => making.blob.unreadable(error),
            error => Error::ApplyTarDiff {
                delta: self.wanted.name.clone(),
                layer: making.title(),
                error: Box::new(error),
            },
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
            Old::Image { image, archives, .. } => {
                known = image.config.diff_ids().iter().copied().zip(layers::bytes(archives)).collect();
                Sources::Known(&known)
            }
            Old::Tree(tree) => Sources::Tree(tree),
            Old::Ostree(tree) => Sources::Tree(tree),
        };
        // Layers side by side share the threads.
        let made =
            self.wanted.contents.iter().filter(|content| matches!(content, Content::Delta { .. })).count();
        let threads =
            NonZeroUsize::new(self.work.request.jobs.get() / made.max(1)).unwrap_or(NonZeroUsize::MIN);
        native::apply(delta, sources, out, limits, threads, watch).map(|_| ()).map_err(|error| match error {
            native::Error::Cancelled => Error::Cancelled,
            native::Error::Write(error) => fail(error),
            native::Error::ReadDelta(error) => making.blob.unreadable(error),
            error => Error::ApplyNative {
                delta: self.wanted.name.clone(),
                layer: making.title(),
                error: Box::new(error),
            },
        })
    }
}

/// A layer that a delta makes.
struct Making<'a> {
    number: usize,
    layer: &'a Descriptor,
    blob: &'a Blob,
    payload: Payload,
    size: Option<u64>,
    from: Option<Digest>,
    diff_id: Digest,
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
