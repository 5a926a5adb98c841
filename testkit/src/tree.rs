//! Extracted trees on disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use serde::Deserialize;
use tempfile::TempDir;

use crate::Error;
use crate::golden::from_hex;
use crate::image::Rng;
use crate::oracle::{run_ok, tool};

/// More than any tar of the tests needs.
const EXTRACT_LIMIT: Duration = Duration::from_secs(120);

/// Extracts `tar` with GNU tar into a new directory, which is removed on drop. An empty tar of 0 bytes gives
/// an empty directory.
///
/// Modes are kept, owners are not. Leading slashes are dropped.
///
/// # Errors
/// GNU tar is missing or rejects the tar.
pub fn extract(tar: &[u8]) -> Result<TempDir, Error> {
    extract_layers(&[tar], false)
}

/// Extracts several tars in turn into one new directory, as the layers of an image.
///
/// With `apply_whiteouts`, members named `.wh.NAME` and `.wh..wh..opq` remove what the tars before have put
/// there (OCI image specification, layer.md, "Whiteouts") and do not appear themselves. Otherwise they are
/// ordinary files.
///
/// # Errors
/// As [`extract`].
pub fn extract_layers(tars: &[impl AsRef<[u8]>], apply_whiteouts: bool) -> Result<TempDir, Error> {
    let dir = new_dir()?;
    for tar in tars.iter().map(AsRef::as_ref).filter(|tar| !tar.is_empty()) {
        let archive = tempfile::NamedTempFile::new().map_err(|error| Error::io(Path::new("tar"), error))?;
        fs::write(&archive, tar).map_err(|error| Error::io(archive.path(), error))?;
        if apply_whiteouts {
            remove_whited_out(archive.path(), dir.path())?;
        }
        let mut command = gnu_tar()?;
        command.args(["--extract", "--same-permissions", "--no-same-owner", "--delay-directory-restore"]);
        if apply_whiteouts {
            command.arg("--exclude=.wh.*");
        }
        run_ok(command.arg("--directory").arg(dir.path()).arg("--file").arg(archive.path()), EXTRACT_LIMIT)?;
    }
    Ok(dir)
}

/// Removes from `dir` what the whiteouts in `archive` name.
fn remove_whited_out(archive: &Path, dir: &Path) -> Result<(), Error> {
    let mut command = gnu_tar()?;
    command.args(["--list", "--quoting-style=literal", "--show-transformed-names", "--file"]).arg(archive);
    let names = run_ok(&mut command, EXTRACT_LIMIT)?;
    for name in names.split(|byte| *byte == b'\n') {
        let path = dir.join(inside(Path::new(OsStr::from_bytes(name)))?);
        let (Some(parent), Some(base)) = (path.parent(), path.file_name()) else { continue };
        if base == ".wh..wh..opq" {
            if parent.is_dir() {
                fs::remove_dir_all(parent)
                    .and_then(|()| fs::create_dir(parent))
                    .map_err(|error| Error::io(parent, error))?;
            }
        } else if let Some(hidden) = base.as_bytes().strip_prefix(b".wh.") {
            let hidden = parent.join(OsStr::from_bytes(hidden));
            let result = match hidden.symlink_metadata() {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&hidden),
                Ok(_) => fs::remove_file(&hidden),
                Err(_) => Ok(()),
            };
            result.map_err(|error| Error::io(&hidden, error))?;
        }
    }
    Ok(())
}

fn gnu_tar() -> Result<Command, Error> {
    let mut command = Command::new(tool("tar")?);
    command.env("LC_ALL", "C");
    Ok(command)
}

/// One entry of a described tree (`tree` in a `case.json`).
#[derive(Debug, Clone, Deserialize)]
pub struct TreeEntry {
    /// Path relative to the directory that the tree is built in.
    pub path: PathBuf,
    /// What it is.
    #[serde(flatten)]
    pub kind: TreeEntryKind,
}

/// What a [`TreeEntry`] is.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum TreeEntryKind {
    /// A regular file.
    File {
        /// A description of the content, see [`described_content`].
        content: String,
    },
    /// A symlink.
    Symlink {
        /// Its target.
        target: PathBuf,
    },
    /// A FIFO.
    Fifo,
}

/// One change of an extracted tree (`tree_edits` in a `case.json`).
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum TreeEdit {
    /// Other bytes in a file.
    Overwrite {
        /// The file.
        path: PathBuf,
        /// Where, in bytes from its start.
        offset: u64,
        /// The new bytes in hexadecimal.
        bytes_hex: String,
    },
}

/// Builds the described tree in a new directory, with parent directories as needed.
///
/// # Errors
/// A path leaves the directory, or a file cannot be made.
pub fn build(entries: &[TreeEntry]) -> Result<TempDir, Error> {
    let dir = new_dir()?;
    for entry in entries {
        let path = dir.path().join(inside(&entry.path)?);
        let parent = path.parent().unwrap_or(dir.path());
        fs::create_dir_all(parent).map_err(|error| Error::io(parent, error))?;
        let result = match &entry.kind {
            TreeEntryKind::File { content } => fs::write(&path, described_content(content)),
            TreeEntryKind::Symlink { target } => symlink(target, &path),
            TreeEntryKind::Fifo => mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).map_err(Into::into),
        };
        result.map_err(|error| Error::io(&path, error))?;
    }
    Ok(dir)
}

