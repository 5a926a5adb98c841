//! Where a reader finds old bytes: in archives, or in a tree of files (`docs/formats/native-delta.md`, section 6.1).

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Mutex;

use crate::digest::{Digest, Hasher};
use crate::native::container::{Head, Origin, TreeFile, group_check};
use crate::native::framing::Memory;
use crate::native::old::Old;
use crate::native::{Error, Limits};
use crate::observe::{Observer, Stage};
use crate::source::MergeError;
use crate::source::{Source, SourceFile, TarSource};
use crate::{ReadAt, Section};

/// What a delta is applied to.
#[derive(Clone, Copy)]
pub enum Sources<'a> {
    /// The old archives, uncompressed, in order of extraction.
    Archives(&'a [&'a dyn ReadAt]),
    /// Archives, uncompressed, in any order and more than are needed, with digests that the caller has compared: they
    /// are not read for that again.
    Known(&'a [(Digest, &'a dyn ReadAt)]),
    /// The tree that their extraction leaves.
    Tree(&'a dyn Source),
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Sources::Archives(_) => "Sources::Archives",
            Sources::Known(_) => "Sources::Known",
            Sources::Tree(_) => "Sources::Tree",
        })
    }
}

/// Old members or files, by number.
pub(super) enum Base<'a> {
    Archives(Old<'a>),
    Tree { source: Files<'a>, files: &'a [TreeFile] },
}

/// A tree: the caller's, or one that archives stand for.
pub(super) enum Files<'a> {
    Given(&'a dyn Source),
    Archives(TarSource<'a>),
}

impl Files<'_> {
    fn source(&self) -> &dyn Source {
        match self {
            Files::Given(source) => *source,
            Files::Archives(source) => source,
        }
    }
}

/// An old file, read at any offset.
pub(crate) enum OldFile<'a> {
    Section(Section<'a>),
    Opened { file: Mutex<Box<dyn SourceFile + 'a>>, size: u64 },
}

impl ReadAt for OldFile<'_> {
    fn size(&self) -> u64 {
        match self {
            OldFile::Section(section) => section.size(),
            OldFile::Opened { size, .. } => *size,
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            OldFile::Section(section) => section.read_at(offset, buf),
            OldFile::Opened { file, size } => {
                let n = size.saturating_sub(offset).min(buf.len() as u64) as usize;
                let mut file = file.lock().unwrap_or_else(|e| e.into_inner());
                file.seek(SeekFrom::Start(offset))?;
                file.read(&mut buf[..n])
            }
        }
    }
}

