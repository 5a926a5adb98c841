//! Other implementations, to compare Coracle with in tests.
//!
//! A crate of its own because the `oci-delta` crate links OpenSSL: building this needs the Debian packages
//! `libssl-dev` and `pkg-config`, which nothing else in the workspace does. It is no default member.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use oci_delta::{DeltaDataSource, tar_patch_apply};

/// Applies a tar-diff delta with the crate `oci-delta` (the one that bootc uses) to the files beneath `root`
/// and returns the new tar.
///
/// The result is not compared with any digest. The tree must be one that the test made itself: nothing keeps
/// a symlink in it from leading elsewhere.
///
/// # Errors
/// What the crate says, with causes.
pub fn oci_delta_apply(delta: &[u8], root: &Path) -> Result<Vec<u8>, String> {
    let mut source = Tree { root: root.to_owned(), current: None };
    let mut out = Vec::new();
    tar_patch_apply(delta, &mut source, &mut out).map_err(|error| format!("{error:#}"))?;
    Ok(out)
}

/// Source files in an extracted tree.
struct Tree {
    root: PathBuf,
    current: Option<File>,
}

impl Tree {
    fn current(&mut self) -> anyhow::Result<&mut File> {
        self.current.as_mut().context("no current file")
    }
}

impl DeltaDataSource for Tree {
    fn set_current_file(&mut self, path: &str) -> anyhow::Result<()> {
        self.current = None;
        let mut full = self.root.clone();
        for component in Path::new(path).components() {
            match component {
                Component::Normal(name) => full.push(name),
                Component::CurDir => {}
                _ => bail!("path {path:?} leaves the tree"),
            }
        }
        let file = File::open(&full).with_context(|| format!("opening {path:?}"))?;
        ensure!(file.metadata()?.is_file(), "{path:?} is not a regular file");
        self.current = Some(file);
        Ok(())
    }

    fn read_exact_current(&mut self, buf: &mut [u8]) -> anyhow::Result<()> {
        Ok(self.current()?.read_exact(buf)?)
    }

    fn seek_current(&mut self, offset: u64) -> anyhow::Result<u64> {
        Ok(self.current()?.seek(SeekFrom::Start(offset))?)
    }

    fn read_current_to_end(&mut self, max_size: u64) -> anyhow::Result<Vec<u8>> {
        let file = self.current()?;
        ensure!(file.metadata()?.len() <= max_size, "source is larger than {max_size} bytes");
        file.seek(SeekFrom::Start(0))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(content)
    }

    fn copy_to(&mut self, dst: &mut dyn Write, n: u64) -> anyhow::Result<()> {
        let copied = std::io::copy(&mut self.current()?.take(n), dst)?;
        ensure!(copied == n, "source ends after {copied} of {n} bytes");
        Ok(())
    }
}
