//! The files of a commit in a repository of ostree, as old files for a delta: where bootc keeps the image it has booted.
//!
//! Read-only, by the objects themselves (ostree's repository format; GVariant serialisation): no daemon, no checkout.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::digest::Digest;
use coracle_codec::source::{OpenError, Source, SourceFile};
use serde_json::Value;

use crate::Error;

/// Bytes of a metadata object; ostree's own limit.
const MAX_METADATA: u64 = 128 << 20;
/// Refs that are looked at to find the one for an image.
const MAX_REFS: usize = 10_000;
/// The key of the manifest in the metadata of commits made from container images.
const MANIFEST: &str = "ostree.manifest";

/// The tree of a commit.
#[derive(Debug)]
pub(crate) struct Tree {
    repo: PathBuf,
    mode: Mode,
    root: Checksum,
    folders: Mutex<HashMap<Checksum, Arc<Folder>>>,
}

type Checksum = [u8; 32];

/// How a repository stores files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As files; symlinks are symlinks.
    Bare,
    /// As files, symlinks too; an attribute says which is which.
    BareUser,
}

/// Names in a folder.
#[derive(Debug, Default)]
struct Folder {
    files: HashMap<Vec<u8>, Checksum>,
    folders: HashMap<Vec<u8>, Checksum>,
}

impl Tree {
    /// Opens the commit that `name` leads to, or the one that was made from the image with this config.
    pub(crate) fn open(repo: &Path, name: Option<&str>, config: Option<&Digest>) -> Result<Self, Error> {
        let fail = |reason: String| Error::BadImage { image: repo.display().to_string(), reason };
        let settings = fs::read_to_string(repo.join("config"))
            .map_err(|error| Error::Open { path: repo.join("config"), error })?;
        let mode = settings.lines().find_map(|line| line.trim().strip_prefix("mode=").map(str::to_owned));
        let mode = match mode.as_deref() {
            Some("bare") | None => Mode::Bare,
            Some("bare-user" | "bare-user-only" | "bare-split-xattrs") => Mode::BareUser,
            Some(other) => {
                return Err(fail(format!("a repository in mode {other} is not read: use one that is bare")));
            }
        };
        let commit = match (name, config) {
            (Some(name), _) => {
                let found = ["refs/heads", "refs/remotes"]
                    .iter()
                    .find_map(|kind| commit_of(&repo.join(kind).join(name)));
                found.or_else(|| checksum(name)).ok_or_else(|| fail(format!("there is no ref {name}")))?
            }
            (None, Some(config)) => made_from(repo, config)
                .ok_or_else(|| fail(format!("no ref is a commit of the image with config {config}")))?,
            (None, None) => {
                return Err(fail("the delta does not say where it starts from: name a ref".into()));
            }
        };
        let bytes = metadata(repo, &commit, "commit").map_err(|error| fail(error.to_string()))?;
        let root = root_of(&bytes).ok_or_else(|| fail("its commit is damaged".into()))?;
        Ok(Tree { repo: repo.to_owned(), mode, root, folders: Mutex::default() })
    }

    fn folder(&self, of: &Checksum) -> io::Result<Arc<Folder>> {
        if let Some(known) = self.folders.lock().unwrap_or_else(PoisonError::into_inner).get(of) {
            return Ok(Arc::clone(known));
        }
        let bytes = metadata(&self.repo, of, "dirtree")?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("object {} is damaged", hex(of)));
        let folder = Arc::new(Folder::parse(&bytes).ok_or_else(damaged)?);
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(*of, Arc::clone(&folder));
        Ok(folder)
    }

    fn find(&self, path: &[u8]) -> Result<Checksum, OpenError> {
        let mut folder = self.folder(&self.root)?;
        let mut parts = path.split(|b| *b == b'/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, b"" | b"." | b"..") {
                return Err(OpenError::InvalidPath);
            }
            if parts.peek().is_none() {
                return folder.files.get(part).copied().ok_or(OpenError::NotFound);
            }
            let below = folder.folders.get(part).copied().ok_or(OpenError::NotFound)?;
            folder = self.folder(&below)?;
        }
        Err(OpenError::InvalidPath)
    }
}

