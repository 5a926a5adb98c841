//! Documents and blobs that were just made, as a source to copy from.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, Repository};

use super::held::Held;
use crate::Error;
use crate::image::{Source, bytes_from};

/// What was made. Blobs that are not here come from another source.
pub(crate) struct Assembled {
    name: String,
    root: Document,
    documents: HashMap<Digest, Document>,
    small: HashMap<Digest, Vec<u8>>,
    held: HashMap<Digest, Held>,
    elsewhere: HashMap<Digest, Arc<dyn Source>>,
    rest: Arc<dyn Source>,
}

impl Assembled {
    pub(crate) fn new(name: &str, root: Document, rest: Arc<dyn Source>) -> Self {
        Assembled {
            name: name.to_owned(),
            root,
            documents: HashMap::new(),
            small: HashMap::new(),
            held: HashMap::new(),
            elsewhere: HashMap::new(),
            rest,
        }
    }

    /// A document below the root.
    pub(crate) fn below(&mut self, document: Document) {
        self.documents.insert(document.digest(), document);
    }

    /// A blob in memory.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.small.insert(Digest::of(bytes), bytes.to_vec());
    }

    /// A blob that was made.
    pub(crate) fn held(&mut self, digest: Digest, held: Held) {
        self.held.insert(digest, held);
    }

    /// A blob that a source has, another one than that of the rest.
    pub(crate) fn at(&mut self, digest: Digest, source: Arc<dyn Source>) {
        self.elsewhere.insert(digest, source);
    }

    fn holder(&self, digest: &Digest) -> &Arc<dyn Source> {
        self.elsewhere.get(digest).unwrap_or(&self.rest)
    }
}

impl Source for Assembled {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Document, Error> {
        Ok(self.root.clone())
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        match self.documents.get(&wanted.digest) {
            Some(document) => Ok(document.clone()),
            None => self.rest.document(wanted),
        }
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        if let Some(bytes) = self.small.get(&wanted.digest) {
            return Ok(bytes_from(bytes, offset));
        }
        match self.held.get(&wanted.digest) {
            Some(held) => held.read(offset).map_err(|error| {
                let (image, what) = (self.name.clone(), wanted.digest.to_string());
                Error::ReadBlob { image, what, error }
            }),
            None => self.holder(&wanted.digest).open_blob(wanted, offset),
        }
    }

    fn repository(&self) -> Option<Repository> {
        self.rest.repository()
    }

    fn distrust(&self, wanted: &Descriptor) -> bool {
        self.holder(&wanted.digest).distrust(wanted)
    }
}
