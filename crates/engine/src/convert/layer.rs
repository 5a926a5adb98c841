//! One layer in another format.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use coracle_codec::chunked::{self, Written};
use coracle_codec::compress::{self, GzipWriter, ZstdWriter, ZstdWriterOptions};
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{Descriptor, media_type};
use coracle_sys::spool::spool_file;

use super::Format;
use crate::Error;
use crate::artifact::layers::Content;
use crate::image::blob::{Blob, reading};

/// A layer that was made.
pub(super) struct Made {
    pub(super) file: File,
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) tar: u64,
    pub(super) format: Format,
    pub(super) fell_back: Option<String>,
}

/// How, and within which bounds.
pub(super) struct How<'a> {
    pub(super) options: chunked::Options,
    pub(super) temp_dir: &'a Path,
    pub(super) limits: compress::Limits,
}

/// Makes a layer anew, compared with its blob digest and `diff_id`. One that the format has no room for is made in the
/// plain form of it.
pub(super) fn make(blob: &Blob, diff_id: &Digest, format: Format, how: &How<'_>) -> Result<Made, Error> {
    match attempt(blob, diff_id, format, how)? {
        Ok(made) => Ok(made),
        Err(reason) => {
            let plain = format.plain();
            let made = attempt(blob, diff_id, plain, how)?;
            let made = made.map_err(|reason| Error::Unsupported { image: blob.title(), reason })?;
            Ok(Made { fell_back: Some(reason), ..made })
        }
    }
}

/// `Err` inside: why the layer cannot be had in this format.
fn attempt(
    blob: &Blob,
    diff_id: &Digest,
    format: Format,
    how: &How<'_>,
) -> Result<Result<Made, String>, Error> {
    let temporary = |error| Error::Temporary { dir: how.temp_dir.to_owned(), error };
    let content = Content::open(blob)?;
    let checked = content.checked.clone();
    let undecodable = |error: io::Error| match error.downcast::<compress::Error>() {
        Ok(error) => Error::Layer { image: blob.source.name().to_owned(), what: blob.title(), error },
        Err(error) => reading(blob.source.name(), &blob.title(), error),
    };
    let (_, decoded) = compress::decoder(content.reader(), how.limits).map_err(undecodable)?;
    let mut tar = Reading { inner: Hashing::new(decoded), failed: None };
    let out = io::BufWriter::with_capacity(1 << 17, spool_file(how.temp_dir).map_err(temporary)?);
    let mut out = Hashing::new(out);
    let written = write(&mut tar, &mut out, format, &how.options);
    let Reading { inner, failed } = tar;
    let (rest, actual, size) = inner.finish();
    drop(rest);
    if let Some(error) = failed {
        return Err(checked.reason(blob, undecodable(error)));
    }
    let annotations = match written {
        Ok(annotations) => annotations,
        Err(error @ (chunked::Error::Unsupported { .. } | chunked::Error::Tar(_))) => {
            return Ok(Err(error.to_string()));
        }
        Err(chunked::Error::Io(error)) => return Err(temporary(error)),
        Err(error) => return Ok(Err(error.to_string())),
    };
    checked.finish(blob)?;
    if actual != *diff_id {
        let (image, layer) = (blob.source.name().to_owned(), blob.title());
        return Err(Error::WrongLayer { image, layer, expected: *diff_id, actual });
    }
    out.flush().map_err(temporary)?;
    let (out, digest, bytes) = out.finish();
    let file = out.into_inner().map_err(|e| temporary(e.into_error()))?;
    let kind = match format {
        Format::Gzip | Format::Stargz => media_type::OCI_LAYER_GZIP,
        Format::Zstd | Format::Chunked => media_type::OCI_LAYER_ZSTD,
    };
    let mut descriptor = Descriptor::new(kind, digest, bytes);
    let others = blob.descriptor.annotations.iter();
    let others = others.filter(|(name, _)| !chunked::Place::is_annotation(name));
    descriptor.annotations = others.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut made = Made { file, descriptor, diff_id: *diff_id, tar: size, format, fell_back: None };
    if let Some(written) = annotations {
        made.descriptor.annotations.extend(written.annotations);
        (made.diff_id, made.tar) = (written.diff_id, written.tar);
    }
    Ok(Ok(made))
}

fn write(
    tar: &mut impl Read,
    out: &mut impl Write,
    format: Format,
    options: &chunked::Options,
) -> Result<Option<Written>, chunked::Error> {
    match format {
        Format::Chunked => return chunked::write(tar, out, options).map(Some),
        Format::Stargz => return chunked::write_stargz(tar, out, options).map(Some),
        Format::Gzip => {
            let level = u32::try_from(options.level).unwrap_or(6);
            let mut gzip = GzipWriter::with_level(out, level);
            io::copy(tar, &mut gzip)?;
            gzip.finish()?;
        }
        Format::Zstd => {
            let options = ZstdWriterOptions { level: options.level, ..ZstdWriterOptions::default() };
            let mut zstd = ZstdWriter::new(out, options)?;
            io::copy(&mut io::BufReader::with_capacity(1 << 17, tar), &mut zstd)?;
            zstd.finish()?;
        }
    }
    Ok(None)
}

/// Tells errors of reading from those of writing.
struct Reading<R> {
    inner: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Reading<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buf) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
            other => other,
        }
    }
}
