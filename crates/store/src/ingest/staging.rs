//! Objects that have no name in the store yet.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_codec::digest::Digest;

use crate::error::Error;
use crate::lease::Held;

/// A folder of a lease with what one layer refers to, each object under its digest: written there, or linked from the
/// store. A link keeps the bytes whatever anybody removes meanwhile.
#[derive(Debug)]
pub struct Staging {
    lease: Arc<Held>,
    folder: PathBuf,
    distrust: bool,
}

impl Staging {
    pub fn new(lease: &Arc<Held>, distrust: bool) -> Result<Self, Error> {
        Ok(Staging { folder: lease.staging()?, lease: lease.clone(), distrust })
    }

    /// Where the layer file is written.
    pub fn layer_path(&self) -> PathBuf {
        self.folder.join("layer")
    }

    pub fn layer_file(&self) -> Result<File, Error> {
        self.create(&self.layer_path())
    }

    fn create(&self, path: &Path) -> Result<File, Error> {
        OpenOptions::new().write(true).create_new(true).open(path).map_err(Error::io("make", path))
    }

    fn staged(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    /// Links the object of the store; false if there is none of this length, or none is wanted, or the file system has
    /// no links to give.
    pub fn link(&self, digest: &Digest, len: u64) -> bool {
        if self.distrust {
            return false;
        }
        let staged = self.staged(digest);
        match fs::hard_link(self.lease.store().layout().object(digest), &staged) {
            Ok(()) => {}
            // Staged before. What another thread is still writing is whole when the layer is published, or never is.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return true,
            Err(_) => return false,
        }
        if fs::metadata(&staged).is_ok_and(|found| found.len() == len) {
            return true;
        }
        // A damaged one: better the bytes at hand. If it cannot be removed, making a new one will say so.
        let _ = fs::remove_file(&staged);
        false
    }

    /// Writes the object `digest`; false if it was staged before.
    pub fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<bool, Error> {
        let path = self.staged(digest);
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(Error::io("make", &path)(error)),
        };
        file.write_all(bytes).map_err(Error::io("write", &path))?;
        Ok(true)
    }

    /// Begins an object whose digest is not known yet; `number` is that of nothing else in this layer.
    pub fn begin(&self, number: usize) -> Result<(File, PathBuf), Error> {
        let path = self.folder.join(format!("content-{number}"));
        Ok((self.create(&path)?, path))
    }

    /// Gives what was begun its digest; false if it was staged before.
    pub fn end(&self, path: &Path, digest: &Digest) -> Result<bool, Error> {
        let staged = self.staged(digest);
        let new = !staged.exists();
        // In place of one that another thread has just begun: the same bytes.
        fs::rename(path, &staged).map_err(Error::io("make", &staged))?;
        Ok(new)
    }

    /// Gives all objects their names in the store. The caller shares the lock of the store and has synced the bytes.
    pub fn publish(&self, objects: &HashSet<Digest>) -> Result<(), Error> {
        let layout = self.lease.store().layout();
        for digest in objects {
            let (from, to) = (self.staged(digest), layout.object(digest));
            // Of two links to one file rename(2) leaves both: then the object is where it belongs already.
            match fs::rename(&from, &to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let folder = to.parent().unwrap_or(Path::new("."));
                    fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
                    fs::rename(&from, &to).map_err(Error::io("make", &to))?;
                }
                result => result.map_err(Error::io("make", &to))?,
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now goes with the lease.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
