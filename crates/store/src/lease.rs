//! Leases: what a running piece of work needs stays.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::digest::Digest;
use coracle_codec::oci::Verified;
use coracle_sys::lock::FileLock;
use coracle_sys::spool::temp_folder;

use crate::error::Error;
use crate::ingest::{LayerWriter, WriterOptions};
use crate::layer::Layer;
use crate::reach;
use crate::refs::{self, Ref};
use crate::store::{Store, publish};

/// The file in a lease's folder that is locked for as long as the lease lives.
pub(crate) const LOCK: &str = "lock";
/// The file in a lease's folder that lists what it keeps.
pub(crate) const KEEPS: &str = "keeps";

/// A running piece of work. What it keeps, and what it makes, is not removed by [`Store::gc`] of any process until the
/// lease is dropped, or its process ends. May be used by several threads at once.
#[derive(Debug)]
pub struct Lease(Arc<Held>);

/// The folder of a lease, and its lock. Writers of layers share it.
#[derive(Debug)]
pub(crate) struct Held {
    store: Store,
    folder: PathBuf,
    keeps: Mutex<File>,
    staged: AtomicU64,
    /// Given up after the folder is removed: nobody takes the lease for dead while it is emptied.
    _lock: FileLock,
}

/// What a lease keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Layer(Digest),
    Document(Digest),
}

impl Kept {
    /// A line of the list.
    fn line(&self) -> String {
        match self {
            Kept::Layer(digest) => format!("layer {digest}\n"),
            Kept::Document(digest) => format!("document {digest}\n"),
        }
    }

    /// Reads the list; a line that is not whole was never relied upon.
    pub fn parse(text: &str) -> Vec<Kept> {
        let line = |line: &str| {
            let (what, digest) = line.split_once(' ')?;
            let digest = digest.strip_suffix('\n')?.parse().ok()?;
            match what {
                "layer" => Some(Kept::Layer(digest)),
                "document" => Some(Kept::Document(digest)),
                _ => None,
            }
        };
        text.split_inclusive('\n').filter_map(line).collect()
    }
}

impl Lease {
    pub(crate) fn new(store: &Store) -> Result<Self, Error> {
        let leases = store.layout().leases();
        // Without it, gc could see the folder before its lock and take it for dead.
        let _shared = store.share()?;
        let folder = temp_folder(&leases).map_err(Error::io("make a folder in", &leases))?;
        let (lock, keeps) = (folder.join(LOCK), folder.join(KEEPS));
        let held = Held {
            store: store.clone(),
            _lock: FileLock::create(&lock).map_err(Error::io("lock", &lock))?,
            keeps: Mutex::new(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&keeps)
                    .map_err(Error::io("make", &keeps))?,
            ),
            staged: AtomicU64::new(0),
            folder,
        };
        Ok(Lease(Arc::new(held)))
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Keeps a layer that is in the store; false if it is not.
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn keep_layer(&self, diff_id: &Digest) -> Result<bool, Error> {
        let _shared = self.0.store.share()?;
        let here = self.0.store.has_layer(diff_id);
        if here {
            self.0.note(Kept::Layer(*diff_id))?;
        }
        Ok(here)
    }

    /// Keeps a document that is in the store, and what it leads to as far as that is here; false if it is not.
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn keep_document(&self, digest: &Digest) -> Result<bool, Error> {
        let _shared = self.0.store.share()?;
        let here = self.0.store.layout().document(digest).is_file();
        if here {
            self.0.note(Kept::Document(*digest))?;
        }
        Ok(here)
    }

    /// Puts a manifest, an index or a config into the store, and keeps it. One that is there and damaged is replaced.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_document(&self, document: &Verified) -> Result<(), Error> {
        let digest = document.digest();
        let path = self.0.store.layout().document(&digest);
        let _shared = self.0.store.share()?;
        if !self.0.store.document(&digest).is_ok_and(|found| found.is_some()) {
            publish(&path, document.as_bytes())?;
        }
        self.0.note(Kept::Document(digest))
    }

    /// Begins a layer. `hints` are layers that the new one is a likely successor of: what stands in both is compared
    /// and linked, not hashed and written.
    ///
    /// # Errors
    /// Nothing can be written to the store.
    pub fn layer_writer(&self, hints: &[Layer], options: WriterOptions) -> Result<LayerWriter, Error> {
        LayerWriter::new(self.0.clone(), hints, options)
    }

    /// Gives a name its meaning, in place of the one before. The documents that it leads to, and the layers of each
    /// image, have to be in the store.
    ///
    /// # Errors
    /// [`Error::Missing`] names what is not; or a document is damaged or is none; or it cannot be written.
    pub fn set_ref(&self, entry: &Ref) -> Result<(), Error> {
        let _shared = self.0.store.share()?;
        reach::require_whole(&self.0.store, entry)?;
        refs::write(self.0.store.layout(), entry)
    }
}

impl Held {
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Writes down that something is needed. The caller shares the lock of the store, or has what it notes staged.
    pub fn note(&self, kept: Kept) -> Result<(), Error> {
        let mut keeps = self.keeps.lock().unwrap_or_else(PoisonError::into_inner);
        keeps.write_all(kept.line().as_bytes()).map_err(Error::io("write", &self.folder.join(KEEPS)))
    }

    /// Makes a folder for the objects of one layer.
    pub fn staging(&self) -> Result<PathBuf, Error> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("objects-{number}"));
        fs::create_dir(&folder).map_err(Error::io("make", &folder))?;
        Ok(folder)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next gc.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Folders below `leases`.
pub(crate) fn folders(leases: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(leases).map_err(Error::io("list", leases))? {
        found.push(entry.map_err(Error::io("list", leases))?.path());
    }
    Ok(found)
}

/// What the lease in `folder` keeps; `None` if nobody holds it any more.
pub(crate) fn kept(folder: &Path) -> Result<Option<Vec<Kept>>, Error> {
    let lock = folder.join(LOCK);
    match FileLock::try_exclusive(&lock) {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => {}
        // Made under the lock of the store, so a folder without one is what a killed process left.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("lock", &lock)(error)),
    }
    let keeps = folder.join(KEEPS);
    match fs::read(&keeps) {
        Ok(bytes) => Ok(Some(Kept::parse(&String::from_utf8_lossy(&bytes)))),
        // Released just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &keeps)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_as_it_was_written() {
        let (a, b) = (Kept::Layer(Digest::of(b"a")), Kept::Document(Digest::of(b"b")));
        let text = a.line() + &b.line();
        assert_eq!(Kept::parse(&text), [a, b]);
        assert_eq!(Kept::parse(&text[..text.len() - 1]), [a]);
        assert_eq!(Kept::parse("layer x\n\nother sha256:00\n"), []);
    }
}
