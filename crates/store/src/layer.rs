//! A layer of the store: its tar, bit for bit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::ReadAt;
use coracle_codec::digest::Digest;
use coracle_codec::tar::clean_path;

use crate::error::Error;
use crate::layer_file::{Content, FRAME, FileEntry, LayerFile, Limits, Piece};
use crate::layout::Layout;
use crate::reader::LayerReader;

/// Decoded frames, and open objects, that a layer keeps for the next reading.
const KEPT: usize = 8;

/// A layer that is in the store. Cheap to clone; may be read by several threads at once.
///
/// It does not keep the layer from being removed by others: [`crate::Lease::keep_layer`] does. What is removed while it
/// is read leads to an error, never to other bytes.
#[derive(Debug, Clone)]
pub struct Layer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    file: LayerFile<StoredFile>,
    frames: Mutex<Recent<usize, Arc<Vec<u8>>>>,
    objects: Mutex<Recent<Digest, Arc<File>>>,
}

/// An object, open, and where it is.
#[derive(Debug)]
pub struct StoredObject {
    /// The file.
    pub file: File,
    /// Its path.
    pub path: std::path::PathBuf,
}

/// A file that is read at any offset.
#[derive(Debug)]
pub(crate) struct StoredFile {
    file: File,
    size: u64,
}

impl StoredFile {
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(StoredFile { file, size })
    }
}

impl ReadAt for StoredFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
}

/// The last few values by their keys, the latest first.
#[derive(Debug)]
struct Recent<K, V>(Vec<(K, V)>);

impl<K: PartialEq, V: Clone> Recent<K, V> {
    fn get(&mut self, key: &K) -> Option<V> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        self.0[..=at].rotate_right(1);
        self.0.first().map(|(_, value)| value.clone())
    }

    fn put(&mut self, key: K, value: V) {
        self.0.truncate(KEPT - 1);
        self.0.insert(0, (key, value));
    }
}

impl Layer {
    /// Opens the file of the layer `diff_id`; `None` if there is none.
    pub(crate) fn open(layout: &Layout, diff_id: &Digest) -> Result<Option<Self>, Error> {
        let path = layout.layer(diff_id);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let file = StoredFile::new(file).map_err(Error::io("read", &path))?;
        let bad = |source| Error::Layer { diff_id: *diff_id, source };
        let file = LayerFile::open(file, &Limits::default()).map_err(bad)?;
        if file.diff_id() != *diff_id {
            return Err(bad(crate::layer_file::Error::Table("another layer than its name says")));
        }
        Ok(Some(Layer(Arc::new(Inner {
            layout: layout.clone(),
            file,
            frames: Mutex::new(Recent(Vec::new())),
            objects: Mutex::new(Recent(Vec::new())),
        }))))
    }

    /// The sha256 of the tar.
    pub fn diff_id(&self) -> Digest {
        self.0.file.diff_id()
    }

    /// Bytes of the tar that are in the layer file and in no object.
    pub fn inline(&self) -> u64 {
        self.0.file.inline()
    }

    /// The tar from its first byte to its last.
    pub fn pieces(&self) -> &[Piece] {
        self.0.file.pieces()
    }

