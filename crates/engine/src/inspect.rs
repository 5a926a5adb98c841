//! What a delta or an archive holds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use coracle_codec::Section;
use coracle_codec::compress::{self, Compression};
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::native::{MAGIC, MAGIC_LEN};
use coracle_codec::rsync;
use coracle_codec::tar::{self, Kind};
use coracle_codec::tardiff::{self, Limits, Op, OpCounts, OpReader, Version};

use crate::input::Archive;
use crate::{Context, Error, native};

/// What a file turned out to be.
#[derive(Debug, Clone)]
pub enum Inspection {
    /// A tar-diff delta.
    Delta(Delta),
    /// A native delta.
    Native(native::Delta),
    /// A librsync delta.
    Rsync(Rsync),
    /// An archive.
    Archive(Contents),
}

/// A tar-diff delta.
#[derive(Debug, Clone)]
pub struct Delta {
    /// Format version.
    pub version: Version,
    /// Bytes of the file.
    pub bytes: u64,
    /// Digest of the file.
    pub digest: Digest,
    /// Bytes of the operation stream before compression.
    pub stream_bytes: u64,
    /// Bytes of the tar it makes; `None` if that cannot be told without the source.
    pub output_bytes: Option<u64>,
    /// Operations.
    pub ops: OpCounts,
    /// Old files it opens, in order of first use.
    pub sources: Vec<SourceUse>,
}

/// A librsync delta.
#[derive(Debug, Clone)]
pub struct Rsync {
    /// Bytes of the file.
    pub bytes: u64,
    /// Digest of the file.
    pub digest: Digest,
    /// Operations; what they make is the output.
    pub ops: rsync::OpCounts,
    /// Bytes of the shortest basis with which it works.
    pub needs: u64,
}

/// How a delta uses one old file.
#[derive(Debug, Clone, Default)]
pub struct SourceUse {
    /// Path in the old tree.
    pub path: Vec<u8>,
    /// How often it is opened.
    pub opens: u64,
    /// Bytes copied unchanged.
    pub copied: u64,
    /// Bytes copied with corrections.
    pub added: u64,
    /// Frames that use it as dictionary.
    pub patches: u64,
    /// Smallest size in bytes with which all of that works.
    pub needs: u64,
}

/// An archive.
#[derive(Debug, Clone)]
pub struct Contents {
    /// How it is compressed.
    pub compression: Compression,
    /// Bytes of the file as it is.
    pub stored_bytes: u64,
    /// Bytes uncompressed.
    pub bytes: u64,
    /// Digest of the uncompressed bytes: the diff_id, if this is a layer.
    pub diff_id: Digest,
    /// Members by kind.
    pub members: Members,
    /// Bytes of content of regular files.
    pub content_bytes: u64,
}

/// Members of an archive by kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Members {
    /// Regular files, sparse ones too.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Hardlinks.
    pub hardlinks: u64,
    /// Everything else.
    pub others: u64,
    /// Members, of any kind, whose name is a whiteout's.
    pub whiteouts: u64,
}

/// Inspects a file by its magic.
///
/// # Errors
/// [`Error::UnknownFile`] when it is neither a delta nor an archive, else those of reading it.
pub fn run(
    path: &Path,
    limits: &Limits,
    native_limits: &coracle_codec::native::Limits,
    archive_limits: compress::Limits,
    context: &Context<'_>,
) -> Result<Inspection, Error> {
    let open = |error| Error::Open { path: path.into(), error };
    let mut magic = Vec::new();
    let meta = std::fs::metadata(path).map_err(open)?;
    if meta.is_file() {
        let file = File::open(path).map_err(open)?;
        file.take(tardiff::MAGIC_LEN as u64)
            .read_to_end(&mut magic)
            .map_err(|error| Error::Read { path: path.into(), error })?;
    }
    if Version::of_magic(&magic).is_some() {
        return delta(path, limits, context).map(Inspection::Delta);
    }
    if magic.len() == MAGIC_LEN && magic[..MAGIC_LEN - 1] == MAGIC[..MAGIC_LEN - 1] {
        return native::inspect(path, native_limits).map(Inspection::Native);
    }
    if magic.starts_with(&rsync::MAGIC) {
        return rsync_delta(path, limits.max_output, context).map(Inspection::Rsync);
    }
    let archive = Archive::open(path, archive_limits, context)?;
    contents(&archive, context).map(Inspection::Archive)
}

