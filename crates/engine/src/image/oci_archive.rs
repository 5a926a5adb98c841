//! `oci-archive:`: an OCI image layout in a tar. What is written has index and manifests in front, so that it can be
//! used while it comes through a pipe.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, Limits, Verified};
use coracle_codec::tar::write::{END, Member, padding};

use super::archive::TarFiles;
use super::blob::Blob;
use super::layout::{MARKER, blob_path, choose, parse, with_entry};
use super::{Destination, Outcome, Source, Takes};
use crate::output::Output;
use crate::{Context, Error};

/// An archive to read from.
#[derive(Debug)]
pub(crate) struct ArchiveSource {
    pub(crate) name: String,
    pub(crate) image: Option<String>,
    pub(crate) files: TarFiles,
    pub(crate) limits: Limits,
}

impl ArchiveSource {
    fn bytes(&self, file: &str) -> Result<Vec<u8>, Error> {
        match self.files.read(file, self.limits.manifest_bytes) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(Error::BadImage { image: self.name.clone(), reason: error.to_string() }),
            None => Err(self.missing(file)),
        }
    }

    fn missing(&self, file: &str) -> Error {
        Error::BadImage { image: self.name.clone(), reason: format!("the archive has no {file}") }
    }
}

impl Source for ArchiveSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Document, Error> {
        let index = self.bytes("index.json")?;
        let entry = choose(&index, self.image.as_deref(), &self.name, &self.limits)?;
        self.document(&entry)
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        parse(&self.name, self.bytes(&blob_path(&wanted.digest))?, wanted, &self.limits)
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        let path = blob_path(&wanted.digest);
        match self.files.reader(&path, offset) {
            Some(reader) => Ok(Box::new(reader)),
            None => Err(self.missing(&path)),
        }
    }

    fn raw_document(&self, wanted: &Descriptor) -> Result<Verified, Error> {
        super::layout::compared(&self.name, self.bytes(&blob_path(&wanted.digest))?, wanted)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>, Error> {
        super::layout::tagged(self, &self.bytes("index.json")?, tag, &self.limits)
    }

    fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        super::layout::referrers(self, &self.bytes("index.json")?, subject, artifact_type, &self.limits)
    }
}

/// A tar in the making: members one after the other, in the order in which they are given.
#[derive(Debug)]
pub(super) struct TarOutput {
    out: Output,
    path: PathBuf,
}

impl TarOutput {
    pub(super) fn create(path: &Path, context: &Context<'_>) -> Result<Self, Error> {
        Ok(TarOutput { out: Output::checked(path, &[], context)?, path: path.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(|error| Error::Write { path: self.path.clone(), error })
    }

    /// A member whose content follows: call [`TarOutput::end_member`] after it.
    pub(super) fn begin_member(&mut self, name: &str, size: u64) -> Result<(), Error> {
        self.write(&Member::file(name, size).header())
    }

    pub(super) fn end_member(&mut self, size: u64) -> Result<(), Error> {
        self.write(&vec![0; padding(size)])
    }

    pub(super) fn member(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.begin_member(name, bytes.len() as u64)?;
        self.write(bytes)?;
        self.end_member(bytes.len() as u64)
    }

    pub(super) fn directory(&mut self, name: &str) -> Result<(), Error> {
        self.write(&Member::directory(name).header())
    }

    /// Copies a blob, compared, as a member.
    pub(super) fn blob(&mut self, name: &str, blob: &Blob) -> Result<(), Error> {
        self.begin_member(name, blob.descriptor.size)?;
        let path = self.path.clone();
        let fail = |error: io::Error| Error::Write { path: path.clone(), error };
        blob.write_to(&mut blob.verifier(), &mut self.out, fail)?;
        self.end_member(blob.descriptor.size)
    }

    pub(super) fn output(&mut self) -> &mut Output {
        &mut self.out
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn publish(mut self) -> Result<(), Error> {
        self.write(&END)?;
        self.out.publish()
    }
}

/// An archive to write to.
#[derive(Debug)]
pub(crate) struct ArchiveDestination {
    name: String,
    image: Option<String>,
    tar: Mutex<TarOutput>,
    /// The root, once it stands in the archive.
    announced: Mutex<Option<Digest>>,
}

impl ArchiveDestination {
    pub(crate) fn create(
        name: &str,
        path: &Path,
        image: Option<&str>,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let mut tar = TarOutput::create(path, context)?;
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        Ok(ArchiveDestination {
            name: name.to_owned(),
            image: image.map(str::to_owned),
            tar: Mutex::new(tar),
            announced: Mutex::new(None),
        })
    }
}

impl Destination for ArchiveDestination {
    fn takes(&self) -> Takes {
        // One after the other: the same image gives the same archive, byte for byte.
        Takes { index: true, parallel: false, artifacts: true, loses: None, wants_compressed: false }
    }

    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error> {
        let mut tar = self.tar.lock().unwrap_or_else(PoisonError::into_inner);
        tar.blob(&blob_path(&blob.descriptor.digest), blob)?;
        Ok(Outcome::Copied)
    }

    fn announce(&self, root: &Document, below: &[Document]) -> Result<(), Error> {
        let index = with_entry(None, root, self.image.as_deref())
            .map_err(|reason| Error::BadImage { image: self.name.clone(), reason })?;
        let mut tar = self.tar.lock().unwrap_or_else(PoisonError::into_inner);
        tar.member("oci-layout", MARKER.as_bytes())?;
        tar.member("index.json", &index)?;
        for document in [root].into_iter().chain(below) {
            tar.member(&blob_path(&document.digest()), document.raw().as_bytes())?;
        }
        *self.announced.lock().unwrap_or_else(PoisonError::into_inner) = Some(root.digest());
        Ok(())
    }

    /// They stand in the archive since [`Destination::announce`].
    fn put_document(&self, _: &Document) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error> {
        let announced = self.announced.into_inner().unwrap_or_else(PoisonError::into_inner);
        if announced != Some(root.digest()) {
            let reason = "the archive was begun for another image".to_owned();
            return Err(Error::BadImage { image: self.name, reason });
        }
        self.tar.into_inner().unwrap_or_else(PoisonError::into_inner).publish()?;
        Ok(Vec::new())
    }
}
