//! Outputs that appear only when they are complete.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle_sys::publish::Pending;
use coracle_sys::spool::spool_file;

use crate::input::STDIO;
use crate::{Context, Error};

/// An output under way. Nothing of it is visible before [`Output::publish`]; dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    temp_dir: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    /// A file that takes its name last.
    Pending(Pending),
    /// A pipe or a device: the bytes wait in a temporary file until they are known to be good.
    Spooled(File, Direct),
    /// A pipe or a device that gets the bytes as they come.
    Direct(Direct),
}

#[derive(Debug)]
enum Direct {
    Stdout(io::Stdout),
    Device(Pending),
}

impl Output {
    /// Prepares an output whose bytes will be read again before they are published.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::Temporary`], [`Error::OutputIsInput`].
    pub fn checked(path: &Path, inputs: &[PathBuf], context: &Context<'_>) -> Result<Self, Error> {
        let to = match Self::open(path, inputs)? {
            To::Direct(direct) => {
                let dir = context.temp_dir.clone();
                To::Spooled(spool_file(&dir).map_err(|error| Error::Temporary { dir, error })?, direct)
            }
            to => to,
        };
        Ok(Output { path: path.into(), temp_dir: context.temp_dir.clone(), to })
    }

    /// Prepares an output; to a pipe or a device the bytes go as they come.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::OutputIsInput`].
    pub fn streamed(path: &Path, inputs: &[PathBuf], context: &Context<'_>) -> Result<Self, Error> {
        Ok(Output { path: path.into(), temp_dir: context.temp_dir.clone(), to: Self::open(path, inputs)? })
    }

    fn open(path: &Path, inputs: &[PathBuf]) -> Result<To, Error> {
        if path == Path::new(STDIO) {
            return Ok(To::Direct(Direct::Stdout(io::stdout())));
        }
        if inputs.iter().any(|input| same_file(input, path)) {
            return Err(Error::OutputIsInput(path.into()));
        }
        let pending = Pending::create(path).map_err(|error| Error::Write { path: path.into(), error })?;
        Ok(if pending.is_direct() { To::Direct(Direct::Device(pending)) } else { To::Pending(pending) })
    }

    /// The name it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What has been written, from the start, for reading.
    ///
    /// # Errors
    /// [`Error::Temporary`] and, for an output that is not [`Output::checked`], [`Error::Write`].
    pub fn reopen(&self) -> Result<File, Error> {
        let file = match &self.to {
            To::Pending(pending) => pending.file(),
            To::Spooled(file, _) => file,
            To::Direct(_) => return Err(self.failed(io::ErrorKind::Unsupported.into())),
        };
        let mut file = file.try_clone().map_err(|e| self.failed(e))?;
        file.seek(SeekFrom::Start(0)).map_err(|e| self.failed(e))?;
        Ok(file)
    }

    /// Makes the output visible, whole and durable.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn publish(self) -> Result<(), Error> {
        let path = self.path.clone();
        let result = match self.to {
            To::Pending(pending) => pending.publish(),
            To::Direct(direct) => direct.finish(),
            To::Spooled(mut file, mut direct) => file
                .seek(SeekFrom::Start(0))
                .and_then(|_| io::copy(&mut file, &mut direct))
                .and_then(|_| direct.finish()),
        };
        result.map_err(|error| Error::Write { path, error })
    }

    fn failed(&self, error: io::Error) -> Error {
        match self.to {
            To::Spooled(..) => Error::Temporary { dir: self.temp_dir.clone(), error },
            _ => Error::Write { path: self.path.clone(), error },
        }
    }
}

/// Whether two paths lead to one regular file: a forgotten argument must not cost an archive.
fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

impl Direct {
    fn finish(self) -> io::Result<()> {
        match self {
            Direct::Stdout(mut out) => out.flush(),
            Direct::Device(device) => device.publish(),
        }
    }
}

impl Write for Direct {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Direct::Stdout(out) => out.write(buf),
            Direct::Device(device) => device.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Direct::Stdout(out) => out.flush(),
            Direct::Device(device) => device.flush(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            To::Pending(pending) => pending.write(buf),
            To::Spooled(file, _) => file.write(buf),
            To::Direct(direct) => direct.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Pending(pending) => pending.flush(),
            To::Spooled(file, _) => file.flush(),
            To::Direct(direct) => direct.flush(),
        }
    }
}