/// The content that a [`TreeEntryKind::File`] describes: `TEXT x N` is the text N times, `N bytes` is that
/// many arbitrary bytes, anything else is itself. An explanation may follow the first two.
pub fn described_content(description: &str) -> Vec<u8> {
    let number = |text: &str| text.split([' ', ',']).next().and_then(|word| word.parse::<usize>().ok());
    if let Some((text, count)) = description.split_once(" x ").and_then(|(t, n)| Some((t, number(n)?))) {
        return text.as_bytes().repeat(count);
    }
    if let Some((count, _)) = description.split_once(" bytes").and_then(|(n, rest)| Some((number(n)?, rest)))
    {
        return Rng::new(count as u64).bytes(count);
    }
    description.as_bytes().to_vec()
}

/// Makes the changes in the tree at `dir`.
///
/// # Errors
/// A path leaves the directory, or a file cannot be written.
pub fn edit(dir: &Path, edits: &[TreeEdit]) -> Result<(), Error> {
    for TreeEdit::Overwrite { path, offset, bytes_hex } in edits {
        let path = dir.join(inside(path)?);
        let bytes = from_hex(bytes_hex)?;
        let write = || {
            let mut file = File::options().write(true).open(&path)?;
            file.seek(SeekFrom::Start(*offset))?;
            file.write_all(&bytes)
        };
        write().map_err(|error| Error::io(&path, error))?;
    }
    Ok(())
}

/// All regular files beneath `dir` with their content, by their path relative to it. Symlinks are not
/// followed.
///
/// # Errors
/// Something cannot be read.
pub fn files(dir: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    let mut found = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let here = dir.join(&below);
        for entry in fs::read_dir(&here).map_err(|error| Error::io(&here, error))? {
            let entry = entry.map_err(|error| Error::io(&here, error))?;
            let path = below.join(entry.file_name());
            let kind = entry.file_type().map_err(|error| Error::io(&entry.path(), error))?;
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                let content = fs::read(entry.path()).map_err(|error| Error::io(&entry.path(), error))?;
                found.insert(path.into_os_string().into_vec(), content);
            }
        }
    }
    Ok(found)
}

fn new_dir() -> Result<TempDir, Error> {
    tempfile::tempdir().map_err(|error| Error::io(&std::env::temp_dir(), error))
}

/// `path` without a leading slash and dots; an error if it has `..`.
fn inside(path: &Path) -> Result<PathBuf, Error> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(Ok(name)),
            Component::ParentDir => Some(Err(Error::data(path.to_string_lossy(), "leaves its tree"))),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar_builder::TarBuilder;

    #[test]
    fn layers_replace_and_white_out() {
        let lower = TarBuilder::new()
            .file("d/a", "1")
            .file("d/gone", "2")
            .file("o/in/side", "3")
            .file("kept", "4")
            .file("gone-dir/f", "5")
            .finish();
        // Whiteouts act on the layers below only, wherever they stand in their own.
        let upper = TarBuilder::new()
            .file("o/fresh", "6")
            .file("o/.wh..wh..opq", "")
            .file("d/.wh.gone", "")
            .file("./.wh.gone-dir", "")
            .file("d/a", "7")
            .file("x/.wh.absent", "")
            .finish();
        let tree = extract_layers(&[&lower, &upper], true).unwrap();
        let found = files(tree.path()).unwrap();
        let expected = [("d/a", "7"), ("kept", "4"), ("o/fresh", "6")];
        let found: Vec<(&[u8], &[u8])> =
            found.iter().map(|(path, content)| (path.as_slice(), content.as_slice())).collect();
        assert_eq!(found, expected.map(|(path, content)| (path.as_bytes(), content.as_bytes())));
        let all = extract_layers(&[&lower, &upper], false).unwrap();
        assert_eq!(files(all.path()).unwrap().len(), 10);
    }

    #[test]
    fn no_bytes_are_an_empty_tree() {
        assert!(files(extract(b"").unwrap().path()).unwrap().is_empty());
        assert!(matches!(extract(b"not a tar").unwrap_err(), Error::Failed { .. }));
    }

    #[test]
    fn described_trees_are_built_and_edited() {
        let spec = r#"[{"path": "t/x/a", "type": "symlink", "target": "../../secret"},
            {"path": "t/f", "type": "fifo"},
            {"path": "secret", "type": "file", "content": "AB x 3 (outside)"}]"#;
        let entries: Vec<TreeEntry> = serde_json::from_str(spec).unwrap();
        let tree = build(&entries).unwrap();
        assert_eq!(fs::read(tree.path().join("t/x/a")).unwrap(), b"ABABAB");
        let edits = r#"[{"op": "overwrite", "path": "secret", "offset": 2, "bytes_hex": "7a5A"}]"#;
        edit(tree.path(), &serde_json::from_str::<Vec<TreeEdit>>(edits).unwrap()).unwrap();
        assert_eq!(fs::read(tree.path().join("secret")).unwrap(), b"ABzZAB");
        let outside = TreeEntry { path: "a/../../b".into(), kind: TreeEntryKind::Fifo };
        assert!(build(&[outside]).is_err());
    }

    #[test]
    fn descriptions() {
        assert_eq!(described_content("any"), b"any");
        assert_eq!(described_content("TOP SECRET x 100 (why)"), b"TOP SECRET".repeat(100));
        assert_eq!(described_content("20000 bytes, outside").len(), 20000);
        assert_eq!(described_content("some bytes"), b"some bytes");
    }
}
