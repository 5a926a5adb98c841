//! A part of an image, of which no more is fetched than what is in the tree in the end.
//!
//! The tree is made first, with all names and without contents: layers that have a table of contents are laid over each
//! other by it. Then what is not wanted goes, and only then contents are fetched, those that still have a name. So what
//! counts is the path in the finished tree, whatever links lead there, and a content stays as long as any of its names.
//!
//! A table of contents is what the manifest says it is, and each content what the table says. That the tar would have told
//! the same cannot be known without all of it; so the tree is not the image's in the sense in which a diff_id says so.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_codec::chunked::{Entry as TocEntry, EntryKind, Layer, Limits, Piece, Toc, is_stargz_own};
use coracle_codec::digest::{Digest, Hasher};
use coracle_codec::oci::Descriptor;
use coracle_codec::tar::Entry;
use coracle_store::Store;
use coracle_sys::tree::{Kind, Metadata};

use super::unpack::{Bytes, Unpacker, Wanted};
use crate::Error;
use crate::chunked::{Assembled, Documents, Held, HostTree, Link, Opened, Parted, Plan, assemble, open};
use crate::image::Source;
use crate::image::blob::{Blob, Progress};
use crate::image::spooled::Spooled;
use crate::subset::Selection;

/// What it takes to have parts of layers.
pub(crate) struct Parts {
    /// Where whole layers and contents may be, and blobs are kept while they come.
    pub(crate) store: Store,
    /// Where contents may be besides.
    pub(crate) trees: Vec<HostTree>,
    /// The image. What its layers are read from.
    pub(crate) source: Arc<Spooled>,
    /// What a request without content takes.
    pub(crate) latency: Duration,
    pub(crate) progress: Arc<Progress>,
    pub(crate) told: Arc<Mutex<Told>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parts(of {})", self.source.name())
    }
}

/// What is told of layers.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// How each came, by its number, and the bytes that were fetched for it.
    pub(crate) came: Vec<(usize, Came, u64)>,
    /// Which could not be read in parts, and why.
    pub(crate) fell_back: Vec<(usize, String)>,
}

/// How a layer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// From the store.
    Store,
    /// By its table of contents.
    Parts,
    /// Whole.
    Whole,
}

/// A file of the tree that has no content yet.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) wanted: Wanted,
    path: Vec<u8>,
    id: u64,
    metadata: Metadata,
}

/// Removes what is not selected. Returns what is left without its content, in the order of layers and their members, and
/// how many files and links there are.
pub(super) fn sift(unpacker: &mut Unpacker, selection: &Selection) -> io::Result<(Vec<Missing>, u64)> {
    let later = std::mem::take(&mut unpacker.later);
    let mut missing: HashMap<Wanted, Missing> = HashMap::new();
    let mut kept = 0;
    let judge = |path: &[u8], kind: Kind, id: u64, above: bool| {
        let (fate, taken) = selection.fate(path, kind, above);
        if taken && kind != Kind::Folder {
            kept += 1;
            if kind == Kind::File
                && let Some((wanted, metadata)) = later.get(&id)
            {
                // Other names of it are the same file.
                missing.entry(*wanted).or_insert_with(|| Missing {
                    wanted: *wanted,
                    path: path.to_vec(),
                    id,
                    metadata: metadata.clone(),
                });
            }
        }
        (fate, taken)
    };
    unpacker.top_folder().sift(false, judge)?;
    unpacker.top_folder();
    let mut missing: Vec<Missing> = missing.into_values().collect();
    missing.sort_unstable_by_key(|missing| missing.wanted);
    Ok((missing, kept))
}

impl Parts {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn came(&self, number: usize, came: Came, bytes: u64) {
        self.told().came.push((number, came, bytes));
    }

    pub(super) fn fell_back(&self, number: usize, reason: String) {
        self.told().fell_back.push((number, reason));
    }

