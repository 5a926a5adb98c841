//! Applying a delta.

use std::io::BufReader;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use coracle_codec::compress;
use coracle_codec::digest::Digest;
use coracle_codec::native;
use coracle_codec::tardiff::{self, Applied, Limits};

use crate::hashed::hashed;
use crate::input::{Stream, stdin_once};
use crate::output::Output;
use crate::source::Inputs;
use crate::{Context, Error};

/// What to apply to what.
#[derive(Debug, Clone)]
pub struct Request {
    /// The delta.
    pub delta: PathBuf,
    /// One directory, or old archives in order of extraction.
    pub source: Vec<PathBuf>,
    /// Where the new tar goes.
    pub out: PathBuf,
    /// The digest that the new tar must have.
    pub expect: Option<Digest>,
    /// Bounds for the delta.
    pub limits: Limits,
    /// Bounds for the delta if it is a native one.
    pub native_limits: native::Limits,
    /// Bounds for compressed archives.
    pub archive_limits: compress::Limits,
    /// With more than one, hashing and writing go on beside applying.
    pub threads: NonZeroUsize,
}

/// A delta that was applied.
#[derive(Debug, Clone, Copy)]
pub struct Rebuilt {
    /// Digest of the new tar.
    pub digest: Digest,
    /// Whether it was compared with an expected one.
    pub verified: bool,
    /// What was done.
    pub applied: Done,
}

/// What was done, by format of the delta.
#[derive(Debug, Clone, Copy)]
pub enum Done {
    /// A tar-diff was applied.
    TarDiff(Applied),
    /// A native delta was applied.
    Native(native::Applied),
}

impl Done {
    /// Bytes of the new tar.
    pub fn output(&self) -> u64 {
        match self {
            Done::TarDiff(applied) => applied.output,
            Done::Native(applied) => applied.output,
        }
    }
}

/// Applies a delta; the tar appears at its path only when complete and as expected. To a pipe it goes as it comes.
///
/// # Errors
/// See [`Error`]; there is then no output file.
pub fn run(request: &Request, context: &Context<'_>) -> Result<Rebuilt, Error> {
    let open = |error| Error::Open { path: request.delta.clone(), error };
    stdin_once(request.source.iter().chain([&request.delta]))?;
    let delta = Stream::open(&request.delta, context.observer).map_err(open)?;
    let inputs = Inputs::open(&request.source, request.archive_limits, context)?;
    let files = [request.source.as_slice(), std::slice::from_ref(&request.delta)].concat();
    let mut output = Output::streamed(&request.out, &files, context)?;
    let peeked = crate::native::peek(delta).map_err(|error| Error::read(&request.delta, error));
    let (format, delta) = peeked?;
    let is_native = format == crate::native::Format::Native;
    let (applied, written) = hashed(&mut output, request.threads, |mut writer| {
        if is_native {
            let delta = BufReader::with_capacity(1 << 16, delta);
            let limits = &request.native_limits;
            return crate::native::apply(delta, &inputs, &mut writer, limits, request.threads, context)
                .map(Done::Native)
                .map_err(|e| Error::native(&request.delta, &request.out, e));
        }
        inputs.with(context, |source| {
            let delta = BufReader::with_capacity(1 << 16, delta);
            tardiff::apply(delta, source, &mut writer, &request.limits, context.observer)
                .map(Done::TarDiff)
                .map_err(|e| Error::delta(&request.delta, &request.out, e))
        })
    });
    // An output that cannot be written stops the work too: its own error is the one to tell.
    let actual = written.map_err(|error| Error::Write { path: request.out.clone(), error })?;
    let applied = applied?;
    if let Some(expected) = request.expect
        && expected != actual
    {
        return Err(Error::Digest { expected, actual });
    }
    output.publish()?;
    Ok(Rebuilt { digest: actual, verified: request.expect.is_some(), applied })
}