impl<'a> Base<'a> {
    /// Finds all that a delta needs and compares digests, before anything is made of it.
    pub(super) fn open(
        sources: Sources<'a>,
        head: &'a Head,
        limits: &Limits,
        observer: &dyn Observer,
    ) -> Result<Self, Error> {
        match (&head.origin, sources) {
            (Origin::Archives(wanted), Sources::Archives(given)) => {
                if given.len() != wanted.len() {
                    return Err(Error::SourceCount { wanted: wanted.len(), given: given.len() });
                }
                let opened = Old::open(given, limits.tar, observer, |_, _| Ok(()));
                let (old, found) = opened.map_err(failed)?;
                for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                    if found != wanted {
                        let (wanted, actual) = (wanted.digest, found.digest);
                        return Err(Error::WrongSource { number: i + 1, wanted, actual });
                    }
                }
                Ok(Base::Archives(old))
            }
            (Origin::Archives(wanted), Sources::Known(known)) => {
                let mut given = Vec::with_capacity(wanted.len());
                for (i, wanted) in wanted.iter().enumerate() {
                    let found = known
                        .iter()
                        .find(|(digest, archive)| *digest == wanted.digest && archive.size() == wanted.size);
                    let missing = Error::MissingSource { number: i + 1, wanted: wanted.digest };
                    given.push(found.ok_or(missing)?.1);
                }
                Old::members(&given, limits.tar, observer).map(Base::Archives).map_err(failed)
            }
            (Origin::Archives(_), Sources::Tree(_)) => Err(Error::NeedsArchives),
            (Origin::Tree(tree), sources) => {
                let source = match sources {
                    Sources::Tree(source) => Files::Given(source),
                    Sources::Archives(archives) => {
                        let source = TarSource::new(archives.to_vec(), limits.tar, observer);
                        Files::Archives(source.map_err(failed)?)
                    }
                    Sources::Known(known) => {
                        let archives = known.iter().map(|(_, archive)| *archive).collect();
                        let source = TarSource::new(archives, limits.tar, observer);
                        Files::Archives(source.map_err(failed)?)
                    }
                };
                let base = Base::Tree { source, files: &tree.files };
                base.compare(&tree.digest, &tree.checks, observer)?;
                Ok(base)
            }
        }
    }

    /// Hashes all files of a tree; tells the group of files that differs.
    fn compare(&self, wanted: &Digest, checks: &[[u8; 4]], observer: &dyn Observer) -> Result<(), Error> {
        let Base::Tree { files, .. } = self else { return Ok(()) };
        let total = files.iter().map(|f| f.size).sum();
        let (mut all, mut done) = (Hasher::new(), 0);
        let mut buf = vec![0; 1 << 17];
        for (g, group) in files.chunks(TreeFile::GROUP).enumerate() {
            let mut digests = Vec::new();
            for (i, file) in group.iter().enumerate() {
                let content = self.content((g * TreeFile::GROUP + i) as u64)?;
                let mut hasher = Hasher::new();
                let mut at = 0;
                while at < file.size {
                    if observer.cancelled() {
                        return Err(Error::Cancelled);
                    }
                    let n = (file.size - at).min(buf.len() as u64) as usize;
                    content.read_exact_at(at, &mut buf[..n]).map_err(Error::ReadSource)?;
                    hasher.update(&buf[..n]);
                    at += n as u64;
                }
                done += file.size;
                observer.progress(Stage::ReadOld, done, total);
                digests.extend_from_slice(hasher.finish().as_bytes());
            }
            if checks.get(g) != Some(&group_check(&digests)) {
                let [first, .., last] = group else {
                    return Err(Error::WrongFile { path: group[0].path.clone() });
                };
                return Err(Error::WrongFiles { first: first.path.clone(), last: last.path.clone() });
            }
            all.update(&digests);
        }
        let actual = all.finish();
        if actual == *wanted { Ok(()) } else { Err(Error::WrongTree { wanted: *wanted, actual }) }
    }

    /// How many members or files there are.
    pub(super) fn count(&self) -> u64 {
        match self {
            Base::Archives(old) => old.members.len() as u64,
            Base::Tree { files, .. } => files.len() as u64,
        }
    }

    /// Bytes of the content of one; `number` is below [`Base::count`], here and below.
    pub(super) fn len(&self, number: u64) -> u64 {
        match self {
            Base::Archives(old) => old.members[number as usize].len,
            Base::Tree { files, .. } => files[number as usize].size,
        }
    }

    /// The content of one.
    pub(super) fn content(&self, number: u64) -> Result<OldFile<'_>, Error> {
        match self {
            Base::Archives(old) => Ok(OldFile::Section(old.content(&old.members[number as usize]))),
            Base::Tree { source, files } => {
                let TreeFile { path, size } = &files[number as usize];
                let opened = source.source().open_path(path);
                let file = opened.map_err(|error| Error::Source { path: path.clone(), error })?;
                if file.size() != *size {
                    let (path, actual) = (path.clone(), file.size());
                    return Err(Error::WrongSize { path, wanted: *size, actual });
                }
                Ok(OldFile::Opened { file: Mutex::new(file), size: *size })
            }
        }
    }

    /// The header that predicts one with this reference (section 6.2).
    pub(super) fn framing(&self, number: u64, memory: &Memory) -> Result<Vec<u8>, Error> {
        match self {
            Base::Archives(old) => old.framing(&old.members[number as usize]).map_err(Error::ReadSource),
            Base::Tree { files, .. } => Ok(memory.named(&files[number as usize].path)),
        }
    }
}

fn failed(e: MergeError) -> Error {
    match e {
        MergeError::Cancelled => Error::Cancelled,
        MergeError::Tar { layer, error } => Error::Tar { number: layer + 1, error },
    }
}
