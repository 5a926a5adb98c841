//! Writing a tree from the layers of an image.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{Document, ImageConfig, Limits, Manifest};
use coracle_codec::{compress, tar};
use coracle_sys::lock::FileLock;
use coracle_sys::sync::sync_file_system;

use super::record::Record;
use super::unpack::{Sharing, Unpacker};
use crate::Error;
use crate::artifact::layers;
use crate::image::blob::Blob;
use crate::image::{Destination, Outcome, Takes, config_of};

/// What a tree needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a Path,
    pub(crate) limits: Limits,
    pub(crate) archive_limits: compress::Limits,
    pub(crate) sharing: Sharing,
}

/// A tree to write.
#[derive(Debug)]
pub(crate) struct RootfsDestination {
    name: String,
    record: Record,
    limits: Limits,
    archive_limits: compress::Limits,
    new: PathBuf,
    _lock: FileLock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    unpacker: Unpacker,
    manifest: Option<Manifest>,
    config: Option<ImageConfig>,
    /// Layers that were put, for those that come again.
    known: HashMap<Digest, Arc<Blob>>,
    /// Layers that are in the tree.
    done: usize,
}

impl RootfsDestination {
    /// Makes an empty folder beside the tree. A tree that is there must be empty, or made here.
    pub(crate) fn create(name: &str, place: &Place<'_>) -> Result<Self, Error> {
        let fail = |error| Error::Write { path: place.path.to_owned(), error };
        let record = Record::beside(place.path).map_err(fail)?;
        let refused = |reason: &str| Error::Unsupported { image: name.to_owned(), reason: reason.to_owned() };
        if !record.may_replace().map_err(fail)? {
            return Err(refused("there is something that is no tree written by coracle"));
        }
        record.create().map_err(fail)?;
        let Some(lock) = record.lock().map_err(fail)? else {
            return Err(refused("another process is writing it"));
        };
        let new = record.begin().map_err(fail)?;
        let unpacker = Unpacker::new(name, &new, place.sharing).map_err(fail)?;
        Ok(RootfsDestination {
            name: name.to_owned(),
            record,
            limits: place.limits,
            archive_limits: place.archive_limits,
            new,
            _lock: lock,
            state: Mutex::new(State {
                unpacker,
                manifest: None,
                config: None,
                known: HashMap::new(),
                done: 0,
            }),
        })
    }

    /// Unpacks a layer while it is decoded and compared.
    fn unpack(&self, unpacker: &mut Unpacker, blob: &Blob, diff_id: &Digest) -> Result<(), Error> {
        let content = layers::Content::open(blob)?;
        let stored = blob.source.stored_layer(&blob.descriptor);
        let fail = |error| Error::Write { path: self.new.clone(), error };
        let (reader, writer) = io::pipe().map_err(fail)?;
        let limits = self.archive_limits;
        std::thread::scope(|scope| {
            let decoding = scope.spawn(move || {
                let mut out = Hashing::new(io::BufWriter::with_capacity(1 << 16, writer));
                layers::decode(blob, content, diff_id, limits, &mut out, fail)?;
                io::Write::flush(&mut out).map_err(fail)
            });
            let input = io::BufReader::with_capacity(1 << 16, reader);
            let unpacked = unpacker.layer(&blob.what, input, tar::Limits::default(), stored.as_ref());
            let decoded = decoding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match (decoded, unpacked) {
                // Nobody read on: the other error is why.
                (Err(Error::Write { error, .. }), Err(reason))
                    if error.kind() == io::ErrorKind::BrokenPipe =>
                {
                    Err(reason)
                }
                (Err(error), _) => Err(error),
                (Ok(()), unpacked) => unpacked,
            }
        })
    }
}

impl Destination for RootfsDestination {
    fn takes(&self) -> Takes {
        Takes {
            index: false,
            parallel: false,
            artifacts: false,
            loses: Some("a tree of files has no manifest"),
            wants_compressed: false,
        }
    }

    fn announce(&self, root: &Document, _: &[Document]) -> Result<(), Error> {
        if let Document::Manifest(manifest) = root {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).manifest = Some(manifest.clone());
        }
        Ok(())
    }

    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let bad = |reason: &str| Error::BadImage { image: self.name.clone(), reason: reason.into() };
        let manifest = state.manifest.as_ref().ok_or_else(|| bad("an index has no place here"))?;
        if state.config.is_none() {
            state.config = Some(config_of(blob.source.as_ref(), manifest, &self.limits)?);
        }
        let config = state.config.as_ref().ok_or_else(|| bad("there is no config"))?;
        if blob.descriptor.digest == manifest.config().digest {
            blob.skipped(blob.descriptor.size);
            return Ok(Outcome::Copied);
        }
        state.known.insert(blob.descriptor.digest, Arc::clone(blob));
        // A layer may stand in an image more than once, and comes once.
        while let Some(next) = manifest.layers().get(state.done)
            && let Some(blob) = state.known.get(&next.digest)
        {
            self.unpack(&mut state.unpacker, blob, &config.diff_ids()[state.done])?;
            state.done += 1;
        }
        Ok(Outcome::Copied)
    }

    fn put_document(&self, _: &Document) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = |reason: &str| Error::BadImage { image: self.name.clone(), reason: reason.into() };
        let Document::Manifest(manifest) = root else { return Err(bad("an index has no place here")) };
        if state.done != manifest.layers().len() {
            return Err(bad("not all of its layers are there"));
        }
        state.unpacker.finish()?;
        let fail = |error| Error::Write { path: self.new.clone(), error };
        sync_file_system(&self.new).map_err(fail)?;
        // Asked again: it may have been put there meanwhile.
        if !self.record.may_replace().map_err(fail)? {
            return Err(bad("something else was put there meanwhile"));
        }
        self.record.publish(&self.new, &manifest.config().digest)?;
        Ok(state.unpacker.report.notes())
    }
}

impl Drop for RootfsDestination {
    fn drop(&mut self) {
        // After `finish` nothing is there; what cannot be removed now is removed by the next run.
        let _ = coracle_sys::tree::remove_tree(&self.new);
    }
}
