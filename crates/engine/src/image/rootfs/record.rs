//! What is kept beside a tree that was written: `.NAME.coracle`, where NAME is the name of the tree's folder.
//!
//! It tells which folder this program has made, so that no other is ever replaced, and holds the tree that is being made
//! until it takes the place of the old one; both are on one file system, so that it can. A pull keeps its store there,
//! too, unless told another one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle_codec::digest::Digest;
use coracle_sys::lock::FileLock;
use coracle_sys::publish::Pending;
use coracle_sys::sync::sync_folder;
use coracle_sys::tree;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::subset::{Patterns, Selection, Subset};

const FILE: &str = "rootfs.json";
/// Of a whole image.
const VERSION: u32 = 1;
/// Of a part of one. What knows only the first must not take it for the image.
const VERSION_SUBSET: u32 = 2;
/// More is no file of ours.
const MAX_BYTES: u64 = 1 << 20;

/// Of which folder, and what was put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    version: u32,
    /// Numbers of the folders that are, or are about to be, the tree.
    folders: Vec<u64>,
    /// Digest of the config of the image in it.
    config: String,
    /// Which files of the image are there, if not all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subset: Option<Patterns>,
}

/// What is in a tree that was made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InTree {
    /// The config of the image.
    pub(crate) config: Digest,
    /// Which files of it.
    pub(crate) selection: Selection,
}

impl InTree {
    /// What it is a subset of, and which, if it is one.
    pub(crate) fn subset(&self) -> Option<Subset> {
        let patterns = self.selection.patterns();
        (!self.selection.is_everything()).then_some(Subset { of: self.config, patterns })
    }
}

/// A tree and what is beside it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// The tree.
    pub(crate) tree: PathBuf,
    folder: PathBuf,
}

impl Record {
    /// What belongs to the tree `path`, which need not exist.
    pub(crate) fn beside(path: &Path) -> io::Result<Self> {
        let tree = match fs::canonicalize(path) {
            Ok(tree) => tree,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = path.parent().filter(|above| !above.as_os_str().is_empty());
                let above = above.unwrap_or(Path::new("."));
                fs::create_dir_all(above)?;
                let name = path.file_name().ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
                fs::canonicalize(above)?.join(name)
            }
            Err(error) => return Err(error),
        };
        let (Some(above), Some(name)) = (tree.parent(), tree.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it has no folder around it"));
        };
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(".coracle");
        Ok(Record { folder: above.join(beside), tree })
    }

    /// Where a pull keeps what the tree is made of.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Makes the folder beside the tree, if it is not there.
    pub(crate) fn create(&self) -> io::Result<()> {
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes it upon the caller to write the tree; `None` if another process does.
    pub(crate) fn lock(&self) -> io::Result<Option<FileLock>> {
        let path = self.folder.join("lock");
        File::options().create(true).append(true).open(&path)?;
        FileLock::try_exclusive(&path)
    }

    /// An empty folder for the new tree. What an earlier run has left there is removed.
    pub(crate) fn begin(&self) -> io::Result<PathBuf> {
        let new = self.folder.join("new");
        tree::remove_tree(&new)?;
        fs::create_dir(&new)?;
        Ok(new)
    }

    /// Whether the tree may be replaced: nothing is there, or nothing is in it, or it was made here.
    pub(crate) fn may_replace(&self) -> io::Result<bool> {
        let found = match fs::symlink_metadata(&self.tree) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            result => result?,
        };
        if !found.is_dir() {
            return Ok(false);
        }
        if fs::read_dir(&self.tree)?.next().is_none() {
            return Ok(true);
        }
        Ok(self.written().is_some_and(|written| written.folders.contains(&found.ino())))
    }

    /// What is in the tree, if the tree was made here.
    pub(crate) fn in_tree(&self) -> Option<InTree> {
        let found = fs::symlink_metadata(&self.tree).ok()?;
        let written = self.written().filter(|written| written.folders.contains(&found.ino()))?;
        let selection = Selection::new(&written.subset.unwrap_or_default()).ok()?;
        Some(InTree { config: written.config.parse().ok()?, selection })
    }

    fn written(&self) -> Option<Written> {
        let path = self.folder.join(FILE);
        if fs::metadata(&path).ok()?.len() > MAX_BYTES {
            return None;
        }
        let written: Written = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let version = if written.subset.is_some() { VERSION_SUBSET } else { VERSION };
        (written.version == version).then_some(written)
    }

    /// Puts the new tree in the place of the old one, which is removed. Everything in it is on the disk.
    pub(crate) fn publish(&self, new: &Path, what: &InTree) -> Result<(), Error> {
        let fail = |error| Error::Write { path: self.tree.clone(), error };
        let id = fs::symlink_metadata(new).map_err(fail)?.ino();
        let old = fs::symlink_metadata(&self.tree).ok().map(|found| found.ino());
        // Until the exchange either may be the tree.
        self.write(old.into_iter().chain([id]).collect(), what).map_err(fail)?;
        let replaced = tree::exchange(new, &self.tree).map_err(fail)?;
        if let Some(above) = self.tree.parent() {
            sync_folder(above).map_err(fail)?;
        }
        self.write(vec![id], what).map_err(fail)?;
        if replaced {
            tree::remove_tree(new).map_err(|error| Error::Write { path: new.to_owned(), error })?;
        }
        Ok(())
    }

    fn write(&self, folders: Vec<u64>, what: &InTree) -> io::Result<()> {
        let subset = what.subset().map(|subset| subset.patterns);
        let version = if subset.is_some() { VERSION_SUBSET } else { VERSION };
        let written = Written { version, folders, config: what.config.to_string(), subset };
        let mut pending = Pending::create(&self.folder.join(FILE))?;
        io::Write::write_all(&mut pending, &serde_json::to_vec(&written)?)?;
        pending.publish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_here_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        let record = Record::beside(&path).unwrap();
        assert!(record.may_replace().unwrap());
        record.create().unwrap();
        let lock = record.lock().unwrap().unwrap();
        assert!(record.lock().unwrap().is_none());
        drop(lock);
        let config = Digest::of(b"config");
        let patterns = Patterns { only: vec!["usr".into()], exclude: Vec::new() };
        let part = InTree { config, selection: Selection::new(&patterns).unwrap() };
        let whole = InTree { config, selection: Selection::everything() };
        for (text, what, version) in [("one", &whole, 1), ("two", &part, 2), ("three", &whole, 1)] {
            let new = record.begin().unwrap();
            fs::write(new.join("file"), text).unwrap();
            record.publish(&new, what).unwrap();
            assert_eq!(fs::read(path.join("file")).unwrap(), text.as_bytes());
            assert!(!new.exists());
            assert!(record.may_replace().unwrap());
            assert_eq!(Record::beside(&path).unwrap().in_tree().as_ref(), Some(what));
            let written = fs::read_to_string(dir.path().join(".tree.coracle/rootfs.json")).unwrap();
            assert!(written.contains(&format!("\"version\":{version},")), "{written}");
        }
        // Somebody puts a folder of their own there.
        fs::rename(&path, dir.path().join("away")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(record.may_replace().unwrap(), "it is empty");
        fs::write(path.join("thesis"), "precious").unwrap();
        assert!(!record.may_replace().unwrap());
        assert_eq!(record.in_tree(), None);
        assert!(Record::beside(Path::new("/")).is_err());
    }
}
