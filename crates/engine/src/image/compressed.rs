//! A source whose layers are compressed on their way: for images that come without a manifest and go to a registry.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::compress::GzipWriter;
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{Descriptor, Document, LayerCompression, Limits, Verified, media_type};
use coracle_sys::spool::spool_file;

use super::blob::{Blob, Progress};
use super::copy::in_parallel;
use super::docker_archive::made_up;
use super::rootfs::{FileFrom, reopen};
use super::{Source, small_blob};
use crate::Error;

/// What compressing needs.
pub(super) struct Needs<'a> {
    pub(super) jobs: usize,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) temp_dir: &'a Path,
    pub(super) limits: &'a Limits,
}

/// The same image with gzip layers and so another manifest.
pub(super) struct Compressed {
    inner: Arc<dyn Source>,
    document: Document,
    config: Verified,
    files: HashMap<Digest, File>,
}

impl Compressed {
    /// Whether `root` has a layer that is not compressed.
    pub(super) fn is_due(root: &Document) -> bool {
        matches!(root, Document::Manifest(manifest)
            if manifest.layers().iter().any(|layer| layer.layer_compression() == LayerCompression::None))
    }

    pub(super) fn new(inner: Arc<dyn Source>, root: &Document, needs: &Needs<'_>) -> Result<Self, Error> {
        let Document::Manifest(manifest) = root else {
            let reason = "an index cannot be compressed".to_owned();
            return Err(Error::BadImage { image: inner.name().to_owned(), reason });
        };
        let items: Vec<(usize, &Descriptor)> = manifest.layers().iter().enumerate().collect();
        let done = Mutex::new(HashMap::new());
        in_parallel(&items, needs.jobs, &needs.progress.stop, |(i, layer)| {
            if layer.layer_compression() != LayerCompression::None {
                return Ok(());
            }
            let blob = Blob {
                source: Arc::clone(&inner),
                descriptor: (*layer).clone(),
                what: format!("layer {i}"),
                progress: Arc::clone(needs.progress),
            };
            let made = gzip(&blob, needs.temp_dir)?;
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.digest, made);
            Ok(())
        })?;
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut files = HashMap::new();
        let mut layers = Vec::new();
        for layer in manifest.layers() {
            layers.push(match done.get(&layer.digest) {
                Some((_, digest, size)) => Descriptor::new(media_type::OCI_LAYER_GZIP, *digest, *size),
                None => layer.clone(),
            });
        }
        files.extend(done.into_values().map(|(file, digest, _)| (digest, file)));
        let config = small_blob(inner.as_ref(), manifest.config(), "config", needs.limits.config_bytes)?;
        let document = made_up(&config, &layers, needs.limits)
            .map_err(|error| Error::Document { image: inner.name().to_owned(), error })?;
        needs.progress.done.store(0, std::sync::atomic::Ordering::Relaxed);
        Ok(Compressed { inner, document, config, files })
    }
}

/// Compresses a blob, compared, into a temporary file.
fn gzip(blob: &Blob, temp_dir: &Path) -> Result<(File, Digest, u64), Error> {
    let temporary = |error| Error::Temporary { dir: temp_dir.to_owned(), error };
    let out = io::BufWriter::with_capacity(1 << 17, spool_file(temp_dir).map_err(temporary)?);
    let mut gzip = GzipWriter::new(Hashing::new(out));
    blob.write_to(&mut blob.verifier(), &mut gzip, temporary)?;
    let mut out = gzip.finish().map_err(temporary)?;
    out.flush().map_err(temporary)?;
    let (out, digest, size) = out.finish();
    Ok((out.into_inner().map_err(|e| temporary(e.into_error()))?, digest, size))
}

impl Source for Compressed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn root(&self) -> Result<Document, Error> {
        Ok(self.document.clone())
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        self.inner.document(wanted)
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        if let Some(file) = self.files.get(&wanted.digest) {
            return Ok(Box::new(FileFrom { file: reopen(file, self.name())?, offset }));
        }
        if wanted.digest == self.config.digest() {
            return Ok(super::bytes_from(self.config.as_bytes(), offset));
        }
        self.inner.open_blob(wanted, offset)
    }

    fn made_up(&self) -> Option<&'static str> {
        self.inner.made_up()
    }
}
