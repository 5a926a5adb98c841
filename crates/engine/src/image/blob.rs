//! A blob on its way: counted, comparable, and to be stopped.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_codec::oci::{Descriptor, Mismatch, Verifier};
use coracle_registry::Content;

use super::Source;
use super::stop::Stop;
use crate::Error;

/// Bytes moved at once.
const PIECE: usize = 256 << 10;

/// A blob of a source.
pub(crate) struct Blob {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) descriptor: Descriptor,
    /// For messages: `layer 3`.
    pub(crate) what: String,
    pub(crate) progress: Arc<Progress>,
}

/// What all blobs of one copy have done so far.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) done: AtomicU64,
    pub(crate) stop: Stop,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} of {}, {})", self.what, self.source.name(), self.descriptor.digest)
    }
}

impl Blob {
    /// Its bytes from `offset` on, not compared.
    pub(crate) fn read(&self, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        let inner = self.source.open_blob(&self.descriptor, offset)?;
        Ok(Box::new(Counted { inner, progress: Arc::clone(&self.progress) }))
    }

    /// The error for bytes that are not what the descriptor says.
    pub(crate) fn wrong(&self, mismatch: Mismatch) -> Error {
        let (image, what) = (self.source.name().to_owned(), self.title());
        Error::WrongBlob { image, what: what.into(), mismatch }
    }

    /// `layer 3 (sha256:...)`.
    pub(crate) fn title(&self) -> String {
        format!("{} ({})", self.what, self.descriptor.digest)
    }

    /// The error for bytes that cannot be read.
    pub(crate) fn unreadable(&self, error: io::Error) -> Error {
        reading(self.source.name(), &self.title(), error)
    }

    /// Writes the whole blob to `out`, compared; `written` gets every piece as well. On an error `out` holds something
    /// that must not be used.
    pub(crate) fn write_to(
        &self,
        verifier: &mut Verifier,
        out: &mut dyn Write,
        fail: impl Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        let mut input = self.read(verifier.passed())?;
        let mut piece = vec![0; PIECE];
        loop {
            match input.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => {
                    verifier.update(&piece[..n]).map_err(|e| self.wrong(e))?;
                    out.write_all(&piece[..n]).map_err(&fail)?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.unreadable(e)),
            }
        }
        verifier.finish().map_err(|e| self.wrong(e))
    }

    /// A verifier for it.
    pub(crate) fn verifier(&self) -> Verifier {
        Verifier::new(self.descriptor.digest, self.descriptor.size)
    }

    /// Counts bytes that need not be moved.
    pub(crate) fn skipped(&self, bytes: u64) {
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Content for Blob {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        self.read(offset).map_err(|error| match error {
            Error::Cancelled => stopped(),
            error => io::Error::other(error),
        })
    }
}

struct Counted {
    inner: Box<dyn Read + Send>,
    progress: Arc<Progress>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.progress.stop.raised() {
            return Err(stopped());
        }
        let n = self.inner.read(buf)?;
        self.progress.done.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The error of a read that was stopped.
pub(crate) fn stopped() -> io::Error {
    io::Error::other(Error::Cancelled)
}

/// The error for a blob that cannot be read: what a source put inside an [`io::Error`] comes out again.
pub(crate) fn reading(image: &str, what: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::ReadBlob { image: image.to_owned(), what: what.to_owned(), error },
    }
}
