//! Writing a tree from the layers of an image.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{Document, ImageConfig, Limits, Manifest};
use coracle_codec::{compress, tar};
use coracle_store::Layer;
use coracle_sys::lock::FileLock;
use coracle_sys::sync::sync_file_system;

use super::parts::{Came, Parts, sift};
use super::record::{InTree, Record};
use super::unpack::{Sharing, Unpacker};
use crate::Error;
use crate::artifact::layers;
use crate::chunked::Documents;
use crate::image::blob::Blob;
use crate::image::{Destination, Outcome, Takes, config_of};
use crate::subset::Selection;

/// What a tree needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// What of the image goes there; by default what the tree that is there has of its image.
    pub(crate) selection: Option<&'a Selection>,
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
    sharing: Sharing,
    selection: Selection,
    /// How to fetch no more than what is selected.
    parts: Option<Parts>,
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

/// A layer, and how it comes.
struct Coming {
    number: usize,
    blob: Arc<Blob>,
    diff_id: Digest,
    way: Way,
}

/// How a layer comes.
enum Way {
    /// From the store.
    Stored(Box<Layer>),
    /// By its table of contents.
    Parts(Box<Documents>),
    /// All of it.
    Whole,
}

impl Way {
    fn came(&self) -> Came {
        match self {
            Way::Stored(_) => Came::Store,
            Way::Parts(_) => Came::Parts,
            Way::Whole => Came::Whole,
        }
    }
}

