//! `oci:`: a folder in the OCI image layout (image-spec 1.1, "image-layout").

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{Descriptor, Document, Limits, Unverified, Verified, media_type};
use coracle_sys::publish::Pending;
use coracle_sys::resume::{FolderLock, Resumable};
use serde_json::{Value, json};

use super::blob::Blob;
use super::{Destination, Outcome, Source, Takes};
use crate::Error;

/// What `oci-layout` says.
pub(super) const MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The annotation that names an entry of `index.json` (image-spec 1.1, "annotations").
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Half-written blobs, for the next run.
const PARTIAL: &str = ".coracle-partial";

/// `blobs/sha256/HEX`.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

/// The entry of `index.json` that `image` names: by annotation, by digest, or the only one.
pub(super) fn choose(
    index: &[u8],
    image: Option<&str>,
    name: &str,
    limits: &Limits,
) -> Result<Descriptor, Error> {
    let entries = entries(index, name, limits)?;
    let label = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
    let found: Vec<&Descriptor> = match image {
        None => entries.iter().collect(),
        Some(wanted) => entries
            .iter()
            .filter(|entry| label(entry).as_deref() == Some(wanted) || entry.digest.to_string() == wanted)
            .collect(),
    };
    let names = || {
        let names: Vec<String> =
            entries.iter().map(|entry| label(entry).unwrap_or_else(|| entry.digest.to_string())).collect();
        if names.is_empty() { "it is empty".to_owned() } else { format!("it has: {}", names.join(", ")) }
    };
    match found.as_slice() {
        [] => Err(Error::NoSuchImage { image: name.to_owned(), reason: names() }),
        [one] => Ok((*one).clone()),
        // The same thing under several names is one thing.
        [one, rest @ ..] if rest.iter().all(|other| other.digest == one.digest) => Ok((*one).clone()),
        _ => Err(Error::NoSuchImage {
            image: name.to_owned(),
            reason: format!("there are several images; name one: {}", names()),
        }),
    }
}

/// A layout to read from.
#[derive(Debug)]
pub(crate) struct LayoutSource {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) image: Option<String>,
    pub(crate) limits: Limits,
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let open = |error| Error::Open { path: path.to_owned(), error };
    let file = File::open(path).map_err(open)?;
    if !file.metadata().map_err(open)?.is_file() {
        return Err(open(io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::Read { path: path.to_owned(), error })?;
    if bytes.len() as u64 > limit {
        let error =
            coracle_codec::oci::Error::TooLarge { what: "manifest", actual: bytes.len() as u64, limit };
        return Err(Error::Document { image: path.display().to_string(), error });
    }
    Ok(bytes)
}

/// Opens a file at `offset`, if it is a regular one.
pub(super) fn open_at(path: &Path, offset: u64) -> io::Result<File> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    file.seek(SeekFrom::Start(offset))?;
    Ok(file)
}

/// A file that holds a blob, from `offset` on.
pub(super) fn open_blob(path: &Path, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
    match open_at(path, offset) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(Error::Open { path: path.to_owned(), error }),
    }
}

/// Puts a small file in place, whole.
pub(super) fn publish(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut pending = Pending::create(path)?;
        pending.write_all(bytes)?;
        pending.publish()
    };
    write().map_err(|error| Error::Write { path: path.to_owned(), error })
}

/// Compares and parses a document of a source.
pub(super) fn parse(
    name: &str,
    bytes: Vec<u8>,
    wanted: &Descriptor,
    limits: &Limits,
) -> Result<Document, Error> {
    Document::parse(compared(name, bytes, wanted)?, Some(&wanted.media_type), limits)
        .map_err(|error| Error::Document { image: name.to_owned(), error })
}

/// Compares the bytes of a document.
pub(super) fn compared(name: &str, bytes: Vec<u8>, wanted: &Descriptor) -> Result<Verified, Error> {
    Unverified::new(bytes).verify_sized(&wanted.digest, wanted.size).map_err(|mismatch| Error::WrongBlob {
        image: name.to_owned(),
        what: format!("manifest {}", wanted.digest).into(),
        mismatch,
    })
}

impl Source for LayoutSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Document, Error> {
        let index = read_small(&self.path.join("index.json"), self.limits.manifest_bytes)?;
        let entry = choose(&index, self.image.as_deref(), &self.name, &self.limits)?;
        self.document(&entry)
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        let bytes = read_small(&self.path.join(blob_path(&wanted.digest)), self.limits.manifest_bytes)?;
        parse(&self.name, bytes, wanted, &self.limits)
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        open_blob(&self.path.join(blob_path(&wanted.digest)), offset)
    }

    fn raw_document(&self, wanted: &Descriptor) -> Result<Verified, Error> {
        let bytes = read_small(&self.path.join(blob_path(&wanted.digest)), self.limits.manifest_bytes)?;
        compared(&self.name, bytes, wanted)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>, Error> {
        let index = read_small(&self.path.join("index.json"), self.limits.manifest_bytes)?;
        tagged(self, &index, tag, &self.limits)
    }

    fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let index = read_small(&self.path.join("index.json"), self.limits.manifest_bytes)?;
        referrers(self, &index, subject, artifact_type, &self.limits)
    }
}