impl Source for Tree {
    fn open_path(&self, path: &[u8]) -> Result<Box<dyn SourceFile + '_>, OpenError> {
        let found = match self.find(path) {
            // Deployments get their own /etc; the image's lies in /usr/etc.
            Err(OpenError::NotFound) if path.starts_with(b"etc/") => self.find(&[b"usr/", path].concat()),
            other => other,
        }?;
        let path = object(&self.repo, &found, "file");
        let meta = fs::symlink_metadata(&path)?;
        if !meta.is_file() {
            return Err(OpenError::NotRegular("symbolic link"));
        }
        if self.mode == Mode::BareUser && is_link(&path) {
            return Err(OpenError::NotRegular("symbolic link"));
        }
        let file = File::open(&path)?;
        Ok(Box::new(Object { size: file.metadata()?.len(), file }))
    }
}

/// Whether the attribute of an object in mode bare-user says that it stands for a symlink: owner, group and mode, big
/// endian.
fn is_link(path: &Path) -> bool {
    const TYPE: u32 = 0o170_000;
    const LINK: u32 = 0o120_000;
    let Ok(all) = coracle_sys::file::xattrs(path) else { return false };
    let meta = all.iter().find(|(name, _)| name == b"user.ostreemeta").map(|(_, value)| value);
    let mode = meta.and_then(|value| value.get(8..12)).and_then(|mode| mode.try_into().ok());
    mode.is_some_and(|mode| u32::from_be_bytes(mode) & TYPE == LINK)
}

struct Object {
    size: u64,
    file: File,
}

impl Read for Object {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Seek for Object {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl SourceFile for Object {
    fn size(&self) -> u64 {
        self.size
    }
}

fn hex(checksum: &Checksum) -> String {
    checksum.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn checksum(text: &str) -> Option<Checksum> {
    let digest: Digest = format!("sha256:{}", text.trim()).parse().ok()?;
    Some(*digest.as_bytes())
}

fn object(repo: &Path, of: &Checksum, kind: &str) -> PathBuf {
    let name = hex(of);
    repo.join("objects").join(&name[..2]).join(format!("{}.{kind}", &name[2..]))
}

fn metadata(repo: &Path, of: &Checksum, kind: &str) -> io::Result<Vec<u8>> {
    let file = File::open(object(repo, of, kind))?;
    let mut bytes = Vec::new();
    file.take(MAX_METADATA + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_METADATA {
        return Err(io::Error::other(format!("object {} is too large", hex(of))));
    }
    Ok(bytes)
}

/// The commit that a file of a ref names.
fn commit_of(path: &Path) -> Option<Checksum> {
    let mut text = String::new();
    File::open(path).ok()?.take(100).read_to_string(&mut text).ok()?;
    checksum(&text)
}

/// The commit whose metadata holds a manifest with this config.
fn made_from(repo: &Path, config: &Digest) -> Option<Checksum> {
    let mut folders = vec![repo.join("refs/heads"), repo.join("refs/remotes")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).ok().into_iter().flatten().flatten() {
            seen += 1;
            if seen > MAX_REFS {
                return None;
            }
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
                continue;
            }
            let Some(commit) = commit_of(&path) else { continue };
            let Ok(bytes) = metadata(repo, &commit, "commit") else { continue };
            let manifest: Option<Value> =
                manifest_in(&bytes).and_then(|text| serde_json::from_str(&text).ok());
            let found =
                manifest.and_then(|value| Some(value["config"]["digest"].as_str()? == config.to_string()));
            if found == Some(true) {
                return Some(commit);
            }
        }
    }
    None
}

/// A container of GVariant: bytes with framing offsets at the end.
#[derive(Clone, Copy)]
struct Container<'a> {
    bytes: &'a [u8],
    /// Bytes of one framing offset.
    width: usize,
}

impl<'a> Container<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let width = match bytes.len() {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        Container { bytes, width }
    }

    /// Framing offset number `n`, counted from the end, from 1.
    fn offset(&self, n: usize) -> Option<usize> {
        let at = self.bytes.len().checked_sub(n.checked_mul(self.width)?)?;
        let mut value = [0; 8];
        value[..self.width].copy_from_slice(self.bytes.get(at..at + self.width)?);
        usize::try_from(u64::from_le_bytes(value)).ok().filter(|end| *end <= self.bytes.len())
    }

    fn get(&self, from: usize, to: usize) -> Option<&'a [u8]> {
        self.bytes.get(from..to)
    }

    /// The elements of an array whose elements differ in size and begin at multiples of `align`.
    fn elements(&self, align: usize) -> Option<Vec<&'a [u8]>> {
        if self.bytes.is_empty() {
            return Some(Vec::new());
        }
        let end = self.offset(1)?;
        let table = self.bytes.len().checked_sub(end)?;
        let count = table / self.width;
        let (mut out, mut from) = (Vec::new(), 0usize);
        for i in 0..count {
            let to = self.offset(count - i)?;
            out.push(self.get(from.next_multiple_of(align), to)?);
            from = to;
        }
        Some(out)
    }
}

