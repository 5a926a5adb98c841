//! The layers of an image as uncompressed archives, compared with all that is said of them.

use std::collections::HashMap;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::ReadAt;
use coracle_codec::artifact::Payload;
use coracle_codec::compress::{self, Compression};
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::observe::Observer;
use coracle_codec::oci::{Document, ImageConfig, LayerCompression, Manifest, Mismatch, Platform, Verifier};
use coracle_codec::source::{MergeError, MergeOptions, TarSource, Tree};
use coracle_sys::spool::spool_file;

use crate::image::blob::{Blob, Progress, reading};
use crate::image::copy::{choose, in_parallel};
use crate::image::stop::Stop;
use crate::image::{Environment, ImageName, Source, config_of};
use crate::input::Archive;
use crate::{Context, Error};

/// An image that was found: its documents, and where its blobs are.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) manifest: Manifest,
    pub(crate) config: ImageConfig,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}, {})", self.source.name(), self.manifest.digest())
    }
}

/// What reading blobs needs.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) jobs: usize,
    pub(crate) progress: &'a Arc<Progress>,
    pub(crate) temp_dir: &'a Path,
    pub(crate) environment: &'a Environment,
}

impl Image {
    /// The image that a name leads to, of an index the one for `platform` or for this machine.
    pub(crate) fn open(
        name: &ImageName,
        platform: Option<&Platform>,
        environment: &Environment,
        stop: &Stop,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let source = environment.source(name, stop, context)?;
        let root = source.root()?;
        let platform = platform.unwrap_or(&environment.host);
        let (document, _) = choose(source.as_ref(), root, platform, &environment.limits)?;
        Image::of(source, document, environment)
    }

    /// Reads the config of a manifest.
    pub(crate) fn of(
        source: Arc<dyn Source>,
        document: Document,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let Document::Manifest(manifest) = document else {
            let reason = "it is a list of images; choose one with --platform".to_owned();
            return Err(Error::BadImage { image: source.name().to_owned(), reason });
        };
        if !manifest.is_image() {
            let kind = manifest.artifact_type().unwrap_or(&manifest.config().media_type);
            let reason = format!("it is no image but an artifact ({kind})");
            return Err(Error::Unsupported { image: source.name().to_owned(), reason });
        }
        let config = config_of(source.as_ref(), &manifest, &environment.limits)?;
        Ok(Image { source, manifest, config })
    }

    /// The blob of layer `number`.
    pub(crate) fn layer(&self, number: usize, progress: &Arc<Progress>) -> Blob {
        Blob {
            source: Arc::clone(&self.source),
            descriptor: self.manifest.layers()[number].clone(),
            what: format!("layer {number}"),
            progress: Arc::clone(progress),
        }
    }

