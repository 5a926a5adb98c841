//! Old files for applying a delta: an extracted tree, or archives read in place.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use coracle_codec::source::{MergeError, OpenError, Source, SourceFile, TarSource};
use coracle_codec::{ReadAt, compress, tar};
use coracle_sys::beneath::{self, Root};

use crate::input::Archive;
use crate::{Context, Error};

/// A directory tree as a [`Source`]: nothing outside it is ever opened, and nothing but regular files.
#[derive(Debug)]
pub struct TreeSource(Root);

impl TreeSource {
    /// Opens the tree's root.
    ///
    /// # Errors
    /// Those of opening the directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Root::open(path).map(TreeSource)
    }
}

impl Source for TreeSource {
    fn open_path(&self, path: &[u8]) -> Result<Box<dyn SourceFile + '_>, OpenError> {
        let file = self.0.open_file(path).map_err(|e| match e {
            beneath::OpenError::NotFound => OpenError::NotFound,
            beneath::OpenError::NotRegular { kind } => OpenError::NotRegular(kind),
            beneath::OpenError::InvalidPath => OpenError::InvalidPath,
            beneath::OpenError::Io(e) => OpenError::Io(e),
            e => OpenError::Io(io::Error::other(e)),
        })?;
        let size = file.metadata()?.len();
        Ok(Box::new(TreeFile { file, size }))
    }
}

struct TreeFile {
    file: File,
    size: u64,
}

impl Read for TreeFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Seek for TreeFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl SourceFile for TreeFile {
    fn size(&self) -> u64 {
        self.size
    }
}

/// What was named as source on a command line: one directory, or archives in order of extraction.
#[derive(Debug)]
pub enum Inputs {
    /// One directory.
    Tree(TreeSource),
    /// Archives.
    Archives(Vec<Archive>),
}

impl Inputs {
    /// Opens sources.
    ///
    /// # Errors
    /// Those of [`Archive::open`], and [`Error::DirectoryAmongArchives`].
    pub fn open(paths: &[PathBuf], limits: compress::Limits, context: &Context<'_>) -> Result<Self, Error> {
        if let Some(directory) = paths.iter().find(|p| p.is_dir()) {
            if paths.len() > 1 {
                return Err(Error::DirectoryAmongArchives(directory.clone()));
            }
            let tree = TreeSource::open(directory)
                .map_err(|error| Error::Open { path: directory.clone(), error })?;
            return Ok(Inputs::Tree(tree));
        }
        let archives = paths.iter().map(|p| Archive::open(p, limits, context)).collect::<Result<_, _>>()?;
        Ok(Inputs::Archives(archives))
    }

    /// Calls `work` with the source that these inputs are.
    ///
    /// # Errors
    /// Those of reading the archives, and of `work`.
    pub fn with<R>(
        &self,
        context: &Context<'_>,
        work: impl FnOnce(&dyn Source) -> Result<R, Error>,
    ) -> Result<R, Error> {
        match self {
            Inputs::Tree(tree) => work(tree),
            Inputs::Archives(archives) => work(&tar_source(archives, context)?),
        }
    }
}

/// Archives as a source.
pub(crate) fn tar_source<'a>(archives: &'a [Archive], context: &Context<'_>) -> Result<TarSource<'a>, Error> {
    let layers: Vec<&dyn ReadAt> = archives.iter().map(Archive::bytes).collect();
    TarSource::new(layers, tar::Limits::default(), context.observer).map_err(|e| match e {
        MergeError::Cancelled => Error::Cancelled,
        MergeError::Tar { layer, error } => Error::tar(&archives[layer].path, error),
    })
}
