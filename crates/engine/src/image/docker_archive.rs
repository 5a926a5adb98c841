//! `docker-archive:`: what `docker save` writes and `docker load` reads: tars of layers, a config, and `manifest.json`,
//! which lists them. There is no manifest of a registry in it, and so no digest of one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::compress::{self, Compression, MAGIC_LEN};
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{
    Descriptor, Document, ImageConfig, Limits, Manifest, Reference, Unverified, Verified, Verifier,
    media_type,
};
use coracle_sys::spool::spool_file;
use serde::Deserialize;
use serde_json::json;

use super::archive::TarFiles;
use super::blob::Blob;
use super::oci_archive::TarOutput;
use super::{Destination, Outcome, Source, Takes, bytes_from};
use crate::{Context, Error};

const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// An archive to read from. Its manifest is put together from what the config says.
#[derive(Debug)]
pub(crate) struct DockerSource {
    name: String,
    files: TarFiles,
    document: Document,
    config: Verified,
    /// Files of layers by digest.
    layers: HashMap<Digest, String>,
}

impl DockerSource {
    pub(crate) fn open(
        name: &str,
        files: TarFiles,
        image: Option<&Reference>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadImage { image: name.to_owned(), reason };
        let read = |file: &str, limit: u64| match files.read(file, limit) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(bad(format!("{file}: {error}"))),
            None => Err(bad(format!("the archive has no {file}"))),
        };
        let list = read(MANIFEST, limits.manifest_bytes)?;
        let images: Vec<Image> =
            serde_json::from_slice(&list).map_err(|e| bad(format!("{MANIFEST}: {e}")))?;
        let image = choose(name, &images, image)?;
        let config = Unverified::new(read(&image.config, limits.config_bytes)?).identify();
        let document = |error| Error::Document { image: name.to_owned(), error };
        let parsed = ImageConfig::parse(config.clone(), limits).map_err(document)?;
        let names = image.layers.clone().unwrap_or_default();
        if names.len() != parsed.diff_ids().len() {
            let (diff_ids, layers) = (parsed.diff_ids().len(), names.len());
            return Err(document(coracle_codec::oci::Error::LayerCount { diff_ids, layers }));
        }
        let mut descriptors = Vec::new();
        let mut layers = HashMap::new();
        for (file, diff_id) in names.iter().zip(parsed.diff_ids()) {
            let descriptor = describe(name, &files, file, *diff_id)?;
            layers.insert(descriptor.digest, file.clone());
            descriptors.push(descriptor);
        }
        let document = made_up(&config, &descriptors, limits).map_err(document)?;
        Ok(DockerSource { name: name.to_owned(), files, document, config, layers })
    }
}

/// A manifest for a config and layers that have none.
pub(crate) fn made_up(
    config: &Verified,
    layers: &[Descriptor],
    limits: &Limits,
) -> Result<Document, coracle_codec::oci::Error> {
    let config = Descriptor::new(media_type::OCI_CONFIG, config.digest(), config.size());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config.to_json(),
        "layers": layers.iter().map(Descriptor::to_json).collect::<Vec<_>>(),
    });
    Document::parse(Unverified::new(manifest.to_string().into_bytes()).identify(), None, limits)
}

fn choose<'a>(name: &str, images: &'a [Image], wanted: Option<&Reference>) -> Result<&'a Image, Error> {
    let tags = |image: &Image| -> Vec<String> { image.repo_tags.clone().unwrap_or_default() };
    let fits = |image: &Image| {
        wanted.is_none_or(|wanted| {
            tags(image).iter().any(|tag| tag.parse::<Reference>().is_ok_and(|tag| tag == *wanted))
        })
    };
    let mut found = images.iter().filter(|image| fits(image));
    let has = || {
        let all: Vec<String> = images.iter().flat_map(tags).collect();
        if all.is_empty() {
            "its images have no names".to_owned()
        } else {
            format!("it has: {}", all.join(", "))
        }
    };
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Error::NoSuchImage { image: name.to_owned(), reason: has() }),
        (Some(_), Some(_)) => Err(Error::NoSuchImage {
            image: name.to_owned(),
            reason: format!("there are several images; name one: {}", has()),
        }),
    }
}

