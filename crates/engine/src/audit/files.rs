//! The files of an image: lists of its layers, and contents.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::chunked::{ChunkReader, Family, Limits, Place, Toc, is_stargz_own};
use coracle_codec::digest::Digest;
use coracle_codec::tar::{self, Kind, Reader};
use coracle_codec::{ReadAt, Section};

use super::How;
use super::here::Here;
use super::tree::{Found, Member, Tree};
use crate::artifact::layers::{Image, Layers, Reading};
use crate::chunked::{Opened, Parted, failed, open};
use crate::image::blob::Progress;
use crate::image::copy::in_parallel;
use crate::image::{Environment, Ranged};
use crate::subset::Subset;
use crate::{Context, Error};

/// Bytes of one chunk, as stored, that are fetched at once.
const MAX_RANGE: u64 = 32 << 20;

/// An image, its layers listed.
pub(super) struct Files {
    image: Image,
    here: Here,
    /// TOCs of the layers that have one and are not here.
    tocs: Vec<Option<(Place, Toc)>>,
    layers: Layers,
    pub(super) tree: Tree,
    pub(super) how: How,
}

impl Files {
    pub(super) fn open(
        image: Image,
        here: Here,
        jobs: usize,
        digests: bool,
        environment: &Environment,
        progress: &Arc<Progress>,
        context: &Context<'_>,
    ) -> Result<Files, Error> {
        let count = image.manifest.layers().len();
        let tocs = Mutex::new(vec![None; count]);
        let numbers: Vec<usize> = (0..count).filter(|number| here.layer(*number).is_none()).collect();
        in_parallel(&numbers, jobs, &progress.stop, |&number| {
            let layer = &image.manifest.layers()[number];
            match open(&Parted::new(image.source.as_ref(), layer), &Limits::default()) {
                Ok(Opened::Documents(documents)) => {
                    let toc = (documents.place, documents.toc);
                    tocs.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(toc);
                    Ok(())
                }
                // It is read as what every layer is: a tar.
                Ok(Opened::Plain | Opened::Whole(_)) | Err(Error::Chunked { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })?;
        let tocs = tocs.into_inner().unwrap_or_else(PoisonError::into_inner);
        let missing = numbers.len();
        let plain: Vec<usize> = numbers.into_iter().filter(|number| tocs[*number].is_none()).collect();
        let reading = Reading { jobs, progress, temp_dir: &context.temp_dir, environment };
        let layers = image.unpack(&plain, &reading)?;
        let how = How {
            stored: (count - missing) as u64,
            ranged: (missing - plain.len()) as u64,
            whole: plain.len() as u64,
            ..How::default()
        };
        let mut files = Files { image, here, tocs, layers, tree: Tree::default(), how };
        for number in 0..count {
            let found = files.found(number, digests)?;
            files.tree.lay(number, &found);
        }
        Ok(files)
    }

    /// The members of a layer.
    fn found(&self, number: usize, digests: bool) -> Result<Vec<Found>, Error> {
        if let Some((_, toc)) = &self.tocs[number] {
            // Those of eStargz keep their numbers, and lose their names.
            let found = toc.entries.iter().map(|entry| {
                let found = Found::of_toc(entry);
                if is_stargz_own(&entry.name) { Found { name: Vec::new(), ..found } } else { found }
            });
            return Ok(found.collect());
        }
        let mut found = Vec::new();
        // What is told of a chunked layer is the same whether it is here or not.
        let layer = &self.image.manifest.layers()[number];
        let place =
            Place::of(layer, &Limits::default()).ok().flatten().filter(|_| self.here.layer(number).is_some());
        let is_stargz = place.as_ref().is_some_and(|place| place.family == Family::Stargz);
        let digests = digests || place.is_some();
        self.members(number, |entry, reader| {
            if is_stargz && std::str::from_utf8(&entry.name).is_ok_and(is_stargz_own) {
                found.push(None);
                return Ok(true);
            }
            let plain = entry.kind == Kind::Regular && entry.sparse.is_none();
            let digest = if digests && plain {
                let mut out = coracle_codec::digest::Hashing::new(io::sink());
                io::copy(reader, &mut out)?;
                Some(out.digest())
            } else {
                None
            };
            found.push(Found::of_tar(entry, digest));
            Ok(true)
        })?;
        // Numbers are those of all members.
        let nothing = || Found {
            name: Vec::new(),
            kind: None,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: Vec::new(),
            digest: None,
        };
        Ok(found.into_iter().map(|found| found.unwrap_or_else(nothing)).collect())
    }

    /// The tar of a layer that is here or was fetched whole, and what it is called.
    fn tar(&self, number: usize) -> Option<(&dyn ReadAt, PathBuf)> {
        if let Some(layer) = self.here.layer(number) {
            return Some((layer, format!("layer {} of the store", layer.diff_id()).into()));
        }
        let archive = self.layers.get(&self.image.config.diff_ids()[number])?;
        Some((archive.as_ref(), archive.path.clone()))
    }

    /// Goes through the members of a layer that is here or was fetched whole, until `visit` says that it is enough.
    fn members(
        &self,
        number: usize,
        mut visit: impl FnMut(&tar::Entry, &mut dyn Read) -> io::Result<bool>,
    ) -> Result<(), Error> {
        let Some((bytes, path)) = self.tar(number) else { return Ok(()) };
        let mut tar = Reader::new(
            io::BufReader::with_capacity(1 << 17, Section::new(bytes, 0, bytes.size()).reader()),
            tar::Limits::default(),
        );
        let unreadable = |error| Error::tar(&path, error);
        while let Some(entry) = tar.next_entry().map_err(unreadable)? {
            if !visit(&entry, &mut tar).map_err(|error| Error::read(&path, error))? {
                break;
            }
        }
        Ok(())
    }

    /// Writes the content of a regular file.
    pub(super) fn read(&self, member: &Member, out: &mut dyn Write) -> Result<(), Error> {
        let (layer, number) = member.source;
        let writing = |error| Error::Write { path: "standard output".into(), error };
        let Some((place, toc)) = &self.tocs[layer] else {
            let (mut at, mut failed) = (0, None);
            self.members(layer, |entry, reader| {
                at += 1;
                if at <= number {
                    return Ok(true);
                }
                let result = match &entry.sparse {
                    None => copy(reader, out),
                    Some(map) => tar::expand(map, &mut { reader }, &mut { &mut *out }),
                };
                failed = result.err();
                Ok(false)
            })?;
            return failed.map_or(Ok(()), |error| Err(writing(error)));
        };
        let blob = &self.image.manifest.layers()[layer];
        let (source, limits) = (self.image.source.as_ref(), Limits::default());
        let what = format!("layer {layer}");
        let entry = &toc.entries[number];
        let mut whole = coracle_codec::digest::Hasher::new();
        for chunk in &entry.chunks {
            let stored: Box<dyn Read + Send> = if chunk.stored.end - chunk.stored.start > MAX_RANGE {
                source.open_blob(blob, chunk.stored.start)?
            } else {
                match source.open_range(blob, chunk.stored.clone())? {
                    Ranged::Part(bytes) => Box::new(io::Cursor::new(bytes)),
                    Ranged::Whole(mut stream) => {
                        let passed = io::copy(&mut (&mut stream).take(chunk.stored.start), &mut io::sink());
                        passed.map_err(|error| failed(source, &what, error.into()))?;
                        stream
                    }
                }
            };
            let stored = io::BufReader::with_capacity(1 << 17, stored);
            let mut reader = ChunkReader::new(stored, place.family, chunk, &entry.name, &limits);
            let mut piece = vec![0; 128 << 10];
            loop {
                let n = reader.read(&mut piece).map_err(|error| {
                    let error = error.downcast().unwrap_or_else(coracle_codec::chunked::Error::Io);
                    failed(source, &what, error)
                })?;
                if n == 0 {
                    break;
                }
                whole.update(&piece[..n]);
                out.write_all(&piece[..n]).map_err(writing)?;
            }
        }
        let actual = whole.finish();
        match entry.digest {
            Some(expected) if actual != expected => Err(Error::Digest { expected, actual }),
            _ => Ok(()),
        }
    }

    /// Bytes of a regular file, if there is one.
    pub(super) fn size(&self, path: &[u8]) -> Option<u64> {
        let member = self.tree.resolve(path)?;
        (member.kind == super::FileKind::File).then_some(member.size)
    }

    /// The content of a small file; `None` if there is no such file.
    pub(super) fn small(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.tree.resolve(path) {
            Some(member) if member.kind == super::FileKind::File && member.size <= limit => {
                let mut out = Vec::new();
                self.read(member, &mut out)?;
                Ok(Some(out))
            }
            _ => Ok(None),
        }
    }

    /// What its labels say if it is a part of an image.
    pub(super) fn subset(&self) -> Option<Subset> {
        Subset::of(&self.image.config)
    }

    /// The digest of the manifest.
    pub(super) fn digest(&self) -> Digest {
        self.image.manifest.digest()
    }
}

fn copy(reader: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    io::copy(reader, out).map(|_| ())
}
