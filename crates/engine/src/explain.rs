//! What each file of a new archive costs in a delta.

use std::io::BufReader;
use std::path::PathBuf;

use coracle_codec::tardiff::{self, ExplainError, Explanation, Limits};
use coracle_codec::{compress, native};

use crate::input::{Archive, Stream, stdin_once};
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
    let (is_native, delta) = peeked?;
    if is_native {
        return crate::native::explain(request, delta, &new, &inputs, context).map(Explained::Native);
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
