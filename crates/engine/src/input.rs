//! Archives as inputs: compressed or not, from a file or a pipe, readable at any offset.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use coracle_codec::ReadAt;
use coracle_codec::compress::{self, Compression, MAGIC_LEN};
use coracle_codec::observe::Observer;
use coracle_sys::spool::spool_file;
use coracle_sys::wait::read_unless;

use crate::{Context, Error};

/// The path that means standard input or output.
pub const STDIO: &str = "-";

/// An uncompressed archive.
#[derive(Debug)]
pub struct Archive {
    /// How the caller named it.
    pub path: PathBuf,
    /// Bytes of the file as it was given, compressed or not.
    pub stored_bytes: u64,
    /// How it was compressed.
    pub compression: Compression,
    content: FileBytes,
}

impl Archive {
    /// Opens an archive. A plain file is read in place; anything else is decoded into an unnamed temporary file.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Read`], [`Error::Compressed`], [`Error::Temporary`].
    pub fn open(path: &Path, limits: compress::Limits, context: &Context<'_>) -> Result<Self, Error> {
        let stdin = path == Path::new(STDIO);
        let open = |error| Error::Open { path: path.into(), error };
        let read = |error| Error::read(path, error);
        let mut counted = Counted { bytes: 0, input: Stream::open(path, context.observer).map_err(open)? };
        if !stdin {
            let file = &counted.input.file;
            let meta = file.metadata().map_err(open)?;
            if meta.is_dir() {
                return Err(open(io::ErrorKind::IsADirectory.into()));
            }
            let mut head = vec![0; MAGIC_LEN];
            if meta.is_file() {
                let n = read_start(file, &mut head).map_err(read)?;
                if compress::detect(&head[..n]) == Compression::None {
                    let file = file.try_clone().map_err(open)?;
                    let content = FileBytes { file, len: meta.len() };
                    if content.len > limits.max_output {
                        let error = compress::Error::OutputTooLarge(limits.max_output);
                        return Err(Error::Compressed { path: path.into(), error });
                    }
                    return Ok(Archive {
                        path: path.into(),
                        stored_bytes: meta.len(),
                        compression: Compression::None,
                        content,
                    });
                }
            }
        }
        let (compression, file, len) = spool(path, &mut counted, limits, context)?;
        Ok(Archive {
            path: path.into(),
            stored_bytes: counted.bytes,
            compression,
            content: FileBytes { file, len },
        })
    }

    /// An archive of `len` uncompressed bytes that is already in a file of ours.
    pub(crate) fn of_file(path: &Path, file: File, len: u64) -> Self {
        let content = FileBytes { file, len };
        Archive { path: path.into(), stored_bytes: len, compression: Compression::None, content }
    }

    /// The uncompressed bytes.
    pub fn bytes(&self) -> &dyn ReadAt {
        &self.content
    }
}

impl ReadAt for Archive {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.content.read_at(offset, buf)
    }
}

/// Decodes a stream into an unnamed temporary file.
fn spool(
    path: &Path,
    input: &mut Counted<'_>,
    limits: compress::Limits,
    context: &Context<'_>,
) -> Result<(Compression, File, u64), Error> {
    let read = |error: io::Error| match error.downcast::<compress::Error>() {
        Ok(error) => Error::Compressed { path: path.into(), error },
        Err(error) => Error::read(path, error),
    };
    let temporary = |error| Error::Temporary { dir: context.temp_dir.clone(), error };
    let (compression, mut decoded) = compress::decoder(input, limits).map_err(read)?;
    let mut file = spool_file(&context.temp_dir).map_err(temporary)?;
    let mut buf = vec![0; 1 << 17];
    let mut len = 0;
    loop {
        if context.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        match decoded.read(&mut buf) {
            Ok(0) => return Ok((compression, file, len)),
            Ok(n) => {
                file.write_all(&buf[..n]).map_err(temporary)?;
                len += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(read(e)),
        }
    }
}

/// Reads the first bytes without moving.
fn read_start(file: &File, buf: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match file.read_at(&mut buf[n..], n as u64) {
            Ok(0) => break,
            Ok(k) => n += k,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// A file or standard input.
pub(crate) struct Stream<'a> {
    file: File,
    /// Asked while nothing comes, where that can happen.
    observer: Option<&'a dyn Observer>,
}

impl<'a> Stream<'a> {
    pub(crate) fn open(path: &Path, observer: &'a dyn Observer) -> io::Result<Self> {
        let file = if path == Path::new(STDIO) {
            File::from(io::stdin().as_fd().try_clone_to_owned()?)
        } else {
            File::open(path)?
        };
        let waits = !file.metadata()?.is_file();
        Ok(Stream { file, observer: waits.then_some(observer) })
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.observer {
            Some(observer) => read_unless(&mut self.file, buf, || observer.cancelled()),
            None => self.file.read(buf),
        }
    }
}

/// Refuses standard input for more than one input: whoever came second would find it empty.
pub(crate) fn stdin_once<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Error> {
    match paths.into_iter().filter(|path| *path == Path::new(STDIO)).nth(1) {
        Some(_) => Err(Error::StdinTwice),
        None => Ok(()),
    }
}

struct Counted<'a> {
    bytes: u64,
    input: Stream<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// A regular file that is read by offset.
#[derive(Debug)]
pub(crate) struct FileBytes {
    file: File,
    len: u64,
}

impl ReadAt for FileBytes {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let n = (buf.len() as u64).min(self.len.saturating_sub(offset)) as usize;
        FileExt::read_at(&self.file, &mut buf[..n], offset)
    }
}
