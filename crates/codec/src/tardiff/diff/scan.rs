//! The new tar's table of contents.

use std::collections::{HashMap, HashSet};
use std::io::{BufReader, Read};

use super::candidates::OldSource;
use super::{DiffError, Options};
use crate::digest::{Digest, Hashing};
use crate::observe::{Observer, Stage};
use crate::tar::{self, Kind, clean_path};
use crate::{ReadAt, Section};

/// A regular file of the new tar that has content.
#[derive(Debug)]
pub(super) struct Target {
    /// Offset of the content in the tar.
    pub offset: u64,
    /// Bytes of content.
    pub size: u64,
    /// blake3 of the content, where an old file has this size.
    pub hash: Option<[u8; 32]>,
    /// Cleaned names: its own, then its hardlinks'. Empty when its own name cannot be cleaned.
    pub paths: Vec<Vec<u8>>,
}

/// What one pass over the new tar tells.
#[derive(Debug)]
pub(super) struct Scan {
    pub targets: Vec<Target>,
    pub digest: Digest,
    pub members: u64,
}

/// Reads the new tar once, to its last byte.
pub(super) fn scan(
    new: &dyn ReadAt,
    sources: &[OldSource<'_>],
    options: &Options,
    observer: &dyn Observer,
) -> Result<Scan, DiffError> {
    let sizes: HashSet<u64> = sources.iter().map(|s| s.size).collect();
    let input = Hashing::new(BufReader::with_capacity(1 << 16, Section::whole(new).reader()));
    let mut reader = tar::Reader::new(input, options.limits);
    let mut targets: Vec<Target> = Vec::new();
    let mut by_path: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut buf = vec![0; 1 << 16];
    let mut members = 0;
    while let Some(entry) = reader.next_entry().map_err(DiffError::New)? {
        if observer.cancelled() {
            return Err(DiffError::Cancelled);
        }
        observer.progress(Stage::ReadNew, reader.position(), new.size());
        members += 1;
        let path = clean_path(&entry.name);
        match entry.kind {
            Kind::Hardlink => {
                let target = clean_path(&entry.link_name).and_then(|t| by_path.get(&t).copied());
                if let (Some(path), Some(target)) = (path, target) {
                    targets[target].paths.push(path.clone());
                    by_path.insert(path, target);
                }
            }
            Kind::Regular if entry.sparse.is_none() && entry.content_len > 0 => {
                let hash = if sizes.contains(&entry.content_len) {
                    Some(hash_content(&mut reader, &mut buf).map_err(DiffError::New)?)
                } else {
                    None
                };
                if let Some(path) = &path {
                    by_path.insert(path.clone(), targets.len());
                }
                targets.push(Target {
                    offset: entry.content_offset,
                    size: entry.content_len,
                    hash,
                    paths: path.into_iter().collect(),
                });
            }
            _ => {}
        }
    }
    let mut rest = reader.into_rest();
    loop {
        if rest.read(&mut buf).map_err(DiffError::Read)? == 0 {
            break;
        }
        observer.progress(Stage::ReadNew, rest.passed(), new.size());
    }
    let (_, digest, _) = rest.finish();
    Ok(Scan { targets, digest, members })
}

fn hash_content(reader: &mut impl Read, buf: &mut [u8]) -> Result<[u8; 32], tar::Error> {
    let mut hasher = blake3::Hasher::new();
    loop {
        match reader.read(buf)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            n => hasher.update(&buf[..n]),
        };
    }
}
