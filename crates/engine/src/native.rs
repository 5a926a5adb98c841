//! Native deltas: made, applied, shown, explained. What is common with tar-diffs is in the modules of the commands.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use coracle_codec::ReadAt;
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::native::{
    self, Applied, ExplainError, Explanation, Head, Limits, MAGIC_LEN, Options, Report, Sources, StreamSize,
};
use coracle_codec::rsync;

use crate::diff::{DeltaWriter, Made, Request, Verifying, make};
use crate::input::Archive;
use crate::output::Output;
use crate::source::Inputs;
use crate::{Context, Error};

/// Makes a native delta; it appears at its path only when complete and, unless told otherwise, proved.
///
/// # Errors
/// See [`Error`]; there is then no output.
pub fn diff(request: &Request<Options>, context: &Context<'_>) -> Result<Made<Report>, Error> {
    let write = |old: &[&dyn ReadAt], new: &dyn ReadAt, out: &mut DeltaWriter<'_>| {
        native::diff(old, new, out, &request.options, context.observer)
    };
    let threads = request.options.threads;
    make(request, context, write, |old, output, report, context| {
        verify(old, output, report, threads, context)
    })
}

/// Applies the delta to the old archives; it is compared with its digest on the way.
fn verify(
    old: &[Archive],
    output: &Output,
    report: &Report,
    threads: NonZeroUsize,
    context: &Context<'_>,
) -> Result<(), Error> {
    let old: Vec<&dyn ReadAt> = old.iter().map(Archive::bytes).collect();
    let observer = Verifying { inner: context.observer, total: report.head.size };
    let limits = Limits { max_output: report.head.size, max_memory: u64::MAX, ..Limits::default() };
    let delta = BufReader::with_capacity(1 << 16, output.reopen()?);
    match native::apply(delta, Sources::Archives(&old), &mut io::sink(), &limits, threads, &observer) {
        Ok(_) => Ok(()),
        Err(native::Error::Cancelled) => Err(Error::Cancelled),
        Err(native::Error::ReadDelta(error)) => Err(Error::Read { path: output.path().into(), error }),
        Err(e) => Err(Error::SelfCheck(e.to_string())),
    }
}

/// Applies a native delta to what was named as its source.
pub(crate) fn apply(
    delta: impl Read,
    inputs: &Inputs,
    out: &mut dyn Write,
    limits: &Limits,
    threads: NonZeroUsize,
    context: &Context<'_>,
) -> Result<Applied, native::Error> {
    with(inputs, |sources| native::apply(delta, sources, &mut &mut *out, limits, threads, context.observer))
}

/// Calls `work` with inputs as the sources of a native delta.
fn with<R>(inputs: &Inputs, work: impl FnOnce(Sources<'_>) -> R) -> R {
    match inputs {
        Inputs::Tree(tree) => work(Sources::Tree(tree)),
        Inputs::Archives(archives) => {
            let bytes: Vec<&dyn ReadAt> = archives.iter().map(Archive::bytes).collect();
            work(Sources::Archives(&bytes))
        }
    }
}

/// A native delta as [`crate::inspect`] shows it.
#[derive(Debug, Clone)]
pub struct Delta {
    /// Bytes of the file.
    pub bytes: u64,
    /// Digest of the file.
    pub digest: Digest,
    /// What it says of itself.
    pub head: Head,
    /// The streams of its blocks.
    pub streams: Vec<StreamSize>,
}

/// Reads a native delta without decoding its streams.
pub(crate) fn inspect(path: &Path, limits: &Limits) -> Result<Delta, Error> {
    let file = File::open(path).map_err(|error| Error::Open { path: path.into(), error })?;
    let mut file = Hashing::new(BufReader::with_capacity(1 << 16, file));
    let (head, streams) = native::inspect(&mut file, limits).map_err(|e| Error::native(path, path, e))?;
    let (_, digest, bytes) = file.finish();
    Ok(Delta { bytes, digest, head, streams })
}

/// Attributes a native delta's bytes to the members of the new archive.
pub(crate) fn explain(
    request: &crate::explain::Request,
    delta: impl Read,
    new: &Archive,
    inputs: &Inputs,
    context: &Context<'_>,
) -> Result<Explanation, Error> {
    let delta = BufReader::with_capacity(1 << 16, delta);
    let explained = with(inputs, |sources| {
        native::explain(delta, sources, new.bytes(), &request.native_limits, context.observer)
    });
    explained.map_err(|e| match e {
        ExplainError::Delta(e) => Error::native(&request.delta, &request.delta, e),
        ExplainError::New(error) => Error::tar(&request.new, error),
        error => Error::ExplainNative { path: request.delta.clone(), error },
    })
}

/// What a delta is by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Native,
    Rsync,
    /// A tar-diff, or nothing known.
    Other,
}

/// What a delta is, and all of it for reading on.
pub(crate) fn peek<'r>(mut delta: impl Read + 'r) -> io::Result<(Format, Box<dyn Read + 'r>)> {
    let mut start = Vec::new();
    delta.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut start)?;
    // Another version is this format's business too.
    let format = if start.len() == MAGIC_LEN && start[..MAGIC_LEN - 1] == native::MAGIC[..MAGIC_LEN - 1] {
        Format::Native
    } else if start.starts_with(&rsync::MAGIC) {
        Format::Rsync
    } else {
        Format::Other
    };
    Ok((format, Box::new(io::Cursor::new(start).chain(delta))))
}
