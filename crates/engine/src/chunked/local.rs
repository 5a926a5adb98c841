//! Contents that are in the store, and in trees of files.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use coracle_codec::ReadAt;
use coracle_codec::chunked::chunker::{Chunker, Event};
use coracle_codec::chunked::{Entry, Toc};
use coracle_codec::digest::{Digest, Hasher};
use coracle_codec::tar::clean_path;
use coracle_store::{Layer, Store};

use super::host::HostTree;
use crate::Error;

/// Bytes of small contents that are hashed for one look.
const MAX_SMALL: u64 = 512 << 20;
/// Bytes of old contents that are cut and hashed for one look.
const MAX_CUT: u64 = 2 << 30;
/// Old contents of one name that are cut.
const MAX_VERSIONS: usize = 3;

/// Bytes of a layer in the store, or of a file.
#[derive(Clone)]
pub(crate) struct Stretch {
    pub(crate) bytes: Arc<dyn ReadAt>,
    pub(crate) offset: u64,
}

impl std::fmt::Debug for Stretch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stretch(from {} of {} bytes)", self.offset, self.bytes.size())
    }
}

/// What the store has of a number of contents and chunks.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Contents that are objects.
    pub(crate) objects: HashSet<Digest>,
    /// Contents, and chunks of contents, that stand in layers or in files.
    pub(crate) stretches: HashMap<Digest, Stretch>,
}

impl Held {
    /// Looks for the contents of these files in the store: whole ones by digest in all of it, chunks in files of the same
    /// name. `layers` are those of the images that are here, the likeliest first. What is missing then is looked for in
    /// `trees`.
    pub(crate) fn find(
        store: &Store,
        layers: &[Layer],
        trees: &[HostTree],
        toc: &Toc,
    ) -> Result<Held, Error> {
        let mut held = Held::default();
        let mut small: HashMap<u64, HashSet<Digest>> = HashMap::new();
        let mut named: HashMap<Vec<u8>, Vec<&Entry>> = HashMap::new();
        for entry in &toc.entries {
            let Some(digest) = entry.digest else { continue };
            if held.objects.contains(&digest) || entry.chunks.is_empty() {
                continue;
            }
            let object = store.object(&digest)?;
            if object.is_some_and(|file| file.metadata().is_ok_and(|meta| meta.len() == entry.size)) {
                held.objects.insert(digest);
                continue;
            }
            if entry.size <= store.inline_limit() {
                small.entry(entry.size).or_default().insert(digest);
            }
            if entry.chunks.len() > 1
                && let Some(name) = clean_path(entry.name.as_bytes())
            {
                named.entry(name).or_default().push(entry);
            }
        }
        held.small(layers, &small)?;
        held.chunks(layers, &named)?;
        for tree in trees {
            held.look_in(tree, toc.entries.iter().filter(|entry| !entry.chunks.is_empty()));
        }
        Ok(held)
    }

    /// Whether nothing is.
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.stretches.is_empty()
    }

    /// Whether the whole content is here.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.objects.contains(digest) || self.stretches.contains_key(digest)
    }

    /// Contents that are too small to be objects have no names: all that have the right length are hashed.
    fn small(&mut self, layers: &[Layer], wanted: &HashMap<u64, HashSet<Digest>>) -> Result<(), Error> {
        let (mut hashed, mut bytes) = (0, Vec::new());
        if wanted.is_empty() {
            return Ok(());
        }
        for layer in layers {
            for file in layer.files().filter(|file| file.object.is_none()) {
                let Some(digests) = wanted.get(&file.size) else { continue };
                hashed += file.size;
                if hashed > MAX_SMALL {
                    return Ok(());
                }
                bytes.resize(file.size as usize, 0);
                // A layer that cannot be read is of no use here, and no reason to fail.
                if layer.read_exact_at(file.offset, &mut bytes).is_err() {
                    break;
                }
                let digest = Digest::of(&bytes);
                if digests.contains(&digest) {
                    let stretch = Stretch { bytes: Arc::new(layer.clone()), offset: file.offset };
                    self.stretches.entry(digest).or_insert(stretch);
                }
            }
        }
        Ok(())
    }

    /// Cuts old files of the same name as the new ones were cut.
    fn chunks(&mut self, layers: &[Layer], named: &HashMap<Vec<u8>, Vec<&Entry>>) -> Result<(), Error> {
        let (mut cut, mut versions) = (0, HashMap::<&[u8], HashSet<Digest>>::new());
        if named.is_empty() {
            return Ok(());
        }
        for layer in layers {
            for file in layer.files() {
                let Some(name) = clean_path(file.path) else { continue };
                let (Some((name, entries)), Some(object)) = (named.get_key_value(&name), file.object) else {
                    continue;
                };
                let known = versions.entry(name).or_default();
                if known.len() >= MAX_VERSIONS || !known.insert(object) {
                    continue;
                }
                cut += file.size;
                if cut > MAX_CUT {
                    return Ok(());
                }
                let wanted = wanted_chunks(entries.iter().copied());
                let bytes = Arc::new(layer.clone()) as Arc<dyn ReadAt>;
                if self.cut(layer, &bytes, file.offset, file.size, &wanted).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Cuts what lies in `from` and remembers it as a stretch of `bytes`.
    pub(super) fn cut(
        &mut self,
        from: &dyn ReadAt,
        bytes: &Arc<dyn ReadAt>,
        start: u64,
        size: u64,
        wanted: &HashSet<Digest>,
    ) -> io::Result<()> {
        let (mut hasher, mut at, mut begin) = (Hasher::new(), start, start);
        let mut emit = |event: Event<'_>| {
            match event {
                Event::Data(bytes) => {
                    hasher.update(bytes);
                    at += bytes.len() as u64;
                }
                Event::Hole(zeros) => {
                    at += zeros;
                    begin = at;
                }
                Event::Cut => {
                    let digest = std::mem::take(&mut hasher).finish();
                    if wanted.contains(&digest) {
                        let stretch = Stretch { bytes: Arc::clone(bytes), offset: begin };
                        self.stretches.entry(digest).or_insert(stretch);
                    }
                    begin = at;
                }
            }
            Ok::<(), io::Error>(())
        };
        let mut chunker = Chunker::default();
        let mut piece = vec![0; 128 << 10];
        let mut read = 0;
        while read < size {
            let n = (size - read).min(piece.len() as u64) as usize;
            from.read_exact_at(start + read, &mut piece[..n])?;
            chunker.push(&piece[..n], &mut emit)?;
            read += n as u64;
        }
        chunker.finish(&mut emit)
    }
}

/// Digests of the chunks of these files.
pub(super) fn wanted_chunks<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> HashSet<Digest> {
    entries.into_iter().flat_map(|entry| &entry.chunks).filter_map(|chunk| chunk.digest).collect()
}