/// The descriptor of a layer's file. A plain tar has the digest that the config says; others are hashed here.
fn describe(name: &str, files: &TarFiles, file: &str, diff_id: Digest) -> Result<Descriptor, Error> {
    let missing = || Error::BadImage { image: name.to_owned(), reason: format!("the archive has no {file}") };
    let unreadable = |error| super::blob::reading(name, file, error);
    let size = files.size(file).ok_or_else(missing)?;
    let mut head = Vec::new();
    let mut reader = files.reader(file, 0).ok_or_else(missing)?;
    reader.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut head).map_err(unreadable)?;
    let kind = match compress::detect(&head) {
        Compression::None => return Ok(Descriptor::new(media_type::OCI_LAYER, diff_id, size)),
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        other => {
            let reason = format!("{file} is compressed with {}, which no registry knows", other.name());
            return Err(Error::Unsupported { image: name.to_owned(), reason });
        }
    };
    let mut hashing = Hashing::new(files.reader(file, 0).ok_or_else(missing)?);
    io::copy(&mut hashing, &mut io::sink()).map_err(unreadable)?;
    let (_, digest, size) = hashing.finish();
    Ok(Descriptor::new(kind, digest, size))
}

impl Source for DockerSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Document, Error> {
        Ok(self.document.clone())
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        if wanted.digest == self.config.digest() {
            return Ok(bytes_from(self.config.as_bytes(), offset));
        }
        let file = self.layers.get(&wanted.digest).map_or("", String::as_str);
        match self.files.reader(file, offset) {
            Some(reader) => Ok(Box::new(reader)),
            None => Err(Error::BadImage {
                image: self.name.clone(),
                reason: format!("the archive has no layer {}", wanted.digest),
            }),
        }
    }

    fn made_up(&self) -> Option<&'static str> {
        Some("an archive of docker save has no manifest")
    }
}

/// An archive to write.
#[derive(Debug)]
pub(crate) struct DockerDestination {
    name: String,
    tags: Vec<String>,
    state: Mutex<State>,
    temp_dir: std::path::PathBuf,
    limits: compress::Limits,
}

#[derive(Debug)]
struct State {
    tar: TarOutput,
    /// Configs, until it is known which is used.
    small: HashMap<Digest, Vec<u8>>,
    /// Layers by blob digest: their diff_id.
    layers: HashMap<Digest, Digest>,
    written: Vec<Digest>,
}

/// `docker.io/library/x:y` as people say it.
pub(super) fn familiar(reference: &Reference) -> String {
    let full = reference.to_string();
    let short = full.strip_prefix("docker.io/library/").or_else(|| full.strip_prefix("docker.io/"));
    short.unwrap_or(&full).to_owned()
}

impl DockerDestination {
    pub(crate) fn create(
        name: &str,
        path: &Path,
        image: Option<&Reference>,
        limits: compress::Limits,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let tar = TarOutput::create(path, context)?;
        if image.is_some_and(|image| image.digest().is_some()) {
            let reason = "an image is written under a tag, not under a digest".to_owned();
            return Err(Error::Unsupported { image: name.to_owned(), reason });
        }
        Ok(DockerDestination {
            name: name.to_owned(),
            tags: image.map(familiar).into_iter().collect(),
            state: Mutex::new(State {
                tar,
                small: HashMap::new(),
                layers: HashMap::new(),
                written: Vec::new(),
            }),
            temp_dir: context.temp_dir.clone(),
            limits,
        })
    }

    /// Writes everything but the end, which makes it visible.
    fn complete(self, root: &Document) -> Result<TarOutput, Error> {
        let bad = |reason: String| Error::BadImage { image: self.name.clone(), reason };
        let Document::Manifest(manifest) = root else { return Err(bad("an index has no place here".into())) };
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut tar = state.tar;
        let config = state.small.get(&manifest.config().digest).ok_or_else(|| Error::BadImage {
            image: self.name.clone(),
            reason: "there is no config".into(),
        })?;
        let parsed = ImageConfig::parse(Unverified::new(config.clone()).identify(), &Limits::default())
            .map_err(|error| Error::Document { image: self.name.clone(), error })?;
        let mut names = Vec::new();
        check_diff_ids(&self.name, manifest, &parsed, |layer| state.layers.get(&layer.digest).copied())?;
        for diff_id in parsed.diff_ids() {
            names.push(format!("{}.tar", diff_id.hex()));
        }
        let config_name = format!("{}.json", manifest.config().digest.hex());
        tar.member(&config_name, config)?;
        let list = json!([{ "Config": config_name, "RepoTags": self.tags, "Layers": names }]);
        tar.member(MANIFEST, list.to_string().as_bytes())?;
        Ok(tar)
    }
}