fn delta(path: &Path, limits: &Limits, context: &Context<'_>) -> Result<Delta, Error> {
    let fail = |e| Error::delta(path, path, e);
    let file = File::open(path).map_err(|error| Error::Open { path: path.into(), error })?;
    let mut file = Hashing::new(BufReader::with_capacity(1 << 16, file));
    let mut ops = OpReader::new(&mut file, *limits).map_err(fail)?;
    let mut counts = OpCounts::default();
    let mut sources: Vec<SourceUse> = Vec::new();
    let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
    let (mut current, mut cursor) = (None, 0u64);
    let mut output = Some(0u64);
    while let Some(op) = ops.next_op().map_err(fail)? {
        if context.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        counts.count(&op);
        let made = match op {
            Op::Data(n) | Op::Copy(n) | Op::Add(n) => Some(n),
            Op::Open(_) | Op::Seek(_) | Op::ZstdDict(0) => Some(0),
            Op::ZstdDict(_) => None,
        };
        output = output.zip(made).and_then(|(a, b)| a.checked_add(b));
        match op {
            Op::Open(path) => {
                let next = sources.len();
                let i = *known.entry(path.clone()).or_insert(next);
                if i == next {
                    sources.push(SourceUse { path, ..SourceUse::default() });
                }
                sources[i].opens += 1;
                (current, cursor) = (Some(i), 0);
            }
            Op::Seek(to) => cursor = to,
            Op::Copy(n) | Op::Add(n) => {
                if let Some(source) = current.map(|i: usize| &mut sources[i]) {
                    let sum = if matches!(op, Op::Copy(_)) { &mut source.copied } else { &mut source.added };
                    *sum = sum.saturating_add(n);
                    cursor = cursor.saturating_add(n);
                    source.needs = source.needs.max(cursor);
                }
            }
            Op::ZstdDict(_) => {
                if let Some(source) = current.map(|i| &mut sources[i]) {
                    source.patches += 1;
                }
            }
            Op::Data(_) => {}
        }
    }
    let (version, stream_bytes) = (ops.version(), ops.position());
    drop(ops);
    let (_, digest, bytes) = file.finish();
    Ok(Delta { version, bytes, digest, stream_bytes, output_bytes: output, ops: counts, sources })
}

fn rsync_delta(path: &Path, max_output: u64, context: &Context<'_>) -> Result<Rsync, Error> {
    let fail = |error| Error::Rsync { path: path.into(), error };
    let file = File::open(path).map_err(|error| Error::Open { path: path.into(), error })?;
    let mut file = Hashing::new(file);
    let limits = rsync::Limits { max_output, ..rsync::Limits::default() };
    let mut reader = rsync::OpReader::new(&mut file, limits).map_err(fail)?;
    let (mut ops, mut needs) = (rsync::OpCounts::default(), 0);
    while let Some(op) = reader.next_op().map_err(fail)? {
        if context.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        ops.count(op);
        if let rsync::Op::Copy { offset, len } = op {
            needs = needs.max(offset.saturating_add(len));
        }
    }
    drop(reader);
    let (_, digest, bytes) = file.finish();
    Ok(Rsync { bytes, digest, ops, needs })
}

fn contents(archive: &Archive, context: &Context<'_>) -> Result<Contents, Error> {
    let bytes = archive.bytes();
    let path: PathBuf = archive.path.clone();
    let input = Hashing::new(BufReader::with_capacity(1 << 16, Section::whole(bytes).reader()));
    let mut reader = tar::Reader::new(input, tar::Limits::default());
    let mut members = Members::default();
    let mut content_bytes = 0;
    let mut first = true;
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            // A file whose very first header is none is no damaged archive but something else.
            Err(tar::Error::InvalidHeader { offset: 0, .. }) if first => {
                return Err(Error::UnknownFile(path));
            }
            Err(error) => return Err(Error::tar(&path, error)),
        };
        first = false;
        if context.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let count = match entry.kind {
            Kind::Regular | Kind::GnuSparse => {
                content_bytes += entry.content_len;
                &mut members.files
            }
            Kind::Directory => &mut members.directories,
            Kind::Symlink => &mut members.symlinks,
            Kind::Hardlink => &mut members.hardlinks,
            _ => &mut members.others,
        };
        *count += 1;
        let base = entry.name.rsplit(|&b| b == b'/').next().unwrap_or_default();
        members.whiteouts += u64::from(base.starts_with(b".wh."));
    }
    let mut rest = reader.into_rest();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| Error::Read { path, error })?;
    let (_, diff_id, len) = rest.finish();
    Ok(Contents {
        compression: archive.compression,
        stored_bytes: archive.stored_bytes,
        bytes: len,
        diff_id,
        members,
        content_bytes,
    })
}
