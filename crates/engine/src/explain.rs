//! What each file of a new archive costs in a delta.

use std::io::BufReader;
use std::path::PathBuf;

use coracle_codec::tardiff::{self, ExplainError, Explanation, Limits};
use coracle_codec::{compress, native, rsync};

use crate::input::{Archive, Stream, stdin_once};
use crate::native::Format;
use crate::source::Inputs;
use crate::{Context, Error};

/// What to explain.
#[derive(Debug, Clone)]
pub struct Request {
    /// One directory, or old archives in order of extraction.
    pub source: Vec<PathBuf>,
    /// The new archive.
    pub new: PathBuf,
    /// The delta between them.
    pub delta: PathBuf,
    /// Bounds for the delta.
    pub limits: Limits,
    /// Bounds for the delta if it is a native one.
    pub native_limits: native::Limits,
    /// Bounds for compressed archives.
    pub archive_limits: compress::Limits,
}

/// The costs of a delta, by its format.
#[derive(Debug, Clone)]
pub enum Explained {
    /// Those of a tar-diff.
    TarDiff(Explanation),
    /// Those of a native delta.
    Native(native::Explanation),
    /// Those of a librsync delta.
    Rsync(rsync::Explanation),
}

/// Attributes a delta's bytes to the members of the new archive.
///
/// # Errors
/// See [`Error`].
pub fn run(request: &Request, context: &Context<'_>) -> Result<Explained, Error> {
    let open = |error| Error::Open { path: request.delta.clone(), error };
    stdin_once(request.source.iter().chain([&request.new, &request.delta]))?;
    let delta = Stream::open(&request.delta, context.observer).map_err(open)?;
    let new = Archive::open(&request.new, request.archive_limits, context)?;
    let inputs = Inputs::open(&request.source, request.archive_limits, context)?;
    let peeked = crate::native::peek(delta).map_err(|error| Error::read(&request.delta, error));
    let (format, delta) = peeked?;
    match format {
        Format::Native => {
            return crate::native::explain(request, delta, &new, &inputs, context).map(Explained::Native);
        }
        // The basis is not needed: operations say where in the new archive they are.
        Format::Rsync => {
            let limits = rsync::Limits { max_output: request.limits.max_output, ..Default::default() };
            let told = rsync::explain(delta, new.bytes(), &limits, context.observer);
            return told.map(Explained::Rsync).map_err(|error| match error {
                rsync::ExplainError::Delta(rsync::Error::Cancelled) => Error::Cancelled,
                error => Error::ExplainRsync { path: request.delta.clone(), error },
            });
        }
        Format::Other => {}
    }
    inputs.with(context, |source| {
        let delta = BufReader::with_capacity(1 << 16, delta);
        tardiff::explain(delta, new.bytes(), source, &request.limits, context.observer)
            .map(Explained::TarDiff)
            .map_err(|e| match e {
                ExplainError::Delta(e) => Error::delta(&request.delta, &request.delta, e),
                ExplainError::New(error) => Error::tar(&request.new, error),
                error => Error::Explain { path: request.delta.clone(), error },
            })
    })
}
