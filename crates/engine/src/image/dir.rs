//! `dir:`: a flat folder, as containers/image writes it: `manifest.json`, `version`, and a file for each blob, named by
//! the digits of its digest. Documents below an index are `DIGITS.manifest.json`.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, Limits, Unverified};

use super::blob::Blob;
use super::layout::{open_blob, parse, partial, publish, put_file, put_new, read_small, tidy};
use super::{Destination, Outcome, Source, Takes};
use crate::Error;

const VERSION: &str = "Directory Transport Version: 1.1\n";
const MANIFEST: &str = "manifest.json";

/// A folder to read from.
#[derive(Debug)]
pub(crate) struct DirSource {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) limits: Limits,
}

impl Source for DirSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Document, Error> {
        let bytes = read_small(&self.path.join(MANIFEST), self.limits.manifest_bytes)?;
        Document::parse(Unverified::new(bytes).identify(), None, &self.limits)
            .map_err(|error| Error::Document { image: self.name.clone(), error })
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        let path = self.path.join(format!("{}.{MANIFEST}", wanted.digest.hex()));
        parse(&self.name, read_small(&path, self.limits.manifest_bytes)?, wanted, &self.limits)
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        open_blob(&self.path.join(wanted.digest.hex()), offset)
    }
}

/// A folder to write to.
#[derive(Debug)]
pub(crate) struct DirDestination {
    path: PathBuf,
}

impl DirDestination {
    /// Makes the folder. One that is there must be empty, or of this transport: its image is replaced.
    pub(crate) fn create(name: &str, path: &Path) -> Result<Self, Error> {
        let fail = |error| Error::Write { path: path.to_owned(), error };
        fs::create_dir_all(path).map_err(fail)?;
        let ours = path.join("version").is_file() || path.join(MANIFEST).is_file();
        let mut entries = fs::read_dir(path).map_err(fail)?;
        let others = entries.any(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                !(name.starts_with('.') || (name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())))
            })
        });
        if others && !ours {
            let reason = "the folder holds something else".to_owned();
            return Err(Error::Unsupported { image: name.to_owned(), reason });
        }
        Ok(DirDestination { path: path.to_owned() })
    }
}

impl Destination for DirDestination {
    fn takes(&self) -> Takes {
        Takes { index: true, parallel: true, artifacts: true, loses: None, wants_compressed: false }
    }

    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error> {
        let digest = &blob.descriptor.digest;
        put_file(blob, &self.path.join(digest.hex()), &partial(&self.path, digest))
    }

    fn put_new(
        &self,
        make: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<Option<(Digest, u64)>, Error> {
        put_new(&self.path, make).map(Some)
    }

    fn put_document(&self, document: &Document) -> Result<(), Error> {
        let file = format!("{}.{MANIFEST}", document.digest().hex());
        publish(&self.path.join(file), document.raw().as_bytes())
    }

    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error> {
        publish(&self.path.join("version"), VERSION.as_bytes())?;
        publish(&self.path.join(MANIFEST), root.raw().as_bytes())?;
        tidy(&self.path);
        Ok(Vec::new())
    }
}
