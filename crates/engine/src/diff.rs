//! Making a delta between archives.

use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;

use coracle_codec::delta::DiffError;
use coracle_codec::digest::Hashing;
use coracle_codec::observe::{Observer, Stage};
use coracle_codec::tardiff::{self, Limits, Options, Report};
use coracle_codec::{ReadAt, compress};

use crate::input::{Archive, stdin_once};
use crate::output::Output;
use crate::source::tar_source;
use crate::{Context, Error};

/// What to make a delta of, with the options `O` of its codec.
#[derive(Debug, Clone)]
pub struct Request<O = Options> {
    /// Old archives in order of extraction.
    pub old: Vec<PathBuf>,
    /// The new archive.
    pub new: PathBuf,
    /// Where the delta goes.
    pub delta: PathBuf,
    /// How it is made.
    pub options: O,
    /// Bounds for compressed archives.
    pub limits: compress::Limits,
    /// Apply the delta before it is published and compare the result.
    pub verify: bool,
}

/// A delta that was made, with what its codec reports.
#[derive(Debug, Clone)]
pub struct Made<R = Report> {
    /// Old archives: uncompressed bytes.
    pub old_bytes: Vec<u64>,
    /// Bytes of the delta.
    pub delta_bytes: u64,
    /// What it holds.
    pub report: R,
    /// Whether it was applied and gave the new archive.
    pub verified: bool,
}

/// Where a codec writes its delta.
pub(crate) type DeltaWriter<'a> = Hashing<BufWriter<&'a mut Output>>;

/// Makes a tar-diff; it appears at its path only when complete and, unless told otherwise, proved.
///
/// # Errors
/// See [`Error`]; there is then no output.
pub fn run(request: &Request, context: &Context<'_>) -> Result<Made, Error> {
    let write = |old: &[&dyn ReadAt], new: &dyn ReadAt, out: &mut DeltaWriter<'_>| {
        tardiff::diff(old, new, out, &request.options, context.observer)
    };
    make(request, context, write, verify)
}

/// Makes a delta: `write` writes it, `verify` applies it and compares.
pub(crate) fn make<O, R>(
    request: &Request<O>,
    context: &Context<'_>,
    write: impl FnOnce(&[&dyn ReadAt], &dyn ReadAt, &mut DeltaWriter<'_>) -> Result<R, DiffError>,
    verify: impl FnOnce(&[Archive], &Output, &R, &Context<'_>) -> Result<(), Error>,
) -> Result<Made<R>, Error> {
    stdin_once(request.old.iter().chain([&request.new]))?;
    let open = |path| Archive::open(path, request.limits, context);
    let old = request.old.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let new = open(&request.new)?;
    let inputs = [request.old.as_slice(), std::slice::from_ref(&request.new)].concat();
    let mut output = Output::checked(&request.delta, &inputs, context)?;
    let bytes: Vec<&dyn ReadAt> = old.iter().map(Archive::bytes).collect();
    let mut writer = Hashing::new(BufWriter::with_capacity(1 << 16, &mut output));
    let report = write(&bytes, new.bytes(), &mut writer)
        .map_err(|e| Error::diff(&request.old, &request.new, &request.delta, e))?;
    writer.flush().map_err(|error| Error::Write { path: request.delta.clone(), error })?;
    let (writer, _, delta_bytes) = writer.finish();
    drop(writer);
    if request.verify {
        verify(&old, &output, &report, context)?;
    }
    output.publish()?;
    let old_bytes = bytes.iter().map(|b| b.size()).collect();
    Ok(Made { old_bytes, delta_bytes, report, verified: request.verify })
}

/// Applies the delta to the old archives and compares.
fn verify(old: &[Archive], output: &Output, report: &Report, context: &Context<'_>) -> Result<(), Error> {
    let source = tar_source(old, context)?;
    let observer = Verifying { inner: context.observer, total: report.new_size };
    let limits = Limits { max_output: report.new_size, ..Limits::default() };
    let mut result = Hashing::new(io::sink());
    let delta = BufReader::with_capacity(1 << 16, output.reopen()?);
    match tardiff::apply(delta, &source, &mut result, &limits, &observer) {
        Err(tardiff::Error::Cancelled) => return Err(Error::Cancelled),
        Err(tardiff::Error::ReadDelta(error)) => {
            return Err(Error::Read { path: output.path().into(), error });
        }
        Err(e) => return Err(Error::SelfCheck(e.to_string())),
        Ok(_) => {}
    }
    let (_, digest, size) = result.finish();
    if digest != report.digest || size != report.new_size {
        let what = format!(
            "the delta gives {digest} of {size} bytes, wanted {} of {}",
            report.digest, report.new_size
        );
        return Err(Error::SelfCheck(what));
    }
    Ok(())
}

/// Reports applying as verifying.
pub(crate) struct Verifying<'a> {
    pub inner: &'a dyn Observer,
    pub total: u64,
}

impl Observer for Verifying<'_> {
    fn progress(&self, stage: Stage, done: u64, _: u64) {
        if stage == Stage::Apply {
            self.inner.progress(Stage::Verify, done, self.total);
        }
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}