/// Unpacks a layer of the store, compared: what is in a store may have been changed in place.
fn laid_from_store(unpacker: &mut Unpacker, layer: &Coming, stored: &Layer) -> Result<(), Error> {
    let mut input = Hashing::new(stored.reader());
    let reader = io::BufReader::with_capacity(1 << 16, &mut input);
    unpacker.layer(&layer.blob.what, reader, tar::Limits::default(), Some(stored))?;
    let actual = input.digest();
    if actual != layer.diff_id {
        let (image, layer) = ("store".to_owned(), layer.blob.title());
        return Err(Error::WrongLayer { image, layer, expected: stored.diff_id(), actual });
    }
    Ok(())
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
        let told = place.selection.cloned();
        let selection = told.or_else(|| record.in_tree().map(|found| found.selection)).unwrap_or_default();
        let new = record.begin().map_err(fail)?;
        let unpacker = Unpacker::new(name, &new, place.sharing).map_err(fail)?;
        Ok(RootfsDestination {
            name: name.to_owned(),
            record,
            limits: place.limits,
            archive_limits: place.archive_limits,
            sharing: place.sharing,
            selection,
            parts: None,
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

    /// Lets layers be read in parts where they can be. `config` is that of the image.
    pub(crate) fn read_in_parts(&mut self, parts: Parts, config: &ImageConfig) {
        self.parts = Some(parts);
        self.state.lock().unwrap_or_else(PoisonError::into_inner).config = Some(config.clone());
    }

    /// Makes the tree from all layers, which are known by now, and says how many files and links are in it. A layer that
    /// cannot be read in parts comes whole.
    fn build(&self, parts: &Parts, state: &mut State, manifest: &Manifest) -> Result<u64, Error> {
        let fail = |error| Error::Write { path: self.new.clone(), error };
        let bad = |reason: &str| Error::BadImage { image: self.name.clone(), reason: reason.into() };
        let config = state.config.as_ref().ok_or_else(|| bad("there is no config"))?;
        let mut ways = Vec::new();
        for (number, (layer, diff_id)) in manifest.layers().iter().zip(config.diff_ids()).enumerate() {
            let blob =
                state.known.get(&layer.digest).ok_or_else(|| bad("not all of its layers are there"))?;
            let way = match parts.store.layer(diff_id).ok().flatten() {
                Some(stored) => Way::Stored(Box::new(stored)),
                None => parts.documents(number, layer)?.map_or(Way::Whole, Way::Parts),
            };
            ways.push(Coming { number, blob: Arc::clone(blob), diff_id: *diff_id, way });
        }
        loop {
            match self.attempt(parts, &mut state.unpacker, &ways)? {
                Ok((kept, bytes)) => {
                    for (layer, bytes) in ways.iter().zip(bytes) {
                        parts.came(layer.number, layer.way.came(), bytes);
                        parts.source.forget(&layer.blob.descriptor.digest);
                    }
                    return Ok(kept);
                }
                // What was made of it may be wrong: nothing of it stays.
                Err(number) => {
                    ways[number].way = Way::Whole;
                    self.record.begin().map_err(fail)?;
                    state.unpacker = Unpacker::new(&self.name, &self.new, self.sharing).map_err(fail)?;
                }
            }
        }
    }

    /// One attempt: how many files and links there are, and for each layer the bytes that were fetched; or the layer that has
    /// to come in another way.
    fn attempt(
        &self,
        parts: &Parts,
        unpacker: &mut Unpacker,
        ways: &[Coming],
    ) -> Result<Result<(u64, Vec<u64>), usize>, Error> {
        for layer in ways {
            let (number, what) = (layer.number, &layer.blob.what);
            let laid = match &layer.way {
                Way::Parts(documents) => parts.lay(unpacker, number, what, &documents.toc),
                Way::Stored(stored) => laid_from_store(unpacker, layer, stored),
                Way::Whole => self.unpack(unpacker, &layer.blob, &layer.diff_id),
            };
            match (laid, &layer.way) {
                (Ok(()), _) => {}
                (Err(error @ (Error::Cancelled | Error::Write { .. })), _) => return Err(error),
                (Err(error), Way::Whole) => {
                    // What an earlier run has left may be the reason.
                    if parts.source.forget(&layer.blob.descriptor.digest) == 0 {
                        return Err(error);
                    }
                    return Ok(Err(number));
                }
                (Err(error), Way::Parts(_) | Way::Stored(_)) => {
                    parts.fell_back(number, error.to_string());
                    return Ok(Err(number));
                }
            }
        }
        let fail = |error| Error::Write { path: self.new.clone(), error };
        let (missing, kept) = sift(unpacker, &self.selection).map_err(fail)?;
        let mut bytes = Vec::new();
        for layer in ways {
            let number = layer.number;
            let mine = missing.partition_point(|missing| missing.wanted.layer < number)
                ..missing.partition_point(|missing| missing.wanted.layer <= number);
            bytes.push(match &layer.way {
                Way::Stored(_) => 0,
                Way::Whole => layer.blob.descriptor.size,
                Way::Parts(documents) if mine.is_empty() => documents.bytes,
                Way::Parts(documents) => {
                    match parts.fill(unpacker, &layer.blob, documents, &missing[mine], &self.new)? {
                        Ok(fetched) => fetched,
                        Err(reason) => {
                            parts.fell_back(number, reason);
                            return Ok(Err(number));
                        }
                    }
                }
            });
        }
        Ok(Ok((kept, bytes)))
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
        if self.parts.is_some() {
            return Ok(Outcome::Copied);
        }
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
        let fail = |error| Error::Write { path: self.new.clone(), error };
        let kept = if let Some(parts) = &self.parts {
            self.build(parts, &mut state, manifest)?
        } else if state.done != manifest.layers().len() {
            return Err(bad("not all of its layers are there"));
        } else if self.selection.is_everything() {
            0
        } else {
            sift(&mut state.unpacker, &self.selection).map_err(fail)?.1
        };
        state.unpacker.finish()?;
        sync_file_system(&self.new).map_err(fail)?;
        // Asked again: it may have been put there meanwhile.
        if !self.record.may_replace().map_err(fail)? {
            return Err(bad("something else was put there meanwhile"));
        }
        let what = InTree { config: manifest.config().digest, selection: self.selection.clone() };
        self.record.publish(&self.new, &what)?;
        let mut notes = state.unpacker.report.notes();
        if let Some(subset) = what.subset() {
            let words = subset.patterns.in_words();
            notes.push(format!("the tree is a subset of the image ({words}): {kept} files and links"));
        }
        Ok(notes)
    }
}

impl Drop for RootfsDestination {
    fn drop(&mut self) {
        // After `finish` nothing is there; what cannot be removed now is removed by the next run.
        let _ = coracle_sys::tree::remove_tree(&self.new);
    }
}
