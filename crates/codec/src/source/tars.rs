//! Archives as a source: old files are read in place, nothing is extracted.

use std::io::{self, Read, Seek, SeekFrom};

use super::merge::{MergeError, MergeOptions, Tree};
use super::{OpenError, Source, SourceFile};
use crate::observe::Observer;
use crate::{ReadAt, Section, SectionReader, tar};

/// Old layers, in order of extraction, as a [`Source`].
///
/// Whiteouts are not applied: a delta made with whiteouts never opens what they remove, and one made without needs it.
pub struct TarSource<'a> {
    layers: Vec<&'a dyn ReadAt>,
    tree: Merged<'a>,
}

enum Merged<'a> {
    Own(Tree),
    Given(&'a Tree),
}

impl std::fmt::Debug for TarSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarSource").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl<'a> TarSource<'a> {
    /// Reads the archives' tables of contents.
    ///
    /// # Errors
    /// See [`MergeError`].
    pub fn new(
        layers: Vec<&'a dyn ReadAt>,
        limits: tar::Limits,
        observer: &dyn Observer,
    ) -> Result<Self, MergeError> {
        let options = MergeOptions { apply_whiteouts: false, hash: false, limits };
        let tree = Tree::merge(&layers, options, observer)?;
        Ok(TarSource { layers, tree: Merged::Own(tree) })
    }

    /// Archives that were merged to `tree` before.
    pub fn merged(layers: Vec<&'a dyn ReadAt>, tree: &'a Tree) -> Self {
        TarSource { layers, tree: Merged::Given(tree) }
    }

    fn tree(&self) -> &Tree {
        match &self.tree {
            Merged::Own(tree) => tree,
            Merged::Given(tree) => tree,
        }
    }
}

impl Source for TarSource<'_> {
    fn open_path(&self, path: &[u8]) -> Result<Box<dyn SourceFile + '_>, OpenError> {
        let file = self.tree().find(path).ok_or(OpenError::NotFound)?;
        let section = Section::new(self.layers[file.layer], file.offset, file.size);
        Ok(Box::new(TarFile { size: section.size(), reader: section.reader() }))
    }
}

struct TarFile<'a> {
    size: u64,
    reader: SectionReader<'a>,
}

impl Read for TarFile<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

impl Seek for TarFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}

impl SourceFile for TarFile<'_> {
    fn size(&self) -> u64 {
        self.size
    }
}
