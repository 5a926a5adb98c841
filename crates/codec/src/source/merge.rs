//! Old layers laid over each other: which path of the extracted tree holds which bytes.
//!
//! A delta may only use an old file whose path, after extraction by *any* tool, holds the bytes the writer saw. Upstream
//! gets this wrong in several ways (`docs/formats/tar-diff.md`, Errata); here a path is dropped as soon as anything later
//! touches it, and a path reached through a symbolic link or over a non-directory is never trusted, because extractors
//! disagree on what such a member does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::io::Read;

use crate::observe::{Observer, Stage};
use crate::tar::{self, Entry, Kind, clean_path, lexical_path};
use crate::{ReadAt, Section};

/// How layers are read and merged.
#[derive(Debug, Clone, Copy, Default)]
pub struct MergeOptions {
    /// Honour `.wh.NAME` and `.wh..wh..opq` (OCI image-spec, layer "Whiteouts").
    pub apply_whiteouts: bool,
    /// Hash every content, see [`OldFile::hash`].
    pub hash: bool,
    /// Bounds for each archive.
    pub limits: tar::Limits,
}

/// A regular file stored in one of the layers.
#[derive(Debug, Clone)]
pub struct OldFile {
    /// Index of the layer.
    pub layer: usize,
    /// Offset of the content in the uncompressed layer.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: i64,
    /// blake3 of the content, when asked for. An internal identity, never published.
    pub hash: [u8; 32],
    /// Every cleaned path this file was ever given: its own, then hardlinks in archive order.
    paths: Vec<Vec<u8>>,
}

/// The merged tree.
#[derive(Debug, Default)]
pub struct Tree {
    files: Vec<OldFile>,
    nodes: BTreeMap<Vec<u8>, Node>,
    has_whiteouts: bool,
}

#[derive(Debug, Clone)]
struct Node {
    layer: usize,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// `trusted`: every extractor puts this file at this path.
    File {
        index: usize,
        trusted: bool,
    },
    Link(Vec<u8>),
    Directory,
    Other,
}