    /// The documents of a layer, if it can be read in parts.
    pub(super) fn documents(
        &self,
        number: usize,
        layer: &Descriptor,
    ) -> Result<Option<Box<Documents>>, Error> {
        let parted = Parted::new(self.source.as_ref(), layer);
        match open(&parted, &Limits::default()) {
            Ok(Opened::Documents(documents)) => Ok(Some(documents)),
            Ok(Opened::Plain) => Ok(None),
            Ok(Opened::Whole(stream)) => {
                self.source.expect(&layer.digest, stream);
                Ok(None)
            }
            Err(error @ Error::Chunked { .. }) => {
                self.fell_back(number, error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Lays the members of a layer over what is there, without their contents.
    pub(super) fn lay(
        &self,
        unpacker: &mut Unpacker,
        number: usize,
        what: &str,
        toc: &Toc,
    ) -> Result<(), Error> {
        unpacker.begin_layer();
        for (at, entry) in toc.entries.iter().enumerate() {
            if self.progress.stop.raised() {
                return Err(Error::Cancelled);
            }
            if is_stargz_own(&entry.name) {
                continue;
            }
            let member = member(entry);
            let bytes = match member.content_len {
                0 => Bytes::Here(&mut io::empty(), None),
                _ => Bytes::Later(Wanted { layer: number, entry: at }),
            };
            unpacker.lay(what, &member, bytes)?;
        }
        Ok(())
    }

    /// Fetches what is missing of a layer; why not, if it has to come whole.
    pub(super) fn fill(
        &self,
        unpacker: &mut Unpacker,
        blob: &Blob,
        documents: &Documents,
        missing: &[Missing],
        tree: &Path,
    ) -> Result<Result<u64, String>, Error> {
        // What lies in other trees has the name that it has in this one.
        let entries: Vec<TocEntry> = missing
            .iter()
            .map(|missing| {
                let entry = documents.toc.entries[missing.wanted.entry].clone();
                let name = String::from_utf8(missing.path.clone()).unwrap_or_else(|_| entry.name.clone());
                TocEntry { name, ..entry }
            })
            .collect();
        let pieces = (0..entries.len()).map(|entry| Piece::Content { entry, crc: None }).collect();
        let toc = Toc { entries, split: None, ends_said: true };
        let layer = Layer { toc, framing: Vec::new(), pieces };
        let held = Held::find(&self.store, &[], &self.trees, &layer.toc)?;
        let mut reason = "its contents do not lie in the order of their names".to_owned();
        let mut fetched = documents.bytes;
        // If something here turns out to be another thing, nothing here is used.
        let again = (!held.is_empty()).then(Held::default);
        for held in std::iter::once(held).chain(again) {
            let (took, bytes) = documents.took;
            let link = Link::to(self.source.as_ref(), self.latency, took, bytes);
            let parted = Parted::new(self.source.as_ref(), &blob.descriptor);
            let (held, limits) = (Arc::new(held), Limits::default());
            let plan = Plan::new(&documents.place, layer.clone(), held, &link, &parted, &limits);
            let Some(plan) = plan else { break };
            let mut sink =
                Sink { unpacker, missing, entries: &layer.toc.entries, at: 0, open: None, wrong: None };
            let fail = |error| Error::Write { path: tree.to_owned(), error };
            fetched += plan.bytes();
            match assemble(&plan, &self.store, parted, &self.progress, &mut sink, &fail) {
                Ok(Assembled::Tar(_)) => return Ok(Ok(fetched)),
                Ok(Assembled::Whole(stream)) => {
                    self.source.expect(&blob.descriptor.digest, stream);
                    return Ok(Err("the whole layer was sent in place of a range".into()));
                }
                Err(_) if self.progress.stop.raised() => return Err(Error::Cancelled),
                Err(error) => match sink.wrong.take() {
                    Some(wrong) => reason = wrong,
                    None if matches!(
                        error,
                        Error::Write { .. } | Error::Temporary { .. } | Error::Store(_)
                    ) =>
                    {
                        return Err(error);
                    }
                    None => reason = error.to_string(),
                },
            }
        }
        Ok(Err(reason))
    }
}

/// A member of a table of contents as a tar would have it.
fn member(entry: &TocEntry) -> Entry {
    let content_len = if entry.kind == EntryKind::File { entry.size } else { 0 };
    Entry {
        offset: 0,
        content_offset: 0,
        content_len,
        name: entry.name.clone().into_bytes(),
        link_name: entry.link_name.clone().into_bytes(),
        kind: entry.kind.in_tar(),
        size: i64::try_from(content_len).unwrap_or(i64::MAX),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime.seconds,
        mtime_nanos: entry.mtime.nanos,
        device: entry.device,
        xattrs: entry.xattrs.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect(),
        sparse: None,
    }
}

/// Takes contents one after the other, each into its file; all are compared.
struct Sink<'a> {
    unpacker: &'a mut Unpacker,
    missing: &'a [Missing],
    entries: &'a [TocEntry],
    /// The content that comes next.
    at: usize,
    /// Its file, the bytes that it still lacks, and their digest so far.
    open: Option<(File, u64, Hasher)>,
    /// What is wrong with a content.
    wrong: Option<String>,
}

impl Sink<'_> {
    fn open(&mut self) -> io::Result<()> {
        let missing = self.missing.get(self.at).ok_or(io::ErrorKind::FileTooLarge)?;
        let (folder, name) = self.unpacker.place(&missing.path)?;
        let file = folder.rewrite(name, missing.id)?;
        self.open = Some((file, self.entries[self.at].size, Hasher::new()));
        Ok(())
    }

    fn close(&mut self, file: &File, actual: Digest) -> io::Result<()> {
        let entry = &self.entries[self.at];
        if entry.digest != Some(actual) {
            self.wrong = Some(format!("the content of {:?} has the digest {actual}", entry.name));
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.unpacker.set(file, &self.missing[self.at].metadata).map_err(io::Error::other)?;
        self.at += 1;
        Ok(())
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.open.is_none() {
            self.open()?;
        }
        let Some((file, left, hasher)) = &mut self.open else { return Ok(0) };
        let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
        let n = file.write(&buf[..most])?;
        hasher.update(&buf[..n]);
        *left -= n as u64;
        if *left == 0
            && let Some((file, _, hasher)) = self.open.take()
        {
            self.close(&file, hasher.finish())?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