/// Compares the layers as they were decoded with what the config says.
fn check_diff_ids(
    image: &str,
    manifest: &Manifest,
    config: &ImageConfig,
    found: impl Fn(&Descriptor) -> Option<Digest>,
) -> Result<(), Error> {
    let (diff_ids, layers) = (config.diff_ids().len(), manifest.layers().len());
    if diff_ids != layers {
        let error = coracle_codec::oci::Error::LayerCount { diff_ids, layers };
        return Err(Error::Document { image: image.to_owned(), error });
    }
    for (i, (layer, diff_id)) in manifest.layers().iter().zip(config.diff_ids()).enumerate() {
        match found(layer) {
            Some(actual) if actual == *diff_id => {}
            Some(actual) => {
                return Err(Error::WrongBlob {
                    image: image.to_owned(),
                    what: format!("layer {i} ({}), uncompressed", layer.digest).into(),
                    mismatch: coracle_codec::oci::Mismatch::Digest { expected: *diff_id, actual },
                });
            }
            None => {
                let reason = format!("layer {i} ({}) is missing", layer.digest);
                return Err(Error::BadImage { image: image.to_owned(), reason });
            }
        }
    }
    Ok(())
}

/// Compares what passes with a blob's digest; the last read fails if it is another.
pub(super) struct Checked<R> {
    input: R,
    verifier: Verifier,
}

impl<R: Read> Checked<R> {
    pub(super) fn new(input: R, verifier: Verifier) -> Self {
        Checked { input, verifier }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        let checked =
            if n == 0 && !buf.is_empty() { self.verifier.finish() } else { self.verifier.update(&buf[..n]) };
        checked.map_err(io::Error::other)?;
        Ok(n)
    }
}

/// Decodes a layer into a temporary file, its bytes compared; gives the file, its diff_id and its size.
pub(super) fn decode_layer(
    blob: &Blob,
    limits: compress::Limits,
    temp_dir: &Path,
) -> Result<(File, Digest, u64), Error> {
    let temporary = |error| Error::Temporary { dir: temp_dir.to_owned(), error };
    let decoding = |error: io::Error| match error.downcast::<coracle_codec::oci::Mismatch>() {
        Ok(mismatch) => blob.wrong(mismatch),
        Err(error) => match error.downcast::<compress::Error>() {
            Ok(error) => Error::Layer { image: blob.source.name().to_owned(), what: blob.title(), error },
            Err(error) => blob.unreadable(error),
        },
    };
    let mut checked = Checked::new(blob.read(0)?, blob.verifier());
    let mut out = Hashing::new(spool_file(temp_dir).map_err(temporary)?);
    let decode = |checked: &mut Checked<_>, out: &mut Hashing<File>| -> Result<(), Error> {
        let (_, mut decoded) = compress::decoder(checked, limits).map_err(decoding)?;
        let mut piece = vec![0; 1 << 17];
        loop {
            match decoded.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(n) => out.write_all(&piece[..n]).map_err(temporary)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(decoding(e)),
            }
        }
    };
    let decoded = decode(&mut checked, &mut out);
    // Decoders stop early, at their end or at damage; what follows belongs to the blob, too, and wrong bytes are a
    // better reason than what they decode to.
    if matches!(decoded, Ok(()) | Err(Error::Layer { .. })) {
        io::copy(&mut checked, &mut io::sink()).map_err(decoding)?;
    }
    decoded?;
    let (mut file, diff_id, size) = out.finish();
    file.seek(SeekFrom::Start(0)).map_err(temporary)?;
    Ok((file, diff_id, size))
}

impl Destination for DockerDestination {
    fn takes(&self) -> Takes {
        Takes {
            index: false,
            parallel: false,
            artifacts: false,
            loses: Some("docker load makes its own manifest; the config and so the image ID are kept"),
            wants_compressed: false,
        }
    }

    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if blob.what == "config" {
            let mut bytes = Vec::new();
            let fail = |error| blob.unreadable(error);
            blob.write_to(&mut blob.verifier(), &mut bytes, fail)?;
            state.small.insert(blob.descriptor.digest, bytes);
            return Ok(Outcome::Copied);
        }
        let (mut file, diff_id, size) = decode_layer(blob, self.limits, &self.temp_dir)?;
        if !state.written.contains(&diff_id) {
            state.tar.begin_member(&format!("{}.tar", diff_id.hex()), size)?;
            let path = state.tar.path().to_owned();
            io::copy(&mut file, state.tar.output()).map_err(|error| Error::Write { path, error })?;
            state.tar.end_member(size)?;
            state.written.push(diff_id);
        }
        state.layers.insert(blob.descriptor.digest, diff_id);
        Ok(Outcome::Copied)
    }

    fn put_document(&self, _: &Document) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error> {
        self.complete(root)?.publish()?;
        Ok(Vec::new())
    }
}