const MAX_LINKS: usize = 40;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Tree {
    /// Reads `layers` in order of extraction.
    ///
    /// # Errors
    /// Those of [`tar::Reader`], with the index of the layer, and [`MergeError::Cancelled`].
    pub fn merge(
        layers: &[&dyn ReadAt],
        options: MergeOptions,
        observer: &dyn Observer,
    ) -> Result<Tree, MergeError> {
        let total = layers.iter().map(|l| l.size()).sum();
        let mut before = 0;
        let mut tree = Tree::default();
        let mut buf = vec![0; 1 << 16];
        for (layer, bytes) in layers.iter().enumerate() {
            let fail = |error| MergeError::Tar { layer, error };
            let input = std::io::BufReader::with_capacity(1 << 16, Section::whole(*bytes).reader());
            let mut reader = tar::Reader::new(input, options.limits);
            while let Some(entry) = reader.next_entry().map_err(fail)? {
                let hash = if options.hash && is_plain_file(&entry) {
                    let mut hasher = blake3::Hasher::new();
                    loop {
                        let n = reader.read(&mut buf).map_err(|e| fail(e.into()))?;
                        if n == 0 {
                            break;
                        }
                        hasher.update(&buf[..n]);
                    }
                    *hasher.finalize().as_bytes()
                } else {
                    [0; 32]
                };
                tree.add(layer, &entry, hash, options.apply_whiteouts);
                if observer.cancelled() {
                    return Err(MergeError::Cancelled);
                }
                observer.progress(Stage::ReadOld, before + reader.position(), total);
            }
            before += bytes.size();
            observer.progress(Stage::ReadOld, before, total);
        }
        Ok(tree)
    }

    /// All regular files of all layers, replaced ones too.
    pub fn files(&self) -> &[OldFile] {
        &self.files
    }

    /// Whether any layer holds whiteout members.
    pub fn has_whiteouts(&self) -> bool {
        self.has_whiteouts
    }

    /// The paths under which file `index` can be relied on, in the order they were given.
    pub fn trusted_paths(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        self.files[index].paths.iter().map(Vec::as_slice).filter(move |path| {
            self.nodes.get(*path).is_some_and(|n| n.what == What::File { index, trusted: true })
        })
    }

    /// The file that a reader of the extracted tree finds at `path`, symbolic links resolved inside the root.
    pub fn find(&self, path: &[u8]) -> Option<&OldFile> {
        let file_at = |path: &[u8]| match self.nodes.get(path)?.what {
            What::File { index, .. } => Some(&self.files[index]),
            _ => None,
        };
        file_at(path).or_else(|| file_at(&self.resolve(path, true)?))
    }

    fn add(&mut self, layer: usize, entry: &Entry, hash: [u8; 32], whiteouts: bool) {
        if entry.kind == Kind::GlobalHeader {
            return;
        }
        let Some(path) = clean_path(&entry.name) else {
            // `../x` may land on `x` or nowhere: whatever is there is no longer certain.
            self.evict(&lexical_path(&entry.name));
            return;
        };
        // A member below a file, a whiteout too: some extractors give up, others put a directory in its place.
        let obstacle = self.first_non_directory_above(&path);
        if let Some(node) = obstacle.as_ref().and_then(|at| self.nodes.get_mut(at))
            && !matches!(node.what, What::Link(_))
        {
            node.what = What::Other;
        }
        let base = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
        if base.starts_with(WHITEOUT) {
            self.has_whiteouts = true;
            if whiteouts {
                return self.whiteout(layer, &path[..path.len() - base.len()], base);
            }
        }
        let trusted = obstacle.is_none();
        let resolved = if trusted { None } else { self.resolve(&path, false) };
        let what = self.what(layer, entry, &path, hash, trusted);
        for at in [Some(path), resolved].into_iter().flatten() {
            self.place(at, Node { layer, what: what.clone() });
        }
    }

    /// What a member is; registers the file it brings or names.
    fn what(&mut self, layer: usize, entry: &Entry, path: &[u8], hash: [u8; 32], trusted: bool) -> What {
        match entry.kind {
            Kind::Directory => What::Directory,
            Kind::Symlink => What::Link(entry.link_name.clone()),
            Kind::Hardlink => {
                let target = clean_path(&entry.link_name).filter(|t| t != path);
                match target.and_then(|t| self.nodes.get(&t)).map(|n| &n.what) {
                    Some(&What::File { index, trusted: target_trusted }) => {
                        self.files[index].paths.push(path.to_vec());
                        What::File { index, trusted: trusted && target_trusted }
                    }
                    _ => What::Other,
                }
            }
            _ if is_plain_file(entry) => {
                self.files.push(OldFile {
                    layer,
                    offset: entry.content_offset,
                    size: entry.content_len,
                    mode: entry.mode,
                    hash,
                    paths: vec![path.to_vec()],
                });
                What::File { index: self.files.len() - 1, trusted }
            }
            _ => What::Other,
        }
    }

    /// Puts a node at a path; drops what it replaces and, unless both are directories, all below it.
    fn place(&mut self, path: Vec<u8>, node: Node) {
        if node.what != What::Directory {
            self.evict_below(&path, usize::MAX);
            self.nodes.insert(path, node);
            return;
        }
        match self.nodes.entry(path) {
            // Some tools keep the link, some put a directory in its place: it stays an obstacle.
            Slot::Occupied(slot) if matches!(slot.get().what, What::Link(_)) => {}
            Slot::Occupied(mut slot) => {
                slot.insert(node);
            }
            Slot::Vacant(slot) => {
                slot.insert(node);
            }
        }
    }

    fn whiteout(&mut self, layer: usize, directory: &[u8], base: &[u8]) {
        let directory = directory.strip_suffix(b"/").unwrap_or(directory);
        let resolved = |tree: &Tree, path: &[u8]| {
            if tree.first_non_directory_above(path).is_some() { tree.resolve(path, false) } else { None }
        };
        if base == OPAQUE {
            let probe = [directory, b"/x"].concat();
            let elsewhere = resolved(self, &probe).map(|p| p[..p.len() - 2].to_vec());
            for at in [Some(directory.to_vec()), elsewhere].into_iter().flatten() {
                self.evict_below(&at, layer);
            }
            return;
        }
        let name = &base[WHITEOUT.len()..];
        // `.wh..wh.*` are aufs' own notes; they remove nothing.
        if name.is_empty() || name.starts_with(WHITEOUT) {
            return;
        }
        let path = if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() };
        let elsewhere = resolved(self, &path);
        for at in [Some(path), elsewhere].into_iter().flatten() {
            self.evict(&at);
        }
    }

    /// Drops a path and everything below it.
    fn evict(&mut self, path: &[u8]) {
        self.nodes.remove(path);
        self.evict_below(path, usize::MAX);
    }

    /// Drops everything below `path` that came from a layer before `before`.
    fn evict_below(&mut self, path: &[u8], before: usize) {
        let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let below: Vec<Vec<u8>> = self
            .nodes
            .range(prefix.clone()..)
            .take_while(|(p, _)| p.starts_with(&prefix))
            .filter(|(_, node)| node.layer < before)
            .map(|(p, _)| p.clone())
            .collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    /// The shortest proper prefix of `path` that is known and no directory.
    fn first_non_directory_above(&self, path: &[u8]) -> Option<Vec<u8>> {
        path.iter()
            .enumerate()
            .filter(|&(_, &b)| b == b'/')
            .map(|(i, _)| &path[..i])
            .find(|above| self.nodes.get(*above).is_some_and(|n| n.what != What::Directory))
            .map(<[u8]>::to_vec)
    }

    /// `path` with symbolic links resolved inside the root, the last component only if `last`. `None` for loops and
    /// for paths that run through something else than a directory.
    fn resolve(&self, path: &[u8], last: bool) -> Option<Vec<u8>> {
        let mut todo: Vec<Vec<u8>> = components(path).rev().collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                done.pop();
                continue;
            }
            done.push(part);
            let here = done.join(&b'/');
            match self.nodes.get(&here).map(|n| &n.what) {
                Some(What::Link(target)) if last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    done.pop();
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    todo.extend(components(target).rev());
                }
                Some(What::File { .. } | What::Other) if !todo.is_empty() => return None,
                _ => {}
            }
        }
        Some(done.join(&b'/')).filter(|p| !p.is_empty())
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec)
}

