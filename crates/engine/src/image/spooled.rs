//! Blobs that are kept while they are read, so that a run that is cut off can be gone on with.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, Repository};
use coracle_sys::resume::Resumable;

use super::{Ranged, Source};
use crate::Error;

/// A source whose blobs are written to `partial` files while they are read, and read from there as far as they are there.
pub(crate) struct Spooled {
    inner: Arc<dyn Source>,
    path: Box<dyn Fn(&Digest) -> PathBuf + Send + Sync>,
    /// Bytes that came from an earlier run, by blob.
    resumed: Mutex<HashMap<Digest, u64>>,
    /// Whole blobs on their way that came in place of a range.
    coming: Mutex<HashMap<Digest, Box<dyn Read + Send>>>,
}

impl Spooled {
    /// Wraps `inner`; `path` names the file for a blob.
    pub(crate) fn new(
        inner: Arc<dyn Source>,
        path: impl Fn(&Digest) -> PathBuf + Send + Sync + 'static,
    ) -> Self {
        Spooled { inner, path: Box::new(path), resumed: Mutex::default(), coming: Mutex::default() }
    }

    /// Takes a whole blob that is on its way, from its start: whoever opens it next gets it.
    pub(crate) fn expect(&self, digest: &Digest, stream: Box<dyn Read + Send>) {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, stream);
    }

    /// Bytes of a blob that an earlier run has left.
    pub(crate) fn kept(&self, digest: &Digest) -> u64 {
        std::fs::metadata((self.path)(digest)).map_or(0, |meta| meta.len())
    }

    /// Removes what is kept of a blob. Returns how many bytes of it came from an earlier run; if the blob was wrong, they
    /// may be the reason.
    pub(crate) fn forget(&self, digest: &Digest) -> u64 {
        // What another process holds is its own.
        if let Ok(Some(file)) = Resumable::open(&(self.path)(digest)) {
            let _ = file.discard();
        }
        let mut resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner);
        resumed.remove(digest).unwrap_or(0)
    }
}

impl Source for Spooled {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn root(&self) -> Result<Document, Error> {
        self.inner.root()
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        self.inner.document(wanted)
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        let path = (self.path)(&wanted.digest);
        let failed = |error| Error::Write { path: path.clone(), error };
        if offset > 0 {
            return self.inner.open_blob(wanted, offset);
        }
        let Some(mut file) = Resumable::open(&path).map_err(failed)? else {
            // Another process fetches the same: each for itself is better than one that waits for ever.
            return self.inner.open_blob(wanted, 0);
        };
        if file.resumed() > wanted.size {
            file.clear().map_err(failed)?;
        }
        let kept = file.resumed();
        let mut resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner);
        resumed.insert(wanted.digest, kept);
        drop(resumed);
        // Asked for when the kept bytes have been read: they may be all.
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        // What comes from the start is of no use behind what is kept.
        let open = coming.remove(&wanted.digest).filter(|_| kept == 0);
        drop(coming);
        let rest = Rest { source: Arc::clone(&self.inner), wanted: wanted.clone(), from: kept, open };
        Ok(Box::new(Kept { file, path, left: kept, rest }))
    }

    fn open_range(&self, wanted: &Descriptor, range: Range<u64>) -> Result<Ranged, Error> {
        self.inner.open_range(wanted, range)
    }

    fn serves_several(&self, wanted: &Descriptor) -> Option<bool> {
        self.inner.serves_several(wanted)
    }

    fn open_ranges(&self, wanted: &Descriptor, ranges: &[Range<u64>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.inner.open_ranges(wanted, ranges)
    }

    fn distrust(&self, wanted: &Descriptor) -> bool {
        self.inner.distrust(wanted)
    }

    fn repository(&self) -> Option<Repository> {
        self.inner.repository()
    }

    fn made_up(&self) -> Option<&'static str> {
        self.inner.made_up()
    }
}

/// A blob: what is kept, then the rest.
struct Kept {
    file: Resumable,
    path: PathBuf,
    left: u64,
    rest: Rest,
}

impl Read for Kept {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let failed = |path: &Path, error| io::Error::other(Error::Write { path: path.to_owned(), error });
        if self.left > 0 {
            let most = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let n = self.file.read(&mut buf[..most]).map_err(|e| failed(&self.path, e))?;
            if n == 0 && most > 0 {
                return Err(failed(&self.path, io::ErrorKind::UnexpectedEof.into()));
            }
            self.left -= n as u64;
            return Ok(n);
        }
        let n = self.rest.read(buf)?;
        self.file.write_all(&buf[..n]).map_err(|e| failed(&self.path, e))?;
        Ok(n)
    }
}

/// What an earlier run has not fetched.
struct Rest {
    source: Arc<dyn Source>,
    wanted: Descriptor,
    from: u64,
    open: Option<Box<dyn Read + Send>>,
}

impl Read for Rest {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.from >= self.wanted.size && self.from > 0 {
            return Ok(0);
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let open = self.source.open_blob(&self.wanted, self.from).map_err(io::Error::other)?;
                self.open.insert(open)
            }
        };
        open.read(buf)
    }
}
