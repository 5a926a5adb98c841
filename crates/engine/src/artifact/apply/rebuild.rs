//! Layers: made by deltas, taken whole, or found in the source.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coracle_codec::artifact::Payload;
use coracle_codec::compress::{GzipWriter, ZstdWriter, ZstdWriterOptions};
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{Descriptor, LayerCompression};
use coracle_sys::spool::spool_file;

use super::find::{Content, Wanted};
use super::{From, How, Ready, Work, blob, layer_type};
use crate::Error;
use crate::artifact::held::Held;
use crate::artifact::layers::{self, Image};
use crate::artifact::making::{Maker, Making, OldFiles, OldLayers};
use crate::artifact::ostree;
use crate::image::Destination;
use crate::image::blob::Blob;
use crate::source::TreeSource;

/// Level of zstd for layers that are made anew: most of what level 19 saves, at a tenth of its time.
const ZSTD_LEVEL: i32 = 9;

/// Old files.
pub(super) enum Old {
    /// An image with its layers, in order, if a delta needs them, and the tree that they leave.
    Image {
        image: Box<Image>,
        layers: OldLayers,
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
                match self.wanted.payload(&content) {
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
        // Layers side by side share the threads.
        let made =
            self.wanted.contents.iter().filter(|content| matches!(content, Content::Delta { .. })).count();
        let threads =
            NonZeroUsize::new(self.work.request.jobs.get() / made.max(1)).unwrap_or(NonZeroUsize::MIN);
        let maker = Maker {
            delta: &self.wanted.name,
            old: match self.old {
                Old::Image { layers, .. } => OldFiles::Layers(layers),
                Old::Tree(tree) => OldFiles::Tree(tree),
                Old::Ostree(tree) => OldFiles::Tree(tree),
            },
            threads,
            stop: self.work.stop,
            limits: self.work.request.limits,
            native_limits: self.work.request.native_limits,
        };
        let mut out = Hashing::new(out);
        let result = maker.make(making, content, &mut out, fail);
        self.wanted.rebuilt.fetch_add(out.passed(), Ordering::Relaxed);
        result
    }
}