    /// Decodes layers into temporary files, each diff_id once, and compares them with manifest and config.
    pub(crate) fn unpack(&self, wanted: &[usize], reading: &Reading<'_>) -> Result<Layers, Error> {
        let mut numbers: Vec<usize> = Vec::new();
        for &number in wanted {
            if !numbers.iter().any(|&other| self.config.diff_ids()[other] == self.config.diff_ids()[number]) {
                numbers.push(number);
            }
        }
        let done = Mutex::new(HashMap::new());
        in_parallel(&numbers, reading.jobs, &reading.progress.stop, |&number| {
            let archive =
                unpack(&self.layer(number, reading.progress), &self.config.diff_ids()[number], reading)?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.insert(self.config.diff_ids()[number], Arc::new(archive));
            Ok(())
        })?;
        Ok(Layers(done.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Uncompressed layers by diff_id.
#[derive(Debug, Default)]
pub(crate) struct Layers(pub(crate) HashMap<Digest, Arc<Archive>>);

impl Layers {
    /// The layer with this diff_id, if it is there.
    pub(crate) fn get(&self, diff_id: &Digest) -> Option<&Arc<Archive>> {
        self.0.get(diff_id)
    }

    /// The layers with these diff_ids, in this order. All of them are there.
    pub(crate) fn in_order(&self, diff_ids: &[Digest]) -> Vec<Arc<Archive>> {
        diff_ids.iter().filter_map(|diff_id| self.0.get(diff_id).cloned()).collect()
    }
}

/// What a media type says of bytes that were found to be compressed like this.
pub(crate) fn layer_compression(found: Compression) -> LayerCompression {
    match found {
        Compression::None => LayerCompression::None,
        Compression::Gzip => LayerCompression::Gzip,
        Compression::Zstd => LayerCompression::Zstd,
        Compression::Bzip2 | Compression::Xz => LayerCompression::Unknown,
    }
}

/// The bytes of archives.
pub(crate) fn bytes(archives: &[Arc<Archive>]) -> Vec<&dyn ReadAt> {
    archives.iter().map(|archive| archive.bytes()).collect()
}

/// The tree that the layers of an image leave, with hashes of contents for whoever compares them.
pub(crate) fn merge(archives: &[Arc<Archive>], hash: bool, observer: &dyn Observer) -> Result<Tree, Error> {
    let options = MergeOptions { apply_whiteouts: true, hash, limits: Default::default() };
    Tree::merge(&bytes(archives), options, observer).map_err(|error| unreadable(archives, error))
}

/// What deltas open: the old files of all layers, which `merged` is of, or of those up to the layer `upto`.
pub(crate) fn old_files<'a>(
    archives: &'a [Arc<Archive>],
    merged: &'a Tree,
    upto: Option<usize>,
    observer: &dyn Observer,
) -> Result<TarSource<'a>, Error> {
    match upto {
        None => Ok(TarSource::merged(bytes(archives), merged)),
        Some(upto) => TarSource::new(bytes(&archives[..=upto]), Default::default(), observer)
            .map_err(|error| unreadable(archives, error)),
    }
}

fn unreadable(archives: &[Arc<Archive>], error: MergeError) -> Error {
    match error {
        MergeError::Cancelled => Error::Cancelled,
        MergeError::Tar { layer, error } => Error::tar(&archives[layer].path, error),
    }
}

/// Decodes a layer into a temporary file; what is wrong in its bytes, compressed or not, is an error.
fn unpack(blob: &Blob, diff_id: &Digest, reading: &Reading<'_>) -> Result<Archive, Error> {
    let temporary = |error| Error::Temporary { dir: reading.temp_dir.to_owned(), error };
    let file = spool_file(reading.temp_dir).map_err(temporary)?;
    let mut out = Hashing::new(BufWriter::with_capacity(1 << 18, file));
    let content = Content::open(blob)?;
    let compression =
        decode(blob, content, diff_id, reading.environment.archive_limits, &mut out, temporary)?;
    out.flush().map_err(temporary)?;
    let (out, _, size) = out.finish();
    let file = out.into_inner().map_err(|e| temporary(e.into_error()))?;
    let name = format!("{}: {}", blob.source.name(), blob.title());
    let mut archive = Archive::of_file(Path::new(&name), file, size);
    archive.compression = compression;
    Ok(archive)
}

/// Writes the uncompressed bytes of a layer, whose `content` has not been read yet, to `out`, and compares both kinds of bytes. Returns how it was compressed.
pub(crate) fn decode(
    blob: &Blob,
    content: Content,
    diff_id: &Digest,
    limits: compress::Limits,
    out: &mut Hashing<impl Write>,
    fail: impl Fn(io::Error) -> Error,
) -> Result<Compression, Error> {
    let checked = content.checked.clone();
    let undecodable = |error: io::Error| match error.downcast::<compress::Error>() {
        Ok(error) => Error::Layer { image: blob.source.name().to_owned(), what: blob.title(), error },
        Err(error) => reading(blob.source.name(), &blob.title(), error),
    };
    let (compression, mut decoded) = compress::decoder(content.reader(), limits).map_err(undecodable)?;
    let mut piece = vec![0; 1 << 17];
    let failed = loop {
        match decoded.read(&mut piece) {
            Ok(0) => break None,
            Ok(n) => out.write_all(&piece[..n]).map_err(&fail)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if blob.progress.stop.raised() => return Err(undecodable(e)),
            Err(e) => break Some(undecodable(e)),
        }
    };
    drop(decoded);
    match failed {
        Some(error) => return Err(checked.reason(blob, error)),
        None => checked.finish(blob)?,
    }
    let actual = out.digest();
    if actual != *diff_id {
        let (image, layer) = (blob.source.name().to_owned(), blob.title());
        return Err(Error::WrongLayer { image, layer, expected: *diff_id, actual });
    }
    Ok(compression)
}

/// The bytes of a blob from its start, of which the first are known.
pub(crate) struct Content {
    prefix: Vec<u8>,
    /// The rest, and what is wrong with the whole.
    pub(crate) checked: Checked,
}

impl Content {
    pub(crate) fn open(blob: &Blob) -> Result<Self, Error> {
        let checked = Checked::open(blob)?;
        let mut prefix = Vec::new();
        let first = checked.clone().take(Payload::PREFIX as u64).read_to_end(&mut prefix);
        first.map_err(|error| checked.wrong(blob).unwrap_or_else(|| blob.unreadable(error)))?;
        Ok(Content { prefix, checked })
    }

    /// What it is.
    pub(crate) fn payload(&self) -> Payload {
        Payload::of_prefix(&self.prefix)
    }

    /// All of it, to be read once.
    pub(crate) fn reader(self) -> impl Read + Send {
        io::Cursor::new(self.prefix).chain(self.checked)
    }
}

/// The bytes of a blob, compared while they are read. Clones read the same stream.
#[derive(Clone)]
pub(crate) struct Checked(Arc<Mutex<Stream>>);

struct Stream {
    inner: Box<dyn Read + Send>,
    verifier: Verifier,
    wrong: Option<Mismatch>,
    /// It could not be read to its end.
    broken: bool,
}

impl Checked {
    pub(crate) fn open(blob: &Blob) -> Result<Self, Error> {
        let stream = Stream { inner: blob.read(0)?, verifier: blob.verifier(), wrong: None, broken: false };
        Ok(Checked(Arc::new(Mutex::new(stream))))
    }

    /// What is wrong with the bytes so far, if anything is.
    pub(crate) fn wrong(&self, blob: &Blob) -> Option<Error> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.wrong.clone().map(|mismatch| blob.wrong(mismatch))
    }

    /// Why nothing came of the bytes, if it ended with `error`: wrong bytes are the reason for all that comes of them. What
    /// could not be read says nothing of them.
    pub(crate) fn reason(self, blob: &Blob, error: Error) -> Error {
        let broken = self.0.lock().unwrap_or_else(PoisonError::into_inner).broken;
        match self.wrong(blob) {
            Some(wrong) => wrong,
            None if broken => error,
            None => self.finish(blob).err().unwrap_or(error),
        }
    }

    /// Reads what is left and compares the whole.
    pub(crate) fn finish(mut self, blob: &Blob) -> Result<(), Error> {
        let rest = io::copy(&mut self, &mut io::sink());
        if let Some(error) = self.wrong(blob) {
            return Err(error);
        }
        rest.map_err(|error| blob.unreadable(error))?;
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.verifier.finish().map_err(|mismatch| blob.wrong(mismatch))
    }
}

impl Read for Checked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n = match stream.inner.read(buf) {
            Ok(n) => n,
            Err(error) => {
                stream.broken |= error.kind() != io::ErrorKind::Interrupted;
                return Err(error);
            }
        };
        if let Err(mismatch) = stream.verifier.update(&buf[..n]) {
            stream.wrong = Some(mismatch.clone());
            return Err(io::Error::other(mismatch));
        }
        Ok(n)
    }
}
