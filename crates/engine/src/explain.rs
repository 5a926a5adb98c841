//! What each file of a new archive costs in a delta.

use std::io::BufReader;
use std::path::PathBuf;

use coracle_codec::compress;
use coracle_codec::tardiff::{self, ExplainError, Explanation, Limits};

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
    /// Bounds for compressed archives.
    pub archive_limits: compress::Limits,
}

/// Attributes a delta's bytes to the members of the new archive.
///
/// # Errors
/// See [`Error`].
pub fn run(request: &Request, context: &Context<'_>) -> Result<Explanation, Error> {
    let open = |error| Error::Open { path: request.delta.clone(), error };
    stdin_once(request.source.iter().chain([&request.new, &request.delta]))?;
    let delta = Stream::open(&request.delta, context.observer).map_err(open)?;
    let new = Archive::open(&request.new, request.archive_limits, context)?;
    let inputs = Inputs::open(&request.source, request.archive_limits, context)?;
    inputs.with(context, |source| {
        let delta = BufReader::with_capacity(1 << 16, delta);
        tardiff::explain(delta, new.bytes(), source, &request.limits, context.observer).map_err(|e| match e {
            ExplainError::Delta(e) => Error::delta(&request.delta, &request.delta, e),
            ExplainError::New(error) => Error::tar(&request.new, error),
            error => Error::Explain { path: request.delta.clone(), error },
        })
    })
}