/// A string with its end.
fn text(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_suffix(&[0])
}

impl Folder {
    /// `(a(say) files, a(sayay) folders)`.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let whole = Container::new(bytes);
        let split = whole.offset(1)?;
        let (files, folders) = (whole.get(0, split)?, whole.get(split, bytes.len() - whole.width)?);
        let mut out = Folder::default();
        for entry in Container::new(files).elements(1)? {
            let entry = Container::new(entry);
            let end = entry.offset(1)?;
            let sum = entry.get(end, entry.bytes.len() - entry.width)?;
            out.files.insert(text(entry.get(0, end)?)?.to_vec(), sum.try_into().ok()?);
        }
        for entry in Container::new(folders).elements(1)? {
            let entry = Container::new(entry);
            let (name, contents) = (entry.offset(1)?, entry.offset(2)?);
            let sum = entry.get(name, contents)?;
            out.folders.insert(text(entry.get(0, name)?)?.to_vec(), sum.try_into().ok()?);
        }
        Some(out)
    }
}

/// The folder of a commit: `(a{sv} metadata, ay parent, a(say) related, s subject, s body, t time, ay folder, ay meta)`.
fn root_of(commit: &[u8]) -> Option<Checksum> {
    let whole = Container::new(commit);
    let body = whole.offset(5)?;
    let time = body.next_multiple_of(8);
    whole.get(time.checked_add(8)?, whole.offset(6)?)?.try_into().ok()
}

/// The manifest in the metadata of a commit.
fn manifest_in(commit: &[u8]) -> Option<String> {
    let whole = Container::new(commit);
    for entry in Container::new(whole.get(0, whole.offset(1)?)?).elements(8)? {
        let entry = Container::new(entry);
        let name = entry.offset(1)?;
        if text(entry.get(0, name)?)? != MANIFEST.as_bytes() {
            continue;
        }
        let variant = entry.get(name.next_multiple_of(8), entry.bytes.len() - entry.width)?;
        // The type stands behind the value and a zero.
        let value = variant.strip_suffix(b"\0s")?;
        return String::from_utf8(text(value)?.to_vec()).ok();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_as_ostree_writes_it() {
        // One file `a`, one folder `d`.
        let mut file = b"a\0".to_vec();
        file.extend([1; 32]);
        file.push(2);
        let mut files = file.clone();
        files.push(file.len() as u8);
        let mut folder = b"d\0".to_vec();
        folder.extend([2; 32]);
        folder.extend([3; 32]);
        folder.extend([34, 2]);
        let mut folders = folder.clone();
        folders.push(folder.len() as u8);
        let bytes = [files.as_slice(), &folders, &[files.len() as u8]].concat();
        let read = Folder::parse(&bytes).unwrap();
        assert_eq!(read.files.get(&b"a"[..]), Some(&[1; 32]));
        assert_eq!(read.folders.get(&b"d"[..]), Some(&[2; 32]));
    }

    #[test]
    fn damaged_objects_are_refused() {
        for bytes in [&b"\x09"[..], b"\xff\xff\xff", &[0x80; 300]] {
            assert!(Folder::parse(bytes).is_none());
            assert!(root_of(bytes).is_none());
            assert!(manifest_in(bytes).is_none());
        }
    }
}
