//! Making delta images as balenaEngine does (`docs/formats/rsync.md`, section 6).

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_codec::artifact::Payload;
use coracle_codec::artifact::balena::{DraftImage, PLACEHOLDER, around, delta_in};
use coracle_codec::compress::{self, GzipWriter, TightGzipWriter};
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{Descriptor, Document, LayerCompression, Reference, Unverified, media_type};
use coracle_codec::rsync::{self, Copies, Joined, Signature};
use coracle_codec::{ReadAt, Section};
use serde_json::json;

use super::encode::Share;
use super::{Created, Delta, Layer, To, Work, bytes};
use crate::Error;
use crate::artifact::assembled::Assembled;
use crate::artifact::held::{Held, Holder};
use crate::artifact::layers::{self, Image, Layers, Reading};
use crate::image::copy::{Sending, watched};
use crate::image::{ImageName, Source, Transport};
use crate::input::Archive;

/// A layer of a delta image.
#[derive(Clone)]
struct Packed {
    held: Held,
    digest: Digest,
    size: u64,
    /// Digest of it uncompressed.
    diff_id: Digest,
    /// Copies from the basis.
    copies: u64,
}

impl Work<'_> {
    /// Makes the delta image between two images.
    pub(super) fn balena(&self) -> Result<Created, Error> {
        let (request, context) = (self.request, self.context);
        let one =
            |reason: &str| Error::Unsupported { image: request.new.to_string(), reason: reason.to_owned() };
        let [old_name] = request.old.as_slice() else {
            return Err(one("a Balena delta starts from one image"));
        };
        let destination = self.balena_destination()?;
        let open = |name| Image::open(name, request.platform.as_ref(), self.environment, self.stop, context);
        let (new, old) = (open(&request.new)?, open(old_name)?);
        if let (Some(has), Some(wanted)) = (old.config.platform(), new.config.platform())
            && has.fits(wanted).is_none()
        {
            let (image, wanted) = (old_name.to_string(), Box::new(wanted.clone()));
            return Err(Error::NoPlatform { image, wanted, has: vec![has.to_string()] });
        }
        let target = std::str::from_utf8(new.config.raw().as_bytes())
            .map_err(|_| one("its config is no UTF-8, so that no label can hold it"))?;
        // The engine knows a layer again where all layers up to it are the same, and only there.
        let trust = vec![
            (new.source.name().to_owned(), self.trust(&request.new, &new)?),
            (old_name.to_string(), self.trust(old_name, &old)?),
        ];
        let pairs = new.config.diff_ids().iter().zip(old.config.diff_ids());
        let shared = pairs.take_while(|(new, old)| new == old).count();
        let changed: Vec<usize> = (shared..new.config.diff_ids().len()).collect();
        let (old_layers, new_layers) = self.unpacked(&old, &new, &changed)?;
        let basis = old_layers.in_order(old.config.diff_ids());
        let packed = self.packed(&basis, &new, &new_layers, &changed)?;
        let sizes: Vec<u64> = new
            .config
            .diff_ids()
            .iter()
            .enumerate()
            .map(|(number, diff_id)| match new_layers.get(diff_id) {
                Some(archive) if number >= shared => archive.bytes().size(),
                _ => 0,
            })
            .collect();
        let placeholder = placeholder()?;
        let blobs: Vec<&Packed> = new
            .config
            .diff_ids()
            .iter()
            .enumerate()
            .map(|(number, diff_id)| packed.get(diff_id).filter(|_| number >= shared).unwrap_or(&placeholder))
            .collect();
        let diff_ids: Vec<Digest> = blobs.iter().map(|blob| blob.diff_id).collect();
        let config = DraftImage {
            base: old.config.raw().digest(),
            target,
            target_manifest: new.manifest.digest(),
            sizes: &sizes,
            diff_ids: &diff_ids,
        }
        .config();
        let manifest = self.manifest(&config, &blobs)?;
        let numbered = new.manifest.layers().iter().zip(new.config.diff_ids()).zip(&blobs).enumerate();
        let layers: Vec<Layer> = numbered
            .map(|(number, ((layer, &diff_id), blob))| Layer {
                number,
                to: layer.digest,
                diff_id,
                full: layer.size,
                bytes: if number < shared { 0 } else { blob.size },
                payload: (number >= shared).then_some(Payload::Rsync),
                content: (number >= shared).then_some(blob.digest),
            })
            .collect();
        let delta = Delta {
            layers: Vec::new(),
            ..self.summary(
                old_name,
                coracle_codec::artifact::Dialect::Balena,
                &old,
                &new,
                &layers,
                manifest.digest(),
            )
        };
        let delta = Delta { layers, ..delta };
        if let Some(destination) = destination {
            let mut source =
                Assembled::new(&destination.to_string(), manifest.clone(), Arc::clone(&new.source));
            source.bytes(&config);
            for blob in blobs {
                source.held(blob.digest, blob.held.clone());
            }
            let source: Arc<dyn Source> = Arc::new(source);
            let writer = self.environment.destination(&destination, self.stop, context)?;
            let sending = Sending { jobs: request.threads.get(), context, progress: self.progress };
            sending.send_all(&source, &manifest, writer, &self.environment.limits)?;
        }
        let copies: u64 = packed.values().map(|packed| packed.copies).sum();
        let mut notes = vec![format!("{copies} copies: a device opens a file and seeks for each")];
        if changed.is_empty() {
            notes = vec!["both images have the same layers".to_owned()];
        }
        Ok(Created { deltas: vec![delta], trust, notes })
    }

    /// Where the image goes: a delta image is found by its own tag.
    fn balena_destination(&self) -> Result<Option<ImageName>, Error> {
        match &self.request.to {
            To::Nowhere => Ok(None),
            To::Image(name) => Ok(Some(name.clone())),
            To::Registry(Some(tag)) => {
                let name = format!("{}:{tag}", self.repository()?);
                let reference: Reference = name
                    .parse()
                    .map_err(|error| Error::ImageName { text: name.clone(), reason: format!("{error}") })?;
                Ok(Some(ImageName::registry(reference)))
            }
            To::Registry(None) => Err(Error::Unsupported {
                image: self.request.new.to_string(),
                reason: "a Balena delta is found by its own tag: it needs one".to_owned(),
            }),
        }
    }

    fn unpacked(&self, old: &Image, new: &Image, changed: &[usize]) -> Result<(Layers, Layers), Error> {
        if changed.is_empty() {
            return Ok((Layers::default(), Layers::default()));
        }
        let reading = Reading {
            jobs: self.request.threads.get(),
            progress: self.progress,
            temp_dir: &self.context.temp_dir,
            environment: self.environment,
        };
        let all: Vec<usize> = (0..old.config.diff_ids().len()).collect();
        self.progress.done.store(0, Ordering::Relaxed);
        watched(self.context, self.progress, bytes(old, &all) + bytes(new, changed), || {
            Ok((old.unpack(&all, &reading)?, new.unpack(changed, &reading)?))
        })
    }

    /// The changed layers as they stand in the delta image, by diff_id.
    fn packed(
        &self,
        basis: &[Arc<Archive>],
        new: &Image,
        layers: &Layers,
        changed: &[usize],
    ) -> Result<HashMap<Digest, Packed>, Error> {
        let mut wanted: Vec<(usize, Digest, &Archive)> = Vec::new();
        for &number in changed {
            let diff_id = new.config.diff_ids()[number];
            if let Some(archive) = layers.get(&diff_id)
                && wanted.iter().all(|(_, known, _)| *known != diff_id)
            {
                wanted.push((number, diff_id, archive));
            }
        }
        let basis = Joined::new(layers::bytes(basis));
        let news: Vec<&dyn ReadAt> = wanted.iter().map(|(_, _, archive)| archive.bytes()).collect();
        let (done, total) = (AtomicU64::new(0), news.iter().map(|new| new.size()).sum());
        let observer =
            Share { context: self.context, stop: self.stop, done: &done, mine: AtomicU64::new(0), total };
        let writer = if self.request.classic {
            Writer::Classic(
                Signature::of_engine(&basis).map_err(|error| Error::SelfCheck(error.to_string()))?,
            )
        } else {
            // Memory is six times the window.
            let window = (self.request.memory / 2).clamp(16 << 20, rsync::MAX_WINDOW);
            let options = rsync::Options { window, ..rsync::Options::default() };
            Writer::Ours(rsync::diff(&basis, &news, &options, &observer).map_err(making)?)
        };
        let mut packed = HashMap::new();
        for (at, (number, diff_id, archive)) in wanted.iter().enumerate() {
            let delta = self.delta(&writer, at, archive, &observer)?;
            let made = self.layer(&delta, self.request.classic)?;
            self.prove(&made, &basis, archive, *number, diff_id, &observer)?;
            packed.insert(*diff_id, made);
        }
        Ok(packed)
    }

    /// The bare delta for one layer: its bytes, how many, and its copies.
    fn delta(
        &self,
        writer: &Writer,
        at: usize,
        new: &Archive,
        observer: &Share<'_>,
    ) -> Result<(Held, u64, u64), Error> {
        let temporary = |error| Error::Temporary { dir: self.context.temp_dir.clone(), error };
        let mut out = Holder::new(&self.context.temp_dir);
        let (counts, size) = match writer {
            Writer::Ours(copies) => {
                rsync::write_delta(&copies[at], new.bytes(), &mut out).map_err(temporary)?
            }
            Writer::Classic(signature) => {
                let new = Section::whole(new.bytes()).reader();
                rsync::classic(signature, new, &mut out, observer).map_err(|error| match error {
                    rsync::Error::Write(error) => temporary(error),
                    error => making(error),
                })?
            }
        };
        Ok((out.finish().map_err(temporary)?, size, counts.copy.ops))
    }

    /// A delta as a layer, compressed.
    fn layer(&self, (delta, len, copies): &(Held, u64, u64), classic: bool) -> Result<Packed, Error> {
        let fail = |error| Error::Temporary { dir: self.context.temp_dir.clone(), error };
        let holder = Hashing::new(Holder::new(&self.context.temp_dir));
        let write = |out: &mut dyn Write| {
            let (before, behind) = around(*len);
            let mut out = Hashing::new(out);
            out.write_all(&before)?;
            io::copy(&mut delta.read(0)?, &mut out)?;
            out.write_all(&behind)?;
            Ok(out.digest())
        };
        let (diff_id, holder) = if classic {
            let mut gzip = GzipWriter::new(holder);
            (write(&mut gzip).map_err(fail)?, gzip.finish().map_err(fail)?)
        } else {
            let mut gzip = TightGzipWriter::new(holder);
            (write(&mut gzip).map_err(fail)?, gzip.finish().map_err(fail)?)
        };
        let (holder, digest, size) = holder.finish();
        Ok(Packed { held: holder.finish().map_err(fail)?, digest, size, diff_id, copies: *copies })
    }

    /// Applies a layer of the delta image as a reader does, and compares what comes out.
    fn prove(
        &self,
        packed: &Packed,
        basis: &Joined<'_>,
        new: &Archive,
        number: usize,
        wanted: &Digest,
        observer: &Share<'_>,
    ) -> Result<(), Error> {
        let wrong = |reason: String| Error::SelfCheck(format!("the delta for layer {number}: {reason}"));
        let temporary = |error| Error::Temporary { dir: self.context.temp_dir.clone(), error };
        let blob = packed.held.read(0).map_err(temporary)?;
        let limits = compress::Limits::default();
        let (_, decoded) = compress::decoder(blob, limits).map_err(|error| wrong(error.to_string()))?;
        let delta = delta_in(decoded).map_err(|error| wrong(error.to_string()))?;
        let limits = rsync::Limits { max_output: new.bytes().size(), ..rsync::Limits::default() };
        let mut out = Hashing::new(io::sink());
        rsync::apply(delta, basis, &mut out, &limits, observer).map_err(|error| match error {
            rsync::Error::Cancelled => Error::Cancelled,
            error => wrong(error.to_string()),
        })?;
        let actual = out.digest();
        if actual == *wanted { Ok(()) } else { Err(wrong(format!("it gives {actual}, not {wanted}"))) }
    }

    fn manifest(&self, config: &[u8], blobs: &[&Packed]) -> Result<Document, Error> {
        // What the engine itself pushes; layouts are OCI's.
        let oci = matches!(&self.request.to, To::Image(name) if matches!(
            name.transport(),
            Transport::Layout { .. } | Transport::OciArchive { .. }
        ));
        let (kind, config_type) = match oci {
            true => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
            false => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        };
        let layer_type =
            crate::artifact::apply::layer_type(kind, LayerCompression::Gzip).map_err(Error::SelfCheck)?;
        let config = Descriptor::new(config_type, Digest::of(config), config.len() as u64);
        let layers = blobs.iter().map(|blob| Descriptor::new(layer_type, blob.digest, blob.size).to_json());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": config.to_json(),
            "layers": layers.collect::<Vec<_>>(),
        });
        let raw = Unverified::new(manifest.to_string().into_bytes()).identify();
        Document::parse(raw, Some(kind), &self.environment.limits)
            .map_err(|error| Error::Document { image: self.request.new.to_string(), error })
    }
}

/// Where deltas come from.
enum Writer {
    Ours(Vec<Copies>),
    Classic(Signature),
}

fn making(error: rsync::Error) -> Error {
    match error {
        rsync::Error::Cancelled => Error::Cancelled,
        rsync::Error::ReadBasis(error) => Error::ReadAgain(error),
        error => Error::SelfCheck(error.to_string()),
    }
}

/// A layer that stands for one of the basis.
fn placeholder() -> Result<Packed, Error> {
    let fail = |error: io::Error| Error::SelfCheck(error.to_string());
    let mut gzip = TightGzipWriter::new(Vec::new());
    gzip.write_all(&PLACEHOLDER).map_err(fail)?;
    let blob = gzip.finish().map_err(fail)?;
    Ok(Packed {
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        diff_id: Digest::of(&PLACEHOLDER),
        held: Held::Memory(Arc::new(blob)),
        copies: 0,
    })
}