/// The document that `index.json` names `tag`.
pub(super) fn tagged(
    source: &dyn Source,
    index: &[u8],
    tag: &str,
    limits: &Limits,
) -> Result<Option<Document>, Error> {
    let entries = entries(index, source.name(), limits)?;
    let named = |entry: &&Descriptor| entry.annotations.get(REF_NAME).map(String::as_str) == Some(tag);
    entries.iter().find(named).map(|entry| source.document(entry)).transpose()
}

/// The artifacts of a layout that are about `subject`.
pub(super) fn referrers(
    source: &dyn Source,
    index: &[u8],
    subject: &Digest,
    artifact_type: Option<&str>,
    limits: &Limits,
) -> Result<Vec<Descriptor>, Error> {
    let mut found = Vec::new();
    for entry in entries(index, source.name(), limits)? {
        let other = entry
            .artifact_type
            .as_deref()
            .is_some_and(|kind| artifact_type.is_some_and(|wanted| kind != wanted));
        if other || entry.media_type != media_type::OCI_MANIFEST {
            continue;
        }
        let document = source.document(&entry)?;
        let described = document.descriptor();
        if document.subject().is_some_and(|of| of.digest == *subject)
            && (artifact_type.is_none() || described.artifact_type.as_deref() == artifact_type)
            && !found.contains(&described)
        {
            found.push(described);
        }
    }
    Ok(found)
}

fn entries(index: &[u8], name: &str, limits: &Limits) -> Result<Vec<Descriptor>, Error> {
    let raw = Unverified::new(index.to_vec()).identify();
    match Document::parse(raw, Some(media_type::OCI_INDEX), limits) {
        Ok(Document::Index(index)) => Ok(index.manifests().to_vec()),
        Ok(Document::Manifest(_)) => {
            Err(Error::BadImage { image: name.to_owned(), reason: "index.json is no index".into() })
        }
        Err(error) => Err(Error::Document { image: name.to_owned(), error }),
    }
}

/// A layout to write to.
#[derive(Debug)]
pub(crate) struct LayoutDestination {
    name: String,
    path: PathBuf,
    image: Option<String>,
}