/// A regular file stored as it is; sparse files are not.
fn is_plain_file(entry: &Entry) -> bool {
    entry.kind == Kind::Regular && entry.sparse.is_none()
}

/// Why layers could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A layer is not a readable tar.
    #[error("{error}")]
    Tar {
        /// Index of the layer.
        layer: usize,
        /// The reason.
        error: tar::Error,
    },
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Quiet;
    use coracle_testkit::tar_builder::TarBuilder;

    fn tree(layers: &[Vec<u8>], apply_whiteouts: bool) -> Tree {
        let layers: Vec<&dyn ReadAt> = layers.iter().map(|l| l as &dyn ReadAt).collect();
        Tree::merge(&layers, MergeOptions { apply_whiteouts, ..Default::default() }, &Quiet).unwrap()
    }

    fn trusted(tree: &Tree) -> Vec<String> {
        let mut all: Vec<String> = (0..tree.files().len())
            .flat_map(|i| tree.trusted_paths(i))
            .map(|p| String::from_utf8_lossy(p).into_owned())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn any_later_entry_of_a_path_drops_the_earlier_one() {
        type Later = fn(&mut TarBuilder) -> &mut TarBuilder;
        let cases: [(&str, Later); 6] = [
            ("empty file", |b| b.file("x/a", b"")),
            ("symlink", |b| b.symlink("x/a", "keep")),
            ("directory", |b| b.dir("x/a")),
            ("fifo", |b| b.fifo("x/a")),
            ("hardlink to nothing", |b| b.hardlink("x/a", "gone")),
            ("other spelling", |b| b.symlink("./x//a", "keep")),
        ];
        for (what, later) in cases {
            let mut base = TarBuilder::new();
            base.file("x/a", b"old").file("x/keep", b"k");
            let t = tree(&[later(&mut base).finish()], false);
            if what == "empty file" {
                assert_eq!(t.find(b"x/a").unwrap().size, 0, "{what}");
            } else {
                assert_eq!(trusted(&t), ["x/keep"], "{what}");
            }
        }
    }

    #[test]
    fn a_file_over_a_directory_drops_all_below() {
        let a = TarBuilder::new().file("d/e/f", b"1").file("d/g", b"2").file("de", b"3").finish();
        let b = TarBuilder::new().symlink("d", "elsewhere").finish();
        assert_eq!(trusted(&tree(&[a, b], false)), ["de"]);
    }

    #[test]
    fn paths_through_links_are_not_trusted_and_spoil_their_target() {
        let t = tree(
            &[
                TarBuilder::new().file("b/x", b"1").file("b/y", b"2").symlink("a", "b").finish(),
                TarBuilder::new().file("a/x", b"3").finish(),
            ],
            false,
        );
        assert_eq!(trusted(&t), ["b/y"]);
        assert_eq!(t.find(b"b/x").unwrap().layer, 1);
        assert_eq!(t.find(b"a/y").unwrap().size, 1, "readers follow the link");
    }

    #[test]
    fn dotdot_names_spoil_what_they_might_touch() {
        let t = tree(&[TarBuilder::new().file("x", b"1").file("y", b"2").file("../x", b"3").finish()], false);
        assert_eq!(trusted(&t), ["y"]);
    }

    #[test]
    fn whiteouts_remove_files_and_directories() {
        let lower = TarBuilder::new()
            .file("d/a", b"1")
            .file("d/sub/b", b"2")
            .file("o/in", b"3")
            .file("top", b"4")
            .file("keep", b"5")
            .finish();
        let upper = TarBuilder::new()
            .file("d/.wh.sub", b"")
            .file(".wh.top", b"")
            .file("o/fresh", b"6")
            .file("o/.wh..wh..opq", b"")
            .finish();
        assert_eq!(trusted(&tree(&[lower.clone(), upper.clone()], true)), ["d/a", "keep", "o/fresh"]);
        let off = tree(&[lower, upper], false);
        assert!(off.has_whiteouts());
        assert!(off.find(b"d/sub/b").is_some());
    }

    #[test]
    fn hardlinks_reach_into_earlier_layers() {
        let t = tree(
            &[
                TarBuilder::new().file("a", b"content").finish(),
                TarBuilder::new().hardlink("b", "a").hardlink("self", "self").finish(),
                TarBuilder::new().file("a", b"newer").finish(),
            ],
            false,
        );
        assert_eq!(trusted(&t), ["a", "b"]);
        assert_eq!(t.find(b"b").unwrap().layer, 0);
        assert_eq!(t.find(b"a").unwrap().layer, 2);
    }

    #[test]
    fn a_whiteout_below_a_file_makes_the_file_uncertain() {
        for whiteout in ["d/.wh..wh..opq", "d/.wh.x"] {
            let t = tree(&[TarBuilder::new().file("d", b"1").file(whiteout, b"").finish()], true);
            assert!(trusted(&t).is_empty(), "{whiteout}");
        }
    }

    #[test]
    fn link_loops_end() {
        let t =
            tree(&[TarBuilder::new().symlink("l", "m").symlink("m", "l").file("l/x", b"1").finish()], false);
        assert!(t.find(b"l/y").is_none());
        assert!(trusted(&t).is_empty());
    }
}
