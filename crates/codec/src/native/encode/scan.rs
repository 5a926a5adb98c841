//! What there is in the old archives and in the target.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::ops::Range;

use super::{Base, DiffError, Options};
use crate::digest::{Digest, Hashing};
use crate::native::container::{Archive, MAX_PATH};
use crate::native::items::BLOCK;
use crate::native::old::Old;
use crate::observe::{Observer, Stage};
use crate::source::{MergeOptions, Tree};
use crate::tar::{self, Kind, clean_path};
use crate::{ReadAt, Section};

/// The old archives.
pub(super) struct Source<'a> {
    pub old: Old<'a>,
    pub archives: Vec<Archive>,
    /// By old member: the cleaned paths of a file with content, empty for others.
    pub paths: Vec<Vec<Vec<u8>>>,
    /// Latest member of each path, of whatever kind.
    by_path: HashMap<Vec<u8>, usize>,
    /// Files by hash and length.
    by_hash: HashMap<([u8; 32], u64), Vec<usize>>,
}

/// Reads the old archives.
pub(super) fn source<'a>(
    archives: &[&'a dyn ReadAt],
    options: &Options,
    observer: &dyn Observer,
) -> Result<Source<'a>, DiffError> {
    let mut paths: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut by_path: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut by_hash: HashMap<([u8; 32], u64), Vec<usize>> = HashMap::new();
    let (old, archives) = Old::open(archives, options.limits, observer, |entry, reader| {
        let number = paths.len();
        let path = clean_path(&entry.name);
        let mut own = Vec::new();
        if entry.content_len > 0 {
            let hash = hash(reader)?;
            by_hash.entry((hash, entry.content_len)).or_default().push(number);
            own.extend(path.clone());
        }
        if let (Kind::Hardlink, Some(path)) = (entry.kind, &path)
            && let Some(&target) = clean_path(&entry.link_name).and_then(|t| by_path.get(&t))
            && !paths[target].is_empty()
        {
            paths[target].push(path.clone());
        }
        if let Some(path) = path {
            by_path.insert(path, number);
        }
        paths.push(own);
        Ok(())
    })?;
    let mut source = Source { old, archives, paths, by_path, by_hash };
    if let Base::Tree { apply_whiteouts, any_mode } = options.base {
        source.keep_tree(apply_whiteouts, any_mode, options, observer)?;
    }
    Ok(source)
}

impl Source<'_> {
    /// Forgets what cannot be relied on in an extracted tree.
    fn keep_tree(
        &mut self,
        apply_whiteouts: bool,
        any_mode: bool,
        options: &Options,
        observer: &dyn Observer,
    ) -> Result<(), DiffError> {
        const WORLD_READ: i64 = 0o004;
        let merge = MergeOptions { apply_whiteouts, hash: false, limits: options.limits };
        let tree = Tree::merge(self.old.archives(), merge, observer)?;
        let mut trusted: HashMap<(usize, u64), Vec<Vec<u8>>> = HashMap::new();
        for (i, file) in tree.files().iter().enumerate() {
            let paths = tree.trusted_paths(i).filter(|p| p.len() as u64 <= MAX_PATH).map(<[u8]>::to_vec);
            if file.size > 0 && (any_mode || file.mode & WORLD_READ != 0) {
                trusted.insert((file.layer, file.offset), paths.collect());
            }
        }
        for (member, paths) in self.old.members.iter().zip(&mut self.paths) {
            *paths = trusted.remove(&(member.archive, member.content)).unwrap_or_default();
        }
        let paths = &self.paths;
        self.by_path.retain(|path, &mut member| paths[member].contains(path));
        self.by_hash.retain(|_, members| {
            members.retain(|&m| !paths[m].is_empty());
            !members.is_empty()
        });
        Ok(())
    }
}

fn hash(reader: &mut dyn Read) -> Result<[u8; 32], tar::Error> {
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buf)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            n => hasher.update(&buf[..n]),
        };
    }
}

/// A member of the target.
pub(super) struct NewMember {
    pub framing: Range<u64>,
    pub content_len: u64,
    pub paths: Vec<Vec<u8>>,
    /// Old member whose header predicts this one's.
    pub reference: Option<usize>,
    pub content: Content,
}

/// Where the content of a member comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// There is none.
    None,
    /// It is all of this old member.
    Whole(usize),
    /// It has to be coded.
    Code,
}

impl NewMember {
    pub(super) fn is_coded(&self) -> bool {
        self.content == Content::Code
    }

    /// Where the content ends.
    pub(super) fn end(&self) -> u64 {
        self.framing.end + self.content_len
    }
}

/// The target.
pub(super) struct Target {
    pub members: Vec<NewMember>,
    pub digest: Digest,
    /// Bytes of it.
    pub end: u64,
}

/// Bytes of content to be coded at a time.
const WINDOW: u64 = 48 << 20;

impl Target {
    /// Members in runs whose content to be coded is held in memory at a time.
    pub(super) fn windows(&self) -> Vec<Range<usize>> {
        let mut out = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (i, m) in self.members.iter().enumerate() {
            bytes += if m.is_coded() { m.content_len } else { 0 };
            if bytes >= WINDOW {
                out.push(start..i + 1);
                (start, bytes) = (i + 1, 0);
            }
        }
        out.push(start..self.members.len());
        out
    }
}

/// Reads the target to its last byte.
pub(super) fn target(
    new: &dyn ReadAt,
    source: &Source<'_>,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Target, DiffError> {
    let input = Hashing::new(BufReader::with_capacity(1 << 16, Section::whole(new).reader()));
    let mut reader = tar::Reader::new(input, options.limits);
    let mut members: Vec<NewMember> = Vec::new();
    let mut by_path: HashMap<Vec<u8>, usize> = HashMap::new();
    let sizes: std::collections::HashSet<u64> = source.by_hash.keys().map(|k| k.1).collect();
    while let Some(entry) = reader.next_entry().map_err(DiffError::New)? {
        if observer.cancelled() {
            return Err(DiffError::Cancelled);
        }
        observer.progress(Stage::ReadNew, reader.position(), new.size());
        let path = clean_path(&entry.name);
        let mut same: &[usize] = &[];
        if sizes.contains(&entry.content_len) && entry.content_len > 0 {
            let hash = hash(&mut reader).map_err(DiffError::New)?;
            same = source.by_hash.get(&(hash, entry.content_len)).map_or(&[], Vec::as_slice);
        }
        let named = path.as_ref().and_then(|p| source.by_path.get(p)).copied();
        let content = match same {
            _ if entry.content_len == 0 => Content::None,
            [] => Content::Code,
            [first, ..] => Content::Whole(named.filter(|n| same.contains(n)).unwrap_or(*first)),
        };
        if let (Kind::Hardlink, Some(path)) = (entry.kind, &path)
            && let Some(&target) = clean_path(&entry.link_name).and_then(|t| by_path.get(&t))
        {
            members[target].paths.push(path.clone());
        }
        if let Some(path) = &path {
            by_path.insert(path.clone(), members.len());
        }
        let usable = |&n: &usize| {
            let m = &source.old.members[n];
            let framing = m.content - m.framing;
            framing >= BLOCK && framing.is_multiple_of(BLOCK)
        };
        members.push(NewMember {
            framing: entry.offset..entry.content_offset,
            content_len: entry.content_len,
            paths: path.into_iter().collect(),
            reference: named.filter(usable).filter(|_| options.parts.old_headers),
            content,
        });
    }
    let mut rest = reader.into_rest();
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(DiffError::Read)?;
    let (_, digest, end) = rest.finish();
    Ok(Target { members, digest, end })
}
