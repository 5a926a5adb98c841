//! The store as a whole.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Limits, Reference, Unverified, Verified};
use coracle_sys::file::free_space;
use coracle_sys::lock::FileLock;
use coracle_sys::publish::Pending;
use coracle_sys::resume::Resumable;

use crate::error::Error;
use crate::layer::Layer;
use crate::layout::Layout;
use crate::lease::Lease;
use crate::refs::{self, Ref};

/// Version of the store that is written and read: `docs/formats/store.md`, section 3.
const VERSION: u64 = 1;
/// Bytes of `format` at most.
const MAX_FORMAT: u64 = 4096;
/// Content of up to so many bytes stands in the layer file, unless the store was made otherwise; see
/// `docs/design/0014-store.md`.
pub const INLINE_LIMIT: u64 = 4096;

/// A store on disk. Cheap to clone; may be used by several threads, and by several processes at once.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Layout,
    inline_limit: u64,
}

/// How a store is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Content of up to so many bytes is kept in layer files, longer one in objects. A store that exists keeps its own.
    pub inline_limit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { inline_limit: INLINE_LIMIT }
    }
}

impl Store {
    /// Opens the store in the folder `path`.
    ///
    /// # Errors
    /// There is none, or it is of another version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let layout = Layout::new(path);
        let format = layout.format();
        let file = File::open(&format).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotAStore { path: path.to_owned() },
            _ => Error::io("open", &format)(error),
        })?;
        let mut text = Vec::new();
        file.take(MAX_FORMAT).read_to_end(&mut text).map_err(Error::io("read", &format))?;
        let bad = |reason: String| Error::Format { path: format.clone(), reason };
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        let number = |name: &str| {
            let number = value.get(name).and_then(serde_json::Value::as_u64);
            number.ok_or_else(|| bad(format!("no number {name:?}")))
        };
        match number("version")? {
            VERSION => Ok(Store { inline_limit: number("inlineLimit")?, layout }),
            other => Err(bad(format!("store of version {other}"))),
        }
    }

    /// Opens the store in the folder `path`, or makes one there if the folder is empty or missing.
    ///
    /// # Errors
    /// As [`Store::open`]; the folder holds something else; or nothing can be written there.
    pub fn open_or_create(path: &Path, options: Options) -> Result<Self, Error> {
        match Self::open(path) {
            Err(Error::NotAStore { .. }) => {}
            result => return result,
        }
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(Error::io("make", above))?;
        }
        // Contents of images have lost their modes: they are not for everybody to read.
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("make", path)(error));
            }
            _ => {}
        }
        let layout = Layout::new(path);
        // Somebody else may make it at the same time: whatever there is has to be part of a store.
        let folders = [layout.objects(), layout.layers(), layout.documents(), layout.refs()];
        let folders = folders.into_iter().chain([layout.partial(), layout.leases()]);
        let parts: Vec<PathBuf> = folders.chain([layout.lock(), layout.turn(), layout.format()]).collect();
        for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
            let entry = entry.map_err(Error::io("list", path))?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && !parts.contains(&entry.path()) {
                return Err(Error::NotAStore { path: path.to_owned() });
            }
        }
        for folder in &parts[..6] {
            fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
        }
        for file in &parts[6..8] {
            File::options().create(true).append(true).open(file).map_err(Error::io("make", file))?;
        }
        // Last: without it there is no store.
        let format = layout.format();
        let text = serde_json::json!({ "version": VERSION, "inlineLimit": options.inline_limit }).to_string();
        publish(&format, text.as_bytes())?;
        Self::open(path)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// Content of up to so many bytes is kept in layer files.
    pub fn inline_limit(&self) -> u64 {
        self.inline_limit
    }

    /// Begins a piece of work: what it keeps and makes is not removed by [`Store::gc`] for as long as it lives.
    ///
    /// # Errors
    /// Nothing can be written to the store.
    pub fn lease(&self) -> Result<Lease, Error> {
        Lease::new(self)
    }

    /// The manifest, index or config with this digest, compared with it; `None` if it is not here.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the bytes are others; or it cannot be read.
    pub fn document(&self, digest: &Digest) -> Result<Option<Verified>, Error> {
        let path = self.layout.document(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let limit = Limits::default().config_bytes;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        if bytes.len() as u64 > limit {
            return Err(Error::DocumentTooLarge { digest: *digest, limit });
        }
        let verified = Unverified::new(bytes).verify(digest);
        verified.map(Some).map_err(|source| Error::Damaged { digest: *digest, source })
    }

    /// Whether there is a file of this layer. Cheap: it is not opened.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layout.layer(diff_id).is_file()
    }

    /// The layer with this diff_id; `None` if it is not here.
    ///
    /// # Errors
    /// Its file is damaged or cannot be read.
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<Layer>, Error> {
        Layer::open(&self.layout, diff_id)
    }

    /// Opens the object with this digest, whatever it holds; `None` if it is not here.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn object(&self, digest: &Digest) -> Result<Option<File>, Error> {
        let path = self.layout.object(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", &path)(error)),
        }
    }

    /// All names, in order of their files.
    ///
    /// # Errors
    /// A file below `refs` cannot be read or is none of a name.
    pub fn refs(&self) -> Result<Vec<Ref>, Error> {
        let (all, damaged) = self.readable_refs()?;
        match damaged.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(all),
        }
    }

    /// All names whose files can be read, and what is wrong with the others: one that is damaged need not keep anybody
    /// from the rest.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn readable_refs(&self) -> Result<(Vec<Ref>, Vec<Error>), Error> {
        let (mut all, mut damaged) = (Vec::new(), Vec::new());
        for path in refs::list(&self.layout)?.files {
            match refs::read_file(&self.layout, &path) {
                // Removed meanwhile.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Ok(entry) => all.push(entry),
                Err(error) => damaged.push(error),
            }
        }
        Ok((all, damaged))
    }

    /// What a name stands for; `None` if it is not here.
    ///
    /// # Errors
    /// Its file cannot be read or is none of this name.
    pub fn reference(&self, name: &Reference) -> Result<Option<Ref>, Error> {
        refs::read(&self.layout, name)
    }

    /// Every image that is here under a name: the name, and the descriptor of the image's manifest.
    ///
    /// # Errors
    /// As [`Store::refs`].
    pub fn images(&self) -> Result<impl Iterator<Item = (Ref, Descriptor)>, Error> {
        let refs = self.refs()?;
        Ok(refs.into_iter().flat_map(|entry| {
            let images = entry.images.clone();
            images.into_iter().map(move |image| (entry.clone(), image))
        }))
    }

    /// Removes a name; false if it was not here. What belongs to it stays until [`Store::gc`].
    ///
    /// # Errors
    /// Its file cannot be removed.
    pub fn remove_ref(&self, name: &Reference) -> Result<bool, Error> {
        let _lock = self.share()?;
        refs::remove(&self.layout, name)
    }

    /// The file for a blob in flight, to be opened as [`Resumable`]. It stays until it is discarded, or until
    /// [`Store::gc`] finds it old and unused.
    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.layout.partial_blob(digest)
    }

    /// The file for ranges of a blob, in the same sense.
    pub fn partial_ranges(&self, digest: &Digest) -> PathBuf {
        self.layout.partial_ranges(digest)
    }

    /// Takes it upon the caller to make this layer; `None` if another process, or another thread, has done so and is
    /// still at work. Whoever gets a claim looks again whether the layer is here by now.
    ///
    /// # Errors
    /// Nothing can be written to the store.
    pub fn claim_layer(&self, diff_id: &Digest) -> Result<Option<Claim>, Error> {
        let path = self.layout.claim(diff_id);
        let file = Resumable::open(&path).map_err(Error::io("lock", &path))?;
        Ok(file.map(|file| Claim(Some(file))))
    }

    /// Bytes that can still be written to the file system of the store.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        free_space(self.path()).map_err(Error::io("ask for the free space of", self.path()))
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Keeps [`Store::gc`] away for a moment: for looking whether something is there and noting that it is needed, and
    /// for publishing.
    pub(crate) fn share(&self) -> Result<FileLock, Error> {
        let (turn, lock) = (self.layout.turn(), self.layout.lock());
        // Whoever wants the lock alone takes its turn first, so that those who come later do not overtake it.
        let _turn = FileLock::exclusive(&turn).map_err(Error::io("lock", &turn))?;
        FileLock::shared(&lock).map_err(Error::io("lock", &lock))
    }
}

/// Writes a file whole, in place of one that may be there.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut pending = Pending::create(path).map_err(Error::io("make", path))?;
    pending.write_all(bytes).map_err(Error::io("write", path))?;
    pending.publish().map_err(Error::io("write", path))
}

/// The right to make one layer, until it is dropped.
#[derive(Debug)]
pub struct Claim(Option<Resumable>);

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            // What stays is an empty file without a lock, which the next one takes.
            let _ = file.discard();
        }
    }
}