impl LayoutDestination {
    /// Makes the folder, if it is not there. Refuses one that holds something else.
    pub(crate) fn create(name: &str, path: &Path, image: Option<&str>) -> Result<Self, Error> {
        let fail = |error| Error::Write { path: path.to_owned(), error };
        if image.is_some_and(|image| image.starts_with("sha256:")) {
            let reason = "an image is written under a name, not under a digest".to_owned();
            return Err(Error::Unsupported { image: name.to_owned(), reason });
        }
        let is_layout = path.join("oci-layout").is_file() || path.join("index.json").is_file();
        let only_ours = |path: &Path| -> io::Result<bool> {
            for entry in fs::read_dir(path)? {
                let name = entry?.file_name();
                if name != "blobs" && name != PARTIAL {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if path.exists() && !is_layout && !only_ours(path).map_err(fail)? {
            let reason = "the folder holds something that is no OCI layout".to_owned();
            return Err(Error::Unsupported { image: name.to_owned(), reason });
        }
        fs::create_dir_all(path.join("blobs/sha256")).map_err(fail)?;
        Ok(LayoutDestination {
            name: name.to_owned(),
            path: path.to_owned(),
            image: image.map(str::to_owned),
        })
    }
}

/// Puts a blob into the file `to`, going on with what an earlier run left in `partial`.
pub(super) fn put_file(blob: &Blob, to: &Path, partial: &Path) -> Result<Outcome, Error> {
    let fail = |error| Error::Write { path: to.to_owned(), error };
    if fs::metadata(to).is_ok_and(|found| found.is_file() && found.len() == blob.descriptor.size) {
        blob.skipped(blob.descriptor.size);
        return Ok(Outcome::Existed);
    }
    let mut verifier = blob.verifier();
    let Some(mut file) = Resumable::open(partial).map_err(fail)? else {
        // Another process fetches the same; each publishes what it has compared.
        let mut pending = Pending::create(to).map_err(fail)?;
        blob.write_to(&mut verifier, &mut pending, fail)?;
        pending.publish().map_err(fail)?;
        return Ok(Outcome::Copied);
    };
    let mut piece = vec![0; 1 << 18];
    while verifier.passed() < file.resumed() {
        let n = file.read(&mut piece).map_err(fail)?;
        if n == 0 || verifier.update(&piece[..n]).is_err() {
            break;
        }
    }
    if verifier.passed() != file.resumed() {
        file.clear().map_err(fail)?;
        verifier = blob.verifier();
    }
    let resumed = verifier.passed();
    blob.skipped(resumed);
    let mut result = blob.write_to(&mut verifier, &mut file, fail);
    // What lay there may have been damaged: then the blob is right if it comes from its start.
    if resumed > 0 && matches!(result, Err(Error::WrongBlob { .. })) {
        file.clear().map_err(fail)?;
        verifier = blob.verifier();
        result = blob.write_to(&mut verifier, &mut file, fail);
    }
    match result {
        Ok(()) => {
            file.publish(to).map_err(fail)?;
            Ok(Outcome::Copied)
        }
        // Wrong bytes are of no use to the next run; half of the right ones are.
        Err(error @ Error::WrongBlob { .. }) => {
            file.discard().map_err(fail)?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Puts what `make` writes into `folder` under the digits of its digest.
pub(super) fn put_new(
    folder: &Path,
    make: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>,
) -> Result<(Digest, u64), Error> {
    let fail = |error| Error::Write { path: folder.to_owned(), error };
    let pending = Pending::create(&folder.join(".coracle-new")).map_err(fail)?;
    let mut out = Hashing::new(io::BufWriter::with_capacity(1 << 18, pending));
    make(&mut out)?;
    out.flush().map_err(fail)?;
    let (out, digest, size) = out.finish();
    let pending = out.into_inner().map_err(|e| fail(e.into_error()))?;
    pending.publish_as(digest.hex().as_ref()).map_err(fail)?;
    Ok((digest, size))
}

/// Removes the folder of half-written blobs if it is empty, which it is unless another process works here.
pub(super) fn tidy(folder: &Path) {
    let _ = fs::remove_dir(folder.join(PARTIAL));
}

/// Where the half of a blob is kept.
pub(super) fn partial(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(PARTIAL).join(digest.to_string().replace(':', "-"))
}

impl Destination for LayoutDestination {
    fn takes(&self) -> Takes {
        Takes { index: true, parallel: true, artifacts: true, loses: None, wants_compressed: false }
    }

    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error> {
        let digest = &blob.descriptor.digest;
        put_file(blob, &self.path.join(blob_path(digest)), &partial(&self.path, digest))
    }

    fn put_new(
        &self,
        make: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<Option<(Digest, u64)>, Error> {
        put_new(&self.path.join("blobs/sha256"), make).map(Some)
    }

    fn put_document(&self, document: &Document) -> Result<(), Error> {
        publish(&self.path.join(blob_path(&document.digest())), document.raw().as_bytes())
    }

    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error> {
        self.put_document(root)?;
        let fail = |error| Error::Write { path: self.path.clone(), error };
        let _lock = FolderLock::take(&self.path).map_err(fail)?;
        publish(&self.path.join("oci-layout"), MARKER.as_bytes())?;
        let file = self.path.join("index.json");
        let old = match fs::read(&file) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::Open { path: file, error }),
        };
        let new = with_entry(old.as_deref(), root, self.image.as_deref())
            .map_err(|reason| Error::BadImage { image: self.name.clone(), reason })?;
        publish(&self.path.join("index.json"), &new)?;
        tidy(&self.path);
        Ok(Vec::new())
    }
}

/// `index.json` with an entry for `root`, which takes the name from any other. Entries of others stay as they are.
pub(super) fn with_entry(
    old: Option<&[u8]>,
    root: &Document,
    image: Option<&str>,
) -> Result<Vec<u8>, String> {
    let mut index = match old {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|e| format!("index.json: {e}"))?,
        None => json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }),
    };
    let Value::Object(members) = &mut index else { return Err("index.json is no object".into()) };
    let entries = members.entry("manifests").or_insert_with(|| json!([]));
    if entries.is_null() {
        *entries = json!([]);
    }
    let Value::Array(entries) = entries else { return Err("index.json: manifests is no list".into()) };
    let mut entry = Descriptor::new(root.media_type(), root.digest(), root.raw().size());
    if let Some(image) = image {
        entry.annotations.insert(REF_NAME.to_owned(), image.to_owned());
    }
    let name = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
    let digest = json!(root.digest().to_string());
    // The same name is replaced; without a name, the same image is not listed twice.
    entries.retain(|other| match image {
        Some(image) => name(other).as_deref() != Some(image),
        None => !(other["digest"] == digest && name(other).is_none()),
    });
    entries.push(entry.to_json());
    serde_json::to_vec(&index).map_err(|e| e.to_string())
}