    /// The objects that the tar refers to, in its order, with their sizes in bytes; one may stand there several times.
    pub fn objects(&self) -> impl Iterator<Item = (Digest, u64)> + '_ {
        self.pieces().iter().filter_map(|piece| match piece.content {
            Content::Object(digest) => Some((digest, piece.len)),
            Content::Inline(_) => None,
        })
    }

    /// The regular files of the tar in its order, names as it has them; sparse files are left out. A name may stand
    /// there more than once.
    pub fn files(&self) -> impl ExactSizeIterator<Item = FileEntry<'_>> {
        self.0.file.files()
    }

    /// The last regular file whose name, in normal form ([`clean_path`]), is `path` in normal form.
    pub fn find(&self, path: &[u8]) -> Option<FileEntry<'_>> {
        let wanted = clean_path(path)?;
        let mut found = None;
        for file in self.files() {
            if file.path == wanted || clean_path(file.path).as_deref() == Some(&wanted[..]) {
                found = Some(file);
            }
        }
        found
    }

    /// Opens the object of the regular file `path`; `None` if there is no such file, or it is inline: then its bytes
    /// are read at [`FileEntry::offset`].
    ///
    /// # Errors
    /// The object is missing, or is not as long as the layer says.
    pub fn open_file(&self, path: &[u8]) -> Result<Option<File>, Error> {
        match self.find(path) {
            Some(FileEntry { object: Some(digest), size, .. }) => {
                open_object(&self.0.layout, &digest, size).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The object that holds the `len` bytes from `offset` on, and nothing else; `None` if there is none.
    ///
    /// # Errors
    /// The object is missing, or is not as long as the layer says.
    pub fn object_at(&self, offset: u64, len: u64) -> Result<Option<StoredObject>, Error> {
        let pieces = self.pieces();
        let number = pieces.partition_point(|piece| piece.start < offset);
        match pieces.get(number) {
            Some(&Piece { start, len: found, content: Content::Object(digest) })
                if (start, found) == (offset, len) =>
            {
                let file = open_object(&self.0.layout, &digest, len)?;
                Ok(Some(StoredObject { file, path: self.0.layout.object(&digest) }))
            }
            _ => Ok(None),
        }
    }

    /// The tar from its start on, read ahead by a thread of its own.
    pub fn reader(&self) -> LayerReader {
        LayerReader::new(self.clone())
    }

    /// The layer file.
    pub(crate) fn file(&self) -> &LayerFile<StoredFile> {
        &self.0.file
    }

    /// The object `digest` of `len` bytes, open.
    pub(crate) fn object(&self, digest: &Digest, len: u64) -> Result<Arc<File>, Error> {
        let mut recent = self.0.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = recent.get(digest) {
            return Ok(file);
        }
        let file = Arc::new(open_object(&self.0.layout, digest, len)?);
        recent.put(*digest, file.clone());
        Ok(file)
    }

    /// A frame, decoded.
    pub(crate) fn frame(&self, number: usize) -> Result<Arc<Vec<u8>>, Error> {
        let lock = || self.0.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = lock().get(&number) {
            return Ok(frame);
        }
        // Without the lock: others read on meanwhile, at the price of decoding a frame twice now and then.
        let bad = |source| Error::Layer { diff_id: self.diff_id(), source };
        let frame = Arc::new(self.0.file.frame(number).map_err(bad)?);
        lock().put(number, frame.clone());
        Ok(frame)
    }

    /// Fills as much of `buf` from `offset` of `piece` on as is to be had at once.
    fn read_piece(&self, piece: &Piece, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = (piece.len - offset).min(buf.len() as u64) as usize;
        match piece.content {
            Content::Object(digest) => {
                let object = self.object(&digest, piece.len)?;
                match object.read_at(&mut buf[..left], offset)? {
                    // It was longer when it was opened.
                    0 => Err(Error::ObjectSize { digest, expected: piece.len, actual: offset }.into()),
                    n => Ok(n),
                }
            }
            Content::Inline(at) => {
                let at = at + offset;
                let frame = self.frame((at / FRAME as u64) as usize)?;
                let from = &frame[(at % FRAME as u64) as usize..];
                let n = left.min(from.len());
                buf[..n].copy_from_slice(&from[..n]);
                Ok(n)
            }
        }
    }
}

impl ReadAt for Layer {
    fn size(&self) -> u64 {
        self.0.file.size()
    }

    /// Reads over the borders of pieces: less than `buf` only at the end of the tar.
    fn read_at(&self, mut offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let pieces = self.pieces();
        let mut number = pieces.partition_point(|piece| piece.start + piece.len <= offset);
        let mut filled = 0;
        while filled < buf.len() {
            let Some(piece) = pieces.get(number) else { break };
            let n = self.read_piece(piece, offset - piece.start, &mut buf[filled..])?;
            filled += n;
            offset += n as u64;
            if offset == piece.start + piece.len {
                number += 1;
            }
        }
        Ok(filled)
    }
}

/// Opens an object that has to have `len` bytes.
pub(crate) fn open_object(layout: &Layout, digest: &Digest, len: u64) -> Result<File, Error> {
    let path = layout.object(digest);
    let file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing { what: "object", digest: *digest },
        _ => Error::io("open", &path)(error),
    })?;
    let actual = file.metadata().map_err(Error::io("read", &path))?.len();
    if actual != len {
        return Err(Error::ObjectSize { digest: *digest, expected: len, actual });
    }
    Ok(file)
}
